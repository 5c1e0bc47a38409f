//! What a sandbox tells when its step is over.

use super::{Isolation, Refusal, Sandbox};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What was held to, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was enforced, and what was not.
    pub isolation: Isolation,
    /// The programs that ran and the files that were mapped as code (libraries), as the step sees them; sorted.
    pub mapped: Vec<PathBuf>,
    /// What it looked for in vain, in the order of its first attempts (only with `audit`; bounded).
    pub attempts: Vec<Attempt>,
    /// What it asked its hub for in vain (bounded).
    pub refusals: Vec<Refusal>,
    /// Why `mapped` or `attempts` may lack something.
    pub lost: Option<String>,
    /// Whether the kernel ended a process because the declared memory was used up.
    pub out_of_memory: bool,
}

impl Report {
    /// Of a step that ran without walls.
    pub(crate) fn without(sandbox: &Sandbox) -> Report {
        Report {
            isolation: Isolation::of(sandbox, Err("it needs a sandbox".to_owned()), 0),
            mapped: Vec::new(),
            attempts: Vec::new(),
            refusals: Vec::new(),
            lost: Some("without a sandbox nothing is watched".to_owned()),
            out_of_memory: false,
        }
    }
}

/// How a step used, or tried to use, something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Opened to be read, or listed.
    Read,
    /// Opened to be written.
    Write,
    /// Asked whether it exists, or what it is.
    Stat,
    /// Executed.
    Execute,
    /// Connected to.
    Connect,
    /// Sent to without a connection.
    Send,
    /// Bound to.
    Bind,
    /// Asked a name server for.
    Resolve,
}

/// Something that a step tried and that its sandbox does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// What it did.
    pub access: Access,
    /// An absolute path as the step sees it; `address:port`; the path of a socket; a host's name.
    pub what: PathBuf,
}

/// Why a sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("can't set up the sandbox: {operation}")]
pub struct SetupError {
    /// The operation, with what it was about.
    pub operation: String,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl SetupError {
    /// The error number by its name, or what there is instead.
    pub fn reason(&self) -> String {
        self.source.raw_os_error().map_or_else(|| self.source.to_string(), errno_name)
    }
}

/// `EPERM` for 1; of those that setting up a sandbox can meet.
pub(crate) fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EPIPE => "EPIPE",
        libc::ELOOP => "ELOOP",
        libc::ENOSYS => "ENOSYS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EUSERS => "EUSERS",
        other => return format!("error {other}"),
    };
    name.to_owned()
}
