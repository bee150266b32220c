//! A registry in a directory: what is there after a restart, what is refused, and a full disk.

use super::client::{Client, MANIFEST, digest, ecr, manifest, move_clock, noise};
use crate::agent::api;
use crate::binary::Scratch;
use aws_credential_types::Credentials;
use ecs_local::{Options, Server};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// Options with this directory.
fn kept(directory: &Path) -> Options {
    let token = Some("a token that stays".into());
    Options { registry_dir: Some(directory.to_owned()), token, ..Options::default() }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_restart_keeps_everything_that_was_pushed() {
    let scratch = Scratch::new("kept");
    let directory = scratch.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client::login(&server, &["app", "empty"]).await;
    let image = client.push_image("app", "v1", "layer").await;
    let policy = json!({"repositoryName": "app", "lifecyclePolicyText": json!({"rules": [{"rulePriority": 1,
        "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7},
        "action": {"type": "expire"}}]}).to_string()});
    assert_eq!(ecr(&server, "PutLifecyclePolicy", policy).await.0, 200);
    let unfinished = client.begin("app").await;
    assert_eq!(client.send("PATCH", &unfinished, &[], noise(1000)).await.status, 202);
    let second = Server::start(kept(&directory)).await.map(|_| ()).unwrap_err();
    assert!(second.to_string().ends_with("another ecs-local uses it"), "{second}");
    server.shutdown().await;
    assert_eq!(names(&directory.join("uploads")), [""; 0]);

    let server = Server::start(kept(&directory)).await.unwrap();
    // The port is another one, the token of docker is still good.
    let client = Client { base: server.url(), ..client };
    assert_eq!(client.get("/v2/app/manifests/v1").await.header("docker-content-digest"), image);
    assert_eq!(client.get(&format!("/v2/app/blobs/{}", digest(b"layer"))).await.body, b"layer");
    assert_eq!(client.get("/v2/_catalog").await.json()["repositories"], json!(["app", "empty"]));
    assert_eq!(ecr(&server, "GetLifecyclePolicy", json!({"repositoryName": "app"})).await.0, 200);
    assert_eq!(client.get(&unfinished).await.status, 404);
    let described = ecr(&server, "DescribeRepositories", json!({})).await.1;
    let address = server.url().replace("http://", "");
    assert_eq!(described["repositories"][0]["repositoryUri"], json!(format!("{address}/app")));
    server.shutdown().await;
}

#[tokio::test]
async fn layers_that_nobody_needs_leave_the_disk() {
    let scratch = Scratch::new("orphans");
    let directory = scratch.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client::login(&server, &["app", "other"]).await;
    client.push_image("app", "v1", "layer").await;
    client.push_image("other", "v1", "layer").await;
    assert_eq!(names(&directory.join("blobs")).len(), 2, "layers and configurations are there once");
    assert_eq!(client.delete("/v2/app/manifests/v1").await.status, 202);
    move_clock(&server, 2).await;
    let deleted = ecr(&server, "DeleteRepository", json!({"repositoryName": "other", "force": true})).await;
    assert_eq!(deleted.0, 200);
    for _ in 0..200 {
        if names(&directory.join("blobs")).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(names(&directory.join("blobs")), [""; 0]);
    client.push_image("app", "v1", "layer").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_damaged_directory_is_refused_and_not_changed() {
    let scratch = Scratch::new("damaged");
    let directory = scratch.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    server.shutdown().await;
    let hex = digest(b"layer").replace("sha256:", "");
    let blob = names(&directory.join("blobs")).into_iter().find(|name| name.starts_with(&hex)).unwrap();
    let blob = directory.join("blobs").join(blob);
    let refused = async |wanted: &str| {
        let error = Server::start(kept(&directory)).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    std::fs::write(&blob, "laye").unwrap();
    refused("is missing or damaged (it should have 5 bytes)").await;
    let away = scratch.0.join("away");
    std::fs::rename(&blob, &away).unwrap();
    refused(&hex).await;
    std::fs::write(&blob, "layer").unwrap();
    let state = directory.join("state.json");
    std::fs::rename(&state, &away).unwrap();
    refused("this file is missing, but there are layers beside it").await;
    assert_eq!(names(&directory.join("blobs")).len(), 2, "no layer was removed");
    std::fs::rename(&away, &state).unwrap();
    let text = std::fs::read_to_string(&state).unwrap();
    for damaged in ["", "{", "{\"version\": 99}", &text[..text.len() - 1]] {
        std::fs::write(&state, damaged).unwrap();
        refused("the stored registry cannot be used").await;
    }
    std::fs::write(&state, &text).unwrap();
    Server::start(kept(&directory)).await.unwrap().shutdown().await;
}

/// Clients that go away before the answer: what was stored of them survives.
#[tokio::test]
async fn a_client_that_goes_away_loses_nothing() {
    let scratch = Scratch::new("away");
    let directory = scratch.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    let text = manifest("layer").to_string();
    let tags: Vec<String> = (0..20).map(|number| format!("away-{number:02}")).collect();
    for (tag, number) in tags.iter().zip(0..) {
        let head = format!(
            "PUT /v2/app/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}\r\n\r\n",
            server.url().replace("http://", ""),
            client.authorization,
            text.len()
        );
        let mut stream = tokio::net::TcpStream::connect(server.url().replace("http://", "")).await.unwrap();
        stream.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
        // The later ones stay for longer, so that a busy machine reads some of them.
        let stay = if number < 10 { number } else { (number - 9) * 20 };
        tokio::time::sleep(std::time::Duration::from_millis(stay)).await;
        drop(stream);
    }
    // A request that was cut before it was read may be given up; what others see was stored.
    let mut found = Vec::new();
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let now = client.get("/v2/app/tags/list").await.json()["tags"].as_array().unwrap().clone();
        if now == found && now.len() > 1 {
            break;
        }
        found = now;
    }
    assert!(found.len() > 1, "at least one was read as a whole");
    server.shutdown().await;
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client { base: server.url(), ..client };
    // On a busy machine, more may have been stored after the last look.
    let kept = client.get("/v2/app/tags/list").await.json()["tags"].as_array().unwrap().clone();
    assert!(found.iter().all(|tag| kept.contains(tag)), "{found:?} were seen, and {kept:?} are kept");
    server.shutdown().await;
}

/// A download goes on to its end when the layer is deleted meanwhile.
#[tokio::test]
async fn a_deleted_layer_is_downloaded_to_its_end() {
    let scratch = Scratch::new("download");
    let server = Server::start(kept(&scratch.0.join("registry"))).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    let content = noise(30_000_000);
    let layer = client.push_blob("app", &content).await;
    let request = client.http.get(format!("{}/v2/app/blobs/{layer}", client.base));
    let mut answer = request.header("authorization", &client.authorization).send().await.unwrap();
    let mut read = answer.chunk().await.unwrap().unwrap().to_vec();
    let force = json!({"repositoryName": "app", "force": true});
    assert_eq!(ecr(&server, "DeleteRepository", force).await.0, 200);
    while !names(&scratch.0.join("registry/blobs")).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    while let Some(piece) = answer.chunk().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == content);
    server.shutdown().await;
}

/// Accounts have the same registries after a restart.
#[tokio::test]
async fn a_restart_keeps_the_registries_of_all_accounts() {
    let scratch = Scratch::new("accounts");
    let options = || Options { accounts: vec!["333333444444".to_owned()], ..kept(&scratch.0.join("registry")) };
    let server = Server::start(options()).await.unwrap();
    let other = |server: &Server| server.url().replace("127.0.0.1", "127.0.0.2");
    let keys = |server: &Server| Credentials::new("333333444444", server.token().expose(), None, None, "test");
    let create = json!({"repositoryName": "app"});
    let target = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";
    assert_eq!(api(&server.url(), target, &create, Some(keys(&server))).await.unwrap().0, 200);
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    let (_, token) = api(&server.url(), target, &json!({}), Some(keys(&server))).await.unwrap();
    let mut client = Client::new(&other(&server), "");
    client.authorization = format!("Basic {}", token["authorizationData"][0]["authorizationToken"].as_str().unwrap());
    client.push_image("app", "v1", "layer").await;
    server.shutdown().await;
    let server = Server::start(options()).await.unwrap();
    client.base = other(&server);
    assert_eq!(client.get("/v2/app/manifests/v1").await.status, 200);
    server.shutdown().await;
}

/// Manifests are in files of their own, so that the state, which every change writes, stays small.
#[tokio::test]
async fn a_large_manifest_is_written_once() {
    let scratch = Scratch::new("manifests");
    let directory = scratch.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client::login(&server, &["app", "other"]).await;
    client.push_image("app", "small", "layer").await;
    client.push_image("other", "small", "layer").await;
    let mut large = manifest("layer");
    large["annotations"] = json!({"text": "x".repeat(1_000_000)});
    let large = large.to_string();
    assert_eq!(client.put_manifest("app", "large", MANIFEST, &large).await.status, 201);
    let state = directory.join("state.json");
    let size = std::fs::metadata(&state).unwrap().len();
    assert!(size < 20_000, "the state has {size} bytes");
    let hex = |text: &str| digest(text.as_bytes()).replace("sha256:", "");
    let mut wanted = vec![hex(&manifest("layer").to_string()), hex(&large)];
    wanted.sort();
    assert_eq!(names(&directory.join("manifests")), wanted, "each is there once");
    let written = std::fs::metadata(directory.join("manifests").join(hex(&large))).unwrap().modified().unwrap();
    assert_eq!(client.put_manifest("app", "again", MANIFEST, &large).await.status, 201);
    server.shutdown().await;

    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client { base: server.url(), ..client };
    assert_eq!(client.get("/v2/app/manifests/again").await.body, large.as_bytes());
    let now = std::fs::metadata(directory.join("manifests").join(hex(&large))).unwrap().modified().unwrap();
    assert_eq!(now, written);
    assert_eq!(client.delete("/v2/app/manifests/small").await.status, 202);
    assert_eq!(names(&directory.join("manifests")).len(), 2, "another repository has it");
    assert_eq!(client.delete(&format!("/v2/app/manifests/{}", digest(large.as_bytes()))).await.status, 202);
    server.shutdown().await;
    assert_eq!(names(&directory.join("manifests")), [hex(&manifest("layer").to_string())]);

    // A killed server leaves manifests that no state names yet, or any more; one that is named must be there.
    let (kept_one, stray) =
        (directory.join("manifests").join(&wanted[0]), directory.join("manifests").join("0".repeat(64)));
    let kept_one = if kept_one.exists() { kept_one } else { directory.join("manifests").join(&wanted[1]) };
    std::fs::write(&stray, "half").unwrap();
    Server::start(kept(&directory)).await.unwrap().shutdown().await;
    assert!(!stray.exists() && kept_one.exists());
    std::fs::write(&kept_one, "half").unwrap();
    let error = Server::start(kept(&directory)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the manifest does not have this digest"), "{error}");
    std::fs::remove_file(&kept_one).unwrap();
    let error = Server::start(kept(&directory)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("its manifest cannot be read: "), "{error}");
}

/// Otherwise images and tokens would come from the future after a restart.
#[tokio::test]
async fn a_restart_keeps_the_clock_of_ecr() {
    let scratch = Scratch::new("clock");
    let directory = scratch.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    move_clock(&server, 48).await;
    let create = async |server: &Server, name: &str| {
        let (_, body) = ecr(server, "CreateRepository", json!({"repositoryName": name})).await;
        body["repository"]["createdAt"].as_f64().unwrap()
    };
    let first = create(&server, "first").await;
    server.shutdown().await;
    let server = Server::start(kept(&directory)).await.unwrap();
    let second = create(&server, "second").await;
    assert!((first..first + 600.0).contains(&second), "{first}, then {second}");
    move_clock(&server, 0).await;
    assert!(create(&server, "third").await < first - 47.0 * 3600.0);
    server.shutdown().await;
}

/// A small file system in memory, unmounted at the end; `None` if this process may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(scratch: &Scratch) -> Option<Self> {
        let path = scratch.0.join("disk");
        std::fs::create_dir_all(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        let required = std::env::var("ECS_TEST_REQUIRE_TMPFS").is_ok_and(|value| value == "1");
        assert!(!required, "ECS_TEST_REQUIRE_TMPFS=1, but this process may not mount a tmpfs (root may)");
        eprintln!("SKIPPED: this process may not mount a tmpfs; ECS_TEST_REQUIRE_TMPFS=1 makes this a failure");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_answer_and_nothing_stays() {
    let scratch = Scratch::new("full");
    let Some(disk) = SmallDisk::mount(&scratch) else { return };
    let directory = disk.0.join("registry");
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    for _ in 0..3 {
        let content = noise(4_000_000);
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(&content));
        let refused = client.send("POST", &path, &[], content.clone()).await;
        assert_eq!(refused.error(), (413, "DENIED".to_owned()));
        // Docker does not repeat a push with this text.
        assert!(refused.message().to_lowercase().contains("no space left on device"), "{}", refused.message());
        let path = client.begin("app").await;
        assert_eq!(client.send("PATCH", &path, &[], content).await.error(), (413, "DENIED".to_owned()));
    }
    for _ in 0..200 {
        if names(&directory.join("uploads")).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(names(&directory.join("uploads")), [""; 0]);
    client.push_blob("app", &noise(2_000_000)).await;

    // Not even the state can be saved: then nothing has changed.
    let rest = disk.0.join("rest");
    let _full = std::fs::write(&rest, noise(4_000_000));
    let more = json!({"repositoryName": "more"});
    for _ in 0..2 {
        let (status, body) = ecr(&server, "CreateRepository", more.clone()).await;
        assert_eq!((status, body["__type"].clone()), (500, json!("ServerException")), "{body}");
        let refused = client.put_manifest("app", "v2", MANIFEST, &manifest("layer").to_string()).await;
        assert_eq!(refused.error(), (413, "DENIED".to_owned()));
        let image = json!({"repositoryName": "app", "imageTag": "v2", "imageManifest": manifest("layer").to_string()});
        let (status, body) = ecr(&server, "PutImage", image).await;
        assert_eq!((status, body["__type"].clone()), (500, json!("ServerException")), "{body}");
        assert_eq!(client.delete("/v2/app/manifests/v1").await.status, 413);
        assert_eq!(client.get("/v2/app/tags/list").await.json()["tags"], json!(["v1"]));
        assert_eq!(client.get(&format!("/v2/app/blobs/{}", digest(b"layer"))).await.body, b"layer");
    }
    assert!(!directory.join("state.json.new").exists(), "half a state would take the room");
    assert_eq!(names(&directory.join("manifests")).len(), 1, "so would a manifest that no state names");
    std::fs::remove_file(&rest).unwrap();
    assert_eq!(ecr(&server, "CreateRepository", more).await.0, 200);
    let again = client.put_manifest("app", "v2", MANIFEST, &manifest("layer").to_string()).await;
    assert_eq!(again.status, 201, "{again:?}");
    server.shutdown().await;
    let server = Server::start(kept(&directory)).await.unwrap();
    let client = Client { base: server.url(), ..client };
    assert_eq!(client.get("/v2/app/tags/list").await.json()["tags"], json!(["v1", "v2"]));
    server.shutdown().await;
}
