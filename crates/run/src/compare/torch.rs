//! torch's files (`torch.save`): zips with `NAME/data.pkl` beside `NAME/data/N`, the storages; and the older form, pickles
//! with the storages behind them.
//!
//! Source: torch's `torch/serialization.py` (`_save`, `_load`, `_legacy_save`) and `torch/_utils.py` (`_rebuild_tensor_v2`).
//! `NAME` comes from the file's own name and is noise. So are the keys of storages in the older form: they are addresses.

use super::array::{Array, BF16, Dtype, F8_E4M3, F8_E5M2, F16, F32, F64, Scalar};
use super::blob::Blob;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::pickle::{self, Storages};
use super::report::NoiseKind;
use super::tree::{Id, Node, Tree};
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
    let mut storages = Storages { big: false, blobs: HashMap::new(), ordered: 0, used: Default::default() };
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
    // A storage whose tensors are compared in their places says nothing more.
    out.retain(|member| member.name.strip_prefix("data/").is_none_or(|key| !storages.used.contains(key)));
    Ok(Opened { what: "a torch file", facts, body: Body::Members(out) })
}

/// Whether a file begins as the older form does: with a pickle of this number alone.
pub(super) fn is_legacy(head: &[u8]) -> bool {
    matches!(head, [0x80, _, rest @ ..] if rest.starts_with(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."))
}

/// Opens the older form: the number, a version, facts of the machine, the object, the storages' keys; then each storage.
pub(super) fn open_legacy(blob: &Blob) -> Result<Opened, Stop> {
    let wrong = || Stop::damaged("the torch file is cut off or contradicts itself");
    let (trees, mut at) = pickle::several(blob, None, 5)?;
    let [_, _, machine, object, keys] = trees.as_slice() else { return Err(wrong()) };
    let mut storages = Storages { big: is_big(machine), blobs: HashMap::new(), ordered: 0, used: Default::default() };
    // A storage's length is counted in elements, whose size its class tells. The keys are numbered in the order of their
    // first mention, as the zips have them.
    let (mut classes, mut numbers) = (HashMap::new(), HashMap::new());
    for (class, key) in mentions(object) {
        let (Node::Global(class), Node::Str(key)) = (object.node(class), object.node(key)) else { continue };
        let next = numbers.len();
        numbers.entry(key.clone()).or_insert(next);
        classes.insert(key.clone(), class.clone());
    }
    let Node::List(_, keys_of) = keys.node(keys.root) else { return Err(wrong()) };
    for key in keys_of {
        let Node::Str(key) = keys.node(*key) else { return Err(wrong()) };
        let dtype = classes.get(key).and_then(|class| storage_type(class, storages.big));
        let size = dtype.ok_or_else(|| Stop::damaged("a torch storage of an unknown type"))?.size as u64;
        let count = blob.bytes(at, 8)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let len = count.and_then(|count| count.checked_mul(size)).ok_or_else(wrong)?;
        let data = blob.slice(at + 8, len).ok_or_else(wrong)?;
        at += 8 + len;
        storages.blobs.insert(key.clone(), data);
    }
    if at != blob.len() {
        return Err(wrong());
    }
    let (mut trees, _) = pickle::several(blob, Some(&mut storages), 4)?;
    let mut tree = trees.pop().ok_or_else(wrong)?;
    for (_, key) in mentions(&tree) {
        if let Node::Str(key) = &mut tree.nodes[key as usize]
            && let Some(number) = numbers.get(key)
        {
            *key = number.to_string();
        }
    }
    let opened = |what, body| Part::Opened(Box::new(Opened { what, facts: Facts::new(), body }));
    let member = |name: String, part| Member { name, facts: Facts::new(), attributes: Vec::new(), part };
    let mut members = vec![member(String::new(), opened("a pickle", Body::Tree(Box::new(tree))))];
    let mut rest: Vec<_> = storages.blobs.into_iter().filter(|(key, _)| !storages.used.contains(key)).collect();
    rest.sort_by_key(|(key, _)| numbers.get(key).copied());
    for (key, data) in rest {
        let number = numbers.get(&key).copied().unwrap_or_default();
        members.push(member(format!("data/{number}"), opened("a storage", Body::Bytes(data))));
    }
    Ok(Opened { what: "a torch file of the older form", facts: Facts::new(), body: Body::Members(members) })
}

fn is_big(machine: &Tree) -> bool {
    let Node::Map(facts) = machine.node(machine.root) else { return false };
    facts.iter().any(|(key, value)| {
        matches!((machine.node(*key), machine.node(*value)),
            (Node::Str(key), Node::Bool(false)) if key == "little_endian")
    })
}

/// Class and key of the storages that an object mentions: `('storage', class, key, …)`.
fn mentions(object: &Tree) -> Vec<(Id, Id)> {
    let mention = |node: &Node| {
        let Node::Object(name, parts) = node else { return None };
        let id = parts.first().filter(|_| name == "persistent id")?.1;
        let Node::List(_, items) = object.node(id) else { return None };
        Some((*items.get(1)?, *items.get(2)?))
    };
    object.nodes.iter().filter_map(mention).collect()
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

/// So many bytes of tensors with strides are read and put in order, in one file.
const ORDERED_MAX: u64 = 512 << 20;

/// A tensor whose elements lie elsewhere than one after the other: put in the order of its indices. None if its type is
/// unknown, its elements are not all there, or it would be too large.
pub(super) fn strided(
    class: &str,
    big: bool,
    storage: &Blob,
    offset: u64,
    shape: Vec<u64>,
    stride: &[u64],
    ordered: &mut u64,
) -> Result<Option<Array>, Stop> {
    let Some(dtype) = storage_type(class, big) else { return Ok(None) };
    let size = dtype.size as u64;
    let Ok(bytes) = Array::size(&dtype, &shape) else { return Ok(None) };
    let reach = |(n, step): (&u64, &u64)| n.saturating_sub(1).checked_mul(*step);
    let reach = shape.iter().zip(stride).try_fold(1_u64, |all, pair| all.checked_add(reach(pair)?));
    let (from, len) = (offset.checked_mul(size), reach.and_then(|reach| reach.checked_mul(size)));
    let (Some(from), Some(len)) = (from, len.map(|len| if bytes == 0 { 0 } else { len })) else { return Ok(None) };
    let Some(left) = ORDERED_MAX.checked_sub(*ordered).and_then(|left| left.checked_sub(bytes)) else {
        return Ok(None);
    };
    let Some(shown) = storage.slice(from, len).filter(|_| len <= left) else { return Ok(None) };
    *ordered += bytes + len;
    let shown = shown.some(0, len as usize)?;
    let mut out = Vec::with_capacity(bytes as usize);
    let mut index = vec![0; shape.len()];
    while (out.len() as u64) < bytes {
        let at = index.iter().zip(stride).map(|(i, step)| i * step).sum::<u64>();
        let at = (at * size) as usize;
        out.extend_from_slice(&shown[at..at + size as usize]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Array::new(dtype, shape, false, Blob::memory(out)).map(Some)
}
