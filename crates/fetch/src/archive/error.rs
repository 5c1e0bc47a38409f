//! What can be wrong with an archive.

use std::fmt;
use std::io;

/// Why an archive was not unpacked. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither a tar (plain or compressed) nor a zip.
    #[error("not an archive that can be unpacked, but {0}")]
    NotAnArchive(&'static str),
    /// It ends before its end.
    #[error("the archive is cut off{}", At(.0))]
    Truncated(Option<String>),
    /// It contradicts its own format.
    #[error("the archive is damaged{}: {what}", At(.name))]
    Corrupt {
        /// The member where it shows, if it is about one.
        name: Option<String>,
        /// What is wrong.
        what: String,
    },
    /// A name that no file of a tree may have.
    #[error("the archive's member {name:?} has a name that is not allowed: {why}")]
    Name {
        /// The name, with what is not UTF-8 replaced.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Two members with one path, or a file where a folder is.
    #[error("the archive's member `{0}` stands there twice, or as a file and as a folder")]
    Twice(String),
    /// Two names that are one where case does not count or Unicode is normalised.
    #[error("the archive's members `{0}` and `{1}` are one file where names ignore case or are normalised")]
    Collision(String, String),
    /// A path that leads through a symbolic link of the same archive.
    #[error("the archive's member `{name}` leads through the symbolic link `{link}`")]
    ThroughLink {
        /// The member.
        name: String,
        /// The link on its way.
        link: String,
    },
    /// A symbolic link to something outside of the tree.
    #[error("the archive's symbolic link `{name}` leads out of its folder, to {target:?}")]
    LinkOut {
        /// The link.
        name: String,
        /// What it holds.
        target: String,
    },
    /// A hard link to a file that did not come before it.
    #[error("the archive's hard link `{name}` is to {target:?}, which is no file that stands before it")]
    HardLink {
        /// The link.
        name: String,
        /// What it names.
        target: String,
    },
    /// A device, a pipe or a socket.
    #[error("the archive's member {name:?} is {kind}: only files, folders and links are unpacked")]
    Special {
        /// The member.
        name: String,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// Something that the formats have and trainlock does not read.
    #[error("the archive's member {name:?} {what}")]
    Unsupported {
        /// The member.
        name: String,
        /// What it has or is, as the rest of a sentence.
        what: String,
    },
    /// More bytes than it may hold.
    #[error("the archive unpacks to more than {limit} bytes, its limit here")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More members than it may hold.
    #[error("the archive holds more than {limit} members, its limit here")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// No member of that path.
    #[error("the archive has no member `{member}`{}", Near(.near))]
    NoMember {
        /// The path that was asked for.
        member: String,
        /// Paths that it may have been meant to be.
        near: Vec<String>,
    },
    /// The member is there and is no file.
    #[error("the archive's member `{member}` is {kind}, not a file")]
    NotAFile {
        /// The path that was asked for.
        member: String,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// The archive's own file could not be read.
    #[error("could not read the archive")]
    Read(#[source] io::Error),
}

struct At<'a>(&'a Option<String>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |name| write!(f, " at its member {name:?}"))
    }
}

struct Near<'a>(&'a [String]);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{} `{name}`", if i == 0 { "; near it:" } else { "," })?;
        }
        Ok(())
    }
}

impl ArchiveError {
    /// Damage that is not about one member.
    pub(crate) fn corrupt(what: impl Into<String>) -> ArchiveError {
        ArchiveError::Corrupt { name: None, what: what.into() }
    }

    /// Damage at a member.
    pub(crate) fn corrupt_at(name: &[u8], what: impl Into<String>) -> ArchiveError {
        ArchiveError::Corrupt { name: Some(shown(name)), what: what.into() }
    }

    /// What a failed read of (decoded) archive bytes means.
    pub(crate) fn from_read(error: io::Error, name: Option<&[u8]>) -> ArchiveError {
        let name = name.map(shown);
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated(name),
            // What decoders say about the bytes that they were given; the rest comes from the disk.
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other
            | io::ErrorKind::Unsupported
                if error.raw_os_error().is_none() =>
            {
                ArchiveError::Corrupt { name, what: error.to_string() }
            }
            _ => ArchiveError::Read(error),
        }
    }
}

/// A member's name for people.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
