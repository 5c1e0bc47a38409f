//! Text to [`Lock`].
//!
//! Any layout of the right tables is read; only the canonical one is written. The reader is strict
//! for a lock, and lenient for healing: then what is not whole is left out and counted.

use crate::entry::{
    Raw, RawData, RawImage, RawPackage, RawPython, RawResult, RawTool, boolean, count, dotted, integer, is_known, need,
    params, text, twice,
};
use crate::pin::Section;
use crate::scan::{Header, Item, Pair, Scanner, Wrong};
use crate::{Determinism, Lock, LockError, Merge, Switches, VERSION};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use trainlock_types::{Diagnostic, Name, SourceText};

impl Lock {
    /// A lock from its text. `path` is named in errors.
    ///
    /// # Errors
    ///
    /// All variants of [`LockError`] but those about the file itself.
    pub fn parse(text: &str, path: &Path) -> Result<Lock, LockError> {
        let mut reader = Reader::new(text, false);
        reader.read().map_err(|flaw| flaw.into_error(text, path))?;
        Ok(reader.lock)
    }
}

/// The names of all tables that are known.
const BLOCKS: &[&str] = &["data", "tool", "python", "package", "determinism", "params", "profile", "result"];

/// What is wrong with a lock, before it is told with the file's name and text.
#[derive(Debug)]
pub(crate) enum Flaw {
    Syntax(Wrong),
    Invalid { span: Range<usize>, message: String, help: Option<&'static str> },
    Twice { at: usize, what: String },
    Newer { found: i64, requires: Option<String> },
}

impl Flaw {
    pub(crate) fn into_error(self, text: &str, path: &Path) -> LockError {
        let line = |at: usize| text[..at].bytes().filter(|b| *b == b'\n').count() + 1;
        let diagnostic = |span, message, help: Option<&str>| {
            Box::new(Diagnostic {
                source: Arc::new(SourceText { path: path.to_owned(), text: text.to_owned() }),
                span,
                message,
                label: String::new(),
                help: help.map(str::to_owned),
                related: Vec::new(),
            })
        };
        let path = path.to_owned();
        if let Flaw::Newer { found, requires } = self {
            return LockError::NewerVersion { path, found, known: VERSION, requires };
        }
        // Whatever else is wrong with it, markers are the cause, or come first in the order of repair.
        if let Some(line) = text.lines().position(|line| crate::heal::Marker::of(line).is_some()) {
            return LockError::Conflict { path, line: line + 1, what: Merge::Marker };
        }
        match self {
            Flaw::Twice { at, what } => LockError::Conflict { path, line: line(at), what: Merge::Twice(what) },
            Flaw::Syntax(wrong) => LockError::Syntax(diagnostic(wrong.span, wrong.message, None)),
            Flaw::Invalid { span, message, help } => LockError::Invalid(diagnostic(span, message, help)),
            Flaw::Newer { .. } => unreachable!("told above"),
        }
    }
}

impl From<Wrong> for Flaw {
    fn from(wrong: Wrong) -> Flaw {
        Flaw::Syntax(wrong)
    }
}

pub(crate) fn invalid<T>(span: &Range<usize>, message: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Invalid { span: span.clone(), message: message.into(), help: None })
}

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    lenient: bool,
    pub(crate) lock: Lock,
    /// Blocks left out because they are not whole (only when lenient).
    pub(crate) damaged: usize,
    version: bool,
    section: Section,
    /// Where each pin's block begins, in the order of reading.
    places: BTreeMap<Section, Vec<usize>>,
    /// Something is there whose text is kept unread: the toml crate must have its say.
    unread: bool,
    /// The last entry was left out, so that what belongs to it must be too.
    orphaned: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str, lenient: bool) -> Reader<'a> {
        let places = BTreeMap::new();
        let (lock, section) = (Lock::default(), Section::Top);
        Reader { text, lenient, lock, damaged: 0, version: false, section, places, unread: false, orphaned: false }
    }

    /// Reads the whole text. When lenient, fails only where a version is missing or newer.
    pub(crate) fn read(&mut self) -> Result<(), Flaw> {
        let mut scanner = Scanner::new(self.text);
        let mut header: Option<Header<'a>> = None;
        let mut pairs: Vec<Pair<'a>> = Vec::new();
        loop {
            match scanner.next() {
                Ok(Some(Item::Pair(pair))) => {
                    if header.is_none() && pair.key == "version" && !pair.dotted {
                        self.version(&pair)?;
                    }
                    pairs.push(pair);
                }
                Ok(Some(Item::Header(next))) => {
                    self.block(header.as_ref(), &pairs, next.span.start)?;
                    pairs.clear();
                    header = Some(next);
                }
                Ok(None) => {
                    self.block(header.as_ref(), &pairs, self.text.len())?;
                    break;
                }
                Err(_) if self.lenient => {
                    // The block that holds it is not whole; the next one may be.
                    self.leave_out();
                    pairs.clear();
                    header = None;
                    scanner.recover();
                }
                Err(wrong) => return Err(wrong.into()),
            }
        }
        if !self.version {
            return Err(Flaw::Invalid {
                span: 0..0,
                message: "the lock has no `version`".to_owned(),
                help: Some("delete the file and run `trainlock lock`, which writes it anew"),
            });
        }
        if self.unread && !self.lenient {
            toml::de::DeTable::parse(self.text).map_err(|error| Wrong {
                span: error.span().unwrap_or(0..0),
                message: error.message().lines().next().unwrap_or("no TOML").to_owned(),
            })?;
        }
        self.sort()
    }

    /// The version decides about all the rest, so it is looked at as soon as it is read.
    fn version(&mut self, pair: &Pair<'a>) -> Result<(), Flaw> {
        match integer(pair)? {
            VERSION => {
                self.version = true;
                Ok(())
            }
            found if found > VERSION => {
                let mut scanner = Scanner::new(self.text);
                let mut requires = None;
                while let Ok(Some(Item::Pair(pair))) = scanner.next() {
                    if pair.key == "requires-trainlock" {
                        requires = text(&pair).ok().map(Cow::into_owned);
                    }
                }
                Err(Flaw::Newer { found, requires })
            }
            found => invalid(&pair.value_span, format!("no trainlock writes version {found} of the lock")),
        }
    }

    fn sort(&mut self) -> Result<(), Flaw> {
        let Lock { data, tools, python, packages, images, results, extra, .. } = &mut self.lock;
        // In the order in which they are written.
        extra.tables.sort_by_key(|(section, _)| *section);
        if self.lenient {
            return Ok(());
        }
        let places = &self.places;
        let twice = |section: Section, i: usize, what: String| Flaw::Twice { at: places[&section][i], what };
        if let Some(i) = second(data.len(), |i, j| data[i].place().cmp(&data[j].place())) {
            return Err(twice(Section::Data, i, format!("data `{}`", data[i].name)));
        }
        if let Some(i) = second(tools.len(), |i, j| tools[i].place().cmp(&tools[j].place())) {
            return Err(twice(Section::Tool, i, format!("tool `{}`", tools[i].name)));
        }
        if let Some(i) = second(python.len(), |i, j| python[i].place().cmp(&python[j].place())) {
            return Err(twice(Section::Python, i, "python of one project".to_owned()));
        }
        if let Some(i) = second(packages.len(), |i, j| packages[i].place().cmp(&packages[j].place())) {
            return Err(twice(Section::Package, i, format!("package `{}`", packages[i].name)));
        }
        if let Some(i) = second(images.len(), |i, j| images[i].reference.cmp(&images[j].reference)) {
            return Err(twice(Section::Image, i, format!("image `{}`", images[i].reference)));
        }
        if let Some(i) = second(results.len(), |i, j| results[i].place().cmp(&results[j].place())) {
            return Err(twice(Section::Result, i, format!("a result of step `{}` for one class", results[i].step)));
        }
        data.sort_by(|a, b| a.place().cmp(&b.place()));
        tools.sort_by(|a, b| a.place().cmp(&b.place()));
        python.sort_by(|a, b| a.place().cmp(&b.place()));
        packages.sort_by(|a, b| a.place().cmp(&b.place()));
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        results.sort_by(|a, b| a.place().cmp(&b.place()));
        Ok(())
    }

    /// Takes in one block, which ends before `end`.
    fn block(&mut self, header: Option<&Header<'a>>, pairs: &[Pair<'a>], end: usize) -> Result<(), Flaw> {
        match self.whole_block(header, pairs, end) {
            Err(Flaw::Newer { found, requires }) => Err(Flaw::Newer { found, requires }),
            Err(_) if self.lenient => {
                self.leave_out();
                Ok(())
            }
            other => other,
        }
    }

    fn leave_out(&mut self) {
        self.damaged += 1;
        self.orphaned = true;
    }

    fn whole_block(&mut self, header: Option<&Header<'a>>, pairs: &[Pair<'a>], end: usize) -> Result<(), Flaw> {
        let Some(header) = header else {
            return self.top(pairs);
        };
        // No table that is known has a longer name than five parts.
        let mut parts = [""; 6];
        parts.iter_mut().zip(&header.path).for_each(|(part, name)| *part = name);
        let path = &parts[..header.path.len().min(parts.len())];
        match (path, header.array) {
            (["data"], true) => self.entries(header, pairs, Section::Data, |reader, pairs| {
                let (raw, extra): (RawData<'_, '_>, _) = reader.raw_block(header, pairs)?;
                reader.lock.data.push(raw.pin(header, extra)?);
                Ok(())
            }),
            (["tool"], true) => self.entries(header, pairs, Section::Tool, |reader, pairs| {
                let (raw, extra): (RawTool<'_, '_>, _) = reader.raw_block(header, pairs)?;
                reader.lock.tools.push(raw.pin(header, extra)?);
                Ok(())
            }),
            (["python"], true) => self.entries(header, pairs, Section::Python, |reader, pairs| {
                let (raw, extra): (RawPython<'_, '_>, _) = reader.raw_block(header, pairs)?;
                reader.lock.python.push(raw.pin(header, extra)?);
                Ok(())
            }),
            (["package"], true) => self.entries(header, pairs, Section::Package, |reader, pairs| {
                let (raw, extra): (RawPackage<'_, '_>, _) = reader.raw_block(header, pairs)?;
                reader.lock.packages.push(raw.pin(header, extra)?);
                Ok(())
            }),
            (["image"], true) => self.entries(header, pairs, Section::Image, |reader, pairs| {
                let (raw, extra): (RawImage<'_, '_>, _) = reader.raw_block(header, pairs)?;
                reader.lock.images.push(raw.pin(header, extra)?);
                Ok(())
            }),
            (["result"], true) => self.entries(header, pairs, Section::Result, |reader, pairs| {
                let (raw, extra): (RawResult<'_, '_>, _) = reader.raw_block(header, pairs)?;
                reader.lock.results.push(raw.pin(header, extra)?);
                Ok(())
            }),
            (["determinism", "switches", architecture], false) => self.switches(header, None, architecture, pairs),
            (["determinism", "members", name, "switches", architecture], false) => {
                self.switches(header, Some(named(header, name)?), architecture, pairs)
            }
            (["determinism"], false) => self.determinism(header, None, pairs),
            (["determinism", "members", name], false) => self.determinism(header, Some(named(header, name)?), pairs),
            (["params", member], false) => {
                self.section = Section::Params;
                let params = params(pairs)?;
                insert(header, self.lock.params.entry(named(header, member)?), params)
            }
            (["profile", profile, member], false) => {
                self.section = Section::Profile;
                let place = (named(header, profile)?, named(header, member)?);
                let params = params(pairs)?;
                insert(header, self.lock.profiles.entry(place), params)
            }
            // The headers of tables that hold only tables may be written out.
            (["params"] | ["profile"] | ["profile", _] | ["determinism", "members"], false) if pairs.is_empty() => {
                self.unread = true;
                Ok(())
            }
            ([block @ ("data" | "tool" | "python" | "package" | "image" | "result"), rest @ ..], _) => {
                let text = self.raw(header, end)?;
                let last = match *block {
                    "data" => self.lock.data.last_mut().map(|pin| &mut pin.extra),
                    "tool" => self.lock.tools.last_mut().map(|pin| &mut pin.extra),
                    "python" => self.lock.python.last_mut().map(|pin| &mut pin.extra),
                    "package" => self.lock.packages.last_mut().map(|pin| &mut pin.extra),
                    "image" => self.lock.images.last_mut().map(|pin| &mut pin.extra),
                    _ => self.lock.results.last_mut().map(|pin| &mut pin.extra),
                };
                match (rest, last) {
                    ([key, ..], Some(extra)) if !is_known(block, key) && !self.orphaned => {
                        if !extra.is_empty() {
                            extra.push('\n');
                        }
                        extra.push('\n');
                        extra.push_str(&text);
                        Ok(())
                    }
                    _ => shape(header),
                }
            }
            (["params" | "profile", ..] | ["determinism"] | ["determinism", "members", ..], _) => shape(header),
            _ => {
                let text = self.raw(header, end)?;
                // A lenient reader sees what is no TOML as a whole; what is kept of it must be.
                if self.lenient && toml::de::DeTable::parse(&text).is_err() {
                    return shape(header);
                }
                self.lock.extra.tables.push((self.section, text));
                Ok(())
            }
        }
    }

    /// A table that is kept as it stands, and what belongs to it.
    fn raw(&mut self, header: &Header<'a>, end: usize) -> Result<String, Flaw> {
        self.unread = true;
        Ok(self.text[header.span.start..end].trim_end().to_owned())
    }

    fn top(&mut self, pairs: &[Pair<'a>]) -> Result<(), Flaw> {
        let mut version = 0;
        for pair in pairs {
            if pair.key == "version" {
                version += 1;
                match version {
                    _ if pair.dotted => return dotted(pair),
                    1 => {}
                    _ => return twice(pair),
                }
            } else if BLOCKS.contains(&pair.key.as_ref()) {
                return invalid(&pair.key_span, format!("`{}` is not in the form that trainlock writes", pair.key));
            } else {
                self.unread = true;
                self.lock.extra.keys.push(self.text[pair.key_span.start..pair.end].trim_end().to_owned());
            }
        }
        Ok(())
    }

    /// One entry, or, in a lock that a union merge has run together, several in one block: each
    /// begins with its first key.
    fn entries(
        &mut self,
        header: &Header<'a>,
        pairs: &[Pair<'a>],
        section: Section,
        mut entry: impl FnMut(&mut Self, &[Pair<'a>]) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        self.section = section;
        let first = match section {
            Section::Result => "step",
            Section::Python => "python",
            _ => "name",
        };
        let starts = |i: &usize| *i == 0 || pairs[*i].key == first;
        if !self.lenient {
            self.places.entry(section).or_default().push(header.span.start);
            return entry(self, pairs);
        }
        let mut bounds: Vec<usize> = (0..pairs.len()).filter(starts).collect();
        bounds.push(pairs.len());
        for pair in bounds.windows(2) {
            match entry(self, &pairs[pair[0]..pair[1]]) {
                Ok(()) => self.orphaned = false,
                Err(_) => self.leave_out(),
            }
        }
        Ok(())
    }

    /// The lines that no function below knows.
    fn keep(&mut self, pair: &Pair<'a>, extra: &mut String) {
        self.unread = true;
        if !extra.is_empty() {
            extra.push('\n');
        }
        extra.push_str(self.text[pair.key_span.start..pair.end].trim_end());
    }

    /// A block's statements by their keys, and the lines whose keys are not known.
    fn raw_block<'p, R: Raw<'a, 'p>>(
        &mut self,
        header: &Header<'a>,
        pairs: &'p [Pair<'a>],
    ) -> Result<(R, String), Flaw> {
        let (mut raw, mut extra) = (R::default(), String::new());
        for pair in pairs {
            match raw.field(&pair.key) {
                Some(_) if pair.dotted => return dotted(pair),
                Some(Some(_)) => return twice(pair),
                Some(field) => *field = Some(pair),
                None => self.keep(pair, &mut extra),
            }
        }
        if self.lenient && !extra.is_empty() && toml::de::DeTable::parse(&extra).is_err() {
            return shape(header);
        }
        Ok((raw, extra))
    }

    /// What a level means on one architecture; its member's table stands before it.
    fn switches(
        &mut self,
        header: &Header<'a>,
        member: Option<Name>,
        architecture: &str,
        pairs: &[Pair<'a>],
    ) -> Result<(), Flaw> {
        let mut switches = Switches::default();
        for pair in pairs {
            let variable = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            let level = pair.key == "level";
            if !level && (pair.key.is_empty() || !pair.key.bytes().all(variable)) {
                self.keep(pair, &mut switches.extra);
                continue;
            }
            if pair.dotted {
                return dotted(pair);
            }
            let value = text(pair)?.into_owned();
            let known = match level {
                true => !std::mem::replace(&mut switches.level, value).is_empty(),
                false => switches.variables.insert(pair.key.clone().into_owned(), value).is_some(),
            };
            if known {
                return twice(pair);
            }
        }
        match self.lock.determinism.get_mut(&member) {
            Some(table)
                if !architecture.is_empty() && architecture.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                insert(header, table.switches.entry(architecture.to_owned()), switches)
            }
            _ => shape(header),
        }
    }

    fn determinism(&mut self, header: &Header<'a>, member: Option<Name>, pairs: &[Pair<'a>]) -> Result<(), Flaw> {
        self.section = Section::Determinism;
        let (mut seed, mut level, mut threads, mut seed_globals) = (None, None, None, None);
        let mut extra = String::new();
        for pair in pairs {
            let field = match pair.key.as_ref() {
                "seed" => &mut seed,
                "level" => &mut level,
                "threads" => &mut threads,
                "seed-globals" => &mut seed_globals,
                "members" if member.is_none() => return dotted(pair),
                "switches" => return dotted(pair),
                _ => {
                    self.keep(pair, &mut extra);
                    continue;
                }
            };
            if pair.dotted {
                return dotted(pair);
            }
            if field.replace(pair).is_some() {
                return twice(pair);
            }
        }
        let table = Determinism {
            seed: count(need(header, seed, "seed")?)?,
            level: text(need(header, level, "level")?)?.into_owned(),
            threads: threads
                .map(|pair| match u32::try_from(integer(pair)?) {
                    Ok(number) => Ok(number),
                    Err(_) => invalid(&pair.value_span, "not a number of threads"),
                })
                .transpose()?,
            seed_globals: seed_globals.map(boolean).transpose()?.unwrap_or(false),
            switches: BTreeMap::new(),
            extra,
        };
        insert(header, self.lock.determinism.entry(member), table)
    }
}

/// The second place of a key that stands twice. (Sorting places, and not the pins, keeps the line that
/// an error can name.)
fn second(count: usize, compare: impl Fn(usize, usize) -> Ordering) -> Option<usize> {
    if (1..count).all(|i| compare(i - 1, i).is_lt()) {
        return None;
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| compare(*a, *b));
    order.windows(2).find(|w| compare(w[0], w[1]).is_eq()).map(|w| w[1])
}

fn insert<K: Ord, V>(header: &Header<'_>, place: btree_map::Entry<'_, K, V>, value: V) -> Result<(), Flaw> {
    match place {
        btree_map::Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
        btree_map::Entry::Occupied(_) => {
            Err(Flaw::Twice { at: header.span.start, what: format!("the table `[{}]`", header.path.join(".")) })
        }
    }
}

fn shape<T>(header: &Header<'_>) -> Result<T, Flaw> {
    let name = header.path.join(".");
    invalid(&header.span, format!("the table `{name}` is not in the form that trainlock writes"))
}

fn named(header: &Header<'_>, name: &str) -> Result<Name, Flaw> {
    Name::entry(name).or_else(|error| invalid(&header.span, error.to_string()))
}
