//! Tools inside packages of the npm registry.
//!
//! A package with native programs has one package for each platform among its `optionalDependencies`, which says by `os`, `cpu`
//! and `libc` whom it is for; its own `bin` is then JavaScript that looks for them. The program is taken out of the platform's
//! package, or out of the package itself where that carries it. Nothing of a package is run: one that is completed by an install
//! script, or whose program is JavaScript, is refused.

use crate::auth::Secret;
use crate::error::{FetchError, Reason, SourceFailure, SourceFailures};
use crate::fetcher::{Fetcher, Want, Wanted, open};
use crate::index::{IndexSettings, with_login};
use crate::receive::Expect;
use crate::standing::{self, Found, Standing};
use crate::tool::{FoundTool, LockedTool, ToolFetchError, nothing_left, semver_of, without_index};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use trainlock_store::Session;
use trainlock_types::{Algorithm, Checksum, Digest, PinnedFile, Platform, RelPath, SourceUrl, ToolRequest};
use url::Url;

/// What is wrong where no registry is configured, and none is known that is asked then.
const NONE: &str = "no npm registry is configured";

/// The form of a package's description that npm itself asks for.
const ACCEPT: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// What the registry's address is found out from: the environment, and the places of npm's configuration files.
#[derive(Clone, Default)]
pub struct NpmPlaces {
    /// The environment: npm's own variables (`npm_config_…`), and those that its files name (`${NAME}`).
    pub variables: BTreeMap<String, String>,
    /// The configuration files, the strongest first.
    pub files: Vec<PathBuf>,
    /// The registry that is asked where nothing else is configured: what npm itself says.
    pub default: Option<String>,
}

impl fmt::Debug for NpmPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("NpmPlaces").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The registries that packages are asked of. Its `Debug` shows no address and no secret.
#[derive(Clone)]
pub struct NpmSettings {
    /// The registry, and that of each `@scope` which has its own.
    registries: IndexSettings,
    /// What is sent, by the beginning of addresses.
    logins: Vec<(Url, Secret)>,
}

impl fmt::Debug for NpmSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NpmSettings({:?}, {})", self.registries, self.logins.len())
    }
}

impl NpmSettings {
    /// Whether [`NpmSettings::find`] says by this that nothing is configured.
    pub fn is_missing(reason: &str) -> bool {
        reason == NONE
    }

    /// The registries that are configured: npm's variables go before its files, whose keys these are: `registry`,
    /// `@scope:registry`, and `//host/path/:_authToken`, `:_auth` or `:username` with `:_password`.
    ///
    /// # Errors
    /// What names a registry that is no address: the place, and nothing of the text.
    pub fn find(places: &NpmPlaces) -> Result<NpmSettings, String> {
        let mut values: BTreeMap<String, (String, String)> = BTreeMap::new();
        for (name, value) in &places.variables {
            let key = name.get(..11).filter(|prefix| prefix.eq_ignore_ascii_case("npm_config_")).map(|_| &name[11..]);
            if let Some(key) = key.filter(|_| !value.trim().is_empty()) {
                let key = if key.starts_with("//") { key.to_owned() } else { key.to_ascii_lowercase() };
                values.entry(key).or_insert((value.trim().to_owned(), name.clone()));
            }
        }
        for file in &places.files {
            let Ok(text) = fs_err::read_to_string(file) else { continue };
            for (key, value) in lines(&text) {
                let value = expanded(value, &places.variables);
                values.entry(key.to_owned()).or_insert((value, file.display().to_string()));
            }
        }
        if let Some(default) = &places.default {
            values.entry("registry".to_owned()).or_insert((default.trim().to_owned(), "npm".to_owned()));
        }
        let address = |text: &str, place: &str| {
            let slash = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
            let url = Url::parse(&slash).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            url.ok_or_else(|| format!("{place} names an npm registry that is no http or https address"))
        };
        let (text, place) = values.get("registry").ok_or(NONE)?;
        let mut registries = IndexSettings { indexes: vec![address(text, place)?], ..IndexSettings::default() };
        for (key, (text, place)) in &values {
            if let Some(scope) = key.strip_suffix(":registry").filter(|scope| scope.starts_with('@')) {
                registries.named.insert(scope.to_owned(), address(text, place)?);
            }
        }
        let mut logins = Vec::new();
        for (key, (text, _)) in &values {
            let Some((place, kind)) = key.rsplit_once(':').filter(|(place, _)| place.starts_with("//")) else {
                continue;
            };
            let decoded = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let secret = match kind {
                "_authToken" => Some(Secret::token(text)),
                "_auth" => decoded(text).and_then(|login| Secret::parse(&login)),
                "username" => values
                    .get(&format!("{place}:_password"))
                    .and_then(|(password, _)| Some(Secret::login(text, decoded(password)?))),
                _ => None,
            };
            let Some(secret) = secret else { continue };
            let place = format!("{}/", place.trim_end_matches('/'));
            // It is sent over https, and over http to this machine itself alone.
            let prefixes = ["https:", "http:"].iter().filter_map(|scheme| Url::parse(&format!("{scheme}{place}")).ok());
            logins.extend(prefixes.map(|prefix| (prefix, secret.clone())));
        }
        Ok(NpmSettings { registries, logins })
    }

    /// The registry that has a package.
    fn of(&self, package: &str) -> &Url {
        let scope = package.split_once('/').map(|(scope, _)| scope);
        scope.and_then(|scope| self.registries.named.get(scope)).unwrap_or(&self.registries.indexes[0])
    }
}

/// The settings of a configuration file: `key = value` a line, `;` and `#` begin comments.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with([';', '#', '[']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim().trim_matches(['"', '\''])))
}

/// A value with `${NAME}` (or `${NAME?}`, which may be unset) put in.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, (name, after))) = rest.split_once("${").and_then(|(b, a)| Some((b, a.split_once('}')?))) {
        out.push_str(before);
        match (variables.get(name.trim_end_matches('?')), name.ends_with('?')) {
            (Some(value), _) => out.push_str(value),
            (None, true) => {}
            (None, false) => out.push_str(&format!("${{{name}}}")),
        }
        rest = after;
    }
    out + rest
}

/// What a registry says of a package: each version, of which old ones may be of any form.
#[derive(Deserialize)]
struct Packument {
    versions: BTreeMap<String, Value>,
}

/// One version of a package.
#[derive(Debug, Clone, PartialEq)]
struct Release {
    package: String,
    version: String,
    said: Value,
}

impl Release {
    /// The words of a list (or the one word) under a key.
    fn words(&self, key: &str) -> Vec<&str> {
        match self.said.get(key) {
            Some(Value::String(word)) => vec![word],
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a list of it lets a word in, as npm reads them: `!word` shuts it out; an empty list lets in all.
    fn admits(&self, key: &str, word: &str) -> bool {
        let words = self.words(key);
        let (not, only): (Vec<&str>, Vec<&str>) = words.into_iter().partition(|w| w.starts_with('!'));
        !not.iter().any(|w| &w[1..] == word) && (only.is_empty() || only.contains(&word) || only.contains(&"any"))
    }

    /// Whether it is for a platform; on Linux with GNU's C library.
    fn is_for(&self, platform: Platform) -> bool {
        let (os, cpu) = of_node(platform);
        let musl = os == "linux" && (!self.admits("libc", "glibc") || self.package.ends_with("-musl"));
        self.admits("os", os) && self.admits("cpu", cpu) && !musl
    }

    /// Whether installing it runs a program of its own.
    fn has_script(&self) -> bool {
        let scripts = self.said.get("scripts");
        let has = |name: &str| scripts.is_some_and(|scripts| scripts.get(name).is_some());
        self.said.get("hasInstallScript") == Some(&Value::Bool(true))
            || ["preinstall", "install", "postinstall"].into_iter().any(has)
    }

    /// The path of a program in its archive, where `bin` names one.
    fn bin(&self, program: &str) -> Option<String> {
        let path = match self.said.get("bin")? {
            Value::String(path) if base(&self.package) == program => path,
            Value::Object(all) => all.get(program)?.as_str()?,
            _ => return None,
        };
        Some(format!("package/{}", path.trim_start_matches("./")))
    }

    /// The packages for single platforms that it names: each with the version that it wants.
    fn parts(&self) -> Vec<(&str, &str)> {
        let all = self.said.get("optionalDependencies").and_then(Value::as_object).into_iter().flatten();
        all.filter_map(|(name, wanted)| Some((name.as_str(), wanted.as_str()?))).collect()
    }

    /// Its archive's name, which is the same on every registry.
    fn file(&self) -> String {
        format!("{}-{}.tgz", base(&self.package), self.version)
    }

    /// Where its archive is fetched from. A mirror may name the place that it has it from: its own goes before.
    fn sources(&self, registry: &Url) -> Vec<SourceUrl> {
        let stated = self.said.pointer("/dist/tarball").and_then(Value::as_str).and_then(|text| Url::parse(text).ok());
        let own = registry.join(&format!("{}/-/{}", self.package, self.file())).ok();
        let same = stated.as_ref().is_some_and(|stated| stated.origin() == registry.origin());
        let all = own.filter(|_| !same).into_iter().chain(stated);
        let with_login = |mut url: Url| {
            with_login(&mut url, registry);
            SourceUrl::Http(url.into())
        };
        all.filter(|url| matches!(url.scheme(), "http" | "https")).map(with_login).collect()
    }

    /// What the registry states of its archive's bytes: SHA-512 (`integrity`, as browsers have it), else SHA-1 (`shasum`).
    fn checksum(&self) -> Option<Checksum> {
        let integrity = self.said.pointer("/dist/integrity").and_then(Value::as_str).unwrap_or_default();
        let stated = integrity.split_whitespace().find_map(|text| text.strip_prefix("sha512-"));
        let sha512 = stated.and_then(|text| STANDARD.decode(text.split('?').next()?).ok()).filter(|b| b.len() == 64);
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match sha512.map(hex) {
            Some(hex) => Some(Checksum { algorithm: Algorithm::Sha512, hex }),
            None => format!("sha1:{}", self.said.pointer("/dist/shasum")?.as_str()?).parse().ok(),
        }
    }
}

/// A version as it is compared.
fn number(text: &str) -> Option<semver::Version> {
    semver::Version::parse(text).ok().or_else(|| semver_of(text))
}

/// Why a version's publisher advises against it, if so.
fn withdrawn(said: &Value) -> Option<String> {
    match said.get("deprecated")? {
        Value::Bool(false) => None,
        Value::String(why) => Some(why.clone()),
        _ => Some(String::new()),
    }
}

/// The newest version of a package that a request allows.
fn newest(
    request: &ToolRequest,
    package: &str,
    all: BTreeMap<String, Value>,
) -> Result<(semver::Version, Release), ToolFetchError> {
    let parsed = |(text, said): (String, Value)| {
        let (number, withdrawn) = (number(&text)?, withdrawn(&said).is_some());
        Some((number, withdrawn, Release { package: package.to_owned(), version: text, said }))
    };
    let mut versions: Vec<_> = all.into_iter().filter_map(parsed).collect();
    // One that its publisher advises against only where there is no other.
    versions.sort_by(|a, b| (a.1, &b.0).cmp(&(b.1, &a.0)));
    let newest = versions.iter().take(3).map(|(number, ..)| number.to_string()).collect();
    let fits = versions.into_iter().find(|(number, ..)| request.requirement.matches(number));
    let (number, _, release) = fits.ok_or_else(|| ToolFetchError::Version {
        what: format!("package {package}"),
        wanted: request.version.clone(),
        newest,
    })?;
    Ok((number, release))
}

/// A package's name without its scope.
fn base(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

/// What Node calls a platform's system and processor.
const fn of_node(platform: Platform) -> (&'static str, &'static str) {
    match platform {
        Platform::LinuxAarch64 => ("linux", "arm64"),
        Platform::LinuxX86_64 => ("linux", "x64"),
        Platform::MacosAarch64 => ("darwin", "arm64"),
        Platform::MacosX86_64 => ("darwin", "x64"),
    }
}

/// Whether a package's name has words of a platform in it: most of a package's parts need not be asked about.
fn speaks_of(name: &str, platform: Platform) -> bool {
    let (os, cpu): (&[&str], &[&str]) = match platform {
        Platform::LinuxAarch64 => (&["linux"], &["arm64", "aarch64"]),
        Platform::LinuxX86_64 => (&["linux"], &["x64", "x86_64", "x86-64", "amd64"]),
        Platform::MacosAarch64 => (&["darwin", "macos", "osx"], &["arm64", "aarch64", "universal"]),
        Platform::MacosX86_64 => (&["darwin", "macos", "osx"], &["x64", "x86_64", "x86-64", "amd64", "universal"]),
    };
    os.iter().any(|word| name.contains(word)) && cpu.iter().any(|word| name.contains(word))
}

/// What a program is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For this platform: a program of the machine, or a script of an interpreter that systems have.
    Fits,
    /// To be run by Node.
    JavaScript,
    /// For another system, or no program.
    Other,
}

fn kind(path: &str, head: &[u8], platform: Platform) -> Kind {
    let u16_at = |at: usize| head.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let u32_at = |at: usize| head.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let (elf, mach) = match platform {
        Platform::LinuxX86_64 => (Some(62), None),
        Platform::LinuxAarch64 => (Some(183), None),
        Platform::MacosX86_64 => (None, Some(0x0100_0007)),
        Platform::MacosAarch64 => (None, Some(0x0100_000c)),
    };
    if head.starts_with(b"#!") {
        let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let node = line.split([' ', '/', '!']).any(|word| matches!(word.trim(), "node" | "nodejs" | "bun" | "deno"));
        return if node { Kind::JavaScript } else { Kind::Fits };
    }
    if [".js", ".cjs", ".mjs"].iter().any(|end| path.ends_with(end)) {
        return Kind::JavaScript;
    }
    let fits = match head.get(..4) {
        Some(b"\x7fELF") => elf.is_some() && u16_at(18) == elf,
        Some([0xcf, 0xfa, 0xed, 0xfe]) => mach.is_some() && u32_at(4) == mach,
        // One for several processors.
        Some([0xca, 0xfe, 0xba, 0xbe]) => mach.is_some(),
        _ => false,
    };
    if fits { Kind::Fits } else { Kind::Other }
}

impl Fetcher {
    /// The newest version of a tool inside packages of the npm registry that a request allows, with the files of its platforms in
    /// the store. A pinned file is named `PACKAGE/NAME-VERSION.tgz`.
    ///
    /// # Errors
    /// If there is none, a program needs Node or an install script, or what came is not what the registry states.
    pub fn tool_of_npm(
        &self,
        session: &Session,
        request: &ToolRequest,
        package: &str,
        program: &str,
        settings: &NpmSettings,
    ) -> Result<FoundTool, ToolFetchError> {
        self.log_in(settings);
        let (version, main) = newest(request, package, self.releases(package, settings)?)?;
        let main = &main;
        let parts = self.parts(main, &request.platforms, settings)?;
        let found = self.each(&request.platforms, |platform| {
            let mut first = None;
            for release in parts.iter().filter(|part| part.is_for(*platform)).chain([main]) {
                match self.program_of_npm(session, release, *platform, program, settings) {
                    Ok(found) => return Ok((*platform, found)),
                    Err(error @ ToolFetchError::Fetch(_)) => return Err(error),
                    // What the package itself lacks says more than what a part does.
                    Err(error) => first = Some(error),
                }
            }
            Err(first.expect("the package itself was asked"))
        });
        let mut artifacts = BTreeMap::new();
        let (mut stated, mut failed) = (true, None);
        for one in found {
            match one {
                Ok((platform, (file, program, is_stated))) => {
                    stated &= is_stated;
                    artifacts.insert(platform, (file, Some(program)));
                }
                Err(error @ ToolFetchError::Fetch(_)) => return Err(error),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        match failed {
            Some(error) if artifacts.is_empty() => Err(error),
            _ => Ok(FoundTool { version, artifacts, stated }),
        }
    }

    /// Whether a tool inside packages of the npm registry is still what a request gives, by the registry's word.
    ///
    /// # Errors
    /// If the registry can't be asked.
    pub fn standing_of_npm(
        &self,
        request: &ToolRequest,
        package: &str,
        settings: &NpmSettings,
        locked: &LockedTool<'_>,
    ) -> Result<Standing, ToolFetchError> {
        self.log_in(settings);
        let all = match self.releases(package, settings) {
            Ok(all) => all,
            Err(error) => return nothing_left(error.into()),
        };
        let said = all.iter().find(|(text, _)| number(text).as_ref() == Some(locked.version));
        if let Some(why) = said.and_then(|(_, said)| withdrawn(said)) {
            return Ok(Standing::Withdrawn { why });
        }
        match newest(request, package, all) {
            Ok((number, _)) => Ok(locked.standing(&number, [])),
            Err(error) => nothing_left(error),
        }
    }

    /// What the registry answers for the file of a package that a lock names.
    ///
    /// # Errors
    /// If the user interrupts.
    pub fn npm_answer(&self, settings: &NpmSettings, file: &PinnedFile) -> Result<Found, FetchError> {
        match self.npm_want(settings, file) {
            Ok(want) => self.found_at(&want, file.size),
            Err(error) => standing::fails(self.without_registry(error, settings)),
        }
    }

    /// The file of a package that a lock names, as something to be fetched.
    ///
    /// # Errors
    /// If the registry does not answer, or has no such version.
    pub fn npm_want(&self, settings: &NpmSettings, file: &PinnedFile) -> Result<Want, FetchError> {
        self.log_in(settings);
        let (package, name) = file.file.rsplit_once('/').unwrap_or(("", &file.file));
        let version = name.strip_prefix(base(package)).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".tgz"));
        let version = version.unwrap_or_default().to_owned();
        let Some(said) = self.releases(package, settings)?.remove(&version) else {
            let reason = Reason::Gone { package: package.to_owned() };
            let failure = SourceFailure { url: file.file.clone(), reason, earlier: Vec::new() };
            let failures = SourceFailures(vec![failure]);
            return Err(FetchError::Sources { name: format!("package {package}"), failures });
        };
        let release = Release { package: package.to_owned(), version, said };
        let content = Wanted::File { sha256: file.sha256, size: file.size };
        Ok(Want { name: file.file.clone(), sources: release.sources(settings.of(package)), content })
    }

    /// The same error, with no address of a registry in it.
    pub fn without_registry(&self, error: FetchError, settings: &NpmSettings) -> FetchError {
        without_index(error, &settings.registries)
    }

    /// From now on requests to the registries carry what the user has for them.
    fn log_in(&self, settings: &NpmSettings) {
        let Ok(net) = self.net() else { return };
        settings.logins.iter().for_each(|(prefix, secret)| net.allow(prefix, secret.clone()));
    }

    /// All versions of a package.
    fn releases(&self, package: &str, settings: &NpmSettings) -> Result<BTreeMap<String, Value>, FetchError> {
        let name = format!("package {package}");
        let wrong = |reason: &str| FetchError::Contents { name: name.clone(), reason: reason.to_owned(), hint: None };
        let url = settings.of(package).join(&package.replace('/', "%2f"));
        let url = url.map_err(|_| wrong("it is no name of a package"))?;
        let page = self.page(&name, &url, ACCEPT).map_err(|error| self.without_registry(error, settings))?;
        let packument: Result<Packument, _> = serde_json::from_slice(&page.body);
        Ok(packument.map_err(|_| wrong("the registry's answer is no description of a package"))?.versions)
    }

    /// The packages for single platforms that belong to a release: those of its optional dependencies that are for one of these.
    fn parts(
        &self,
        main: &Release,
        platforms: &[Platform],
        settings: &NpmSettings,
    ) -> Result<Vec<Release>, FetchError> {
        let all = main.parts();
        let named: Vec<_> = all.iter().filter(|(name, _)| platforms.iter().any(|p| speaks_of(name, *p))).collect();
        let asked = if named.is_empty() { all.iter().collect() } else { named };
        let answers = self.each(&asked, |(name, wanted)| -> Result<Option<Release>, FetchError> {
            // Another package under this name: `npm:PACKAGE@VERSION`.
            let alias = wanted.strip_prefix("npm:").and_then(|text| text.rsplit_once('@'));
            let (package, wanted) = alias.unwrap_or((name, wanted));
            let mut releases = self.releases(package, settings)?;
            let exact = wanted.trim_start_matches('=');
            let version = match releases.contains_key(exact) {
                true => Some(exact.to_owned()),
                false => semver::VersionReq::parse(wanted).ok().and_then(|range| {
                    let all = releases.keys().filter_map(|text| Some((semver::Version::parse(text).ok()?, text)));
                    all.filter(|(number, _)| range.matches(number)).max().map(|(_, text)| text.clone())
                }),
            };
            let said = version.as_ref().and_then(|version| releases.remove(version));
            let of = |(version, said)| Release { package: package.to_owned(), version, said };
            Ok(version.zip(said).map(of))
        });
        let found = answers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        // What names no system is a dependency like any other.
        Ok(found.filter(|release| !release.words("os").is_empty()).collect())
    }

    /// The archive of a release and the program in it, and whether the registry stated what its bytes are.
    fn program_of_npm(
        &self,
        session: &Session,
        release: &Release,
        platform: Platform,
        program: &str,
        settings: &NpmSettings,
    ) -> Result<(PinnedFile, (RelPath, Digest), bool), ToolFetchError> {
        let (package, version) = (release.package.clone(), release.version.clone());
        if release.has_script() {
            return Err(ToolFetchError::Script { package, version });
        }
        if !release.is_for(platform) {
            let why = "the registry says that it is for other systems".to_owned();
            return Err(ToolFetchError::Package { package, version, platform, why });
        }
        let checksum = release.checksum();
        let file = format!("{package}/{}", release.file());
        let expect = Expect { checksum: checksum.as_ref(), ..Expect::default() };
        let downloaded = self.download(session, &file, &release.sources(settings.of(&package)), expect);
        let (sha256, size) = downloaded.map_err(|error| self.without_registry(error, settings))?;
        let pinned = PinnedFile { file, sha256, size };
        let found = match release.bin(program) {
            Some(path) => self.program(session, &pinned, &path)?,
            None => self.program(session, &pinned, program)?,
        };
        let mut head = Vec::new();
        let read = open(session, &pinned.file, &found.1)?.take(4096).read_to_end(&mut head);
        read.map_err(|error| FetchError::Contents {
            name: pinned.file.clone(),
            reason: error.to_string(),
            hint: None,
        })?;
        match kind(found.0.as_str(), &head, platform) {
            Kind::Fits => Ok((pinned, found, checksum.is_some())),
            Kind::JavaScript => Err(ToolFetchError::JavaScript { package, version, program: program.to_owned() }),
            Kind::Other => {
                let why = format!("`{}` in it is no program for it", found.0);
                Err(ToolFetchError::Package { package, version, platform, why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_registry() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".npmrc");
        fs_err::write(
            &file,
            "; mine\nregistry = https://mirror.example/npm\n@own:registry=https://own.example/\n//own.example/:_authToken=${TOKEN}\n//mirror.example/npm/:_auth=bWU6c2VjcmV0\n",
        )
        .unwrap();
        let places = |variables: &[(&str, &str)]| NpmPlaces {
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            files: vec![file.clone()],
            default: Some("https://default.example/".to_owned()),
        };
        let settings = NpmSettings::find(&places(&[("TOKEN", "t1")])).unwrap();
        assert_eq!(settings.of("esbuild").as_str(), "https://mirror.example/npm/");
        assert_eq!(settings.of("@own/tool").as_str(), "https://own.example/");
        assert_eq!(settings.of("@esbuild/linux-x64").as_str(), "https://mirror.example/npm/");
        let login = |prefix: &str| settings.logins.iter().find(|(p, _)| p.as_str() == prefix).map(|(_, s)| s.clone());
        assert_eq!(login("https://own.example/"), Some(Secret::token("t1")));
        assert_eq!(login("https://mirror.example/npm/"), Secret::parse("me:secret"));
        assert!(!format!("{settings:?} {:?}", places(&[("TOKEN", "t1")])).contains("example/npm"));
        let settings = NpmSettings::find(&places(&[("NPM_CONFIG_REGISTRY", "http://v.example")])).unwrap();
        assert_eq!(settings.of("esbuild").as_str(), "http://v.example/");
        let wrong = NpmSettings::find(&places(&[("npm_config_registry", "ftp://u:secret@x")])).unwrap_err();
        assert!(wrong.contains("npm_config_registry") && !wrong.contains("secret"), "{wrong}");
        fs_err::remove_file(&file).unwrap();
        assert_eq!(NpmSettings::find(&places(&[])).unwrap().of("a").as_str(), "https://default.example/");
        assert!(NpmSettings::is_missing(&NpmSettings::find(&NpmPlaces::default()).unwrap_err()));
    }

    fn release(package: &str, said: Value) -> Release {
        Release { package: package.to_owned(), version: "1.2.3".to_owned(), said }
    }

    #[test]
    fn whom_a_package_is_for() {
        let linux =
            release("@t/a-linux-x64", serde_json::json!({ "os": ["linux"], "cpu": ["x64"], "libc": ["glibc"] }));
        assert!(linux.is_for(Platform::LinuxX86_64) && !linux.is_for(Platform::LinuxAarch64));
        let musl = release("@t/a", serde_json::json!({ "os": ["linux"], "cpu": ["x64"], "libc": ["musl"] }));
        assert!(!musl.is_for(Platform::LinuxX86_64));
        assert!(!release("@t/a-linux-x64-musl", serde_json::json!({})).is_for(Platform::LinuxX86_64));
        let all = release("a", serde_json::json!({ "os": "!win32", "bin": "./cli" }));
        assert!(all.is_for(Platform::MacosAarch64) && all.bin("a").as_deref() == Some("package/cli"));
        assert!(!all.has_script());
        assert!(release("a", serde_json::json!({ "scripts": { "postinstall": "node x" } })).has_script());
        assert!(release("a", serde_json::json!({ "hasInstallScript": true })).has_script());
    }

    #[test]
    fn what_a_program_is() {
        let elf = |machine: u8| [b"\x7fELF\x02\x01".as_slice(), &[0; 12], &[machine, 0]].concat();
        assert_eq!(kind("bin/a", &elf(62), Platform::LinuxX86_64), Kind::Fits);
        assert_eq!(kind("bin/a", &elf(183), Platform::LinuxX86_64), Kind::Other);
        assert_eq!(kind("bin/a", &elf(62), Platform::MacosX86_64), Kind::Other);
        let mach = [0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1];
        assert_eq!(kind("bin/a", &mach, Platform::MacosAarch64), Kind::Fits);
        assert_eq!(kind("bin/a", b"#!/usr/bin/env node\n", Platform::LinuxX86_64), Kind::JavaScript);
        assert_eq!(kind("bin/a.mjs", b"import x", Platform::LinuxX86_64), Kind::JavaScript);
        assert_eq!(kind("bin/a", b"#!/bin/sh\nexec node", Platform::LinuxX86_64), Kind::Fits);
    }

    #[test]
    fn where_an_archive_lies() {
        let registry = Url::parse("https://mirror.example/npm/").unwrap();
        let at = |tarball: &str| {
            let release = release("@t/a", serde_json::json!({ "dist": { "tarball": tarball } }));
            release.sources(&registry).iter().map(SourceUrl::redacted).collect::<Vec<_>>()
        };
        assert_eq!(
            at("https://mirror.example/npm/@t/a/-/a-1.2.3.tgz"),
            ["https://mirror.example/npm/@t/a/-/a-1.2.3.tgz"]
        );
        assert_eq!(
            at("https://other.example/@t/a/-/a-1.2.3.tgz"),
            ["https://mirror.example/npm/@t/a/-/a-1.2.3.tgz", "https://other.example/@t/a/-/a-1.2.3.tgz"]
        );
    }
}
