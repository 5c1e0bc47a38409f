//! `trainlock completions`.

use crate::cli::Cli;
use crate::exit::{Exit, Failure};
use crate::ui::Ui;
use clap::CommandFactory;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trainlock completions bash >~/.local/share/bash-completion/completions/trainlock")]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trainlock", &mut script);
    ui.print(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
