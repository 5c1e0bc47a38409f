//! Credentials: they reach the server that they are for, and nothing that is written or printed.

use crate::project;
use std::path::Path;
use trainlock_testing::{Fault, FaultServer, Ran, TestContext};

const QUERY: &str = "q-secret-5b1f";
const TOKEN: &str = "t-secret-9c2e";
const PASSWORD: &str = "p-secret-77aa";
const HELPED: &str = "h-secret-30d4";
const VARIABLE: &str = "v-secret-e811";
/// As it is sent: the base64 of `user:PASSWORD` and of `user:VARIABLE`.
const BASIC: [&str; 2] = ["dXNlcjpwLXNlY3JldC03N2Fh", "dXNlcjp2LXNlY3JldC1lODEx"];

/// A data set for each way in which credentials come, each at a server that wants exactly these.
struct Servers {
    query: FaultServer,
    token: FaultServer,
    netrc: FaultServer,
    helper: FaultServer,
    variable: FaultServer,
}

impl Servers {
    fn start() -> Servers {
        let wants = |authorization: String| {
            let server = FaultServer::start();
            server.script("/x.csv", "x", [Fault::Authorized(authorization)]);
            server
        };
        let query = FaultServer::start();
        query.serve("/x.csv", "x");
        Servers {
            query,
            token: wants(format!("Bearer {TOKEN}")),
            netrc: wants(format!("Basic {}", BASIC[0])),
            helper: wants(format!("Bearer {HELPED}")),
            variable: wants(format!("Basic {}", BASIC[1])),
        }
    }

    fn manifest(&self) -> String {
        let data = [
            ("query", self.query.url(&format!("/x.csv?X-Signature={QUERY}&part=1"))),
            ("token", self.token.url("/x.csv")),
            // `localhost` is a host of its own.
            ("netrc", self.netrc.other_host_url("/x.csv")),
            ("helper", self.helper.url("/x.csv")),
            ("variable", self.variable.url("/x.csv")),
        ];
        let mut text = "[data]\n".to_owned();
        for (name, url) in &data {
            text += &format!("{name} = {{ url = \"{url}\", to = \"data/{name}\" }}\n");
        }
        let inputs: Vec<String> = data.iter().map(|(name, _)| format!("\"data/{name}\"")).collect();
        text + &format!(
            "[steps.s]\nrun = \"cat data/* > out\"\ninputs = [{}]\noutputs = [\"out\"]\n",
            inputs.join(", ")
        )
    }

    /// The configuration, netrc and helper, outside of what is searched for secrets.
    fn configure(&self, folder: &Path) {
        let port = |server: &FaultServer| server.url("").rsplit(':').next().unwrap().to_owned();
        let helper = format!("#!/bin/sh\ncase $1 in 127.0.0.1:{}) echo {HELPED};; esac\n", port(&self.helper));
        fs_err::write(folder.join("helper"), helper).unwrap();
        let config = format!(
            "[auth.\"127.0.0.1:{}\"]\ntoken = \"{TOKEN}\"\n\n[auth.\"127.0.0.1:{}\"]\ncommand = [\"/bin/sh\", \"{}\"]\n[fetch]\nretries = 0\n",
            port(&self.token),
            port(&self.helper),
            folder.join("helper").display(),
        );
        fs_err::write(folder.join("config.toml"), config).unwrap();
        fs_err::write(folder.join("netrc"), format!("machine localhost login user password {PASSWORD}\n")).unwrap();
    }

    fn run(&self, context: &TestContext, secrets: &Path, args: &[&str]) -> Ran {
        let mut command = context.command(args);
        let port = self.variable.url("");
        let name = format!("TRAINLOCK_AUTH_127_0_0_1_{}", port.rsplit(':').next().unwrap());
        command.env("TRAINLOCK_CONFIG", secrets.join("config.toml")).env("NETRC", secrets.join("netrc"));
        command.env(name, format!("user:{VARIABLE}"));
        Ran::of(&mut command)
    }
}

fn assert_clean(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in [QUERY, TOKEN, PASSWORD, HELPED, VARIABLE].iter().chain(&BASIC) {
        assert!(!text.contains(secret), "{what} holds {secret}:\n{text}");
    }
}

fn assert_clean_folder(folder: &Path, besides: &[&Path]) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if besides.contains(&path.as_path()) || path.is_symlink() {
            continue;
        }
        match path.is_dir() {
            true => assert_clean_folder(&path, besides),
            false => assert_clean(&path.display().to_string(), &fs_err::read(&path).unwrap()),
        }
    }
}

#[test]
fn no_secret_is_written_or_printed() {
    let servers = Servers::start();
    let context = project(&servers.manifest());
    let secrets = context.root().join("secrets");
    fs_err::create_dir(&secrets).unwrap();
    servers.configure(&secrets);
    let manifest = context.project().join("train.toml");
    let check = |args: &[&str], code: i32| {
        let ran = servers.run(&context, &secrets, args).expect(code);
        assert_clean(&args.join(" "), format!("{}{}", ran.stdout, ran.stderr).as_bytes());
        // The manifest is where the user put the signature.
        assert_clean_folder(context.root(), &[&manifest, &secrets]);
        ran
    };
    check(&["lock"], 0);
    let lock = context.read("train.lock");
    assert!(lock.contains("X-Signature=REDACTED-") && lock.contains("&part=1"), "{lock}");
    check(&["train", "-v"], 0);
    assert_eq!(context.read("out"), "xxxxx");
    for args in
        [&["runs", "show", "last", "--json"][..], &["status", "--json"], &["metadata"], &["audit"], &["why", "s"]]
    {
        check(args, 0);
    }
    // From nothing but the lock and the manifest, then with credentials refused, then with a dead server.
    fs_err::remove_dir_all(context.store()).unwrap();
    check(&["fetch", "--locked", "--json"], 0);
    for server in [&servers.token, &servers.netrc, &servers.helper, &servers.variable] {
        server.script("/x.csv", "x", [Fault::Status(403)]);
    }
    let asked = servers.query.requests("/x.csv");
    assert!(asked.iter().all(|request| request.target.contains(QUERY)) && !asked.is_empty());
    servers.query.script("/x.csv", "", [Fault::Close]);
    fs_err::remove_dir_all(context.store()).unwrap();
    let failed = check(&["train", "-v", "--locked", "--force"], 1);
    assert!(failed.stderr.contains("refuses them (status 403)"), "{}", failed.stderr);
    assert!(failed.stderr.contains("X-Signature=REDACTED"), "{}", failed.stderr);
    check(&["lock", "--config", "fetch.retries=0"], 0);
    check(&["update"], 1);
}

#[test]
fn credentials_stay_with_their_host() {
    let (here, there) = (FaultServer::start(), FaultServer::start());
    here.script("/moved", "", [Fault::Redirect(there.other_host_url("/x"))]);
    there.serve("/x", "x");
    let context = project(&format!("[data]\na = {{ url = \"{}\", to = \"data/a\" }}\n", here.url("/moved")));
    let config = context.root().join("config.toml");
    fs_err::write(&config, format!("[auth.\"127.0.0.1\"]\ntoken = \"{TOKEN}\"\n")).unwrap();
    let mut command = context.command(["lock"]);
    Ran::of(command.env("TRAINLOCK_CONFIG", &config)).expect(0);
    let sent = format!("Bearer {TOKEN}");
    assert_eq!(here.requests("/moved")[0].header("authorization"), Some(sent.as_str()));
    assert_eq!(there.requests("/x")[0].header("authorization"), None);

    // What is wrong with the configuration is told without what it holds.
    for (text, words) in [
        (format!("[auth.\"h\"]\ntokn = \"{TOKEN}\"\n"), "unknown key `tokn`"),
        (format!("[auth.\"h\"]\ntoken = [\"{TOKEN}\"]\n"), "value of another kind"),
        (format!("[auth.\"h\"]\ntoken = \"{TOKEN}\n"), "line 2"),
        ("[auth.\"h\"]\ntoken-env = \"NOT_SET_ANYWHERE\"\n".to_owned(), "`NOT_SET_ANYWHERE` is not set"),
    ] {
        fs_err::write(&config, text).unwrap();
        let ran = Ran::of(context.command(["lock"]).env("TRAINLOCK_CONFIG", &config)).expect(2);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert_clean("the error", ran.stderr.as_bytes());
    }
    let ran = context.run(["lock", "--config", &format!("auth.h.token={TOKEN}")]).expect(2);
    assert!(ran.stderr.contains("belongs into the configuration file"), "{}", ran.stderr);
}

#[test]
fn an_address_is_read_from_elsewhere() {
    let server = FaultServer::start();
    server.serve("/mirror/data/a.csv", "a");
    let context = project("[data]\na = { url = \"https://example.org/data/a.csv\" }\n");
    let config = context.root().join("config.toml");
    let run = |with: &str, args: &[&str]| {
        let text = format!("[source.\"https://example.org\"]\nreplace-with = \"{with}\"\n[fetch]\nretries = 0\n");
        fs_err::write(&config, text).unwrap();
        Ran::of(context.command(args).env("TRAINLOCK_CONFIG", &config))
    };
    let mirror = server.url("/mirror");
    run(&mirror, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains("https://example.org/data/a.csv") && !lock.contains("127.0.0.1"), "{lock}");

    // Other bytes there are found out; errors name both addresses.
    fs_err::remove_dir_all(context.store()).unwrap();
    server.serve("/mirror/data/a.csv", "b");
    let failed = run(&mirror, &["fetch"]).expect(4);
    let both = format!("https://example.org/data/a.csv (replaced by {mirror}/data/a.csv)");
    assert!(failed.stderr.contains(&both), "{}", failed.stderr);

    // A folder of this machine needs no network.
    let folder = context.root().join("a mirror/data");
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::write(folder.join("a.csv"), "a").unwrap();
    let with = format!("file://{}", folder.parent().unwrap().display()).replace(' ', "%20");
    run(&with, &["fetch", "--offline"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_file(folder.join("a.csv")).unwrap();
    let failed = run(&with, &["fetch", "--offline"]).expect(1);
    assert!(failed.stderr.contains("a.csv"), "{}", failed.stderr);
    let failed = run("s3://bucket", &["fetch"]).expect(2);
    assert!(failed.stderr.contains("https://example.org"), "{}", failed.stderr);
}

const PROXY: &str = "x-secret-41f0";
const REGISTRY: &str = "r-secret-c7d3";
const REPOSITORY: &str = "g-secret-8e55";
/// As they are sent: the base64 of `user:` and each.
const OTHERS: [&str; 3] = ["dXNlcjp4LXNlY3JldC00MWYw", "dXNlcjpyLXNlY3JldC1jN2Qz", "dXNlcjpnLXNlY3JldC04ZTU1"];

/// Runs a command and looks for secrets in all that it said and in all that there is besides what holds them by right.
fn watched(context: &TestContext, command: &mut std::process::Command, besides: &[&Path], code: i32) -> Ran {
    let ran = Ran::of(command).expect(code);
    let what = format!("{:?}", command.get_args());
    let clean = |what: &str, text: &str| {
        for secret in [PROXY, REGISTRY, REPOSITORY, TOKEN].iter().chain(&OTHERS) {
            assert!(!text.contains(secret), "{what} holds {secret}:\n{text}");
        }
    };
    clean(&what, &format!("{}{}", ran.stdout, ran.stderr));
    let mut open = vec![context.root().to_owned()];
    while let Some(path) = open.pop() {
        if besides.contains(&path.as_path()) || path.is_symlink() {
            continue;
        }
        match path.is_dir() {
            true => open.extend(fs_err::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
            false => clean(&path.display().to_string(), &String::from_utf8_lossy(&fs_err::read(&path).unwrap())),
        }
    }
    ran
}

#[test]
fn no_password_of_a_proxy_is_written_or_printed() {
    let proxy = FaultServer::start();
    let proxied = |path: &str| format!("http://data.invalid{path}");
    proxy.serve(&proxied("/x.csv"), "x");
    let context = project(
        "[data]\nx = { url = \"http://data.invalid/x.csv\", to = \"data/x\" }\n[steps.s]\nrun = \"cat data/x > out\"\ninputs = [\"data/x\"]\noutputs = [\"out\"]\n",
    );
    let address = proxy.url("").replace("http://", &format!("http://user:{PROXY}@"));
    let check = |address: &str, args: &[&str], code: i32| {
        let mut command = context.command(args);
        command.env("http_proxy", address).env("https_proxy", address).args(["--config", "fetch.retries=0"]);
        watched(&context, &mut command, &[], code)
    };
    check(&address, &["train", "-v"], 0);
    assert_eq!(context.read("out"), "x");
    let asked = proxy.requests(&proxied("/x.csv"));
    let sent = format!("Basic {}", OTHERS[0]);
    assert!(asked.iter().all(|request| request.header("proxy-authorization") == Some(&sent)), "{asked:?}");
    for args in [&["outdated", "--json"][..], &["audit", "--json"], &["runs", "show", "--json"], &["status", "--json"]]
    {
        check(&address, args, 0);
    }
    // git shows an address that it can't use as it stands.
    let git = project("[data]\ng = { url = \"git+https://git.invalid/r.git\", rev = \"main\" }\n");
    for odd in [format!("http://user:a/{PROXY}@127.0.0.1:1"), format!("http://user:{PROXY}@:bad:")] {
        let mut command = git.command(["lock"]);
        command.env("http_proxy", &odd).env("https_proxy", &odd);
        let failed = watched(&git, &mut command, &[], 1);
        assert!(failed.stderr.contains("proxy"), "{}", failed.stderr);
    }
    // A proxy that refuses, is not there, or has an address that is none.
    fs_err::remove_dir_all(context.store()).unwrap();
    proxy.script(&proxied("/x.csv"), "", [Fault::Status(407)]);
    let failed = check(&address, &["train", "-v", "--force", "--locked"], 1);
    assert!(failed.stderr.contains("407"), "{}", failed.stderr);
    check(&address, &["outdated", "--json"], 1);
    drop(proxy);
    for address in [address, format!("http://user:{PROXY}@no.host.invalid:1"), format!("http://user:{PROXY}@:bad:")] {
        for (args, code) in [(&["fetch", "-v"][..], 1), (&["outdated", "--json"], 1), (&["audit", "--json"], 0)] {
            check(&address, args, code);
        }
    }
}

#[test]
fn no_login_of_a_registry_is_written_or_printed() {
    let server = FaultServer::start();
    crate::images::serve(&server, "1", &[]);
    let index = "/v2/test/sh/manifests/1";
    server.script("/v2/", "", [Fault::Challenge("Basic realm=\"members\"".to_owned())]);
    let reference = server.url("/test/sh:1").split_once("//").unwrap().1.to_owned();
    let registry = server.url("").split_once("//").unwrap().1.to_owned();
    let context = project(&format!("[steps.s]\nimage = \"{reference}\"\nrun = \"true\"\noutputs = [\"out\"]\n"));
    let config = context.home().join(".docker");
    fs_err::create_dir_all(&config).unwrap();
    let text = format!("{{\"auths\": {{\"{registry}\": {{\"auth\": \"{}\"}}}}}}", OTHERS[1]);
    fs_err::write(config.join("config.json"), text).unwrap();
    let check = |args: &[&str], code: i32| {
        let mut command = context.command(args);
        watched(&context, command.args(["--config", "fetch.retries=0"]), &[&config], code)
    };
    check(&["lock", "-v"], 0);
    let sent = format!("Basic {}", OTHERS[1]);
    assert_eq!(server.requests(index).last().unwrap().header("authorization"), Some(sent.as_str()));
    for args in [&["outdated", "--json"][..], &["audit", "--json"], &["fetch", "--json", "-v"], &["metadata"]] {
        check(args, 0);
    }
    server.script(index, "", [Fault::Status(401)]);
    check(&["outdated", "--json"], 1);
    let failed = check(&["update"], 1);
    assert!(failed.stderr.contains("credentials"), "{}", failed.stderr);
    drop(server);
    check(&["update"], 1);
}

#[test]
fn no_login_in_an_address_is_written_or_printed() {
    let context = project("");
    let manifest = context.project().join("train.toml");
    let check = |line: &str, words: &str| {
        crate::write_manifest(&context, line);
        for args in [&["lock", "-v"][..], &["status", "--json"], &["metadata"], &["audit", "--offline"]] {
            let ran = watched(&context, &mut context.command(args), &[&manifest], 2);
            assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        }
    };
    let login = format!("user:{REPOSITORY}@");
    for (scheme, words) in [("git+https", "credentials"), ("https", "credentials"), ("git+http", "unknown kind of URL")]
    {
        check(&format!("[data]\ng = {{ url = \"{scheme}://{login}example.org/r.git\" }}\n"), words);
    }
    // A mistake elsewhere on the line, and in a table of its own beside it.
    let url = format!("url = \"https://example.org/x?access_token={TOKEN}\"");
    check(&format!("[data]\ng = {{ {url}, rve = \"main\" }}\n"), "unknown key `rve`");
    check(&format!("[data.g]\n{url}\nrve = \"main\"\n"), "unknown key `rve`");
    // What may be said in an address, where the server refuses it.
    let server = FaultServer::start();
    server.script("/x", "", [Fault::Status(403)]);
    crate::write_manifest(
        &context,
        &format!("[data]\ng = {{ url = \"{}\" }}\n", server.url(&format!("/x?access_token={TOKEN}"))),
    );
    let failed = watched(&context, &mut context.command(["lock", "-v"]), &[&manifest], 1);
    assert!(failed.stderr.contains("access_token=REDACTED"), "{}", failed.stderr);
}
