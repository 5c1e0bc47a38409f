//! train.lock: the same bytes from the same facts, minimal changes, merges.

use crate::{chain, context, project, write_manifest};
use std::path::Path;
use std::process::Command;
use trainlock_testing::{FaultServer, Ran, TestContext};

fn git(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new("git");
    command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.org");
    }
    Ran::of(&mut command)
}

fn two_data_sets(server: &FaultServer) -> String {
    server.serve("/a.csv", "a,b\n1,2\n");
    server.serve("/b.csv", "b");
    format!(
        "[data]\nzeta = {{ url = \"{}\" }}\nalpha = {{ url = \"{}\" }}\nnotes = {{ path = \"notes\" }}\n",
        server.url("/a.csv"),
        server.url("/b.csv")
    )
}

#[test]
fn the_same_bytes_in_any_folder_home_user_and_locale() {
    let server = FaultServer::start();
    let manifest = two_data_sets(&server);
    let lock = |setting: fn(&mut Command)| {
        let context = project(&manifest);
        context.write("notes/2.txt", "two").write("notes/1.txt", "one").write("notes/ü/3", "");
        let mut command = context.command(["lock"]);
        setting(&mut command);
        Ran::of(&mut command).expect(0);
        let first = context.read("train.lock");
        let again = context.run(["lock"]).expect(0);
        assert_eq!(context.read("train.lock"), first);
        assert!(!again.stderr.contains("Locked"), "{}", again.stderr);
        context.run(["lock", "--check"]).expect(0);
        first
    };
    let first = lock(|_| {});
    let other = |c: &mut Command| {
        c.env("LC_ALL", "tr_TR.UTF-8").env("TZ", "Asia/Tokyo").env("USER", "other");
    };
    assert_eq!(lock(other), first);
    assert!(!first.contains("/tmp") && first.contains("[[data]]\nname = \"alpha\""), "{first}");
}

#[test]
fn a_lock_that_is_up_to_date_is_not_written_and_asks_nobody() {
    let server = FaultServer::start();
    let context = project(&two_data_sets(&server));
    context.write("notes", "n");
    context.run(["lock"]).expect(0);
    let written = || context.project().join("train.lock").metadata().unwrap().modified().unwrap();
    let (before, requests) = (written(), server.request_count());
    context.run(["lock"]).expect(0);
    assert_eq!((written(), server.request_count()), (before, requests));
}

#[test]
fn locked_and_check_write_nothing_and_say_what_is_stale() {
    let context = context();
    chain(&context);
    for args in [&["train", "--locked"][..], &["lock", "--check"], &["fetch", "--frozen"]] {
        let failed = context.run(args).expect(3);
        assert!(failed.stderr.contains("train.lock"), "{}", failed.stderr);
        assert!(!context.has("train.lock"));
    }
    context.run(["lock"]).expect(0);
    context.run(["train", "--locked"]).expect(0);
    context.write("train.toml", context.read("train.toml").replace("lr = 0.1", "lr = 0.2"));
    let before = context.read("train.lock");
    let failed = context.run(["train", "--frozen"]).expect(3);
    assert!(
        failed.stderr.contains("lr") && failed.stderr.contains("0.1") && failed.stderr.contains("0.2"),
        "{}",
        failed.stderr
    );
    assert_eq!(context.read("train.lock"), before);
    // Without --locked it is brought up to date, and that is said.
    let trained = context.run(["train"]).expect(0);
    assert!(trained.stderr.contains("lr"), "{}", trained.stderr);
}

#[test]
fn repository_data_that_changed_makes_the_lock_stale() {
    let context = project(
        "[data]\nnotes = { path = \"notes\" }\n[steps.s]\nrun = \"cat notes/* >all\"\ninputs = [\"notes/\"]\noutputs = [\"all\"]\n",
    );
    context.write("notes/a", "1").write("notes/b", "2");
    context.run(["train"]).expect(0);
    assert_eq!(context.read("all"), "12");
    context.write("notes/b", "3");
    let failed = context.run(["train", "--locked"]).expect(3);
    assert!(failed.stderr.contains("notes"), "{}", failed.stderr);
    context.run(["train"]).expect(0);
    assert_eq!(context.read("all"), "13");
}

#[test]
fn branches_that_each_add_data_merge_and_a_conflict_is_healed() {
    let server = FaultServer::start();
    for name in ["base", "left", "right", "side"] {
        server.serve(&format!("/{name}"), name);
    }
    let entry = |name: &str| format!("[data.{name}]\nurl = \"{}\"\n\n", server.url(&format!("/{name}")));
    let context = context();
    context.run(["init", "--name", "t"]).expect(0);
    let folder = context.project();
    let manifest = |entries: &[&str]| write_manifest(&context, &entries.iter().map(|e| entry(e)).collect::<String>());
    let commit = |message: &str| {
        context.run(["lock"]).expect(0);
        git(&folder, &["add", "-A"]).expect(0);
        git(&folder, &["commit", "-qm", message]).expect(0);
    };
    git(&folder, &["init", "-q", "-b", "main"]).expect(0);
    manifest(&["base"]);
    commit("base");
    git(&folder, &["checkout", "-qb", "left"]).expect(0);
    manifest(&["left", "base"]);
    commit("left");
    git(&folder, &["checkout", "-q", "main"]).expect(0);
    manifest(&["base", "right"]);
    commit("right");
    git(&folder, &["merge", "-q", "left", "-m", "merge"]).expect(0);
    // Git has put both in, without a conflict; where they met, `lock` sorts them apart.
    context.run(["lock"]).expect(0);
    context.run(["lock", "--check"]).expect(0);
    let merged = context.read("train.lock");
    for name in ["base", "left", "right"] {
        assert!(merged.contains(&format!("name = \"{name}\"")), "{merged}");
    }

    // The same place on both sides: git leaves markers where its attributes do not say `union`.
    let (ours, theirs) = (entry("side"), entry("left"));
    let conflicted = |ours: &str, theirs: &str| format!("<<<<<<< HEAD\n{ours}=======\n{theirs}>>>>>>> left\n");
    let block = |name: &str| {
        let start = merged.find(&format!("[[data]]\nname = \"{name}\"")).unwrap();
        let end = merged[start + 1..].find("\n[").map_or(merged.len(), |i| start + 1 + i + 1);
        merged[start..end].to_owned()
    };
    let markers = merged.replace(&block("left"), &conflicted(&block("right").replace("right", "side"), &block("left")));
    manifest(&["base", "left", "right", "side"]);
    assert!(ours != theirs);
    context.write("train.lock", &markers);
    let failed = context.run(["train", "--locked"]);
    assert!(failed.code != Some(0) && failed.stderr.contains("trainlock lock"), "{}", failed.stderr);
    context.run(["lock"]).expect(0);
    let healed = context.read("train.lock");
    assert!(
        !healed.contains("<<<<") && healed.contains("name = \"side\"") && healed.contains(&block("left")),
        "{healed}"
    );
    context.run(["lock", "--check"]).expect(0);
}

#[test]
fn an_entry_that_a_merge_has_not_left_whole_is_locked_anew_and_that_is_said() {
    let server = FaultServer::start();
    let context = project(&two_data_sets(&server));
    context.write("notes", "n");
    context.run(["lock"]).expect(0);
    let whole = context.read("train.lock");
    // What git's union makes of two new entries in one place that share a line: the one loses it.
    let start = whole.find("[[data]]\nname = \"zeta\"").unwrap();
    let (before, zeta) = whole.split_at(start);
    let size = zeta.lines().find(|l| l.starts_with("size = ")).unwrap();
    context
        .write("train.lock", format!("{before}{}", zeta.replacen(&format!("{size}\n\n"), "name = \"other\"\n\n", 1)));
    context.run(["train", "--locked"]).expect(2);
    let healed = context.run(["lock"]).expect(0);
    for words in ["Healed", "lost lines of", "data zeta: added"] {
        assert!(healed.stderr.contains(words), "{words}\n{}", healed.stderr);
    }
    assert_eq!(context.read("train.lock"), whole);
}

#[test]
fn a_newer_lock_is_refused_and_kept() {
    let context = context();
    chain(&context);
    context.write("train.lock", "version = 9\n");
    for args in [["train", "-q"], ["lock", "-q"], ["status", "-q"]] {
        let failed = context.run(args);
        assert!(failed.code != Some(0) && failed.stderr.contains("version 9"), "{}", failed.stderr);
    }
    assert_eq!(context.read("train.lock"), "version = 9\n");
}

#[test]
fn unknown_keys_survive_and_damage_is_placed() {
    let context = context();
    chain(&context);
    context.run(["lock"]).expect(0);
    let text = context.read("train.lock").replace("version = 1\n", "version = 1\nfuture = \"kept\"\n");
    context.write("train.lock", &text);
    context.write("train.toml", context.read("train.toml").replace("lr = 0.1", "lr = 0.3"));
    context.run(["lock"]).expect(0);
    let now = context.read("train.lock");
    assert!(now.contains("future = \"kept\"") && now.contains("0.3"), "{now}");
    context.write("train.lock", now.replace("version = 1\n", "version = 1\nbroken = \n"));
    let failed = context.run(["train"]);
    assert!(failed.code != Some(0) && failed.stderr.contains("train.lock:"), "{}", failed.stderr);
}

#[test]
fn update_moves_only_what_is_named() {
    let server = FaultServer::start();
    let context: TestContext = project(&two_data_sets(&server));
    context.write("notes", "n");
    context.run(["lock"]).expect(0);
    let before = context.read("train.lock");
    server.serve("/a.csv", "new");
    server.serve("/b.csv", "new too");
    context.run(["lock"]).expect(0);
    assert_eq!(context.read("train.lock"), before);
    let updated = context.run(["update", "zeta"]).expect(0);
    assert!(updated.stderr.contains("zeta"), "{}", updated.stderr);
    let block = |text: &str, name: &str| {
        text.split("\n\n").find(|b| b.contains(&format!("name = \"{name}\""))).map(str::to_owned)
    };
    let after = context.read("train.lock");
    assert_eq!(block(&after, "alpha"), block(&before, "alpha"));
    assert_ne!(block(&after, "zeta"), block(&before, "zeta"));
    let failed = context.run(["update", "zetta"]).expect(2);
    assert!(failed.stderr.contains("zetta"), "{}", failed.stderr);
}
