//! What passes between trainlock and a step's init, over a socket that the init has as its standard input.
//!
//! Trainlock sends one [`Description`] (two where bwrap stands between: one for each process), prefixed by its length (4
//! bytes, little-endian); later, perhaps, single bytes
//! [`TERMINATE`]. The end of its side means: end everything. The init sends one [`Message`] and closes.

use super::report::Attempt;
use super::{Access, Hub, Refusal, Tier};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{Read, Write};

/// Asks the init to pass SIGTERM on to every process of the step.
pub(super) const TERMINATE: u8 = b'T';

/// All that the init needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    /// Who sets up the mounts.
    pub(super) tier: Tier,
    /// What there is, in the order in which it is to be mounted. Empty where the init has nothing to mount.
    pub(super) mounts: Vec<Mount>,
    pub(super) rules: Rules,
    /// Folders that show all that the host has in them: what is not there is nowhere.
    pub(super) whole: Vec<OsString>,
    pub(super) hostname: String,
    pub(super) umask: u32,
    pub(super) network: bool,
    pub(super) audit: bool,
    /// What the server of the hub has, and the folder that its files lie in.
    pub(super) hub: Option<(Hub, OsString)>,
    pub(super) job: Job,
}

/// What the step's process does behind the walls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// It becomes the step.
    Step { program: OsString, arguments: Vec<String>, folder: OsString, environment: Vec<(String, String)> },
    /// It is bwrap, executed at once, and does no more than to start the init again inside.
    Bwrap { program: OsString, arguments: Vec<OsString> },
    /// It tries to get out: reads and writes this file of the host, connects to this port of the host's loopback.
    Probe { canary: OsString, port: u16 },
}

/// One thing in the step's file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mount {
    /// An empty folder.
    Folder { to: OsString },
    /// A file that trainlock writes.
    File { to: OsString, content: Vec<u8> },
    /// A symbolic link.
    Link { to: OsString, target: OsString },
    /// Something of the host's, with all that is mounted below it.
    Bind { from: OsString, to: OsString, mode: Mode, folder: bool, staged: bool },
    /// A file system in memory that everyone may write to.
    Memory { to: OsString },
    /// The process table.
    Processes { to: OsString },
}

/// What may be done with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    ReadOnly,
    Writable,
    Device,
}

/// Landlock's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rules {
    /// What may be read and executed, if not everything.
    pub(super) read: Option<Vec<OsString>>,
    /// What may be written to.
    pub(super) write: Vec<OsString>,
}

/// What the init tells in the end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// A wall could not be set up.
    Failed { operation: String, errno: i32 },
    /// The program could not be executed.
    NotStarted { errno: i32 },
    /// The step's process ended.
    Ended {
        /// Its wait status.
        status: i32,
        /// Processor time of all processes in microseconds.
        cpu: u64,
        /// The largest resident size of one process in bytes.
        peak: u64,
        mapped: Vec<OsString>,
        attempts: Vec<(Access, OsString)>,
        lost: Option<String>,
        refusals: Vec<Refusal>,
    },
}

impl From<(Access, OsString)> for Attempt {
    fn from((access, what): (Access, OsString)) -> Attempt {
        Attempt { access, what: what.into() }
    }
}

/// Sends a description.
pub(super) fn send(mut to: impl Write, description: &Description) -> std::io::Result<()> {
    let mut bytes = postcard::to_extend(description, vec![0; 4]).map_err(std::io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(std::io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes)
}

/// Receives it.
pub(super) fn receive(mut from: impl Read) -> std::io::Result<Description> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(std::io::Error::other)
}
