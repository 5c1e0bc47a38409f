//! What a step may see and do, and how that is held to.
//!
//! A [`Sandbox`] is plain data: the stage, its writable places, what else is there. [`probe`] finds out, by doing it,
//! which [`Tier`] this machine offers. [`crate::run`] then starts the step through trainlock's own executable, which
//! takes the part of the step's *init* ([`main_if_asked`]): it sets the walls up, starts the step behind them, watches
//! it and ends all that it left behind. The same init serves three tiers; they differ in who sets up the mounts.

#[cfg(target_os = "linux")]
mod access;
#[cfg(target_os = "linux")]
mod bwrap;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod channel;
#[cfg(target_os = "linux")]
mod engine;
mod hub;
#[cfg(target_os = "linux")]
mod init;
mod isolation;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod plan;
mod probe;
mod report;
#[cfg(target_os = "linux")]
mod rules;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
pub use engine::Container;
pub use hub::{Hub, HubFile, Refusal, Repository};
pub use isolation::{Guarantee, Isolation, Tier};
pub use probe::{Probe, Trial, probe, probe_all};
pub use report::{Access, Attempt, Report, SetupError};

#[cfg(target_os = "linux")]
pub use init::main_if_asked;
#[cfg(target_os = "linux")]
pub(crate) use start::{Link, start};

use crate::vars::{STEP_PATH, base_variables};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainlock_types::RelPath;

/// The folder that all of a project's steps see their project in, as `/trainlock/<project>`.
pub const PROJECTS: &str = "/trainlock";
/// A step's home folder in the sandbox.
const HOME: &str = "/home/trainlock";
/// The links to its tools. A project's name begins with a letter or digit, so that none is called so.
const BIN: &str = "/trainlock/.bin";
/// Its params.
const PARAMS: &str = "/trainlock/.params.json";
#[cfg(target_os = "linux")]
/// Where trainlock's own program stands in a sandbox that bwrap sets up, and the name (`argv[0]`) by which it knows in
/// every tier that it is to be a step's init.
const INIT: &str = "/trainlock/.init";
#[cfg(target_os = "linux")]
/// The user and group that a step sees itself as.
const USER: u32 = 1000;

/// Takes no part on systems that have no sandbox yet.
#[cfg(not(target_os = "linux"))]
pub fn main_if_asked() {}

/// A step's sandbox: a list of what is there. What is not named here does not exist for the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Who sets it up. [`Tier::None`] starts the step without any.
    pub tier: Tier,
    /// The stage's folder: `root`, `tmp`, `home`, and if they exist `bin` and `params.json`.
    pub stage: PathBuf,
    /// The project's name: `root` appears as `/trainlock/<project>`.
    pub project: String,
    /// Folders of `root` that the step may write to: those that its outputs lie in, and those that are outputs. They
    /// exist. All that the stage holds when the step starts is taken to be an input: read-only, inside them too.
    pub writable: Vec<RelPath>,
    /// What else of this machine the step can read: a tool's prefix, a tree of the store.
    pub read_only: Vec<Bind>,
    /// Folders of this machine that it can read and write where they lie. No step has one.
    pub shared: Vec<PathBuf>,
    /// Device nodes, or folders of them, beyond the harmless ones ([`gpu_devices`]).
    pub devices: Vec<PathBuf>,
    /// Links in an image's file system: where, and what they hold.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// The tree that takes the place of the system's programs and libraries: an image.
    pub root: Option<PathBuf>,
    /// The host name that the step sees.
    pub hostname: String,
    /// Its umask.
    pub umask: u32,
    /// Whether it has this machine's network.
    pub network: bool,
    /// Whether to note what it looked for in vain. Costs some 20 µs for each file that it opens.
    pub audit: bool,
    /// How much memory it may use, in bytes.
    pub memory: Option<u64>,
    /// The Hugging Face hub that it finds on its own loopback: it takes a network of the step's own.
    pub hub: Option<Hub>,
}

/// Something of this machine that a step can read, with all below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bind {
    /// Where it lies.
    pub from: PathBuf,
    /// Where the step sees it. The Landlock tier can't move anything: there it stays where it lies.
    pub to: PathBuf,
}

impl Bind {
    /// It is seen where it lies.
    pub fn same(path: impl Into<PathBuf>) -> Bind {
        let from: PathBuf = path.into();
        Bind { to: from.clone(), from }
    }
}

/// Where a step finds what its stage holds. Its environment and arguments have to name these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The project's files; a step starts in its member's folder there.
    pub root: PathBuf,
    /// An empty folder for temporary files.
    pub tmp: PathBuf,
    /// An empty home folder.
    pub home: PathBuf,
    /// Links to the project's tools.
    pub bin: PathBuf,
    /// The step's params.
    pub params: PathBuf,
}

impl Paths {
    /// As they lie on this machine.
    pub(crate) fn of_stage(stage: &Path) -> Paths {
        let at = |name| stage.join(name);
        Paths { root: at("root"), tmp: at("tmp"), home: at("home"), bin: at("bin"), params: at("params.json") }
    }

    /// The step's whole environment but for what it declares itself.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = base_variables();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        variables.insert("HOME".to_owned(), text(&self.home));
        variables.insert("TMPDIR".to_owned(), text(&self.tmp));
        variables.insert("PATH".to_owned(), format!("{}:{STEP_PATH}", text(&self.bin)));
        variables
    }

    /// The same on every machine.
    fn of_project(project: &str) -> Paths {
        Paths {
            root: Path::new(PROJECTS).join(project),
            tmp: "/tmp".into(),
            home: HOME.into(),
            bin: BIN.into(),
            params: PARAMS.into(),
        }
    }
}

impl Sandbox {
    /// A sandbox with nothing but the stage, all of it read-only, and the system's programs.
    pub fn new(tier: Tier, stage: impl Into<PathBuf>, project: impl Into<String>) -> Sandbox {
        Sandbox {
            tier,
            stage: stage.into(),
            project: project.into(),
            writable: Vec::new(),
            read_only: Vec::new(),
            shared: Vec::new(),
            devices: Vec::new(),
            links: Vec::new(),
            root: None,
            hostname: "trainlock".to_owned(),
            umask: 0o022,
            network: false,
            audit: false,
            memory: None,
            hub: None,
        }
    }

    /// What a step in it is held to, as far as that can be said before it runs.
    pub fn isolation(&self) -> Isolation {
        let memory = match self.memory {
            Some(_) => "known when the step runs",
            None => "no limit is declared",
        };
        Isolation::of(self, Err(memory.to_owned()), 0)
    }

    /// Where the step finds what its stage holds.
    pub fn paths(&self) -> Paths {
        match self.tier {
            Tier::Namespaces | Tier::Bwrap => Paths::of_project(&self.project),
            Tier::Landlock | Tier::None => Paths::of_stage(&self.stage),
        }
    }
}

/// The nodes of this machine's GPUs: NVIDIA's, AMD's and the kernel's own interface.
pub fn gpu_devices() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs_err::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            name.starts_with("nvidia") || name == "kfd" || name == "dri"
        })
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}
