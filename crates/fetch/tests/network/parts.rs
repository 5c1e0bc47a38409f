//! One file over several connections, and over several processes.

use super::*;
use std::process::{Child, Stdio};
use std::time::Instant;

/// Of `mib` MiB, no two parts of which are the same.
fn body_of(mib: u32) -> Vec<u8> {
    (0..mib << 18).flat_map(u32::to_le_bytes).collect()
}

/// About 12 MB/s a connection.
fn slowly() -> Fault {
    Fault::Drip(128 << 10, Duration::from_millis(10))
}

fn ranges(server: &FaultServer, path: &str) -> Vec<String> {
    server.requests(path).iter().filter_map(|r| r.header("range").map(str::to_owned)).collect()
}

fn partials(place: &Place) -> usize {
    fs_err::read_dir(place.store.root().join("partial")).map_or(0, Iterator::count)
}

#[test]
fn a_slow_server_is_asked_for_parts() {
    let server = FaultServer::start();
    let body = body_of(32);
    server.script("/x", body.clone(), [slowly()]);
    let place = Place::new();
    place.bring(settings(), &[&server.url("/x")], &body).unwrap();
    let ranges = ranges(&server, "/x");
    assert!(ranges.len() >= 4, "{ranges:?}");
    let sent = server.bytes("/x");
    assert!(sent < body.len() as u64 * 11 / 10, "{sent} bytes were sent");
    assert_eq!(partials(&place), 0);
    // One that is given as fast as it is taken has one connection.
    server.script("/fast", body.clone(), [Fault::Ok]);
    let place = Place::new();
    place.bring(Settings { host_connections: 1, ..settings() }, &[&server.url("/fast")], &body).unwrap();
    assert!(server.requests("/fast").iter().all(|r| r.header("range").is_none()));
    // So has one for which there is no other in the budget.
    server.script("/x", body.clone(), [slowly()]);
    Place::new().bring(Settings { max_connections: 1, ..settings() }, &[&server.url("/x")], &body).unwrap();
    assert_eq!(server.requests("/x").len(), 1);
}

/// What the second connection is answered with: the file comes all the same, in one piece if need be.
#[test]
fn second_connections_that_fail() {
    let body = body_of(20);
    let mut other = body.clone();
    other[15 << 20] ^= 1;
    for fault in [
        Fault::IgnoreRange,
        Fault::WrongRange,
        Fault::Status(416),
        Fault::Status(403),
        Fault::Status(404),
        Fault::RetryAfter(429, "1".into()),
        Fault::Close,
        Fault::Reset,
        Fault::Html,
        Fault::Redirect("/x?again".into()),
        Fault::Flip(15 << 20),
    ] {
        let server = FaultServer::start();
        server.script("/x", body.clone(), [slowly(), fault.clone(), slowly()]);
        let place = Place::new();
        let began = Instant::now();
        place.bring(settings(), &[&server.url("/x")], &body).unwrap_or_else(|e| panic!("{fault:?}: {e:?}"));
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?}");
        assert_eq!(partials(&place), 0, "{fault:?}");
    }
}

#[test]
fn a_file_that_changes_between_the_parts() {
    let body = body_of(20);
    let server = FaultServer::start();
    // Another tag says so at once: it is fetched from the start, in one piece.
    server.script("/x", body.clone(), [Fault::Slow("\"one\"".into()), Fault::Slow("\"two\"".into())]);
    let place = Place::new();
    let (tell, told) = channel();
    let fetcher = Fetcher::new(settings(), Events::to(tell));
    fetcher.bring_all(&place.session, &[want(&[&server.url("/x")], &body)]).remove(0).unwrap();
    drop(fetcher);
    let retries: Vec<String> = told
        .into_iter()
        .flatten()
        .filter_map(|event| if let Event::TransferRetry { reason, .. } = event { Some(reason) } else { None })
        .collect();
    assert!(retries.len() == 1 && retries[0].contains("changed on the server"), "{retries:?}");
    let asked = server.requests("/x");
    assert!(asked.last().unwrap().header("range").is_none() && asked.len() == 3, "{asked:?}");
    // Between two processes.
    server.script("/x", body.clone(), [Fault::Tag("\"one\"".into())]);
    let place = Place::new();
    server.script("/x", body.clone(), [Fault::TruncateTagged(2 << 20, "\"one\"".into())]);
    place.bring(Settings { retries: 0, ..alone() }, &[&server.url("/x")], &body).unwrap_err();
    server.script("/x", body.clone(), [Fault::Tag("\"one\"".into())]);
    place.bring(Settings { retries: 0, ..alone() }, &[&server.url("/x")], &body).unwrap();
    let asked = server.requests("/x");
    assert_eq!((asked.len(), asked[0].header("if-range")), (1, Some("\"one\"")));
    assert!(server.bytes("/x") < 19 << 20);
    let place = Place::new();
    server.script("/x", other_half(&body), [Fault::TruncateTagged(2 << 20, "\"old\"".into())]);
    place.bring(Settings { retries: 0, ..alone() }, &[&server.url("/x")], &body).unwrap_err();
    server.script("/x", body.clone(), [Fault::Tag("\"new\"".into())]);
    place.bring(Settings { retries: 0, ..alone() }, &[&server.url("/x")], &body).unwrap();
    assert_eq!(server.requests("/x").len(), 1, "all of it comes with the first answer");
}

fn other_half(body: &[u8]) -> Vec<u8> {
    body.iter().map(|byte| byte ^ 1).collect()
}

/// Without connections for parts further on: they come where the first one keeps a busy machine waiting.
fn alone() -> Settings {
    Settings { host_connections: 1, ..settings() }
}

/// While locking nobody knows the hash: parts belong together if the server says so.
#[test]
fn parts_while_locking() {
    let server = FaultServer::start();
    let body = body_of(20);
    let url = server.url("/x");
    server.script("/x", body.clone(), [Fault::Slow("\"one\"".into())]);
    assert_eq!(Place::new().resolve(settings(), &url).unwrap().content, file(&body));
    let asked = server.requests("/x");
    assert!(asked.len() > 2, "{asked:?}");
    assert!(asked[1..].iter().all(|r| r.header("if-range") == Some("\"one\"")), "{asked:?}");
    // No validator, or a weak one: one connection.
    for fault in [slowly(), Fault::Slow("W/\"one\"".into())] {
        server.script("/x", body.clone(), [fault]);
        assert_eq!(Place::new().resolve(settings(), &url).unwrap().content, file(&body));
        assert_eq!(server.requests("/x").len(), 1);
    }
    // But where the digest is stated it decides.
    server.script("/x", body.clone(), [slowly()]);
    let stated = format!("sha256:{}", Digest::of(&body).to_hex());
    let resolved = Place::new().resolve_checked(settings(), &[&url], Some(&stated), None).unwrap();
    assert_eq!(resolved.content, file(&body));
    assert!(server.requests("/x").len() > 2);
    // It changes midway: what is locked is one of the two, whole.
    let place = Place::new();
    server.script("/x", body.clone(), [Fault::Slow("\"one\"".into()), Fault::Slow("\"two\"".into())]);
    assert_eq!(place.resolve(settings(), &url).unwrap().content, file(&body));
    // It breaks off: gone on with in this process and by the next one, by the date as by the tag.
    let cut = Fault::TruncateTagged(3 << 20, "\"one\"".into());
    server.script("/x", body.clone(), [cut.clone(), Fault::Tag("\"one\"".into())]);
    assert_eq!(place.resolve(alone(), &url).unwrap().content, file(&body));
    assert!(server.bytes("/x") < 21 << 20);
    server.script("/x", body.clone(), [cut]);
    place.resolve(Settings { retries: 0, ..alone() }, &url).unwrap_err();
    assert!(partials(&place) > 0);
    server.script("/x", body.clone(), [Fault::Tag("\"one\"".into())]);
    // As a publisher states it, of all bytes.
    let sha1 = "sha1:0000000000000000000000000000000000000000";
    let error = place.resolve_checked(alone(), &[&url], Some(sha1), None).unwrap_err();
    assert!(error.is_verification() && server.bytes("/x") < 42 << 20, "{error:?}");
    assert_eq!(partials(&place), 0);
    assert_eq!(place.resolve(settings(), &url).unwrap().content, file(&body));
}

/// What a child of [`killed`] fetches: address, store, digest and size are in a file of its folder.
#[test]
#[ignore = "run by the test that kills it"]
fn child_that_fetches() {
    let job = fs_err::read_to_string("job").unwrap();
    let [url, store, sha256, size] = job.lines().collect::<Vec<_>>()[..] else { panic!("{job}") };
    let content = Wanted::File { sha256: sha256.parse().unwrap(), size: size.parse().unwrap() };
    let want = Want { name: "raw".into(), sources: vec![SourceUrl::parse(url).unwrap()], content };
    let session = Store::open(Path::new(store)).unwrap().session().unwrap();
    Fetcher::new(settings(), Events::none()).bring_all(&session, &[want]).remove(0).unwrap();
}

fn start_child(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "parts::child_that_fetches", "--ignored", "--quiet"]).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn killed_again_and_again() {
    killed(20, 64, Fault::Drip(16 << 10, Duration::from_millis(2)));
}

/// `cargo test -p trainlock-fetch --test network -- --ignored --nocapture killed_in_a_large_file`
#[test]
#[ignore = "half a minute: each process hashes anew what is there"]
fn killed_in_a_large_file() {
    killed(50, 512, Fault::Drip(128 << 10, Duration::from_millis(4)));
}

/// Kills the download of one file so many times, at equal distances. Not a tenth of it comes twice.
#[expect(clippy::print_stdout, reason = "the figures, for who asks for them")]
fn killed(kills: u64, mib: u32, speed: Fault) {
    let folder = TempDir::new().unwrap();
    let server = FaultServer::start();
    let body = body_of(mib);
    let (size, sha256) = (body.len() as u64, Digest::of(&body));
    server.script("/x", body, [speed]);
    let store = folder.path().join("store");
    let job = format!("{}\n{}\n{sha256}\n{size}\n", server.url("/x"), store.display());
    fs_err::write(folder.path().join("job"), job).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    for kill in 1..=kills {
        let mut child = start_child(folder.path());
        // Until it has brought its share.
        while server.bytes("/x") < kill * size / (kills + 2) {
            assert!(Instant::now() < deadline, "it does not get on");
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(start_child(folder.path()).wait().unwrap().success());
    let store = Store::open(&store).unwrap();
    let object = store.object(&sha256, Some(size)).unwrap().expect("it is there");
    assert_eq!(Digest::of(&fs_err::read(object).unwrap()), sha256);
    let more = server.bytes("/x").saturating_sub(size);
    println!("{kills} kills: {more} bytes of {size} came twice, {:.1} %", 100.0 * more as f64 / size as f64);
    assert!(more < size / 10, "{more} bytes of {size} came twice");
}

#[test]
fn a_journal_that_was_damaged() {
    let server = FaultServer::start();
    let body = body_of(20);
    let url = server.url("/x");
    for damage in ["torn", "garbled", "lying", "gone"] {
        let place = Place::new();
        let partial = place.store.root().join("partial").join(Digest::of(&body).to_hex());
        let journal = partial.with_extension("journal");
        // Some parts come, then every connection breaks.
        server.script(
            "/x",
            body.clone(),
            [slowly(), slowly(), slowly(), Fault::Drip(64 << 10, Duration::from_millis(30))],
        );
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let running =
                scope.spawn(|| place.bring(Settings { cancel: cancel.clone(), ..settings() }, &[&url], &body));
            while !fs_err::read_to_string(&journal).is_ok_and(|text| text.lines().count() > 12) {
                std::thread::sleep(Duration::from_millis(1));
            }
            cancel.throw();
            assert!(matches!(running.join().unwrap(), Err(FetchError::Interrupted { .. })));
        });
        let text = fs_err::read_to_string(&journal).unwrap();
        match damage {
            "torn" => fs_err::write(&journal, &text[..text.len() - 3]).unwrap(),
            "garbled" => fs_err::write(&journal, text.replace(' ', "\0")).unwrap(),
            "lying" => {
                let end = fs_err::metadata(&partial).unwrap().len();
                fs_err::write(&journal, format!("{text}0 {end}\n")).unwrap();
            }
            _ => fs_err::remove_file(&journal).unwrap(),
        }
        server.script("/x", body.clone(), [Fault::Ok]);
        place.bring(settings(), &[&url], &body).unwrap_or_else(|e| panic!("{damage}: {e:?}"));
        assert_eq!(partials(&place), 0, "{damage}");
    }
}
