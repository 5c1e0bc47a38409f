//! A reader of plainly written TOML, several times as fast as the `toml` crate's parser.
//!
//! It reads what manifests are made of: headers, `key = value`, strings on one line, numbers, arrays and inline
//! tables. At anything else (arrays of tables, strings of several lines, a table opened behind one inside it) and at any
//! mistake it gives up, and the `toml` crate reads the document instead: that crate alone decides what is wrong, and
//! says so. What this reader does read, it reads as that crate does, places included; property tests hold it to that.

use crate::tree::{Node, Table, Value, Written};
use std::borrow::Cow;
use std::ops::Range;
use toml::de::DeValue;
use trainlock_types::position_of;

/// How deep arrays and inline tables may lie in each other.
const DEPTH: usize = 16;

/// A key and its place.
type Key<'a> = (Cow<'a, str>, Range<usize>);

/// Reads a document; none if it is not plain.
pub(crate) fn read(text: &str) -> Option<Table<'_>> {
    let mut reader = Reader { text, at: 0 };
    let mut root = Table::default();
    // The section that is being read, and the header above it.
    let mut section = Table::default();
    let mut header: Option<(Range<usize>, Vec<Key<'_>>)> = None;
    loop {
        reader.blank();
        match reader.peek() {
            None => break,
            Some(b'\n' | b'\r' | b'#') => reader.end_of_line()?,
            Some(b'[') => {
                place(&mut root, header.take(), std::mem::take(&mut section))?;
                let start = reader.at;
                reader.at += 1;
                let keys = reader.keys(b']')?;
                header = Some((start..reader.at, keys));
                reader.end_of_line()?;
            }
            Some(_) => {
                reader.entry(&mut section, 0)?;
                reader.end_of_line()?;
            }
        }
    }
    place(&mut root, header, section)?;
    Some(root)
}

/// Puts a section where its header says.
fn place<'a>(root: &mut Table<'a>, header: Option<(Range<usize>, Vec<Key<'a>>)>, section: Table<'a>) -> Option<()> {
    let Some((span, keys)) = header else {
        // Before the first header: the root is still empty.
        *root = section;
        return Some(());
    };
    insert(root, keys, Node::new(Value::Table(section), span), Written::Header)
}

/// Puts a value where a dotted name says, making the tables on the way. None if its name is taken, or if a table on the
/// way was written in another manner.
fn insert<'a>(table: &mut Table<'a>, mut keys: Vec<Key<'a>>, node: Node<'a>, written: Written) -> Option<()> {
    let (name, span) = keys.pop()?;
    let mut table = table;
    for (key, span) in keys {
        let place = match table.place(&key) {
            Some(place) => place,
            None => {
                let below = Value::Table(Table::new(written));
                table.push(key, span.clone(), Node::new(below, span))
            }
        };
        match &mut table.node_mut(place).value {
            Value::Table(below) if below.written == written => table = below,
            _ => return None,
        }
    }
    if table.place(&name).is_some() {
        return None;
    }
    table.push(name, span, node);
    Some(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes this byte, or gives up.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Goes on while bytes are good, and gives what was passed.
    fn while_good(&mut self, good: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&good) {
            self.at += 1;
        }
        // All bytes that callers call good, and those that end them, are ASCII or whole characters.
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// The end of a line, a comment before it, or the end of the text.
    fn end_of_line(&mut self) -> Option<()> {
        self.blank();
        if self.peek() == Some(b'#') {
            self.while_good(is_text);
        }
        match self.peek() {
            None => Some(()),
            Some(b'\r') => {
                self.at += 1;
                self.take(b'\n')
            }
            _ => self.take(b'\n'),
        }
    }

    /// Blanks, comments and ends of lines between the parts of an array or inline table.
    fn gap(&mut self) -> Option<()> {
        loop {
            self.blank();
            match self.peek() {
                Some(b'#' | b'\r' | b'\n') => self.end_of_line()?,
                _ => return Some(()),
            }
        }
    }

    /// A dotted name up to this byte, which is taken too.
    fn keys(&mut self, end: u8) -> Option<Vec<Key<'a>>> {
        let mut keys = Vec::with_capacity(2);
        loop {
            self.blank();
            keys.push(self.key()?);
            self.blank();
            if self.take(end).is_some() {
                return Some(keys);
            }
            self.take(b'.')?;
        }
    }

    fn key(&mut self) -> Option<Key<'a>> {
        let start = self.at;
        let name = match self.peek()? {
            b'"' | b'\'' => self.string()?,
            _ => {
                let name = self.while_good(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                (!name.is_empty()).then_some(Cow::Borrowed(name))?
            }
        };
        Some((name, start..self.at))
    }

    fn entry(&mut self, table: &mut Table<'a>, depth: usize) -> Option<()> {
        let start = self.at;
        let (name, span) = self.key()?;
        self.blank();
        if self.take(b'=').is_some() {
            self.blank();
            let node = self.value(depth)?;
            if table.place(&name).is_some() {
                return None;
            }
            table.push(name, span, node);
            return Some(());
        }
        self.at = start;
        let keys = self.keys(b'=')?;
        self.blank();
        let node = self.value(depth)?;
        insert(table, keys, node, Written::Dotted)
    }

    fn value(&mut self, depth: usize) -> Option<Node<'a>> {
        let start = self.at;
        let value = match self.peek()? {
            b'"' | b'\'' => Value::String(self.string()?),
            b'[' if depth < DEPTH => Value::Array(self.array(depth + 1)?),
            b'{' if depth < DEPTH => Value::Table(self.inline(depth + 1)?),
            _ => self.scalar()?,
        };
        Some(Node::new(value, start..self.at))
    }

    /// A string on one line, with its quotes.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let quote = self.peek()?;
        if self.text.as_bytes()[start..].starts_with(&[quote; 3]) {
            return None;
        }
        self.at += 1;
        let mut escapes = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            self.at += position_of(rest, |b| (b == quote) | (b == b'\\') | !is_text(b));
            match self.peek()? {
                b'\\' if quote == b'"' => {
                    escapes = true;
                    self.at += 2;
                }
                b'\\' => self.at += 1,
                byte if byte == quote => break,
                _ => return None,
            }
        }
        self.at += 1;
        if !escapes {
            return self.text.get(start + 1..self.at - 1).map(Cow::Borrowed);
        }
        match DeValue::parse(self.text.get(start..self.at)?).ok()?.into_inner() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Node<'a>>> {
        let mut items = Vec::new();
        self.take(b'[')?;
        loop {
            self.gap()?;
            if self.take(b']').is_some() {
                return Some(items);
            }
            items.push(self.value(depth)?);
            self.gap()?;
            if self.take(b',').is_none() {
                self.take(b']')?;
                return Some(items);
            }
        }
    }

    fn inline(&mut self, depth: usize) -> Option<Table<'a>> {
        let mut table = Table::new(Written::Inline);
        self.take(b'{')?;
        loop {
            self.gap()?;
            if self.take(b'}').is_some() {
                return Some(table);
            }
            self.entry(&mut table, depth)?;
            self.gap()?;
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(table);
            }
        }
    }

    /// Everything without quotes and brackets.
    fn scalar(&mut self) -> Option<Value<'a>> {
        let word = self.while_good(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.' | b':'));
        match word.as_bytes() {
            b"true" => Some(Value::Boolean(true)),
            b"false" => Some(Value::Boolean(false)),
            [b'1'..=b'9', rest @ ..] if rest.len() < 18 && rest.iter().all(u8::is_ascii_digit) => {
                Some(Value::Integer(word.parse().ok()))
            }
            _ => {
                let node = Node::from(DeValue::parse(word).ok()?);
                Some(node.value)
            }
        }
    }
}

/// Whether a byte may stand in a comment or a string: no control character but the tab.
fn is_text(byte: u8) -> bool {
    (byte >= b' ') & (byte != 0x7f) | (byte == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use toml::de::DeTable;

    /// Everything that a table is, in the order of the text.
    fn show(table: &Table<'_>) -> String {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        let entry =
            |(name, span, node): (&str, Range<usize>, &Node<'_>)| format!("{name:?}@{span:?} = {}\n", show_node(node));
        entries.into_iter().map(entry).collect()
    }

    fn show_node(node: &Node<'_>) -> String {
        let value = match &node.value {
            Value::Array(items) => items.iter().map(show_node).collect::<Vec<_>>().join(", "),
            Value::Table(table) => show(table),
            other => format!("{other:?}"),
        };
        format!("{}@{:?} ({value})", node.value.kind(), node.span())
    }

    /// Reads it in both ways, and says whether the plain way sufficed.
    fn compare(text: &str) -> bool {
        let Some(plain) = read(text) else {
            return false;
        };
        match DeTable::parse(text) {
            Ok(table) => assert_eq!(show(&plain), show(&table.into_inner().into()), "{text}"),
            Err(error) => panic!("read what is no TOML: {error}\n{text}"),
        }
        true
    }

    #[test]
    fn plain_documents_are_read_plainly() {
        for text in [
            "",
            "# only a comment",
            "a = 1\r\nb.c = 0x1f # é\nz = -7\n\n[d]\n\t e = 'x\\y'\n[d.f.\"g h\"]\ni = [\n 1, # one\n 2,\n]\n",
            "a = { b = 1, c.d = 'x', c.e = [ { f = nan } ], }\n",
            "a = {\n  b = \"x\\u00e9\\\"y\",\n}\n",
            "[a.b]\n[a.c]\nd = 1979-05-27\ne = 1979-05-27T07:32:00Z\nf = 6.02e23\ng = 99999999999999999999\nh = 0\ni = 1_000\n",
            include_str!("../../../train.toml.example"),
        ] {
            assert!(compare(text), "{text}");
        }
    }

    #[test]
    fn all_else_is_left_to_the_other_parser() {
        for text in [
            "a = 1\na = 2",
            "[a]\n[a]",
            "[a.b]\n[a]",
            "[[a]]",
            "a = '''x'''",
            "a = 1979-05-27 07:32:00",
            "a.b = 1\n[a.c]",
            "a = {}\na.b = 1",
            "[a]\nb.c = 1\n[a.b.d]",
            "a = {}\n[a.b]",
            "a = \"x",
            "a = 01",
            "a = truex",
            "a",
            "= 1",
            "[a",
            "[]",
            "a = 1 b = 2",
            "a = [1 2]",
            "a = {,}",
            "a = \"\\q\"",
            "a = \"\\",
            "a\n= 1",
            "\u{feff}a = 1",
            "a = 1\rb = 2",
            "a = \"\u{7f}\"",
            "# \u{1}",
            "é = 1",
            "a = .5",
            "a =",
            "a = \"x\ny\"",
        ] {
            assert!(!compare(text), "{text}");
        }
        assert!(read(&format!("a = {}", "[".repeat(100_000))).is_none());
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "[",
            "]",
            "[a]\n",
            "[a.b]\n",
            "[b.\"c\"]\n",
            "a",
            "b",
            "c",
            ".",
            " = ",
            "=",
            "\n",
            "\r\n",
            "\r",
            " ",
            "\t",
            "# x\n",
            "1",
            "-1",
            "+1",
            "0",
            "0x1F",
            "1.5",
            "1e9",
            "_",
            "true",
            "false",
            "inf",
            "nan",
            "\"x\"",
            "\"\\n\"",
            "\"\\x\"",
            "'y'",
            "'",
            "\"",
            "'''",
            "{",
            "}",
            ", ",
            "a = 1\n",
            "b.a = \"é\"\n",
            "c = [1, 'x']\n",
            "a = { b = 1 }\n",
            "1979-05-27",
            "07:32:00",
            "T",
            "é",
            "\\",
            "\u{7f}",
            "[[a]]\n",
        ])
    }

    /// Values, most of them plain.
    fn value() -> impl Strategy<Value = String> {
        let scalars = [
            "1",
            "-7",
            "0x1F",
            "1.5",
            "1e9",
            "nan",
            "true",
            "\"é\"",
            "\"\\n\"",
            "'y\\'",
            "1979-05-27",
            "07:32:00",
            "\"\"",
            "01",
            "'''z'''",
        ];
        let scalar = proptest::sample::select(scalars.to_vec()).prop_map(str::to_owned);
        scalar.prop_recursive(3, 12, 4, |inner| {
            let gap = || proptest::sample::select(vec!["", " ", "\n", " # c\n\t", ", "]);
            let array = proptest::collection::vec(inner.clone(), 0..4);
            let entries = proptest::collection::vec((key(), inner), 0..4);
            let entry = |(key, value): (String, String)| format!("{key} = {value}");
            prop_oneof![
                (array, gap(), gap()).prop_map(|(items, a, b)| format!("[{a}{}{b}]", items.join(", "))),
                (entries, gap(), gap()).prop_map(move |(items, a, b)| {
                    let items: Vec<String> = items.into_iter().map(entry).collect();
                    format!("{{{a}{}{b}}}", items.join(", "))
                }),
            ]
        })
    }

    fn key() -> impl Strategy<Value = String> {
        let part = proptest::sample::select(vec!["a", "b", "c-1", "d", "e", "\"f g\"", "'h'", "1"]);
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("."))
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => (key(), value()).prop_map(|(key, value)| format!("{key} = {value}\n")),
            2 => key().prop_map(|key| format!("[{key}]\n")),
            1 => proptest::sample::select(vec!["\n", "# é\r\n", "\t\n"]).prop_map(str::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_reads_as_the_other_parser_does(lines in proptest::collection::vec(line(), 0..8)) {
            compare(&lines.concat());
        }

        #[test]
        fn it_reads_nothing_that_the_other_parser_refuses(
            lines in proptest::collection::vec(line(), 1..5),
            at in any::<prop::sample::Index>(),
            piece in piece(),
        ) {
            let mut text = lines.concat();
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            text.insert_str(at, piece);
            compare(&text);
        }
    }

    #[test]
    fn enough_of_what_the_property_tests_try_is_plain() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let lines = proptest::collection::vec(line(), 0..8);
        let plain = (0..500).filter(|_| {
            let lines = lines.new_tree(&mut runner).map(|tree| tree.current().concat());
            read(&lines.unwrap_or_default()).is_some()
        });
        assert!(plain.count() > 150);
    }
}
