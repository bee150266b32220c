//! Amazon ECR, imitated by the control plane in front of a real registry: roles, the token cache, refusals, restarts.

use super::rig::{Plan, Rig, one_container};
use ecs_local::{Fault, Options, Source, TaskStatus};
use ecs_testing::docker::Image;
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::registry::Registry;
use serde_json::json;
use std::time::Duration;

const TOKEN: &str = "eyJwYXlsb2FkIjoi+/==";
const ROLE: &str = "arn:aws:iam::123456789012:role/execRole";

fn ecr(options: &mut Options, registry: &Registry) {
    options.registry = Some(ecs_local::Registry::new(&registry.host, "AWS", TOKEN.into()));
}

/// Options with a token that is in its last half hour from the start.
fn ecr_with_old_tokens(options: &mut Options, registry: &Registry) {
    ecr(options, registry);
    options.registry.as_mut().unwrap().token_ttl = Duration::from_secs(20 * 60);
}

fn plan(options: fn(&mut Options, &Registry)) -> Plan<'static> {
    Plan { users: &[("AWS", TOKEN)], options: Some(options), environment: &[("ECS_LOGLEVEL", "debug")] }
}

/// Removes the image from this host, then runs a task that ends at once. Returns its ARN.
fn run(rig: &Rig, image: &str, execution_role: bool) -> String {
    Image::remove_locally(image);
    let mut definition = one_container(image, "exit 0");
    if execution_role {
        definition["executionRoleArn"] = json!(ROLE);
    }
    rig.server.run_task(&definition).unwrap()
}

async fn ran(rig: &Rig, arn: &str) {
    let task = rig.task(arn, TaskStatus::Stopped).await;
    assert_eq!(task.containers[0].exit_code, Some(0), "{task:?}");
}

/// The number of GetAuthorizationToken calls.
fn tokens(rig: &Rig) -> usize {
    let is_token = |record: &&ecs_local::Record| record.source == Source::Api && record.name == "GetAuthorizationToken";
    rig.server.read(|state| state.records().filter(is_token).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_serves_all_pulls_of_a_role() {
    let Some(rig) = Rig::start("ecr", plan(ecr)).await else { return };
    let (image, other) = (rig.image(), rig.registry.push_busybox("team/other", &[]));
    ran(&rig, &run(&rig, &image, false)).await;
    assert_eq!(tokens(&rig), 1, "one for the digest and the pull");
    ran(&rig, &run(&rig, &other, false)).await;
    assert_eq!(tokens(&rig), 1, "the instance role's token is used again");
    ran(&rig, &run(&rig, &image, true)).await;
    assert_eq!(tokens(&rig), 2, "a task's execution role has its own");
    let asked = |state: &ecs_local::State| {
        state
            .records()
            .filter(|record| record.name == "GetAuthorizationToken")
            .map(|record| record.body.clone())
            .collect()
    };
    let asked: Vec<_> = rig.server.read(asked);
    assert_eq!(asked, vec![json!({"registryIds": ["123456789012"]}); 2]);
    let log = rig.log();
    for role in ["instance", "execution"] {
        let source = format!("source=\"ECR token for registry 123456789012 in us-west-2 with the {role} role\"");
        assert!(log.contains(&source), "{role}");
    }
    assert!(!log.contains(TOKEN));
    refused(&rig, &image).await;
    Image::remove_locally(&other);
}

/// Runs a task with an execution role that ECR refuses: the task stops with the text of ECR, and the call is not retried.
async fn refused(rig: &Rig, image: &str) {
    let (before, words) = (
        tokens(rig),
        "User: arn:aws:sts::1:assumed-role/execRole/x is not authorized to perform: ecr:GetAuthorizationToken on resource: *",
    );
    let denied = Fault::Error(400, "AccessDeniedException".to_owned(), words.to_owned());
    rig.server.fail_next("GetAuthorizationToken", 2, &denied);
    let arn = run(rig, image, true);
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    let wanted = format!(
        "CannotPullECRContainerError: operation error ECR: GetAuthorizationToken, https response error StatusCode: 400, RequestID: , api error AccessDeniedException: {words}"
    );
    assert_eq!(task.containers[0].reason.as_deref(), Some(wanted.as_str()));
    assert_eq!(tokens(rig), before, "both calls were refused, and there was no third");
    Image::remove_locally(image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_near_its_end_is_fetched_anew() {
    let Some(rig) = Rig::start("old token", plan(ecr_with_old_tokens)).await else { return };
    let image = rig.image();
    for calls in [2, 4] {
        ran(&rig, &run(&rig, &image, false)).await;
        assert_eq!(tokens(&rig), calls, "one for each digest and each pull");
    }
    Image::remove_locally(&image);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_pull_waits_for_the_role_s_credentials() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let plan = Plan { environment: &[("DOCKER_HOST", endpoint.as_str())], ..plan(ecr) };
    let Some(mut rig) = Rig::start("execution role", plan).await else { return };
    let image = rig.image();
    proxy.hold(&["POST", "/images/create"], Hold::Before);
    let arn = run(&rig, &image, true);
    proxy.held().await;
    rig.kill();
    let (before, log) = (proxy.seen().len(), rig.log().len());

    rig.server.fail_next("acs", 3, &Fault::ServerError);
    rig.start_agent();
    let refusals = |state: &ecs_local::State| {
        let refused = state.records().filter(|record| record.source == Source::ApiError && record.name == "acs");
        (refused.count() == 3).then_some(())
    };
    rig.wait("ACS to refuse the agent", refusals).await;
    let pulls = proxy.seen()[before..].iter().filter(|line| line.contains("/images/create")).count();
    assert_eq!(pulls, 0, "credentials come over ACS only");
    ran(&rig, &arn).await;
    assert!(!rig.log()[log..].contains("CannotPull"), "nothing failed for want of credentials");
    assert_eq!(tokens(&rig), 2, "one for each agent");
    Image::remove_locally(&image);
}
