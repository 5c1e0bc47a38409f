//! `trainlock status`.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{self, Project};
use crate::ui::Ui;
use std::sync::Arc;
use trainlock_run::{StepStatus, Verdict};

/// Show what `train` would run, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trainlock status\n  trainlock status --profile smoke --set optimizer.lr=0.01")]
pub(crate) struct Args {
    /// The steps to look at, with what they need [default: all]
    steps: Vec<String>,
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) params: project::ParamOptions,
    #[command(flatten)]
    pub(crate) lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let statuses = survey(global, ui, &args.select, &args.params, args.lock, &args.steps)?;
    if ui.json() {
        statuses.iter().for_each(|status| ui.print_json(status));
        return Ok(Exit::Done);
    }
    let width = statuses.iter().map(|s| s.step.len()).max().unwrap_or(0);
    for StepStatus { step, verdict, .. } in &statuses {
        let words = match verdict {
            Verdict::Fresh => "up to date".to_owned(),
            Verdict::Restore => "in the store: its outputs would be brought back".to_owned(),
            Verdict::Run { why } => format!("would run: {}", shortened(why)),
            Verdict::Waits { on } => format!("depends on what {} will make", on.join(", ")),
        };
        ui.print(&format!("{step:width$}  {words}"));
    }
    Ok(Exit::Done)
}

/// The first reasons, and how many more there are.
fn shortened(why: &[String]) -> String {
    match why {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}; {second}; {third}; and {} more", rest.len())
        }
        _ => why.join("; "),
    }
}

/// What would be done about these steps; also prints what makes the lock stale.
pub(crate) fn survey(
    global: &Global,
    ui: &Ui,
    select: &Select,
    params: &project::ParamOptions,
    lock: LockOptions,
    steps: &[String],
) -> Result<Vec<StepStatus>, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(select)?;
    let lock = project.lock_for_reading(lock, ui)?;
    let workspace = Arc::clone(&project.workspace);
    let plan = project::plan(&workspace, &members, steps)?;
    let options = params;
    let params = project.params(options, &members)?;
    let equipment = project.equipment(&lock, &plan, options.profile.as_deref())?;
    let index = project.take_index();
    let mut bench = project.bench(index, &lock, &params, &equipment)?;
    let statuses = bench.survey(&plan, false)?;
    bench.index.save()?;
    Ok(statuses)
}
