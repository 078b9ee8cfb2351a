//! Numbers of bytes as people write them: `"64MB"`, with PostgreSQL's units.

/// What a size looks like, for messages.
pub(super) const FORM: &str = "a number and a unit in quotes, like \"512kB\", \"64MB\" or \"2GB\"";

/// A whole number and a unit; a unit is 1,024 of the one below it.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let bytes = match unit {
        "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    let size = number.parse::<u64>().ok()?.checked_mul(bytes)?;
    (size > 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_a_number_and_a_unit() {
        assert_eq!(parse("100B"), Some(100));
        assert_eq!(parse("512kB"), Some(512 << 10));
        assert_eq!(parse("64MB"), Some(64 << 20));
        assert_eq!(parse("2GB"), Some(2 << 30));
        assert_eq!(parse("1TB"), Some(1 << 40));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "5",
            "MB",
            "-5MB",
            "5 MB",
            "1.5GB",
            "0MB",
            "5mb",
            "99999999999TB",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
