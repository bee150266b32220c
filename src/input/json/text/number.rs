//! Numbers in a JSON text. Pure, and every literal of the grammar yields a number.

use serde_json::Number;

/// The number of a literal: an integer if it is one and fits, else the nearest float.
pub(super) fn number(literal: &str) -> Number {
    if let Some(integer) = integer(literal) {
        return integer;
    }
    let nearest = literal.parse::<f64>().unwrap_or_default().clamp(f64::MIN, f64::MAX);
    Number::from_f64(nearest).unwrap_or_else(|| Number::from(0))
}

/// `7`, `7.0`, `70e-1` and `0.7e1` are the same integer.
fn integer(literal: &str) -> Option<Number> {
    let (sign, magnitude) = match literal.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", literal),
    };
    let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(Number::from(0));
    }
    let zeros = exponent.parse::<i64>().ok()?.checked_add(zeros)?;
    if !(0..=20).contains(&zeros) || significant.len() > 20 {
        return None;
    }
    let text = format!("{sign}{significant}{}", "0".repeat(usize::try_from(zeros).ok()?));
    text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}
