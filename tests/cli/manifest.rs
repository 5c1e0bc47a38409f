//! Bad manifests through the binary, `init`, `schema`, and the words of `--help`.

use crate::context;
use trainlock_testing::Ran;

#[test]
fn every_bad_manifest_ends_with_2_and_its_line() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/manifests/bad");
    let mut seen = 0;
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = fs_err::read(&path).unwrap();
        let expected: Vec<String> = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|l| l.strip_prefix("# expect: "))
            .map(|l| l.split_whitespace().next().unwrap().to_owned())
            .collect();
        let context = context();
        context.write("train.toml", &text);
        let ran = context.run(["train"]);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
        for place in expected {
            assert!(ran.stderr.contains(&format!("train.toml:{place}")), "{name} at {place}:\n{}", ran.stderr);
        }
        assert!(!context.has("train.lock") && !context.has(".trainlock"), "{name}");
        seen += 1;
    }
    assert!(seen >= 40, "{seen}");
}

#[test]
fn several_mistakes_are_shown_at_once() {
    let context = context();
    context.write(
        "train.toml",
        "[project]\nname = \"T T\"\nversion = \"1\"\n[steps.s]\nrun = \"x\"\ninpust = []\noutputs = [\"x\"]\n",
    );
    let ran = context.run(["lock"]).expect(2);
    for place in ["train.toml:2:8", "train.toml:3:11", "train.toml:6:1"] {
        assert!(ran.stderr.contains(place), "{place}\n{}", ran.stderr);
    }
    assert!(ran.stderr.contains("inputs"), "{}", ran.stderr);
}

#[test]
fn no_manifest_and_a_wrong_folder() {
    let context = context();
    let ran = context.run(["train"]).expect(2);
    assert!(ran.stderr.contains("no train.toml") && ran.stderr.contains("trainlock init"), "{}", ran.stderr);
    context.run(["-C", "nowhere", "train"]).expect(2);
    context.run(["trian"]).expect(2);
    context.run(["train", "--config", "store.lnk=copy"]).expect(2);
}

#[test]
fn init_writes_what_works_and_overwrites_nothing() {
    let context = context();
    context.run(["init"]).expect(0);
    let manifest = context.read("train.toml");
    assert!(manifest.contains("name = \"project\""), "{manifest}");
    context.run(["train"]).expect(0);
    assert!(context.read("build/hello.json").contains("\"epochs\": 20"));
    context.write("train.toml", "# mine\n");
    context.run(["init"]).expect(2);
    assert_eq!(context.read("train.toml"), "# mine\n");
    context.run(["init", "--name", "Bad Name", "elsewhere"]).expect(2);
    context.run(["init", "elsewhere/with space"]).expect(0);
    assert!(context.read("elsewhere/with space/train.toml").contains("name = \"with-space\""));
}

#[test]
fn schema_and_completions() {
    let context = context();
    for args in [&["schema"][..], &["schema", "run"]] {
        let schema: serde_json::Value = serde_json::from_str(&context.run(args).expect(0).stdout).unwrap();
        assert!(schema["properties"].is_object(), "{schema}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(context.run(["completions", shell]).expect(0).stdout.contains("trainlock"));
    }
}

#[test]
fn help_of_every_command_has_an_example() {
    let context = context();
    let help = context.run(["--help"]).expect(0).stdout;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|c| *c != "help")
        .collect();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands {
        let Ran { stdout, .. } = context.run([command, "--help"]).expect(0);
        assert!(
            stdout.contains("Example") && stdout.contains(&format!("  trainlock {command}")),
            "{command}: {stdout}"
        );
    }
}
