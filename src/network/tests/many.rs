//! Many tasks: at once, one after the other, and how long each takes.

use super::rig::{Rig, Space, request};
use ecs_core::model::interface::{Interface, MacAddress, NetworkRequest, Prefix};
use futures_util::StreamExt;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Devices with the numbers 0 to `count - 1`, made at once.
fn attach(rig: &Rig, count: u16) {
    let id = rig.subnet.id();
    let line = |number: u16| {
        let mac = mac(number);
        format!("link add e{number} address {mac} type veth peer name f{number} netns {id}\n")
    };
    let lines: String = (0..count).map(line).collect();
    rig.host.shell(&format!("ip -batch - <<'END'\n{lines}END"));
    let lines: String =
        (0..count).map(|number| format!("link set f{number} master subnet\nlink set f{number} up\n")).collect();
    rig.subnet.shell(&format!("ip -batch - <<'END'\n{lines}END"));
}

fn mac(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([0x06, 0, 0, 1, high, low])
}

fn task(number: u16, pause: &Space) -> NetworkRequest {
    let last = u8::try_from(number % 200 + 20).unwrap();
    let interface = Interface {
        id: format!("eni-{number}"),
        mac: mac(number),
        ipv4: vec![Ipv4Addr::new(10, 0, 1, last)],
        gateway_ipv4: Some(Prefix { address: Ipv4Addr::new(10, 0, 1, 1), length: 24 }),
        ..Interface::default()
    };
    let local = u32::from(Ipv4Addr::new(169, 254, 172, 2)) + u32::from(number);
    let task = request(1, pause, vec![interface]);
    NetworkRequest { task: format!("task/{number}").into(), local_address: local.into(), ..task }
}

#[tokio::test]
async fn a_hundred_and_twenty_tasks_start_at_once() {
    const COUNT: u16 = 120;
    let Some(rig) = Rig::new("a_hundred_and_twenty_tasks_start_at_once") else { return };
    attach(&rig, COUNT);
    let pauses: Vec<Space> = (0..COUNT).map(|_| Space::new().unwrap()).collect();
    let tasks: Vec<_> = (0..COUNT).zip(&pauses).map(|(number, pause)| task(number, pause)).collect();
    let began = Instant::now();
    for done in futures_util::future::join_all(tasks.iter().map(|task| rig.network.set_up(task))).await {
        done.unwrap();
    }
    eprintln!("{COUNT} tasks at once: {:?}", began.elapsed());
    for pause in [&pauses[0], &pauses[59], &pauses[119]] {
        assert_eq!(pause.ask("10.0.1.1:80"), "gateway");
        assert_eq!(pause.ask("169.254.170.2:80"), "agent");
    }
    assert_eq!(rig.host.shell("ip -br link show master ecs-bridge").lines().count(), usize::from(COUNT));
    for done in futures_util::future::join_all(tasks.iter().map(|task| rig.network.tear_down(task))).await {
        done.unwrap();
    }
    assert_eq!(rig.host_links().iter().filter(|link| link.starts_with("ecs0600")).count(), usize::from(COUNT));
    assert_eq!(rig.host.shell("ip -br link show master ecs-bridge"), "");
}

/// The links, addresses and routes of the host and of the pause container; the files and threads of this process are counted.
fn state(rig: &Rig, pause: &Space) -> [String; 2] {
    let lines =
        "ip -br link; ip -br addr; ip route show table all; ip -6 route show table all; ip neigh show nud permanent";
    [rig.host.shell(lines), pause.shell(lines)]
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// `NETWORK_CYCLES` sets another number, such as 1000.
#[tokio::test]
async fn many_cycles_leave_nothing() {
    let Some(rig) = Rig::new("many_cycles_leave_nothing") else { return };
    let cycles = usize::try_from(ecs_testing::dice::count("NETWORK_CYCLES", 200)).unwrap();
    attach(&rig, 1);
    let pause = Space::new().unwrap();
    let cycle = async || {
        let task = task(0, &pause);
        rig.network.set_up(&task).await.unwrap();
        rig.network.tear_down(&task).await.unwrap();
    };
    // The first one makes the bridge, and gives the device its name.
    cycle().await;
    let before = state(&rig, &pause);
    // Other tests of this process open files and start threads, but not as many.
    let files = (count("/proc/self/fd"), count("/proc/self/task"));
    for _ in 0..cycles {
        cycle().await;
    }
    let after = (count("/proc/self/fd"), count("/proc/self/task"));
    assert!(
        after.0 < files.0 + cycles / 2 && after.1 < files.1 + cycles / 2,
        "files and threads: {files:?}, then {after:?}"
    );
    assert_eq!(state(&rig, &pause), before);
}

/// 200 tasks, four at once. The number is for people: the machine may be busy.
#[tokio::test]
async fn the_steps_of_a_task_are_quick() {
    const COUNT: u16 = 200;
    let Some(rig) = Rig::new("the_steps_of_a_task_are_quick") else { return };
    attach(&rig, COUNT);
    let pauses: Vec<Space> = (0..COUNT).map(|_| Space::new().unwrap()).collect();
    let timed = async |number: u16| {
        let task = task(number, &pauses[usize::from(number)]);
        let began = Instant::now();
        rig.network.set_up(&task).await.unwrap();
        began.elapsed()
    };
    let mut times: Vec<_> = futures_util::stream::iter(0..COUNT).map(timed).buffer_unordered(4).collect().await;
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    eprintln!("all network steps of a task: median {:?}, p99 {:?}, last {:?}", at(50), at(99), times[times.len() - 1]);
    assert!(at(99).as_secs() < 5, "{times:?}");
}
