//! A member's locked tools and packages as a folder of the project, for commands that are no steps.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{Locking, Project};
use crate::ui::Ui;
use fs_err as fs;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use trainlock_types::{Digest, is_python};

/// The folder, and what it leads to.
#[derive(Debug)]
pub(crate) struct Place {
    /// What Python takes for a virtual environment; its `bin` has the tools too.
    pub(crate) folder: PathBuf,
    /// Name, version and program of each tool.
    pub(crate) tools: Vec<(String, String, PathBuf)>,
    /// Name and version of each package.
    pub(crate) packages: Vec<(String, String)>,
    path: String,
}

impl Place {
    /// What a command's environment gets of it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.display().to_string();
        let mut variables = vec![("PATH", format!("{folder}/bin:{}", self.path))];
        if !self.packages.is_empty() {
            variables.push(("VIRTUAL_ENV", folder));
        }
        variables
    }
}

/// Brings and builds what one member is equipped with, and lays it out in the project's own folder.
pub(crate) fn make(
    global: &Global,
    select: &Select,
    profile: Option<&str>,
    options: LockOptions,
    ui: &Ui,
) -> Result<Place, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(select)?;
    let [member] = members[..] else {
        return Err(Failure::new(Exit::Invalid, "this is about one project of the workspace").hint("name it: -p NAME"));
    };
    let lock = project.lock(Locking::from(options), options.offline(), ui)?;
    let workspace = Arc::clone(&project.workspace);
    let member = &workspace.members[member];
    member.params_for(profile).map_err(|error| Failure::from_error(Exit::Invalid, &error))?;
    let equipment = project.equipment_of(&lock, std::iter::once((member, None)), profile)?;
    let outfit = (member.name.clone(), None);
    project.equip(&lock, &equipment, &BTreeSet::from([outfit.clone()]), (options.offline(), None), ui)?;
    let Some(equipment) = equipment.get(&outfit) else { unreachable!("it was asked for") };
    let environment = equipment.environment();

    let tools: Vec<(String, String, PathBuf)> = equipment
        .tools
        .iter()
        .filter_map(|(name, tool)| Some((name.to_string(), tool.version().to_owned(), tool.program()?.to_owned())))
        .collect();
    let selected = equipment.packages.iter().flat_map(|packages| &packages.selected);
    let packages = selected.map(|s| (s.name.clone(), s.version.clone())).collect();
    // Whatever it leads to is in its name: what is there already is right.
    let packages_at = environment.map(|e| e.packages.display().to_string()).unwrap_or_default();
    let key = Digest::of(format!("{tools:?} {packages_at}").as_bytes()).short();
    let folder = project.own_folder()?.join("env").join(member.name.as_str()).join(key);
    if !folder.is_dir() {
        let parent = folder.parent().unwrap_or(&folder);
        fs::create_dir_all(parent)?;
        let temporary = tempfile::tempdir_in(parent)?;
        let at = temporary.path().join("env");
        match environment {
            Some(environment) => environment.lay_out(&at, &folder, &environment.packages)?,
            None => fs::create_dir_all(at.join("bin"))?,
        }
        for (name, _, program) in tools.iter().filter(|(name, ..)| environment.is_none() || !is_python(name)) {
            fs::os::unix::fs::symlink(program, at.join("bin").join(name))?;
        }
        // Another process may have been faster, with the same.
        if let Err(error) = fs::rename(&at, &folder)
            && !folder.is_dir()
        {
            return Err(error.into());
        }
    }
    let path = project.settings.path.to_string_lossy().into_owned();
    Ok(Place { folder, tools, packages, path })
}
