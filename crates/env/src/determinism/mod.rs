//! What makes the same program give the same bits on another machine, and how far that goes.
//!
//! Levels are data ([`SWITCHES`]); what they mean is resolved once and locked. Whether it took effect is asked of the
//! libraries themselves ([`judge`]). Where no switch helps, the numeric class says so.

mod check;
mod class;
mod cpu;
mod levels;
mod libraries;
mod lint;

pub use check::{SELF_CHECK, judge};
pub use class::{elsewhere, numeric_class};
pub use cpu::missing_features;
pub use levels::{Resolved, SWITCHES, Switch, cost, reference, resolve};
pub use libraries::{HostLibrary, host_libraries};
pub use lint::{Finding, RULES, Rule, lint};

/// The module that seeds the languages' global generators, for `seed-globals = true`: put into a folder that stands
/// first on PYTHONPATH as `sitecustomize.py`.
pub const SEED_GLOBALS: &str = include_str!("sitecustomize.py");
