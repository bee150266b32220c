//! SubmitTaskStateChange and SubmitAttachmentStateChanges: one report to ECS (spec `ecs-api.md` §4).
//!
//! Owns the form of the request, its limits and the meaning of its errors. The core decides which change is due, in which order,
//! and when to repeat it; sending the same change twice is harmless. The invariant: every text fits its limit and is cut between
//! characters.

use super::text_of;
use aws_sdk_ecs::config::Intercept;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::submit_task_state_change::SubmitTaskStateChangeInput;
use aws_sdk_ecs::operation::submit_task_state_change::builders::SubmitTaskStateChangeInputBuilder;
use aws_sdk_ecs::types::{AttachmentStateChange, ContainerStateChange, NetworkBinding, TransportProtocol};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use ecs_core::model::attachment::AttachmentChange;
use ecs_core::model::text::cleaned;
use ecs_core::model::{ContainerChange, Failure, OpError, PortBinding, Protocol, RangeBinding, StateChange, Timestamp};

/// Maximum length of the reason of a task or container, in bytes.
const MAX_REASON: usize = 1024;
/// Maximum number of reported network bindings of a container that has a range of ports.
const MAX_BINDINGS: usize = 100;
/// Maximum length of an id or digest, in bytes.
const MAX_ID: usize = 255;

/// The settings of all reports.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The cluster as configured: name or ARN.
    pub cluster: String,
    /// True: bindings to `::` are left out (`ECS_EXCLUDE_IPV6_PORTBINDING`).
    pub exclude_ipv6_bindings: bool,
    /// True: bindings to `0.0.0.0` are left out (IPv6-only instances).
    pub ipv6_only: bool,
}

/// Why ECS did not accept a report.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// ECS will never accept this report (`InvalidParameterException`); it is to be dropped.
    #[error("ECS rejected the state change: InvalidParameterException: {0}")]
    Rejected(String),
    /// Any other error; the same report must be sent again later.
    #[error("the state change was not accepted: {0}")]
    Retryable(String),
}

impl From<SubmitError> for OpError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Rejected(text) => Failure::permanent("InvalidParameterException", text).into(),
            SubmitError::Retryable(text) => Failure::retryable("SubmitTaskStateChange", text).into(),
        }
    }
}

/// Sends one state change, within the timeouts of the client.
///
/// # Errors
/// Fails if ECS rejects the state change, or if the call fails for another reason or has an empty answer.
pub async fn submit(
    client: &aws_sdk_ecs::Client,
    settings: &Settings,
    change: &StateChange,
) -> Result<(), SubmitError> {
    let input = request(settings, change);
    let call = client
        .submit_task_state_change()
        .set_cluster(input.cluster)
        .set_task(input.task)
        .set_status(input.status)
        .set_reason(input.reason)
        .set_containers(input.containers)
        .set_pull_started_at(input.pull_started_at)
        .set_pull_stopped_at(input.pull_stopped_at)
        .set_execution_stopped_at(input.execution_stopped_at)
        .customize()
        .interceptor(NotEmpty);
    answered(call.send().await)
}

/// Makes an empty answer an error. ECS always sends an object; an empty answer comes from a proxy, and the SDK would take it as
/// success.
#[derive(Debug)]
struct NotEmpty;

impl Intercept for NotEmpty {
    fn name(&self) -> &'static str {
        "NotEmpty"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let is_empty = answer.body().bytes().is_some_and(|body| body.is_empty());
        if answer.status().is_success() && is_empty { Err("the answer is empty".into()) } else { Ok(()) }
    }
}

/// Reports that the device of an attachment is there: in a state change of its task without a status, or by itself.
///
/// # Errors
/// As for [`submit`].
pub async fn submit_attachment(
    client: &aws_sdk_ecs::Client,
    settings: &Settings,
    change: &AttachmentChange,
) -> Result<(), SubmitError> {
    let attachment = AttachmentStateChange::builder().attachment_arn(&change.attachment).status("ATTACHED").build();
    let attachment = attachment.expect("both members that are required were just given");
    match &change.task {
        Some(task) => {
            let call = client.submit_task_state_change().cluster(&settings.cluster).task(task.as_str());
            answered(call.attachments(attachment).customize().interceptor(NotEmpty).send().await)
        }
        None => {
            let call = client.submit_attachment_state_changes().cluster(&settings.cluster);
            answered(call.attachments(attachment).customize().interceptor(NotEmpty).send().await)
        }
    }
}

/// What the answer to a report means.
fn answered<T, E: ProvideErrorMetadata + std::error::Error + 'static>(
    answer: Result<T, SdkError<E>>,
) -> Result<(), SubmitError> {
    let Err(error) = answer else { return Ok(()) };
    match error.code() {
        // The failure that is made of it names the code.
        Some("InvalidParameterException") => {
            Err(SubmitError::Rejected(cleaned(error.message().unwrap_or("the message is missing"))))
        }
        Some(_) | None => Err(SubmitError::Retryable(text_of(&error))),
    }
}

/// The request for a state change.
pub fn request(settings: &Settings, change: &StateChange) -> SubmitTaskStateChangeInput {
    let containers: Vec<_> =
        change.containers.iter().map(|container| container_change(settings, change, container)).collect();
    SubmitTaskStateChangeInputBuilder::default()
        .cluster(&settings.cluster)
        .task(change.task.as_str())
        .status(change.status.backend())
        .reason(cut(&change.reason, MAX_REASON))
        .set_containers(Some(containers).filter(|containers| !containers.is_empty()))
        .set_pull_started_at(change.pull_started_at.map(date))
        .set_pull_stopped_at(change.pull_stopped_at.map(date))
        .set_execution_stopped_at(change.execution_stopped_at.map(date))
        .build()
        .expect("no member of this request is required")
}

fn container_change(settings: &Settings, task: &StateChange, change: &ContainerChange) -> ContainerStateChange {
    let is_reported =
        |ip: &str| !(settings.exclude_ipv6_bindings && ip == "::" || settings.ipv6_only && ip == "0.0.0.0");
    let single = change.bindings.iter().filter(|binding| is_reported(&binding.bind_ip)).map(network_binding);
    let ranges = change.range_bindings.iter().filter(|binding| is_reported(&binding.bind_ip)).map(range_binding);
    let mut bindings: Vec<_> = single.chain(ranges).collect();
    // The Go agent applies the limit only to containers with a range. Above it, the Go agent reports nothing more about the
    // task, not even that it has stopped. Here only the bindings are left out.
    if !change.range_bindings.is_empty() && bindings.len() > MAX_BINDINGS {
        tracing::error!(
            task = task.task.task_id(),
            container = %change.container,
            "no. of network bindings {} is more than the maximum supported no. {MAX_BINDINGS}; none of them is reported",
            bindings.len()
        );
        bindings.clear();
    }
    let id = |text: &str| cut(text, MAX_ID).to_owned();
    ContainerStateChange::builder()
        .container_name(change.container.as_str())
        .set_runtime_id(change.runtime_id.as_ref().map(|runtime_id| id(runtime_id.as_str())))
        .set_image_digest(change.image_digest.as_deref().map(id))
        .status(change.status.backend())
        .set_exit_code(change.exit_code)
        .set_reason(change.reason.as_deref().map(|reason| cut(reason, MAX_REASON).to_owned()))
        .set_network_bindings(Some(bindings).filter(|bindings| !bindings.is_empty()))
        .build()
}

fn network_binding(binding: &PortBinding) -> NetworkBinding {
    NetworkBinding::builder()
        .bind_ip(&binding.bind_ip)
        .container_port(i32::from(binding.container_port))
        .host_port(i32::from(binding.host_port))
        .protocol(transport(binding.protocol))
        .build()
}

fn range_binding(binding: &RangeBinding) -> NetworkBinding {
    let text = |(first, last): (u16, u16)| format!("{first}-{last}");
    NetworkBinding::builder()
        .bind_ip(&binding.bind_ip)
        .container_port_range(text(binding.container_ports))
        .host_port_range(text(binding.host_ports))
        .protocol(transport(binding.protocol))
        .build()
}

fn transport(protocol: Protocol) -> TransportProtocol {
    match protocol {
        Protocol::Tcp => TransportProtocol::Tcp,
        Protocol::Udp => TransportProtocol::Udp,
    }
}

fn date(at: Timestamp) -> DateTime {
    DateTime::from_millis(i64::try_from(at.0).unwrap_or(i64::MAX))
}

/// The longest prefix of `text` that has at most `limit` bytes and ends between two characters. (The Go agent may cut through
/// one.)
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::aws::client::sdk::{AgentName, Sdk};
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{Answer, Fake};
    use aws_credential_types::provider::SharedCredentialsProvider;
    use ecs_core::model::{ContainerStatus, TaskStatus};
    use serde_json::{Value, json};

    /// A recorded request of the Go agent.
    pub(crate) fn golden(name: &str) -> Value {
        let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// A client with the user agent of the recorded Go agent.
    pub(crate) fn client(url: &str) -> aws_sdk_ecs::Client {
        let agent =
            AgentName { version: "1.105.1".to_owned(), hash: "*a8b3e7d3".to_owned(), os_family: "LINUX".to_owned() };
        let settings = crate::aws::client::sdk::Settings {
            region: "us-west-2".to_owned(),
            backend_host: Some(url.to_owned()),
            agent,
            ..Default::default()
        };
        let keys = fixed(&"ASIAINSTANCEROLE0001".into(), &"secret".into(), &"token".into());
        Sdk::new(settings).unwrap().ecs(SharedCredentialsProvider::new(keys))
    }

    fn settings() -> Settings {
        Settings { cluster: "judge".to_owned(), ..Settings::default() }
    }

    /// The state change from which a recorded body results.
    fn change_from(body: &Value) -> StateChange {
        let at = |name: &str| body[name].as_f64().map(|seconds| Timestamp((seconds * 1000.0).round() as u64));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let binding = |value: &Value| PortBinding {
            container_port: value["containerPort"].as_u64().unwrap() as u16,
            host_port: value["hostPort"].as_u64().unwrap() as u16,
            bind_ip: text(&value["bindIP"]).unwrap(),
            protocol: if value["protocol"] == "udp" { Protocol::Udp } else { Protocol::Tcp },
        };
        let container = |value: &Value| ContainerChange {
            container: value["containerName"].as_str().unwrap().into(),
            runtime_id: value["runtimeId"].as_str().map(Into::into),
            image_digest: text(&value["imageDigest"]),
            status: match value["status"].as_str().unwrap() {
                "PENDING" => ContainerStatus::ManifestPulled,
                "RUNNING" => ContainerStatus::Running,
                _ => ContainerStatus::Stopped,
            },
            exit_code: value["exitCode"].as_i64().map(|code| code as i32),
            reason: text(&value["reason"]),
            bindings: value["networkBindings"].as_array().into_iter().flatten().map(binding).collect(),
            range_bindings: Vec::new(),
        };
        StateChange {
            task: body["task"].as_str().unwrap().into(),
            status: match body["status"].as_str().unwrap() {
                "PENDING" => TaskStatus::ManifestPulled,
                "RUNNING" => TaskStatus::Running,
                _ => TaskStatus::Stopped,
            },
            reason: text(&body["reason"]).unwrap(),
            pull_started_at: at("pullStartedAt"),
            pull_stopped_at: at("pullStoppedAt"),
            execution_stopped_at: at("executionStoppedAt"),
            containers: body["containers"].as_array().into_iter().flatten().map(container).collect(),
        }
    }

    #[tokio::test]
    async fn every_recorded_body_is_reproduced() {
        let fake = Fake::start(|_| Answer::json(200, &json!({"acknowledgment": "ok"}))).await;
        let client = client(&fake.url());
        let mut bodies = Vec::new();
        for name in ["pending", "running", "stopped"] {
            bodies.push(golden(&format!("submit_task_{name}"))["body"].clone());
        }
        for name in ["exit_code", "pull_failure", "pull_refused", "secret_failure", "start_failure"] {
            let list = golden(&format!("submit_task_stopped_{name}"));
            bodies.extend(list.as_array().unwrap().iter().cloned());
        }
        assert!(bodies.len() >= 8);
        for body in &bodies {
            submit(&client, &settings(), &change_from(body)).await.unwrap();
        }
        let sent: Vec<Value> = fake.requests().iter().map(|request| request.json()).collect();
        assert_eq!(sent, bodies);
        let recorded = golden("submit_task_running");
        for name in ["X-Amz-Target", "User-Agent", "Content-Type"] {
            assert_eq!(fake.requests()[0].header(name), recorded["headers"][name].as_str(), "{name}");
        }
        // Two headers differ on purpose: `max` in Amz-Sdk-Request (the core repeats the call after 3 attempts), and no gzip.
        assert_eq!(fake.requests()[0].header("amz-sdk-request"), Some("attempt=1; max=3"));
    }

    #[tokio::test]
    async fn attachments_are_reported_as_recorded() {
        let fake = Fake::start(|_| Answer::json(200, &json!({"acknowledgment": "ok"}))).await;
        let client = client(&fake.url());
        let for_task = golden("awsvpc/attached_report");
        let records = golden("awsvpc/attachments")["trunk"]["records"].clone();
        let is_report = |record: &&Value| record["op"] == "SubmitAttachmentStateChanges";
        let for_instance = records.as_array().unwrap().iter().find(is_report).unwrap()["body"].clone();
        for body in [&for_task, &for_instance] {
            let attachment = body["attachments"][0]["attachmentArn"].as_str().unwrap().to_owned();
            let change = AttachmentChange { attachment, task: body["task"].as_str().map(Into::into) };
            submit_attachment(&client, &settings(), &change).await.unwrap();
        }
        let sent: Vec<Value> = fake.requests().iter().map(|request| request.json()).collect();
        assert_eq!(sent, [for_task, for_instance]);
        let refused = Fake::start(|_| Answer::error(400, "InvalidParameterException", "expired")).await;
        let change = AttachmentChange { attachment: "a".to_owned(), task: None };
        let answer = submit_attachment(&self::client(&refused.url()), &settings(), &change).await;
        assert!(matches!(answer, Err(SubmitError::Rejected(text)) if text == "expired"));
    }

    #[tokio::test]
    async fn only_an_invalid_parameter_is_final() {
        let table = [
            (400, "InvalidParameterException", true, 1),
            (400, "ClientException", false, 1),
            (400, "AccessDeniedException", false, 1),
            (400, "ClusterNotFoundException", false, 1),
            (400, "ThrottlingException", false, 3),
            (500, "ServerException", false, 3),
            (400, "SomethingNew", false, 1),
        ];
        for (status, code, rejected, attempts) in table {
            let fake = Fake::start(move |_| Answer::error(status, code, "why")).await;
            let error = submit(&client(&fake.url()), &settings(), &change_from(&golden("submit_task_pending")["body"]))
                .await
                .unwrap_err();
            assert_eq!(matches!(error, SubmitError::Rejected(_)), rejected, "{code}");
            assert!(error.to_string().contains(&format!("{code}: why")), "{error}");
            assert_eq!(fake.requests().len(), attempts, "{code}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let table = [
            ("é".repeat(600), MAX_REASON, 1024),
            (format!("x{}", "é".repeat(600)), MAX_REASON, 1023),
            ("short".to_owned(), MAX_REASON, 5),
            ("d".repeat(300), MAX_ID, 255),
        ];
        for (text, limit, length) in table {
            assert_eq!(cut(&text, limit).len(), length);
        }
        let mut change = change_from(&golden("submit_task_stopped")["body"]);
        change.reason = "€".repeat(1000);
        change.containers[0].reason = Some("€".repeat(1000));
        change.containers[0].image_digest = Some("s".repeat(400));
        let input = request(&settings(), &change);
        assert_eq!(input.reason.unwrap().len(), 1023);
        let container = &input.containers.unwrap()[0];
        assert_eq!(container.reason.as_ref().unwrap().len(), 1023);
        assert_eq!(container.image_digest.as_ref().unwrap().len(), 255);
    }

    #[test]
    fn bindings_are_filtered_as_configured() {
        let mut change = change_from(&golden("submit_task_running")["body"]);
        change.containers[0].bindings[1].bind_ip = "::".to_owned();
        let ips = |settings: Settings| -> Vec<String> {
            let containers = request(&settings, &change).containers.unwrap();
            containers[0].network_bindings().iter().map(|b| b.bind_ip.clone().unwrap()).collect()
        };
        assert_eq!(ips(settings()), ["0.0.0.0", "::"]);
        assert_eq!(ips(Settings { exclude_ipv6_bindings: true, ..settings() }), ["0.0.0.0"]);
        assert_eq!(ips(Settings { ipv6_only: true, ..settings() }), ["::"]);
    }

    #[test]
    fn a_range_is_one_binding_and_too_many_are_left_out() {
        let mut change = change_from(&golden("submit_task_running")["body"]);
        let range = |first: u16, ip: &str| RangeBinding {
            container_ports: (first, first + 9),
            host_ports: (40_000, 40_009),
            bind_ip: ip.to_owned(),
            protocol: Protocol::Udp,
        };
        let container = &mut change.containers[0];
        container.bindings.clear();
        container.range_bindings = vec![range(1000, "0.0.0.0"), range(1000, "::")];
        let settings = Settings { exclude_ipv6_bindings: true, ..settings() };
        let sent = request(&settings, &change).containers.unwrap();
        let [binding] = sent[0].network_bindings() else { panic!("{sent:?}") };
        assert_eq!(binding.container_port_range(), Some("1000-1009"));
        assert_eq!(binding.host_port_range(), Some("40000-40009"));
        assert_eq!((binding.protocol(), binding.bind_ip()), (Some(&TransportProtocol::Udp), Some("0.0.0.0")));
        assert_eq!((binding.container_port(), binding.host_port()), (None, None));

        let container = &mut change.containers[0];
        let single = |port| PortBinding {
            container_port: port,
            host_port: port,
            bind_ip: "0.0.0.0".to_owned(),
            protocol: Protocol::Tcp,
        };
        container.bindings = (1..=99).map(single).collect();
        let counted = |change: &StateChange| {
            let sent = request(&settings, change).containers.unwrap().remove(0);
            (sent.network_bindings().len(), sent.status)
        };
        let status = Some(change.containers[0].status.backend().to_owned());
        assert_eq!(counted(&change), (100, status.clone()));
        change.containers[0].bindings.push(single(100));
        assert_eq!(counted(&change), (0, status.clone()), "the rest is reported nevertheless");
        change.containers[0].range_bindings.clear();
        change.containers[0].bindings.push(single(101));
        assert_eq!(counted(&change), (101, status), "only ranges are counted");
    }
}
