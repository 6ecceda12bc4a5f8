//! Sizes as people write them: `256MiB`, `1GiB`, `1g`, `4096`. Always powers of two.

use std::fmt;

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// Reads a size.
///
/// # Errors
/// What is wrong, for the command line.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size: write it like 256MiB or 1GiB"))?;
    let unit = unit.trim().to_ascii_lowercase();
    let shift = UNITS.iter().find_map(|(name, shift)| {
        let name = name.to_ascii_lowercase();
        let short = &name[..1];
        (unit.is_empty() && *shift == 0 || unit == name || unit == short).then_some(*shift)
    });
    let Some(shift) = shift else {
        return Err(format!("`{unit}` is not a unit: use KiB, MiB, GiB or TiB"));
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is more than a file can hold"))
}

/// A size for people: exact where it is a round number, else with one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let fits = |(_, shift): &&(&str, u32)| bytes >> shift > 0;
        let (unit, shift) = UNITS.iter().find(fits).copied().unwrap_or(("B", 0));
        let whole = bytes >> shift;
        if whole << shift == bytes {
            return write!(f, "{whole} {unit}");
        }
        let tenths = ((bytes - (whole << shift)) * 10) >> shift;
        write!(f, "{whole}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1B", 1),
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("1g", 1 << 30),
            ("2tib", 2 << 40),
            ("7k", 7 << 10),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "1.5GiB",
            "-1",
            "1 parsec",
            "99999999999TiB",
            "1MB",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(Size(0).to_string(), "0 B");
        assert_eq!(Size(1 << 30).to_string(), "1 GiB");
        assert_eq!(Size(1_500_000).to_string(), "1.4 MiB");
    }
}
