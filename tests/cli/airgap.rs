//! Inputs on machines without a network: vendored folders and bundles.

use crate::project;
use std::io::Write as _;
use std::path::Path;
use trainlock_testing::{FaultServer, Ran, TestContext};

/// A project with a file and an unpacked archive (with a program, a link and a name of its own) from a server.
fn with_inputs(server: &FaultServer) -> TestContext {
    server.serve("/one.csv", "one\n");
    server.serve(
        "/set.tar",
        tar(&[("set/ä b.txt", "x", 0o644), ("set/tool", "#!/bin/sh\necho ran\n", 0o755), ("set/link", "", 0)]),
    );
    let context = project(&format!(
        "[data]\none = {{ url = \"{}\" }}\nset = {{ url = \"{}\", unpack = true }}\n[steps.s]\nrun = \"cat data/one.csv src/word 'data/set/set/ä b.txt' data/set/set/link > out; data/set/set/tool >> out\"\ninputs = [\"src/word\", \"data/one.csv\", \"data/set/\"]\noutputs = [\"out\"]\n",
        server.url("/one.csv"),
        server.url("/set.tar")
    ));
    context.write("src/word", "word\n").write("ignored.txt", "no").write(".gitignore", "ignored.txt\n");
    context
}

fn tar(members: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text, mode) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        if *mode == 0 {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, "ä b.txt").unwrap();
        } else {
            header.set_mode(*mode);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

const OUT: &str = "one\nword\nxxran\n";

#[test]
fn a_vendored_folder_is_a_source() {
    let server = FaultServer::start();
    let context = with_inputs(&server);
    let folder = context.root().join("a stick/inputs");
    let dir = folder.to_str().unwrap();
    context.run(["vendor", dir]).expect(0);
    let asked = server.request_count();
    fs_err::remove_dir_all(context.store()).unwrap();
    context.run(["fetch", "--from", dir, "--frozen"]).expect(0);
    context.run(["train", "--frozen"]).expect(0);
    assert_eq!(context.read("out"), OUT);
    // The same again changes nothing; a damaged file is refused, a missing one is named.
    context.run(["vendor", dir, "--frozen"]).expect(0);
    let digest = trainlock_types::Digest::of(b"one\n").to_hex();
    let file = folder.join(&digest[..2]).join(&digest);
    fs_err::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"x").unwrap();
    fs_err::remove_dir_all(context.store()).unwrap();
    let failed = context.run(["fetch", "--from", dir, "--frozen"]).expect(4);
    assert!(failed.stderr.contains("data one") && failed.stderr.contains(&digest), "{}", failed.stderr);
    fs_err::remove_file(&file).unwrap();
    let failed = context.run(["fetch", "--from", dir, "--frozen"]).expect(1);
    assert!(failed.stderr.contains("data one is not there"), "{}", failed.stderr);
    assert_eq!(server.request_count(), asked, "nothing asked the network");
}

/// Opens a bundle with an empty store and home, in a folder beside the project.
fn open(context: &TestContext, bundle: &Path, into: &str) -> Ran {
    let mut command = context.command(["train", "--into", into, "--bundle"]);
    command.arg(bundle).current_dir(context.root()).env("TRAINLOCK_STORE", context.root().join("other store"));
    Ran::of(&mut command)
}

#[test]
fn a_bundle_holds_all() {
    let server = FaultServer::start();
    let context = with_inputs(&server);
    let (first, second) = (context.root().join("1.tar"), context.root().join("2.tar"));
    context.run(["bundle", first.to_str().unwrap()]).expect(0);
    context.run(["train"]).expect(0);
    context.run(["bundle", second.to_str().unwrap()]).expect(0);
    assert_eq!(fs_err::read(&first).unwrap(), fs_err::read(&second).unwrap(), "the same inputs, the same bytes");
    let asked = server.request_count();
    open(&context, &first, "opened").expect(0);
    let opened = context.root().join("opened");
    assert_eq!(fs_err::read_to_string(opened.join("out")).unwrap(), OUT);
    assert!(!opened.join("ignored.txt").exists());
    assert_eq!(server.request_count(), asked);
    let again = open(&context, &first, "opened").expect(2);
    assert!(again.stderr.contains("not there yet"), "{}", again.stderr);
    // For the project itself it is a source of inputs too.
    fs_err::remove_dir_all(context.store()).unwrap();
    context.run(["fetch", "--frozen", "--from", first.to_str().unwrap()]).expect(0);
    context.run(["store", "verify"]).expect(0);
}

#[test]
fn hostile_bundles() {
    let server = FaultServer::start();
    let context = with_inputs(&server);
    let good = context.root().join("good.tar");
    context.run(["bundle", good.to_str().unwrap()]).expect(0);
    let outside = context.root().join("outside");
    let hex = trainlock_types::Digest::of(b"right").to_hex();
    let link = |name: &str, to: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, to).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        tar.append_data(&mut header, format!("{name}/x"), &b"x"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    let raw = |name: &str| {
        let mut tar = tar(&[("project/abcdefghijklmn", "x", 0o644)]);
        let name = name.as_bytes();
        tar[..100].fill(0);
        tar[..name.len()].copy_from_slice(name);
        let sum: u32 =
            tar[..512].iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar
    };
    let mut cut = fs_err::read(&good).unwrap();
    cut.truncate(cut.len() * 2 / 3);
    let bundles = [
        ("wrong bytes", tar(&[(&format!("inputs/{hex}"), "wrong", 0o644)])),
        ("no digest", tar(&[("inputs/x", "x", 0o644)])),
        ("another part", tar(&[("elsewhere/x", "x", 0o644)])),
        ("up", raw("project/../../outside")),
        ("absolute", raw("/tmp/outside-of-a-bundle")),
        ("a link out", link("project/link", outside.to_str().unwrap())),
        ("a link up", link("project/link", "../../outside")),
        ("nothing", Vec::new()),
        ("no archive", b"<html>not a bundle</html>".repeat(100)),
        ("cut off", cut),
    ];
    for (i, (what, bytes)) in bundles.into_iter().enumerate() {
        let file = context.root().join(format!("{i}.tar"));
        fs_err::write(&file, bytes).unwrap();
        let ran = open(&context, &file, &format!("into-{i}"));
        assert!(matches!(ran.code, Some(1 | 2 | 4)), "{what}: {ran:?}");
        assert!(!outside.exists() && !Path::new("/tmp/outside-of-a-bundle").exists(), "{what}");
    }
}

#[test]
fn what_the_store_lacks_is_told_at_once() {
    let server = FaultServer::start();
    server.serve("/one.csv", "one\n");
    server.serve("/two.csv", vec![b'2'; 2048]);
    server.serve("/tool", "#!/bin/sh\necho tool\n");
    crate::images::serve(&server, "1", &[tar(&[("etc/issue", "x", 0o644)])]);
    let platform = trainlock_types::Platform::host();
    let digest = |bytes: &[u8]| trainlock_types::Digest::of(bytes).to_hex();
    let context = project(&format!(
        "[workspace]\nplatforms = [\"{platform}\"]\n[data]\none = {{ url = \"{}?X-Signature=s3cret\", to = \"data/one\" }}\ntwo = {{ pooch = \"registry.txt\", base-url = \"{}\" }}\n[tools]\ntool = {{ version = \"1\", from = \"index\", index = \"list.toml\" }}\n[steps.s]\nrun = \"tool > out; cat data/one >> out\"\ninputs = [\"data/one\"]\noutputs = [\"out\"]\n[steps.i]\nimage = \"{}\"\nrun = \"true\"\noutputs = [\"never\"]\n",
        server.url("/one.csv"),
        server.url("/"),
        server.url("/test/sh:1").split_once("//").unwrap().1
    ));
    context.write("registry.txt", format!("two.csv {}\n", digest(&[b'2'; 2048])));
    let program = b"#!/bin/sh\necho tool\n";
    context.write(
        "list.toml",
        format!(
            "[[version]]\nversion = \"1.0\"\n[version.files.{platform}]\nurl = \"{}\"\nsha256 = \"{}\"\nsize = {}\n",
            server.url("/tool"),
            digest(program),
            program.len()
        ),
    );
    context.run(["lock"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    let asked = server.request_count();
    let all = context.run(["fetch", "--frozen"]).expect(1).stderr;
    for words in [
        "the network is off",
        "data one: 4 B, from http://",
        "X-Signature=REDACTED",
        "data two: 2.0 KiB, from http://",
        &format!("tool tool 1.0.0: {} B, from {}", program.len(), server.url("/tool")),
        "image 127.0.0.1",
        "of a size that its manifest says",
        "4 inputs, more than 2.0 KiB, missing",
        "trainlock vendor DIR",
    ] {
        assert!(all.contains(words), "{words}\n{all}");
    }
    assert!(!all.contains("s3cret") && all.matches("error").count() == 1, "{all}");
    // A step needs what it names, and all of that is told before it runs.
    let step = context.run(["train", "--frozen", "s"]).expect(1).stderr;
    assert!(step.contains("2 inputs, ") && step.contains("data one") && step.contains("tool tool 1.0.0"), "{step}");
    assert!(!step.contains("data two") && !step.contains("image"), "{step}");
    let run = context.run(["run", "--frozen", "--", "tool"]).expect(1).stderr;
    assert!(run.contains("1 input, 20 B, missing"), "{run}");
    assert_eq!(server.request_count(), asked, "nobody is asked");
    // What is there is not lacking; nor is what a file of this machine stands for.
    context.run(["fetch"]).expect(0);
    context.run(["train", "--frozen", "s"]).expect(0);
    assert_eq!(context.read("out"), "tool\none\n");
}
