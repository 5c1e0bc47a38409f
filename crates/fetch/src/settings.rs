//! How fetching is done, and the switch that ends it.

use crate::auth::Credentials;
use crate::image::DockerFiles;
use crate::index::{IndexPlaces, IndexSettings, PackageIndex};
use crate::many::HUB;
use crate::object::ObjectSettings;
use crate::replace::Replacements;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use url::Url;

/// How fetching is done. This crate reads no settings of its own from files or the environment, but
/// for what TLS and proxies have there by custom: `SSL_CERT_FILE`, `SSL_CERT_DIR`, `HTTPS_PROXY`,
/// `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// No network. Files of this machine (`file:`) are still read.
    pub offline: bool,
    /// How often a source is tried again after a failure that may pass.
    pub retries: u32,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long an open connection may give no byte.
    pub stall_timeout: Duration,
    /// How long to wait before the first retry; doubled for each further one, and shortened at random
    /// by up to a half.
    pub backoff: Duration,
    /// The longest wait before a retry, also if a server asks for more by `Retry-After`.
    pub longest_wait: Duration,
    /// How many connections there are at once.
    pub max_connections: usize,
    /// How many of them to one host.
    pub host_connections: usize,
    /// How many bytes a second may come through all of them together; none without a limit.
    pub limit_rate: Option<u64>,
    /// The netrc file, if it exists: user names and passwords by host.
    pub netrc: Option<PathBuf>,
    /// Tokens and passwords by host, which go before netrc.
    pub credentials: Credentials,
    /// The files in which docker and its kin keep what registries of images want, in the order in which they are asked.
    pub docker: DockerFiles,
    /// What is read from elsewhere than its address names.
    pub replace: Replacements,
    /// A PEM file with certificates of authorities that are trusted besides the system's. On Linux
    /// `SSL_CERT_FILE` already stands for the system's; elsewhere it has no effect but through this.
    pub certificates: Option<PathBuf>,
    /// Where packages are looked for, or why that can't be told.
    pub package_index: PackageIndex,
    /// The address of the Hugging Face hub, or of a server in its place.
    pub hub: Url,
    /// Where object stores are, and the credentials for them.
    pub objects: ObjectSettings,
    /// The folder that paths of requests are relative to: the workspace's root.
    pub root: PathBuf,
    /// An archive may unpack to so many times its own size and [`Settings::unpack_more`]; data is not
    /// packed more tightly, decompression bombs are. Once a tree is locked, its size is the limit.
    pub unpack_ratio: u64,
    /// Bytes that an archive may unpack to besides.
    pub unpack_more: u64,
    /// Files and links that an archive of which nothing is locked may have.
    pub unpack_count: u64,
    /// Thrown when the user interrupts.
    pub cancel: Cancel,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            offline: false,
            retries: 5,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            max_connections: 48,
            host_connections: 32,
            limit_rate: None,
            netrc: None,
            credentials: Credentials::default(),
            docker: DockerFiles::default(),
            replace: Replacements::default(),
            certificates: None,
            package_index: PackageIndex::later(|| IndexSettings::find(&IndexPlaces::default())),
            hub: Url::parse(HUB).unwrap_or_else(|e| unreachable!("it is a URL: {e}")),
            objects: ObjectSettings::default(),
            root: PathBuf::from("."),
            unpack_ratio: 1000,
            unpack_more: 1 << 30,
            unpack_count: 10_000_000,
            cancel: Cancel::new(),
        }
    }
}

/// A switch that is thrown once; its clones are the same switch.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    thrown: Mutex<bool>,
    threads: Condvar,
    tasks: watch::Sender<bool>,
}

impl Cancel {
    /// A switch not thrown yet.
    #[expect(clippy::new_without_default, reason = "each is a switch of its own, which no default value should be")]
    pub fn new() -> Cancel {
        Cancel(Arc::new(Inner { thrown: Mutex::new(false), threads: Condvar::new(), tasks: watch::Sender::new(false) }))
    }

    /// Throws it: all transfers end as [`FetchError::Interrupted`](crate::FetchError::Interrupted).
    pub fn throw(&self) {
        *self.0.thrown.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.threads.notify_all();
        self.0.tasks.send_replace(true);
    }

    /// Whether it was thrown.
    pub fn is_thrown(&self) -> bool {
        *self.0.tasks.borrow()
    }

    /// Waits until it is thrown or the time is over; whether it was thrown.
    pub fn wait(&self, time: Duration) -> bool {
        let thrown = self.0.thrown.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.threads.wait_timeout_while(thrown, time, |thrown| !*thrown);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until it is thrown.
    pub(crate) async fn thrown(&self) {
        // It fails only when the sender is gone, and this holds it.
        let _ = self.0.tasks.subscribe().wait_for(|thrown| *thrown).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thrown_once_seen_by_all() {
        let cancel = Cancel::new();
        assert!(!cancel.is_thrown() && !cancel.wait(Duration::ZERO));
        let other = cancel.clone();
        let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        cancel.throw();
        cancel.throw();
        assert!(waiting.join().unwrap() && cancel.is_thrown());
    }
}
