//! Durations in the syntax of Go's `time.ParseDuration`, which every ECS guide uses: `30s`, `1.5h`, `2h45m`, `-1m`, `0`.
//!
//! This module owns the syntax only; limits and defaults are in the table. Invariant: a text that Go refuses is refused (a bare
//! `30`, a space, an overflow of 64-bit nanoseconds), and no non-zero duration becomes zero.

/// Nanoseconds by unit.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration, in nanoseconds; `None` if Go reports an error.
pub(super) fn parse_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (nanos, after) = one_part(rest)?;
        total = total.checked_add(nanos)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Parses one number with its unit. Returns nanoseconds and the rest of the text.
fn one_part(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let nanos = i128::from(UNITS.iter().find(|(name, _)| *name == unit)?.1);
    let whole: i128 = if whole.is_empty() { 0 } else { i128::from(whole.parse::<i64>().ok()?) };
    // 18 digits of a fraction of an hour are finer than a nanosecond, so further digits do not matter.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<i128>().ok()? };
    Some((whole.checked_mul(nanos)? + part * nanos / scale, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Formats milliseconds as a person writes them: `5400000` is `1h30m`.
pub(super) fn show_millis(millis: i64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut rest = millis.unsigned_abs();
    let mut text = String::from(if millis < 0 { "-" } else { "" });
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let ms = 1_000_000;
        for (text, nanos) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+0", Some(0)),
            ("0s", Some(0)),
            ("1ns", Some(1)),
            ("30s", Some(30_000 * ms)),
            ("1.5h", Some(5_400_000 * ms)),
            ("2h45m", Some(9_900_000 * ms)),
            ("45m2h", Some(9_900_000 * ms)),
            ("1h15m30.918s", Some(4_530_918 * ms)),
            ("-1.5m", Some(-90_000 * ms)),
            ("+5s", Some(5_000 * ms)),
            (".5s", Some(500 * ms)),
            ("5.s", Some(5_000 * ms)),
            ("3us", Some(3_000)),
            ("3\u{b5}s", Some(3_000)),
            ("3\u{3bc}s", Some(3_000)),
            ("0.000000000000000000000001h", Some(0)),
            ("2562047h", Some(2_562_047 * 3_600_000 * ms)),
            ("2562048h", None),
            ("99999999999999999999h", None),
            ("", None),
            ("-", None),
            ("30", None),
            ("1.5", None),
            (".s", None),
            ("s", None),
            ("1d", None),
            ("1 h", None),
            (" 1h", None),
            ("1h ", None),
            ("1H", None),
            ("1h-5m", None),
            ("1..5h", None),
            ("3 000s", None),
        ] {
            assert_eq!(parse_nanos(text), nanos, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse_nanos(&text);
        }

        #[test]
        fn a_shown_duration_is_read_back(millis in -1_000_000_000_i64..1_000_000_000) {
            prop_assert_eq!(parse_nanos(&show_millis(millis)), Some(millis * 1_000_000));
        }
    }
}
