//! tar archives: ustar, GNU's long names and pax.
//!
//! Source: POSIX.1-2024 `pax`, and GNU tar's manual. Times, owners and the order of members are noise; names, kinds,
//! modes, link targets and bytes are content. Sparse files are not read: such archives are compared as bytes.

use super::blob::Blob;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::report::NoiseKind;

const BLOCK: u64 = 512;
const MEMBERS_MAX: usize = 200_000;
const RECORD_MAX: u64 = 1 << 20;

pub(super) fn is_tar(head: &[u8]) -> bool {
    head.len() >= 512 && head[257..].starts_with(b"ustar") && checksum(&head[..512])
}

fn checksum(header: &[u8]) -> bool {
    let sum: u64 =
        header.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
    number(&header[148..156]) == Some(sum)
}

fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        // GNU's binary numbers.
        if field[0] != 0x80 || field.len() > 8 && field[1..field.len() - 8].iter().any(|b| *b != 0) {
            return None;
        }
        return Some(field[1..].iter().fold(0, |n, b| n << 8 | u64::from(*b)));
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// `LENGTH KEY=VALUE\n`, one after the other.
fn pax(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        let value = String::from_utf8_lossy(&record[equals + 1..]).into_owned();
        out.push((String::from_utf8_lossy(&record[..equals]).into_owned(), value));
        bytes = &bytes[len..];
    }
    Some(out)
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let wrong = || Stop::damaged("the tar has a broken header");
    let mut members = Vec::new();
    let (mut at, mut long_name, mut long_link, mut extended) = (0, None, None, Vec::new());
    while let Some(header) = blob.bytes(at, 512)? {
        if header.iter().all(|b| *b == 0) {
            break;
        }
        if !checksum(&header) || members.len() >= MEMBERS_MAX {
            return Err(wrong());
        }
        let kind = header[156];
        let given = extended.iter().rev().find(|(key, _): &&(String, String)| key == "size").map(|item| &item.1);
        let size = match given {
            Some(size) if !matches!(kind, b'x' | b'g' | b'L' | b'K') => size.parse().map_err(|_| wrong())?,
            _ => number(&header[124..136]).ok_or_else(wrong)?,
        };
        let size = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        let content = blob.slice(at + BLOCK, size).ok_or_else(|| Stop::damaged("the tar is cut off"))?;
        at = (at + BLOCK + size).next_multiple_of(BLOCK);
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let record = content.all(RECORD_MAX as usize)?.ok_or_else(wrong)?;
            match kind {
                b'x' => extended = pax(&record).ok_or_else(wrong)?,
                b'L' => long_name = Some(text(&record)),
                b'K' => long_link = Some(text(&record)),
                _ => {}
            }
            continue;
        }
        if kind == b'S' || extended.iter().any(|(key, _)| key.starts_with("GNU.sparse")) {
            return Err(Stop::damaged("the tar has sparse files"));
        }
        let pax_value = |key: &str| extended.iter().rev().find(|(k, _)| k == key).map(|item| item.1.clone());
        let mut name = text(&header[..100]);
        let prefix = if header[257..].starts_with(b"ustar\0") { text(&header[345..500]) } else { String::new() };
        if !prefix.is_empty() {
            name = format!("{prefix}/{name}");
        }
        let name = pax_value("path").or(long_name.take()).unwrap_or(name);
        let link = pax_value("linkpath").or(long_link.take()).unwrap_or_else(|| text(&header[157..257]));
        let kind = match kind {
            0 | b'7' => '0',
            kind => kind as char,
        };
        let mut attributes =
            vec![("kind", kind.to_string()), ("mode", format!("{:o}", number(&header[100..108]).ok_or_else(wrong)?))];
        if matches!(kind, '1' | '2') {
            attributes.push(("link target", link));
        }
        let owner: Vec<String> = [108..116, 116..124, 265..297, 297..329].map(|r| text(&header[r])).into();
        let time = pax_value("mtime").unwrap_or_else(|| number(&header[136..148]).unwrap_or_default().to_string());
        let facts = vec![(NoiseKind::Time, time), (NoiseKind::Owner, owner.join(" ").trim().to_owned())];
        members.push(Member { name, facts, attributes, part: Part::Unopened(content) });
        extended.clear();
    }
    Ok(Opened { what: "a tar archive", facts: Facts::new(), body: Body::Members(members) })
}
