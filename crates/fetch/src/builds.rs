//! Builds of the Python interpreter, as python-build-standalone publishes them and uv knows them.
//!
//! Two forms of lists are read: that of `UV_PYTHON_DOWNLOADS_JSON_URL` (an object of entries, most with a SHA-256) and that of
//! `uv python list --output-format json` (an array, with none). Where a list states no digest, the release does: in the file
//! `SHA256SUMS` beside its builds. Of the builds only the plain ones are taken: CPython, the baseline of the processor, GNU's C
//! library on Linux, what is to be installed alone (`install_only`).

use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::index::IndexSettings;
use crate::receive::Expect;
use crate::standing::Standing;
use crate::sums;
use crate::tool::{FoundTool, LockedTool, ToolFetchError, without_index};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use trainlock_store::Session;
use trainlock_types::{Digest, PinnedFile, Platform, RelPath, SourceUrl, ToolRequest, percent_decoded};
use url::Url;

/// A build of the interpreter for a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonBuild {
    /// The interpreter's version.
    pub version: semver::Version,
    /// Whom it is for.
    pub platform: Platform,
    /// Where it is published.
    pub url: Url,
    /// What the list states of its bytes.
    pub sha256: Option<Digest>,
}

/// Builds with the digest that is stated of each, and whether the list states them all.
pub type StatedBuilds = (Vec<(PythonBuild, Digest)>, bool);

/// Where builds are fetched from in place of where they are published (`UV_PYTHON_INSTALL_MIRROR`): what stands in the place of
/// everything before the release's folder. Its `Debug` shows no address.
#[derive(Clone, PartialEq, Eq)]
pub struct PythonMirror(Url);

impl fmt::Debug for PythonMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PythonMirror")
    }
}

impl PythonMirror {
    /// From an address; none if it is no `https`, `http` or `file` one.
    pub fn parse(text: &str) -> Option<PythonMirror> {
        let slash = format!("{}/", text.trim().trim_end_matches('/'));
        Url::parse(&slash).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "file")).map(PythonMirror)
    }

    /// Where the mirror has what is published at `url`: the last folder and the file.
    fn of(&self, url: &Url) -> Option<Url> {
        let (rest, file) = url.path().rsplit_once('/')?;
        let (_, release) = rest.rsplit_once('/')?;
        self.0.join(&format!("{release}/{file}")).ok()
    }
}

/// The plain builds of a list; none if it is no list.
pub fn python_builds(text: &str) -> Option<Vec<PythonBuild>> {
    let list: Value = serde_json::from_str(text).ok()?;
    let entries: Vec<&Value> = match &list {
        Value::Object(all) => all.values().collect(),
        Value::Array(all) => all.iter().collect(),
        _ => return None,
    };
    Some(entries.into_iter().filter_map(build).collect())
}

fn build(entry: &Value) -> Option<PythonBuild> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let arch = entry.get("arch")?;
    let (family, baseline) = match arch.as_str() {
        Some(family) => (family, true),
        None => (arch.get("family")?.as_str()?, arch.get("variant").is_none_or(Value::is_null)),
    };
    let platform = match (text("os"), family, text("libc")) {
        ("linux", "x86_64", "gnu") => Platform::LinuxX86_64,
        ("linux", "aarch64", "gnu") => Platform::LinuxAarch64,
        ("darwin" | "macos", "x86_64", _) => Platform::MacosX86_64,
        ("darwin" | "macos", "aarch64", _) => Platform::MacosAarch64,
        _ => return None,
    };
    let name = if text("implementation").is_empty() { text("name") } else { text("implementation") };
    let url = Url::parse(text("url")).ok()?;
    let plain = name == "cpython" && baseline && matches!(text("variant"), "" | "default");
    if !plain || !url.path().contains("install_only") {
        return None;
    }
    let version = match entry.get("version").and_then(Value::as_str) {
        Some(version) => crate::tool::semver_of(version)?,
        None => {
            let part = |key: &str| entry.get(key).and_then(Value::as_u64);
            let numbers = format!("{}.{}.{}", part("major")?, part("minor")?, part("patch")?);
            crate::tool::semver_of(&format!("{numbers}{}", text("prerelease")))?
        }
    };
    Some(PythonBuild { version, platform, url, sha256: text("sha256").parse().ok() })
}

impl Fetcher {
    /// The builds of the newest version that a request allows, with what is stated of the bytes of each, and whether the list
    /// states it all (else the release does). None if there is no such version or platform.
    ///
    /// # Errors
    /// If the digests are not to be had: asked once.
    pub fn stated_builds(
        &self,
        request: &ToolRequest,
        builds: &[PythonBuild],
        mirror: Option<&PythonMirror>,
    ) -> Result<Option<StatedBuilds>, FetchError> {
        let fits = |build: &&PythonBuild| {
            request.platforms.contains(&build.platform) && request.requirement.matches(&build.version)
        };
        let Some(newest) = builds.iter().filter(fits).map(|build| &build.version).max() else { return Ok(None) };
        let chosen = builds.iter().filter(fits).filter(|build| build.version == *newest);
        let (mut stated, mut by_list) = (Vec::new(), true);
        let mut sums_of: BTreeMap<Url, String> = BTreeMap::new();
        for build in chosen {
            let sha256 = match build.sha256 {
                Some(sha256) => sha256,
                None => {
                    by_list = false;
                    let at = at(&build.url, mirror);
                    let Ok(beside) = at.join("SHA256SUMS") else { continue };
                    if !sums_of.contains_key(&beside) {
                        let text = self.text_once("SHA256SUMS", &beside).map_err(|e| of_mirror(e, mirror))?;
                        sums_of.insert(beside.clone(), text);
                    }
                    let name = percent_decoded(build.url.path().rsplit('/').next().unwrap_or_default());
                    let Some(sha256) = sums::stated(&sums_of[&beside], &name, false) else { continue };
                    sha256
                }
            };
            stated.push((build.clone(), sha256));
        }
        // Of two builds of a version for a platform the one that is published last.
        stated.sort_by(|(a, _), (b, _)| (a.platform, &b.url).cmp(&(b.platform, &a.url)));
        stated.dedup_by_key(|(build, _)| build.platform);
        Ok(Some((stated, by_list)).filter(|(stated, _)| !stated.is_empty()))
    }

    /// Whether a locked build is still what a request gives, by the word of a list of builds.
    pub fn standing_of_builds(
        &self,
        request: &ToolRequest,
        builds: &[PythonBuild],
        locked: &LockedTool<'_>,
    ) -> Standing {
        let fits = |build: &&PythonBuild| {
            locked.files.contains_key(&build.platform) && request.requirement.matches(&build.version)
        };
        let Some(newest) = builds.iter().filter(fits).map(|build| &build.version).max() else {
            return Standing::Gone { why: format!("no build satisfies `{}` any more", request.version) };
        };
        let mut last: BTreeMap<Platform, &PythonBuild> = BTreeMap::new();
        for build in builds.iter().filter(fits).filter(|build| build.version == *newest) {
            let known = last.entry(build.platform).or_insert(build);
            if build.url > known.url {
                *known = build;
            }
        }
        // A version is built anew now and then.
        let name = |url: &str| percent_decoded(url.rsplit('/').next().unwrap_or_default());
        let rebuilt = last.values().find_map(|build| {
            let locked = locked.files.get(&build.platform).filter(|file| file.file != build.url.as_str())?;
            Some(Standing::Moved { locked: name(&locked.file), now: name(build.url.as_str()) })
        });
        match rebuilt.filter(|_| newest == locked.version) {
            Some(rebuilt) => rebuilt,
            None => locked.standing(newest, last.values().map(|build| (build.platform, build.sha256, None))),
        }
    }

    /// Builds as a tool: each in the store, and its interpreter found in it.
    ///
    /// # Errors
    /// If one can't be fetched, is not what is stated, or holds no interpreter.
    pub fn tool_of_builds(
        &self,
        session: &Session,
        builds: &[(PythonBuild, Digest)],
        mirror: Option<&PythonMirror>,
    ) -> Result<FoundTool, ToolFetchError> {
        let found = self.each(builds, |(build, sha256)| -> Result<_, ToolFetchError> {
            let file = build.url.to_string();
            let name = format!("Python {} for {}", build.version, build.platform);
            let there = session.store().object(sha256, None);
            let there = there.map_err(|error| FetchError::Store { name: name.clone(), error })?;
            let size = there.and_then(|path| fs_err::metadata(path).ok()).map(|meta| meta.len());
            let size = match size {
                Some(size) => size,
                None => {
                    let expect = Expect { sha256: Some(*sha256), ..Expect::default() };
                    let sources: Vec<SourceUrl> = source(at(&build.url, mirror)).into_iter().collect();
                    let came = self.download(session, &name, &sources, expect);
                    came.map_err(|error| of_mirror(error, mirror))?.1
                }
            };
            let pinned = PinnedFile { file, sha256: *sha256, size };
            // `python3` is a link to it.
            let program = format!("python/bin/python{}.{}", build.version.major, build.version.minor);
            let program = self.program(session, &pinned, &program)?;
            Ok((build.platform, (pinned, Some(program))))
        });
        let artifacts = found.into_iter().collect::<Result<BTreeMap<_, _>, _>>()?;
        let version = builds.first().map(|(build, _)| build.version.clone()).unwrap_or(semver::Version::new(0, 0, 0));
        Ok(FoundTool { version, artifacts, stated: true })
    }

    /// Where a locked build is fetched from.
    pub fn build_source(&self, published: &SourceUrl, mirror: Option<&PythonMirror>) -> SourceUrl {
        let SourceUrl::Http(url) = published else { return published.clone() };
        source(at(url, mirror)).unwrap_or_else(|| published.clone())
    }

    /// The same error, with no address of the mirror in it.
    pub fn without_mirror(&self, error: FetchError, mirror: Option<&PythonMirror>) -> FetchError {
        of_mirror(error, mirror)
    }

    /// Puts the tree of a build that the store has into the store; its digest. The descriptions of terminals are left out: the names
    /// of their folders differ in case alone, which not every file system can hold.
    pub fn tree_of_build(&self, session: &Session, name: &str, archive: (Digest, u64)) -> Result<Digest, FetchError> {
        let place = |path: &RelPath| (!path.as_str().starts_with("python/share/terminfo/")).then(|| path.clone());
        self.unpack_some(session, name, name, archive, &place).map(|tree| tree.digest)
    }
}

/// An address as a source: that of a mirror may hold credentials.
fn source(url: Url) -> Option<SourceUrl> {
    if url.scheme() == "file" { SourceUrl::parse(url.as_str()).ok() } else { Some(SourceUrl::Http(url.into())) }
}

/// Where a build, or what lies beside it, is fetched from.
fn at(published: &Url, mirror: Option<&PythonMirror>) -> Url {
    mirror.and_then(|mirror| mirror.of(published)).unwrap_or_else(|| published.clone())
}

/// The same error, with no address of the mirror in it.
fn of_mirror(error: FetchError, mirror: Option<&PythonMirror>) -> FetchError {
    let Some(PythonMirror(url)) = mirror else { return error };
    let mut error = without_index(error, &IndexSettings { indexes: vec![url.clone()], ..IndexSettings::default() });
    if let FetchError::Sources { failures, .. } = &mut error {
        for failure in &mut failures.0 {
            failure.url = failure.url.replace("the package index", "UV_PYTHON_INSTALL_MIRROR");
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_builds_of_both_lists() {
        let name = |arch: &str, more: &str| {
            format!("https://p.example/releases/20260101/cpython-3.12.1%2B20260101-{arch}-unknown-linux-{more}.tar.gz")
        };
        let sha256 = Digest::of(b"x").to_hex();
        let entry = |arch: Value, libc: &str, variant: Value, url: String| {
            serde_json::json!({
                "name": "cpython", "arch": arch, "os": "linux", "libc": libc, "major": 3, "minor": 12, "patch": 1,
                "prerelease": "", "url": url, "sha256": sha256, "variant": variant,
            })
        };
        let plain = |family: &str| serde_json::json!({ "family": family, "variant": null });
        let own = name("x86_64", "gnu-install_only_stripped");
        let list = serde_json::json!({
            "a": entry(plain("x86_64"), "gnu", Value::Null, own.clone()),
            "b": entry(serde_json::json!({ "family": "x86_64", "variant": "v3" }), "gnu", Value::Null, name("x86_64_v3", "gnu-install_only")),
            "c": entry(plain("x86_64"), "musl", Value::Null, name("x86_64", "musl-install_only")),
            "d": entry(plain("x86_64"), "gnu", "freethreaded".into(), name("x86_64", "gnu-freethreaded-install_only")),
            "e": entry(plain("aarch64"), "gnu", Value::Null, name("aarch64", "gnu-debug-full")),
        });
        let found = python_builds(&list.to_string()).unwrap();
        let url = Url::parse(&own).unwrap();
        let sha256 = Some(Digest::of(b"x"));
        let version = semver::Version::new(3, 12, 1);
        assert_eq!(found, [PythonBuild { version: version.clone(), platform: Platform::LinuxX86_64, url, sha256 }]);
        let mirror = PythonMirror::parse("file:///mirror").unwrap();
        let mirrored = mirror.of(&found[0].url).unwrap();
        assert_eq!(
            mirrored.as_str(),
            "file:///mirror/20260101/cpython-3.12.1%2B20260101-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
        );
        let of_uv = serde_json::json!([
            { "version": "3.14.0rc1", "implementation": "cpython", "os": "macos", "arch": "aarch64", "libc": "none", "variant": "default", "url": own },
            { "version": "3.14.0", "implementation": "cpython", "os": "linux", "arch": "x86_64_v2", "libc": "gnu", "variant": "default", "url": own },
            { "version": "3.11.1", "implementation": "pypy", "os": "linux", "arch": "x86_64", "libc": "gnu", "variant": "default", "url": own },
            { "version": "3.14.1", "implementation": "cpython", "os": "linux", "arch": "x86_64", "libc": "gnu", "variant": "default", "url": null },
        ]);
        let found = python_builds(&of_uv.to_string()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].platform, found[0].version.to_string().as_str()), (Platform::MacosAarch64, "3.14.0-rc.1"));
        assert_eq!(python_builds("[tools]"), None);
    }
}
