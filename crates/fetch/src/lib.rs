//! Everything that talks to a network: sources, downloads, unpacking into the store.
//!
//! This crate prints nothing and decides nothing about manifests or locks. Its one entrance is the
//! [`Fetcher`]: at lock time it finds out what requests stand for, later it brings exactly what is
//! locked. Both end in the store: bytes get there only through its hashing writers, which were told what
//! to expect, or whose answer is about to be locked.
//!
//! Inside, one thread with an async runtime owns all connections; each transfer has a worker thread
//! that hashes and writes what comes through a bounded channel, and holds all decisions (retries,
//! mirrors, archives) as plain sequential code. A module each: the sources ([`http`], [`file`]), the
//! runtime and client ([`net`]), the connections of one file ([`parts`]), what leads a file into the store ([`receive`]), archives.

mod archive;
mod auth;
mod budget;
mod builds;
mod error;
mod fetcher;
mod file;
mod gate;
mod http;
mod image;
mod index;
mod list;
mod many;
mod net;
mod netrc;
mod npm;
mod object;
mod page;
mod parts;
mod process;
mod receive;
mod refusal;
mod replace;
mod retry;
mod settings;
mod small;
mod standing;
mod sums;
mod tool;
mod tree;

pub use archive::ArchiveError;
pub use auth::{Access, Credentials, Secret};
pub use builds::{PythonBuild, PythonMirror, StatedBuilds, python_builds};
pub use error::{FetchError, Mismatch, Reason, SourceFailure, SourceFailures, of_withdrawal};
pub use fetcher::{Content, Fetcher, Resolved, Want, Wanted};
pub use image::{DockerFiles, FoundImage, ImageConfig, image_config, image_config_digest, image_layout, image_parts};
pub use index::{ConfigFolders, IndexFile, IndexPlaces, IndexSettings, PackageIndex};
pub use many::ManyWanted;
pub use npm::{NpmPlaces, NpmSettings};
pub use object::{ObjectSettings, Profile};
pub use process::CredentialProcess;
pub use refusal::HubRefusal;
pub use replace::Replacements;
pub use settings::{Cancel, Settings};
pub use standing::{Answer, Found, Standing};
pub use tool::{FoundTool, GLIBC, LockedTool, ToolFetchError, semver_of};
