//! The shape of train.toml: which keys there are and what kind of value each takes.
//!
//! The table itself is in `keys`; the shape pass here checks a manifest against it, and `schema` writes
//! the JSON schema and the reference from it.

use crate::document::{Node, Report, Span, Value, View, integer, number};
use std::collections::HashSet;

/// A key of a table.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    /// What holds without it, in words or as TOML; empty where nothing does.
    pub(crate) default: &'static str,
    /// A line of TOML that shows it.
    pub(crate) example: &'static str,
    /// What it means.
    pub(crate) doc: &'static str,
}

/// What kind of value a key takes.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A text of some form; the form itself is checked where it is read.
    Text(&'static Form),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number in these bounds.
    Int(i64, i64),
    /// A finite number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `true` alone.
    True,
    /// A list of such values.
    List(&'static Shape),
    /// A table with the keys of these groups.
    Table(&'static [&'static [Key]]),
    /// A table with names of the user's choice; the text stands for such a name.
    Map(&'static str, &'static Shape),
    /// One or the other; they differ in the kind of value.
    Either(&'static Shape, &'static Shape),
    /// A table of any values.
    Any,
}

/// A form that a text has.
pub(crate) struct Form {
    /// What it is, with its article.
    pub(crate) what: &'static str,
    /// A regular expression that holds for all such texts; empty where none is worth writing.
    pub(crate) pattern: &'static str,
}

/// The tables, entries and values with a mistake in their shape, so that later passes leave them alone.
/// The addresses tell the values of a parsed manifest apart; nobody looks behind them.
#[derive(Default)]
pub(crate) struct Unsound(HashSet<usize>);

impl Unsound {
    pub(crate) fn has(&self, node: &Node<'_>) -> bool {
        self.0.contains(&std::ptr::from_ref(node).addr())
    }
}

/// Where the shape pass is: the dotted name of a table.
struct Place<'p> {
    above: Option<&'p Place<'p>>,
    name: &'p str,
}

impl Place<'_> {
    fn dotted(&self) -> String {
        match self.above {
            Some(above) if !above.name.is_empty() => format!("{}.{}", above.dotted(), self.name),
            _ => self.name.to_owned(),
        }
    }

    fn header(&self) -> String {
        if self.name.is_empty() { "train.toml".to_owned() } else { format!("`[{}]`", self.dotted()) }
    }
}

impl Shape {
    /// What values of this shape are called.
    pub(crate) fn what(&self) -> String {
        match self {
            Shape::Text(form) => form.what.to_owned(),
            Shape::Word(words) => {
                let words: Vec<String> = words.iter().map(|w| format!("`\"{w}\"`")).collect();
                match &words[..] {
                    [others @ .., last] if !others.is_empty() => {
                        format!("{} or {last}", others.join(", "))
                    }
                    words => words.concat(),
                }
            }
            Shape::Int(..) => "an integer".to_owned(),
            Shape::Number => "a number".to_owned(),
            Shape::Bool => "a boolean".to_owned(),
            Shape::True => "`true`".to_owned(),
            Shape::List(Shape::Either(..)) => "an array".to_owned(),
            Shape::List(item) => format!("an array of {}", item.plural()),
            Shape::Table(_) | Shape::Map(..) | Shape::Any => "a table".to_owned(),
            Shape::Either(a, b) => format!("{} or {}", a.what(), b.what()),
        }
    }

    fn plural(&self) -> &'static str {
        match self {
            Shape::Text(_) | Shape::Word(_) => "strings",
            Shape::Int(..) | Shape::Number => "numbers",
            Shape::Bool | Shape::True => "booleans",
            Shape::List(_) => "arrays",
            _ => "tables",
        }
    }

    /// What is expected in place of a value of another kind.
    fn expected(&self) -> String {
        match self {
            Shape::Text(_) | Shape::Word(_) => "a string".to_owned(),
            Shape::Either(a, b) => format!("{} or {}", a.expected(), b.expected()),
            other => other.what(),
        }
    }

    /// Whether a value is of the kind that this shape is made of.
    fn accepts(&self, value: &Value<'_>) -> bool {
        match self {
            Shape::Text(_) | Shape::Word(_) => value.as_str().is_some(),
            Shape::Int(..) => matches!(value, Value::Integer(_)),
            Shape::Number => matches!(value, Value::Integer(_) | Value::Float(_)),
            Shape::Bool | Shape::True => value.as_bool().is_some(),
            Shape::List(_) => value.as_array().is_some(),
            Shape::Table(_) | Shape::Map(..) | Shape::Any => value.as_table().is_some(),
            Shape::Either(a, b) => a.accepts(value) || b.accepts(value),
        }
    }
}

/// Checks a whole manifest against the table of keys.
pub(crate) fn check(root: &View<'_>, keys: &'static [Key], report: &mut Report) -> Unsound {
    let mut pass = Pass { root, report, unsound: Unsound::default() };
    let place = Place { above: None, name: "" };
    pass.table(root, &[keys], &place);
    pass.unsound
}

struct Pass<'p, 'a> {
    root: &'p View<'a>,
    report: &'p mut Report,
    unsound: Unsound,
}

impl<'a> Pass<'_, 'a> {
    fn wrong(&mut self, span: Span, message: String, help: Option<String>) {
        self.report.error(self.root.source, span, message).maybe_help(help);
    }

    fn table(&mut self, view: &View<'a>, groups: &[&'static [Key]], place: &Place<'_>) -> bool {
        let mut sound = true;
        let keys = || groups.iter().flat_map(|group| group.iter());
        for entry in view.entries() {
            let Some(key) = keys().find(|k| k.name == entry.name) else {
                let near = self.report.near(entry.name, keys().map(|k| k.name));
                let known = || format!("known here: {}", keys().map(|k| k.name).collect::<Vec<_>>().join(", "));
                let message = format!("unknown key `{}` in {}", entry.name, place.header());
                self.wrong(entry.span, message, Some(near.unwrap_or_else(known)));
                sound = false;
                continue;
            };
            let at = Place { above: Some(place), name: key.name };
            sound &= self.value(&key.shape, entry.node, &entry.span, &at, key.example);
        }
        for key in keys().filter(|k| k.required && !view.has(k.name)) {
            let message = format!("{} has no `{}`", place.header(), key.name);
            self.wrong(view.span.clone(), message, Some(format!("add for example `{}`", key.example)));
            sound = false;
        }
        sound
    }

    fn value(&mut self, shape: &Shape, node: &'a Node<'a>, name: &Span, place: &Place<'_>, example: &str) -> bool {
        let sound = self.inner(shape, node, name, place, example);
        if !sound {
            self.unsound.0.insert(std::ptr::from_ref(node).addr());
        }
        sound
    }

    fn inner(&mut self, shape: &Shape, node: &'a Node<'a>, name: &Span, place: &Place<'_>, example: &str) -> bool {
        let value = &node.value;
        if !shape.accepts(value) {
            let message = format!("expected {}, found {}", shape.expected(), value.kind());
            let help = (!example.is_empty()).then(|| format!("for example `{example}`"));
            self.wrong(node.span(), message, help);
            return false;
        }
        match *shape {
            Shape::Text(_) | Shape::Bool | Shape::Any => true,
            Shape::True => {
                let sound = value.as_bool() == Some(true);
                if !sound {
                    self.wrong(node.span(), format!("`{}` is `true` or is not there", place.name), None);
                }
                sound
            }
            Shape::Word(words) => {
                let text = value.as_str().unwrap_or_default();
                let sound = words.contains(&text);
                if !sound {
                    let near = self.report.near(text, words.iter().copied());
                    self.wrong(node.span(), format!("expected {}, found `\"{text}\"`", shape.what()), near);
                }
                sound
            }
            Shape::Int(min, max) => {
                let sound = integer(node).is_some_and(|i| (min..=max).contains(&i));
                if !sound {
                    let bounds =
                        if max == i64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
                    self.wrong(node.span(), format!("`{}` is a number {bounds}", place.name), None);
                }
                sound
            }
            Shape::Number => {
                let sound = number(node).is_some();
                if !sound {
                    self.wrong(node.span(), format!("`{}` is a finite number", place.name), None);
                }
                sound
            }
            Shape::List(item) => {
                let mut sound = true;
                for node in value.as_array().into_iter().flatten() {
                    sound &= self.value(item, node, name, place, "");
                }
                sound
            }
            Shape::Table(groups) => {
                let Some(table) = value.as_table() else {
                    return true;
                };
                self.table(&View { source: self.root.source, table, span: name.clone() }, groups, place)
            }
            Shape::Map(_, item) => {
                let Some(table) = value.as_table() else {
                    return true;
                };
                let mut sound = true;
                for entry in (View { source: self.root.source, table, span: name.clone() }).entries() {
                    let at = Place { above: Some(place), name: entry.name };
                    sound &= self.value(item, entry.node, &entry.span, &at, example);
                }
                sound
            }
            Shape::Either(a, b) => {
                let shape = if a.accepts(value) { a } else { b };
                self.inner(shape, node, name, place, example)
            }
        }
    }
}
