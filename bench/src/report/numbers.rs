//! Numbers for people: grouped digits, milliseconds with three significant figures.

/// `1234567` as `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate or count that was computed: rounded, grouped.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
#[expect(clippy::cast_sign_loss, reason = "rates are not negative")]
pub fn rounded(value: f64) -> String {
    grouped(value.round() as u64)
}

/// Microseconds as milliseconds: `0.263`, `4.31`, `31.2`, `1204`.
pub fn millis(micros: f64) -> String {
    let millis = micros / 1000.0;
    match millis {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// `1 batch`, `2 batches`.
pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(123_456_789), "123,456,789");
        assert_eq!(rounded(1_234.5), "1,235");
        assert_eq!(millis(263.4), "0.263");
        assert_eq!(millis(4_310.0), "4.31");
        assert_eq!(millis(31_249.0), "31.2");
        assert_eq!(millis(1_204_000.0), "1204");
        assert_eq!(plural(1, "batch", "batches"), "1 batch");
        assert_eq!(plural(2_000, "batch", "batches"), "2,000 batches");
    }
}
