//! What a `[python]` asks for, read out of the files that it names: requirements files and pyproject.toml.
//!
//! Requirements are taken as they are written, comments and line ends aside. Options of a requirements file that name an
//! index are passed over, since addresses of indexes come from the environment and pip's configuration; what would bring in something
//! that is not a package of an index (a path, an address, an editable project) is an error with its place.

use crate::model::{Member, Python, PythonFrom};
use fs_err as fs;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};
use trainlock_types::{Diagnostic, Platform, PythonRequest, RelPath, SourceText, nearest, normalized_package};

/// What a member's `[python]` asks for. `root` is the workspace's folder.
///
/// # Errors
/// All mistakes in the files that it names, each with its place.
pub fn python_request(
    root: &Path,
    member: &Member,
    python: &Python,
    platforms: &[Platform],
) -> Result<PythonRequest, Vec<Diagnostic>> {
    let mut reader = Reader { root, python, request: None, problems: Vec::new(), open: BTreeSet::new() };
    let mut request = PythonRequest {
        member: (!member.dir.is_root()).then(|| member.name.clone()),
        dependencies: Vec::new(),
        constraints: Vec::new(),
        sdist: python.sdist.iter().map(|name| normalized_package(name)).collect(),
        platforms: platforms.to_vec(),
    };
    request.sdist.sort();
    request.sdist.dedup();
    reader.request = Some(request);
    match &python.from {
        PythonFrom::Dependencies(list) => {
            let trimmed = list.iter().map(|text| text.trim().to_owned());
            reader.request.iter_mut().for_each(|request| request.dependencies.extend(trimmed.clone()));
        }
        PythonFrom::Requirements(path) => reader.requirements(path, false, None),
        PythonFrom::Pyproject { path, groups, extras } => reader.pyproject(path, groups, extras),
    }
    match reader.request.take() {
        Some(request) if reader.problems.is_empty() => Ok(request),
        _ => Err(reader.problems),
    }
}

struct Reader<'a> {
    root: &'a Path,
    python: &'a Python,
    request: Option<PythonRequest>,
    problems: Vec<Diagnostic>,
    /// The files that are being read, so that none reads itself.
    open: BTreeSet<RelPath>,
}

impl Reader<'_> {
    fn problem(&mut self, source: &Arc<SourceText>, span: Range<usize>, message: impl Into<String>, help: &str) {
        self.problems.push(Diagnostic {
            source: Arc::clone(source),
            span,
            message: message.into(),
            label: String::new(),
            help: Some(help.to_owned()),
            related: Vec::new(),
        });
    }

    /// A file's text; a problem at the place that names it, if it can't be read.
    fn text(&mut self, path: &RelPath, named: Option<(&Arc<SourceText>, Range<usize>)>) -> Option<Arc<SourceText>> {
        let file = path.on(self.root);
        match fs::read_to_string(&file) {
            Ok(text) => Some(Arc::new(SourceText { path: file, text })),
            Err(error) => {
                let reason = match error.kind() {
                    std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
                    std::io::ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
                    _ => error.to_string(),
                };
                let own = (Arc::clone(&self.python.source), self.python.span.clone());
                let (source, span) = named.map_or(own, |(source, span)| (Arc::clone(source), span));
                self.problem(
                    &source,
                    span,
                    format!("can't read `{path}`: {reason}"),
                    "paths are relative to the file that names them",
                );
                None
            }
        }
    }

    /// A requirements file (of pip), or one of constraints.
    fn requirements(&mut self, path: &RelPath, constraint: bool, named: Option<(&Arc<SourceText>, Range<usize>)>) {
        let Some(source) = self.text(path, named) else { return };
        if !self.open.insert(path.clone()) {
            self.problem(&source, 0..0, format!("`{path}` reads itself"), "take one of the `-r` lines out");
            return;
        }
        for (span, line) in logical_lines(&source.text) {
            let (option, value) = match line.strip_prefix('-') {
                None => ("", line.as_str()),
                Some(_) => {
                    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
                    let (option, value) = line.split_at(end);
                    // `-rbase.txt` is `-r base.txt`.
                    match option.char_indices().nth(2) {
                        Some((at, _)) if !option.starts_with("--") => (&line[..at], line[at..].trim()),
                        _ => (option, value.trim_start_matches('=').trim()),
                    }
                }
            };
            let help = "name packages of the index; other code belongs into the project or behind a `[data]` entry";
            match option {
                "" if is_path_or_address(value) => {
                    self.problem(&source, span, format!("`{value}` is no package of an index"), help);
                }
                "" => {
                    let request = self.request.as_mut().expect("there until the end");
                    let list = if constraint { &mut request.constraints } else { &mut request.dependencies };
                    let text = value.split_whitespace().collect::<Vec<_>>().join(" ");
                    let text = text.replace("--hash ", "--hash=");
                    if !list.contains(&text) {
                        list.push(text);
                    }
                }
                "-r" | "--requirement" | "-c" | "--constraint" => {
                    let constraint = constraint || matches!(option, "-c" | "--constraint");
                    match path.parent().unwrap_or_else(RelPath::root).resolve(value) {
                        Ok(other) => self.requirements(&other, constraint, Some((&source, span))),
                        Err(error) => self.problem(&source, span, error.to_string(), "name a file of the workspace"),
                    }
                }
                "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links" | "--trusted-host"
                | "--no-index" | "--require-hashes" | "--only-binary" | "--prefer-binary" | "--no-binary" | "--pre"
                | "--use-feature" => {}
                _ => self.problem(&source, span, format!("`{option}` can't be locked"), help),
            }
        }
        self.open.remove(path);
    }

    /// The dependencies of a pyproject.toml: the project's own, those of groups and extras that are wanted, and
    /// the constraints of `[tool.uv]`.
    fn pyproject(&mut self, path: &RelPath, groups: &[String], extras: &[String]) {
        let Some(source) = self.text(path, None) else { return };
        let text = source.text.clone();
        let document = match DeTable::parse(&text) {
            Ok(document) => document,
            Err(error) => {
                let message = error.message().lines().next().unwrap_or("no TOML").to_owned();
                self.problem(&source, error.span().unwrap_or(0..0), message, "repair the file");
                return;
            }
        };
        let table = document.get_ref();
        let project = sub(table, "project");
        let mut found = project.map(|p| strings(p, "dependencies")).unwrap_or_default();
        let optional = project.and_then(|p| sub(p, "optional-dependencies"));
        for extra in extras {
            match optional.and_then(|t| t.iter().find(|(name, _)| same(name.get_ref(), extra))) {
                Some((_, value)) => found.extend(items(value.get_ref())),
                None => self.unknown("extra", extra, optional, path),
            }
        }
        let declared = sub(table, "dependency-groups");
        for group in groups {
            let mut seen = BTreeSet::new();
            self.group(&source, declared, group, path, &mut seen, &mut found);
        }
        let uv = sub(table, "tool").and_then(|t| sub(t, "uv"));
        if let Some(sources) = uv.and_then(|t| t.get_key_value("sources")) {
            let span = sources.0.span();
            self.problem(
                &source,
                span,
                "`[tool.uv.sources]` can't be locked",
                "packages come from the package index; name other code in [data]",
            );
        }
        let constraints = uv.map(|t| strings(t, "constraint-dependencies")).unwrap_or_default();
        let request = self.request.as_mut().expect("there until the end");
        request.dependencies = found.into_iter().map(|(text, _)| text).collect();
        request.constraints = constraints.into_iter().map(|(text, _)| text).collect();
    }

    /// The requirements of a dependency group (PEP 735), with those of the groups that it includes.
    fn group(
        &mut self,
        source: &Arc<SourceText>,
        declared: Option<&DeTable<'_>>,
        name: &str,
        path: &RelPath,
        seen: &mut BTreeSet<String>,
        found: &mut Vec<(String, Range<usize>)>,
    ) {
        let Some((key, value)) = declared.and_then(|t| t.iter().find(|(key, _)| same(key.get_ref(), name))) else {
            return self.unknown("dependency group", name, declared, path);
        };
        if !seen.insert(normalized_package(name)) {
            return self.problem(
                source,
                key.span(),
                format!("group `{name}` includes itself"),
                "take one `include-group` out",
            );
        }
        let DeValue::Array(list) = value.get_ref() else { return };
        for item in list.iter() {
            match item.get_ref() {
                DeValue::String(text) => found.push((text.to_string(), item.span())),
                DeValue::Table(table) => match table.get("include-group").and_then(|v| v.get_ref().as_str()) {
                    Some(other) => self.group(source, declared, other, path, seen, found),
                    None => {
                        self.problem(source, item.span(), "no `include-group`", "write `{ include-group = \"NAME\" }`")
                    }
                },
                _ => self.problem(source, item.span(), "no requirement", "write it as a string"),
            }
        }
    }

    fn unknown(&mut self, what: &str, name: &str, among: Option<&DeTable<'_>>, path: &RelPath) {
        let names: Vec<&str> = among.iter().flat_map(|t| t.keys()).map(|key| key.get_ref().as_ref()).collect();
        let near = nearest(name, names.iter().copied()).map(|n| format!(": did you mean `{n}`?")).unwrap_or_default();
        let (source, span) = (Arc::clone(&self.python.source), self.python.span.clone());
        let help = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        self.problem(&source, span, format!("`{path}` has no {what} `{name}`{near}"), &help);
    }
}

fn same(a: &str, b: &str) -> bool {
    normalized_package(a) == normalized_package(b)
}

fn sub<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<&'a DeTable<'i>> {
    match table.get(key)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn strings(table: &DeTable<'_>, key: &str) -> Vec<(String, Range<usize>)> {
    table.get(key).map(|value| items(value.get_ref())).unwrap_or_default()
}

fn items(value: &DeValue<'_>) -> Vec<(String, Range<usize>)> {
    let DeValue::Array(list) = value else { return Vec::new() };
    let item = |v: &toml::Spanned<DeValue<'_>>| Some((v.get_ref().as_str()?.to_owned(), v.span()));
    list.iter().filter_map(item).collect()
}

/// The lines of a requirements file: continued ones joined, comments and empty ones left out, each with its place.
fn logical_lines(text: &str) -> Vec<(Range<usize>, String)> {
    let mut lines = Vec::new();
    let (mut start, mut at, mut held) = (0, 0, String::new());
    for line in text.split_inclusive('\n') {
        let whole = line.trim_end_matches(['\n', '\r']);
        if held.is_empty() {
            start = at;
        }
        let continued = whole.strip_suffix('\\');
        held.push_str(continued.unwrap_or(whole));
        at += line.len();
        if continued.is_some() {
            held.push(' ');
            continue;
        }
        let comment = if held.starts_with('#') { Some(0) } else { held.find(" #").or_else(|| held.find("\t#")) };
        let content = held[..comment.unwrap_or(held.len())].trim();
        if !content.is_empty() {
            let end = at.min(text.len());
            let end = start + text[start..end].trim_end().len();
            lines.push((start..end, content.to_owned()));
        }
        held.clear();
    }
    lines
}

/// Whether a line asks for something that does not come from an index.
fn is_path_or_address(text: &str) -> bool {
    let name_end =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']').map_or("", |(_, rest)| rest.trim_start()),
        None => rest,
    };
    name.is_empty() || name.starts_with('.') || rest.starts_with(['/', ':', '@', '+']) || name.ends_with(".whl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_requirements_file() {
        let text = "# head\nnumpy>=2  # why\n\nscipy==1.0 \\\n  --hash=sha256:ab \\\n  --hash=sha256:cd\r\n-r base.txt";
        let lines: Vec<String> = logical_lines(text).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "numpy>=2");
        assert!(lines[1].starts_with("scipy==1.0") && lines[1].ends_with("sha256:cd"));
        let (span, _) = &logical_lines(text)[1];
        assert!(text[span.clone()].starts_with("scipy") && text[span.clone()].ends_with("cd"));
    }

    #[test]
    fn what_comes_from_an_index() {
        for good in ["numpy", "a-b[x,y]>=2; sys_platform == 'linux'", "torch==2.9.*"] {
            assert!(!is_path_or_address(good), "{good}");
        }
        for bad in
            ["./here", "../x", "git+https://x.org/a", "x @ https://x.org/a.whl", "a.whl", "dir/x", "x[y] @ file:///a"]
        {
            assert!(is_path_or_address(bad), "{bad}");
        }
    }
}
