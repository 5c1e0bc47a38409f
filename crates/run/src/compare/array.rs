//! Arrays of numbers: element types, and how two arrays differ.

use super::blob::{BLOCK, Blob, read_full};
use super::model::{Report, Stop, join};
use super::report::{Change, Distance, Elements};
use std::fmt::Write as _;
use trainlock_types::{Digest, Hasher};

/// Elements with more parts than this are compared as bytes.
const LEAVES_MAX: usize = 4096;
/// Elements longer than this are refused.
const ITEM_MAX: usize = 1 << 20;
/// Arrays of two layouts are compared by value up to this many bytes.
const TWO_LAYOUTS_MAX: usize = 64 << 20;

/// A binary floating-point format: sign, `exponent` bits, `mantissa` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Float {
    exponent: u32,
    mantissa: u32,
    /// No infinities, and NaN only where all bits are ones (the OCP's E4M3).
    finite: bool,
}

pub(super) const F64: Float = Float { exponent: 11, mantissa: 52, finite: false };
pub(super) const F32: Float = Float { exponent: 8, mantissa: 23, finite: false };
pub(super) const F16: Float = Float { exponent: 5, mantissa: 10, finite: false };
pub(super) const BF16: Float = Float { exponent: 8, mantissa: 7, finite: false };
pub(super) const F8_E5M2: Float = Float { exponent: 5, mantissa: 2, finite: false };
pub(super) const F8_E4M3: Float = Float { exponent: 4, mantissa: 3, finite: true };

impl Float {
    pub(super) const fn bytes(self) -> usize {
        (1 + self.exponent + self.mantissa) as usize / 8
    }

    fn name(self) -> String {
        match self {
            BF16 => "bfloat16".to_owned(),
            F8_E5M2 => "float8_e5m2".to_owned(),
            F8_E4M3 => "float8_e4m3".to_owned(),
            _ => format!("float{}", self.bytes() * 8),
        }
    }

    /// Bits without the sign.
    fn magnitude(self, bits: u64) -> u64 {
        bits & ((1u64 << (self.exponent + self.mantissa)) - 1)
    }

    fn negative(self, bits: u64) -> bool {
        bits >> (self.exponent + self.mantissa) & 1 == 1
    }

    fn decode(self, bits: u64) -> f64 {
        if self == F64 {
            return f64::from_bits(bits);
        }
        let fraction = bits & ((1u64 << self.mantissa) - 1);
        let top = (1u64 << self.exponent) - 1;
        let exponent = bits >> self.mantissa & top;
        let bias = (1i32 << (self.exponent - 1)) - 1;
        let unit = |e: i32| 2f64.powi(e - bias - self.mantissa as i32);
        let value = if exponent == top && self.finite && fraction == (1 << self.mantissa) - 1 {
            f64::NAN
        } else if exponent == top && !self.finite {
            if fraction == 0 { f64::INFINITY } else { f64::NAN }
        } else if exponent == 0 {
            fraction as f64 * unit(1)
        } else {
            (fraction | 1 << self.mantissa) as f64 * unit(exponent as i32)
        };
        if self.negative(bits) { -value } else { value }
    }

    /// The shortest decimal text that names this value among its neighbours.
    fn text(self, bits: u64) -> String {
        let value = self.decode(bits);
        match self {
            F64 => return format!("{value:?}"),
            F32 => return format!("{:?}", value as f32),
            _ => {}
        }
        if !value.is_finite() || value == 0.0 {
            return format!("{value:?}");
        }
        let gap = [bits - 1, bits + 1]
            .map(|near| (self.decode(near) - value).abs())
            .into_iter()
            .filter(|gap| gap.is_finite())
            .fold(f64::INFINITY, f64::min);
        for digits in 0..9 {
            let rounded: f64 = format!("{value:.digits$e}").parse().unwrap_or(value);
            if 2.0 * (rounded - value).abs() < gap {
                return format!("{rounded:?}");
            }
        }
        format!("{value:?}")
    }

    fn ulp(self, a: u64, b: u64) -> u64 {
        let place = |bits| {
            let magnitude = i128::from(self.magnitude(bits));
            if self.negative(bits) { -magnitude } else { magnitude }
        };
        (place(a) - place(b)).unsigned_abs() as u64
    }
}

/// What one part of an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Int {
        bytes: usize,
        signed: bool,
    },
    Float(Float),
    Complex(Float),
    /// UTF-32, padded with zeros.
    Text(usize),
    /// Bytes, shown as text.
    Chars(usize),
    /// Bytes.
    Raw(usize),
}

impl Scalar {
    pub(super) fn bytes(self) -> usize {
        match self {
            Scalar::Bool => 1,
            Scalar::Int { bytes, .. } => bytes,
            Scalar::Float(float) => float.bytes(),
            Scalar::Complex(float) => 2 * float.bytes(),
            Scalar::Text(n) => 4 * n,
            Scalar::Chars(n) | Scalar::Raw(n) => n,
        }
    }

    /// How many bytes the byte order turns around.
    fn word(self) -> usize {
        match self {
            Scalar::Complex(float) => float.bytes(),
            Scalar::Text(_) => 4,
            Scalar::Chars(_) | Scalar::Raw(_) => 1,
            other => other.bytes(),
        }
    }

    fn name(self) -> String {
        match self {
            Scalar::Bool => "bool".to_owned(),
            Scalar::Int { bytes, signed } => format!("{}int{}", if signed { "" } else { "u" }, bytes * 8),
            Scalar::Float(float) => float.name(),
            Scalar::Complex(float) => format!("complex{}", float.bytes() * 16),
            Scalar::Text(n) => format!("str{n}"),
            Scalar::Chars(n) => format!("bytes{n}"),
            Scalar::Raw(n) => format!("void{n}"),
        }
    }

    /// A value of this kind for people; `bytes` are as many as it has.
    pub(super) fn text(self, bytes: &[u8], big: bool) -> String {
        match self {
            Scalar::Bool => match bytes[0] {
                0 => "false".to_owned(),
                1 => "true".to_owned(),
                n => n.to_string(),
            },
            Scalar::Int { signed: true, .. } => signed(bytes, big).to_string(),
            Scalar::Int { signed: false, .. } => number(bytes, big).to_string(),
            Scalar::Float(float) => float.text(number(bytes, big)),
            Scalar::Complex(float) => {
                let (re, im) = bytes.split_at(float.bytes());
                let im = float.text(number(im, big));
                let sign = if im.starts_with('-') { "" } else { "+" };
                format!("{}{sign}{im}j", float.text(number(re, big)))
            }
            Scalar::Text(_) => {
                let text: String = bytes
                    .chunks_exact(4)
                    .map(|c| char::from_u32(number(c, big) as u32).unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect();
                clipped(&format!("{:?}", text.trim_end_matches('\0')))
            }
            Scalar::Chars(_) => {
                let text = String::from_utf8_lossy(bytes);
                clipped(&format!("{:?}", text.trim_end_matches('\0')))
            }
            Scalar::Raw(_) => hex(&bytes[..bytes.len().min(16)]),
        }
    }
}

/// Bytes in hexadecimal, apart.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (i, byte) in bytes.iter().enumerate() {
        let _ = write!(out, "{}{byte:02x}", if i == 0 { "" } else { " " });
    }
    out
}

/// At most 80 characters of a text.
pub(super) fn clipped(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn number(bytes: &[u8], big: bool) -> u64 {
    let fold = |n: u64, byte: &u8| n << 8 | u64::from(*byte);
    if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
}

fn signed(bytes: &[u8], big: bool) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    (number(bytes, big) << unused) as i64 >> unused
}

/// A part of an element: a field of a structured type, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The field; empty if the element is one value.
    pub(super) name: String,
    pub(super) offset: usize,
    pub(super) scalar: Scalar,
    pub(super) big: bool,
}

/// An element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    /// Its name for people; two types of one name are the same.
    pub(super) name: String,
    pub(super) size: usize,
    pub(super) leaves: Vec<Leaf>,
}

impl Dtype {
    pub(super) fn scalar(scalar: Scalar, big: bool) -> Dtype {
        Dtype::named(&scalar.name(), scalar, big)
    }

    /// A scalar type with a name of its own.
    pub(super) fn named(name: &str, scalar: Scalar, big: bool) -> Dtype {
        let big = big && scalar.word() > 1;
        let name = if big { format!("big-endian {name}") } else { name.to_owned() };
        let leaf = Leaf { name: String::new(), offset: 0, scalar, big };
        Dtype { name, size: scalar.bytes(), leaves: vec![leaf] }
    }

    /// Fields of a structured type: name, offset, type, how many of it.
    pub(super) fn structured(fields: &[(String, usize, Dtype, usize)], size: usize) -> Result<Dtype, Stop> {
        let mut leaves = Vec::new();
        let mut name = "{".to_owned();
        for (i, (field, offset, dtype, count)) in fields.iter().enumerate() {
            let times = if *count == 1 { String::new() } else { format!("×{count}") };
            let _ = write!(name, "{}{field}: {}{times}", if i == 0 { "" } else { ", " }, dtype.name);
            let end = dtype.size.checked_mul(*count).and_then(|n| n.checked_add(*offset));
            if end.is_none_or(|end| end > size) || leaves.len() + dtype.leaves.len().saturating_mul(*count) > LEAVES_MAX
            {
                return Err(Stop::damaged("its element type is too large or contradicts itself"));
            }
            for k in 0..*count {
                for leaf in &dtype.leaves {
                    let mut path = field.clone();
                    if *count > 1 {
                        let _ = write!(path, "[{k}]");
                    }
                    if !leaf.name.is_empty() {
                        let _ = write!(path, ".{}", leaf.name);
                    }
                    leaves.push(Leaf { name: path, offset: offset + k * dtype.size + leaf.offset, ..leaf.clone() });
                }
            }
        }
        name.push('}');
        Ok(Dtype { name, size, leaves })
    }

    /// Whether every byte belongs to a value.
    fn is_dense(&self) -> bool {
        self.leaves.iter().map(|leaf| leaf.scalar.bytes()).sum::<usize>() >= self.size
    }
}

/// An array: its elements lie in `data` one after the other.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// The first index moves fastest.
    pub(super) fortran: bool,
    pub(super) data: Blob,
}

impl Array {
    /// Refuses data of a length that type and shape do not have.
    pub(super) fn new(dtype: Dtype, shape: Vec<u64>, fortran: bool, data: Blob) -> Result<Array, Stop> {
        let bytes = Array::size(&dtype, &shape)?;
        if bytes != data.len() {
            return Err(Stop::damaged("an array's data is shorter or longer than its shape"));
        }
        // With fewer than two dimensions that are more than one long, both orders are the same.
        let fortran = fortran && shape.iter().filter(|n| **n != 1).count() > 1;
        Ok(Array { dtype, shape, fortran, data })
    }

    /// How many bytes an array has.
    pub(super) fn size(dtype: &Dtype, shape: &[u64]) -> Result<u64, Stop> {
        if shape.len() > 64 || dtype.size > ITEM_MAX {
            return Err(Stop::damaged("an array with too many dimensions or too long elements"));
        }
        if shape.contains(&0) {
            return Ok(0);
        }
        shape
            .iter()
            .try_fold(1, |n: u64, dimension| n.checked_mul(*dimension))
            .and_then(|n| n.checked_mul(dtype.size as u64))
            .ok_or_else(|| Stop::damaged("an array's shape is too large"))
    }

    fn count(&self) -> u64 {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    /// The index of the element that lies at place `flat` of the data.
    fn index(&self, flat: u64) -> Vec<u64> {
        let mut rest = flat;
        let mut index = vec![0; self.shape.len()];
        let mut put = |i: usize| {
            index[i] = rest % self.shape[i].max(1);
            rest /= self.shape[i].max(1);
        };
        if self.fortran {
            (0..self.shape.len()).for_each(&mut put);
        } else {
            (0..self.shape.len()).rev().for_each(&mut put);
        }
        index
    }

    /// The place in the data of the element with this index.
    fn flat(&self, index: &[u64]) -> u64 {
        let step = |place: u64, i: usize| place * self.shape[i] + index[i];
        if self.fortran { (0..index.len()).rev().fold(0, step) } else { (0..index.len()).fold(0, step) }
    }

    /// The digest of type, shape, order and elements, without padding.
    pub(super) fn digest(&self) -> Result<Digest, Stop> {
        let mut hasher = Hasher::new();
        hasher.update(format!("array\0{}\0{:?}\0{}\0", self.dtype.name, self.shape, self.fortran).as_bytes());
        let dense = self.dtype.is_dense();
        let size = self.dtype.size.max(1);
        let mut block = vec![0; (BLOCK / size).max(1) * size];
        let mut reader = self.data.reader();
        loop {
            let n = read_full(&mut reader, &mut block)?;
            if n == 0 {
                return Ok(hasher.finish());
            }
            if dense {
                hasher.update(&block[..n]);
                continue;
            }
            for item in block[..n].chunks_exact(size) {
                for leaf in &self.dtype.leaves {
                    hasher.update(&item[leaf.offset..leaf.offset + leaf.scalar.bytes()]);
                }
            }
        }
    }
}

/// The first differing pair: its place, both texts, and their bits where the texts are the same.
struct First {
    at: u64,
    a: String,
    b: String,
    bits: Option<(String, String)>,
}

/// What is counted over the differing pairs of one part of the elements.
#[derive(Default)]
pub(super) struct Stats {
    differing: u64,
    first: Option<First>,
    distance: Option<Distance>,
    nan_payloads: u64,
    zero_signs: u64,
    non_finite: u64,
}

impl Stats {
    /// Two values that are not the same bits, at place `at`.
    pub(super) fn pair(&mut self, leaf: &Leaf, other: &Leaf, at: u64, a: &[u8], b: &[u8]) {
        self.differing += 1;
        let (big, other) = (leaf.big, other.big);
        if self.first.is_none() {
            let (left, right) = (leaf.scalar.text(a, big), leaf.scalar.text(b, other));
            let bits = |bytes: &[u8], big: bool| {
                let mut bytes = bytes[..bytes.len().min(32)].to_vec();
                if !big {
                    bytes.reverse();
                }
                format!("0x{}", hex(&bytes).replace(' ', ""))
            };
            let shown = (left == right).then(|| (bits(a, big), bits(b, other)));
            self.first = Some(First { at, a: left, b: right, bits: shown });
        }
        match leaf.scalar {
            Scalar::Float(float) => self.floats(float, number(a, big), number(b, other)),
            Scalar::Complex(float) => {
                let n = float.bytes();
                for part in [0..n, n..2 * n] {
                    let (x, y) = (number(&a[part.clone()], big), number(&b[part], other));
                    if x != y {
                        self.floats(float, x, y);
                    }
                }
            }
            Scalar::Int { signed: true, .. } => {
                self.far(signed(a, big).abs_diff(signed(b, other)) as f64, None);
            }
            Scalar::Int { signed: false, .. } => self.far(number(a, big).abs_diff(number(b, other)) as f64, None),
            Scalar::Bool | Scalar::Text(_) | Scalar::Chars(_) | Scalar::Raw(_) => {}
        }
    }

    fn floats(&mut self, float: Float, a: u64, b: u64) {
        let (x, y) = (float.decode(a), float.decode(b));
        if x.is_nan() && y.is_nan() {
            self.nan_payloads += 1;
        } else if x == y {
            self.zero_signs += 1;
            self.far(0.0, Some(0));
        } else if x.is_finite() && y.is_finite() {
            self.far((x - y).abs(), Some(float.ulp(a, b)));
        } else {
            self.non_finite += 1;
        }
    }

    fn far(&mut self, abs: f64, ulp: Option<u64>) {
        let far = self.distance.get_or_insert_default();
        // Infinity is no number in JSON.
        far.abs = far.abs.max(abs.min(f64::MAX));
        far.ulp = far.ulp.max(ulp);
    }

    /// Two texts that are not the same value; where both are numbers, their distance counts.
    pub(super) fn cells(&mut self, at: u64, a: &str, b: &str) {
        self.differing += 1;
        if self.first.is_none() {
            self.first = Some(First { at, a: clipped(a), b: clipped(b), bits: None });
        }
        if let (Ok(x), Ok(y)) = (a.trim().parse::<f64>(), b.trim().parse::<f64>()) {
            self.floats(F64, x.to_bits(), y.to_bits());
        }
    }

    /// What was found, if anything; `index` makes an index of a place.
    pub(super) fn finish(self, dtype: &str, of: u64, index: impl Fn(u64) -> Vec<u64>) -> Option<Elements> {
        let First { at, a, b, bits } = self.first?;
        Some(Elements {
            dtype: dtype.to_owned(),
            differing: self.differing,
            of,
            first: index(at),
            a,
            b,
            bits,
            distance: self.distance,
            nan_payloads: self.nan_payloads,
            zero_signs: self.zero_signs,
            non_finite: self.non_finite,
        })
    }
}

/// How two 64-bit numbers that are not the same are apart; none if one is not finite.
pub(super) fn apart(a: f64, b: f64) -> Option<Distance> {
    let mut stats = Stats::default();
    stats.floats(F64, a.to_bits(), b.to_bits());
    stats.distance
}

/// Whether both hold the same kinds of values, whatever their byte order.
fn alike(a: &Dtype, b: &Dtype) -> bool {
    a.size == b.size
        && a.leaves.len() == b.leaves.len()
        && a.leaves.iter().zip(&b.leaves).all(|(a, b)| (&a.name, a.scalar, a.offset) == (&b.name, b.scalar, b.offset))
}

/// Says how two arrays differ.
pub(super) fn compare(place: &str, a: &Array, b: &Array, report: &mut Report) -> Result<(), Stop> {
    if a.dtype.name != b.dtype.name {
        report.differs(place, Change::Dtype { a: a.dtype.name.clone(), b: b.dtype.name.clone() });
    }
    if a.shape != b.shape {
        report.differs(place, Change::Shape { a: a.shape.clone(), b: b.shape.clone() });
        return Ok(());
    }
    if a.fortran != b.fortran {
        let name = |fortran| if fortran { "Fortran" } else { "C" }.to_owned();
        report.differs(place, Change::Order { a: name(a.fortran), b: name(b.fortran) });
    }
    if !alike(&a.dtype, &b.dtype) || a.dtype.size == 0 {
        return Ok(());
    }
    let mut stats: Vec<Stats> = a.dtype.leaves.iter().map(|_| Stats::default()).collect();
    if a.fortran == b.fortran && a.dtype == b.dtype {
        one_layout(a, b, &mut stats)?;
    } else if let (Some(left), Some(right)) = (a.data.all(TWO_LAYOUTS_MAX)?, b.data.all(TWO_LAYOUTS_MAX)?) {
        for at in 0..a.count() {
            let place = b.flat(&a.index(at));
            let item = |at: u64| at as usize * a.dtype.size..(at as usize + 1) * a.dtype.size;
            pairs(a, b, at, &left[item(at)], &right[item(place)], &mut stats);
        }
    }
    for (leaf, stats) in a.dtype.leaves.iter().zip(stats) {
        let dtype = if leaf.name.is_empty() { a.dtype.name.clone() } else { leaf.scalar.name() };
        if let Some(elements) = stats.finish(&dtype, a.count(), |at| a.index(at)) {
            let place = if leaf.name.is_empty() { place.to_owned() } else { join(place, ".", &leaf.name) };
            report.differs(&place, Change::Elements(Box::new(elements)));
        }
    }
    Ok(())
}

/// Arrays whose elements lie in the same places: equal blocks are only compared as bytes.
fn one_layout(a: &Array, b: &Array, stats: &mut [Stats]) -> Result<(), Stop> {
    let size = a.dtype.size;
    let mut left = vec![0; (BLOCK / size).max(1) * size];
    let mut right = left.clone();
    let (mut one, mut two) = (a.data.reader(), b.data.reader());
    let mut at = 0;
    // Within a differing block, equal stretches are skipped as bytes, too.
    let stretch = (4096 / size).max(1) * size;
    loop {
        let n = read_full(&mut one, &mut left)?;
        if n == 0 || read_full(&mut two, &mut right)? != n {
            return Ok(());
        }
        if left[..n] != right[..n] {
            for (k, (x, y)) in left[..n].chunks(stretch).zip(right[..n].chunks(stretch)).enumerate() {
                if x == y {
                    continue;
                }
                for (i, (x, y)) in x.chunks_exact(size).zip(y.chunks_exact(size)).enumerate() {
                    if x != y {
                        pairs(a, b, at + (k * (stretch / size) + i) as u64, x, y, stats);
                    }
                }
            }
        }
        at += (n / size) as u64;
    }
}

/// Compares one element, part by part.
fn pairs(a: &Array, b: &Array, at: u64, x: &[u8], y: &[u8], stats: &mut [Stats]) {
    for ((leaf, other), stats) in a.dtype.leaves.iter().zip(&b.dtype.leaves).zip(stats) {
        let part = leaf.offset..leaf.offset + leaf.scalar.bytes();
        let (x, y) = (&x[part.clone()], &y[part]);
        let same = if leaf.big == other.big { x == y } else { same_swapped(leaf.scalar, x, y) };
        if !same {
            stats.pair(leaf, other, at, x, y);
        }
    }
}

/// Whether two values of two byte orders are the same.
fn same_swapped(scalar: Scalar, x: &[u8], y: &[u8]) -> bool {
    let word = scalar.word();
    x.chunks(word).zip(y.chunks(word)).all(|(x, y)| x.iter().eq(y.iter().rev()))
}
