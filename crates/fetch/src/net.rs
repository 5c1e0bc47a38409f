//! The network side: one thread with an async runtime and a client, which workers ask for bodies.
//!
//! A worker gets the head of an answer and then buffers through a bounded channel, so that hashing
//! and writing (on the worker's thread) and reading from the socket go on side by side.

use crate::auth::{Auth, Secret, is_private};
use crate::budget::{Budget, Permit, Rate};
use crate::error::{Failure, Reason};
use crate::object::{self, Listed, Place, Stores};
use crate::refusal::{HubRefusal, words};
use crate::replace;
use crate::retry::{http_date, retry_after};
use crate::settings::Settings;
use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, LINK, LOCATION, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::{Client, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use trainlock_types::{SourceUrl, Validator};
use url::Url;

/// Bytes are handed over in buffers of about this size.
const BUFFER: usize = 256 << 10;

/// So many buffers of one transfer may wait to be written.
pub(crate) const BUFFERS_AHEAD: usize = 4;

/// Bytes are handed over when they are in memory for so long, also if they are few: what a killed process has there is lost.
const OLD: Duration = Duration::from_millis(3);

/// The same where nobody needs them before all is there, and who waits only sees that something comes.
const SEEN: Duration = Duration::from_millis(200);

/// A connection that gives fewer bytes a second than this, over the time that it may stall, is given up.
const SLOWEST: f64 = 100.0;

const REDIRECTS: usize = 10;

/// The running network side; it ends when it is dropped.
pub(crate) struct Net {
    shared: Arc<Shared>,
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What of a request is not always the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    /// The media types that are wanted.
    pub(crate) accept: Option<&'static str>,
    /// The first byte that is wanted, and the one behind the last, if that is not the end.
    pub(crate) range: Option<(u64, Option<u64>)>,
    /// The range only, if the file is still the one with this validator; else all of it.
    pub(crate) if_range: Option<String>,
    /// A connection that the file is not in need of: only if there is one to spare.
    pub(crate) spare: bool,
    /// What is sent with `POST`, encoded as a form is.
    pub(crate) form: Option<Form>,
    /// It is a file of so many bytes, of which nothing need be handed over before all is there.
    pub(crate) whole: Option<u64>,
}

/// A form with a secret in it: its `Debug` shows nothing. It is sent to the place that it is for, where nobody can listen, and
/// to none that a redirect leads to; no other credentials go with it.
#[derive(Clone)]
pub(crate) struct Form(pub(crate) String);

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Form")
    }
}

struct Shared {
    budget: Arc<Budget>,
    rate: Rate,
    auth: Auth,
    stores: Stores,
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
    /// Whether the server says that it does give parts, or does not.
    pub(crate) gives_parts: Option<bool>,
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
    /// How the server wants to be asked, where it refuses (RFC 9110, `WWW-Authenticate`).
    pub(crate) challenges: Vec<String>,
    /// Whether credentials were sent.
    pub(crate) sent_login: bool,
    /// Why the Hugging Face hub refuses, with its words.
    pub(crate) refusal: Option<(HubRefusal, String)>,
    /// The version of an object.
    pub(crate) version: Option<String>,
    /// Whether the time of the last change is not that of the answer itself (RFC 9110, section 8.8.2.2: a minute).
    pub(crate) settled: bool,
}

impl Head {
    /// What names the bytes: a tag that looks like a digest, else the time of the last change.
    pub(crate) fn validator(&self) -> Option<Validator> {
        let modified = || self.modified.clone().filter(|_| self.settled).map(Validator::Modified);
        self.etag.as_deref().and_then(Validator::of_tag).or_else(modified)
    }
}

/// Where the bytes of an answer come from.
enum Flow {
    /// The permit stands behind what it is for, and is given back after that.
    Web {
        response: reqwest::Response,
        permit: Option<Permit>,
    },
    Object(Place, object::Stream),
}

/// What comes of a request: its head, the bytes of its body a buffer at a time, and its end.
#[derive(Debug)]
pub(crate) enum Came {
    Head(Head),
    Bytes(Bytes),
    /// The whole body came, or why not.
    End(Result<(), Failure>),
}

/// Where what comes of requests arrives, with the number of each.
pub(crate) type Arrivals = mpsc::Receiver<(usize, Came)>;

impl Net {
    /// Starts the thread and sets up TLS and proxies.
    pub(crate) fn start(settings: &Settings) -> Result<Net, String> {
        let (tls, limit) = (tls(settings)?, settings.connect_timeout);
        let auth = Auth::new(settings);
        let make = move || client(tls.clone(), limit);
        let budget = Arc::new(Budget::new(settings.max_connections, settings.host_connections, make));
        let rate = Rate::new(settings.limit_rate);
        let patience = settings.connect_timeout.saturating_add(settings.stall_timeout);
        let stores = Stores::new(settings.objects.clone(), Arc::clone(&budget), patience);
        let shared = Arc::new(Shared { budget, rate, auth, stores, settings: settings.clone() });
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

    /// The credentials that the user has for the host of a URL. May not be called from within an async runtime.
    pub(crate) fn secret(&self, url: &Url) -> Result<Option<Secret>, Failure> {
        self.handle.block_on(self.shared.auth.secret(url, true))
    }

    /// From now on requests whose URL begins so are made with these credentials.
    pub(crate) fn allow(&self, prefix: &Url, secret: Secret) {
        self.shared.auth.allow(prefix, secret);
    }

    /// Asks for a URL: the head, and where the body arrives. May not be called from within an async runtime.
    pub(crate) fn get(&self, url: &Url, ask: Ask) -> Result<(Head, Arrivals, Going), Failure> {
        let (to, mut arrivals) = mpsc::channel(BUFFERS_AHEAD);
        let going = self.ask(url, ask, 0, &to);
        drop(to);
        match arrivals.blocking_recv() {
            Some((_, Came::Head(head))) => Ok((head, arrivals, going)),
            Some((_, Came::End(Err(failure)))) => Err(failure),
            // The task was dropped with the runtime.
            _ => Err(Failure::Interrupted),
        }
    }

    /// Asks for a URL. What comes of it arrives with this number, until what this returns is dropped.
    pub(crate) fn ask(&self, url: &Url, ask: Ask, number: usize, to: &mpsc::Sender<(usize, Came)>) -> Going {
        let (shared, url, to) = (Arc::clone(&self.shared), url.clone(), to.clone());
        let task = self.handle.spawn(async move { shared.transfer(url, ask, Line { number, to, held: None }).await });
        Going(task.abort_handle())
    }

    /// The next that arrives within this time.
    pub(crate) fn next(&self, arrivals: &mut Arrivals, time: Duration) -> Option<(usize, Came)> {
        self.handle.block_on(async { timeout(time, arrivals.recv()).await.ok().flatten() })
    }

    /// Whether there is room for more exchanges than these, which are all under way.
    pub(crate) fn has_room(&self, exchanges: usize) -> bool {
        self.shared.budget.has_room(exchanges)
    }

    /// How many bytes a second may come through all connections.
    pub(crate) fn limit_rate(&self) -> Option<u64> {
        self.shared.settings.limit_rate
    }
}

impl Net {
    /// Adds the keys behind a prefix of a bucket to those that were found before an earlier try broke off.
    pub(crate) fn list(&self, url: &Url, found: &mut Vec<Listed>) -> Result<(), Failure> {
        let (to, listed) = oneshot::channel();
        let (shared, url, mut all) = (Arc::clone(&self.shared), url.clone(), std::mem::take(found));
        self.handle.spawn(async move {
            let work = async {
                if shared.settings.offline {
                    return Err(Reason::Offline.into());
                }
                shared.stores.list(&url, &mut all).await
            };
            let done = tokio::select! {
                done = work => done,
                () = shared.settings.cancel.thrown() => Err(Failure::Interrupted),
            };
            let _ = to.send((all, done));
        });
        // The task was dropped with the runtime.
        let (all, done) = listed.blocking_recv().unwrap_or((Vec::new(), Err(Failure::Interrupted)));
        *found = all;
        done
    }
}

/// A request under way; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Going(AbortHandle);

impl Drop for Going {
    fn drop(&mut self) {
        self.0.abort();
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

/// How connections are secured: the same for all of them, so that certificates are read once.
fn tls(settings: &Settings) -> Result<ClientConfig, String> {
    let mut provider = rustls::crypto::ring::default_provider();
    // Of the same strength for whatever is known today, and faster: as Go and the browsers have it.
    provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128"));
    let provider = Arc::new(provider);
    let extra = match &settings.certificates {
        Some(path) => {
            let failed = |why: String| format!("{}: {why}", path.display());
            let pem = fs_err::read(path).map_err(|e| e.to_string())?;
            let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            certificates.map_err(|e| failed(e.to_string()))?
        }
        None => Vec::new(),
    };
    let verifier = match extra.is_empty() {
        true => Verifier::new(Arc::clone(&provider)),
        false => Verifier::new_with_extra_roots(extra, Arc::clone(&provider)),
    };
    let verifier = verifier.map_err(|e| innermost(&e))?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| innermost(&e))?;
    let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
    Ok(config)
}

fn client(tls: ClientConfig, connect_timeout: Duration) -> Result<Client, String> {
    let builder = Client::builder()
        .user_agent(concat!("trainlock/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(1)
        // A few windows in flight keep a fast line with a long delay busy.
        .http2_initial_stream_window_size(8 << 20)
        .http2_initial_connection_window_size(32 << 20)
        .tls_backend_preconfigured(tls);
    builder.build().map_err(|e| innermost(&e))
}

impl Shared {
    async fn transfer(&self, url: Url, ask: Ask, mut line: Line) {
        let work = async {
            let whole = ask.whole;
            let (head, flow) = match url.scheme() {
                "s3" | "gs" | "az" => self.object(&url, ask).await?,
                _ => self.start(url, ask).await?,
            };
            let length = head.length;
            let whole = whole.filter(|size| head.status == 200 && length.is_none_or(|length| length == *size));
            line.held = Some(head);
            self.body(flow, length, whole, &mut line).await
        };
        let done = tokio::select! {
            done = work => done,
            () = self.settings.cancel.thrown() => Err(Failure::Interrupted),
        };
        line.tell(Came::End(done)).await;
    }

    /// Follows redirects to the head of the answer.
    async fn start(&self, mut url: Url, ask: Ask) -> Result<(Head, Flow), Failure> {
        let mut first_host = None;
        for _ in 0..=REDIRECTS {
            if let Some(other) = self.settings.replace.of(&url) {
                url = other;
            }
            if url.scheme() == "file" {
                let response = replace::answer(&url).await?;
                return Ok((head(StatusCode::OK, &response, false), Flow::Web { response, permit: None }));
            }
            if self.settings.offline {
                return Err(Reason::Offline.into());
            }
            let mut permit = self.budget.take(&url, ask.spare).await?;
            let host = url.host_str().map(str::to_owned);
            let first = *first_host.get_or_insert_with(|| host.clone()) == host;
            let authorization = match ask.form {
                Some(_) if !is_private(&url) => {
                    return Err(
                        Reason::Setup("a login goes over https alone, and to this machine itself".to_owned()).into()
                    );
                }
                Some(_) => None,
                None => self.auth.authorization(&url, first).await?,
            };
            let sent_login = authorization.is_some();
            let request = match &ask.form {
                None => permit.client().get(url.clone()),
                Some(Form(text)) => {
                    let kind = "application/x-www-form-urlencoded";
                    permit.client().post(url.clone()).header(CONTENT_TYPE, kind).body(text.clone())
                }
            };
            let mut request = request.header(ACCEPT_ENCODING, "identity");
            // The API gives a file's bytes to who wants bytes, and words about it to all others.
            let of_asset = is_release_asset(&url).then_some("application/octet-stream");
            if let Some(accept) = of_asset.or(ask.accept) {
                request = request.header(ACCEPT, accept);
            }
            if let Some((from, to)) = ask.range {
                let last = to.map(|to| to.saturating_sub(1).to_string()).unwrap_or_default();
                request = request.header(RANGE, format!("bytes={from}-{last}"));
                if let Some(validator) = &ask.if_range {
                    request = request.header(IF_RANGE, validator);
                }
            }
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let stall = self.settings.stall_timeout;
            // The connection's own time limit comes on top of the wait for the answer.
            let limit = self.settings.connect_timeout.saturating_add(stall);
            let response =
                timeout(limit, request.send()).await.map_err(|_| Reason::Stalled(stall))?.map_err(|e| reason(&e))?;
            if !ask.spare {
                permit.answered(response.version());
            }
            let status = response.status();
            if let (301..=303 | 307 | 308, Some(to)) = (status.as_u16(), response.headers().get(LOCATION)) {
                if ask.form.is_some() {
                    return Err(Reason::BadRedirect.into());
                }
                url = redirect(&url, to.to_str().map_err(|_| Reason::BadRedirect)?)?;
                continue;
            }
            return Ok((head(status, &response, sent_login), Flow::Web { response, permit: Some(permit) }));
        }
        Err(Reason::Redirects(REDIRECTS).into())
    }

    /// Asks for an object; what comes is said in the terms of HTTP.
    async fn object(&self, url: &Url, ask: Ask) -> Result<(Head, Flow), Failure> {
        if self.settings.offline {
            return Err(Reason::Offline.into());
        }
        let coming = self.stores.get(url, &ask).await?;
        let head = Head {
            status: if coming.is_part { 206 } else { 200 },
            length: Some(coming.range.end.saturating_sub(coming.range.start)),
            content_type: None,
            content_encoding: None,
            retry_after: None,
            link: None,
            range: coming.is_part.then_some((coming.range.start, coming.total)),
            gives_parts: Some(true),
            etag: coming.etag,
            modified: None,
            sent_login: false,
            refusal: None,
            version: coming.version,
            settled: false,
            challenges: Vec::new(),
        };
        Ok((head, Flow::Object(coming.place, coming.stream)))
    }

    /// The next bytes of an answer; none at its end.
    async fn next(&self, flow: &mut Flow) -> Result<Option<Bytes>, Reason> {
        match flow {
            Flow::Web { response, permit } => {
                let chunk = response.chunk().await.map_err(|e| broken(&e))?;
                if let (Some(permit), Some(chunk)) = (permit, &chunk) {
                    permit.came(chunk.len());
                }
                Ok(chunk)
            }
            Flow::Object(place, stream) => stream.next().await.transpose().map_err(|e| self.stores.reason(place, &e)),
        }
    }

    /// Hands the bytes of an answer over. Its head, what there is of a small one and its end come in one piece; so does a `whole`
    /// one of so many bytes, if it does not take long.
    async fn body(
        &self,
        mut flow: Flow,
        length: Option<u64>,
        whole: Option<u64>,
        line: &mut Line,
    ) -> Result<(), Failure> {
        let mut came = Gathered::default();
        let mut pace = Pace::new(self.settings.stall_timeout);
        let mut since = Instant::now();
        let (old, most) = match whole {
            Some(size) => (SEEN, usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1)),
            None => (OLD, BUFFER),
        };
        loop {
            let chunk = {
                let mut next = pin!(self.next(&mut flow));
                let ready = match came.len() == 0 && line.held.is_none() {
                    true => None,
                    false => pace.ready(old, next.as_mut()).await,
                };
                match ready {
                    Some(chunk) => pace.chunk(chunk),
                    None => {
                        let heard = match came.len() {
                            0 => line.tell_held().await,
                            _ => line.tell(Came::Bytes(came.take())).await,
                        };
                        if !heard {
                            return Ok(());
                        }
                        pace.wait(next).await
                    }
                }
            };
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // What came so far is what the next try goes on from.
                Err(reason) => {
                    if came.len() > 0 {
                        line.tell(Came::Bytes(came.take())).await;
                    }
                    return Err(match reason {
                        Reason::CutOff { found, .. } => Reason::CutOff { expected: length, found },
                        other => other,
                    }
                    .into());
                }
            };
            let done = chunk.is_none();
            if let Some(chunk) = chunk {
                self.rate.pass(chunk.len()).await;
                if came.len() == 0 {
                    since = Instant::now();
                }
                came.add(chunk);
            }
            // Of a body that is all there, the end comes next, and goes with it.
            let full = came.len() >= most && Some(pace.found) != length;
            if (done || full || since.elapsed() >= old) && came.len() > 0 && !line.tell(Came::Bytes(came.take())).await
            {
                return Ok(());
            }
            if done {
                return Ok(());
            }
        }
    }
}

/// Bytes that are to be handed over: a chunk as it came, or several in one piece.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: Vec<u8>,
}

impl Gathered {
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn add(&mut self, chunk: Bytes) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(BUFFER.max(self.first.len() + chunk.len()));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&chunk);
    }

    fn take(&mut self) -> Bytes {
        match self.all.is_empty() {
            true => std::mem::take(&mut self.first),
            false => std::mem::take(&mut self.all).into(),
        }
    }
}

/// Whether a body comes at all: a server that sends a byte now and then is as good as one that sends none.
struct Pace {
    limit: Duration,
    found: u64,
    /// Since the last look: how long was waited for it, and how many bytes came.
    waited: Duration,
    came: u64,
}

impl Pace {
    fn new(limit: Duration) -> Pace {
        Pace { limit, found: 0, waited: Duration::ZERO, came: 0 }
    }

    /// Looks for so long whether the next chunk comes.
    async fn ready<T>(&mut self, time: Duration, chunk: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let chunk = timeout(time, chunk).await.ok();
        self.waited += began.elapsed();
        chunk
    }

    /// Waits for the next chunk, as long as is allowed.
    async fn wait(
        &mut self,
        chunk: impl Future<Output = Result<Option<Bytes>, Reason>>,
    ) -> Result<Option<Bytes>, Reason> {
        let chunk = self.ready(self.limit, chunk).await;
        self.chunk(chunk.ok_or(Reason::Stalled(self.limit))?)
    }

    fn chunk(&mut self, chunk: Result<Option<Bytes>, Reason>) -> Result<Option<Bytes>, Reason> {
        let chunk = chunk.map_err(|reason| match reason {
            Reason::CutOff { .. } => Reason::CutOff { expected: None, found: self.found },
            other => other,
        })?;
        let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.found += bytes;
        self.came += bytes;
        if self.waited >= self.limit {
            if chunk.is_some() && (self.came as f64) < SLOWEST * self.waited.as_secs_f64() {
                return Err(Reason::Slow { bytes: self.came, time: self.waited });
            }
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }
}

/// Where what comes of one request goes.
struct Line {
    number: usize,
    to: mpsc::Sender<(usize, Came)>,
    /// Goes before what is told next.
    held: Option<Head>,
}

impl Line {
    /// Whether there is still somebody who hears it.
    async fn tell(&mut self, came: Came) -> bool {
        self.tell_held().await && self.to.send((self.number, came)).await.is_ok()
    }

    async fn tell_held(&mut self) -> bool {
        match self.held.take() {
            Some(head) => self.to.send((self.number, Came::Head(head))).await.is_ok(),
            None => true,
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
        gives_parts: text(ACCEPT_RANGES).map(|units| !units.eq_ignore_ascii_case("none")),
        etag: text(ETAG),
        modified: text(LAST_MODIFIED),
        retry_after: text(RETRY_AFTER).and_then(|after| retry_after(&after, text(DATE).as_deref())),
        challenges: headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| Some(v.to_str().ok()?.to_owned()))
            .collect(),
        sent_login,
        refusal: refusal(status, &text),
        version: None,
        settled: is_settled(text(LAST_MODIFIED).as_deref(), text(DATE).as_deref()),
    }
}

/// Why the hub refuses, if it is the hub that does.
fn refusal(status: StatusCode, text: &dyn Fn(HeaderName) -> Option<String>) -> Option<(HubRefusal, String)> {
    // What may pass is no refusal, whatever is said of it.
    if !status.is_client_error() || matches!(status.as_u16(), 408 | 425 | 429) {
        return None;
    }
    let [code, message] = ["x-error-code", "x-error-message"].map(|name| text(HeaderName::from_static(name)));
    let refusal = HubRefusal::of(code.as_deref(), message.as_deref())?;
    Some((refusal, words(message.as_deref().unwrap_or_default())))
}

/// Whether an address is that of a release's file in the API of GitHub or of a server like it (`/repos/OWNER/NAME/releases/assets/N`).
pub(crate) fn is_release_asset(url: &Url) -> bool {
    let segments: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    matches!(segments[..], [.., "repos", _, _, "releases", "assets", number] if is_number(number))
}

/// Whether the time of a last change lies a minute or more before that of the answer.
fn is_settled(modified: Option<&str>, date: Option<&str>) -> bool {
    let times = modified.and_then(http_date).zip(date.and_then(http_date));
    times.is_some_and(|(modified, date)| modified + 60 <= date)
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

/// Why the bytes of a body ended.
pub(crate) fn broken(error: &reqwest::Error) -> Reason {
    match reason(error) {
        // What hyper calls a broken message is a body that ended before its length or last chunk. How far it came is known above.
        Reason::Network(_) if is_incomplete(error) => Reason::CutOff { expected: None, found: 0 },
        other => other,
    }
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
