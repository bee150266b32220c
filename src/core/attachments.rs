//! The ledger of attachments: devices that ECS has announced, from the announcement to the report (spec `networking.md` §3).
//!
//! Owns the records ([`HostState::attachments`](super::state::HostState)), the hardware addresses that are on the host, and the
//! reports of attachments. An attachment is identified by its ARN, and each has a moment of its own at which it expires. A device
//! that is there when it is announced is reported at once. (The Go agent finds it after up to 30 s.) A branch interface has no
//! device of its own, so it has no record: its message is only acknowledged.
//!
//! Differences from the Go agent: its records are identified by the hardware address, so an attachment with the address of an
//! earlier one, whose task has not been cleaned up, is acknowledged and never reported. Here it is reported. If a report of a device
//! that was seen in time is not accepted before the attachment expires, the Go agent drops it. Here it is repeated for
//! [`REPORT_AFTER_EXPIRY`], and ECS decides whether it comes too late.

use super::backoff;
use super::effect::{Effect, Message, Operation};
use super::event::Outcome;
use super::state::{AttachmentRecord, Key, OperationOwner, State, TaskState};
use super::step::Step;
use crate::model::attachment::{Attachment, AttachmentChange, AttachmentKind, AttachmentStatus, Device};
use crate::model::{Ack, FailureKind, MacAddress, OpError, Span, TaskArn, TaskStatus, Timestamp};
use std::collections::BTreeSet;

/// How long the report of a device that was seen in time is repeated after the attachment has expired.
const REPORT_AFTER_EXPIRY: Span = Span::secs(3600);
/// How long the record of a reported attachment is kept after it has expired, if its task is not known here. ECS may repeat its
/// message meanwhile, and nothing is reported twice.
const KEPT_WITHOUT_TASK: Span = Span::secs(24 * 3600);
/// Limit of the number of records. Above it, records of reported attachments go first: an instance that runs short tasks has many of
/// them. If there is none, a message is not acknowledged; no instance has so many interfaces on their way.
const MAX_RECORDS: usize = 1000;

/// Writes the attachments that ECS has announced, and returns the tasks to plan again.
pub(super) fn announced(
    state: &mut State,
    now: Timestamp,
    attachments: Vec<Attachment>,
    ack: Ack,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    clear_future_moments(state, now, out);
    let mut touched = BTreeSet::new();
    let mut is_complete = true;
    for attachment in attachments {
        let is_branch = matches!(attachment.kind, AttachmentKind::BranchInterface(_));
        if is_branch || attachment.expires_at <= now {
            continue;
        }
        if let Some(known) = state.host.attachments.get_mut(&attachment.arn) {
            // ECS has sent the message again: it waits for longer now.
            if attachment.expires_at > known.expires_at {
                (known.announced_at, known.expires_at) = (now, attachment.expires_at);
                out.changed.insert(Key::Host);
            }
        } else if has_room(state, out) {
            let record = AttachmentRecord {
                kind: attachment.kind.clone(),
                device: attachment.device,
                announced_at: now,
                expires_at: attachment.expires_at,
                status: AttachmentStatus::Announced,
            };
            state.host.attachments.insert(attachment.arn, record);
            out.changed.insert(Key::Host);
        } else {
            is_complete = false;
            continue;
        }
        touched.extend(attachment.kind.task().cloned());
    }
    if is_complete {
        out.effects.push(Effect::Send(Message::Ack(ack))); // otherwise ECS sends the message again
    }
    touched.extend(notice(state, now, out));
    touched
}

/// There is room for one more record, perhaps because one of a reported attachment was removed: of a task that is over, if there is
/// one, and then the oldest.
fn has_room(state: &mut State, out: &mut Step) -> bool {
    if state.host.attachments.len() < MAX_RECORDS {
        return true;
    }
    let is_at_work = |record: &AttachmentRecord| {
        let task = record.kind.task().map(|arn| state.tasks.get(arn));
        task.is_none_or(|task| task.is_some_and(|task| task.known != TaskStatus::Stopped))
    };
    let reported = state.host.attachments.iter().filter(|(_, record)| record.status == AttachmentStatus::Reported);
    let first = reported.min_by_key(|(_, record)| (is_at_work(record), record.announced_at));
    let Some(arn) = first.map(|(arn, _)| arn.clone()) else { return false };
    remove(state, &arn, out);
    true
}

/// Writes which hardware addresses are on the host now: all of them. Returns the tasks to plan again.
pub(super) fn seen(
    state: &mut State,
    now: Timestamp,
    addresses: BTreeSet<MacAddress>,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    clear_future_moments(state, now, out);
    state.interfaces = addresses;
    notice(state, now, out)
}

/// Marks the announced attachments whose devices are there, and returns their tasks.
fn notice(state: &mut State, now: Timestamp, out: &mut Step) -> BTreeSet<TaskArn> {
    let State { host, interfaces, .. } = state;
    let mut tasks = BTreeSet::new();
    for record in host.attachments.values_mut() {
        let Device::Interface(address) = record.device;
        let is_due = record.status == AttachmentStatus::Announced && record.expires_at > now;
        if is_due && interfaces.contains(&address) {
            record.status = AttachmentStatus::Seen;
            out.changed.insert(Key::Host);
            tasks.extend(record.kind.task().cloned());
        }
    }
    tasks
}

/// Removes the records that are over, and starts the reports that are due.
pub(super) fn plan(state: &mut State, now: Timestamp, out: &mut Step) {
    if state.host.attachments.is_empty() {
        return;
    }
    clear_future_moments(state, now, out);
    let is_over = |(_, record): &(&String, &AttachmentRecord)| end(state, record).is_some_and(|end| end <= now);
    let over: Vec<String> = state.host.attachments.iter().filter(is_over).map(|(arn, _)| arn.clone()).collect();
    over.iter().for_each(|arn| remove(state, arn, out));
    let is_due = |(arn, record): &(&String, &AttachmentRecord)| {
        let report = state.attachment_reports.get(*arn);
        record.status == AttachmentStatus::Seen
            && report.is_none_or(|report| report.op.is_none() && report.retry.not_before <= now)
    };
    let due = state.host.attachments.iter().filter(is_due);
    for (attachment, task) in due.map(|(arn, record)| (arn.clone(), record.kind.task().cloned())).collect::<Vec<_>>() {
        let op = state.new_op(OperationOwner::Attachment(attachment.clone()));
        state.attachment_reports.entry(attachment.clone()).or_default().op = Some(op);
        let change = AttachmentChange { attachment, task };
        out.effects.push(Effect::Do(op, Operation::ReportAttachment(change)));
    }
}

/// Moves moments in the future back to now. The clock may have been set back while the agent was down, and a record would be kept for
/// that much longer.
fn clear_future_moments(state: &mut State, now: Timestamp, out: &mut Step) {
    for record in state.host.attachments.values_mut().filter(|record| record.announced_at > now) {
        record.expires_at = record.expires_at - record.announced_at.since(now);
        record.announced_at = now;
        out.changed.insert(Key::Host);
    }
}

/// When the record is removed; `None`: with its task.
fn end(state: &State, record: &AttachmentRecord) -> Option<Timestamp> {
    match record.status {
        AttachmentStatus::Announced => Some(record.expires_at),
        AttachmentStatus::Seen => Some(record.expires_at + REPORT_AFTER_EXPIRY),
        AttachmentStatus::Reported if record.kind.task().is_some_and(|task| state.tasks.contains_key(task)) => None,
        AttachmentStatus::Reported => Some(record.expires_at + KEPT_WITHOUT_TASK),
    }
}

fn remove(state: &mut State, arn: &str, out: &mut Step) {
    state.host.attachments.remove(arn);
    out.changed.insert(Key::Host);
    if let Some(op) = state.attachment_reports.remove(arn).and_then(|report| report.op) {
        state.ops.remove(&op);
        out.effects.push(Effect::Cancel(op));
    }
}

/// Writes the outcome of a report.
pub(super) fn completed(state: &mut State, now: Timestamp, arn: &str, outcome: &Outcome, out: &mut Step) {
    let Some(report) = state.attachment_reports.get_mut(arn) else { return };
    report.op = None;
    let is_answered = match outcome {
        Ok(_) => true,
        // Repeating a report that ECS has found invalid does not help.
        Err(OpError::Failed(failure)) => failure.kind != FailureKind::Retryable,
        Err(OpError::Unknown(_)) => false,
    };
    if !is_answered {
        return backoff::REPORT.again(&mut report.retry, now, arn);
    }
    state.attachment_reports.remove(arn);
    if let Some(record) = state.host.attachments.get_mut(arn) {
        record.status = AttachmentStatus::Reported;
        out.changed.insert(Key::Host);
    }
}

/// Removes the records of a task that is cleaned up.
pub(super) fn forget(state: &mut State, task: &TaskArn, out: &mut Step) {
    let is_its = |(_, record): &(&String, &AttachmentRecord)| record.kind.task() == Some(task);
    let records: Vec<String> = state.host.attachments.iter().filter(is_its).map(|(arn, _)| arn.clone()).collect();
    records.iter().for_each(|arn| remove(state, arn, out));
}

/// The moments at which a record is removed, or a report is due.
pub(super) fn next_deadline(state: &State) -> impl Iterator<Item = Timestamp> {
    let ends = state.host.attachments.values().filter_map(|record| end(state, record));
    let idle = state.attachment_reports.values().filter(|report| report.op.is_none());
    ends.chain(idle.map(|report| report.retry.not_before))
}

/// The announced interface that the task waits for longest; `None` if it waits for none.
pub(super) fn awaited<'a>(state: &'a State, task: &TaskState, now: Timestamp) -> Option<&'a AttachmentRecord> {
    let is_awaited = |record: &&AttachmentRecord| {
        let Device::Interface(address) = record.device;
        record.status == AttachmentStatus::Announced
            && record.expires_at > now
            && record.kind.task() == Some(&task.spec.arn)
            && task.spec.interfaces.iter().any(|interface| interface.mac == address)
    };
    state.host.attachments.values().filter(is_awaited).max_by_key(|record| record.expires_at)
}

#[cfg(test)]
mod tests;
