//! What a step tries in order to get at what it was not given, and that it gets none of it.
//!
//! The attempts run inside a step (`attempts/`) on a host full of secrets (`host.rs`). Their table must say
//! `stopped` everywhere, in trainlock's sandbox as in bubblewrap's, but for a list of places where that one is known
//! to be laxer. That they are attempts at all is shown outside any sandbox, where they must succeed.

mod host;
mod outputs;
mod undeclared;

use host::{Attempt, Host, TABLE, Table, Who};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use trainlock_testing::skipped;

/// What a machine may have nothing of: the attempt is not made then.
const MAY_BE_ABSENT: [&str; 12] = [
    "32-bit-keyctl",
    "32-bit-unshare",
    "list-users-home",
    "mptcp",
    "raise-limits",
    "read-host-device",
    "tcp-host-address",
    "tcp6",
    "udp-host-address",
    "udp6",
    "write-host-device",
    "write-to-terminal-of-caller",
];

/// What bubblewrap lets through with the flags of [`bwrap`], which have no list of refused system calls, on every kernel.
const LAXER: [&str; 18] = [
    "add-key",
    "clone-user",
    "environment-of-anyone",
    "environment-of-proc-1",
    "inherited-descriptors",
    "keyctl",
    "make-by-dot-dot",
    "memory-of-proc-1",
    "personality",
    "ptrace-sibling",
    "request-key",
    "secret-in-memory-of-proc-1",
    "set-1-mem",
    "set-user-id-bit",
    "unshare-user",
    "unshare-user-and-mount",
    "unshare-user-and-net",
    "vm-read-of-proc-1",
];

/// The same, where it depends on the kernel's settings and on whether root calls.
const SOMETIMES_LAXER: [&str; 19] = [
    "32-bit-keyctl",
    "32-bit-unshare",
    "bpf",
    "clone3-user",
    "descriptors-of-proc-1",
    "io-uring",
    "kernel-log",
    "overwrite-trainlock",
    "perf-event",
    "root-by-user-namespace",
    "set-sys-kernel-core-pattern",
    "set-sys-kernel-domainname",
    "set-sys-kernel-hostname",
    "set-sys-net-ipv4-ip-forward",
    "set-sys-vm-drop-caches",
    "type-into-terminal",
    "userfaultfd",
    "vm-read-of-sibling",
    "vsock",
];

/// What a host may forbid to everybody by its settings, its file system or the rights it left to root.
const MAY_BE_FORBIDDEN: [&str; 24] = [
    "32-bit-keyctl",
    "32-bit-unshare",
    "bpf",
    "descriptor-of-neighbour",
    "environment-of-neighbour",
    "fanotify",
    "fsetxattr-beside-input",
    "fsetxattr-linked-input",
    "io-uring",
    "kernel-log",
    "list-host-devices",
    "make-disk",
    "make-memory-device",
    "make-null-device",
    "memory-of-neighbour",
    "open-by-handle",
    "perf-event",
    "ptrace-neighbour",
    "set-flags-beside-input",
    "set-flags-linked-input",
    "setxattr-beside-input",
    "setxattr-linked-input",
    "tcp-fast-open",
    "userfaultfd",
];

const GUARANTEES: [&str; 6] = ["reads", "writes", "tcp", "udp", "environment", "processes"];

/// The attempts of one table are timed and signal everyone: one table at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The users as whom the tests can run; without root only the caller.
fn users() -> Vec<Who> {
    if rustix::process::geteuid().is_root() {
        return vec![Who::Caller, Who::Nobody];
    }
    skipped("only root can also run as another user", false);
    vec![Who::Caller]
}

/// Whether these programs are here.
fn have(programs: &[&str]) -> bool {
    for program in programs {
        let mut look = Command::new("sh");
        look.args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null());
        if !look.status().is_ok_and(|status| status.success()) {
            skipped(&format!("{program} is not installed"), true);
            return false;
        }
    }
    true
}

/// Whether a plain user may make user namespaces here.
fn have_namespaces() -> bool {
    let made = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    let possible = made.is_ok_and(|output| output.status.success());
    if !possible {
        skipped("no user namespaces here", true);
    }
    possible
}

/// The attempts of a table that did not end as `wanted`, in words.
fn others<'a>(table: &'a Table, wanted: &str) -> Vec<(&'a str, &'a Attempt)> {
    let mut others: Vec<_> = table.iter().map(|(name, attempt)| (name.as_str(), attempt)).collect();
    others.retain(|(name, attempt)| {
        attempt.outcome != wanted && !(attempt.outcome == "n/a" && MAY_BE_ABSENT.contains(name))
    });
    others
}

/// A host whose project has run its first step, so that there is a store and another step's output.
fn prepared(who: Who, sandbox: &str) -> Host {
    let mut host = Host::new(who, sandbox);
    host.context.write("targets.json", "{}");
    host.trainlock(&["train", "other"]).expect(0);
    host.adopt("other-step", host.context.project().join("other/secret.bin"));
    let object = host::files(&host.context.store())
        .into_iter()
        .find(|path| fs_err::read(path).is_ok_and(|bytes| bytes == host.context.read_bytes("other/secret.bin")))
        .expect("an object of the store");
    host.adopt("store-object", object);
    host.write_targets(&host.context.project());
    host
}

#[test]
fn nothing_gets_out_of_a_step() {
    let _turn = one_at_a_time();
    if !have(&["python3"]) {
        return;
    }
    for who in users() {
        let mut host = prepared(who, "required");
        let lock = host.context.read("train.lock");
        let ran = host.trainlock(&["train", "--locked", "attempts"]);
        let left = host.left();
        ran.expect(0);
        assert!(left.is_empty(), "{who:?}: {left:?} outlived the step");
        let project = host.context.project();
        let table = host.table(&project);
        assert!(table.len() >= 240, "{} attempts", table.len());
        assert!(others(&table, "stopped").is_empty(), "{who:?}: {:#?}", others(&table, "stopped"));
        // Whatever the attempts believe of themselves:
        assert!(host.contacts().is_empty(), "{who:?}: {:?}", host.contacts());
        assert!(host.damage().is_empty(), "{who:?}: {:?}", host.damage());
        assert_eq!(host.context.read("train.lock"), lock);
        assert_eq!(host.context.read("out/given.txt"), "g".repeat(5000));
        assert_eq!(fs_err::read_to_string(host.context.root().join("raw.bin")).unwrap(), "r".repeat(5000));
        for folder in [project.clone(), host.context.store()] {
            assert!(host.leaks(&folder).is_empty(), "{who:?}: {:?}", host.leaks(&folder));
        }
        host.trainlock(&["store", "verify"]).expect(0);
        let isolation = isolation(&host.record());
        assert!(GUARANTEES.iter().all(|guarantee| state(&isolation, guarantee) == "enforced"), "{isolation:#}");
    }
}

#[test]
fn bubblewrap_stops_the_same() {
    let _turn = one_at_a_time();
    if !have(&["python3", "bwrap"]) || !have_namespaces() {
        return;
    }
    for who in users() {
        let mut host = with_stage(who);
        bwrap(&host).expect(0);
        host.wait_for_left();
        let table = host.table(&host.context.root().join("stage"));
        assert!(table.len() >= 240, "{} attempts", table.len());
        let escaped: Vec<_> = others(&table, "stopped");
        let known = |name: &str| LAXER.contains(&name) || SOMETIMES_LAXER.contains(&name);
        let unknown: Vec<_> =
            escaped.iter().filter(|(name, attempt)| attempt.outcome != "escaped" || !known(name)).collect();
        assert!(unknown.is_empty(), "{who:?}: {unknown:#?}");
        let stricter: Vec<_> = LAXER.iter().filter(|name| table[**name].outcome != "escaped").collect();
        assert!(stricter.is_empty(), "{who:?}: no longer laxer in {stricter:?}");
        assert!(SOMETIMES_LAXER.iter().all(|name| table.contains_key(*name)));
        assert!(host.contacts().is_empty() && host.damage().is_empty(), "{:?} {:?}", host.contacts(), host.damage());
    }
}

#[test]
fn outside_a_sandbox_the_attempts_succeed() {
    let _turn = one_at_a_time();
    if !have(&["python3"]) {
        return;
    }
    for who in users() {
        let root = who == Who::Caller && rustix::process::geteuid().is_root();
        let host = with_stage(who);
        let mut command = host.holding("python3");
        command.args(["-B", "attempts", "targets.json", TABLE]);
        command.arg("host").args(root.then_some("root")).current_dir(host.context.root().join("stage"));
        host.run(&mut command).expect(0);
        controlled(&host);

        if !have_namespaces() {
            continue;
        }
        let host = with_stage(who);
        let mut command = host.command("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork"]);
        command.args(["--mount-proc", "--kill-child", "python3", "-B", "attempts", "targets.json", TABLE]);
        command.arg("namespaces").current_dir(host.context.root().join("stage"));
        host.run(&mut command).expect(0);
        controlled(&host);
    }
}

/// Every attempt that was made outside a sandbox succeeded, and nothing but what the host itself forbids failed.
fn controlled(host: &Host) {
    let table = host.table(&host.context.root().join("stage"));
    assert!(table.len() >= 30, "{} attempts", table.len());
    let mut failed = others(&table, "escaped");
    failed.retain(|(name, attempt)| attempt.outcome != "stopped" || !MAY_BE_FORBIDDEN.contains(name));
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(table.values().all(|attempt| attempt.control != "none"));
}

#[test]
fn without_namespaces_required_refuses() {
    let _turn = one_at_a_time();
    if !have_namespaces() {
        return;
    }
    for who in users() {
        for namespaces in ["user", "net"] {
            let host = Host::new(who, "required");
            host.context.write("targets.json", "{}");
            let refused = host.trainlock_without(namespaces, &["train", "other"]).expect(1);
            for words in ["ENOSPC", "required"] {
                assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
            }
            assert!(!host.context.has("other/secret.bin") && !refused.stderr.contains("Running"), "{}", refused.stderr);
        }
    }
}

#[test]
fn without_namespaces_the_report_says_what_gets_out() {
    let _turn = one_at_a_time();
    if !have(&["python3"]) || !have_namespaces() {
        return;
    }
    for who in users() {
        let host = prepared(who, "best-effort");
        let ran = host.trainlock_without("user", &["train", "attempts"]);
        let record = host.record();
        // Where inputs could be changed, trainlock sees it afterwards: the step failed, and its folder is kept.
        let folder = match ran.code {
            Some(0) => host.context.project(),
            _ => kept(&record).unwrap_or_else(|| panic!("{who:?}: {}", ran.stderr)),
        };
        let table = host.table(&folder);
        let isolation = isolation(&record);
        assert_ne!(isolation["tier"], "namespaces", "{isolation:#}");
        // Nothing is claimed that was not kept.
        let held = |attempt: &Attempt| match attempt.guarantee.as_str() {
            "kernel" => isolation["tier"] != "none",
            guarantee => state(&isolation, guarantee) == "enforced",
        };
        let broken: Vec<_> = others(&table, "stopped").into_iter().filter(|(_, attempt)| held(attempt)).collect();
        assert!(broken.is_empty(), "{who:?}: {broken:#?}\n{isolation:#}");
        let strange: Vec<_> = table.iter().filter(|(_, a)| ["broken", "hung"].contains(&a.outcome.as_str())).collect();
        assert!(strange.is_empty(), "{who:?}: {strange:#?}");
        // And nothing is disclaimed that was.
        for guarantee in GUARANTEES {
            let escaped = table.values().any(|attempt| attempt.guarantee == guarantee && attempt.outcome == "escaped");
            let told = state(&isolation, guarantee);
            assert_eq!(told != "enforced", escaped, "{who:?}: {guarantee} is {told}\n{isolation:#}\n{table:#?}");
            if told != "enforced" {
                assert!(ran.stderr.contains(guarantee), "{guarantee}: {}", ran.stderr);
                let why = isolation[guarantee][told]["why"].as_str().unwrap_or_default();
                assert!(!why.is_empty(), "{isolation:#}");
            }
        }
    }
}

#[test]
fn memory_is_limited_or_the_record_says_why_not() {
    let _turn = one_at_a_time();
    if !have(&["python3"]) {
        return;
    }
    let host = Host::new(Who::Caller, "best-effort");
    let hog = "b = bytearray(512 << 20); b[::4096] = b'x' * len(b[::4096]); open('hog', 'w').write('all of it')";
    let step = format!(
        "[project]\nname = \"t\"\nversion = \"0.1.0\"\n\n[steps.hog]\nrun = [\"python3\", \"-c\", \"{hog}\"]\n\
         outputs = [\"hog\"]\nresources = {{ memory = \"64MiB\" }}\n"
    );
    host.context.write("train.toml", step);
    let ran = host.trainlock(&["train"]);
    let isolation = isolation(&host.record());
    if state(&isolation, "memory") == "enforced" {
        ran.expect(1);
        assert!(!host.context.has("hog"));
    } else {
        ran.expect(0);
        let why = &isolation["memory"][state(&isolation, "memory")]["why"];
        assert!(why.as_str().is_some_and(|why| !why.is_empty()), "{isolation:#}");
    }
}

/// The project's folder in what was kept of a step that is said to have written to its input.
fn kept(record: &Value) -> Option<PathBuf> {
    let step = record["steps"].as_array()?.iter().find(|step| step["step"] == "attempts")?;
    let told = step["error"].as_str()?.contains("its input");
    let kept = host::files(Path::new(step["folder"].as_str()?));
    let table = kept.into_iter().find(|path| path.ends_with(TABLE)).filter(|_| told)?;
    Some(table.ancestors().nth(2)?.to_owned())
}

/// The isolation of the last step that ran, from a run's record.
fn isolation(record: &Value) -> Value {
    let steps = record["steps"].as_array().expect("steps");
    let isolation = steps.iter().rev().map(|step| &step["isolation"]).find(|isolation| isolation.is_object());
    isolation.unwrap_or_else(|| panic!("no isolation in {record:#}")).clone()
}

/// How a guarantee stands: `enforced`, `partial` or `not-enforced`.
fn state<'a>(isolation: &'a Value, guarantee: &str) -> &'a str {
    match &isolation[guarantee] {
        Value::String(state) => state,
        Value::Object(state) => state.keys().next().expect("a state"),
        _ => panic!("nothing about {guarantee} in {isolation:#}"),
    }
}

/// A host with a step's folder laid out by hand: one input a hard link of an object, one beside the outputs.
fn with_stage(who: Who) -> Host {
    let mut host = Host::new(who, "required");
    let store = host.context.store();
    let stage = host.context.root().join("stage");
    for folder in ["attempts", "data", "out", "work"] {
        fs_err::create_dir_all(stage.join(folder)).unwrap();
    }
    for path in host::files(&host.context.project().join("attempts")) {
        fs_err::copy(&path, stage.join("attempts").join(path.file_name().unwrap())).unwrap();
    }
    host.context.write("other/secret.bin", "another step's");
    host.context.write("train.lock", "version = 1\n");
    fs_err::write(store.join("object"), "an object").unwrap();
    fs_err::write(store.join("raw"), "r".repeat(5000)).unwrap();
    fs_err::write(stage.join("out/given.txt"), "g".repeat(5000)).unwrap();
    fs_err::hard_link(store.join("raw"), stage.join("data/raw.bin")).unwrap();
    for path in [store.join("object"), store.join("raw"), stage.join("out/given.txt")] {
        fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    }
    host::give(host.context.root(), who);
    host.adopt("other-step", host.context.project().join("other/secret.bin"));
    host.adopt("store-object", store.join("object"));
    host.write_targets(&stage);
    host
}

/// Makes the attempts under bubblewrap, with the same things in the same places as in trainlock's sandbox.
fn bwrap(host: &Host) -> trainlock_testing::Ran {
    let at = "/trainlock/hermetic";
    let stage = host.context.root().join("stage");
    let mut command = host.holding("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "step"]);
    command.args(["--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--ro-bind", "/usr", "/usr"]);
    for link in ["bin", "lib", "lib64"] {
        command.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    for (how, path) in [("--ro-bind", ""), ("--bind", "out"), ("--bind", "work"), ("--ro-bind", "out/given.txt")] {
        command.arg(how).arg(stage.join(path)).arg(format!("{at}/{path}"));
    }
    command.args(["--chdir", at, "--", "python3", "-B", "attempts", "targets.json", TABLE]);
    host.run(&mut command)
}
