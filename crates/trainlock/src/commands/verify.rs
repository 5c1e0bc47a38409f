//! `trainlock verify`.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{self, Locking, ParamOptions, Project};
use crate::running::{self, Setup};
use crate::ui::Ui;
use std::sync::Arc;
use std::time::Instant;
use trainlock_lock::Lock;
use trainlock_run::{Bench, Finding, Judged, Outcome, Overall, Plan, Sealable, Trial, Variation, overall, to_seal};
use trainlock_types::Name;

/// Run steps again from nothing, and compare with what was sealed
///
/// Nothing of the project or the store is changed: what comes out is compared and let go. Where nothing is
/// sealed, the results in the store are compared with; --twice runs everything twice and compares the two.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock verify\n  trainlock verify train\n  trainlock verify --twice\n  trainlock verify --vary threads,order,time"
)]
pub(crate) struct Args {
    /// The steps, with what they need [default: all]
    steps: Vec<String>,
    #[command(flatten)]
    select: Select,
    /// Compare two runs with each other, whatever is sealed
    #[arg(long)]
    twice: bool,
    /// Make one thing at a time different, and name those that change the bytes: threads, order, time, hostname,
    /// hashseed, umask, cpu, cpu-amd, or `all`
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = parse_variations)]
    vary: Vec<Variations>,
    /// How many steps at once [default: as many as there are processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    params: ParamOptions,
    #[command(flatten)]
    lock: LockOptions,
}

/// What one word of `--vary` stands for.
#[derive(Debug, Clone)]
struct Variations(Vec<Variation>);

fn parse_variations(word: &str) -> Result<Variations, String> {
    if word == "all" {
        return Ok(Variations(Variation::ALL.to_vec()));
    }
    let known = Variation::ALL.into_iter().find(|v| v.as_str() == word);
    known.map(|v| Variations(vec![v])).ok_or_else(|| {
        let words: Vec<&str> = Variation::ALL.iter().map(|v| v.as_str()).collect();
        format!("one of {} or all", words.join(", "))
    })
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    let lock = project.lock(Locking::from(args.lock), args.lock.offline(), ui)?;
    let workspace = Arc::clone(&project.workspace);
    let plan = project::plan(&workspace, &members, &args.steps)?;
    let params = project.params(&args.params, &members)?;
    let equipment = project.equipment(&lock, &plan, args.params.profile.as_deref())?;
    if plan.nodes.is_empty() {
        ui.status("Finished", "nothing to verify: train.toml has no steps");
        return Ok(Exit::Done);
    }
    let index = project.take_index();
    let mut bench = project.bench(index, &lock, &params, &equipment)?;
    let profile = args.params.profile.as_deref().and_then(|p| Name::entry(p).ok());
    let setup = Setup {
        lock: &lock,
        params: &params,
        equipment: &equipment,
        engine: None,
        options: &args.params,
        offline: args.lock.offline(),
        jobs: args.jobs,
        keep_going: false,
        force: true,
        audit: false,
        trial: Some(Trial { variation: None }),
    };
    let variations: Vec<Variation> = {
        let mut all: Vec<Variation> = args.vary.iter().flat_map(|v| v.0.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    if let Some((variation, why)) = variations.iter().find_map(|v| Some((v, v.impossible()?))) {
        return Err(Failure::new(Exit::Failed, format!("can't vary {}: {why}", variation.as_str())));
    }
    let known = known(&project, &mut bench, &plan, &lock, profile.as_ref())?;
    let baseline = match known {
        Some(known) if !args.twice => known,
        None if !args.twice && variations.is_empty() => {
            return Err(Failure::new(
                Exit::Failed,
                "there is nothing to compare with: nothing is sealed, and the store has no result of these steps",
            )
            .hint("--twice runs the steps twice and compares the two; `trainlock train` makes a first result"));
        }
        _ => {
            ui.note("Verifying", "a first run, to compare with");
            let ran = running::carry_out(&project, &mut bench, &plan, setup, ui)?;
            if let Some(failure) = running::failure(&ran.summary, &plan) {
                return Err(failure);
            }
            Baseline {
                lock: sealed(&project, &bench, &plan, profile.as_ref(), &ran.summary.outcomes)?,
                what: "the first run",
            }
        }
    };
    if variations.is_empty() {
        ui.note("Verifying", format!("against {}", baseline.what));
        let ran = running::carry_out(&project, &mut bench, &plan, setup, ui)?;
        if let Some(failure) = running::failure(&ran.summary, &plan) {
            return Err(failure);
        }
        let judged = running::judged(&project, &bench, &plan, &baseline.lock, profile.as_ref(), &ran.summary)?;
        running::tell(&judged, ui)?;
        ui.status("Finished", format!("verified against {} in {}", baseline.what, running::took(begin)));
        return Ok(Exit::Done);
    }
    let mut changed = Vec::new();
    for variation in variations {
        ui.note("Varying", variation.as_str());
        let setup = Setup { trial: Some(Trial { variation: Some(variation) }), ..setup };
        let ran = running::carry_out(&project, &mut bench, &plan, setup, ui)?;
        if let Some(failure) = running::failure(&ran.summary, &plan) {
            return Err(failure.hint(format!("this was the run with another {}", variation.as_str())));
        }
        let judged = running::judged(&project, &bench, &plan, &baseline.lock, profile.as_ref(), &ran.summary)?;
        if ui.json() {
            ui.print_json(&serde_json::json!({ "event": "varied", "vary": variation.as_str(), "verdict": overall(&judged), "steps": judged }));
        }
        match overall(&judged) {
            Some(Overall::Reproduced) | None => ui.status("Same", format!("{} changes no byte", variation.as_str())),
            Some(verdict) => {
                let verb = if verdict == Overall::Equivalent { "Equivalent" } else { "Changes" };
                ui.bad(verb, format!("{}: {}", variation.as_str(), first(&judged)));
                changed.push(variation.as_str());
            }
        }
    }
    if changed.is_empty() {
        ui.status("Finished", format!("nothing that was varied changes a byte, in {}", running::took(begin)));
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::Diverged, format!("these change the bytes: {}", changed.join(", ")))
        .hint("`level = \"portable\"` in [determinism] fixes what libraries take from the machine; the rest is in the steps' code"))
}

/// What is compared with.
struct Baseline {
    /// A lock of results alone.
    lock: Lock,
    what: &'static str,
}

/// The sealed results, else those of the store; none if a step has neither.
fn known(
    project: &Project,
    bench: &mut Bench<'_>,
    plan: &Plan<'_>,
    lock: &Lock,
    profile: Option<&Name>,
) -> Result<Option<Baseline>, Failure> {
    let is_sealed = |node: &trainlock_run::Node<'_>| {
        let member = (!node.member.dir.is_root()).then_some(&node.member.name);
        lock.results(member, &node.step.name, profile).next().is_some()
    };
    if plan.nodes.iter().any(is_sealed) {
        let lock = Lock { results: lock.results.clone(), ..Lock::default() };
        return Ok(Some(Baseline { lock, what: "the sealed results" }));
    }
    let mut stored = Lock::default();
    for (node, sealable) in plan.nodes.iter().zip(bench.sealable(plan)?) {
        match sealable {
            Sealable::Done { outcome, class, .. } => {
                stored.seal(to_seal(node, profile, &outcome, class, &project.store)?);
            }
            Sealable::NotDone { .. } => return Ok(None),
        }
    }
    Ok(Some(Baseline { lock: stored, what: "the results in the store" }))
}

/// The outcomes of a run as results.
fn sealed(
    project: &Project,
    bench: &Bench<'_>,
    plan: &Plan<'_>,
    profile: Option<&Name>,
    outcomes: &[Option<Outcome>],
) -> Result<Lock, Failure> {
    let mut lock = Lock::default();
    for (node, outcome) in plan.nodes.iter().zip(outcomes) {
        if let Some(outcome) = outcome {
            let class = outcome.class.clone().unwrap_or_else(|| bench.class(node));
            lock.seal(to_seal(node, profile, outcome, class, &project.store)?);
        }
    }
    Ok(lock)
}

/// The first step that gave other bytes, and its first file.
fn first(judged: &[Judged]) -> String {
    let words = |step: &Judged| match &step.finding {
        Finding::Diverged { files, .. } => files.first().map(|file| {
            let detail = file.details.first().map(|d| format!(": {d}")).unwrap_or_default();
            format!("step `{}`, `{}`{detail}", step.step, file.path)
        }),
        Finding::Equivalent { notes } => Some(format!("step `{}`: {}", step.step, notes.join("; "))),
        _ => None,
    };
    judged.iter().find_map(words).unwrap_or_else(|| "other bytes".to_owned())
}
