//! `trainlock audit`.

mod inputs;
mod trust;

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{self, Project};
use crate::ui::Ui;
use serde::Serialize;
use serde_json::json;
use trainlock_env::determinism::lint;
use trainlock_run::Plan;
use trainlock_types::RelPath;

/// Look for what makes results differ, and for inputs that may be lost
///
/// Sources: Python files among the inputs are read for unseeded generators, unsorted listings, threads that sum in any
/// order, and the like. `# trainlock: ignore[rule]` on a line silences a rule there.
///
/// Addresses: every locked address is asked whether it still has as many bytes as are locked, and says the same of them; nothing is
/// downloaded.
///
/// Copies: on how many hosts each input lies, and whether this machine's store has it.
///
/// Trust: what in train.toml no hash of its publisher and no wall stands behind.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock audit\n  trainlock audit --strict     # in CI: exit code 1 if there is a finding\n  trainlock audit --offline    # ask nobody"
)]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
    /// Fail if there is a finding
    #[arg(long)]
    strict: bool,
    /// Use no network: addresses are not asked
    #[arg(long)]
    offline: bool,
}

/// The parts of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Sources,
    Addresses,
    Copies,
    Trust,
}

impl Section {
    const fn word(self) -> &'static str {
        match self {
            Section::Sources => "sources",
            Section::Addresses => "addresses",
            Section::Copies => "copies",
            Section::Trust => "trust",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Section::Sources => "Sources: what makes results differ from run to run",
            Section::Addresses => "Addresses: what they answer now, beside what is locked",
            Section::Copies => "Copies: where each input can be had",
            Section::Trust => "Trust: what nothing stronger stands behind",
        }
    }
}

/// What is said of an audit, and counted.
struct Report<'a> {
    ui: &'a Ui,
    section: Option<Section>,
    findings: usize,
    /// Addresses that have something else than is locked.
    differ: usize,
}

impl Report<'_> {
    /// Says something: as JSON with its section, else as text below the section's title.
    fn say(&mut self, section: Section, fact: &impl Serialize, text: &str) {
        if self.ui.json() {
            let mut fact = serde_json::to_value(fact).expect("facts are JSON");
            if let Some(fact) = fact.as_object_mut() {
                fact.insert("section".to_owned(), json!(section.word()));
            }
            self.ui.print_json(&fact);
            return;
        }
        if self.section != Some(section) {
            let before = if self.section.is_some() { "\n" } else { "" };
            self.ui.print(&format!("{before}{}", section.title()));
            self.section = Some(section);
        }
        self.ui.print(text);
    }

    /// The same for something that is to be put right.
    fn find(&mut self, section: Section, fact: &impl Serialize, text: &str) {
        self.findings += 1;
        self.say(section, fact, text);
    }
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    let mut report = Report { ui, section: None, findings: 0, differ: 0 };
    let plan = project::plan(&project.workspace, &members, &[])?;
    let files = sources(&project, &plan, &mut report)?;
    drop(plan);
    if project.workspace.root.join("train.lock").is_file() {
        let lock = project.lock_for_reading(LockOptions { locked: false, offline: true, frozen: false }, ui)?;
        inputs::audit(&project, &lock, &members, args.offline, &mut report)?;
        trust::audit(&project.workspace, Some(&lock), &members, &mut report);
    } else {
        ui.note("Unlocked", "there is no train.lock yet: addresses and copies are not looked at");
        trust::audit(&project.workspace, None, &members, &mut report);
    }
    let Report { findings, differ, .. } = report;
    let words = format!("{} ({} read)", count(findings, "finding"), count(files, "Python file"));
    if differ > 0 {
        let message = format!(
            "{} what is locked",
            if differ == 1 { "an address no longer has" } else { "addresses no longer have" }
        );
        return Err(Failure::new(Exit::Unverified, message).hint(
            "what is in the store or at another address still counts; `trainlock update NAME` takes what is there now",
        ));
    }
    if findings > 0 && args.strict {
        return Err(Failure::new(Exit::Failed, words));
    }
    ui.status("Audited", words);
    Ok(Exit::Done)
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Reads the plan's Python sources; how many there are.
fn sources(project: &Project, plan: &Plan<'_>, report: &mut Report<'_>) -> Result<usize, Failure> {
    let is_python = |path: &&&RelPath| path.as_str().ends_with(".py");
    let mut files = 0;
    for path in plan.sources().iter().filter(is_python) {
        let text = String::from_utf8_lossy(&fs_err::read(path.on(&project.workspace.root))?).into_owned();
        files += 1;
        for finding in lint(path.as_str(), &text) {
            let at = format!("{}:{}:{}", finding.path, finding.line, finding.column);
            let text = format!("{at}: {} [{}]\n    {}", finding.message, finding.rule, finding.help);
            report.find(Section::Sources, &finding, &text);
        }
    }
    Ok(files)
}
