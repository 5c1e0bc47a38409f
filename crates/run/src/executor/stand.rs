//! Where a step stands: its stage, what it may see of the machine, its command and variables.

use super::local::{Complaint, ExecuteError, Job, Shared};
use crate::bench::{IMAGE_SHELL, Place};
use crate::template::Command;
use crate::vary::{self, Variation};
use fs_err as fs;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use trainlock_env::determinism::{HostLibrary, SEED_GLOBALS, SELF_CHECK, host_libraries, judge, unasked};
use trainlock_env::python::Environment;
#[cfg(target_os = "linux")]
use trainlock_env::sandbox::Container;
use trainlock_env::sandbox::{Bind, Hub, PROJECTS, Paths, gpu_devices};
use trainlock_env::{
    Cancel, Ended, Engine, EngineKind, ImagePlace, Invocation, Isolation, ProcessError, Sandbox, Stage, Stop, Tier,
    gpu_edits,
};
use trainlock_store::{place_file, place_part, place_tree};
use trainlock_types::{Digest, Event, RelPath, is_python};

/// The python environment's folder beside the links to tools. A tool's name does not begin so.
const ENVIRONMENT: &str = ".env";

/// How often a container of docker's is looked for that is to be removed, and the time between.
const REMOVALS: usize = 10;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(500);

/// Where a step sees the installed packages.
fn packages_at(tier: Tier, environment: &Environment) -> PathBuf {
    match tier {
        Tier::Namespaces | Tier::Bwrap => Path::new(PROJECTS).join(".packages"),
        Tier::Landlock | Tier::None => environment.packages.clone(),
    }
}

impl Job<'_> {
    /// Lays the inputs into the stage.
    pub(super) fn lay_out(&self, shared: Shared<'_>, stage: &Stage) -> Result<(), ExecuteError> {
        let store = shared.store;
        for place in &self.places {
            match place {
                Place::Source { path, entry } => {
                    stage.copy(&path.on(self.root), path, entry)?;
                }
                Place::Object { path, sha256, executable } => {
                    place_file(store, sha256, *executable, &stage.place(path)?, shared.link)?;
                }
                Place::Tree { path, tree } => {
                    place_tree(store, tree, &stage.place(path)?, shared.link)?;
                }
                Place::Files { path, tree, files } => {
                    for file in files {
                        let to = stage.place(&path.join(&file.path))?;
                        place_part(store, tree, file, &to, shared.link)?;
                    }
                }
                Place::Repository { .. } => unreachable!("settled before the job was made"),
            }
        }
        for output in &self.node.step.outputs {
            stage.place(&output.path)?;
        }
        if self.variation() == Some(Variation::Order) {
            vary::reorder(&stage.path(&RelPath::root()))?;
        }
        Ok(())
    }

    /// The folders that the step may write to: those that hold its outputs.
    pub(super) fn writable(&self) -> BTreeSet<RelPath> {
        self.node.step.outputs.iter().map(|output| output.path.parent().unwrap_or_else(RelPath::root)).collect()
    }

    /// What the step may see and do.
    pub(super) fn sandbox(&self, stage: &Stage, audit: bool) -> Sandbox {
        let step = self.node.step;
        let mut sandbox = Sandbox::new(self.tier, stage.folder(), self.node.member.name.as_str());
        sandbox.writable = self.writable().into_iter().collect();
        let private: Vec<&Path> = self.private.iter().map(PathBuf::as_path).collect();
        let shown: BTreeSet<PathBuf> = self.equipment.tools.iter().flat_map(|(_, tool)| tool.shown(&private)).collect();
        sandbox.read_only = shown.into_iter().map(Bind::same).collect();
        sandbox.root = self.equipment.image().map(|image| image.root.clone());
        if let Some(environment) = self.equipment.environment() {
            let to = packages_at(self.tier, environment);
            sandbox.read_only.push(Bind { from: environment.packages.clone(), to });
        }
        if step.resources.gpus > 0 {
            sandbox.devices = gpu_devices();
            if self.equipment.image.is_some() {
                let edits = gpu_edits(&self.gpus);
                sandbox.devices.extend(edits.devices);
                sandbox.devices.sort();
                sandbox.devices.dedup();
                sandbox.read_only.extend(edits.binds);
                sandbox.links = edits.links;
            }
        }
        sandbox.network = step.network;
        sandbox.memory = step.resources.memory;
        sandbox.audit = audit;
        sandbox.hub.clone_from(&self.hub);
        match self.variation() {
            Some(Variation::Hostname) => sandbox.hostname = "elsewhere".to_owned(),
            Some(Variation::Umask) => sandbox.umask = 0o077,
            _ => {}
        }
        sandbox
    }

    /// How the step was shut in.
    pub(super) fn isolation(&self, ended: &Ended) -> Isolation {
        match &ended.sandbox {
            Some(report) => report.isolation.clone(),
            None => Isolation::none(self.unshut.as_deref().unwrap_or("this machine offers nothing")),
        }
    }

    /// The machine's libraries and programs that the step mapped, each with its digest: what is not locked and was
    /// used all the same.
    pub(super) fn libraries(&self, ended: &Ended) -> Vec<HostLibrary> {
        let Some(report) = &ended.sandbox else { return Vec::new() };
        // An image's own are locked with it.
        if self.equipment.image().is_some() {
            return Vec::new();
        }
        host_libraries(&report.mapped, |path| self.met.digest(path))
    }

    /// How the step is started.
    pub(super) fn invocation(
        &self,
        stage: &Stage,
        command: &Command,
        sandbox: Sandbox,
    ) -> Result<Invocation, ExecuteError> {
        let step = self.node.step;
        let paths = sandbox.paths();
        // Where there are packages, the interpreter is the one of their environment.
        let environment = self.equipment.environment();
        let tools = self.equipment.tools.iter().filter(|(name, _)| environment.is_none() || !is_python(name));
        stage.link_tools(tools.filter_map(|(name, tool)| Some((name.as_str(), tool.program()?))))?;
        if let Some(environment) = environment {
            let at = stage.folder().join("bin").join(ENVIRONMENT);
            environment.lay_out(&at, &paths.bin.join(ENVIRONMENT), &packages_at(self.tier, environment))?;
        }
        let level = self.switches.as_ref().map(|s| s.level.as_str()).unwrap_or_default();
        if let Some(model) = self.variation().and_then(|variation| variation.processor(level)) {
            for (name, tool) in &self.equipment.tools {
                let Some(program) = tool.program() else { continue };
                let in_environment = environment.is_some() && is_python(name);
                // An environment is found by the name that its interpreter is called by.
                let called = in_environment.then(|| paths.bin.join(ENVIRONMENT).join("bin/.python"));
                let Some(script) = vary::emulated(program, called.as_deref(), model) else { continue };
                if !in_environment {
                    stage.replace_tool(name, &script)?;
                    continue;
                }
                let bin = Path::new(ENVIRONMENT).join("bin");
                fs::os::unix::fs::symlink(program, stage.folder().join("bin").join(&bin).join(".python"))?;
                for name in ["python", "python3"] {
                    stage.replace_tool(&bin.join(name).to_string_lossy(), &script)?;
                }
            }
        }
        let environment = self.environment(stage, &paths)?;
        let folder = self.node.member.dir.on(&paths.root);
        let (program, arguments) = match command {
            Command::Shell(script) => {
                let shell = if self.equipment.image.is_some() { &IMAGE_SHELL } else { self.shell };
                let options = shell.options.iter().map(|o| (*o).to_owned());
                (shell.program.clone(), options.chain([script.clone()]).collect())
            }
            Command::Exec(words) => {
                (find_program(&words[0], stage, &paths, &folder, self.equipment.image()), words[1..].to_vec())
            }
        };
        let sandbox = (self.tier != Tier::None).then_some(sandbox);
        Ok(Invocation { program, arguments, folder, environment, timeout: step.timeout, sandbox })
    }

    /// The engine's command line for a step, and the one that removes what is left of it where it was ended.
    #[cfg(target_os = "linux")]
    pub(super) fn handed_over(
        &self,
        shared: Shared<'_>,
        stage: &Stage,
        step: Invocation,
        engine: &Engine,
    ) -> Result<(Invocation, Option<Invocation>), ExecuteError> {
        let (Some(image), Some(sandbox)) = (self.equipment.image(), &step.sandbox) else { return Ok((step, None)) };
        if engine.kind == EngineKind::Runc {
            // It makes folders to mount on.
            place_tree(shared.store, &image.tree, &stage.folder().join("rootfs"), shared.link)?;
        }
        let name = stage.folder().file_name().unwrap_or_default().to_string_lossy();
        // Steps of other projects have stages of the same name, elsewhere.
        let place = Digest::of(stage.folder().as_os_str().as_encoded_bytes()).short();
        let name = format!("trainlock-{}-{place}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        let container = Container { engine, image: image.handed.as_deref().unwrap_or_default(), name: &name };
        let handed = container.invocation(&step, sandbox).map_err(ProcessError::Sandbox)?;
        let removal = container.removal().map(|arguments| Invocation { arguments, timeout: None, ..handed.clone() });
        Ok((handed, removal))
    }

    /// Removes what is left of a container. docker's daemon goes on with what its client asked for before it was ended, so that
    /// a container may be there only after a while.
    pub(super) fn remove(&self, removal: &Invocation) -> Result<(), ExecuteError> {
        let of_daemon = self.engine.as_ref().is_some_and(|engine| engine.kind == EngineKind::Docker);
        for attempt in 0..if of_daemon { REMOVALS } else { 1 } {
            if attempt > 0 {
                std::thread::sleep(BETWEEN_REMOVALS);
            }
            let mut told = Vec::new();
            trainlock_env::run(removal, &Cancel::new()?, |bytes| told.extend_from_slice(bytes))?;
            let told = String::from_utf8_lossy(&told);
            if told.lines().any(|line| removal.arguments.last().is_some_and(|name| line == name)) {
                break;
            }
        }
        Ok(())
    }

    /// Engines are driven on Linux alone.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn handed_over(
        &self,
        _: Shared<'_>,
        _: &Stage,
        step: Invocation,
        _: &Engine,
    ) -> Result<(Invocation, Option<Invocation>), ExecuteError> {
        Ok((step, None))
    }

    /// Asks the numeric libraries whether the level's switches took effect, where the step has Python packages; once for
    /// all steps of a run with the same interpreter, packages and switches. What is wrong, if something is.
    pub(super) fn self_check(
        &self,
        shared: Shared<'_>,
        invocation: &Invocation,
    ) -> Result<Option<Complaint>, ExecuteError> {
        let Some(switches) = self.switches.as_ref().filter(|s| !s.variables.is_empty()) else { return Ok(None) };
        let python = self.equipment.tools.iter().find(|(name, _)| is_python(name));
        let packages = match self.equipment.environment() {
            Some(environment) => Some(environment.packages.display().to_string()),
            None => self.node.step.env.get("PYTHONPATH").cloned(),
        };
        let (Some((python, tool)), Some(packages)) = (python, packages) else {
            return Ok(None);
        };
        if self.variation().is_some() || !self.met.is_new(format!("{:?}\n{packages}\n{switches:?}", tool.program())) {
            return Ok(None);
        }
        let bin = invocation.environment.get("PATH").and_then(|path| path.split(':').next()).unwrap_or_default();
        let mut check = invocation.clone();
        check.program = match self.equipment.environment() {
            Some(_) => Path::new(bin).join(ENVIRONMENT).join("bin/python"),
            None => Path::new(bin).join(python.as_str()),
        };
        check.arguments = vec!["-c".to_owned(), SELF_CHECK.to_owned()];
        let mut printed = Vec::new();
        let cancel: &Cancel = shared.cancel;
        let ended = trainlock_env::run(&check, cancel, |bytes| printed.extend_from_slice(bytes))?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        // Where the packages themselves can't be imported, the step says so better.
        if ended.stop != Stop::Exited(0) {
            return Ok(None);
        }
        let unasked = unasked(&printed);
        if !unasked.is_empty() {
            let message = format!(
                "step `{}`: {} can't be imported, so that nothing says whether the switches of level `{}` take effect there",
                self.node.id,
                unasked.join(" and "),
                switches.level
            );
            shared.events.emit(Event::Warning { message });
        }
        // A variable that the step sets itself is what is wanted.
        let wanted = switches.variables.iter().filter(|(name, _)| !self.node.step.env.contains_key(*name));
        let wanted: BTreeMap<String, String> = wanted.map(|(n, v)| (n.clone(), v.clone())).collect();
        match judge(&wanted, &printed) {
            Ok(problems) if problems.is_empty() => Ok(None),
            Ok(problems) => Ok(Some((
                format!("would not compute as its level `{}` says: {}", switches.level, problems.join("; ")),
                Some("`trainlock update` takes the newest switches into the lock; level = \"machine\" or \"off\" demand less".to_owned()),
            ))),
            Err(_) => Ok(None),
        }
    }

    /// All variables of the step.
    fn environment(&self, stage: &Stage, paths: &Paths) -> Result<BTreeMap<String, String>, ExecuteError> {
        let step = self.node.step;
        let mut params = self.params.clone();
        if !params.keys().any(|name| name == "seed" || name.starts_with("seed.")) {
            params.insert("seed".to_owned(), trainlock_types::Value::Int(self.seed as i64));
        }
        stage.write("params.json", &(crate::template::nested(&params).to_json() + "\n"))?;
        let mut environment = paths.variables();
        if self.equipment.environment().is_some() {
            let own = paths.bin.join(ENVIRONMENT);
            let (bin, rest) = (paths.bin.to_string_lossy(), trainlock_env::STEP_PATH);
            environment.insert("PATH".to_owned(), format!("{bin}:{}/bin:{rest}", own.display()));
            environment.insert("VIRTUAL_ENV".to_owned(), own.to_string_lossy().into_owned());
        }
        if let Some(image) = self.equipment.image() {
            let path = format!("{}:{}", paths.bin.to_string_lossy(), image.path());
            environment.insert("PATH".to_owned(), path);
            for (name, value) in &image.variables {
                environment.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        environment.extend(self.switches.iter().flat_map(|s| s.variables.clone()));
        if self.hub.is_some() {
            environment.extend(Hub::variables(paths));
        }
        environment.extend(step.env.clone());
        let own = [
            ("TRAINLOCK_PARAMS", paths.params.to_string_lossy().into_owned()),
            ("TRAINLOCK_SEED", self.seed.to_string()),
            ("TRAINLOCK_STEP", step.name.to_string()),
            ("TRAINLOCK_PROJECT", self.node.member.name.to_string()),
        ];
        environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
        if self.node.member.determinism.seed_globals {
            let shim = stage.folder().join("bin/.seed");
            fs::create_dir_all(&shim)?;
            fs::write(shim.join("sitecustomize.py"), SEED_GLOBALS)?;
            let path = environment.entry("PYTHONPATH".to_owned()).or_default();
            let rest = if path.is_empty() { String::new() } else { format!(":{path}") };
            *path = format!("{}{rest}", paths.bin.join(".seed").display());
        }
        if step.resources.gpus > 0 {
            let ids: Vec<String> = self.gpus.iter().map(u32::to_string).collect();
            environment.insert("CUDA_VISIBLE_DEVICES".to_owned(), ids.join(","));
            if self.equipment.image.is_some() {
                for (name, value) in gpu_edits(&self.gpus).variables {
                    environment.entry(name).or_insert(value);
                }
            }
        }
        if let Some(variation) = self.variation() {
            variation.environment(&mut environment);
        }
        Ok(environment)
    }
}

/// What a run has met, for all its jobs.
#[derive(Debug, Default)]
pub(crate) struct Met {
    digests: Mutex<HashMap<PathBuf, Digest>>,
    checked: Mutex<BTreeSet<String>>,
}

impl Met {
    /// The digest of a file of the machine, hashed once a run.
    fn digest(&self, path: &Path) -> std::io::Result<Digest> {
        if let Some(known) = self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(*known);
        }
        let (digest, _) = trainlock_store::hash_file(path).map_err(std::io::Error::other)?;
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), digest);
        Ok(digest)
    }

    /// Whether this environment was not checked before.
    fn is_new(&self, environment: String) -> bool {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(environment)
    }
}

/// The file of a program that a step names, as the step sees it: with a `/`, from the step's folder; else a tool of the
/// project, then the system's or the image's.
fn find_program(word: &str, stage: &Stage, paths: &Paths, folder: &Path, image: Option<&ImagePlace>) -> PathBuf {
    if word.contains('/') {
        return folder.join(word);
    }
    for bin in [PathBuf::new(), Path::new(ENVIRONMENT).join("bin")] {
        if fs::symlink_metadata(stage.folder().join("bin").join(&bin).join(word)).is_ok() {
            return paths.bin.join(bin).join(word);
        }
    }
    let good = |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let system = match image {
        // Its links lead to places within it.
        Some(image) => image
            .path()
            .split(':')
            .map(|folder| Path::new(folder).join(word))
            .find(|file| good(&image.root.join(file.strip_prefix("/").unwrap_or(file)))),
        None => trainlock_env::STEP_PATH.split(':').map(|folder| Path::new(folder).join(word)).find(good),
    };
    system.unwrap_or_else(|| PathBuf::from(word))
}
