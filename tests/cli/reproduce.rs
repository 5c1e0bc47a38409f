//! A stranger's repository: cloned, trained, compared, reported.

use crate::{context, count};
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trainlock_testing::{Ran, TestContext, write_program};

const HEAD: &str = "[project]\nname = \"t\"\nversion = \"0.1.0\"\n\n";

/// One step that copies its source.
const STEP: &str = "[steps.one]\nrun = \"cat source.txt >out\"\ninputs = [\"source.txt\"]\noutputs = [\"out\"]\n";

/// git in a folder, with nobody's configuration.
fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(args);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository beside the project, of the manifest and one source, with its lock committed.
fn repository(context: &TestContext, name: &str, manifest: &str) -> PathBuf {
    let folder = context.root().join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("train.toml"), format!("{HEAD}{manifest}")).unwrap();
    fs::write(folder.join("source.txt"), "source\n").unwrap();
    Ran::of(context.command(["lock"]).current_dir(&folder)).expect(0);
    git(&folder, &["init", "-q"]);
    commit(&folder);
    folder
}

fn commit(folder: &Path) -> String {
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "--allow-empty", "-m", "all"]);
    git(folder, &["rev-parse", "HEAD"])
}

/// The command, with a temporary folder of its own, so that what it leaves there can be seen.
fn command(context: &TestContext, args: &[&str]) -> Command {
    let temporary = context.root().join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = context.command([&["reproduce"], args].concat());
    command.env("TMPDIR", temporary);
    command
}

fn reproduce(context: &TestContext, args: &[&str]) -> Ran {
    Ran::of(&mut command(context, args))
}

fn left_over(context: &TestContext) -> usize {
    fs::read_dir(context.root().join("tmp")).map_or(0, Iterator::count)
}

/// The reports in the project's folder, by name.
fn reports(context: &TestContext) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(context.project())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("trainlock-report-"))
        .collect();
    names.sort();
    names
}

fn verdict(context: &TestContext, report: &str) -> Value {
    serde_json::from_str(&context.read(&format!("{report}/verdict.json"))).unwrap()
}

#[test]
fn nothing_sealed_is_nothing_reproduced() {
    let context = context();
    let folder = repository(&context, "Zahlen für alle", STEP);
    let commit = git(&folder, &["rev-parse", "HEAD"]);
    let ran = reproduce(&context, &["../Zahlen für alle"]).expect(5);
    assert!(ran.stderr.contains("nothing is sealed: there is nothing to compare with"), "{}", ran.stderr);
    let name = format!("trainlock-report-Zahlen-für-alle-{}", &commit[..12]);
    assert_eq!(reports(&context), std::slice::from_ref(&name));
    let facts = verdict(&context, &name);
    assert_eq!((&facts["verdict"], &facts["exit-code"]), (&"nothing-sealed".into(), &5.into()));
    assert_eq!((facts["commit"].as_str(), &facts["steps"][0]["outcome"]), (Some(commit.as_str()), &"ran".into()));
    assert!(facts["steps"][0]["outputs"][0]["found"]["sha256"].as_str().unwrap().len() == 64);
    let words = context.read(&format!("{name}/report.md"));
    for part in ["nothing-sealed", &commit, "## Step `one`: not compared", "| out | none | `"] {
        assert!(words.contains(part), "{part}\n{words}");
    }
    let run: Value = serde_json::from_str(&context.read(&format!("{name}/run.json"))).unwrap();
    assert_eq!(run["status"], "succeeded");
    // Again: what the store has is not taken for a reproduction, and no report is written over.
    let again = reproduce(&context, &["../Zahlen für alle"]).expect(5);
    assert!(again.stderr.contains("1 step ran, 0 cached"), "{}", again.stderr);
    assert_eq!(reports(&context), [name.clone(), format!("{name}-2")]);
    assert_eq!(left_over(&context), 0);
}

#[test]
fn folders_file_urls_bundles_and_revisions() {
    let context = context();
    let folder = repository(&context, "r", STEP);
    let first = git(&folder, &["rev-parse", "HEAD"]);
    git(&folder, &["tag", "v1"]);
    fs::write(folder.join("source.txt"), "second\n").unwrap();
    let second = commit(&folder);
    git(&folder, &["bundle", "create", "-q", "../with head.bundle", "HEAD", "main"]);
    git(&folder, &["bundle", "create", "-q", "../one.bundle", "main"]);
    git(&folder, &["branch", "other", "v1"]);
    git(&folder, &["bundle", "create", "-q", "../two.bundle", "main", "other"]);
    let url = format!("file://{}", folder.display());
    let tried: &[(&[&str], &str)] = &[
        (&["../r"], &second),
        (&[&url], &second),
        (&["../with head.bundle"], &second),
        (&["../one.bundle"], &second),
        (&["../two.bundle", "--rev", "other"], &first),
        (&["../r", "--rev", "v1"], &first),
        (&["../r", "--rev", "other"], &first),
        (&["../r", "--rev", &first], &first),
        (&["../r", "--rev", &first[..9]], &first),
        (&["../r", "--rev", "main~1"], &first),
    ];
    for (i, (args, commit)) in tried.iter().enumerate() {
        let report = format!("report-{i}");
        reproduce(&context, &[args, &["--report", &report][..]].concat()).expect(5);
        assert_eq!(verdict(&context, &report)["commit"].as_str(), Some(*commit), "{args:?}");
    }
    let several = reproduce(&context, &["../two.bundle"]).expect(1).stderr;
    assert!(several.contains("--rev: main, other"), "{several}");
    let near = reproduce(&context, &["../r", "--rev", "othre"]).expect(1).stderr;
    assert!(near.contains("no revision `othre`") && near.contains("`other`"), "{near}");
    let there = reproduce(&context, &["../r", "--report", "report-0"]).expect(2).stderr;
    assert!(there.contains("`report-0` is there already"), "{there}");
    assert_eq!((left_over(&context), reports(&context).len()), (0, 0));
}

/// Over ssh, by a program in ssh's place that runs what it is told to on this machine: `ssh [options] HOST COMMAND`.
#[test]
fn over_ssh() {
    let context = context();
    let folder = repository(&context, "über ssh", STEP);
    let commit = git(&folder, &["rev-parse", "HEAD"]);
    let ssh = context.root().join("ssh");
    let said = context.root().join("said");
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\nprintf '%s\\n' \"$*\" >>'{}'\nexec sh -c \"$last\"\n",
        said.display()
    );
    write_program(&ssh, script);
    let path = folder.display().to_string();
    let addresses = [
        format!("ssh://git@example.org{}", path.replace(' ', "%20").replace('ü', "%C3%BC")),
        format!("git@example.org:{path}"),
    ];
    for (i, address) in addresses.iter().enumerate() {
        let report = format!("report-{i}");
        let mut command = command(&context, &[address, "--report", &report]);
        // Nothing is sealed: that it ran and was compared with nothing is what code 5 says.
        Ran::of(command.env("GIT_SSH_COMMAND", &ssh)).expect(5);
        assert_eq!(verdict(&context, &report)["commit"].as_str(), Some(commit.as_str()), "{address}");
    }
    let said = fs::read_to_string(said).unwrap();
    assert!(said.contains("git@example.org git-upload-pack"), "{said}");
}

#[test]
fn what_has_no_commit_no_manifest_or_no_lock() {
    let context = context();
    let empty = context.root().join("empty");
    fs::create_dir_all(&empty).unwrap();
    git(&empty, &["init", "-q"]);
    assert!(reproduce(&context, &["../empty"]).expect(1).stderr.contains("the repository has no commit"));
    fs::write(empty.join("a"), "").unwrap();
    commit(&empty);
    assert!(reproduce(&context, &["../empty"]).expect(2).stderr.contains("the repository has no `train.toml`"));
    fs::create_dir_all(empty.join("below")).unwrap();
    fs::write(empty.join("below/train.toml"), format!("{HEAD}{STEP}")).unwrap();
    fs::write(empty.join("below/source.txt"), "source\n").unwrap();
    commit(&empty);
    let words = reproduce(&context, &["../empty", "--manifest-path", "below/train.toml"]).expect(3).stderr;
    assert!(words.contains("the repository has no `below/train.lock`"), "{words}");
    Ran::of(context.command(["lock"]).current_dir(empty.join("below"))).expect(0);
    commit(&empty);
    reproduce(&context, &["../empty", "--manifest-path", "below/train.toml", "--report", "r"]).expect(5);
    assert_eq!(verdict(&context, "r")["manifest"], "below/train.toml");
    for outside in ["/etc/train.toml", "../train.toml", "below/../../train.toml"] {
        reproduce(&context, &["../empty", "--manifest-path", outside]).expect(2);
    }
    // A lock that does not answer the manifest is not made to.
    fs::write(empty.join("below/train.toml"), format!("{HEAD}{STEP}[params]\nlr = 1\n")).unwrap();
    commit(&empty);
    reproduce(&context, &["../empty", "--manifest-path", "below/train.toml"]).expect(3);
    assert_eq!(left_over(&context), 0);
}

#[test]
fn addresses_that_run_something_are_refused() {
    let context = context();
    let mark = context.root().join("ran");
    let touch = format!("touch {}", mark.display());
    for hostile in [
        format!("--upload-pack={touch}"),
        format!("-u{touch}"),
        format!("ext::sh -c {}", touch.replace(' ', "% ")),
        "fd::17/x".to_owned(),
        format!("ssh://-oProxyCommand={touch}/x"),
        format!("-oProxyCommand={touch}:x"),
        "https://h/\nx".to_owned(),
    ] {
        let ran = reproduce(&context, &["--", &hostile]);
        assert!(matches!(ran.code, Some(1 | 2)), "{hostile}: {ran:?}");
        assert!(!mark.exists(), "{hostile}");
    }
    repository(&context, "r", STEP);
    for rev in [format!("--upload-pack={touch}"), "+main:refs/heads/x".to_owned(), "a:b".to_owned(), "*".to_owned()] {
        reproduce(&context, &["../r", &format!("--rev={rev}")]).expect(2);
        assert!(!mark.exists(), "{rev}");
    }
    assert_eq!((left_over(&context), reports(&context).len()), (0, 0));
}

#[test]
fn repositories_that_reach_out_are_refused_before_anything_runs() {
    let context = context();
    let ran = context.root().join("ran");
    let refused = |name: &str, words: &str| {
        let said = reproduce(&context, &[&format!("../{name}")]).expect(1).stderr;
        assert!(said.contains(words), "{said}");
        assert!(!ran.exists() && !said.contains("Running"), "{said}");
    };
    // An output's folder that is a link to somewhere else.
    let elsewhere = context.root().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let step = "[steps.one]\nrun = \"mkdir -p build; echo x >build/planted\"\noutputs = [\"build/planted\"]\n";
    let folder = repository(&context, "linked", step);
    fs_err::os::unix::fs::symlink(&elsewhere, folder.join("build")).unwrap();
    commit(&folder);
    refused("linked", "the repository's link `build` leads out of it");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // A folder that claims what was done.
    let folder = repository(&context, "forged", STEP);
    Ran::of(context.command(["train"]).current_dir(&folder)).expect(0);
    git(&folder, &["add", "-f", ".trainlock/state"]);
    commit(&folder);
    refused("forged", "the repository brings its own `.trainlock/state`");
    assert_eq!((left_over(&context), reports(&context).len()), (0, 0));
    // Links that stay inside are fine.
    let folder = repository(&context, "inside", STEP);
    fs_err::os::unix::fs::symlink("source.txt", folder.join("also")).unwrap();
    commit(&folder);
    reproduce(&context, &["../inside"]).expect(5);
}

#[test]
fn tools_are_asked_for_their_versions_behind_walls() {
    let context = context();
    // Run where the repository is, this one runs what lies there, like some programs' wrappers do.
    let bin = context.root().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let wrapper = bin.join("wrapper");
    write_program(&wrapper, "#!/bin/sh\n[ ! -x ./planted ] || ./planted\necho 1.2.3\n");
    fs::write(context.home().join("secret"), "secret").unwrap();
    let ran = context.root().join("ran");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let run = |command: &mut Command| Ran::of(command.env("PATH", &path));
    // The other one looks at the user's home and the network by a command of the manifest's own.
    let asks = format!(
        "cat {}/secret >>{2}; echo x >>{2}; [ $(ls /sys/class/net 2>&1 | wc -l) -le 1 ] || echo x >>{2}; echo 1.0.0 in {1}",
        context.home().display(),
        "$(pwd)",
        ran.display()
    );
    let manifest = format!(
        "{HEAD}[tools]\nwrapper = {{ version = \"*\", from = \"host\" }}\nsh = {{ version = \"*\", from = \"host\", probe = [\"sh\", \"-c\", {asks:?}] }}\n{STEP}"
    );
    let folder = context.root().join("r");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("train.toml"), manifest).unwrap();
    fs::write(folder.join("source.txt"), "source\n").unwrap();
    run(context.command(["lock"]).current_dir(&folder)).expect(0);
    // On the machine itself the probes of one's own manifest reach what its user does.
    assert!(fs::read_to_string(&ran).unwrap().starts_with("secret"));
    fs::remove_file(&ran).unwrap();
    git(&folder, &["init", "-q"]);
    write_program(&folder.join("planted"), format!("#!/bin/sh\necho planted >>{}\n", ran.display()));
    commit(&folder);
    let told = run(&mut command(&context, &["../r"])).expect(5);
    assert!(told.stderr.contains("nothing is sealed"), "{}", told.stderr);
    assert!(!ran.exists(), "{}", fs::read_to_string(&ran).unwrap());
    // Where no sandbox can be had they are not asked.
    let mut without = Command::new("unshare");
    let reproduce = command(&context, &["../r"]);
    without.args(["-Ur", "sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\""]);
    without.arg(reproduce.get_program()).args(reproduce.get_args()).current_dir(context.project()).env_clear();
    without.envs(reproduce.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let refused = run(&mut without);
    if refused.stderr.contains("unshare:") {
        trainlock_testing::skipped("no user namespace can be made here", true);
        return;
    }
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("it is asked in a sandbox, and this machine has none"), "{}", refused.stderr);
    assert!(!ran.exists());
}

#[test]
fn the_users_configuration_changes_no_byte_and_runs_nothing() {
    let context = context();
    let ran = context.root().join("ran");
    let folder = repository(&context, "r", STEP);
    fs::write(folder.join(".gitattributes"), "*.txt filter=mine\n").unwrap();
    commit(&folder);
    let template = context.root().join("template/hooks");
    fs::create_dir_all(&template).unwrap();
    write_program(&template.join("post-checkout"), format!("#!/bin/sh\necho hook >>{}\n", ran.display()));
    let ran = ran.display();
    let config = format!(
        "[core]\n\tautocrlf = true\n\thooksPath = {0}/hooks\n[init]\n\ttemplateDir = {0}\n\
         [filter \"mine\"]\n\tsmudge = \"echo filter >>{ran}; cat\"\n[submodule]\n\trecurse = true\n",
        template.parent().unwrap().display(),
    );
    fs::write(context.home().join(".gitconfig"), config).unwrap();
    let into = context.root().join("into");
    let mut command = command(&context, &["../r", "--into", into.to_str().unwrap()]);
    // As in a hook of another repository.
    command.env("GIT_DIR", context.root().join("nowhere")).env("GIT_INDEX_FILE", context.root().join("index"));
    Ran::of(&mut command).expect(5);
    assert_eq!(fs::read_to_string(into.join("source.txt")).unwrap(), "source\n");
    assert_eq!(count(&context, "ran"), 0);
    assert!(!context.root().join("index").exists() && !context.root().join("nowhere").exists());
}

#[test]
fn what_is_kept_and_what_is_not() {
    let context = context();
    repository(&context, "r", STEP);
    context.write("full/file", "");
    assert!(reproduce(&context, &["../r", "--into", "full"]).expect(2).stderr.contains("is not empty"));
    reproduce(&context, &["../r", "--into", "new"]).expect(5);
    assert_eq!(context.read("new/out"), "source\n");
    // A clone that failed is not in the way of the next.
    reproduce(&context, &["../r", "--rev", "nope", "--into", "again"]).expect(1);
    reproduce(&context, &["../r", "--into", "again"]).expect(5);
    assert_eq!(left_over(&context), 0);
    let kept = reproduce(&context, &["../r", "--keep"]).expect(5).stderr;
    let line = kept.lines().find_map(|line| line.trim().strip_prefix("Kept ")).unwrap();
    assert!(Path::new(line).join("out").is_file(), "{kept}");
    assert_eq!(left_over(&context), 1);
    reproduce(&context, &["../r", "--keep", "--into", "x"]).expect(2);
}

#[test]
fn a_step_that_fails_and_submodules() {
    let context = context();
    let folder = repository(&context, "r", "[steps.one]\nrun = \"echo words; exit 3\"\noutputs = [\"out\"]\n");
    let other = repository(&context, "other", STEP);
    git(
        &folder,
        &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other.to_str().unwrap(), "lib/sub"],
    );
    commit(&folder);
    let ran = reproduce(&context, &["../r", "--report", "r"]).expect(1);
    assert!(ran.stderr.contains("submodules are not followed: lib/sub"), "{}", ran.stderr);
    let facts = verdict(&context, "r");
    assert_eq!((&facts["verdict"], &facts["steps"][0]["outcome"]), (&"failed".into(), &"failed".into()));
    let logs: Vec<_> = fs::read_dir(context.project().join("r/logs")).unwrap().collect();
    assert_eq!(logs.len(), 1);
    assert!(fs::read_to_string(logs[0].as_ref().unwrap().path()).unwrap().contains("words"));
    assert!(context.read("r/report.md").contains("It did not come to its end."));
}

#[test]
fn each_signal_ends_it_in_good_order() {
    for signal in [Signal::INT, Signal::TERM] {
        let context = context();
        let step = "[steps.slow]\nrun = \"echo it runs; while :; do sleep 0.05; done\"\noutputs = [\"out\"]\n";
        repository(&context, "r", step);
        let mut child = command(&context, &["../r"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut words = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("it runs") {
            line.clear();
            assert_ne!(words.read_line(&mut line).unwrap(), 0, "it ended too early");
        }
        assert_eq!(left_over(&context), 1);
        // To the one process, as a supervisor does; from a terminal it is the same, as what it runs has a group of its own.
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut rest = String::new();
        words.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        assert!(rest.contains("step `slow` was interrupted") && rest.contains("nothing is reported"), "{rest}");
        assert_eq!((left_over(&context), reports(&context).len()), (0, 0), "{signal:?}");
    }
}

/// Two steps in a row, sealed, and the seal committed.
fn sealed(context: &TestContext, name: &str) -> PathBuf {
    let steps = "[steps.two]\nrun = \"cat out >more; echo '{{\\\"lines\\\": 1}' >m.json\"\ninputs = [\"out\"]\noutputs = [\"more\"]\nmetrics = [\"m.json\"]\n";
    let folder = repository(context, name, &format!("{STEP}{steps}"));
    fs::write(folder.join(".gitignore"), "out\nmore\nm.json\n").unwrap();
    commit(&folder);
    Ran::of(context.command(["train"]).current_dir(&folder)).expect(0);
    Ran::of(context.command(["seal"]).current_dir(&folder)).expect(0);
    commit(&folder);
    folder
}

#[test]
fn what_is_sealed_is_reproduced_by_running_it() {
    let context = context();
    let folder = sealed(&context, "r");
    // The outputs that a repository brings, and the results that the store has, prove nothing.
    fs::write(folder.join(".gitignore"), "").unwrap();
    commit(&folder);
    for report in ["full", "empty"] {
        let words = reproduce(&context, &["../r", "--report", report]).expect(0).stderr;
        assert!(words.contains("2 steps ran, 0 cached") && words.contains("Reproduced 2 steps"), "{words}");
        assert!(words.contains("Sealed 2 steps, for linux-"), "{words}");
        let facts = verdict(&context, report);
        assert_eq!((&facts["verdict"], &facts["exit-code"]), (&"reproduced".into(), &0.into()));
        let two = &facts["steps"][1];
        assert_eq!(two["judged"]["verdict"], "reproduced");
        assert_eq!(two["outputs"][1]["sealed"], two["outputs"][1]["found"]);
        assert!(two["outputs"].as_array().unwrap().iter().all(|output| output["same"] == true), "{two}");
        assert_eq!((&two["metrics"][0]["sealed"], &two["metrics"][0]["found"]), (&1.0.into(), &1.0.into()));
        // The next one is another user's, on a machine that has nothing of it.
        fs::remove_dir_all(context.store()).unwrap();
    }
}

#[test]
fn what_diverges_is_named_with_what_follows() {
    let context = context();
    let folder = sealed(&context, "r");
    fs::write(folder.join("source.txt"), "another\n").unwrap();
    commit(&folder);
    let words = reproduce(&context, &["../r", "--report", "r"]).expect(5).stderr;
    assert!(words.contains("step `one` diverged") && words.contains("`two` differs as a consequence"), "{words}");
    let facts = verdict(&context, "r");
    assert_eq!((&facts["verdict"], &facts["exit-code"]), (&"diverged".into(), &5.into()));
    let verdicts: Vec<&Value> = facts["steps"].as_array().unwrap().iter().map(|s| &s["judged"]["verdict"]).collect();
    assert_eq!(verdicts, ["diverged", "follows"]);
    assert_eq!(facts["steps"][0]["outputs"][0]["same"], false);
    let text = context.read("r/report.md");
    for part in [
        "diverged",
        "## Step `one`: diverged",
        "## Step `two`: follows",
        "- it follows `one`",
        "- `out`: sealed sha256",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // What was written of the run can be read again.
    fs::write(folder.join("source.txt"), "a third\n").unwrap();
    Ran::of(context.command(["train"]).current_dir(&folder)).expect(5);
    Ran::of(context.command(["runs", "show", "last"]).current_dir(&folder)).expect(0);
}

#[test]
fn the_sandbox_is_demanded_whatever_else_is_said() {
    let context = context();
    let step = "sandbox = \"off\"\n[steps.one]\nrun = \"cat /proc/self/mountinfo | wc -l >out\"\noutputs = [\"out\"]\n";
    let folder = repository(&context, "r", STEP);
    fs::write(folder.join("train.toml"), format!("{HEAD}{step}")).unwrap();
    Ran::of(context.command(["lock"]).current_dir(&folder)).expect(0);
    commit(&folder);
    let ran = reproduce(&context, &["../r", "--config", "sandbox=off", "--report", "r"]);
    let facts = verdict(&context, "r");
    // Where the machine has no sandbox, it refuses; it never runs without.
    match ran.code {
        Some(5) => assert_ne!(facts["steps"][0]["isolation"]["tier"], "none", "{facts}"),
        code => assert_eq!((code, &facts["steps"][0]["outcome"]), (Some(1), &"failed".into()), "{ran:?}"),
    }
}
