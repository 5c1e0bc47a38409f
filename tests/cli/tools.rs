//! Tools of the host: found, asked, locked, checked.

use crate::{count, project, write_manifest};
use std::os::unix::fs::PermissionsExt;
use trainlock_testing::{Ran, TestContext};

/// Puts a program that prints this version first on PATH.
fn tool(context: &TestContext, version: &str) {
    let bin = context.root().join("bin");
    fs_err::create_dir_all(&bin).unwrap();
    let new = bin.join(".new");
    fs_err::write(&new, format!("#!/bin/sh\necho 'mytool version {version}-static'\n")).unwrap();
    fs_err::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::rename(new, bin.join("mytool")).unwrap();
}

fn run(context: &TestContext, args: &[&str]) -> Ran {
    let mut command = context.command(args);
    command.env("PATH", format!("{}:/usr/bin:/bin", context.root().join("bin").display()));
    Ran::of(&mut command)
}

fn with_tool(more: &str) -> TestContext {
    let context = project("");
    let step = "[steps.s]\nrun = \"mytool >out\"\noutputs = [\"out\"]\n";
    write_manifest(&context, &format!("[tools]\nmytool = {{ version = \"^6\", from = \"host\"{more} }}\n{step}"));
    context
}

#[test]
fn the_locked_version_is_demanded_and_both_are_named() {
    let context = with_tool("");
    tool(&context, "6.1.2");
    run(&context, &["train"]).expect(0);
    assert_eq!(context.read("out"), "mytool version 6.1.2-static\n");
    assert!(context.read("train.lock").contains("version = \"6.1.2\""));
    let record = run(&context, &["runs", "show", "--json"]).expect(0).stdout;
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let program = fs_err::read(context.root().join("bin/mytool")).unwrap();
    assert_eq!(record["tools"][0]["sha256"], trainlock_types::Digest::of(&program).to_hex());
    for version in ["6.2.0", "7.0.1"] {
        tool(&context, version);
        let failed = run(&context, &["train"]).expect(4);
        assert!(failed.stderr.contains(version) && failed.stderr.contains("6.1.2"), "{}", failed.stderr);
    }
    assert_eq!(count(&context, "s"), 1);
    tool(&context, "6.2.0");
    run(&context, &["update", "mytool"]).expect(0);
    run(&context, &["train"]).expect(0);
    assert_eq!(count(&context, "s"), 2);
}

#[test]
fn a_requirement_is_enough_where_the_manifest_says_so() {
    let context = with_tool(", match = \"requirement\"");
    tool(&context, "6.1.2");
    run(&context, &["train"]).expect(0);
    tool(&context, "6.3.0");
    run(&context, &["train", "--locked"]).expect(0);
    tool(&context, "7.0.0");
    let failed = run(&context, &["train"]).expect(4);
    assert!(failed.stderr.contains("7.0.0") && failed.stderr.contains("^6"), "{}", failed.stderr);
}

#[test]
fn a_tool_that_is_not_there_or_too_old_is_named_while_locking() {
    let context = with_tool("");
    let failed = run(&context, &["lock"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("mytool"), "{}", failed.stderr);
    tool(&context, "5.9.0");
    let failed = run(&context, &["lock"]);
    assert!(
        failed.code == Some(1) && failed.stderr.contains("5.9.0") && failed.stderr.contains("^6"),
        "{}",
        failed.stderr
    );
    assert!(!context.has("train.lock"));
}

#[test]
fn a_probe_of_ones_own() {
    let context = with_tool(", probe = [\"mytool\", \"--short\"]");
    tool(&context, "6.0.0");
    run(&context, &["train"]).expect(0);
    let context = with_tool(", probe = [\"sh\", \"-c\", \"echo 6.5\"]");
    tool(&context, "1.0.0");
    run(&context, &["train"]).expect(0);
    assert!(context.read("train.lock").contains("version = \"6.5.0\""));
}

#[test]
fn a_command_among_the_locked_tools() {
    let context = project("[tools]\nsh = { version = \"*\", from = \"host\", probe = [\"echo\", \"sh 1.2.3\"] }\n");
    let probe = context.run(["lock"]);
    assert_eq!(probe.code, Some(0), "{}", probe.stderr);
    let ran = context.run(["run", "--", "sh", "-c", "command -v sh; pwd; exit 7"]).expect(7);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].contains("/.trainlock/env/t/") && lines[0].ends_with("/bin/sh"), "{}", ran.stdout);
    assert_eq!(lines[1], fs_err::canonicalize(context.project()).unwrap().to_str().unwrap(), "the folder as it is");
    let shell = context.run(["env", "--shell"]).expect(0).stdout;
    assert!(shell.starts_with("export PATH=") && shell.contains("/.trainlock/env/t/"), "{shell}");
    assert!(context.run(["env"]).expect(0).stdout.contains("tool     sh 1.2.3"));
    let failed = context.run(["run", "--", "no-such-program"]).expect(1);
    assert!(failed.stderr.contains("can't run `no-such-program`"), "{}", failed.stderr);
    context.run(["run"]).expect(2);
    // A link for editors; what is no link stays.
    context.run(["env", "--link", ".venv"]).expect(0);
    context.run(["env", "--link", ".venv"]).expect(0);
    assert!(context.has(".venv/bin/sh"));
    context.write("taken/file", "");
    let failed = context.run(["env", "--link", "taken"]).expect(1);
    assert!(failed.stderr.contains("no link") && context.has("taken/file"), "{}", failed.stderr);
}

#[test]
fn tools_of_a_plain_list() {
    let server = trainlock_testing::FaultServer::start();
    let script = b"#!/bin/sh\necho alone $1\n".to_vec();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let packed = b"#!/bin/sh\necho packed\n";
    header.set_size(packed.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "tool-2/bin/packed", &packed[..]).unwrap();
    let archive = tar.into_inner().unwrap();
    server.serve("/alone", script.clone());
    server.serve("/packed.tar", archive.clone());
    let files = |path: &str, bytes: &[u8]| {
        let (sha256, size) = (trainlock_types::Digest::of(bytes).to_hex(), bytes.len());
        ["linux-x86_64", "linux-aarch64", "macos-aarch64", "macos-x86_64"]
            .map(|platform| {
                format!(
                    "[version.files.{platform}]\nurl = \"{}\"\nsha256 = \"{sha256}\"\nsize = {size}\n",
                    server.url(path)
                )
            })
            .concat()
    };
    let list = |path: &str, bytes: &[u8]| {
        format!(
            "[[version]]\nversion = \"2.1\"\n{}[[version]]\nversion = \"3.0-rc1\"\nfiles = {{}}\n",
            files(path, bytes)
        )
    };
    let context = project(
        "[tools]\nalone = { version = \"2\", from = \"index\", index = \"tools/alone.toml\" }\npacked = { version = \"2\", from = \"index\", index = \"tools/packed.toml\" }\n[steps.s]\nrun = \"alone 1 > out; packed >> out\"\noutputs = [\"out\"]\n",
    );
    context
        .write("tools/alone.toml", list("/alone", &script))
        .write("tools/packed.toml", list("/packed.tar", &archive));
    context.run(["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains("version = \"2.1.0\"") && lock.contains("tool-2/bin/packed"), "{lock}");
    context.run(["train"]).expect(0);
    assert_eq!(context.read("out"), "alone 1\npacked\n");
    // Anywhere else, from the lock alone; then with other bytes at the address.
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_file(context.project().join("out")).unwrap();
    context.run(["train", "--locked"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    server.serve("/alone", "changed");
    context.run(["train", "--locked", "--force"]).expect(4);
    // A version that there is not, a list that is none.
    context.write("tools/alone.toml", "[[version]]\nversion = \"1.0\"\nfiles = {}\n");
    let failed = context.run(["update", "alone"]).expect(1);
    assert!(failed.stderr.contains("tools/alone.toml") && failed.stderr.contains("1.0.0"), "{}", failed.stderr);
    context.write("tools/alone.toml", "[[versions]]\n");
    let failed = context.run(["update", "alone"]).expect(1);
    assert!(failed.stderr.contains("can't be used") && failed.stderr.contains("versions"), "{}", failed.stderr);
}
