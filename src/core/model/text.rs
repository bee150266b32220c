//! Text from outside: messages of Docker, registries and AWS, the output of helpers, and files that others write.
//!
//! [`cleaned`] is called where such a text enters the agent, before it becomes a reason, a log field or part of the state.
//! Invariant: the result has at most [`MAX_TEXT`] bytes, is one line, and holds no character that moves a terminal's cursor or
//! reorders a line.

use super::address::without_passwords;
use std::borrow::Cow;

/// The largest number of bytes that the agent keeps of one text from outside.
pub const MAX_TEXT: usize = 4096;

/// The mark at the end of a text that was cut.
pub(super) const CUT: &str = " [cut]";

/// What Rust puts before the number of an error of the operating system.
const NUMBER: &str = " (os error ";

/// The text in one line of at most [`MAX_TEXT`] bytes, cut between two characters. Control characters, line separators and the
/// marks that change the direction of writing become a space: several in a row become one space, and those at either end are
/// removed. Users and passwords in addresses are hidden, and ids of credentials are cut.
pub fn cleaned(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// The text without the numbers that Rust puts behind errors of the operating system, ` (os error 2)`: they say nothing to a
/// person. It is called where a text leaves the agent: for each value of a log line, and for reasons and errors of commands.
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    let mut parts = text.split(NUMBER);
    let mut result = Cow::Borrowed(parts.next().unwrap_or_default());
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_number = rest.len() < part.len() && rest.starts_with(')');
        let result = result.to_mut();
        if !is_number {
            result.push_str(NUMBER);
        }
        result.push_str(if is_number { &rest[1..] } else { part });
    }
    result
}

/// The same as [`cleaned`] for bytes that should be UTF-8; invalid bytes become U+FFFD. It reads only the beginning of a long
/// text.
pub fn cleaned_bytes(bytes: &[u8]) -> String {
    // More bytes than the result can hold, because some of them may be dropped.
    let start = bytes.get(..4 * MAX_TEXT).unwrap_or(bytes);
    cleaned(&String::from_utf8_lossy(start))
}

/// The same as [`cleaned`], with another bound in bytes. If the bound is too small for the mark of the cut, the mark is left
/// out.
pub fn cut(text: &str, max: usize) -> String {
    let text = &*without_credentials_ids(without_passwords(text));
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

/// The path of a task's credentials, before their id.
pub const CREDENTIALS_PATH: &str = "/v2/credentials/";
/// How much of an id is shown, in bytes, as by the Go agent (spec `security.md` §3).
const SHOWN_OF_ID: usize = 8;

/// Cuts the ids of credentials in paths, as in the error of a volume driver that could not get them: whoever knows an id may ask
/// for its credentials.
fn without_credentials_ids(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains(CREDENTIALS_PATH) {
        return text;
    }
    let mut parts = text.split(CREDENTIALS_PATH);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let (id, rest) = part.split_at(part.bytes().position(|byte| !is_id(byte)).unwrap_or(part.len()));
        result.push_str(CREDENTIALS_PATH);
        result.push_str(id.get(..SHOWN_OF_ID).unwrap_or(id));
        result.push_str(if id.len() > SHOWN_OF_ID { "-REDACTED" } else { "" });
        result.push_str(rest);
    }
    Cow::Owned(result)
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
    fn the_numbers_of_errors_are_left_out() {
        for (text, wanted) in [
            ("No such file or directory (os error 2)", "No such file or directory"),
            ("a: x (os error 13): b: y (os error 2); z", "a: x: b: y; z"),
            (" (os error 2)", ""),
            ("x (os error 2) (os error 3)", "x"),
            ("x (os error )", "x (os error )"),
            ("x (os error 2", "x (os error 2"),
            ("x (os error 2é) (os error 3)", "x (os error 2é)"),
            ("x (os error  (os error 4)", "x (os error "),
            ("x", "x"),
            ("", ""),
        ] {
            assert_eq!(without_numbers(text), wanted);
        }
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(super::super::with_causes(&error), "No such file or directory");
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
            (
                "x at http://169.254.170.2/v2/credentials/11111111-2222-3333.",
                "x at http://169.254.170.2/v2/credentials/11111111-REDACTED.",
            ),
            (
                "o=iam,awscredsuri=/v2/credentials/1234567890,a=1",
                "o=iam,awscredsuri=/v2/credentials/12345678-REDACTED,a=1",
            ),
            ("/v2/credentials/", "/v2/credentials/"),
            ("/v2/credentials/12345678 /v2/credentials/", "/v2/credentials/12345678 /v2/credentials/"),
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
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(cleaned_bytes(b"a\xff\nb"), "a\u{fffd} b");
        assert_eq!(cleaned_bytes(&[0xff; 1 << 20]).len(), MAX_TEXT / 3 * 3);
    }
}
