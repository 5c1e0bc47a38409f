//! The Python package index: where it is, and what files it has of a package.
//!
//! The simple repository API (PEP 503) in its JSON form (PEP 691, with sizes and upload times of PEP 700), or as the HTML
//! that simpler indexes give. An index's address comes from the environment or the configuration of pip or uv, and is
//! never written anywhere.

use crate::error::{FetchError, Reason, SourceFailure, SourceFailures};
use crate::fetcher::Fetcher;
use crate::page::{Page, redacted};
use fs_err as fs;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use trainlock_types::{Digest, normalized_package};
use url::Url;

/// The index that is asked where nothing else is configured.
const DEFAULT: &str = "https://index.invalid/simple/";

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Where packages are looked for.
#[derive(Clone, PartialEq, Eq)]
pub struct IndexSettings {
    /// Indexes, in the order in which they are asked: the first that has a package is taken for it, as uv does.
    pub indexes: Vec<Url>,
}

impl fmt::Debug for IndexSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses may hold credentials.
        write!(f, "IndexSettings({})", self.indexes.len())
    }
}

/// What an index's address is found out from: the environment's values and the places of configuration files.
#[derive(Debug, Clone, Default)]
pub struct IndexPlaces {
    /// The environment variables that uv and pip have for it, those that are set.
    pub variables: BTreeMap<&'static str, String>,
    /// pip's configuration files, the first that names an index counts.
    pub pip: Vec<PathBuf>,
    /// uv's configuration files.
    pub uv: Vec<PathBuf>,
}

impl IndexPlaces {
    /// The variables that matter.
    pub const VARIABLES: &'static [&'static str] =
        &["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"];
}

impl IndexSettings {
    /// The indexes that are configured: uv's variables go before pip's, variables before files, uv's files before pip's.
    ///
    /// # Errors
    /// What names an index that is no address: the place and the text (redacted).
    pub fn find(places: &IndexPlaces) -> Result<IndexSettings, String> {
        let variable = |name: &str| {
            places.variables.get(name).filter(|v| !v.trim().is_empty()).map(|v| (name.to_owned(), v.clone()))
        };
        let mut default = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"].into_iter().find_map(variable);
        let mut extra: Vec<(String, String)> =
            ["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"].into_iter().filter_map(variable).collect();
        for file in &places.uv {
            let Some(table) = fs::read_to_string(file).ok().and_then(|text| text.parse::<toml::Table>().ok()) else {
                continue;
            };
            let place = file.display().to_string();
            for index in table.get("index").and_then(toml::Value::as_array).into_iter().flatten() {
                let Some(url) = index.get("url").and_then(toml::Value::as_str) else { continue };
                let is_default = index.get("default").and_then(toml::Value::as_bool).unwrap_or(false);
                match is_default {
                    true if default.is_none() => default = Some((place.clone(), url.to_owned())),
                    true => {}
                    false => extra.push((place.clone(), url.to_owned())),
                }
            }
            if let (None, Some(url)) = (&default, table.get("index-url").and_then(toml::Value::as_str)) {
                default = Some((place.clone(), url.to_owned()));
            }
        }
        for file in &places.pip {
            let Ok(text) = fs::read_to_string(file) else { continue };
            let place = file.display().to_string();
            let values = pip_values(&text);
            if let (None, Some(url)) = (&default, values.get("index-url")) {
                default = Some((place.clone(), url.clone()));
            }
            extra.extend(values.get("extra-index-url").map(|urls| (place, urls.clone())));
        }
        let mut indexes = Vec::new();
        let (place, text) = default.unwrap_or_else(|| ("the default".to_owned(), DEFAULT.to_owned()));
        for (place, text) in extra.iter().chain([&(place, text)]) {
            for word in text.split_whitespace() {
                // `NAME=URL` names an index for uv's own purposes.
                let word = match word.split_once('=') {
                    Some((name, url))
                        if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) =>
                    {
                        url
                    }
                    _ => word,
                };
                let slash = if word.ends_with('/') { word.to_owned() } else { format!("{word}/") };
                match Url::parse(&slash) {
                    Ok(url) if matches!(url.scheme(), "http" | "https") => {
                        if !indexes.contains(&url) {
                            indexes.push(url);
                        }
                    }
                    _ => return Err(format!("{place} names a package index that is no http or https address")),
                }
            }
        }
        Ok(IndexSettings { indexes })
    }

    /// The indexes without a path's credentials, for another program's command line; the last is the default one.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.indexes.iter().map(|url| url.as_str().trim_end_matches('/'))
    }

    /// A text in which every address of an index is replaced: what another program printed.
    pub fn redact(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for url in &self.indexes {
            let whole = url.as_str().trim_end_matches('/');
            out = out.replace(whole, "the package index");
            if !url.username().is_empty() || url.password().is_some() {
                let mut bare = url.clone();
                let _ = bare.set_username("");
                let _ = bare.set_password(None);
                out = out.replace(bare.as_str().trim_end_matches('/'), "the package index");
            }
            if let Some(host) = url.host_str().filter(|_| whole != DEFAULT.trim_end_matches('/')) {
                out = out.replace(host, "(the package index)");
            }
        }
        out
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
                Some(files) => return Ok(files),
                None => {
                    let reason = Reason::Network("the answer is no listing of a package's files".to_owned());
                    failures.push(SourceFailure { url: redacted(&url), reason, earlier: Vec::new() });
                    break;
                }
            }
        }
        // An index's address is nobody's business but the machine's.
        for failure in &mut failures {
            failure.url = settings.redact(&failure.url);
        }
        Err(FetchError::Sources { name, failures: SourceFailures(failures) })
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
        let Some(end) = rest.find('>') else { break };
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
            found.push(IndexFile { file: name, url, sha256, size: None, yanked });
        }
        rest = after;
    }
    found
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

/// The path of pip's and uv's configuration files below a home folder and elsewhere, strongest first.
impl IndexPlaces {
    /// With the usual places of configuration files: `configured` is what `PIP_CONFIG_FILE` and `UV_CONFIG_FILE` name.
    pub fn usual(
        variables: BTreeMap<&'static str, String>,
        home: Option<&Path>,
        config: Option<&Path>,
        configured: (Option<PathBuf>, Option<PathBuf>),
    ) -> IndexPlaces {
        let (pip_file, uv_file) = configured;
        let mut pip: Vec<PathBuf> = pip_file.into_iter().collect();
        pip.extend(config.map(|c| c.join("pip/pip.conf")));
        pip.extend(home.map(|h| h.join(".pip/pip.conf")));
        pip.push("/etc/pip.conf".into());
        let mut uv: Vec<PathBuf> = uv_file.into_iter().collect();
        uv.extend(config.map(|c| c.join("uv/uv.toml")));
        uv.push("/etc/uv/uv.toml".into());
        IndexPlaces { variables, pip, uv }
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
            r#"{{"meta":{{}},"files":[{{"filename":"a-1.whl","url":"../../f/a-1.whl","hashes":{{"sha256":"{}"}},"size":3,"yanked":"broken"}}]}}"#,
            sha256.to_hex()
        );
        let expected = IndexFile {
            file: "a-1.whl".to_owned(),
            url: Url::parse("https://i.org/f/a-1.whl").unwrap(),
            sha256: Some(sha256),
            size: Some(3),
            yanked: Some("broken".to_owned()),
        };
        assert_eq!(json(text.as_bytes(), &base), Some(vec![expected.clone()]));
        let text = format!(
            "<html><a href=\"../../f/a-1.whl#sha256={}\" data-requires-python=\"&gt;=3\" data-yanked='broken'> a-1.whl </a><a>no</a>",
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
        let places = |variables: &[(&'static str, &str)]| IndexPlaces {
            variables: variables.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
            pip: vec![pip.clone()],
            uv: Vec::new(),
        };
        let found = |variables: &[(&'static str, &str)]| {
            IndexSettings::find(&places(variables)).map(|s| s.addresses().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(found(&[]).unwrap(), ["https://x.org/s", "https://y.org/s", "https://pip.org/simple"]);
        let uv = found(&[("UV_DEFAULT_INDEX", "https://u.org/simple"), ("PIP_INDEX_URL", "https://p.org")]).unwrap();
        assert_eq!(uv.last().unwrap(), "https://u.org/simple");
        assert!(found(&[("UV_INDEX_URL", "ftp://u:secret@x.org")]).unwrap_err().contains("UV_INDEX_URL"));
        let none = IndexSettings::find(&IndexPlaces::default()).unwrap();
        assert_eq!(none.addresses().collect::<Vec<_>>(), ["https://index.invalid/simple"]);
    }

    #[test]
    fn nothing_shows_an_index() {
        let settings = IndexSettings { indexes: vec![Url::parse("https://me:pw@mirror.example/simple/").unwrap()] };
        let text =
            settings.redact("fetch https://me:pw@mirror.example/simple/numpy/ and https://mirror.example/simple/x");
        assert!(!text.contains("pw") && !text.contains("mirror.example"), "{text}");
    }
}
