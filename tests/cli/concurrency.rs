//! Many processes at once on one project and one store.

use crate::{count, project, write_manifest};
use std::process::Stdio;
use trainlock_testing::{Fault, FaultServer};

#[test]
fn eight_at_once_fetch_each_input_once_and_run_each_step_once() {
    let server = FaultServer::start();
    // Slow enough that all eight are there while the first fetches.
    let body = "x".repeat(4096);
    server.script("/raw.csv", body.clone(), [Fault::Drip(512, std::time::Duration::from_millis(30))]);
    let context = project("");
    write_manifest(
        &context,
        &format!(
            "[data]\nraw = {{ url = \"{}\" }}\n[steps.one]\nrun = \"sleep 0.3; cp {{data.raw}} one\"\ninputs = [\"data/raw.csv\"]\noutputs = [\"one\"]\n\
             [steps.two]\nrun = \"sleep 0.3; cp one two\"\ninputs = [\"one\"]\noutputs = [\"two\"]\n",
            server.url("/raw.csv")
        ),
    );
    let start = || context.command(["train"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..8).map(|_| start()).collect();
    let mut waited = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}");
        waited += usize::from(words.contains("Waiting for "));
    }
    assert!(waited >= 6, "only {waited} of eight said that they waited");
    assert_eq!((count(&context, "one"), count(&context, "two")), (1, 1));
    assert_eq!(server.requests("/raw.csv").len(), 1);
    assert_eq!(context.read("two"), body);
    context.run(["store", "verify"]).expect(0);
}

#[test]
fn two_projects_share_one_store() {
    let first = project("[steps.s]\nrun = \"echo made >out\"\noutputs = [\"out\"]\n");
    first.run(["train"]).expect(0);
    let other = first.root().join("other");
    fs_err::create_dir(&other).unwrap();
    fs_err::copy(first.project().join("train.toml"), other.join("train.toml")).unwrap();
    let mut command = first.command(["train"]);
    let ran = trainlock_testing::Ran::of(command.current_dir(&other)).expect(0);
    assert!(ran.stderr.contains("Cached s"), "{}", ran.stderr);
    assert_eq!(fs_err::read_to_string(other.join("out")).unwrap(), "made\n");
    // What one project does with its copy does not reach the other.
    let out = other.join("out");
    fs_err::remove_file(&out).unwrap();
    fs_err::write(&out, "mine").unwrap();
    assert_eq!(first.read("out"), "made\n");
}
