//! The questions that a registry of images is asked (OCI distribution specification; docker's token authentication).

use crate::auth::Secret;
use crate::error::{Failure, FetchError, IMAGE, Mismatch, Reason, SourceFailure, SourceFailures};
use crate::fetcher::Fetcher;
use crate::http::check_status;
use crate::net::{Ask, Form, Net};
use crate::page::redacted;
use serde::Deserialize;
use trainlock_types::{Digest, ImageReference};
use url::{Host, Url};

/// What this program calls itself where a token server wants to know it.
const CLIENT: &str = "trainlock";

/// What a manifest may be.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// One repository of a registry, logged in to.
pub(super) struct Repository<'f> {
    fetcher: &'f Fetcher,
    /// What errors call the image.
    name: String,
    /// `https://HOST/v2/NAME/`
    base: Url,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'f> Repository<'f> {
    /// Asks the registry whether it is one, and how it wants to be asked.
    pub(super) fn open(fetcher: &'f Fetcher, image: &ImageReference) -> Result<Repository<'f>, FetchError> {
        let name = format!("{IMAGE}{image}");
        let host = image.api_host();
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|e| FetchError::Contents {
                name: name.clone(),
                reason: format!("`{host}` is no host: {e}"),
                hint: None,
            })
        };
        let mut root = url("https")?;
        // As for docker: this machine's own registries may do without TLS.
        let net = fetcher.net().map_err(|failure| failed(&name, &root, failure))?;
        if is_loopback(&root)
            && let Err(Failure::Source(Reason::Network(_))) = net.get(&root, Ask::default())
        {
            root = url("http")?;
        }
        // What is read from elsewhere has credentials of its own.
        let mut registry = image.registry().to_owned();
        if let Some(other) = fetcher.settings.replace.of(&root) {
            let port = other.port().map(|port| format!(":{port}")).unwrap_or_default();
            registry = format!("{}{port}", other.host_str().unwrap_or_default());
            root = other;
        }
        let base = root.join(&format!("{}/", image.repository()));
        let base = base.unwrap_or_else(|e| unreachable!("a repository's name is a path: {e}"));
        let repository = Repository { fetcher, name, base };
        if root.scheme() != "file" {
            repository.log_in(net, &root, &registry, image)?;
        }
        Ok(repository)
    }

    fn log_in(&self, net: &Net, root: &Url, registry: &str, image: &ImageReference) -> Result<(), FetchError> {
        let challenges = self.fetcher.tried(&self.name, root, || {
            let (head, ..) = net.get(root, Ask::default())?;
            match head.status {
                401 => Ok(head.challenges),
                // A mirror that is plain files has no such page.
                404 => Ok(Vec::new()),
                _ => Ok(check_status(&head).map(|()| Vec::new())?),
            }
        })?;
        if challenges.is_empty() {
            return Ok(());
        }
        // The distribution specification's "token/jwt" for a user name and password, its "token/oauth" for an identity token.
        let own = net.secret(root).map_err(|failure| self.failed(root, failure))?;
        let login = match own.filter(Secret::is_login) {
            Some(own) => Some(own),
            None => self.fetcher.settings.docker.login(registry, &image.repository()).map_err(|reason| {
                FetchError::Contents {
                    name: self.name.clone(),
                    reason,
                    hint: Some(format!("log in again: docker login {registry}")),
                }
            })?,
        };
        let Some((realm, service)) = challenges.iter().find_map(|text| bearer(text)) else {
            // There is nobody who would take an identity token.
            if let Some(login) = login.filter(Secret::is_login) {
                net.allow(root, login);
            }
            return Ok(());
        };
        let Ok(mut url) = root.join(&realm) else { return Err(self.failed(root, Reason::BadRedirect.into())) };
        let scope = format!("repository:{}:pull", image.repository());
        let asked = service.iter().map(|service| ("service", service.as_str())).chain([("scope", scope.as_str())]);
        let page = match login.as_ref().map(Secret::as_token) {
            Some(Some(identity)) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.extend_pairs([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT),
                    ("refresh_token", identity),
                ]);
                let form = Form(form.extend_pairs(asked).finish());
                let refused =
                    |f: &SourceFailure| matches!(f.reason, Reason::Denied { .. } | Reason::Status { status: 400, .. });
                self.fetcher.page_of_form(&self.name, &url, &form).map_err(|error| match error {
                    FetchError::Sources { failures, .. } if failures.0.iter().any(refused) => FetchError::Contents {
                        name: self.name.clone(),
                        reason: format!(
                            "{} did not take the identity token of the login for {registry}",
                            redacted(&url)
                        ),
                        hint: Some(format!("log in again: docker login {registry}")),
                    },
                    error => error,
                })?
            }
            Some(None) | None => {
                url.query_pairs_mut().extend_pairs(asked);
                if let Some(login) = login {
                    net.allow(&url, login);
                }
                self.fetcher.page(&self.name, &url, "application/json")?
            }
        };
        let token: Option<Token> = serde_json::from_slice(&page.body).ok();
        match token.and_then(|t| t.token.or(t.access_token)).filter(|token| !token.is_empty()) {
            Some(token) => net.allow(&self.base, Secret::token(token)),
            None => {
                return Err(FetchError::Contents {
                    name: self.name.clone(),
                    reason: format!("{} gave no token", redacted(&url)),
                    hint: None,
                });
            }
        }
        Ok(())
    }

    /// The manifest of a tag or digest, as it came, and its digest. One that is asked for by digest has that digest.
    pub(super) fn manifest(&self, target: &str) -> Result<(Digest, Vec<u8>), FetchError> {
        let url = self.url("manifests", target);
        let page = self.fetcher.page(&self.name, &url, MANIFESTS)?;
        let found = Digest::of(&page.body);
        match target.strip_prefix("sha256:").and_then(|hex| hex.parse::<Digest>().ok()) {
            Some(expected) if expected != found => {
                let mismatch = Mismatch::Sha256 { expected, found };
                Err(self.failed(&url, Reason::Mismatch { mismatch, html: false }.into()))
            }
            _ => Ok((found, page.body)),
        }
    }

    /// Where a layer or a configuration lies.
    pub(super) fn blob(&self, digest: &Digest) -> Url {
        self.url("blobs", &format!("sha256:{digest}"))
    }

    fn url(&self, part: &str, target: &str) -> Url {
        let url = self.base.join(&format!("{part}/{target}"));
        url.unwrap_or_else(|e| unreachable!("a tag or digest is part of a path: {e}"))
    }

    fn failed(&self, url: &Url, failure: Failure) -> FetchError {
        failed(&self.name, url, failure)
    }
}

fn failed(name: &str, url: &Url, failure: Failure) -> FetchError {
    let name = name.to_owned();
    match failure {
        Failure::Source(Reason::Offline) => FetchError::Offline { name, url: redacted(url) },
        Failure::Source(reason) => {
            let failure = SourceFailure { url: redacted(url), reason, earlier: Vec::new() };
            FetchError::Sources { name, failures: SourceFailures(vec![failure]) }
        }
        Failure::Store(error) => FetchError::Store { name, error },
        Failure::Interrupted => FetchError::Interrupted { name },
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The realm and service of `Bearer realm="…",service="…"`.
fn bearer(challenge: &str) -> Option<(String, Option<String>)> {
    let (scheme, mut rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    while let Some((key, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(',').unwrap_or((value, "")),
        };
        match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
        rest = after;
    }
    Some((realm?, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let of = |text: &str| bearer(text).map(|(realm, service)| format!("{realm} {}", service.unwrap_or_default()));
        let hub = r#"Bearer realm="https://auth.h.org/token",service="registry.h.org",scope="repository:a,b:pull""#;
        assert_eq!(of(hub).as_deref(), Some("https://auth.h.org/token registry.h.org"));
        assert_eq!(of("bearer realm=https://h.org/t, service=x").as_deref(), Some("https://h.org/t x"));
        assert_eq!(of(r#"Bearer service="x""#), None);
        assert_eq!(of(r#"Basic realm="x""#), None);
        assert_eq!(of("Bearer realm=\"open"), None);
    }
}
