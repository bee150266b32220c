//! An agent whose images are in the registry of `ecs-local`, and what the administrators of two accounts do there.
//!
//! Docker must reach the registry in this process: the names of tests that use this contain `on_the_hosts_network`.

use super::rig::{Plan, Rig, one_container};
use ecs_local::{Options, TaskStatus};
use ecs_testing::docker::Image;
use ecs_testing::registry::{Registry, push};
use serde_json::{Value, json};

/// The account of the agent.
pub(super) const OWN: &str = "123456789012";
/// An account with a registry of its own.
pub(super) const OTHER: &str = "333333444444";
/// What a pull needs beside a token.
pub(super) const PULL: [&str; 2] = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
const TOKEN: &str = "ecr:GetAuthorizationToken";

/// The agent with its surroundings. Images leave Docker after the containers that use them.
#[derive(Debug)]
pub(super) struct RegistryRig {
    pub(super) rig: Rig,
    images: Images,
}

/// References of images that Docker may have.
#[derive(Debug, Default)]
struct Images(Vec<String>);

impl Drop for Images {
    fn drop(&mut self) {
        self.0.iter().for_each(|image| Image::remove_locally(image));
    }
}

impl RegistryRig {
    /// A registered agent with these variables; `None` on a machine without Docker.
    pub(super) async fn start(test: &str, environment: &[(&str, &str)]) -> Option<Self> {
        let options: fn(&mut Options, &Registry) = |options, _| options.accounts = vec![OTHER.to_owned()];
        let plan = Plan { options: Some(options), environment, ..Plan::default() };
        let rig = Rig::start(test, plan).await?;
        Some(Self { rig, images: Images::default() })
    }

    /// Ends the agent, and starts it with one more variable.
    pub(super) async fn restart(&mut self, (name, value): (&str, &str)) {
        assert!(self.rig.terminate().success());
        self.rig.environment.push((name.to_owned(), value.to_owned()));
        self.rig.start_agent();
        self.rig.registered().await;
    }

    /// A call of ECR by the administrator of an account.
    pub(super) fn ecr(&self, account: &str, operation: &str, body: Value) -> Value {
        let answer = self.rig.server.call_ecr_in(account, operation, &body);
        answer.unwrap_or_else(|error| panic!("{operation} {body}: {error}"))
    }

    /// Creates a repository and pushes an image with this many layers. Returns its reference; Docker has it no more.
    pub(super) fn push(&mut self, account: &str, repository: &str, layers: usize) -> String {
        let host = match account {
            OWN => self.rig.server.registry_address(),
            _ => self.rig.server.further_accounts()[0].1.clone(),
        };
        self.ecr(account, "CreateRepository", json!({"repositoryName": repository}));
        let token = self.ecr(account, "GetAuthorizationToken", json!({}))["authorizationData"][0].clone();
        let image = Image::make(&format!("{host}/{repository}"), &[]);
        (1..layers).for_each(|_| image.add_layer());
        push(&self.rig.directory, &host, token["authorizationToken"].as_str(), &image.reference);
        self.expect(&image.reference)
    }

    /// Notes that Docker may get this image. Returns its reference.
    pub(super) fn expect(&mut self, image: &str) -> String {
        self.images.0.push(image.to_owned());
        image.to_owned()
    }

    /// The reference of an image by its digest instead of the tag.
    pub(super) fn by_digest(&mut self, account: &str, image: &str) -> String {
        let (_, repository) = image.split_once('/').unwrap();
        let shown = self.ecr(account, "DescribeImages", json!({"repositoryName": repository}));
        self.expect(&format!("{image}@{}", shown["imageDetails"][0]["imageDigest"].as_str().unwrap()))
    }

    /// Sets the policy of a repository to these statements.
    pub(super) fn set_policy(&self, account: &str, repository: &str, statements: Value) {
        let text = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        self.ecr(account, "SetRepositoryPolicy", json!({"repositoryName": repository, "policyText": text}));
    }

    /// Lets the agent's account pull from a repository of the other account.
    pub(super) fn admit(&self, repository: &str) {
        let principal = json!({"AWS": format!("arn:aws:iam::{OWN}:root")});
        self.set_policy(OTHER, repository, json!({"Effect": "Allow", "Principal": principal, "Action": PULL}));
    }

    /// Gives a role tokens, and these actions on a repository. Everything else is denied to it.
    pub(super) fn allow(&self, role: &str, actions: &[&str], account: &str, repository: &str) {
        let others = actions.iter().filter(|action| **action != TOKEN).collect::<Vec<_>>();
        let has_token = others.len() < actions.len();
        let mut statements = vec![json!({"Effect": "Allow", "Action": "ecs:*", "Resource": "*"})];
        if has_token {
            statements.push(json!({"Effect": "Allow", "Action": TOKEN, "Resource": "*"}));
        }
        if !others.is_empty() {
            let resource = arn(account, repository);
            statements.push(json!({"Effect": "Allow", "Action": others, "Resource": resource}));
        }
        self.rig.server.put_role_policy(role, &json!({"Version": "2012-10-17", "Statement": statements})).unwrap();
    }

    /// Runs a task with this execution role; `None`: the instance's role pulls. Returns its ARN.
    pub(super) fn run(&self, image: &str, role: Option<&str>, command: &str) -> String {
        let mut definition = one_container(image, command);
        if let Some(role) = role {
            definition["executionRoleArn"] = json!(role_arn(role));
        }
        self.rig.server.run_task(&definition).unwrap()
    }

    /// The task has ended by itself with exit code 0.
    pub(super) async fn ran(&self, arn: &str) {
        let task = self.rig.task(arn, TaskStatus::Stopped).await;
        assert_eq!(task.containers[0].exit_code, Some(0), "{task:?}");
    }

    /// The task runs.
    pub(super) async fn runs(&self, arn: &str) {
        let task = self.rig.task(arn, TaskStatus::Running).await;
        assert_eq!(task.last_status, TaskStatus::Running, "{task:?}");
    }

    /// The reason of the only container of a task that has stopped without having run.
    pub(super) async fn reason(&self, arn: &str) -> String {
        let task = self.rig.task(arn, TaskStatus::Stopped).await;
        let container = &task.containers[0];
        assert_eq!((container.exit_code, container.runtime_id.as_ref()), (None, None), "{task:?}");
        assert!(!self.rig.statuses(arn).contains(&"RUNNING".to_owned()), "{task:?}");
        container.reason.clone().unwrap_or_default()
    }

    /// What a role did or was denied in ECR: how often, by action, resource and outcome.
    pub(super) fn actions(&self, role: &str) -> Vec<(String, u64)> {
        let shown = self.rig.server.actions();
        let text = |entry: &Value, member: &str| entry[member].as_str().unwrap_or_default().to_owned();
        let entries = shown["actions"].as_array().unwrap().iter();
        let own = entries.filter(|entry| entry["principal"] == role_arn(role));
        let row = |entry: &Value| {
            let names = ["action", "resource", "outcome"].map(|member| text(entry, member));
            (names.join(" "), entry["count"].as_u64().unwrap_or_default())
        };
        own.map(row).filter(|(what, _)| what.starts_with("ecr:")).collect()
    }

    /// How often a role was allowed this action.
    pub(super) fn count(&self, role: &str, action: &str) -> u64 {
        let counts = self.actions(role).into_iter().filter(|(what, _)| what.starts_with(action));
        counts.filter(|(what, _)| what.ends_with(" allowed")).map(|(_, count)| count).sum()
    }
}

/// The ARN of a repository.
pub(super) fn arn(account: &str, repository: &str) -> String {
    format!("arn:aws:ecr:us-west-2:{account}:repository/{repository}")
}

/// The ARN of a role of the agent's account.
fn role_arn(role: &str) -> String {
    format!("arn:aws:iam::{OWN}:role/{role}")
}

/// The words of ECR for a task whose execution role may not do this.
pub(super) fn denial(task: &str, role: &str, action: &str, resource: &str, why: &str) -> String {
    let session = task.rsplit('/').next().unwrap();
    format!(
        "User: arn:aws:sts::{OWN}:assumed-role/{role}/{session} is not authorized to perform: {action} on resource: {resource} {why}"
    )
}
