//! Registry mirrors (`ECS_IMAGE_REGISTRY_MIRRORS`): the same images under other names.
//!
//! Owns the names and which of them failed lately. It pulls nothing. The invariant: a mirror changes where an image comes from, never
//! what it is called: what came from a mirror also gets the name the task uses, and what cannot be named so is not mirrored.

use super::Docker;
use super::auth::is_hub;
use super::image::invalid_reference;
use super::reference::{Reference, host_and_path};
use crate::model::OpError;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A mirror that did not have an image is not asked for that image again for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Images remembered for that; more are simply asked for again.
const MAX_FAILED: usize = 200;
const HUB: &str = "docker.io";

/// Mirrors by the host they stand for.
#[derive(Debug, Default)]
pub struct Mirrors {
    by_host: BTreeMap<String, String>,
    failed: Mutex<BTreeMap<String, Instant>>,
}

impl Mirrors {
    /// `mirrors` maps a registry's host to what stands in its place: a host, with or without a path.
    pub fn new(mirrors: &BTreeMap<String, String>) -> Self {
        let entry = |(host, prefix): (&String, &String)| {
            let host = if is_hub(host) { HUB } else { host };
            (host.to_owned(), prefix.trim_end_matches('/').to_owned())
        };
        Self { by_host: mirrors.iter().map(entry).collect(), failed: Mutex::default() }
    }

    /// The image's name at the mirror of its registry. `None`: there is no mirror, or the image is named by its digest, which is no
    /// name that can be given to what came from elsewhere.
    pub fn name_of(&self, image: &str) -> Option<String> {
        let reference = Reference::parse(image).filter(|reference| reference.digest.is_none())?;
        let repository = reference.repository();
        let (host, path) = host_and_path(&repository);
        let prefix = self.by_host.get(if is_hub(host) { HUB } else { host })?;
        Some(format!("{prefix}/{path}:{}", reference.tag.unwrap_or("latest")))
    }

    /// The same, unless the mirror failed for this image lately.
    pub fn place_of(&self, image: &str) -> Option<String> {
        let name = self.name_of(image)?;
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let has_failed = failed.get(&name).is_some_and(|since| since.elapsed() < RETRY_AFTER);
        (!has_failed).then_some(name)
    }

    /// The mirror did not give the image of this name.
    pub fn failed(&self, name: &str) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, since| since.elapsed() < RETRY_AFTER);
        if failed.len() < MAX_FAILED {
            failed.insert(name.to_owned(), Instant::now());
        }
    }
}

/// The registry's host in an image's name; `docker.io` if there is none.
pub fn registry_of(image: &str) -> &str {
    host_and_path(image).0
}

/// What credentials for an image must name as their server. Newer engines use them for no other host; to them Docker Hub is called
/// by the address of its first version.
pub fn server_of(image: &str) -> &str {
    match registry_of(image) {
        host if is_hub(host) => "https://index.docker.io/v1/",
        host => host,
    }
}

impl Docker {
    /// Makes what was pulled as `source` findable as `image` too.
    pub async fn name(&self, source: &str, image: &str) -> Result<(), OpError> {
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
    fn names_at_the_mirror() {
        let hub = "1.dkr.ecr.eu-west-1.amazonaws.com/docker-hub";
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            let mirrors = mirrors(&[(host, hub), ("r.io:5000", "m.io/")]);
            let table = [
                ("busybox", Some(format!("{hub}/library/busybox:latest"))),
                ("me/app:1", Some(format!("{hub}/me/app:1"))),
                ("docker.io/busybox:2", Some(format!("{hub}/library/busybox:2"))),
                ("r.io:5000/a/b:1", Some("m.io/a/b:1".to_owned())),
                ("r.io/a", None),
                ("busybox@sha256:ab", None),
                ("busybox:", None),
            ];
            for (image, wanted) in table {
                assert_eq!(mirrors.name_of(image), wanted, "{host} {image}");
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
        mirrors.failed("m.io/library/busybox:latest");
        assert_eq!(mirrors.place_of("busybox"), None);
        assert_eq!(mirrors.place_of("alpine").as_deref(), Some("m.io/library/alpine:latest"));
        assert!(mirrors.name_of("busybox").is_some());
        (0..MAX_FAILED * 2).for_each(|number| mirrors.failed(&number.to_string()));
        assert_eq!(mirrors.failed.lock().unwrap().len(), MAX_FAILED);
    }
}
