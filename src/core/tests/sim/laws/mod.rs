//! The laws that must always hold (safety, checked inside every turn) and those that must hold in the end (liveness, after
//! healing).
//!
//! Where possible, a law judges by what is true in the world, not by what the agent knows. Each law has a name, which a failure
//! prints. `README.md` lists which law found which planted bug.

mod busy;
mod effects;
mod effort;
mod end;
mod ids;
mod images;
mod networks;
mod queue;
mod restart;
mod tickets;

pub(crate) use effects::{before_effect, credentials_are_acknowledged};
pub(crate) use end::{all_gone, everybody_had_a_share, settled};
pub(crate) use networks::network_answered;
pub(crate) use queue::waiting;

use crate::docker::{Container, OTHER_AGENT};
use crate::life::{reread, stored};
use crate::world::{Turn, World};
use ecs_core::model::attachment::AttachmentStatus;
use ecs_core::model::resource::Lifetime;
use ecs_core::model::view::View;
use ecs_core::model::waiting::{Blocker, Waiting};
use ecs_core::model::{ContainerStatus, ResourceStatus, RunState, TaskArn, TaskStatus, Timestamp};
use ecs_core::state::{AttachmentRecord, ContainerState, OperationKind, Resource, State, TaskState};
use ecs_core::{Event, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The facts before a step, to check afterwards that nothing goes back.
#[derive(Debug)]
pub(crate) struct Before {
    tasks: BTreeMap<TaskArn, Seen>,
    /// The number of the step that requested the pending inventory; `None` if there is none.
    asked_in_step: Option<u64>,
    /// The records of attachments, and whether each was reported.
    attachments: BTreeMap<String, (AttachmentRecord, bool)>,
}

#[derive(Debug)]
struct Seen {
    arrival: u64,
    known: TaskStatus,
    sent: TaskStatus,
    admitted: bool,
    /// The task's address on the bridge, and whether it was refused one.
    local_address: (Option<Ipv4Addr>, bool),
    containers: Vec<(ContainerStatus, ContainerStatus)>,
    /// For each container: the last observed state, whether it is unsettled, and the step in which it was last touched.
    facts: Vec<(Option<RunState>, bool, u64)>,
}

impl Before {
    pub(crate) fn from_state(state: &State) -> Self {
        let seen = |task: &TaskState| Seen {
            arrival: task.arrival,
            known: task.known,
            sent: task.sent,
            admitted: task.admitted,
            local_address: (task.network.local_address, networks::is_without_address(task)),
            containers: task.states().map(|it| (it.known, it.sent)).collect(),
            facts: task.states().map(|it| (it.observed, it.live.unsettled, it.live.touched)).collect(),
        };
        let asked_in_step = state.inventory.pending.map(|(_, step)| step);
        let attachment = |(arn, record): (&String, &AttachmentRecord)| {
            (arn.clone(), (record.clone(), record.status == AttachmentStatus::Reported))
        };
        Self {
            tasks: state.tasks.iter().map(|(arn, task)| (arn.clone(), seen(task))).collect(),
            asked_in_step,
            attachments: state.host.attachments.iter().map(attachment).collect(),
        }
    }

    fn knows(&self, arn: &TaskArn) -> bool {
        self.tasks.contains_key(arn)
    }
}

pub(crate) fn after_step(world: &mut World, before: &Before) {
    if let Err(what) = ecs_core::check(&world.state) {
        world.breaks("invariant", || what);
    }
    nothing_goes_back(world, before);
    old_lists_say_nothing(world, before);
    what_stops_does_not_run(world, before);
    queue::patient_tasks_are_not_overtaken(world, before);
    queue::tasks_that_fit_are_admitted(world);
    shares_fit(world);
    restart::due_restarts_are_decided(world, before);
    time_moves(world);
    effort::no_wait_is_too_long(world);
    planning_again_is_idle(world);
    what_is_forgotten_is_gone(world, before);
    another_agents_containers_are_not_believed(world);
    networks::after_step(world, before);
    busy::after_step(world, before);
    if !world.state.credentials.is_subset(&world.credentials) {
        world.breaks("credentials that are known are in memory", String::new);
    }
}

/// A view that is updated in parts is equal to a completely new view.
pub(crate) fn the_view_is_current(world: &mut World, changed: &BTreeSet<Key>) {
    if world.skips_laws {
        return;
    }
    let renewed = ecs_core::view_after(&world.view, &world.state, changed, world.now);
    let mut pairs = renewed.tasks.iter().zip(ecs_core::view(&world.state, world.now).tasks);
    if let Some((shown, current)) = pairs.find(|(shown, current)| *shown != current) {
        world.breaks("the view is current", || format!("{shown:?} instead of {current:?}"));
    }
    waiting_containers_show_what_for(world, &renewed);
    world.view = renewed;
    ids::ids_lead_to_their_tasks(world);
}

/// A container that has not reached its target and has no pending operation shows what it waits for: operators and scripts read
/// that.
fn waiting_containers_show_what_for(world: &mut World, view: &View) {
    let mut silent = None;
    for (task, shown) in world.state.tasks.values().zip(&view.tasks) {
        for (spec, container) in task.pairs().filter(|(_, container)| container.live.operation.is_none()) {
            let has_ended = container.known == ContainerStatus::Stopped;
            let is_to_end = task.desired == TaskStatus::Stopped || container.failure.is_some() || has_ended;
            let is_in_place = if is_to_end {
                has_ended && container.observed != Some(RunState::Running)
            } else {
                container.known == ContainerStatus::Running && !container.restarts.due
            };
            let says = |wait: &Waiting| {
                let says_nothing = matches!(&wait.blocker, Blocker::Containers(awaited, _) if awaited.is_empty());
                !says_nothing && wait.container.as_ref().is_none_or(|name| *name == spec.name)
            };
            if !is_in_place && !shown.waits.iter().any(says) {
                silent = Some(format!("{} of {}", spec.name, task.spec.arn));
            }
        }
    }
    if let Some(what) = silent {
        world.breaks("a container short of its target shows what it waits for", || what);
    }
}

/// Several agents may use one Docker, with similar labels on the containers of their tasks. Each ignores the containers of the
/// others.
fn another_agents_containers_are_not_believed(world: &mut World) {
    let others =
        world.docker.containers.iter().filter(|it| it.owner.as_ref().is_some_and(|id| id.as_str() == OTHER_AGENT));
    let is_its = |other: &&Container| {
        let is_known =
            world.state.tasks.values().flat_map(|it| it.states()).any(|it| it.runtime_id.as_ref() == Some(&other.id));
        is_known || other.task.0.ends_with(OTHER_AGENT) && world.state.tasks.contains_key(&other.task)
    };
    if let Some(other) = others.into_iter().find(is_its).map(|it| it.name.clone()) {
        world.breaks("containers of another agent are ignored", || other);
    }
}

fn nothing_goes_back(world: &mut World, before: &Before) {
    let mut broken = None;
    for (arn, task) in &world.state.tasks {
        let Some(old) = before.tasks.get(arn).filter(|old| old.arrival == task.arrival) else { continue };
        let containers = || task.states().zip(&old.containers);
        let is_lower = task.known < old.known
            || task.sent < old.sent
            || containers().any(|(new, old)| new.known < old.0 || new.sent < old.1);
        if is_lower {
            broken = Some(arn.clone());
        }
    }
    if let Some(arn) = broken {
        world.breaks("known and sent never go back", || arn.to_string());
    }
}

/// An inventory that was requested before a container was touched does not change the container.
fn old_lists_say_nothing(world: &mut World, before: &Before) {
    let Some(asked_in_step) = before.asked_in_step else { return };
    if world.state.inventory.pending.is_some_and(|(_, step)| step == asked_in_step) {
        return; // not answered by this step
    }
    let is_changed = |task: &TaskState| {
        let Some(old) = before.tasks.get(&task.spec.arn).filter(|old| old.arrival == task.arrival) else {
            return false;
        };
        task.states().zip(&old.facts).any(|(new, (observed, unsettled, touched))| {
            *touched > asked_in_step && (new.observed != *observed || new.live.unsettled != *unsettled)
        })
    };
    let broken = world.state.tasks.values().find(|it| is_changed(it)).map(|task| task.spec.arn.to_string());
    if let Some(arn) = broken {
        world.breaks("an old listing does not change what was touched since", || arn);
    }
}

/// A task becomes stopped only when no container of it runs, because its share of the host is free from then on.
fn what_stops_does_not_run(world: &mut World, before: &Before) {
    let stops = |task: &TaskState| {
        let is_new = before.tasks.get(&task.spec.arn).is_some_and(|old| old.known != TaskStatus::Stopped);
        is_new && task.known == TaskStatus::Stopped
    };
    let runs = |task: &TaskState| task.states().any(|it| it.observed == Some(RunState::Running));
    let broken =
        world.state.tasks.values().filter(|it| stops(it)).find(|it| runs(it)).map(|task| task.spec.arn.to_string());
    if let Some(arn) = broken {
        world.breaks("a task is not stopped while a container is seen to run", || arn);
    }
}

/// The tasks at work fit the host together. A task is at work if it has a pending operation, or a container that truly runs
/// because the agent started it.
fn shares_fit(world: &mut World) {
    let mut at_work: BTreeSet<&TaskArn> = BTreeSet::new();
    for (arn, task) in &world.state.tasks {
        // A container that was found may be inspected, whether or not its task is admitted.
        let is_work = |kind: OperationKind| kind != OperationKind::Inspect;
        let works = |it: &ContainerState| it.live.operation.is_some_and(|it| is_work(it.kind)) && !it.is_stopped();
        if task.known != TaskStatus::Stopped && task.states().any(works) {
            at_work.insert(arn);
        }
    }
    for container in &world.docker.containers {
        if container.state == RunState::Running && !container.unsolicited && !container.foreign {
            at_work.insert(&container.task);
        }
    }
    // Tasks that were admitted to a larger host go on, but no further task is admitted.
    let is_new = at_work.iter().any(|arn| !world.inherited.contains(*arn));
    let broken = (is_new && !queue::fits(world, &at_work)).then(|| format!("{at_work:?}"));
    if let Some(what) = broken {
        world.breaks("tasks at work fit the host", || what);
    }
}

fn time_moves(world: &mut World) {
    if let Some(at) = ecs_core::next_deadline(&world.state)
        && at <= world.now
    {
        let now = world.now;
        world.breaks("the next deadline is ahead", || format!("{at:?} at {now:?}"));
    }
    if ecs_core::next_deadline(&world.state).is_none() && world.state.inventory.pending.is_none() {
        world.breaks("the next deadline is ahead", || "nothing is ever due again".to_owned());
    }
}

/// Planning every task once more, at the same time and without a new fact, yields nothing.
fn planning_again_is_idle(world: &mut World) {
    let copy = world.thorough.then(|| world.state.clone());
    let wakes: Vec<Option<Timestamp>> = world.state.tasks.values().map(|task| task.live.wake).collect();
    for task in world.state.tasks.values_mut() {
        task.live.wake = Some(Timestamp::default());
    }
    world.state.wakes_from = Timestamp::default();
    let again = ecs_core::step(&mut world.state, world.now, Event::Tick);
    if again != ecs_core::Step::default() {
        world.breaks("planning again yields nothing", || format!("{again:?}"));
    }
    if !wakes.iter().eq(world.state.tasks.values().map(|task| &task.live.wake)) {
        world.breaks("planning again yields nothing", || "another time to wake up".to_owned());
    }
    if let Some(mut copy) = copy {
        (copy.steps, copy.wakes_from) = (world.state.steps, world.state.wakes_from);
        if copy != world.state {
            world.breaks("planning again yields nothing", || "the state differs".to_owned());
        }
    }
}

fn what_is_forgotten_is_gone(world: &mut World, before: &Before) {
    let forgotten = before.tasks.keys().filter(|arn| !world.state.tasks.contains_key(*arn));
    let arns: Vec<TaskArn> = forgotten.filter(|arn| !is_known_stopped(world, arn)).cloned().collect();
    if !arns.is_empty() {
        world.breaks("a task is forgotten only after ECS knows that it stopped", || format!("{arns:?}"));
    }
}

/// Judges a turn whose commit is deferred.
pub(crate) fn before_waiting(world: &mut World, turn: &Turn) {
    if !turn.effects.is_empty() || !turn.confirmed.is_empty() || !turn.stops.is_empty() {
        world.breaks("nothing is done or relied on before it is on disk", || format!("{turn:?}"));
    }
}

pub(crate) fn after_commit(world: &mut World) {
    restart::each_restart_was_counted(world);
    networks::after_commit(world);
    let is_stored = |task: &TaskState| {
        world
            .disk
            .tasks
            .get(&task.spec.arn)
            .is_some_and(|it| without_memory(it.clone()) == without_memory(stored(task)))
    };
    let differing = world.state.tasks.values().find(|task| !is_stored(task)).map(|task| task.spec.arn.clone());
    if let Some(arn) = differing {
        world.breaks("the disk holds what the state says", || format!("{arn} differs"));
    } else if world.disk.tasks.len() != world.state.tasks.len() {
        world.breaks("the disk holds what the state says", || "a forgotten task is still there".to_owned());
    } else if world.disk.host != world.state.host {
        world.breaks("the disk holds what the state says", || "the host's document differs".to_owned());
    }
}

/// The task without resources that a restart forgets before anything is written.
fn without_memory(mut task: TaskState) -> TaskState {
    for Resource { spec, state: resource } in &mut task.resources {
        match spec.kind.lifetime() {
            Lifetime::Process => *resource = Default::default(),
            Lifetime::Boot if resource.known == ResourceStatus::Created => resource.known = ResourceStatus::None,
            Lifetime::Boot | Lifetime::Task => {}
        }
    }
    task
}

/// The documents that a restart reads are those that were written.
pub(crate) fn before_restart(world: &mut World) {
    let is_same =
        world.disk.tasks.values().all(|task| reread(task) == *task) && reread(&world.disk.host) == world.disk.host;
    if !is_same {
        world.breaks("what is read from the disk is what was written", String::new);
    }
}

fn is_known_stopped(world: &World, arn: &TaskArn) -> bool {
    world.ecs.tasks.get(arn).is_some_and(|task| task.accepted.status == TaskStatus::Stopped)
}
