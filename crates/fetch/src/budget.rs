//! How much of the network is used at once: connections in all and for each host, and bytes a second.

use crate::error::Reason;
use reqwest::Client;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// The connections that there may be.
///
/// A client opens a new connection while another one is about to become idle, and keeps as many as it likes. Here each one that there
/// may be has a client of its own, which has one exchange at a time. So idle connections count as well, and where there are as many as
/// there may be, one that is idle is closed before there is another.
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    each_host: usize,
    most: usize,
    make: Make,
    lanes: Mutex<Lanes>,
}

/// Makes a client.
type Make = Box<dyn Fn() -> Result<Client, String> + Send + Sync>;

/// A client that has one connection at most, to one server.
struct Lane {
    host: String,
    client: Client,
}

#[derive(Default)]
struct Lanes {
    /// Those that nobody has; who was given back last comes last.
    idle: Vec<Lane>,
    /// How many there are, with those that somebody has.
    count: usize,
}

/// The right to one exchange over one connection, given back when it is dropped: the answer has come or is not wanted any more by then.
pub(crate) struct Permit {
    /// Always there, but while it is given back.
    held: Option<Held>,
}

struct Held {
    lane: Lane,
    budget: Arc<Budget>,
    _host: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Budget {
    /// So many in all, and so many to one host, with clients that are made so.
    pub(crate) fn new(
        all: usize,
        each_host: usize,
        make: impl Fn() -> Result<Client, String> + Send + Sync + 'static,
    ) -> Budget {
        let most = all.max(1);
        Budget {
            all: Arc::new(Semaphore::new(most)),
            hosts: Mutex::default(),
            each_host: each_host.max(1),
            most,
            make: Box::new(make),
            lanes: Mutex::default(),
        }
    }

    /// One to the server of this address, in the order of asking. Who waits for a host has none of those in all, so that a
    /// busy host keeps nobody from the others. `spare`: only if nobody waits for it.
    ///
    /// # Errors
    /// If there is none to spare, or a client can't be set up.
    pub(crate) async fn take(self: &Arc<Budget>, url: &Url, spare: bool) -> Result<Permit, Reason> {
        let name = name(url);
        let (host, all) = (self.host(&name), Arc::clone(&self.all));
        let taken = match spare {
            true => host.try_acquire_owned().ok().and_then(|host| Some((host, all.try_acquire_owned().ok()?))),
            false => match host.acquire_owned().await {
                Ok(host) => all.acquire_owned().await.ok().map(|all| (host, all)),
                Err(_) => None,
            },
        };
        let Some((host, all)) = taken else { return Err(Reason::NoneToSpare) };
        let lane = self.lane(name).await.map_err(Reason::Setup)?;
        Ok(Permit { held: Some(Held { lane, budget: Arc::clone(self), _host: host, _all: all }) })
    }

    /// A connection to this server that is open already, if there is one. Else there are fewer than there may be to it, as
    /// each that somebody has goes with one of its permits.
    async fn lane(&self, host: String) -> Result<Lane, String> {
        let closed = {
            let mut lanes = self.lanes();
            if let Some(i) = lanes.idle.iter().rposition(|lane| lane.host == host) {
                return Ok(lanes.idle.remove(i));
            }
            let closed = (lanes.count >= self.most && !lanes.idle.is_empty()).then(|| lanes.idle.remove(0));
            lanes.count += usize::from(closed.is_none());
            closed
        };
        if closed.is_some() {
            drop(closed);
            settle().await;
        }
        let client = (self.make)().inspect_err(|_| self.lanes().count -= 1)?;
        Ok(Lane { host, client })
    }

    fn host(&self, name: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each_host))))
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server, by its host and port.
fn name(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

/// Lets the client's tasks do what is to do now: take an idle connection back, or close one that is not wanted any more. The
/// runtime has one thread and runs tasks in the order in which they were woken.
async fn settle() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

impl Permit {
    /// What the exchange is made with. It opens a connection if it has none.
    pub(crate) fn client(&self) -> &Client {
        match &self.held {
            Some(held) => &held.lane.client,
            None => unreachable!("it is given back when it is dropped"),
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("host", &self.held.as_ref().map(|held| &held.lane.host)).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(Held { lane, budget, _host, _all }) = self.held.take() else { return };
        // Without a runtime there is nobody who could take another.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            settle().await;
            budget.lanes().idle.push(lane);
            drop((_host, _all));
        });
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
        let _ = rustls::crypto::ring::default_provider().install_default();
        let budget = Arc::new(Budget::new(3, 2, || Ok(Client::new())));
        let [a, b, c] = ["a", "b", "c"].map(|host| Url::parse(&format!("https://{host}.org/x")).unwrap());
        run(async {
            let first = budget.take(&a, false).await.unwrap();
            let _second = budget.take(&a, false).await.unwrap();
            assert!(budget.take(&a, true).await.is_err());
            let waiting = budget.take(&a, false);
            tokio::pin!(waiting);
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
            let other = budget.take(&b, true).await.unwrap();
            assert!(budget.take(&b, true).await.is_err(), "three in all");
            drop(other);
            drop(first);
            // Whoever waited gets it, not whoever only asks for what is spare.
            assert!(budget.take(&a, true).await.is_err());
            let _third = waiting.await.unwrap();
            let hosts = || budget.lanes().idle.iter().map(|lane| lane.host.clone()).collect::<Vec<_>>();
            assert_eq!((hosts(), budget.lanes().count), (vec!["b.org:443".to_owned()], 3));
            // The idle one makes room for another host's.
            let _other = budget.take(&c, false).await.unwrap();
            assert_eq!((hosts(), budget.lanes().count), (Vec::new(), 3));
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
