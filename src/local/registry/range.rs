//! Ranges in headers: which bytes of a blob a client wants, and which bytes of an upload it sends.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// The whole blob: there is no header, or another kind of range than one of bytes.
    All,
    /// These bytes.
    Bytes(Range<u64>),
    /// Bytes that the blob does not have.
    OutOfRange,
}

/// Reads the value of a `Range` header for a blob of this size. Several ranges at once are answered with the whole, which RFC 9110
/// allows.
pub(super) fn requested(header: &str, size: u64) -> Requested {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Requested::All;
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Requested::All,
    };
    if range.is_empty() { Requested::OutOfRange } else { Requested::Bytes(range) }
}

/// Reads the value of a `Content-Range` header: the first byte and the one after the last. The form is `0-9`; some clients send
/// `bytes 0-9/*`. `None`: it cannot be read.
pub(super) fn content_range(header: &str) -> Option<Range<u64>> {
    let header = header.strip_prefix("bytes ").unwrap_or(header);
    let range = header.split_once('/').map_or(header, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then(|| first..last + 1)
}

/// The value of a `Range` header in the answer to a part of an upload of this length. That of no bytes cannot be written otherwise.
pub(super) fn received(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

/// A number of plain digits; `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood() {
        for (header, wanted) in [
            ("bytes=0-0", Requested::Bytes(0..1)),
            ("bytes=2-5", Requested::Bytes(2..6)),
            ("bytes=2-", Requested::Bytes(2..10)),
            ("bytes=-3", Requested::Bytes(7..10)),
            ("bytes=-30", Requested::Bytes(0..10)),
            ("bytes=9-99999999999999999999", Requested::All),
            ("bytes=9-18446744073709551615", Requested::Bytes(9..10)),
            ("bytes=10-", Requested::OutOfRange),
            ("bytes=10-20", Requested::OutOfRange),
            ("bytes=-0", Requested::OutOfRange),
            ("bytes=5-2", Requested::All),
            ("bytes=0-1,4-5", Requested::All),
            ("bytes=+1-2", Requested::All),
            ("bytes=-", Requested::All),
            ("lines=0-1", Requested::All),
            ("", Requested::All),
        ] {
            assert_eq!(requested(header, 10), wanted, "{header}");
        }
        assert_eq!(requested("bytes=0-", 0), Requested::OutOfRange);
    }

    #[test]
    fn the_range_of_a_part_has_both_ends() {
        assert_eq!(
            (content_range("0-9"), content_range("bytes 5-9/*"), content_range("5-5")),
            (Some(0..10), Some(5..10), Some(5..6))
        );
        for wrong in ["", "5", "5-", "-5", "9-5", "+1-2", "a-b", "0-18446744073709551615", "bytes=0-9"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
        assert_eq!((received(0), received(1), received(10)), ("0-0".to_owned(), "0-0".to_owned(), "0-9".to_owned()));
    }
}
