//! The lock's file.

use fs_err::os::unix::fs::symlink;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use trainlock_lock::{Lock, LockError};

fn lock(salt: &str) -> Lock {
    crate::invent::files(["a".to_owned(), "b".to_owned()], salt)
}

#[test]
fn saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.lock");
    assert_eq!(Lock::load(&path).unwrap(), None);
    assert!(lock("one").save(&path).unwrap());
    assert_eq!(Lock::load(&path).unwrap(), Some(lock("one")));
    // A new file gets the mode that any new file gets.
    let other = folder.path().join("other");
    fs_err::write(&other, "").unwrap();
    assert_eq!(fs_err::metadata(&path).unwrap().mode(), fs_err::metadata(&other).unwrap().mode());
}

#[test]
fn the_same_content_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.lock");
    assert!(lock("one").save(&path).unwrap());
    let inode = fs_err::metadata(&path).unwrap().ino();
    assert!(!lock("one").save(&path).unwrap());
    assert_eq!(fs_err::metadata(&path).unwrap().ino(), inode);
    assert!(lock("two").save(&path).unwrap());
    let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["train.lock"]);
}

#[test]
fn mode_and_link_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (path, first, real) =
        (folder.path().join("train.lock"), folder.path().join("first"), folder.path().join("deep/real.lock"));
    fs_err::create_dir(folder.path().join("deep")).unwrap();
    symlink("first", &path).unwrap();
    symlink("deep/real.lock", &first).unwrap();
    assert!(lock("one").save(&path).unwrap());
    fs_err::set_permissions(&real, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(lock("two").save(&path).unwrap());
    assert!(fs_err::symlink_metadata(&path).unwrap().is_symlink());
    assert!(fs_err::symlink_metadata(&first).unwrap().is_symlink());
    assert_eq!(fs_err::metadata(&real).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(Lock::load(&real).unwrap(), Some(lock("two")));
}

#[test]
fn what_can_not_be_read_or_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.lock");
    fs_err::create_dir(&path).unwrap();
    assert!(matches!(Lock::load(&path), Err(LockError::Read(_))));
    assert!(matches!(lock("").save(&path), Err(LockError::Write { .. })));
    let nowhere = folder.path().join("none/train.lock");
    let error = lock("").save(&nowhere).unwrap_err();
    assert!(error.to_string().contains("none/train.lock"), "{error}");
    let round = folder.path().join("round");
    symlink("round", &round).unwrap();
    assert!(matches!(lock("").save(&round), Err(LockError::Write { .. })));
}
