//! `kill -9` at any instant: whatever was answered with success is there after a restart of the real program.

use super::client::{Client, MANIFEST, digest, manifest};
use crate::agent::api;
use crate::binary::Scratch;
use aws_credential_types::Credentials;
use base64::Engine;
use serde_json::json;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

const TOKEN: &str = "the token of all runs";
/// Number of times that the program is killed.
const ROUNDS: u64 = 12;
/// Number of clients that push at a time.
const CLIENTS: usize = 3;

/// The program, and the address that it prints.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) url: String,
}

impl Running {
    pub(super) async fn start(scratch: &Scratch) -> Self {
        let token = scratch.0.join("token");
        if !token.exists() {
            scratch.file("token", TOKEN.split(' ').collect::<String>().as_str(), 0o600);
        }
        let mut child = scratch
            .command()
            .args(["serve", "--quiet", "--listen", "127.0.0.1:0", "--registry-dir"])
            .arg(scratch.0.join("registry"))
            .arg("--token-file")
            .arg(&token)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.expect("it starts in time");
        Self { child, url: line.unwrap().expect("it starts") }
    }

    pub(super) async fn call(&self, operation: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
        let secret: String = TOKEN.split(' ').collect();
        let keys = Credentials::new("local", secret, None, None, "test");
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        api(&self.url, &target, &body, Some(keys)).await.unwrap()
    }

    pub(super) async fn client(&self) -> Client {
        let (status, body) = self.call("GetAuthorizationToken", json!({})).await;
        assert_eq!(status, 200, "{body}");
        let token = body["authorizationData"][0]["authorizationToken"].as_str().unwrap();
        let decoded = base64::engine::general_purpose::STANDARD.decode(token).unwrap();
        Client::new(&self.url, String::from_utf8(decoded).unwrap().strip_prefix("AWS:").unwrap())
    }
}

/// Pushes images until the program does not answer any more. Notes the tag of each that was answered with success.
async fn push_until_killed(client: Client, name: String, done: Arc<Mutex<Vec<String>>>) {
    for number in 0.. {
        let tag = format!("{name}-{number}");
        // Some layers are equal for all.
        let layer = if number % 3 == 0 { "shared".to_owned() } else { tag.repeat(4000) };
        let mut image = manifest(&layer);
        image["annotations"] = json!({"tag": tag});
        let pushed = async {
            for content in [layer.as_bytes(), b"{}"] {
                let path = format!("/v2/app/blobs/uploads/?digest={}", digest(content));
                if client.try_send("POST", &path, &[], content.to_vec()).await?.status != 201 {
                    return Ok(0);
                }
            }
            let path = format!("/v2/app/manifests/{tag}");
            let headers = [("content-type", MANIFEST)];
            client.try_send("PUT", &path, &headers, image.to_string()).await.map(|answer| answer.status)
        };
        let pushed: reqwest::Result<u16> = pushed.await;
        match pushed {
            Ok(201) => done.lock().unwrap().push(tag),
            Ok(other) => panic!("{other} for {tag}"),
            Err(_) => return,
        }
    }
}

/// Stores images by PutImage of the API, with layers that are there, and deletes some of them, until the program does not answer any
/// more. Notes the tag of each that was answered with success and stays.
async fn put_until_killed(url: String, name: String, done: Arc<Mutex<Vec<String>>>) {
    let secret: String = TOKEN.split(' ').collect();
    let call = async |operation: &str, body: serde_json::Value| {
        let keys = Credentials::new("local", secret.clone(), None, None, "test");
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        api(&url, &target, &body, Some(keys)).await
    };
    for number in 0.. {
        let tag = format!("{name}-{number}");
        let mut image = manifest("base");
        image["annotations"] = json!({"tag": tag});
        let body = json!({"repositoryName": "app", "imageManifest": image.to_string(), "imageTag": tag});
        match call("PutImage", body).await {
            Ok((200, _)) => {}
            Ok((other, body)) => panic!("{other} for {tag}: {body}"),
            Err(_) => return,
        }
        if number % 4 != 3 {
            done.lock().unwrap().push(tag);
        } else if call("BatchDeleteImage", json!({"repositoryName": "app", "imageIds": [{"imageTag": tag}]}))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Each image of the registry has one file with its manifest, and there are no others. Returns their number.
async fn check_manifests(running: &Running, scratch: &Scratch) -> usize {
    let mut wanted = std::collections::BTreeSet::new();
    let (_, described) = running.call("DescribeRepositories", json!({})).await;
    for repository in described["repositories"].as_array().unwrap() {
        let mut body = json!({"repositoryName": repository["repositoryName"], "maxResults": 1000});
        loop {
            let (status, listed) = running.call("ListImages", body.clone()).await;
            assert_eq!(status, 200, "{listed}");
            let digests = listed["imageIds"].as_array().unwrap().iter().map(|id| id["imageDigest"].as_str().unwrap());
            wanted.extend(digests.map(|digest| digest.replace("sha256:", "")));
            let Some(token) = listed["nextToken"].as_str() else { break };
            body["nextToken"] = json!(token);
        }
    }
    let entries = std::fs::read_dir(scratch.0.join("registry/manifests")).unwrap();
    let found: std::collections::BTreeSet<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, wanted);
    found.len()
}

/// Pushes the same image to a repository of its own and deletes that repository, until the program does not answer any more. What
/// is stored then is stored as a whole.
async fn push_and_delete_until_killed(running_url: String, client: Client) {
    let secret: String = TOKEN.split(' ').collect();
    let call = async |operation: &str, body: serde_json::Value| {
        let keys = Credentials::new("local", secret.clone(), None, None, "test");
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        api(&running_url, &target, &body, Some(keys)).await.map(|answer| answer.0)
    };
    let shared = manifest("shared").to_string();
    loop {
        // The repository may be there from the round before.
        if call("CreateRepository", json!({"repositoryName": "short-lived"})).await.is_err() {
            return;
        }
        for content in ["shared", "{}"] {
            let path = format!("/v2/short-lived/blobs/uploads/?digest={}", digest(content.as_bytes()));
            if client.try_send("POST", &path, &[], content).await.is_err() {
                return;
            }
        }
        let headers = [("content-type", MANIFEST)];
        if client.try_send("PUT", "/v2/short-lived/manifests/v1", &headers, shared.clone()).await.is_err() {
            return;
        }
        if call("DeleteRepository", json!({"repositoryName": "short-lived", "force": true})).await.is_err() {
            return;
        }
    }
}

/// Every image in the list can be pulled with its layer.
async fn check(client: &Client, done: &[String]) {
    for tag in done {
        let pulled = client.get(&format!("/v2/app/manifests/{tag}")).await;
        assert_eq!(pulled.status, 200, "{tag} was answered with success and is gone");
        assert_eq!(pulled.json()["annotations"]["tag"], json!(tag));
        let layer = pulled.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
        let bytes = client.get(&format!("/v2/app/blobs/{layer}")).await;
        assert_eq!((bytes.status, digest(&bytes.body)), (200, layer), "the layer of {tag}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill() {
    let scratch = Scratch::new("kill");
    let done: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut running = Running::start(&scratch).await;
    assert_eq!(running.call("CreateRepository", json!({"repositoryName": "app"})).await.0, 200);
    let first = running.client().await;
    first.push_image("app", "base", "base").await;
    for round in 0..ROUNDS {
        let client = running.client().await;
        let mut pushes = tokio::task::JoinSet::new();
        for pusher in 0..CLIENTS {
            pushes.spawn(push_until_killed(client.clone(), format!("r{round}p{pusher}"), Arc::clone(&done)));
        }
        pushes.spawn(push_and_delete_until_killed(running.url.clone(), client.clone()));
        pushes.spawn(put_until_killed(running.url.clone(), format!("r{round}api"), Arc::clone(&done)));
        tokio::time::sleep(Duration::from_millis(60 + round * 97 % 500)).await;
        running.child.start_kill().unwrap();
        running.child.wait().await.unwrap();
        while let Some(ended) = pushes.join_next().await {
            ended.unwrap();
        }
        running = Running::start(&scratch).await;
        let tags = done.lock().unwrap().clone();
        // The token of the first run is still good.
        check(&Client { base: running.url.clone(), ..first.clone() }, &tags[tags.len().saturating_sub(60)..]).await;
        assert_eq!(std::fs::read_dir(scratch.0.join("registry/uploads")).unwrap().count(), 0);
        check_manifests(&running, &scratch).await;
    }
    let tags = done.lock().unwrap().clone();
    assert!(tags.len() >= usize::try_from(ROUNDS).unwrap(), "only {} images were pushed", tags.len());
    check(&running.client().await, &tags).await;
    assert!(check_manifests(&running, &scratch).await >= tags.len());
    running.child.start_kill().unwrap();
    running.child.wait().await.unwrap();
}
