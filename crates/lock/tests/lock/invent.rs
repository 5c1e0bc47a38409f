//! Invented locks for the property tests.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use trainlock_lock::{
    Content, DataPin, Determinism, HashFrom, Lock, PackagePin, PythonPin, ResultPin, SealedKind, SealedOutput,
    Switches, ToolArtifact, ToolPin,
};
use trainlock_types::{
    Algorithm, Checksum, DataSource, Digest, Entry, EntryKind, FetchedTool, Listing, Name, Params, PinnedFile,
    Platform, RelPath, SourceUrl, TakenKind, TakenLock, ToolFrom, ToolMatch, ToolProvider, Validator, Value,
};

/// Few names, so that the same name comes up in several members.
pub(crate) fn name() -> impl Strategy<Value = Name> {
    "[a-dA]|[a-z0-9][a-zA-Z0-9_-]{0,6}".prop_map(|text| Name::entry(&text).unwrap())
}

pub(crate) fn project() -> impl Strategy<Value = Name> {
    "[a-c]|seed|members|[a-z0-9][a-z0-9_-]{0,6}".prop_map(|text| Name::project(&text).unwrap())
}

/// Any text at all: quotes, backslashes, control characters, line feeds.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9/*.]{1,12}", "(?s).{0,6}", "[\"'\\\\\t\n\r#=\\[\\]]{0,6}"]
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

pub(crate) fn path() -> impl Strategy<Value = RelPath> {
    "[a-z\"' ä#,]{1,5}(/[a-z.-]{1,3}x)?".prop_map(|text| RelPath::parse(&text).unwrap())
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, 0..=i64::MAX as u64]
}

pub(crate) fn url() -> impl Strategy<Value = SourceUrl> {
    let places = prop_oneof![
        "https://example\\.org/[a-z0-9]{1,8}(\\?x=[a-z]{1,3})?",
        "http://127\\.0\\.0\\.1:8080/[a-z]{1,4}",
        "file:///srv/[a-z]{1,4}%20x",
        "hf://datasets/org/[a-z]{1,5}",
        "git\\+https://example\\.org/[a-z]{1,5}\\.git",
        "s3://bucket/[a-z]{1,5}/",
        "pypi:[a-z]{1,6}@1\\.[0-9]",
    ];
    places.prop_map(|text| SourceUrl::parse(&text).unwrap())
}

pub(crate) fn checksum() -> impl Strategy<Value = Checksum> {
    (0..4_usize, "[0-9a-f]{128}").prop_map(|(i, hex)| {
        let algorithm = Algorithm::ALL[i];
        let digits = [64, 128, 40, 32][i];
        Checksum { algorithm, hex: hex[..digits].to_owned() }
    })
}

pub(crate) fn listing() -> impl Strategy<Value = Listing> {
    let kind = prop_oneof![Just(EntryKind::File), Just(EntryKind::Executable), Just(EntryKind::Symlink)];
    let entry = (path(), digest(), 0..1_000_000_u64, kind);
    vec(entry, 0..5).prop_filter_map("a file in a file", |entries| {
        let entries = entries.into_iter().map(|(path, sha256, size, kind)| Entry { path, sha256, size, kind });
        Listing::new(entries.collect()).ok()
    })
}

fn file() -> impl Strategy<Value = Content> {
    (digest(), size()).prop_map(|(sha256, size)| Content::File { sha256, size })
}

fn tree() -> impl Strategy<Value = Content> {
    prop_oneof![
        listing().prop_map(Content::tree),
        (digest(), size(), size()).prop_map(|(tree, size, count)| Content::Tree { tree, size, count, listing: None }),
    ]
}

pub(crate) fn data() -> impl Strategy<Value = DataPin> {
    #[derive(Debug, Clone)]
    enum Shape {
        Plain(Content),
        Extract(RelPath, Content, (Digest, u64)),
        Unpack(Content, (Digest, u64)),
    }
    let archive = || (digest(), size());
    let shape = prop_oneof![
        prop_oneof![file(), tree()].prop_map(Shape::Plain),
        (path(), file(), archive()).prop_map(|(member, content, archive)| Shape::Extract(member, content, archive)),
        (tree(), archive()).prop_map(|(content, archive)| Shape::Unpack(content, archive)),
    ];
    let from_url = (url(), vec(url(), 0..3), option::of(checksum()), option::of(text()), vec(text(), 0..3), shape)
        .prop_map(|(url, mirrors, checksum, rev, files, shape)| {
            let (extract, unpack, content, archive) = match shape {
                Shape::Plain(content) => (None, false, content, None),
                Shape::Extract(member, content, archive) => (Some(member), false, content, Some(archive)),
                Shape::Unpack(content, archive) => (None, true, content, Some(archive)),
            };
            let source = DataSource::Url { url, mirrors, checksum, size: None, rev, files, extract, unpack };
            (source, content, archive)
        });
    let other = prop_oneof![
        path().prop_map(DataSource::Path),
        Just(DataSource::Path(RelPath::root())),
        text().prop_map(DataSource::Croissant),
        (path(), any::<bool>()).prop_map(|(registry, based)| DataSource::Pooch {
            registry,
            base: based.then(|| SourceUrl::parse("https://example.org/base/").unwrap()),
        }),
    ];
    let from_other = (other, prop_oneof![file(), tree()]).prop_map(|(source, content)| (source, content, None));
    (name(), option::of(project()), prop_oneof![3 => from_url, 1 => from_other], option::of(text())).prop_map(
        |(name, member, (source, content, archive), resolved)| DataPin {
            member,
            name,
            source,
            resolved,
            versions: versions(&content),
            validator: validator(&content),
            content,
            archive,
            extra: String::new(),
        },
    )
}

/// A hint of each kind, and none.
fn validator(content: &Content) -> Option<Validator> {
    match content.size() % 3 {
        0 => Some(Validator::Tag(content.digest().to_hex())),
        1 => Some(Validator::Modified("Sun, 06 Nov 1994 08:49:37 GMT".to_owned())),
        _ => None,
    }
}

/// A version for each line of a listing of an odd number of them.
fn versions(content: &Content) -> Vec<String> {
    match content {
        Content::Tree { listing: Some(listing), .. } if listing.count() % 2 == 1 => {
            listing.entries().iter().map(|entry| format!("v{}.\"{}", entry.size, entry.path)).collect()
        }
        _ => Vec::new(),
    }
}

pub(crate) fn version() -> impl Strategy<Value = semver::Version> {
    "[1-9]?[0-9]\\.[0-9]\\.[0-9](-rc\\.[0-9])?(\\+b[0-9])?".prop_map(|text| semver::Version::parse(&text).unwrap())
}

pub(crate) fn tool() -> impl Strategy<Value = ToolPin> {
    let accept = prop_oneof![Just(ToolMatch::Version), Just(ToolMatch::Requirement)];
    let provider = prop_oneof![
        (vec(text(), 0..3), accept).prop_map(|(probe, accept)| ToolProvider::Host { probe, accept }),
        fetched_tool().prop_map(ToolProvider::Fetched),
    ];
    let program = option::of((path(), digest()));
    let artifact = (pinned("[a-z:/._-]{1,9}"), program).prop_map(|(file, program)| ToolArtifact { file, program });
    let artifacts = btree_map(platform(), artifact, 0..4);
    let lacking = btree_set(platform(), 0..2);
    let from = option::of(proptest::sample::select(HashFrom::ALL.to_vec()));
    (name(), option::of(project()), text(), provider, version(), artifacts, lacking, from).prop_map(
        |(name, member, request, provider, version, artifacts, mut platforms, hash_from)| {
            platforms.extend(artifacts.keys());
            let platforms = platforms.into_iter().collect();
            ToolPin { member, name, request, provider, version, platforms, artifacts, hash_from, extra: String::new() }
        },
    )
}

fn fetched_tool() -> impl Strategy<Value = FetchedTool> {
    let from = proptest::sample::select(ToolFrom::ALL.to_vec());
    let one = || option::of(text());
    (from, one(), one(), one(), one(), btree_map(platform(), text(), 0..2))
        .prop_map(|(from, package, bin, repo, index, asset)| FetchedTool { from, package, bin, repo, index, asset })
}

fn platform() -> impl Strategy<Value = Platform> {
    proptest::sample::select(Platform::ALL.to_vec())
}

fn pinned(name: &'static str) -> impl Strategy<Value = PinnedFile> {
    (name, digest(), 0..1_000_000_u64).prop_map(|(file, sha256, size)| PinnedFile { file, sha256, size })
}

/// What a member's packages were resolved from.
pub(crate) fn python() -> impl Strategy<Value = PythonPin> {
    let texts = || vec(text(), 0..3);
    let platforms = btree_set(platform(), 0..4).prop_map(|all| all.into_iter().collect());
    let taken = (any::<bool>(), path(), texts(), texts(), texts()).prop_map(|(uv, file, groups, extras, entries)| {
        let kind = if uv { TakenKind::Uv } else { TakenKind::Pylock };
        TakenLock { kind, file, groups, extras, entries }
    });
    let place = (option::of(project()), option::of(name()));
    (place, text(), option::of(taken), texts(), texts(), texts(), texts(), platforms, option::of(text())).prop_map(
        |((member, profile), python, taken, dependencies, constraints, index, sdist, platforms, exclude_newer)| {
            PythonPin {
                member,
                profile,
                python,
                taken,
                dependencies,
                constraints,
                index,
                sdist,
                platforms,
                exclude_newer,
                extra: String::new(),
            }
        },
    )
}

/// A package.
pub(crate) fn package() -> impl Strategy<Value = PackagePin> {
    let file = || pinned("[a-z0-9 ._-]{1,9}");
    let wheels = btree_map("[a-z0-9 ._-]{1,9}", file(), 0..3)
        .prop_map(|files| files.into_iter().map(|(name, file)| PinnedFile { file: name, ..file }).collect());
    let place = (name(), option::of(project()), option::of(name()));
    (place, text(), option::of(text()), wheels, option::of(file())).prop_map(
        |((name, member, profile), version, marker, wheels, source)| PackagePin {
            member,
            profile,
            name,
            version,
            marker,
            wheels,
            source,
            extra: String::new(),
        },
    )
}

/// A value of a hyperparameter; `tables` says whether tables may stand in arrays.
pub(crate) fn value(tables: bool) -> impl Strategy<Value = Value> {
    let finite = any::<f64>().prop_filter("not finite", |f| f.is_finite());
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        finite.prop_map(Value::Float),
        (-100..100_i32).prop_map(|n| Value::Float(f64::from(n))),
        text().prop_map(Value::String),
        prop_oneof![Just("2026-11-22"), Just("07:32:00"), Just("1979-05-27T07:32:00Z")]
            .prop_map(|text| Value::Datetime(text.to_owned())),
    ];
    leaf.prop_recursive(2, 8, 3, move |inner| {
        let table = btree_map(text(), inner.clone(), 0..3).prop_map(Value::Table);
        let element = if tables { prop_oneof![inner, table].boxed() } else { inner.boxed() };
        vec(element, 0..3).prop_map(Value::Array)
    })
}

pub(crate) fn params(tables: bool) -> impl Strategy<Value = Params> {
    btree_map(prop_oneof!["[a-z]{1,4}(\\.[a-z]{1,3})?", text()], value(tables), 0..4)
}

fn determinism() -> impl Strategy<Value = Determinism> {
    let switches = (text(), btree_map("[A-Z][A-Z_]{0,5}", text(), 0..3)).prop_map(|(level, variables)| Switches {
        level: format!("l{level}"),
        variables,
        extra: String::new(),
    });
    let switches = btree_map(prop_oneof![Just("x86_64".to_owned()), Just("aarch64".to_owned())], switches, 0..3);
    (0..=i64::MAX as u64, text(), option::of(any::<u32>()), any::<bool>(), switches).prop_map(
        |(seed, level, threads, seed_globals, switches)| Determinism {
            seed,
            level,
            threads,
            seed_globals,
            switches,
            extra: String::new(),
        },
    )
}

fn result() -> impl Strategy<Value = ResultPin> {
    let kind = prop_oneof![Just(SealedKind::File), Just(SealedKind::Executable), Just(SealedKind::Folder)];
    let output = (kind, digest(), size(), option::of(digest()));
    let outputs = btree_map(path(), output, 0..4).prop_map(|outputs| {
        let output = |(path, (kind, sha256, size, content))| SealedOutput { path, kind, sha256, size, content };
        outputs.into_iter().map(output).collect()
    });
    let finite = any::<f64>().prop_filter("not finite", |f| f.is_finite());
    let metrics = btree_map(text(), finite, 0..3);
    (name(), option::of(project()), option::of(name()), text(), digest(), outputs, metrics).prop_map(
        |(step, member, profile, class, key, outputs, metrics)| ResultPin {
            member,
            step,
            profile,
            class,
            key,
            outputs,
            metrics,
            extra: String::new(),
        },
    )
}

/// A lock as resolving makes it: sorted, each entry once.
pub(crate) fn lock(tables: bool) -> impl Strategy<Value = Lock> {
    let plain = (
        vec(data(), 0..8),
        (vec(tool(), 0..4), vec(python(), 0..3), vec(package(), 0..5)),
        btree_map(option::of(project()), determinism(), 0..3),
        btree_map(project(), params(tables), 0..3),
        btree_map((name(), project()), params(tables), 0..3),
        vec(result(), 0..4),
    );
    plain.prop_map(|(data, (tools, python, packages), determinism, params, profiles, results)| {
        sorted(Lock { data, tools, python, packages, determinism, params, profiles, results, ..Lock::default() })
    })
}

pub(crate) fn sorted(mut lock: Lock) -> Lock {
    lock.data.sort_by(|a, b| a.place().cmp(&b.place()));
    lock.data.dedup_by(|a, b| a.place() == b.place());
    lock.tools.sort_by(|a, b| a.place().cmp(&b.place()));
    lock.tools.dedup_by(|a, b| a.place() == b.place());
    lock.python.sort_by(|a, b| a.place().cmp(&b.place()));
    lock.python.dedup_by(|a, b| a.place() == b.place());
    lock.packages.sort_by(|a, b| a.place().cmp(&b.place()));
    lock.packages.dedup_by(|a, b| a.place() == b.place());
    lock.results.sort_by(|a, b| a.place().cmp(&b.place()));
    lock.results.dedup_by(|a, b| a.place() == b.place());
    lock
}

/// A lock of plain files with these names, whose content is made from `salt`.
pub(crate) fn files(names: impl IntoIterator<Item = String>, salt: &str) -> Lock {
    let pin = |name: String| {
        let sha256 = Digest::of(format!("{name} {salt}").as_bytes());
        let url = SourceUrl::parse(&format!("https://example.org/{name}.csv")).unwrap();
        DataPin {
            member: None,
            name: Name::entry(&name).unwrap(),
            source: DataSource::Url {
                url,
                mirrors: Vec::new(),
                checksum: None,
                size: None,
                rev: None,
                files: Vec::new(),
                extract: None,
                unpack: false,
            },
            resolved: None,
            content: Content::File { sha256, size: 1000 + name.len() as u64 },
            archive: None,
            versions: Vec::new(),
            validator: None,
            extra: String::new(),
        }
    };
    sorted(Lock { data: names.into_iter().map(pin).collect(), ..Lock::default() })
}

/// Different names of files, in order.
pub(crate) fn names(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<String>> {
    btree_set("[a-z]{1,3}", count).prop_map(|names| names.into_iter().collect())
}

/// The pins by name.
pub(crate) fn by_name(lock: &Lock) -> BTreeMap<&Name, &DataPin> {
    lock.data.iter().map(|pin| (&pin.name, pin)).collect()
}
