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
    /// The levels of determinism
    Determinism,
    /// The environment variables
    Environment,
    /// The configuration file
    Configuration,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Exit, Failure> {
    ui.print(&match args.page {
        Page::Manifest => trainlock_manifest::reference(),
        Page::Determinism => trainlock_env::determinism::reference(),
        Page::Environment => environment(),
        Page::Configuration => configuration(),
    });
    Ok(Exit::Done)
}

fn environment() -> String {
    let row = |(names, meaning): &(&str, &str)| {
        let names: Vec<String> = names.split(", ").map(|name| format!("`{name}`")).collect();
        format!("| {} | {meaning} |\n", names.join(", "))
    };
    let rows: String = VARIABLES.iter().map(row).collect();
    format!(
        "\
# Environment variables

What trainlock itself reads. A variable that is set to nothing counts as not set.

| variable | meaning |
| --- | --- |
{rows}
Nothing else of trainlock's own environment has any effect, and nothing of it reaches a step: see
[what a step sees](../concepts/steps.md). (A tool's probe, the command that asks for its version, runs in your
environment: version managers need it. `reproduce` runs it in a sandbox.)
"
    )
}

fn configuration() -> String {
    let row = |(key, default, meaning): &(&str, &str, &str)| format!("| `{key}` | {default} | {meaning} |\n");
    let rows: String = KEYS.iter().map(row).collect();
    format!(
        "\
# Configuration

What belongs to a machine and not to a project stands in a configuration file: the one that `TRAINLOCK_CONFIG`
names, else `trainlock/config.toml` in the platform's configuration folder (`~/.config`). Nothing in it has an influence
on what is locked or on what a step makes.

```toml
[store]
path = \"/scratch/trainlock\"
link = \"hardlink\"

[fetch]
retries = 10
```

| key | default | meaning |
| --- | --- | --- |
{rows}
An unknown key is an error. `--config KEY=VALUE` sets a key for one command and goes before the file:

```console
$ trainlock train --config store.link=copy
```
"
    )
}
