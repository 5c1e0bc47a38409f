//! `trainlock bundle`.

use crate::airgap;
use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{Locking, Project};
use crate::ui::Ui;
use std::path::PathBuf;

/// Write the project and all its inputs into one file, for machines without network
///
/// The project's files are those that git does not ignore, but for the steps' outputs. The inputs are those for this
/// kind of machine.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock bundle run.tar\n  trainlock train --bundle run.tar --into run    # on the other machine"
)]
pub(crate) struct Args {
    /// The file, a tar archive
    file: PathBuf,
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
    let inputs = airgap::inputs(&project, &lock, &members)?;
    let (inputs, files) = airgap::bundle(&project, &inputs, &args.file)?;
    ui.status("Bundled", format!("{files} files of the project and {inputs} of its inputs in {}", args.file.display()));
    Ok(Exit::Done)
}
