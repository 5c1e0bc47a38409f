//! Buckets: a server in memory with the answers of S3, Google and Azure, put in their place by the usual variables.

use crate::{project, write_manifest};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::{BucketServer, Ran, TestContext};

/// The scheme, and what `Authorization` begins with when there are credentials.
const KINDS: [(&str, &str); 3] =
    [("s3", "AWS4-HMAC-SHA256 Credential=AKID/"), ("gs", "Bearer "), ("az", "SharedKey acct:")];

/// A secret that must be nowhere.
const SECRET: &str = "c2VjcmV0LTdmM2E=";

fn command(context: &TestContext, server: &BucketServer, args: &[&str]) -> Command {
    let mut command = context.command(args);
    command.env("AWS_ENDPOINT_URL", server.url()).env("AWS_REGION", "here-1");
    command.env("STORAGE_EMULATOR_HOST", server.url());
    command.env("AZURE_STORAGE_ENDPOINT", server.url()).env("AZURE_STORAGE_ACCOUNT", "acct");
    command.args(["--config", "fetch.retries=2"]);
    command
}

fn run(context: &TestContext, server: &BucketServer, args: &[&str]) -> Ran {
    Ran::of(&mut command(context, server, args))
}

fn lose_store(context: &TestContext) {
    fs_err::remove_dir_all(context.store()).unwrap();
}

#[test]
fn an_object_and_a_prefix_of_each_kind_of_store() {
    for (scheme, _) in KINDS {
        let server = BucketServer::start();
        server.bucket("lab", false);
        server.put("lab", "one/a b+c.csv", "1,2\n");
        server.put("lab", "set/", "");
        for i in 0..250 {
            server.put("lab", &format!("set/{}/{i}.bin", i % 7), i.to_string());
        }
        server.put("lab", "set/0/notes.txt", "not wanted");
        let context = project(&format!(
            "[data]\none = {{ url = \"{scheme}://lab/one/a b+c.csv\" }}\nset = {{ url = \"{scheme}://lab/set/\", files = [\"*/*.bin\"] }}\n"
        ));
        run(&context, &server, &["lock"]).expect(0);
        let lock = context.read("train.lock");
        assert!(lock.contains("count = 250") && lock.contains(" 3 3/108.bin\""), "{scheme}\n{lock}");
        for word in ["127.0.0.1", "notes.txt", "versions"] {
            assert!(!lock.contains(word), "{scheme}: {word}\n{lock}");
        }
        // An empty store, and a first answer that says to come back later.
        lose_store(&context);
        server.fail(1);
        run(&context, &server, &["fetch", "--locked", "--link"]).expect(0);
        assert_eq!(
            (context.read("data/a b+c.csv"), context.read("data/set/3/108.bin")),
            ("1,2\n".into(), "108".into())
        );
        fs_err::remove_file(context.project().join("train.lock")).unwrap();
        run(&context, &server, &["lock"]).expect(0);
        assert_eq!(context.read("train.lock"), lock, "{scheme}");
        // Upstream changed, and nothing keeps what was there.
        lose_store(&context);
        server.put("lab", "set/3/108.bin", "801");
        let failed = run(&context, &server, &["fetch", "--locked"]).expect(4);
        assert!(
            failed.stderr.contains("set/3/108.bin") && failed.stderr.contains("expected sha256"),
            "{}",
            failed.stderr
        );
        server.delete("lab", "set/3/108.bin");
        let failed = run(&context, &server, &["fetch", "--locked"]).expect(1);
        assert!(failed.stderr.contains("not found"), "{}", failed.stderr);
    }
}

#[test]
fn versions_are_locked_and_fetched() {
    for (scheme, _) in KINDS {
        let server = BucketServer::start();
        server.bucket("lab", true);
        server.put("lab", "one.csv", "one");
        server.put("lab", "set/a.csv", "first");
        server.put("lab", "set/b.csv", "second");
        let context = project(&format!(
            "[data]\none = {{ url = \"{scheme}://lab/one.csv\" }}\nset = {{ url = \"{scheme}://lab/set/\" }}\n"
        ));
        run(&context, &server, &["lock"]).expect(0);
        let lock = context.read("train.lock");
        assert!(lock.contains(&format!("source = \"{scheme}://lab/one.csv?versionId=1700000000000001\"")), "{lock}");
        assert!(lock.contains("versions = [\n    \"1700000000000002\",\n    \"1700000000000003\",\n]\n"), "{lock}");
        server.put("lab", "one.csv", "two");
        server.put("lab", "set/a.csv", "other");
        lose_store(&context);
        run(&context, &server, &["fetch", "--locked", "--link"]).expect(0);
        assert_eq!((context.read("data/one.csv"), context.read("data/set/a.csv")), ("one".into(), "first".into()));
        run(&context, &server, &["lock", "--check"]).expect(0);
        let updated = run(&context, &server, &["update"]).expect(0);
        assert!(updated.stderr.contains("1 file changed"), "{}", updated.stderr);
        // The versions are gone: what is there now is not what is locked.
        server.delete("lab", "one.csv");
        server.put("lab", "one.csv", "three");
        lose_store(&context);
        let failed = run(&context, &server, &["fetch", "--locked"]).expect(4);
        for words in ["versionId=", "not found", "`one`"] {
            assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
        }
    }
}

/// `cargo test -p trainlock --test cli -- --ignored --nocapture a_hundred_thousand_objects`
#[test]
#[ignore = "some minutes in a debug build"]
#[expect(clippy::print_stdout, reason = "the figures, for who asks for them")]
fn a_hundred_thousand_objects() {
    const MOST_MEMORY_KIB: u64 = 300 << 10;
    for versioned in [false, true] {
        let server = BucketServer::start();
        server.bucket("lab", versioned);
        (0..100_000).for_each(|i| server.put("lab", &format!("set/{:03}/{i}.txt", i % 1000), format!("content {i}\n")));
        let context = project("[data]\nset = { url = \"s3://lab/set/\" }\n");
        for args in [&["lock"][..], &["fetch", "--locked", "--link"]] {
            let began = Instant::now();
            let mut child = command(&context, &server, args).stderr(Stdio::null()).spawn().unwrap();
            let mut most = 0;
            let status = loop {
                let said = fs_err::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
                let peak = said.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
                most = most.max(kib.unwrap_or(0));
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            let (time, sockets) = (began.elapsed().as_secs_f64(), server.most_sockets());
            println!("versions {versioned}: {}: {time:.1} s, {} MiB, {sockets} sockets", args[0], most >> 10);
            assert!(status.success() && (1..=MOST_MEMORY_KIB).contains(&most) && sockets <= 32);
            if args[0] == "lock" {
                lose_store(&context);
            }
        }
        assert_eq!(context.read("data/set/999/99999.txt"), "content 99999\n");
    }
}

/// More objects than a listing in the lock has otherwise; some of them were there before the bucket kept versions.
#[test]
fn versions_of_many_objects_are_locked() {
    let server = BucketServer::start();
    for (versioned, keys) in [(false, 0..40), (true, 40..700)] {
        server.bucket("lab", versioned);
        keys.for_each(|i| server.put("lab", &format!("set/{i:03}"), format!("content {i}")));
    }
    let context = project("[data]\nset = { url = \"s3://lab/set/\" }\n");
    run(&context, &server, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert_eq!(lock.matches("    \"17000000").count(), 660, "{lock}");
    assert_eq!((lock.matches("    \"null\",").count(), lock.matches(" set/").count()), (40, 0), "{lock}");
    // Nothing but the lock is left, and the objects are others by now.
    lose_store(&context);
    for i in [3, 300, 699] {
        server.put("lab", &format!("set/{i:03}"), "replaced");
    }
    server.put("lab", "set/more", "new");
    run(&context, &server, &["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(
        (context.read("data/set/003"), context.read("data/set/300")),
        ("content 3".into(), "content 300".into())
    );
    assert!(!context.project().join("data/set/more").exists());
    run(&context, &server, &["lock", "--check"]).expect(0);
    assert_eq!(context.read("train.lock"), lock);
    let updated = run(&context, &server, &["update"]).expect(0);
    assert!(updated.stderr.contains("1 file added, 3 changed"), "{}", updated.stderr);
    // Put again with the same content: nothing changes but where it is found.
    server.put("lab", "set/300", "replaced");
    let updated = run(&context, &server, &["update"]).expect(0);
    assert!(updated.stderr.contains("at other versions of the bucket's objects"), "{}", updated.stderr);
    lose_store(&context);
    run(&context, &server, &["fetch", "--locked"]).expect(0);
}

/// The state of each data set, what is locked of it, and what is there now.
fn outdated(context: &TestContext, server: &BucketServer) -> Vec<[String; 4]> {
    let ran = run(context, server, &["outdated", "--json"]).expect(0);
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| ["name", "state", "locked", "now"].map(|field| text(&line, field))).collect()
}

#[test]
fn what_became_of_objects_is_named() {
    for ((scheme, _), versioned) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let server = BucketServer::start();
        server.bucket("lab", versioned);
        server.put("lab", "one.csv", "first");
        for (key, body) in [("a.csv", "first"), ("b.csv", "second"), ("c.csv", "third"), ("empty.csv", "")] {
            server.put("lab", &format!("set/{key}"), body);
        }
        let context = project(&format!(
            "[data]\none = {{ url = \"{scheme}://lab/one.csv\" }}\nset = {{ url = \"{scheme}://lab/set/\", files = [\"*.csv\"] }}\n"
        ));
        run(&context, &server, &["lock"]).expect(0);
        let lock = context.read("train.lock");
        lose_store(&context);
        let before = server.bytes();
        let by = |found: &[[String; 4]]| found.iter().map(|line| line[1].clone()).collect::<Vec<_>>();
        assert_eq!(by(&outdated(&context, &server)), ["same", "same"], "{scheme} {versioned}");
        let audit = run(&context, &server, &["audit"]).expect(0);
        assert!(audit.stdout.contains("5 addresses answer as is locked"), "{scheme} {versioned}\n{}", audit.stdout);
        server.put("lab", "one.csv", "other one");
        server.put("lab", "set/a.csv", "other");
        server.put("lab", "set/b.csv", "longer than it was");
        server.delete("lab", "set/c.csv");
        server.put("lab", "set/new.csv", "new");
        server.put("lab", "set/new.txt", "not wanted");
        let found = outdated(&context, &server);
        let (one, set) = match versioned {
            true => (
                ["version 1700000000000001", "version 1700000000000006"],
                "1 added (new.csv), 2 changed (a.csv, b.csv), 1 gone (c.csv)",
            ),
            // That one of the same size is another can't be known.
            false => (["5 bytes", "9 bytes"], "1 added (new.csv), 1 changed (b.csv), 1 gone (c.csv)"),
        };
        assert_eq!(found, [["one", "moved", one[0], one[1]], ["set", "moved", "4 files", set]], "{scheme}");
        // What can't be had any more is a finding; what is another thing by now is a failure.
        let audit = run(&context, &server, &["audit", "--json"]).expect(if versioned { 0 } else { 4 });
        let lines: Vec<Value> = audit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let about = |part: &str| {
            let line = lines.iter().find(|line| line["address"].as_str().is_some_and(|address| address.contains(part)));
            let text = |field: &str| line.and_then(|line| line[field].as_str()).unwrap_or_default().to_owned();
            (text("state"), text("why"))
        };
        let gone = about("c.csv");
        match versioned {
            // The versions that are locked are there, but for that of what was deleted for good.
            true => {
                assert!(gone.1.contains("not found"), "{scheme} {gone:?}");
                assert_eq!([about("one.csv").0, about("b.csv").0], ["agrees", "agrees"], "{scheme} {lines:#?}");
            }
            false => {
                assert_eq!(gone.1, "the source no longer lists it", "{scheme}");
                assert_eq!(about("one.csv").1, "9 bytes, and 5 are locked", "{scheme}");
                assert_eq!(about("b.csv").1, "18 bytes, and 6 are locked", "{scheme}");
            }
        }
        // A byte of each that was asked.
        assert!(server.bytes() - before <= 20, "{scheme}: {} bytes came", server.bytes() - before);
        let fails = |what: &str| {
            let failed = run(&context, &server, &["outdated"]).expect(1);
            assert_eq!(failed.stderr.matches(what).count(), 2, "{scheme}\n{}", failed.stderr);
            let audit = run(&context, &server, &["audit"]).expect(0);
            assert!(audit.stdout.contains(&format!("data one: {scheme}://lab/one.csv")), "{}", audit.stdout);
            assert!(audit.stdout.matches(what).count() >= 2, "{scheme}\n{}", audit.stdout);
        };
        server.want("none is good enough");
        fails("it wants credentials, and there are none (status 403): Access Denied");
        server.want("");
        server.delete_bucket("lab");
        fails(&format!("there is no bucket {scheme}://lab"));
        assert_eq!(context.read("train.lock"), lock, "nothing is written");
    }
}

#[test]
fn profiles_of_the_tools_of_the_cloud() {
    let server = BucketServer::start();
    server.bucket("lab", false);
    server.put("lab", "one.csv", "one");
    server.want("AWS4-HMAC-SHA256 Credential=FROM-A-PROCESS/");
    let context = project("[data]\none = { url = \"s3://lab/one.csv\" }\n");
    let aws = context.home().join(".aws");
    fs_err::create_dir_all(&aws).unwrap();
    let printed = format!("{{\"Version\": 1, \"AccessKeyId\": \"FROM-A-PROCESS\", \"SecretAccessKey\": \"{SECRET}\"}}");
    let config = format!(
        "[profile get]\ncredential_process = /bin/echo '{printed}'\n[profile bad]\ncredential_process = /bin/sh -c 'echo {SECRET}; exit 7'\n[profile sso]\nsso_session = x\nsso_account_id = 1\n[profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = get\n"
    );
    fs_err::write(aws.join("config"), config).unwrap();
    let with = |profile: &str| {
        let mut command = command(&context, &server, &["lock"]);
        Ran::of(command.env("AWS_PROFILE", profile))
    };
    let file = aws.join("config").display().to_string();
    let export = |profile: &str| format!("aws configure export-credentials --profile {profile} --format env");
    for (profile, words) in [
        ("sso", [&*format!("`sso` in {file}"), "`sso_session`", &export("sso")]),
        ("role", [&format!("`role` in {file}"), "`role_arn`", &export("role")]),
        ("bad", [&format!("`bad` in {file}"), "`credential_process`", "exit status: 7"]),
        ("none", ["AWS_PROFILE names the profile `none`", &file, "they hold `bad`, `get`, `role`, `sso`"]),
    ] {
        let failed = with(profile).expect(1);
        assert!(words.iter().all(|words| failed.stderr.contains(words)), "{profile}: {words:?}\n{}", failed.stderr);
        assert!(!failed.stderr.contains(SECRET), "{}", failed.stderr);
    }
    assert_eq!(server.requests(), [""; 0], "nothing is asked without what is meant");
    with("get").expect(0);
    // Other stores have nothing to do with it, nor has a project without buckets.
    write_manifest(&context, "[data]\none = { url = \"gs://lab/one.csv\" }\n");
    server.want("");
    with("sso").expect(0);
}

#[test]
fn buckets_that_want_credentials_and_such_that_are_not_there() {
    for (scheme, wants) in KINDS {
        let server = BucketServer::start();
        server.bucket("lab", false);
        server.put("lab", "one.csv", "one");
        server.want(wants);
        let context = project(&format!("[data]\none = {{ url = \"{scheme}://lab/one.csv\" }}\n"));
        let failed = run(&context, &server, &["lock"]).expect(1);
        let hint = match scheme {
            "s3" => "AWS_ACCESS_KEY_ID",
            "gs" => "GOOGLE_APPLICATION_CREDENTIALS",
            _ => "AZURE_STORAGE_KEY",
        };
        for words in ["wants credentials", "403", "Access Denied", hint] {
            assert!(failed.stderr.contains(words), "{scheme}: {words}\n{}", failed.stderr);
        }
        let account = context.root().join("account.json");
        fs_err::write(&account, format!("{{\"gcs_base_url\": \"{}\", \"disable_oauth\": true, \"client_email\": \"\", \"private_key\": \"\", \"private_key_id\": \"\"}}", server.url())).unwrap();
        let with = |args: &[&str]| {
            let mut command = command(&context, &server, args);
            command
                .env("AWS_ACCESS_KEY_ID", "AKID")
                .env("AWS_SECRET_ACCESS_KEY", SECRET)
                .env("AZURE_STORAGE_KEY", SECRET);
            command.env("GOOGLE_SERVICE_ACCOUNT", &account);
            Ran::of(&mut command)
        };
        // A service account's token comes from Google itself; one without is what its emulators want.
        if scheme == "gs" {
            server.want("");
        }
        with(&["lock"]).expect(0);
        assert!(!context.read("train.lock").contains(SECRET));
        lose_store(&context);
        server.want("none is good enough");
        let failed = with(&["fetch", "--locked"]).expect(1);
        assert!(failed.stderr.contains("Access Denied"), "{}", failed.stderr);
        assert!(!failed.stderr.contains(SECRET) && !failed.stderr.contains("AKID"), "{}", failed.stderr);
        server.want("");
        for (address, words) in
            [("none/one.csv", "there is no bucket"), ("lab/two.csv", "not found"), ("lab/none/", "it holds no file")]
        {
            let name = if address.ends_with('/') { "" } else { ", to = \"data/x\"" };
            write_manifest(&context, &format!("[data]\none = {{ url = \"{scheme}://{address}\"{name} }}\n"));
            let failed = with(&["lock"]).expect(1);
            assert!(failed.stderr.contains(words), "{scheme} {address}\n{}", failed.stderr);
        }
        let requests = server.requests().len();
        lose_store(&context);
        let failed = with(&["lock", "--offline"]).expect(1);
        assert!(failed.stderr.contains("network is off"), "{}", failed.stderr);
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn a_large_object_resumes_and_comes_in_parts() {
    let server = BucketServer::start();
    server.bucket("lab", true);
    let large: Vec<u8> = (0..40 << 20_u32).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    server.put("lab", "large.bin", large.clone());
    let context = project("[data]\nlarge = { url = \"s3://lab/large.bin\", mirrors = [\"gs://lab/large.bin\"] }\n");
    run(&context, &server, &["lock"]).expect(0);
    lose_store(&context);
    run(&context, &server, &["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(context.read_bytes("data/large.bin"), large);
    // The first is gone with its versions; the mirror has the bytes.
    lose_store(&context);
    let other = BucketServer::start();
    other.bucket("lab", false);
    other.put("lab", "large.bin", large);
    let mut command = command(&context, &server, &["fetch", "--locked"]);
    server.delete("lab", "large.bin");
    command.env("STORAGE_EMULATOR_HOST", other.url());
    Ran::of(&mut command).expect(0);
}

#[test]
fn an_address_that_can_name_nothing() {
    let server = BucketServer::start();
    server.bucket("lab", false);
    let context = project("[data]\none = { url = \"s3://lab/one.csv?part=1\" }\n");
    let failed = run(&context, &server, &["lock"]).expect(1);
    assert!(failed.stderr.contains("`part` means nothing"), "{}", failed.stderr);
    let context = project("[data]\none = { url = \"az://lab/one.csv\" }\n");
    let mut command = command(&context, &server, &["lock"]);
    command.env_remove("AZURE_STORAGE_ACCOUNT");
    let failed = Ran::of(&mut command).expect(1);
    assert!(failed.stderr.contains("AZURE_STORAGE_ACCOUNT"), "{}", failed.stderr);
}

#[test]
fn the_budget_of_connections_is_kept_by_all_together() {
    let server = BucketServer::start();
    server.bucket("lab", false);
    let mut manifest = "[data]\n".to_owned();
    for set in ["a", "b", "c"] {
        for i in 0..60 {
            server.put("lab", &format!("{set}/{i}"), format!("{set}{i}"));
        }
        manifest += &format!("{set} = {{ url = \"s3://lab/{set}/\" }}\n");
    }
    let context = project(&manifest);
    for command in ["lock", "fetch"] {
        run(&context, &server, &[command, "--config=fetch.connections-per-host=5"]).expect(0);
        lose_store(&context);
    }
    assert!((2..=5).contains(&server.most_at_once()), "{}", server.most_at_once());
    assert!((2..=5).contains(&server.most_sockets()), "{}", server.most_sockets());
    assert!(server.sockets() <= 10, "{}", server.sockets());
}
