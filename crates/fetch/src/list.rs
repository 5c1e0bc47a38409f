//! Tools of a plain list: a TOML file with a `[[version]]` for each version, and in it a table for each platform that says
//! where the file lies and what it holds.
//!
//! ```toml
//! [[version]]
//! version = "14.4.2"
//! [version.files.linux-x86_64]
//! url = "https://example.org/sox-14.4.2-linux.tar.gz"
//! sha256 = "…"
//! size = 1234567
//! bin = "sox"            # the program in the archive; left out, it is called as the tool is
//! ```

use crate::error::FetchError;
use crate::fetcher::{Fetcher, Want, Wanted};
use crate::tool::{FoundTool, ToolFetchError, semver_of};
use serde::Deserialize;
use std::collections::BTreeMap;
use trainlock_store::Session;
use trainlock_types::{Digest, PinnedFile, Platform, SourceUrl, ToolRequest};
use url::Url;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    version: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: String,
    files: BTreeMap<String, File>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: String,
    sha256: String,
    size: u64,
    bin: Option<String>,
}

/// Endings of files that hold the program; others are the program.
const ARCHIVES: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".txz", ".tar.bz2", ".zip", ".whl"];

impl Fetcher {
    /// The newest version of a list that a request allows, with the files of its platforms in the store. `name` is the list's, for
    /// people; addresses in it may be relative to `base`.
    ///
    /// # Errors
    /// If it is no list, has no such version, or what came is not what it states.
    pub fn tool_of_list(
        &self,
        session: &Session,
        request: &ToolRequest,
        (name, text, base): (&str, &str, Option<&Url>),
        program: &str,
    ) -> Result<FoundTool, ToolFetchError> {
        let wrong = |reason: String| ToolFetchError::List { list: name.to_owned(), reason };
        let list: List = toml::from_str(text).map_err(|e| wrong(e.to_string().trim().to_owned()))?;
        let mut versions: BTreeMap<semver::Version, &Version> = BTreeMap::new();
        for version in &list.version {
            let number =
                semver_of(&version.version).ok_or_else(|| wrong(format!("`{}` is no version", version.version)))?;
            if versions.insert(number, version).is_some() {
                return Err(wrong(format!("version {} stands twice", version.version)));
            }
        }
        let fits = versions.iter().rev().find(|(number, _)| request.requirement.matches(number));
        let Some((version, listed)) = fits else {
            return Err(ToolFetchError::Version {
                what: format!("the list {name}"),
                wanted: request.version.clone(),
                newest: versions.keys().rev().take(3).map(semver::Version::to_string).collect(),
            });
        };
        let mut wants = Vec::new();
        let mut chosen = Vec::new();
        for (platform, file) in &listed.files {
            let platform: Platform = platform.parse().map_err(|_| {
                wrong(format!(
                    "`{platform}` is no platform: they are {}",
                    Platform::ALL.map(Platform::as_str).join(", ")
                ))
            })?;
            if !request.platforms.contains(&platform) {
                continue;
            }
            let url = match base {
                Some(base) => base.join(&file.url).map(|url| url.to_string()).unwrap_or_else(|_| file.url.clone()),
                None => file.url.clone(),
            };
            let source = SourceUrl::parse(&url).map_err(|e| wrong(format!("`{}`: {e}", file.url)))?;
            if !matches!(source, SourceUrl::Http(_) | SourceUrl::File(_)) {
                return Err(wrong(format!("`{}` is no https address", file.url)));
            }
            let sha256: Digest = file.sha256.parse().map_err(|_| wrong(format!("`{}` is no SHA-256", file.sha256)))?;
            let pinned = PinnedFile { file: source.redacted(), sha256, size: file.size };
            let content = Wanted::File { sha256, size: file.size };
            wants.push(Want { name: format!("tool {}", request.name), sources: vec![source], content });
            chosen.push((platform, pinned, file.bin.as_deref().unwrap_or(program)));
        }
        if chosen.is_empty() {
            return Err(ToolFetchError::Platform {
                what: format!("the list {name}: {}", request.name),
                version: version.clone(),
                platforms: request.platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "),
                why: "it lists files for other platforms".to_owned(),
            });
        }
        self.bring_all(session, &wants).into_iter().collect::<Result<Vec<()>, FetchError>>()?;
        let mut artifacts = BTreeMap::new();
        for (platform, pinned, program) in chosen {
            let inside = match is_archive(&pinned.file) {
                true => Some(self.program(session, &pinned, program)?),
                false => None,
            };
            artifacts.insert(platform, (pinned, inside));
        }
        Ok(FoundTool { version: version.clone(), artifacts, stated: true })
    }
}

/// Whether a file holds the program rather than being it.
fn is_archive(file: &str) -> bool {
    let file = file.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    ARCHIVES.iter().any(|end| file.ends_with(end))
}
