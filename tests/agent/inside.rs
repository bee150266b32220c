//! Settings of task definitions as containers see them from inside: each container prints what it finds, and the test compares.

use super::rig::{LIMIT, Plan, Rig};
use ecs_local::{Task, TaskStatus};
use ecs_testing::docker::{docker, remaps_users};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A container that prints `name=value` lines and ends.
fn looks(name: &str, image: &str, script: &str, more: Value) -> Value {
    let mut container = json!({
        "name": name, "image": image, "memory": 32, "essential": false, "command": ["sh", "-c", script],
    });
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    container
}

/// Runs the task until its essential container `end` has ended.
async fn ran(rig: &Rig, definition: &Value) -> Task {
    let arn = rig.server.run_task(definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    for container in &task.containers {
        assert_eq!((container.exit_code, &container.reason), (Some(0), &None), "{}: {}", container.name, rig.log());
    }
    task
}

/// The lines that a container of the task printed, as names and values.
fn lines(task: &Task, container: &str) -> BTreeMap<String, String> {
    let id = task.container(container).unwrap().runtime_id.clone().unwrap();
    let output = docker(&["logs", &id]);
    let pairs = output.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn assert_same(found: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
    for (name, value) in wanted {
        assert_eq!(found.get(*name).map(String::as_str), Some(*value), "{name} in {found:?}");
    }
}

/// An essential container that ends last, so that all others have ended by themselves.
fn end(image: &str, after: &[&str]) -> Value {
    let after: Vec<Value> = after.iter().map(|name| json!({"containerName": name, "condition": "COMPLETE"})).collect();
    looks("end", image, "exit 0", json!({"essential": true, "dependsOn": after}))
}

const LIMITED: &str = r#"
    echo caps=$(busybox grep CapEff /proc/self/status | busybox cut -f2)
    echo first=$(busybox cat /proc/1/comm)
    echo shm=$(busybox df -k /dev/shm | busybox tail -1 | busybox awk '{print $2}')
    echo scratch=$(busybox df -k /scratch | busybox tail -1 | busybox awk '{print $2}')
    echo options=$(busybox grep ' /scratch ' /proc/mounts)
    echo device=$(busybox head -c 3 /dev/ecs-zero | busybox od -An -tx1)
    echo files=$(ulimit -n)/$(ulimit -Hn)
    echo somaxconn=$(busybox cat /proc/sys/net/core/somaxconn)
    echo memory=$(busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)
    echo swappiness=$(busybox cat /sys/fs/cgroup/memory/memory.swappiness 2>/dev/null)
    echo shares=$(busybox cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null)
"#;

const SETTINGS: &str = r#"
    echo root=$(echo x 2>/dev/null > /written && echo writable || echo read-only)
    echo dns=$(busybox grep ^nameserver /etc/resolv.conf)
    echo search=$(busybox grep ^search /etc/resolv.conf)
    echo hosts=$(busybox grep extra.example /etc/hosts)
    echo name=$(busybox hostname)
    echo place=$(busybox pwd)
    echo user=$(busybox id -u):$(busybox id -g)
    echo tty=$(busybox tty)
    echo privileges=$(busybox grep NoNewPrivs /proc/self/status | busybox cut -f2)
    echo variable=$VARIABLE
"#;

/// The limits that the kernel enforces.
fn limits() -> Value {
    json!({
        "cpu": 300,
        "linuxParameters": {
            "capabilities": {"add": ["SYS_TIME"], "drop": ["ALL"]},
            "devices": [{"hostPath": "/dev/zero", "containerPath": "/dev/ecs-zero", "permissions": ["read"]}],
            "initProcessEnabled": true, "sharedMemorySize": 7, "maxSwap": 16, "swappiness": 13,
            "tmpfs": [{"containerPath": "/scratch", "size": 3, "mountOptions": ["noexec", "ro"]}],
        },
        "ulimits": [{"name": "nofile", "softLimit": 512, "hardLimit": 777}],
        "systemControls": [{"namespace": "net.core.somaxconn", "value": "321"}],
        "healthCheck": {"command": ["CMD", "true"], "interval": 31, "timeout": 4, "retries": 2, "startPeriod": 9},
    })
}

fn limits_are_seen(task: &Task) {
    let found = lines(task, "limited");
    let wanted = [
        ("caps", "0000000002000000"),
        ("first", "docker-init"),
        ("shm", "7168"),
        ("scratch", "3072"),
        ("device", "00 00 00"),
        ("files", "512/777"),
        ("somaxconn", "321"),
        ("memory", "33554432"),
    ];
    assert_same(&found, &wanted);
    let options = found["options"].split(' ').nth(3).unwrap();
    assert!(options.starts_with("ro,") && options.contains("noexec"), "{options}");
    if !found["shares"].is_empty() {
        assert_same(&found, &[("swappiness", "13"), ("shares", "300")]); // cgroups v1
    }
    let id = task.container("limited").unwrap().runtime_id.clone().unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.HostConfig.MemorySwap}}", &id]), (48 << 20).to_string());
    // Every container may write to /dev/zero, whatever the permissions of a second name for it.
    let devices = docker(&["inspect", "--format", "{{.HostConfig.Devices}}", &id]);
    assert_eq!(devices, "[{/dev/zero /dev/ecs-zero r}]");
    let check: Value =
        serde_json::from_str(&docker(&["inspect", "--format", "{{json .Config.Healthcheck}}", &id])).unwrap();
    let second = 1_000_000_000_u64;
    let wanted = json!({
        "Test": ["CMD", "true"], "Interval": 31 * second, "Timeout": 4 * second, "Retries": 2, "StartPeriod": 9 * second,
    });
    assert_eq!(check, wanted);
}

/// Settings that the container finds in its surroundings.
fn settings() -> Value {
    json!({
        "readonlyRootFilesystem": true, "dnsServers": ["10.9.8.7"], "dnsSearchDomains": ["search.example"],
        "extraHosts": [{"hostname": "extra.example", "ipAddress": "10.1.2.3"}], "hostname": "inside",
        "workingDirectory": "/tmp", "user": "7:8", "pseudoTerminal": true, "interactive": true,
        "dockerSecurityOptions": ["no-new-privileges"], "dockerLabels": {"mine": "label"},
        "environment": [{"name": "VARIABLE", "value": "a = 'b'"}],
        "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
        "entryPoint": ["busybox", "env", "-u", "HOME"],
    })
}

fn settings_are_seen(task: &Task) {
    let found = lines(task, "settings");
    let wanted = [
        ("root", "read-only"),
        ("dns", "nameserver 10.9.8.7"),
        ("search", "search search.example"),
        ("hosts", "10.1.2.3 extra.example"),
        ("name", "inside"),
        ("place", "/tmp"),
        ("user", "7:8"),
        ("tty", "/dev/pts/0"),
        ("privileges", "1"),
        ("variable", "a = 'b'"),
    ];
    assert_same(&found, &wanted);
    let id = task.container("settings").unwrap().runtime_id.clone().unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.Config.Labels.mine}} {{.Config.OpenStdin}}", &id]), "label true");
    assert_eq!(docker(&["inspect", "--format", "{{.HostConfig.LogConfig.Config}}", &id]), "map[max-size:1m]");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_a_container_are_seen_from_inside() {
    let Some(rig) = Rig::start("parameters from inside", Plan::default()).await else { return };
    if remaps_users("a device under another name in the container") {
        return;
    }
    let image = rig.image();
    let alone = "echo links=$(busybox ls /sys/class/net | busybox tr '\\n' ' ')";
    let task = ran(
        &rig,
        &json!({
            "family": "inside",
            "containerDefinitions": [
                looks("limited", &image, LIMITED, limits()),
                looks("settings", &image, SETTINGS, settings()),
                looks("alone", &image, alone, json!({"disableNetworking": true})),
                end(&image, &["limited", "settings", "alone"]),
            ],
        }),
    )
    .await;
    limits_are_seen(&task);
    settings_are_seen(&task);
    assert_same(&lines(&task, "alone"), &[("links", "lo")]);
}

/// Docker gives a privileged container all capabilities of the kernel. If the host itself has fewer, older engines fail, and newer
/// ones give what there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_has_every_capability() {
    let Some(rig) = Rig::start("a privileged container", Plan::default()).await else { return };
    if remaps_users("a privileged container") {
        return;
    }
    let script = "echo caps=$(busybox grep CapEff /proc/self/status | busybox cut -f2)";
    let only = looks("only", &rig.image(), script, json!({"essential": true, "privileged": true}));
    let arn = rig.server.run_task(&json!({"family": "privileged", "containerDefinitions": [only]})).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    let id = task.container("only").unwrap().runtime_id.clone().unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.HostConfig.Privileged}}", &id]), "true");
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let all = (1_u64 << (last + 1)) - 1;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim().to_owned();
    let own = u64::from_str_radix(&own, 16).unwrap();
    let reason = task.container("only").unwrap().reason.clone().unwrap_or_default();
    if own != all && reason.contains("unable to apply caps") {
        return;
    }
    assert_eq!(u64::from_str_radix(&lines(&task, "only")["caps"], 16), Ok(own), "{reason} {}", rig.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_the_namespaces_of_their_task() {
    let plan = Plan { environment: &[("ECS_PAUSE_LABELS", r#"{"mine": "pause"}"#)], ..Plan::default() };
    let Some(rig) = Rig::start("shared namespaces", plan).await else { return };
    let image = rig.image();
    let writes = "busybox ln -s yes /made && echo hello > /data/note && echo shared > /dev/shm/note; exec sleep 600";
    let reads = r#"
        while ! busybox grep -q shared /dev/shm/note 2>/dev/null; do busybox usleep 50000; done
        echo note=$(busybox cat /data/note 2>/dev/null)
        echo first=$(busybox cat /proc/1/comm)
        for at in /proc/[0-9]*; do busybox tr '\0' ' ' < $at/cmdline; echo; done | busybox grep -q '^sleep 600' && echo other=seen
        echo x 2>/dev/null > /data/mine && echo writes=yes || echo writes=no
    "#;
    let from = json!([{"sourceContainer": "writer", "readOnly": true}]);
    let definition = json!({
        "family": "shared", "pidMode": "task", "ipcMode": "task",
        "volumes": [{"name": "host", "host": {"sourcePath": rig.shared("data-of-task")}}],
        "containerDefinitions": [
            looks("writer", &image, writes, json!({"stopTimeout": 1, "essential": true,
                "mountPoints": [{"sourceVolume": "host", "containerPath": "/data"}]})),
            looks("reader", &image, reads, json!({"volumesFrom": from})),
            end(&image, &["reader"]),
        ],
    });
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_same(&lines(&task, "reader"), &[("note", "hello"), ("first", "pause"), ("other", "seen"), ("writes", "no")]);

    // The agent's own container: labelled, stopped last, never reported.
    let pause = rig.containers().into_iter().find(|name| name.contains("-internalecspausenamespace-")).unwrap();
    let ended = |name: &str| docker(&["inspect", "--format", "{{.State.FinishedAt}}", name]);
    for container in rig.containers().iter().filter(|name| **name != pause) {
        assert!(ended(container) <= ended(&pause), "{container}");
    }
    assert_eq!(docker(&["inspect", "--format", "{{.Config.Labels.mine}}", &pause]), "pause");
    assert_eq!(docker(&["inspect", "--format", "{{len .Config.Env}}", &pause]), "0");
    assert!(!format!("{:?}", rig.reports(&arn)).contains("pause"));
    let shown = rig.introspect(&format!("/v1/tasks?taskarn={arn}")).await;
    assert_eq!(shown["Containers"].as_array().unwrap().len(), 3, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_task_may_use_its_namespaces_or_none() {
    let Some(rig) = Rig::start("the host's namespaces", Plan::default()).await else { return };
    if remaps_users("a container in the host's namespaces") {
        return;
    }
    let image = rig.image();
    let script = "for kind in pid ipc net; do echo $kind=$(busybox readlink /proc/self/ns/$kind); done
        echo links=$(busybox ls /sys/class/net | busybox wc -l)
        echo shm=$(busybox grep -c ' /dev/shm ' /proc/mounts)";
    let host_namespace =
        |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    for (pid, ipc, network) in [("host", "host", "host"), ("host", "none", "none")] {
        let definition = json!({
            "family": "host", "pidMode": pid, "ipcMode": ipc, "networkMode": network,
            "containerDefinitions": [looks("only", &image, script, json!({"essential": true}))],
        });
        let found = lines(&ran(&rig, &definition).await, "only");
        assert_eq!(found["pid"], host_namespace("pid"), "{found:?}");
        assert_eq!(found["ipc"] == host_namespace("ipc"), ipc == "host", "{found:?}");
        assert_eq!(found["net"] == host_namespace("net"), network == "host", "{found:?}");
        assert!(network == "host" || found["links"] == "1", "{found:?}");
        assert_eq!(found["shm"], if ipc == "none" { "0" } else { "1" }, "{found:?}");
    }
    assert!(!rig.containers().iter().any(|name| name.contains("pause")));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_port_range_is_one_binding() {
    let Some(rig) = Rig::start("port ranges", Plan::default()).await else { return };
    let image = rig.image();
    let serve = "for port in 7000 7001 7002; do httpd -p $port -h /www; done; exec sleep 600";
    let ports = json!([{"containerPortRange": "7000-7002"}, {"containerPort": 7000, "protocol": "udp"}]);
    let definition = json!({
        "family": "ports",
        "containerDefinitions": [looks("main", &image, serve, json!({
            "essential": true, "stopTimeout": 1, "portMappings": ports,
        }))],
    });
    let arn = rig.server.run_task(&definition).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    let reports = rig.reports(&arn);
    let running = reports.iter().find(|report| report["status"] == "RUNNING").unwrap();
    let bindings = running["containers"][0]["networkBindings"].as_array().unwrap();
    assert_eq!(bindings.len(), 2, "{bindings:?}");
    let single = bindings.iter().find(|binding| binding["containerPort"] == 7000).unwrap();
    assert_eq!(single["protocol"], "udp");
    let range = bindings.iter().find(|binding| binding["containerPortRange"] == "7000-7002").unwrap();
    let (first, last) = range["hostPortRange"].as_str().unwrap().split_once('-').unwrap();
    let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
    assert_eq!((last - first, &range["protocol"], &range["bindIP"]), (2, &json!("tcp"), &json!("0.0.0.0")));
    for port in first..=last {
        let url = format!("http://127.0.0.1:{port}/index.html");
        let page = async || reqwest::get(&url).await.ok()?.text().await.ok().filter(|page| page.contains("hello"));
        until("the page behind each port", LIMIT, page).await;
    }
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
}
