//! `trainlock env`.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::place;
use crate::ui::Ui;
use fs_err as fs;
use serde_json::json;
use std::path::PathBuf;

/// Show what the locked environment is made of, or give it to a shell or an editor
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock env\n  eval \"$(trainlock env --shell)\"\n  trainlock env --link .venv      # for editors"
)]
pub(crate) struct Args {
    /// Print the variables for a shell to take over
    #[arg(long)]
    shell: bool,
    /// Make this a link to the environment, which editors take for a virtual one
    #[arg(long, value_name = "PATH")]
    link: Option<PathBuf>,
    /// The profile whose python packages are taken
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let place = place::make(global, &args.select, args.profile.as_deref(), args.lock, ui)?;
    if let Some(link) = &args.link {
        let there = fs::symlink_metadata(link).ok();
        match there {
            Some(metadata) if metadata.is_symlink() => fs::remove_file(link)?,
            Some(_) => {
                return Err(Failure::new(Exit::Failed, format!("`{}` is there, and no link", link.display()))
                    .hint("move it away, or name another path"));
            }
            None => {}
        }
        fs::os::unix::fs::symlink(&place.folder, link)?;
        ui.status("Linked", link.display());
    }
    if args.shell {
        for (name, value) in place.variables() {
            let value = shlex::try_quote(&value).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?.into_owned();
            ui.print(&format!("export {name}={value}"));
        }
    } else if ui.json() {
        let tools: Vec<_> = place
            .tools
            .iter()
            .map(|(name, version, program)| json!({ "name": name, "version": version, "program": program }))
            .collect();
        let packages: Vec<_> =
            place.packages.iter().map(|(name, version)| json!({ "name": name, "version": version })).collect();
        ui.print_json(&json!({ "folder": place.folder, "tools": tools, "packages": packages }));
    } else if args.link.is_none() {
        for (name, version, program) in &place.tools {
            ui.print(&format!("tool     {name} {version}  {}", program.display()));
        }
        for (name, version) in &place.packages {
            ui.print(&format!("package  {name} {version}"));
        }
    }
    Ok(Exit::Done)
}
