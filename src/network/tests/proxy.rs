//! Tasks with a proxy: which connections it gets.

use super::rig::{Rig, interface, request};
use ecs_core::model::interface::{Prefix, ProxyRules};
use std::net::Ipv4Addr;

#[tokio::test]
async fn a_proxy_gets_the_connections_of_its_task() {
    let Some(rig) = Rig::new("a_proxy_gets_the_connections_of_its_task") else { return };
    rig.attach(1);
    let pause = rig.pause(false);
    let app_ports: Vec<u16> = (8080..8100).collect();
    let rules = ProxyRules {
        ignored_uid: Some(1337),
        ignored_gid: Some(1338),
        ingress_port: Some(15000),
        egress_port: 15001,
        app_ports,
        ignored_ports: (2000..2020).collect(),
        ignored_networks: vec![
            Prefix { address: Ipv4Addr::new(169, 254, 170, 2).into(), length: 32 },
            Prefix { address: Ipv4Addr::new(10, 0, 1, 192).into(), length: 26 },
        ],
    };
    let mut request = request(1, &pause, vec![interface(1)]);
    request.proxy = Some(rules);
    for _ in 0..2 {
        rig.network.set_up(&request).await.unwrap();
    }
    rig.subnet.shell("ip addr add 10.0.1.200/24 dev subnet");
    for address in ["10.0.1.1:2019", "10.0.1.200:80", "10.0.1.1:9000"] {
        rig.subnet.serve(address, "outside");
    }
    pause.serve("0.0.0.0:15000", "ingress");
    pause.serve("0.0.0.0:15001", "egress");
    pause.serve("0.0.0.0:9000", "own");
    for (address, expected) in [
        ("10.0.1.1:9000", "egress"),
        ("10.0.1.1:80", "egress"),
        ("10.0.1.1:2019", "outside"), // the twentieth ignored port
        ("10.0.1.200:80", "outside"), // an ignored network
        ("169.254.170.2:80", "agent"),
        ("10.0.1.100:9000", "own"), // an address of the task itself
        ("127.0.0.1:9000", "own"),
    ] {
        assert_eq!(pause.ask(address), expected, "{address}");
    }
    for (address, expected) in [("10.0.1.100:8099", "ingress"), ("10.0.1.100:9000", "own"), ("10.0.1.100:8100", "")] {
        assert_eq!(rig.subnet.ask(address), expected, "{address}");
    }
    for user in ["--uid 1337", "--gid 1338"] {
        let asked = format!(
            "exec setpriv {} --clear-groups sh -c 'exec 3<>/dev/tcp/10.0.1.1/9000; cat <&3'",
            user.replace("--uid", "--reuid").replace("--gid", "--regid")
        );
        let asked = asked.replace("sh -c", "bash -c");
        assert_eq!(pause.shell(&asked), "outside", "{user}");
    }
    rig.network.tear_down(&request).await.unwrap();
    assert_eq!(pause.shell("nft list ruleset"), "");
}

/// As many entries as the translation of a message lets through.
#[tokio::test]
async fn the_longest_lists_of_a_proxy_fit() {
    let Some(rig) = Rig::new("the_longest_lists_of_a_proxy_fit") else { return };
    let pause = rig.pause(false);
    let network = |last: u8| Prefix { address: Ipv4Addr::new(10, 9, 0, last).into(), length: 32 };
    let rules = ProxyRules {
        ignored_uid: Some(1337),
        ignored_gid: Some(1338),
        ingress_port: Some(15000),
        egress_port: 15001,
        app_ports: (8000..8100).collect(),
        ignored_ports: (2000..2100).collect(),
        ignored_networks: (0..100).map(network).collect(),
    };
    let mut request = request(1, &pause, Vec::new());
    request.proxy = Some(rules);
    rig.network.set_up(&request).await.unwrap();
    let rules = pause.shell("nft list ruleset");
    assert_eq!(rules.lines().filter(|line| line.contains("counter")).count(), 303, "{rules}");
    // Linux before 4.18 needs all four for the way back.
    for hook in ["prerouting", "input", "output", "postrouting"] {
        assert!(rules.contains(&format!("type nat hook {hook} ")), "{hook}: {rules}");
    }
}
