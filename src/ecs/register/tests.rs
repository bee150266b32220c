use super::*;
use crate::aws::tests::fake::{Answer, Fake, Request};
use crate::ecs::report::tests::{client, golden};
use serde_json::json;

const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef";
const FAST: Shape =
    Shape { initial: Duration::from_millis(1), max: Duration::from_millis(2), factor: 2.0, jitter: 0.0 };

/// The registration from which a recorded body results.
fn registration_from(body: &Value) -> Registration {
    let ports = |index: usize| -> Vec<u16> {
        let set = body["totalResources"][index]["stringSetValue"].as_array().unwrap();
        set.iter().map(|port| port.as_str().unwrap().parse().unwrap()).collect()
    };
    let attribute = |value: &Value| Attribute {
        name: value["name"].as_str().unwrap().to_owned(),
        value: value["value"].as_str().map(str::to_owned),
    };
    let attributes = body["attributes"].as_array().unwrap().iter().map(attribute);
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    Registration {
        cluster: Some(text("cluster")),
        container_instance: body["containerInstanceArn"].as_str().map(str::to_owned),
        identity: Some(SignedDocument {
            document: text("instanceIdentityDocument"),
            signature: text("instanceIdentityDocumentSignature"),
        }),
        resources: HostResources { cpus: 2, memory_mib: 24105, tcp_ports: ports(2), udp_ports: ports(3) },
        custom_attributes: BTreeMap::from([("rack".to_owned(), "r7".to_owned())]),
        attributes: attributes.filter(|attribute| attribute.name != "rack").collect(),
        gpus: Vec::new(),
        tags: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        client_token: text("clientToken"),
    }
}

/// The answer of ECS to a registration: the attributes as sent, and the availability zone.
fn accepted(request: &Request) -> Answer {
    let mut attributes = request.json()["attributes"].as_array().unwrap().clone();
    attributes.push(json!({"name": "ecs.availability-zone", "value": "us-west-2b"}));
    let instance = json!({"containerInstanceArn": ARN, "attributes": attributes});
    Answer::json(200, &json!({"containerInstance": instance}))
}

/// A registration with one attribute.
fn small() -> Registration {
    Registration {
        attributes: vec![Attribute::with_value("ecs.os-type", "linux")],
        client_token: "token".to_owned(),
        ..Registration::default()
    }
}

async fn try_with(fake: &Fake, registration: &Registration) -> Result<Registered, RegisterError> {
    register_with(&client(&fake.url()), registration, FAST, Duration::from_millis(200)).await
}

#[tokio::test]
async fn gpus_are_registered_as_devices() {
    let fake = Fake::start(accepted).await;
    let registration = Registration { gpus: vec!["GPU-1".to_owned(), "GPU-2".to_owned()], ..small() };
    register(&client(&fake.url()), &registration).await.unwrap();
    let device = |id: &str| json!({"id": id, "type": "GPU"});
    assert_eq!(fake.requests()[0].json()["platformDevices"], json!([device("GPU-1"), device("GPU-2")]));
}

#[tokio::test]
async fn both_recorded_requests_are_reproduced() {
    for name in ["register_container_instance", "reregister_container_instance"] {
        let golden = golden(name);
        let fake = Fake::start(accepted).await;
        let done = register(&client(&fake.url()), &registration_from(&golden["body"])).await.unwrap();
        assert_eq!(
            (done.container_instance.as_str(), done.cluster.as_str(), done.availability_zone.as_str()),
            (ARN, "judge", "us-west-2b")
        );
        let sent = &fake.requests()[0];
        assert_eq!(sent.json(), golden["body"], "{name}");
        for header in ["X-Amz-Target", "User-Agent", "Content-Type", "Amz-Sdk-Request"] {
            assert_eq!(sent.header(header), golden["headers"][header].as_str(), "{header}");
        }
        let length = sent.body.len().to_string();
        assert_eq!(sent.header("content-length"), Some(length.as_str()));
        let recorded = golden["headers"]["Authorization"].as_str().unwrap();
        let signed = |text: &str| text.split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let ours = signed(sent.header("authorization").unwrap());
        // The recorded SDK also signs two headers about the attempt; the public SDK adds them after signing.
        let expected =
            signed(recorded).replace("amz-sdk-invocation-id;amz-sdk-request;", "").replace("content-length;", "");
        assert_eq!(ours.replace("content-length;", ""), expected);
    }
}

#[tokio::test]
async fn a_renewal_has_the_version_of_this_agent() {
    for (version, arn) in [("0.1.0", None), ("0.2.0", Some(ARN)), ("0.1.0", Some(ARN))] {
        let fake = Fake::start(accepted).await;
        let host = crate::ecs::attributes::Capabilities { agent_version: version.to_owned(), ..Default::default() };
        let registration = Registration {
            container_instance: arn.map(str::to_owned),
            attributes: crate::ecs::attributes::attributes(&host),
            ..small()
        };
        register(&client(&fake.url()), &registration).await.unwrap();
        let body = fake.requests()[0].json();
        assert_eq!(body["containerInstanceArn"].as_str(), arn);
        let sent = body["attributes"].as_array().unwrap().clone();
        let own = sent.iter().filter(|attribute| attribute["name"].as_str().unwrap().starts_with("ecs-agent."));
        let wanted = [("ecs-agent.implementation", "ecs-agent-rust"), ("ecs-agent.version", version)];
        assert!(own.eq(wanted.map(|(name, value)| json!({"name": name, "value": value})).iter()), "{sent:?}");
    }
}

#[tokio::test]
async fn a_changed_attribute_of_this_program_is_not_fatal() {
    let shown = [
        json!([{"name": "ecs.os-type", "value": "linux"}, {"name": "ecs-agent.version", "value": "0.0.1"}]),
        json!([{"name": "ecs.os-type", "value": "linux"}]),
    ];
    for attributes in shown {
        let answer =
            Answer::json(200, &json!({"containerInstance": {"containerInstanceArn": ARN, "attributes": attributes}}));
        let fake = Fake::start(move |_| answer.clone()).await;
        let mut registration = small();
        registration.attributes.push(Attribute::with_value("ecs-agent.version", "0.2.0"));
        assert_eq!(try_with(&fake, &registration).await.unwrap().container_instance, ARN);
        registration.attributes.push(Attribute::with_value("ecs.os-family", "LINUX"));
        assert_eq!(
            try_with(&fake, &registration).await.unwrap_err().exit_code(),
            5,
            "a changed attribute of another kind is"
        );
    }
}

#[tokio::test]
async fn own_attributes_are_left_out_if_ecs_refuses_them() {
    let names_us = |request: &Request| request.json()["attributes"].to_string().contains("ecs-agent.");
    let mut registration = Registration { cluster: Some("mine".to_owned()), ..small() };
    registration.custom_attributes.insert("rack".to_owned(), "r7".to_owned());
    registration.attributes.push(Attribute::with_value("ecs-agent.implementation", "ecs-agent-rust"));
    registration.attributes.push(Attribute::with_value("ecs-agent.version", "0.2.0"));
    for renewed in [None, Some(ARN.to_owned())] {
        registration.container_instance = renewed;
        let fake = Fake::start(move |request| match names_us(request) {
            true => Answer::error(400, "InvalidParameterException", "Too many attributes."),
            false => accepted(request),
        })
        .await;
        assert_eq!(try_with(&fake, &registration).await.unwrap().container_instance, ARN);
        let bodies: Vec<_> = fake.requests().iter().map(Request::json).collect();
        let counts: Vec<_> = bodies.iter().map(|body| body["attributes"].as_array().unwrap().len()).collect();
        assert_eq!((counts.len(), counts[0] - counts[1]), (2, 2));
        assert_eq!(bodies[0]["clientToken"], bodies[1]["clientToken"]);
    }
    registration.container_instance = None;
    // (code, message, attempts): only an invalid parameter may be due to the attributes.
    for (code, message, attempts) in [
        ("InvalidParameterException", "x", 2),
        ("InvalidParameterException", "Cluster not found.", 1),
        ("ClientException", "x", 1),
        ("AccessDeniedException", "x", 1),
    ] {
        let fake = Fake::start(move |_| Answer::error(400, code, message)).await;
        try_with(&fake, &registration).await.unwrap_err();
        assert_eq!(fake.requests().len(), attempts, "{code} {message}");
    }
}

#[tokio::test]
async fn an_inactive_instance_has_its_remedy_named() {
    let mut registration = small();
    registration.container_instance = Some(ARN.to_owned());
    // (code, message, exit code, whether the data directory is the remedy)
    for (code, message, exit_code, is_remedy) in [
        ("ClientException", "Container instance 0123456789abcdef is inactive.", 5, true),
        ("ClientException", "x", 5, false),
        ("ServerException", "Container instance 0123456789abcdef is inactive.", 1, false),
    ] {
        let fake = Fake::start(move |_| Answer::error(400, code, message)).await;
        let error = try_with(&fake, &registration).await.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("ECS_DATADIR")), (exit_code, is_remedy), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn the_default_cluster_is_created_and_a_configured_one_is_not() {
    let script = |request: &Request| match (request.operation(), request.number) {
        ("CreateCluster", _) => Answer::json(200, &json!({"cluster": {"clusterName": "default"}})),
        (_, 0) => Answer::error(400, "ClientException", "Cluster not found."),
        _ => accepted(request),
    };
    let fake = Fake::start(script).await;
    let done = try_with(&fake, &small()).await.unwrap();
    assert_eq!(done.cluster, "default");
    let operations: Vec<_> = fake.requests().iter().map(|r| r.operation().to_owned()).collect();
    assert_eq!(operations, ["RegisterContainerInstance", "CreateCluster", "RegisterContainerInstance"]);

    // If it cannot be created, the error of that call determines the exit code.
    for (code, exit) in [("ClientException", 5), ("InvalidParameterException", 5), ("AccessDeniedException", 1)] {
        let fake = Fake::start(move |request| match request.operation() {
            "CreateCluster" => Answer::error(400, code, "no"),
            _ => Answer::error(400, "ClientException", "Cluster not found."),
        })
        .await;
        assert_eq!(try_with(&fake, &small()).await.unwrap_err().exit_code(), exit, "{code}");
    }

    let fake = Fake::start(script).await;
    let configured = Registration { cluster: Some("mine".to_owned()), ..small() };
    assert_eq!(try_with(&fake, &configured).await.unwrap_err().exit_code(), 1);
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn every_error_has_its_exit_code() {
    let type_change = "Container instance type changes are not supported.";
    // (status, code, message, is a renewal, exit code, is repeated)
    let table = [
        (400, "InvalidParameterException", "x", false, 5, false),
        (400, "ClientException", "x", false, 5, false),
        (400, "ClientException", type_change, true, 5, false),
        (400, "SomethingElse", type_change, true, 5, false),
        (400, "SomethingElse", type_change, false, 1, false),
        (400, "AccessDeniedException", "x", false, 1, false),
        (400, "ClusterNotFoundException", "x", false, 1, false),
        (400, "ThrottlingException", "x", false, 1, true),
        (400, "LimitExceededException", "x", false, 1, true),
        (500, "ServerException", "x", false, 1, true),
        (500, "InternalFailure", "x", false, 1, false),
    ];
    for (status, code, message, renewal, exit, repeated) in table {
        let fake = Fake::start(move |_| Answer::error(status, code, message)).await;
        let registration = Registration {
            cluster: Some("mine".to_owned()),
            container_instance: renewal.then(|| ARN.to_owned()),
            ..small()
        };
        let error = try_with(&fake, &registration).await.unwrap_err();
        assert_eq!(error.exit_code(), exit, "{code} {error}");
        let max = if code == "InternalFailure" { 3 } else { 1 };
        assert_eq!(fake.requests().len() > max, repeated, "{code}");
        let tokens: Vec<_> = fake.requests().iter().map(|r| r.json()["clientToken"].clone()).collect();
        assert!(tokens.iter().all(|token| token == "token"));
    }
}

#[tokio::test]
async fn a_throttled_registration_is_repeated() {
    let fake = Fake::start(|request| match request.number {
        0..4 => Answer::error(400, "ThrottlingException", "Rate exceeded"),
        _ => accepted(request),
    })
    .await;
    let patient = register_with(&client(&fake.url()), &small(), FAST, Duration::from_secs(30)).await;
    assert_eq!(patient.unwrap().container_instance, ARN);
}

#[tokio::test]
async fn a_missing_attribute_is_terminal_and_a_missing_arn_is_not() {
    let answer = |instance: Value| Answer::json(200, &json!({"containerInstance": instance}));
    let fake = Fake::start(move |_| {
        answer(json!({"containerInstanceArn": ARN, "attributes": [{"name": "ecs.os-type", "value": "windows"}]}))
    })
    .await;
    let error = try_with(&fake, &small()).await.unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().contains("ecs.os-type")), (5, true));
    for nothing in ["", "{}", r#"{"containerInstance": null}"#] {
        let fake = Fake::start(move |_| Answer::text(200, nothing)).await;
        assert_eq!(try_with(&fake, &small()).await.unwrap_err().exit_code(), 1, "{nothing}");
    }
    let fake = Fake::start(move |_| answer(json!({"attributes": [{"name": "ecs.os-type", "value": "linux"}]}))).await;
    assert_eq!(try_with(&fake, &small()).await.unwrap_err().exit_code(), 1);
}

#[tokio::test]
async fn an_unreachable_api_is_worth_a_restart() {
    let client = client("http://127.0.0.1:1");
    let error = register_with(&client, &small(), FAST, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn memory_for_tasks_is_without_the_reserved_memory() {
    assert_eq!(memory_for_tasks(4 * 1024 * 1024 * 1024 + 5, 96).unwrap(), 4000);
    assert_eq!(memory_for_tasks(1024 * 1024, 2).unwrap_err().exit_code(), 1);
}
