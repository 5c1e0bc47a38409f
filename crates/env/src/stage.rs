//! The folder that a step runs in: its declared inputs, places for its outputs, and nothing else.

use fs_err as fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trainlock_types::{Digest, Entry, EntryKind, Hasher, RelPath};

/// A step's own folder: `root` mirrors the workspace (the step starts in its member's folder there),
/// `tmp` and `home` are empty, `bin` holds links to the project's tools.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
    member: PathBuf,
}

/// Why a stage could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The file system refused.
    #[error("can't lay out the step's folder")]
    Io(#[from] std::io::Error),
    /// A source file changed between hashing and copying.
    #[error("`{0}` changed while trainlock was reading it: run the command again")]
    Changed(PathBuf),
}

impl Stage {
    /// Lays out an empty stage in `folder`, which exists and is empty.
    pub fn new(folder: PathBuf, member: &RelPath) -> Result<Stage, StageError> {
        let member = member.on(&folder.join("root"));
        fs::create_dir_all(&member)?;
        for name in ["tmp", "home"] {
            fs::create_dir(folder.join(name))?;
        }
        Ok(Stage { folder, member })
    }

    /// The stage's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that the step starts in.
    pub fn member(&self) -> &Path {
        &self.member
    }

    /// Where a path of the workspace lies in the stage.
    pub fn path(&self, path: &RelPath) -> PathBuf {
        path.on(&self.folder.join("root"))
    }

    /// Where a path of the workspace lies in the stage, with the folders above it made.
    pub fn place(&self, path: &RelPath) -> Result<PathBuf, StageError> {
        let to = self.path(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(to)
    }

    /// Copies a source file of the project to its place, read-only and with the store's fixed time; a link
    /// (inside a folder) as a link. The copy is hashed: what the step sees is what its key says, whoever edits the source meanwhile.
    pub fn copy(&self, from: &Path, path: &RelPath, entry: &Entry) -> Result<(), StageError> {
        let to = self.place(path)?;
        if entry.kind == EntryKind::Symlink {
            let target = fs::read_link(from)?;
            if Digest::of(target.as_os_str().as_encoded_bytes()) != entry.sha256 {
                return Err(StageError::Changed(from.to_owned()));
            }
            return Ok(fs::os::unix::fs::symlink(target, to)?);
        }
        fs::copy(from, &to)?;
        let mut file = fs::File::open(&to)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; (entry.size as usize + 1).min(256 << 10)];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        if hasher.finish() != entry.sha256 {
            return Err(StageError::Changed(from.to_owned()));
        }
        let mode = if entry.kind == EntryKind::Executable { 0o555 } else { 0o444 };
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.file().set_modified(fixed_time())?;
        Ok(())
    }

    /// Writes a file that trainlock itself gives to the step, beside the step's folder; its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, StageError> {
        let file = self.folder.join(name);
        fs::write(&file, text)?;
        Ok(file)
    }

    /// Puts links to the project's tools into `bin`.
    pub fn link_tools<'a>(&self, tools: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Result<(), StageError> {
        let bin = self.folder.join("bin");
        for (i, (name, program)) in tools.into_iter().enumerate() {
            if i == 0 {
                fs::create_dir(&bin)?;
            }
            fs::os::unix::fs::symlink(program, bin.join(name))?;
        }
        Ok(())
    }

    /// Puts a script in a tool's place.
    pub fn replace_tool(&self, name: &str, script: &str) -> Result<(), StageError> {
        let file = self.folder.join("bin").join(name);
        fs::remove_file(&file)?;
        fs::write(&file, script)?;
        Ok(fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?)
    }
}

/// The modification time of every file that a step finds: 1980-01-01.
fn fixed_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(315_532_800)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laid_out_and_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("s.py");
        fs::write(&source, "x").unwrap();
        let work = folder.path().join("work");
        fs::create_dir(&work).unwrap();
        let member = RelPath::parse("exp/one").unwrap();
        let stage = Stage::new(work.clone(), &member).unwrap();
        let path = RelPath::parse("shared/s.py").unwrap();
        let mut entry = Entry { path: path.clone(), sha256: Digest::of(b"x"), size: 1, kind: EntryKind::Executable };
        stage.copy(&source, &path, &entry).unwrap();
        let placed = fs::metadata(stage.path(&path)).unwrap();
        assert_eq!(placed.permissions().mode() & 0o777, 0o555);
        assert_eq!(placed.modified().unwrap(), fixed_time());
        assert!(stage.member().ends_with("root/exp/one"));
        entry.sha256 = Digest::of(b"y");
        let changed = stage.copy(&source, &RelPath::parse("t.py").unwrap(), &entry);
        assert!(matches!(changed, Err(StageError::Changed(p)) if p == source));
        let link = folder.path().join("link");
        fs::os::unix::fs::symlink("s.py", &link).unwrap();
        let entry = Entry { sha256: Digest::of(b"s.py"), kind: EntryKind::Symlink, ..entry };
        stage.copy(&link, &RelPath::parse("shared/link").unwrap(), &entry).unwrap();
        assert_eq!(fs::read(stage.path(&RelPath::parse("shared/link").unwrap())).unwrap(), b"x");
        stage.link_tools([("python", Path::new("/usr/bin/python3"))]).unwrap();
        assert!(fs::symlink_metadata(work.join("bin/python")).unwrap().is_symlink());
    }
}
