//! The connections of a server, counted.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections that a client has open to a server.
#[derive(Default)]
pub(crate) struct Sockets {
    open: Mutex<Vec<Arc<TcpStream>>>,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Sockets {
    /// Counts one that was accepted, beside those that the client has not closed by then.
    pub(crate) fn accept(&self, socket: TcpStream) -> Arc<TcpStream> {
        let socket = Arc::new(socket);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|socket| !is_closed(socket));
        open.push(Arc::clone(&socket));
        self.most.fetch_max(open.len(), Ordering::SeqCst);
        self.all.fetch_add(1, Ordering::SeqCst);
        socket
    }

    /// Forgets one that the server is done with.
    pub(crate) fn end(&self, socket: &Arc<TcpStream>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, socket));
    }

    /// How many were open at once, at most.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// How many were accepted.
    pub(crate) fn all(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }
}

/// Whether the other side has closed it, whatever it sent before that.
fn is_closed(socket: &TcpStream) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok()
        && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}
