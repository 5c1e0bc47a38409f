//! Source files of the repository: what folders and globs of `inputs` mean.
//!
//! A folder and a glob stand for the files below them that git would not ignore by the repository's
//! `.gitignore` files (a machine's own ignore rules play no part: the same repository means the same
//! files everywhere). A path that is named literally counts even if it is ignored. `.git` and
//! `.trainlock` are never part of anything.

use globset::{GlobBuilder, GlobMatcher};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use trainlock_types::RelPath;

/// Why sources could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A folder could not be read.
    #[error("can't list `{}`", folder.display())]
    Walk {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        #[source]
        source: ignore::Error,
    },
    /// A name that can't stand in a lock.
    #[error("`{}` has a name that can't be locked: use UTF-8 without control characters and backslashes", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// Not a glob.
    #[error("`{glob}` is no glob")]
    Glob {
        /// As written.
        glob: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
}

/// The files of a workspace, listed at most once for each folder and glob.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    root: &'a Path,
    folders: HashMap<RelPath, Vec<RelPath>>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(root: &'a Path) -> Sources<'a> {
        Sources { root, folders: HashMap::new() }
    }

    /// The files below a folder, sorted.
    pub(crate) fn folder(&mut self, folder: &RelPath) -> Result<&[RelPath], SourceError> {
        if !self.folders.contains_key(folder) {
            let files = walk(self.root, folder)?;
            self.folders.insert(folder.clone(), files);
        }
        Ok(&self.folders[folder])
    }

    /// The files below a folder whose path from there matches a glob, sorted.
    pub(crate) fn glob(&mut self, folder: &RelPath, glob: &str) -> Result<Vec<RelPath>, SourceError> {
        let matcher = matcher(glob)?;
        let matches = |path: &&RelPath| path.below(folder).is_some_and(|p| matcher.is_match(p.as_str()));
        Ok(self.folder(folder)?.iter().filter(matches).cloned().collect())
    }
}

/// A matcher for a glob over paths: `*` and `?` stay within one component.
pub(crate) fn matcher(glob: &str) -> Result<GlobMatcher, SourceError> {
    GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(false)
        .build()
        .map(|g| g.compile_matcher())
        .map_err(|source| SourceError::Glob { glob: glob.to_owned(), source })
}

fn walk(root: &Path, folder: &RelPath) -> Result<Vec<RelPath>, SourceError> {
    let start = folder.on(root);
    if !start.is_dir() {
        return Ok(Vec::new());
    }
    let walker = ignore::WalkBuilder::new(&start)
        .standard_filters(false)
        .git_ignore(true)
        .parents(true)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| entry.depth() == 0 || !matches!(entry.file_name().to_str(), Some(".git" | ".trainlock")))
        .build();
    let mut files = Vec::new();
    for entry in walker {
        let entry = entry.map_err(|source| SourceError::Walk { folder: start.clone(), source })?;
        // A symbolic link counts as the file that it leads to; a link to a folder is passed over.
        let is_file = match entry.file_type() {
            Some(kind) if kind.is_symlink() => entry.path().is_file(),
            kind => kind.is_some_and(|k| k.is_file()),
        };
        if is_file {
            let path = entry.path();
            let below = path.strip_prefix(root).ok().and_then(Path::to_str).and_then(|p| RelPath::parse(p).ok());
            files.push(below.ok_or_else(|| SourceError::Name { path: path.to_owned() })?);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "*.pyc\nbuild/\n").unwrap();
        }
        folder
    }

    fn texts(paths: &[RelPath]) -> Vec<&str> {
        paths.iter().map(RelPath::as_str).collect()
    }

    #[test]
    fn globs_and_folders_leave_out_what_git_ignores() {
        let folder = tree(&[
            ".gitignore",
            "src/a.py",
            "src/b/c.py",
            "src/a.pyc",
            "src/b/.hidden",
            "build/x.py",
            ".git/config",
            "src/.trainlock/y",
        ]);
        let mut sources = Sources::new(folder.path());
        let src = RelPath::parse("src").unwrap();
        assert_eq!(texts(&sources.glob(&src, "**/*.py").unwrap()), ["src/a.py", "src/b/c.py"]);
        assert_eq!(texts(&sources.glob(&src, "*.py").unwrap()), ["src/a.py"]);
        assert_eq!(texts(&sources.glob(&RelPath::root(), "**/*.{py,pyc}").unwrap()), ["src/a.py", "src/b/c.py"]);
        assert_eq!(texts(sources.folder(&src).unwrap()), ["src/a.py", "src/b/.hidden", "src/b/c.py"]);
        // Named literally, an ignored folder counts.
        assert_eq!(texts(sources.folder(&RelPath::parse("build").unwrap()).unwrap()), ["build/x.py"]);
        assert!(sources.folder(&RelPath::parse("none").unwrap()).unwrap().is_empty());
    }
}
