//! Container images: from a registry that a test scripts, with layers made of this machine's shell.

use crate::{count, project, write_manifest};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use trainlock_testing::{Fault, FaultServer, TestContext, write_program};
use trainlock_types::Digest;

/// A member of a layer.
enum Member<'a> {
    File(&'a str, Vec<u8>, u32),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Folder(&'a str),
}

fn layer(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        match member {
            Member::File(name, bytes, mode) => {
                header.set_size(bytes.len() as u64);
                header.set_mode(*mode);
                tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
            }
            Member::Folder(name) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o1777);
                tar.append_data(&mut header, name, &[][..]).unwrap();
            }
            Member::Link(name, to) | Member::Hard(name, to) => {
                let link = matches!(member, Member::Link(..));
                header.set_entry_type(if link { tar::EntryType::Symlink } else { tar::EntryType::Link });
                tar.append_link(&mut header, name, to).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// The shell of this machine and the libraries that it loads, at their places, and what images are made of besides.
fn base() -> Vec<u8> {
    let ldd = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let text = String::from_utf8(ldd.stdout).unwrap();
    let libraries: BTreeSet<&str> = text.split_whitespace().filter(|word| word.starts_with('/')).collect();
    let read = |path: &str| fs_err::read(fs_err::canonicalize(path).unwrap()).unwrap();
    let mut members = vec![Member::File("usr/bin/dash", read("/bin/sh"), 0o755)];
    members.extend(libraries.iter().map(|path| Member::File(&path[1..], read(path), 0o755)));
    members.extend([
        Member::Link("bin", "usr/bin"),
        Member::Link("usr/bin/sh", "/usr/bin/dash"),
        Member::File("etc/issue", b"base\n".to_vec(), 0o644),
        Member::File("opt/gone", b"x".to_vec(), 0o644),
        Member::File("opt/old/a", b"x".to_vec(), 0o644),
    ]);
    layer(&members)
}

/// Serves an image of these layers under a tag of `test/sh`, for amd64 and arm64; the digest of its index.
pub(crate) fn serve(server: &FaultServer, tag: &str, layers: &[Vec<u8>]) -> Digest {
    let put = |kind: &str, body: &[u8]| {
        let digest = Digest::of(body);
        server.serve(&format!("/v2/test/sh/{kind}/sha256:{digest}"), body);
        format!("\"digest\": \"sha256:{digest}\", \"size\": {}", body.len())
    };
    let parts: Vec<String> = layers.iter().map(|bytes| format!("{{{}}}", put("blobs", bytes))).collect();
    let manifests: Vec<String> = ["amd64", "arm64"]
        .map(|architecture| {
            let config = format!(
                r#"{{"os": "linux", "architecture": "{architecture}", "config": {{"Env": ["PATH=/opt/bin:/bin", "GREETING=hello image"]}}}}"#
            );
            let config = put("blobs", config.as_bytes());
            let manifest = format!("{{\"schemaVersion\": 2, \"config\": {{{config}}}, \"layers\": [{}]}}", parts.join(", "));
            let manifest = put("manifests", manifest.as_bytes());
            format!("{{{manifest}, \"platform\": {{\"os\": \"linux\", \"architecture\": \"{architecture}\"}}}}")
        })
        .to_vec();
    let index = format!("{{\"schemaVersion\": 2, \"manifests\": [{}]}}", manifests.join(", "));
    server.serve("/v2/", "{}");
    server.serve(&format!("/v2/test/sh/manifests/{tag}"), index.as_bytes());
    put("manifests", index.as_bytes());
    Digest::of(index.as_bytes())
}

fn reference(server: &FaultServer) -> String {
    server.url("/test/sh:1").split_once("//").unwrap().1.to_owned()
}

const STEP: &str = r#"
[steps.s]
run = "read issue < /etc/issue; echo $issue $GREETING $PATH > out/text; for f in /opt/* /opt/*/*; do echo $f >> out/text; done; test ! -e /usr/bin/env"
outputs = ["out/text"]

[steps.host]
run = "test -e /usr/bin/env && echo outside > host"
outputs = ["host"]
"#;

fn with_image(server: &FaultServer) -> TestContext {
    let context = project("");
    write_manifest(&context, &STEP.replacen("run =", &format!("image = \"{}\"\nrun =", reference(server)), 1));
    context
}

fn second() -> Vec<u8> {
    layer(&[
        Member::File("opt/.wh.gone", Vec::new(), 0o644),
        Member::File("opt/old/.wh..wh..opq", Vec::new(), 0o644),
        Member::File("opt/old/b", b"x".to_vec(), 0o644),
        Member::Hard("opt/same", "opt/old/b"),
        Member::File("bin/through-the-link", b"x".to_vec(), 0o755),
        Member::Link("opt/out", "/../../etc/issue"),
    ])
}

const TEXT: &str = "base hello image /trainlock/.bin:/opt/bin:/bin\n/opt/old\n/opt/out\n/opt/same\n/opt/old/b\n";

#[test]
fn a_step_runs_in_its_image_and_in_nothing_else() {
    let server = FaultServer::start();
    let digest = serve(&server, "1", &[base(), second()]);
    let context = with_image(&server);
    context.run(["lock"]).expect(0);
    let lock = context.read("train.lock");
    let named = format!("[[image]]\nreference = \"{}\"\ndigest = \"{digest}\"", reference(&server));
    assert!(lock.contains(&named) && lock.contains("linux-x86_64 ") && lock.contains("linux-aarch64 "), "{lock}");
    context.run(["train"]).expect(0);
    assert_eq!((context.read("out/text"), context.read("host")), (TEXT.to_owned(), "outside\n".to_owned()));
    let record: serde_json::Value =
        serde_json::from_str(&context.run(["runs", "show", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(record["images"][0]["digest"], format!("sha256:{digest}"));
    // What is there already is neither asked for nor unpacked again; nor is it removed while a lock names it.
    let asked = server.request_count();
    context.run(["store", "gc"]).expect(0);
    context.run(["store", "verify"]).expect(0);
    context.run(["train", "--force", "--frozen"]).expect(0);
    assert_eq!((server.request_count(), context.read("out/text")), (asked, TEXT.to_owned()));
}

#[test]
fn a_tag_that_moves_changes_nothing_until_it_is_asked_for() {
    let server = FaultServer::start();
    serve(&server, "1", &[base(), second()]);
    let context = with_image(&server);
    context.run(["train"]).expect(0);
    let before = context.read("train.lock");
    let other = layer(&[Member::File("etc/issue", b"moved\n".to_vec(), 0o644)]);
    serve(&server, "1", &[base(), second(), other]);
    context.run(["train"]).expect(0);
    assert_eq!((context.read("train.lock"), count(&context, "*")), (before.clone(), 2));
    let told = context.run(["update", &reference(&server)]).expect(0).stderr;
    assert!(told.contains("digest: "), "{told}");
    context.run(["train"]).expect(0);
    assert!(context.read("out/text").starts_with("moved hello"));
    // Only the step in the image has another key.
    assert_eq!((count(&context, "s"), count(&context, "host")), (2, 1));
    context.write("train.lock", before);
    context.run(["train", "--locked"]).expect(0);
    assert_eq!((context.read("out/text"), count(&context, "s")), (TEXT.to_owned(), 2));
}

/// Whether some file below a folder has these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs_err::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let metadata = fs_err::symlink_metadata(entry.path()).unwrap();
        match metadata.is_dir() {
            true => holds(&entry.path(), bytes),
            false => metadata.size() == bytes.len() as u64 && fs_err::read(entry.path()).unwrap() == bytes,
        }
    })
}

#[test]
fn a_step_that_calls_what_its_image_does_not_get_is_told_of() {
    let server = FaultServer::start();
    serve(&server, "1", &[base()]);
    let context = project("");
    let image = reference(&server);
    let told = |command: &str| {
        let step =
            |name: &str, more: &str| format!("[steps.{name}]\nrun = {command}\noutputs = [\"{name}\"]\n{more}\n");
        let tools =
            "[tools]\npython3 = { version = \"*\", from = \"host\" }\nbash = { version = \"*\", from = \"host\" }\n";
        let steps = step("host", "") + &step("s", &format!("image = \"{image}\""));
        write_manifest(&context, &format!("{tools}{steps}"));
        context.run(["lock"]).expect(0).stderr
    };
    for (command, word) in
        [("\"cd x && python src/x.py\"", "python"), ("[\"python3\", \"x.py\"]", "python3"), ("\"exec bash x\"", "bash")]
    {
        let words = told(command);
        let warning = format!("step `s` ({}:", context.project().join("train.toml").display());
        assert_eq!(words.matches("warning").count(), 1, "{words}");
        assert!(words.contains(&warning) && words.contains(&format!("calls `{word}` in the image {image}")), "{words}");
    }
    for command in ["\"/usr/bin/python3 x.py\"", "\"sh src/python/x.sh python.txt\""] {
        let words = told(command);
        assert!(!words.contains("warning"), "{words}");
    }
}

#[test]
fn a_damaged_layer_is_refused_and_not_kept() {
    let server = FaultServer::start();
    let (base, second) = (base(), second());
    serve(&server, "1", &[base.clone(), second.clone()]);
    let context = with_image(&server);
    context.run(["lock"]).expect(0);
    let mut damaged = second.clone();
    damaged[600] ^= 1;
    let path = format!("/v2/test/sh/blobs/sha256:{}", Digest::of(&second));
    server.serve(&path, damaged.clone());
    let failed = context.run(["train"]).expect(4).stderr;
    assert!(failed.contains(&Digest::of(&second).to_hex()) && failed.contains("never changes"), "{failed}");
    assert!(!holds(&context.store(), &damaged) && !context.has("out/text"));
    // A manifest that is not what its digest says is no better; nor is a layer that is gone.
    server.script(&path, "", [Fault::Status(404)]);
    let gone = context.run(["train"]).expect(1).stderr;
    assert!(gone.contains("not found (status 404)"), "{gone}");
    server.serve(&path, second);
    context.run(["train"]).expect(0);
}

#[test]
fn a_private_registry_gives_a_token_for_the_login_that_docker_keeps() {
    let server = FaultServer::start();
    serve(&server, "1", &[base(), second()]);
    let challenge = format!("Bearer realm=\"{}\",service=\"test\"", server.url("/token"));
    server.script("/v2/", "", [Fault::Challenge(challenge)]);
    // `u:s3cret-word`
    let login = "dTpzM2NyZXQtd29yZA==";
    server.script("/token", "{\"token\": \"given-t0ken\"}", [Fault::Authorized(format!("Basic {login}"))]);
    let empty = r#"{"schemaVersion": 2, "manifests": []}"#;
    server.script("/v2/test/sh/manifests/1", empty, [Fault::Authorized("Bearer given-t0ken".to_owned())]);
    let context = with_image(&server);
    let refused = context.run(["lock"]).expect(1).stderr;
    assert!(refused.contains("docker login 127.0.0.1"), "{refused}");
    let registry = server.url("").split_once("//").unwrap().1.to_owned();
    let config = context.home().join(".docker");
    fs_err::create_dir_all(&config).unwrap();
    let text = format!("{{\"auths\": {{\"{registry}\": {{\"auth\": \"{login}\"}}}}}}");
    fs_err::write(config.join("config.json"), text).unwrap();
    let empty = context.run(["lock", "-v"]).expect(1);
    let asked = server.requests("/token").last().unwrap().target.clone();
    assert_eq!(asked, "/token?service=test&scope=repository%3Atest%2Fsh%3Apull");
    // It got in: what it found there is for no platform.
    assert!(empty.stderr.contains("no platform"), "{}", empty.stderr);
    assert_eq!(
        server.requests("/v2/test/sh/manifests/1").last().unwrap().header("authorization"),
        Some("Bearer given-t0ken")
    );
    for secret in ["given-t0ken", "s3cret-word", login] {
        let written = [context.project(), context.store()].iter().any(|folder| grep(folder, secret));
        assert!(!written && !empty.stderr.contains(secret) && !refused.contains(secret), "{secret}");
    }
}

#[test]
fn an_identity_token_is_exchanged_for_one_that_the_registry_takes() {
    let server = FaultServer::start();
    serve(&server, "1", &[base(), second()]);
    let challenge = format!("Bearer realm=\"{}\",service=\"test\"", server.url("/token"));
    server.script("/v2/", "", [Fault::Challenge(challenge)]);
    server.serve("/token", "{\"access_token\": \"given-t0ken\", \"refresh_token\": \"another\", \"expires_in\": 60}");
    let empty = r#"{"schemaVersion": 2, "manifests": []}"#;
    server.script("/v2/test/sh/manifests/1", empty, [Fault::Authorized("Bearer given-t0ken".to_owned())]);
    let context = with_image(&server);
    let registry = server.url("").split_once("//").unwrap().1.to_owned();
    let config = context.home().join(".docker");
    let bin = context.root().join("bin");
    for folder in [&config, &bin] {
        fs_err::create_dir_all(folder).unwrap();
    }
    let answer = "#!/bin/sh\nread server\necho '{\"Username\": \"<token>\", \"Secret\": \"1dentity+word\"}'\n";
    write_program(&bin.join("docker-credential-test"), answer);
    let of_file =
        format!("{{\"auths\": {{\"{registry}\": {{\"auth\": \"MDA6\", \"identitytoken\": \"1dentity+word\"}}}}}}");
    let of_helper = "{\"credsStore\": \"test\"}".to_owned();
    let lock = || {
        let mut command = context.command(["lock", "-v"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        trainlock_testing::Ran::of(&mut command).expect(1).stderr
    };
    for text in [of_file, of_helper] {
        fs_err::write(config.join("config.json"), text).unwrap();
        let told = lock();
        // It got in: what it found there is for no platform.
        assert!(told.contains("no platform"), "{told}");
        let asked = server.requests("/token").last().unwrap().clone();
        let form = "grant_type=refresh_token&client_id=trainlock&refresh_token=1dentity%2Bword&service=test&scope=repository%3Atest%2Fsh%3Apull";
        assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body.as_str()), ("POST", "/token", form));
        assert_eq!(asked.header("authorization"), None);
        for secret in ["given-t0ken", "1dentity"] {
            let written = [context.project(), context.store()].iter().any(|folder| grep(folder, secret));
            assert!(!written && !told.contains(secret), "{secret}");
        }
    }
    // One that is not good any more, and a server that sends it on to another.
    for status in [400, 401] {
        server.script("/token", "", [Fault::Status(status)]);
        let refused = lock();
        assert!(refused.contains("did not take the identity token"), "{refused}");
        assert!(refused.contains("docker login 127.0.0.1") && !refused.contains("1dentity"), "{refused}");
    }
    server.script("/token", "", [Fault::Redirect(server.other_host_url("/elsewhere"))]);
    server.serve("/elsewhere", "{}");
    let sent_on = lock();
    assert!(!sent_on.contains("1dentity") && server.requests("/elsewhere").is_empty(), "{sent_on}");
}

fn grep(folder: &Path, text: &str) -> bool {
    fs_err::read_dir(folder).into_iter().flatten().flatten().any(|entry| match entry.path().is_dir() {
        true => grep(&entry.path(), text),
        false => fs_err::read(entry.path()).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text)),
    })
}

#[test]
fn empty_folders_are_there_also_where_an_older_trainlock_unpacked_the_image() {
    let server = FaultServer::start();
    let folders = layer(&[Member::Folder("run/lock/"), Member::Folder("var/tmp/"), Member::Folder("mnt")]);
    serve(&server, "1", &[base(), folders]);
    let context = project("");
    let step = format!(
        "[steps.s]\nimage = \"{}\"\nrun = \"for f in /mnt /run/* /var/*; do test -d $f && echo $f; done > folders; echo x > /var/tmp/x; read x < /tmp/x; ! echo x > /mnt/x\"\noutputs = [\"folders\"]\n",
        reference(&server)
    );
    write_manifest(&context, &step);
    context.run(["train"]).expect(0);
    let all = "/mnt\n/run/lock\n/var/tmp\n";
    assert_eq!(context.read("folders"), all);
    context.run(["store", "gc"]).expect(0);
    context.run(["store", "verify"]).expect(0);
    context.run(["train", "--force", "--frozen"]).expect(0);

    // As it was kept before: under another key, without those folders.
    let lock = context.read("train.lock");
    let host = format!("\"{} ", trainlock_types::Platform::host());
    let manifest = lock.lines().find_map(|line| line.trim().strip_prefix(&host)).unwrap();
    let manifest = manifest.split(' ').next().unwrap();
    let kept = |number: u8| {
        let key = Digest::of(format!("trainlock image {number}\n{manifest}\n").as_bytes()).to_hex();
        context.store().join("results").join(&key[..2]).join(&key[2..])
    };
    let [before, now] = [kept(1), kept(2)];
    let tree = |hex: &str| context.store().join("trees").join(&hex[..2]).join(&hex[2..]);
    let text = fs_err::read_to_string(&now).unwrap();
    let whole = tree(text.lines().last().unwrap());
    for folder in ["mnt", "run/lock", "var/tmp"] {
        fs_err::remove_dir(whole.join(folder)).unwrap();
    }
    let without = Digest::of(b"a tree without").to_hex();
    for place in [&before, &tree(&without)] {
        fs_err::create_dir_all(place.parent().unwrap()).unwrap();
    }
    fs_err::rename(&whole, tree(&without)).unwrap();
    fs_err::write(&before, format!("trainlock-result 1 {}\n{without}", Digest::of(without.as_bytes()))).unwrap();
    fs_err::remove_file(&now).unwrap();
    context.run(["train", "--force", "--frozen"]).expect(0);
    assert_eq!(context.read("folders"), all);
    // What was kept before goes with the next sweep.
    context.run(["store", "gc"]).expect(0);
    assert!(now.exists() && !before.exists());
    context.run(["train", "--force", "--frozen"]).expect(0);
}

#[test]
fn an_image_goes_with_a_vendored_folder() {
    let server = FaultServer::start();
    serve(&server, "1", &[base(), second()]);
    let context = with_image(&server);
    let folder = context.root().join("stick");
    let dir = folder.to_str().unwrap();
    context.run(["vendor", dir]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    let asked = server.request_count();
    let offline = context.run(["train", "--frozen"]).expect(1).stderr;
    assert!(offline.contains("the network is off"), "{offline}");
    context.run(["fetch", "--from", dir, "--frozen"]).expect(0);
    context.run(["train", "--frozen"]).expect(0);
    assert_eq!((server.request_count(), context.read("out/text")), (asked, TEXT.to_owned()));
}

#[test]
fn a_step_in_an_image_is_never_run_without_it() {
    let server = FaultServer::start();
    serve(&server, "1", &[base(), second()]);
    let context = with_image(&server);
    let off = STEP.replacen("run =", &format!("sandbox = \"off\"\nimage = \"{}\"\nrun =", reference(&server)), 1);
    write_manifest(&context, &off);
    let failed = context.run(["train"]).expect(1).stderr;
    assert!(failed.contains("step `s` runs in an image") && failed.contains("sandbox"), "{failed}");
    assert_eq!(count(&context, "*"), 0);
}
