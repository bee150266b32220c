//! The fuzzer's entry point to the configuration.

use super::document::Document;
use super::source::{EnvFile, Environment, Source};

/// Reads an `ecs.config`, and after a zero byte a user data document.
///
/// # Panics
/// If an invariant is broken.
pub fn ecs_config(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (file, user_data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let environment = Environment::new::<&str, &str>([]);
    let (file, mut problems) = EnvFile::parse("/etc/ecs/ecs.config", file, &environment);
    let (document, more) = Document::user_data(&String::from_utf8_lossy(user_data));
    problems.extend(more);
    problems.iter().for_each(|problem| crate::input::fuzz::assert_clean(&problem.to_string()));
    // Reading the texts is quick, loading every setting from them is not. So only one input of 64 is loaded. Its checksum
    // decides, so that the same input always takes the same way.
    let checksum = data.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    if !(checksum >> 16).is_multiple_of(64) && !cfg!(test) {
        return;
    }
    let sources: [&dyn Source; 3] = [&environment, &file, &document];
    // The length of the input chooses one of the two roles.
    let loaded = super::load_from(&sources, data.len() % 2 == 1, problems);
    loaded.problems.iter().for_each(|problem| crate::input::fuzz::assert_clean(&problem.to_string()));
    assert!(!super::report::text(&loaded, true).contains('\u{1b}'), "the report moves the cursor");
}
