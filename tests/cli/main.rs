//! The binary as a user meets it: words, files and exit codes.

mod airgap;
mod auth;
mod buckets;
mod builds;
mod concurrency;
mod data;
mod diff;
mod docs;
mod doi;
mod hostile;
mod images;
mod lock;
mod manifest;
mod npm;
mod reproduce;
mod runs;
mod serve;
mod signals;
mod sources;
mod steps;
mod store;
mod tools;
mod upstream;
mod verdict;
mod workspace;

use trainlock_testing::TestContext;

/// Empty folders and the binary.
fn context() -> TestContext {
    TestContext::new(env!("CARGO_BIN_EXE_trainlock"))
}

/// A project named `t` with this behind its `[project]`.
fn project(manifest: &str) -> TestContext {
    let context = context();
    write_manifest(&context, manifest);
    context
}

fn write_manifest(context: &TestContext, manifest: &str) {
    context.write("train.toml", format!("[project]\nname = \"t\"\nversion = \"0.1.0\"\n\n{manifest}"));
}

/// How often steps of this name have run and succeeded, by the records of all runs; `*` counts all steps.
fn count(context: &TestContext, step: &str) -> usize {
    let runs = context.project().join(".trainlock/runs");
    let ids = trainlock_run::record::ids(&runs).unwrap();
    let records = ids.iter().map(|id| trainlock_run::record::read(&runs, id).unwrap());
    let ran =
        |s: &trainlock_run::record::StepRecord| s.outcome.as_deref() == Some("ran") && (step == "*" || s.step == step);
    records.map(|record| record.steps.iter().filter(|s| ran(s)).count()).sum()
}

/// Three steps in a row: `one` reads a source and a param, `two` reads what
/// `one` makes, `three` reads what `two` makes and another param.
fn chain(context: &TestContext) {
    let manifest = r#"
[params]
lr = 0.1
epochs = 3

[profile.smoke.params]
epochs = 1

[steps.one]
run = "cat source.txt >{outputs.0}; echo {params.lr} >>{outputs.0}"
inputs = ["source.txt"]
outputs = ["build/one"]

[steps.two]
run = "head -c 6 build/one >build/two"
inputs = ["build/one"]
outputs = ["build/two"]

[steps.three]
run = "cat build/two >build/three; echo \"{{\\\"accuracy\\\": 0.{params.epochs}}\" >build/metrics.json"
inputs = ["build/two"]
outputs = ["build/three"]
metrics = ["build/metrics.json"]
"#;
    write_manifest(context, manifest);
    context.write("source.txt", "source\n");
}

/// How often each step of [`chain`] has run.
fn counts(context: &TestContext) -> [usize; 3] {
    ["one", "two", "three"].map(|step| count(context, step))
}
