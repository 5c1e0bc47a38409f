//! The machine's content-addressed store, and the stat index that saves hashing twice.
//!
//! This crate owns the store's folder (objects, trees, results), bringing what it holds into other
//! folders without a copy, and the per-project index of file digests. It is synchronous, talks to no
//! network and prints nothing.
//!
//! # The folder
//!
//! | path | what |
//! | --- | --- |
//! | `version` | the layout's number, `1` |
//! | `objects/ab/REST` | a file named by the SHA-256 of its content, mode 0444 |
//! | `objects/ab/REST.x` | the same content as a program, mode 0555: an inode has one mode for all its links |
//! | `trees/ab/REST/…` | a folder named by the digest of its listing; that listing is the object of the same name |
//! | `results/ab/REST` | a step's result by the step's key, with its own checksum |
//! | `tmp/BOOT.PID.NONCE/` | a session: where things are made before they are moved into place |
//! | `failed/NAME/` | the folders of failed steps, kept for people to look at |
//! | `locks/NAME` | lock files |
//! | `projects/DIGEST` | the root of a project that used this store, for `gc` |
//!
//! # Invariants
//!
//! - Nothing is visible under its name before it is complete and hashed; putting in place is a rename.
//! - All files of objects and trees have the modification time 1980-01-01T00:00:00Z. A write through a
//!   hard link changes it, and so shows without hashing.
//! - A session that was killed leaves its folder, and the next session settles it: see [`Store::session`].
//! - File locks only save double work and guard `gc`; what is put in place twice is put in place once.

mod check;
mod error;
mod flush;
mod gc;
mod hash;
mod index;
mod lock;
mod materialise;
mod partial;
mod put;
mod recover;
mod scan;
mod session;
mod store;
mod sys;
mod tree;

pub use check::{Checked, VerifyReport};
pub use error::{HashError, PutError, StoreError};
pub use gc::{Freed, Live};
pub use hash::hash_file;
pub use index::{FileState, Index};
pub use lock::LockGuard;
pub use materialise::{Link, Placed, UnknownLink, place_file, place_fresh, place_part, place_tree};
pub use put::ObjectWriter;
pub use session::Session;
pub use store::{Store, Usage};
pub use sys::FIXED_TIME;
pub use tree::{Tree, TreeBuilder};
