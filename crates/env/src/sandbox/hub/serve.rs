//! The server: one process with one thread beside the step.
//!
//! It does not come from the step and can't be looked into by it; it holds nothing open but its socket and the pipe to the
//! init. Its walls are the step's own, but that it may write nowhere.

use super::answer::{Answer, Body, Request, error};
use super::{Hub, PORT, Refusal};
use crate::sandbox::mounts::{During, Failure};
use crate::sandbox::seccomp::{self, Needs};
use crate::sandbox::{channel::Rules, rules, sys};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

/// How many connections it keeps. Whoever comes beyond them waits.
const MOST_CONNECTIONS: usize = 256;
/// No request's head is longer, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
/// No request's body is longer, in bytes.
const LONGEST_BODY: usize = 16 << 20;
/// So much of a file is sent before the next connection has its turn, in bytes.
const TURN: u64 = 1 << 20;
/// How many refusals are told.
const MOST_REFUSALS: usize = 64;
/// No path or name in them is longer, in bytes: all of them fit into the pipe.
const LONGEST_NAME: usize = 300;

/// The server, seen from the init.
pub(in crate::sandbox) struct Server {
    refusals: OwnedFd,
}

impl Server {
    /// Starts it; from then on it answers. `root` is the folder that the step sees the project in.
    ///
    /// The process must have given up its capabilities and new privileges, and blocked the signals that ask it to end:
    /// the server lives as long as the step, however long that takes to end.
    pub(in crate::sandbox) fn start(hub: &Hub, root: &Path) -> Result<Server, Failure> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).during(|| format!("listen on port {PORT} of loopback"))?;
        listener.set_nonblocking(true).during(|| "listen".to_owned())?;
        let (refusals, tells) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
                .map_err(std::io::Error::from)
                .during(|| "make a pipe".to_owned())?;
        let program = seccomp::program(Needs { watch: false, audit: false, local_only: false });
        if sys::fork(false).during(|| "fork".to_owned())?.is_some() {
            return Ok(Server { refusals });
        }
        let behind_walls = move || -> std::io::Result<(TcpListener, OwnedFd)> {
            sys::die_with_parent()?;
            sys::be_closed()?;
            // Nothing that the init has open is the server's business.
            sys::put_at(&listener, 0)?;
            sys::put_at(&tells, 1)?;
            std::mem::forget((listener, tells, refusals));
            sys::close_from(3);
            rules::apply(&Rules::default(), true)?;
            sys::seccomp(&program, false)?;
            let listener = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
            let tells = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
            Ok((listener.into(), tells))
        };
        if let Ok((listener, tells)) = behind_walls() {
            Serving { hub, root, tells, told: BTreeSet::new() }.run(&listener);
        }
        sys::exit(1)
    }

    /// What the step asked for in vain, once the server is gone.
    pub(in crate::sandbox) fn refusals(self) -> Vec<Refusal> {
        let mut text = Vec::new();
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = rustix::io::read(&self.refusals, &mut buffer) {
            text.extend_from_slice(&buffer[..n]);
        }
        text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// What all connections share.
struct Serving<'h> {
    hub: &'h Hub,
    root: &'h Path,
    tells: OwnedFd,
    told: BTreeSet<Refusal>,
}

impl Serving<'_> {
    /// Serves until it is killed, or until nothing can be waited for.
    fn run(&mut self, listener: &TcpListener) {
        let mut connections: Vec<Connection> = Vec::new();
        loop {
            let wants = |c: &Connection| if c.is_answering() { PollFlags::OUT } else { PollFlags::IN };
            let mut fds: Vec<PollFd<'_>> = connections.iter().map(|c| PollFd::new(&c.socket, wants(c))).collect();
            let open = connections.len() < MOST_CONNECTIONS;
            if open {
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            let mut ready = ready.into_iter();
            connections.retain_mut(|c| !ready.next().unwrap_or(false) || c.turn(self).is_ok());
            if open
                && let Ok((socket, _)) = listener.accept()
                && socket.set_nonblocking(true).is_ok()
            {
                let _ = socket.set_nodelay(true);
                connections.push(Connection {
                    socket,
                    inbox: Vec::new(),
                    outbox: Vec::new(),
                    file: None,
                    close: false,
                });
            }
        }
    }

    /// Tells the init, once, what is not there.
    fn tell(&mut self, refusal: Refusal) {
        let names = [Some(&refusal.repository), refusal.revision.as_ref(), refusal.path.as_ref()];
        let short = names.into_iter().flatten().all(|name| name.len() <= LONGEST_NAME);
        if short && self.told.len() < MOST_REFUSALS && !self.told.contains(&refusal) {
            if let Ok(text) = serde_json::to_string(&refusal) {
                let _ = rustix::io::write(&self.tells, format!("{text}\n").as_bytes());
            }
            self.told.insert(refusal);
        }
    }
}

/// A client.
struct Connection {
    socket: TcpStream,
    /// What came and was not answered yet.
    inbox: Vec<u8>,
    /// What is still to be sent, before the file.
    outbox: Vec<u8>,
    /// A file, where to go on in it, and how much of it is left.
    file: Option<(fs::File, u64, u64)>,
    /// Whether this answer is the last.
    close: bool,
}

impl Connection {
    fn is_answering(&self) -> bool {
        !self.outbox.is_empty() || self.file.is_some()
    }

    /// Goes on where it stopped. An error ends the connection.
    fn turn(&mut self, serving: &mut Serving<'_>) -> std::io::Result<()> {
        if !self.is_answering() {
            let mut buffer = [0; 16 << 10];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.inbox.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
                Err(e) => return Err(e),
            }
            self.next(serving);
        }
        while self.is_answering() {
            match self.send() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
                Err(e) => return Err(e),
            }
            if !self.is_answering() {
                if self.close {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                // Another request may have come with the last one.
                self.next(serving);
            }
        }
        Ok(())
    }

    /// Sends what can be sent at once; false when others shall have their turn.
    fn send(&mut self) -> std::io::Result<bool> {
        if !self.outbox.is_empty() {
            let n = self.socket.write(&self.outbox)?;
            self.outbox.drain(..n);
            return Ok(true);
        }
        let Some((file, at, left)) = &mut self.file else { return Ok(true) };
        let n = rustix::fs::sendfile(&self.socket, &*file, Some(at), (*left).min(TURN) as usize)? as u64;
        // A file that ends before its locked length can't be told of any more, but by ending too.
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        *left -= n;
        if *left == 0 {
            self.file = None;
            return Ok(true);
        }
        Ok(false)
    }

    /// Answers the next request, if all of it is there.
    fn next(&mut self, serving: &mut Serving<'_>) {
        let (request, is_head, close) = match take_request(&mut self.inbox) {
            Ok(None) => return,
            Ok(Some(read)) => read,
            Err(status) => {
                self.close = true;
                return self.put(&error(status, "", "the request can't be read"), None, false);
            }
        };
        self.close = close;
        let mut answer = serving.hub.answer(&request);
        let mut file = None;
        if let Body::File { of, file: wanted, from, length } = &answer.body {
            match open(&wanted.path.on(&of.at.on(serving.root)), wanted.size) {
                Ok(opened) => file = (*length > 0 && !is_head).then_some((opened, *from, *length)),
                Err(e) => answer = error(500, "", &format!("a locked file can't be read: {e}")),
            }
        }
        if let Some(refusal) = answer.refusal.take() {
            serving.tell(*refusal);
        }
        self.put(&answer, file, is_head);
    }

    fn put(&mut self, answer: &Answer<'_>, file: Option<(fs::File, u64, u64)>, is_head: bool) {
        let length = match &answer.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { length, .. } => *length,
        };
        let mut head = format!("HTTP/1.1 {} {}\r\nContent-Length: {length}\r\n", answer.status, reason(answer.status));
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        self.outbox.extend_from_slice(head.as_bytes());
        if let (Body::Bytes(bytes), false) = (&answer.body, is_head) {
            self.outbox.extend_from_slice(bytes);
        }
        self.file = file;
    }
}

/// Opens a locked file: no link, and as long as it is locked.
fn open(path: &Path, size: u64) -> std::io::Result<fs::File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let file = fs::File::from_parts(fd.into(), path);
    let data = file.metadata()?;
    if data.is_file() && data.len() == size { Ok(file) } else { Err(std::io::Error::other("it has another length")) }
}

/// Takes a request out of what came: it, whether only its head is answered, and whether it is the connection's last. None:
/// there is more to come. An error is the status to answer with.
fn take_request(inbox: &mut Vec<u8>) -> Result<Option<(Request, bool, bool)>, u16> {
    let Some(end) = inbox.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if inbox.len() > LONGEST_HEAD { Err(431) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&inbox[..end]).map_err(|_| 400u16)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(400);
    };
    let mut request = Request { method: method.to_owned(), target: target.to_owned(), ..Request::default() };
    let mut close = version == "HTTP/1.0";
    let mut length = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(400u16)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<usize>().map_err(|_| 400u16)?,
            "transfer-encoding" => return Err(411),
            "connection" => close |= value.eq_ignore_ascii_case("close"),
            "content-type" => request.is_json = value.to_ascii_lowercase().starts_with("application/json"),
            "range" => request.range = Some(value.to_owned()),
            "if-range" => request.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    if length > LONGEST_BODY {
        return Err(413);
    }
    let whole = end + 4 + length;
    if inbox.len() < whole {
        return Ok(None);
    }
    let is_head = method == "HEAD";
    request.body = inbox[end + 4..whole].to_vec();
    inbox.drain(..whole);
    Ok(Some((request, is_head, close)))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}
