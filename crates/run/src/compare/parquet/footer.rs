//! What a Parquet file says of itself at its end: its columns, and where their chunks lie.
//!
//! Source: `parquet.thrift` and `LogicalTypes.md` of the format's repository.

use super::super::array::{F16, F32, F64, Scalar};
use super::super::blob::Blob;
use super::super::model::{Facts, Stop};
use super::super::report::NoiseKind;
use super::thrift::{Kind, Thrift};
use std::collections::BTreeSet;
use trainlock_types::Digest;

/// Longer metadata is not read.
const FOOTER_MAX: u32 = 64 << 20;
/// Groups within groups are followed this deep.
const DEPTH_MAX: usize = 64;
/// More names than this are not kept, counted with the names of the groups that they lie in.
const NAMES_MAX: usize = 64 << 20;

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Physical {
    Bool,
    /// Numbers and byte strings of one length.
    Fixed(usize),
    /// Byte strings, each with its length.
    Bytes,
}

/// A column: a leaf of the schema.
#[derive(Debug)]
pub(super) struct Column {
    /// Names from the top, joined by dots.
    pub(super) name: String,
    /// Its type and where it repeats or may be null; two of one name hold the same kinds of values.
    pub(super) dtype: String,
    pub(super) physical: Physical,
    /// What a value of fixed length is, for people.
    pub(super) scalar: Option<Scalar>,
    pub(super) max_definition: u32,
    pub(super) max_repetition: u32,
    /// One for each row group.
    pub(super) chunks: Vec<Chunk>,
}

/// A column's part in a row group.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub(super) codec: i64,
    /// Where its first page begins.
    pub(super) start: u64,
    /// Values, nulls among them.
    pub(super) cells: u64,
    pub(super) rows: u64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
    pub(super) facts: Facts,
}

#[derive(Default)]
struct Element {
    physical: Option<i64>,
    length: i64,
    repetition: i64,
    name: String,
    children: i64,
    converted: Option<i64>,
    scale: i64,
    precision: i64,
    logical: Option<String>,
}

/// Reads the metadata at the end of `blob`.
pub(super) fn read(blob: &Blob) -> Result<Footer, Stop> {
    let tail = blob.len().checked_sub(8).map(|at| blob.bytes(at, 8)).transpose()?.flatten();
    let len = match tail.as_deref() {
        Some([a, b, c, d, b'P', b'A', b'R', b'1']) => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => return Err(Stop::damaged("its end is no Parquet footer")),
    };
    if len > FOOTER_MAX {
        return Err(Stop::damaged("its metadata is too long"));
    }
    let start = blob.len().checked_sub(8 + u64::from(len)).filter(|start| *start >= 4);
    let start = start.ok_or_else(|| Stop::damaged("its metadata is longer than the file"))?;
    let bytes = blob.some(start, len as usize)?;
    let mut thrift = Thrift::new(&bytes);
    let (mut rows, mut elements, mut groups) = (0, Vec::new(), Vec::new());
    let (mut writer, mut keys) = (String::new(), Vec::new());
    thrift.fields(Kind::Struct, |thrift, id, kind| {
        match id {
            2 => thrift.list(kind, |thrift, kind| {
                elements.push(element(thrift, kind)?);
                Ok(())
            })?,
            3 => rows = count(thrift.int(kind)?)?,
            4 => thrift.list(kind, |thrift, kind| {
                groups.push(group(thrift, kind)?);
                Ok(())
            })?,
            5 => thrift.list(kind, |thrift, kind| {
                let (mut key, mut value) = (String::new(), &[][..]);
                thrift.fields(kind, |thrift, id, kind| {
                    match id {
                        1 => key = thrift.text(kind)?,
                        2 => value = thrift.binary(kind)?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                keys.push(format!("{key} {}", &Digest::of(value).to_hex()[..8]));
                Ok(())
            })?,
            6 => writer = thrift.text(kind)?,
            8 => return Err(Stop::damaged("it is encrypted")),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut columns = schema(&elements)?;
    let mut codecs = BTreeSet::new();
    let groups_count = groups.len();
    let mut all: u64 = 0;
    for (chunks, rows) in groups {
        all = all.saturating_add(rows);
        if chunks.len() != columns.len() {
            return Err(Stop::damaged("a row group has not the columns of the schema"));
        }
        for (column, chunk) in columns.iter_mut().zip(chunks) {
            codecs.insert(codec_name(chunk.codec));
            column.chunks.push(Chunk { rows, ..chunk });
        }
    }
    if all != rows {
        return Err(Stop::damaged("its row groups have not as many rows as the file"));
    }
    keys.sort();
    let codecs: Vec<&str> = codecs.into_iter().collect();
    let plural = if groups_count == 1 { "" } else { "s" };
    let facts = vec![
        (NoiseKind::Version, writer),
        (NoiseKind::Compression, format!("{} in {groups_count} row group{plural}", codecs.join(" and "))),
        (NoiseKind::Extra, keys.join(", ")),
    ];
    Ok(Footer { rows, columns, facts })
}

/// What a compression codec is called.
pub(super) fn codec_name(codec: i64) -> &'static str {
    match codec {
        0 => "uncompressed",
        1 => "snappy",
        2 => "gzip",
        3 => "LZO",
        4 => "brotli",
        5 => "LZ4 of Hadoop",
        6 => "zstd",
        7 => "lz4",
        _ => "an unknown codec",
    }
}

fn count(n: i64) -> Result<u64, Stop> {
    u64::try_from(n).map_err(|_| Stop::damaged("it counts less than nothing"))
}

fn group(thrift: &mut Thrift<'_>, kind: Kind) -> Result<(Vec<Chunk>, u64), Stop> {
    let (mut chunks, mut rows) = (Vec::new(), 0);
    thrift.fields(kind, |thrift, id, kind| {
        match id {
            1 => thrift.list(kind, |thrift, kind| {
                chunks.push(chunk(thrift, kind)?);
                Ok(())
            })?,
            3 => rows = count(thrift.int(kind)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((chunks, rows))
}

fn chunk(thrift: &mut Thrift<'_>, kind: Kind) -> Result<Chunk, Stop> {
    let mut chunk = Chunk::default();
    let mut found = false;
    thrift.fields(kind, |thrift, id, kind| {
        match id {
            1 => return Err(Stop::damaged("its columns lie in other files")),
            3 => {
                found = true;
                let (mut data, mut dictionary) = (0, 0);
                thrift.fields(kind, |thrift, id, kind| {
                    match id {
                        4 => chunk.codec = thrift.int(kind)?,
                        5 => chunk.cells = count(thrift.int(kind)?)?,
                        9 => data = count(thrift.int(kind)?)?,
                        11 => dictionary = count(thrift.int(kind)?)?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                // Some writers say 0 where there is no dictionary.
                chunk.start = if dictionary > 0 { data.min(dictionary) } else { data };
            }
            8 | 9 => return Err(Stop::damaged("it is encrypted")),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if found { Ok(chunk) } else { Err(Stop::damaged("a column has no metadata")) }
}

fn element(thrift: &mut Thrift<'_>, kind: Kind) -> Result<Element, Stop> {
    let mut element = Element::default();
    thrift.fields(kind, |thrift, id, kind| {
        match id {
            1 => element.physical = Some(thrift.int(kind)?),
            2 => element.length = thrift.int(kind)?,
            3 => element.repetition = thrift.int(kind)?,
            4 => element.name = thrift.text(kind)?,
            5 => element.children = thrift.int(kind)?,
            6 => element.converted = Some(thrift.int(kind)?),
            7 => element.scale = thrift.int(kind)?,
            8 => element.precision = thrift.int(kind)?,
            10 => element.logical = Some(logical(thrift, kind)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

/// A logical type's name with its parameters.
fn logical(thrift: &mut Thrift<'_>, kind: Kind) -> Result<String, Stop> {
    let mut name = String::new();
    thrift.fields(kind, |thrift, id, kind| {
        name = match id {
            5 => {
                let (mut scale, mut precision) = (0, 0);
                thrift.fields(kind, |thrift, id, kind| {
                    match id {
                        1 => scale = thrift.int(kind)?,
                        2 => precision = thrift.int(kind)?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                format!("decimal({precision}, {scale})")
            }
            7 | 8 => {
                let (mut utc, mut unit) = (false, "");
                thrift.fields(kind, |thrift, id, kind| {
                    match id {
                        1 => utc = kind == Kind::True,
                        2 => thrift.fields(kind, |_, id, _| {
                            unit = ["ms", "us", "ns"].get(id as usize - 1).copied().unwrap_or("?");
                            Ok(false)
                        })?,
                        _ => return Ok(false),
                    }
                    Ok(id == 2 || kind == Kind::True || kind == Kind::False)
                })?;
                format!("{}[{unit}{}]", if id == 7 { "time" } else { "timestamp" }, if utc { ", UTC" } else { "" })
            }
            10 => {
                let (mut bits, mut signed) = (0, false);
                thrift.fields(kind, |thrift, id, kind| {
                    match id {
                        1 => bits = thrift.int(kind)?,
                        2 => signed = kind == Kind::True,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                format!("{}int{bits}", if signed { "" } else { "u" })
            }
            _ => {
                let known = match id {
                    1 => "string",
                    2 => "map",
                    3 => "list",
                    4 => "enum",
                    6 => "date",
                    11 => "null",
                    12 => "json",
                    13 => "bson",
                    14 => "uuid",
                    15 => "float16",
                    _ => "",
                };
                name = if known.is_empty() { format!("logical type {id}") } else { known.to_owned() };
                return Ok(false);
            }
        };
        Ok(true)
    })?;
    Ok(name)
}

impl Element {
    /// The logical type, also where an older writer named it in the older way.
    fn meaning(&self) -> Option<String> {
        let converted = |code: i64| {
            Some(match code {
                0 => "string".to_owned(),
                1 | 2 => "map".to_owned(),
                3 => "list".to_owned(),
                4 => "enum".to_owned(),
                5 => format!("decimal({}, {})", self.precision, self.scale),
                6 => "date".to_owned(),
                7 => "time[ms, UTC]".to_owned(),
                8 => "time[us, UTC]".to_owned(),
                9 => "timestamp[ms, UTC]".to_owned(),
                10 => "timestamp[us, UTC]".to_owned(),
                11..=14 => format!("uint{}", 8 << (code - 11)),
                15..=18 => format!("int{}", 8 << (code - 15)),
                19 => "json".to_owned(),
                20 => "bson".to_owned(),
                _ => return None,
            })
        };
        self.logical.clone().or_else(|| self.converted.and_then(converted))
    }
}

/// The leaves of the schema, which is listed depth first.
fn schema(elements: &[Element]) -> Result<Vec<Column>, Stop> {
    let wrong = || Stop::damaged("its schema contradicts itself");
    let (top, elements) = elements.split_first().ok_or_else(wrong)?;
    /// A group that is being read.
    struct Open {
        left: i64,
        name: String,
        levels: (u32, u32),
        path: Vec<&'static str>,
        /// A list or map, or the repeated group in one: their names below differ between writers.
        below: Option<&'static str>,
    }
    let mut open =
        vec![Open { left: top.children, name: String::new(), levels: (0, 0), path: Vec::new(), below: None }];
    let mut columns = Vec::new();
    let mut kept = 0;
    for element in elements {
        while open.last().is_some_and(|group| group.left == 0) {
            open.pop();
        }
        let parent = open.last_mut().ok_or_else(wrong)?;
        parent.left -= 1;
        let repeated = element.repetition == 2;
        // `list.item`, `bag.array_element`, `key_value` or `map`: what the names are says nothing.
        let (own, below) = match parent.below {
            Some("list") if repeated && element.children == 1 => ("list", Some("element")),
            Some("map") if repeated && element.children > 0 => ("key_value", None),
            Some("element") => ("element", None),
            _ => (element.name.as_str(), None),
        };
        let meaning = element.meaning();
        let below = below.or(match meaning.as_deref() {
            Some("list") => Some("list"),
            Some("map") => Some("map"),
            _ => None,
        });
        let name = if parent.name.is_empty() { own.to_owned() } else { format!("{}.{own}", parent.name) };
        kept += name.len();
        let mut path = parent.path.clone();
        path.push(["required", "optional", "repeated"].get(element.repetition as usize).ok_or_else(wrong)?);
        let levels = (parent.levels.0 + u32::from(element.repetition != 0), parent.levels.1 + u32::from(repeated));
        if open.len() > DEPTH_MAX || kept > NAMES_MAX {
            return Err(Stop::damaged("its schema is too large"));
        }
        if element.physical.is_none() {
            if element.children < 0 {
                return Err(wrong());
            }
            open.push(Open { left: element.children, name, levels, path, below });
            continue;
        }
        let fixed = usize::try_from(element.length).ok().filter(|n| (1..=1 << 20).contains(n));
        let (plain, physical) = match element.physical {
            Some(0) => ("bool", Physical::Bool),
            Some(1) => ("int32", Physical::Fixed(4)),
            Some(2) => ("int64", Physical::Fixed(8)),
            Some(3) => ("int96", Physical::Fixed(12)),
            Some(4) => ("float32", Physical::Fixed(4)),
            Some(5) => ("float64", Physical::Fixed(8)),
            Some(6) => ("bytes", Physical::Bytes),
            Some(7) => ("fixed", Physical::Fixed(fixed.ok_or_else(wrong)?)),
            _ => return Err(wrong()),
        };
        let mut dtype = match meaning {
            // A plain 32-bit number may be said to be one.
            Some(meaning) if meaning != plain => format!("{meaning} as {plain}"),
            _ => plain.to_owned(),
        };
        if plain == "fixed" {
            dtype.push_str(&element.length.to_string());
        }
        match path[..] {
            ["required"] => dtype.push_str(" without nulls"),
            ["optional"] => {}
            _ => dtype.push_str(&format!(" ({})", path.join(" "))),
        }
        let int = |bytes| Scalar::Int { bytes, signed: !dtype.starts_with('u') };
        let scalar = match physical {
            Physical::Bool => Some(Scalar::Bool),
            Physical::Fixed(n) => Some(match plain {
                "int32" | "int64" => int(n),
                "float32" => Scalar::Float(F32),
                "float64" => Scalar::Float(F64),
                _ if n == 2 && dtype.starts_with("float16") => Scalar::Float(F16),
                _ => Scalar::Raw(n),
            }),
            Physical::Bytes => None,
        };
        let (max_definition, max_repetition) = levels;
        let chunks = Vec::new();
        columns.push(Column { name, dtype, physical, scalar, max_definition, max_repetition, chunks });
    }
    if open.iter().any(|group| group.left != 0) {
        return Err(wrong());
    }
    Ok(columns)
}
