//! What takes more than one file, and what valid manifests mean.

use tempfile::TempDir;
use trainlock_manifest::{
    InputPattern, ManifestError, Origin, Piece, PythonFrom, Run, StepId, Workspace, discover, load, parse_value,
};
use trainlock_types::{DataSource, Diagnostic, Platform, ToolFrom, ToolMatch, ToolProvider, Value};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    folder
}

fn loaded(folder: &TempDir, manifest: &str) -> Workspace {
    match load(&folder.path().join(manifest)) {
        Ok(workspace) => workspace,
        Err(ManifestError::Invalid(all)) => {
            panic!("{:#?}", all.iter().map(|d| &d.message).collect::<Vec<_>>())
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn wrong(folder: &TempDir, manifest: &str) -> Vec<Diagnostic> {
    match load(&folder.path().join(manifest)) {
        Err(ManifestError::Invalid(diagnostics)) => diagnostics,
        other => panic!("{other:?}"),
    }
}

/// `FILE:LINE message` of each mistake.
fn told(folder: &TempDir, manifest: &str) -> Vec<String> {
    let root = fs_err::canonicalize(folder.path()).unwrap();
    let line = |d: &Diagnostic| {
        let file = d.source.path.strip_prefix(&root).unwrap().display();
        format!("{file}:{} {}", d.source.line_column(d.span.start).0, d.message)
    };
    wrong(folder, manifest).iter().map(line).collect()
}

const ROOT: &str = r#"
[project]
name = "root"

[workspace]
members = ["experiments/*", "lib"]
exclude = ["experiments/old"]
platforms = ["macos-aarch64", "linux-x86_64"]

[workspace.data.raw]
url = "https://example.org/raw.csv"

[workspace.data.notes]
path = "notes"

[workspace.tools]
python = "3.11"
ffmpeg = { version = "^6", from = "host", match = "requirement" }

[workspace.python]
requirements = "requirements.txt"

[workspace.params]
epochs = 20
optimizer = { name = "adam", lr = 0.1 }

[steps.all]
run = "cat {inputs.0}"
inputs = ["experiments/one/build/"]
outputs = ["all.txt"]
"#;

const ONE: &str = r#"
[project]
name = "one"

[data]
raw.workspace = true
notes.workspace = true

[tools]
python.workspace = true
ffmpeg.workspace = true

[python]
workspace = true

[params]
epochs.workspace = true
optimizer.workspace = true
own = { lr.workspace = false }
"#;

fn one() -> String {
    ONE.replace("own = { lr.workspace = false }\n", "own = 1\n")
        + r#"
[profile.smoke.params]
epochs = 1
optimizer = { lr = 1 }

[steps.train]
run = "train {data.raw} {data.notes} {params.optimizer.lr}"
inputs = ["data/raw.csv", "../../notes", "../../lib/src/a.py"]
outputs = ["build/model"]
params = ["epochs"]
"#
}

const LIB: &str = "[project]\nname = \"lib\"\n\n[data]\nraw = { workspace = true, to = \"in/raw\" }\n";

fn workspace() -> TempDir {
    folder(&[
        ("train.toml", ROOT),
        ("experiments/one/train.toml", &one()),
        ("experiments/old/train.toml", "not even TOML"),
        ("experiments/none/readme", ""),
        ("lib/train.toml", LIB),
        ("elsewhere/train.toml", "[project]\nname = \"elsewhere\"\n"),
    ])
}

#[test]
fn members_are_found_and_inherit() {
    let folder = workspace();
    let workspace = loaded(&folder, "train.toml");
    let members: Vec<(&str, &str)> = workspace.members.iter().map(|m| (m.name.as_str(), m.dir.as_str())).collect();
    assert_eq!(members, [("root", ""), ("one", "experiments/one"), ("lib", "lib")]);
    assert_eq!(workspace.current.as_deref(), Some("root"));
    assert_eq!(workspace.platforms, [Platform::LinuxX86_64, Platform::MacosAarch64]);

    let one = workspace.member("one").unwrap();
    let places: Vec<&str> = one.data.iter().map(|d| d.request.to.as_str()).collect();
    assert_eq!(places, ["experiments/one/data/raw.csv", "notes"]);
    assert_eq!(one.data[0].request.member.as_deref(), Some("one"));
    assert!(matches!(&one.data[1].request.source, DataSource::Path(path) if path.as_str() == "notes"));
    // Where an inherited entry stands is in the root manifest.
    assert_eq!(&one.data[0].source.text[one.data[0].span.clone()], "raw");
    assert_eq!(one.data[0].source.path, workspace.root.join("train.toml"));
    assert!(matches!(&one.tools[0].request.provider, ToolProvider::Fetched(tool) if tool.from == ToolFrom::Python));
    assert!(matches!(&one.tools[1].request.provider, ToolProvider::Host { accept: ToolMatch::Requirement, .. }));
    assert!(
        matches!(&one.python.as_ref().unwrap().from, PythonFrom::Requirements(p) if p.as_str() == "requirements.txt")
    );
    let params: Vec<String> = one.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(params, ["epochs=20", "optimizer.lr=0.1", "optimizer.name=\"adam\"", "own=1"]);
    let smoke = one.params_for(Some("smoke")).unwrap();
    assert_eq!((&smoke["epochs"], &smoke["optimizer.lr"]), (&Value::Int(1), &Value::Float(1.0)));

    let lib = workspace.member("lib").unwrap();
    assert_eq!(lib.data[0].request.to.as_str(), "lib/in/raw");
}

#[test]
fn steps_are_tied_by_paths_across_members() {
    let folder = workspace();
    let workspace = loaded(&folder, "train.toml");
    let (all, train) = (StepId { member: 0, step: 0 }, StepId { member: 1, step: 0 });
    assert_eq!(workspace.step(all).needs, [train]);
    assert_eq!(workspace.order, [train, all]);
    assert_eq!((workspace.label(all), workspace.label(train)), ("all".to_owned(), "one/train".to_owned()));
    let origins: Vec<&[Origin]> = workspace.step(train).inputs.iter().map(|i| &i.origins[..]).collect();
    let data = |data| Origin::Data { member: 1, data };
    assert_eq!(origins, [&[data(0)][..], &[data(1)], &[]]);
    assert_eq!(workspace.step(train).params, ["epochs", "optimizer.lr"]);
}

#[test]
fn a_member_finds_its_root_and_a_stranger_has_none() {
    let folder = workspace();
    let root = fs_err::canonicalize(folder.path()).unwrap();
    for (manifest, current) in [("experiments/one/train.toml", "one"), ("lib/train.toml", "lib")] {
        let workspace = loaded(&folder, manifest);
        assert_eq!((&workspace.root, workspace.current.as_deref()), (&root, Some(current)));
        assert_eq!(workspace.members.len(), 3);
    }
    let alone = loaded(&folder, "elsewhere/train.toml");
    assert_eq!((alone.root, alone.members.len()), (root.join("elsewhere"), 1));
    // What is excluded stands alone too, and its mistakes are its own.
    assert_eq!(told(&folder, "experiments/old/train.toml").len(), 1);
}

#[test]
fn the_nearest_manifest_is_discovered() {
    let folder = workspace();
    let root = fs_err::canonicalize(folder.path()).unwrap();
    fs_err::create_dir_all(folder.path().join("lib/src/deep")).unwrap();
    assert_eq!(discover(&folder.path().join("lib/src/deep")).unwrap(), root.join("lib/train.toml"));
    assert_eq!(discover(&folder.path().join("experiments/none")).unwrap(), root.join("train.toml"));
    assert!(matches!(discover(&folder.path().join("missing")), Err(ManifestError::Io { .. })));
    let empty = tempfile::tempdir().unwrap();
    match discover(empty.path()) {
        Err(error @ ManifestError::NotFound { .. }) => {
            assert!(error.to_string().starts_with("no train.toml in `/"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_virtual_root_has_members_alone() {
    let folder = folder(&[
        ("train.toml", "[workspace]\nmembers = [\"a\", \"deep/**\"]\n"),
        ("a/train.toml", "[project]\nname = \"a\"\n"),
        ("deep/x/y/train.toml", "[project]\nname = \"y\"\n"),
        ("deep/.hidden/train.toml", "[project]\nname = \"hidden\"\n"),
    ]);
    let workspace = loaded(&folder, "train.toml");
    assert!(workspace.is_virtual);
    assert_eq!(workspace.current, None);
    let members: Vec<&str> = workspace.members.iter().map(|m| m.dir.as_str()).collect();
    assert_eq!(members, ["a", "deep/x/y"]);
    assert_eq!(loaded(&folder, "deep/x/y/train.toml").current.as_deref(), Some("y"));
}

#[test]
fn mistakes_of_all_files_are_told_together() {
    let folder = folder(&[
        (
            "train.toml",
            "[workspace]\nmembers = [\"*\", \"mising\"]\n[workspace.data.raw]\nurl = \"nowhere\"\n[workspace.params]\na = nan\nt = { b = 1 }\n",
        ),
        ("missing/train.toml", "[project]\nversion = \"1\"\n"),
        (
            "a/train.toml",
            "[project]\nname = \"same\"\n[data]\nraw.workspace = true\nraws.workspace = true\n[params]\na.workspace = true\nt.workspace = true\nc.workspace = true\n[profile.x.params]\na = 3\n[steps.s]\nrun = \"{params.t.b} {params.c.d} {data.raw}\"\noutputs = [\"../shared\"]\n",
        ),
        ("b/train.toml", "[project]\nname = \"same\"\n[steps.s]\nrun = \"x\"\noutputs = [\"../shared/x\"]\n"),
        ("c/train.toml", "[workspace]\n"),
        ("d/train.toml", "[params]\n"),
    ]);
    assert_eq!(
        told(&folder, "train.toml"),
        [
            "a/train.toml:5 no `raws` in `[workspace.data]`",
            "a/train.toml:9 no `c` in `[workspace.params]`",
            "b/train.toml:2 two projects of the workspace have the name `same`",
            "c/train.toml:1 a member can't be a workspace itself",
            "c/train.toml:1 no `[project]`",
            "d/train.toml:1 no `[project]`",
            "missing/train.toml:1 `[project]` has no `name`",
            "missing/train.toml:2 bad version: unexpected end of input while parsing major version number",
            "train.toml:2 no train.toml in member `mising`",
            "train.toml:4 bad URL: not a URL: relative URL without a base",
            "train.toml:6 a param is a finite number, not `nan` or `inf`",
        ]
    );
    let help = |message: &str| {
        let all = wrong(&folder, "train.toml");
        all.into_iter().find(|d| d.message.contains(message)).and_then(|d| d.help).unwrap()
    };
    assert_eq!(help("`mising`"), "did you mean `missing`?");
    assert!(help("two projects").contains("a/train.toml:2:8"), "{}", help("two projects"));
}

#[test]
fn what_members_write_and_fetch_does_not_collide() {
    let step = |name: &str, body: &str| format!("[project]\nname = \"{name}\"\n{body}");
    let folder = folder(&[
        ("train.toml", "[workspace]\nmembers = [\"*\"]\n"),
        (
            "a/train.toml",
            &step(
                "a",
                "[data]\nx = { url = \"https://example.org/x\", to = \"../data/x\" }\nn = { path = \"../notes\" }\n[steps.s]\nrun = \"x\"\noutputs = [\"../build\"]\n",
            ),
        ),
        (
            "b/train.toml",
            &step(
                "b",
                "[data]\nx = { url = \"https://example.org/x\", to = \"../data/x/y\" }\nn = { path = \"../notes/sub\" }\n[steps.s]\nrun = \"x\"\noutputs = [\"../build/x\", \"../notes/z\"]\n",
            ),
        ),
        ("c/train.toml", &step("c", "[steps.s]\nrun = \"x\"\ninputs = [\"../d/out\"]\noutputs = [\"out\"]\n")),
        ("d/train.toml", &step("d", "[steps.s]\nrun = \"x\"\ninputs = [\"../c/out\"]\noutputs = [\"out\"]\n")),
    ]);
    assert_eq!(
        told(&folder, "train.toml"),
        [
            "b/train.toml:4 data `x` (at `data/x/y`) lies inside data `x` (at `data/x`)",
            "b/train.toml:8 output `../build/x` lies inside output `../build` of step `s`",
            "b/train.toml:8 output `../notes/z` is in the place of data `n` (at `notes`)",
            "c/train.toml:3 steps need each other: `c/s` needs `d/s`, which needs `c/s`",
        ]
    );
}

#[test]
fn syntax_errors_hide_nothing_of_the_shape_elsewhere() {
    let folder = folder(&[
        ("train.toml", "[workspace]\nmembers = [\"*\"]\n"),
        ("a/train.toml", "[project\nname = \"a\"\n"),
        ("b/train.toml", "[project]\nnam = \"b\"\n"),
    ]);
    assert_eq!(
        told(&folder, "b/train.toml"),
        [
            "a/train.toml:1 unclosed table, expected `]`",
            "b/train.toml:1 `[project]` has no `name`",
            "b/train.toml:2 unknown key `nam` in `[project]`",
        ]
    );
}

#[test]
fn another_trainlock_is_asked_for_before_all_else() {
    let folder = folder(&[("train.toml", "[project]\nname = \"x\"\nrequires-trainlock = \">=99\"\nnew-key = 1\n")]);
    match load(&folder.path().join("train.toml")) {
        Err(ManifestError::RequiresTrainlock(d)) => {
            assert_eq!(d.source.line_column(d.span.start), (3, 22))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_are_no_manifests() {
    let folder = folder(&[]);
    fs_err::write(folder.path().join("train.toml"), b"[project]\nname = \"\xff\"\n").unwrap();
    let error = load(&folder.path().join("train.toml")).unwrap_err();
    assert!(matches!(error, ManifestError::Encoding { line: 2, .. }), "{error:?}");
    for path in ["missing.toml", "."] {
        assert!(matches!(load(&folder.path().join(path)), Err(ManifestError::Io { .. })), "{path}");
    }
}

/// The workspace of one project with these lines behind `[project]`.
fn project(lines: &str) -> Workspace {
    let folder = folder(&[("train.toml", &format!("[project]\nname = \"p\"\n{lines}"))]);
    loaded(&folder, "train.toml")
}

#[test]
fn data_lies_where_the_rules_say() {
    let workspace = project(
        r#"
[data]
percent = { url = "https://example.org/a%20b.csv?x=1" }
odd = { url = "https://example.org/%0A", to = "x//./y" }
bucket = { url = "s3://bucket/key.bin" }
prefix = { url = "s3://bucket/key/" }
globbed = { url = "gs://bucket/key", files = ["*"] }
member = { url = "file:///tmp/a.zip", extract = "deep/m.csv" }
tree = { url = "https://example.org/tree.tar.gz", unpack = true, to = "data/t/" }
hub = { url = "hf://org/model" }
paper = { url = "doi:10.5281/zenodo.1" }
local = { path = "x/../z/" }
described = { croissant = "meta/croissant.json" }
"#,
    );
    let places: Vec<&str> = workspace.members[0].data.iter().map(|d| d.request.to.as_str()).collect();
    assert_eq!(
        places,
        [
            "data/a b.csv",
            "x/y",
            "data/key.bin",
            "data/prefix",
            "data/globbed",
            "data/m.csv",
            "data/t",
            "data/hub",
            "data/paper",
            "z",
            "data/described"
        ]
    );
    assert!(
        matches!(&workspace.members[0].data[10].request.source, DataSource::Croissant(p) if p == "meta/croissant.json")
    );
}

#[test]
fn inputs_know_their_origins() {
    let workspace = project(
        r#"
[data]
img = { url = "https://example.org/i.zip", unpack = true, to = "data/img" }
img-b = { url = "https://example.org/b.csv", to = "data/img-b" }

[steps.use]
run = ["use", "{inputs.0}", "$HOME {{x} {step}"]
inputs = ["build", "build/ckpt/", "build/ckpt/a.pt", "build/ckpt/*.pt", "build/*", "data/", "data/img/*.png", "data/i*", "build-x"]
outputs = ["out"]

[steps.make]
run = "make"
outputs = ["build/a", "build/ckpt/"]

[steps.other]
run = "make"
outputs = ["build-x/y"]
"#,
    );
    let step = StepId { member: 0, step: 1 };
    let (a, ckpt) = (Origin::Output { step, output: 0 }, Origin::Output { step, output: 1 });
    let other = Origin::Output { step: StepId { member: 0, step: 2 }, output: 0 };
    let data = |data| Origin::Data { member: 0, data };
    let using = workspace.step(StepId { member: 0, step: 0 });
    let origins: Vec<&[Origin]> = using.inputs.iter().map(|i| &i.origins[..]).collect();
    assert_eq!(
        origins,
        [&[a, ckpt][..], &[ckpt], &[ckpt], &[ckpt], &[], &[data(0), data(1)], &[data(0)], &[], &[other]]
    );
    assert!(
        matches!(&using.inputs[3].pattern, InputPattern::Glob { folder, glob } if folder.as_str() == "build/ckpt" && glob == "*.pt")
    );
    assert!(matches!(&using.inputs[1].pattern, InputPattern::Path { folder: true, .. }));
    assert_eq!(using.needs.len(), 2);
    let Run::Exec(arguments) = &using.run else { panic!("an array") };
    assert_eq!(arguments[1].pieces, [Piece::Input(0)]);
    assert_eq!(arguments[2].pieces, [Piece::Text("$HOME {x} ".to_owned()), Piece::Step]);
}

#[test]
fn steps_keep_the_order_of_the_file() {
    // The second step's header stands behind that of a table inside it.
    let workspace = project(
        "[steps.z]\nrun = \"x\"\noutputs = [\"z\"]\n[steps.m.env]\nA = \"1\"\n[steps.a]\nrun = \"x\"\noutputs = [\"a\"]\n[steps.m]\nrun = \"x\"\noutputs = [\"m\"]\n",
    );
    let names: Vec<&str> = workspace.order.iter().map(|id| workspace.step(*id).name.as_str()).collect();
    assert_eq!(names, ["z", "a", "m"]);
    assert_eq!(workspace.members[0].steps[2].env["A"], "1");
}

#[test]
fn a_value_set_by_hand_fits_the_params() {
    let workspace = project("[params]\nlr = 0.1\nlist = [1, { a = 2 }]\nday = 2026-11-22\n");
    let params = &workspace.members[0].params;
    assert_eq!(params["list"].to_string(), "[1, { \"a\" = 2 }]");
    assert_eq!(params["day"], Value::Datetime("2026-11-22".into()));
    assert_eq!(parse_value("1", &params["lr"]), Ok(Value::Float(1.0)));
}

#[test]
fn long_chains_are_no_trouble() {
    let steps = 3000;
    let step = |i: usize| {
        let needs = if i + 1 < steps { format!("inputs = [\"o/{}\"]\n", i + 1) } else { String::new() };
        format!("[steps.s{i}]\nrun = \"x\"\n{needs}outputs = [\"o/{i}\"]\n")
    };
    let text: String = (0..steps).map(step).collect();
    let workspace = project(&text);
    let order: Vec<usize> = workspace.order.iter().map(|id| id.step).collect();
    assert!(order.iter().rev().copied().eq(0..steps));
    let folder = folder(&[(
        "train.toml",
        &format!("[project]\nname = \"p\"\n{text}").replacen(
            "outputs = [\"o/2999\"]",
            "inputs = [\"o/0\"]\noutputs = [\"o/2999\"]",
            1,
        ),
    )]);
    let all = wrong(&folder, "train.toml");
    assert_eq!(all.len(), 1);
    let message = &all[0].message;
    assert!(
        message.contains("`s6`, which needs `s7`, which needs 2991 more, which needs `s2999`, which needs `s0`"),
        "{:.400}",
        message
    );
}

#[test]
fn paths_with_names_that_look_alike_are_apart() {
    let workspace = project(
        "[steps.a]\nrun = \"x\"\noutputs = [\"b/c\", \"b-c\", \"b/c-d\", \"b/c.d/e\"]\n[steps.u]\nrun = \"x\"\ninputs = [\"b/c\"]\noutputs = [\"u\"]\n",
    );
    assert_eq!(workspace.members[0].steps[1].inputs[0].origins.len(), 1);
}
