//! Small locked files: taken whole, several asked for at once, and hashed together.

use crate::error::{Failure, Mismatch, Reason};
use crate::fetcher::{Fetcher, few};
use crate::http::{self, check_status, file_name, is_page, marks};
use crate::net::{Arrivals, Ask, Came, Going, Net};
use crate::receive::{Expect, Marks, Progress};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use tokio::sync::mpsc;
use trainlock_store::Session;
use trainlock_types::{Digest, Hashed, SourceUrl};
use url::Url;

/// So many small files one thread asks for, and hashes, together.
const TOGETHER: usize = 2;

/// So many pieces of one that is not waited for yet may have come before it has to wait itself.
const HANDED: usize = 1 << 12;

/// A locked file that is not worth resuming, so that it is taken as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Small {
    sha256: Digest,
    /// In bytes.
    size: u64,
}

impl Small {
    /// Of what is known of a file before it comes.
    pub(crate) fn of(expect: Expect<'_>) -> Option<Small> {
        let (sha256, size) = (expect.sha256?, expect.size.filter(|size| *size < http::RESUMED)?);
        // What else its publisher states is looked at while it comes.
        expect.checksum.is_none().then_some(Small { sha256, size })
    }
}

/// A small file that was asked for.
pub(crate) struct Asked<'u> {
    url: &'u Url,
    small: Small,
    arrivals: Arrivals,
    _going: Going,
}

/// A small file that came, of the right size.
pub(crate) struct Whole<B> {
    small: Small,
    marks: Marks,
    html: bool,
    bytes: B,
}

impl<'u> Asked<'u> {
    /// Asks for it; it comes while others are waited for.
    pub(crate) fn ask(net: &Net, url: &'u Url, small: Small) -> Asked<'u> {
        let (to, arrivals) = mpsc::channel(HANDED);
        let going = net.ask(url, Ask { whole: Some(small.size), ..Ask::default() }, 0, &to);
        Asked { url, small, arrivals, _going: going }
    }

    /// Waits for it.
    pub(crate) fn wait(mut self, progress: &mut Progress<'_>) -> Result<Whole<Bytes>, Failure> {
        progress.begin_at(0);
        let Small { size: expected, .. } = self.small;
        let head = match self.arrivals.blocking_recv() {
            Some((_, Came::Head(head))) => head,
            Some((_, Came::End(Err(failure)))) => return Err(failure),
            _ => return Err(Failure::Interrupted),
        };
        check_status(&head)?;
        let html = is_page(&file_name(self.url), &head);
        let wrong_size = |found, more| {
            Failure::Source(Reason::Mismatch { mismatch: Mismatch::Size { expected, found, more }, html })
        };
        if let Some(found) = head.length.filter(|found| *found != expected) {
            return Err(wrong_size(found, false));
        }
        let mut bytes = Bytes::new();
        loop {
            match self.arrivals.blocking_recv() {
                Some((_, Came::Bytes(more))) => {
                    progress.add(more.len() as u64);
                    bytes = if bytes.is_empty() { more } else { [bytes, more].concat().into() };
                    if bytes.len() as u64 > expected {
                        return Err(wrong_size(bytes.len() as u64, true));
                    }
                }
                Some((_, Came::End(Ok(())))) if bytes.len() as u64 == expected => break,
                Some((_, Came::End(Ok(())))) => return Err(wrong_size(bytes.len() as u64, false)),
                Some((_, Came::End(Err(failure)))) => return Err(failure),
                _ => return Err(Failure::Interrupted),
            }
        }
        Ok(Whole { small: self.small, marks: marks(self.url, &head), html, bytes })
    }
}

impl Whole<Bytes> {
    pub(crate) fn hashed(self) -> Whole<Hashed<Bytes>> {
        let hashed = Hashed::of(self.bytes.clone());
        self.with(hashed)
    }

    /// Hashes those that came, together.
    pub(crate) fn hash_each(all: Vec<Result<Whole<Bytes>, Failure>>) -> Vec<Result<Whole<Hashed<Bytes>>, Failure>> {
        let came = all.iter().flatten().map(|whole| whole.bytes.clone()).collect();
        let mut hashed = Hashed::each(came).into_iter();
        let mut with_next = |whole: Whole<Bytes>| match hashed.next() {
            Some(hashed) => whole.with(hashed),
            None => unreachable!("there are as many as came"),
        };
        all.into_iter().map(|whole| whole.map(&mut with_next)).collect()
    }

    fn with(self, bytes: Hashed<Bytes>) -> Whole<Hashed<Bytes>> {
        Whole { small: self.small, marks: self.marks, html: self.html, bytes }
    }
}

impl Whole<Hashed<Bytes>> {
    /// Puts it into the store, if it is the right one; its digest and size in bytes.
    pub(crate) fn keep(self, session: &Session, progress: &mut Progress<'_>) -> Result<(Digest, u64), Failure> {
        let (Small { sha256: expected, size }, found) = (self.small, self.bytes.sha256());
        if found != expected {
            let mismatch = Mismatch::Sha256 { expected, found };
            return Err(Reason::Mismatch { mismatch, html: self.html }.into());
        }
        session.put(&self.bytes)?;
        progress.marks = self.marks;
        Ok((found, size))
    }
}

/// A small locked file that is to be fetched.
pub(crate) struct SmallFile<'f> {
    /// Its transfer, for people.
    name: String,
    /// Where it is asked for first.
    url: &'f Url,
    small: Small,
}

impl<'f> SmallFile<'f> {
    /// None where it is not small, or comes from no network.
    pub(crate) fn of(name: String, sources: &'f [SourceUrl], expect: Expect<'_>) -> Option<SmallFile<'f>> {
        let (SourceUrl::Http(url) | SourceUrl::Object(url)) = sources.first()? else { return None };
        Some(SmallFile { name, url, small: Small::of(expect)? })
    }
}

/// A file that was asked for before its turn: its transfer, and what came of the first try.
pub(crate) struct Ahead<'a> {
    pub(crate) progress: Progress<'a>,
    pub(crate) came: Result<Whole<Hashed<Bytes>>, Failure>,
}

impl Fetcher {
    /// Calls `work` for all items as [`Fetcher::each`] does. What `file` says of one is what it will ask for first: of those that
    /// are small several are asked for at once, and hashed together.
    pub(crate) fn each_ahead<'f, T: Sync, R: Send>(
        &self,
        items: &'f [T],
        file: impl Fn(&'f T) -> Option<SmallFile<'f>>,
        work: impl Fn(&T, Option<Ahead<'_>>) -> R + Sync,
    ) -> Vec<R> {
        let together = (items.len() / few()).clamp(1, TOGETHER);
        let (mut groups, mut group) = (Vec::new(), Vec::new());
        // Of the same bytes the first are fetched, and the others find them in the store.
        let (mut known, mut again) = (HashSet::new(), Vec::new());
        for (i, item) in items.iter().enumerate() {
            match file(item) {
                None => groups.push(vec![(i, None)]),
                Some(file) if !known.insert(file.small.sha256) => again.push(i),
                file => group.push((i, file)),
            }
            if group.len() == together {
                groups.push(std::mem::take(&mut group));
            }
        }
        groups.push(group);
        let groups = apart(groups);
        let of_thread = |numbers: &mut dyn Iterator<Item = usize>| {
            let (mut coming, mut done) = (VecDeque::new(), Vec::new());
            // Two groups are always under way, but who has one that takes its time leaves the others to others.
            let mut ask = |coming: &mut VecDeque<(usize, Vec<_>)>| {
                while coming.len() < 2 && coming.iter().all(|(_, asked)| !asked.is_empty()) {
                    let Some(number) = numbers.next() else { return };
                    coming.push_back((number, self.ask(&groups[number])));
                }
            };
            loop {
                ask(&mut coming);
                let Some((number, asked)) = coming.pop_front() else { return done };
                let is_small = !asked.is_empty();
                let mut ahead = wait(asked).into_iter();
                if is_small {
                    ask(&mut coming);
                }
                let mut came: Vec<_> = groups[number].iter().map(|(i, _)| (*i, ahead.next())).collect();
                // What came need not wait for another's next try.
                came.sort_by_key(|(_, ahead)| ahead.as_ref().is_some_and(|ahead| ahead.came.is_err()));
                let came = came.into_iter().map(|(i, ahead)| (i, work(&items[i], ahead)));
                done.push((number, came.collect::<Vec<_>>()));
            }
        };
        let done = self.share_out(groups.len(), 2 * together, of_thread);
        let mut done: Vec<(usize, R)> = done.into_iter().flatten().collect();
        done.extend(again.iter().copied().zip(self.each(&again, |i| work(&items[*i], None))));
        done.sort_unstable_by_key(|(i, _)| *i);
        done.into_iter().map(|(_, done)| done).collect()
    }

    /// Asks for the small files of a group. None where that would be no gain, or the network can't be used: that is told when it
    /// is needed.
    fn ask<'a>(&'a self, group: &'a [(usize, Option<SmallFile<'a>>)]) -> Vec<(Progress<'a>, Asked<'a>)> {
        let Some(net) = self.net().ok().filter(|_| group.len() > 1) else { return Vec::new() };
        let ask = |file: &'a SmallFile<'a>| {
            let size = Some(file.small.size);
            let progress = Progress::start(&self.events, self.next_id(), &file.name, "fetch", size);
            (progress, Asked::ask(net, file.url, file.small))
        };
        group.iter().filter_map(|(_, file)| file.as_ref()).map(ask).collect()
    }
}

/// Waits until all that was asked for is there or has failed.
fn wait<'a>(asked: Vec<(Progress<'a>, Asked<'a>)>) -> Vec<Ahead<'a>> {
    let wait = |(mut progress, asked): (Progress<'a>, Asked<'a>)| (asked.wait(&mut progress), progress);
    let (came, progress): (Vec<_>, Vec<_>) = asked.into_iter().map(wait).unzip();
    let each = Whole::hash_each(came).into_iter().zip(progress);
    each.map(|(came, progress)| Ahead { progress, came }).collect()
}

/// The same in such an order that those that are near each other are not at work at the same time: often they belong into one
/// folder, and who makes files in one folder waits for the others there.
fn apart<T>(items: Vec<T>) -> Vec<T> {
    let rounds = items.len().div_ceil(few()).max(1);
    let mut numbered: Vec<(usize, T)> = items.into_iter().enumerate().collect();
    numbered.sort_by_key(|(i, _)| i % rounds);
    numbered.into_iter().map(|(_, item)| item).collect()
}
