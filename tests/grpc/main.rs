//! Calls to the credentials fetcher, against the original implementation of gRPC and protocol buffers (`grpcio` from PyPI): it
//! understands the agent's calls, and the agent understands its answers.
//!
//! `tests/run` installs grpcio into target/tools. Without it the test is skipped with a notice; with `ECS_TEST_REQUIRE_GRPC=1`
//! it fails.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "everything in this crate is a test or a part of one")]

use ecs_agent::aws::client::sdk::{self, Sdk};
use ecs_agent::aws::identity::roles::{RoleCredentials, RoleKind};
use ecs_agent::resources::{Resources, Settings};
use ecs_core::model::resource::ResourceSpec;
use ecs_core::model::{Failure, ResourceKind, ResourceRequest, Tickets};
use ecs_local::{Options, Server};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:corp-AbCdEf";

/// A credentials fetcher in Python that uses grpcio: its process and its files. Both are removed when this is dropped.
struct Fetcher {
    process: Child,
    directory: PathBuf,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Fetcher {
    async fn start() -> Option<Self> {
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = top.join("target/tools/grpc/bin/python3");
        if !python.exists() {
            let required = std::env::var("ECS_TEST_REQUIRE_GRPC").is_ok_and(|value| value == "1");
            assert!(!required, "grpcio is not installed, and ECS_TEST_REQUIRE_GRPC=1");
            eprintln!("SKIPPED: no grpcio (./tests/run installs it)");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("ecs-test-grpc-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let process = Command::new(python)
            .arg(top.join("tests/support/credentials_fetcher.py"))
            .args([directory.join("fetcher.sock"), directory.join("log")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let fetcher = Self { process, directory };
        let socket = fetcher.directory.join("fetcher.sock");
        ecs_testing::wait::until("the fetcher", LIMIT, async || tokio::net::UnixStream::connect(&socket).await.ok())
            .await;
        Some(fetcher)
    }

    /// A credential spec whose document is in a file.
    fn spec(&self, prefix: &str, account: &str, comment: &str) -> (String, String) {
        let document = json!({
            "DomainJoinConfig": {"MachineAccountName": account, "DnsName": "corp.example"},
            "ActiveDirectoryConfig": {"HostAccountConfig": {"PluginInput": {"CredentialArn": SECRET}}},
            "Comment": comment,
        });
        let path = self.directory.join(format!("{account}.json"));
        std::fs::write(&path, document.to_string()).unwrap();
        (format!("{prefix}:file://{}", path.display()), document.to_string())
    }

    /// The calls so far.
    fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Credentials that the embedded control plane accepts.
fn role(server: &Server) -> RoleCredentials {
    RoleCredentials {
        id: "exec".into(),
        role_arn: "arn:aws:iam::123456789012:role/execRole".to_owned(),
        kind: RoleKind::Execution,
        access_key_id: "AKID".into(),
        secret_access_key: server.token().clone(),
        session_token: "".into(),
        expiration: String::new(),
    }
}

fn removal(tickets: Tickets) -> ResourceRequest {
    let kind = ResourceKind::CredentialSpecs(Vec::new());
    ResourceRequest {
        task: "task".into(),
        family: String::new(),
        version: String::new(),
        spec: ResourceSpec { name: "credentialspec".to_owned(), needed_by: Vec::new(), kind },
        execution_credentials: None,
        role_id: None,
        pause_pid: 0,
        tickets: Some(tickets),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_answers_are_understood_by_grpcio_and_the_agent() {
    let Some(fetcher) = Fetcher::start().await else { return };
    ecs_agent::aws::install_tls();
    let server = Server::start(Options::default()).await.unwrap();
    let password = "pässword-with-\u{1F511}";
    let account = json!({"username": "me", "password": password, "domainName": "corp.example"});
    server.put_secret("corp", account.to_string().as_str().into()).unwrap();
    let settings =
        sdk::Settings { region: "us-west-2".to_owned(), endpoint_url: Some(server.url()), ..sdk::Settings::default() };
    let settings_of_fetcher =
        Settings { credentials_fetcher: fetcher.directory.join("fetcher.sock"), ..Settings::default() };
    let (resources, role) = (Resources::new(Sdk::new(settings).unwrap(), settings_of_fetcher), role(&server));

    // This is more than the flow-control windows of a connection hold.
    let (web, web_document) = fetcher.spec("credentialspec", "web", &"ä".repeat(100_000));
    let (db, db_document) = fetcher.spec("credentialspec", "db", "");
    let (app, app_document) = fetcher.spec("credentialspecdomainless", "app", "");
    let tickets = resources.tickets(&[web.clone(), db.clone(), app.clone()], Some(&role)).await.unwrap();
    let paths = [(web, "/krb/joined/web"), (db, "/krb/joined/db"), (app, "/krb/domainless/app")];
    assert_eq!(tickets.paths, paths.map(|(spec, path)| (spec, path.to_owned())).into());
    resources.renew(&tickets, Some(&role)).await.unwrap();
    resources.remove(&removal(tickets)).await.unwrap();
    let account = json!({"username": "me", "password": password, "domain": "corp.example"});
    let mut domainless = account.clone();
    domainless["credspec_contents"] = json!([app_document]);
    let wanted = [
        ("AddKerberosLease", json!({"credspec_contents": [web_document, db_document]})),
        ("AddNonDomainJoinedKerberosLease", domainless),
        ("RenewNonDomainJoinedKerberosLease", account),
        ("DeleteKerberosLease", json!({"lease_id": "joined"})),
        ("DeleteKerberosLease", json!({"lease_id": "domainless"})),
    ];
    let wanted: Vec<Value> = wanted.map(|(method, request)| json!({"method": method, "request": request})).into();
    assert_eq!(fetcher.log(), wanted);

    let message = |result: Result<Tickets, Failure>| result.unwrap_err().message;
    let (refused, _) = fetcher.spec("credentialspec", "FAIL", "");
    let text = "rpc error: code = InvalidArgument desc = ERROR: ä of 100% is wrong";
    assert_eq!(message(resources.tickets(&[refused], None).await), text);
    let (later, _) = fetcher.spec("credentialspec", "LATER", "");
    assert_eq!(message(resources.tickets(&[later], None).await), "rpc error: code = Unavailable desc = not now");
    assert_eq!(fetcher.log().len(), wanted.len() + 1 + 3, "a call that may succeed later is tried three times");
}
