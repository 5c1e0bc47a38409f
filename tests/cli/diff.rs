//! What changed between two locks of a repository.

use crate::{context, project, write_manifest};
use std::process::Command;
use trainlock_testing::TestContext;

/// git in the project's folder, with nobody's configuration.
fn git(context: &TestContext, args: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(args);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.current_dir(context.project()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository whose commits `v1` and `v2` lock other data and params, and whose working tree is as `v2`.
fn repository() -> TestContext {
    let context = project("[data]\nnotes = { path = \"notes\" }\n\n[params]\nlr = 0.1\n");
    context.write("notes/a.txt", "a\n").write("notes/b.txt", "b\n");
    git(&context, &["init", "-q"]);
    for (tag, lr) in [("v1", "0.1"), ("v2", "0.2")] {
        write_manifest(&context, &format!("[data]\nnotes = {{ path = \"notes\" }}\n\n[params]\nlr = {lr}\n"));
        context.run(["lock"]).expect(0);
        git(&context, &["add", "."]);
        git(&context, &["commit", "-qm", tag]);
        git(&context, &["tag", tag]);
        context.write("notes/b.txt", "b again\n").write("notes/c.txt", "c\n");
    }
    git(&context, &["checkout", "-q", "."]);
    fs_err::remove_file(context.project().join("notes/c.txt")).ok();
    git(&context, &["checkout", "-q", "."]);
    context
}

#[test]
fn two_revisions_one_and_none() {
    let context = repository();
    let both = context.run(["diff", "v1", "v2"]).expect(0).stdout;
    let lines: Vec<&str> = both.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("        Data notes  content changed: "), "{both}");
    assert!(lines[0].ends_with(", 1 file added, 1 changed"), "{both}");
    assert_eq!(lines[1..3], ["                      added c.txt", "                      changed b.txt"]);
    assert_eq!(lines[3..], ["      Params t lr  0.1 -> 0.2"]);
    let back = context.run(["diff", "v2", "v1"]).expect(0).stdout;
    assert!(back.contains("1 file removed, 1 changed") && back.contains("0.2 -> 0.1"), "{back}");
    // The working tree is as the last commit.
    assert_eq!(context.run(["diff"]).expect(0).stdout, "");
    assert_eq!(context.run(["diff", "v1"]).expect(0).stdout, both);
    write_manifest(&context, "[params]\nlr = 0.3\n");
    context.run(["lock"]).expect(0);
    let now = context.run(["diff"]).expect(0).stdout;
    assert!(now.contains("Data notes  removed") && now.contains("t lr  0.2 -> 0.3"), "{now}");
    // From below the root, too, and by other names of a commit.
    fs_err::create_dir_all(context.project().join("below")).unwrap();
    assert_eq!(context.run(["-C", "below", "diff", "HEAD~0"]).expect(0).stdout, now);
}

#[test]
fn python_packages() {
    let context = project("");
    git(&context, &["init", "-q"]);
    let lock = include_str!("../../fixtures/locks/v1/packages.lock");
    context.write("train.lock", lock);
    git(&context, &["add", "."]);
    git(&context, &["commit", "-qm", "packages"]);
    context.write(
        "train.lock",
        lock.replace("version = \"2.4.6\"\nmarker", "version = \"2.4.5\"\nmarker")
            .replace("torch pytorch-cpu", "torch own"),
    );
    let words = context.run(["diff"]).expect(0).stdout;
    let lines: Vec<&str> = words.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 2, "{words}");
    assert!(lines[0].starts_with("Python") && lines[0].ends_with("index: torch pytorch-cpu -> torch own"), "{words}");
    assert!(lines[1].starts_with("Packages numpy (profile locked)") && lines[1].ends_with("2.4.6 -> 2.4.5"), "{words}");
}

#[test]
fn for_programs() {
    let context = repository();
    context.run(["diff", "--exit-code"]).expect(0);
    let json = context.run(["diff", "v1", "v2", "--json", "--exit-code"]).expect(1).stdout;
    let facts: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&facts[0]["kind"], &facts[0]["name"]), (&"data".into(), &"notes".into()));
    assert_eq!(facts[0]["changes"][0]["files"]["added"], serde_json::json!(["c.txt"]));
    let change = &facts[1]["changes"][0];
    assert_eq!((&change["what"], &change["old"], &change["new"]), (&"value".into(), &"0.1".into(), &"0.2".into()));
}

#[test]
fn a_project_below_the_top_of_its_repository() {
    let context = context();
    context.write("sub/train.toml", "[project]\nname = \"t\"\nversion = \"0.1.0\"\n[params]\nlr = 1\n");
    context.write("train.lock", "not this one\n");
    context.run(["-C", "sub", "lock"]).expect(0);
    git(&context, &["init", "-q"]);
    git(&context, &["add", "."]);
    git(&context, &["commit", "-qm", "all"]);
    context.write("sub/train.toml", "[project]\nname = \"t\"\nversion = \"0.1.0\"\n[params]\nlr = 2\n");
    context.run(["-C", "sub", "lock"]).expect(0);
    assert!(context.run(["-C", "sub", "diff"]).expect(0).stdout.contains("1 -> 2"));
    assert!(context.run(["--manifest-path", "sub/train.toml", "diff"]).expect(0).stdout.contains("1 -> 2"));
}

#[test]
fn what_can_not_be_compared() {
    let context = project("");
    let words = context.run(["diff"]).expect(2).stderr;
    assert!(words.contains("is in no git repository"), "{words}");
    git(&context, &["init", "-q"]);
    assert!(context.run(["diff"]).expect(2).stderr.contains("no commit yet"));
    git(&context, &["add", "."]);
    git(&context, &["commit", "-qm", "no lock"]);
    assert!(context.run(["diff"]).expect(3).stderr.contains("there is no train.lock at `HEAD`"));
    context.write("train.lock", "version = 2\n");
    git(&context, &["add", "."]);
    git(&context, &["commit", "-qm", "a newer one"]);
    let words = context.run(["diff", "HEAD", "HEAD"]).expect(2).stderr;
    assert!(words.contains("HEAD:train.lock has version 2 of the format"), "{words}");
    context.write("train.lock", "version = 1\n[[data]]\n");
    git(&context, &["commit", "-qam", "damaged"]);
    assert!(context.run(["diff", "HEAD", "HEAD"]).expect(2).stderr.contains("HEAD:train.lock:2:1"));
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    fs_err::os::unix::fs::symlink("train.toml", context.project().join("train.lock")).unwrap();
    git(&context, &["commit", "-qam", "a link"]);
    assert!(context.run(["diff", "HEAD", "HEAD"]).expect(2).stderr.contains("is no file at `HEAD`"));
    for odd in ["nope", "--output=x", "HEAD:train.toml", "v1..v2", ""] {
        let words = context.run(["diff", "--", odd]).expect(2).stderr;
        assert!(words.contains("git knows no revision"), "{odd}: {words}");
    }
    assert!(!context.has("x"));
    context.run(["diff", "a", "b", "c"]).expect(2);
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    context.run(["lock"]).expect(0);
    git(&context, &["add", "."]);
    git(&context, &["commit", "-qm", "a lock"]);
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    assert!(context.run(["diff"]).expect(3).stderr.contains("there is no train.lock"));
}
