//! train.lock: the canonical reader and writer, what satisfies a request, and healing.
//!
//! This crate does no IO beyond the lock's own file, and asks nobody: it knows what was locked, not how.

mod diff;
mod entry;
mod error;
mod file;
mod heal;
mod pin;
mod read;
mod satisfies;
mod scan;
mod write;

pub use diff::{Action, Change, FileChanges, Subject, Why, artifacts, diff, package_changes};
pub use error::{LockError, Merge};
pub use heal::{Healed, heal};
pub use pin::{
    Content, DataPin, Determinism, Extra, HashFrom, ImagePin, Lock, PackagePin, PythonPin, ResultPin, ResultPlace,
    SealedKind, SealedOutput, Switches, ToolArtifact, ToolPin,
};
pub use satisfies::{Reason, python_satisfies, satisfies, tool_satisfies};

/// The version of the format that this crate reads and writes.
pub const VERSION: i64 = 1;
