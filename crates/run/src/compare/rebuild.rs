//! Calls in pickles whose result is known: numpy's arrays, element types and scalars, joblib's wrappers,
//! torch's tensors, and bytes as old protocols write them.
//!
//! Source: numpy's `_core/multiarray.py`, `_core/numeric.py` (`_frombuffer`) and `descriptor.c` (`arraydescr_reduce`);
//! joblib's `numpy_pickle.py`; torch's `_utils.py`.

use super::array::{Array, Dtype};
use super::blob::Blob;
use super::model::Stop;
use super::npy;
use super::pickle::Storages;
use super::torch;
use super::tree::{Id, Node, Tree};

fn items(tree: &Tree, id: Id) -> Option<&[Id]> {
    match tree.node(id) {
        Node::List(_, items) => Some(items),
        _ => None,
    }
}

fn int(tree: &Tree, id: Id) -> Option<u64> {
    match tree.node(id) {
        Node::Int(text) => text.parse().ok(),
        _ => None,
    }
}

fn text(tree: &Tree, id: Id) -> Option<&str> {
    match tree.node(id) {
        Node::Str(text) => Some(text),
        _ => None,
    }
}

fn shape(tree: &Tree, id: Id) -> Option<Vec<u64>> {
    items(tree, id)?.iter().map(|id| int(tree, *id)).collect()
}

fn bytes(tree: &Tree, id: Id) -> Option<Blob> {
    match tree.node(id) {
        Node::Bytes("bytes" | "bytearray", blob) => Some(blob.clone()),
        _ => None,
    }
}

/// A part of an instance by its label.
fn part(tree: &Tree, id: Id, class: &str, label: &str) -> Option<Id> {
    match tree.node(id) {
        Node::Object(name, parts) if name == class => parts.iter().find(|part| part.0 == label).map(|part| part.1),
        _ => None,
    }
}

/// A pickled element type: `dtype('f8', False, True)` and its state `(3, '<', None, …)`; only simple ones.
fn dtype(tree: &Tree, id: Id) -> Option<Dtype> {
    let args = items(tree, part(tree, id, "numpy.dtype", "args")?)?;
    let code = text(tree, *args.first()?)?;
    let order = match part(tree, id, "numpy.dtype", "") {
        Some(state) => {
            let state = items(tree, state)?;
            // Fields, names or a sub-array make it a type of its own.
            if !state.get(2..5)?.iter().all(|id| matches!(tree.node(*id), Node::Null)) {
                return None;
            }
            text(tree, *state.get(1)?)?
        }
        None => "|",
    };
    npy::simple(&format!("{order}{code}")).ok()
}

/// What the call of `name` with `args` makes, if that is known.
pub(super) fn call(
    tree: &mut Tree,
    name: &str,
    args: Id,
    storages: Option<&mut Storages>,
) -> Result<Option<Node>, Stop> {
    let Some(args) = items(tree, args) else { return Ok(None) };
    if let ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", Some(storages)) = (name, storages) {
        let Some((array, strides)) = tensor(tree, args, storages)? else { return Ok(None) };
        let array = Node::Array(Box::new(array));
        // Elements that lie in another order are other content, as they are of numpy's arrays.
        return Ok(Some(match strides {
            Some(strides) => {
                Node::Object(format!("tensor with strides {strides:?}"), vec![(String::new(), tree.add(array)?)])
            }
            None => array,
        }));
    }
    Ok(match (name, args) {
        ("_codecs.encode", [value, codec]) => latin1(tree, *value, *codec),
        ("builtins.bytearray", [value]) => bytes(tree, *value).map(|blob| Node::Bytes("bytearray", blob)),
        ("builtins.bytes", []) => Some(Node::Bytes("bytes", Blob::memory(Vec::new()))),
        ("builtins.set" | "builtins.frozenset", [value]) => {
            let what = if name.ends_with("frozenset") { "frozenset" } else { "set" };
            items(tree, *value).map(|items| Node::Set(what, items.to_vec()))
        }
        ("numpy._core.numeric._frombuffer", [data, kind, dimensions, order]) => {
            let order = text(tree, *order).map(|order| order == "F");
            match (bytes(tree, *data), dtype(tree, *kind), shape(tree, *dimensions), order) {
                (Some(data), Some(dtype), Some(shape), Some(fortran)) => {
                    Some(Node::Array(Box::new(Array::new(dtype, shape, fortran, data)?)))
                }
                _ => None,
            }
        }
        ("numpy._core.multiarray.scalar", [kind, data]) => match (dtype(tree, *kind), bytes(tree, *data)) {
            (Some(dtype), Some(data)) => Some(Node::Array(Box::new(Array::new(dtype, Vec::new(), false, data)?))),
            _ => None,
        },
        _ => None,
    })
}

/// Bytes as protocols before 3 have them: a text, each character of which is a byte.
fn latin1(tree: &Tree, value: Id, codec: Id) -> Option<Node> {
    if !matches!(text(tree, codec)?, "latin1" | "latin-1") {
        return None;
    }
    let bytes = text(tree, value)?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>()?;
    Some(Node::Bytes("bytes", Blob::memory(bytes)))
}

/// A tensor's elements, and its strides where they do not lie one after the other.
type Tensor = (Array, Option<Vec<u64>>);

/// `(('storage', class, key, device, count), offset, shape, stride, …)`. Whether a gradient is wanted and hooks are left
/// to torch's parameters, which are objects of their own.
///
/// The strides come with it where the elements do not lie one after the other. Of a storage that a tensor shows, what no tensor
/// shows is noise: torch leaves such bytes as they were in memory.
fn tensor(tree: &Tree, args: &[Id], storages: &mut Storages) -> Result<Option<Tensor>, Stop> {
    let told = || {
        let id = items(tree, part(tree, *args.first()?, "persistent id", "id")?)?;
        let Node::Global(class) = tree.node(*id.get(1)?) else { return None };
        let (shape, stride) = (shape(tree, *args.get(2)?)?, shape(tree, *args.get(3)?)?);
        let same = shape.len() == stride.len();
        same.then_some((class.as_str(), text(tree, *id.get(2)?)?, int(tree, *args.get(1)?)?, shape, stride))
    };
    let Some((class, key, offset, shape, stride)) = told() else { return Ok(None) };
    let Some(storage) = storages.blobs.get(key) else { return Ok(None) };
    let as_it_lies = torch::tensor(class, storages.big, storage, offset, shape.clone(), &stride);
    let found = match as_it_lies {
        Some(array) => Some((array, None)),
        None => {
            let ordered = &mut storages.ordered;
            torch::strided(class, storages.big, storage, offset, shape, &stride, ordered)?.map(|a| (a, Some(stride)))
        }
    };
    if found.is_some() {
        storages.used.insert(key.to_owned());
    }
    Ok(found)
}

/// What an instance becomes by its state: numpy's `_reconstruct(ndarray, (0,), b'b')` with
/// `(version, shape, dtype, fortran, bytes)`.
pub(super) fn state(tree: &Tree, target: Id, state: Id) -> Result<Option<Node>, Stop> {
    let class = "numpy._core.multiarray._reconstruct";
    let Some(args) = part(tree, target, class, "args").and_then(|args| items(tree, args)) else { return Ok(None) };
    let plain = args.first().is_some_and(|id| matches!(tree.node(*id), Node::Global(name) if name == "numpy.ndarray"));
    let Some([_, dimensions, kind, order, data]) = items(tree, state).filter(|_| plain) else { return Ok(None) };
    let fortran = matches!(tree.node(*order), Node::Bool(true));
    match (shape(tree, *dimensions), dtype(tree, *kind), bytes(tree, *data)) {
        (Some(shape), Some(dtype), Some(data)) => {
            Ok(Some(Node::Array(Box::new(Array::new(dtype, shape, fortran, data)?))))
        }
        _ => Ok(None),
    }
}

/// joblib's description of an array that follows as raw bytes.
pub(super) struct Wrapped {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) fortran: bool,
    /// A byte that counts the padding stands before the data.
    pub(super) aligned: bool,
}

/// Reads joblib's description; none for arrays that are not raw.
pub(super) fn wrapper(tree: &Tree, state: Id) -> Result<Option<Wrapped>, Stop> {
    let Node::Map(entries) = tree.node(state) else { return Ok(None) };
    let get = |name: &str| entries.iter().find(|(key, _)| text(tree, *key) == Some(name)).map(|entry| entry.1);
    let (Some(kind), Some(dimensions)) = (get("dtype"), get("shape")) else { return Ok(None) };
    let (Some(dtype), Some(shape)) = (dtype(tree, kind), shape(tree, dimensions)) else { return Ok(None) };
    let fortran = get("order").and_then(|id| text(tree, id)) == Some("F");
    let aligned = get("numpy_array_alignment_bytes").is_some_and(|id| int(tree, id).is_some());
    Ok(Some(Wrapped { dtype, shape, fortran, aligned }))
}

/// Python's raw-unicode-escape: `\uXXXX` and `\UXXXXXXXX`, all else as it stands.
pub(super) fn unescape(line: &str) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\\u").into_iter().chain(rest.find("\\U")).min() {
        out.push_str(&rest[..at]);
        let digits = if rest[at + 1..].starts_with('u') { 4 } else { 8 };
        let code = u32::from_str_radix(rest.get(at + 2..at + 2 + digits)?, 16).ok()?;
        out.push(char::from_u32(code)?);
        rest = &rest[at + 2 + digits..];
    }
    out.push_str(rest);
    Some(out)
}
