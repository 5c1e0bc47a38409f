//! The shared, validated words of trainlock: names, digests, paths, platforms, source URLs,
//! tree listings, requests, diagnostics and events.
//!
//! This crate does no IO: nothing here opens a file, a socket or the clock.

mod diagnostic;
mod digest;
mod event;
mod image;
mod listing;
mod name;
mod path;
mod platform;
mod python;
mod request;
mod source;
mod stability;
mod text;
mod units;
mod validator;
mod value;

pub use diagnostic::{Diagnostic, SourceText};
pub use digest::{Digest, DigestError, Hashed, Hasher};
pub use event::{Event, Events, StepOutcome};
pub use image::ImageReference;
pub use listing::{Entry, EntryKind, LISTING_IN_LOCK, Listing, ListingError, VERSIONS_IN_LOCK};
pub use name::{Name, NameError, nearest};
pub use path::{PathError, RelPath};
pub use platform::{Platform, UnknownPlatform};
pub use python::{
    Libc, PinnedFile, PythonRequest, TakenKind, TakenLock, WheelName, index_of, is_python, normalized_package,
    requirement_name,
};
pub use request::{
    Algorithm, Checksum, ChecksumError, DataRequest, DataSource, FetchedTool, ToolFrom, ToolMatch, ToolProvider,
    ToolRequest,
};
pub use source::{Address, SourceUrl, UrlError, hub_id, masked};
pub use stability::{Advice, unstable};
pub use text::{percent_decoded, position_of};
pub use units::{HumanDuration, HumanSize, UnitError, parse_duration, parse_size};
pub use validator::Validator;
pub use value::{Params, Value, quoted};
