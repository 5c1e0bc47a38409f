//! A parsed manifest whose every key and value knows its place, and the list of what is wrong with it.
//!
//! The accessors of [`View`] are lenient: a value of the wrong type counts as absent, because the shape
//! pass has reported it already.

use std::ops::Range;
use std::sync::Arc;
use trainlock_types::{Diagnostic, SourceText, nearest};

pub(crate) use crate::tree::{Node, Table, Value};

/// Bytes of a manifest.
pub(crate) type Span = Range<usize>;

/// A text and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

/// A table of a manifest, with the place of its name.
#[derive(Clone)]
pub(crate) struct View<'a> {
    pub(crate) source: &'a Arc<SourceText>,
    pub(crate) table: &'a Table<'a>,
    pub(crate) span: Span,
}

/// A key of a table and its value.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) span: Span,
    pub(crate) node: &'a Node<'a>,
}

impl<'a> View<'a> {
    /// The entries in the order of the file.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.table.iter().map(entry)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.table.get(key).map(entry)
    }

    fn value(&self, key: &str) -> Option<&'a Node<'a>> {
        self.table.get(key).map(|(_, _, node)| node)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.place(key).is_some()
    }

    pub(crate) fn str(&self, key: &str) -> Option<Text<'a>> {
        text(self.value(key)?)
    }

    /// The texts of a list, or none of them.
    pub(crate) fn list(&self, key: &str) -> Vec<Text<'a>> {
        match self.value(key).map(|node| &node.value) {
            Some(Value::Array(items)) => items.iter().filter_map(text).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        self.value(key)?.value.as_bool()
    }

    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        integer(self.value(key)?)
    }

    /// The table of this name, if there is one.
    pub(crate) fn table(&self, key: &str) -> Option<View<'a>> {
        self.view(&self.get(key)?)
    }

    /// An entry of this table as a table.
    pub(crate) fn view(&self, entry: &Entry<'a>) -> Option<View<'a>> {
        let table = entry.node.value.as_table()?;
        Some(View { source: self.source, table, span: entry.span.clone() })
    }

    /// The entries of the table of this name; none if there is no such table.
    pub(crate) fn entries_of(&self, key: &str) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.table(key).into_iter().flat_map(|t| t.entries())
    }
}

pub(crate) fn text<'a>(node: &'a Node<'a>) -> Option<Text<'a>> {
    Some(Text { text: node.value.as_str()?, span: node.span() })
}

pub(crate) fn integer(node: &Node<'_>) -> Option<i64> {
    match node.value {
        Value::Integer(number) => number,
        _ => None,
    }
}

/// A finite number; whole numbers count too.
pub(crate) fn number(node: &Node<'_>) -> Option<f64> {
    match node.value {
        Value::Float(number) => Some(number).filter(|n| n.is_finite()),
        _ => integer(node).map(|i| i as f64),
    }
}

fn entry<'a>((name, span, node): (&'a str, Span, &'a Node<'a>)) -> Entry<'a> {
    Entry { name, span, node }
}

impl Text<'_> {
    /// The place of a part of the text. Where the file writes the text with escapes, the place of all of it.
    pub(crate) fn part(&self, source: &SourceText, part: Span) -> Span {
        match source.text.get(self.span.clone()).and_then(|raw| raw.find(self.text)) {
            Some(start) if !self.text.is_empty() => {
                let start = self.span.start + start;
                start + part.start..start + part.end
            }
            _ => self.span.clone(),
        }
    }
}

/// What was found wrong so far.
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
    /// How many more candidates may be compared in search of near names, so that a file with thousands of
    /// names and as many mistakes takes no time of note.
    comparisons: usize,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { diagnostics: Vec::new(), comparisons: 500_000 }
    }

    /// Adds a mistake; the answer takes a label, help and related places.
    pub(crate) fn error(&mut self, source: &Arc<SourceText>, span: Span, message: impl Into<String>) -> Found<'_> {
        self.diagnostics.push(Diagnostic {
            source: Arc::clone(source),
            span,
            message: message.into(),
            label: String::new(),
            help: None,
            related: Vec::new(),
        });
        let last = self.diagnostics.len() - 1;
        Found(&mut self.diagnostics[last])
    }

    /// The help of an unknown name: the near one.
    pub(crate) fn near<'c>(&mut self, wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
        let budget = self.comparisons;
        let mut used = 0;
        let candidates = candidates.into_iter().take(budget).inspect(|_| used += 1);
        let near = nearest(wrong, candidates).map(|n| format!("did you mean `{n}`?"));
        self.comparisons -= used;
        near
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// All of it, sorted by file and place, nothing twice.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by(|a, b| {
            (&a.source.path, a.span.start, a.span.end).cmp(&(&b.source.path, b.span.start, b.span.end))
        });
        self.diagnostics.dedup();
        self.diagnostics
    }
}

/// A mistake that was just added.
pub(crate) struct Found<'a>(&'a mut Diagnostic);

impl Found<'_> {
    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    pub(crate) fn maybe_help(self, help: Option<String>) -> Self {
        self.0.help = help.or(self.0.help.take());
        self
    }

    /// Another place that belongs to it; one in another file is told in words.
    pub(crate) fn related(self, source: &Arc<SourceText>, span: Span, what: impl Into<String>) -> Self {
        if Arc::ptr_eq(source, &self.0.source) {
            self.0.related.push((span, what.into()));
        } else {
            let (line, column) = source.line_column(span.start);
            let place = format!("{}: {}:{line}:{column}", what.into(), source.path.display());
            self.0.help = Some(match self.0.help.take() {
                Some(help) => format!("{help}; {place}"),
                None => place,
            });
        }
        self
    }
}
