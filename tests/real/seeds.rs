//! Global generators of the real numpy and torch, in forked children; and a library that can't be imported.

use crate::{project, write_manifest};
use std::process::Command;
use trainlock_testing::{Ran, TestContext, skipped};

/// The interpreter of Debian, which `tests/real/install` gives numpy and torch.
const TOOLS: &str = "[tools]\npython3 = { version = \"*\", from = \"host\" }\n\n";

fn run(context: &TestContext, args: &[&str]) -> Ran {
    let mut command = context.command(args);
    Ran::of(command.env("PATH", "/usr/bin:/bin"))
}

#[test]
fn numpy_and_torch_are_seeded_in_forked_children() {
    let imports = Command::new("/usr/bin/python3").args(["-c", "import numpy, torch"]).output();
    if !imports.is_ok_and(|ran| ran.status.success()) {
        skipped("numpy and torch can't be imported by /usr/bin/python3", true);
        return;
    }
    // Libraries are asked for before they are imported, as many do; then a child, its child, and another child.
    const DRAW: &str = r#"
import importlib.util, os, sys
for name in ("numpy", "torch"):
    assert importlib.util.find_spec(name) is not None
import random, numpy, torch
out = open(sys.argv[1], "w")
def draw(who):
    out.write(f"{who} {random.random()!r} {numpy.random.random()!r} {torch.rand(1).item()!r}\n")
    out.flush()
def child(who, more=lambda: None):
    pid = os.fork()
    if pid == 0:
        draw(who)
        more()
        os._exit(0)
    os.waitpid(pid, 0)
draw("parent")
child("first", lambda: child("grandchild"))
child("second")
draw("parent again")
"#;
    let step = "[steps.draw]\nrun = \"python3 draw.py {outputs.0}\"\ninputs = [\"draw.py\"]\noutputs = [\"drawn\"]\n";
    let manifest = |seed: u32, on: bool| format!("{TOOLS}[determinism]\nseed = {seed}\nseed-globals = {on}\n\n{step}");
    let context = project(&manifest(7, true));
    context.write("draw.py", DRAW);
    let drawn = |context: &TestContext| {
        run(context, &["train", "--force"]).expect(0);
        context.read("drawn")
    };
    let (first, second) = (drawn(&context), drawn(&context));
    assert_eq!(first, second);
    let lines: Vec<&str> = first.lines().collect();
    assert_eq!(lines.len(), 5, "{first}");
    // No two of them drew the same, of any generator.
    let mut values: Vec<&str> = lines.iter().flat_map(|line| line.rsplitn(4, ' ').take(3)).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 15, "{first}");
    write_manifest(&context, &manifest(8, true));
    let other = drawn(&context);
    assert!(other.lines().zip(&lines).all(|(one, two)| one != *two), "{other}{first}");
    // Without it each run draws others, so that this test can fail.
    write_manifest(&context, &manifest(7, false));
    assert_ne!(drawn(&context), drawn(&context));
}

#[test]
fn a_torch_that_cannot_be_imported_is_told() {
    if !crate::have(&["/usr/bin/python3"]) {
        return;
    }
    let step = "[steps.s]\nrun = \"echo x >{outputs.0}\"\ninputs = [\"lib/torch/__init__.py\"]\noutputs = [\"out\"]\nenv = { PYTHONPATH = \"lib\" }\n";
    let context = project(&format!("{TOOLS}{step}"));
    context.write("lib/torch/__init__.py", "raise ImportError('libtorch_cpu.so: cannot open shared object file')\n");
    let told = run(&context, &["train"]).expect(0).stderr;
    for word in ["warning", "step `s`: torch (ImportError: libtorch_cpu.so", "can't be imported", "switches of level `"]
    {
        assert!(told.contains(word), "{word}: {told}");
    }
    // One that can is asked, and one that is not there is no matter.
    context.write("lib/torch/__init__.py", "def get_num_threads(): return 1\n");
    let told = run(&context, &["train"]).expect(0).stderr;
    assert!(!told.contains("warning"), "{told}");
}
