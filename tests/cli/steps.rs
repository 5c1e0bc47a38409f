//! Steps: keys, the cache, what a step sees, and how it fails.

use crate::{chain, context, counts, project, write_manifest};
use trainlock_testing::TestContext;

fn trained(context: &TestContext) -> String {
    context.run(["train"]).expect(0).stderr
}

#[test]
fn a_second_run_runs_nothing_and_says_so() {
    let context = context();
    chain(&context);
    assert!(trained(&context).contains("3 steps ran"));
    assert_eq!(context.read("build/three"), "source");
    let second = trained(&context);
    assert!(second.contains("nothing to do: 3 steps up to date"), "{second}");
    assert_eq!(counts(&context), [1, 1, 1]);
}

#[test]
fn a_param_runs_the_steps_that_see_it_and_why_names_both_values() {
    let context = context();
    chain(&context);
    trained(&context);
    let changed = context.read("train.toml").replace("lr = 0.1", "lr = 0.2");
    context.write("train.toml", changed);
    let why = context.run(["why", "one"]).expect(0).stdout;
    assert!(why.contains("params.lr: 0.1 -> 0.2"), "{why}");
    let status = context.run(["status"]).expect(0).stdout;
    assert!(status.contains("two    depends on what one will make"), "{status}");
    trained(&context);
    // `two` reads the first six bytes of what `one` makes, which are the same: `three` need not run.
    assert_eq!(counts(&context), [2, 2, 1]);
    context.write("train.toml", context.read("train.toml").replace("epochs = 3", "epochs = 4"));
    let words = trained(&context);
    assert!(words.contains("params.epochs: 3 -> 4"), "{words}");
    assert_eq!(counts(&context), [2, 2, 2]);
}

#[test]
fn comments_order_and_a_change_undone_run_nothing() {
    let context = context();
    chain(&context);
    trained(&context);
    let text = context.read("train.toml");
    let text = text.replace("lr = 0.1\nepochs = 3", "# a comment\nepochs   =   3\nlr = 0.1 # as before");
    context.write("train.toml", text);
    trained(&context);
    context.write("source.txt", "another\n").write("source.txt", "source\n");
    let words = trained(&context);
    assert!(words.contains("nothing to do"), "{words}");
    assert_eq!(counts(&context), [1, 1, 1]);
}

#[test]
fn what_was_made_once_comes_back_from_the_store() {
    let context = context();
    chain(&context);
    trained(&context);
    context.write("source.txt", "changed\n");
    trained(&context);
    assert_eq!((context.read("build/three"), counts(&context)), ("change".into(), [2, 2, 2]));
    context.write("source.txt", "source\n");
    let words = trained(&context);
    assert!(words.contains("Cached three"), "{words}");
    assert_eq!((context.read("build/three"), counts(&context)), ("source".into(), [2, 2, 2]));
    fs_err::remove_dir_all(context.project().join("build")).unwrap();
    trained(&context);
    assert_eq!(context.read("build/three"), "source");
    // An output that was changed by hand is brought back as it was.
    fs_err::remove_file(context.project().join("build/two")).unwrap();
    context.write("build/two", "by hand");
    trained(&context);
    assert_eq!((context.read("build/two"), counts(&context)), ("source".into(), [2, 2, 2]));
}

#[test]
fn profiles_and_set_change_params_for_one_run() {
    let context = context();
    chain(&context);
    trained(&context);
    let lock = context.read("train.lock");
    context.run(["train", "--profile", "smoke"]).expect(0);
    assert_eq!(context.read("build/metrics.json"), "{\"accuracy\": 0.1}\n");
    context.run(["train", "--set", "epochs=9"]).expect(0);
    assert_eq!(context.read("build/metrics.json"), "{\"accuracy\": 0.9}\n");
    assert_eq!((counts(&context), context.read("train.lock")), ([1, 1, 3], lock));
    let run = context.run(["runs", "show", "last", "--json"]).expect(0).stdout;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    assert_eq!(run["set"]["epochs"], "9");
    assert_eq!(run["params"]["t"]["epochs"], 9);
    for (args, words) in [
        (["train", "--set", "epoch=9"], "did you mean `epochs`?"),
        (["train", "--set", "epochs=many"], "epochs"),
        (["train", "--profile", "smok"], "did you mean `smoke`?"),
    ] {
        let failed = context.run(args).expect(2);
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
    }
}

#[test]
fn a_step_sees_what_it_declares_and_nothing_else() {
    let context = project(
        r#"
[params]
a = 1
[params.b]
c = "x y"
d = 2.5
[params.hidden]
e = 1

[steps.look]
run = '''
ls -A1 >{outputs.0}; ls src >>{outputs.0}
env | cut -d= -f1 | sort >{outputs.1}
cat "$TRAINLOCK_PARAMS" >build/params.json
printf '%s|' {params.b.c} {inputs.0} {step} {project} >build/words
echo ${MINE} {not.ours} {{step} >>build/words
'''
inputs = ["src/seen.txt"]
outputs = ["build/files", "build/env", "build/params.json", "build/words"]
params = ["a", "b"]
env = { MINE = "mine" }
"#,
    );
    context.write("src/seen.txt", "").write("src/unseen.txt", "").write("other.txt", "");
    trained(&context);
    assert_eq!(context.read("build/files"), "build\nsrc\nseen.txt\n");
    let names = context.read("build/env");
    assert!(
        names.contains("MINE\n") && names.contains("TRAINLOCK_SEED\n") && !names.contains("TRAINLOCK_STORE"),
        "{names}"
    );
    let params: serde_json::Value = serde_json::from_str(&context.read("build/params.json")).unwrap();
    assert_eq!((&params["a"], &params["b"]["c"], &params["b"]["d"]), (&1.into(), &"x y".into(), &2.5.into()));
    assert!(params["seed"].is_u64() && params.get("hidden").is_none(), "{params}");
    assert_eq!(context.read("build/words"), "x y|src/seen.txt|look|t|mine {not.ours} {step}\n");
}

#[test]
fn folders_globs_and_parts_of_folders() {
    let context = project(
        r#"
[steps.make]
run = ["sh", "-c", "mkdir -p out/deep && echo 1 >out/a.txt && echo 2 >out/deep/b.txt && echo '#!/bin/sh' >out/run && chmod +x out/run"]
outputs = ["out/"]

[steps.one]
run = "cat {inputs.0} >b; ls out"
inputs = ["out/deep/b.txt"]
outputs = ["b"]

[steps.some]
run = "cat {inputs.0} >some; test -x out/run || echo no >>some"
inputs = ["out/**/*.txt"]
outputs = ["some"]

[steps.all]
run = "find out code -type f | sort >all; test -x out/run"
inputs = ["out/", "code/**/*.py", "code/data/"]
outputs = ["all"]
"#,
    );
    context.write("code/a.py", "").write("code/b/c.py", "").write("code/d.txt", "").write("code/data/e", "");
    trained(&context);
    assert_eq!(context.read("b"), "2\n");
    assert_eq!(context.read("some"), "1\n2\nno\n");
    assert_eq!(context.read("all"), "code/a.py\ncode/b/c.py\ncode/data/e\nout/a.txt\nout/deep/b.txt\nout/run\n");
    // A file that no pattern names changes nothing; one that it names does.
    context.write("code/d.txt", "changed");
    assert!(trained(&context).contains("nothing to do"));
    context.write("code/new.py", "");
    let words = trained(&context);
    assert!(words.contains("Running all (input code/new.py: new"), "{words}");
}

#[test]
fn a_failing_step_shows_the_end_of_its_log_and_keeps_its_folder() {
    let context = project(
        r#"
[steps.good]
run = "echo fine >good"
outputs = ["good"]
[steps.bad]
run = "cat good; echo 'what went wrong' >&2; echo half >bad; exit 7"
inputs = ["good"]
outputs = ["bad"]
[steps.after]
run = "cp bad after"
inputs = ["bad"]
outputs = ["after"]
"#,
    );
    let failed = context.run(["train"]).expect(1);
    for words in
        ["step `bad` failed with exit code 7", "what went wrong", "not run: `after`", "its folder, as it left it: "]
    {
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
    let folder = failed.stderr.lines().find_map(|l| l.split_once("as it left it: ")).unwrap().1;
    assert_eq!(fs_err::read_to_string(std::path::Path::new(folder).join("root/bad")).unwrap(), "half\n");
    assert!(!context.has("bad") && context.has("good"));
    write_manifest(&context, &context.read("train.toml").split_once("\n\n").unwrap().1.replace("exit 7", "exit 0"));
    context.run(["train"]).expect(0);
    assert_eq!(context.read("after"), "half\n");
}

#[test]
fn keep_going_does_what_does_not_need_the_failed_step() {
    let context = project(
        r#"
[steps.bad]
run = "exit 1"
outputs = ["bad"]
[steps.needs-bad]
run = "touch x"
inputs = ["bad"]
outputs = ["x"]
[steps.alone]
run = "sleep 0.05; touch alone"
outputs = ["alone"]
[steps.after]
run = "touch after"
inputs = ["alone"]
outputs = ["after"]
"#,
    );
    let failed = context.run(["train", "--keep-going", "-j1"]).expect(1);
    assert!(failed.stderr.contains("not run: `needs-bad`"), "{}", failed.stderr);
    assert!(context.has("after") && !context.has("x"));
}

#[test]
fn outputs_that_are_missing_or_of_the_wrong_kind() {
    for (command, outputs, words) in [
        ("touch build/other", "build/x", "did not write `build/x`, which its `outputs` name"),
        ("mkdir build/x", "build/x", "made a folder of `build/x`"),
        ("touch build/x", "build/x/", "made a file of `build/x/`"),
        ("ln -s /etc/passwd build/x", "build/x", "neither a file nor a folder"),
        ("mkdir build/x && ln -s /etc/passwd build/x/y", "build/x/", "build/x"),
        ("mkfifo build/x", "build/x", "neither a file nor a folder"),
    ] {
        let context = project(&format!("[steps.s]\nrun = \"{command}\"\noutputs = [\"{outputs}\"]\n"));
        let failed = context.run(["train"]).expect(1);
        assert!(failed.stderr.contains(words), "{command}: {}", failed.stderr);
        assert!(!context.has("build/x"), "{command}");
    }
}

#[test]
fn a_step_that_writes_to_its_input_fails_and_the_store_is_whole() {
    let context = project(
        r#"
[steps.make]
run = "echo good >made"
outputs = ["made"]
[steps.spoil]
run = "chmod u+w made; echo bad >made; touch done"
inputs = ["made"]
outputs = ["done"]
"#,
    );
    // The sandbox does not let it; without one it is found afterwards, and the store puts it right.
    let words = context.run(["train", "--config", "store.link=hardlink"]).expect(1).stderr;
    assert!(words.contains("step `spoil` writes to its input `made`"), "{words}");
    let off = ["train", "--config", "store.link=hardlink", "--config", "sandbox=off"];
    let words = context.run(off).expect(1).stderr;
    assert!(words.contains("step `spoil` wrote to its input `made`"), "{words}");
    context.run(["store", "verify"]).expect(0);
    let fixed = context.read("train.toml").replace("chmod u+w made; echo bad >made; touch done", "cp made done");
    context.write("train.toml", fixed);
    context.run(["train"]).expect(0);
    assert_eq!(context.read("done"), "good\n");
}

#[test]
fn timeout_retries_and_expect() {
    let context = project("[steps.slow]\nrun = \"sleep 60\"\noutputs = [\"x\"]\ntimeout = \"100ms\"\n");
    let words = context.run(["train"]).expect(1).stderr;
    assert!(words.contains("step `slow` took longer than its timeout of 0.10s"), "{words}");

    let context = crate::context();
    let tries = context.root().join("tries");
    let run =
        format!("echo x >>{0}; test $(wc -l <{0}) -ge 3; echo '{{\\\"accuracy\\\": 0.5}}' >m.json", tries.display());
    let tried = || fs_err::read_to_string(&tries).unwrap().lines().count();
    let step = |more: &str| {
        format!("[steps.s]\nrun = \"{run}\"\nmetrics = [\"m.json\"]\nretries = 2\nsandbox = \"off\"\n{more}")
    };
    write_manifest(&context, &step(""));
    context.run(["train"]).expect(0);
    assert_eq!(tried(), 3);
    // What is expected can change after the step ran: it is checked again, without running the step.
    write_manifest(&context, &step("expect = { accuracy = { min = 0.9 } }\n"));
    let words = context.run(["train"]).expect(1).stderr;
    assert_eq!(tried(), 3);
    assert!(words.contains("step `s` has accuracy = 0.5, but `expect` says min = 0.9"), "{words}");
}

#[test]
fn force_and_dry_run() {
    let context = context();
    chain(&context);
    let dry = context.run(["train", "--dry-run"]).expect(0).stderr;
    assert!(dry.contains("Would run one (it has not run here)") && dry.contains("May run two"), "{dry}");
    assert_eq!(counts(&context), [0, 0, 0]);
    assert!(!context.has("build") && !context.has("train.lock"));
    trained(&context);
    context.run(["train", "--force", "two"]).expect(0);
    assert_eq!(counts(&context), [2, 2, 1]);
}

#[test]
fn names_with_spaces_umlauts_and_quotes() {
    let context = project(
        r#"
[params]
text = "it's \"quoted\" $HOME ü"
[steps.s]
run = "cat {inputs.0} >{outputs.0}; printf %s {params.text} >>{outputs.0}"
inputs = ["daten für alle/größe 1.txt"]
outputs = ["aus gabe/ergebnis 'ü'.txt"]
"#,
    );
    context.write("daten für alle/größe 1.txt", "12 ");
    trained(&context);
    assert_eq!(context.read("aus gabe/ergebnis 'ü'.txt"), "12 it's \"quoted\" $HOME ü");
}

#[test]
fn an_unknown_step_and_a_missing_input_are_named() {
    let context = context();
    chain(&context);
    let failed = context.run(["train", "thre"]).expect(2);
    assert!(failed.stderr.contains("no step `thre`; did you mean `three`?"), "{}", failed.stderr);
    context.write(
        "train.toml",
        context.read("train.toml").replace("inputs = [\"source.txt\"]", "inputs = [\"sorce.txt\"]"),
    );
    let failed = context.run(["train"]).expect(2);
    for words in ["input `sorce.txt` is missing", "train.toml:15:11", "did you mean `source.txt`?"] {
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
}
