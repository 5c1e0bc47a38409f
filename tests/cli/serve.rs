//! `serve = ["hf"]`: steps that ask the hub, and get what is locked.

use crate::project;
use trainlock_testing::{FaultServer, Ran, TestContext};
use trainlock_types::Digest;

/// Prints what the step's hub answers to `GET PATH`: the body, or the error's code. Fails on an error.
const GET: &str = r#"
exec 3<>/dev/tcp/127.0.0.1/${HF_ENDPOINT##*:}
printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
answer=$(tr -d '\r' <&3)
case $answer in "HTTP/1.1 200"*) printf '%s\n' "${answer#*$'\n\n'}" ;; *) grep X-Error-Code <<<"$answer" >&2; exit 1 ;; esac
"#;

/// The hub's answers for the model `o/m`, whose `main` is this commit.
fn publish(hub: &FaultServer, commit: &str) {
    let file = |path: &str, content: &str| {
        hub.serve(&format!("/o/m/resolve/{commit}/{path}"), content);
        let sha256 = Digest::of(content.as_bytes()).to_hex();
        let size = content.len();
        format!(
            r#"{{"type": "file", "path": "{path}", "oid": "x", "size": {size}, "lfs": {{"oid": "{sha256}", "size": {size}, "pointerSize": 1}}}}"#
        )
    };
    hub.serve("/api/models/o/m/revision/main", format!(r#"{{"sha": "{commit}"}}"#));
    let files = [file("config.json", "{}"), file("sub/weights.bin", "weights"), file("sub/more.bin", "more")];
    hub.serve(&format!("/api/models/o/m/tree/{commit}"), format!("[{}]", files.join(",")));
}

fn with(data: &str, step: &str) -> (TestContext, FaultServer, String) {
    let context = project(&format!("[data]\n{data}\n\n[steps.get]\noutputs = [\"out\"]\n{step}\n"));
    context.write("get.sh", GET);
    let hub = FaultServer::start();
    let commit = "1".repeat(40);
    publish(&hub, &commit);
    (context, hub, commit)
}

fn run((context, hub, _): &(TestContext, FaultServer, String), args: &[&str]) -> Ran {
    Ran::of(context.command(args).env("HF_ENDPOINT", hub.url("")))
}

const MODEL: &str = "m = { url = \"hf://o/m\" }";

#[test]
fn a_step_without_network_gets_the_locked_files_from_its_hub() {
    let ours = with(
        MODEL,
        r#"run = "bash get.sh /o/m/resolve/main/sub/weights.bin >out; env | grep -c ^HF_ >>out; echo $HF_HOME >>out; bash get.sh /api/models/o/m >>out"
inputs = ["get.sh", "data/m/"]
serve = ["hf"]"#,
    );
    run(&ours, &["train"]).expect(0);
    let out = ours.0.read("out");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["weights", "4", "/tmp/huggingface"], "{out}");
    assert!(lines[3].contains(&format!("\"sha\":\"{}\"", ours.2)), "{out}");
    assert_eq!(ours.0.run(["train"]).expect(0).stderr.matches("1 step up to date").count(), 1);
    // The branch moves on, to the same files: the step would see another commit, and so it runs again.
    publish(&ours.1, &"2".repeat(40));
    run(&ours, &["train"]).expect(0);
    assert_eq!(ours.0.read("out"), out);
    run(&ours, &["update", "m"]).expect(0);
    let why = ours.0.run(["why", "get"]).expect(0).stdout;
    assert!(why.contains(&format!("hub data/m: o/m main {} -> o/m main {}", ours.2, "2".repeat(40))), "{why}");
    run(&ours, &["train"]).expect(0);
    assert!(ours.0.read("out").contains(&"2".repeat(40)));
    // Without the word there is no hub.
    let text = ours.0.read("train.toml").replace("serve = [\"hf\"]", "");
    ours.0.write("train.toml", text.replace("run = \"", "run = \"test -z ${HF_ENDPOINT:-}; exit 7; "));
    let ran = run(&ours, &["train"]).expect(1);
    assert!(ran.stderr.contains("exit code 7"), "{}", ran.stderr);
}

#[test]
fn what_is_not_locked_is_named_with_the_entry_to_add() {
    // Nothing is locked at first.
    let ours = with(
        "",
        r#"run = "bash get.sh /o/m/resolve/main/sub/weights.bin >out"
inputs = ["get.sh"]
serve = ["hf"]"#,
    );
    let ran = run(&ours, &["train"]).expect(1);
    for words in [
        "X-Error-Code: RepoNotFound",
        "asks the hub for `sub/weights.bin` of hf://o/m at `main`, which it was not given",
        r#"m = { url = "hf://o/m", rev = "main", files = ["sub/weights.bin"] }"#,
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    run(&ours, &["fix", "--yes"]).expect(0);
    run(&ours, &["train"]).expect(0);
    assert_eq!(ours.0.read("out"), "weights\n");
    // Another file of the repository, which the globs leave out; then one that it does not have.
    let ask = |path: &str| {
        let text = ours.0.read("train.toml");
        let (before, rest) = text.split_once("resolve/main/").unwrap();
        let (_, after) = rest.split_once(" >out").unwrap();
        ours.0.write("train.toml", format!("{before}resolve/main/{path} >out{after}"));
        run(&ours, &["train"]).expect(1).stderr
    };
    let words = ask("config.json");
    assert!(words.contains("EntryNotFound") && words.contains("add \"config.json\" to `files` of `m`"), "{words}");
    let text = ours.0.read("train.toml").replace(", files = [\"sub/weights.bin\"]", "");
    ours.0.write("train.toml", text.replace("\"data/m/sub/weights.bin\"", "\"data/m/sub/\""));
    // All of it is locked, and the step is given a part.
    let words = ask("config.json");
    assert!(words.contains("add \"data/m/config.json\" to the inputs of step `get`"), "{words}");
    let words = ask("nothing.json");
    assert!(words.contains("EntryNotFound") && !words.contains("asks the hub"), "{words}");
    run(&ours, &["fix", "--yes"]).expect(0);
    // A revision that is not the locked one.
    let text = ours.0.read("train.toml").replace("resolve/main/", "resolve/v2/");
    ours.0.write("train.toml", text);
    let ran = run(&ours, &["train"]).expect(1);
    for words in ["RevisionNotFound", r#"m-2 = { url = "hf://o/m", rev = "v2", files = ["nothing.json"] }"#] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

#[test]
fn a_hub_takes_a_sandbox_with_a_network_of_its_own() {
    let step = "run = \"true >out\"\ninputs = [\"data/m/\"]\nserve = [\"hf\"]\n";
    let ours = with(MODEL, &format!("{step}network = true"));
    let ran = run(&ours, &["lock"]).expect(2);
    assert!(ran.stderr.contains("step `get` has both `network` and `serve`"), "{}", ran.stderr);
    let ours = with(MODEL, &format!("{step}sandbox = \"off\""));
    let ran = run(&ours, &["train"]).expect(1);
    assert!(ran.stderr.contains("`serve`, which takes a network of its own"), "{}", ran.stderr);
    assert!(ran.stderr.contains("sandbox = \"off\"") && !ours.0.has("out"), "{}", ran.stderr);
}
