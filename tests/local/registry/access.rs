//! Who may do what in the registry: without a token, with an old one, by policies, in another account.

use super::client::{Client, digest, ecr, manifest, server};
use crate::agent::api;
use aws_credential_types::Credentials;
use ecs_local::{Options, Server};
use serde_json::{Value, json};

const OTHER: &str = "333333444444";

#[tokio::test]
async fn without_a_token_nothing_is_shown() {
    let server = server().await;
    let mut client = Client::login(&server, &["app"]).await;
    let base = client.get("/v2/").await;
    assert_eq!((base.status, base.header("docker-distribution-api-version")), (200, "registry/2.0"));
    client.authorization = String::new();
    for path in ["/v2/", "/v2/app/tags/list", "/v2/none/tags/list", "/v2/nothing"] {
        let refused = client.get(path).await;
        assert_eq!(refused.error(), (401, "UNAUTHORIZED".to_owned()), "{path}");
        let challenge = format!("Basic realm=\"{}/\",service=\"ecr.amazonaws.com\"", server.url());
        assert_eq!(refused.header("www-authenticate"), challenge);
        assert_eq!(refused.message(), "no basic auth credentials");
    }
    for authorization in ["Basic QVdTOnRva2Vu", "Bearer x", "Basic !", "Basic"] {
        client.authorization = authorization.to_owned();
        assert_eq!(client.get("/v2/").await.error(), (401, "UNAUTHORIZED".to_owned()), "{authorization}");
    }
    // The token of the session is no token of ECR.
    let wrong = Client::new(&server.url(), server.token().expose());
    assert_eq!(wrong.get("/v2/").await.status, 401);
    server.shutdown().await;
}

#[tokio::test]
async fn a_token_is_valid_for_its_time() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    server.set_clock_ahead(12 * 3600 - 60);
    assert_eq!(client.get("/v2/app/tags/list").await.status, 200);
    server.set_clock_ahead(12 * 3600 + 60);
    let refused = client.get("/v2/app/tags/list").await;
    assert_eq!(refused.error(), (403, "DENIED".to_owned()));
    assert_eq!(refused.message(), "Your authorization token has expired. Reauthenticate and try again.");
    server.shutdown().await;
}

#[tokio::test]
async fn a_missing_repository_is_named() {
    let server = server().await;
    let client = Client::login(&server, &[]).await;
    let text = "The repository with name 'app' does not exist in the registry with id '123456789012'";
    for (method, path) in [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("GET", "/v2/app/manifests/v1".to_owned()),
        ("PUT", "/v2/app/manifests/v1".to_owned()),
        ("GET", "/v2/app/tags/list".to_owned()),
        ("GET", format!("/v2/app/blobs/{}", digest(b"layer"))),
    ] {
        let refused = client.send(method, &path, &[], Vec::new()).await;
        assert_eq!((refused.error(), refused.message()), ((404, "NAME_UNKNOWN".to_owned()), text.to_owned()), "{path}");
    }
    server.shutdown().await;
}

/// A request of a test in every group: what it needs, and what it is.
fn requests() -> Vec<(&'static str, &'static str, String)> {
    let (layer, image) = (digest(b"layer"), digest(manifest("layer").to_string().as_bytes()));
    vec![
        ("ecr:GetDownloadUrlForLayer", "GET", format!("/v2/app/blobs/{layer}")),
        ("ecr:BatchGetImage", "GET", format!("/v2/app/manifests/{image}")),
        ("ecr:BatchGetImage", "HEAD", "/v2/app/manifests/v1".to_owned()),
        ("ecr:BatchGetImage", "GET", format!("/v2/app/referrers/{image}")),
        ("ecr:ListImages", "GET", "/v2/app/tags/list".to_owned()),
        ("ecr:InitiateLayerUpload", "POST", "/v2/app/blobs/uploads/".to_owned()),
        ("ecr:UploadLayerPart", "POST", format!("/v2/app/blobs/uploads/?digest={layer}")),
        ("ecr:CompleteLayerUpload", "POST", format!("/v2/app/blobs/uploads/?digest={layer}")),
        ("ecr:UploadLayerPart", "PATCH", "/v2/app/blobs/uploads/x".to_owned()),
        ("ecr:CompleteLayerUpload", "PUT", format!("/v2/app/blobs/uploads/x?digest={layer}")),
        ("ecr:PutImage", "PUT", "/v2/app/manifests/v2".to_owned()),
        ("ecr:BatchDeleteImage", "DELETE", "/v2/app/manifests/v1".to_owned()),
    ]
}

#[tokio::test]
async fn each_request_needs_its_permission() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    for (action, method, path) in requests() {
        let deny = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Deny", "Principal": "*", "Action": action},
        ]});
        let body = json!({"repositoryName": "app", "policyText": deny.to_string(), "force": true});
        assert_eq!(ecr(&server, "SetRepositoryPolicy", body).await.0, 200);
        let refused = client.send(method, &path, &[], Vec::new()).await;
        assert_eq!(refused.status, 403, "{action} {method} {path}");
        if method != "HEAD" {
            let text = format!(
                "User: arn:aws:iam::123456789012:user/administrator is not authorized to perform: {action} on resource: \
                 arn:aws:ecr:us-west-2:123456789012:repository/app with an explicit deny in a resource-based policy"
            );
            assert_eq!((refused.error(), refused.message()), ((403, "DENIED".to_owned()), text));
        }
        let rest = json!({"repositoryName": "app"});
        assert_eq!(ecr(&server, "DeleteRepositoryPolicy", rest).await.0, 200);
    }
    server.shutdown().await;
}

/// As in AWS, two actions are enough to pull, and a client that asks first may do so with either permission.
#[tokio::test]
async fn a_pull_needs_two_actions() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let image = client.push_image("app", "v1", "layer").await;
    let layer = format!("/v2/app/blobs/{}", digest(b"layer"));
    let all_but = async |actions: &[&str]| {
        let deny = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Deny", "Principal": "*", "NotAction": actions},
        ]});
        let body = json!({"repositoryName": "app", "policyText": deny.to_string(), "force": true});
        assert_eq!(ecr(&server, "SetRepositoryPolicy", body).await.0, 200);
    };
    let administer = ["ecr:SetRepositoryPolicy", "ecr:DeleteRepositoryPolicy"];
    all_but(&[&["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], &administer[..]].concat()).await;
    assert_eq!(client.get(&format!("/v2/app/manifests/{image}")).await.status, 200);
    assert_eq!((client.head(&layer).await.status, client.get(&layer).await.body), (200, b"layer".to_vec()));
    all_but(&[&["ecr:BatchCheckLayerAvailability"], &administer[..]].concat()).await;
    assert_eq!((client.head(&layer).await.status, client.get(&layer).await.status), (200, 403));
    all_but(&administer).await;
    assert_eq!(client.head(&layer).await.status, 403);
    server.shutdown().await;
}

/// A mount needs a permission in the repository that has the layer. Without it the layer is uploaded.
#[tokio::test]
async fn a_mount_needs_a_permission_on_the_source() {
    let server = server().await;
    let client = Client::login(&server, &["app", "source"]).await;
    let layer = client.push_blob("source", b"layer").await;
    let deny = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Principal": "*", "Action": "ecr:GetDownloadUrlForLayer"},
    ]});
    let body = json!({"repositoryName": "source", "policyText": deny.to_string()});
    assert_eq!(ecr(&server, "SetRepositoryPolicy", body).await.0, 200);
    let path = format!("/v2/app/blobs/uploads/?mount={layer}&from=source");
    assert_eq!(client.send("POST", &path, &[], Vec::new()).await.status, 202);
    assert_eq!(client.head(&format!("/v2/app/blobs/{layer}")).await.status, 404);
    let denied: Vec<Value> =
        actions(&server).await.into_iter().filter(|action| action["outcome"] == "denied").collect();
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0]["action"], "ecr:GetDownloadUrlForLayer");
    assert_eq!(denied[0]["resource"], "arn:aws:ecr:us-west-2:123456789012:repository/source");
    assert_eq!(ecr(&server, "DeleteRepositoryPolicy", json!({"repositoryName": "source"})).await.0, 200);
    assert_eq!(client.send("POST", &path, &[], Vec::new()).await.status, 201);
    server.shutdown().await;
}

/// All actions so far.
async fn actions(server: &Server) -> Vec<Value> {
    let request = crate::http().get(format!("{}/_local/actions", server.url())).bearer_auth(server.token().expose());
    let body: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    body["actions"].as_array().unwrap().clone()
}

/// Two accounts on two addresses: a pull needs the policy of the repository.
#[tokio::test]
async fn another_account_has_its_own_registry() {
    let options = Options { accounts: vec![OTHER.to_owned()], ..Options::default() };
    let server = Server::start(options).await.unwrap();
    let client = Client::login(&server, &["app"]).await;
    client.push_image("app", "v1", "layer").await;
    // The id of an account is the access key id of its administrator.
    let other_keys = Credentials::new(OTHER, server.token().expose(), None, None, "test");
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    let (status, token) = api(&server.url(), target, &json!({}), Some(other_keys.clone())).await.unwrap();
    assert_eq!(status, 200, "{token}");
    let data = &token["authorizationData"][0];
    let other_address = server.url().replace("127.0.0.1", "127.0.0.2");
    assert_eq!(data["proxyEndpoint"], json!(other_address));
    let encoded = data["authorizationToken"].as_str().unwrap();
    let mut stranger = client.clone();
    stranger.authorization = format!("Basic {encoded}");
    let refused = stranger.get("/v2/app/manifests/v1").await;
    assert_eq!(refused.error(), (403, "DENIED".to_owned()));
    assert!(refused.message().contains("because no resource-based policy allows the ecr:BatchGetImage action"));

    let allow = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{OTHER}:root")}, "Action": [
            "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]},
    ]});
    let body = json!({"repositoryName": "app", "policyText": allow.to_string()});
    assert_eq!(ecr(&server, "SetRepositoryPolicy", body).await.0, 200);
    assert_eq!(stranger.get("/v2/app/manifests/v1").await.status, 200);
    assert_eq!(stranger.get(&format!("/v2/app/blobs/{}", digest(b"layer"))).await.body, b"layer");
    assert_eq!(stranger.send("POST", "/v2/app/blobs/uploads/", &[], Vec::new()).await.status, 403);

    // At its own address it has a registry of its own.
    stranger.base = other_address;
    let missing = stranger.get("/v2/app/manifests/v1").await;
    assert!(missing.message().contains(&format!("the registry with id '{OTHER}'")), "{}", missing.message());
    let create = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";
    let (status, made) = api(&server.url(), create, &json!({"repositoryName": "app"}), Some(other_keys)).await.unwrap();
    assert_eq!(status, 200, "{made}");
    assert!(made["repository"]["repositoryUri"].as_str().unwrap().starts_with("127.0.0.2:"), "{made}");
    stranger.push_image("app", "v1", "another layer").await;
    server.shutdown().await;
}

/// The address that ECR signs for a layer needs no token, and nothing else does it open.
#[tokio::test]
async fn a_signed_address_gives_one_layer_for_its_time() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    let (layer, other) = (client.push_blob("app", b"layer").await, client.push_blob("app", b"other").await);
    client.push_image("app", "v1", "layer").await;
    let asked = json!({"repositoryName": "app", "layerDigest": layer});
    let (status, body) = ecr(&server, "GetDownloadUrlForLayer", asked).await;
    assert_eq!(status, 200, "{body}");
    let address = body["downloadUrl"].as_str().unwrap().to_owned();
    let get = async |address: String| crate::http().get(address).send().await.unwrap();
    let answer = get(address.clone()).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "layer"));
    assert_eq!(get(address.replace(&layer, &other)).await.status(), 401);
    assert_eq!(get(address.replace("expires=", "expires=1")).await.status(), 401);
    server.set_clock_ahead(48 * 3600);
    assert_eq!(get(address).await.status(), 401);
    server.shutdown().await;
}

#[tokio::test]
async fn faults_of_the_registry_are_in_its_own_form() {
    let server = server().await;
    let client = Client::login(&server, &["app"]).await;
    for (fault, wanted) in [
        (ecs_local::Fault::Throttle, (429, "TOOMANYREQUESTS")),
        (ecs_local::Fault::AccessDenied, (403, "DENIED")),
        (ecs_local::Fault::ServerError, (500, "UNKNOWN")),
        (ecs_local::Fault::Error(418, "TEAPOT".to_owned(), "no coffee".to_owned()), (418, "TEAPOT")),
    ] {
        server.fail_next("registry", 1, &fault);
        assert_eq!(client.get("/v2/app/tags/list").await.error(), (wanted.0, wanted.1.to_owned()));
    }
    server.fail_next("registry", 1, &ecs_local::Fault::Drop);
    assert!(client.try_send("GET", "/v2/", &[], Vec::new()).await.is_err());
    assert_eq!(client.get("/v2/").await.status, 200);
    server.shutdown().await;
}
