//! `trainlock why`.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project;
use crate::ui::Ui;
use trainlock_run::Verdict;

/// Say why a step would run, to the value that changed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trainlock why train\n  trainlock why train --set epochs=3")]
pub(crate) struct Args {
    /// The step
    step: String,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    params: project::ParamOptions,
    #[command(flatten)]
    lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let steps = std::slice::from_ref(&args.step);
    let statuses = super::status::survey(global, ui, &args.select, &args.params, args.lock, steps)?;
    // The plan's last step is the one asked for: all others are what it needs.
    let Some(status) = statuses.last() else {
        return Ok(Exit::Done);
    };
    if ui.json() {
        ui.print_json(status);
        return Ok(Exit::Done);
    }
    let mut text = match &status.verdict {
        Verdict::Fresh => format!("{} is up to date", status.step),
        Verdict::Restore => format!("{} would not run: the store has its result", status.step),
        Verdict::Run { why } => {
            let reasons: Vec<String> = why.iter().map(|w| format!("  {w}")).collect();
            format!("{} would run:\n{}", status.step, reasons.join("\n"))
        }
        Verdict::Waits { on } => {
            let mut text = format!("{} depends on what {} will make:", status.step, on.join(", "));
            for other in statuses.iter().filter(|s| on.contains(&s.step)) {
                match &other.verdict {
                    Verdict::Run { why } => text.push_str(&format!("\n  {}: {}", other.step, why.join("; "))),
                    Verdict::Waits { on } => {
                        text.push_str(&format!("\n  {}: depends on what {} will make", other.step, on.join(", ")))
                    }
                    _ => {}
                }
            }
            text
        }
    };
    if let Some(key) = status.key.filter(|_| ui.verbose()) {
        text.push_str(&format!("\nkey {key}"));
    }
    ui.print(&text);
    Ok(Exit::Done)
}
