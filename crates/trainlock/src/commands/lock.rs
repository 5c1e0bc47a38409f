//! `trainlock lock`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::locking;
use crate::project::{Locking, Project};
use crate::ui::Ui;

/// Resolve train.toml and write train.lock
///
/// Only what no longer satisfies train.toml is resolved anew. What must be read to be hashed is kept in the
/// store, so that `train` downloads nothing again. Git's conflict markers in train.lock are healed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock lock\n  trainlock lock --check    # in CI: exit code 3 if train.lock is out of date"
)]
pub(crate) struct Args {
    /// Write nothing; fail if train.lock would change
    #[arg(long)]
    check: bool,
    /// Use no network
    #[arg(long)]
    offline: bool,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let locking = if args.check { Locking::Check } else { Locking::Lock };
    // What the process frees at its end takes a large lock a while to free before.
    std::mem::forget(project.lock(locking, args.offline, ui)?);
    if args.check {
        locking::told(false, &[], ui);
    }
    Ok(Exit::Done)
}
