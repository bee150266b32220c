//! Reads and checks a task definition in one step.

use super::{TaskDefinition, read, validate};
use serde_json::Value;

/// Reads and checks a task definition.
///
/// # Errors
/// All mistakes, in words: those of its form, or else those of its contents.
pub(crate) fn checked(given: &Value) -> Result<TaskDefinition, String> {
    let definition = read("The task definition", given)?;
    validate(&definition)?;
    Ok(definition)
}
