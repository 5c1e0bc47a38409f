//! The fetcher against a server that fails: each fault ends in the right bytes or a clear error, in
//! bounded time, and never in wrong bytes in the store.

mod faults;
mod parts;
mod sockets;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;
use trainlock_fetch::{
    Access, Cancel, Content, FetchError, Fetcher, Mismatch, Reason, Resolved, Secret, Settings, SourceFailure, Want,
    Wanted,
};
use trainlock_store::{Session, Store};
use trainlock_testing::{Authority, Fault, FaultServer, refusing_url};
use trainlock_types::{Checksum, DataRequest, DataSource, Digest, Event, Events, Name, RelPath, SourceUrl};

/// Impatient, so that a test of a time-out takes no time; patient enough for a busy machine.
fn settings() -> Settings {
    Settings {
        retries: 2,
        connect_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
        ..Settings::default()
    }
}

fn stalling() -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(500),
        stall_timeout: Duration::from_millis(150),
        retries: 1,
        ..settings()
    }
}

struct Place {
    root: TempDir,
    store: Store,
    session: Session,
}

impl Place {
    fn new() -> Place {
        let root = TempDir::new().unwrap();
        let store = Store::open(&root.path().join("store")).unwrap();
        let session = store.session().unwrap();
        Place { root, store, session }
    }

    fn objects(&self) -> usize {
        let Ok(folders) = fs_err::read_dir(self.root.path().join("store/objects")) else {
            return 0;
        };
        folders.map(|f| fs_err::read_dir(f.unwrap().path()).unwrap().count()).sum()
    }

    fn resolve(&self, settings: Settings, url: &str) -> Result<Resolved, FetchError> {
        self.resolve_checked(settings, &[url], None, None)
    }

    fn resolve_checked(
        &self,
        settings: Settings,
        urls: &[&str],
        checksum: Option<&str>,
        size: Option<u64>,
    ) -> Result<Resolved, FetchError> {
        let checksum: Option<Checksum> = checksum.map(|text| text.parse().unwrap());
        let mut urls: Vec<SourceUrl> = urls.iter().map(|url| SourceUrl::parse(url).unwrap()).collect();
        let source = DataSource::Url {
            url: urls.remove(0),
            mirrors: urls,
            checksum,
            size,
            rev: None,
            files: vec![],
            extract: None,
            unpack: false,
        };
        let request = request(source);
        Fetcher::new(settings, Events::none()).resolve_all(&self.session, &[&request]).remove(0)
    }

    fn bring(&self, settings: Settings, urls: &[&str], body: &[u8]) -> Result<(), FetchError> {
        let want = want(urls, body);
        let result = Fetcher::new(settings, Events::none()).bring_all(&self.session, &[want]).remove(0);
        let there = self.store.object(&Digest::of(body), Some(body.len() as u64)).unwrap();
        assert_eq!(there.is_some(), result.is_ok());
        // Right bytes or none at all.
        assert_eq!(self.objects(), usize::from(result.is_ok()));
        result
    }
}

fn request(source: DataSource) -> DataRequest {
    DataRequest { member: None, name: Name::entry("raw").unwrap(), source, to: RelPath::root() }
}

fn want(urls: &[&str], body: &[u8]) -> Want {
    let sources = urls.iter().map(|url| SourceUrl::parse(url).unwrap()).collect();
    Want { name: "raw".into(), sources, content: Wanted::File { sha256: Digest::of(body), size: body.len() as u64 } }
}

fn body() -> Vec<u8> {
    (0..600_000u32).map(|i| (i % 251) as u8).collect()
}

fn file(body: &[u8]) -> Content {
    Content::File { sha256: Digest::of(body), size: body.len() as u64 }
}

/// The failures of an error, a source each.
fn failures(result: Result<(), FetchError>) -> Vec<SourceFailure> {
    match result {
        Err(FetchError::Sources { failures, .. }) => failures.0,
        other => panic!("{other:?}"),
    }
}

fn reason(result: Result<(), FetchError>) -> Reason {
    let mut failures = failures(result);
    assert_eq!(failures.len(), 1);
    failures.remove(0).reason
}

/// One fault and then a good answer: the bytes come, and after one retry.
#[test]
fn what_passes_is_tried_again() {
    let server = FaultServer::start();
    let body = body();
    let faults = [
        Fault::Close,
        Fault::Reset,
        Fault::ResetAfter(0),
        Fault::ResetAfter(300_000),
        Fault::Truncate(0),
        Fault::Truncate(599_999),
        Fault::TruncateChunked(1000),
        Fault::Status(408),
        Fault::Status(425),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::RetryAfter(429, "0".into()),
        Fault::RetryAfter(503, "Sun, 06 Nov 1994 08:49:37 GMT".into()),
        // Capped, or the test would take a year.
        Fault::RetryAfter(503, "31536000".into()),
    ];
    for (i, fault) in faults.into_iter().enumerate() {
        let path = format!("/{i}");
        server.script(&path, body.clone(), [fault.clone(), Fault::Ok]);
        Place::new().bring(settings(), &[&server.url(&path)], &body).unwrap_or_else(|e| panic!("{fault:?}: {e:?}"));
        assert_eq!(server.requests(&path).len(), 2, "{fault:?}");
        let resolved = Place::new().resolve(settings(), &server.url(&path)).unwrap();
        assert_eq!(resolved.content, file(&body), "{fault:?}");
    }
}

#[test]
fn a_silent_or_stalled_server_is_dropped_and_asked_again() {
    let server = FaultServer::start();
    let body = body();
    for (i, fault) in [Fault::Silent, Fault::Stall(0), Fault::Stall(1000)].into_iter().enumerate() {
        let path = format!("/{i}");
        server.script(&path, body.clone(), [fault.clone(), Fault::Ok]);
        Place::new().bring(stalling(), &[&server.url(&path)], &body).unwrap_or_else(|e| panic!("{fault:?}: {e:?}"));
        server.script(&path, body.clone(), [fault]);
        assert!(matches!(reason(Place::new().bring(stalling(), &[&server.url(&path)], &body)), Reason::Stalled(_)));
    }
    // Slow is not stalled.
    server.script("/slow", body.clone(), [Fault::Drip(100_000, Duration::from_millis(20))]);
    Place::new().bring(settings(), &[&server.url("/slow")], &body).unwrap();
}

#[test]
fn good_answers_in_all_forms() {
    let server = FaultServer::start();
    let body = body();
    for (i, fault) in [Fault::Ok, Fault::NoLength, Fault::Chunked, Fault::Tag("\"1\"".into()), Fault::IgnoreRange]
        .into_iter()
        .enumerate()
    {
        let path = format!("/{i}");
        server.script(&path, body.clone(), [fault.clone()]);
        Place::new().bring(settings(), &[&server.url(&path)], &body).unwrap_or_else(|e| panic!("{fault:?}: {e:?}"));
        let place = Place::new();
        let resolved = place.resolve(settings(), &server.url(&path)).unwrap();
        assert_eq!((resolved.content, resolved.archive), (file(&body), None));
        assert_eq!(place.objects(), 1);
        assert_eq!(server.requests(&path)[0].header("accept-encoding"), Some("identity"));
    }
    server.serve("/empty", "");
    Place::new().bring(settings(), &[&server.url("/empty")], b"").unwrap();
}

#[test]
fn wrong_bytes_are_never_kept() {
    let server = FaultServer::start();
    let body = body();
    server.script("/flip", body.clone(), [Fault::Flip(123_456)]);
    server.script("/extra", body.clone(), [Fault::Extra(b"more".to_vec())]);
    server.script("/short", &body[..100], [Fault::Ok]);
    server.script("/endless", body.clone(), [Fault::Endless]);
    server.script("/encoded", body.clone(), [Fault::Encoded]);
    server.script("/unstated", &body[..100], [Fault::NoLength]);
    let bring = |path: &str| {
        let result = Place::new().bring(settings(), &[&server.url(path)], &body);
        assert!(result.as_ref().is_err_and(FetchError::is_verification), "{path}");
        // The bytes are what they are: no second try.
        assert_eq!(server.requests(path).len(), 1, "{path}");
        match reason(result) {
            Reason::Mismatch { mismatch, html: false } => mismatch,
            other => panic!("{path}: {other:?}"),
        }
    };
    assert!(matches!(bring("/flip"), Mismatch::Sha256 { expected, .. } if expected == Digest::of(&body)));
    assert_eq!(bring("/extra"), Mismatch::Size { expected: 600_000, found: 600_004, more: false });
    assert_eq!(bring("/short"), Mismatch::Size { expected: 600_000, found: 100, more: false });
    assert_eq!(bring("/unstated"), Mismatch::Size { expected: 600_000, found: 100, more: false });
    assert!(matches!(bring("/endless"), Mismatch::Size { expected: 600_000, more: true, .. }));
    // It was stopped soon after.
    assert!(server.bytes("/endless") < 64 << 20, "{}", server.bytes("/endless"));
    // With a known hash the header does not matter.
    Place::new().bring(settings(), &[&server.url("/encoded")], &body).unwrap();

    // Lies about the length: too long is a cut body, too short is a wrong size.
    server.script("/long", body.clone(), [Fault::Length(700_000)]);
    assert!(matches!(Place::new().resolve(settings(), &server.url("/long")), Err(FetchError::Sources { failures, .. })
        if matches!(failures.0[0].reason, Reason::CutOff { expected: Some(700_000), .. })));
    server.script("/less", body.clone(), [Fault::Length(10)]);
    let less = Place::new().bring(settings(), &[&server.url("/less")], &body);
    assert!(matches!(reason(less), Reason::Mismatch { mismatch: Mismatch::Size { found: 10, .. }, .. }));
    server.script("/range", body.clone(), [Fault::WrongRange]);
    let range = Place::new().bring(settings(), &[&server.url("/range")], &body);
    assert!(matches!(reason(range), Reason::Status { status: 206, .. }));
}

#[test]
fn what_does_not_pass_is_tried_once() {
    let server = FaultServer::start();
    for status in [400, 401, 403, 404, 410, 204, 304, 418] {
        let path = format!("/{status}");
        server.script(&path, "", [Fault::Status(status)]);
        let reason = reason(Place::new().bring(settings(), &[&server.url(&path)], b"x"));
        match status {
            401 | 403 => assert!(matches!(reason, Reason::Denied { sent: false, .. }), "{reason:?}"),
            404 | 410 => assert!(matches!(reason, Reason::NotFound(_)), "{reason:?}"),
            _ => assert!(matches!(reason, Reason::Status { .. }), "{reason:?}"),
        }
        assert_eq!(server.requests(&path).len(), 1, "{status}");
    }
}

#[test]
fn retries_end_and_all_reasons_are_told() {
    let server = FaultServer::start();
    server.script("/x", "body", [Fault::Status(500), Fault::Truncate(1), Fault::Status(503)]);
    let refused = refusing_url("/y?access_token=hush");
    let (tell, told) = channel();
    let place = Place::new();
    let want = want(&[&server.url("/x"), &refused], b"body");
    let error = Fetcher::new(settings(), Events::to(tell)).bring_all(&place.session, &[want]).remove(0).unwrap_err();
    let text = format!("{}", std::error::Error::source(&error).unwrap());
    assert_eq!(server.requests("/x").len(), 3);
    for part in
        ["status 503 (tried 3 times; before: ", "status 500", "after 1 bytes of 4", "could not connect", "REDACTED"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hush") && !format!("{error:?}").contains("hush"));
    assert!(!error.is_verification());
    let events: Vec<Event> = told.try_iter().flatten().collect();
    let retries = events.iter().filter(|e| matches!(e, Event::TransferRetry { .. })).count();
    assert_eq!(retries, 4);
    assert!(matches!(events.last(), Some(Event::TransferFinished { sha256: None, .. })));
}

#[test]
fn mirrors_in_their_order() {
    let server = FaultServer::start();
    let body = body();
    server.script("/wrong", body.clone(), [Fault::Flip(0)]);
    server.script("/gone", "", [Fault::Status(404)]);
    server.serve("/good", body.clone());
    server.serve("/unused", body.clone());
    let urls =
        [refusing_url("/x"), server.url("/gone"), server.url("/wrong"), server.url("/good"), server.url("/unused")];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    Place::new().bring(settings(), &urls, &body).unwrap();
    assert!(server.requests("/unused").is_empty());
    let failures = failures(Place::new().bring(settings(), &[urls[0], urls[1], urls[2], "hf://org/x"], &body));
    let reasons: Vec<&Reason> = failures.iter().map(|f| &f.reason).collect();
    assert!(
        matches!(
            reasons[..],
            [Reason::Network(_), Reason::NotFound(404), Reason::Mismatch { .. }, Reason::Unsupported(_)]
        ),
        "{reasons:?}"
    );

    // At lock time a stated checksum chooses as well.
    let place = Place::new();
    let sha256 = format!("sha256:{}", Digest::of(&body));
    let resolved = place.resolve_checked(settings(), &[urls[2], urls[3]], Some(&sha256), None).unwrap();
    assert_eq!((resolved.content, resolved.source), (file(&body), None));
    assert_eq!(place.objects(), 1);
}

#[test]
fn publishers_checksums() {
    let server = FaultServer::start();
    server.serve("/abc", "abc");
    let url = server.url("/abc");
    let resolve = |checksum: &str, size| Place::new().resolve_checked(settings(), &[&url], Some(checksum), size);
    for good in [
        "md5:900150983cd24fb0d6963f7d28e17f72",
        "sha1:a9993e364706816aba3e25717850c26c9cd0d89d",
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ] {
        assert_eq!(resolve(good, Some(3)).unwrap().content, file(b"abc"), "{good}");
        let bad = format!("{}0", &good[..good.len() - 1]);
        let place = Place::new();
        let error = place.resolve_checked(settings(), &[&url], Some(&bad), None).unwrap_err();
        assert!(error.is_verification() && place.objects() == 0);
        let FetchError::Sources { failures, .. } = error else { panic!("{error:?}") };
        let Reason::Mismatch { mismatch: Mismatch::Checksum { expected, found }, .. } = &failures.0[0].reason else {
            panic!("{failures:?}")
        };
        assert_eq!((expected.to_string(), found.to_string()), (bad, good.to_owned()));
    }
    assert!(resolve("md5:900150983cd24fb0d6963f7d28e17f72", Some(4)).unwrap_err().is_verification());
    // What the store has under a stated digest is not fetched again.
    let place = Place::new();
    place.session.put_bytes(b"abc").unwrap();
    let before = server.requests("/abc").len();
    let sha256 = format!("sha256:{}", Digest::of(b"abc"));
    place.resolve_checked(settings(), &[&url], Some(&sha256), None).unwrap();
    assert_eq!(server.requests("/abc").len(), before);
}

#[test]
fn pages_instead_of_data() {
    let server = FaultServer::start();
    for path in ["/data.csv", "/download?id=1", "/page.html"] {
        server.script(path.split('?').next().unwrap(), body(), [Fault::Html]);
    }
    let place = Place::new();
    for path in ["/data.csv", "/download?id=1"] {
        let Err(FetchError::Sources { failures, .. }) = place.resolve(settings(), &server.url(path)) else {
            panic!("{path}")
        };
        assert!(matches!(failures.0[0].reason, Reason::Html), "{path}");
    }
    assert_eq!(place.objects(), 0);
    place.resolve(settings(), &server.url("/page.html")).unwrap();
    // With a known hash that decides, and the page is mentioned.
    let result = Place::new().bring(settings(), &[&server.url("/data.csv")], &body());
    assert!(matches!(reason(result), Reason::Mismatch { html: true, .. }));
    // Unasked compression: another try could give other bytes.
    server.script("/table.csv", body(), [Fault::Encoded]);
    server.script("/table.csv.gz", body(), [Fault::Encoded]);
    let Err(FetchError::Sources { failures, .. }) = Place::new().resolve(settings(), &server.url("/table.csv")) else {
        panic!("taken")
    };
    assert!(matches!(failures.0[0].reason, Reason::Encoded(_)));
    Place::new().resolve(settings(), &server.url("/table.csv.gz")).unwrap();
}

#[test]
fn redirects() {
    let server = FaultServer::start();
    let body = body();
    server.serve("/end", body.clone());
    server.script("/relative", "", [Fault::Redirect("/end".into())]);
    server.script("/other", "", [Fault::Redirect(server.other_host_url("/end"))]);
    server.script("/local", "", [Fault::Redirect("file:///etc/hostname".into())]);
    for status in [301, 302, 303, 307, 308] {
        server.script(&format!("/loop{status}"), "", [Fault::Loop(status)]);
    }
    for path in ["/relative", "/other"] {
        let resolved = Place::new().resolve(settings(), &server.url(path)).unwrap();
        assert_eq!(resolved.source, None);
    }
    for status in [301, 302, 303, 307, 308] {
        let path = format!("/loop{status}");
        assert!(matches!(reason(Place::new().bring(settings(), &[&server.url(&path)], &body)), Reason::Redirects(10)));
        assert_eq!(server.requests(&path).len(), 11);
    }
    assert!(matches!(reason(Place::new().bring(settings(), &[&server.url("/local")], &body)), Reason::BadRedirect));
}

#[test]
fn credentials_go_to_their_host_alone() {
    let server = FaultServer::start();
    // Basic authentication of `ann:s3cret`.
    let login = "Basic YW5uOnMzY3JldA==";
    server.script("/private", "body", [Fault::Authorized(login.into())]);
    server.serve("/open", "body");
    server.script("/away", "", [Fault::Redirect(server.other_host_url("/open"))]);
    server.script("/here", "", [Fault::Redirect(server.url("/private"))]);
    let place = Place::new();
    let netrc = place.root.path().join("netrc");
    let with = |text: &str| {
        fs_err::write(&netrc, text).unwrap();
        Settings { netrc: Some(netrc.clone()), ..settings() }
    };
    let machine = "machine 127.0.0.1 login ann password s3cret\n";
    for path in ["/private", "/here", "/away"] {
        place.resolve(with(machine), &server.url(path)).unwrap();
    }
    assert_eq!(server.requests("/private").last().unwrap().header("authorization"), Some(login));
    assert_eq!(server.requests("/away")[0].header("authorization"), Some(login));
    assert_eq!(server.requests("/open")[0].header("authorization"), None);
    // The default entry is for the first host, and for no other.
    place.resolve(with("default login ann password s3cret"), &server.url("/away")).unwrap();
    assert_eq!(server.requests("/away")[1].header("authorization"), Some(login));
    assert_eq!(server.requests("/open")[1].header("authorization"), None);

    let refused =
        place.resolve(with("machine 127.0.0.1 login ann password wrong"), &server.url("/private")).unwrap_err();
    assert!(refused.hint().unwrap().contains("refused"));
    let missing =
        place.resolve(Settings { netrc: Some(place.root.path().join("none")), ..settings() }, &server.url("/private"));
    let missing = missing.unwrap_err();
    assert!(missing.hint().unwrap().contains("machine 127.0.0.1 login"));
    let text = format!("{refused:?}{refused}{missing:?}{}", std::error::Error::source(&refused).unwrap());
    assert!(!text.contains("wrong") && !text.contains("s3cret"));
}

#[test]
fn tokens_go_to_their_host_alone() {
    let (server, other) = (FaultServer::start(), FaultServer::start());
    server.script("/private", "body", [Fault::Authorized("Bearer t0ken".into())]);
    server.script("/away", "", [Fault::Redirect(other.other_host_url("/open"))]);
    server.script("/port", "", [Fault::Redirect(other.url("/open"))]);
    other.serve("/open", "body");
    let host = server.url("").trim_start_matches("http://").to_owned();
    let with = |access: Access| {
        let mut settings = settings();
        settings.credentials.hosts.insert(host.clone(), access);
        settings
    };
    let place = Place::new();
    let asked = place.root.path().join("asked");
    let script = format!("echo \"$1\" >>{}; echo t0ken", asked.display());
    let helper = Access::Helper(["/bin/sh", "-c", &script, "helper"].map(str::to_owned).to_vec());
    for access in [Access::Known(Secret::token("t0ken")), helper] {
        for path in ["/private", "/away", "/port"] {
            place.resolve(with(access.clone()), &server.url(path)).unwrap();
        }
    }
    assert_eq!(server.requests("/away")[1].header("authorization"), Some("Bearer t0ken"));
    assert!(other.requests("/open").iter().all(|request| request.header("authorization").is_none()));
    // Once for each fetcher, whatever the number of requests.
    assert_eq!(fs_err::read_to_string(&asked).unwrap(), format!("{host}\n").repeat(3));
    let silent = Access::Helper(["/bin/sh", "-c", "echo t0ken >&2; exit 7"].map(str::to_owned).to_vec());
    let failed = place.resolve(with(silent), &server.url("/private")).unwrap_err();
    let text = format!("{failed:?}{}", failed.hint().unwrap());
    assert!(text.contains("exit status: 7") && text.contains(&host) && !text.contains("t0ken"), "{text}");
}

#[test]
fn a_replaced_source() {
    let server = FaultServer::start();
    server.serve("/copy/data/x.csv", "body");
    server.script("/copy/moved", "", [Fault::Redirect("https://second.invalid/x.csv".into())]);
    let place = Place::new();
    let mirror = place.root.path().join("a mirror");
    fs_err::create_dir(&mirror).unwrap();
    fs_err::write(mirror.join("x.csv"), "body").unwrap();
    fs_err::write(mirror.join("x.csv?v=2"), "body").unwrap();
    let with = || {
        let mut settings = settings();
        settings.replace.add("https://first.invalid", &server.url("/copy")).unwrap();
        let folder = format!("file://{}", mirror.display().to_string().replace(' ', "%20"));
        settings.replace.add("https://second.invalid", &folder).unwrap();
        settings
    };
    let body = Digest::of(b"body");
    for url in ["https://first.invalid/data/x.csv", "https://second.invalid/x.csv", "https://first.invalid/moved"] {
        let place = Place::new();
        let resolved = place.resolve(with(), url).unwrap();
        assert_eq!((resolved.source, resolved.content), (None, Content::File { sha256: body, size: 4 }));
    }
    // A file needs no network.
    let off = || Settings { offline: true, ..with() };
    Place::new().bring(off(), &["https://second.invalid/x.csv?v=2"], b"body").unwrap();
    let error = Place::new().bring(off(), &["https://first.invalid/data/x.csv"], b"body").unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error:?}");
    // The hash decides, and errors name both addresses.
    fs_err::write(mirror.join("x.csv"), "bady").unwrap();
    let place = Place::new();
    let error = place.bring(with(), &["https://second.invalid/x.csv"], b"body").unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.is_verification() && text.contains("https://second.invalid/x.csv (replaced by file://"), "{text}");
    assert_eq!(place.objects(), 0);
    let failed = reason(place.bring(with(), &["https://second.invalid/none"], b"body"));
    assert!(matches!(failed, Reason::NoFile), "{failed:?}");
}

#[test]
fn offline() {
    let server = FaultServer::start();
    server.serve("/x", "body");
    let place = Place::new();
    let local = place.root.path().join("copy");
    let local_url = format!("file://{}", local.display());
    let off = || Settings { offline: true, ..settings() };
    let error = place.bring(off(), &[&server.url("/x")], b"body").unwrap_err();
    assert!(matches!(&error, FetchError::Offline { url, .. } if *url == server.url("/x")));
    let both = failures(place.bring(off(), &[&server.url("/x"), &local_url], b"body"));
    assert!(matches!((&both[0].reason, &both[1].reason), (Reason::Offline, Reason::NoFile)));
    fs_err::write(&local, "body").unwrap();
    place.bring(off(), &[&server.url("/x"), &local_url], b"body").unwrap();
    assert_eq!(server.request_count(), 0);
    // Now it is there, and nobody is asked.
    place.bring(off(), &[&server.url("/x")], b"body").unwrap();
}

#[test]
fn files_of_this_machine() {
    let place = Place::new();
    let at = |name: &str| format!("file://{}", place.root.path().join(name).display());
    fs_err::write(place.root.path().join("a b.csv"), "x,y").unwrap();
    let resolved = place.resolve(settings(), &at("a%20b.csv")).unwrap();
    assert_eq!((resolved.content, resolved.source), (file(b"x,y"), None));
    fs_err::create_dir(place.root.path().join("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(place.root.path().join("pipe")).status().unwrap().success());
    let reason = |name: &str| match place.resolve(settings(), &at(name)) {
        Err(FetchError::Sources { mut failures, .. }) => failures.0.remove(0).reason,
        other => panic!("{name}: {other:?}"),
    };
    assert!(matches!(reason("none"), Reason::NoFile));
    assert!(matches!(reason("a%20b.csv/x"), Reason::NoFile));
    assert!(matches!(reason("folder"), Reason::NotAFile("a folder")));
    assert!(matches!(reason("pipe"), Reason::NotAFile("a named pipe")));
    assert!(place.resolve_checked(settings(), &[&at("a%20b.csv")], None, Some(4)).unwrap_err().is_verification());
}

#[test]
fn many_at_once_in_their_order() {
    let server = FaultServer::start();
    let place = Place::new();
    let bodies: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; 1000 + usize::from(i)]).collect();
    let mut wants = Vec::new();
    for (i, body) in bodies.iter().enumerate() {
        let path = format!("/{i}");
        server.script(&path, body.clone(), if i % 7 == 3 { [Fault::Status(404)] } else { [Fault::Ok] });
        wants.push(want(&[&server.url(&path)], body));
    }
    // The same twice is fetched once.
    wants.push(wants[0].clone());
    place.session.put_bytes(&bodies[1]).unwrap();
    let fetcher = Fetcher::new(settings(), Events::none());
    let results = fetcher.bring_all(&place.session, &wants);
    for (i, result) in results.iter().take(40).enumerate() {
        assert_eq!(result.is_err(), i % 7 == 3, "{i}: {result:?}");
    }
    assert!(results[40].is_ok());
    assert_eq!(server.requests("/0").len(), 1);
    assert!(server.requests("/1").is_empty());
}

/// Two fetchers with sessions of their own stand for two processes: file locks know no difference.
#[test]
fn one_fetches_the_other_waits() {
    let server = FaultServer::start();
    let place = Place::new();
    let body = body();
    server.script("/x", body.clone(), [Fault::Drip(60_000, Duration::from_millis(10))]);
    let run = || {
        let (tell, told): (_, Receiver<Vec<Event>>) = channel();
        let session = place.store.session().unwrap();
        let fetcher = Fetcher::new(settings(), Events::to(tell));
        fetcher.bring_all(&session, &[want(&[&server.url("/x")], &body)]).remove(0).unwrap();
        drop(fetcher);
        told.into_iter().flatten().filter(|e| matches!(e, Event::Waiting { .. })).count()
    };
    let waited: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(server.requests("/x").len(), 1);
    assert!(waited <= 3);
}

/// Small files have one lock together.
#[test]
fn of_two_that_want_the_same_small_files_one_fetches_them() {
    let server = FaultServer::start();
    let place = Place::new();
    let body = |i: usize| format!("{}\n", i / 2).repeat(100).into_bytes();
    (0..60).for_each(|i| server.script(&format!("/{i}"), body(i), [Fault::Drip(200, Duration::from_millis(5))]));
    let wants: Vec<Want> = (0..60).map(|i| want(&[&server.url(&format!("/{i}"))], &body(i))).collect();
    let run = || {
        let (tell, told): (_, Receiver<Vec<Event>>) = channel();
        let session = place.store.session().unwrap();
        let fetcher = Fetcher::new(settings(), Events::to(tell));
        fetcher.bring_all(&session, &wants).into_iter().for_each(|result| result.unwrap());
        drop(fetcher);
        told.into_iter().flatten().filter(|e| matches!(e, Event::Waiting { .. })).count()
    };
    let waited: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert!(waited <= 2, "{waited}");
    assert_eq!(place.objects(), 30);
    for i in 0..60 {
        assert!(server.requests(&format!("/{i}")).len() <= 1, "{i}");
    }
}

#[test]
fn an_interrupt_ends_transfers_and_waits() {
    let server = FaultServer::start();
    server.script("/stall", body(), [Fault::Stall(1000)]);
    server.script("/busy", body(), [Fault::RetryAfter(503, "1000".into())]);
    server.script("/silent", body(), [Fault::Silent]);
    let patient = |cancel: &Cancel| Settings {
        stall_timeout: Duration::from_secs(1000),
        longest_wait: Duration::from_secs(1000),
        cancel: cancel.clone(),
        ..settings()
    };
    for path in ["/stall", "/busy", "/silent"] {
        let place = Place::new();
        let cancel = Cancel::new();
        let (tell, told) = channel();
        let fetcher = Fetcher::new(patient(&cancel), Events::to(tell));
        let want = want(&[&server.url(path)], &body());
        let result = std::thread::scope(|scope| {
            let running = scope.spawn(|| fetcher.bring_all(&place.session, &[want]).remove(0));
            // Thrown once the transfer has begun; where it is by then does not matter.
            assert!(matches!(told.recv().unwrap()[..], [Event::TransferStarted { .. }]));
            cancel.throw();
            running.join().unwrap()
        });
        assert!(matches!(result, Err(FetchError::Interrupted { .. })), "{path}: {result:?}");
        assert_eq!(place.objects(), 0);
    }
}

#[test]
fn an_archive_comes_once_for_its_members_and_its_tree() {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in [("a.txt", "one"), ("b/c.txt", "two")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data.as_bytes()).unwrap();
    }
    let packed = builder.into_inner().unwrap();
    let archive = (Digest::of(&packed), packed.len() as u64);
    let server = FaultServer::start();
    server.serve("/x.tar", packed.clone());
    let source = |extract: Option<&str>| DataSource::Url {
        url: SourceUrl::parse(&server.url("/x.tar")).unwrap(),
        mirrors: vec![],
        checksum: None,
        size: None,
        rev: None,
        files: vec![],
        extract: extract.map(|path| RelPath::parse(path).unwrap()),
        unpack: extract.is_none(),
    };
    let locked = Place::new();
    let fetcher = Fetcher::new(settings(), Events::none());
    let tree = fetcher.resolve_all(&locked.session, &[&request(source(None))]).remove(0).unwrap();
    assert_eq!(tree.archive, Some(archive));
    let Content::Tree { digest, size, count, .. } = tree.content else { panic!("no tree") };

    let place = Place::new();
    let sources = vec![SourceUrl::parse(&server.url("/x.tar")).unwrap()];
    let member = |path: &str, data: &str| Wanted::Member {
        archive,
        member: RelPath::parse(path).unwrap(),
        sha256: Digest::of(data.as_bytes()),
        size: 3,
    };
    let contents = [
        member("a.txt", "one"),
        member("b/c.txt", "two"),
        Wanted::Tree { archive, tree: digest, size, count },
        member("a.txt", "two"),
    ];
    let wants: Vec<Want> =
        contents.into_iter().map(|content| Want { name: "x".into(), sources: sources.clone(), content }).collect();
    let before = server.requests("/x.tar").len();
    let results = fetcher.bring_all(&place.session, &wants[..3]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(server.requests("/x.tar").len(), before + 1);
    assert!(place.store.has_tree(&digest));
    assert!(place.store.object(&Digest::of(b"two"), Some(3)).unwrap().is_some());
    // Another hash in the lock than the member has.
    let wrong = Place::new();
    let error = fetcher.bring_all(&wrong.session, &wants[3..]).remove(0).unwrap_err();
    assert!(
        matches!(&error, FetchError::Unpacked { mismatch: Mismatch::Sha256 { .. }, .. }) && error.is_verification()
    );
    assert!(wrong.store.object(&Digest::of(b"one"), None).unwrap().is_none());
}

#[test]
fn https_with_an_authority_of_its_own() {
    let place = Place::new();
    let authority = Authority::new();
    let pem = place.root.path().join("ca.pem");
    authority.write(&pem);
    let server = FaultServer::start_tls(&authority);
    let plain = FaultServer::start();
    let body = body();
    server.script("/x", body.clone(), [Fault::Truncate(1000), Fault::NoLength]);
    server.script("/down", "", [Fault::Redirect(plain.url("/x"))]);
    plain.serve("/x", body.clone());
    let trusting = || Settings { certificates: Some(pem.clone()), ..settings() };
    place.bring(trusting(), &[&server.url("/x")], &body).unwrap();
    assert_eq!(server.requests("/x").len(), 2);
    let down = reason(Place::new().bring(trusting(), &[&server.url("/down")], &body));
    assert!(matches!(&down, Reason::Downgrade(to) if *to == plain.url("/x")), "{down:?}");
    assert_eq!(plain.request_count(), 0);
    // From http to https is no downgrade.
    plain.script("/up", "", [Fault::Redirect(server.url("/x"))]);
    Place::new().bring(trusting(), &[&plain.url("/up")], &body).unwrap();

    let other = place.root.path().join("other.pem");
    Authority::new().write(&other);
    let before = server.request_count();
    let strange =
        reason(Place::new().bring(Settings { certificates: Some(other), ..settings() }, &[&server.url("/x")], &body));
    assert!(matches!(strange, Reason::Certificate(_)), "{strange:?}");
    assert_eq!(server.request_count(), before);
    let missing = reason(Place::new().bring(
        Settings { certificates: Some("/none.pem".into()), ..settings() },
        &[&server.url("/x")],
        &body,
    ));
    assert!(matches!(&missing, Reason::Setup(text) if text.contains("none.pem")), "{missing:?}");
}

/// Runs [`child`] with this environment, in a folder that names the address to fetch.
fn in_child(folder: &Path, url: &str, environment: &[(&str, &str)]) -> bool {
    child_output(folder, url, environment).status.success()
}

fn child_output(folder: &Path, url: &str, environment: &[(&str, &str)]) -> Output {
    fs_err::write(folder.join("url"), url).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--quiet"]).current_dir(folder).env_clear();
    command.envs(environment.iter().copied()).output().unwrap()
}

#[test]
#[ignore = "run by the tests that need an environment of their own"]
fn child() {
    let url = fs_err::read_to_string("url").unwrap();
    Place::new().resolve(Settings { retries: 0, ..settings() }, &url).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn certificates_from_the_environment() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new();
    let pem = folder.path().join("ca.pem");
    authority.write(&pem);
    let server = FaultServer::start_tls(&authority);
    server.serve("/x", "body");
    assert!(in_child(folder.path(), &server.url("/x"), &[("SSL_CERT_FILE", pem.to_str().unwrap())]));
    assert!(!in_child(folder.path(), &server.url("/x"), &[]));
}

#[test]
fn proxies_from_the_environment() {
    let folder = TempDir::new().unwrap();
    let proxy = FaultServer::start();
    // A proxy gets the whole address as its target.
    proxy.serve("http://data.invalid/x", "body");
    let at = proxy.url("");
    assert!(in_child(folder.path(), "http://data.invalid/x", &[("HTTP_PROXY", &at), ("http_proxy", &at)]));
    let not =
        [("HTTP_PROXY", at.as_str()), ("http_proxy", &at), ("NO_PROXY", "data.invalid"), ("no_proxy", "data.invalid")];
    assert!(!in_child(folder.path(), "http://data.invalid/x", &not));
    assert_eq!(proxy.request_count(), 1);
}

/// What a large body is: no two parts of it are the same.
fn large() -> Vec<u8> {
    (0..4u32 << 18).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn a_large_file_is_gone_on_with() {
    let server = FaultServer::start();
    let body = large();
    let size = body.len() as u64;
    let url = server.url("/x");
    // Within one command: each try begins where the last one ended.
    server.script("/x", body.clone(), [Fault::Truncate(3 << 20), Fault::Ok]);
    let place = Place::new();
    place.bring(settings(), &[&url], &body).unwrap();
    let ranges: Vec<Option<String>> =
        server.requests("/x").iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges[0], None);
    assert!(ranges[1..].iter().all(Option::is_some), "{ranges:?}");
    assert!(server.bytes("/x") < size + (1 << 20), "{} of {size} bytes were sent", server.bytes("/x"));

    // All of it had come, and its writer was ended before it could say so: nobody is asked.
    let place = Place::new();
    fs_err::create_dir(place.store.root().join("partial")).unwrap();
    fs_err::write(place.store.root().join("partial").join(Digest::of(&body).to_hex()), &body).unwrap();
    let asked = server.requests("/x").len();
    place.bring(settings(), &[&url], &body).unwrap();
    assert_eq!(server.requests("/x").len(), asked);

    // Another process with the same store, after one that gave up.
    server.script("/x", body.clone(), [Fault::Truncate(3 << 20), Fault::Ok]);
    let place = Place::new();
    let impatient = || Settings { retries: 0, ..settings() };
    place.bring(impatient(), &[&url], &body).unwrap_err();
    assert_eq!(place.objects(), 0);
    let Place { root, store, session } = place;
    drop(session);
    let later = Place { session: store.session().unwrap(), store, root };
    later.bring(impatient(), &[&url], &body).unwrap();
    assert_eq!(server.requests("/x")[1].header("range"), Some(format!("bytes={}-", 3 << 20).as_str()));
    assert!(fs_err::read_dir(later.store.root().join("partial")).unwrap().next().is_none(), "nothing of it is left");
}

#[test]
fn parts_that_do_not_fit_are_thrown_away() {
    let server = FaultServer::start();
    let body = large();
    let mut other = body.clone();
    other[10] ^= 1;
    let url = server.url("/x");
    // A server that ignores ranges, one that lies about them, and one whose content changed midway.
    for then in [Fault::IgnoreRange, Fault::WrongRange, Fault::Status(416)] {
        server.script("/x", body.clone(), [Fault::Truncate(2 << 20), then.clone(), Fault::Ok]);
        Place::new().bring(settings(), &[&url], &body).unwrap_or_else(|e| panic!("{then:?}: {e:?}"));
    }
    let place = Place::new();
    server.script("/x", other.clone(), [Fault::Truncate(2 << 20)]);
    place.bring(Settings { retries: 0, ..settings() }, &[&url], &body).unwrap_err();
    server.script("/x", body.clone(), [Fault::Ok]);
    place.bring(settings(), &[&url], &body).unwrap();
    // What is wrong from the start is wrong, and nothing of it stays.
    let place = Place::new();
    server.script("/x", other, [Fault::Truncate(2 << 20), Fault::Ok]);
    let error = place.bring(settings(), &[&url], &body).unwrap_err();
    assert!(error.is_verification(), "{error:?}");
    assert!(fs_err::read_dir(place.store.root().join("partial")).unwrap().next().is_none());
    // Of two mirrors the second goes on where the first died.
    let (first, second) = (server.url("/first"), server.url("/second"));
    server.script("/first", body.clone(), [Fault::Truncate(2 << 20), Fault::Status(404)]);
    server.script("/second", body.clone(), [Fault::Ok]);
    Place::new().bring(settings(), &[&first, &second], &body).unwrap();
    let sent = server.bytes("/second");
    assert!(sent <= (2 << 20) + (64 << 10), "{sent} bytes of the second half");
}
