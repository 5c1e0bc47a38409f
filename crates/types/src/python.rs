//! What a manifest asks for of python packages, and the files that packages come in.

use crate::{Digest, Name, Platform, RelPath};
use std::fmt;

/// The packages that a member's steps import, as they are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonRequest {
    /// The member that asks; none for the workspace's root project.
    pub member: Option<Name>,
    /// The profile that asks; none for `[python]` itself.
    pub profile: Option<Name>,
    /// A lock of another tool that is taken over; then nothing is resolved, and `dependencies` and `constraints` are empty.
    pub taken: Option<TakenLock>,
    /// The requirements, each as PEP 508 writes it, with ` --hash=sha256:…` behind it where only those files will do;
    /// in the order of the manifest or of the file that it names.
    pub dependencies: Vec<String>,
    /// What bounds the versions of packages without asking for them.
    pub constraints: Vec<String>,
    /// Packages that come from a package index of the user's configuration alone, each as `<package> <index>`, sorted.
    pub index: Vec<String>,
    /// Packages that may be built from a source distribution where there is no wheel, sorted.
    pub sdist: Vec<String>,
    /// The platforms that are locked for, sorted.
    pub platforms: Vec<Platform>,
}

/// A lock of another tool whose packages are taken over as they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenLock {
    /// What kind of lock it is.
    pub kind: TakenKind,
    /// The file, relative to the workspace.
    pub file: RelPath,
    /// Dependency groups that are wanted besides the project's own dependencies.
    pub groups: Vec<String>,
    /// Extras that are wanted besides.
    pub extras: Vec<String>,
    /// What the file says of each package, as `<package> <version> <sha256 of all of it but addresses>`, sorted.
    pub entries: Vec<String>,
}

/// The kinds of locks that are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenKind {
    /// `uv.lock`, as uv writes it.
    Uv,
    /// `pylock.toml` (PEP 751).
    Pylock,
}

impl TakenKind {
    /// All of them.
    pub const ALL: [TakenKind; 2] = [TakenKind::Uv, TakenKind::Pylock];

    /// The key in train.toml and train.lock.
    pub const fn as_str(self) -> &'static str {
        match self {
            TakenKind::Uv => "uv-lock",
            TakenKind::Pylock => "pylock",
        }
    }
}

impl PythonRequest {
    /// The name of the only index that a package may come from, if the manifest names one.
    pub fn index_of(&self, package: &str) -> Option<&str> {
        index_of(&self.index, package)
    }
}

/// The index that lines of `<package> <index>` name for a package.
pub fn index_of<'a>(lines: &'a [String], package: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == package).map(|(_, index)| index))
}

/// A file of a package or of a tool, as an index or publisher names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedFile {
    /// Its name, without a folder, or its address.
    pub file: String,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Their number.
    pub size: u64,
}

impl PinnedFile {
    /// The opposite of its `Display`: `<sha256> <size> <file>`.
    pub fn parse(line: &str) -> Option<PinnedFile> {
        let (sha256, rest) = line.split_once(' ')?;
        let (size, file) = rest.split_once(' ')?;
        let sound = !file.is_empty() && !file.chars().any(char::is_control);
        Some(PinnedFile { file: file.to_owned(), sha256: sha256.parse().ok()?, size: size.parse().ok()? })
            .filter(|_| sound)
    }
}

impl fmt::Display for PinnedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.sha256, self.size, self.file)
    }
}

/// A package's name in the form that all its spellings have in common (PEP 503): lower case, `-` for every run of `-`,
/// `_` and `.`.
pub fn normalized_package(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.trim().chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.push(c.to_ascii_lowercase()),
        }
    }
    normal
}

/// The normalized name of the package that a requirement is on.
pub fn requirement_name(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))).unwrap_or(text.len());
    normalized_package(&text[..end])
}

/// Whether a tool of this name is a Python interpreter: `python`, `python3`, `python3.11`.
pub fn is_python(tool: &str) -> bool {
    tool.strip_prefix("python").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// The parts of a wheel's file name (PEP 427): which interpreters and platforms it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelName<'a> {
    /// The package, as written.
    pub package: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Python tags, such as `cp311`.
    pub python: Vec<&'a str>,
    /// ABI tags, such as `abi3`.
    pub abi: Vec<&'a str>,
    /// Platform tags, such as `manylinux_2_28_x86_64`.
    pub platform: Vec<&'a str>,
}

impl<'a> WheelName<'a> {
    /// The parts of `NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl`; none if it is no such name.
    pub fn parse(file: &'a str) -> Option<WheelName<'a>> {
        let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
        let (package, version, [python, abi, platform]) = match parts[..] {
            [name, version, python, abi, platform] | [name, version, _, python, abi, platform] => {
                (name, version, [python, abi, platform])
            }
            _ => return None,
        };
        let split = |tags: &'a str| tags.split('.').collect();
        Some(WheelName { package, version, python: split(python), abi: split(abi), platform: split(platform) })
    }

    /// Whether it is for this platform, with any libc and system version.
    pub fn is_for(&self, platform: Platform) -> bool {
        self.platform.iter().any(|tag| *tag == "any" || libc_of(tag, platform).is_some())
    }

    /// How well it serves a platform with this libc and Python, the less the better; none if it doesn't.
    pub fn rank(&self, platform: Platform, libc: Libc, python: (u32, u32)) -> Option<u32> {
        let tag = |tag: &&str| -> Option<u32> {
            if **tag == *"any" {
                return Some(1000);
            }
            match (libc_of(tag, platform)?, libc) {
                (Needs::Nothing, _) => Some(500),
                (Needs::Glibc(major, minor), Libc::Glibc(a, b)) if (major, minor) <= (a, b) => {
                    // The newest that will do was built with the most care for such machines.
                    Some(200u32.saturating_sub(minor))
                }
                (Needs::Musl(major, minor), Libc::Musl(a, b)) if (major, minor) <= (a, b) => {
                    Some(200u32.saturating_sub(minor))
                }
                (Needs::Macos(major, minor), Libc::Macos(a, b)) if (major, minor) <= (a, b) => {
                    Some(200u32.saturating_sub(major))
                }
                _ => None,
            }
        };
        let platform = self.platform.iter().filter_map(tag).min()?;
        let interpreter = self.python.iter().filter_map(|p| interpreter(p, &self.abi, python)).min()?;
        Some(interpreter * 10_000 + platform)
    }

    /// The oldest glibc that it runs with on a platform, if it names one.
    pub fn glibc(&self, platform: Platform) -> Option<(u32, u32)> {
        let needs = self.platform.iter().filter_map(|tag| match libc_of(tag, platform)? {
            Needs::Glibc(major, minor) => Some((major, minor)),
            _ => None,
        });
        needs.min()
    }
}

/// The C library (or system) of a machine, with its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU's.
    Glibc(u32, u32),
    /// musl.
    Musl(u32, u32),
    /// macOS itself.
    Macos(u32, u32),
}

/// What a platform tag asks for.
enum Needs {
    Nothing,
    Glibc(u32, u32),
    Musl(u32, u32),
    Macos(u32, u32),
}

/// What a platform tag asks for of a machine of this platform; none if it is for another.
fn libc_of(tag: &str, platform: Platform) -> Option<Needs> {
    let architecture = match platform {
        Platform::LinuxAarch64 => "_aarch64",
        Platform::LinuxX86_64 | Platform::MacosX86_64 => "_x86_64",
        Platform::MacosAarch64 => "_arm64",
    };
    let pair = |text: &str| {
        let (a, b) = text.split_once('_')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    };
    if matches!(platform, Platform::MacosAarch64 | Platform::MacosX86_64) {
        let rest = tag.strip_prefix("macosx_")?;
        let both =
            if platform == Platform::MacosX86_64 { ["_intel", "_universal2"] } else { ["_universal2", "_universal2"] };
        let version = [architecture].iter().chain(&both).find_map(|ending| rest.strip_suffix(*ending))?;
        return pair(version).map(|(a, b)| Needs::Macos(a, b));
    }
    let system = tag.strip_suffix(architecture)?;
    match system {
        "linux" => Some(Needs::Nothing),
        "manylinux1" => Some(Needs::Glibc(2, 5)),
        "manylinux2010" => Some(Needs::Glibc(2, 12)),
        "manylinux2014" => Some(Needs::Glibc(2, 17)),
        _ => match (system.strip_prefix("manylinux_"), system.strip_prefix("musllinux_")) {
            (Some(version), _) => pair(version).map(|(a, b)| Needs::Glibc(a, b)),
            (_, Some(version)) => pair(version).map(|(a, b)| Needs::Musl(a, b)),
            _ => None,
        },
    }
}

/// How well an interpreter tag fits CPython of this version.
fn interpreter(tag: &str, abi: &[&str], (major, minor): (u32, u32)) -> Option<u32> {
    let version = |digits: &str| -> Option<(u32, u32)> {
        let (first, rest) = digits.split_at_checked(1)?;
        Some((first.parse().ok()?, if rest.is_empty() { 0 } else { rest.parse().ok()? }))
    };
    if let Some(digits) = tag.strip_prefix("cp") {
        let found = version(digits)?;
        let own = format!("cp{major}{minor}");
        return match found {
            found if found == (major, minor) && abi.iter().any(|a| *a == own || *a == "none" || *a == "abi3") => {
                Some(0)
            }
            (m, n) if m == major && n < minor && abi.contains(&"abi3") => Some(1 + (minor - n)),
            _ => None,
        };
    }
    let (m, n) = version(tag.strip_prefix("py")?)?;
    (m == major && n <= minor).then_some(100 + (minor - n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages() {
        for (written, normal) in [("NumPy", "numpy"), ("scikit_learn", "scikit-learn"), ("a.-_b", "a-b")] {
            assert_eq!(normalized_package(written), normal);
        }
    }

    #[test]
    fn wheels_and_who_they_are_for() {
        let numpy =
            WheelName::parse("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl").unwrap();
        assert_eq!((numpy.package, numpy.version), ("numpy", "2.4.6"));
        assert!(numpy.is_for(Platform::LinuxX86_64) && !numpy.is_for(Platform::LinuxAarch64));
        assert_eq!(numpy.glibc(Platform::LinuxX86_64), Some((2, 27)));
        assert!(numpy.rank(Platform::LinuxX86_64, Libc::Glibc(2, 36), (3, 11)).is_some());
        for (libc, python) in
            [(Libc::Glibc(2, 26), (3, 11)), (Libc::Musl(1, 2), (3, 11)), (Libc::Glibc(2, 36), (3, 12))]
        {
            assert_eq!(numpy.rank(Platform::LinuxX86_64, libc, python), None, "{libc:?} {python:?}");
        }
        let mac = WheelName::parse("uv-0.13.9-py3-none-macosx_11_0_arm64.whl").unwrap();
        assert!(mac.rank(Platform::MacosAarch64, Libc::Macos(14, 0), (3, 11)).is_some());
        assert!(mac.rank(Platform::MacosX86_64, Libc::Macos(14, 0), (3, 11)).is_none());
        let stable = WheelName::parse("x-1-1build-cp38-abi3-manylinux2014_aarch64.whl").unwrap();
        assert!(stable.rank(Platform::LinuxAarch64, Libc::Glibc(2, 17), (3, 11)).is_some());
        assert!(stable.rank(Platform::LinuxAarch64, Libc::Glibc(2, 17), (3, 7)).is_none());
        let pure = WheelName::parse("six-1.16.0-py2.py3-none-any.whl").unwrap();
        assert!(Platform::ALL.iter().all(|p| pure.is_for(*p)));
        let rank =
            |file: &str| WheelName::parse(file).unwrap().rank(Platform::LinuxX86_64, Libc::Glibc(2, 36), (3, 11));
        assert!(rank("a-1-cp311-cp311-manylinux_2_17_x86_64.whl") < rank("a-1-py3-none-any.whl"));
        for bad in ["numpy.whl", "numpy-2.4.6.tar.gz", "a-b-c-d.whl"] {
            assert_eq!(WheelName::parse(bad), None);
        }
    }

    #[test]
    fn lines_of_files() {
        let file = PinnedFile { file: "a b.whl".to_owned(), sha256: Digest::of(b"x"), size: 7 };
        assert_eq!(PinnedFile::parse(&file.to_string()), Some(file));
        assert_eq!(PinnedFile::parse("x 7 a"), None);
    }
}
