//! How much of the network is used at once: connections in all and for each host, and bytes a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// The connections that there may be.
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    each_host: usize,
}

/// The right to one connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _host: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Budget {
    /// So many in all, and so many to one host.
    pub(crate) fn new(all: usize, each_host: usize) -> Budget {
        Budget { all: Arc::new(Semaphore::new(all.max(1))), hosts: Mutex::default(), each_host: each_host.max(1) }
    }

    /// One to the server of this address, in the order of asking. Who waits for a host has none of those in all, so that a
    /// busy host keeps nobody from the others.
    pub(crate) async fn take(&self, url: &Url) -> Option<Permit> {
        let host = self.host(url).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Permit { _host: host, _all: all })
    }

    /// One to the server of this address, if nobody waits for it.
    pub(crate) fn spare(&self, url: &Url) -> Option<Permit> {
        let host = self.host(url).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Permit { _host: host, _all: all })
    }

    fn host(&self, url: &Url) -> Arc<Semaphore> {
        let name =
            format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(name).or_insert_with(|| Arc::new(Semaphore::new(self.each_host))))
    }
}

/// At most so many bytes a second come through all connections together.
pub(crate) struct Rate {
    bytes: Option<u64>,
    /// When the next byte may come.
    next: Mutex<Instant>,
}

impl Rate {
    /// So many bytes a second; without a limit if none are named.
    pub(crate) fn new(bytes: Option<u64>) -> Rate {
        Rate { bytes: bytes.map(|bytes| bytes.max(1)), next: Mutex::new(Instant::now()) }
    }

    /// Waits until the bytes that came are allowed for. The server is slowed down by not being read from.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(limit) = self.bytes else { return };
        let time = Duration::from_secs_f64(bytes as f64 / limit as f64);
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(Instant::now()) + time;
            *next
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    #[test]
    fn a_busy_host_leaves_the_others_alone() {
        let budget = Budget::new(3, 2);
        let (a, b) = (Url::parse("https://a.org/x").unwrap(), Url::parse("https://b.org/x").unwrap());
        run(async {
            let first = budget.take(&a).await.unwrap();
            let _second = budget.take(&a).await.unwrap();
            assert!(budget.spare(&a).is_none());
            let waiting = budget.take(&a);
            tokio::pin!(waiting);
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
            let other = budget.spare(&b).unwrap();
            assert!(budget.spare(&b).is_none(), "three in all");
            drop(other);
            drop(first);
            // Whoever waited gets it, not whoever only asks for what is spare.
            assert!(budget.spare(&a).is_none());
            assert!(waiting.await.is_some());
        });
    }

    #[test]
    fn bytes_take_their_time() {
        run(async {
            let (began, rate) = (Instant::now(), Rate::new(Some(1_000_000)));
            for _ in 0..5 {
                rate.pass(10_000).await;
            }
            assert!(began.elapsed() >= Duration::from_millis(50));
            Rate::new(None).pass(usize::MAX).await;
        });
    }
}
