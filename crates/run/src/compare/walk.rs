//! Opening, comparing and digesting whatever the format.

use super::array;
use super::blob::{BLOCK, Blob, difference, first_difference, read_full, same};
use super::codec::{self, Codec};
use super::model::{Body, Member, Opened, Part, Report, Stop, join};
use super::report::{Change, NoiseKind};
use super::{csv, json, npy, parquet, pickle, png, safetensors, tar, torch, tree, zip};
use std::collections::HashMap;
use trainlock_types::{Digest, Hasher};

/// Containers within containers are opened this deep.
const DEPTH_MAX: usize = 6;
/// So much of a file is looked at to know its format.
const HEAD: usize = 4096;

/// The format of these bytes. A file that begins as one and is none is [`Stop::Damaged`].
fn open(blob: &Blob, name: &str) -> Result<Opened, Stop> {
    let head = blob.some(0, HEAD)?;
    let extension = name.rsplit_once('.').map_or(String::new(), |(_, extension)| extension.to_ascii_lowercase());
    if npy::is_npy(&head) {
        return npy::open(blob);
    }
    if zip::is_zip(&head) {
        return zip::open(blob);
    }
    if let Some(codec) = Codec::of(&head) {
        return codec::open(codec, blob.clone(), name);
    }
    if parquet::is_parquet(&head) {
        return parquet::open(blob);
    }
    if png::is_png(&head) {
        return png::open(blob);
    }
    if tar::is_tar(&head) {
        return tar::open(blob);
    }
    if safetensors::is_safetensors(&head, blob.len()) {
        return safetensors::open(blob);
    }
    if torch::is_legacy(&head) {
        return torch::open_legacy(blob);
    }
    if pickle::is_pickle(&head) || matches!(extension.as_str(), "pkl" | "pickle" | "joblib") {
        return pickle::open(blob);
    }
    match extension.as_str() {
        "json" | "ipynb" | "geojson" => json::open(blob),
        "jsonl" | "ndjson" => json::open_lines(blob),
        "csv" | "tsv" => csv::open(blob, &extension),
        _ => Ok(plain(blob)),
    }
}

fn plain(blob: &Blob) -> Opened {
    Opened { what: "other bytes", facts: Vec::new(), body: Body::Bytes(blob.clone()) }
}

/// Compares two files, or two members that have no format of their container's.
pub(super) fn blobs(
    place: &str,
    a: &Blob,
    b: &Blob,
    name: &str,
    depth: usize,
    report: &mut Report,
) -> Result<(), Stop> {
    let Some(offset) = difference(a, b)? else { return Ok(()) };
    if depth >= DEPTH_MAX {
        return bytes(place, a, b, offset, report);
    }
    let before = report.clone();
    let (left, right) = (open(a, name), open(b, name));
    let found = match (&left, &right) {
        (Ok(Opened { body: Body::Bytes(_), .. }), Ok(Opened { body: Body::Bytes(_), .. })) => {
            return bytes(place, a, b, offset, report);
        }
        (Ok(left), Ok(right)) => opened(place, left, right, depth, report),
        _ => Err(Stop::damaged("")),
    };
    match found {
        Ok(()) if report.size() == before.size() => {
            // What the format reads is the same, in other bytes.
            report.noise(NoiseKind::Encoding, place, "", "");
            Ok(())
        }
        Ok(()) => Ok(()),
        Err(Stop::Io(error)) => Err(Stop::Io(error)),
        Err(Stop::Damaged(why)) => {
            *report = before;
            let what = |side: Result<Opened, Stop>| match side {
                Ok(opened) => Ok(opened.what.to_owned()),
                Err(Stop::Damaged(why)) => Ok(format!("damaged: {why}")),
                Err(io) => Err(io),
            };
            let (left, right) = (what(left)?, what(right)?);
            if left != right {
                report.differs(place, Change::Type { a: left, b: right });
            } else if !why.is_empty() {
                report.noise(NoiseKind::AsBytes, place, &why, &why);
            } else if let Some(why) = left.strip_prefix("damaged: ") {
                report.noise(NoiseKind::AsBytes, place, why, why);
            }
            bytes(place, a, b, offset, report)
        }
    }
}

fn opened(place: &str, a: &Opened, b: &Opened, depth: usize, report: &mut Report) -> Result<(), Stop> {
    report.facts(place, &a.facts, &b.facts);
    match (&a.body, &b.body) {
        (Body::Array(one), Body::Array(two)) => array::compare(place, one, two, report),
        (Body::Members(one), Body::Members(two)) => members(place, one, two, depth, report),
        (Body::Stream { codec: x, packed: one, name }, Body::Stream { codec: y, packed: two, .. }) => {
            if x != y {
                report.noise(NoiseKind::Compression, place, a.what, b.what);
            }
            streams(place, (*x, one), (*y, two), name, depth, report)
        }
        (Body::Tree(one), Body::Tree(two)) => tree::compare(place, one, two, report),
        (Body::Lines(one), Body::Lines(two)) => json::compare_lines(place, one, two, report),
        (Body::Table(one), Body::Table(two)) => csv::compare(place, one, two, report),
        (Body::Columns(one), Body::Columns(two)) => parquet::compare(place, one, two, report),
        (Body::Bytes(one), Body::Bytes(two)) => match difference(one, two)? {
            Some(offset) => bytes(place, one, two, offset, report),
            None => Ok(()),
        },
        _ => {
            report.differs(place, Change::Type { a: a.what.to_owned(), b: b.what.to_owned() });
            Ok(())
        }
    }
}

/// Compressed data: first as two streams, and only if they differ unpacked.
fn streams(
    place: &str,
    (x, a): (Codec, &Blob),
    (y, b): (Codec, &Blob),
    name: &str,
    depth: usize,
    report: &mut Report,
) -> Result<(), Stop> {
    let limit = codec::limit(a).max(codec::limit(b));
    if first_difference(&mut *x.decoder(a)?, &mut *y.decoder(b)?, limit)?.is_none() {
        report.noise(NoiseKind::Compression, place, &format!("{} bytes", a.len()), &format!("{} bytes", b.len()));
        return Ok(());
    }
    blobs(place, &x.unpack(a)?, &y.unpack(b)?, name, depth + 1, report)
}

/// Members side by side, found by name; the n-th of one name belongs to the n-th of the other side.
fn members(place: &str, one: &[Member], two: &[Member], depth: usize, report: &mut Report) -> Result<(), Stop> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    let mut right = HashMap::new();
    for (at, member) in two.iter().enumerate() {
        let n = times.entry(&member.name).or_insert(0);
        right.insert((member.name.as_str(), *n), at);
        *n += 1;
    }
    times.clear();
    let mut found = vec![false; two.len()];
    let (mut last, mut in_order) = (0, true);
    for member in one {
        let n = times.entry(&member.name).or_insert(0);
        let below = join(place, " » ", &shown(&member.name));
        match right.get(&(member.name.as_str(), *n)) {
            Some(at) => {
                found[*at] = true;
                in_order &= *at >= last;
                last = *at;
                pair(&below, member, &two[*at], depth, report)?;
            }
            None => report.differs(&below, Change::Missing { what: kind(&member.part) }),
        }
        *n += 1;
    }
    for (member, _) in two.iter().zip(&found).filter(|(_, found)| !**found) {
        let below = join(place, " » ", &shown(&member.name));
        report.differs(&below, Change::Added { what: kind(&member.part) });
    }
    if !in_order {
        report.noise(NoiseKind::Order, place, "", "");
    }
    Ok(())
}

/// An array of an .npz has its name without the ending that numpy gives it.
fn shown(name: &str) -> String {
    name.strip_suffix(".npy").unwrap_or(name).to_owned()
}

fn kind(part: &Part) -> String {
    match part {
        Part::Unopened(blob) => format!("{} bytes", blob.len()),
        Part::Packed(_, blob) => format!("{} bytes, compressed", blob.len()),
        Part::Opened(opened) => match &opened.body {
            Body::Array(array) => format!("{} {:?}", array.dtype.name, array.shape),
            Body::Tree(tree) => tree.describe(tree.root),
            _ => opened.what.to_owned(),
        },
    }
}

fn pair(place: &str, a: &Member, b: &Member, depth: usize, report: &mut Report) -> Result<(), Stop> {
    report.facts(place, &a.facts, &b.facts);
    let get = |member: &Member, name: &str| {
        member.attributes.iter().find(|attribute| attribute.0 == name).map_or("none", |found| &found.1).to_owned()
    };
    // One that only one of them has differs, too.
    let mut names: Vec<&str> = a.attributes.iter().chain(&b.attributes).map(|attribute| attribute.0).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (x, y) = (get(a, name), get(b, name));
        if x != y {
            report.differs(place, Change::Attribute { name: name.to_owned(), a: x, b: y });
        }
    }
    match (&a.part, &b.part) {
        (Part::Unopened(x), Part::Unopened(y)) => blobs(place, x, y, &a.name, depth + 1, report),
        (Part::Packed(x, one), Part::Packed(y, two)) => {
            if x == y && same(one, two)? {
                return Ok(());
            }
            streams(place, (*x, one), (*y, two), &a.name, depth, report)
        }
        (Part::Packed(codec, packed), Part::Unopened(other)) => {
            blobs(place, &codec.unpack(packed)?, other, &a.name, depth + 1, report)
        }
        (Part::Unopened(other), Part::Packed(codec, packed)) => {
            blobs(place, other, &codec.unpack(packed)?, &a.name, depth + 1, report)
        }
        (Part::Opened(one), Part::Opened(two)) => opened(place, one, two, depth, report),
        (one, two) => {
            report.differs(place, Change::Type { a: kind(one), b: kind(two) });
            Ok(())
        }
    }
}

/// Text or other bytes that differ first at `offset`.
pub(super) fn bytes(place: &str, a: &Blob, b: &Blob, offset: u64, report: &mut Report) -> Result<(), Stop> {
    let from = offset.saturating_sub(200);
    let (left, right) = (a.some(from, 400)?, b.some(from, 400)?);
    let text = |bytes: &[u8]| bytes.iter().all(|b| !b.is_ascii_control() || matches!(b, b'\t' | b'\n' | b'\r'));
    let readable = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(_) => true,
        // A character may be cut by the window.
        Err(error) => {
            error.valid_up_to() + 4 > bytes.len() || (from > 0 && error.valid_up_to() == 0 && bytes.len() > 8)
        }
    };
    if [&left, &right].iter().all(|bytes| text(bytes) && readable(bytes)) && (left.len() + right.len()) > 0 {
        let (line, column) = position(a, offset)?;
        let at = (offset - from) as usize;
        let begin = left[..at].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1).max(at.saturating_sub(60));
        let cut = |bytes: &[u8]| {
            let end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |i| at + i).min(at + 60);
            String::from_utf8_lossy(&bytes[begin..end.max(begin)]).into_owned()
        };
        report.differs(place, Change::Text { offset, line, column, a: cut(&left), b: cut(&right) });
    } else {
        let window = |blob: &Blob| blob.some(offset, 16).map(|bytes| array::hex(&bytes));
        let change = Change::Bytes { offset, a: window(a)?, b: window(b)?, lengths: (a.len(), b.len()) };
        report.differs(place, change);
    }
    Ok(())
}

/// Line and column of a byte, both from 1.
fn position(blob: &Blob, offset: u64) -> Result<(u64, u64), Stop> {
    let (mut line, mut column) = (1, 1);
    let mut buffer = vec![0; BLOCK];
    let mut reader = std::io::Read::take(blob.reader(), offset);
    loop {
        let n = read_full(&mut reader, &mut buffer)?;
        let read = &buffer[..n];
        match read.iter().rposition(|b| *b == b'\n') {
            Some(last) => {
                line += read.iter().filter(|b| **b == b'\n').count() as u64;
                column = (n - last) as u64;
            }
            None => column += n as u64,
        }
        if n < BLOCK {
            return Ok((line, column));
        }
    }
}

/// The digest of a blob's bytes.
pub(super) fn hash(blob: &Blob) -> Result<Digest, Stop> {
    let mut hasher = Hasher::new();
    let mut reader = blob.reader();
    let mut buffer = vec![0; BLOCK];
    loop {
        match read_full(&mut reader, &mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The digest of the content; none if the bytes are the content.
pub(super) fn digest(blob: &Blob, name: &str, depth: usize) -> Result<Option<Digest>, Stop> {
    if depth >= DEPTH_MAX {
        return Ok(None);
    }
    match open(blob, name).and_then(|opened| digest_body(&opened.body, depth)) {
        Err(Stop::Damaged(_)) => Ok(None),
        other => other,
    }
}

/// The digest of the content, or of the bytes where they are the content.
fn digest_or_hash(blob: &Blob, name: &str, depth: usize) -> Result<Digest, Stop> {
    match digest(blob, name, depth)? {
        Some(digest) => Ok(tagged("content", &[digest])),
        None => Ok(tagged("bytes", &[hash(blob)?])),
    }
}

fn tagged(tag: &str, digests: &[Digest]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(tag.as_bytes());
    hasher.update(&[0]);
    digests.iter().for_each(|digest| hasher.update(digest.as_bytes()));
    hasher.finish()
}

fn digest_body(body: &Body, depth: usize) -> Result<Option<Digest>, Stop> {
    Ok(Some(match body {
        Body::Bytes(_) => return Ok(None),
        Body::Array(array) => tagged("array", &[array.digest()?]),
        Body::Tree(tree) => tagged("tree", &[tree.digest()?]),
        Body::Lines(blob) => tagged("lines", &[json::digest_lines(blob)?]),
        Body::Table(table) => tagged("table", &[csv::digest(table)?]),
        Body::Columns(table) => tagged("columns", &[parquet::digest(table)?]),
        Body::Stream { codec, packed, name } => {
            tagged("stream", &[digest_or_hash(&codec.unpack(packed)?, name, depth + 1)?])
        }
        Body::Members(members) => {
            let mut digests = Vec::with_capacity(members.len());
            for member in members {
                let content = match &member.part {
                    Part::Unopened(blob) => digest_or_hash(blob, &member.name, depth + 1)?,
                    Part::Packed(codec, packed) => digest_or_hash(&codec.unpack(packed)?, &member.name, depth + 1)?,
                    Part::Opened(opened) => match (digest_body(&opened.body, depth)?, &opened.body) {
                        (None, Body::Bytes(blob)) => tagged("part bytes", &[hash(blob)?]),
                        (digest, _) => tagged("part", digest.as_slice()),
                    },
                };
                let mut facts = Hasher::new();
                for (name, value) in &member.attributes {
                    facts.update(format!("{name}\0{}\0{value}", value.len()).as_bytes());
                }
                digests.push((Digest::of(member.name.as_bytes()), [facts.finish(), content]));
            }
            // By name; members of one name stay in their order.
            digests.sort_by_key(|digest| digest.0);
            let flat: Vec<Digest> = digests.into_iter().flat_map(|(name, rest)| [name, rest[0], rest[1]]).collect();
            tagged("members", &flat)
        }
    }))
}
