//! The shapes of tasks that the Go agent was recorded with, and those beyond: what is in the namespace, and what is reached.

use super::super::Settings;
use super::rig::{Rig, Space, dual_stack, interface, ipv6_only, request, text};
use ecs_core::model::interface::{Interface, Prefix};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The addresses and routes of a namespace, in a recording or now, without numbers of links and lifetimes.
fn facts(shown: &str) -> Vec<String> {
    let (mut section, mut link, mut facts) = ("", String::new(), Vec::new());
    for line in shown.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            section = command;
        } else if section == "ip addr" && line.starts_with(|c: char| c.is_ascii_digit()) {
            link = line.split([' ', '@', ':']).nth(2).unwrap_or_default().to_owned();
        } else if section == "ip addr" && line.trim_start().starts_with(['i', 'l']) {
            let fact = line.trim().split(" link-netnsid ").next().unwrap_or_default();
            facts.push(format!("{link}: {}", fact.replace(" noprefixroute", "").replace(" nodad", "")));
        } else if section.starts_with("ip route") && !line.trim().is_empty() {
            facts.push(line.trim().replace(" linkdown", ""));
        }
    }
    facts.sort_unstable();
    facts
}

/// The facts of a namespace now.
pub(super) fn now(space: &Space) -> Vec<String> {
    facts(&space.shell("for c in 'ip addr' 'ip route show table all'; do echo \"$ $c\"; $c; done"))
}

/// The recording with our differences: the route to the host is direct, and `ecs-eth0` has no link-local IPv6 address.
pub(super) fn recorded(recording: &str) -> Vec<String> {
    let direct = |fact: String| match fact.as_str() {
        "169.254.172.1 via 169.254.172.1 dev ecs-eth0" => "169.254.172.1 dev ecs-eth0 scope link".to_owned(),
        _ => fact,
    };
    let mut facts: Vec<String> = facts(recording).into_iter().map(direct).collect();
    let is_link_local = |fact: &String| fact.contains("ecs-eth0") && fact.contains("fe80::");
    facts.retain(|fact| !is_link_local(fact));
    facts.sort_unstable();
    facts
}

/// Waits until a link-local address has been checked by the kernel, which takes about a second.
fn settle(pause: &Space) {
    let until = Instant::now() + Duration::from_secs(20);
    while pause.shell("ip addr").contains("tentative") {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn namespaces_are_as_recorded() {
    let usual = Settings::default();
    let blocked = Settings { block_metadata: true, ..usual.clone() };
    let routes = [(Ipv4Addr::new(10, 0, 15, 0), 24), (Ipv4Addr::new(10, 0, 16, 7), 32)];
    let additional_routes = routes.map(|(address, length)| Prefix { address, length }).to_vec();
    let routed = Settings { additional_routes, ..usual.clone() };
    let table: [(&str, &str, Settings, Interface); 5] = [
        ("namespace", include_str!("../../../tests/golden/awsvpc/namespace.txt"), usual.clone(), interface(1)),
        (
            "imds_blocked",
            include_str!("../../../tests/golden/awsvpc/imds_blocked_namespace.txt"),
            blocked.clone(),
            interface(1),
        ),
        (
            "additional_routes",
            include_str!("../../../tests/golden/awsvpc/additional_routes_namespace.txt"),
            routed,
            interface(1),
        ),
        ("dual_stack", include_str!("../../../tests/golden/awsvpc/dual_stack_namespace.txt"), blocked, dual_stack(1)),
        ("ipv6_only", include_str!("../../../tests/golden/awsvpc/ipv6_only_namespace.txt"), usual, ipv6_only(1)),
    ];
    for (name, recording, settings, attached) in table {
        let Some(rig) = Rig::with(&format!("namespaces_are_as_recorded: {name}"), settings) else { return };
        rig.attach(1);
        let pause = rig.pause(!attached.ipv6.is_empty());
        let request = request(1, &pause, vec![attached]);
        rig.network.set_up(&request).await.unwrap();
        settle(&pause);
        assert_eq!(now(&pause), recorded(recording), "{name}");
        assert_eq!(pause.ask("169.254.170.2:80"), "agent", "{name}");
        let gateway = if request.interfaces[0].is_ipv6_only() { "[fd00:1::1]:80" } else { "10.0.1.1:80" };
        assert_eq!(pause.ask(gateway), "gateway", "{name}");
        rig.network.tear_down(&request).await.unwrap();
        assert_eq!(rig.host_links(), ["ecs060000000101 DOWN 06:00:00:00:01:01 <BROADCAST,MULTICAST>"], "{name}");
        assert_eq!(pause.shell("ip -4 route; ip -6 route"), "", "{name}");
    }
}

#[tokio::test]
async fn both_interfaces_of_a_task_have_addresses() {
    let Some(rig) = Rig::new("both_interfaces_of_a_task_have_addresses") else { return };
    rig.attach(1);
    rig.attach(2);
    let pause = rig.pause(true);
    let request = request(1, &pause, vec![interface(1), dual_stack(2)]);
    rig.network.set_up(&request).await.unwrap();
    let addresses = pause.shell("ip -4 -br addr; ip -6 -br addr show dev eth1 scope global");
    let addresses: Vec<_> = addresses.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let shown = |at: usize| (addresses[at][0].split('@').next().unwrap(), addresses[at][2]);
    let seen: Vec<_> = (0..addresses.len()).map(shown).collect();
    for wanted in [("eth0", "10.0.1.100/24"), ("eth1", "10.0.1.101/24"), ("eth1", "fd00:1::101/64")] {
        assert!(seen.contains(&wanted), "{seen:?}");
    }
    assert_eq!(pause.shell("ip route show default").trim(), "default via 10.0.1.1 dev eth0");
    pause.serve("10.0.1.101:8080", "second");
    assert_eq!(rig.subnet.ask("10.0.1.101:8080"), "second");
    rig.network.tear_down(&request).await.unwrap();
    let names = ["ecs060000000101", "ecs060000000102"];
    assert_eq!(
        rig.host_links(),
        names.map(|name| format!("{name} DOWN 06:00:00:00:01:{} <BROADCAST,MULTICAST>", &name[13..]))
    );
}

/// On the host, the second device has the name of the task's first one.
#[tokio::test]
async fn devices_get_their_names_on_the_way() {
    let Some(rig) = Rig::new("devices_get_their_names_on_the_way") else { return };
    rig.attach(1);
    rig.attach(2);
    rig.host
        .shell("ip link set ens1 down; ip link set ens2 down; ip link set ens1 name eth1; ip link set ens2 name eth0");
    let pause = rig.pause(false);
    let request = request(1, &pause, vec![interface(1), interface(2)]);
    rig.network.set_up(&request).await.unwrap();
    let addresses = pause.shell("ip -4 -br addr");
    let has = |name: &str, address: &str| {
        addresses.lines().any(|line| line.starts_with(&format!("{name}@")) && line.contains(address))
    };
    assert!(has("eth0", "10.0.1.100/24") && has("eth1", "10.0.1.101/24"), "{addresses}");
}

/// The agent was killed before it made the gateway, and a router has announced itself since.
#[tokio::test]
async fn an_earlier_route_of_a_router_does_no_harm() {
    let Some(rig) = Rig::new("an_earlier_route_of_a_router_does_no_harm") else { return };
    rig.attach(1);
    rig.subnet.shell("ip addr add fe80::77/64 dev subnet nodad");
    let pause = rig.pause(true);
    let request = request(1, &pause, vec![ipv6_only(1)]);
    rig.network.set_up(&request).await.unwrap();
    settle(&pause);
    pause.shell("ip -6 route del default");
    let gateways = || {
        let routes = pause.shell("ip -6 route show default");
        let mut gateways: Vec<_> =
            routes.lines().filter_map(|line| line.split(' ').nth(2).map(str::to_owned)).collect();
        gateways.sort_unstable();
        gateways
    };
    let until = Instant::now() + Duration::from_secs(20);
    while !gateways().iter().any(|gateway| gateway.starts_with("fe80::")) {
        assert!(Instant::now() < until, "{:?}", gateways());
        rig.subnet.advertise("subnet");
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..2 {
        rig.network.set_up(&request).await.unwrap();
        let gateways = gateways();
        assert!(gateways.len() >= 2 && gateways.contains(&"fd00:1::1".to_owned()), "{gateways:?}");
    }
    // Somebody else's is still an error.
    pause.shell("ip -6 route flush default; ip -6 route add default via fe80::99 dev eth0 metric 1024");
    let error = text(rig.network.set_up(&request).await);
    let expected =
        "make fd00:1::1 the gateway of eth0: File exists (EEXIST): there is another route to the same network";
    assert_eq!(error, expected);
}

/// As with the Go agent, the route of the task's own interface takes precedence.
#[tokio::test]
async fn additional_routes_leave_those_of_the_task_alone() {
    let routes = [(Ipv4Addr::new(10, 0, 1, 0), 24), (Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::new(10, 0, 15, 0), 24)];
    let additional_routes = routes.map(|(address, length)| Prefix { address, length }).to_vec();
    let settings = Settings { additional_routes, ..Settings::default() };
    let Some(rig) = Rig::with("additional_routes_leave_those_of_the_task_alone", settings) else { return };
    rig.attach(1);
    let pause = rig.pause(false);
    rig.network.set_up(&request(1, &pause, vec![interface(1)])).await.unwrap();
    let routes = pause.shell("ip route | sed 's/ linkdown//'");
    assert_eq!(
        routes.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "default via 10.0.1.1 dev eth0",
            "10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.100",
            "10.0.15.0/24 via 169.254.172.1 dev ecs-eth0",
            "169.254.170.2 via 169.254.172.1 dev ecs-eth0",
            "169.254.172.1 dev ecs-eth0 scope link",
        ]
    );
}

/// A gateway that is in no network of the interface.
#[tokio::test]
async fn a_gateway_outside_of_the_subnet_is_used() {
    let Some(rig) = Rig::new("a_gateway_outside_of_the_subnet_is_used") else { return };
    rig.attach(1);
    let pause = rig.pause(false);
    let gateway_ipv4 = Some(Prefix { address: Ipv4Addr::new(10, 0, 1, 1), length: 32 });
    let request = request(1, &pause, vec![Interface { gateway_ipv4, ..interface(1) }]);
    for _ in 0..2 {
        rig.network.set_up(&request).await.unwrap();
    }
    assert_eq!(pause.ask("10.0.1.1:80"), "gateway");

    rig.network.tear_down(&request).await.unwrap();
    rig.subnet.shell("ip addr add fe80::77/64 dev subnet nodad; ip addr add fd00:9::9/64 dev subnet nodad");
    rig.subnet.serve("[fd00:9::9]:80", "behind it");
    let pause = rig.pause(true);
    let gateway_ipv6 = Some(Prefix { address: "fe80::77".parse().unwrap(), length: 64 });
    let request = super::rig::request(1, &pause, vec![Interface { gateway_ipv6, ..ipv6_only(1) }]);
    for _ in 0..2 {
        rig.network.set_up(&request).await.unwrap();
    }
    settle(&pause);
    assert_eq!(pause.ask("[fd00:9::9]:80"), "behind it");
}

#[tokio::test]
async fn tasks_of_a_subnet_meet_there_alone() {
    let Some(rig) = Rig::new("tasks_of_a_subnet_meet_there_alone") else { return };
    let pauses = [rig.pause(false), rig.pause(false)];
    for (number, pause) in (1_u8..).zip(&pauses) {
        rig.attach(number);
        rig.network.set_up(&request(number, pause, vec![interface(number)])).await.unwrap();
        pause.serve("0.0.0.0:8080", if number == 1 { "first" } else { "second" });
        assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    }
    assert_eq!(pauses[0].ask("10.0.1.101:8080"), "second");
    assert_eq!(pauses[1].ask("10.0.1.100:8080"), "first");
    // Not even tasks with routes of their own reach each other over the bridge.
    pauses[0].shell("ip route add 169.254.172.3 dev ecs-eth0");
    pauses[1].shell("ip route add 169.254.172.2 dev ecs-eth0");
    assert_eq!(pauses[0].ask("169.254.172.3:8080"), "");
    assert_eq!(rig.host.ask("169.254.172.3:8080"), "second");
    // The end of a task leaves the other alone.
    rig.network.tear_down(&request(1, &pauses[0], vec![interface(1)])).await.unwrap();
    assert_eq!(pauses[1].ask("169.254.170.2:80"), "agent");
}

#[tokio::test]
async fn an_overlap_with_the_local_range_is_refused() {
    let Some(rig) = Rig::new("an_overlap_with_the_local_range_is_refused") else { return };
    let mac = rig.attach(1);
    let pause = rig.pause(false);
    let gateway = Prefix { address: Ipv4Addr::new(169, 254, 173, 1), length: 24 };
    let subnet = Interface { ipv4: vec![Ipv4Addr::new(169, 254, 173, 7)], gateway_ipv4: Some(gateway), ..interface(1) };
    let expected = "check the interfaces of the task: the subnet 169.254.173.0/24 of eni-1 overlaps 169.254.172.0/22 or has the address \
        169.254.170.2, over which tasks reach the agent";
    assert_eq!(text(rig.network.set_up(&request(1, &pause, vec![subnet])).await), expected);
    // What `OverrideAWSVPCLocalIPv4Address` may name.
    for local in ["169.254.176.1", "169.254.172.1", "169.254.172.0", "169.254.175.255"] {
        let mut request = request(1, &pause, vec![interface(1)]);
        request.local_address = local.parse().unwrap();
        let expected = format!(
            "check the interfaces of the task: the task's local address {local} is not one of 169.254.172.2 to 169.254.175.254"
        );
        assert_eq!(text(rig.network.set_up(&request).await), expected);
    }
    // A network of Docker that has the addresses of tasks, and one that is wider.
    rig.host.shell("ip link add docker1 type bridge; ip addr add 169.254.173.1/24 dev docker1; ip link set docker1 up");
    let request = request(1, &pause, vec![interface(1)]);
    let expected = "give ecs-bridge the address 169.254.172.1/22: docker1 has the address 169.254.173.1/24";
    assert_eq!(text(rig.network.set_up(&request).await), expected);
    assert!(rig.host.shell("ip -br link").contains(&mac.to_string()), "the interface is back");
    rig.host.shell("ip addr flush dev docker1; ip addr add 169.254.0.1/16 dev docker1");
    rig.network.set_up(&request).await.unwrap();
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
}

/// A Docker network of the host with the addresses of the task's subnet takes nothing from the task.
#[tokio::test]
async fn a_docker_network_may_have_the_tasks_addresses() {
    let Some(rig) = Rig::new("a_docker_network_may_have_the_tasks_addresses") else { return };
    rig.host.shell("ip link add docker1 type bridge; ip addr add 10.0.1.1/24 dev docker1; ip link set docker1 up");
    rig.attach(1);
    let pause = rig.pause(false);
    rig.network.set_up(&request(1, &pause, vec![interface(1)])).await.unwrap();
    assert_eq!(pause.ask("10.0.1.1:80"), "gateway");
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
}

#[tokio::test]
async fn a_task_without_an_interface_reaches_the_agent() {
    let Some(rig) = Rig::new("a_task_without_an_interface_reaches_the_agent") else { return };
    let pause = rig.pause(false);
    let request = request(1, &pause, Vec::new());
    rig.network.set_up(&request).await.unwrap();
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    rig.network.tear_down(&request).await.unwrap();
    assert_eq!(rig.host_links(), [""; 0]);
}

#[tokio::test]
async fn a_name_or_route_that_is_taken_is_named() {
    let Some(rig) = Rig::new("a_name_or_route_that_is_taken_is_named") else { return };
    rig.attach(1);
    let pause = rig.pause(false);
    let request = request(1, &pause, vec![interface(1)]);
    rig.host.shell("ip link add ecs-bridge type veth peer name other");
    let error = text(rig.network.set_up(&request).await);
    assert_eq!(error, "make the bridge ecs-bridge: ecs-bridge is a link of the kind veth");
    rig.host
        .shell("ip link del ecs-bridge; ip link add ecs-bridge type bridge; ip addr add 10.9.9.1/24 dev ecs-bridge");
    let error = text(rig.network.set_up(&request).await);
    assert_eq!(error, "give ecs-bridge the address 169.254.172.1/22: ecs-bridge has the address 10.9.9.1/24");
    rig.host.shell("ip link del ecs-bridge");
    pause.shell("ip link add other type veth peer name more; ip link set other up; ip route add default dev other");
    let error = text(rig.network.set_up(&request).await);
    assert_eq!(
        error,
        "make 10.0.1.1 the gateway of eth0: File exists (EEXIST): there is another route to the same network"
    );
    pause.shell("ip link del other; ip link add eth0 type veth peer name more");
    let error = text(rig.network.set_up(&request).await);
    assert_eq!(error, "name the interface 06:00:00:00:01:01 eth0: File exists (EEXIST)");
    pause.shell("ip link del eth0");
    rig.network.set_up(&request).await.unwrap();
    let other = rig.pause(false);
    let error = text(rig.network.set_up(&super::rig::request(1, &other, Vec::new())).await);
    let expected = "connect the task with ecs-bridge: File exists (EEXIST): another task on this host has the address 169.254.172.2";
    assert_eq!(error, expected);
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
}

#[tokio::test]
async fn ipv6_that_is_switched_off_is_named() {
    let Some(rig) = Rig::new("ipv6_that_is_switched_off_is_named") else { return };
    rig.attach(1);
    let pause = rig.pause(false);
    let error = text(rig.network.set_up(&request(1, &pause, vec![dual_stack(1)])).await);
    let expected =
        "give eth0 the address fd00:1::100/64: Permission denied (EACCES): IPv6 is switched off in the pause container";
    assert_eq!(error, expected);
    assert_eq!(rig.host_links(), ["ecs060000000101 DOWN 06:00:00:00:01:01 <BROADCAST,MULTICAST>"]);
}
