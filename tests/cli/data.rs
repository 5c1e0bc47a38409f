//! Data: fetched, verified, unpacked, placed; and what happens when upstream changes.

use crate::{count, project, write_manifest};
use trainlock_testing::{Fault, FaultServer, Ran, TestContext, write_program};

fn one(server: &FaultServer, more: &str) -> TestContext {
    let context = project("");
    write_manifest(
        &context,
        &format!(
            "[data]\nraw = {{ url = \"{}\"{more} }}\n[steps.s]\nrun = \"cp {{data.raw}} out\"\ninputs = [\"data/raw.csv\"]\noutputs = [\"out\"]\n",
            server.url("/raw.csv")
        ),
    );
    context
}

#[test]
fn locked_once_fetched_once_and_offline_afterwards() {
    let server = FaultServer::start();
    server.serve("/raw.csv", "1,2,3\n");
    let context = one(&server, "");
    context.run(["lock"]).expect(0);
    context.run(["train"]).expect(0);
    assert_eq!(server.requests("/raw.csv").len(), 1, "train right after lock downloads nothing");
    assert_eq!(context.read("out"), "1,2,3\n");
    context.run(["fetch", "--frozen"]).expect(0);
    assert_eq!(server.requests("/raw.csv").len(), 1);
    // A teammate: the same lock, an empty store.
    fs_err::remove_dir_all(context.store()).unwrap();
    let failed = context.run(["fetch", "--frozen"]);
    assert!(
        failed.code == Some(1) && failed.stderr.contains("raw") && failed.stderr.contains("network is off"),
        "{}",
        failed.stderr
    );
    context.run(["fetch", "--locked"]).expect(0);
    assert_eq!(server.requests("/raw.csv").len(), 2);
}

#[test]
fn each_is_linked_as_soon_as_it_is_there() {
    let server = FaultServer::start();
    let large = vec![b'x'; 2 << 20];
    server.serve("/small", "1,2,3\n");
    server.serve("/large", large.clone());
    server.serve("/last", "last\n");
    let context = project("");
    let line =
        |name: &str| format!("{name} = {{ url = \"{}\", to = \"in/{name}\" }}\n", server.url(&format!("/{name}")));
    write_manifest(&context, &format!("[data]\n{}", ["small", "large", "last"].map(line).concat()));
    context.run(["lock"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    server.script("/last", "last\n", [Fault::Status(404), Fault::Ok]);
    context.write("in/small", "in the way");
    // Nothing here needs a package index, and pip knows one only after a while.
    let bin = context.project().join("bin");
    fs_err::create_dir(&bin).unwrap();
    write_program(&bin.join("python3"), "#!/bin/sh\necho asked >>$(dirname $0)/asked\nexit 1\n");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let fetch = || Ran::of(context.command(["fetch", "--locked", "--link"]).env("PATH", &path));
    let failed = fetch().expect(1);
    assert!(failed.stderr.contains("`last`") && failed.stderr.contains("404"), "{}", failed.stderr);
    assert_eq!((context.read("in/small"), context.read_bytes("in/large") == large), ("1,2,3\n".into(), true));
    assert!(!context.has("in/last") && !context.has("bin/asked"));
    fetch().expect(0);
    assert_eq!(context.read("in/last"), "last\n");
    assert_eq!(walk(&context.project().join("in")).len(), 3);
    assert_eq!((server.requests("/small").len(), server.requests("/large").len()), (2, 2));
    // What a user did to it is undone.
    fs_err::remove_file(context.project().join("in/small")).unwrap();
    let done = fetch().expect(0);
    assert!(done.stderr.contains("Linked 3 data sets"), "{}", done.stderr);
    assert_eq!(context.read("in/small"), "1,2,3\n");
}

#[test]
fn one_byte_changed_upstream() {
    let server = FaultServer::start();
    server.serve("/raw.csv", "1,2,3\n");
    let context = one(&server, "");
    context.run(["lock"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    server.serve("/raw.csv", "1,2,4\n");
    let failed = context.run(["train", "--config", "fetch.retries=0"]).expect(4);
    let (expected, found) = (trainlock_types::Digest::of(b"1,2,3\n"), trainlock_types::Digest::of(b"1,2,4\n"));
    for words in ["`raw`", &expected.to_hex(), &found.to_hex()] {
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
    assert_eq!((count(&context, "s"), context.has("out")), (0, false));
    let objects = context.store().join("objects");
    let names: Vec<_> = walk(&objects);
    assert!(!names.iter().any(|n| n.replace('/', "").ends_with(&found.to_hex()[2..])), "{names:?}");
    context.run(["store", "verify"]).expect(0);
    // What is meant is said by `update`.
    context.run(["update", "raw"]).expect(0);
    context.run(["train"]).expect(0);
    assert_eq!(context.read("out"), "1,2,4\n");
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            names.extend(walk(&entry.path()));
        } else {
            names.push(entry.path().to_string_lossy().into_owned());
        }
    }
    names
}

#[test]
fn the_publishers_checksum_is_checked_while_locking() {
    let server = FaultServer::start();
    server.serve("/raw.csv", "hello\n");
    for (checksum, code) in [
        ("md5:b1946ac92492d2347c6235b4d2611184", 0),
        ("sha1:f572d396fae9206628714fb2ce00f72e94f2258f", 0),
        ("md5:00000000000000000000000000000000", 4),
        ("sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", 0),
    ] {
        let context = one(&server, &format!(", checksum = \"{checksum}\""));
        let ran = context.run(["lock"]).expect(code);
        assert_eq!(context.has("train.lock"), code == 0);
        assert!(code == 0 || ran.stderr.contains("b1946ac92492d2347c6235b4d2611184"), "{}", ran.stderr);
    }
    // A SHA-256 and the size: nothing is asked of the server, which is checked when it is fetched.
    let requests = server.request_count();
    let stated = ", checksum = \"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\", size = 6";
    let context = one(&server, stated);
    context.run(["lock", "--offline"]).expect(0);
    assert_eq!(server.request_count(), requests);
    context.run(["train"]).expect(0);
    let wrong = one(&server, &stated.replace("5891", "5892"));
    wrong.run(["lock", "--offline"]).expect(0);
    wrong.run(["train"]).expect(4);
}

#[test]
fn a_mirror_serves_when_the_first_is_dead_and_when_it_lies() {
    let server = FaultServer::start();
    server.serve("/good.csv", "data");
    let dead = trainlock_testing::refusing_url("/raw.csv");
    let manifest = format!("[data.raw]\nurl = \"{dead}\"\nmirrors = [\"{}\"]\n", server.url("/good.csv"));
    let context = project(&manifest);
    context.run(["fetch", "--config", "fetch.retries=0", "--link"]).expect(0);
    assert_eq!(context.read("data/raw.csv"), "data");
    // One that does not have it, or does not give it, is asked once; then the next.
    let first = FaultServer::start();
    for fault in [Fault::Status(404), Fault::Status(410), Fault::Status(403), Fault::Html] {
        first.script("/raw.csv", "data", [fault.clone(), Fault::Ok]);
        let (first_url, other) = (first.url("/raw.csv"), server.url("/good.csv"));
        let context = project(&format!("[data.raw]\nurl = \"{first_url}\"\nmirrors = [\"{other}\"]\n"));
        let before = server.requests("/good.csv").len();
        context.run(["lock"]).expect(0);
        assert_eq!(
            (first.requests("/raw.csv").len(), server.requests("/good.csv").len() - before),
            (1, 1),
            "{fault:?}"
        );
        // The same while a locked file is fetched.
        fs_err::remove_dir_all(context.store()).unwrap();
        first.script("/raw.csv", "data", [fault.clone(), Fault::Ok]);
        context.run(["fetch", "--locked", "--link"]).expect(0);
        assert_eq!(
            (first.requests("/raw.csv").len(), context.read("data/raw.csv")),
            (1, "data".to_owned()),
            "{fault:?}"
        );
        // Without a mirror it is an error at once.
        first.script("/raw.csv", "data", [fault, Fault::Ok]);
        let alone = project(&format!("[data.raw]\nurl = \"{first_url}\"\n"));
        alone.run(["lock"]).expect(1);
        assert_eq!(first.requests("/raw.csv").len(), 1);
    }
}

#[test]
fn a_dead_server_fails_with_the_reason_and_nothing_half_done() {
    let context = project(&format!("[data.raw]\nurl = \"{}\"\n", trainlock_testing::refusing_url("/x.csv")));
    let failed = context.run(["lock", "--config", "fetch.retries=1"]).expect(1);
    assert!(failed.stderr.contains("`raw`") && failed.stderr.contains("/x.csv"), "{}", failed.stderr);
    assert!(!context.has("train.lock"));
    let server = FaultServer::start();
    server.script("/x.csv", "x", [Fault::Status(404)]);
    let context = project(&format!("[data.raw]\nurl = \"{}\"\n", server.url("/x.csv")));
    let failed = context.run(["lock"]).expect(1);
    assert!(failed.stderr.contains("404"), "{}", failed.stderr);
}

#[test]
fn files_of_the_machine_archives_and_members() {
    let context = project("");
    let folder = context.root().join("up stream");
    fs_err::create_dir_all(folder.join("a/b")).unwrap();
    fs_err::write(folder.join("a/one.txt"), "1").unwrap();
    fs_err::write(folder.join("a/b/two.txt"), "2").unwrap();
    let tar =
        std::process::Command::new("tar").args(["-czf", "all.tar.gz", "a"]).current_dir(&folder).status().unwrap();
    assert!(tar.success());
    let url = format!("file://{}", folder.join("all.tar.gz").display().to_string().replace(' ', "%20"));
    write_manifest(
        &context,
        &format!(
            "[data]\nall = {{ url = \"{url}\", unpack = true }}\nmember = {{ url = \"{url}\", extract = \"a/b/two.txt\" }}\n\
             [steps.s]\nrun = \"cat {{data.all}}/a/one.txt {{data.member}} >out; test ! -e data/all/none\"\n\
             inputs = [\"data/all/\", \"data/two.txt\"]\noutputs = [\"out\"]\n"
        ),
    );
    context.run(["train"]).expect(0);
    assert_eq!(context.read("out"), "12");
    let lock = context.read("train.lock");
    for words in ["tree = ", "count = 2", "archive-sha256 = ", "extract = \"a/b/two.txt\"", "1 a/one.txt"] {
        assert!(lock.contains(words), "{words}\n{lock}");
    }
    // With an empty store all is brought again, and put into the project's folder.
    fs_err::remove_dir_all(context.store()).unwrap();
    context.run(["fetch", "--locked", "--link"]).expect(0);
    assert_eq!((context.read("data/all/a/b/two.txt"), context.read("data/two.txt")), ("2".into(), "2".into()));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &context.project().join("data/two.txt").metadata().unwrap().permissions(),
    );
    assert_eq!(mode & 0o222, 0, "read-only");
    let gone = context.run(["lock", "--config", "fetch.retries=0"]);
    assert_eq!(gone.code, Some(0));
    write_manifest(&context, &format!("[data]\nmember = {{ url = \"{url}\", extract = \"a/b/tow.txt\" }}\n"));
    let failed = context.run(["lock"]).expect(1);
    assert!(failed.stderr.contains("a/b/two.txt"), "{}", failed.stderr);
}

#[test]
fn a_folder_of_the_repository_with_links_programs_and_many_files() {
    let context = project(
        "[data]\nset = { path = \"set\" }\n[steps.s]\nrun = \"cat set/link >out; set/tool >>out; ls set/many | wc -l >>out\"\ninputs = [\"set/\"]\noutputs = [\"out\"]\n",
    );
    for i in 0..300 {
        context.write(&format!("set/many/{i}"), i.to_string());
    }
    context.write("set/real", "linked\n");
    write_program(&context.project().join("set/tool"), "#!/bin/sh\necho ran\n");
    fs_err::os::unix::fs::symlink("real", context.project().join("set/link")).unwrap();
    context.run(["train"]).expect(0);
    assert_eq!(context.read("out"), "linked\nran\n300\n");
    // So many files are not listed in the lock: they are listed anew from the repository.
    let lock = context.read("train.lock");
    assert!(lock.contains("count = 303") && !lock.contains("listing = ["), "{lock}");
    context.write("set/many/7", "seven");
    let stale = context.run(["status"]).expect(0);
    assert!(stale.stderr.contains("data set"), "{}", stale.stderr);
    // A link that leads out of the folder would be something else on another machine.
    fs_err::os::unix::fs::symlink("/etc/passwd", context.project().join("set/out")).unwrap();
    let failed = context.run(["lock"]).expect(1);
    assert!(failed.stderr.contains("set/out"), "{}", failed.stderr);
}

#[test]
fn no_faster_than_allowed() {
    let server = FaultServer::start();
    let body = vec![7u8; 3 << 20];
    server.serve("/raw.csv", body.clone());
    let context = one(&server, &format!(", checksum = \"sha256:{}\"", trainlock_types::Digest::of(&body)));
    let began = std::time::Instant::now();
    context.run(["lock", "--limit-rate", "2M"]).expect(0);
    let time = began.elapsed().as_secs_f64();
    assert!(time >= 1.4, "3 MiB came in {time} s at 2 MiB/s");
    let wrong = context.run(["fetch", "--limit-rate", "fast"]).expect(2);
    assert!(wrong.stderr.contains("500K"), "{}", wrong.stderr);
}
