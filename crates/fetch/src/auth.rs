//! Which credentials a request to an address gets.
//!
//! In this order: what the environment holds for the host, what the configuration holds for it (a token, or a helper
//! program that is asked), netrc. A host's credentials go to that host alone, over `https` or to this machine itself.

use crate::error::{Failure, Reason};
use crate::netrc::Netrc;
use crate::settings::Settings;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::{Host, Url};

/// A helper that has not answered by then is ended: it may wait for someone who is not there.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// More than this no helper has to say.
const HELPER_ANSWER: u64 = 64 << 10;

/// Tokens and passwords by host, from the environment and the configuration. Its `Debug` shows no secret.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// From the environment: by a host's name in capitals, `_` for each dot, `__` for each hyphen, and `_PORT` behind it where a
    /// port is meant alone.
    pub variables: BTreeMap<String, Secret>,
    /// From the configuration: by `host`, or by `host:port`, which goes before.
    pub hosts: BTreeMap<String, Access>,
}

/// Where a host's credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// They are known.
    Known(Secret),
    /// This program prints them when it is started with the host as its last argument: `host`, or `host:port` where the
    /// port is not the scheme's own. What it prints is read as [`Secret::parse`] does; nothing is no credentials.
    Helper(Vec<String>),
}

/// A token, or a user name and password. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Bearer(String),
    Basic(String, String),
}

impl Secret {
    /// A bearer token (RFC 6750).
    pub fn token(text: impl Into<String>) -> Secret {
        Secret(Kind::Bearer(text.into()))
    }

    /// `user:password` (RFC 7617), or a token: a text without a colon, or what stands behind `Bearer `. None if it is empty.
    pub fn parse(text: &str) -> Option<Secret> {
        let text = text.trim();
        if let Some(token) = text.strip_prefix("Bearer ") {
            return Some(Secret::token(token.trim()));
        }
        match text.split_once(':') {
            Some((user, password)) => Some(Secret(Kind::Basic(user.to_owned(), password.to_owned()))),
            None if text.is_empty() => None,
            None => Some(Secret::token(text)),
        }
    }

    /// A user name and password (RFC 7617).
    pub fn login(user: impl Into<String>, password: impl Into<String>) -> Secret {
        Secret(Kind::Basic(user.into(), password.into()))
    }

    /// Whether it is a user name and password.
    pub(crate) fn is_login(&self) -> bool {
        matches!(self.0, Kind::Basic(..))
    }

    /// The token that it is, if it is one.
    pub(crate) fn as_token(&self) -> Option<&str> {
        match &self.0 {
            Kind::Bearer(token) => Some(token),
            Kind::Basic(..) => None,
        }
    }

    /// The value of `Authorization`.
    fn header(&self) -> Result<HeaderValue, Reason> {
        let text = match &self.0 {
            Kind::Bearer(token) => format!("Bearer {token}"),
            Kind::Basic(user, password) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}").as_bytes()))
            }
        };
        let value = HeaderValue::from_str(&text);
        let mut value = value.map_err(|_| Reason::Setup("a token holds characters that none can have".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What the environment calls a host, behind `TRAINLOCK_AUTH_`: capitals, `_` for each dot, `__` for each hyphen, and `_PORT`
/// where a port is meant alone. No two hosts have one name.
pub(crate) fn variable_of(host: &str, port: Option<u16>) -> String {
    let mut name = host.to_ascii_uppercase().replace('-', "__").replace(['.', ':'], "_").replace(['[', ']'], "");
    if let Some(port) = port {
        name.push_str(&format!("_{port}"));
    }
    name
}

/// Answers what a request gets; asks each helper once for each host.
pub(crate) struct Auth {
    credentials: Credentials,
    netrc: Netrc,
    asked: Mutex<BTreeMap<String, Option<Secret>>>,
    /// What servers gave for a part of them, by the beginning of its addresses.
    given: std::sync::Mutex<BTreeMap<String, Secret>>,
}

impl Auth {
    /// Reads netrc. One that is missing is the usual case; one that can't be read says nothing, as for curl.
    pub(crate) fn new(settings: &Settings) -> Auth {
        let netrc = settings.netrc.as_ref().and_then(|path| fs_err::read_to_string(path).ok());
        Auth {
            credentials: settings.credentials.clone(),
            netrc: Netrc::parse(&netrc.unwrap_or_default()),
            asked: Mutex::new(BTreeMap::new()),
            given: std::sync::Mutex::default(),
        }
    }

    /// What begins so is asked with this secret, whatever else there is for its host; of several beginnings the longest counts.
    pub(crate) fn allow(&self, prefix: &Url, secret: Secret) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.insert(prefix.as_str().to_owned(), secret);
    }

    fn given(&self, url: &Url) -> Option<Secret> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        // Of the beginnings of one text, the longest is the last in order.
        given.iter().rev().find(|(prefix, _)| url.as_str().starts_with(*prefix)).map(|(_, secret)| secret.clone())
    }

    /// The `Authorization` of a request to `url`: that of its own host, and only where nobody can listen. `first` is whether
    /// the host is the one that was asked for, and not one that a redirect led to: netrc's `default` is for such alone.
    pub(crate) async fn authorization(&self, url: &Url, first: bool) -> Result<Option<HeaderValue>, Failure> {
        Ok(self.secret(url, first).await?.map(|secret| secret.header()).transpose()?)
    }

    /// The same, as it is known.
    pub(crate) async fn secret(&self, url: &Url, first: bool) -> Result<Option<Secret>, Failure> {
        let Some(host) = url.host_str().filter(|_| is_private(url)) else { return Ok(None) };
        if let Some(given) = self.given(url) {
            return Ok(Some(given));
        }
        let variables = &self.credentials.variables;
        let by_variable = url.port().and_then(|port| variables.get(&variable_of(host, Some(port))));
        if let Some(secret) = by_variable.or_else(|| variables.get(&variable_of(host, None))) {
            return Ok(Some(secret.clone()));
        }
        let full = url.port().map(|port| format!("{host}:{port}"));
        let hosts = &self.credentials.hosts;
        let access = full.as_ref().and_then(|full| hosts.get(full)).or_else(|| hosts.get(host));
        let secret = match access {
            Some(Access::Known(secret)) => Some(secret.clone()),
            Some(Access::Helper(command)) => self.ask(command, full.as_deref().unwrap_or(host)).await?,
            None => None,
        };
        let login = || {
            let login = self.netrc.login(host, first)?;
            Some(Secret(Kind::Basic(login.user.clone(), login.password.clone())))
        };
        Ok(secret.or_else(login))
    }

    async fn ask(&self, command: &[String], host: &str) -> Result<Option<Secret>, Reason> {
        // Held while the helper runs, so that many requests to one host ask it once.
        let mut asked = self.asked.lock().await;
        if let Some(secret) = asked.get(host) {
            return Ok(secret.clone());
        }
        let (mut line, owned) = (command.to_vec(), host.to_owned());
        line.push(owned);
        let answer = tokio::task::spawn_blocking(move || run(&line, "")).await.unwrap_or_else(|e| Err(e.to_string()));
        let helper = command.first().cloned().unwrap_or_default();
        let answer = answer.map_err(|why| Reason::Helper { helper, host: host.to_owned(), why })?;
        let secret = Secret::parse(&answer);
        asked.insert(host.to_owned(), secret.clone());
        Ok(secret)
    }
}

/// Whether nobody on the way can listen.
pub(crate) fn is_private(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || local && url.scheme() == "http"
}

/// What a helper prints when it is given `input`. What it says on standard error is not passed on: it may hold what must not be shown.
pub(crate) fn run(line: &[String], input: &str) -> Result<String, String> {
    let (program, arguments) = line.split_first().ok_or("it has no name")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("it does not start: {e}"))?;
    // A helper that does not want to hear it says so by its end.
    if let Some(mut to) = child.stdin.take() {
        let _ = to.write_all(input.as_bytes());
    }
    let mut out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = out.as_mut().map(|out| out.take(HELPER_ANSWER).read_to_string(&mut text));
        read.transpose().map(|_| text)
    });
    let begin = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begin.elapsed() > HELPER_PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not answer for {HELPER_PATIENCE:?}"));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.to_string()),
        }
    };
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    let text = reader.join().map_err(|_| "its answer could not be read".to_owned())?;
    text.map_err(|_| "its answer is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(credentials: &Credentials, netrc: &str, url: &str) -> Option<String> {
        let auth = Auth {
            credentials: credentials.clone(),
            netrc: Netrc::parse(netrc),
            asked: Mutex::default(),
            given: Default::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let value = runtime.block_on(auth.authorization(&Url::parse(url).unwrap(), true)).unwrap();
        value.map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn encodings() {
        assert_eq!(Secret::parse(" ann:s:3\n").unwrap().0, Kind::Basic("ann".into(), "s:3".into()).clone());
        assert_eq!(Secret::parse("Bearer a:b").unwrap(), Secret::token("a:b"));
        assert_eq!(Secret::parse("abc\n").unwrap(), Secret::token("abc"));
        assert_eq!(Secret::parse(" \n"), None);
        assert_eq!(format!("{:?}", Secret::token("hidden")), "Secret");
    }

    impl fmt::Debug for Kind {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Kind")
        }
    }

    #[test]
    fn names_of_hosts_are_told_apart() {
        assert_eq!(variable_of("data.example.org", None), "DATA_EXAMPLE_ORG");
        assert_eq!(variable_of("my-data.example.org", Some(8443)), "MY__DATA_EXAMPLE_ORG_8443");
        assert_ne!(variable_of("a-b.org", None), variable_of("a.b.org", None));
    }

    #[test]
    fn the_order_and_the_host() {
        let mut credentials = Credentials::default();
        credentials.hosts.insert("a.org".into(), Access::Known(Secret::token("config")));
        credentials.hosts.insert("a.org:8443".into(), Access::Known(Secret::token("port")));
        let netrc = "machine a.org login u password p machine b.org login u password p";
        assert_eq!(sent(&credentials, netrc, "https://a.org/x").as_deref(), Some("Bearer config"));
        assert_eq!(sent(&credentials, netrc, "https://a.org:8443/x").as_deref(), Some("Bearer port"));
        assert_eq!(sent(&credentials, netrc, "https://b.org/x").as_deref(), Some("Basic dTpw"));
        assert_eq!(sent(&credentials, netrc, "https://c.a.org/x"), None);
        assert_eq!(sent(&credentials, netrc, "http://a.org/x"), None, "nothing protects it");
        credentials.variables.insert("A_ORG".into(), Secret::parse("user:word").unwrap());
        assert_eq!(sent(&credentials, netrc, "https://a.org/x").as_deref(), Some("Basic dXNlcjp3b3Jk"));
    }

    #[test]
    fn what_is_given_for_a_part_goes_to_that_part() {
        let auth = Auth {
            credentials: Credentials::default(),
            netrc: Netrc::default(),
            asked: Mutex::default(),
            given: Default::default(),
        };
        for part in ["", "a/", "a/b/"] {
            auth.allow(&Url::parse(&format!("https://h.org/v2/{part}")).unwrap(), Secret::token(part));
        }
        let of = |path: &str| auth.given(&Url::parse(&format!("https://h.org/v2/{path}")).unwrap());
        assert_eq!(of("a/b/manifests/1"), Some(Secret::token("a/b/")));
        assert_eq!(of("a/manifests/1"), Some(Secret::token("a/")));
        assert_eq!(of("ab/manifests/1"), Some(Secret::token("")));
    }

    #[test]
    fn helpers() {
        let helper = |script: &str| {
            let command = ["/bin/sh", "-c", script, "helper"].map(str::to_owned).to_vec();
            let hosts = BTreeMap::from([("localhost".to_owned(), Access::Helper(command))]);
            Credentials { hosts, ..Credentials::default() }
        };
        let url = "http://localhost:81/x";
        assert_eq!(sent(&helper("echo token-for-${1%:81}"), "", url).as_deref(), Some("Bearer token-for-localhost"));
        let fallback = sent(&helper("true"), "machine localhost login u password p", url);
        assert_eq!(fallback.as_deref(), Some("Basic dTpw"), "a helper that knows nothing");
        let auth = Auth {
            credentials: helper("echo no >&2; exit 3"),
            netrc: Netrc::default(),
            asked: Mutex::default(),
            given: Default::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failed = runtime.block_on(auth.authorization(&Url::parse(url).unwrap(), true)).unwrap_err();
        let Failure::Source(reason) = failed else { panic!("{failed:?}") };
        let text = reason.to_string();
        assert!(text.contains("/bin/sh") && text.contains("exit status: 3") && text.contains("localhost:81"), "{text}");
    }
}
