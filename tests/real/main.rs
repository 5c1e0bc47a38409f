//! With the real programs: nginx, openssl, the archivers, git, sshd. `tests/real/install` installs them.
//!
//! Where one is missing a test says so and passes; with `TRAINLOCK_REQUIRE_REAL=1` it fails.

mod archives;
mod buckets;
mod formats;
mod git;
mod git_servers;
mod hub;
mod images;
mod python;
mod seeds;
mod servers;

use std::process::{Command, Stdio};
use trainlock_testing::{TestContext, skipped};

/// Whether all these programs are here.
fn have(programs: &[&str]) -> bool {
    let is_here = |program: &str| {
        let mut look = Command::new("sh");
        look.args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null());
        look.status().is_ok_and(|status| status.success())
    };
    let Some(missing) = programs.iter().find(|program| !is_here(program)) else {
        return true;
    };
    skipped(&format!("{missing} is not installed"), true);
    false
}

/// A project named `t` with this behind its `[project]`.
fn project(manifest: &str) -> TestContext {
    let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    write_manifest(&context, manifest);
    context
}

fn write_manifest(context: &TestContext, manifest: &str) {
    context.write("train.toml", format!("[project]\nname = \"t\"\nversion = \"0.1.0\"\n\n{manifest}"));
}
