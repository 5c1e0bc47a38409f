//! `[data]`: what each entry asks for, and where steps see it.

use crate::document::{Entry, Report, Text, View};
use crate::entries::{Described, Scope, glob_mistake, is_reserved, path};
use crate::model::Data;
use std::ops::Range;
use std::sync::Arc;
use trainlock_types::{Checksum, DataRequest, DataSource, Name, RelPath, SourceText, SourceUrl};

/// Where data can come from; each entry names one.
const ORIGINS: [&str; 4] = ["url", "path", "croissant", "pooch"];
/// The keys that say more about a URL.
const OF_URLS: [&str; 7] = ["mirrors", "checksum", "size", "rev", "files", "extract", "unpack"];

/// From this many data sets on, a second thread reads half of them.
const MANY: usize = 1000;

/// A member's data sets, by the names in its `[data]`.
#[derive(Default)]
pub(crate) struct DataSets<'a> {
    pub(crate) sets: Vec<Data>,
    table: Option<View<'a>>,
    /// The data set of each entry of the table; none for those that have a mistake.
    of_entries: Vec<Option<usize>>,
}

impl<'a> DataSets<'a> {
    /// The index of a data set, or none if it has a mistake; nothing if there is no such name.
    pub(crate) fn get(&self, name: &str) -> Option<Option<usize>> {
        self.of_entries.get(self.table.as_ref()?.table.place(name)?).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.table.iter().flat_map(|table| table.entries()).map(|entry| entry.name)
    }
}

/// Reads a member's `[data]`.
pub(crate) fn read<'a>(scope: &Scope<'a>, report: &mut Report) -> DataSets<'a> {
    let mut data = DataSets::default();
    let Some(table) = scope.view.table("data") else {
        return data;
    };
    let read = |places: Range<usize>, report: &mut Report| -> Vec<Option<Data>> {
        let entries = table.entries().skip(places.start).take(places.len());
        entries.map(|entry| set(scope, &table, &entry, report)).collect()
    };
    let (half, all) = (table.table.len() / 2, table.table.len());
    let found = if all < MANY {
        read(0..all, report)
    } else {
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let mut mistakes = Report::new();
                Some(read(half..all, &mut mistakes)).filter(|_| mistakes.is_empty())
            });
            let mut found = read(0..half, report);
            let second = second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Mistakes are found again where they are told: one search for near names goes through all of them.
            found.append(&mut second.unwrap_or_else(|| read(half..all, report)));
            found
        })
    };
    for set in found {
        data.of_entries.push(set.is_some().then_some(data.sets.len()));
        data.sets.extend(set);
    }
    data.table = Some(table);
    data
}

/// An entry of `[data]`; nothing if it has a mistake, which was told.
fn set<'a>(scope: &Scope<'a>, table: &View<'a>, entry: &Entry<'a>, report: &mut Report) -> Option<Data> {
    let name = scope.name("data", entry, report)?;
    if scope.unsound.has(entry.node) {
        return None;
    }
    let described = scope.describe("data", table, entry, &["to"], report)?;
    // An own `to` stands beside `workspace = true`.
    let own = table.view(entry).and_then(|v| v.str("to")).map(|to| (scope.source(), to));
    let (source, to) = request(&name, &described, &scope.dir, own, report)?;
    Some(Data {
        request: Arc::new(DataRequest { member: scope.name.clone(), name, source, to }),
        span: described.entry.span,
        source: Arc::clone(described.within.source),
    })
}

/// What an entry asks for, and where steps of a member in `dir` see it.
pub(crate) fn request(
    name: &Name,
    described: &Described<'_>,
    dir: &RelPath,
    own_to: Option<(&Arc<SourceText>, Text<'_>)>,
    report: &mut Report,
) -> Option<(DataSource, RelPath)> {
    let view = described.within.view(&described.entry)?;
    let source = view.source;
    let mut origins = view.entries().filter(|e| ORIGINS.contains(&e.name));
    let (first, second) = (origins.next(), origins.next());
    let (Some(origin), None) = (&first, &second) else {
        match (&first, &second) {
            (Some(first), Some(second)) => report
                .error(source, second.span.clone(), format!("`{}` can't stand beside `{}`", second.name, first.name))
                .related(source, first.span.clone(), "this says already where the data comes from")
                .help("each data set comes from one of url, path, croissant and pooch"),
            _ => report
                .error(source, described.entry.span.clone(), format!("data set `{name}` has no `url`"))
                .help("add `url = \"…\"`, or `path = \"…\"` for what is in the repository"),
        };
        return None;
    };
    let mut sound = true;
    if origin.name != "url" {
        for entry in OF_URLS.iter().filter_map(|key| view.get(key)) {
            sound = false;
            report
                .error(source, entry.span, format!("`{}` can't stand beside `{}`", entry.name, origin.name))
                .help(format!("`{}` says more about a `url`", entry.name));
        }
    }
    if let Some(entry) = view.get("base-url").filter(|_| origin.name != "pooch") {
        sound = false;
        report
            .error(source, entry.span, format!("`base-url` can't stand beside `{}`", origin.name))
            .help("`base-url` says where the files of a `pooch` registry lie");
    }
    let text = view.str(origin.name)?;
    let (wanted, default) = match origin.name {
        "url" => url(name, &view, &text, report),
        "path" => {
            let path = path(source, &text, &described.base, report)?;
            if path.is_root() {
                report
                    .error(source, text.span.clone(), "a data set can't be the whole workspace")
                    .help("name a folder of it");
                return None;
            }
            (Some(DataSource::Path(path.clone())), Place::There(path))
        }
        "croissant" => (croissant(source, &text, &described.base, report), Place::Folder),
        _ => {
            let base = view.str("base-url").and_then(|text| base_url(source, &text, report));
            if view.has("base-url") && base.is_none() {
                return None;
            }
            let registry = path(source, &text, &described.base, report);
            (registry.map(|registry| DataSource::Pooch { registry, base }), Place::Folder)
        }
    };
    let to = own_to.or_else(|| Some((source, view.str("to")?)));
    let to = place(name, described, dir, to, default, report);
    Some((wanted.filter(|_| sound)?, to?))
}

/// Where data lies if `to` does not say.
enum Place {
    /// Where it is already; `to` can't say otherwise.
    There(RelPath),
    /// `data/` and this file name.
    File(String),
    /// `data/` and the name of the entry.
    Folder,
    /// One file whose name is not known.
    Unknown,
}

fn place(
    name: &Name,
    described: &Described<'_>,
    dir: &RelPath,
    to: Option<(&Arc<SourceText>, Text<'_>)>,
    default: Place,
    report: &mut Report,
) -> Option<RelPath> {
    let Some((source, text)) = to else {
        let file = match default {
            Place::There(path) => return Some(path),
            Place::File(file) => Some(file),
            Place::Folder => Some(name.to_string()),
            Place::Unknown => None,
        };
        let path = file.and_then(|file| RelPath::parse(&format!("data/{file}")).ok());
        // `data/..` would be another folder than the one meant.
        let Some(path) = path.filter(|p| p.parent().is_some_and(|above| !above.is_root())) else {
            report
                .error(
                    described.within.source,
                    described.entry.span.clone(),
                    format!("the URL of `{name}` has no file name"),
                )
                .help("add where steps see it, for example `to = \"data/raw.csv\"`");
            return None;
        };
        return Some(dir.join(&path));
    };
    let there = match default {
        Place::There(_) => true,
        Place::File(_) | Place::Unknown if text.text.ends_with('/') => {
            report
                .error(source, text.span, "`to` names a folder, but the data is one file")
                .help("write the file's path, without the trailing `/`");
            return None;
        }
        _ => false,
    };
    if there {
        report
            .error(source, text.span, "`to` can't stand beside `path`")
            .help("what is in the repository is seen where it lies");
        return None;
    }
    let path = path(source, &text, dir, report)?;
    if path.is_root() || path == *dir {
        report
            .error(source, text.span, "`to` is the project's own folder")
            .help("name a file or folder in it, for example `data/raw`");
    } else if is_reserved(&path) {
        report
            .error(source, text.span, format!("`{}` is a reserved name", text.text))
            .help("train.toml, train.lock, .trainlock and .git have another purpose");
    } else {
        return Some(path);
    }
    None
}

fn url(name: &Name, view: &View<'_>, text: &Text<'_>, report: &mut Report) -> (Option<DataSource>, Place) {
    let mut sound = true;
    let source = view.source;
    let mut parse = |text: &Text<'_>, report: &mut Report| {
        let url = SourceUrl::parse(text.text);
        if let Err(error) = &url {
            sound = false;
            let found = report.error(source, text.span.clone(), format!("bad URL: {error}"));
            if !text.text.contains(':') {
                found.help("a URL begins with its kind, for example `https://`; a file of the repository is a `path`");
            }
        }
        url.ok()
    };
    let address = parse(text, report);
    let mirrors: Vec<SourceUrl> = view.list("mirrors").iter().filter_map(|m| parse(m, report)).collect();
    let files = view.list("files");
    let unpack = view.bool("unpack").unwrap_or(false);
    let mut wrong = |key: &str, message: String, help: &str| {
        if let Some(entry) = view.get(key) {
            sound = false;
            report.error(source, entry.span, message).help(help);
        }
    };
    if unpack && view.has("extract") {
        wrong(
            "extract",
            "`extract` can't stand beside `unpack = true`".to_owned(),
            "take one member of the archive, or all of it",
        );
    }
    // One file, or many? What the address is decides which keys make sense.
    let prefix = matches!(&address, Some(SourceUrl::Object(url)) if url.path().ends_with('/') || url.path().is_empty());
    let single = match &address {
        Some(SourceUrl::Http(_) | SourceUrl::File(_)) => {
            wrong(
                "files",
                "`files` is for addresses that name many files".to_owned(),
                "leave it out; `extract` takes one member of an archive",
            );
            true
        }
        Some(SourceUrl::Object(_)) => !prefix && files.is_empty(),
        _ => false,
    };
    if !single && let Some(address) = &address {
        let help = match address {
            SourceUrl::Object(_) => "name one object, without `files` and a trailing `/`",
            _ => "leave it out: the lock names the revision and every file's hash",
        };
        for key in ["checksum", "size", "extract", "unpack"] {
            wrong(key, format!("`{key}` is for an address that names one file"), help);
        }
    }
    if !matches!(address, None | Some(SourceUrl::Hf(_) | SourceUrl::Git(_))) {
        wrong("rev", "`rev` is for hf and git".to_owned(), "leave it out");
    }
    if view.str("rev").is_some_and(|rev| rev.text.trim().is_empty()) {
        wrong("rev", "`rev` is empty".to_owned(), "name a branch, a tag or a commit");
    }
    let checksum = view.str("checksum").and_then(|text| match text.text.parse::<Checksum>() {
        Ok(checksum) => Some(checksum),
        Err(error) => {
            sound = false;
            report.error(source, text.span, format!("bad checksum: {error}"));
            None
        }
    });
    for glob in &files {
        if let Some(mistake) = file_glob_mistake(glob.text) {
            sound = false;
            report.error(source, glob.span.clone(), format!("bad glob `{}`", glob.text.escape_debug())).help(mistake);
        }
    }
    let extract = view.str("extract").and_then(|text| match RelPath::parse(text.text) {
        Ok(path) => Some(path),
        Err(error) => {
            sound = false;
            report
                .error(source, text.span, format!("bad path `{}`", text.text.escape_debug()))
                .help(format!("{error} (`extract` is a path inside the archive)"));
            None
        }
    });
    let place = match (&address, &extract) {
        // Nothing to say of a default while the address itself is wrong.
        (None, _) => Place::File(name.to_string()),
        (_, Some(member)) => Place::File(member.file_name().to_owned()),
        (Some(address), None) if single && !unpack => address.file_name().map_or(Place::Unknown, Place::File),
        _ => Place::Folder,
    };
    let request = address.filter(|_| sound).map(|url| DataSource::Url {
        url,
        mirrors,
        checksum,
        size: view.int("size").and_then(|size| u64::try_from(size).ok()),
        rev: view.str("rev").map(|rev| rev.text.to_owned()),
        files: files.iter().map(|glob| glob.text.to_owned()).collect(),
        extract,
        unpack,
    });
    (request, place)
}

fn base_url(source: &Arc<SourceText>, text: &Text<'_>, report: &mut Report) -> Option<SourceUrl> {
    match SourceUrl::parse(text.text) {
        Ok(url @ SourceUrl::Http(_)) => Some(url),
        Ok(_) => {
            report
                .error(source, text.span.clone(), "`base-url` is an https address")
                .help("for example `https://example.org/data/`");
            None
        }
        Err(error) => {
            report.error(source, text.span.clone(), format!("bad URL: {error}"));
            None
        }
    }
}

fn file_glob_mistake(glob: &str) -> Option<String> {
    match glob {
        "" => Some("it is empty".to_owned()),
        _ if glob.starts_with('/') => Some("it is relative to the address: leave out the leading `/`".to_owned()),
        _ if glob.split('/').any(|c| c == "..") => Some("`..` leads out of the address".to_owned()),
        _ => glob_mistake(glob),
    }
}

fn croissant(source: &Arc<SourceText>, text: &Text<'_>, base: &RelPath, report: &mut Report) -> Option<DataSource> {
    if !text.text.contains("://") {
        return path(source, text, base, report).map(|path| DataSource::Croissant(path.as_str().to_owned()));
    }
    match SourceUrl::parse(text.text) {
        Ok(url @ SourceUrl::Http(_)) => Some(DataSource::Croissant(url.to_string())),
        Ok(_) => {
            report.error(
                source,
                text.span.clone(),
                "a Croissant description is at an https address, or a file of the repository",
            );
            None
        }
        Err(error) => {
            report.error(source, text.span.clone(), format!("bad URL: {error}"));
            None
        }
    }
}
