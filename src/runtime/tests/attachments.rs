//! Plays the recorded messages about attachments through the decoder and the core, and compares what leaves for ECS with what left the
//! Go agent (`tests/golden/awsvpc`). How the reports look on the wire is tested in `ecs::report`.

use crate::acs::{Announced, Frame, HostFacts, Incoming, frame};
use ecs_core::model::attachment::Attachment;
use ecs_core::model::{Ack, MacAddress, Span, Timestamp};
use ecs_core::{Effect, Event, Message, Operation, Output, Policy, State, Step, recover, step};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An agent: the decoder and the core. What it sends is kept.
struct Agent {
    state: State,
    now: Timestamp,
    /// The devices on the host.
    devices: BTreeSet<MacAddress>,
    /// What left for ECS, in order, in the form of the recordings.
    sent: Vec<Value>,
}

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What left the Go agent, according to a list of records: acknowledgements and reports.
fn recorded(records: &Value) -> Vec<Value> {
    let is_ours = |record: &&Value| {
        let op = record["op"].as_str().unwrap();
        op == "AckRequest" || op.starts_with("Submit")
    };
    records.as_array().unwrap().iter().filter(is_ours).map(|record| record["body"].clone()).collect()
}

impl Agent {
    fn new() -> Self {
        let (now, state) = (Timestamp(1_795_307_000_000), recover(Policy::default(), Default::default(), []));
        let mut agent = Self { state, now, devices: BTreeSet::new(), sent: Vec::new() };
        agent.step(Event::Tick);
        agent
    }

    fn step(&mut self, event: Event) {
        let mut steps = vec![step(&mut self.state, self.now, event)];
        while let Some(Step { effects, .. }) = steps.pop() {
            for effect in effects {
                match effect {
                    Effect::Send(Message::Ack(Ack { message_id, cluster, container_instance, .. })) => {
                        self.sent.push(json!({
                            "cluster": cluster, "containerInstance": container_instance, "messageId": message_id,
                        }));
                    }
                    Effect::Do(op, Operation::ReportAttachment(change)) => {
                        let attachment = json!({"attachmentArn": change.attachment, "status": "ATTACHED"});
                        let mut report = json!({"attachments": [attachment], "cluster": "judge"});
                        if let Some(task) = &change.task {
                            report["task"] = json!(task);
                        }
                        self.sent.push(report);
                        let accepted = Event::Completed { op, outcome: Ok(Output::Nothing) };
                        steps.push(step(&mut self.state, self.now, accepted));
                    }
                    _ => {}
                }
            }
        }
    }

    /// ECS sends this message.
    fn receive(&mut self, message: &Value) {
        let decoded = frame(message.to_string().as_bytes(), &HostFacts::default(), &mut String::new);
        let Frame::Deliver(Incoming::Attachments { announced, ack }, _) = decoded else { return };
        let expiring =
            |Announced { arn, kind, device, wait }| Attachment { arn, kind, device, expires_at: self.now + wait };
        let attachments = announced.into_iter().map(expiring).collect();
        self.step(Event::Attachments { attachments, ack });
    }

    fn plug(&mut self, mac: &str) {
        self.devices.insert(mac.parse().unwrap());
        self.step(Event::Interfaces(self.devices.clone()));
    }

    fn unplug(&mut self) {
        self.devices.clear();
        self.step(Event::Interfaces(BTreeSet::new()));
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Span::secs(seconds);
        self.step(Event::Tick);
    }

    /// Killed and started again. The devices are looked up again.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.state.host).unwrap();
        self.state = recover(Policy::default(), serde_json::from_str(&text).unwrap(), []);
        self.step(Event::Tick);
    }

    fn sent(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.sent)
    }
}

const MAC: &str = "06:00:00:00:01:01";

/// The recorded message with another message id.
fn again(message: &Value, records: &Value) -> Value {
    let mut message = message.clone();
    message["message"]["messageId"] = recorded(records)[0]["messageId"].clone();
    message
}

#[test]
fn recorded_attachments_are_answered_as_recorded() {
    let golden = golden("attachments");
    let mut agent = Agent::new();
    let message = &golden["expired_then_plugged"]["message"];
    agent.receive(message);
    agent.wait(6);
    agent.plug(MAC);
    assert_eq!(agent.sent(), recorded(&golden["expired_then_plugged"]["records"]), "an expired one is not reported");
    let part = &golden["sent_again_device_present"];
    agent.receive(&again(message, &part["records"]));
    let sent = agent.sent();
    assert_eq!((&sent, &sent[1]), (&recorded(&part["records"]), &part["report"]));
    let records = &golden["duplicate_after_report"]["records"];
    agent.receive(&again(message, records));
    assert_eq!(agent.sent(), recorded(records), "it is not reported again");

    // The message of `device_before_message` was not recorded; its attachment and task are in the report.
    let mut agent = Agent::new();
    agent.plug(MAC);
    let records = &golden["device_before_message"]["records"];
    let wanted = recorded(records);
    let mut message = again(message, records);
    message["message"]["taskArn"] = wanted[1]["task"].clone();
    message["message"]["elasticNetworkInterfaces"][0]["attachmentArn"] =
        wanted[1]["attachments"][0]["attachmentArn"].clone();
    agent.receive(&message);
    // (At once. The Go agent finds the device after 17 s.)
    assert_eq!(agent.sent(), wanted);

    let trunk = &golden["trunk"];
    agent.receive(&trunk["message"]);
    agent.plug("06:00:00:00:02:01");
    assert_eq!(agent.sent(), recorded(&trunk["records"]));
}

#[test]
fn what_the_go_agent_does_not_acknowledge_is_not_here() {
    let golden = golden("attachments");
    let refused = golden["refused_messages_acks"].as_object().unwrap();
    let message = &golden["expired_then_plugged"]["message"];
    for (name, acks) in refused {
        let mut message = message.clone();
        let body = &mut message["message"];
        let interface = |name: &str, value: Value| ("elasticNetworkInterfaces", 0, name.to_owned(), value);
        let (list, at, member, value) = match name.as_str() {
            "no waitTimeoutMs" => ("", 0, "waitTimeoutMs".to_owned(), json!(0)),
            "no interfaces" => ("", 0, "elasticNetworkInterfaces".to_owned(), json!([])),
            "no taskArn" => ("", 0, "taskArn".to_owned(), json!("")),
            "no clusterArn" => ("", 0, "clusterArn".to_owned(), json!("")),
            "no mac" => interface("macAddress", json!("")),
            "no ec2Id" => interface("ec2Id", json!("")),
            "no addresses" => interface("ipv4Addresses", json!([])),
            "no gateway" => interface("subnetGatewayIpv4Address", json!("")),
            "gateway without prefix" => interface("subnetGatewayIpv4Address", json!("10.0.1.1")),
            "protocol veth" => interface("interfaceAssociationProtocol", json!("veth")),
            other => panic!("{other} is not played"),
        };
        match list {
            "" => body[member] = value,
            list => body[list][at][member] = value,
        }
        let mut agent = Agent::new();
        agent.plug(MAC);
        agent.receive(&message);
        assert_eq!(json!(agent.sent()), *acks, "{name}");
    }
    assert_eq!(refused.len(), 10);
}

/// The whole of the recorded task: its attachment comes first, and its reports carry no attachment. What follows the payload is tested
/// with a real engine (`tests/agent/awsvpc.rs`).
#[test]
fn the_recorded_task_begins_with_its_interface() {
    let mut agent = Agent::new();
    let records = golden("records_start_to_stop");
    agent.receive(&golden("attach_message")["sent"]);
    let acknowledged = agent.sent();
    assert_eq!(acknowledged, [golden("attach_message")["answered"].clone()]);
    agent.plug(MAC);
    let reported = agent.sent();
    assert_eq!(reported, [golden("attached_report")]);
    assert_eq!([acknowledged, reported].concat(), recorded(&records)[..2]);
}

#[test]
fn a_kill_before_the_device_came_changes_nothing() {
    let golden = golden("restart");
    let wanted = recorded(&golden["killed_before_the_device_came"]);
    let mut message = self::golden("attach_message")["sent"].clone();
    message["message"]["taskArn"] = wanted[0]["task"].clone();
    message["message"]["elasticNetworkInterfaces"][0]["attachmentArn"] =
        wanted[0]["attachments"][0]["attachmentArn"].clone();
    let mut agent = Agent::new();
    agent.receive(&message);
    assert_eq!(agent.sent().len(), 1, "the acknowledgement");
    agent.restart();
    agent.plug(MAC);
    assert_eq!(agent.sent(), wanted);
    // The task runs, and its device is not among the host's.
    agent.unplug();
    agent.restart();
    agent.plug(MAC);
    assert_eq!(agent.sent(), recorded(&golden["restarted_with_running_task"]["records"]), "nothing is reported again");
}
