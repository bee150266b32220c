//! Text from outside: messages of Docker, registries and AWS, the output of helpers, and files that others write.
//!
//! [`cleaned`] is called where such a text enters the agent, before it becomes a reason, a log field or part of the state.
//! Invariant: the result has at most [`MAX_TEXT`] bytes, is one line, and holds no character that moves a terminal's cursor or
//! reorders a line.

use super::address::without_passwords;

/// The largest number of bytes that the agent keeps of one text from outside.
pub const MAX_TEXT: usize = 4096;

/// The mark at the end of a text that was cut.
pub(super) const CUT: &str = " [cut]";

/// The text in one line of at most [`MAX_TEXT`] bytes, cut between two characters. Control characters, line separators and the
/// marks that change the direction of writing become a space: several in a row become one space, and those at either end are
/// removed. Users and passwords in addresses are hidden.
pub fn cleaned(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// The same as [`cleaned`] for bytes that should be UTF-8; invalid bytes become U+FFFD. It reads only the beginning of a long
/// text.
pub fn cleaned_bytes(bytes: &[u8]) -> String {
    // More bytes than the result can hold, because some of them may be dropped.
    let start = bytes.get(..4 * MAX_TEXT).unwrap_or(bytes);
    cleaned(&String::from_utf8_lossy(start))
}

/// The same as [`cleaned`], with another bound in bytes. If the bound is too small for the mark of the cut, the mark is left out.
pub fn cut(text: &str, max: usize) -> String {
    let text = &*without_passwords(text);
    let mut result = String::with_capacity(text.len().min(max));
    let mut pending_space = false;
    for c in text.chars() {
        if is_unsafe(c) {
            pending_space = !result.is_empty();
            continue;
        }
        if result.len() + usize::from(pending_space) + c.len_utf8() > max {
            mark_cut(&mut result, max);
            return result;
        }
        if pending_space {
            result.push(' ');
            pending_space = false;
        }
        result.push(c);
    }
    result
}

/// The text of the first member with this name, at any depth, in a JSON document that may be truncated. `None`: there is no such
/// member, or its value is not a text. The caller must clean the text.
pub fn member_of_truncated(json: &[u8], name: &str) -> Option<String> {
    let json = String::from_utf8_lossy(json);
    let quoted = format!("\"{name}\"");
    let value = json.match_indices(&quoted).find_map(|(at, _)| {
        // Inside a text, the quote before the name would be escaped.
        let is_name = !json[..at].ends_with('\\');
        json[at + quoted.len()..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"').filter(|_| is_name)
    })?;
    let mut is_escaped = false;
    let end = value.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    let value = &value[..end.unwrap_or(value.len())];
    // The truncation may split an escape or a surrogate pair, at most 12 bytes long. The split part is left out.
    (0..12)
        .find_map(|split| serde_json::from_str(&format!("\"{}\"", value.get(..value.len().checked_sub(split)?)?)).ok())
}

/// Cuts the text at a character boundary to make room for the mark, and appends the mark.
fn mark_cut(text: &mut String, max: usize) {
    let Some(room) = max.checked_sub(CUT.len()) else { return };
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(end);
    text.push_str(CUT);
}

/// The character could forge a line of a log, move a terminal's cursor, or change how a line reads.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

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
    fn a_plain_text_stays_as_it_is() {
        for text in ["", "a", "two  blanks stay", "Grüße, 世界", "\u{1f433}"] {
            assert_eq!(cleaned(text), text);
        }
    }

    #[test]
    fn controls_and_direction_marks_become_one_space() {
        let table = [
            ("a\nlevel=error msg=forged", "a level=error msg=forged"),
            ("\r\n\ta\r\n\tb\r\n", "a b"),
            ("\u{1b}[2Ja\u{7f}b\u{9b}c\0", "[2Ja b c"),
            ("a\u{2028}b\u{202e}c\u{2066}d", "a b c d"),
            ("\n\n", ""),
            ("Get \"https://me:hunter2@r.io/v2/\":\nEOF", "Get \"https://***@r.io/v2/\": EOF"),
        ];
        for (text, wanted) in table {
            assert_eq!(cleaned(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for unit in ["x", "ü", "世", "\u{1f433}", "x\n"] {
            for extra in 0..8 {
                let text = "a".repeat(extra) + &unit.repeat(3 << 20);
                let result = cleaned(&text);
                assert!(result.len() <= MAX_TEXT && result.len() > MAX_TEXT - 8, "{}", result.len());
                assert!(result.ends_with(CUT), "{unit:?}");
            }
        }
        assert_eq!(cleaned(&"x".repeat(MAX_TEXT)), "x".repeat(MAX_TEXT), "what fits is not cut");
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("abcdefghij", 8), "ab [cut]");
    }

    #[test]
    fn a_member_is_found_in_a_document_that_was_cut() {
        let whole =
            r#"{"status":"no","errorDetail":{"code":4,"message":"a \"b\" \u00e4\ud83d\udc33 c\n"},"error":"other"}"#;
        assert_eq!(member_of_truncated(whole.as_bytes(), "message").unwrap(), "a \"b\" ä\u{1f433} c\n");
        assert_eq!(member_of_truncated(whole.as_bytes(), "error").unwrap(), "other");
        assert_eq!(member_of_truncated(whole.as_bytes(), "code"), None);
        let (start, end) = (whole.find("a \\\"").unwrap(), whole.find("\"},").unwrap());
        for cut in start..end {
            let found = member_of_truncated(&whole.as_bytes()[..cut], "message").unwrap();
            assert!("a \"b\" ä\u{1f433} c\n".starts_with(&found), "{found:?}");
        }
        for none in
            ["", "{", r#"{"message""#, r#"{"message":"#, r#"{"message":7}"#, r#"{"x":"\"message\":\"forged\""}"#]
        {
            assert_eq!(member_of_truncated(none.as_bytes(), "message"), None, "{none}");
        }
        let spaced = b"{ \"message\" : \"x".to_vec();
        assert_eq!(member_of_truncated(&spaced, "message").unwrap(), "x");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(cleaned_bytes(b"a\xff\nb"), "a\u{fffd} b");
        assert_eq!(cleaned_bytes(&[0xff; 1 << 20]).len(), MAX_TEXT / 3 * 3);
    }

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
