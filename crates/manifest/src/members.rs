//! Which folders are members of a workspace, and reading manifests.

use crate::document::{Report, Span, View};
use crate::entries::{glob_mistake, is_glob};
use crate::error::ManifestError;
use globset::{GlobBuilder, GlobMatcher};
use std::path::Path;
use std::sync::Arc;
use trainlock_types::{RelPath, SourceText};

/// `members` and `exclude` of a `[workspace]`.
pub(crate) struct MemberFolders<'a> {
    source: &'a Arc<SourceText>,
    members: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

enum Pattern {
    Folder(RelPath, Span),
    /// The literal folder, how many levels below it can match (no limit: none), and the whole pattern.
    Glob {
        base: RelPath,
        depth: Option<usize>,
        matcher: GlobMatcher,
    },
}

impl<'a> MemberFolders<'a> {
    /// Reads the two lists; what is wrong in them is told.
    pub(crate) fn of(workspace: &View<'a>, report: &mut Report) -> MemberFolders<'a> {
        let mut patterns = |key: &str| {
            let texts = workspace.list(key);
            let pattern = |text: &crate::document::Text<'a>| match Pattern::parse(text.text, &text.span) {
                Ok(pattern) => Some(pattern),
                Err(mistake) => {
                    let message = format!("bad folder `{}`", text.text.escape_debug());
                    report.error(workspace.source, text.span.clone(), message).help(mistake);
                    None
                }
            };
            texts.iter().filter_map(pattern).collect()
        };
        MemberFolders { source: workspace.source, members: patterns("members"), exclude: patterns("exclude") }
    }

    /// Whether a folder that has a manifest is a member.
    pub(crate) fn has(&self, dir: &RelPath) -> bool {
        self.members.iter().any(|m| m.matches(dir)) && !self.excluded(dir)
    }

    fn excluded(&self, dir: &RelPath) -> bool {
        let mut at = Some(dir.clone());
        while let Some(folder) = at.filter(|f| !f.is_root()) {
            if self.exclude.iter().any(|e| e.matches(&folder)) {
                return true;
            }
            at = folder.parent();
        }
        false
    }

    /// The members' folders, sorted. Folders that are named without a glob must have a manifest; told if not.
    pub(crate) fn find(&self, root: &Path, report: &mut Report) -> Result<Vec<RelPath>, ManifestError> {
        let mut found = Vec::new();
        for pattern in &self.members {
            match pattern {
                Pattern::Folder(dir, span) if dir.on(root).join("train.toml").is_file() => {
                    if !self.excluded(dir) {
                        found.push(dir.clone());
                    } else {
                        report
                            .error(self.source, span.clone(), format!("`{dir}` is a member and excluded"))
                            .help("take it out of `members` or of `exclude`");
                    }
                }
                Pattern::Folder(dir, span) => {
                    let near = siblings(root, dir);
                    let near = report.near(dir.as_str(), near.iter().map(String::as_str));
                    report
                        .error(self.source, span.clone(), format!("no train.toml in member `{dir}`"))
                        .help("make the project (`trainlock init`), or take it out of `members`")
                        .maybe_help(near);
                }
                Pattern::Glob { base, depth, .. } => {
                    self.walk(root, base, depth.unwrap_or(usize::MAX), pattern, &mut found)?;
                }
            }
        }
        // The root project is always there.
        found.retain(|dir| !dir.is_root());
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn walk(
        &self,
        root: &Path,
        dir: &RelPath,
        depth: usize,
        pattern: &Pattern,
        found: &mut Vec<RelPath>,
    ) -> Result<(), ManifestError> {
        for below in folders(&dir.on(root))? {
            let Ok(below) = dir.resolve(&below) else {
                continue;
            };
            if self.excluded(&below) {
                continue;
            }
            if pattern.matches(&below) && below.on(root).join("train.toml").is_file() {
                found.push(below.clone());
            }
            if depth > 1 {
                self.walk(root, &below, depth - 1, pattern, found)?;
            }
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(text: &str, span: &Span) -> Result<Pattern, String> {
        let root = RelPath::root();
        let Some(magic) = text.find(['*', '?', '[', '{']).filter(|_| is_glob(text)) else {
            return match root.resolve(text) {
                Ok(dir) => Ok(Pattern::Folder(dir, span.clone())),
                Err(error) => Err(format!("{error} (members lie in the root manifest's folder)")),
            };
        };
        let (prefix, rest) = match text[..magic].rfind('/') {
            Some(slash) => (&text[..=slash], text[slash + 1..].trim_end_matches('/')),
            None => ("./", text.trim_end_matches('/')),
        };
        let base = root.resolve(prefix).map_err(|e| format!("{e} (members lie in the root manifest's folder)"))?;
        if rest.split('/').any(|c| matches!(c, "" | "." | "..")) {
            return Err("`.`, `..` and `//` can't follow a wildcard".to_owned());
        }
        if let Some(mistake) = glob_mistake(rest) {
            return Err(mistake);
        }
        // The base is matched by its text, so that only what follows it is a glob.
        let matcher = GlobBuilder::new(rest).literal_separator(true).build().map_err(|e| e.kind().to_string())?;
        // Alternatives may hold `/`, so that they count for as many levels as they have at most.
        let depth = (!rest.contains("**")).then(|| rest.matches('/').count() + 1);
        Ok(Pattern::Glob { base, depth, matcher: matcher.compile_matcher() })
    }

    fn matches(&self, dir: &RelPath) -> bool {
        match self {
            Pattern::Folder(folder, _) => folder == dir,
            Pattern::Glob { base, matcher, .. } => {
                dir.below(base).is_some_and(|rest| !rest.is_root() && matcher.is_match(rest.as_str()))
            }
        }
    }
}

/// The folders in a folder, sorted, without hidden ones and links (which could lead round in circles). None if it is
/// no folder.
fn folders(dir: &Path) -> Result<Vec<String>, ManifestError> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable(dir))?;
        let name = entry.file_name().into_string().ok().filter(|n| !n.starts_with('.'));
        if let (Some(name), true) = (name, entry.file_type().map_err(unreadable(dir))?.is_dir()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The projects beside a folder, for a near name.
fn siblings(root: &Path, dir: &RelPath) -> Vec<String> {
    let Some(above) = dir.parent() else {
        return Vec::new();
    };
    let names = folders(&above.on(root)).unwrap_or_default();
    let paths = names.iter().filter_map(|n| above.resolve(n).ok());
    paths.filter(|p| p.on(root).join("train.toml").is_file()).map(|p| p.as_str().to_owned()).collect()
}

/// Reads a manifest. Its line ends become `\n`, whatever editor or git wrote them: a script of several
/// lines would otherwise be another one in another checkout.
pub(crate) fn read_source(path: &Path) -> Result<Arc<SourceText>, ManifestError> {
    let bytes = fs_err::read(path).map_err(unreadable(path))?;
    match String::from_utf8(bytes) {
        // Nearly no file has any; to look for one byte is the fastest search.
        Ok(text) if text.as_bytes().contains(&b'\r') => {
            Ok(Arc::new(SourceText { path: path.to_owned(), text: text.replace("\r\n", "\n") }))
        }
        Ok(text) => Ok(Arc::new(SourceText { path: path.to_owned(), text })),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|b| **b == b'\n').count() + 1;
            Err(ManifestError::Encoding { path: path.to_owned(), line })
        }
    }
}

pub(crate) fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> ManifestError + use<> {
    let path = path.to_owned();
    |source| ManifestError::Io { path, source }
}
