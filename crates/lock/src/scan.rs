//! Splits TOML into its headers and `key = value` statements, without building a tree.
//!
//! The toml crate builds a tree of tables, which takes most of the time that a lock of 10,000 pins
//! may take. A lock has one shape, so a list of statements is enough; each value is then read by
//! its expected kind ([`string`], [`integer`], …), and whatever is not in the plain form that the
//! writer uses goes to the toml crate, value by value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;
use trainlock_types::{Value, position_of};

/// A header or a statement.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Header(Header<'a>),
    Pair(Pair<'a>),
}

/// `[a.b]` or `[[a.b]]`.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) path: Vec<Cow<'a, str>>,
    pub(crate) array: bool,
    pub(crate) span: Range<usize>,
}

/// `key = value`.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    /// The key; its first part if it is dotted.
    pub(crate) key: Cow<'a, str>,
    pub(crate) dotted: bool,
    pub(crate) key_span: Range<usize>,
    /// What the value says, if it is a string on one line without escapes, as nearly all are.
    pub(crate) plain: Option<&'a str>,
    pub(crate) value: &'a str,
    pub(crate) value_span: Range<usize>,
    /// Where the statement ends, a comment behind it included.
    pub(crate) end: usize,
}

/// What is no TOML, and where.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
}

fn wrong<T>(span: Range<usize>, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { span, message: message.into() })
}

/// Gives the items one after another.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Scanner<'a> {
        // A byte order mark may stand before the first character of TOML.
        Scanner { text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } }
    }

    /// The next item; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Item<'a>>, Wrong> {
        loop {
            match self.peek() {
                None => return Ok(None),
                Some(b' ' | b'\t' | b'\n') => self.at += 1,
                Some(b'\r') if self.byte(1) == Some(b'\n') => self.at += 2,
                Some(b'#') => self.comment()?,
                Some(b'[') => return self.header().map(|h| Some(Item::Header(h))),
                Some(_) => return self.pair().map(|p| Some(Item::Pair(p))),
            }
        }
    }

    /// After an error: goes on at the next line that looks like a header.
    pub(crate) fn recover(&mut self) {
        self.at = self.text[self.at..].find("\n[").map_or(self.text.len(), |i| self.at + i + 1);
    }

    fn peek(&self) -> Option<u8> {
        self.byte(0)
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Of the character at this place, or nothing at the end.
    fn here(&self) -> Range<usize> {
        let length = self.text[self.text.floor_char_boundary(self.at)..].chars().next().map_or(0, char::len_utf8);
        self.at..self.at + length
    }

    fn comment(&mut self) -> Result<(), Wrong> {
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => break,
                b'\r' if self.byte(1) == Some(b'\n') => break,
                b'\t' | b' '..=b'~' | 0x80.. => self.at += 1,
                _ => return wrong(self.here(), "a control character in a comment"),
            }
        }
        Ok(())
    }

    /// Nothing but a comment may follow on the line.
    fn end_of_line(&mut self) -> Result<(), Wrong> {
        self.blanks();
        if self.peek() == Some(b'#') {
            self.comment()?;
        }
        match self.peek() {
            None | Some(b'\n') => Ok(()),
            Some(b'\r') if self.byte(1) == Some(b'\n') => Ok(()),
            Some(_) => wrong(self.here(), "expected the end of the line"),
        }
    }

    fn header(&mut self) -> Result<Header<'a>, Wrong> {
        let start = self.at;
        let array = self.byte(1) == Some(b'[');
        self.at += if array { 2 } else { 1 };
        let mut path = Vec::with_capacity(2);
        loop {
            self.blanks();
            path.push(self.key_part()?);
            self.blanks();
            match self.peek() {
                Some(b'.') => self.at += 1,
                Some(b']') if !array => break self.at += 1,
                Some(b']') if self.byte(1) == Some(b']') => break self.at += 2,
                _ => return wrong(self.here(), "expected the end of the table's name"),
            }
        }
        let span = start..self.at;
        self.end_of_line()?;
        Ok(Header { path, array, span })
    }

    fn pair(&mut self) -> Result<Pair<'a>, Wrong> {
        let start = self.at;
        let key = self.key_part()?;
        let mut dotted = false;
        let mut end = self.at;
        self.blanks();
        while self.peek() == Some(b'.') {
            dotted = true;
            self.at += 1;
            self.blanks();
            self.key_part()?;
            end = self.at;
            self.blanks();
        }
        let key_span = start..end;
        if self.peek() != Some(b'=') {
            return wrong(self.here(), "expected `=` behind the key");
        }
        self.at += 1;
        self.blanks();
        let at = self.at;
        let (value_span, plain) = match plain_string(&self.text[at..]) {
            Some((text, _)) => {
                self.at += text.len() + 2;
                (at..self.at, Some(text))
            }
            None => (self.value()?, None),
        };
        self.end_of_line()?;
        Ok(Pair { key, dotted, key_span, plain, value: &self.text[value_span.clone()], value_span, end: self.at })
    }

    /// A bare or quoted key.
    fn key_part(&mut self) -> Result<Cow<'a, str>, Wrong> {
        let start = self.at;
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.line_string(quote)?;
                let raw = &self.text[start..self.at];
                match string(raw) {
                    Ok(Ok(key)) => Ok(key),
                    Ok(Err(_)) => wrong(start..self.at, "expected a key"),
                    Err(inner) => Err(inner.shifted(start)),
                }
            }
            _ => {
                while let Some(b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') = self.peek() {
                    self.at += 1;
                }
                if self.at == start {
                    return wrong(self.here(), "expected a key");
                }
                Ok(Cow::Borrowed(&self.text[start..self.at]))
            }
        }
    }

    /// A string of one line, from its opening to its closing quote.
    fn line_string(&mut self, quote: u8) -> Result<(), Wrong> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None | Some(b'\n') => return wrong(start..self.at, "a string without its end"),
                Some(b'\\') if quote == b'"' => self.at += if self.byte(1).is_some() { 2 } else { 1 },
                Some(byte) => {
                    self.at += 1;
                    if byte == quote {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A string of many lines: three quotes, up to two more of them at its end.
    fn text_string(&mut self, quote: u8) -> Result<(), Wrong> {
        let start = self.at;
        self.at += 3;
        loop {
            match self.peek() {
                None => return wrong(start..start + 3, "a string without its end"),
                Some(b'\\') if quote == b'"' => self.at += if self.byte(1).is_some() { 2 } else { 1 },
                Some(byte) if byte == quote && self.byte(1) == Some(quote) && self.byte(2) == Some(quote) => {
                    self.at += 3;
                    for _ in 0..2 {
                        if self.peek() == Some(quote) {
                            self.at += 1;
                        }
                    }
                    return Ok(());
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// Where a value stands. Only its extent is found here: what it says is read by its kind later.
    fn value(&mut self) -> Result<Range<usize>, Wrong> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(quote @ (b'"' | b'\'')) => {
                    if self.byte(1) == Some(quote) && self.byte(2) == Some(quote) {
                        self.text_string(quote)?;
                    } else {
                        self.line_string(quote)?;
                    }
                }
                Some(b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                Some(b']' | b'}') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                None if depth > 0 => {
                    return wrong(start..start + 1, "an array or table without its end");
                }
                Some(b'#') if depth > 0 => {
                    self.comment()?;
                    continue;
                }
                Some(_) if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                // A bare word: a number, a date, `true`. It ends with the line.
                _ => {
                    while let Some(b' '..=b'"' | b'$'..=b'~' | b'\t' | 0x80..) = self.peek() {
                        self.at += 1;
                    }
                    let end = start + self.text[start..self.at].trim_end_matches([' ', '\t']).len();
                    if end == start {
                        return wrong(self.here(), "expected a value");
                    }
                    return Ok(start..end);
                }
            }
            if depth == 0 {
                return Ok(start..self.at);
            }
        }
    }
}

impl Wrong {
    /// The same, with its place counted from the beginning of the file.
    pub(crate) fn shifted(self, by: usize) -> Wrong {
        Wrong { span: self.span.start + by..self.span.end + by, ..self }
    }
}

/// A value of the kind that was expected, or the kind that was found.
pub(crate) type Typed<T> = Result<Result<T, &'static str>, Wrong>;

/// A text.
pub(crate) fn string(raw: &str) -> Typed<Cow<'_, str>> {
    if let Some((text, "")) = plain_string(raw) {
        return Ok(Ok(Cow::Borrowed(text)));
    }
    Ok(match tree(raw)?.into_inner() {
        DeValue::String(text) => Ok(text),
        other => Err(kind(&other)),
    })
}

/// A whole number.
pub(crate) fn integer(raw: &str) -> Typed<i64> {
    let bytes = raw.as_bytes();
    if bytes.iter().all(u8::is_ascii_digit) && (1..=18).contains(&bytes.len()) && (bytes[0] != b'0' || raw == "0") {
        return Ok(Ok(bytes.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))));
    }
    Ok(match any(raw)? {
        Ok(Value::Int(number)) => Ok(number),
        Ok(other) => Err(other.kind()),
        Err(kind) => Err(kind),
    })
}

/// `true` or `false`.
pub(crate) fn boolean(raw: &str) -> Typed<bool> {
    match raw {
        "true" => Ok(Ok(true)),
        "false" => Ok(Ok(false)),
        _ => Ok(Err(kind(tree(raw)?.get_ref()))),
    }
}

/// A list of texts.
pub(crate) fn strings(raw: &str) -> Typed<Vec<Cow<'_, str>>> {
    if let Some(texts) = plain_strings(raw) {
        return Ok(Ok(texts));
    }
    let values = match tree(raw)?.into_inner() {
        DeValue::Array(values) => values,
        other => return Ok(Err(kind(&other))),
    };
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        match value.into_inner() {
            DeValue::String(text) => texts.push(text),
            _ => return Ok(Err("an array of other values")),
        }
    }
    Ok(Ok(texts))
}

/// Any value that a hyperparameter can have.
pub(crate) fn any(raw: &str) -> Typed<Value> {
    let value = tree(raw)?;
    Ok(to_value(value.get_ref(), value.span(), raw))
}

fn tree(raw: &str) -> Result<Spanned<DeValue<'_>>, Wrong> {
    DeValue::parse(raw).map_err(|error| Wrong {
        span: error.span().unwrap_or(0..raw.len()),
        message: error.message().lines().next().unwrap_or("no TOML").to_owned(),
    })
}

/// The kind in words, with its article.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn to_value(value: &DeValue<'_>, span: Range<usize>, raw: &str) -> Result<Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            Err(_) => return Err("a number beyond 64 bits"),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => return Err("a number that is not finite"),
        },
        DeValue::Boolean(yes) => Value::Bool(*yes),
        // As written, because the request is compared as written.
        DeValue::Datetime(_) => Value::Datetime(raw[span].to_owned()),
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|v| to_value(v.get_ref(), v.span(), raw)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let entry = |(key, v): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Ok((key.get_ref().clone().into_owned(), to_value(v.get_ref(), v.span(), raw)?))
            };
            Value::Table(table.iter().map(entry).collect::<Result<BTreeMap<_, _>, &'static str>>()?)
        }
    })
}

/// The text of a basic string without escapes, and what follows it.
fn plain_string(raw: &str) -> Option<(&str, &str)> {
    let rest = raw.strip_prefix('"')?;
    // A quote, an escape or a control character; the last two are not for here.
    let stops = |b: u8| (b == b'"') | (b == b'\\') | ((b < b' ') & (b != b'\t')) | (b == 0x7f);
    let end = position_of(rest.as_bytes(), stops);
    let tail = rest[end..].strip_prefix('"')?;
    // Three quotes begin a string of many lines.
    (end > 0 || !tail.starts_with('"')).then_some((&rest[..end], tail))
}

/// An array of such strings, on one line or many, without comments.
fn plain_strings(raw: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut rest = raw.strip_prefix('[')?;
    let mut texts = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n']);
        if rest == "]" {
            return Some(texts);
        }
        let (text, tail) = plain_string(rest)?;
        texts.push(Cow::Borrowed(text));
        rest = tail.trim_start_matches([' ', '\t', '\n']);
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return (rest == "]").then_some(texts),
        }
    }
}
