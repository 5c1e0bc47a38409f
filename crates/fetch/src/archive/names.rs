//! Which members may become files of a tree, decided before a byte of them is written.

use super::error::{ArchiveError, shown};
use std::collections::HashMap;
use trainlock_types::{PathError, RelPath};

/// The longest name of one file or folder, and the longest path, in bytes: what Linux and macOS have.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 1023;

/// A member's name as the path of a tree's file; the empty path for the tree's own folder (`./`).
pub(crate) fn parse(name: &[u8]) -> Result<RelPath, ArchiveError> {
    let fault = |why| ArchiveError::Name { name: shown(name), why };
    let text = std::str::from_utf8(name).map_err(|_| fault("it is not UTF-8"))?;
    if text.is_empty() {
        return Err(fault("it is empty"));
    }
    let path = match RelPath::root().resolve(text) {
        Ok(path) => path,
        Err(PathError::Absolute) => return Err(fault("it is an absolute path")),
        Err(PathError::Escapes) => return Err(fault("it leads out of the folder by `..`")),
        Err(PathError::Character('\\')) => return Err(fault("it holds a backslash")),
        Err(PathError::Character(_)) => return Err(fault("it holds a control character")),
        Err(PathError::Empty) => return Err(fault("it is empty")),
    };
    if text.split('/').any(|c| c == "..") {
        return Err(fault("it holds `..`"));
    }
    if path.as_str().len() > PATH_MAX || path.as_str().split('/').any(|c| c.len() > NAME_MAX) {
        return Err(fault("it is too long"));
    }
    Ok(path)
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Folder,
    /// Of so many bytes.
    File(u64),
    Link,
}

/// The paths that an archive's members took so far.
///
/// A path belongs to one member. Only folders may be named again, or be named after something in
/// them was. (tar programs write over the earlier member; then the tree would depend on the order.)
#[derive(Debug, Default)]
pub(crate) struct Places(HashMap<RelPath, Place>);

impl Places {
    /// Takes a path for a folder.
    pub(crate) fn folder(&mut self, path: &RelPath) -> Result<(), ArchiveError> {
        if path.is_root() {
            return Ok(());
        }
        match self.0.get(path) {
            Some(Place::Folder) => return Ok(()),
            Some(_) => return Err(ArchiveError::Twice(path.to_string())),
            None => {}
        }
        self.parents(path)?;
        self.0.insert(path.clone(), Place::Folder);
        Ok(())
    }

    /// Takes a path for a file of so many bytes.
    pub(crate) fn file(&mut self, path: &RelPath, size: u64) -> Result<(), ArchiveError> {
        self.take(path, Place::File(size))
    }

    /// Takes a path for a symbolic link. It may go up first and down then, within the tree. As no
    /// member lies behind a link, the way up is through true folders; so that no chain of links leaves.
    pub(crate) fn link(&mut self, path: &RelPath, target: &[u8]) -> Result<String, ArchiveError> {
        let out = || ArchiveError::LinkOut { name: path.to_string(), target: shown(target) };
        let text = std::str::from_utf8(target).map_err(|_| out())?;
        let folder = path.parent().ok_or_else(|| ArchiveError::Twice(path.to_string()))?;
        let mut down = text.split('/').filter(|c| !c.is_empty() && *c != ".").skip_while(|c| *c == "..");
        if text.len() > PATH_MAX || down.any(|c| c == "..") || folder.resolve(text).is_err() {
            return Err(out());
        }
        self.take(path, Place::Link)?;
        Ok(text.to_owned())
    }

    /// The size in bytes of the file at this path, if one is there.
    pub(crate) fn file_size(&self, path: &RelPath) -> Option<u64> {
        if let Some(Place::File(size)) = self.0.get(path) { Some(*size) } else { None }
    }

    fn take(&mut self, path: &RelPath, place: Place) -> Result<(), ArchiveError> {
        if path.is_root() || self.0.contains_key(path) {
            return Err(ArchiveError::Twice(path.to_string()));
        }
        self.parents(path)?;
        self.0.insert(path.clone(), place);
        Ok(())
    }

    /// Takes the folders above, which may come without members of their own.
    fn parents(&mut self, path: &RelPath) -> Result<(), ArchiveError> {
        let mut above = path.parent();
        let mut missing = Vec::new();
        while let Some(folder) = above.filter(|p| !p.is_root()) {
            match self.0.get(&folder) {
                Some(Place::Folder) => break,
                Some(Place::File(_)) => return Err(ArchiveError::Twice(folder.to_string())),
                Some(Place::Link) => {
                    return Err(ArchiveError::ThroughLink { name: path.to_string(), link: folder.to_string() });
                }
                None => {}
            }
            above = folder.parent();
            missing.push(folder);
        }
        self.0.extend(missing.into_iter().map(|folder| (folder, Place::Folder)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> RelPath {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names() {
        assert_eq!(p("./a//b/./c").as_str(), "a/b/c");
        assert!(p("./").is_root());
        let long = "x".repeat(256);
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a/..", "a\\b", "a\nb", "a\0b", "a\u{7f}", &long] {
            assert!(matches!(parse(bad.as_bytes()), Err(ArchiveError::Name { .. })), "{bad:?}");
        }
        assert!(parse(b"caf\xe9").is_err());
    }

    #[test]
    fn a_path_has_one_owner() {
        let mut places = Places::default();
        places.file(&p("a/b/c"), 7).unwrap();
        places.folder(&p("a/b")).unwrap();
        places.folder(&p("a")).unwrap();
        assert_eq!((places.file_size(&p("a/b/c")), places.file_size(&p("a/b"))), (Some(7), None));
        assert!(matches!(places.file(&p("a/b/c"), 0), Err(ArchiveError::Twice(_))));
        assert!(matches!(places.file(&p("a/b"), 0), Err(ArchiveError::Twice(_))));
        assert!(matches!(places.file(&p("a/b/c/d"), 0), Err(ArchiveError::Twice(_))));
        assert!(matches!(places.folder(&p("a/b/c")), Err(ArchiveError::Twice(_))));
        places.link(&p("l"), b"a").unwrap();
        assert!(matches!(places.file(&p("l/x"), 0), Err(ArchiveError::ThroughLink { .. })));
        assert!(matches!(places.folder(&p("l")), Err(ArchiveError::Twice(_))));
        assert!(matches!(places.link(&p("l"), b"a"), Err(ArchiveError::Twice(_))));
    }

    #[test]
    fn links_stay_inside() {
        // The last looks like `a` and would be two further up if `top` led to the root.
        for bad in ["/etc", "..", "../x", "a/../../x", "\u{1}", "", "a\\b", "a/top/.."] {
            assert!(Places::default().link(&p("l"), bad.as_bytes()).is_err(), "{bad:?}");
        }
        let mut good = Places::default();
        assert_eq!(good.link(&p("a/l"), b"../b/c").unwrap(), "../b/c");
        good.link(&p("a/b/up"), b".././..").unwrap();
        good.link(&p("gone"), b"./not/there/").unwrap();
    }
}
