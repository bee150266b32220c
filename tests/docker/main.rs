//! The Docker edge against a real daemon and a real registry, and against a scripted daemon for cases that are rare with a real
//! one.
//!
//! Needs Docker, `docker-registry`, `htpasswd` and `busybox-static`. Without Docker the tests are skipped with a notice; with
//! `ECS_TEST_REQUIRE_DOCKER=1` they fail.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helper functions too")]

mod accelerators;
mod clean;
mod containers;
mod faults;
mod hostile;
mod images;
mod pause;
mod pulls;

use ecs_agent::docker::{Docker, Limits, Settings};
use ecs_core::model::{CreateRequest, Span, TaskSpec};

fn settings(endpoint: &str, cluster: &str) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        cluster: cluster.to_owned(),
        region: Some("us-west-2".to_owned()),
        create_timeout: Span::secs(240),
        start_timeout: Span::secs(180),
        pull_timeout: Span::secs(7200),
        pull_inactivity: Span::secs(60),
        manifest_timeout: Span::secs(60),
        dynamic_ports: 42_000..=48_999,
        pause_archive: std::path::PathBuf::new(),
        pause_labels: std::collections::BTreeMap::new(),
        nvidia_runtime: "nvidia".to_owned(),
        requests_gpus: false,
        ipv6_only: false,
        log_router_async: true,
        limits: Limits::default(),
    }
}

async fn connect(cluster: &str) -> Docker {
    Docker::connect(settings(ecs_testing::docker::ENDPOINT, cluster)).await.unwrap()
}

/// A request for a container `name` that runs `command`; `more` has further members of its specification.
fn request(cluster: &str, name: &str, image: &str, command: &[&str], more: serde_json::Value) -> CreateRequest {
    let mut spec = serde_json::json!({
        "name": name, "image": image, "essential": true, "command": command, "memory": 32, "cpu": 10, "endpoint_id": "endpoint",
    });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let spec: ecs_core::model::ContainerSpec = serde_json::from_value(spec).unwrap();
    let task = TaskSpec {
        arn: format!("arn:aws:ecs:us-west-2:123456789012:task/{cluster}/1").into(),
        family: "family".to_owned(),
        version: "7".to_owned(),
        containers: vec![spec.clone()],
        ..TaskSpec::default()
    };
    CreateRequest {
        task: task.arn.clone(),
        family: task.family.clone(),
        version: task.version.clone(),
        runtime_name: format!("{cluster}-{name}"),
        outline: task.outline(),
        spec,
        ..CreateRequest::default()
    }
}
