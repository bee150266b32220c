//! The agent against the registry of `ecs-local`: tokens, policies of two accounts, expired images, as with ECR.

use super::registry_rig::{OTHER, OWN, PULL, RegistryRig, arn, denial};
use super::rig::{FOREVER, LIMIT};
use ecs_local::{Fault, TaskStatus};
use ecs_testing::docker::{Image, docker};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::time::Duration;

/// The role of the instance.
const INSTANCE: &str = "ecsInstanceRole";
const TOKEN: &str = "ecr:GetAuthorizationToken";
/// Why ECR refuses: the policies of the role, or that of the repository.
const NO_IDENTITY: &str = "because no identity-based policy allows the";
const NO_RESOURCE: &str = "because no resource-based policy allows the";

/// A failed pull ends the task, and its attempts end soon.
const ALWAYS: (&str, &str) = ("ECS_IMAGE_PULL_BEHAVIOR", "always");

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_each_role_needs_three_actions() {
    let Some(mut way) = RegistryRig::start("same account", &[ALWAYS]).await else { return };
    let all = [&[TOKEN], &PULL[..]].concat();
    // An image each: with the containerd image store, Docker keeps the layers of an image that a container uses.
    for (role, execution, repository) in [(INSTANCE, None, "team/app"), ("execRole", Some("execRole"), "team/other")] {
        let image = way.push(OWN, repository, 2);
        let arn = arn(OWN, repository);
        way.allow(role, &all, OWN, repository);
        Image::remove_locally(&image);
        way.ran(&way.run(&image, execution, "exit 0")).await;
        Image::remove_locally(&image);
        let actions: Vec<String> = way.actions(role).into_iter().map(|(what, _)| what).collect();
        let wanted =
            [format!("{} {arn} allowed", PULL[0]), format!("{TOKEN} * allowed"), format!("{} {arn} allowed", PULL[1])];
        assert_eq!(actions, wanted, "{role}");
    }
    assert_eq!(way.count(INSTANCE, TOKEN), 1, "the execution role has fetched its own token");
}

/// Each reason names the role, what it lacks and where: by the repository's ARN, also the account of the registry.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_missing_permission_is_named() {
    let Some(mut way) = RegistryRig::start("missing permission", &[ALWAYS]).await else { return };
    let (image, closed) = (way.push(OWN, "app", 2), way.push(OWN, "closed", 1));
    way.set_policy(OWN, "closed", json!({"Effect": "Deny", "Principal": "*", "Action": "ecr:BatchGetImage"}));
    let (app, other) = (arn(OWN, "app"), arn(OWN, "closed"));
    let [manifest, layer] = PULL;
    let all = [TOKEN, manifest, layer];
    let table = [
        ("noToken", &image, &PULL[..], "app", TOKEN, "*", NO_IDENTITY),
        ("noManifest", &image, &[TOKEN, layer], "app", manifest, &app, NO_IDENTITY),
        ("noLayer", &image, &[TOKEN, manifest], "app", layer, &app, NO_IDENTITY),
        ("elsewhere", &image, &all, "closed", manifest, &app, NO_IDENTITY),
        ("denied", &closed, &all, "closed", manifest, &other, "with an explicit deny in a resource-based policy"),
    ];
    let run = |(role, image, allowed, repository, ..): &(&str, &String, &[&str], &str, &str, &str, &str)| {
        way.allow(role, allowed, OWN, repository);
        way.run(image, Some(role), "exit 0")
    };
    let arns: Vec<String> = table.iter().map(run).collect();
    for (task, (role, _, _, _, action, resource, why)) in arns.iter().zip(table) {
        let reason = way.reason(task).await;
        let denied = denial(task, role, action, resource, why);
        assert!(reason.contains(&denied), "{role}: {reason}\n{denied}");
        let name = match action {
            TOKEN => "CannotPullECRContainerError: ",
            "ecr:BatchGetImage" => "CannotPullImageManifestError: ",
            _ => "CannotPullContainerError: ",
        };
        assert!(reason.starts_with(name), "{role}: {reason}");
        assert_eq!(way.count(role, layer), 0, "{role}");
    }
}

/// Both accounts have to allow a pull.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_two_accounts_have_to_allow_a_pull() {
    let Some(mut way) = RegistryRig::start("cross account", &[ALWAYS]).await else { return };
    let (image, closed) = (way.push(OTHER, "app", 2), way.push(OTHER, "closed", 1));
    let all = [&[TOKEN], &PULL[..]].concat();
    way.admit("app");
    way.allow("reader", &all, OTHER, "*");
    // The repository of the same name in the own account is another one.
    way.allow("stranger", &all, OWN, "app");
    let arns = [(&image, "reader"), (&closed, "reader"), (&image, "stranger")]
        .map(|(image, role)| way.run(image, Some(role), "exit 0"));
    way.ran(&arns[0]).await;
    for (task, role, repository, why) in
        [(&arns[1], "reader", "closed", NO_RESOURCE), (&arns[2], "stranger", "app", NO_IDENTITY)]
    {
        let (reason, words) = (way.reason(task).await, denial(task, role, PULL[0], &arn(OTHER, repository), why));
        assert!(reason.starts_with("CannotPullImageManifestError: ") && reason.contains(&words), "{reason}\n{words}");
    }
    let source = format!("ECR token for registry {OTHER} in us-west-2 with the execution role");
    assert!(way.rig.log().contains(&source), "{source}");
    way.admit("closed");
    way.ran(&way.run(&closed, Some("reader"), "exit 0")).await;
    Image::remove_locally(&image);
    way.allow(INSTANCE, &all, OTHER, "app");
    way.ran(&way.run(&image, None, "exit 0")).await;
}

/// Docker has fetched some layers when ECR begins to refuse the token. The agent's next attempt has a new one.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_token_expires_between_two_layers() {
    let Some(mut way) = RegistryRig::start("expired token", &[]).await else { return };
    let image = way.push(OWN, "app", 5);
    // By digest, so that nothing but the pull asks for the configuration and the layers.
    let image = way.by_digest(OWN, &image);
    let server = &way.rig.server;
    server.fail_next("registry/blobs", 2, &Fault::Slow(Duration::ZERO));
    server.fail_next("registry/blobs", 20, &Fault::Slow(Duration::from_secs(4)));
    let task = way.run(&image, Some("execRole"), FOREVER);
    let fetched = || way.count("execRole", "ecr:GetDownloadUrlForLayer");
    until("the first layers", LIMIT, async || (fetched() == 2).then_some(())).await;
    server.set_ecr_clock_ahead(13 * 3600);
    server.clear_faults();
    assert_eq!(way.count("execRole", TOKEN), 1);
    way.runs(&task).await;
    assert_eq!(way.count("execRole", TOKEN), 2, "the old one is of no use");
    assert!(fetched() >= 2 + 4, "the other layers came with the new one");
    let log = way.rig.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    let expired = "Your authorization token has expired. Reauthenticate and try again.";
    assert_eq!(lines(expired), 1, "one attempt has failed");
    assert_eq!(lines("the ECR token has expired; a new one is requested"), 1);
    assert!(!json!(way.rig.reports(&task)).to_string().contains("CannotPull"));
}

/// An image that is on this host is used, as with the Go agent; one that has to be pulled is not available any more.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_policy_is_taken_away_between_pulls() {
    let Some(mut way) = RegistryRig::start("no policy", &[]).await else { return };
    let images = ["kept", "removed"].map(|repository| way.push(OTHER, repository, 2));
    let run = |way: &RegistryRig| images.each_ref().map(|image| way.run(image, Some("reader"), "exit 0"));
    ["kept", "removed"].iter().for_each(|repository| way.admit(repository));
    for task in run(&way) {
        way.ran(&task).await;
    }
    for repository in ["kept", "removed"] {
        way.ecr(OTHER, "DeleteRepositoryPolicy", json!({"repositoryName": repository}));
    }
    Image::remove_locally(&images[1]);
    // The look-up of the digest makes its attempts in any case; the pull after it has a short limit from now on.
    way.restart(("ECS_IMAGE_PULL_TIMEOUT", "3s")).await;
    let [kept, removed] = run(&way);
    way.ran(&kept).await;
    let reason = way.reason(&removed).await;
    let words = |task: &str, repository: &str| denial(task, "reader", PULL[0], &arn(OTHER, repository), NO_RESOURCE);
    let wanted = words(&removed, "removed");
    assert!(reason.starts_with("CannotPullImageManifestError: ") && reason.contains(&wanted), "{reason}\n{wanted}");
    let (log, wanted) = (way.rig.log(), words(&kept, "kept"));
    assert!(log.lines().any(|line| line.contains("level=warn") && line.contains(&wanted)), "the log has it, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_task_outlives_its_expired_image() {
    let Some(mut way) = RegistryRig::start("expired image", &[ALWAYS]).await else { return };
    let image = way.push(OWN, "app", 2);
    let rules = json!({"rules": [{
        "rulePriority": 1, "action": {"type": "expire"},
        "selection": {"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7},
    }]});
    way.ecr(OWN, "PutLifecyclePolicy", json!({"repositoryName": "app", "lifecyclePolicyText": rules.to_string()}));
    let old = way.run(&image, Some("execRole"), FOREVER);
    way.runs(&old).await;
    way.rig.server.set_ecr_clock_ahead(8 * 24 * 3600);
    assert_eq!(way.ecr(OWN, "ListImages", json!({"repositoryName": "app"}))["imageIds"], json!([]));

    let new = way.run(&image, Some("execRole"), FOREVER);
    let reason = way.reason(&new).await;
    let missing = format!(
        "manifest unknown: The image with imageId {{imageDigest:'null', imageTag:'latest'}} does not exist within the repository with name \
         'app' in the registry with id '{OWN}'"
    );
    assert!(reason.starts_with("CannotPullImageManifestError: ") && reason.ends_with(&missing), "{reason}");
    way.restart((ALWAYS.0, "prefer-cached")).await;
    let asked = way.actions("execRole");
    way.runs(&way.run(&image, Some("execRole"), FOREVER)).await;
    assert_eq!(way.actions("execRole"), asked, "ECR is not asked for an image that is on this host");
    way.runs(&old).await;
    let id = way.rig.task(&old, TaskStatus::Running).await.containers[0].runtime_id.clone().unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.State.Status}} {{.RestartCount}}", &id]), "running 0");
}

/// Names below the prefix of a rule are pulled with the token of ECR. What ECR does not have comes from another account.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_names_of_pull_through_cache_rules() {
    let Some(mut way) = RegistryRig::start("pull through", &[ALWAYS]).await else { return };
    let rule = |prefix: &str, upstream: &str, member: &str, arn: Value| {
        let rule = json!({"ecrRepositoryPrefix": prefix, "upstreamRegistryUrl": upstream, member: arn});
        way.ecr(OWN, "CreatePullThroughCacheRule", rule);
    };
    let secret = format!("arn:aws:secretsmanager:us-west-2:{OWN}:secret:ecr-pullthroughcache/hub-AbCdEf");
    let far = format!("{OTHER}.dkr.ecr.us-west-2.amazonaws.com");
    rule("ecr-public", "public.ecr.aws", "credentialArn", Value::Null);
    rule("docker-hub", "registry-1.docker.io", "credentialArn", json!(secret));
    rule("far", &far, "customRoleArn", json!(format!("arn:aws:iam::{OWN}:role/cache")));
    let names = ["ecr-public/docker/library/busybox", "docker-hub/library/busybox", "far/team/app"];
    let [public, hub] = [names[0], names[1]].map(|name| way.push(OWN, name, 1));
    way.push(OTHER, "team/app", 2);
    way.admit("team/app");
    let [upstream, missing] = [hub.replace(names[1], names[2]), hub.replace("busybox", "alpine")];
    let upstream = way.expect(&upstream);
    let arns = [&public, &hub, &upstream, &missing].map(|image| way.run(image, Some("execRole"), "exit 0"));
    for (task, name) in arns.iter().zip(names) {
        way.ran(task).await;
        assert!(way.count("execRole", &format!("{} {} ", PULL[0], arn(OWN, name))) > 0, "{name}");
    }
    assert_eq!(way.count("execRole", "ecr:BatchImportUpstreamImage"), 1, "once, and then it is here");
    assert_eq!(way.count("cache", PULL[0]), 1);
    let reason = way.reason(&arns[3]).await;
    let words = "The repository 'docker-hub/library/alpine' belongs to the pull through cache rule with the prefix 'docker-hub'";
    assert!(reason.starts_with("CannotPullImageManifestError: ") && reason.contains(words), "{reason}");
}
