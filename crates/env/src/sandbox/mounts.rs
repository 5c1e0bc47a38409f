//! Sets up the file system that a step sees: the plan's mounts in a new root, and the old root gone.
//!
//! The new root is mounted over `/proc`, the one folder that is sure to exist and that nothing is taken from, so that all
//! sources are still found under their own names; targets are found through the new root's descriptor, and no link
//! leads out of it.

use super::channel::{Mode, Mount};
use super::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode as Bits, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What went wrong, and with what number.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) operation: String,
    pub(super) errno: i32,
}

/// Names the operation that failed.
pub(super) trait During<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure { operation: operation(), errno: e.raw_os_error().unwrap_or(libc::EIO) })
    }
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure { operation: operation(), errno: e.raw_os_error() })
    }
}

/// Makes all mounts and turns to the new root. The process is in a mount namespace of its own.
pub(super) fn set_up(mounts: &[Mount]) -> Result<(), Failure> {
    sys::mounts_private().during(|| "make the mounts private".to_owned())?;
    let root = file_system(
        "tmpfs",
        &[("mode", "0755")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?;
    attach(&root, CWD, OsStr::new("/proc"))?;
    let mut new = NewRoot { root, made: HashSet::new() };
    for mount in mounts {
        new.add(mount)?;
    }
    rustix::process::fchdir(&new.root).during(|| "enter the new root".to_owned())?;
    rustix::process::pivot_root(c".", c".").during(|| "pivot_root".to_owned())?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).during(|| "unmount the old root".to_owned())?;
    rustix::process::chdir(c"/").during(|| "enter the new root".to_owned())?;
    sys::mount_read_only(c"/").during(|| "make the new root read-only".to_owned())
}

/// A new file system, not attached yet.
fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let make = || {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().during(|| format!("mount {kind}"))
}

/// Attaches a mount at a path that exists.
fn attach(mount: &OwnedFd, folder: impl AsFd, path: &OsStr) -> Result<(), Failure> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(mount.as_fd(), c"", folder.as_fd(), path.as_bytes(), flags)
        .during(|| format!("attach a mount at {}", Path::new(path).display()))
}

/// The root being built.
struct NewRoot {
    root: OwnedFd,
    /// Folders known to exist.
    made: HashSet<Vec<u8>>,
}

impl NewRoot {
    fn add(&mut self, mount: &Mount) -> Result<(), Failure> {
        match mount {
            Mount::Folder { to } => self.folder(to.as_bytes()),
            Mount::File { to, content } => {
                let file = self.file(to)?;
                let mut rest = &content[..];
                while !rest.is_empty() {
                    let n = rustix::io::write(&file, rest).during(|| format!("write {}", shown(to)))?;
                    rest = &rest[n..];
                }
                Ok(())
            }
            Mount::Link { to, target } => {
                let (parent, name) = self.parent(to.as_bytes())?;
                rustix::fs::symlinkat(target.as_bytes(), &parent, name).during(|| format!("link {}", shown(to)))
            }
            Mount::Bind { from, to, mode, folder, staged } => self.bind(from, to, *mode, *folder, *staged),
            Mount::Memory { to } => {
                let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                let new = file_system("tmpfs", &[("mode", "1777")], flags)?;
                self.folder(to.as_bytes())?;
                attach(&new, self.find(to, false)?, OsStr::new(""))
            }
            Mount::Processes { to } => {
                // Read-only: a step of the real root would else be the owner of what is in /proc/sys.
                let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC
                    | MountAttrFlags::MOUNT_ATTR_RDONLY;
                let new = file_system("proc", &[], flags)?;
                self.folder(to.as_bytes())?;
                attach(&new, self.find(to, false)?, OsStr::new(""))
            }
        }
    }

    fn bind(&mut self, from: &OsStr, to: &OsStr, mode: Mode, folder: bool, staged: bool) -> Result<(), Failure> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = if staged {
            // What lies in the stage comes from the project: no link in it may lead anywhere.
            let place = rustix::fs::openat2(
                CWD,
                from.as_bytes(),
                OFlags::PATH | OFlags::CLOEXEC,
                Bits::empty(),
                ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            );
            place.and_then(|p| rustix::mount::open_tree(&p, c"", flags | OpenTreeFlags::AT_EMPTY_PATH))
        } else {
            rustix::mount::open_tree(CWD, from.as_bytes(), flags)
        };
        let tree = tree.during(|| format!("bind {}", shown(from)))?;
        let set = libc::MOUNT_ATTR_NOSUID
            | match mode {
                Mode::ReadOnly => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV,
                Mode::Writable => libc::MOUNT_ATTR_NODEV,
                Mode::Device => libc::MOUNT_ATTR_NOEXEC,
            };
        sys::mount_attributes(tree.as_fd(), set).during(|| format!("set the attributes of {}", shown(from)))?;
        if !staged && folder {
            self.folder(to.as_bytes())?;
        } else if !staged {
            drop(self.file(to)?);
        }
        attach(&tree, self.find(to, staged)?, OsStr::new(""))
    }

    /// The place of a path in the new root.
    fn find(&self, to: &OsStr, staged: bool) -> Result<OwnedFd, Failure> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if staged {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        rustix::fs::openat2(&self.root, to.as_bytes(), OFlags::PATH | OFlags::CLOEXEC, Bits::empty(), resolve)
            .during(|| format!("find {} in the new root", shown(to)))
    }

    /// Makes a folder and those above it.
    fn folder(&mut self, path: &[u8]) -> Result<(), Failure> {
        if path.is_empty() || path == b"/" || self.made.contains(path) {
            return Ok(());
        }
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Bits::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).during(|| format!("make the folder {}", shown(OsStr::from_bytes(path)))),
        }
        self.made.insert(path.to_owned());
        Ok(())
    }

    /// The folder above a path, made if need be, and the path's last name.
    fn parent<'a>(&mut self, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), Failure> {
        let at = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let above = &path[..at];
        self.folder(above)?;
        let above = if above.is_empty() { b"/" } else { above };
        Ok((self.find(OsStr::from_bytes(above), false)?, &path[at + 1..]))
    }

    /// A file, made if it is not there.
    fn file(&mut self, path: &OsStr) -> Result<OwnedFd, Failure> {
        let (parent, name) = self.parent(path.as_bytes())?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Bits::from_raw_mode(0o644)) {
            // In what is mounted read-only already, it is there or can't be.
            Err(Errno::ROFS | Errno::ACCESS | Errno::LOOP) => self.find(path, false),
            other => other.during(|| format!("make the file {}", shown(path))),
        }
    }
}

fn shown(path: &OsStr) -> String {
    Path::new(path).display().to_string()
}
