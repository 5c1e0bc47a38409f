//! What the paths of a whole workspace say: who writes what, who reads it, and in which order steps can run.

use crate::document::Report;
use crate::model::{InputPattern, Member, Origin, Output, StepId};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;
use trainlock_types::{DataSource, RelPath};

/// An output of a step, by its index.
type OutputId = (StepId, usize);
/// A data set of a member, by its index.
type DataId = (usize, usize);

/// Checks that no path is written twice, finds each input's origins and each step's needs, and orders the steps.
/// Where something is wrong it is told, and the order means nothing.
pub(crate) fn connect(members: &mut [Member], report: &mut Report) -> Vec<StepId> {
    let found = {
        let paths = Paths::of(members, report);
        paths.check_data(report);
        paths.check_outputs(report);
        paths.origins(report)
    };
    let mut found = found.into_iter();
    for member in members.iter_mut() {
        for step in &mut member.steps {
            for input in &mut step.inputs {
                input.origins = found.next().unwrap_or_default();
            }
            let origins = step.inputs.iter().flat_map(|i| &i.origins);
            let needs = origins.filter_map(|o| match o {
                Origin::Output { step, .. } => Some(*step),
                Origin::Data { .. } => None,
            });
            step.needs = needs.collect();
            step.needs.sort_unstable();
            step.needs.dedup();
        }
    }
    order(members, report)
}

/// All steps, in the order of the files.
fn steps(members: &[Member]) -> impl Iterator<Item = StepId> + '_ {
    let of = |(member, m): (usize, &Member)| (0..m.steps.len()).map(move |step| StepId { member, step });
    members.iter().enumerate().flat_map(of)
}

/// A path and the folders above it, the path first and the workspace's root last.
fn upwards(path: &str) -> impl Iterator<Item = &str> {
    // Paths are short: stepping through the bytes beats a search that is made for long texts.
    std::iter::successors(Some(path), |p| match p.bytes().rposition(|b| b == b'/') {
        Some(slash) => Some(&p[..slash]),
        None => (!p.is_empty()).then_some(""),
    })
}

struct Paths<'a> {
    members: &'a [Member],
    outputs: HashMap<&'a str, OutputId>,
    /// The first data set at a path, and the others.
    data: HashMap<&'a str, (DataId, Vec<DataId>)>,
    /// The folders that outputs and data lie in, and those above them.
    folders: HashSet<&'a str>,
    /// Whether any output lies inside another.
    nested: bool,
    /// Whether any data set lies where another does, or inside it.
    shared: bool,
    /// The paths of outputs and of data, sorted by their bytes, so that all below a folder stand together. Nearly no
    /// workspace has an input above them, so that they are sorted when the first one comes.
    sorted: OnceCell<(Vec<&'a str>, Vec<&'a str>)>,
}

impl<'a> Paths<'a> {
    fn of(members: &'a [Member], report: &mut Report) -> Paths<'a> {
        let mut outputs: HashMap<&str, OutputId> = HashMap::new();
        let mut data: HashMap<&str, (DataId, Vec<DataId>)> = HashMap::new();
        data.reserve(members.iter().map(|m| m.data.len()).sum());
        let mut shared = false;
        for (index, member) in members.iter().enumerate() {
            for (i, set) in member.data.iter().enumerate() {
                match data.entry(set.request.to.as_str()) {
                    Entry::Vacant(place) => drop(place.insert(((index, i), Vec::new()))),
                    Entry::Occupied(mut place) => {
                        shared = true;
                        place.get_mut().1.push((index, i));
                    }
                }
            }
        }
        for id in steps(members) {
            let member = &members[id.member];
            for (i, output) in member.steps[id.step].outputs.iter().enumerate() {
                if let Some((first, o)) = outputs.insert(output.path.as_str(), (id, i)) {
                    // The first stays the owner, so that each later one is told of the same place.
                    outputs.insert(output.path.as_str(), (first, o));
                    let owner = &members[first.member].steps[first.step];
                    report
                        .error(
                            &member.source,
                            output.span.clone(),
                            format!("`{}` is an output of two steps", output.written),
                        )
                        .label(format!("also an output of `{}`", owner.name))
                        .help("each path is written by one step: write to another place")
                        .related(
                            &members[first.member].source,
                            owner.outputs[o].span.clone(),
                            format!("step `{}` writes it", owner.name),
                        );
                }
            }
        }
        let mut folders = HashSet::new();
        for path in outputs.keys().chain(data.keys()) {
            for folder in upwards(path).skip(1) {
                if !folders.insert(folder) {
                    break;
                }
            }
        }
        let nested = folders.iter().any(|folder| outputs.contains_key(folder));
        shared |= folders.iter().any(|folder| data.contains_key(folder));
        Paths { members, outputs, data, folders, nested, shared, sorted: OnceCell::new() }
    }

    /// The data sets at a path.
    fn data_at(&self, path: &str) -> impl Iterator<Item = DataId> {
        let found = self.data.get(path).into_iter();
        found.flat_map(|(first, others)| std::iter::once(first).chain(others).copied())
    }

    /// The paths of outputs and of data that lie inside a folder.
    fn inside(&self, folder: &str) -> (&[&'a str], &[&'a str]) {
        if !self.folders.contains(folder) {
            return (&[], &[]);
        }
        let (outputs, data) = self.sorted.get_or_init(|| {
            let mut outputs: Vec<&str> = self.outputs.keys().copied().collect();
            let mut data: Vec<&str> = self.data.keys().copied().collect();
            outputs.sort_unstable();
            data.sort_unstable();
            (outputs, data)
        });
        (below(outputs, folder), below(data, folder))
    }

    fn output(&self, (id, index): OutputId) -> &'a Output {
        &self.members[id.member].steps[id.step].outputs[index]
    }

    /// No two data sets lie at one place or one inside the other. What lies in the repository may be named by
    /// several members, since nobody writes it.
    fn check_data(&self, report: &mut Report) {
        if !self.shared {
            return;
        }
        let fetched = |id: DataId| !matches!(self.members[id.0].data[id.1].request.source, DataSource::Path(_));
        for (m, member) in self.members.iter().enumerate() {
            for (i, set) in member.data.iter().enumerate() {
                let to = set.request.to.as_str();
                for other in upwards(to).flat_map(|p| self.data_at(p)) {
                    let same_place = self.members[other.0].data[other.1].request.to == set.request.to;
                    // Two at the same place are told once, at the later one.
                    if other == (m, i) || same_place && other > (m, i) {
                        continue;
                    }
                    if other.0 != m && !fetched(other) && !fetched((m, i)) {
                        continue;
                    }
                    let first = &self.members[other.0].data[other.1];
                    let (name, place) = (&set.request.name, &first.request.name);
                    let message = if same_place {
                        format!("data `{name}` and `{place}` lie at the same place, `{to}`")
                    } else {
                        format!("data `{name}` (at `{to}`) lies inside data `{place}` (at `{}`)", first.request.to)
                    };
                    report
                        .error(&set.source, set.span.clone(), message)
                        .help("give one of them another place with `to`")
                        .related(&first.source, first.span.clone(), format!("data `{place}`"));
                }
            }
        }
    }

    /// No output lies inside another, and none touches data.
    fn check_outputs(&self, report: &mut Report) {
        for id in steps(self.members) {
            let member = &self.members[id.member];
            for output in &member.steps[id.step].outputs {
                let path = output.path.as_str();
                let above = upwards(path).skip(1).take_while(|_| self.nested);
                for above in above.filter_map(|p| self.outputs.get(p)) {
                    let outer = self.output(*above);
                    let owner = &self.members[above.0.member];
                    let whose = if above.0 == id {
                        "of the same step".to_owned()
                    } else {
                        format!("of step `{}`", owner.steps[above.0.step].name)
                    };
                    report
                        .error(
                            &member.source,
                            output.span.clone(),
                            format!("output `{}` lies inside output `{}` {whose}", output.written, outer.written),
                        )
                        .help("name the files, or the folder that holds them all, but not both")
                        .related(&owner.source, outer.span.clone(), "the folder");
                }
                let around = upwards(path).flat_map(|p| self.data_at(p));
                let (_, inside) = self.inside(path);
                let inside = inside.iter().flat_map(|p| self.data_at(p));
                if let Some(id) = around.chain(inside).next() {
                    let set = &self.members[id.0].data[id.1];
                    let name = &set.request.name;
                    report
                        .error(
                            &member.source,
                            output.span.clone(),
                            format!(
                                "output `{}` is in the place of data `{name}` (at `{}`)",
                                output.written, set.request.to
                            ),
                        )
                        .help("no step writes what `[data]` has: write to another place")
                        .related(&set.source, set.span.clone(), format!("data `{name}`"));
                }
            }
        }
    }

    /// The origins of each input of each step, in order. A step's own outputs are no inputs of it: told.
    fn origins(&self, report: &mut Report) -> Vec<Vec<Origin>> {
        let mut all = Vec::new();
        for id in steps(self.members) {
            let member = &self.members[id.member];
            for input in &member.steps[id.step].inputs {
                let (path, folder): (&RelPath, bool) = match &input.pattern {
                    InputPattern::Path { path, .. } => (path, true),
                    // What a glob finds below its folder are source files.
                    InputPattern::Glob { folder, .. } => (folder, false),
                };
                let path = path.as_str();
                let (outputs, data) = if folder { self.inside(path) } else { Default::default() };
                let outputs = upwards(path).chain(outputs.iter().copied());
                let data = upwards(path).chain(data.iter().copied());
                let mut origins = Vec::new();
                for (step, output) in outputs.filter_map(|p| self.outputs.get(p)) {
                    if *step == id {
                        let own = self.output((*step, *output));
                        report
                            .error(&member.source, input.span.clone(), format!("input `{}` takes in the step's own output `{}`", input.written, own.written))
                            .help("a step can't read what it writes: name what it reads more narrowly, or write to another place")
                            .related(&member.source, own.span.clone(), "the output");
                    } else {
                        origins.push(Origin::Output { step: *step, output: *output });
                    }
                }
                for (member, data) in data.flat_map(|p| self.data_at(p)) {
                    origins.push(Origin::Data { member, data });
                }
                origins.sort_unstable();
                all.push(origins);
            }
        }
        all
    }
}

/// Those of sorted paths that lie inside a folder.
fn below<'s, 'a>(sorted: &'s [&'a str], folder: &str) -> &'s [&'a str] {
    if folder.is_empty() {
        return sorted;
    }
    // All paths `folder/…` stand together, behind `folder` and behind those that go on with a byte before `/`.
    let inside = |p: &&str| p.starts_with(folder) && p.as_bytes().get(folder.len()) == Some(&b'/');
    let before = |p: &&str| *p <= folder || p.starts_with(folder) && p.as_bytes()[folder.len()] < b'/';
    let start = sorted.partition_point(before);
    let count = sorted[start..].partition_point(inside);
    &sorted[start..start + count]
}

/// The steps, each behind those that it needs. Every cycle is told.
fn order(members: &[Member], report: &mut Report) -> Vec<StepId> {
    // Steps are numbered through all members.
    let ids: Vec<StepId> = steps(members).collect();
    let mut first = Vec::with_capacity(members.len());
    let mut count = 0;
    for member in members {
        first.push(count);
        count += member.steps.len();
    }
    let number = |id: &StepId| first[id.member] + id.step;
    let needs = |n: usize| members[ids[n].member].steps[ids[n].step].needs.iter().map(number);

    let mut open: Vec<usize> = (0..count).map(|n| needs(n).len()).collect();
    let mut done = vec![false; count];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
    for n in 0..count {
        needs(n).for_each(|need| users[need].push(n));
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..count).filter(|n| open[*n] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(count);
    let mut waiting = count;
    loop {
        while let Some(Reverse(n)) = ready.pop() {
            done[n] = true;
            order.push(ids[n]);
            for user in &users[n] {
                open[*user] -= 1;
                if open[*user] == 0 && !done[*user] {
                    ready.push(Reverse(*user));
                }
            }
        }
        // Whatever still waits is in a cycle or behind one. Each cycle that is found is taken as done, so that
        // the next one shows. (What is done stays done, so that the search goes from the end to the beginning once.)
        while waiting > 0 && done[waiting - 1] {
            waiting -= 1;
        }
        if waiting == 0 {
            return order;
        }
        let cycle = cycle(waiting - 1, |n| needs(n).find(|need| !done[*need]));
        let steps: Vec<StepId> = cycle.iter().map(|n| ids[*n]).collect();
        tell(members, &steps, report);
        for n in cycle {
            done[n] = true;
            ready.push(Reverse(n));
        }
    }
}

/// A cycle that is reached from a step by always going to one that it needs; beginning with its first step in
/// the files. Each step that still waits needs another one that waits.
fn cycle(from: usize, next: impl Fn(usize) -> Option<usize>) -> Vec<usize> {
    let mut path = Vec::new();
    let mut places = HashMap::new();
    let mut at = Some(from);
    while let Some(n) = at {
        if let Some(start) = places.insert(n, path.len()) {
            path.drain(..start);
            break;
        }
        path.push(n);
        at = next(n);
    }
    let first = (0..path.len()).min_by_key(|i| path[*i]).unwrap_or(0);
    path.rotate_left(first);
    path
}

fn tell(members: &[Member], cycle: &[StepId], report: &mut Report) {
    let Some(first) = cycle.first() else { return };
    let label = |id: &StepId| {
        let member = &members[id.member];
        let step = &member.steps[id.step].name;
        if member.dir.is_root() { format!("`{step}`") } else { format!("`{}/{step}`", member.name) }
    };
    // A long cycle is told by its beginning and its end.
    const SHOWN: usize = 8;
    let rest = cycle.len().saturating_sub(SHOWN);
    let mut text = format!("steps need each other: {}", label(first));
    for (i, id) in cycle.iter().enumerate().skip(1) {
        match i {
            1 => text.push_str(&format!(" needs {}", label(id))),
            SHOWN if rest > 1 => text.push_str(&format!(", which needs {} more", rest - 1)),
            _ if i > SHOWN && i + 1 < cycle.len() => {}
            _ => text.push_str(&format!(", which needs {}", label(id))),
        }
    }
    text.push_str(&format!(", which needs {}", label(first)));
    let owner = &members[first.member];
    let mut found = report
        .error(&owner.source, owner.steps[first.step].span.clone(), text)
        .help("take one of these inputs away, or split a step");
    for (id, next) in cycle.iter().zip(cycle.iter().skip(1).chain([first])).take(SHOWN) {
        let member = &members[id.member];
        let reads = |o: &Origin| matches!(o, Origin::Output { step, .. } if step == next);
        if let Some(input) = member.steps[id.step].inputs.iter().find(|i| i.origins.iter().any(reads)) {
            found = found.related(&member.source, input.span.clone(), format!("an output of {}", label(next)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upwards_ends_at_the_root() {
        assert_eq!(upwards("a/b/c").collect::<Vec<_>>(), ["a/b/c", "a/b", "a", ""]);
        assert_eq!(upwards("").collect::<Vec<_>>(), [""]);
    }

    proptest! {
        #[test]
        fn below_is_what_a_scan_finds(
            paths in proptest::collection::btree_set("[ab+](/[ab.]){0,3}", 0..24),
            folder in "[ab](/[ab])?",
        ) {
            let sorted: Vec<&str> = paths.iter().map(String::as_str).collect();
            let folder_slash = format!("{folder}/");
            let expected: Vec<&str> = sorted.iter().copied().filter(|p| p.starts_with(&folder_slash)).collect();
            prop_assert_eq!(below(&sorted, &folder), &expected[..]);
        }
    }
}
