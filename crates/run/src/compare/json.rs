//! JSON (with the NaN and Infinity that Python writes) and JSON lines.
//!
//! Source: RFC 8259. Space, the order of keys, escapes and the spelling of numbers are noise. A parser of our own
//! since the text of every number is needed, keys may stand twice, and Python's words must be read.

use super::blob::Blob;
use super::model::{Body, Facts, Opened, Report, Stop, join};
use super::report::{Change, NoiseKind};
use super::tree::{self, DEPTH_MAX, Id, Node, Tree};
use std::io::{BufRead as _, BufReader, Read as _};
use trainlock_types::{Digest, Hasher};

/// Longer files and lines are compared as text.
const TEXT_MAX: usize = 64 << 20;
const LINE_MAX: u64 = 8 << 20;

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let text = blob.all(TEXT_MAX)?.ok_or_else(|| Stop::damaged("too long to be read as JSON"))?;
    Ok(Opened { what: "JSON", facts: Facts::new(), body: Body::Tree(Box::new(parse(&text)?)) })
}

/// JSON lines are read as they are compared.
pub(super) fn open_lines(blob: &Blob) -> Result<Opened, Stop> {
    Ok(Opened { what: "JSON lines", facts: Facts::new(), body: Body::Lines(blob.clone()) })
}

/// The value of a JSON text.
pub(super) fn parse(text: &[u8]) -> Result<Tree, Stop> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|_| Stop::damaged("it is not UTF-8"))?;
    let mut parser = Parser { text, at: 0, tree: Tree::default() };
    let root = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.wrong());
    }
    parser.tree.root = root;
    Ok(parser.tree)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    tree: Tree,
}

impl Parser<'_> {
    fn wrong(&self) -> Stop {
        Stop::damaged(format!("it is no JSON at byte {}", self.at))
    }

    fn rest(&self) -> &[u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = self.rest().starts_with(mark.as_bytes());
        self.at += if found { mark.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Id, Stop> {
        if depth >= DEPTH_MAX {
            return Err(Stop::damaged("its values are nested too deeply"));
        }
        self.space();
        let node = match self.rest().first().copied() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Node::Str(self.string()?),
            _ if self.take("null") => Node::Null,
            _ if self.take("true") => Node::Bool(true),
            _ if self.take("false") => Node::Bool(false),
            _ if self.take("NaN") => Node::Number("NaN".to_owned()),
            _ if self.take("Infinity") => Node::Number("Infinity".to_owned()),
            _ if self.take("-Infinity") => Node::Number("-Infinity".to_owned()),
            _ => {
                let number = |b: &&u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
                let len = self.rest().iter().take_while(number).count();
                let text = &self.text[self.at..self.at + len];
                if text.parse::<f64>().is_err() {
                    return Err(self.wrong());
                }
                self.at += len;
                Node::Number(text.to_owned())
            }
        };
        self.tree.add(node)
    }

    fn map(&mut self, depth: usize) -> Result<Node, Stop> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take("}") {
            return Ok(Node::Map(items));
        }
        loop {
            self.space();
            if self.rest().first() != Some(&b'"') {
                return Err(self.wrong());
            }
            let key = self.string()?;
            let key = self.tree.add(Node::Str(key))?;
            self.space();
            if !self.take(":") {
                return Err(self.wrong());
            }
            items.push((key, self.value(depth + 1)?));
            self.space();
            if self.take("}") {
                return Ok(Node::Map(items));
            }
            if !self.take(",") {
                return Err(self.wrong());
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, Stop> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Node::List("list", items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Ok(Node::List("list", items));
            }
            if !self.take(",") {
                return Err(self.wrong());
            }
        }
    }

    fn string(&mut self) -> Result<String, Stop> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain = self.rest().iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count();
            out.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            if self.take("\"") {
                return Ok(out);
            }
            if !self.take("\\") {
                return Err(self.wrong());
            }
            let escape = self.rest().first().copied();
            self.at += 1;
            out.push(match escape {
                Some(c @ (b'"' | b'\\' | b'/')) => c as char,
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                Some(b'u') => self.unicode()?,
                _ => {
                    self.at -= 1;
                    return Err(self.wrong());
                }
            });
        }
    }

    fn unicode(&mut self) -> Result<char, Stop> {
        let high = self.four()?;
        if let 0xd800..0xdc00 = high
            && self.take("\\u")
        {
            let low = self.four()?;
            if let 0xdc00..0xe000 = low {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code).ok_or_else(|| self.wrong());
            }
        }
        // Half of a pair is no text: two such files are compared as bytes.
        char::from_u32(high).ok_or_else(|| self.wrong())
    }

    fn four(&mut self) -> Result<u32, Stop> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| self.wrong())?;
        self.at += 4;
        Ok(code)
    }
}

/// Reads the lines that are not empty.
struct Lines {
    input: BufReader<super::blob::BlobReader>,
    line: u64,
}

impl Lines {
    fn new(blob: &Blob) -> Lines {
        Lines { input: BufReader::with_capacity(64 << 10, blob.reader()), line: 0 }
    }

    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Stop> {
        loop {
            let mut line = Vec::new();
            if self.input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            if line.len() as u64 == LINE_MAX && line.last() != Some(&b'\n') {
                return Err(Stop::damaged("a line is too long"));
            }
            self.line += 1;
            if !line.trim_ascii().is_empty() {
                return Ok(Some((self.line, line)));
            }
        }
    }
}

/// Says how two files of JSON lines differ.
pub(super) fn compare_lines(place: &str, a: &Blob, b: &Blob, report: &mut Report) -> Result<(), Stop> {
    let (mut left, mut right) = (Lines::new(a), Lines::new(b));
    let mut lines: [u64; 2] = [0, 0];
    loop {
        let (one, two) = (left.next()?, right.next()?);
        lines[0] += u64::from(one.is_some());
        lines[1] += u64::from(two.is_some());
        match (one, two) {
            (Some((at, one)), Some((_, two))) => {
                if one == two {
                    continue;
                }
                let before = report.size();
                let below = join(place, " » ", &format!("line {at}"));
                tree::compare(&below, &parse(&one)?, &parse(&two)?, report)?;
                if report.size() == before {
                    report.noise(NoiseKind::Spelling, &below, "", "");
                }
            }
            (None, None) => break,
            _ => {}
        }
    }
    if lines[0] != lines[1] {
        report.differs(place, Change::Shape { a: vec![lines[0]], b: vec![lines[1]] });
    }
    Ok(())
}

/// The digest of the lines' values.
pub(super) fn digest_lines(blob: &Blob) -> Result<Digest, Stop> {
    let mut lines = Lines::new(blob);
    let mut hasher = Hasher::new();
    while let Some((_, line)) = lines.next()? {
        hasher.update(parse(&line)?.digest()?.as_bytes());
    }
    Ok(hasher.finish())
}
