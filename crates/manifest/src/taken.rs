//! Locks of other tools that are taken over: `uv.lock` and `pylock.toml` (PEP 751).
//!
//! Of each package one line is made that changes with all that the file says of it but addresses, so that two files can be
//! compared package by package. What is no file of a package index is refused at its place.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use toml::de::{DeTable, DeValue};
use trainlock_types::{Digest, TakenKind, nearest, normalized_package};

/// A mistake, or what can't be taken over: its place, what it is, and what to do.
pub(crate) type Flaw = (Range<usize>, String, String);

/// One line a package, `<package> <version> <sha256 of all of it but addresses>`, sorted.
pub(crate) fn entries(kind: TakenKind, text: &str, wanted: &[(&str, &[String])]) -> Result<Vec<String>, Vec<Flaw>> {
    let document = DeTable::parse(text).map_err(|error| {
        let message = error.message().lines().next().unwrap_or("no TOML").to_owned();
        vec![(error.span().unwrap_or(0..0), message, "repair the file, or make it anew".to_owned())]
    })?;
    let table = document.get_ref();
    let (key, version, known) = match kind {
        TakenKind::Uv => ("version", table.get("version").and_then(|v| v.get_ref().as_integer()?.as_str().into()), "1"),
        TakenKind::Pylock => ("lock-version", table.get("lock-version").and_then(|v| v.get_ref().as_str()), "1.0"),
    };
    if version.is_none_or(|version| version.split('.').next() != Some("1")) {
        let found = version.map_or("none".to_owned(), |v| format!("`{v}`"));
        let place = table.get(key).map_or(0..0, |value| value.span());
        let message = format!("its `{key}` is {found}, and this trainlock reads {known}");
        return Err(vec![(place, message, "make it with another version of the tool that wrote it".to_owned())]);
    }
    let mut flaws = Vec::new();
    let mut lines = Vec::new();
    let mut own = None;
    let list = table.get(if kind == TakenKind::Uv { "package" } else { "packages" });
    for package in list.and_then(|v| v.get_ref().as_array()).into_iter().flat_map(|list| list.iter()) {
        let Some(fields) = package.get_ref().as_table() else { continue };
        let text = |key: &str| fields.get(key).and_then(|v| v.get_ref().as_str());
        let name = text("name").unwrap_or_default();
        if let Some(flaw) = foreign(kind, name, fields) {
            flaws.push(flaw);
            continue;
        }
        if kind == TakenKind::Uv && is_own(fields) {
            own = Some(fields);
        }
        let mut whole = String::new();
        canonical(&mut whole, package.get_ref());
        let (name, version) = (normalized_package(name), text("version").unwrap_or("-"));
        lines.push(format!("{name} {version} {}", Digest::of(whole.as_bytes()).to_hex()));
    }
    match (kind, own) {
        (TakenKind::Uv, None) if flaws.is_empty() => flaws.push((
            0..0,
            "it holds no project of its own".to_owned(),
            "it is the lock of a folder with a pyproject.toml: `uv lock` makes it".to_owned(),
        )),
        (TakenKind::Uv, Some(own)) => {
            for (what, names) in wanted {
                flaws.extend(names.iter().filter_map(|name| missing(own, what, name)));
            }
        }
        _ => {}
    }
    lines.sort();
    if flaws.is_empty() { Ok(lines) } else { Err(flaws) }
}

/// Whether an entry of a uv.lock is the project itself.
fn is_own(fields: &DeTable<'_>) -> bool {
    let source = fields.get("source").and_then(|v| v.get_ref().as_table());
    let of = |key: &str| source.and_then(|s| s.get(key)).and_then(|v| v.get_ref().as_str());
    of("virtual").or_else(|| of("editable")) == Some(".")
}

/// A package that is not a file of an index.
fn foreign(kind: TakenKind, name: &str, fields: &DeTable<'_>) -> Option<Flaw> {
    let help = "only packages of a package index can be taken over; other code belongs into the project or behind a `[data]` entry";
    let flaw =
        |place: Range<usize>, from: &str| Some((place, format!("package `{name}` comes from {from}"), help.to_owned()));
    if kind == TakenKind::Uv {
        let source = fields.get("source")?.get_ref().as_table()?;
        let (key, _) = source.iter().next()?;
        return match key.get_ref().as_ref() {
            "registry" => None,
            _ if is_own(fields) => None,
            "git" => flaw(key.span(), "git"),
            "url" => flaw(key.span(), "a URL"),
            _ => flaw(key.span(), "a path"),
        };
    }
    for (key, from) in [("vcs", "version control"), ("directory", "a folder"), ("archive", "a URL or path")] {
        if let Some((key, _)) = fields.get_key_value(key) {
            return flaw(key.span(), from);
        }
    }
    let marker = fields.get("marker").filter(|v| {
        v.get_ref().as_str().is_some_and(|text| text.contains("extras") || text.contains("dependency_groups"))
    })?;
    let message = format!("package `{name}` is there for some extras or groups only");
    Some((marker.span(), message, "export the file for the one choice that is wanted".to_owned()))
}

/// A group or extra that the project of a uv.lock does not have.
fn missing(own: &DeTable<'_>, what: &str, name: &str) -> Option<Flaw> {
    let key = if what == "extra" { "optional-dependencies" } else { "dev-dependencies" };
    let (place, names): (_, Vec<&str>) = match own.get_key_value(key) {
        Some((key, table)) => {
            let table = table.get_ref().as_table();
            (key.span(), table.into_iter().flat_map(|t| t.keys()).map(|k| k.get_ref().as_ref()).collect())
        }
        None => (own.get("name").map_or(0..0, |v| v.span()), Vec::new()),
    };
    if names.iter().any(|known| normalized_package(known) == normalized_package(name)) {
        return None;
    }
    let near = nearest(name, names.iter().copied()).map(|n| format!(": did you mean `{n}`?")).unwrap_or_default();
    let help = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
    Some((place, format!("there is no {what} `{name}`{near}"), help))
}

/// A value in one form for all that mean the same, without the addresses of indexes and files.
fn canonical(out: &mut String, value: &DeValue<'_>) {
    match value {
        DeValue::Table(table) => {
            let sorted: BTreeMap<&str, &DeValue<'_>> =
                table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref())).collect();
            out.push('{');
            for (key, value) in sorted {
                // When a file was uploaded is no part of it, and not every index says it.
                if matches!(key, "registry" | "index" | "upload-time" | "upload_time") {
                    continue;
                }
                let _ = write!(out, "{key:?}=");
                match value.as_str().filter(|_| matches!(key, "url" | "path")) {
                    Some(address) => {
                        let name = address.split(['?', '#']).next().and_then(|a| a.rsplit('/').next());
                        let _ = write!(out, "{:?},", name.unwrap_or_default());
                    }
                    None => canonical(out, value),
                }
            }
            out.push_str("},");
        }
        DeValue::Array(items) => {
            out.push('[');
            items.iter().for_each(|item| canonical(out, item.get_ref()));
            out.push_str("],");
        }
        DeValue::String(text) => drop(write!(out, "{text:?},")),
        DeValue::Integer(number) => drop(write!(out, "{number},")),
        DeValue::Float(number) => drop(write!(out, "{number},")),
        DeValue::Boolean(is) => drop(write!(out, "{is},")),
        DeValue::Datetime(time) => drop(write!(out, "{time},")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(source: &str, registry: &str, hash: &str) -> String {
        format!(
            r#"version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "Demo"
version = "0.1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "six" }}]

[package.dev-dependencies]
train = [{{ name = "six" }}]

[[package]]
name = "six"
version = "1.0"
source = {source}
wheels = [{{ url = "{registry}/six-1.0-py3-none-any.whl", hash = "sha256:{hash}", size = 3, upload-time = "2026-01-01" }}]
"#
        )
    }

    #[test]
    fn what_changes_and_what_does_not() {
        let of = |registry: &str, hash: &str| {
            let source = format!("{{ registry = {registry:?} }}");
            entries(TakenKind::Uv, &lock(&source, registry, hash), &[]).unwrap()
        };
        let (a, b) = (of("https://a.org/simple", "ab"), of("https://me:pw@b.org/x", "ab"));
        assert_eq!(a, b);
        assert!(a[0].starts_with("demo 0.1.0 ") && a[1].starts_with("six 1.0 "), "{a:?}");
        let changed = of("https://a.org/simple", "cd");
        assert!(changed[0] == a[0] && changed[1] != a[1]);
    }

    #[test]
    fn what_is_refused() {
        let refused = |text: &str, wanted: &[(&str, &[String])]| entries(TakenKind::Uv, text, wanted).unwrap_err();
        for (source, from) in [
            ("{ git = \"https://x.org/six?rev=1#abc\" }", "git"),
            ("{ url = \"https://x.org/six-1.0.whl\" }", "a URL"),
            ("{ path = \"six-1.0.whl\" }", "a path"),
            ("{ editable = \"packages/six\" }", "a path"),
        ] {
            let text = lock(source, "https://a.org", "ab");
            let flaws = refused(&text, &[]);
            assert_eq!(flaws[0].1, format!("package `six` comes from {from}"));
            assert!(text[flaws[0].0.start - 2..].starts_with("{ "), "{flaws:?}");
        }
        let text = lock("{ registry = \"https://a.org\" }", "https://a.org", "ab");
        let group = ["trian".to_owned()];
        assert!(refused(&text, &[("dependency group", &group)])[0].1.contains("did you mean `train`"));
        assert!(refused(&text, &[("extra", &group)])[0].2.contains("it has none"));
        assert!(refused("version = 2", &[])[0].1.contains("`2`"));
        let pylock = |line: &str| {
            entries(TakenKind::Pylock, &format!("lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\n{line}"), &[])
        };
        assert!(pylock("vcs = { type = \"git\" }").unwrap_err()[0].1.contains("version control"));
        assert!(pylock("marker = \"'x' in extras\"").unwrap_err()[0].1.contains("extras"));
        assert!(pylock("version = \"1\"\nindex = \"https://a.org\"").unwrap()[0].starts_with("a 1 "));
    }
}
