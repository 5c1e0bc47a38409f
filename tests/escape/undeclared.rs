//! A step that uses what it did not declare is told what it was, and how to declare it.

use crate::{have, have_namespaces};
use trainlock_testing::{Ran, TestContext};

/// A project `t` whose step `train` is this; `src/util.py` is there and not among its inputs.
fn project(step: &str) -> TestContext {
    let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    context.write(
        "train.toml",
        format!("[project]\nname = \"t\"\nversion = \"0.1.0\"\nsandbox = \"required\"\n\n[steps.train]\n{step}\n"),
    );
    context.write("src/util.py", "rate = 0.1\n");
    context
}

const WORDS: &str = "step `train` reads `src/util.py`, which is not in its inputs";

/// The step fails and the error says what it reads, with a line to add.
#[track_caller]
fn explained(ran: Ran) {
    let ran = ran.expect(1);
    assert!(ran.stderr.contains(WORDS), "{}", ran.stderr);
    let suggestion = ran.stderr.lines().find(|line| line.contains("inputs = [") && line.contains("\"src/util.py\""));
    assert!(suggestion.is_some(), "{}", ran.stderr);
}

#[test]
fn a_file_that_is_opened() {
    if !have(&["python3"]) || !have_namespaces() {
        return;
    }
    let context = project("run = [\"python3\", \"src/train.py\"]\ninputs = [\"src/train.py\"]\noutputs = [\"model\"]");
    context.write("src/train.py", "open('model', 'w').write(open('src/util.py').read())\n");
    explained(context.run(["train"]));
    assert!(!context.has("model"));
    // By another name of the same file.
    context.write(
        "src/train.py",
        "import os\nos.chdir('src')\nopen('../model', 'w').write(open('../src/./util.py').read())\n",
    );
    explained(context.run(["train"]));
}

#[test]
fn a_module_that_is_imported() {
    if !have(&["python3"]) || !have_namespaces() {
        return;
    }
    let context = project("run = [\"python3\", \"src/train.py\"]\ninputs = [\"src/train.py\"]\noutputs = [\"model\"]");
    context.write("src/train.py", "import util\nopen('model', 'w').write(str(util.rate))\n");
    explained(context.run(["train"]));
    // One that does without it is not failed for having looked.
    context
        .write("src/train.py", "try:\n    import util\nexcept ImportError:\n    pass\nopen('model', 'w').write('1')\n");
    let ran = context.run(["train"]).expect(0);
    assert!(!ran.stderr.contains("error"), "{}", ran.stderr);
}

#[test]
fn a_file_that_a_shell_and_a_program_of_c_read() {
    if !have(&["cc"]) || !have_namespaces() {
        return;
    }
    let context = project("run = \"cat src/util.py >model\"\noutputs = [\"model\"]");
    explained(context.run(["train"]));

    let context = project("run = \"./reader >model\"\ninputs = [\"reader\"]\noutputs = [\"model\"]");
    context.write(
        "reader.c",
        "#include <fcntl.h>\n#include <unistd.h>\nint main(void) { char byte; int file = open(\"src/util.py\", O_RDONLY);\n\
         if (file < 0) return 7; while (read(file, &byte, 1) == 1) write(1, &byte, 1); return 0; }\n",
    );
    let mut compile = std::process::Command::new("cc");
    compile.args(["-w", "-o", "reader", "reader.c"]).current_dir(context.project());
    Ran::of(&mut compile).expect(0);
    explained(context.run(["train"]));
}

#[test]
fn a_host_that_is_asked() {
    if !have(&["python3"]) || !have_namespaces() {
        return;
    }
    // A name that no network knows (RFC 2606).
    let url = "https://models.invalid/org/name/resolve/main/model.safetensors";
    let context = project("run = [\"python3\", \"train.py\"]\ninputs = [\"train.py\"]\noutputs = [\"model\"]");
    context.write(
        "train.py",
        format!("import urllib.request\nopen('model', 'wb').write(urllib.request.urlopen('{url}').read())\n"),
    );
    let ran = context.run(["train"]).expect(1);
    let says = ran.stderr.lines().any(|line| line.contains("step `train`") && line.contains("`models.invalid`"));
    assert!(says && ran.stderr.contains("[data"), "{}", ran.stderr);
    // One by its address, at which nobody answers (RFC 5737).
    context.write("train.py", "import socket\nsocket.create_connection(('192.0.2.1', 443), 5)\n");
    let ran = context.run(["train"]).expect(1);
    assert!(ran.stderr.contains("192.0.2.1"), "{}", ran.stderr);
}

#[test]
fn a_file_that_is_written_elsewhere() {
    if !have_namespaces() {
        return;
    }
    let context = project("run = \"mkdir -p cache; echo 1 >cache/part; echo 1 >model\"\noutputs = [\"model\"]");
    let ran = context.run(["train"]).expect(0);
    assert!(ran.stderr.contains("step `train`") && ran.stderr.contains("`cache"), "{}", ran.stderr);
    assert!(ran.stderr.contains("outputs"), "{}", ran.stderr);
    assert!(!context.has("cache") && context.has("model"));
    // In a folder that holds no output nothing can be written.
    let context =
        project("run = \"mkdir -p build; echo 1 >notes.txt; echo 1 >build/model\"\noutputs = [\"build/model\"]");
    let ran = context.run(["train"]).expect(1);
    assert!(ran.stderr.contains("step `train` writes `notes.txt`, which is not in its outputs"), "{}", ran.stderr);
}

#[test]
fn an_output_that_is_missing() {
    if !have_namespaces() {
        return;
    }
    let context = project("run = \"echo 1 >build/other\"\noutputs = [\"build/model\"]");
    let ran = context.run(["train"]).expect(1);
    assert!(ran.stderr.contains("did not write `build/model`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("build/other") || ran.stderr.contains("`other`"), "{}", ran.stderr);
}

#[test]
fn what_is_suggested_is_applied() {
    if !have(&["python3"]) || !have_namespaces() {
        return;
    }
    let context = project(
        "# What it learns from.\nrun     = [\"python3\", \"src/train.py\"]   # no shell\ninputs  = [\n    \"src/train.py\",  # the program\n]\noutputs = [\"model\"]",
    );
    context.write("src/train.py", "import util\nopen('model', 'w').write(str(util.rate))\n");
    explained(context.run(["train"]));
    let before = context.read("train.toml");

    let ran = context.run(["fix", "--yes"]).expect(0);
    assert!((ran.stdout + &ran.stderr).contains("src/util.py"), "the change is shown");
    let after = context.read("train.toml");
    for line in before.lines() {
        assert!(after.contains(line.trim_end_matches(']')), "`{line}` is gone:\n{after}");
    }
    assert!(after.contains("\"src/util.py\""), "{after}");
    context.run(["train"]).expect(0);
    assert_eq!(context.read("model"), "0.1");
    // Nothing is left to mend.
    context.run(["fix", "--yes"]).expect(0);
    assert_eq!(context.read("train.toml"), after);
}
