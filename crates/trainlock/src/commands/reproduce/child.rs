//! Programs that are run and waited for, while the user may want to stop.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Hands each signal that asks this program to stop to the program that it waits for: that one ends in good order, and
/// this one then takes away what it made.
#[derive(Debug)]
pub(super) struct Watch {
    running: Arc<Mutex<Option<Pid>>>,
    interrupted: Arc<AtomicBool>,
}

impl Watch {
    /// From now on no such signal ends this program by itself.
    pub(super) fn new() -> io::Result<Watch> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if !crate::signals::hangup_is_ignored() {
            signals.add_signal(SIGHUP)?;
        }
        let watch = Watch { running: Arc::default(), interrupted: Arc::default() };
        let (running, interrupted) = (Arc::clone(&watch.running), Arc::clone(&watch.interrupted));
        std::thread::spawn(move || {
            for number in signals.forever() {
                interrupted.store(true, Ordering::SeqCst);
                let running = running.lock().unwrap_or_else(PoisonError::into_inner);
                if let (Some(pid), Some(signal)) = (*running, Signal::from_named_raw(number)) {
                    // It may have ended this instant, and is then waited for below.
                    let _ = kill_process(pid, signal);
                }
            }
        });
        Ok(watch)
    }

    /// Whether someone wants to stop.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Runs a program to its end. It is in a process group of its own, so that ctrl-C reaches it once: through here.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = self.start(command.process_group(0))?;
        self.wait(&mut child)
    }

    /// Runs a program for what it prints. It shares the terminal, where it may ask for a password.
    pub(super) fn output(&self, command: &mut Command) -> io::Result<Output> {
        let mut child = self.start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let read = |from: Option<Box<dyn Read + Send>>| {
            let mut bytes = Vec::new();
            from.map_or(Ok(0), |mut from| from.read_to_end(&mut bytes)).map(|_| bytes)
        };
        let errors = child.stderr.take().map(|e| Box::new(e) as Box<dyn Read + Send>);
        let errors = std::thread::spawn(move || read(errors));
        let stdout = read(child.stdout.take().map(|o| Box::new(o) as Box<dyn Read + Send>));
        let stderr = errors.join().unwrap_or_else(|_| Ok(Vec::new()));
        let status = self.wait(&mut child)?;
        Ok(Output { status, stdout: stdout?, stderr: stderr? })
    }

    fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let child = command.spawn()?;
        *running = Some(Pid::from_child(&child));
        Ok(child)
    }

    fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        // Its number is forgotten before the system may give it to another process.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(Pid::from_child(child)), ended) {}
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        child.wait()
    }
}
