//! Archives, good and hostile, through the fetcher's front door: `file:` addresses into a store.

mod make;

use make::{Zipped, bzip2, file, gzip, header, member, pax, symlink, tar, xz, zip, zstd};
use proptest::prelude::*;
use std::io::{Cursor, Write as _};
use std::path::Path;
use tempfile::TempDir;
use trainlock_fetch::{ArchiveError, Content, FetchError, Fetcher, Mismatch, Resolved, Settings, Want, Wanted};
use trainlock_store::Store;
use trainlock_types::{DataRequest, DataSource, Digest, EntryKind, Events, Listing, Name, RelPath, SourceUrl};

/// A store in a temporary folder, beside which nothing may appear.
struct Place {
    root: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let root = TempDir::new().unwrap();
        let store = Store::open(&root.path().join("store")).unwrap();
        Place { root, store }
    }

    fn url(&self, archive: &[u8]) -> SourceUrl {
        let path = self.root.path().join("archive");
        fs_err::write(&path, archive).unwrap();
        SourceUrl::parse(&format!("file://{}", path.display())).unwrap()
    }

    fn resolve(&self, archive: &[u8], extract: Option<&str>) -> Result<Resolved, FetchError> {
        self.resolve_with(Settings::default(), archive, extract)
    }

    fn resolve_with(&self, settings: Settings, archive: &[u8], extract: Option<&str>) -> Result<Resolved, FetchError> {
        let extract = extract.map(|path| RelPath::parse(path).unwrap());
        let unpack = extract.is_none();
        let source = DataSource::Url {
            url: self.url(archive),
            mirrors: vec![],
            checksum: None,
            size: None,
            rev: None,
            files: vec![],
            extract,
            unpack,
        };
        let request = DataRequest { member: None, name: Name::entry("set").unwrap(), source, to: RelPath::root() };
        let session = self.store.session().unwrap();
        Fetcher::new(settings, Events::none()).resolve_all(&session, &[&request]).remove(0)
    }

    /// The names beside the archive and inside of the store, without what sessions and locks leave.
    fn trees(&self) -> usize {
        let trees = self.root.path().join("store/trees");
        let Ok(folders) = fs_err::read_dir(trees) else {
            return 0;
        };
        folders.map(|f| fs_err::read_dir(f.unwrap().path()).unwrap().count()).sum()
    }

    fn beside(&self) -> Vec<String> {
        let mut names: Vec<String> = fs_err::read_dir(self.root.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn unpack(archive: &[u8]) -> Result<Listing, FetchError> {
    let place = Place::new();
    match place.resolve(archive, None)?.content {
        Content::Tree { digest, listing, .. } => {
            let tree = place.store.tree(&digest).unwrap();
            for entry in listing.entries() {
                check(&tree, entry);
            }
            Ok(listing)
        }
        other => panic!("{other:?}"),
    }
}

fn check(tree: &Path, entry: &trainlock_types::Entry) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = entry.path.on(tree);
    let metadata = fs_err::symlink_metadata(&path).unwrap();
    match entry.kind {
        EntryKind::Symlink => assert!(metadata.is_symlink()),
        kind => {
            assert!(metadata.is_file());
            assert_eq!(Digest::of(&fs_err::read(&path).unwrap()), entry.sha256);
            let mode = if kind == EntryKind::Executable { 0o555 } else { 0o444 };
            assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{}", entry.path);
        }
    }
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.entries().iter().map(|e| e.path.as_str()).collect()
}

/// Unpacking fails, for a reason about the archive; no tree comes, and nothing lands anywhere else.
fn refused(what: &str, archive: &[u8]) -> ArchiveError {
    let place = Place::new();
    let result = place.resolve(archive, None);
    assert_eq!(place.beside(), ["archive", "store"], "{what}");
    assert_eq!(place.trees(), 0, "{what}");
    match result {
        Err(FetchError::Archive { error, .. }) => error,
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn every_format_gives_the_same_tree() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let long = format!("{}/{}/end.txt", "d".repeat(120), "e".repeat(120));
    let files: [(&str, &[u8], u32); 4] = [
        ("./a.txt", b"one", 0o644),
        ("dir/run.sh", b"#!/bin/sh\n", 0o4755),
        ("dir/empty", b"", 0o600),
        (&long, b"deep", 0o644),
    ];
    let mut zipped = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data, mode) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        builder.append_data(&mut header, name.trim_start_matches("./"), data).unwrap();
        let options = ::zip::write::SimpleFileOptions::default().unix_permissions(mode);
        zipped.start_file(name, options).unwrap();
        zipped.write_all(data).unwrap();
    }
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "dir/link", "../a.txt").unwrap();
    zipped.add_symlink("dir/link", "../a.txt", ::zip::write::SimpleFileOptions::default()).unwrap();

    let plain = builder.into_inner().unwrap();
    let expected = unpack(&plain).unwrap();
    assert_eq!(paths(&expected), ["a.txt", long.as_str(), "dir/empty", "dir/link", "dir/run.sh"]);
    let kinds: Vec<EntryKind> = expected.entries().iter().map(|e| e.kind).collect();
    assert_eq!(kinds[3..], [EntryKind::Symlink, EntryKind::Executable]);
    for archive in [gzip(&plain), zstd(&plain), xz(&plain), bzip2(&plain), zipped.finish().unwrap().into_inner()] {
        assert_eq!(unpack(&archive).unwrap(), expected);
    }
    // Two gzip members, split inside of a file.
    let halves = plain.split_at(700);
    assert_eq!(unpack(&[gzip(halves.0), gzip(halves.1)].concat()).unwrap(), expected);
}

#[test]
fn long_names_in_both_ways_and_a_pax_size() {
    let name = format!("{}/f", "x".repeat(200));
    let by_pax = tar(&[pax(b'x', &[("path", &name), ("mtime", "1.5")]), file("short", b"data")]);
    let by_gnu =
        tar(&[member(b"././@LongLink", b'L', 0o644, b"", format!("{name}\0").as_bytes()), file("short", b"data")]);
    assert_eq!(unpack(&by_pax).unwrap(), unpack(&by_gnu).unwrap());
    assert_eq!(paths(&unpack(&by_pax).unwrap()), [name.as_str()]);
    // The header says nothing of the size, pax does.
    let mut sized = pax(b'x', &[("size", "3")]);
    sized.extend(header(b"a", b'0', 0, 0o644, b""));
    sized.extend([b"abc".as_slice(), &[0; 509]].concat());
    assert_eq!(unpack(&tar(&[sized, file("b", b"")])).unwrap().entries()[0].size, 3);
    // What `git archive` writes first, and a volume's name.
    let comment = tar(&[pax(b'g', &[("comment", "1234")]), member(b"vol", b'V', 0, b"", b""), file("a", b"x")]);
    assert_eq!(paths(&unpack(&comment).unwrap()), ["a"]);
}

#[test]
fn hard_links_are_copies_and_folders_may_repeat() {
    let archive = tar(&[
        member(b"./", b'5', 0o755, b"", b""),
        member(b"d/", b'5', 0o755, b"", b""),
        member(b"d/run", b'0', 0o755, b"", b"bytes"),
        member(b"d", b'5', 0o700, b"", b""),
        member(b"e/copy", b'1', 0o644, b"./d/run", b""),
        member(b"e/again", b'1', 0o644, b"e/copy", b""),
        member(b"empty/", b'5', 0o755, b"", b""),
    ]);
    let listing = unpack(&archive).unwrap();
    assert_eq!(paths(&listing), ["d/run", "e/again", "e/copy"]);
    assert!(listing.entries().iter().all(|e| e.kind == EntryKind::Executable && e.size == 5));
    assert!(unpack(&tar(&[])).unwrap().entries().is_empty());
    assert!(unpack(&zip(&[])).unwrap().entries().is_empty());
}

#[test]
fn large_members_and_large_zips() {
    let big: Vec<u8> =
        (0..3_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).take(3 << 20).collect();
    let plain = tar(&[file("first", b"1"), file("big", &big), file("last", b"2")]);
    let listing = unpack(&zstd(&plain)).unwrap();
    assert_eq!(listing.entries()[0].sha256, Digest::of(&big));
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default().large_file(true);
    writer.start_file("big", options).unwrap();
    writer.write_all(&big).unwrap();
    // More members than fit into 16 bits make the end records of zip64.
    let stored = ::zip::write::SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
    for i in 0..70_000 {
        writer.add_directory(format!("d{i}/"), stored).unwrap();
    }
    let listing = unpack(&writer.finish().unwrap().into_inner()).unwrap();
    assert_eq!((listing.count(), listing.entries()[0].sha256), (1, Digest::of(&big)));
    // A writer that cannot seek leaves sizes to data descriptors.
    let mut stream = ::zip::ZipWriter::new_stream(Vec::new());
    stream.start_file("big", ::zip::write::SimpleFileOptions::default()).unwrap();
    stream.write_all(&big).unwrap();
    stream.start_file("small", ::zip::write::SimpleFileOptions::default()).unwrap();
    stream.write_all(b"x").unwrap();
    assert_eq!(unpack(&stream.finish().unwrap().into_inner()).unwrap().count(), 2);
}

#[test]
fn names_that_leave_the_tree() {
    for name in ["/etc/evil", "../evil", "a/../../evil", "a/..", "a\\..\\evil", "a\nb", "C:\\evil"] {
        assert!(matches!(refused(name, &tar(&[file(name, b"x")])), ArchiveError::Name { .. }), "{name}");
        assert!(matches!(refused(name, &zip(&[Zipped::new(name, b"x")])), ArchiveError::Name { .. }), "{name}");
    }
    assert!(matches!(refused("bytes", &tar(&[member(b"caf\xe9", b'0', 0o644, b"", b"x")])), ArchiveError::Name { .. }));
    let long = pax(b'x', &[("path", "../evil")]);
    assert!(matches!(refused("pax", &tar(&[long, file("good", b"x")])), ArchiveError::Name { .. }));
    let empty = member(b"", b'0', 0o644, b"", b"x");
    assert!(matches!(refused("empty", &tar(&[empty])), ArchiveError::Name { .. }));
}

#[test]
fn links_that_leave_the_tree() {
    for target in ["/etc", "..", "../x", "a/../../x", "d/.."] {
        assert!(matches!(refused(target, &tar(&[symlink("l", target)])), ArchiveError::LinkOut { .. }), "{target}");
        let mut link = Zipped::new("l", target.as_bytes());
        link.mode = 0o120_777;
        assert!(matches!(refused(target, &zip(&[link])), ArchiveError::LinkOut { .. }), "{target}");
    }
    let through = tar(&[file("d/x", b"1"), symlink("l", "d"), file("l/evil", b"x")]);
    assert!(matches!(refused("through a link", &through), ArchiveError::ThroughLink { .. }));
    let replaced = tar(&[symlink("l", "d"), member(b"l", b'5', 0o755, b"", b"")]);
    assert!(matches!(refused("a folder over a link", &replaced), ArchiveError::Twice(_)));
    let overwritten = tar(&[symlink("l", "d"), file("l", b"x")]);
    assert!(matches!(refused("a file over a link", &overwritten), ArchiveError::Twice(_)));
    for target in ["/etc/passwd", "../../etc/passwd", "later", "l"] {
        let hard = tar(&[symlink("l", "d"), member(b"h", b'1', 0o644, target.as_bytes(), b""), file("later", b"x")]);
        assert!(matches!(refused(target, &hard), ArchiveError::HardLink { .. }), "{target}");
    }
}

#[test]
fn what_is_never_unpacked() {
    for (kind, mode) in [(b'3', 0o020_666), (b'4', 0o060_666), (b'6', 0o010_666)] {
        assert!(matches!(
            refused("device", &tar(&[member(b"dev", kind, 0o666, b"", b"")])),
            ArchiveError::Special { .. }
        ));
        let mut device = Zipped::new("dev", b"");
        device.mode = mode;
        assert!(matches!(refused("device", &zip(&[device])), ArchiveError::Special { .. }));
    }
    assert!(matches!(
        refused("sparse", &tar(&[member(b"s", b'S', 0o644, b"", b"x")])),
        ArchiveError::Unsupported { .. }
    ));
    let sparse = tar(&[pax(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.name", "s")]), file("s", b"x")]);
    assert!(matches!(refused("sparse by pax", &sparse), ArchiveError::Unsupported { .. }));
    assert!(matches!(
        refused("volume", &tar(&[member(b"v", b'M', 0o644, b"", b"x")])),
        ArchiveError::Unsupported { .. }
    ));
    assert!(matches!(
        refused("unknown", &tar(&[member(b"u", b'Z', 0o644, b"", b"x")])),
        ArchiveError::Unsupported { .. }
    ));
    let global = tar(&[pax(b'g', &[("path", "evil")]), file("a", b"x")]);
    assert!(matches!(refused("global name", &global), ArchiveError::Unsupported { .. }));
    let mut encrypted = Zipped::new("secret", b"x");
    encrypted.flags |= 1;
    assert!(refused("encrypted", &zip(&[encrypted])).to_string().contains("encrypted"));
    let mut method = Zipped::new("m", b"x");
    method.method = 9;
    assert!(refused("method", &zip(&[method])).to_string().contains("method 9"));
}

#[test]
fn names_that_collide() {
    let twice = || vec![file("a", b"1"), file("./a", b"1")];
    assert!(matches!(refused("twice", &tar(&twice())), ArchiveError::Twice(_)));
    assert!(matches!(
        refused("twice", &zip(&[Zipped::new("a", b"1"), Zipped::new("a", b"1")])),
        ArchiveError::Twice(_)
    ));
    assert!(matches!(refused("file as folder", &tar(&[file("a", b"1"), file("a/b", b"1")])), ArchiveError::Twice(_)));
    assert!(matches!(refused("folder as file", &tar(&[file("a/b", b"1"), file("a", b"1")])), ArchiveError::Twice(_)));
    for (one, two) in [("README", "readme"), ("D/x", "d/y"), ("caf\u{e9}", "cafe\u{301}")] {
        let archive = tar(&[file(one, b"1"), file(two, b"2")]);
        assert!(matches!(refused(one, &archive), ArchiveError::Collision(..)), "{one}");
    }
}

#[test]
fn bombs() {
    let small = Place::new();
    let settings = Settings { unpack_ratio: 2, unpack_more: 100, ..Settings::default() };
    let packed = zstd(&tar(&[file("zeros", &[0; 100_000])]));
    assert!(matches!(
        small.resolve_with(settings, &packed, None),
        Err(FetchError::Archive { error: ArchiveError::TooLarge { .. }, .. })
    ));
    // It ends after its header: what that states is too much already.
    let bomb = zstd(&header(b"bomb", b'0', 8 << 30, 0o644, b""));
    assert!(matches!(refused("stated", &bomb), ArchiveError::TooLarge { .. }));
    // Extended headers are held in memory.
    let huge = tar(&[header(b"x", b'x', 1 << 40, 0o644, b"").to_vec()]);
    assert!(matches!(refused("extended header", &huge), ArchiveError::Corrupt { .. }));
    let mut lie = Zipped::new("lie", &[0; 100]);
    (lie.size, lie.local_size) = (0xffff_fff0, 0xffff_fff0);
    lie.method = 8;
    assert!(matches!(refused("zip", &zip(&[lie])), ArchiveError::TooLarge { .. }));
}

#[test]
fn a_locked_tree_bounds_what_is_unpacked() {
    let archive = tar(&[file("a", &[b'x'; 1000]), file("b", b"y")]);
    let place = Place::new();
    let url = place.url(&archive);
    let Content::Tree { digest, .. } = place.resolve(&archive, None).unwrap().content else { panic!("no tree") };
    let bring = |tree, size, count| {
        let store = Store::open(&place.root.path().join(format!("other-{size}-{count}"))).unwrap();
        let session = store.session().unwrap();
        let archive = (Digest::of(&archive), archive.len() as u64);
        let want = Want {
            name: "set".into(),
            sources: vec![url.clone()],
            content: Wanted::Tree { archive, tree, size, count },
        };
        let fetcher = Fetcher::new(Settings::default(), Events::none());
        let result = fetcher.bring_all(&session, &[want]).remove(0);
        assert_eq!(store.has_tree(&tree), result.is_ok());
        result
    };
    bring(digest, 1001, 2).unwrap();
    let archive_error = |result| match result {
        Err(FetchError::Archive { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(archive_error(bring(digest, 1000, 2)), ArchiveError::TooLarge { limit: 1000 }));
    assert!(matches!(archive_error(bring(digest, 1001, 1)), ArchiveError::TooMany { limit: 1 }));
    let other = bring(Digest::of(b"other"), 5000, 3).unwrap_err();
    assert!(matches!(&other, FetchError::Unpacked { mismatch: Mismatch::Tree { found, .. }, .. } if *found == digest));
    assert!(other.is_verification());
}

#[test]
fn truncated_and_damaged() {
    let plain = tar(&[file("a", &[7; 3000]), file("b", b"x")]);
    for cut in [513, 600, 3584, 4000, plain.len() - 1024] {
        let error = refused("cut", &plain[..cut]);
        assert!(matches!(error, ArchiveError::Truncated(_)), "{cut}: {error:?}");
    }
    for archive in [gzip(&plain), zstd(&plain), xz(&plain), bzip2(&plain)] {
        for cut in [archive.len() / 2, archive.len() - 5] {
            let error = refused("cut", &archive[..cut]);
            assert!(matches!(error, ArchiveError::Truncated(_) | ArchiveError::Corrupt { .. }), "{error:?}");
        }
        refused("garbage behind", &[archive, b"garbage".to_vec()].concat());
    }
    refused("garbage behind", &[plain.clone(), b"garbage".to_vec()].concat());
    refused("a second archive behind", &[plain.clone(), plain.clone()].concat());
    let mut flipped = plain.clone();
    flipped[3] ^= 1;
    refused("a header's checksum", &flipped);
    refused("bytes in a folder", &tar(&[member(b"d", b'5', 0o755, b"", b"x")]));
    let mut negative = header(b"a", b'0', 0, 0o644, b"");
    negative[124..136].fill(0xff);
    make::sum(&mut negative);
    refused("a negative size", &tar(&[negative.to_vec()]));

    let zipped = zip(&[Zipped::new("a", &[7; 3000]), Zipped::new("b", b"x")]);
    for cut in [10, 3000, zipped.len() - 30, zipped.len() - 1] {
        let error = refused("cut", &zipped[..cut]);
        assert!(matches!(error, ArchiveError::Truncated(_) | ArchiveError::Corrupt { .. }), "{cut}: {error:?}");
    }
    refused("garbage behind", &[zipped.clone(), b"garbage".to_vec()].concat());
    let mut flipped = zipped.clone();
    flipped[100] ^= 1;
    assert!(refused("a member's checksum", &flipped).to_string().contains("checksum"));
}

#[test]
fn zips_that_two_programs_read_differently() {
    let good = Zipped::new("good", b"bytes");
    let name = Zipped { local_name: b"evil".to_vec(), ..good.clone() };
    let size = Zipped { local_size: 4, ..good.clone() };
    let larger = Zipped { size: 6, local_size: 6, method: 8, data: deflate(b"bytes"), ..good.clone() };
    let smaller = Zipped { size: 4, local_size: 4, method: 8, data: deflate(b"bytes"), ..good.clone() };
    for (what, member) in [("name", name), ("size", size), ("larger", larger), ("smaller", smaller)] {
        refused(what, &zip(&[member]));
    }
    // Both entries of the directory lead to one member.
    let mut overlap = zip(&[good.clone(), Zipped::new("evil", b"bytes")]);
    let second = overlap.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    overlap[second + 42..second + 46].fill(0);
    refused("overlap", &overlap);
    let mut moved = zip(std::slice::from_ref(&good));
    let end = moved.len() - 22;
    moved[end + 16] += 1;
    refused("directory elsewhere", &moved);
    let mut counted = zip(&[good]);
    let end = counted.len() - 22;
    (counted[end + 8], counted[end + 10]) = (2, 2);
    refused("wrong count", &counted);
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_that_are_no_archives() {
    let cases: [(&[u8], &str); 6] = [
        (b"", "empty"),
        (b"a,b\n1,2\n", "something else"),
        (&gzip(b"a,b\n1,2\n"), "gzip"),
        (&zstd(&[b'x'; 5000]), "zstd"),
        (&xz(b""), "xz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ];
    for (bytes, words) in cases {
        let error = refused(words, bytes);
        assert!(matches!(&error, ArchiveError::NotAnArchive(what) if what.contains(words)), "{error}");
    }
}

#[test]
fn one_member() {
    let archive = tar(&[
        file("./2024/labels.csv", b"x,y"),
        file("2025/labels.csv", b"z"),
        symlink("link", "2024"),
        file("../evil", b"!"),
    ]);
    for archive in [
        gzip(&archive),
        zip(&[
            Zipped::new("2023/labels.csv", b""),
            Zipped::new("2024/labels.csv", b"x,y"),
            Zipped::new("2025/labels.csv", b"z"),
        ]),
    ] {
        let place = Place::new();
        let resolved = place.resolve(&archive, Some("2024/labels.csv")).unwrap();
        assert_eq!(resolved.content, Content::File { sha256: Digest::of(b"x,y"), size: 3 });
        assert_eq!(resolved.archive, Some((Digest::of(&archive), archive.len() as u64)));
        assert!(place.store.object(&Digest::of(b"x,y"), Some(3)).unwrap().is_some());
        match place.resolve(&archive, Some("labels.csv")) {
            Err(FetchError::Archive { error: ArchiveError::NoMember { near, .. }, .. }) => {
                assert!(near.contains(&"2025/labels.csv".to_owned()), "{near:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(place.beside(), ["archive", "store"]);
    }
    let error = |archive: &[u8], member| match Place::new().resolve(archive, Some(member)) {
        Err(FetchError::Archive { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error(&archive, "link"), ArchiveError::NotAFile { .. }));
    assert!(matches!(error(&tar(&[file("a", b"1"), file("a", b"2")]), "a"), ArchiveError::Twice(_)));
    // One letter wrong.
    assert!(error(&archive, "2025/label.csv").to_string().contains("2025/labels.csv"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes come: an answer, and nothing outside of the store.
    #[test]
    fn mutated_archives_never_escape(
        kind in 0..4,
        names in proptest::collection::vec("(\\.\\./|/|a/|b|\\./){0,4}[a-c]{0,2}", 1..6),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = match kind {
            0 | 1 => tar(&names.iter().enumerate().map(|(i, n)| if i % 3 == 2 { symlink(n, &names[0]) } else { file(n, n.as_bytes()) }).collect::<Vec<_>>()),
            _ => zip(&names.iter().map(|n| Zipped::new(n, n.as_bytes())).collect::<Vec<_>>()),
        };
        if kind == 1 {
            bytes = gzip(&bytes);
        }
        for (at, byte) in &cuts {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let place = Place::new();
        let unpacked = place.resolve(&bytes, None);
        prop_assert_eq!(place.beside(), ["archive", "store"]);
        prop_assert_eq!(place.trees(), usize::from(unpacked.is_ok()));
    }
}
