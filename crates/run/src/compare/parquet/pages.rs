//! The pages of a column's chunk, unpacked.
//!
//! Source: `parquet.thrift` (`PageHeader`), `Compression.md` of the format's repository.

use super::super::blob::Blob;
use super::super::codec::{self, Codec};
use super::super::model::Stop;
use super::footer::{Chunk, codec_name};
use super::thrift::{Kind, Thrift};
use std::io::Read as _;

/// Longer pages are not followed: one is in memory as a whole.
const PAGE_MAX: usize = 128 << 20;
/// Headers hold statistics, which may be long.
const HEADERS: [usize; 3] = [1 << 10, 64 << 10, 16 << 20];

/// A page of values.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) encoding: i64,
    /// Values, nulls among them.
    pub(super) cells: u64,
    /// The levels of the second kind of data page lie apart, before the values: so many bytes for each.
    pub(super) levels: Option<(usize, usize)>,
    pub(super) bytes: Vec<u8>,
}

/// What comes next in a chunk.
pub(super) enum Next {
    Dictionary(Page),
    Data(Page),
}

#[derive(Default)]
struct Header {
    kind: i64,
    unpacked: usize,
    packed: usize,
    page: Page,
    is_packed: bool,
    data: bool,
}

/// Reads one page after the other.
pub(super) struct Pages {
    blob: Blob,
    at: u64,
    codec: i64,
}

impl Pages {
    pub(super) fn new(blob: &Blob, chunk: &Chunk) -> Pages {
        Pages { blob: blob.clone(), at: chunk.start, codec: chunk.codec }
    }

    fn header(&mut self) -> Result<Header, Stop> {
        let mut tries = HEADERS.iter().peekable();
        while let Some(len) = tries.next() {
            let bytes = self.blob.some(self.at, *len)?;
            let mut thrift = Thrift::new(&bytes);
            match header(&mut thrift) {
                Ok(header) => {
                    self.at += (bytes.len() - thrift.left()) as u64;
                    return Ok(header);
                }
                Err(stop) if tries.peek().is_none() || bytes.len() < *len => return Err(stop),
                Err(_) => {}
            }
        }
        Err(Stop::damaged("a page's header is too long"))
    }

    /// The next page that holds values.
    pub(super) fn next(&mut self) -> Result<Next, Stop> {
        loop {
            let mut header = self.header()?;
            let at = self.at;
            self.at += header.packed as u64;
            if !(0..=3).contains(&header.kind) || header.kind == 1 {
                if self.at > self.blob.len() {
                    return Err(Stop::damaged("a page reaches beyond the file"));
                }
                continue;
            }
            if header.packed > PAGE_MAX || header.unpacked > PAGE_MAX {
                return Err(Stop::damaged("a page is too long"));
            }
            let bytes = self.blob.bytes(at, header.packed)?;
            let bytes = bytes.ok_or_else(|| Stop::damaged("a page reaches beyond the file"))?;
            let levels = header.page.levels.map_or(0, |(one, two)| one.saturating_add(two));
            if levels > bytes.len() || levels > header.unpacked {
                return Err(Stop::damaged("a page's levels are longer than it"));
            }
            header.page.bytes = if header.is_packed { self.unpack(bytes, levels, header.unpacked)? } else { bytes };
            return match header.kind {
                2 => Ok(Next::Dictionary(header.page)),
                _ if header.data => Ok(Next::Data(header.page)),
                _ => Err(Stop::damaged("a page does not say what is in it")),
            };
        }
    }

    /// Unpacks a page but for its first `plain` bytes, to exactly `len` bytes.
    fn unpack(&self, bytes: Vec<u8>, plain: usize, len: usize) -> Result<Vec<u8>, Stop> {
        let wrong = || Stop::damaged("a page unpacks to another length than it says");
        if self.codec == 0 {
            return if bytes.len() == len { Ok(bytes) } else { Err(wrong()) };
        }
        let (levels, packed) = bytes.split_at(plain);
        let mut out = levels.to_vec();
        let rest = len - plain;
        // A page of nulls alone has nothing behind its levels.
        if rest == 0 && packed.is_empty() {
            return Ok(out);
        }
        // What these two can make of a byte is limited; so no page takes memory that its bytes do not stand for.
        let too_little = rest / 256 > packed.len();
        match self.codec {
            1 | 7 if too_little => return Err(wrong()),
            1 => {
                if snap::raw::decompress_len(packed).ok() != Some(rest) {
                    return Err(wrong());
                }
                out.resize(len, 0);
                snap::raw::Decoder::new().decompress(packed, &mut out[plain..]).map_err(|_| wrong())?;
            }
            7 => {
                out.resize(len, 0);
                let n = lz4_flex::block::decompress_into(packed, &mut out[plain..]).map_err(|_| wrong())?;
                if n != rest {
                    return Err(wrong());
                }
            }
            2 | 6 => {
                let codec = if self.codec == 2 { Codec::Gzip } else { Codec::Zstd };
                let packed = Blob::memory(packed.to_vec());
                if rest as u64 > codec::limit(&packed) {
                    return Err(wrong());
                }
                codec.decoder(&packed)?.take(rest as u64 + 1).read_to_end(&mut out)?;
                if out.len() != len {
                    return Err(wrong());
                }
            }
            other => return Err(Stop::damaged(format!("its columns are compressed with {}", codec_name(other)))),
        }
        Ok(out)
    }
}

fn header(thrift: &mut Thrift<'_>) -> Result<Header, Stop> {
    let size = |n: i64| usize::try_from(n).map_err(|_| Stop::damaged("a page's length is less than nothing"));
    let cells = |n: i64| u64::try_from(n).map_err(|_| Stop::damaged("a page counts less than nothing"));
    let mut header = Header { is_packed: true, ..Header::default() };
    thrift.fields(Kind::Struct, |thrift, id, kind| {
        match id {
            1 => header.kind = thrift.int(kind)?,
            2 => header.unpacked = size(thrift.int(kind)?)?,
            3 => header.packed = size(thrift.int(kind)?)?,
            5 | 7 => thrift.fields(kind, |thrift, field, kind| {
                match field {
                    1 => header.page.cells = cells(thrift.int(kind)?)?,
                    2 => header.page.encoding = thrift.int(kind)?,
                    // Of the levels: run lengths, which is what is written since long.
                    3 | 4 if id == 5 && thrift.int(kind)? == 3 => {}
                    3 | 4 if id == 5 => header.page.levels = Some((usize::MAX, 0)),
                    _ => return Ok(false),
                }
                header.data |= id == 5;
                Ok(true)
            })?,
            8 => {
                let (mut definition, mut repetition) = (0, 0);
                thrift.fields(kind, |thrift, field, kind| {
                    match field {
                        1 => header.page.cells = cells(thrift.int(kind)?)?,
                        4 => header.page.encoding = thrift.int(kind)?,
                        5 => definition = size(thrift.int(kind)?)?,
                        6 => repetition = size(thrift.int(kind)?)?,
                        7 => header.is_packed = kind == Kind::True,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                header.page.levels = Some((repetition, definition));
                header.data = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(header)
}
