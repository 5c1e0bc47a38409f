//! A TOML document as a tree whose every key and value knows its place.

use hashbrown::HashTable;
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) value: Value<'a>,
    span: Place,
}

/// A range of bytes in half the room: large manifests have very many. (A place beyond 4 GiB, which could only be
/// wrong in a message, is taken to be there.)
#[derive(Debug, Clone, Copy)]
struct Place(u32, u32);

impl From<Range<usize>> for Place {
    fn from(span: Range<usize>) -> Place {
        let near = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Place(near(span.start), near(span.end))
    }
}

impl From<Place> for Range<usize> {
    fn from(Place(start, end): Place) -> Range<usize> {
        start as usize..end as usize
    }
}

/// A value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    String(Cow<'a, str>),
    /// A whole number; none if it needs more than 64 bits.
    Integer(Option<i64>),
    /// Any number with a fraction or an exponent, `nan` and `inf` too.
    Float(f64),
    Boolean(bool),
    /// As TOML writes it.
    Datetime(String),
    Array(Vec<Node<'a>>),
    Table(Table<'a>),
}

/// A table: its entries in the order of the file, each name once.
#[derive(Debug, Default)]
pub(crate) struct Table<'a> {
    /// How it was written, where the plain reader made it.
    pub(crate) written: Written,
    entries: Vec<(Cow<'a, str>, Place, Node<'a>)>,
    /// Where each name stands in `entries`, once they are more than [`FEW`].
    index: Option<Box<Index>>,
}

/// The places of a table's entries, found by the hashes of their names.
#[derive(Debug, Default)]
struct Index {
    hasher: foldhash::fast::RandomState,
    places: HashTable<u32>,
}

/// How a table was written, which decides what can be added to it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// By a header, or as a part of one.
    #[default]
    Header,
    /// By a dotted key.
    Dotted,
    /// In braces.
    Inline,
}

/// Up to so many entries are looked through faster than looked up.
const FEW: usize = 16;

impl<'a> Node<'a> {
    pub(crate) fn new(value: Value<'a>, span: Range<usize>) -> Node<'a> {
        Node { value, span: span.into() }
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.span.into()
    }
}

impl<'a> Value<'a> {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Node<'a>]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn as_table(&self) -> Option<&Table<'a>> {
        match self {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The kind in words, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

impl<'a> Table<'a> {
    pub(crate) fn new(written: Written) -> Table<'a> {
        Table { written, ..Table::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Range<usize>, &Node<'a>)> {
        self.entries.iter().map(|(name, span, node)| (&**name, (*span).into(), node))
    }

    /// An entry: its name, where that stands, and its value.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, Range<usize>, &Node<'a>)> {
        let (name, span, node) = &self.entries[self.place(name)?];
        Some((name, (*span).into(), node))
    }

    /// The value at a place that [`Table::place`] or [`Table::push`] gave.
    pub(crate) fn node_mut(&mut self, place: usize) -> &mut Node<'a> {
        &mut self.entries[place].2
    }

    /// Where a name stands among the entries.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        let Some(index) = &self.index else {
            return self.entries.iter().position(|(n, ..)| n == name);
        };
        let is = |place: &u32| self.entries[*place as usize].0 == name;
        index.places.find(index.hasher.hash_one(name), is).map(|place| *place as usize)
    }

    /// Adds an entry and gives its place. The caller knows that the name is new.
    pub(crate) fn push(&mut self, name: Cow<'a, str>, span: Range<usize>, node: Node<'a>) -> usize {
        let place = self.entries.len();
        self.entries.push((name, span.into(), node));
        if place >= FEW {
            let indexed = if self.index.is_none() { 0 } else { place };
            let Index { hasher, places } = &mut **self.index.get_or_insert_default();
            let hash = |place: u32| hasher.hash_one(&*self.entries[place as usize].0);
            for place in indexed as u32..=place as u32 {
                places.insert_unique(hash(place), place, |place| hash(*place));
            }
        }
        place
    }
}

/// What the parser of the `toml` crate made.
impl<'a> From<DeTable<'a>> for Table<'a> {
    fn from(table: DeTable<'a>) -> Table<'a> {
        let mut own = Table::default();
        // The parser moves a table to the end when its header comes behind that of a table inside it.
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, node) in entries {
            let span = key.span();
            own.push(key.into_inner(), span, node.into());
        }
        own
    }
}

impl<'a> From<Spanned<DeValue<'a>>> for Node<'a> {
    fn from(node: Spanned<DeValue<'a>>) -> Node<'a> {
        let span = node.span();
        let value = match node.into_inner() {
            DeValue::String(text) => Value::String(text),
            DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(items) => Value::Array(items.into_iter().map(Node::from).collect()),
            DeValue::Table(table) => Value::Table(table.into()),
        };
        Node::new(value, span)
    }
}
