//! Pushing, as in the section "Push" of OCI's distribution specification 1.1. Each test names its part of that section.

use super::client::{Client, INDEX, MANIFEST, digest, manifest, noise, server};
use serde_json::json;

/// "Pushing a blob monolithically: POST then PUT".
#[tokio::test]
async fn a_blob_is_pushed_by_post_and_put() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let content = noise(300_000);
    let digest = digest(&content);
    let begun = client.send("POST", "/v2/app/blobs/uploads/", &[("content-length", "0")], Vec::new()).await;
    assert_eq!(begun.status, 202);
    let path = begun.header("location").to_owned();
    assert!(path.starts_with("/v2/app/blobs/uploads/") && !begun.header("docker-upload-uuid").is_empty());
    let headers = [("content-type", "application/octet-stream")];
    let stored = client.send("PUT", &format!("{path}?digest={digest}"), &headers, content.clone()).await;
    assert_eq!((stored.status, stored.header("docker-content-digest")), (201, digest.as_str()));
    let pulled = client.get(stored.header("location")).await;
    assert!(pulled.status == 200 && pulled.body == content);
    assert_eq!(client.get(&path).await.error(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "the session has ended");
    server.shutdown().await;
}

/// "Pushing a blob monolithically: Single POST".
#[tokio::test]
async fn a_blob_is_pushed_by_one_post() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    for content in [noise(1_000_000), Vec::new()] {
        let digest = digest(&content);
        let path = format!("/v2/app/blobs/uploads/?digest={digest}");
        let stored = client.send("POST", &path, &[], content.clone()).await;
        assert_eq!((stored.status, stored.header("location")), (201, format!("/v2/app/blobs/{digest}").as_str()));
        assert!(client.get(stored.header("location")).await.body == content);
    }
    server.shutdown().await;
}

/// "Pushing a blob in chunks": in order with `Content-Range`, and the state of the upload between them.
#[tokio::test]
async fn a_blob_is_pushed_in_chunks() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let content = noise(700_001);
    let digest = digest(&content);
    let path = client.begin("app").await;
    assert_eq!(client.get(&path).await.header("range"), "0-0");
    let (mut first, mut location) = (0, path);
    for chunk in content[..600_000].chunks(250_000) {
        let range = format!("{first}-{}", first + chunk.len() - 1);
        let headers = [("content-range", range.as_str()), ("content-type", "application/octet-stream")];
        let taken = client.send("PATCH", &location, &headers, chunk.to_vec()).await;
        first += chunk.len();
        assert_eq!((taken.status, taken.header("range")), (202, format!("0-{}", first - 1).as_str()));
        location = taken.header("location").to_owned();
        let status = client.get(&location).await;
        assert_eq!((status.status, status.header("range")), (204, taken.header("range")));
    }
    let range = format!("{first}-{}", content.len() - 1);
    let last = content[600_000..].to_vec();
    let path = format!("{location}?digest={digest}");
    let stored = client.send("PUT", &path, &[("content-range", &range)], last).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert!(client.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
    server.shutdown().await;
}

/// "Pushing a blob in chunks": a chunk out of order is answered with 416, and the upload goes on.
#[tokio::test]
async fn a_chunk_out_of_order_is_refused() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let path = client.begin("app").await;
    let part = |range: &'static str, length: usize| {
        let (client, path) = (client.clone(), path.clone());
        async move { client.send("PATCH", &path, &[("content-range", range)], vec![7; length]).await }
    };
    assert_eq!(part("0-9", 10).await.status, 202);
    for (range, length) in [("0-9", 10), ("11-20", 10), ("20-29", 10), ("10-19", 9), ("10-19", 11), ("ten", 10)] {
        let refused = part(range, length).await;
        assert_eq!(refused.error(), (416, "BLOB_UPLOAD_INVALID".to_owned()), "{range}");
        assert_eq!((refused.header("range"), refused.header("location")), ("0-9", path.as_str()), "{range}");
    }
    assert_eq!(part("10-19", 10).await.header("range"), "0-19");
    let stored = client.send("PUT", &format!("{path}?digest={}", digest(&[7; 20])), &[], Vec::new()).await;
    assert_eq!(stored.status, 201);
    server.shutdown().await;
}

/// Docker pushes a layer as a stream of unknown length, then sends an empty PUT.
#[tokio::test]
async fn a_blob_is_pushed_as_a_stream() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let content = noise(3_000_000);
    let path = client.begin("app").await;
    let pieces: Vec<_> = content.chunks(77_777).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let taken = client.try_send("PATCH", &path, &[], stream).await.unwrap();
    assert_eq!((taken.status, taken.header("range")), (202, "0-2999999"));
    let stored = client.send("PUT", &format!("{path}?digest={}", digest(&content)), &[], Vec::new()).await;
    assert_eq!(stored.status, 201);
    assert!(client.get(stored.header("location")).await.body == content);
    server.shutdown().await;
}

/// "Mounting a blob from another repository".
#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let server = server().await;
    let client = Client::login(&server, &["one", "team/two"]).await;
    let digest = client.push_blob("one", b"shared").await;
    let mount = async |query: String| {
        client.send("POST", &format!("/v2/team/two/blobs/uploads/?{query}"), &[], Vec::new()).await
    };
    let other = digest_of_nothing_here();
    for query in [
        format!("mount={other}&from=one"),
        format!("mount={digest}&from=none"),
        format!("mount={digest}"),
        format!("from=one&digestless={digest}"),
    ] {
        let begun = mount(query.clone()).await;
        assert_eq!(begun.status, 202, "an ordinary upload: {query}");
        assert!(begun.header("location").starts_with("/v2/team/two/blobs/uploads/"), "{query}");
    }
    assert_eq!(client.head(&format!("/v2/team/two/blobs/{digest}")).await.status, 404);
    let mounted = mount(format!("mount={digest}&from=one")).await;
    assert_eq!((mounted.status, mounted.header("docker-content-digest")), (201, digest.as_str()));
    assert_eq!(mounted.header("location"), format!("/v2/team/two/blobs/{digest}"));
    assert_eq!(client.get(mounted.header("location")).await.body, b"shared");
    assert_eq!(mount(format!("mount={digest}&from=../one")).await.error(), (400, "NAME_INVALID".to_owned()));
    assert_eq!(mount("mount=sha256:1&from=one".to_owned()).await.error(), (400, "DIGEST_INVALID".to_owned()));
    server.shutdown().await;
}

fn digest_of_nothing_here() -> String {
    digest(b"nothing here has this content")
}

/// "Pushing Manifests": by tag and by digest; layers must be there.
#[tokio::test]
async fn manifests_are_pushed_by_tag_and_digest() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let text = manifest("layer").to_string();
    let early = client.put_manifest("app", "v1", MANIFEST, &text).await;
    assert_eq!(early.error(), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert!(early.message().contains(&digest(b"layer")), "{}", early.message());
    assert_eq!(client.get("/v2/app/manifests/v1").await.error(), (404, "MANIFEST_UNKNOWN".to_owned()));

    let pushed = client.push_image("app", "v1", "layer").await;
    assert_eq!(pushed, digest(text.as_bytes()));
    let again = client.put_manifest("app", "v1", MANIFEST, &text).await;
    assert_eq!((again.status, again.header("location")), (201, "/v2/app/manifests/v1"), "a push may be repeated");
    let by_digest = client.put_manifest("app", &pushed, MANIFEST, &text).await;
    assert_eq!((by_digest.status, by_digest.header("docker-content-digest")), (201, pushed.as_str()));
    let wrong = client.put_manifest("app", &digest_of_nothing_here(), MANIFEST, &text).await;
    assert_eq!(wrong.error(), (400, "DIGEST_INVALID".to_owned()));
    server.shutdown().await;
}

/// An index needs its manifests, and its bytes are kept as they are.
#[tokio::test]
async fn an_index_needs_its_manifests() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let image = digest(manifest("layer").to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": image, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
    ]});
    let text = format!("  {index:#}\n");
    assert_eq!(
        client.put_manifest("app", "all", INDEX, &text).await.error(),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    client.push_image("app", "amd64", "layer").await;
    assert_eq!(client.put_manifest("app", "all", INDEX, &text).await.status, 201);
    let pulled = client.get("/v2/app/manifests/all").await;
    assert_eq!((String::from_utf8(pulled.body.clone()).unwrap(), pulled.header("content-type")), (text, INDEX));
    server.shutdown().await;
}

/// "Pushing Manifests with Subject": the subject need not exist, and the answer names it.
#[tokio::test]
async fn the_subject_of_a_manifest_is_confirmed() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    let mut attached = manifest("layer");
    let subject = digest_of_nothing_here();
    attached["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 3});
    let stored = client.put_manifest("app", "signature", MANIFEST, &attached.to_string()).await;
    assert_eq!((stored.status, stored.header("oci-subject")), (201, subject.as_str()));
    server.shutdown().await;
}

/// An upload can be given up.
#[tokio::test]
async fn an_upload_is_cancelled() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let path = client.begin("app").await;
    assert_eq!(client.send("PATCH", &path, &[], noise(1000)).await.status, 202);
    assert_eq!(client.delete(&path).await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(client.send(method, &path, &[], Vec::new()).await.error(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    }
    server.shutdown().await;
}
