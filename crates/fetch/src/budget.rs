//! How much of the network is used at once: connections in all and for each host, and bytes a second.

use crate::error::Reason;
use crate::gate::Gate;
use reqwest::Client;
use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// The connections that there may be.
///
/// A client opens a new connection while another one is about to become idle, and keeps as many as it likes. Here each one that there
/// may be has a client of its own, which has one exchange at a time. So idle connections count as well, and where there are as many as
/// there may be, one that is idle is closed before there is another.
///
/// Of a connection that speaks HTTP/2 up to [`STREAMS`] share, once there are as many connections as there may be: many
/// small files are mostly waited for.
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    each_host: usize,
    most: usize,
    make: Make,
    lanes: Mutex<Lanes>,
    /// How many wait for one, and how many exchanges there are.
    waiting: AtomicUsize,
    going: AtomicUsize,
}

/// So many exchanges may share a connection that speaks HTTP/2.
pub(crate) const STREAMS: usize = 4;

/// What is known of a server.
struct Host {
    connections: Arc<Semaphore>,
    /// Before who needs a connection.
    gate: Gate,
    /// The connections that somebody has, and others may share.
    shared: Mutex<Vec<Weak<Held>>>,
    /// That a connection may be shared which could not before.
    room: Notify,
}

/// Makes a client.
type Make = Box<dyn Fn() -> Result<Client, String> + Send + Sync>;

/// A client that has one connection at most, to one server.
struct Lane {
    host: String,
    client: Client,
    /// Whether it is known to speak HTTP/2.
    http2: AtomicBool,
    /// Whether an answer came over it.
    used: AtomicBool,
}

#[derive(Default)]
struct Lanes {
    /// Those that nobody has; who was given back last comes last.
    idle: Vec<Lane>,
    /// How many there are, with those that somebody has.
    count: usize,
}

/// The right to one exchange over a connection, given back when it is dropped: the answer has come or is not wanted any more by then.
pub(crate) struct Permit {
    /// Always there, but while it is given back.
    held: Option<Arc<Held>>,
    /// Whether others may share the connection.
    shares: bool,
    /// When the exchange began.
    since: Instant,
}

/// A connection that somebody has, or several who share it.
struct Held {
    /// Always there, but while it is given back.
    lane: Option<Lane>,
    budget: Arc<Budget>,
    host: Arc<Host>,
    rights: Option<Rights>,
}

/// What goes with a connection.
struct Rights {
    /// None of what is spare.
    room: Option<OwnedSemaphorePermit>,
    _of_host: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
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
            waiting: AtomicUsize::new(0),
            going: AtomicUsize::new(0),
        }
    }

    /// Whether there is room for more exchanges than these, which are all under way.
    pub(crate) fn has_room(&self, exchanges: usize) -> bool {
        let are_going = self.waiting.load(Ordering::Relaxed) == 0 && self.going.load(Ordering::Relaxed) >= exchanges;
        let hosts = || self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |host: &Arc<Host>| host.gate.has_room() || host.can_be_shared();
        are_going && hosts().values().any(is_open)
    }

    /// One to the server of this address, in the order of asking. Who waits for a host has none of those in all, so that a
    /// busy host keeps nobody from the others. `spare`: only if nobody waits for it.
    ///
    /// # Errors
    /// If there is none to spare, or a client can't be set up.
    pub(crate) async fn take(self: &Arc<Budget>, url: &Url, spare: bool) -> Result<Permit, Reason> {
        let name = name(url);
        let host = self.host(&name);
        let rights = if spare {
            let of_host = Arc::clone(&host.connections).try_acquire_owned();
            let both = of_host.and_then(|of_host| {
                let of_all = Arc::clone(&self.all).try_acquire_owned()?;
                Ok(Rights { room: None, _of_host: of_host, _of_all: of_all })
            });
            both.map_err(|_| Reason::NoneToSpare)?
        } else {
            let mut connection = pin!(async {
                let room = Some(host.gate.enter().await?);
                let of_host = Arc::clone(&host.connections).acquire_owned().await?;
                let of_all = Arc::clone(&self.all).acquire_owned().await?;
                Ok::<_, tokio::sync::AcquireError>(Rights { room, _of_host: of_host, _of_all: of_all })
            });
            let mut waits = Waits(None);
            loop {
                // From before the look on, so that no call is missed.
                let room = host.room.notified();
                tokio::select! {
                    biased;
                    rights = &mut connection => break rights.map_err(|_| Reason::NoneToSpare)?,
                    () = ready(()) => {}
                }
                if let Some(held) = host.share() {
                    return Ok(Permit::new(held, true));
                }
                waits.count(&self.waiting);
                tokio::select! {
                    biased;
                    rights = &mut connection => break rights.map_err(|_| Reason::NoneToSpare)?,
                    () = room => {}
                }
            }
        };
        let lane = self.lane(name).await.map_err(Reason::Setup)?;
        let known = lane.http2.load(Ordering::Relaxed);
        let held = Arc::new(Held { lane: Some(lane), budget: Arc::clone(self), host, rights: Some(rights) });
        let mut permit = Permit::new(held, false);
        if known && !spare {
            permit.share();
        }
        Ok(permit)
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
        Ok(Lane { host, client, http2: AtomicBool::new(false), used: AtomicBool::new(false) })
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let connections = Arc::new(Semaphore::new(self.each_host));
            let gate = Gate::new(self.each_host);
            Arc::new(Host { connections, gate, shared: Mutex::default(), room: Notify::new() })
        };
        Arc::clone(hosts.entry(name.to_owned()).or_insert_with(new))
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one that waits, until it is dropped.
struct Waits<'w>(Option<&'w AtomicUsize>);

impl<'w> Waits<'w> {
    fn count(&mut self, waiting: &'w AtomicUsize) {
        self.0.get_or_insert_with(|| {
            waiting.fetch_add(1, Ordering::Relaxed);
            waiting
        });
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0 {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
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

impl Host {
    fn shared(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Held>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn can_be_shared(&self) -> bool {
        self.shared().iter().any(|held| (1..STREAMS).contains(&held.strong_count()))
    }

    /// A connection that others have as well, the one with the fewest.
    fn share(&self) -> Option<Arc<Held>> {
        let shared = self.shared();
        let had = shared.iter().filter(|held| (1..STREAMS).contains(&held.strong_count()));
        had.min_by_key(|held| held.strong_count())?.upgrade()
    }
}

impl Permit {
    fn new(held: Arc<Held>, shares: bool) -> Permit {
        held.budget.going.fetch_add(1, Ordering::Relaxed);
        Permit { held: Some(held), shares, since: Instant::now() }
    }

    /// What the exchange is made with. It opens a connection if it has none.
    pub(crate) fn client(&self) -> &Client {
        match self.lane() {
            Some(lane) => &lane.client,
            None => unreachable!("it is given back when it is dropped"),
        }
    }

    fn lane(&self) -> Option<&Lane> {
        self.held.as_ref()?.lane.as_ref()
    }

    /// The answer comes, over this protocol: others may share a connection that speaks HTTP/2 from now on.
    pub(crate) fn answered(&mut self, version: http::Version) {
        let Some((held, lane)) = self.held.as_ref().and_then(|held| Some((held, held.lane.as_ref()?))) else { return };
        held.host.gate.answered(self.since.elapsed(), !lane.used.swap(true, Ordering::Relaxed));
        let http2 = version == http::Version::HTTP_2;
        match (lane.http2.swap(http2, Ordering::Relaxed), http2) {
            (false, true) => self.share(),
            (true, false) => held.host.shared().retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(held))),
            _ => {}
        }
    }

    /// Bytes of the answer came.
    pub(crate) fn came(&self, bytes: usize) {
        if let Some(held) = &self.held {
            held.host.gate.came(bytes);
        }
    }

    fn share(&mut self) {
        let Some(held) = &self.held else { return };
        let mut shared = held.host.shared();
        shared.retain(|other| other.strong_count() > 0);
        shared.push(Arc::downgrade(held));
        held.host.room.notify_waiters();
        drop(shared);
        self.shares = true;
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("host", &self.lane().map(|lane| &lane.host)).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        held.budget.going.fetch_sub(1, Ordering::Relaxed);
        let host = self.shares.then(|| Arc::clone(&held.host));
        drop(held);
        if let Some(host) = host {
            host.room.notify_one();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (Some(lane), Some(mut rights)) = (self.lane.take(), self.rights.take()) else { return };
        let (budget, host) = (Arc::clone(&self.budget), Arc::clone(&self.host));
        // Without a runtime there is nobody who could take another.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            settle().await;
            budget.lanes().idle.push(lane);
            rights.room.take().into_iter().for_each(|room| host.gate.leave(room));
            drop(rights);
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
    fn there_is_room_until_somebody_waits() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let budget = Arc::new(Budget::new(2, 3, || Ok(Client::new())));
        let url = Url::parse("https://a.org/x").unwrap();
        run(async {
            let first = budget.take(&url, false).await.unwrap();
            assert!(budget.has_room(1) && !budget.has_room(2));
            let _second = budget.take(&url, false).await.unwrap();
            assert!(budget.has_room(2) && !budget.has_room(3));
            let mut waiting = Box::pin(budget.take(&url, false));
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
            assert!(!budget.has_room(2));
            drop(waiting);
            assert!(budget.has_room(2));
            drop(first);
            assert!(budget.has_room(1) && !budget.has_room(2));
            // To this server there may be one at a time: who asks for another would only wait.
            let budget = Arc::new(Budget::new(2, 1, || Ok(Client::new())));
            let mut only = budget.take(&url, false).await.unwrap();
            assert!(!budget.has_room(1));
            only.answered(http::Version::HTTP_2);
            assert!(budget.has_room(1), "they share it");
        });
    }

    #[test]
    fn exchanges_share_a_connection_that_speaks_http_2() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let budget = Arc::new(Budget::new(3, 2, || Ok(Client::new())));
        let url = Url::parse("https://a.org/x").unwrap();
        run(async {
            let mut first = budget.take(&url, false).await.unwrap();
            let _apart = budget.take(&url, true).await.unwrap();
            let waiting = budget.take(&url, false);
            tokio::pin!(waiting);
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
            // Who waits hears of it.
            first.answered(http::Version::HTTP_2);
            let mut sharing = vec![waiting.await.unwrap()];
            for _ in 2..STREAMS {
                sharing.push(budget.take(&url, false).await.unwrap());
            }
            assert_eq!(budget.lanes().count, 2);
            assert!(budget.take(&url, true).await.is_err(), "what is spare is not shared");
            let waiting = budget.take(&url, false);
            tokio::pin!(waiting);
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err(), "too many");
            drop(sharing.pop());
            sharing.push(waiting.await.unwrap());
            // It is given back by the last who has it, and known for what it is.
            drop((first, sharing));
            let _again = budget.take(&url, false).await.unwrap();
            let _sharing = budget.take(&url, false).await.unwrap();
            assert_eq!(budget.lanes().count, 2);
            // A server that has forgotten it is not asked for two things at once.
            let mut third = budget.take(&url, false).await.unwrap();
            third.answered(http::Version::HTTP_11);
            let next = budget.take(&url, false);
            assert!(tokio::time::timeout(Duration::from_millis(5), next).await.is_err());
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
