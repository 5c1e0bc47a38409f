//! Tools of a plain list or of a repository's releases.
//!
//! A list is a TOML file (or JSON with the same keys) with a `[[version]]` for each version, and in it a table for each platform that says
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
use crate::net::is_release_asset;
use crate::standing::Standing;
use crate::sums;
use crate::tool::{FoundTool, LockedTool, ToolFetchError, nothing_left, semver_of};
use serde::Deserialize;
use std::collections::BTreeMap;
use trainlock_store::Session;
use trainlock_types::{Digest, PinnedFile, Platform, SourceUrl, ToolRequest, nearest};
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

#[derive(Deserialize)]
struct Release {
    tag_name: String,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    prerelease: bool,
    #[serde(default)]
    assets: Vec<Asset>,
}

#[derive(Deserialize)]
struct Asset {
    name: String,
    browser_download_url: String,
    size: u64,
    digest: Option<String>,
    /// Where the API has it.
    url: Option<String>,
}

impl Release {
    /// The name of a file of this release.
    fn file_name(&self, template: &str) -> String {
        let number = self.tag_name.strip_prefix('v').unwrap_or(&self.tag_name);
        template.replace("{version}", number).replace("{tag}", &self.tag_name)
    }
}

impl Asset {
    /// The digest that the API states of it.
    fn sha256(&self) -> Option<Digest> {
        self.digest.as_deref()?.strip_prefix("sha256:")?.parse().ok()
    }
}

/// A file that states digests is no larger than this, in bytes.
const LARGEST_SUMS: u64 = 1 << 20;

/// So many pages of releases at the most.
const PAGES: usize = 20;

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
        let (version, listed) = newest_of_list(request, name, text)?;
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
            return Err(nothing(request, format!("the list {name}"), &version, "it lists files for other platforms"));
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
        Ok(FoundTool { version, artifacts, stated: true })
    }

    /// Whether a tool of a list is still what a request gives, by the list's word.
    ///
    /// # Errors
    /// If it is no list.
    pub fn standing_of_list(
        &self,
        request: &ToolRequest,
        (name, text): (&str, &str),
        locked: &LockedTool<'_>,
    ) -> Result<Standing, ToolFetchError> {
        let (version, listed) = match newest_of_list(request, name, text) {
            Ok(newest) => newest,
            Err(error) => return nothing_left(error),
        };
        let stated = listed
            .files
            .iter()
            .filter_map(|(platform, file)| Some((platform.parse().ok()?, file.sha256.parse().ok(), Some(file.size))));
        Ok(locked.standing(&version, stated))
    }

    /// Whether a tool of a repository's releases is still what a request gives, by the API's word.
    ///
    /// # Errors
    /// If the API can't be asked.
    pub fn standing_of_releases(
        &self,
        request: &ToolRequest,
        (api, repo): (&Url, &str),
        assets: &BTreeMap<Platform, String>,
        locked: &LockedTool<'_>,
    ) -> Result<Standing, ToolFetchError> {
        let (version, release) = match self.release(request, api, repo) {
            Ok(release) => release,
            Err(error) => return nothing_left(error),
        };
        let named = |(platform, template): (&Platform, &String)| {
            let name = release.file_name(template);
            (*platform, release.assets.iter().find(|asset| asset.name == name).ok_or(name))
        };
        let named: Vec<_> = assets.iter().filter(|(p, _)| locked.files.contains_key(p)).map(named).collect();
        if let Some((_, Err(name))) = named.iter().find(|(_, asset)| asset.is_err())
            && version == *locked.version
        {
            let now = format!("release {} has no such file", release.tag_name);
            return Ok(Standing::Moved { locked: name.clone(), now });
        }
        let stated = named.into_iter().filter_map(|(platform, asset)| {
            let asset = asset.ok()?;
            Some((platform, asset.sha256(), Some(asset.size)))
        });
        Ok(locked.standing(&version, stated))
    }

    /// The newest release of a repository on GitHub (or on a server with its API at `api`) that a request allows, with the assets
    /// that `assets` names for its platforms in the store. Pre-releases are taken if the requirement names one.
    ///
    /// # Errors
    /// If there is none, or what came is not what the API states.
    pub fn tool_of_releases(
        &self,
        session: &Session,
        request: &ToolRequest,
        (api, repo): (&Url, &str),
        assets: &BTreeMap<Platform, String>,
        program: &str,
    ) -> Result<FoundTool, ToolFetchError> {
        let what = format!("the releases of {repo}");
        let wrong = |reason: String| ToolFetchError::List { list: what.clone(), reason };
        let (version, release) = self.release(request, api, repo)?;
        let mut stated = true;
        let mut artifacts = BTreeMap::new();
        for (platform, template) in assets.iter().filter(|(platform, _)| request.platforms.contains(platform)) {
            let wanted = release.file_name(template);
            let asset = release.assets.iter().find(|asset| asset.name == wanted).ok_or_else(|| {
                let there: Vec<&str> = release.assets.iter().map(|asset| asset.name.as_str()).collect();
                let near = nearest(&wanted, there.iter().copied()).map(|n| format!(": did you mean `{n}`?"));
                let near = near.unwrap_or_else(|| format!("; it has {}", there.join(", ")));
                wrong(format!("release {} has no file `{wanted}`{near}", release.tag_name))
            })?;
            let address = self.asset_address(asset).ok_or_else(|| wrong("it has a bad address".to_owned()))?;
            let by_api = asset.sha256();
            let digest = match by_api {
                Some(sha256) => Some(sha256),
                None => self.stated_beside(&release, asset)?,
            };
            stated &= digest.is_some();
            let (sha256, size) = match (by_api, asset.size) {
                (Some(sha256), size) => {
                    let content = Wanted::File { sha256, size };
                    let sources = vec![SourceUrl::Http(address.clone().into())];
                    let want = Want { name: format!("tool {}", request.name), sources, content };
                    self.bring_all(session, &[want]).into_iter().collect::<Result<Vec<()>, FetchError>>()?;
                    (sha256, size)
                }
                (None, _) => self.first_download(session, &asset.name, &address, digest)?,
            };
            let file = SourceUrl::Http(address.into()).redacted();
            let pinned = PinnedFile { file, sha256, size };
            let inside = match is_archive(&asset.name) {
                true => Some(self.program(session, &pinned, program)?),
                false => None,
            };
            artifacts.insert(*platform, (pinned, inside));
        }
        if artifacts.is_empty() {
            return Err(nothing(request, what, &version, "`asset` names files for other platforms"));
        }
        Ok(FoundTool { version, artifacts, stated })
    }

    /// Where a file of a release is fetched from: its page's address, or the API's, where the user has a token for that and the page
    /// does not give it, as those of private repositories do not.
    fn asset_address(&self, asset: &Asset) -> Option<Url> {
        let page: Url = asset.browser_download_url.parse().ok()?;
        let api = asset.url.as_deref().and_then(|url| Url::parse(url).ok());
        let Some(api) = api.filter(is_release_asset) else { return Some(page) };
        if !self.net().is_ok_and(|net| net.secret(&api).is_ok_and(|secret| secret.is_some())) {
            return Some(page);
        }
        match self.stated(&asset.name, &SourceUrl::Http(page.clone().into())) {
            Err(error) if error.is_gone() || error.is_denied() => Some(api),
            _ => Some(page),
        }
    }

    /// The digest that another file of a release states of this one.
    fn stated_beside(&self, release: &Release, asset: &Asset) -> Result<Option<Digest>, FetchError> {
        let small = || release.assets.iter().filter(|other| other.size <= LARGEST_SUMS);
        for (name, alone) in sums::beside(&asset.name, small().map(|other| other.name.as_str())) {
            let Some(url) = small().find(|other| other.name == name).and_then(|other| self.asset_address(other)) else {
                continue;
            };
            let text = self.text(name, &url)?;
            if let Some(sha256) = sums::stated(&text, &asset.name, alone) {
                return Ok(Some(sha256));
            }
        }
        Ok(None)
    }

    /// The newest release of a repository that a request allows.
    fn release(
        &self,
        request: &ToolRequest,
        api: &Url,
        repo: &str,
    ) -> Result<(semver::Version, Release), ToolFetchError> {
        let what = format!("the releases of {repo}");
        let wrong = |reason: String| ToolFetchError::List { list: what.clone(), reason };
        let mut url = api.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("repos").extend(repo.split('/')).push("releases");
        }
        url.set_query(Some("per_page=100"));
        let mut versions: BTreeMap<semver::Version, Release> = BTreeMap::new();
        let mut whole = false;
        for _ in 0..PAGES {
            let page = self.page(&what, &url, "application/vnd.github+json")?;
            let releases: Vec<Release> = serde_json::from_slice(&page.body).map_err(|e| wrong(e.to_string()))?;
            for release in releases.into_iter().filter(|release| !release.draft) {
                if let Some(version) = semver_of(&release.tag_name).filter(|v| !release.prerelease || !v.pre.is_empty())
                {
                    versions.entry(version).or_insert(release);
                }
            }
            match page.next.and_then(|next| url.join(&next).ok()).filter(|next| next.origin() == url.origin()) {
                Some(next) => url = next,
                None => {
                    whole = true;
                    break;
                }
            }
        }
        let newest = versions.keys().rev().take(3).map(semver::Version::to_string).collect();
        let count = versions.len();
        versions.into_iter().rev().find(|(number, _)| request.requirement.matches(number)).ok_or_else(|| {
            if !whole {
                return wrong(format!("none of the newest {count} satisfies `{}`", request.version));
            }
            ToolFetchError::Version { what: what.clone(), wanted: request.version.clone(), newest }
        })
    }
}

/// The newest version of a list that a request allows, and what the list says of it.
fn newest_of_list(request: &ToolRequest, name: &str, text: &str) -> Result<(semver::Version, Version), ToolFetchError> {
    let wrong = |reason: String| ToolFetchError::List { list: name.to_owned(), reason };
    // No list of TOML begins so.
    let list: List = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?,
        false => toml::from_str(text).map_err(|e| wrong(e.to_string().trim().to_owned()))?,
    };
    let mut versions: BTreeMap<semver::Version, Version> = BTreeMap::new();
    for version in list.version {
        let written = version.version.clone();
        let number = semver_of(&written).ok_or_else(|| wrong(format!("`{written}` is no version")))?;
        if versions.insert(number, version).is_some() {
            return Err(wrong(format!("version {written} stands twice")));
        }
    }
    let newest = versions.keys().rev().take(3).map(semver::Version::to_string).collect();
    let fits = versions.into_iter().rev().find(|(number, _)| request.requirement.matches(number));
    fits.ok_or_else(|| ToolFetchError::Version {
        what: format!("the list {name}"),
        wanted: request.version.clone(),
        newest,
    })
}

fn nothing(request: &ToolRequest, what: String, version: &semver::Version, why: &str) -> ToolFetchError {
    ToolFetchError::Platform {
        what,
        version: version.clone(),
        platforms: request.platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "),
        why: why.to_owned(),
    }
}

/// Whether a file holds the program rather than being it.
fn is_archive(file: &str) -> bool {
    let file = file.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    ARCHIVES.iter().any(|end| file.ends_with(end))
}
