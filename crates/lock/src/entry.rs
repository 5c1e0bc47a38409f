//! One block's statements to a pin, and values to their types.

use crate::read::{Flaw, invalid};
use crate::scan::{self, Header, Pair, Typed};
use crate::{
    Content, DataPin, HashFrom, ImagePin, PackagePin, PythonPin, ResultPin, SealedOutput, ToolArtifact, ToolPin,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use trainlock_types::{
    DataSource, Digest, Entry, FetchedTool, Listing, Name, Params, PinnedFile, Platform, RelPath, SourceUrl, TakenKind,
    TakenLock, ToolFrom, ToolMatch, ToolProvider, Validator, Value,
};

/// A block's known keys, while it is read.
pub(crate) trait Raw<'a, 'p>: Default {
    /// The place of a key's statement; none for a key that this version does not know.
    fn field(&mut self, key: &str) -> Option<&mut Option<&'p Pair<'a>>>;
}

/// Declares a block's known keys: a field each, and the function that finds it by its key.
macro_rules! raw {
    ($name:ident { $($field:ident = $key:literal),* $(,)? }) => {
        #[derive(Default)]
        pub(crate) struct $name<'a, 'p> {
            $($field: Option<&'p Pair<'a>>,)*
        }

        impl $name<'_, '_> {
            const KEYS: &'static [&'static str] = &[$($key),*];
        }

        impl<'a, 'p> Raw<'a, 'p> for $name<'a, 'p> {
            fn field(&mut self, key: &str) -> Option<&mut Option<&'p Pair<'a>>> {
                match key {
                    $($key => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

raw!(RawData {
    name = "name",
    member = "member",
    url = "url",
    path = "path",
    croissant = "croissant",
    pooch = "pooch",
    base_url = "base-url",
    mirrors = "mirrors",
    checksum = "checksum",
    rev = "rev",
    files = "files",
    extract = "extract",
    unpack = "unpack",
    source = "source",
    archive_sha256 = "archive-sha256",
    archive_size = "archive-size",
    sha256 = "sha256",
    tree = "tree",
    size = "size",
    count = "count",
    listing = "listing",
    versions = "versions",
    etag = "etag",
    modified = "modified",
});

raw!(RawTool {
    name = "name",
    member = "member",
    request = "request",
    from = "from",
    probe = "probe",
    accept = "match",
    version = "version",
    package = "package",
    bin = "bin",
    repo = "repo",
    index = "index",
    asset = "asset",
    lacking = "lacking",
    hash_from = "hash-from",
    artifacts = "artifacts",
    programs = "programs",
});

raw!(RawPython {
    python = "python",
    member = "member",
    profile = "profile",
    uv_lock = "uv-lock",
    pylock = "pylock",
    groups = "groups",
    extras = "extras",
    entries = "entries",
    dependencies = "dependencies",
    constraints = "constraints",
    index = "index",
    sdist = "sdist",
    platforms = "platforms",
    exclude_newer = "exclude-newer",
});

raw!(RawPackage {
    name = "name",
    member = "member",
    profile = "profile",
    version = "version",
    marker = "marker",
    wheels = "wheels",
    source = "source",
});

raw!(RawImage {
    reference = "reference",
    digest = "digest",
    platforms = "platforms",
});

raw!(RawResult {
    step = "step",
    member = "member",
    profile = "profile",
    class = "class",
    key = "key",
    outputs = "outputs",
    content = "content",
    metrics = "metrics",
});

/// Whether a key belongs to blocks of this name.
pub(crate) fn is_known(block: &str, key: &str) -> bool {
    let keys = match block {
        "data" => RawData::KEYS,
        "tool" => RawTool::KEYS,
        "python" => RawPython::KEYS,
        "package" => RawPackage::KEYS,
        "image" => RawImage::KEYS,
        _ => RawResult::KEYS,
    };
    keys.contains(&key)
}

impl RawData<'_, '_> {
    pub(crate) fn pin(&self, header: &Header<'_>, extra: String) -> Result<DataPin, Flaw> {
        let source = self.source(header)?;
        let content = self.content(header)?;
        let archive = match (self.archive_sha256, self.archive_size) {
            (Some(sha256), Some(size)) => Some((digest(sha256)?, count(size)?)),
            (None, None) => None,
            _ => {
                return invalid(&header.span, "`archive-sha256` and `archive-size` belong together");
            }
        };
        // Other kinds of sources may name the file that says or holds what there is.
        let (extracted, unpacked, plain) = match &source {
            DataSource::Url { url, extract, unpack, .. } => {
                (extract.is_some(), *unpack, !matches!(url, SourceUrl::Pypi(_)))
            }
            _ => (false, false, false),
        };
        let file = matches!(content, Content::File { .. });
        let strange = archive.is_some() && plain && !(extracted || unpacked);
        if archive.is_none() && (extracted || unpacked) || strange || extracted && !file || unpacked && file {
            return invalid(&header.span, "what is locked does not fit `extract` and `unpack`");
        }
        let versions = match self.versions {
            Some(pair) => texts(pair)?.into_iter().map(Cow::into_owned).collect(),
            None => Vec::new(),
        };
        let listed = match &content {
            Content::Tree { listing: Some(listing), .. } => listing.entries().len(),
            _ => 0,
        };
        if !versions.is_empty() && versions.len() != listed {
            return invalid(&header.span, "`versions` are as many as the lines of `listing`");
        }
        let validator = match (self.etag, self.modified) {
            (Some(tag), None) => Some(Validator::Tag(text(tag)?.into_owned())),
            (None, Some(date)) => Some(Validator::Modified(text(date)?.into_owned())),
            (None, None) => None,
            (Some(_), Some(_)) => return invalid(&header.span, "`etag` and `modified` stand for each other"),
        };
        Ok(DataPin {
            member: self.member.map(member).transpose()?,
            name: parsed(need(header, self.name, "name")?, Name::entry)?,
            source,
            resolved: self.source.map(text).transpose()?.map(Cow::into_owned),
            content,
            archive,
            versions,
            validator,
            extra,
        })
    }

    fn source(&self, header: &Header<'_>) -> Result<DataSource, Flaw> {
        let of_url = [self.mirrors, self.checksum, self.rev, self.files, self.extract, self.unpack];
        match (self.url, self.path, self.croissant, self.pooch) {
            (Some(url), None, None, None) => Ok(DataSource::Url {
                url: parsed(url, SourceUrl::parse)?,
                mirrors: self.mirrors.map_or(Ok(Vec::new()), |pair| {
                    let mirror = |text: Cow<'_, str>| fits(pair, SourceUrl::parse(&text));
                    texts(pair)?.into_iter().map(mirror).collect()
                })?,
                checksum: self.checksum.map(|pair| parsed(pair, str::parse)).transpose()?,
                size: None,
                rev: self.rev.map(text).transpose()?.map(Cow::into_owned),
                files: owned(self.files)?,
                extract: self.extract.map(|pair| parsed(pair, RelPath::parse)).transpose()?,
                unpack: self.unpack.map(boolean).transpose()?.unwrap_or(false),
            }),
            (None, Some(_), None, None) | (None, None, Some(_), None) | (None, None, None, Some(_))
                if let Some(pair) = of_url.into_iter().flatten().next() =>
            {
                invalid(&pair.key_span, format!("`{}` belongs to a `url`", pair.key))
            }
            // A folder of the repository may be the whole of it (`.`).
            (None, Some(path), None, None) => Ok(DataSource::Path(parsed(path, |t| RelPath::root().resolve(t))?)),
            (None, None, Some(place), None) => Ok(DataSource::Croissant(text(place)?.into_owned())),
            (None, None, None, Some(path)) => Ok(DataSource::Pooch {
                registry: parsed(path, RelPath::parse)?,
                base: self.base_url.map(|pair| parsed(pair, SourceUrl::parse)).transpose()?,
            }),
            (None, None, None, None) => {
                invalid(&header.span, "the data set has no `url`, `path`, `croissant` or `pooch`")
            }
            _ => invalid(&header.span, "the data set has more than one of `url`, `path`, `croissant` and `pooch`"),
        }
    }

    fn content(&self, header: &Header<'_>) -> Result<Content, Flaw> {
        let size = count(need(header, self.size, "size")?)?;
        let (sha256, tree) = match (self.sha256, self.tree) {
            (Some(sha256), None) => (sha256, None),
            (None, Some(tree)) => (tree, Some(tree)),
            _ => {
                return invalid(&header.span, "the data set needs one of `sha256` and `tree`");
            }
        };
        let Some(tree) = tree else {
            return match self.count.or(self.listing) {
                Some(pair) => invalid(&pair.key_span, format!("`{}` belongs to a `tree`", pair.key)),
                None => Ok(Content::File { sha256: digest(sha256)?, size }),
            };
        };
        let (tree, count) = (digest(tree)?, count(need(header, self.count, "count")?)?);
        let listing = self.listing.map(|pair| {
            let entries = texts(pair)?.iter().map(|line| Entry::parse(line)).collect::<Option<Vec<_>>>();
            let listing = entries.and_then(|entries| Listing::new(entries).ok());
            match listing {
                Some(l) if l.digest() == tree && l.size() == size && l.count() == count => Ok(l),
                Some(_) => invalid(&pair.key_span, "the listing is not the one that `tree`, `size` and `count` name"),
                None => invalid(&pair.key_span, "the listing does not hold `<sha256> <size> <path>`, each path once"),
            }
        });
        let content = Content::Tree { tree, size, count, listing: listing.transpose()? };
        Ok(if self.versions.is_some() { content } else { content.for_lock() })
    }
}

impl RawTool<'_, '_> {
    pub(crate) fn pin(&self, header: &Header<'_>, extra: String) -> Result<ToolPin, Flaw> {
        let from = need(header, self.from, "from")?;
        let provider = match text(from)?.as_ref() {
            "host" => ToolProvider::Host {
                probe: owned(self.probe)?,
                accept: match self.accept.map(|pair| Ok::<_, Flaw>((pair, text(pair)?))).transpose()? {
                    None => ToolMatch::Version,
                    Some((_, word)) if word == ToolMatch::Version.as_str() => ToolMatch::Version,
                    Some((_, word)) if word == ToolMatch::Requirement.as_str() => ToolMatch::Requirement,
                    Some((pair, _)) => {
                        return invalid(&pair.value_span, "`match` is `version` or `requirement`");
                    }
                },
            },
            other => match (self.probe.or(self.accept), ToolFrom::ALL.into_iter().find(|f| f.as_str() == other)) {
                (Some(pair), _) => {
                    return invalid(&pair.key_span, format!("`{}` belongs to `from = \"host\"`", pair.key));
                }
                (None, None) => return invalid(&from.value_span, format!("no trainlock knows the provider `{other}`")),
                (None, Some(from)) => ToolProvider::Fetched(FetchedTool {
                    from,
                    package: owned_text(self.package)?,
                    bin: owned_text(self.bin)?,
                    repo: owned_text(self.repo)?,
                    index: owned_text(self.index)?,
                    asset: by_platform(self.asset, |file| Some(file.to_owned()))?,
                }),
            },
        };
        let files = by_platform(self.artifacts, PinnedFile::parse)?;
        let mut programs = by_platform(self.programs, |text| {
            let (sha256, path) = text.split_once(' ')?;
            Some((RelPath::parse(path).ok()?, sha256.parse().ok()?))
        })?;
        let artifacts: BTreeMap<Platform, ToolArtifact> = files
            .into_iter()
            .map(|(platform, file)| (platform, ToolArtifact { file, program: programs.remove(&platform) }))
            .collect();
        if let Some(pair) = self.programs.filter(|_| !programs.is_empty()) {
            return invalid(&pair.key_span, "`programs` names a platform that `artifacts` does not");
        }
        let mut platforms: Vec<Platform> = artifacts.keys().copied().collect();
        if let Some(pair) = self.lacking {
            for text in texts(pair)? {
                platforms.push(fits(pair, text.parse::<Platform>())?);
            }
        }
        platforms.sort();
        platforms.dedup();
        let hash_from = match self.hash_from.map(|pair| Ok::<_, Flaw>((pair, text(pair)?))).transpose()? {
            None => None,
            Some((pair, word)) => match HashFrom::ALL.into_iter().find(|f| f.as_str() == word) {
                Some(from) => Some(from),
                None => return invalid(&pair.value_span, "`hash-from` is `index`, `publisher` or `first-download`"),
            },
        };
        Ok(ToolPin {
            member: self.member.map(member).transpose()?,
            name: parsed(need(header, self.name, "name")?, Name::entry)?,
            request: text(need(header, self.request, "request")?)?.into_owned(),
            provider,
            version: parsed(need(header, self.version, "version")?, semver::Version::parse)?,
            platforms,
            artifacts,
            hash_from,
            extra,
        })
    }
}

impl RawPython<'_, '_> {
    pub(crate) fn pin(&self, header: &Header<'_>, extra: String) -> Result<PythonPin, Flaw> {
        let platform = |pair: &Pair<'_>, text: &str| fits(pair, text.parse::<Platform>());
        let taken = match (self.uv_lock, self.pylock) {
            (None, None) => match self.groups.or(self.extras).or(self.entries) {
                Some(pair) => {
                    return invalid(&pair.key_span, format!("`{}` belongs to a `uv-lock` or `pylock`", pair.key));
                }
                None => None,
            },
            (Some(file), None) => Some((TakenKind::Uv, file)),
            (None, Some(file)) => Some((TakenKind::Pylock, file)),
            (Some(_), Some(pair)) => return invalid(&pair.key_span, "`pylock` can't stand beside `uv-lock`"),
        };
        let taken = match taken {
            Some((kind, file)) => Some(TakenLock {
                kind,
                file: parsed(file, RelPath::parse)?,
                groups: owned(self.groups)?,
                extras: owned(self.extras)?,
                entries: owned(self.entries)?,
            }),
            None => None,
        };
        Ok(PythonPin {
            member: self.member.map(member).transpose()?,
            profile: self.profile.map(|pair| parsed(pair, Name::entry)).transpose()?,
            python: text(need(header, self.python, "python")?)?.into_owned(),
            taken,
            dependencies: owned(self.dependencies)?,
            constraints: owned(self.constraints)?,
            index: owned(self.index)?,
            sdist: owned(self.sdist)?,
            platforms: match self.platforms {
                Some(pair) => texts(pair)?.iter().map(|text| platform(pair, text)).collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
            exclude_newer: owned_text(self.exclude_newer)?,
            extra,
        })
    }
}

impl RawPackage<'_, '_> {
    pub(crate) fn pin(&self, header: &Header<'_>, extra: String) -> Result<PackagePin, Flaw> {
        let file = |pair: &Pair<'_>, line: &str| match PinnedFile::parse(line) {
            Some(file) if !file.file.contains('/') => Ok(file),
            _ => invalid(&pair.value_span, "a file of a package is `<sha256> <size> <name>`"),
        };
        let mut wheels: Vec<PinnedFile> = match self.wheels {
            Some(pair) => texts(pair)?.iter().map(|line| file(pair, line)).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        wheels.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(PackagePin {
            member: self.member.map(member).transpose()?,
            profile: self.profile.map(|pair| parsed(pair, Name::entry)).transpose()?,
            name: parsed(need(header, self.name, "name")?, Name::entry)?,
            version: text(need(header, self.version, "version")?)?.into_owned(),
            marker: owned_text(self.marker)?,
            wheels,
            source: self.source.map(|pair| file(pair, &text(pair)?)).transpose()?,
            extra,
        })
    }
}

impl RawImage<'_, '_> {
    pub(crate) fn pin(&self, header: &Header<'_>, extra: String) -> Result<ImagePin, Flaw> {
        let manifest = |text: &str| {
            let (hex, size) = text.split_once(' ')?;
            Some((hex.parse().ok()?, size.parse().ok()?))
        };
        Ok(ImagePin {
            reference: parsed(need(header, self.reference, "reference")?, str::parse)?,
            digest: digest(need(header, self.digest, "digest")?)?,
            platforms: by_platform(self.platforms, manifest)?,
            extra,
        })
    }
}

impl RawResult<'_, '_> {
    pub(crate) fn pin(&self, header: &Header<'_>, extra: String) -> Result<ResultPin, Flaw> {
        let mut outputs: Vec<SealedOutput> = match self.outputs {
            None => Vec::new(),
            Some(pair) => match texts(pair)?.iter().map(|line| SealedOutput::parse(line)).collect() {
                Some(outputs) => outputs,
                None => return invalid(&pair.key_span, "the outputs are not `<sha256> <size> <path>`, one a line"),
            },
        };
        outputs.sort();
        if outputs.windows(2).any(|w| w[0].path == w[1].path) {
            return invalid(&header.span, "the result names an output twice");
        }
        if let Some(pair) = self.content {
            for line in texts(pair)? {
                let parts = line.split_once(' ').and_then(|(hex, path)| Some((hex.parse().ok()?, path)));
                let output = parts
                    .and_then(|(content, path)| Some((content, outputs.iter_mut().find(|o| o.path.as_str() == path)?)));
                match output {
                    Some((content, output)) => output.content = Some(content),
                    None => {
                        return invalid(&pair.key_span, "`content` is not `<sha256> <path of an output>`, one a line");
                    }
                }
            }
        }
        let mut metrics = BTreeMap::new();
        if let Some(pair) = self.metrics {
            for line in texts(pair)? {
                let parts = line.split_once(' ').and_then(|(number, name)| Some((number.parse::<f64>().ok()?, name)));
                match parts.filter(|(number, _)| number.is_finite()) {
                    Some((number, name)) => drop(metrics.insert(name.to_owned(), number)),
                    None => return invalid(&pair.key_span, "the metrics are not `<number> <name>`, one a line"),
                }
            }
        }
        Ok(ResultPin {
            member: self.member.map(member).transpose()?,
            step: parsed(need(header, self.step, "step")?, Name::entry)?,
            profile: self.profile.map(|pair| parsed(pair, Name::entry)).transpose()?,
            class: text(need(header, self.class, "class")?)?.into_owned(),
            key: digest(need(header, self.key, "key")?)?,
            outputs,
            metrics,
            extra,
        })
    }
}

pub(crate) fn params(pairs: &[Pair<'_>]) -> Result<Params, Flaw> {
    let mut params = Params::new();
    for pair in pairs {
        if pair.dotted {
            return dotted(pair);
        }
        let value = match pair.plain {
            Some(text) => Value::String(text.to_owned()),
            None => typed(pair, scan::any(pair.value), "a value")?,
        };
        if params.insert(pair.key.clone().into_owned(), value).is_some() {
            return twice(pair);
        }
    }
    Ok(params)
}

pub(crate) fn twice<T>(pair: &Pair<'_>) -> Result<T, Flaw> {
    Err(Flaw::Twice { at: pair.key_span.start, what: format!("the key `{}`", pair.key) })
}

pub(crate) fn dotted<T>(pair: &Pair<'_>) -> Result<T, Flaw> {
    invalid(&pair.key_span, "a dotted key is not in the form that trainlock writes: quote it")
}

pub(crate) fn need<'p, 'a>(header: &Header<'_>, pair: Option<&'p Pair<'a>>, key: &str) -> Result<&'p Pair<'a>, Flaw> {
    match pair {
        Some(pair) => Ok(pair),
        None => invalid(&header.span, format!("the entry has no `{key}`")),
    }
}

fn typed<T>(pair: &Pair<'_>, value: Typed<T>, expected: &str) -> Result<T, Flaw> {
    match value.map_err(|wrong| wrong.shifted(pair.value_span.start))? {
        Ok(value) => Ok(value),
        Err(found) => invalid(&pair.value_span, format!("expected {expected}, found {found}")),
    }
}

pub(crate) fn text<'a>(pair: &Pair<'a>) -> Result<Cow<'a, str>, Flaw> {
    match pair.plain {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => typed(pair, scan::string(pair.value), "a string"),
    }
}

fn texts<'a>(pair: &Pair<'a>) -> Result<Vec<Cow<'a, str>>, Flaw> {
    typed(pair, scan::strings(pair.value), "an array of strings")
}

fn owned(pair: Option<&Pair<'_>>) -> Result<Vec<String>, Flaw> {
    match pair {
        Some(pair) => Ok(texts(pair)?.into_iter().map(Cow::into_owned).collect()),
        None => Ok(Vec::new()),
    }
}

fn owned_text(pair: Option<&Pair<'_>>) -> Result<Option<String>, Flaw> {
    pair.map(|pair| Ok(text(pair)?.into_owned())).transpose()
}

/// Lines of which each begins with another platform.
fn by_platform<T>(pair: Option<&Pair<'_>>, parse: impl Fn(&str) -> Option<T>) -> Result<BTreeMap<Platform, T>, Flaw> {
    let mut all = BTreeMap::new();
    let Some(pair) = pair else { return Ok(all) };
    for line in texts(pair)? {
        let parts = line.split_once(' ').and_then(|(platform, rest)| Some((platform.parse().ok()?, parse(rest)?)));
        let Some((platform, value)) = parts else {
            return invalid(&pair.value_span, format!("`{}` is not in the form that trainlock writes", pair.key));
        };
        if all.insert(platform, value).is_some() {
            return invalid(&pair.value_span, format!("`{}` names {platform} twice", pair.key));
        }
    }
    Ok(all)
}

pub(crate) fn integer(pair: &Pair<'_>) -> Result<i64, Flaw> {
    typed(pair, scan::integer(pair.value), "an integer")
}

pub(crate) fn boolean(pair: &Pair<'_>) -> Result<bool, Flaw> {
    typed(pair, scan::boolean(pair.value), "a boolean")
}

/// A number that is not negative.
pub(crate) fn count(pair: &Pair<'_>) -> Result<u64, Flaw> {
    u64::try_from(integer(pair)?).or_else(|_| invalid(&pair.value_span, format!("`{}` is negative", pair.key)))
}

fn digest(pair: &Pair<'_>) -> Result<Digest, Flaw> {
    parsed(pair, str::parse)
}

fn member(pair: &Pair<'_>) -> Result<Name, Flaw> {
    parsed(pair, Name::project)
}

fn parsed<T, E: std::fmt::Display>(pair: &Pair<'_>, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Flaw> {
    fits(pair, parse(&text(pair)?))
}

fn fits<T, E: std::fmt::Display>(pair: &Pair<'_>, value: Result<T, E>) -> Result<T, Flaw> {
    value.or_else(|error| invalid(&pair.value_span, error.to_string()))
}
