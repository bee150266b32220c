//! The result of checking a rule, and helpers for rules.

/// The result of checking a rule. The error is a message for the author of the definition.
pub(crate) type Verdict = Result<(), String>;

/// Fails with `message` unless `holds`.
pub(super) fn require(holds: bool, message: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(message()) }
}

/// The text is a name: 1 to 255 letters, numbers, underscores and hyphens.
pub(super) fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}
