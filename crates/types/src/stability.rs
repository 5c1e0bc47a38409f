//! Addresses that are known to give other bytes one day: what of them is not stable, and what to write instead.
//!
//! Known by their form alone; nobody is asked. Where each rule comes from stands beside it.

use crate::{SourceUrl, percent_decoded, quoted};

/// Why an address is not stable, and a better form of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is wrong with it: a clause.
    pub why: String,
    /// What to write instead: the beginning of a line of train.toml, or what to do.
    pub better: String,
}

/// What is known to be unstable about an address, if anything is.
pub fn unstable(url: &SourceUrl) -> Option<Advice> {
    let SourceUrl::Http(address) = url else { return None };
    // The revision of the hub's addresses is one segment, whatever it holds: `refs%2Fconvert%2Fparquet`.
    let decoded: Vec<String> = address.path_segments()?.map(percent_decoded).collect();
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let host = address.host_str()?.trim_start_matches("www.");
    forge(host, &segments)
        .or_else(|| hub(host, &segments))
        .or_else(|| gitlab(address.authority(), &segments))
        .or_else(|| shared(host, &segments))
        .or_else(|| record(host, &segments))
        .or_else(|| latest(&segments))
}

fn advice(why: impl Into<String>, better: impl Into<String>) -> Option<Advice> {
    Some(Advice { why: why.into(), better: better.into() })
}

/// Whether a revision is a whole commit, which never moves.
fn is_commit(rev: &str) -> bool {
    rev.len() == 40 && rev.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What follows `refs/heads/` or `refs/tags/`, and whether that names a tag.
fn named<'s>(rest: &[&'s str]) -> (Vec<&'s str>, bool) {
    match rest {
        ["refs", "heads", rest @ ..] => (rest.to_vec(), false),
        ["refs", "tags", rest @ ..] => (rest.to_vec(), true),
        _ => (rest.to_vec(), false),
    }
}

/// `files` of an entry with this one file, if there is one.
fn files(file: Option<&str>) -> String {
    file.map(|file| format!(", files = [{}]", quoted(file))).unwrap_or_default()
}

/// A repository, with the revision that the address names.
fn as_git(host: &str, repository: &str, rev: &str, file: Option<&str>) -> String {
    format!("{{ url = \"git+https://{host}/{repository}.git\", rev = {}{} }}", quoted(rev), files(file))
}

/// A single file of a repository at a revision: it moves with its branch.
fn raw(host: &str, repository: &str, rest: &[&str], page: bool) -> Option<Advice> {
    let (rest, is_tag) = named(rest);
    let (rev, file) = rest.split_first()?;
    if file.is_empty() {
        return None;
    }
    let better = as_git(host, repository, rev, Some(&file.join("/")));
    match (page, is_tag || is_commit(rev)) {
        (true, _) => advice("it is a page that shows a file, not the file", better),
        (false, true) => None,
        // A tag may be named so as well: what a name stands for is the owner's to move.
        (false, false) => advice(format!("`{rev}` is no commit: what it stands for can move"), better),
    }
}

/// GitHub's archives are made on demand, and their bytes are promised by nobody (GitHub's docs, "Stability of source code
/// archives": the content stays, the compressed bytes may change). Files of a release do not change by themselves.
fn forge(host: &str, segments: &[&str]) -> Option<Advice> {
    let archive = |owner: &str, name: &str, rest: &[&str]| {
        let rev = named(rest).0.join("/");
        let rev = [".tar.gz", ".tgz", ".zip"].iter().find_map(|end| rev.strip_suffix(end)).unwrap_or(&rev).to_owned();
        let rev = if rev.is_empty() { "HEAD" } else { &rev };
        let why = "the forge makes this archive when it is asked for, and its bytes may change";
        advice(why, as_git("github.com", &format!("{owner}/{name}"), rev, None))
    };
    match (host, segments) {
        ("github.com", [owner, name, "archive" | "zipball" | "tarball", rest @ ..]) => archive(owner, name, rest),
        ("codeload.github.com", [owner, name, "zip" | "tar.gz" | "legacy.zip" | "legacy.tar.gz", rest @ ..]) => {
            archive(owner, name, rest)
        }
        ("api.github.com", ["repos", owner, name, "zipball" | "tarball", rest @ ..]) => archive(owner, name, rest),
        ("github.com", [_, _, "releases", "latest", "download", ..]) => {
            let better = "the address of the release itself: …/releases/download/TAG/FILE";
            advice("`latest` is another release one day", better)
        }
        ("github.com", [owner, name, "blob", rest @ ..]) => raw("github.com", &format!("{owner}/{name}"), rest, true),
        ("github.com", [owner, name, "raw", rest @ ..]) | ("raw.githubusercontent.com", [owner, name, rest @ ..]) => {
            raw("github.com", &format!("{owner}/{name}"), rest, false)
        }
        // Bitbucket: `/OWNER/NAME/get/REV.zip` and `/OWNER/NAME/raw/REV/FILE`.
        ("bitbucket.org", [owner, name, "get", file]) => {
            let rev = [".tar.gz", ".tar.bz2", ".zip"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(file);
            let why = "the forge makes this archive when it is asked for, and its bytes may change";
            advice(why, as_git(host, &format!("{owner}/{name}"), rev, None))
        }
        ("bitbucket.org", [owner, name, "raw", rest @ ..]) => raw(host, &format!("{owner}/{name}"), rest, false),
        _ => None,
    }
}

/// GitLab, wherever it runs: its own addresses have `/-/` in them.
fn gitlab(server: &str, segments: &[&str]) -> Option<Advice> {
    let at = segments.iter().position(|s| *s == "-").filter(|at| *at >= 2)?;
    let (repository, rest) = (segments[..at].join("/"), &segments[at + 1..]);
    match rest {
        ["archive", rev, ..] => {
            let why = "the forge makes this archive when it is asked for, and its bytes may change";
            advice(why, as_git(server, &repository, rev, None))
        }
        ["raw", rest @ ..] => raw(server, &repository, rest, false),
        ["blob", rest @ ..] => raw(server, &repository, rest, true),
        ["releases", "permalink", "latest", ..] => advice(
            "`latest` is another release one day",
            "the address of the release itself: …/-/releases/TAG/downloads/FILE",
        ),
        _ => None,
    }
}

/// The Hugging Face hub: `/[datasets/]ORG/NAME/{resolve,raw,blob}/REV/PATH`.
fn hub(host: &str, segments: &[&str]) -> Option<Advice> {
    if !matches!(host, "huggingface.co" | "hf.co") {
        return None;
    }
    let (kind, rest) = match segments {
        ["datasets", rest @ ..] => ("datasets/", rest),
        rest => ("", rest),
    };
    let [org, name, how @ ("resolve" | "raw" | "blob"), rev, file @ ..] = rest else { return None };
    if *how != "blob" && is_commit(rev) || file.is_empty() {
        return None;
    }
    let why = match *how {
        "blob" => "it is a page that shows a file, not the file".to_owned(),
        _ => format!("`{rev}` is no commit: what it stands for can move"),
    };
    let files = files(Some(&file.join("/")));
    advice(why, format!("{{ url = \"hf://{kind}{org}/{name}\", rev = {}{files} }}", quoted(rev)))
}

/// Links that people share: their owner can put another file behind them, quotas and log-ins answer with web pages, and Google
/// Drive asks to confirm that a large file was not looked through for viruses.
fn shared(host: &str, segments: &[&str]) -> Option<Advice> {
    let ends = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    let what = if ["drive.google.com", "docs.google.com", "drive.usercontent.google.com"].contains(&host) {
        "a Google Drive link"
    } else if ends("dropbox.com") || ends("dropboxusercontent.com") || host == "db.tt" {
        "a Dropbox link"
    } else if ["1drv.ms", "onedrive.live.com", "api.onedrive.com"].contains(&host) {
        "a OneDrive link"
    } else if ends("sharepoint.com") {
        "a SharePoint link"
    } else if ends("box.com") && matches!(segments, ["s" | "shared", ..]) {
        "a Box link"
    } else if ends("we.tl") || ends("wetransfer.com") {
        "a WeTransfer link"
    } else {
        return None;
    };
    let why = format!("{what} may give another file, or a page, as its owner and the service like");
    advice(
        why,
        "put the file where it stays: a repository with DOIs (`doi:…`), the hub (`hf://…`), or a bucket (`s3://…`)",
    )
}

/// Records of Zenodo: `/records/N/files/FILE?download=1`. Their bytes stay, but the address of a page of the site says
/// neither the publisher's checksum nor what there is besides; older addresses (`/record/N`) lead on to them.
fn record(host: &str, segments: &[&str]) -> Option<Advice> {
    let zenodo = matches!(host, "zenodo.org");
    match segments {
        ["record" | "records", number, "files", file @ ..] if zenodo && number.bytes().all(|b| b.is_ascii_digit()) => {
            let file = file.iter().filter(|part| **part != "content").copied().collect::<Vec<_>>().join("/");
            let files = files(Some(file.as_str()).filter(|file| !file.is_empty()));
            let why = "it is an address of Zenodo's web pages, where the publisher's checksum is not looked at";
            advice(why, format!("{{ url = \"doi:10.5281/zenodo.{number}\"{files} }}"))
        }
        _ => None,
    }
}

/// `latest`, `current` or `nightly` as a component of the path, or as the last word of the file's name.
fn latest(segments: &[&str]) -> Option<Advice> {
    let moving = ["latest", "nightly"];
    let in_name = |name: &str| {
        let name = name.to_ascii_lowercase();
        let mut words = name.split(['-', '_', '.']);
        words.find(|word| moving.contains(word)).map(str::to_owned)
    };
    let (last, folders) = segments.split_last()?;
    let word = folders.iter().map(|f| f.to_ascii_lowercase()).find(|f| moving.contains(&f.as_str()));
    let word = word.or_else(|| in_name(last))?;
    advice(format!("`{word}` is another file one day"), "the address of the version itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The advice on each address: a part of why, and of what is better.
    #[test]
    fn what_is_known_to_move() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let git = |rev: &str, file: &str| {
            let files = if file.is_empty() { String::new() } else { format!(", files = [\"{file}\"]") };
            format!("{{ url = \"git+https://github.com/o/r.git\", rev = \"{rev}\"{files} }}")
        };
        let archive = "the forge makes this archive";
        for (url, why, better) in [
            ("https://github.com/o/r/archive/refs/heads/main.zip", archive, git("main", "")),
            ("https://github.com/o/r/archive/refs/tags/v1.0.tar.gz", archive, git("v1.0", "")),
            (&format!("https://github.com/o/r/archive/{commit}.zip"), archive, git(commit, "")),
            ("https://www.github.com/o/r/zipball/dev", archive, git("dev", "")),
            ("https://github.com/o/r/tarball", archive, git("HEAD", "")),
            ("https://codeload.github.com/o/r/zip/refs/heads/a/b", archive, git("a/b", "")),
            ("https://api.github.com/repos/o/r/zipball/main", archive, git("main", "")),
            ("https://github.com/o/r/releases/latest/download/d.zip", "`latest`", "releases/download/TAG".to_owned()),
            ("https://raw.githubusercontent.com/o/r/main/d/a.csv", "`main` is no commit", git("main", "d/a.csv")),
            ("https://raw.githubusercontent.com/o/r/refs/heads/main/a.csv", "`main` is no", git("main", "a.csv")),
            ("https://github.com/o/r/raw/main/a.csv", "`main` is no commit", git("main", "a.csv")),
            ("https://github.com/o/r/blob/main/a.csv", "a page that shows", git("main", "a.csv")),
            (&format!("https://github.com/o/r/blob/{commit}/a.csv?raw=1"), "a page that shows", git(commit, "a.csv")),
            (
                "https://git.example.org:8443/g/s/r/-/raw/main/a.csv",
                "`main` is no commit",
                "git+https://git.example.org:8443/g/s/r.git".to_owned(),
            ),
            ("https://gitlab.com/o/r/-/archive/main/r-main.zip", archive, "rev = \"main\"".to_owned()),
            ("https://bitbucket.org/o/r/get/main.zip", archive, "git+https://bitbucket.org/o/r.git".to_owned()),
            (
                "https://huggingface.co/datasets/o/n/resolve/main/d/a.parquet?download=true",
                "`main` is no commit",
                "{ url = \"hf://datasets/o/n\", rev = \"main\", files = [\"d/a.parquet\"] }".to_owned(),
            ),
            (
                "https://huggingface.co/o/n/resolve/refs%2Fconvert%2Fparquet/a",
                "`refs/convert/parquet` is no commit",
                "{ url = \"hf://o/n\", rev = \"refs/convert/parquet\", files = [\"a\"] }".to_owned(),
            ),
            (&format!("https://huggingface.co/o/n/blob/{commit}/a"), "a page that shows", "hf://o/n".to_owned()),
            ("https://drive.google.com/uc?id=1&export=download", "Google Drive", "doi:".to_owned()),
            ("https://www.dropbox.com/s/x/a.zip?dl=1", "Dropbox", "doi:".to_owned()),
            ("https://1drv.ms/u/s!x", "OneDrive", "doi:".to_owned()),
            ("https://o-my.sharepoint.com/:u:/g/x", "SharePoint", "doi:".to_owned()),
            (
                "https://zenodo.org/records/123/files/a.zip?download=1",
                "web pages",
                "{ url = \"doi:10.5281/zenodo.123\", files = [\"a.zip\"] }".to_owned(),
            ),
            ("https://zenodo.org/record/123/files/a.zip", "web pages", "doi:10.5281/zenodo.123".to_owned()),
            (
                "https://github.com/o/r/raw/main/a%20b/%22c.csv",
                "`main` is no commit",
                "files = [\"a b/\\\"c.csv\"]".to_owned(),
            ),
            ("https://example.org/data/latest/a.csv", "`latest`", "the version itself".to_owned()),
            ("http://example.org/a-latest.tar.gz", "`latest`", "the version itself".to_owned()),
        ] {
            let found = unstable(&SourceUrl::parse(url).unwrap()).unwrap_or_else(|| panic!("{url}"));
            assert!(found.why.contains(why), "{url}: {}", found.why);
            assert!(found.better.contains(&better), "{url}: {}", found.better);
        }
    }

    #[test]
    fn what_stays_is_left_alone() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for url in [
            "https://github.com/o/r/releases/download/v1.0/d.zip",
            "https://raw.githubusercontent.com/o/r/refs/tags/v1/a.csv",
            &format!("https://raw.githubusercontent.com/o/r/{commit}/a.csv"),
            &format!("https://github.com/o/r/raw/{commit}/a.csv"),
            &format!("https://gitlab.com/o/r/-/raw/{commit}/a.csv"),
            &format!("https://huggingface.co/datasets/o/n/resolve/{commit}/a.parquet"),
            "https://example.org/archive/main.zip",
            "https://example.org/a-b/-/x",
            "https://example.org/greatest/latestness.csv",
            "https://zenodo.org/api/records/123/files/a.zip/content",
            "https://example.org/",
            "hf://datasets/o/n",
            "git+https://github.com/o/r.git",
            "s3://b/latest/a",
            "file:///data/latest/a",
        ] {
            assert_eq!(unstable(&SourceUrl::parse(url).unwrap()), None, "{url}");
        }
    }
}
