use super::*;

fn container(definition: &str, id: &str, name: &str) -> TopContainer {
    TopContainer {
        cluster: "default".to_owned(),
        instance_arn: instance(Some(3.0)).arn,
        task_arn: format!("arn:aws:ecs:us-west-2:123456789012:task/default/10ca1abcde01234567890000{id}"),
        definition: definition.to_owned(),
        container: name.to_owned(),
        status: "RUNNING".to_owned(),
        running_seconds: Some(300.0),
        ..TopContainer::default()
    }
}

fn instance(metrics_age_seconds: Option<f64>) -> TopInstance {
    TopInstance {
        arn: "arn:aws:ecs:us-west-2:123456789012:container-instance/default/0123456789abcdef01234567feedbeef"
            .to_owned(),
        cluster: "default".to_owned(),
        connected: true,
        metrics_age_seconds,
        is_idle: false,
    }
}

/// A server with a busy and an idle container, one that restarts, and one that was just placed.
fn busy() -> Top {
    let web = TopContainer {
        health: Some("HEALTHY".to_owned()),
        metrics_age_seconds: Some(7.0),
        cpu_percent: Some(12.34),
        memory_mib: Some(48.0),
        memory_limit_mib: Some(512),
        received_bytes_per_second: Some(1536.0),
        sent_bytes_per_second: Some(250_000_000.0),
        read_bytes: Some(0),
        written_bytes: Some(5 << 30),
        ..container("web:3", "aaaaaaaa", "main")
    };
    let side = TopContainer {
        health: Some("UNHEALTHY".to_owned()),
        cpu_percent: Some(0.04),
        memory_mib: Some(100.0),
        memory_limit_mib: None,
        received_bytes_per_second: None,
        restarts: Some(12),
        ..TopContainer { container: "side".to_owned(), ..web.clone() }
    };
    let ended =
        TopContainer { status: "STOPPED".to_owned(), exit_code: Some(3), ..container("web:3", "aaaaaaaa", "prepare") };
    let placed = TopContainer {
        status: "PENDING".to_owned(),
        running_seconds: None,
        memory_limit_mib: Some(64),
        ..container("batch:1", "bbbbbbbb", "main")
    };
    Top { at: 1_795_326_998.0, instances: vec![instance(Some(7.0))], containers: vec![placed, side, web, ended] }
}

#[test]
fn the_busiest_container_comes_first() {
    let wanted = "\
TASK              CONTAINER  CPU %      MEMORY     RX/s     TX/s  READ  WRITTEN  RESTARTS  HEALTH     STATUS
web:3 aaaaaaaa    main        12.3  48/512 MiB  1.5 KiB  238 MiB   0 B  5.0 GiB         -  HEALTHY    RUNNING
web:3 aaaaaaaa    side         0.0     100 MiB        -  238 MiB   0 B  5.0 GiB        12  UNHEALTHY  RUNNING
batch:1 bbbbbbbb  main           -    -/64 MiB        -        -     -        -         -  -          PENDING
web:3 aaaaaaaa    prepare        -           -        -        -     -        -         -  -          STOPPED, exit code 3";
    assert_eq!(plain(&busy(), &[], Sort::Cpu).join("\n"), wanted);
    let first =
        |sort: Sort| plain(&busy(), &[], sort).iter().map(|line| line[18..25].trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(first(Sort::Memory), ["CONTAIN", "side", "main", "main", "prepare"]);
    assert_eq!(first(Sort::Name), ["CONTAIN", "main", "main", "prepare", "side"]);
}

#[test]
fn a_terminal_shows_a_title_the_table_and_a_legend() {
    let lines = on_terminal(&busy(), &[], Sort::Cpu, 80, 10, false);
    let wanted = "\
ecs-local top 05:56:38Z  values 7 s old  tasks 2  containers 4  cluster default

TASK              CONTAINER  CPU %      MEMORY  HEALTH     STATUS
web:3 aaaaaaaa    main        12.3  48/512 MiB  HEALTHY    RUNNING
web:3 aaaaaaaa    side         0.0     100 MiB  UNHEALTHY  RUNNING
batch:1 bbbbbbbb  main           -    -/64 MiB  -          PENDING
web:3 aaaaaaaa    prepare        -           -  -          STOPPED, exit code 3


averages of 20 s, from telemetry; CPU: of the whole machine; q ends";
    let shown: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    assert_eq!(shown.join("\n"), wanted);
    let mut runs = busy();
    runs.containers.pop();
    let lines = on_terminal(&runs, &[], Sort::Cpu, 80, 10, false);
    assert!(lines[2].contains("MEMORY  RESTARTS  HEALTH") && !lines[2].contains("RX/s"), "{}", lines[2]);
    let cut = on_terminal(&busy(), &[], Sort::Cpu, 40, 10, false);
    assert_eq!((cut[0].as_str(), cut[4].as_str()), (&shown[0][..39], &shown[4][..39]));
}

#[test]
fn no_terminal_is_too_small() {
    for (columns, rows) in [(1, 1), (2, 3), (20, 5), (61, 6), (79, 8), (200, 50)] {
        let lines = on_terminal(&busy(), &["x: broken".to_owned()], Sort::Cpu, columns, rows, false);
        assert!(
            lines.len() <= rows && lines.iter().all(|line| line.chars().count() <= columns),
            "{columns} {rows} {lines:?}"
        );
    }
    let few = on_terminal(&busy(), &[], Sort::Cpu, 120, 6, false);
    assert!(few[3].starts_with("web:3 aaaaaaaa    main") && few[4] == "3 more: make the window larger", "{few:#?}");
}

#[test]
fn colours_are_parts_of_lines_and_can_be_off() {
    let coloured = on_terminal(&busy(), &[], Sort::Cpu, 120, 12, true).join("\n");
    assert!(coloured.contains("\x1b[32mHEALTHY\x1b[0m") && coloured.contains("\x1b[31mUNHEALTHY\x1b[0m"), "{coloured}");
    assert!(!on_terminal(&busy(), &[], Sort::Cpu, 120, 12, false).concat().contains('\x1b'));
    let mut odd = busy();
    odd.containers[0].container = "a\x1b[2Jb\nc".to_owned();
    odd.containers[0].definition = "x".repeat(200);
    let lines = plain(&odd, &[], Sort::Cpu);
    assert!(lines.len() == 5 && !lines.concat().contains('\x1b'), "{lines:?}");
}

#[test]
fn what_is_missing_is_explained() {
    let explained = |change: &dyn Fn(&mut Top)| {
        let mut top = busy();
        change(&mut top);
        plain(&top, &[], Sort::Cpu).into_iter().skip(1 + top.containers.len()).collect::<Vec<_>>()
    };
    assert!(explained(&|_| {}).is_empty());
    let first = ["instance feedbeef: telemetry comes every 20 s; waiting for the first message"];
    assert_eq!(explained(&|top| top.instances[0].metrics_age_seconds = None), first);
    assert_eq!(explained(&|top| top.instances[0].connected = false), ["instance feedbeef: its agent is not connected"]);
    let old = ["instance feedbeef: no telemetry for 75 s; the agent's log says why"];
    assert_eq!(explained(&|top| top.instances[0].metrics_age_seconds = Some(75.0)), old);
    let disabled = explained(&|top| top.instances[0].is_idle = true);
    assert!(disabled[0].ends_with("metrics are disabled (ECS_DISABLE_METRICS=true)"), "{disabled:?}");
    let fresh = explained(&|top| {
        top.instances[0].is_idle = true;
        top.containers.iter_mut().for_each(|container| container.running_seconds = Some(5.0));
    });
    assert!(fresh.is_empty(), "its values are about to come: {fresh:?}");
    let waiting = explained(&|top| {
        top.instances[0].is_idle = true;
        for container in &mut top.containers {
            (container.running_seconds, container.metrics_age_seconds) = (Some(5.0), None);
        }
    });
    assert_eq!(waiting, ["instance feedbeef: telemetry comes every 20 s; waiting for the values of 2 containers"]);
    let empty = |top: &Top| plain(top, &[], Sort::Cpu);
    assert!(empty(&Top::default())[0].starts_with("no agent is registered"));
    assert_eq!(empty(&Top { instances: vec![instance(Some(1.0))], ..Top::default() }), ["no task runs"]);
    assert_eq!(plain(&Top::default(), &["url: gone".to_owned()], Sort::Cpu), ["url: gone"]);
}

#[test]
fn old_values_are_not_shown_as_those_of_now() {
    let mut top = busy();
    top.containers.iter_mut().for_each(|container| container.metrics_age_seconds = Some(51.0));
    let lines = plain(&top, &[], Sort::Cpu);
    assert!(lines.iter().skip(1).all(|line| !line.contains("KiB") && !line.contains("12.3")), "{lines:#?}");
}

#[test]
fn several_clusters_and_instances_have_columns() {
    let mut top = busy();
    top.containers[0].cluster = "other".to_owned();
    let lines = plain(&top, &[], Sort::Name);
    assert!(lines[0].contains("CONTAINER  CLUSTER  CPU %"), "{}", lines[0]);
    top.containers[0].instance_arn = "arn/other/11112222".to_owned();
    assert!(plain(&top, &[], Sort::Name)[0].contains("CLUSTER  INSTANCE  CPU %"));
    top.instances.push(TopInstance { cluster: "other".to_owned(), ..instance(Some(1.0)) });
    assert!(on_terminal(&top, &[], Sort::Name, 200, 9, false)[0].ends_with("  containers 4  2 clusters"));
}

#[test]
fn sizes_are_short() {
    let table = [
        (0.0, "0 B"),
        (999.4, "999 B"),
        (1023.6, "1.0 KiB"),
        (1536.0, "1.5 KiB"),
        (250_000_000.0, "238 MiB"),
        (5_368_709_120.0, "5.0 GiB"),
        (9e15, "8185.5 TiB"),
    ];
    for (bytes, wanted) in table {
        assert_eq!(size(bytes), wanted);
    }
}
