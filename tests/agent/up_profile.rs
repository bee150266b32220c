//! `ecs-local up --task-role-profile`: containers get the keys of a real profile, read by the real aws CLI.

use super::rig::LIMIT;
use super::roles::{ROLE, dockerd_apart, load};
use super::up::PROGRAM;
use ecs_testing::docker::{Image, TempDir, available, one_agent, unique};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::Command;

const SHARED: &str = "[static]\naws_access_key_id = AKIASTATIC\naws_secret_access_key = static/secret+key\n";
/// Prints keys as SSO and other helpers do. The aws CLI asks for keys that last.
const HELPER: &str = r#"#!/bin/sh
echo '{"Version": 1, "AccessKeyId": "ASIAHELPER", "SecretAccessKey": "helper/secret+key", "SessionToken": "helper-token==",
    "Expiration": "2099-01-02T03:04:05Z"}'
"#;
/// Asks until the credentials are there, and prints them.
const ASK: &str =
    "until wget -qO- http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; do sleep 0.1; done 2>/dev/null; echo";

fn has_aws() -> bool {
    let found = std::process::Command::new("aws").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let required = std::env::var("ECS_TEST_REQUIRE_AWSCLI").is_ok_and(|value| value == "1");
        assert!(!required, "the aws CLI is not installed, and ECS_TEST_REQUIRE_AWSCLI=1");
        eprintln!("SKIPPED profiles for task roles: the aws CLI is not installed");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_up_get_the_keys_of_a_profile() {
    if !available("profiles for task roles") || !has_aws() {
        return;
    }
    let Some(dockerd) = dockerd_apart("profiles for task roles").await else { return };
    let _one_agent = tokio::task::spawn_blocking(one_agent).await.unwrap();
    let (directory, image) = (TempDir::new("ecs-test-profile"), Image::make(&unique("ecs-test-profile"), &[]));
    load(&dockerd, &image, directory.path());
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let helper = directory.path().join("helper").to_string_lossy().into_owned();
    ecs_testing::program::write(&helper, HELPER);
    let container = json!({"name": "main", "image": image.reference, "memory": 32, "essential": true, "command": ["sh", "-c", ASK]});
    let definition = json!({"family": "profile", "taskRoleArn": ROLE, "containerDefinitions": [container]});
    let environment = [
        ("AWS_SHARED_CREDENTIALS_FILE", write("credentials", SHARED)),
        ("AWS_CONFIG_FILE", write("config", &format!("[profile process]\ncredential_process = {helper}\n"))),
        ("HOME", directory.path().to_string_lossy().into_owned()),
        // The profile takes precedence over these, which are the developer's own.
        ("AWS_ACCESS_KEY_ID", "AKIAWRONG".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "wrong".to_owned()),
        ("DOCKER_HOST", dockerd.endpoint()),
        ("ECS_CONFIG_FILE", write("ecs.config", "")),
        ("ECS_AGENT_CONFIG_FILE_PATH", "/dev/null".to_owned()),
        ("TMPDIR", directory.path().to_string_lossy().into_owned()),
    ];
    let definition = write("task.json", &definition.to_string());
    for (profile, key, secret, token) in [
        ("static", "AKIASTATIC", "static/secret+key", ""),
        ("process", "ASIAHELPER", "helper/secret+key", "helper-token=="),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(["up", &definition, "--quiet", "--agent", env!("CARGO_BIN_EXE_ecs-agent")]);
        command.args(["--task-role-profile", profile]).envs(environment.iter().cloned());
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let output = tokio::time::timeout(LIMIT, child.unwrap().wait_with_output()).await.expect("it ends").unwrap();
        let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{profile}: {shown}{errors}");
        let line = shown.lines().find_map(|line| line.get(line.find('{')?..));
        let keys: Value =
            serde_json::from_str(line.unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert_eq!((&keys["AccessKeyId"], &keys["SecretAccessKey"]), (&json!(key), &json!(secret)), "{profile}");
        assert_eq!((&keys["Token"], &keys["RoleArn"]), (&json!(token), &json!(ROLE)), "{profile}");
        let lasts = keys["Expiration"].as_str().unwrap_or_default();
        assert!(profile == "static" || lasts.starts_with("2099-01-02T03:04:05"), "{profile}: {lasts}");
        assert!(!errors.contains(secret), "{profile}: {errors}");
    }
}
