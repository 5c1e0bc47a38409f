//! One thing made different on purpose, to see whether it changes a step's bytes.

use fs_err as fs;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Something that should change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variation {
    /// Two threads where libraries ask the environment.
    Threads,
    /// The order in which folders list their files.
    Order,
    /// The time of day, and the time that archives are told.
    Time,
    /// The machine's name.
    Hostname,
    /// The seed of Python's hashes.
    HashSeed,
    /// The permissions of new files.
    Umask,
    /// The processor: tools run under an emulator of one that has what the level needs and little more.
    Cpu,
    /// The processor: tools run under an emulator of another maker's.
    CpuAmd,
}

/// Where a folder lists its files newest first, which no disk does.
const OTHER_ORDER: &str = "/dev/shm";

/// Zip files know the time to two seconds.
const LATER: Duration = Duration::from_millis(2100);

/// The emulator of processors.
const EMULATOR: &str = "qemu-x86_64";

impl Variation {
    /// All, in the order in which they are tried.
    pub const ALL: [Variation; 8] = [
        Variation::Threads,
        Variation::Order,
        Variation::Time,
        Variation::Hostname,
        Variation::HashSeed,
        Variation::Umask,
        Variation::Cpu,
        Variation::CpuAmd,
    ];

    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Variation::Threads => "threads",
            Variation::Order => "order",
            Variation::Time => "time",
            Variation::Hostname => "hostname",
            Variation::HashSeed => "hashseed",
            Variation::Umask => "umask",
            Variation::Cpu => "cpu",
            Variation::CpuAmd => "cpu-amd",
        }
    }

    /// Why this machine can't make it different; none if it can.
    pub fn impossible(self) -> Option<String> {
        match self {
            Variation::Order if !Path::new(OTHER_ORDER).is_dir() => {
                Some(format!("there is no `{OTHER_ORDER}`, whose folders list their files in another order"))
            }
            Variation::Cpu | Variation::CpuAmd if cfg!(not(target_arch = "x86_64")) => {
                Some("other processors are emulated on x86-64 alone".to_owned())
            }
            Variation::Cpu | Variation::CpuAmd if emulator().is_none() => {
                Some(format!("another processor needs the emulator `{EMULATOR}` (QEMU's user mode)"))
            }
            _ => None,
        }
    }

    /// Changes a step's variables.
    pub(crate) fn environment(self, variables: &mut BTreeMap<String, String>) {
        let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
        match self {
            Variation::Threads => {
                let threads = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];
                threads.into_iter().for_each(|name| set(name, "2"));
            }
            Variation::Time => set("SOURCE_DATE_EPOCH", "1000000000"),
            Variation::HashSeed => set("PYTHONHASHSEED", "4242"),
            Variation::Order | Variation::Hostname | Variation::Umask | Variation::Cpu | Variation::CpuAmd => {}
        }
    }

    /// The emulator's name of the processor that tools run under, where that is what is varied.
    pub(crate) fn processor(self, level: &str) -> Option<&'static str> {
        match self {
            Variation::Cpu if level == "x86-64-v2" => Some("Nehalem"),
            Variation::Cpu => Some("Haswell"),
            Variation::CpuAmd => Some("EPYC"),
            _ => None,
        }
    }

    /// Lets time pass, where that is what is varied.
    pub(crate) fn wait(self) {
        if self == Variation::Time {
            std::thread::sleep(LATER);
        }
    }

    /// A folder for the step's stage that lists its files in another order, where that is what is varied.
    pub(crate) fn folder(self) -> io::Result<Option<tempfile::TempDir>> {
        match self {
            Variation::Order => tempfile::Builder::new().prefix("trainlock-").tempdir_in(OTHER_ORDER).map(Some),
            _ => Ok(None),
        }
    }
}

/// The emulator's file.
pub(crate) fn emulator() -> Option<PathBuf> {
    trainlock_env::STEP_PATH.split(':').map(|folder| Path::new(folder).join(EMULATOR)).find(|p| p.is_file())
}

/// A program that starts a tool under the emulated processor `model`; the tool is told that it was called as `called`.
pub(crate) fn emulated(tool: &Path, called: Option<&Path>, model: &str) -> Option<String> {
    let quoted = |path: &Path| shlex::try_quote(&path.to_string_lossy()).map(|q| q.into_owned()).ok();
    let called = match called {
        Some(path) => format!("-0 {} ", quoted(path)?),
        None => String::new(),
    };
    Some(format!("#!/bin/sh\nexec {} -cpu {model} {called}{} \"$@\"\n", quoted(&emulator()?)?, quoted(tool)?))
}

/// Turns the order of every folder below this one round, where the file system keeps one.
pub(crate) fn reorder(folder: &Path) -> io::Result<()> {
    let entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    let aside = tempfile::tempdir_in(folder)?;
    for entry in &entries {
        if entry.file_type()?.is_dir() {
            reorder(&entry.path())?;
        }
        fs::rename(entry.path(), aside.path().join(entry.file_name()))?;
    }
    for entry in &entries {
        fs::rename(aside.path().join(entry.file_name()), entry.path())?;
    }
    Ok(())
}

/// Copies what a step made from its stage to another.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return fs::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if !kind.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    fs::set_permissions(to, PermissionsExt::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_order_of_a_folder_is_turned_round() {
        let Ok(Some(folder)) = Variation::Order.folder() else { return };
        fs::create_dir(folder.path().join("sub")).unwrap();
        for i in 0..9 {
            fs::write(folder.path().join(format!("sub/{i}")), "x").unwrap();
        }
        let before = listed(&folder.path().join("sub"));
        reorder(folder.path()).unwrap();
        let after = listed(&folder.path().join("sub"));
        assert_ne!(before, after);
        let to = tempfile::tempdir().unwrap();
        copy(&folder.path().join("sub"), &to.path().join("sub")).unwrap();
        assert_eq!(listed(&to.path().join("sub")).len(), 9);
    }

    #[test]
    fn every_word_is_its_own() {
        let words: std::collections::BTreeSet<_> = Variation::ALL.iter().map(|v| v.as_str()).collect();
        assert_eq!(words.len(), Variation::ALL.len());
    }
}
