//! Asked to stop: by ctrl-C, by the system, by a terminal that is gone.

use crate::project;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::TestContext;

/// A quick step, then one that says when it runs and notes how it ended.
fn waiting(on_term: &str) -> TestContext {
    let context = project("");
    let root = context.root().display().to_string();
    crate::write_manifest(
        &context,
        &format!(
            "[steps.quick]\nrun = \"echo 1 >quick\"\noutputs = [\"quick\"]\n\
             [steps.slow]\nrun = \"trap '{on_term}' TERM; echo $$ >{root}/pid; echo it runs; while test ! -e {root}/go; do sleep 0.01; done; echo 1 >slow\"\n\
             inputs = [\"quick\"]\noutputs = [\"slow\"]\nsandbox = \"off\"\n"
        ),
    );
    context
}

/// Starts `train` and waits until the slow step runs.
fn start(context: &TestContext) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = context.command(["train"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut words = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("it runs") {
        line.clear();
        assert_ne!(words.read_line(&mut line).unwrap(), 0, "it ended too early");
    }
    (child, words)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Whether the step's process is there no more (or is nobody's, waiting to be looked at by its new parent).
fn step_is_gone(context: &TestContext) -> bool {
    let pid = fs_err::read_to_string(context.root().join("pid")).unwrap();
    match fs_err::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => stat.contains(") Z"),
        Err(_) => rustix::process::test_kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap()).is_err(),
    }
}

#[test]
fn each_signal_ends_the_step_keeps_what_is_done_and_says_so() {
    for how in [Signal::INT, Signal::TERM, Signal::HUP] {
        let context = waiting("exit 1");
        let (mut child, mut words) = start(&context);
        signal(&child, how);
        let mut rest = String::new();
        words.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{how:?}: {rest}");
        assert!(rest.contains("interrupted") && rest.contains("step `slow` was interrupted"), "{how:?}: {rest}");
        assert!(step_is_gone(&context), "{how:?}");
        let run = context.run(["runs", "show", "--json"]).expect(0).stdout;
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        assert_eq!(run["status"], "interrupted");
        assert_eq!((&run["steps"][0]["outcome"], &run["steps"][1]["outcome"]), (&"ran".into(), &"interrupted".into()));
        fs_err::write(context.root().join("go"), "").unwrap();
        let again = context.run(["train"]).expect(0);
        assert!(again.stderr.contains("1 step ran, 1 cached"), "{}", again.stderr);
        assert_eq!((context.read("slow"), crate::count(&context, "quick")), ("1\n".into(), 1));
        context.run(["store", "verify"]).expect(0);
    }
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    // The step does not listen to SIGTERM, and has some seconds before it is killed.
    let context = waiting("");
    let (mut child, _words) = start(&context);
    let begin = Instant::now();
    signal(&child, Signal::INT);
    // Two signals in the same instant are one: the second is sent until it is heard.
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "it goes on");
        signal(&child, Signal::INT);
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(4), "it waited for the step's time to be over");
    // It was killed before trainlock ended; being gone takes the system a moment.
    let killed = Instant::now();
    while !step_is_gone(&context) {
        assert!(killed.elapsed() < Duration::from_secs(10), "the step lives on");
        std::thread::yield_now();
    }
    fs_err::write(context.root().join("go"), "").unwrap();
    context.run(["train"]).expect(0);
    context.run(["store", "verify"]).expect(0);
}
