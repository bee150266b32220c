//! Reads one member of a JSON document of which only the beginning is known, such as the answer of a registry that was cut.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
