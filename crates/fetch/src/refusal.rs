//! What the Hugging Face hub says where it refuses, in the headers of its answers (`X-Error-Code`, `X-Error-Message`).
//!
//! The status alone says little: 401 is a repository that does not exist, one that is private, one with terms to be
//! accepted, and a token that is wrong.

use std::fmt;

/// No more of a server's words is shown, in characters.
const LONGEST: usize = 300;

/// Why the hub gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubRefusal {
    /// Its terms have to be accepted first.
    Gated,
    /// There is no such repository, or whoever asks may not know of it.
    NoRepository,
    /// It has no such branch, tag or commit.
    NoRevision,
    /// It has no such file.
    NoEntry,
    /// Nobody gets it.
    Disabled,
    /// The token is none that it knows.
    BadToken,
}

impl HubRefusal {
    /// What the headers of an answer say; none if they are not the hub's, or say nothing more than the status does.
    pub(crate) fn of(code: Option<&str>, message: Option<&str>) -> Option<HubRefusal> {
        match (code, message) {
            (Some("GatedRepo"), _) => Some(HubRefusal::Gated),
            (_, Some("Invalid credentials in Authorization header")) => Some(HubRefusal::BadToken),
            (_, Some("Access to this resource is disabled.")) => Some(HubRefusal::Disabled),
            (Some("RepoNotFound"), _) => Some(HubRefusal::NoRepository),
            (Some("RevisionNotFound"), _) => Some(HubRefusal::NoRevision),
            (Some("EntryNotFound"), _) => Some(HubRefusal::NoEntry),
            _ => None,
        }
    }

    /// Whether it says that there is no such thing: of what is private it says the same.
    pub(crate) fn is_missing(self) -> bool {
        matches!(self, HubRefusal::NoRepository | HubRefusal::NoRevision | HubRefusal::NoEntry)
    }

    /// What to do about it: `page` is where people see the repository, `sent` whether a token was sent.
    pub(crate) fn hint(self, page: &str, sent: bool) -> String {
        let token = "set HF_TOKEN, or log in with the hub's own tools";
        match (self, sent) {
            (HubRefusal::Gated, false) => format!("accept its terms at {page}, and {token}"),
            (HubRefusal::Gated, true) => format!(
                "accept its terms at {page} as the user whose token it is; one with fine-grained permissions has to allow gated repositories too"
            ),
            (HubRefusal::NoRepository, false) => {
                format!("look for it at {page}: its name may be misspelt, or it is private: then {token}")
            }
            (HubRefusal::NoRepository, true) => {
                format!("look for it at {page} as the user whose token it is: the token may not give access to it")
            }
            (HubRefusal::NoRevision | HubRefusal::NoEntry | HubRefusal::Disabled, _) => format!("look at {page}"),
            (HubRefusal::BadToken, _) => format!("it may be mistyped, or have expired: {token}"),
        }
    }
}

impl fmt::Display for HubRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HubRefusal::Gated => "the repository has terms that have to be accepted first",
            HubRefusal::NoRepository => "the hub has no such repository, or keeps it private",
            HubRefusal::NoRevision => "the repository has no such revision",
            HubRefusal::NoEntry => "the repository has no such file at this revision",
            HubRefusal::Disabled => "the hub has disabled the repository",
            HubRefusal::BadToken => "the hub does not accept the token",
        })
    }
}

/// A server's words on one line, and not too many of them.
pub(crate) fn words(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_hub() {
        assert_eq!(HubRefusal::of(Some("GatedRepo"), Some("Access is restricted")), Some(HubRefusal::Gated));
        assert_eq!(
            HubRefusal::of(Some("RepoNotFound"), Some("Invalid credentials in Authorization header")),
            Some(HubRefusal::BadToken)
        );
        assert_eq!(HubRefusal::of(None, Some("Access to this resource is disabled.")), Some(HubRefusal::Disabled));
        for (code, message) in [(None, None), (Some("Other"), Some("words")), (None, Some("words"))] {
            assert_eq!(HubRefusal::of(code, message), None);
        }
        assert_eq!(words(" a\r\nb\u{1b}[31m "), "a  b [31m");
        assert_eq!(words(&"x".repeat(1000)).len(), LONGEST);
    }
}
