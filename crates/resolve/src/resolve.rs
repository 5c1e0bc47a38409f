//! Deciding, asking and putting together.
//!
//! Every entry is first judged without asking anyone: kept, rewritten (its request changed in a way
//! that leaves the content as it is), stated (the manifest gives sha256 and size), or to be asked for. Content of the
//! repository is always looked at. [`stale`] ends there; [`resolve`] then asks, all at once.

use crate::change;
use crate::{BoxError, DataAnswer, ImageAnswer, Provider, ResolveWith, ToolAnswer, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use trainlock_lock::{
    Action, Change, Content, DataPin, Healed, ImagePin, Lock, PackagePin, PythonPin, Reason, Subject, ToolPin, Why,
    python_satisfies, satisfies, tool_satisfies,
};
use trainlock_types::{
    Checksum, DataRequest, DataSource, ImageReference, Name, Params, PythonRequest, RelPath, ToolRequest, nearest,
};

/// How far locking may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Touch only what no longer satisfies the manifest.
    Lock,
    /// Ask also for what satisfies it, to move to the newest.
    Update {
        /// The data sets and tools to move, in whatever member; none for all.
        names: Option<BTreeSet<String>>,
    },
}

/// A new lock, and how it differs from the old one.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The lock.
    pub lock: Lock,
    /// The differences, in the order of the lock. Empty exactly if the old lock holds the same.
    pub changes: Vec<Change>,
}

/// Why one thing could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A data set or tool about which nothing could be found out.
    #[error("could not lock {subject}")]
    Source {
        /// The data set or tool.
        subject: Subject,
        /// What its source or provider said.
        #[source]
        source: BoxError,
    },
    /// A tool is there in a version that the manifest does not allow.
    #[error("{subject} has version {found}, which does not satisfy {wanted}")]
    ToolVersion {
        /// The tool.
        subject: Subject,
        /// What is there.
        found: Box<semver::Version>,
        /// The requirement as written.
        wanted: Box<str>,
    },
    /// A source answered something else than was asked for.
    #[error("{subject} is not what the manifest asks for: {}", .reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; "))]
    Answer {
        /// The data set.
        subject: Subject,
        /// In what.
        reasons: Vec<Reason>,
    },
    /// Nothing of this name is there to be updated.
    #[error("there is no data set, tool, package or image `{name}`{}", .near.as_ref().map_or(String::new(), |near| format!(": did you mean `{near}`?")))]
    UnknownName {
        /// The name.
        name: String,
        /// One that is there, if it is near.
        near: Option<String>,
    },
}

/// Makes the lock that satisfies what is wanted, asking only for what the old one does not answer.
///
/// # Errors
///
/// All that could not be locked, together.
pub fn resolve(
    wanted: &Wanted,
    old: Option<&Lock>,
    mode: &Mode,
    provider: &mut dyn Provider,
) -> Result<Resolution, Vec<ResolveError>> {
    let mut errors = unknown_names(wanted, old, mode);
    if !errors.is_empty() {
        return Err(errors);
    }
    let none = Lock::default();
    let old = old.unwrap_or(&none);
    let mut data = judge_data(wanted, old, mode);
    ask_paths(&mut data, provider, &mut errors);

    let asked: Vec<usize> = (0..data.len()).filter(|i| matches!(data[*i].verdict, Verdict::Ask)).collect();
    let requests: Vec<&DataRequest> = asked.iter().map(|i| data[*i].request).collect();
    if !requests.is_empty() {
        let answers = provider.data(&requests);
        assert_eq!(answers.len(), requests.len(), "a provider answers each request");
        for (i, answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(DataAnswer { resolved, content, archive, versions, validator }) => {
                    let pin = DataPin::new(data[i].request, resolved, content.clone(), archive);
                    let pin = pin.with_versions(content.clone(), versions).with_validator(validator);
                    let reasons = satisfies(&pin, data[i].request);
                    if !reasons.is_empty() {
                        errors.push(ResolveError::Answer { subject: data[i].subject(), reasons });
                        continue;
                    }
                    data[i].found(pin, content);
                }
                Err(source) => errors.push(data[i].error(source)),
            }
        }
    }
    let mut tools = judge_tools(wanted, old, mode);
    // Interpreters come last: what resolves their packages knows which builds there are.
    let mut open: Vec<usize> = (0..tools.len()).filter(|i| tools[*i].pin.is_none()).collect();
    open.sort_by_key(|i| trainlock_types::is_python(&tools[*i].request.name));
    for i in open {
        let resolver = tools.iter().filter(|tool| tool.request.name.as_str() == RESOLVER);
        let resolver = resolver.filter_map(|tool| tool.pin.clone()).next();
        let tool = &mut tools[i];
        let (request, subject) = (tool.request, tool.subject());
        match provider.tool(request, resolver.as_ref()) {
            Ok(ToolAnswer { version: found, .. }) if !request.requirement.matches(&found) => {
                errors.push(ResolveError::ToolVersion {
                    subject,
                    found: Box::new(found),
                    wanted: request.version.as_str().into(),
                });
            }
            Ok(ToolAnswer { version, artifacts, hash_from }) => {
                tool.found(ToolPin::new(request, version, artifacts, hash_from));
            }
            Err(source) => errors.push(ResolveError::Source { subject, source }),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut python = judge_python(wanted, old, mode, &tools);
    for i in 0..python.len() {
        // They are sorted: [python] itself goes before the profiles.
        let (before, rest) = python.split_at_mut(i);
        let entry = &mut rest[0];
        if entry.pin.is_some() {
            continue;
        }
        let own = before.iter().find(|other| other.place() == (entry.request.member.as_ref(), None));
        let base = own.map(|own| own.packages.as_slice()).unwrap_or_default();
        if let Err(error) = entry.ask(old, mode, &tools, base, provider) {
            errors.push(error);
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut images = judge_images(wanted, old, mode);
    for image in images.iter_mut().filter(|image| image.pin.is_none()) {
        match provider.image(image.reference) {
            Ok(ImageAnswer { digest, platforms }) => {
                let extra = image.old.filter(|old| old.digest == digest).map(|old| old.extra.clone());
                let (reference, extra) = (image.reference.clone(), extra.unwrap_or_default());
                image.pin = Some(ImagePin { reference, digest, platforms, extra });
            }
            Err(source) => errors.push(ResolveError::Source { subject: image.subject(), source }),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let changes = changes(wanted, old, &data, &tools, &python, &images);
    let mut packages: Vec<PackagePin> = python.iter().flat_map(|entry| entry.packages.iter().cloned()).collect();
    packages.sort_by(|a, b| a.place().cmp(&b.place()));
    let mut lock = Lock {
        python: python.into_iter().filter_map(|entry| entry.pin).collect(),
        packages,
        data: data.into_iter().filter_map(Entry::into_pin).collect(),
        tools: tools.into_iter().filter_map(|tool| tool.pin).collect(),
        images: images.into_iter().filter_map(|image| image.pin).collect(),
        results: old.results.clone(),
        extra: old.extra.clone(),
        ..Lock::default()
    };
    for member in &wanted.members {
        let place = (!member.root).then(|| member.name.clone());
        let mut determinism = member.determinism.clone();
        if let Some(old) = old.determinism.get(&place) {
            determinism.extra.clone_from(&old.extra);
        }
        let versions = |lock: &'_ Lock| -> BTreeMap<String, String> {
            // A name that depends on a version is that of [python]'s own, else that of the first profile that has the package.
            let of_member = lock.packages.iter().filter(|pin| pin.member == place);
            let mut all: Vec<&PackagePin> = of_member.collect();
            all.sort_by(|a, b| b.profile.cmp(&a.profile));
            all.iter().map(|pin| (pin.name.to_string(), pin.version.clone())).collect()
        };
        let now = versions(&lock);
        determinism.switches = provider.switches(&determinism, &now);
        // What a level means stays as it was locked until the level or the packages change, or the user asks for the newest.
        let asked = matches!(mode, Mode::Update { names: None });
        if let Some(locked) = old.determinism.get(&place)
            && !asked
            && now == versions(old)
            && change::determinism(locked, &determinism).is_empty()
        {
            determinism.switches.clone_from(&locked.switches);
        }
        lock.determinism.insert(place, determinism);
    }
    for (table, params) in tables(wanted) {
        match table.profile {
            None => drop(lock.params.insert(table.member, params.clone())),
            Some(profile) => drop(lock.profiles.insert((profile, table.member), params.clone())),
        }
    }
    Ok(Resolution { lock, changes })
}

/// What locking would change, found without asking any source: only content of the repository is
/// looked at. Empty exactly if [`resolve`] in [`Mode::Lock`] would change nothing.
///
/// # Errors
///
/// All content of the repository that could not be looked at, together.
pub fn stale(
    wanted: &Wanted,
    old: Option<&Lock>,
    provider: &mut dyn Provider,
) -> Result<Vec<Change>, Vec<ResolveError>> {
    let none = Lock::default();
    let old = old.unwrap_or(&none);
    let mut errors = Vec::new();
    let mut data = judge_data(wanted, old, &Mode::Lock);
    ask_paths(&mut data, provider, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let tools = judge_tools(wanted, old, &Mode::Lock);
    let python = judge_python(wanted, old, &Mode::Lock, &tools);
    let images = judge_images(wanted, old, &Mode::Lock);
    Ok(changes(wanted, old, &data, &tools, &python, &images))
}

/// Chooses among what healing found in a damaged lock: of an entry that two branches have
/// differently, the one that satisfies what is wanted; none if several do and differ in content.
pub fn settle(healed: Healed, wanted: &Wanted) -> Lock {
    let Healed { mut lock, data, tools, results: _, damaged: _ } = healed;
    let requests: HashMap<_, _> = wanted.data.iter().map(|r| ((&r.name, r.member.as_ref()), &**r)).collect();
    for candidates in data {
        let place = |pin: &DataPin| requests.get(&(&pin.name, pin.member.as_ref())).copied();
        let fits = |pin: &DataPin| place(pin).is_some_and(|r| !satisfies(pin, r).iter().any(Reason::relocks));
        let mut fit = candidates.into_iter().filter(fits);
        let Some(first) = fit.next() else { continue };
        if fit.all(|pin| (&pin.content, pin.archive, &pin.resolved) == (&first.content, first.archive, &first.resolved))
        {
            lock.data.push(first);
        }
    }
    let requests: HashMap<_, _> = wanted.tools.iter().map(|r| ((&r.name, r.member.as_ref()), r)).collect();
    for candidates in tools {
        let place = |pin: &ToolPin| requests.get(&(&pin.name, pin.member.as_ref())).copied();
        let fits = |pin: &ToolPin| place(pin).is_some_and(|r| !tool_satisfies(pin, r).iter().any(Reason::relocks));
        let mut fit = candidates.into_iter().filter(fits);
        let Some(first) = fit.next() else { continue };
        if fit.all(|pin| pin.version == first.version) {
            lock.tools.push(first);
        }
    }
    lock.data.sort_by(|a, b| a.place().cmp(&b.place()));
    lock.tools.sort_by(|a, b| a.place().cmp(&b.place()));
    lock
}

/// What is to be done for a data set.
#[derive(Debug)]
enum Verdict {
    /// Ask its source.
    Ask,
    /// Look into the repository.
    Look,
    /// The old pin stays; its request is written anew.
    Keep,
    /// This is its pin, and what it holds in full.
    Found(Box<(DataPin, Content)>),
}

/// A data set, its old pin and what is known of the new one.
#[derive(Debug)]
struct Entry<'a> {
    request: &'a DataRequest,
    old: Option<&'a DataPin>,
    reasons: Vec<Reason>,
    verdict: Verdict,
}

impl Entry<'_> {
    /// Takes an answer. Where it says what is locked already, the old pin stays, with all that a later
    /// trainlock has noted in it.
    fn found(&mut self, mut pin: DataPin, full: Content) {
        let facts = |pin: &DataPin| (pin.content.digest(), pin.content.size(), pin.archive, pin.resolved.clone());
        if let Some(old) = self.old.filter(|old| facts(old) == facts(&pin)) {
            pin.content.clone_from(&old.content);
            pin.extra.clone_from(&old.extra);
            // From a mirror the same bytes come without what the address itself says of them.
            pin.validator = pin.validator.take().or_else(|| old.validator.clone());
        }
        self.verdict = Verdict::Found(Box::new((pin, full)));
    }

    fn error(&self, source: BoxError) -> ResolveError {
        ResolveError::Source { subject: self.subject(), source }
    }

    fn subject(&self) -> Subject {
        Subject::Data { name: self.request.name.clone(), member: self.request.member.clone() }
    }

    fn into_pin(self) -> Option<DataPin> {
        match self.verdict {
            Verdict::Keep => self.old.map(|pin| pin.with_request(self.request)),
            Verdict::Found(found) => Some(found.0),
            Verdict::Ask | Verdict::Look => None,
        }
    }

    fn change(&self) -> Option<Action> {
        let Some(old) = self.old else {
            let what = match &self.verdict {
                Verdict::Found(found) => Some(found.0.content.to_string()),
                Verdict::Keep | Verdict::Ask | Verdict::Look => None,
            };
            return Some(Action::Added { what });
        };
        let mut why: Vec<Why> = self.reasons.iter().cloned().map(Why::Request).collect();
        if let Verdict::Found(found) = &self.verdict {
            let (pin, full) = &**found;
            let sha256 = |pin: &DataPin| pin.archive.map(|(sha256, _)| sha256);
            if old.content.digest() != pin.content.digest() || old.content.size() != pin.content.size() {
                why.push(Why::Content { old: old.content.clone(), new: full.clone() });
            } else if old.archive != pin.archive {
                why.push(Why::Archive { old: sha256(old), new: sha256(pin) });
            } else if old.versions != pin.versions {
                why.push(Why::Objects);
            }
            if old.resolved != pin.resolved {
                why.push(Why::Source { old: old.resolved.clone(), new: pin.resolved.clone() });
            }
        }
        (!why.is_empty()).then_some(Action::Changed { why })
    }
}

fn judge_data<'a>(wanted: &'a Wanted, old: &'a Lock, mode: &Mode) -> Vec<Entry<'a>> {
    let mut requests: Vec<&DataRequest> = wanted.data.iter().map(Arc::as_ref).collect();
    requests.sort_by(|a, b| (&a.name, &a.member).cmp(&(&b.name, &b.member)));
    // Requests and pins are in one order, so that one walk through the pins finds each request's.
    let mut pins = old.data.iter().peekable();
    let judge = |request: &'a DataRequest| {
        let place = (&request.name, request.member.as_ref());
        while pins.next_if(|pin| pin.place() < place).is_some() {}
        let old = pins.peek().copied().filter(|pin| pin.place() == place);
        let reasons = old.map_or(Vec::new(), |pin| satisfies(pin, request));
        let keep = !mode.moves(&request.name) && !reasons.iter().any(Reason::relocks);
        let mut entry = Entry { request, old, reasons, verdict: Verdict::Ask };
        match (&request.source, old) {
            (DataSource::Path(_), _) => entry.verdict = Verdict::Look,
            (_, Some(_)) if keep => entry.verdict = Verdict::Keep,
            _ => {
                if let Some(pin) = stated(request) {
                    entry.found(pin.clone(), pin.content);
                }
            }
        }
        entry
    };
    requests.into_iter().map(judge).collect()
}

/// The pin of a file whose SHA-256 and size the manifest states: nobody needs to be asked.
fn stated(request: &DataRequest) -> Option<DataPin> {
    match &request.source {
        DataSource::Url { checksum, size: Some(size), files, extract: None, unpack: false, .. } if files.is_empty() => {
            let sha256 = checksum.as_ref().and_then(Checksum::sha256)?;
            Some(DataPin::new(request, None, Content::File { sha256, size: *size }, None))
        }
        _ => None,
    }
}

fn ask_paths(data: &mut [Entry<'_>], provider: &mut dyn Provider, errors: &mut Vec<ResolveError>) {
    let looked: Vec<usize> = (0..data.len()).filter(|i| matches!(data[*i].verdict, Verdict::Look)).collect();
    let requests: Vec<&DataRequest> = looked.iter().map(|i| data[*i].request).collect();
    let answers = if requests.is_empty() { Vec::new() } else { provider.path(&requests) };
    assert_eq!(answers.len(), requests.len(), "a provider answers each request");
    for (i, answer) in looked.into_iter().zip(answers) {
        match answer {
            Ok(content) => {
                let pin = DataPin::new(data[i].request, None, content.clone(), None);
                data[i].found(pin, content);
            }
            Err(source) => errors.push(data[i].error(source)),
        }
    }
    // What lists the files of a data set lies in the repository, and may have changed since.
    for entry in data.iter_mut().filter(|entry| matches!(entry.verdict, Verdict::Keep)) {
        let path = match &entry.request.source {
            DataSource::Pooch { registry, .. } => registry.clone(),
            DataSource::Croissant(place) if !place.contains("://") => RelPath::parse(place).unwrap_or_default(),
            _ => continue,
        };
        let locked = entry.old.and_then(|pin| pin.archive).map(|(sha256, _)| sha256);
        match provider.description(&path) {
            Ok(found) if Some(found) == locked => {}
            Ok(found) => {
                let old = locked.map_or("none".to_owned(), |digest| digest.short().to_string());
                entry.reasons.push(Reason::Path { key: "description", old, new: found.short().to_string() });
                entry.verdict = Verdict::Ask;
            }
            Err(source) => errors.push(entry.error(source)),
        }
    }
}

/// A tool, its old pin and what is known of the new one.
#[derive(Debug)]
struct ToolEntry<'a> {
    request: &'a ToolRequest,
    old: Option<&'a ToolPin>,
    reasons: Vec<Reason>,
    pin: Option<ToolPin>,
}

impl ToolEntry<'_> {
    /// The order of entries, which is that of the lock.
    fn place(&self) -> (&Name, Option<&Name>) {
        (&self.request.name, self.request.member.as_ref())
    }

    fn subject(&self) -> Subject {
        Subject::Tool { name: self.request.name.clone(), member: self.request.member.clone() }
    }

    fn found(&mut self, mut pin: ToolPin) {
        if let Some(old) = self.old.filter(|old| old.version == pin.version && old.provider == pin.provider) {
            pin.extra.clone_from(&old.extra);
        }
        self.pin = Some(pin);
    }

    fn change(&self) -> Option<Action> {
        let Some(old) = self.old else {
            return Some(Action::Added { what: self.pin.as_ref().map(|pin| pin.version.to_string()) });
        };
        let mut why: Vec<Why> = self.reasons.iter().cloned().map(Why::Request).collect();
        match &self.pin {
            Some(pin) if pin.version != old.version => {
                why.push(Why::Version { old: old.version.clone(), new: pin.version.clone() });
            }
            Some(pin) => why.extend(trainlock_lock::artifacts(old, pin)),
            None => {}
        }
        (!why.is_empty()).then_some(Action::Changed { why })
    }
}

fn judge_tools<'a>(wanted: &'a Wanted, old: &'a Lock, mode: &Mode) -> Vec<ToolEntry<'a>> {
    let mut requests: Vec<&ToolRequest> = wanted.tools.iter().collect();
    requests.sort_by(|a, b| (&a.name, &a.member).cmp(&(&b.name, &b.member)));
    let judge = |request: &'a ToolRequest| {
        let old = old.tool(request.member.as_ref(), &request.name);
        let reasons = old.map_or(Vec::new(), |pin| tool_satisfies(pin, request));
        let keep = !mode.moves(&request.name) && !reasons.iter().any(Reason::relocks);
        let pin = old.filter(|_| keep).map(|pin| pin.with_request(request));
        ToolEntry { request, old, reasons, pin }
    };
    requests.into_iter().map(judge).collect()
}

/// One member's python packages, their old pin and what is known of the new one.
#[derive(Debug)]
struct PythonEntry<'a> {
    request: &'a PythonRequest,
    old: Option<&'a PythonPin>,
    reasons: Vec<Reason>,
    /// The new pin, if the old one serves or the question was answered.
    pin: Option<PythonPin>,
    packages: Vec<PackagePin>,
}

impl PythonEntry<'_> {
    /// The order of entries, which is that of the lock.
    fn place(&self) -> (Option<&Name>, Option<&Name>) {
        (self.request.member.as_ref(), self.request.profile.as_ref())
    }

    fn subject(&self) -> Subject {
        Subject::Python { member: self.request.member.clone(), profile: self.request.profile.clone() }
    }

    /// Resolves it.
    fn ask(
        &mut self,
        old: &Lock,
        mode: &Mode,
        tools: &[ToolEntry<'_>],
        base: &[PackagePin],
        provider: &mut dyn Provider,
    ) -> Result<(), ResolveError> {
        let request = self.request;
        let (member, profile) = (request.member.as_ref(), request.profile.as_ref());
        let missing = |subject: Subject, tool: &str| ResolveError::Source {
            subject,
            source: format!("[tools] has no `{tool}`: add `{tool} = \"3.11\"` (or another version) to it").into(),
        };
        let interpreter = interpreter(tools, member).ok_or_else(|| missing(self.subject(), "python"))?;
        let resolver = tools
            .iter()
            .filter(|tool| tool.request.name.as_str() == RESOLVER)
            .find_map(|tool| tool.pin.as_ref())
            .ok_or_else(|| missing(self.subject(), RESOLVER))?;
        let everything = matches!(mode, Mode::Update { names: None });
        let locked = old.packages(member, profile).filter(|pin| !mode.moves(&pin.name));
        let mut keep: Vec<PackagePin> = locked.cloned().collect();
        // Under another interpreter the old versions may have no wheels.
        if everything || self.reasons.iter().any(|r| matches!(r, Reason::Option { key: "python", .. })) {
            keep.clear();
        }
        // A profile has what [python] itself has, where nothing speaks against it.
        let known: BTreeSet<Name> = keep.iter().map(|pin| pin.name.clone()).collect();
        keep.extend(base.iter().filter(|pin| !known.contains(&pin.name)).cloned());
        // The same requirements are answered from what there was when they were locked.
        let same = |r: &Reason| matches!(r, Reason::Option { key: "platforms" | "python", .. });
        let exclude_newer = self.old.filter(|_| !mode.is_update() && self.reasons.iter().all(same));
        let exclude_newer = exclude_newer.and_then(|pin| pin.exclude_newer.as_deref());
        let with = ResolveWith { interpreter, resolver, keep: &keep, exclude_newer };
        let answer = provider
            .python(self.request, &with)
            .map_err(|source| ResolveError::Source { subject: self.subject(), source })?;
        self.packages = answer.packages;
        self.pin = Some(PythonPin {
            member: request.member.clone(),
            profile: request.profile.clone(),
            python: line(&interpreter.version),
            taken: request.taken.clone(),
            dependencies: request.dependencies.clone(),
            constraints: request.constraints.clone(),
            index: request.index.clone(),
            sdist: request.sdist.clone(),
            platforms: request.platforms.clone(),
            exclude_newer: answer.exclude_newer,
            extra: self.old.map(|pin| pin.extra.clone()).unwrap_or_default(),
        });
        for pin in &mut self.packages {
            let same = old.packages(member, profile).find(|o| (&o.name, &o.version) == (&pin.name, &pin.version));
            pin.extra = same.map(|o| o.extra.clone()).unwrap_or_default();
        }
        Ok(())
    }

    fn change(&self) -> Option<Action> {
        if self.old.is_none() {
            return Some(Action::Added { what: self.pin.as_ref().map(|pin| format!("for {}", pin.python)) });
        }
        let why: Vec<Why> = self.reasons.iter().cloned().map(Why::Request).collect();
        (!why.is_empty()).then_some(Action::Changed { why })
    }
}

/// The program that resolves python packages.
pub(crate) const RESOLVER: &str = "uv";

/// A version's line: `3.11` of 3.11.7.
fn line(version: &semver::Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// The interpreter of a member, if it is locked.
fn interpreter<'a>(tools: &'a [ToolEntry<'_>], member: Option<&Name>) -> Option<&'a ToolPin> {
    let python = |tool: &&ToolEntry<'_>| {
        tool.request.member.as_ref() == member && trainlock_types::is_python(&tool.request.name)
    };
    tools.iter().filter(python).find_map(|tool| tool.pin.as_ref())
}

fn judge_python<'a>(wanted: &'a Wanted, old: &'a Lock, mode: &Mode, tools: &[ToolEntry<'_>]) -> Vec<PythonEntry<'a>> {
    let mut requests: Vec<&PythonRequest> = wanted.python.iter().collect();
    requests.sort_by(|a, b| (&a.member, &a.profile).cmp(&(&b.member, &b.profile)));
    let judge = |request: &'a PythonRequest| {
        let (member, profile) = (request.member.as_ref(), request.profile.as_ref());
        let old_pin = old.python(member, profile);
        let python = interpreter(tools, member).map(|pin| line(&pin.version));
        let reasons = match (old_pin, &python) {
            (Some(pin), Some(python)) => python_satisfies(pin, request, python),
            _ => Vec::new(),
        };
        let moves = match mode {
            Mode::Lock => false,
            Mode::Update { names: None } => true,
            Mode::Update { names: Some(names) } => {
                old.packages(member, profile).any(|pin| names.contains(pin.name.as_str()))
            }
        };
        let keep = old_pin.filter(|_| python.is_some() && reasons.is_empty() && !moves);
        let packages = if keep.is_some() { old.packages(member, profile).cloned().collect() } else { Vec::new() };
        PythonEntry { request, old: old_pin, reasons, pin: keep.cloned(), packages }
    };
    requests.into_iter().map(judge).collect()
}

/// A container image, its old pin and the new one.
#[derive(Debug)]
struct ImageEntry<'a> {
    reference: &'a ImageReference,
    old: Option<&'a ImagePin>,
    pin: Option<ImagePin>,
}

impl ImageEntry<'_> {
    fn subject(&self) -> Subject {
        Subject::Image { reference: self.reference.to_string() }
    }

    fn change(&self) -> Option<Action> {
        let Some(old) = self.old else {
            return Some(Action::Added { what: self.pin.as_ref().map(ImagePin::in_words) });
        };
        let why = self.pin.as_ref().map(|pin| old.changes(pin)).unwrap_or_default();
        (!why.is_empty()).then_some(Action::Changed { why })
    }
}

/// A pin is for its reference as written, on every platform: nothing else can make it stale.
fn judge_images<'a>(wanted: &'a Wanted, old: &'a Lock, mode: &Mode) -> Vec<ImageEntry<'a>> {
    let judge = |reference: &'a ImageReference| {
        let old = old.image(reference);
        ImageEntry { reference, old, pin: old.filter(|_| !mode.moves(reference.as_str())).cloned() }
    };
    wanted.images.iter().map(judge).collect()
}

impl Mode {
    fn is_update(&self) -> bool {
        matches!(self, Mode::Update { .. })
    }

    fn moves(&self, name: &str) -> bool {
        match self {
            Mode::Lock => false,
            Mode::Update { names } => names.as_ref().is_none_or(|names| names.contains(name)),
        }
    }
}

fn unknown_names(wanted: &Wanted, old: Option<&Lock>, mode: &Mode) -> Vec<ResolveError> {
    let Mode::Update { names: Some(names) } = mode else {
        return Vec::new();
    };
    let mut known: BTreeSet<&str> =
        wanted.data.iter().map(|r| r.name.as_str()).chain(wanted.tools.iter().map(|r| r.name.as_str())).collect();
    known.extend(old.iter().flat_map(|lock| &lock.packages).map(|pin| pin.name.as_str()));
    known.extend(wanted.images.iter().map(ImageReference::as_str));
    let unknown = names.iter().filter(|name| !known.contains(name.as_str()));
    unknown
        .map(|name| ResolveError::UnknownName {
            name: name.clone(),
            near: nearest(name, known.iter().copied()).map(str::to_owned),
        })
        .collect()
}

/// A table of params: a member's own, or a profile's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Table {
    profile: Option<Name>,
    member: Name,
}

/// The tables that are wanted. One without params is not written.
fn tables(wanted: &Wanted) -> BTreeMap<Table, &Params> {
    let mut tables = BTreeMap::new();
    for member in &wanted.members {
        tables.insert(Table { profile: None, member: member.name.clone() }, &member.params);
        for (profile, params) in &member.profiles {
            tables.insert(Table { profile: Some(profile.clone()), member: member.name.clone() }, params);
        }
    }
    tables.retain(|_, params| !params.is_empty());
    tables
}

fn changes(
    wanted: &Wanted,
    old: &Lock,
    data: &[Entry<'_>],
    tools: &[ToolEntry<'_>],
    python: &[PythonEntry<'_>],
    images: &[ImageEntry<'_>],
) -> Vec<Change> {
    let mut changes: BTreeMap<Subject, Action> = BTreeMap::new();
    // The pins that entries have stand in the order of the lock.
    let mut wanted_pins = data.iter().filter_map(|entry| entry.old).peekable();
    for pin in &old.data {
        if wanted_pins.next_if(|wanted| std::ptr::eq(*wanted, pin)).is_none() {
            changes.insert(Subject::Data { name: pin.name.clone(), member: pin.member.clone() }, Action::Removed);
        }
    }
    for entry in data {
        changes.extend(entry.change().map(|action| (entry.subject(), action)));
    }
    for pin in old.tools.iter().filter(|pin| tools.binary_search_by(|e| e.place().cmp(&pin.place())).is_err()) {
        changes.insert(Subject::Tool { member: pin.member.clone(), name: pin.name.clone() }, Action::Removed);
    }
    for entry in tools {
        changes.extend(entry.change().map(|action| (entry.subject(), action)));
    }
    for pin in old.python.iter().filter(|pin| python.iter().all(|e| e.place() != pin.place())) {
        let (member, profile) = (pin.member.clone(), pin.profile.clone());
        changes.insert(Subject::Python { member, profile }, Action::Removed);
    }
    for entry in python {
        changes.extend(entry.change().map(|action| (entry.subject(), action)));
    }
    // What will become of packages that are yet to be resolved is not known.
    let open = |pin: &PackagePin| {
        python.iter().any(|e| e.place() == (pin.member.as_ref(), pin.profile.as_ref()) && e.pin.is_none())
    };
    let before: Vec<PackagePin> = old.packages.iter().filter(|pin| !open(pin)).cloned().collect();
    let after: Vec<PackagePin> = python.iter().flat_map(|e| e.packages.iter().cloned()).collect();
    changes.extend(trainlock_lock::package_changes(&before, &after));
    for pin in old.images.iter().filter(|pin| images.iter().all(|e| *e.reference != pin.reference)) {
        changes.insert(Subject::Image { reference: pin.reference.to_string() }, Action::Removed);
    }
    for entry in images {
        changes.extend(entry.change().map(|action| (entry.subject(), action)));
    }
    let mut before = old.determinism.clone();
    for member in &wanted.members {
        let place = (!member.root).then(|| member.name.clone());
        let action = match before.remove(&place) {
            None => Some(Action::Added { what: Some(format!("seed {}", member.determinism.seed)) }),
            Some(old) => {
                let why = change::determinism(&old, &member.determinism);
                (!why.is_empty()).then_some(Action::Changed { why })
            }
        };
        changes.extend(action.map(|action| (Subject::Determinism { member: place }, action)));
    }
    changes.extend(before.into_keys().map(|member| (Subject::Determinism { member }, Action::Removed)));

    let mut before: BTreeMap<Table, &Params> = BTreeMap::new();
    before.extend(old.params.iter().map(|(m, params)| (Table { profile: None, member: m.clone() }, params)));
    before.extend(
        old.profiles.iter().map(|((p, m), params)| (Table { profile: Some(p.clone()), member: m.clone() }, params)),
    );
    let empty = Params::new();
    let after = tables(wanted);
    for table in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let subject = |key| Subject::Param { member: table.member.clone(), profile: table.profile.clone(), key };
        let (old, new) = (before.get(table).copied(), after.get(table).copied().unwrap_or(&empty));
        if old.is_some_and(Params::is_empty) && new.is_empty() {
            changes.insert(subject(None), Action::Removed);
        }
        let old = old.unwrap_or(&empty);
        for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let action = match (old.get(key), new.get(key)) {
                (Some(_), None) => Action::Removed,
                (None, Some(new)) => Action::Added { what: Some(new.to_string()) },
                (Some(old), Some(new)) if old != new => {
                    Action::Changed { why: vec![Why::Value { old: old.clone(), new: new.clone() }] }
                }
                _ => continue,
            };
            changes.insert(subject(Some(key.clone())), action);
        }
    }
    changes.into_iter().map(|(subject, action)| Change { subject, action }).collect()
}
