//! What the fuzzer feeds this room.

use super::document::Document;
use super::source::{EnvFile, Environment, Source};

/// An `ecs.config`, and after a zero byte a user data document.
///
/// # Panics
/// A promise is broken.
pub fn ecs_config(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (file, user_data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let environment = Environment::new::<&str, &str>([]);
    let (file, mut problems) = EnvFile::parse("/etc/ecs/ecs.config", file, &environment);
    let (document, more) = Document::user_data(&String::from_utf8_lossy(user_data));
    problems.extend(more);
    let sources: [&dyn Source; 3] = [&environment, &file, &document];
    // One of two roles, and the report now and then, by the length: the same input always does the same.
    let loaded = super::load_from(&sources, data.len() % 2 == 1, problems);
    loaded.problems.iter().for_each(|problem| crate::fuzz::assert_clean(&problem.to_string()));
    if data.len().is_multiple_of(8) || cfg!(test) {
        assert!(!super::help::report(&loaded).contains('\u{1b}'), "the report moves the cursor");
    }
}
