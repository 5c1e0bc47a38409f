//! Python packages: resolved and installed by uv, which is itself a locked tool, and laid out for a step.
//!
//! uv is run as a program, with every setting given and none read from files. To resolve, it gets a project in a scratch
//! folder and answers with a `pylock.toml` (PEP 751); to install, it gets a `pylock.toml` whose files are those of the
//! store, verified before, and no network. What it installs is relocatable: [`Environment::lay_out`] makes a small folder
//! of links around it that Python takes for a virtual environment, wherever the packages themselves are seen.

mod layout;
mod pieces;
mod pylock;
mod requires;
mod select;

pub use layout::{Environment, has_programs};
pub use pieces::pieces;
pub use pylock::{Locked, LockedFile, PylockError};
pub use select::{Candidate, Offered, SelectError, Selected, Target};

use crate::cancel::Cancel;
use crate::process::{self, Invocation};
use crate::sandbox::{self, Sandbox, Tier};
use fs_err as fs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use trainlock_types::{
    Digest, PinnedFile, Platform, PythonRequest, RelPath, TakenKind, TakenLock, quoted, requirement_name,
};

/// How uv is run.
#[derive(Debug, Clone)]
pub struct Uv<'a> {
    /// The program.
    pub program: &'a Path,
    /// The interpreter that it works for.
    pub interpreter: &'a Path,
    /// Its cache, a folder of its own.
    pub cache: &'a Path,
    /// The package indexes, with credentials; the last is the default one.
    pub indexes: Vec<String>,
    /// The addresses of indexes that packages are taken from by name, without credentials.
    pub named: BTreeMap<String, String>,
    /// What it gets of the caller's environment: proxies, certificates, credentials.
    pub variables: BTreeMap<String, String>,
    /// Whether it may use the network.
    pub offline: bool,
}

/// Why uv did not do it.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// The file system refused.
    #[error("can't prepare the python packages")]
    Io(#[from] std::io::Error),
    /// uv could not be started.
    #[error("can't run `{program}`")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// uv says no; its own words.
    #[error("{0}")]
    Uv(String),
    /// What is installed does not fit together.
    #[error("they do not fit together:\n{}", .0.join("\n"))]
    Unmet(Vec<String>),
    /// What uv wrote is not what is expected of it.
    #[error("uv's answer can't be used")]
    Pylock(#[from] PylockError),
}

impl Uv<'_> {
    /// Resolves packages for all platforms of a request, in the scratch folder. `keep` are versions that stay where they can.
    ///
    /// # Errors
    /// uv's explanation, where the requirements contradict each other.
    pub fn resolve(
        &self,
        scratch: &Path,
        request: &PythonRequest,
        line: &str,
        keep: &[(String, String)],
        exclude_newer: Option<&str>,
    ) -> Result<Vec<Locked>, PythonError> {
        fs::write(scratch.join("pyproject.toml"), project(request, line, &self.named, keep))?;
        if !keep.is_empty() {
            fs::write(scratch.join("uv.lock"), preferences(keep, line))?;
        }
        let mut command = self.command(&["lock"]);
        command.current_dir(scratch);
        if let Some(newest) = exclude_newer {
            command.args(["--exclude-newer", newest]);
        }
        self.run(command)?;
        self.export(scratch, &[])
    }

    /// The packages of a lock of another tool, in the scratch folder: of a `uv.lock` as uv reads it, with the groups and extras that are wanted.
    ///
    /// # Errors
    /// If uv can't read it, or it holds what can't be pinned.
    pub fn take_over(&self, scratch: &Path, taken: &TakenLock, text: &str) -> Result<Vec<Locked>, PythonError> {
        if taken.kind == TakenKind::Pylock {
            return Ok(pylock::read(text)?);
        }
        fs::write(scratch.join("uv.lock"), text)?;
        fs::write(scratch.join("pyproject.toml"), pylock::stand_in(text)?)?;
        let mut words = vec!["--no-default-groups"];
        words.extend(taken.groups.iter().flat_map(|name| ["--group", name]));
        words.extend(taken.extras.iter().flat_map(|name| ["--extra", name]));
        Uv { offline: true, ..self.clone() }.export(scratch, &words)
    }

    fn export(&self, scratch: &Path, words: &[&str]) -> Result<Vec<Locked>, PythonError> {
        let mut command = self.command(&["export", "--frozen", "--format", "pylock.toml", "--no-emit-project"]);
        command.args(words).args(["--output-file", "pylock.toml"]).current_dir(scratch);
        self.run(command)?;
        Ok(pylock::read(&fs::read_to_string(scratch.join("pylock.toml"))?)?)
    }

    /// Installs packages into a new virtual environment at `to`, from the files that `packages` name: each with its marker, its
    /// pinned file, and where that lies. Verifies them once more and compiles them.
    pub fn install(
        &self,
        scratch: &Path,
        to: &Path,
        line: &str,
        packages: &[Installed<'_>],
    ) -> Result<(), PythonError> {
        let wheels = scratch.join("wheels");
        fs::create_dir_all(&wheels)?;
        for package in packages {
            // uv wants a wheel to bear its name.
            let file = wheels.join(&package.file.file);
            if fs::hard_link(package.at, &file).is_err() {
                fs::os::unix::fs::symlink(package.at, &file)?;
            }
        }
        let mut command = self.command(&["venv", "--relocatable", "--no-project", "--quiet"]);
        command.arg(to);
        self.run(command)?;
        let (wheels, built): (Vec<_>, Vec<_>) = packages.iter().partition(|p| p.file.file.ends_with(".whl"));
        // What is built is built by what is locked: the wheels are there first, and nothing is fetched for it.
        let rounds = if built.is_empty() { vec![wheels] } else { vec![wheels, packages.iter().collect()] };
        for round in rounds {
            fs::write(scratch.join("pylock.toml"), derived(&round))?;
            let mut command =
                self.command(&["pip", "sync", "--quiet", "--strict", "--compile-bytecode", "--link-mode", "hardlink"]);
            match built.is_empty() {
                true => command.arg("--no-build"),
                false => command.arg("--no-build-isolation"),
            };
            command.arg("pylock.toml").current_dir(scratch).env("VIRTUAL_ENV", to);
            // The files' times are about to be made all the same; a digest of the source would be checked at every import.
            command.env("PYC_INVALIDATION_MODE", "UNCHECKED_HASH");
            self.run(command)?;
        }
        Ok(layout::strip(to, line)?)
    }

    /// uv, with everything set and nothing else read.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(words).env_clear().stdin(Stdio::null());
        command.envs(&self.variables);
        command.args(["--no-config", "--no-progress", "--color", "never", "--no-python-downloads"]);
        if let Some((default, others)) = self.indexes.split_last().filter(|_| !self.offline) {
            // Not as arguments: other users of the machine can read those.
            command.env("UV_DEFAULT_INDEX", default).env("UV_INDEX", others.join(" "));
        }
        if self.offline {
            command.arg("--offline");
        }
        if words.first() != Some(&"pip") {
            command.arg("--python").arg(self.interpreter);
        }
        let settings = [
            ("UV_CACHE_DIR", self.cache.as_os_str()),
            ("UV_NO_ENV_FILE", "1".as_ref()),
            ("UV_SYSTEM_CERTS", "1".as_ref()),
            ("UV_NATIVE_TLS", "1".as_ref()),
            ("PATH", crate::STEP_PATH.as_ref()),
            ("LC_ALL", "C.UTF-8".as_ref()),
            // An interpreter of the store is as it was fetched; what is installed is compiled all the same.
            ("PYTHONDONTWRITEBYTECODE", "1".as_ref()),
        ];
        command.envs(settings);
        command
    }

    fn run(&self, mut command: Command) -> Result<(), PythonError> {
        let output =
            command.output().map_err(|source| PythonError::Start { program: self.program.to_owned(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        // What it says of how to declare what a build needs holds for its own projects.
        let text = text.split("hint: This error likely indicates").next().unwrap_or_default();
        // Some of its advice is about the project that it was given, which nobody sees.
        let lines = text.lines().filter(|l| !l.starts_with("Using CPython") && !l.contains("`tool.uv.environments`"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let text = text.replace("The `requires-python` value", "The version of Python");
        let text =
            text.replace("using a more restrictive `requires-python` value (like", "another `python` in [tools] (like");
        let text = text.replace("trainlock-project", "your project");
        let text = text.trim().trim_start_matches("error: ").trim_start_matches("× ").trim().to_owned();
        Err(PythonError::Uv(if text.is_empty() { format!("uv ended with {}", output.status) } else { text }))
    }
}

/// The builds of the interpreter that a uv knows, as it lists them: JSON, out of what it carries.
///
/// # Errors
/// If it can't be run, or fails.
pub fn list_builds(uv: &Path, cache: &Path) -> Result<String, PythonError> {
    let mut command = Command::new(uv);
    command.args([
        "python",
        "list",
        "--only-downloads",
        "--all-versions",
        "--all-platforms",
        "--output-format",
        "json",
    ]);
    command.args(["--no-config", "--offline", "--color", "never", "--cache-dir"]).arg(cache);
    command.env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    let output = command.output().map_err(|source| PythonError::Start { program: uv.to_owned(), source })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(PythonError::Uv(text(&output.stderr))) }
}

/// Compiles the standard library of the interpreter of a build, where that lies: all that steps may import. It is not looked at again whether
/// the sources are as they were. `program` is a path inside `build` (`python/bin/python3.12`). What the build holds is somebody's
/// code, and nobody has asked for it yet: it is run in a sandbox that has nothing but the build. Whether that came about: not on a
/// machine without one.
pub fn compile_library(build: &Path, program: &RelPath, scratch: &Path) -> bool {
    let program = program.on(build);
    let (Some(name), Some(root)) = (program.file_name(), program.parent().and_then(Path::parent)) else { return false };
    let library = root.join("lib").join(name);
    let tier = sandbox::probe(scratch).best();
    let stage = scratch.join("stage");
    let made = ["root", "tmp", "home"].iter().try_for_each(|folder| fs::create_dir_all(stage.join(folder)));
    let (Tier::Namespaces | Tier::Bwrap, Ok(()), Ok(cancel)) = (tier, made, Cancel::new()) else { return false };
    let mut sandbox = Sandbox::new(tier, &stage, "build");
    sandbox.shared.push(build.to_owned());
    let paths = sandbox.paths();
    let mut environment = paths.variables();
    environment.insert("PYTHONHASHSEED".to_owned(), "0".to_owned());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let words = ["-s", "-S", "-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x"];
    let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
    arguments.push("/(test|tests|idlelib|turtledemo|lib2to3|site-packages)/".to_owned());
    // What it was compiled as is told when it is imported: not the folder of this moment.
    arguments.extend(["-s".to_owned(), text(root), text(&library)]);
    let timeout = Some(COMPILE_TIME);
    let invocation =
        Invocation { program, arguments, folder: paths.root.clone(), environment, timeout, sandbox: Some(sandbox) };
    // Of a file that can't be compiled its import will tell.
    process::run(&invocation, &cancel, &mut |_: &[u8]| {}).is_ok()
}

/// How long a standard library may take to be compiled; on one core it takes some 10 s.
const COMPILE_TIME: Duration = Duration::from_secs(600);

/// A package to be installed.
#[derive(Debug, Clone, Copy)]
pub struct Installed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its file.
    pub file: &'a PinnedFile,
    /// Where the file lies.
    pub at: &'a Path,
}

/// A `pylock.toml` of files that lie in the folder `wheels` beside it.
fn derived(packages: &[&Installed<'_>]) -> String {
    let mut text = String::from("lock-version = \"1.0\"\ncreated-by = \"trainlock\"\n");
    for package in packages {
        let PinnedFile { file: name, sha256, size } = package.file;
        let entry = format!(
            "{{ name = {}, path = {}, size = {size}, hashes = {{ sha256 = \"{}\" }} }}",
            quoted(name),
            quoted(&format!("wheels/{name}")),
            sha256.to_hex()
        );
        text += &format!("\n[[packages]]\nname = {}\nversion = {}\n", quoted(package.name), quoted(package.version));
        text += &if name.ends_with(".whl") { format!("wheels = [{entry}]\n") } else { format!("sdist = {entry}\n") };
    }
    text
}

/// A project that asks for what a request does, on its platforms alone.
fn project(request: &PythonRequest, line: &str, named: &BTreeMap<String, String>, keep: &[(String, String)]) -> String {
    let list = |texts: &mut dyn Iterator<Item = String>| texts.map(|t| quoted(&t)).collect::<Vec<_>>().join(", ");
    let bare = |text: &String| text.split(" --hash=").next().unwrap_or_default().trim().to_owned();
    let sources = || request.index.iter().filter_map(|line| line.split_once(' '));
    let environments = request.platforms.iter().map(|platform| marker(*platform).to_owned());
    let mut text = format!(
        "[project]\nname = \"trainlock-project\"\nversion = \"0\"\nrequires-python = {}\ndependencies = [{}]\n\n[tool.uv]\npackage = false\nenvironments = [{}]\nrequired-environments = [{}]\nconstraint-dependencies = [{}]\n",
        quoted(&format!("=={line}.*")),
        list(&mut request.dependencies.iter().map(bare)),
        list(&mut environments.clone()),
        list(&mut environments.into_iter()),
        // uv heeds where a package comes from only where the project names it.
        list(&mut request.constraints.iter().map(bare).chain(sources().map(|(package, _)| format!("{package}>=0")))),
    );
    if request.sdist.is_empty() {
        text.push_str("no-build = true\n");
    } else {
        // uv has no word for "none but these"; what else it builds, it may only build to learn what it needs.
        let names = request.dependencies.iter().chain(&request.constraints).map(|text| requirement_name(text));
        let names: BTreeSet<String> = names.chain(keep.iter().map(|(name, _)| name.clone())).collect();
        let others = names.into_iter().filter(|name| request.sdist.binary_search(name).is_err());
        text += &format!("no-build-package = [{}]\n", list(&mut others.into_iter()));
    }
    for (name, url) in named.iter().filter(|(name, _)| sources().any(|(_, index)| index == name.as_str())) {
        text += &format!("\n[[tool.uv.index]]\nname = {}\nurl = {}\nexplicit = true\n", quoted(name), quoted(url));
    }
    if !request.index.is_empty() {
        text.push_str("\n[tool.uv.sources]\n");
        sources()
            .for_each(|(package, index)| text += &format!("{} = {{ index = {} }}\n", quoted(package), quoted(index)));
    }
    text
}

/// A lock of uv's that says nothing but which versions are preferred.
fn preferences(keep: &[(String, String)], line: &str) -> String {
    let mut text = format!("version = 1\nrevision = 3\nrequires-python = \"=={line}.*\"\n");
    for (name, version) in keep {
        text += &format!(
            "\n[[package]]\nname = {}\nversion = {}\nsource = {{ registry = \"https://index.invalid/simple\" }}\n",
            quoted(name),
            quoted(version)
        );
    }
    text
}

/// The marker (PEP 508) of a platform.
pub fn marker(platform: Platform) -> &'static str {
    match platform {
        Platform::LinuxAarch64 => "sys_platform == 'linux' and platform_machine == 'aarch64'",
        Platform::LinuxX86_64 => "sys_platform == 'linux' and platform_machine == 'x86_64'",
        Platform::MacosAarch64 => "sys_platform == 'darwin' and platform_machine == 'arm64'",
        Platform::MacosX86_64 => "sys_platform == 'darwin' and platform_machine == 'x86_64'",
    }
}

/// What an installed wheel is known by.
pub fn piece_key(interpreter: &str, resolver: &str, file: &PinnedFile) -> Digest {
    Digest::of(format!("trainlock installed wheel 1\n{interpreter}\n{resolver}\n{file}\n").as_bytes())
}

/// What an environment is known by: all that it is made of.
pub fn environment_key<'a>(interpreter: &str, resolver: &str, files: impl Iterator<Item = &'a PinnedFile>) -> Digest {
    let mut text = format!("trainlock python environment 1\n{interpreter}\n{resolver}\n");
    let mut lines: Vec<String> = files.map(PinnedFile::to_string).collect();
    lines.sort();
    lines.into_iter().for_each(|line| text += &(line + "\n"));
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_for_uv() {
        let request = PythonRequest {
            member: None,
            profile: None,
            taken: None,
            index: vec!["scipy cpu".to_owned()],
            dependencies: vec!["numpy>=2".to_owned(), "scipy==1.0 --hash=sha256:ab".to_owned()],
            constraints: vec!["six<2".to_owned()],
            sdist: Vec::new(),
            platforms: vec![Platform::LinuxX86_64, Platform::MacosAarch64],
        };
        let named = ["cpu", "other"].map(|name| (name.to_owned(), format!("https://{name}.example/simple")));
        let text = project(&request, "3.11", &BTreeMap::from(named), &[]);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["project"]["requires-python"].as_str(), Some("==3.11.*"));
        assert_eq!(table["project"]["dependencies"][1].as_str(), Some("scipy==1.0"));
        assert_eq!(table["tool"]["uv"]["environments"].as_array().unwrap().len(), 2);
        assert_eq!(table["tool"]["uv"]["constraint-dependencies"][0].as_str(), Some("six<2"));
        assert_eq!(table["tool"]["uv"]["no-build"].as_bool(), Some(true));
        assert_eq!(table["tool"]["uv"]["constraint-dependencies"][1].as_str(), Some("scipy>=0"));
        assert_eq!(table["tool"]["uv"]["sources"]["scipy"]["index"].as_str(), Some("cpu"));
        assert_eq!(table["tool"]["uv"]["index"].as_array().unwrap().len(), 1);
        let _: toml::Table = preferences(&[("numpy".to_owned(), "2.0".to_owned())], "3.11").parse().unwrap();
    }

    #[test]
    fn an_environment_is_known_by_its_files() {
        let file = |name: &str| PinnedFile { file: name.to_owned(), sha256: Digest::of(name.as_bytes()), size: 1 };
        let (a, b) = (file("a.whl"), file("b.whl"));
        let key = |files: &[&PinnedFile]| environment_key("3.11.7", "0.13.9", files.iter().copied());
        assert_eq!(key(&[&a, &b]), key(&[&b, &a]));
        assert_ne!(key(&[&a]), key(&[&b]));
    }
}
