//! Commands with placeholders.

use crate::document::Span;
use std::fmt;
use trainlock_types::Name;

/// A text with placeholders, all of which name something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// As it stands in the manifest.
    pub written: String,
    /// Its pieces in order; texts are not empty, and no two of them stand side by side.
    pub pieces: Vec<Piece>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A text that stands for itself.
    Text(String),
    /// `{params.X}`: the dotted name of a param, or of a table of params.
    Param(String),
    /// `{data.X}`: the path of a data set of the member.
    Data(Name),
    /// `{inputs.N}`: the input of this index.
    Input(usize),
    /// `{outputs.N}`: the output of this index, counted through outputs, metrics and plots.
    Output(usize),
    /// `{seed}`: the step's seed.
    Seed,
    /// `{step}`: the step's name.
    Step,
    /// `{project}`: the project's name.
    Project,
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// What a text is made of before anybody knows whether its placeholders name something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Text(String),
    /// `{ROOT}` (then the name is none) or `{ROOT.NAME}`.
    Placeholder {
        root: &'a str,
        name: Option<&'a str>,
    },
}

/// The roots whose placeholders have a name behind the point.
const ROOTS: [&str; 4] = ["params", "data", "inputs", "outputs"];
/// The roots that stand alone.
const WORDS: [&str; 3] = ["seed", "step", "project"];

/// Splits a text at its placeholders: `{ROOT.NAME}` for the roots that have names, `{WORD}` and
/// `{WORD.NAME}` (a mistake, which the caller reports) for those that have none. `{{` writes `{`;
/// `${…}` is the shell's and stays as it is; so does any other brace.
pub(crate) fn split(text: &str) -> Vec<(Token<'_>, Span)> {
    let mut tokens = Vec::with_capacity(1 + 2 * text.bytes().filter(|b| *b == b'{').count());
    let mut plain = String::new();
    let mut at = 0;
    while let Some(brace) = text[at..].find('{').map(|i| at + i) {
        plain.push_str(&text[at..brace]);
        let rest = &text[brace..];
        at = if rest.starts_with("{{") {
            plain.push('{');
            brace + 2
        } else if text[..brace].ends_with('$') {
            let end = brace + expansion(rest);
            plain.push_str(&text[brace..end]);
            end
        } else if let Some((token, length)) = placeholder(rest) {
            if !plain.is_empty() {
                tokens.push((Token::Text(std::mem::take(&mut plain)), 0..0));
            }
            tokens.push((token, brace..brace + length));
            brace + length
        } else {
            plain.push('{');
            brace + 1
        };
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        tokens.push((Token::Text(plain), 0..0));
    }
    tokens
}

/// The placeholder that a text begins with (at its `{`), and its length.
fn placeholder(text: &str) -> Option<(Token<'_>, usize)> {
    let inner = &text[1..];
    let inner = &inner[..inner.find(['{', '}', '\n']).filter(|end| inner[*end..].starts_with('}'))?];
    let (root, name) = match inner.split_once('.') {
        Some((root, name)) => (root, Some(name)),
        None => (inner, None),
    };
    let known = WORDS.contains(&root) || name.is_some() && ROOTS.contains(&root);
    known.then_some((Token::Placeholder { root, name }, inner.len() + 2))
}

/// The length of `{…}` with the braces inside it counted; all of the text if it does not end.
fn expansion(text: &str) -> usize {
    let mut depth = 0;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return i + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether a path holds what was meant as a placeholder, which only `run` can have.
pub(crate) fn looks_like_placeholder(text: &str) -> bool {
    split(text).iter().any(|(token, _)| matches!(token, Token::Placeholder { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(text: &str) -> String {
        let token = |(token, _)| match token {
            Token::Text(text) => format!("'{text}'"),
            Token::Placeholder { root, name: Some(name) } => format!("<{root} {name}>"),
            Token::Placeholder { root, name: None } => format!("<{root}>"),
        };
        split(text).into_iter().map(token).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_a_placeholder_and_what_is_not() {
        for (text, expected) in [
            ("python a.py {data.raw} {outputs.0}", "'python a.py ' <data raw> ' ' <outputs 0>"),
            ("{params.model.width}", "<params model.width>"),
            ("{seed}{step}{project}", "<seed> <step> <project>"),
            ("{seed.x}", "<seed x>"),
            ("{{params.x}}", "'{params.x}}'"),
            ("{{{seed}", "'{' <seed>"),
            ("awk '{ print $1 }' {a,b} {}", "'awk '{ print $1 }' {a,b} {}'"),
            ("${HOME} ${X:-${seed}} {seed}", "'${HOME} ${X:-${seed}} ' <seed>"),
            ("${open {seed}", "'${open {seed}'"),
            ("{data} {params", "'{data} {params'"),
            ("{params.}", "<params >"),
            ("{params.a b}", "<params a b>"),
            ("é{seed}ü", "'é' <seed> 'ü'"),
            ("", ""),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_those_of_the_braces() {
        let text = "a {{ {seed} ${x} {data.raw}";
        let places: Vec<&str> = split(text)
            .into_iter()
            .filter(|(token, _)| matches!(token, Token::Placeholder { .. }))
            .map(|(_, span)| &text[span])
            .collect();
        assert_eq!(places, ["{seed}", "{data.raw}"]);
    }

    proptest! {
        #[test]
        fn texts_without_roots_come_back(text in "[a-c{}$. ]{0,24}") {
            // Without `{{` nothing of such a text has a meaning.
            prop_assume!(!text.contains("{{"));
            let whole = if text.is_empty() { String::new() } else { format!("'{text}'") };
            prop_assert_eq!(show(&text), whole);
        }

        #[test]
        fn any_text_is_split(text in "\\PC{0,64}") {
            for (_, span) in split(&text) {
                prop_assert!(text.get(span).is_some());
            }
        }
    }
}
