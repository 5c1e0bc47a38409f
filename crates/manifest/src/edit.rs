//! Changes to train.toml that keep the user's comments and layout.
//!
//! The text is parsed only to learn where things stand; then the few new bytes are put in between the old ones.
//! So whatever is not added to is the same afterwards, byte for byte: comments, blank lines, line ends, quotes.
//! What comes out is parsed once more, and refused if it does not hold what was to be added.

use std::ops::Range;
use toml_edit::{Array, Document, Item, Key, TableLike, Value};
use trainlock_types::quoted;

/// How far an element stands in where nothing shows how far.
const INDENT: &str = "    ";

/// Why a manifest could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It, or what is to be added, is no TOML.
    #[error("could not read TOML")]
    Syntax(#[from] toml_edit::TomlError),
    /// It has no such step.
    #[error("there is no step `{0}`")]
    NoStep(String),
    /// Something has another shape than it must have.
    #[error("`{0}` is not in a form that can be added to")]
    Shape(String),
}

/// Adds paths to a step's `inputs`, behind those that are there; one that is there already is left alone. A step
/// without `inputs` gets the key, behind its `run`.
///
/// # Errors
///
/// All of [`EditError`].
pub fn add_inputs(text: &str, step: &str, paths: &[&str]) -> Result<String, EditError> {
    let document = Document::parse(text)?;
    let chain = Chain::to(document.as_table(), &["steps", step]).ok_or_else(|| EditError::NoStep(step.to_owned()))?;
    let shape = || EditError::Shape(format!("steps.{step}.inputs"));
    let inputs = match chain.table.get("inputs") {
        None => None,
        Some(item) => Some(item.as_array().ok_or_else(shape)?),
    };
    let known = |path: &str| inputs.is_some_and(|inputs| inputs.iter().any(|v| v.as_str() == Some(path)));
    let mut new: Vec<String> = Vec::new();
    for path in paths.iter().filter(|path| !known(path)).map(|path| quoted(path)) {
        if !new.contains(&path) {
            new.push(path);
        }
    }
    if new.is_empty() {
        return Ok(text.to_owned());
    }
    let splices = match inputs {
        Some(inputs) => elements(text, inputs, &new),
        None => chain.key(text, "inputs", &format!("[{}]", new.join(", ")), Some("run")),
    };
    let edited = spliced(text, splices.ok_or_else(shape)?);
    let holds = |document: Document<&str>| {
        let inputs = Chain::to(document.as_table(), &["steps", step])?.table.get("inputs")?.as_array()?.clone();
        paths.iter().all(|path| inputs.iter().any(|v| v.as_str() == Some(path))).then_some(())
    };
    Document::parse(edited.as_str()).ok().and_then(holds).ok_or_else(shape)?;
    Ok(edited)
}

/// Adds a data set to `[data]`, behind the others; one of this name that is there already is left alone. `entry` is
/// its value as TOML: an inline table.
///
/// # Errors
///
/// [`EditError::Syntax`] and [`EditError::Shape`].
pub fn add_data(text: &str, name: &str, entry: &str) -> Result<String, EditError> {
    let document = Document::parse(text)?;
    let entry = entry.trim();
    let value: Value = entry.parse()?;
    let shape = || EditError::Shape("data".to_owned());
    if !value.is_inline_table() {
        return Err(EditError::Shape(name.to_owned()));
    }
    let chain = match document.get("data") {
        None => None,
        Some(_) => Some(Chain::to(document.as_table(), &["data"]).ok_or_else(shape)?),
    };
    if chain.as_ref().is_some_and(|chain| chain.table.contains_key(name)) {
        return Ok(text.to_owned());
    }
    let splices = chain.and_then(|chain| chain.key(text, name, entry, None)).unwrap_or_else(|| {
        let end = newline(text);
        let line = if text.is_empty() || text.ends_with('\n') { "" } else { end };
        let blank = if text.trim().is_empty() { "" } else { end };
        vec![(text.len(), format!("{line}{blank}[data]{end}{} = {entry}{end}", Key::new(name)))]
    });
    let edited = spliced(text, splices);
    let holds = |document: Document<&str>| Chain::to(document.as_table(), &["data"])?.table.get(name).map(|_| ());
    Document::parse(edited.as_str()).ok().and_then(holds).ok_or_else(shape)?;
    Ok(edited)
}

/// What is put in, each with the byte of the old text that it stands before; in the order of the text.
type Splices = Vec<(usize, String)>;

fn spliced(text: &str, splices: Splices) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for (place, new) in splices {
        out.push_str(&text[at..place]);
        out.push_str(&new);
        at = place;
    }
    out + &text[at..]
}

/// How lines end in this text.
fn newline(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Where the line ends that this byte is in: before its line feed, or at the end of the text.
fn line_end(text: &str, from: usize) -> usize {
    let end = text[from..].find('\n').map_or(text.len(), |i| from + i);
    if end > from && text[..end].ends_with('\r') { end - 1 } else { end }
}

/// Puts elements behind the last one of an array, laid out as that one is.
fn elements(text: &str, array: &Array, new: &[String]) -> Option<Splices> {
    let span = array.span()?;
    let end = newline(text);
    let Some(last) = array.iter().last() else {
        // Nothing shows the layout but what stands between the brackets.
        let close = span.end - 1;
        return Some(match text[span.clone()].rfind('\n').map(|i| span.start + i) {
            None => vec![(span.start + 1, new.join(", "))],
            Some(feed) => {
                let at = if text[..feed].ends_with('\r') { feed - 1 } else { feed };
                let indent = format!("{end}{}{INDENT}", &text[feed + 1..close]);
                vec![(at, new.iter().map(|element| format!("{indent}{element},")).collect())]
            }
        });
    };
    let last = last.span()?;
    let before = text[..last.start].trim_end_matches([' ', '\t']);
    let indent = &text[before.len()..last.start];
    if !before.ends_with('\n') {
        return Some(vec![(last.end, new.iter().map(|element| format!(", {element}")).collect())]);
    }
    // A line an element. The comma behind the last one may stand behind blanks and comments, or not at all.
    let line = |element: &String| format!("{end}{indent}{element}");
    let lines: Vec<String> = new.iter().map(line).collect();
    let close = span.end - 1;
    match comma(text, last.end..close) {
        Some(comma) => {
            let at = line_end(text, comma + 1).min(close);
            Some(vec![(at, lines.iter().map(|line| format!("{line},")).collect())])
        }
        None => {
            let at = line_end(text, last.end).min(close);
            Some(vec![(last.end, ",".to_owned()), (at, lines.join(","))])
        }
    }
}

/// The comma in a part of the text that holds only blanks, comments and at most one comma.
fn comma(text: &str, part: Range<usize>) -> Option<usize> {
    let mut comment = false;
    for (i, byte) in text[part.clone()].bytes().enumerate() {
        match byte {
            b'\n' => comment = false,
            b'#' => comment = true,
            b',' if !comment => return Some(part.start + i),
            _ => {}
        }
    }
    None
}

/// A table of the manifest, and how the text leads to it.
struct Chain<'a> {
    table: &'a dyn TableLike,
    item: &'a Item,
    /// The keys before the last one, where they are written with dots: `a` in `a.run = "x"`.
    dotted: Vec<String>,
    /// Whether it, or a table that it is in, is an inline one.
    inline: bool,
}

impl<'a> Chain<'a> {
    fn to(root: &'a toml_edit::Table, names: &[&str]) -> Option<Chain<'a>> {
        let (first, rest) = names.split_first()?;
        let mut chain = Chain { table: root, item: root.get(first)?, dotted: Vec::new(), inline: false };
        chain.enter(first)?;
        for name in rest {
            chain.item = chain.table.get(name)?;
            chain.enter(name)?;
        }
        Some(chain)
    }

    fn enter(&mut self, name: &str) -> Option<()> {
        self.table = self.item.as_table_like()?;
        self.inline |= self.item.is_inline_table();
        if is_dotted(self.item) {
            self.dotted.push(Key::new(name).to_string())
        } else {
            self.dotted.clear()
        }
        Some(())
    }

    /// Puts a key and its value into the table, behind `after` if it has that, else behind the last one.
    /// None where the text shows no place for it.
    fn key(&self, text: &str, key: &str, value: &str, after: Option<&str>) -> Option<Splices> {
        let names = self.dotted.iter().cloned().chain([Key::new(key).to_string()]);
        let pair = format!("{} = {value}", names.collect::<Vec<_>>().join("."));
        let preferred = after.and_then(|name| written(self.table.get_key_value(name)?));
        let sibling = preferred.or_else(|| {
            self.table
                .iter()
                .filter_map(|(name, _)| written(self.table.get_key_value(name)?))
                .max_by_key(|(_, end)| *end)
        });
        if self.inline {
            return match sibling {
                Some((_, behind)) => Some(vec![(behind, format!(", {pair}"))]),
                None => Some(vec![(self.item.span()?.start + 1, format!(" {pair} "))]),
            };
        }
        let end = newline(text);
        if let Some((start, behind)) = sibling {
            let line = text[..start].rfind('\n').map_or(0, |i| i + 1);
            let indent: String = text[line..start].chars().take_while(|c| c.is_whitespace()).collect();
            return Some(vec![(line_end(text, behind), format!("{end}{indent}{pair}"))]);
        }
        // The table has a header, and nothing below it yet.
        let header = self.item.as_table().filter(|table| !table.is_implicit() && !table.is_dotted())?.span()?;
        let line = text[..header.start].rfind('\n').map_or(0, |i| i + 1);
        let indent: String = text[line..header.start].chars().take_while(|c| c.is_whitespace()).collect();
        Some(vec![(line_end(text, header.start), format!("{end}{indent}{pair}"))])
    }
}

fn is_dotted(item: &Item) -> bool {
    match item {
        Item::Table(table) => table.is_dotted(),
        Item::Value(Value::InlineTable(table)) => table.is_dotted(),
        _ => false,
    }
}

/// Where a key stands in the body of its table and where its value ends; of a table written with dotted keys, the
/// last of them. None for a table with a header of its own.
fn written((key, item): (&Key, &Item)) -> Option<(usize, usize)> {
    if is_dotted(item) {
        let table = item.as_table_like()?;
        return table.iter().filter_map(|(name, _)| written(table.get_key_value(name)?)).max_by_key(|(_, end)| *end);
    }
    let value = item.as_value()?;
    Some((key.span()?.start, value.span()?.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn added(text: &str, step: &str, paths: &[&str]) -> String {
        let new = add_inputs(text, step, paths).unwrap();
        assert_eq!(add_inputs(&new, step, paths).unwrap(), new, "once is enough");
        new
    }

    #[test]
    fn arrays_on_one_line() {
        for (old, new) in [
            (r#"["one"]"#, r#"["one", "two"]"#),
            (r#"[ "one" , ]"#, r#"[ "one", "two" , ]"#),
            (r#"['one']  # why, and what"#, r#"['one', "two"]  # why, and what"#),
            (r#"[]"#, r#"["two"]"#),
            (
                r#"["""a
b"""]"#,
                r#"["""a
b""", "two"]"#,
            ),
        ] {
            let text =
                |inputs| format!("# head\n[steps.a] # a\nrun = \"x\"   # why\ninputs = {inputs}\n\n[steps.b]\nrun='y'");
            assert_eq!(added(&text(old), "a", &["two", "two"]), text(new));
        }
    }

    #[test]
    fn a_line_an_element_stays_so() {
        for (old, new) in [
            (
                "[\n    \"one\", # first, of all\n    \"two\",\n]",
                "[\n    \"one\", # first, of all\n    \"two\",\n    \"x\",\n    \"y\",\n]",
            ),
            ("[\n  \"one\" # no comma, here\n]", "[\n  \"one\", # no comma, here\n  \"x\",\n  \"y\"\n]"),
            (
                "[\n\t\"one\", # a comment\n\t# \"left out\",\n]",
                "[\n\t\"one\", # a comment\n\t\"x\",\n\t\"y\",\n\t# \"left out\",\n]",
            ),
            (
                "[\n  \"one\"\n  # between\n  , # behind\n]",
                "[\n  \"one\"\n  # between\n  , # behind\n  \"x\",\n  \"y\",\n]",
            ),
            ("[\n    \"one\", \"two\",\n]", "[\n    \"one\", \"two\", \"x\", \"y\",\n]"),
            ("[\n  \"one\",]", "[\n  \"one\",\n  \"x\",\n  \"y\",]"),
            ("[\n  \"one\"]", "[\n  \"one\",\n  \"x\",\n  \"y\"]"),
            ("[\n  # none yet\n]", "[\n  # none yet\n    \"x\",\n    \"y\",\n]"),
            ("[\n]", "[\n    \"x\",\n    \"y\",\n]"),
        ] {
            let text = |inputs: &str| format!("[steps.b]\ninputs = {inputs}\noutputs = []\n");
            assert_eq!(added(&text(old), "b", &["x", "y"]), text(new));
            let crlf = |text: String| text.replace('\n', "\r\n");
            assert_eq!(added(&crlf(text(old)), "b", &["x", "y"]), crlf(text(new)));
        }
    }

    #[test]
    fn a_step_without_inputs() {
        for (old, new) in [
            (
                "[steps.a]\nrun = \"x\" # why\noutputs = []\n",
                "[steps.a]\nrun = \"x\" # why\ninputs = [\"p\"]\noutputs = []\n",
            ),
            ("[steps.a]\nrun = \"\"\"\nx\ny\"\"\"", "[steps.a]\nrun = \"\"\"\nx\ny\"\"\"\ninputs = [\"p\"]"),
            (
                "[steps.a]\n  outputs = [\n  'x',\n  ]\n\n[steps.b]\n",
                "[steps.a]\n  outputs = [\n  'x',\n  ]\n  inputs = [\"p\"]\n\n[steps.b]\n",
            ),
            ("[steps.a]\n[steps.b]\n", "[steps.a]\ninputs = [\"p\"]\n[steps.b]\n"),
            ("  [steps.a] # a\n", "  [steps.a] # a\n  inputs = [\"p\"]\n"),
            ("[steps.a]\n[steps.a.env]\nX = \"1\"\n", "[steps.a]\ninputs = [\"p\"]\n[steps.a.env]\nX = \"1\"\n"),
            (
                "[steps.a]\nrun = \"x\"\nenv.X = \"1\"\n[steps.a.resources]\ncpus = 1\n",
                "[steps.a]\nrun = \"x\"\ninputs = [\"p\"]\nenv.X = \"1\"\n[steps.a.resources]\ncpus = 1\n",
            ),
            ("[steps.a]\nenv.X = \"1\"\n", "[steps.a]\nenv.X = \"1\"\ninputs = [\"p\"]\n"),
            ("[steps]\na = { run = \"x\" }\n", "[steps]\na = { run = \"x\", inputs = [\"p\"] }\n"),
            (
                "[steps]\na = { run = \"x\", outputs = [] }\n",
                "[steps]\na = { run = \"x\", inputs = [\"p\"], outputs = [] }\n",
            ),
            ("[steps]\na = {}\n", "[steps]\na = { inputs = [\"p\"] }\n"),
            (
                "[steps]\na.run = \"x\"\nb.run = \"y\"\na.outputs = []\n",
                "[steps]\na.run = \"x\"\na.inputs = [\"p\"]\nb.run = \"y\"\na.outputs = []\n",
            ),
            ("steps.a.run = \"x\"\n[data]\n", "steps.a.run = \"x\"\nsteps.a.inputs = [\"p\"]\n[data]\n"),
            (
                "steps = { a.run = \"x\", b = { run = \"y\" } }\n",
                "steps = { a.run = \"x\", a.inputs = [\"p\"], b = { run = \"y\" } }\n",
            ),
            ("steps.a = { run = \"x\" } # one\n", "steps.a = { run = \"x\", inputs = [\"p\"] } # one\n"),
        ] {
            assert_eq!(added(old, "a", &["p"]), new);
            let crlf = |text: &str| text.replace('\n', "\r\n");
            assert_eq!(added(&crlf(old), "a", &["p"]), crlf(new));
        }
        assert_eq!(
            added("\u{feff}[steps.a]\nrun = \"ä\"\n", "a", &["ü \"x\""]),
            "\u{feff}[steps.a]\nrun = \"ä\"\ninputs = [\"ü \\\"x\\\"\"]\n"
        );
    }

    #[test]
    fn data_sets() {
        let entry = "{ url = \"https://example.org/a.csv\" }";
        for (old, new) in [
            ("[project]\nname = \"p\"\n", "[project]\nname = \"p\"\n\n[data]\nraw = ENTRY\n"),
            ("[project]\nname = \"p\"", "[project]\nname = \"p\"\n\n[data]\nraw = ENTRY\n"),
            ("", "[data]\nraw = ENTRY\n"),
            ("[data] # all\n# none\n\n[steps.a]\n", "[data] # all\nraw = ENTRY\n# none\n\n[steps.a]\n"),
            (
                "[data]\n  b = { path = \"b\" } # b\n\n[steps.a]\n",
                "[data]\n  b = { path = \"b\" } # b\n  raw = ENTRY\n\n[steps.a]\n",
            ),
            ("[data.b]\npath = \"b\"\n", "[data.b]\npath = \"b\"\n\n[data]\nraw = ENTRY\n"),
            ("[data]\n[data.b]\npath = \"b\"\n", "[data]\nraw = ENTRY\n[data.b]\npath = \"b\"\n"),
            ("data.b = { path = \"b\" }\n[steps.a]\n", "data.b = { path = \"b\" }\ndata.raw = ENTRY\n[steps.a]\n"),
            ("data = { b.path = \"b\" }\n", "data = { b.path = \"b\", raw = ENTRY }\n"),
        ] {
            let (new, crlf) = (new.replace("ENTRY", entry), |text: &str| text.replace('\n', "\r\n"));
            assert_eq!(add_data(old, "raw", entry).unwrap(), new);
            assert_eq!(add_data(&new, "raw", "{ url = \"other\" }").unwrap(), new, "what is there is left alone");
            if old.contains('\n') {
                assert!(add_data(&crlf(old), "raw", entry).unwrap().starts_with(&crlf(&new)[..crlf(old).len().min(8)]));
                assert_eq!(add_data(&crlf(old), "raw", entry).unwrap(), crlf(&new));
            }
        }
    }

    #[test]
    fn what_can_not_be_changed() {
        assert!(matches!(add_inputs("[steps.b]\n", "a", &["x"]), Err(EditError::NoStep(_))));
        assert!(matches!(add_inputs("steps = 1\n", "a", &["x"]), Err(EditError::NoStep(_))));
        assert!(matches!(add_inputs("[steps.a]\ninputs = 1\n", "a", &["x"]), Err(EditError::Shape(_))));
        assert!(matches!(add_inputs("[steps.a.env]\nX = \"1\"\n", "a", &["x"]), Err(EditError::Shape(_))));
        assert!(matches!(add_inputs("[", "a", &["x"]), Err(EditError::Syntax(_))));
        assert!(matches!(add_data("data = 1\n", "a", "{}"), Err(EditError::Shape(_))));
        assert!(matches!(add_data("", "a", "1"), Err(EditError::Shape(_))));
        for hostile in ["{ }\n[steps.x]", "{", "{} }", "{}\nb = {}"] {
            assert!(matches!(add_data("", "a", hostile), Err(EditError::Syntax(_))), "{hostile}");
        }
    }

    /// Blanks and comments as they may stand between the elements of an array.
    fn gap() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => Just(String::new()), 3 => Just(" ".to_owned()), 3 => Just("\n    ".to_owned()), 1 => Just("\t".to_owned()),
            2 => " {0,2}# [a-z\"',\\]\\[#]{0,6}\n[ \t]{0,4}", 1 => Just("\n\n".to_owned()),
        ]
    }

    fn element() -> impl Strategy<Value = String> {
        prop_oneof![
            "\"[a-z/*#,\\]\\[]{1,5}\"",
            "'[a-z\"#,]{1,4}'",
            "\"\"\"[a-z\n#\\],]{1,4}\"\"\"",
            Just("\"new\"".to_owned()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn all_outside_the_array_stays(
            head in prop_oneof![Just(""), Just("# [steps.a]\n"), Just("[project]\nname = \"p\" # inputs = []\n\n")],
            step in prop_oneof![
                Just(("[steps.a]\nrun = \"x\"\ninputs = ", "")), Just(("[steps]\na.inputs = ", "")), Just(("[steps]\n'a' . inputs=", "")),
                Just(("[steps]\na = { run = 'x', inputs = ", ", outputs = [] }")), Just(("[ steps . a ]\n\tinputs =\t", "")),
            ],
            open in gap(),
            elements in proptest::collection::vec((element(), gap(), gap()), 0..5),
            trailing in any::<bool>(),
            behind in prop_oneof![Just(""), Just("\n"), Just(" # why\n"), Just("\n\n[steps.b]\ninputs = [\n]\n# end")],
            crlf in any::<bool>(),
            paths in proptest::collection::vec(prop_oneof![Just("new"), Just("other"), Just("a \"b\"\\\n"), Just("ä")], 0..4),
        ) {
            let mut text = format!("{head}{}[{open}", step.0);
            let count = elements.len();
            for (i, (element, before, after)) in elements.iter().enumerate() {
                let comma = if i + 1 < count || trailing { "," } else { "" };
                text.push_str(&format!("{element}{before}{comma}{after}"));
            }
            text.push_str(&format!("]{}{behind}", step.1));
            if crlf {
                text = text.replace('\n', "\r\n");
            }
            let Ok(old) = Document::parse(text.as_str()) else { return Err(TestCaseError::reject("no TOML")) };
            let edited = add_inputs(&text, "a", &paths).unwrap();
            let new = Document::parse(edited.as_str()).unwrap();
            let array = |document: &Document<&str>| document["steps"]["a"]["inputs"].as_array().unwrap().clone();
            let strings = |array: &Array| array.iter().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>();
            // The elements: those of before, then the new ones in their order, each once.
            let mut expected = strings(&array(&old));
            for path in &paths {
                if !expected.iter().any(|known| known == path) {
                    expected.push((*path).to_owned());
                }
            }
            prop_assert_eq!(strings(&array(&new)), expected);
            // All that was there is there still, in its order; outside the brackets nothing came.
            let (a, b) = (array(&old).span().unwrap(), array(&new).span().unwrap());
            prop_assert_eq!(&text[..a.start], &edited[..b.start]);
            prop_assert_eq!(&text[a.end..], &edited[b.end..]);
            let mut rest = edited[b].chars();
            prop_assert!(text[a].chars().all(|c| rest.any(|d| c == d)), "{}", edited);
            // Lines end as they did.
            let carriage = |text: &str| text.matches("\r\n").count();
            let expected = if carriage(&text) > 0 { edited.matches('\n').count() } else { 0 };
            prop_assert_eq!(carriage(&edited), expected);
            prop_assert_eq!(add_inputs(&edited, "a", &paths).unwrap(), edited);
        }
    }
}
