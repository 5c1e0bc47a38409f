//! fixtures/penguins and fixtures/mlp: real libraries, the same bytes wherever they run, and a difference where nothing
//! is pinned. They need Python 3.11, the package index once, and QEMU's user mode.

use crate::{Clone, NOBODY, open_to_all};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use trainlock_testing::{Ran, as_configured, copy_program, skipped};

/// A pipeline, with the machine's package index configured, and a store that all tests of this file share.
struct Library {
    clone: Clone,
}

impl Library {
    fn new(fixture: &str) -> Option<Library> {
        let qemu = ["/usr/bin/qemu-x86_64", "/usr/local/bin/qemu-x86_64"].iter().any(|p| Path::new(p).is_file());
        if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) || !qemu {
            skipped("it needs qemu-x86_64 on Linux on x86-64", true);
            return None;
        }
        let python = Ran::of(Command::new("python3").arg("--version"));
        if !python.stdout.starts_with("Python 3.11.") {
            skipped("python3 is not Python 3.11", true);
            return None;
        }
        Some(Library { clone: Clone::of(fixture, "here") })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.clone.command(args);
        as_configured(&mut command);
        command.env("TRAINLOCK_STORE", store());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }
}

/// One store for the tests of this process: what was fetched and installed once is there.
fn store() -> &'static Path {
    static STORE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let store = STORE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fs_err::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        folder
    });
    store.path()
}

/// What `train` says last, of a run in which every step really ran.
fn reproduced(ran: &Ran, steps: usize) {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let words = [format!("{steps} steps ran"), format!("Reproduced {steps} steps, bit for bit")];
    assert!(words.iter().all(|w| ran.stderr.contains(w.as_str())), "{}", ran.stderr);
}

/// The sealed results, in another folder, as another user, with another time zone, locale, umask and number of cores.
fn the_same_everywhere(fixture: &str, steps: usize) {
    let Some(first) = Library::new(fixture) else { return };
    reproduced(&first.run(&["train", "--locked"]), steps);
    let again = first.run(&["train", "--frozen"]).expect(0);
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);

    let second = Library { clone: Clone::of(fixture, "Ä folder/with spaces") };
    let line = format!("umask 077; exec taskset -c 0 '{}' train --frozen --force", env!("CARGO_BIN_EXE_trainlock"));
    let mut command = second.command(&[]);
    let variables: Vec<_> = command.get_envs().filter_map(|(n, v)| Some((n.to_owned(), v?.to_owned()))).collect();
    command = Command::new("/bin/sh");
    command.args(["-c", &line]).current_dir(&second.clone.folder).env_clear().envs(variables);
    command.env("TZ", "Pacific/Chatham").env("LC_ALL", "tr_TR.UTF-8").env("PYTHONHASHSEED", "7");
    command.env("PYTHONPATH", "/nowhere").env("OMP_NUM_THREADS", "2").env("OPENBLAS_CORETYPE", "Nehalem");
    reproduced(&Ran::of(&mut command), steps);

    // A result, and then its steps under other processors, with other names and orders of everything.
    let varied = first.run(&["verify", "--vary", "cpu,cpu-amd,order,hostname,hashseed,umask"]);
    assert_eq!(varied.code, Some(0), "{}", varied.stderr);
    assert!(varied.stderr.contains("nothing that was varied changes a byte"), "{}", varied.stderr);
}

#[test]
fn penguins_are_the_same_everywhere() {
    the_same_everywhere("penguins", 3);
}

#[test]
fn a_network_is_the_same_everywhere() {
    the_same_everywhere("mlp", 2);
}

/// With a store of their own and the system's interpreter, which is another release of Python 3.11.
#[test]
fn a_network_is_the_same_for_a_user_without_rights() {
    let system = Command::new("/usr/bin/python3").arg("--version").output();
    let is_right = system.is_ok_and(|output| output.stdout.starts_with(b"Python 3.11."));
    if !rustix::process::geteuid().is_root() || !is_right {
        return skipped("it needs root, and Python 3.11 as /usr/bin/python3", false);
    }
    let Some(library) = Library::new("mlp") else { return };
    let root = library.clone.context.root();
    let binary = root.join("trainlock");
    copy_program(env!("CARGO_BIN_EXE_trainlock"), &binary);
    fs_err::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    open_to_all(&library.clone.context.project());
    open_to_all(&library.clone.context.home());
    let mut command = Command::new(&binary);
    command.args(["train", "--locked"]).current_dir(&library.clone.folder).env_clear();
    as_configured(&mut command);
    command.env("HOME", library.clone.context.home()).env("PATH", "/usr/bin:/bin").uid(NOBODY).gid(NOBODY);
    reproduced(&Ran::of(&mut command), 2);
}

/// The check can fail: with nothing pinned, another processor gives other bits. At the lowest level it does not, though
/// that processor has no AVX at all.
#[test]
fn a_network_differs_where_nothing_is_pinned() {
    let Some(library) = Library::new("mlp") else { return };
    library.clone.change("train.toml", "seed = 42\n", "seed = 42\nlevel = \"x86-64-v2\"\n");
    library.run(&["train", "--profile", "smoke"]).expect(0);
    library.run(&["verify", "train", "--profile", "smoke", "--vary", "cpu"]).expect(0);
    library.clone.change("train.toml", "level = \"x86-64-v2\"", "level = \"off\"");
    library.run(&["train", "--profile", "smoke"]).expect(0);
    let ran = library.run(&["verify", "train", "--profile", "smoke", "--vary", "cpu"]).expect(5);
    assert!(ran.stderr.contains("train") && ran.stderr.contains(".npy"), "{}", ran.stderr);
}
