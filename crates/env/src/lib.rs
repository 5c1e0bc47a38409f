//! From pins to something that a step can stand in: the machine's tools, the step's environment,
//! its staging folder and its process.
//!
//! The only crate that may hold `unsafe`: one call of `wait4(2)`, for which no safe wrapper reports
//! what the process used, one of `gnu_get_libc_version(3)` and of `mallopt(3)`, and in `sandbox::sys` the system calls of a step's init.

mod cancel;
mod cdi;
pub mod determinism;
mod engine;
mod equipment;
mod machine;
mod process;
pub mod python;
pub mod sandbox;
mod stage;
mod tools;
mod vars;

pub use cancel::Cancel;
pub use cdi::{Edits, gpu_edits};
pub use determinism::HostLibrary;
pub use engine::{Engine, EngineKind};
pub use equipment::{Equipment, FetchedTool, Image, ImagePlace, Outfit, Packages, Place, Tool};
pub use machine::{Machine, keep_memory};
pub use process::{Ended, Invocation, ProcessError, Stop, run};
pub use sandbox::{Isolation, Sandbox, Tier};
pub use stage::{Stage, StageError};
pub use tools::{HostTool, HostTools, ToolError};
pub use vars::STEP_PATH;
