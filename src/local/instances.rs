//! Container instances: their registration, the connection of their agent, and their outbox. This module owns one instance;
//! [`super::placement`] owns placement. Invariant: only the newest ACS connection of an instance counts.

use super::ec2::{IMAGE_ID, INSTANCE_TYPE};
use super::need::Need;
use super::outbox::Outbox;
use super::site::Site;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Status of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceStatus {
    /// The instance takes tasks.
    Active,
    /// The instance keeps its tasks and takes no new ones.
    Draining,
    /// The instance is deregistered.
    Inactive,
}

impl InstanceStatus {
    /// The status in the API's terms.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// An attribute of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The attribute's name.
    pub name: String,
    /// The attribute's value; capabilities have none.
    pub value: Option<String>,
}

impl Attribute {
    fn json(&self) -> Value {
        super::definition::without_nulls(json!({"name": self.name, "value": self.value}))
    }
}

/// The resources that an instance offers.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    /// CPU units.
    pub(super) cpu: u64,
    /// Memory, in MiB.
    pub(super) memory: u64,
    /// TCP ports that are reserved on the instance.
    pub(super) tcp: BTreeSet<u16>,
    /// UDP ports that are reserved on the instance.
    pub(super) udp: BTreeSet<u16>,
    /// Ids of the instance's GPUs.
    pub(super) gpus: BTreeSet<String>,
}

impl Resources {
    /// Reads `totalResources` and `platformDevices` of RegisterContainerInstance.
    pub(super) fn parse(total: &Value, devices: &Value) -> Self {
        let find = |name: &str| total.as_array().into_iter().flatten().find(|resource| resource["name"] == name);
        let number = |name: &str| find(name).and_then(|resource| resource["integerValue"].as_u64()).unwrap_or(0);
        let texts = |name: &str| {
            let texts = find(name).and_then(|resource| resource["stringSetValue"].as_array()).into_iter().flatten();
            texts.filter_map(Value::as_str)
        };
        let ports = |name: &str| texts(name).filter_map(|text| text.parse().ok()).collect();
        let gpus = devices.as_array().into_iter().flatten().filter(|device| device["type"] == "GPU");
        let gpus = gpus.filter_map(|device| device["id"].as_str()).map(str::to_owned).collect();
        Self { cpu: number("CPU"), memory: number("MEMORY"), tcp: ports("PORTS"), udp: ports("PORTS_UDP"), gpus }
    }

    /// The resources as in DescribeContainerInstances.
    fn json(&self) -> Value {
        let integer = |name: &str, value: u64| json!({"name": name, "type": "INTEGER", "integerValue": value, "longValue": 0, "doubleValue": 0.0});
        let set = |name: &str, texts: Vec<String>| json!({"name": name, "type": "STRINGSET", "integerValue": 0, "longValue": 0, "doubleValue": 0.0, "stringSetValue": texts});
        let ports = |ports: &BTreeSet<u16>| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut all = vec![
            integer("CPU", self.cpu),
            integer("MEMORY", self.memory),
            set("PORTS", ports(&self.tcp)),
            set("PORTS_UDP", ports(&self.udp)),
        ];
        if !self.gpus.is_empty() {
            all.push(set("GPU", self.gpus.iter().cloned().collect()));
        }
        all.into()
    }
}

/// How to end an ACS or TCS socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Disconnect {
    /// The connection is cut.
    Drop,
    /// The connection is closed properly, with this code and reason.
    Close(u16, String),
}

/// The newest ACS connection of an instance, the only one that counts.
#[derive(Debug)]
pub(super) struct AcsConnection {
    /// The running number of the connection; all instances share one count.
    pub(super) number: u64,
    /// How to end the connection; `None`: it stays open.
    pub(super) disconnect: Option<Disconnect>,
}

/// One container instance.
#[derive(Debug)]
pub struct Instance {
    /// The instance's ARN, which identifies it.
    pub arn: String,
    /// The name of its cluster.
    pub cluster: String,
    /// The EC2 instance id in the identity document of the registration; empty without a document.
    pub ec2_instance_id: String,
    /// The instance's status.
    pub status: InstanceStatus,
    /// The attributes in the registration, and those that ECS adds.
    pub attributes: Vec<Attribute>,
    /// The number of registrations, 1 after the first.
    pub registrations: u32,
    /// The agent's version, from the ACS handshake; `None` before the first one.
    pub agent_version: Option<String>,
    /// Docker's version, from the ACS handshake; `None` before the first one.
    pub docker_version: Option<String>,
    /// The client token of the last registration.
    pub(super) client_token: Option<String>,
    /// Time of the first registration, in seconds since the epoch.
    pub(super) registered_at: f64,
    /// The resources of the last registration.
    pub(super) resources: Resources,
    /// The agent's ACS connection; `None`: not connected.
    pub(super) acs_connection: Option<AcsConnection>,
    /// Messages for the agent.
    pub(super) outbox: Outbox,
}

impl Instance {
    /// The agent has an open ACS connection.
    pub fn connected(&self) -> bool {
        self.acs_connection.is_some()
    }

    /// The instance has an attribute with this name.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attributes.iter().any(|attribute| attribute.name == name)
    }

    /// Number of messages, sent or waiting, that the agent has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.outbox.unacknowledged()
    }

    /// Notes a new ACS connection, which replaces an earlier one.
    pub(super) fn connect(&mut self, number: u64) {
        self.acs_connection = Some(AcsConnection { number, disconnect: None });
        self.outbox.restart();
    }

    /// Notes the end of an ACS connection. The end of a connection that was replaced has no effect.
    pub(super) fn disconnect(&mut self, number: u64) {
        if self.acs_connection.as_ref().is_some_and(|current| current.number == number) {
            self.acs_connection = None;
        }
    }

    /// The instance as in DescribeContainerInstances.
    pub(super) fn describe(&self, held: &Need, running: usize, pending: usize, tags: &[Value]) -> Value {
        let all = &self.resources;
        // ECS lists the ports that are taken, and the GPUs that are free.
        let ports = |own: &BTreeSet<u16>, held: &BTreeSet<u16>| own.union(held).copied().collect();
        let free = Resources {
            cpu: all.cpu.saturating_sub(held.cpu),
            memory: all.memory.saturating_sub(held.memory),
            tcp: ports(&all.tcp, &held.tcp),
            udp: ports(&all.udp, &held.udp),
            gpus: all.gpus.difference(&held.gpus).cloned().collect(),
        };
        super::definition::without_nulls(json!({
            "containerInstanceArn": self.arn,
            "ec2InstanceId": self.ec2_instance_id,
            "version": self.registrations,
            "versionInfo": {"agentVersion": self.agent_version, "dockerVersion": self.docker_version},
            "registeredResources": all.json(),
            "remainingResources": free.json(),
            "status": self.status.as_str(),
            "agentConnected": self.connected(),
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "attributes": self.attributes.iter().map(Attribute::json).collect::<Vec<_>>(),
            "registeredAt": self.registered_at,
            "attachments": [],
            "tags": tags,
        }))
    }
}

/// The attributes of an instance after its registration: its own, then those that ECS adds.
pub(super) fn attributes(site: &Site, sent: &Value) -> Vec<Attribute> {
    let mut attributes: Vec<Attribute> = Vec::new();
    let sent = sent.as_array().into_iter().flatten().filter_map(|attribute| {
        let value = attribute["value"].as_str().map(str::to_owned);
        Some(Attribute { name: attribute["name"].as_str()?.to_owned(), value })
    });
    let added = [
        ("ecs.availability-zone", site.availability_zone()),
        ("ecs.instance-type", INSTANCE_TYPE.to_owned()),
        ("ecs.ami-id", IMAGE_ID.to_owned()),
        ("ecs.cpu-architecture", architecture().to_owned()),
    ]
    .map(|(name, value)| Attribute { name: name.to_owned(), value: Some(value) });
    for attribute in sent.chain(added) {
        if !attributes.iter().any(|known| known.name == attribute.name) {
            attributes.push(attribute);
        }
    }
    attributes
}

/// The CPU architecture of this machine in the words of ECS, in small letters.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { std::env::consts::ARCH }
}

#[cfg(test)]
impl Instance {
    pub(super) fn example() -> Self {
        Self {
            arn: "arn:aws:ecs:us-west-2:123456789012:container-instance/c/i".to_owned(),
            cluster: "c".to_owned(),
            ec2_instance_id: String::new(),
            status: InstanceStatus::Active,
            attributes: Vec::new(),
            registrations: 1,
            agent_version: None,
            docker_version: None,
            client_token: None,
            registered_at: 0.0,
            resources: Resources { cpu: 1024, memory: 1024, ..Resources::default() },
            acs_connection: None,
            outbox: Outbox::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_connection_counts() {
        let mut instance = Instance::example();
        instance.connect(1);
        instance.connect(2);
        instance.disconnect(1);
        assert!(instance.connected());
        instance.disconnect(2);
        assert!(!instance.connected());
    }

    #[test]
    fn the_recorded_registration_is_understood() {
        let path = format!("{}/../../tests/golden/register_container_instance.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let resources = Resources::parse(&golden["body"]["totalResources"], &golden["body"]["platformDevices"]);
        assert_eq!(resources.cpu, 2048);
        assert!(resources.memory > 0 && resources.tcp.contains(&51678), "{resources:?}");
        let attributes = attributes(&Site::example(), &golden["body"]["attributes"]);
        assert!(attributes.contains(&Attribute { name: "rack".to_owned(), value: Some("r7".to_owned()) }));
        assert!(attributes.iter().any(|attribute| attribute.name == "ecs.availability-zone"));
    }
}
