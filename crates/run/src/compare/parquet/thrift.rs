//! Thrift's compact protocol, as far as Parquet uses it: read field by field, unknown fields skipped.
//!
//! Source: Apache Thrift's `thrift-compact-protocol.md`.

use super::super::model::Stop;

/// Structs within structs are followed this deep.
const DEPTH_MAX: usize = 32;

/// Bytes that are read from the front.
pub(super) struct Thrift<'a> {
    rest: &'a [u8],
    depth: usize,
}

/// The type of a field or of a list's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    True,
    False,
    Byte,
    Int,
    Double,
    Binary,
    List,
    Map,
    Struct,
}

impl Kind {
    fn of(code: u8) -> Result<Kind, Stop> {
        Ok(match code {
            1 => Kind::True,
            2 => Kind::False,
            3 => Kind::Byte,
            4..=6 => Kind::Int,
            7 => Kind::Double,
            8 => Kind::Binary,
            9 | 10 => Kind::List,
            11 => Kind::Map,
            12 => Kind::Struct,
            _ => return Err(Stop::damaged("its metadata has a field of an unknown type")),
        })
    }
}

/// Metadata that ends too early.
pub(super) fn cut() -> Stop {
    Stop::damaged("its metadata is cut off")
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Thrift<'a> {
        Thrift { rest: bytes, depth: 0 }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let (first, rest) = self.rest.split_first().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::damaged("its metadata has a number that is too long"))
    }

    /// A number of a field or element of this kind.
    pub(super) fn int(&mut self, kind: Kind) -> Result<i64, Stop> {
        match kind {
            Kind::Byte => Ok(i64::from(self.byte()?.cast_signed())),
            Kind::Int => self.varint().map(|n| (n >> 1).cast_signed() ^ -(n & 1).cast_signed()),
            _ => Err(Stop::damaged("its metadata has something else where a number is expected")),
        }
    }

    /// Bytes of a field or element of this kind.
    pub(super) fn binary(&mut self, kind: Kind) -> Result<&'a [u8], Stop> {
        if kind != Kind::Binary {
            return Err(Stop::damaged("its metadata has something else where a text is expected"));
        }
        let len = usize::try_from(self.varint()?).map_err(|_| cut())?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(cut)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A text of a field or element of this kind.
    pub(super) fn text(&mut self, kind: Kind) -> Result<String, Stop> {
        Ok(String::from_utf8_lossy(self.binary(kind)?).into_owned())
    }

    /// Hands each element of a list to `each`, with its kind.
    pub(super) fn list(
        &mut self,
        kind: Kind,
        mut each: impl FnMut(&mut Thrift<'a>, Kind) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if kind != Kind::List {
            return Err(Stop::damaged("its metadata has something else where a list is expected"));
        }
        let head = self.byte()?;
        let of = Kind::of(head & 15)?;
        let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        // Each element takes a byte at least.
        if len > self.rest.len() as u64 {
            return Err(cut());
        }
        (0..len).try_for_each(|_| each(self, of))
    }

    /// Hands each field of a struct to `each`, with its number and kind. What `each` says it does not know is skipped.
    pub(super) fn fields(
        &mut self,
        kind: Kind,
        mut each: impl FnMut(&mut Thrift<'a>, i16, Kind) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        if kind != Kind::Struct {
            return Err(Stop::damaged("its metadata has something else where a struct is expected"));
        }
        if self.depth >= DEPTH_MAX {
            return Err(Stop::damaged("its metadata is too deep"));
        }
        self.depth += 1;
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                self.depth -= 1;
                return Ok(());
            }
            let kind = Kind::of(head & 15)?;
            id = match head >> 4 {
                0 => i16::try_from(self.int(Kind::Int)?).map_err(|_| cut())?,
                step => id.checked_add(i16::from(step)).ok_or_else(cut)?,
            };
            if !each(self, id, kind)? {
                self.skip(kind, false)?;
            }
        }
    }

    /// Passes over a value; a bool takes a byte in lists and maps alone.
    fn skip(&mut self, kind: Kind, element: bool) -> Result<(), Stop> {
        match kind {
            Kind::True | Kind::False if element => self.byte().map(drop),
            Kind::True | Kind::False => Ok(()),
            Kind::Byte => self.byte().map(drop),
            Kind::Int => self.varint().map(drop),
            Kind::Double => {
                self.rest = self.rest.get(8..).ok_or_else(cut)?;
                Ok(())
            }
            Kind::Binary => self.binary(kind).map(drop),
            Kind::List => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(Stop::damaged("its metadata is too deep"));
                }
                self.list(kind, |thrift, of| thrift.skip(of, true))?;
                self.depth -= 1;
                Ok(())
            }
            // Parquet has no maps.
            Kind::Map => Err(Stop::damaged("its metadata has a map")),
            Kind::Struct => self.fields(kind, |_, _, _| Ok(false)),
        }
    }
}
