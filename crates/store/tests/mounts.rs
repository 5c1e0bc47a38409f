//! What takes a file system of its own: a full one and a read-only one. One test after the other, alone in their process:
//! a child that another thread starts holds files open until it runs, and their space is not free until then.

mod common;

use common::*;
use fs_err as fs;
use std::io::Write as _;
use trainlock_store::{PutError, Store, StoreError};

#[test]
fn small_and_read_only_file_systems() {
    a_full_disk_says_what_is_needed_and_loses_nothing();
    a_read_only_file_system_is_named();
}

fn a_full_disk_says_what_is_needed_and_loses_nothing() {
    let place = Place::new();
    let Some(mount) = Mount::new(&place.path("small"), "size=1m") else {
        return;
    };
    let store = Store::open(&mount.0.join("store")).unwrap();
    let session = store.session().unwrap();
    let kept = session.put_bytes(b"kept").unwrap();
    let full = |error: StoreError, least: u64| match error {
        StoreError::Full { ref path, needed, free } => {
            assert!(path.starts_with(store.root()) && needed >= least && free < 1 << 20, "{error:?}");
            assert!(error.to_string().contains("no space left for"), "{error}");
        }
        other => panic!("{other:?}"),
    };
    let mut writer = session.writer().unwrap();
    full(writer.reserve(5 << 20).unwrap_err(), 5 << 20);
    let error = writer.write_all(&vec![1; 2 << 20]).unwrap_err();
    full(StoreError::from_write(error).unwrap(), 1 << 20);
    drop(writer);
    full(session.put_bytes(&vec![2; 2 << 20]).unwrap_err(), 1 << 20);
    let mut builder = session.tree().unwrap();
    match builder.add_file(&rel("a/b"), false, &mut &vec![3; 2 << 20][..]) {
        Err(PutError::Store(error)) => full(error, 1),
        other => panic!("{other:?}"),
    }
    drop(builder);
    match session.put_result(&kept, &vec![4; 2 << 20]) {
        Err(error) => full(error, 2 << 20),
        other => panic!("{other:?}"),
    }
    // What failed is gone again, and what was there before is as it was.
    let fits = session.put_bytes(&vec![5; 700 << 10]).unwrap();
    session.finish(true).unwrap();
    assert!(store.object(&kept, Some(4)).unwrap().is_some() && store.object(&fits, None).unwrap().is_some());
    assert!(store.verify(|_| {}).unwrap().damaged.is_empty());
}

fn a_read_only_file_system_is_named() {
    let place = Place::new();
    let Some(mount) = Mount::new(&place.path("mounted"), "ro,size=1m") else {
        return;
    };
    match Store::open(&mount.0.join("store")) {
        Err(error @ StoreError::NotWritable { .. }) => {
            assert!(error.to_string().contains("mounted/store"), "{error}")
        }
        other => panic!("{other:?}"),
    }
}

/// A small file system of its own, unmounted at the end; none where this user may not mount.
struct Mount(std::path::PathBuf);

impl Mount {
    #[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
    fn new(path: &std::path::Path, options: &str) -> Option<Mount> {
        fs::create_dir(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path)
            .output()
            .is_ok_and(|o| o.status.success());
        if !mounted {
            eprintln!("skipped: this user may not mount a file system");
        }
        mounted.then(|| Mount(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|s| s.success()));
    }
}
