//! A small object store on the loopback interface, with the answers that S3, Google's and Azure's have.

use crate::sockets::Sockets;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a connection of a test may be silent; a bound for tests that hang, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many keys are on a page of a listing.
const PAGE: usize = 100;

/// Buckets in memory, for all three protocols at once: `/BUCKET/KEY` for objects, `/BUCKET?…` for listings. It ends when it is dropped.
pub struct BucketServer {
    address: SocketAddr,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    buckets: Mutex<HashMap<String, Bucket>>,
    /// What `Authorization` has to begin with.
    wants: Mutex<Option<String>>,
    requests: Mutex<Vec<String>>,
    /// So many requests are answered with 503 first.
    failing: AtomicUsize,
    /// Each so manyth answer breaks off; none do if it is none.
    breaking: AtomicUsize,
    slow: AtomicBool,
    sent: AtomicU64,
    open: AtomicUsize,
    most: AtomicUsize,
    sockets: Sockets,
    ended: AtomicBool,
}

#[derive(Default)]
struct Bucket {
    versioned: bool,
    /// The versions of each key, the newest last.
    objects: BTreeMap<String, Vec<Version>>,
    made: usize,
}

struct Version {
    /// `null` of what was put while the bucket kept none.
    name: String,
    tag: String,
    body: Vec<u8>,
}

impl BucketServer {
    /// A server without buckets.
    pub fn start() -> BucketServer {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = socket.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let listener = std::thread::spawn(move || {
            for connection in socket.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(connection) = connection else { continue };
                let state = Arc::clone(&shared);
                let connection = state.sockets.accept(connection);
                std::thread::spawn(move || {
                    // A client that hangs up is no error here.
                    drop(serve(&connection, &state));
                    state.sockets.end(&connection);
                });
            }
        });
        BucketServer { address, state, listener: Some(listener) }
    }

    /// The server's address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a bucket, which keeps versions or does not.
    pub fn bucket(&self, name: &str, versioned: bool) {
        self.with(name, |bucket| bucket.versioned = versioned);
    }

    /// Puts an object.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Vec<u8>>) {
        self.with(bucket, |bucket| {
            bucket.made += 1;
            // Versions look like numbers, as those of Google are.
            let number = (1_700_000_000_000_000 + bucket.made).to_string();
            // As of an object that was put in parts: no hash of the content.
            let tag = format!("\"{number}-2\"");
            let name = if bucket.versioned { number } else { "null".to_owned() };
            let versions = bucket.objects.entry(key.to_owned()).or_default();
            versions.retain(|version| version.name != name);
            versions.push(Version { name, tag, body: body.into() });
        });
    }

    /// Deletes an object, with all its versions.
    pub fn delete(&self, bucket: &str, key: &str) {
        self.with(bucket, |bucket| bucket.objects.remove(key));
    }

    /// Refuses requests whose `Authorization` begins in another way.
    pub fn want(&self, authorization: &str) {
        *lock(&self.state.wants) = Some(authorization.to_owned());
    }

    /// Answers so many requests with 503.
    pub fn fail(&self, requests: usize) {
        self.state.failing.store(requests, Ordering::SeqCst);
    }

    /// Breaks each so manyth answer off, in the middle.
    pub fn break_off(&self, each: usize) {
        self.state.breaking.store(each, Ordering::SeqCst);
    }

    /// Sends bodies slowly from now on: about 12 MB a second over each connection.
    pub fn slow_down(&self) {
        self.state.slow.store(true, Ordering::SeqCst);
    }

    /// Deletes a bucket and all that is in it.
    pub fn delete_bucket(&self, name: &str) {
        lock(&self.state.buckets).remove(name);
    }

    /// The bytes of objects that were given so far.
    pub fn bytes(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// The targets of all requests, in their order.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state.requests).clone()
    }

    /// How many requests were answered at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.state.most.load(Ordering::SeqCst)
    }

    /// How many connections a client had open at once, at most.
    pub fn most_sockets(&self) -> usize {
        self.state.sockets.most()
    }

    /// How many connections there were.
    pub fn sockets(&self) -> usize {
        self.state.sockets.all()
    }

    fn with<T>(&self, name: &str, change: impl FnOnce(&mut Bucket) -> T) -> T {
        change(lock(&self.state.buckets).entry(name.to_owned()).or_default())
    }
}

impl Drop for BucketServer {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // The listener looks up when someone comes.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A head, without the lengths, and a body.
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn serve(connection: &TcpStream, state: &State) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let target = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let header = |name: &str| {
            let of = |line: &String| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            };
            lines.iter().skip(1).find_map(of)
        };
        let number = {
            let mut requests = lock(&state.requests);
            requests.push(target.clone());
            requests.len()
        };
        let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
        state.most.fetch_max(open, Ordering::SeqCst);
        // So that requests that are made at once are seen at once.
        std::thread::sleep(Duration::from_millis(2));
        let failing = state.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let wants = lock(&state.wants).clone();
        let answer = match wants {
            _ if failing => refusal(503, "SlowDown", "Please reduce your request rate."),
            Some(wants) if !header("authorization").unwrap_or_default().starts_with(&wants) => {
                refusal(403, "AccessDenied", "Access Denied.")
            }
            _ => answer(&target, header("range").as_deref(), header("if-match").as_deref(), state),
        };
        let Answer { status, headers, body } = answer;
        state.open.fetch_sub(1, Ordering::SeqCst);
        write!(writer, "HTTP/1.1 {status} Of a test\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
        let breaking = state.breaking.load(Ordering::SeqCst);
        if breaking > 0 && number.is_multiple_of(breaking) {
            return writer.write_all(&body[..body.len() / 2]);
        }
        match state.slow.load(Ordering::SeqCst) {
            false => writer.write_all(&body)?,
            true => {
                for piece in body.chunks(128 << 10) {
                    writer.write_all(piece)?;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        writer.flush()?;
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Answer { status, headers: "Content-Type: application/xml\r\n".to_owned(), body: body.into_bytes() }
}

fn answer(target: &str, range: Option<&str>, if_match: Option<&str>, state: &State) -> Answer {
    let url = url::Url::parse(&format!("http://x{target}")).expect("a request's target");
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    let path = unescaped(url.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let buckets = lock(&state.buckets);
    let Some(bucket) = buckets.get(bucket) else {
        return refusal(404, "NoSuchBucket", "The specified bucket does not exist");
    };
    if key.is_empty() {
        return listing(bucket, &query);
    }
    let wanted = ["versionId", "generation", "versionid"].iter().find_map(|name| query.get(*name));
    let versions = bucket.objects.get(key).map(Vec::as_slice).unwrap_or_default();
    let found = match wanted {
        Some(wanted) => versions.iter().find(|version| version.name == *wanted),
        None => versions.last(),
    };
    let Some(Version { name: version, tag, body }) = found else {
        return refusal(404, "NoSuchKey", "The specified key does not exist.");
    };
    if if_match.is_some_and(|wanted| wanted != tag) {
        return refusal(412, "PreconditionFailed", "At least one of the preconditions did not hold");
    }
    let mut headers = format!("ETag: {tag}\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n");
    if bucket.versioned {
        let _ = write!(
            headers,
            "x-amz-version-id: {version}\r\nx-goog-generation: {version}\r\nx-ms-version-id: {version}\r\n"
        );
    }
    let part = range.and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let to = to.parse().map_or(body.len(), |to: usize| (to + 1).min(body.len()));
        Some((from.parse::<usize>().ok()?, to)).filter(|(from, to)| from < to)
    });
    state.sent.fetch_add(part.map_or(body.len(), |(from, to)| to - from) as u64, Ordering::SeqCst);
    match part {
        Some((from, to)) => {
            let _ = write!(headers, "Content-Range: bytes {from}-{}/{}\r\n", to - 1, body.len());
            Answer { status: 206, headers, body: body[from..to].to_vec() }
        }
        None => Answer { status: 200, headers, body: body.clone() },
    }
}

fn unescaped(text: &str) -> String {
    let plus = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(plus.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

fn listing(bucket: &Bucket, query: &HashMap<String, String>) -> Answer {
    let prefix = query.get("prefix").map_or("", String::as_str);
    let after = ["continuation-token", "marker", "start-after"].iter().find_map(|name| query.get(*name));
    let all = bucket.objects.iter().filter(|(key, _)| key.starts_with(prefix));
    let mut rest = all.filter(|(key, _)| after.is_none_or(|after| *key > after)).peekable();
    let page: Vec<_> = rest.by_ref().take(PAGE).collect();
    let next = rest.peek().and_then(|_| page.last()).map(|(key, _)| escaped(key));
    let mut body = "<?xml version=\"1.0\" encoding=\"utf-8\"?>".to_owned();
    let size = |versions: &[Version]| versions.last().map_or(0, |version| version.body.len());
    if query.get("comp").is_some_and(|comp| comp == "list") {
        body.push_str("<EnumerationResults ServiceEndpoint=\"http://x/\" ContainerName=\"c\"><Blobs>");
        for (key, versions) in page {
            let (key, size) = (escaped(key), size(versions));
            let _ = write!(
                body,
                "<Blob><Name>{key}</Name><Properties><Creation-Time>Mon, 01 Jan 2024 00:00:00 GMT</Creation-Time><Last-Modified>Mon, 01 Jan 2024 00:00:00 GMT</Last-Modified><Etag>0x8DC</Etag><Content-Length>{size}</Content-Length><Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            );
        }
        let _ = write!(body, "</Blobs><NextMarker>{}</NextMarker></EnumerationResults>", next.unwrap_or_default());
    } else {
        body.push_str("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>");
        for (key, versions) in page {
            let (key, size) = (escaped(key), size(versions));
            let _ = write!(
                body,
                "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;0-2&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            );
        }
        let _ = write!(body, "<IsTruncated>{}</IsTruncated>", next.is_some());
        if let Some(next) = next {
            let _ = write!(body, "<NextContinuationToken>{next}</NextContinuationToken>");
        }
        body.push_str("</ListBucketResult>");
    }
    Answer { status: 200, headers: "Content-Type: application/xml\r\n".to_owned(), body: body.into_bytes() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
