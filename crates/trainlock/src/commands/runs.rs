//! `trainlock runs`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::project;
use crate::ui::Ui;
use trainlock_run::record::{self, RunRecord, Status};
use trainlock_types::{HumanDuration, HumanSize, nearest};

/// List the runs of this workspace, or show one
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock runs\n  trainlock runs show last\n  trainlock runs show 20261122T205204Z-1f3a --json"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the runs, newest first
    List {
        /// How many at most
        #[arg(short, long, default_value = "20")]
        number: usize,
    },
    /// Show one run: params, data, tools, steps, metrics
    Show {
        /// The run's id, its beginning, or `last`
        #[arg(default_value = "last")]
        id: String,
    },
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let runs = project::load(global)?.root.join(".trainlock/runs");
    match &args.what {
        None => list(&runs, 20, ui),
        Some(What::List { number }) => list(&runs, *number, ui),
        Some(What::Show { id }) => show(&runs, id, ui),
    }
}

fn list(runs: &std::path::Path, number: usize, ui: &Ui) -> Result<Exit, Failure> {
    let ids = record::ids(runs)?;
    for id in ids.iter().rev().take(number) {
        let run = match record::read(runs, id) {
            Ok(run) => run,
            Err(error) => {
                ui.warning(&error.to_string());
                continue;
            }
        };
        if ui.json() {
            ui.print_json(&run);
            continue;
        }
        let count = |outcome: &str| run.steps.iter().filter(|s| s.outcome.as_deref() == Some(outcome)).count();
        let cached = count("fresh") + count("restored");
        let metrics: Vec<String> =
            run.steps.iter().flat_map(|s| &s.metrics).take(4).map(|(n, v)| format!("{n} {v:.6}")).collect();
        let line = format!(
            "{id}  {:<11}  {:>8}  {} ran, {cached} cached, {} failed  {}",
            status(&run),
            HumanDuration(std::time::Duration::from_secs_f64(run.seconds.max(0.0))).to_string(),
            count("ran"),
            count("failed"),
            metrics.join(", "),
        );
        ui.print(line.trim_end());
    }
    if ids.is_empty() {
        ui.note("None", "no run yet: `trainlock train` makes one");
    }
    Ok(Exit::Done)
}

fn status(run: &RunRecord) -> &'static str {
    match run.status {
        Status::Running if run.was_killed() => "killed",
        Status::Running => "running",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Interrupted => "interrupted",
    }
}

fn show(runs: &std::path::Path, wanted: &str, ui: &Ui) -> Result<Exit, Failure> {
    let ids = record::ids(runs)?;
    let found: Vec<&String> = match wanted {
        "last" => ids.last().into_iter().collect(),
        _ => ids.iter().filter(|id| id.starts_with(wanted)).collect(),
    };
    let id = match found[..] {
        [id] => id,
        [] => {
            let failure = Failure::new(Exit::Failed, format!("no run `{wanted}`"));
            return Err(match nearest(wanted, ids.iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("`trainlock runs` lists them"),
            });
        }
        _ => {
            return Err(Failure::new(Exit::Failed, format!("`{wanted}` is the beginning of {} runs", found.len())));
        }
    };
    let run = record::read(runs, id)?;
    if ui.json() {
        ui.print_json(&run);
        return Ok(Exit::Done);
    }
    let mut text = format!(
        "run       {}\nstatus    {}\ncommand   {}\nstarted   {}\n",
        run.id,
        status(&run),
        run.command.join(" "),
        run.started
    );
    let seconds = HumanDuration(std::time::Duration::from_secs_f64(run.seconds.max(0.0)));
    text.push_str(&format!("took      {seconds}\n"));
    if let Some(git) = &run.git {
        text.push_str(&format!("commit    {}{}\n", git.commit, if git.dirty { " (with changes)" } else { "" }));
    }
    if let Some(profile) = &run.profile {
        text.push_str(&format!("profile   {profile}\n"));
    }
    for (name, value) in &run.set {
        text.push_str(&format!("set       {name} = {value}\n"));
    }
    let machine = &run.machine;
    text.push_str(&format!(
        "machine   {}, {} cpus, {}, {}, {}\n",
        machine.cpu,
        machine.cpus,
        HumanSize(machine.memory),
        machine.kernel,
        machine.libc
    ));
    for tool in &run.tools {
        text.push_str(&format!("tool      {} {} ({})\n", tool.name, tool.version, tool.program));
    }
    for data in &run.data {
        text.push_str(&format!(
            "data      {} {} {}\n",
            data.name,
            &data.sha256[..data.sha256.len().min(12)],
            data.source
        ));
    }
    for (project, params) in &run.params {
        for (name, value) in params {
            text.push_str(&format!("param     {project}: {name} = {value}\n"));
        }
    }
    for step in &run.steps {
        let time = step.seconds.map(|s| format!(" in {s:.2}s")).unwrap_or_default();
        let why = if step.why.is_empty() { String::new() } else { format!(" ({})", step.why.join("; ")) };
        text.push_str(&format!(
            "step      {} {}{time}{why}\n",
            step.step,
            step.outcome.as_deref().unwrap_or("not decided")
        ));
        if let Some(error) = &step.error {
            text.push_str(&format!("            {error}\n"));
        }
        for output in &step.outputs {
            text.push_str(&format!(
                "            {} {} {}\n",
                &output.sha256[..output.sha256.len().min(12)],
                HumanSize(output.size),
                output.path
            ));
        }
        for (name, value) in &step.metrics {
            text.push_str(&format!("            {name} = {value}\n"));
        }
    }
    ui.print(&text);
    Ok(Exit::Done)
}
