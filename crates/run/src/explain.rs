//! Why a step that failed may have failed: what it used and was not given.
//!
//! The end of its log is read first: programs name the file or the host that they missed. Where that
//! says nothing, the step can be run once more with its system calls watched, and what it asked for in
//! vain is looked up in the project.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use trainlock_env::sandbox::{Access, Attempt, Hub, Refusal};
use trainlock_manifest::Data;
use trainlock_types::{DataSource, Name, RelPath, SourceUrl, hub_id};

/// As many undeclared uses are told of one step.
pub(crate) const TOLD: usize = 8;

/// Something that a step used and was not given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undeclared {
    /// A file or folder of the project, relative to the workspace.
    Project {
        /// The path.
        path: RelPath,
        /// Whether it is a folder.
        folder: bool,
    },
    /// A file of the machine, outside the project.
    Machine(String),
    /// A place of the project that no output names.
    Write(RelPath),
    /// An input, written to.
    Input(RelPath),
    /// The network.
    Network {
        /// The host.
        host: String,
        /// The whole address, where it can be known.
        url: Option<String>,
    },
    /// A repository of the hub, or a file of one.
    Hub {
        /// `hf://datasets/ORG/NAME`, or `hf://ORG/NAME` for a model.
        address: String,
        /// The revision asked for.
        revision: Option<String>,
        /// The file asked for.
        path: Option<String>,
        /// The data set whose `files` leave it out.
        narrow: Option<Name>,
    },
}

/// A change to train.toml that gives a step what it lacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fix {
    /// An input to add.
    Input {
        /// `member/step`, or `step` in the root project.
        step: String,
        /// Relative to the member's folder, as it would be written.
        path: String,
    },
    /// A data set to add, and its file among the inputs.
    Data {
        /// `member/step`, or `step` in the root project.
        step: String,
        /// The data set's name.
        name: String,
        /// The entry's value: an inline table.
        entry: String,
        /// Where the step then finds it.
        path: String,
    },
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fix::Input { step, path } => write!(f, "add \"{path}\" to the inputs of step `{step}`"),
            Fix::Data { step, name, entry, path } => {
                write!(f, "add to [data]: {name} = {entry}\nand \"{path}\" to the inputs of step `{step}`")
            }
        }
    }
}

/// What a step sees of its project.
pub(crate) struct Seen<'a> {
    /// The workspace.
    pub(crate) root: &'a Path,
    /// The folder that the step starts in, relative to the workspace.
    pub(crate) cwd: &'a RelPath,
    /// Where the step sees the workspace.
    pub(crate) mounted: &'a Path,
    /// Whether the step was given a path.
    pub(crate) staged: &'a dyn Fn(&RelPath) -> bool,
    /// Whether a path is one of the step's outputs, or in one.
    pub(crate) own: &'a dyn Fn(&RelPath) -> bool,
}

impl Seen<'_> {
    /// A word of a log, or a path of a system call, as a path of the workspace.
    fn path(&self, word: &str) -> Option<RelPath> {
        let path = match Path::new(word).strip_prefix(self.mounted) {
            Ok(below) => RelPath::root().resolve(below.to_str()?).ok()?,
            Err(_) => self.cwd.resolve(word).ok()?,
        };
        (!path.is_root()).then_some(path)
    }

    /// A path that the project has and the step was not given.
    fn kept(&self, path: RelPath) -> Option<Undeclared> {
        if (self.own)(&path) || (self.staged)(&path) {
            return None;
        }
        let folder = fs_err::metadata(path.on(self.root)).ok()?.is_dir();
        Some(Undeclared::Project { path, folder })
    }

    /// A path that the step wrote to and may not.
    fn written(&self, path: RelPath) -> Option<Undeclared> {
        match ((self.own)(&path), (self.staged)(&path)) {
            (true, _) => None,
            (false, true) => Some(Undeclared::Input(path)),
            (false, false) => Some(Undeclared::Write(path)),
        }
    }
}

/// What the end of a log tells of the files and hosts that its program missed. `folders` are those of the step's own
/// sources, relative to the workspace.
pub(crate) fn from_log(log: &str, folders: &BTreeSet<RelPath>, seen: &Seen<'_>) -> BTreeSet<Undeclared> {
    let mut found = BTreeSet::new();
    for line in log.lines() {
        if let Some(module) = between(line, "No module named '", "'") {
            let path = module.replace('.', "/");
            for folder in folders.iter().chain([seen.cwd]) {
                // The innermost part that the project has: `a.b` may be a module of a package, or the package itself.
                for candidate in [format!("{path}.py"), format!("{path}/__init__.py")] {
                    found.extend(folder.resolve(&candidate).ok().and_then(|file| seen.kept(file)));
                }
            }
        }
        if missing(line) {
            found.extend(words(line).filter_map(|word| seen.kept(seen.path(word)?)));
        }
        if read_only(line) {
            // The program's own name and its words about it are no paths: what is quoted or looks like one is.
            let named = |word: &&str| {
                word.contains(['/', '.'])
                    || ['\'', '"', '`'].iter().any(|quote| line.contains(&format!("{quote}{word}{quote}")))
            };
            found.extend(words(line).filter(named).filter_map(|word| seen.written(seen.path(word)?)).take(1));
        }
    }
    if log.lines().any(offline) {
        found.extend(hosts(log));
    }
    found
}

/// What a step's system calls tell of what it missed.
pub(crate) fn from_attempts(attempts: &[Attempt], seen: &Seen<'_>) -> BTreeSet<Undeclared> {
    let told = |attempt: &Attempt| {
        let what = attempt.what.to_str()?;
        match attempt.access {
            Access::Read | Access::Stat | Access::Execute | Access::Write if attempt.what.starts_with(seen.mounted) => {
                let path = seen.path(what)?;
                if attempt.access == Access::Write { seen.written(path) } else { seen.kept(path) }
            }
            Access::Read | Access::Execute => {
                let kept = KEPT.iter().any(|folder| attempt.what.starts_with(folder));
                (kept && attempt.what.is_file()).then(|| Undeclared::Machine(what.to_owned()))
            }
            Access::Resolve => Some(Undeclared::Network { host: what.to_owned(), url: None }),
            Access::Connect | Access::Send => {
                let address: std::net::SocketAddr = what.parse().ok()?;
                let own = address.ip().is_loopback() || address.ip().is_unspecified();
                (!own).then(|| Undeclared::Network { host: address.to_string(), url: None })
            }
            Access::Write | Access::Stat | Access::Bind => None,
        }
    };
    attempts.iter().filter_map(told).collect()
}

/// Where people keep their files. Elsewhere programs look for much that is not there and that they do not need.
const KEPT: [&str; 7] = ["/home", "/root", "/data", "/mnt", "/media", "/opt", "/srv"];

/// Whether a line says that something may not be written.
fn read_only(line: &str) -> bool {
    line.contains("Read-only file system") || line.contains("Errno 30") || line.contains("EROFS")
}

/// Whether a line says that a file is not there.
fn missing(line: &str) -> bool {
    [
        "No such file",
        "not found",
        "cannot open",
        "can't open",
        "Cannot open",
        "cannot find",
        "Errno 2",
        "ENOENT",
        "does not exist",
    ]
    .iter()
    .any(|phrase| line.contains(phrase))
}

/// Whether a line says that the network could not be reached.
fn offline(line: &str) -> bool {
    [
        "Temporary failure in name resolution",
        "Name or service not known",
        "Could not resolve host",
        "unable to resolve host",
        "Network is unreachable",
        "Max retries exceeded",
        "NameResolutionError",
        "Failed to resolve",
        "failed to lookup address",
        "getaddrinfo",
        "Cannot assign requested address",
    ]
    .iter()
    .any(|phrase| line.contains(phrase))
}

/// The addresses that a log names.
fn hosts(log: &str) -> BTreeSet<Undeclared> {
    let mut found: BTreeSet<Undeclared> = BTreeSet::new();
    let named = |host: &str, url: Option<String>| Undeclared::Network { host: host.to_owned(), url };
    // Its own loopback is no network: a hub that answers there tells itself what it was asked for in vain.
    for line in log.lines().filter(|line| !line.contains("127.0.0.1")) {
        if let (Some(host), Some(path)) =
            (between(line, "host='", "'"), between(line, "with url: ", " ").or_else(|| rest(line, "with url: ")))
        {
            let scheme = if line.contains("HTTPSConnectionPool") { "https" } else { "http" };
            found.insert(named(host, Some(format!("{scheme}://{host}{path}"))));
            continue;
        }
        for word in words(line) {
            if let Some((scheme @ ("https" | "http"), rest)) = word.split_once("://") {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = host.rsplit('@').next().unwrap_or_default();
                let name = host.split(':').next().unwrap_or_default();
                if !name.is_empty() {
                    found.insert(named(name, Some(format!("{scheme}://{rest}"))));
                }
            }
        }
        for (before, after) in [("resolve host: ", ' '), ("resolve host address ‘", '’'), ("Failed to resolve '", '\'')]
        {
            if let Some(host) = rest(line, before).and_then(|r| r.split(after).next()).filter(|h| !h.is_empty()) {
                found.insert(named(host.trim_end_matches([',', '.', ')']), None));
            }
        }
    }
    // A host whose address is known needs not be named again without it.
    let known: BTreeSet<String> = found
        .iter()
        .filter_map(|u| if let Undeclared::Network { host, url: Some(_) } = u { Some(host.clone()) } else { None })
        .collect();
    found.retain(|u| !matches!(u, Undeclared::Network { host, url: None } if known.contains(host)));
    found
}

/// What may be a path or an address: what stands between blanks, quotes and brackets.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || "'\"`‘’“”()<>[]{},;".contains(c))
        .chain(['\'', '"', '`'].into_iter().flat_map(|quote| line.split(quote).skip(1).step_by(2)))
        .map(|word| word.trim_end_matches([':', '.', '!']).trim_start_matches("./"))
        .filter(|word| word.len() > 1)
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    rest(line, before)?.split_once(after).map(|(found, _)| found)
}

fn rest<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    line.split_once(before).map(|(_, rest)| rest)
}

/// What a step asked its hub for and was not given, each with the change that would give it. `data` are the data sets that
/// the step's project has; `locked` says whether the one at a place has a file, where the step was given a part of it.
pub(crate) fn from_hub(
    refusals: &[Refusal],
    hub: &Hub,
    data: &[Data],
    locked: &dyn Fn(&RelPath, &str) -> bool,
    step: &str,
    member: &RelPath,
) -> Vec<(Undeclared, Option<Fix>)> {
    let of = |data: &Data, id: &str| matches!(&data.request.source, DataSource::Url { url: SourceUrl::Hf(address), .. } if hub_id(address) == id);
    let mut found: Vec<(Undeclared, Option<Fix>)> = Vec::new();
    for refusal in refusals {
        let Refusal { repository, revision, path } = refusal;
        let had: Vec<&Data> = data.iter().filter(|d| of(d, repository)).collect();
        let asked = |data: &&&Data| {
            let DataSource::Url { rev, .. } = &data.request.source else { return false };
            let rev = rev.as_deref().unwrap_or(MAIN);
            let commit = hub.repositories.iter().find(|r| r.at == data.request.to).map(|r| r.commit.as_str());
            revision
                .as_deref()
                .is_none_or(|asked| asked == MAIN && had.len() == 1 || asked == rev || Some(asked) == commit)
        };
        let mut narrow = None;
        let fix = match had.iter().find(asked) {
            None => new_entry(refusal, data).map(|(name, entry, path)| Fix::Data {
                step: step.to_owned(),
                name,
                entry,
                path,
            }),
            Some(data) => {
                let DataSource::Url { files, .. } = &data.request.source else { continue };
                let to = &data.request.to;
                let given = hub.repositories.iter().any(|r| r.at == *to);
                let input = |path: String| Some(Fix::Input { step: step.to_owned(), path });
                match path {
                    _ if !given => input(format!("{}/", to.relative_to(member))),
                    Some(path) if locked(to, path) => input(format!("{}/{path}", to.relative_to(member))),
                    Some(_) if !files.is_empty() => {
                        narrow = Some(data.request.name.clone());
                        None
                    }
                    // The repository itself has no such file at this commit: clients ask for much that may be there.
                    _ => continue,
                }
            }
        };
        let address = format!("hf://{repository}");
        let undeclared = Undeclared::Hub { address, revision: revision.clone(), path: path.clone(), narrow };
        found.push((undeclared, fix));
    }
    found
}

/// The revision that the hub's clients ask for where they are told none.
const MAIN: &str = "main";

/// The `[data]` entry for what was asked of the hub: its name, its value, and where a step then finds it. None for a name
/// that no address can have.
fn new_entry(refusal: &Refusal, data: &[Data]) -> Option<(String, String, String)> {
    let address = format!("hf://{}", refusal.repository);
    SourceUrl::parse(&address).ok()?;
    let of = name(refusal.repository.rsplit('/').next()?);
    let taken = |name: &str| data.iter().any(|d| d.request.name.as_str() == name);
    let of = (1..).map(|n| if n == 1 { of.clone() } else { format!("{of}-{n}") }).find(|name| !taken(name))?;
    // What JSON escapes, TOML understands.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let rev = refusal.revision.as_deref().unwrap_or(MAIN);
    let files = refusal
        .path
        .as_deref()
        .map(|path| format!(", files = [{}]", quoted(&globset::escape(path))))
        .unwrap_or_default();
    let entry = format!("{{ url = {}, rev = {}{files} }}", quoted(&address), quoted(rev));
    let path = format!("data/{of}/{}", refusal.path.as_deref().unwrap_or_default());
    Some((of, entry, path))
}

/// How a step could get what it lacked; none where trainlock knows no way.
pub(crate) fn fix(step: &str, member: &RelPath, undeclared: &Undeclared) -> Option<Fix> {
    match undeclared {
        Undeclared::Project { path, folder } => {
            let slash = if *folder { "/" } else { "" };
            Some(Fix::Input { step: step.to_owned(), path: format!("{}{slash}", path.relative_to(member)) })
        }
        Undeclared::Network { url: Some(url), .. } => {
            let (name, entry, path) = data(url)?;
            Some(Fix::Data { step: step.to_owned(), name, entry, path })
        }
        Undeclared::Machine(_)
        | Undeclared::Write(_)
        | Undeclared::Input(_)
        | Undeclared::Hub { .. }
        | Undeclared::Network { url: None, .. } => None,
    }
}

/// A data set's name made of some text.
fn name(text: &str) -> String {
    let kept = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let name: String = kept.collect::<String>().trim_matches('-').to_owned();
    if name.is_empty() { "data".to_owned() } else { name }
}

/// The `[data]` entry for an address: its name, its value, and where a step then finds it.
fn data(url: &str) -> Option<(String, String, String)> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split(['?', '#']).next()?;
    let (host, path) = rest.split_once('/')?;
    let file = path.rsplit('/').next().filter(|f| !f.is_empty())?;
    // The hub's files have a form of their own, by which they are pinned to a commit.
    if let Some((repository, below)) = path.split_once("/resolve/")
        && host.contains("huggingface")
        && let Some((rev, below)) = below.split_once('/')
    {
        let of = repository.rsplit('/').next().unwrap_or(repository);
        let entry = format!("{{ url = \"hf://{repository}\", rev = \"{rev}\", files = [\"{below}\"] }}");
        return Some((name(of), entry, format!("data/{}/{below}", name(of))));
    }
    let stem = file.split('.').next().unwrap_or(file);
    Some((name(stem), format!("{{ url = \"{url}\" }}"), format!("data/{file}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::parse(path).unwrap()
    }

    /// A project with some files, of which the step `one/train` was given `exp/src/train.py` alone.
    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let files = ["src/train.py", "src/util.py", "src/lib/__init__.py", "data/a b.csv", "cfg.json", "tables/x"];
        for file in files.map(|f| format!("exp/{f}")).iter().map(String::as_str).chain(["shared/x.txt"]) {
            let file = folder.path().join(file);
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            fs_err::write(file, "").unwrap();
        }
        folder
    }

    fn seen_by(log: &str, attempts: &[Attempt]) -> Vec<String> {
        let folder = project();
        let cwd = rel("exp");
        let seen = Seen {
            root: folder.path(),
            cwd: &cwd,
            mounted: Path::new("/trainlock/one"),
            staged: &|path| ["exp", "exp/src", "exp/src/train.py"].contains(&path.as_str()),
            own: &|path| path.as_str().starts_with("exp/build"),
        };
        let mut found = from_log(log, &BTreeSet::from([rel("exp/src")]), &seen);
        found.extend(from_attempts(attempts, &seen));
        let fixes = found.iter().map(|u| match fix("one/train", &rel("exp"), u) {
            Some(Fix::Input { path, .. }) => path,
            Some(Fix::Data { name, entry, path, .. }) => format!("{name} = {entry} at {path}"),
            None => format!("{u:?}"),
        });
        fixes.collect()
    }

    fn told(log: &str) -> Vec<String> {
        seen_by(log, &[])
    }

    #[test]
    fn what_system_calls_tell() {
        let attempt = |access, what: &str| Attempt { access, what: what.into() };
        let told = seen_by(
            "",
            &[
                attempt(Access::Read, "/trainlock/one/exp/cfg.json"),
                attempt(Access::Stat, "/trainlock/one/exp/none.json"),
                attempt(Access::Read, "/trainlock/one/exp/src/train.py"),
                attempt(Access::Write, "/trainlock/one/exp/notes.txt"),
                attempt(Access::Write, "/trainlock/one/exp/src/train.py"),
                attempt(Access::Write, "/trainlock/one/exp/build/x"),
                attempt(Access::Read, "/etc/localtime"),
                attempt(Access::Resolve, "example.org"),
                attempt(Access::Connect, "127.0.0.1:53"),
                attempt(Access::Connect, "192.0.2.1:443"),
            ],
        );
        assert_eq!(
            told,
            [
                "cfg.json",
                "Write(\"exp/notes.txt\")",
                "Input(\"exp/src/train.py\")",
                "Network { host: \"192.0.2.1:443\", url: None }",
                "Network { host: \"example.org\", url: None }",
            ]
        );
        assert_eq!(
            seen_by("OSError: [Errno 30] Read-only file system: 'notes.txt'", &[]),
            ["Write(\"exp/notes.txt\")"]
        );
        assert_eq!(
            seen_by("chmod: changing permissions of 'src/train.py': Read-only file system", &[]),
            ["Input(\"exp/src/train.py\")"]
        );
    }

    #[test]
    fn files_that_programs_name() {
        assert_eq!(told("FileNotFoundError: [Errno 2] No such file or directory: 'cfg.json'"), ["cfg.json"]);
        assert_eq!(
            told("FileNotFoundError: [Errno 2] No such file or directory: '/trainlock/one/exp/cfg.json'"),
            ["cfg.json"]
        );
        assert_eq!(told("cat: ./cfg.json: No such file or directory"), ["cfg.json"]);
        assert_eq!(told("cat: ../shared/x.txt: No such file or directory"), ["../shared/x.txt"]);
        assert_eq!(told("No such file or directory: 'data/a b.csv'"), ["data/a b.csv"]);
        assert_eq!(told("OSError: tables does not exist"), ["tables/"]);
        assert_eq!(told("ModuleNotFoundError: No module named 'util'"), ["src/util.py"]);
        assert_eq!(told("ModuleNotFoundError: No module named 'lib'"), ["src/lib/__init__.py"]);
        // What is there all the same, or is of no project, is no cause.
        assert!(told("cat: other.json: No such file or directory").is_empty());
        assert!(told("cfg.json was read").is_empty());
    }

    #[test]
    fn addresses_that_programs_name() {
        let requests = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='example.org', port=443): Max retries exceeded with url: /d/Raw%20Data.csv (Caused by NameResolutionError(\"...\"))";
        assert_eq!(
            told(requests),
            ["raw-20data = { url = \"https://example.org/d/Raw%20Data.csv\" } at data/Raw%20Data.csv"]
        );
        let hub = "urlopen(\"https://huggingface.co/datasets/org/name/resolve/main/train/a.parquet\")\nurllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>";
        assert_eq!(
            told(hub),
            [
                "name = { url = \"hf://datasets/org/name\", rev = \"main\", files = [\"train/a.parquet\"] } at data/name/train/a.parquet"
            ]
        );
        assert_eq!(
            told("curl: (6) Could not resolve host: example.org"),
            ["Network { host: \"example.org\", url: None }"]
        );
        // An address that is only printed is no attempt.
        assert!(told("see https://example.org/docs").is_empty());
    }
}
