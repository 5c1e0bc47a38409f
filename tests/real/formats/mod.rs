//! Files of real writers, compared: the same content in other containers, and one element one ULP further.

use crate::{have, project};
use std::path::Path;
use std::process::Command;
use trainlock_run::compare::{Change, Comparison, Elements, Sameness, compare_files, content_digest};
use trainlock_testing::{Ran, as_configured, skipped};

/// How two of the folders' files of one name differ; their digests must say the same.
fn compared(folder: &Path, one: &str, two: &str, name: &str) -> Comparison {
    let (a, b) = (folder.join(one).join(name), folder.join(two).join(name));
    let found = compare_files(&a, &b, name).unwrap();
    let digest = |path: &Path| content_digest(path, name).unwrap().unwrap_or_else(|| panic!("{name} was not read"));
    assert_eq!(digest(&a) == digest(&b), found.verdict != Sameness::Different, "{found}");
    found
}

/// Of each file the first two hold the same, and the third differs where and by what the scripts say.
fn check(folder: &Path) -> usize {
    let mut names: Vec<String> = fs_err::read_dir(folder.join("first"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in &names {
        let found = compared(folder, "first", "second", name);
        assert_ne!(found.verdict, Sameness::Different, "{found}");
        // These two writers leave nothing to choose, or sort what they are given.
        if !matches!(name.as_str(), "model.joblib" | "m.safetensors") {
            assert_eq!(found.verdict, Sameness::SameContent, "{name}: the test compares nothing");
        }
        let found = compared(folder, "second", "ulp", name);
        let elements = found.differences.iter().map(|difference| match &difference.change {
            Change::Elements(elements) => (difference.place.as_str(), elements.as_ref()),
            other => panic!("{name}: {other:?}"),
        });
        let elements: Vec<(&str, &Elements)> = elements.collect();
        let image = name.ends_with(".png");
        assert!(!elements.is_empty(), "{name}: {found}");
        for (place, elements) in elements {
            let index: &[u64] = match place {
                "pixels" => &[1, 2, 0],
                "w" | "f" | "matrix" => &[1, 2],
                "turned" => &[2, 1],
                "gaps" => &[1, 1],
                "" | "b" | "v" | "x/b" => &[5],
                other => panic!("{name} differs in {other}: {found}"),
            };
            let distance = elements.distance.unwrap();
            assert_eq!((&elements.first[..], elements.differing), (index, 1), "{name}: {found}");
            assert_eq!(if image { Some(distance.abs as u64) } else { distance.ulp }, Some(1), "{name}: {found}");
        }
    }
    names.len()
}

#[test]
fn numpy_joblib_pandas_arrow_pillow_and_the_archivers() {
    if !have(&["python3", "gzip", "xz", "bzip2", "zstd"]) {
        return;
    }
    let packages = ["numpy", "joblib", "pandas", "pyarrow", "safetensors", "pillow", "pypng"];
    let context = project(&format!(
        "[tools]\npython3 = {{ version = \"*\", from = \"host\" }}\n\n[python]\ndependencies = {packages:?}\n\n[steps.write]\nrun = \"python3 {{inputs.0}} {{outputs.0}}\"\ninputs = [\"write.py\"]\noutputs = [\"files/\"]\n"
    ));
    context.write("write.py", include_str!("write.py"));
    let run = |args: &[&str]| {
        let mut command = context.command(args);
        as_configured(&mut command);
        command.env("HOME", context.home());
        Ran::of(&mut command)
    };
    let locked = run(&["lock"]);
    if locked.code != Some(0) {
        skipped(&format!("no package index can be reached: {}", locked.stderr), true);
        return;
    }
    run(&["train"]).expect(0);
    assert_eq!(check(&context.project().join("files")), 27);
}

#[test]
fn torch_in_both_forms() {
    let python = "/usr/bin/python3";
    let is_there = Command::new(python).args(["-c", "import torch"]).output().is_ok_and(|ran| ran.status.success());
    if !is_there {
        skipped("torch can't be imported by /usr/bin/python3", true);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("tensors.py");
    fs_err::write(&script, include_str!("tensors.py")).unwrap();
    let wrote = Command::new(python).arg(&script).arg(folder.path()).output().unwrap();
    assert!(wrote.status.success(), "{}", String::from_utf8_lossy(&wrote.stderr));
    assert_eq!(check(folder.path()), 2);
}
