//! The network interfaces of tasks in network mode `awsvpc`, as EC2 would make them. This module owns their ids and addresses, what the
//! agent is sent about them, and what DescribeTasks shows; `links` makes them. Invariant: a task is sent to the agent only after the
//! agent has reported that its interface is there, and no two living tasks have the same address.

use super::definition::without_nulls;
use super::ids::new_id;
use super::site::Site;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The network of all subnets. RFC 2544 keeps it for tests of networks, so that it is in use hardly anywhere.
pub(super) const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 16);
/// The gateway of all subnets: this host.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The first addresses of a subnet are AWS's own.
const FIRST: u16 = 4;
/// How long ECS waits for an interface, in seconds.
pub(super) const WAIT: u32 = 300;

/// The progress of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InterfaceStatus {
    /// It is being made.
    Precreated,
    /// It exists, and the agent has not reported it.
    Attaching,
    /// The agent has reported it.
    Attached,
    /// Its task has stopped, or it could not be made.
    Deleted,
}

/// The interface of one task.
#[derive(Clone, Debug)]
pub(super) struct TaskInterface {
    attachment_id: String,
    eni_id: String,
    /// The subnet that the call named.
    subnet_id: String,
    pub(super) link: Link,
    pub(super) status: InterfaceStatus,
}

/// What there is of an interface on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The hardware address.
    pub(super) mac: [u8; 6],
    /// The address.
    pub(super) address: Ipv4Addr,
}

/// Work on the link of one task.
#[derive(Debug)]
pub(super) enum Work {
    /// The task with this ARN needs its link.
    Make(String, Link),
    /// The link is not needed any more.
    Remove(Link),
}

impl InterfaceStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Precreated => "PRECREATED",
            Self::Attaching => "ATTACHING",
            Self::Attached => "ATTACHED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Link {
    /// A link with a random hardware address, and with an address for which `is_free` holds; `None`: none was found.
    fn new(mut is_free: impl FnMut(Ipv4Addr) -> bool) -> Option<Self> {
        (0..1000).find_map(|_| {
            let [a, b, c, d, e, high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
            let host = u16::from_be_bytes([high, low]);
            let address = Ipv4Addr::from(u32::from(NETWORK.0) | u32::from(host));
            let is_usable = (FIRST..u16::MAX).contains(&host) && is_free(address);
            is_usable.then_some(Self { mac: [0x0a, a, b, c, d, e], address })
        })
    }

    /// The hardware address in words.
    fn mac_text(&self) -> String {
        let bytes: Vec<String> = self.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(":")
    }
}

impl TaskInterface {
    /// A new interface in this subnet; `None`: no address is free.
    pub(super) fn new(subnet_id: &str, is_free: impl FnMut(Ipv4Addr) -> bool) -> Option<Self> {
        let eni_id = format!("eni-{}", new_id().get(..17).unwrap_or_default());
        let attachment_id = uuid::Uuid::new_v4().to_string();
        let (subnet_id, status) = (subnet_id.to_owned(), InterfaceStatus::Precreated);
        Some(Self { attachment_id, eni_id, subnet_id, link: Link::new(is_free)?, status })
    }

    /// The ARN of its attachment.
    pub(super) fn attachment_arn(&self, site: &Site) -> String {
        site.arn(&format!("attachment/{}", self.attachment_id))
    }

    fn private_dns_name(&self, site: &Site) -> String {
        let [a, b, c, d] = self.link.address.octets();
        format!("ip-{a}-{b}-{c}-{d}.{}.compute.internal", site.region)
    }

    /// The interface in messages to the agent (spec `acs.md` §6.5).
    pub(super) fn sent(&self, site: &Site, name_servers: &[String]) -> Value {
        json!({
            "attachmentArn": self.attachment_arn(site),
            "ec2Id": self.eni_id,
            "index": 0,
            "macAddress": self.link.mac_text(),
            "privateDnsName": self.private_dns_name(site),
            "domainNameServers": name_servers,
            "domainName": [format!("{}.compute.internal", site.region)],
            "ipv4Addresses": [{"primary": true, "privateAddress": self.link.address.to_string()}],
            "subnetGatewayIpv4Address": format!("{GATEWAY}/{}", NETWORK.1),
        })
    }

    /// The interface among the attachments of a task in DescribeTasks.
    pub(super) fn describe(&self, site: &Site) -> Value {
        let detail = |name: &str, value: String| json!({"name": name, "value": value});
        let details = [
            detail("subnetId", self.subnet_id.clone()),
            detail("networkInterfaceId", self.eni_id.clone()),
            detail("macAddress", self.link.mac_text()),
            detail("privateDnsName", self.private_dns_name(site)),
            detail("privateIPv4Address", self.link.address.to_string()),
        ];
        json!({
            "id": self.attachment_id,
            "type": "ElasticNetworkInterface",
            "status": self.status.as_str(),
            "details": details,
        })
    }

    /// The interface as a container of the task shows it.
    pub(super) fn for_container(&self) -> Value {
        json!({"attachmentId": self.attachment_id, "privateIpv4Address": self.link.address.to_string()})
    }
}

/// The message that announces the interface of a task to the agent.
pub(super) fn announcement(site: &Site, addressed: Value, task: &str, cluster: &str, interface: &Value) -> Value {
    let mut message = addressed;
    message["taskArn"] = json!(task);
    message["taskClusterArn"] = json!(site.arn(&format!("cluster/{cluster}")));
    message["waitTimeoutMs"] = json!(u64::from(WAIT) * 1000);
    message["elasticNetworkInterfaces"] = json!([interface]);
    without_nulls(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_task_has_an_address_of_its_own() {
        let mut taken = BTreeSet::new();
        for _ in 0..200 {
            let interface = TaskInterface::new("subnet-1", |address| !taken.contains(&address)).unwrap();
            let address = interface.link.address;
            assert!(u32::from(address) >> 16 == u32::from(NETWORK.0) >> 16 && address.octets() != GATEWAY.octets());
            assert_eq!(interface.link.mac[0] & 3, 2, "it is no group, and nobody's own");
            assert!(taken.insert(address));
        }
        assert!(TaskInterface::new("subnet-1", |_| false).is_none());
    }

    #[test]
    fn the_agent_is_sent_what_was_recorded_of_aws() {
        let golden = |name: &str| -> Value {
            let path = format!("{}/../../tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let site = Site::example();
        let interface = TaskInterface::new("subnet-1", |_| true).unwrap();
        let sent = interface.sent(&site, &["10.0.0.2".to_owned()]);
        let recorded = golden("attach_message")["sent"]["message"].clone();
        assert_eq!(names(&sent), names(&recorded["elasticNetworkInterfaces"][0]));
        let addressed = json!({"clusterArn": "c", "containerInstanceArn": "i", "messageId": "m", "generatedAt": 1});
        let message = announcement(&site, addressed, "task", "default", &sent);
        assert_eq!(names(&message), names(&recorded));
        let described = interface.describe(&site);
        assert_eq!(
            (&described["type"], &described["status"]),
            (&json!("ElasticNetworkInterface"), &json!("PRECREATED"))
        );
        assert_eq!(described["details"][0], json!({"name": "subnetId", "value": "subnet-1"}));
    }
}
