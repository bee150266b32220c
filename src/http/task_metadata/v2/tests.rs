use super::*;
use crate::http::task_metadata::{Audit, Metadata, PeerCheckMode, Place, Rates, Tasks, answers, fakes};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use ecs_core::model::interface::{Interface, Prefix};
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::View;
use ecs_core::model::{ContainerKind, ContainerStatus, TaskStatus, TextMap};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::watch;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The recorded task: what the agent knows of it.
fn recorded(answer: &Value) -> TaskView {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let container = |shown: &Value| ContainerView {
        kind: if shown["Type"] == "CNI_PAUSE" { ContainerKind::Pause } else { ContainerKind::Normal },
        name: text(&shown["Name"]).into(),
        runtime_id: Some(text(&shown["DockerId"]).into()),
        runtime_name: text(&shown["DockerName"]),
        image: text(&shown["Image"]),
        image_id: text(&shown["ImageID"]),
        labels: serde_json::from_value::<BTreeMap<String, String>>(shown["Labels"].clone()).map(TextMap::from).unwrap(),
        desired: ContainerStatus::Running,
        known: ContainerStatus::Running,
        cpu: shown["Limits"]["CPU"].as_u64().unwrap() as u32,
        memory: shown["Limits"]["Memory"].as_u64().unwrap() as u32,
        created_at: Some(text(&shown["CreatedAt"])),
        started_at: Some(text(&shown["StartedAt"])),
        ..ContainerView::default()
    };
    let interface = Interface {
        mac: "06:00:00:00:01:01".parse().unwrap(),
        ipv4: vec![[10, 0, 1, 100].into()],
        gateway_ipv4: Some(Prefix { address: [10, 0, 1, 1].into(), length: 24 }),
        name_servers: vec!["10.0.0.2".to_owned()],
        search_domains: vec!["us-west-2.compute.internal".to_owned()],
        private_dns_name: "ip-10-0-1-100.us-west-2.compute.internal".to_owned(),
        ..Interface::default()
    };
    TaskView {
        arn: text(&answer["TaskARN"]).into(),
        family: text(&answer["Family"]),
        version: text(&answer["Revision"]),
        desired: TaskStatus::Running,
        known: TaskStatus::Running,
        network: NetworkMode::Awsvpc,
        interfaces: vec![interface],
        local_address: Some([169, 254, 172, 2].into()),
        network_is_up: true,
        containers: answer["Containers"].as_array().unwrap().iter().map(container).collect(),
        ..TaskView::default()
    }
}

/// What is answered from the view of this task.
fn sources(task: Option<TaskView>) -> Sources {
    let place = Place {
        cluster: "judge".to_owned(),
        availability_zone: "us-west-2b".to_owned(),
        availability_zone_id: "usw2-az2".to_owned(),
        vpc_id: "vpc-0123456789abcdef0".to_owned(),
        ..Place::default()
    };
    let tasks = task.into_iter().map(Arc::new).collect();
    let (_views, receiver) = watch::channel(Arc::new(View { tasks, ..View::default() }));
    let metadata = Metadata { place, ..crate::http::task_metadata::tests::metadata() };
    let audit = Audit { cluster: String::new(), container_instance: String::new(), sink: None };
    let (credentials, work) = (Arc::new(|_: &_| None), fakes::work(&Arc::default()));
    let rates = Rates { steady: 40, burst: 60 };
    Sources::new(Tasks::new(receiver), metadata, credentials, work, audit, rates, PeerCheckMode::Off)
}

/// The answers from the view of this task, to a caller at this address.
async fn ask(task: Option<TaskView>, address: &str, path: &str) -> Value {
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    request
        .extensions_mut()
        .insert(RemoteAddress { address: address.parse().unwrap(), location: crate::http::PeerLocation::Bridge });
    let routes = routes().with_state(Arc::new(sources(task)));
    let Ok(answer) = TowerToHyperService::new(routes).call(request).await;
    let (status, kind) = (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap().to_owned());
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    json!({"status": status, "content_type": kind, "body": serde_json::from_slice::<Value>(&body).unwrap()})
}

#[tokio::test]
async fn a_caller_is_of_no_task() {
    let recorded = golden("tmds_v2_from_host");
    for path in
        ["/v2/metadata", "/v2/metadata/", "/v2/metadata/abc", "/v2/metadataWithTags/", "/v2/stats/a/b", "/v2/stats"]
    {
        assert_eq!(ask(None, "127.0.0.1:4711", path).await, recorded, "{path}");
        let task = self::recorded(&golden("awsvpc/tmds")["GET http://169.254.170.2/v2/metadata"]["body"]);
        let other = ask(Some(task), "169.254.172.3:4711", path).await;
        assert_eq!(other["status"], 400, "{path}");
    }
}

#[tokio::test]
async fn a_caller_is_known_by_its_address() {
    let golden = golden("awsvpc/tmds");
    let answer = golden["GET http://169.254.170.2/v2/metadata"]["body"].clone();
    let task = recorded(&answer);
    let caller = "[::ffff:169.254.172.2]:4711";
    for path in ["/v2/metadata", "/v2/metadata/", "/v2/metadataWithTags"] {
        let shown = ask(Some(task.clone()), caller, path).await;
        assert_eq!((&shown["body"], &shown["status"]), (&answer, &json!(200)), "{path}");
    }
    for (name, container) in golden.as_object().unwrap() {
        if let Some(id) = name.strip_prefix("GET http://169.254.170.2/v2/metadata/") {
            let shown = ask(Some(task.clone()), caller, &format!("/v2/metadata/{id}")).await;
            assert_eq!(shown["body"], container["body"], "{name}");
        }
    }
    let unknown = ask(Some(task.clone()), caller, "/v2/metadata/abc").await;
    assert_eq!(
        (&unknown["body"], &unknown["status"]),
        (&json!("Unable to generate metadata for container 'abc'"), &json!(400))
    );
    let unknown = ask(Some(task.clone()), caller, "/v2/stats/abc").await;
    assert_eq!((&unknown["body"], &unknown["status"]), (&json!("Unable to get container stats for: abc"), &json!(400)));
    let stats = ask(Some(task.clone()), caller, "/v2/stats").await;
    let ids = |value: &Value| value["body"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(ids(&stats), ids(&golden["GET http://169.254.170.2/v2/stats"]));
    let not_up = TaskView { network_is_up: false, ..task };
    let shown = ask(Some(not_up), caller, "/v2/metadata").await;
    let pause = &shown["body"]["Containers"][0];
    assert_eq!(pause["Type"], "CNI_PAUSE");
    assert_eq!(
        (&pause["DesiredStatus"], &pause["KnownStatus"]),
        (&json!("RESOURCES_PROVISIONED"), &json!("RUNNING")),
        "not set up yet"
    );
}

/// Versions 3 and 4 of the same task, asked by the id of its container `web`.
#[tokio::test]
async fn the_recorded_task_is_shown_by_every_version() {
    const WEB: &str = "384477c2-4e78-4140-a3a8-600f7971d5cb";
    let golden = golden("awsvpc/tmds");
    let mut task = recorded(&golden["GET http://169.254.170.2/v2/metadata"]["body"]);
    task.launch_type = "EC2".to_owned();
    task.containers.iter_mut().find(|container| container.name.as_str() == "web").unwrap().endpoint_id =
        Some(WEB.into());
    let answers = answers(sources(Some(task)));
    // The Go agent lists containers in any order.
    let sorted = |mut document: Value| {
        if let Some(containers) = document["Containers"].as_array_mut() {
            containers.sort_by_key(|container| container["Name"].to_string());
        }
        document
    };
    let mut compared = 0;
    for (name, recorded) in golden.as_object().unwrap() {
        let Some((version, path)) = name.split_once(" GET <uri>") else { continue };
        let request = Request::builder().uri(format!("/{version}/{WEB}{path}")).body(Body::empty()).unwrap();
        let answer = answers.answer(request).await;
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        if path.ends_with("/task/stats") {
            // The pause container is among them. Nothing has been counted here.
            let ids = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!((status, ids(&body)), (200, ids(&recorded["body"])), "{name}");
        } else if !path.ends_with("/stats") {
            let recorded = (recorded["status"].clone(), sorted(recorded["body"].clone()));
            assert_eq!((json!(status), sorted(body)), recorded, "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 10);
}
