//! Which permission each call needs: actions and resources, as AWS's service authorization reference has them, for all services
//! but ECR. Invariant: the resource is the one that the call acts on, however the request names it.

use super::api;
use super::state::State;
use serde_json::{Value, json};

/// The longest name in a resource, in bytes: a policy is compared with all of it.
const MAX_NAME: usize = 2048;

/// A permission that a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The action with its service, such as `ecs:RunTask`.
    pub(super) action: String,
    /// The ARN of the resource, or `*`.
    pub(super) resource: String,
    /// The ARN of the cluster, which conditions may compare; `None`: there is none.
    pub(super) cluster: Option<String>,
    /// The operation that creates the resource, for the permission to tag it then; `None`: nothing is created.
    pub(super) creation: Option<&'static str>,
}

impl Demand {
    fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), cluster: None, creation: None }
    }

    fn in_cluster(self, cluster: &str) -> Self {
        Self { cluster: Some(cluster.to_owned()), ..self }
    }
}

/// What a call of a JSON API needs, without ECR. `service` is the first part of its target.
pub(super) fn demands(state: &State, service: &str, operation: &str, body: &Value) -> Vec<Demand> {
    let text = |member: &str| bounded(body[member].as_str().unwrap_or_default());
    match service {
        "secretsmanager" => {
            let asked = text("SecretId");
            let resource = match api::secret_name(state, asked) {
                Some(name) => state.site.secret_arn(name),
                None if asked.starts_with("arn:") => asked.to_owned(),
                None => state.site.secret_arn(asked),
            };
            vec![Demand::new(format!("secretsmanager:{operation}"), resource)]
        }
        "AmazonSSM" => {
            let resource = |asked: &str| state.site.ssm_arn(api::parameter_name(bounded(asked)));
            texts(body, "Names").map(|asked| Demand::new(format!("ssm:{operation}"), resource(asked))).collect()
        }
        _ if service.starts_with("AmazonEC2ContainerServiceV") => EcsCall { state, operation, body }.demands(),
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
pub(super) fn websocket_demand(state: &State, name: &str, cluster: &str, instance: &str) -> Vec<Demand> {
    let action = if name == "tcs" { "ecs:StartTelemetrySession" } else { "ecs:Poll" };
    let call = EcsCall { state, operation: "", body: &json!({"cluster": cluster}) };
    vec![Demand::new(action, call.instance(instance)).in_cluster(&call.cluster())]
}

/// A call of ECS. Names become the ARNs of the resources that the call acts on, found in the same way as the call finds them.
struct EcsCall<'a> {
    state: &'a State,
    operation: &'a str,
    body: &'a Value,
}

impl EcsCall<'_> {
    fn demands(&self) -> Vec<Demand> {
        let action = || format!("ecs:{}", self.operation);
        let on = |resource: String| Demand::new(action(), resource);
        let inside = |resource: String| on(resource).in_cluster(&self.cluster());
        match self.operation {
            "RegisterContainerInstance" => {
                let mut demands = vec![inside(self.cluster())];
                if self.body["tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
                    let tagged = Demand::new("ecs:TagResource", self.within_cluster("container-instance", "*"));
                    let creation = Some("RegisterContainerInstance");
                    demands.push(Demand { creation, ..tagged.in_cluster(&self.cluster()) });
                }
                demands
            }
            "DeregisterContainerInstance"
            | "SubmitTaskStateChange"
            | "SubmitContainerStateChange"
            | "SubmitAttachmentStateChanges"
            | "DeleteCluster"
            | "ListContainerInstances" => vec![inside(self.cluster())],
            "UpdateContainerInstancesState" | "DescribeContainerInstances" => {
                texts(self.body, "containerInstances").map(|name| inside(self.instance(name))).collect()
            }
            "DescribeTasks" | "GetTaskProtection" | "UpdateTaskProtection" => {
                texts(self.body, "tasks").map(|name| inside(self.task(name))).collect()
            }
            "StopTask" => vec![inside(self.task(self.text("task")))],
            "DescribeClusters" => {
                let names: Vec<&str> = texts(self.body, "clusters").collect();
                let names = if names.is_empty() { vec!["default"] } else { names };
                names.into_iter().map(|name| on(self.named("cluster", last(name)))).collect()
            }
            "RunTask" | "StartTask" => vec![inside(self.definition())],
            "RegisterTaskDefinition" => vec![on(self.named("task-definition", &format!("{}:*", self.text("family"))))],
            "TagResource" | "UntagResource" | "ListTagsForResource" => vec![on(self.text("resourceArn").to_owned())],
            _ => vec![on("*".to_owned())],
        }
    }

    fn text(&self, member: &str) -> &str {
        bounded(self.body[member].as_str().unwrap_or_default())
    }

    fn named(&self, kind: &str, name: &str) -> String {
        self.state.site.arn(&format!("{kind}/{}", bounded(name)))
    }

    fn cluster(&self) -> String {
        self.named("cluster", self.cluster_name())
    }

    fn cluster_name(&self) -> &str {
        match self.text("cluster") {
            "" => "default",
            name => last(name),
        }
    }

    fn within_cluster(&self, kind: &str, name: &str) -> String {
        self.named(kind, &format!("{}/{}", self.cluster_name(), last(name)))
    }

    fn task(&self, name: &str) -> String {
        let known = self.state.task(name).map(|task| task.arn.clone());
        known.unwrap_or_else(|| self.within_cluster("task", bounded(name)))
    }

    fn instance(&self, name: &str) -> String {
        let known = self.state.instance(name).map(|instance| instance.arn.clone());
        known.unwrap_or_else(|| self.within_cluster("container-instance", bounded(name)))
    }

    /// The revision that runs. A family without revisions has the ARN of all.
    fn definition(&self) -> String {
        let name = last(self.text("taskDefinition"));
        let known = self.state.definition(name).map(|definition| definition.arn.clone());
        let all = if name.contains(':') { "" } else { ":*" };
        known.unwrap_or_else(|| self.named("task-definition", &format!("{name}{all}")))
    }
}

/// The last part of an ARN or of a name.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
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
    use crate::site::Site;

    fn shown(demands: &[Demand]) -> Vec<String> {
        demands.iter().map(|demand| format!("{} {}", demand.action, demand.resource)).collect()
    }

    /// Other ways to name a resource do not get around a policy.
    #[test]
    fn the_resource_is_the_one_that_the_call_acts_on() {
        let mut state = State::new(Site::example(), "default");
        state.secrets.insert("hub".to_owned(), "hunter2".into());
        let arn = |rest: &str| format!("arn:aws:ecs:us-west-2:123456789012:{rest}");
        let secret = "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbCdEf";
        let other = "arn:aws:secretsmanager:eu-west-1:999999999999:secret:hub-zzzzzz";
        let ecs = "AmazonEC2ContainerServiceV20141113";
        for (service, operation, body, wanted) in [
            (ecs, "DeleteCluster", json!({"cluster": "x/web"}), arn("cluster/web")),
            (
                ecs,
                "DeleteCluster",
                json!({"cluster": "arn:aws:ecs:eu-west-1:999999999999:cluster/web"}),
                arn("cluster/web"),
            ),
            (ecs, "StopTask", json!({"cluster": "web", "task": "x/0a1b"}), arn("task/web/0a1b")),
            (ecs, "RunTask", json!({"taskDefinition": "hello"}), arn("task-definition/hello:*")),
            (ecs, "RunTask", json!({"taskDefinition": "x/hello:3"}), arn("task-definition/hello:3")),
            ("secretsmanager", "GetSecretValue", json!({"SecretId": other}), secret.to_owned()),
            ("secretsmanager", "GetSecretValue", json!({"SecretId": "hub-AbCdEf"}), secret.to_owned()),
            (
                "AmazonSSM",
                "GetParameters",
                json!({"Names": ["arn:aws:ssm:x:999999999999:parameter//team/key"]}),
                "arn:aws:ssm:us-west-2:123456789012:parameter/team/key".to_owned(),
            ),
        ] {
            let found = demands(&state, service, operation, &body);
            assert_eq!(found.iter().map(|demand| &demand.resource).collect::<Vec<_>>(), [&wanted], "{body}");
        }
    }

    #[test]
    fn calls_of_an_agent_need_what_the_reference_lists() {
        let state = State::new(Site::example(), "default");
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
            assert_eq!(shown(&demands(&state, service, operation, &body)), wanted, "{operation}");
        }
        assert_eq!(shown(&s3_demand("GetObject", "b", "dir/app.env")), ["s3:GetObject arn:aws:s3:::b/dir/app.env"]);
        assert_eq!(shown(&s3_demand("HeadBucket", "b", "")), ["s3:ListBucket arn:aws:s3:::b"]);
        assert_eq!(shown(&ec2_demand("DescribeTags")), ["ec2:DescribeTags *"]);
        assert_eq!(shown(&websocket_demand(&state, "acs", "web", instance)), [format!("ecs:Poll {instance}")]);
        assert_eq!(
            shown(&websocket_demand(&state, "tcs", "web", instance)),
            [format!("ecs:StartTelemetrySession {instance}")]
        );
    }
}
