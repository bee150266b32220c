use super::*;
use std::collections::BTreeSet;

fn golden_task() -> Value {
    let path = format!("{}/../../tests/golden/acs_payload_sent.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    golden["message"]["tasks"][0].clone()
}

/// The definition from which ECS would make the recorded payload.
fn definition() -> TaskDefinition {
    serde_json::from_value(json!({
        "family": "judge-family", "networkMode": "bridge", "cpu": "512", "memory": "256",
        "taskRoleArn": "arn:aws:iam::123456789012:role/taskRole",
        "executionRoleArn": "arn:aws:iam::123456789012:role/execRole",
        "volumes": [
            {"name": "scratch", "dockerVolumeConfiguration":
                {"scope": "task", "autoprovision": false, "driver": "local", "driverOpts": {}, "labels": {"v": "1"}}},
            {"name": "hostdir", "host": {"sourcePath": "/srv"}},
            {"name": "anon", "host": {}},
        ],
        "containerDefinitions": [{
            "name": "web", "image": "localhost:5001/judge/open:latest", "cpu": 128, "memory": 64, "user": "root",
            "command": ["httpd", "-f", "-p", "80", "-h", "/www"], "dockerLabels": {"my": "label"},
            "environment": [{"name": "A", "value": "1"}, {"name": "SHARED", "value": "definition"}],
            "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::judge-bucket/app.env"}],
            "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 1, "timeout": 1, "retries": 2},
            "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 2048}],
            "linuxParameters": {"capabilities": {"add": ["NET_ADMIN"]}, "tmpfs": [{"containerPath": "/t", "size": 1}]},
            "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
            "mountPoints": [
                {"sourceVolume": "scratch", "containerPath": "/scratch"},
                {"sourceVolume": "hostdir", "containerPath": "/host", "readOnly": true},
                {"sourceVolume": "anon", "containerPath": "/anon"},
            ],
            "portMappings": [{"containerPort": 80, "hostPort": 28480}, {"containerPort": 81, "protocol": "udp"}],
            "secrets": [
                {"name": "FROM_SSM", "valueFrom": "/judge/ssm"},
                {"name": "FROM_ASM", "valueFrom": "arn:aws:secretsmanager:us-west-2:123456789012:secret:judge-AbCdEf"},
            ],
        }, {
            "name": "side", "image": "localhost:5000/judge/private:latest", "cpu": 10, "memory": 32, "essential": false,
            "command": ["sh", "-c", "trap 'exit 0' TERM INT; sleep 3600 & wait"], "links": ["web:web"],
            "dependsOn": [{"containerName": "web", "condition": "HEALTHY"}],
            "volumesFrom": [{"sourceContainer": "web", "readOnly": true}],
        }],
    }))
    .unwrap()
}

fn made(commands: &BTreeMap<String, Vec<String>>) -> Value {
    let definition = definition();
    let launch = Launch {
        definition: &definition,
        definition_arn: "arn",
        revision: 7,
        commands,
        cluster: "judge",
        instance_arn: "instance",
        overrides: json!({}),
        group: "family:judge-family",
        started_by: None,
        gpus: &[],
    };
    task(&Site::example(), &launch).payload
}

fn parsed(container: &Value, part: &str) -> Value {
    serde_json::from_str(container["dockerConfig"][part].as_str().unwrap()).unwrap()
}

#[test]
fn the_payload_equals_the_recorded_one() {
    let (mut golden, mut made) = (golden_task(), made(&BTreeMap::new()));
    for index in 0..2 {
        for part in ["config", "hostConfig"] {
            let mut own = parsed(&made["containers"][index], part);
            let recorded = parsed(&golden["containers"][index], part);
            if part == "hostConfig" {
                // ECS always sends the network mode; the recorded stand-in left it to the default. An empty CapDrop equals a
                // missing one.
                assert_eq!(own["NetworkMode"], "bridge");
                own.as_object_mut().unwrap().retain(|name, _| name != "NetworkMode" && name != "CapDrop");
            }
            assert_eq!(own, recorded, "{part} of container {index}");
        }
        for task in [&mut golden, &mut made] {
            task["containers"][index].as_object_mut().unwrap().remove("dockerConfig");
        }
        // ECS sends these; the recorded stand-in did not.
        let own = made["containers"][index].as_object_mut().unwrap();
        assert!(own.remove("containerArn").unwrap().as_str().unwrap().contains(":container/judge/"));
        assert_eq!(own["environment"].as_object_mut().unwrap().remove("AWS_EXECUTION_ENV").unwrap(), "AWS_ECS_EC2");
    }
    for role in ["roleCredentials", "executionRoleCredentials"] {
        let members = |task: &Value| task[role].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(members(&golden), members(&made), "{role}");
        assert_eq!(golden[role]["roleArn"], made[role]["roleArn"]);
    }
    for own in ["group", "taskClusterArn"] {
        assert!(made.as_object_mut().unwrap().remove(own).is_some(), "{own}");
    }
    for task in [&mut golden, &mut made] {
        let members = task.as_object_mut().unwrap();
        members.retain(|name, _| !["arn", "roleCredentials", "executionRoleCredentials"].contains(&name.as_str()));
    }
    assert_eq!(made, golden);
}

#[test]
fn the_stream_of_a_log_is_named_after_container_and_task() {
    let mut definition = definition();
    let log = json!({"logDriver": "awslogs", "options": {"awslogs-group": "g", "awslogs-stream-prefix": "p"}});
    definition.container_definitions[0].log_configuration = serde_json::from_value(log).unwrap();
    let host = host_config(&definition, &definition.container_definitions[0], "id");
    assert_eq!(host["LogConfig"]["Config"], json!({"awslogs-group": "g", "awslogs-stream": "p/web/id"}));
}

#[test]
fn an_overriding_command_travels_in_overrides() {
    let commands = BTreeMap::from([("side".to_owned(), vec!["echo".to_owned(), "x".to_owned()])]);
    let task = made(&commands);
    assert_eq!(task["containers"][1]["overrides"], r#"{"command":["echo","x"]}"#);
    assert_eq!(task["containers"][0]["overrides"], "{}");
}

#[test]
fn docker_gets_its_own_units() {
    let definition: TaskDefinition = serde_json::from_value(json!({"family": "f", "networkMode": "host", "containerDefinitions": [{
        "name": "a", "image": "i", "memory": 64, "memoryReservation": 32, "privileged": true, "workingDirectory": "/w",
        "extraHosts": [{"hostname": "h", "ipAddress": "10.0.0.1"}],
        "healthCheck": {"command": ["CMD", "true"], "startPeriod": 7},
        "linuxParameters": {
            "maxSwap": 16, "sharedMemorySize": 8, "initProcessEnabled": true,
            "devices": [{"hostPath": "/dev/null", "permissions": ["read", "mknod"]}],
            "tmpfs": [{"containerPath": "/t", "size": 2, "mountOptions": ["noexec"]}],
        },
    }]}))
    .unwrap();
    let container = &definition.container_definitions[0];
    let host = without_nulls(host_config(&definition, container, "id"));
    assert_eq!(
        host,
        json!({
            "NetworkMode": "host", "Privileged": true, "ExtraHosts": ["h:10.0.0.1"], "MemoryReservation": 33_554_432_u64,
            "MemorySwap": 83_886_080_u64, "ShmSize": 8_388_608_u64, "Init": true, "Tmpfs": {"/t": "noexec,size=2m"},
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rm"}],
        })
    );
    let config = without_nulls(config(container));
    assert_eq!(config["WorkingDir"], "/w");
    assert_eq!(config["Healthcheck"]["StartPeriod"], 7_000_000_000_u64);
    assert_eq!(config["Healthcheck"]["Interval"], 30_000_000_000_u64);
}

/// The payload of a task with one container, with these members added to the definition and to the container.
fn with(task_members: Value, container_members: Value, gpus: &[String]) -> Value {
    let mut container = json!({"name": "a", "image": "busybox", "memory": 64});
    container.as_object_mut().unwrap().extend(container_members.as_object().unwrap().clone());
    let mut definition = json!({"family": "f", "containerDefinitions": [container]});
    definition.as_object_mut().unwrap().extend(task_members.as_object().unwrap().clone());
    let definition: TaskDefinition = serde_json::from_value(definition).unwrap();
    let launch = Launch {
        definition: &definition,
        definition_arn: "arn",
        revision: 1,
        commands: &BTreeMap::new(),
        cluster: "judge",
        instance_arn: "instance",
        overrides: json!({}),
        group: "family:judge-family",
        started_by: None,
        gpus,
    };
    task(&Site::example(), &launch).payload
}

#[test]
fn volumes_of_docker_and_efs_are_sent_with_their_defaults() {
    let volumes = json!({"volumes": [
        {"name": "cache", "dockerVolumeConfiguration": {"driver": "local", "labels": {"a": "b"}}},
        {"name": "shared", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}},
        {"name": "files", "efsVolumeConfiguration": {"fileSystemId": "fs-12345678", "transitEncryption": "ENABLED"}},
    ]});
    let made = with(volumes, json!({}), &[]);
    let docker = |scope: &str, autoprovision: bool, labels: Value| json!({"scope": scope, "autoprovision": autoprovision, "driver": "local", "driverOpts": {}, "labels": labels});
    let expected = json!([
        {"name": "cache", "type": "docker", "dockerVolumeConfiguration": docker("task", false, json!({"a": "b"}))},
        {"name": "shared", "type": "docker", "dockerVolumeConfiguration": docker("shared", true, json!({}))},
        {"name": "files", "type": "efs",
            "efsVolumeConfiguration": {"fileSystemId": "fs-12345678", "transitEncryption": "ENABLED"}},
    ]);
    assert_eq!(made["volumes"], expected);
}

#[test]
fn volumes_of_s3_files_are_sent_as_the_recorded_attachments() {
    let arn = "arn:aws:s3files:us-west-2:123456789012:file-system/fs-0123456789abcdef0";
    let files = json!({"fileSystemArn": arn, "rootDirectory": "/a", "transitEncryptionPort": 20050,
        "accessPointArn": format!("{arn}/access-point/fsap-9")});
    let made = with(json!({"volumes": [{"name": "data", "s3filesVolumeConfiguration": files}]}), json!({}), &[]);
    let recorded: Value = serde_json::from_str(include_str!("../../../tests/golden/efs/volumes.json")).unwrap();
    let recorded = &recorded["s3files"];
    assert_eq!(made["volumes"], recorded["volumes"]);
    let mut attachments = made["attachments"].clone();
    let sent = attachments[0]["attachmentArn"].take();
    assert!(sent.as_str().unwrap().starts_with("arn:aws:ecs:us-west-2:123456789012:attachment/"), "{sent}");
    attachments[0]["attachmentArn"] = recorded["attachments"][0]["attachmentArn"].clone();
    assert_eq!(attachments, recorded["attachments"]);
    assert_eq!(with(json!({}), json!({}), &[])["attachments"], Value::Null);
}

#[test]
fn a_secret_is_looked_for_in_the_region_its_arn_names() {
    let secrets = json!([
        {"name": "A", "valueFrom": "arn:aws:secretsmanager:eu-west-1:1:secret:s-AbCdEf"},
        {"name": "B", "valueFrom": "/plain/name"},
    ]);
    let made = with(json!({"executionRoleArn": "role"}), json!({"secrets": secrets}), &[]);
    let made = made["containers"][0]["secrets"].as_array().unwrap();
    let found: Vec<_> =
        made.iter().map(|secret| (secret["provider"].as_str().unwrap(), secret["region"].as_str().unwrap())).collect();
    assert_eq!(found, [("asm", "eu-west-1"), ("ssm", "us-west-2")]);
}

#[test]
fn a_restart_policy_and_gpus_are_sent_as_ecs_does() {
    let gpus = ["GPU-1".to_owned(), "GPU-2".to_owned()];
    let members = json!({
        "restartPolicy": {"enabled": true, "ignoredExitCodes": [0]},
        "resourceRequirements": [{"type": "GPU", "value": "1"}],
    });
    let made = with(json!({}), members, &gpus);
    let policy = json!({"enabled": true, "ignoredExitCodes": [0], "restartAttemptPeriod": 300});
    assert_eq!(made["containers"][0]["restartPolicy"], policy);
    assert_eq!(made["associations"], json!([{"name": "GPU-1", "type": "gpu", "containers": ["a"]}]));
}
