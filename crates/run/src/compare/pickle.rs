//! Pickles, protocols 0 to 5, followed as data: nothing of them is ever called.
//!
//! Source: CPython's `Lib/pickletools.py`. The stack machine is run to build a graph of values in which a call is a
//! node with its parts. Memo, framing and protocol leave no trace in it, so they are noise.
//! Known calls become what they make: see `rebuild`.

use super::array::Array;
use super::blob::Blob;
use super::model::{Body, Facts, Member, Opened, Part, Stop};
use super::rebuild;
use super::report::NoiseKind;
use super::tree::{Id, Node, Tree};
use std::collections::{HashMap, HashSet};

/// Texts up to here are kept to be shown; longer ones stay in the file.
const TEXT_MAX: u64 = 1 << 20;
/// All texts of one pickle.
const TEXTS_MAX: u64 = 256 << 20;
const LINE_MAX: usize = 1 << 20;
/// Pickles one after the other in one file.
const PICKLES_MAX: usize = 10_000;

pub(super) fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// The storages of a torch file, by their keys.
pub(super) struct Storages {
    pub(super) big: bool,
    pub(super) blobs: HashMap<String, Blob>,
    /// How many bytes of tensors with gaps or turned axes were put in order.
    pub(super) ordered: u64,
    /// Those that the pickle's tensors show.
    pub(super) used: HashSet<String>,
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    open_with(blob, None)
}

/// Opens a pickle; its persistent ids may name torch's storages.
pub(super) fn open_with(blob: &Blob, storages: Option<&mut Storages>) -> Result<Opened, Stop> {
    let mut machine = Machine::new(blob, storages);
    let tree = machine.pickle()?;
    let facts = vec![(NoiseKind::Version, format!("protocol {}", machine.protocol))];
    let first = Opened { what: "a pickle", facts, body: Body::Tree(Box::new(tree)) };
    if machine.input.at == blob.len() {
        return Ok(first);
    }
    // More pickles may follow, and then other bytes: torch's old format, several dumps into one file.
    let member = |name: String, part: Part| Member { name, facts: Facts::new(), attributes: Vec::new(), part };
    let mut members = vec![member("[0]".to_owned(), Part::Opened(Box::new(first)))];
    while machine.input.at < blob.len() && members.len() < PICKLES_MAX {
        let start = machine.input.at;
        let head = blob.some(start, 2)?;
        let next = if is_pickle(&head) { machine.pickle() } else { Err(Stop::damaged("")) };
        match next {
            Ok(tree) => {
                let body = Body::Tree(Box::new(tree));
                let opened = Opened { what: "a pickle", facts: Facts::new(), body };
                members.push(member(format!("[{}]", members.len()), Part::Opened(Box::new(opened))));
            }
            Err(Stop::Io(error)) => return Err(Stop::Io(error)),
            Err(Stop::Damaged(_)) => {
                let rest = blob.from(start).ok_or_else(|| Stop::damaged("the pickle is cut off"))?;
                let body = Body::Bytes(rest);
                let opened = Opened { what: "other bytes", facts: Facts::new(), body };
                members.push(member("bytes after the pickle".to_owned(), Part::Opened(Box::new(opened))));
                break;
            }
        }
    }
    if machine.input.at < blob.len() && members.len() >= PICKLES_MAX {
        return Err(Stop::damaged("too many pickles in one file"));
    }
    Ok(Opened { what: "pickles", facts: Facts::new(), body: Body::Members(members) })
}

/// The first `count` pickles of a file, and where the last one ends.
pub(super) fn several(blob: &Blob, storages: Option<&mut Storages>, count: usize) -> Result<(Vec<Tree>, u64), Stop> {
    let mut machine = Machine::new(blob, storages);
    let trees = (0..count).map(|_| machine.pickle()).collect::<Result<Vec<Tree>, Stop>>()?;
    Ok((trees, machine.input.at))
}

/// Reads a blob forward through a small window.
pub(super) struct Input<'a> {
    blob: &'a Blob,
    pub(super) at: u64,
    window: Vec<u8>,
    start: u64,
}

fn cut() -> Stop {
    Stop::damaged("the pickle is cut off")
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let inside = self.at.checked_sub(self.start).and_then(|at| self.window.get(at as usize)).copied();
        let byte = match inside {
            Some(byte) => byte,
            None => {
                self.window = self.blob.some(self.at, 64 << 10)?;
                self.start = self.at;
                *self.window.first().ok_or_else(cut)?
            }
        };
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self, bytes: u32) -> Result<u64, Stop> {
        (0..bytes).try_fold(0, |n, i| Ok(n | u64::from(self.byte()?) << (8 * i)))
    }

    /// The next `len` bytes, left where they are.
    pub(super) fn take(&mut self, len: u64) -> Result<Blob, Stop> {
        let part = self.blob.slice(self.at, len).ok_or_else(cut)?;
        self.at += len;
        Ok(part)
    }

    fn line(&mut self) -> Result<String, Stop> {
        Ok(String::from_utf8_lossy(&self.raw_line()?).trim_end_matches('\r').to_owned())
    }

    fn raw_line(&mut self) -> Result<Vec<u8>, Stop> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                _ if line.len() >= LINE_MAX => return Err(Stop::damaged("the pickle has too long a line")),
                byte => line.push(byte),
            }
        }
    }

    /// One byte, as joblib's padding has it.
    pub(super) fn skip_padding(&mut self) -> Result<(), Stop> {
        let n = u64::from(self.byte()?);
        self.take(n).map(|_| ())
    }
}

struct Machine<'a> {
    input: Input<'a>,
    tree: Tree,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    protocol: u8,
    texts: u64,
    storages: Option<&'a mut Storages>,
}

fn wrong() -> Stop {
    Stop::damaged("the pickle's stack does not fit its instructions")
}

impl<'a> Machine<'a> {
    fn new(blob: &'a Blob, storages: Option<&'a mut Storages>) -> Machine<'a> {
        Machine {
            input: Input { blob, at: 0, window: Vec::new(), start: 0 },
            tree: Tree::default(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            protocol: 0,
            texts: 0,
            storages,
        }
    }

    fn push(&mut self, node: Node) -> Result<(), Stop> {
        let id = self.tree.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, Stop> {
        if self.marks.last().is_some_and(|mark| self.stack.len() <= *mark) {
            return Err(wrong());
        }
        self.stack.pop().ok_or_else(wrong)
    }

    fn top(&self) -> Result<Id, Stop> {
        self.stack.last().copied().ok_or_else(wrong)
    }

    /// All above the last mark.
    fn marked(&mut self) -> Result<Vec<Id>, Stop> {
        let mark = self.marks.pop().ok_or_else(wrong)?;
        Ok(self.stack.split_off(mark))
    }

    fn text(&mut self, len: u64) -> Result<(), Stop> {
        let blob = self.input.take(len)?;
        self.texts += len.min(TEXT_MAX);
        if len > TEXT_MAX || self.texts > TEXTS_MAX {
            return self.push(Node::Bytes("str", blob));
        }
        let bytes = blob.bytes(0, len as usize)?.ok_or_else(cut)?;
        match String::from_utf8(bytes) {
            Ok(text) => self.push(Node::Str(text)),
            // Python writes half surrogates so.
            Err(_) => self.push(Node::Bytes("str", blob)),
        }
    }

    fn bytes(&mut self, what: &'static str, len: u64) -> Result<(), Stop> {
        let blob = self.input.take(len)?;
        self.push(Node::Bytes(what, blob))
    }

    fn put(&mut self, key: u64) -> Result<(), Stop> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), Stop> {
        let id = *self.memo.get(&key).ok_or_else(wrong)?;
        self.stack.push(id);
        Ok(())
    }

    fn object(&mut self, name: &str, parts: Vec<(String, Id)>) -> Result<(), Stop> {
        self.push(Node::Object(name.to_owned(), parts))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Stop> {
        // Names that Python 2's protocols have for the same modules, and numpy's before 2.0.
        let module = match module {
            "__builtin__" => "builtins",
            "copy_reg" => "copyreg",
            module => module,
        };
        let module = match module.strip_prefix("numpy.core.") {
            Some(rest) => format!("numpy._core.{rest}"),
            None => module.to_owned(),
        };
        self.push(Node::Global(format!("{module}.{name}")))
    }

    fn plain(&self, id: Id) -> Option<&str> {
        match self.tree.node(id) {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    fn extend(&mut self, target: Id, items: Vec<Id>) -> Result<(), Stop> {
        let label = |at: usize| format!("[{at}]");
        match &mut self.tree.nodes[target as usize] {
            Node::List(_, list) | Node::Set(_, list) => list.extend(items),
            Node::Object(_, parts) => {
                let from = parts.iter().filter(|part| part.0.starts_with('[')).count();
                parts.extend(items.into_iter().enumerate().map(|(i, item)| (label(from + i), item)));
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn set_items(&mut self, target: Id, items: &[Id]) -> Result<(), Stop> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(wrong());
        }
        let entries = pairs.iter().map(|[key, value]| (*key, *value));
        if let Node::Map(map) = &mut self.tree.nodes[target as usize] {
            map.extend(entries);
            return Ok(());
        }
        // An instance of a subclass of dict, like OrderedDict, has its items in a dict of its own.
        let Node::Object(_, parts) = self.tree.node(target) else { return Err(wrong()) };
        match parts.iter().find(|part| part.0.is_empty()).map(|part| part.1) {
            Some(map) => self.set_items(map, items),
            None => {
                let map = self.tree.add(Node::Map(entries.collect()))?;
                if let Node::Object(_, parts) = &mut self.tree.nodes[target as usize] {
                    parts.push((String::new(), map));
                }
                Ok(())
            }
        }
    }

    /// A call of `function` with `args`.
    fn reduce(&mut self, function: Id, args: Id, how: &str) -> Result<(), Stop> {
        if let Node::Global(name) = self.tree.node(function) {
            let name = name.clone();
            if let Some(node) = rebuild::call(&mut self.tree, &name, args, self.storages.as_deref_mut())? {
                return self.push(node);
            }
            // An instance without arguments is its class and what follows.
            if matches!(self.tree.node(args), Node::List("tuple", items) if items.is_empty()) {
                return self.object(&name, Vec::new());
            }
            return self.object(&name, vec![(how.to_owned(), args)]);
        }
        self.object("", vec![("call".to_owned(), function), (how.to_owned(), args)])
    }

    fn build(&mut self) -> Result<(), Stop> {
        let (state, target) = (self.pop()?, self.top()?);
        if let Some(array) = rebuild::state(&self.tree, target, state)? {
            self.tree.nodes[target as usize] = array;
            return Ok(());
        }
        let Node::Object(name, parts) = &mut self.tree.nodes[target as usize] else { return Err(wrong()) };
        let joblib = name.ends_with(".NumpyArrayWrapper") && name.starts_with("joblib.");
        // The attributes of an instance are what its paths go through.
        parts.push((String::new(), state));
        if joblib {
            return self.joblib(target, state);
        }
        Ok(())
    }

    /// The raw bytes that joblib writes behind the description of an array.
    fn joblib(&mut self, target: Id, state: Id) -> Result<(), Stop> {
        let Some(wrapped) = rebuild::wrapper(&self.tree, state)? else {
            return Err(Stop::damaged("an array that joblib pickled as objects"));
        };
        if wrapped.aligned {
            self.input.skip_padding()?;
        }
        let data = self.input.take(Array::size(&wrapped.dtype, &wrapped.shape)?)?;
        let array = Array::new(wrapped.dtype, wrapped.shape, wrapped.fortran, data)?;
        self.tree.nodes[target as usize] = Node::Array(Box::new(array));
        Ok(())
    }

    /// Follows one pickle to its end.
    fn pickle(&mut self) -> Result<Tree, Stop> {
        self.tree = Tree::default();
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let code = self.input.byte()?;
            if code == b'.' {
                self.tree.root = self.pop()?;
                return Ok(std::mem::take(&mut self.tree));
            }
            if self.stack.len() > 4_000_000 || self.marks.len() > 1_000_000 || self.memo.len() > 8_000_000 {
                return Err(Stop::damaged("the pickle holds too many values"));
            }
            self.step(code)?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), Stop> {
        match code {
            0x80 => {
                self.protocol = self.input.byte()?;
                Ok(())
            }
            0x95 => self.input.number(8).map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => {
                // Popping a mark is how an old pickler drops one.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(|_| ())
            }
            b'1' => self.marked().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' => self.push(Node::Null),
            0x88 | 0x89 => self.push(Node::Bool(code == 0x88)),
            b'I' | b'L' => {
                let line = self.input.line()?;
                match (code, line.as_str()) {
                    (b'I', "00") => self.push(Node::Bool(false)),
                    (b'I', "01") => self.push(Node::Bool(true)),
                    (_, text) => {
                        let text = text.strip_suffix('L').unwrap_or(text);
                        if !text.strip_prefix('-').unwrap_or(text).bytes().all(|b| b.is_ascii_digit()) {
                            return Err(wrong());
                        }
                        self.push(Node::Int(text.to_owned()))
                    }
                }
            }
            b'J' => {
                let value = self.input.number(4)? as u32 as i32;
                self.push(Node::Int(value.to_string()))
            }
            b'K' | b'M' => {
                let value = self.input.number(if code == b'K' { 1 } else { 2 })?;
                self.push(Node::Int(value.to_string()))
            }
            0x8a | 0x8b => {
                let len = self.input.number(if code == 0x8a { 1 } else { 4 })?;
                let blob = self.input.take(len)?;
                self.long(&blob)
            }
            b'F' => {
                let value: f64 = self.input.line()?.trim().parse().map_err(|_| wrong())?;
                self.push(Node::Float(value.to_bits()))
            }
            b'G' => {
                let bits = self.input.number(8)?.swap_bytes();
                self.push(Node::Float(bits))
            }
            b'S' | b'V' => {
                let line = match code {
                    // In this one each byte above ASCII is a character.
                    b'V' => self.input.raw_line()?.into_iter().map(char::from).collect(),
                    _ => self.input.line()?,
                };
                self.texts += line.len() as u64;
                if self.texts > TEXTS_MAX {
                    return Err(Stop::damaged("the pickle holds too much text"));
                }
                let text = if code == b'V' { rebuild::unescape(&line).ok_or_else(wrong)? } else { line };
                self.push(Node::Str(text))
            }
            b'T' | b'X' | b'U' | 0x8c | 0x8d => {
                let len = self.input.number(match code {
                    b'T' | b'X' => 4,
                    0x8d => 8,
                    _ => 1,
                })?;
                self.text(len)
            }
            b'B' | b'C' | 0x8e => {
                let len = self.input.number(match code {
                    b'B' => 4,
                    b'C' => 1,
                    _ => 8,
                })?;
                self.bytes("bytes", len)
            }
            0x96 => {
                let len = self.input.number(8)?;
                self.bytes("bytearray", len)
            }
            b']' => self.push(Node::List("list", Vec::new())),
            b')' => self.push(Node::List("tuple", Vec::new())),
            b'}' => self.push(Node::Map(Vec::new())),
            0x8f => self.push(Node::Set("set", Vec::new())),
            b'l' | b't' | 0x91 => {
                let items = self.marked()?;
                self.push(match code {
                    b'l' => Node::List("list", items),
                    b't' => Node::List("tuple", items),
                    _ => Node::Set("frozenset", items),
                })
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..code {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::List("tuple", items))
            }
            b'd' => {
                let items = self.marked()?;
                self.push(Node::Map(Vec::new()))?;
                let target = self.top()?;
                self.set_items(target, &items)
            }
            b'a' => {
                let item = self.pop()?;
                let target = self.top()?;
                self.extend(target, vec![item])
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                let target = self.top()?;
                self.extend(target, items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                let target = self.top()?;
                self.set_items(target, &[key, value])
            }
            b'u' => {
                let items = self.marked()?;
                let target = self.top()?;
                self.set_items(target, &items)
            }
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(&module, &name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let names = (self.plain(module).map(str::to_owned), self.plain(name).map(str::to_owned));
                let (Some(module), Some(name)) = names else { return Err(wrong()) };
                self.global(&module, &name)
            }
            b'R' => {
                let (args, function) = (self.pop()?, self.pop()?);
                self.reduce(function, args, "args")
            }
            0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.reduce(class, args, "new")
            }
            0x92 => {
                let (keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                let parts = [("class", class), ("new", args), ("keywords", keywords)];
                self.object("", parts.map(|(label, id)| (label.to_owned(), id)).into())
            }
            b'i' | b'o' => {
                if code == b'i' {
                    let (module, name) = (self.input.line()?, self.input.line()?);
                    let items = self.marked()?;
                    self.global(&module, &name)?;
                    self.push(Node::List("tuple", items))?;
                } else {
                    let mut items = self.marked()?;
                    if items.is_empty() {
                        return Err(wrong());
                    }
                    self.stack.push(items.remove(0));
                    self.push(Node::List("tuple", items))?;
                }
                let (args, class) = (self.pop()?, self.pop()?);
                self.reduce(class, args, "new")
            }
            b'b' => self.build(),
            b'P' => {
                let line = self.input.line()?;
                let id = self.tree.add(Node::Str(line))?;
                self.object("persistent id", vec![("id".to_owned(), id)])
            }
            b'Q' => {
                let id = self.pop()?;
                self.object("persistent id", vec![("id".to_owned(), id)])
            }
            0x82..=0x84 => {
                let value = self.input.number(1 << (code - 0x82))?;
                self.push(Node::Global(format!("extension {value}")))
            }
            b'p' | b'g' => {
                let key: u64 = self.input.line()?.parse().map_err(|_| wrong())?;
                if code == b'p' { self.put(key) } else { self.get(key) }
            }
            b'q' | b'r' => {
                let key = self.input.number(if code == b'q' { 1 } else { 4 })?;
                self.put(key)
            }
            b'h' | b'j' => {
                let key = self.input.number(if code == b'h' { 1 } else { 4 })?;
                self.get(key)
            }
            0x94 => self.put(self.memo.len() as u64),
            // Buffers outside of the file.
            0x97 => self.object("buffer", Vec::new()),
            0x98 => Ok(()),
            _ => Err(Stop::damaged(format!("the pickle has an unknown instruction {code:#04x}"))),
        }
    }

    fn long(&mut self, blob: &Blob) -> Result<(), Stop> {
        let Some(bytes) = blob.all(16)? else {
            // Whole numbers of any length: as their bytes.
            return self.push(Node::Bytes("long int", blob.clone()));
        };
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut full = [if negative { 0xff } else { 0 }; 16];
        full[..bytes.len()].copy_from_slice(&bytes);
        self.push(Node::Int(i128::from_le_bytes(full).to_string()))
    }
}
