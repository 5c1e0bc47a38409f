//! The format: what is written is read again, and nothing but the content decides about the bytes.

use proptest::prelude::*;
use std::path::Path;
use trainlock_lock::{Lock, LockError};

fn parse(text: &str) -> Result<Lock, LockError> {
    Lock::parse(text, Path::new("train.lock"))
}

fn fixtures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/locks/v1");
    let mut texts: Vec<(String, String)> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs_err::read_to_string(entry.path()).unwrap()))
        .collect();
    texts.sort();
    texts
}

fn fixture(name: &str) -> String {
    fixtures().into_iter().find(|(file, _)| file == name).expect("the fixture is there").1
}

/// Lines that a later trainlock of the same version may write, each for a block of its own kind.
const LATER: [&str; 5] = [
    "later = 1",
    "later-list = [\n    \"# no comment\", # one\n    { a = 1, b = ']' },\n]",
    "later.part = \"x\" # why",
    "'later text' = '''\n[[data]]\nname = 1\n'''",
    "later_date = 2026-11-22T10:00:00Z",
];

/// Tables that a later trainlock of the same version may write.
const LATER_TABLES: [&str; 4] = [
    "[[recipe]]\nname = \"numpy\"\nwheels = [\n    \"a\",\n]",
    "[[recipe]]\nname = \"scipy\"\n\n[recipe.size]\nbytes = 0.5 # half",
    "[vessel.\"docker.io/python\"]\ndigest = \"x\"",
    "[later.switches]\nOMP_NUM_THREADS = \"1\"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_is_written_is_read(lock in crate::invent::lock(true)) {
        let text = lock.to_text();
        prop_assert_eq!(&parse(&text).unwrap(), &lock, "{}", text);
        prop_assert!(text.parse::<toml::Table>().is_ok(), "{}", text);
    }

    #[test]
    fn order_of_insertion_does_not_matter(lock in crate::invent::lock(true), turn in 0..8_usize) {
        let mut other = lock.clone();
        other.data.reverse();
        other.tools.reverse();
        let turn = turn % other.data.len().max(1);
        other.data.rotate_left(turn);
        prop_assert_eq!(other.to_text(), lock.to_text());
    }

    /// What a formatter or another TOML writer makes of the file has the same meaning.
    #[test]
    fn another_layout_is_read_alike(lock in crate::invent::lock(false), pretty in any::<bool>()) {
        let table: toml::Table = lock.to_text().parse().unwrap();
        let text = if pretty { toml::to_string_pretty(&table) } else { toml::to_string(&table) }.unwrap();
        prop_assert_eq!(&parse(&text).unwrap(), &lock, "{}", text);
        prop_assert_eq!(parse(&text.replace('\n', "\r\n")).is_ok(), true, "{}", text);
    }

    #[test]
    fn one_entry_changes_its_block_only(lock in crate::invent::lock(true), pin in crate::invent::data(), at in any::<prop::sample::Index>()) {
        prop_assume!(!lock.data.is_empty());
        let mut other = lock.clone();
        let at = at.index(lock.data.len());
        let old = &lock.data[at];
        other.data[at] = trainlock_lock::DataPin { name: old.name.clone(), member: old.member.clone(), ..pin };
        let (before, after) = (lock.to_text(), other.to_text());
        let blocks = |text: &str| text.split("\n\n").map(str::to_owned).collect::<Vec<_>>();
        let (before, after) = (blocks(&before), blocks(&after));
        prop_assert_eq!(before.len(), after.len());
        for (i, (a, b)) in before.iter().zip(&after).enumerate() {
            prop_assert!(i == at + 1 || a == b, "{} {}", a, b);
        }
    }

    /// Unknown keys and tables stay, byte for byte, where a rewrite leaves them, and stay there.
    #[test]
    fn what_is_not_known_is_kept(
        lock in crate::invent::lock(true),
        lines in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
        tables in proptest::collection::btree_set(0..LATER_TABLES.len(), 0..4),
    ) {
        prop_assume!(!tables.contains(&3) || lock.determinism.contains_key(&None));
        let mut blocks: Vec<String> = lock.to_text().split("\n\n").map(|b| b.trim_end().to_owned()).collect();
        let mut expected = Vec::new();
        // Params have no unknown keys.
        let open: Vec<usize> =
            (0..blocks.len()).filter(|i| !blocks[*i].starts_with("[params") && !blocks[*i].starts_with("[profile")).collect();
        for (block, line) in lines {
            let block = &mut blocks[*block.get(&open)];
            let line = line.get(&LATER);
            if !LATER.iter().any(|known| block.contains(known)) {
                block.push('\n');
                block.push_str(line);
                expected.push(*line);
            }
        }
        let places = blocks.len();
        for table in tables {
            expected.push(LATER_TABLES[table]);
            blocks.insert(if table == 3 { places } else { table.min(blocks.len() - 1) + 1 }, LATER_TABLES[table].to_owned());
        }
        let text = blocks.join("\n\n") + "\n";
        prop_assume!(text.parse::<toml::Table>().is_ok());
        let read = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let written = read.to_text();
        for part in expected {
            prop_assert!(written.contains(part), "{} is lost:\n{}", part, written);
        }
        prop_assert_eq!(text.parse::<toml::Table>().unwrap(), written.parse::<toml::Table>().unwrap());
        prop_assert_eq!(&parse(&written).unwrap(), &read);
        prop_assert_eq!(parse(&written).unwrap().to_text(), written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is read as a lock is TOML, and nothing panics.
    #[test]
    fn nothing_but_toml_is_read(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[\\[\\]\"'=#.,{}\\\\ \t\n\ra0_é<>|+-]{0,3}", 0..3_usize), 1..4),
    ) {
        let texts = fixtures();
        let mut text: Vec<char> = which.get(&texts).1.chars().collect();
        for (at, insert, remove) in edits {
            let at = at.index(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let read = parse(&text);
        prop_assert!(read.is_err() || text.parse::<toml::Table>().is_ok(), "{}", text);
        if let Ok(lock) = read {
            prop_assert_eq!(parse(&lock.to_text()).unwrap(), lock);
        }
        if let Ok(healed) = trainlock_lock::heal(&text, Path::new("train.lock")) {
            prop_assert!(parse(&healed.lock.to_text()).is_ok());
        }
    }
}

#[test]
fn fixtures_of_version_1_are_read() {
    let texts = fixtures();
    assert!(texts.len() >= 4);
    for (file, text) in &texts {
        let lock = parse(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        if !file.starts_with("layout") {
            assert_eq!(lock.to_text(), *text, "{file} is not canonical");
        }
    }
}

#[test]
fn the_example_of_the_reference_is_canonical() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/lock.md");
    let page = fs_err::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```toml\n").expect("the page has an example");
    let (example, _) = rest.split_once("```").expect("the example ends");
    assert_eq!(parse(example).unwrap().to_text(), example);
}

#[test]
fn another_hands_layout_has_the_same_meaning() {
    assert_eq!(parse(&fixture("layout.lock")).unwrap(), parse(&fixture("full.lock")).unwrap());
}

#[test]
fn pins_are_found_by_member_and_name() {
    let lock = parse(&fixture("full.lock")).unwrap();
    for pin in &lock.data {
        assert_eq!(lock.data(pin.member.as_ref(), &pin.name), Some(pin));
    }
    for pin in &lock.tools {
        assert_eq!(lock.tool(pin.member.as_ref(), &pin.name), Some(pin));
    }
    let other = trainlock_types::Name::entry("nobody").unwrap();
    assert_eq!(lock.data(None, &other), None);
    assert_eq!(lock.tool(Some(&other), &other), None);
}

#[test]
fn errors_name_their_place() {
    let data = "version = 1\n\n[[data]]\nname = \"a\"\n";
    let result = "[[result]]\nstep = \"a\"\nclass = \"c\"\nkey = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n";
    let file = "url = \"https://example.org/a\"\nsha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\nsize = 3\n";
    let cases = [
        (String::new(), "train.lock:1:1: the lock has no `version`"),
        ("version = \"1\"\n".into(), "train.lock:1:11: expected an integer, found a string"),
        ("version = 0\n".into(), "train.lock:1:11: no trainlock writes version 0 of the lock"),
        ("version = 1\nversion = 1\n".into(), "train.lock:2: the key `version` stands twice"),
        ("version = 1\ndata = []\n".into(), "train.lock:2:1: `data` is not in the form that trainlock writes"),
        ("version = 1\n[data]\n".into(), "train.lock:2:1: the table `data` is not in the form"),
        ("version = 1\n[[params.a]]\n".into(), "train.lock:2:1: the table `params.a` is not in the form"),
        ("version = 1\n[params.a.b]\n".into(), "train.lock:2:1: the table `params.a.b` is not in the form"),
        ("version = 1\n[params.a]\nb.c = 1\n".into(), "train.lock:3:1: a dotted key"),
        (
            "version = 1\n[params.a]\nb = nan\n".into(),
            "train.lock:3:5: expected a value, found a number that is not finite",
        ),
        (
            "version = 1\n[params.a]\nb = 99999999999999999999\n".into(),
            "train.lock:3:5: expected a value, found a number beyond 64 bits",
        ),
        ("version = 1\n[params.a]\n[params.a]\n".into(), "train.lock:3: the table `[params.a]` stands twice"),
        ("version = 1\nx = [1, 2\n".into(), "train.lock:2:5: an array or table without its end"),
        ("version = 1\nx = 1 2\n".into(), "train.lock:2:5: string values must be quoted"),
        ("version = 1 2\n".into(), "train.lock:1:"),
        ("version = 1\n[[data]\n".into(), "train.lock:2:7: expected the end of the table's name"),
        (format!("{data}url = \"x\n"), "train.lock:5:7: a string without its end"),
        (data.to_owned(), "train.lock:3:1: the data set has no `url`, `path`, `croissant` or `pooch`"),
        (format!("{data}url = 1\n"), "train.lock:5:7: expected a string, found an integer"),
        (format!("{data}url = \"data.csv\"\n"), "train.lock:5:7: not a URL"),
        (format!("{data}{file}").replace("ba78", "zz78"), "train.lock:6:10: a sha256 is 64 hexadecimal digits"),
        (format!("{data}{file}").replace("= 3", "= -3"), "train.lock:7:8: `size` is negative"),
        (format!("{data}{file}count = 1\n"), "train.lock:8:1: `count` belongs to a `tree`"),
        (format!("{data}{file}path = \"a\"\n"), "train.lock:3:1: the data set has more than one of"),
        (format!("{data}{file}unpack = true\n"), "train.lock:3:1: what is locked does not fit `extract` and `unpack`"),
        (
            format!("{data}{file}archive-size = 1\n"),
            "train.lock:3:1: `archive-sha256` and `archive-size` belong together",
        ),
        (format!("{data}{file}size = 3\n"), "train.lock:8: the key `size` stands twice"),
        (format!("{data}{file}{}{file}", &data[12..]), "train.lock:9: data `a` stands twice"),
        (
            format!("{data}path = \"a\"\nrev = \"x\"\n{}", file.split_once('\n').unwrap().1),
            "train.lock:6:1: `rev` belongs to a `url`",
        ),
        (format!("{data}{file}member = \"A\"\n"), "train.lock:8:10: a project's name has lower-case letters"),
        (
            "version = 1\n[[tool]]\nname = \"ruff\"\nrequest = \"1\"\nfrom = \"pypi\"\nversion = \"1\"\n".into(),
            "train.lock:6:11: unexpected end of input",
        ),
        (
            "version = 1\n[[tool]]\nname = \"ruff\"\nrequest = \"1\"\nfrom = \"pypi\"\nmatch = \"version\"\n".into(),
            "train.lock:6:1: `match` belongs to",
        ),
        ("version = 1\n[determinism]\nseed = 1\n".into(), "train.lock:2:1: the entry has no `level`"),
        ("version = 1\n[[recipe]]\na = 1\na = 2\n".into(), "train.lock:4:1: duplicate key"),
        ("version = 1\n[[result]]\nstep = \"a\"\n".into(), "train.lock:2:1: the entry has no `class`"),
        (format!("version = 1\n{result}{result}"), "train.lock:6: a result of step `a` for one class stands twice"),
        (
            format!("version = 1\n{result}outputs = [\"x\"]\n"),
            "train.lock:6:1: the outputs are not `<sha256> <size> <path>`",
        ),
        (
            format!("version = 1\n{result}content = [\"x\"]\n"),
            "train.lock:6:1: `content` is not `<sha256> <path of an output>`",
        ),
        (
            format!("version = 1\n{result}metrics = [\"NaN a\"]\n"),
            "train.lock:6:1: the metrics are not `<number> <name>`",
        ),
        (
            "version = 1\n[determinism.switches.x86_64]\nlevel = \"a\"\n".into(),
            "train.lock:2:1: the table `determinism.switches.x86_64` is not in the form",
        ),
    ];
    for (text, expected) in cases {
        let error = parse(&text).expect_err(&text).to_string();
        assert!(error.starts_with(expected), "{error:?} instead of {expected:?} for\n{text}");
    }
}

#[test]
fn a_listing_must_be_the_one_that_the_tree_names() {
    let text = fixture("full.lock");
    let line = text.lines().find(|line| line.ends_with("a.txt\",")).expect("the fixture has a listing");
    for broken in [line.replace("a.txt", "b.txt"), line.replace("    \"", "    \"0"), String::new()] {
        let error = parse(&text.replace(line, &broken)).unwrap_err();
        assert!(matches!(error, LockError::Invalid(_)), "{error}");
        assert!(error.to_string().contains("the listing"), "{error}");
    }
}

#[test]
fn a_newer_version_is_refused_whatever_it_holds() {
    let plain = parse("version = 2\n<<<<<<< what\n").unwrap_err();
    assert_eq!(
        plain.to_string(),
        "train.lock has version 2 of the format and this trainlock knows version 1: use the trainlock that wrote it, or a newer one"
    );
    let named = parse("version = 3\nrequires-trainlock = \">=0.9\"\n[[data]]\nodd = 1\n").unwrap_err();
    assert!(matches!(&named, LockError::NewerVersion { found: 3, known: 1, requires: Some(r), .. } if r == ">=0.9"));
    assert!(named.to_string().ends_with("use trainlock >=0.9"), "{named}");
}

#[test]
fn the_digest_is_that_of_the_text() {
    let text = fixture("full.lock");
    assert_eq!(parse(&text).unwrap().digest(), trainlock_types::Digest::of(text.as_bytes()));
}
