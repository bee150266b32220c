//! The fuzz targets: one function for each entrance of text from outside. Not part of the product.
//!
//! `tests/fuzz/run` runs them for a long time; the test below runs them on every saved seed. Each function is in the `fuzz.rs`
//! of the part that it tests, where it can use private items; `websocket_stream` is in `any_text.rs`, `log_line` is here.
//! Invariant: a target does no I/O, and panics if a promise is broken.

pub use crate::acs::fuzz::acs_frame;
pub use crate::cgroup::usage::fuzz::usage_files;
pub use crate::config::fuzz::ecs_config;
pub use crate::docker::fuzz::{auth_data, docker_error, docker_stats, helper_answer, image_reference};
pub use crate::http::fuzz::http_request;
pub use crate::http::task_metadata::fuzz::{fault_body, protection_body};
pub use crate::http::task_metadata::fuzz_path::task_metadata_path;
pub use crate::resources::fuzz::env_file;
pub use crate::tcs::fuzz::tcs_frame;
pub use crate::websocket::websocket_stream;

use crate::runtime::logging::Form;
use crate::runtime::logging::line::{Line, MAX_LINE};
use std::time::SystemTime;
use tracing::Level;

/// Formats a log event. The parts between zero bytes are its target, its message, and the names and values of its fields.
///
/// # Panics
/// The result is not one line, is too long, moves a cursor, or is invalid JSON in the JSON format.
pub fn log_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for form in [Form::Logfmt, Form::Json] {
        let mut parts = text.split('\0');
        let mut line = Line::new(form, SystemTime::UNIX_EPOCH, Level::INFO, parts.next().unwrap_or_default());
        line.message(parts.next().unwrap_or_default());
        while let Some(name) = parts.next() {
            match parts.next() {
                Some(value) => {
                    line.text(name, value);
                    line.number(name, u64::MAX);
                }
                None => line.number(name, u64::MAX),
            }
        }
        let line = line.finish();
        assert!(line.len() <= MAX_LINE, "a line of {} bytes", line.len());
        let inside = line.strip_suffix('\n').expect("a line ends");
        assert!(!inside.chars().any(char::is_control), "a control character in {inside:?}");
        if form == Form::Json {
            serde_json::from_str::<serde_json::Value>(inside).expect("a line is JSON");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 16] = [
        ("acs_frame", acs_frame),
        ("auth_data", auth_data),
        ("docker_error", docker_error),
        ("docker_stats", docker_stats),
        ("ecs_config", ecs_config),
        ("env_file", env_file),
        ("fault_body", fault_body),
        ("helper_answer", helper_answer),
        ("http_request", http_request),
        ("image_reference", image_reference),
        ("log_line", log_line),
        ("protection_body", protection_body),
        ("task_metadata_path", task_metadata_path),
        ("tcs_frame", tcs_frame),
        ("usage_files", usage_files),
        ("websocket_stream", websocket_stream),
    ];

    /// The folders of seeds and this list name the same targets, and every seed passes.
    #[test]
    fn every_saved_seed_of_the_fuzzer_passes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, TARGETS.map(|(name, _)| name));
        for (name, target) in TARGETS {
            let seeds: Vec<_> = std::fs::read_dir(folder.join(name)).unwrap().collect();
            assert!(!seeds.is_empty(), "{name} has no seed");
            for seed in seeds {
                target(&std::fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
