//! Input that is cut, wrong, too large, or a trick; and many clients at once.

use super::client::{Client, MANIFEST, digest, ecr, manifest, noise, server};
use ecs_local::{Options, Server};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends the beginning of a request, then ends the connection.
async fn cut(client: &Client, head: &str, body: &[u8]) {
    let address = client.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nHost: {address}\r\nAuthorization: {}\r\n", client.authorization);
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and close before it has all.
    let _written = stream.write_all(body).await;
    let _shut = stream.shutdown().await;
    let _rest = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
}

/// An upload that is cut goes on where it was cut, wherever that is.
#[tokio::test]
async fn an_upload_that_is_cut_goes_on() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let content = noise(300_000);
    let digest = digest(&content);
    for at in [0, 1, 2, 255, 4096, 65_535, 65_536, 262_143, 262_144, 262_145, 299_999] {
        let path = client.begin("app").await;
        let head = format!("PATCH {path} HTTP/1.1\r\nContent-Length: {}\r\nContent-Range: 0-299999", content.len());
        let body = [b"\r\n", &content[..at]].concat();
        cut(&client, &head, &body).await;
        let status = client.get(&path).await;
        assert_eq!((status.status, status.header("range")), (204, format!("0-{}", at.max(1) - 1).as_str()), "{at}");
        let range = format!("{at}-299999");
        let rest = client.send("PATCH", &path, &[("content-range", &range)], content[at..].to_vec()).await;
        assert_eq!(rest.status, 202, "{at}: {rest:?}");
        let stored = client.send("PUT", &format!("{path}?digest={digest}"), &[], Vec::new()).await;
        assert_eq!(stored.status, 201, "{at}");
    }
    assert!(client.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
    server.shutdown().await;
}

/// Requests that are cut at any byte store nothing.
#[tokio::test]
async fn what_is_cut_is_not_stored() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    let content = b"a layer of some forty bytes, cut anywhere";
    let digest = digest(content);
    let text = manifest("layer").to_string();
    for at in 0..content.len() {
        let head = format!("POST /v2/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nContent-Length: {}", content.len());
        cut(&client, &head, &[b"\r\n", &content[..at]].concat()).await;
        let path = client.begin("app").await;
        let head = format!("PUT {path}?digest={digest} HTTP/1.1\r\nTransfer-Encoding: chunked");
        let chunk = format!("\r\n{:x}\r\n", content.len());
        cut(&client, &head, &[chunk.as_bytes(), &content[..at]].concat()).await;
        let head =
            format!("PUT /v2/app/manifests/cut HTTP/1.1\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}", text.len());
        cut(&client, &head, &[b"\r\n", &text.as_bytes()[..at * text.len() / content.len()]].concat()).await;
    }
    assert_eq!(client.head(&format!("/v2/app/blobs/{digest}")).await.status, 404);
    assert_eq!(client.get("/v2/app/tags/list").await.json()["tags"], json!(["v1"]));
    server.shutdown().await;
}

#[tokio::test]
async fn wrong_digests_store_nothing() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let wrong = digest(b"other");
    let single = client.send("POST", &format!("/v2/app/blobs/uploads/?digest={wrong}"), &[], noise(1000)).await;
    assert_eq!(single.error(), (400, "DIGEST_INVALID".to_owned()));
    assert!(single.message().contains(&digest(&noise(1000))), "{}", single.message());
    for query in ["", "?digest=", "?digest=sha256:12", "?digest=md5:12"] {
        let path = client.begin("app").await;
        let refused = client.send("PUT", &format!("{path}{query}"), &[], noise(1000)).await;
        assert_eq!(refused.error(), (400, "DIGEST_INVALID".to_owned()), "{query}");
        assert_eq!(client.get(&path).await.status, 204, "the upload goes on");
    }
    let path = client.begin("app").await;
    let refused = client.send("PUT", &format!("{path}?digest={wrong}"), &[], noise(1000)).await;
    assert_eq!(refused.error(), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(client.get(&path).await.status, 404, "the upload has ended");
    assert_eq!(client.head(&format!("/v2/app/blobs/{wrong}")).await.status, 404);
    server.shutdown().await;
}

#[tokio::test]
async fn manifests_are_bounded_and_read() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    let mut large = manifest("layer");
    large["annotations"] = json!({"x": "x".repeat(4 * 1024 * 1024)});
    let refused = client.put_manifest("app", "v2", MANIFEST, &large.to_string()).await;
    assert_eq!(refused.error(), (413, "MANIFEST_INVALID".to_owned()));
    large["annotations"] = json!({"x": "x".repeat(4 * 1024 * 1024 - 4096)});
    assert_eq!(client.put_manifest("app", "v2", MANIFEST, &large.to_string()).await.status, 201);
    let deep = "[".repeat(100_000);
    let other_type = "application/vnd.docker.distribution.manifest.v2+json";
    let text = manifest("layer").to_string();
    for (kind, body) in [
        (MANIFEST, ""),
        (MANIFEST, "{"),
        (MANIFEST, "null"),
        (MANIFEST, deep.as_str()),
        ("text/plain", text.as_str()),
        (other_type, text.as_str()),
    ] {
        let refused = client.put_manifest("app", "v3", kind, body).await;
        assert_eq!(refused.error(), (400, "MANIFEST_INVALID".to_owned()), "{kind} {}", &body[..body.len().min(20)]);
    }
    for tag in ["-x", ".x", &"x".repeat(301), "x%20y"] {
        let refused = client.put_manifest("app", tag, MANIFEST, &text).await;
        assert_eq!(refused.error(), (400, "TAG_INVALID".to_owned()), "{tag}");
    }
    server.shutdown().await;
}

/// Names are never decoded, and never become paths.
#[tokio::test]
async fn tricks_in_names_are_refused() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let address = client.base.trim_start_matches("http://");
    for name in [
        "..",
        "../..",
        "app/../app",
        "./app",
        "app/",
        "app//x",
        "APP",
        "app%2f..",
        "%2e%2e",
        "a\\b",
        "app%00",
        "-app",
        "a..b",
        "app:x",
        "etc/passwd%",
        "_app",
        "app.",
        "x",
    ] {
        // A library would simplify the path.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "POST /v2/{name}/blobs/uploads/ HTTP/1.1\r\nHost: {address}\r\nAuthorization: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            client.authorization
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("NAME_INVALID"), "{name}: {answer}");
    }
    server.shutdown().await;
}

/// 200 clients push one layer at once: all succeed, and the bytes are there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_push_one_layer() {
    // There is room for one such layer, and for what is on its way.
    let options = Options { registry_memory: 64 * 1024 * 1024, ..Options::default() };
    let server = Server::start(options).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    let content = noise(200_000);
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (client, content) = (client.clone(), content.clone());
        pushes.spawn(async move {
            if number % 2 == 0 {
                return client.push_blob("app", &content).await;
            }
            let path = client.begin("app").await;
            let half = content.len() / 2;
            assert_eq!(client.send("PATCH", &path, &[], content[..half].to_vec()).await.status, 202);
            let path = format!("{path}?digest={}", digest(&content));
            assert_eq!(client.send("PUT", &path, &[], content[half..].to_vec()).await.status, 201);
            digest(&content)
        });
    }
    for pushed in pushes.join_all().await {
        assert_eq!(pushed, digest(&content));
    }
    // If the bytes were there twice, there would be no room for this.
    let rest = noise(63 * 1024 * 1024);
    client.push_blob("app", &rest).await;
    assert!(client.get(&format!("/v2/app/blobs/{}", digest(&content))).await.body == content);
    server.shutdown().await;
}

/// An error of memory names the option; after it, other layers are still taken.
#[tokio::test]
async fn memory_that_is_used_up_is_an_answer() {
    let options = Options { registry_memory: 1_000_000, ..Options::default() };
    let server = Server::start(options).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    for _ in 0..3 {
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(&noise(1_000_001)));
        let refused = client.send("POST", &path, &[], noise(1_000_001)).await;
        assert_eq!(refused.error(), (413, "DENIED".to_owned()));
        assert!(refused.message().contains("--registry-memory"), "{}", refused.message());
    }
    let path = client.begin("app").await;
    assert_eq!(client.send("PATCH", &path, &[], noise(2_000_000)).await.error(), (413, "DENIED".to_owned()));
    assert_eq!(client.get(&path).await.status, 404, "the upload has ended");
    client.push_blob("app", &noise(1_000_000)).await;
    server.shutdown().await;
}

#[tokio::test]
async fn an_upload_that_nobody_continues_ends() {
    let options = Options { upload_idle: Duration::from_millis(400), ..Options::default() };
    let server = Server::start(options).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    let path = client.begin("app").await;
    assert_eq!(client.send("PATCH", &path, &[], noise(1000)).await.status, 202);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(client.get(&path).await.error(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    server.shutdown().await;
}

/// The uploads of an account are bounded. Another one fits after one was given up, or its repository was deleted.
#[tokio::test]
async fn uploads_are_bounded_in_number() {
    let server = server().await;
    let client = Client::login(&server, &["app", "other"]).await;
    let mut paths = Vec::new();
    let refused = loop {
        let answer = client.send("POST", "/v2/app/blobs/uploads/", &[], Vec::new()).await;
        if answer.status != 202 {
            break answer;
        }
        paths.push(answer.header("location").to_owned());
        assert!(paths.len() <= 1000);
    };
    assert_eq!(refused.error(), (429, "TOOMANYREQUESTS".to_owned()));
    assert_eq!(client.delete(&paths[0]).await.status, 204);
    let path = client.begin("other").await;
    assert_eq!(client.send("POST", "/v2/other/blobs/uploads/", &[], Vec::new()).await.status, 429);
    for name in ["app", "other"] {
        let body = json!({"repositoryName": name, "force": true});
        assert_eq!(ecr(&server, "DeleteRepository", body).await.0, 200);
        assert_eq!(ecr(&server, "CreateRepository", json!({"repositoryName": name})).await.0, 200);
    }
    assert_eq!(client.get(&path).await.error(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "not the old repository");
    client.begin("app").await;
    server.shutdown().await;
}

/// While a part is sent, the upload is given up: the part is refused.
#[tokio::test]
async fn an_upload_is_given_up_while_it_is_sent() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let path = client.begin("app").await;
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let pieces = futures_util::stream::unfold(receive, |mut receive| async move {
        let piece = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receive))
    });
    let mut sending = tokio::task::JoinSet::new();
    let (sender, sent_to) = (client.clone(), path.clone());
    sending.spawn(async move { sender.try_send("PATCH", &sent_to, &[], reqwest::Body::wrap_stream(pieces)).await });
    send.send(noise(100_000)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.delete(&path).await.status, 204);
    send.send(noise(100_000)).unwrap();
    drop(send);
    let answer = sending.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(answer.error(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    server.shutdown().await;
}
