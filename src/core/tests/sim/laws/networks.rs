//! Attachments and networks: what is announced and seen is reported once; a network is set up before the containers that use it,
//! and torn down after them; no address and no device belongs to two tasks.

use super::effects::Broken;
use super::{Before, busy};
use crate::control::PAUSE;
use crate::network::{Namespace, Run};
use crate::world::World;
use ecs_core::model::attachment::{AttachmentChange, AttachmentKind, AttachmentStatus, Device};
use ecs_core::model::{
    Ack, ContainerNetwork, CreateRequest, FailureKind, NetworkRequest, OpId, ResourceRequest, RunState, Span, TaskArn,
    TaskStatus, Timestamp,
};
use ecs_core::state::{NetworkOperationKind, NetworkStatus, OperationOwner, TaskState};
use ecs_core::{Effect, Operation, Outcome};
use std::collections::BTreeSet;

/// How long the report of a device that was there in time is repeated after its attachment has expired.
const REPORT_AFTER_EXPIRY: Span = Span::secs(3600);

/// Judges a set-up.
pub(super) fn set_up(world: &mut World, op: &OpId, request: &NetworkRequest) -> Broken {
    world.reap_namespaces();
    let arn = &request.task;
    let what = || format!("{arn} {}", request.local_address);
    if let Some(broken) = operation(world, op, request) {
        return Some(broken);
    }
    if world.ecs.tasks.get(arn).is_some_and(|task| task.stop_arrived) {
        return Some(("nothing is started for a task that must stop", what()));
    }
    let run = (request.pause.clone(), request.pause_pid);
    if world.net.stored.contains(&run) {
        return Some(("a network that is set up is left alone", what()));
    }
    if world.disk.tasks.get(arn).is_none_or(|task| task.network.local_address != Some(request.local_address)) {
        return Some(("an address on the bridge is on disk before it is used", what()));
    }
    world.net.to_clean.insert(arn.clone());
    let is_other = |it: &Namespace| it.address == request.local_address && it.task != *arn;
    let (_, other) =
        world.net.namespaces.iter().find(|(run, namespace)| is_other(namespace) && !is_disowned(world, run))?;
    Some(("no two tasks have the same address on the bridge", format!("{} and {}", other.task, what())))
}

/// The agent may not know that the container is its own: somebody has renamed it, and the state was lost.
fn is_disowned(world: &World, run: &Run) -> bool {
    world.was_lost && world.docker.containers.iter().any(|it| it.id == run.0 && it.renamed)
}

/// Judges a tear-down.
pub(super) fn tear_down(world: &mut World, op: &OpId, request: &NetworkRequest) -> Broken {
    let broken = operation(world, op, request);
    if broken.is_some() {
        return broken;
    }
    let user = world.docker.containers.iter().find(|it| {
        let is_its = it.task == request.task && !it.foreign && !it.renamed && !it.unsolicited;
        is_its && it.state == RunState::Running && it.container.as_str() != PAUSE
    });
    if request.pause_pid == 0 {
        world.net.to_clean.remove(&request.task);
    }
    let is_seen = |it: &crate::docker::Container| {
        let task = &world.state.tasks.get(&it.task);
        let index = task.and_then(|task| task.index_of(&it.container));
        task.zip(index).is_some_and(|(task, index)| task.containers[index].state.runtime_id.as_ref() == Some(&it.id))
    };
    let user = user.filter(|it| is_seen(it))?;
    Some(("a network is torn down after the containers that use it", format!("{} {}", request.task, user.container)))
}

/// An operation on a network: for a known task, one at a time, and after a wait if it has just failed.
fn operation(world: &World, op: &OpId, request: &NetworkRequest) -> Broken {
    let arn = &request.task;
    if !world.disk.tasks.contains_key(arn) {
        return Some(("no effect for an unknown task", arn.to_string()));
    }
    let is_its = |effect: &Effect| match effect {
        Effect::Do(other, Operation::SetUpNetwork(request) | Operation::TearDownNetwork(request)) => {
            other != op && request.task == *arn
        }
        _ => false,
    };
    if world.pending.iter().any(|it| is_its(&it.effect)) {
        return Some(("one operation at a time on a network", arn.to_string()));
    }
    let kind = kind(world, arn)?;
    let failed = world.net.failed.iter().find(|it| it.0 == *arn && it.1 == kind)?;
    (world.now < failed.3 + Span::secs(1) && !world.burst)
        .then(|| ("there is a wait after a failure", format!("{arn} {kind:?}")))
}

fn kind(world: &World, arn: &TaskArn) -> Option<NetworkOperationKind> {
    Some(world.state.tasks.get(arn)?.live.network.operation.as_ref()?.kind)
}

/// Counts the failures of operations on networks.
pub(crate) fn network_answered(world: &mut World, arn: &TaskArn, outcome: &Outcome) {
    let Some(kind) = kind(world, arn) else { return };
    let earlier = world.net.failed.iter().position(|it| it.0 == *arn);
    let earlier = earlier.map(|at| world.net.failed.remove(at));
    let Err(error) = outcome else { return };
    let is_attempt = error.clone().into_failure().kind != FailureKind::Busy;
    let count = earlier.filter(|it| it.1 == kind).map_or(0, |it| it.2);
    world.net.failed.push((arn.clone(), kind, count + u32::from(is_attempt), world.now));
}

/// Judges the creation of a resource that is mounted in the network of its task.
pub(super) fn mounted(world: &World, request: &ResourceRequest) -> Broken {
    if !request.spec.kind.is_mounted_in_network() || world.burst {
        return None;
    }
    let run = world.net.was_set_up.get(&request.task);
    // The edge refuses a process that is not known.
    let is_its = run.is_some_and(|run| request.pause_pid == 0 || run.1 == request.pause_pid);
    (!is_its).then(|| ("a volume is mounted in the network of its task", format!("{} {run:?}", request.task)))
}

/// The task was refused an address, because another one has the only one.
pub(super) fn is_without_address(task: &TaskState) -> bool {
    task.reason.as_ref().is_some_and(|reason| reason.contains("has the only address"))
}

/// Judges the creation of a container: it joins the namespace of the pause container of its task.
pub(super) fn joined(world: &World, op: &OpId, request: &CreateRequest) -> Broken {
    let Some(OperationOwner::Container(arn, index)) = world.state.ops.get(op) else { return None };
    if world.state.tasks.get(arn)?.index_of(&PAUSE.into())? == *index {
        return None;
    }
    let is_right = match &request.network {
        ContainerNetwork::Joined(id) => match world.docker.find(id.as_str()) {
            Some(at) => {
                let container = &world.docker.containers[at];
                container.task == *arn && container.container.as_str() == PAUSE
            }
            // Somebody has removed it.
            None => !id.as_str().is_empty(),
        },
        _ => false,
    };
    (!is_right).then(|| ("a container joins its pause container", format!("{arn} {:?}", request.network)))
}

/// Judges the start of a container: the network of its task is set up in the run of the pause container that the agent knows.
pub(super) fn used(world: &World, op: &OpId) -> Broken {
    let Some(OperationOwner::Container(arn, index)) = world.state.ops.get(op) else { return None };
    let task = world.state.tasks.get(arn)?;
    let pause = task.index_of(&PAUSE.into())?;
    if pause == *index {
        return None;
    }
    // The agent takes over what runs. Before its state was lost, the network was set up.
    let was_set_up = world.net.was_set_up.get(arn);
    let known_run = task.containers[pause].state.live.process.as_ref().map(|process| process.pid);
    let is_known = was_set_up.is_some_and(|run| known_run.is_none_or(|pid| run.1 == pid));
    (!is_known && !world.burst)
        .then(|| ("a network is set up before the containers that use it", format!("{arn} {was_set_up:?}")))
}

/// Judges the stop of a container: a pause container goes after its network.
pub(super) fn stopped(world: &mut World, target: &str) -> Broken {
    world.reap_namespaces();
    let container = &world.docker.containers[world.docker.find(target)?];
    let run = (container.id.clone(), container.run as u32);
    let namespace = world.net.namespaces.get(&run)?;
    let is_given_up = busy::is_given_up(world, &namespace.task);
    // A set-up without an answer may have been carried out after the tear-down.
    let is_late = world.net.late.contains(&namespace.task);
    let is_its = container.container.as_str() == PAUSE && !container.unsolicited;
    (!is_given_up && !is_late && is_its && container.state == RunState::Running)
        .then(|| ("a pause container is stopped after its network is torn down", container.task.to_string()))
}

/// Judges the report of an attachment.
pub(super) fn reported(world: &World, op: &OpId, change: &AttachmentChange) -> Broken {
    let arn = &change.attachment;
    let is_its = |effect: &Effect| match effect {
        Effect::Do(other, Operation::ReportAttachment(change)) => other != op && change.attachment == *arn,
        _ => false,
    };
    if world.pending.iter().any(|it| !it.cancelled && is_its(&it.effect)) {
        return Some(("one report of an attachment at a time", arn.clone()));
    }
    if world.net.reported.contains(arn) {
        return Some(("nothing is reported twice", arn.clone()));
    }
    let Some(record) = world.disk.host.attachments.get(arn) else {
        return (!world.burst).then(|| ("what is reported is on disk", arn.clone()));
    };
    if record.kind.task() != change.task.as_ref() {
        return Some(("an attachment is reported for its task", format!("{change:?}")));
    }
    (!world.net.in_time.contains(arn) && !world.burst)
        .then(|| ("only a device that was there in time is reported", arn.clone()))
}

/// Judges an acknowledgement. A branch interface has no device, and so no record.
pub(super) fn acknowledged(world: &World, ack: &Ack) -> Broken {
    let (attachment, _) = world.net.messages.get(&ack.message_id)?;
    let is_branch = matches!(attachment.kind, AttachmentKind::BranchInterface(_));
    let is_stored = world.disk.host.attachments.contains_key(&attachment.arn);
    if is_branch && is_stored && !world.burst {
        return Some(("a branch interface has no record", attachment.arn.clone()));
    }
    // The task may be cleaned up in the same step.
    let is_over = |task: &TaskArn| world.ecs.tasks[task].accepted.status == TaskStatus::Stopped;
    let is_task_over = attachment.kind.task().is_some_and(is_over);
    let needs_none = is_branch || is_task_over || attachment.expires_at <= world.now || world.burst;
    (!needs_none && !is_stored).then(|| ("what is acknowledged is on disk", attachment.arn.clone()))
}

/// Judges the ledger and the addresses after a step.
pub(super) fn after_step(world: &mut World, before: &Before) {
    let state = &world.state;
    let mut broken = None;
    for (arn, (record, reported)) in &before.attachments {
        let is_kept = state.host.attachments.contains_key(arn);
        let is_task_gone = record.kind.task().is_some_and(|task| !state.tasks.contains_key(task));
        if !is_kept && record.expires_at > world.now && !is_task_gone {
            broken = Some(("an attachment is kept until it expires", arn.clone()));
        }
        let was_forgotten =
            record.kind.task().is_some_and(|task| before.knows(task) && !state.tasks.contains_key(task));
        // If the agent was killed, only what is on disk counts as seen.
        let was_seen = record.status == AttachmentStatus::Seen;
        let is_due = was_seen && world.net.in_time.contains(arn) && !world.net.accepted.contains(arn);
        if !is_kept && is_due && !was_forgotten && world.now < record.expires_at + REPORT_AFTER_EXPIRY {
            broken = Some(("a device that was there in time is reported", arn.clone()));
        }
        let is_task_known = record.kind.task().is_some_and(|task| state.tasks.contains_key(task));
        if !is_kept && *reported && is_task_known {
            broken = Some(("a reported attachment is kept until its task is cleaned up", arn.clone()));
        }
    }
    let is_over = |record: &&ecs_core::state::AttachmentRecord| {
        record.status == AttachmentStatus::Announced && record.expires_at <= world.now
    };
    if state.host.attachments.values().any(|it| is_over(&it)) {
        broken = Some(("an expired attachment is forgotten", String::new()));
    }
    let forgotten = |arn: &TaskArn| before.knows(arn) && !state.tasks.contains_key(arn);
    let record = state.host.attachments.values().find(|it| it.kind.task().is_some_and(forgotten));
    if let Some(record) = record {
        broken = Some(("attachments are forgotten with their task", format!("{record:?}")));
    }
    let went = world.net.to_clean.iter().find(|arn| forgotten(arn));
    if let Some(arn) = went {
        broken = Some(("a network is torn down once more after the end of its task", arn.to_string()));
    }
    if let Some((law, what)) = broken {
        world.breaks(law, || what);
    }
    let state = &world.state;
    let gone = before.tasks.keys().filter(|arn| !state.tasks.contains_key(*arn)).cloned().collect::<BTreeSet<_>>();
    let messages = world.net.messages.values().map(|(attachment, _)| attachment);
    let forgotten = messages.filter(|it| it.kind.task().is_some_and(|task| gone.contains(task)));
    for attachment in forgotten {
        world.net.acknowledged.remove(&attachment.arn);
    }
    world.net.to_clean.retain(|arn| state.tasks.contains_key(arn));
    world.net.late.retain(|arn| state.tasks.contains_key(arn));
    world.net.failed.retain(|it| state.tasks.contains_key(&it.0));
    world.net.asked.retain(|arn, _| state.tasks.contains_key(arn));
    // A record that is gone may be announced again, and another device may be in time.
    let records = &state.host.attachments;
    world.net.reported.retain(|arn| records.contains_key(arn));
    world.turn.attached.retain(|arn| records.contains_key(arn));
    // The failures of a report count as long as it is due.
    world.failed.retain(|(owner, ..)| match owner {
        OperationOwner::Attachment(arn) => state.attachment_reports.contains_key(arn),
        _ => true,
    });
    let stored = &world.disk.host.attachments;
    world.net.in_time.retain(|arn| records.contains_key(arn) || stored.contains_key(arn));
    world.net.arrived.retain(|arn, _| records.contains_key(arn) || stored.contains_key(arn));
}

/// Judges the disk after a commit.
pub(super) fn after_commit(world: &mut World) {
    let now = world.now;
    world.net.acknowledged.retain(|_, (_, expires_at)| *expires_at > now);
    let records = &world.disk.host.attachments;
    let is_missed = |it: &&ecs_core::state::AttachmentRecord| {
        let Device::Interface(mac) = it.device;
        it.status == AttachmentStatus::Announced && it.expires_at > world.now && world.net.shown.contains(&mac)
    };
    let missed = records.values().find(is_missed).map(|it| format!("{it:?}"));
    let is_lost = |(arn, (_, expires_at)): &(&String, &(Timestamp, Timestamp))| {
        *expires_at > world.now && !records.contains_key(*arn)
    };
    let lost = world.net.acknowledged.iter().find(is_lost).map(|(arn, _)| arn.clone());
    if let Some(what) = missed {
        world.breaks("an announced device that is there is noticed", || what);
    }
    if let Some(arn) = lost {
        world.breaks("what is acknowledged is on disk", || arn);
    }
}

/// Judges a world in which nothing is left to do.
pub(super) fn settled(world: &mut World) {
    if let Some(arn) = world.unreported_attachment() {
        world.breaks("a device that was there in time is reported", || arn);
    }
    let is_unknown = |(arn, it): &(&String, &ecs_core::state::AttachmentRecord)| {
        it.status == AttachmentStatus::Reported && !world.net.accepted.contains(*arn)
    };
    if let Some(arn) = world.state.host.attachments.iter().find(is_unknown).map(|(arn, _)| arn.clone()) {
        world.breaks("a device that was there in time is reported", || arn);
    }
    let holds = |task: &TaskState| {
        task.known == TaskStatus::Stopped
            && (task.network.local_address.is_some() || task.network.status == NetworkStatus::TornDown)
    };
    if let Some(arn) = world.state.tasks.values().find(|task| holds(task)).map(|task| task.spec.arn.to_string()) {
        world.breaks("a task that has ended has no address on the bridge", || arn);
    }
}

/// Judges the host when every task is forgotten.
pub(super) fn all_gone(world: &mut World) {
    world.reap_namespaces();
    if let Some((run, namespace)) = world.net.namespaces.iter().find(|(run, _)| !is_disowned(world, run)) {
        let what = format!("{run:?} {namespace:?}");
        world.breaks("in the end no network is left", || what);
    }
}
