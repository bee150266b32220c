//! How long each call to the daemon may take.
//!
//! Owns the limits that are no setting of the operator's (those are in [`super::Settings`]); they are values, so that a test can wait
//! for them. Invariant: the defaults are those of spec `docker-mapping.md` §10, and no call is without one.

use std::time::Duration;

/// Limits in time of whole calls, head and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Asking which versions the daemon speaks.
    pub version: Duration,
    /// Asking whether it is there.
    pub ping: Duration,
    /// Looking at a container, also after it was created, started or stopped.
    pub inspect: Duration,
    /// Looking at a container of which an event told. Another look follows from the next inventory.
    pub inspect_after_event: Duration,
    /// Looking at a local image. The Go agent has no limit here; one that hangs would hold a create for ever.
    pub inspect_image: Duration,
    /// Listing all containers, without the looks at each.
    pub list: Duration,
    /// Docker kills after the grace of a stop; this much more may pass until it says so.
    pub stop_margin: Duration,
    /// Removing a container.
    pub remove: Duration,
    /// Removing an image.
    pub remove_image: Duration,
    /// Making, looking at or removing a volume.
    pub volume: Duration,
    /// Asking what kind of engine it is.
    pub info: Duration,
    /// Listing plugins.
    pub plugins: Duration,
    /// From the request of a pull to its first line: the daemon says nothing before the registry has answered.
    pub pull_begin: Duration,
    /// Making an image from an archive.
    pub load_image: Duration,
    /// Until the event stream begins.
    pub open_events: Duration,
    /// A stream without any event for this long is opened anew: it may be dead without knowing. The gap this means costs one listing.
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
