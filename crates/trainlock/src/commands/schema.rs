//! `trainlock schema`.

use crate::exit::{Exit, Failure};
use crate::ui::Ui;
use clap::ValueEnum;

/// Print the JSON schema of train.toml, or of a run's record
///
/// Editors that know JSON schemas check and complete train.toml by it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trainlock schema >train.schema.json")]
pub(crate) struct Args {
    /// Which file's schema
    #[arg(default_value = "manifest")]
    of: Of,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Of {
    /// train.toml
    Manifest,
    /// .trainlock/runs/ID/run.json
    Run,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Exit, Failure> {
    let schema = match args.of {
        Of::Manifest => trainlock_manifest::schema(),
        Of::Run => trainlock_run::record::schema(),
    };
    ui.print(&serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
    Ok(Exit::Done)
}
