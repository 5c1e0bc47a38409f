//! The network side: one thread with an async runtime and a client, which workers ask for bodies.
//!
//! A worker gets the head of an answer and then buffers through a bounded channel, so that hashing
//! and writing (on the worker's thread) and reading from the socket go on side by side.

use crate::auth::Auth;
use crate::error::{Failure, Reason};
use crate::replace;
use crate::retry::retry_after;
use crate::settings::Settings;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE,
    HeaderMap, HeaderName, LINK, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, StatusCode};
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use trainlock_types::SourceUrl;
use url::Url;

/// Bytes are handed over in buffers of about this size.
const BUFFER: usize = 256 << 10;

/// So many buffers of one transfer may wait to be written.
const BUFFERS_AHEAD: usize = 4;

const REDIRECTS: usize = 10;

/// The running network side; it ends when it is dropped.
pub(crate) struct Net {
    shared: Arc<Shared>,
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What of a request is not always the same.
#[derive(Clone, Copy)]
struct Ask {
    accept: Option<&'static str>,
    /// The first byte that is wanted.
    from: Option<u64>,
}

struct Shared {
    client: Client,
    auth: Auth,
    settings: Settings,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The stated length of the body in bytes.
    pub(crate) length: Option<u64>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) link: Option<String>,
    /// Of a part: its first byte, and the size of the whole.
    pub(crate) range: Option<(u64, u64)>,
    /// Whether credentials were sent.
    pub(crate) sent_login: bool,
}

/// The bytes of a body, a buffer at a time; the end of the channel is the end of the body.
pub(crate) type Body = mpsc::Receiver<Result<Vec<u8>, Failure>>;

impl Net {
    /// Starts the thread and sets up TLS and proxies.
    pub(crate) fn start(settings: &Settings) -> Result<Net, String> {
        let client = client(settings)?;
        let auth = Auth::new(settings);
        let shared = Arc::new(Shared { client, auth, settings: settings.clone() });
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("trainlock-net".to_owned())
            .spawn(move || {
                // An error says that the other side is gone, which is the end as well.
                let _ = runtime.block_on(ended);
            })
            .map_err(|e| e.to_string())?;
        Ok(Net { shared, handle, end: Some(end), thread: Some(thread) })
    }

    /// Asks for a URL. May not be called from within an async runtime.
    pub(crate) fn get(&self, url: &Url) -> Result<(Head, Body), Failure> {
        self.get_as(url, None)
    }

    /// Asks for a URL's bytes from this one on.
    pub(crate) fn get_from(&self, url: &Url, from: u64) -> Result<(Head, Body), Failure> {
        self.ask(url, Ask { accept: None, from: Some(from) })
    }

    /// Asks for a URL in one of the media types that `accept` names.
    pub(crate) fn get_as(&self, url: &Url, accept: Option<&'static str>) -> Result<(Head, Body), Failure> {
        self.ask(url, Ask { accept, from: None })
    }

    fn ask(&self, url: &Url, ask: Ask) -> Result<(Head, Body), Failure> {
        let (head_to, head) = oneshot::channel();
        let (body_to, body) = mpsc::channel(BUFFERS_AHEAD);
        let (shared, url) = (Arc::clone(&self.shared), url.clone());
        self.handle.spawn(async move { shared.transfer(url, ask, head_to, body_to).await });
        match head.blocking_recv() {
            Ok(Ok(head)) => Ok((head, body)),
            Ok(Err(failure)) => Err(failure),
            // The task was dropped with the runtime.
            Err(_) => Err(Failure::Interrupted),
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn client(settings: &Settings) -> Result<Client, String> {
    // Another part of the process may have installed one, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("trainlock/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        // A few windows in flight keep a fast line with a long delay busy.
        .http2_initial_stream_window_size(8 << 20)
        .http2_initial_connection_window_size(32 << 20);
    if let Some(path) = &settings.certificates {
        let pem = fs_err::read(path).map_err(|e| e.to_string())?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|e| format!("{}: {}", path.display(), innermost(&e)))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|e| innermost(&e))
}

impl Shared {
    async fn transfer(
        &self,
        url: Url,
        ask: Ask,
        head_to: oneshot::Sender<Result<Head, Failure>>,
        body_to: mpsc::Sender<Result<Vec<u8>, Failure>>,
    ) {
        let started = tokio::select! {
            started = self.start(url, ask) => started,
            () = self.settings.cancel.thrown() => Err(Failure::Interrupted),
        };
        let (head, response) = match started {
            Ok(started) => started,
            Err(failure) => return drop(head_to.send(Err(failure))),
        };
        let length = head.length;
        if head_to.send(Ok(head)).is_err() {
            return;
        }
        let failure = tokio::select! {
            done = self.body(response, length, &body_to) => match done {
                Ok(()) => return,
                Err(failure) => failure,
            },
            () = self.settings.cancel.thrown() => Failure::Interrupted,
            // The worker has seen enough.
            () = body_to.closed() => return,
        };
        let _ = body_to.send(Err(failure)).await;
    }

    /// Follows redirects to the head of the answer.
    async fn start(&self, mut url: Url, ask: Ask) -> Result<(Head, reqwest::Response), Failure> {
        let mut first_host = None;
        for _ in 0..=REDIRECTS {
            if let Some(other) = self.settings.replace.of(&url) {
                url = other;
            }
            if url.scheme() == "file" {
                let response = replace::answer(&url).await?;
                return Ok((head(StatusCode::OK, &response, false), response));
            }
            if self.settings.offline {
                return Err(Reason::Offline.into());
            }
            let host = url.host_str().map(str::to_owned);
            let first = *first_host.get_or_insert_with(|| host.clone()) == host;
            let authorization = self.auth.authorization(&url, first).await?;
            let sent_login = authorization.is_some();
            let mut request = self.shared_request(&url);
            if let Some(accept) = ask.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(from) = ask.from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let stall = self.settings.stall_timeout;
            // The connection's own time limit comes on top of the wait for the answer.
            let limit = self.settings.connect_timeout.saturating_add(stall);
            let response =
                timeout(limit, request.send()).await.map_err(|_| Reason::Stalled(stall))?.map_err(|e| reason(&e))?;
            let status = response.status();
            if let (301..=303 | 307 | 308, Some(to)) = (status.as_u16(), response.headers().get(LOCATION)) {
                url = redirect(&url, to.to_str().map_err(|_| Reason::BadRedirect)?)?;
                continue;
            }
            return Ok((head(status, &response, sent_login), response));
        }
        Err(Reason::Redirects(REDIRECTS).into())
    }

    fn shared_request(&self, url: &Url) -> reqwest::RequestBuilder {
        self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity")
    }

    async fn body(
        &self,
        mut response: reqwest::Response,
        length: Option<u64>,
        to: &mpsc::Sender<Result<Vec<u8>, Failure>>,
    ) -> Result<(), Failure> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut found = 0;
        loop {
            let stall = self.settings.stall_timeout;
            let chunk = match timeout(stall, response.chunk()).await {
                Ok(chunk) => chunk.map_err(|e| match reason(&e) {
                    // What hyper calls a broken message is a body that ended before its length or last chunk.
                    Reason::Network(_) if is_incomplete(&e) => Reason::CutOff { expected: length, found },
                    other => other,
                }),
                Err(_) => Err(Reason::Stalled(stall)),
            };
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // What came so far is what the next try goes on from.
                Err(reason) => {
                    let _ = to.send(Ok(buffer)).await;
                    return Err(reason.into());
                }
            };
            let done = chunk.is_none();
            if let Some(chunk) = chunk {
                found += chunk.len() as u64;
                buffer.extend_from_slice(&chunk);
            }
            if !buffer.is_empty() && (done || buffer.len() >= BUFFER) {
                let full = std::mem::replace(&mut buffer, Vec::with_capacity(if done { 0 } else { BUFFER }));
                if to.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
            if done {
                return Ok(());
            }
        }
    }
}

fn redirect(from: &Url, to: &str) -> Result<Url, Reason> {
    let url = from.join(to).map_err(|_| Reason::BadRedirect)?;
    match (from.scheme(), url.scheme()) {
        ("https", "http") => Err(Reason::Downgrade(SourceUrl::Http(url.into()).redacted())),
        (_, "http" | "https") => Ok(url),
        _ => Err(Reason::BadRedirect),
    }
}

/// `bytes FROM-TO/TOTAL` (RFC 9110).
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()?))
}

fn head(status: StatusCode, response: &reqwest::Response, sent_login: bool) -> Head {
    let headers: &HeaderMap = response.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Head {
        status: status.as_u16(),
        length: response.content_length().or_else(|| text(CONTENT_LENGTH)?.parse().ok()),
        content_type: text(CONTENT_TYPE),
        content_encoding: text(CONTENT_ENCODING),
        link: text(LINK),
        range: text(CONTENT_RANGE).as_deref().and_then(content_range),
        retry_after: text(RETRY_AFTER).and_then(|after| retry_after(&after, text(DATE).as_deref())),
        sent_login,
    }
}

/// An error, its cause, that one's cause, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // An IO error shows what it wraps only by this, and not as its source.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The last cause, which says most; the others name layers of the client. It holds no address.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn is_incomplete(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        // hyper's own error type is not part of the client's interface: its words are.
        let text = cause.to_string();
        text.contains("end of file before message length")
            || text.contains("unexpected EOF")
            || text.contains("message completed")
    })
}

fn reason(error: &reqwest::Error) -> Reason {
    if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>())
        && matches!(tls, rustls::Error::InvalidCertificate(_))
    {
        return Reason::Certificate(tls.to_string());
    }
    if error.is_builder() {
        return Reason::Setup(innermost(error));
    }
    let what = match (error.is_connect(), error.is_timeout()) {
        (true, true) => return Reason::Network("could not connect in time".to_owned()),
        (true, false) => "could not connect",
        (false, _) => "the connection broke",
    };
    Reason::Network(format!("{what}: {}", innermost(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_downgrade() {
        let from = Url::parse("https://a.org/x/y").unwrap();
        assert_eq!(redirect(&from, "../z?token=1").unwrap().as_str(), "https://a.org/z?token=1");
        assert_eq!(redirect(&from, "//b.org/z").unwrap().as_str(), "https://b.org/z");
        let Err(Reason::Downgrade(to)) = redirect(&from, "http://a.org/x?token=1") else { panic!("downgraded") };
        assert_eq!(to, "http://a.org/x?token=REDACTED");
        for bad in ["file:///etc/passwd", "ftp://a.org/x", "https://", "data:text/plain,x"] {
            assert!(matches!(redirect(&from, bad), Err(Reason::BadRedirect)), "{bad}");
        }
    }
}
