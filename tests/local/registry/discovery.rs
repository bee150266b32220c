//! Lists, as in the section "Content Discovery" of OCI's distribution specification 1.1.

use super::client::{Client, INDEX, MANIFEST, digest, manifest, server};
use serde_json::{Value, json};

/// "Listing Tags": in lexical order, in pages, with a link to the next one.
#[tokio::test]
async fn tags_are_listed_in_pages() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    assert_eq!(client.get("/v2/app/tags/list").await.json(), json!({"name": "app", "tags": []}));
    for tag in ["v2", "v10", "V1", "latest", "v1"] {
        client.push_image("app", tag, tag).await;
    }
    let sorted = ["V1", "latest", "v1", "v10", "v2"];
    let all = client.get("/v2/app/tags/list").await;
    assert_eq!((all.json()["tags"].clone(), all.header("link")), (json!(sorted), ""));
    let (mut path, mut found) = ("/v2/app/tags/list?n=2".to_owned(), Vec::new());
    while !path.is_empty() {
        let page = client.get(&path).await;
        let tags = page.json()["tags"].as_array().unwrap().clone();
        assert!(tags.len() <= 2);
        found.extend(tags);
        let link = page.header("link");
        assert!(link.is_empty() || link.ends_with(">; rel=\"next\""), "{link}");
        path = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    }
    assert_eq!(json!(found), json!(sorted));
    let tags = async |query: &str| client.get(&format!("/v2/app/tags/list?{query}")).await.json()["tags"].clone();
    assert_eq!(tags("n=0").await, json!([]));
    assert_eq!(tags("last=v1").await, json!(["v10", "v2"]));
    assert_eq!(tags("last=u&n=1").await, json!(["v1"]), "the last one need not exist");
    for query in ["n=-1", "n=two", "n=1001", "n=99999999999999999999"] {
        let refused = client.get(&format!("/v2/app/tags/list?{query}")).await;
        assert_eq!(refused.error(), (400, "PAGINATION_NUMBER_INVALID".to_owned()), "{query}");
    }
    assert_eq!(client.get("/v2/none/tags/list").await.error(), (404, "NAME_UNKNOWN".to_owned()));
    server.shutdown().await;
}

/// The catalogue is older than OCI's specification, and ECR has it.
#[tokio::test]
async fn repositories_are_listed() {
    let server = server().await;
    let client = Client::login(&server, &["team/b", "team/a", "c0"]).await;
    let all = client.get("/v2/_catalog").await;
    assert_eq!(all.json(), json!({"repositories": ["c0", "team/a", "team/b"]}));
    let page = client.get("/v2/_catalog?n=2").await;
    assert_eq!(page.json()["repositories"], json!(["c0", "team/a"]));
    assert_eq!(page.header("link"), "</v2/_catalog?last=team%2Fa&n=2>; rel=\"next\"");
    let rest = client.get("/v2/_catalog?last=team%2Fa&n=2").await;
    assert_eq!((rest.json()["repositories"].clone(), rest.header("link")), (json!(["team/b"]), ""));
    server.shutdown().await;
}

/// "Listing Referrers": an index, also if there are none; a filter by the type of the artifact.
#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let subject = client.push_image("app", "v1", "layer").await;
    let list = async |query: &str| client.get(&format!("/v2/app/referrers/{subject}{query}")).await;
    let none = list("").await;
    assert_eq!((none.status, none.header("content-type")), (200, INDEX));
    assert_eq!(none.json(), json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));

    let attach = async |change: &dyn Fn(&mut Value)| {
        let mut attached = manifest("layer");
        attached["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 3});
        change(&mut attached);
        let text = attached.to_string();
        let reference = digest(text.as_bytes());
        assert_eq!(client.put_manifest("app", &reference, MANIFEST, &text).await.status, 201);
        (reference, text.len())
    };
    let (signature, length) = attach(&|manifest| {
        manifest["artifactType"] = json!("application/x-signature");
        manifest["annotations"] = json!({"by": "me"});
    })
    .await;
    let (untyped, _) = attach(&|_| ()).await;
    let found = list("").await.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(found.len(), 2);
    let by_digest = |wanted: &str| found.iter().find(|found| found["digest"] == wanted).unwrap().clone();
    assert_eq!(
        by_digest(&signature),
        json!({"mediaType": MANIFEST, "digest": signature, "size": length, "artifactType": "application/x-signature",
            "annotations": {"by": "me"}})
    );
    // Without a type of its own, a manifest has that of its configuration.
    assert_eq!(by_digest(&untyped)["artifactType"], "application/vnd.oci.image.config.v1+json");
    let filtered = list("?artifactType=application%2Fx-signature").await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(client.get("/v2/app/referrers/v1").await.error(), (400, "DIGEST_INVALID".to_owned()));
    server.shutdown().await;
}
