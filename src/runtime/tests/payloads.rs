//! Tests that no payload makes the agent panic between the wire and the container engine, across both edges.
//!
//! A recorded task, a task with every setting, and the corpus of odd messages are mutated from seeds. Each result goes through
//! decoding, translation and the body of the create call.

use crate::acs::{self, HostFacts, ReceivedTask};
use crate::docker;
use ecs_core::model::{ContainerSpec, CreateRequest, TaskSpec};
use ecs_testing::corpus;
use serde_json::{Value, json};

const ROUNDS_PER_CASE: usize = 12;

/// Reproducible random numbers (splitmix64), from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

fn file(name: &str) -> Value {
    let path = format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A task with every member that this agent supports: two plain containers, one with values that are stored in AWS, and a log
/// router.
fn full() -> Value {
    let config = json!({
        "User": "1:2", "WorkingDir": "/w", "Hostname": "h", "Labels": {"a": "b"}, "OpenStdin": true, "Tty": true,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 1}, "StopSignal": "SIGINT",
        "ExposedPorts": {"9/tcp": {}}, "Env": ["A=1"], "NetworkDisabled": false,
    });
    let host_config = json!({
        "CapAdd": ["ALL"], "CapDrop": ["CHOWN"], "Devices": [{"PathOnHost": "/a", "PathInContainer": "/b", "CgroupPermissions": "r"}],
        "Init": true, "ShmSize": 1, "Tmpfs": {"/t": "size=1"}, "MemorySwap": -1, "MemorySwappiness": 3, "Privileged": true,
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Sysctls": {"a.b": "1"}, "ReadonlyRootfs": true,
        "Dns": ["1.1.1.1"], "DnsSearch": ["x"], "ExtraHosts": ["a:1.1.1.1"], "SecurityOpt": ["label:a"], "NetworkMode": "bridge",
        "LogConfig": {"Type": "awslogs", "Config": {"awslogs-region": "r", "mode": "non-blocking"}}, "MemoryReservation": 4_194_304,
        "PortBindings": {"9/tcp": [{"HostPort": "9"}]}, "Binds": ["/a:/b"], "Links": null,
    });
    let routed =
        json!({"LogConfig": {"Type": "awsfirelens", "Config": {"Name": "stdout", "log-driver-buffer-limit": "5"}}});
    let container = |name: &str, from: &str| {
        json!({
            "name": name, "image": "image", "command": ["a"], "entryPoint": ["b"], "environment": {"C": "d"}, "essential": true,
            "cpu": 1, "memory": 4, "links": [format!("{from}:alias")], "startTimeout": 1, "stopTimeout": 2,
            "portMappings": [
                {"containerPort": 1, "hostPort": 2, "protocol": "tcp"}, {"containerPortRange": "65000-65535", "protocol": "udp"},
            ],
            "mountPoints": [
                {"sourceVolume": "v", "containerPath": "/v", "readOnly": true}, {"sourceVolume": "d", "containerPath": "/d"},
                {"sourceVolume": "e", "containerPath": "/e"},
            ],
            "volumesFrom": [{"sourceContainer": from, "readOnly": true}], "overrides": {"command": ["e"]},
            "dependsOn": [{"containerName": from, "condition": "START"}], "healthCheckType": "docker",
            "restartPolicy": {"enabled": true, "ignoredExitCodes": [0], "restartAttemptPeriod": 60},
            "registryAuthentication": {"type": "ecr", "ecrAuthData": {"registryId": "1", "region": "r", "useExecutionRole": true}},
            "dockerConfig": {"config": config.to_string(), "hostConfig": host_config.to_string(), "version": "1.17"},
        })
    };
    let given = json!({
        "name": "given", "image": "image", "memory": 4, "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/f.env"}],
        "secrets": [
            {"name": "S", "valueFrom": "s", "provider": "ssm", "type": "ENVIRONMENT_VARIABLE", "region": "r"},
            {"name": "L", "valueFrom": "arn:aws:secretsmanager:r:1:secret:n:k::", "provider": "asm", "target": "LOG_DRIVER"},
        ],
        "credentialSpecs": ["credentialspec:file://c.json"],
        "registryAuthentication": {"type": "asm", "asmAuthData": {"credentialsParameter": "arn", "region": "r"}},
        "dockerConfig": {"hostConfig": routed.to_string()},
    });
    let options = json!({"enable-ecs-log-metadata": "true", "config-file-type": "file", "config-file-value": "/x"});
    let router = json!({
        "name": "router", "image": "image", "memory": 4, "firelensConfiguration": {"type": "fluentbit", "options": options},
    });
    let efs = json!({
        "fileSystemId": "fs-1", "rootDirectory": "/", "transitEncryption": "ENABLED", "transitEncryptionPort": 9,
        "authorizationConfig": {"accessPointId": "fsap-1", "iam": "ENABLED"},
    });
    let docker = json!({"scope": "shared", "autoprovision": true, "driver": "local", "driverOpts": {"o": "p"}, "labels": {"l": "m"}});
    message(json!({
        "arn": "arn:aws:ecs:r:1:task/c/1", "family": "f", "version": "1", "desiredStatus": "RUNNING", "serviceName": "s",
        "networkMode": "bridge", "pidMode": "task", "ipcMode": "task", "cpu": 0.5, "memory": 64,
        "executionRoleCredentials": {"credentialsId": "e", "roleArn": "r", "accessKeyId": "a", "secretAccessKey": "k",
            "sessionToken": "t", "expiration": "2030-01-01T00:00:00Z"},
        "roleCredentials": {"credentialsId": "t", "roleArn": "r", "accessKeyId": "a", "secretAccessKey": "k",
            "sessionToken": "t", "expiration": "2030-01-01T00:00:00Z"},
        "volumes": [
            {"name": "v", "type": "host", "host": {"sourcePath": "/v"}},
            {"name": "d", "type": "docker", "dockerVolumeConfiguration": docker},
            {"name": "e", "type": "efs", "efsVolumeConfiguration": efs},
        ],
        "associations": [{"type": "gpu", "name": "GPU-1", "containers": ["a"]}], "attachments": [s3_files()],
        "containers": [container("a", "b"), container("b", "a"), given, router],
    }))
}

/// The attachment that is a volume of S3 Files.
fn s3_files() -> Value {
    json!({"attachmentType": "s3files", "attachmentProperties": [
        {"name": "volumeId", "value": "fs-2"}, {"name": "volumeName", "value": "s"}, {"name": "s3FilesRootDirectory", "value": "/r"},
        {"name": "s3FilesTransitEncryptionPort", "value": "9"}, {"name": "s3FilesAccessPointId", "value": "fsap-2"},
    ]})
}

fn message(task: Value) -> Value {
    json!({"type": "PayloadMessage", "message": {
        "messageId": "m", "clusterArn": "c", "containerInstanceArn": "i", "seqNum": 1, "tasks": [task],
    }})
}

fn seeds() -> Vec<Value> {
    let mut recorded = file("golden/acs_payload_sent.json");
    recorded["message"]["tasks"][0].as_object_mut().unwrap().remove("roleCredentials"); // not supported yet
    let odd = corpus::cases().into_iter().filter_map(|case| case.get("message").cloned());
    [full(), recorded.take()].into_iter().chain(odd).collect()
}

/// The JSON pointers of all values in a document.
fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                pointers(value, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                pointers(value, &format!("{path}/{at}"), found);
            }
        }
        _ => {}
    }
}

fn odd_value(dice: &mut Dice) -> Value {
    let odd = [
        json!(null),
        json!(0),
        json!(-1),
        json!(65_535),
        json!(65_536),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5e300),
        json!(true),
        json!(""),
        json!("task"),
        json!("host"),
        json!("1-65535"),
        json!("65535-1"),
        json!("a"),
        json!("a:b:c"),
        json!("\u{0}é\u{1F600}"),
        json!("gpu"),
        json!("{}"),
        json!("{\"Memory\": -1, \"PortBindings\": {\"x\": null}, \"LogConfig\": {\"Type\": \"awslogs\"}}"),
        json!("9".repeat(400)),
        json!([]),
        json!([[]]),
        json!(["a", null]),
        json!({}),
        json!({"a": {"b": []}}),
    ];
    odd[dice.below(odd.len())].clone()
}

/// Changes one value, perhaps inside a document that is stored as text.
fn change(document: &mut Value, dice: &mut Dice) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    let path = &all[dice.below(all.len())];
    let kind = dice.below(4);
    let Some(place) = document.pointer_mut(path) else { return };
    let inner = place.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()).filter(Value::is_object);
    if let Some(mut inner) = inner {
        change(&mut inner, dice);
        *place = Value::from(inner.to_string());
        return;
    }
    match (kind, &mut *place) {
        (0, Value::Array(list)) if !list.is_empty() => {
            let again = list[dice.below(list.len())].clone();
            list.push(again);
        }
        (0 | 1, Value::Object(members)) if !members.is_empty() => {
            let name = members.keys().nth(dice.below(members.len())).unwrap().clone();
            let value = members.remove(&name).unwrap();
            if kind == 0 {
                members.insert(name.to_uppercase(), value);
            }
        }
        (2, Value::String(text)) if !text.is_empty() => {
            let at = text.floor_char_boundary(dice.below(text.len()));
            text.truncate(at);
        }
        _ => *place = odd_value(dice),
    }
}

fn request(task: &TaskSpec, spec: &ContainerSpec) -> CreateRequest {
    CreateRequest {
        task: task.arn.clone(),
        family: task.family.clone(),
        version: task.version.clone(),
        runtime_name: task.runtime_name(&spec.name),
        links: spec.links.iter().map(|link| (task.runtime_name(&link.container), link.alias.clone())).collect(),
        volumes_from: spec
            .volumes_from
            .iter()
            .map(|from| (task.runtime_name(&from.container), from.read_only))
            .collect(),
        pause: task.pause().map(|pause| task.runtime_name(&pause.name)),
        outline: task.outline(),
        spec: spec.clone(),
        ..CreateRequest::default()
    }
}

#[test]
fn no_payload_panics_between_the_wire_and_the_engine() {
    // PROPTEST_CASES, the number of cases of the other property tests, makes this one longer, too.
    let rounds = proptest::test_runner::Config::default().cases as usize * ROUNDS_PER_CASE;
    let (seeds, mut ran, mut made) = (seeds(), 0, 0);
    for round in 0..rounds {
        let mut dice = Dice(round as u64);
        // Mostly one of the two complete tasks: most of the other messages are refused even without a change.
        let from = if dice.below(4) > 0 { dice.below(2) } else { dice.below(seeds.len()) };
        let mut document = seeds[from].clone();
        for _ in 0..dice.below(4) {
            change(&mut document, &mut dice);
        }
        let host = HostFacts {
            gpus: dice.below(8) > 0,
            inferentia: dice.below(2) == 0,
            is_external: dice.below(4) == 0,
            credential_specs: dice.below(8) > 0,
            volume_plugin: (dice.below(8) > 0).then(|| "efsAuth".to_owned()).into_iter().collect(),
            ..HostFacts::default()
        };
        for task in acs::tasks_in(&document.to_string(), &host) {
            let ReceivedTask::Run(task) = task else { continue };
            ran += 1;
            for container in &task.containers {
                made += usize::from(docker::create_body(&request(&task, container)).is_ok());
            }
        }
    }
    assert!(ran > rounds / 5 && made > rounds / 5, "{ran} tasks of {rounds} ran, {made} containers were made");
}
