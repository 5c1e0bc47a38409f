//! A host full of things that a step must not reach, and what can be said of it afterwards.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;
use trainlock_testing::{Ran, TestContext, copy_program};
use trainlock_types::Digest;

/// `nobody` on every Unix.
const NOBODY: u32 = 65534;
/// The variable of the caller's environment that no step may see.
const SECRET: &str = "TRAINLOCK_ESCAPE_SECRET";
/// What ends a run that hangs.
const LIMIT: Duration = Duration::from_secs(180);
/// The table, relative to the project's folder and to a step's.
pub(crate) const TABLE: &str = "out/table.json";

/// The attempts' program, as the project holds it.
const PROGRAM: [(&str, &str); 8] = [
    ("__main__.py", include_str!("attempts/__main__.py")),
    ("kernel.py", include_str!("attempts/kernel.py")),
    ("network.py", include_str!("attempts/network.py")),
    ("privileges.py", include_str!("attempts/privileges.py")),
    ("processes.py", include_str!("attempts/processes.py")),
    ("reads.py", include_str!("attempts/reads.py")),
    ("table.py", include_str!("attempts/table.py")),
    ("writes.py", include_str!("attempts/writes.py")),
];

/// Who runs trainlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever runs the tests.
    Caller,
    /// A user without rights; only root can become it.
    Nobody,
}

/// What came of one attempt.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) outcome: String,
    pub(crate) how: String,
    pub(crate) guarantee: String,
    pub(crate) control: String,
}

/// All attempts by name.
pub(crate) type Table = BTreeMap<String, Attempt>;

#[derive(Debug)]
struct Canary {
    path: PathBuf,
    content: String,
    mode: u32,
}

/// A project with secrets around it, and a process beside it that must not be reached.
pub(crate) struct Host {
    pub(crate) context: TestContext,
    who: Who,
    nonce: String,
    secret: String,
    canaries: BTreeMap<&'static str, Canary>,
    neighbour: Child,
    /// Its end is the neighbour's.
    end: Option<ChildStdin>,
    facts: Value,
}

impl Host {
    /// Lays it all out; steps get this much isolation.
    pub(crate) fn new(who: Who, sandbox: &str) -> Host {
        let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
        let nonce = format!("trainlock-escape-{}", &random()[..16]);
        for folder in [context.store(), context.root().join("neighbour")] {
            fs_err::create_dir(folder).unwrap();
        }
        fs_err::write(context.root().join("neighbour.py"), include_str!("neighbour.py")).unwrap();
        fs_err::write(context.root().join("raw.bin"), "r".repeat(5000)).unwrap();
        for (name, text) in PROGRAM {
            context.write(&format!("attempts/{name}"), text);
        }
        context.write("out/given.txt", "g".repeat(5000));
        context.write("train.toml", manifest(context.root(), sandbox));
        if who == Who::Nobody {
            copy_program(env!("CARGO_BIN_EXE_trainlock"), &context.root().join("trainlock"));
        }
        fs_err::set_permissions(context.root(), PermissionsExt::from_mode(0o755)).unwrap();

        let secret = random();
        let facts = json!({ "mark": format!("{nonce}-neighbour") });
        give(context.root(), who);
        let mut command = plain(who, "python3");
        command.arg("-I").arg(context.root().join("neighbour.py")).arg(context.root().join("neighbour"));
        command.arg(facts["mark"].as_str().unwrap()).env(SECRET, &secret);
        let mut neighbour = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(neighbour.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let facts = serde_json::from_str(&line).expect("the neighbour says where it is");
        let end = neighbour.stdin.take();

        let mut host = Host { context, who, nonce, secret, canaries: BTreeMap::new(), neighbour, end, facts };
        let root = host.context.root().to_owned();
        host.canary("home", host.context.home().join("notes.txt"), 0o644);
        host.canary("ssh-key", host.context.home().join(".ssh/id_ed25519"), 0o600);
        host.canary("caller", root.join("caller.txt"), 0o644);
        host.canary("project", host.context.project().join("secret.txt"), 0o644);
        for (name, folder) in [("tmp", "/tmp"), ("var-tmp", "/var/tmp"), ("shm", "/dev/shm")] {
            host.canary(name, Path::new(folder).join(&host.nonce), 0o644);
        }
        host
    }

    fn canary(&mut self, name: &'static str, path: PathBuf, mode: u32) {
        let folder = path.parent().unwrap();
        if !folder.exists() {
            fs_err::create_dir_all(folder).unwrap();
            give(folder, self.who);
        }
        let content = random();
        fs_err::write(&path, &content).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        give(&path, self.who);
        self.canaries.insert(name, Canary { path, content, mode });
    }

    /// Takes a file that is there already among the canaries.
    pub(crate) fn adopt(&mut self, name: &'static str, path: PathBuf) {
        let content = fs_err::read_to_string(&path).unwrap();
        let mode = fs_err::metadata(&path).unwrap().permissions().mode() & 0o7777;
        self.canaries.insert(name, Canary { path, content, mode });
    }

    /// The canary's file.
    pub(crate) fn path_of(&self, canary: &str) -> &Path {
        &self.canaries[canary].path
    }

    /// Tells the attempts where everything is, but no content of it.
    pub(crate) fn write_targets(&self, folder: &Path) {
        let canaries: serde_json::Map<String, Value> = self
            .canaries
            .iter()
            .map(|(name, canary)| {
                let sha256 = Digest::of(canary.content.as_bytes()).to_hex();
                ((*name).to_owned(), json!({ "path": canary.path, "sha256": sha256 }))
            })
            .collect();
        let project = self.context.project();
        let targets = json!({
            "nonce": self.nonce,
            "canaries": canaries,
            "project": project,
            "lock": project.join("train.lock"),
            "store": self.context.store(),
            "home": self.context.home(),
            "users-home": users_home(),
            "host-name": fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap().trim_end(),
            "secret": { "name": SECRET, "sha256": Digest::of(self.secret.as_bytes()).to_hex() },
            "neighbour": self.facts,
            "devices": disks(),
            "inputs": { "linked": "data/raw.bin", "beside": "out/given.txt" },
            "work": "out/tries",
        });
        let file = folder.join("targets.json");
        fs_err::write(&file, targets.to_string()).unwrap();
        give(&file, self.who);
    }

    /// A command of the host's user, in the project's folder, with the secret in its environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = plain(self.who, program);
        command.current_dir(self.context.project());
        command.env("HOME", self.context.home()).env("TRAINLOCK_STORE", self.context.store()).env(SECRET, &self.secret);
        command
    }

    /// The same, with a file of the caller open that no step may inherit.
    pub(crate) fn holding(&self, program: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", "exec 9<\"$0\"; exec \"$@\""]).arg(self.path_of("home")).arg(program);
        command
    }

    /// The binary, where the host's user can reach it.
    pub(crate) fn binary(&self) -> PathBuf {
        match self.who {
            Who::Caller => env!("CARGO_BIN_EXE_trainlock").into(),
            Who::Nobody => self.context.root().join("trainlock"),
        }
    }

    /// Runs trainlock.
    pub(crate) fn trainlock(&self, args: &[&str]) -> Ran {
        let mut command = self.holding(self.binary().to_str().unwrap());
        command.args(args);
        self.run(&mut command)
    }

    /// Runs trainlock in a user namespace in which no more namespaces of this kind can be made.
    pub(crate) fn trainlock_without(&self, namespaces: &str, args: &[&str]) -> Ran {
        let mut command = self.holding("unshare");
        let script = format!("echo 0 >/proc/sys/user/max_{namespaces}_namespaces && exec \"$0\" \"$@\"");
        command.args(["--user", "--map-root-user", "sh", "-c", &script]).arg(self.binary()).args(args);
        self.run(&mut command)
    }

    /// Runs a command to its end, or ends it where it hangs.
    ///
    /// What it prints goes to files: a process that it leaves behind could hold a pipe open.
    pub(crate) fn run(&self, command: &mut Command) -> Ran {
        let file = |name: &str| self.context.root().join(name);
        command.stdin(Stdio::null());
        command.stdout(fs_err::File::create(file("stdout")).unwrap().into_parts().0);
        command.stderr(fs_err::File::create(file("stderr")).unwrap().into_parts().0);
        let mut child = command.spawn().unwrap();
        let ended = wait(Pid::from_child(&child), LIMIT);
        if !ended {
            child.kill().unwrap();
        }
        let code = child.wait().unwrap().code();
        let text = |name: &str| String::from_utf8_lossy(&fs_err::read(file(name)).unwrap()).into_owned();
        let ran = Ran { code, stdout: text("stdout"), stderr: text("stderr") };
        assert!(ended, "hangs:\n{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// The table that the attempts wrote in a folder, with what only the host can tell.
    pub(crate) fn table(&self, folder: &Path) -> Table {
        let text = fs_err::read_to_string(folder.join(TABLE)).expect("the table");
        let mut table: Table = serde_json::from_str(&text).expect("the table's form");
        let left: Vec<String> = self.left().into_iter().map(|(_, mark)| mark).collect();
        let signalled = self.contacts().iter().any(|contact| contact == "signal");
        for attempt in table.values_mut().filter(|attempt| attempt.outcome == "outer") {
            let escaped = if attempt.how == "signals" { signalled } else { left.contains(&attempt.how) };
            attempt.outcome = if escaped { "escaped" } else { "stopped" }.to_owned();
        }
        table
    }

    /// What reached the neighbour.
    pub(crate) fn contacts(&self) -> Vec<String> {
        let text = fs_err::read_to_string(self.context.root().join("neighbour/contacts")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The processes of a step that are still there, with their marks.
    pub(crate) fn left(&self) -> Vec<(Pid, String)> {
        let prefix = format!("{}-leave-", self.nonce);
        let mut found = Vec::new();
        for entry in fs_err::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // One that ended meanwhile has no command line.
            let (Some(pid), Ok(line)) = (pid, fs_err::read(entry.path().join("cmdline"))) else { continue };
            let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            found.extend(words.filter(|word| word.starts_with(&prefix)).map(|word| (pid, word)));
        }
        found
    }

    /// Waits until the processes that are left have ended, for as long as the kernel may need to end them.
    pub(crate) fn wait_for_left(&self) {
        for (pid, _) in self.left() {
            wait(pid, Duration::from_secs(10));
        }
    }

    /// Says what of the host is not as it was.
    pub(crate) fn damage(&mut self) -> Vec<String> {
        let mut damage = Vec::new();
        for (name, canary) in &self.canaries {
            let content = fs_err::read_to_string(&canary.path).unwrap_or_default();
            let mode = fs_err::metadata(&canary.path).map_or(0, |facts| facts.permissions().mode() & 0o7777);
            if content != canary.content || mode != canary.mode {
                damage.push(format!("canary {name}: mode {mode:o}, {content:?}"));
            }
        }
        if let Some(status) = self.neighbour.try_wait().unwrap() {
            damage.push(format!("the neighbour ended: {status}"));
        }
        damage
    }

    /// The files below a folder that hold what no step was given.
    pub(crate) fn leaks(&self, folder: &Path) -> Vec<String> {
        let secrets = self.canaries.iter().map(|(name, canary)| (*name, canary.content.as_bytes(), &canary.path));
        let secrets: Vec<_> = secrets.collect();
        let mut leaks = Vec::new();
        for path in files(folder) {
            // A link leads elsewhere, and a fifo in a kept folder waits for a writer for ever.
            if !path.symlink_metadata().is_ok_and(|facts| facts.is_file()) {
                continue;
            }
            let bytes = fs_err::read(&path).unwrap_or_default();
            let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
            for (name, content, own) in &secrets {
                // The other step's file is in the store by right, as is the project's own copy of it.
                if path != **own && !matches!(*name, "other-step" | "store-object") && holds(content) {
                    leaks.push(format!("{name} in {}", path.display()));
                }
            }
            if holds(self.secret.as_bytes()) {
                leaks.push(format!("the environment's secret in {}", path.display()));
            }
        }
        leaks
    }

    /// The record of the last run.
    pub(crate) fn record(&self) -> Value {
        let shown = self.trainlock(&["runs", "show", "last", "--json"]).expect(0).stdout;
        serde_json::from_str(&shown).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (pid, _) in self.left() {
            let _ = kill_process(pid, Signal::KILL);
        }
        self.end.take();
        let _ = self.neighbour.wait();
        for canary in self.canaries.values().filter(|canary| !canary.path.starts_with(self.context.root())) {
            let _ = fs_err::remove_file(&canary.path);
        }
    }
}

/// The project: `other` writes a secret of its own, `attempts` tries to get at everything.
fn manifest(root: &Path, sandbox: &str) -> String {
    format!(
        r#"[project]
name = "hermetic"
version = "0.1.0"
sandbox = "{sandbox}"

[data]
raw = {{ url = "file://{}/raw.bin" }}

[steps.other]
run = "head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >other/secret.bin"
outputs = ["other/secret.bin"]

[steps.attempts]
run = ["python3", "-B", "attempts", "targets.json", "{TABLE}"]
inputs = ["attempts/*.py", "targets.json", "data/raw.bin", "out/given.txt"]
outputs = ["{TABLE}", "out/tries/"]
"#,
        root.display()
    )
}

/// A command with almost no environment, of this user.
fn plain(who: Who, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    if who == Who::Nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Gives a folder with all that is in it to the user.
pub(crate) fn give(path: &Path, who: Who) {
    if who == Who::Nobody {
        let mut all = files(path);
        all.extend(folders(path));
        for path in all {
            std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// All files below a folder, or the file itself; links are not followed.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    walk(path).into_iter().filter(|path| !path.symlink_metadata().is_ok_and(|facts| facts.is_dir())).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    walk(path).into_iter().filter(|path| path.symlink_metadata().is_ok_and(|facts| facts.is_dir())).collect()
}

fn walk(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].symlink_metadata().is_ok_and(|facts| facts.is_dir()) {
            found.extend(fs_err::read_dir(&found[at]).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        at += 1;
    }
    found
}

/// Waits until a process has ended; false if it hasn't in this time.
fn wait(pid: Pid, limit: Duration) -> bool {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let limit = limit.try_into().expect("a few minutes");
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// 32 random bytes in hexadecimal.
fn random() -> String {
    let mut bytes = [0; 32];
    fs_err::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    Digest::from_bytes(bytes).to_hex()
}

/// The home folder of the user who runs the tests.
fn users_home() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a secret place of the machine that runs the test")]
    std::env::home_dir().filter(|home| home.is_dir())
}

/// The machine's disks.
fn disks() -> Vec<PathBuf> {
    let names = fs_err::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.map(|name| Path::new("/dev").join(name)).filter(|path| path.exists()).collect()
}
