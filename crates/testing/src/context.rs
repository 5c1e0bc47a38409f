//! A project, a store and a home folder for one test, and the binary that runs in them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Temporary folders for one test of the binary: `project`, `store` and `home`, removed at its end.
pub struct TestContext {
    root: TempDir,
    binary: PathBuf,
}

/// What a run of the binary gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl TestContext {
    /// Empty folders, and the binary that [`TestContext::run`] runs.
    pub fn new(binary: impl Into<PathBuf>) -> TestContext {
        let root = TempDir::new().expect("a temporary folder");
        for folder in ["project", "home"] {
            fs_err::create_dir(root.path().join(folder)).expect("a folder in it");
        }
        TestContext { root, binary: binary.into() }
    }

    /// The folder that holds all others.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The project's folder, where the binary runs.
    pub fn project(&self) -> PathBuf {
        self.root().join("project")
    }

    /// The store, which does not exist until something makes it.
    pub fn store(&self) -> PathBuf {
        self.root().join("store")
    }

    /// The home folder, empty at first.
    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// Writes a file of the project, with the folders that it needs.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &TestContext {
        let file = self.project().join(path);
        if let Some(folder) = file.parent() {
            fs_err::create_dir_all(folder).expect("folders in the project");
        }
        fs_err::write(file, content).expect("a file in the project");
        self
    }

    /// The text of a file of the project.
    pub fn read(&self, path: &str) -> String {
        fs_err::read_to_string(self.project().join(path)).expect("a text file in the project")
    }

    /// The bytes of a file of the project.
    pub fn read_bytes(&self, path: &str) -> Vec<u8> {
        fs_err::read(self.project().join(path)).expect("a file in the project")
    }

    /// Whether the project has something at this path.
    pub fn has(&self, path: &str) -> bool {
        self.project().join(path).symlink_metadata().is_ok()
    }

    /// The command that [`TestContext::run`] runs, to be changed first.
    ///
    /// Of the caller's environment it has `PATH` alone, so that steps find their programs.
    #[expect(clippy::disallowed_methods, reason = "steps of a test need the caller's programs")]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(self.project()).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", self.home()).env("TRAINLOCK_STORE", self.store());
        // Interpreters are the machine's: their builds are large, and no server of a test has them.
        command.env("UV_PYTHON_DOWNLOADS", "never");
        command
    }

    /// Runs the binary in the project's folder to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// Filters for insta, as pairs of a regular expression and what stands in its place: temporary
    /// paths, times, process ids, and the ids of runs.
    pub fn filters(&self) -> Vec<(String, &'static str)> {
        let root = self.root().to_string_lossy().into_owned();
        let quoted: String =
            root.chars().flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c])).collect();
        vec![
            (quoted, "[TEMP]"),
            (r"\b(\d+h )?(\d+m )?\d+(\.\d+)?s\b".to_owned(), "[TIME]"),
            (r"\b(process|pid) \d+\b".to_owned(), "$1 [PID]"),
            (r"\b\d{8}T?-?\d{6}Z?-[0-9a-f]{4,}\b".to_owned(), "[RUN]"),
        ]
    }
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Itself, if the code is this one.
    ///
    /// # Panics
    /// If it is another; with all output.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_environment_in_the_project() {
        let context = TestContext::new("/bin/sh");
        context.write("a/b.txt", "text");
        let ran = context.run(["-c", "cat a/b.txt; echo; env; exit 3"]).expect(3);
        let mut lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.remove(0), "text");
        let names: Vec<&str> = lines.iter().filter_map(|l| l.split_once('=')).map(|(name, _)| name).collect();
        // The shell adds three of its own.
        let known = ["HOME", "PATH", "TRAINLOCK_STORE", "UV_PYTHON_DOWNLOADS", "PWD", "SHLVL", "_", "OLDPWD"];
        assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
        assert!(names.contains(&"TRAINLOCK_STORE"));
        assert!(context.has("a/b.txt") && !context.has("a/c.txt"));
    }
}
