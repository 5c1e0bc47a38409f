//! Hyperparameters: from nested tables to dotted leaves, what they inherit, profiles, and values from a command line.

use crate::document::{self, Entry, Node, Report, Span, View, number};
use crate::model::leaves;
use crate::shape::Unsound;
use std::collections::{BTreeMap, HashMap, HashSet};
use toml::de::DeValue;
use trainlock_types::{Name, Params, Value};

/// A member's params while it is being read.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) params: Params,
    /// Tables that are meant to have params but whose mistakes hide them; what they hold is not known.
    hidden: HashSet<String>,
}

impl Known {
    /// Whether this is a param or a table of params, as far as can be told.
    pub(crate) fn has(&self, name: &str) -> bool {
        leaves(&self.params, name).next().is_some() || self.is_hidden(name)
    }

    fn is_hidden(&self, name: &str) -> bool {
        let mut above = name;
        while !self.hidden.is_empty() {
            if self.hidden.contains(above) {
                return true;
            }
            match above.rfind('.') {
                Some(dot) => above = &above[..dot],
                None => break,
            }
        }
        false
    }

    /// The near name of an unknown one: a leaf, or a table.
    pub(crate) fn near(&self, wrong: &str, report: &mut Report) -> Option<String> {
        let mut names: Vec<&str> = self.params.keys().map(String::as_str).collect();
        let tables = |name: &'_ str| -> Vec<usize> { name.match_indices('.').map(|(i, _)| i).collect() };
        let above: Vec<&str> = names.iter().flat_map(|n| tables(n).into_iter().map(|i| &n[..i])).collect();
        names.extend(above);
        names.sort_unstable();
        names.dedup();
        report.near(wrong, names)
    }
}

/// Reads `[params]`, taking what it inherits from `[workspace.params]`.
pub(crate) fn read(params: Option<&View<'_>>, workspace: Option<&View<'_>>, report: &mut Report) -> Known {
    let mut reader = Reader { workspace: Some(workspace), report, known: Known::default(), places: HashMap::new() };
    if let Some(view) = params {
        reader.table(view, "");
    }
    reader.known
}

/// Checks `[workspace.params]` by itself, whether a member inherits from it or not.
pub(crate) fn check_shared(params: &View<'_>, report: &mut Report) {
    let mut reader = Reader { workspace: None, report, known: Known::default(), places: HashMap::new() };
    reader.table(params, "");
}

/// Reads the profiles: each param must be there, of the same type.
pub(crate) fn profiles(
    member: &View<'_>,
    unsound: &Unsound,
    known: &Known,
    report: &mut Report,
) -> BTreeMap<Name, Params> {
    let mut profiles = BTreeMap::new();
    for entry in member.entries_of("profile") {
        let name = match Name::entry(entry.name) {
            Ok(name) => name,
            Err(error) => {
                report.error(member.source, entry.span, format!("bad name of a profile: {error}"));
                continue;
            }
        };
        if unsound.has(entry.node) {
            continue;
        }
        let mut overlay = Params::new();
        if let Some(view) = member.view(&entry).and_then(|profile| profile.table("params")) {
            let mut reader = Reader { workspace: None, report, known: Known::default(), places: HashMap::new() };
            reader.table(&view, "");
            let (own, places) = (reader.known.params, reader.places);
            for (param, value) in own {
                let place = places.get(&param).cloned().unwrap_or(entry.span.clone());
                match overlaid(known, &param, value, report) {
                    Ok(Some(value)) => drop(overlay.insert(param, value)),
                    Ok(None) => {}
                    Err((message, help)) => {
                        report.error(member.source, place, message).maybe_help(help);
                    }
                }
            }
        }
        profiles.insert(name, overlay);
    }
    profiles
}

/// A profile's value as it lies over the params; nothing if the param's own mistake hides its type.
fn overlaid(
    known: &Known,
    param: &str,
    value: Value,
    report: &mut Report,
) -> Result<Option<Value>, (String, Option<String>)> {
    match (known.params.get(param), value) {
        (Some(Value::Float(_)), Value::Int(int)) => Ok(Some(Value::Float(int as f64))),
        (Some(base), value) if base.kind() == value.kind() => Ok(Some(value)),
        (Some(base), value) => {
            Err((format!("param `{param}` is {} in `[params]`, found {}", base.kind(), value.kind()), None))
        }
        (None, _) if known.is_hidden(param) => Ok(None),
        (None, value) if known.has(param) => {
            Err((format!("param `{param}` is a table in `[params]`, found {}", value.kind()), None))
        }
        (None, _) => {
            let near = known.near(param, report);
            let help = near.unwrap_or_else(|| "a profile changes params: add it to `[params]` first".to_owned());
            Err((format!("no param `{param}` in `[params]`"), Some(help)))
        }
    }
}

struct Reader<'r, 'v, 'a> {
    /// `[workspace.params]`, where it can be inherited from: none here, and no such table in the root manifest,
    /// are two things.
    workspace: Option<Option<&'v View<'a>>>,
    report: &'r mut Report,
    known: Known,
    places: HashMap<String, Span>,
}

impl<'a> Reader<'_, '_, 'a> {
    fn table(&mut self, view: &View<'a>, above: &str) {
        for entry in view.entries() {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if entry.name.is_empty() || !entry.name.bytes().all(good) {
                let message = format!("bad name of a param: `{}`", entry.name);
                self.report
                    .error(view.source, entry.span, message)
                    .help("a param's name has letters, digits, `_` and `-`; nested tables make dotted names");
                continue;
            }
            let name = if above.is_empty() { entry.name.to_owned() } else { format!("{above}.{}", entry.name) };
            if entry.name == "workspace" {
                self.report
                    .error(view.source, entry.span, "`workspace` is a reserved name")
                    .help("write `NAME.workspace = true` to inherit a param, and nothing else beside it");
                self.known.hidden.insert(if above.is_empty() { name } else { above.to_owned() });
                continue;
            }
            match view.view(&entry) {
                Some(table) if inherits(&table) => self.inherit(view, &entry, &name),
                Some(table) => self.table(&table, &name),
                None => self.leaf(view, &entry, name),
            }
        }
    }

    fn leaf(&mut self, view: &View<'a>, entry: &Entry<'a>, name: String) {
        // A value with a mistake is still known, so that its uses are no mistakes of their own.
        match value(entry.node) {
            Ok(value) => drop(self.known.params.insert(name.clone(), value)),
            Err((span, message)) => {
                self.report.error(view.source, span, message);
                self.known.hidden.insert(name.clone());
            }
        }
        self.places.insert(name, entry.span.clone());
    }

    fn inherit(&mut self, view: &View<'a>, entry: &Entry<'a>, name: &str) {
        let hide = |known: &mut Known| {
            known.hidden.insert(name.to_owned());
        };
        let Some(shared) = self.workspace else {
            hide(&mut self.known);
            self.report.error(view.source, entry.span.clone(), "params can't inherit here").help("write the value");
            return;
        };
        let (table, last) = match name.rsplit_once('.') {
            Some((above, last)) => {
                (above.split('.').try_fold(shared.cloned(), |t, key| t.map(|t| t.table(key))).flatten(), last)
            }
            None => (shared.cloned(), name),
        };
        let Some((table, found)) = table.as_ref().and_then(|t| Some((t, t.get(last)?))) else {
            hide(&mut self.known);
            let near = table.and_then(|t| self.report.near(last, t.entries().map(|e| e.name)));
            self.report
                .error(view.source, entry.span.clone(), format!("no `{name}` in `[workspace.params]`"))
                .help("add it to the root manifest")
                .maybe_help(near);
            return;
        };
        // What is wrong inside the shared table is told once, by `check_shared`.
        let mut ignored = Report::new();
        let mut reader =
            Reader { workspace: None, report: &mut ignored, known: Known::default(), places: HashMap::new() };
        match table.view(&found) {
            Some(nested) => reader.table(&nested, name),
            None => reader.leaf(table, &found, name.to_owned()),
        }
        self.known.params.append(&mut reader.known.params);
        self.known.hidden.extend(reader.known.hidden);
    }
}

/// Whether a table is `{ workspace = true }`.
fn inherits(table: &View<'_>) -> bool {
    table.table.len() == 1 && table.bool("workspace") == Some(true)
}

/// A value that is no table, or a table in a list; the error is where it stands and what is wrong.
fn value(node: &Node<'_>) -> Result<Value, (Span, &'static str)> {
    let or = |mistake| move || (node.span(), mistake);
    Ok(match &node.value {
        document::Value::Boolean(value) => Value::Bool(*value),
        document::Value::Integer(number) => Value::Int(number.ok_or_else(or("the integer needs more than 64 bits"))?),
        document::Value::Float(_) => {
            Value::Float(number(node).ok_or_else(or("a param is a finite number, not `nan` or `inf`"))?)
        }
        document::Value::String(text) => Value::String(text.to_string()),
        document::Value::Datetime(time) => Value::Datetime(time.clone()),
        document::Value::Array(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        document::Value::Table(table) => {
            let entry = |(key, _, node): (&str, Span, &Node<'_>)| Ok((key.to_owned(), value(node)?));
            Value::Table(table.iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}

/// Why a text is no value for a param.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct ValueError {
    /// The kind of value that the param has.
    pub expected: &'static str,
    /// What the text is.
    pub found: String,
}

/// A value from a command line, typed like the one that it replaces: a whole number may stand for a float, a string
/// needs no quotes, all else is written as in TOML.
///
/// # Errors
/// If the text is no value of that type.
pub fn parse_value(text: &str, like: &Value) -> Result<Value, ValueError> {
    let parsed = DeValue::parse(text.trim()).ok().map(Node::from);
    match (like, parsed.as_ref().map(value)) {
        (Value::String(_), Some(Ok(Value::String(text)))) => Ok(Value::String(text)),
        (Value::String(_), _) => Ok(Value::String(text.to_owned())),
        (Value::Float(_), Some(Ok(Value::Int(int)))) => Ok(Value::Float(int as f64)),
        (like, Some(Ok(value))) if like.kind() == value.kind() => Ok(value),
        (like, Some(Ok(value))) => {
            Err(ValueError { expected: like.kind(), found: format!("{} (`{text}`)", value.kind()) })
        }
        (like, _) => Err(ValueError { expected: like.kind(), found: format!("`{text}`") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_typed_like_the_old_ones() {
        let float = Value::Float(0.1);
        let string = Value::String("adam".into());
        for (text, like, expected) in [
            ("3", &Value::Int(1), Value::Int(3)),
            ("1_000", &Value::Int(1), Value::Int(1000)),
            ("0xff", &Value::Int(1), Value::Int(255)),
            ("3", &float, Value::Float(3.0)),
            ("1e-3", &float, Value::Float(0.001)),
            ("true", &Value::Bool(false), Value::Bool(true)),
            ("sgd", &string, Value::String("sgd".into())),
            ("\"sgd\"", &string, Value::String("sgd".into())),
            ("3", &string, Value::String("3".into())),
            ("", &string, Value::String(String::new())),
            (" a b ", &string, Value::String(" a b ".into())),
            ("[1, 2]", &Value::Array(vec![]), Value::Array(vec![Value::Int(1), Value::Int(2)])),
            ("2026-11-22", &Value::Datetime("2020-01-01".into()), Value::Datetime("2026-11-22".into())),
        ] {
            assert_eq!(parse_value(text, like), Ok(expected), "{text}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for (text, like, message) in [
            ("3.5", Value::Int(1), "expected an integer, found a float (`3.5`)"),
            ("nan", Value::Float(1.0), "expected a float, found `nan`"),
            ("yes", Value::Bool(true), "expected a boolean, found `yes`"),
            ("", Value::Int(1), "expected an integer, found ``"),
            ("99999999999999999999", Value::Int(1), "expected an integer, found `99999999999999999999`"),
            ("1", Value::Array(vec![]), "expected an array, found an integer (`1`)"),
        ] {
            assert_eq!(parse_value(text, &like).unwrap_err().to_string(), message);
        }
    }
}
