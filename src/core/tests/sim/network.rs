//! The model of the host's network: the devices that appear and go, the namespaces that they are moved to, and the attachments
//! that ECS announces.
//!
//! A namespace lives as long as a container in it runs. Then the kernel gives its devices back to the host.

use crate::schedule::Rng;
use crate::world::{Pending, Turn, World};
use ecs_core::model::attachment::{Attachment, AttachmentKind, AttachmentStatus, Device};
use ecs_core::model::{
    Ack, Failure, Interface, InterfaceKind, MacAddress, NetworkRequest, OpError, RunState, RuntimeId, Span, TaskArn,
    Timestamp,
};
use ecs_core::state::NetworkOperationKind;
use ecs_core::{Effect, Event, Operation, Outcome, Output, PayloadTask};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The trunk interface of the instance.
const TRUNK: MacAddress = MacAddress([6, 0, 0, 0, 0, 9]);

/// The namespace of one run of a pause container.
pub(crate) type Run = (RuntimeId, u32);

/// A namespace in which the network of a task is set up.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) task: TaskArn,
    pub(crate) address: Ipv4Addr,
}

#[derive(Debug, Default)]
pub(crate) struct Net {
    /// The devices of the machine, each with the namespace that it is in; `None`: the host's.
    pub(crate) links: BTreeMap<MacAddress, Option<Run>>,
    /// The networks that are set up, by the run of their pause container.
    pub(crate) namespaces: BTreeMap<Run, Namespace>,
    /// Tasks with a network that was set up at least once, with the last run it was set up in.
    pub(crate) was_set_up: BTreeMap<TaskArn, Run>,
    /// The set-ups whose success is on disk, by the run.
    pub(crate) stored: BTreeSet<Run>,
    /// Tasks whose set-up was requested and whose last clean-up was not requested since.
    pub(crate) to_clean: BTreeSet<TaskArn>,
    /// Consecutive failures: the task, the operation, how many, and when the last one was. One that was refused because an earlier
    /// one had not ended does not count.
    pub(crate) failed: Vec<(TaskArn, NetworkOperationKind, u32, Timestamp)>,
    /// The last kind of operation on the network of a task, and when the first one of this kind was requested.
    pub(crate) asked: BTreeMap<TaskArn, (NetworkOperationKind, Timestamp)>,
    /// Tasks with an operation that may be carried out late.
    pub(crate) late: BTreeSet<TaskArn>,
    /// The devices that the agent was last shown.
    pub(crate) shown: BTreeSet<MacAddress>,
    /// The messages that ECS has sent, by their id: the attachment, and when it was sent.
    pub(crate) messages: BTreeMap<String, (Attachment, Timestamp)>,
    /// The attachments that were acknowledged: when they were sent, and when they expire.
    pub(crate) acknowledged: BTreeMap<String, (Timestamp, Timestamp)>,
    /// The attachments that have arrived and not expired, with their device and expiry.
    pub(crate) arrived: BTreeMap<String, (MacAddress, Timestamp)>,
    /// The attachments whose device was shown in time.
    pub(crate) in_time: BTreeSet<String>,
    /// The attachments whose report was answered, and the answer is on disk.
    pub(crate) reported: BTreeSet<String>,
    /// The attachments whose report ECS has accepted, or has refused for good.
    pub(crate) accepted: BTreeSet<String>,
}

/// The interfaces of tasks, as ECS has sent them.
fn interfaces(world: &World) -> Vec<(TaskArn, Interface)> {
    let tasks = world.ecs.sent.iter().flat_map(|message| &message.tasks).filter_map(|task| match task {
        PayloadTask::Run(spec) => Some(spec),
        PayloadTask::Stop(..) | PayloadTask::Refused { .. } => None,
    });
    tasks.flat_map(|spec| spec.interfaces.iter().map(|interface| (spec.arn.clone(), interface.clone()))).collect()
}

/// The device that appears for an interface: a branch interface has none of its own.
fn device(interface: &Interface) -> Option<MacAddress> {
    (interface.kind == InterfaceKind::Standard).then_some(interface.mac)
}

impl World {
    /// ECS announces an attachment, perhaps again. The bits decide how long it waits, and whether the attachment is another one
    /// with the same device.
    pub(crate) fn attach(&mut self, pick: usize, bits: u64) {
        let known = interfaces(self);
        let mut rng = Rng(bits);
        let wait = Span::secs([5, 40, 120, 300][rng.below(4) as usize]);
        let suffix = if rng.percent(10) { "+" } else { "" };
        let (arn, kind, mac) = match known.get(pick % (known.len() + 1)) {
            Some((task, interface)) => {
                let kind = match device(interface) {
                    Some(_) => AttachmentKind::TaskInterface(task.clone()),
                    None => AttachmentKind::BranchInterface(task.clone()),
                };
                (format!("{}{suffix}", interface.attachment), kind, interface.mac)
            }
            None => (format!("attachment/trunk{suffix}"), AttachmentKind::InstanceInterface, TRUNK),
        };
        let expires_at = if rng.percent(5) { self.now } else { self.now + wait };
        let attachment = Attachment { arn, kind, device: Device::Interface(mac), expires_at };
        let message_id = format!("attach-{}", self.net.messages.len());
        self.net.messages.insert(message_id.clone(), (attachment.clone(), self.now));
        let ack = Ack {
            message_id,
            cluster: "cluster".to_owned(),
            container_instance: "instance".to_owned(),
            credentials: Vec::new(),
        };
        self.feed(Event::Attachments { attachments: vec![attachment], ack });
    }

    /// A device appears, and most of the time the agent is shown that at once.
    pub(crate) fn plug(&mut self, pick: usize, is_shown: bool) {
        let known = interfaces(self);
        let mac = known.get(pick % (known.len() + 1)).map_or(Some(TRUNK), |(_, interface)| device(interface));
        if let Some(mac) = mac {
            self.net.links.entry(mac).or_insert(None);
        }
        if is_shown {
            self.show_links();
        }
    }

    /// A device goes, wherever it is.
    pub(crate) fn unplug(&mut self, pick: usize) {
        if let Some(at) = pick.checked_rem(self.net.links.len()) {
            let mac = *self.net.links.keys().nth(at).expect("it is there");
            self.net.links.remove(&mac);
            self.show_links();
        }
    }

    /// The devices of the tasks that were just sent appear, but for some.
    pub(crate) fn plug_new(&mut self, shape: u64) {
        let mut rng = Rng(shape);
        for (_, interface) in interfaces(self) {
            if let Some(mac) = device(&interface).filter(|_| rng.percent(70)) {
                self.net.links.entry(mac).or_insert(None);
            }
        }
    }

    /// The agent is shown all devices of the host.
    pub(crate) fn show_links(&mut self) {
        self.reap_namespaces();
        let links = self.net.links.iter().filter(|(_, place)| place.is_none());
        let shown: BTreeSet<MacAddress> = links.map(|(mac, _)| *mac).collect();
        self.feed(Event::Interfaces(shown));
    }

    /// The namespaces in which nothing runs go, and their devices come back to the host.
    pub(crate) fn reap_namespaces(&mut self) {
        let containers = &self.docker.containers;
        let is_alive = |(id, run): &Run, namespace: &Namespace| {
            containers.iter().filter(|it| it.state == RunState::Running && !it.foreign).any(|it| {
                let is_pause = it.id == *id;
                let is_joined = it.task == namespace.task && it.container.as_str() != crate::control::PAUSE;
                (is_pause && it.run as u32 == *run) || (is_joined && it.joined.as_ref() == Some(&(id.clone(), *run)))
            })
        };
        self.net.namespaces.retain(|run, namespace| is_alive(run, namespace));
        let Net { links, namespaces, .. } = &mut self.net;
        for place in links.values_mut() {
            if place.as_ref().is_some_and(|run| !namespaces.contains_key(run)) {
                *place = None;
            }
        }
    }

    pub(crate) fn set_up_network(&mut self, request: &NetworkRequest) -> Outcome {
        self.reap_namespaces();
        let refused = |text: &str| Err(OpError::Failed(Failure::permanent("ContainerNetworkingError", text)));
        let run = (request.pause.clone(), request.pause_pid);
        let runs =
            |it: &&crate::docker::Container| it.id == run.0 && it.state == RunState::Running && it.run as u32 == run.1;
        if !self.docker.containers.iter().any(|it| runs(&it)) {
            return refused("the namespace is gone");
        }
        let needed: Vec<MacAddress> = request.interfaces.iter().filter_map(device).collect();
        let is_there = |mac: &MacAddress| {
            self.net.links.get(mac).is_some_and(|place| place.as_ref().is_none_or(|other| *other == run))
        };
        if !needed.iter().all(is_there) {
            return refused("no such interface");
        }
        for mac in needed {
            self.net.links.insert(mac, Some(run.clone()));
        }
        let namespace = Namespace { task: request.task.clone(), address: request.local_address };
        self.net.was_set_up.insert(request.task.clone(), run.clone());
        self.net.namespaces.insert(run, namespace);
        Ok(Output::Nothing)
    }

    pub(crate) fn tear_down_network(&mut self, request: &NetworkRequest) -> Outcome {
        self.reap_namespaces();
        self.net.namespaces.retain(|_, namespace| namespace.task != request.task);
        self.reap_namespaces();
        Ok(Output::Nothing)
    }

    /// The thread of an earlier operation may still be at work. It refuses most other operations on the same network until then.
    pub(crate) fn is_network_busy(&self, pending: &Pending) -> bool {
        let task = |effect: &Effect| match effect {
            Effect::Do(_, Operation::SetUpNetwork(request) | Operation::TearDownNetwork(request)) => {
                Some(request.task.clone())
            }
            _ => None,
        };
        let wanted = task(&pending.effect);
        wanted.is_some() && !pending.op.0.is_multiple_of(3) && self.late.iter().any(|late| task(late) == wanted)
    }

    pub(crate) fn report_attachment(&mut self, operation: &Operation) {
        if let Operation::ReportAttachment(change) = operation {
            self.net.accepted.insert(change.attachment.clone());
        }
    }

    /// Notes what the agent is shown, and which devices are there in time.
    pub(crate) fn note_network_event(&mut self, event: &Event) {
        match event {
            Event::Interfaces(shown) => self.net.shown.clone_from(shown),
            Event::Attachments { attachments, .. } => {
                for attachment in attachments {
                    let Device::Interface(mac) = attachment.device;
                    if !matches!(attachment.kind, AttachmentKind::BranchInterface(_)) {
                        let entry = self.net.arrived.entry(attachment.arn.clone());
                        let known = entry.or_insert((mac, attachment.expires_at));
                        known.1 = known.1.max(attachment.expires_at);
                    }
                }
            }
            _ => return,
        }
        let Net { arrived, shown, in_time, .. } = &mut self.net;
        let is_in_time = |(mac, expires_at): &(MacAddress, Timestamp)| *expires_at > self.now && shown.contains(mac);
        in_time.extend(arrived.iter().filter(|(_, it)| is_in_time(it)).map(|(arn, _)| arn.clone()));
    }

    /// Notes the answers that are on disk now.
    pub(crate) fn commit_network(&mut self, turn: &Turn) {
        self.net.stored.extend(turn.set_up.iter().cloned());
        self.net.reported.extend(turn.attached.iter().cloned());
        // A record that was removed may be announced again.
        let records = &self.disk.host.attachments;
        self.net.reported.retain(|arn| records.contains_key(arn));
    }

    pub(crate) fn acknowledge_attachment(&mut self, message_id: &str) {
        let Some((attachment, sent_at)) = self.net.messages.get(message_id) else { return };
        // In a burst the record may be over already.
        if self.disk.host.attachments.contains_key(&attachment.arn) {
            let known = self.net.acknowledged.entry(attachment.arn.clone()).or_default();
            if attachment.expires_at > known.1 {
                *known = (*sent_at, attachment.expires_at);
            }
        }
    }

    /// The clock was set back, and no attachment lives longer for that.
    pub(crate) fn clock_set_back(&mut self) {
        for (sent_at, expires_at) in self.net.acknowledged.values_mut() {
            *expires_at = *expires_at - sent_at.since(self.now);
            *sent_at = self.now.min(*sent_at);
        }
    }

    /// The state of the agent is lost, and with it what it knew of attachments and networks.
    pub(crate) fn network_lost(&mut self) {
        let net = &mut self.net;
        net.acknowledged.clear();
        net.arrived.clear();
        net.in_time.clear();
        net.reported.clear();
        net.stored.clear();
        net.to_clean.clear();
    }

    /// Records of attachments that have been seen and are not reported.
    pub(crate) fn unreported_attachment(&self) -> Option<String> {
        let mut records = self.state.host.attachments.iter();
        let found = records.find(|(_, record)| record.status == AttachmentStatus::Seen);
        found.map(|(arn, _)| arn.clone())
    }
}
