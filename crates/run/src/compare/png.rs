//! PNG images: pixels apart from text and time.
//!
//! Source: the W3C's PNG specification, third edition. How the image data is cut, compressed and filtered is noise (the filters
//! are undone), and so are text and time chunks; every other chunk is content. Interlaced images keep their filters.

use super::array::{Array, Dtype, Scalar};
use super::blob::Blob;
use super::codec::Codec;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::report::NoiseKind;

const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Larger images are compared as bytes.
const FILE_MAX: usize = 128 << 20;
const PIXELS_MAX: u64 = 256 << 20;

pub(super) fn is_png(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

fn wrong(why: &str) -> Stop {
    Stop::damaged(format!("the image {why}"))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let bytes = blob.all(FILE_MAX)?.ok_or_else(|| wrong("is too large"))?;
    let mut rest = bytes.get(MAGIC.len()..).ok_or_else(|| wrong("is cut off"))?;
    let (mut members, mut facts, mut packed, mut header) = (Vec::new(), Facts::new(), Vec::new(), None);
    let content = |name: String, opened: Opened| Member {
        name,
        facts: Facts::new(),
        attributes: Vec::new(),
        part: Part::Opened(Box::new(opened)),
    };
    while !rest.is_empty() {
        if rest.len() < 12 || u32_at(rest, 0) > rest.len() as u64 - 12 {
            return Err(wrong("is cut off"));
        }
        let len = u32_at(rest, 0) as usize;
        let (kind, data) = (&rest[4..8], &rest[8..8 + len]);
        match kind {
            b"IDAT" => packed.extend_from_slice(data),
            b"IHDR" if len != 13 => return Err(wrong("has a broken header")),
            b"tEXt" | b"zTXt" | b"iTXt" | b"tIME" => {
                facts.push((NoiseKind::Annotation, data[..len.min(80)].escape_ascii().to_string()));
            }
            _ => {
                let body = Body::Bytes(Blob::memory(data.to_vec()));
                let name = kind.escape_ascii().to_string();
                members.push(content(name, Opened { what: "a chunk", facts: Facts::new(), body }));
            }
        }
        if kind == b"IHDR" {
            header = Some(data.to_vec());
        }
        rest = &rest[12 + len..];
    }
    let header = header.ok_or_else(|| wrong("has no header"))?;
    let raw = Blob::spool(&mut *Codec::Zlib.decoder(&Blob::memory(packed))?, PIXELS_MAX)?;
    let pixels = Opened { what: "pixels", facts: Facts::new(), body: pixels(&header, &raw)? };
    members.push(content("pixels".to_owned(), pixels));
    Ok(Opened { what: "a PNG image", facts, body: Body::Members(members) })
}

fn pixels(header: &[u8], raw: &Blob) -> Result<Body, Stop> {
    let (width, height) = (u32_at(header, 0), u32_at(header, 4));
    let (depth, interlaced) = (u64::from(header[8]), header[12] != 0);
    let channels = match header[9] {
        0 | 3 => 1,
        4 => 2,
        2 => 3,
        6 => 4,
        _ => return Err(wrong("has an unknown colour type")),
    };
    if interlaced {
        return Ok(Body::Bytes(raw.clone()));
    }
    let line = (width.saturating_mul(channels).saturating_mul(depth)).div_ceil(8);
    if line == 0 || (line + 1).checked_mul(height) != Some(raw.len()) {
        return Err(wrong("has too few or too many pixels"));
    }
    let mut bytes = raw.all(PIXELS_MAX as usize)?.ok_or_else(|| wrong("is too large"))?;
    let step = ((channels * depth) / 8).max(1) as usize;
    let line = line as usize;
    let mut above = vec![0; line];
    let mut out = Vec::with_capacity(line * height as usize);
    for row in bytes.chunks_exact_mut(line + 1) {
        let (filter, row) = row.split_first_mut().ok_or_else(|| wrong("has an empty row"))?;
        for i in 0..line {
            let left = if i >= step { row[i - step] } else { 0 };
            let corner = if i >= step { above[i - step] } else { 0 };
            row[i] = row[i].wrapping_add(match filter {
                0 => 0,
                1 => left,
                2 => above[i],
                3 => u16::midpoint(u16::from(left), u16::from(above[i])) as u8,
                4 => paeth(left, above[i], corner),
                _ => return Err(wrong("has an unknown filter")),
            });
        }
        above.copy_from_slice(row);
        out.extend_from_slice(row);
    }
    let (dtype, shape) = match depth {
        8 => (Dtype::scalar(Scalar::Int { bytes: 1, signed: false }, false), vec![height, width, channels]),
        16 => (Dtype::scalar(Scalar::Int { bytes: 2, signed: false }, true), vec![height, width, channels]),
        _ => (Dtype::scalar(Scalar::Raw(1), false), vec![height, line as u64]),
    };
    Ok(Body::Array(Box::new(Array::new(dtype, shape, false, Blob::memory(out))?)))
}

fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let guess = i16::from(left) + i16::from(above) - i16::from(corner);
    let far = |value: u8| (guess - i16::from(value)).abs();
    if far(left) <= far(above) && far(left) <= far(corner) {
        left
    } else if far(above) <= far(corner) {
        above
    } else {
        corner
    }
}
