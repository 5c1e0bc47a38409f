//! Links of a project that lead out of it. A user's own link (`build` to a larger disk) is obeyed; one that came with the
//! commit would write wherever its author pleased, and is not.

use crate::exit::{Exit, Failure};
use fs_err as fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use trainlock_run::Plan;
use trainlock_types::RelPath;

/// Whether a link ends below `top`, whatever of its way exists: each part is looked at as the system would.
pub(crate) fn leads_inside(top: &Path, link: &Path) -> bool {
    let (Some(parent), Ok(target)) = (link.parent(), fs::read_link(link)) else { return false };
    let mut at: PathBuf = parent.to_owned();
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => at.push(name),
            Component::RootDir | Component::Prefix(_) => return false,
        }
        if let Ok(real) = fs::canonicalize(&at) {
            at = real;
        }
        if !at.starts_with(top) || at.starts_with(top.join(".git")) {
            return false;
        }
    }
    true
}

/// An error if a link on the way to an output leads out of the workspace and is committed to git.
pub(crate) fn refuse_committed(root: &Path, plan: &Plan<'_>) -> Result<(), Failure> {
    let outputs = plan.nodes.iter().flat_map(|node| &node.step.outputs);
    let Some(link) = outputs.filter_map(|output| link_out(root, &output.path)).find(|link| is_committed(root, link))
    else {
        return Ok(());
    };
    let target = fs::read_link(link.on(root)).map(|target| target.display().to_string()).unwrap_or_default();
    Err(Failure::new(
        Exit::Failed,
        format!("`{link}`, where outputs would be written, is a link in git that leads out of the workspace, to `{target}`"),
    )
    .hint(format!(
        "if it is meant, take it out of git (`git rm --cached {link}`), ignore it there, and keep it as a link of your own"
    )))
}

/// The first part of a path that is a link out of the workspace.
fn link_out(root: &Path, path: &RelPath) -> Option<RelPath> {
    let mut at = RelPath::root();
    for part in path.as_str().split('/') {
        at = at.resolve(part).ok()?;
        let file = at.on(root);
        match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_symlink() && !leads_inside(root, &file) => return Some(at),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    None
}

fn is_committed(root: &Path, path: &RelPath) -> bool {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(["ls-files", "--error-unmatch", "--", path.as_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
