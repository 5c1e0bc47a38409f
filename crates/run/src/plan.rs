//! The plan: which steps, in which order, fed by what.

use crate::sources::{SourceError, Sources, matcher};
use globset::GlobMatcher;
use std::collections::{BTreeSet, HashMap, HashSet};
use trainlock_env::Outfit;
use trainlock_manifest::{Data, Input, InputPattern, Member, Origin, Step, StepId, Workspace};
use trainlock_types::{DataSource, Diagnostic, RelPath, nearest};

/// The steps of one command, each behind those that it needs.
#[derive(Debug)]
pub struct Plan<'w> {
    /// The steps, in an order in which they can run.
    pub nodes: Vec<Node<'w>>,
}

/// One step of a plan.
#[derive(Debug)]
pub struct Node<'w> {
    /// `member/step`, or `step` in the root project.
    pub id: String,
    /// The project that it belongs to.
    pub member: &'w Member,
    /// The step.
    pub step: &'w Step,
    /// What feeds each of the step's declared inputs, in their order.
    pub inputs: Vec<Vec<Feed<'w>>>,
    /// The nodes that must be done before, ascending.
    pub needs: Vec<usize>,
}

/// What one declared input, or a part of it, is fed by.
#[derive(Debug)]
pub enum Feed<'w> {
    /// A source file of the repository.
    Source(RelPath),
    /// A data set of the step's own project or of another in the workspace.
    Data {
        /// The data set.
        data: &'w Data,
        /// Which part of it.
        part: Part,
    },
    /// An output of another step.
    Output {
        /// The node, in the plan.
        node: usize,
        /// Which of its outputs.
        output: usize,
        /// Which part of it.
        part: Part,
    },
}

/// Which part of a data set or output an input names.
#[derive(Debug)]
pub enum Part {
    /// All of it.
    Whole,
    /// A file or folder inside it.
    Below(RelPath),
    /// The files below a folder of the workspace whose path from there matches.
    Matching(RelPath, Box<GlobMatcher>),
}

/// Why a plan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No such step.
    #[error("no step `{name}`{}", near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownStep {
        /// As asked for.
        name: String,
        /// The step that was probably meant.
        near: Option<String>,
    },
    /// Inputs that nothing feeds.
    #[error("inputs are missing")]
    Inputs(Vec<Diagnostic>),
    /// The sources could not be listed.
    #[error(transparent)]
    Sources(#[from] SourceError),
}

impl<'w> Plan<'w> {
    /// A plan of the steps named by `targets` (`step`, or `member/step`; all of `members` if there are
    /// none) and of all that they need.
    pub fn new(workspace: &'w Workspace, members: &[usize], targets: &[String]) -> Result<Plan<'w>, PlanError> {
        let mut chosen = wanted(workspace, members, targets)?;
        let mut open: Vec<StepId> = chosen.iter().copied().collect();
        while let Some(id) = open.pop() {
            open.extend(workspace.step(id).needs.iter().filter(|need| chosen.insert(**need)));
        }
        let order: Vec<StepId> = workspace.order.iter().filter(|id| chosen.contains(id)).copied().collect();
        let place: HashMap<StepId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let made = made(workspace);
        let mut sources = Sources::new(&workspace.root);
        let mut problems = Vec::new();
        let mut nodes = Vec::with_capacity(order.len());
        for id in order {
            let (member, step) = (&workspace.members[id.member], workspace.step(id));
            let mut inputs = Vec::with_capacity(step.inputs.len());
            for input in &step.inputs {
                let feeds = feeds(workspace, input, &place, &made, &mut sources)?;
                if feeds.is_empty() {
                    problems.push(missing(workspace, &made, member, input));
                }
                inputs.push(feeds);
            }
            let mut needs: Vec<usize> = step.needs.iter().map(|need| place[need]).collect();
            needs.sort_unstable();
            nodes.push(Node { id: workspace.label(id), member, step, inputs, needs });
        }
        if problems.is_empty() { Ok(Plan { nodes }) } else { Err(PlanError::Inputs(problems)) }
    }

    /// All source files that the plan reads, each once, sorted.
    pub fn sources(&self) -> Vec<&RelPath> {
        let feeds = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        let mut paths: Vec<&RelPath> =
            feeds.filter_map(|f| if let Feed::Source(path) = f { Some(path) } else { None }).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

impl<'w> Node<'w> {
    /// Whose equipment it has.
    pub fn outfit(&self) -> Outfit {
        (self.member.name.clone(), self.step.image.clone())
    }

    /// The data sets that the step reads.
    pub fn data(&self) -> impl Iterator<Item = &'w Data> + '_ {
        self.inputs.iter().flatten().filter_map(|f| if let Feed::Data { data, .. } = f { Some(*data) } else { None })
    }

    /// The data sets of which the step reads parts only, so that its key needs their listing.
    pub fn data_in_parts(&self) -> impl Iterator<Item = &'w Data> + '_ {
        self.inputs.iter().flatten().filter_map(|f| match f {
            Feed::Data { part: Part::Whole, .. } => None,
            Feed::Data { data, .. } => Some(*data),
            _ => None,
        })
    }
}

/// The steps that were asked for.
fn wanted(workspace: &Workspace, members: &[usize], targets: &[String]) -> Result<BTreeSet<StepId>, PlanError> {
    let of = |member: usize| (0..workspace.members[member].steps.len()).map(move |step| StepId { member, step });
    if targets.is_empty() {
        return Ok(members.iter().flat_map(|m| of(*m)).collect());
    }
    let mut names: HashMap<String, StepId> = HashMap::new();
    for id in (0..workspace.members.len()).flat_map(of) {
        let member = &workspace.members[id.member];
        let step = &workspace.step(id).name;
        names.insert(format!("{}/{step}", member.name), id);
        if members.contains(&id.member) {
            names.insert(step.to_string(), id);
        }
    }
    let unknown = |name: &String| PlanError::UnknownStep {
        name: name.clone(),
        near: nearest(name, names.keys().map(String::as_str)).map(str::to_owned),
    };
    targets.iter().map(|name| names.get(name).copied().ok_or_else(|| unknown(name))).collect()
}

/// Every path that a step writes or that holds data: no source file.
fn made(workspace: &Workspace) -> HashSet<&RelPath> {
    let outputs = workspace.members.iter().flat_map(|m| m.steps.iter().flat_map(|s| s.outputs.iter().map(|o| &o.path)));
    outputs.chain(workspace.members.iter().flat_map(|m| m.data.iter().map(|d| &d.request.to))).collect()
}

/// Whether a path is one of these or lies below one.
fn is_made(path: &RelPath, made: &HashSet<&RelPath>) -> bool {
    let mut above = Some(path.clone());
    while let Some(folder) = above {
        if made.contains(&folder) {
            return true;
        }
        above = folder.parent();
    }
    false
}

fn feeds<'w>(
    workspace: &'w Workspace,
    input: &Input,
    place: &HashMap<StepId, usize>,
    made: &HashSet<&RelPath>,
    sources: &mut Sources<'w>,
) -> Result<Vec<Feed<'w>>, SourceError> {
    let mut feeds = Vec::new();
    for origin in &input.origins {
        let of = |path: &RelPath| {
            Ok(match &input.pattern {
                InputPattern::Path { path: wanted, .. } => match wanted.below(path) {
                    Some(below) if !below.is_root() => Part::Below(below),
                    _ => Part::Whole,
                },
                InputPattern::Glob { folder, glob } => Part::Matching(folder.clone(), Box::new(matcher(glob)?)),
            })
        };
        feeds.push(match origin {
            Origin::Output { step, output } => {
                let part = of(&workspace.step(*step).outputs[*output].path)?;
                Feed::Output { node: place[step], output: *output, part }
            }
            Origin::Data { member, data } => {
                let data = &workspace.members[*member].data[*data];
                Feed::Data { data, part: of(&data.request.to)? }
            }
        });
    }
    let not_made = |path: &RelPath| !is_made(path, made);
    match &input.pattern {
        InputPattern::Path { path, .. } if not_made(path) => match fs_err::metadata(path.on(&workspace.root)) {
            Ok(found) if found.is_dir() => {
                feeds.extend(sources.folder(path)?.iter().filter(|p| not_made(p)).cloned().map(Feed::Source));
            }
            Ok(_) => feeds.push(Feed::Source(path.clone())),
            Err(_) => {}
        },
        InputPattern::Glob { folder, glob } if input.origins.is_empty() => {
            feeds.extend(sources.glob(folder, glob)?.into_iter().filter(not_made).map(Feed::Source));
        }
        _ => {}
    }
    Ok(feeds)
}

/// An input that is neither on disk nor made by anything: with the path that was probably meant.
fn missing(workspace: &Workspace, made: &HashSet<&RelPath>, member: &Member, input: &Input) -> Diagnostic {
    let (label, folder) = match &input.pattern {
        InputPattern::Path { path, folder: true } if path.on(&workspace.root).is_dir() => {
            ("this folder is empty (but for what git ignores)", path.clone())
        }
        InputPattern::Path { path, .. } => ("nothing is here, and no step makes it", path.parent().unwrap_or_default()),
        InputPattern::Glob { folder, .. } => ("no file matches this", folder.clone()),
    };
    let beside = fs_err::read_dir(folder.on(&workspace.root))
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect::<Vec<_>>())
        .unwrap_or_default();
    let beside = beside.iter().filter_map(|name| folder.resolve(name).ok());
    let known: Vec<String> =
        made.iter().map(|p| (*p).clone()).chain(beside).map(|p| p.relative_to(&member.dir)).collect();
    let near = nearest(input.written.trim_end_matches('/'), known.iter().map(String::as_str));
    Diagnostic {
        source: member.source.clone(),
        span: input.span.clone(),
        message: format!("input `{}` is missing", input.written),
        label: label.to_owned(),
        help: near.map(|near| format!("did you mean `{near}`?")),
        related: Vec::new(),
    }
}

/// Whether a data set is a file or folder of the repository itself.
pub fn is_in_repository(data: &Data) -> bool {
    matches!(data.request.source, DataSource::Path(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Project;

    const CHAIN: &str = r#"
[steps.one]
run = "x"
inputs = ["src/*.py"]
outputs = ["build/one", "src/made.py"]

[steps.two]
run = "x"
inputs = ["build/one", "src/"]
outputs = ["build/two"]

[steps.aside]
run = "x"
outputs = ["build/aside"]
"#;

    fn ids(plan: &Plan<'_>) -> Vec<String> {
        plan.nodes.iter().map(|n| n.id.clone()).collect()
    }

    #[test]
    fn a_step_comes_with_what_it_needs() {
        let files = [("src/a.py", "a"), ("src/b.txt", "b"), ("src/made.py", "old"), ("src/deep/c.py", "c")];
        let project = Project::new(CHAIN, &files);
        let plan = |targets: &[&str]| {
            let targets: Vec<String> = targets.iter().map(|t| (*t).to_owned()).collect();
            Plan::new(&project.workspace, &[0], &targets)
        };
        let mut all = ids(&plan(&[]).unwrap());
        all.sort();
        assert_eq!(all, ["aside", "one", "two"]);
        let two = plan(&["two"]).unwrap();
        assert_eq!(ids(&two), ["one", "two"]);
        assert_eq!(ids(&plan(&["t/aside", "one"]).unwrap()).len(), 2);
        assert_eq!(two.nodes[1].needs, [0]);
        let error = plan(&["tow"]).unwrap_err().to_string();
        assert_eq!(error, "no step `tow`; did you mean `two`?");
        // What a step makes is no source, even where a glob or a folder would take it.
        let sources: Vec<&str> = two.sources().into_iter().map(RelPath::as_str).collect();
        assert_eq!(sources, ["src/a.py", "src/b.txt", "src/deep/c.py"]);
        let of = |i: usize| two.nodes[i].inputs.iter().flatten().filter(|f| matches!(f, Feed::Source(_))).count();
        assert_eq!((of(0), of(1)), (1, 3));
    }

    #[test]
    fn inputs_that_nothing_feeds_are_all_named() {
        let manifest = r#"
[steps.one]
run = "x"
inputs = ["src/trian.py", "src/*.rs", "empty/", "build/too"]
outputs = ["build/two"]
"#;
        let project = Project::new(manifest, &[("src/train.py", ""), ("empty/.gitignore", "*\n")]);
        let Err(PlanError::Inputs(problems)) = Plan::new(&project.workspace, &[0], &[]) else {
            panic!("the inputs are not there")
        };
        let words: Vec<(&str, &str, Option<&str>)> =
            problems.iter().map(|p| (p.message.as_str(), p.label.as_str(), p.help.as_deref())).collect();
        let nothing = "nothing is here, and no step makes it";
        assert_eq!(words[0], ("input `src/trian.py` is missing", nothing, Some("did you mean `src/train.py`?")));
        assert_eq!(words[1].1, "no file matches this");
        assert_eq!(words[2].1, "this folder is empty (but for what git ignores)");
        assert_eq!(words[3], ("input `build/too` is missing", nothing, Some("did you mean `build/two`?")));
        assert_eq!(words.len(), 4);
    }
}
