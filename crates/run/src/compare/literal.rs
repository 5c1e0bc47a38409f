//! The few Python literals that an .npy header is made of.

use super::model::Stop;

const DEPTH_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Int(i64),
    Str(String),
    Tuple(Vec<Literal>),
    List(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
    None,
}

impl Literal {
    /// The value of a text key.
    pub(super) fn get(&self, key: &str) -> Option<&Literal> {
        match self {
            Literal::Dict(items) => {
                items.iter().rev().find(|(k, _)| matches!(k, Literal::Str(k) if k == key)).map(|item| &item.1)
            }
            _ => None,
        }
    }
}

/// One literal, with nothing but space behind it.
pub(super) fn parse(text: &str) -> Result<Literal, Stop> {
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.space();
    if parser.rest.is_empty() { Ok(value) } else { Err(wrong()) }
}

fn wrong() -> Stop {
    Stop::damaged("its header is no Python literal")
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\0']);
    }

    fn take(&mut self, mark: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, Stop> {
        if depth > DEPTH_MAX {
            return Err(wrong());
        }
        self.space();
        if self.take("{") {
            let mut items = Vec::new();
            while !self.take("}") {
                let key = self.value(depth + 1)?;
                if !self.take(":") {
                    return Err(wrong());
                }
                items.push((key, self.value(depth + 1)?));
                if !self.take(",") && !self.rest.starts_with('}') {
                    return Err(wrong());
                }
            }
            return Ok(Literal::Dict(items));
        }
        for (open, close) in [("(", ")"), ("[", "]")] {
            if !self.take(open) {
                continue;
            }
            let mut items = Vec::new();
            let mut comma = false;
            while !self.take(close) {
                items.push(self.value(depth + 1)?);
                comma = self.take(",");
                if !comma && !self.rest.starts_with(close) {
                    return Err(wrong());
                }
            }
            return Ok(match (open, items.len()) {
                ("[", _) => Literal::List(items),
                ("(", 1) if !comma => items.remove(0),
                _ => Literal::Tuple(items),
            });
        }
        for (word, value) in [("True", Literal::Bool(true)), ("False", Literal::Bool(false)), ("None", Literal::None)] {
            if self.take(word) {
                return Ok(value);
            }
        }
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            return self.string(quote);
        }
        let len = self.rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'-').count();
        let (digits, rest) = self.rest.split_at(len);
        // Python 2 wrote a shape with long integers: 3L.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        digits.parse().map(Literal::Int).map_err(|_| wrong())
    }

    fn string(&mut self, quote: char) -> Result<Literal, Stop> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, c @ ('\\' | '\'' | '"'))) => out.push(c),
                    // Other escapes name the same thing whether they are resolved or not.
                    Some((_, c)) => out.extend(['\\', c]),
                    None => return Err(wrong()),
                },
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Literal::Str(out));
                }
                c => out.push(c),
            }
        }
        Err(wrong())
    }
}
