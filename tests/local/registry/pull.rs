//! Pulling, as in the section "Pull" of OCI's distribution specification 1.1, and ranges of RFC 9110.

use super::client::{Client, MANIFEST, digest, manifest, noise, server};

/// "Pulling manifests": by tag and digest, and "Checking if content exists in the registry".
#[tokio::test]
async fn manifests_are_pulled_by_tag_and_digest() {
    let server = server().await;
    let client = Client::login(&server, &["team/app"]).await;
    let pushed = client.push_image("team/app", "v1", "layer").await;
    for reference in ["v1", pushed.as_str()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        let (pulled, asked) = (client.get(&path).await, client.head(&path).await);
        for answer in [&pulled, &asked] {
            assert_eq!((answer.status, answer.header("content-type")), (200, MANIFEST));
            assert_eq!(answer.header("docker-content-digest"), pushed);
            assert_eq!(answer.header("content-length"), manifest("layer").to_string().len().to_string());
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        }
        assert_eq!(digest(&pulled.body), pushed);
        assert!(asked.body.is_empty());
    }
    for reference in ["v2", digest(b"other").as_str()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        assert_eq!(client.get(&path).await.error(), (404, "MANIFEST_UNKNOWN".to_owned()));
        assert_eq!(client.head(&path).await.status, 404);
    }
    server.shutdown().await;
}

/// A client that does not know the type of a manifest does not get it.
#[tokio::test]
async fn a_manifest_is_given_to_clients_that_accept_it() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    for (accept, status) in [(MANIFEST, 200), ("*/*", 200), (docker, 404), (&format!("{docker}, {MANIFEST}"), 200)] {
        let answer = client.send("GET", "/v2/app/manifests/v1", &[("accept", accept)], Vec::new()).await;
        assert_eq!(answer.status, status, "{accept}");
    }
    let refused = client.send("GET", "/v2/app/manifests/v1", &[("accept", docker)], Vec::new()).await;
    assert!(refused.message().contains(MANIFEST), "{}", refused.message());
    server.shutdown().await;
}

/// "Pulling blobs", and "Checking if content exists in the registry".
#[tokio::test]
async fn blobs_are_pulled_by_digest() {
    let server = server().await;
    let client = Client::login(&server, &["app", "other"]).await;
    let content = noise(1_234_567);
    let digest = client.push_blob("app", &content).await;
    let path = format!("/v2/app/blobs/{digest}");
    let (pulled, asked) = (client.get(&path).await, client.head(&path).await);
    for answer in [&pulled, &asked] {
        assert_eq!((answer.status, answer.header("content-length")), (200, "1234567"));
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(answer.header("accept-ranges"), "bytes");
    }
    assert!(pulled.body == content && asked.body.is_empty());
    // A layer belongs to a repository.
    assert_eq!(client.get(&format!("/v2/other/blobs/{digest}")).await.error(), (404, "BLOB_UNKNOWN".to_owned()));
    assert_eq!(client.head(&format!("/v2/other/blobs/{digest}")).await.status, 404);
    assert_eq!(client.get("/v2/app/blobs/sha256:12").await.error(), (400, "DIGEST_INVALID".to_owned()));
    let sha512 = format!("/v2/app/blobs/sha512:{}", "0".repeat(128));
    assert_eq!(client.get(&sha512).await.error(), (400, "DIGEST_INVALID".to_owned()));
    server.shutdown().await;
}

/// RFC 9110, section 14: one range of bytes.
#[tokio::test]
async fn a_range_of_a_blob_is_pulled() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let content = noise(600_000);
    let path = format!("/v2/app/blobs/{}", client.push_blob("app", &content).await);
    let ranged = async |range: &str| client.send("GET", &path, &[("range", range)], Vec::new()).await;
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-300000", 1000, 300_001),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=599999-", 599_999, 600_000),
        ("bytes=-17", 599_983, 600_000),
        ("bytes=5-99999999", 5, 600_000),
    ] {
        let part = ranged(range).await;
        assert_eq!(
            (part.status, part.header("content-range")),
            (206, format!("bytes {from}-{}/600000", to - 1).as_str())
        );
        assert!(part.body == content[from..to], "{range}");
    }
    for range in ["bytes=600000-", "bytes=700000-800000", "bytes=-0"] {
        let refused = ranged(range).await;
        assert_eq!(refused.error(), (416, "RANGE_INVALID".to_owned()), "{range}");
        assert_eq!(refused.header("content-range"), "bytes */600000");
    }
    for range in ["bytes=0-1,4-5", "lines=1-2", "bytes=9-1"] {
        assert_eq!(ranged(range).await.body.len(), 600_000, "{range}: the whole");
    }
    let headers = [("range", "bytes=0-9"), ("if-range", "\"another version\"")];
    assert_eq!(client.send("GET", &path, &headers, Vec::new()).await.status, 200);
    server.shutdown().await;
}
