//! `trainlock reproduce`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::ui::Ui;
use fs_err as fs;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trainlock_lock::Lock;
use trainlock_run::record::{self, RunRecord};

/// Clone a repository, train it, compare with its sealed results
///
/// Everything is verified, in a clean folder. The steps are a stranger's code: they run with `sandbox = "required"`, whatever the manifest says. A report folder
/// says what came of it. The exit code is that of `train`: 0 reproduced or equivalent, 5 diverged.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock reproduce https://example.org/team/digits.git\n  trainlock reproduce git@example.org:team/digits.git --rev v1.0\n  trainlock reproduce ./digits.bundle --profile smoke"
)]
pub(crate) struct Args {
    /// The repository: a URL, a folder, or a bundle file
    url: String,
    /// Branch, tag or commit [default: the repository's own]
    #[arg(long)]
    rev: Option<String>,
    /// The profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Work in this folder, which must be empty, and leave it there
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Where the report goes [default: trainlock-report-NAME-COMMIT in the current folder]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// Protocols that git may use: none that runs a command of the address's choice.
const PROTOCOLS: &str = "file:git:http:https:ssh";

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    if args.url.starts_with('-') || args.url.contains("::") {
        return Err(Failure::new(Exit::Invalid, format!("`{}` is no repository that can be cloned", args.url)));
    }
    if let Some(rev) = args.rev.as_ref().filter(|rev| rev.starts_with('-')) {
        return Err(Failure::new(Exit::Invalid, format!("`{rev}` is no revision")));
    }
    let temporary = tempfile::Builder::new().prefix("trainlock-reproduce-").tempdir()?;
    let folder = match &args.into {
        Some(into) => {
            fs::create_dir_all(into)?;
            if fs::read_dir(into)?.next().is_some() {
                return Err(Failure::new(Exit::Invalid, format!("`{}` is not empty", into.display())));
            }
            fs::canonicalize(into)?
        }
        None => temporary.path().join("clone"),
    };
    ui.status("Cloning", redacted(&args.url));
    git(&mut Command::new("git"), &["clone", "--quiet", "--no-checkout", "--", &args.url, &folder.to_string_lossy()])?;
    let wanted = args.rev.clone().unwrap_or_else(|| "HEAD".to_owned());
    let commit = ["refs/remotes/origin/", "refs/tags/", ""]
        .iter()
        .find_map(|place| {
            let name = format!("{place}{wanted}^{{commit}}");
            git(Command::new("git").arg("-C").arg(&folder), &["rev-parse", "--verify", "--quiet", &name]).ok()
        })
        .ok_or_else(|| Failure::new(Exit::Failed, format!("the repository has no revision `{wanted}`")))?;
    git(Command::new("git").arg("-C").arg(&folder), &["checkout", "--quiet", "--detach", &commit])?;
    let manifest = folder.join(global.manifest_path.as_deref().unwrap_or(Path::new("train.toml")));
    let root = manifest.parent().unwrap_or(&folder).to_owned();
    let lock = Lock::load(&root.join("train.lock")).map_err(|e| Failure::from_error(Exit::Failed, &e))?;
    let Some(lock) = lock else {
        return Err(Failure::new(Exit::Stale, format!("the repository has no train.lock at {}", &commit[..12])));
    };
    ui.status("Checked out", &commit[..12]);
    let sealed = lock.results.iter().any(|r| r.profile.as_deref() == args.profile.as_deref());
    if !sealed {
        ui.warning("nothing is sealed in its train.lock: what comes out can't be compared with anything");
    }

    let mut train = Command::new(std::env::current_exe()?);
    train.arg("-C").arg(&root).args(["train", "--locked", "--config", "sandbox=required"]);
    for pair in &global.config {
        train.args(["--config", pair]);
    }
    if let Some(profile) = &args.profile {
        train.args(["--profile", profile]);
    }
    if ui.json() {
        train.arg("--json");
    }
    let status = train.stdin(Stdio::null()).status()?;
    let code = status.code().unwrap_or(130);
    let exit = match code {
        0 if !sealed => Exit::Diverged,
        0 => Exit::Done,
        2 => Exit::Invalid,
        3 => Exit::Stale,
        4 => Exit::Unverified,
        5 => Exit::Diverged,
        130 => Exit::Interrupted,
        _ => Exit::Failed,
    };
    let runs = root.join(".trainlock/runs");
    let run = match record::ids(&runs)?.pop() {
        Some(id) => Some((runs.join(&id), record::read(&runs, &id)?)),
        None => None,
    };
    let name = folder_name(&args.url);
    let report =
        args.report.clone().unwrap_or_else(|| PathBuf::from(format!("trainlock-report-{name}-{}", &commit[..12])));
    let report = write_report(report, args, &commit, &lock, exit, run.as_ref())?;
    ui.status("Reported", report.display());
    if !sealed && code == 0 {
        return Err(Failure::new(Exit::Diverged, "it ran, but nothing is sealed: there is nothing to compare with")
            .hint("whoever owns the repository can `trainlock seal` it"));
    }
    Ok(exit)
}

/// Runs git for what it prints.
fn git(command: &mut Command, args: &[&str]) -> Result<String, Failure> {
    let output = command
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "submodule.recurse=false"])
        .args(args)
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::new(Exit::Failed, format!("can't start git: {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(Exit::Failed, format!("git {} failed: {}", args[0], redacted(&why))))
}

/// A text without the credentials of addresses in it.
fn redacted(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['/', ' ', '\'']).unwrap_or(part.len());
        let host = part[..end].rsplit('@').next().unwrap_or_default();
        out.push_str("://");
        out.push_str(host);
        out.push_str(&part[end..]);
    }
    out
}

/// What a repository is called: the last part of its address.
fn folder_name(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let last = last.trim_end_matches(".git").trim_end_matches(".bundle");
    let name: String =
        last.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).collect();
    if name.is_empty() { "repository".to_owned() } else { name }
}

/// Writes the report's folder; one that is there already is not touched, and another name is taken.
fn write_report(
    wanted: PathBuf,
    args: &Args,
    commit: &str,
    lock: &Lock,
    exit: Exit,
    run: Option<&(PathBuf, RunRecord)>,
) -> Result<PathBuf, Failure> {
    let mut folder = wanted.clone();
    let mut number = 2;
    while folder.exists() {
        folder = PathBuf::from(format!("{}-{number}", wanted.display()));
        number += 1;
    }
    fs::create_dir_all(&folder)?;
    let verdict = run.and_then(|(_, r)| r.verdict);
    let facts = json!({
        "repository": redacted(&args.url),
        "commit": commit,
        "profile": args.profile,
        "lock": lock.digest().to_string(),
        "verdict": verdict,
        "exit-code": exit as u8,
        "steps": run.map(|(_, r)| &r.judged),
    });
    fs::write(folder.join("verdict.json"), serde_json::to_vec_pretty(&facts).expect("facts are JSON"))?;
    let mut text = format!(
        "# {}\n\n- commit {commit}\n- train.lock sha256 {}\n- verdict: {}\n",
        redacted(&args.url),
        lock.digest(),
        verdict.map_or("none".to_owned(), |v| format!("{v:?}").to_lowercase()),
    );
    if let Some((runs, run)) = run {
        let machine = &run.machine;
        text.push_str(&format!(
            "- machine: {}, {} cpus, {}, {}\n\n## Steps\n\n",
            machine.cpu, machine.cpus, machine.kernel, machine.libc
        ));
        for step in &run.steps {
            let judged = run.judged.iter().find(|j| j.step == step.step);
            let words = judged.map_or("not compared".to_owned(), |j| j.finding.to_string());
            text.push_str(&format!(
                "- **{}**: {}, {words}\n",
                step.step,
                step.outcome.as_deref().unwrap_or("not tried")
            ));
            if let Some(isolation) = &step.isolation {
                text.push_str(&format!("  - isolation: {isolation}\n"));
            }
            for output in &step.outputs {
                text.push_str(&format!("  - `{}` sha256 {}\n", output.path, output.sha256));
            }
            for (name, value) in &step.metrics {
                text.push_str(&format!("  - {name} = {value}\n"));
            }
        }
        for entry in fs::read_dir(runs)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
    }
    fs::write(folder.join("report.md"), text)?;
    Ok(folder)
}
