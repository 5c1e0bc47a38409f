//! `trainlock init`.

use crate::exit::{Exit, Failure};
use crate::ui::Ui;
use std::path::{Path, PathBuf};
use trainlock_types::Name;

/// Write a commented train.toml that works
///
/// Files that are there already are never changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trainlock init\n  trainlock init --name digits experiments/digits")]
pub(crate) struct Args {
    /// The folder; made if it is not there
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The project's name [default: the folder's]
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Exit, Failure> {
    let folder = &args.folder;
    let manifest = folder.join("train.toml");
    if manifest.symlink_metadata().is_ok() {
        return Err(Failure::new(Exit::Invalid, format!("`{}` exists already", manifest.display())));
    }
    fs_err::create_dir_all(folder)?;
    let name = match &args.name {
        Some(name) => Name::project(name).map_err(|e| Failure::new(Exit::Invalid, format!("`{name}`: {e}")))?,
        None => name_of(folder)?,
    };
    write(&manifest, &include_str!("init.toml").replace("@NAME@", &name))?;
    ui.status("Created", format!("{} (project `{name}`)", manifest.display()));
    let attributes = folder.join(".gitattributes");
    if attributes.symlink_metadata().is_err() {
        // Two branches that add data sets next to each other then merge without a conflict; `trainlock lock` sorts and checks the result.
        write(&attributes, "train.lock merge=union linguist-generated\n")?;
        ui.status("Created", attributes.display());
    }
    ui.note("Next", "`trainlock train`, then commit train.toml and train.lock");
    Ok(Exit::Done)
}

/// Writes a file that is not there, all of it or nothing.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let mut options = fs_err::OpenOptions::new();
    let mut open = options.write(true).create_new(true).open(file)?;
    std::io::Write::write_all(&mut open, text.as_bytes()).inspect_err(|_| {
        let _ = fs_err::remove_file(file);
    })?;
    Ok(())
}

/// A project name made of the folder's.
fn name_of(folder: &Path) -> Result<Name, Failure> {
    let full = fs_err::canonicalize(folder)?;
    let text = full.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let text: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).collect();
    Name::project(text.trim_matches(['-', '_'])).map_err(|_| {
        Failure::new(Exit::Invalid, format!("no project name can be made of the folder's name `{}`", full.display()))
            .hint("give one: trainlock init --name NAME")
    })
}
