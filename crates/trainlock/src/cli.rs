//! The command line: global options, and the list of commands.

use crate::commands;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Freezes a training pipeline's inputs, and reproduces it from them.
///
/// `train.toml` says what goes into a training run; `trainlock lock` writes `train.lock` with the exact hash
/// of every input; `trainlock train` on any machine fetches and verifies exactly those inputs and runs the steps.
#[derive(Debug, Parser)]
#[command(
    name = "trainlock",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Work in this folder
    #[arg(short = 'C', value_name = "DIR", global = true, help_heading = "Global options")]
    pub(crate) directory: Option<PathBuf>,
    /// The manifest [default: the nearest train.toml at or above the folder]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Global options")]
    pub(crate) manifest_path: Option<PathBuf>,
    /// Print errors and what was asked for, nothing else
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Global options")]
    pub(crate) verbose: u8,
    /// When to use colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, help_heading = "Global options")]
    pub(crate) color: Color,
    /// Print facts as JSON on standard output
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Set a value of the configuration for this command, for example store.link=copy
    #[arg(long, value_name = "KEY=VALUE", global = true, help_heading = "Global options")]
    pub(crate) config: Vec<String>,
    /// Download at most so many bytes a second, for example 20M
    #[arg(long, value_name = "RATE", global = true, help_heading = "Global options")]
    pub(crate) limit_rate: Option<String>,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How far the lock and the network may be used.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LockOptions {
    /// Fail if train.lock is missing or would change
    #[arg(long)]
    pub(crate) locked: bool,
    /// Use no network
    #[arg(long)]
    pub(crate) offline: bool,
    /// The same as --locked --offline
    #[arg(long)]
    pub(crate) frozen: bool,
}

impl LockOptions {
    pub(crate) fn locked(self) -> bool {
        self.locked || self.frozen
    }

    pub(crate) fn offline(self) -> bool {
        self.offline || self.frozen
    }
}

/// Which projects of a workspace a command is about.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Select {
    /// The project to work on [default: the one of the folder; may be given several times]
    #[arg(short = 'p', long = "project", value_name = "NAME")]
    pub(crate) projects: Vec<String>,
    /// All projects of the workspace
    #[arg(long, conflicts_with = "projects")]
    pub(crate) workspace: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(commands::init::Args),
    Lock(commands::lock::Args),
    Update(commands::update::Args),
    Outdated(commands::outdated::Args),
    Fetch(commands::fetch::Args),
    Run(commands::run::Args),
    Env(commands::env::Args),
    Vendor(commands::vendor::Args),
    Bundle(commands::bundle::Args),
    Train(Box<commands::train::Args>),
    Seal(commands::seal::Args),
    Verify(commands::verify::Args),
    Reproduce(commands::reproduce::Args),
    Diff(commands::diff::Args),
    Status(commands::status::Args),
    Why(commands::why::Args),
    Fix(commands::fix::Args),
    Doctor(commands::doctor::Args),
    Audit(commands::audit::Args),
    Runs(commands::runs::Args),
    Store(commands::store::Args),
    Metadata(commands::metadata::Args),
    Schema(commands::schema::Args),
    #[command(hide = true)]
    Reference(commands::reference::Args),
    Completions(commands::completions::Args),
}
