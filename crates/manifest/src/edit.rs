//! Changes to train.toml that keep the user's comments and layout.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

/// Why a manifest could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("train.toml is no TOML")]
    Syntax(#[from] toml_edit::TomlError),
    /// It has no such step.
    #[error("train.toml has no step `{0}`")]
    NoStep(String),
    /// Something has another shape than it must have.
    #[error("`{0}` in train.toml is not in a form that can be added to")]
    Shape(String),
}

/// Adds paths to a step's `inputs`; those that stand there already are left alone. An array with a line an element
/// keeps that form.
pub fn add_inputs(text: &str, step: &str, paths: &[&str]) -> Result<String, EditError> {
    let mut document: DocumentMut = text.parse()?;
    let steps = document.get_mut("steps").and_then(Item::as_table_like_mut);
    let table = steps.and_then(|steps| steps.get_mut(step)).and_then(Item::as_table_like_mut);
    let table = table.ok_or_else(|| EditError::NoStep(step.to_owned()))?;
    if table.get("inputs").is_none() {
        table.insert("inputs", Item::Value(Value::Array(Array::new())));
    }
    let inputs = table.get_mut("inputs").and_then(Item::as_array_mut);
    let inputs = inputs.ok_or_else(|| EditError::Shape(format!("steps.{step}.inputs")))?;
    for path in paths {
        if !inputs.iter().any(|known| known.as_str() == Some(*path)) {
            push(inputs, path);
        }
    }
    Ok(document.to_string())
}

/// An element behind the others, laid out as the last one is; a comment behind that one stays behind it.
fn push(array: &mut Array, text: &str) {
    let like = array.iter().last().and_then(|last| last.decor().prefix()?.as_str()).map(str::to_owned);
    // Behind the last element stands its suffix, or, if a comma follows, what trails the array.
    let mut behind = String::new();
    if let Some(last) = array.iter_mut().last() {
        behind.push_str(last.decor().suffix().and_then(|s| s.as_str()).unwrap_or_default());
        last.decor_mut().set_suffix("");
    }
    behind.push_str(array.trailing().as_str().unwrap_or_default());
    let comment = behind.trim_end().to_owned();
    let mut value = Value::from(text);
    match like {
        Some(prefix) if prefix.contains('\n') => {
            let indent = prefix.rsplit_once('\n').map_or("", |(_, indent)| indent);
            value.decor_mut().set_prefix(format!("{comment}\n{indent}"));
            array.set_trailing("\n");
            array.set_trailing_comma(true);
        }
        Some(_) => value.decor_mut().set_prefix(" "),
        None => value.decor_mut().set_prefix(""),
    }
    array.push_formatted(value);
}

/// Adds a data set; `entry` is its value, an inline table. One of this name that stands there already is left alone.
pub fn add_data(text: &str, name: &str, entry: &str) -> Result<String, EditError> {
    let mut document: DocumentMut = text.parse()?;
    let value: Value = entry.parse()?;
    if document.get("data").is_none() {
        document.insert("data", Item::Table(Table::new()));
    }
    let data: Option<&mut dyn TableLike> = document.get_mut("data").and_then(Item::as_table_like_mut);
    let data = data.ok_or_else(|| EditError::Shape("data".to_owned()))?;
    if data.get(name).is_none() {
        data.insert(name, Item::Value(value));
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_added_and_all_else_stays() {
        let text = "# head\n[steps.a] # a\nrun = \"x\"   # why\ninputs = [\"one\"]\n\n[steps.b]\nrun='y'\n";
        let added = add_inputs(text, "a", &["two", "one"]).unwrap();
        assert_eq!(added, text.replace("[\"one\"]", "[\"one\", \"two\"]"));
        assert_eq!(add_inputs(&added, "a", &["two"]).unwrap(), added, "once is enough");
        let added = add_inputs(text, "b", &["src/*.py"]).unwrap();
        assert_eq!(added, format!("{text}inputs = [\"src/*.py\"]\n"));
    }

    #[test]
    fn a_line_an_element_stays_so() {
        let text = "[steps]\na = { run = \"x\" }\n[steps.b]\ninputs = [\n    \"one\", # first\n    \"two\",\n]\noutputs = []\n";
        let added = add_inputs(text, "b", &["three"]).unwrap();
        assert_eq!(added, text.replace("    \"two\",\n", "    \"two\",\n    \"three\",\n"));
        let added = add_inputs(text, "a", &["one"]).unwrap();
        assert!(
            added.contains("a = { run = \"x\" , inputs = [\"one\"] }") || added.contains("inputs = [\"one\"]"),
            "{added}"
        );
        assert!(added.parse::<toml::Table>().is_ok());
    }

    #[test]
    fn data_sets_and_what_can_not_be_changed() {
        let text = "[project]\nname = \"p\"\n";
        let added = add_data(text, "raw", "{ url = \"https://example.org/a.csv\" }").unwrap();
        let table: toml::Table = added.parse().unwrap();
        assert_eq!(table["data"]["raw"]["url"].as_str(), Some("https://example.org/a.csv"));
        assert!(added.starts_with(text));
        assert_eq!(add_data(&added, "raw", "{ url = \"x\" }").unwrap(), added);
        assert!(matches!(add_inputs(text, "a", &["x"]), Err(EditError::NoStep(_))));
        assert!(matches!(add_inputs("[steps.a]\ninputs = 1\n", "a", &["x"]), Err(EditError::Shape(_))));
        assert!(matches!(add_inputs("[", "a", &["x"]), Err(EditError::Syntax(_))));
    }
}
