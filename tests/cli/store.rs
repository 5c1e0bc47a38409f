//! `store`: what it holds, damage, and what nobody uses.

use crate::{chain, context, counts, project};
use std::os::unix::fs::PermissionsExt;
use trainlock_testing::TestContext;

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn trained() -> TestContext {
    let context = context();
    chain(&context);
    context.run(["train"]).expect(0);
    context
}

#[test]
fn dir_and_size() {
    let context = trained();
    let dir = context.run(["store", "dir"]).expect(0).stdout;
    assert_eq!(dir.trim_end(), context.store().display().to_string());
    let size: serde_json::Value =
        serde_json::from_str(&context.run(["store", "size", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(size["results"]["count"], 3);
}

#[test]
fn damage_is_found_removed_and_made_good() {
    let context = trained();
    let object = files(&context.store().join("objects")).into_iter().next().unwrap();
    fs_err::set_permissions(&object, PermissionsExt::from_mode(0o644)).unwrap();
    fs_err::write(&object, "damaged").unwrap();
    let found = context.run(["store", "verify"]).expect(4);
    assert!(found.stderr.contains("damaged, removed: "), "{}", found.stderr);
    assert!(!object.exists());
    context.run(["store", "verify"]).expect(0);
    fs_err::remove_dir_all(context.project().join("build")).unwrap();
    context.run(["train"]).expect(0);
    assert_eq!(context.read("build/three"), "source");
}

#[test]
fn gc_keeps_what_a_known_project_uses() {
    let context = trained();
    context.write("source.txt", "other\n");
    context.run(["train"]).expect(0);
    let before = files(&context.store().join("objects")).len();
    let dry = context.run(["store", "gc", "--dry-run"]).expect(0);
    assert!(dry.stderr.contains("Would free"), "{}", dry.stderr);
    assert_eq!(files(&context.store().join("objects")).len(), before);
    context.run(["store", "gc"]).expect(0);
    assert!(files(&context.store().join("objects")).len() < before);
    fs_err::remove_dir_all(context.project().join("build")).unwrap();
    context.run(["train"]).expect(0);
    assert_eq!((context.read("build/three"), counts(&context)), ("other\n".into(), [2, 2, 2]));
    // A project that is gone uses nothing.
    fs_err::rename(context.project(), context.root().join("moved")).unwrap();
    fs_err::create_dir(context.project()).unwrap();
    context.run(["store", "gc"]).expect(0);
    assert!(files(&context.store().join("objects")).is_empty());
}

#[test]
fn a_folder_that_is_no_store_and_a_store_that_cannot_be_written() {
    let context = context();
    chain(&context);
    fs_err::create_dir(context.store()).unwrap();
    fs_err::write(context.store().join("letter.txt"), "dear").unwrap();
    let failed = context.run(["train"]).expect(1);
    assert!(failed.stderr.contains(&context.store().display().to_string()), "{}", failed.stderr);
    let mut command = context.command(["train"]);
    command.env("TRAINLOCK_STORE", "/proc/nothing/here");
    let failed = trainlock_testing::Ran::of(&mut command).expect(1);
    assert!(failed.stderr.contains("/proc/nothing/here"), "{}", failed.stderr);
}

/// Outputs that stand in the project serve the steps behind them, whatever became of the store.
#[test]
fn a_store_that_is_gone_costs_what_only_it_had() {
    let context = project(
        "[steps.one]\nrun = \"mkdir d && echo a > d/a && echo b > d/b && echo f > f\"\noutputs = [\"d/\", \"f\"]\n
[steps.two]\nrun = \"cat d/a d/b f > o\"\ninputs = [\"d/\", \"f\"]\noutputs = [\"o\"]\n
[steps.three]\nrun = \"cat d/b o > p\"\ninputs = [\"d/b\", \"o\"]\noutputs = [\"p\"]\n",
    );
    context.run(["train"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    for output in ["o", "p"] {
        fs_err::remove_file(context.project().join(output)).unwrap();
    }
    let ran = context.run(["train"]).expect(0);
    assert!(!ran.stderr.contains("Running one") && ran.stderr.contains("Running three"), "{}", ran.stderr);
    assert_eq!(context.read("p"), "b\na\nb\nf\n");
    context.run(["store", "verify"]).expect(0);
}
