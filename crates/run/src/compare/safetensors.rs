//! safetensors: eight bytes of length, a JSON header, and the tensors' bytes.
//!
//! Source: the format's description in the safetensors repository. The order of keys and tensors and the padding
//! of the header are noise; `__metadata__` is content.

use super::array::{Array, BF16, Dtype, F8_E4M3, F8_E5M2, F16, F32, F64, Scalar};
use super::blob::Blob;
use super::json;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::report::NoiseKind;
use super::tree::{Id, Node, Tree};

const HEADER_MAX: u64 = 32 << 20;

pub(super) fn is_safetensors(head: &[u8], len: u64) -> bool {
    let Some((size, rest)) = head.split_first_chunk::<8>() else { return false };
    let size = u64::from_le_bytes(*size);
    (2..=HEADER_MAX).contains(&size) && size.checked_add(8).is_some_and(|end| end <= len) && rest.starts_with(b"{\"")
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let wrong = || Stop::damaged("its safetensors header is not one");
    let size = u64::from_le_bytes(blob.bytes(0, 8)?.and_then(|b| b.try_into().ok()).ok_or_else(wrong)?);
    let text = blob.bytes(8, usize::try_from(size).map_err(|_| wrong())?)?.ok_or_else(wrong)?;
    let header = json::parse(&text)?;
    let Node::Map(entries) = header.node(header.root) else { return Err(wrong()) };
    let data = blob.from(8 + size).ok_or_else(wrong)?;
    let mut members = Vec::new();
    let mut order = Vec::new();
    let mut covered: u64 = 0;
    for (key, value) in entries {
        let Node::Str(name) = header.node(*key) else { return Err(wrong()) };
        if name == "__metadata__" {
            let tree = Tree { nodes: header.nodes.clone(), root: *value };
            let body = Body::Tree(Box::new(tree));
            members.push(member(name, Opened { what: "metadata", facts: Facts::new(), body }));
            continue;
        }
        let (mut class, mut shape, mut range) = (None, None, None);
        let Node::Map(fields) = header.node(*value) else { return Err(wrong()) };
        for (key, value) in fields {
            match (header.node(*key), header.node(*value)) {
                (Node::Str(key), Node::Str(text)) if key == "dtype" => class = Some(text),
                (Node::Str(key), Node::List(_, items)) if key == "shape" => shape = Some(numbers(&header, items)?),
                (Node::Str(key), Node::List(_, items)) if key == "data_offsets" => {
                    range = Some(numbers(&header, items)?)
                }
                _ => return Err(wrong()),
            }
        }
        let (Some(class), Some(shape), Some([begin, end])) = (class, shape, range.as_deref()) else {
            return Err(wrong());
        };
        let bytes = data.slice(*begin, end.checked_sub(*begin).ok_or_else(wrong)?).ok_or_else(wrong)?;
        covered = covered.saturating_add(bytes.len());
        order.push((*begin, name.clone()));
        let body = match dtype(class) {
            Some(dtype) => Body::Array(Box::new(Array::new(dtype, shape, false, bytes)?)),
            // A type of a later version: its name and shape are content, too.
            None => {
                let mut part = member(name, Opened { what: "a tensor", facts: Facts::new(), body: Body::Bytes(bytes) });
                part.attributes = vec![("dtype", class.clone()), ("shape", format!("{shape:?}"))];
                members.push(part);
                continue;
            }
        };
        members.push(member(name, Opened { what: "a tensor", facts: Facts::new(), body }));
    }
    if covered != data.len() {
        return Err(Stop::damaged("its tensors overlap or leave bytes out"));
    }
    order.sort();
    let order: Vec<String> = order.into_iter().map(|tensor| tensor.1).collect();
    let padding = text.len() - text.trim_ascii_end().len();
    let facts = vec![(NoiseKind::Padding, padding.to_string()), (NoiseKind::Order, order.join(", "))];
    Ok(Opened { what: "a safetensors file", facts, body: Body::Members(members) })
}

fn member(name: &str, opened: Opened) -> Member {
    let part = Part::Opened(Box::new(opened));
    Member { name: name.to_owned(), facts: Facts::new(), attributes: Vec::new(), part }
}

fn numbers(tree: &Tree, items: &[Id]) -> Result<Vec<u64>, Stop> {
    let number = |id: &Id| match tree.node(*id) {
        Node::Number(text) => text.parse().ok(),
        _ => None,
    };
    items.iter().map(number).collect::<Option<_>>().ok_or_else(|| Stop::damaged("a tensor's shape is not one"))
}

fn dtype(class: &str) -> Option<Dtype> {
    let int = |bytes, signed| Scalar::Int { bytes, signed };
    Some(Dtype::scalar(
        match class {
            "BOOL" => Scalar::Bool,
            "U8" => int(1, false),
            "I8" => int(1, true),
            "U16" => int(2, false),
            "I16" => int(2, true),
            "U32" => int(4, false),
            "I32" => int(4, true),
            "U64" => int(8, false),
            "I64" => int(8, true),
            "F8_E5M2" => Scalar::Float(F8_E5M2),
            "F8_E4M3" => Scalar::Float(F8_E4M3),
            "F16" => Scalar::Float(F16),
            "BF16" => Scalar::Float(BF16),
            "F32" => Scalar::Float(F32),
            "F64" => Scalar::Float(F64),
            "C64" => Scalar::Complex(F32),
            _ => return None,
        },
        false,
    ))
}
