//! Why a task or container waits, as data: its blocker, since when it waits, and the progress of a pull.
//!
//! The core decides the blocker ([`Blocker`]), and the Docker edge knows the progress of a pull ([`PullProgress`]). Readers join
//! the two by the id of the operation. Invariant: no text here carries credentials or a presigned address.

use super::task::Condition;
use super::{
    ContainerName, ContainerStatus, CredentialsId, Health, MacAddress, OpId, RoleKind, Span, TaskArn, Timestamp,
};
use std::fmt;

/// One wait of a task or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The container that waits; `None`: the whole task waits.
    pub container: Option<ContainerName>,
    /// What the task or the container waits for.
    pub blocker: Blocker,
    /// When the pending operation began; without one, when the status of the task or container last changed.
    pub since: Timestamp,
}

/// What a task or a container waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// The task's share of the host; the list names everything of which too little is free. An empty list: enough is free, but
    /// earlier tasks come first.
    HostResources(Vec<Shortage>),
    /// The credentials of a role, which ECS has not sent yet, or not since the agent started.
    Credentials(RoleKind, CredentialsId),
    /// The digest of this image, which is requested from the registry.
    Digest(OpId, String),
    /// The pull of this image.
    Pull(OpId, String),
    /// The removal of this image by the clean-up; it is pulled again afterwards.
    ImageRemoval(String),
    /// Room on the disk for the image: the disk is being checked, or images are being removed.
    DiskSpace,
    /// The creation of the resource with this name. The id is that of the pending creation; `None`: it is tried again later.
    Resource(Option<OpId>, String),
    /// An operation of Docker: "create", "start", "stop", "describe" or "remove".
    Docker(OpId, &'static str),
    /// These containers. The wait is given up at this moment; `None`: never.
    Containers(Vec<Awaited>, Option<Timestamp>),
    /// The network interface with this hardware address, which ECS has announced. The wait is given up at this moment.
    Interface(MacAddress, Timestamp),
    /// The network of the task: "set up" or "torn down". The id is that of the pending operation; `None`: it is about to begin.
    Network(Option<OpId>, &'static str),
    /// The delay after the end of the task's other containers, until this moment. Then its network is torn down.
    NetworkDelay(Timestamp),
    /// The inventory: the listing of all containers of this agent.
    Inventory,
    /// The next try after a failure, at this moment.
    NextTry(Timestamp),
}

/// Something that a task needs more of than is free on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// "CPU units", "MiB of memory", "host ports" or "GPUs".
    pub what: &'static str,
    /// The amount that the task needs; for ports and GPUs, the ports or ids themselves.
    pub wanted: String,
    /// The amount that is free; for ports and GPUs, those that are free.
    pub free: String,
    /// Tasks that hold the rest, in the order of their ARNs. Only the first few.
    pub held_by: Vec<TaskArn>,
}

/// A container that another one waits for, and its current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The name of the container.
    pub container: ContainerName,
    /// What must happen to the container first.
    pub requirement: Requirement,
    /// The status that the container has reached.
    pub known: ContainerStatus,
    /// The last result of its health check.
    pub health: Health,
    /// What the last failed health check printed; empty if the container is not unhealthy, or the output is not known.
    pub health_output: String,
    /// The exit code of the container; `None` unless it has ended and the code is known.
    pub exit_code: Option<i32>,
}

/// What must happen to a container before another one may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The container meets this condition of `dependsOn`.
    Condition(Condition),
    /// The container ends.
    End,
    /// The container is inspected, because the agent has just started or an answer was lost.
    Inspection,
}

impl fmt::Display for Awaited {
    /// `app to be HEALTHY (it is RUNNING, UNHEALTHY: 'no route to host')`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.requirement {
            Requirement::Condition(condition) => write!(f, "{} to be {condition}", self.container)?,
            Requirement::End => write!(f, "{} to end", self.container)?,
            Requirement::Inspection => return write!(f, "{} to be inspected", self.container),
        }
        write!(f, " (it is {}", self.known)?;
        match self.health {
            Health::Unknown => {}
            Health::Healthy => f.write_str(", HEALTHY")?,
            Health::Unhealthy if self.health_output.is_empty() => f.write_str(", UNHEALTHY")?,
            Health::Unhealthy => write!(f, ", UNHEALTHY: '{}'", self.health_output)?,
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
    /// All that [`Blocker::kind`] yields.
    pub const KINDS: [&str; 14] = [
        "host-resources",
        "credentials",
        "digest",
        "pull",
        "image-removal",
        "disk-space",
        "resource",
        "engine",
        "containers",
        "interface",
        "network",
        "network-delay",
        "inventory",
        "next-try",
    ];

    /// The kind of the blocker, as one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::HostResources(_) => "host-resources",
            Self::Credentials(..) => "credentials",
            Self::Digest(..) => "digest",
            Self::Pull(..) => "pull",
            Self::ImageRemoval(_) => "image-removal",
            Self::DiskSpace => "disk-space",
            Self::Resource(..) => "resource",
            Self::Docker(..) => "engine",
            Self::Containers(..) => "containers",
            Self::Interface(..) => "interface",
            Self::Network(..) => "network",
            Self::NetworkDelay(_) => "network-delay",
            Self::Inventory => "inventory",
            Self::NextTry(_) => "next-try",
        }
    }

    /// The pending operation whose end is awaited; `None` if there is none.
    pub fn op(&self) -> Option<OpId> {
        match self {
            Self::Digest(op, _) | Self::Pull(op, _) | Self::Docker(op, _) => Some(*op),
            Self::Resource(op, _) | Self::Network(op, _) => *op,
            Self::HostResources(_)
            | Self::Credentials(..)
            | Self::ImageRemoval(_)
            | Self::DiskSpace
            | Self::Containers(..)
            | Self::Interface(..)
            | Self::NetworkDelay(_)
            | Self::Inventory
            | Self::NextTry(_) => None,
        }
    }
}

impl Waiting {
    /// The wait in words, with the times that belong to it.
    pub fn describe(&self, now: Timestamp) -> String {
        let age = now.since(self.since).0 / 1000;
        match &self.blocker {
            Blocker::Interface(address, expires_at) => {
                let rest = duration(expires_at.since(now));
                format!("the interface {address} has not appeared for {age} s; it expires in {rest}")
            }
            Blocker::Network(Some(_), what) => format!("its network is being {what} (for {age} s)"),
            Blocker::NetworkDelay(until) => {
                format!("its network is torn down in {}", duration(until.since(now)))
            }
            other => format!("waits for {other}"),
        }
    }
}

/// A span for people: `40 s`, or `2 min` from two minutes on.
fn duration(span: Span) -> String {
    match span.0.div_ceil(1000) {
        secs if secs < 120 => format!("{secs} s"),
        secs => format!("{} min", secs / 60),
    }
}

impl fmt::Display for Blocker {
    /// The object of "waits for …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostResources(shortages) if shortages.is_empty() => {
                f.write_str("earlier tasks, which need what is free")
            }
            Self::HostResources(shortages) => {
                f.write_str("its share of the host: ")?;
                list(f, shortages)
            }
            Self::Credentials(RoleKind::Execution, _) => {
                f.write_str("ECS to send the credentials of its execution role")
            }
            Self::Credentials(RoleKind::Task, _) => f.write_str("ECS to send the credentials of its task role"),
            Self::Digest(_, image) => write!(f, "the registry to name the digest of {image}"),
            Self::Pull(_, image) => write!(f, "its image {image}"),
            Self::ImageRemoval(image) => write!(f, "the clean-up to remove {image}, which is then pulled again"),
            Self::DiskSpace => f.write_str("room on the disk for its image"),
            Self::Resource(_, name) => write!(f, "the task's resource {name}"),
            Self::Docker(_, verb) => write!(f, "Docker to {verb} it"),
            Self::Containers(awaited, _) => list(f, awaited),
            Self::Interface(address, _) => write!(f, "the interface {address} to appear"),
            Self::Network(_, what) => write!(f, "its network to be {what}"),
            Self::NetworkDelay(_) => f.write_str("the delay before its network is torn down"),
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

/// The progress of a pull, or of the look-up of a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// The current phase.
    pub phase: PullPhase,
    /// When the pull was requested.
    pub since: Timestamp,
    /// Number of the current attempt, from 1; 0: none has begun.
    pub attempt: u32,
    /// Number of attempts before the pull is given up; waits for the rate limit of the registry do not count.
    pub attempts: u32,
    /// Number of layers that Docker has named so far.
    pub layers: u32,
    /// Number of layers that are complete.
    pub layers_done: u32,
    /// Number of fetched bytes, over the layers whose size is known.
    pub bytes: u64,
    /// Compressed size in bytes of these layers.
    pub bytes_total: u64,
    /// When Docker last reported progress; `None` if it has not.
    pub last_progress: Option<Timestamp>,
    /// Why the last attempt failed; `None` if none has failed.
    pub failure: Option<String>,
    /// When the next attempt begins; `None` while one runs.
    pub next_try: Option<Timestamp>,
    /// When the registry's rate limit ends, as the registry itself announced; `None` if it does not limit requests.
    pub limit_ends: Option<Timestamp>,
}

/// The phases of a pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPhase {
    /// The pull waits for other pulls to end.
    #[default]
    Queued,
    /// Credentials are fetched, or a request to the registry is pending.
    Asking,
    /// Layers are downloaded or unpacked.
    Fetching,
    /// The image is tagged with the name that the task uses.
    Naming,
    /// An attempt failed, and the pull waits for the next one.
    Pausing,
    /// The registry refuses further requests for a while.
    RateLimited,
}

impl PullPhase {
    /// The phase as one word.
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
    /// Percentage of the bytes that is fetched, 0 to 100; `None` before any size is known.
    pub fn percent(&self) -> Option<u64> {
        (self.bytes_total > 0).then(|| self.bytes.min(self.bytes_total).saturating_mul(100) / self.bytes_total)
    }

    /// The progress as one line for people.
    pub fn describe(&self, now: Timestamp) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let seconds_until = |at: Timestamp| at.since(now).0.div_ceil(1000);
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
            text.push_str(&format!(", next try in {} s", seconds_until(at)));
        }
        if let Some(at) = self.limit_ends {
            text.push_str(&format!(", the registry's limit ends in {} s", seconds_until(at)));
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
    fn waits_for_a_network_have_their_times() {
        let mac = MacAddress([0x0a, 0, 0, 0, 0, 1]);
        let describe = |blocker| {
            let wait = Waiting { container: None, blocker, since: Timestamp(60_000) };
            wait.describe(Timestamp(100_000))
        };
        let table = [
            (
                Blocker::Interface(mac, Timestamp(220_000)),
                "the interface 0a:00:00:00:00:01 has not appeared for 40 s; it expires in 2 min",
            ),
            (
                Blocker::Interface(mac, Timestamp(219_000)),
                "the interface 0a:00:00:00:00:01 has not appeared for 40 s; it expires in 119 s",
            ),
            (Blocker::Network(Some(OpId(1)), "set up"), "its network is being set up (for 40 s)"),
            (Blocker::Network(None, "torn down"), "waits for its network to be torn down"),
            (Blocker::NetworkDelay(Timestamp(103_500)), "its network is torn down in 4 s"),
            (Blocker::DiskSpace, "waits for room on the disk for its image"),
        ];
        for (blocker, text) in table {
            assert!(Blocker::KINDS.contains(&blocker.kind()), "{text}");
            assert_eq!(describe(blocker), text);
        }
    }

    #[test]
    fn the_line_shows_the_progress_and_why_a_pull_waits() {
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
