//! Access control: the real `aws` CLI and curl with the right secret, a wrong one and none, and another user of the machine.

use super::agent::{Agent, handshake, http, keys};
use super::cli::{aws_with, present};
use super::quick;
use aws_credential_types::Credentials;
use ecs_local::{Options, Registry, Server, Source};
use serde_json::Value;
use std::process::Output;
use tokio::process::Command;

const SECRET: &str = "the secret of the session";

/// A server with secrets, and a registered agent.
async fn server() -> (Server, Agent) {
    let registry = Registry::new("localhost:5000", "AWS", "registry-password".into());
    let options = Options {
        registry: Some(registry),
        secrets: [("hub".to_owned(), SECRET.into())].into(),
        parameters: [("/team/key".to_owned(), SECRET.into())].into(),
        objects: [("b/app.env".to_owned(), SECRET.into())].into(),
        user_data: Some("user data".to_owned()),
        ..quick()
    };
    let server = Server::start(options).await.unwrap();
    let agent = Agent::start(&server).await;
    (server, agent)
}

async fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
    tokio::time::timeout(super::LIMIT, command.output()).await.expect("it ends in time").ok()
}

/// Status and body of the answer to curl's request; `None`: there is no curl, or this user may not become another.
async fn curl_as(user: &[&str], arguments: &[&str]) -> Option<(String, String)> {
    let words = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}"];
    let line: Vec<&str> = user.iter().chain(&words).chain(arguments).copied().collect();
    let output = run(line[0], &line[1..]).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n')?;
    Some((status.to_owned(), body.to_owned()))
}

async fn curl(arguments: &[&str]) -> Option<(String, String)> {
    let found = curl_as(&[], arguments).await;
    if found.is_none() {
        eprintln!("SKIPPED: no curl");
    }
    found
}

/// `aws s3 ls` asks for a list of buckets, which this S3 does not have. The CLI does not ask again.
#[tokio::test]
async fn an_unsupported_call_of_s3_says_what_is_supported() {
    if !present().await {
        return;
    }
    let (server, _agent) = server().await;
    for line in [&["s3", "ls"][..], &["s3api", "list-objects-v2", "--bucket", "b"]] {
        let problem = aws_with(&server, server.token().expose(), line).await.unwrap_err();
        assert!(problem.contains("(NotImplemented)") && problem.contains("--buckets DIR"), "{line:?}: {problem}");
        assert!(!problem.contains("reached max retries"), "{problem}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_cli_is_served_with_the_token_only() {
    if !present().await {
        return;
    }
    let (server, _agent) = server().await;
    let directory = std::env::temp_dir().join(format!("ecs-local-access-{}", uuid::Uuid::new_v4().simple()));
    let file = directory.to_str().unwrap();
    let object = ["s3api", "get-object", "--bucket", "b", "--key", "app.env", file];
    let calls: [(&[&str], &str); 6] = [
        (&["ecs", "list-clusters"], "(InvalidSignatureException)"),
        (&["ecr", "get-authorization-token"], "(InvalidSignatureException)"),
        (&["secretsmanager", "get-secret-value", "--secret-id", "hub"], "(InvalidSignatureException)"),
        (&["ssm", "get-parameters", "--names", "/team/key"], "(InvalidSignatureException)"),
        (&["ec2", "describe-tags"], "(AuthFailure)"),
        (&object, "(SignatureDoesNotMatch)"),
    ];
    for (line, refusal) in calls {
        let problem = aws_with(&server, "wrong", line).await.unwrap_err();
        assert!(problem.contains(refusal), "{line:?}: {problem}");
        assert!(!directory.exists(), "{line:?}");
        aws_with(&server, server.token().expose(), line).await.unwrap_or_else(|problem| panic!("{line:?}: {problem}"));
    }
    assert_eq!(std::fs::read_to_string(&directory).unwrap(), SECRET);
    std::fs::remove_file(&directory).unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn curl_is_served_with_the_token_only() {
    let (server, _agent) = server().await;
    let (url, token) = (format!("{}/", server.url()), server.token().expose().to_owned());
    let target = "X-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters";
    let call = [url.as_str(), "-H", target, "-d", "{}"];
    let sign = ["--aws-sigv4", "aws:amz:eu-north-1:ecs", "--user"];
    let (right, wrong) = (format!("local:{token}"), "local:wrong".to_owned());
    let Some((status, body)) = curl(&call).await else { return };
    assert_eq!(status, "400");
    assert!(body.contains("MissingAuthenticationTokenException"), "{body}");
    for (user, expected) in [(&right, "200"), (&wrong, "400")] {
        let line: Vec<&str> = call.iter().chain(&sign).copied().chain([user.as_str()]).collect();
        assert_eq!(curl(&line).await.unwrap().0, expected);
    }
    let records = format!("{url}_local/records");
    let bearer = format!("Authorization: Bearer {token}");
    for (more, expected) in [
        (vec![], "401"),
        (vec!["--user", &wrong], "401"),
        (vec!["--user", &token], "401"),
        (vec!["-H", "Authorization: Bearer wrong"], "401"),
        (vec!["--user", &right], "200"),
        (vec!["-H", &bearer], "200"),
    ] {
        let line: Vec<&str> = [records.as_str()].into_iter().chain(more).collect();
        let (status, body) = curl(&line).await.unwrap();
        assert_eq!(status, expected, "{line:?}");
        assert_eq!(body.contains("RegisterContainerInstance"), expected == "200", "{body}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_presigned_address_opens_one_object() {
    if !present().await {
        return;
    }
    let (server, _agent) = server().await;
    let (token, line) = (server.token().expose(), ["s3", "presign", "s3://b/app.env"]);
    let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let good = text(aws_with(&server, token, &line).await.unwrap());
    let wrong = text(aws_with(&server, "wrong", &line).await.unwrap());
    let get = async |address: &str| {
        let answer = http().get(address).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get(&good).await, (200, SECRET.to_owned()), "{good}");
    for address in
        [wrong.as_str(), &good.replace("app.env", "other.env"), &good.replace("X-Amz-Expires=", "X-Amz-Expires=9")]
    {
        let (status, body) = get(address).await;
        assert_eq!((status, body.contains("SignatureDoesNotMatch")), (403, true), "{address}: {body}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn nothing_unsigned_or_wrongly_signed_has_an_effect() {
    let (server, agent) = server().await;
    let before = server.read(|state| (state.tasks().len(), state.instances()[0].registrations));
    let wrong = || Some(Credentials::new("local", "wrong", None, None, "test"));
    let stale = || Some(Credentials::new("ASIA0123456789ABCDEF", "x", Some("y".to_owned()), None, "test"));
    for (name, keys, code) in [
        ("unsigned", None, "MissingAuthenticationTokenException"),
        ("wrong secret", wrong(), "InvalidSignatureException"),
        ("a role of another session", stale(), "UnrecognizedClientException"),
    ] {
        for operation in ["RunTask", "RegisterContainerInstance", "DeregisterContainerInstance", "CreateCluster"] {
            let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
            let (status, body) =
                super::api(&server.url(), &target, &serde_json::json!({}), keys.clone()).await.unwrap();
            assert_eq!((status, body["__type"].as_str()), (400, Some(code)), "{name} {operation}");
        }
        let connects = |state: &ecs_local::State| state.records().filter(|r| r.source == Source::AcsConnect).count();
        let open = server.read(connects);
        let (status, body) = handshake(&server.url(), &agent.query(), keys).await.unwrap_err();
        assert!([400, 403].contains(&status) && !body.contains(SECRET), "{name}: {status} {body}");
        assert_eq!(server.read(connects), open, "{name}");
    }
    assert_eq!(server.read(|state| (state.tasks().len(), state.instances()[0].registrations)), before);
    assert!(handshake(&server.url(), &agent.query(), Some(keys(&server))).await.is_ok());
    server.shutdown().await;
}

#[tokio::test]
async fn another_user_of_the_machine_gets_no_credentials() {
    const NOBODY: [&str; 5] = ["setpriv", "--reuid", "65534", "--clear-groups", "--"];
    let (server, _agent) = server().await;
    let base = format!("{}/latest", server.url());
    let ttl = ["-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60"];
    let address = format!("{base}/api/token");
    let line: Vec<&str> = ttl.iter().copied().chain([address.as_str()]).collect();
    let other_user = curl_as(&NOBODY, &line).await.filter(|(status, _)| status == "200");
    let Some((_, token)) = other_user else {
        eprintln!("SKIPPED: no curl, or this user may not become another one (setpriv)");
        return;
    };
    let header = format!("X-aws-ec2-metadata-token: {token}");
    for (path, for_the_user, for_others) in [
        ("meta-data/instance-id", "200", "200"),
        ("meta-data/iam/security-credentials/", "200", "403"),
        ("meta-data/iam/security-credentials/ecsInstanceRole", "200", "403"),
        ("meta-data//iam/security-credentials/ecsInstanceRole", "404", "403"),
        ("user-data", "200", "403"),
    ] {
        let address = format!("{base}/{path}");
        let line = ["-H", header.as_str(), address.as_str()];
        assert_eq!(curl(&line).await.unwrap().0, for_the_user, "{path}");
        let (status, body) = curl_as(&NOBODY, &line).await.unwrap();
        assert_eq!(status, for_others, "{path}: {body}");
        assert!(!body.contains("SecretAccessKey") && body != "user data", "{path}: {body}");
    }
    server.shutdown().await;
}
