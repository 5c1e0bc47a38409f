//! A member's locked tools and packages as a folder of the project, for commands that are no steps.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::project::{Locking, Project};
use crate::ui::Ui;
use fs_err as fs;
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trainlock_env::sandbox::Bind;
use trainlock_env::{Invocation, Sandbox, Stage, Stop, Tier, Tool};
use trainlock_types::{Digest, RelPath, is_python};

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
    /// What of this machine a sandbox has to show for them.
    shown: Vec<PathBuf>,
    project: Project,
    /// Whether the interpreter is one of the store, in which nothing may be written: root could.
    of_store: bool,
}

impl Place {
    /// Runs a command with what is here and the project's folder, and nothing else of this machine: no network, an empty
    /// home. What it prints goes to standard output.
    /// The command's exit code, 128 and the signal's number if one ended it.
    pub(crate) fn run_shut_in(self, command: &[String]) -> Result<i32, Failure> {
        let session = self.project.store.session()?;
        let stage = Stage::new(session.work_dir("run")?, &RelPath::root());
        let stage = stage.map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        let tier = trainlock_env::sandbox::probe(&session.work_dir("probe")?).best();
        if !matches!(tier, Tier::Namespaces | Tier::Bwrap) {
            return Err(Failure::new(Exit::Failed, "this machine has no sandbox that could shut the command in")
                .hint("`trainlock doctor` says what it lacks"));
        }
        let mut sandbox = Sandbox::new(tier, stage.folder(), "run");
        sandbox.read_only = self.shown.into_iter().chain([self.folder.clone()]).map(Bind::same).collect();
        let root = fs::canonicalize(&self.project.workspace.root)?;
        let folder = fs::canonicalize(".").ok().filter(|folder| folder.starts_with(&root));
        sandbox.shared = vec![root.clone()];
        let mut environment = sandbox.paths().variables();
        let bin = self.folder.join("bin");
        let path = format!("{}:{}", bin.display(), trainlock_env::STEP_PATH);
        if !self.packages.is_empty() {
            environment.insert("VIRTUAL_ENV".to_owned(), self.folder.display().to_string());
        }
        let folder = folder.unwrap_or(root);
        let program = match command[0].contains('/') {
            true => folder.join(&command[0]),
            false => path.split(':').map(|at| Path::new(at).join(&command[0])).find(|p| p.exists()).ok_or_else(|| {
                Failure::new(Exit::Failed, format!("there is no `{}`", command[0]))
                    .hint("it is looked for among the locked tools and packages, then where the system keeps its programs")
            })?,
        };
        environment.insert("PATH".to_owned(), path);
        let arguments = command[1..].to_vec();
        let sandbox = Some(sandbox);
        let step = Invocation { program, arguments, folder, environment, timeout: None, sandbox };
        let cancel = self.project.cancel();
        // Whoever closed the pipe has enough.
        let ended = trainlock_env::run(&step, &cancel, |bytes| drop(io::stdout().write_all(bytes)));
        session.discard(stage.folder())?;
        let ended = ended.map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        Ok(match ended.stop {
            Stop::Exited(code) => code,
            Stop::Signaled(signal) => 128 + signal,
            Stop::TimedOut | Stop::Cancelled => Exit::Interrupted as i32,
        })
    }

    /// What a command's environment gets of it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.display().to_string();
        let mut variables = vec![("PATH", format!("{folder}/bin:{}", self.path))];
        if !self.packages.is_empty() {
            variables.push(("VIRTUAL_ENV", folder));
        }
        if self.of_store {
            variables.push(("PYTHONDONTWRITEBYTECODE", "1".to_owned()));
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
    let private = project.private();
    let private: Vec<&Path> = private.iter().map(PathBuf::as_path).collect();
    let mut shown: Vec<PathBuf> = equipment.tools.iter().flat_map(|(_, tool)| tool.shown(&private)).collect();
    shown.extend(environment.map(|environment| environment.packages.clone()));
    let of_store = matches!(equipment.python(), Some(Tool::Fetched(python)) if python.place.get().is_some());
    Ok(Place { folder, tools, packages, path, shown, project, of_store })
}
