//! What must always hold (safety, checked inside every turn) and what must hold in the end (liveness, after healing).
//!
//! The laws judge by the world's truth where they can, not by what the agent believes. Each has a name; a failure prints it, and
//! `README.md` says which planted bug was found by which.

use crate::control::Told;
use crate::docker::Container;
use crate::world::{World, reread, stored};
use ecs_agent::engine::state::{Owner, State, TaskState};
use ecs_agent::engine::{self, Effect, Event};
use ecs_agent::model::{
    Ack, ContainerName, ContainerStatus, Protocol, RunState, Span, StateChange, TaskArn, TaskStatus, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};

/// Creates and starts of one container in a row that may get no answer.
const MOST_UNANSWERED: u32 = 3;

/// What was known before a step, to see that nothing goes back.
#[derive(Debug)]
pub(crate) struct Before {
    tasks: BTreeMap<TaskArn, Seen>,
}

#[derive(Debug)]
struct Seen {
    arrival: u64,
    known: TaskStatus,
    sent: TaskStatus,
    admitted: bool,
    containers: Vec<(ContainerStatus, ContainerStatus)>,
}

impl Before {
    pub(crate) fn of(state: &State) -> Self {
        let seen = |task: &TaskState| Seen {
            arrival: task.arrival,
            known: task.known,
            sent: task.sent,
            admitted: task.admitted,
            containers: task.containers.iter().map(|it| (it.known, it.sent)).collect(),
        };
        Self { tasks: state.tasks.iter().map(|(arn, task)| (arn.clone(), seen(task))).collect() }
    }
}

pub(crate) fn after_step(world: &mut World, before: &Before) {
    if let Err(what) = engine::check(&world.state) {
        world.breaks("invariant", || what);
    }
    nothing_goes_back(world, before);
    what_stops_does_not_run(world, before);
    first_come_first_served(world, before);
    the_first_is_admitted_when_it_fits(world);
    shares_fit(world);
    time_moves(world);
    planning_again_is_idle(world);
    what_is_forgotten_is_gone(world, before);
    if !world.state.credentials.is_subset(&world.credentials) {
        world.breaks("credentials are believed in only while they are there", String::new);
    }
}

fn nothing_goes_back(world: &mut World, before: &Before) {
    let mut broken = None;
    for (arn, task) in &world.state.tasks {
        let Some(old) = before.tasks.get(arn).filter(|old| old.arrival == task.arrival) else { continue };
        let containers = task.containers.iter().zip(&old.containers);
        let is_lower = task.known < old.known
            || task.sent < old.sent
            || containers.clone().any(|(new, old)| new.known < old.0 || new.sent < old.1);
        if is_lower {
            broken = Some(arn.clone());
        }
    }
    if let Some(arn) = broken {
        world.breaks("known and sent never go back", || arn.to_string());
    }
}

/// Its share of the host is free from then on.
fn what_stops_does_not_run(world: &mut World, before: &Before) {
    let stops = |task: &&TaskState| {
        let is_new = before.tasks.get(&task.spec.arn).is_some_and(|old| old.known != TaskStatus::Stopped);
        is_new && task.known == TaskStatus::Stopped
    };
    let runs = |task: &&TaskState| task.containers.iter().any(|it| it.observed == Some(RunState::Running));
    let broken = world.state.tasks.values().filter(stops).find(runs).map(|task| task.spec.arn.to_string());
    if let Some(arn) = broken {
        world.breaks("a task is not stopped while a container is seen to run", || arn);
    }
}

fn first_come_first_served(world: &mut World, before: &Before) {
    let was_admitted = |arn: &TaskArn| before.tasks.get(arn).is_some_and(|old| old.admitted);
    let tasks = &world.state.tasks;
    let overtaken = tasks.values().filter(|task| task.admitted && !was_admitted(&task.spec.arn)).find_map(|new| {
        let waits = |it: &&TaskState| {
            !it.admitted
                && it.known != TaskStatus::Stopped
                && it.desired == TaskStatus::Running
                && it.arrival < new.arrival
        };
        tasks.values().find(waits).map(|old| format!("{} overtook {}", new.spec.arn, old.spec.arn))
    });
    if let Some(what) = overtaken {
        world.breaks("first come, first served", || what);
    }
}

fn the_first_is_admitted_when_it_fits(world: &mut World) {
    let waits = |it: &&TaskState| !it.admitted && it.known != TaskStatus::Stopped && it.desired == TaskStatus::Running;
    let Some(first) = world.state.tasks.values().filter(waits).min_by_key(|it| it.arrival) else { return };
    let holds = |it: &&TaskState| it.admitted && it.known != TaskStatus::Stopped;
    let mut arns: BTreeSet<&TaskArn> = world.state.tasks.values().filter(holds).map(|it| &it.spec.arn).collect();
    arns.insert(&first.spec.arn);
    let broken = fits(world, &arns).then(|| first.spec.arn.to_string());
    if let Some(arn) = broken {
        world.breaks("who is first and fits is admitted at once", || arn);
    }
}

/// What a task asks of the host: CPU, memory, ports.
fn share(task: &TaskState) -> (u64, u64, Vec<(Protocol, u16)>) {
    let containers = &task.spec.containers;
    let memory = |reserved: u32, hard: u32| if reserved > 0 { reserved } else { hard };
    let ports: BTreeSet<_> = containers
        .iter()
        .flat_map(|it| &it.ports)
        .map(|port| (port.protocol, port.host_port))
        .filter(|it| it.1 > 0)
        .collect();
    (
        containers.iter().map(|it| u64::from(it.cpu)).sum(),
        containers.iter().map(|it| u64::from(memory(it.memory_reservation, it.memory))).sum(),
        ports.into_iter().collect(),
    )
}

fn fits(world: &World, arns: &BTreeSet<&TaskArn>) -> bool {
    let (mut cpu, mut memory, mut ports) = (0, 0, BTreeSet::new());
    let mut disjoint = true;
    for task in arns.iter().filter_map(|arn| world.state.tasks.get(*arn)) {
        let share = share(task);
        cpu += share.0;
        memory += share.1;
        for port in share.2 {
            disjoint &= ports.insert(port);
        }
    }
    let capacity = &world.state.policy.capacity;
    disjoint && cpu <= capacity.cpu && memory <= capacity.memory
}

/// Tasks at work, told by the operations in flight and by what truly runs because the agent asked, fit the host.
fn shares_fit(world: &mut World) {
    let mut at_work: BTreeSet<&TaskArn> = BTreeSet::new();
    for (arn, task) in &world.state.tasks {
        let is_image_work = |it: &engine::state::ContainerState| it.operation.is_some() && !it.over();
        if task.known != TaskStatus::Stopped && task.containers.iter().any(is_image_work) {
            at_work.insert(arn);
        }
    }
    for container in &world.docker.containers {
        if container.state == RunState::Running && !container.unsolicited && !container.foreign {
            at_work.insert(&container.task);
        }
    }
    let broken = (!fits(world, &at_work)).then(|| format!("{at_work:?}"));
    if let Some(what) = broken {
        world.breaks("what works fits the host", || what);
    }
}

fn time_moves(world: &mut World) {
    if let Some(at) = engine::next_deadline(&world.state)
        && at <= world.now
    {
        let now = world.now;
        world.breaks("the next deadline is ahead", || format!("{at:?} at {now:?}"));
    }
    if engine::next_deadline(&world.state).is_none() && world.state.inventory.in_flight.is_none() {
        world.breaks("the next deadline is ahead", || "nothing is ever due again".to_owned());
    }
}

/// Every task is planned once more at the same time, with no new fact.
fn planning_again_is_idle(world: &mut World) {
    let copy = world.thorough.then(|| world.state.clone());
    let wakes: Vec<Option<Timestamp>> = world.state.tasks.values().map(|task| task.wake).collect();
    for task in world.state.tasks.values_mut() {
        task.wake = Some(Timestamp::default());
    }
    let again = engine::step(&mut world.state, world.now, Event::Tick);
    if again != engine::Step::default() {
        world.breaks("planning again yields nothing", || format!("{again:?}"));
    }
    if !wakes.iter().eq(world.state.tasks.values().map(|task| &task.wake)) {
        world.breaks("planning again yields nothing", || "another time to wake up".to_owned());
    }
    if let Some(mut copy) = copy {
        copy.steps = world.state.steps;
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

pub(crate) fn after_commit(world: &mut World) {
    let is_stored = |task: &TaskState| world.disk.tasks.get(&task.spec.arn).is_some_and(|it| *it == stored(task));
    let differing = world.state.tasks.values().find(|task| !is_stored(task)).map(|task| task.spec.arn.clone());
    if let Some(arn) = differing {
        world.breaks("the disk holds what the state says", || format!("{arn} differs"));
    } else if world.disk.tasks.len() != world.state.tasks.len() {
        world.breaks("the disk holds what the state says", || "a forgotten task is still there".to_owned());
    } else if world.disk.host != world.state.host {
        world.breaks("the disk holds what the state says", || "the host's document differs".to_owned());
    }
}

/// What was written is what is read.
pub(crate) fn before_restart(world: &mut World) {
    let is_same =
        world.disk.tasks.values().all(|task| reread(task) == *task) && reread(&world.disk.host) == world.disk.host;
    if !is_same {
        world.breaks("what is read from the disk is what was written", String::new);
    }
}

/// Judges an effect at the moment it is handed out.
pub(crate) fn before_effect(world: &mut World, effect: &Effect) {
    let broken = match effect {
        Effect::ResolveDigest { op, .. } => operation(world, op, None, None),
        Effect::Pull { op, .. } => operation(world, op, None, (!world.state.policy.pull_upfront).then_some("pull")),
        Effect::Create { op, request } => operation(world, op, Some(&request.runtime_name), Some("create")),
        Effect::Start { op, target } => operation(world, op, Some(target), Some("start")),
        Effect::Stop { op, target, .. } => operation(world, op, Some(target), None).or_else(|| stop(world, target)),
        Effect::Inspect { op, target } => operation(world, op, Some(target), None),
        Effect::Remove { op, target } => remove(world, op, target),
        Effect::Inventory { .. } => {
            let twice = world.pending.iter().any(|it| matches!(it.effect, Effect::Inventory { .. }));
            twice.then(|| ("one inventory at a time", String::new()))
        }
        Effect::Report { change, .. } => report(world, change),
        Effect::Ack(ack) => acknowledged(world, ack),
        Effect::AskToStop { tasks, .. } => {
            let is_odd = |arn: &&TaskArn| world.disk.tasks.get(*arn).is_none_or(|it| it.known == TaskStatus::Stopped);
            let odd = tasks.iter().find(|arn| !world.burst && is_odd(arn));
            odd.map(|arn| ("only tasks that do not stop anyway are asked about", arn.to_string()))
        }
        Effect::ForgetCredentials { id } => {
            let user =
                world.state.tasks.values().find(|it| !world.burst && it.execution_credentials.as_ref() == Some(id));
            user.map(|task| ("credentials in use are kept", task.spec.arn.to_string()))
        }
        Effect::Cancel { op } => {
            let is_there = world.pending.iter().any(|it| it.op == *op);
            (!is_there && !world.burst).then(|| ("only what is in flight is cancelled", op.to_string()))
        }
    };
    if let Some((law, what)) = broken.or_else(|| too_soon(world, effect)) {
        world.breaks(law, || what);
    }
}

/// After a failure there is a wait, and after some attempts without an answer there is an end.
fn too_soon(world: &World, effect: &Effect) -> Broken {
    let op = match effect {
        Effect::Create { op, .. }
        | Effect::Start { op, .. }
        | Effect::Stop { op, .. }
        | Effect::Inspect { op, .. }
        | Effect::Remove { op, .. }
        | Effect::Inventory { op }
        | Effect::Report { op, .. } => op,
        Effect::ResolveDigest { .. }
        | Effect::Pull { .. }
        | Effect::Cancel { .. }
        | Effect::Ack(_)
        | Effect::AskToStop { .. }
        | Effect::ForgetCredentials { .. } => return None,
    };
    let owner = world.state.ops.get(op)?;
    let is_begun = matches!(effect, Effect::Create { .. } | Effect::Start { .. });
    if is_begun && world.unanswered.iter().any(|it| it.0 == *owner && it.1 >= MOST_UNANSWERED) {
        return Some(("an engine that never answers is given up", format!("{owner:?}")));
    }
    let failed = world.failed.iter().filter(|it| it.0 == *owner).map(|it| it.1).max()?;
    (world.now < failed + Span::secs(1) && !world.burst)
        .then(|| ("there is a wait after a failure", format!("{owner:?}")))
}

type Broken = Option<(&'static str, String)>;

/// An operation on one container: `after` names a step that must wait for the containers it depends on.
fn operation(world: &World, op: &ecs_agent::model::OpId, target: Option<&String>, after: Option<&str>) -> Broken {
    let Some(Owner::Container(arn, index)) = world.state.ops.get(op) else {
        // Handed out and cancelled in the same burst.
        return None;
    };
    let unknown = || Some(("no effect for an unknown task", arn.to_string()));
    let Some(task) = world.state.tasks.get(arn) else { return unknown() };
    if !world.disk.tasks.contains_key(arn) {
        return unknown();
    }
    let spec = &task.spec.containers[*index];
    if let Some(target) = target {
        let is_name = *target == task.spec.runtime_name(&spec.name);
        let is_id = task.containers[*index].runtime_id.as_ref().is_some_and(|id| id.0 == *target);
        let is_its = world.docker.find(target).is_none_or(|at| world.docker.containers[at].task == *arn);
        if !(is_name || is_id || world.burst) || !is_its {
            return Some(("an operation hits its own container", format!("{target} for {arn} {}", spec.name)));
        }
    }
    let busy = world.pending.iter().any(|it| {
        !it.cancelled && matches!(&it.owner, Some(Owner::Container(other, at)) if other == arn && at == index)
    });
    if busy {
        return Some(("one operation at a time on a container", format!("{arn} {}", spec.name)));
    }
    let step = after?;
    let was_stopped = world.ecs.tasks.get(arn).is_some_and(|task| task.stop_arrived);
    if was_stopped {
        return Some(("nothing is begun for a task that shall stop", format!("{step} {arn} {}", spec.name)));
    }
    if task.containers[*index].over() && !world.burst {
        return Some(("nothing is begun for a container that is over", format!("{step} {arn} {}", spec.name)));
    }
    if step == "start" && task.containers[*index].ran && !world.burst {
        return Some(("a container is started once", format!("{arn} {}", spec.name)));
    }
    let missing = spec.depends_on.iter().find(|it| !world.docker.fulfils(arn, &it.container, it.condition))?;
    Some(("dependencies hold before a container goes on", format!("{step} {arn} {} needs {missing:?}", spec.name)))
}

/// Only tasks that shall stop are stopped, and a container after those that depend on it.
fn stop(world: &World, target: &str) -> Broken {
    let container = &world.docker.containers[world.docker.find(target)?];
    let task = world.state.tasks.get(&container.task)?;
    let index = task.index_of(&container.container)?;
    if !task.wants_stop(index) {
        return Some(("only what shall stop is stopped", format!("{} {}", container.task, container.container)));
    }
    // A container that was over and runs again is stopped at once.
    if task.containers[index].over() {
        return None;
    }
    let dependent = task.spec.containers.iter().find(|it| {
        let depends = it.depends_on.iter().any(|on| on.container == container.container);
        let runs = |it: &Container| it.state == RunState::Running && !it.unsolicited;
        depends && world.docker.of(&container.task, &it.name).is_some_and(runs)
    })?;
    Some(("containers stop in the reverse order", format!("{} before {}", container.container, dependent.name)))
}

fn remove(world: &World, op: &ecs_agent::model::OpId, target: &String) -> Broken {
    if let Some(Owner::Container(arn, _)) = world.state.ops.get(op) {
        let broken = operation(world, op, Some(target), None);
        if broken.is_some() {
            return broken;
        }
        let task = &world.state.tasks[arn];
        let is_told = world.ecs.tasks.get(arn).is_none_or(|it| it.told.status == TaskStatus::Stopped);
        if !is_told || task.known != TaskStatus::Stopped {
            return Some(("a task is removed only after ECS knows that it stopped", arn.to_string()));
        }
        let is_kept = world.now < task.known_at + world.state.policy.cleanup_wait;
        return is_kept.then(|| ("a stopped task is kept for people to look at", arn.to_string()));
    }
    let container = &world.docker.containers[world.docker.find(target)?];
    let is_orphan = !container.foreign && !world.state.tasks.contains_key(&container.task);
    (!is_orphan || container.started).then(|| ("only our own orphans are removed", container.name.clone()))
}

fn acknowledged(world: &World, ack: &Ack) -> Broken {
    let law = "what is acknowledged is on disk";
    if let Some(timeline) = world.ecs.manifests.get(&ack.message_id) {
        return (world.disk.host.seq < *timeline).then(|| (law, ack.message_id.clone()));
    }
    let message = world.ecs.messages.iter().find(|it| it.ack.message_id == ack.message_id)?;
    let is_safe = |task: &engine::PayloadTask| match task {
        engine::PayloadTask::Run(spec) => {
            world.disk.tasks.contains_key(&spec.arn) || is_known_stopped(world, &spec.arn)
        }
        engine::PayloadTask::Refused { arn, .. } => world.disk.tasks.contains_key(arn) || is_known_stopped(world, arn),
        engine::PayloadTask::Stop(arn) => {
            world.disk.tasks.get(arn).map_or(is_known_stopped(world, arn), |it| it.desired == TaskStatus::Stopped)
        }
    };
    let is_safe = message.tasks.iter().all(is_safe) && world.disk.host.seq >= message.seq;
    (!is_safe).then(|| (law, ack.message_id.clone()))
}

fn is_known_stopped(world: &World, arn: &TaskArn) -> bool {
    world.ecs.tasks.get(arn).is_some_and(|task| task.heard.status == TaskStatus::Stopped)
}

fn report(world: &World, change: &StateChange) -> Broken {
    let arn = &change.task;
    let Some(task) = world.state.tasks.get(arn).filter(|_| world.disk.tasks.contains_key(arn)) else {
        return Some(("no effect for an unknown task", arn.to_string()));
    };
    let busy =
        world.pending.iter().any(|it| matches!(&it.effect, Effect::Report { change, .. } if change.task == *arn));
    if busy {
        return Some(("one report of a task at a time", arn.to_string()));
    }
    let told = world.ecs.tasks.get(arn).map(|task| task.told.clone()).unwrap_or_default();
    in_order(world, task, &told, change).or_else(|| contents(world, task, change))
}

fn in_order(world: &World, task: &TaskState, told: &Told, change: &StateChange) -> Broken {
    let arn = &change.task;
    let is_old = |name: &ContainerName, status| told.containers.get(name).is_some_and(|it| *it >= status);
    if change.status < told.status {
        return Some(("reports come in order", format!("{} after {} of {arn}", change.status, told.status)));
    }
    if change.containers.iter().any(|said| is_old(&said.container, said.status))
        || (change.status == told.status && change.containers.is_empty())
    {
        return Some(("nothing is reported twice", format!("{change:?}")));
    }
    let stopped = change.status == TaskStatus::Stopped;
    // A start that came late, after the container was over, does not make the task run.
    let only_one_ran = || {
        let spec = &task.spec.containers[0];
        task.containers[0].ran && world.docker.of(arn, &spec.name).is_some_and(|it| !it.unsolicited)
    };
    let has_run = task.ran || (task.containers.len() == 1 && only_one_ran());
    if stopped && has_run && told.status < TaskStatus::Running {
        return Some(("a task that ran is said to run", arn.to_string()));
    }
    if change.status == TaskStatus::Running && !task.ran {
        return Some(("only a task that ran is said to run", arn.to_string()));
    }
    let is_said = |name: &ContainerName| {
        let now = change.containers.iter().any(|it| it.container == *name && it.status == ContainerStatus::Stopped);
        now || is_old(name, ContainerStatus::Stopped)
    };
    let unsaid = task.spec.containers.iter().find(|it| stopped && !is_said(&it.name))?;
    Some(("a stopped task has only stopped containers", format!("{arn} {}", unsaid.name)))
}

fn contents(world: &World, task: &TaskState, change: &StateChange) -> Broken {
    let arn = &change.task;
    for said in &change.containers {
        let truth = world.docker.truth_of(arn, &said.container);
        let index = task.index_of(&said.container)?;
        let container = &task.containers[index];
        let is_true = match said.exit_code {
            Some(143) if container.failure.is_some() => true,
            Some(code) => said.status == ContainerStatus::Stopped && truth.exits.contains(&code),
            // Nobody saw how it ended: it was removed, or never ran as far as the agent could know.
            None => said.status != ContainerStatus::Stopped || !container.ran || container.failure.is_some(),
        };
        if !is_true {
            return Some(("exit codes are true", format!("{said:?}, truly {:?}", truth.exits)));
        }
        if said.status == ContainerStatus::Running && !truth.started {
            return Some(("only a container that ran is said to run", format!("{said:?}")));
        }
    }
    if change.status != TaskStatus::Stopped {
        return None;
    }
    let runs = |it: &&Container| it.task == *arn && it.state == RunState::Running && !it.unsolicited;
    if let Some(container) = world.docker.containers.iter().find(runs) {
        return Some(("nothing runs of a task that is said to be stopped", format!("{arn} {}", container.container)));
    }
    let running = task.pairs().find(|(_, it)| it.observed == Some(RunState::Running) && !world.burst)?;
    Some(("nothing is seen to run of a task that is said to be stopped", format!("{arn} {}", running.0.name)))
}

/// Nothing is left to do: is every task where it should be?
pub(crate) fn settled(world: &mut World) {
    let broken = world.state.tasks.values().find_map(|task| settled_task(world, task)).or_else(|| settled_ecs(world));
    if let Some(what) = broken {
        world.breaks("every task gets where it should be", || what);
    }
    let busy = !world.state.ops.is_empty() || !world.state.orphans.is_empty() || !world.pending.is_empty();
    if busy {
        let what = format!("{:?} {:?} {:?}", world.state.ops, world.state.orphans, world.pending);
        world.breaks("in the end nothing is in flight", || what);
    }
}

fn settled_task(world: &World, task: &TaskState) -> Option<String> {
    let arn = &task.spec.arn;
    let stuck = |what: &str| Some(format!("{arn} {what}: {task:?}"));
    for (spec, container) in task.pairs() {
        let truth = world.docker.of(arn, &spec.name);
        if truth.map(|it| it.state) != container.observed {
            return stuck("is not as it is seen");
        }
        if container.unsettled {
            return stuck("is in doubt");
        }
        if container.over() && container.observed == Some(RunState::Running) {
            return stuck("runs although it is over");
        }
    }
    let shall_stop = world.ecs.tasks.get(arn).is_some_and(|it| it.stop_arrived);
    if task.known == TaskStatus::Stopped {
        return if task.sent == TaskStatus::Stopped { None } else { stuck("is stopped and ECS was not told") };
    }
    if task.desired == TaskStatus::Stopped || shall_stop {
        return stuck("does not stop");
    }
    if !task.admitted {
        let holders = |it: &&TaskState| it.admitted && it.known != TaskStatus::Stopped;
        let mut holders: BTreeSet<&TaskArn> =
            world.state.tasks.values().filter(holders).map(|it| &it.spec.arn).collect();
        holders.insert(arn);
        let waits = |it: &TaskState| !it.admitted && it.known != TaskStatus::Stopped && it.arrival < task.arrival;
        let is_first = !world.state.tasks.values().any(waits);
        return if is_first && fits(world, &holders) { stuck("is not admitted although it fits") } else { None };
    }
    let goes = |it: &engine::state::ContainerState| it.over() || it.observed == Some(RunState::Running);
    if !task.containers.iter().all(goes) || task.known != TaskStatus::Running {
        return stuck("does not get to run");
    }
    if task.sent != TaskStatus::Running || task.containers.iter().any(|it| it.sent != it.known) {
        return stuck("runs and ECS was not told");
    }
    None
}

/// What ECS believes is what the agent says.
fn settled_ecs(world: &World) -> Option<String> {
    world.ecs.tasks.iter().find_map(|(arn, task)| match world.state.tasks.get(arn) {
        Some(state) => (state.sent > TaskStatus::None && task.heard.status < state.sent)
            .then(|| format!("ECS believes {} of {arn}, which is {}", task.heard.status, state.sent)),
        None => (task.heard.status != TaskStatus::Stopped).then(|| format!("{arn} was lost: {task:?}")),
    })
}

/// Every task was stopped and every wait is over: nothing is left.
pub(crate) fn all_gone(world: &mut World) {
    if let Some(arn) = world.state.tasks.keys().next().cloned() {
        world.breaks("in the end everything is forgotten", || arn.to_string());
    }
    if let Some(left) = world.docker.containers.iter().find(|it| !it.foreign).cloned() {
        world.breaks("in the end nothing is left in the engine", || format!("{left:?}"));
    }
    if world.docker.containers.len() != 2 {
        let what = format!("{:?}", world.docker.containers);
        world.breaks("the containers of others are left alone", || what);
    }
    if !world.state.credentials.is_empty() {
        let what = format!("{:?}", world.state.credentials);
        world.breaks("in the end no credentials are left", || what);
    }
}
