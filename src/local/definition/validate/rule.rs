//! What a rule says: that it holds, or what is wrong.

/// The message for whoever wrote the definition, if something is wrong.
pub(in crate::local) type Verdict = Result<(), String>;

/// Fails with `message` unless `holds`.
pub(super) fn require(holds: bool, message: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(message()) }
}

/// Up to 255 letters, numbers, underscores and hyphens.
pub(super) fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}
