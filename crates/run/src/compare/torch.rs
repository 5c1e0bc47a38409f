//! torch's zip files (`torch.save`): `NAME/data.pkl` beside `NAME/data/N`, the storages.
//!
//! Source: torch's `torch/serialization.py` (`_save`, `_load`) and `torch/_utils.py` (`_rebuild_tensor_v2`).
//! `NAME` comes from the file's own name and is noise.

use super::array::{Array, BF16, Dtype, F8_E4M3, F8_E5M2, F16, F32, F64, Scalar};
use super::blob::Blob;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::pickle::{self, Storages};
use super::report::NoiseKind;
use super::zip;
use std::collections::HashMap;

fn top(members: &[Member]) -> Option<&str> {
    let mut data = members.iter().filter_map(|member| member.name.strip_suffix("/data.pkl"));
    data.next().filter(|top| !top.contains('/'))
}

pub(super) fn is_torch(members: &[Member]) -> bool {
    !zip::has_twins(members)
        && top(members).is_some_and(|top| {
            members.iter().all(|m| m.name.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')))
        })
}

/// Opens the members of an archive that is torch's.
pub(super) fn open(mut members: Vec<Member>, mut facts: Facts) -> Result<Opened, Stop> {
    let top = top(&members).unwrap_or_default().to_owned();
    for member in &mut members {
        member.name.drain(..=top.len());
        // The padding that aligns the storages depends on the length of the archive's name.
        member.facts.retain(|fact| fact.0 != NoiseKind::Extra);
    }
    facts.push((NoiseKind::ContainerName, top));
    let mut storages = Storages { big: false, blobs: HashMap::new(), used: Default::default() };
    for member in &members {
        if let Some(key) = member.name.strip_prefix("data/") {
            storages.blobs.insert(key.to_owned(), content(&member.part)?);
        } else if member.name == "byteorder" {
            storages.big = content(&member.part)?.some(0, 3)? == b"big";
        }
    }
    let mut out = Vec::with_capacity(members.len());
    for mut member in members {
        match member.name.as_str() {
            "data.pkl" => {
                let mut opened = pickle::open_with(&content(&member.part)?, Some(&mut storages))?;
                opened.facts.append(&mut member.facts);
                // What is in it is the file's own content: its keys need no member's name before them.
                member.name = String::new();
                member.part = Part::Opened(Box::new(opened));
            }
            // A number made of the other members' names and checksums.
            ".data/serialization_id" => continue,
            "version" | ".format_version" | ".storage_alignment" => {
                let text = String::from_utf8_lossy(&content(&member.part)?.some(0, 40)?).trim().to_owned();
                facts.push((NoiseKind::Version, format!("{} {text}", member.name)));
                continue;
            }
            _ => {}
        }
        out.push(member);
    }
    // A storage whose tensors are all compared in their places says nothing more.
    out.retain(|member| member.name.strip_prefix("data/").is_none_or(|key| !storages.used.contains(key)));
    Ok(Opened { what: "a torch file", facts, body: Body::Members(out) })
}

fn content(part: &Part) -> Result<Blob, Stop> {
    match part {
        Part::Unopened(blob) => Ok(blob.clone()),
        Part::Packed(codec, packed) => codec.unpack(packed),
        Part::Opened(_) => Err(Stop::damaged("a torch file with an unexpected member")),
    }
}

/// The element type of a storage class, like `FloatStorage`.
fn storage_type(class: &str, big: bool) -> Option<Dtype> {
    let int = |bytes, signed| Scalar::Int { bytes, signed };
    let scalar = match class.rsplit('.').next()? {
        "DoubleStorage" | "float64" => Scalar::Float(F64),
        "FloatStorage" | "float32" => Scalar::Float(F32),
        "HalfStorage" | "float16" => Scalar::Float(F16),
        "BFloat16Storage" | "bfloat16" => Scalar::Float(BF16),
        "float8_e4m3fn" => Scalar::Float(F8_E4M3),
        "float8_e5m2" => Scalar::Float(F8_E5M2),
        "LongStorage" | "int64" => int(8, true),
        "IntStorage" | "int32" => int(4, true),
        "ShortStorage" | "int16" => int(2, true),
        "CharStorage" | "int8" => int(1, true),
        "ByteStorage" | "uint8" | "UntypedStorage" => int(1, false),
        "uint16" => int(2, false),
        "uint32" => int(4, false),
        "uint64" => int(8, false),
        "BoolStorage" | "bool" => Scalar::Bool,
        "ComplexFloatStorage" | "complex64" => Scalar::Complex(F32),
        "ComplexDoubleStorage" | "complex128" => Scalar::Complex(F64),
        _ => return None,
    };
    Some(Dtype::scalar(scalar, big))
}

/// A tensor on a storage, if its elements lie there one after the other in the order of its indices.
pub(super) fn tensor(
    class: &str,
    big: bool,
    storage: &Blob,
    offset: u64,
    shape: Vec<u64>,
    stride: &[u64],
) -> Option<Array> {
    let dtype = storage_type(class, big)?;
    let mut expected: u64 = 1;
    for (n, step) in shape.iter().zip(stride).rev() {
        if *n != 1 && *step != expected {
            return None;
        }
        expected = expected.checked_mul(*n)?;
    }
    let bytes = Array::size(&dtype, &shape).ok()?;
    let data = storage.slice(offset.checked_mul(dtype.size as u64)?, bytes)?;
    Array::new(dtype, shape, false, data).ok()
}
