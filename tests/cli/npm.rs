//! Tools inside packages of the npm registry.

use crate::sources::{audited, outdated};
use crate::{project, write_manifest};
use base64::Engine as _;
use sha2::Digest as _;
use std::io::Write as _;
use trainlock_testing::{Fault, FaultServer, Ran, TestContext};
use trainlock_types::Platform;

/// An npm package: a gzipped tar whose members lie below `package/`.
fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(if path.ends_with(".json") { 0o644 } else { 0o755 });
        tar.append_data(&mut header, format!("package/{path}"), *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn integrity(bytes: &[u8]) -> String {
    format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(bytes)))
}

/// A registry below `/npm/`, whose descriptions name another server's archives, as a mirror's do.
struct Registry(FaultServer);

impl Registry {
    fn archive(&self, name: &str, version: &str, bytes: &[u8]) -> serde_json::Value {
        let file = format!("{}-{version}.tgz", name.rsplit('/').next().unwrap());
        self.0.serve(&format!("/npm/{name}/-/{file}"), bytes.to_vec());
        let tarball = format!("https://registry.invalid/{name}/-/{file}");
        serde_json::json!({ "tarball": tarball, "integrity": integrity(bytes) })
    }

    fn packument(&self, name: &str, versions: serde_json::Value) {
        let body = serde_json::json!({ "name": name, "versions": versions });
        self.0.serve(&format!("/npm/{}", name.replace('/', "%2f")), serde_json::to_vec(&body).unwrap());
    }

    /// A tool with a package for each system: its own program is JavaScript, and is completed by an install script.
    fn tool(&self, version: &str, native: &[u8]) {
        let mach = [[0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1].as_slice(), &[0; 100]].concat();
        let parts =
            [("linux", "x64"), ("linux", "arm64"), ("darwin", "arm64"), ("win32", "x64")].map(|(os, cpu)| {
                let name = format!("@fast/{os}-{cpu}");
                let bytes = if os == "darwin" { mach.clone() } else { native.to_vec() };
                let archive = package(&[("package.json", b"{}"), ("bin/fast", &bytes)]);
                let said = serde_json::json!({
                    "name": name, "version": version, "os": [os], "cpu": [cpu], "dist": self.archive(&name, version, &archive),
                });
                self.packument(&name, serde_json::json!({ version: said }));
                name
            });
        let optional: serde_json::Map<_, _> = parts.into_iter().map(|name| (name, version.into())).collect();
        let main = package(&[("package.json", b"{}"), ("bin/fast", b"#!/usr/bin/env node\n")]);
        let said = serde_json::json!({
            "name": "fast", "version": version, "bin": { "fast": "bin/fast" }, "hasInstallScript": true,
            "optionalDependencies": optional, "dist": self.archive("fast", version, &main),
        });
        self.packument(
            "fast",
            serde_json::json!({ "0.9.0": { "deprecated": "old" }, version: said, "2.0.0-beta.1": {} }),
        );
    }
}

fn run(context: &TestContext, registry: &str, args: &[&str]) -> Ran {
    let mut command = context.command(args);
    Ran::of(command.env("npm_config_registry", registry).env_remove("NPM_CONFIG_REGISTRY"))
}

const STEP: &str = "[steps.s]\nrun = \"fast one two > out\"\noutputs = [\"out\"]\n";

fn manifest(tool: &str) -> String {
    format!(
        "[workspace]\nplatforms = [\"linux-x86_64\", \"linux-aarch64\", \"macos-aarch64\"]\n[tools]\nfast = {tool}\n{STEP}"
    )
}

/// The machine's `echo`, a native program.
fn echo() -> Vec<u8> {
    fs_err::read("/bin/echo").unwrap()
}

#[test]
fn a_program_of_a_platforms_package() {
    let registry = Registry(FaultServer::start());
    registry.tool("1.4.2", &echo());
    let url = registry.0.url("/npm");
    let context = project(&manifest("{ version = \"1\", from = \"npm\" }"));
    run(&context, &url, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    let (os, cpu) = if cfg!(target_arch = "aarch64") { ("linux", "arm64") } else { ("linux", "x64") };
    let name = format!("@fast/{os}-{cpu}/{os}-{cpu}-1.4.2.tgz");
    for part in ["version = \"1.4.2\"", &name, "package/bin/fast", "hash-from = \"index\"", "macos-aarch64"] {
        assert!(lock.contains(part), "{part}: {lock}");
    }
    for address in ["http", "127.0.0.1", "registry.invalid", "/npm"] {
        assert!(!lock.contains(address), "{address}: {lock}");
    }
    // Of the packages for other systems none was asked for.
    assert!(registry.0.requests("/npm/@fast%2fwin32-x64").is_empty());
    let accept = registry.0.requests("/npm/fast")[0].header("accept").unwrap().to_owned();
    assert!(accept.contains("application/vnd.npm.install-v1+json"), "{accept}");
    run(&context, &url, &["train"]).expect(0);
    assert_eq!(context.read("out"), "one two\n");
    // Anywhere else, from the lock alone; without a network once it is there.
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_file(context.project().join("out")).unwrap();
    run(&context, &url, &["train", "--locked"]).expect(0);
    run(&context, "http://127.0.0.1:9/", &["train", "--locked", "--offline", "--force"]).expect(0);
    // Nothing of it shows the registry.
    let record = run(&context, &url, &["runs", "show", "--json"]).expect(0).stdout;
    assert!(record.contains("\"fast\"") && !record.contains("/npm"), "{record}");
}

#[test]
fn other_bytes_and_versions_that_are_gone() {
    let registry = Registry(FaultServer::start());
    registry.tool("1.4.2", &echo());
    let url = registry.0.url("/npm");
    let context = project(&manifest("{ version = \"1\", from = \"npm\" }"));
    run(&context, &url, &["lock"]).expect(0);
    // Another archive of the same name, of which the registry says the right things.
    fs_err::remove_dir_all(context.store()).unwrap();
    let mut other = echo();
    other.push(0);
    registry.tool("1.4.2", &other);
    let failed = run(&context, &url, &["train", "--locked", "--config", "fetch.retries=0"]).expect(4);
    assert!(failed.stderr.contains("expected") && !failed.stderr.contains("127.0.0.1"), "{}", failed.stderr);
    // One that the registry does not have any more.
    registry.tool("1.5.0", &echo());
    let failed = run(&context, &url, &["train", "--locked"]).expect(1);
    assert!(failed.stderr.contains("-1.4.2.tgz") && failed.stderr.contains("trainlock update"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("127.0.0.1"), "{}", failed.stderr);
    run(&context, &url, &["update", "fast"]).expect(0);
    assert!(context.read("train.lock").contains("version = \"1.5.0\""));
    // What comes is not what the registry states.
    registry.tool("1.6.0", &echo());
    for part in ["linux-x64", "linux-arm64", "darwin-arm64"] {
        registry.0.serve(&format!("/npm/@fast/{part}/-/{part}-1.6.0.tgz"), "damaged");
    }
    let failed = run(&context, &url, &["update", "fast", "--config", "fetch.retries=0"]).expect(4);
    assert!(failed.stderr.contains("sha512") && !failed.stderr.contains("127.0.0.1"), "{}", failed.stderr);
}

#[test]
fn what_needs_node_or_a_script_is_refused() {
    let registry = Registry(FaultServer::start());
    let one = |name: &str, script: bool, program: &[u8]| {
        let archive = package(&[("package.json", b"{}"), ("bin/run", program)]);
        let dist = registry.archive(name, "1.0.0", &archive);
        let said = serde_json::json!({ "bin": { "fast": "./bin/run" }, "hasInstallScript": script, "dist": dist });
        registry.packument(name, serde_json::json!({ "1.0.0": said }));
    };
    one("scripted", true, &echo());
    one("javascript", false, b"#!/usr/bin/env node\nconsole.log(1)\n");
    one("plain", false, b"#!/bin/sh\necho plain \"$@\"\n");
    let url = registry.0.url("/npm");
    let context = project("");
    for (package, words) in [("scripted", "install script"), ("javascript", "needs node")] {
        let tool = format!("{{ version = \"1\", from = \"npm\", package = \"{package}\" }}");
        write_manifest(&context, &manifest(&tool));
        let failed = run(&context, &url, &["lock"]).expect(1);
        assert!(failed.stderr.contains(words) && failed.stderr.contains(package), "{}", failed.stderr);
        assert!(!context.has("train.lock"));
    }
    write_manifest(&context, &manifest("{ version = \"1\", from = \"npm\", package = \"plain\" }"));
    run(&context, &url, &["train"]).expect(0);
    assert_eq!(context.read("out"), "plain one two\n");
    let failed = {
        write_manifest(&context, &manifest("{ version = \"1\", from = \"npm\", package = \"missing\" }"));
        run(&context, &url, &["lock"]).expect(1)
    };
    assert!(failed.stderr.contains("package missing") && !failed.stderr.contains("127.0.0.1"), "{}", failed.stderr);
    let failed = run(&context, "ftp://user:secret@x/", &["lock"]).expect(1);
    assert!(failed.stderr.contains("npm_config_registry") && !failed.stderr.contains("secret"), "{}", failed.stderr);
}

/// A scope has a registry of its own, and the token for it, in the user's configuration.
#[test]
fn a_scope_with_a_registry_and_a_token() {
    let registry = Registry(FaultServer::start());
    let archive = package(&[("package.json", b"{}"), ("fast", &echo())]);
    let platform = Platform::host();
    let dist = registry.archive("@own/fast", "1.0.0", &archive);
    let (os, cpu) = ("linux", if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" });
    let said = serde_json::json!({ "bin": "fast", "os": [os], "cpu": [cpu], "dist": dist });
    registry.packument("@own/fast", serde_json::json!({ "1.0.0": said }));
    let context = project(&format!(
        "[workspace]\nplatforms = [\"{platform}\"]\n[tools]\nfast = {{ version = \"1\", from = \"npm\", package = \"@own/fast\" }}\n{STEP}"
    ));
    let file = context.root().join("npmrc");
    let url = registry.0.url("/npm/");
    let place = url.strip_prefix("http:").unwrap();
    let mut rc = fs_err::File::create(&file).unwrap();
    write!(rc, "@own:registry={url}\n{place}:_authToken=${{OWN_TOKEN}}\n").unwrap();
    let mut command = context.command(["train"]);
    command.env("NPM_CONFIG_USERCONFIG", &file).env("OWN_TOKEN", "secret-token");
    Ran::of(command.env("npm_config_registry", "http://127.0.0.1:9/")).expect(0);
    assert_eq!(context.read("out"), "one two\n");
    for path in ["/npm/@own%2ffast", "/npm/@own/fast/-/fast-1.0.0.tgz"] {
        assert_eq!(registry.0.requests(path)[0].header("authorization"), Some("Bearer secret-token"), "{path}");
    }
    assert!(!context.read("train.lock").contains("secret-token"));
}

#[test]
fn what_the_registry_has_now() {
    let registry = Registry(FaultServer::start());
    registry.tool("1.4.2", &echo());
    let url = registry.0.url("/npm");
    let context = project(&manifest("{ version = \"1\", from = \"npm\" }"));
    run(&context, &url, &["lock"]).expect(0);
    let (os, cpu) = if cfg!(target_arch = "aarch64") { ("linux", "arm64") } else { ("linux", "x64") };
    let archive = format!("/npm/@fast/{os}-{cpu}/-/{os}-{cpu}-1.4.2.tgz");
    let before = registry.0.bytes(&archive);
    let ask = |command: &str, code: i32| {
        run(&context, &url, &[command, "--json", "--config", "fetch.retries=0"]).expect(code)
    };
    let is = |state: &str, words: &str| (state.to_owned(), words.to_owned());
    assert_eq!(outdated(&ask("outdated", 0), "fast"), is("same", "version"));
    let audit = ask("audit", 0);
    for file in [format!("{os}-{cpu}-1.4.2.tgz"), "darwin-arm64-1.4.2.tgz".to_owned()] {
        assert_eq!(audited(&audit, "tool fast", &file), is("agrees", "size"));
    }
    assert!(registry.0.bytes(&archive) - before <= 1, "a byte at most");
    // Another size; no such file.
    registry.0.serve(&archive, "short");
    let (state, words) = audited(&ask("audit", 4), "tool fast", cpu);
    assert!(state == "differs" && words.starts_with("5 bytes"), "{words}");
    registry.0.script(&archive, "", [Fault::Status(404)]);
    assert_eq!(audited(&ask("audit", 0), "tool fast", cpu).0, "fails");
    // What its publisher advises against; a newer version; none that is allowed; no such package.
    registry.packument("fast", serde_json::json!({ "1.4.2": { "deprecated": "use 2" }, "2.0.0": {} }));
    assert_eq!(outdated(&ask("outdated", 0), "fast"), is("withdrawn", "use 2"));
    registry.packument("fast", serde_json::json!({ "1.4.2": {}, "1.5.0": {}, "2.0.0": {} }));
    assert_eq!(outdated(&ask("outdated", 0), "fast"), is("moved", "1.4.2 -> 1.5.0"));
    registry.packument("fast", serde_json::json!({ "2.0.0": {} }));
    let (state, words) = outdated(&ask("outdated", 0), "fast");
    assert!(state == "gone" && words.contains("no version of package fast satisfies `1`"), "{words}");
    registry.0.script("/npm/fast", "", [Fault::Status(404)]);
    assert_eq!(outdated(&ask("outdated", 0), "fast"), is("gone", "not found (status 404)"));
    registry.0.script(&format!("/npm/@fast%2f{os}-{cpu}"), "", [Fault::Status(404)]);
    assert_eq!(audited(&ask("audit", 0), "tool fast", cpu), is("fails", "not found (status 404)"));
    // A registry that is down, whose address nobody is told.
    let port = registry.0.url("").rsplit(':').next().unwrap().to_owned();
    drop(registry);
    let ran = ask("outdated", 1);
    assert_eq!(outdated(&ran, "fast").0, "failed");
    assert!(!ran.stdout.contains(&port) && !ran.stderr.contains(&port), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(audited(&ask("audit", 0), "tool fast", cpu).0, "fails");
}
