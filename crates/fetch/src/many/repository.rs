//! The repositories that descriptions name by the addresses of web pages: of the hub, or of git.

use super::{Source, git, hf};
use std::fmt;
use trainlock_types::{SourceUrl, percent_decoded, quoted};
use url::Url;

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// `hf:` or `git+https:`.
    url: SourceUrl,
    /// Branch, tag or commit; none is the default branch.
    rev: Option<String>,
}

impl Repository {
    /// The one at an address: that of its page, with `/tree/REV` behind it or without, or the one that git is given.
    /// `hub` is the server in the hub's place.
    ///
    /// # Errors
    /// If it names none that can be locked; in words.
    pub(crate) fn parse(text: &str, hub: &Url) -> Result<Repository, String> {
        let mut url = Url::parse(text.strip_prefix("git+").unwrap_or(text)).map_err(|e| e.to_string())?;
        url.set_query(None);
        url.set_fragment(None);
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds credentials".to_owned());
        }
        let is_hub = url.origin() == hub.origin()
            || url.scheme() == "https" && matches!(url.host_str(), Some("huggingface.co" | "hf.co"));
        // The keys that ssh would be shown, and files of this machine, are no matter of a description.
        if url.scheme() != "https" && !is_hub {
            return Err(format!("`{}:` is not followed in a description", url.scheme()));
        }
        let segments: Vec<&str> = url.path_segments().into_iter().flatten().filter(|s| !s.is_empty()).collect();
        let tree = segments.iter().position(|segment| *segment == "tree").filter(|at| *at >= 2);
        let (repository, rev) = segments.split_at(tree.unwrap_or(segments.len()));
        // GitLab has `/-/tree/REV`.
        let repository = repository.strip_suffix(&["-"]).unwrap_or(repository);
        let rev = match rev {
            [] | ["tree"] => None,
            ["tree", "refs", kind, name] if is_hub => Some(percent_decoded(&format!("refs/{kind}/{name}"))),
            ["tree", rev] => Some(percent_decoded(rev)),
            _ => return Err("it names a folder, or a revision with a `/` in it, and which can't be told".to_owned()),
        };
        let path = repository.join("/");
        let url = if is_hub {
            SourceUrl::parse(&format!("hf://{}", percent_decoded(path.trim_end_matches(".git"))))
        } else {
            SourceUrl::parse(&format!("git+{}/{path}", url.origin().ascii_serialization()))
        };
        Ok(Repository { url: url.map_err(|e| e.to_string())?, rev })
    }

    /// The same as a source; the server in the hub's place is `hub`.
    pub(crate) fn source<'a>(&'a self, hub: &'a Url) -> Option<Box<dyn Source + 'a>> {
        let rev = self.rev.as_deref();
        match &self.url {
            SourceUrl::Hf(address) => Some(Box::new(hf::Hf { address, rev, endpoint: hub })),
            SourceUrl::Git(address) => Some(Box::new(git::Git { address, rev })),
            _ => None,
        }
    }
}

/// As an entry of `[data]` has it.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ url = {}", quoted(&self.url.to_string()))?;
        if let Some(rev) = &self.rev {
            write!(f, ", rev = {}", quoted(rev))?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_repositories() {
        let hub = Url::parse("http://127.0.0.1:8080/hub").unwrap();
        for (address, entry) in [
            (
                "https://huggingface.co/datasets/o/n/tree/refs%2Fconvert%2Fparquet",
                r#"{ url = "hf://datasets/o/n", rev = "refs/convert/parquet" }"#,
            ),
            (
                "https://huggingface.co/datasets/o/n/tree/refs/convert/parquet/",
                r#"{ url = "hf://datasets/o/n", rev = "refs/convert/parquet" }"#,
            ),
            ("https://huggingface.co/datasets/o/n.git", r#"{ url = "hf://datasets/o/n" }"#),
            ("https://hf.co/o/n/tree/main?x=1#y", r#"{ url = "hf://o/n", rev = "main" }"#),
            ("http://127.0.0.1:8080/datasets/o/n/tree/v1", r#"{ url = "hf://datasets/o/n", rev = "v1" }"#),
            ("git+https://x.org/a/r.git", r#"{ url = "git+https://x.org/a/r.git" }"#),
            ("https://github.com/o/r/tree/main", r#"{ url = "git+https://github.com/o/r", rev = "main" }"#),
            ("https://x.org:8443/g/s/r/-/tree/a%2Fb", r#"{ url = "git+https://x.org:8443/g/s/r", rev = "a/b" }"#),
            ("https://x.org/tree/r.git", r#"{ url = "git+https://x.org/tree/r.git" }"#),
        ] {
            assert_eq!(Repository::parse(address, &hub).map(|r| r.to_string()).as_deref(), Ok(entry), "{address}");
        }
        for (address, words) in [
            ("https://github.com/o/r/tree/main/data", "can't be told"),
            ("https://huggingface.co/spaces/o/n", "hf"),
            ("https://huggingface.co/datasets/n", "hf://datasets/ORG/NAME"),
            ("http://x.org/r.git", "`http:` is not followed"),
            ("git+ssh://git@x.org/r.git", "credentials"),
            ("ssh://x.org/r.git", "`ssh:` is not followed"),
            ("git+file:///home/a/r", "`file:` is not followed"),
            ("https://u:p@x.org/r.git", "credentials"),
            ("../r", "relative"),
        ] {
            let error = Repository::parse(address, &hub).unwrap_err();
            assert!(error.contains(words), "{address}: {error}");
        }
    }
}
