//! Asked to stop: by ctrl-C, by the system, by a terminal that is gone.

use crate::project;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::{Fault, FaultServer, TestContext};

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

#[test]
fn an_interrupted_fetch_says_so_once_and_goes_on() {
    let server = FaultServer::start();
    let names: Vec<String> = (0..30).map(|i| format!("part{i}")).collect();
    for name in &names {
        server.script(&format!("/{name}"), name.as_bytes(), [Fault::Silent, Fault::Ok]);
    }
    let context = project("");
    let data = names.iter().map(|name| {
        let sha256 = trainlock_types::Digest::of(name.as_bytes());
        let url = server.url(&format!("/{name}"));
        format!(
            "{name} = {{ url = \"{url}\", checksum = \"sha256:{sha256}\", size = {}, to = \"in/{name}\" }}\n",
            name.len()
        )
    });
    crate::write_manifest(&context, &format!("[data]\n{}", data.collect::<String>()));
    context.run(["lock"]).expect(0);
    let mut child = context.command(["fetch", "--link"]).stderr(Stdio::piped()).spawn().unwrap();
    let asked = || names.iter().any(|name| !server.requests(&format!("/{name}")).is_empty());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !asked() {
        assert!(Instant::now() < deadline, "nothing is asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{words}");
    assert_eq!(words.matches("interrupted while fetching 30 data sets").count(), 1, "{words}");
    assert_eq!(words.matches("error").count(), 1, "{words}");
    for name in &names {
        server.serve(&format!("/{name}"), name.as_bytes());
    }
    // A file where a folder is to be is named.
    context.write("in", "in the way");
    let failed = context.run(["fetch", "--locked", "--link"]).expect(1);
    let file = context.project().join("in");
    assert!(failed.stderr.contains(&format!("cannot put anything into `{}`", file.display())), "{}", failed.stderr);
    fs_err::remove_file(file).unwrap();
    context.run(["fetch", "--locked", "--link"]).expect(0);
    assert!(names.iter().all(|name| context.read(&format!("in/{name}")) == *name));
}
