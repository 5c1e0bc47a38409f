//! `trainlock train`.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure, Problem};
use crate::project::{self, Locking, Project};
use crate::ui::Ui;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use trainlock_env::Machine;
use trainlock_run::record::{Recorder, Status};
use trainlock_run::{Options, StepStatus, Summary, Verdict};
use trainlock_types::{Event, HumanDuration};

/// Fetch and verify the locked inputs, then run the steps that are not done
///
/// A step whose key (all that it depends on) is in the store does not run: its outputs are brought back.
/// If train.lock is missing or out of date it is updated first, unless --locked is given.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock train\n  trainlock train evaluate          # one step and what it needs\n  trainlock train --profile smoke\n  trainlock train --set optimizer.lr=0.01\n  trainlock train --frozen          # exactly what is locked, no network"
)]
pub(crate) struct Args {
    /// The steps, with what they need [default: all]
    steps: Vec<String>,
    #[command(flatten)]
    select: Select,
    /// How many steps at once [default: as many as there are processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    params: project::ParamOptions,
    /// Run every step, whatever the store has
    #[arg(long)]
    force: bool,
    /// After a failure, go on with what does not need the step that failed
    #[arg(long)]
    keep_going: bool,
    /// Only say what would run, and why
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    let lock = if args.dry_run {
        project.lock_for_reading(args.lock, ui)?
    } else {
        project.lock(Locking::from(args.lock), args.lock.offline(), ui)?
    };
    let workspace = Arc::clone(&project.workspace);
    let plan = project::plan(&workspace, &members, &args.steps)?;
    let params = project.params(&args.params, &members)?;
    let tools = project.tools(&lock, &plan)?;
    if plan.nodes.is_empty() {
        ui.status("Finished", "nothing to do: train.toml has no steps");
        return Ok(Exit::Done);
    }
    let index = project.take_index();
    let mut bench = project.bench(index, &lock, &params, &tools)?;
    if args.dry_run {
        for status in bench.survey(&plan, args.force)? {
            show(&status, ui);
        }
        bench.index.save()?;
        return Ok(Exit::Done);
    }
    // Every input that a step may use is there and verified before the first one starts.
    bench.hash_sources(&plan)?;
    let needed = project.data_needed(&mut bench, &plan, args.force)?;
    project.bring(&lock, &needed, args.lock.offline(), ui)?;

    let session = project.store.session()?;
    let runs = project.workspace.root.join(".trainlock/runs");
    let here = Machine::here();
    let machine = project::capacity(&here);
    let mut recorder =
        Recorder::start(&runs, here, |record| project.describe(record, &lock, &params, &tools, &args.params))?;
    let cancel = project.cancel();
    let jobs = args.jobs.map_or(machine.cpus as usize, usize::from);
    let options =
        Options { jobs, keep_going: args.keep_going, force: args.force, link: project.settings.link, machine };
    let result = {
        let (events, _display) = ui.events();
        events.emit(Event::RunStarted { run: recorder.record.id.clone(), steps: plan.nodes.len() });
        let result = trainlock_run::train(&mut bench, &plan, &options, &session, &mut recorder, &events, &cancel);
        drop(events);
        result
    };
    let summary = match result {
        Ok(summary) => summary,
        Err(error) => {
            recorder.finish(Status::Failed)?;
            return Err(error.into());
        }
    };
    if summary.ran > 0 {
        project::hash_tools(&mut recorder.record, &mut bench.index);
    }
    let metrics: Vec<(String, f64)> = recorder.record.steps.iter().flat_map(|s| s.metrics.clone()).collect();
    let folder = recorder.folder().to_owned();
    let status = match &summary {
        s if s.interrupted => Status::Interrupted,
        s if s.failures.is_empty() => Status::Succeeded,
        _ => Status::Failed,
    };
    recorder.finish(status)?;
    session.finish(summary.ran > 0)?;
    finish(&summary, &metrics, &folder, begin, ui)
}

/// What `--dry-run` says of a step.
fn show(status: &StepStatus, ui: &Ui) {
    if ui.json() {
        return ui.print_json(status);
    }
    let StepStatus { step, verdict, .. } = status;
    match verdict {
        Verdict::Fresh => ui.status("Fresh", step),
        Verdict::Restore => ui.status("Would cache", format!("{step} (its result is in the store)")),
        Verdict::Run { why } => ui.status("Would run", format!("{step} ({})", why.join("; "))),
        Verdict::Waits { on } => ui.status("May run", format!("{step} (depends on what {} will make)", on.join(", "))),
    }
}

/// The last words of a run, and its exit code.
fn finish(summary: &Summary, metrics: &[(String, f64)], run: &Path, begin: Instant, ui: &Ui) -> Result<Exit, Failure> {
    let took = HumanDuration(begin.elapsed());
    if summary.interrupted {
        let mut failure = Failure::new(Exit::Interrupted, "interrupted: steps that had finished are kept");
        failure.problems.extend(problems(summary));
        return Err(failure);
    }
    if !summary.failures.is_empty() {
        let mut problems = problems(summary);
        if !summary.skipped.is_empty() {
            let names: Vec<String> = summary.skipped.iter().take(5).map(|s| format!("`{s}`")).collect();
            let more = summary.skipped.len().saturating_sub(5);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            problems.push(Problem::Plain {
                message: format!("not run: {}{more}", names.join(", ")),
                causes: Vec::new(),
                hints: Vec::new(),
            });
        }
        return Err(Failure { code: Exit::Failed, problems });
    }
    if !metrics.is_empty() {
        let shown: Vec<String> = metrics.iter().take(6).map(|(name, value)| format!("{name} {value}")).collect();
        ui.status("Metrics", shown.join(", "));
    }
    let steps = |n: usize| {
        if n == 1 { "1 step".to_owned() } else { format!("{n} steps") }
    };
    if summary.ran == 0 && summary.restored == 0 {
        ui.status("Finished", format!("nothing to do: {} up to date in {took}", steps(summary.fresh)));
    } else {
        let cached = summary.fresh + summary.restored;
        ui.status("Finished", format!("{} ran, {cached} cached in {took}", steps(summary.ran)));
        if ui.verbose() {
            ui.status("Recorded", run.display());
        }
    }
    Ok(Exit::Done)
}

/// The steps that failed, each with the end of its log.
fn problems(summary: &Summary) -> Vec<Problem> {
    let problem = |failure: &trainlock_run::Failure| {
        let mut hints: Vec<String> = failure.hint.iter().cloned().collect();
        let mut causes = Vec::new();
        if let Some(log) = &failure.log {
            let end = project::end_of_log(log, 20);
            if !end.is_empty() {
                causes.push(format!("the end of its log:\n{end}"));
            }
            hints.push(format!("its whole log: {}", log.display()));
        }
        if let Some(folder) = &failure.folder {
            hints.push(format!("its folder, as it left it: {}", folder.display()));
        }
        Problem::Plain { message: format!("step `{}` {}", failure.step, failure.reason), causes, hints }
    };
    summary.failures.iter().map(problem).collect()
}
