//! What sources say now of what is locked: unstable addresses, `outdated`, and `audit` of inputs.

use crate::{project, write_manifest};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use trainlock_testing::{Fault, FaultServer, Ran, TestContext};
use trainlock_types::Digest;

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The line about this name, by the field that holds names.
fn about<'l>(lines: &'l [Value], field: &str, name: &str) -> &'l Value {
    lines.iter().find(|line| line[field] == name).unwrap_or_else(|| panic!("{name}: {lines:#?}"))
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]);
    command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    Ran::of(&mut command).expect(0).stdout.trim().to_owned()
}

/// Writes a file of a repository and commits it; the commit.
fn commit(folder: &Path, text: &str) -> String {
    fs_err::write(folder.join("a.csv"), text).unwrap();
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-qm", text]);
    git(folder, &["rev-parse", "HEAD"])
}

fn repository(context: &TestContext) -> PathBuf {
    let folder = context.root().join("upstream");
    fs_err::create_dir(&folder).unwrap();
    git(&folder, &["init", "-q"]);
    folder
}

/// A hub with one file, whose hash it states, at this commit.
fn hub(server: &FaultServer, commit: &str, bytes: &str) {
    let sha256 = Digest::of(bytes.as_bytes()).to_hex();
    server.serve("/api/datasets/o/n/revision/main", format!(r#"{{"sha": "{commit}"}}"#));
    let size = bytes.len();
    server.serve(
        &format!("/api/datasets/o/n/tree/{commit}"),
        format!(r#"[{{"type": "file", "path": "a.bin", "oid": "x", "size": 130, "lfs": {{"oid": "{sha256}", "size": {size}}}}}]"#),
    );
    server.serve(&format!("/datasets/o/n/resolve/{commit}/a.bin"), bytes);
}

#[test]
fn a_warning_at_an_address_that_moves() {
    let sha256 = Digest::of(b"x").to_hex();
    let context = project(&format!(
        "[data]\nraw = {{ url = \"https://raw.githubusercontent.com/o/r/main/a.csv\", checksum = \"sha256:{sha256}\", size = 1 }}\nfixed = {{ url = \"https://example.org/v1/b.csv\", checksum = \"sha256:{sha256}\", size = 1 }}\n"
    ));
    // Stated hash and size: nobody is asked.
    let locked = context.run(["lock"]).expect(0);
    for words in ["data `raw`", "`main` is no commit", "git+https://github.com/o/r.git", "not the address"] {
        assert!(locked.stderr.contains(words), "{words}\n{}", locked.stderr);
    }
    assert_eq!(locked.stderr.matches("warning").count(), 1, "{}", locked.stderr);
    // Said once, where it is locked; then by `audit`.
    let again = context.run(["lock"]).expect(0);
    assert!(!again.stderr.contains("warning"), "{}", again.stderr);
    let audit = context.run(["audit", "--offline"]).expect(0);
    assert!(audit.stdout.contains("`main` is no commit") && audit.stdout.contains("Addresses"), "{}", audit.stdout);
    context.run(["audit", "--offline", "--strict"]).expect(1);
    let words = ["data raw: 1 place (raw.githubusercontent.com)", "data fixed: 1 place (example.org)"];
    assert!(words.iter().all(|words| audit.stdout.contains(words)), "{}", audit.stdout);
}

#[test]
fn what_is_outdated_is_found_without_downloading() {
    let server = FaultServer::start();
    server.serve("/raw.csv", "1,2,3\n");
    server.serve("/empty.csv", "");
    let (one, two) = ("1".repeat(40), "2".repeat(40));
    hub(&server, &one, "big");
    let list = |version: &str| {
        let sha256 = Digest::of(b"tool").to_hex();
        format!(
            "[[version]]\nversion = \"{version}\"\n[version.files.{}]\nurl = \"tool\"\nsha256 = \"{sha256}\"\nsize = 4\n",
            trainlock_types::Platform::host()
        )
    };
    server.serve("/tool", "tool");
    server.serve("/list.toml", list("1.0.0"));
    let context = project("");
    let upstream = repository(&context);
    let before = commit(&upstream, "a\n");
    let manifest = format!(
        "[data]\nraw = {{ url = \"{}\" }}\nempty = {{ url = \"{}\" }}\nhub = {{ url = \"hf://datasets/o/n\" }}\ngit = {{ url = \"git+file://{up}\", rev = \"main\" }}\nfixed = {{ url = \"git+file://{up}\", rev = \"{before}\" }}\nown = {{ path = \"own.csv\" }}\n[tools]\nt = {{ version = \"1\", from = \"index\", index = \"{}\" }}\n",
        server.url("/raw.csv"),
        server.url("/empty.csv"),
        server.url("/list.toml"),
        up = upstream.display(),
    );
    write_manifest(&context, &manifest);
    context.write("own.csv", "mine");
    let run = |args: &[&str]| Ran::of(context.command(args).env("HF_ENDPOINT", server.url("")));

    let nothing = run(&["outdated"]).expect(1);
    assert!(nothing.stderr.contains("trainlock lock"), "{}", nothing.stderr);
    run(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    let same = run(&["outdated"]).expect(0);
    assert_eq!(same.stdout, "", "{}", same.stderr);
    assert!(same.stderr.contains("6 as locked, 0 outdated"), "{}", same.stderr);

    server.serve("/raw.csv", "1,2,3,4\n");
    hub(&server, &two, "bigger");
    server.serve("/list.toml", list("1.2.0"));
    let after = commit(&upstream, "b\n");
    let (raw, big) = (server.bytes("/raw.csv"), format!("/datasets/o/n/resolve/{two}/a.bin"));
    let ran = run(&["outdated", "--json"]).expect(0);
    let found = lines(&ran);
    let moved = |name: &str, locked: &str, now: &str| {
        let line = about(&found, "name", name);
        assert_eq!([&line["state"], &line["locked"], &line["now"]], ["moved", locked, now], "{line}");
    };
    moved("raw", "6 bytes", "8 bytes");
    moved("hub", &one, &two);
    moved("git", &before, &after);
    moved("t", "1.0.0", "1.2.0");
    for name in ["fixed", "empty"] {
        assert_eq!(about(&found, "name", name)["state"], "same", "{found:#?}");
    }
    assert!(server.bytes("/raw.csv") - raw <= 1 && server.requests(&big).is_empty(), "nothing is downloaded");
    let table = run(&["outdated"]).expect(0);
    assert!(table.stdout.contains(&format!("{} -> {}", &before[..12], &after[..12])), "{}", table.stdout);
    assert!(table.stderr.contains("2 as locked, 4 outdated"), "{}", table.stderr);
    assert_eq!(context.read("train.lock"), lock, "nothing is written");

    // One source that fails keeps no other from being asked.
    server.script("/raw.csv", "", [Fault::Status(403)]);
    let failed = run(&["outdated"]).expect(1);
    assert!(failed.stdout.contains("hub") && failed.stdout.contains("not asked"), "{}", failed.stdout);
    assert!(failed.stderr.contains("could not fetch `raw`") && failed.stderr.contains("403"), "{}", failed.stderr);
    // And `update` does what was announced.
    server.serve("/raw.csv", "1,2,3,4\n");
    run(&["update"]).expect(0);
    let same = run(&["outdated"]).expect(0);
    assert!(same.stderr.contains("6 as locked, 0 outdated"), "{}", same.stderr);
}

#[test]
fn an_audit_of_addresses_copies_and_trust() {
    let server = FaultServer::start();
    let other = FaultServer::start();
    server.serve("/raw.csv", "1,2,3\n");
    other.serve("/raw.csv", "1,2,3\n");
    hub(&server, &"1".repeat(40), "big");
    let context = project("");
    let upstream = repository(&context);
    let locked = commit(&upstream, "a\n");
    write_manifest(
        &context,
        &format!(
            "[data]\nraw = {{ url = \"{}\", mirrors = [\"{}\"] }}\nhub = {{ url = \"hf://datasets/o/n\" }}\ngit = {{ url = \"git+file://{}\", rev = \"main\" }}\n[steps.s]\nrun = \"true\"\ninputs = [\"a.py\"]\noutputs = [\"out\"]\nnetwork = true\nsandbox = \"off\"\n",
            server.url("/raw.csv"),
            other.other_host_url("/raw.csv"),
            upstream.display(),
        ),
    );
    context.write("a.py", "rng = default_rng()\n");
    let run = |args: &[&str]| {
        let mut command = context.command(args);
        Ran::of(command.env("HF_ENDPOINT", server.url("")).args(["--config", "fetch.retries=0"]))
    };
    let before = run(&["audit", "--json"]).expect(0);
    assert!(lines(&before).iter().all(|line| line["section"] != "addresses"), "{}", before.stdout);
    run(&["lock"]).expect(0);

    let audit = run(&["audit"]).expect(0);
    for words in [
        "Sources: ",
        "a.py:1:7: ",
        "Addresses: ",
        "4 addresses answer as is locked",
        "Copies: ",
        "data raw: 3 places (127.0.0.1, localhost, the store)",
        "data git: 2 places (this machine, the store)",
        "data hub: 1 place (127.0.0.1)",
        "Trust: ",
        "train.toml:6:1: data raw: its hash is that of the bytes that came first",
        "is not https",
        "step s: it runs without a sandbox",
        "step s: it may use the network",
    ] {
        assert!(audit.stdout.contains(words), "{words}\n{}", audit.stdout);
    }
    run(&["audit", "--strict"]).expect(1);

    // A mirror with other bytes, a repository whose history was rewritten, a hub that lost the file.
    other.serve("/raw.csv", "1,2,3,4\n");
    git(&upstream, &["commit", "-q", "--amend", "-m", "rewritten"]);
    git(
        &upstream,
        &["-c", "gc.reflogExpire=now", "-c", "gc.pruneExpire=now", "reflog", "expire", "--expire=now", "--all"],
    );
    git(&upstream, &["gc", "-q", "--prune=now"]);
    server.script(&format!("/datasets/o/n/resolve/{}/a.bin", "1".repeat(40)), "", [Fault::Status(404)]);
    let ran = run(&["audit", "--json"]).expect(4);
    assert!(ran.stderr.contains("no longer has what is locked"), "{}", ran.stderr);
    let found = lines(&ran);
    let addresses: Vec<&Value> = found.iter().filter(|line| line["section"] == "addresses").collect();
    let state = |part: &str| {
        let line = addresses.iter().find(|line| line["address"].as_str().is_some_and(|a| a.contains(part)));
        let line = line.unwrap_or_else(|| panic!("{part}: {addresses:#?}"));
        (line["state"].as_str().unwrap_or_default().to_owned(), line["why"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(state("//127.0.0.1").0, "agrees");
    assert_eq!(state("//localhost"), ("differs".to_owned(), "8 bytes, and 6 are locked".to_owned()));
    assert!(state("git+file:").1.contains(&format!("no longer has commit {locked}")), "{:?}", state("git+file:"));
    assert!(state("/resolve/").1.contains("404"), "{:?}", state("/resolve/"));

    let offline = run(&["audit", "--offline"]).expect(0);
    assert!(!offline.stdout.contains("Addresses") && offline.stdout.contains("Copies"), "{}", offline.stdout);
}
