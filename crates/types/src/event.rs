//! What happens while trainlock works: one stream, of which the terminal, `--json` and the run
//! record are views.

use crate::Digest;
use serde::Serialize;
use std::sync::mpsc::Sender;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// Its outputs stand in the project already.
    Fresh,
    /// Its outputs were brought back from the store.
    Restored,
    /// It ran and succeeded.
    Ran,
    /// It ran and failed.
    Failed,
    /// A step that it needs failed.
    Skipped,
    /// It was ended because the user or another failure stopped the run.
    Interrupted,
}

impl StepOutcome {
    /// The word in records and in `--json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            StepOutcome::Fresh => "fresh",
            StepOutcome::Restored => "restored",
            StepOutcome::Ran => "ran",
            StepOutcome::Failed => "failed",
            StepOutcome::Skipped => "skipped",
            StepOutcome::Interrupted => "interrupted",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Another trainlock process has what is needed; this one waits for it.
    Waiting {
        /// What is waited for, for example "step `train`".
        what: String,
        /// The process that has it, where known.
        holder: Option<u32>,
    },
    /// An input is being fetched, hashed or unpacked.
    TransferStarted {
        /// Names the transfer in later events.
        id: u64,
        /// The data set or tool.
        name: String,
        /// What is done: "fetch", "hash" or "unpack".
        action: &'static str,
        /// Bytes in all, where known.
        size: Option<u64>,
    },
    /// Bytes came.
    TransferProgress {
        /// The transfer.
        id: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// An attempt failed and is made again.
    TransferRetry {
        /// The transfer.
        id: u64,
        /// The data set or tool.
        name: String,
        /// Why (redacted).
        reason: String,
        /// How long until then, in milliseconds.
        delay_ms: u64,
    },
    /// It is there and verified, or it failed (the error comes by itself).
    TransferFinished {
        /// The transfer.
        id: u64,
        /// The data set or tool.
        name: String,
        /// Bytes in all.
        bytes: u64,
        /// Its digest; none if it failed.
        sha256: Option<Digest>,
    },
    /// Steps are about to be decided and run.
    RunStarted {
        /// The run's id.
        run: String,
        /// How many steps the plan has.
        steps: usize,
    },
    /// A step's command starts.
    StepStarted {
        /// `member/step`, or `step` in the root project.
        step: String,
        /// Why it runs, in words.
        why: String,
    },
    /// What a step's command printed (its standard output and error in one).
    StepOutput {
        /// The step.
        step: String,
        /// Text, with invalid UTF-8 replaced; may be part of a line.
        text: String,
    },
    /// A step ended, or needed nothing.
    StepFinished {
        /// The step.
        step: String,
        /// How.
        outcome: StepOutcome,
        /// Its key, where it came so far.
        key: Option<Digest>,
        /// Wall time in seconds.
        seconds: f64,
    },
    /// Something that the user should know and that stops nothing.
    Warning {
        /// What.
        message: String,
    },
}

/// Where events go: to a receiver, or nowhere.
#[derive(Debug, Clone, Default)]
pub struct Events {
    to: Option<Sender<Vec<Event>>>,
    without_transfers: bool,
}

impl Events {
    /// To this receiver, which gets those that are told together in one piece.
    pub fn to(sender: Sender<Vec<Event>>) -> Events {
        Events { to: Some(sender), without_transfers: false }
    }

    /// Without how transfers begin, get on and end: of thousands of small files it takes a while to hear.
    pub fn without_transfers(self) -> Events {
        Events { without_transfers: true, ..self }
    }

    /// To nobody.
    pub fn none() -> Events {
        Events::default()
    }

    /// Tells it. A receiver that is gone is no error: the work matters, not the telling.
    pub fn emit(&self, event: Event) {
        self.emit_all(vec![event]);
    }

    /// Tells them in one piece: where there are thousands, the receiver is woken once.
    pub fn emit_all(&self, mut events: Vec<Event>) {
        use Event::{TransferFinished, TransferProgress, TransferStarted};
        if self.without_transfers {
            let is_transfer = |event: &Event| {
                matches!(event, TransferStarted { .. } | TransferProgress { .. } | TransferFinished { .. })
            };
            events.retain(|event| !is_transfer(event));
        }
        if let Some(sender) = &self.to
            && !events.is_empty()
        {
            let _ = sender.send(events);
        }
    }
}
