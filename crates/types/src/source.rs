//! Where data comes from: the addresses that train.toml may name.

use crate::Digest;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::{Deref, Range};
use std::sync::OnceLock;
use url::Url;

/// An address as written, checked for its form and sorted by who can serve it.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// `https://…`, or `http://…` where the manifest says so.
    Http(Address),
    /// `file:///…`: a file of this machine.
    File(Address),
    /// `hf://datasets/ORG/NAME` or `hf://ORG/NAME`.
    Hf(String),
    /// `git+https://…`, `git+ssh://…`, `git+file://…`.
    Git(Address),
    /// `s3://…`, `gs://…`, `az://…`.
    Object(Address),
    /// `pypi:NAME@VERSION`.
    Pypi(String),
    /// `doi:10.…/…`.
    Doi(String),
}

/// A URL in its normal form. It behaves as a [`Url`], into which it is made when that is first asked for: nearly all
/// addresses of a large project are only compared.
#[derive(Clone)]
pub struct Address {
    text: Box<str>,
    url: OnceLock<Box<Url>>,
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
    /// A program of the hub's.
    #[error(
        "a space of the hub is a program, not data: name the data set or model that it uses, as hf://datasets/ORG/NAME or hf://ORG/NAME"
    )]
    Space,
    /// `hf://`, `pypi:` and `doi:` with something missing.
    #[error("write it as `{0}`")]
    Form(&'static str),
}

impl SourceUrl {
    /// An address from its text.
    pub fn parse(text: &str) -> Result<SourceUrl, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(url::ParseError::RelativeUrlWithoutBase)?;
        match scheme {
            "https" | "http" if is_normal(rest) => {
                Ok(SourceUrl::Http(Address { text: text.into(), url: OnceLock::new() }))
            }
            "https" | "http" => Ok(SourceUrl::Http(without_credentials(Url::parse(text)?)?)),
            "file" => match Url::parse(text)? {
                url if url.host_str().is_some_and(|h| !h.is_empty()) || url.to_file_path().is_err() => {
                    Err(UrlError::Form("file:///absolute/path"))
                }
                url => Ok(SourceUrl::File(url.into())),
            },
            "hf" => match rest.trim_start_matches('/').split('/').collect::<Vec<_>>()[..] {
                ["spaces", ..] => Err(UrlError::Space),
                ["datasets" | "models", _] => Err(UrlError::Form("hf://datasets/ORG/NAME or hf://ORG/NAME")),
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
                Ok(SourceUrl::Git(url.into()))
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
                let last = url.last_segment().filter(|s| !s.is_empty())?;
                if !last.contains('%') {
                    return Some(last.to_owned()).filter(|name| !name.contains('\\'));
                }
                // Of a form's fields this is a whole name: what separates names and values there is escaped first.
                let escaped = last.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
                let bytes: Vec<u8> = url::form_urlencoded::parse(escaped.as_bytes())
                    .next()
                    .map(|(name, _)| name.into_owned().into_bytes())?;
                String::from_utf8(bytes).ok().filter(|name| !name.contains(['/', '\\']))
            }
            _ => None,
        }
    }

    /// The address of an object at one of the versions that its bucket keeps; none for other kinds of addresses.
    pub fn at_version(&self, version: &str) -> Option<SourceUrl> {
        let SourceUrl::Object(address) = self else { return None };
        let mut url: Url = (**address).clone();
        url.query_pairs_mut().clear().append_pair("versionId", version);
        Some(SourceUrl::Object(url.into()))
    }

    /// The version that the address of an object names.
    pub fn version(&self) -> Option<String> {
        let SourceUrl::Object(address) = self else { return None };
        address.query_pairs().find(|(key, _)| key == "versionId").map(|(_, version)| version.into_owned())
    }

    /// The text as it may be shown and recorded: query values that sign or authorise are replaced.
    pub fn redacted(&self) -> String {
        match self {
            SourceUrl::Http(url) | SourceUrl::Git(url) | SourceUrl::Object(url) => redact(url, |_| String::new()),
            other => other.to_string(),
        }
    }

    /// The address as it is locked: in the place of each query value that signs or authorises stands a part of its digest, so
    /// that another value makes another request. What is locked already stays as it is.
    pub fn for_lock(&self) -> SourceUrl {
        let redact = |url: &Address| match url.as_str().contains('?') {
            true => redact(url, |value| match value.strip_prefix("REDACTED-") {
                Some(digest) => format!("-{digest}"),
                None => format!("-{}", &Digest::of(value.as_bytes()).to_hex()[..16]),
            }),
            false => url.as_str().to_owned(),
        };
        let (text, of): (_, fn(Address) -> SourceUrl) = match self {
            SourceUrl::Http(url) => (redact(url), SourceUrl::Http),
            SourceUrl::Git(url) => (redact(url), SourceUrl::Git),
            SourceUrl::Object(url) => (redact(url), SourceUrl::Object),
            other => return other.clone(),
        };
        of(Address { text: text.into(), url: OnceLock::new() })
    }
}

impl Address {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands behind the last `/` of its path; none if it has no path.
    fn last_segment(&self) -> Option<&str> {
        match self.url.get() {
            Some(url) => url.path_segments()?.next_back(),
            // Only what [`is_normal`] knows has not been made into a URL yet.
            None => self.text.split('?').next()?.rsplit('/').next(),
        }
    }
}

impl Deref for Address {
    type Target = Url;

    fn deref(&self) -> &Url {
        let parse =
            || Url::parse(&self.text).unwrap_or_else(|e| unreachable!("`{}` was found to be a URL: {e}", self.text));
        self.url.get_or_init(|| Box::new(parse()))
    }
}

impl From<Url> for Address {
    fn from(url: Url) -> Address {
        Address { text: url.as_str().into(), url: OnceLock::from(Box::new(url)) }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.text == other.text
    }
}

impl Eq for Address {}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(self, |_| String::new()))
    }
}

/// The repository that an `hf:` address names, as the hub's pages do: `datasets/ORG/NAME`, or `ORG/NAME` for a model.
pub fn hub_id(address: &str) -> &str {
    address.trim_start_matches("hf:").trim_matches('/')
}

/// Whether what follows the `https:` or `http:` of an address makes it one that the URL parser would take as it stands:
/// `//`, a host, and a path that begins with `/`, of plain characters alone. What is not so plain the parser has to see.
fn is_normal(rest: &str) -> bool {
    let Some((host, path)) =
        rest.strip_prefix("//").and_then(|rest| rest.split_at_checked(rest.bytes().position(|b| b == b'/')?))
    else {
        return false;
    };
    let label = |label: &[u8]| {
        let good = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        !label.is_empty() && !label.starts_with(b"xn--") && label.iter().all(good)
    };
    let mut labels = host.as_bytes().split(|b| *b == b'.');
    // A last label that begins with a digit may be a part of an IPv4 address, which has many ways of writing.
    let named = labels.clone().next_back().is_some_and(|last| last.first().is_some_and(u8::is_ascii_lowercase));
    let good_host = if named { labels.all(label) } else { host.parse::<Ipv4Addr>().is_ok() };
    // A component that begins with a dot may be `.` or `..`, which the parser takes away.
    let mut before = b'.';
    let good = |b: u8| {
        let begins = std::mem::replace(&mut before, b) == b'/';
        PLAIN[usize::from(b)] && !(begins && b == b'.')
    };
    good_host && path.bytes().all(good)
}

/// The characters that a path or query holds without being escaped, and that have no meaning there but `/` and `?`.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&()*+,;=:@/?";
    while let [byte, rest @ ..] = others {
        plain[*byte as usize] = true;
        others = rest;
    }
    plain
};

fn without_credentials(url: Url) -> Result<Address, UrlError> {
    if url.username().is_empty() && url.password().is_none() { Ok(url.into()) } else { Err(UrlError::Credentials) }
}

/// Whether a query's value under this key signs or authorises.
fn is_secret(key: &str) -> bool {
    const WORDS: &[&str] =
        &["sig", "token", "key", "credential", "secret", "password", "passwd", "auth", "policy", "jwt", "session"];
    let key = key.to_ascii_lowercase();
    WORDS.iter().any(|word| key.contains(word))
}

/// A text, such as a manifest with a mistake in an address, with an asterisk for each byte of what signs or authorises in its URLs:
/// all places in it stay where they are.
pub fn masked(text: &str) -> String {
    let mut hidden: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'`<>".contains(c);
        let url = text[start..].split(ends).next().unwrap_or_default();
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let authority = before.split(['/', '#']).next().unwrap_or_default();
        // A password may hold what would end the host: then what follows the colon is no port.
        let port = authority.split_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let login = match authority.rfind('@') {
            Some(end) => Some(end),
            None if port => None,
            None => url.rfind('@'),
        };
        if let Some(end) = login {
            let from = url[..end].find(':').map(|colon| colon + 1);
            // A user's name alone is a token, but for ssh.
            let from = from.or_else(|| (!text[..at].ends_with("ssh")).then_some(0));
            hidden.extend(from.map(|from| start + from..start + end));
        }
        let mut place = start + before.len() + 1;
        for pair in query.split('&') {
            if let Some((key, value)) = pair.split_once('=')
                && is_secret(key)
            {
                let from = place + key.len() + 1;
                hidden.push(from..from + value.len());
            }
            place += pair.len() + 1;
        }
    }
    let mut bytes = text.as_bytes().to_vec();
    hidden.into_iter().for_each(|range| bytes[range].fill(b'*'));
    String::from_utf8(bytes).unwrap_or_default()
}

/// A URL with what signs or authorises taken out: user, password, and such query values, in whose place stands `REDACTED` and
/// what `instead` makes of the value.
fn redact(url: &Address, instead: impl Fn(&str) -> String) -> String {
    let has_user = url.scheme().starts_with("http") && (!url.username().is_empty() || url.password().is_some());
    if !has_user && !url.as_str().contains('?') {
        return url.as_str().to_owned();
    }
    let mut url: Url = (**url).clone();
    if has_user {
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    let Some(query) = url.query() else {
        return url.into();
    };
    let shown: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if is_secret(key) => format!("{key}=REDACTED{}", instead(value)),
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
    use proptest::prelude::*;

    #[test]
    fn secrets_of_a_text_are_masked_in_their_place() {
        for (text, shown) in [
            ("url = \"https://me:pw@x.org/a\" # c", "url = \"https://me:**@x.org/a\" # c"),
            ("https://token@x.org/a", "https://*****@x.org/a"),
            ("git+ssh://git@x.org/a", "git+ssh://git@x.org/a"),
            ("'https://me:p/w@x.org/a'", "'https://me:***@x.org/a'"),
            ("https://x.org:80/a@b?part=1&X-Signature=abc&c=d", "https://x.org:80/a@b?part=1&X-Signature=***&c=d"),
            ("https://x.org/?token=ä\nhttps://a:b@y", "https://x.org/?token=**\nhttps://a:*@y"),
            ("hf://datasets/o/n@main pypi:p@1", "hf://datasets/o/n@main pypi:p@1"),
            ("://", "://"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

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
            "hf://spaces/org/app",
            "hf://datasets/squad",
            "pypi:name",
            "doi:x",
            "https://u:p@h/x",
            "file://host/x",
            "https://",
        ] {
            assert!(SourceUrl::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// What is taken as it stands is what the parser makes of it, and the rest is left to the parser.
        #[test]
        fn normal_addresses_are_those_of_the_parser(
            scheme in "https?",
            host in "([a-z0-9.-]{1,9}|xn--[a-z]{0,4}|[0-9.]{4,9}|([0-9]{1,3}\\.){3}[0-9]{1,3}|0x[0-9a-f]|a\\.org|.{0,5})(:[0-9]{0,3})?",
            path in "(/|/\\.|/\\.\\.|[a-zA-Z0-9._~!$&'()*+,;=:@%?#|^\\\\ -]|.){0,12}",
        ) {
            let rest = format!("//{host}{path}");
            let text = format!("{scheme}:{rest}");
            if is_normal(&rest) {
                let url = Url::parse(&text).expect("a URL");
                prop_assert_eq!(url.as_str(), &*text);
                prop_assert!(without_credentials(url.clone()).is_ok());
                let (quick, slow) = (SourceUrl::parse(&text).expect("a URL"), SourceUrl::Http(url.into()));
                prop_assert_eq!(quick.file_name(), slow.file_name());
                prop_assert_eq!(&quick, &slow);
                prop_assert_eq!(quick.redacted(), slow.redacted());
            } else if let Ok(address) = SourceUrl::parse(&text) {
                prop_assert_eq!(address.to_string(), Url::parse(&text).expect("a URL").to_string());
            }
        }
    }

    #[test]
    fn plain_addresses_need_no_parser() {
        for plain in ["//example.org/", "//127.0.0.1/data/a-b_c.csv", "//a.b-c.org/x//y?z=1&t=/u:v@w"] {
            assert!(is_normal(plain), "{plain}");
        }
        for other in [
            "//example.org",
            "//Example.org/",
            "//example.org:443/",
            "//u@example.org/",
            "//example.org/a b",
            "//example.org/%2e%2e/",
            "//example.org/a/../b",
            "//example.org/./",
            "//1.2.3/",
            "//a.0x7f/",
            "//a..b/",
            "//a.org./",
            "//xn--a/",
            "//x.xn--a/",
            "/example.org/",
            "//",
            "///",
            "//a_b.org/",
            "//example.org/a#b",
            "//example.org/a\\b",
            "//bücher.org/",
        ] {
            assert!(!is_normal(other), "{other}");
        }
    }

    #[test]
    fn file_names() {
        let name = |u| SourceUrl::parse(u).unwrap().file_name();
        assert_eq!(name("https://x.org/a/b%20c+d.csv?x=1").as_deref(), Some("b c+d.csv"));
        assert_eq!(name("https://x.org/a/year=2024&b%20c.csv").as_deref(), Some("year=2024&b c.csv"));
        assert_eq!(name("https://x.org/a/year=2024.csv?x=/y").as_deref(), Some("year=2024.csv"));
        assert_eq!(name("https://x.org"), None);
        assert_eq!(name("https://x.org/a/"), None);
        assert_eq!(name("https://x.org/a%2Fb"), None);
        assert_eq!(name("hf://org/model"), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = SourceUrl::parse("https://x.org/a?X-Amz-Signature=abc&part=1&access_token=t").unwrap();
        assert_eq!(url.redacted(), "https://x.org/a?X-Amz-Signature=REDACTED&part=1&access_token=REDACTED");
        assert_eq!(format!("{url:?}"), url.redacted());
        // Locked, another secret is another address, and what is locked already is locked.
        let locked = url.for_lock();
        assert!(!locked.to_string().contains("abc") && locked.to_string().contains("&part=1&"), "{locked}");
        assert_eq!((locked.for_lock(), locked.redacted()), (locked.clone(), url.redacted()));
        let other = SourceUrl::parse("https://x.org/a?X-Amz-Signature=abd&part=1&access_token=t").unwrap();
        assert_ne!(other.for_lock(), locked);
        let plain = SourceUrl::parse("https://x.org/a?part=1").unwrap();
        assert_eq!(plain.for_lock(), plain);
    }
}
