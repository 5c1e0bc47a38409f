//! Tools from the host: found on PATH, asked for their version, remembered until they change.

use crate::cancel::Cancel;
use crate::process::{self, Invocation, Stop};
use crate::sandbox::{Bind, Sandbox, Tier, probe as offered};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trainlock_types::{ToolProvider, ToolRequest};

/// How long a tool may take to say its version.
const PROBE_TIME: Duration = Duration::from_secs(20);

/// A program of this machine that serves as a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostTool {
    /// Where PATH leads.
    pub found: PathBuf,
    /// The program that really runs: for a Python behind a version manager's shim or in a virtual
    /// environment, the interpreter itself.
    pub program: PathBuf,
    /// Its version, as semver.
    pub version: String,
    /// The command that it was asked with.
    pub probe: Vec<String>,
    /// Size, modification time (seconds, nanoseconds) and inode of the program when it was asked.
    pub stamp: (u64, i64, i64, u64),
}

impl HostTool {
    /// What a sandbox must show for the program to run: nothing if the system's folders have it, its installation
    /// (the folder above its `bin`) if that is one, else the file alone. An installation that holds one of the
    /// `private` folders, or lies where people keep other things, is not shown.
    pub fn shown(&self, private: &[&Path]) -> Vec<PathBuf> {
        shown(&self.program, private)
    }
}

/// See [`HostTool::shown`].
fn shown(asked: &Path, private: &[&Path]) -> Vec<PathBuf> {
    let system = |path: &Path| SYSTEM.iter().any(|folder| path.starts_with(folder));
    let real = fs_err::canonicalize(asked).unwrap_or_else(|_| asked.to_owned());
    let mut shown = Vec::new();
    for program in [asked, &real] {
        if system(program) || shown.iter().any(|seen: &PathBuf| program.starts_with(seen)) {
            continue;
        }
        let prefix = program.parent().filter(|bin| bin.file_name().is_some_and(|n| n == "bin")).and_then(Path::parent);
        let installation = prefix.filter(|prefix| {
            prefix.parent().is_some()
                && prefix.file_name().is_some_and(|name| name != ".local")
                && (prefix.join("lib").is_dir() || prefix.join("lib64").is_dir())
                && !private.iter().any(|folder| folder.starts_with(prefix))
        });
        shown.push(installation.unwrap_or(program).to_owned());
    }
    shown
}

/// The folders of the system's own programs and libraries.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// Why a host tool can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Not on PATH.
    #[error("tool `{name}`: no program `{program}` on PATH")]
    NotFound {
        /// The tool.
        name: String,
        /// What was looked for.
        program: String,
    },
    /// The probe could not be run, or failed.
    #[error("tool `{name}`: `{command}` failed: {reason}")]
    Probe {
        /// The tool.
        name: String,
        /// The command.
        command: String,
        /// How.
        reason: String,
    },
    /// The probe's output holds nothing that looks like a version.
    #[error("tool `{name}`: no version in what `{command}` prints: {output:?}")]
    NoVersion {
        /// The tool.
        name: String,
        /// The command.
        command: String,
        /// The beginning of what it printed.
        output: String,
    },
}

/// The machine's tools, with what earlier commands found out about them.
#[derive(Debug)]
pub struct HostTools {
    path: OsString,
    file: PathBuf,
    known: BTreeMap<String, HostTool>,
    changed: bool,
    shut: Option<Shut>,
}

/// Where tools are asked behind walls.
#[derive(Debug)]
struct Shut {
    scratch: PathBuf,
    private: Vec<PathBuf>,
}

impl HostTools {
    /// Tools on `path` (the value of PATH); what was learnt is kept in `file`, a cache that may be
    /// missing or damaged.
    pub fn new(path: OsString, file: PathBuf) -> HostTools {
        let known = fs_err::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        HostTools { path, file, known, changed: false, shut: None }
    }

    /// From now on tools are asked in a sandbox: they see the system's programs and their own installation, an empty folder,
    /// no home and no network, and where that can't be had they are not asked. For a manifest that others wrote: it chooses
    /// which program is asked, with what words, and in which folder. `scratch` is a folder to make one in, `private` what no
    /// installation may show.
    pub fn shut_in(&mut self, scratch: PathBuf, private: Vec<PathBuf>) {
        self.shut = Some(Shut { scratch, private });
    }

    /// The tool that `request` asks for. A program that was asked before and has not changed since
    /// is not asked again.
    pub fn get(&mut self, request: &ToolRequest) -> Result<HostTool, ToolError> {
        if let Some(known) = self.known.get(request.name.as_str())
            && find(&request.name, &self.path).is_some_and(|found| found == known.found)
            && known.probe == probe_of(request)
            && stamp(&known.program).is_ok_and(|s| s == known.stamp)
        {
            return Ok(known.clone());
        }
        self.ask(request)
    }

    /// The same, asked now, whatever is remembered: a version manager's shim may lead to another
    /// program than it did, and no file that is known here shows it.
    pub fn ask(&mut self, request: &ToolRequest) -> Result<HostTool, ToolError> {
        let probe: &[String] = &probe_of(request);
        let missing =
            |program: &str| ToolError::NotFound { name: request.name.to_string(), program: program.to_owned() };
        let found = find(&request.name, &self.path).ok_or_else(|| missing(&request.name))?;
        // Behind walls a version manager's shim finds nothing: the program itself is asked.
        let behind = match &self.shut {
            Some(shut) => Some(program_behind_walls(&request.name, &found, shut)?),
            None => None,
        };
        let asked = match &behind {
            Some(program) if probe[0] == request.name.as_str() => program.clone(),
            _ => find(&probe[0], &self.path).ok_or_else(|| missing(&probe[0]))?,
        };
        let output = match &self.shut {
            Some(shut) => shut.ask(&request.name, &asked, probe)?,
            None => ask(&request.name, &asked, probe, None)?,
        };
        // Some print it to standard error; warnings there, with numbers of their own, do not go before the answer.
        let version = VersionText::find(&output.out).or_else(|| VersionText::find(&output.err));
        let version = version.ok_or_else(|| ToolError::NoVersion {
            name: request.name.to_string(),
            command: probe.join(" "),
            output: (output.out + &output.err).chars().take(200).collect(),
        })?;
        let program = match behind {
            Some(program) => program,
            None => program_behind(&request.name, &found, |command| ask(&request.name, &found, command, None))?,
        };
        let tool = HostTool {
            stamp: stamp(&program).map_err(|e| failed(&request.name, probe, e.to_string()))?,
            version: version.to_string(),
            probe: probe.to_vec(),
            found,
            program,
        };
        self.known.insert(request.name.to_string(), tool.clone());
        self.changed = true;
        Ok(tool)
    }

    /// Keeps what was learnt for the next command. It is a cache: failing to write it is no error.
    pub fn save(&mut self) {
        if std::mem::take(&mut self.changed)
            && let Ok(text) = serde_json::to_vec_pretty(&self.known)
        {
            let temporary = self.file.with_extension(format!("{}.tmp", std::process::id()));
            let _ = fs_err::write(&temporary, text).and_then(|()| fs_err::rename(&temporary, &self.file));
        }
    }
}

/// The command that asks a tool for its version.
fn probe_of(request: &ToolRequest) -> Vec<String> {
    let ToolProvider::Host { probe, .. } = &request.provider else {
        unreachable!("only tools from the host are looked for on the host")
    };
    if probe.is_empty() { vec![request.name.to_string(), "--version".to_owned()] } else { probe.clone() }
}

fn failed(name: &str, probe: &[String], reason: String) -> ToolError {
    ToolError::Probe { name: name.to_owned(), command: probe.join(" "), reason }
}

/// The first executable file of this name on `path`; a name with `/` stands for itself.
fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    let good = |file: &Path| fs_err::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| p.is_absolute() && good(p));
    }
    std::env::split_paths(path).filter(|d| d.is_absolute()).map(|d| d.join(program)).find(|p| good(p))
}

/// What a probe printed.
struct Printed {
    out: String,
    err: String,
}

impl Shut {
    /// Runs a probe behind walls.
    fn ask(&self, name: &str, program: &Path, probe: &[String]) -> Result<Printed, ToolError> {
        let failed = |reason: String| failed(name, probe, reason);
        fs_err::create_dir_all(&self.scratch).map_err(|e| failed(e.to_string()))?;
        let tier = offered(&self.scratch).best();
        if !matches!(tier, Tier::Namespaces | Tier::Bwrap) {
            return Err(failed(
                "it is asked in a sandbox, and this machine has none: see `trainlock doctor`".to_owned(),
            ));
        }
        let stage = self.scratch.join(name);
        for folder in ["root", "tmp", "home"] {
            fs_err::create_dir_all(stage.join(folder)).map_err(|e| failed(e.to_string()))?;
        }
        let private: Vec<&Path> = self.private.iter().map(PathBuf::as_path).collect();
        let mut sandbox = Sandbox::new(tier, &stage, "tool");
        sandbox.read_only = shown(program, &private).into_iter().map(Bind::same).collect();
        let paths = sandbox.paths();
        let invocation = Invocation {
            program: program.to_owned(),
            arguments: probe[1..].to_vec(),
            folder: paths.root.clone(),
            environment: paths.variables(),
            timeout: Some(PROBE_TIME),
            sandbox: Some(sandbox),
        };
        let cancel = Cancel::new().map_err(|e| failed(e.to_string()))?;
        let mut text = Vec::new();
        let mut keep = |bytes: &[u8]| text.extend(&bytes[..bytes.len().min((64 << 10) - text.len().min(64 << 10))]);
        let ended = process::run(&invocation, &cancel, &mut keep);
        let _ = fs_err::remove_dir_all(&stage);
        let ended = ended.map_err(|error| {
            failed(std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}")))
        })?;
        let text = String::from_utf8_lossy(&text).into_owned();
        match ended.stop {
            Stop::Exited(0) => Ok(Printed { out: text, err: String::new() }),
            Stop::TimedOut => Err(failed(format!("no answer in {} seconds", PROBE_TIME.as_secs()))),
            stop => Err(failed(format!("{stop:?}: {}", text.trim().chars().take(300).collect::<String>()))),
        }
    }
}

/// Runs a probe, in the caller's environment: version managers need it.
fn ask(name: &str, program: &Path, probe: &[String], folder: Option<&Path>) -> Result<Printed, ToolError> {
    use std::process::Stdio;
    let mut command = std::process::Command::new(program);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let mut child = command
        .args(&probe[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(name, probe, e.to_string()))?;
    let texts = [child.stdout.take().map(read_aside), child.stderr.take().map(read_aside)];
    let deadline = Instant::now() + PROBE_TIME;
    let [out, err] = texts.map(|text| text?.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok());
    let (Some(out), Some(err)) = (out, err) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(name, probe, format!("no answer in {} seconds", PROBE_TIME.as_secs())));
    };
    match child.wait() {
        Ok(status) if status.success() => Ok(Printed { out, err }),
        Ok(status) => {
            let text = format!("{out}{err}");
            Err(failed(name, probe, format!("{status}: {}", text.trim().chars().take(300).collect::<String>())))
        }
        Err(error) => Err(failed(name, probe, error.to_string())),
    }
}

/// Reads the beginning of a text in a thread of its own, so that waiting for it can have an end.
fn read_aside(from: impl std::io::Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    use std::io::Read;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.take(64 << 10).read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// The program that runs in the end. A Python says so itself: on PATH there is often a version
/// manager's shim, which would not work in a step's environment, or a virtual environment's link.
fn program_behind(
    name: &str,
    found: &Path,
    ask: impl Fn(&[String]) -> Result<Printed, ToolError>,
) -> Result<PathBuf, ToolError> {
    let python = name.strip_prefix("python").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    if !python {
        return Ok(found.to_owned());
    }
    let probe = ["-I", "-c", "import os, sys; print(os.path.realpath(sys.executable))"].map(str::to_owned);
    let command: Vec<String> = std::iter::once(name.to_owned()).chain(probe).collect();
    let output = ask(&command)?.out;
    let program = PathBuf::from(output.trim_end_matches('\n'));
    if program.is_absolute() && program.is_file() {
        Ok(program)
    } else {
        Err(failed(name, &command, format!("it printed {output:?} in place of its own path")))
    }
}

/// The same, asked behind walls. A shim can't answer there: a Python alone is then asked outside, at `/`, where nothing of the
/// manifest's is, with these words and in its isolated mode.
fn program_behind_walls(name: &str, found: &Path, shut: &Shut) -> Result<PathBuf, ToolError> {
    let ask = |command: &[String]| {
        shut.ask(name, found, command).or_else(|_| ask(name, found, command, Some(Path::new("/"))))
    };
    program_behind(name, found, ask)
}

fn stamp(program: &Path) -> std::io::Result<(u64, i64, i64, u64)> {
    let m = fs_err::metadata(program)?;
    Ok((m.size(), m.mtime(), m.mtime_nsec(), m.ino()))
}

/// Versions in what programs print, mapped to semver by these rules: the first number with a dot in
/// it counts (a letter other than `v` or `n` just before it makes it part of a word); missing parts
/// are zero and parts beyond the third are dropped (`22.04` is `22.4.0`, `1.2.3.4` is `1.2.3`); `a`,
/// `b`, `c`, `rc`, `alpha`, `beta`, `pre` and `dev` behind the numbers make a pre-release
/// (`3.13.0rc1` is `3.13.0-rc1`); all else behind the numbers is dropped.
#[derive(Debug)]
pub(crate) struct VersionText;

impl VersionText {
    /// The first version in a text.
    pub(crate) fn find(text: &str) -> Option<semver::Version> {
        let bytes = text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut at = 0;
        while at < bytes.len() {
            let length = digits(at);
            if length == 0 {
                at += 1;
                continue;
            }
            let mut parts = vec![&text[at..at + length]];
            let mut end = at + length;
            while bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
                let length = digits(end + 1);
                parts.push(&text[end + 1..end + 1 + length]);
                end += 1 + length;
            }
            let before = at.checked_sub(1).map(|i| bytes[i]);
            let two_before = at.checked_sub(2).map(|i| bytes[i]);
            let word = match before {
                Some(b'v' | b'n') => two_before.is_some_and(|b| b.is_ascii_alphanumeric()),
                Some(b) => b.is_ascii_alphabetic() || b == b'_',
                None => false,
            };
            if parts.len() >= 2 && !word {
                let mut numbers = parts.iter().map(|p| p.parse::<u64>()).chain(std::iter::repeat(Ok(0)));
                let mut next = || numbers.next().and_then(Result::ok);
                let mut version = semver::Version::new(next()?, next()?, next()?);
                version.pre = pre_release(&text[end..]);
                return Some(version);
            }
            at = end;
        }
        None
    }
}

fn pre_release(rest: &str) -> semver::Prerelease {
    let rest = rest.strip_prefix(['-', '.', '~']).unwrap_or(rest);
    let text: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    let word: &str = text.trim_end_matches(|c: char| c.is_ascii_digit());
    if ["a", "b", "c", "rc", "alpha", "beta", "pre", "dev"].contains(&word) {
        semver::Prerelease::new(&text).unwrap_or_default()
    } else {
        semver::Prerelease::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sandbox_shows_of_a_tool() {
        let folder = tempfile::tempdir().unwrap();
        let home = fs_err::canonicalize(folder.path()).unwrap();
        let tool = |program: &str| {
            let program = home.join(program);
            fs_err::create_dir_all(program.parent().unwrap()).unwrap();
            fs_err::write(&program, "").unwrap();
            HostTool { found: program.clone(), program, version: "1.0.0".into(), probe: vec![], stamp: (0, 0, 0, 0) }
        };
        fs_err::create_dir_all(home.join("py/3.11/lib")).unwrap();
        fs_err::create_dir_all(home.join(".local/lib")).unwrap();
        fs_err::create_dir_all(home.join("lib")).unwrap();
        let shown = |program: &str| tool(program).shown(&[&home.join("project")]);
        assert_eq!(shown("py/3.11/bin/python3"), [home.join("py/3.11")]);
        assert_eq!(shown(".local/bin/rg"), [home.join(".local/bin/rg")]);
        assert_eq!(shown("cargo/bin/rg"), [home.join("cargo/bin/rg")]);
        // An installation that holds the project is none.
        assert_eq!(shown("bin/x"), [home.join("bin/x")]);
        let system = HostTool { program: "/usr/bin/env".into(), ..tool("y") };
        assert!(system.shown(&[]).is_empty());
        let linked = home.join("cargo/bin/py");
        fs_err::os::unix::fs::symlink(home.join("py/3.11/bin/python3"), &linked).unwrap();
        let linked = HostTool { program: linked.clone(), ..tool("z") };
        assert_eq!(linked.shown(&[]), [home.join("cargo/bin/py"), home.join("py/3.11")]);
    }
    use trainlock_types::{Name, ToolMatch};

    #[test]
    fn versions_in_what_programs_print() {
        for (text, version) in [
            ("Python 3.11.7\n", "3.11.7"),
            ("ffmpeg version 6.1.2-static https://johnvansickle.com", "6.1.2"),
            ("ffmpeg version n6.1 Copyright (c) 2000-2023", "6.1.0"),
            ("git version 2.47.3", "2.47.3"),
            ("GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)", "5.2.15"),
            ("v20.20.2", "20.20.2"),
            ("Ubuntu 22.04", "22.4.0"),
            ("Python 3.13.0rc1", "3.13.0-rc1"),
            ("x86_64 tool2.5 1.2.3.4", "1.2.3"),
        ] {
            assert_eq!(VersionText::find(text).map(|v| v.to_string()).as_deref(), Some(version), "{text}");
        }
        for text in ["", "no version", "build 590", "99999999999999999999999.1"] {
            assert_eq!(VersionText::find(text), None, "{text}");
        }
    }

    fn request(name: &str) -> ToolRequest {
        ToolRequest {
            member: None,
            name: Name::entry(name).unwrap(),
            version: "*".into(),
            requirement: semver::VersionReq::STAR,
            provider: ToolProvider::Host { probe: vec![], accept: ToolMatch::Version },
            platforms: Vec::new(),
        }
    }

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let file = folder.join(name);
        // Written under another name first: a file that some process has open for writing can't be executed.
        let temporary = folder.join("new");
        fs_err::write(&temporary, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs_err::set_permissions(&temporary, PermissionsExt::from_mode(0o755)).unwrap();
        fs_err::rename(&temporary, &file).unwrap();
        file
    }

    #[test]
    fn a_tool_is_asked_once_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tools.json");
        let count = folder.path().join("count");
        let say = |v: &str| format!("echo x >>{}; echo 'tool {v} or later'", count.display());
        script(folder.path(), "tool", &say("1.2"));
        let path = folder.path().as_os_str().to_owned();
        let version = || {
            let mut tools = HostTools::new(path.clone(), file.clone());
            let version = tools.get(&request("tool")).unwrap().version;
            tools.save();
            version
        };
        assert_eq!((version(), version()), ("1.2.0".into(), "1.2.0".into()));
        assert_eq!(fs_err::read_to_string(&count).unwrap(), "x\n");
        script(folder.path(), "tool", &say("10.2.1"));
        assert_eq!(version(), "10.2.1");
    }

    #[test]
    fn a_shim_that_leads_elsewhere_is_noticed_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = folder.path().join("chosen");
        fs_err::write(&chosen, "1.2").unwrap();
        script(folder.path(), "tool", &format!("cat {}", chosen.display()));
        let mut tools = HostTools::new(folder.path().as_os_str().to_owned(), folder.path().join("tools.json"));
        assert_eq!(tools.get(&request("tool")).unwrap().version, "1.2.0");
        fs_err::write(&chosen, "1.3").unwrap();
        assert_eq!(tools.get(&request("tool")).unwrap().version, "1.2.0", "no file of the tool's own has changed");
        assert_eq!(tools.ask(&request("tool")).unwrap().version, "1.3.0");
        assert_eq!(tools.get(&request("tool")).unwrap().version, "1.3.0");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "silent", "true");
        script(folder.path(), "broken", "echo oh no; exit 3");
        let mut tools = HostTools::new(folder.path().as_os_str().to_owned(), folder.path().join("t"));
        let mut error = |name: &str| tools.get(&request(name)).unwrap_err().to_string();
        assert_eq!(error("absent"), "tool `absent`: no program `absent` on PATH");
        assert_eq!(error("silent"), "tool `silent`: no version in what `silent --version` prints: \"\"");
        script(folder.path(), "warns", "echo 'warning: 9.9 is old' >&2; echo 1.2.3");
        script(folder.path(), "aside", "echo 'version 1.2.4' >&2");
        assert_eq!(error("broken"), "tool `broken`: `broken --version` failed: exit status: 3: oh no");
        assert_eq!(tools.get(&request("warns")).unwrap().version, "1.2.3");
        assert_eq!(tools.get(&request("aside")).unwrap().version, "1.2.4");
    }
}
