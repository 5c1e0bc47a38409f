//! Workspaces: members, inheritance, one lock, steps across members.

use crate::context;
use trainlock_testing::{Ran, TestContext};

fn workspace() -> TestContext {
    let context = context();
    context.write(
        "train.toml",
        "[workspace]\nmembers = [\"experiments/*\"]\nexclude = [\"experiments/old\"]\n[workspace.data.shared]\npath = \"shared/words.txt\"\n[workspace.params]\nlr = 0.1\n",
    );
    context.write("shared/words.txt", "words\n");
    for (name, other) in [
        ("one", ""),
        ("two", "[steps.use]\nrun = \"cat ../one/out >used\"\ninputs = [\"../one/out\"]\noutputs = [\"used\"]\n"),
    ] {
        context.write(
            &format!("experiments/{name}/train.toml"),
            format!(
                "[project]\nname = \"{name}\"\nversion = \"0.1.0\"\n[data]\nshared.workspace = true\n[params]\nlr.workspace = true\n\
                 [steps.make]\nrun = \"cat {{data.shared}} >out; echo {name} {{params.lr}} >>out; pwd >where\"\ninputs = [\"../../shared/words.txt\"]\noutputs = [\"out\", \"where\"]\n{other}"
            ),
        );
    }
    context.write("experiments/old/train.toml", "this is no manifest");
    context
}

fn run_in(context: &TestContext, folder: &str, args: &[&str]) -> Ran {
    Ran::of(context.command(args).current_dir(context.project().join(folder)))
}

#[test]
fn one_lock_at_the_root_and_steps_across_members() {
    let context = workspace();
    let ran = context.run(["train"]).expect(0);
    assert!(ran.stderr.contains("3 steps ran"), "{}", ran.stderr);
    assert!(context.has("train.lock") && !context.has("experiments/one/train.lock"));
    assert_eq!(context.read("experiments/two/used"), "words\none 0.1\n");
    assert!(context.read("experiments/two/where").trim() == "/trainlock/two/experiments/two");
    let lock = context.read("train.lock");
    for words in ["member = \"one\"", "member = \"two\"", "[params.one]"] {
        assert!(lock.contains(words), "{words}\n{lock}");
    }
}

#[test]
fn selecting_members() {
    let context = workspace();
    let ran = run_in(&context, "experiments/one", &["train"]).expect(0);
    assert!(ran.stderr.contains("1 step ran"), "{}", ran.stderr);
    // `two` needs a step of `one`, which is done.
    let ran = context.run(["train", "-p", "two"]).expect(0);
    assert!(ran.stderr.contains("2 steps ran, 1 cached"), "{}", ran.stderr);
    let ran = run_in(&context, "experiments/one", &["train", "--workspace"]).expect(0);
    assert!(ran.stderr.contains("nothing to do: 3 steps"), "{}", ran.stderr);
    let ran = context.run(["why", "two/use"]).expect(0);
    assert!(ran.stdout.contains("two/use is up to date"), "{}", ran.stdout);
    let failed = context.run(["train", "-p", "twoo"]).expect(2);
    assert!(failed.stderr.contains("did you mean `two`?"), "{}", failed.stderr);
}

#[test]
fn metadata_says_what_it_all_means() {
    let context = workspace();
    let metadata: serde_json::Value = serde_json::from_str(&context.run(["metadata"]).expect(0).stdout).unwrap();
    let names: Vec<&str> =
        metadata["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(metadata["members"][1]["params"]["lr"], 0.1);
    assert_eq!(metadata["members"][1]["steps"][1]["inputs"][0]["path"], "experiments/one/out");
}
