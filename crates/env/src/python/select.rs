//! Which of the locked packages and files are for one machine.

use pep508_rs::pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, MarkerTree, Requirement, VerbatimUrl, VersionOrUrl};
use std::str::FromStr;
use trainlock_types::{Libc, PinnedFile, Platform, WheelName, normalized_package};

/// A locked package.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Where it is wanted.
    pub marker: Option<&'a str>,
    /// Its wheels.
    pub wheels: &'a [PinnedFile],
    /// Its source distribution, if it may be built.
    pub source: Option<&'a PinnedFile>,
}

/// A package with the file that is for this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its file.
    pub file: PinnedFile,
}

/// A file that an index has of a package.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// Its name.
    pub file: &'a str,
    /// The versions of Python that it is for (PEP 440), where the index says it.
    pub requires_python: Option<&'a str>,
}

/// What decides which packages and files are taken.
#[derive(Debug, Clone)]
pub struct Target {
    platform: Platform,
    libc: Libc,
    python: (u32, u32),
    markers: MarkerEnvironment,
}

/// Why a package can't be had on a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No file is for it.
    #[error("package {name} {version} has no wheel for {target}{}", if .needs.is_empty() { String::new() } else { format!(": {}", .needs) })]
    NoFile {
        /// The package.
        name: String,
        /// Its version.
        version: String,
        /// The machine, in words.
        target: String,
        /// What its wheels need.
        needs: String,
    },
    /// A marker that can't be read.
    #[error("package {name} has a marker that can't be read: {reason}")]
    Marker {
        /// The package.
        name: String,
        /// Why.
        reason: String,
    },
    /// An interpreter's version that is none.
    #[error("`{0}` is no version of Python")]
    Python(String),
}

impl Target {
    /// A machine of this platform and C library (`glibc 2.36`; macOS: its version) with this CPython (`3.11.7`).
    ///
    /// # Errors
    /// If the version is none.
    pub fn new(platform: Platform, libc: &str, python: &str) -> Result<Target, SelectError> {
        let bad = || SelectError::Python(python.to_owned());
        let mut numbers = python.split('.').map(|n| n.parse::<u32>().ok());
        let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else { return Err(bad()) };
        let version = |text: &str| {
            let (a, b) = text.split_once('.')?;
            Some((a.parse().ok()?, b.split(['.', '-']).next()?.parse().ok()?))
        };
        let libc = match (libc.split_once(' '), platform) {
            (_, Platform::MacosAarch64 | Platform::MacosX86_64) => {
                let (a, b) = libc.rsplit(' ').next().and_then(version).unwrap_or((15, 0));
                Libc::Macos(a, b)
            }
            (Some(("glibc", text)), _) => version(text).map_or(Libc::Glibc(2, 17), |(a, b)| Libc::Glibc(a, b)),
            (Some(("musl", text)), _) => version(text).map_or(Libc::Musl(1, 2), |(a, b)| Libc::Musl(a, b)),
            _ => Libc::Musl(1, 2),
        };
        let (os, sys, machine, system) = match platform {
            Platform::LinuxAarch64 => ("posix", "linux", "aarch64", "Linux"),
            Platform::LinuxX86_64 => ("posix", "linux", "x86_64", "Linux"),
            Platform::MacosAarch64 => ("posix", "darwin", "arm64", "Darwin"),
            Platform::MacosX86_64 => ("posix", "darwin", "x86_64", "Darwin"),
        };
        let line = format!("{major}.{minor}");
        let markers = MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: python,
            os_name: os,
            platform_machine: machine,
            platform_python_implementation: "CPython",
            platform_release: "",
            platform_system: system,
            platform_version: "",
            python_full_version: python,
            python_version: &line,
            sys_platform: sys,
        })
        .map_err(|_| bad())?;
        Ok(Target { platform, libc, python: (major, minor), markers })
    }

    /// The packages that are wanted here, each with its best file, in the order given.
    ///
    /// # Errors
    /// The first that has none.
    pub fn select<'a>(&self, packages: impl IntoIterator<Item = Candidate<'a>>) -> Result<Vec<Selected>, SelectError> {
        let mut selected = Vec::new();
        for package in packages {
            if !self.wants(&package)? {
                continue;
            }
            let file = self.best(package.wheels).or(package.source).ok_or_else(|| self.none(&package))?;
            selected.push(Selected {
                name: package.name.to_owned(),
                version: package.version.to_owned(),
                file: file.clone(),
            });
        }
        Ok(selected)
    }

    /// The newest version above the locked one that a wheel of a package has for this machine, and that these requirements (PEP 508;
    /// those of other packages say nothing of it) allow. None if there is none, or if hashes decide. Whether all other packages
    /// allow it too only resolving can tell.
    pub fn newer<'a>(
        &self,
        package: &str,
        locked: &str,
        offered: impl IntoIterator<Item = Offered<'a>>,
        requirements: &[&str],
    ) -> Option<String> {
        let locked = Version::from_str(locked).ok()?;
        let python = &self.markers.python_full_version().version;
        let mut bounds = Vec::new();
        for text in requirements {
            let (bare, hashes) = text.split_once(" --hash=").map_or((*text, false), |(bare, _)| (bare, true));
            let Ok(requirement) = Requirement::<VerbatimUrl>::from_str(bare) else { continue };
            if normalized_package(requirement.name.as_ref()) != package
                || !requirement.marker.evaluate(&self.markers, &[])
            {
                continue;
            }
            match requirement.version_or_url {
                _ if hashes => return None,
                Some(VersionOrUrl::VersionSpecifier(specifiers)) => bounds.push(specifiers),
                Some(VersionOrUrl::Url(_)) => return None,
                None => {}
            }
        }
        let allowed = |version: &Version| {
            *version > locked
                && (!version.any_prerelease() || locked.any_prerelease())
                && bounds.iter().all(|specifiers| specifiers.contains(version))
        };
        let version = |one: Offered<'_>| {
            let wheel = WheelName::parse(one.file)?;
            wheel.rank(self.platform, self.libc, self.python)?;
            let for_python = |text| VersionSpecifiers::from_str(text).is_ok_and(|s| s.contains(python));
            let version = Version::from_str(wheel.version).ok().filter(&allowed)?;
            one.requires_python.is_none_or(for_python).then_some(version)
        };
        offered.into_iter().filter_map(version).max().map(|version| version.to_string())
    }

    /// Whether a marker holds here; none if it can't be read.
    pub fn holds(&self, marker: &str) -> Option<bool> {
        MarkerTree::from_str(marker).ok().map(|tree| tree.evaluate(&self.markers, &[]))
    }

    /// Whether the marker of a requirement holds here, without any extra.
    pub(super) fn wants_requirement(&self, requirement: &Requirement<VerbatimUrl>) -> bool {
        requirement.marker.evaluate(&self.markers, &[])
    }

    fn wants(&self, package: &Candidate<'_>) -> Result<bool, SelectError> {
        let Some(text) = package.marker else { return Ok(true) };
        let wrong = |reason: String| SelectError::Marker { name: package.name.to_owned(), reason };
        let tree = MarkerTree::from_str(text)
            .map_err(|e| wrong(e.to_string().lines().next().unwrap_or_default().to_owned()))?;
        Ok(tree.evaluate(&self.markers, &[]))
    }

    fn best<'f>(&self, wheels: &'f [PinnedFile]) -> Option<&'f PinnedFile> {
        let rank = |file: &'f PinnedFile| {
            let rank = WheelName::parse(&file.file)?.rank(self.platform, self.libc, self.python)?;
            Some((rank, &file.file, file))
        };
        wheels.iter().filter_map(rank).min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1))).map(|(.., file)| file)
    }

    fn none(&self, package: &Candidate<'_>) -> SelectError {
        let libc = match self.libc {
            Libc::Glibc(a, b) => format!("glibc {a}.{b}"),
            Libc::Musl(a, b) => format!("musl {a}.{b}"),
            Libc::Macos(a, b) => format!("macOS {a}.{b}"),
        };
        let needs: Vec<String> = package
            .wheels
            .iter()
            .filter_map(|file| WheelName::parse(&file.file)?.glibc(self.platform))
            .map(|(a, b)| format!("it needs glibc {a}.{b}"))
            .take(1)
            .collect();
        SelectError::NoFile {
            name: package.name.to_owned(),
            version: package.version.to_owned(),
            target: format!("{} with {libc} and Python {}.{}", self.platform, self.python.0, self.python.1),
            needs: needs.join(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainlock_types::Digest;

    fn file(name: &str) -> PinnedFile {
        PinnedFile { file: name.to_owned(), sha256: Digest::of(name.as_bytes()), size: 1 }
    }

    #[test]
    fn packages_of_a_machine() {
        let numpy = [
            file("numpy-2.4.6-cp311-cp311-macosx_11_0_arm64.whl"),
            file("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"),
            file("numpy-2.4.6-cp311-cp311-musllinux_1_2_x86_64.whl"),
        ];
        let mac = [file("x-1-py3-none-macosx_11_0_arm64.whl")];
        let all = [
            Candidate { name: "numpy", version: "2.4.6", marker: None, wheels: &numpy, source: None },
            Candidate {
                name: "x",
                version: "1",
                marker: Some("platform_machine == 'arm64' and sys_platform == 'darwin'"),
                wheels: &mac,
                source: None,
            },
        ];
        let select = |platform, libc: &str| Target::new(platform, libc, "3.11.7").unwrap().select(all);
        let linux = select(Platform::LinuxX86_64, "glibc 2.36").unwrap();
        assert_eq!(linux.iter().map(|s| s.file.file.as_str()).collect::<Vec<_>>(), [numpy[1].file.as_str()]);
        assert_eq!(select(Platform::LinuxX86_64, "musl 1.2").unwrap()[0].file, numpy[2]);
        assert_eq!(select(Platform::MacosAarch64, "macOS 14.1").unwrap().len(), 2);
        let error = select(Platform::LinuxX86_64, "glibc 2.17").unwrap_err().to_string();
        assert!(error.contains("needs glibc 2.27"), "{error}");
        assert!(
            select(Platform::LinuxAarch64, "glibc 2.36").unwrap_err().to_string().contains("numpy 2.4.6 has no wheel")
        );
    }

    #[test]
    fn versions_above_the_locked_one() {
        let target = Target::new(Platform::LinuxX86_64, "glibc 2.36", "3.11.7").unwrap();
        let offered = |file, requires_python| Offered { file, requires_python };
        let all = [
            offered("a_b-1.0-py3-none-any.whl", None),
            offered("a_b-1.10-py3-none-any.whl", Some(">=3.9")),
            offered("a_b-1.9-py3-none-any.whl", None),
            offered("a_b-2.0-py3-none-win_amd64.whl", None),
            offered("a_b-2.1-py3-none-any.whl", Some(">=3.12")),
            offered("a_b-2.2rc1-py3-none-any.whl", None),
            offered("a_b-3.0.tar.gz", None),
        ];
        let newer = |locked, requirements: &[&str]| target.newer("a-b", locked, all, requirements);
        assert_eq!(newer("1.0", &[]).as_deref(), Some("1.10"));
        assert_eq!(newer("1.0", &["A_b[x]<1.10", "other==1"]).as_deref(), Some("1.9"));
        assert_eq!(newer("1.0", &["a.b==1.*; python_version < '3'"]).as_deref(), Some("1.10"));
        assert_eq!(newer("2.2a1", &[]).as_deref(), Some("2.2rc1"));
        for (locked, requirements) in [("1.10", &[][..]), ("1.0", &["a-b==1.0"]), ("1.0", &["a-b>=1 --hash=sha256:00"])]
        {
            assert_eq!(newer(locked, requirements), None, "{locked}");
        }
    }

    #[test]
    fn markers_of_versions_and_extras() {
        let wheels = [file("t-1-py3-none-any.whl")];
        let with =
            |marker| [Candidate { name: "t", version: "1", marker: Some(marker), wheels: &wheels, source: None }];
        let target = Target::new(Platform::LinuxX86_64, "glibc 2.36", "3.11.7").unwrap();
        for (marker, wanted) in [
            ("python_full_version < '3.12'", 1),
            ("python_version >= '3.12'", 0),
            ("(sys_platform == 'win32' or os_name == 'posix') and implementation_name == 'cpython'", 1),
            ("extra == 'x'", 0),
        ] {
            assert_eq!(target.select(with(marker)).unwrap().len(), wanted, "{marker}");
        }
        assert!(matches!(target.select(with("no marker")), Err(SelectError::Marker { .. })));
        assert!(Target::new(Platform::LinuxX86_64, "", "three").is_err());
    }
}
