//! tar: POSIX ustar and pax, GNU's long names, and what came before them.
//!
//! Sources: POSIX.1-2017 `pax` ("ustar Interchange Format", "pax Interchange Format"); the GNU tar
//! manual, "Basic Tar Format". Where programs disagree on what an archive holds, it is refused: data
//! behind the end mark, sizes on members that have no data, no end mark at all.

use super::decode::only_zeros;
use super::error::{ArchiveError, shown};
use super::walk::{Ended, Feed, Kind, Member, fill};
use std::io::{self, BufRead, Read};

const BLOCK: usize = 512;

/// Names and pax headers that are longer than this are an attack on memory, not a name.
const META_MAX: u64 = 1 << 20;

/// Whether this is the first block of a tar: a header whose checksum is right, or an end mark.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    head.first_chunk::<BLOCK>().is_some_and(|block| block.iter().all(|b| *b == 0) || checksum_is_right(block))
}

/// What extended headers say about the member that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    time: Option<u64>,
    sparse: bool,
}

/// Gives all members to `feed`.
pub(crate) fn read(mut input: impl BufRead, feed: &mut Feed<'_>) -> Result<(), Ended> {
    let mut extended = Extended::default();
    // GNU's way of the same; a pax header wins.
    let (mut long_name, mut long_link) = (None, None);
    let mut block = [0; BLOCK];
    loop {
        match fill(&mut input, &mut block).map_err(|e| feed.read_error(e, None))? {
            BLOCK => {}
            _ => return Err(ArchiveError::Truncated(None).into()),
        }
        if block.iter().all(|b| *b == 0) {
            return only_zeros(&mut input, "tar").map_err(|e| feed.read_error(e, None).into());
        }
        if !checksum_is_right(&block) {
            return Err(ArchiveError::corrupt("a header's checksum is wrong").into());
        }
        let own_name = header_name(&block);
        let stated =
            number(&block[124..136]).ok_or_else(|| ArchiveError::corrupt_at(&own_name, "its size is not a number"))?;
        match block[156] {
            b'x' => {
                let records = meta(&mut input, stated, &own_name, feed)?;
                pax(&records, &own_name, &mut extended)?;
                continue;
            }
            b'g' => {
                let records = meta(&mut input, stated, &own_name, feed)?;
                let mut global = Extended::default();
                pax(&records, &own_name, &mut global)?;
                if global.path.is_some() || global.link.is_some() || global.size.is_some() || global.sparse {
                    return Err(unsupported(&own_name, "gives one name or size to all members").into());
                }
                continue;
            }
            b'L' => {
                long_name = Some(until_nul(&meta(&mut input, stated, &own_name, feed)?).to_vec());
                continue;
            }
            b'K' => {
                long_link = Some(until_nul(&meta(&mut input, stated, &own_name, feed)?).to_vec());
                continue;
            }
            _ => {}
        }
        let said = std::mem::take(&mut extended);
        let name = said.path.or(long_name.take()).unwrap_or(own_name);
        let link = said.link.or(long_link.take()).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let size = said.size.unwrap_or(stated);
        let time = said.time.or_else(|| number(&block[136..148])).unwrap_or(0);
        let kind = match block[156] {
            b'S' => {
                return Err(unsupported(&name, "is stored as a sparse file: pack it again without `--sparse`").into());
            }
            _ if said.sparse => {
                return Err(unsupported(&name, "is stored as a sparse file: pack it again without `--sparse`").into());
            }
            // Before ustar a folder was a file whose name ends in a slash.
            b'0' | 0 if name.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' => {
                let mode = number(&block[100..108])
                    .ok_or_else(|| ArchiveError::corrupt_at(&name, "its mode is not a number"))?;
                Kind::File { size, exec: mode & 0o100 != 0 }
            }
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Special("a character device"),
            b'4' => Kind::Special("a block device"),
            b'5' => Kind::Folder,
            b'6' => Kind::Special("a named pipe"),
            b'V' if size == 0 => continue,
            b'M' => return Err(unsupported(&name, "is continued from another volume").into()),
            other => {
                return Err(unsupported(&name, &format!("is of the unknown kind {:?}", other as char)).into());
            }
        };
        if !matches!(kind, Kind::File { .. }) && size != 0 {
            return Err(ArchiveError::corrupt_at(&name, format!("{} cannot hold bytes", kind.words())).into());
        }
        let has_data = matches!(kind, Kind::File { .. });
        let mut data = Read::take(&mut input, size);
        feed.member(Member { name: name.clone(), kind, time }, &mut data)?;
        if has_data {
            let left = data.limit();
            skip(&mut input, left + padding(size)).map_err(|e| feed.read_error(e, Some(&name)))?;
        }
    }
}

fn unsupported(name: &[u8], what: &str) -> ArchiveError {
    ArchiveError::Unsupported { name: shown(name), what: what.to_owned() }
}

const fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn skip(input: &mut impl BufRead, mut n: u64) -> io::Result<()> {
    while n > 0 {
        let there = input.fill_buf()?.len().min(usize::try_from(n).unwrap_or(usize::MAX));
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.consume(there);
        n -= there as u64;
    }
    Ok(())
}

/// The data of an extended header.
fn meta(input: &mut impl BufRead, size: u64, name: &[u8], feed: &Feed<'_>) -> Result<Vec<u8>, ArchiveError> {
    if size > META_MAX {
        return Err(ArchiveError::corrupt_at(name, "an extended header is longer than 1 MiB"));
    }
    let mut data = Vec::new();
    let n = Read::take(&mut *input, size).read_to_end(&mut data).map_err(|e| feed.read_error(e, Some(name)))?;
    if n as u64 != size {
        return Err(ArchiveError::Truncated(Some(shown(name))));
    }
    skip(input, padding(size)).map_err(|e| feed.read_error(e, Some(name)))?;
    Ok(data)
}

/// Takes the records of a pax header: `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn pax(mut records: &[u8], name: &[u8], into: &mut Extended) -> Result<(), ArchiveError> {
    let bad = || ArchiveError::corrupt_at(name, "its extended header cannot be read");
    while !records.is_empty() {
        let space = records.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&records[..space]).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        let record = records.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // An empty value takes back what a global header said.
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => into.path = text(),
            b"linkpath" => into.link = text(),
            b"size" => into.size = Some(std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?),
            // With a fraction, which is left out.
            b"mtime" => {
                into.time = value.split(|b| *b == b'.').next().and_then(|t| std::str::from_utf8(t).ok()?.parse().ok())
            }
            _ if key.starts_with(b"GNU.sparse.") => into.sparse = true,
            _ => {}
        }
        records = &records[length..];
    }
    Ok(())
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

fn header_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    // GNU's magic is `ustar` and two blanks; its headers hold times where ustar has the prefix.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

/// A numeric field: octal digits with blanks and NULs around, or GNU's big-endian binary.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        // A set sign bit (0xff) would be a negative number, which no size or mode is.
        let mut value = u64::from(field[0] & 0x7f);
        if value != 0 {
            return None;
        }
        for byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim_matches(' ');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Some(stated) = number(&block[148..156]) else {
        return false;
    };
    let counted = |i: usize| {
        if (148..156).contains(&i) { b' ' } else { block[i] }
    };
    let unsigned: u64 = (0..BLOCK).map(|i| u64::from(counted(i))).sum();
    // Some old programs added the bytes as signed ones.
    let signed: i64 = (0..BLOCK).map(|i| i64::from(counted(i).cast_signed())).sum();
    stated == unsigned || i64::try_from(stated) == Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Some((2 << 32) + 1));
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(b"9\0\0\0"), None);
    }

    #[test]
    fn pax_records() {
        let mut said = Extended::default();
        pax(b"12 path=a/b\n10 size=7\n14 comment==x\n", b"n", &mut said).unwrap();
        assert_eq!((said.path.as_deref(), said.size, said.sparse), (Some(&b"a/b"[..]), Some(7), false));
        for bad in
            [&b"12 path=a/b"[..], b"99 path=a\n", b"3 a\n", b"x path=a\n", b"0 path=a\n", b"11 size=-7\n", b"5 a=b\n"]
        {
            assert!(pax(bad, b"n", &mut Extended::default()).is_err(), "{}", shown(bad));
        }
    }
}
