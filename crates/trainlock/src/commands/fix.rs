//! `trainlock fix`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::project;
use crate::ui::Ui;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use trainlock_manifest::{Member, Workspace, edit};
use trainlock_run::{Fix, record};

/// Give failed steps what they lacked
///
/// Adds to train.toml the inputs and data sets that the last run suggested. The lines are shown first. Comments and layout of train.toml stay as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trainlock fix\n  trainlock fix --yes")]
pub(crate) struct Args {
    /// Change train.toml without asking
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let workspace = project::load(global)?;
    let runs = workspace.root.join(".trainlock/runs");
    let Some(last) = record::ids(&runs)?.pop() else {
        return Err(Failure::new(Exit::Failed, "there is no run to learn from").hint("`trainlock train` makes one"));
    };
    let record = record::read(&runs, &last)?;
    let mut texts: BTreeMap<PathBuf, (String, String)> = BTreeMap::new();
    let mut shown = Vec::new();
    for fix in record.steps.iter().flat_map(|step| &step.fixes) {
        let (Fix::Input { step, .. } | Fix::Data { step, .. }) = fix;
        let Some((member, step)) = find(&workspace, step) else { continue };
        let file = member.source.path.clone();
        let (_, text) = match texts.get_mut(&file) {
            Some(known) => known,
            None => {
                let text = fs_err::read_to_string(&file)?;
                texts.entry(file.clone()).or_insert((text.clone(), text))
            }
        };
        let edited = match fix {
            Fix::Input { path, .. } => edit::add_inputs(text, step, &[path]),
            Fix::Data { name, entry, path, .. } => {
                edit::add_data(text, name, entry).and_then(|text| edit::add_inputs(&text, step, &[path]))
            }
        };
        let edited = edited.map_err(|e| Failure::from_error(Exit::Failed, &e))?;
        if edited != *text {
            *text = edited;
            shown.push((file, fix));
        }
    }
    if shown.is_empty() {
        ui.status("Finished", "nothing to fix: the last run suggested nothing that train.toml lacks");
        return Ok(Exit::Done);
    }
    for (file, fix) in &shown {
        let name = file.strip_prefix(&workspace.root).unwrap_or(file).display();
        ui.note("Suggested", format!("{name}: {}", fix.to_string().replace('\n', "\n             ")));
    }
    if !args.yes && !confirmed()? {
        return Err(Failure::new(Exit::Failed, "nothing was changed").hint("`trainlock fix --yes` changes train.toml"));
    }
    for (file, (_, new)) in texts.iter().filter(|(_, (old, new))| old != new) {
        write(file, new)?;
        ui.status("Fixed", file.strip_prefix(&workspace.root).unwrap_or(file).display());
    }
    Ok(Exit::Done)
}

/// A step by the name that records have.
fn find<'a>(workspace: &'a Workspace, id: &'a str) -> Option<(&'a Member, &'a str)> {
    let (member, step) = match id.split_once('/') {
        Some((member, step)) => (workspace.member(member)?, step),
        None => (workspace.members.iter().find(|m| m.dir.is_root())?, id),
    };
    Some((member, step))
}

/// Asks on the terminal; without one the answer is no.
fn confirmed() -> std::io::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut out = std::io::stderr().lock();
    write!(out, "Change train.toml? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Writes a file whole, with the permissions that it had.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let temporary = file.with_extension(format!("toml.{}.tmp", std::process::id()));
    fs_err::write(&temporary, text)?;
    fs_err::set_permissions(&temporary, fs_err::metadata(file)?.permissions())?;
    fs_err::rename(&temporary, file)
}
