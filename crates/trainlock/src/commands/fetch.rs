//! `trainlock fetch`.

use crate::airgap;
use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{Locking, Project};
use crate::ui::Ui;
use std::path::PathBuf;

/// Bring and verify all that train.lock names, and nothing else
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock fetch\n  trainlock fetch --locked --link    # also put each data set at its `to`, read-only"
)]
pub(crate) struct Args {
    /// Put each data set at its `to` in the project's folder, read-only
    #[arg(long)]
    link: bool,
    /// Take what the store lacks from a folder of `vendor` or a file of `bundle`, verified
    #[arg(long, value_name = "DIR|FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    let lock = project.lock(Locking::from(args.lock), args.lock.offline(), ui)?;
    if let Some(from) = &args.from {
        let count = airgap::take(&airgap::inputs(&project, &lock, &members)?, from, &project.store)?;
        ui.status("Verified", format!("{count} files from {}", from.display()));
    }
    let data = project.data_of(&members);
    project.bring_all(&lock, &data, &members, args.lock.offline(), args.link, ui)?;
    // What the process frees at its end takes a large lock a while to free before.
    std::mem::forget(lock);
    Ok(Exit::Done)
}
