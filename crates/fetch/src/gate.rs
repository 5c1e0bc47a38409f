//! How many exchanges with one server are under way at once: as many as make it faster.
//!
//! Where an answer takes its time to come, that is all that the budget allows: mostly they wait. Where the server is near, it, this
//! process and its disk have enough to do with a few, and more only get in each other's way: it begins with few, and others are
//! let in for as long as more bytes come with them.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A server whose first answer takes so long is not near.
const FAR: Duration = Duration::from_millis(5);

/// Nor is one of whose first so many answers none comes sooner than this. (The first ones are also waited for because a
/// connection is made, and any because the machine is busy.)
const SOON: (u32, Duration) = (6, Duration::from_millis(1));

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

/// How many threads this machine works at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Where those wait for whom there is no room yet.
pub(crate) struct Gate {
    inside: Arc<Semaphore>,
    most: usize,
    state: Mutex<State>,
}

struct State {
    /// How many may be inside.
    allowed: usize,
    /// How many there may be until some leave.
    given: usize,
    /// How many answers came so far, and the shortest time that one took.
    answers: u32,
    soonest: Duration,
    /// When bytes came last.
    last: Option<Instant>,
    /// Since when bytes are counted, and how many came.
    since: Option<Instant>,
    bytes: u64,
    look: Duration,
    /// How many were allowed before the last were let in, and how many bytes came in a second then.
    before: Option<(usize, f64)>,
}

impl Gate {
    /// For so many at most.
    pub(crate) fn new(most: usize) -> Gate {
        let few = (4 * cores()).min(16).min(most);
        let (allowed, given, look) = (few, few, LOOK.0);
        let (answers, soonest) = (0, Duration::MAX);
        let state = State { allowed, given, answers, soonest, last: None, since: None, bytes: 0, look, before: None };
        Gate { inside: Arc::new(Semaphore::new(few)), most, state: Mutex::new(state) }
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

    /// Makes room for another, if that many may still be inside.
    pub(crate) fn leave(&self, room: OwnedSemaphorePermit) {
        let mut state = self.state();
        if state.given > state.allowed {
            state.given -= 1;
            room.forget();
        }
    }

    /// That an answer came after this time.
    pub(crate) fn answered(&self, waited: Duration) {
        let mut state = self.state();
        state.answers = state.answers.saturating_add(1);
        state.soonest = state.soonest.min(waited);
        if state.answers == 1 && waited >= FAR || state.answers == SOON.0 && state.soonest >= SOON.1 {
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
        state.bytes += bytes as u64;
        let time = now - since;
        if time < (if state.before.is_some() { TRY } else { state.look }) {
            return;
        }
        let rate = state.bytes as f64 / time.as_secs_f64();
        (state.since, state.bytes) = (Some(now + SETTLE), 0);
        match state.before.take() {
            Some((allowed, before)) if rate < BETTER * before => {
                self.allow(&mut state, allowed);
                state.look = (state.look * 4).min(LOOK.1);
            }
            // Nobody waits.
            _ if self.inside.available_permits() > 0 => {}
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

    /// Lets in all who may come.
    fn fill(gate: &Gate) -> Vec<OwnedSemaphorePermit> {
        std::iter::from_fn(|| Arc::clone(&gate.inside).try_acquire_owned().ok()).collect()
    }

    #[test]
    fn a_far_server_is_asked_for_all_at_once() {
        let [near, far, middle] = [(); 3].map(|()| Gate::new(100));
        near.answered(SOON.1 / 2);
        far.answered(FAR);
        (0..20).for_each(|_| near.answered(FAR));
        (0..SOON.0 - 1).for_each(|_| middle.answered(Duration::from_millis(3)));
        let few = fill(&near).len();
        assert!((4..=16).contains(&few), "one answer came soon");
        assert_eq!(fill(&far).len(), 100);
        let inside = fill(&middle);
        middle.answered(SOON.1);
        assert_eq!((inside.len(), fill(&middle).len()), (few, 100 - few));
        assert_eq!(fill(&Gate::new(1)).len(), 1);
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
    fn more_are_let_in_as_long_as_that_helps() {
        let gate = Gate::new(1000);
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
