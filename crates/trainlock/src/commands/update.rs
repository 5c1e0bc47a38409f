//! `trainlock update`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::project::{Locking, Project};
use crate::ui::Ui;
use std::collections::BTreeSet;

/// Move pins to the newest that train.toml allows
///
/// Prints what changed, old -> new.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock update          # everything\n  trainlock update raw      # one data set or tool"
)]
pub(crate) struct Args {
    /// Data sets and tools [default: all]
    names: Vec<String>,
    /// Use no network
    #[arg(long)]
    offline: bool,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let names: BTreeSet<String> = args.names.iter().cloned().collect();
    project.lock(Locking::Update(names), args.offline, ui)?;
    Ok(Exit::Done)
}
