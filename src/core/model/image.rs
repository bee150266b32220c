//! The images on this host, for the image clean-up, and the comparison of image names.

use super::{OwnerId, RuntimeId, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The images and containers on this host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageListing {
    /// All images.
    pub images: Vec<ListedImage>,
    /// All containers in any state, whoever created them.
    pub containers: Vec<ListedContainer>,
    /// How full the file system of the images is, in percent; `None` if it was not requested or cannot be determined.
    pub disk_percent: Option<u8>,
    /// Identities of other agents that run with this Docker; `None` if they were not requested or cannot be determined.
    #[serde(default)]
    pub running_owners: Option<BTreeSet<OwnerId>>,
}

/// One image on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedImage {
    /// Id of the image (`sha256:…`).
    pub id: String,
    /// The image's names with a tag, as Docker prints them; empty after its last tag has moved to another image.
    pub names: Vec<String>,
    /// The image's names with a digest.
    pub digests: Vec<String>,
    /// Size in bytes.
    pub size: u64,
    /// Time since the image was built.
    pub age: Span,
}

/// One container on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedContainer {
    /// Docker's id of the container.
    pub id: RuntimeId,
    /// The name in Docker.
    pub name: String,
    /// The agent that created the container for a task, from its label; `None` if it has no such label.
    #[serde(default)]
    pub owner: Option<OwnerId>,
    /// Id of the container's image.
    pub image_id: String,
    /// Time since the container ended; [`Span::MAX`] if it never ran. `None` if it runs, or if the time was not requested.
    pub ended: Option<Span>,
}

/// An operation of the image clean-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageWork {
    /// List images and containers.
    List {
        /// The listing includes the times at which containers ended.
        ends: bool,
        /// The listing includes how full the disk is.
        disk: bool,
    },
    /// Remove these names of an image. Docker removes the image with its last name. If `names` is empty, remove the image by its
    /// id. A missing image is success. The removal is not forced: an image that a container uses stays.
    RemoveImage {
        /// Id of the image.
        id: String,
        /// The names to remove, as Docker prints them.
        names: Vec<String>,
    },
    /// Remove a container that has ended, whoever created it.
    RemoveContainer(RuntimeId),
}

/// The full name of an image, with the parts that Docker would add: `docker.io/library/busybox:latest` for `busybox`. A digest
/// replaces the tag.
pub fn full_name(image: &str) -> String {
    let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        Some(_) | None => (rest, "latest"),
    };
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        Some(_) | None => ("docker.io", name),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let library = if host == "docker.io" && !path.contains('/') { "library/" } else { "" };
    match digest {
        Some(digest) => format!("{host}/{library}{path}@{digest}"),
        None => format!("{host}/{library}{path}:{tag}"),
    }
}

impl ListedImage {
    /// The full names of the image, with tags and with digests.
    pub fn full_names(&self) -> impl Iterator<Item = String> {
        self.names.iter().chain(&self.digests).map(|name| full_name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one_name() {
        for (image, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/busybox:latest", "docker.io/library/busybox:latest"),
            ("index.docker.io/me/app:2", "docker.io/me/app:2"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("localhost/app:3", "localhost/app:3"),
            ("registry.example/a/b:1@sha256:d", "registry.example/a/b@sha256:d"),
        ] {
            assert_eq!(full_name(image), full, "{image}");
            assert_eq!(full_name(full), full, "{image}");
        }
    }
}
