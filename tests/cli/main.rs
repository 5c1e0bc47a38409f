//! The binary as a user meets it: words, files and exit codes.

mod concurrency;
mod data;
mod docs;
mod hostile;
mod lock;
mod manifest;
mod runs;
mod signals;
mod steps;
mod store;
mod tools;
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

/// How often a step that appends a line to this file of the test's folder has run.
fn count(context: &TestContext, file: &str) -> usize {
    fs_err::read_to_string(context.root().join(file)).map_or(0, |text| text.lines().count())
}

/// Three steps in a row, each of which notes that it ran: `one` reads a source and a param, `two` reads what
/// `one` makes, `three` reads what `two` makes and another param.
fn chain(context: &TestContext) {
    let note = |step: &str| format!("echo x >>{}/{step}", context.root().display());
    let manifest = format!(
        r#"
[params]
lr = 0.1
epochs = 3

[profile.smoke.params]
epochs = 1

[steps.one]
run = "{}; cat source.txt >{{outputs.0}}; echo {{params.lr}} >>{{outputs.0}}"
inputs = ["source.txt"]
outputs = ["build/one"]

[steps.two]
run = "{}; head -c 6 build/one >build/two"
inputs = ["build/one"]
outputs = ["build/two"]

[steps.three]
run = "{}; cat build/two >build/three; echo \"{{\\\"accuracy\\\": 0.{{params.epochs}}}}\" >build/metrics.json"
inputs = ["build/two"]
outputs = ["build/three"]
metrics = ["build/metrics.json"]
"#,
        note("one"),
        note("two"),
        note("three"),
    );
    write_manifest(context, &manifest);
    context.write("source.txt", "source\n");
}

/// How often each step of [`chain`] has run.
fn counts(context: &TestContext) -> [usize; 3] {
    ["one", "two", "three"].map(|step| count(context, step))
}
