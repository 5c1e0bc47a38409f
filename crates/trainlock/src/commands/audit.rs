//! `trainlock audit`.

use crate::cli::{Global, Select};
use crate::exit::{Exit, Failure};
use crate::project;
use crate::ui::Ui;
use trainlock_env::determinism::{Finding, lint};
use trainlock_types::RelPath;

/// Look through the steps' sources for what makes results differ
///
/// Python files among the inputs are read for unseeded generators, unsorted listings, threads that sum in any
/// order, and the like. `# trainlock: ignore[rule]` on a line silences a rule there.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock audit\n  trainlock audit --strict     # in CI: exit code 1 if there is a finding"
)]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
    /// Fail if there is a finding
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let workspace = project::load(global)?;
    let members = project::selected(&workspace, &args.select)?;
    let plan = project::plan(&workspace, &members, &[])?;
    let is_python = |path: &&&RelPath| path.as_str().ends_with(".py");
    let (mut files, mut findings) = (0, 0);
    for path in plan.sources().iter().filter(is_python) {
        let text = String::from_utf8_lossy(&fs_err::read(path.on(&workspace.root))?).into_owned();
        files += 1;
        for finding in lint(path.as_str(), &text) {
            findings += 1;
            if ui.json() {
                ui.print_json(&finding);
                continue;
            }
            let Finding { path, line, column, rule, message, help, .. } = &finding;
            ui.print(&format!("{path}:{line}:{column}: {message} [{rule}]\n    {help}"));
        }
    }
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let words = format!("{} in {}", count(findings, "finding"), count(files, "Python file"));
    if findings > 0 && args.strict {
        return Err(Failure::new(Exit::Failed, words));
    }
    ui.status("Audited", words);
    Ok(Exit::Done)
}
