//! Settings of a repository that are kept and shown: encryption, and tags as an AWS resource.

use super::error::EcrError;
use std::collections::BTreeMap;

/// Maximum number of tags of a resource, as in AWS.
pub(crate) const MAX_RESOURCE_TAGS: usize = 50;
/// The longest key and value of a tag, in characters, as in AWS.
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;

/// The kind of an encryption, as ECR names it.
///
/// # Errors
/// When ECR has no such kind.
pub(crate) fn encryption_kind(name: &str) -> Result<&'static str, EcrError> {
    ["AES256", "KMS", "KMS_DSSE"].into_iter().find(|kind| *kind == name).ok_or_else(|| {
        let constraint = "Member must satisfy enum value set: [AES256, KMS, KMS_DSSE]";
        EcrError::invalid("encryptionConfiguration.encryptionType", constraint)
    })
}

/// Checks all tags of a resource.
///
/// # Errors
/// When there are too many, or one has a wrong form.
pub(crate) fn check_resource_tags(tags: &BTreeMap<String, String>) -> Result<(), EcrError> {
    if tags.len() > MAX_RESOURCE_TAGS {
        let message = format!("A repository has at most {MAX_RESOURCE_TAGS} tags");
        return Err(EcrError::other("TooManyTagsException", message));
    }
    let is_letter = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    let is_text = |text: &str, max: usize| text.chars().count() <= max && text.chars().all(is_letter);
    let is_tag = |(key, value): (&String, &String)| {
        !key.is_empty() && !key.to_lowercase().starts_with("aws:") && is_text(key, MAX_KEY) && is_text(value, MAX_VALUE)
    };
    match tags.iter().all(is_tag) {
        true => Ok(()),
        false => Err(EcrError::other(
            "InvalidTagParameterException",
            format!(
                "A tag has a key of 1 to {MAX_KEY} characters, which does not begin with aws:, and a value of up to {MAX_VALUE}: letters, \
                 digits, spaces and _.:/=+-@"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_resources_have_the_form_of_aws() {
        let tags = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for (key, value) in [("team", "blue"), ("a b", ""), ("größe", "1/2 + @"), (&"k".repeat(128), &"v".repeat(256))]
        {
            assert_eq!(check_resource_tags(&tags(key, value)), Ok(()), "{key}");
        }
        for (key, value) in [
            ("", "x"),
            ("aws:x", "x"),
            ("AWS:x", "x"),
            ("a\"", "x"),
            ("a", "<x>"),
            (&"k".repeat(129), ""),
            ("a", &"v".repeat(257)),
        ] {
            assert_eq!(
                check_resource_tags(&tags(key, value)).unwrap_err().code(),
                "InvalidTagParameterException",
                "{key}"
            );
        }
        let many: BTreeMap<String, String> =
            (0..=MAX_RESOURCE_TAGS).map(|at| (at.to_string(), String::new())).collect();
        assert_eq!(check_resource_tags(&many).unwrap_err().code(), "TooManyTagsException");
        assert_eq!(encryption_kind("KMS"), Ok("KMS"));
        assert_eq!(encryption_kind("kms").unwrap_err().code(), "InvalidParameterException");
    }
}
