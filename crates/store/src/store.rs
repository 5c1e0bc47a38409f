//! The store's folder: opening it, finding what it holds, and the projects that use it.

use crate::error::StoreError;
use crate::hash;
use crate::lock::LockGuard;
use crate::session::Session;
use crate::sys::{self, Stamp};
use rustix::fs::CWD;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use trainlock_types::{Digest, Listing};

/// The layout that this crate reads and writes.
const VERSION: &str = "1";

/// What a store's folder may hold at its top (and what a file system's root does).
const TOP: [&str; 9] = ["version", "objects", "trees", "results", "tmp", "failed", "locks", "projects", "lost+found"];

/// The first line of a result's file, before the checksum of what follows.
const RESULT_HEAD: &str = "trainlock-result 1 ";

/// A store's folder; cheap to clone, and safe to use from many threads and processes.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Devices to which a reflink from here was tried, and whether it worked: not found out again for each file.
    reflinks: Mutex<Vec<(u64, bool)>>,
    /// Folders outside the store in which leftovers have been looked for.
    swept: Mutex<HashSet<PathBuf>>,
}

/// What a store holds. Bytes are the files' lengths; content that several files share counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many objects.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// How many trees.
    pub trees: u64,
    /// The bytes of their files.
    pub tree_bytes: u64,
    /// How many results.
    pub results: u64,
    /// Their bytes.
    pub result_bytes: u64,
}

impl Store {
    /// Opens the store at `root`, and makes the folder if it is missing. A relative path is made
    /// absolute. Errors: a newer layout, a folder with other things in it, one that may not be written.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let root = std::path::absolute(root).map_err(|e| StoreError::io("find", root, e))?;
        let version = root.join("version");
        match fs_err::read_to_string(&version) {
            Ok(text) if text.trim() == VERSION => {}
            Ok(text) if !text.trim().is_empty() => {
                return Err(StoreError::NewerVersion { path: root, found: text.trim().to_owned() });
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io("read", version, error));
            }
            // Missing, or empty: someone was killed between making the file and writing to it.
            Ok(_) | Err(_) => {
                fs_err::create_dir_all(&root).map_err(|e| StoreError::io("create", &root, e))?;
                for entry in fs_err::read_dir(&root).map_err(|e| StoreError::io("read", &root, e))? {
                    let entry = entry.map_err(|e| StoreError::io("read", &root, e))?;
                    if !TOP.iter().any(|name| entry.file_name() == *name) {
                        return Err(StoreError::NotAStore { path: root });
                    }
                }
                fs_err::write(&version, format!("{VERSION}\n")).map_err(|e| StoreError::io("create", &version, e))?;
            }
        }
        Ok(Store { inner: Arc::new(Inner { root, reflinks: Mutex::default(), swept: Mutex::default() }) })
    }

    /// The store's folder, absolute.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Begins to write. First settles what sessions left that ended without their final sync: if the
    /// machine has not restarted since, the page cache still has all of it and one sync makes it durable;
    /// if it has (a power cut), all that such a session may have put in place is hashed again, and
    /// what is damaged is removed. Waits while `gc` runs.
    pub fn session(&self) -> Result<Session, StoreError> {
        Session::begin(self, |_| {})
    }

    /// As [`Store::session`]; `on_wait` is told, with the process id where it is known, that `gc` runs
    /// in another process and is waited for.
    pub fn session_or_wait(&self, on_wait: impl FnOnce(Option<u32>)) -> Result<Session, StoreError> {
        Session::begin(self, on_wait)
    }

    /// The file of an object (its plain or its executable variant); none if there is no such object.
    /// A file of another size than `size` (bytes, where known), or one that was written to since it was
    /// put here, is hashed again, and removed if it is damaged.
    pub fn object(&self, sha256: &Digest, size: Option<u64>) -> Result<Option<PathBuf>, StoreError> {
        for exec in [false, true] {
            let path = self.object_path(sha256, exec);
            match Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? {
                None => {}
                Some(stamp)
                    if size.is_none_or(|s| s == stamp.size) && sys::is_whole(rustix::fs::CWD, &path, &stamp, exec) =>
                {
                    return Ok(Some(path));
                }
                Some(_) if self.recheck(&path, sha256, exec)? => return Ok(Some(path)),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// Whether the store has this tree.
    pub fn has_tree(&self, digest: &Digest) -> bool {
        self.tree(digest).is_some()
    }

    /// The folder of a tree; none if it is not here.
    pub fn tree(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.tree_path(digest);
        Stamp::of(&path).is_ok_and(|s| s.is_dir()).then_some(path)
    }

    /// The listing of a tree (also of one whose files are not here), checked against the digest.
    /// A damaged one is removed and counts as missing.
    pub fn listing(&self, digest: &Digest) -> Result<Option<Listing>, StoreError> {
        let Some(path) = self.object(digest, None)? else {
            return Ok(None);
        };
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", path, error)),
        };
        if Digest::of(&bytes) != *digest {
            self.distrust(digest)?;
            return Ok(None);
        }
        Ok(String::from_utf8(bytes).ok().and_then(|text| Listing::parse(&text).ok()))
    }

    /// The bytes that were kept under a step's key; none if there are none. A damaged file is
    /// removed and counts as missing.
    pub fn result(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.result_path(key);
        let read = || match fs_err::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path, error)),
        };
        let Some(bytes) = read()? else {
            return Ok(None);
        };
        if let Some(content) = result_content(&bytes) {
            return Ok(Some(content.to_vec()));
        }
        // Looked at once more under the lock, so that a valid one that came meanwhile is not removed.
        let _lock = self.repair_lock()?;
        match read()?.as_deref().map(result_content) {
            None => Ok(None),
            Some(Some(content)) => Ok(Some(content.to_vec())),
            Some(None) => {
                sys::ignore_missing(fs_err::remove_file(&path)).map_err(|e| StoreError::io("remove", &path, e))?;
                Ok(None)
            }
        }
    }

    /// Takes the lock of this name for one holder on this machine, waiting if need be; `on_wait` gets the
    /// holder's process id (where it is known) when it must wait. Any text is a name.
    pub fn lock(&self, name: &str, on_wait: impl FnOnce(Option<u32>)) -> Result<LockGuard, StoreError> {
        LockGuard::exclusive(&self.lock_path(name), on_wait)
    }

    /// As [`Store::lock`], but gives up, with none, when `stopped` says so: it is asked several times a second.
    pub fn lock_unless(
        &self,
        name: &str,
        on_wait: impl FnOnce(Option<u32>),
        stopped: impl Fn() -> bool,
    ) -> Result<Option<LockGuard>, StoreError> {
        LockGuard::exclusive_unless(&self.lock_path(name), on_wait, stopped)
    }

    /// Notes that a project uses this store, so that `gc` can ask it what it needs.
    /// `root` is its folder, absolute. Costs one look when it is known already.
    pub fn remember_project(&self, root: &Path) -> Result<(), StoreError> {
        let bytes = root.as_os_str().as_bytes();
        let path = self.project_path(root);
        if Stamp::of(&path).is_ok_and(|s| s.size == bytes.len() as u64) {
            return Ok(());
        }
        let temporary = path.with_extension(format!("{:016x}", sys::nonce()));
        let write = || -> std::io::Result<()> {
            fs_err::create_dir_all(self.root().join("projects"))?;
            fs_err::write(&temporary, bytes)?;
            fs_err::rename(&temporary, &path)
        };
        write().map_err(|e| StoreError::io("write", &path, e))
    }

    /// Forgets a project: `gc` does not ask for it any more.
    pub fn forget_project(&self, root: &Path) -> Result<(), StoreError> {
        let path = self.project_path(root);
        sys::ignore_missing(fs_err::remove_file(&path)).map_err(|e| StoreError::io("remove", path, e))
    }

    /// The roots of the projects that were remembered, sorted; also those that do not exist any more.
    pub fn projects(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut projects = Vec::new();
        for path in children(&self.root().join("projects"))? {
            match fs_err::read(&path) {
                Ok(bytes) if path.file_name() == Some(OsStr::new(&Digest::of(&bytes).to_hex())) => {
                    projects.push(PathBuf::from(OsStr::from_bytes(&bytes)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", path, error)),
            }
        }
        projects.sort();
        Ok(projects)
    }

    /// Counts what the store holds.
    pub fn size(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        let mut seen = HashSet::new();
        let mut bytes = |stamp: &Stamp| {
            if stamp.links < 2 || seen.insert((stamp.dev, stamp.ino)) { stamp.size } else { 0 }
        };
        for (path, _) in self.entries("objects")? {
            if let Some(stamp) = Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? {
                usage.objects += 1;
                usage.object_bytes += bytes(&stamp);
            }
        }
        for (path, _) in self.entries("trees")? {
            usage.trees += 1;
            let mut folders = vec![path];
            while let Some(folder) = folders.pop() {
                for path in children(&folder)? {
                    match Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? {
                        Some(stamp) if stamp.is_dir() => folders.push(path),
                        Some(stamp) => usage.tree_bytes += bytes(&stamp),
                        None => {}
                    }
                }
            }
        }
        for (path, _) in self.entries("results")? {
            if let Some(stamp) = Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? {
                usage.results += 1;
                usage.result_bytes += bytes(&stamp);
            }
        }
        Ok(usage)
    }

    pub(crate) fn object_path(&self, sha256: &Digest, exec: bool) -> PathBuf {
        self.named("objects", sha256, if exec { ".x" } else { "" })
    }

    pub(crate) fn tree_path(&self, digest: &Digest) -> PathBuf {
        self.named("trees", digest, "")
    }

    pub(crate) fn result_path(&self, key: &Digest) -> PathBuf {
        self.named("results", key, "")
    }

    fn named(&self, part: &str, digest: &Digest, suffix: &str) -> PathBuf {
        let hex = digest.to_hex();
        let mut path = String::with_capacity(part.len() + hex.len() + 4);
        for piece in [part, "/", &hex[..2], "/", &hex[2..], suffix] {
            path.push_str(piece);
        }
        self.root().join(path)
    }

    fn project_path(&self, root: &Path) -> PathBuf {
        self.root().join("projects").join(Digest::of(root.as_os_str().as_bytes()).to_hex())
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root().join("locks")
    }

    /// Names of callers never meet the store's own locks, which begin with a dot.
    fn lock_path(&self, name: &str) -> PathBuf {
        let mut file = String::new();
        for (i, byte) in name.bytes().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => file.push(byte as char),
                b'.' if i > 0 => file.push('.'),
                _ => file.push_str(&format!("%{byte:02X}")),
            }
        }
        // A file system has names of up to 255 bytes.
        if file.is_empty() || file.len() > 200 {
            file = format!("%{}", Digest::of(name.as_bytes()));
        }
        self.locks().join(file)
    }

    /// Held by sessions together, and by `gc` alone.
    pub(crate) fn use_lock(&self) -> PathBuf {
        self.locks().join(".store")
    }

    /// Held while something damaged is looked at again and removed or replaced.
    pub(crate) fn repair_lock(&self) -> Result<LockGuard, StoreError> {
        LockGuard::exclusive(&self.locks().join(".repair"), |_| {})
    }

    /// The files or folders of `objects`, `trees` or `results` with the digests that name them; others
    /// (which nothing ever looks up) are passed over.
    pub(crate) fn entries(&self, part: &str) -> Result<Vec<(PathBuf, Digest)>, StoreError> {
        let mut entries = Vec::new();
        for folder in children(&self.root().join(part))? {
            for path in children(&folder)? {
                if let Some(digest) = digest_of_name(&path) {
                    entries.push((path, digest));
                }
            }
        }
        Ok(entries)
    }

    /// Whether reflinks work on a device; none if nobody has tried.
    pub(crate) fn reflinks(&self, device: u64) -> Option<bool> {
        self.known_reflinks().iter().find(|(known, _)| *known == device).map(|(_, work)| *work)
    }

    /// Notes whether reflinks work on a device.
    pub(crate) fn note_reflinks(&self, device: u64, work: bool) {
        if self.reflinks(device).is_none() {
            self.known_reflinks().push((device, work));
        }
    }

    pub(crate) fn first_sweep(&self, folder: &Path) -> bool {
        let mut swept = self.inner.swept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        !swept.contains(folder) && swept.insert(folder.to_owned())
    }

    fn known_reflinks(&self) -> std::sync::MutexGuard<'_, Vec<(u64, bool)>> {
        self.inner.reflinks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Hashes an object's file again. A good one gets its time and mode back, a damaged one is
    /// removed. Returns whether it is there and good.
    pub(crate) fn recheck(&self, path: &Path, sha256: &Digest, exec: bool) -> Result<bool, StoreError> {
        let _lock = self.repair_lock()?;
        let failed = |e: rustix::io::Errno| StoreError::io("read", path, e);
        let Some(stamp) = Stamp::find(path).map_err(failed)? else {
            return Ok(false);
        };
        if stamp.is_file() {
            let file = match sys::open_file(CWD, path) {
                // The owner may have no right to read what someone made unreadable.
                Err(rustix::io::Errno::ACCESS) => {
                    rustix::fs::chmod(path, sys::mode(sys::mode_bits(exec))).map_err(failed)?;
                    sys::open_file(CWD, path).map_err(failed)?
                }
                other => other.map_err(failed)?,
            };
            let file = File::from(file);
            // The time first: whatever writes while this reads shows by it.
            let repaired = repair(&file, exec);
            let (found, _) =
                hash::hash_fd(&file, stamp.size, &mut Vec::new()).map_err(|e| StoreError::io("read", path, e))?;
            let quiet = || Stamp::fd(&file).is_ok_and(|s| s.is_untouched(exec));
            if found == *sha256 && (repaired.is_err() || quiet()) {
                return Ok(true);
            }
        }
        sys::remove_all(path).map_err(|e| StoreError::io("remove", path, e))?;
        Ok(false)
    }
}

/// Gives an open file the mode and the time of the store's files.
pub(crate) fn repair(file: &File, exec: bool) -> Result<(), rustix::io::Errno> {
    // A file made with that mode mostly has it, and to look is quicker than to write it down once more.
    if Stamp::fd(file)?.mode & 0o7777 != sys::mode_bits(exec) {
        rustix::fs::fchmod(file, sys::mode(sys::mode_bits(exec)))?;
    }
    rustix::fs::futimens(file, &sys::fixed_times())
}

/// A result's file: its head with the checksum, then the bytes.
pub(crate) fn result_file(content: &[u8]) -> Vec<u8> {
    let mut file = format!("{RESULT_HEAD}{}\n", Digest::of(content)).into_bytes();
    file.extend_from_slice(content);
    file
}

/// The content of a result's file, if its checksum is right.
pub(crate) fn result_content(file: &[u8]) -> Option<&[u8]> {
    let (head, content) = file.split_at_checked(RESULT_HEAD.len() + 65)?;
    let sum = std::str::from_utf8(head).ok()?.strip_prefix(RESULT_HEAD)?.strip_suffix('\n')?;
    (sum.parse() == Ok(Digest::of(content))).then_some(content)
}

/// The paths in a folder, unsorted; none if it does not exist.
pub(crate) fn children(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("read", folder, error)),
    };
    entries.map(|e| e.map(|e| e.path()).map_err(|e| StoreError::io("read", folder, e))).collect()
}

/// The digest that the last two components of a path spell: `ab/REST` or `ab/REST.x`.
fn digest_of_name(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?.file_name()?.to_str()?;
    format!("{folder}{}", name.strip_suffix(".x").unwrap_or(name)).parse().ok()
}
