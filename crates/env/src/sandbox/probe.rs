//! Which tiers this machine offers: found out by using them.

use super::Tier;
use std::path::Path;
use std::sync::OnceLock;

/// What came of trying a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The tier.
    pub tier: Tier,
    /// What stopped it: the operation and the name of its error; none if it works.
    pub stopped: Option<String>,
}

/// What this machine offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The tiers tried, the strongest first.
    pub trials: Vec<Trial>,
}

impl Probe {
    /// The strongest tier that works.
    pub fn best(&self) -> Tier {
        self.trials.iter().find(|t| t.stopped.is_none()).map_or(Tier::None, |t| t.tier)
    }
}

/// Tries the tiers, the strongest first, until one works; once a process. `scratch` is a folder to write to, which no
/// step may see; nothing stays in it.
pub fn probe(scratch: &Path) -> &'static Probe {
    static FOUND: OnceLock<Probe> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut trials = Vec::new();
        for tier in Tier::ALL {
            let trial = attempt(tier, scratch);
            let works = trial.stopped.is_none();
            trials.push(trial);
            if works {
                break;
            }
        }
        Probe { trials }
    })
}

/// Tries every tier, now.
pub fn probe_all(scratch: &Path) -> Probe {
    Probe { trials: Tier::ALL.into_iter().map(|tier| attempt(tier, scratch)).collect() }
}

fn attempt(tier: Tier, scratch: &Path) -> Trial {
    let stopped = if tier == Tier::None { None } else { real::attempt(tier, scratch).err() };
    Trial { tier, stopped }
}

#[cfg(not(target_os = "linux"))]
mod real {
    pub(super) fn attempt(_: super::Tier, _: &std::path::Path) -> Result<(), String> {
        Err("there is no sandbox for this system yet".to_owned())
    }
}

#[cfg(target_os = "linux")]
pub(super) use real::attempts_to_get_out;

#[cfg(target_os = "linux")]
mod real {
    use crate::process::{Invocation, ProcessError};
    use crate::sandbox::channel::Job;
    use crate::sandbox::{Sandbox, SetupError, Tier, start};
    use fs_err as fs;
    use std::ffi::OsString;
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// What a process behind walls can do that it must not.
    const READS: i32 = 1;
    const WRITES: i32 = 2;
    const CONNECTS: i32 = 4;

    /// Runs in the sandbox: what it could do.
    pub(in crate::sandbox) fn attempts_to_get_out(canary: &OsString, port: u16) -> i32 {
        let mut done = 0;
        if fs::read(canary).is_ok() {
            done |= READS;
        }
        if fs::OpenOptions::new().append(true).open(canary).is_ok() {
            done |= WRITES;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            done |= CONNECTS;
        }
        done
    }

    pub(super) fn attempt(tier: Tier, scratch: &Path) -> Result<(), String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = scratch.join(format!("probe-{}-{number}", std::process::id()));
        let result = in_folder(tier, &folder);
        let _ = fs::remove_dir_all(&folder);
        result
    }

    fn in_folder(tier: Tier, folder: &Path) -> Result<(), String> {
        let words = |e: std::io::Error| format!("prepare the probe: {e}");
        let stage = folder.join("stage");
        for name in ["root", "tmp", "home"] {
            fs::create_dir_all(stage.join(name)).map_err(words)?;
        }
        let canary = folder.join("canary");
        fs::write(&canary, "x").map_err(words)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(words)?;
        let port = listener.local_addr().map_err(words)?.port();
        let job = Job::Probe { canary: canary.into(), port };
        let told = run(job, &Sandbox::new(tier, stage, "probe"));
        match told {
            Ok(0) => Ok(()),
            Ok(status) if libc::WIFEXITED(status) => {
                let done = libc::WEXITSTATUS(status);
                let names = [(READS, "read a file"), (WRITES, "write to a file"), (CONNECTS, "connect to a port")];
                let names: Vec<&str> = names.iter().filter(|(bit, _)| done & bit != 0).map(|(_, name)| *name).collect();
                Err(format!("set up, but a process in it could {} outside", names.join(", ")))
            }
            Ok(status) => Err(format!("the probe ended with status {status}")),
            Err(ProcessError::Sandbox(error)) => Err(format!("{}: {}", error.operation, error.reason())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs an init to its end; the wait status of its job.
    fn run(job: Job, sandbox: &Sandbox) -> Result<i32, ProcessError> {
        let (read, write) = crate::cancel::pipe()?;
        let (mut child, link) = start::start_job(job, sandbox, write)?;
        let status = std::os::unix::process::ExitStatusExt::into_raw(child.wait()?);
        let nothing = Invocation {
            program: Default::default(),
            arguments: Vec::new(),
            folder: Default::default(),
            environment: Default::default(),
            timeout: None,
            sandbox: None,
        };
        match link.finish(&nothing, status) {
            Ok(told) => Ok(told.status),
            // What it printed says why: bwrap has no other way to tell.
            Err(ProcessError::Sandbox(error)) if error.source.raw_os_error().is_none() => {
                let mut buffer = [0; 300];
                let n = rustix::io::read(&read, &mut buffer).unwrap_or(0);
                let text = String::from_utf8_lossy(&buffer[..n]).trim().replace('\n', "; ");
                Err(SetupError { source: std::io::Error::other(text), ..error }.into())
            }
            Err(error) => Err(error),
        }
    }
}
