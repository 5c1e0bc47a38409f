//! The encodings of levels and values.
//!
//! Source: `Encodings.md` of the format's repository. All counts are checked against the bytes that are there, or cost
//! nothing until a value is asked for.

use super::super::model::Stop;
use super::footer::Physical;
use super::pages::Page;
use std::sync::Arc;

/// Values that end too early.
fn short() -> Stop {
    Stop::damaged("a page has fewer values than it says")
}

/// A buffer that is shared by what reads from it.
type Bytes = Arc<Vec<u8>>;

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Stop> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or_else(short)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Stop::damaged("a page has a number that is too long"))
}

fn zigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// A number of `width` bits, at most 64, that begins at bit `bit`.
fn bits(bytes: &[u8], bit: usize, width: usize) -> Option<u64> {
    if width == 0 {
        return Some(0);
    }
    let (first, shift) = (bit / 8, bit % 8);
    let part = bytes.get(first..first + (shift + width).div_ceil(8))?;
    let all = part.iter().rev().fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
    Some((all >> shift) as u64 & (u64::MAX >> (64 - width)))
}

/// Run lengths and packed bits, mixed.
#[derive(Debug)]
pub(super) struct Runs {
    bytes: Bytes,
    at: usize,
    end: usize,
    width: usize,
    left: u64,
    /// The value of a run; none where values are packed, from bit `bit` on.
    value: Option<u64>,
    bit: usize,
}

impl Runs {
    pub(super) fn new(bytes: &Bytes, at: usize, end: usize, width: usize) -> Result<Runs, Stop> {
        if width > 32 || at > end || end > bytes.len() {
            return Err(Stop::damaged("a page contradicts itself"));
        }
        Ok(Runs { bytes: Arc::clone(bytes), at, end, width, left: 0, value: None, bit: 0 })
    }

    pub(super) fn next(&mut self) -> Result<u32, Stop> {
        while self.left == 0 {
            let bytes = &self.bytes[..self.end];
            let head = varint(bytes, &mut self.at)?;
            self.left = head >> 1;
            if head & 1 == 0 {
                let len = self.width.div_ceil(8);
                self.value = Some(bits(bytes, self.at * 8, len * 8).ok_or_else(short)?);
                self.at += len;
            } else {
                self.value = None;
                self.bit = self.at * 8;
                let len = usize::try_from(self.left).ok().and_then(|groups| groups.checked_mul(self.width));
                self.left = self.left.saturating_mul(8);
                // The last run may be cut where no more values are.
                self.at = len.and_then(|len| len.checked_add(self.at)).map_or(self.end, |at| at.min(self.end));
            }
        }
        self.left -= 1;
        let value = match self.value {
            Some(value) => value,
            None => {
                let value = bits(&self.bytes[..self.end], self.bit, self.width).ok_or_else(short)?;
                self.bit += self.width;
                value
            }
        };
        u32::try_from(value).map_err(|_| Stop::damaged("a page contradicts itself"))
    }
}

/// Whole numbers as differences (`DELTA_BINARY_PACKED`).
#[derive(Debug, Clone)]
struct Deltas {
    bytes: Bytes,
    at: usize,
    /// Values that are not given yet.
    left: u64,
    value: i64,
    first: bool,
    /// Values in a block's part.
    part: usize,
    parts: usize,
    /// The widths of the parts of this block that are still to come.
    widths: Vec<u8>,
    smallest: i64,
    width: usize,
    bit: usize,
    in_part: usize,
}

impl Deltas {
    fn new(bytes: &Bytes, mut at: usize) -> Result<Deltas, Stop> {
        let block = varint(bytes, &mut at)?;
        let parts = varint(bytes, &mut at)?;
        let left = varint(bytes, &mut at)?;
        let value = zigzag(varint(bytes, &mut at)?);
        let fits = (1..=1 << 20).contains(&block) && (1..=1 << 10).contains(&parts) && block % (parts * 8) == 0;
        if !fits {
            return Err(Stop::damaged("a page contradicts itself"));
        }
        let (part, parts) = ((block / parts) as usize, parts as usize);
        let (bytes, widths) = (Arc::clone(bytes), Vec::new());
        let start = (true, 0, 0, 0, 0);
        let (first, smallest, width, bit, in_part) = start;
        Ok(Deltas { bytes, at, left, value, first, part, parts, widths, smallest, width, bit, in_part })
    }

    fn next(&mut self) -> Result<i64, Stop> {
        self.left = self.left.checked_sub(1).ok_or_else(short)?;
        if std::mem::take(&mut self.first) {
            return Ok(self.value);
        }
        if self.in_part == 0 {
            if self.widths.is_empty() {
                self.smallest = zigzag(varint(&self.bytes, &mut self.at)?);
                let widths = self.bytes.get(self.at..self.at + self.parts).ok_or_else(short)?;
                self.widths = widths.iter().rev().copied().collect();
                self.at += self.parts;
            }
            self.width = usize::from(self.widths.pop().ok_or_else(short)?);
            if self.width > 64 {
                return Err(Stop::damaged("a page contradicts itself"));
            }
            self.bit = self.at * 8;
            self.at += self.width * self.part / 8;
            self.in_part = self.part;
        }
        let step = bits(&self.bytes, self.bit, self.width).ok_or_else(short)?;
        self.bit += self.width;
        self.in_part -= 1;
        self.value = self.value.wrapping_add(self.smallest).wrapping_add(step.cast_signed());
        Ok(self.value)
    }

    fn length(&mut self) -> Result<usize, Stop> {
        usize::try_from(self.next()?).map_err(|_| Stop::damaged("a value's length is less than nothing"))
    }

    /// Where the bytes behind these numbers begin.
    fn end(&self) -> Result<usize, Stop> {
        let mut to_end = self.clone();
        while to_end.left > 0 {
            to_end.next()?;
        }
        Ok(to_end.at)
    }
}

/// The values of a page, one after the other.
#[derive(Debug)]
pub(super) struct Values {
    physical: Physical,
    how: How,
    bytes: Bytes,
    at: usize,
    /// The value that was given last, where it lies nowhere as it is.
    own: Vec<u8>,
}

#[derive(Debug)]
enum How {
    Plain,
    Dictionary(Runs, Arc<Dictionary>),
    Bools(Runs),
    Deltas(Deltas),
    Lengths(Deltas),
    Prefixes(Deltas, Deltas),
    /// The first bytes of `count` values, then their second ones, up to the last of `width`.
    Split {
        begin: usize,
        count: usize,
        width: usize,
    },
}

/// Values that pages name by number.
#[derive(Debug)]
pub(super) struct Dictionary {
    bytes: Bytes,
    places: Vec<(u32, u32)>,
}

impl Dictionary {
    pub(super) fn new(page: Page, physical: Physical) -> Result<Dictionary, Stop> {
        let mut values = Values::new(&Arc::new(page.bytes), 0, physical, 0, 0, None)?;
        let mut places = Vec::new();
        for _ in 0..page.cells {
            let (at, len) = values.plain()?;
            places.push((at as u32, len as u32));
        }
        Ok(Dictionary { bytes: values.bytes, places })
    }
}

impl Values {
    /// The values in `bytes` from `at` on, at most `cells`.
    pub(super) fn new(
        bytes: &Bytes,
        at: usize,
        physical: Physical,
        encoding: i64,
        cells: u64,
        dictionary: Option<&Arc<Dictionary>>,
    ) -> Result<Values, Stop> {
        let mut start = at;
        let how = match (encoding, physical) {
            (0, _) => How::Plain,
            (2 | 8, _) => {
                let dictionary = dictionary.ok_or_else(|| Stop::damaged("a page's dictionary is missing"))?;
                // A page of nulls alone may have not even the width.
                let width = bytes.get(at).copied().unwrap_or(0);
                let at = (at + 1).min(bytes.len());
                How::Dictionary(Runs::new(bytes, at, bytes.len(), usize::from(width))?, Arc::clone(dictionary))
            }
            (3, Physical::Bool) => {
                // With their length before them.
                How::Bools(Runs::new(bytes, (at + 4).min(bytes.len()), bytes.len(), 1)?)
            }
            (5, Physical::Fixed(4 | 8)) if bytes.len() > at => How::Deltas(Deltas::new(bytes, at)?),
            (6, Physical::Bytes) if bytes.len() > at => {
                let lengths = Deltas::new(bytes, at)?;
                if lengths.left > cells {
                    return Err(Stop::damaged("a page contradicts itself"));
                }
                start = lengths.end()?;
                How::Lengths(lengths)
            }
            (7, Physical::Bytes | Physical::Fixed(_)) if bytes.len() > at => {
                let prefixes = Deltas::new(bytes, at)?;
                if prefixes.left > cells {
                    return Err(Stop::damaged("a page contradicts itself"));
                }
                let lengths = Deltas::new(bytes, prefixes.end()?)?;
                if lengths.left > cells {
                    return Err(Stop::damaged("a page contradicts itself"));
                }
                start = lengths.end()?;
                How::Prefixes(prefixes, lengths)
            }
            // Without any value there is nothing to read.
            (5..=7, _) if bytes.len() == at => How::Plain,
            (9, Physical::Fixed(width)) if bytes.len().saturating_sub(at).is_multiple_of(width) => {
                How::Split { begin: at, count: bytes.len().saturating_sub(at) / width, width }
            }
            _ => return Err(Stop::damaged(format!("its values are in encoding {encoding}, which is not read"))),
        };
        Ok(Values { physical, how, bytes: Arc::clone(bytes), at: start, own: Vec::new() })
    }

    /// Place and length of the next plain value.
    fn plain(&mut self) -> Result<(usize, usize), Stop> {
        let len = match self.physical {
            Physical::Fixed(len) => len,
            Physical::Bytes => {
                let len = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
                self.at += 4;
                u32::from_le_bytes(*len) as usize
            }
            Physical::Bool => return Err(Stop::damaged("a page contradicts itself")),
        };
        let range = take(&self.bytes, &mut self.at, len)?;
        Ok((range.start, len))
    }

    /// The next value's bytes; of a bool one byte.
    pub(super) fn next(&mut self) -> Result<&[u8], Stop> {
        if matches!(self.how, How::Plain) && self.physical != Physical::Bool {
            let (at, len) = self.plain()?;
            return Ok(&self.bytes[at..at + len]);
        }
        match &mut self.how {
            How::Plain => {
                // `own` holds how many of the byte's bits were taken.
                let taken = self.own.first().copied().unwrap_or(0);
                let byte = *self.bytes.get(self.at).ok_or_else(short)?;
                self.at += usize::from(taken == 7);
                self.own.clear();
                self.own.push((taken + 1) % 8);
                return Ok(if byte >> taken & 1 == 0 { &[0] } else { &[1] });
            }
            How::Bools(runs) => return Ok(if runs.next()? == 0 { &[0] } else { &[1] }),
            How::Dictionary(runs, dictionary) => {
                let place = dictionary.places.get(runs.next()? as usize);
                let (at, len) = place.ok_or_else(|| Stop::damaged("a value is not in its dictionary"))?;
                return Ok(&dictionary.bytes[*at as usize..][..*len as usize]);
            }
            How::Lengths(lengths) => {
                let range = take(&self.bytes, &mut self.at, lengths.length()?)?;
                return Ok(&self.bytes[range]);
            }
            How::Deltas(deltas) => {
                let value = deltas.next()?.to_le_bytes();
                self.own.clear();
                self.own.extend_from_slice(if self.physical == Physical::Fixed(4) { &value[..4] } else { &value });
            }
            How::Prefixes(prefixes, lengths) => {
                let (prefix, len) = (prefixes.length()?, lengths.length()?);
                let range = take(&self.bytes, &mut self.at, len)?;
                let fits = match self.physical {
                    Physical::Fixed(whole) => prefix.checked_add(len) == Some(whole),
                    _ => true,
                };
                if prefix > self.own.len() || !fits {
                    return Err(Stop::damaged("a page contradicts itself"));
                }
                self.own.truncate(prefix);
                self.own.extend_from_slice(&self.bytes[range]);
            }
            How::Split { begin, count, width } => {
                // The n-th bytes of all values lie together.
                let index = self.at - *begin;
                if index >= *count {
                    return Err(short());
                }
                self.own.clear();
                self.own.extend((0..*width).map(|k| self.bytes[*begin + k * *count + index]));
                self.at += 1;
            }
        }
        Ok(&self.own)
    }
}

/// The range of the next `len` bytes from `at`, which goes on behind them.
fn take(bytes: &[u8], at: &mut usize, len: usize) -> Result<std::ops::Range<usize>, Stop> {
    let end = at.checked_add(len).filter(|end| *end <= bytes.len()).ok_or_else(short)?;
    let range = *at..end;
    *at = end;
    Ok(range)
}
