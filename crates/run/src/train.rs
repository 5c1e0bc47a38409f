//! The scheduler: brings every step of a plan to its result, as many at once as the machine has room for.

use crate::bench::{Bench, BenchError, Decision, Done, Prepared};
use crate::executor::local::{ExecuteError, Failure, Job, JobEnd, Shared, deliver, unexpected};
use crate::executor::stand::Met;
use crate::plan::{Node, Plan};
use crate::record::{self, Git, OutputEntry, RecordError, Recorder, StepRecord};
use crate::result::{Content, Last, StepResult};
use crate::template::Scope;
use crate::vary::Variation;
use crate::verdict::Outcome;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use trainlock_env::{Cancel, Ended, Engine, Equipment, Isolation, Machine, Stop, Tier};
use trainlock_manifest::{Resources, Sandbox as SandboxWord};
use trainlock_store::{FileState, Link, Session, StoreError};
use trainlock_types::{Digest, EntryKind, Event, Events, StepOutcome};

/// What a member without tools and packages has.
static NOTHING: Equipment = Equipment { tools: Vec::new(), packages: None, image: None };

/// Results are made durable after a step that took this long, and at least this often.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// What the user chose for a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many steps at once.
    pub jobs: usize,
    /// Go on with what does not need a step that failed.
    pub keep_going: bool,
    /// Run every step, whatever the store has.
    pub force: bool,
    /// How files are placed.
    pub link: Link,
    /// What the machine has for steps.
    pub machine: Capacity,
    /// How much isolation is demanded, whatever the manifest says.
    pub sandbox: Option<SandboxWord>,
    /// Who runs steps that have an image, in the place of trainlock's own sandbox.
    pub engine: Option<Engine>,
    /// Watch the steps' system calls for what they use and do not declare.
    pub audit: bool,
    /// Folders that no tool may show to a step with itself: home, project, store.
    pub private: Vec<PathBuf>,
    /// Run every step to see what comes out: the project and the results in the store stay as they are.
    pub trial: Option<Trial>,
}

/// A run for the sake of comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// What is made different on purpose.
    pub variation: Option<Variation>,
}

/// What a machine has for steps to share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory; 0 where unknown, and then nothing is held back for want of memory.
    pub memory: u64,
    /// The GPUs, by number.
    pub gpus: Vec<u32>,
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Summary {
    /// Steps whose outputs stood in the project already.
    pub fresh: usize,
    /// Steps whose outputs came from the store.
    pub restored: usize,
    /// Steps that ran and succeeded.
    pub ran: usize,
    /// Steps that failed.
    pub failures: Vec<Failure>,
    /// Steps not tried, since one that they need failed or the run stopped at a failure.
    pub skipped: Vec<String>,
    /// Whether the user interrupted it.
    pub interrupted: bool,
    /// What came of each step of the plan; none of one that is not done.
    pub outcomes: Vec<Option<Outcome>>,
}

/// Why a run could not go on (other than by a step's failure).
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A decision could not be made.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A step could not be run.
    #[error("step `{step}` could not be run")]
    Execute {
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: ExecuteError,
    },
    /// The record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store is in trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The project's cache could not be written.
    #[error("can't write what the next run will need")]
    Cache(#[source] std::io::Error),
    /// The project's stat index could not be written.
    #[error("can't write the project's index")]
    Index(#[source] std::io::Error),
    /// A step demands more isolation than the machine offers.
    #[error("step `{step}` demands `sandbox = \"required\"`, which this machine can't give: {why}")]
    Sandbox {
        /// The step.
        step: String,
        /// What is missing, with the kernel's own error.
        why: String,
    },
    /// A step runs in an image, and this machine can't give it another root file system.
    #[error("step `{step}` runs in an image, which takes a file system of its own: {why}")]
    Image {
        /// The step.
        step: String,
        /// What stands in the way, with the kernel's own error.
        why: String,
    },
    /// A step's hub has to stand on a loopback that is the step's own.
    #[error("step `{step}` has `serve`, which takes a network of its own: {why}")]
    Serve {
        /// The step.
        step: String,
        /// What stands in the way, with the kernel's own error.
        why: String,
    },
    /// A step asks for what the machine does not have.
    #[error("step `{step}` needs {wanted} GPUs; this machine has {have}")]
    Gpus {
        /// The step.
        step: String,
        /// What it declares.
        wanted: u32,
        /// What there is.
        have: usize,
    },
}

/// A step of which enough is known to start it once there is room.
struct Waiting {
    node: usize,
    prepared: Prepared,
    todo: Todo,
}

/// What is to be done once there is room.
#[expect(clippy::large_enum_variant, reason = "a value lives for a moment, and there are few of them")]
enum Todo {
    Restore(StepResult),
    Run(Vec<String>),
}

/// A job that is over, whatever came of it.
struct Finished {
    node: usize,
    key: Digest,
    room: Taken,
    result: Result<JobEnd, ExecuteError>,
}

/// Runs a plan. All data that its steps may need is in the store. When this returns, the results of
/// the steps that succeeded are in the store, their outputs in the project, and the record says what happened.
#[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
pub fn train<'a, 'b: 'a>(
    bench: &mut Bench<'b>,
    plan: &'a Plan<'a>,
    options: &'a Options,
    session: &'a Session,
    recorder: &mut Recorder,
    machine: &'a Machine,
    events: &'a Events,
    cancel: &'a Cancel,
) -> Result<Summary, TrainError> {
    for node in &plan.nodes {
        let (wanted, have) = (node.step.resources.gpus, options.machine.gpus.len());
        if wanted as usize > have {
            return Err(TrainError::Gpus { step: node.id.clone(), wanted, have });
        }
    }
    recorder.record.steps =
        plan.nodes.iter().map(|n| StepRecord { step: n.id.clone(), ..StepRecord::default() }).collect();
    bench.hash_sources(plan)?;
    let mut needed_by = vec![Vec::new(); plan.nodes.len()];
    for (i, node) in plan.nodes.iter().enumerate() {
        node.needs.iter().for_each(|need| needed_by[*need].push(i));
    }
    let missing: Vec<usize> = plan.nodes.iter().map(|n| n.needs.len()).collect();
    let mut run = Run {
        plan,
        options,
        machine,
        private: &options.private,
        shared: Shared { store: bench.store, session, link: options.link, events, cancel },
        ready: (0..plan.nodes.len()).filter(|i| missing[*i] == 0).collect(),
        missing,
        needed_by,
        done: Done::new(plan),
        room: Room::new(options),
        summary: Summary { outcomes: vec![None; plan.nodes.len()], ..Summary::default() },
        git: None,
        synced: Instant::now(),
        news: Vec::new(),
        shut: None,
        met: Arc::default(),
        bench,
        recorder,
    };
    let result = std::thread::scope(|scope| {
        let result = run.all(scope);
        if result.is_err() {
            // The steps under way would otherwise run on unseen: they are ended, and waited for by the scope.
            cancel.throw();
        }
        result
    });
    // Whatever went wrong: what was done is noted, so that it is not done again.
    run.end();
    run.bench.state.save().map_err(TrainError::Cache)?;
    run.bench.index.save().map_err(TrainError::Index)?;
    result.map(|()| run.summary)
}

/// What this machine offers to shut steps in with.
struct Shut {
    tier: Tier,
    /// What is missing of all that could be, if something is.
    missing: Option<String>,
}

/// A run under way.
struct Run<'r, 'a, 'b> {
    plan: &'a Plan<'a>,
    options: &'r Options,
    bench: &'r mut Bench<'b>,
    recorder: &'r mut Recorder,
    machine: &'a Machine,
    private: &'a [PathBuf],
    shared: Shared<'a>,
    /// Nodes whose needs are done.
    ready: VecDeque<usize>,
    /// How many of a node's needs are not done.
    missing: Vec<usize>,
    /// The nodes that need each node.
    needed_by: Vec<Vec<usize>>,
    done: Done,
    room: Room,
    summary: Summary,
    /// The repository's state, read by git since the first step that ran.
    git: Option<std::thread::JoinHandle<Option<Git>>>,
    /// When the store was last made durable.
    synced: Instant,
    /// What has not been told yet.
    news: Vec<Event>,
    /// What the machine offers to shut steps in with; known once a step has to run.
    shut: Option<Shut>,
    /// What the jobs have met.
    met: Arc<Met>,
}

impl<'a, 'b: 'a> Run<'_, 'a, 'b> {
    /// The main loop: decide what can be decided, start what there is room for, wait for one to end.
    fn all<'s>(&mut self, scope: &'s std::thread::Scope<'s, '_>) -> Result<(), TrainError>
    where
        'a: 's,
    {
        let (sender, receiver) = channel::<Finished>();
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut running = 0usize;
        loop {
            while !self.stopped()
                && let Some(node) = self.ready.pop_front()
            {
                let prepared = self.bench.prepare(&self.plan.nodes[node], &self.done)?;
                let record = &mut self.recorder.record.steps[node];
                record.key = Some(prepared.key.to_string());
                record.seed = prepared.seed;
                let todo = match self.bench.decide(
                    &self.plan.nodes[node],
                    &prepared,
                    self.options.force || self.options.trial.is_some(),
                )? {
                    Decision::Fresh(outputs, metrics) => {
                        if self.as_expected(node, &metrics) {
                            self.summary.fresh += 1;
                            let outcome = Outcome { key: prepared.key, outputs, metrics, class: None };
                            self.complete(node, outcome, StepOutcome::Fresh, 0.0);
                        }
                        continue;
                    }
                    Decision::Restore(result) => Todo::Restore(result),
                    Decision::Run(why) => Todo::Run(why),
                };
                waiting.push_back(Waiting { node, prepared, todo });
            }
            self.tell();
            for next in std::mem::take(&mut waiting) {
                let resources = match next.todo {
                    Todo::Restore(_) => &Resources::default(),
                    Todo::Run(_) => &self.plan.nodes[next.node].step.resources,
                };
                match (!self.stopped()).then(|| self.room.take(resources)).flatten() {
                    Some(room) => {
                        self.start(next, room, scope, sender.clone())?;
                        running += 1;
                    }
                    None => waiting.push_back(next),
                }
            }
            if running == 0 {
                return Ok(());
            }
            let finished = receiver.recv().expect("a running job holds a sender");
            running -= 1;
            self.finished(finished)?;
        }
    }

    /// Whether no further step is to be started.
    fn stopped(&self) -> bool {
        self.shared.cancel.is_thrown() || !self.summary.failures.is_empty() && !self.options.keep_going
    }

    /// Starts a job in a thread of its own.
    fn start<'s>(
        &mut self,
        next: Waiting,
        room: Taken,
        scope: &'s std::thread::Scope<'s, '_>,
        sender: Sender<Finished>,
    ) -> Result<(), TrainError>
    where
        'a: 's,
    {
        let Waiting { node: index, prepared, todo } = next;
        let node = &self.plan.nodes[index];
        let (key, shared, root) = (prepared.key, self.shared, self.bench.workspace.root.as_path());
        self.recorder.record.steps[index].started = Some(record::now());
        let why = match todo {
            Todo::Restore(result) => {
                scope.spawn(move || {
                    let delivered = deliver(node, root, shared, &result.outputs);
                    let _ = sender.send(Finished {
                        node: index,
                        key,
                        room,
                        result: delivered.map(|()| JobEnd::Restored(result)),
                    });
                });
                return Ok(());
            }
            Todo::Run(why) => why,
        };
        let (tier, unshut) = self.tier(node)?;
        self.shared.events.emit(Event::StepStarted { step: node.id.clone(), why: why.join("; ") });
        let record = &mut self.recorder.record.steps[index];
        record.why = why;
        if self.git.is_none() {
            self.git = Some(std::thread::spawn({
                let root = root.to_owned();
                move || git(&root)
            }));
        }
        let params = &self.bench.params[&node.member.name];
        let scope_of_command = Scope { node, params, seed: prepared.seed, globbed: &prepared.globbed };
        let hub = prepared.hub.map(|hub| self.bench.filled(hub, &prepared.places)).transpose()?;
        let job = Job {
            node,
            root,
            key,
            seed: prepared.seed,
            command: scope_of_command.command(),
            params: node.step.params_seen(params),
            equipment: self.bench.equipment_of(node).unwrap_or(&NOTHING),
            shell: self.bench.shell,
            gpus: room.gpus.clone(),
            force: self.options.force,
            trial: self.options.trial,
            tier,
            unshut,
            engine: self.options.engine.clone().filter(|_| node.step.image.is_some()),
            audit: self.options.audit,
            private: self.private,
            met: Arc::clone(&self.met),
            switches: self.bench.switches(node).cloned(),
            class: self.bench.class(node),
            machine: self.machine,
            log: self.recorder.folder().join(format!("{}.log", node.id.replace('/', "."))),
            hub,
            places: self.bench.settle(prepared.places)?,
            form: prepared.form,
        };
        scope.spawn(move || {
            let result = job.run(shared);
            let _ = sender.send(Finished { node: index, key, room, result });
        });
        Ok(())
    }

    /// How a step is shut in, and why not fully if that is so. Before the first step runs, all of the plan are asked
    /// whether they demand more than there is.
    fn tier(&mut self, node: &Node<'_>) -> Result<(Tier, Option<String>), TrainError> {
        let demanded = self.options.sandbox;
        let word = |node: &Node<'_>| demanded.unwrap_or(node.step.sandbox);
        let off = (Tier::None, Some("`sandbox = \"off\"`".to_owned()));
        let of_image = |node: &Node<'_>| node.step.image.is_some() && self.options.engine.is_none();
        let serves = |node: &&Node<'_>| !node.step.serve.is_empty();
        if let Some(engine) = &self.options.engine
            && let Some(node) = self.plan.nodes.iter().filter(serves).find(|node| node.step.image.is_some())
        {
            let why = format!("{} runs it, in a network of {0}'s making", engine.kind.name());
            return Err(TrainError::Serve { step: node.id.clone(), why });
        }
        if let Some(node) = self.plan.nodes.iter().filter(serves).find(|node| word(node) == SandboxWord::Off) {
            let why = "`sandbox = \"off\"` leaves it in this machine's".to_owned();
            return Err(TrainError::Serve { step: node.id.clone(), why });
        }
        if let Some(engine) = self.options.engine.as_ref().filter(|_| node.step.image.is_some()) {
            let why = format!("{} runs it, and what that enforces trainlock does not know", engine.kind.name());
            if word(node) == SandboxWord::Required {
                return Err(TrainError::Sandbox { step: node.id.clone(), why });
            }
            // Its stage is laid out as for namespaces.
            return Ok((Tier::Namespaces, Some(why)));
        }
        if let Some(node) = self.plan.nodes.iter().find(|node| of_image(node) && word(node) == SandboxWord::Off) {
            let why = "`sandbox = \"off\"` leaves it on this machine's own file system".to_owned();
            return Err(TrainError::Image { step: node.id.clone(), why });
        }
        if self.plan.nodes.iter().all(|node| word(node) == SandboxWord::Off) {
            return Ok(off);
        }
        let shut = match &self.shut {
            Some(shut) => shut,
            None => {
                let probe = trainlock_env::sandbox::probe(&self.shared.session.work_dir("probe")?);
                let tier = probe.best();
                let stopped = probe.trials.iter().filter_map(|t| Some(format!("{}: {}", t.tier, t.stopped.as_ref()?)));
                let missing =
                    (!matches!(tier, Tier::Namespaces | Tier::Bwrap)).then(|| stopped.collect::<Vec<_>>().join("; "));
                let demands = self.plan.nodes.iter().find(|node| word(node) == SandboxWord::Required);
                if let (Some(node), Some(why)) = (demands, &missing) {
                    return Err(TrainError::Sandbox { step: node.id.clone(), why: why.clone() });
                }
                let image = self.plan.nodes.iter().find(|node| of_image(node));
                if let (Some(node), Some(why)) = (image, &missing) {
                    return Err(TrainError::Image { step: node.id.clone(), why: why.clone() });
                }
                if let (Some(node), Some(why)) = (self.plan.nodes.iter().find(serves), &missing) {
                    return Err(TrainError::Serve { step: node.id.clone(), why: why.clone() });
                }
                if let Some(missing) = &missing {
                    let held = match tier {
                        Tier::None => Isolation::none("this machine offers nothing"),
                        tier => trainlock_env::Sandbox::new(tier, "/", "p").isolation(),
                    };
                    let message = format!("steps are not shut in fully ({missing}); tier {held}");
                    self.shared.events.emit(Event::Warning { message });
                }
                self.shut.insert(Shut { tier, missing })
            }
        };
        Ok(match word(node) {
            SandboxWord::Off => off,
            _ => (shut.tier, shut.missing.clone()),
        })
    }

    /// Notes what came of a job.
    fn finished(&mut self, finished: Finished) -> Result<(), TrainError> {
        let Finished { node, key, room, result } = finished;
        self.room.give_back(room);
        let id = &self.plan.nodes[node].id;
        let end = result.map_err(|source| TrainError::Execute { step: id.clone(), source })?;
        let record = &mut self.recorder.record.steps[node];
        match end {
            JobEnd::Restored(result) => {
                if self.as_expected(node, &result.metrics) {
                    self.summary.restored += 1;
                    self.complete(node, result.into_outcome(key), StepOutcome::Restored, 0.0);
                }
            }
            JobEnd::Ran { result, ended, attempts, log } => {
                self.summary.ran += 1;
                describe(record, &ended, attempts);
                record.isolation = Some(result.isolation.clone());
                record.class = Some(result.class.clone());
                record.libraries.clone_from(&result.libraries);
                record.log = log.then(|| format!("{}.log", id.replace('/', ".")));
                // A short step is cheap to repeat after a power cut, and is made durable with the others.
                if ended.wall >= SYNC_EVERY || self.synced.elapsed() >= SYNC_EVERY {
                    self.shared.session.sync()?;
                    self.synced = Instant::now();
                }
                self.complete(node, result.into_outcome(key), StepOutcome::Ran, ended.wall.as_secs_f64());
            }
            JobEnd::Failed(failure) => {
                if let Some(ended) = &failure.ended {
                    describe(record, ended, failure.attempts);
                }
                record.error = Some(failure.reason.clone());
                record.fixes = failure.undeclared.iter().filter_map(|(_, fix)| fix.clone()).collect();
                record.log = failure.log.as_ref().and_then(|l| l.file_name()).map(|n| n.to_string_lossy().into_owned());
                record.folder = failure.folder.as_ref().map(|f| f.to_string_lossy().into_owned());
                let seconds = failure.ended.as_ref().map_or(0.0, |e| e.wall.as_secs_f64());
                record.isolation = failure.ended.as_ref().and_then(|e| e.sandbox.as_ref()).map(|r| r.isolation.clone());
                self.summary.failures.push(*failure);
                self.told(node, Some(key), StepOutcome::Failed, seconds);
            }
            JobEnd::Interrupted => self.told(node, Some(key), StepOutcome::Interrupted, 0.0),
        }
        self.recorder.note()?;
        Ok(())
    }

    /// Notes a step that is done, and frees those that waited for it alone.
    fn complete(&mut self, node: usize, made: Outcome, outcome: StepOutcome, seconds: f64) {
        let Outcome { key, outputs, metrics, .. } = made.clone();
        self.summary.outcomes[node] = Some(made);
        let Node { id, step, .. } = &self.plan.nodes[node];
        let root = &self.bench.workspace.root;
        self.recorder.record.steps[node].metrics = metrics;
        let trial = self.options.trial.is_some();
        if outcome != StepOutcome::Fresh && !trial {
            for (record, output) in outputs.iter().zip(&step.outputs) {
                let on_disk = output.path.on(root);
                match record.content {
                    Content::File { sha256, size, executable } => {
                        let kind = if executable { EntryKind::Executable } else { EntryKind::File };
                        self.bench.index.record(&on_disk, FileState { sha256, size, kind });
                    }
                    // Without its listing, the folder is hashed when it is next looked at.
                    Content::Tree { tree, .. } => {
                        if let Ok(Some(listing)) = self.bench.store.listing(&tree) {
                            self.bench.index.record_tree(&on_disk, &tree, &listing);
                        }
                    }
                }
            }
        }
        self.recorder.record.steps[node].outputs = outputs
            .iter()
            .map(|o| OutputEntry {
                path: o.path.clone(),
                sha256: o.content.digest().to_string(),
                size: o.content.size(),
            })
            .collect();
        if !trial {
            self.bench.state.set(id, Last { key, outputs: outputs.clone() });
        }
        self.done.set(node, outputs);
        for next in std::mem::take(&mut self.needed_by[node]) {
            self.missing[next] -= 1;
            if self.missing[next] == 0 {
                self.ready.push_back(next);
            }
        }
        self.told(node, Some(key), outcome, seconds);
    }

    /// Whether a result that was made before has the metrics that the manifest expects now; if not, the
    /// step counts as failed.
    fn as_expected(&mut self, node: usize, metrics: &BTreeMap<String, f64>) -> bool {
        let Node { id, step, .. } = &self.plan.nodes[node];
        let Some((reason, hint)) = unexpected(&step.expect, metrics) else {
            return true;
        };
        self.recorder.record.steps[node].error = Some(reason.clone());
        let failure = Failure {
            step: id.clone(),
            reason,
            hint,
            ended: None,
            attempts: 0,
            log: None,
            folder: None,
            undeclared: Vec::new(),
        };
        self.summary.failures.push(failure);
        self.told(node, None, StepOutcome::Failed, 0.0);
        false
    }

    fn told(&mut self, node: usize, key: Option<Digest>, outcome: StepOutcome, seconds: f64) {
        let record = &mut self.recorder.record.steps[node];
        record.outcome = Some(outcome.as_str().to_owned());
        let step = self.plan.nodes[node].id.clone();
        self.news.push(Event::StepFinished { step, outcome, key, seconds });
    }

    /// Tells what has happened since this was last called.
    fn tell(&mut self) {
        self.shared.events.emit_all(std::mem::take(&mut self.news));
    }

    /// Notes the steps that were not tried, and the repository's state.
    fn end(&mut self) {
        self.summary.interrupted = self.shared.cancel.is_thrown();
        for node in 0..self.plan.nodes.len() {
            if self.recorder.record.steps[node].outcome.is_none() {
                self.summary.skipped.push(self.plan.nodes[node].id.clone());
                self.told(node, None, StepOutcome::Skipped, 0.0);
            }
        }
        self.tell();
        self.recorder.record.git = self.git.take().and_then(|g| g.join().ok()).flatten();
    }
}

fn describe(record: &mut StepRecord, ended: &Ended, attempts: u32) {
    record.seconds = Some(ended.wall.as_secs_f64());
    record.cpu_seconds = Some(ended.cpu.as_secs_f64());
    record.peak_memory = Some(ended.peak_memory);
    record.exit_code = if let Stop::Exited(code) = ended.stop { Some(code) } else { None };
    record.attempts = Some(attempts);
}

/// The commit and state of the repository that holds a folder; none outside git, or before the first commit.
fn git(root: &Path) -> Option<Git> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["--no-optional-locks", "status", "--porcelain=v2", "--branch"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let commit = text.lines().find_map(|l| l.strip_prefix("# branch.oid ")).filter(|c| *c != "(initial)")?.to_owned();
    Some(Git { commit, dirty: text.lines().any(|l| !l.starts_with('#')) })
}

/// What is left of the machine.
struct Room {
    slots: usize,
    cpus: u32,
    memory: u64,
    gpus: Vec<u32>,
    all: Capacity,
}

/// What one job has taken of it.
#[derive(Debug)]
struct Taken {
    cpus: u32,
    memory: u64,
    gpus: Vec<u32>,
}

impl Room {
    fn new(options: &Options) -> Room {
        let all = options.machine.clone();
        Room { slots: options.jobs, cpus: all.cpus, memory: all.memory, gpus: all.gpus.clone(), all }
    }

    /// Room for a step, if there is. One that declares more than the machine has gets all of it: it
    /// runs alone.
    fn take(&mut self, wants: &Resources) -> Option<Taken> {
        let cpus = wants.cpus.min(self.all.cpus);
        let memory = wants.memory.unwrap_or(0).min(self.all.memory);
        let gpus = wants.gpus as usize;
        if self.slots == 0 || cpus > self.cpus || memory > self.memory || gpus > self.gpus.len() {
            return None;
        }
        self.slots -= 1;
        self.cpus -= cpus;
        self.memory -= memory;
        Some(Taken { cpus, memory, gpus: self.gpus.drain(..gpus).collect() })
    }

    fn give_back(&mut self, taken: Taken) {
        self.slots += 1;
        self.cpus += taken.cpus;
        self.memory += taken.memory;
        self.gpus.extend(taken.gpus);
        self.gpus.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(jobs: usize, cpus: u32, memory: u64, gpus: &[u32]) -> Room {
        let machine = Capacity { cpus, memory, gpus: gpus.to_vec() };
        Room::new(&Options {
            jobs,
            keep_going: false,
            force: false,
            link: Link::Auto,
            machine,
            sandbox: None,
            engine: None,
            audit: false,
            private: Vec::new(),
            trial: None,
        })
    }

    fn wants(cpus: u32, memory: u64, gpus: u32) -> Resources {
        Resources { cpus, memory: Some(memory), gpus, time: None }
    }

    #[test]
    fn steps_share_the_machine() {
        let mut room = room(3, 4, 100, &[0, 1]);
        let first = room.take(&wants(2, 60, 1)).unwrap();
        assert_eq!(first.gpus, [0]);
        assert!(room.take(&wants(1, 60, 0)).is_none(), "memory");
        assert!(room.take(&wants(3, 10, 0)).is_none(), "processors");
        let second = room.take(&wants(1, 10, 1)).unwrap();
        assert_eq!(second.gpus, [1]);
        assert!(room.take(&wants(1, 10, 1)).is_none(), "GPUs");
        let third = room.take(&wants(1, 10, 0)).unwrap();
        assert!(room.take(&wants(0, 0, 0)).is_none(), "slots");
        [first, second, third].into_iter().for_each(|t| room.give_back(t));
        let alone = room.take(&wants(64, 1000, 2)).unwrap();
        assert_eq!(alone.gpus, [0, 1]);
        assert!(room.take(&wants(1, 0, 0)).is_none(), "one that declares more than there is runs alone");
    }
}
