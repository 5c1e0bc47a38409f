//! What docker, podman and skopeo remember of registries: their configuration files and credential helpers.
//!
//! Formats: docker's `config.json` ("auths", "credHelpers", "credsStore"; containers-auth.json(5) is the same), and the
//! protocol of `docker-credential-*` programs (`get`: the server on standard input, JSON on standard output).

use crate::auth::{self, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The files that may exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerFiles(pub Vec<PathBuf>);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase", default)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl DockerFiles {
    /// The login for a repository of a registry, of the first file that knows one: a user name and password, or an identity
    /// token as a [`Secret::token`], for which the registry's token server gives others.
    ///
    /// # Errors
    /// Which file or helper could not be used, and why.
    pub(super) fn login(&self, registry: &str, repository: &str) -> Result<Option<Secret>, String> {
        for path in &self.0 {
            let Ok(text) = fs_err::read_to_string(path) else { continue };
            let file: File = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            if let Some(secret) = file.login(registry, repository)? {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }
}

impl File {
    fn login(&self, registry: &str, repository: &str) -> Result<Option<Secret>, String> {
        let keys = keys(registry);
        let helper = keys.iter().find_map(|key| self.cred_helpers.get(key));
        if let Some(helper) = helper.or(self.creds_store.as_ref()) {
            for key in &keys {
                if let Some(secret) = ask(helper, key)? {
                    return Ok(Some(secret));
                }
            }
        }
        // podman keeps logins for parts of a registry too: what is nearer to the repository goes before.
        let full = format!("{registry}/{repository}");
        let mut parts = std::iter::successors(Some(full.as_str()), |part| Some(part.rsplit_once('/')?.0));
        let login = parts.find_map(|part| self.auths.get(part));
        let Some(login) = login.or_else(|| keys.iter().find_map(|key| self.auths.get(key))) else { return Ok(None) };
        // Beside it stands what is no login.
        if let Some(token) = login.identity_token.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Secret::token(token)));
        }
        if let (Some(user), Some(password)) = (&login.username, &login.password) {
            return Ok(Some(Secret::login(user, password)));
        }
        let Some(auth) = login.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
        match pair {
            Some((user, password)) => Ok(Some(Secret::login(user, password))),
            None => Err(format!("the login for {registry} in docker's configuration can't be read")),
        }
    }
}

/// The names under which a registry may stand.
fn keys(registry: &str) -> Vec<String> {
    let mut keys = vec![registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v2/")];
    if registry == "docker.io" {
        keys.insert(0, "https://index.docker.io/v1/".to_owned());
        keys.push("index.docker.io".to_owned());
    }
    keys
}

/// What a credential helper has for a server.
fn ask(helper: &str, server: &str) -> Result<Option<Secret>, String> {
    let program = format!("docker-credential-{helper}");
    // A helper that knows no login for a server ends with an error; so does docker's own use of it.
    let Ok(text) = auth::run(&[program.clone(), "get".to_owned()], server) else { return Ok(None) };
    let answer: Answer =
        serde_json::from_str(&text).map_err(|_| format!("`{program} get` printed no user name and secret"))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Secret::token(answer.secret),
        _ => Secret::login(answer.username, answer.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins() {
        let file: File = serde_json::from_str(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "h.org": {"username": "a", "password": "b:c"},
                "h.org/team": {"username": "t", "password": "w"}, "bad.org": {"auth": "!!"}, "empty.org": {}, "id.org": {"auth": "MDAwMDo=", "identitytoken": "refresh"}}, "HttpHeaders": {}}"#,
        )
        .unwrap();
        assert_eq!(file.login("docker.io", "library/x").unwrap(), Some(Secret::login("u", "p")));
        assert_eq!(file.login("h.org", "teams/x").unwrap(), Some(Secret::login("a", "b:c")));
        assert_eq!(file.login("h.org", "team/sub/x").unwrap(), Some(Secret::login("t", "w")));
        assert_eq!((file.login("empty.org", "x"), file.login("x.org", "x")), (Ok(None), Ok(None)));
        assert_eq!(file.login("id.org", "x").unwrap(), Some(Secret::token("refresh")));
        assert!(file.login("bad.org", "x").is_err());
    }
}
