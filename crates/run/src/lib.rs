//! Plan, keys and their reasons, scheduler, executor and run records.
//!
//! From a valid workspace and the lock that agrees with it to results: [`Plan`] says which steps in
//! which order, [`Bench`] what is to be done about each and why, [`train`] does it, [`record`] is the
//! log. This crate knows no terminal: what happens is told as events.

mod bench;
mod executor;
#[cfg(test)]
mod fixture;
mod key;
mod metrics;
mod plan;
pub mod record;
mod result;
mod sources;
mod template;
mod train;

pub use bench::{Bench, BenchError, Shell, StepStatus, Verdict};
pub use executor::local::{ExecuteError, Failure};
pub use key::{Difference, Form};
pub use plan::{Feed, Node, Part, Plan, PlanError, is_in_repository};
pub use result::{Content, Last, OutputRecord, Role, State, StepResult};
pub use sources::SourceError;
pub use train::{Capacity, Options, Summary, TrainError, train};
