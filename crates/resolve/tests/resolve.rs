//! Resolving, with an invented provider: a world in which every data set and tool has a generation,
//! and content that follows from it.

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use trainlock_lock::{Change, Content, Determinism, Lock, PackagePin, Switches, ToolPin, heal};
use trainlock_resolve::{
    BoxError, DataAnswer, ImageAnswer, Mode, Provider, PythonAnswer, Resolution, ResolveError, ResolveWith, ToolAnswer,
    Wanted, WantedMember, resolve, settle, stale,
};
use trainlock_types::{
    DataRequest, DataSource, Digest, Entry, EntryKind, ImageReference, Listing, Name, Params, Platform, PythonRequest,
    RelPath, SourceUrl, ToolMatch, ToolProvider, ToolRequest, Value,
};

/// What is out there, and what was asked.
#[derive(Debug, Clone, Default)]
struct World {
    /// How often each name's content or version was renewed.
    generations: BTreeMap<String, u64>,
    /// Names about which nothing can be found out.
    broken: BTreeSet<String>,
    /// Sources, and then tools, in the order of asking.
    asked: Vec<String>,
    /// Content of the repository that was looked at.
    looked: Vec<String>,
}

impl World {
    fn generation(&self, name: &Name) -> Result<u64, BoxError> {
        match self.broken.contains(name.as_str()) {
            true => Err(format!("{name} is not there").into()),
            false => Ok(self.generations.get(name.as_str()).copied().unwrap_or(0)),
        }
    }

    fn content(&self, request: &DataRequest) -> Result<Content, BoxError> {
        let generation = self.generation(&request.name)?;
        let bytes = format!("{:?} {generation}", request.source);
        let sha256 = Digest::of(bytes.as_bytes());
        Ok(match &request.source {
            DataSource::Url { unpack: false, .. } => Content::File { sha256, size: bytes.len() as u64 },
            _ => Content::tree(tree(generation as usize + 2, &bytes)),
        })
    }

    /// What was asked since the last time.
    fn questions(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }
}

fn tree(count: usize, salt: &str) -> Listing {
    let entry = |i: usize| Entry {
        path: RelPath::parse(&format!("f{i:03}")).unwrap(),
        sha256: Digest::of(if i == 0 { salt.as_bytes() } else { b"the same" }),
        size: 8,
        kind: EntryKind::File,
    };
    Listing::new((0..count).map(entry).collect()).unwrap()
}

impl Provider for World {
    fn data(&mut self, requests: &[&DataRequest]) -> Vec<Result<DataAnswer, BoxError>> {
        self.asked.extend(requests.iter().map(|r| r.name.to_string()));
        let answer = |request: &&DataRequest| {
            let content = self.content(request)?;
            let unpack = matches!(request.source, DataSource::Url { unpack: true, .. });
            Ok(DataAnswer {
                resolved: None,
                archive: unpack.then(|| (Digest::of(b"archive"), 7)),
                content,
                versions: Vec::new(),
                validator: None,
            })
        };
        requests.iter().map(answer).collect()
    }

    fn path(&mut self, requests: &[&DataRequest]) -> Vec<Result<Content, BoxError>> {
        self.looked.extend(requests.iter().map(|r| r.name.to_string()));
        requests.iter().map(|r| self.content(r)).collect()
    }

    fn description(&mut self, path: &RelPath) -> Result<Digest, BoxError> {
        Ok(Digest::of(
            format!("{path} {}", self.generations.get(path.as_str()).copied().unwrap_or_default()).as_bytes(),
        ))
    }

    fn tool(&mut self, request: &ToolRequest, _: Option<&ToolPin>) -> Result<ToolAnswer, BoxError> {
        self.asked.push(request.name.to_string());
        let version = semver::Version::new(1, self.generation(&request.name)?, 0);
        Ok(ToolAnswer { version, artifacts: BTreeMap::new(), hash_from: None })
    }

    /// Each requirement is a package's name; versions that may stay do.
    fn python(&mut self, request: &PythonRequest, with: &ResolveWith<'_>) -> Result<PythonAnswer, BoxError> {
        self.asked.push(format!("python {} {:?}", with.interpreter.version, with.exclude_newer));
        let pin = |text: &String| {
            let name = name(text);
            let kept = with.keep.iter().find(|pin| pin.name == name).map(|pin| pin.version.clone());
            let version = match kept {
                Some(version) => version,
                None => format!("1.{}", self.generation(&name)?),
            };
            let (member, profile) = (request.member.clone(), request.profile.clone());
            let (marker, wheels, source, extra) = (None, Vec::new(), None, String::new());
            Ok(PackagePin { member, profile, name, version, marker, wheels, source, extra })
        };
        let packages = request.dependencies.iter().map(pin).collect::<Result<_, BoxError>>()?;
        Ok(PythonAnswer { packages, exclude_newer: Some("2026".to_owned()) })
    }

    fn image(&mut self, reference: &ImageReference) -> Result<ImageAnswer, BoxError> {
        self.asked.push(format!("image {reference}"));
        let generation = self.generations.get(reference.as_str()).copied().unwrap_or_default();
        let digest = Digest::of(format!("{reference} {generation}").as_bytes());
        Ok(ImageAnswer { digest, platforms: BTreeMap::from([(Platform::LinuxX86_64, (digest, 7))]) })
    }

    /// A level means something else with another numpy.
    fn switches(&self, _: &Determinism, versions: &BTreeMap<String, String>) -> BTreeMap<String, Switches> {
        let with = |version: &String| {
            let variables = BTreeMap::from([("NUMPY".to_owned(), version.clone())]);
            ("x86_64".to_owned(), Switches { level: "v3".to_owned(), variables, extra: String::new() })
        };
        versions.get("numpy").map(with).into_iter().collect()
    }
}

fn name(text: &str) -> Name {
    Name::entry(text).unwrap()
}

fn rel(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn from_url(url: &str) -> DataSource {
    DataSource::Url {
        url: SourceUrl::parse(url).unwrap(),
        mirrors: Vec::new(),
        checksum: None,
        size: None,
        rev: None,
        files: Vec::new(),
        extract: None,
        unpack: false,
    }
}

fn data(member: Option<&str>, text: &str, source: DataSource) -> Arc<DataRequest> {
    Arc::new(DataRequest { member: member.map(name), name: name(text), source, to: rel(&format!("data/{text}")) })
}

fn tool(member: Option<&str>, text: &str, version: &str) -> ToolRequest {
    ToolRequest {
        member: member.map(name),
        name: name(text),
        version: version.to_owned(),
        requirement: version.parse().unwrap(),
        provider: ToolProvider::Host { probe: Vec::new(), accept: ToolMatch::Version },
        platforms: Vec::new(),
    }
}

fn seeded(seed: u64) -> Determinism {
    Determinism {
        seed,
        level: "portable".to_owned(),
        threads: None,
        seed_globals: false,
        switches: BTreeMap::new(),
        extra: String::new(),
    }
}

fn member(text: &str, root: bool, params: &[(&str, i64)]) -> WantedMember {
    let params: Params = params.iter().map(|(key, value)| ((*key).to_owned(), Value::Int(*value))).collect();
    WantedMember { name: name(text), root, params, profiles: BTreeMap::new(), determinism: seeded(42) }
}

/// A wanted thing of each kind.
fn wanted() -> Wanted {
    let mut stated = from_url("https://example.org/stated.csv");
    let mut packed = from_url("https://example.org/packed.tar");
    if let DataSource::Url { checksum, size, .. } = &mut stated {
        *checksum = Some(format!("sha256:{}", Digest::of(b"stated")).parse().unwrap());
        *size = Some(6);
    }
    if let DataSource::Url { unpack, .. } = &mut packed {
        *unpack = true;
    }
    let mut root = member("digits", true, &[("epochs", 20), ("model.width", 128)]);
    root.profiles.insert(name("smoke"), Params::from([("epochs".to_owned(), Value::Int(1))]));
    Wanted {
        data: vec![
            data(None, "raw", from_url("https://example.org/raw.csv")),
            data(Some("two"), "raw", from_url("https://example.org/raw2.csv")),
            data(None, "stated", stated),
            data(None, "packed", packed),
            data(None, "notes", DataSource::Path(rel("notes"))),
        ],
        tools: vec![tool(None, "ffmpeg", "1"), tool(Some("two"), "bash", "1")],
        members: vec![root, member("two", false, &[])],
        ..Wanted::default()
    }
}

fn lock_with(wanted: &Wanted, old: Option<&Lock>, world: &mut World) -> Resolution {
    resolve(wanted, old, &Mode::Lock, world).unwrap()
}

fn words(resolution: &Resolution) -> Vec<String> {
    resolution.changes.iter().map(ToString::to_string).collect()
}

fn update(names: &[&str]) -> Mode {
    Mode::Update { names: Some(names.iter().map(|n| (*n).to_owned()).collect()) }
}

fn blocks(lock: &Lock) -> Vec<String> {
    lock.to_text().split("\n\n").map(|block| block.trim_end().to_owned()).collect()
}

/// Invented wishes: every subset of kinds of data, tools and params, with a variant of each request.
fn wishes() -> impl Strategy<Value = Wanted> {
    let key = || ("[a-e]", proptest::option::of(prop_oneof![Just("m"), Just("n")]));
    let data_of = btree_map(key(), (0..5_u8, 0..2_u8), 0..8).prop_map(|map| {
        let request = |((text, member), (kind, variant)): ((String, Option<&str>), (u8, u8))| {
            let mut source = from_url(&format!("https://example.org/{text}{variant}"));
            let DataSource::Url { checksum, size, unpack, mirrors, .. } = &mut source else { unreachable!() };
            match kind {
                0 => *unpack = true,
                1 => {
                    *checksum = Some(format!("sha256:{}", Digest::of(&[variant])).parse().unwrap());
                    *size = Some(1);
                }
                2 => mirrors.push(SourceUrl::parse("https://mirror.example.org/x").unwrap()),
                3 => source = DataSource::Path(rel(&format!("{text}{variant}"))),
                _ => {}
            }
            data(member, &text, source)
        };
        map.into_iter().map(request).collect::<Vec<_>>()
    });
    let tools_of = btree_map(key(), prop_oneof![Just("1"), Just(">=1.0"), Just("<9")], 0..4).prop_map(|map| {
        map.into_iter().map(|((text, member), version)| tool(member, &text, version)).collect::<Vec<_>>()
    });
    let members_of = btree_set(prop_oneof![Just("digits"), Just("m"), Just("n")], 0..4);
    (data_of, tools_of, members_of, 0..3_i64, 0..2_u64).prop_map(|(data, tools, members, value, seed)| {
        let member = |text: &str| WantedMember {
            determinism: seeded(seed),
            profiles: BTreeMap::from([(name("p"), Params::from([("lr".to_owned(), Value::Int(value))]))]),
            ..member(text, text == "digits", &[("epochs", value)][..usize::from(value > 0)])
        };
        Wanted { data, tools, members: members.into_iter().map(member).collect(), ..Wanted::default() }
    })
}

fn generations() -> impl Strategy<Value = BTreeMap<String, u64>> {
    btree_map("[a-e]", 0..3_u64, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The order of what is wanted has no meaning, and the result is what is read back from its text.
    #[test]
    fn shuffled_wishes_give_the_same_bytes(wanted in wishes(), old in wishes(), turn in 0..8_usize) {
        let mut world = World::default();
        let old = lock_with(&old, None, &mut world).lock;
        let lock = lock_with(&wanted, Some(&old), &mut world).lock;
        let mut shuffled = wanted.clone();
        shuffled.data.reverse();
        let turn = turn % shuffled.data.len().max(1);
        shuffled.data.rotate_left(turn);
        shuffled.tools.reverse();
        shuffled.members.reverse();
        prop_assert_eq!(lock_with(&shuffled, Some(&old), &mut world).lock.to_text(), lock.to_text());
        prop_assert_eq!(Lock::parse(&lock.to_text(), Path::new("train.lock")).unwrap(), lock);
    }

    /// Locking again asks nothing and changes nothing, whatever happened to the sources.
    #[test]
    fn locking_is_a_fixed_point(wanted in wishes(), first in wishes(), later in generations()) {
        let mut world = World::default();
        let old = lock_with(&first, None, &mut world).lock;
        let lock = lock_with(&wanted, Some(&old), &mut world).lock;
        world.questions();
        let still = |request: &&Arc<DataRequest>| matches!(request.source, DataSource::Path(_));
        let local: BTreeSet<&str> = wanted.data.iter().filter(still).map(|r| r.name.as_str()).collect();
        world.generations = later.into_iter().filter(|(name, _)| !local.contains(name.as_str())).collect();
        let again = lock_with(&wanted, Some(&lock), &mut world);
        prop_assert_eq!(words(&again), Vec::<String>::new());
        prop_assert_eq!(&again.lock, &lock);
        prop_assert_eq!(world.questions(), Vec::<String>::new());
        prop_assert!(stale(&wanted, Some(&lock), &mut world).unwrap().is_empty());
    }

    /// What is called stale is what locking changes, and it is found without asking.
    #[test]
    fn stale_is_what_locking_would_change(wanted in wishes(), old in wishes(), later in generations()) {
        let mut world = World::default();
        let old = lock_with(&old, None, &mut world).lock;
        world.generations = later;
        world.questions();
        let told = stale(&wanted, Some(&old), &mut world).unwrap();
        prop_assert_eq!(world.questions(), Vec::<String>::new());
        let done = lock_with(&wanted, Some(&old), &mut world);
        let subjects = |changes: &[trainlock_resolve::Change]| changes.iter().map(|c| c.subject.clone()).collect::<Vec<_>>();
        prop_assert_eq!(subjects(&told), subjects(&done.changes));
        prop_assert_eq!(done.changes.is_empty(), done.lock == old);
        prop_assert_eq!(done.lock.to_text() == old.to_text(), done.lock == old);
    }

    /// An update moves what is named and nothing else.
    #[test]
    fn an_update_touches_only_what_is_named(wanted in wishes(), later in generations(), names in btree_set("[a-e]", 1..3)) {
        let mut world = World::default();
        let lock = lock_with(&wanted, None, &mut world).lock;
        let local = |request: &&Arc<DataRequest>| matches!(request.source, DataSource::Path(_));
        let local: BTreeSet<&str> = wanted.data.iter().filter(local).map(|r| r.name.as_str()).collect();
        world.generations = later.into_iter().filter(|(name, _)| !local.contains(name.as_str())).collect();
        let known: BTreeSet<String> = wanted.data.iter().map(|r| r.name.to_string())
            .chain(wanted.tools.iter().map(|r| r.name.to_string())).collect();
        let names: BTreeSet<String> = names.intersection(&known).cloned().collect();
        let mode = Mode::Update { names: Some(names.clone()) };
        world.questions();
        let updated = resolve(&wanted, Some(&lock), &mode, &mut world).unwrap();
        prop_assert!(world.questions().iter().all(|asked| names.contains(asked)));
        prop_assert_eq!(updated.changes.is_empty(), updated.lock == lock);
        for (before, after) in lock.data.iter().zip(&updated.lock.data) {
            prop_assert!(before == after || names.contains(before.name.as_str()));
        }
        for (before, after) in lock.tools.iter().zip(&updated.lock.tools) {
            prop_assert!(before == after || names.contains(before.name.as_str()));
        }
        // And what was moved is as new as if it were locked for the first time.
        let all = resolve(&wanted, Some(&lock), &Mode::Update { names: None }, &mut world).unwrap();
        prop_assert_eq!(all.lock, lock_with(&wanted, None, &mut world).lock);
    }

    /// An entry that is wanted no longer takes its block with it and no other.
    #[test]
    fn removing_an_entry_removes_its_block(wanted in wishes(), at in any::<prop::sample::Index>()) {
        prop_assume!(!wanted.data.is_empty());
        let mut world = World::default();
        let lock = lock_with(&wanted, None, &mut world).lock;
        let mut less = wanted.clone();
        let removed = less.data.remove(at.index(wanted.data.len()));
        world.questions();
        let after = lock_with(&less, Some(&lock), &mut world);
        prop_assert_eq!(world.questions(), Vec::<String>::new());
        let place = lock.data.iter().position(|pin| pin.place() == (&removed.name, removed.member.as_ref())).unwrap();
        let mut expected = blocks(&lock);
        expected.remove(place + 1);
        prop_assert_eq!(blocks(&after.lock), expected);
        let prefix = removed.member.as_ref().map_or(String::new(), |m| format!("{m}/"));
        prop_assert_eq!(words(&after), [format!("data {prefix}{}: removed", removed.name)]);
    }
}

#[test]
fn the_first_lock_asks_for_what_is_not_stated() {
    let mut world = World::default();
    let resolution = lock_with(&wanted(), None, &mut world);
    assert_eq!(world.questions(), ["packed", "raw", "raw", "bash", "ffmpeg"]);
    assert_eq!(world.looked, ["notes"]);
    let digest = |member: Option<&str>, text: &str| {
        resolution.lock.data(member.map(name).as_ref(), &name(text)).unwrap().content.digest().short()
    };
    assert_eq!(
        words(&resolution),
        [
            format!("data notes: added, tree {}, 2 files, 16 B", digest(None, "notes")),
            format!("data packed: added, tree {}, 2 files, 16 B", digest(None, "packed")),
            format!(
                "data raw: added, sha256 {}, {} B",
                digest(None, "raw"),
                resolution.lock.data(None, &name("raw")).unwrap().content.size()
            ),
            format!(
                "data two/raw: added, sha256 {}, {} B",
                digest(Some("two"), "raw"),
                resolution.lock.data(Some(&name("two")), &name("raw")).unwrap().content.size()
            ),
            format!("data stated: added, sha256 {}, 6 B", Digest::of(b"stated").short()),
            "tool two/bash: added, 1.0.0".to_owned(),
            "tool ffmpeg: added, 1.0.0".to_owned(),
            "determinism: added, seed 42".to_owned(),
            "determinism two: added, seed 42".to_owned(),
            "params digits epochs: added, 20".to_owned(),
            "params digits model.width: added, 128".to_owned(),
            "profile smoke digits epochs: added, 1".to_owned(),
        ]
    );
    let text = resolution.lock.to_text();
    assert!(!text.contains("[params.two]"), "a member without params has no table:\n{text}");
}

#[test]
fn changes_are_told_in_words() {
    let mut world = World::default();
    let old = lock_with(&wanted(), None, &mut world).lock;
    let mut new = wanted();
    Arc::make_mut(&mut new.data[0]).source = from_url("https://example.org/new.csv");
    let DataSource::Url { mirrors, .. } = &mut Arc::make_mut(&mut new.data[1]).source else { unreachable!() };
    mirrors.push(SourceUrl::parse("s3://backup/raw2.csv").unwrap());
    new.tools[0] = tool(None, "ffmpeg", ">=1.0");
    new.tools.pop();
    new.members[0].params.insert("epochs".to_owned(), Value::Float(20.0));
    new.members[0].profiles.clear();
    new.members[1].determinism = Determinism { seed: 43, threads: Some(4), ..seeded(43) };
    world.generations = BTreeMap::from([("notes".to_owned(), 3), ("raw".to_owned(), 1)]);
    world.questions();
    let resolution = lock_with(&new, Some(&old), &mut world);
    // Only the address that changed is read again: a mirror more is no reason to, nor is a looser requirement.
    assert_eq!(world.questions(), ["raw"]);
    let moved = |text: &str| {
        let digest = |lock: &Lock| lock.data(None, &name(text)).unwrap().content.digest().short();
        format!("content changed: {} -> {}", digest(&old), digest(&resolution.lock))
    };
    assert_eq!(
        words(&resolution),
        [
            format!("data notes: {}, 3 files added, 1 changed", moved("notes")),
            format!("data raw: url: https://example.org/raw.csv -> https://example.org/new.csv; {}", moved("raw")),
            "data two/raw: mirrors: none -> s3://backup/raw2.csv".to_owned(),
            "tool two/bash: removed".to_owned(),
            "tool ffmpeg: version: 1 -> >=1.0".to_owned(),
            "determinism two: seed: 42 -> 43; threads: none -> 4".to_owned(),
            "params digits epochs: 20 -> 20.0".to_owned(),
            "profile smoke digits epochs: removed".to_owned(),
        ]
    );
    let kept = resolution.lock.data(Some(&name("two")), &name("raw")).unwrap();
    assert_eq!(kept.content, old.data(Some(&name("two")), &name("raw")).unwrap().content);
}

#[test]
fn an_archive_packed_anew_is_named_as_such() {
    struct Packed(u8);
    impl Provider for Packed {
        fn data(&mut self, requests: &[&DataRequest]) -> Vec<Result<DataAnswer, BoxError>> {
            let answer = || DataAnswer {
                resolved: Some("https://example.org/packed.tar".to_owned()),
                content: Content::tree(tree(300, "x")),
                archive: Some((Digest::of(&[self.0]), 1)),
                versions: Vec::new(),
                validator: None,
            };
            requests.iter().map(|_| Ok(answer())).collect()
        }

        fn path(&mut self, _: &[&DataRequest]) -> Vec<Result<Content, BoxError>> {
            unreachable!("nothing here is in the repository")
        }

        fn description(&mut self, path: &RelPath) -> Result<Digest, BoxError> {
            Ok(Digest::of(path.as_str().as_bytes()))
        }

        fn tool(&mut self, request: &ToolRequest, _: Option<&ToolPin>) -> Result<ToolAnswer, BoxError> {
            Err(format!("no tool {} here", request.name).into())
        }

        fn python(&mut self, _: &PythonRequest, _: &ResolveWith<'_>) -> Result<PythonAnswer, BoxError> {
            Err("no packages here".into())
        }

        fn image(&mut self, reference: &ImageReference) -> Result<ImageAnswer, BoxError> {
            Err(format!("no image {reference} here").into())
        }

        fn switches(&self, _: &Determinism, _: &BTreeMap<String, String>) -> BTreeMap<String, Switches> {
            BTreeMap::new()
        }
    }
    let wanted = Wanted { data: vec![wanted().data.remove(3)], ..Wanted::default() };
    let old = resolve(&wanted, None, &Mode::Lock, &mut Packed(1)).unwrap().lock;
    assert!(!old.to_text().contains("listing"), "300 files are too many for a listing in the lock");
    assert!(!old.to_text().contains("source"), "the source is the url itself");
    let new = resolve(&wanted, Some(&old), &update(&["packed"]), &mut Packed(2)).unwrap();
    let (a, b) = (Digest::of(&[1]).short(), Digest::of(&[2]).short());
    assert_eq!(words(&new), [format!("data packed: the archive changed, its content did not: {a} -> {b}")]);
    // Asked again, with the same answer: nothing changes.
    let same = resolve(&wanted, Some(&new.lock), &Mode::Update { names: None }, &mut Packed(2)).unwrap();
    assert_eq!((words(&same), same.lock), (vec![], new.lock));
}

#[test]
fn all_failures_come_together() {
    let broken = ["raw", "notes", "bash"].map(str::to_owned).into();
    let mut world = World { broken, generations: BTreeMap::from([("ffmpeg".to_owned(), 1)]), ..World::default() };
    let mut wanted = wanted();
    wanted.tools[0] = tool(None, "ffmpeg", "~1.0");
    let DataSource::Url { size, .. } = &mut Arc::make_mut(&mut wanted.data[3]).source else { unreachable!() };
    *size = Some(99);
    let errors = resolve(&wanted, None, &Mode::Lock, &mut world).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "could not lock data notes",
            "data packed is not what the manifest asks for: size: 7 -> 99",
            "could not lock data raw",
            "could not lock data two/raw",
            "could not lock tool two/bash",
            "tool ffmpeg has version 1.1.0, which does not satisfy ~1.0",
        ]
    );
    let source = std::error::Error::source(&errors[0]).unwrap();
    assert_eq!(source.to_string(), "notes is not there");
    assert_eq!(stale(&wanted, None, &mut world).unwrap_err().len(), 1);
}

#[test]
fn an_unknown_name_is_not_updated() {
    let mut world = World::default();
    let errors = resolve(&wanted(), None, &update(&["ray", "ffmpeg", "nothing"]), &mut world).unwrap_err();
    assert!(matches!(&errors[..], [ResolveError::UnknownName { .. }, ResolveError::UnknownName { .. }]));
    assert_eq!(errors[0].to_string(), "there is no data set, tool, package or image `nothing`");
    assert_eq!(errors[1].to_string(), "there is no data set, tool, package or image `ray`: did you mean `raw`?");
    assert!(world.questions().is_empty());
}

#[test]
fn what_a_later_trainlock_noted_stays_as_long_as_it_is_true() {
    let mut world = World::default();
    let text = lock_with(&wanted(), None, &mut world).lock.to_text();
    let text = text
        .replace("name = \"raw\"\n", "name = \"raw\"\netag = \"x\"\n")
        .replace("seed = 42\n", "seed = 42\nlater = 1\n");
    let text = format!("{text}\n[[result]]\nstep = \"train\"\nclass = \"c\"\nkey = \"{}\"\n", Digest::of(b"key"));
    let old = Lock::parse(&text, Path::new("train.lock")).unwrap();
    let same = resolve(&wanted(), Some(&old), &update(&["raw"]), &mut world).unwrap();
    assert_eq!(same.lock, old);
    let mut new = wanted();
    Arc::make_mut(&mut new.data[0]).source = from_url("https://example.org/new.csv");
    let text = lock_with(&new, Some(&old), &mut world).lock.to_text();
    assert_eq!(text.matches("etag").count(), 1, "the other data set's stays:\n{text}");
    assert_eq!(text.matches("later = 1").count(), 2);
    assert!(text.contains("[[result]]"));
}

#[test]
fn a_damaged_lock_is_settled_by_what_is_wanted() {
    let mut world = World::default();
    let mut theirs_want = wanted();
    Arc::make_mut(&mut theirs_want.data[0]).source = from_url("https://example.org/theirs.csv");
    let ours = lock_with(&wanted(), None, &mut world).lock;
    let theirs = lock_with(&theirs_want, Some(&ours), &mut world).lock;
    let both = |ours: &Lock, theirs: &Lock| {
        let text = format!("<<<<<<< HEAD\n{}=======\n{}>>>>>>> theirs\n", ours.to_text(), theirs.to_text());
        heal(&text, Path::new("train.lock")).unwrap()
    };
    let healed = both(&ours, &theirs);
    assert_eq!((healed.data.len(), healed.damaged), (1, 0));
    world.questions();
    // The manifest as one side has it: that side's pin stands, and nothing is asked.
    for (want, lock) in [(wanted(), &ours), (theirs_want.clone(), &theirs)] {
        let settled = settle(healed.clone(), &want);
        assert_eq!(lock_with(&want, Some(&settled), &mut world).lock, *lock);
        assert!(world.questions().is_empty());
    }
    // As neither has it: locked anew.
    let mut other = wanted();
    Arc::make_mut(&mut other.data[0]).source = from_url("https://example.org/other.csv");
    let settled = settle(healed, &other);
    assert_eq!(settled.data(None, &name("raw")), None);
    lock_with(&other, Some(&settled), &mut world);
    assert_eq!(world.questions(), ["raw"]);
    // Both satisfy it with different content (one side has updated): locked anew, because nobody knows which is meant.
    world.generations.insert("raw".to_owned(), 1);
    world.generations.insert("ffmpeg".to_owned(), 1);
    let updated = resolve(&wanted(), Some(&ours), &Mode::Update { names: None }, &mut world).unwrap().lock;
    let settled = settle(both(&ours, &updated), &wanted());
    assert_eq!(settled.data(None, &name("raw")), None);
    assert_eq!(settled.tool(None, &name("ffmpeg")), None);
    world.questions();
    assert_eq!(lock_with(&wanted(), Some(&settled), &mut world).lock, updated);
    assert_eq!(world.questions(), ["raw", "raw", "ffmpeg"]);
}

fn packages_of(profile: Option<&str>, packages: &[&str]) -> PythonRequest {
    PythonRequest {
        member: None,
        profile: profile.map(|p| Name::entry(p).unwrap()),
        taken: None,
        dependencies: packages.iter().map(|p| (*p).to_owned()).collect(),
        constraints: Vec::new(),
        index: Vec::new(),
        sdist: Vec::new(),
        platforms: Vec::new(),
    }
}

/// A project that wants these packages, with an interpreter and the resolver.
fn with_packages(packages: &[&str]) -> Wanted {
    let request = packages_of(None, packages);
    // As it is wanted before any package is known.
    let mut determinism = member("root", true, &[]).determinism;
    determinism.switches.insert("x86_64".to_owned(), Switches { level: "v3".to_owned(), ..Switches::default() });
    Wanted {
        tools: vec![tool(None, "python", "*"), tool(None, "uv", "*")],
        python: vec![request],
        members: vec![WantedMember { determinism, ..member("root", true, &[]) }],
        ..Wanted::default()
    }
}

#[test]
fn packages_stay_until_they_are_asked_to_move() {
    let mut world = World::default();
    let wanted = with_packages(&["numpy", "scipy"]);
    let old = resolve(&wanted, None, &Mode::Lock, &mut world).unwrap().lock;
    let versions = |lock: &Lock| lock.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>();
    assert_eq!(versions(&old), ["numpy 1.0", "scipy 1.0"]);
    assert_eq!(old.determinism[&None].switches["x86_64"].variables["NUMPY"], "1.0");
    assert_eq!(stale(&wanted, Some(&old), &mut world).unwrap(), []);
    // What came out since changes nothing, and nobody is asked.
    world.generations.extend([("numpy".to_owned(), 3), ("scipy".to_owned(), 5)]);
    world.questions();
    let same = resolve(&wanted, Some(&old), &Mode::Lock, &mut world).unwrap();
    assert!(same.changes.is_empty() && same.lock == old && world.questions().is_empty());
    // A new requirement moves no other package, and is looked for among all that there is.
    let more = with_packages(&["numpy", "pandas", "scipy"]);
    let words = |wanted: &Wanted, world: &mut World| {
        stale(wanted, Some(&old), world).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(words(&more, &mut world), ["python: dependencies: new pandas"]);
    let found = resolve(&more, Some(&old), &Mode::Lock, &mut world).unwrap();
    assert_eq!(versions(&found.lock), ["numpy 1.0", "pandas 1.0", "scipy 1.0"]);
    assert_eq!(world.questions(), ["python 1.0.0 None"]);
    // One package moves alone; its new version changes what the level means.
    let one = Mode::Update { names: Some(BTreeSet::from(["numpy".to_owned()])) };
    let moved = resolve(&wanted, Some(&old), &one, &mut world).unwrap();
    assert_eq!(versions(&moved.lock), ["numpy 1.3", "scipy 1.0"]);
    assert_eq!(
        moved.changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["package numpy: version: 1.0 -> 1.3"]
    );
    assert_eq!(moved.lock.determinism[&None].switches["x86_64"].variables["NUMPY"], "1.3");
    let all = resolve(&wanted, Some(&old), &Mode::Update { names: None }, &mut world).unwrap();
    assert_eq!(versions(&all.lock), ["numpy 1.3", "scipy 1.5"]);
    // Another set of platforms is resolved from what there was.
    world.questions();
    let mut elsewhere = wanted.clone();
    elsewhere.python[0].platforms = vec![trainlock_types::Platform::LinuxX86_64];
    resolve(&elsewhere, Some(&old), &Mode::Lock, &mut world).unwrap();
    assert_eq!(world.questions(), ["python 1.0.0 Some(\"2026\")"]);
    // Without [python] nothing of it stays.
    let mut none = wanted.clone();
    none.python.clear();
    assert!(resolve(&none, Some(&old), &Mode::Lock, &mut world).unwrap().lock.packages.is_empty());
}

#[test]
fn a_profile_has_packages_of_its_own() {
    let mut world = World::default();
    let mut wanted = with_packages(&["numpy", "torch"]);
    let old = resolve(&wanted, None, &Mode::Lock, &mut world).unwrap().lock;
    let gpu = Name::entry("gpu").unwrap();
    world.generations.extend(["numpy", "torch", "triton"].map(|name| (name.to_owned(), 3)));
    wanted.python.push(packages_of(Some("gpu"), &["numpy", "torch", "triton"]));
    let words = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let found = resolve(&wanted, Some(&old), &Mode::Lock, &mut world).unwrap();
    assert_eq!(words(&found.changes)[0], "python (profile gpu): added, for 1.0");
    assert_eq!(words(&found.changes)[1], "package numpy (profile gpu): added, 1.0");
    let versions = |lock: &Lock, profile: Option<&Name>| {
        lock.packages(None, profile).map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>()
    };
    // It has the versions of [python] itself, where that has them.
    assert_eq!(versions(&found.lock, None), ["numpy 1.0", "torch 1.0"]);
    assert_eq!(versions(&found.lock, Some(&gpu)), ["numpy 1.0", "torch 1.0", "triton 1.3"]);
    assert_eq!(stale(&wanted, Some(&found.lock), &mut world).unwrap(), []);
    assert_eq!(found.lock.python_under(None, Some("gpu")).unwrap().profile.as_ref(), Some(&gpu));
    assert_eq!(found.lock.python_under(None, Some("smoke")).unwrap().profile, None);
    let text = found.lock.to_text();
    assert_eq!(Lock::parse(&text, std::path::Path::new("train.lock")).unwrap(), found.lock);
    // What only the profile asks for leaves the others alone.
    wanted.python[1].index = vec!["torch pytorch-gpu".to_owned()];
    world.questions();
    let moved = resolve(&wanted, Some(&found.lock), &Mode::Lock, &mut world).unwrap();
    assert_eq!(words(&moved.changes), ["python (profile gpu): index: new torch pytorch-gpu"]);
    assert_eq!(world.questions().len(), 1);
    wanted.python.pop();
    let back = resolve(&wanted, Some(&moved.lock), &Mode::Lock, &mut world).unwrap().lock;
    assert_eq!(back, old);
}

#[test]
fn an_image_stays_until_it_is_updated() {
    let reference = "ghcr.io/org/x:1";
    let wanted = Wanted { images: BTreeSet::from([reference.parse().unwrap()]), ..wanted() };
    let mut world = World::default();
    let first = resolve(&wanted, None, &Mode::Lock, &mut world).unwrap();
    assert_eq!(words(&first).iter().filter(|w| w.starts_with("image ghcr.io/org/x:1: added, sha256 ")).count(), 1);
    let text = first.lock.to_text();
    assert_eq!(Lock::parse(&text, Path::new("train.lock")).unwrap(), first.lock, "{text}");
    // The tag is moved: nothing changes, and nobody is asked, until the user asks for it by name or for all.
    world.generations.insert(reference.to_owned(), 1);
    world.questions();
    assert_eq!(stale(&wanted, Some(&first.lock), &mut world).unwrap(), []);
    let same = resolve(&wanted, Some(&first.lock), &Mode::Lock, &mut world).unwrap();
    assert_eq!((words(&same), world.questions()), (vec![], vec![]));
    let moved = resolve(&wanted, Some(&first.lock), &update(&[reference]), &mut world).unwrap();
    let [change] = &words(&moved)[..] else { panic!("{:?}", words(&moved)) };
    assert!(change.starts_with("image ghcr.io/org/x:1: digest: "), "{change}");
    assert_eq!(world.questions(), ["image ghcr.io/org/x:1"]);
    let gone = stale(&Wanted { images: BTreeSet::new(), ..wanted }, Some(&moved.lock), &mut world).unwrap();
    assert_eq!(gone.iter().map(Change::to_string).collect::<Vec<_>>(), ["image ghcr.io/org/x:1: removed"]);
}
