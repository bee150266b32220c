//! Images on this host, as the clean-up sees them, and how one image's names compare.

use super::{OwnerId, RuntimeId, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is on this host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageListing {
    /// All images.
    pub images: Vec<ListedImage>,
    /// All containers, of whomever, in any state.
    pub containers: Vec<ListedContainer>,
    /// How full the file system of the engine's data is, if that was asked for and can be told from here.
    pub disk_percent: Option<u8>,
    /// Identities of other agents that run with this engine; `None` if that was not asked for or cannot be told.
    #[serde(default)]
    pub running_owners: Option<BTreeSet<OwnerId>>,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedImage {
    /// `sha256:…`
    pub id: String,
    /// Its names with a tag, as the engine prints them; none after its tag has moved on.
    pub names: Vec<String>,
    /// Its names with a digest.
    pub digests: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// Since it was built, wherever that was.
    pub age: Span,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedContainer {
    /// The engine's id.
    pub id: RuntimeId,
    /// Its name.
    pub name: String,
    /// The agent that made it for a task, from its label; `None` if it has no such label.
    #[serde(default)]
    pub owner: Option<OwnerId>,
    /// Id of its image.
    pub image_id: String,
    /// How long ago it ended, if it does not run and that was asked for; [`Span::MAX`] if it never ran.
    pub ended: Option<Span>,
}

/// Something the clean-up of images asks of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageWork {
    /// List images and containers.
    List {
        /// Tell when containers ended.
        ends: bool,
        /// Tell how full the disk is.
        disk: bool,
    },
    /// Remove these names of an image, and with the last one the image; without any, the image by its id. What is not there is
    /// success. Nothing is forced: an image that a container uses stays.
    RemoveImage {
        /// Its id.
        id: String,
        /// Its names, as the engine prints them.
        names: Vec<String>,
    },
    /// Remove a container that has ended, of whomever it is.
    RemoveContainer(RuntimeId),
}

/// The name with all that Docker fills in: `docker.io/library/busybox:latest` for `busybox`. A digest takes the place of the tag.
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
    /// Its full names, with tag and with digest.
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
