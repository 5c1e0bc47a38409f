//! What a `[python]` asks for, read out of the files that it names: requirements files, pyproject.toml, locks of other tools.
//!
//! Requirements are taken as they are written, comments and line ends aside. Options of a requirements file that name an
//! index are passed over, since addresses of indexes come from the environment and pip's configuration; what would bring in something
//! that is not a package of an index (a path, an address, an editable project) is an error with its place.

use crate::model::{Member, Python, PythonFrom, Requirement};
use fs_err as fs;
use pep508_rs::{Requirement as Pep508, VerbatimUrl};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};
use trainlock_types::{
    Diagnostic, Name, Platform, PythonRequest, RelPath, SourceText, TakenKind, TakenLock, nearest, normalized_package,
    requirement_name,
};

/// What a member's packages are asked for with, and where it stands.
#[derive(Debug, Clone)]
pub struct PythonAsked {
    /// What is asked for.
    pub request: PythonRequest,
    /// Where each requirement and constraint stands, with the normalized name of its package.
    pub places: Vec<(String, Requirement)>,
}

/// What a member's `[python]` asks for, or that of one of its profiles. `root` is the workspace's folder.
///
/// # Errors
/// All mistakes in the files that it names, each with its place.
pub fn python_request(
    root: &Path,
    member: &Member,
    profile: Option<&Name>,
    python: &Python,
    platforms: &[Platform],
) -> Result<PythonAsked, Vec<Diagnostic>> {
    let mut reader = Reader {
        root,
        python,
        taken: None,
        dependencies: Vec::new(),
        constraints: Vec::new(),
        index: python.index.clone(),
        hashes: None,
        problems: Vec::new(),
        open: BTreeSet::new(),
    };
    match &python.from {
        PythonFrom::Dependencies(list) => {
            let list = list.iter().map(|r| (r.text.clone(), r.span.clone(), Arc::clone(&r.source)));
            list.collect::<Vec<_>>()
                .into_iter()
                .for_each(|(text, span, source)| reader.wants(text, span, &source, false));
        }
        PythonFrom::Requirements(path) => reader.requirements(path, false, None),
        PythonFrom::Pyproject { path, groups, extras } => reader.pyproject(path, groups, extras),
        PythonFrom::Lock { kind, path, groups, extras } => reader.lock(*kind, path, groups, extras),
    }
    let over: BTreeSet<String> = python.over.iter().map(|r| requirement_name(&r.text)).collect();
    reader.dependencies.retain(|(name, _)| !over.contains(name));
    for Requirement { text, span, source } in &python.over {
        reader.wants(text.clone(), span.clone(), source, false);
    }
    reader.check_hashes();
    let Reader { taken, dependencies, constraints, index, problems, .. } = reader;
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut sdist: Vec<String> = python.sdist.iter().map(|name| normalized_package(name)).collect();
    sdist.sort();
    sdist.dedup();
    let texts = |list: &[(String, Requirement)]| list.iter().map(|(_, r)| r.text.clone()).collect();
    let request = PythonRequest {
        member: (!member.dir.is_root()).then(|| member.name.clone()),
        profile: profile.cloned(),
        taken,
        dependencies: texts(&dependencies),
        constraints: texts(&constraints),
        index: index.iter().map(|(package, index)| format!("{package} {index}")).collect(),
        sdist,
        platforms: platforms.to_vec(),
    };
    Ok(PythonAsked { request, places: dependencies.into_iter().chain(constraints).collect() })
}

/// What to do about a package that is none of an index.
const NO_INDEX: &str = "name packages of the index; other code belongs into the project or behind a `[data]` entry";

struct Reader<'a> {
    root: &'a Path,
    python: &'a Python,
    taken: Option<TakenLock>,
    /// Requirements, each with its package.
    dependencies: Vec<(String, Requirement)>,
    constraints: Vec<(String, Requirement)>,
    index: BTreeMap<String, String>,
    /// Where the first requirement with a hash stands, or what asks for hashes.
    hashes: Option<(Arc<SourceText>, Range<usize>)>,
    problems: Vec<Diagnostic>,
    /// The files that are being read, so that none reads itself.
    open: BTreeSet<RelPath>,
}

impl Reader<'_> {
    /// A requirement, or a constraint.
    fn wants(&mut self, text: String, span: Range<usize>, source: &Arc<SourceText>, constraint: bool) {
        if is_path_or_address(&text) {
            return self.problem(source, span, format!("`{text}` is no package of an index"), NO_INDEX);
        }
        let bare = text.split(" --hash=").next().unwrap_or_default();
        if let Err(error) = Pep508::<VerbatimUrl>::from_str(bare) {
            let message = format!("bad requirement `{bare}`: {}", error.message);
            return self.problem(source, span, message, "for example `numpy>=2` or `scipy; sys_platform == \"linux\"`");
        }
        if text.contains(" --hash=") {
            self.hashes.get_or_insert((Arc::clone(source), span.clone()));
        }
        let list = if constraint { &mut self.constraints } else { &mut self.dependencies };
        if !list.iter().any(|(_, known)| known.text == text) {
            list.push((requirement_name(&text), Requirement { text, span, source: Arc::clone(source) }));
        }
    }

    /// Hashes of some requirements alone would promise what they do not hold (as pip sees it).
    fn check_hashes(&mut self) {
        let Some((source, span)) = self.hashes.clone() else { return };
        let bare: Vec<Requirement> =
            self.dependencies.iter().map(|(_, r)| r).filter(|r| !r.text.contains(" --hash=")).cloned().collect();
        for requirement in bare {
            let message = format!("`{}` has no hash, and others have", requirement.text);
            self.problem(&requirement.source, requirement.span, message, "give each requirement its hashes, or none");
            if let Some(problem) = self.problems.last_mut().filter(|_| Arc::ptr_eq(&source, &requirement.source)) {
                problem.related.push((span.clone(), "hashes are wanted here".to_owned()));
            }
        }
    }

    /// A lock of another tool.
    fn lock(&mut self, kind: TakenKind, path: &RelPath, groups: &[String], extras: &[String]) {
        let Some(source) = self.text(path, None) else { return };
        match crate::taken::entries(kind, &source.text, &[("dependency group", groups), ("extra", extras)]) {
            Ok(entries) => {
                let (file, groups, extras) = (path.clone(), groups.to_vec(), extras.to_vec());
                self.taken = Some(TakenLock { kind, file, groups, extras, entries });
            }
            Err(flaws) => {
                for (span, message, help) in flaws {
                    self.problem(&source, span, message, &help);
                }
            }
        }
    }

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
            match option {
                "" => {
                    let text = value.split_whitespace().collect::<Vec<_>>().join(" ");
                    self.wants(text.replace("--hash ", "--hash="), span, &source, constraint);
                }
                "-r" | "--requirement" | "-c" | "--constraint" => {
                    let constraint = constraint || matches!(option, "-c" | "--constraint");
                    match path.parent().unwrap_or_else(RelPath::root).resolve(value) {
                        Ok(other) => self.requirements(&other, constraint, Some((&source, span))),
                        Err(error) => self.problem(&source, span, error.to_string(), "name a file of the workspace"),
                    }
                }
                "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links" | "--trusted-host"
                | "--no-index" | "--only-binary" | "--prefer-binary" | "--use-feature" => {}
                "--require-hashes" => drop(self.hashes.get_or_insert((Arc::clone(&source), span))),
                "--pre" => self.problem(
                    &source,
                    span,
                    "`--pre` can't be locked",
                    "allow the pre-releases of a package by naming one: `NAME>=2.0rc1`",
                ),
                "--no-binary" => self.problem(
                    &source,
                    span,
                    "`--no-binary` can't be locked",
                    "wheels go before source distributions; `sdist = [\"NAME\"]` in [python] allows to build what has no wheel",
                ),
                _ => self.problem(&source, span, format!("`{option}` can't be locked"), NO_INDEX),
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
        let own = project.and_then(|p| p.get("name")?.get_ref().as_str()).map(normalized_package);
        let mut seen = BTreeSet::new();
        for extra in extras {
            self.extra(optional, extra, path, &mut seen, &mut found);
        }
        let declared = sub(table, "dependency-groups");
        for group in groups {
            let mut seen = BTreeSet::new();
            self.group(&source, declared, group, path, &mut seen, &mut found);
        }
        let uv = sub(table, "tool").and_then(|t| sub(t, "uv"));
        for (key, value) in uv.and_then(|t| sub(t, "sources")).into_iter().flat_map(|sources| sources.iter()) {
            // `{ index = "NAME" }`, and nothing besides.
            let index = value.get_ref().as_table().filter(|t| t.len() == 1).and_then(|t| t.get("index"));
            match index.and_then(|name| name.get_ref().as_str()) {
                Some(name) => {
                    self.index.entry(normalized_package(key.get_ref())).or_insert_with(|| name.to_owned());
                }
                None => self.problem(
                    &source,
                    key.span(),
                    format!("the source of `{}` can't be locked", key.get_ref()),
                    "packages come from a package index, for all platforms the same: `{ index = \"NAME\" }`; name other code in [data]",
                ),
            }
        }
        for key in ["override-dependencies", "exclude-dependencies", "prerelease", "resolution", "exclude-newer"] {
            if let Some((key, _)) = uv.and_then(|t| t.get_key_value(key)) {
                let message = format!("`{}` of [tool.uv] can't be followed", key.get_ref());
                let help = "leave it out, or take over what uv itself has locked: `uv-lock = \"uv.lock\"` in [python]";
                self.problem(&source, key.span(), message, help);
            }
        }
        // A project may ask for its own extras.
        let mut at = 0;
        while at < found.len() {
            let (text, span) = found[at].clone();
            let name = requirement_name(&text);
            if own.as_deref() != Some(name.as_str()) {
                self.wants(text, span, &source, false);
            } else if let Some((names, _)) = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
                for extra in names.split(',') {
                    self.extra(optional, extra.trim(), path, &mut seen, &mut found);
                }
            }
            at += 1;
        }
        for (text, span) in uv.map(|t| strings(t, "constraint-dependencies")).unwrap_or_default() {
            self.wants(text, span, &source, true);
        }
    }

    /// The requirements of an extra, once.
    fn extra(
        &mut self,
        optional: Option<&DeTable<'_>>,
        extra: &str,
        path: &RelPath,
        seen: &mut BTreeSet<String>,
        found: &mut Vec<(String, Range<usize>)>,
    ) {
        if !seen.insert(normalized_package(extra)) {
            return;
        }
        match optional.and_then(|t| t.iter().find(|(name, _)| same(name.get_ref(), extra))) {
            Some((_, value)) => found.extend(items(value.get_ref())),
            None => self.unknown("extra", extra, optional, path),
        }
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

    /// A project in this folder, with this behind its `[project]`, and what each of its profiles asks for.
    fn asked(folder: &Path, manifest: &str, profile: Option<&str>) -> Result<PythonRequest, Vec<String>> {
        fs::write(folder.join("train.toml"), format!("[project]\nname = \"t\"\n{manifest}")).unwrap();
        let workspace = crate::load(&folder.join("train.toml")).unwrap();
        let member = &workspace.members[0];
        let profile = profile.map(|p| Name::entry(p).unwrap());
        let python = match &profile {
            Some(profile) => &member.python_profiles[profile],
            None => member.python.as_ref().unwrap(),
        };
        let asked = python_request(&workspace.root, member, profile.as_ref(), python, &workspace.platforms);
        let place = |d: &Diagnostic| {
            let (line, _) = d.source.line_column(d.span.start);
            format!("{}:{line} {}", d.source.path.file_name().unwrap().to_string_lossy(), d.message)
        };
        asked.map(|asked| asked.request).map_err(|problems| problems.iter().map(place).collect())
    }

    #[test]
    fn a_profile_lies_over_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = r#"
[python]
dependencies = ["numpy>=2", "Torch[x]==2.8.*", "torch; sys_platform == 'darwin'"]
sdist = ["docopt"]
index = { torch = "cpu" }
[profile.gpu.python]
dependencies = ["torch==2.9.*", "triton"]
sdist = ["Wrapt"]
index = { torch = "cu128", Triton_Rocm = "rocm" }
[profile.other.python]
requirements = "r.txt"
"#;
        fs::write(folder.path().join("r.txt"), "six\n").unwrap();
        let own = asked(folder.path(), manifest, None).unwrap();
        assert_eq!((own.dependencies.len(), own.index), (3, vec!["torch cpu".to_owned()]));
        let gpu = asked(folder.path(), manifest, Some("gpu")).unwrap();
        assert_eq!(gpu.dependencies, ["numpy>=2", "torch==2.9.*", "triton"]);
        assert_eq!(gpu.index, ["torch cu128", "triton-rocm rocm"]);
        assert_eq!(gpu.sdist, ["docopt", "wrapt"]);
        let other = asked(folder.path(), manifest, Some("other")).unwrap();
        assert_eq!((other.dependencies, other.sdist), (vec!["six".to_owned()], vec!["docopt".to_owned()]));
    }

    #[test]
    fn requirements_with_hashes_constraints_and_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let manifest = "[python]\nrequirements = \"requirements.txt\"\n";
        write("requirements.txt", "--index-url https://x.org/s\n-r base.txt\n-c limits.txt\nscipy # why\n");
        write("base.txt", "numpy\n-r more.txt");
        write("more.txt", "six\n");
        write("limits.txt", "numpy<2\n");
        let found = asked(folder.path(), manifest, None).unwrap();
        assert_eq!(
            (found.dependencies, found.constraints),
            (["numpy", "six", "scipy"].map(str::to_owned).to_vec(), vec!["numpy<2".to_owned()])
        );
        write("requirements.txt", "numpy==2.0 --hash=sha256:ab \\\n  --hash sha256:cd\n-r base.txt\n");
        write("base.txt", "six==1.0 --hash=sha256:ef\n");
        let found = asked(folder.path(), manifest, None).unwrap();
        assert_eq!(found.dependencies[0], "numpy==2.0 --hash=sha256:ab --hash=sha256:cd");
        write("base.txt", "six==1.0\n-e .\n--pre\n./x\n-r nothing.txt\n-r requirements.txt\n");
        let problems = asked(folder.path(), manifest, None).unwrap_err();
        assert_eq!(
            problems,
            [
                "base.txt:2 `-e` can't be locked",
                "base.txt:3 `--pre` can't be locked",
                "base.txt:4 `./x` is no package of an index",
                "base.txt:5 can't read `nothing.txt`: it does not exist",
                "requirements.txt:1 `requirements.txt` reads itself",
                "base.txt:1 `six==1.0` has no hash, and others have"
            ]
        );
    }

    #[test]
    fn what_is_no_requirement() {
        let folder = tempfile::tempdir().unwrap();
        let problems = |text: &str| asked(folder.path(), &format!("[python]\ndependencies = [{text:?}]\n"), None);
        for bad in ["numpy >= banana", "numpy; sys_platform = 'linux'", "numpy[", "numpy=1"] {
            let found = problems(bad).unwrap_err();
            assert!(found[0].starts_with(&format!("train.toml:4 bad requirement `{bad}`: ")), "{found:?}");
        }
        assert!(problems("a.b-c[x, y] >=1, !=1.5 ; python_version < '3.12' and extra == 'z'").is_ok());
        assert!(problems("x @ https://x.org/x.whl").unwrap_err()[0].contains("is no package of an index"));
    }

    #[test]
    fn projects_with_groups_and_extras() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("pyproject.toml"), text).unwrap();
        let manifest = |more: &str| format!("[python]\npyproject = \"pyproject.toml\"\n{more}");
        let text = r#"
[project]
name = "My_Demo"
dependencies = ["numpy"]
[project.optional-dependencies]
all = ["my-demo[plots,Extra_Two]"]
plots = ["pyparsing"]
extra-two = ["six"]
[dependency-groups]
train = ["attrs", { include-group = "base" }]
base = ["tqdm"]
[tool.uv]
constraint-dependencies = ["numpy<2"]
[tool.uv.sources]
numpy = { index = "own" }
"#;
        write(text);
        let found = asked(folder.path(), &manifest("groups = [\"train\"]\nextras = [\"all\"]\n"), None).unwrap();
        assert_eq!(found.dependencies, ["numpy", "attrs", "tqdm", "pyparsing", "six"]);
        assert_eq!((found.constraints, found.index), (vec!["numpy<2".to_owned()], vec!["numpy own".to_owned()]));
        // A profile adds to what is chosen.
        let profile = manifest("[profile.p.python]\nextras = [\"plots\"]\ndependencies = [\"numpy>=1\"]\n");
        let found = asked(folder.path(), &profile, Some("p")).unwrap();
        assert_eq!(found.dependencies, ["pyparsing", "numpy>=1"]);
        let unknown = asked(folder.path(), &manifest("groups = [\"trian\"]\n"), None).unwrap_err();
        assert_eq!(unknown, ["train.toml:3 `pyproject.toml` has no dependency group `trian`: did you mean `train`?"]);
        write(&format!("{text}six = {{ git = \"https://x.org/six\" }}\n[tool.uv.pip]\n"));
        let refused = asked(folder.path(), &manifest(""), None).unwrap_err();
        assert_eq!(refused, ["pyproject.toml:16 the source of `six` can't be locked"]);
        write(&text.replace("[tool.uv]", "[tool.uv]\noverride-dependencies = [\"six<1\"]"));
        let refused = asked(folder.path(), &manifest(""), None).unwrap_err();
        assert_eq!(refused, ["pyproject.toml:13 `override-dependencies` of [tool.uv] can't be followed"]);
    }
}
