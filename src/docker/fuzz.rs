//! The fuzz targets of the Docker edge.

use super::api::connection;
use super::api::error::DockerError;
use super::auth::AuthMap;
use super::auth::helper;
use super::images::rate_limit::LimitWaits;
use super::images::reference::Reference;
use super::images::{pull, pull_text, rate_limit};
use super::stats;
use crate::input::fuzz::assert_clean;
use crate::input::truncated::member_of_truncated;
use ecs_core::model::image::full_name;
use ecs_core::model::text::cleaned;
use ecs_core::model::{OpError, Secret};
use std::time::Duration;
use tokio::time::Instant;

/// Parses the operator's registry credentials: the first line is an image, the rest the document.
///
/// # Panics
/// An invariant does not hold.
pub fn auth_data(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (image, document) = text.split_once('\n').unwrap_or(("registry.example.com/app", &text));
    for auth_type in ["docker", "dockercfg"] {
        let (map, problems) = AuthMap::parse(auth_type, &Secret::from(document));
        problems.iter().for_each(|problem| assert_clean(&problem.to_string()));
        assert_clean(&map.source_shown(image));
    }
}

/// Parses the output of a credential helper.
///
/// # Panics
/// An invariant does not hold.
pub fn helper_answer(data: &[u8]) {
    if let Err(error) = helper::credentials(data, "registry.example.com") {
        assert_clean(&error.to_string());
    }
}

/// Parses the name of an image as a task definition writes it.
///
/// # Panics
/// An invariant does not hold.
pub fn image_reference(data: &[u8]) {
    let image = String::from_utf8_lossy(data);
    let full = full_name(&image);
    let Some(reference) = Reference::parse(&image) else { return };
    assert_eq!(full_name(&full), full, "the full name of a full name is itself");
    let to_pull = reference.to_pull();
    let again = Reference::parse(&to_pull).expect("what is pulled is a reference");
    assert_eq!(again.to_pull(), to_pull);
    assert_eq!(again.repository(), reference.repository());
}

/// Translates Docker's statistics of a container.
///
/// # Panics
/// An invariant does not hold.
pub fn docker_stats(data: &[u8]) {
    let Some(usage) = serde_json::from_slice(data).ok().as_ref().and_then(stats::usage) else { return };
    assert!(usage.cpu.total > 0);
    assert!(usage.networks.is_sorted_by(|a, b| a.name <= b.name));
    assert!(usage.networks.iter().all(|interface| interface.name.len() <= 64));
    assert!(usage.memory.without_cache() <= usage.memory.usage);
}

/// Translates an error of Docker or a registry. The first byte is the status; the rest is the text, the body of an answer, or a
/// line of a pull's progress.
///
/// # Panics
/// An invariant does not hold.
pub fn docker_error(data: &[u8]) {
    let (status, text) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let text = String::from_utf8_lossy(text).into_owned();
    let now = Instant::now();
    let mut limit_waits = LimitWaits::new(Some(now + Duration::from_secs(3600)));
    let _ = (rate_limit::is_limit(&text), limit_waits.wait(&text, now, Duration::from_secs(1_800_000_000)));
    let status = 100 + 2 * u16::from(status);
    let body = &data[data.len().min(1)..];
    // Only a line as long as the bound is treated as cut, so the parsing of a cut line is called directly.
    let cut = DockerError::Stream(cleaned(&member_of_truncated(body, "message").unwrap_or_default()));
    let mut errors = vec![DockerError::Daemon { status, message: text.clone() }, DockerError::Stream(text), cut];
    errors.push(connection::refusal(status, body));
    errors.extend(pull::progress_of(body).err());
    for error in errors {
        let failure = match error.to_single_try_error("CannotPullContainerError", "pull") {
            OpError::Failed(failure) | OpError::Unknown(failure) => failure,
        };
        assert_clean(&pull_text::for_customer(failure, "registry.example.com/app:1").message);
    }
}
