//! Branch interfaces: VLANs on a trunk. The kernel needs the module `8021q`, which that of an emulated machine has.

use super::rig::{Rig, Space, interface, mac, request, text};
use ecs_core::model::interface::{Interface, InterfaceKind, MacAddress, NetworkRequest, Prefix};
use ecs_netlink::{Errno, Fault};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A rig with a trunk, `ens9`, whose VLANs 100 to 99 + `count` lead to the subnet, which has 10.0.3.1/24, too. `None`, with a message, if
/// the kernel has no VLANs.
fn rig(test: &str, count: u16) -> Option<Rig> {
    let rig = Rig::new(test)?;
    rig.attach(9);
    let probe = "ip link add link ens9 name probe type vlan id 7 2>/dev/null && ip link del probe && echo yes || true";
    if rig.host.shell(probe).is_empty() {
        eprintln!("SKIPPED {test}: this kernel has no VLANs");
        return None;
    }
    rig.host.shell("ip link set ens9 down");
    rig.subnet.shell("ip link set far9 nomaster; ip link set far9 up; ip addr add 10.0.3.1/24 dev subnet");
    let last = 99 + count;
    rig.subnet.shell(&format!(
        "for id in $(seq 100 {last}); do
            ip link add link far9 name far9.$id type vlan id $id
            ip link set far9.$id master subnet up
        done"
    ));
    Some(rig)
}

/// VLAN `100 + number`.
fn branch(number: u8) -> Interface {
    Interface {
        id: format!("eni-branch-{number}"),
        mac: MacAddress([0x06, 0, 0, 0, 3, number]),
        kind: InterfaceKind::Branch { vlan: 100 + u16::from(number), trunk: mac(9) },
        ipv4: vec![Ipv4Addr::new(10, 0, 3, 49 + number)],
        gateway_ipv4: Some(Prefix { address: Ipv4Addr::new(10, 0, 3, 1), length: 24 }),
        ..Interface::default()
    }
}

#[tokio::test]
async fn a_task_has_a_vlan_of_the_trunk() {
    let Some(rig) = rig("a_task_has_a_vlan_of_the_trunk", 2) else { return };
    // The Go agent was killed between the creation of the VLAN and its move.
    rig.host.shell("ip link add link ens9 name ens9.101 address 06:00:00:00:03:01 type vlan id 101");
    let pause = rig.pause(false);
    let request = request(1, &pause, vec![branch(1)]);
    for _ in 0..2 {
        rig.network.set_up(&request).await.unwrap();
    }
    let recording = include_str!("../../../tests/golden/awsvpc/branch_eni_namespace.txt");
    assert_eq!(super::shapes::now(&pause), super::shapes::recorded(recording));
    assert!(pause.shell("ip -d link show eth0").contains("vlan protocol 802.1Q id 101"));
    for (address, answer) in [("10.0.3.1:80", "subnet"), ("169.254.170.2:80", "agent")] {
        if answer == "subnet" {
            rig.subnet.serve(address, answer);
        }
        assert_eq!(pause.ask(address), answer);
    }
    pause.serve("10.0.3.50:8080", "task");
    assert_eq!(rig.subnet.ask("10.0.3.50:8080"), "task");
    assert!(rig.host.shell("ip -br link show ens9").contains("UP"));

    // Another interface cannot have the same VLAN.
    let taken = Interface { mac: MacAddress([0x06, 0, 0, 0, 3, 9]), ..branch(1) };
    let other = rig.pause(false);
    let error = text(rig.network.set_up(&super::rig::request(2, &other, vec![taken])).await);
    assert_eq!(error, "make VLAN 101 of ens9 in the task's namespace: File exists (EEXIST)");

    rig.network.tear_down(&request).await.unwrap();
    assert_eq!(pause.shell("ip -br link | grep -v ^lo || true"), "");
    // A namespace may still be ending when the next task gets the VLAN. (That of the first is kept by its server.)
    for number in [2, 3] {
        let mut pause = rig.pause(false);
        rig.network.set_up(&super::rig::request(number, &pause, vec![branch(1)])).await.unwrap();
        pause.end();
    }
    let pause = rig.pause(false);
    let request = super::rig::request(4, &pause, vec![branch(1)]);
    rig.network.set_up(&request).await.unwrap();
    rig.network.tear_down(&request).await.unwrap();
    let links = rig.host_links();
    assert!(links.iter().any(|link| link.starts_with("ens9 UP")), "the trunk stays: {links:?}");
}

#[tokio::test]
async fn a_trunk_that_is_missing_is_named() {
    let Some(rig) = Rig::new("a_trunk_that_is_missing_is_named") else { return };
    let pause = rig.pause(false);
    let error = text(rig.network.set_up(&request(1, &pause, vec![branch(1)])).await);
    assert_eq!(error, "find the trunk interface 06:00:00:00:01:09: it is not on this host");
    for vlan in [0, 4095] {
        let kind = InterfaceKind::Branch { vlan, trunk: mac(9) };
        let error = text(rig.network.set_up(&request(1, &pause, vec![Interface { kind, ..branch(1) }])).await);
        let expected = format!(
            "check the interfaces of the task: eni-branch-1 has the VLAN id {vlan}, which is not one of 1 to 4094"
        );
        assert_eq!(error, expected);
    }
}

/// A standard interface and a branch in one task, with a kill at every message of both ways.
#[tokio::test]
async fn a_branch_survives_kills() {
    let Some(rig) = rig("a_branch_survives_kills", 2) else { return };
    rig.attach(2);
    let pause = rig.pause(false);
    let request = request(1, &pause, vec![branch(1), interface(2)]);
    let killed = |number: usize| {
        let count = AtomicUsize::new(0);
        let act = move |_| if count.fetch_add(1, Ordering::Relaxed) >= number { Err(Errno::IO.into()) } else { Ok(()) };
        rig.agent(Some(Fault(Arc::new(act))))
    };
    // Sorted, because links are listed by number, and a VLAN that is made again has a higher one. Without the state of the carrier,
    // which follows in its own time.
    let lines = r"{ ip -br addr | sed -E 's/^([^@ ]*)[^ ]* +[^ ]+ +/\1 /'; ip route | sed 's/ linkdown//'; } | sort";
    let shown = || pause.shell(lines);
    rig.network.set_up(&request).await.unwrap();
    let whole = shown();
    rig.network.tear_down(&request).await.unwrap();
    for number in 0.. {
        let is_whole = killed(number).set_up(&request).await.is_ok();
        rig.network.set_up(&request).await.unwrap();
        assert_eq!(shown(), whole, "{number}");
        let is_whole = killed(number).tear_down(&request).await.is_ok() && is_whole;
        rig.network.tear_down(&request).await.unwrap();
        assert_eq!(pause.shell("ip -br link | grep -v ^lo || true"), "", "{number}");
        if is_whole {
            break;
        }
        assert!(number < 200);
    }
}

#[tokio::test]
async fn a_trunk_has_a_hundred_and_twenty_vlans() {
    const COUNT: u8 = 120;
    let Some(rig) = rig("a_trunk_has_a_hundred_and_twenty_vlans", u16::from(COUNT) + 1) else { return };
    rig.subnet.serve("10.0.3.1:80", "subnet");
    let pauses: Vec<Space> = (0..COUNT).map(|_| Space::new().unwrap()).collect();
    let tasks: Vec<NetworkRequest> =
        (1..=COUNT).zip(&pauses).map(|(number, pause)| request(number, pause, vec![branch(number)])).collect();
    for done in futures_util::future::join_all(tasks.iter().map(|task| rig.network.set_up(task))).await {
        done.unwrap();
    }
    for pause in pauses.iter().step_by(30) {
        assert_eq!(pause.ask("10.0.3.1:80"), "subnet");
        assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    }
    for done in futures_util::future::join_all(tasks.iter().map(|task| rig.network.tear_down(task))).await {
        done.unwrap();
    }
    let left = rig.host.shell("ip -br link | grep -v -e ^lo -e ^ens9 -e ^ecs-bridge || true");
    assert_eq!(left, "");
}
