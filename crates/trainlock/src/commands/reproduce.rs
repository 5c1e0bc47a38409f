//! `trainlock reproduce`.
//!
//! The repository is a stranger's. Nothing of it is run but its steps, in the sandbox; what could reach further is refused
//! before the first of them: links that lead out of the checkout, a `.trainlock` folder that claims what was done. The commands
//! of its choice that ask tools for their versions run in a sandbox, too.

mod child;
mod clone;
mod report;

use self::child::Watch;
use self::clone::{Address, Checkout};
use self::report::Report;
use crate::cli::{Color, Global};
use crate::exit::{Exit, Failure};
use crate::project;
use crate::ui::Ui;
use fs_err as fs;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trainlock_lock::{Lock, LockError, ResultPin};
use trainlock_types::RelPath;

/// Clone a repository, train it, compare with its sealed results
///
/// One commit is checked out in a clean folder, every input is verified, and every step runs, whatever the store has. The steps are a
/// stranger's code: they run with `sandbox = "required"`, whatever the manifest says. A report folder says what came of
/// it. The exit code is that of `train`: 0 reproduced or equivalent, 5 diverged, or nothing is sealed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock reproduce https://example.org/team/digits.git\n  trainlock reproduce git@example.org:team/digits.git --rev v1.0\n  trainlock reproduce ./digits.bundle --profile smoke"
)]
pub(crate) struct Args {
    /// The repository: a URL, a folder, or a bundle file; --manifest-path is relative to its top
    #[arg(value_name = "GIT-URL")]
    url: String,
    /// Branch, tag or commit [default: the repository's own]
    #[arg(long, value_name = "REV")]
    rev: Option<String>,
    /// The profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Work in this folder, which must be empty, and leave it there
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Leave the temporary folder there
    #[arg(long, conflicts_with = "into")]
    keep: bool,
    /// Where the report goes: a new folder [default: trainlock-report-NAME-COMMIT in the current folder]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let address = Address::new(&args.url)?;
    let manifest = global.manifest_path.as_deref().unwrap_or(Path::new("train.toml"));
    let manifest = manifest.to_str().map(RelPath::parse).and_then(Result::ok).ok_or_else(|| {
        Failure::new(Exit::Invalid, "--manifest-path is relative to the top of the repository, and stays in it")
    })?;
    if let Some(report) = args.report.as_ref().filter(|report| report.symlink_metadata().is_ok()) {
        return Err(Failure::new(Exit::Invalid, format!("`{}` is there already", report.display())));
    }
    let watch = Watch::new()?;
    let mut place = Place::new(args)?;
    ui.status("Cloning", &address.shown);
    let checkout = clone::clone(&address, args.rev.as_deref(), &place.folder, &watch)?;
    place.cloned = true;
    told(&checkout, ui);

    let file = manifest.on(&place.folder);
    let lock = looked_at(&file, &place.folder, global)?;
    let profile = args.profile.as_deref();
    let sealed: Vec<&ResultPin> = lock.results.iter().filter(|r| r.profile.as_deref() == profile).collect();
    if sealed.is_empty() {
        ui.warning("nothing is sealed in its train.lock: there will be nothing to compare with");
    } else {
        let classes: BTreeSet<&str> = sealed.iter().map(|r| r.class.as_str()).collect();
        let steps: BTreeSet<_> = sealed.iter().map(|r| (&r.member, &r.step)).collect();
        let steps = if steps.len() == 1 { "1 step".to_owned() } else { format!("{} steps", steps.len()) };
        ui.note("Sealed", format!("{steps}, for {}", classes.into_iter().collect::<Vec<_>>().join(", ")));
    }
    // Made before hours are spent, so that they are not spent for a folder that can't be written.
    let report = Report::begin(args.report.as_deref(), &address.name, &checkout.commit)?;

    let status = watch.run(&mut train(args, global, &file)?)?;
    if watch.is_interrupted() {
        return Err(Failure::new(Exit::Interrupted, "interrupted: nothing is reported"));
    }
    let exit = match status.code() {
        Some(0) if sealed.is_empty() => Exit::Diverged,
        Some(0) => Exit::Done,
        Some(2) => Exit::Invalid,
        Some(3) => Exit::Stale,
        Some(4) => Exit::Unverified,
        Some(5) => Exit::Diverged,
        Some(130) => Exit::Interrupted,
        _ => Exit::Failed,
    };
    let root = file.parent().unwrap_or(&place.folder);
    let asked = report::Asked {
        repository: &address.shown,
        rev: args.rev.as_deref(),
        commit: &checkout.commit,
        manifest: manifest.as_str(),
        profile,
    };
    let folder = report.write(&asked, &lock, &sealed, exit, &root.join(".trainlock/runs"))?;
    ui.status("Reported", folder.display());
    if ui.json() {
        ui.print_json(&json!({ "event": "report", "folder": folder, "exit-code": exit as u8 }));
    }
    place.finish(ui);
    if sealed.is_empty() && status.success() {
        return Err(Failure::new(Exit::Diverged, "it ran, but nothing is sealed: there is nothing to compare with")
            .hint("whoever owns the repository can `trainlock seal` it, and commit train.lock"));
    }
    Ok(exit)
}

/// What is to know of a checkout before it is trained.
fn told(checkout: &Checkout, ui: &Ui) {
    ui.status("Checked out", &checkout.commit[..12]);
    let Checkout { submodules, pointers, .. } = checkout;
    if !submodules.is_empty() {
        let shown: Vec<String> = submodules.iter().take(5).map(|path| path.escape_debug().to_string()).collect();
        let more = if submodules.len() > 5 { format!(" and {} more", submodules.len() - 5) } else { String::new() };
        ui.warning(&format!("submodules are not followed: {}{more}", shown.join(", ")));
    }
    if *pointers > 0 {
        let files = if *pointers == 1 { "1 file is".to_owned() } else { format!("{pointers} files are") };
        ui.warning(&format!("{files} kept by Git LFS, which is not asked: only the pointers are here"));
    }
}

/// The lock beside the manifest, after both were looked at: they are this checkout's own, and ask for nothing that the sandbox does
/// not hold.
fn looked_at(file: &Path, folder: &Path, global: &Global) -> Result<Lock, Failure> {
    let shown = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_file());
    if !is_file(file) {
        return Err(Failure::new(Exit::Invalid, format!("the repository has no `{}`", shown(file)))
            .hint("--manifest-path says where in the repository it is"));
    }
    let workspace = project::load(&Global { manifest_path: Some(file.to_owned()), ..global.clone() })?;
    let lock = file.with_file_name("train.lock");
    // A manifest above the checkout could make it a member of a workspace that is not the repository's.
    if !fs::canonicalize(&workspace.root)?.starts_with(fs::canonicalize(folder)?) {
        return Err(Failure::new(
            Exit::Failed,
            format!("its `{}` belongs to the workspace of `{}`", shown(file), workspace.root.display()),
        )
        .hint("choose a folder with --into that no train.toml is above"));
    }
    if workspace.root.join("train.lock") != lock
        && fs::canonicalize(&workspace.root)? != fs::canonicalize(file.parent().unwrap_or(folder))?
    {
        return Err(Failure::new(
            Exit::Invalid,
            format!("`{}` is a member of a workspace: its lock stands at the workspace's root", shown(file)),
        )
        .hint("give the root's manifest with --manifest-path"));
    }
    if !is_file(&lock) {
        return Err(Failure::new(Exit::Stale, format!("the repository has no `{}`", shown(&lock)))
            .hint("without a lock there is nothing to reproduce: whoever owns the repository can `trainlock lock` and commit it"));
    }
    match Lock::load(&lock) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Failure::new(Exit::Stale, format!("`{}` is gone", shown(&lock)))),
        Err(LockError::Syntax(diagnostic) | LockError::Invalid(diagnostic)) => {
            Err(Failure::placed(Exit::Invalid, vec![*diagnostic]))
        }
        Err(error) => Err(Failure::from_error(Exit::Invalid, &error)),
    }
}

/// This very program, about to train.
fn train(args: &Args, global: &Global, file: &Path) -> Result<Command, Failure> {
    let mut train = Command::new(std::env::current_exe()?);
    train.current_dir(file.parent().unwrap_or(Path::new("/"))).stdin(Stdio::null());
    train.arg("train").args(["--locked", "--workspace", "--force", "--shut-probes"]).arg("--manifest-path").arg(file);
    for pair in &global.config {
        train.args(["--config", pair]);
    }
    // The last word counts.
    train.args(["--config", "sandbox=required"]);
    if let Some(profile) = &args.profile {
        train.args(["--profile", profile]);
    }
    let color = match global.color {
        Color::Auto => "auto",
        Color::Always => "always",
        Color::Never => "never",
    };
    train.args(["--color", color]);
    train.args(std::iter::repeat_n("--verbose", usize::from(global.verbose)));
    train.args(global.quiet.then_some("--quiet")).args(global.json.then_some("--json"));
    for name in clone::FORGOTTEN {
        train.env_remove(name);
    }
    Ok(train)
}

/// The folder that the repository is cloned into; what was made is taken away when this is dropped, unless it is to stay.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// Whether the clone came to its end.
    cloned: bool,
    /// The user's folder, which stays; a temporary one has this name of its own above the clone.
    temporary: Option<PathBuf>,
    keep: bool,
}

impl Place {
    fn new(args: &Args) -> Result<Place, Failure> {
        if let Some(into) = &args.into {
            fs::create_dir_all(into)?;
            if fs::read_dir(into)?.next().is_some() {
                return Err(Failure::new(Exit::Invalid, format!("`{}` is not empty", into.display())));
            }
            return Ok(Place { folder: fs::canonicalize(into)?, cloned: false, temporary: None, keep: false });
        }
        let temporary = tempfile::Builder::new().prefix("trainlock-reproduce-").tempdir()?.keep();
        let temporary = fs::canonicalize(temporary)?;
        let folder = temporary.join("clone");
        let place = Place { folder, cloned: false, temporary: Some(temporary), keep: args.keep };
        fs::create_dir(&place.folder)?;
        Ok(place)
    }

    /// Says where the clone is, if it stays.
    fn finish(self, ui: &Ui) {
        if self.keep || self.temporary.is_none() {
            ui.status("Kept", self.folder.display());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match &self.temporary {
            Some(temporary) if !self.keep => remove(temporary),
            // Half a clone would be in the way of the next.
            None if !self.cloned => {
                for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                    remove(&entry.path());
                }
            }
            _ => {}
        }
    }
}

/// Takes a folder away, even where steps made folders that can't be written to. What can't be removed stays: it is in the place for
/// temporary things.
fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_ok() || fs::remove_file(path).is_ok() {
        return;
    }
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        let _ = fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700));
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            open.extend(entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path()));
        }
    }
    let _ = fs::remove_dir_all(path);
}
