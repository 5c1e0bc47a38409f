//! Outputs that are not what they seem: whatever a step leaves at their place, nothing of the host comes into the
//! store or the project by it, nothing of the host changes, and nothing hangs.

use crate::host::{Host, Who, files};
use crate::{have, one_at_a_time, users};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The step fails, with this in its error.
    Refused(&'static str),
    /// The step succeeds.
    Kept,
    /// Either, as the sandbox stops the trick itself or what is left of it is harmless.
    Either,
}
use Wanted::{Either, Kept, Refused};

/// Name, output, script (with CANARY and PROJECT as the host's paths) and what must come of it.
const TRICKS: [(&str, &str, &str, Wanted); 20] = [
    ("link-to-passwd", "a/file", "ln -s /etc/passwd a/file", Refused("a/file")),
    ("link-to-canary", "b/file", "ln -s CANARY b/file", Refused("b/file")),
    ("link-to-input", "c/file", "ln -s ../given.txt c/file", Refused("c/file")),
    ("link-to-root", "d/folder/", "rm -rf d/folder; ln -s / d/folder", Refused("d/folder")),
    ("link-to-project", "e/folder/", "rm -rf e/folder; ln -s PROJECT e/folder", Refused("e/folder")),
    ("link-inside", "f/folder/", "mkdir -p f/folder; ln -s CANARY f/folder/link", Refused("f/folder/link")),
    ("link-up", "g/folder/", "mkdir -p g/folder; ln -s ../../secret.txt g/folder/link", Refused("g/folder/link")),
    ("proc-link", "h/folder/", "mkdir -p h/folder; ln -s /proc/self/root h/folder/link", Refused("h/folder/link")),
    ("fifo", "i/file", "mkfifo i/file", Refused("i/file")),
    ("fifo-inside", "j/folder/", "mkdir -p j/folder; mkfifo j/folder/fifo", Refused("j/folder/fifo")),
    (
        "socket",
        "k/file",
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"k/file\")'",
        Refused("k/file"),
    ),
    ("device", "l/file", "mknod l/file c 1 3", Refused("l")),
    ("set-user-id", "m/file", "cp /bin/cat m/file; chmod 6755 m/file", Either),
    ("link-of-input", "n/file", "ln given.txt n/file; chmod 666 n/file; echo escaped >n/file", Either),
    ("swapped-parent", "o/deep/file", "rm -rf o/deep; ln -s PROJECT o/deep; echo escaped >o/deep/secret.txt", Either),
    ("newline", "p/folder/", "mkdir -p p/folder; echo 1 >\"p/folder/a\nb\"", Either),
    (
        "no-text",
        "q/folder/",
        "mkdir -p q/folder; python3 -c 'open(b\"q/folder/\\xff\", \"w\").write(\"1\")'",
        Refused("q/folder"),
    ),
    (
        "deep",
        "r/folder/",
        "mkdir -p r/folder; cd r/folder; python3 -c '\nimport os\nfor _ in range(200):\n  os.mkdir(\"x\" * 100); os.chdir(\"x\" * 100)\nopen(\"end\", \"w\").write(\"1\")'",
        Either,
    ),
    ("writer-behind", "s/file", "echo first >s/file; (while echo later >>s/file; do :; done) >&- 2>&- &", Kept),
    // The host's own link at an output's place is replaced, never written through.
    ("through-link", "t/file", "echo new >t/file", Kept),
];

#[test]
fn tricks_with_outputs() {
    let _turn = one_at_a_time();
    if !have(&["python3"]) {
        return;
    }
    for who in users() {
        tricks(who);
    }
}

fn tricks(who: Who) {
    let mut host = Host::new(who, "required");
    let project = host.context.project();
    let canary = host.path_of("caller").to_owned();
    let mut manifest = "[project]\nname = \"t\"\nversion = \"0.1.0\"\nsandbox = \"required\"\n".to_owned();
    for (name, output, script, _) in TRICKS {
        let script = script.replace("CANARY", canary.to_str().unwrap()).replace("PROJECT", project.to_str().unwrap());
        write!(manifest, "\n[steps.{name}]\nrun = '''\n{script}\n'''\noutputs = [\"{output}\"]\n").unwrap();
        manifest.push_str("inputs = [\"given.txt\"]\ntimeout = \"60s\"\n");
    }
    host.context.write("train.toml", manifest).write("given.txt", "given");
    fs_err::create_dir(project.join("t")).unwrap();
    fs_err::os::unix::fs::symlink(&canary, project.join("t/file")).unwrap();
    crate::host::give(&project, who);

    let ran = host.trainlock(&["train", "--keep-going"]).expect(1);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert!(host.damage().is_empty(), "{who:?}: {:?}", host.damage());
    let record = host.record();
    for (name, output, _, wanted) in TRICKS {
        let step = record["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap();
        let error = step["error"].as_str().unwrap_or_default();
        match (wanted, step["outcome"].as_str().unwrap()) {
            (Kept | Either, "ran") => {}
            (Refused(words), "failed") => assert!(error.contains(words) || step["exit-code"] != 0, "{name}: {error}"),
            (Either, "failed") => assert!(!error.is_empty(), "{name}"),
            (_, outcome) => panic!("{who:?}: {name} {outcome}: {error}\n{}", ran.stderr),
        }
        // Of a step that failed nothing is in the project.
        let there = host.context.project().join(output.trim_end_matches('/')).symlink_metadata().is_ok();
        assert_eq!(there, step["outcome"] == "ran", "{name}");
    }
    assert_eq!(host.context.read("t/file"), "new\n");
    assert!(!project.join("t/file").is_symlink());
    assert_eq!(host.context.read("given.txt"), "given");
    for folder in [project.clone(), host.context.store()] {
        assert!(host.leaks(&folder).is_empty(), "{who:?}: {:?}", host.leaks(&folder));
        for path in files(&folder) {
            // A path that is too long to be asked about is one of a kept folder.
            let Ok(facts) = path.symlink_metadata() else { continue };
            assert!(facts.is_symlink() || facts.permissions().mode() & 0o6000 == 0, "{}", path.display());
        }
    }
    host.trainlock(&["store", "verify"]).expect(0);
}
