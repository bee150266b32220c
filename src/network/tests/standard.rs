//! A task with one standard interface, from set-up to tear-down.

use super::rig::{Rig, interface, mac, request};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_task_reaches_its_subnet_and_the_agent() {
    let Some(rig) = Rig::new("a_task_reaches_its_subnet_and_the_agent") else { return };
    rig.attach(1);
    let pause = rig.pause(false);
    let request = request(1, &pause, vec![interface(1)]);
    rig.network.set_up(&request).await.unwrap();

    assert_eq!(pause.ask("10.0.1.1:80"), "gateway");
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    pause.serve("10.0.1.100:8080", "task");
    assert_eq!(rig.subnet.ask("10.0.1.100:8080"), "task");
    assert_eq!(rig.host_links(), ["vetha9feac02 UP <BROADCAST,MULTICAST,UP,LOWER_UP>"]);
    // The host answers it and nobody else over the bridge; the daemon's address is gone.
    let routes = pause.shell("ip route | sed 's/ linkdown//'");
    assert_eq!(
        routes.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "default via 10.0.1.1 dev eth0",
            "10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.100",
            "169.254.170.2 via 169.254.172.1 dev ecs-eth0",
            "169.254.172.1 dev ecs-eth0 scope link",
        ]
    );

    // A restarted agent that does not know how far it came repeats everything, and changes nothing.
    let lines = r"ip -br addr | sed -E 's/^([^@ ]*)[^ ]* +[^ ]+ +/\1 /'; ip route show table all | sed 's/ linkdown//'";
    let before = pause.shell(lines);
    rig.agent(None).set_up(&request).await.unwrap();
    assert_eq!(pause.shell(lines), before);

    rig.network.tear_down(&request).await.unwrap();
    assert_eq!(pause.shell("ip -br link | grep -v ^lo || true"), "");
    assert_eq!(rig.host_links(), ["ecs060000000101 DOWN 06:00:00:00:01:01 <BROADCAST,MULTICAST>"]);
    rig.network.tear_down(&request).await.unwrap();
}

#[tokio::test]
async fn an_interface_comes_back_from_a_dead_namespace() {
    let Some(rig) = Rig::new("an_interface_comes_back_from_a_dead_namespace") else { return };
    rig.host.shell("ip link add eth0 type veth peer name other");
    rig.attach(1);
    let mut pause = rig.pause(false);
    let mut request = request(1, &pause, vec![interface(1)]);
    rig.network.set_up(&request).await.unwrap();
    pause.end();
    // The Go agent logs errors here, and the interface has the name that the kernel gave it.
    rig.network.tear_down(&request).await.unwrap();
    request.pause_pid = 0;
    rig.network.tear_down(&request).await.unwrap();
    // The kernel removes the veth in its own time; an emulated device would come back.
    let until = Instant::now() + Duration::from_secs(20);
    while rig.host.shell("ip -br link").contains("vetha9feac02") {
        assert!(Instant::now() < until, "the link stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Most of the interfaces were detached meanwhile.
#[tokio::test]
async fn the_end_of_a_task_looks_after_each_interface() {
    let Some(rig) = Rig::new("the_end_of_a_task_looks_after_each_interface") else { return };
    rig.attach(7);
    rig.host.shell("ip link set ens7 down");
    let mut request = request(1, &rig.pause(false), (1..=7).map(interface).collect());
    request.pause_pid = 0;
    let began = Instant::now();
    rig.network.tear_down(&request).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "it waits once, not for each: {:?}", began.elapsed());
    assert!(rig.host.shell("ip -br link").contains("ecs060000000107"));
}

#[tokio::test]
async fn set_up_says_which_device_is_missing() {
    let Some(rig) = Rig::new("set_up_says_which_device_is_missing") else { return };
    let pause = rig.pause(false);
    let request = request(1, &pause, vec![interface(1)]);
    let error = super::rig::text(rig.network.set_up(&request).await);
    assert_eq!(error, format!("find the interface {}: it is not on this host", mac(1)));
}

#[tokio::test]
async fn a_broken_link_to_the_host_is_made_again() {
    let Some(rig) = Rig::new("a_broken_link_to_the_host_is_made_again") else { return };
    let pause = rig.pause(false);
    let mut request = request(1, &pause, Vec::new());
    rig.network.set_up(&request).await.unwrap();
    rig.host.shell("ip link del ecs-bridge");
    assert_eq!(pause.ask("169.254.170.2:80"), "");
    rig.network.set_up(&request).await.unwrap();
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    // The task has another address than before the agent was killed.
    request.local_address = "169.254.172.77".parse().unwrap();
    rig.network.set_up(&request).await.unwrap();
    assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    let addresses = pause.shell("ip -br addr show ecs-eth0");
    assert!(addresses.contains("169.254.172.77/22") && !addresses.contains("172.2/"), "{addresses}");
    assert_eq!(rig.host_links(), ["vetha9feac4d UP <BROADCAST,MULTICAST,UP,LOWER_UP>"]);
}
