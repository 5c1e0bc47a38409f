//! The pipelines of fixtures: from the committed lock to metrics, the same everywhere.

mod libraries;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use trainlock_testing::{Ran, TestContext, copy_program};
use trainlock_types::Digest;

/// `nobody` on every Unix: a user without rights and without a home folder.
const NOBODY: u32 = 65534;

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs_err::create_dir_all(to).unwrap();
        for entry in fs_err::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs_err::copy(from, to).unwrap();
    }
}

/// The pipeline as a fresh clone has it, in a folder below a test's project folder.
struct Clone {
    context: TestContext,
    folder: PathBuf,
}

impl Clone {
    fn new(folder: &str) -> Clone {
        Clone::of("digits", folder)
    }

    fn of(fixture: &str, folder: &str) -> Clone {
        let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
        let folder = context.project().join(folder);
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
        fs_err::create_dir_all(&folder).unwrap();
        // What git knows, not what a run in the fixture's own folder has made.
        for name in ["train.toml", "train.lock", ".gitignore", "raw", "src"] {
            if !fixture.join(name).exists() {
                continue;
            }
            copy(&fixture.join(name), &folder.join(name));
        }
        Clone { context, folder }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.context.command(args);
        command.current_dir(&self.folder);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let file = self.folder.join(file);
        let text = fs_err::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{} has no `{from}`", file.display());
        fs_err::write(file, text.replace(from, to)).unwrap();
    }

    /// The digests of all that is in `build`.
    fn outputs(&self) -> BTreeMap<String, Digest> {
        let mut found = BTreeMap::new();
        collect(&self.folder.join("build"), "build", &mut found);
        found
    }

    /// The last run: each step's outcome, and the accuracy.
    fn last(&self) -> (Vec<String>, f64) {
        let run: serde_json::Value =
            serde_json::from_str(&self.run(&["runs", "show", "last", "--json"]).expect(0).stdout).unwrap();
        let steps = run["steps"].as_array().unwrap();
        let words = steps.iter().map(|s| format!("{} {}", s["step"], s["outcome"]).replace('"', "")).collect();
        (words, steps.iter().find_map(|s| s["metrics"]["accuracy"].as_f64()).unwrap())
    }

    /// Trains, and says which steps ran.
    fn trained(&self, args: &[&str]) -> Vec<String> {
        self.run(&[&["train"], args].concat()).expect(0);
        self.last().0.into_iter().filter_map(|words| words.strip_suffix(" ran").map(str::to_owned)).collect()
    }
}

fn collect(folder: &Path, name: &str, found: &mut BTreeMap<String, Digest>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{name}/{}", path.file_name().unwrap().to_string_lossy());
        match path.is_dir() {
            true => collect(&path, &name, found),
            false => drop(found.insert(name, Digest::of(&fs_err::read(&path).unwrap()))),
        }
    }
}

fn open_to_all(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs_err::read_dir(path).unwrap() {
            open_to_all(&entry.unwrap().path());
        }
    }
}

#[test]
fn from_the_committed_lock_to_metrics_and_the_same_bytes_everywhere() {
    let first = Clone::new("Müllers Übung 1");
    let lock = fs_err::read(first.folder.join("train.lock")).unwrap();
    first.run(&["train", "--locked"]).expect(0);
    let (steps, accuracy) = first.last();
    assert_eq!(steps, ["prepare ran", "train ran", "evaluate ran"]);
    assert!(accuracy >= 0.90, "{accuracy}");
    let again = first.run(&["train", "--frozen"]).expect(0);
    assert!(again.stderr.contains("nothing to do: 3 steps up to date"), "{}", again.stderr);
    assert_eq!(first.last().0, ["prepare fresh", "train fresh", "evaluate fresh"]);
    first.run(&["lock", "--check"]).expect(0);
    first.run(&["lock"]).expect(0);
    assert_eq!(fs_err::read(first.folder.join("train.lock")).unwrap(), lock, "the committed lock is what lock writes");

    // Another folder, home, store, time zone, locale and umask.
    let second = Clone::new("elsewhere/very/deep");
    let home = second.context.root().join("another home");
    fs_err::create_dir(&home).unwrap();
    let line = format!("umask 077; exec '{}' train --locked", env!("CARGO_BIN_EXE_trainlock"));
    let mut command = second.command(&[]);
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).unwrap().to_owned();
    command = Command::new("/bin/sh");
    command.args(["-c", &line]).current_dir(&second.folder).env_clear().env("PATH", path).env("HOME", &home);
    command.env("TZ", "Pacific/Chatham").env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8");
    command.env("PYTHONHASHSEED", "7").env("PYTHONPATH", "/nowhere").env("OMP_NUM_THREADS", "2");
    Ran::of(&mut command).expect(0);
    assert!(home.join(".cache/trainlock").is_dir(), "the store is in the home's cache folder");
    assert_eq!(second.outputs(), first.outputs());
    assert_eq!(second.outputs().len(), 7, "{:?}", second.outputs().keys());

    if !rustix::process::geteuid().is_root() {
        return;
    }
    let third = Clone::new("nobody's");
    // What a plain user may not reach, as a target folder in root's home, is no part of this test.
    let binary = third.context.root().join("trainlock");
    copy_program(env!("CARGO_BIN_EXE_trainlock"), &binary);
    fs_err::set_permissions(third.context.root(), PermissionsExt::from_mode(0o755)).unwrap();
    open_to_all(&third.context.project());
    open_to_all(&third.context.home());
    let mut command = Command::new(&binary);
    command.args(["train", "--locked"]).current_dir(&third.folder).env_clear().env("HOME", third.context.home());
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").uid(NOBODY).gid(NOBODY);
    Ran::of(&mut command).expect(0);
    assert_eq!(third.outputs(), first.outputs());
}

#[test]
fn what_changes_runs_and_nothing_else() {
    let clone = Clone::new("digits");
    assert_eq!(clone.trained(&["--profile", "smoke"]), ["prepare", "train", "evaluate"]);
    assert_eq!(clone.trained(&["--profile", "smoke"]), [""; 0]);
    let smoke = clone.outputs();
    // A comment in a source is a change of that source, and its outputs stay the same.
    clone.change("src/evaluate.py", "import json\n", "# A comment.\nimport json\n");
    assert_eq!(clone.trained(&["--profile", "smoke"]), ["evaluate"]);
    assert_eq!(clone.outputs(), smoke);
    clone.change("src/evaluate.py", "# A comment.\n", "");
    assert_eq!(clone.trained(&["--profile", "smoke"]), [""; 0]);
    // A param of `train`, and of the overlay alone.
    clone.change("train.toml", "lr = 0.02", "lr = 0.03");
    let why = clone.run(&["why", "train", "--profile", "smoke"]).expect(0).stdout;
    assert!(why.contains("params.optimizer.lr: 0.02 -> 0.03"), "{why}");
    assert_eq!(clone.trained(&["--profile", "smoke"]), ["train", "evaluate"]);
    assert_ne!(clone.outputs(), smoke);
    let locked = clone.run(&["lock", "--check"]).expect(0);
    assert_eq!(locked.stdout, "");
    // All back: all from the store.
    clone.change("train.toml", "lr = 0.03", "lr = 0.02");
    assert_eq!(clone.trained(&["--profile", "smoke"]), [""; 0]);
    assert_eq!(clone.outputs(), smoke);
    // Another seed is another split.
    clone.change("train.toml", "seed = 42", "seed = 43");
    clone.run(&["train", "--locked", "--profile", "smoke"]).expect(3);
    assert_eq!(clone.trained(&["--profile", "smoke"]), ["prepare", "train", "evaluate"]);
}
