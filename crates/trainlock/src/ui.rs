//! What people see: cargo's look on standard error, progress bars, rendered errors.

use crate::cli::{Color, Global};
use crate::exit::{Failure, Problem};
use crate::lacking;
use crate::report;
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use trainlock_types::{Event, Events, HumanSize, StepOutcome};

const GREEN: Style = AnsiColor::Green.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const RED: Style = AnsiColor::Red.on_default().bold();

/// How many problems of one failure are shown: in a file that is something else than what it should be,
/// every line may be a mistake.
const PROBLEMS: usize = 100;

/// Standard error and standard output, as the user wants them.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    quiet: bool,
    verbose: bool,
    json: bool,
    color: bool,
    progress: bool,
    bars: MultiProgress,
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Ui {
        let terminal = std::io::stderr().is_terminal();
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !crate::settings::no_color(),
        };
        let progress = terminal && !global.quiet && !crate::settings::in_ci();
        let target = if progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        Ui { quiet: global.quiet, verbose: global.verbose > 0, json: global.json, color, progress, bars }
    }

    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether `-v` was given.
    pub(crate) fn verbose(&self) -> bool {
        self.verbose
    }

    /// A fact on standard error: a right-aligned green verb and what it is about.
    pub(crate) fn status(&self, verb: &str, message: impl std::fmt::Display) {
        if !self.quiet {
            self.line(verb, GREEN, &message.to_string());
        }
    }

    /// The same in red, for what did not turn out as it should.
    pub(crate) fn bad(&self, verb: &str, message: impl std::fmt::Display) {
        if !self.quiet {
            self.line(verb, RED, &message.to_string());
        }
    }

    /// The same in cyan, for what only began or was only waited for.
    pub(crate) fn note(&self, verb: &str, message: impl std::fmt::Display) {
        if !self.quiet {
            self.line(verb, CYAN, &message.to_string());
        }
    }

    /// That another process is at something which this one needs too.
    pub(crate) fn waiting(&self, what: &str, holder: Option<u32>) {
        let by = holder.map(|pid| format!(" (process {pid} is at it)")).unwrap_or_default();
        self.note("Waiting", format!("for {what}{by}"));
    }

    /// Something the user should know.
    pub(crate) fn warning(&self, message: &str) {
        self.say(&format!("{}: {message}", self.paint("warning", YELLOW)));
    }

    fn line(&self, verb: &str, style: Style, message: &str) {
        self.say(&format!("{} {message}", self.paint(&format!("{verb:>12}"), style)));
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// A line on standard error, above the bars.
    fn say(&self, line: &str) {
        self.bars.suspend(|| {
            // Nobody left to read is no reason to stop training.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }

    /// What was asked for, on standard output. A closed pipe is no error: the reader has enough.
    pub(crate) fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out
            .write_all(text.as_bytes())
            .and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") });
        let _ = out.flush();
    }

    /// What was asked for, as one line of JSON.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) {
        self.print(&serde_json::to_string(value).expect("facts are JSON"));
    }

    /// Why a command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        for problem in failure.problems.iter().take(PROBLEMS) {
            let told;
            let problem = match problem {
                Problem::Lacking(all) => {
                    told = lacking::told(all);
                    &told
                }
                other => other,
            };
            match problem {
                Problem::Placed(diagnostic) => self.say(&report::render(diagnostic, self.color)),
                Problem::Lacking(_) => {}
                Problem::Plain { message, causes, hints } => {
                    let mut text = format!("{}: {message}", self.paint("error", RED));
                    for cause in causes {
                        text.push_str(&format!("\n  because: {}", cause.replace('\n', "\n    ")));
                    }
                    for hint in hints {
                        text.push_str(&format!("\n  {}: {}", self.paint("help", CYAN), hint.replace('\n', "\n    ")));
                    }
                    self.say(&text);
                }
            }
        }
        let more = failure.problems.len().saturating_sub(PROBLEMS);
        if more > 0 {
            self.say(&format!("{}: {more} more mistakes are not shown", self.paint("error", RED)));
        }
    }

    /// A receiver of events that shows them until every sender is gone.
    pub(crate) fn events(&self) -> (Events, Display) {
        self.events_of(None)
    }

    /// The same for several transfers of so many bytes in all, which get a bar of their own.
    pub(crate) fn events_of(&self, total: Option<u64>) -> (Events, Display) {
        let (sender, receiver) = channel();
        let ui = self.clone();
        let thread = std::thread::spawn(move || Shown::new(ui, total).all(&receiver));
        let events = Events::to(sender);
        let shown = self.progress || self.json || self.verbose;
        (if shown { events } else { events.without_transfers() }, Display(Some(thread)))
    }
}

/// Waits, when dropped, until all events are shown. Drop the senders first.
#[derive(Debug)]
pub(crate) struct Display(Option<JoinHandle<()>>);

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

const FETCHING: &str = "Fetching";

/// A bar of so many bytes; without an end where that is not known.
fn bar(size: Option<u64>) -> ProgressBar {
    let template = match size {
        Some(_) => "{prefix:>12.cyan.bold} [{bar:25}] {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}",
        None => "{prefix:>12.cyan.bold} {bytes} {binary_bytes_per_sec} {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::hidden());
    bar.set_style(style);
    bar
}

/// What is on the screen.
struct Shown {
    ui: Ui,
    bars: BTreeMap<u64, ProgressBar>,
    /// Of all that is fetched, where that is known.
    total: Option<ProgressBar>,
    /// Steps under way, each with its unfinished line of output.
    running: BTreeMap<String, String>,
}

impl Shown {
    fn new(ui: Ui, total: Option<u64>) -> Shown {
        let total = total.filter(|_| ui.progress).map(|bytes| {
            let bar = ui.bars.add(bar(Some(bytes)));
            bar.set_prefix("In all");
            bar
        });
        Shown { ui, bars: BTreeMap::new(), total, running: BTreeMap::new() }
    }

    /// That a transfer has come so far.
    fn advance(&self, bar: &ProgressBar, bytes: u64) {
        if let Some(total) = self.total.as_ref().filter(|_| bar.prefix() == FETCHING) {
            total.set_position((total.position() + bytes).saturating_sub(bar.position()));
        }
        bar.set_position(bytes);
    }

    fn all(mut self, receiver: &Receiver<Vec<Event>>) {
        for event in receiver.iter().flatten() {
            if self.ui.json {
                self.ui.print_json(&event);
            }
            self.show(event);
        }
        if let Some(total) = &self.total {
            total.finish_and_clear();
        }
    }

    fn show(&mut self, event: Event) {
        let ui = self.ui.clone();
        match event {
            Event::Waiting { what, holder } => ui.waiting(&what, holder),
            Event::TransferStarted { id, name, action, size } => self.start_bar(id, name, action, size),
            Event::TransferProgress { id, bytes } => {
                if let Some(bar) = self.bars.get(&id) {
                    self.advance(bar, bytes);
                }
            }
            Event::TransferRetry { name, reason, delay_ms, .. } => {
                let delay = Duration::from_millis(delay_ms).as_secs_f64();
                ui.warning(&format!("`{name}`: {reason}; trying again in {delay:.1}s"));
            }
            Event::TransferFinished { id, name, bytes, sha256 } => {
                if let Some(bar) = self.bars.remove(&id) {
                    self.advance(&bar, bytes);
                    bar.finish_and_clear();
                }
                if let Some(sha256) = sha256.filter(|_| ui.verbose) {
                    ui.status("Verified", format!("{name} ({}, sha256 {})", HumanSize(bytes), sha256.short()));
                }
            }
            Event::RunStarted { .. } => {}
            Event::StepStarted { step, why } => {
                ui.status("Running", format!("{step} ({why})"));
                self.running.insert(step, String::new());
            }
            Event::StepOutput { step, text } => self.output(&step, &text),
            Event::StepFinished { step, outcome, seconds, .. } => self.step_finished(&step, outcome, seconds),
            Event::Warning { message } => ui.warning(&message),
        }
    }

    fn start_bar(&mut self, id: u64, name: String, action: &str, size: Option<u64>) {
        if !self.ui.progress {
            return;
        }
        let bar = bar(size);
        // The one of all of them stays the last.
        let bar = match &self.total {
            Some(total) => self.ui.bars.insert_before(total, bar),
            None => self.ui.bars.add(bar),
        };
        bar.set_prefix(match action {
            "hash" => "Hashing",
            "unpack" => "Unpacking",
            _ => FETCHING,
        });
        bar.set_message(name);
        self.bars.insert(id, bar);
    }

    /// A step's own output: whole lines, with the step's name before each where several steps run.
    fn output(&mut self, step: &str, text: &str) {
        if self.ui.quiet || self.ui.json {
            return;
        }
        let several = self.running.len() > 1;
        let Some(line) = self.running.get_mut(step) else {
            return;
        };
        line.push_str(text);
        let Some(end) = line.rfind('\n') else { return };
        let rest = line.split_off(end + 1);
        let whole = std::mem::replace(line, rest);
        for line in whole.lines() {
            self.ui.say(&if several { format!("[{step}] {line}") } else { line.to_owned() });
        }
    }

    fn step_finished(&mut self, step: &str, outcome: StepOutcome, seconds: f64) {
        if self.running.get(step).is_some_and(|rest| !rest.is_empty()) {
            self.output(step, "\n");
        }
        self.running.remove(step);
        match outcome {
            StepOutcome::Fresh if self.ui.verbose => self.ui.status("Fresh", step),
            StepOutcome::Restored => self.ui.status("Cached", format!("{step} (outputs brought back from the store)")),
            StepOutcome::Ran if self.ui.verbose => self.ui.status("Ran", format!("{step} in {seconds:.2}s")),
            StepOutcome::Interrupted => self.ui.warning(&format!("step `{step}` was interrupted")),
            _ => {}
        }
    }
}

/// A text with its control characters written out: a lock may come from a stranger, and what servers say always does.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}
