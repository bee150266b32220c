//! The world around one agent: everything there is, and what survives the agent.
//!
//! Its parts are set in motion by `moves`, `turn`, `outcome`, `life` and `heal`. The world judges nothing; `laws` does, from inside
//! the turn.

use crate::control::Ecs;
use crate::docker::Docker;
use crate::fetcher::Fetcher;
use crate::schedule::{Point, Rng};
use ecs_agent::core::state::{HostState, Owner};
use ecs_agent::core::{
    self, Capacity, Effect, ImagePolicy, Key, Operation, Outcome, Policy, PullBehavior, State, TaskState,
    UntrackedPolicy,
};
use ecs_agent::model::{CredentialsId, OpId, Owners, Span, StateChange, TaskArn, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// An effect that was handed out and not answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) op: OpId,
    pub(crate) effect: Effect,
    pub(crate) owner: Option<Owner>,
    /// Done already; the answer is under way.
    pub(crate) answer: Option<Outcome>,
    pub(crate) cancelled: bool,
}

/// What survives the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) host: HostState,
    pub(crate) tasks: BTreeMap<TaskArn, TaskState>,
}

/// What steps asked for since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) steps: u32,
    pub(crate) effects: Vec<Effect>,
    pub(crate) changed: BTreeSet<Key>,
    /// Some of it is to be on disk at once.
    pub(crate) is_urgent: bool,
    /// Reports whose acceptance the agent has heard of.
    pub(crate) confirmed: Vec<StateChange>,
    /// Tasks it was asked to stop.
    pub(crate) stops: Vec<TaskArn>,
}

/// When every story begins; far from zero, as the clock may be set back.
const BEGIN: Timestamp = Timestamp(1_000_000_000_000);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) state: State,
    pub(crate) disk: Disk,
    pub(crate) docker: Docker,
    pub(crate) fetcher: Fetcher,
    pub(crate) ecs: Ecs,
    pub(crate) pending: Vec<Pending>,
    /// Work of effects that timed out; the container engine does it yet.
    pub(crate) late: Vec<Effect>,
    /// Credentials in the agent's memory.
    pub(crate) credentials: BTreeSet<CredentialsId>,
    /// Resources in the agent's memory.
    pub(crate) memory: BTreeSet<(TaskArn, String)>,
    /// Resources whose removal failed that often in a row.
    pub(crate) unremoved: BTreeMap<(TaskArn, String), u32>,
    /// Nobody judges.
    pub(crate) lawless: bool,
    /// The first law that was broken.
    pub(crate) broken: Option<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) steps: u64,
    /// Compare whole states when planning again, not only what comes out of it.
    pub(crate) thorough: bool,
    /// The effects being handed out come from several steps: the state has gone on since some were decided.
    pub(crate) burst: bool,
    /// When an operation of that owner failed last, if nothing has worked for it since; and whether it was to stop then.
    pub(crate) failed: Vec<(Owner, Timestamp, bool)>,
    /// Creates, or starts (`true`), in a row that timed out without having been done.
    pub(crate) unanswered: Vec<(Owner, bool, u32)>,
    /// Tasks that had a share of the host when the agent came back to a smaller one.
    pub(crate) inherited: BTreeSet<TaskArn>,
    /// What was asked for last on whose behalf, when, and how much news there had been.
    pub(crate) asked: Vec<(Owner, std::mem::Discriminant<Operation>, Timestamp, u64)>,
    /// Counts facts beyond outcomes and the time.
    pub(crate) facts: u64,
    /// Counts listings that have arrived.
    pub(crate) listings: u64,
    /// ECS has sent a manifest since the trouble ended.
    pub(crate) reminded: bool,
    pub(crate) jam: u8,
    pub(crate) down: u8,
    pub(crate) turn: Turn,
    /// The state was lost once.
    pub(crate) was_lost: bool,
    /// Changed and not yet committed.
    pub(crate) unwritten: BTreeSet<Key>,
    /// Commits wait as long as they may.
    pub(crate) lingers: bool,
    pub(crate) hold: u8,
    pub(crate) crash_at: Option<(Point, u64)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed ^ 0x000b_005e_0fa1_1ce5);
        let policy = Policy {
            capacity: Capacity {
                cpu: 1024,
                memory: 700,
                reserved_tcp: BTreeSet::from([22]),
                gpus: BTreeSet::from(["gpu-0".to_owned()]),
                ..Capacity::default()
            },
            pull: match rng.below(6) {
                0 => PullBehavior::Always,
                1 => PullBehavior::Once,
                2 => PullBehavior::PreferCached,
                _ => PullBehavior::Default,
            },
            pull_upfront: rng.percent(20),
            cleanup_wait: Span::secs([30, 900][rng.below(2) as usize]),
            cleanup_jitter: Span::secs(rng.below(3) * 10),
            inventory_every: Span::secs(300),
            images: ImagePolicy {
                enabled: rng.percent(50),
                interval: Span::secs([40, 300][rng.below(2) as usize]),
                minimum_age: Span::secs(rng.below(2) * 60),
                per_cycle: 1 + rng.below(2) as u32,
                exclude: if rng.percent(20) { BTreeSet::from(["image-1".to_owned()]) } else { BTreeSet::new() },
                untracked: None,
                disk: rng.percent(20).then_some((60, 30)),
            },
            owners: Owners { own: "us-0".into(), ..Owners::default() },
        };
        let mut world = Self {
            now: BEGIN,
            state: core::recover(policy, HostState::default(), []),
            disk: Disk::default(),
            docker: Docker::new(rng.percent(70)),
            fetcher: Fetcher::default(),
            ecs: Ecs::default(),
            pending: Vec::new(),
            late: Vec::new(),
            credentials: BTreeSet::new(),
            memory: BTreeSet::new(),
            unremoved: BTreeMap::new(),
            lawless: false,
            broken: None,
            trace: None,
            steps: 0,
            thorough: seed.is_multiple_of(16),
            burst: false,
            failed: Vec::new(),
            unanswered: Vec::new(),
            inherited: BTreeSet::new(),
            asked: Vec::new(),
            facts: 0,
            listings: 0,
            reminded: false,
            jam: 0,
            down: 0,
            turn: Turn::default(),
            was_lost: false,
            unwritten: BTreeSet::new(),
            lingers: rng.percent(50),
            hold: 0,
            crash_at: None,
        };
        let untracked = UntrackedPolicy { containers_per_cycle: 2, minimum_age: Span::default() };
        world.state.policy.images.untracked = rng.percent(30).then_some(untracked);
        // Some stories begin with an agent of before the labels that name an owner; it is a newer one when it comes back.
        world.docker.owner = rng.percent(75).then(|| world.state.policy.owners.own.clone());
        world
    }

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if let Some(mut trace) = self.trace.take() {
            trace.push(format!("{:>9} {}", self.now.0.cast_signed() - BEGIN.0.cast_signed(), line(self)));
            self.trace = Some(trace);
        }
    }

    pub(crate) fn breaks(&mut self, law: &str, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let text = format!("{law}: {}", what());
            self.note(|_| format!("BROKEN {text}"));
            self.broken = Some(text);
        }
    }
}
