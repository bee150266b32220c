//! The fuzz target of environment files.

/// Parses an environment file from S3.
///
/// # Panics
/// An invariant does not hold.
pub fn env_file(data: &[u8]) {
    match super::env_file::parse(data) {
        Ok(variables) => assert!(variables.keys().all(|name| !name.is_empty() && !name.contains(['=', '\n']))),
        Err(text) => crate::input::fuzz::assert_clean(&text),
    }
}
