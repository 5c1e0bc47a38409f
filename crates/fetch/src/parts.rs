//! One file over as many connections as help.
//!
//! It begins with one connection. Where that one keeps the worker waiting (not the disk, not the hash function), others are asked
//! for parts further on; what comes ahead is written to its place, and hashed from the page cache as soon as all before it is there.
//! A part belongs to a connection only once the server has answered it with those bytes of the same file: one that does not give
//! parts costs one request. Who is done with a part takes the next gap, or half of what the slowest still has to do.

use crate::error::{Failure, Reason};
use crate::http::check_status;
use crate::net::{Arrivals, Ask, Came, Going, Head, Net};
use crate::receive::{Origin, Progress, Receive};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use url::Url;

/// Smaller files come through one connection: in bytes.
const LARGE: u64 = 16 << 20;

/// How many connections one file may have.
const MOST: usize = 16;

/// Parts are so large, at least and at most, in bytes.
const PART: (u64, u64) = (2 << 20, 32 << 20);

/// What a connection has still to do before others take from it, in bytes; they begin so far ahead of it at most.
const SPLIT: (u64, u64) = (2 << 20, 8 << 20);

/// How long to look on before there are more connections; at first, and later.
const LOOK: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(120));

/// One connection that gives so many bytes a second is enough.
const FAST: f64 = 256e6;

/// A part that a connection is at.
#[derive(Debug)]
struct Part {
    number: usize,
    /// The next byte.
    at: u64,
    /// The byte behind the last, where that is known.
    end: Option<u64>,
    /// What was asked for: the end before others took from it.
    asked: Option<u64>,
    /// Whether the server has answered with these bytes.
    answered: bool,
    /// Of whom it takes what lies behind its first byte once it is answered.
    owner: Option<usize>,
    _going: Going,
}

/// A file whose first connection has been answered.
pub(crate) struct Parts<'n, 'e> {
    net: &'n Net,
    url: &'n Url,
    to: mpsc::Sender<(usize, Came)>,
    arrivals: Arrivals,
    file: Receive<'e>,
    origin: Origin,
    /// Whether only the server's validator says that parts belong together, and no hash.
    conditional: bool,
    /// Whether there may be more than one connection.
    grows: bool,
    /// The size of the whole in bytes, as the server states it.
    size: Option<u64>,
    active: Vec<Part>,
    asked: usize,
    wanted: usize,
    look: Look,
}

/// What was seen since the last change of the number of connections.
struct Look {
    since: Instant,
    idle: Duration,
    bytes: u64,
    /// Bytes a second before the last change.
    before: f64,
    /// How often more connections were of no use.
    vain: u32,
}

impl Look {
    fn new(before: f64) -> Look {
        Look { since: Instant::now(), idle: Duration::ZERO, bytes: 0, before, vain: 0 }
    }
}

impl<'n, 'e> Parts<'n, 'e> {
    /// Goes on with request 0, which gives the bytes of this range.
    #[expect(clippy::too_many_arguments, reason = "what one answered request is made of")]
    pub(crate) fn new(
        (net, url): (&'n Net, &'n Url),
        (to, arrivals): (mpsc::Sender<(usize, Came)>, Arrivals),
        going: Going,
        file: Receive<'e>,
        (at, end): (u64, Option<u64>),
        origin: Origin,
        conditional: bool,
        alone: bool,
    ) -> Parts<'n, 'e> {
        let size = origin.size;
        let part = Part { number: 0, at, end, asked: end, answered: true, owner: None, _going: going };
        let grows = !alone && size.is_some_and(|size| size >= LARGE) && !(conditional && origin.condition().is_none());
        Parts {
            net,
            url,
            to,
            arrivals,
            file,
            origin,
            conditional,
            grows,
            size,
            active: vec![part],
            asked: 1,
            wanted: 1,
            look: Look::new(0.0),
        }
    }

    /// The file, with what came of it. Requests under way end.
    pub(crate) fn into_file(self) -> Receive<'e> {
        self.file
    }

    /// How many requests were made.
    pub(crate) fn requests(&self) -> usize {
        self.asked
    }

    /// Takes all that comes, until all is there.
    pub(crate) fn run(&mut self, progress: &mut Progress<'_>) -> Result<(), Failure> {
        loop {
            if let Some((number, came)) = self.next() {
                // Those that were let go may still have sent something.
                if let Some(i) = self.active.iter().position(|part| part.number == number) {
                    self.take(i, came, progress)?;
                }
            }
            if self.active.is_empty() && self.size.is_none_or(|size| self.file.taken() >= size) {
                return Ok(());
            }
            self.adapt();
            if self.active.len() < self.wanted {
                self.fill();
            }
        }
    }

    fn next(&mut self) -> Option<(usize, Came)> {
        if let Ok(came) = self.arrivals.try_recv() {
            return Some(came);
        }
        let began = Instant::now();
        let came = match self.grows {
            true => self.net.next(&mut self.arrivals, LOOK.0),
            false => self.arrivals.blocking_recv(),
        };
        self.look.idle += began.elapsed();
        came
    }

    fn take(&mut self, i: usize, came: Came, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let part = &mut self.active[i];
        match came {
            Came::Head(head) => match self.answered(i, &head) {
                Ok(()) => Ok(()),
                Err(reason) => self.lost(i, reason.into()),
            },
            Came::Bytes(bytes) => {
                // A body without a known end is taken as it is: whether it is too long, its size and hash say.
                let room = match part.end.filter(|end| Some(*end) != self.size || part.owner.is_some()) {
                    Some(end) => usize::try_from(end.saturating_sub(part.at)).unwrap_or(usize::MAX).min(bytes.len()),
                    None => bytes.len(),
                };
                self.file.take_at(part.at, &bytes[..room])?;
                part.at += room as u64;
                self.look.bytes += room as u64;
                progress.add(room as u64);
                // What others took from it would come too. (The whole of what was asked for ends by itself.)
                if part.end != part.asked && part.end.is_some_and(|end| part.at >= end) {
                    self.active.remove(i);
                }
                Ok(())
            }
            Came::End(Ok(())) => match part.end {
                Some(end) if part.at < end => {
                    let reason = Reason::CutOff { expected: self.size, found: self.file.have() };
                    self.lost(i, reason.into())
                }
                _ => {
                    self.active.remove(i);
                    Ok(())
                }
            },
            Came::End(Err(failure)) => self.lost(i, failure),
        }
    }

    /// The head of a later request: these bytes, of this file?
    fn answered(&mut self, i: usize, head: &Head) -> Result<(), Reason> {
        let part = &self.active[i];
        match head.status {
            206 if head.range.is_some_and(|(from, total)| from == part.at && Some(total) == self.size) => {}
            200 | 206 | 416 => return Err(Reason::Resume),
            _ => check_status(head)?,
        }
        let now = Origin { etag: head.etag.clone(), modified: head.modified.clone(), ..self.origin.clone() };
        if self.origin.is_replaced_by(&now) || self.conditional && now.condition() != self.origin.condition() {
            return Err(Reason::Changed);
        }
        let (from, owner) = (part.at, part.owner);
        self.active[i].answered = true;
        if let Some(owner) = self.active.iter_mut().find(|part| Some(part.number) == owner) {
            owner.end = owner.end.map(|end| end.min(from.max(owner.at)));
            if owner.end.is_some_and(|end| owner.at >= end) {
                let number = owner.number;
                self.active.retain(|part| part.number != number);
            }
        }
        Ok(())
    }

    /// A connection that gives no more. The others go on without it, and will not be more.
    fn lost(&mut self, i: usize, failure: Failure) -> Result<(), Failure> {
        self.active.remove(i);
        match failure {
            Failure::Source(Reason::NoneToSpare) => {
                self.wanted = self.active.len().max(1);
                self.look = Look::new(0.0);
            }
            Failure::Source(reason) if !self.active.is_empty() && !matches!(reason, Reason::Changed) => {
                self.wanted = self.active.len();
                self.grows = false;
            }
            failure => return Err(failure),
        }
        Ok(())
    }

    /// Asks for more connections if they may help.
    fn adapt(&mut self) {
        let time = self.look.since.elapsed();
        if !self.grows || time < (if self.wanted == 1 { LOOK.0 } else { LOOK.1 }) {
            return;
        }
        let rate = self.look.bytes as f64 / time.as_secs_f64();
        let limited = self.net.limit_rate().is_some_and(|limit| rate > 0.8 * limit as f64);
        if self.look.idle < time / 5 {
            // What comes can't be written faster: in its order it costs least.
            self.wanted = (self.wanted / 2).max(1);
            self.look = Look::new(rate);
        } else if self.look.idle < time / 2 || self.wanted >= MOST || rate > FAST || limited {
            self.look = Look::new(self.look.before);
        } else if self.wanted == 1 || rate > 1.2 * self.look.before {
            self.wanted = (self.wanted * 4).min(MOST);
            self.look = Look::new(rate);
        } else {
            let vain = self.look.vain + 1;
            self.look = Look { vain, ..Look::new(self.look.before) };
            self.grows = vain < 4;
        }
    }

    /// Gives those who are missing something to do.
    fn fill(&mut self) {
        let Some(size) = self.size else { return };
        while self.active.len() < self.wanted {
            let gaps = self.gaps(size);
            let left: u64 = gaps.iter().map(|(from, to)| to - from).sum();
            let most = (left / (4 * self.wanted as u64)).clamp(PART.0, PART.1);
            if let Some((from, to)) = gaps.first() {
                let to = if self.wanted > 1 { (*to).min(from + most) } else { *to };
                self.ask(*from, to, None);
            } else if !self.grows || !self.split(size) {
                return;
            }
        }
    }

    /// What is neither there nor under way.
    fn gaps(&self, size: u64) -> Vec<(u64, u64)> {
        let own = self.active.iter().map(|part| (part.at, part.end.unwrap_or(size)));
        let mut taken: Vec<(u64, u64)> = self.file.pieces().into_iter().chain(own).collect();
        taken.sort_unstable();
        let (mut gaps, mut at) = (Vec::new(), 0);
        for (from, to) in taken.into_iter().chain([(size, size)]) {
            if from > at {
                gaps.push((at, from));
            }
            at = at.max(to);
        }
        gaps
    }

    /// Takes from the connection that has most to do.
    fn split(&mut self, size: u64) -> bool {
        let left = |part: &Part| part.end.unwrap_or(size).saturating_sub(part.at);
        let is_free =
            |part: &&Part| part.answered && !self.active.iter().any(|p| p.owner == Some(part.number) && !p.answered);
        let Some(owner) = self.active.iter().filter(is_free).max_by_key(|part| left(part)) else { return false };
        if left(owner) < SPLIT.0 {
            return false;
        }
        let from = owner.at + (left(owner) / 2).min(SPLIT.1);
        let to = owner.end.unwrap_or(size);
        let most = ((to - from) / (4 * self.wanted as u64)).clamp(PART.0, PART.1);
        let number = owner.number;
        self.ask(from, to.min(from + most), Some(number));
        true
    }

    fn ask(&mut self, from: u64, to: u64, owner: Option<usize>) {
        let number = self.asked;
        let if_range = self.origin.condition().filter(|_| self.conditional).map(str::to_owned);
        let spare = !self.active.is_empty();
        let ask = Ask { range: Some((from, Some(to))), if_range, spare, ..Ask::default() };
        let going = self.net.ask(self.url, ask, number, &self.to);
        let (end, answered) = (Some(to), false);
        self.active.push(Part { number, at: from, end, asked: end, answered, owner, _going: going });
        self.asked += 1;
    }
}
