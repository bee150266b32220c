//! Real network cards: two of an emulated machine, which are connected with each other. The first one is the device of a task, the
//! second one is on the far side.
//!
//! `ECS_TEST_CARDS` holds their hardware addresses. This test changes the host's network, so it is for emulated machines alone.

use super::super::{Network, Settings, Watch};
use super::rig::{Space, request};
use ecs_core::model::interface::{Interface, MacAddress, Prefix};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// The link of this host with this hardware address; empty: there is none.
fn name(mac: MacAddress) -> String {
    let folders = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let has_it =
        |path: &PathBuf| std::fs::read_to_string(path.join("address")).is_ok_and(|text| text.trim() == mac.to_string());
    let found = folders.map(|entry| entry.path()).find(has_it);
    found.map_or_else(String::new, |path| path.file_name().unwrap().to_string_lossy().into_owned())
}

/// Where the device is written to, to take it from its driver and to give it back, and its name there.
fn driver(link: &str) -> (PathBuf, String) {
    let device = std::fs::canonicalize(format!("/sys/class/net/{link}/device")).unwrap();
    (std::fs::canonicalize(device.join("driver")).unwrap(), device.file_name().unwrap().to_string_lossy().into_owned())
}

async fn wait(what: &str, is_true: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_real_card_goes_to_a_task_and_comes_back() {
    let Ok(cards) = std::env::var("ECS_TEST_CARDS") else {
        eprintln!("SKIPPED a_real_card_goes_to_a_task_and_comes_back: ECS_TEST_CARDS names no cards");
        return;
    };
    let (near, far) = cards.split_once(' ').unwrap();
    let (near, far): (MacAddress, MacAddress) = (near.parse().unwrap(), far.parse().unwrap());
    let subnet = Space::new().unwrap();
    let moved = format!("ip link set {} netns {} name card", name(far), subnet.id());
    assert!(std::process::Command::new("sh").args(["-c", &moved]).status().unwrap().success());
    subnet.shell("ip addr add 10.0.1.1/24 dev card; ip link set card up");
    subnet.serve("10.0.1.1:80", "gateway");

    let network = Network::new(Settings::default());
    let mut watch = Watch::open().unwrap();
    assert!(watch.next().await.unwrap().contains(&near));
    let attached = Interface {
        id: "eni-1".to_owned(),
        mac: near,
        ipv4: vec![Ipv4Addr::new(10, 0, 1, 100)],
        gateway_ipv4: Some(Prefix { address: Ipv4Addr::new(10, 0, 1, 1), length: 24 }),
        ..Interface::default()
    };
    let mut pause = Space::new().unwrap();
    let task = request(1, &pause, vec![attached.clone()]);
    let returned = format!("ecs{}", near.to_string().replace(':', ""));

    // To the task and back.
    let began = Instant::now();
    network.set_up(&task).await.unwrap();
    eprintln!("set up in {:?}", began.elapsed());
    assert_eq!(pause.ask("10.0.1.1:80"), "gateway");
    while timeout(PATIENCE, watch.next()).await.unwrap().unwrap().contains(&near) {}
    let began = Instant::now();
    network.tear_down(&task).await.unwrap();
    eprintln!("torn down in {:?}", began.elapsed());
    assert_eq!(name(near), returned);
    while !timeout(PATIENCE, watch.next()).await.unwrap().unwrap().contains(&near) {}

    // The pause container dies: the kernel gives the card back, under a name of its choice.
    network.set_up(&task).await.unwrap();
    pause.end();
    network.tear_down(&task).await.unwrap();
    wait("the card comes back", || !name(near).is_empty()).await;
    assert_eq!(name(near), returned);

    // The card is taken from the instance and given back, as at the end of a task.
    let (folder, device) = driver(&returned);
    std::fs::write(folder.join("unbind"), &device).unwrap();
    while timeout(PATIENCE, watch.next()).await.unwrap().unwrap().contains(&near) {}
    std::fs::write(folder.join("bind"), &device).unwrap();
    while !timeout(PATIENCE, watch.next()).await.unwrap().unwrap().contains(&near) {}

    // It is taken while the task runs.
    let pause = Space::new().unwrap();
    let task = request(1, &pause, vec![attached]);
    network.set_up(&task).await.unwrap();
    assert_eq!(pause.ask("10.0.1.1:80"), "gateway");
    std::fs::write(folder.join("unbind"), &device).unwrap();
    network.tear_down(&task).await.unwrap();
    let error = super::rig::text(network.set_up(&task).await);
    assert_eq!(error, format!("find the interface {near}: it is not on this host"));
    std::fs::write(folder.join("bind"), &device).unwrap();
    wait("the card is there again", || !name(near).is_empty()).await;
    // For whoever looks at it now: it has come back from a task.
    network.set_up(&task).await.unwrap();
    network.tear_down(&task).await.unwrap();
}
