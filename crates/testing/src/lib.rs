//! What the tests of trainlock share: contexts, output filters and a server with faults.
//!
//! Nothing here reaches further than the loopback interface and a temporary folder.

mod authority;
mod bucket;
mod context;
mod fault;
mod interpreter;
mod machine;
mod server;
mod sockets;

pub use authority::Authority;
pub use bucket::BucketServer;
pub use context::{Ran, TestContext};
pub use fault::Fault;
pub use interpreter::packed_interpreter;
pub use machine::{as_configured, copy_program, skipped, write_program};
pub use server::{FaultServer, Request, refusing_url};
