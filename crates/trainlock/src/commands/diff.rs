//! `trainlock diff`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::project;
use crate::settings::Settings;
use crate::ui::Ui;
use std::path::Path;
use std::process::Command;
use trainlock_lock::{Lock, diff};
use trainlock_run::compare::{Sameness, compare_files, compare_folders};
use trainlock_run::record::{self, RunRecord};
use trainlock_store::Store;

/// Say what changed between two locks, or two runs
///
/// Of locks: data, tools, params, determinism, results. Without a revision: from the commit that is checked out (HEAD) to the working tree. With one: from it to the working
/// tree. With --runs: what two runs gave, output by output, down to the array and the element.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock diff\n  trainlock diff main\n  trainlock diff v1 v2\n  trainlock diff --runs 20261122T205204Z-1f3a last"
)]
pub(crate) struct Args {
    /// Revisions of git; of runs with --runs
    #[arg(value_name = "REV", num_args = 0..=2)]
    revisions: Vec<String>,
    /// Compare the outputs of two runs
    #[arg(long)]
    runs: bool,
    /// End with code 1 if there is a difference
    #[arg(long)]
    exit_code: bool,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let workspace = project::load(global)?;
    let count = if args.runs { runs(args, &workspace.root, global, ui)? } else { locks(args, &workspace.root, ui)? };
    if count == 0 {
        ui.status("Same", "nothing differs");
    }
    Ok(if count > 0 && args.exit_code { Exit::Failed } else { Exit::Done })
}

fn locks(args: &Args, root: &Path, ui: &Ui) -> Result<usize, Failure> {
    let here = || match Lock::load(&root.join("train.lock")) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Failure::new(Exit::Stale, "there is no train.lock").hint("`trainlock lock` writes it")),
        Err(error) => Err(Failure::from_error(Exit::Failed, &error)),
    };
    let (old, new) = match &args.revisions[..] {
        [] => (at("HEAD", root)?, here()?),
        [one] => (at(one, root)?, here()?),
        [one, two, ..] => (at(one, root)?, at(two, root)?),
    };
    let differences = diff(&old, &new);
    for difference in &differences {
        match ui.json() {
            true => ui.print_json(difference),
            false => ui.print(&difference.to_string()),
        }
    }
    Ok(differences.len())
}

/// The lock of a revision.
fn at(revision: &str, root: &Path) -> Result<Lock, Failure> {
    if revision.starts_with('-') {
        return Err(Failure::new(Exit::Invalid, format!("`{revision}` is no revision")));
    }
    let output = Command::new("git").arg("-C").arg(root).args(["show", &format!("{revision}:./train.lock")]).output();
    let output = output.map_err(|e| Failure::new(Exit::Failed, format!("can't start git: {e}")))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(Exit::Failed, format!("there is no train.lock at `{revision}`: {why}")));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Lock::parse(&text, Path::new(&format!("{revision}:train.lock"))).map_err(|e| Failure::from_error(Exit::Failed, &e))
}

fn runs(args: &Args, root: &Path, global: &Global, ui: &Ui) -> Result<usize, Failure> {
    let folder = root.join(".trainlock/runs");
    let ids = record::ids(&folder)?;
    let find = |wanted: &str| -> Result<RunRecord, Failure> {
        let found: Vec<&String> = match wanted {
            "last" => ids.last().into_iter().collect(),
            _ => ids.iter().filter(|id| id.starts_with(wanted)).collect(),
        };
        match found[..] {
            [id] => Ok(record::read(&folder, id)?),
            [] => Err(Failure::new(Exit::Failed, format!("no run `{wanted}`")).hint("`trainlock runs` lists them")),
            _ => Err(Failure::new(Exit::Failed, format!("`{wanted}` is the beginning of {} runs", found.len()))),
        }
    };
    let [one, two] = &args.revisions[..] else {
        return Err(Failure::new(Exit::Invalid, "--runs takes two runs")
            .hint("`trainlock runs` lists them; `last` is the last one"));
    };
    let (a, b) = (find(one)?, find(two)?);
    let store = Store::open(&Settings::read(global)?.store)?;
    let mut lines = Vec::new();
    for (name, value) in
        b.params.iter().flat_map(|(project, params)| params.iter().map(move |(n, v)| ((project, n), v)))
    {
        let before = a.params.get(name.0).and_then(|params| params.get(name.1));
        if before != Some(value) {
            let before = before.map_or("none".to_owned(), ToString::to_string);
            lines.push(format!("param {}: {}: {before} -> {value}", name.0, name.1));
        }
    }
    for step in &b.steps {
        let Some(before) = a.steps.iter().find(|s| s.step == step.step) else {
            lines.push(format!("step {}: only in the second run", step.step));
            continue;
        };
        for output in &step.outputs {
            let Some(old) = before.outputs.iter().find(|o| o.path == output.path) else {
                lines.push(format!("step {}: `{}` is only in the second run", step.step, output.path));
                continue;
            };
            if old.sha256 != output.sha256 {
                lines.push(format!("step {}: {}", step.step, outputs(&store, old, output)?));
            }
        }
        for (name, value) in &step.metrics {
            let old = before.metrics.get(name);
            if old.map(|o| o.to_bits()) != Some(value.to_bits()) {
                let old = old.map_or("none".to_owned(), ToString::to_string);
                lines.push(format!("metric {}: {name}: {old} -> {value}", step.step));
            }
        }
    }
    for line in &lines {
        match ui.json() {
            true => ui.print_json(&serde_json::json!({ "difference": line })),
            false => ui.print(line),
        }
    }
    Ok(lines.len())
}

/// How two outputs of one name differ, as far as the store still has them.
fn outputs(store: &Store, old: &record::OutputEntry, new: &record::OutputEntry) -> Result<String, Failure> {
    let digests = (old.sha256.parse().ok(), new.sha256.parse().ok());
    let (Some(a), Some(b)) = digests else { return Ok(format!("`{}` differs", new.path)) };
    if let (Some(a), Some(b)) = (store.tree(&a), store.tree(&b)) {
        let differences = compare_folders(&a, &b).map_err(|e| Failure::from_error(Exit::Failed, &e))?;
        let first = differences.first().map(ToString::to_string).unwrap_or_default();
        return Ok(format!("`{}`: {} files differ: {first}", new.path, differences.len()));
    }
    match (store.object(&a, None)?, store.object(&b, None)?) {
        (Some(a), Some(b)) => {
            let comparison = compare_files(&a, &b, &new.path).map_err(|e| Failure::from_error(Exit::Failed, &e))?;
            Ok(if comparison.verdict == Sameness::Identical {
                format!("`{}` has another mode", new.path)
            } else {
                comparison.to_string()
            })
        }
        _ => {
            Ok(format!("`{}` differs: sha256 {} -> {} (the store no longer has both)", new.path, a.short(), b.short()))
        }
    }
}
