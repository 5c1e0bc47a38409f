//! Tools of the host: found, asked, locked, checked.

use crate::{count, project, write_manifest};
use trainlock_testing::{Ran, TestContext, write_program};

/// Puts a program that prints this version first on PATH.
fn tool(context: &TestContext, version: &str) {
    let bin = context.root().join("bin");
    fs_err::create_dir_all(&bin).unwrap();
    let new = bin.join(".new");
    write_program(&new, format!("#!/bin/sh\necho 'mytool version {version}-static'\n"));
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
    // Shut in: the project's folder can be written to, what lies beside it is not there, nor is this machine's environment.
    fs_err::write(context.root().join("beside"), "secret").unwrap();
    let text =
        "command -v sh; pwd; echo new > made; ls ..; cat ../beside; echo $HOME; cat /proc/net/dev | wc -l; exit 9";
    let mut command = context.command(["run", "--hermetic", "--", "sh", "-c", text]);
    let ran = Ran::of(command.env("STRAY", "1")).expect(9);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(
        lines[0].contains("/.trainlock/env/t/")
            && lines[1] == fs_err::canonicalize(context.project()).unwrap().to_str().unwrap(),
        "{}",
        ran.stdout
    );
    assert_eq!(
        lines[2],
        context.project().file_name().unwrap().to_str().unwrap(),
        "nothing else is in the folder above"
    );
    assert!(
        !ran.stdout.contains("secret") && ran.stdout.ends_with("/home/trainlock\n3\n"),
        "only loopback: {}",
        ran.stdout
    );
    assert_eq!(context.read("made"), "new\n");
    context.run(["run", "--hermetic", "--", "no-such-program"]).expect(1);
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

#[test]
fn tools_of_a_repositorys_releases() {
    let server = trainlock_testing::FaultServer::start();
    let script = b"#!/bin/sh\necho released\n".to_vec();
    let digest = trainlock_types::Digest::of(&script).to_hex();
    let release = |tag: &str, more: &str, digest: &str| {
        let url = server.url(&format!("/files/{tag}/duck-linux"));
        let size = script.len();
        format!(
            r#"{{"tag_name": "{tag}", {more} "assets": [{{"name": "duck-{tag}-linux", "browser_download_url": "{url}", "size": {size}, "digest": {digest}}}]}}"#
        )
    };
    let releases = |digest: &str| {
        [
            release("v2.0.0-rc1", "\"prerelease\": true,", digest),
            release("v1.4.1", "", digest),
            release("v1.3.0", "", digest),
            release("v1.9.9", "\"draft\": true,", digest),
        ]
        .join(",")
    };
    for tag in ["v1.4.1", "v1.3.0", "v2.0.0-rc1"] {
        server.serve(&format!("/files/{tag}/duck-linux"), script.clone());
    }
    server.serve("/api/repos/duck/db/releases", format!("[{}]", releases(&format!("\"sha256:{digest}\""))));
    let tool = |version: &str, asset: &str| {
        let platform = trainlock_types::Platform::host();
        format!(
            "[workspace]\nplatforms = [\"{platform}\"]\n[tools]\nduck = {{ version = \"{version}\", from = \"github\", repo = \"duck/db\", asset = {{ {platform} = \"{asset}\" }} }}\n[steps.s]\nrun = \"duck > out\"\noutputs = [\"out\"]\n"
        )
    };
    let context = project(&tool("1", "duck-{tag}-linux"));
    let run = |args: &[&str]| {
        let mut command = context.command(args);
        trainlock_testing::Ran::of(
            command.env("GITHUB_API_URL", server.url("/api")).env("GITHUB_TOKEN", "secret-token"),
        )
    };
    run(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains("version = \"1.4.1\"") && lock.contains("hash-from = \"publisher\""), "{lock}");
    run(&["train"]).expect(0);
    assert_eq!(context.read("out"), "released\n");
    let sent = |path: &str| server.requests(path)[0].header("authorization").map(str::to_owned);
    assert_eq!(sent("/api/repos/duck/db/releases").as_deref(), Some("Bearer secret-token"));
    // A pre-release only if it is named; a file that the release does not have; no digest stated.
    let failed = {
        write_manifest(&context, &tool("2", "duck-{tag}-linux"));
        run(&["lock"]).expect(1)
    };
    assert!(failed.stderr.contains("no version of the releases of duck/db satisfies `2`"), "{}", failed.stderr);
    write_manifest(&context, &tool("=2.0.0-rc.1", "duck-{tag}-linux"));
    run(&["lock"]).expect(0);
    write_manifest(&context, &tool("1", "duck-{tag}-linus"));
    let failed = run(&["lock"]).expect(1);
    assert!(failed.stderr.contains("did you mean `duck-v1.4.1-linux`"), "{}", failed.stderr);
    server.serve("/api/repos/duck/db/releases", format!("[{}]", releases("null")));
    write_manifest(&context, &tool("~1.4", "duck-{tag}-linux"));
    run(&["update", "duck"]).expect(0);
    assert!(context.read("train.lock").contains("hash-from = \"first-download\""), "{}", context.read("train.lock"));
}

/// A member names its list as it names all paths: from its own folder.
#[test]
fn a_members_list_lies_in_its_folder() {
    let server = trainlock_testing::FaultServer::start();
    let script = b"#!/bin/sh\necho member\n".to_vec();
    server.serve("/tool", script.clone());
    let (sha256, size) = (trainlock_types::Digest::of(&script).to_hex(), script.len());
    let platform = trainlock_types::Platform::host();
    let context = crate::context();
    context.write("train.toml", format!("[workspace]\nmembers = [\"m\"]\nplatforms = [\"{platform}\"]\n"));
    context.write(
        "m/train.toml",
        "[project]\nname = \"m\"\n[tools]\ntool = { version = \"1\", from = \"index\", index = \"tools/list.toml\" }\n[steps.s]\nrun = \"tool > out\"\noutputs = [\"out\"]\n",
    );
    let list = format!(
        "[[version]]\nversion = \"1.0\"\n[version.files.{platform}]\nurl = \"{}\"\nsha256 = \"{sha256}\"\nsize = {size}\n",
        server.url("/tool")
    );
    context.write("m/tools/list.toml", list);
    context.run(["train"]).expect(0);
    assert_eq!(context.read("m/out"), "member\n");
    context.run(["lock", "--check"]).expect(0);
}

#[test]
fn a_list_in_json() {
    let server = trainlock_testing::FaultServer::start();
    let script = b"#!/bin/sh\necho json\n".to_vec();
    server.serve("/tool", script.clone());
    let platform = trainlock_types::Platform::host().to_string();
    let file = serde_json::json!({
        "url": "tool", "sha256": trainlock_types::Digest::of(&script).to_hex(), "size": script.len(),
    });
    let list = |more: serde_json::Value| {
        let files = serde_json::json!({ platform.clone(): file });
        let mut list = serde_json::json!({ "version": [{ "version": "1.2", "files": files }] });
        list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        list.to_string()
    };
    server.serve("/list.json", list(serde_json::json!({})));
    let context = project(&format!(
        "[workspace]\nplatforms = [\"{platform}\"]\n[tools]\ntool = {{ version = \"1\", from = \"index\", index = \"{}\" }}\n[steps.s]\nrun = \"tool > out\"\noutputs = [\"out\"]\n",
        server.url("/list.json")
    ));
    context.run(["train"]).expect(0);
    assert_eq!(context.read("out"), "json\n");
    context.run(["outdated"]).expect(0);
    server.serve("/list.json", list(serde_json::json!({ "versions": [] })));
    let failed = context.run(["update", "tool"]).expect(1);
    assert!(failed.stderr.contains("can't be used") && failed.stderr.contains("versions"), "{}", failed.stderr);
}

/// A release whose API states no digest, with a file beside it that does; and one of a private repository.
#[test]
fn digests_beside_a_releases_files_and_files_of_private_repositories() {
    use trainlock_testing::{Fault, FaultServer};
    use trainlock_types::Digest;
    let server = FaultServer::start();
    let script = b"#!/bin/sh\necho released\n".to_vec();
    let asset = |id: u32, name: &str, size: usize| {
        serde_json::json!({
            "name": name, "size": size, "digest": null, "browser_download_url": server.url(&format!("/files/{name}")),
            "url": server.url(&format!("/api/repos/duck/db/releases/assets/{id}")),
        })
    };
    let releases = |assets: Vec<serde_json::Value>| {
        let text = serde_json::json!([{ "tag_name": "v1.0.0", "assets": assets }]).to_string();
        server.serve("/api/repos/duck/db/releases", text);
    };
    let platform = trainlock_types::Platform::host();
    let context = project(&format!(
        "[workspace]\nplatforms = [\"{platform}\"]\n[tools]\nduck = {{ version = \"1\", from = \"github\", repo = \"duck/db\", asset = {{ {platform} = \"duck\" }} }}\n[steps.s]\nrun = \"duck > out\"\noutputs = [\"out\"]\n"
    ));
    let run = |token: bool, args: &[&str]| {
        let mut command = context.command(args);
        command.env("GITHUB_API_URL", server.url("/api")).args(["--config", "fetch.retries=0"]);
        if token {
            command.env("GITHUB_TOKEN", "secret-token");
        }
        Ran::of(&mut command)
    };
    server.serve("/files/duck", script.clone());
    let line = |bytes: &[u8]| format!("{}  other\n{}  duck\n", Digest::of(b"x"), Digest::of(bytes));
    for (name, text, code) in [
        ("SHA256SUMS", line(&script), 0),
        ("duck.sha256", format!("{}\n", Digest::of(&script)), 0),
        ("db_1.0.0_checksums.txt", line(b"another"), 4),
    ] {
        let _ = fs_err::remove_file(context.project().join("train.lock"));
        releases(vec![asset(1, "duck", script.len()), asset(2, name, text.len())]);
        server.serve(&format!("/files/{name}"), text);
        let ran = run(false, &["lock"]).expect(code);
        match code {
            0 => assert!(context.read("train.lock").contains("hash-from = \"publisher\""), "{name}"),
            _ => assert!(ran.stderr.contains("sha256") && !context.has("train.lock"), "{}", ran.stderr),
        }
    }
    // One that can't be had is not passed over; one that says nothing of the file is.
    server.script("/files/SHA256SUMS", "", [Fault::Status(500)]);
    releases(vec![asset(1, "duck", script.len()), asset(2, "SHA256SUMS", 9)]);
    run(false, &["lock"]).expect(1);
    server.serve("/files/SHA256SUMS", format!("{}  other\n", Digest::of(b"x")));
    run(false, &["lock"]).expect(0);
    assert!(context.read("train.lock").contains("hash-from = \"first-download\""));

    // Private: its pages are not to be had with a token, and the API is.
    let place = |id: u32| format!("/api/repos/duck/db/releases/assets/{id}");
    let with_token = || [Fault::Authorized("Bearer secret-token".to_owned())];
    server.script("/files/duck", "", [Fault::Status(404)]);
    server.script("/files/SHA256SUMS", "", [Fault::Status(404)]);
    server.script(&place(1), script.clone(), with_token());
    server.script(&place(2), line(&script), with_token());
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    fs_err::remove_dir_all(context.store()).unwrap();
    run(false, &["lock"]).expect(1);
    run(true, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains(&server.url(&place(1))) && lock.contains("hash-from = \"publisher\""), "{lock}");
    assert!(!lock.contains("secret-token"), "{lock}");
    let accept = server.requests(&place(1)).last().unwrap().header("accept").map(str::to_owned);
    assert_eq!(accept.as_deref(), Some("application/octet-stream"));
    fs_err::remove_dir_all(context.store()).unwrap();
    let refused = run(false, &["train", "--locked"]).expect(1);
    assert!(refused.stderr.contains("credentials"), "{}", refused.stderr);
    run(true, &["train", "--locked"]).expect(0);
    assert_eq!(context.read("out"), "released\n");
    run(true, &["audit", "--strict"]).expect(0);
}
