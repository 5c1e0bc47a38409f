//! Parquet: tables by column, in row groups and pages that are compressed and encoded as the writer likes.
//!
//! Content is the columns' names, types and order, and all values with their nulls and lists. Row groups, pages, encodings,
//! compression, statistics, the writer's name and the key-value metadata are noise.
//!
//! Read here and not by the `parquet` crate: that one takes what a file says of its lengths for granted in many places (a
//! page that unpacks to any size, values by the million from a few bytes, slices that panic), and this reads files of others.

mod footer;
mod pages;
mod thrift;
mod values;

use super::array::{Leaf, Stats};
use super::blob::Blob;
use super::csv;
use super::model::{Body, Opened, Report, Stop, join};
use super::report::Change;
use footer::{Chunk, Column, Footer, Physical};
use pages::{Next, Page, Pages};
use std::sync::Arc;
use trainlock_types::{Digest, Hasher};
use values::{Dictionary, Runs, Values};

/// So many cells of a column are followed in any file, and so many more for each of the file's bytes.
const CELLS: u64 = 1 << 20;
const CELLS_FOR_A_BYTE: u64 = 1024;

/// A table in a file.
#[derive(Debug)]
pub(super) struct Columns {
    blob: Blob,
    footer: Footer,
}

pub(super) fn is_parquet(head: &[u8]) -> bool {
    head.starts_with(b"PAR1")
}

pub(super) fn open(blob: &Blob) -> Result<Opened, Stop> {
    let mut footer = footer::read(blob)?;
    let facts = std::mem::take(&mut footer.facts);
    let body = Body::Columns(Box::new(Columns { blob: blob.clone(), footer }));
    Ok(Opened { what: "a Parquet file", facts, body })
}

/// A value's place in its row, and whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels {
    /// 0 where a row begins.
    repetition: u32,
    /// Less than the column's highest: a null, or an empty list.
    definition: u32,
}

/// The cells of a column over all row groups.
struct Cells<'a> {
    column: &'a Column,
    blob: &'a Blob,
    chunks: std::slice::Iter<'a, Chunk>,
    /// Of the chunk that is read.
    pages: Option<Pages>,
    dictionary: Option<Arc<Dictionary>>,
    cells_left: u64,
    rows_left: u64,
    /// Of the page that is read.
    in_page: u64,
    repetitions: Option<Runs>,
    definitions: Option<Runs>,
    values: Option<Values>,
    /// Of the whole column.
    budget: u64,
}

fn wrong() -> Stop {
    Stop::damaged("a column has other rows than the file says")
}

impl<'a> Cells<'a> {
    fn new(table: &'a Columns, column: &'a Column) -> Cells<'a> {
        Cells {
            column,
            blob: &table.blob,
            chunks: column.chunks.iter(),
            pages: None,
            dictionary: None,
            cells_left: 0,
            rows_left: 0,
            in_page: 0,
            repetitions: None,
            definitions: None,
            values: None,
            budget: CELLS.saturating_add(table.blob.len().saturating_mul(CELLS_FOR_A_BYTE)),
        }
    }

    /// The next cell; none at the end. Its value is taken by [`Cells::value`].
    fn next(&mut self) -> Result<Option<Levels>, Stop> {
        while self.cells_left == 0 {
            if self.rows_left != 0 {
                return Err(wrong());
            }
            let Some(chunk) = self.chunks.next() else { return Ok(None) };
            self.pages = Some(Pages::new(self.blob, chunk));
            self.dictionary = None;
            (self.cells_left, self.rows_left, self.in_page) = (chunk.cells, chunk.rows, 0);
        }
        while self.in_page == 0 {
            let pages = self.pages.as_mut().ok_or_else(wrong)?;
            match pages.next()? {
                Next::Dictionary(page) => {
                    self.dictionary = Some(Arc::new(Dictionary::new(page, self.column.physical)?))
                }
                Next::Data(page) => self.page(page)?,
            }
        }
        self.in_page -= 1;
        self.cells_left -= 1;
        self.budget = self.budget.checked_sub(1).ok_or_else(|| Stop::damaged("it stands for too many values"))?;
        let level = |runs: &mut Option<Runs>| runs.as_mut().map_or(Ok(0), Runs::next);
        let levels = Levels { repetition: level(&mut self.repetitions)?, definition: level(&mut self.definitions)? };
        if levels.repetition > self.column.max_repetition || levels.definition > self.column.max_definition {
            return Err(Stop::damaged("a page contradicts itself"));
        }
        if levels.repetition == 0 {
            self.rows_left = self.rows_left.checked_sub(1).ok_or_else(wrong)?;
        }
        Ok(Some(levels))
    }

    fn page(&mut self, page: Page) -> Result<(), Stop> {
        if page.cells > self.cells_left {
            return Err(wrong());
        }
        let (bytes, mut at) = (Arc::new(page.bytes), 0);
        let mut level = |highest: u32, apart: Option<usize>| -> Result<Option<Runs>, Stop> {
            let width = (u32::BITS - highest.leading_zeros()) as usize;
            let len = match apart {
                Some(len) => len,
                None if highest == 0 => 0,
                None => {
                    let len = bytes.get(at..).and_then(|rest: &[u8]| rest.first_chunk());
                    at += 4;
                    u32::from_le_bytes(*len.ok_or_else(|| Stop::damaged("a page is cut off"))?) as usize
                }
            };
            let end = at.saturating_add(len);
            let runs = Runs::new(&bytes, at, end, width)?;
            at = end;
            Ok((highest > 0).then_some(runs))
        };
        self.repetitions = level(self.column.max_repetition, page.levels.map(|levels| levels.0))?;
        self.definitions = level(self.column.max_definition, page.levels.map(|levels| levels.1))?;
        let dictionary = self.dictionary.as_ref();
        self.values = Some(Values::new(&bytes, at, self.column.physical, page.encoding, page.cells, dictionary)?);
        self.in_page = page.cells;
        Ok(())
    }

    /// The value of the cell that [`Cells::next`] gave, if it is there.
    fn value(&mut self, levels: Levels) -> Result<Option<&[u8]>, Stop> {
        if levels.definition < self.column.max_definition {
            return Ok(None);
        }
        let value = self.values.as_mut().ok_or_else(wrong)?.next()?;
        // What long values cost is counted, too.
        let cost = (value.len() / 64) as u64;
        self.budget = self.budget.checked_sub(cost).ok_or_else(|| Stop::damaged("it stands for too many values"))?;
        Ok(Some(value))
    }
}

/// A value in a few words.
fn text(column: &Column, levels: Levels, value: Option<&[u8]>) -> String {
    match (value, column.scalar) {
        (Some(value), Some(scalar)) => scalar.text(value, false),
        (Some(value), None) => match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => super::array::hex(&value[..value.len().min(16)]),
        },
        (None, _) if column.max_repetition > 0 => format!("null or empty (level {})", levels.definition),
        (None, _) => "null".to_owned(),
    }
}

/// Says how two columns of one type differ.
fn column(place: &str, a: (&Columns, &Column), b: (&Columns, &Column), report: &mut Report) -> Result<(), Stop> {
    let leaf = |scalar| Leaf { name: String::new(), offset: 0, scalar, big: false };
    let leaf = a.1.scalar.map(leaf);
    let mut stats = Stats::default();
    let (mut left, mut right) = (Cells::new(a.0, a.1), Cells::new(b.0, b.1));
    let (mut one, mut two) = (left.next()?, right.next()?);
    // Rows, then cells in the row, from 1 as long as it is read.
    let (mut row, mut in_row, mut cells) = (0, 0, 0);
    let mut first = None;
    while let (Some(x), Some(y)) = (one, two) {
        let begins = |levels: Levels| levels.repetition == 0;
        if begins(x) && begins(y) {
            (row, in_row) = (row + 1, 0);
        }
        in_row += 1;
        cells += 1;
        if begins(x) != begins(y) && in_row > 1 {
            // One of the rows has more cells: those are passed over.
            let (cells, levels) = if begins(x) { (&mut right, y) } else { (&mut left, x) };
            let value = text(cells.column, levels, cells.value(levels)?);
            let (a, b) = if begins(x) { ("nothing", value.as_str()) } else { (value.as_str(), "nothing") };
            first.get_or_insert((row, in_row));
            stats.cells(0, a, b);
            if begins(x) {
                two = right.next()?
            } else {
                one = left.next()?
            }
            continue;
        }
        let (value, twin) = (left.value(x)?, right.value(y)?);
        if x != y || value != twin {
            first.get_or_insert((row, in_row));
            match (value, twin, &leaf) {
                (Some(value), Some(twin), Some(leaf)) if value != twin => stats.pair(leaf, leaf, 0, value, twin),
                (value, twin, _) => {
                    let (one, two) = (text(a.1, x, value), text(b.1, y, twin));
                    // Of equal values one begins a list and the other goes on in one.
                    let told = |text: String, levels: Levels| match value == twin && value.is_some() {
                        true => format!("{text} (levels {}, {})", levels.repetition, levels.definition),
                        false => text,
                    };
                    stats.cells(0, &told(one, x), &told(two, y));
                }
            }
        }
        (one, two) = (left.next()?, right.next()?);
    }
    // What is left has no twin: both are read to their end, since a damaged one is no table.
    for (mut cell, cells) in [(one, &mut left), (two, &mut right)] {
        while let Some(levels) = cell {
            cells.value(levels)?;
            cell = cells.next()?;
        }
    }
    let nested = a.1.max_repetition > 0;
    let index = |_| match first {
        Some((row, cell)) if nested => vec![row - 1, cell - 1],
        Some((row, _)) => vec![row - 1],
        None => Vec::new(),
    };
    if let Some(elements) = stats.finish(&a.1.dtype, cells, index) {
        report.differs(place, Change::Elements(Box::new(elements)));
    }
    Ok(())
}

/// Says how two tables differ.
pub(super) fn compare(place: &str, a: &Columns, b: &Columns, report: &mut Report) -> Result<(), Stop> {
    let names = |table: &Columns| table.footer.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    let (names_a, names_b) = (names(a), names(b));
    let twins = csv::columns(place, &names_a, &names_b, report);
    if a.footer.rows != b.footer.rows {
        report.differs(place, Change::Shape { a: vec![a.footer.rows], b: vec![b.footer.rows] });
    }
    for (one, twin) in a.footer.columns.iter().zip(twins) {
        let Some(two) = twin.and_then(|at| b.footer.columns.get(at)) else { continue };
        let place = join(place, " » ", &one.name);
        if one.dtype != two.dtype {
            report.differs(&place, Change::Dtype { a: one.dtype.clone(), b: two.dtype.clone() });
            continue;
        }
        column(&place, (a, one), (b, two), report)?;
    }
    Ok(())
}

/// The digest of all columns.
pub(super) fn digest(table: &Columns) -> Result<Digest, Stop> {
    let mut hasher = Hasher::new();
    hasher.update(format!("{} rows\0", table.footer.rows).as_bytes());
    let mut buffer = Vec::new();
    for column in &table.footer.columns {
        for text in [&column.name, &column.dtype] {
            hasher.update(format!("{}\0{text}", text.len()).as_bytes());
        }
        let mut cells = Cells::new(table, column);
        while let Some(levels) = cells.next()? {
            buffer.push(1);
            buffer.extend_from_slice(&levels.repetition.to_le_bytes());
            buffer.extend_from_slice(&levels.definition.to_le_bytes());
            if let Some(value) = cells.value(levels)? {
                if column.physical == Physical::Bytes {
                    buffer.extend_from_slice(&(value.len() as u64).to_le_bytes());
                }
                buffer.extend_from_slice(value);
            }
            if buffer.len() > 64 << 10 {
                hasher.update(&buffer);
                buffer.clear();
            }
        }
        buffer.push(0);
    }
    hasher.update(&buffer);
    Ok(hasher.finish())
}
