//! Structured values (JSON, pickles): a graph of nodes, since pickles share and may even contain themselves.

use super::array::{self, Array, apart, clipped};
use super::blob::{self, Blob};
use super::model::{Report, Stop, join};
use super::report::{Change, Distance, NoiseKind};
use super::walk;
use std::collections::{HashMap, HashSet};
use trainlock_types::{Digest, Hasher};

/// Values nested deeper are compared as bytes.
pub(super) const DEPTH_MAX: usize = 256;
/// More nodes are not kept.
pub(super) const NODES_MAX: usize = 2_000_000;
/// A graph that takes more visits than this is too entangled.
const VISITS_MAX: u64 = 20_000_000;

/// The index of a node.
pub(super) type Id = u32;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// A whole number, in decimal.
    Int(String),
    /// The bits of an f64.
    Float(u64),
    /// A number as text: `1.0` and `1` are one value in two spellings.
    Number(String),
    Str(String),
    /// `bytes`, `bytearray`, or a text too long to be shown.
    Bytes(&'static str, Blob),
    /// The name of a class or function.
    Global(String),
    /// A list, a tuple.
    List(&'static str, Vec<Id>),
    /// A set: the order of its items carries no meaning.
    Set(&'static str, Vec<Id>),
    Map(Vec<(Id, Id)>),
    /// A call or an instance: what is called, and its labelled parts.
    Object(String, Vec<(String, Id)>),
    Array(Box<Array>),
}

/// Nodes and where to begin.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Tree {
    pub(super) fn add(&mut self, node: Node) -> Result<Id, Stop> {
        if self.nodes.len() >= NODES_MAX {
            return Err(Stop::damaged("it holds too many values"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as Id - 1)
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// The digest of the value: equal for equal content, however it is written, shared or ordered where order
    /// has no meaning.
    pub(super) fn digest(&self) -> Result<Digest, Stop> {
        Digests::new(self).of(self.root)
    }

    /// A value in a few words.
    pub(super) fn describe(&self, id: Id) -> String {
        match self.node(id) {
            Node::Null => "null".to_owned(),
            Node::Bool(value) => value.to_string(),
            Node::Int(text) => format!("int {}", clipped(text)),
            Node::Float(bits) => format!("float {:?}", f64::from_bits(*bits)),
            Node::Number(text) => clipped(text),
            Node::Str(text) => clipped(&format!("{text:?}")),
            Node::Bytes(what, blob) => format!("{what} of length {}", blob.len()),
            Node::Global(name) => format!("global {}", clipped(name)),
            Node::List(what, items) | Node::Set(what, items) => format!("{what} of {}", items.len()),
            Node::Map(items) => format!("dict of {}", items.len()),
            Node::Object(name, _) => format!("object {}", clipped(name)),
            Node::Array(array) => format!("array {} {:?}", array.dtype.name, array.shape),
        }
    }

    /// A key as a part of a path.
    fn key(&self, id: Id) -> String {
        match self.node(id) {
            Node::Str(text) => text.clone(),
            Node::Int(text) | Node::Number(text) => format!("[{text}]"),
            _ => format!("[{}]", self.describe(id)),
        }
    }
}

/// The digests of a tree's nodes, each made once.
struct Digests<'a> {
    tree: &'a Tree,
    known: HashMap<Id, Digest>,
    /// The nodes that are being digested, with their depth: a node inside itself.
    open: HashMap<Id, usize>,
    visits: u64,
}

impl<'a> Digests<'a> {
    fn new(tree: &'a Tree) -> Digests<'a> {
        Digests { tree, known: HashMap::new(), open: HashMap::new(), visits: 0 }
    }

    fn of(&mut self, id: Id) -> Result<Digest, Stop> {
        self.visit(id).map(|found| found.0)
    }

    /// The digest, and the depth of the outermost open node that it refers to.
    fn visit(&mut self, id: Id) -> Result<(Digest, usize), Stop> {
        if let Some(digest) = self.known.get(&id) {
            return Ok((*digest, usize::MAX));
        }
        let depth = self.open.len();
        if let Some(above) = self.open.get(&id) {
            return Ok((Digest::of(format!("above\0{}", depth - above).as_bytes()), *above));
        }
        self.visits += 1;
        if depth >= DEPTH_MAX || self.visits > VISITS_MAX {
            return Err(Stop::damaged("its values are nested too deeply"));
        }
        self.open.insert(id, depth);
        let mut low = usize::MAX;
        let mut hasher = Hasher::new();
        let mut text = |tag: &str, text: &str| hasher.update(format!("{tag}\0{}\0{text}", text.len()).as_bytes());
        let tree = self.tree;
        match tree.node(id) {
            Node::Null => text("null", ""),
            Node::Bool(value) => text("bool", &value.to_string()),
            Node::Int(value) => text("int", value),
            Node::Float(bits) => text("float", &bits.to_string()),
            Node::Number(value) => text("number", &canonical_number(value).unwrap_or_else(|| value.clone())),
            Node::Str(value) => text("str", value),
            Node::Bytes(what, blob) => text(what, &walk::hash(blob)?.to_hex()),
            Node::Global(name) => text("global", name),
            Node::Array(array) => text("array", &array.digest()?.to_hex()),
            Node::List(what, items) => {
                text(what, &items.len().to_string());
                for item in items {
                    hasher.update(self.below(*item, &mut low)?.as_bytes());
                }
            }
            Node::Set(what, items) => {
                text(what, &items.len().to_string());
                let mut digests = Vec::with_capacity(items.len());
                for item in items {
                    digests.push(self.below(*item, &mut low)?);
                }
                digests.sort_unstable();
                digests.iter().for_each(|digest| hasher.update(digest.as_bytes()));
            }
            Node::Map(items) => {
                text("map", &items.len().to_string());
                let mut digests = Vec::with_capacity(items.len());
                for (key, value) in items {
                    digests.push((self.below(*key, &mut low)?, self.below(*value, &mut low)?));
                }
                // Stable, so that of two equal keys the later one stays the later one.
                digests.sort_by_key(|digest| digest.0);
                for (key, value) in digests {
                    hasher.update(key.as_bytes());
                    hasher.update(value.as_bytes());
                }
            }
            Node::Object(name, parts) => {
                text("object", &format!("{}\0{name}", parts.len()));
                for (label, part) in parts {
                    hasher.update(format!("{}\0{label}", label.len()).as_bytes());
                    hasher.update(self.below(*part, &mut low)?.as_bytes());
                }
            }
        }
        self.open.remove(&id);
        let digest = hasher.finish();
        // What refers to a node around it has another digest elsewhere.
        if low >= depth {
            self.known.insert(id, digest);
            low = usize::MAX;
        }
        Ok((digest, low))
    }

    fn below(&mut self, id: Id, low: &mut usize) -> Result<Digest, Stop> {
        let (digest, outer) = self.visit(id)?;
        *low = (*low).min(outer);
        Ok(digest)
    }
}

/// A number's value in one spelling; none if the text is no plain decimal number.
/// Whole numbers are exact, all others are the nearest f64.
pub(super) fn canonical_number(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let digits = &unsigned[..whole];
    let negative = text.starts_with('-');
    // Leading zeros make a label, not a number.
    if (digits.len() > 1 && digits.starts_with('0'))
        || !unsigned.bytes().any(|b| b.is_ascii_digit())
        || !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    if whole == unsigned.len() && !(negative && digits == "0") {
        return Some(format!("{}{digits}", if negative { "-" } else { "" }));
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    if value.fract() == 0.0 && value.abs() < 9e15 && !(value == 0.0 && value.is_sign_negative()) {
        return Some(format!("{value:.0}"));
    }
    Some(format!("{:016x}", value.to_bits()))
}

/// How two numbers given as text are apart, if they are numbers.
fn distance(a: &str, b: &str, float: bool) -> Option<Distance> {
    let (x, y): (f64, f64) = (a.parse().ok()?, b.parse().ok()?);
    let mut distance = apart(x, y)?;
    if !float {
        distance.ulp = None;
        if let (Ok(x), Ok(y)) = (a.parse::<i128>(), b.parse::<i128>()) {
            distance.abs = x.abs_diff(y) as f64;
        }
    }
    Some(distance)
}

/// Both texts around the first place where they differ.
fn around(a: &str, b: &str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| {
        let from = same.saturating_sub(30);
        let part: String = text.chars().skip(from).take(60).collect();
        let (before, after) =
            (if from > 0 { "…" } else { "" }, if text.chars().nth(from + 60).is_some() { "…" } else { "" });
        format!("{before}{part:?}{after}")
    };
    (cut(a), cut(b))
}

/// Says how two values differ; `place` is the file or member that holds them.
pub(super) fn compare(place: &str, a: &Tree, b: &Tree, report: &mut Report) -> Result<(), Stop> {
    let (left, right) = (Digests::new(a), Digests::new(b));
    let mut walk = Walk { a: left, b: right, place, seen: HashSet::new(), depth: 0, report };
    walk.pair(a.root, b.root, "")
}

struct Walk<'a> {
    a: Digests<'a>,
    b: Digests<'a>,
    place: &'a str,
    seen: HashSet<(Id, Id)>,
    depth: usize,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn differs(&mut self, path: &str, change: Change) {
        self.report.differs(&join(self.place, " » ", path), change);
    }

    fn value(&mut self, path: &str, a: String, b: String, distance: Option<Distance>) {
        self.differs(path, Change::Value { a, b, distance });
    }

    fn pair(&mut self, a: Id, b: Id, path: &str) -> Result<(), Stop> {
        if self.depth >= DEPTH_MAX || self.seen.len() >= 2 * NODES_MAX {
            return Err(Stop::damaged("its values are nested too deeply"));
        }
        self.depth += 1;
        let done = self.nodes(a, b, path);
        self.depth -= 1;
        done
    }

    fn nodes(&mut self, a: Id, b: Id, path: &str) -> Result<(), Stop> {
        let (ta, tb) = (self.a.tree, self.b.tree);
        match (ta.node(a), tb.node(b)) {
            (Node::Null, Node::Null) => {}
            (Node::Bool(x), Node::Bool(y)) if x == y => {}
            (Node::Int(x), Node::Int(y)) if x == y => {}
            (Node::Int(x), Node::Int(y)) => self.value(path, clipped(x), clipped(y), distance(x, y, false)),
            (Node::Float(x), Node::Float(y)) if x == y => {}
            (Node::Float(x), Node::Float(y)) => {
                let (left, right) = (f64::from_bits(*x), f64::from_bits(*y));
                let text = |value: f64, other: f64| match value.is_nan() && other.is_nan() {
                    true => format!("NaN {:#018x}", value.to_bits()),
                    false => format!("{value:?}"),
                };
                self.value(path, text(left, right), text(right, left), apart(left, right));
            }
            (Node::Number(x), Node::Number(y)) => match (canonical_number(x), canonical_number(y)) {
                _ if x == y => {}
                (Some(one), Some(two)) if one == two => {
                    let place = join(self.place, " » ", path);
                    self.report.noise(NoiseKind::Spelling, &place, x, y);
                }
                _ => {
                    let float = [x, y].iter().any(|text| text.contains(['.', 'e', 'E']));
                    self.value(path, clipped(x), clipped(y), distance(x, y, float));
                }
            },
            (Node::Str(x), Node::Str(y)) if x == y => {}
            (Node::Str(x), Node::Str(y)) => {
                let (x, y) = around(x, y);
                self.value(path, x, y, None);
            }
            (Node::Global(x), Node::Global(y)) if x == y => {}
            (Node::Global(x), Node::Global(y)) => self.value(path, clipped(x), clipped(y), None),
            (Node::Bool(x), Node::Bool(y)) => self.value(path, x.to_string(), y.to_string(), None),
            (Node::Bytes(x, one), Node::Bytes(y, two)) if x == y => {
                if let Some(offset) = blob::difference(one, two)? {
                    walk::bytes(&join(self.place, " » ", path), one, two, offset, self.report)?;
                }
            }
            (Node::Array(x), Node::Array(y)) => array::compare(&join(self.place, " » ", path), x, y, self.report)?,
            (Node::List(x, one), Node::List(y, two)) if x == y => {
                if self.seen.insert((a, b)) {
                    if one.len() != two.len() {
                        self.differs(path, Change::Shape { a: vec![one.len() as u64], b: vec![two.len() as u64] });
                    }
                    for (i, (x, y)) in one.iter().zip(two).enumerate() {
                        self.pair(*x, *y, &format!("{path}[{i}]"))?;
                    }
                }
            }
            (Node::Set(x, one), Node::Set(y, two)) if x == y => {
                if self.seen.insert((a, b)) {
                    self.sets(one, two, path)?;
                }
            }
            (Node::Map(one), Node::Map(two)) => {
                if self.seen.insert((a, b)) {
                    self.maps(one, two, path)?;
                }
            }
            (Node::Object(x, one), Node::Object(y, two)) if x == y => {
                if self.seen.insert((a, b)) {
                    self.objects(one, two, path)?;
                }
            }
            _ => self.differs(path, Change::Type { a: ta.describe(a), b: tb.describe(b) }),
        }
        Ok(())
    }

    fn sets(&mut self, one: &[Id], two: &[Id], path: &str) -> Result<(), Stop> {
        let mut left = Vec::with_capacity(one.len());
        for item in one {
            left.push(self.a.of(*item)?);
        }
        let mut right = Vec::with_capacity(two.len());
        for item in two {
            right.push(self.b.of(*item)?);
        }
        let (lefts, rights): (HashSet<_>, HashSet<_>) = (left.iter().collect(), right.iter().collect());
        let mut same = true;
        for (id, digest) in one.iter().zip(&left) {
            if !rights.contains(digest) {
                same = false;
                let what = self.a.tree.describe(*id);
                self.differs(path, Change::Missing { what });
            }
        }
        for (id, digest) in two.iter().zip(&right) {
            if !lefts.contains(digest) {
                same = false;
                let what = self.b.tree.describe(*id);
                self.differs(path, Change::Added { what });
            }
        }
        if same && left != right {
            if one.len() == two.len() {
                self.report.noise(NoiseKind::Order, &join(self.place, " » ", path), "", "");
            } else {
                self.differs(path, Change::Shape { a: vec![one.len() as u64], b: vec![two.len() as u64] });
            }
        }
        Ok(())
    }

    fn maps(&mut self, one: &[(Id, Id)], two: &[(Id, Id)], path: &str) -> Result<(), Stop> {
        // The n-th of equal keys belongs to the n-th of the other side.
        let mut right = HashMap::new();
        let mut times: HashMap<Digest, u32> = HashMap::new();
        for (at, (key, value)) in two.iter().enumerate() {
            let digest = self.b.of(*key)?;
            let n = times.entry(digest).or_insert(0);
            right.insert((digest, *n), (at, *value));
            *n += 1;
        }
        times.clear();
        let mut found = vec![false; two.len()];
        let (mut last, mut in_order) = (0, true);
        for (key, value) in one {
            let digest = self.a.of(*key)?;
            let n = times.entry(digest).or_insert(0);
            let name = self.a.tree.key(*key);
            let below = if name.starts_with('[') { format!("{path}{name}") } else { join(path, ".", &name) };
            match right.get(&(digest, *n)) {
                Some((at, other)) => {
                    found[*at] = true;
                    in_order &= *at >= last;
                    last = *at;
                    self.pair(*value, *other, &below)?;
                }
                None => {
                    let what = self.a.tree.describe(*value);
                    self.differs(&below, Change::Missing { what });
                }
            }
            *n += 1;
        }
        for ((key, value), found) in two.iter().zip(found) {
            if !found {
                let name = self.b.tree.key(*key);
                let below = if name.starts_with('[') { format!("{path}{name}") } else { join(path, ".", &name) };
                let what = self.b.tree.describe(*value);
                self.differs(&below, Change::Added { what });
            }
        }
        if !in_order {
            self.report.noise(NoiseKind::Order, &join(self.place, " » ", path), "", "");
        }
        Ok(())
    }

    fn objects(&mut self, one: &[(String, Id)], two: &[(String, Id)], path: &str) -> Result<(), Stop> {
        for i in 0..one.len().max(two.len()) {
            match (one.get(i), two.get(i)) {
                (Some((x, one)), Some((y, two))) if x == y => self.pair(*one, *two, &join(path, ".", x))?,
                (one, two) => {
                    if let Some((label, id)) = one {
                        let what = self.a.tree.describe(*id);
                        self.differs(&join(path, ".", label), Change::Missing { what });
                    }
                    if let Some((label, id)) = two {
                        let what = self.b.tree.describe(*id);
                        self.differs(&join(path, ".", label), Change::Added { what });
                    }
                }
            }
        }
        Ok(())
    }
}
