//! Credential specs (gMSA): a stand-in for the credentials fetcher makes directories of tickets, and real containers see them.

use super::registries::{all_output, assert_nowhere, images_gone};
use super::rig::{LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::credentials_fetcher::{Fault, Fetcher};
use ecs_testing::docker::{docker, inspect};
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::123456789012:role/execRole";
const ACCOUNT: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:corp-AbCdEf";
const DOMAINLESS: &str = "credentialspecdomainless:arn:aws:ssm:us-west-2:123456789012:parameter/team/app.json";
const PASSWORD: &str = "hunter2-of-the-domain";
const KRBDIR: &str = "/var/credentials-fetcher/krbdir";

fn document(account: &str) -> String {
    json!({
        "DomainJoinConfig": {"MachineAccountName": account, "DnsName": "corp.example"},
        "ActiveDirectoryConfig": {"HostAccountConfig": {"PluginInput": {"CredentialArn": ACCOUNT}}},
    })
    .to_string()
}

/// An agent on a host with a credentials fetcher.
async fn start(test: &str, docker: Option<&DockerProxy>) -> Option<(Rig, Fetcher)> {
    let environment = [
        ("ECS_GMSA_SUPPORTED", "true"),
        ("ECS_DOMAIN_JOINED_LINUX_INSTANCE", "true"),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "0s"),
    ];
    let mut rig = Rig::without_agent(test, Plan { environment: &environment, ..Plan::default() }).await?;
    let fetcher = Fetcher::start(rig.directory.path());
    let socket = fetcher.socket().to_string_lossy().into_owned();
    rig.environment.push(("CREDENTIALS_FETCHER_HOST_DIR".to_owned(), socket));
    rig.environment.extend(docker.map(|proxy| ("DOCKER_HOST".to_owned(), proxy.endpoint())));
    rig.server.put_parameter("/team/app.json", document("App").as_str().into()).unwrap();
    let account = json!({"username": "me", "password": PASSWORD, "domainName": "corp.example"});
    rig.server.put_secret("corp", account.to_string().as_str().into()).unwrap();
    rig.server.put_object("specs", "web.json", document("web").as_str().into()).unwrap();
    std::fs::write(rig.directory.path().join("db.json"), document("db")).unwrap();
    rig.start_agent();
    rig.registered().await;
    Some((rig, fetcher))
}

/// A task with three containers that fail unless they see a ticket that they cannot write to. One of them names its spec in the
/// old way.
fn task(rig: &Rig, image: &str) -> Value {
    let sees = format!(
        "test \"$(cat {KRBDIR}/krb5cc)\" = 'a ticket' || exit 7; touch {KRBDIR}/x 2>/dev/null && exit 8; trap 'exit 0' TERM; \
         while :; do sleep 0.1; done"
    );
    let [mut app, mut web, mut db] = ["app", "web", "db"].map(|name| shell(name, image, &sees));
    app["credentialSpecs"] = json!([DOMAINLESS]);
    web["credentialSpecs"] = json!(["credentialspec:arn:aws:s3:::specs/web.json"]);
    let file = format!("credentialspec:file://{}/db.json", rig.directory.path().display());
    db["dockerSecurityOptions"] = json!([file, "no-new-privileges"]);
    json!({"family": "gmsa", "executionRoleArn": ROLE, "containerDefinitions": [app, web, db]})
}

/// The lease ends with the task even if the agent was killed in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_ticket_and_the_lease_ends_with_it() {
    let Some((mut rig, fetcher)) = start("gmsa", None).await else { return };
    let offered = rig.server.read(|state| {
        let attributes = state.instances().last().unwrap().attributes.clone();
        ["gmsa", "gmsa-domainless"]
            .map(|name| attributes.iter().any(|attribute| attribute.name == format!("ecs.capability.{name}")))
    });
    assert_eq!(offered, [true; 2]);
    let image = rig.image();
    let arn = rig.server.run_task(&task(&rig, &image)).unwrap();
    let running = rig.task(&arn, TaskStatus::Running).await;
    let leases = fetcher.leases();
    assert_eq!(leases.len(), 2, "one for the two in the domain, one for the other");
    for (name, account) in [("app", "App"), ("web", "web"), ("db", "db")] {
        let host = inspect(running.container(name).unwrap().runtime_id.as_ref().unwrap())["HostConfig"].clone();
        let [bind] = &host["Binds"].as_array().unwrap()[..] else { panic!("{host}") };
        let wanted = format!("/{account}:{KRBDIR}:ro");
        assert!(bind.as_str().unwrap().ends_with(&wanted), "{bind}");
        let options = if name == "db" { json!(["no-new-privileges"]) } else { Value::Null };
        assert_eq!(host["SecurityOpt"], options, "{name}");
    }
    let output = all_output(&rig).await;
    assert_nowhere(&output, "me", PASSWORD);

    rig.server.refresh_credentials(&arn).unwrap();
    let renewal = || fetcher.calls_of("RenewNonDomainJoinedKerberosLease").first().cloned();
    let renewed = until("the renewal", LIMIT, async || renewal()).await;
    assert_eq!(renewed.fields, [(1, "me".to_owned()), (2, PASSWORD.to_owned()), (3, "corp.example".to_owned())]);

    rig.kill();
    rig.start_agent();
    rig.registered().await;
    assert_eq!(fetcher.leases(), leases, "no other ones");
    rig.server.stop_task(&arn, "enough").unwrap();
    let stopped = rig.task(&arn, TaskStatus::Stopped).await;
    assert!(stopped.containers.iter().all(|container| container.exit_code == Some(0)), "{stopped:?}");
    until("the leases to go with the task", LIMIT, async || fetcher.leases().is_empty().then_some(())).await;
    assert_eq!(
        fetcher.calls_of("AddKerberosLease").len() + fetcher.calls_of("AddNonDomainJoinedKerberosLease").len(),
        2
    );
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ticket_made_before_a_kill_is_the_one_the_container_gets() {
    let proxy = DockerProxy::start();
    let Some((mut rig, fetcher)) = start("gmsa, killed", Some(&proxy)).await else { return };
    let image = rig.image();
    let mut main = shell("main", &image, &format!("cat {KRBDIR}/krb5cc"));
    main["credentialSpecs"] = json!([DOMAINLESS]);
    proxy.hold(&["POST", "/containers/create"], Hold::Before);
    let definition = json!({"family": "gmsa", "executionRoleArn": ROLE, "containerDefinitions": [main]});
    let arn = rig.server.run_task(&definition).unwrap();
    proxy.held().await;
    assert_eq!(fetcher.leases().len(), 1, "it is there before the container");
    rig.kill();
    rig.start_agent();
    let stopped = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(stopped.containers[0].exit_code, Some(0));
    until("the lease to go with the task", LIMIT, async || fetcher.leases().is_empty().then_some(())).await;
    let mut methods: Vec<String> = fetcher.calls().into_iter().map(|call| call.method).collect();
    // ECS sends the credentials again to an agent that comes back; unless the task is over by then, its ticket is renewed.
    methods.retain(|method| method != "RenewNonDomainJoinedKerberosLease");
    assert_eq!(methods, ["AddNonDomainJoinedKerberosLease", "DeleteKerberosLease"]);
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_gives_the_leases_back_as_well() {
    let Some((mut rig, fetcher)) = start("gmsa, state lost", None).await else { return };
    let image = rig.image();
    let arn = rig.server.run_task(&task(&rig, &image)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    assert_eq!(fetcher.leases().len(), 2);
    rig.kill();
    // The file is damaged, not missing: the agent is still the same container instance, and its tasks are rebuilt from their
    // containers.
    let file = rig.directory.path().join("data/ecs-agent.redb");
    std::fs::write(&file, "nonsense").unwrap();
    rig.start_agent();
    rig.registered().await;
    for container in rig.containers() {
        docker(&["stop", "-t", "10", &container]);
    }
    until("the leases to go with the task", LIMIT, async || fetcher.leases().is_empty().then_some(())).await;
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ticket_a_task_stops_with_the_reason() {
    let Some((mut rig, fetcher)) = start("gmsa refused", None).await else { return };
    let image = rig.image();
    let reason = async |rig: &Rig, spec: &str| {
        let mut main = shell("main", &image, "exit 0");
        main["credentialSpecs"] = json!([spec]);
        let definition = json!({"family": "gmsa", "executionRoleArn": ROLE, "containerDefinitions": [main]});
        let arn = rig.server.run_task(&definition).unwrap();
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(task.containers[0].runtime_id, None, "it was never created");
        rig.reports(&arn).last().unwrap()["reason"].as_str().unwrap_or_default().to_owned()
    };
    let text = "Unsupported credentialspec ARN, only s3/ssm ARNs are valid";
    assert_eq!(reason(&rig, "credentialspec:arn:aws:sns:us-west-2:123456789012:x").await, text);
    fetcher.fail_next([Fault::Status(3, "ERROR: cannot get machine krb ticket")]);
    let text = "Rpc error: code = InvalidArgument desc = ERROR: cannot get machine krb ticket";
    assert_eq!(reason(&rig, "credentialspec:arn:aws:s3:::specs/web.json").await, text);
    let refused = json!({
        "arn": format!("arn:aws:ecs:us-west-2:123456789012:task/{}/0123456789abcdef0123456789abcdef", rig.cluster.name),
        "desiredStatus": "RUNNING", "family": "f", "version": "1",
        "containers": [{"name": "main", "image": image, "credentialSpecs": [DOMAINLESS], "essential": true}],
    });
    rig.kill();
    rig.environment.push(("ECS_GMSA_SUPPORTED".to_owned(), "false".to_owned()));
    rig.start_agent();
    rig.registered().await;
    let arn = refused["arn"].as_str().unwrap().to_owned();
    rig.server.send_task(refused).unwrap();
    let reported = || rig.reports(&arn).last().and_then(|body| Some(body["reason"].as_str()?.to_owned()));
    let reported = until("the refusal", LIMIT, async || reported()).await;
    let wanted = "UnsupportedTaskError: a credential spec, where gMSA (ECS_GMSA_SUPPORTED) is off, is not supported by this version of \
                  the agent (container main)";
    assert_eq!(reported, wanted);
    images_gone(&[&image]);
}

/// Four such reads once blocked all threads for name look-ups forever.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_never_end_hold_nothing_up() {
    let Some((rig, _fetcher)) = start("hanging-reads", None).await else { return };
    let image = rig.image();
    let queue = rig.directory.path().join("queue");
    assert!(std::process::Command::new("mkfifo").arg(&queue).status().unwrap().success());
    // The kernel's messages: a regular file whose reader waits for the next message.
    let mut paths = vec![queue.display().to_string(), "/dev/ptmx".to_owned(), "/dev/zero".to_owned()];
    if std::fs::File::open("/proc/kmsg").is_ok() {
        paths.extend(vec!["/proc/kmsg".to_owned(); 5]);
    }
    let arns: Vec<String> = paths
        .iter()
        .map(|path| {
            let mut task = super::rig::one_container(&image, "exit 0");
            task["containerDefinitions"][0]["dockerSecurityOptions"] = json!([format!("credentialspec:file://{path}")]);
            rig.server.run_task(&task).unwrap()
        })
        .collect();
    for (arn, path) in arns.iter().zip(&paths) {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        let reason = task.stopped_reason.unwrap_or_default();
        assert!(reason.starts_with(&format!("Open {path}: not a regular file")), "{path}: {reason}");
    }
    rig.lives_once(&image, 7, "another task runs").await;
}
