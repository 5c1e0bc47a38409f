//! An error that has a place in a file; rendered by the binary alone.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A file's text and where it came from, shared by all that point into it.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// What is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file that it is about.
    pub source: Arc<SourceText>,
    /// The bytes of the text to underline.
    pub span: Range<usize>,
    /// What is wrong, as a fragment without a full stop.
    pub message: String,
    /// What to write under the line, if anything.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that belong to it, each with what to write under its line.
    pub related: Vec<(Range<usize>, String)>,
}

impl SourceText {
    /// Line and column (in characters) of a byte, both counted from 1.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.bytes().filter(|b| *b == b'\n').count() + 1, before[start..].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns() {
        let source = SourceText { path: "t".into(), text: "a\nbäc\n".into() };
        assert_eq!(source.line_column(0), (1, 1));
        assert_eq!(source.line_column(5), (2, 3));
        assert_eq!(source.line_column(99), (3, 1));
    }
}
