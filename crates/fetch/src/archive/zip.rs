//! zip, by its central directory, with zip64 and data descriptors.
//!
//! Source: PKWARE's APPNOTE.TXT 6.3.10. Members are read in the order of their places in the file.
//! Each local header must say what the central directory says, members may not overlap, and nothing
//! may stand behind the end record: otherwise two programs could see two different archives.

use super::decode::Codec;
use super::error::{ArchiveError, shown};
use super::walk::{Ended, Feed, Kind, Member, fill};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use fs_err::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom, Take};

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const END_LEN: usize = 22;
const LINK_MAX: u64 = 4096;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Whether this is the beginning of a zip with members, or all of one without.
pub(crate) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(LOCAL) || head.starts_with(END)
}

/// What the central directory says of a member.
struct Entry {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
    /// Type and permissions, where a Unix program wrote the archive.
    mode: Option<u32>,
}

/// Gives all members to `feed`.
pub(crate) fn read(mut file: File, feed: &mut Feed<'_>) -> Result<(), Ended> {
    let (mut entries, directory) = central_directory(&mut file)?;
    entries.sort_by_key(|e| e.offset);
    let mut input = BufReader::with_capacity(256 << 10, file);
    input.rewind().map_err(ArchiveError::Read)?;
    let mut at = 0;
    let mut free_from = 0;
    let mut inflater = Decompress::new(false);
    let mut left = feed.limit;
    for entry in entries {
        let bad = |what: &str| ArchiveError::corrupt_at(&entry.name, what);
        if entry.offset < free_from {
            return Err(bad("it overlaps another member").into());
        }
        let gap = i64::try_from(entry.offset - at).map_err(|_| bad("its place is not in the file"))?;
        input.seek_relative(gap).map_err(ArchiveError::Read)?;
        let header = local_header(&mut input, &entry)?;
        at = entry.offset + header;
        free_from = at
            .checked_add(entry.packed)
            .filter(|end| *end <= directory)
            .ok_or_else(|| bad("it ends outside of the file"))?;
        left = left.checked_sub(entry.size).ok_or(ArchiveError::TooLarge { limit: feed.limit })?;

        let mut packed = Read::take(&mut input, entry.packed);
        let mut content = Content::new(&mut packed, &entry, &mut inflater)?;
        let kind = match kind(&entry) {
            Kind::Symlink(_) if entry.size > LINK_MAX => {
                return Err(bad("a symbolic link cannot be so long").into());
            }
            Kind::Symlink(_) => {
                let mut target = Vec::new();
                Read::take(&mut content, entry.size)
                    .read_to_end(&mut target)
                    .map_err(|e| ArchiveError::from_read(e, Some(&entry.name)))?;
                content.check(&entry)?;
                Kind::Symlink(target)
            }
            Kind::Folder if entry.size != 0 => return Err(bad("a folder cannot hold bytes").into()),
            kind => kind,
        };
        if feed.member(Member { name: entry.name.clone(), kind, time: 0 }, &mut content)? {
            content.check(&entry)?;
        }
        drop(content);
        at += entry.packed - packed.limit();
    }
    Ok(())
}

fn kind(entry: &Entry) -> Kind {
    const FORMAT: u32 = 0o170_000;
    let mode = entry.mode.unwrap_or(0);
    match mode & FORMAT {
        _ if entry.name.ends_with(b"/") => Kind::Folder,
        0 | 0o100_000 => Kind::File { size: entry.size, exec: mode & 0o100 != 0 },
        0o040_000 => Kind::Folder,
        0o120_000 => Kind::Symlink(Vec::new()),
        0o010_000 => Kind::Special("a named pipe"),
        0o020_000 => Kind::Special("a character device"),
        0o060_000 => Kind::Special("a block device"),
        0o140_000 => Kind::Special("a socket"),
        _ => Kind::Special("of an unknown kind"),
    }
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

/// All entries, and where the directory begins.
fn central_directory(file: &mut File) -> Result<(Vec<Entry>, u64), ArchiveError> {
    let (offset, size, count) = end_record(file)?;
    file.seek(SeekFrom::Start(offset)).map_err(ArchiveError::Read)?;
    let mut bytes = Vec::new();
    Read::take(&mut *file, size).read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
    let bad = || ArchiveError::corrupt("its central directory cannot be read");
    let mut fields = Fields(&bytes);
    let mut entries = Vec::new();
    while !fields.0.is_empty() {
        entries.push(central_entry(&mut fields).ok_or_else(bad)??);
    }
    if entries.len() as u64 != count {
        return Err(ArchiveError::corrupt("its end record counts other members than its central directory has"));
    }
    Ok((entries, offset))
}

/// Where the central directory begins, its length in bytes, and how many entries it has.
fn end_record(file: &mut File) -> Result<(u64, u64, u64), ArchiveError> {
    let length = file.metadata().map_err(ArchiveError::Read)?.len();
    let tail_len = length.min((END_LEN + usize::from(u16::MAX)) as u64 + 20 + 56);
    let start = length - tail_len;
    file.seek(SeekFrom::Start(start)).map_err(ArchiveError::Read)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(ArchiveError::Read)?;
    let bad = || ArchiveError::corrupt("its end record cannot be read");

    // The last end record whose comment ends where the file ends.
    let comment_ends = |at: &usize| {
        let rest = &tail[*at..];
        rest.starts_with(END)
            && rest.len() >= END_LEN
            && usize::from(u16::from_le_bytes([rest[20], rest[21]])) == rest.len() - END_LEN
    };
    let Some(at) = (0..tail.len()).rev().find(comment_ends) else {
        let there = tail.windows(4).any(|w| w == END);
        return Err(if there {
            ArchiveError::corrupt("something else follows its end")
        } else {
            ArchiveError::Truncated(None)
        });
    };
    let mut fields = Fields(&tail[at + 4..]);
    let mut next = || fields.u16().ok_or_else(bad);
    let (disk, directory_disk, here, total) = (next()?, next()?, next()?, next()?);
    let (size, offset) = (fields.u32().ok_or_else(bad)?, fields.u32().ok_or_else(bad)?);
    let sentinel = here == u16::MAX || total == u16::MAX || size == u32::MAX || offset == u32::MAX;
    let locator = at.checked_sub(20).filter(|l| sentinel && tail[*l..].starts_with(LOCATOR64));
    let (offset, size, count, end) = match locator {
        None if disk != 0 || directory_disk != 0 || here != total => return Err(several_disks()),
        None => (u64::from(offset), u64::from(size), u64::from(total), start + at as u64),
        Some(locator) => {
            let end = u64::from_le_bytes(tail[locator + 8..locator + 16].try_into().map_err(|_| bad())?);
            let record =
                end.checked_sub(start).and_then(|i| tail.get(usize::try_from(i).ok()?..locator)).ok_or_else(bad)?;
            if !record.starts_with(END64) {
                return Err(bad());
            }
            let mut fields = Fields(record.get(16..).ok_or_else(bad)?);
            let (disk, directory_disk) = (fields.u32().ok_or_else(bad)?, fields.u32().ok_or_else(bad)?);
            let mut next = || fields.u64().ok_or_else(bad);
            let (here, total, size, offset) = (next()?, next()?, next()?, next()?);
            if disk != 0 || directory_disk != 0 || here != total {
                return Err(several_disks());
            }
            (offset, size, total, end)
        }
    };
    if offset.checked_add(size) != Some(end) {
        return Err(ArchiveError::corrupt("its central directory is not where its end record says"));
    }
    Ok((offset, size, count))
}

fn several_disks() -> ArchiveError {
    ArchiveError::corrupt("it is one part of several")
}

/// One entry of the central directory; none if its bytes end too early.
fn central_entry(fields: &mut Fields<'_>) -> Option<Result<Entry, ArchiveError>> {
    if fields.bytes(4)? != CENTRAL {
        return None;
    }
    let made_by = fields.u16()?;
    let _version_needed = fields.u16()?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    let _time_and_date = fields.u32()?;
    let crc = fields.u32()?;
    let (packed, size) = (fields.u32()?, fields.u32()?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let _disk_and_internal = fields.u32()?;
    let (attributes, offset) = (fields.u32()?, fields.u32()?);
    let name = fields.bytes(name_len.into())?.to_vec();
    let extra = fields.bytes(extra_len.into())?;
    fields.bytes(comment_len.into())?;

    let mut large = Fields(zip64(extra).unwrap_or_default());
    let mut wide = |value: u32| {
        if value == u32::MAX { large.u64() } else { Some(value.into()) }
    };
    let (size, packed, offset) = (wide(size)?, wide(packed)?, wide(offset)?);
    if flags & 1 != 0 {
        return Some(Err(unsupported(&name, "is encrypted")));
    }
    if codec(method).is_none() && !matches!(method, STORED | DEFLATED) {
        return Some(Err(unsupported(&name, &format!("is compressed by method {method}, which is not supported"))));
    }
    if method == STORED && size != packed {
        return Some(Err(ArchiveError::corrupt_at(&name, "it is stored, and has two sizes")));
    }
    // 3 is Unix, 19 is macOS.
    let mode = matches!(made_by >> 8, 3 | 19).then_some(attributes >> 16);
    Some(Ok(Entry { name, flags, method, crc, packed, size, offset, mode }))
}

fn unsupported(name: &[u8], what: &str) -> ArchiveError {
    ArchiveError::Unsupported { name: shown(name), what: what.to_owned() }
}

/// The zip64 field among extra fields.
fn zip64(extra: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(extra);
    loop {
        let (id, len) = (fields.u16()?, fields.u16()?);
        let data = fields.bytes(len.into())?;
        if id == 1 {
            return Some(data);
        }
    }
}

/// Reads a member's local header; its length. It must agree with the central directory.
fn local_header(input: &mut impl BufRead, entry: &Entry) -> Result<u64, ArchiveError> {
    let truncated = |e| ArchiveError::from_read(e, Some(&entry.name));
    let mut header = [0; 30];
    if fill(input, &mut header).map_err(truncated)? < header.len() || &header[..4] != LOCAL {
        return Err(ArchiveError::corrupt_at(&entry.name, "there is no member where the central directory has it"));
    }
    let bad = || ArchiveError::corrupt_at(&entry.name, "it contradicts the central directory");
    let mut fields = Fields(&header[6..]);
    let (flags, method) = (fields.u16().ok_or_else(bad)?, fields.u16().ok_or_else(bad)?);
    fields.bytes(4).ok_or_else(bad)?;
    let mut next = || fields.u32().ok_or_else(bad);
    let (crc, packed, size) = (next()?, next()?, next()?);
    let (name_len, extra_len) = (fields.u16().ok_or_else(bad)?, fields.u16().ok_or_else(bad)?);
    let mut rest = vec![0; usize::from(name_len) + usize::from(extra_len)];
    input.read_exact(&mut rest).map_err(truncated)?;
    let (name, extra) = rest.split_at(name_len.into());
    let mut large = Fields(zip64(extra).unwrap_or_default());
    let mut wide = |value: u32| {
        if value == u32::MAX { large.u64() } else { Some(value.into()) }
    };
    let (size, packed) = (wide(size), wide(packed));
    // With a data descriptor the writer did not know these yet, and left them zero.
    let later = flags & 8 != 0;
    let same = |local: Option<u64>, central: u64| local == Some(central) || later && matches!(local, None | Some(0));
    let agree = name == entry.name
        && method == entry.method
        && flags & 1 == entry.flags & 1
        && same(Some(crc.into()), entry.crc.into())
        && same(packed, entry.packed)
        && same(size, entry.size);
    if agree { Ok((header.len() + rest.len()) as u64) } else { Err(bad()) }
}

/// The codecs that a member may have besides none and deflate.
fn codec(method: u16) -> Option<Codec> {
    match method {
        12 => Some(Codec::Bzip2),
        93 => Some(Codec::Zstd),
        95 => Some(Codec::Xz),
        _ => None,
    }
}

/// A member's bytes, counted and checked.
struct Content<'a, 'f> {
    decoder: Decoder<'a, 'f>,
    crc: Crc,
}

/// The packed bytes of one member.
type Packed<'f> = Take<&'f mut BufReader<File>>;

enum Decoder<'a, 'f> {
    Stored(&'a mut Packed<'f>),
    Deflated { input: &'a mut Packed<'f>, inflater: &'a mut Decompress, ended: bool },
    Other(Box<dyn Read + 'a>),
}

impl<'a, 'f> Content<'a, 'f> {
    fn new(
        input: &'a mut Packed<'f>,
        entry: &Entry,
        inflater: &'a mut Decompress,
    ) -> Result<Content<'a, 'f>, ArchiveError> {
        let decoder = match codec(entry.method) {
            Some(codec) => {
                Decoder::Other(codec.decoder(input).map_err(|e| ArchiveError::from_read(e, Some(&entry.name)))?)
            }
            None if entry.method == STORED => Decoder::Stored(input),
            None => {
                inflater.reset(false);
                Decoder::Deflated { input, inflater, ended: false }
            }
        };
        Ok(Content { decoder, crc: Crc::new() })
    }

    /// After all bytes were read: they are as many as stated, and the right ones.
    fn check(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let more = self.decoder.read(&mut [0]).map_err(|e| ArchiveError::from_read(e, Some(&entry.name)))?;
        if more != 0 {
            return Err(ArchiveError::corrupt_at(&entry.name, "it is larger than it says"));
        }
        if self.crc.sum() != entry.crc {
            return Err(ArchiveError::corrupt_at(&entry.name, "its checksum is wrong"));
        }
        Ok(())
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(out)?;
        self.crc.update(&out[..n]);
        Ok(n)
    }
}

impl Read for Decoder<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Stored(input) => input.read(out),
            Decoder::Other(decoder) => decoder.read(out),
            Decoder::Deflated { input, inflater, ended } => {
                while !*ended && !out.is_empty() {
                    let packed = input.fill_buf()?;
                    let flush = if packed.is_empty() { FlushDecompress::Finish } else { FlushDecompress::None };
                    let (taken, given) = (inflater.total_in(), inflater.total_out());
                    let status = inflater
                        .decompress(packed, out, flush)
                        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                    let at_end = packed.is_empty();
                    input.consume((inflater.total_in() - taken) as usize);
                    *ended = status == Status::StreamEnd;
                    let n = (inflater.total_out() - given) as usize;
                    if n > 0 {
                        return Ok(n);
                    }
                    if at_end && !*ended {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(0)
            }
        }
    }
}
