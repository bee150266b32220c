//! The network namespace of a container of a task with interfaces of its own (spec `docker-mapping.md` §4).
//!
//! The pause container has the task's namespace, and with it the name servers, the host name and the hosts file of the task; its
//! first interface determines them. The other containers join that namespace, so Docker refuses such settings for them: they are
//! left out, even if the payload has them. (The Go agent passes published ports on, and the container cannot be created.)

use ecs_core::model::{ContainerNetwork, CreateRequest, Interface};
use serde_json::{Map, Value};

/// Docker turns IPv6 off in the namespace of a container without a network.
const IPV6_OFF: &str = "net.ipv6.conf.all.disable_ipv6";
/// Settings of `HostConfig` that Docker refuses for a container that joins another one's namespace.
const NOT_JOINED: [&str; 7] =
    ["Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "Links", "PortBindings", "PublishAllPorts"];
/// The same for the other settings.
const NOT_JOINED_CONFIG: [&str; 4] = ["Domainname", "ExposedPorts", "Hostname", "MacAddress"];

/// Sets the members of `HostConfig`, after the payload's own settings.
pub(super) fn apply_to_host(host: &mut Map<String, Value>, request: &CreateRequest) {
    match &request.network {
        ContainerNetwork::Configured => {}
        ContainerNetwork::Own(interfaces) => {
            host.insert("NetworkMode".to_owned(), Value::from("none"));
            let primary = interfaces.first();
            let list = |texts: &[String]| Value::from(texts.to_vec());
            host.insert("Dns".to_owned(), list(primary.map_or(&[], |primary| &primary.name_servers)));
            host.insert("DnsSearch".to_owned(), list(primary.map_or(&[], |primary| &primary.search_domains)));
            host.insert("ExtraHosts".to_owned(), list(&primary.map(hosts).unwrap_or_default()));
            if interfaces.iter().any(|interface| !interface.ipv6.is_empty()) {
                host.insert(
                    "Sysctls".to_owned(),
                    Value::from(Map::from_iter([(IPV6_OFF.to_owned(), Value::from("0"))])),
                );
            }
        }
        ContainerNetwork::Joined(pause) => {
            host.retain(|name, _| !NOT_JOINED.contains(&name.as_str()));
            host.insert("NetworkMode".to_owned(), Value::from(format!("container:{}", pause.as_str())));
        }
    }
}

/// Sets the members outside of `HostConfig`, after the payload's own settings.
pub(super) fn apply_to_config(config: &mut Map<String, Value>, request: &CreateRequest) {
    match &request.network {
        ContainerNetwork::Configured => {}
        ContainerNetwork::Own(interfaces) => {
            if let Some(name) = interfaces.first().map(|primary| &primary.private_dns_name).filter(|it| !it.is_empty())
            {
                config.insert("Hostname".to_owned(), Value::from(name.as_str()));
            }
        }
        ContainerNetwork::Joined(_) => config.retain(|name, _| !NOT_JOINED_CONFIG.contains(&name.as_str())),
    }
}

/// The lines of the hosts file for the interface's own name: with its IPv4 addresses, or without any with its IPv6 addresses.
fn hosts(interface: &Interface) -> Vec<String> {
    let name = &interface.private_dns_name;
    if name.is_empty() {
        return Vec::new();
    }
    if interface.is_ipv6_only() {
        return interface.ipv6.iter().map(|address| format!("{name}:{address}")).collect();
    }
    interface.ipv4.iter().map(|address| format!("{name}:{address}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, web};
    use super::super::{CreateContext, LABEL_TASK, body};
    use ecs_core::model::task::{NETWORK_PAUSE_NAME, PAUSE_IMAGE};
    use ecs_core::model::{ContainerKind, ContainerNetwork, ContainerSpec, CreateRequest, Interface, SecretValues};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn golden(name: &str) -> Value {
        let path = format!("{}/tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn created(request: &CreateRequest, context: &CreateContext<'_>) -> Value {
        serde_json::to_value(body(request, &SecretValues::default(), context).unwrap()).unwrap()
    }

    /// The interface of the recordings.
    fn interface() -> Interface {
        Interface {
            mac: "06:00:00:00:01:01".parse().unwrap(),
            ipv4: vec!["10.0.1.100".parse().unwrap()],
            name_servers: vec!["10.0.0.2".to_owned()],
            search_domains: vec!["us-west-2.compute.internal".to_owned()],
            private_dns_name: "ip-10-0-1-100.us-west-2.compute.internal".to_owned(),
            ..Interface::default()
        }
    }

    fn pause(interfaces: Vec<Interface>) -> CreateRequest {
        let spec = ContainerSpec {
            name: NETWORK_PAUSE_NAME.into(),
            kind: ContainerKind::Pause,
            image: PAUSE_IMAGE.to_owned(),
            ..ContainerSpec::default()
        };
        CreateRequest { spec, network: ContainerNetwork::Own(interfaces), ..web() }
    }

    #[test]
    fn the_pause_container_equals_that_of_the_go_agent() {
        let ipv6 = || vec!["fd00:1::100".parse().unwrap()];
        let second = Interface { private_dns_name: "other".to_owned(), ..interface() };
        let dual_stack = Interface { ipv6: ipv6(), ..interface() };
        let table = [
            (golden("docker_inspect_pause"), vec![interface(), second]),
            (golden("dual_stack")["pause"].clone(), vec![dual_stack]),
            (golden("ipv6_only")["pause"].clone(), vec![Interface { ipv4: Vec::new(), ipv6: ipv6(), ..interface() }]),
        ];
        for (golden, interfaces) in table {
            let mut request = pause(interfaces.clone());
            request.task = golden["Config"]["Labels"][LABEL_TASK].as_str().unwrap().into();
            let created = created(&request, &context(&[], &[]));
            for field in ["NetworkMode", "Dns", "DnsSearch", "ExtraHosts", "Sysctls", "CpuShares"] {
                let wanted = &golden["HostConfig"][field];
                assert_eq!(created["HostConfig"].get(field).unwrap_or(&Value::Null), wanted, "{field} {interfaces:?}");
            }
            assert!(
                created["HostConfig"].get("PortBindings").is_none() && created["HostConfig"].get("Memory").is_none()
            );
            for field in ["Hostname", "Image", "Labels"] {
                let ours = |labels: &Value| -> BTreeMap<String, Value> {
                    let labels = labels.as_object().into_iter().flatten();
                    labels
                        .filter(|(name, _)| !name.starts_with("ecs-agent."))
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect()
                };
                match field {
                    "Labels" => assert_eq!(ours(&created[field]), ours(&golden["Config"][field])),
                    _ => assert_eq!(created[field], golden["Config"][field], "{field}"),
                }
            }
        }
    }

    #[test]
    fn the_operators_labels_are_on_the_pause_container() {
        let labels = BTreeMap::from([("mine".to_owned(), "1".to_owned())]);
        let context = CreateContext { pause_labels: &labels, ..context(&[], &[]) };
        assert_eq!(created(&pause(vec![interface()]), &context)["Labels"]["mine"], "1");
    }

    #[test]
    fn an_interface_without_names_sets_none() {
        for interfaces in [vec![Interface::default()], Vec::new()] {
            let created = created(&pause(interfaces), &context(&[], &[]));
            assert!(created.get("Hostname").is_none(), "{created}");
            assert_eq!((&created["HostConfig"]["Dns"], &created["HostConfig"]["ExtraHosts"]), (&json!([]), &json!([])));
        }
    }

    /// Docker refuses a container in the namespace of another one with any of these.
    #[test]
    fn the_other_containers_join_the_namespace_of_the_pause() {
        let golden_failures = golden("failures");
        let (golden, side) = (golden("docker_inspect_web"), golden("docker_inspect_side"));
        for field in ["NetworkMode", "Dns", "DnsSearch", "DnsOptions", "ExtraHosts", "Links", "PortBindings"] {
            assert_eq!(side["HostConfig"][field], golden["HostConfig"][field], "one container like the other: {field}");
        }
        let mode = golden["HostConfig"]["NetworkMode"].as_str().unwrap();
        let mut request = web();
        request.spec.health_check = false;
        request.network = ContainerNetwork::Joined(mode.strip_prefix("container:").unwrap().into());
        request.links = vec![("ecs-other".to_owned(), "other".to_owned())];
        request.spec.engine_settings.host_config = r#"{"NetworkMode": "bridge", "Dns": ["1.1.1.1"], "DnsSearch": ["x"],
            "DnsOptions": ["ndots:1"], "ExtraHosts": ["a:1.1.1.1"], "PublishAllPorts": true, "CapAdd": ["NET_ADMIN"],
            "PortBindings": {"80/tcp": [{"HostPort": "80"}]}}"#
            .to_owned();
        request.spec.engine_settings.config =
            r#"{"Hostname": "own", "Domainname": "own", "ExposedPorts": {"81/tcp": {}}, "User": "root"}"#.to_owned();
        let created = created(&request, &context(&[], &[]));
        assert_eq!(created["HostConfig"]["NetworkMode"], mode);
        for field in ["Dns", "DnsSearch", "DnsOptions", "ExtraHosts", "Links"] {
            assert_eq!(
                created["HostConfig"].get(field).unwrap_or(&Value::Null),
                &golden["HostConfig"][field],
                "{field}"
            );
        }
        // The Go agent passes mappings of ports on, and the task ends.
        let refused = &golden_failures["port_mappings_in_the_payload"]["records"][5]["body"]["containers"][0];
        assert!(refused["reason"].as_str().unwrap().ends_with("port publishing and the container type network mode"));
        for field in ["PortBindings", "PublishAllPorts"] {
            assert!(created["HostConfig"].get(field).is_none(), "{field}: {created}");
        }
        for field in ["Hostname", "Domainname", "ExposedPorts"] {
            assert!(created.get(field).is_none(), "{field}: {created}");
        }
        assert_eq!((&created["User"], &created["HostConfig"]["CapAdd"]), (&json!("root"), &json!(["NET_ADMIN"])));
    }
}
