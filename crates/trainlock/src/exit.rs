//! Exit codes, and the one error type that commands end with.

use crate::lacking::Lacking;
use trainlock_types::Diagnostic;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// A step failed, or anything else went wrong.
    Failed = 1,
    /// Usage, or an invalid manifest.
    Invalid = 2,
    /// The lock is missing or out of date under `--locked` or `--check`.
    Stale = 3,
    /// An input failed verification.
    Unverified = 4,
    /// It ran, but did not give the sealed result.
    Diverged = 5,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Why a command did not do what it was asked for, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) code: Exit,
    /// What failed, each with its causes and hints; shown one below the other.
    pub(crate) problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(crate) enum Problem {
    /// It has a place in a file.
    Placed(Diagnostic),
    /// The store lacks this, and the network is off.
    Lacking(Vec<Lacking>),
    /// It has none: the message, its causes from the outermost to the innermost, and what to do.
    Plain {
        /// What failed.
        message: String,
        /// Why.
        causes: Vec<String>,
        /// What to do.
        hints: Vec<String>,
    },
}

impl Failure {
    /// One message without causes.
    pub(crate) fn new(code: Exit, message: impl Into<String>) -> Failure {
        Failure { code, problems: vec![Problem::plain(message)] }
    }

    /// An error and all its causes.
    pub(crate) fn from_error(code: Exit, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure { code, problems: vec![Problem::from_error(error)] }
    }

    /// Diagnostics, each with its place.
    pub(crate) fn placed(code: Exit, diagnostics: Vec<Diagnostic>) -> Failure {
        Failure { code, problems: diagnostics.into_iter().map(Problem::Placed).collect() }
    }

    /// Adds what to do about the last problem.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        match self.problems.last_mut() {
            Some(Problem::Plain { hints, .. }) => hints.push(hint.into()),
            Some(Problem::Placed(diagnostic)) => diagnostic.help = Some(hint.into()),
            Some(Problem::Lacking(_)) | None => {}
        }
        self
    }
}

impl Problem {
    /// One message without causes.
    pub(crate) fn plain(message: impl Into<String>) -> Problem {
        Problem::Plain { message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// An error and all its causes; a cause that only repeats the message above it is left out.
    pub(crate) fn from_error(error: &(dyn std::error::Error + 'static)) -> Problem {
        let message = error.to_string();
        let mut causes: Vec<String> = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if causes.last().unwrap_or(&message) != &text {
                causes.push(text);
            }
            next = cause.source();
        }
        Problem::Plain { message, causes, hints: Vec::new() }
    }
}

/// Errors that are nobody's fault in particular end with code 1.
macro_rules! ends_with_failed {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::from_error(Exit::Failed, &error)
            }
        })+
    };
}

ends_with_failed!(
    std::io::Error,
    trainlock_store::StoreError,
    trainlock_store::PutError,
    trainlock_store::HashError,
    trainlock_run::BenchError,
    trainlock_run::TrainError,
    trainlock_run::VerdictError,
    trainlock_run::record::RecordError,
);
