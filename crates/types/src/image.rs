//! References to container images, as the OCI distribution specification and docker write them.

use crate::Digest;
use std::fmt;
use std::str::FromStr;

/// Where references without a registry lead, and what its API is reached at.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// `[HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]`. Without a host it is docker's own registry, where a name of one part
/// stands below `library/`; without a tag and a digest the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    text: String,
    host: Option<String>,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The registry by the name that it has in docker's configuration: `docker.io`, `ghcr.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        match self.host.as_deref() {
            None | Some("index.docker.io") => HUB.0,
            Some(host) => host,
        }
    }

    /// The host, and port if it names one, that answers for the registry.
    pub fn api_host(&self) -> &str {
        if self.registry() == HUB.0 { HUB.1 } else { self.registry() }
    }

    /// The name within the registry: `library/python`.
    pub fn repository(&self) -> String {
        match self.registry() == HUB.0 && !self.name.contains('/') {
            true => format!("library/{}", self.name),
            false => self.name.clone(),
        }
    }

    /// The digest that it names itself, if it does.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What is asked for: its digest, else its tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same image by digest, in full: what another program can be told to run.
    pub fn pinned(&self, digest: &Digest) -> String {
        format!("{}/{}@sha256:{digest}", self.registry(), self.repository())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ImageReference {
    type Err = &'static str;

    /// The error says what is wrong with it, in words.
    fn from_str(text: &str) -> Result<ImageReference, &'static str> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let digest = match digest.map(|d| d.strip_prefix("sha256:").and_then(|hex| hex.parse().ok())) {
            Some(None) => return Err("a digest is `sha256:` and 64 hexadecimal digits"),
            other => other.flatten(),
        };
        let (name, tag) = match name.rfind(':').filter(|colon| !name[*colon..].contains('/')) {
            Some(colon) => (&name[..colon], Some(&name[colon + 1..])),
            None => (name, None),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if tag.is_some_and(|t| t.is_empty() || t.len() > 128 || !t.chars().all(word) || t.starts_with(['.', '-'])) {
            return Err("a tag has letters, digits, `_`, `.` and `-`");
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
            _ => (None, name),
        };
        if host.is_some_and(|h| !h.chars().all(|c| word(c) || matches!(c, ':' | '[' | ']'))) {
            return Err("a registry is a host name, and a port if it needs one");
        }
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| word(c) && !c.is_ascii_uppercase())
        };
        if !path.split('/').all(part) {
            return Err("a name has lower-case letters and digits, with `.`, `_`, `-` and `/` between them");
        }
        Ok(ImageReference {
            text: text.to_owned(),
            host: host.map(str::to_owned),
            name: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let of = |text: &str| {
            let r: ImageReference = text.parse().unwrap();
            format!("{} {} {} {}", r.registry(), r.api_host(), r.repository(), r.target())
        };
        assert_eq!(of("python:3.11-slim"), "docker.io registry-1.docker.io library/python 3.11-slim");
        assert_eq!(of("docker.io/org/x"), "docker.io registry-1.docker.io org/x latest");
        assert_eq!(of("localhost:5000/a/b:1"), "localhost:5000 localhost:5000 a/b 1");
        let hex = "ab".repeat(32);
        assert_eq!(of(&format!("ghcr.io/o/n:1@sha256:{hex}")), format!("ghcr.io ghcr.io o/n sha256:{hex}"));
        let pinned = "python".parse::<ImageReference>().unwrap().pinned(&hex.parse().unwrap());
        assert_eq!(pinned, format!("docker.io/library/python@sha256:{hex}"));
        for bad in ["", "Python", "a:", "a@sha256:12", "a:b c", "h.org/", "-a", "a//b", "a:.x"] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad}");
        }
    }
}
