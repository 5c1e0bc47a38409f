//! `trainlock outdated`.

use crate::cli::{Global, LockOptions, Select};
use crate::equip::{Builds, UV, index_for, newer_package};
use crate::exit::{Exit, Failure, Problem};
use crate::locking;
use crate::project::{self, Project};
use crate::ui::{Ui, printable};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use trainlock_env::python::Selected;
use trainlock_fetch::{FetchError, Fetcher, IndexFile, IndexSettings, LockedTool, Standing, ToolFetchError, Want};
use trainlock_lock::{Lock, Reason, satisfies, tool_satisfies};
use trainlock_store::Session;
use trainlock_types::{
    DataSource, FetchedTool, ImageReference, Name, PinnedFile, Platform, RelPath, ToolFrom, ToolProvider, ToolRequest,
    Validator,
};

/// Show which pins are no longer what train.toml's requests give
///
/// Asks each source for its commit, version, digest or size, and downloads nothing: of a plain address its size, and what its
/// server says of the bytes, are all that can be known. Nothing is written; `trainlock update NAME` moves a pin.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock outdated        # what would move\n  trainlock outdated -v     # the others too"
)]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
    /// Refused: only the sources know
    #[arg(long)]
    offline: bool,
}

/// What was asked about one pin.
struct Row {
    kind: &'static str,
    name: String,
    standing: Result<Standing, Problem>,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    if args.offline {
        return Err(Failure::new(Exit::Invalid, "`outdated` asks the sources of what is locked, which needs the network")
            .hint("`trainlock status` says without it what train.toml asks for and train.lock does not have; `trainlock audit --offline` counts the copies of each input"));
    }
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
    let count = |state: &[&str]| rows.iter().filter(|row| state.contains(&row.state())).count();
    let (same, moved) = (count(&["same"]), count(&["moved", "suspect", "withdrawn", "gone"]));
    let more: String = [("newer", "with newer versions"), ("unknown", "not known"), ("failed", "not asked")]
        .iter()
        .map(|(state, what)| (count(&[state]), what))
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!(", {n} {what}"))
        .collect();
    ui.status("Finished", format!("{same} as locked, {moved} outdated{more}"));
    if project.cancel().is_thrown() {
        return Err(Failure::new(Exit::Interrupted, "interrupted"));
    }
    let problems: Vec<Problem> = rows.into_iter().filter_map(|row| row.standing.err()).collect();
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
            let mut wants: Vec<(Want, Option<&Validator>)> = Vec::new();
            for request in wanted.data.iter().filter(|request| selected.contains(&request.member.as_ref())) {
                let Some(pin) = self.lock.data(request.member.as_ref(), &request.name) else { continue };
                if matches!(request.source, DataSource::Path(_)) {
                    continue;
                }
                if satisfies(pin, request).iter().any(Reason::relocks) {
                    rows.push(Row::stale("data", locking::shown(pin)));
                } else {
                    wants.push((project::want(pin, &request.source), pin.validator.as_ref()));
                }
            }
            let standings = fetcher.standings(&session, &wants);
            let row = |((want, _), standing): (&(Want, _), Result<Standing, FetchError>)| Row {
                kind: "data",
                name: want.name.clone(),
                standing: standing.map_err(|error| problem(&error, error.hint())),
            };
            rows.extend(wants.iter().zip(standings).map(row));
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            for request in &wanted.tools {
                if selected.contains(&request.member.as_ref()) || request.member.is_none() {
                    rows.extend(self.tool(&session, &fetcher, request));
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

    /// A fetched tool: whether it is what the request gives.
    fn tool(&self, session: &Session, fetcher: &Fetcher, request: &ToolRequest) -> Option<Row> {
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
        let files = pin.artifacts.iter().map(|(platform, artifact)| (*platform, &artifact.file)).collect();
        let locked = LockedTool { version: &pin.version, files };
        let standing = self.tool_standing(session, fetcher, (request, fetched), &locked);
        Some(Row { kind: "tool", name, standing })
    }

    fn tool_standing(
        &self,
        session: &Session,
        fetcher: &Fetcher,
        (request, fetched): (&ToolRequest, &FetchedTool),
        locked: &LockedTool<'_>,
    ) -> Result<Standing, Problem> {
        let of_tool = |error: ToolFetchError| problem(&error, error.hint());
        let of_fetch = |error: FetchError| match error.is_gone() {
            true => Ok(Standing::Gone { why: error.why() }),
            false => Err(problem(&error, error.hint())),
        };
        let unknown = |why: &str| Ok(Standing::Unknown { why: why.to_owned() });
        match (fetched.from, &fetched.index, &fetched.repo) {
            (ToolFrom::Pypi, ..) => {
                let package = fetched.package.as_deref().unwrap_or(&request.name);
                let index = self.project.package_index().map_err(first)?;
                fetcher.standing_of_wheels(request, package, &index, locked).map_err(of_tool)
            }
            (ToolFrom::Npm, ..) => {
                let package = fetched.package.as_deref().unwrap_or(&request.name);
                let settings = self.project.npm.settings().map_err(|error| problem(&error, error.hint()))?;
                fetcher.standing_of_npm(request, package, settings, locked).map_err(of_tool)
            }
            (ToolFrom::Index, Some(list), _) => {
                let text = match url::Url::parse(list) {
                    Ok(url) if matches!(url.scheme(), "http" | "https") => {
                        match fetcher.text(&format!("the list of tool {}", request.name), &url) {
                            Ok(text) => text,
                            Err(error) => return of_fetch(error),
                        }
                    }
                    _ => {
                        let path = RelPath::root().resolve(list).map_err(|error| problem(&error, None))?;
                        let path = path.on(&self.project.workspace.root);
                        fs_err::read_to_string(path).map_err(|error| problem(&error, None))?
                    }
                };
                fetcher.standing_of_list(request, (list, &text), locked).map_err(of_tool)
            }
            (ToolFrom::Github, _, Some(repo)) => {
                let api = &self.project.settings.forge;
                fetcher.standing_of_releases(request, (api, repo), &fetched.asset, locked).map_err(of_tool)
            }
            (ToolFrom::Python, ..) => {
                let resolver = self.lock.tools.iter().find(|pin| pin.name.as_str() == UV);
                let index = IndexSettings::default();
                let workshop = self.project.workshop(session, fetcher, &index, false);
                // What is not there yet is not brought for this.
                let resolver = match resolver.and_then(|pin| Some((pin, pin.artifacts.get(&Platform::host())?))) {
                    Some((pin, artifact)) => {
                        let file = &artifact.file;
                        let there = self.project.store.object(&file.sha256, Some(file.size));
                        there.map_err(|error| problem(&error, None))?.map(|_| pin)
                    }
                    None => None,
                };
                match workshop.list_of_builds(resolver).map_err(|error| problem(&error, error.hint()))? {
                    Builds::Listed(builds) => Ok(fetcher.standing_of_builds(request, &builds, locked)),
                    Builds::Unlisted(why) => unknown(why),
                    Builds::Unreachable(error) => of_fetch(error),
                    Builds::NotAsked => unknown(
                        "nothing on this machine lists the builds of Python: the uv that is locked is not in the store",
                    ),
                    Builds::Never => unknown("UV_PYTHON_DOWNLOADS says that builds of Python are not to be fetched"),
                }
            }
            _ => unknown("this kind of source is not asked"),
        }
    }

    /// The packages of this machine: whether their files are still there, and whether there are newer versions.
    fn packages(&self, fetcher: &Fetcher) -> Result<Vec<Row>, Failure> {
        let (_, packages) = self.project.equipment_files(self.lock, self.members)?;
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        let index = self.project.package_index();
        let mut files = BTreeMap::new();
        let mut rows = Vec::new();
        let name = |one: &Selected| format!("{} {}", one.name, one.version);
        for (pin, selected) in &packages {
            for one in selected {
                if files.contains_key(&one.file.sha256) {
                    continue;
                }
                let found = match &index {
                    Ok(index) => index_for(index, &one.name, &pin.index).map_err(|error| problem(&error, error.hint())),
                    Err(failure) => Err(first_of(failure)),
                };
                match found {
                    Ok(index) => drop(files.insert(one.file.sha256, (index, *pin, one))),
                    Err(problem) => rows.push(Row { kind: "package", name: name(one), standing: Err(problem) }),
                }
            }
        }
        let questions: Vec<_> =
            files.values().map(|(index, _, one)| (index.as_ref(), one.name.as_str(), &one.file)).collect();
        let newer = |file: &PinnedFile, listed: &[IndexFile]| {
            let (_, pin, one) = files.get(&file.sha256)?;
            Some((one.version.clone(), newer_package(self.lock, pin, one, listed)?))
        };
        let standings = fetcher.index_standings(&questions, newer);
        rows.extend(files.values().zip(standings).map(|((.., one), standing)| Row {
            kind: "package",
            name: name(one),
            standing: standing.map_err(|error| problem(&error, error.hint())),
        }));
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// An image: whether its tag still names what is locked.
    fn image(&self, fetcher: &Fetcher, image: &ImageReference) -> Option<Row> {
        let pin = self.lock.image(image)?;
        let standing = fetcher.image_standing(image, &pin.digest);
        let standing = standing.map_err(|error| problem(&error, error.hint()));
        Some(Row { kind: "image", name: image.to_string(), standing })
    }
}

/// What a failure says first.
fn first(failure: Failure) -> Problem {
    first_of(&failure)
}

fn first_of(failure: &Failure) -> Problem {
    failure.problems.first().cloned().unwrap_or_else(|| Problem::Plain {
        message: "there is no package index".to_owned(),
        causes: Vec::new(),
        hints: Vec::new(),
    })
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

    /// In a word, as in JSON.
    fn state(&self) -> &'static str {
        match &self.standing {
            Ok(Standing::Same { .. }) => "same",
            Ok(Standing::Moved { .. }) => "moved",
            Ok(Standing::Suspect { .. }) => "suspect",
            Ok(Standing::Newer { .. }) => "newer",
            Ok(Standing::Gone { .. }) => "gone",
            Ok(Standing::Withdrawn { .. }) => "withdrawn",
            Ok(Standing::Unknown { .. }) => "unknown",
            Err(_) => "failed",
        }
    }

    fn print(&self, ui: &Ui) {
        let Row { kind, name, standing } = self;
        if ui.json() {
            let (by, locked, now, why) = match standing {
                Ok(Standing::Same { by }) => (Some(*by), None, None, None),
                Ok(
                    Standing::Moved { locked, now }
                    | Standing::Suspect { locked, now }
                    | Standing::Newer { locked, now },
                ) => (None, Some(locked), Some(now), None),
                Ok(Standing::Withdrawn { why } | Standing::Gone { why } | Standing::Unknown { why }) => {
                    (None, None, None, Some(why.clone()))
                }
                Err(problem) => (None, None, None, Some(in_a_line(problem))),
            };
            ui.print_json(&json!({
                "kind": kind, "name": name, "state": self.state(), "by": by, "locked": locked, "now": now, "why": why,
            }));
            return;
        }
        let words = match standing {
            Ok(Standing::Same { by }) if ui.verbose() => format!("as locked ({by})"),
            Ok(Standing::Same { .. }) => return,
            Ok(Standing::Moved { locked, now }) => format!("{} -> {}", short(locked), short(now)),
            Ok(Standing::Suspect { locked, now }) => {
                format!("may have changed: {locked} -> {now}")
            }
            Ok(Standing::Newer { locked, now }) => {
                format!("{locked} -> {now}, if all that asks for it allows it")
            }
            Ok(Standing::Gone { why }) => format!("gone: {why}"),
            Ok(Standing::Withdrawn { why }) if why.is_empty() => "withdrawn by its publisher".to_owned(),
            Ok(Standing::Withdrawn { why }) => format!("withdrawn by its publisher ({why})"),
            Ok(Standing::Unknown { why }) => format!("not known: {why}"),
            Err(_) => "not asked: see the error below".to_owned(),
        };
        ui.print(&printable(&format!("{kind:<8} {name:<24} {words}")));
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
        Problem::Lacking(_) => "the network is off".to_owned(),
    }
}
