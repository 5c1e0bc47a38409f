//! What can go wrong while fetching. Addresses in errors are redacted.

use crate::ArchiveError;
use crate::refusal::HubRefusal;
use crate::replace::{REPLACED, own};
use std::fmt;
use std::io;
use std::time::Duration;
use trainlock_store::StoreError;
use trainlock_types::{Checksum, Digest};

/// What the names of images begin with in errors.
pub(crate) const IMAGE: &str = "image ";

/// Why an input was not fetched. Nothing wrong is in the store.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not in the store and the network may not be used.
    #[error("`{name}` is not in the store, and the network is off")]
    Offline {
        /// The data set.
        name: String,
        /// Its first source.
        url: String,
    },
    /// A kind of source that is not fetched here.
    #[error("`{name}` comes from {kind}, which this version of trainlock cannot fetch")]
    Unsupported {
        /// The data set.
        name: String,
        /// The kind of source, in words.
        kind: &'static str,
    },
    /// No source gave it.
    #[error("could not fetch `{name}`")]
    Sources {
        /// The data set.
        name: String,
        /// Why, a source each.
        #[source]
        failures: SourceFailures,
    },
    /// Its archive came, and cannot be unpacked.
    #[error("could not unpack `{name}`, which came from {url}")]
    Archive {
        /// The data set.
        name: String,
        /// The first source of the archive.
        url: String,
        /// What is wrong with it.
        #[source]
        error: ArchiveError,
    },
    /// Its archive is the locked one, and what was unpacked is not.
    #[error("what was unpacked for `{name}` is not what is locked; its archive came from {url}")]
    Unpacked {
        /// The data set.
        name: String,
        /// The first source of the archive.
        url: String,
        /// The difference.
        #[source]
        mismatch: Mismatch,
    },
    /// Its source answered, and not with what is asked for.
    #[error("could not find out what `{name}` holds: {reason}")]
    Contents {
        /// The data set.
        name: String,
        /// Why not.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Its source answered that there is no such thing, or not any more.
    #[error("could not find `{name}`: {reason}")]
    Gone {
        /// The data set.
        name: String,
        /// What there is not.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The store could not take it.
    #[error("could not keep `{name}` in the store")]
    Store {
        /// The data set.
        name: String,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// The user interrupted.
    #[error("interrupted while fetching `{name}`")]
    Interrupted {
        /// The data set.
        name: String,
    },
}

impl FetchError {
    /// Whether something came and was not what it should be: an input that failed verification.
    pub fn is_verification(&self) -> bool {
        match self {
            FetchError::Sources { failures, .. } => {
                failures.0.iter().any(|f| matches!(f.reason, Reason::Mismatch { .. }))
            }
            FetchError::Unpacked { .. } => true,
            _ => false,
        }
    }

    /// Whether every source answered that it does not have it.
    pub fn is_gone(&self) -> bool {
        match self {
            FetchError::Sources { failures: SourceFailures(all), .. } => {
                !all.is_empty() && all.iter().all(|failure| failure.reason.is_gone())
            }
            FetchError::Gone { .. } => true,
            _ => false,
        }
    }

    /// Whether every source wanted credentials or refused them.
    pub(crate) fn is_denied(&self) -> bool {
        let FetchError::Sources { failures: SourceFailures(all), .. } = self else { return false };
        !all.is_empty() && all.iter().all(|failure| matches!(failure.reason, Reason::Denied { .. }))
    }

    /// Why, in words on one line, without its name and addresses.
    pub fn why(&self) -> String {
        match self {
            FetchError::Sources { failures: SourceFailures(all), .. } => {
                let mut reasons: Vec<String> = all.iter().map(|failure| failure.reason.to_string()).collect();
                reasons.dedup();
                reasons.join("; ")
            }
            FetchError::Contents { reason, .. } | FetchError::Gone { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// Whether no source was reached at all.
    pub fn is_unreachable(&self) -> bool {
        match self {
            FetchError::Sources { failures, .. } => {
                failures.0.iter().all(|f| matches!(f.reason, Reason::Network(_) | Reason::Setup(_)))
            }
            _ => false,
        }
    }

    /// What the user can do about it, as a fragment.
    pub fn hint(&self) -> Option<String> {
        match self {
            FetchError::Offline { .. } => {
                Some("run the command once with a network; from then on it is in the store".to_owned())
            }
            FetchError::Contents { hint, .. } => hint.clone(),
            FetchError::Gone { hint, .. } => Some(hint.clone()),
            FetchError::Sources { name, failures } => failures.0.iter().find_map(|failure| match &failure.reason {
                Reason::Hub { refusal, sent, .. } => Some(refusal.hint(failure.page(), *sent)),
                Reason::Denied { sent: true, .. } => Some(format!(
                    "the credentials for {} were refused: look at TRAINLOCK_AUTH_…, at [auth] in the configuration file, and at netrc, in this order",
                    failure.host()
                )),
                Reason::Denied { .. } if name.starts_with(IMAGE) => Some(format!(
                    "log in with `docker login {0}` (or podman or skopeo), or put `machine {0} login USER password PASSWORD` into ~/.netrc; of an image that does not exist a registry may say the same",
                    failure.host()
                )),
                Reason::Denied { .. } => Some(format!(
                    "put `machine {0} login USER password PASSWORD` into ~/.netrc, or a token into the configuration file: [auth.\"{0}\"] (sent over https, and to this machine itself, only)",
                    failure.host()
                )),
                Reason::Credentials { hint, .. } => Some(hint.clone()),
                Reason::BucketDenied { bucket, anonymous, .. } => Some(credentials(bucket, *anonymous)),
                Reason::NoBucket { .. } => Some(
                    "look for a misspelling, and at the endpoint: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST, AZURE_STORAGE_ENDPOINT"
                        .to_owned(),
                ),
                Reason::Region { region, .. } => Some(format!("set AWS_REGION={region}")),
                Reason::Helper { helper, host, .. } => Some(format!("run it by hand to see why: {helper} … {host}")),
                Reason::Html => {
                    Some("open the address in a browser: it may want a login, or a quota may be used up".to_owned())
                }
                Reason::Mismatch { .. } if name.starts_with(IMAGE) => Some(
                    "what a digest names never changes: the registry, or something on the way, damaged it; try again, or take the image from another registry"
                        .to_owned(),
                ),
                Reason::Mismatch { mismatch: Mismatch::Sha256 { .. } | Mismatch::Size { .. }, .. } => {
                    // A file of a data set, or one of a member, is none that `update` knows by this name.
                    let which = match name.contains('/') {
                        true => "` with the data set's name".to_owned(),
                        false => format!(" {name}`"),
                    };
                    Some(format!("if the change upstream is meant, run `trainlock update{which}"))
                }
                Reason::Gone { package } => Some(format!(
                    "look whether the machine's package index is the one that was locked with; else move to a version that it has: trainlock update {package}"
                )),
                Reason::Withdrawn { .. } => Some(withdrawn(failures)),
                Reason::Certificate(_) => {
                    Some("set SSL_CERT_FILE to a PEM file with your authority's certificate".to_owned())
                }
                _ => None,
            }),
            _ => None,
        }
    }
}

/// What to do about files that were withdrawn.
fn withdrawn(failures: &SourceFailures) -> String {
    let package = |failure: &SourceFailure| match &failure.reason {
        Reason::Withdrawn { package, .. } => Some(package.clone()),
        _ => None,
    };
    let packages: Vec<String> = failures.0.iter().filter_map(package).collect();
    let quoted: Vec<String> = packages.iter().map(|package| format!("\"{package}\"")).collect();
    format!(
        "to go on with the locked bytes, add `--config fetch.yanked={}` to the command (for all who use the lock: `yanked = [{}]` in [python]); to move on to another version: trainlock update {}",
        packages.join(","),
        quoted.join(", "),
        packages.join(" ")
    )
}

/// The publisher's reason for withdrawing a file, as the end of a sentence.
pub fn of_withdrawal(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({})", why.escape_debug()) }
}

/// What to do about a bucket that gives no access.
fn credentials(bucket: &str, anonymous: bool) -> String {
    let variables = match bucket.split(':').next().unwrap_or_default() {
        "s3" => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile of ~/.aws",
        "gs" => {
            "GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, or run `gcloud auth application-default login`"
        }
        _ => "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
    };
    match anonymous {
        true => format!("set {variables}"),
        false => format!("look whether the credentials are right and may read {bucket}: set {variables}"),
    }
}

/// Why each source in turn did not give it.
#[derive(Debug)]
pub struct SourceFailures(pub Vec<SourceFailure>);

/// Why one source did not give it.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source, redacted.
    pub url: String,
    /// Why, at the last try.
    pub reason: Reason,
    /// Why at the tries before, in order.
    pub earlier: Vec<Reason>,
}

impl SourceFailure {
    /// The repository's page, of a file of the hub: the hub's own, where terms are accepted, and not a mirror's.
    fn page(&self) -> &str {
        let url = own(&self.url);
        url.split_once("/resolve/").map_or(url, |(page, _)| page)
    }

    fn host(&self) -> &str {
        // The one that was really asked.
        let url = self.url.split_once(REPLACED).map_or(self.url.as_str(), |(_, other)| other);
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.split(['/', ':', '?']).next().unwrap_or_default()
    }
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.reason.to_string();
        write!(f, "{}: {last}", self.url)?;
        let mut others: Vec<String> = Vec::new();
        for text in self.earlier.iter().map(Reason::to_string) {
            if text != last && !others.contains(&text) {
                others.push(text);
            }
        }
        match (self.earlier.len(), others.is_empty()) {
            (0, _) => Ok(()),
            (n, true) => write!(f, " (tried {} times)", n + 1),
            (n, false) => write!(f, " (tried {} times; before: {})", n + 1, others.join("; ")),
        }
    }
}

impl fmt::Display for SourceFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, failure) in self.0.iter().enumerate() {
            write!(f, "{}{failure}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for SourceFailures {}

/// Why one try at one source failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The connection did not come about, or broke.
    #[error("{0}")]
    Network(String),
    /// The server's certificate is not one to trust.
    #[error("the server's certificate is not trusted: {0}")]
    Certificate(String),
    /// TLS, proxies or certificates are not set up so that anything can be fetched.
    #[error("the network cannot be used: {0}")]
    Setup(String),
    /// A credential helper that gave no answer.
    #[error("the credential helper `{helper}` has no answer for {host}: {why}")]
    Helper {
        /// The program.
        helper: String,
        /// The host that it was asked for.
        host: String,
        /// Why, in words.
        why: String,
    },
    /// No byte for so long.
    #[error("no byte came for {0:?}")]
    Stalled(Duration),
    /// Bytes come, but so few that it would never end.
    #[error("only {bytes} bytes came in {time:.1?}")]
    Slow {
        /// What came.
        bytes: u64,
        /// In this time.
        time: Duration,
    },
    /// No connection of the budget is free for what can do without one.
    #[error("no connection is to spare")]
    NoneToSpare,
    /// The body ended too early.
    #[error("the connection ended after {found} bytes{}", Of(.expected))]
    CutOff {
        /// The stated length in bytes.
        expected: Option<u64>,
        /// What came.
        found: u64,
    },
    /// What was asked for behind a part that was there already, and did not fit to it.
    #[error("what came did not fit to the part that was there: it is fetched from the start")]
    Resume,
    /// The server says that it is another file than the one that the first parts are of.
    #[error("the file changed on the server while it was fetched: it is fetched from the start")]
    Changed,
    /// 404 or 410.
    #[error("not found (status {0})")]
    NotFound(u16),
    /// A locked file that the package index no longer has.
    #[error("the package index no longer has this file of {package}: it was deleted, or the index is another one")]
    Gone {
        /// The package.
        package: String,
    },
    /// A locked file that the package index still has, and its publisher no longer wants to be used.
    #[error("its publisher has withdrawn (yanked) this file of {package}{}", of_withdrawal(.why))]
    Withdrawn {
        /// The package.
        package: String,
        /// The publisher's reason; may be empty.
        why: String,
    },
    /// 401, 403 or 407.
    #[error("the server wants credentials or refuses them (status {status})")]
    Denied {
        /// The status.
        status: u16,
        /// Whether credentials were sent.
        sent: bool,
    },
    /// The Hugging Face hub refuses, and says why.
    #[error("{refusal} (status {status}{}{said})", if .said.is_empty() { "" } else { ": " })]
    Hub {
        /// Why.
        refusal: HubRefusal,
        /// The status.
        status: u16,
        /// What it says itself; empty if it says nothing.
        said: String,
        /// Whether credentials were sent.
        sent: bool,
    },
    /// There is no such bucket or container.
    #[error("there is no bucket {bucket}")]
    NoBucket {
        /// The bucket's address.
        bucket: String,
    },
    /// An object store that refuses, or wants credentials.
    #[error("{} (status {status}){why}", if *.anonymous { "it wants credentials, and there are none" } else { "it refuses the credentials" })]
    BucketDenied {
        /// The bucket's address.
        bucket: String,
        /// The status.
        status: u16,
        /// What the store says, behind a colon; empty if it says nothing.
        why: String,
        /// Whether the request went without credentials.
        anonymous: bool,
    },
    /// Credentials that are meant for an object store, and can't be had.
    #[error("{why}")]
    Credentials {
        /// Which, where that is said, and why not.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// The bucket is in another region than the one that was asked.
    #[error("the bucket {bucket} is in the region {region}")]
    Region {
        /// The bucket's address.
        bucket: String,
        /// Where it is.
        region: String,
    },
    /// An object store answered with something that can't be used.
    #[error("the object store of {bucket} can't be used: {why}")]
    Objects {
        /// The bucket's address.
        bucket: String,
        /// In which way.
        why: String,
    },
    /// Another status than 200.
    #[error("the server answered with status {status}")]
    Status {
        /// The status.
        status: u16,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// Too many redirects.
    #[error("more than {0} redirects")]
    Redirects(usize),
    /// From https to http.
    #[error("it redirects from https to {0}, which nothing protects")]
    Downgrade(String),
    /// A redirect to nowhere that can be fetched.
    #[error("it redirects to an address that cannot be used")]
    BadRedirect,
    /// A web page where data was expected.
    #[error("an HTML page came instead of data (a login or quota page?)")]
    Html,
    /// Compressed for the way, which is not the data itself.
    #[error("the body came with `Content-Encoding: {0}` though it was not asked for: its bytes may differ next time")]
    Encoded(String),
    /// Something else came than what was stated or locked.
    #[error("{mismatch}{}", if *.html { " (an HTML page came: a login or quota page?)" } else { "" })]
    Mismatch {
        /// The difference.
        mismatch: Mismatch,
        /// Whether the server called it HTML.
        html: bool,
    },
    /// A kind of source that is not fetched here.
    #[error("{0} cannot be fetched by this version of trainlock")]
    Unsupported(&'static str),
    /// The network may not be used.
    #[error("the network is off")]
    Offline,
    /// A file of this machine that is not there.
    #[error("no such file")]
    NoFile,
    /// A path of this machine that is not a file.
    #[error("it is {0}, not a file")]
    NotAFile(&'static str),
    /// A file of this machine that cannot be read.
    #[error("cannot read it: {0}")]
    Read(io::Error),
}

impl Reason {
    /// Whether the source answered that it does not have it.
    fn is_gone(&self) -> bool {
        match self {
            Reason::NotFound(_) | Reason::Gone { .. } | Reason::NoFile => true,
            Reason::Hub { refusal, .. } => refusal.is_missing(),
            _ => false,
        }
    }

    /// Whether another try may go better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Reason::Network(_)
            | Reason::Stalled(_)
            | Reason::Slow { .. }
            | Reason::NoneToSpare
            | Reason::CutOff { .. }
            | Reason::Resume
            | Reason::Changed => true,
            Reason::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

struct Of<'a>(&'a Option<u64>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |n| write!(f, " of {n}"))
    }
}

/// What came is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another length.
    #[error("expected {expected} bytes, found {}{found}", if *.more { "at least " } else { "" })]
    Size {
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
        /// Whether there were more, which were not read.
        more: bool,
    },
    /// Other bytes.
    #[error("expected sha256 {expected}, found {found}")]
    Sha256 {
        /// The digest expected.
        expected: Digest,
        /// The digest found.
        found: Digest,
    },
    /// Not what the publisher states.
    #[error("its publisher states {expected}, found {found}")]
    Checksum {
        /// The checksum that the manifest or the source states.
        expected: Checksum,
        /// What the bytes have.
        found: Checksum,
    },
    /// Another tree.
    #[error("expected tree {expected}, found {found}")]
    Tree {
        /// The digest expected.
        expected: Digest,
        /// The digest found.
        found: Digest,
    },
}

/// Why a transfer ended: a reason to try again or elsewhere, or one to stop.
#[derive(Debug)]
pub(crate) enum Failure {
    Source(Reason),
    Store(StoreError),
    Interrupted,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure::Source(reason)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_accepted_at_the_hub_itself() {
        let reason = Reason::Hub { refusal: HubRefusal::Gated, status: 403, said: "no".to_owned(), sent: false };
        let url =
            format!("https://huggingface.co/o/n/resolve/1/x/resolve/y{REPLACED}https://mirror.org/o/n/resolve/1/x)");
        let failures = SourceFailures(vec![SourceFailure { url, reason, earlier: vec![] }]);
        let error = FetchError::Sources { name: "a/x".into(), failures };
        assert!(error.hint().unwrap().contains("terms at https://huggingface.co/o/n, "), "{:?}", error.hint());
        assert!(!error.is_gone());
    }

    #[test]
    fn every_source_and_reason_is_told_once() {
        let stalled = || Reason::Stalled(Duration::from_secs(30));
        let status = || Reason::Status { status: 503, retry_after: None };
        let failure = |reason, earlier| SourceFailure { url: "https://a.org/x".into(), reason, earlier };
        let failures = SourceFailures(vec![
            failure(status(), vec![status(), status()]),
            failure(Reason::NotFound(404), vec![stalled(), stalled()]),
            failure(Reason::Html, vec![]),
        ]);
        let text = failures.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "https://a.org/x: the server answered with status 503 (tried 3 times)");
        assert_eq!(lines[1], "https://a.org/x: not found (status 404) (tried 3 times; before: no byte came for 30s)");
        assert!(lines[2].starts_with("https://a.org/x: an HTML page came"));
        let error = FetchError::Sources { name: "raw".into(), failures };
        assert!(!error.is_verification());
        assert!(error.hint().unwrap().contains("browser"));
    }
}
