//! Whether a pin still answers its request, and if not, why.
//!
//! | what differs | what happens |
//! | --- | --- |
//! | the kind of source, `url`, `path`, `croissant`, `pooch`, `rev`, `files`, `extract`, `unpack` | locked anew |
//! | `checksum`, `size` | locked anew, unless the pin shows that they hold |
//! | `mirrors` | rewritten: they name the same bytes |
//! | a tool's `from`, `probe` | probed anew |
//! | a tool's requirement | rewritten if the locked version satisfies it too, else probed anew |
//! | a tool's `match` | rewritten |
//! | a fetched tool's `package`, `bin`, `repo`, `index`, `asset`, platforms | looked up anew |
//! | the requirements, constraints, `index`, `sdist`, platforms of python packages, the interpreter's line | resolved anew |
//! | the `uv-lock` or `pylock` of python packages, its groups, extras, and what it says of a package | taken over anew |
//!
//! `to` is no part of a pin.

use crate::{Content, DataPin, PythonPin, ToolPin};
use std::fmt;
use trainlock_types::{
    Checksum, DataRequest, DataSource, FetchedTool, Platform, PythonRequest, RelPath, SourceUrl, TakenLock,
    ToolProvider, ToolRequest,
};

/// Something in which a pin differs from its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Another kind of source.
    Source {
        /// What the pin has, in words.
        old: String,
        /// What is asked for, in words.
        new: String,
    },
    /// Another address.
    Url {
        /// The pin's.
        old: SourceUrl,
        /// The request's.
        new: SourceUrl,
    },
    /// Another file or folder of the repository, or another description in it.
    Path {
        /// The key: `path`, `croissant` or `pooch`.
        key: &'static str,
        /// The pin's.
        old: String,
        /// The request's.
        new: String,
    },
    /// Other mirrors.
    Mirrors {
        /// The pin's.
        old: Vec<SourceUrl>,
        /// The request's.
        new: Vec<SourceUrl>,
    },
    /// Another statement of the publisher.
    Checksum {
        /// The pin's.
        old: Option<Checksum>,
        /// The request's.
        new: Option<Checksum>,
        /// Whether the pin shows that the new one holds.
        holds: bool,
    },
    /// Another size than what is locked.
    Size {
        /// What is locked, in bytes.
        old: u64,
        /// What is asked for.
        new: u64,
    },
    /// Another branch, tag or commit.
    Rev {
        /// The pin's.
        old: Option<String>,
        /// The request's.
        new: Option<String>,
    },
    /// Other files.
    Files {
        /// The pin's.
        old: Vec<String>,
        /// The request's.
        new: Vec<String>,
    },
    /// Another member of the archive.
    Extract {
        /// The pin's.
        old: Option<RelPath>,
        /// The request's.
        new: Option<RelPath>,
    },
    /// Unpacked, or no longer.
    Unpack {
        /// What is asked for.
        new: bool,
    },
    /// Another requirement on a tool's version.
    Requirement {
        /// The pin's.
        old: String,
        /// The request's.
        new: String,
        /// Whether the locked version satisfies the new one.
        holds: bool,
    },
    /// A locked version that its own requirement does not allow.
    Version {
        /// The requirement.
        request: String,
        /// The version.
        locked: semver::Version,
    },
    /// Another provider of a tool.
    From {
        /// The pin's.
        old: String,
        /// The request's.
        new: String,
    },
    /// Another command that prints a tool's version.
    Probe {
        /// The pin's.
        old: Vec<String>,
        /// The request's.
        new: Vec<String>,
    },
    /// Another option of a tool's provider, or of what python packages are resolved from.
    Option {
        /// The key.
        key: &'static str,
        /// The pin's.
        old: Vec<String>,
        /// The request's.
        new: Vec<String>,
    },
    /// Another rule of how near a machine's version must be.
    Match {
        /// The pin's.
        old: &'static str,
        /// The request's.
        new: &'static str,
    },
}

/// In what a pin differs from its request; empty if it satisfies it.
pub fn satisfies(pin: &DataPin, request: &DataRequest) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match (&pin.source, &*request.source.for_lock()) {
        (DataSource::Url { .. }, new @ DataSource::Url { .. }) => url_satisfies(pin, new, &mut reasons),
        (DataSource::Path(old), DataSource::Path(new)) => path(&mut reasons, "path", old.as_str(), new.as_str()),
        (DataSource::Croissant(old), DataSource::Croissant(new)) => path(&mut reasons, "croissant", old, new),
        (DataSource::Pooch { registry: old, base: old_base }, DataSource::Pooch { registry: new, base: new_base }) => {
            path(&mut reasons, "pooch", old.as_str(), new.as_str());
            let words = |base: &Option<SourceUrl>| base.iter().map(SourceUrl::redacted).collect();
            option(&mut reasons, "base-url", words(old_base), words(new_base));
        }
        (old, new) => reasons.push(Reason::Source { old: source_words(old), new: source_words(new) }),
    }
    reasons
}

fn path(reasons: &mut Vec<Reason>, key: &'static str, old: &str, new: &str) {
    if old != new {
        reasons.push(Reason::Path { key, old: old.to_owned(), new: new.to_owned() });
    }
}

fn url_satisfies(pin: &DataPin, request: &DataSource, reasons: &mut Vec<Reason>) {
    let (
        DataSource::Url { url, mirrors, checksum, rev, files, extract, unpack, size: _ },
        DataSource::Url {
            url: new_url,
            mirrors: new_mirrors,
            checksum: new_checksum,
            rev: new_rev,
            files: new_files,
            extract: new_extract,
            unpack: new_unpack,
            size: new_size,
        },
    ) = (&pin.source, request)
    else {
        return;
    };
    if url != new_url {
        reasons.push(Reason::Url { old: url.clone(), new: new_url.clone() });
    }
    if mirrors != new_mirrors {
        reasons.push(Reason::Mirrors { old: mirrors.clone(), new: new_mirrors.clone() });
    }
    if rev != new_rev {
        reasons.push(Reason::Rev { old: rev.clone(), new: new_rev.clone() });
    }
    if files != new_files {
        reasons.push(Reason::Files { old: files.clone(), new: new_files.clone() });
    }
    if extract != new_extract {
        reasons.push(Reason::Extract { old: extract.clone(), new: new_extract.clone() });
    }
    if unpack != new_unpack {
        reasons.push(Reason::Unpack { new: *new_unpack });
    }
    // What is fetched is the archive, where there is one; a tree of many files has no SHA-256 to state.
    let (fetched, fetched_size) = match (&pin.archive, &pin.content) {
        (Some((sha256, size)), _) => (Some(*sha256), *size),
        (None, Content::File { sha256, size }) => (Some(*sha256), *size),
        (None, Content::Tree { size, .. }) => (None, *size),
    };
    let stated = new_checksum.as_ref().and_then(Checksum::sha256);
    let holds = match (new_checksum, stated) {
        (None, _) => true,
        (Some(_), Some(stated)) => fetched == Some(stated),
        // Of other functions' values the pin shows nothing but that they were checked when it was made.
        (Some(_), None) => checksum == new_checksum,
    };
    if checksum != new_checksum || !holds {
        reasons.push(Reason::Checksum { old: checksum.clone(), new: new_checksum.clone(), holds });
    }
    if let Some(new) = *new_size
        && new != fetched_size
    {
        reasons.push(Reason::Size { old: fetched_size, new });
    }
}

/// In what a tool's pin differs from its request; empty if it satisfies it.
pub fn tool_satisfies(pin: &ToolPin, request: &ToolRequest) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let holds = request.requirement.matches(&pin.version);
    if pin.request != request.version {
        reasons.push(Reason::Requirement { old: pin.request.clone(), new: request.version.clone(), holds });
    } else if !holds {
        reasons.push(Reason::Version { request: pin.request.clone(), locked: pin.version.clone() });
    }
    match (&pin.provider, &request.provider) {
        (ToolProvider::Host { probe, accept }, ToolProvider::Host { probe: new_probe, accept: new_accept }) => {
            if probe != new_probe {
                reasons.push(Reason::Probe { old: probe.clone(), new: new_probe.clone() });
            }
            if accept != new_accept {
                reasons.push(Reason::Match { old: accept.as_str(), new: new_accept.as_str() });
            }
        }
        (ToolProvider::Fetched(old), ToolProvider::Fetched(new)) if old.from == new.from => {
            let one = |text: &Option<String>| text.iter().cloned().collect::<Vec<_>>();
            let assets = |tool: &FetchedTool| tool.asset.iter().map(|(p, file)| format!("{p} {file}")).collect();
            option(&mut reasons, "package", one(&old.package), one(&new.package));
            option(&mut reasons, "bin", one(&old.bin), one(&new.bin));
            option(&mut reasons, "repo", one(&old.repo), one(&new.repo));
            option(&mut reasons, "index", one(&old.index), one(&new.index));
            option(&mut reasons, "asset", assets(old), assets(new));
            let words = |platforms: &[Platform]| platforms.iter().map(Platform::to_string).collect();
            if !pin.artifacts.is_empty() {
                option(&mut reasons, "platforms", words(&pin.platforms), words(&request.platforms));
            }
        }
        (old, new) => reasons.push(Reason::From { old: old.as_str().to_owned(), new: new.as_str().to_owned() }),
    }
    reasons
}

/// In what python packages' pin differs from what is asked for; empty if it satisfies it. `python` is the line of the
/// interpreter that is locked, such as `3.11`.
pub fn python_satisfies(pin: &PythonPin, request: &PythonRequest, python: &str) -> Vec<Reason> {
    let mut reasons = Vec::new();
    option(&mut reasons, "python", vec![pin.python.clone()], vec![python.to_owned()]);
    let taken =
        |taken: &Option<TakenLock>, of: fn(&TakenLock) -> Vec<String>| taken.as_ref().map(of).unwrap_or_default();
    let mut of_lock = |key: &'static str, of: fn(&TakenLock) -> Vec<String>| {
        option(&mut reasons, key, taken(&pin.taken, of), taken(&request.taken, of));
    };
    of_lock("lock", |taken| vec![format!("{} {}", taken.kind.as_str(), taken.file)]);
    of_lock("groups", |taken| taken.groups.clone());
    of_lock("extras", |taken| taken.extras.clone());
    of_lock("entries", |taken| taken.entries.clone());
    option(&mut reasons, "index", pin.index.clone(), request.index.clone());
    option(&mut reasons, "dependencies", pin.dependencies.clone(), request.dependencies.clone());
    option(&mut reasons, "constraints", pin.constraints.clone(), request.constraints.clone());
    option(&mut reasons, "sdist", pin.sdist.clone(), request.sdist.clone());
    let words = |platforms: &[Platform]| platforms.iter().map(Platform::to_string).collect();
    option(&mut reasons, "platforms", words(&pin.platforms), words(&request.platforms));
    reasons
}

fn option(reasons: &mut Vec<Reason>, key: &'static str, old: Vec<String>, new: Vec<String>) {
    if old != new {
        reasons.push(Reason::Option { key, old, new });
    }
}

fn source_words(source: &DataSource) -> String {
    match source {
        DataSource::Url { url, .. } => format!("url {}", url.redacted()),
        DataSource::Path(path) => format!("path {path}"),
        DataSource::Croissant(place) => format!("croissant {place}"),
        DataSource::Pooch { registry, .. } => format!("pooch {registry}"),
    }
}

impl Reason {
    /// Whether the content must be found again. If not, the pin's request is written anew and its
    /// content stays.
    pub fn relocks(&self) -> bool {
        !matches!(
            self,
            Reason::Mirrors { .. }
                | Reason::Checksum { holds: true, .. }
                | Reason::Requirement { holds: true, .. }
                | Reason::Match { .. }
        )
    }
}

impl Reason {
    /// The key that differs, the pin's value and the request's, in words; none where there is no value.
    pub(crate) fn parts(&self) -> (&'static str, Option<String>, Option<String>) {
        let urls = |urls: &[SourceUrl]| list(&urls.iter().map(SourceUrl::redacted).collect::<Vec<_>>());
        let some = |text: &str| Some(text.to_owned());
        match self {
            Reason::Source { old, new } => ("source", some(old), some(new)),
            Reason::Url { old, new } => ("url", Some(old.redacted()), Some(new.redacted())),
            Reason::Path { key, old, new } => (*key, some(old), some(new)),
            Reason::Mirrors { old, new } => ("mirrors", urls(old), urls(new)),
            Reason::Checksum { old, new, .. } => {
                ("checksum", old.as_ref().map(Checksum::to_string), new.as_ref().map(Checksum::to_string))
            }
            Reason::Size { old, new } => ("size", Some(old.to_string()), Some(new.to_string())),
            Reason::Rev { old, new } => ("rev", old.clone(), new.clone()),
            Reason::Files { old, new } => ("files", list(old), list(new)),
            Reason::Extract { old, new } => {
                ("extract", old.as_ref().map(RelPath::to_string), new.as_ref().map(RelPath::to_string))
            }
            Reason::Unpack { new } => ("unpack", Some((!new).to_string()), Some(new.to_string())),
            Reason::Requirement { old, new, .. } => ("version", some(old), some(new)),
            Reason::Version { request, locked } => ("version", Some(locked.to_string()), some(request)),
            Reason::From { old, new } => ("from", some(old), some(new)),
            Reason::Probe { old, new } => ("probe", list(old), list(new)),
            Reason::Option { key, old, new } => (*key, list(old), list(new)),
            Reason::Match { old, new } => ("match", some(old), some(new)),
        }
    }
}

/// `key: old -> new`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Checksum { old, new, .. } if old == new => {
                return f.write_str("checksum: what is locked is not what it states");
            }
            Reason::Version { request, locked } => {
                return write!(f, "version: {locked} is locked and does not satisfy {request}");
            }
            _ => {}
        }
        if let Reason::Option { key, old, new } = self {
            // Of long lists, what differs.
            let words = |text: &String| match text.rsplit_once(' ') {
                Some((what, digest)) if *key == "entries" => format!("{what} ({})", digest.get(..12).unwrap_or(digest)),
                _ => text.clone(),
            };
            let only =
                |a: &[String], b: &[String]| list(&a.iter().filter(|x| !b.contains(x)).map(words).collect::<Vec<_>>());
            return match (only(old, new), only(new, old)) {
                (Some(gone), Some(came)) => write!(f, "{key}: {gone} -> {came}"),
                (Some(gone), None) => write!(f, "{key}: no longer {gone}"),
                (None, Some(came)) => write!(f, "{key}: new {came}"),
                (None, None) => write!(f, "{key}: in another order"),
            };
        }
        let (key, old, new) = self.parts();
        write!(f, "{key}: {} -> {}", old.as_deref().unwrap_or("none"), new.as_deref().unwrap_or("none"))
    }
}

fn list(texts: &[String]) -> Option<String> {
    (!texts.is_empty()).then(|| texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainlock_types::{Digest, Name, ToolFrom, ToolMatch};

    const MD5: &str = "md5:9e107d9d372bb6826bd81d3542a419d6";

    fn address(text: &str) -> SourceUrl {
        SourceUrl::parse(text).unwrap()
    }

    fn request(change: impl FnOnce(&mut DataSource)) -> DataRequest {
        let mut source = DataSource::Url {
            url: address("https://example.org/a.zip"),
            mirrors: Vec::new(),
            checksum: None,
            size: None,
            rev: None,
            files: Vec::new(),
            extract: None,
            unpack: false,
        };
        change(&mut source);
        let to = RelPath::parse("data/a").unwrap();
        DataRequest { member: None, name: Name::entry("a").unwrap(), source, to }
    }

    fn pin(request: &DataRequest, archive: bool) -> DataPin {
        let file = |text: &str| (Digest::of(text.as_bytes()), text.len() as u64);
        let (sha256, size) = file("content");
        DataPin::new(request, None, Content::File { sha256, size }, archive.then(|| file("the archive")))
    }

    /// The reasons in words, and whether any of them locks anew.
    fn judge(pin: &DataPin, request: &DataRequest) -> (Vec<String>, bool) {
        let reasons = satisfies(pin, request);
        (reasons.iter().map(Reason::to_string).collect(), reasons.iter().any(Reason::relocks))
    }

    macro_rules! set {
        ($($field:ident = $value:expr),*) => {
            |source: &mut DataSource| {
                let DataSource::Url { $($field,)* .. } = source else { unreachable!() };
                $(*$field = $value;)*
            }
        };
    }

    #[test]
    fn each_field_of_a_request_is_compared() {
        let old = request(|_| {});
        let sha = |text: &str| format!("sha256:{}", Digest::of(text.as_bytes()));
        let agreed: Option<Checksum> = Some(sha("content").parse().unwrap());
        let other: Option<Checksum> = Some(sha("other").parse().unwrap());
        let path = |text: &str| Some(RelPath::parse(text).unwrap());
        let cases: [(DataRequest, &[&str], bool); 14] = [
            (request(|_| {}), &[], false),
            (DataRequest { to: RelPath::parse("elsewhere").unwrap(), ..request(|_| {}) }, &[], false),
            (
                request(set!(url = address("https://example.org/b.zip"))),
                &["url: https://example.org/a.zip -> https://example.org/b.zip"],
                true,
            ),
            (
                request(set!(url = address("https://example.org/a.zip?token=x"))),
                &["url: https://example.org/a.zip -> https://example.org/a.zip?token=REDACTED"],
                true,
            ),
            (request(set!(mirrors = vec![address("s3://b/a.zip")])), &["mirrors: none -> s3://b/a.zip"], false),
            (request(set!(checksum = agreed.clone())), &[&format!("checksum: none -> {}", sha("content"))], false),
            (request(set!(checksum = other.clone())), &[&format!("checksum: none -> {}", sha("other"))], true),
            (request(set!(checksum = Some(MD5.parse().unwrap()))), &[&format!("checksum: none -> {MD5}")], true),
            (request(set!(size = Some(7))), &[], false),
            (request(set!(size = Some(8))), &["size: 7 -> 8"], true),
            (request(set!(rev = Some("v2".to_owned()))), &["rev: none -> v2"], true),
            (request(set!(files = vec!["*.tar".to_owned(), "x".to_owned()])), &["files: none -> *.tar, x"], true),
            (request(set!(extract = path("b.csv"))), &["extract: none -> b.csv"], true),
            (
                request(set!(unpack = true, mirrors = vec![address("s3://b/a.zip")])),
                &["mirrors: none -> s3://b/a.zip", "unpack: false -> true"],
                true,
            ),
        ];
        for (new, reasons, relocks) in cases {
            assert_eq!(judge(&pin(&old, false), &new), (reasons.iter().map(|r| (*r).to_owned()).collect(), relocks));
        }
    }

    #[test]
    fn a_checksum_and_a_size_are_of_the_archive_where_there_is_one() {
        let of = |text: &str| format!("sha256:{}", Digest::of(text.as_bytes())).parse::<Checksum>().unwrap();
        let member = || RelPath::parse("b.csv").ok();
        let old = request(set!(extract = member()));
        let holds = request(set!(extract = member(), checksum = Some(of("the archive")), size = Some(11)));
        assert!(!judge(&pin(&old, true), &holds).1);
        let content = request(set!(extract = member(), checksum = Some(of("content")), size = Some(7)));
        assert_eq!(satisfies(&pin(&old, true), &content).iter().filter(|r| r.relocks()).count(), 2);
    }

    #[test]
    fn a_checksum_that_went_needs_no_fetching_and_one_that_the_pin_denies_does() {
        let stated = request(set!(checksum = Some(MD5.parse().unwrap())));
        assert_eq!(judge(&pin(&stated, false), &stated), (vec![], false));
        let (reasons, relocks) = judge(&pin(&stated, false), &request(|_| {}));
        assert_eq!((reasons, relocks), (vec![format!("checksum: {MD5} -> none")], false));
        // The same request as the pin repeats, beside content that it excludes: the work of a bad merge.
        let denied = request(set!(checksum = Some(format!("sha256:{}", Digest::of(b"other")).parse().unwrap())));
        let (reasons, relocks) = judge(&pin(&denied, false), &denied);
        assert_eq!((reasons, relocks), (vec!["checksum: what is locked is not what it states".to_owned()], true));
    }

    #[test]
    fn other_kinds_of_sources() {
        let from = |source: DataSource| request(|s| *s = source);
        let path = |text: &str| DataSource::Path(RelPath::parse(text).unwrap());
        let old = from(path("notes"));
        assert_eq!(judge(&pin(&old, false), &old), (vec![], false));
        assert_eq!(judge(&pin(&old, false), &from(path("texts"))), (vec!["path: notes -> texts".to_owned()], true));
        assert_eq!(
            judge(&pin(&old, false), &request(|_| {})),
            (vec!["source: path notes -> url https://example.org/a.zip".to_owned()], true)
        );
        let pooch = |text: &str| from(DataSource::Pooch { registry: RelPath::parse(text).unwrap(), base: None });
        assert_eq!(judge(&pin(&pooch("a"), false), &pooch("b")).0, ["pooch: a -> b"]);
        let croissant = |text: &str| from(DataSource::Croissant(text.to_owned()));
        assert_eq!(judge(&pin(&croissant("a"), false), &croissant("b")).0, ["croissant: a -> b"]);
    }

    #[test]
    fn tools() {
        let request = |version: &str, provider: ToolProvider| ToolRequest {
            member: None,
            name: Name::entry("ffmpeg").unwrap(),
            version: version.to_owned(),
            requirement: version.parse().unwrap(),
            provider,
            platforms: Vec::new(),
        };
        let host = |probe: &[&str], accept| ToolProvider::Host {
            probe: probe.iter().map(|w| (*w).to_owned()).collect(),
            accept,
        };
        let pin = ToolPin::new(
            &request("^6", host(&[], ToolMatch::Version)),
            "6.1.1".parse().unwrap(),
            Default::default(),
            None,
        );
        let cases: [(ToolRequest, &[&str], bool); 6] = [
            (request("^6", host(&[], ToolMatch::Version)), &[], false),
            (request("^6.1", host(&[], ToolMatch::Version)), &["version: ^6 -> ^6.1"], false),
            (request("^7", host(&[], ToolMatch::Version)), &["version: ^6 -> ^7"], true),
            (request("^6", host(&["ffmpeg", "-v"], ToolMatch::Version)), &["probe: none -> ffmpeg, -v"], true),
            (request("^6", host(&[], ToolMatch::Requirement)), &["match: version -> requirement"], false),
            (request("^6", ToolProvider::Fetched(FetchedTool::new(ToolFrom::Pypi))), &["from: host -> pypi"], true),
        ];
        for (new, expected, relocks) in cases {
            let reasons = tool_satisfies(&pin, &new);
            assert_eq!(reasons.iter().map(Reason::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(reasons.iter().any(Reason::relocks), relocks);
        }
        let edited = ToolPin { version: "5.0.0".parse().unwrap(), ..pin };
        let reasons = tool_satisfies(&edited, &request("^6", host(&[], ToolMatch::Version)));
        assert!(reasons[0].relocks());
        assert_eq!(reasons[0].to_string(), "version: 5.0.0 is locked and does not satisfy ^6");
    }
}
