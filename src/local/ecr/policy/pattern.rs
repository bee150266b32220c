//! Patterns with the wildcards `*` and `?`, as in policies.

/// The text matches the pattern: `*` stands for any text, also with colons and slashes, `?` for one character.
pub(crate) fn is_match(pattern: &str, text: &str) -> bool {
    if pattern.is_ascii() && text.is_ascii() {
        return is_glob(pattern.as_bytes(), text.as_bytes(), &b'*', &b'?');
    }
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    is_glob(&pattern, &text, &'*', &'?')
}

/// [`is_match`] for letters of any kind. The work is at most the product of both lengths.
fn is_glob<T: PartialEq>(pattern: &[T], text: &[T], any_text: &T, any_letter: &T) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last `*` is, and how much of the text it stands for.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(letter) if letter == any_text => {
                star = Some((at, read));
                at += 1;
            }
            Some(letter) if letter == any_letter || *letter == text[read] => (at, read) = (at + 1, read + 1),
            _ => {
                let Some((place, end)) = star else { return false };
                star = Some((place, end + 1));
                (at, read) = (place + 1, end + 1);
            }
        }
    }
    pattern[at..].iter().all(|letter| letter == any_text)
}

/// Like [`is_match`], for texts whose case does not matter.
pub(super) fn is_match_in_any_case(pattern: &str, text: &str) -> bool {
    is_match(&pattern.to_lowercase(), &text.to_lowercase())
}

/// The ARN matches the pattern, each of the six parts by itself: a `*` does not go beyond a colon.
pub(super) fn is_arn_match(pattern: &str, arn: &str) -> bool {
    let (pattern, arn): (Vec<&str>, Vec<&str>) = (pattern.splitn(6, ':').collect(), arn.splitn(6, ':').collect());
    pattern.len() == 6 && arn.len() == 6 && pattern.iter().zip(&arn).all(|(pattern, part)| is_match(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_texts_and_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("??", "ä!", true),
            ("ecr:Batch*Image", "ecr:BatchGetImage", true),
            ("ecr:Batch*Image", "ecr:BatchGetImages", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(is_match(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_wildcards_take_no_long_time() {
        let start = std::time::Instant::now();
        assert!(!is_match(&format!("{}b", "a*".repeat(2000)), &"a".repeat(5000)));
        assert!(start.elapsed().as_secs() < 5, "{} ms", start.elapsed().as_millis());
    }

    #[test]
    fn a_wildcard_in_an_arn_stays_in_its_part() {
        let arn = "arn:aws:codebuild:us-west-2:123456789012:project/app";
        for (pattern, expected) in [
            (arn, true),
            ("arn:aws:codebuild:*:123456789012:project/*", true),
            ("arn:aws:*:*:*:*", true),
            ("arn:aws:codebuild:*:project/app", false),
            ("arn:*", false),
            ("*", false),
        ] {
            assert_eq!(is_arn_match(pattern, arn), expected, "{pattern}");
        }
        assert!(is_match_in_any_case("ECR:batch*", "ecr:BatchGetImage"));
    }
}
