//! Hyperparameters: TOML values, written one way only.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Hyperparameters as leaves: the dotted name (`optimizer.lr`) and the value, which is never a table.
pub type Params = BTreeMap<String, Value>;

/// A TOML value. Floats are finite (a manifest with `nan` or `inf` in `[params]` is refused).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number with a fraction or an exponent.
    Float(f64),
    /// A text.
    String(String),
    /// A date or time, as TOML writes it.
    Datetime(String),
    /// A list.
    Array(Vec<Value>),
    /// A table inside a list.
    Table(BTreeMap<String, Value>),
}

impl Value {
    /// The kind in words, with its article: "an integer".
    pub const fn kind(&self) -> &'static str {
        match self {
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::String(_) => "a string",
            Value::Datetime(_) => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The value as a step's command line gets it: strings without quotes, the rest as JSON.
    pub fn to_argument(&self) -> String {
        match self {
            Value::String(text) | Value::Datetime(text) => text.clone(),
            other => other.to_json(),
        }
    }

    /// The value as JSON, on one line, object keys sorted; dates as strings.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    /// Writes the value, as JSON or as TOML.
    fn write(&self, out: &mut String, json: bool) {
        match self {
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(i) => out.push_str(&i.to_string()),
            Value::Float(f) => out.push_str(&format!("{f:?}")),
            Value::String(text) => write_string(out, text),
            Value::Datetime(text) if json => write_string(out, text),
            Value::Datetime(text) => out.push_str(text),
            Value::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    value.write(out, json);
                }
                out.push(']');
            }
            Value::Table(table) => {
                out.push_str(if json { "{" } else { "{ " });
                for (i, (key, value)) in table.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    write_string(out, key);
                    out.push_str(if json { ": " } else { " = " });
                    value.write(out, json);
                }
                out.push_str(if json { "}" } else { " }" });
            }
        }
    }
}

/// As TOML, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out, false);
        f.write_str(&out)
    }
}

/// A basic string of TOML that is a JSON string too.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A text as a TOML basic string (a JSON string too), with its quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_toml_json_and_argument() {
        let table = Value::Table(BTreeMap::from([("b".into(), Value::Bool(true)), ("a".into(), Value::Float(3e-4))]));
        let value = Value::Array(vec![
            Value::Int(-1),
            Value::String("a \"b\"\n".into()),
            Value::Datetime("2026-11-22".into()),
            table,
        ]);
        assert_eq!(value.to_string(), r#"[-1, "a \"b\"\n", 2026-11-22, { "a" = 0.0003, "b" = true }]"#);
        assert_eq!(value.to_json(), r#"[-1, "a \"b\"\n", "2026-11-22", {"a": 0.0003, "b": true}]"#);
        assert_eq!(Value::String("x y".into()).to_argument(), "x y");
        assert_eq!(Value::Float(1.0).to_argument(), "1.0");
        assert_eq!(Value::Float(1e300).to_json(), "1e300");
    }
}
