//! `pylock.toml` (PEP 751), as uv writes it.

use std::collections::BTreeMap;
use toml::Value;
use trainlock_types::{Digest, PinnedFile, normalized_package, percent_decoded, quoted};

/// A package of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Its name, normalized.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it is wanted; none for everywhere.
    pub marker: Option<String>,
    /// Its wheels.
    pub wheels: Vec<LockedFile>,
    /// Its source distribution.
    pub sdist: Option<LockedFile>,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedFile {
    /// The file's name.
    pub file: String,
    /// Its digest, where the index says it.
    pub sha256: Option<Digest>,
    /// Its size in bytes, where the index says it.
    pub size: Option<u64>,
    /// When it was uploaded (RFC 3339), where the index says it.
    pub uploaded: Option<String>,
}

impl LockedFile {
    /// The file with the digest and size that it has, or that were found for it.
    pub fn pinned(&self, found: &BTreeMap<String, (Digest, u64)>) -> Option<PinnedFile> {
        let (sha256, size) = match (self.sha256, self.size) {
            (Some(sha256), Some(size)) => (sha256, size),
            _ => *found.get(&self.file)?,
        };
        Some(PinnedFile { file: self.file.clone(), sha256, size })
    }
}

/// Why a text is no `pylock.toml` that can be used.
#[derive(Debug, thiserror::Error)]
pub enum PylockError {
    /// It is no TOML.
    #[error("pylock.toml is no TOML")]
    Syntax(#[from] toml::de::Error),
    /// A version of the format that is not known.
    #[error("pylock.toml has version {0}, and this trainlock reads 1.0")]
    Version(String),
    /// Something that can't be pinned by a file of an index.
    #[error("package `{package}` {what}")]
    Package {
        /// The package.
        package: String,
        /// What is wrong with it.
        what: String,
    },
}

/// The packages of a `pylock.toml`.
pub(super) fn read(text: &str) -> Result<Vec<Locked>, PylockError> {
    let table: toml::Table = text.parse()?;
    let version = table.get("lock-version").and_then(Value::as_str).unwrap_or("none");
    if version.split('.').next() != Some("1") {
        return Err(PylockError::Version(version.to_owned()));
    }
    let packages = table.get("packages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    packages.iter().map(package).collect()
}

/// A project that has what the project of a `uv.lock` has: for uv, which reads the one beside the other.
pub(super) fn stand_in(lock: &str) -> Result<String, PylockError> {
    let table: toml::Table = lock.parse()?;
    let packages = table.get("package").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let own = packages.iter().find(|package| {
        let source = |key: &str| package.get("source").and_then(|s| s.get(key)).and_then(Value::as_str);
        source("virtual").or_else(|| source("editable")) == Some(".")
    });
    let text = |of: Option<&Value>, key: &str| of.and_then(|v| v.get(key)).and_then(Value::as_str).map(str::to_owned);
    let name = text(own, "name")
        .ok_or_else(|| PylockError::Package { package: "uv.lock".to_owned(), what: "has no project".to_owned() })?;
    let names = |key: &str| {
        let table = own.and_then(|own| own.get(key)).and_then(Value::as_table);
        table.into_iter().flat_map(|t| t.keys()).map(|key| format!("{} = []\n", quoted(key))).collect::<String>()
    };
    let python = table.get("requires-python").and_then(Value::as_str).unwrap_or(">=3.8");
    Ok(format!(
        "[project]\nname = {}\nversion = \"0\"\nrequires-python = {}\n\n[project.optional-dependencies]\n{}\n[dependency-groups]\n{}",
        quoted(&name),
        quoted(python),
        names("optional-dependencies"),
        names("dev-dependencies"),
    ))
}

fn package(value: &Value) -> Result<Locked, PylockError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let name = normalized_package(&text("name").unwrap_or_default());
    let wrong = |what: &str| PylockError::Package { package: name.clone(), what: what.to_owned() };
    for kind in ["vcs", "directory", "archive"] {
        if value.get(kind).is_some() {
            return Err(wrong("does not come from a package index, so that it can't be locked"));
        }
    }
    let file = |value: &Value| -> Result<LockedFile, PylockError> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let named =
            text("name").or_else(|| text("url").or_else(|| text("path"))?.split(['?', '#']).next()?.rsplit('/').next());
        let sha256 = value.get("hashes").and_then(|h| h.get("sha256")).and_then(Value::as_str);
        Ok(LockedFile {
            file: percent_decoded(named.ok_or_else(|| wrong("has a file without a name"))?),
            sha256: sha256
                .map(|hex| hex.parse().map_err(|_| wrong("has a file with a sha256 that is none")))
                .transpose()?,
            size: value.get("size").and_then(Value::as_integer).and_then(|n| n.try_into().ok()),
            uploaded: value.get("upload-time").map(|time| time.to_string().trim_matches('"').to_owned()),
        })
    };
    let wheels = value.get("wheels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(Locked {
        version: text("version").ok_or_else(|| wrong("has no version"))?,
        marker: text("marker"),
        wheels: wheels.iter().map(file).collect::<Result<_, _>>()?,
        sdist: value.get("sdist").map(file).transpose()?,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_uv_writes() {
        let hex = Digest::of(b"x").to_hex();
        let text = format!(
            r#"# header
lock-version = "1.0"
[[packages]]
name = "Py_Torch"
version = "2.0+cpu"
marker = "sys_platform == 'linux'"
index = "https://secret.example/simple"
sdist = {{ url = "https://x/py_torch-2.0.tar.gz", upload-time = 2025-11-03T09:25:26Z, size = 5, hashes = {{ sha256 = "{hex}" }} }}
wheels = [{{ url = "https://x/py_torch-2.0%2Bcpu-py3-none-any.whl", hashes = {{ sha256 = "{hex}" }} }}]
"#
        );
        let found = read(&text).unwrap();
        assert_eq!(found[0].name, "py-torch");
        assert_eq!(found[0].wheels[0].file, "py_torch-2.0+cpu-py3-none-any.whl");
        let sdist = found[0].sdist.as_ref().unwrap();
        assert_eq!((sdist.size, sdist.uploaded.as_deref()), (Some(5), Some("2025-11-03T09:25:26Z")));
        assert!(matches!(read("lock-version = \"2.0\""), Err(PylockError::Version(_))));
        let vcs = "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nvcs = { type = \"git\" }";
        assert!(read(vcs).unwrap_err().to_string().contains("does not come from a package index"));
    }
}
