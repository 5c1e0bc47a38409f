//! The log of runs, `--json`, and the ways of being interrupted.

use crate::{chain, context, count, project};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn every_run_is_logged_and_git_does_not_see_it() {
    let context = context();
    chain(&context);
    context.run(["train"]).expect(0);
    context.run(["train"]).expect(0);
    let list = context.run(["runs"]).expect(0).stdout;
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.lines().next().unwrap().contains("0 ran, 3 cached"), "{list}");
    let id = list.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let shown = context.run(["runs", "show", &id]).expect(0).stdout;
    for words in ["status    succeeded", "param     t: lr = 0.1", "step      one ran", "accuracy = 0.3"] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    let record: serde_json::Value =
        serde_json::from_str(&context.read(&format!(".trainlock/runs/{id}/run.json"))).unwrap();
    let step = &record["steps"][2];
    assert_eq!(
        (&step["outcome"], &step["exit-code"], &step["isolation"]["tier"]),
        (&"ran".into(), &0.into(), &"namespaces".into())
    );
    assert!(step["peak-memory"].as_u64().unwrap() > 100_000 && record["lock"].is_string(), "{record}");
    assert_eq!(context.read(".trainlock/.gitignore"), "*\n");
    let failed = context.run(["runs", "show", "2020"]).expect(1);
    assert!(failed.stderr.contains("no run `2020`"), "{}", failed.stderr);
}

#[test]
fn json_streams_one_event_a_line() {
    let context = context();
    chain(&context);
    let out = context.run(["train", "--json"]).expect(0).stdout;
    let events: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let steps: Vec<&str> =
        events.iter().filter(|e| e["event"] == "step-finished").map(|e| e["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["one", "two", "three"]);
    let status = context.run(["status", "--json"]).expect(0).stdout;
    assert!(
        status.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["verdict"] == "fresh"),
        "{status}"
    );
}

#[test]
fn an_interrupt_ends_the_process_group_and_keeps_what_is_finished() {
    let context = project("");
    let pid = context.root().join("pid");
    crate::write_manifest(
        &context,
        &format!(
            "[steps.quick]\nrun = \"echo q >quick\"\noutputs = [\"quick\"]\n\
             [steps.slow]\nrun = \"sleep 300 & echo $! >{0}.new; mv {0}.new {0}; wait\"\ninputs = [\"quick\"]\noutputs = [\"slow\"]\nsandbox = \"off\"\n",
            pid.display()
        ),
    );
    let child = context.command(["train"]).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while !pid.exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the step never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    let process = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{words}");
    assert!(words.contains("interrupted"), "{words}");
    let background = fs_err::read_to_string(&pid).unwrap();
    let stat = || fs_err::read_to_string(format!("/proc/{}/stat", background.trim())).ok();
    let begin = Instant::now();
    while stat().is_some_and(|s| !s.contains(") Z")) {
        assert!(begin.elapsed() < Duration::from_secs(10), "a child of the step lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(context.run(["runs"]).expect(0).stdout.contains("interrupted"));
    crate::write_manifest(
        &context,
        &context
            .read("train.toml")
            .split_once("\n\n")
            .unwrap()
            .1
            .replace("sleep 300", "sleep 0")
            .replace("wait\"", "wait; touch slow\""),
    );
    context.run(["train"]).expect(0);
    assert_eq!(count(&context, "quick"), 1);
}
