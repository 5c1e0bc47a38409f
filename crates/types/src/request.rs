//! What a manifest asks for, as the lock answers it.

use crate::{Digest, Name, Platform, RelPath, SourceUrl};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// One entry of `[data]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRequest {
    /// The member that asks; none for the workspace's root project.
    pub member: Option<Name>,
    /// Its name in `[data]`.
    pub name: Name,
    /// Where it comes from and what is wanted of it.
    pub source: DataSource,
    /// Where steps see it, relative to the workspace's root. Not part of what is locked.
    pub to: RelPath,
}

/// Where data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// Fetched from an address.
    Url {
        /// The address.
        url: SourceUrl,
        /// Other addresses of the same bytes, tried in order.
        mirrors: Vec<SourceUrl>,
        /// What the publisher states of the fetched file.
        checksum: Option<Checksum>,
        /// The fetched file's size in bytes, where the manifest states it.
        size: Option<u64>,
        /// Branch, tag or commit (`hf`, `git`).
        rev: Option<String>,
        /// Globs of the files wanted (`hf`, `git`, object stores, `pypi`).
        files: Vec<String>,
        /// One member of an archive.
        extract: Option<RelPath>,
        /// The whole archive as a tree.
        unpack: bool,
    },
    /// A file or folder of the repository, relative to the workspace's root.
    Path(RelPath),
    /// A Croissant description: a URL, or a path relative to the workspace's root.
    Croissant(String),
    /// A Pooch registry file.
    Pooch {
        /// Its path, relative to the workspace's root.
        registry: RelPath,
        /// Where the files lie that it gives no address of.
        base: Option<SourceUrl>,
    },
}

impl DataSource {
    /// The same with no secret in an address: as it is locked ([`SourceUrl::for_lock`]).
    pub fn for_lock(&self) -> Cow<'_, DataSource> {
        let has_query = |url: &SourceUrl| match url {
            SourceUrl::Http(url) | SourceUrl::Git(url) | SourceUrl::Object(url) => url.as_str().contains('?'),
            _ => false,
        };
        match self {
            DataSource::Url { url, mirrors, .. } if has_query(url) || mirrors.iter().any(has_query) => {}
            DataSource::Croissant(location) if location.contains('?') => {}
            // Nearly all addresses are of this sort.
            _ => return Cow::Borrowed(self),
        }
        let mut source = self.clone();
        match &mut source {
            DataSource::Url { url, mirrors, .. } => {
                for url in std::iter::once(url).chain(mirrors) {
                    *url = url.for_lock();
                }
            }
            DataSource::Croissant(location) => {
                if let Ok(url) = SourceUrl::parse(location) {
                    *location = url.for_lock().to_string();
                }
            }
            DataSource::Path(_) | DataSource::Pooch { .. } => {}
        }
        Cow::Owned(source)
    }
}

/// A hash function that publishers state checksums with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the only one that is enough by itself.
    Sha256,
    /// SHA-512.
    Sha512,
    /// SHA-1: checked, never relied on.
    Sha1,
    /// MD5: checked, never relied on.
    Md5,
}

/// `algorithm:hexadecimal digits`, as a publisher states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// The function.
    pub algorithm: Algorithm,
    /// The value, lower-case hexadecimal.
    pub hex: String,
}

/// Why a text is no checksum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// No known function's name before the colon.
    #[error("write a checksum as `sha256:…`, `sha512:…`, `sha1:…` or `md5:…`")]
    Form,
    /// Not as many hexadecimal digits as the function gives.
    #[error("{0} has {1} hexadecimal digits, found {2} characters")]
    Length(&'static str, usize, usize),
}

impl Algorithm {
    /// All, strongest first.
    pub const ALL: [Algorithm; 4] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Sha1, Algorithm::Md5];

    /// The name before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Sha1 => "sha1",
            Algorithm::Md5 => "md5",
        }
    }

    const fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
            Algorithm::Sha1 => 40,
            Algorithm::Md5 => 32,
        }
    }
}

impl Checksum {
    /// The SHA-256, if that is what is stated.
    pub fn sha256(&self) -> Option<Digest> {
        (self.algorithm == Algorithm::Sha256).then(|| self.hex.parse().ok()).flatten()
    }
}

impl std::str::FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Checksum, ChecksumError> {
        let (name, hex) = text.split_once(':').ok_or(ChecksumError::Form)?;
        let algorithm = Algorithm::ALL.into_iter().find(|a| a.as_str() == name).ok_or(ChecksumError::Form)?;
        if hex.len() != algorithm.digits() || !hex.bytes().fold(true, |good, b| good & b.is_ascii_hexdigit()) {
            return Err(ChecksumError::Length(algorithm.as_str(), algorithm.digits(), hex.chars().count()));
        }
        Ok(Checksum { algorithm, hex: hex.to_ascii_lowercase() })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

/// One entry of `[tools]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRequest {
    /// The member that asks; none for the workspace's root project.
    pub member: Option<Name>,
    /// The program's name, as steps call it.
    pub name: Name,
    /// The requirement as written.
    pub version: String,
    /// The requirement itself.
    pub requirement: semver::VersionReq,
    /// Who provides it.
    pub provider: ToolProvider,
    /// The platforms that a fetched tool is locked for, sorted.
    pub platforms: Vec<Platform>,
}

/// Who provides a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolProvider {
    /// A program of the machine, found on PATH.
    Host {
        /// The command that prints the version; `NAME --version` if not given.
        probe: Vec<String>,
        /// How near the machine's version must be to the locked one.
        accept: ToolMatch,
    },
    /// A program that is fetched and verified.
    Fetched(FetchedTool),
}

/// Where a fetched tool comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTool {
    /// Who publishes it.
    pub from: ToolFrom,
    /// The package that holds it (`pypi`, `npm`), where that is not called as the tool is.
    pub package: Option<String>,
    /// The program's file name, or its path in the archive, where that is not called as the tool is.
    pub bin: Option<String>,
    /// `owner/name` on the forge (`github`).
    pub repo: Option<String>,
    /// The list of versions (`index`): an address, or a path relative to the workspace's root.
    pub index: Option<String>,
    /// The file of a release, by platform (`github`); `{version}` and `{tag}` stand for the release's.
    pub asset: BTreeMap<Platform, String>,
}

/// Who publishes a fetched tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToolFrom {
    /// Programs inside wheels of the Python package index.
    Pypi,
    /// Programs inside packages of the npm registry.
    Npm,
    /// Files of a release on GitHub.
    Github,
    /// A list of versions.
    Index,
    /// Builds of the Python interpreter.
    Python,
}

impl ToolFrom {
    /// All of them.
    pub const ALL: [ToolFrom; 5] = [ToolFrom::Pypi, ToolFrom::Npm, ToolFrom::Github, ToolFrom::Index, ToolFrom::Python];

    /// The word in train.toml and train.lock.
    pub const fn as_str(self) -> &'static str {
        match self {
            ToolFrom::Pypi => "pypi",
            ToolFrom::Npm => "npm",
            ToolFrom::Github => "github",
            ToolFrom::Index => "index",
            ToolFrom::Python => "python",
        }
    }
}

impl FetchedTool {
    /// From there, with all else as it is by default.
    pub fn new(from: ToolFrom) -> FetchedTool {
        FetchedTool { from, package: None, bin: None, repo: None, index: None, asset: BTreeMap::new() }
    }
}

impl ToolProvider {
    /// The word in train.toml and train.lock.
    pub const fn as_str(&self) -> &'static str {
        match self {
            ToolProvider::Host { .. } => "host",
            ToolProvider::Fetched(tool) => tool.from.as_str(),
        }
    }
}

/// How near a host tool's version must be to the locked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolMatch {
    /// The very version that the lock names (the default).
    Version,
    /// Any version that satisfies the requirement.
    Requirement,
}

impl ToolMatch {
    /// The word in train.toml and train.lock.
    pub const fn as_str(self) -> &'static str {
        match self {
            ToolMatch::Version => "version",
            ToolMatch::Requirement => "requirement",
        }
    }
}
