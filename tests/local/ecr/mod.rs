//! The API of ECR as a person types it: the real `aws` CLI, with the keys of administrators, users, roles and services.

mod access;
mod bad_input;
mod lifecycle;
mod repositories;
mod uploads;

use crate::agent::http;
use crate::cli::present;
use ecs_local::{Options, Server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// The second account of a session.
const OTHER: &str = "333333444444";
/// The session's own account.
const OWN: &str = "123456789012";
/// The time limit for one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The access key of a caller.
#[derive(Clone, Debug)]
struct Keys {
    id: String,
    secret: String,
    /// Only temporary keys have one.
    session: Option<String>,
}

impl Keys {
    /// Keys as `/_local/` gives them.
    fn read(answer: &Value) -> Self {
        let text = |member: &str| answer[member].as_str().map(str::to_owned);
        Self {
            id: text("accessKeyId").unwrap(),
            secret: text("secretAccessKey").unwrap(),
            session: text("sessionToken"),
        }
    }
}

/// A session with two accounts, and a directory for files of the CLI.
struct Session {
    server: Server,
    directory: PathBuf,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

impl Session {
    /// Starts a session; `None`: there is no CLI.
    async fn start() -> Option<Self> {
        if !present().await {
            return None;
        }
        let options = Options { accounts: vec![OTHER.to_owned()], ..Options::default() };
        let server = Server::start(options).await.unwrap();
        let directory = std::env::temp_dir().join(format!("ecs-local-ecr-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        Some(Self { server, directory })
    }

    /// The keys of an account's administrator.
    fn administrator(&self, account: &str) -> Keys {
        Keys { id: account.to_owned(), secret: self.server.token().expose().to_owned(), session: None }
    }

    /// Writes a file for `file://` or `fileb://`.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs `aws ecr …` as the administrator of the own account. An answer that is not JSON is returned as a text.
    async fn aws(&self, line: &str) -> Result<Value, String> {
        self.aws_as(&self.administrator("local"), line).await
    }

    async fn aws_as(&self, keys: &Keys, line: &str) -> Result<Value, String> {
        self.run(keys, &line.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Runs `aws ecr …` with these words.
    async fn run(&self, keys: &Keys, words: &[&str]) -> Result<Value, String> {
        let mut command = Command::new("aws");
        command.args(["--endpoint-url", &self.server.url(), "--output", "json", "ecr"]).args(words);
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", keys.id.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &keys.secret),
            ("AWS_DEFAULT_REGION", "us-west-2"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_PAGER", ""),
            ("NO_PROXY", "127.0.0.1"),
        ] {
            command.env(name, value);
        }
        match &keys.session {
            Some(session) => command.env("AWS_SESSION_TOKEN", session),
            None => command.env_remove("AWS_SESSION_TOKEN"),
        };
        command.env_remove("AWS_PROFILE").env_remove("AWS_ENDPOINT_URL").kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_LIMIT, command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(serde_json::from_str(&text(&output.stdout)).unwrap_or_else(|_| text(&output.stdout).into())),
            false => Err(text(&output.stderr)),
        }
    }

    /// A command that works.
    async fn ok(&self, line: &str) -> Value {
        self.aws(line).await.unwrap_or_else(|problem| panic!("{line}: {problem}"))
    }

    /// What the CLI prints for a command that fails.
    async fn refused(&self, line: &str) -> String {
        match self.aws(line).await {
            Ok(answer) => panic!("{line}: {answer}"),
            Err(problem) => problem,
        }
    }

    /// A POST below `/_local/`.
    async fn post(&self, path: &str, body: Value) -> Value {
        let request = http().post(format!("{}/_local/{path}", self.server.url()));
        let request = request.bearer_auth(self.server.token().expose()).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// What `/_local/` shows.
    async fn get(&self, path: &str) -> Value {
        let request = http().get(format!("{}/_local/{path}", self.server.url()));
        let answer = request.bearer_auth(self.server.token().expose()).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// Pushes an image of one layer with the calls of the API. Returns its digest.
    async fn push(&self, repository: &str, seed: &str, tag: &str) -> String {
        let (config, layer) = (format!("{{\"seed\":\"{seed}\"}}"), format!("layer {seed}"));
        let digests = [
            uploads::upload(self, repository, config.as_bytes()).await,
            uploads::upload(self, repository, layer.as_bytes()).await,
        ];
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digests[0], "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digests[1], "size": layer.len()}],
        });
        let put = json!({"repositoryName": repository, "imageManifest": manifest.to_string(), "imageTag": tag});
        let image = self.server.call_ecr("PutImage", &put).unwrap();
        image["image"]["imageId"]["imageDigest"].as_str().unwrap().to_owned()
    }
}

/// The path as the CLI takes it for a text.
fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn lines(values: &Value, member: &str) -> Vec<String> {
    let text = |entry: &Value| entry[member].as_str().unwrap_or_default().to_owned();
    values.as_array().unwrap().iter().map(text).collect()
}
