//! Trainlock's side: starts a step's init, tells it what to do, and hears how it went.

use super::cgroup::Cgroup;
use super::channel::{self, Description, Job, Message, Rules, TERMINATE};
use super::plan::{Plan, plan};
use super::{INIT, Isolation, Report, Sandbox, SetupError, Tier, bwrap, init};
use crate::process::{Invocation, ProcessError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// The line to a step's init.
#[derive(Debug)]
pub(crate) struct Link {
    socket: UnixStream,
    received: Vec<u8>,
    open: bool,
    isolation: Isolation,
    cgroup: Option<Cgroup>,
}

/// How a step behind walls ended.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its wait status.
    pub(crate) status: i32,
    pub(crate) cpu: Duration,
    pub(crate) peak: u64,
    pub(crate) report: Report,
}

/// Starts it. `output` becomes its standard output and error.
pub(crate) fn start(it: &Invocation, sandbox: &Sandbox, output: OwnedFd) -> Result<(Child, Link), ProcessError> {
    let job = Job::Step {
        program: it.program.clone().into(),
        arguments: it.arguments.clone(),
        folder: it.folder.clone().into(),
        environment: it.environment.clone().into_iter().collect(),
    };
    start_job(job, sandbox, output)
}

/// The same with anything that an init can do.
pub(super) fn start_job(job: Job, sandbox: &Sandbox, output: OwnedFd) -> Result<(Child, Link), ProcessError> {
    if !init::is_answered() {
        let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
        return Err(SetupError { operation: "this program has no init for steps".to_owned(), source }.into());
    }
    if sandbox.hub.is_some() && (sandbox.network || !matches!(sandbox.tier, Tier::Namespaces | Tier::Bwrap)) {
        let operation = "serve a hub on a loopback that is the step's own".to_owned();
        return Err(SetupError { operation, source: rustix::io::Errno::OPNOTSUPP.into() }.into());
    }
    let Plan { mounts, rules, whole, copied } = plan(sandbox)?;
    let mut description = Description {
        tier: sandbox.tier,
        mounts,
        rules,
        whole,
        hostname: sandbox.hostname.clone(),
        umask: sandbox.umask,
        network: sandbox.network,
        audit: sandbox.audit,
        hub: sandbox.hub.clone().map(|hub| (hub, sandbox.paths().root.into())),
        job,
    };
    let mut before = None;
    if sandbox.tier == Tier::Bwrap {
        let job = bwrap::job(sandbox, &std::mem::take(&mut description.mounts))?;
        before = Some(Description {
            job,
            rules: Rules::default(),
            whole: Vec::new(),
            mounts: Vec::new(),
            hostname: String::new(),
            hub: None,
            ..description
        });
    }
    let (mut socket, end) = UnixStream::pair()?;
    // The file that is running, even if another stands at its path by now.
    let mut command = Command::new("/proc/self/exe");
    let mut child = command
        .arg0(INIT)
        .env_clear()
        .stdin(OwnedFd::from(end))
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .map_err(|source| SetupError { operation: "start the init".to_owned(), source })?;
    drop(command);
    // The init waits for its description, so that all it does is counted.
    let cgroup = sandbox.memory.map(|limit| Cgroup::new(limit, child.id()));
    let (cgroup, memory) = match cgroup {
        Some(Ok(group)) => (Some(group), Ok(())),
        Some(Err(why)) => (None, Err(why)),
        None => (None, Err("no limit is declared".to_owned())),
    };
    let sent = before.iter().chain([&description]).try_for_each(|d| channel::send(&mut socket, d));
    if let Err(error) = sent
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error.into());
    }
    let isolation = Isolation::of(sandbox, memory, copied);
    Ok((child, Link { socket, received: Vec::new(), open: true, isolation, cgroup }))
}

impl Link {
    /// Asks the step to end.
    pub(crate) fn terminate(&mut self) {
        let _ = self.socket.write_all(&[TERMINATE]);
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// What to wait on for what the init says, while it may say something.
    pub(crate) fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.socket.as_fd())
    }

    /// Takes what is there.
    pub(crate) fn receive(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(n) => self.received.extend(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // An init that was killed before it read all that it was told.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => self.open = false,
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// What the init told in the end, once the process that was started is gone, with this wait status.
    pub(crate) fn finish(mut self, it: &Invocation, status: i32) -> Result<Told, ProcessError> {
        while self.open {
            self.receive()?;
        }
        let mut report = Report {
            isolation: self.isolation,
            mapped: Vec::new(),
            attempts: Vec::new(),
            refusals: Vec::new(),
            lost: None,
            out_of_memory: self.cgroup.as_ref().is_some_and(Cgroup::killed),
        };
        if self.received.is_empty() {
            if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1 {
                // That is how bwrap says that it could not do it.
                let source = std::io::Error::other("it said no more than what stands in the step's output");
                return Err(SetupError { operation: "bwrap failed".to_owned(), source }.into());
            }
            // The outer process ends well when the inner one is killed, and so does the step not.
            report.lost = Some("the step's init was killed".to_owned());
            return Ok(Told { status: libc::SIGKILL, cpu: Duration::ZERO, peak: 0, report });
        }
        match postcard::from_bytes(&self.received).map_err(std::io::Error::other)? {
            Message::Failed { operation, errno } => {
                Err(SetupError { operation, source: std::io::Error::from_raw_os_error(errno) }.into())
            }
            Message::NotStarted { errno } => Err(ProcessError::Start {
                program: it.program.clone(),
                source: std::io::Error::from_raw_os_error(errno),
            }),
            Message::Ended { status, cpu, peak, mapped, attempts, lost, refusals } => {
                report.mapped = mapped.into_iter().map(Into::into).collect();
                report.attempts = attempts.into_iter().map(Into::into).collect();
                report.lost = lost;
                report.refusals = refusals;
                Ok(Told { status, cpu: Duration::from_micros(cpu), peak, report })
            }
        }
    }
}
