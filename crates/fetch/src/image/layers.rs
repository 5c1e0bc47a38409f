//! Layers become a file system (OCI image specification, "Image Layer Filesystem Changeset").
//!
//! The layers are read in their order into a map of what stands where, and the files' bytes go into the store as objects;
//! then the tree is made of the objects. So nothing is ever written through a link of a layer. What a tree of the store
//! can't hold is left out: devices, owners, times, modes but for a file's right to be executed, extended attributes (and so
//! file capabilities), and names that are no UTF-8 or hold control characters or backslashes. Links are kept as relative ones,
//! which lead to the same place.

use super::compiled::{for_the_store, source_of};
use crate::archive::{ArchiveError, Content, Kind, Limits, walk};
use crate::error::Failure;
use crate::settings::Cancel;
use crate::tree::UnpackError;
use fs_err::File;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead as _, Write as _};
use trainlock_store::{PutError, Session, StoreError};
use trainlock_types::{Digest, Entry, EntryKind, Listing, RelPath};

/// More links one behind the other than this lead nowhere.
const LINKS: usize = 40;

/// Larger than this, in bytes, is nothing that Python compiled.
const LARGEST_COMPILED: u64 = 64 << 20;

/// Marks what a layer takes away.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What stands at a path, and which layer put it there.
#[derive(Debug, Clone)]
struct Node {
    layer: usize,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Folder,
    File {
        sha256: Digest,
        size: u64,
        exec: bool,
        /// When it was written to last, in seconds since 1970.
        time: u64,
    },
    /// What the link holds.
    Link(String),
}

/// A file system in the making.
#[derive(Debug, Default)]
pub(super) struct Root {
    nodes: BTreeMap<RelPath, Node>,
    layers: usize,
}

impl Root {
    /// Lays a layer over those before. `progress` is told of all bytes as they are written.
    pub(super) fn add(
        &mut self,
        session: &Session,
        layer: File,
        limits: Limits,
        cancel: &Cancel,
        mut progress: impl FnMut(u64),
    ) -> Result<(), UnpackError> {
        self.layers += 1;
        let (mut size, mut count) = (0u64, 0u64);
        walk::<UnpackError>(
            layer,
            limits.decoded,
            |member| matches!(member.kind, Kind::File { .. }),
            |member, content| {
                if cancel.is_thrown() {
                    return Err(Failure::Interrupted.into());
                }
                count += 1;
                if count > limits.count {
                    return Err(ArchiveError::TooMany { limit: limits.count }.into());
                }
                let Some(path) = place(&member.name)? else { return Ok(()) };
                let name = path.file_name();
                if let Some(gone) = name.strip_prefix(WHITEOUT) {
                    let Some(folder) = path.parent() else { return Ok(()) };
                    let folder = self.folder_of(&folder);
                    if name == OPAQUE {
                        self.remove_below(&folder, true);
                    } else if let Ok(gone) = RelPath::parse(gone) {
                        self.remove(&folder.join(&gone), true);
                    }
                    return Ok(());
                }
                let what = match member.kind {
                    Kind::Folder => What::Folder,
                    Kind::Symlink(target) => match String::from_utf8(target) {
                        Ok(target) if !target.is_empty() => What::Link(target),
                        _ => return Ok(()),
                    },
                    Kind::HardLink(target) => {
                        let from = place(&target)?.map(|from| self.in_root(&from));
                        match from.and_then(|from| self.nodes.get(&from)).map(|node| node.what.clone()) {
                            Some(What::Folder) | None => {
                                let target = String::from_utf8_lossy(&target).into_owned();
                                return Err(ArchiveError::HardLink { name: path.to_string(), target }.into());
                            }
                            Some(what) => what,
                        }
                    }
                    Kind::File { size: bytes, exec } => {
                        size = size.saturating_add(bytes);
                        if size > limits.size {
                            return Err(ArchiveError::TooLarge { limit: limits.size }.into());
                        }
                        let (sha256, bytes) = put(session, content, &path)?;
                        progress(bytes);
                        What::File { sha256, size: bytes, exec, time: member.time }
                    }
                    // There is no use for one in a step: it has its own /dev.
                    Kind::Special(_) => return Ok(()),
                };
                self.put(&path, what);
                Ok(())
            },
        )
    }

    /// Gives what Python has compiled the time that its sources get in the store: it would not be used otherwise.
    pub(super) fn settle_compiled(&mut self, session: &Session) -> Result<(), StoreError> {
        let mut settled = Vec::new();
        for (path, node) in &self.nodes {
            let What::File { sha256, size, exec, time } = node.what else { continue };
            if size > LARGEST_COMPILED {
                continue;
            }
            let Some(source) = source_of(path).and_then(|source| self.nodes.get(&source)) else { continue };
            let What::File { size: of_source, time: then, .. } = source.what else { continue };
            let file = session.store().object(&sha256, Some(size))?.ok_or(StoreError::Missing(sha256))?;
            let bytes = fs_err::read(&file).map_err(|source| StoreError::Io { action: "read", path: file, source })?;
            if let Some(bytes) = for_the_store(bytes, (then, of_source)) {
                let sha256 = session.put_bytes(&bytes)?;
                settled.push((path.clone(), What::File { sha256, size, exec, time }));
            }
        }
        for (path, what) in settled {
            self.nodes.entry(path).and_modify(|node| node.what = what);
        }
        Ok(())
    }

    /// All that there is, with the content of each link in the store.
    pub(super) fn listing(&self, session: &Session) -> Result<Listing, StoreError> {
        let (mut entries, mut empty) = (Vec::new(), Vec::new());
        let mut full = HashSet::new();
        // What lies in a folder comes after it.
        for (path, node) in self.nodes.iter().rev() {
            full.extend(path.parent());
            entries.push(match &node.what {
                What::Folder if full.contains(path) => continue,
                What::Folder => {
                    empty.push(path.clone());
                    continue;
                }
                What::File { sha256, size, exec, .. } => {
                    let kind = if *exec { EntryKind::Executable } else { EntryKind::File };
                    Entry { path: path.clone(), sha256: *sha256, size: *size, kind }
                }
                What::Link(target) => {
                    let target = relative(path, &self.aim(path, target));
                    let (sha256, size) = (session.put_bytes(target.as_bytes())?, target.len() as u64);
                    Entry { path: path.clone(), sha256, size, kind: EntryKind::Symlink }
                }
            });
        }
        // A map has each path once, and nothing stands below a file in it.
        let listing = Listing::new(entries).and_then(|listing| listing.with_empty_folders(empty));
        Ok(listing.unwrap_or_else(|e| unreachable!("the map is a tree: {e}")))
    }

    /// Puts something at a path, and folders above it. Links above it are followed, as a program in the image would.
    fn put(&mut self, path: &RelPath, what: What) {
        let (Some(folder), Ok(name)) = (path.parent(), RelPath::parse(path.file_name())) else { return };
        let folder = self.folder_of(&folder);
        let mut above = RelPath::root();
        for part in folder.as_str().split('/').filter(|part| !part.is_empty()) {
            above = above.join(&RelPath::parse(part).unwrap_or_default());
            if !matches!(self.nodes.get(&above), Some(Node { what: What::Folder, .. })) {
                self.nodes.insert(above.clone(), Node { layer: self.layers, what: What::Folder });
            }
        }
        let at = folder.join(&name);
        let keeps = matches!((&what, self.nodes.get(&at)), (What::Folder, Some(Node { what: What::Folder, .. })));
        if !keeps {
            self.remove(&at, false);
            self.nodes.insert(at, Node { layer: self.layers, what });
        }
    }

    /// Takes away what stands at a path and below it; `older`: only what layers before this one put there.
    fn remove(&mut self, path: &RelPath, older: bool) {
        if self.nodes.get(path).is_some_and(|node| !older || node.layer < self.layers) {
            self.nodes.remove(path);
        }
        self.remove_below(path, older);
    }

    fn remove_below(&mut self, folder: &RelPath, older: bool) {
        let from = (std::ops::Bound::Excluded(folder), std::ops::Bound::Unbounded);
        let inside = |path: &RelPath| path.below(folder).is_some();
        // Names such as `a.b` stand between `a` and `a/c`.
        let near = |path: &RelPath| path.as_str().starts_with(folder.as_str());
        let gone: Vec<RelPath> = self
            .nodes
            .range::<RelPath, _>(from)
            .take_while(|(path, _)| near(path))
            .filter(|(path, node)| inside(path) && (!older || node.layer < self.layers))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }

    /// The true place of a folder: with the links on the way followed, the last one too.
    fn folder_of(&self, folder: &RelPath) -> RelPath {
        self.follow(&RelPath::root(), folder.as_str(), &mut 0)
    }

    /// The true place of a file: with the links on the way followed, and not the last one.
    fn in_root(&self, path: &RelPath) -> RelPath {
        let folder = path.parent().map(|folder| self.folder_of(&folder)).unwrap_or_default();
        RelPath::parse(path.file_name()).map_or_else(|_| folder.clone(), |name| folder.join(&name))
    }

    /// Where a link's text leads from its place: the links on the way followed, but for the last name.
    fn aim(&self, link: &RelPath, target: &str) -> RelPath {
        let from = link.parent().unwrap_or_default();
        let text = target.trim_end_matches('/');
        let (way, last) = text.rsplit_once('/').map_or(("", text), |(way, last)| (way, last));
        let absolute = if target.starts_with('/') { "/" } else { "" };
        let folder = self.follow(&from, &format!("{absolute}{way}"), &mut 0);
        match last {
            "" | "." | ".." => self.follow(&folder, last, &mut 0),
            // A name that no path of a tree has leads nowhere.
            name => RelPath::parse(name).map_or_else(|_| folder.clone(), |name| folder.join(&name)),
        }
    }

    /// Goes from a folder along a text, within the root: above it there is only itself.
    fn follow(&self, from: &RelPath, text: &str, links: &mut usize) -> RelPath {
        let mut at = if text.starts_with('/') { RelPath::root() } else { from.clone() };
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => at = at.parent().unwrap_or_default(),
                name => {
                    let Ok(name) = RelPath::parse(name) else { continue };
                    let next = at.join(&name);
                    at = match self.nodes.get(&next) {
                        Some(Node { what: What::Link(target), .. }) if *links < LINKS => {
                            *links += 1;
                            self.follow(&at, target, links)
                        }
                        _ => next,
                    };
                }
            }
        }
        at
    }
}

/// The path from a link's folder to another path: up first, then down.
fn relative(link: &RelPath, to: &RelPath) -> String {
    let folder = link.parent().unwrap_or_default();
    let parts =
        |path: &RelPath| path.as_str().split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (from, to) = (parts(&folder), parts(to));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".to_owned(), from.len() - common);
    let way: Vec<String> = up.chain(to[common..].iter().cloned()).collect();
    if way.is_empty() { ".".to_owned() } else { way.join("/") }
}

/// A member's name as a path in the root; none for the root itself and for names that a tree can't hold.
fn place(name: &[u8]) -> Result<Option<RelPath>, ArchiveError> {
    let Ok(text) = std::str::from_utf8(name) else { return Ok(None) };
    let text = text.trim_start_matches('/');
    if text.split('/').any(|part| part == "..") {
        return Err(ArchiveError::Name { name: text.to_owned(), why: "it holds `..`" });
    }
    Ok(RelPath::root().resolve(text).ok().filter(|path| !path.is_root()))
}

fn put(session: &Session, content: &mut Content, path: &RelPath) -> Result<(Digest, u64), UnpackError> {
    let mut writer = session.writer()?;
    loop {
        let bytes = content.fill_buf().map_err(|e| ArchiveError::from_read(e, Some(path.as_str().as_bytes())))?;
        if bytes.is_empty() {
            break;
        }
        let n = bytes.len();
        writer.write_all(bytes).map_err(|error| match StoreError::from_write(error) {
            Ok(error) => error,
            Err(source) => StoreError::Io { action: "write", path: Default::default(), source },
        })?;
        content.consume(n);
    }
    writer.finish(None).map_err(|error| match error {
        PutError::Store(error) => error.into(),
        other => StoreError::Io { action: "write", path: Default::default(), source: io::Error::other(other) }.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> RelPath {
        RelPath::root().resolve(text).unwrap()
    }

    fn root(layers: &[&[(&str, What)]]) -> Root {
        let mut root = Root::default();
        for layer in layers {
            root.layers += 1;
            for (path, what) in *layer {
                root.put(&p(path), what.clone());
            }
        }
        root
    }

    fn file() -> What {
        What::File { sha256: Digest::of(b"x"), size: 1, exec: false, time: 0 }
    }

    fn link(target: &str) -> What {
        What::Link(target.to_owned())
    }

    fn paths(root: &Root) -> Vec<&str> {
        root.nodes.iter().filter(|(_, n)| !matches!(n.what, What::Folder)).map(|(p, _)| p.as_str()).collect()
    }

    #[test]
    fn a_later_layer_wins() {
        let it = root(&[
            &[("bin", link("usr/bin")), ("usr/bin/a", file()), ("d/x", file()), ("f", file()), ("l", link("d"))],
            // Through a link of the layer before; a folder in a file's place and a file in a folder's; a folder for a link.
            &[("bin/b", file()), ("f/in", file()), ("d", file()), ("l", What::Folder), ("l/y", file())],
        ]);
        assert_eq!(paths(&it), ["bin", "d", "f/in", "l/y", "usr/bin/a", "usr/bin/b"]);
    }

    #[test]
    fn whiteouts_take_away_what_lies_below() {
        let mut it =
            root(&[&[("d/a", file()), ("d/b/c", file()), ("d.x", file()), ("e/a", file())], &[("d/new", file())]]);
        it.remove(&p("d/b"), true);
        assert_eq!(paths(&it), ["d.x", "d/a", "d/new", "e/a"]);
        it.remove_below(&p("d"), true);
        assert_eq!(paths(&it), ["d.x", "d/new", "e/a"], "what the layer itself brings stays");
        it.remove(&p("e"), true);
        assert_eq!(paths(&it), ["d.x", "d/new"]);
    }

    #[test]
    fn links_become_relative_and_stay_inside() {
        let it = root(&[&[
            ("usr/bin/python3.11", file()),
            ("etc/alternatives/python", link("/usr/bin/python3.11")),
            ("bin", link("usr/bin")),
            ("opt/up", link("../../../../etc/passwd")),
            ("opt/odd", link("/bin/../lib/x")),
            ("opt/root", link("/")),
            ("ring", link("ring/ring")),
            ("opt/there", link("/opt")),
        ]]);
        let of = |path: &str| {
            let Some(Node { what: What::Link(target), .. }) = it.nodes.get(&p(path)) else { panic!("{path}") };
            relative(&p(path), &it.aim(&p(path), target))
        };
        assert_eq!(of("etc/alternatives/python"), "../../usr/bin/python3.11");
        assert_eq!(of("bin"), "usr/bin");
        assert_eq!(of("opt/up"), "../etc/passwd");
        assert_eq!(of("opt/odd"), "../usr/lib/x", "as the kernel goes: `..` of where the link leads");
        assert_eq!(of("opt/root"), "..");
        assert_eq!(of("opt/there"), ".");
        assert!(!of("ring").contains(".."));
    }

    /// A layer in the making.
    struct Layer(tar::Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Layer {
            Layer(tar::Builder::new(Vec::new()))
        }

        fn add(mut self, kind: tar::EntryType, name: &str, to: &str, bytes: &[u8], mode: u32) -> Layer {
            let mut header = tar::Header::new_ustar();
            // As it is: the crate's own ways of naming would clean it.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            header.set_uid(1234);
            header.set_mtime(1_700_000_000);
            header.set_cksum();
            self.0.append(&header, bytes).unwrap();
            self
        }

        fn file(self, name: &str, text: &str) -> Layer {
            self.add(tar::EntryType::Regular, name, "", text.as_bytes(), 0o644)
        }

        fn folder(self, name: &str) -> Layer {
            self.add(tar::EntryType::Directory, name, "", b"", 0o1777)
        }

        fn link(self, name: &str, to: &str) -> Layer {
            self.add(tar::EntryType::Symlink, name, to, b"", 0o777)
        }

        fn hard(self, name: &str, to: &str) -> Layer {
            self.add(tar::EntryType::Link, name, to, b"", 0o644)
        }

        fn records(mut self, records: &[(&str, &[u8])]) -> Layer {
            self.0.append_pax_extensions(records.iter().copied()).unwrap();
            self
        }
    }

    /// The listing of layers laid over each other.
    fn laid(session: &Session, folder: &std::path::Path, layers: Vec<Layer>) -> Result<Listing, String> {
        let mut root = Root::default();
        for layer in layers {
            let path = folder.join("layer");
            fs_err::write(&path, layer.0.into_inner().unwrap()).unwrap();
            let limits = Limits { decoded: 1 << 30, size: 1 << 30, count: 200_000 };
            let added = root.add(session, File::open(&path).unwrap(), limits, &Cancel::new(), |_| {});
            added.map_err(|error| format!("{error:?}"))?;
        }
        root.settle_compiled(session).unwrap();
        Ok(root.listing(session).unwrap())
    }

    /// The file system of layers, unpacked into a store: what each path is (`name text`, `name* text` for a program,
    /// `name -> text` for a link, `name/` for an empty folder), or what is wrong with them.
    fn unpacked(layers: Vec<Layer>) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let store = trainlock_store::Store::open(&folder.path().join("store")).unwrap();
        let session = store.session().unwrap();
        let listing = laid(&session, folder.path(), layers)?;
        let tree = session.system_from_objects(&listing).unwrap();
        let at = store.tree(&tree.digest).unwrap();
        let of = |entry: &Entry| {
            let path = entry.path.on(&at);
            let text = |path| fs_err::read_to_string(path).unwrap();
            match entry.kind {
                EntryKind::File => format!("{} {}", entry.path, text(path)),
                EntryKind::Executable => format!("{}* {}", entry.path, text(path)),
                EntryKind::Symlink => format!("{} -> {}", entry.path, fs_err::read_link(path).unwrap().display()),
            }
        };
        let empty = |folder: &RelPath| {
            assert!(fs_err::read_dir(folder.on(&at)).unwrap().next().is_none(), "{folder}");
            format!("{folder}/")
        };
        let listing = store.listing(&tree.digest).unwrap().unwrap();
        session.finish(false).unwrap();
        assert_eq!(store.verify(|_| {}).unwrap().damaged, Vec::<std::path::PathBuf>::new());
        Ok(listing.entries().iter().map(of).chain(listing.empty_folders().iter().map(empty)).collect())
    }

    #[test]
    fn empty_folders_stay() {
        let base = Layer::new()
            .folder("./")
            .folder("var/tmp/")
            .folder("run/lock")
            .file("srv/x", "1")
            .folder("srv")
            .folder("opt/a");
        let over =
            Layer::new().file("opt/a/in", "2").file("srv/.wh.x", "").folder("run/lock/").file("mnt/.wh..wh..opq", "");
        assert_eq!(unpacked(vec![base, over]).unwrap(), ["opt/a/in 2", "run/lock/", "srv/", "var/tmp/"]);
    }

    #[test]
    fn whiteouts_of_one_file_and_of_all() {
        let base =
            || Layer::new().file("d/a", "1").file("d/sub/b", "1").file("d.x", "1").file("e/a", "1").file("f", "1");
        // Of what layers before put there, wherever in the layer they stand.
        let plain =
            Layer::new().file("d/new", "2").file("d/.wh.a", "").file(".wh.f", "").file("f", "2").file(".wh.e", "");
        let expected = ["d.x 1", "d/new 2", "d/sub/b 1", "f 2"];
        assert_eq!(unpacked(vec![base(), plain]).unwrap(), expected);
        let first = Layer::new().file("d/.wh..wh..opq", "").file("d/new", "2");
        let last = Layer::new().file("d/new", "2").file("d/.wh..wh..opq", "");
        for opaque in [first, last] {
            assert_eq!(unpacked(vec![base(), opaque]).unwrap(), ["d.x 1", "d/new 2", "e/a 1", "f 1"]);
        }
        // What is not there, and what was taken away and comes again.
        let nothing = Layer::new().file("no/such/.wh.thing", "").file(".wh.", "").file("x/.wh...", "");
        let again = Layer::new().file("e/b", "3");
        let whole = ["d.x 1", "d/a 1", "d/sub/b 1", "e/b 3", "f 1"];
        assert_eq!(unpacked(vec![base(), nothing, Layer::new().file(".wh.e", ""), again]).unwrap(), whole);
        // Through a link: the folder's content goes, the link stays.
        let through = Layer::new().link("l", "d").file("l/.wh.a", "");
        assert_eq!(unpacked(vec![base(), through]).unwrap(), ["d.x 1", "d/sub/b 1", "e/a 1", "f 1", "l -> d"]);
    }

    #[test]
    fn hard_links_take_what_stands_there_then() {
        let base = Layer::new().file("a", "1").add(tar::EntryType::Regular, "bin/p", "", b"#!", 0o4755).link("s", "a");
        let over = Layer::new()
            .hard("b", "./a")
            .hard("usr/q", "/bin/p")
            .hard("t", "s")
            .file("a", "2")
            .hard("c", "a")
            .file(".wh.s", "");
        let all = ["a 2", "b 1", "bin/p* #!", "c 2", "t -> a", "usr/q* #!"];
        assert_eq!(unpacked(vec![base, over]).unwrap(), all);
        for bad in ["nothing", "d", "../a", "d/../../a"] {
            let error = unpacked(vec![Layer::new().folder("d").hard("x", bad)]).unwrap_err();
            assert!(error.contains("HardLink") || error.contains("Name"), "{bad}: {error}");
        }
    }

    #[test]
    fn later_kinds_take_the_place_of_earlier_ones() {
        let base = Layer::new().file("f", "1").file("d/x", "1").link("l", "d").link("m", "/etc/secret").folder("e");
        let over = Layer::new()
            .file("f/in", "2")
            .file("d", "2")
            .folder("l")
            .file("m", "2")
            .file("e", "2")
            .file("n", "1")
            .file("n", "2");
        assert_eq!(unpacked(vec![base, over]).unwrap(), ["d 2", "e 2", "f/in 2", "m 2", "n 2", "l/"]);
    }

    #[test]
    fn nothing_leaves_the_root() {
        let links = Layer::new()
            .link("abs", "/etc/x")
            .link("deep/up", "../../../../etc/x")
            .link("deep/abs", "/deep")
            .link("out", "../..")
            .file("out/written", "1")
            .file("abs-folder/x", "1")
            .link("etc/x", "../../outside")
            .file("/rooted", "1");
        let all = [
            "abs -> etc/x",
            "abs-folder/x 1",
            "deep/abs -> .",
            "deep/up -> ../etc/x",
            "etc/x -> ../outside",
            "out -> .",
            "rooted 1",
            "written 1",
        ];
        assert_eq!(unpacked(vec![links]).unwrap(), all);
        for bad in ["../x", "a/../../x", "/../x", "a/.."] {
            assert!(unpacked(vec![Layer::new().file(bad, "1")]).unwrap_err().contains("Name"), "{bad}");
        }
        // A ring of links leads nowhere, and ends.
        let ring = Layer::new().link("a", "b").link("b", "a").file("a/x", "1");
        assert!(unpacked(vec![ring]).is_ok());
    }

    #[test]
    fn what_no_tree_can_hold_is_left_out() {
        let layer = Layer::new()
            .add(tar::EntryType::Char, "dev/null", "", b"", 0o666)
            .add(tar::EntryType::Fifo, "run/pipe", "", b"", 0o666)
            .records(&[
                ("SCHILY.xattr.security.capability", b"\x01\x00\x00\x02\x00\x20"),
                ("SCHILY.xattr.user.note", b"x"),
                ("mtime", b"1700000000.5"),
            ])
            .add(tar::EntryType::Regular, "bin/ping", "", b"ping", 0o4755)
            .file("odd\\x2d.slice", "1")
            .file("shadow", "1");
        assert_eq!(unpacked(vec![layer]).unwrap(), ["bin/ping* ping", "shadow 1"]);
    }

    #[test]
    fn what_python_compiled_is_of_its_source_still() {
        let compiled = |time: u32| [&b"\xa7\x0d\r\n\0\0\0\0"[..], &time.to_le_bytes(), &[3, 0, 0, 0], b"code"].concat();
        let pyc = |layer: Layer, name: &str, time| layer.add(tar::EntryType::Regular, name, "", &compiled(time), 0o644);
        let base = Layer::new().file("lib/a.py", "a=1").file("lib/b.py", "b=1").file("lib/c.py", "c=1");
        let base = pyc(base, "lib/__pycache__/a.cpython-311.pyc", 1_700_000_000);
        // Compiled later, of a source that was written later, of one of another size, of none, and of an older source.
        let over = pyc(Layer::new(), "lib/__pycache__/b.cpython-311.opt-2.pyc", 1_700_000_000);
        let over = over.records(&[("mtime", b"1700000077.25")]).file("lib/d.py", "d=1").file("lib/c.py", "c=10");
        let over = pyc(over, "lib/__pycache__/d.cpython-311.pyc", 1_700_000_077);
        let over = pyc(over, "lib/__pycache__/c.cpython-311.pyc", 1_700_000_000);
        let over = pyc(over, "lib/__pycache__/gone.cpython-311.pyc", 1_700_000_000);
        let over = pyc(over, "lib/__pycache__/b.cpython-311.pyc", 1_600_000_000);
        let folder = tempfile::tempdir().unwrap();
        let store = trainlock_store::Store::open(&folder.path().join("store")).unwrap();
        let listing = laid(&store.session().unwrap(), folder.path(), vec![base, over]).unwrap();
        let of_store = |name: &str| {
            let path = p(&format!("lib/__pycache__/{name}.pyc"));
            let entry = listing.entries().iter().find(|entry| entry.path == path).unwrap();
            entry.sha256 == Digest::of(&compiled(315_532_800))
        };
        let all = [
            "a.cpython-311",
            "b.cpython-311.opt-2",
            "d.cpython-311",
            "c.cpython-311",
            "gone.cpython-311",
            "b.cpython-311",
        ];
        assert_eq!(all.map(of_store), [true, true, true, false, false, false]);
    }

    #[test]
    fn a_hundred_thousand_members() {
        let mut layer = Layer::new().file("f", "x");
        for i in 0..60_000 {
            layer = layer.folder(&format!("d/{}/{i}/", i % 100));
        }
        for i in 0..40_000 {
            layer = layer.hard(&format!("h/{}/{i}", i % 100), "f");
        }
        let over = Layer::new().file("d/7/.wh..wh..opq", "").file("h/.wh.8", "");
        let folder = tempfile::tempdir().unwrap();
        let store = trainlock_store::Store::open(&folder.path().join("store")).unwrap();
        let listing = laid(&store.session().unwrap(), folder.path(), vec![layer, over]).unwrap();
        assert_eq!((listing.count(), listing.empty_folders().len()), (1 + 40_000 - 400, 60_000 - 600 + 1));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]

        /// Whatever layers hold, and in whatever order, they are refused or become a whole tree whose links stay inside.
        #[test]
        fn any_layers_become_a_tree(
            layers in proptest::collection::vec(
                proptest::collection::vec((0..6u8, "[ab-]{1,2}(/[ab-]{1,2}){0,2}", "(/|\\.\\./){0,2}[ab-]{1,2}(/\\.\\.)?(/[ab-]{1,2})?"), 0..12),
                1..4,
            ),
        ) {
            let member = |layer: Layer, (kind, path, target): (u8, String, String)| match kind {
                0 => layer.file(&path, "x"),
                1 => layer.folder(&path),
                2 => layer.link(&path, &target),
                3 => layer.hard(&path, &target),
                4 => layer.file(&format!("{path}/.wh..wh..opq"), ""),
                _ => match path.rsplit_once('/') {
                    Some((folder, name)) => layer.file(&format!("{folder}/.wh.{name}"), ""),
                    None => layer.file(&format!(".wh.{path}"), ""),
                },
            };
            let made = layers.into_iter().map(|members| members.into_iter().fold(Layer::new(), member)).collect();
            if let Err(error) = unpacked(made) {
                // Nothing else can be wrong with them.
                proptest::prop_assert!(error.contains("HardLink") || error.contains("Name"), "{}", error);
            }
        }
    }

    #[test]
    fn names() {
        assert_eq!(place(b"./usr//bin/a").unwrap(), Some(p("usr/bin/a")));
        assert_eq!(place(b"/etc/x").unwrap(), Some(p("etc/x")));
        assert_eq!(place(b"./").unwrap(), None);
        assert_eq!(place(b"a\\x2db").unwrap(), None);
        assert!(place(b"a/../../x").is_err());
    }
}
