//! Killed with SIGKILL at any instant, and the next command goes on as if nothing had happened.

use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use trainlock_testing::{Fault, FaultServer, Ran, TestContext};

/// Kills in all, shared by so many threads.
const KILLS: usize = 100;
const THREADS: usize = 4;

const STEPS: [&str; 3] = ["count", "mix", "measure"];

/// All that must be the same as after a run that nobody disturbed.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    lock: String,
    files: BTreeMap<String, Vec<u8>>,
    metrics: String,
}

/// A small generator (SplitMix64): the numbers need not be good, only the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// The seed: `TRAINLOCK_CRASH_SEED`, or another one each time.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a switch of the test itself")]
    let chosen = std::env::var("TRAINLOCK_CRASH_SEED").ok();
    chosen
        .map(|text| text.parse().expect("TRAINLOCK_CRASH_SEED is a number"))
        .unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish())
}

/// Serves a file and an archive, slowly enough that a kill can meet them on their way.
fn serve(server: &FaultServer) {
    let made = TestContext::new("tar");
    let folder = made.project();
    let noise = |seed: u64, length: usize| -> Vec<u8> {
        let mut random = Random(seed);
        (0..length).map(|_| random.below(256) as u8).collect()
    };
    for i in 0..12 {
        let file = folder.join(format!("all/{}/{i}.bin", i % 3));
        fs_err::create_dir_all(file.parent().unwrap()).unwrap();
        fs_err::write(file, noise(i, 3000)).unwrap();
    }
    made.run(["-czf", "all.tar.gz", "all"]).expect(0);
    let archive = made.read_bytes("all.tar.gz");
    let pause = Duration::from_millis(3);
    server.script("/all.tar.gz", archive, [Fault::Drip(4096, pause)]);
    server.script("/raw.bin", noise(99, 40_000), [Fault::Drip(4096, pause)]);
}

/// A project of two data sets and three steps.
fn project(server: &FaultServer) -> TestContext {
    let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    context.write("source.txt", "a source\n").write(
        "train.toml",
        format!(
            r#"
[project]
name = "t"
version = "0.1.0"

[data]
raw = {{ url = "{raw}" }}
all = {{ url = "{all}", unpack = true }}

[params]
rounds = 3

[profile.smoke.params]
rounds = 1

[steps.count]
run = "sleep 0.02; find data/all -type f | sort | xargs wc -c >build/count; mkdir build/copy; cp -r data/all/all/0 build/copy/"
inputs = ["data/all/"]
outputs = ["build/count", "build/copy/"]
params = []

[steps.mix]
run = "echo mixing; sleep 0.02; cat {{data.raw}} build/count source.txt >build/mixed; echo {{params.rounds}} >>build/mixed; echo mixed"
inputs = ["data/raw.bin", "build/count", "source.txt"]
outputs = ["build/mixed"]
params = ["rounds"]

[steps.measure]
run = "sleep 0.01; echo \"{{\\\"bytes\\\": $(wc -c <build/mixed), \\\"files\\\": $(find build/copy -type f | wc -l)}}\" >build/metrics.json"
inputs = ["build/mixed", "build/copy/"]
metrics = ["build/metrics.json"]
params = []
"#,
            raw = server.url("/raw.bin"),
            all = server.url("/all.tar.gz"),
        ),
    );
    context
}

fn collect(folder: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => collect(&entry.path(), &name, files),
            false => drop(files.insert(name, fs_err::read(entry.path()).unwrap())),
        }
    }
}

fn outcome(context: &TestContext) -> Outcome {
    let mut files = BTreeMap::new();
    collect(&context.project().join("build"), "build", &mut files);
    let shown = context.run(["runs", "show", "last", "--json"]).expect(0).stdout;
    let run: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(run["status"], "succeeded");
    let metrics = run["steps"].as_array().unwrap().iter().map(|s| format!("{}: {}\n", s["step"], s["metrics"]));
    Outcome { lock: context.read("train.lock"), files, metrics: metrics.collect() }
}

/// One project from its first command to its last, with kills between.
struct Round<'a> {
    context: TestContext,
    /// The seed, and what happened, in words.
    story: Vec<String>,
    /// How long an undisturbed `train` takes.
    bound: Duration,
    random: &'a mut Random,
    /// The steps that some process has reported as done.
    done: BTreeSet<String>,
}

/// A step as its key has it: `count` is the same with the profile and without it, the others are not.
fn name(step: &str, smoke: bool) -> String {
    if smoke && step != STEPS[0] { format!("{step} with the profile") } else { step.to_owned() }
}

impl Round<'_> {
    /// Starts a command and kills it after a random time; whether it was still there to be killed.
    fn kill(&mut self) -> bool {
        let args: &[&str] = self.random.pick(&[
            &["lock"][..],
            &["fetch"],
            &["fetch", "--link"],
            &["train", "--json"],
            &["train", "--json"],
            &["train", "--json", "-j1"],
            &["train", "--json", "--profile", "smoke"],
        ]);
        // What is half done takes less time than the whole.
        let bound = self.bound.as_micros() as u64 / self.random.pick(&[1, 1, 2, 4]);
        let after = Duration::from_micros(self.random.below(bound));
        let mut command = self.context.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        // The instant is what is random here: nothing is waited for.
        std::thread::sleep(after);
        // A step that is under way has a group of its own, and ends later, or when it next prints.
        kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
        let status = child.wait().unwrap();
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        self.story.push(format!("{args:?} as process {}, killed after {after:?}: {status}", child.id()));
        if args[0] == "train" {
            self.look(args.contains(&"smoke"), &printed);
        }
        let killed = status.signal() == Some(9);
        assert!(killed || status.success(), "{self}");
        killed
    }

    /// Takes from the events of one process which steps are done; none of them may have been started again.
    fn look(&mut self, smoke: bool, events: &str) {
        // The last line may be cut off by the kill.
        for event in events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            let step = name(event["step"].as_str().unwrap_or_default(), smoke);
            match event["event"].as_str() {
                Some("step-started") => assert!(!self.done.contains(&step), "`{step}` runs again; {self}"),
                Some("step-finished") if ["ran", "restored", "fresh"].iter().any(|how| event["outcome"] == *how) => {
                    self.done.insert(step);
                }
                _ => {}
            }
        }
    }

    /// Runs a command to its end, which is a good one.
    fn succeed(&mut self, args: &[&str]) -> Ran {
        let mut command = self.context.command(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        self.story.push(format!("{args:?} as process {pid}, to its end"));
        assert_eq!(ran.code, Some(0), "stdout:\n{}\nstderr:\n{}\n{self}", ran.stdout, ran.stderr);
        if args[0] == "train" {
            self.look(args.contains(&"smoke"), &ran.stdout);
        }
        ran
    }

    /// What comes after a kill succeeds, and in the end everything is as if nothing had been killed.
    fn recover(&mut self, expected: &Outcome) {
        let next =
            self.random.pick(&[&["lock"][..], &["fetch"], &["train", "--json"], &["status"], &["store", "verify"]]);
        self.succeed(next);
        self.succeed(&["train", "--json"]);
        self.succeed(&["store", "verify"]);
        let found = outcome(&self.context);
        assert!(found == *expected, "{}\n{}\n{:?}\n{self}", found.lock, found.metrics, found.files.keys());
        let idle = self.succeed(&["train", "--json"]).stdout;
        assert!(!idle.contains("step-started"), "{idle}\n{self}");
    }
}

impl std::fmt::Display for Round<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "what happened:")?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

#[test]
fn a_hundred_kills_change_nothing() {
    let server = FaultServer::start();
    serve(&server);
    let undisturbed = project(&server);
    let begin = Instant::now();
    undisturbed.run(["train"]).expect(0);
    let bound = begin.elapsed();
    let expected = outcome(&undisturbed);
    let seed = seed();
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || {
                let mut random = Random(seed ^ thread);
                let mut kills = 0;
                // Some commands are done before they can be killed; the number of rounds has a bound all the same.
                for number in 0..KILLS {
                    if kills >= KILLS / THREADS {
                        return;
                    }
                    let story = vec![format!("TRAINLOCK_CRASH_SEED={seed}, thread {thread}, round {number}")];
                    let (context, random) = (project(server), &mut random);
                    let mut round = Round { context, story, bound, random, done: BTreeSet::new() };
                    // A third of the rounds begins where much is done already.
                    match round.random.below(6) {
                        0 => drop(round.succeed(&["fetch"])),
                        1 => drop(round.succeed(&["train", "--json", "--profile", "smoke"])),
                        _ => {}
                    }
                    for _ in 0..1 + round.random.below(6) {
                        kills += usize::from(round.kill());
                    }
                    round.recover(expected);
                }
                panic!("too few commands were still there to be killed: {kills}");
            });
        }
    });
}
