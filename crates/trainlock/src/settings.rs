//! What the environment and the configuration file say. Nothing else in trainlock reads them.

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trainlock_fetch::{
    Access, ConfigFolders, Credentials, DockerFiles, IndexPlaces, NpmPlaces, ObjectSettings, PythonMirror,
    Replacements, Secret,
};
use trainlock_manifest::Sandbox;
use trainlock_store::Link;
use trainlock_types::{nearest, normalized_package, parse_duration};

/// The environment variables that trainlock reads, with what they do: the docs' list is made of this one.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("TRAINLOCK_STORE", "The store's folder; else `trainlock` in the platform's cache folder."),
    (
        "TRAINLOCK_CONFIG",
        "The configuration file; else `trainlock/config.toml` in the platform's configuration folder.",
    ),
    ("PATH", "Where tools with `from = \"host\"` are looked for."),
    ("HOME, XDG_CACHE_HOME, XDG_CONFIG_HOME", "Where the platform's cache and configuration folders are."),
    (
        "TRAINLOCK_AUTH_HOST",
        "`user:password` or a token for a server. HOST is the host in capitals with `_` for each dot and `__` for each hyphen (`TRAINLOCK_AUTH_DATA_EXAMPLE_ORG`); with `_PORT` behind it for that port alone. It goes before the configuration file and netrc.",
    ),
    (
        "GITHUB_API_URL, GITHUB_TOKEN",
        "The server in GitHub's place that `from = \"github\"` asks for releases, and the token for it.",
    ),
    (
        "HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME",
        "The server in the Hugging Face hub's place, and the token for it: itself, or where the hub's own tools keep it. [auth] in the configuration goes before.",
    ),
    (
        "REGISTRY_AUTH_FILE, DOCKER_CONFIG",
        "Where logins to registries of images are kept: podman's file, docker's folder; else `containers/auth.json` and `~/.docker/config.json`.",
    ),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3",
        "For `s3:` addresses, as for Amazon's own tools; else what `~/.aws/config` and `~/.aws/credentials` say (`AWS_CONFIG_FILE`, `AWS_SHARED_CREDENTIALS_FILE`). Also `AWS_DEFAULT_REGION`, `AWS_DEFAULT_PROFILE`, `AWS_REQUEST_PAYER`, `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`, `AWS_SKIP_SIGNATURE`, `AWS_ROLE_ARN`, `AWS_ROLE_SESSION_NAME`, `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_CONTAINER_CREDENTIALS_FULL_URI`, `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.",
    ),
    (
        "GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST",
        "For `gs:` addresses: a file of credentials, else that of `gcloud auth application-default login`; and a server in Google's place. Also `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_SERVICE_ACCOUNT_KEY`, `GOOGLE_SKIP_SIGNATURE`.",
    ),
    (
        "AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ENDPOINT",
        "For `az:` addresses: the account that has the container, its credentials, its server. Also `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`, `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_SKIP_SIGNATURE`.",
    ),
    ("NETRC", "A netrc file with credentials for servers; else `.netrc` in the home folder."),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "Certificates to trust in place of the system's."),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "The proxy to use, and for which hosts not to."),
    (
        "UV_DEFAULT_INDEX, UV_INDEX_URL, UV_INDEX, UV_EXTRA_INDEX_URL, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL",
        "The package indexes; else what pip's and uv's configuration files say (`PIP_CONFIG_FILE`, `UV_CONFIG_FILE`). Never written anywhere.",
    ),
    (
        "UV_INDEX_NAME_USERNAME, UV_INDEX_NAME_PASSWORD",
        "Credentials for the package index of this name (`UV_INDEX`, uv.toml, `index.NAME`).",
    ),
    ("PIP_CERT", "Certificates to trust besides the system's; else `cert` of pip's configuration."),
    (
        "npm_config_registry, NPM_CONFIG_USERCONFIG",
        "The npm registry, and npm's configuration file in place of `~/.npmrc`, which may name registries and their tokens. Never written anywhere.",
    ),
    ("VIRTUAL_ENV", "The virtual environment that is active: its pip.conf is read."),
    (
        "UV_PYTHON_DOWNLOADS_JSON_URL, UV_PYTHON_INSTALL_MIRROR, UV_PYTHON_DOWNLOADS",
        "The list of builds of the Python interpreter in place of uv's own; what stands in place of the address before a release's folder; `never`: no builds, the machine's interpreters alone.",
    ),
    ("UV_KEYRING_PROVIDER, UV_HTTP_TIMEOUT", "Handed to uv, which resolves python packages."),
    ("NO_COLOR", "If set: no colour."),
    ("CI", "If set: no progress bars."),
];

/// The configuration, from the file, then `--config`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The store's folder.
    pub(crate) store: PathBuf,
    /// How files are brought from the store into folders.
    pub(crate) link: Link,
    /// How many connections at once.
    pub(crate) connections: usize,
    /// How many of them to one host.
    pub(crate) host_connections: usize,
    /// How many bytes a second may come through all of them.
    pub(crate) limit_rate: Option<u64>,
    /// How often a request is made again after a failure that may pass.
    pub(crate) retries: u32,
    /// How long a connection may be silent.
    pub(crate) stall: Duration,
    /// Packages of which locked files are fetched though they were withdrawn.
    pub(crate) yanked: BTreeSet<String>,
    /// Where tools are looked for.
    pub(crate) path: OsString,
    /// The netrc file, if there is one.
    pub(crate) netrc: Option<PathBuf>,
    /// Tokens and passwords by host.
    pub(crate) credentials: Credentials,
    /// Logins to registries of images, as docker and podman keep them.
    pub(crate) docker: DockerFiles,
    /// Addresses that are read from elsewhere.
    pub(crate) replace: Replacements,
    /// Where object stores are, and the credentials for them.
    pub(crate) objects: ObjectSettings,
    /// GitHub's API, or that of a server in its place.
    pub(crate) forge: url::Url,
    /// The Hugging Face hub, where it is another server than its own.
    pub(crate) hub: Option<url::Url>,
    /// What the package index's address is found out from.
    pub(crate) index_places: IndexPlaces,
    /// What the npm registry's address is found out from.
    pub(crate) npm_places: NpmPlaces,
    /// Where builds of the Python interpreter come from.
    pub(crate) python: PythonPlaces,
    /// What a container engine gets of the environment: all but trainlock's own.
    pub(crate) engine_variables: BTreeMap<String, String>,
    /// What uv gets of the environment: proxies, certificates, credentials.
    pub(crate) uv_variables: BTreeMap<String, String>,
    /// The home folder, if there is one.
    pub(crate) home: Option<PathBuf>,
    /// How much isolation is demanded, whatever the manifest says.
    pub(crate) sandbox: Option<Sandbox>,
}

/// Keys of the configuration, each with its default and what it does: the docs' list is made of this one.
pub(crate) const KEYS: &[(&str, &str, &str)] = &[
    (
        "store.path",
        "`trainlock` in the platform's cache folder",
        "The store's folder. `TRAINLOCK_STORE` goes before it.",
    ),
    (
        "store.link",
        "`auto`",
        "How files leave the store: `reflink`, `hardlink`, `copy`, or `auto`: the first of these that works.",
    ),
    ("fetch.connections", "`48`", "How many connections at once, over all hosts: 1 to 256."),
    ("fetch.connections-per-host", "`32`", "How many of them to one host: 1 to 256. One large file takes up to 16."),
    (
        "fetch.limit-rate",
        "none",
        "How many bytes a second may come through all connections together: `500K`, `20M`, `1G` (powers of 1024), `20MB`. `--limit-rate` goes before it.",
    ),
    ("fetch.retries", "`5`", "How often a request is made again after a failure that may pass: 0 to 100."),
    ("fetch.stall-timeout", "`30s`", "How long a connection may be silent."),
    (
        "fetch.yanked",
        "none",
        "Packages, separated by commas, of which locked files are fetched though their publishers have withdrawn (yanked) them.",
    ),
    (
        "index.NAME",
        "none",
        "The address of a package index that manifests take packages from by this name (`index = { torch = \"NAME\" }` in `[python]`).",
    ),
    (
        "auth.\"HOST\".token",
        "",
        "A bearer token for a server: `HOST`, or `HOST:PORT` for that port alone. In the file only, as all of `auth` and `source`.",
    ),
    ("auth.\"HOST\".token-env", "", "The environment variable that holds the token."),
    (
        "auth.\"HOST\".command",
        "",
        "A program and its arguments. It is started with the host behind them, and prints `user:password` or a token.",
    ),
    (
        "source.\"URL\".replace-with",
        "",
        "What begins with URL is read from this address instead: `https://`, `http://` or `file:///`. The longest URL that fits counts.",
    ),
    (
        "sandbox",
        "what train.toml says",
        "How much isolation steps get, whatever train.toml says: `required`, `best-effort` or `off`.",
    ),
];

impl Settings {
    /// Reads environment and file, and lays `--config` over them.
    pub(crate) fn read(global: &Global) -> Result<Settings, Failure> {
        let home = directory("HOME");
        let xdg = |variable: &str, below: &str| directory(variable).or_else(|| home.as_ref().map(|h| h.join(below)));
        let cache = if cfg!(target_os = "macos") {
            xdg("XDG_CACHE_HOME", "Library/Caches")
        } else {
            xdg("XDG_CACHE_HOME", ".cache")
        };
        let index_places = index_places(home.as_deref(), xdg("XDG_CONFIG_HOME", ".config").as_deref());
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let mut settings = Settings {
            store: PathBuf::new(),
            link: Link::Auto,
            connections: 48,
            host_connections: 32,
            limit_rate: None,
            retries: 5,
            stall: Duration::from_secs(30),
            yanked: BTreeSet::new(),
            path: variable("PATH").unwrap_or_default(),
            netrc: variable("NETRC")
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|h| h.join(".netrc")))
                .filter(|f| f.is_file()),
            engine_variables: engine_variables(),
            uv_variables: uv_variables(index_places.certificates().as_deref()),
            index_places,
            python: python_places()?,
            npm_places: npm_places(home.as_deref()),
            credentials: Credentials::default(),
            docker: docker_files(home.as_deref(), xdg("XDG_CONFIG_HOME", ".config").as_deref()),
            replace: Replacements::default(),
            objects: crate::buckets::settings(&text, home.as_deref()),
            hub: None,
            forge: forge()?,
            home: home.clone(),
            sandbox: None,
        };
        let mut store = cache.map(|c| c.join("trainlock"));
        let file = variable("TRAINLOCK_CONFIG").map(PathBuf::from);
        let file = file.or_else(|| {
            xdg("XDG_CONFIG_HOME", ".config").map(|c| c.join("trainlock/config.toml")).filter(|f| f.exists())
        });
        let mut values = match &file {
            Some(file) => settings.read_file(file)?,
            None => Vec::new(),
        };
        for pair in &global.config {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::new(Exit::Invalid, format!("`--config {pair}` is not KEY=VALUE")));
            };
            values.push((key.trim().to_owned(), value.trim().trim_matches('"').to_owned(), format!("--config {key}")));
        }
        if let Some(rate) = &global.limit_rate {
            values.push(("fetch.limit-rate".to_owned(), rate.clone(), "--limit-rate".to_owned()));
        }
        for (key, value, place) in values {
            settings.set(&mut store, &key, &value, &place).map_err(|reason| {
                Failure::new(Exit::Invalid, format!("configuration key `{key}`: {reason} (in {place})"))
            })?;
        }
        for (host, secret) in auth_variables() {
            settings.credentials.variables.extend(Secret::parse(&secret).map(|secret| (host, secret)));
        }
        settings.use_hub()?;
        settings.use_forge();
        if let Some(folder) = variable("TRAINLOCK_STORE") {
            store = Some(PathBuf::from(folder));
        }
        settings.store = store.ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                "there is no place for the store: neither TRAINLOCK_STORE, XDG_CACHE_HOME nor HOME is set",
            )
            .hint("set TRAINLOCK_STORE to a folder")
        })?;
        Ok(settings)
    }

    fn set(&mut self, store: &mut Option<PathBuf>, key: &str, value: &str, place: &str) -> Result<(), String> {
        let number = |range: std::ops::RangeInclusive<u32>| {
            value
                .parse()
                .ok()
                .filter(|n| range.contains(n))
                .ok_or_else(|| format!("`{value}` is not a number from {} to {}", range.start(), range.end()))
        };
        match key {
            "store.path" => *store = Some(PathBuf::from(value)),
            "store.link" => self.link = value.parse::<Link>().map_err(|e| e.to_string())?,
            "fetch.connections" => self.connections = number(1..=256)? as usize,
            "fetch.connections-per-host" => self.host_connections = number(1..=256)? as usize,
            "fetch.limit-rate" => self.limit_rate = Some(rate(value)?),
            "fetch.retries" => self.retries = number(0..=100)?,
            "sandbox" => {
                let word = Sandbox::ALL.into_iter().find(|s| s.as_str() == value);
                self.sandbox =
                    Some(word.ok_or_else(|| format!("`{value}` is not `required`, `best-effort` or `off`"))?);
            }
            "fetch.yanked" => {
                // An array of the file comes as it is written.
                let names = value.trim_matches(['[', ']']).split(',').map(|name| name.trim().trim_matches(['"', '\'']));
                self.yanked.extend(names.filter(|name| !name.is_empty()).map(normalized_package));
            }
            "fetch.stall-timeout" => self.stall = parse_duration(value).map_err(|e| e.to_string())?,
            _ if let Some(name) = key.strip_prefix("index.") => {
                self.index_places.named.insert(name.to_owned(), (value.to_owned(), place.to_owned()));
            }
            _ if ["auth.", "source."].iter().any(|table| key.starts_with(table)) => {
                return Err(
                    "it belongs into the configuration file: a command line is seen by others and recorded".to_owned()
                );
            }
            _ => {
                let near = nearest(key, KEYS.iter().map(|(key, ..)| *key));
                return Err(format!("unknown{}", near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// The forge's token goes to its API.
    fn use_forge(&mut self) {
        let token = variable("GITHUB_TOKEN").and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
        if let (Some(host), Some(token)) = (host_of(&self.forge), token) {
            self.credentials.hosts.entry(host).or_insert_with(|| Access::Known(Secret::token(token.trim())));
        }
    }

    /// Takes the hub's address and token from where the hub's own tools look for them.
    fn use_hub(&mut self) -> Result<(), Failure> {
        let text = |name: &str| variable(name).and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
        if let Some(endpoint) = text("HF_ENDPOINT") {
            let url = url::Url::parse(endpoint.trim()).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
            let url = url.ok_or_else(|| {
                Failure::new(Exit::Invalid, "HF_ENDPOINT is no http or https address".to_owned())
                    .hint("for example `HF_ENDPOINT=https://hub.example.org`, or leave it unset")
            })?;
            self.hub = Some(url);
        }
        let home = text("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(self.home.as_ref()?.join(".cache/huggingface")));
        let file = text("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let Some(token) = token.or_else(|| fs_err::read_to_string(file?).ok()) else { return Ok(()) };
        let host = self.hub.as_ref().map_or_else(|| Some("huggingface.co".to_owned()), host_of);
        let token = Some(token.trim()).filter(|token| !token.is_empty());
        if let (Some(host), Some(token)) = (host, token) {
            self.credentials.hosts.entry(host).or_insert_with(|| Access::Known(Secret::token(token)));
        }
        Ok(())
    }

    /// Reads a configuration file. Its leaves, dotted, each with its place: but for those of `auth` and `source`, whose names
    /// are hosts and addresses.
    fn read_file(&mut self, file: &Path) -> Result<Vec<(String, String, String)>, Failure> {
        let problem = |reason: String| {
            Failure::new(Exit::Invalid, format!("can't read the configuration file `{}`: {reason}", file.display()))
        };
        let text = fs_err::read_to_string(file).map_err(|e| problem(e.to_string()))?;
        // The parser's error would show the line, which may hold a token.
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            problem(format!("line {line}: {}", e.message()))
        })?;
        for (host, access) in tables(&mut table, "auth").map_err(problem)? {
            let access = self::access(&host, access).map_err(problem)?;
            self.credentials.hosts.insert(host.to_ascii_lowercase(), access);
        }
        for (prefix, mut table) in tables(&mut table, "source").map_err(problem)? {
            match (table.remove("replace-with"), table.keys().next()) {
                (Some(toml::Value::String(with)), None) => self
                    .replace
                    .add(&prefix, &with)
                    .map_err(|reason| problem(format!("[source.\"{prefix}\"]: {reason}")))?,
                (_, Some(key)) => return Err(problem(format!("[source.\"{prefix}\"] has the unknown key `{key}`"))),
                (_, None) => {
                    return Err(problem(format!("[source.\"{prefix}\"] has no `replace-with` that is an address")));
                }
            }
        }
        let mut leaves = Vec::new();
        let mut open = vec![(String::new(), toml::Value::Table(table))];
        while let Some((name, value)) = open.pop() {
            match value {
                toml::Value::Table(table) => {
                    let below = |key: String| {
                        if name.is_empty() { key } else { format!("{name}.{key}") }
                    };
                    open.extend(table.into_iter().map(|(key, value)| (below(key), value)));
                }
                toml::Value::String(text) => leaves.push((name, text, file.display().to_string())),
                other => leaves.push((name, other.to_string(), file.display().to_string())),
            }
        }
        Ok(leaves)
    }
}

/// Bytes a second: `20M`, as curl and wget read it, or any size.
fn rate(text: &str) -> Result<u64, String> {
    let unit = |end: char| match end.to_ascii_lowercase() {
        'k' => Some(1u64 << 10),
        'm' => Some(1 << 20),
        'g' => Some(1 << 30),
        _ => None,
    };
    let text = text.strip_suffix("/s").unwrap_or(text).trim();
    let short = text.chars().next_back().and_then(unit).and_then(|unit| {
        let number: f64 = text[..text.len() - 1].trim().parse().ok()?;
        Some((number * unit as f64) as u64)
    });
    short
        .map_or_else(|| trainlock_types::parse_size(text).ok(), Some)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is no number of bytes a second: write for example `500K`, `20M` or `1G`"))
}

/// A server as credentials name it: `host`, or `host:port`.
fn host_of(url: &url::Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or(host.to_owned(), |port| format!("{host}:{port}")))
}

/// Where GitHub's API is.
fn forge() -> Result<url::Url, Failure> {
    let text = variable("GITHUB_API_URL").and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
    let text = text.unwrap_or_else(|| "https://api.github.com".to_owned());
    let url = url::Url::parse(text.trim()).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
    url.ok_or_else(|| Failure::new(Exit::Invalid, "GITHUB_API_URL is no http or https address"))
}

/// The tables inside a table of this name, which is taken away.
fn tables(table: &mut toml::Table, name: &str) -> Result<Vec<(String, toml::Table)>, String> {
    let all = match table.remove(name) {
        None => return Ok(Vec::new()),
        Some(toml::Value::Table(all)) => all,
        Some(_) => return Err(format!("`{name}` is no table")),
    };
    let one = |(key, value)| match value {
        toml::Value::Table(table) => Ok((key, table)),
        _ => Err(format!("write [{name}.\"…\"], with the whole name in quotes: `{name}.{key}` is no table")),
    };
    all.into_iter().map(one).collect()
}

/// What `[auth."HOST"]` says.
fn access(host: &str, table: toml::Table) -> Result<Access, String> {
    let mut found = Vec::new();
    let place = format!("[auth.\"{host}\"]");
    for (key, value) in table {
        // A value is never shown: it may be a secret at the wrong key.
        found.push(match (key.as_str(), value) {
            ("token", toml::Value::String(token)) => Access::Known(Secret::token(token)),
            ("token-env", toml::Value::String(name)) => match variable(&name).and_then(|v| v.into_string().ok()) {
                Some(token) => Access::Known(Secret::token(token.trim())),
                None => return Err(format!("{place}: the variable `{name}` is not set")),
            },
            ("command", toml::Value::Array(words)) => {
                let words: Option<Vec<String>> = words.iter().map(|w| w.as_str().map(str::to_owned)).collect();
                match words.filter(|words| !words.is_empty()) {
                    Some(words) => Access::Helper(words),
                    None => return Err(format!("{place}: `command` is a program and its arguments, as strings")),
                }
            }
            ("token" | "token-env" | "command", _) => {
                return Err(format!("{place}: `{key}` has a value of another kind"));
            }
            _ => {
                return Err(format!(
                    "{place}: unknown key `{key}`: there are `token`, `token-env` and `command` (a host stands in quotes, whole)"
                ));
            }
        });
    }
    match (found.pop(), found.is_empty()) {
        (Some(access), true) => Ok(access),
        (None, _) => Err(format!("{place} says nothing: name `token`, `token-env` or `command`")),
        (Some(_), false) => Err(format!("{place}: name one of `token`, `token-env` and `command`")),
    }
}

/// `TRAINLOCK_AUTH_…`, without that.
fn auth_variables() -> Vec<(String, String)> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let all = std::env::vars_os();
    let text = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter_map(|(name, value)| Some((name.strip_prefix("TRAINLOCK_AUTH_")?.to_owned(), value))).collect()
}

/// All variables that are texts, but for trainlock's own.
fn engine_variables() -> BTreeMap<String, String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    let all = std::env::vars_os();
    let texts = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| !name.starts_with("TRAINLOCK_")).collect()
}

/// The files in which podman and docker keep logins, in the order in which podman asks them.
fn docker_files(home: Option<&Path>, config: Option<&Path>) -> DockerFiles {
    let runtime = variable("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("containers/auth.json"));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home.map(|home| home.join(".docker")));
    let places = [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        runtime,
        config.map(|config| config.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ];
    DockerFiles(places.into_iter().flatten().filter(|path| path.is_file()).collect())
}

/// What names the package index.
fn index_places(home: Option<&Path>, config: Option<&Path>) -> IndexPlaces {
    let variables = texts().filter(|(name, value)| IndexPlaces::is_variable(name) && !value.is_empty()).collect();
    let environment = directory("VIRTUAL_ENV");
    let folders = ConfigFolders { home, config, environment: environment.as_deref() };
    let configured = (variable("PIP_CONFIG_FILE").map(PathBuf::from), variable("UV_CONFIG_FILE").map(PathBuf::from));
    IndexPlaces::usual(variables, folders, configured)
}

/// Where builds of the Python interpreter come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct PythonPlaces {
    /// None are wanted.
    pub(crate) never: bool,
    /// A list of builds: an address, or a file.
    pub(crate) list: Option<String>,
    /// Where they are fetched from.
    pub(crate) mirror: Option<PythonMirror>,
}

fn python_places() -> Result<PythonPlaces, Failure> {
    let text = |name: &str| variable(name).and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
    let mirror = match text("UV_PYTHON_INSTALL_MIRROR") {
        Some(address) => Some(PythonMirror::parse(&address).ok_or_else(|| {
            Failure::new(Exit::Invalid, "UV_PYTHON_INSTALL_MIRROR is no https, http or file address")
        })?),
        None => None,
    };
    let never = text("UV_PYTHON_DOWNLOADS").is_some_and(|word| matches!(word.trim(), "never" | "false"));
    Ok(PythonPlaces { never, list: text("UV_PYTHON_DOWNLOADS_JSON_URL"), mirror })
}

/// What names the npm registry: of the files, the user's.
fn npm_places(home: Option<&Path>) -> NpmPlaces {
    let named = texts().find(|(name, value)| name.eq_ignore_ascii_case("npm_config_userconfig") && !value.is_empty());
    let file = named.map(|(_, file)| PathBuf::from(file)).or_else(|| home.map(|home| home.join(".npmrc")));
    NpmPlaces { variables: texts().collect(), files: file.into_iter().collect(), default: None }
}

/// All variables that are text.
fn texts() -> impl Iterator<Item = (String, String)> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What uv gets of the environment. All else it is told by trainlock.
fn uv_variables(certificates: Option<&Path>) -> BTreeMap<String, String> {
    const NAMES: &[&str] = &[
        "HOME",
        "TMPDIR",
        "NETRC",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "https_proxy",
        "http_proxy",
        "all_proxy",
        "no_proxy",
        "UV_KEYRING_PROVIDER",
        "UV_HTTP_TIMEOUT",
    ];
    let of_an_index =
        |name: &str| name.starts_with("UV_INDEX_") && (name.ends_with("_USERNAME") || name.ends_with("_PASSWORD"));
    let mut all: BTreeMap<String, String> =
        texts().filter(|(name, _)| NAMES.contains(&name.as_str()) || of_an_index(name)).collect();
    if let Some(certificates) = certificates
        && !all.contains_key("SSL_CERT_FILE")
    {
        all.insert("SSL_CERT_FILE".to_owned(), certificates.display().to_string());
    }
    all
}

/// A variable's value, if it is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    std::env::var_os(name).filter(|v| !v.is_empty())
}

/// A variable that names a folder by an absolute path.
fn directory(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|p| p.is_absolute())
}

/// Whether colour is unwanted.
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some()
}

/// Whether this is a continuous integration machine.
pub(crate) fn in_ci() -> bool {
    variable("CI").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bytes) in [
            ("500K", 500 << 10),
            ("20M", 20 << 20),
            ("1.5g", 3 << 29),
            ("20MB", 20_000_000),
            ("4096", 4096),
            ("1M/s", 1 << 20),
        ] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "M", "fast", "-1M", "0K"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
