//! numpy's .npy files, versions 1 to 3.
//!
//! Source: numpy's `numpy/lib/_format_impl.py` (NEP 1): the magic, two bytes of version, the header's length
//! (two bytes, from version 2 on four), and a Python literal of a dictionary with `descr`, `fortran_order`
//! and `shape`. An array of objects is followed by a pickle.

use super::array::{Array, BF16, Dtype, F16, F32, F64, Scalar};
use super::blob::Blob;
use super::literal::{Literal, parse};
use super::model::{Body, Opened, Stop};
use super::pickle;
use super::report::NoiseKind;

const MAGIC: &[u8] = b"\x93NUMPY";
const HEADER_MAX: usize = 1 << 20;

pub(super) fn is_npy(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let cut = || Stop::damaged("its header is cut off");
    let head = blob.bytes(0, 12)?.ok_or_else(cut)?;
    let (start, len) = match head[6] {
        1 => (10, usize::from(u16::from_le_bytes([head[8], head[9]]))),
        2 | 3 => (12, u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize),
        n => return Err(Stop::damaged(format!("version {n} of the npy format is not known"))),
    };
    if len > HEADER_MAX {
        return Err(Stop::damaged("its header is too long"));
    }
    let header = blob.bytes(start, len)?.ok_or_else(cut)?;
    let text = String::from_utf8_lossy(&header);
    let header = parse(&text)?;
    let (Some(descr), Some(Literal::Bool(fortran)), Some(Literal::Tuple(shape))) =
        (header.get("descr"), header.get("fortran_order"), header.get("shape"))
    else {
        return Err(Stop::damaged("its header lacks descr, fortran_order or shape"));
    };
    let shape = shape
        .iter()
        .map(|n| if let Literal::Int(n) = n { u64::try_from(*n).ok() } else { None })
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| Stop::damaged("its shape is not one"))?;
    let data = blob.from(start + len as u64).ok_or_else(cut)?;
    let facts = vec![(NoiseKind::Version, format!("npy {}.{}", head[6], head[7]))];
    if has_objects(descr) {
        let mut opened = pickle::open(&data)?;
        opened.what = "an npy array of objects";
        opened.facts.extend(facts);
        return Ok(opened);
    }
    let array = Array::new(dtype(descr, 0)?, shape, *fortran, data)?;
    Ok(Opened { what: "an npy array", facts, body: Body::Array(Box::new(array)) })
}

fn has_objects(descr: &Literal) -> bool {
    match descr {
        Literal::Str(text) => matches!(text.trim_start_matches(['<', '>', '|', '=']).as_bytes(), [b'O', ..]),
        Literal::List(items) | Literal::Tuple(items) => items.iter().any(has_objects_field),
        _ => false,
    }
}

fn has_objects_field(field: &Literal) -> bool {
    matches!(field, Literal::Tuple(parts) if parts.get(1).is_some_and(has_objects))
}

/// The element type that a `descr` stands for.
fn dtype(descr: &Literal, depth: usize) -> Result<Dtype, Stop> {
    let wrong = || Stop::damaged("its element type is not known");
    match descr {
        Literal::Str(text) => simple(text),
        // A type with a shape: (type, (2, 3)).
        Literal::Tuple(parts) if parts.len() == 2 && depth < 8 => {
            let inner = dtype(&parts[0], depth + 1)?;
            let count = count(&parts[1]).ok_or_else(wrong)?;
            let size = inner.size.checked_mul(count).ok_or_else(wrong)?;
            Dtype::structured(&[("item".to_owned(), 0, inner, count)], size)
        }
        Literal::List(fields) if depth < 8 => {
            let mut offset: usize = 0;
            let mut out = Vec::new();
            for field in fields {
                let Literal::Tuple(parts) = field else { return Err(wrong()) };
                let name = match parts.first() {
                    Some(Literal::Str(name)) => name.clone(),
                    // (title, name)
                    Some(Literal::Tuple(names)) => match names.get(1) {
                        Some(Literal::Str(name)) => name.clone(),
                        _ => return Err(wrong()),
                    },
                    _ => return Err(wrong()),
                };
                let inner = dtype(parts.get(1).ok_or_else(wrong)?, depth + 1)?;
                let times = parts.get(2).map_or(Some(1), count).ok_or_else(wrong)?;
                let size = inner.size.checked_mul(times).ok_or_else(wrong)?;
                let end = offset.checked_add(size).ok_or_else(wrong)?;
                // numpy names the padding of an aligned type by an empty text.
                if !name.is_empty() {
                    out.push((name, offset, inner, times));
                }
                offset = end;
            }
            Dtype::structured(&out, offset)
        }
        _ => Err(wrong()),
    }
}

fn count(shape: &Literal) -> Option<usize> {
    match shape {
        Literal::Int(n) => usize::try_from(*n).ok(),
        Literal::Tuple(items) => items.iter().try_fold(1, |n: usize, item| n.checked_mul(count(item)?)),
        _ => None,
    }
}

/// The type of a text like `<f8`, `|S3` or `<M8[ns]`.
pub(super) fn simple(text: &str) -> Result<Dtype, Stop> {
    let wrong = || Stop::damaged(format!("its element type {text:?} is not known"));
    let big = text.starts_with('>');
    let code = text.trim_start_matches(['<', '>', '|', '=']);
    if matches!(code, "bfloat16") {
        return Ok(Dtype::scalar(Scalar::Float(BF16), big));
    }
    let kind = code.chars().next().filter(char::is_ascii).ok_or_else(wrong)?;
    let (digits, unit) = match code[1..].find('[') {
        Some(at) => code[1..].split_at(at),
        None => (&code[1..], ""),
    };
    let n: usize = match digits {
        "" if kind == '?' => 1,
        digits => digits.parse().ok().filter(|n| *n < 1 << 24).ok_or_else(wrong)?,
    };
    let scalar = match (kind, n) {
        ('b' | '?', 1) => Scalar::Bool,
        ('i' | 'u', 1 | 2 | 4 | 8) => Scalar::Int { bytes: n, signed: kind == 'i' },
        ('f', 2) => Scalar::Float(F16),
        ('f', 4) => Scalar::Float(F32),
        ('f', 8) => Scalar::Float(F64),
        ('c', 8) => Scalar::Complex(F32),
        ('c', 16) => Scalar::Complex(F64),
        // The long double of the machine: its padding is not told apart.
        ('f' | 'c', 12 | 16 | 24 | 32) => return Ok(Dtype::named(&format!("long double {code}"), Scalar::Raw(n), big)),
        ('M', 8) => return Ok(Dtype::named(&format!("datetime64{unit}"), Scalar::Int { bytes: 8, signed: true }, big)),
        ('m', 8) => {
            return Ok(Dtype::named(&format!("timedelta64{unit}"), Scalar::Int { bytes: 8, signed: true }, big));
        }
        ('U', n) => Scalar::Text(n),
        ('S' | 'a', n) => Scalar::Chars(n),
        ('V', n) => Scalar::Raw(n),
        _ => return Err(wrong()),
    };
    Ok(Dtype::scalar(scalar, big))
}
