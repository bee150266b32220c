//! Calls to SSM, Secrets Manager, S3 and ECR, against moto, an independent imitation of AWS: moto understands the requests,
//! checks their signatures, and returns the values.
//!
//! `tests/run` installs moto (`moto[server]` from PyPI, into target/tools). It listens on loopback only. Without moto the tests
//! are skipped with a notice; with `ECS_TEST_REQUIRE_MOTO=1` they fail.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "everything in this crate is a test or a part of one")]

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use ecs_agent::aws::client::sdk::{Sdk, Settings};
use ecs_agent::aws::identity::roles::{RoleCredentials, RoleKind};
use ecs_agent::aws::services::ecr::EcrTokens;
use ecs_agent::aws::services::registry_secret::RegistrySecrets;
use ecs_agent::aws::services::s3::{self, Object};
use ecs_agent::aws::services::{secrets_manager, ssm};
use ecs_core::model::resource::{SecretKey, SecretProvider};
use ecs_core::model::task::{EcrAuth, SecretAuth};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const REGION: &str = "us-west-2";
const LIMIT: Duration = Duration::from_secs(60);

/// The server, with the keys of a user who may do everything; it ends when dropped.
struct Moto {
    process: Child,
    url: String,
    keys: (String, String),
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, from `tests/run` or from the search path.
fn program() -> Option<PathBuf> {
    let installed = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/moto_server"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&path).map(|directory| directory.join("moto_server"));
    let found = std::iter::once(installed).chain(beside).find(|path| path.exists());
    if found.is_none() {
        let required = std::env::var("ECS_TEST_REQUIRE_MOTO").is_ok_and(|value| value == "1");
        assert!(!required, "moto_server is not installed, and ECS_TEST_REQUIRE_MOTO=1");
        eprintln!("SKIPPED: no moto_server (./tests/run installs it)");
    }
    found
}

impl Moto {
    async fn start() -> Option<Self> {
        let program = program()?;
        ecs_agent::aws::install_tls(); // reqwest wants a provider, also for plain http
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            // The server must not find AWS keys in the environment of this test.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Self { process, url: format!("http://127.0.0.1:{port}"), keys: (String::new(), String::new()) };
        let answers = async || reqwest::get(format!("{}/moto-api/data.json", moto.url)).await.ok();
        ecs_testing::wait::until("moto", LIMIT, answers).await;
        moto.make_user().await;
        Some(moto)
    }

    /// A request with a false signature, which moto accepts until it checks signatures.
    fn unchecked(&self, service: &str, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let scope = format!("Credential=AKIDANYBODY/20260101/{REGION}/{service}/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0");
        reqwest::Client::new().request(method, format!("{}{path}", self.url)).header("authorization", authorization)
    }

    async fn json(&self, service: &str, target: &str, body: Value) -> Value {
        let request = self.unchecked(service, reqwest::Method::POST, "/");
        let request = request.header("x-amz-target", target).header("content-type", "application/x-amz-json-1.1");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{target}: {}", answer.status());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default()
    }

    async fn iam(&self, form: &[(&str, &str)]) -> String {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.unchecked("iam", reqwest::Method::POST, "/");
        let answer =
            request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{form:?}: {}", answer.status());
        answer.text().await.unwrap()
    }

    async fn make_user(&mut self) {
        let version = ("Version", "2010-05-08");
        self.iam(&[("Action", "CreateUser"), version, ("UserName", "role")]).await;
        let policy =
            json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
        let policy = policy.to_string();
        let put = [
            ("Action", "PutUserPolicy"),
            version,
            ("UserName", "role"),
            ("PolicyName", "all"),
            ("PolicyDocument", &policy),
        ];
        self.iam(&put).await;
        let made = self.iam(&[("Action", "CreateAccessKey"), version, ("UserName", "role")]).await;
        let member = |name: &str| {
            let rest = made.split_once(&format!("<{name}>")).unwrap().1;
            rest.split_once('<').unwrap().0.to_owned()
        };
        self.keys = (member("AccessKeyId"), member("SecretAccessKey"));
    }

    async fn put_object(&self, path: &str, body: &str) {
        let request = self.unchecked("s3", reqwest::Method::PUT, path).body(body.to_owned());
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    /// Makes moto check signatures after the next `requests` requests.
    async fn check_signatures_after(&self, requests: u32) {
        let url = format!("{}/moto-api/reset-auth", self.url);
        let answer = reqwest::Client::new().post(url).body(requests.to_string()).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    fn role(&self, secret: &str) -> RoleCredentials {
        RoleCredentials {
            id: "exec".into(),
            role_arn: "arn:aws:iam::123456789012:role/execRole".to_owned(),
            kind: RoleKind::Execution,
            access_key_id: self.keys.0.as_str().into(),
            secret_access_key: secret.into(),
            session_token: "".into(),
            expiration: String::new(),
        }
    }

    fn sdk(&self) -> Sdk {
        let endpoint_url = Some(self.url.clone());
        Sdk::new(Settings { region: REGION.to_owned(), endpoint_url, ..Settings::default() }).unwrap()
    }
}

fn key(provider: SecretProvider, value_from: &str) -> SecretKey {
    SecretKey { provider, value_from: value_from.to_owned(), region: REGION.to_owned() }
}

#[tokio::test]
async fn moto_understands_the_requests_and_accepts_the_signatures() {
    let Some(moto) = Moto::start().await else { return };
    for number in 0..12 {
        let body =
            json!({"Name": format!("/team/p{number}"), "Type": "SecureString", "Value": format!("value {number}")});
        moto.json("ssm", "AmazonSSM.PutParameter", body).await;
    }
    let text = r#"{"username": "me", "password": "hunter2", "port": 1000000}"#;
    let made =
        moto.json("secretsmanager", "secretsmanager.CreateSecret", json!({"Name": "hub", "SecretString": text})).await;
    let arn = made["ARN"].as_str().unwrap().to_owned();
    let location = format!(
        "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
    );
    moto.put_object("/test-bucket", &location).await;
    moto.put_object("/test-bucket/dir/app%20x.env", "A=1\nB=\u{e4}\n").await;
    moto.put_object("/test-bucket/empty", "").await;
    moto.check_signatures_after(0).await;

    let (sdk, role) = (moto.sdk(), moto.role(&moto.keys.1));
    let mut keys: Vec<_> = (0..12).map(|number| key(SecretProvider::Ssm, &format!("/team/p{number}"))).collect();
    let found = ssm::parameters(&sdk, &keys, Some(&role)).await.unwrap();
    assert!((0..12).all(|number| found[&keys[number]].expose() == format!("value {number}")));
    keys.push(key(SecretProvider::Ssm, "/team/none"));
    let failure = ssm::parameters(&sdk, &keys, Some(&role)).await.unwrap_err();
    assert!(failure.message.ends_with("invalid parameters: /team/none"), "{failure}");

    let asked = ["", ":port::", ":password:AWSCURRENT:"]
        .map(|tail| key(SecretProvider::SecretsManager, &format!("{arn}{tail}")));
    let found = secrets_manager::secrets(&sdk, &asked, Some(&role)).await.unwrap();
    assert_eq!(asked.each_ref().map(|key| found[key].expose()), [text, "1e+06", "hunter2"]);
    let gone = [key(SecretProvider::SecretsManager, &arn.replace("hub", "gone"))];
    let failure = secrets_manager::secrets(&sdk, &gone, Some(&role)).await.unwrap_err();
    assert!(failure.message.starts_with("ResourceNotFoundException: The task can't retrieve the secret"), "{failure}");
    let auth = SecretAuth { secret: arn, region: REGION.to_owned() };
    let account = RegistrySecrets::new(sdk.clone()).credentials(&auth, Some(&role)).await.unwrap();
    assert_eq!((account.username.as_str(), account.password.expose()), ("me", "hunter2"));

    // The agent requests the head of a bucket without a signature, which moto cannot answer while it checks signatures.
    let object = async |key: &'static str, role: &RoleCredentials| {
        moto.check_signatures_after(1).await;
        let got = s3::get(&sdk, &Object { bucket: "test-bucket", key }, role).await;
        got.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).map_err(|error| error.to_string())
    };
    assert_eq!(object("dir/app x.env", &role).await.unwrap(), "A=1\nB=\u{e4}\n");
    assert_eq!(object("empty", &role).await.unwrap(), "");
    let error = object("none", &role).await.unwrap_err();
    assert!(error.contains("StatusCode: 404") && error.contains("NoSuchKey: "), "{error}");

    let keys = Credentials::new(&moto.keys.0, &moto.keys.1, None, None, "test");
    let tokens = EcrTokens::new(sdk.clone(), SharedCredentialsProvider::new(keys));
    let auth = EcrAuth { registry_id: "123456789012".to_owned(), region: REGION.to_owned(), ..EcrAuth::default() };
    let token = tokens.credentials(&auth, "image", None).await.unwrap();
    assert_eq!(token.username, "AWS");

    // Moto refuses a wrong signature.
    let forged = moto.role("not the secret key");
    let failure = ssm::parameters(&sdk, &keys_of_one(), Some(&forged)).await.unwrap_err();
    assert!(failure.message.contains("StatusCode: 40"), "{failure}");
    let error = object("dir/app x.env", &forged).await.unwrap_err();
    assert!(error.contains("SignatureDoesNotMatch"), "{error}");
}

fn keys_of_one() -> [SecretKey; 1] {
    [key(SecretProvider::Ssm, "/team/p0")]
}
