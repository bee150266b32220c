//! Addresses as they may be shown: without the user and the password that can stand in one (`https://user:password@host`).
//!
//! Owns nothing but how that is written. [`shown`] is for a text that is one address, as an operator gives it; [`without_passwords`] for
//! a text that may hold some, such as the error of an HTTP client. Invariant: what stands before the host is never shown, not even in
//! part; where it is not clear what is the host, more is hidden rather than less.

use std::borrow::Cow;

/// Stands in the place of user and password.
const HIDDEN: &str = "***";

/// An address without user and password; the scheme may be missing. Everything before the last `@` counts as such, since a password
/// that somebody writes by hand may hold any character.
pub fn shown(address: &str) -> Cow<'_, str> {
    let Some((before, host)) = address.rsplit_once('@') else { return Cow::Borrowed(address) };
    let scheme = before.find("://").map_or("", |end| &before[..end + 3]);
    Cow::Owned(format!("{scheme}{HIDDEN}@{host}"))
}

/// A text without the users and passwords of the addresses in it. An address begins with its scheme and ends before white space or a
/// quotation mark.
pub fn without_passwords(text: &str) -> Cow<'_, str> {
    if !(text.contains("://") && text.contains('@')) {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, address) = rest.split_at(start + 3);
        result.push_str(before);
        let end = address.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(address.len());
        let hidden = user_and_password(&address[..end]);
        if hidden > 0 {
            result.push_str(HIDDEN);
        }
        // No other user is in this word: the last `@` of the word counted. Looking again would take time squared with its length.
        result.push_str(&address[hidden..end]);
        rest = &address[end..];
    }
    result.push_str(rest);
    Cow::Owned(result)
}

/// How many bytes of an address behind its scheme are user and password; the `@` behind them does not count. As in [`shown`] the last
/// `@` counts, unless it is that of an image's digest.
fn user_and_password(address: &str) -> usize {
    let is_digest = |rest: &str| rest.starts_with("sha256:") || rest.starts_with("sha512:");
    address.rmatch_indices('@').map(|(at, _)| at).find(|at| !is_digest(&address[at + 1..])).unwrap_or_default()
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
            assert_eq!(shown(address), wanted);
            assert_eq!(shown(&shown(address)), wanted, "twice is as good as once");
        }
    }

    /// Read again for each address in it, such a text would take hours.
    #[test]
    fn a_text_of_any_shape_is_read_once() {
        for unit in ["://", "@://", "://a@sha256:", "x://@ ", "://@", "\"://a@b"] {
            let text = format!("@ {}", unit.repeat((4 << 20) / unit.len()));
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

    /// Every two characters that can be typed stand in front of the rest of the password.
    #[test]
    fn no_password_of_any_characters_is_shown() {
        let typed = || (0x21..0x7f).map(char::from);
        for (first, second) in typed().flat_map(|first| typed().map(move |second| (first, second))) {
            for user in ["", "me", "me@here"] {
                let address = format!("https://{user}:{first}{second}MARKER@h.example:8443/path");
                assert_eq!(shown(&address), "https://***@h.example:8443/path");
                let text = format!("Get {address} failed");
                // A quotation mark ends an address in a text: clients write it as %22.
                let is_whole = first != '"' && second != '"';
                assert!(!is_whole || !without_passwords(&text).contains("MARKER"), "{}", without_passwords(&text));
            }
        }
    }
}
