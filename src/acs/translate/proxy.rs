//! `proxyConfiguration`: the redirection of a task's connections through its proxy container (spec `networking.md` §10).
//!
//! Owns the checks of its properties: those of the Go agent, and those of the plugin that it runs, which are found here before
//! anything starts. Unlike them, white space around a port is ignored, and a port has at most 16 bits. The container's name has no
//! effect, as in the Go agent with its own pause image. Invariant: the addresses of task metadata and of instance metadata are
//! always reached directly.

use super::reason::TaskError;
use crate::acs::limits::MAX_PROXY_ENTRIES;
use crate::acs::wire;
use crate::input::prefix::prefix;
use ecs_core::model::text::cleaned;
use ecs_core::model::{Prefix, ProxyRules};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The only type of a proxy.
const APP_MESH: &str = "APPMESH";
/// Task metadata and instance metadata.
const ALWAYS_DIRECT: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 170, 2), Ipv4Addr::new(169, 254, 169, 254)];

/// Translates the configuration of a proxy.
pub(super) fn rules(wire: &wire::ProxyConfiguration) -> Result<ProxyRules, TaskError> {
    if wire.kind != APP_MESH {
        return Err(TaskError::Malformed("agent does not support proxy type other than app mesh".to_owned()));
    }
    let rules = ProxyRules {
        ignored_uid: number(wire, "IgnoredUID")?,
        ignored_gid: number(wire, "IgnoredGID")?,
        ingress_port: port(wire, "ProxyIngressPort")?,
        egress_port: port(wire, "ProxyEgressPort")?.ok_or_else(|| unfit("ProxyEgressPort is not set"))?,
        app_ports: ports(wire, "AppPorts")?,
        ignored_ports: ports(wire, "EgressIgnoredPorts")?,
        ignored_networks: networks(wire, "EgressIgnoredIPs")?,
    };
    if rules.ignored_uid.is_none() && rules.ignored_gid.is_none() {
        return Err(unfit("neither IgnoredUID nor IgnoredGID is set"));
    }
    match (rules.ingress_port, rules.app_ports.is_empty()) {
        (None, false) => Err(unfit("ProxyIngressPort is not set, and AppPorts is")),
        (Some(_), true) => Err(unfit("AppPorts is not set, and ProxyIngressPort is")),
        _ => Ok(rules),
    }
}

/// The value of a property; empty if it is missing.
fn property<'a>(wire: &'a wire::ProxyConfiguration, name: &str) -> &'a str {
    wire.properties.get(name).map(|value| value.trim()).unwrap_or_default()
}

fn number<N: FromStr>(wire: &wire::ProxyConfiguration, name: &str) -> Result<Option<N>, TaskError> {
    match property(wire, name) {
        "" => Ok(None),
        text => parsed(text, name, "a number").map(Some),
    }
}

fn port(wire: &wire::ProxyConfiguration, name: &str) -> Result<Option<u16>, TaskError> {
    match property(wire, name) {
        "" => Ok(None),
        text => read_port(text, name).map(Some),
    }
}

fn ports(wire: &wire::ProxyConfiguration, name: &str) -> Result<Vec<u16>, TaskError> {
    entries(wire, name)?.into_iter().map(|text| read_port(text, name)).collect()
}

fn networks(wire: &wire::ProxyConfiguration, name: &str) -> Result<Vec<Prefix<IpAddr>>, TaskError> {
    let read = |text: &str| {
        let whole = |address: IpAddr| Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } };
        let network = text.parse().ok().map(whole).or_else(|| prefix(text));
        network.ok_or_else(|| not_a(text, name, "an address or a network"))
    };
    let mut networks: Vec<Prefix<IpAddr>> = entries(wire, name)?.into_iter().map(read).collect::<Result<_, _>>()?;
    for address in ALWAYS_DIRECT {
        let network = Prefix { address: address.into(), length: 32 };
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// The entries of a list; commas separate them.
fn entries<'a>(wire: &'a wire::ProxyConfiguration, name: &str) -> Result<Vec<&'a str>, TaskError> {
    let text = property(wire, name);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<&str> = text.split(',').take(MAX_PROXY_ENTRIES + 1).map(str::trim).collect();
    match entries.len() {
        0..=MAX_PROXY_ENTRIES => Ok(entries),
        _ => Err(unfit(&format!("{name} has more than {MAX_PROXY_ENTRIES} entries"))),
    }
}

fn read_port(text: &str, name: &str) -> Result<u16, TaskError> {
    let port: u16 = parsed(text, name, "a port")?;
    if port == 0 { Err(not_a(text, name, "a port")) } else { Ok(port) }
}

fn parsed<N: FromStr>(text: &str, name: &str, what: &str) -> Result<N, TaskError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| not_a(text, name, what))
}

fn not_a(text: &str, name: &str, what: &str) -> TaskError {
    unfit(&format!("{name}: {} is not {what}", cleaned(text)))
}

/// A check that the Go agent leaves to its plugin.
fn unfit(cause: &str) -> TaskError {
    TaskError::Unfit(format!("proxyConfiguration: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::json::Raw;
    use serde_json::{Map, Value, json};

    fn read(kind: &str, properties: &[(&str, &str)]) -> Result<ProxyRules, (String, bool)> {
        let properties: Map<String, Value> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let task = json!({"proxyConfiguration": {"type": kind, "containerName": "envoy", "properties": properties}});
        let text = task.to_string();
        let task: wire::Task = wire::decode(Raw::new(&text)).unwrap();
        rules(&task.proxy_configuration.unwrap()).map_err(|error| error.reason_for("arn"))
    }

    /// What the Go agent gives its plugin for the recorded task.
    #[test]
    fn the_recorded_proxy_has_the_recorded_rules() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/app_mesh.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let calls = golden["plugin_calls"].as_array().unwrap();
        let call = calls.iter().find(|call| call["plugin"] == "aws-appmesh").unwrap();
        let given = &call["stdin"];
        let rules = read(
            "APPMESH",
            &[
                ("IgnoredUID", "1337"),
                ("ProxyIngressPort", "15000"),
                ("ProxyEgressPort", "15001"),
                ("AppPorts", "8080,8081"),
                ("EgressIgnoredPorts", "22"),
            ],
        )
        .unwrap();
        let text = |number: &dyn ToString| json!(number.to_string());
        let list = |ports: &[u16]| json!(ports.iter().map(u16::to_string).collect::<Vec<_>>());
        assert_eq!(text(&rules.ignored_uid.unwrap()), given["ignoredUID"]);
        assert_eq!((rules.ignored_gid, given.get("ignoredGID")), (None, None));
        assert_eq!(text(&rules.ingress_port.unwrap()), given["proxyIngressPort"]);
        assert_eq!(text(&rules.egress_port), given["proxyEgressPort"]);
        assert_eq!(
            (list(&rules.app_ports), list(&rules.ignored_ports)),
            (given["appPorts"].clone(), given["egressIgnoredPorts"].clone())
        );
        let ignored: Vec<_> = rules.ignored_networks.iter().map(|network| network.address.to_string()).collect();
        assert_eq!(json!(ignored), given["egressIgnoredIPs"]);
        assert!(rules.ignored_networks.iter().all(|network| network.length == 32));
    }

    #[test]
    fn lists_may_have_spaces_networks_and_ipv6() {
        let list = " 169.254.169.254 ,10.0.0.0/8, fd00::1";
        let rules =
            read("APPMESH", &[("IgnoredGID", " 7 "), ("ProxyEgressPort", "1"), ("EgressIgnoredIPs", list)]).unwrap();
        let networks: Vec<_> = rules.ignored_networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["169.254.169.254/32", "10.0.0.0/8", "fd00::1/128", "169.254.170.2/32"]);
        assert_eq!((rules.ignored_gid, rules.ingress_port, rules.egress_port), (Some(7), None, 1));
        assert!(rules.app_ports.is_empty());
    }

    #[test]
    fn a_wrong_property_is_named() {
        let table: [(&[(&str, &str)], &str); 9] = [
            (&[("ProxyEgressPort", "")], "ProxyEgressPort is not set"),
            (&[("IgnoredUID", "")], "neither IgnoredUID nor IgnoredGID is set"),
            (&[("IgnoredUID", "envoy")], "IgnoredUID: envoy is not a number"),
            (&[("ProxyEgressPort", "0")], "ProxyEgressPort: 0 is not a port"),
            (&[("ProxyEgressPort", "65536")], "ProxyEgressPort: 65536 is not a port"),
            (&[("AppPorts", "80,")], "AppPorts:  is not a port"),
            (&[("AppPorts", "80")], "ProxyIngressPort is not set, and AppPorts is"),
            (&[("ProxyIngressPort", "80")], "AppPorts is not set, and ProxyIngressPort is"),
            (&[("EgressIgnoredIPs", "10.0.0.0/33")], "EgressIgnoredIPs: 10.0.0.0/33 is not an address or a network"),
        ];
        for (change, cause) in table {
            let mut properties = vec![("IgnoredUID", "1337"), ("ProxyEgressPort", "15001")];
            properties.retain(|(name, _)| change.iter().all(|(changed, _)| changed != name));
            properties.extend(change);
            let expected = format!("UnrecogniedTaskError: Error loading task - proxyConfiguration: {cause}");
            assert_eq!(read("APPMESH", &properties).unwrap_err(), (expected, false));
        }
        let many = vec!["1"; MAX_PROXY_ENTRIES + 1].join(",");
        let properties = [("IgnoredUID", "1"), ("ProxyEgressPort", "1"), ("EgressIgnoredPorts", many.as_str())];
        assert!(read("APPMESH", &properties).unwrap_err().0.contains("has more than 100 entries"));
        let (reason, is_malformed) = read("ENVOY", &[]).unwrap_err();
        assert!(reason.ends_with("agent does not support proxy type other than app mesh") && is_malformed);
    }
}
