//! `trainlock outdated`.

use crate::cli::{Global, LockOptions, Select};
use crate::equip::index_for;
use crate::exit::{Exit, Failure, Problem};
use crate::locking;
use crate::project::{self, Project};
use crate::ui::Ui;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use trainlock_env::python::Selected;
use trainlock_fetch::{FetchError, Fetcher, IndexSettings, Standing, ToolFetchError, Want};
use trainlock_lock::{Lock, Reason, satisfies, tool_satisfies};
use trainlock_types::{DataSource, FetchedTool, ImageReference, Name, RelPath, ToolFrom, ToolProvider, ToolRequest};

/// Show which pins are no longer what train.toml's requests give
///
/// Asks each source for its commit, version, digest or size, and downloads nothing: of a plain address a size that is still
/// the same is all that can be known. Nothing is written; `trainlock update NAME` moves a pin.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock outdated        # what would move\n  trainlock outdated -v     # the others too"
)]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
}

/// What was asked about one pin.
struct Row {
    kind: &'static str,
    name: String,
    standing: Result<Standing, Problem>,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let mut project = Project::open(global)?;
    let members = project.select(&args.select)?;
    if !project.workspace.root.join("train.lock").is_file() {
        return Err(Failure::new(Exit::Failed, "nothing is locked yet").hint("`trainlock lock` writes train.lock"));
    }
    let lock = project.lock_for_reading(LockOptions { locked: false, offline: false, frozen: false }, ui)?;
    let asking = Asking { project: &project, lock: &lock, members: &members, ui };
    let rows = asking.rows()?;
    for row in &rows {
        row.print(ui);
    }
    let count = |is: fn(&Standing) -> bool| rows.iter().filter(|row| row.standing.as_ref().is_ok_and(is)).count();
    let same = count(|standing| matches!(standing, Standing::Same { .. }));
    let open = count(|standing| matches!(standing, Standing::Unknown { .. }));
    let moved = count(|standing| matches!(standing, Standing::Moved { .. } | Standing::Withdrawn { .. }));
    let problems: Vec<Problem> = rows.into_iter().filter_map(|row| row.standing.err()).collect();
    let more: String = [(open, "not known"), (problems.len(), "not asked")]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!(", {n} {what}"))
        .collect();
    ui.status("Finished", format!("{same} as locked, {moved} outdated{more}"));
    if project.cancel().is_thrown() {
        return Err(Failure::new(Exit::Interrupted, "interrupted"));
    }
    if problems.is_empty() { Ok(Exit::Done) } else { Err(Failure { code: Exit::Failed, problems }) }
}

/// All that is needed to ask.
struct Asking<'a> {
    project: &'a Project,
    lock: &'a Lock,
    members: &'a [usize],
    ui: &'a Ui,
}

impl Asking<'_> {
    /// What the sources of all pins say, in the order of the lock.
    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let workspace = &self.project.workspace;
        let wanted = locking::wanted(workspace)?;
        let selected: BTreeSet<Option<&Name>> = self
            .members
            .iter()
            .map(|i| &workspace.members[*i])
            .map(|member| (!member.dir.is_root()).then_some(&member.name))
            .collect();
        let session = self.project.store.session()?;
        let mut rows = Vec::new();
        {
            let (events, _display) = self.ui.events();
            let fetcher = Fetcher::new(self.project.fetch_settings(false), events);
            let mut wants: Vec<Want> = Vec::new();
            for request in wanted.data.iter().filter(|request| selected.contains(&request.member.as_ref())) {
                let Some(pin) = self.lock.data(request.member.as_ref(), &request.name) else { continue };
                if matches!(request.source, DataSource::Path(_)) {
                    continue;
                }
                if satisfies(pin, request).iter().any(Reason::relocks) {
                    rows.push(Row::stale("data", locking::shown(pin)));
                } else {
                    wants.push(project::want(pin, &request.source));
                }
            }
            let standings = fetcher.standings(&session, &wants);
            let row = |(want, standing): (&Want, Result<Standing, FetchError>)| Row {
                kind: "data",
                name: want.name.clone(),
                standing: standing.map_err(|error| problem(&error, error.hint())),
            };
            rows.extend(wants.iter().zip(standings).map(row));
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            for request in &wanted.tools {
                if selected.contains(&request.member.as_ref()) || request.member.is_none() {
                    rows.extend(self.tool(&fetcher, request));
                }
            }
            rows.extend(self.packages(&fetcher)?);
            let steps = self.members.iter().flat_map(|i| &workspace.members[*i].steps);
            let images: BTreeSet<&ImageReference> = steps.filter_map(|step| step.image.as_ref()).collect();
            rows.extend(images.into_iter().filter_map(|image| self.image(&fetcher, image)));
        }
        session.finish(false)?;
        Ok(rows)
    }

    /// A fetched tool: whether a newer version satisfies the requirement.
    fn tool(&self, fetcher: &Fetcher, request: &ToolRequest) -> Option<Row> {
        let ToolProvider::Fetched(fetched) = &request.provider else { return None };
        let pin = self.lock.tool(request.member.as_ref(), &request.name)?;
        // An interpreter of the machine is nobody's to move.
        if pin.artifacts.is_empty() {
            return None;
        }
        let name = request.member.as_ref().map_or(request.name.to_string(), |m| format!("{m}/{}", request.name));
        if tool_satisfies(pin, request).iter().any(Reason::relocks) {
            return Some(Row::stale("tool", name));
        }
        let standing = match self.newest(fetcher, request, fetched) {
            Ok(Some(now)) if now == pin.version => Ok(Standing::Same { by: "version" }),
            Ok(Some(now)) => Ok(Standing::Moved { locked: pin.version.to_string(), now: now.to_string() }),
            Ok(None) => Ok(Standing::Unknown { why: "this kind of source is not asked".to_owned() }),
            Err(problem) => Err(problem),
        };
        Some(Row { kind: "tool", name, standing })
    }

    fn newest(
        &self,
        fetcher: &Fetcher,
        request: &ToolRequest,
        fetched: &FetchedTool,
    ) -> Result<Option<semver::Version>, Problem> {
        let of_tool = |error: ToolFetchError| problem(&error, error.hint());
        match (fetched.from, &fetched.index, &fetched.repo) {
            (ToolFrom::Pypi, ..) => {
                let package = fetched.package.as_deref().unwrap_or(&request.name);
                let index = self.index()?;
                fetcher.newest_of_wheels(request, package, &index).map(Some).map_err(of_tool)
            }
            (ToolFrom::Npm, ..) => {
                let package = fetched.package.as_deref().unwrap_or(&request.name);
                let settings = self.project.npm.settings().map_err(|error| problem(&error, error.hint()))?;
                fetcher.newest_of_npm(request, package, settings).map(Some).map_err(of_tool)
            }
            (ToolFrom::Index, Some(list), _) => {
                let text = match url::Url::parse(list) {
                    Ok(url) if matches!(url.scheme(), "http" | "https") => fetcher
                        .text(&format!("the list of tool {}", request.name), &url)
                        .map_err(|error| problem(&error, error.hint()))?,
                    _ => {
                        let path = RelPath::root().resolve(list).map_err(|error| problem(&error, None))?;
                        let path = path.on(&self.project.workspace.root);
                        fs_err::read_to_string(path).map_err(|error| problem(&error, None))?
                    }
                };
                fetcher.newest_of_list(request, list, &text).map(Some).map_err(of_tool)
            }
            (ToolFrom::Github, _, Some(repo)) => {
                fetcher.newest_of_releases(request, &self.project.settings.forge, repo).map(Some).map_err(of_tool)
            }
            _ => Ok(None),
        }
    }

    /// The packages of this machine: whether their files are still there. Which versions would be chosen now only resolving them
    /// again can tell.
    fn packages(&self, fetcher: &Fetcher) -> Result<Vec<Row>, Failure> {
        let (_, packages) = self.project.equipment_files(self.lock, self.members)?;
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        let index = self.project.package_index()?;
        let mut files = BTreeMap::new();
        for (pin, selected) in &packages {
            for one in selected {
                files.entry(one.file.sha256).or_insert((index_for(&index, &one.name, &pin.index)?, one));
            }
        }
        let questions: Vec<_> =
            files.values().map(|(index, one)| (index.as_ref(), one.name.as_str(), &one.file)).collect();
        let row = |(one, standing): (&Selected, Result<Standing, FetchError>)| Row {
            kind: "package",
            name: format!("{} {}", one.name, one.version),
            standing: standing.map_err(|error| problem(&error, None)),
        };
        let standings = fetcher.index_standings(&questions);
        let mut rows: Vec<Row> = files.values().map(|(_, one)| *one).zip(standings).map(row).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// An image: whether its tag still names what is locked.
    fn image(&self, fetcher: &Fetcher, image: &ImageReference) -> Option<Row> {
        let pin = self.lock.image(image)?;
        let standing = match image.digest() {
            Some(_) => Ok(Standing::Same { by: "digest" }),
            None => fetcher.image_now(image).map_err(|error| problem(&error, error.hint())).map(|now| {
                let words = |digest| format!("sha256:{digest}");
                match now == pin.digest {
                    true => Standing::Same { by: "digest" },
                    false => Standing::Moved { locked: words(pin.digest), now: words(now) },
                }
            }),
        };
        Some(Row { kind: "image", name: image.to_string(), standing })
    }

    fn index(&self) -> Result<IndexSettings, Problem> {
        let failed = |failure: Failure| failure.problems.into_iter().next();
        self.project.package_index().map_err(|failure| {
            failed(failure).unwrap_or_else(|| Problem::Plain {
                message: "there is no package index".to_owned(),
                causes: Vec::new(),
                hints: Vec::new(),
            })
        })
    }
}

/// An error as it is shown, with what to do about it.
fn problem(error: &(dyn Error + 'static), hint: Option<String>) -> Problem {
    let mut problem = Problem::from_error(error);
    if let Problem::Plain { hints, .. } = &mut problem {
        hints.extend(hint);
    }
    problem
}

impl Row {
    fn stale(kind: &'static str, name: String) -> Row {
        let why = "train.toml asks for something else than is locked: run `trainlock lock`".to_owned();
        Row { kind, name, standing: Ok(Standing::Unknown { why }) }
    }

    fn print(&self, ui: &Ui) {
        let Row { kind, name, standing } = self;
        if ui.json() {
            let (state, by, locked, now, why) = match standing {
                Ok(Standing::Same { by }) => ("same", Some(*by), None, None, None),
                Ok(Standing::Moved { locked, now }) => ("moved", None, Some(locked), Some(now), None),
                Ok(Standing::Withdrawn { why }) => ("withdrawn", None, None, None, Some(why.clone())),
                Ok(Standing::Unknown { why }) => ("unknown", None, None, None, Some(why.clone())),
                Err(problem) => ("failed", None, None, None, Some(in_a_line(problem))),
            };
            ui.print_json(&json!({
                "kind": kind, "name": name, "state": state, "by": by, "locked": locked, "now": now, "why": why,
            }));
            return;
        }
        let words = match standing {
            Ok(Standing::Same { by }) if ui.verbose() => format!("as locked ({by})"),
            Ok(Standing::Same { .. }) => return,
            Ok(Standing::Moved { locked, now }) => format!("{} -> {}", short(locked), short(now)),
            Ok(Standing::Withdrawn { why }) if why.is_empty() => "withdrawn by its publisher".to_owned(),
            Ok(Standing::Withdrawn { why }) => format!("withdrawn by its publisher ({})", why.escape_debug()),
            Ok(Standing::Unknown { why }) => format!("not known: {why}"),
            Err(_) => "not asked: see the error below".to_owned(),
        };
        ui.print(&format!("{kind:<8} {name:<24} {words}"));
    }
}

/// A commit or digest by its first digits, as people read them.
fn short(text: &str) -> &str {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hash = hex.len() >= 40 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { &text[..text.len() - hex.len() + 12] } else { text }
}

fn in_a_line(problem: &Problem) -> String {
    match problem {
        Problem::Plain { message, causes, .. } => {
            let lines = std::iter::once(message).chain(causes).map(String::as_str);
            lines.collect::<Vec<_>>().join(": ")
        }
        Problem::Placed(diagnostic) => diagnostic.message.clone(),
    }
}
