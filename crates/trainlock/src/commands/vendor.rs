//! `trainlock vendor`.

use crate::airgap;
use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{Locking, Project};
use crate::ui::Ui;
use std::path::PathBuf;

/// Write all inputs into a folder that any machine can use as a source
///
/// `trainlock fetch --from DIR` takes them from it, verified, without a network.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock vendor /mnt/stick/inputs\n  trainlock fetch --from /mnt/stick/inputs --offline"
)]
pub(crate) struct Args {
    /// The folder; what it has already stays
    dir: PathBuf,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    let lock = project.lock(Locking::from(args.lock), args.lock.offline(), ui)?;
    project.bring_all(&lock, &project.data_of(&members), &members, args.lock.offline(), false, ui)?;
    let count = airgap::vendor(&airgap::inputs(&project, &lock, &members)?, &project.store, &args.dir)?;
    ui.status("Vendored", format!("{count} files in {}", args.dir.display()));
    Ok(Exit::Done)
}
