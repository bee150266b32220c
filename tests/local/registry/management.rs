//! Deleting, as in the section "Content Management" of OCI's distribution specification 1.1, with ECR's meaning of a tag.

use super::client::{Client, INDEX, MANIFEST, digest, move_clock, server};
use serde_json::json;

/// "Deleting tags": the image stays as long as it has another tag.
#[tokio::test]
async fn a_tag_is_deleted_before_its_image() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let image = client.push_image("app", "v1", "layer").await;
    client.push_image("app", "latest", "layer").await;
    assert_eq!(client.delete("/v2/app/manifests/v1").await.status, 202);
    assert_eq!(client.get("/v2/app/manifests/v1").await.error(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(client.get(&format!("/v2/app/manifests/{image}")).await.status, 200);
    assert_eq!(client.delete("/v2/app/manifests/latest").await.status, 202);
    assert_eq!(client.get(&format!("/v2/app/manifests/{image}")).await.status, 404, "as in ECR, with its last tag");
    assert_eq!(client.delete("/v2/app/manifests/latest").await.error(), (404, "MANIFEST_UNKNOWN".to_owned()));
    server.shutdown().await;
}

/// "Deleting Manifests": with all tags and layers; what an index needs stays.
#[tokio::test]
async fn an_image_is_deleted_with_its_layers() {
    let server = server().await;
    let client = Client::login(&server, &["app", "other"]).await;
    let image = client.push_image("app", "v1", "layer").await;
    let layer = format!("blobs/{}", digest(b"layer"));
    client.push_image("other", "v1", "layer").await;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": image, "size": 1},
    ]});
    assert_eq!(client.put_manifest("app", "all", INDEX, &index.to_string()).await.status, 201);
    let refused = client.delete(&format!("/v2/app/manifests/{image}")).await;
    assert_eq!(refused.error(), (409, "DENIED".to_owned()));
    assert_eq!(client.delete("/v2/app/manifests/all").await.status, 202);
    assert_eq!(client.delete(&format!("/v2/app/manifests/{image}")).await.status, 202);
    assert_eq!(client.get("/v2/app/tags/list").await.json()["tags"], json!([]));
    assert_eq!(client.head(&format!("/v2/app/{layer}")).await.status, 200, "a push may rely on it");
    move_clock(&server, 2).await;
    assert_eq!(client.head(&format!("/v2/app/{layer}")).await.status, 404);
    assert_eq!(client.get(&format!("/v2/other/{layer}")).await.body, b"layer", "another repository has it");
    client.push_image("app", "v1", "layer").await;
    server.shutdown().await;
}

/// "Deleting Blobs" is optional, and ECR does not have it. An unknown method is answered with those that there are.
#[tokio::test]
async fn other_methods_are_refused() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let layer = client.push_blob("app", b"layer").await;
    for (method, path, allowed) in [
        ("DELETE", format!("/v2/app/blobs/{layer}"), "GET, HEAD"),
        ("POST", "/v2/app/manifests/v1".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v2/app/tags/list".to_owned(), "GET"),
        ("DELETE", "/v2/".to_owned(), "GET, HEAD"),
    ] {
        let refused = client.send(method, &path, &[], Vec::new()).await;
        assert_eq!(refused.error(), (405, "UNSUPPORTED".to_owned()), "{method} {path}");
        assert_eq!(refused.header("allow"), allowed);
    }
    assert_eq!(client.get("/v2/app/nothing/here").await.error(), (404, "UNSUPPORTED".to_owned()));
    server.shutdown().await;
}
