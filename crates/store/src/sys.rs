//! The few calls to the file system that std does not have, and the times and modes of the store.

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use trainlock_types::EntryKind;

/// The modification time of all files in the store, in seconds: 1980-01-01T00:00:00Z, the first
/// moment that every archive format can hold.
pub const FIXED_TIME: i64 = 315_532_800;

/// [`FIXED_TIME`] in nanoseconds.
pub(crate) const FIXED_NANOS: i64 = FIXED_TIME * 1_000_000_000;

/// What the file system says of a file: times in nanoseconds, sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) ctime: i64,
    pub(crate) ino: u64,
    pub(crate) dev: u64,
    pub(crate) mode: u32,
    pub(crate) links: u64,
}

impl Stamp {
    #[cfg_attr(
        target_os = "linux",
        expect(clippy::unnecessary_cast, reason = "the types of these fields differ between systems")
    )]
    pub(crate) fn new(stat: &fs::Stat) -> Stamp {
        // A time that does not fit is centuries away: any constant does for telling "changed".
        let nanos = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        Stamp {
            size: stat.st_size as u64,
            mtime: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            ino: stat.st_ino as u64,
            dev: stat.st_dev as u64,
            mode: stat.st_mode as u32,
            links: stat.st_nlink as u64,
        }
    }

    pub(crate) fn at(folder: impl AsFd, name: impl rustix::path::Arg) -> Result<Stamp, Errno> {
        fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| Stamp::new(&s))
    }

    /// Of the path itself, not of what it may point to.
    pub(crate) fn of(path: &Path) -> Result<Stamp, Errno> {
        Stamp::at(CWD, path)
    }

    /// As [`Stamp::of`], with nothing for a path that does not exist.
    pub(crate) fn find(path: &Path) -> Result<Option<Stamp>, Errno> {
        match Stamp::of(path) {
            Ok(stamp) => Ok(Some(stamp)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn fd(fd: impl AsFd) -> Result<Stamp, Errno> {
        fs::fstat(fd).map(|s| Stamp::new(&s))
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode as fs::RawMode)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// What it is as an entry of a tree; the name of what it is otherwise.
    pub(crate) fn kind(&self) -> Result<EntryKind, &'static str> {
        match self.file_type() {
            FileType::RegularFile if self.mode & 0o100 != 0 => Ok(EntryKind::Executable),
            FileType::RegularFile => Ok(EntryKind::File),
            FileType::Symlink => Ok(EntryKind::Symlink),
            FileType::Directory => Err("a folder"),
            FileType::Fifo => Err("a named pipe"),
            FileType::Socket => Err("a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => Err("a device"),
            _ => Err("no regular file"),
        }
    }

    /// Whether it looks as the store made it: a regular file with the fixed time and mode.
    pub(crate) fn is_untouched(&self, exec: bool) -> bool {
        self.is_file() && self.mtime == FIXED_NANOS && self.mode & 0o7777 == mode_bits(exec)
    }
}

/// Whether a file of the store is as the store made it, once its mode is set right where only that was changed
/// (`chmod -R u+w` on a folder with hard links does it): whoever writes moves the time, too.
pub(crate) fn is_whole(folder: impl std::os::fd::AsFd, name: &Path, stamp: &Stamp, exec: bool) -> bool {
    let only_mode = || stamp.is_file() && stamp.mtime == FIXED_NANOS;
    let mended = || rustix::fs::chmodat(folder, name, mode(mode_bits(exec)), rustix::fs::AtFlags::empty()).is_ok();
    stamp.is_untouched(exec) || only_mode() && mended()
}

/// The mode of a file of the store.
pub(crate) const fn mode_bits(exec: bool) -> u32 {
    if exec { 0o555 } else { 0o444 }
}

pub(crate) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits as fs::RawMode)
}

/// The fixed modification time; the access time stays as it is.
pub(crate) fn fixed_times() -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: FIXED_TIME, tv_nsec: 0 },
    }
}

/// Opens a regular file for reading. Never blocks on a pipe and never follows a link.
pub(crate) fn open_file(folder: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::openat(folder, name, flags, Mode::empty())
}

/// Opens a folder; a link is followed only where `follow` says so.
pub(crate) fn open_dir(folder: impl AsFd, name: impl rustix::path::Arg, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    fs::openat(folder, name, if follow { flags } else { flags | OFlags::NOFOLLOW }, Mode::empty())
}

/// Lets an empty file share the blocks of another one, where the file system can do that. It waits until that one is on the disk.
pub(crate) fn share_blocks(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return fs::ioctl_ficlone(to, from);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        Err(Errno::OPNOTSUPP)
    }
}

/// Makes what was written to the file system of `folder` durable.
pub(crate) fn sync_file_system(folder: impl AsFd) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return fs::syncfs(folder);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        fs::sync();
        Ok(())
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(folder: &Path) -> Result<(), Errno> {
    fs::fsync(open_dir(CWD, folder, true)?)
}

/// Whether the file system of `folder` brings names to the disk in the order in which they were made: after a power cut there is
/// then no later one without all the earlier ones. XFS has one log for all of them, and goes on from it in its order (the kernel's
/// `Documentation/filesystems/xfs/xfs-delayed-logging-design.rst`); of others it can't be told from here.
pub(crate) fn keeps_order(folder: impl AsFd) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// `XFS_SUPER_MAGIC` of statfs(2).
        const XFS: u32 = 0x5846_5342;
        fs::fstatfs(folder).is_ok_and(|stat| stat.f_type as u32 == XFS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        false
    }
}

/// A number that no other process draws (it separates names, nothing depends on it otherwise).
pub(crate) fn nonce() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// How many threads may work at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Removes a file, a link or a whole folder, also one whose folders were made read-only.
/// What does not exist is no error.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match Stamp::find(path)? {
        None => return Ok(()),
        Some(stamp) if !stamp.is_dir() => return ignore_missing(fs_err::remove_file(path)),
        Some(_) => {}
    }
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            ignore_missing(fs_err::remove_dir_all(path))
        }
        other => ignore_missing(other),
    }
}

/// A removal's answer, with "was not there" as success.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives the owner all rights to a folder and the folders in it.
fn open_up(path: &Path) -> io::Result<()> {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Renames, and makes the folder of the new name if that is what is missing.
pub(crate) fn rename_into(from: &Path, to: &Path) -> io::Result<()> {
    with_parent(to, || fs::rename(from, to))
}

/// Does something that makes `path`, once more with the folder made if that was missing.
pub(crate) fn with_parent<T>(path: &Path, make: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
    match make() {
        Err(Errno::NOENT) => {
            let Some(parent) = path.parent() else {
                return Err(Errno::NOENT.into());
            };
            fs_err::create_dir_all(parent)?;
            Ok(make()?)
        }
        other => Ok(other?),
    }
}

/// A path that is removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub(crate) struct Temp {
    path: Option<PathBuf>,
    /// Whether what is not moved to where it belongs stays, to be gone on with.
    stays: bool,
}

impl Temp {
    pub(crate) fn new(path: PathBuf) -> Temp {
        Temp { path: Some(path), stays: false }
    }

    /// One that is still there when it is dropped.
    pub(crate) fn staying(path: PathBuf) -> Temp {
        Temp { path: Some(path), stays: true }
    }

    /// What is there is of no use: it goes when it is dropped.
    pub(crate) fn give_up(&mut self) {
        self.stays = false;
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// The path has been moved to where it belongs.
    pub(crate) fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|_| !self.stays) {
            // A leftover lies in a temporary folder that the next session removes.
            let _ = remove_all(path);
        }
    }
}

/// The wall clock, in nanoseconds since 1970, to be compared with files' times.
#[expect(clippy::disallowed_methods, reason = "a comparison with a file's time; nothing that is kept depends on it")]
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_order_of_names_is_kept_by_xfs() {
        assert!(!keeps_order(fs_err::File::open("/proc").unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let told = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(folder.path()).output().unwrap();
        let is_xfs = told.stdout == b"xfs\n";
        assert_eq!(keeps_order(open_dir(CWD, folder.path(), true).unwrap()), is_xfs);
    }
}
