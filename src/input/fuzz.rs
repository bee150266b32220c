//! What every fuzz target demands of a text for a person or for ECS.

use ecs_core::model::text::MAX_TEXT;

/// Checks the promises of such a text: a limited length, one line, and nothing that moves a cursor.
///
/// # Panics
/// The text breaks one of these promises.
pub(crate) fn assert_clean(text: &str) {
    assert!(text.len() <= MAX_TEXT, "a text of {} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "a control character in {text:?}");
}
