//! Branches and locks, with git.

use crate::{have, project, write_manifest};
use std::process::Command;
use trainlock_testing::{Ran, TestContext};

fn git(context: &TestContext, args: &[&str]) -> Ran {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]);
    command.args(args).current_dir(context.project());
    Ran::of(command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1"))
}

/// A repository whose lock has these data sets, on a branch of this name.
fn branch(context: &TestContext, name: &str, data: &[&str]) {
    let entries = data.iter().map(|name| {
        context.write(&format!("files/{name}"), format!("the content of {name}\n"));
        format!("[data.{name}]\nurl = \"file://{}/files/{name}\"\n\n", context.project().display())
    });
    write_manifest(context, &entries.collect::<String>());
    context.run(["lock"]).expect(0);
    git(context, &["checkout", "-q", "-B", name]).expect(0);
    git(context, &["add", "-A"]).expect(0);
    git(context, &["commit", "-qm", name]).expect(0);
}

/// What both branches added is in the lock, which `lock` at most sorts.
fn check(context: &TestContext) {
    let merged = context.read("train.lock");
    assert!(!merged.contains("<<<<"), "{merged}");
    for name in ["alpha", "base", "beta", "zeta"] {
        assert_eq!(merged.matches(&format!("name = \"{name}\"")).count(), 1, "{merged}");
    }
    context.run(["lock"]).expect(0);
    context.run(["fetch", "--locked"]).expect(0);
    context.run(["lock", "--check"]).expect(0);
}

#[test]
fn two_branches_merged_and_rebased() {
    if !have(&["git"]) {
        return;
    }
    // At places far from each other, git needs no help; side by side, it has that of `.gitattributes`.
    for (attributes, left, right) in [
        (false, &["alpha", "base", "beta"][..], &["base", "beta", "zeta"][..]),
        (true, &["alpha", "base", "beta"], &["base", "beta", "zeta"]),
        (true, &["base", "beta", "alpha"], &["base", "beta", "zeta"]),
    ] {
        for rebase in [false, true] {
            let context = project("");
            git(&context, &["init", "-q"]).expect(0);
            if attributes {
                fs_err::remove_file(context.project().join("train.toml")).unwrap();
                context.run(["init", "--name", "t"]).expect(0);
                assert!(context.has(".gitattributes"));
            }
            branch(&context, "main", &["base", "beta"]);
            branch(&context, "left", left);
            git(&context, &["checkout", "-q", "main"]).expect(0);
            branch(&context, "right", right);
            // Manifests are people's: their conflicts are not what is tested here.
            let option = if rebase { "rebase" } else { "merge" };
            let ran = git(&context, &[option, "-q", "-X", "ours", "left"]);
            let manifest: String = ["alpha", "base", "beta", "zeta"]
                .map(|n| format!("[data.{n}]\nurl = \"file://{}/files/{n}\"\n\n", context.project().display()))
                .concat();
            assert_eq!(ran.code, Some(0), "{attributes} {option}: {}{}", ran.stdout, ran.stderr);
            write_manifest(&context, &manifest);
            check(&context);
        }
    }
}
