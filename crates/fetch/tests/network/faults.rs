//! What servers do wrong, a row each: the right bytes come or the named error does, in bounded time, and nothing wrong is in the store.

use super::*;
use std::time::Instant;

/// How a row ends.
enum Then {
    /// With the right bytes.
    Right,
    /// With an error of the last source that this is true of.
    Wrong(fn(&Reason) -> bool),
}
use Then::{Right, Wrong};

/// So long may a row take on a busy machine; most take milliseconds.
const BOUND: Duration = Duration::from_secs(20);

fn network(reason: &Reason) -> bool {
    matches!(reason, Reason::Network(_))
}

fn wrong_size(reason: &Reason) -> bool {
    matches!(reason, Reason::Mismatch { mismatch: Mismatch::Size { .. }, .. })
}

fn wrong_hash(reason: &Reason) -> bool {
    matches!(reason, Reason::Mismatch { mismatch: Mismatch::Sha256 { .. }, .. })
}

/// All that is in the store is what its name says.
fn nothing_wrong_is_kept(place: &Place, row: &str) {
    let objects = place.root.path().join("store/objects");
    let Ok(folders) = fs_err::read_dir(&objects) else { return };
    for folder in folders {
        let folder = folder.unwrap();
        for object in fs_err::read_dir(folder.path()).unwrap() {
            let object = object.unwrap();
            let name = format!("{}{}", folder.file_name().display(), object.file_name().display());
            assert_eq!(Digest::of(&fs_err::read(object.path()).unwrap()).to_hex(), name, "{row}");
        }
    }
}

/// Fetches the locked body, and then locks what is there.
fn one_row(row: &str, settings: &Settings, set_up: &dyn Fn() -> Vec<String>, body: &[u8], then: &Then, lies: bool) {
    let began = Instant::now();
    let urls = set_up();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let place = Place::new();
    let result = place.bring(settings.clone(), &urls, body);
    match then {
        Right => {
            result.unwrap_or_else(|e| panic!("{row}: {e:?}"));
            let left = fs_err::read_dir(place.store.root().join("partial")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{row}: nothing is left of it");
        }
        Wrong(is_named) => {
            let failures = failures(result);
            let last = &failures.last().unwrap().reason;
            assert!(is_named(last), "{row}: {last:?}");
            let text = failures.last().unwrap().to_string();
            assert!(!text.contains("s3cret"), "{row}: {text}");
        }
    }
    nothing_wrong_is_kept(&place, row);
    assert!(began.elapsed() < BOUND, "{row}: {:?}", began.elapsed());

    let began = Instant::now();
    let urls = set_up();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let place = Place::new();
    // Who knows no hash must believe a server that contradicts nothing that it says.
    if let Ok(resolved) = place.resolve_checked(settings.clone(), &urls, None, None) {
        assert!(lies || resolved.content == file(body), "{row}: locked what the file is not");
    }
    nothing_wrong_is_kept(&place, row);
    assert!(began.elapsed() < BOUND, "{row}, locking: {:?}", began.elapsed());
}

/// What, the faults in turn, how it ends, and whether the server lies without contradicting itself.
type Row = (&'static str, Vec<Fault>, Then, bool);

/// For a file of so many bytes.
fn rows(n: usize) -> Vec<Row> {
    let after = |fault: Fault| vec![fault, Fault::Ok];
    let cut = |n: usize, then: Fault| vec![Fault::Truncate(n), then, Fault::Ok];
    vec![
        ("it closes before it answers", after(Fault::Close), Right, false),
        ("it resets before it answers", after(Fault::Reset), Right, false),
        ("it resets always", vec![Fault::Reset], Wrong(network), false),
        ("it resets behind the head", after(Fault::ResetAfter(0)), Right, false),
        ("it resets midway", after(Fault::ResetAfter(n / 2)), Right, false),
        ("it ends behind the head", after(Fault::Truncate(0)), Right, false),
        ("it ends after a quarter", after(Fault::Truncate(n / 4)), Right, false),
        ("it ends after a half", after(Fault::Truncate(n / 2)), Right, false),
        ("it ends after three quarters", after(Fault::Truncate(3 * n / 4)), Right, false),
        ("it ends before the last byte", after(Fault::Truncate(n - 1)), Right, false),
        (
            "it ends always",
            vec![Fault::Truncate(1000)],
            Wrong(|r| matches!(r, Reason::CutOff { .. } | Reason::Resume | Reason::Status { .. })),
            false,
        ),
        ("it ends in a chunk", after(Fault::TruncateChunked(n / 3)), Right, false),
        ("it says nothing, once", after(Fault::Silent), Right, false),
        ("it says nothing", vec![Fault::Silent], Wrong(|r| matches!(r, Reason::Stalled(_))), false),
        ("it stalls midway, once", after(Fault::Stall(n / 2)), Right, false),
        (
            "it stalls always",
            vec![Fault::Stall(1000)],
            Wrong(|r| matches!(r, Reason::Stalled(_) | Reason::Resume)),
            false,
        ),
        ("a few bytes a second, once", after(Fault::Drip(1, Duration::from_millis(150))), Right, false),
        (
            "a few bytes a second",
            vec![Fault::Drip(1, Duration::from_millis(150))],
            Wrong(|r| matches!(r, Reason::Slow { .. })),
            false,
        ),
        ("a length that is too small", vec![Fault::Length(n as u64 - 10)], Wrong(wrong_size), true),
        ("a length that is too large", vec![Fault::Length(n as u64 + 10)], Wrong(wrong_size), false),
        ("no length", vec![Fault::NoLength], Right, false),
        ("chunked", vec![Fault::Chunked], Right, false),
        ("encoded, it says", vec![Fault::Encoded], Right, false),
        ("ranges ignored", cut(n / 2, Fault::IgnoreRange), Right, false),
        ("a part with another offset", cut(n / 2, Fault::WrongRange), Right, false),
        ("a part with another total", cut(n / 2, Fault::WrongTotal), Right, false),
        (
            "a part where all was wanted",
            vec![Fault::WrongTotal],
            Wrong(|r| matches!(r, Reason::Status { status: 206, .. })),
            false,
        ),
        ("no such range", cut(n / 2, Fault::Status(416)), Right, false),
        (
            "another tag midway",
            vec![Fault::TruncateTagged(n / 2, "\"a\"".into()), Fault::Tag("\"b\"".into())],
            Right,
            false,
        ),
        (
            "another date midway",
            vec![
                Fault::TruncateTagged(n / 2, "W/\"a\"".into()),
                Fault::Modified("Sun, 06 Nov 1994 08:49:37 GMT".into()),
            ],
            Right,
            false,
        ),
        ("other content midway, then back", cut(n / 2, Fault::Flip(n - 10)), Right, true),
        ("other content from now on", vec![Fault::Truncate(n / 2), Fault::Flip(n - 10)], Wrong(wrong_hash), true),
        ("one bit", vec![Fault::Flip(n / 3)], Wrong(wrong_hash), true),
        ("bytes behind the end", vec![Fault::Extra(b"more".to_vec())], Wrong(wrong_size), true),
        ("an HTML page", vec![Fault::Html], Wrong(|r| matches!(r, Reason::Mismatch { html: true, .. })), false),
        ("404", vec![Fault::Status(404)], Wrong(|r| matches!(r, Reason::NotFound(404))), false),
        ("410", vec![Fault::Status(410)], Wrong(|r| matches!(r, Reason::NotFound(410))), false),
        ("401", vec![Fault::Status(401)], Wrong(|r| matches!(r, Reason::Denied { status: 401, sent: false })), false),
        ("403", vec![Fault::Status(403)], Wrong(|r| matches!(r, Reason::Denied { status: 403, .. })), false),
        ("429 with seconds", after(Fault::RetryAfter(429, "0".into())), Right, false),
        ("429 with a date", after(Fault::RetryAt(429, 1)), Right, false),
        ("429 with nonsense", after(Fault::RetryAfter(429, "soon".into())), Right, false),
        ("500, 502, then right", vec![Fault::Status(500), Fault::Status(502), Fault::Ok], Right, false),
        ("503, 504, then right", vec![Fault::Status(503), Fault::Status(504), Fault::Ok], Right, false),
        ("503 always", vec![Fault::Status(503)], Wrong(|r| matches!(r, Reason::Status { status: 503, .. })), false),
        (
            "a redirect without a place",
            vec![Fault::Status(302)],
            Wrong(|r| matches!(r, Reason::Status { status: 302, .. })),
            false,
        ),
        ("a redirect loop", vec![Fault::Loop(302)], Wrong(|r| matches!(r, Reason::Redirects(_))), false),
        (
            "a redirect to what is not fetched",
            vec![Fault::Redirect("ftp://a.invalid/x".into())],
            Wrong(|r| matches!(r, Reason::BadRedirect)),
            false,
        ),
        ("a redirect with a token", vec![Fault::Redirect("/signed?token=s3cret".into())], Right, false),
        (
            "a redirect with a token to nothing",
            vec![Fault::Redirect("/none?token=s3cret".into())],
            Wrong(|r| matches!(r, Reason::NotFound(404))),
            false,
        ),
        ("no HTTP", vec![Fault::Garbage], Wrong(network), false),
        ("headers without an end", vec![Fault::EndlessHead], Wrong(network), false),
    ]
}

fn quick() -> Settings {
    Settings { stall_timeout: Duration::from_millis(400), connect_timeout: Duration::from_millis(500), ..settings() }
}

#[test]
fn every_fault_ends_right_or_clear() {
    let body: Vec<u8> = (0..3u32 << 17).flat_map(u32::to_le_bytes).collect();
    let rows = rows(body.len());
    assert!(rows.len() >= 30);
    for (row, faults, then, lies) in &rows {
        let server = FaultServer::start();
        server.serve("/signed", body.clone());
        let set_up = || {
            server.script("/x", body.clone(), faults.clone());
            vec![server.url("/x")]
        };
        one_row(row, &quick(), &set_up, &body, then, *lies);
    }
}

/// Small files are asked for several at a time: what is wrong with one is nothing to the others.
#[test]
fn every_fault_of_a_small_file_is_its_own() {
    let body = |i: usize| (0..5000usize).flat_map(|k| (k * 48 + i).to_le_bytes()).collect::<Vec<u8>>();
    let rows = rows(body(0).len());
    // Each has a good one beside it, and there are enough for every thread of a large machine.
    let cores = std::thread::available_parallelism().unwrap().get();
    let count = (2 * rows.len()).max(16 * cores);
    let (place, servers): (_, Vec<FaultServer>) = (Place::new(), rows.iter().map(|_| FaultServer::start()).collect());
    let mut wants = Vec::new();
    for i in 0..count {
        let server = &servers[i / 2 % servers.len()];
        let path = match rows.get(i / 2).filter(|_| i % 2 == 0) {
            Some((_, faults, ..)) => {
                server.serve("/signed", body(i));
                server.script("/x", body(i), faults.clone());
                "/x".to_owned()
            }
            None => {
                server.serve(&format!("/{i}"), body(i));
                format!("/{i}")
            }
        };
        wants.push(want(&[&server.url(&path)], &body(i)));
    }
    let (tell, told): (_, Receiver<Vec<Event>>) = channel();
    let began = Instant::now();
    let fetcher = Fetcher::new(quick(), Events::to(tell));
    let results = fetcher.bring_all(&place.session, &wants);
    drop(fetcher);
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    for (i, result) in results.into_iter().enumerate() {
        match rows.get(i / 2).filter(|_| i % 2 == 0) {
            None => result.unwrap_or_else(|e| panic!("{i}: {e:?}")),
            // Nothing of the first try is gone on with, so that these answers are to a question for the whole.
            Some((row @ ("a part with another offset" | "a part with another total" | "no such range"), ..)) => {
                assert!(matches!(failures(result).remove(0).reason, Reason::Status { status: 206 | 416, .. }), "{row}")
            }
            Some((row @ "other content midway, then back", ..)) => {
                assert!(wrong_hash(&failures(result).remove(0).reason), "{row}")
            }
            Some((row, _, Wrong(is_named), _)) => {
                let failure = failures(result).remove(0);
                assert!(is_named(&failure.reason) && !failure.to_string().contains("s3cret"), "{row}: {failure}");
            }
            Some((row, ..)) => result.unwrap_or_else(|e| panic!("{row}: {e:?}")),
        }
    }
    nothing_wrong_is_kept(&place, "small ones");
    let told: Vec<Event> = told.into_iter().flatten().collect();
    let started = told.iter().filter(|event| matches!(event, Event::TransferStarted { .. })).count();
    let finished = told.iter().filter(|event| matches!(event, Event::TransferFinished { .. })).count();
    assert_eq!((started, finished), (count, count));
}

#[test]
fn bodies_that_are_something_else() {
    let body: Vec<u8> = (0..2u32 << 17).flat_map(u32::to_le_bytes).collect();
    let server = FaultServer::start();
    // Compressed though nobody asked for it: its bytes are others.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &body).unwrap();
    let packed = packed.finish().unwrap();
    let gzip = || {
        server.script("/gzip", packed.clone(), [Fault::Encoded]);
        vec![server.url("/gzip")]
    };
    one_row("gzip anyway", &settings(), &gzip, &body, &Wrong(wrong_size), false);
    let empty = || {
        server.serve("/empty", "");
        vec![server.url("/empty")]
    };
    one_row("an empty body", &settings(), &empty, &body, &Wrong(wrong_size), true);

    server.script("/endless", "", [Fault::Endless]);
    let place = Place::new();
    let failure = reason(place.bring(settings(), &[&server.url("/endless")], &body));
    assert!(wrong_size(&failure), "{failure:?}");
    nothing_wrong_is_kept(&place, "an endless body");
    assert!(server.bytes("/endless") < 64 << 20, "{}", server.bytes("/endless"));
}

/// What one mirror does wrong costs a little time where there is another.
#[test]
fn one_of_two_mirrors() {
    let body: Vec<u8> = (0..2u32 << 17).flat_map(u32::to_le_bytes).collect();
    let quick = Settings { retries: 1, ..stalling() };
    let good = FaultServer::start();
    good.serve("/x", body.clone());
    let rows: Vec<(&str, Option<Fault>)> = vec![
        ("refuses", None),
        ("wrong bytes", Some(Fault::Flip(5))),
        ("too few", Some(Fault::Truncate(1 << 20))),
        ("silent", Some(Fault::Silent)),
        ("a few bytes a second", Some(Fault::Drip(1, Duration::from_millis(150)))),
        ("a page", Some(Fault::Html)),
        ("404", Some(Fault::Status(404))),
        ("503", Some(Fault::Status(503))),
        ("a loop", Some(Fault::Loop(307))),
        ("no HTTP", Some(Fault::Garbage)),
    ];
    for (row, fault) in rows {
        let bad = FaultServer::start();
        let address = match fault {
            None => refusing_url("/x"),
            Some(fault) => {
                bad.script("/x", body.clone(), [fault]);
                bad.url("/x")
            }
        };
        let place = Place::new();
        let began = Instant::now();
        place.bring(quick.clone(), &[&address, &good.url("/x")], &body).unwrap_or_else(|e| panic!("{row}: {e:?}"));
        assert!(began.elapsed() < BOUND, "{row}");
        nothing_wrong_is_kept(&place, row);
    }
}

#[test]
fn certificates_downgrades_and_proxies() {
    let body = b"the body".as_slice();
    let place = Place::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let pem = place.root.path().join("ca.pem");
    authority.write(&pem);
    let trusting = Settings { certificates: Some(pem), ..settings() };
    let (stranger, secure, plain) =
        (FaultServer::start_tls(&other), FaultServer::start_tls(&authority), FaultServer::start());
    let at_stranger = || {
        stranger.serve("/x", body);
        vec![stranger.url("/x")]
    };
    one_row(
        "a certificate of nobody",
        &trusting,
        &at_stranger,
        body,
        &Wrong(|r| matches!(r, Reason::Certificate(_))),
        false,
    );
    assert_eq!(stranger.request_count(), 0);
    let downgraded = || {
        plain.serve("/x", body);
        secure.script("/x", "", [Fault::Redirect(plain.url("/x?token=s3cret"))]);
        vec![secure.url("/x")]
    };
    one_row("a redirect to http", &trusting, &downgraded, body, &Wrong(|r| matches!(r, Reason::Downgrade(_))), false);
    assert_eq!(plain.request_count(), 0);
    let cut = || {
        secure.script("/x", body, [Fault::ResetAfter(3), Fault::Truncate(3), Fault::NoLength]);
        vec![secure.url("/x")]
    };
    one_row("TLS cut off", &trusting, &cut, body, &Right, false);

    // A proxy that is not there, one that refuses, and one that wants a login.
    let folder = TempDir::new().unwrap();
    let proxy = FaultServer::start();
    proxy.script("http://data.invalid/x", "", [Fault::Status(407)]);
    proxy.script("http://data.invalid/y", "", [Fault::Status(503)]);
    for (at, path, words) in [
        (refusing_url(""), "/x", "could not connect"),
        (proxy.url(""), "/x", "Denied { status: 407"),
        (proxy.url(""), "/y", "Status { status: 503"),
    ] {
        let began = Instant::now();
        let output = child_output(
            folder.path(),
            &format!("http://data.invalid{path}"),
            &[("HTTP_PROXY", at.as_str()), ("http_proxy", &at)],
        );
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && text.contains(words), "{words}: {text}");
        assert!(began.elapsed() < BOUND);
    }
}
