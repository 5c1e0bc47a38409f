//! Builds of the Python interpreter: locked, fetched from a mirror, and what serves where one can't be had.

use crate::project;
use crate::sources::{audited, outdated};
use std::path::Path;
use trainlock_testing::{Fault, FaultServer, Ran, TestContext, packed_interpreter, refusing_url};
use trainlock_types::{Digest, Platform};

struct Release {
    server: FaultServer,
    archive: Vec<u8>,
    version: String,
    file: String,
}

impl Release {
    /// A release of the machine's interpreter, with its digests in `SHA256SUMS`.
    fn new(context: &TestContext) -> Release {
        let (archive, version) = packed_interpreter(context.root());
        let family = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
        let file = format!("cpython-{version}+20260101-{family}-unknown-linux-gnu-install_only_stripped.tar.gz");
        let release = Release { server: FaultServer::start(), archive, version, file };
        release.serve(&release.archive);
        let sums = format!(
            "{}  other.tar.gz\n{}  {}\n",
            Digest::of(b"").to_hex(),
            Digest::of(&release.archive).to_hex(),
            release.file
        );
        release.server.serve("/mirror/20260101/SHA256SUMS", sums);
        release
    }

    fn path(&self) -> String {
        format!("/mirror/20260101/{}", self.file.replace('+', "%2B"))
    }

    fn serve(&self, bytes: &[u8]) {
        self.server.serve(&self.path(), bytes.to_vec());
    }

    /// The list of builds: the plain one, and others that are not taken.
    fn list(&self, context: &TestContext, sha256: Option<String>) -> std::path::PathBuf {
        let parts: Vec<u64> = self.version.split('.').map(|n| n.parse().unwrap()).collect();
        let family = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
        let entry = |name: &str, variant: serde_json::Value, libc: &str, arch: serde_json::Value, patch: u64| {
            serde_json::json!({
                "name": "cpython", "arch": { "family": family, "variant": arch }, "os": "linux", "libc": libc,
                "major": parts[0], "minor": parts[1], "patch": patch, "prerelease": "", "variant": variant,
                "url": format!("https://builds.invalid/releases/20260101/{name}"), "sha256": sha256,
            })
        };
        let null = serde_json::Value::Null;
        let list = serde_json::json!({
            "plain": entry(&self.file.replace('+', "%2B"), null.clone(), "gnu", null.clone(), parts[2]),
            "musl": entry("musl-install_only.tar.gz", null.clone(), "musl", null.clone(), parts[2] + 1),
            "v3": entry("v3-install_only.tar.gz", null.clone(), "gnu", "v3".into(), parts[2] + 2),
            "free": entry("free-install_only.tar.gz", "freethreaded".into(), "gnu", null, parts[2] + 3),
        });
        let file = context.root().join("builds.json");
        fs_err::write(&file, list.to_string()).unwrap();
        file
    }

    fn run(&self, context: &TestContext, list: &Path, args: &[&str]) -> Ran {
        let mut command = context.command(args);
        command.env("UV_PYTHON_DOWNLOADS_JSON_URL", list).env_remove("UV_PYTHON_DOWNLOADS");
        command.env("UV_PYTHON_INSTALL_MIRROR", self.server.url("/mirror"));
        Ran::of(&mut command)
    }
}

fn manifest() -> String {
    format!(
        "[workspace]\nplatforms = [\"{}\"]\n[tools]\npython = \"3\"\n[steps.s]\nrun = \"python -c 'import json, os, sys; print(os.path.exists(os.path.dirname(json.__file__) + \\\"/../made-for-the-test\\\"), sys.version_info[:3])' > out\"\noutputs = [\"out\"]\n",
        Platform::host()
    )
}

fn used(context: &TestContext) -> String {
    let record = context.run(["runs", "show", "--json"]).expect(0).stdout;
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["tools"][0]["from"].as_str().unwrap().to_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn a_build_is_locked_fetched_and_used() {
    let context = project(&manifest());
    let release = Release::new(&context);
    let list = release.list(&context, None);
    release.run(&context, &list, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    let published = format!("https://builds.invalid/releases/20260101/{}", release.file.replace('+', "%2B"));
    let line = release.version.rsplit_once('.').unwrap().0;
    for part in [
        format!("version = \"{}\"", release.version),
        "hash-from = \"publisher\"".to_owned(),
        format!("{} {} {published}", Digest::of(&release.archive).to_hex(), release.archive.len()),
        format!("python/bin/python{line}"),
    ] {
        assert!(lock.contains(&part), "{part}: {lock}");
    }
    assert!(!lock.contains("127.0.0.1") && !lock.contains("mirror"), "{lock}");
    release.run(&context, &list, &["train"]).expect(0);
    let parts = release.version.replace('.', ", ");
    assert_eq!(context.read("out"), format!("True ({parts})\n"));
    assert_eq!(used(&context), "lock");
    // It is there: no network, no list.
    let offline = ["train", "--locked", "--offline", "--force"];
    context.run(offline).expect(0);
    assert_eq!(used(&context), "lock");
    // Its library was compiled once, and nothing writes into it.
    let ask = "import json, sys; print(json.__cached__, sys.flags.dont_write_bytecode); open(json.__cached__)";
    let ran = context.run(["run", "--", "python", "-c", ask]).expect(0);
    let cached = ran.stdout.strip_suffix(" 1\n").unwrap();
    assert!(Path::new(cached).starts_with(context.store().canonicalize().unwrap()), "{cached}");
    assert_eq!(fs_err::read(cached).unwrap()[4..8], [1, 0, 0, 0], "by a digest that is not looked at");
    let shown = ["run", "--", "python", "-c", "import json; print(json.loads.__code__.co_filename)"];
    let ran = context.run(shown).expect(0);
    assert!(Path::new(ran.stdout.trim()).is_file(), "{}", ran.stdout);
    let ran =
        context.run(["run", "--", "python", "-c", "import pickle, sys; print(sys.dont_write_bytecode)"]).expect(0);
    assert_eq!(ran.stdout, "True\n");
    context.run(["store", "verify"]).expect(0);
    // Somewhere else it can't be had: the machine's interpreter of exactly this version serves.
    fs_err::remove_dir_all(context.store()).unwrap();
    let ran = context.run(offline).expect(0);
    assert!(ran.stderr.contains("the locked build can't be had"), "{}", ran.stderr);
    assert_eq!(context.read("out"), format!("False ({parts})\n"));
    assert_eq!(used(&context), "host");
    // At once, also with a network on which nobody answers.
    let mut command = context.command(["train", "--locked", "--force"]);
    command.env_remove("UV_PYTHON_DOWNLOADS").env("UV_PYTHON_INSTALL_MIRROR", refusing_url("/mirror"));
    let ran = Ran::of(&mut command).expect(0);
    assert!(ran.stderr.contains("the locked build can't be had"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("trying again"), "{}", ran.stderr);
    // What comes and is another is an error, whatever the machine has.
    let mut other = release.archive.clone();
    *other.last_mut().unwrap() ^= 1;
    release.serve(&other);
    let failed = release.run(&context, &list, &["train", "--locked", "--force"]).expect(4);
    assert!(failed.stderr.contains("sha256") && !failed.stderr.contains("127.0.0.1"), "{}", failed.stderr);
    release.serve(&release.archive);
    release.run(&context, &list, &["train", "--locked", "--force"]).expect(0);
    assert_eq!(used(&context), "lock");
}

#[test]
#[cfg(target_os = "linux")]
fn where_no_build_can_be_had_the_machines_interpreter_is_locked() {
    let context = project(&manifest());
    let release = Release::new(&context);
    // A list that states the digest itself; a wrong one.
    let list = release.list(&context, Some(Digest::of(b"another").to_hex()));
    release.run(&context, &list, &["lock"]).expect(4);
    assert!(!context.has("train.lock"));
    let list = release.list(&context, Some(Digest::of(&release.archive).to_hex()));
    release.run(&context, &list, &["lock"]).expect(0);
    assert!(context.read("train.lock").contains("hash-from = \"index\""));
    // A release without digests, a list that is none, one that is not there: told, and as if there were no builds.
    let mirror = release.list(&context, None);
    release.server.script("/mirror/20260101/SHA256SUMS", "", [trainlock_testing::Fault::Close]);
    let without = |args: &[&str]| {
        fs_err::remove_file(context.project().join("train.lock")).unwrap();
        Ran::of(context.command(args).env_remove("UV_PYTHON_DOWNLOADS"))
    };
    // Without a network, and where nothing says which builds there are, that is told; not where none are wanted.
    for (args, words) in [(&["lock", "--offline"][..], "with a network only"), (&["lock"], "`uv = \"*\"` in [tools]")] {
        let ran = without(args).expect(0);
        assert!(
            ran.stderr.contains("Using the python of this machine") && ran.stderr.contains(words),
            "{}",
            ran.stderr
        );
    }
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    assert!(!context.run(["lock"]).expect(0).stderr.contains("Using"));
    for list in [mirror, context.root().join("missing.json"), context.project().join("train.toml")] {
        fs_err::remove_file(context.project().join("train.lock")).unwrap();
        let ran = release.run(&context, &list, &["lock"]).expect(0);
        assert!(ran.stderr.contains("Using the python of this machine"), "{}", ran.stderr);
        let lock = context.read("train.lock");
        assert!(lock.contains(&format!("version = \"{}\"", release.version)) && !lock.contains("artifacts"), "{lock}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_published_now() {
    let context = project(&manifest());
    let release = Release::new(&context);
    let list = release.list(&context, None);
    release.run(&context, &list, &["lock"]).expect(0);
    let before = release.server.bytes(&release.path());
    let ask = |command: &str, code: i32| {
        release.run(&context, &list, &[command, "--json", "--config", "fetch.retries=0"]).expect(code)
    };
    let is = |state: &str, words: &str| (state.to_owned(), words.to_owned());
    assert_eq!(outdated(&ask("outdated", 0), "python"), is("same", "version"));
    // The mirror is asked, and not named.
    let audit = ask("audit", 0);
    assert_eq!(audited(&audit, "tool python", "https://builds.invalid/"), is("agrees", "size"));
    assert!(!audit.stdout.contains("/mirror"), "{}", audit.stdout);
    assert!(release.server.bytes(&release.path()) - before <= 1, "a byte at most");
    // The same version built anew, a newer version, none that is allowed.
    let text = fs_err::read_to_string(&list).unwrap();
    let change = |from: &str, to: &str| fs_err::write(&list, text.replace(from, to)).unwrap();
    change("20260101", "20260301");
    let (state, words) = outdated(&ask("outdated", 0), "python");
    assert!(state == "moved" && words.contains("20260101") && words.contains("20260301"), "{words}");
    let patch: u64 = release.version.rsplit('.').next().unwrap().parse().unwrap();
    change(&format!("\"patch\":{patch}"), "\"patch\":99");
    let (state, words) = outdated(&ask("outdated", 0), "python");
    let line = release.version.rsplit_once('.').unwrap().0;
    assert_eq!((state.as_str(), words), ("moved", format!("{} -> {line}.99", release.version)));
    change("\"major\":3", "\"major\":4");
    assert_eq!(outdated(&ask("outdated", 0), "python"), is("gone", "no build satisfies `3` any more"));
    // A list that is none is nobody's answer; without a list and a uv nobody is asked.
    fs_err::write(&list, "{").unwrap();
    assert_eq!(outdated(&ask("outdated", 0), "python").0, "unknown");
    let ran = Ran::of(context.command(["outdated", "--json"]).env_remove("UV_PYTHON_DOWNLOADS")).expect(0);
    assert_eq!(outdated(&ran, "python").0, "unknown");
    let ran = context.run(["outdated", "--json"]).expect(0);
    assert!(outdated(&ran, "python").1.contains("UV_PYTHON_DOWNLOADS"), "{}", ran.stdout);
    // A list on a server, which is down; a build that is gone.
    release.server.serve("/list.json", text.clone());
    let url = release.server.url("/list.json");
    let ask = |code: i32| {
        release.run(&context, Path::new(&url), &["outdated", "--json", "--config", "fetch.retries=0"]).expect(code)
    };
    assert_eq!(outdated(&ask(0), "python"), is("same", "version"));
    release.server.script("/list.json", "", [Fault::Close]);
    assert_eq!(outdated(&ask(1), "python").0, "failed");
    release.server.script(&release.path(), "", [Fault::Status(404)]);
    let audit = release.run(&context, &list, &["audit", "--json"]).expect(0);
    assert_eq!(audited(&audit, "tool python", ""), is("fails", "not found (status 404)"));
}
