//! ACS as in production: over TLS, through a proxy that is the only way to it.

use super::rig::{LIMIT, Plan, Rig, one_container};
use ecs_local::{Source, TaskStatus};
use ecs_testing::http_proxy::{HttpProxy, TLS_NAME};
use ecs_testing::tls_front::{Certificates, TlsFront};
use ecs_testing::wait::until;

/// Must not appear in any output.
const PASSWORD: &str = "hunter2";

fn set(rig: &mut Rig, name: &str, value: &str) {
    rig.environment.push((name.to_owned(), value.to_owned()));
}

/// Starts an agent that cannot reach ACS and waits for a line that says why; then it ends.
async fn fails_with(rig: &mut Rig, why: &str) {
    let before = rig.log().len();
    rig.start_agent();
    let line = until(why, LIMIT, async || {
        let log = rig.log();
        let is_acs = |line: &&str| line.contains("Failed to connect to ACS") && line.contains(why);
        log[before..].lines().find(is_acs).map(str::to_owned)
    })
    .await;
    assert!(!line.contains(PASSWORD), "{line}");
    rig.kill();
}

/// If the connection fails, the log gives the cause.
#[tokio::test(flavor = "multi_thread")]
async fn acs_is_reached_through_tls_and_a_proxy() {
    let Some(mut rig) = Rig::without_agent("tls", Plan::default()).await else { return };
    let ours = Certificates::make(&rig.directory.path().join("ours"));
    let others = Certificates::make(&rig.directory.path().join("others"));
    let port = rig.server.url().rsplit(':').next().unwrap().to_owned();
    let front = TlsFront::start(&port, &ours).await;
    let proxy = HttpProxy::demanding(Some(PASSWORD)).await;
    set(&mut rig, "SSL_CERT_FILE", &ours.authority());
    set(&mut rig, "HTTPS_PROXY", &proxy.url(PASSWORD));
    set(&mut rig, "ECS_BACKEND_HOST", &front.url);
    rig.start_agent();
    rig.registered().await;
    let arn = rig.server.run_task(&one_container(&rig.image(), "exit 3")).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(3));
    let tunnels = proxy.seen().iter().filter(|line| line.starts_with(&format!("CONNECT {TLS_NAME}:"))).count();
    assert!(tunnels >= 2, "one for the API, one for ACS");

    // From here on the API is reached directly, so only ACS fails.
    rig.kill();
    set(&mut rig, "ECS_BACKEND_HOST", &front.plain_url);
    let connections =
        |rig: &Rig| rig.server.read(|state| state.records().filter(|r| r.source == Source::AcsConnect).count());
    let before = connections(&rig);
    set(&mut rig, "SSL_CERT_FILE", &others.authority());
    fails_with(&mut rig, "invalid peer certificate").await;
    set(&mut rig, "SSL_CERT_FILE", &ours.authority());
    set(&mut rig, "HTTPS_PROXY", &proxy.url("wrong"));
    fails_with(&mut rig, "proxy auth").await;
    set(&mut rig, "HTTPS_PROXY", "http://127.0.0.1:1");
    fails_with(&mut rig, "through the proxy: connection refused").await;
    assert_eq!(connections(&rig), before, "nobody else came through");

    set(&mut rig, "HTTPS_PROXY", &proxy.url(PASSWORD));
    rig.start_agent();
    rig.registered().await;
    assert!(!rig.log().contains(PASSWORD));
}
