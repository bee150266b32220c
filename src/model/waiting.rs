//! Why something that is pending does not go on, as data: who is held up, by what, since when; and how far a pull is.
//!
//! The core says *what* blocks ([`Blocker`]), the Docker edge says how far a pull is ([`PullProgress`]); readers join the two by the
//! operation's id. Invariant: no text here carries credentials or a presigned address.

use super::{ContainerName, CredentialsId, OpId, Timestamp};
use std::fmt;

/// One thing that is held up, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The container that is held up; `None`: the whole task.
    pub container: Option<ContainerName>,
    /// What it waits for.
    pub blocker: Blocker,
    /// Since when it has not come further.
    pub since: Timestamp,
}

/// What holds something up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// Its share of the host's CPU, memory and ports, or the tasks before it in the queue.
    HostResources,
    /// ECS has not sent the credentials of the task execution role (again).
    Credentials(CredentialsId),
    /// The registry names the digest behind this image.
    Digest(OpId, String),
    /// This image is pulled.
    Pull(OpId, String),
    /// This resource of the task is not there yet: it is being made, or tried again later.
    Resource(Option<OpId>, String),
    /// The container engine is at work: "create", "start", "stop", "describe" or "remove".
    Engine(OpId, &'static str),
    /// These containers must come further first.
    Containers(Vec<ContainerName>),
    /// The listing of all containers is on its way.
    Inventory,
    /// The last try failed; the next is at this moment.
    NextTry(Timestamp),
}

impl Blocker {
    /// One word for what kind of thing it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::HostResources => "host-resources",
            Self::Credentials(_) => "credentials",
            Self::Digest(..) => "digest",
            Self::Pull(..) => "pull",
            Self::Resource(..) => "resource",
            Self::Engine(..) => "engine",
            Self::Containers(_) => "containers",
            Self::Inventory => "inventory",
            Self::NextTry(_) => "next-try",
        }
    }

    /// The operation whose end is waited for.
    pub fn op(&self) -> Option<OpId> {
        match self {
            Self::Digest(op, _) | Self::Pull(op, _) | Self::Engine(op, _) => Some(*op),
            Self::Resource(op, _) => *op,
            Self::HostResources | Self::Credentials(_) | Self::Containers(_) | Self::Inventory | Self::NextTry(_) => {
                None
            }
        }
    }
}

impl fmt::Display for Blocker {
    /// Completes "waits for …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostResources => f.write_str("its share of the host's CPU, memory and ports"),
            Self::Credentials(_) => f.write_str("ECS to send the credentials of its execution role"),
            Self::Digest(_, image) => write!(f, "the registry to name the digest of {image}"),
            Self::Pull(_, image) => write!(f, "its image {image}"),
            Self::Resource(_, name) => write!(f, "the task's resource {name}"),
            Self::Engine(_, verb) => write!(f, "the engine to {verb} it"),
            Self::Containers(names) => {
                let names: Vec<&str> = names.iter().map(ContainerName::as_str).collect();
                write!(f, "other containers ({})", names.join(", "))
            }
            Self::Inventory => f.write_str("an inventory"),
            Self::NextTry(_) => f.write_str("the next try"),
        }
    }
}

/// How far a pull, or the look-up of a digest, is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What goes on right now.
    pub phase: PullPhase,
    /// When it was asked for.
    pub since: Timestamp,
    /// Which attempt this is, from 1; 0 = none has begun.
    pub attempt: u32,
    /// Attempts before it is given up, unless the registry's limit is waited for.
    pub attempts: u32,
    /// Layers the engine has named so far.
    pub layers: u32,
    /// Layers that are there.
    pub layers_done: u32,
    /// Bytes fetched of the layers whose size is known.
    pub bytes: u64,
    /// Size of these layers, compressed.
    pub bytes_total: u64,
    /// Last sign of life from the engine.
    pub moved: Option<Timestamp>,
    /// Why the last attempt failed.
    pub failure: Option<String>,
    /// When the next attempt begins.
    pub next_try: Option<Timestamp>,
    /// When the registry will take requests again, in its own words.
    pub limit_ends: Option<Timestamp>,
}

/// Stages of a pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPhase {
    /// Others are pulled first.
    #[default]
    Queued,
    /// Credentials are fetched, the registry is asked.
    Asking,
    /// Layers come in, or are unpacked.
    Fetching,
    /// The image gets the name the task uses.
    Naming,
    /// An attempt failed; the next one comes.
    Pausing,
    /// The registry refuses further requests for a while.
    RateLimited,
}

impl PullPhase {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Asking => "asking",
            Self::Fetching => "fetching",
            Self::Naming => "naming",
            Self::Pausing => "pausing",
            Self::RateLimited => "rate-limited",
        }
    }
}

impl PullProgress {
    /// Share of the bytes that is there, 0 to 100; `None` before any size is known.
    pub fn percent(&self) -> Option<u64> {
        (self.bytes_total > 0).then(|| self.bytes.min(self.bytes_total).saturating_mul(100) / self.bytes_total)
    }

    /// One line for people.
    pub fn describe(&self, now: Timestamp) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let ahead = |at: Timestamp| at.since(now).0.div_ceil(1000);
        let mut text = format!("{} for {} s", self.phase.as_str(), now.since(self.since).0 / 1000);
        if self.attempt > 0 {
            text.push_str(&format!(", attempt {} of {}", self.attempt, self.attempts.max(self.attempt)));
        }
        if self.layers > 0 {
            let (bytes, total) = (mib(self.bytes), mib(self.bytes_total));
            let (done, layers) = (self.layers_done, self.layers);
            text.push_str(&format!(", {done} of {layers} layers, {bytes:.1} of {total:.1} MiB fetched"));
        }
        if let Some(at) = self.next_try {
            text.push_str(&format!(", next try in {} s", ahead(at)));
        }
        if let Some(at) = self.limit_ends {
            text.push_str(&format!(", the registry's limit ends in {} s", ahead(at)));
        }
        if let Some(failure) = &self.failure {
            text.push_str(&format!(", last failure: {failure}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_why_it_waits() {
        let now = Timestamp(100_000);
        let mib = 1 << 20;
        let fetching = PullProgress {
            phase: PullPhase::Fetching,
            since: Timestamp(88_000),
            attempt: 1,
            attempts: 5,
            layers: 3,
            layers_done: 1,
            bytes: 4 * mib,
            bytes_total: 16 * mib,
            ..PullProgress::default()
        };
        assert_eq!(fetching.percent(), Some(25));
        let text = "fetching for 12 s, attempt 1 of 5, 1 of 3 layers, 4.0 of 16.0 MiB fetched";
        assert_eq!(fetching.describe(now), text);
        let limited = PullProgress {
            phase: PullPhase::RateLimited,
            since: now,
            attempt: 7,
            attempts: 5,
            failure: Some("toomanyrequests".to_owned()),
            next_try: Some(Timestamp(130_500)),
            limit_ends: Some(Timestamp(130_000)),
            ..PullProgress::default()
        };
        assert_eq!(limited.percent(), None);
        let text = "rate-limited for 0 s, attempt 7 of 7, next try in 31 s, the registry's limit ends in 30 s, last failure: toomanyrequests";
        assert_eq!(limited.describe(now), text);
    }
}
