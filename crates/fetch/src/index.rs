//! The Python package index: where it is, and what files it has of a package.
//!
//! The simple repository API (PEP 503) in its JSON form (PEP 691, with sizes and upload times of PEP 700), or as the HTML
//! that simpler indexes give. An index's address comes from the environment or the configuration of pip or uv, and is
//! never written anywhere.

use crate::error::{FetchError, Reason, SourceFailure, SourceFailures};
use crate::fetcher::Fetcher;
use crate::page::{Page, redacted};
use crate::replace::own;
use fs_err as fs;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use trainlock_types::{Digest, normalized_package, percent_decoded};
use url::Url;

/// What is wrong where no index is configured, and none is known that is asked then.
const NONE: &str = "no package index is configured";

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Where packages are looked for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IndexSettings {
    /// Indexes, in the order in which they are asked: the first that has a package is taken for it, as uv does.
    pub indexes: Vec<Url>,
    /// Indexes that have a name: a manifest may take a package from one of them alone.
    pub named: BTreeMap<String, Url>,
    /// Packages, by normalized name, of which files are taken that their publishers have withdrawn (yanked).
    pub yanked: BTreeSet<String>,
}

impl fmt::Debug for IndexSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses may hold credentials.
        write!(f, "IndexSettings({}, {})", self.indexes.len(), self.named.len())
    }
}

/// Where packages are looked for, or why that can't be told; found out when it is first asked for.
#[derive(Clone)]
pub struct PackageIndex(Arc<LazyLock<Result<IndexSettings, String>, Find>>);

type Find = Box<dyn FnOnce() -> Result<IndexSettings, String> + Send>;

impl PackageIndex {
    /// What this will find.
    pub fn later(find: impl FnOnce() -> Result<IndexSettings, String> + Send + 'static) -> PackageIndex {
        PackageIndex(Arc::new(LazyLock::new(Box::new(find))))
    }

    pub(crate) fn get(&self) -> Result<&IndexSettings, &String> {
        LazyLock::force(&self.0).as_ref()
    }
}

impl fmt::Debug for PackageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackageIndex")
    }
}

/// What an index's address is found out from: the environment's values and the places of configuration files.
#[derive(Debug, Clone, Default)]
pub struct IndexPlaces {
    /// The environment variables that uv and pip have for it, those that are set.
    pub variables: BTreeMap<String, String>,
    /// pip's configuration files: the first that has a key counts for it.
    pub pip: Vec<PathBuf>,
    /// uv's configuration files.
    pub uv: Vec<PathBuf>,
    /// The index that is asked where nothing else is configured: what pip itself has for that.
    pub default: Option<String>,
    /// Named indexes of trainlock's own configuration, each with its address and where it stands.
    pub named: BTreeMap<String, (String, String)>,
}

impl IndexPlaces {
    /// Whether a variable matters.
    pub fn is_variable(name: &str) -> bool {
        const NAMES: &[&str] = &[
            "UV_DEFAULT_INDEX",
            "UV_INDEX_URL",
            "UV_INDEX",
            "UV_EXTRA_INDEX_URL",
            "PIP_INDEX_URL",
            "PIP_EXTRA_INDEX_URL",
            "PIP_CERT",
        ];
        let login = name.strip_prefix("UV_INDEX_");
        NAMES.contains(&name) || login.is_some_and(|rest| rest.ends_with("_USERNAME") || rest.ends_with("_PASSWORD"))
    }

    /// The certificates that pip is told to trust: `PIP_CERT`, else `cert` of its configuration.
    pub fn certificates(&self) -> Option<PathBuf> {
        let variable = self.variables.get("PIP_CERT").filter(|v| !v.is_empty()).map(PathBuf::from);
        variable.or_else(|| self.of_pip("cert").map(|(_, path)| PathBuf::from(path)))
    }

    /// A value of pip's configuration, with the file that it stands in.
    fn of_pip(&self, key: &str) -> Option<(String, String)> {
        self.pip.iter().find_map(|file| {
            let value = pip_values(&fs::read_to_string(file).ok()?).remove(key)?;
            Some((file.display().to_string(), value))
        })
    }
}

impl IndexSettings {
    /// Whether [`IndexSettings::find`] says by this that nothing is configured.
    pub fn is_missing(reason: &str) -> bool {
        reason == NONE
    }

    /// The indexes that are configured: uv's variables go before pip's, variables before files, uv's files before pip's.
    ///
    /// # Errors
    /// What names an index that is no address, or can't be read: the place, and nothing of the text.
    pub fn find(places: &IndexPlaces) -> Result<IndexSettings, String> {
        let variable = |name: &str| {
            places.variables.get(name).filter(|v| !v.trim().is_empty()).map(|v| (name.to_owned(), v.clone()))
        };
        let mut default = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"].into_iter().find_map(variable);
        // Place, name and address.
        let mut extra: Vec<(String, Option<String>, String)> = Vec::new();
        let mut named: BTreeMap<String, (String, String)> = places.named.clone();
        named.values_mut().for_each(|(address, place)| std::mem::swap(address, place));
        for (place, text) in ["UV_INDEX", "UV_EXTRA_INDEX_URL"].into_iter().filter_map(variable) {
            for word in text.split_whitespace() {
                let (name, url) = name_and_url(word);
                extra.push((place.clone(), name.map(str::to_owned), url.to_owned()));
            }
        }
        for file in &places.uv {
            let Ok(text) = fs::read_to_string(file) else { continue };
            let place = file.display().to_string();
            let table: toml::Table = text.parse().map_err(|_| format!("{place} is no TOML"))?;
            for index in table.get("index").and_then(toml::Value::as_array).into_iter().flatten() {
                let Some(url) = index.get("url").and_then(toml::Value::as_str) else { continue };
                let is = |key: &str| index.get(key).and_then(toml::Value::as_bool).unwrap_or(false);
                let name = index.get("name").and_then(toml::Value::as_str).map(str::to_owned);
                match &name {
                    // The packages that a manifest takes from it, and no others.
                    Some(name) if is("explicit") => {
                        named.entry(name.clone()).or_insert_with(|| (place.clone(), url.to_owned()));
                    }
                    _ if is("default") => {
                        default.get_or_insert_with(|| (place.clone(), url.to_owned()));
                        if let Some(name) = name {
                            named.entry(name).or_insert_with(|| (place.clone(), url.to_owned()));
                        }
                    }
                    _ => extra.push((place.clone(), name, url.to_owned())),
                }
            }
            let text = |value: &toml::Value| value.as_str().map(str::to_owned);
            // In its own section, as `uv pip` has them.
            for table in [Some(&table), table.get("pip").and_then(toml::Value::as_table)].into_iter().flatten() {
                if let (None, Some(url)) = (&default, table.get("index-url").and_then(text)) {
                    default = Some((place.clone(), url));
                }
                let urls = table.get("extra-index-url").and_then(toml::Value::as_array).into_iter().flatten();
                extra.extend(urls.filter_map(text).map(|url| (place.clone(), None, url)));
            }
        }
        if let (None, Some(found)) = (&default, places.of_pip("index-url")) {
            default = Some(found);
        }
        let of_pip = variable("PIP_EXTRA_INDEX_URL").or_else(|| places.of_pip("extra-index-url"));
        if let Some((place, text)) = of_pip {
            extra.extend(text.split_whitespace().map(|url| (place.clone(), None, url.to_owned())));
        }
        let default = default.or_else(|| Some(("pip".to_owned(), places.default.clone()?)));
        let (place, text) = default.ok_or(NONE)?;
        let (name, text) = name_and_url(text.trim());
        extra.push((place, name.map(str::to_owned), text.to_owned()));
        let mut settings = IndexSettings::default();
        for (place, name, text) in extra {
            let url = places.address(&place, name.as_deref(), &text)?;
            if let Some(name) = name {
                settings.named.entry(name).or_insert_with(|| url.clone());
            }
            if !settings.indexes.contains(&url) {
                settings.indexes.push(url);
            }
        }
        for (name, (place, text)) in named {
            let url = places.address(&place, Some(&name), &text)?;
            settings.named.insert(name, url);
        }
        Ok(settings)
    }

    /// The settings for asking this index alone.
    pub(crate) fn at(&self, url: &Url) -> IndexSettings {
        IndexSettings { indexes: vec![url.clone()], ..self.clone() }
    }

    /// The settings for a package that comes from the index of this name alone; none if no such index is configured.
    pub fn only(&self, name: &str) -> Option<IndexSettings> {
        let url = self.named.get(name)?;
        Some(self.at(url))
    }

    /// A named index for uv: its bare address, and its credentials as uv's variables, so that no file needs to hold them.
    pub fn for_uv(&self, name: &str) -> Option<(String, BTreeMap<String, String>)> {
        let url = self.named.get(name)?;
        let mut bare = url.clone();
        // An address of http or https can have them.
        let _ = (bare.set_username(""), bare.set_password(None));
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let variable = |what: &str, value: &str| (login_variable(name, what), percent_decoded(value));
        let variables = user.map(|user| variable("USERNAME", user)).into_iter();
        Some((bare.to_string(), variables.chain(url.password().map(|p| variable("PASSWORD", p))).collect()))
    }

    /// The indexes' addresses, with credentials, for another program's environment; the last is the default one.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.indexes.iter().map(|url| url.as_str().trim_end_matches('/'))
    }

    /// A text in which every address of an index is replaced: what another program printed.
    pub fn redact(&self, text: &str) -> String {
        let all = || self.indexes.iter().chain(self.named.values());
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = ["http://", "https://"].iter().filter_map(|s| rest.find(s)).min() {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let end = rest.find(|c: char| c.is_whitespace() || "\"'`<>()[]{}|,;".contains(c)).unwrap_or(rest.len());
            let (address, after) = rest.split_at(end);
            let address = address.trim_end_matches(['.', ':']);
            let after = &rest[address.len()..rest.len() - after.len()];
            let url = Url::parse(address).ok();
            let same = |index: &&Url, url: &Url| {
                (index.host(), index.port_or_known_default()) == (url.host(), url.port_or_known_default())
            };
            match url.as_ref().and_then(|url| Some((url, all().find(|index| same(index, url))?))) {
                Some((url, index)) => {
                    let below = url.path().strip_prefix(index.path().trim_end_matches('/'));
                    let below = below.unwrap_or_else(|| {
                        url.path().rsplit_once('/').map_or("", |(folder, _)| &url.path()[folder.len()..])
                    });
                    out.push_str("the package index");
                    out.push_str(below.trim_end_matches('/'));
                }
                None => out.push_str(address),
            }
            out.push_str(after);
            rest = &rest[end..];
        }
        out.push_str(rest);
        for url in all() {
            if let Some(host) = url.host_str() {
                out = out.replace(host, "(the package index)");
            }
            if let Some(password) = url.password().filter(|p| p.len() > 2) {
                out = out.replace(password, "****");
            }
        }
        out
    }
}

impl IndexPlaces {
    /// The address of an index, with the credentials that uv's variables have for one of its name.
    fn address(&self, place: &str, name: Option<&str>, text: &str) -> Result<Url, String> {
        let slash = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
        let mut url = Url::parse(&slash)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| format!("{place} names a package index that is no http or https address"))?;
        if let Some(name) = name {
            let of = |what: &str| self.variables.get(&login_variable(name, what));
            if let Some(user) = of("USERNAME") {
                let _ = url.set_username(user);
            }
            if let Some(password) = of("PASSWORD") {
                let _ = url.set_password(Some(password));
            }
        }
        Ok(url)
    }
}

/// The variable that uv has for an index's user or password.
fn login_variable(index: &str, what: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("UV_INDEX_{}_{what}", index.chars().map(upper).collect::<String>())
}

/// `NAME=URL` or `URL`.
fn name_and_url(word: &str) -> (Option<&str>, &str) {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match word.split_once('=') {
        Some((name, url)) if !name.is_empty() && name.bytes().all(inner) => (Some(name), url),
        _ => (None, word),
    }
}

/// `key = value` of pip's `[global]` and `[install]` sections, the latter going before; a value may go on in indented lines.
fn pip_values(text: &str) -> BTreeMap<String, String> {
    let (mut values, mut section, mut last) = (BTreeMap::<String, String>::new(), String::new(), None::<String>);
    let mut strong = BTreeMap::<String, String>::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
            last = None;
            continue;
        }
        let into = match section.as_str() {
            "global" => &mut values,
            "install" => &mut strong,
            _ => continue,
        };
        if line.starts_with([' ', '\t'])
            && let Some(value) = last.as_ref().and_then(|key| into.get_mut(key))
        {
            value.push(' ');
            value.push_str(trimmed);
            continue;
        }
        if let Some((key, value)) = trimmed.split_once(['=', ':']) {
            let key = key.trim().to_ascii_lowercase().replace('_', "-");
            into.insert(key.clone(), value.trim().to_owned());
            last = Some(key);
        }
    }
    values.extend(strong);
    values
}

/// A file that an index has of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFile {
    /// Its name.
    pub file: String,
    /// Where it is fetched from.
    pub url: Url,
    /// Its digest, where the index says it.
    pub sha256: Option<Digest>,
    /// Its size in bytes, where the index says it.
    pub size: Option<u64>,
    /// Why it is not to be used any more, if it is not.
    pub yanked: Option<String>,
    /// The versions of Python that it is for (PEP 440), where the index says it.
    pub requires_python: Option<String>,
}

impl Fetcher {
    /// The files that the index has of a package: of the first index that has any.
    ///
    /// # Errors
    /// If no index knows the package, or none answers.
    pub fn index_files(&self, settings: &IndexSettings, package: &str) -> Result<Vec<IndexFile>, FetchError> {
        let name = format!("package {package}");
        let mut failures = Vec::new();
        for index in &settings.indexes {
            let Ok(url) = index.join(&format!("{}/", normalized_package(package))) else { continue };
            let page = match self.page(&name, &url, ACCEPT) {
                Ok(page) => page,
                Err(FetchError::Sources { failures: SourceFailures(found), .. }) => {
                    let missing = found.iter().all(|f| matches!(f.reason, Reason::NotFound(_)));
                    failures.extend(found);
                    // What one index does not have the next one may. An index that fails is not passed over: another's package
                    // of the same name may be a stranger's.
                    if missing {
                        continue;
                    }
                    break;
                }
                Err(error) => return Err(error),
            };
            match files(&page, &url) {
                Some(mut files) => {
                    files.iter_mut().for_each(|file| with_login(&mut file.url, &url));
                    return Ok(files);
                }
                None => {
                    let reason = Reason::Network("the answer is no listing of a package's files".to_owned());
                    failures.push(SourceFailure { url: redacted(&url), reason, earlier: Vec::new() });
                    break;
                }
            }
        }
        // An index's address is nobody's business but the machine's.
        for failure in &mut failures {
            failure.url = settings.redact(own(&failure.url));
        }
        Err(FetchError::Sources { name, failures: SourceFailures(failures) })
    }
}

/// Gives an address the credentials of its index, if it lies on the same server.
pub(crate) fn with_login(url: &mut Url, index: &Url) {
    let has = |url: &Url| !url.username().is_empty() || url.password().is_some();
    if url.origin() == index.origin() && has(index) && !has(url) {
        let _ = url.set_username(index.username());
        let _ = url.set_password(index.password());
    }
}

fn files(page: &Page, base: &Url) -> Option<Vec<IndexFile>> {
    if page.media_type.ends_with("json") {
        return json(&page.body, base);
    }
    Some(html(&String::from_utf8_lossy(&page.body), base))
}

#[derive(Deserialize)]
struct Listing {
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    size: Option<u64>,
    #[serde(default)]
    yanked: serde_json::Value,
    #[serde(rename = "requires-python")]
    requires_python: Option<String>,
}

fn json(body: &[u8], base: &Url) -> Option<Vec<IndexFile>> {
    let listing: Listing = serde_json::from_slice(body).ok()?;
    let file = |listed: Listed| {
        let yanked = match listed.yanked {
            serde_json::Value::Bool(true) => Some(String::new()),
            serde_json::Value::String(why) => Some(why),
            _ => None,
        };
        Some(IndexFile {
            url: base.join(&listed.url).ok()?,
            sha256: listed.hashes.get("sha256").and_then(|hex| hex.parse().ok()),
            file: listed.filename,
            size: listed.size,
            yanked,
            requires_python: listed.requires_python,
        })
    };
    Some(listing.files.into_iter().filter_map(file).collect())
}

/// The links of a page: `<a href="…#sha256=…" data-yanked="why">name</a>`.
fn html(text: &str, base: &Url) -> Vec<IndexFile> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("<a").filter(|at| rest.len() > at + 2) {
        rest = &rest[at + 2..];
        // A `>` may stand in a value.
        let mut quote = None;
        let end = rest.find(|c| {
            match (quote, c) {
                (None, '>') => return true,
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                _ => {}
            }
            false
        });
        let Some(end) = end else { break };
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        let name = unescaped(after.split('<').next().unwrap_or_default().trim());
        let attribute = |key: &str| -> Option<String> {
            let at = tag.find(key).filter(|at| tag[..*at].ends_with(|c: char| c.is_whitespace()))?;
            let value = tag[at + key.len()..].trim_start().strip_prefix('=')?.trim_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            Some(unescaped(value[1..].split(quote).next()?))
        };
        if let Some(mut url) = attribute("href").and_then(|href| base.join(&href).ok())
            && !name.is_empty()
        {
            let fragment = url.fragment().unwrap_or_default().to_owned();
            url.set_fragment(None);
            let sha256 = fragment.strip_prefix("sha256=").and_then(|hex| hex.parse().ok());
            let yanked = attribute("data-yanked").or_else(|| tag.contains("data-yanked").then(String::new));
            let requires_python = attribute("data-requires-python");
            found.push(IndexFile { file: name, url, sha256, size: None, yanked, requires_python });
        }
        rest = after;
    }
    found
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

/// The folders that configuration files are looked for in.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConfigFolders<'a> {
    /// The user's home folder.
    pub home: Option<&'a Path>,
    /// The user's configuration folder.
    pub config: Option<&'a Path>,
    /// The virtual environment that is active.
    pub environment: Option<&'a Path>,
}

impl IndexPlaces {
    /// With the usual places of configuration files, the strongest first. `configured` is what `PIP_CONFIG_FILE` and
    /// `UV_CONFIG_FILE` name.
    pub fn usual(
        variables: BTreeMap<String, String>,
        folders: ConfigFolders<'_>,
        configured: (Option<PathBuf>, Option<PathBuf>),
    ) -> IndexPlaces {
        let ConfigFolders { home, config, environment } = folders;
        let (pip_file, uv_file) = configured;
        let mut pip = Vec::new();
        // pip reads no file at all if this one is the null device.
        if pip_file.as_deref() != Some(Path::new("/dev/null")) {
            pip.extend(pip_file);
            pip.extend(environment.map(|e| e.join("pip.conf")));
            if cfg!(target_os = "macos") {
                pip.extend(home.map(|h| h.join("Library/Application Support/pip/pip.conf")));
            }
            pip.extend(config.map(|c| c.join("pip/pip.conf")));
            pip.extend(home.map(|h| h.join(".pip/pip.conf")));
            if cfg!(target_os = "macos") {
                pip.push("/Library/Application Support/pip/pip.conf".into());
            }
            pip.extend(["/etc/xdg/pip/pip.conf", "/etc/pip.conf"].map(PathBuf::from));
        }
        let uv = match uv_file {
            Some(file) => vec![file],
            None => {
                let user = config.map(|c| c.join("uv/uv.toml"));
                user.into_iter().chain(["/etc/xdg/uv/uv.toml", "/etc/uv/uv.toml"].map(PathBuf::from)).collect()
            }
        };
        IndexPlaces { variables, pip, uv, default: None, named: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings() {
        let base = Url::parse("https://i.org/simple/a/").unwrap();
        let sha256 = Digest::of(b"x");
        let text = format!(
            r#"{{"meta":{{}},"files":[{{"filename":"a-1.whl","url":"../../f/a-1.whl","hashes":{{"sha256":"{}"}},"size":3,"yanked":"broken","requires-python":">=3"}}]}}"#,
            sha256.to_hex()
        );
        let expected = IndexFile {
            file: "a-1.whl".to_owned(),
            url: Url::parse("https://i.org/f/a-1.whl").unwrap(),
            sha256: Some(sha256),
            size: Some(3),
            yanked: Some("broken".to_owned()),
            requires_python: Some(">=3".to_owned()),
        };
        assert_eq!(json(text.as_bytes(), &base), Some(vec![expected.clone()]));
        let text = format!(
            "<html><a href=\"../../f/a-1.whl#sha256={}\" data-requires-python=\">=3\" data-yanked='broken'> a-1.whl </a><a>no</a>",
            sha256.to_hex()
        );
        assert_eq!(html(&text, &base), vec![IndexFile { size: None, ..expected }]);
        assert_eq!(json(b"<html>", &base), None);
    }

    #[test]
    fn which_index() {
        let folder = tempfile::tempdir().unwrap();
        let pip = folder.path().join("pip.conf");
        fs::write(&pip, "[global]\nindex-url = https://pip.org/simple\nextra-index-url =\n   https://x.org/s/\n   https://y.org/s\n[list]\nindex-url=https://no.org\n").unwrap();
        let uv_file = folder.path().join("uv.toml");
        let places = |variables: &[(&'static str, &str)]| IndexPlaces {
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            pip: vec![pip.clone()],
            uv: vec![uv_file.clone()],
            default: None,
            named: BTreeMap::from([("own".to_owned(), ("https://o.org/s".to_owned(), "config".to_owned()))]),
        };
        let found = |variables: &[(&'static str, &str)]| {
            IndexSettings::find(&places(variables)).map(|s| s.addresses().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(found(&[]).unwrap(), ["https://x.org/s", "https://y.org/s", "https://pip.org/simple"]);
        let uv = found(&[("UV_DEFAULT_INDEX", "https://u.org/simple"), ("PIP_INDEX_URL", "https://p.org")]).unwrap();
        assert_eq!(uv.last().unwrap(), "https://u.org/simple");
        assert!(found(&[("UV_INDEX_URL", "ftp://u:secret@x.org")]).unwrap_err().contains("UV_INDEX_URL"));
        // A variable of pip's goes before its files, as for pip.
        assert_eq!(
            found(&[("PIP_EXTRA_INDEX_URL", "https://z.org/s")]).unwrap(),
            ["https://z.org/s", "https://pip.org/simple"]
        );
        fs::write(&uv_file, "[[index]]\nname = \"cpu\"\nurl = \"https://cpu.org/w\"\nexplicit = true\n[[index]]\nname = \"main\"\nurl = \"https://main.org/s\"\ndefault = true\n").unwrap();
        let variables = [
            ("UV_INDEX", "extra=https://e.org/s"),
            ("UV_INDEX_EXTRA_USERNAME", "me"),
            ("UV_INDEX_EXTRA_PASSWORD", "pw"),
        ];
        let settings = IndexSettings::find(&places(&variables)).unwrap();
        assert_eq!(settings.addresses().next(), Some("https://me:pw@e.org/s"));
        assert_eq!(settings.addresses().last(), Some("https://main.org/s"));
        let only = |name: &str| settings.only(name).map(|s| s.addresses().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(only("cpu").unwrap(), ["https://cpu.org/w"]);
        assert_eq!(only("own").unwrap(), ["https://o.org/s"]);
        assert_eq!(only("extra").unwrap(), ["https://me:pw@e.org/s"]);
        assert_eq!(only("gpu"), None);
        fs::write(&uv_file, "no toml").unwrap();
        assert!(found(&[]).unwrap_err().ends_with("uv.toml is no TOML"));
        fs::remove_file(&uv_file).unwrap();
        let certificate = |variables: &[(&'static str, &str)]| places(variables).certificates();
        assert_eq!(certificate(&[]), None);
        assert_eq!(certificate(&[("PIP_CERT", "/a.pem")]), Some("/a.pem".into()));
        let none = IndexPlaces::default();
        assert!(IndexSettings::is_missing(&IndexSettings::find(&none).unwrap_err()));
        let of_pip = IndexPlaces { default: Some("https://i.org/simple".to_owned()), ..none };
        assert_eq!(IndexSettings::find(&of_pip).unwrap().addresses().collect::<Vec<_>>(), ["https://i.org/simple"]);
    }

    #[test]
    fn nothing_shows_an_index() {
        let url = |text: &str| Url::parse(text).unwrap();
        let settings = IndexSettings {
            indexes: vec![url("https://me:secret@mirror.example/simple/")],
            named: BTreeMap::from([("cpu".to_owned(), url("http://cpu.example:8000/w/"))]),
            ..IndexSettings::default()
        };
        for (text, plain) in [
            ("fetch https://me:secret@mirror.example/simple/numpy/, and", "fetch the package index/numpy, and"),
            ("at `https://me:****@mirror.example/files/a%2Bcpu.whl`.", "at `the package index/a%2Bcpu.whl`."),
            ("(http://cpu.example:8000/w/torch/): no", "(the package index/torch): no"),
            ("dns error for mirror.example", "dns error for (the package index)"),
            ("hint: see https://docs.example/x: secret", "hint: see https://docs.example/x: ****"),
        ] {
            assert_eq!(settings.redact(text), plain);
        }
    }
}
