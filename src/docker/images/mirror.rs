//! Registry mirrors (`ECS_IMAGE_REGISTRY_MIRRORS`): the same images under other names.
//!
//! Owns the images' names at the mirrors, and the list of recent failures. It pulls nothing. Invariant: a mirror changes where
//! an image comes from, never its name. An image from a mirror also gets the name that the task uses; an image that cannot get
//! this name is not mirrored.

use super::image::invalid_reference;
use super::reference::{Reference, host_and_path};
use crate::docker::Docker;
use crate::docker::auth::is_hub;
use ecs_core::model::OpError;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After a mirror failed to provide an image, it is not asked for that image again for this long.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The largest number of remembered failures; beyond this, mirrors are simply asked again.
const MAX_FAILED: usize = 200;
const HUB: &str = "docker.io";

/// The configured mirrors, and their recent failures.
#[derive(Debug, Default)]
pub struct Mirrors {
    /// The mirror's prefix, by the registry's host.
    by_host: BTreeMap<String, String>,
    /// When a mirror failed, by the image's name at the mirror.
    failed: Mutex<BTreeMap<String, Instant>>,
}

impl Mirrors {
    /// `mirrors` maps a registry's host to the prefix that replaces it: a host, with or without a path.
    pub fn new(mirrors: &BTreeMap<String, String>) -> Self {
        let entry = |(host, prefix): (&String, &String)| {
            let host = if is_hub(host) { HUB } else { host };
            (host.to_owned(), prefix.trim_end_matches('/').to_owned())
        };
        Self { by_host: mirrors.iter().map(entry).collect(), failed: Mutex::default() }
    }

    /// The image's name at the mirror of its registry. `None`: the registry has no mirror, or the image is named by its digest;
    /// Docker cannot give such a name to an image that came from elsewhere.
    pub fn name_at_mirror(&self, image: &str) -> Option<String> {
        let reference = Reference::parse(image).filter(|reference| reference.digest.is_none())?;
        let repository = reference.repository();
        let (host, path) = host_and_path(&repository);
        let prefix = self.by_host.get(if is_hub(host) { HUB } else { host })?;
        Some(format!("{prefix}/{path}:{}", reference.tag.unwrap_or("latest")))
    }

    /// The image's name at the mirror; `None` also if the mirror recently failed for this image.
    pub fn name_to_try(&self, image: &str) -> Option<String> {
        let name = self.name_at_mirror(image)?;
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let has_failed = failed.get(&name).is_some_and(|since| since.elapsed() < RETRY_AFTER);
        (!has_failed).then_some(name)
    }

    /// Records that the mirror failed to provide the image of this name.
    pub fn record_failure(&self, name: &str) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, since| since.elapsed() < RETRY_AFTER);
        if failed.len() < MAX_FAILED {
            failed.insert(name.to_owned(), Instant::now());
        }
    }
}

/// The registry's host in an image's name; `docker.io` if the name has none.
pub fn registry_of(image: &str) -> &str {
    host_and_path(image).0
}

/// The server address that credentials for an image must contain. Newer engines use credentials for no other host. For Docker
/// Hub they expect the address of its version 1 API.
pub fn server_of(image: &str) -> &str {
    match registry_of(image) {
        host if is_hub(host) => "https://index.docker.io/v1/",
        host => host,
    }
}

impl Docker {
    /// Tags the image that was pulled as `source` with the name `image`.
    ///
    /// # Errors
    /// Fails if `image` is not a valid reference, or if the engine does not set the tag in time.
    pub async fn add_name(&self, source: &str, image: &str) -> Result<(), OpError> {
        let target = Reference::parse(image).ok_or_else(|| invalid_reference("CannotPullContainerError"))?;
        self.tag(source, &target, image).await.map_err(OpError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(pairs: &[(&str, &str)]) -> Mirrors {
        Mirrors::new(&pairs.iter().map(|(host, prefix)| ((*host).to_owned(), (*prefix).to_owned())).collect())
    }

    #[test]
    fn an_image_has_another_name_at_the_mirror() {
        let hub = "1.dkr.ecr.eu-west-1.amazonaws.com/docker-hub";
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            let mirrors = mirrors(&[(host, hub), ("r.io:5000", "m.io/")]);
            let table = [
                ("busybox", Some(format!("{hub}/library/busybox:latest"))),
                ("me/app:1", Some(format!("{hub}/me/app:1"))),
                ("docker.io/busybox:2", Some(format!("{hub}/library/busybox:2"))),
                ("r.io:5000/a/b:1", Some("m.io/a/b:1".to_owned())),
                ("r.io/a", None),
                ("busybox@sha256:0000000000000000000000000000000000000000000000000000000000000000", None),
                ("busybox:", None),
            ];
            for (image, wanted) in table {
                assert_eq!(mirrors.name_at_mirror(image), wanted, "{host} {image}");
            }
        }
    }

    #[test]
    fn credentials_name_the_host_of_the_image() {
        let table = [
            ("123456789012.dkr-ecr.us-west-2.on.aws/app:1", "123456789012.dkr-ecr.us-west-2.on.aws"),
            ("localhost:5000/a/b", "localhost:5000"),
            ("busybox", "https://index.docker.io/v1/"),
            ("registry-1.docker.io/me/app:2", "https://index.docker.io/v1/"),
        ];
        for (image, server) in table {
            assert_eq!(server_of(image), server, "{image}");
        }
    }

    #[test]
    fn a_mirror_that_failed_for_an_image_is_skipped_for_it() {
        let mirrors = mirrors(&[("docker.io", "m.io")]);
        mirrors.record_failure("m.io/library/busybox:latest");
        assert_eq!(mirrors.name_to_try("busybox"), None);
        assert_eq!(mirrors.name_to_try("alpine").as_deref(), Some("m.io/library/alpine:latest"));
        assert!(mirrors.name_at_mirror("busybox").is_some());
        (0..MAX_FAILED * 2).for_each(|number| mirrors.record_failure(&number.to_string()));
        assert_eq!(mirrors.failed.lock().unwrap().len(), MAX_FAILED);
    }
}
