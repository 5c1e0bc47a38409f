//! Processes that are killed, and power cuts: what the next one finds.

mod common;

use common::*;
use fs_err as fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use trainlock_store::{Link, Live, Store, place_tree};
use trainlock_types::Digest;

const STORE: &str = "TRAINLOCK_TEST_STORE";
const WORK: &str = "TRAINLOCK_TEST_WORK";

/// This test binary once more, doing `work` on a store and printing a line at each step.
fn spawn(store: &Store, work: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env(STORE, store.root())
        .env(WORK, work)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    // The first line of ours comes after those of the test harness.
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 && !line.contains("ready") {
        line.clear();
    }
    (child, lines)
}

#[test]
#[ignore = "what the other tests start as a process of its own"]
#[expect(clippy::disallowed_methods, reason = "how a test tells its child what to do")]
fn child() {
    let (Ok(root), Ok(work)) = (std::env::var(STORE), std::env::var(WORK)) else {
        return;
    };
    let store = Store::open(Path::new(&root)).unwrap();
    let tell = |line: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    };
    tell("ready");
    match work.as_str() {
        "put-forever" => {
            for i in random().. {
                put_some(&store, i % 64);
                tell("put");
            }
        }
        "put-all" => {
            for i in 0..40 {
                put_some(&store, i);
            }
        }
        "hold-lock" => {
            let _lock = store.lock("step: train", |_| {}).unwrap();
            tell("locked");
            std::thread::park();
        }
        "session-and-stop" => {
            let session = store.session().unwrap();
            session.put_bytes(b"not synced").unwrap();
            session.work_dir("half").unwrap();
            tell("put");
            std::thread::park();
        }
        other => panic!("{other}"),
    }
}

fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 8
}

/// A session as a run has them: an object, a result, a folder taken, a tree unpacked, something placed.
fn put_some(store: &Store, i: u64) {
    let session = store.session().unwrap();
    let content = format!("content {i} ").repeat(2000);
    let digest = session.put_bytes(content.as_bytes()).unwrap();
    session.put_result(&Digest::of(format!("key {i}").as_bytes()), digest.to_hex().as_bytes()).unwrap();
    let work = session.work_dir("step").unwrap();
    for f in 0..20 {
        write(&work.join(format!("out/{}/{f}", f % 3)), &format!("{i} {f} ").repeat(100));
    }
    let tree = session.take_tree(&work.join("out")).unwrap();
    let mut builder = session.tree().unwrap();
    for f in 0..20 {
        builder.add_file(&rel(&format!("{i}/{f}")), f % 2 == 0, &mut content.as_bytes()).unwrap();
    }
    builder.finish(None).unwrap();
    place_tree(store, &tree.digest, &work.join("in"), Link::Auto).unwrap();
    session.finish(i.is_multiple_of(2)).unwrap();
}

#[test]
fn killed_at_any_instant() {
    let place = Place::new();
    for _ in 0..4 {
        let mut children: Vec<_> = (0..3).map(|_| spawn(&place.store, "put-forever")).collect();
        for (child, lines) in &mut children {
            for _ in 0..random() % 4 {
                lines.read_line(&mut String::new()).unwrap();
            }
            // Spun away, not slept: the instant should fall anywhere between two lines.
            for _ in 0..random() % 400_000 {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(place.is_clean());
        assert!(place.sessions().is_empty(), "{:?}", place.sessions());
        for key in 0..64 {
            let Some(result) = place.store.result(&Digest::of(format!("key {key}").as_bytes())).unwrap() else {
                continue;
            };
            let digest = std::str::from_utf8(&result).unwrap().parse().unwrap();
            let object = place.store.object(&digest, None).unwrap().expect("a result's object was put before it");
            assert_eq!(Digest::of(&fs::read(object).unwrap()), digest);
        }
    }
    // And the store works as before.
    put_some(&place.store, 7);
    assert!(place.is_clean());
}

#[test]
fn many_processes_put_the_same() {
    let place = Place::new();
    let mut children: Vec<_> = (0..4).map(|_| spawn(&place.store, "put-all")).collect();
    for (child, lines) in &mut children {
        lines.read_to_string(&mut String::new()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    let usage = place.store.size().unwrap();
    // One object and two listings for each number, two trees, one result.
    assert_eq!((usage.objects, usage.trees, usage.results), (120, 80, 40));
    assert!(place.is_clean());
}

#[test]
fn a_lock_tells_who_holds_it_and_goes_with_its_holder() {
    let place = Place::new();
    let (mut child, mut lines) = spawn(&place.store, "hold-lock");
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "locked");
    let mut told = None;
    let lock = place.store.lock("step: train", |holder| {
        told = holder;
        child.kill().unwrap();
        child.wait().unwrap();
    });
    assert_eq!(told, Some(child.id()));
    drop(lock.unwrap());
    // Free again, and a collection removes the file.
    drop(place.store.lock("step: train", |_| panic!("nobody holds it")).unwrap());
    assert_eq!(names(&place.store.root().join("locks")), ["step%3A%20train"]);
    let held = place.store.lock("held", |_| {}).unwrap();
    place.store.gc(&Live::default(), false, || {}).unwrap();
    assert_eq!(names(&place.store.root().join("locks")), [".store", "held"]);
    drop(held);
    drop(place.store.lock("step: train", |_| panic!("nobody holds it")).unwrap());
}

#[test]
fn a_dead_session_of_this_boot_is_settled_and_a_live_one_is_left_alone() {
    let place = Place::new();
    let live = place.session();
    let work = live.work_dir("live").unwrap();
    let (mut child, mut lines) = spawn(&place.store, "session-and-stop");
    lines.read_line(&mut String::new()).unwrap();
    assert_eq!(place.sessions().len(), 2);
    place.session().finish(true).unwrap();
    assert_eq!(place.sessions().len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    place.session().finish(true).unwrap();
    assert_eq!(place.sessions().len(), 1);
    assert!(work.exists());
    assert!(place.store.object(&Digest::of(b"not synced"), None).unwrap().is_some());
    drop(live);
    assert!(place.sessions().is_empty());
    // One that ends without its sync leaves the marker and nothing else.
    let session = place.session();
    session.put_bytes(b"more").unwrap();
    let work = session.work_dir("w").unwrap();
    write(&work.join("a/b"), "");
    set_mode(&work.join("a"), 0o500);
    session.finish(false).unwrap();
    let left = place.sessions();
    assert_eq!(left.len(), 1);
    assert_eq!(names(&place.store.root().join("tmp").join(&left[0])), ["lock", "put"]);
    place.session().finish(false).unwrap();
    assert!(place.sessions().is_empty());
}

/// A session's folder as a machine leaves it that lost its power.
fn forge(place: &Place, boot: &str, age: Duration, put: bool) -> PathBuf {
    let dir = place.store.root().join("tmp").join(format!("{boot}.17.0123456789abcdef"));
    write(&dir.join("lock"), "");
    write(&dir.join("w.3/half"), "made");
    if put {
        write(&dir.join("put"), "");
    }
    let began = fs::metadata(dir.join("lock")).unwrap().modified().unwrap() - age;
    fs::OpenOptions::new().write(true).open(dir.join("lock")).unwrap().into_parts().0.set_modified(began).unwrap();
    dir
}

#[test]
fn after_a_power_cut_what_was_put_is_hashed_again() {
    let place = Place::new();
    let (good, bad) = (place.put(b"good"), place.put(b"bad"));
    let whole = place.put_tree(&[("a/x", "1"), ("y", "2")]);
    let broken = place.put_tree(&[("a/x", "3"), ("y", "4")]);
    let short = place.put_tree(&[("a/x", "5"), ("y", "6")]);
    let (kept, lost) = (Digest::of(b"kept"), Digest::of(b"lost"));
    let session = place.session();
    session.put_result(&kept, b"kept").unwrap();
    session.put_result(&lost, b"lost").unwrap();
    session.finish(true).unwrap();
    let damage_all = || {
        damage(&place.store.object(&bad, None).unwrap().unwrap(), true);
        damage(&place.store.tree(&broken.digest).unwrap().join("a/x"), true);
        fs::remove_file(place.store.tree(&short.digest).unwrap().join("y")).unwrap();
        let path = place.store.root().join("results").join(&lost.to_hex()[..2]).join(&lost.to_hex()[2..]);
        fs::write(path, "").unwrap();
    };
    damage_all();
    // A session that put nothing proves nothing of what is there: only its folder goes.
    forge(&place, "some-other-boot", Duration::from_secs(3600), false);
    place.session().finish(true).unwrap();
    assert!(place.sessions().is_empty());
    assert!(place.store.object(&bad, Some(3)).unwrap().is_some());
    // One that put something does.
    forge(&place, "some-other-boot", Duration::from_secs(3600), true);
    forge(&place, "a-third-boot", Duration::from_secs(60), true);
    place.store.settle().unwrap();
    assert!(place.sessions().is_empty());
    assert!(place.store.object(&good, Some(4)).unwrap().is_some());
    assert!(place.store.object(&bad, Some(3)).unwrap().is_none());
    assert!(place.store.has_tree(&whole.digest));
    assert!(!place.store.has_tree(&broken.digest) && !place.store.has_tree(&short.digest));
    assert_eq!(place.store.result(&kept).unwrap().as_deref(), Some(&b"kept"[..]));
    assert_eq!(place.store.result(&lost).unwrap(), None);
    assert!(place.is_clean());
}

#[test]
fn what_is_older_than_the_lost_session_is_not_hashed_again() {
    let place = Place::new();
    let digest = place.put(b"old");
    damage(&place.store.object(&digest, None).unwrap().unwrap(), true);
    // A session that began after that, which only the future has.
    let dir = forge(&place, "some-other-boot", Duration::ZERO, true);
    let file = fs::OpenOptions::new().write(true).open(dir.join("lock")).unwrap().into_parts().0;
    file.set_modified(file.metadata().unwrap().modified().unwrap() + Duration::from_secs(3600)).unwrap();
    place.session().finish(true).unwrap();
    assert!(place.store.object(&digest, Some(3)).unwrap().is_some());
    assert!(place.sessions().is_empty());
}

#[test]
fn a_failed_steps_folder_is_kept() {
    let place = Place::new();
    let session = place.session();
    let work = session.work_dir("train").unwrap();
    write(&work.join("log"), "went wrong");
    set_mode(&work, 0o500);
    let kept = session.keep(&work).unwrap();
    session.finish(true).unwrap();
    assert!(kept.starts_with(place.store.root().join("failed")));
    assert!(kept.file_name().unwrap().to_str().unwrap().starts_with("train."));
    assert_eq!(fs::read_to_string(kept.join("log")).unwrap(), "went wrong");
    place.store.gc(&Live::default(), false, || {}).unwrap();
    assert!(kept.exists());
}

/// A session's folder that is still empty looks like one that is over.
#[test]
fn sessions_begin_while_others_look_for_those_that_are_over() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..100).for_each(|_| place.store.session().unwrap().finish(false).unwrap()));
        }
    });
    assert!(place.sessions().is_empty());
}
