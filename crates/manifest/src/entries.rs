//! What the readers of `[data]`, `[tools]`, `[python]` and `[steps]` share: where they are, names, paths, globs,
//! and inheritance from the root manifest.

use crate::document::{Entry, Report, Text, View};
use crate::shape::Unsound;
use globset::GlobBuilder;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use trainlock_types::{Name, RelPath, SourceText};

/// The root manifest's `[workspace]`, from which members inherit.
pub(crate) struct Shared<'a> {
    pub(crate) view: View<'a>,
    pub(crate) unsound: &'a Unsound,
    /// The entries that a member inherits, as `data.raw`: whoever inherits one tells what is wrong with it.
    pub(crate) inherited: Mutex<HashSet<String>>,
}

/// The member that is being read.
pub(crate) struct Scope<'a> {
    /// Its whole manifest.
    pub(crate) view: View<'a>,
    pub(crate) unsound: &'a Unsound,
    /// Its folder.
    pub(crate) dir: RelPath,
    /// Its name as requests have it: none for the root project.
    pub(crate) name: Option<Name>,
    pub(crate) shared: Option<&'a Shared<'a>>,
}

/// A table that describes an entry, in the member's manifest or in the root's.
pub(crate) struct Described<'a> {
    pub(crate) entry: Entry<'a>,
    /// The table that the entry stands in.
    pub(crate) within: View<'a>,
    /// The folder of the manifest that it stands in.
    pub(crate) base: RelPath,
}

impl Shared<'_> {
    /// What was inherited so far.
    pub(crate) fn inherited(&self) -> MutexGuard<'_, HashSet<String>> {
        self.inherited.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<'a> Scope<'a> {
    pub(crate) fn source(&self) -> &'a Arc<SourceText> {
        self.view.source
    }

    /// The name of an entry of `table`; nothing (and the mistake is told) if it is none.
    pub(crate) fn name(&self, table: &str, entry: &Entry<'a>, report: &mut Report) -> Option<Name> {
        name(self.source(), table, entry, report)
    }

    /// What describes an entry: itself, or what it inherits. Nothing if that has a mistake, which was told.
    pub(crate) fn describe(
        &self,
        table: &'static str,
        within: &View<'a>,
        entry: &Entry<'a>,
        beside: &[&str],
        report: &mut Report,
    ) -> Option<Described<'a>> {
        let own = || Described { entry: entry.clone(), within: within.clone(), base: self.dir.clone() };
        let Some(view) = within.view(entry).filter(|v| v.has("workspace")) else {
            return Some(own());
        };
        let mut sound = true;
        for other in view.entries().filter(|e| e.name != "workspace" && !beside.contains(&e.name)) {
            sound = false;
            report
                .error(
                    view.source,
                    other.span.clone(),
                    format!("`{}` can't stand beside `workspace = true`", other.name),
                )
                .help("what is inherited is inherited whole: change the root manifest, or leave out `workspace`");
        }
        let found = self.shared.and_then(|shared| {
            let (within, entry) = if table == "python" {
                (shared.view.clone(), shared.view.get("python")?)
            } else {
                let within = shared.view.table(table)?;
                let entry = within.get(entry.name)?;
                (within, entry)
            };
            Some((shared, within, entry))
        });
        let Some((shared, within, found)) = found else {
            let names = self.shared.into_iter().flat_map(|s| s.view.entries_of(table));
            let near = report.near(entry.name, names.map(|e| e.name));
            let missing = match table {
                "python" => "no `[workspace.python]` in the root manifest".to_owned(),
                _ => format!("no `{}` in `[workspace.{table}]`", entry.name),
            };
            report.error(view.source, entry.span.clone(), missing).help("add it to the root manifest").maybe_help(near);
            return None;
        };
        shared.inherited().insert(format!("{table}.{}", found.name));
        (sound && !shared.unsound.has(found.node)).then(|| Described { entry: found, within, base: RelPath::root() })
    }
}

/// The name of an entry of `table`; nothing (and the mistake is told) if it is none.
pub(crate) fn name(source: &Arc<SourceText>, table: &str, entry: &Entry<'_>, report: &mut Report) -> Option<Name> {
    let what = match table {
        "data" => "data set",
        "tools" => "tool",
        _ => "step",
    };
    if entry.name == "workspace" && table != "steps" {
        report
            .error(source, entry.span.clone(), "`workspace` is a reserved name")
            .help(format!("write `NAME.workspace = true` in `[{table}]` to inherit a {what}"));
        return None;
    }
    match Name::entry(entry.name) {
        Ok(name) => Some(name),
        Err(error) => {
            report.error(source, entry.span.clone(), format!("bad name of a {what}")).help(error.to_string());
            None
        }
    }
}

/// A path as written in a manifest of the folder `base`; nothing (and the mistake is told) if it is none.
pub(crate) fn path(source: &Arc<SourceText>, text: &Text<'_>, base: &RelPath, report: &mut Report) -> Option<RelPath> {
    match base.resolve(text.text) {
        Ok(path) => Some(path),
        Err(error) => {
            report
                .error(source, text.span.clone(), format!("bad path `{}`", text.text.escape_debug()))
                .help(error.to_string());
            None
        }
    }
}

/// Whether git or trainlock itself keeps its own files at this path.
pub(crate) fn is_reserved(path: &RelPath) -> bool {
    let text = path.as_str();
    // Cheap before exact: nearly no path has any of the words.
    (text.contains(".git") || text.contains(".trainlock")) && text.split('/').any(|c| c == ".git" || c == ".trainlock")
        || matches!(path.file_name(), "train.toml" | "train.lock")
}

/// Whether a text has characters that make it a glob.
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// What is wrong with a glob, if anything.
pub(crate) fn glob_mistake(glob: &str) -> Option<String> {
    if let Some(c) = glob.chars().find(|c| c.is_control() || *c == '\\') {
        return Some(format!("it holds {c:?}: use `/` between folders, and no control characters"));
    }
    GlobBuilder::new(glob).literal_separator(true).build().err().map(|error| error.kind().to_string())
}
