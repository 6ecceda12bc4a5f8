//! What a person reads: tables, times, identities. The same values say themselves in JSON.

use std::fmt::{self, Write};

use serde::{Serialize, Serializer};

/// A checksum or a random identity: hexadecimal. JSON numbers do not reach that far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hex(pub(super) u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number that people chose: decimal, and a string in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal(pub(super) u128);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Enough of a checksum to compare by eye.
pub(super) fn prefix(checksum: Hex) -> String {
    format!("{:08x}", checksum.0 >> 96)
}

/// An identity as short as it can be: small numbers whole, random ones by their first digits.
pub(super) fn short(id: Hex) -> String {
    const DIGITS: usize = 12;
    let mut text = format!("{:x}", id.0);
    if text.len() > DIGITS {
        text.truncate(DIGITS);
        text.push('…');
    }
    text
}

/// Nanoseconds since 1970 in UTC, as RFC 3339 writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Utc(pub(super) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 86_400;
        let (seconds, nanoseconds) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let (mut days, second) = (seconds / DAY, seconds % DAY);
        // Nanoseconds in 64 bits end in 2554: a loop over years is short enough.
        let mut year = 1970;
        while days >= days_of(year) {
            days -= days_of(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            month += 1;
        }
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let day = days + 1;
        write!(
            f,
            "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z"
        )
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn days_of(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    365 + u64::from(leap)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => days_of(year) - 337,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A heading, and what it is about.
pub(super) fn heading(out: &mut String, name: &str, about: impl fmt::Display) {
    let _ = writeln!(out, "{name}  {about}");
}

/// One line of a list: a name of up to twenty characters and a value.
pub(super) fn line(out: &mut String, name: &str, value: impl fmt::Display) {
    let _ = writeln!(out, "  {name:<20}{value}");
}

/// Which side of its column a cell keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Columns as wide as they must be, two spaces between them and before the first.
#[derive(Debug)]
pub(super) struct Columns {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(super) fn new(titles: &[(&str, Side)]) -> Self {
        Self {
            sides: titles.iter().map(|(_, side)| *side).collect(),
            rows: vec![
                titles
                    .iter()
                    .map(|(title, _)| (*title).to_owned())
                    .collect(),
            ],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.sides.len());
        self.rows.push(cells);
    }

    pub(super) fn write(&self, out: &mut String) {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        for row in &self.rows {
            let start = out.len();
            for ((cell, side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let _ = match side {
                    Side::Left => write!(out, "  {cell:<width$}"),
                    Side::Right => write!(out, "  {cell:>width$}"),
                };
            }
            let end = start + out[start..].trim_end().len();
            out.truncate(end);
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (nanoseconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399_000_000_001, "2000-02-28T23:59:59.000000001Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199_500_000_000, "2024-02-29T23:59:59.500000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(Utc(nanoseconds).to_string(), text);
        }
    }

    #[test]
    fn identities_are_shortened_only_when_long() {
        assert_eq!(short(Hex(10)), "a");
        assert_eq!(short(Hex(u128::MAX)), "ffffffffffff…");
        assert_eq!(prefix(Hex(0xabcd_ef01 << 96)), "abcdef01");
        assert_eq!(serde_json::to_string(&Hex(1)).unwrap().len(), 34);
    }

    #[test]
    fn columns_line_up() {
        let mut columns = Columns::new(&[("name", Side::Left), ("n", Side::Right)]);
        columns.row(vec!["a…".to_owned(), "100".to_owned()]);
        let mut out = String::new();
        columns.write(&mut out);
        assert_eq!(out, "  name    n\n  a…    100\n");
    }
}
