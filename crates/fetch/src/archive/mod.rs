//! Archives: tar (plain, gzip, zstd, xz, bzip2) and zip, recognised by what they hold, not by their name.
//!
//! They come from the network, so that nothing they say is believed: names are checked before
//! anything is written ([`names`]), what they unpack to is bounded, and what two programs could read
//! in two ways is refused. Nothing is written but through the store's own builder, which hashes.

mod decode;
mod error;
mod names;
mod tar;
mod unpack;
mod walk;
mod zip;

pub use error::ArchiveError;
pub(crate) use unpack::{Limits, Sink, extract, extract_some, list, unpack};
pub(crate) use walk::{Content, Kind, walk};
