//! Tables as text: a header line, and cells that are compared by value where they are numbers.
//!
//! Source: RFC 4180, with `,`, `;` or tabs between the cells. Quotes, line ends, the byte order mark and the
//! spelling of numbers are noise; names and order of columns, and the order of rows, are content.

use super::array::Stats;
use super::blob::{Blob, BlobReader};
use super::model::{Body, Facts, Opened, Report, Stop, join};
use super::report::{Change, NoiseKind};
use super::tree::canonical_number;
use std::io::{BufReader, Read as _};
use trainlock_types::{Digest, Hasher};

const RECORD_MAX: usize = 8 << 20;
const COLUMNS_MAX: usize = 20_000;

/// A table in a file.
#[derive(Debug)]
pub(super) struct Table {
    blob: Blob,
    between: u8,
}

pub(super) fn open(blob: &Blob, extension: &str) -> Result<Opened, Stop> {
    let head = blob.some(0, 64 << 10)?;
    if head.contains(&0) {
        return Err(Stop::damaged("it is no text"));
    }
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let count = |mark: u8| line.iter().filter(|b| **b == mark).count();
    // Of marks that are equally many the first one counts.
    let between = match extension {
        "tsv" => b'\t',
        _ if count(b',') > 0 => b',',
        _ => [b'\t', b';'].into_iter().find(|mark| count(*mark) > 0).unwrap_or(b','),
    };
    let between_text = (NoiseKind::Spelling, format!("{:?} between cells", between as char));
    let table = Table { blob: blob.clone(), between };
    Ok(Opened { what: "a table", facts: Facts::from([between_text]), body: Body::Table(table) })
}

struct Records {
    input: std::io::Bytes<BufReader<BlobReader>>,
    between: u8,
    pending: Option<u8>,
}

impl Records {
    fn new(table: &Table) -> Result<Records, Stop> {
        let skip = if table.blob.some(0, 3)? == b"\xef\xbb\xbf" { 3 } else { 0 };
        let blob = table.blob.from(skip).ok_or_else(|| Stop::damaged("it is cut off"))?;
        let input = BufReader::with_capacity(64 << 10, blob.reader()).bytes();
        Ok(Records { input, between: table.between, pending: None })
    }

    fn byte(&mut self) -> Result<Option<u8>, Stop> {
        match self.pending.take() {
            Some(byte) => Ok(Some(byte)),
            None => Ok(self.input.next().transpose()?),
        }
    }

    /// The cells of the next record; none at the end.
    fn next(&mut self) -> Result<Option<Vec<String>>, Stop> {
        let mut cells = Vec::new();
        let mut cell = Vec::new();
        let (mut total, mut quoted, mut any) = (0, false, false);
        loop {
            let byte = self.byte()?;
            total += 1;
            if total > RECORD_MAX || cells.len() > COLUMNS_MAX {
                return Err(Stop::damaged("a row is too long"));
            }
            match byte {
                None if quoted => return Err(Stop::damaged("a quote has no end")),
                None if !any => return Ok(None),
                Some(b'"') if quoted => match self.byte()? {
                    Some(b'"') => cell.push(b'"'),
                    next => {
                        quoted = false;
                        self.pending = next;
                    }
                },
                Some(b'"') if cell.is_empty() => quoted = true,
                Some(byte) if quoted => cell.push(byte),
                None | Some(b'\n' | b'\r') => {
                    if byte == Some(b'\r') {
                        self.pending = self.byte()?.filter(|next| *next != b'\n');
                    }
                    cells.push(text(cell)?);
                    return Ok(Some(cells));
                }
                Some(byte) if byte == self.between => cells.push(text(std::mem::take(&mut cell))?),
                Some(byte) => cell.push(byte),
            }
            any = true;
        }
    }
}

fn text(cell: Vec<u8>) -> Result<String, Stop> {
    String::from_utf8(cell).map_err(|_| Stop::damaged("it is not UTF-8"))
}

/// A column's name: the header's, if the first line is one, else its number from 1.
fn names(first: &[String]) -> (bool, Vec<String>) {
    let header = first.iter().all(|cell| canonical_number(cell).is_none());
    let name = |(i, cell): (usize, &String)| match cell.as_str() {
        name if header && !name.is_empty() => name.to_owned(),
        _ => (i + 1).to_string(),
    };
    (header, first.iter().enumerate().map(name).collect())
}

/// Says how the columns of two tables differ; gives the place of each of the first in the second.
pub(super) fn columns(place: &str, names_a: &[String], names_b: &[String], report: &mut Report) -> Vec<Option<usize>> {
    if names_a != names_b {
        for name in names_a.iter().filter(|name| !names_b.contains(name)) {
            report.differs(&join(place, " » ", name), Change::Missing { what: "a column".to_owned() });
        }
        for name in names_b.iter().filter(|name| !names_a.contains(name)) {
            report.differs(&join(place, " » ", name), Change::Added { what: "a column".to_owned() });
        }
        let common = |of: &[String], other: &[String]| -> Vec<String> {
            of.iter().filter(|name| other.contains(name)).cloned().collect()
        };
        let (one, two) = (common(names_a, names_b), common(names_b, names_a));
        if one != two || names_a.len() == names_b.len() && one.len() == names_a.len() {
            report.differs(place, Change::Order { a: one.join(", "), b: two.join(", ") });
        }
    }
    if names_a == names_b {
        return (0..names_a.len()).map(Some).collect();
    }
    names_a.iter().map(|name| names_b.iter().position(|b| b == name)).collect()
}

/// Says how two tables differ.
pub(super) fn compare(place: &str, a: &Table, b: &Table, report: &mut Report) -> Result<(), Stop> {
    let (mut left, mut right) = (Records::new(a)?, Records::new(b)?);
    let (first_a, first_b) = (left.next()?.unwrap_or_default(), right.next()?.unwrap_or_default());
    let ((header_a, names_a), (header_b, names_b)) = (names(&first_a), names(&first_b));
    let other = columns(place, &names_a, &names_b, report);
    let mut stats: Vec<Stats> = names_a.iter().map(|_| Stats::default()).collect();
    let (mut rows_a, mut rows_b) = (0, 0);
    let (mut one, mut two) = (if header_a { None } else { Some(first_a) }, if header_b { None } else { Some(first_b) });
    loop {
        let (x, y) = (
            if let Some(row) = one.take() { Some(row) } else { left.next()? },
            if let Some(row) = two.take() { Some(row) } else { right.next()? },
        );
        rows_a += u64::from(x.is_some());
        rows_b += u64::from(y.is_some());
        let (x, y) = match (x, y) {
            (Some(x), Some(y)) => (x, y),
            (None, None) => break,
            _ => continue,
        };
        if names_a == names_b && x.len() != y.len() {
            let place = join(place, " » ", &format!("row {}", rows_a - 1));
            report.differs(&place, Change::Shape { a: vec![x.len() as u64], b: vec![y.len() as u64] });
        }
        // Cells beyond the header have no column to be counted in.
        let columns = x.iter().zip(&other).zip(&mut stats);
        for ((cell, other), stats) in columns {
            let Some(twin) = other.and_then(|at| y.get(at)) else { continue };
            if cell == twin {
                continue;
            }
            match (canonical_number(cell), canonical_number(twin)) {
                (Some(one), Some(two)) if one == two => {
                    report.noise(NoiseKind::Spelling, place, cell, twin);
                }
                _ => stats.cells(rows_a - 1, cell, twin),
            }
        }
        if names_a == names_b {
            for (i, (cell, twin)) in x.iter().zip(&y).enumerate().skip(names_a.len()) {
                if canonical_cell(cell) != canonical_cell(twin) {
                    let place = join(place, " » ", &format!("row {}[{i}]", rows_a - 1));
                    report.differs(&place, Change::Value { a: cell.clone(), b: twin.clone(), distance: None });
                }
            }
        }
    }
    if rows_a != rows_b || header_a != header_b {
        report.differs(place, Change::Shape { a: vec![rows_a], b: vec![rows_b] });
    }
    for (name, stats) in names_a.iter().zip(stats) {
        if let Some(elements) = stats.finish("cells", rows_a.min(rows_b), |at| vec![at]) {
            report.differs(&join(place, " » ", name), Change::Elements(Box::new(elements)));
        }
    }
    Ok(())
}

fn canonical_cell(cell: &str) -> String {
    canonical_number(cell).map_or_else(|| format!("text {cell}"), |number| format!("number {number}"))
}

/// The digest of header and cells.
pub(super) fn digest(table: &Table) -> Result<Digest, Stop> {
    let mut records = Records::new(table)?;
    let mut hasher = Hasher::new();
    while let Some(cells) = records.next()? {
        hasher.update(format!("{}\0", cells.len()).as_bytes());
        for cell in cells {
            let cell = canonical_cell(&cell);
            hasher.update(format!("{}\0{cell}", cell.len()).as_bytes());
        }
    }
    Ok(hasher.finish())
}
