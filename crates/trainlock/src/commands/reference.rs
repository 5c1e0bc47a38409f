//! `trainlock reference`: pages of the docs that are made from the code.

use crate::exit::{Exit, Failure};
use crate::settings::{KEYS, VARIABLES};
use crate::ui::Ui;
use clap::ValueEnum;

/// Print a page of the reference
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trainlock reference manifest")]
pub(crate) struct Args {
    /// Which page
    page: Page,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    /// The keys of train.toml
    Manifest,
    /// The environment variables
    Environment,
    /// The configuration file
    Configuration,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Exit, Failure> {
    let table = |heads: [&str; 2], rows: &[(&str, &str)]| {
        let mut text = format!("| {} | {} |\n| --- | --- |\n", heads[0], heads[1]);
        for (name, meaning) in rows {
            let names: Vec<String> = name.split(", ").map(|n| format!("`{n}`")).collect();
            text.push_str(&format!("| {} | {meaning} |\n", names.join(", ")));
        }
        text
    };
    ui.print(&match args.page {
        Page::Manifest => trainlock_manifest::reference(),
        Page::Environment => format!(
            "# Environment variables\n\nWhat trainlock itself reads. Steps see none of it: their environment starts empty.\n\n{}",
            table(["variable", "meaning"], VARIABLES)
        ),
        Page::Configuration => format!(
            "# Configuration\n\nThe file `trainlock/config.toml` in the platform's configuration folder (or the one that `TRAINLOCK_CONFIG` names), \
             and for one command `--config KEY=VALUE`, which goes before the file.\n\n```toml\n[store]\nlink = \"hardlink\"\n\n[fetch]\nretries = 10\n```\n\n{}",
            table(["key", "meaning"], KEYS)
        ),
    });
    Ok(Exit::Done)
}
