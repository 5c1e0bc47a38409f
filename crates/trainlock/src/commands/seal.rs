//! `trainlock seal`.

use crate::cli::{Global, Select};
use crate::exit::{Exit, Failure, Problem};
use crate::project::{self, Locking, ParamOptions, Project};
use crate::ui::Ui;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use trainlock_lock::ResultPin;
use trainlock_run::{Plan, Sealable, to_seal};
use trainlock_types::{Name, RelPath};

/// Write the results of the steps into train.lock
///
/// From then on `trainlock train` on any machine says whether it reproduced them, and if not, where it first
/// went another way. Results stand in the lock by numeric class (platform, C library, level): sealing on a
/// machine of another class adds to it. Nothing runs: train first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock seal\n  trainlock seal --profile smoke\n  trainlock seal --replace          # the change is meant"
)]
pub(crate) struct Args {
    /// The steps, with what they need [default: all]
    steps: Vec<String>,
    #[command(flatten)]
    select: Select,
    /// Seal the results under this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Replace sealed results that are not what came out now
    #[arg(long)]
    replace: bool,
    /// Seal although inputs differ from what is committed to git
    #[arg(long)]
    allow_dirty: bool,
    /// Seal although steps ran without full isolation
    #[arg(long)]
    allow_unsandboxed: bool,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    let lock = project.lock(Locking::Check, true, ui)?;
    let workspace = Arc::clone(&project.workspace);
    let plan = project::plan(&workspace, &members, &args.steps)?;
    let options = ParamOptions { profile: args.profile.clone(), set: Vec::new() };
    let params = project.params(&options, &members)?;
    let equipment = project.equipment(&lock, &plan, args.profile.as_deref())?;
    let index = project.take_index();
    let mut bench = project.bench(index, &lock, &params, &equipment)?;
    let profile = args.profile.as_deref().map(|p| Name::entry(p).expect("a profile that a project has"));
    let mut pins = Vec::new();
    let mut problems = Vec::new();
    for (node, sealable) in plan.nodes.iter().zip(bench.sealable(&plan)?) {
        match sealable {
            Sealable::NotDone { why } => problems.push(Problem::Plain {
                message: format!("step `{}` has no result to seal: {why}", node.id),
                causes: Vec::new(),
                hints: vec!["`trainlock train` makes it".to_owned()],
            }),
            Sealable::Done { outcome, class, isolation } => {
                if !isolation.is_hermetic() && !args.allow_unsandboxed {
                    problems.push(Problem::Plain {
                        message: format!("step `{}` ran without full isolation: {isolation}", node.id),
                        causes: vec!["what is not locked may have reached it".to_owned()],
                        hints: vec![
                            "`trainlock doctor` says what this machine lacks; --allow-unsandboxed seals all the same"
                                .to_owned(),
                        ],
                    });
                }
                pins.push(to_seal(node, profile.as_ref(), &outcome, class, &project.store)?);
            }
        }
    }
    let dirty = if args.allow_dirty { BTreeSet::new() } else { dirty(&workspace.root, &plan) };
    if !dirty.is_empty() {
        let shown: Vec<String> = dirty.iter().take(8).map(|p| format!("`{p}`")).collect();
        let more = if dirty.len() > 8 { format!(" and {} more", dirty.len() - 8) } else { String::new() };
        problems.push(Problem::Plain {
            message: format!("not committed to git: {}{more}", shown.join(", ")),
            causes: vec!["nobody else could reproduce a result of files that they can't get".to_owned()],
            hints: vec!["commit them first; --allow-dirty seals all the same".to_owned()],
        });
    }
    let sealed = |pin: &ResultPin| lock.results.iter().find(|old| old.place() == pin.place()).cloned();
    for pin in &pins {
        if let Some(old) = sealed(pin).filter(|old| !same(old, pin) && !args.replace) {
            problems.push(Problem::Plain {
                message: format!("step `{}` is sealed with another result for {}", pin.step, pin.class),
                causes: differing(&old, pin),
                hints: vec!["`trainlock verify` says in what they differ; --replace writes the new one".to_owned()],
            });
        }
    }
    if !problems.is_empty() {
        return Err(Failure { code: Exit::Failed, problems });
    }
    let mut new = lock.clone();
    for pin in pins {
        let old = sealed(&pin);
        let verb = match &old {
            Some(old) if old == &pin => None,
            Some(_) => Some("Replaced"),
            None => Some("Sealed"),
        };
        if let Some(verb) = verb {
            ui.status(verb, words(&pin));
        }
        new.seal(pin);
    }
    let path = workspace.root.join("train.lock");
    if project.save_lock(&path, &lock, &new)? {
        ui.status("Finished", format!("{}: commit it", path.display()));
    } else {
        ui.status("Finished", "nothing to seal: train.lock has these results already");
    }
    bench.index.save()?;
    Ok(Exit::Done)
}

/// `train (linux-x86_64-gnu/x86-64-v3): 2 outputs, accuracy 0.94`
fn words(pin: &ResultPin) -> String {
    let member = pin.member.as_ref().map(|m| format!("{m}/")).unwrap_or_default();
    let count = if pin.outputs.len() == 1 { "1 output".to_owned() } else { format!("{} outputs", pin.outputs.len()) };
    let metrics: String = pin.metrics.iter().take(4).map(|(name, value)| format!(", {name} {value}")).collect();
    format!("{member}{} ({}): {count}{metrics}", pin.step, pin.class)
}

/// Whether two results have the same outputs.
fn same(old: &ResultPin, new: &ResultPin) -> bool {
    old.outputs.len() == new.outputs.len()
        && old.outputs.iter().zip(&new.outputs).all(|(a, b)| (&a.path, a.kind, a.sha256) == (&b.path, b.kind, b.sha256))
}

/// What differs between two results, in words.
fn differing(old: &ResultPin, new: &ResultPin) -> Vec<String> {
    let mut words = Vec::new();
    for output in &new.outputs {
        match old.outputs.iter().find(|o| o.path == output.path) {
            Some(before) if before.sha256 == output.sha256 => {}
            Some(before) => words.push(format!(
                "`{}`: sealed sha256 {}, now {}",
                output.path,
                before.sha256.short(),
                output.sha256.short()
            )),
            None => words.push(format!("`{}` is new", output.path)),
        }
    }
    let gone = old.outputs.iter().filter(|o| !new.outputs.iter().any(|n| n.path == o.path));
    words.extend(gone.map(|o| format!("`{}` is gone", o.path)));
    words
}

/// The manifests and sources of a plan that differ from the commit that is checked out. Outside git there is
/// nothing to differ from.
fn dirty(root: &Path, plan: &Plan<'_>) -> BTreeSet<RelPath> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["--no-optional-locks", "status", "--porcelain=v1", "-z", "--untracked-files=all", "--", "."])
        .stderr(Stdio::null())
        .output();
    let Some(output) = output.ok().filter(|o| o.status.success()) else { return BTreeSet::new() };
    // Paths are relative to the repository's top, whatever folder git was started in.
    let prefix = Command::new("git").arg("-C").arg(root).args(["rev-parse", "--show-prefix"]).output();
    let prefix =
        prefix.map(|o| String::from_utf8_lossy(&o.stdout).trim_end_matches('\n').to_owned()).unwrap_or_default();
    let mut used: BTreeSet<RelPath> = plan.sources().into_iter().cloned().collect();
    for node in &plan.nodes {
        used.extend(RelPath::parse("train.toml").map(|file| node.member.dir.join(&file)));
        used.extend(node.data().filter(|d| trainlock_run::is_in_repository(d)).map(|d| d.request.to.clone()));
    }
    used.extend(RelPath::parse("train.toml"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut entries = text.split('\0').filter(|entry| !entry.is_empty());
    let mut dirty = BTreeSet::new();
    while let Some(entry) = entries.next() {
        let Some((state, path)) = entry.split_at_checked(3) else { continue };
        if state.starts_with(['R', 'C']) {
            // The path that it came from follows.
            entries.next();
        }
        let Some(path) = path.strip_prefix(&prefix).and_then(|p| RelPath::parse(p).ok()) else { continue };
        if used.iter().any(|u| path == *u || path.below(u).is_some()) {
            dirty.insert(path);
        }
    }
    dirty
}
