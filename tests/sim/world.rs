//! The world around one agent: its disk, Docker, ECS, pending effects and the time.
//!
//! `moves`, `turn`, `outcome`, `life` and `heal` change it. The world judges nothing; `laws` does, from inside the turn.

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

/// An effect that was handed out and has not been answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) op: OpId,
    pub(crate) effect: Effect,
    pub(crate) owner: Option<Owner>,
    /// The outcome, if the effect is done and its answer is on the way.
    pub(crate) answer: Option<Outcome>,
    pub(crate) cancelled: bool,
}

/// The stored documents, which survive the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) host: HostState,
    pub(crate) tasks: BTreeMap<TaskArn, TaskState>,
}

/// The effects and changes of the steps since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) steps: u32,
    pub(crate) effects: Vec<Effect>,
    pub(crate) changed: BTreeSet<Key>,
    /// A step of this turn must be committed at once.
    pub(crate) is_urgent: bool,
    /// Reports whose answers the agent has got.
    pub(crate) confirmed: Vec<StateChange>,
    /// Tasks that ECS asked to stop.
    pub(crate) stops: Vec<TaskArn>,
}

/// The time at the beginning of every schedule, far from zero because the clock may be set back.
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
    /// Effects that timed out and that Docker will still do.
    pub(crate) late: Vec<Effect>,
    /// Credentials in the agent's memory.
    pub(crate) credentials: BTreeSet<CredentialsId>,
    /// Resources in the agent's memory.
    pub(crate) memory: BTreeSet<(TaskArn, String)>,
    /// The number of consecutive failed removals of each resource.
    pub(crate) unremoved: BTreeMap<(TaskArn, String), u32>,
    /// No laws are checked.
    pub(crate) lawless: bool,
    /// The first law that was broken.
    pub(crate) broken: Option<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) steps: u64,
    /// Planning again compares the whole states, not only the results.
    pub(crate) thorough: bool,
    /// The effects being handed out come from several steps, so the state has changed since some were decided.
    pub(crate) burst: bool,
    /// The failed operations of each owner since its last success: the time of the failure, and whether the owner had to stop
    /// then.
    pub(crate) failed: Vec<(Owner, Timestamp, bool)>,
    /// The number of consecutive creates, or starts (`true`), that timed out and were not done.
    pub(crate) unanswered: Vec<(Owner, bool, u32)>,
    /// Tasks that had a share of the host when the agent restarted on a smaller one.
    pub(crate) inherited: BTreeSet<TaskArn>,
    /// The last operation of each owner, its time, and the number of facts until then.
    pub(crate) asked: Vec<(Owner, std::mem::Discriminant<Operation>, Timestamp, u64)>,
    /// The number of events that were neither outcomes nor ticks.
    pub(crate) facts: u64,
    /// The number of inventories that have arrived.
    pub(crate) listings: u64,
    /// ECS has sent a manifest since the faults ended.
    pub(crate) reminded: bool,
    pub(crate) jam: u8,
    pub(crate) down: u8,
    pub(crate) turn: Turn,
    /// The state of the agent was lost at least once.
    pub(crate) was_lost: bool,
    /// Keys of documents that changed and are not committed yet.
    pub(crate) unwritten: BTreeSet<Key>,
    /// Commits are deferred as long as they may be.
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
        // Some schedules begin with an older agent, which writes no owner label; after a restart it is a new one.
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
