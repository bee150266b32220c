use super::*;
use crate::model::{Failure, OpId};
use crate::policy::Policy;
use crate::sample::{NOW, container, done, run, spec, state};
use crate::state::HostState;
use crate::{Event, Output, Step, next_deadline, recover, step};

const WAIT: Span = Span::secs(300);
const TASK: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/021a95f9bb46473eaf01163a2ac92d29";
const MAC: MacAddress = MacAddress([6, 0, 0, 0, 1, 1]);

fn ack(message_id: &str) -> Ack {
    Ack {
        message_id: message_id.to_owned(),
        cluster: "cluster".to_owned(),
        container_instance: "instance".to_owned(),
        credentials: Vec::new(),
    }
}

fn attachment(arn: &str, kind: AttachmentKind, mac: MacAddress, expires_at: Timestamp) -> Attachment {
    Attachment { arn: arn.to_owned(), kind, device: Device::Interface(mac), expires_at }
}

fn task_interface(arn: &str, expires_at: Timestamp) -> Attachment {
    attachment(arn, AttachmentKind::TaskInterface(TASK.into()), MAC, expires_at)
}

fn announce(state: &mut State, now: Timestamp, attachments: Vec<Attachment>) -> Step {
    step(state, now, Event::Attachments { attachments, ack: ack("m") })
}

fn appear(state: &mut State, now: Timestamp, addresses: &[MacAddress]) -> Step {
    step(state, now, Event::Interfaces(addresses.iter().copied().collect()))
}

fn reports(step: &Step) -> Vec<(OpId, AttachmentChange)> {
    let reports = step.effects.iter().filter_map(|effect| match effect {
        Effect::Do(op, Operation::ReportAttachment(change)) => Some((*op, change.clone())),
        _ => None,
    });
    reports.collect()
}

fn is_acknowledged(step: &Step) -> bool {
    step.effects.contains(&Effect::Send(Message::Ack(ack("m"))))
}

fn refused(op: OpId, failure: Failure) -> Event {
    Event::Completed { op, outcome: Err(OpError::Failed(failure)) }
}

/// The state that an agent has after it was killed.
fn restarted(state: State) -> State {
    let text = serde_json::to_string(&state.host).unwrap();
    let mut state = recover(Policy::default(), serde_json::from_str(&text).unwrap(), []);
    step(&mut state, NOW, Event::Tick);
    state
}

#[test]
fn a_device_is_reported_once_in_either_order() {
    for device_first in [false, true] {
        let mut state = state(Policy::default());
        let expires_at = NOW + WAIT;
        let step_of = |state: &mut State, is_device: bool| match is_device {
            true => appear(state, NOW, &[MAC]),
            false => announce(state, NOW, vec![task_interface("a", expires_at)]),
        };
        let first = step_of(&mut state, device_first);
        assert!(reports(&first).is_empty(), "{first:?}");
        assert_eq!((is_acknowledged(&first), first.changed.contains(&Key::Host)), (!device_first, !device_first));
        let second = step_of(&mut state, !device_first);
        let reported = reports(&second);
        let [(op, change)] = &reported[..] else { panic!("{second:?}") };
        assert_eq!((change.attachment.as_str(), change.task.as_ref()), ("a", Some(&TASK.into())));
        assert!(second.changed.contains(&Key::Host), "it is on disk first");
        // Nothing more while the report is pending, nor afterwards.
        assert!(reports(&appear(&mut state, NOW, &[MAC])).is_empty());
        assert!(step(&mut state, NOW, done(*op, Output::Nothing)).changed.contains(&Key::Host));
        let again = NOW + Span::secs(1);
        assert!(reports(&announce(&mut state, again, vec![task_interface("a", again + WAIT)])).is_empty());
        assert_eq!(state.host.attachments["a"].expires_at, again + WAIT, "it is remembered for longer");
        assert!(reports(&appear(&mut state, NOW, &[])).is_empty());
        assert!(reports(&appear(&mut state, NOW, &[MAC])).is_empty(), "the device has come back from a task");
    }
}

#[test]
fn a_report_is_repeated_until_ecs_has_answered() {
    let mut state = state(Policy::default());
    appear(&mut state, NOW, &[MAC]);
    let (op, _) = reports(&announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT)])).remove(0);
    let failed = step(&mut state, NOW, refused(op, Failure::retryable("", "no connection")));
    assert!(reports(&failed).is_empty(), "there is a wait");
    let again = next_deadline(&state).unwrap();
    assert!(again > NOW && again <= NOW + Span::secs(2), "{again:?}");
    let (op, _) = reports(&step(&mut state, again, Event::Tick)).remove(0);
    let unknown = Event::Completed { op, outcome: Err(OpError::Unknown(Failure::retryable("", "no answer"))) };
    step(&mut state, again, unknown);
    // The attachment has expired since, but its device was there in time.
    let late = NOW + WAIT + Span::secs(1);
    let (op, _) = reports(&step(&mut state, late, Event::Tick)).remove(0);
    step(&mut state, late, refused(op, Failure::permanent("InvalidParameterException", "too late")));
    assert_eq!(state.host.attachments["a"].status, AttachmentStatus::Reported, "no answer would be another one");
    assert!(state.attachment_reports.is_empty());
}

#[test]
fn a_report_without_an_answer_is_given_up_in_the_end() {
    let mut state = state(Policy::default());
    appear(&mut state, NOW, &[MAC]);
    let (op, _) = reports(&announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT)])).remove(0);
    let over = NOW + WAIT + REPORT_AFTER_EXPIRY;
    let last = step(&mut state, over, Event::Tick);
    assert!(last.effects.contains(&Effect::Cancel(op)), "{last:?}");
    assert!(state.host.attachments.is_empty() && state.attachment_reports.is_empty());
    assert!(!state.ops.contains_key(&op));
}

#[test]
fn an_expired_attachment_is_forgotten_alone() {
    let mut state = state(Policy::default());
    let other = MacAddress([6, 0, 0, 0, 1, 2]);
    let second = attachment("b", AttachmentKind::TaskInterface(TASK.into()), other, NOW + WAIT + WAIT);
    announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT), second]);
    let just_before = Timestamp(NOW.0 + WAIT.0 - 1);
    step(&mut state, just_before, Event::Tick);
    assert_eq!(state.host.attachments.len(), 2);
    let expired = step(&mut state, NOW + WAIT, Event::Tick);
    assert!(expired.changed.contains(&Key::Host));
    assert_eq!(state.host.attachments.keys().collect::<Vec<_>>(), ["b"]);
    assert!(reports(&appear(&mut state, NOW + WAIT, &[MAC])).is_empty(), "it has expired");
    // ECS sends it again.
    let now = NOW + WAIT + Span::secs(1);
    assert_eq!(reports(&announce(&mut state, now, vec![task_interface("a", now + WAIT)])).len(), 1);
    assert_eq!(reports(&appear(&mut state, now, &[MAC, other])).len(), 1);
}

#[test]
fn a_device_in_the_moment_of_the_expiry_is_late() {
    let mut state = state(Policy::default());
    announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT)]);
    assert!(reports(&appear(&mut state, NOW + WAIT, &[MAC])).is_empty());
    assert!(state.host.attachments.is_empty());
}

#[test]
fn a_repeated_announcement_extends_the_wait() {
    let mut state = state(Policy::default());
    announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT)]);
    announce(&mut state, NOW + Span::secs(200), vec![task_interface("a", NOW + Span::secs(200) + WAIT)]);
    // An older copy of the message does not shorten it.
    assert!(announce(&mut state, NOW + Span::secs(201), vec![task_interface("a", NOW + WAIT)]).changed.is_empty());
    step(&mut state, NOW + Span::secs(400), Event::Tick);
    assert_eq!(reports(&appear(&mut state, NOW + Span::secs(400), &[MAC])).len(), 1);
}

#[test]
fn some_announcements_are_only_acknowledged() {
    let kind = AttachmentKind::BranchInterface(TASK.into());
    let table = [vec![attachment("a", kind, MAC, NOW + WAIT)], vec![task_interface("a", NOW)], Vec::new()];
    for attachments in table {
        let mut state = state(Policy::default());
        appear(&mut state, NOW, &[MAC]);
        let step = announce(&mut state, NOW, attachments.clone());
        assert!(is_acknowledged(&step) && step.changed.is_empty(), "{attachments:?}");
        assert!(state.host.attachments.is_empty() && reports(&step).is_empty(), "{attachments:?}");
    }
}

#[test]
fn the_instances_own_interface_is_reported_by_itself() {
    let mut state = state(Policy::default());
    let trunk = attachment("trunk", AttachmentKind::InstanceInterface, MAC, NOW + WAIT);
    announce(&mut state, NOW, vec![trunk]);
    let reported = reports(&appear(&mut state, NOW, &[MAC]));
    let [(_, change)] = &reported[..] else { panic!("{reported:?}") };
    assert_eq!((change.attachment.as_str(), &change.task), ("trunk", &None));
}

/// The hardware address of an interface that was reported is that of another attachment now.
#[test]
fn a_reused_address_is_reported_for_the_new_attachment() {
    let mut state = state(Policy::default());
    announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT)]);
    let (op, _) = reports(&appear(&mut state, NOW, &[MAC])).remove(0);
    step(&mut state, NOW, done(op, Output::Nothing));
    let reported = reports(&announce(&mut state, NOW, vec![task_interface("b", NOW + WAIT)]));
    assert_eq!(reported.iter().map(|(_, change)| change.attachment.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_kill_loses_neither_the_announcement_nor_the_report() {
    let mut before = state(Policy::default());
    announce(&mut before, NOW, vec![task_interface("a", NOW + WAIT)]);
    let mut after = restarted(before);
    assert_eq!(reports(&appear(&mut after, NOW, &[MAC])).len(), 1);
    // The answer does not arrive, and the device is in the task's namespace by now.
    let mut after = restarted(after);
    assert!(!after.attachment_reports.is_empty(), "it is due at the first step");
    let (op, _) = after.ops.iter().find(|(_, owner)| **owner == OperationOwner::Attachment("a".to_owned())).unwrap();
    let op = *op;
    step(&mut after, NOW, done(op, Output::Nothing));
    let after = restarted(after);
    assert!(after.attachment_reports.is_empty());
    assert_eq!(after.host.attachments["a"].status, AttachmentStatus::Reported);
}

#[test]
fn a_clock_that_was_set_back_makes_no_wait_longer() {
    let mut before = state(Policy::default());
    let later = NOW + Span::secs(100_000);
    announce(&mut before, later, vec![task_interface("a", later + WAIT)]);
    let after = restarted(before);
    let record = &after.host.attachments["a"];
    assert_eq!((record.announced_at, record.expires_at), (NOW, NOW + WAIT));
}

#[test]
fn records_are_removed_with_their_task_or_after_a_day() {
    let mut known = state(Policy::default());
    appear(&mut known, NOW, &[MAC]);
    step(&mut known, NOW, run(spec(TASK, vec![container("web", &[])])));
    let reported = reports(&announce(&mut known, NOW, vec![task_interface("a", NOW + WAIT)]));
    step(&mut known, NOW, done(reported[0].0, Output::Nothing));
    let later = NOW + WAIT + KEPT_WITHOUT_TASK;
    step(&mut known, later, Event::Tick);
    assert!(known.host.attachments.contains_key("a"), "its task is here");
    let task = known.tasks.remove(&TASK.into()).unwrap();
    let (mut out, mut cleaned) = (Step::default(), known.clone());
    crate::cleanup::forget(&mut cleaned, &task, later, &mut out);
    assert!(cleaned.host.attachments.is_empty() && out.changed.contains(&Key::Host));
    step(&mut known, later, Event::Tick);
    assert!(known.host.attachments.is_empty(), "without its task it is over");
}

#[test]
fn the_number_of_records_is_limited() {
    let mut state = state(Policy::default());
    let arns = (0..=MAX_RECORDS).map(|nth| task_interface(&format!("{nth}"), NOW + WAIT)).collect();
    assert!(!is_acknowledged(&announce(&mut state, NOW, arns)), "ECS sends it again");
    assert_eq!(state.host.attachments.len(), MAX_RECORDS);
    assert!(is_acknowledged(&announce(&mut state, NOW, vec![task_interface("0", NOW + WAIT)])), "it is known");
}

/// 14 tasks of two minutes at a time leave 1,260 records in the three hours until they are cleaned up.
#[test]
fn reported_attachments_make_room_for_new_ones() {
    let mut state = state(Policy::default());
    let at = |nth: usize| NOW + Span::secs(nth as u64);
    let task = |nth: usize| format!("arn:x:task/c/{nth}");
    let of_task = |nth: usize| {
        attachment(&format!("{nth:04}"), AttachmentKind::TaskInterface(task(nth).as_str().into()), MAC, at(nth) + WAIT)
    };
    for nth in 0..MAX_RECORDS {
        assert!(is_acknowledged(&announce(&mut state, at(nth), vec![of_task(nth)])));
        let record = state.host.attachments.get_mut(&format!("{nth:04}")).unwrap();
        record.status = AttachmentStatus::Reported;
    }
    // The first task still runs, so its attachment is kept.
    let first = crate::state::TaskState::new(spec(&task(0), vec![container("web", &[])]), 1, NOW);
    state.tasks.insert(first.spec.arn.clone(), Box::new(first));
    let step = announce(&mut state, at(MAX_RECORDS), vec![of_task(MAX_RECORDS)]);
    assert!(is_acknowledged(&step) && step.changed.contains(&Key::Host));
    assert_eq!(state.host.attachments.len(), MAX_RECORDS);
    let has = |arn: &str| state.host.attachments.contains_key(arn);
    assert!(has("0000") && !has("0001") && has("0002") && has("1000"));
}

#[test]
fn what_a_refused_message_added_is_looked_for_at_once() {
    let mut state = state(Policy::default());
    let fill = (1..MAX_RECORDS)
        .map(|nth| attachment(&format!("{nth}"), AttachmentKind::InstanceInterface, MacAddress([1; 6]), NOW + WAIT));
    announce(&mut state, NOW, fill.collect());
    appear(&mut state, NOW, &[MAC]);
    let step = announce(&mut state, NOW, vec![task_interface("a", NOW + WAIT), task_interface("b", NOW + WAIT)]);
    assert!(!is_acknowledged(&step), "there is no room for the second");
    assert_eq!(reports(&step)[0].1.attachment, "a", "its device is there");
}

#[test]
fn a_document_without_attachments_can_be_read() {
    let old = r#"{"seq":3,"arrivals":1,"pulled_images":[]}"#;
    let host: HostState = serde_json::from_str(old).unwrap();
    assert!(host.attachments.is_empty());
    assert!(!serde_json::to_string(&host).unwrap().contains("attachments"));
}
