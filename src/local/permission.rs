//! Which permission each call needs, and whether its caller has it. This module owns the map from calls of all services but ECR
//! to actions and resources, as AWS's service authorization reference has it; [`super::ecr`] decides. Invariant: whatever is
//! allowed or denied is logged.

use super::api_error::ApiError;
use super::ecr::policy::Request;
use super::ecr::principal::Kind;
use super::ecr::{Action, Denial, EcrError, Principal};
use super::site::Site;
use super::state::State;
use serde_json::Value;

/// The longest name in a resource, in bytes: a policy is compared with all of it.
const MAX_NAME: usize = 2048;

/// A permission that a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The action with its service, such as `ecs:RunTask`.
    action: String,
    /// The ARN of the resource, or `*`.
    resource: String,
    /// The ARN of the cluster, which conditions may compare; `None`: there is none.
    cluster: Option<String>,
}

impl State {
    /// The caller may perform the action on the repository, and it exists. The outcome is logged.
    ///
    /// # Errors
    /// See [`super::ecr::Ecr::authorize`].
    pub(super) fn authorize_ecr(
        &mut self,
        caller: &Principal,
        action: Action,
        account: &str,
        repository: &str,
    ) -> Result<(), EcrError> {
        let outcome = self.ecr.authorize(caller, action, account, repository);
        let resource = self.ecr.arn(account, repository);
        self.log_action(caller, action.name(), &resource, !matches!(outcome, Err(EcrError::Denied(_))));
        outcome
    }

    /// The caller may perform the action on the repository, whether it exists or not. The outcome is logged.
    ///
    /// # Errors
    /// The missing permission.
    pub(super) fn permit_ecr(
        &mut self,
        caller: &Principal,
        action: Action,
        account: &str,
        repository: &str,
    ) -> Result<(), EcrError> {
        let outcome = self.ecr.permit(caller, action, account, repository);
        let resource = self.ecr.arn(account, repository);
        self.log_action(caller, action.name(), &resource, outcome.is_ok());
        outcome.map_err(EcrError::Denied)
    }

    /// The caller may perform an action that is about no repository. The outcome is logged.
    ///
    /// # Errors
    /// The missing permission.
    pub(super) fn permit(
        &mut self,
        caller: &Principal,
        action: &str,
        resource: &str,
        cluster: Option<&str>,
    ) -> Result<(), Denial> {
        let outcome = self.ecr.permit_own(&Request { principal: caller, action, resource, cluster });
        self.log_action(caller, action, resource, outcome.is_ok());
        outcome
    }

    /// The caller may make a call of a service other than ECR.
    ///
    /// # Errors
    /// The first missing permission, or that the caller's account has no such service here.
    pub(super) fn permit_call(&mut self, caller: &Principal, demands: &[Demand]) -> Result<(), ApiError> {
        let is_stranger = matches!(caller.kind(), Kind::Administrator | Kind::User | Kind::Service { .. })
            && caller.account() != self.site.account;
        if is_stranger {
            let (caller, own) = (caller.arn(), &self.site.account);
            let message =
                format!("User: {caller} is not authorized: here, only the account {own} has services other than ECR");
            return Err(ApiError::new(400, "AccessDeniedException", message));
        }
        for Demand { action, resource, cluster } in demands {
            self.permit(caller, action, resource, cluster.as_deref())
                .map_err(|denial| ApiError::new(400, "AccessDeniedException", denial.to_string()))?;
        }
        Ok(())
    }

    fn log_action(&mut self, caller: &Principal, action: &str, resource: &str, is_allowed: bool) {
        let at = self.ecr_time();
        self.actions.add(at, caller.identity_arn(), action, resource, is_allowed);
    }
}

impl Demand {
    fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), cluster: None }
    }

    fn in_cluster(self, cluster: &str) -> Self {
        Self { cluster: Some(cluster.to_owned()), ..self }
    }
}

/// What a call of a JSON API needs, without ECR. `service` is the first part of its target.
pub(super) fn demands(site: &Site, service: &str, operation: &str, body: &Value) -> Vec<Demand> {
    match service {
        "secretsmanager" => vec![Demand::new(format!("secretsmanager:{operation}"), secret(site, body))],
        "AmazonSSM" => {
            texts(body, "Names").map(|name| Demand::new(format!("ssm:{operation}"), parameter(site, name))).collect()
        }
        _ if service.starts_with("AmazonEC2ContainerServiceV") => ecs(site, operation, body),
        _ => Vec::new(),
    }
}

/// What a request to S3 needs.
pub(super) fn s3_demand(operation: &str, bucket: &str, key: &str) -> Vec<Demand> {
    let (bucket, key) = (bounded(bucket), bounded(key));
    match operation {
        "GetObject" => vec![Demand::new("s3:GetObject", format!("arn:aws:s3:::{bucket}/{key}"))],
        "HeadBucket" => vec![Demand::new("s3:ListBucket", format!("arn:aws:s3:::{bucket}"))],
        "GetBucketLocation" => vec![Demand::new("s3:GetBucketLocation", format!("arn:aws:s3:::{bucket}"))],
        _ => Vec::new(),
    }
}

/// What a call of EC2 needs. None of its calls here has a resource.
pub(super) fn ec2_demand(action: &str) -> Vec<Demand> {
    vec![Demand::new(format!("ec2:{}", bounded(action)), "*")]
}

/// What a websocket needs. `name` is `acs` or `tcs`.
pub(super) fn websocket_demand(site: &Site, name: &str, cluster: &str, instance: &str) -> Vec<Demand> {
    let action = if name == "tcs" { "ecs:StartTelemetrySession" } else { "ecs:Poll" };
    let (cluster, instance) = (named(site, "cluster", cluster), bounded(instance));
    vec![Demand::new(action, instance).in_cluster(&cluster)]
}

fn ecs(site: &Site, operation: &str, body: &Value) -> Vec<Demand> {
    let action = format!("ecs:{operation}");
    let text = |member: &str| body[member].as_str().unwrap_or_default();
    let cluster_name = if text("cluster").is_empty() { "default" } else { text("cluster") };
    let cluster = named(site, "cluster", cluster_name);
    let short = cluster.rsplit('/').next().unwrap_or_default().to_owned();
    let inside = |kind: &str, name: &str| match name.starts_with("arn:") {
        true => bounded(name).to_owned(),
        false => site.arn(&format!("{kind}/{short}/{}", bounded(name))),
    };
    let each = |kind: &str, member: &str| {
        let demand = |name: &str| Demand::new(action.clone(), inside(kind, name)).in_cluster(&cluster);
        texts(body, member).map(demand).collect::<Vec<_>>()
    };
    let single =
        |kind: &str, member: &str| vec![Demand::new(action.clone(), inside(kind, text(member))).in_cluster(&cluster)];
    let on_cluster = || vec![Demand::new(action.clone(), cluster.clone()).in_cluster(&cluster)];
    let everywhere = || vec![Demand::new(action.clone(), "*")];
    match operation {
        "RegisterContainerInstance" => {
            let mut demands = on_cluster();
            if body["tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
                demands.push(Demand::new("ecs:TagResource", inside("container-instance", "*")).in_cluster(&cluster));
            }
            demands
        }
        "DeregisterContainerInstance"
        | "SubmitTaskStateChange"
        | "SubmitContainerStateChange"
        | "SubmitAttachmentStateChanges"
        | "DeleteCluster"
        | "ListContainerInstances" => on_cluster(),
        "UpdateContainerInstancesState" | "DescribeContainerInstances" => {
            each("container-instance", "containerInstances")
        }
        "DescribeTasks" => each("task", "tasks"),
        "StopTask" => single("task", "task"),
        "DescribeClusters" => {
            let names: Vec<&str> = texts(body, "clusters").collect();
            let names = if names.is_empty() { vec!["default"] } else { names };
            let demand = |name: &&str| Demand::new(action.clone(), named(site, "cluster", name));
            names.iter().map(demand).collect()
        }
        "RunTask" | "StartTask" => {
            let definition = named(site, "task-definition", text("taskDefinition"));
            vec![Demand::new(action, definition).in_cluster(&cluster)]
        }
        "RegisterTaskDefinition" => {
            vec![Demand::new(action, named(site, "task-definition", &format!("{}:*", text("family"))))]
        }
        "TagResource" | "UntagResource" | "ListTagsForResource" => {
            vec![Demand::new(action, bounded(text("resourceArn")))]
        }
        _ => everywhere(),
    }
}

/// The ARN of a resource of ECS that is named by its ARN or by its name.
fn named(site: &Site, kind: &str, name: &str) -> String {
    match name.starts_with("arn:") {
        true => bounded(name).to_owned(),
        false => site.arn(&format!("{kind}/{}", bounded(name))),
    }
}

fn secret(site: &Site, body: &Value) -> String {
    let asked = bounded(body["SecretId"].as_str().unwrap_or_default());
    match asked.starts_with("arn:") {
        true => asked.to_owned(),
        false => format!("arn:aws:secretsmanager:{}:{}:secret:{asked}-AbCdEf", site.region, site.account),
    }
}

fn parameter(site: &Site, name: &str) -> String {
    let name = bounded(name);
    // A version or a label is not part of the ARN.
    let (prefix, rest) = name.split_once(":parameter").map_or(("", name), |(prefix, rest)| (prefix, rest));
    let rest = rest.split(':').next().unwrap_or(rest);
    if prefix.is_empty() { site.ssm_arn(rest) } else { format!("{prefix}:parameter{rest}") }
}

fn texts<'a>(body: &'a Value, member: &str) -> impl Iterator<Item = &'a str> {
    body[member].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn bounded(text: &str) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_NAME).last();
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(demands: &[Demand]) -> Vec<String> {
        demands.iter().map(|demand| format!("{} {}", demand.action, demand.resource)).collect()
    }

    #[test]
    fn calls_of_an_agent_need_what_the_reference_lists() {
        let site = Site::example();
        let (ecs, instance) =
            ("AmazonEC2ContainerServiceV20141113", "arn:aws:ecs:us-west-2:123456789012:container-instance/web/0a1b");
        let cluster = "arn:aws:ecs:us-west-2:123456789012:cluster/web";
        for (service, operation, body, wanted) in [
            (ecs, "DiscoverPollEndpoint", json!({"cluster": "web"}), vec!["ecs:DiscoverPollEndpoint *".to_owned()]),
            (
                ecs,
                "RegisterContainerInstance",
                json!({"cluster": "web"}),
                vec![format!("ecs:RegisterContainerInstance {cluster}")],
            ),
            (
                ecs,
                "RegisterContainerInstance",
                json!({"cluster": cluster, "tags": [{"key": "a", "value": "b"}]}),
                vec![
                    format!("ecs:RegisterContainerInstance {cluster}"),
                    "ecs:TagResource arn:aws:ecs:us-west-2:123456789012:container-instance/web/*".to_owned(),
                ],
            ),
            (
                ecs,
                "SubmitTaskStateChange",
                json!({"cluster": "web", "task": "x"}),
                vec![format!("ecs:SubmitTaskStateChange {cluster}")],
            ),
            (
                ecs,
                "UpdateContainerInstancesState",
                json!({"cluster": "web", "containerInstances": [instance]}),
                vec![format!("ecs:UpdateContainerInstancesState {instance}")],
            ),
            (
                "secretsmanager",
                "GetSecretValue",
                json!({"SecretId": "hub"}),
                vec![
                    "secretsmanager:GetSecretValue arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbCdEf"
                        .to_owned(),
                ],
            ),
            (
                "AmazonSSM",
                "GetParameters",
                json!({"Names": ["/team/key:3", "arn:aws:ssm:us-west-2:123456789012:parameter/a"]}),
                vec![
                    "ssm:GetParameters arn:aws:ssm:us-west-2:123456789012:parameter/team/key".to_owned(),
                    "ssm:GetParameters arn:aws:ssm:us-west-2:123456789012:parameter/a".to_owned(),
                ],
            ),
        ] {
            assert_eq!(shown(&demands(&site, service, operation, &body)), wanted, "{operation}");
        }
        assert_eq!(shown(&s3_demand("GetObject", "b", "dir/app.env")), ["s3:GetObject arn:aws:s3:::b/dir/app.env"]);
        assert_eq!(shown(&s3_demand("HeadBucket", "b", "")), ["s3:ListBucket arn:aws:s3:::b"]);
        assert_eq!(shown(&ec2_demand("DescribeTags")), ["ec2:DescribeTags *"]);
        assert_eq!(shown(&websocket_demand(&site, "acs", "web", instance)), [format!("ecs:Poll {instance}")]);
        assert_eq!(
            shown(&websocket_demand(&site, "tcs", "web", instance)),
            [format!("ecs:StartTelemetrySession {instance}")]
        );
    }

    #[test]
    fn a_policy_of_a_role_counts_for_all_services() {
        let mut state = State::new(Site::example(), "default");
        let role = "arn:aws:iam::123456789012:role/app";
        let caller = Principal::role(role, "task", "123456789012");
        let demands = s3_demand("GetObject", "b", "key");
        assert_eq!(state.permit_call(&caller, &demands), Ok(()), "a role without a policy may do everything");
        let policy = json!({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::other/*"}});
        let policy = super::super::ecr::policy::Policy::for_identity(&policy.to_string()).unwrap();
        state.ecr.identities_mut().put_role("123456789012", role, policy).unwrap();
        let error = state.permit_call(&caller, &demands).unwrap_err();
        assert_eq!(
            error.message,
            "User: arn:aws:sts::123456789012:assumed-role/app/task is not authorized to perform: s3:GetObject on resource: \
             arn:aws:s3:::b/key because no identity-based policy allows the s3:GetObject action"
        );
        let stranger = Principal::administrator("210987654321");
        assert!(state.permit_call(&stranger, &demands).unwrap_err().message.contains("services other than ECR"));
        let shown = state.actions.show();
        let outcomes: Vec<_> =
            shown["actions"].as_array().unwrap().iter().map(|a| (&a["principal"], &a["outcome"])).collect();
        assert_eq!(outcomes, [(&json!(role), &json!("denied")), (&json!(role), &json!("allowed"))]);
    }
}
