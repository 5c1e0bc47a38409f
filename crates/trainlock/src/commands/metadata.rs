//! `trainlock metadata`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::project;
use crate::ui::Ui;
use serde_json::{Value, json};
use trainlock_manifest::{InputPattern, Member, Run};

/// Print what train.toml means, as JSON
///
/// For editors and scripts: members, data, tools, params and steps after inheritance and validation, with paths
/// relative to the workspace's root.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trainlock metadata | jq '.members[].steps[].name'")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let workspace = project::load(global)?;
    let value = json!({
        "version": 1,
        "root": workspace.root,
        "lock": workspace.root.join("train.lock"),
        "platforms": workspace.platforms,
        "members": workspace.members.iter().map(member).collect::<Vec<_>>(),
    });
    ui.print_json(&value);
    Ok(Exit::Done)
}

fn member(member: &Member) -> Value {
    let params = |params: &trainlock_types::Params| -> Value {
        params
            .iter()
            .map(|(name, value)| (name.clone(), project::json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let data: Vec<Value> = member
        .data
        .iter()
        .map(|d| json!({ "name": d.request.name, "to": d.request.to, "source": project::source_of(&d.request.source) }))
        .collect();
    let tools: Vec<Value> =
        member.tools.iter().map(|t| json!({ "name": t.request.name, "version": t.request.version })).collect();
    let steps: Vec<Value> = member
        .steps
        .iter()
        .map(|step| {
            let run = match &step.run {
                Run::Shell(template) => json!(template.written),
                Run::Exec(templates) => json!(templates.iter().map(|t| &t.written).collect::<Vec<_>>()),
            };
            let input = |i: &trainlock_manifest::Input| match &i.pattern {
                InputPattern::Path { path, folder } => json!({ "path": path, "folder": folder }),
                InputPattern::Glob { folder, glob } => json!({ "below": folder, "glob": glob }),
            };
            json!({
                "name": step.name,
                "run": run,
                "inputs": step.inputs.iter().map(input).collect::<Vec<_>>(),
                "outputs": step.outputs.iter().map(|o| json!({ "path": o.path, "folder": o.folder, "kind": o.kind.key() })).collect::<Vec<_>>(),
                "params": step.params,
                "needs": step.needs.iter().map(|n| json!([n.member, n.step])).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "name": member.name,
        "folder": member.dir,
        "version": member.version.to_string(),
        "description": member.description,
        "data": data,
        "tools": tools,
        "params": params(&member.params),
        "profiles": member.profiles.iter().map(|(n, p)| (n.to_string(), params(p))).collect::<serde_json::Map<_, _>>(),
        "seed": member.determinism.seed,
        "steps": steps,
    })
}
