//! `trainlock train`.

use crate::airgap;
use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{self, Locking, Project};
use crate::running::{self, Ran, Setup};
use crate::settings::Settings;
use crate::ui::Ui;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use trainlock_env::EngineKind;
use trainlock_run::{StepStatus, Verdict};
use trainlock_store::Store;

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
    /// Watch the steps' system calls, and say what they use and do not declare if they fail
    #[arg(long)]
    audit: bool,
    /// Hand the steps that have an image to this container engine
    #[arg(long, value_name = "ENGINE", value_parser = engine_kind())]
    engine: Option<EngineKind>,
    /// Only say what would run, and why
    #[arg(long)]
    dry_run: bool,
    /// Open a file of `bundle` first, and train its project from it: locked, and without a network
    #[arg(long, value_name = "FILE", requires = "into")]
    bundle: Option<PathBuf>,
    /// The new folder that the bundle's project goes into
    #[arg(long, value_name = "DIR", requires = "bundle")]
    into: Option<PathBuf>,
    /// Ask tools for their versions in a sandbox, as `reproduce` wants it
    #[arg(long, hide = true)]
    shut_probes: bool,
    #[command(flatten)]
    lock: LockOptions,
}

/// The engines by name.
fn engine_kind() -> impl TypedValueParser<Value = EngineKind> {
    let all = || EngineKind::ALL.into_iter();
    PossibleValuesParser::new(all().map(EngineKind::name)).map(move |name: String| {
        all().find(|kind| kind.name() == name).unwrap_or_else(|| unreachable!("one of those that are possible"))
    })
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    match (&args.bundle, &args.into) {
        (Some(bundle), Some(into)) => train(args, &opened(bundle, into, global, ui)?, true, ui),
        _ => train(args, global, false, ui),
    }
}

/// Opens a bundle into a new folder; the options with which its project is worked on.
fn opened(bundle: &Path, into: &Path, global: &Global, ui: &Ui) -> Result<Global, Failure> {
    fs_err::create_dir(into).map_err(|error| {
        Failure::from_error(Exit::Invalid, &error).hint("`--into` names a folder that is not there yet")
    })?;
    let store = Store::open(&Settings::read(global)?.store)?;
    airgap::open(bundle, &store, Some(into))?;
    ui.status("Opened", format!("{} into {}", bundle.display(), into.display()));
    let mut global = global.clone();
    global.manifest_path = Some(into.join("train.toml"));
    let mut project = Project::open(&global)?;
    let all: Vec<usize> = (0..project.workspace.members.len()).collect();
    let lock = project.lock(Locking::Check, true, ui)?;
    airgap::inputs(&project, &lock, &all)?.supply(&project.store, |_| Ok(None))?;
    Ok(global)
}

fn train(args: &Args, global: &Global, bundled: bool, ui: &Ui) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let mut project = Project::open(global)?;
    if args.shut_probes {
        let (scratch, private) = (project.own_folder()?.join("ask"), project.private());
        project.host.shut_in(scratch, private);
    }
    let members = project.select(&args.select)?;
    let mut options = args.lock;
    options.frozen |= bundled;
    let lock = if args.dry_run {
        project.lock_for_reading(options, ui)?
    } else {
        project.lock(Locking::from(options), options.offline(), ui)?
    };
    let workspace = Arc::clone(&project.workspace);
    let plan = project::plan(&workspace, &members, &args.steps)?;
    let params = project.params(&args.params, &members)?;
    let equipment = project.equipment(&lock, &plan, args.params.profile.as_deref())?;
    if plan.nodes.is_empty() {
        ui.status("Finished", "nothing to do: train.toml has no steps");
        return Ok(Exit::Done);
    }
    let index = project.take_index();
    let mut bench = project.bench(index, &lock, &params, &equipment)?;
    if args.dry_run {
        for status in bench.survey(&plan, args.force)? {
            show(&status, ui);
        }
        bench.index.save()?;
        return Ok(Exit::Done);
    }
    let engine = args.engine.map(|kind| project.engine(kind)).transpose()?;
    let setup = Setup {
        lock: &lock,
        params: &params,
        equipment: &equipment,
        options: &args.params,
        offline: options.offline(),
        jobs: args.jobs,
        keep_going: args.keep_going,
        force: args.force,
        engine: engine.as_ref(),
        audit: args.audit,
        trial: None,
    };
    let ran = running::carry_out(&project, &mut bench, &plan, setup, ui)?;
    if let Some(failure) = running::failure(&ran.summary, &plan) {
        return Err(failure);
    }
    finish(&ran, begin, ui);
    if !args.params.set.is_empty() && !lock.results.is_empty() {
        ui.note("Unjudged", "with --set this is another computation than the sealed one");
    }
    running::tell(&ran.judged, ui)?;
    Ok(Exit::Done)
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

/// The last words of a run that went well.
fn finish(ran: &Ran, begin: Instant, ui: &Ui) {
    let Ran { summary, metrics, folder, .. } = ran;
    let took = running::took(begin);
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
            ui.status("Recorded", folder.display());
        }
    }
}
