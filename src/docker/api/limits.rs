//! How long each call to the daemon may take.
//!
//! Owns the limits that the operator cannot set (those that the operator can set are in [`crate::docker::Settings`]). They are
//! fields, so that tests can use short ones. Invariant: the defaults are those of spec `docker-mapping.md` §10, and every call
//! has one.

use std::time::Duration;

/// Time limits for whole calls, head and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Asking for the daemon's API versions.
    pub version: Duration,
    /// Asking whether the daemon answers.
    pub ping: Duration,
    /// Inspecting a container, also after it was created, started or stopped.
    pub inspect: Duration,
    /// Inspecting a container after an event. If this fails, the next inventory inspects the container again.
    pub inspect_after_event: Duration,
    /// Inspecting a local image. The Go agent has no limit here; a call that hangs would delay a create for ever.
    pub inspect_image: Duration,
    /// Listing all containers, without inspecting each.
    pub list: Duration,
    /// The statistics of a container.
    pub statistics: Duration,
    /// The time beyond the grace period of a stop, in which Docker kills the container and answers.
    pub stop_margin: Duration,
    /// Removing a container.
    pub remove: Duration,
    /// Removing an image.
    pub remove_image: Duration,
    /// Creating, inspecting or removing a volume.
    pub volume: Duration,
    /// Asking for the facts about the engine (`GET /info`).
    pub info: Duration,
    /// Listing plugins.
    pub plugins: Duration,
    /// From the request of a pull to its first line: the daemon sends nothing before the registry has answered.
    pub pull_begin: Duration,
    /// Loading an image from an archive.
    pub load_image: Duration,
    /// Opening the event stream.
    pub open_events: Duration,
    /// An event stream without events for this long is opened again, since its connection may be dead. Each reopening costs one
    /// inventory.
    pub quiet_events: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            version: Duration::from_secs(10),
            ping: Duration::from_secs(5),
            inspect: Duration::from_secs(30),
            inspect_after_event: Duration::from_secs(10),
            inspect_image: Duration::from_secs(30),
            list: Duration::from_secs(600),
            statistics: Duration::from_secs(18),
            stop_margin: Duration::from_secs(120),
            remove: Duration::from_secs(300),
            remove_image: Duration::from_secs(180),
            volume: Duration::from_secs(300),
            info: Duration::from_secs(10),
            plugins: Duration::from_secs(60),
            pull_begin: Duration::from_secs(300),
            load_image: Duration::from_secs(120),
            open_events: Duration::from_secs(30),
            quiet_events: Duration::from_secs(300),
        }
    }
}
