//! What an opened file is: one of a few bodies that every format is read into, so that comparing and digesting
//! are written once.

use super::array::{Array, clipped};
use super::blob::Blob;
use super::codec::Codec;
use super::csv::Table;
use super::parquet::Columns;
use super::report::{Change, DESCRIBED, Difference, Noise, NoiseKind};
use super::tree::Tree;
use std::collections::BTreeMap;
use std::io;

/// Why a format could not be followed to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes are not what they began as, or more than is accepted: they are compared as bytes.
    Damaged(String),
    /// The disk.
    Io(io::Error),
}

impl Stop {
    pub(super) fn damaged(why: impl Into<String>) -> Stop {
        Stop::Damaged(why.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            // What decoders say about their input carries no code of the operating system.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other
            | io::ErrorKind::Unsupported
                if error.raw_os_error().is_none() =>
            {
                Stop::Damaged(error.to_string())
            }
            _ => Stop::Io(error),
        }
    }
}

/// Facts of a container that are no content.
pub(super) type Facts = Vec<(NoiseKind, String)>;

/// A file or member whose format is known.
#[derive(Debug)]
pub(super) struct Opened {
    /// The format, with its article.
    pub(super) what: &'static str,
    pub(super) facts: Facts,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Bytes(Blob),
    Array(Box<Array>),
    /// Parts found by name.
    Members(Vec<Member>),
    /// One compressed file; `name` is what it is called inside.
    Stream {
        codec: Codec,
        packed: Blob,
        name: String,
    },
    Tree(Box<Tree>),
    /// A JSON value a line.
    Lines(Blob),
    Table(Table),
    /// A table by column.
    Columns(Box<Columns>),
}

/// A part of a container.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) facts: Facts,
    /// Content beside the bytes, like a mode.
    pub(super) attributes: Vec<(&'static str, String)>,
    pub(super) part: Part,
}

#[derive(Debug)]
pub(super) enum Part {
    /// Bytes whose format shows when they are looked at.
    Unopened(Blob),
    /// Compressed by the container.
    Packed(Codec, Blob),
    Opened(Box<Opened>),
}

/// What has been found so far.
#[derive(Debug, Default, Clone)]
pub(super) struct Report {
    pub(super) noise: BTreeMap<NoiseKind, Noise>,
    pub(super) differences: Vec<Difference>,
    pub(super) total: u64,
}

impl Report {
    pub(super) fn differs(&mut self, place: &str, change: Change) {
        self.total += 1;
        if self.differences.len() < DESCRIBED {
            self.differences.push(Difference { place: short(place), change });
        }
    }

    pub(super) fn noise(&mut self, kind: NoiseKind, place: &str, a: &str, b: &str) {
        let first = || Noise { kind, place: short(place), a: clipped(a), b: clipped(b), count: 0 };
        self.noise.entry(kind).or_insert_with(first).count += 1;
    }

    /// Notes the facts that are not the same in both.
    pub(super) fn facts(&mut self, place: &str, a: &Facts, b: &Facts) {
        let of = |facts: &Facts, kind: NoiseKind| {
            let texts: Vec<&str> = facts.iter().filter(|f| f.0 == kind).map(|f| f.1.as_str()).collect();
            texts.join(", ")
        };
        let mut kinds: Vec<NoiseKind> = a.iter().chain(b).map(|fact| fact.0).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let (a, b) = (of(a, kind), of(b, kind));
            if a != b {
                self.noise(kind, place, &a, &b);
            }
        }
    }

    /// How much has been found, of any kind.
    pub(super) fn size(&self) -> u64 {
        self.total + self.noise.values().map(|noise| noise.count).sum::<u64>()
    }
}

/// Names in a hostile file may be long.
fn short(place: &str) -> String {
    match place.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &place[..at]),
        None => place.to_owned(),
    }
}

/// A place below another.
pub(super) fn join(place: &str, between: &str, name: &str) -> String {
    match (place.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => place.to_owned(),
        _ => format!("{place}{between}{name}"),
    }
}
