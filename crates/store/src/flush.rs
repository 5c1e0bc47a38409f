//! Large files on their way to the disk while they still come.

use crate::sys;
use rustix::fs::CWD;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Smaller files reach the disk soon enough: in bytes.
const LARGE: u64 = 64 << 20;

/// So many new bytes are worth a call.
const STEP: u64 = 32 << 20;

/// Sees to it that not all of a file is still to be written to the disk when its last byte has come: who shares its blocks waits
/// for that. What fails here fails again when the session makes all durable, and is told then.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    new: u64,
    /// The thread that does it, once there is enough to do.
    thread: Option<SyncSender<()>>,
}

impl Flush {
    /// For a file that will have so many bytes; none where it is not worth it.
    pub(crate) fn of(size: u64) -> Option<Flush> {
        (size >= LARGE).then(Flush::default)
    }

    /// That so many bytes were written to the file.
    pub(crate) fn wrote(&mut self, path: &Path, bytes: u64) {
        self.new += bytes;
        if self.new < STEP {
            return;
        }
        let thread = self.thread.take().or_else(|| start(path));
        // Who is still at it finds these later.
        if thread.as_ref().is_some_and(|thread| thread.try_send(()).is_ok()) {
            self.new = 0;
        }
        self.thread = thread;
    }
}

/// A thread that writes the file to the disk as often as it is asked to. It has opened it itself, so that it keeps no lock.
fn start(path: &Path) -> Option<SyncSender<()>> {
    let file = File::from(sys::open_file(CWD, path).ok()?);
    let (ask, asked) = sync_channel(0);
    let work = move || asked.iter().for_each(|()| drop(file.sync_data()));
    std::thread::Builder::new().name("trainlock-flush".to_owned()).spawn(work).ok()?;
    Some(ask)
}
