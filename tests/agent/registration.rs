//! Registration that is refused, and the exit code of the process: 5 for "do not restart", 1 for "restart".

use super::rig::{Plan, Rig};
use ecs_local::{Fault, Source};

const REGISTER: &str = "RegisterContainerInstance";

fn error(code: &str, message: &str) -> Fault {
    Fault::Error(400, code.to_owned(), message.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_process_with_the_right_code() {
    let Some(mut rig) = Rig::without_agent("refused registration", Plan::default()).await else { return };
    for (fault, code) in [
        (error("InvalidParameterException", "no"), 5),
        (error("ClientException", "no"), 5),
        (Fault::AccessDenied, 1),
        (error("ClusterNotFoundException", "Cluster not found."), 1),
        (Fault::Malformed, 1),
        (Fault::Empty, 1),
        (Fault::Page(200), 1),
        (Fault::Page(503), 1),
        (Fault::Truncated, 1),
        (Fault::Drop, 1),
    ] {
        rig.server.fail_next(REGISTER, 10, &fault);
        rig.start_agent();
        assert_eq!(rig.ended().code(), Some(code), "{fault:?}\n{}", rig.log());
        rig.server.clear_faults();
        assert_eq!(rig.server.read(|state| state.instances().len()), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_that_ecs_does_not_take_is_final() {
    // ECS keeps the first of two attributes of one name, so the attribute that it answers is not the one that the agent sent
    // last.
    let plan = Plan { environment: &[("ECS_INSTANCE_ATTRIBUTES", r#"{"ecs.os-type": "other"}"#)], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("attribute mismatch", plan).await else { return };
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(5), "{}", rig.log());
    assert!(rig.log().contains("ecs.os-type"), "{}", rig.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_without_own_attributes_is_logged() {
    let Some(mut rig) = Rig::without_agent("too many attributes", Plan::default()).await else { return };
    rig.server.fail_next(REGISTER, 1, &error("InvalidParameterException", "Too many attributes."));
    rig.start_agent();
    rig.registered().await;
    for name in ["ecs-agent.implementation", "ecs-agent.version"] {
        assert!(!rig.server.read(|state| state.instances()[0].has_attribute(name)), "{name}");
    }
    let log = rig.log();
    let line = log.lines().find(|line| line.contains("repeated without the attributes ecs-agent.")).expect("a line");
    assert!(line.contains("level=warn") && line.contains("Too many attributes."), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_failure_is_waited_out() {
    let Some(mut rig) = Rig::without_agent("failing registration", Plan::default()).await else { return };
    rig.server.fail_next(REGISTER, 4, &Fault::Throttle);
    rig.server.fail_next("DiscoverPollEndpoint", 4, &Fault::ServerError);
    rig.server.fail_next("acs", 2, &Fault::AccessDenied);
    rig.start_agent();
    rig.registered().await;
    assert_eq!(rig.server.read(|state| state.instances().len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_is_lost_is_made_once() {
    let Some(mut rig) = Rig::without_agent("lost registration", Plan::default()).await else { return };
    rig.server.fail_next(REGISTER, 1, &Fault::LoseAnswer);
    rig.start_agent();
    rig.registered().await;
    let calls = rig.server.read(|state| {
        let calls = state.records().filter(|record| record.source == Source::Api && record.name == REGISTER);
        calls.map(|record| record.body["clientToken"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0], calls[1], "the same token, so that ECS knows the second call for the first");
    assert_eq!(rig.server.read(|state| state.instances().len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configured_cluster_default_is_made_and_used() {
    let Some(mut rig) = Rig::without_agent("default cluster", Plan::default()).await else { return };
    rig.environment.retain(|(name, _)| name != "ECS_CLUSTER");
    rig.start_agent();
    rig.registered().await;
    let cluster = rig.server.read(|state| state.instances()[0].cluster.clone());
    assert_eq!(cluster, "default");
    assert_eq!(rig.introspect("/v1/metadata").await["Cluster"], "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_cluster_that_is_missing_is_not_made() {
    let plan = Plan { environment: &[("ECS_CLUSTER", "nobody-made-this")], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("missing cluster", plan).await else { return };
    rig.start_agent();
    // ECS answers with ClientException, which is final otherwise; but the cluster may be made later.
    assert_eq!(rig.ended().code(), Some(1), "{}", rig.log());
    let wanted = "cluster 'nobody-made-this': ClientException: Cluster not found.";
    assert!(rig.log().contains(wanted), "{}", rig.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_follow_the_settings_of_the_operator() {
    let environment = [
        ("ECS_DISABLE_PRIVILEGED", "true"),
        ("ECS_SELINUX_CAPABLE", "true"),
        ("ECS_APPARMOR_CAPABLE", "true"),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file", "syslog"]"#),
    ];
    let Some(mut rig) = Rig::without_agent("attributes", Plan::default()).await else { return };
    for set in [false, true] {
        if set {
            rig.environment.extend(environment.map(|(name, value)| (name.to_owned(), value.to_owned())));
            let other = rig.directory.path().join("other").to_string_lossy().into_owned();
            rig.environment.push(("ECS_DATADIR".to_owned(), other)); // an instance of its own
        }
        rig.start_agent();
        rig.registered().await;
        for (name, by_default, then) in [
            ("privileged-container", true, false),
            ("selinux", false, true),
            ("apparmor", false, true),
            ("logging-driver.json-file", true, true),
            ("logging-driver.syslog", false, true),
        ] {
            let name = format!("com.amazonaws.ecs.capability.{name}");
            let has = rig.server.read(|state| state.instances().last().unwrap().has_attribute(&name));
            assert_eq!(has, if set { then } else { by_default }, "{name}, set: {set}");
        }
        assert!(rig.terminate().success());
    }
}
