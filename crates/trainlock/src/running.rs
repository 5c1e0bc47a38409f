//! A plan carried out: inputs brought, steps run, the record written, the verdict told.

use crate::equip::Equipments;
use crate::exit::{Exit, Failure, Problem};
use crate::lacking::Lack;
use crate::links;
use crate::project::{self, ParamOptions, Project};
use crate::ui::Ui;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use trainlock_env::determinism::{cost, elsewhere, missing_features};
use trainlock_env::{Engine, Equipment, Outfit};
use trainlock_lock::Lock;
use trainlock_run::record::{Recorder, Status};
use trainlock_run::{
    Bench, Finding, Fix, Judged, Options, Overall, Plan, Summary, Trial, Undeclared, Verdict, judge, overall,
};
use trainlock_types::{Diagnostic, Event, HumanDuration, Name, Params};

/// What a run is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) lock: &'a Lock,
    pub(crate) params: &'a BTreeMap<Name, Params>,
    pub(crate) equipment: &'a Equipments,
    /// What the command line said of params.
    pub(crate) options: &'a ParamOptions,
    pub(crate) offline: bool,
    pub(crate) jobs: Option<u16>,
    pub(crate) keep_going: bool,
    pub(crate) force: bool,
    /// Who runs the steps that have an image, if trainlock does not itself.
    pub(crate) engine: Option<&'a Engine>,
    /// Watch system calls.
    pub(crate) audit: bool,
    pub(crate) trial: Option<Trial>,
}

/// A run that came to its end, whatever that was.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) summary: Summary,
    /// The numbers of all metric files.
    pub(crate) metrics: Vec<(String, f64)>,
    /// The run's folder.
    pub(crate) folder: PathBuf,
    /// How its steps compare with what the lock seals; empty where that is not asked.
    pub(crate) judged: Vec<Judged>,
}

/// Brings what the plan's steps may need, then runs them. Every input is there and verified before the first
/// step starts.
pub(crate) fn carry_out(
    project: &Project,
    bench: &mut Bench<'_>,
    plan: &Plan<'_>,
    setup: Setup<'_>,
    ui: &Ui,
) -> Result<Ran, Failure> {
    links::refuse_committed(&project.workspace.root, plan)?;
    preflight(bench, plan, setup, ui)?;
    bench.hash_sources(plan)?;
    let needed = project.data_needed(bench, plan, setup.force || setup.trial.is_some())?;
    let mut lack = Lack::default();
    lack.keep(project.bring(setup.lock, &needed, setup.offline, ui))?;
    let runs = working(bench, plan, setup)?;
    lack.keep(project.equip(setup.lock, setup.equipment, &runs, (setup.offline, setup.engine), ui))?;
    lack.done()?;

    let session = project.store.session()?;
    let runs = project.workspace.root.join(".trainlock/runs");
    let here = bench.machine.clone();
    let machine = project::capacity(&here);
    let mut recorder = Recorder::start(&runs, here.clone(), |record| {
        project.describe(record, setup.lock, setup.params, setup.equipment, setup.options);
    })?;
    let cancel = project.cancel();
    let options = Options {
        jobs: setup.jobs.map_or(machine.cpus as usize, usize::from),
        keep_going: setup.keep_going,
        force: setup.force,
        link: project.settings.link,
        machine,
        sandbox: project.settings.sandbox,
        engine: setup.engine.cloned(),
        audit: setup.audit,
        private: project.private(),
        trial: setup.trial,
    };
    let result = {
        let (events, _display) = ui.events();
        events.emit(Event::RunStarted { run: recorder.record.id.clone(), steps: plan.nodes.len() });
        let result = trainlock_run::train(bench, plan, &options, &session, &mut recorder, &here, &events, &cancel);
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
    // A trial has its own baseline, and a param of one run makes another computation.
    let comes_to_its_end = summary.failures.is_empty() && !summary.interrupted;
    let mut against_lock = Vec::new();
    if comes_to_its_end && setup.trial.is_none() && setup.options.set.is_empty() && !setup.lock.results.is_empty() {
        let profile = setup.options.profile.as_deref().and_then(|p| Name::entry(p).ok());
        against_lock = judged(project, bench, plan, setup.lock, profile.as_ref(), &summary)?;
        recorder.record.verdict = overall(&against_lock);
        recorder.record.judged.clone_from(&against_lock);
    }
    let metrics = recorder.record.steps.iter().flat_map(|s| s.metrics.clone()).collect();
    let folder = recorder.folder().to_owned();
    let status = match &summary {
        s if s.interrupted => Status::Interrupted,
        s if s.failures.is_empty() => Status::Succeeded,
        _ => Status::Failed,
    };
    recorder.finish(status)?;
    session.finish(summary.ran > 0)?;
    Ok(Ran { summary, metrics, folder, judged: against_lock })
}

/// The equipment with which a step will, or may, run.
fn working(bench: &mut Bench<'_>, plan: &Plan<'_>, setup: Setup<'_>) -> Result<BTreeSet<Outfit>, Failure> {
    if setup.equipment.values().all(Equipment::is_ready) {
        return Ok(BTreeSet::new());
    }
    let all = setup.force || setup.trial.is_some();
    let statuses = bench.survey(plan, all)?;
    let nodes = plan.nodes.iter().zip(statuses);
    let runs = nodes.filter(|(_, s)| all || matches!(s.verdict, Verdict::Run { .. } | Verdict::Waits { .. }));
    Ok(runs.map(|(node, _)| node.outfit()).collect())
}

/// Whether this machine can compute what the plan asks for, and whether the sealed bits can be expected of it: said before
/// hours are spent.
fn preflight(bench: &Bench<'_>, plan: &Plan<'_>, setup: Setup<'_>, ui: &Ui) -> Result<(), Failure> {
    let mut levels = std::collections::BTreeSet::new();
    let mut doubts = std::collections::BTreeSet::new();
    for node in &plan.nodes {
        let determinism = &node.member.determinism;
        let level = bench.switches(node).map_or("off", |s| s.level.as_str());
        // A level that has no switches for this architecture is one of another.
        let level = match bench.switches(node) {
            None if setup.lock.determinism.values().any(|d| !d.switches.is_empty()) => determinism.level.as_str(),
            _ => level,
        };
        let missing = missing_features(level);
        if !missing.is_empty() {
            return Err(Failure::new(
                Exit::Failed,
                format!("this machine's processor can't compute at level `{level}`: it lacks {}", missing.join(", ")),
            )
            .hint("train on another machine, or choose a level in [determinism] that both have: `x86-64-v2` asks for less"));
        }
        levels.insert((level, determinism.threads.unwrap_or(1)));
        let profile = setup.options.profile.as_deref().and_then(|p| Name::entry(p).ok());
        let member = (!node.member.dir.is_root()).then_some(&node.member.name);
        let sealed = setup.lock.results(member, &node.step.name, profile.as_ref());
        let sealed: Vec<&str> = sealed.map(|pin| pin.class.as_str()).collect();
        doubts.extend(elsewhere(&sealed, &bench.class(node)));
    }
    for doubt in doubts {
        ui.note("Preflight", format!("the sealed bits are not expected here: {doubt}"));
    }
    // What the level costs is said once in a project's life here.
    if !bench.workspace.root.join(".trainlock/runs").exists() {
        for (level, threads) in levels {
            if let Some(cost) = cost(level, threads, bench.machine.cpus) {
                ui.note("Level", format!("{level}: {cost}, so that every machine of its class gives the same bits"));
            }
        }
    }
    Ok(())
}

/// The error that a run ends with which was interrupted or in which steps failed; none if all went well.
pub(crate) fn failure(summary: &Summary, plan: &Plan<'_>) -> Option<Failure> {
    if summary.interrupted {
        let mut failure = Failure::new(Exit::Interrupted, "interrupted: steps that had finished are kept");
        failure.problems.extend(problems(summary, plan));
        return Some(failure);
    }
    if summary.failures.is_empty() {
        return None;
    }
    let mut problems = problems(summary, plan);
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
    Some(Failure { code: Exit::Failed, problems })
}

/// The steps that failed, each with the end of its log.
fn problems(summary: &Summary, plan: &Plan<'_>) -> Vec<Problem> {
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
    let mut problems = Vec::new();
    for failure in &summary.failures {
        problems.push(problem(failure));
        let node = plan.nodes.iter().find(|node| node.id == failure.step);
        problems.extend(node.iter().flat_map(|node| undeclared(node, failure)));
    }
    problems
}

/// What a failed step used and was not given, at its place in train.toml.
fn undeclared(node: &trainlock_run::Node<'_>, failure: &trainlock_run::Failure) -> Vec<Problem> {
    let step = &failure.step;
    let told = |(undeclared, fix): &(Undeclared, Option<Fix>)| {
        let message = match undeclared {
            Undeclared::Project { path, .. } => {
                format!("step `{step}` reads `{}`, which is not in its inputs", path.relative_to(&node.member.dir))
            }
            Undeclared::Machine(path) => {
                format!("step `{step}` reads `{path}`, which lies outside the project")
            }
            Undeclared::Write(path) => {
                format!("step `{step}` writes `{}`, which is not in its outputs", path.relative_to(&node.member.dir))
            }
            Undeclared::Input(path) => {
                format!("step `{step}` writes to its input `{}`", path.relative_to(&node.member.dir))
            }
            Undeclared::Network { host, url: Some(url) } => {
                format!("step `{step}` asks `{host}` for {url}: steps have no network")
            }
            Undeclared::Network { host, url: None } => {
                format!("step `{step}` asks for `{host}`: steps have no network")
            }
            Undeclared::Hub { address, revision, path, .. } => {
                let what = path.as_ref().map(|path| format!("`{path}` of ")).unwrap_or_default();
                let at = revision.as_ref().map(|rev| format!(" at `{rev}`")).unwrap_or_default();
                format!("step `{step}` asks the hub for {what}{address}{at}, which it was not given")
            }
        };
        let help = match (undeclared, fix) {
            (_, Some(fix @ Fix::Input { path, .. })) => {
                let inputs: Vec<String> = node.step.inputs.iter().map(|i| &i.written).chain([path]).map(|i| format!("\"{i}\"")).collect();
                format!("{fix}, or let `trainlock fix` do it:\ninputs = [{}]", inputs.join(", "))
            }
            (_, Some(fix)) => format!("{fix}\nor let `trainlock fix` do it"),
            (Undeclared::Hub { path: Some(path), narrow: Some(name), .. }, None) => {
                format!("if it is needed, add \"{path}\" to `files` of `{name}` in [data]")
            }
            (Undeclared::Hub { address, .. }, None) => format!(
                "name it in [data] by its full address, hf://datasets/ORG/NAME or hf://ORG/NAME (here {address}), and its folder among the inputs"
            ),
            (Undeclared::Machine(_), None) => "make it a data set: put it into the repository or behind an address, and name it in [data]".to_owned(),
            (Undeclared::Write(_), None) => "name it in `outputs`, or write to $TMPDIR what is not to be kept".to_owned(),
            (Undeclared::Input(_), None) => "copy the file and write to the copy: inputs are shared with other steps and runs".to_owned(),
            _ => "name what it fetches in [data], so that it is locked; `network = true` gives the step the network, and takes the promise away".to_owned(),
        };
        Problem::Placed(Diagnostic {
            source: Arc::clone(&node.member.source),
            span: node.step.span.clone(),
            message,
            label: String::new(),
            help: Some(help),
            related: Vec::new(),
        })
    };
    failure.undeclared.iter().map(told).collect()
}

/// Compares what came of a plan with what the lock seals.
pub(crate) fn judged(
    project: &Project,
    bench: &Bench<'_>,
    plan: &Plan<'_>,
    lock: &Lock,
    profile: Option<&Name>,
    summary: &Summary,
) -> Result<Vec<Judged>, Failure> {
    let class = |node: &trainlock_run::Node<'_>| bench.class(node);
    Ok(judge(plan, lock, profile, &summary.outcomes, class, &project.store)?)
}

/// Tells the verdict, and with it how the program ends. Nothing is said where nothing is sealed.
pub(crate) fn tell(judged: &[Judged], ui: &Ui) -> Result<(), Failure> {
    let Some(verdict) = overall(judged) else { return Ok(()) };
    if ui.json() {
        ui.print_json(&json!({ "event": "verdict", "verdict": verdict, "steps": judged }));
    }
    let steps = |n: usize| if n == 1 { "1 step".to_owned() } else { format!("{n} steps") };
    let count = judged.iter().filter(|j| j.finding == Finding::Reproduced).count();
    let classes: std::collections::BTreeSet<&str> = judged.iter().filter_map(|j| j.class.as_deref()).collect();
    let classes = classes.into_iter().collect::<Vec<_>>().join(", ");
    let unsealed = judged.iter().filter(|j| j.finding == Finding::Unsealed).count();
    let unsealed = if unsealed > 0 { format!("; {} not sealed", steps(unsealed)) } else { String::new() };
    if verdict == Overall::Reproduced {
        ui.status("Reproduced", format!("{}, bit for bit ({classes}){unsealed}", steps(count)));
        return Ok(());
    }
    for step in judged {
        if let Finding::Equivalent { notes } = &step.finding {
            ui.status("Equivalent", format!("{}: {}", step.step, notes.join("; ")));
        }
    }
    let mut problems = Vec::new();
    let mut follow = Vec::new();
    for step in judged {
        match &step.finding {
            Finding::Diverged { files, metrics, causes } => {
                let mut because = Vec::new();
                for file in files {
                    because.push(format!("`{}`: sealed {}; now {}", file.path, file.expected, file.found));
                    because.extend(file.details.iter().cloned());
                }
                because.extend(metrics.iter().map(|m| format!("metric {m}")));
                because.extend(causes.iter().map(|c| format!("what differs besides: {c}")));
                problems.push(Problem::Plain {
                    message: format!("step `{}` diverged from its sealed result", step.step),
                    causes: because,
                    hints: Vec::new(),
                });
            }
            Finding::Elsewhere { classes, metrics } => {
                problems.push(Problem::Plain {
                    message: format!("step `{}` is not sealed for this class of machines", step.step),
                    causes: std::iter::once(format!("it is sealed for {}", classes.join(", ")))
                        .chain(metrics.iter().map(|m| format!("metric {m}")))
                        .collect(),
                    hints: vec!["`trainlock seal` adds this machine's result beside the others".to_owned()],
                });
            }
            Finding::Follows { step: first } => follow.push((step.step.as_str(), first.as_str())),
            _ => {}
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    if verdict == Overall::Diverged {
        if let Some(Problem::Plain { hints, .. }) = problems.last_mut() {
            if !follow.is_empty() {
                let names: Vec<String> = follow.iter().map(|(step, _)| format!("`{step}`")).collect();
                let verb = if names.len() == 1 { "differs" } else { "differ" };
                hints.push(format!("{} {verb} as a consequence", names.join(", ")));
            }
            hints.push("if the change is meant: trainlock seal --replace".to_owned());
        }
        ui.bad("Diverged", format!("{} of {} reproduced{unsealed}", count, steps(judged.len())));
    }
    Err(Failure { code: Exit::Diverged, problems })
}

/// How long something took, in words.
pub(crate) fn took(begin: std::time::Instant) -> HumanDuration {
    HumanDuration(begin.elapsed())
}
