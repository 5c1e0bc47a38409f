//! zip archives by their central directory: .npz, torch's files, and any other.
//!
//! Source: PKWARE's APPNOTE.TXT 6.3.10. Times, extra fields, comments, the order and the compression are noise;
//! names, modes given by a Unix program, and bytes are content.

use super::blob::Blob;
use super::codec::Codec;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::report::NoiseKind;
use super::torch;
use std::collections::HashSet;

const ENTRIES_MAX: u64 = 200_000;
const DIRECTORY_MAX: u64 = 64 << 20;
/// The end record and the longest comment behind it.
const TAIL: u64 = 22 + 65_535;

pub(super) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

fn wrong(why: &str) -> Stop {
    Stop::damaged(format!("the zip {why}"))
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let from = blob.len().saturating_sub(TAIL);
    let tail = blob.some(from, TAIL as usize)?;
    let end = tail
        .windows(4)
        .rposition(|w| w == b"PK\x05\x06")
        .filter(|at| at + 22 <= tail.len())
        .ok_or_else(|| wrong("has no end record"))?;
    let (mut count, mut size, mut start) = (u16_at(&tail, end + 10), u32_at(&tail, end + 12), u32_at(&tail, end + 16));
    let at = from + end as u64;
    if (count == 0xffff || size == 0xffff_ffff || start == 0xffff_ffff) && at >= 20 {
        let locator = blob.bytes(at - 20, 20)?.unwrap_or_default();
        if locator.starts_with(b"PK\x06\x07") {
            let record = blob.bytes(u64_at(&locator, 8), 56)?.filter(|r| r.starts_with(b"PK\x06\x06"));
            let record = record.ok_or_else(|| wrong("has no zip64 end record where it says"))?;
            (count, size, start) = (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
        }
    }
    if count > ENTRIES_MAX || size > DIRECTORY_MAX {
        return Err(wrong("has too many members"));
    }
    let directory = blob.bytes(start, size as usize)?.ok_or_else(|| wrong("is cut off"))?;
    let comment = String::from_utf8_lossy(&tail[end + 22..]).into_owned();
    let mut facts = Facts::new();
    if !comment.is_empty() {
        facts.push((NoiseKind::Extra, comment));
    }
    let mut members = Vec::new();
    let mut rest = directory.as_slice();
    let mut packed_total: u64 = 0;
    for _ in 0..count {
        let (member, used, packed) = entry(blob, rest)?;
        packed_total = packed_total.saturating_add(packed);
        rest = &rest[used..];
        members.push(member);
    }
    // Members that share their bytes could stand for any amount of work.
    if packed_total > blob.len() {
        return Err(wrong("has members that overlap"));
    }
    if torch::is_torch(&members) {
        return torch::open(members, facts);
    }
    Ok(Opened { what: "a zip archive", facts, body: Body::Members(members) })
}

/// The member whose central header begins here, that header's length, and the packed size.
fn entry(blob: &Blob, header: &[u8]) -> Result<(Member, usize, u64), Stop> {
    if header.len() < 46 || !header.starts_with(b"PK\x01\x02") {
        return Err(wrong("has a broken directory"));
    }
    let (flags, method) = (u16_at(header, 8), u16_at(header, 10));
    let (mut packed, mut size) = (u32_at(header, 20), u32_at(header, 24));
    let (name, extra, comment) =
        (u16_at(header, 28) as usize, u16_at(header, 30) as usize, u16_at(header, 32) as usize);
    let mut offset = u32_at(header, 42);
    let used = 46 + name + extra + comment;
    if used > header.len() {
        return Err(wrong("has a broken directory"));
    }
    let extra_bytes = &header[46 + name..46 + name + extra];
    let mut fields = extra_bytes;
    while fields.len() >= 4 {
        let len = u16_at(fields, 2) as usize;
        let Some(field) = fields.get(4..4 + len) else { break };
        if u16_at(fields, 0) == 1 {
            let mut at = 0;
            for value in [&mut size, &mut packed, &mut offset] {
                if *value == 0xffff_ffff && field.len() >= at + 8 {
                    *value = u64_at(field, at);
                    at += 8;
                }
            }
        }
        fields = &fields[4 + len..];
    }
    let local = blob.bytes(offset, 30)?.filter(|local| local.starts_with(b"PK\x03\x04"));
    let local = local.ok_or_else(|| wrong("has a member that is not where it should be"))?;
    let begin = offset + 30 + u16_at(&local, 26) + u16_at(&local, 28);
    let content = blob.slice(begin, packed).ok_or_else(|| wrong("has a member beyond its end"))?;
    let text = String::from_utf8_lossy(&header[46..46 + name]).into_owned();
    let codec = match method {
        8 => Some(Codec::Deflate),
        12 => Some(Codec::Bzip2),
        93 => Some(Codec::Zstd),
        95 => Some(Codec::Xz),
        _ => None,
    };
    let known = flags & 1 == 0 && (codec.is_some() || method == 0);
    let part = match codec.filter(|_| known) {
        Some(codec) => Part::Packed(codec, content),
        None => Part::Unopened(content),
    };
    let mut attributes = Vec::new();
    if !known {
        attributes.push(("packing", format!("method {method}, flags {flags:#x}, {size} bytes")));
    }
    let mode = u32_at(header, 38) >> 16;
    // Made on Unix, and with a mode at all.
    if header[5] == 3 && mode != 0 {
        attributes.push(("mode", format!("{mode:o}")));
    }
    let (date, time) = (u16_at(header, 14), u16_at(header, 12));
    let when = format!(
        "{}-{:02}-{:02} {:02}:{:02}:{:02}",
        1980 + (date >> 9),
        date >> 5 & 15,
        date & 31,
        time >> 11,
        time >> 5 & 63,
        (time & 31) * 2
    );
    let facts = vec![
        (NoiseKind::Time, when),
        (NoiseKind::Compression, format!("method {method}")),
        (
            NoiseKind::Extra,
            format!(
                "{} {}",
                super::array::hex(&extra_bytes[..extra.min(32)]),
                header[46 + name + extra..used].escape_ascii()
            ),
        ),
        (NoiseKind::Version, format!("{}.{}", header[5], header[4])),
    ];
    Ok((Member { name: text, facts, attributes, part }, used, packed))
}

/// Whether two members have one name.
pub(super) fn has_twins(members: &[Member]) -> bool {
    let names: HashSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.len() != members.len()
}
