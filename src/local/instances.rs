//! Container instances: what they registered, whether their agent is connected, what waits for them. It owns one instance;
//! who is placed on it is [`super::placement`]'s part. Invariant: at most one ACS session of an instance counts, the newest.

use super::ec2::{IMAGE_ID, INSTANCE_TYPE};
use super::need::Need;
use super::outbox::Outbox;
use super::site::Site;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Status of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceStatus {
    /// Takes tasks.
    Active,
    /// Keeps its tasks, takes no new ones.
    Draining,
    /// Deregistered.
    Inactive,
}

impl InstanceStatus {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// Something an instance said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Name.
    pub name: String,
    /// Value; capabilities have none.
    pub value: Option<String>,
}

impl Attribute {
    fn json(&self) -> Value {
        super::definition::without_nulls(json!({"name": self.name, "value": self.value}))
    }
}

/// What an instance has to give.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    /// CPU units.
    pub(super) cpu: u64,
    /// MiB.
    pub(super) memory: u64,
    /// Ports it keeps for itself.
    pub(super) tcp: BTreeSet<u16>,
    /// Ports it keeps for itself.
    pub(super) udp: BTreeSet<u16>,
    /// Ids of its GPUs.
    pub(super) gpus: BTreeSet<String>,
}

impl Resources {
    /// From `totalResources` of RegisterContainerInstance.
    pub(super) fn parse(total: &Value) -> Self {
        let find = |name: &str| total.as_array().into_iter().flatten().find(|resource| resource["name"] == name);
        let number = |name: &str| find(name).and_then(|resource| resource["integerValue"].as_u64()).unwrap_or(0);
        let texts = |name: &str| {
            let texts = find(name).and_then(|resource| resource["stringSetValue"].as_array()).into_iter().flatten();
            texts.filter_map(Value::as_str)
        };
        let ports = |name: &str| texts(name).filter_map(|text| text.parse().ok()).collect();
        let gpus = texts("GPU").map(str::to_owned).collect();
        Self { cpu: number("CPU"), memory: number("MEMORY"), tcp: ports("PORTS"), udp: ports("PORTS_UDP"), gpus }
    }

    fn json(cpu: u64, memory: u64, tcp: &BTreeSet<u16>, udp: &BTreeSet<u16>) -> Value {
        let integer = |name: &str, value: u64| json!({"name": name, "type": "INTEGER", "integerValue": value, "longValue": 0, "doubleValue": 0.0});
        let set = |name: &str, ports: &BTreeSet<u16>| {
            let texts: Vec<_> = ports.iter().map(ToString::to_string).collect();
            json!({"name": name, "type": "STRINGSET", "integerValue": 0, "longValue": 0, "doubleValue": 0.0, "stringSetValue": texts})
        };
        json!([integer("CPU", cpu), integer("MEMORY", memory), set("PORTS", tcp), set("PORTS_UDP", udp)])
    }
}

/// How an ACS or TCS socket is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// Cut the connection.
    Drop,
    /// Close it properly, with this code and reason.
    Close(u16, String),
}

/// The ACS connection that counts.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) kick: Option<Kick>,
}

/// One container instance.
#[derive(Debug)]
pub struct Instance {
    /// Identity.
    pub arn: String,
    /// Cluster name.
    pub cluster: String,
    /// From the identity document it sent; empty without one.
    pub ec2_instance_id: String,
    /// Status.
    pub status: InstanceStatus,
    /// Attributes, as registered and as ECS adds them.
    pub attributes: Vec<Attribute>,
    /// How often it registered: 1 after the first time.
    pub registrations: u32,
    /// Agent version, from the ACS connection.
    pub agent_version: Option<String>,
    /// Docker version, from the ACS connection.
    pub docker_version: Option<String>,
    pub(super) client_token: Option<String>,
    pub(super) registered_at: f64,
    pub(super) resources: Resources,
    pub(super) session: Option<Session>,
    pub(super) outbox: Outbox,
}

impl Instance {
    /// The agent's ACS connection is up.
    pub fn connected(&self) -> bool {
        self.session.is_some()
    }

    /// It has an attribute of that name.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attributes.iter().any(|attribute| attribute.name == name)
    }

    /// Payloads sent or waiting that the agent has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.outbox.unacknowledged()
    }

    /// A new ACS connection takes over.
    pub(super) fn connect(&mut self, session: u64) {
        self.session = Some(Session { number: session, kick: None });
        self.outbox.restart();
    }

    /// That ACS connection ended. An older one than the current ends without effect.
    pub(super) fn disconnect(&mut self, session: u64) {
        if self.session.as_ref().is_some_and(|current| current.number == session) {
            self.session = None;
        }
    }

    /// The instance as DescribeContainerInstances shows it.
    pub(super) fn describe(&self, held: &Need, running: usize, pending: usize, tags: &[Value]) -> Value {
        let free = &self.resources;
        let ports = |own: &BTreeSet<u16>, held: &BTreeSet<u16>| own.union(held).copied().collect::<BTreeSet<_>>();
        let (tcp, udp) = (ports(&free.tcp, &held.tcp), ports(&free.udp, &held.udp));
        super::definition::without_nulls(json!({
            "containerInstanceArn": self.arn,
            "ec2InstanceId": self.ec2_instance_id,
            "version": self.registrations,
            "versionInfo": {"agentVersion": self.agent_version, "dockerVersion": self.docker_version},
            "registeredResources": Resources::json(free.cpu, free.memory, &free.tcp, &free.udp),
            "remainingResources":
                Resources::json(free.cpu.saturating_sub(held.cpu), free.memory.saturating_sub(held.memory), &tcp, &udp),
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

/// The attributes an instance has after registering: its own, then what ECS adds.
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
        ("ecs.cpu-architecture", std::env::consts::ARCH.to_owned()),
    ]
    .map(|(name, value)| Attribute { name: name.to_owned(), value: Some(value) });
    for attribute in sent.chain(added) {
        if !attributes.iter().any(|known| known.name == attribute.name) {
            attributes.push(attribute);
        }
    }
    attributes
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
            session: None,
            outbox: Outbox::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_session_counts() {
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
        let path = format!("{}/tests/golden/register_container_instance.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let resources = Resources::parse(&golden["body"]["totalResources"]);
        assert_eq!(resources.cpu, 2048);
        assert!(resources.memory > 0 && resources.tcp.contains(&51678), "{resources:?}");
        let attributes = attributes(&Site::example(), &golden["body"]["attributes"]);
        assert!(attributes.contains(&Attribute { name: "rack".to_owned(), value: Some("r7".to_owned()) }));
        assert!(attributes.iter().any(|attribute| attribute.name == "ecs.availability-zone"));
    }
}
