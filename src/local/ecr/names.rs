//! The forms of names: repositories, tags, account ids. Invariant: a name that passes is short, is ASCII, and is no path to
//! another place.

use super::error::EcrError;

/// Length limits of a repository's name, in bytes.
const MIN_NAME: usize = 2;
const MAX_NAME: usize = 256;
/// The longest tag, in bytes.
const MAX_TAG: usize = 300;
/// ECR's pattern of a repository's name.
const NAME_PATTERN: &str = r"(?:[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*/)*[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
/// The pattern of a tag.
const TAG_PATTERN: &str = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,299}";

/// Checks the name of a repository.
///
/// # Errors
/// The constraint that the name breaks, in ECR's words.
pub(crate) fn check_repository(name: &str) -> Result<(), EcrError> {
    let broken = |constraint: String| Err(EcrError::invalid("repositoryName", constraint));
    match name.len() {
        length if length < MIN_NAME => broken(format!("Member must have length greater than or equal to {MIN_NAME}")),
        length if length > MAX_NAME => broken(format!("Member must have length less than or equal to {MAX_NAME}")),
        _ if name.split('/').all(is_component) => Ok(()),
        _ => broken(format!("must satisfy regular expression '{NAME_PATTERN}'")),
    }
}

/// The text is lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
pub(crate) fn is_component(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|c| is_inner(**c)).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        let separator = rest.iter().take_while(|c| !is_inner(**c)).count();
        match &rest[..separator] {
            [] => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|c| *c == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

/// Checks an image tag.
///
/// # Errors
/// The constraint that the tag breaks, in ECR's words.
pub(crate) fn check_tag(tag: &str) -> Result<(), EcrError> {
    let is_first = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let is_rest = |c: u8| is_first(c) || c == b'.' || c == b'-';
    let is_tag = tag.len() <= MAX_TAG && tag.bytes().next().is_some_and(is_first) && tag.bytes().all(is_rest);
    match is_tag {
        true => Ok(()),
        false => Err(EcrError::invalid("imageTag", format!("must satisfy regular expression '{TAG_PATTERN}'"))),
    }
}

/// The text is an account id: 12 digits.
pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit())
}

/// The text for an error: without control characters, and cut to at most this many bytes.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    let end = text.char_indices().find(|(at, c)| at + c.len_utf8() > max).map(|(end, _)| end);
    let shown = text[..end.unwrap_or(text.len())].replace(char::is_control, "\u{fffd}");
    if end.is_some() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_have_the_pattern_of_ecr() {
        let long = "a".repeat(MAX_NAME);
        for name in ["ab", "docker-in-aws/todobackend", "a.b_c__d---e/0/f", "00", &long] {
            assert_eq!(check_repository(name), Ok(()), "{name}");
        }
        let longer = "a".repeat(MAX_NAME + 1);
        for name in [
            "",
            "a",
            "A/b",
            "a/",
            "/a",
            "a//b",
            "a..b",
            "a___b",
            "-ab",
            "ab-",
            "a._b",
            "../../etc/passwd",
            "a/../b",
            "a b",
            "añ",
            "a\0b",
            "a/%2e%2e/b",
            &longer,
        ] {
            let error = check_repository(name).unwrap_err();
            assert!(error.to_string().contains("'repositoryName' failed to satisfy constraint"), "{name}: {error}");
        }
    }

    #[test]
    fn tags_have_the_pattern_of_the_specification() {
        let (long, longer) = ("a".repeat(MAX_TAG), "a".repeat(MAX_TAG + 1));
        for tag in ["latest", "1.0", "_x", "V-1", &long] {
            assert_eq!(check_tag(tag), Ok(()), "{tag}");
        }
        for tag in ["", ".a", "-a", "a/b", "a:b", "a b", "ä", "sha256:00", &longer] {
            assert_eq!(check_tag(tag).unwrap_err().code(), "InvalidParameterException", "{tag}");
        }
    }

    #[test]
    fn account_ids_are_twelve_digits() {
        assert!(is_account("012345678901"));
        assert!(!is_account("12345678901") && !is_account("1234567890123") && !is_account("12345678901x"));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!((shortened("abc", 3).as_str(), shortened("abcd", 3).as_str()), ("abc", "abc…"));
        assert_eq!(shortened("ää", 3), "ä…");
        assert_eq!(shortened("a\x1b[2J\n", 9), "a\u{fffd}[2J\u{fffd}");
    }
}
