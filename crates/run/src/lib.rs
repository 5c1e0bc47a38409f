//! Plan, keys and their reasons, scheduler, executor and run records.
//!
//! From a valid workspace and the lock that agrees with it to results: [`Plan`] says which steps in
//! which order, [`Bench`] what is to be done about each and why, [`train`] does it, [`record`] is the
//! log. This crate knows no terminal: what happens is told as events.

mod bench;
pub mod compare;
mod executor;
mod explain;
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
mod vary;
mod verdict;

pub use bench::{Bench, BenchError, Sealable, Shell, StepStatus, Verdict};
pub use executor::local::{ExecuteError, Failure};
pub use explain::{Fix, Undeclared};
pub use key::{Difference, Form};
pub use plan::{Feed, Node, Part, Plan, PlanError, is_in_repository};
pub use result::{Circumstances, Content, Last, OutputRecord, Role, State, StepResult};
pub use sources::SourceError;
pub use train::{Capacity, Options, Summary, TrainError, Trial, train};
pub use vary::Variation;
pub use verdict::{FileDifference, Finding, Judged, Outcome, Overall, VerdictError, judge, overall, to_seal};
