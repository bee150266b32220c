//! The byte-order mark at the beginning of a text file. Editors on Windows write it; the parsers that read the text afterwards
//! do not expect it.

/// The error for a file in UTF-16 or UTF-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is UTF-16 or UTF-32, not UTF-8: save it as UTF-8")]
pub struct WideText;

/// The bytes of a text file without the byte-order mark of UTF-8, which Windows editors write.
///
/// # Errors
/// The mark is that of another encoding, or the first character is: in ASCII it has a zero byte there, which no text begins with.
pub fn without_bom(bytes: &[u8]) -> Result<&[u8], WideText> {
    // The mark of UTF-32 begins with one of UTF-16, or with zeros.
    let is_marked = [&b"\xff\xfe"[..], b"\xfe\xff", b"\0\0\xfe\xff"].iter().any(|mark| bytes.starts_with(mark));
    let is_unmarked = match bytes {
        [0, 0, 0, first, ..] | [0, first, ..] | [first, 0, ..] => *first != 0,
        _ => false,
    };
    if is_marked || is_unmarked {
        return Err(WideText);
    }
    Ok(bytes.strip_prefix(BOM.as_bytes()).unwrap_or(bytes))
}

/// The byte-order mark, as it appears in a text that was read from UTF-8.
pub const BOM: &str = "\u{feff}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_order_mark_is_dropped_and_others_are_refused() {
        for (text, wanted) in [
            ("A=1", "A=1"),
            ("", ""),
            ("\u{feff}A=1", "A=1"),
            ("\u{feff}\u{feff}A", "\u{feff}A"),
            ("A\u{feff}", "A\u{feff}"),
            ("A=\0", "A=\0"),
            ("\0\0\0", "\0\0\0"),
        ] {
            assert_eq!(without_bom(text.as_bytes()), Ok(wanted.as_bytes()), "{text:?}");
        }
        for wide in
            [&b"\xff\xfeA\0"[..], b"\xfe\xff\0A", b"\0\0\xfe\xff\0\0\0A", b"A\0=\0", b"\0A\0=", b"{\0\0\0", b"\0\0\0{"]
        {
            assert_eq!(without_bom(wide), Err(WideText), "{wide:?}");
        }
    }
}
