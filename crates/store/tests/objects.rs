//! Objects and results: putting, taking, finding, and what is refused.

mod common;

use common::*;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use std::io::Write as _;
use trainlock_store::{HashError, PutError, Store, StoreError};
use trainlock_types::Digest;

#[test]
fn an_object_is_read_only_and_has_the_fixed_time() {
    let place = Place::new();
    let digest = place.put(b"hello");
    let path = place.store.object(&digest, Some(5)).unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!((mode(&path), mtime(&path)), (0o444, FIXED));
    assert_eq!(path, place.store.root().join("objects").join(&digest.to_hex()[..2]).join(&digest.to_hex()[2..]));
    assert!(place.sessions().is_empty());
}

#[test]
fn the_wrong_content_is_not_kept() {
    let place = Place::new();
    let session = place.session();
    let write = |text: &str| {
        let mut writer = session.writer().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer
    };
    let expected = Digest::of(b"good");
    match write("evil").finish(Some((expected, Some(4)))) {
        Err(PutError::Sha256 { expected: e, found, size: 4 }) => {
            assert_eq!((e, found), (expected, Digest::of(b"evil")))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(write("goo").finish(Some((expected, Some(4)))), Err(PutError::Size { expected: 4, found: 3 })));
    drop(write("dropped"));
    assert_eq!(place.store.size().unwrap().objects, 0);
    assert_eq!(write("good").finish(Some((expected, Some(4)))).unwrap(), (expected, 4));
    session.finish(true).unwrap();
    assert_eq!(place.store.size().unwrap().objects, 1);
    assert!(place.sessions().is_empty());
}

#[test]
fn an_object_that_is_there_stays_the_same_file() {
    let place = Place::new();
    let digest = place.put(b"same");
    let path = place.store.object(&digest, None).unwrap().unwrap();
    let before = inode(&path);
    place.put(b"same");
    assert_eq!(inode(&path), before);
    // One that was written to is replaced by the good one.
    damage(&path, false);
    place.put(b"same");
    assert_eq!(fs::read(&path).unwrap(), b"same");
    assert_eq!((mode(&path), mtime(&path)), (0o444, FIXED));
}

#[test]
fn a_suspicious_object_is_hashed_again() {
    let place = Place::new();
    let digest = place.put(b"content");
    let path = place.store.object(&digest, None).unwrap().unwrap();
    // Only touched: it gets its time and mode back.
    set_mode(&path, 0o644);
    fs::write(&path, b"content").unwrap();
    assert_eq!(place.store.object(&digest, Some(7)).unwrap().as_deref(), Some(path.as_path()));
    assert_eq!((mode(&path), mtime(&path)), (0o444, FIXED));
    // Written to: removed.
    damage(&path, false);
    assert_eq!(place.store.object(&digest, Some(7)).unwrap(), None);
    assert!(!path.exists());
    // Cut short, with the time right: the size tells.
    place.put(b"content");
    set_mode(&path, 0o644);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap().into_parts().0;
    file.set_len(3).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(FIXED as u64)).unwrap();
    set_mode(&path, 0o444);
    assert_eq!(place.store.object(&digest, Some(7)).unwrap(), None);
}

#[test]
fn a_file_is_taken_without_a_copy() {
    let place = Place::new();
    let session = place.session();
    let work = session.work_dir("a step: with odd/name").unwrap();
    let path = work.join("out.bin");
    fs::write(&path, b"output").unwrap();
    let before = inode(&path);
    let (digest, size) = session.take_file(&path, true).unwrap();
    assert_eq!((digest, size), (Digest::of(b"output"), 6));
    assert!(!path.exists());
    let object = place.store.object(&digest, Some(6)).unwrap().unwrap();
    assert_eq!((mode(&object), mtime(&object), inode(&object)), (0o555, FIXED, before));
    assert!(object.to_str().unwrap().ends_with(".x"));
    // Again, with the same content: the path goes, the object stays.
    fs::write(&path, b"output").unwrap();
    session.take_file(&path, true).unwrap();
    assert!(!path.exists());
    assert_eq!(inode(&object), before);
}

#[test]
fn a_file_with_another_name_is_copied() {
    let place = Place::new();
    let session = place.session();
    let work = session.work_dir("w").unwrap();
    let (path, other) = (work.join("a"), work.join("b"));
    fs::write(&path, b"shared").unwrap();
    set_mode(&path, 0o640);
    fs::hard_link(&path, &other).unwrap();
    let (digest, _) = session.take_file(&path, false).unwrap();
    fs::write(&other, b"written later").unwrap();
    let object = place.store.object(&digest, Some(6)).unwrap().unwrap();
    assert_eq!(fs::read(object).unwrap(), b"shared");
    assert_eq!(mode(&other), 0o640);
}

#[test]
fn only_regular_files_are_taken() {
    let place = Place::new();
    let session = place.session();
    let work = session.work_dir("w").unwrap();
    fs::write(work.join("file"), b"x").unwrap();
    symlink(work.join("file"), work.join("link")).unwrap();
    fs::create_dir(work.join("folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        work.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for (name, what) in [("link", "a link"), ("folder", "a folder"), ("pipe", "a named pipe")] {
        match session.take_file(&work.join(name), false) {
            Err(PutError::Hash(HashError::Kind { found, .. })) => assert_eq!(found, what),
            other => panic!("{other:?}"),
        }
        assert!(fs::symlink_metadata(work.join(name)).is_ok());
    }
    assert!(matches!(session.take_file(&work.join("none"), false), Err(PutError::Hash(HashError::Io { .. }))));
}

#[test]
fn results_are_checked_and_the_first_valid_one_stays() {
    let place = Place::new();
    let key = Digest::of(b"key");
    assert_eq!(place.store.result(&key).unwrap(), None);
    let session = place.session();
    session.put_result(&key, b"first").unwrap();
    session.put_result(&key, b"second").unwrap();
    assert_eq!(place.store.result(&key).unwrap().as_deref(), Some(&b"first"[..]));
    let path = place.store.root().join("results").join(&key.to_hex()[..2]).join(&key.to_hex()[2..]);
    for damaged in [
        &b"trainlock-result 1 zz"[..],
        b"",
        b"junk that is quite a bit longer than the head of a result's file, which has 84 bytes",
    ] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(place.store.result(&key).unwrap(), None);
        assert!(!path.exists());
        fs::write(&path, damaged).unwrap();
        session.put_result(&key, b"third").unwrap();
        assert_eq!(place.store.result(&key).unwrap().as_deref(), Some(&b"third"[..]));
    }
    session.replace_result(&key, b"fourth").unwrap();
    assert_eq!(place.store.result(&key).unwrap().as_deref(), Some(&b"fourth"[..]));
    session.put_result(&Digest::of(b"empty"), b"").unwrap();
    assert_eq!(place.store.result(&Digest::of(b"empty")).unwrap().as_deref(), Some(&b""[..]));
}

#[test]
fn what_is_no_store_and_a_newer_store_are_refused() {
    let place = Place::new();
    fs::write(place.store.root().join("version"), "2\n").unwrap();
    match Store::open(place.store.root()) {
        Err(error @ StoreError::NewerVersion { .. }) => {
            assert!(error.to_string().contains("layout `2`"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    // Killed between making the file and writing to it.
    fs::write(place.store.root().join("version"), "").unwrap();
    Store::open(place.store.root()).unwrap();
    assert_eq!(fs::read_to_string(place.store.root().join("version")).unwrap(), "1\n");
    let home = place.path("home");
    write(&home.join("thesis.tex"), "years of work");
    assert!(matches!(Store::open(&home), Err(StoreError::NotAStore { .. })));
    assert_eq!(names(&home), ["thesis.tex"]);
    write(&place.path("file"), "");
    assert!(Store::open(&place.path("file")).is_err());
}

#[test]
fn a_store_that_may_not_be_written_says_so() {
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; for it, only a file system can be read-only: see `mounts.rs`.
        return;
    }
    let place = Place::new();
    set_mode(place.store.root(), 0o555);
    let answer = Store::open(place.store.root()).unwrap().session();
    set_mode(place.store.root(), 0o755);
    match answer {
        Err(error @ StoreError::NotWritable { .. }) => {
            assert!(error.to_string().contains(place.store.root().to_str().unwrap()), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// Of two writers that would go on with one object, the second begins anew, and neither reaches what the other has put.
#[test]
fn one_writer_goes_on_at_a_time() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let store = trainlock_store::Store::open(&folder.path().join("store")).unwrap();
    let session = store.session().unwrap();
    let content = b"the whole content";
    let sha256 = trainlock_types::Digest::of(content);
    let mut first = session.resumed_writer(&sha256).unwrap();
    first.write_all(&content[..9]).unwrap();
    drop(first);
    let mut first = session.resumed_writer(&sha256).unwrap();
    assert_eq!(first.written(), 9);
    let mut second = session.resumed_writer(&sha256).unwrap();
    assert_eq!(second.written(), 0);
    second.write_all(b"something else").unwrap();
    first.write_all(&content[9..]).unwrap();
    first.finish(Some((sha256, None))).unwrap();
    second.write_all(b" and more").unwrap();
    assert!(second.finish(Some((sha256, None))).is_err());
    let object = store.object(&sha256, Some(content.len() as u64)).unwrap().unwrap();
    assert_eq!(fs_err::read(object).unwrap(), content);
    assert!(fs_err::read_dir(store.root().join("partial")).unwrap().next().is_none());
}

/// Pieces in any order, over several writers; what the journal says of them is believed only if it can be so.
#[test]
fn pieces_in_any_order() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let store = trainlock_store::Store::open(&folder.path().join("store")).unwrap();
    let session = store.session().unwrap();
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let sha256 = trainlock_types::Digest::of(&content);
    let resumed = || session.resumed_writer(&sha256).unwrap();
    let journal = store.root().join("partial").join(format!("{}.journal", sha256.to_hex()));
    let pieces = |writer: &trainlock_store::ObjectWriter| writer.pieces().collect::<Vec<_>>();

    let mut writer = resumed();
    writer.set_note(|| "from there".to_owned()).unwrap();
    writer.write_all(&content[..1000]).unwrap();
    writer.write_ahead(300_000, &content[300_000..400_000]).unwrap();
    writer.write_all(&content[1000..2000]).unwrap();
    writer.write_ahead(2500, &content[2500..3000]).unwrap();
    drop(writer);

    let mut writer = resumed();
    assert_eq!((writer.note(), writer.written()), (Some("from there"), 2000));
    assert_eq!(pieces(&writer), [(0, 2000), (2500, 3000), (300_000, 400_000)]);
    writer.set_note(|| "from elsewhere".to_owned()).unwrap();
    writer.write_all(&content[2000..2500]).unwrap();
    let mut seen = 0;
    writer.catch_up(|bytes| seen += bytes.len()).unwrap();
    assert_eq!((writer.written(), seen), (3000, 500));
    drop(writer);
    assert_eq!(resumed().note(), Some("from elsewhere"));

    // Torn, garbled, or of another file: all begins anew.
    let good = fs_err::read(&journal).unwrap();
    let whole = fs_err::read(journal.with_extension("")).unwrap();
    for bad in [&good[..good.len() - 1], b"", b"\xff\xff\n", b"trainlock partial 1\nx\n0 999999\n"] {
        fs_err::write(&journal, bad).unwrap();
        fs_err::write(journal.with_extension(""), &whole).unwrap();
        let writer = resumed();
        assert_eq!((writer.note(), writer.written(), pieces(&writer)), (None, 0, vec![]), "{bad:?}");
    }
    // One that lies is found out by the digest.
    fs_err::write(&journal, "trainlock partial 1\nx\n0 400000\n").unwrap();
    fs_err::write(journal.with_extension(""), vec![0; 400_000]).unwrap();
    let writer = resumed();
    assert_eq!(writer.written(), 400_000);
    assert!(writer.finish(Some((sha256, None))).is_err());

    let mut writer = resumed();
    assert_eq!(pieces(&writer), []);
    writer.set_note(|| "from there".to_owned()).unwrap();
    writer.write_ahead(1000, &content[1000..]).unwrap();
    writer.write_all(&content[..1000]).unwrap();
    writer.catch_up(|_| {}).unwrap();
    writer.finish(Some((sha256, Some(400_000)))).unwrap();
    assert!(store.object(&sha256, Some(400_000)).unwrap().is_some());
    assert!(fs_err::read_dir(store.root().join("partial")).unwrap().next().is_none());
    // What has a gap is no object.
    let mut writer = resumed();
    writer.set_note(|| "from there".to_owned()).unwrap();
    writer.write_ahead(1000, &content[1000..]).unwrap();
    assert!(writer.finish(None).is_err());
    // One that nobody goes on with takes them as well.
    let content: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
    let mut writer = session.writer().unwrap();
    writer.write_ahead(200_000, &content[200_000..]).unwrap();
    writer.write_all(&content[..200_000]).unwrap();
    let mut seen = Vec::new();
    writer.catch_up(|bytes| seen.extend_from_slice(bytes)).unwrap();
    writer.read_back(|bytes| seen.extend_from_slice(bytes)).unwrap();
    assert!(seen == [&content[200_000..], &content].concat());
    let done = writer.finish(None).unwrap();
    assert_eq!((done.0, done.1), (trainlock_types::Digest::of(&content), 400_000));
}
