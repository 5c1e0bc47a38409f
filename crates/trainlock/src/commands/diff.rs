//! `trainlock diff`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::project;
use crate::settings::Settings;
use crate::ui::{Ui, printable};
use std::path::Path;
use std::process::{Command, Output};
use trainlock_lock::{Action, Change, Lock, LockError, diff};
use trainlock_run::compare::{Sameness, compare_files, compare_folders};
use trainlock_run::record::{self, RunRecord};
use trainlock_store::Store;

/// How many files of one data set are named without -v.
const FILES: usize = 20;

/// The widest name that others of its kind are aligned with.
const NAME: usize = 40;

/// Say what changed between two locks, or two runs
///
/// Data, tools, params, determinism and results, in words. Without a revision: from the commit that is checked out (HEAD) to the working
/// tree. With one: from it to the working tree. With two: from the first to the second. With --runs: what two runs gave, output by
/// output, down to the array and the element.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock diff\n  trainlock diff main\n  trainlock diff v1 v2\n  trainlock diff --runs 20261122T205204Z-1f3a last\n  trainlock diff --exit-code    # in CI: exit code 1 if there is a difference"
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
    let count = match args.runs {
        true => runs(args, &workspace.root, global, ui)?,
        false => {
            let changes = locks(&args.revisions, &workspace.root)?;
            if ui.json() {
                changes.iter().for_each(|change| ui.print_json(change));
            } else if !changes.is_empty() {
                ui.print(&shown(&changes, ui.verbose()));
            }
            changes.len()
        }
    };
    if count == 0 {
        ui.status("Same", "nothing differs");
    }
    Ok(if args.exit_code && count > 0 { Exit::Failed } else { Exit::Done })
}

/// What changed between the locks of two revisions, or of one and the working tree.
fn locks(revisions: &[String], root: &Path) -> Result<Vec<Change>, Failure> {
    let here = || match Lock::load(&root.join("train.lock")) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Failure::new(Exit::Stale, "there is no train.lock").hint("`trainlock lock` writes it")),
        Err(error) => Err(lock_failure(&error)),
    };
    let (old, new) = match revisions {
        [] => (at("HEAD", root)?, here()?),
        [one] => (at(one, root)?, here()?),
        [one, two, ..] => (at(one, root)?, at(two, root)?),
    };
    Ok(diff(&old, &new))
}

/// The lock of a revision, as it stands beside the manifest there.
fn at(revision: &str, root: &Path) -> Result<Lock, Failure> {
    let invalid = |message: String| Failure::new(Exit::Invalid, message);
    let repository = git(root, &["rev-parse", "--git-dir"])?;
    if !repository.status.success() {
        let why = words(&repository.stderr);
        return Err(match why.contains("not a git repository") {
            true => invalid(format!("`{}` is in no git repository: there are no revisions to compare", root.display())),
            false => invalid(format!("git can't read the repository of `{}`: {why}", root.display())),
        });
    }
    let commit =
        git(root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")])?;
    if !commit.status.success() {
        return Err(match revision {
            "HEAD" => invalid("the repository has no commit yet".to_owned()),
            _ => invalid(format!("git knows no revision `{revision}`")),
        });
    }
    // `MODE TYPE OBJECT<tab>PATH`, for the file beside the manifest alone.
    let entry = git(root, &["ls-tree", words(&commit.stdout).as_str(), "train.lock"])?;
    let entry = words(&entry.stdout);
    let object = match entry.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        ["100644" | "100755", "blob", object, ..] => object.to_owned(),
        [] => {
            return Err(Failure::new(Exit::Stale, format!("there is no train.lock at `{revision}`"))
                .hint("`trainlock lock` writes it; it belongs into the repository"));
        }
        _ => return Err(invalid(format!("train.lock is no file at `{revision}`"))),
    };
    let content = git(root, &["cat-file", "blob", &object])?;
    if !content.status.success() {
        let why = words(&content.stderr);
        return Err(Failure::new(Exit::Failed, format!("git can't read train.lock at `{revision}`: {why}")));
    }
    let text = String::from_utf8(content.stdout)
        .map_err(|_| Failure::new(Exit::Failed, format!("train.lock at `{revision}` is no text")))?;
    Lock::parse(&text, Path::new(&format!("{revision}:train.lock"))).map_err(|error| lock_failure(&error))
}

fn git(root: &Path, args: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(args).env("LC_ALL", "C");
    command.output().map_err(|e| Failure::new(Exit::Failed, format!("can't start git: {e}")))
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn lock_failure(error: &LockError) -> Failure {
    match error {
        LockError::Syntax(diagnostic) | LockError::Invalid(diagnostic) => {
            Failure::placed(Exit::Invalid, vec![(**diagnostic).clone()])
        }
        LockError::Conflict { .. } | LockError::NewerVersion { .. } => Failure::from_error(Exit::Invalid, error),
        _ => Failure::from_error(Exit::Failed, error),
    }
}

/// The changes as people read them: by kind, each fact on a line.
fn shown(changes: &[Change], verbose: bool) -> String {
    let mut text = String::new();
    let mut last = "";
    for (i, change) in changes.iter().enumerate() {
        let kind = change.subject.kind();
        let names = changes[i..].iter().chain(changes[..i].iter().rev());
        let names = names.filter(|c| c.subject.kind() == kind).map(|c| c.subject.name().chars().count());
        let width = names.filter(|width| *width <= NAME).max().unwrap_or(0);
        let heading = if kind == last { "" } else { heading(kind) };
        last = kind;
        let name = printable(&change.subject.name());
        let mut begin = format!("{heading:>12} {name:width$}");
        let below = format!("{:13}{:width$}", "", "");
        let (begin_gap, gap) = if width == 0 && name.is_empty() { ("", "") } else { ("  ", "  ") };
        if name.chars().count() > width {
            text.push_str(begin.trim_end());
            text.push('\n');
            begin.clone_from(&below);
        }
        for (i, line) in lines(&change.action, verbose).iter().enumerate() {
            let (start, gap) = if i == 0 { (&begin, begin_gap) } else { (&below, gap) };
            text.push_str(format!("{start}{gap}{}", printable(line)).trim_end());
            text.push('\n');
        }
    }
    text
}

fn heading(kind: &str) -> &'static str {
    match kind {
        "data" => "Data",
        "tool" => "Tools",
        "python" => "Python",
        "package" => "Packages",
        "determinism" => "Determinism",
        "param" => "Params",
        _ => "Results",
    }
}

/// What becomes of an entry, a fact a line.
fn lines(action: &Action, verbose: bool) -> Vec<String> {
    let Action::Changed { why } = action else { return vec![action.to_string()] };
    let mut lines = Vec::new();
    for why in why {
        lines.push(why.to_string());
        let Some(files) = why.files() else { continue };
        let all: Vec<String> = files.lines().map(|line| format!("  {line}")).collect();
        let told = if verbose { all.len() } else { all.len().min(FILES) };
        lines.extend_from_slice(&all[..told]);
        if told < all.len() {
            lines.push(format!("  and {} more: -v names them", all.len() - told));
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(text: &str) -> Lock {
        Lock::parse(&format!("version = 1\n{text}"), Path::new("train.lock")).unwrap()
    }

    #[test]
    fn grouped_and_aligned() {
        let data = |name: &str, digit: &str| {
            format!("[[data]]\nname = \"{name}\"\npath = \"{name}\"\nsha256 = \"{}\"\nsize = 3\n", digit.repeat(64))
        };
        let (long, esc) = ("a-name-that-is-much-longer-than-any-other-one", "\\u001b[2J");
        let old = data("images", "1") + &data("raw", "2") + &data(long, "3") + "[params.p]\nlr = 0.1\n";
        let new = data("raw", "4")
            + &data(long, "5")
            + "[determinism]\nseed = 1\nlevel = \"off\"\n"
            + &format!("[params.p]\nlr = 0.2\ntext = \"{esc}\"\n");
        insta::assert_snapshot!(shown(&diff(&lock(&old), &lock(&new)), false), @r#"
                Data a-name-that-is-much-longer-than-any-other-one
                             content changed: 333333333333 -> 555555555555
                     images  removed
                     raw     content changed: 222222222222 -> 444444444444
         Determinism added, seed 1, level off
              Params p lr    0.1 -> 0.2
                     p text  added, "\u001b[2J"
        "#);
    }
}
