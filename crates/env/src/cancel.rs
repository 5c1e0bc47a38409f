//! One switch that ends everything under way.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, Signal, kill_process_group};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A switch that is thrown once, by an interrupt, and that any number of waiting threads see:
/// its file descriptor becomes readable and stays so.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    thrown: AtomicBool,
    read: OwnedFd,
    write: OwnedFd,
    /// The process groups under way.
    groups: Mutex<Vec<Pid>>,
}

impl Cancel {
    /// A switch not thrown yet.
    pub fn new() -> std::io::Result<Cancel> {
        let (read, write) = pipe()?;
        Ok(Cancel(Arc::new(Inner { thrown: AtomicBool::new(false), read, write, groups: Mutex::default() })))
    }

    /// Throws it.
    pub fn throw(&self) {
        if !self.0.thrown.swap(true, Ordering::SeqCst) {
            // The pipe is empty, so that one byte fits; nobody ever takes it out.
            let _ = rustix::io::write(&self.0.write, b"x");
        }
    }

    /// Whether it was thrown.
    pub fn is_thrown(&self) -> bool {
        self.0.thrown.load(Ordering::SeqCst)
    }

    /// Kills every process group under way, for a program that is about to end without waiting for them.
    pub fn kill(&self) {
        for group in self.0.groups.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }

    /// Counts a process group among those under way.
    pub(crate) fn enter(&self, group: Pid) {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner).push(group);
    }

    /// Counts it no more. Its leader is not yet waited for, so that its id is no other's.
    pub(crate) fn leave(&self, group: Pid) {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner).retain(|g| *g != group);
    }

    /// Waits until it is thrown or the time is over; true if it was thrown.
    pub fn wait(&self, time: std::time::Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.0.read, PollFlags::IN)];
        let _ = poll(&mut fds, time.try_into().ok().as_ref());
        self.is_thrown()
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.read.as_fd()
    }
}

/// A pipe that no child inherits.
pub(crate) fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?);
    #[cfg(not(target_os = "linux"))]
    {
        let (read, write) = rustix::pipe::pipe()?;
        for fd in [&read, &write] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok((read, write))
    }
}
