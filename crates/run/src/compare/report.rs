//! What a comparison finds, in data and in words.

use serde::{Deserialize, Serialize};
use std::fmt;

/// As many differences are described; the rest is counted.
pub const DESCRIBED: usize = 32;

/// How much two files are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sameness {
    /// Byte for byte.
    Identical,
    /// The bytes differ only in what the container adds: times, member order, compression.
    SameContent,
    /// The content differs.
    Different,
}

/// What two files are to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The file, as the caller named it.
    pub name: String,
    /// The verdict.
    pub verdict: Sameness,
    /// What the containers differ in, one entry a kind.
    pub noise: Vec<Noise>,
    /// The first differences of the content, in the file's order; at most [`DESCRIBED`].
    pub differences: Vec<Difference>,
    /// How many differences of the content there are; an array counts as one.
    pub total: u64,
}

/// A kind of container noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// When a member or the file was written.
    Time,
    /// The order of members, keys or tensors.
    Order,
    /// The compression method, its level, or how it cut the data.
    Compression,
    /// Owner and group of members.
    Owner,
    /// A name that the container has for itself.
    ContainerName,
    /// Extra fields, comments and other facts about members.
    Extra,
    /// Version of the format, or the program that wrote it.
    Version,
    /// Spaces, line ends, quotes, how numbers and texts are spelt.
    Spelling,
    /// Bytes between the parts that carry no meaning.
    Padding,
    /// How equal values are written: memo, framing, sharing.
    Encoding,
    /// Text and time chunks of an image.
    Annotation,
    /// The format could not be followed, and the bytes were compared; both texts say why.
    AsBytes,
}

impl NoiseKind {
    const fn words(self) -> &'static str {
        match self {
            NoiseKind::Time => "times",
            NoiseKind::Order => "order",
            NoiseKind::Compression => "compression",
            NoiseKind::Owner => "owners",
            NoiseKind::ContainerName => "the container's own name",
            NoiseKind::Extra => "extra fields",
            NoiseKind::Version => "format version or writer",
            NoiseKind::Spelling => "spelling",
            NoiseKind::Padding => "padding",
            NoiseKind::Encoding => "encoding",
            NoiseKind::Annotation => "annotations",
            NoiseKind::AsBytes => "compared as bytes",
        }
    }
}

/// One kind of noise and the first place where it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noise {
    /// What it is.
    pub kind: NoiseKind,
    /// Where it shows first; empty for the file itself.
    pub place: String,
    /// What the first file has there; empty where it can't be told in a few words.
    pub a: String,
    /// What the second file has there.
    pub b: String,
    /// How many places show it.
    pub count: u64,
}

/// A difference of the content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Where in the file: members and entries, joined by ` » ` between containers and as `key.key[3]` within
    /// structured values; empty for the file itself.
    pub place: String,
    /// What differs.
    #[serde(flatten)]
    pub change: Change,
}

/// What differs at a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// Only the first file has it.
    Missing {
        /// What it is.
        what: String,
    },
    /// Only the second file has it.
    Added {
        /// What it is.
        what: String,
    },
    /// Another format, or a value of another type.
    Type {
        /// In the first file.
        a: String,
        /// In the second file.
        b: String,
    },
    /// Another element type of an array.
    Dtype {
        /// In the first file.
        a: String,
        /// In the second file.
        b: String,
    },
    /// Another shape of an array, or another length.
    Shape {
        /// In the first file.
        a: Vec<u64>,
        /// In the second file.
        b: Vec<u64>,
    },
    /// Elements of an array or of a column.
    Elements(Box<Elements>),
    /// A single value.
    Value {
        /// In the first file.
        a: String,
        /// In the second file.
        b: String,
        /// How far apart two numbers are.
        distance: Option<Distance>,
    },
    /// A property of a member, like its mode.
    Attribute {
        /// Which one.
        name: String,
        /// In the first file.
        a: String,
        /// In the second file.
        b: String,
    },
    /// Columns in another order.
    Order {
        /// In the first file.
        a: String,
        /// In the second file.
        b: String,
    },
    /// Text, at its first differing place.
    Text {
        /// The byte offset.
        offset: u64,
        /// The line, from 1.
        line: u64,
        /// The column in bytes, from 1.
        column: u64,
        /// That line of the first file, cut around the place.
        a: String,
        /// That line of the second file.
        b: String,
    },
    /// Bytes, at their first differing place.
    Bytes {
        /// The byte offset.
        offset: u64,
        /// Bytes of the first file from there, in hexadecimal; empty at its end.
        a: String,
        /// Bytes of the second file from there.
        b: String,
        /// Lengths of both.
        lengths: (u64, u64),
    },
}

/// How far two numbers are apart.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Distance {
    /// The largest absolute distance of two finite numbers (a lower bound where it is beyond an f64).
    pub abs: f64,
    /// The largest distance in units in the last place, for floating-point numbers; -0.0 and 0.0 have none.
    pub ulp: Option<u64>,
}

/// How the elements of two arrays of one type and shape differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Elements {
    /// The element type, as the format names it.
    pub dtype: String,
    /// How many elements differ, bit for bit.
    pub differing: u64,
    /// Of how many.
    pub of: u64,
    /// The index of the first, from 0 in each dimension; for a column the row.
    pub first: Vec<u64>,
    /// The first file's element there; the shortest text that gives its value again.
    pub a: String,
    /// The second file's element.
    pub b: String,
    /// The bits of both in hexadecimal, where their texts are the same.
    pub bits: Option<(String, String)>,
    /// The largest distance between finite numbers; none if no differing pair is such.
    pub distance: Option<Distance>,
    /// Pairs of NaNs with other bits.
    pub nan_payloads: u64,
    /// Pairs of -0.0 and 0.0.
    pub zero_signs: u64,
    /// Pairs of which one at least is NaN or infinite, and which are not equal in value.
    pub non_finite: u64,
}

/// A count with its thousands apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ulp {
            Some(ulp) => write!(f, "at most {} ULP, {}", grouped(ulp), brief(self.abs)),
            None => write!(f, "at most {} apart", brief(self.abs)),
        }
    }
}

/// Two significant digits of a distance.
fn brief(x: f64) -> String {
    if x.fract() == 0.0 && x < 1e9 {
        return format!("{x}");
    }
    let text = format!("{x:.1e}");
    match x {
        1e-3..1e4 => text.parse::<f64>().map_or(text, |x| format!("{x}")),
        _ => text,
    }
}

fn list(items: &[u64]) -> String {
    let texts: Vec<String> = items.iter().map(u64::to_string).collect();
    texts.join(", ")
}

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "differs at [{}]: {} ≠ {}", list(&self.first), self.a, self.b)?;
        if let Some((a, b)) = &self.bits {
            write!(f, ", bits {a} ≠ {b}")?;
        }
        let plural = if self.of == 1 { "element" } else { "elements" };
        write!(f, " ({} of {} {plural}", grouped(self.differing), grouped(self.of))?;
        if let Some(distance) = &self.distance {
            write!(f, ", {distance}")?;
        }
        for (count, what) in [
            (self.non_finite, "with NaN or infinity on one side"),
            (self.nan_payloads, "NaN with other bits"),
            (self.zero_signs, "only in the sign of zero"),
        ] {
            if count > 0 {
                write!(f, ", {} {what}", grouped(count))?;
            }
        }
        f.write_str(")")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let array = matches!(self.change, Change::Elements(_) | Change::Dtype { .. } | Change::Shape { .. });
        if !self.place.is_empty() {
            write!(f, "{}`{}` ", if array { "array " } else { "" }, self.place)?;
        }
        match &self.change {
            Change::Missing { what } => write!(f, "is missing in the second ({what})"),
            Change::Added { what } => write!(f, "is only in the second ({what})"),
            Change::Type { a, b } => write!(f, "is something else: {a} ≠ {b}"),
            Change::Dtype { a, b } => write!(f, "has another dtype: {a} ≠ {b}"),
            Change::Shape { a, b } => write!(f, "has another shape: [{}] ≠ [{}]", list(a), list(b)),
            Change::Elements(elements) => elements.fmt(f),
            Change::Value { a, b, distance } => {
                write!(f, "differs: {a} ≠ {b}")?;
                distance.map_or(Ok(()), |distance| write!(f, " ({distance})"))
            }
            Change::Attribute { name, a, b } => write!(f, "has another {name}: {a} ≠ {b}"),
            Change::Order { a, b } => write!(f, "has another order: {a} ≠ {b}"),
            Change::Text { line, column, a, b, .. } => {
                write!(f, "differs at line {line}, column {column}: {a:?} ≠ {b:?}")
            }
            Change::Bytes { offset, a, b, lengths } => {
                let shown = |text: &str| if text.is_empty() { "end".to_owned() } else { text.to_owned() };
                write!(f, "differs at byte {}: {} ≠ {}", grouped(*offset), shown(a), shown(b))?;
                match lengths {
                    (a, b) if a == b => Ok(()),
                    (a, b) => write!(f, " ({} ≠ {} bytes)", grouped(*a), grouped(*b)),
                }
            }
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.name)?;
        match (self.verdict, self.differences.first()) {
            (Sameness::Different, Some(first)) => {
                first.fmt(f)?;
                match self.total {
                    0 | 1 => {}
                    2 => f.write_str("\nand in 1 other place")?,
                    n => write!(f, "\nand in {} other places", grouped(n - 1))?,
                }
                match self.noise.iter().find(|noise| noise.kind == NoiseKind::AsBytes) {
                    Some(noise) => write!(f, "\ncompared as bytes: {}", noise.a),
                    None => Ok(()),
                }
            }
            (Sameness::Different, None) => f.write_str("differs"),
            (Sameness::Identical, _) => f.write_str("is identical"),
            (Sameness::SameContent, _) => {
                f.write_str("has the same content; only the container differs: ")?;
                for (i, noise) in self.noise.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, noise.kind.words())?;
                    if i == 0 && !(noise.a.is_empty() && noise.b.is_empty()) {
                        write!(f, " ({} ≠ {})", noise.a, noise.b)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// How far a metric may be from its sealed value and still count as equal.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Tolerance {
    /// The largest absolute distance.
    pub abs: f64,
    /// The largest distance as a part of the larger of the two magnitudes.
    pub rel: f64,
}

impl Tolerance {
    /// Whether `a` and `b` are within this tolerance of each other. Two NaNs are, and two infinities of one
    /// sign; otherwise NaN and infinities are near nothing.
    pub fn within(&self, a: f64, b: f64) -> bool {
        if a == b || (a.is_nan() && b.is_nan()) {
            return true;
        }
        if !a.is_finite() || !b.is_finite() {
            return false;
        }
        (a - b).abs() <= self.abs.max(self.rel * a.abs().max(b.abs()))
    }
}
