//! `trainlock store`.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::locking;
use crate::settings::Settings;
use crate::ui::Ui;
use serde_json::json;
use trainlock_store::{Checked, Freed, Store, VerifyReport};
use trainlock_types::HumanSize;

/// Look at the machine's store, check it, or free what nothing uses
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock store dir\n  trainlock store size\n  trainlock store verify\n  trainlock store gc --dry-run"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the store's folder
    Dir,
    /// Print how much it holds
    Size,
    /// Hash everything again; remove and name what is damaged
    Verify,
    /// Remove what no known project uses
    ///
    /// A project uses what its train.lock pins, and the last result of each of its steps.
    Gc {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let settings = Settings::read(global)?;
    if matches!(args.what, What::Dir) {
        ui.print(&settings.store.display().to_string());
        return Ok(Exit::Done);
    }
    let store = Store::open(&settings.store)?;
    match args.what {
        What::Dir => unreachable!("answered above"),
        What::Size => size(&store, ui),
        What::Verify => verify(&store, ui),
        What::Gc { dry_run } => gc(&store, dry_run, ui),
    }
}

fn size(store: &Store, ui: &Ui) -> Result<Exit, Failure> {
    let usage = store.size()?;
    if ui.json() {
        let part = |count: u64, bytes: u64| json!({ "count": count, "bytes": bytes });
        ui.print_json(&json!({
            "objects": part(usage.objects, usage.object_bytes),
            "trees": part(usage.trees, usage.tree_bytes),
            "results": part(usage.results, usage.result_bytes),
        }));
        return Ok(Exit::Done);
    }
    let line = |what: &str, count: u64, bytes: u64| format!("{what:8} {count:>8}  {}\n", HumanSize(bytes));
    let text = line("objects", usage.objects, usage.object_bytes)
        + &line("trees", usage.trees, usage.tree_bytes)
        + &line("results", usage.results, usage.result_bytes);
    ui.print(&text);
    Ok(Exit::Done)
}

fn verify(store: &Store, ui: &Ui) -> Result<Exit, Failure> {
    let report = store.verify(|checked| {
        if let Checked::Damaged(path) = checked {
            ui.warning(&format!("damaged, removed: {}", path.display()));
        }
    })?;
    let VerifyReport { objects, trees, results, bytes, damaged } = &report;
    if ui.json() {
        let damaged: Vec<String> = damaged.iter().map(|p| p.display().to_string()).collect();
        ui.print_json(
            &json!({ "objects": objects, "trees": trees, "results": results, "bytes": bytes, "damaged": damaged }),
        );
    }
    if damaged.is_empty() {
        ui.status("Verified", format!("{objects} objects, {trees} trees, {results} results ({})", HumanSize(*bytes)));
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::Unverified, format!("{} damaged, and removed", damaged.len()))
        .hint("`trainlock fetch` and `trainlock train` bring back what is needed"))
}

fn gc(store: &Store, dry_run: bool, ui: &Ui) -> Result<Exit, Failure> {
    let live = locking::live(store)?;
    let freed = store.gc(&live, dry_run, || ui.note("Waiting", "for other trainlock processes that use the store"))?;
    let Freed { objects, trees, results, failed, bytes } = freed;
    if ui.json() {
        ui.print_json(&json!({ "objects": objects, "trees": trees, "results": results, "failed": failed, "bytes": bytes, "dry-run": dry_run }));
    }
    let verb = if dry_run { "Would free" } else { "Freed" };
    ui.status(
        verb,
        format!(
            "{} ({objects} objects, {trees} trees, {results} results, {failed} folders of failed steps)",
            HumanSize(bytes)
        ),
    );
    Ok(Exit::Done)
}
