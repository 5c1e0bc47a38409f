//! The listing of a tree: what a folder holds, a line a file, sorted; its digest names the tree.
//!
//! A line is `<sha256> <size> <path>`. An executable file has `+x` behind its sha256; a symbolic
//! link has `+l`, and its "content" is the text that it points to. Lines end with `\n` and are sorted
//! by the bytes of the path (which can hold no control character: see [`RelPath`]). Empty folders,
//! times and all other modes are left out (as git does).
//!
//! The file system of a container image has its empty folders too, each as a line `+d <path>` behind the others: programs
//! look for them. No tree of data or outputs has such a line.

use crate::{Digest, Hasher, RelPath};
use std::fmt::Write as _;

/// Up to this many files a listing stands in train.lock itself.
pub const LISTING_IN_LOCK: usize = 256;

/// Up to this many where the version of each stands beside it: without both, what was locked can't be had again once an object is
/// replaced. Such a lock has some 15 MB.
pub const VERSIONS_IN_LOCK: usize = 100_000;

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link; its content is the path that it holds.
    Symlink,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies, relative to the tree's root.
    pub path: RelPath,
    /// The digest of its content.
    pub sha256: Digest,
    /// The length of its content in bytes.
    pub size: u64,
    /// Whether it is a file, a program or a link.
    pub kind: EntryKind,
}

/// A tree's entries, sorted by path, each path once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    entries: Vec<Entry>,
    /// Sorted.
    empty: Vec<RelPath>,
}

/// What a line of an empty folder begins with.
const FOLDER: &str = "+d ";

/// Why a text is no listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// A line that is not `<sha256> <size> <path>`.
    #[error("line {0} of the listing is not `<sha256> <size> <path>`")]
    Line(usize),
    /// Lines out of order or twice the same path, a file that is also a folder, or an empty folder that is not empty.
    #[error("`{0}` stands twice or out of order in the listing")]
    Order(RelPath),
}

impl Listing {
    /// A listing of these entries; refuses a path twice, and a file inside a file.
    pub fn new(mut entries: Vec<Entry>) -> Result<Listing, ListingError> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Listing::sorted(entries)
    }

    fn sorted(entries: Vec<Entry>) -> Result<Listing, ListingError> {
        let mut files: Vec<&RelPath> = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            if i > 0 && entries[i - 1].path >= entry.path {
                return Err(ListingError::Order(entry.path.clone()));
            }
            // `a`, `a.b`, `a/c`: the file that could also be a folder need not be the line before.
            while files.last().is_some_and(|f| !entry.path.as_str().starts_with(f.as_str())) {
                files.pop();
            }
            if files.iter().any(|f| entry.path.below(f).is_some()) {
                return Err(ListingError::Order(entry.path.clone()));
            }
            files.push(&entry.path);
        }
        Ok(Listing { entries, empty: Vec::new() })
    }

    /// The same with these empty folders; refuses one twice, and one that something lies in or whose path leads through a
    /// file.
    pub fn with_empty_folders(mut self, mut folders: Vec<RelPath>) -> Result<Listing, ListingError> {
        folders.sort_unstable();
        let is_entry = |path: &RelPath| self.entries.binary_search_by(|entry| entry.path.cmp(path)).is_ok();
        for (i, folder) in folders.iter().enumerate() {
            let mut above = std::iter::successors(folder.parent(), RelPath::parent);
            let taken = folder.is_root() || is_entry(folder) || !self.below(folder).is_empty();
            let twice = i > 0 && folders[i - 1] == *folder;
            if taken || twice || above.any(|path| is_entry(&path) || folders.binary_search(&path).is_ok()) {
                return Err(ListingError::Order(folder.clone()));
            }
        }
        self.empty = folders;
        Ok(self)
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries themselves.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The empty folders, sorted.
    pub fn empty_folders(&self) -> &[RelPath] {
        &self.empty
    }

    /// How many entries there are.
    pub fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The bytes of all entries together.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|e| e.size).sum()
    }

    /// The digest that names the tree: that of the listing's text.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.lines(|line| hasher.update(line.as_bytes()));
        hasher.finish()
    }

    /// The listing's text.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.entries.len() * 100);
        self.lines(|line| text.push_str(line));
        text
    }

    fn lines(&self, mut each: impl FnMut(&str)) {
        let mut line = String::new();
        for entry in &self.entries {
            line.clear();
            entry.write(&mut line);
            line.push('\n');
            each(&line);
        }
        for folder in &self.empty {
            each(&format!("{FOLDER}{folder}\n"));
        }
    }

    /// A listing from its text.
    pub fn parse(text: &str) -> Result<Listing, ListingError> {
        let (mut entries, mut folders) = (Vec::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            let bad = ListingError::Line(i + 1);
            match line.strip_prefix(FOLDER) {
                Some(path) => {
                    let path = RelPath::parse(path).map_err(|_| bad)?;
                    if folders.last().is_some_and(|last| *last >= path) {
                        return Err(ListingError::Order(path));
                    }
                    folders.push(path);
                }
                None if folders.is_empty() => entries.push(Entry::parse(line).ok_or(bad)?),
                None => return Err(bad),
            }
        }
        Listing::sorted(entries)?.with_empty_folders(folders)
    }

    /// The part below `folder`, with paths from there; the entry itself, under an empty path, if
    /// `folder` names a file. Empty if there is nothing there.
    pub fn below(&self, folder: &RelPath) -> Vec<Entry> {
        let start = self.entries.partition_point(|e| e.path < *folder);
        self.entries[start..]
            .iter()
            .take_while(|e| e.path.as_str().starts_with(folder.as_str()))
            .filter_map(|e| e.path.below(folder).map(|path| Entry { path, ..e.clone() }))
            .collect()
    }
}

impl Entry {
    /// The line of this entry, without its line feed.
    pub fn to_line(&self) -> String {
        let mut line = String::new();
        self.write(&mut line);
        line
    }

    fn write(&self, out: &mut String) {
        let mark = match self.kind {
            EntryKind::File => "",
            EntryKind::Executable => "+x",
            EntryKind::Symlink => "+l",
        };
        self.sha256.write_hex(out);
        let _ = write!(out, "{mark} {} {}", self.size, self.path);
    }

    /// An entry from its line.
    pub fn parse(line: &str) -> Option<Entry> {
        let (hash, rest) = line.split_once(' ')?;
        let (size, path) = rest.split_once(' ')?;
        let (hash, kind) = match hash.split_once('+') {
            None => (hash, EntryKind::File),
            Some((hash, "x")) => (hash, EntryKind::Executable),
            Some((hash, "l")) => (hash, EntryKind::Symlink),
            Some(_) => return None,
        };
        let path = RelPath::parse(path).ok()?;
        Some(Entry { path, sha256: hash.parse().ok()?, size: size.parse().ok()?, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: RelPath::parse(path).unwrap(),
            sha256: Digest::of(path.as_bytes()),
            size: path.len() as u64,
            kind,
        }
    }

    #[test]
    fn text_and_back() {
        let listing = Listing::new(vec![
            entry("b/x y", EntryKind::Executable),
            entry("ä", EntryKind::File),
            entry("a", EntryKind::Symlink),
        ])
        .unwrap();
        let text = listing.to_text();
        assert_eq!(text.lines().map(|l| l.rsplit_once(' ').unwrap().1).collect::<Vec<_>>(), ["a", "y", "ä"]);
        assert_eq!(Listing::parse(&text), Ok(listing.clone()));
        assert_eq!(listing.digest(), Digest::of(text.as_bytes()));
        assert_eq!(listing.count(), 3);
        assert_eq!(listing.size(), 1 + 5 + 2);
    }

    #[test]
    fn a_path_twice_or_a_file_in_a_file_is_refused() {
        let twice = vec![entry("a", EntryKind::File), entry("a", EntryKind::File)];
        assert!(Listing::new(twice).is_err());
        let inside = vec![entry("a", EntryKind::File), entry("a-b", EntryKind::File), entry("a/c", EntryKind::File)];
        assert!(Listing::new(inside).is_err());
        assert!(Listing::parse("zz 1 a\n").is_err());
    }

    #[test]
    fn empty_folders() {
        let path = |text: &str| RelPath::parse(text).unwrap();
        let plain = Listing::new(vec![entry("a", EntryKind::File), entry("d/f", EntryKind::File)]).unwrap();
        let with = |folders: &[&str]| plain.clone().with_empty_folders(folders.iter().map(|f| path(f)).collect());
        assert_eq!(with(&[]), Ok(plain.clone()));
        let listing = with(&["var/tmp", "d/e", "var-x"]).unwrap();
        let text = listing.to_text();
        assert_eq!(text, format!("{}+d d/e\n+d var-x\n+d var/tmp\n", plain.to_text()));
        assert_eq!(Listing::parse(&text), Ok(listing.clone()));
        assert_eq!(listing.digest(), Digest::of(text.as_bytes()));
        assert_eq!((listing.entries(), listing.count()), (plain.entries(), 2));
        for bad in [&["d"][..], &["a"], &["a/b"], &["x", "x"], &["x", "x-y", "x/y"]] {
            assert!(with(bad).is_err(), "{bad:?}");
        }
        assert!(plain.clone().with_empty_folders(vec![RelPath::root()]).is_err());
        for bad in ["+d b\n+d a\n", "+d b\n+d b\n", "+d ../b\n", "+d \n", "+d b\n+x 1 c\n"] {
            assert!(Listing::parse(bad).is_err(), "{bad:?}");
        }
        let after = format!("+d b\n{}", plain.to_text());
        assert!(Listing::parse(&after).is_err());
    }

    #[test]
    fn parts() {
        let listing =
            Listing::new(["a/b/1", "a/b/2", "a/b-c", "a/c"].map(|p| entry(p, EntryKind::File)).into()).unwrap();
        let paths = |p: &str| {
            listing.below(&RelPath::parse(p).unwrap()).into_iter().map(|e| e.path.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths("a/b"), ["1", "2"]);
        assert_eq!(paths("a/c"), [""]);
        assert!(paths("x").is_empty());
    }
}
