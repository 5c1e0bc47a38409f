use super::*;
use crate::fixture::Project;
use crate::result::Last;

const CHAIN: &str = r#"
[params]
lr = 0.1

[steps.one]
run = "x {params.lr}"
inputs = ["source.txt"]
outputs = ["build/one"]

[steps.two]
run = "x"
inputs = ["build/one"]
outputs = ["build/two"]
"#;

fn project() -> Project {
    Project::new(CHAIN, &[("source.txt", "s")])
}

/// What a survey says, in words.
fn survey(bench: &mut Bench<'_>, plan: &Plan<'_>) -> Vec<String> {
    let words = |status: StepStatus| match status.verdict {
        Verdict::Fresh => format!("{}: fresh", status.step),
        Verdict::Restore => format!("{}: restore", status.step),
        Verdict::Run { why } => format!("{}: run: {}", status.step, why.join("; ")),
        Verdict::Waits { on } => format!("{}: waits: {}", status.step, on.join(", ")),
    };
    bench.survey(plan, false).unwrap().into_iter().map(words).collect()
}

/// Puts a result into the store as a run of the plan's first step would; what the project then last had.
fn made(project: &Project, plan: &Plan<'_>, text: &str) -> Last {
    let mut bench = project.bench(State::default());
    let prepared = bench.prepare(&plan.nodes[0], &Done::new(plan)).unwrap();
    let session = project.store.session().unwrap();
    let sha256 = session.put_bytes(text.as_bytes()).unwrap();
    let content = Content::File { sha256, size: text.len() as u64, executable: false };
    let outputs = vec![OutputRecord { path: "build/one".into(), role: Role::Output, content }];
    let result = StepResult::new(
        "one".into(),
        prepared.form,
        outputs.clone(),
        BTreeMap::new(),
        crate::fixture::circumstances(1.0),
    );
    session.put_result(&prepared.key, &result.to_bytes()).unwrap();
    session.finish(false).unwrap();
    Last { key: prepared.key, outputs }
}

fn state(last: &Last) -> State {
    let mut state = State::default();
    state.set("one", last.clone());
    state
}

#[test]
fn from_nothing_to_a_result_in_place() {
    let project = project();
    let plan = Plan::new(&project.workspace, &[0], &[]).unwrap();
    let mut bench = project.bench(State::default());
    assert_eq!(survey(&mut bench, &plan), ["one: run: it has not run here", "two: waits: one"]);
    let last = made(&project, &plan, "1");
    assert_eq!(survey(&mut bench, &plan), ["one: restore", "two: run: it has not run here"]);
    // The project's own bytes count, wherever they came from.
    fs_err::create_dir(project.root().join("build")).unwrap();
    fs_err::write(project.root().join("build/one"), "1").unwrap();
    assert_eq!(survey(&mut bench, &plan)[0], "one: fresh");
    fs_err::write(project.root().join("build/one"), "other").unwrap();
    assert_eq!(survey(&mut bench, &plan)[0], "one: restore");
    // Without the object, nothing can be brought back.
    let object = project.store.object(&last.outputs[0].content.digest(), None).unwrap().unwrap();
    fs_err::remove_file(object).unwrap();
    assert_eq!(survey(&mut bench, &plan)[0], "one: run: its outputs are neither here nor in the store any more");
}

#[test]
fn the_values_that_changed_are_named() {
    let mut project = project();
    let last = {
        let plan = Plan::new(&project.workspace, &[0], &[]).unwrap();
        made(&project, &plan, "1")
    };
    let lr = project.params.values_mut().next().unwrap().get_mut("lr").unwrap();
    *lr = trainlock_types::Value::Float(0.2);
    let plan = Plan::new(&project.workspace, &[0], &[]).unwrap();
    assert_eq!(survey(&mut project.bench(state(&last)), &plan)[0], "one: run: params.lr: 0.1 -> 0.2");
    fs_err::write(project.root().join("source.txt"), "other").unwrap();
    let [old, new] = [&b"s"[..], b"other"].map(|text| Digest::of(text).to_string()[..12].to_owned());
    let both = format!("one: run: input source.txt: sha256 {old} -> sha256 {new}; params.lr: 0.1 -> 0.2");
    assert_eq!(survey(&mut project.bench(state(&last)), &plan)[0], both);
    // Another project of the same store has no last result: the store alone says nothing about what changed.
    assert_eq!(survey(&mut project.bench(State::default()), &plan)[0], "one: run: it has not run here");
}

#[test]
fn a_last_result_that_is_gone_is_said() {
    let project = project();
    let plan = Plan::new(&project.workspace, &[0], &[]).unwrap();
    let content = Content::File { sha256: Digest::of(b"1"), size: 1, executable: false };
    let outputs = vec![OutputRecord { path: "build/one".into(), role: Role::Output, content }];
    let old = Last { key: Digest::of(b"no such result"), outputs: outputs.clone() };
    let said = "one: run: something changed since its last result, which is no longer in the store";
    assert_eq!(survey(&mut project.bench(state(&old)), &plan)[0], said);
    let key = project.bench(State::default()).prepare(&plan.nodes[0], &Done::new(&plan)).unwrap().key;
    let same = Last { key, outputs };
    let said = "one: run: its result is no longer in the store";
    assert_eq!(survey(&mut project.bench(state(&same)), &plan)[0], said);
}

#[test]
fn data_that_is_not_locked_yet_is_a_reason_and_no_error() {
    let manifest = "[data]\nd = { path = \"d\" }\n\n[steps.s]\nrun = \"x\"\ninputs = [\"d\"]\noutputs = [\"o\"]\n";
    let project = Project::new(manifest, &[("d", "1")]);
    let plan = Plan::new(&project.workspace, &[0], &[]).unwrap();
    assert_eq!(survey(&mut project.bench(State::default()), &plan), ["s: run: data `d` is not locked yet"]);
}
