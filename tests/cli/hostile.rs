//! Folders, files, steps and callers that make things hard.

use crate::{chain, context, count, counts, project, write_manifest};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use trainlock_testing::{FaultServer, Ran, TestContext, copy_program};

/// `nobody` on every Unix.
const NOBODY: u32 = 65534;

/// Runs a script with `$BIN` as the binary, in the project's folder.
fn script(context: &TestContext, shell: &[&str], text: &str) -> Ran {
    let binary = context.command(["train"]);
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["sh", "-c", text]).current_dir(context.project()).env_clear();
    command.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("BIN", binary.get_program()).env("ROOT", context.root());
    Ran::of(&mut command)
}

/// The binary as a user without rights: as root, `nobody` with a copy that it can reach.
fn as_plain_user(context: &TestContext, args: &[&str]) -> Ran {
    let mut command = context.command(args);
    if rustix::process::geteuid().is_root() {
        let binary = context.root().join("trainlock");
        if !binary.exists() {
            copy_program(command.get_program(), &binary);
        }
        fs_err::set_permissions(context.root(), PermissionsExt::from_mode(0o755)).unwrap();
        fs_err::create_dir_all(context.store()).unwrap();
        chown(context.store(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut other = Command::new(&binary);
        other.args(args).current_dir(context.project()).env_clear();
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other.env("PATH", "/usr/bin:/bin").uid(NOBODY).gid(NOBODY);
        command = other;
    }
    Ran::of(&mut command)
}

#[test]
fn a_full_disk_loses_nothing() {
    let unshare = ["unshare", "--map-root-user", "--mount"];
    let context = context();
    fs_err::write(context.root().join("large.bin"), vec![b'x'; 6 << 20]).unwrap();
    fs_err::create_dir(context.store()).unwrap();
    write_manifest(
        &context,
        &format!(
            "[data]\nraw = {{ url = \"file://{}/large.bin\" }}\n[steps.small]\nrun = \"echo small >small\"\noutputs = [\"small\"]\n\
             [steps.copy]\nrun = \"cat {{data.raw}} {{data.raw}} >copy\"\ninputs = [\"data/large.bin\", \"small\"]\noutputs = [\"copy\"]\n",
            context.root().display()
        ),
    );
    let probe = script(&context, &unshare, "mount -t tmpfs -o size=3m none \"$TRAINLOCK_STORE\"");
    if probe.code != Some(0) {
        #[expect(clippy::print_stderr, reason = "whoever runs the tests should know what they did not do")]
        {
            eprintln!("skipped: no private mounts here: {}", probe.stderr);
        }
        return;
    }
    let text = r#"
mount -t tmpfs -o size=3m none "$TRAINLOCK_STORE"
for try in lock train; do "$BIN" $try 2>>"$ROOT/no-data" && exit 91; test $? = 1 || exit 92; done
test ! -e train.lock || exit 93
"$BIN" store verify || exit 94
# Room for the data, not for what the step makes of it.
mount -o remount,size=9m "$TRAINLOCK_STORE"
"$BIN" train 2>"$ROOT/no-output" && exit 95; test $? = 1 || exit 96
test ! -e copy || exit 97
"$BIN" store verify || exit 98
mount -o remount,size=64m "$TRAINLOCK_STORE"
"$BIN" train 2>"$ROOT/room" || exit 99
"$BIN" store verify || exit 90
"#;
    let ran = script(&context, &unshare, text);
    let read = |name: &str| fs_err::read_to_string(context.root().join(name)).unwrap_or_default();
    let (data, output, room) = (read("no-data"), read("no-output"), read("room"));
    assert_eq!(ran.code, Some(0), "{}\n{data}\n{output}\n{room}", ran.stderr);
    for words in ["`raw`", "no space left for", "6.0 MiB needed", &context.store().display().to_string()] {
        assert!(data.contains(words), "{words}\n{data}");
    }
    assert!(output.contains("No space left on device") && output.contains("`copy`"), "{output}");
    assert!(room.contains("1 step ran, 1 cached"), "{room}");
    assert_eq!(context.read_bytes("copy").len(), 12 << 20);
}

/// Forty of 200,000 bytes, locked without being fetched.
fn small_data(context: &TestContext, server: &FaultServer) {
    let mut manifest = "[data]\n".to_owned();
    for i in 0..40u8 {
        let body = vec![i; 200_000];
        let sha256 = trainlock_types::Digest::of(&body);
        server.serve(&format!("/{i}"), body);
        let url = server.url(&format!("/{i}"));
        manifest.push_str(&format!(
            "part{i} = {{ url = \"{url}\", checksum = \"sha256:{sha256}\", size = 200000, to = \"in/{i}\" }}\n"
        ));
    }
    write_manifest(context, &manifest);
    context.run(["lock"]).expect(0);
}

#[test]
fn a_disk_that_is_full_of_small_files_is_told_once() {
    let (context, server) = (context(), FaultServer::start());
    small_data(&context, &server);
    let text = r#"
mount -t tmpfs -o size=3m none "$TRAINLOCK_STORE" || exit 77
"$BIN" fetch --link 2>"$ROOT/full"; test $? = 1 || exit 91
"$BIN" store verify || exit 92
mount -o remount,size=64m "$TRAINLOCK_STORE"
"$BIN" fetch --link || exit 93
"$BIN" store verify || exit 94
"#;
    let ran = script(&context, &["unshare", "--map-root-user", "--mount"], text);
    if ran.code == Some(77) || ran.stderr.contains("unshare") {
        return;
    }
    let told = context.root().join("full");
    let told = fs_err::read_to_string(told).unwrap();
    assert_eq!(ran.code, Some(0), "{}\n{told}", ran.stderr);
    assert!(told.contains(" data sets in the store: no space left for"), "{told}");
    assert_eq!(told.matches("error").count(), 1, "{told}");
    for i in 0..40u8 {
        assert_eq!(context.read_bytes(&format!("in/{i}")), vec![i; 200_000]);
    }
}

#[test]
fn a_place_that_cannot_be_written_is_not_the_store() {
    let (context, server) = (context(), FaultServer::start());
    small_data(&context, &server);
    // Whoever it is for makes the store.
    fs_err::remove_dir_all(context.store()).unwrap();
    let place = context.project().join("in");
    fs_err::create_dir(&place).unwrap();
    fs_err::set_permissions(&place, PermissionsExt::from_mode(0o555)).unwrap();
    let failed = as_plain_user(&context, &["fetch", "--link"]).expect(1);
    fs_err::set_permissions(&place, PermissionsExt::from_mode(0o755)).unwrap();
    let words = format!("cannot put anything into `{}`", place.display());
    assert!(failed.stderr.contains("ermission denied") && failed.stderr.contains(&words), "{}", failed.stderr);
    assert_eq!(fs_err::read_dir(&place).unwrap().count(), 0);
}

#[test]
fn a_project_folder_that_cannot_be_written() {
    let context = project("[steps.s]\nrun = \"echo 1 >out\"\noutputs = [\"out\"]\n");
    let folder = context.project();
    fs_err::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    for args in [&["lock"][..], &["train"]] {
        let failed = as_plain_user(&context, args).expect(1);
        let path = folder.display().to_string();
        assert!(failed.stderr.contains("ermission denied") && failed.stderr.contains(&path), "{}", failed.stderr);
    }
    assert_eq!(fs_err::read_dir(&folder).unwrap().count(), 1);
    fs_err::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    context.run(["lock"]).expect(0);
    // What only looks needs no more than to read.
    fs_err::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    for args in [&["lock", "--check"][..], &["metadata"], &["status"], &["runs"]] {
        as_plain_user(&context, args).expect(0);
    }
    fs_err::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_store_with_spaces_and_umlauts_and_a_project_behind_a_link() {
    let context = context();
    chain(&context);
    let store = context.root().join("mein Läger 'für' $alles");
    let link = context.root().join("ein link");
    fs_err::os::unix::fs::symlink(context.project(), &link).unwrap();
    let run = |args: &[&str]| Ran::of(context.command(args).env("TRAINLOCK_STORE", &store).current_dir(&link));
    run(&["train"]).expect(0);
    assert_eq!(run(&["store", "dir"]).expect(0).stdout.trim_end(), store.to_str().unwrap());
    run(&["store", "verify"]).expect(0);
    // The same project by its other name.
    let ran = Ran::of(context.command(["train"]).env("TRAINLOCK_STORE", &store)).expect(0);
    assert!(ran.stderr.contains("nothing to do"), "{}", ran.stderr);
    let ran = Ran::of(context.command(["-C", link.to_str().unwrap(), "train"]).env("TRAINLOCK_STORE", &store));
    assert!(ran.expect(0).stderr.contains("nothing to do"));
    assert_eq!(counts(&context), [1, 1, 1]);
}

#[test]
fn manifests_that_are_no_text_of_ours() {
    let context = context();
    context.write("train.toml/file", "");
    let failed = context.run(["train"]);
    assert!(failed.code != Some(0) && failed.stderr.contains("train.toml"), "{}", failed.stderr);
    fs_err::remove_dir_all(context.project()).unwrap();

    for (content, place) in [
        (Vec::new(), "train.toml"),
        (vec![b'['; 10 << 20], "train.toml:1:"),
        ("x = {".repeat(100_000).into_bytes(), "train.toml:1:"),
        ("a = 'ü' # \n".repeat(900_000).into_bytes(), "train.toml:"),
        (b"[project]\nname = \"\xff\"\n".to_vec(), "train.toml"),
        (b"[project]\nname = \"a\0b\"\n".to_vec(), "train.toml:2:"),
    ] {
        context.write("train.toml", &content);
        let failed = context.run(["lock"]).expect(2);
        assert!(failed.stderr.contains(place), "{}", &failed.stderr[..failed.stderr.len().min(2000)]);
        assert!(failed.stderr.len() < 100_000, "{} bytes of error", failed.stderr.len());
        assert!(!context.has("train.lock"));
    }

    // What editors of other systems make of a good one.
    let good = "[project]\nname = \"t\"\nversion = \"0.1.0\"\n\n[params]\na = 1\n\n[steps.s]\nrun = \"\"\"\necho {params.a} >out\ntrue\"\"\"\noutputs = [\"out\"]\n";
    for changed in [good.replace('\n', "\r\n"), format!("\u{feff}{good}")] {
        context.write("train.toml", changed);
        context.run(["train"]).expect(0);
        assert_eq!(context.read("out"), "1\n");
        context.run(["lock", "--check"]).expect(0);
    }
    context.write("train.toml", good.replace("a = 1", "a 1").replace('\n', "\r\n"));
    let failed = context.run(["lock"]).expect(2);
    assert!(failed.stderr.contains("train.toml:6:3"), "{}", failed.stderr);
}

#[test]
fn a_daemon_a_flood_and_no_text() {
    let context = project(
        r#"
[steps.daemon]
run = "setsid sleep 60 & echo $! >daemon"
outputs = ["daemon"]
[steps.silent]
run = "exec >&- 2>&-; sleep 0.01; echo 1 >silent"
outputs = ["silent"]
[steps.flood]
run = "seq -f '%07.0f is a line of a log that is long' 250000; echo the end; echo 1 >flood"
outputs = ["flood"]
[steps.bytes]
run = '''printf '\377\376 no text \000\033[31m red \303'; echo 1 >bytes'''
outputs = ["bytes"]
"#,
    );
    let ran = context.run(["train"]);
    // Ten megabytes are not for a failed test's message: its end will do.
    let end: String = ran.stderr.lines().rev().filter(|line| !line.ends_with(" is long")).take(20).collect();
    assert_eq!(ran.code, Some(0), "{end}");
    assert!(ran.stderr.len() > 10_000_000 && ran.stderr.contains("the end"), "{} bytes: {end}", ran.stderr.len());
    let daemon = rustix::process::Pid::from_raw(context.read("daemon").trim().parse().unwrap()).unwrap();
    let _ = rustix::process::kill_process(daemon, rustix::process::Signal::KILL);
    let logs = fs_err::read_dir(context.project().join(".trainlock/runs")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs_err::read(logs.join("flood.log")).unwrap().len(), 250_000 * 40 + 8);
    assert_eq!(fs_err::read(logs.join("bytes.log")).unwrap(), b"\xff\xfe no text \0\x1b[31m red \xc3");
    assert!(!logs.join("silent.log").exists());
    // Of a flood before a failure, the end is shown.
    write_manifest(&context, "[steps.flood]\nrun = \"seq 500000; echo why it failed; exit 3\"\noutputs = [\"x\"]\n");
    let failed = context.run(["-q", "train"]).expect(1);
    assert!(failed.stderr.contains("why it failed") && failed.stderr.len() < 10_000, "{} bytes", failed.stderr.len());
}

#[test]
fn outputs_of_all_kinds() {
    let context = project(
        r#"
[steps.modes]
run = '''
umask 777; echo 1 >closed; mkdir folder; chmod 700 folder; echo 2 >folder/closed; mkdir folder/none
mkdir folder/shut; chmod 700 folder/shut; echo 3 >folder/shut/x; chmod 000 folder/shut; chmod 500 folder
'''
outputs = ["closed", "folder/"]
[steps.many]
run = "mkdir -p many/deep; for i in $(seq 2000); do echo $i >many/deep/$i; done"
outputs = ["many/"]
[steps.inside]
run = "mkdir inside; echo 1 >inside/a; ln -s a inside/b; mkdir inside/c; ln -s ../a inside/c/d"
outputs = ["inside/"]
[steps.use]
run = "cat closed folder/closed folder/shut/x inside/b inside/c/d >use; ls many/deep | wc -l >>use"
inputs = ["closed", "folder/", "inside/", "many/"]
outputs = ["use"]
"#,
    );
    // As a user for whom modes count.
    if rustix::process::geteuid().is_root() {
        chown(context.project(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    as_plain_user(&context, &["train"]).expect(0);
    assert_eq!(context.read("use"), "1\n2\n3\n1\n1\n2000\n");
    assert_eq!(context.read("many/deep/1999"), "1999\n");
    let again = as_plain_user(&context, &["train"]).expect(0);
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    as_plain_user(&context, &["store", "verify"]).expect(0);
    // And back from the store.
    for output in ["closed", "folder", "many", "inside"] {
        fs_err::rename(context.project().join(output), context.root().join(output)).unwrap();
    }
    as_plain_user(&context, &["train"]).expect(0);
    assert_eq!((context.read("inside/c/d"), context.read("folder/shut/x")), ("1\n".into(), "3\n".into()));
    for target in ["../../..", "/etc/passwd", "../source"] {
        let outside = format!("mkdir out; ln -s {target} out/link");
        let context = project(&format!("[steps.s]\nrun = \"{outside}\"\noutputs = [\"out/\"]\n"));
        let failed = context.run(["train"]).expect(1);
        assert!(failed.stderr.contains("out/link"), "{}", failed.stderr);
        assert!(!context.has("out"));
    }
}

#[test]
fn forty_steps_eight_at_once() {
    let context = context();
    let steps: String = (0..40)
        .map(|i| {
            let input = if i < 4 { String::new() } else { format!("inputs = [\"out/{}\"]\n", i - 4) };
            format!("[steps.s{i}]\nrun = \"echo {i} >out/{i}\"\noutputs = [\"out/{i}\"]\n{input}")
        })
        .collect();
    write_manifest(&context, &steps);
    context.run(["train", "-j8"]).expect(0);
    assert_eq!(count(&context, "*"), 40);
    assert!((0..40).all(|i| context.read(&format!("out/{i}")) == format!("{i}\n")));
    assert!(context.run(["train", "-j8"]).expect(0).stderr.contains("nothing to do: 40 steps"));
    context.run(["train", "-j0"]).expect(2);
}

#[test]
fn closed_standard_streams() {
    for streams in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let context = context();
        chain(&context);
        script(&context, &["env"], &format!("\"$BIN\" train {streams}")).expect(0);
        assert_eq!((context.read("build/three"), counts(&context)), ("source".into(), [1, 1, 1]));
    }
    let context = context();
    chain(&context);
    for (line, words) in [
        ("\"$BIN\" train --json | head -1", "run-started"),
        ("\"$BIN\" schema | head -1", "{"),
        ("\"$BIN\" metadata | head -c 1", "{"),
        ("\"$BIN\" completions bash | head -1", "trainlock"),
        ("\"$BIN\" --help | head -1", "pipeline"),
        ("\"$BIN\" train 2>&1 | true", ""),
    ] {
        let ran = script(&context, &["env"], line).expect(0);
        assert!(ran.stdout.contains(words) && !ran.stderr.contains("panic"), "{line}: {}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(counts(&context), [1, 1, 1]);
}

#[test]
fn with_git_in_all_its_states_and_without_it() {
    let context = context();
    chain(&context);
    let git = |line: &str| {
        let set =
            "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1; git -c user.name=t -c user.email=t@example.org";
        script(&context, &["env"], &format!("{set} {line}")).expect(0).stdout
    };
    let commit = |folder: &std::path::Path| {
        let mut command = context.command(["runs", "show", "last", "--json"]);
        let shown = Ran::of(command.current_dir(folder)).expect(0).stdout;
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["git"].clone()
    };
    // No repository at all, then one without a commit.
    context.run(["train"]).expect(0);
    assert!(commit(&context.project()).is_null());
    git("init -q .");
    context.run(["train", "--force"]).expect(0);
    assert!(commit(&context.project()).is_null());
    assert_eq!(git("status --porcelain --untracked-files=all -- .trainlock"), "", ".trainlock ignores itself");
    git("add -A");
    git("commit -qm first");
    let first = git("rev-parse HEAD").trim().to_owned();
    context.run(["train", "--force"]).expect(0);
    assert_eq!(commit(&context.project()), serde_json::json!({ "commit": first, "dirty": false }));
    // A detached HEAD, with a change.
    git("checkout -q --detach");
    context.write("source.txt", "change\n");
    context.run(["train"]).expect(0);
    assert_eq!(commit(&context.project()), serde_json::json!({ "commit": first, "dirty": true }));
    // A work tree beside it, with the same store: nothing needs to run that ran before.
    git("worktree add -q ../beside");
    let beside = context.root().join("beside");
    let ran = Ran::of(context.command(["train", "--locked"]).current_dir(&beside)).expect(0);
    assert!(ran.stderr.contains("0 steps ran, 3 cached") || ran.stderr.contains("nothing to do"), "{}", ran.stderr);
    Ran::of(context.command(["train", "--locked", "--force"]).current_dir(&beside)).expect(0);
    assert_eq!(commit(&beside), serde_json::json!({ "commit": first, "dirty": false }));
    // A repository, and nobody to ask about it.
    Ran::of(context.command(["train", "--force"]).env("PATH", "/nowhere")).expect(0);
    assert!(commit(&context.project()).is_null());
}

/// A link that came with the commit does not lead outputs out of the workspace; the user's own link does.
#[test]
fn outputs_through_a_link() {
    let context = project("[steps.s]\nrun = \"echo made > build/out\"\ninputs = []\noutputs = [\"build/out\"]\n");
    let outside = context.root().join("outside");
    fs_err::create_dir(&outside).unwrap();
    fs_err::os::unix::fs::symlink(&outside, context.project().join("build")).unwrap();
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(command.current_dir(context.project()).output().unwrap().status.success(), "{args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "all"]);
    let failed = context.run(["train"]).expect(1);
    assert!(failed.stderr.contains("`build`") && failed.stderr.contains("git rm --cached build"), "{}", failed.stderr);
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0);
    git(&["rm", "-q", "--cached", "build"]);
    context.run(["train"]).expect(0);
    assert_eq!(fs_err::read_to_string(outside.join("out")).unwrap(), "made\n");
}
