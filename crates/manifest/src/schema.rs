//! The table of keys as a JSON schema and as a page of the reference.

use crate::keys::ROOT;
use crate::shape::{Key, Shape};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The JSON schema (draft 2020-12) of train.toml: keys, kinds of values and their descriptions, for editors. What
/// depends on other keys or other files, [`crate::load`] alone knows.
pub fn schema() -> Value {
    let mut schema = object(&[ROOT]);
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("train.toml"));
    Value::Object(schema)
}

fn object(groups: &[&'static [Key]]) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in groups.iter().flat_map(|group| group.iter()) {
        let mut schema = of(&key.shape);
        schema.insert("description".into(), json!(description(key)));
        if let Some(example) = example(key) {
            schema.insert("examples".into(), json!([example]));
        }
        properties.insert(key.name.into(), Value::Object(schema));
        if key.required {
            required.push(key.name);
        }
    }
    let mut object = Map::new();
    object.insert("type".into(), json!("object"));
    object.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".into(), json!(required));
    }
    object.insert("additionalProperties".into(), json!(false));
    object
}

fn of(shape: &Shape) -> Map<String, Value> {
    let schema = match shape {
        Shape::Text(form) if form.pattern.is_empty() => json!({ "type": "string" }),
        Shape::Text(form) => json!({ "type": "string", "pattern": form.pattern }),
        Shape::Word(words) => json!({ "type": "string", "enum": words }),
        Shape::Int(min, i64::MAX) => json!({ "type": "integer", "minimum": min }),
        Shape::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::True => json!({ "const": true }),
        Shape::List(item) => json!({ "type": "array", "items": of(item) }),
        Shape::Table(groups) => return object(groups),
        Shape::Map(_, item) => json!({ "type": "object", "additionalProperties": of(item) }),
        Shape::Either(a, b) => json!({ "anyOf": [of(a), of(b)] }),
        Shape::Any => json!({ "type": "object" }),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn description(key: &Key) -> String {
    match key.default {
        "" => key.doc.to_owned(),
        default => format!("{} Default: {default}.", key.doc),
    }
}

/// The value of a key's example, where the example is `KEY = VALUE` of this very key.
fn example(key: &Key) -> Option<Value> {
    let table: toml::Table = key.example.parse().ok()?;
    let value = table.get(key.name).filter(|v| !v.as_table().is_some_and(toml::Table::is_empty))?;
    serde_json::to_value(value).ok()
}

/// The reference of train.toml as a page of Markdown: every key, its kind of value, its default and its meaning.
pub fn reference() -> String {
    let mut page = Page { text: String::new(), told: Vec::new() };
    page.text.push_str("# train.toml\n\nEvery key that train.toml may have. An unknown key is an error. Paths are relative to the manifest's folder, with `/` between folders.\n");
    for key in ROOT {
        page.section(key.name, key);
    }
    page.text
}

struct Page {
    text: String,
    /// The groups of keys that have a section already, each with its name.
    told: Vec<(&'static [Key], String)>,
}

impl Page {
    /// The sections of a key and of the tables inside it.
    fn section(&mut self, path: &str, key: &'static Key) {
        match table_of(&key.shape) {
            Some((name, groups)) => {
                let path = name.map_or_else(|| path.to_owned(), |name| format!("{path}.{name}"));
                let _ = write!(self.text, "\n## `[{path}]`\n\n{}\n", key.doc);
                self.keys(&path, groups);
            }
            // A table of the user's own names is described where its key is; those of the root have no other place.
            None if !path.contains('.') => {
                let _ =
                    write!(self.text, "\n## `[{path}]`\n\n{}\n\n```toml\n[{path}]\n{}\n```\n", key.doc, key.example);
            }
            None => {}
        }
    }

    fn keys(&mut self, path: &str, groups: &'static [&'static [Key]]) {
        let mut own: Vec<&'static Key> = Vec::new();
        for group in groups {
            match self.told.iter().find(|(told, _)| std::ptr::eq(*told, *group)) {
                Some((_, name)) if group.len() > 1 => {
                    let _ = write!(self.text, "\nThe keys are those of `[{name}]`, but for `workspace`.\n");
                }
                _ => {
                    self.told.push((group, path.to_owned()));
                    own.extend(group.iter());
                }
            }
        }
        if own.is_empty() {
            return;
        }
        self.text.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in &own {
            let default = match (key.required, key.default) {
                (true, _) => "required",
                (_, "") => "none",
                (_, default) => default,
            };
            let example = if key.example.is_empty() || key.example.starts_with('[') {
                String::new()
            } else {
                format!(" For example `{}`.", key.example)
            };
            let row =
                [format!("`{}`", key.name), key.shape.what(), default.to_owned(), format!("{}{example}", key.doc)];
            let _ = writeln!(self.text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        for key in own {
            self.section(&format!("{path}.{}", key.name), key);
        }
    }
}

/// The keys of a table, or of each table in a table of the user's names (then with what stands for such a name).
fn table_of(shape: &Shape) -> Option<(Option<&'static str>, &'static [&'static [Key]])> {
    match *shape {
        Shape::Table(groups) => Some((None, groups)),
        Shape::Map(name, item) => table_of(item).map(|(_, groups)| (Some(name), groups)),
        Shape::Either(a, b) => table_of(a).or_else(|| table_of(b)),
        _ => None,
    }
}
