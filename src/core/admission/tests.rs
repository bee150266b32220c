use super::*;
use crate::model::task::PortMapping;
use crate::model::{ContainerSpec, RunState, TaskSpec};
use crate::sample::{NOW, container, run, seen, spec, state, task};
use crate::{Effect, Event, Operation, PayloadTask, Policy, step};

fn wanting(arn: &str, cpu: u32) -> TaskSpec {
    let mut container = container("a", &[]);
    container.cpu = cpu;
    spec(arn, vec![container])
}

fn holders(state: &State) -> Vec<&str> {
    state.tasks.values().filter(|task| holds(task)).map(|task| task.spec.arn.as_str()).collect()
}

fn host(capacity: Capacity) -> State {
    state(Policy { capacity, ..Policy::default() })
}

/// The task ends: its only container has run and ended.
fn ends(state: &mut State, arn: &str, now: Timestamp) {
    let task = state.tasks.get_mut(&arn.into()).unwrap();
    task.containers[0].state.live.operation = None;
    state.ops.retain(
        |_, owner| !matches!(owner, super::super::state::OperationOwner::Container(task, _) if task.as_str() == arn),
    );
    step(state, now, Event::Observed(Box::new(seen(arn, "a", arn, RunState::Exited))));
}

#[test]
fn a_small_task_overtakes_a_large_one_that_waits_briefly() {
    let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
    let mut state = host(capacity);
    step(&mut state, NOW, run(wanting("first", 600)));
    step(&mut state, NOW, run(wanting("large", 900)));
    let late = NOW + RESERVE_AFTER;
    let almost = Timestamp(late.0 - 1);
    step(&mut state, almost, run(wanting("small", 100)));
    assert_eq!(holders(&state), ["first", "small"]);
    step(&mut state, late, run(wanting("tiny", 1)));
    step(&mut state, late, run(wanting("zero", 0)));
    assert_eq!(holders(&state), ["first", "small", "zero"], "a task that needs nothing takes nothing");
    // The task that blocks the queue is stopped, and the next one is admitted at once.
    let mut other = state.clone();
    let stop = Event::Payload { tasks: vec![PayloadTask::Stop("large".into(), Vec::new())], seq: 2, ack: None };
    step(&mut other, late, stop);
    assert_eq!(holders(&other), ["first", "small", "tiny", "zero"]);
    // If it gets its share instead, the next one gets the rest.
    ends(&mut state, "first", late);
    assert_eq!(holders(&state), ["large", "small", "tiny", "zero"]);
}

#[test]
fn a_stream_of_small_tasks_does_not_starve_a_large_one() {
    let mut state = host(Capacity { cpu: 1000, memory: 1000, ..Capacity::default() });
    for nth in 0..4 {
        step(&mut state, NOW, run(wanting(&format!("small-{nth}"), 250)));
    }
    step(&mut state, NOW, run(wanting("large", 1000)));
    let (mut now, mut ended) = (NOW, 0);
    // Every 10 s one task ends and another one arrives.
    for nth in 4..100 {
        if holds(&state.tasks[&"large".into()]) {
            break;
        }
        now = now + Span::secs(10);
        step(&mut state, now, run(wanting(&format!("small-{nth}"), 250)));
        ends(&mut state, &format!("small-{ended}"), now);
        ended += 1;
    }
    assert!(holds(&state.tasks[&"large".into()]));
    assert_eq!(now, NOW + RESERVE_AFTER + Span::secs(30), "when those that overtook it in time have ended");
}

/// A task that waits for a port holds up only the tasks that would take something it needs.
#[test]
fn a_task_waiting_for_a_port_blocks_only_tasks_that_need_it() {
    let port = |arn: &str, cpu: u32, host_port| {
        let mut spec = wanting(arn, cpu);
        spec.containers[0].ports.push(PortMapping { container_port: 80, host_port, protocol: Protocol::Tcp });
        spec
    };
    let mut state = host(Capacity { cpu: 1000, memory: 1000, ..Capacity::default() });
    step(&mut state, NOW, run(port("a-holds-80", 100, 80)));
    step(&mut state, NOW, run(port("b-waits-80", 400, 80)));
    let late = NOW + RESERVE_AFTER;
    for (arn, cpu, host_port, is_admitted) in [
        ("c-other-port", 100, 81, true),
        ("d-fits-beside", 400, 0, true),
        ("e-too-much", 1, 0, false),
        ("f-same-port", 0, 80, false),
    ] {
        step(&mut state, late, run(port(arn, cpu, host_port)));
        assert_eq!(holds(&state.tasks[&arn.into()]), is_admitted, "{arn}");
    }
}

/// Compat: not even a task that needs none of the overcommitted amounts is admitted.
#[test]
fn an_overcommitted_host_admits_no_task() {
    let mut state = host(Capacity { cpu: 100, memory: 1000, ..Capacity::default() });
    step(&mut state, NOW, run(wanting("first", 60)));
    state.policy.capacity.cpu = 50; // the operator has taken some away
    step(&mut state, NOW, run(wanting("zero", 0)));
    assert_eq!(holders(&state), ["first"]);
    ends(&mut state, "first", NOW);
    assert_eq!(holders(&state), ["zero"]);
}

#[test]
fn tasks_are_admitted_in_the_order_of_arrival() {
    let mut state = host(Capacity { cpu: 100, memory: 1000, ..Capacity::default() });
    let tasks = ["z-first", "a-second"].map(|arn| PayloadTask::Run(Box::new(wanting(arn, 60)))).into();
    step(&mut state, NOW, Event::Payload { tasks, seq: 1, ack: None });
    assert_eq!(holders(&state), ["z-first"]);
}

#[test]
fn limits_of_the_task_replace_the_sums_over_its_containers() {
    let needs = |cpu_micros, memory| {
        let mut task = task(vec![container("a", &[]), container("b", &[])]);
        for container in &mut task.containers {
            (container.spec.cpu, container.spec.memory) = (100, 50);
        }
        (task.spec.cpu_micros, task.spec.memory) = (cpu_micros, memory);
        let share = share(&task);
        (share.cpu, share.memory)
    };
    assert_eq!(needs(0, 0), (200, 100));
    assert_eq!(needs(250_000, 0), (256, 100));
    assert_eq!(needs(1, 7), (0, 7), "less than one unit is none");
    assert_eq!(needs(976_562, 0), (999, 100), "cut off, not rounded");
    assert_eq!(needs(u64::MAX, 1), (18_889_465_931_478_580, 1));
}

#[test]
fn a_gpu_is_given_once_and_only_if_it_is_there() {
    let gpu = |arn: &str, id: &str| {
        let mut spec = wanting(arn, 0);
        spec.containers[0].gpus.push(id.to_owned());
        spec
    };
    let gpus = BTreeSet::from(["gpu-0".to_owned(), "gpu-1".to_owned()]);
    let mut state = host(Capacity { cpu: 10, memory: 1000, gpus, ..Capacity::default() });
    step(&mut state, NOW, run(gpu("a", "gpu-0")));
    step(&mut state, NOW, run(gpu("b", "gpu-0")));
    step(&mut state, NOW, run(gpu("c", "gpu-1")));
    step(&mut state, NOW, run(gpu("d", "gpu-2")));
    assert_eq!(holders(&state), ["a", "c"]);
    let reason = state.tasks[&"d".into()].reason.clone().unwrap();
    assert!(reason.starts_with("HostResourcesError: ") && reason.ends_with("; it has no GPU gpu-2"), "{reason}");
    ends(&mut state, "a", NOW);
    assert_eq!(holders(&state), ["b", "c"]);
}

#[test]
fn the_share_of_an_ended_task_goes_to_the_next_at_once() {
    let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
    let mut state = state(Policy { capacity, ..Policy::default() });
    step(&mut state, NOW, run(wanting("first", 1000)));
    step(&mut state, NOW, run(wanting("next", 1000)));
    let first = state.tasks.get_mut(&"first".into()).unwrap();
    (first.known, first.ran, first.containers[0].state.live.operation) = (TaskStatus::Running, true, None);
    state.ops.clear();
    let observed = |run_state| Event::Observed(Box::new(seen("first", "a", "id", run_state)));
    step(&mut state, NOW, observed(RunState::Running));
    assert!(!holds(&state.tasks[&"next".into()]));
    step(&mut state, NOW, observed(RunState::Exited));
    assert!(holds(&state.tasks[&"next".into()]));
}

/// A share may be as large as the whole host.
#[test]
fn ports_and_reserved_memory_count_in_a_share() {
    let port = |host_port, protocol| PortMapping { container_port: 80, host_port, protocol };
    let reserved = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<u16>>();
    let capacity = Capacity {
        cpu: 10,
        memory: 20,
        reserved_tcp: reserved(&[22]),
        reserved_udp: reserved(&[53]),
        ..Capacity::default()
    };
    let fits = |change: &dyn Fn(&mut ContainerSpec)| {
        let mut container = container("a", &[]);
        (container.cpu, container.memory) = (10, 20);
        change(&mut container);
        impossible(&capacity, &task(vec![container])).is_none()
    };
    assert!(fits(&|_| {}), "all there is");
    assert!(!fits(&|container| container.cpu = 11) && !fits(&|container| container.memory = 21));
    assert!(fits(&|container| (container.memory, container.memory_reservation) = (21, 1)), "the reservation counts");
    assert!(!fits(&|container| (container.memory, container.memory_reservation) = (1, 21)));
    for (host_port, protocol, does_fit) in [
        (22, Protocol::Tcp, false),
        (22, Protocol::Udp, true),
        (53, Protocol::Udp, false),
        (53, Protocol::Tcp, true),
        (0, Protocol::Tcp, true),
    ] {
        assert_eq!(
            fits(&|container| container.ports.push(port(host_port, protocol))),
            does_fit,
            "{host_port} {protocol:?}"
        );
    }
    let two = |first, other| share(&task(vec![first])).add(share(&task(vec![other])));
    let with = |host_port, protocol| {
        let mut container = container("a", &[]);
        container.ports.push(port(host_port, protocol));
        container
    };
    assert!(!two(with(80, Protocol::Tcp), with(80, Protocol::Tcp)));
    assert!(!two(with(80, Protocol::Udp), with(80, Protocol::Udp)));
    assert!(
        two(with(80, Protocol::Tcp), with(80, Protocol::Udp)) && two(with(0, Protocol::Tcp), with(0, Protocol::Tcp))
    );
}

#[test]
fn a_task_that_can_never_fit_is_stopped_and_blocks_no_other() {
    let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
    let mut state = state(Policy { capacity, ..Policy::default() });
    let effects = step(&mut state, NOW, run(wanting("huge", 2048))).effects;
    assert!(
        matches!(&effects[..], [Effect::Do(_, Operation::Report(change))] if change.reason.starts_with("HostResourcesError: the task needs 2048 CPU")),
        "{effects:?}"
    );
    step(&mut state, NOW, run(wanting("next", 1024)));
    assert!(holds(&state.tasks[&"next".into()]));
}

fn holding(cpu: u64, tcp: &[u16], udp: &[u16], gpus: &[&str]) -> Share {
    let (tcp, udp) = (tcp.iter().copied().collect(), udp.iter().copied().collect());
    Share { cpu, memory: 0, tcp, udp, gpus: gpus.iter().map(|gpu| (*gpu).to_owned()).collect() }
}

#[test]
fn a_shortage_names_what_is_missing_and_who_has_it() {
    let capacity = Capacity { cpu: 10, memory: 0, ..Capacity::default() };
    let names: Vec<TaskArn> = ["idle", "web", "dns"].map(TaskArn::from).to_vec();
    let shares = [holding(0, &[], &[], &["g0"]), holding(4, &[80], &[], &[]), holding(3, &[], &[53], &[])];
    let ledger = Ledger { capacity: &capacity, holders: names.iter().zip(shares).collect() };
    let shortages = |cpu: u32, ports: &[(u16, Protocol)], gpus: &[&str]| {
        let mut wanted = container("a", &[]);
        wanted.cpu = cpu;
        wanted.gpus = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
        let mapping =
            |&(host_port, protocol): &(u16, Protocol)| PortMapping { container_port: host_port, host_port, protocol };
        wanted.ports = ports.iter().map(mapping).collect();
        ledger.shortages(&task(vec![wanted])).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(shortages(3, &[], &[]), [""; 0], "all that is left is enough");
    assert_eq!(shortages(4, &[], &[]), ["4 CPU units (3 free; held by web, dns)"], "not by the idle one");
    let (web, dns, free) = ((80, Protocol::Tcp), (53, Protocol::Udp), (81, Protocol::Tcp));
    assert_eq!(shortages(0, &[free, (80, Protocol::Udp)], &["g1"]), [""; 0]);
    assert_eq!(shortages(0, &[web, free], &[]), ["80 81 host ports (81 free; held by web)"]);
    assert_eq!(shortages(0, &[web, dns], &[]), ["53 80 host ports (none free; held by web, dns)"]);
    assert_eq!(shortages(0, &[], &["g0"]), ["g0 GPUs (none free; held by idle)"]);
}
