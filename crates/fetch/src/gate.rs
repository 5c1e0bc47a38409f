//! How many exchanges with one server are under way at once: as many as make it faster.
//!
//! Where an answer takes its time to come, that is all that the budget allows: mostly they wait. Where the server is near, it, this
//! process and its disk have enough to do with a few, and more only get in each other's way: it begins with few, and others are
//! let in for as long as more bytes come with them and the processors have time for more.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A server whose first answer takes so long is not near. (Those over other connections may take longer: where many are made and
/// secured at once they wait for each other.)
const FAR: Duration = Duration::from_millis(25);

/// Nor is one none of whose later answers came sooner than this by the end of a look. (Most of a near one's take longer where the
/// processors are busy.)
const SOON: Duration = Duration::from_millis(1);

/// How long it is looked on before more are let in, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(80), Duration::from_secs(3));

/// How long they are tried.
const TRY: Duration = Duration::from_millis(40);

/// How long from the first byte on nothing is counted: all begins.
const START: Duration = Duration::from_millis(30);

/// How long it takes until a change shows.
const SETTLE: Duration = Duration::from_millis(10);

/// Where no byte came for so long, those inside are not all that can be had.
const STILL: Duration = Duration::from_millis(500);

/// More bytes by this factor make four times as many exchanges worth it.
const BETTER: f64 = 1.5;

/// Where the processors of this machine are idle for less than this part of the time, more exchanges don't make it faster.
const IDLE: f64 = 0.5;

/// How many threads this machine works at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Times of all processors together since the machine was started, of no unit.
#[derive(Clone, Copy)]
struct Times {
    all: u64,
    idle: u64,
}

impl Times {
    /// Now; none where the system does not tell (proc(5), `/proc/stat`).
    fn now() -> Option<Times> {
        let text = fs_err::read_to_string("/proc/stat").ok()?;
        // user, nice, system, idle, iowait, irq, softirq, steal
        let times: Vec<u64> = text.lines().next()?.split(' ').filter_map(|time| time.parse().ok()).take(8).collect();
        Some(Times { all: times.iter().sum(), idle: times.get(3)? + times.get(4)? })
    }

    fn is_busy_since(self, before: Times) -> bool {
        // What waits for a disk may count for less later.
        let (all, idle) = (self.all.saturating_sub(before.all), self.idle.saturating_sub(before.idle));
        (idle as f64) < IDLE * all as f64
    }
}

/// Where those wait for whom there is no room yet.
pub(crate) struct Gate {
    inside: Arc<Semaphore>,
    most: usize,
    state: Mutex<State>,
    times: fn() -> Option<Times>,
}

struct State {
    /// How many may be inside.
    allowed: usize,
    /// How many there may be until some leave.
    given: usize,
    /// Whether an answer came.
    begun: bool,
    /// The shortest time that an answer took over a connection that had given one.
    soonest: Option<Duration>,
    /// When bytes came last.
    last: Option<Instant>,
    /// Since when bytes are counted, and how many came.
    since: Option<Instant>,
    bytes: u64,
    look: Duration,
    /// As they were when the first of these bytes came.
    times: Option<Times>,
    /// How many were allowed before the last were let in, and how many bytes came in a second then.
    before: Option<(usize, f64)>,
}

impl Gate {
    /// For so many at most.
    pub(crate) fn new(most: usize) -> Gate {
        let few = (8 * cores()).min(16).min(most);
        let (allowed, given, look) = (few, few, LOOK.0);
        let (begun, soonest, last, since, bytes, times, before) = (false, None, None, None, 0, None, None);
        let state = State { allowed, given, begun, soonest, last, since, bytes, look, times, before };
        Gate { inside: Arc::new(Semaphore::new(few)), most, state: Mutex::new(state), times: Times::now }
    }

    /// Waits for room, in the order of asking.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        let mut room = pin!(Arc::clone(&self.inside).acquire_owned());
        loop {
            if let Ok(room) = timeout(STILL, room.as_mut()).await {
                return room;
            }
            let mut state = self.state();
            if state.last.is_none_or(|last| last.elapsed() >= STILL) {
                (state.before, state.since) = (None, None);
                self.allow(&mut state, self.most);
            }
        }
    }

    /// Whether there is room for another now.
    pub(crate) fn has_room(&self) -> bool {
        self.inside.available_permits() > 0
    }

    /// Makes room for another, if that many may still be inside.
    pub(crate) fn leave(&self, room: OwnedSemaphorePermit) {
        let mut state = self.state();
        if state.given > state.allowed {
            state.given -= 1;
            room.forget();
        }
    }

    /// That an answer came after this time; `first`: over its connection.
    pub(crate) fn answered(&self, waited: Duration, first: bool) {
        let mut state = self.state();
        if !first {
            state.soonest = Some(state.soonest.map_or(waited, |soonest| soonest.min(waited)));
        }
        if !std::mem::replace(&mut state.begun, true) && waited >= FAR {
            state.before = None;
            self.allow(&mut state, self.most);
        }
    }

    /// That bytes came.
    pub(crate) fn came(&self, bytes: usize) {
        self.came_at(bytes, Instant::now());
    }

    fn came_at(&self, bytes: usize, now: Instant) {
        let mut state = self.state();
        state.last = Some(now);
        let since = *state.since.get_or_insert(now + START);
        if state.allowed >= self.most && state.before.is_none() || now <= since {
            return;
        }
        if state.bytes == 0 {
            state.times = (self.times)();
        }
        state.bytes += bytes as u64;
        let time = now - since;
        if time < (if state.before.is_some() { TRY } else { state.look }) {
            return;
        }
        let rate = state.bytes as f64 / time.as_secs_f64();
        (state.since, state.bytes) = (Some(now + SETTLE), 0);
        let is_busy = state.times.zip((self.times)()).is_some_and(|(from, now)| now.is_busy_since(from));
        match state.before.take() {
            Some((allowed, before)) if rate < BETTER * before => {
                self.allow(&mut state, allowed);
                state.look = (state.look * 4).min(LOOK.1);
            }
            None if state.soonest.is_some_and(|soonest| soonest >= SOON) => self.allow(&mut state, self.most),
            // Nobody waits, or for a processor.
            _ if self.has_room() || is_busy => {}
            _ if state.allowed < self.most => {
                state.before = Some((state.allowed, rate));
                let more = (state.allowed * 4).min(self.most);
                self.allow(&mut state, more);
            }
            _ => {}
        }
    }

    fn allow(&self, state: &mut State, allowed: usize) {
        state.allowed = allowed;
        if allowed > state.given {
            self.inside.add_permits(allowed - state.given);
            state.given = allowed;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Lets in all who may come.
    fn fill(gate: &Gate) -> Vec<OwnedSemaphorePermit> {
        std::iter::from_fn(|| Arc::clone(&gate.inside).try_acquire_owned().ok()).collect()
    }

    #[test]
    fn a_far_server_is_asked_for_all_at_once() {
        let [near, far] = [(); 2].map(|()| Gate::new(100));
        near.answered(FAR / 2, true);
        (0..20).for_each(|_| near.answered(FAR, true));
        far.answered(FAR, true);
        assert!((4..=16).contains(&fill(&near).len()), "the first answer came soon");
        assert_eq!(fill(&far).len(), 100);
        assert_eq!(fill(&Gate::new(1)).len(), 1);
    }

    #[test]
    fn who_never_answers_soon_is_far_as_well() {
        let after = |answers: &[Duration]| {
            let gate = Gate { times: || Some(Times { all: 100, idle: 0 }), ..Gate::new(100) };
            answers.iter().for_each(|waited| gate.answered(*waited, false));
            gate.answered(FAR / 2, true);
            let inside = fill(&gate).len();
            let now = Instant::now();
            gate.came_at(1, now);
            gate.came_at(1000, now + START + LOOK.0 / 2);
            assert_eq!(gate.state().allowed, inside);
            gate.came_at(1000, now + START + LOOK.0);
            gate.state().allowed / inside
        };
        assert!(after(&[SOON * 3, SOON, SOON * 2]) > 1);
        assert_eq!(after(&[SOON * 3, SOON / 2, SOON * 2]), 1);
        assert_eq!(after(&[]), 1);
    }

    #[test]
    fn nobody_waits_for_those_who_get_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let gate = Gate::new(20);
        let inside = fill(&gate);
        gate.came(1);
        let began = Instant::now();
        runtime.block_on(gate.enter()).unwrap().forget();
        assert!(began.elapsed() >= STILL, "as long as something comes there is a reason to wait");
        assert_eq!(gate.state().allowed, 20);
        assert_eq!(fill(&gate).len(), 20 - 1 - inside.len());
    }

    #[test]
    fn no_more_are_let_in_where_the_processors_are_busy() {
        let allowed = |times: fn() -> Option<Times>| {
            let gate = Gate { times, ..Gate::new(100) };
            let inside = fill(&gate);
            let now = Instant::now();
            gate.came_at(1, now);
            gate.came_at(1000, now + START + LOOK.0 / 2);
            gate.came_at(1000, now + START + LOOK.0);
            let allowed = gate.state().allowed;
            allowed / inside.len()
        };
        /// Each time that it is asked for 100 more.
        fn all() -> u64 {
            static ALL: AtomicU64 = AtomicU64::new(0);
            ALL.fetch_add(100, Ordering::Relaxed)
        }
        assert_eq!(allowed(|| Some(Times { all: all(), idle: 7 })), 1);
        let half = || Some(all()).map(|all| Times { all, idle: all / 2 });
        assert_eq!(allowed(half), 4);
        // Whether that is so here may be unknown.
        let [before, after] = [(); 2].map(|()| Times::now());
        assert!(before.zip(after).is_none_or(|(before, after)| after.all >= before.all));
        assert_eq!(before.is_some(), cfg!(target_os = "linux"));
    }

    #[test]
    fn more_are_let_in_as_long_as_that_helps() {
        let gate = Gate { times: || None, ..Gate::new(1000) };
        let mut inside = fill(&gate);
        let few = inside.len();
        let mut now = Instant::now();
        gate.came_at(1, now);
        now += START;
        // So many bytes each millisecond over a whole look.
        let mut look = |bytes: usize| {
            let long = if gate.state().before.is_some() { TRY } else { gate.state().look };
            for _ in 0..11 {
                now += long / 10;
                gate.came_at(bytes * long.as_millis() as usize / 10, now);
            }
            now += SETTLE;
            gate.state().allowed
        };
        assert_eq!(look(1000), 4 * few);
        assert_eq!(look(1000), few, "it was of no use");
        // Those who came in stay until they leave.
        inside.extend(fill(&gate));
        assert_eq!(inside.len(), 4 * few);
        while inside.len() > few {
            inside.pop().into_iter().for_each(|room| gate.leave(room));
            assert_eq!(fill(&gate).len(), 0);
        }
        gate.leave(inside.pop().unwrap());
        inside.extend(fill(&gate));
        assert_eq!(inside.len(), few);
        assert_eq!(look(4000), 4 * few, "later it is tried again");
        inside.extend(fill(&gate));
        assert_eq!(look(16000), 16 * few);
        assert_eq!(look(64000), 16 * few, "nobody waits");
        inside.extend(fill(&gate));
        assert_eq!(inside.len(), 16 * few);
    }
}
