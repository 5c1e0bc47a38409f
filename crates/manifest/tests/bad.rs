//! fixtures/manifests/bad: each manifest has the mistakes that its first lines expect, at these places, and no other.

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use trainlock_manifest::{ManifestError, load};
use trainlock_types::Diagnostic;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/manifests/bad");

fn fixtures() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs_err::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (named(path), fs_err::read_to_string(path).unwrap())).collect()
}

/// The mistakes that are found in a manifest by itself.
fn mistakes(folder: &Path, text: &str) -> Vec<Diagnostic> {
    let manifest = folder.join("train.toml");
    fs_err::write(&manifest, text).unwrap();
    match load(&manifest) {
        Ok(_) => Vec::new(),
        Err(ManifestError::Invalid(diagnostics)) => diagnostics,
        Err(ManifestError::RequiresTrainlock(diagnostic)) => vec![*diagnostic],
        Err(other) => panic!("{other}"),
    }
}

fn place(diagnostic: &Diagnostic) -> String {
    let (line, column) = diagnostic.source.line_column(diagnostic.span.start);
    format!("{line}:{column}")
}

#[test]
fn each_bad_manifest_is_told_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = fixtures();
    assert!(fixtures.len() >= 45);
    let mut wrong = String::new();
    for (name, text) in &fixtures {
        let expected: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("# expect: ")).collect();
        assert!(!expected.is_empty(), "{name} expects nothing");
        let found = mistakes(folder.path(), text);
        let fits = |(line, d): (&&str, &Diagnostic)| {
            line.split_once(' ').is_some_and(|(at, message)| at == place(d) && d.message.contains(message))
        };
        if expected.len() != found.len() || !expected.iter().zip(&found).all(fits) {
            wrong.push_str(&format!("{name}\n"));
            for d in &found {
                wrong.push_str(&format!("  # expect: {} {}\n      help: {:?}\n", place(d), d.message, d.help));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn places_and_texts_are_fit_to_be_shown() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in fixtures() {
        for d in mistakes(folder.path(), &text) {
            let places = std::iter::once(&d.span).chain(d.related.iter().map(|(span, _)| span));
            for span in places {
                assert!(text.get(span.clone()).is_some(), "{name}: {span:?}");
            }
            assert!(!d.message.ends_with('.') && !d.message.contains('\n'), "{name}: {}", d.message);
            assert!(!d.message.starts_with(|c: char| c.is_uppercase()), "{name}: {}", d.message);
            assert_ne!(d.help.as_deref(), Some(""), "{name}");
        }
    }
}

/// Pieces that manifests are made of, so that random texts get past the parser.
fn piece() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "[project]\n",
        "name = ",
        "\"digits\"\n",
        "[data]\n",
        "raw = ",
        "{ url = ",
        "\"https://x.org/a.csv\"",
        " }\n",
        "[steps.a]\n",
        "[steps.b]\n",
        "run = ",
        "\"x {data.raw} {params.a} {inputs.0}\"\n",
        "inputs = [",
        "outputs = [",
        "\"a/b\", ",
        "\"a/*\", ",
        "]\n",
        "[params]\n",
        "a = 1\n",
        "a.workspace = true\n",
        "[workspace]\n",
        "members = [\"*\"]\n",
        "[workspace.params]\n",
        "nan",
        "{",
        "}",
        "\"",
        "'''",
        "[[steps]]\n",
        "a.b.c = ",
        "= ",
        "\n",
        "\u{0}",
        "é",
        "\u{feff}",
        "1979-05-27",
        "0x",
        "[profile.s.params]\n",
        "[python]\n",
        "dependencies = [\"numpy\"]\n",
        "[tools]\n",
        "g = \"^1\"\n",
        "expect.m.min = 1\n",
        "metrics = [\"m.json\"]\n",
    ]);
    words.prop_map(str::to_owned)
}

/// So many data sets are read by two threads; what is found, and its order, is that of one.
#[test]
fn many_data_sets_are_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = |wrong: &[usize]| {
        let mut text = String::from("[project]\nname = \"p\"\n[data]\n");
        for i in 1..=2001 {
            let kind = if wrong.contains(&i) { "ftp" } else { "https" };
            text.push_str(&format!("d{i} = {{ url = \"{kind}://example.org/part-{i}.csv\" }}\n"));
        }
        // Names are looked up behind all of them.
        text + "[steps.s]\nrun = \"cat {data.d2001}\"\ninputs = [\"data/part-2001.csv\"]\noutputs = [\"o\"]\n"
    };
    for wrong in [&[][..], &[2001], &[1, 999, 1000, 1001, 2001], &[7]] {
        let found: Vec<String> = mistakes(folder.path(), &manifest(wrong)).iter().map(place).collect();
        let column = |i: &usize| format!("{}:{}", i + 3, format!("d{i} = {{ url = ").len() + 1);
        assert_eq!(found, wrong.iter().map(column).collect::<Vec<_>>());
    }
    fs_err::write(folder.path().join("train.toml"), manifest(&[])).unwrap();
    let workspace = load(&folder.path().join("train.toml")).unwrap();
    let names: Vec<&str> = workspace.members[0].data.iter().map(|d| d.request.name.as_str()).collect();
    assert_eq!(names, (1..=2001).map(|i| format!("d{i}")).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in prop_oneof![
        "\\PC{0,200}",
        proptest::collection::vec(piece(), 0..40).prop_map(|pieces| pieces.concat()),
    ]) {
        let folder = tempfile::tempdir().unwrap();
        for d in mistakes(folder.path(), &text) {
            prop_assert!(text.get(d.span.clone()).is_some(), "{:?}", d);
        }
    }

    #[test]
    fn no_damage_panics(which in any::<prop::sample::Index>(), cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..8, piece()), 1..5)) {
        let mut texts = fixtures();
        texts.push(("example".to_owned(), fs_err::read_to_string(Path::new(FOLDER).join("../../../train.toml.example")).unwrap()));
        let (_, mut text) = which.get(&texts).clone();
        for (at, length, piece) in cuts {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary((start + length).min(text.len())).max(start);
            text.replace_range(start..end, &piece);
        }
        let folder = tempfile::tempdir().unwrap();
        for d in mistakes(folder.path(), &text) {
            prop_assert!(text.get(d.span.clone()).is_some(), "{:?}", d);
        }
    }
}
