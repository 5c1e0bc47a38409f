//! `[tools]` and `[python]`.

use crate::document::{Report, Text, View, text};
use crate::entries::{Described, Scope, path};
use crate::model::{Python, PythonFrom, Requirement, Tool};
use semver::VersionReq;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trainlock_types::{
    FetchedTool, Name, Platform, SourceText, TakenKind, ToolFrom, ToolMatch, ToolProvider, ToolRequest,
    normalized_package,
};

/// Reads a member's `[tools]`.
pub(crate) fn read(scope: &Scope<'_>, report: &mut Report) -> Vec<Tool> {
    let mut tools = Vec::new();
    let Some(table) = scope.view.table("tools") else {
        return tools;
    };
    for entry in table.entries() {
        let Some(name) = scope.name("tools", &entry, report).filter(|_| !scope.unsound.has(entry.node)) else {
            continue;
        };
        let described = scope.describe("tools", &table, &entry, &[], report);
        let request = described.as_ref().and_then(|d| request(scope.name.clone(), name, d, report));
        if let (Some(described), Some(request)) = (described, request) {
            let source = Arc::clone(described.within.source);
            tools.push(Tool { request, span: described.entry.span, source });
        }
    }
    tools
}

/// What an entry of `[tools]` asks for.
pub(crate) fn request(
    member: Option<Name>,
    name: Name,
    described: &Described<'_>,
    report: &mut Report,
) -> Option<ToolRequest> {
    let source = described.within.source;
    let view = described.within.view(&described.entry);
    let version = match &view {
        Some(view) => view.str("version"),
        None => crate::document::text(described.entry.node),
    };
    let Some(version) = version else {
        report
            .error(source, described.entry.span.clone(), format!("tool `{name}` has no `version`"))
            .help("add a semver requirement, for example `version = \"^6\"` (`\"*\"` for any)");
        return None;
    };
    let requirement = requirement(source, &version, report);
    let from = view.as_ref().and_then(|v| v.str("from"));
    let provider = match from.as_ref().map(|f| f.text) {
        Some("host") => {
            let probe: Vec<Text<'_>> = view.as_ref().map(|v| v.list("probe")).unwrap_or_default();
            if let Some(entry) = view.as_ref().and_then(|v| v.get("probe"))
                && probe.first().is_none_or(|program| program.text.is_empty())
            {
                report
                    .error(source, entry.node.span(), "`probe` names no program")
                    .help(format!("for example `probe = [\"{name}\", \"--version\"]`, or leave it out"));
                return None;
            }
            let accept = match view.as_ref().and_then(|v| v.str("match")) {
                Some(word) if word.text == ToolMatch::Requirement.as_str() => ToolMatch::Requirement,
                _ => ToolMatch::Version,
            };
            ToolProvider::Host { probe: probe.iter().map(|p| p.text.to_owned()).collect(), accept }
        }
        other => {
            let mut sound = true;
            for key in ["probe", "match"] {
                if let Some(entry) = view.as_ref().and_then(|v| v.get(key)) {
                    sound = false;
                    report
                        .error(source, entry.span, format!("`{key}` is for tools of the host"))
                        .help("add `from = \"host\"`, or leave it out");
                }
            }
            if !sound {
                return None;
            }
            let from = match other {
                Some(word) => ToolFrom::ALL.into_iter().find(|from| from.as_str() == word)?,
                None if name.as_str() == "python" => ToolFrom::Python,
                None => ToolFrom::Pypi,
            };
            ToolProvider::Fetched(fetched(from, &name, described, report)?)
        }
    };
    let version = version.text.to_owned();
    Some(ToolRequest { member, name, version, requirement: requirement?, provider, platforms: Vec::new() })
}

/// The options of a fetched tool: each provider has its own.
fn fetched(from: ToolFrom, name: &Name, described: &Described<'_>, report: &mut Report) -> Option<FetchedTool> {
    let mut tool = FetchedTool::new(from);
    let source = described.within.source;
    let view = described.within.view(&described.entry);
    let Some(view) = &view else {
        return (from == ToolFrom::Pypi || from == ToolFrom::Python).then_some(tool);
    };
    let (allowed, needed): (&[&str], Option<(&str, String)>) = match from {
        ToolFrom::Pypi | ToolFrom::Npm => (&["package", "bin"], None),
        ToolFrom::Github => (&["repo", "asset", "bin"], Some(("repo", "repo = \"owner/name\"".to_owned()))),
        ToolFrom::Index => (&["index", "bin"], Some(("index", format!("index = \"tools/{name}.toml\"")))),
        ToolFrom::Python => (&[], None),
    };
    let mut sound = true;
    for key in ["package", "bin", "repo", "index", "asset"] {
        if let Some(entry) = view.get(key).filter(|_| !allowed.contains(&key)) {
            sound = false;
            let allowed = allowed.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            report.error(source, entry.span, format!("`{key}` is no option of tools from `{}`", from.as_str())).help(
                if allowed.is_empty() { "leave it out".to_owned() } else { format!("its options are {allowed}") },
            );
        }
    }
    let text = |key: &str| view.str(key).map(|t| t.text.to_owned());
    (tool.package, tool.bin, tool.repo, tool.index) = (text("package"), text("bin"), text("repo"), text("index"));
    // A list of the repository is named as all paths are: from the folder of the manifest.
    if let Some(list) = view.str("index").filter(|list| !list.text.contains("://")) {
        match path(source, &list, &described.base, report) {
            Some(list) => tool.index = Some(list.as_str().to_owned()),
            None => sound = false,
        }
    }
    if let Some((key, example)) = needed.filter(|(key, _)| view.get(key).is_none()) {
        report
            .error(source, described.entry.span.clone(), format!("a tool from `{}` needs `{key}`", from.as_str()))
            .help(format!("for example `{example}`"));
        return None;
    }
    if let Some(assets) = view.table("asset") {
        let mut by_platform = BTreeMap::new();
        for entry in assets.entries() {
            let (Ok(platform), Some(file)) = (entry.name.parse::<Platform>(), crate::document::text(entry.node)) else {
                sound = false;
                let known = Platform::ALL.map(Platform::as_str).join(", ");
                report
                    .error(source, entry.span.clone(), format!("`{}` is no platform with a file", entry.name))
                    .help(format!("write `PLATFORM = \"FILE\"`; platforms are {known}"));
                continue;
            };
            by_platform.insert(platform, file.text.to_owned());
        }
        tool.asset = by_platform;
    }
    sound.then_some(tool)
}

/// A semver requirement; nothing (and the mistake is told) if it is none.
pub(crate) fn requirement(source: &Arc<SourceText>, text: &Text<'_>, report: &mut Report) -> Option<VersionReq> {
    match VersionReq::parse(text.text) {
        Ok(requirement) => Some(requirement),
        Err(error) => {
            report
                .error(source, text.span.clone(), format!("bad version requirement: {error}"))
                .help("for example `3.11`, `^6`, `>=3.9, <3.13` or `=1.7.2`");
            None
        }
    }
}

/// Reads a member's `[python]`, and what its profiles lay over it.
pub(crate) fn python(scope: &Scope<'_>, report: &mut Report) -> (Option<Python>, BTreeMap<Name, Python>) {
    let mut profiles = BTreeMap::new();
    let own = scope.view.get("python");
    let sound = own.as_ref().filter(|e| !scope.unsound.has(e.node));
    let described = sound.and_then(|entry| scope.describe("python", &scope.view, entry, &[], report));
    let python = described.and_then(|described| packages(&described, None, report));
    if own.is_some() && python.is_none() {
        return (None, profiles);
    }
    for profile in scope.view.entries_of("profile").filter(|e| !scope.unsound.has(e.node)) {
        let Some(view) = scope.view.view(&profile) else { continue };
        if let (Ok(name), Some(entry)) = (Name::entry(profile.name), view.get("python")) {
            let described = Described { entry, within: view, base: scope.dir.clone() };
            profiles.extend(packages(&described, python.as_ref(), report).map(|python| (name, python)));
        }
    }
    (python, profiles)
}

/// The keys that say where the packages are named, of which a table has one.
const FROM: [&str; 5] = ["dependencies", "requirements", "pyproject", "uv-lock", "pylock"];

/// What a `[python]` or `[workspace.python]` asks for; of a profile, with what it lies over.
pub(crate) fn packages(described: &Described<'_>, under: Option<&Python>, report: &mut Report) -> Option<Python> {
    let view = described.within.view(&described.entry)?;
    let source = view.source;
    let mut from: Vec<_> = FROM.iter().filter_map(|k| view.get(k)).collect();
    from.sort_by_key(|e| e.span.start);
    if let [first, second, ..] = &from[..] {
        report
            .error(source, second.span.clone(), format!("`{}` can't stand beside `{}`", second.name, first.name))
            .related(source, first.span.clone(), "this says already where the packages are named")
            .help(format!("packages are named in one of {}", FROM.join(", ")));
        return None;
    }
    let from = from.first();
    if from.is_none() && under.is_none() {
        report.error(source, described.entry.span.clone(), "`[python]` names no packages").help(
            "add `dependencies = [\"…\"]`, `requirements = \"requirements.txt\"` or `pyproject = \"pyproject.toml\"`",
        );
        return None;
    }
    let mut sound = names(&view, report);
    let texts = |key: &str| view.list(key).iter().map(|t| t.text.to_owned()).collect::<Vec<_>>();
    let requirement =
        |t: &Text<'_>| Requirement { text: t.text.trim().to_owned(), span: t.span.clone(), source: Arc::clone(source) };
    let named: Vec<Requirement> = view.list("dependencies").iter().map(requirement).collect();
    let file = |report: &mut Report| {
        let text = view.str(from?.name)?;
        path(source, &text, &described.base, report)
    };
    let (mut over, mut sdist, mut yanked, mut index) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    let mut base = match from.map(|entry| entry.name) {
        None | Some("dependencies") if under.is_some() => {
            let under = under?;
            over.clone_from(&under.over);
            over.extend(named);
            under.from.clone()
        }
        None => return None,
        Some("dependencies") => PythonFrom::Dependencies(named),
        Some("requirements") => PythonFrom::Requirements(file(report)?),
        Some("pyproject") => PythonFrom::Pyproject { path: file(report)?, groups: Vec::new(), extras: Vec::new() },
        Some(key) => {
            let kind = TakenKind::ALL.into_iter().find(|kind| kind.as_str() == key)?;
            PythonFrom::Lock { kind, path: file(report)?, groups: Vec::new(), extras: Vec::new() }
        }
    };
    if let (PythonFrom::Lock { kind, .. }, Some(first)) = (&base, over.first()) {
        let message = format!("requirements can't lie over a `{}`: it is taken over as it stands", kind.as_str());
        report
            .error(&first.source, first.span.clone(), message)
            .help("name another lock for the profile, or `pyproject` in [python]");
        return None;
    }
    match &mut base {
        PythonFrom::Pyproject { groups, extras, .. } | PythonFrom::Lock { kind: TakenKind::Uv, groups, extras, .. } => {
            for (list, key) in [(groups, "groups"), (extras, "extras")] {
                list.extend(texts(key));
                let mut seen = BTreeSet::new();
                list.retain(|name| seen.insert(name.clone()));
            }
        }
        _ => {
            for entry in ["groups", "extras"].iter().filter_map(|k| view.get(k)) {
                sound = false;
                report
                    .error(source, entry.span, format!("`{}` is for a pyproject.toml or uv.lock", entry.name))
                    .help("add `pyproject = \"pyproject.toml\"`, or leave it out");
            }
        }
    }
    if let Some(under) = under {
        sdist.clone_from(&under.sdist);
        yanked.clone_from(&under.yanked);
        index.clone_from(&under.index);
    }
    sdist.extend(texts("sdist"));
    yanked.extend(texts("yanked"));
    for entry in view.entries_of("index") {
        let Some(name) = text(entry.node) else { continue };
        let word = |t: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            t.starts_with(|c: char| c.is_ascii_alphanumeric()) && t.chars().all(inner)
        };
        if !word(name.text) || !word(entry.name) {
            sound = false;
            report
                .error(source, name.span, format!("`{}` is no name of a package index", name.text.escape_debug()))
                .help("give the index a name in your configuration (`index.NAME = \"https://…\"`), and write that name here: its address does not belong to the project");
            continue;
        }
        index.insert(normalized_package(entry.name), name.text.to_owned());
    }
    sound.then(|| Python {
        from: base,
        over,
        index,
        sdist,
        yanked,
        span: described.entry.span.clone(),
        source: Arc::clone(source),
    })
}

/// Checks that requirements and names of packages begin as such, which tells a file name or an option from them.
fn names(view: &View<'_>, report: &mut Report) -> bool {
    const PACKAGE_NAME: &str = "python package's name";
    let mut sound = true;
    for (key, what) in [("dependencies", "python requirement"), ("sdist", PACKAGE_NAME), ("yanked", PACKAGE_NAME)] {
        for text in view.list(key) {
            let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let rest = text.text.trim().trim_start_matches(name);
            let starts = text.text.trim().starts_with(|c: char| c.is_ascii_alphanumeric());
            let follows = rest.is_empty()
                || key == "dependencies"
                    && rest.trim_start().starts_with(['=', '<', '>', '!', '~', '[', '(', ';', '@']);
            if !(starts && follows) {
                sound = false;
                report
                    .error(view.source, text.span.clone(), format!("bad {what} `{}`", text.text.escape_debug()))
                    .help("for example `numpy>=2`, `torch[cuda]==2.9.*` or `scipy; sys_platform == \"linux\"`");
            }
        }
    }
    sound
}
