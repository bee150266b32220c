//! The real clients `docker` and `skopeo`.
//!
//! Without them the tests are skipped with a notice; with `ECS_TEST_REQUIRE_DOCKER=1` and `ECS_TEST_REQUIRE_SKOPEO=1` they fail.

use super::client::{Client, digest, ecr, manifest, noise, password, server};
use crate::binary::{Scratch, TestImage};
use ecs_local::Server;
use serde_json::json;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The time limit for one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// `docker` with a configuration of its own.
struct Docker {
    config: PathBuf,
    /// `host:port` of the registry.
    host: String,
}

impl Docker {
    fn new(scratch: &Scratch, server: &Server) -> Self {
        Self { config: scratch.0.join("docker"), host: server.url().replace("http://", "") }
    }

    /// Runs `docker` with this input. Returns its output, or its error output.
    async fn run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new("docker");
        command.arg("--config").arg(&self.config).args(arguments);
        run(command, input).await
    }

    async fn login(&self, password: &str) {
        let line = ["login", "--username", "AWS", "--password-stdin", &self.host];
        self.run(&line, password).await.unwrap();
    }
}

/// Runs a command to its end. Returns its output, or its error output.
async fn run(mut command: Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = tokio::time::timeout(COMMAND_LIMIT, child.wait_with_output()).await.expect("it ends in time").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn docker_logs_in_pushes_and_pulls() {
    let scratch = Scratch::new("docker");
    let Some(image) = TestImage::make(&scratch).await else {
        assert!(
            std::env::var_os("ECS_TEST_REQUIRE_DOCKER").is_none(),
            "ECS_TEST_REQUIRE_DOCKER=1, but there is no Docker"
        );
        return;
    };
    let server = server().await;
    let docker = Docker::new(&scratch, &server);
    let (name, other) = (format!("{}/team/app:v1", docker.host), format!("{}/other:v1", docker.host));
    docker.run(&["tag", &image.0, &name], "").await.unwrap();
    docker.run(&["tag", &image.0, &other], "").await.unwrap();

    // Each step of the chapter fails with ECR's reason until the step before is done.
    let refused = docker.run(&["push", &name], "").await.unwrap_err();
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    docker.login(&password(&server).await).await;
    let refused = docker.run(&["push", &name], "").await.unwrap_err();
    let text = "The repository with name 'team/app' does not exist in the registry with id '123456789012'";
    assert!(refused.contains(text), "{refused}");
    for repository in ["team/app", "other"] {
        assert_eq!(ecr(&server, "CreateRepository", json!({"repositoryName": repository})).await.0, 200);
    }
    let pushed = docker.run(&["push", &name], "").await.unwrap();
    assert!(pushed.contains("v1: digest: sha256:"), "{pushed}");
    let again = docker.run(&["push", &name], "").await.unwrap();
    assert!(again.contains("Layer already exists"), "{again}");
    let mounted = docker.run(&["push", &other], "").await.unwrap();
    assert!(mounted.contains("Mounted from team/app"), "{mounted}");

    let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", &name], "").await.unwrap();
    let digest = pushed.split("digest: ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    docker.run(&["rmi", "-f", &id], "").await.unwrap();
    docker.run(&["pull", &name], "").await.unwrap();
    let pulled = docker.run(&["image", "inspect", "--format", "{{.Id}}", &name], "").await.unwrap();
    assert_eq!(pulled, id);
    let by_digest = format!("{}/team/app@{digest}", docker.host);
    docker.run(&["pull", &by_digest], "").await.unwrap();
    let ran = docker.run(&["run", "--rm", &name, "/busybox", "echo", "hello"], "").await.unwrap();
    assert_eq!(ran, "hello");

    server.set_clock_ahead(13 * 3600);
    let refused = docker.run(&["pull", &name], "").await.unwrap_err();
    assert!(refused.contains("Your authorization token has expired. Reauthenticate and try again."), "{refused}");
    docker.run(&["rmi", "-f", &id], "").await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn docker_pushes_a_large_layer_and_reads_a_denial() {
    let scratch = Scratch::new("docker-large");
    let Some(image) = TestImage::make(&scratch).await else { return };
    let server = server().await;
    let _client = Client::login(&server, &["large"]).await;
    let docker = Docker::new(&scratch, &server);
    let name = format!("{}/large:v1", docker.host);
    std::fs::write(scratch.0.join("noise"), noise(20_000_000)).unwrap();
    let file = scratch.file("Dockerfile", &format!("FROM {}\nCOPY noise /noise\n", image.0), 0o600);
    let context = scratch.0.display().to_string();
    let build = ["build", "-q", "-t", &name, "-f", file.to_str().unwrap(), &context];
    let mut command = Command::new("docker");
    command.arg("--config").arg(&docker.config).args(build).env("DOCKER_BUILDKIT", "0");
    run(command, "").await.unwrap();
    docker.login(&password(&server).await).await;
    docker.run(&["push", &name], "").await.unwrap();
    docker.run(&["rmi", "-f", &name], "").await.unwrap();
    docker.run(&["pull", &name], "").await.unwrap();

    let deny = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Principal": "*", "Action": ["ecr:PutImage", "ecr:BatchGetImage"]},
    ]});
    let body = json!({"repositoryName": "large", "policyText": deny.to_string()});
    assert_eq!(ecr(&server, "SetRepositoryPolicy", body).await.0, 200);
    for (command, action) in [("push", "ecr:PutImage"), ("pull", "ecr:BatchGetImage")] {
        let refused = docker.run(&[command, &name], "").await.unwrap_err();
        let text = format!(
            "is not authorized to perform: {action} on resource: arn:aws:ecr:us-west-2:123456789012:repository/large"
        );
        assert!(refused.contains(&text), "{command}: {refused}");
    }
    docker.run(&["rmi", "-f", &name], "").await.unwrap();
    server.shutdown().await;
}

async fn has_skopeo() -> bool {
    let found = Command::new("skopeo").arg("--version").output().await.is_ok_and(|output| output.status.success());
    let required = std::env::var("ECS_TEST_REQUIRE_SKOPEO").is_ok_and(|value| value == "1");
    assert!(found || !required, "ECS_TEST_REQUIRE_SKOPEO=1, but there is no skopeo (apt-get install skopeo)");
    if !found {
        eprintln!(
            "SKIPPED: no skopeo on PATH (apt-get install skopeo); ECS_TEST_REQUIRE_SKOPEO=1 makes this a failure"
        );
    }
    found
}

/// `skopeo` with the credentials in a file.
async fn skopeo(scratch: &Scratch, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("skopeo");
    command.args(arguments).arg("--authfile").arg(scratch.0.join("auth.json"));
    // Its own policy accepts images without signatures.
    let policy = scratch.0.join("policy.json");
    command.arg("--policy").arg(policy).env("HOME", &scratch.0);
    run(command, "").await
}

#[tokio::test]
async fn skopeo_copies_inspects_and_deletes() {
    if !has_skopeo().await {
        return;
    }
    let scratch = Scratch::new("skopeo");
    scratch.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#, 0o600);
    let server = server().await;
    let client = Client::login(&server, &["app", "copy"]).await;
    let host = server.url().replace("http://", "");
    let encoded = client.authorization.trim_start_matches("Basic ");
    scratch.file("auth.json", &json!({"auths": {&host: {"auth": encoded}}}).to_string(), 0o600);
    let layout = layout(&scratch);
    let (app, copy) = (format!("docker://{host}/app:v1"), format!("docker://{host}/copy:v1"));
    skopeo(&scratch, &["copy", "--dest-tls-verify=false", &format!("oci:{layout}:v1"), &app]).await.unwrap();
    let raw = skopeo(&scratch, &["inspect", "--raw", "--tls-verify=false", &app]).await.unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&raw).unwrap()["layers"].as_array().unwrap().len(), 1);
    let both = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &app, &copy];
    skopeo(&scratch, &both).await.unwrap();
    let back = format!("oci:{}/back:v1", scratch.0.display());
    skopeo(&scratch, &["copy", "--src-tls-verify=false", &copy, &back]).await.unwrap();
    let tags = skopeo(&scratch, &["list-tags", "--tls-verify=false", &format!("docker://{host}/copy")]).await.unwrap();
    assert!(tags.contains("\"v1\""), "{tags}");
    skopeo(&scratch, &["delete", "--tls-verify=false", &copy]).await.unwrap();
    assert_eq!(client.get("/v2/copy/manifests/v1").await.status, 404);
    assert_eq!(client.get("/v2/app/manifests/v1").await.status, 200);
    server.shutdown().await;
}

/// An OCI layout with one image of some megabytes. Returns its path.
fn layout(scratch: &Scratch) -> String {
    let directory = scratch.0.join("layout");
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let keep = |content: &[u8]| {
        let digest = digest(content);
        std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), content).unwrap();
        digest
    };
    let layer = noise(5_000_000);
    let mut image = manifest("");
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
    let config = config.to_string();
    image["layers"][0]["digest"] = json!(keep(&layer));
    image["layers"][0]["size"] = json!(layer.len());
    image["config"]["digest"] = json!(keep(config.as_bytes()));
    image["config"]["size"] = json!(config.len());
    let image = image.to_string();
    let descriptor = json!({
        "mediaType": super::client::MANIFEST, "digest": keep(image.as_bytes()), "size": image.len(),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    });
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    directory.display().to_string()
}
