//! A small HTTP/1.1 server on the loopback interface that fails as scripted.

use crate::sockets::Sockets;
use crate::{Authority, Fault};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a connection of a test may be silent; a bound for tests that hang, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

/// An endless body ends here, so that a client without a limit does not fill the disk.
const ENDLESS: u64 = 1 << 30;

/// A server that serves named bodies and fails as it was told to. It ends when it is dropped.
///
/// Every connection serves one request, in a thread of its own.
pub struct FaultServer {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` or another method.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// The headers, names in lower case, in their order.
    pub headers: Vec<(String, String)>,
    /// The body, of the length that a header states.
    pub body: String,
}

impl Request {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    routes: Mutex<HashMap<String, Route>>,
    sockets: Sockets,
    ended: AtomicBool,
}

#[derive(Default)]
struct Route {
    body: Arc<Vec<u8>>,
    faults: Vec<Fault>,
    requests: Vec<Request>,
    sent: Arc<AtomicU64>,
}

impl FaultServer {
    /// A server for `http://`.
    pub fn start() -> FaultServer {
        FaultServer::listen(None)
    }

    /// A server for `https://`, with a certificate of this authority.
    pub fn start_tls(authority: &Authority) -> FaultServer {
        FaultServer::listen(Some(authority.server()))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> FaultServer {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = socket.local_addr().expect("its address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let listener = std::thread::spawn(move || {
            for connection in socket.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(connection) = connection else { continue };
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                let counted = connection.try_clone().map(|connection| state.sockets.accept(connection));
                std::thread::spawn(move || {
                    // What a client does to its connection is what the test is about: no error here.
                    accept(connection, tls, &state);
                    counted.iter().for_each(|counted| state.sockets.end(counted));
                });
            }
        });
        FaultServer { address, scheme, state, listener: Some(listener) }
    }

    /// Serves `body` at `path`.
    pub fn serve(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.script(path, body, [Fault::Ok]);
    }

    /// Serves `body` at `path`, with a fault for each request in turn; the last one stays.
    pub fn script(&self, path: &str, body: impl Into<Vec<u8>>, faults: impl IntoIterator<Item = Fault>) {
        let route = Route { body: Arc::new(body.into()), faults: faults.into_iter().collect(), ..Route::default() };
        self.state.routes.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), route);
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The same, by the name `localhost`: for a client another host.
    pub fn other_host_url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.address.port())
    }

    /// The requests for a path, in their order.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        self.route(path, |route| route.requests.clone())
    }

    /// The bytes of the bodies sent for a path (as far as the system took them).
    pub fn bytes(&self, path: &str) -> u64 {
        self.route(path, |route| route.sent.load(Ordering::Relaxed))
    }

    /// How many requests came for all paths.
    pub fn request_count(&self) -> usize {
        let routes = self.state.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.values().map(|route| route.requests.len()).sum()
    }

    /// How many connections a client had open at once, at most.
    pub fn most_sockets(&self) -> usize {
        self.state.sockets.most()
    }

    fn route<T: Default>(&self, path: &str, look: impl FnOnce(&Route) -> T) -> T {
        let routes = self.state.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(path).map(look).unwrap_or_default()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // The listener looks up when someone comes.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// An address of this machine at which nobody listens.
pub fn refusing_url(path: &str) -> String {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    format!("http://{}{path}", socket.local_addr().expect("its address"))
}

/// A connection, with or without TLS.
trait Stream: Read + Write + Send {
    /// Says that nothing more comes, where the protocol can.
    fn finish(&mut self) {}
}

impl Stream for TcpStream {}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn finish(&mut self) {
        self.conn.send_close_notify();
    }
}

fn accept(socket: TcpStream, tls: Option<Arc<ServerConfig>>, state: &State) {
    let served = (|| {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let raw = socket.try_clone()?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(socket),
            Some(config) => {
                Box::new(StreamOwned::new(ServerConnection::new(config).map_err(io::Error::other)?, socket))
            }
        };
        answer(&mut BufReader::new(stream), &raw, state)
    })();
    // A client that hangs up or refuses the certificate is what some tests are about.
    drop::<io::Result<()>>(served);
}

fn answer(stream: &mut BufReader<Box<dyn Stream>>, raw: &TcpStream, state: &State) -> io::Result<()> {
    let Some(request) = read_request(stream)? else {
        return Ok(());
    };
    let path = request.target.split('?').next().unwrap_or_default().to_owned();
    let taken = {
        let mut routes = state.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get_mut(&path).map(|route| {
            route.requests.push(request.clone());
            let turn = route.requests.len().min(route.faults.len());
            let fault = turn.checked_sub(1).map_or(Fault::Ok, |i| route.faults[i].clone());
            (Arc::clone(&route.body), fault, Arc::clone(&route.sent))
        })
    };
    let out = stream.get_mut().as_mut();
    let Some((body, fault, sent)) = taken else {
        return Answer::new(404).length(0).write(out).and_then(|()| end(out, raw));
    };
    act(&fault, &body, &request, out, raw, &sent)
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut words = lines.first().map(|l| l.split(' ')).into_iter().flatten();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let header = |line: &String| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    let headers = lines.iter().skip(1).filter_map(header).collect();
    let mut request = Request { method, target, headers, body: String::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.take(length).read_to_string(&mut request.body)?;
    Ok(Some(request))
}

/// The head of an answer.
struct Answer(String);

impl Answer {
    fn new(status: u16) -> Answer {
        Answer(format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\nAccept-Ranges: bytes\r\n"))
    }

    fn with(mut self, name: &str, value: impl std::fmt::Display) -> Answer {
        self.0.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    fn length(self, length: impl std::fmt::Display) -> Answer {
        self.with("Content-Length", length)
    }

    fn write(self, out: &mut dyn Stream) -> io::Result<()> {
        out.write_all(format!("{}\r\n", self.0).as_bytes())?;
        out.flush()
    }
}

/// Sends a part of the body, counted.
fn send(out: &mut dyn Stream, bytes: &[u8], sent: &AtomicU64) -> io::Result<()> {
    for piece in bytes.chunks(64 << 10) {
        out.write_all(piece)?;
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    out.flush()
}

/// Closes in order: what was sent arrives, then the end.
fn end(out: &mut dyn Stream, raw: &TcpStream) -> io::Result<()> {
    out.finish();
    out.flush()?;
    raw.shutdown(Shutdown::Write)?;
    // Unread bytes of the client would turn the end into a reset.
    wait(out);
    Ok(())
}

/// Waits until the client has hung up (or the test's patience is over).
fn wait(out: &mut dyn Stream) {
    while matches!(out.read(&mut [0; 256]), Ok(n) if n > 0) {}
}

fn reset(raw: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(raw, Some(Duration::ZERO))?;
    Ok(())
}

/// The bytes that a `Range: bytes=A-B` header asks for.
fn range(request: &Request, length: usize) -> Option<(usize, usize)> {
    let (from, to) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    let to = to.parse().map_or(length, |to: usize| to.saturating_add(1).min(length));
    let from = from.parse().ok()?;
    (from < to).then_some((from, to))
}

fn act(
    fault: &Fault,
    body: &[u8],
    request: &Request,
    out: &mut dyn Stream,
    raw: &TcpStream,
    sent: &AtomicU64,
) -> io::Result<()> {
    let full = || Answer::new(200).length(body.len());
    let first = |n: usize| &body[..n.min(body.len())];
    match fault {
        Fault::Ok
        | Fault::Tag(_)
        | Fault::Modified(_)
        | Fault::Dated(..)
        | Fault::Type(_)
        | Fault::Link(_)
        | Fault::Drip(..)
        | Fault::Slow(_) => {
            let tag = match fault {
                Fault::Tag(tag) | Fault::Modified(tag) | Fault::Slow(tag) => Some(tag.as_str()),
                _ => None,
            };
            // A validator that is not the file's: all of it, not a part of another.
            let other = request.header("if-range").is_some_and(|wanted| Some(wanted) != tag);
            let (from, to, answer) = match range(request, body.len()).filter(|_| !other) {
                None => (0, body.len(), full()),
                Some((from, to)) => {
                    let place = format!("bytes {from}-{}/{}", to - 1, body.len());
                    (from, to, Answer::new(206).length(to - from).with("Content-Range", place))
                }
            };
            let answer = match fault {
                Fault::Tag(tag) | Fault::Slow(tag) => answer.with("ETag", tag),
                Fault::Modified(date) => answer.with("Last-Modified", date),
                Fault::Dated(modified, date) => answer.with("Last-Modified", modified).with("Date", date),
                Fault::Link(link) => answer.with("Link", link),
                Fault::Type(media) => answer.with("Content-Type", media),
                _ => answer,
            };
            answer.write(out)?;
            let (piece, pause) = match fault {
                Fault::Drip(n, pause) => ((*n).max(1), *pause),
                Fault::Slow(_) => (128 << 10, Duration::from_millis(10)),
                _ => (usize::MAX, Duration::ZERO),
            };
            for piece in body[from..to].chunks(piece) {
                send(out, piece, sent)?;
                std::thread::sleep(pause);
            }
        }
        Fault::Close => {}
        Fault::Reset => return reset(raw),
        Fault::Silent => wait(out),
        Fault::ResetAfter(n) => {
            full().write(out)?;
            send(out, first(*n), sent)?;
            return reset(raw);
        }
        Fault::Truncate(n) => {
            full().write(out)?;
            send(out, first(*n), sent)?;
        }
        Fault::TruncateTagged(n, tag) => {
            full().with("ETag", tag).write(out)?;
            send(out, first(*n), sent)?;
        }
        Fault::TruncateChunked(n) => {
            Answer::new(200).with("Transfer-Encoding", "chunked").write(out)?;
            write!(out, "{:x}\r\n", body.len())?;
            send(out, first(*n), sent)?;
        }
        Fault::Stall(n) => {
            full().write(out)?;
            send(out, first(*n), sent)?;
            wait(out);
        }
        Fault::Length(length) => {
            Answer::new(200).length(length).write(out)?;
            send(out, body, sent)?;
        }
        Fault::NoLength => {
            Answer::new(200).write(out)?;
            send(out, body, sent)?;
        }
        Fault::Chunked => {
            Answer::new(200).with("Transfer-Encoding", "chunked").write(out)?;
            for piece in body.chunks(10_000) {
                write!(out, "{:x}\r\n", piece.len())?;
                send(out, piece, sent)?;
                out.write_all(b"\r\n")?;
            }
            out.write_all(b"0\r\n\r\n")?;
        }
        Fault::Encoded => {
            full().with("Content-Encoding", "gzip").write(out)?;
            send(out, body, sent)?;
        }
        Fault::IgnoreRange => {
            full().write(out)?;
            send(out, body, sent)?;
        }
        Fault::WrongRange => {
            let half = body.len() / 2;
            let range = format!("bytes 0-{}/{}", half.saturating_sub(1), body.len());
            Answer::new(206).length(half).with("Content-Range", range).write(out)?;
            send(out, &body[..half], sent)?;
        }
        Fault::WrongTotal => {
            let (from, to) = range(request, body.len()).unwrap_or((0, body.len()));
            let range = format!("bytes {from}-{}/{}", to.saturating_sub(1), body.len() + 1);
            Answer::new(206).length(to - from).with("Content-Range", range).write(out)?;
            send(out, &body[from..to], sent)?;
        }
        Fault::Garbage => out.write_all(b"\x00\x01 220 welcome to something else\r\n\r\n")?,
        Fault::EndlessHead => {
            out.write_all(b"HTTP/1.1 200 Scripted\r\n")?;
            for i in 0..1u64 << 20 {
                write!(out, "X-{i}: {i}\r\n")?;
            }
        }
        Fault::Html => {
            let page = b"<!DOCTYPE html><html><body>Please log in.</body></html>";
            Answer::new(200).length(page.len()).with("Content-Type", "text/html; charset=utf-8").write(out)?;
            send(out, page, sent)?;
        }
        Fault::Challenge(text) => Answer::new(401).with("WWW-Authenticate", text).length(0).write(out)?,
        Fault::Headers(status, headers) => {
            let answer = Answer::new(*status).length(0);
            headers.iter().fold(answer, |answer, (name, value)| answer.with(name, value)).write(out)?;
        }
        Fault::Status(status) => Answer::new(*status).length(0).write(out)?,
        Fault::RetryAfter(status, after) => Answer::new(*status).length(0).with("Retry-After", after).write(out)?,
        Fault::RetryAt(status, seconds) => {
            let then = format!("Sun, 06 Nov 1994 08:49:{:02} GMT", (*seconds).min(59));
            let answer = Answer::new(*status).length(0).with("Date", "Sun, 06 Nov 1994 08:49:00 GMT");
            answer.with("Retry-After", then).write(out)?;
        }
        Fault::Redirect(to) => Answer::new(302).length(0).with("Location", to).write(out)?,
        Fault::Loop(status) => Answer::new(*status).length(0).with("Location", &request.target).write(out)?,
        Fault::Endless => {
            Answer::new(200).write(out)?;
            let piece = vec![b'x'; 64 << 10];
            for _ in 0..ENDLESS / piece.len() as u64 {
                send(out, &piece, sent)?;
            }
        }
        Fault::Flip(at) => {
            let mut body = body.to_vec();
            if let Some(byte) = body.get_mut(*at) {
                *byte ^= 1;
            }
            return act(&Fault::Ok, &body, request, out, raw, sent);
        }
        Fault::Extra(more) => {
            Answer::new(200).length(body.len() + more.len()).write(out)?;
            send(out, body, sent)?;
            send(out, more, sent)?;
        }
        Fault::Authorized(value) => {
            if request.header("authorization") == Some(value) {
                full().write(out)?;
                send(out, body, sent)?;
            } else {
                Answer::new(401).length(0).write(out)?;
            }
        }
    }
    end(out, raw)
}
