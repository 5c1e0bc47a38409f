//! Where data comes from: the addresses that train.toml may name.

use std::fmt;
use url::Url;

/// An address as written, checked for its form and sorted by who can serve it.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// `https://…`, or `http://…` where the manifest says so.
    Http(Url),
    /// `file:///…`: a file of this machine.
    File(Url),
    /// `hf://datasets/ORG/NAME` or `hf://ORG/NAME`.
    Hf(String),
    /// `git+https://…`, `git+ssh://…`, `git+file://…`.
    Git(Url),
    /// `s3://…`, `gs://…`, `az://…`.
    Object(Url),
    /// `pypi:NAME@VERSION`.
    Pypi(String),
    /// `doi:10.…/…`.
    Doi(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not of the form that addresses have.
    #[error("not a URL: {0}")]
    Syntax(#[from] url::ParseError),
    /// A scheme that no source has.
    #[error(
        "unknown kind of URL `{0}:`: use https, http, file, hf, git+https, git+ssh, git+file, s3, gs, az, pypi or doi"
    )]
    Scheme(String),
    /// A password does not belong in a file that is committed.
    #[error("the URL holds a user name or password: keep credentials in netrc or the environment")]
    Credentials,
    /// `hf://`, `pypi:` and `doi:` with something missing.
    #[error("write it as `{0}`")]
    Form(&'static str),
}

impl SourceUrl {
    /// An address from its text.
    pub fn parse(text: &str) -> Result<SourceUrl, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(url::ParseError::RelativeUrlWithoutBase)?;
        match scheme {
            "https" | "http" => Ok(SourceUrl::Http(without_credentials(Url::parse(text)?)?)),
            "file" => match Url::parse(text)? {
                url if url.host_str().is_some_and(|h| !h.is_empty()) || url.to_file_path().is_err() => {
                    Err(UrlError::Form("file:///absolute/path"))
                }
                url => Ok(SourceUrl::File(url)),
            },
            "hf" => match rest.trim_start_matches('/').split('/').collect::<Vec<_>>()[..] {
                ["datasets", org, name] | [org, name] if !org.is_empty() && !name.is_empty() => {
                    Ok(SourceUrl::Hf(text.to_owned()))
                }
                _ => Err(UrlError::Form("hf://datasets/ORG/NAME or hf://ORG/NAME")),
            },
            "git+https" | "git+ssh" | "git+file" => {
                let url = Url::parse(text)?;
                // A user name is what ssh addresses are made of; a password never is.
                if url.password().is_some() || scheme == "git+https" && !url.username().is_empty() {
                    return Err(UrlError::Credentials);
                }
                Ok(SourceUrl::Git(url))
            }
            "s3" | "gs" | "az" => Ok(SourceUrl::Object(without_credentials(Url::parse(text)?)?)),
            "pypi" => match rest.split_once('@') {
                Some((name, version)) if !name.is_empty() && !version.is_empty() => {
                    Ok(SourceUrl::Pypi(text.to_owned()))
                }
                _ => Err(UrlError::Form("pypi:NAME@VERSION")),
            },
            "doi" if rest.starts_with("10.") && rest.contains('/') => Ok(SourceUrl::Doi(text.to_owned())),
            "doi" => Err(UrlError::Form("doi:10.5281/zenodo.N")),
            other => Err(UrlError::Scheme(other.to_owned())),
        }
    }

    /// The last component of the path, percent-decoding undone: the name of a downloaded file.
    /// None where the path ends in `/` or the address is no path.
    pub fn file_name(&self) -> Option<String> {
        match self {
            SourceUrl::Http(url) | SourceUrl::File(url) | SourceUrl::Object(url) => {
                let last = url.path_segments()?.next_back().filter(|s| !s.is_empty())?;
                let bytes: Vec<u8> = url::form_urlencoded::parse(last.replace('+', "%2B").as_bytes())
                    .next()
                    .map(|(name, _)| name.into_owned().into_bytes())?;
                String::from_utf8(bytes).ok().filter(|name| !name.contains(['/', '\\']))
            }
            _ => None,
        }
    }

    /// The text as it may be shown and recorded: query values that sign or authorise are replaced.
    pub fn redacted(&self) -> String {
        match self {
            SourceUrl::Http(url) => redact(url),
            other => other.to_string(),
        }
    }
}

fn without_credentials(url: Url) -> Result<Url, UrlError> {
    if url.username().is_empty() && url.password().is_none() { Ok(url) } else { Err(UrlError::Credentials) }
}

/// A URL with what signs or authorises taken out: user, password, and such query values.
fn redact(url: &Url) -> String {
    let secret = |key: &str| {
        let key = key.to_ascii_lowercase();
        ["sig", "token", "key", "credential", "secret", "password", "auth", "policy"].iter().any(|s| key.contains(s))
    };
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let Some(query) = url.query() else {
        return url.into();
    };
    let shown: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((key, _)) if secret(key) => format!("{key}=REDACTED"),
            _ => pair.to_owned(),
        })
        .collect();
    url.set_query(Some(&shown.join("&")));
    url.into()
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceUrl::Http(url) | SourceUrl::File(url) | SourceUrl::Git(url) | SourceUrl::Object(url) => {
                f.pad(url.as_str())
            }
            SourceUrl::Hf(text) | SourceUrl::Pypi(text) | SourceUrl::Doi(text) => f.pad(text),
        }
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for good in [
            "https://example.org/a.csv",
            "http://127.0.0.1:8080/a",
            "file:///tmp/a%20b.csv",
            "hf://datasets/org/reviews",
            "hf://org/model",
            "git+https://example.org/l.git",
            "git+ssh://git@example.org/l.git",
            "s3://bucket/prefix/",
            "pypi:palmerpenguins@0.1.4",
            "doi:10.5281/zenodo.1",
        ] {
            assert_eq!(SourceUrl::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "data.csv",
            "ftp://x/y",
            "hf://one",
            "pypi:name",
            "doi:x",
            "https://u:p@h/x",
            "file://host/x",
            "https://",
        ] {
            assert!(SourceUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn file_names() {
        let name = |u| SourceUrl::parse(u).unwrap().file_name();
        assert_eq!(name("https://x.org/a/b%20c+d.csv?x=1").as_deref(), Some("b c+d.csv"));
        assert_eq!(name("https://x.org/a/"), None);
        assert_eq!(name("https://x.org/a%2Fb"), None);
        assert_eq!(name("hf://org/model"), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = SourceUrl::parse("https://x.org/a?X-Amz-Signature=abc&part=1&access_token=t").unwrap();
        assert_eq!(url.redacted(), "https://x.org/a?X-Amz-Signature=REDACTED&part=1&access_token=REDACTED");
        assert_eq!(format!("{url:?}"), url.redacted());
    }
}
