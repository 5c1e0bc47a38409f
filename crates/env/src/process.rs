//! A step's process: started in its own group, watched, ended with all that it left behind.

use crate::Cancel;
use crate::sandbox::{Report, Sandbox, SetupError, Tier};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a process has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<String>,
    /// The folder that it starts in.
    pub folder: PathBuf,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What it may see and do; none: whatever trainlock itself may. With one, the paths above are those that the step
    /// sees ([`Sandbox::paths`]).
    pub sandbox: Option<Sandbox>,
}

/// Why the process is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It ended by itself with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It took longer than it may, and was ended.
    TimedOut,
    /// The run was interrupted, and it was ended.
    Cancelled,
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Why it is no more.
    pub stop: Stop,
    /// Wall time.
    pub wall: Duration,
    /// Processor time of it and its waited-for children.
    pub cpu: Duration,
    /// The largest resident size in bytes that it or one of its waited-for children had.
    pub peak_memory: u64,
    /// What its sandbox held to and saw; none if it had none.
    pub sandbox: Option<Report>,
}

/// Why a process could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not there, or may not be executed.
    #[error("can't start `{}`", program.display())]
    Start {
        /// The program's file.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Its sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SetupError),
    /// A pipe or a wait failed.
    #[error("can't watch the process")]
    Watch(#[from] std::io::Error),
}

impl From<rustix::io::Errno> for ProcessError {
    fn from(errno: rustix::io::Errno) -> ProcessError {
        ProcessError::Watch(errno.into())
    }
}

/// Runs it to its end. `output` gets what it prints to standard output and error, in order. When it
/// ends, for whatever reason, the rest of its process group is killed; in a sandbox, all that it started, whatever
/// group it went to.
pub fn run(it: &Invocation, cancel: &Cancel, mut output: impl FnMut(&[u8])) -> Result<Ended, ProcessError> {
    let begin = Instant::now();
    let (read, write) = crate::cancel::pipe()?;
    let (child, link) = start(it, write)?;
    let pid = Pid::from_raw(child.id() as i32).expect("a child's id is positive");
    cancel.enter(pid);
    #[cfg(target_os = "linux")]
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    #[cfg(not(target_os = "linux"))]
    let process = crate::cancel::pipe()?.0;
    let mut watch = Watch { pid, process, read, buffer: vec![0; 16 << 10], open: true, link };

    let deadline = it.timeout.map(|t| begin + t);
    let mut ended_by = None;
    while !watch.step(deadline, Some(cancel), &mut output)? {
        let why = if cancel.is_thrown() {
            Stop::Cancelled
        } else if deadline.is_some_and(|d| Instant::now() >= d) {
            Stop::TimedOut
        } else {
            continue;
        };
        ended_by = Some(why);
        watch.end(&mut output)?;
        break;
    }
    // Before the process is waited for, its id cannot be given to another group.
    let _ = kill_process_group(pid, Signal::KILL);
    cancel.leave(pid);
    let (mut status, mut cpu, mut peak_memory) = wait(pid)?;
    watch.drain(&mut output)?;
    #[cfg(target_os = "linux")]
    let sandbox = match watch.link.map(|link| link.finish(it, status)).transpose()? {
        None => it.sandbox.as_ref().map(Report::without),
        Some(told) => {
            status = told.status;
            // An init that was killed told nothing; what the kernel counted stands.
            (cpu, peak_memory) = (cpu.max(told.cpu), if told.peak > 0 { told.peak } else { peak_memory });
            Some(told.report)
        }
    };
    #[cfg(not(target_os = "linux"))]
    let sandbox = it.sandbox.as_ref().map(Report::without);
    let stop = ended_by.unwrap_or(match status {
        s if libc::WIFEXITED(s) => Stop::Exited(libc::WEXITSTATUS(s)),
        s => Stop::Signaled(libc::WTERMSIG(s)),
    });
    Ok(Ended { stop, wall: begin.elapsed(), cpu, peak_memory, sandbox })
}

/// The line to the process's init, if it has one.
#[cfg(target_os = "linux")]
type Link = crate::sandbox::Link;
#[cfg(not(target_os = "linux"))]
type Link = std::convert::Infallible;

/// Starts it, with both outputs into the pipe.
fn start(it: &Invocation, write: OwnedFd) -> Result<(std::process::Child, Option<Link>), ProcessError> {
    if let Some(sandbox) = it.sandbox.as_ref().filter(|s| s.tier != Tier::None) {
        #[cfg(target_os = "linux")]
        return crate::sandbox::start(it, sandbox, write).map(|(child, link)| (child, Some(link)));
        #[cfg(not(target_os = "linux"))]
        return Err(SetupError {
            operation: format!("there is no tier {} on this system", sandbox.tier),
            source: std::io::ErrorKind::Unsupported.into(),
        }
        .into());
    }
    let child = std::process::Command::new(&it.program)
        .args(&it.arguments)
        .current_dir(&it.folder)
        .env_clear()
        .envs(&it.environment)
        .stdin(std::process::Stdio::null())
        .stdout(write.try_clone()?)
        .stderr(write)
        .process_group(0)
        .spawn()
        .map_err(|source| ProcessError::Start { program: it.program.clone(), source })?;
    Ok((child, None))
}

/// The pipe and the process, looked at together.
struct Watch {
    pid: Pid,
    /// Readable when the process has ended (Linux); elsewhere never, and the end is looked for.
    process: OwnedFd,
    read: OwnedFd,
    buffer: Vec<u8>,
    open: bool,
    /// The line to its init, if it has one.
    link: Option<Link>,
}

impl Watch {
    /// Asks the process to end, and makes it.
    fn end(&mut self, output: &mut impl FnMut(&[u8])) -> Result<(), ProcessError> {
        #[cfg(target_os = "linux")]
        if let Some(link) = &mut self.link {
            // The init ends all that it started, told twice: the process group is killed only if it does not.
            link.terminate();
            if self.ends_within(GRACE, output)? {
                return Ok(());
            }
            self.link.iter().for_each(Link::kill);
            self.ends_within(GRACE, output)?;
            return Ok(());
        }
        let _ = kill_process_group(self.pid, Signal::TERM);
        self.ends_within(GRACE, output).map(drop)
    }

    /// Waits for the end, for so long; whether it came.
    fn ends_within(&mut self, time: Duration, output: &mut impl FnMut(&[u8])) -> Result<bool, ProcessError> {
        let last = Instant::now() + time;
        loop {
            if self.step(Some(last), None, output)? {
                return Ok(true);
            }
            if Instant::now() >= last {
                return Ok(false);
            }
        }
    }

    /// Waits for output, the process's end, the switch or the deadline; passes on output; says
    /// whether the process has ended.
    fn step(
        &mut self,
        deadline: Option<Instant>,
        cancel: Option<&Cancel>,
        output: &mut impl FnMut(&[u8]),
    ) -> Result<bool, ProcessError> {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        #[cfg(not(target_os = "linux"))]
        let left = Some(left.unwrap_or(Duration::MAX).min(Duration::from_millis(20)));
        let time = left.and_then(|t| rustix::event::Timespec::try_from(t).ok());
        let mut fds = vec![PollFd::new(&self.process, PollFlags::IN)];
        if self.open {
            fds.push(PollFd::new(&self.read, PollFlags::IN));
        }
        if let Some(cancel) = cancel {
            fds.push(PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN));
        }
        #[cfg(target_os = "linux")]
        let told = self.link.as_ref().and_then(Link::waits_on).map(|fd| {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        });
        match poll(&mut fds, time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let printed = self.open && !fds[1].revents().is_empty();
        #[cfg(target_os = "linux")]
        if told.is_some_and(|i| !fds[i].revents().is_empty())
            && let Some(link) = &mut self.link
        {
            link.receive()?;
        }
        if printed {
            match rustix::io::read(&self.read, &mut self.buffer) {
                Ok(0) => self.open = false,
                Ok(n) => output(&self.buffer[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.has_ended()
    }

    /// Whether the process is no more than an entry to be waited for.
    fn has_ended(&self) -> Result<bool, ProcessError> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(waitid(WaitId::Pid(self.pid), options)?.is_some())
    }

    /// Passes on what is still in the pipe, without waiting for a writer that got away.
    fn drain(&mut self, output: &mut impl FnMut(&[u8])) -> Result<(), ProcessError> {
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        while self.open {
            let mut fds = [PollFd::new(&self.read, PollFlags::IN)];
            if poll(&mut fds, Some(&zero))? == 0 {
                break;
            }
            match rustix::io::read(&self.read, &mut self.buffer)? {
                0 => self.open = false,
                n => output(&self.buffer[..n]),
            }
        }
        Ok(())
    }
}

/// Waits for a process that has ended or was killed; its status, processor time and peak memory.
fn wait(pid: Pid) -> Result<(i32, Duration, u64), ProcessError> {
    let mut status = 0;
    // SAFETY: rusage is plain old data, for which all-zero bytes are a value.
    #[expect(unsafe_code, reason = "no safe wrapper of wait4 reports the resources used")]
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live local variables of the right type.
        #[expect(unsafe_code, reason = "no safe wrapper of wait4 reports the resources used")]
        let got = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &mut status, 0, &mut usage) };
        if got >= 0 {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Ok((status, time(usage.ru_utime) + time(usage.ru_stime), usage.ru_maxrss as u64 * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Invocation {
        Invocation {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            folder: "/".into(),
            environment: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            timeout: None,
            sandbox: None,
        }
    }

    fn output(it: &Invocation, cancel: &Cancel) -> (Ended, String) {
        let mut text = Vec::new();
        let ended = run(it, cancel, |bytes| text.extend_from_slice(bytes)).unwrap();
        (ended, String::from_utf8(text).unwrap())
    }

    #[test]
    fn code_output_and_environment() {
        let (ended, text) = output(&sh("echo out; echo err >&2; echo $A-$HOME; exit 7"), &Cancel::new().unwrap());
        assert_eq!(ended.stop, Stop::Exited(7));
        assert_eq!(text, "out\nerr\n1-\n");
        assert!(ended.peak_memory > 100_000);
        assert_eq!(output(&sh("kill -9 $$"), &Cancel::new().unwrap()).0.stop, Stop::Signaled(9));
    }

    #[test]
    fn more_output_than_a_pipe_holds() {
        let (_, text) =
            output(&sh("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done"), &Cancel::new().unwrap());
        assert_eq!(text.len(), 220_000);
    }

    #[test]
    fn a_background_child_neither_delays_the_end_nor_survives_it() {
        let (ended, text) = output(&sh("sleep 60 & echo $!"), &Cancel::new().unwrap());
        assert_eq!(ended.stop, Stop::Exited(0));
        assert!(ended.wall < Duration::from_secs(30));
        let pid = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        // Killed, it stays as a zombie until its new parent waits for it.
        let gone = || {
            rustix::process::test_kill_process(pid).is_err()
                || fs_err::read_to_string(format!("/proc/{}/stat", text.trim())).is_ok_and(|s| s.contains(") Z"))
        };
        let begin = Instant::now();
        while !gone() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the background child lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn time_out_and_cancel_end_the_whole_group() {
        let mut it = sh("sleep 60 & sleep 60");
        it.timeout = Some(Duration::from_millis(50));
        assert_eq!(output(&it, &Cancel::new().unwrap()).0.stop, Stop::TimedOut);
        let cancel = Cancel::new().unwrap();
        cancel.throw();
        assert_eq!(output(&sh("sleep 60"), &cancel).0.stop, Stop::Cancelled);
    }

    #[test]
    fn a_group_that_will_not_end_is_killed() {
        let cancel = Cancel::new().unwrap();
        let ended = run(&sh("trap '' TERM; echo ready; sleep 60; sleep 60"), &cancel, |text| {
            assert_eq!(text, b"ready\n");
            cancel.kill();
        });
        assert_eq!(ended.unwrap().stop, Stop::Signaled(9));
    }

    #[test]
    fn a_program_that_is_not_there() {
        let mut it = sh("");
        it.program = "/no/such/program".into();
        let error = run(&it, &Cancel::new().unwrap(), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "can't start `/no/such/program`");
    }
}
