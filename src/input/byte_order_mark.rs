//! The byte-order mark at the beginning of a text file. Editors on Windows write it; the parsers that read the text afterwards
//! do not expect it.

/// The error for a file with the byte-order mark of UTF-16 or UTF-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is UTF-16 or UTF-32, not UTF-8: save it as UTF-8")]
pub struct WideText;

/// The bytes of a text file without the byte-order mark of UTF-8, which Windows editors write.
///
/// # Errors
/// The mark is that of another encoding.
pub fn without_bom(bytes: &[u8]) -> Result<&[u8], WideText> {
    // The mark of UTF-32 begins with one of UTF-16, or with zeros.
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.starts_with(b"\0\0\xfe\xff") {
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
        ] {
            assert_eq!(without_bom(text.as_bytes()), Ok(wanted.as_bytes()), "{text:?}");
        }
        for wide in [&b"\xff\xfeA\0"[..], b"\xfe\xff\0A", b"\0\0\xfe\xff\0\0\0A"] {
            assert_eq!(without_bom(wide), Err(WideText), "{wide:?}");
        }
    }
}
