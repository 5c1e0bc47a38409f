//! train.toml: from text with places to a validated workspace.
//!
//! This crate reads manifests, looks for members, and reads the files that name python packages; it writes nothing, and looks
//! at no other file.
//!
//! The passes, in order: syntax (`plain`, and the `toml` crate where that gives up), shape (`shape`, over the table in `keys`), names and references (`params`,
//! `data`, `tools`, `steps`), graph (`graph`). Each tells all mistakes that it finds, and leaves alone what an earlier
//! one found unsound; only a manifest without any becomes a [`Workspace`].

mod data;
mod document;
mod entries;
mod error;
mod graph;
mod keys;
mod load;
mod members;
mod model;
mod params;
mod plain;
mod python;
mod schema;
mod shape;
mod steps;
mod taken;
mod template;
mod tools;
mod tree;

pub use error::ManifestError;
pub use load::{discover, load};
pub use model::{
    Bounds, Data, Determinism, Input, InputPattern, Level, Member, Origin, Output, OutputKind, Python, PythonFrom,
    Requirement, Resources, Run, Sandbox, Service, Step, StepId, Tool, UnknownProfile, Workspace, leaves,
};
pub use params::{ValueError, parse_value};
pub use python::{PythonAsked, python_request};
pub use schema::{reference, schema};
pub use template::{Piece, Template};
pub mod edit;
