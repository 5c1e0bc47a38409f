//! From a path to a validated workspace: finds the root, reads all manifests, and runs the passes.

use crate::document::{Report, Table, Text, View};
use crate::entries::{Described, Scope, Shared};
use crate::error::ManifestError;
use crate::keys::ROOT;
use crate::members::{MemberFolders, read_source, unreadable};
use crate::model::{Determinism, Level, Member, Sandbox, Workspace};
use crate::shape::{self, Unsound};
use crate::{data, entries, graph, params, plain, steps, tools};
use semver::{Version, VersionReq};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use toml::de::DeTable;
use trainlock_types::{Diagnostic, Name, Platform, RelPath, SourceText};

/// The manifest nearest to a folder: `train.toml` in it, or in the nearest folder above that has one. A member's
/// is returned, not its workspace's root: [`load`] finds that.
///
/// # Errors
/// If there is none, or the folder is none.
pub fn discover(start: &Path) -> Result<PathBuf, ManifestError> {
    let folder = fs_err::canonicalize(start).map_err(unreadable(start))?;
    let candidates = folder.ancestors().map(|a| a.join("train.toml"));
    candidates.into_iter().find(|c| c.is_file()).ok_or(ManifestError::NotFound { start: start.to_owned() })
}

/// Loads a manifest with its whole workspace: the root above it that lists it as a member, or itself, and all
/// members.
///
/// # Errors
/// If a file can't be read, or anything in any of them is wrong; all mistakes are told at once.
pub fn load(manifest: &Path) -> Result<Workspace, ManifestError> {
    let manifest = fs_err::canonicalize(manifest).map_err(unreadable(manifest))?;
    let folder = manifest.parent().unwrap_or(Path::new("/")).to_owned();
    let above = folder.ancestors().skip(1).find_map(|root| lists(root, &folder));
    let (root, source) = match above {
        Some(found) => found,
        None => (folder.clone(), read_source(&manifest)?),
    };
    let syntax = Syntax::of(&source);
    let mut report = Report::new();
    let mut members = Vec::new();
    if let Some(workspace) = syntax.view(&source).table("workspace") {
        for dir in MemberFolders::of(&workspace, &mut report).find(&root, &mut report)? {
            let source = read_source(&dir.on(&root).join("train.toml"))?;
            members.push((dir, source));
        }
    }
    let parsed: Vec<Syntax<'_>> = members.iter().map(|(_, source)| Syntax::of(source)).collect();
    let top = RelPath::root();
    let mut documents = vec![Document { dir: &top, syntax: &syntax, view: syntax.view(&source) }];
    documents.extend(members.iter().zip(&parsed).map(|((dir, source), syntax)| Document {
        dir,
        syntax,
        view: syntax.view(source),
    }));
    for document in &documents {
        requires_this(document)?;
    }
    let mut workspace = validate(root, &documents, &mut report);
    if !report.is_empty() {
        return Err(ManifestError::Invalid(report.finish()));
    }
    let current = workspace.members.iter().find(|m| m.dir.on(&workspace.root) == folder);
    workspace.current = current.map(|m| m.name.clone());
    Ok(workspace)
}

/// The root manifest in `root`, if there is one that lists `folder` as a member. What can't be read above a
/// project is not the project's business.
fn lists(root: &Path, folder: &Path) -> Option<(PathBuf, Arc<SourceText>)> {
    let source = read_source(&root.join("train.toml")).ok()?;
    let below = folder.strip_prefix(root).ok()?.to_str()?;
    let below = RelPath::parse(below).ok()?;
    let syntax = Syntax::of(&source);
    let workspace = syntax.view(&source).table("workspace")?;
    let found = MemberFolders::of(&workspace, &mut Report::new()).has(&below);
    found.then(|| (root.to_owned(), Arc::clone(&source)))
}

/// A text as a tree, and what is wrong with its syntax.
struct Syntax<'a> {
    table: Table<'a>,
    errors: Vec<toml::de::Error>,
}

impl<'a> Syntax<'a> {
    fn of(source: &'a SourceText) -> Syntax<'a> {
        if let Some(table) = plain::read(&source.text) {
            return Syntax { table, errors: Vec::new() };
        }
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        Syntax { table: table.into_inner().into(), errors }
    }

    fn view(&'a self, source: &'a Arc<SourceText>) -> View<'a> {
        View { source, table: &self.table, span: 0..0 }
    }

    /// Tells the mistakes, one a line: what follows on a line from its first mistake is no news.
    fn tell(&self, source: &Arc<SourceText>, report: &mut Report) {
        let mut lines = HashSet::new();
        // In a file that is none of ours every line may be a mistake: none is counted from the top again.
        let ends: Vec<usize> = match self.errors.len() {
            0 => Vec::new(),
            _ => source.text.match_indices('\n').map(|(end, _)| end).collect(),
        };
        for error in &self.errors {
            let span = error.span().unwrap_or(0..0);
            let named = match error.message() {
                "duplicate key" => source.text.get(span.clone()).map(|key| format!("duplicate key `{key}`")),
                _ => None,
            };
            if lines.insert(ends.partition_point(|end| *end < span.start)) {
                report.error(source, span, named.unwrap_or_else(|| error.message().to_owned()));
            }
        }
    }
}

struct Document<'a> {
    dir: &'a RelPath,
    syntax: &'a Syntax<'a>,
    view: View<'a>,
}

/// Looks at `requires-trainlock` before all else: a manifest for another trainlock may have keys that this one
/// does not know, and its mistakes are not for this one to tell.
fn requires_this(document: &Document<'_>) -> Result<(), ManifestError> {
    let Some(text) = document.view.table("project").and_then(|p| p.str("requires-trainlock")) else {
        return Ok(());
    };
    let Ok(requirement) = VersionReq::parse(text.text) else {
        return Ok(());
    };
    let version = env!("CARGO_PKG_VERSION");
    // A pre-release of a version stands for the version: semver would refuse it everywhere.
    let released = version.split(['-', '+']).next().and_then(|v| Version::parse(v).ok());
    if released.is_none_or(|v| requirement.matches(&v)) {
        return Ok(());
    }
    Err(ManifestError::RequiresTrainlock(Box::new(Diagnostic {
        source: Arc::clone(document.view.source),
        span: text.span,
        message: format!("this project needs trainlock {}, and this is trainlock {version}", text.text),
        label: "not satisfied".to_owned(),
        help: Some("install a trainlock that satisfies it, or change `requires-trainlock`".to_owned()),
        related: Vec::new(),
    })))
}

fn validate(root: PathBuf, documents: &[Document<'_>], report: &mut Report) -> Workspace {
    // Shape. Where the syntax is broken, parts are missing: nothing more can be said of such a file, nor of what
    // others inherit from it.
    let mut shapes = Vec::new();
    for document in documents {
        if document.syntax.errors.is_empty() {
            shapes.push(shape::check(&document.view, ROOT, report));
        } else {
            document.syntax.tell(document.view.source, report);
            shapes.push(Unsound::default());
        }
    }
    let whole = documents.iter().all(|d| d.syntax.errors.is_empty());
    let mut workspace = Workspace {
        root,
        members: Vec::new(),
        platforms: Platform::DEFAULT.to_vec(),
        current: None,
        is_virtual: documents.first().is_some_and(|d| !d.view.has("project")),
        order: Vec::new(),
    };
    let Some((first, unsound)) = documents.first().zip(shapes.first()).filter(|_| whole) else {
        return workspace;
    };

    // Names and references.
    let shared = first.view.table("workspace").map(|view| Shared { view, unsound, inherited: Mutex::default() });
    for (document, unsound) in documents.iter().zip(&shapes) {
        let project = project(document, workspace.is_virtual, report);
        if let Some(member) = project.and_then(|p| member(document, unsound, shared.as_ref(), &p, report)) {
            workspace.members.push(member);
        }
    }
    if let Some(shared) = &shared {
        check_shared(shared, report);
        let platforms: Vec<Platform> =
            shared.view.list("platforms").iter().filter_map(|p| p.text.parse().ok()).collect();
        if !platforms.is_empty() {
            workspace.platforms = platforms;
            workspace.platforms.sort_unstable();
            workspace.platforms.dedup();
        } else if let Some(entry) = shared.view.get("platforms").filter(|e| !shared.unsound.has(e.node)) {
            report
                .error(shared.view.source, entry.node.span(), "`platforms` is empty")
                .help("name at least one, or leave it out");
        }
    }
    unique_names(documents, report);

    // Graph.
    workspace.order = graph::connect(&mut workspace.members, report);
    workspace
}

/// The `[project]` of a manifest that has or needs one; nothing (and the mistake is told) if it is missing.
fn project<'a>(document: &Document<'a>, is_virtual: bool, report: &mut Report) -> Option<View<'a>> {
    let view = &document.view;
    let is_root = document.dir.is_root();
    if !is_root && let Some(entry) = view.get("workspace") {
        report
            .error(view.source, entry.span, "a member can't be a workspace itself")
            .help("list its members in the root manifest, or exclude it there");
    }
    if let Some(project) = view.table("project") {
        return Some(project);
    }
    if view.has("project") {
        // It is no table, which was told.
        return None;
    }
    if is_root && is_virtual && view.has("workspace") {
        for entry in view.entries().filter(|e| e.name != "workspace" && ROOT.iter().any(|k| k.name == e.name)) {
            report
                .error(view.source, entry.span.clone(), format!("`[{}]` needs a `[project]`", entry.name))
                .help("add `[project]` and its `name`, or move it to a member");
        }
        return None;
    }
    let place = view.entries().next().map_or(0..0, |e| e.span);
    report.error(view.source, place, "no `[project]`").help("add `[project]` with `name = \"…\"`");
    None
}

fn member(
    document: &Document<'_>,
    unsound: &Unsound,
    shared: Option<&Shared<'_>>,
    project: &View<'_>,
    report: &mut Report,
) -> Option<Member> {
    let source = document.view.source;
    // A project without a good name is read all the same, for its other mistakes.
    let name = project.str("name");
    let good = name.as_ref().and_then(|text| match Name::project(text.text) {
        Ok(name) => Some(name),
        Err(error) => {
            report
                .error(source, text.span.clone(), format!("bad name `{}`", text.text.escape_debug()))
                .help(error.to_string());
            None
        }
    });
    let name = good.or_else(|| Name::project("unnamed").ok())?;
    let scope = Scope {
        view: document.view.clone(),
        unsound,
        dir: document.dir.clone(),
        name: (!document.dir.is_root()).then(|| name.clone()),
        shared,
    };
    let version = project.str("version").and_then(|text| version(source, &text, report));
    let requires = project.str("requires-trainlock").and_then(|text| tools::requirement(source, &text, report));
    let shared_params = shared.and_then(|s| s.view.table("params"));
    let known = params::read(document.view.table("params").as_ref(), shared_params.as_ref(), report);
    let profiles = params::profiles(&document.view, unsound, &known, report);
    let data = data::read(&scope, report);
    let tools = tools::read(&scope, report);
    let (python, python_profiles) = tools::python(&scope, report);
    let sandbox = steps::sandbox(project).unwrap_or(Sandbox::BestEffort);
    let image = steps::image(project, report).and_then(Result::ok);
    let around = steps::Surroundings { data: &data, params: &known, sandbox, image: image.clone() };
    let steps = steps::read(&scope, &around, report);
    Some(Member {
        name,
        dir: document.dir.clone(),
        version: version.unwrap_or(Version::new(0, 0, 0)),
        description: project.str("description").map(|t| t.text.to_owned()),
        requires_trainlock: requires,
        data: data.sets,
        tools,
        python,
        python_profiles,
        params: known.params,
        profiles,
        determinism: determinism(&document.view),
        sandbox,
        image,
        steps,
        source: Arc::clone(source),
    })
}

fn version(source: &Arc<SourceText>, text: &Text<'_>, report: &mut Report) -> Option<Version> {
    match Version::parse(text.text) {
        Ok(version) => Some(version),
        Err(error) => {
            report
                .error(source, text.span.clone(), format!("bad version: {error}"))
                .help("write it with three numbers, for example `0.1.0`");
            None
        }
    }
}

fn determinism(member: &View<'_>) -> Determinism {
    let default = Determinism::DEFAULT;
    let Some(view) = member.table("determinism") else {
        return default;
    };
    let word = view.str("level");
    Determinism {
        seed: view.int("seed").and_then(|n| u64::try_from(n).ok()).unwrap_or(default.seed),
        level: Level::ALL
            .into_iter()
            .find(|l| word.as_ref().is_some_and(|w| w.text == l.as_str()))
            .unwrap_or(default.level),
        threads: view.int("threads").and_then(|n| u32::try_from(n).ok()),
        seed_globals: view.bool("seed-globals").unwrap_or(default.seed_globals),
    }
}

/// Checks those entries of `[workspace]` that no member inherits; the others were checked for the members.
fn check_shared(shared: &Shared<'_>, report: &mut Report) {
    let root = RelPath::root();
    let view = &shared.view;
    for table in ["data", "tools"] {
        let Some(within) = view.table(table) else {
            continue;
        };
        for entry in within.entries() {
            let name = entries::name(view.source, table, &entry, report);
            let inherited = shared.inherited().contains(&format!("{table}.{}", entry.name));
            let Some(name) = name.filter(|_| !inherited && !shared.unsound.has(entry.node)) else {
                continue;
            };
            let described = Described { entry, within: within.clone(), base: RelPath::root() };
            if table == "data" {
                data::request(&name, &described, &root, None, report);
            } else {
                tools::request(None, name, &described, report);
            }
        }
    }
    if let Some(params) = view.table("params") {
        params::check_shared(&params, report);
    }
    let python = view.get("python").filter(|e| !shared.unsound.has(e.node));
    if let Some(entry) = python.filter(|_| !shared.inherited().contains("python.python")) {
        tools::packages(&Described { entry, within: view.clone(), base: RelPath::root() }, None, report);
    }
}

fn unique_names(documents: &[Document<'_>], report: &mut Report) {
    let mut seen: HashMap<&str, (&Arc<SourceText>, Text<'_>)> = HashMap::new();
    for document in documents {
        let Some(name) = document.view.table("project").and_then(|p| p.str("name")) else {
            continue;
        };
        let source = document.view.source;
        if let Some((other, first)) = seen.get(name.text) {
            report
                .error(source, name.span, format!("two projects of the workspace have the name `{}`", name.text))
                .help("give each its own name")
                .related(other, first.span.clone(), "the other one");
        } else {
            seen.insert(name.text, (source, name));
        }
    }
}
