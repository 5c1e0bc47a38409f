//! `trainlock doctor`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use crate::ui::Ui;
use serde_json::json;
use trainlock_env::determinism::missing_features;
use trainlock_env::sandbox::{Tier, probe_all};
use trainlock_env::{Isolation, Machine, Sandbox};
use trainlock_store::Store;

/// Say what this machine can guarantee
///
/// And what to do about what it can't. Every way of shutting a step in is tried, with a file and a listening socket that must be out of its reach.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trainlock doctor\n  trainlock doctor --json")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let settings = Settings::read(global)?;
    let store = Store::open(&settings.store)?;
    let session = store.session()?;
    let scratch = session.work_dir("probe")?;
    let probe = probe_all(&scratch);
    let best = probe.best();
    let isolation = match best {
        Tier::None => Isolation::none("this machine offers nothing"),
        tier => Sandbox::new(tier, &scratch, "probe").isolation(),
    };
    session.finish(false)?;
    let machine = Machine::here();
    let levels: Vec<(&str, Vec<&str>)> =
        ["x86-64-v2", "x86-64-v3", "armv8-a"].into_iter().map(|level| (level, missing_features(level))).collect();
    if ui.json() {
        ui.print_json(&json!({
            "tiers": probe.trials.iter().map(|t| json!({ "tier": t.tier, "stopped": t.stopped })).collect::<Vec<_>>(),
            "isolation": isolation,
            "levels": levels.iter().map(|(level, missing)| json!({ "level": level, "missing": missing })).collect::<Vec<_>>(),
            "machine": machine,
        }));
        return Ok(Exit::Done);
    }
    let mut text =
        format!("machine     {}, {} cpus, {}, {}\n", machine.cpu, machine.cpus, machine.kernel, machine.libc);
    for gpu in &machine.gpus {
        text.push_str(&format!("gpu         {gpu}\n"));
    }
    for trial in &probe.trials {
        let words = match &trial.stopped {
            None => "works".to_owned(),
            Some(why) => format!("does not work: {why}"),
        };
        text.push_str(&format!("tier        {:<11} {words}\n", trial.tier.to_string()));
    }
    text.push_str(&format!("steps       run in tier `{best}`\n"));
    for (name, guarantee) in isolation.guarantees() {
        text.push_str(&format!("            {name:<11} {guarantee}\n"));
    }
    for (level, missing) in &levels {
        let words =
            if missing.is_empty() { "can run here".to_owned() } else { format!("lacks {}", missing.join(", ")) };
        text.push_str(&format!("level       {level:<11} {words}\n"));
    }
    ui.print(&text);
    if let Some(why) = probe.trials.first().and_then(|t| t.stopped.as_deref()) {
        ui.note("Fix", advice(why));
    }
    Ok(Exit::Done)
}

/// What to do so that namespaces can be had.
fn advice(why: &str) -> &'static str {
    if why.contains("ENOSPC") {
        "user namespaces are limited to none: raise user.max_user_namespaces (sysctl), or install bubblewrap"
    } else if why.contains("EPERM") || why.contains("EACCES") {
        "a security module or the container's filter forbids user namespaces: install bubblewrap (its profile often allows them), on Ubuntu set kernel.apparmor_restrict_unprivileged_userns=0, in a container allow unshare and mount"
    } else if why.contains("ENOSYS") {
        "this kernel was built without namespaces: use another one"
    } else {
        "trainlock then runs steps in the strongest tier that works; `sandbox = \"required\"` refuses instead"
    }
}
