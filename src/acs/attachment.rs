//! Validates messages about attachments (spec `acs.md` §4.5, §4.6). Pure.
//!
//! Owns the rules, which are those of the Go agent; besides, an interface must have the ARN of its attachment, and its hardware
//! address must be one. A message about a volume only gets an answer: this version of the agent attaches no volumes and does not
//! advertise them, and the attachment expires in ECS. The invariant: a message that breaks a rule is not acknowledged.

use super::limits::{MAX_ID, MAX_INTERFACES};
use super::translate::interfaces;
use super::wire;
use ecs_core::model::attachment::{AttachmentKind, Device};
use ecs_core::model::interface::InvalidMac;
use ecs_core::model::text::cleaned;
use ecs_core::model::{Span, TaskArn};

/// The longest wait for a device that is noted. ECS waits for five minutes.
const MAX_WAIT: Span = Span::secs(3600);

/// A device that ECS has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// ARN of its attachment.
    pub arn: String,
    /// What is attached, and to what.
    pub kind: AttachmentKind,
    /// How it is recognized on this host.
    pub device: Device,
    /// How long ECS waits for it, from the moment of the message.
    pub wait: Span,
}

/// Checks the network interfaces of a task (`is_for_task`) or of the instance, and returns them.
pub(super) fn interfaces(
    header: &wire::Header,
    message: &wire::AttachInterfaces,
    is_for_task: bool,
) -> Result<Vec<Announced>, String> {
    let list = &message.elastic_network_interfaces;
    let checks = [
        (!header.message_id.is_empty(), "messageId is not set"),
        (!header.cluster_arn.is_empty(), "clusterArn is not set"),
        (!header.container_instance_arn.is_empty(), "containerInstanceArn is not set"),
        (!is_for_task || !message.task_arn.is_empty(), "taskArn is not set"),
        (message.task_arn.len() <= MAX_ID, "taskArn is too long"),
        (message.wait_timeout_ms > 0, "waitTimeoutMs is not above 0"),
        (!list.is_empty(), "it names no network interface"),
        (list.len() <= MAX_INTERFACES, "it names more than 16 network interfaces"),
    ];
    all(&checks)?;
    let wait = Span(message.wait_timeout_ms.unsigned_abs()).min(MAX_WAIT);
    let task = is_for_task.then(|| TaskArn::from(message.task_arn.as_str()));
    list.iter().map(|interface| announced(interface, task.clone(), wait)).collect()
}

fn announced(wire: &wire::NetworkInterface, task: Option<TaskArn>, wait: Span) -> Result<Announced, String> {
    interfaces::validate(wire)?;
    let mac = wire.mac_address.parse().map_err(|error: InvalidMac| format!("macAddress: {error}"))?;
    if !(1..=MAX_ID).contains(&wire.attachment_arn.len()) {
        return Err("attachmentArn is not set or too long".to_owned());
    }
    let kind = match task {
        Some(task) if interfaces::is_branch(wire) => AttachmentKind::BranchInterface(task),
        Some(task) => AttachmentKind::TaskInterface(task),
        None => AttachmentKind::InstanceInterface,
    };
    Ok(Announced { arn: cleaned(&wire.attachment_arn), kind, device: Device::Interface(mac), wait })
}

/// Checks an attached volume.
pub(super) fn volume(header: &wire::Header, message: &wire::ConfirmAttachment) -> Result<(), String> {
    let attachment = message.attachment.as_ref().ok_or("it names no attachment")?;
    all(&[
        (!header.message_id.is_empty(), "messageId is not set"),
        (is_arn(&header.cluster_arn), "clusterArn is not an ARN"),
        (is_arn(&header.container_instance_arn), "containerInstanceArn is not an ARN"),
        (is_arn(&attachment.attachment_arn), "attachmentArn is not an ARN"),
        (attachment.attachment_properties.iter().all(|property| !property.name.is_empty()), "a property has no name"),
        (attachment.attachment_properties.iter().all(|property| !property.value.is_empty()), "a property has no value"),
    ])?;
    // If a name occurs twice, the last value counts.
    let value = |name: &str| {
        let property = attachment.attachment_properties.iter().rfind(|property| property.name == name);
        property.map(|property| property.value.as_str())
    };
    let required: &[&str] = match (attachment.attachment_type.as_str(), value("resourceType")) {
        ("amazonebs", _) => &["volumeId", "volumeSizeGib", "deviceName", "sourceVolumeHostPath", "volumeName"],
        (_, Some("ElasticBlockStorage")) => &["volumeID", "deviceName"],
        (_, Some("EphemeralStorage")) => {
            &["volumeID", "deviceName", "volumeSizeInGiB", "requestedSizeInGiB", "resourceID"]
        }
        _ => return Err("neither its type nor its resourceType is known".to_owned()),
    };
    if let Some(missing) = required.iter().find(|name| value(name).is_none()) {
        return Err(format!("the property {missing} is missing"));
    }
    let is_ebs = attachment.attachment_type == "amazonebs";
    let is_known = matches!(value("fileSystem"), None | Some("xfs" | "ext2" | "ext3" | "ext4" | "ntfs"));
    all(&[(!is_ebs || is_known, "its fileSystem is unknown")])
}

/// `arn:partition:service:region:account:resource`; every part but the first may be empty.
fn is_arn(text: &str) -> bool {
    text.starts_with("arn:") && text.splitn(6, ':').count() == 6
}

/// The text of the first check that does not hold, as the error.
fn all(checks: &[(bool, &str)]) -> Result<(), String> {
    match checks.iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err((*broken).to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::json::Raw;
    use serde_json::{Value, json};

    fn header() -> Value {
        json!({"messageId": "m", "clusterArn": "arn:aws:ecs:us-west-2:1:cluster/c", "containerInstanceArn": "arn:aws:ecs:::i"})
    }

    fn eni() -> Value {
        json!({
            "attachmentArn": "arn:aws:ecs:r:1:attachment/a", "macAddress": "02:00:00:00:00:07", "ec2Id": "eni-1", "ipv4Addresses": [{"privateAddress": "10.0.0.2", "primary": true}],
            "subnetGatewayIpv4Address": "10.0.0.1/24",
        })
    }

    fn checked(message: &Value, is_for_task: bool) -> Result<Vec<Announced>, String> {
        let text = message.to_string();
        let header = wire::Header::read(Raw::new(&text)).unwrap();
        super::interfaces(&header, &wire::decode(Raw::new(&text)).unwrap(), is_for_task)
    }

    fn attach(change: impl FnOnce(&mut Value, &mut Value)) -> Result<Vec<Announced>, String> {
        let (mut header, mut interface) = (header(), eni());
        header["taskArn"] = json!("t");
        header["waitTimeoutMs"] = json!(1000);
        change(&mut header, &mut interface);
        header["elasticNetworkInterfaces"] = json!([eni(), interface]);
        checked(&header, true)
    }

    #[test]
    fn a_network_interface_is_complete_or_refused() {
        assert_eq!(attach(|_, _| ()).map(|list| list.len()), Ok(2));
        for name in ["messageId", "clusterArn", "containerInstanceArn", "taskArn"] {
            assert_eq!(attach(|message, _| message[name] = json!("")), Err(format!("{name} is not set")));
        }
        for wait in [0, -1] {
            assert!(attach(|message, _| message["waitTimeoutMs"] = json!(wait)).is_err());
        }
        let wait_for = |millis: i64| attach(|message, _| message["waitTimeoutMs"] = json!(millis)).unwrap()[0].wait;
        assert_eq!([300_000, 3_600_001, i64::MAX].map(wait_for), [Span(300_000), MAX_WAIT, MAX_WAIT]);
        type Case = (&'static str, Value, bool);
        let table: [Case; 14] = [
            ("attachmentArn", json!(""), false),
            ("macAddress", json!(""), false),
            ("macAddress", json!("02:00"), false),
            ("ec2Id", json!(""), false),
            ("ipv4Addresses", json!([]), false),
            ("subnetGatewayIpv4Address", json!(""), false),
            ("subnetGatewayIpv4Address", json!("10.0.0.1"), false),
            ("subnetGatewayIpv4Address", json!("10.0.0.1/24/24"), false),
            ("ipv6Addresses", json!([{"address": "fd00::2"}]), true), // both families: the IPv6 gateway is not checked
            ("interfaceAssociationProtocol", json!("default"), true),
            ("interfaceAssociationProtocol", json!("tunnel"), false),
            ("interfaceAssociationProtocol", json!("veth"), false),
            ("interfaceAssociationProtocol", json!("vlan"), false),
            ("index", json!("whatever"), true),
        ];
        for (name, value, is_valid) in table {
            assert_eq!(attach(|_, eni| eni[name] = value.clone()).is_ok(), is_valid, "{name} {value}");
        }
        let vlan = |id: &str, trunk: &str| {
            attach(|_, eni| {
                eni["interfaceAssociationProtocol"] = json!("vlan");
                eni["interfaceVlanProperties"] = json!({"vlanId": id, "trunkInterfaceMacAddress": trunk});
            })
        };
        assert!(vlan("7", "02:01").is_ok() && vlan("", "02:01").is_err() && vlan("7", "").is_err());
        let ipv6 = |gateway: &str| {
            attach(|_, eni| {
                eni["ipv4Addresses"] = json!([]);
                eni["ipv6Addresses"] = json!([{"address": "fd00::2"}]);
                eni["subnetGatewayIpv6Address"] = json!(gateway);
            })
        };
        assert!(ipv6("fd00::1/64").is_ok() && ipv6("").is_err() && ipv6("fd00::1").is_err());
    }

    #[test]
    fn every_recorded_announcement_is_understood() {
        let golden = |name: &str| -> Value {
            let path = format!("{}/tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let sent = golden("attach_message")["sent"]["message"].clone();
        let [interface] = &checked(&sent, true).unwrap()[..] else { panic!("one interface") };
        assert_eq!(Value::from(interface.arn.as_str()), sent["elasticNetworkInterfaces"][0]["attachmentArn"]);
        assert_eq!(interface.kind.task().map(|task| json!(task.as_str())), Some(sent["taskArn"].clone()));
        assert_eq!(interface.device, Device::Interface("06:00:00:00:01:01".parse().unwrap()));
        assert_eq!(json!(interface.wait.0), sent["waitTimeoutMs"]);
        let attachments = golden("attachments");
        let trunk = checked(&attachments["trunk"]["message"]["message"], false).unwrap().remove(0);
        assert_eq!((trunk.kind.task(), trunk.wait), (None, Span(300_000)));
        let mut branch = sent;
        branch["elasticNetworkInterfaces"] = golden("branch_eni")["interfaces"].clone();
        let branch = checked(&branch, true).unwrap().remove(0);
        assert!(matches!(branch.kind, AttachmentKind::BranchInterface(_)), "{branch:?}");
    }

    #[test]
    fn an_instance_needs_no_task_and_a_message_one_interface() {
        let mut message = header();
        message["waitTimeoutMs"] = json!(1);
        message["elasticNetworkInterfaces"] = json!([eni()]);
        let check = |message: &Value| checked(message, false);
        assert_eq!(check(&message).map(|list| list[0].kind.clone()), Ok(AttachmentKind::InstanceInterface));
        message["elasticNetworkInterfaces"] = json!(vec![eni(); MAX_INTERFACES + 1]);
        assert_eq!(check(&message), Err("it names more than 16 network interfaces".to_owned()));
        message["elasticNetworkInterfaces"] = json!([]);
        assert_eq!(check(&message), Err("it names no network interface".to_owned()));
    }

    fn confirm(kind: &str, properties: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let properties: Vec<_> = properties.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut message = header();
        message["attachment"] = json!({"attachmentArn": "arn:aws:ecs:r:1:attachment/a", "attachmentType": kind, "attachmentProperties": properties});
        change(&mut message);
        let text = message.to_string();
        volume(&wire::Header::read(Raw::new(&text)).unwrap(), &wire::decode(Raw::new(&text)).unwrap())
    }

    #[test]
    fn a_volume_is_complete_or_refused() {
        let ebs = [
            ("volumeId", "vol-1"),
            ("volumeSizeGib", "7"),
            ("deviceName", "/dev/x"),
            ("sourceVolumeHostPath", "p"),
            ("volumeName", "n"),
        ];
        let old = [("resourceType", "ElasticBlockStorage"), ("volumeID", "v"), ("deviceName", "d")];
        let ephemeral = [
            ("resourceType", "EphemeralStorage"),
            ("volumeID", "v"),
            ("deviceName", "d"),
            ("volumeSizeInGiB", "1"),
            ("requestedSizeInGiB", "1"),
            ("resourceID", "r"),
        ];
        for (kind, all) in [("amazonebs", ebs.as_slice()), ("", &old), ("other", &ephemeral)] {
            assert_eq!(confirm(kind, all, |_| ()), Ok(()), "{kind}");
            for at in 0..all.len() {
                let mut less = all.to_vec();
                let (name, _) = less.remove(at);
                assert!(confirm(kind, &less, |_| ()).is_err(), "{kind} without {name}");
                less.push((name, ""));
                assert!(confirm(kind, &less, |_| ()).is_err(), "{kind} with empty {name}");
            }
        }
        for (file_system, is_valid) in [("xfs", true), ("ext4", true), ("ntfs", true), ("zfs", false)] {
            let mut all = ebs.to_vec();
            all.push(("fileSystem", file_system));
            assert_eq!(confirm("amazonebs", &all, |_| ()).is_ok(), is_valid, "{file_system}");
        }
        for name in ["messageId", "clusterArn", "containerInstanceArn"] {
            assert!(confirm("amazonebs", &ebs, |message| message[name] = json!("")).is_err(), "{name}");
        }
        assert!(confirm("amazonebs", &ebs, |message| message["clusterArn"] = json!("judge")).is_err());
        assert!(confirm("amazonebs", &ebs, |message| message["attachment"]["attachmentArn"] = json!("arn:x")).is_err());
        assert!(
            confirm("amazonebs", &ebs, |message| drop(message.as_object_mut().unwrap().remove("attachment"))).is_err()
        );
        assert!(confirm("amazonebs", &[&ebs[..], &[("", "x")]].concat(), |_| ()).is_err());
        // `waitTimeoutMs` matters only for network interfaces.
        assert!(confirm("amazonebs", &ebs, |message| message["waitTimeoutMs"] = json!(0)).is_ok());
    }
}
