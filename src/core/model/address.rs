//! Addresses for logs and error texts, without the user and the password that they may contain (`https://user:password@host`).
//!
//! Owns the redaction. [`redacted`] takes a text that is one address, as an operator writes it; [`without_passwords`] takes
//! a text that may contain addresses, such as the error of an HTTP client. Invariant: no part of the user and the password is
//! ever shown. If it is unclear where the host begins, more is hidden rather than less.

use std::borrow::Cow;

/// Replaces the user and the password.
const HIDDEN: &str = "***";

/// The address without the user and the password; the scheme may be missing. Everything before the last `@` is hidden, since a
/// password written by hand may contain any character.
pub fn redacted(address: &str) -> Cow<'_, str> {
    let Some((before, host)) = address.rsplit_once('@') else { return Cow::Borrowed(address) };
    let scheme = before.find("://").map_or("", |end| &before[..end + 3]);
    Cow::Owned(format!("{scheme}{HIDDEN}@{host}"))
}

/// The text without the users and passwords of the addresses in it. An address begins with its scheme and ends before white
/// space or a quotation mark. It may be part of JSON (`https:\/\/`, `\u002f`, also of JSON within JSON) or of the query of
/// another address (`https%3A%2F%2F`).
pub fn without_passwords(text: &str) -> Cow<'_, str> {
    if !["@", "\\u0040", "40"].into_iter().any(|sign| text.contains(sign)) {
        return Cow::Borrowed(text);
    }
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = next_address(rest) {
        let (before, address) = rest.split_at(start.at);
        result.push_str(before);
        let end = address.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(address.len());
        let hidden = user_and_password(&address[..end], start.is_percent_encoded);
        if hidden > 0 {
            result.push_str(HIDDEN);
        }
        // Everything up to the last `@` of the address is hidden, so the rest holds no other user. Searching it again would take
        // time quadratic in its length.
        result.push_str(&address[hidden..end]);
        rest = &address[end..];
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    result.push_str(rest);
    Cow::Owned(result)
}

/// The place right after the `://` of an address.
struct Start {
    /// Offset in bytes from the beginning of the text.
    at: usize,
    /// The `://` is written as `%3A%2F%2F`, so an `@` may be written as `%40`.
    is_percent_encoded: bool,
}

/// Finds the first `://` of the text, plain, escaped or percent-encoded; `None` if there is none.
fn next_address(text: &str) -> Option<Start> {
    text.match_indices([':', '\\', '%']).find_map(|(at, _)| {
        let colon = &text[at..];
        let percent = percent_encoded(colon, "3a");
        let slashes = colon.strip_prefix(':').or_else(|| escaped(colon, "u003a")).or(percent)?;
        let address = slash(slash(slashes)?)?;
        Some(Start { at: text.len() - address.len(), is_percent_encoded: percent.is_some() })
    })
}

/// The text after a slash, escaped or not; `None` if it does not begin with one. Each level of JSON adds backslashes.
fn slash(text: &str) -> Option<&str> {
    let plain = text.trim_start_matches('\\');
    let is_escaped = plain.len() < text.len();
    let after_unicode = || without_prefix(plain, "u002f").filter(|_| is_escaped);
    plain.strip_prefix('/').or_else(after_unicode).or_else(|| percent_encoded(text, "2f"))
}

/// The text after a backslash and `escape`; `None` if it does not begin with them.
fn escaped<'a>(text: &'a str, escape: &str) -> Option<&'a str> {
    without_prefix(text.strip_prefix('\\')?, escape)
}

/// The text after the character with this hexadecimal code, percent-encoded once (`%2F`) or several times (`%252F`); `None` if
/// it does not begin with that character.
fn percent_encoded<'a>(text: &'a str, code: &str) -> Option<&'a str> {
    without_prefix(text.strip_prefix('%')?.trim_start_matches("25"), code)
}

/// The text after `prefix`, whose letters match in any case; `None` if it does not begin with `prefix`.
fn without_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The number of bytes of the user and the password in an address without its scheme, not counting the `@` after them. As in
/// [`redacted`], the last `@` counts, unless it begins the digest of an image.
fn user_and_password(address: &str, is_percent_encoded: bool) -> usize {
    let host = |text| {
        let percent = percent_encoded(text, "40").filter(|_| is_percent_encoded);
        str::strip_prefix(text, '@').or_else(|| escaped(text, "u0040")).or(percent)
    };
    let is_digest = |rest: &str| rest.starts_with("sha256:") || rest.starts_with("sha512:");
    let signs = address.rmatch_indices(['@', '\\', '%']).map(|(at, _)| at);
    signs.into_iter().find(|at| host(&address[*at..]).is_some_and(|host| !is_digest(host))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        let table = [
            ("https://u:hunter2@h.example:8443/p?q=1", "https://***@h.example:8443/p?q=1"),
            ("http://hunter2@[::1]:80", "http://***@[::1]:80"),
            ("u:hunter2@proxy:3128", "***@proxy:3128"),
            ("tcp://u:hunter2/@hunter2@10.0.0.1:2375", "tcp://***@10.0.0.1:2375"),
            ("https://u:hunter2?@h", "https://***@h"),
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("https://h.example:8443/p", "https://h.example:8443/p"),
            ("", ""),
        ];
        for (address, wanted) in table {
            assert_eq!(redacted(address), wanted);
            assert_eq!(redacted(&redacted(address)), wanted, "twice is as good as once");
        }
    }

    /// The search is linear. If it read such a text again for each address in it, it would take hours.
    #[test]
    fn a_text_of_any_shape_is_read_once() {
        let units =
            ["://", "@://", "://a@sha256:", "x://@ ", "://@", "\"://a@b", ":\\", "\\", "%25", ":\\/@", "%3a%2f%2f%40 "];
        for unit in units {
            let text = format!("@ {}", unit.repeat((1 << 20) / unit.len()));
            assert!(without_passwords(&text).len() <= 2 * text.len(), "{unit:?}");
        }
    }

    #[test]
    fn no_address_in_a_text_keeps_its_password() {
        let table = [
            (
                "error sending request for url (https://u:hunter2@h/p): refused",
                "error sending request for url (https://***@h/p): refused",
            ),
            ("Get \"http://hunter2@r.io/v2/\": EOF", "Get \"http://***@r.io/v2/\": EOF"),
            ("a://u:hunter2@b,c://u:hunter2@d", "a://***@d"),
            ("a://b/ then c://u:hunter2@d and e://hunter2@f", "a://b/ then c://***@d and e://***@f"),
            ("proxy http://u:hunter2/x@p:1", "proxy http://***@p:1"),
            ("http://u:@h", "http://***@h"),
            ("https://r.io:5000/v2/a@sha256:00", "https://r.io:5000/v2/a@sha256:00"),
            ("https://u:hunter2@r.io/v2/a@sha256:00", "https://***@r.io/v2/a@sha256:00"),
            ("https://u:hunter2://x@h/p", "https://***@h/p"),
            ("https://u:12/hunter2@h", "https://***@h"),
            ("pull r.io/a@sha256:00 failed", "pull r.io/a@sha256:00 failed"),
            ("me@example.com asks https://h/", "me@example.com asks https://h/"),
            ("://@", "://@"),
            ("plain", "plain"),
        ];
        for (text, wanted) in table {
            assert_eq!(without_passwords(text), wanted);
            assert_eq!(without_passwords(&without_passwords(text)), wanted, "twice is as good as once");
        }
    }

    #[test]
    fn an_escaped_address_keeps_no_password_either() {
        let table = [
            (r#"{"url":"https:\/\/u:hunter2@h\/p"}"#, r#"{"url":"https:\/\/***@h\/p"}"#),
            (r#"{"url":"https:\u002f\u002Fu:hunter2@h"}"#, r#"{"url":"https:\u002f\u002F***@h"}"#),
            (r#"{"url":"https\u003A//u:hunter2\u0040h"}"#, r#"{"url":"https\u003A//***\u0040h"}"#),
            (r#"{"a":"{\"b\":\"https:\\\/\\\/u:hunter2@h\"}"}"#, r#"{"a":"{\"b\":\"https:\\\/\\\/***@h\"}"}"#),
            (r"https:\\u002f\\u002fu:hunter2\\u0040h", r"https:\\u002f\\u002f***\u0040h"),
            ("Get //p?to=https%3A%2F%2Fu%3Ahunter2%40h: EOF", "Get //p?to=https%3A%2F%2F***%40h: EOF"),
            ("to=https%253a%252f%252fu%253ahunter2%2540h", "to=https%253a%252f%252f***%2540h"),
            ("to=https%3A%2F%2Fu:hunter2@h", "to=https%3A%2F%2F***@h"),
            ("https://r.io/@scope%2fpkg%40", "https://***@scope%2fpkg%40"),
            ("https://r.io/a%40b and %3A%2F%2F", "https://r.io/a%40b and %3A%2F%2F"),
            (r"C:\dir\u0040x has no scheme: 40", r"C:\dir\u0040x has no scheme: 40"),
            (r"https:\/\/r.io\/a@sha256:00", r"https:\/\/r.io\/a@sha256:00"),
            ("https:/ü/u:40@h %", "https:/ü/u:40@h %"),
        ];
        for (text, wanted) in table {
            assert_eq!(without_passwords(text), wanted);
            assert_eq!(without_passwords(&without_passwords(text)), wanted, "twice is as good as once");
        }
    }

    /// Tries every two characters that can be typed at the beginning of the password.
    #[test]
    fn no_password_of_any_characters_is_shown() {
        let typed = || (0x21..0x7f).map(char::from);
        for (first, second) in typed().flat_map(|first| typed().map(move |second| (first, second))) {
            for user in ["", "me", "me@here"] {
                let address = format!("https://{user}:{first}{second}MARKER@h.example:8443/path");
                assert_eq!(redacted(&address), "https://***@h.example:8443/path");
                let text = format!("Get {address} failed");
                // A quotation mark ends an address in a text: clients write it as %22.
                let is_whole = first != '"' && second != '"';
                assert!(!is_whole || !without_passwords(&text).contains("MARKER"), "{}", without_passwords(&text));
            }
        }
    }
}
