//! Sources of registry credentials besides a password in `ECS_ENGINE_AUTH_DATA`: credential helpers, identity tokens, and
//! Secrets Manager, which the control plane imitates.

use super::registries::{PASSWORD, all_output, assert_nowhere, exit_codes, images_gone, reason, run, start_with};
use super::rig::{Plan, Rig, shell};
use ecs_local::{Fault, Record, Source, State, TaskStatus};
use ecs_testing::docker::Image;
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::registry::{Registry, basic};
use serde_json::{Value, json};
use std::path::Path;

const ROLE: &str = "arn:aws:iam::123456789012:role/execRole";
const TOKEN: &str = "an-identity-token~~~???";
const SECRET: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbCdEf";

/// Writes a program `docker-credential-<name>` to a directory.
fn helper(directory: &Path, name: &str, script: &str) {
    let path = directory.join(format!("docker-credential-{name}"));
    ecs_testing::program::write(path, &format!("#!/bin/sh\n{script}\n"));
}

/// Writes a helper that prints credentials for this registry only, and only with the agent's environment.
pub(super) fn answering(directory: &Path, name: &str, registry: &str, user: &str, secret: &str) {
    let answer = json!({"ServerURL": registry, "Username": user, "Secret": secret});
    std::fs::write(directory.join(format!("{name}.json")), answer.to_string()).unwrap();
    let file = directory.join(format!("{name}.json"));
    let conditions = format!("test \"$1\" = get && test \"$(cat)\" = {registry} && test -n \"$ECS_CLUSTER\"");
    helper(directory, name, &format!("{conditions} && exec cat {}", file.display()));
}

/// The reason names a helper that does not work.
#[tokio::test(flavor = "multi_thread")]
async fn helpers_and_identity_tokens_open_a_registry() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str()), ("ECS_IMAGE_PULL_BEHAVIOR", "always")];
    let plan = Plan { users: &[("me", PASSWORD)], environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("helpers", plan).await else { return };
    let (open, other) = (Registry::start(&[]), Registry::start(&[]));
    let nothing = open.host.replace("127.0.0.1", "localhost");
    let programs = rig.directory.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    answering(&programs, "good", &rig.registry.host, "me", PASSWORD);
    // This helper leaves a process behind that keeps its output open.
    let good = std::fs::read_to_string(programs.join("docker-credential-good")).unwrap();
    helper(&programs, "good", &good.replacen("#!/bin/sh\n", "sleep 600 &\n", 1));
    answering(&programs, "token", &other.host, "<token>", TOKEN);
    helper(&programs, "nothing", "echo 'Error: Credentials Not Found in native keychain'; exit 1");
    let bad = [
        ("failing", "echo hunter2-says-why; exit 3", "it failed (exit status: 3); run it by hand to see why"),
        ("garbage", "echo hunter2-says-why", "its answer is not a JSON object of Username and Secret"),
        ("huge", "exec tr '\\0' x </dev/zero", "its answer is longer than 65536 bytes"),
        ("hanging", "exec sleep 600", "no answer within 10 seconds"),
        ("missing", "", "it cannot be started: No such file or directory"),
    ];
    let mut helpers = json!({&rig.registry.host: "good", &other.host: "token", &nothing: "nothing"});
    for (name, script, _) in bad {
        if !script.is_empty() {
            helper(&programs, name, script);
        }
        helpers[format!("{name}.invalid")] = json!(name);
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    rig.environment.push(("PATH".into(), path));
    let images = [rig.image(), open.push_busybox("test/app", &[]), other.push_busybox("test/app", &[])];
    let unnamed = images[1].replace("127.0.0.1", "localhost");
    images.iter().for_each(|image| Image::remove_locally(image));
    let entry = json!({"auth": basic("someone", ""), "identitytoken": TOKEN});
    let data = json!({"auths": {&open.host: entry, &other.host: {}}, "credHelpers": helpers});
    start_with(&mut rig, &format!("ECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={data}\n")).await;

    let bad_ones: Vec<_> = bad.iter().map(|(name, ..)| run(&rig, &[&format!("{name}.invalid/app:1")])).collect();
    let arn = run(&rig, &[&images[0], &images[1], &images[2], &unnamed]);
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(exit_codes(&task), [Some(0); 4], "{task:?}");
    for (arn, (name, _, problem)) in bad_ones.iter().zip(bad) {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        assert_eq!(reason(&task), format!("CannotPullContainerAuthError: docker-credential-{name}: {problem}"));
    }
    for call in ["/distribution/", "/images/create"] {
        let by = |host: &str| proxy.credentials(call).into_iter().find(|sent| sent["serveraddress"] == host);
        let token = by(&open.host).unwrap_or_else(|| panic!("{call}: {:?}", proxy.seen()));
        assert_eq!((&token["identitytoken"], &token["username"]), (&json!(TOKEN), &json!("someone")), "{call}");
        let token = by(&other.host).unwrap();
        assert_eq!((&token["identitytoken"], &token["username"]), (&json!(TOKEN), &Value::Null), "{call}");
        assert_eq!(by(&rig.registry.host).unwrap()["password"], PASSWORD, "{call}");
    }
    let output = all_output(&rig).await;
    for source in [
        format!("source=\"docker-credential-good for {} (credHelpers)\"", rig.registry.host),
        format!("source=\"ECS_ENGINE_AUTH_DATA entry {}\"", open.host),
        format!("source=\"anonymous: docker-credential-nothing has nothing for {nothing} (credHelpers)\""),
    ] {
        assert!(output.contains(&source), "{source}");
    }
    assert_nowhere(&output, "me", PASSWORD);
    assert!(!output.contains(TOKEN) && !output.contains("hunter2-says-why"));
    images_gone(&[&images[0], &images[1], &images[2], &unnamed]);
}

/// A task whose containers, one for each image, are pulled with the secret.
fn with_secret(images: &[&str], secret: &str, role: Option<&str>) -> Value {
    let containers = images.iter().enumerate().map(|(number, image)| {
        let mut container = shell(&format!("c{number}"), image, "exit 0");
        container["repositoryCredentials"] = json!({"credentialsParameter": secret});
        container
    });
    let containers: Vec<Value> = containers.collect();
    json!({"family": "private", "executionRoleArn": role, "containerDefinitions": containers})
}

/// The number of GetSecretValue calls.
fn asked(rig: &Rig) -> usize {
    let is_call = |record: &&Record| record.source == Source::Api && record.name == "GetSecretValue";
    rig.server.read(|state| state.records().filter(is_call).count())
}

/// The value of a secret. It also has other members, with names that JSON must escape.
fn account(user: &str, password: &str) -> String {
    let (user, password) = (json!(user), json!(password));
    format!(r#"{{"ge\u00e4ndert": "2026", "https:\/\/r": [], "Username": {user}, "password": {password}}}"#)
}

/// The reason that was reported for the task.
async fn stopped_for(rig: &Rig, arn: &str) -> String {
    rig.task(arn, TaskStatus::Stopped).await;
    let reports = rig.reports(arn);
    reports.last().unwrap()["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_opens_a_registry_and_is_read_once_for_each_task() {
    let plan = Plan { users: &[("me", PASSWORD)], ..Plan::default() };
    let Some(rig) = Rig::start("secrets manager", plan).await else { return };
    rig.server.put_secret("hub", account("me", PASSWORD).as_str().into()).unwrap();
    let images = [rig.image(), rig.registry.push_busybox("test/other", &[])];
    images.iter().for_each(|image| Image::remove_locally(image));
    for calls in [1, 2] {
        let arn = rig.server.run_task(&with_secret(&[&images[0], &images[1]], SECRET, Some(ROLE))).unwrap();
        assert_eq!(exit_codes(&rig.task(&arn, TaskStatus::Stopped).await), [Some(0); 2]);
        assert_eq!(asked(&rig), calls, "one for two digests and two pulls of a task");
    }
    let bodies = |state: &State| {
        state
            .records()
            .filter(|record| record.name == "GetSecretValue")
            .map(|record| record.body.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(rig.server.read(bodies), vec![json!({"SecretId": SECRET}); 2]);

    // The image is on this host by now, but without the secret the task still does not run.
    let start = "Asm fetching secret from the service for";
    let error = "operation error Secrets Manager: GetSecretValue, https response error StatusCode: 400, RequestID: ,";
    let table = [
        (
            SECRET.replace("hub", "unknown"),
            None,
            format!(
                "{start} {}: {error} ResourceNotFoundException: Secrets Manager can't find the specified secret.",
                SECRET.replace("hub", "unknown")
            ),
        ),
        ("empty".to_owned(), Some(String::new()), "Asm fetching authorization data: empty secrets value".to_owned()),
        (
            "text".to_owned(),
            Some(PASSWORD.to_owned()),
            "Asm fetching authorization data: unable to unmarshal secret value, invalid schema".to_owned(),
        ),
        (
            "half".to_owned(),
            Some(account("me", "")),
            "Asm fetching password: AuthorizationData is malformed, empty field".to_owned(),
        ),
    ];
    for (secret, value, wanted) in table {
        if let Some(value) = value {
            rig.server.put_secret(&secret, value.as_str().into()).unwrap();
        }
        let arn = rig.server.run_task(&with_secret(&[&images[0]], &secret, Some(ROLE))).unwrap();
        assert_eq!(stopped_for(&rig, &arn).await, wanted);
        assert_eq!(rig.task(&arn, TaskStatus::Stopped).await.containers[0].reason, None, "it is the task's reason");
    }
    let denied =
        "User: arn:aws:sts::1:assumed-role/execRole/x is not authorized to perform: secretsmanager:GetSecretValue";
    let fault = Fault::Error(400, "AccessDeniedException".to_owned(), denied.to_owned());
    rig.server.fail_next("GetSecretValue", 1, &fault);
    let arn = rig.server.run_task(&with_secret(&[&images[0]], SECRET, Some(ROLE))).unwrap();
    let wanted = format!("{start} {SECRET}: {error} api error AccessDeniedException: {denied}");
    assert_eq!(stopped_for(&rig, &arn).await, wanted);
    let arn = rig.server.run_task(&with_secret(&[&images[0]], SECRET, None)).unwrap();
    assert_eq!(stopped_for(&rig, &arn).await, "Asm resource: unable to find execution role credentials");

    let output = all_output(&rig).await;
    assert!(output.contains(&format!("source=\"secret {SECRET} of Secrets Manager with the execution role\"")));
    assert_nowhere(&output, "me", PASSWORD);
    images_gone(&[&images[0], &images[1]]);
}

/// A call that Secrets Manager fails is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_again_after_a_restart() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { users: &[("me", PASSWORD)], environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::start("secret again", plan).await else { return };
    rig.server.put_secret("hub", account("me", PASSWORD).as_str().into()).unwrap();
    let image = rig.image();
    Image::remove_locally(&image);
    proxy.hold(&["POST", "/images/create"], Hold::Before);
    rig.server.fail_next("GetSecretValue", 1, &Fault::ServerError);
    let arn = rig.server.run_task(&with_secret(&[&image], "hub", Some(ROLE))).unwrap();
    proxy.held().await;
    assert_eq!(asked(&rig), 1, "the refused call is not counted, the second try is");
    rig.kill();
    rig.start_agent();
    assert_eq!(exit_codes(&rig.task(&arn, TaskStatus::Stopped).await), [Some(0)]);
    assert_eq!(asked(&rig), 2, "it is nowhere on disk");
    assert_nowhere(&all_output(&rig).await, "me", PASSWORD);
    images_gone(&[&image]);
}
