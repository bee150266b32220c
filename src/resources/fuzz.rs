//! What the fuzzer feeds this room.

/// An environment file from S3.
///
/// # Panics
/// A promise is broken.
pub fn env_file(data: &[u8]) {
    match super::env_file::parse(data) {
        Ok(variables) => assert!(variables.keys().all(|name| !name.is_empty() && !name.contains(['=', '\n']))),
        Err(text) => crate::fuzz::assert_clean(&text),
    }
}
