//! Why something that is pending does not go on, as data: who is held up, by what, since when; and how far a pull is.
//!
//! The core says *what* blocks ([`Blocker`]), the Docker edge says how far a pull is ([`PullProgress`]); readers join the two by the
//! operation's id. Invariant: no text here carries credentials or a presigned address.

use super::task::Condition;
use super::{ContainerName, ContainerStatus, CredentialsId, Health, OpId, TaskArn, Timestamp};
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
    /// The task's share of the host: what there is too little of. Empty: there is enough, but earlier tasks come first.
    HostResources(Vec<Shortage>),
    /// ECS has not sent the credentials of the task execution role (again).
    Credentials(CredentialsId),
    /// The registry is asked for the digest behind this image.
    Digest(OpId, String),
    /// This image is pulled.
    Pull(OpId, String),
    /// This image is being removed by the clean-up; it is pulled anew afterwards.
    ImageRemoval(String),
    /// The disk is looked at, or room is made on it, before the image is pulled.
    DiskSpace,
    /// This resource of the task is not there yet: it is being made, or tried again later.
    Resource(Option<OpId>, String),
    /// Docker is at work: "create", "start", "stop", "describe" or "remove".
    Docker(OpId, &'static str),
    /// These containers must come further first; the wait is given up at the moment, if there is one.
    Containers(Vec<Awaited>, Option<Timestamp>),
    /// The listing of all containers is on its way.
    Inventory,
    /// The last try failed; the next is at this moment.
    NextTry(Timestamp),
}

/// Something of the host that a task needs more of than is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// "CPU units", "MiB of memory", "host ports" or "GPUs".
    pub what: &'static str,
    /// How much the task needs; of ports and GPUs, which.
    pub wanted: String,
    /// How much of it is free.
    pub free: String,
    /// The tasks that hold the rest, in the order of their ARNs; the first few.
    pub held_by: Vec<TaskArn>,
}

/// A container that another one waits for, and how it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Its name.
    pub container: ContainerName,
    /// How far it must come.
    pub must: Must,
    /// How far it has come.
    pub known: ContainerStatus,
    /// The last result of its health check.
    pub health: Health,
    /// Its exit code, if it has ended and the code is known.
    pub exit_code: Option<i32>,
}

/// How far a container must come that another one waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// It meets this condition of `dependsOn`.
    Be(Condition),
    /// It ends.
    End,
    /// Docker says how it is; the agent has just started, or an answer was lost.
    BeLookedAt,
}

impl fmt::Display for Awaited {
    /// `app to be HEALTHY (it is RUNNING, UNHEALTHY)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.must {
            Must::Be(condition) => write!(f, "{} to be {condition}", self.container)?,
            Must::End => write!(f, "{} to end", self.container)?,
            Must::BeLookedAt => return write!(f, "{} to be looked at", self.container),
        }
        write!(f, " (it is {}", self.known)?;
        match self.health {
            Health::Unknown => {}
            Health::Healthy => f.write_str(", HEALTHY")?,
            Health::Unhealthy => f.write_str(", UNHEALTHY")?,
        }
        if let Some(code) = self.exit_code {
            write!(f, ", exit code {code}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Shortage {
    /// `2048 CPU units (1024 free; held by 0123abc…)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} free", self.wanted, self.what, self.free)?;
        let mut held = self.held_by.iter().map(TaskArn::task_id);
        if let Some(first) = held.next() {
            write!(f, "; held by {first}")?;
            held.try_for_each(|id| write!(f, ", {id}"))?;
        }
        f.write_str(")")
    }
}

impl Blocker {
    /// One word for what kind of thing it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::HostResources(_) => "host-resources",
            Self::Credentials(_) => "credentials",
            Self::Digest(..) => "digest",
            Self::Pull(..) => "pull",
            Self::ImageRemoval(_) => "image-removal",
            Self::DiskSpace => "disk-space",
            Self::Resource(..) => "resource",
            Self::Docker(..) => "engine",
            Self::Containers(..) => "containers",
            Self::Inventory => "inventory",
            Self::NextTry(_) => "next-try",
        }
    }

    /// The operation whose end is waited for.
    pub fn op(&self) -> Option<OpId> {
        match self {
            Self::Digest(op, _) | Self::Pull(op, _) | Self::Docker(op, _) => Some(*op),
            Self::Resource(op, _) => *op,
            Self::HostResources(_)
            | Self::Credentials(_)
            | Self::ImageRemoval(_)
            | Self::DiskSpace
            | Self::Containers(..)
            | Self::Inventory
            | Self::NextTry(_) => None,
        }
    }
}

impl fmt::Display for Blocker {
    /// Completes "waits for …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostResources(shortages) if shortages.is_empty() => {
                f.write_str("earlier tasks, which need what is free")
            }
            Self::HostResources(shortages) => {
                f.write_str("its share of the host: ")?;
                list(f, shortages)
            }
            Self::Credentials(_) => f.write_str("ECS to send the credentials of its execution role"),
            Self::Digest(_, image) => write!(f, "the registry to name the digest of {image}"),
            Self::Pull(_, image) => write!(f, "its image {image}"),
            Self::ImageRemoval(image) => write!(f, "the clean-up to have removed {image}, which is pulled anew then"),
            Self::DiskSpace => f.write_str("room on the disk for its image"),
            Self::Resource(_, name) => write!(f, "the task's resource {name}"),
            Self::Docker(_, verb) => write!(f, "Docker to {verb} it"),
            Self::Containers(awaited, _) => list(f, awaited),
            Self::Inventory => f.write_str("the listing of all containers"),
            Self::NextTry(_) => f.write_str("the next try"),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, members: &[T]) -> fmt::Result {
    members.iter().enumerate().try_for_each(|(at, member)| {
        f.write_str(if at == 0 { "" } else { ", " })?;
        member.fmt(f)
    })
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
