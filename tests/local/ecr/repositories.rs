//! Repositories, their settings and tags, images and the registry's description.

use super::{OWN, Session, lines};
use serde_json::{Value, json};

#[tokio::test]
async fn a_repository_and_its_settings() {
    let Some(session) = Session::start().await else { return };
    let created = session
        .ok("create-repository --repository-name docker-in-aws/todobackend --image-scanning-configuration scanOnPush=true \
             --tags Key=team,Value=blue")
        .await["repository"]
        .clone();
    let arn = format!("arn:aws:ecr:us-west-2:{OWN}:repository/docker-in-aws/todobackend");
    let host = session.server.url().trim_start_matches("http://").to_owned();
    assert_eq!((&created["repositoryArn"], &created["registryId"]), (&json!(arn), &json!(OWN)));
    assert_eq!(created["repositoryUri"], json!(format!("{host}/docker-in-aws/todobackend")));
    assert_eq!(
        (&created["imageTagMutability"], &created["encryptionConfiguration"]),
        (&json!("MUTABLE"), &json!({"encryptionType": "AES256"}))
    );
    let shown = session.ok("describe-repositories --repository-names docker-in-aws/todobackend").await;
    assert_eq!(shown["repositories"][0]["imageScanningConfiguration"], json!({"scanOnPush": true}));
    session.ok(&format!("tag-resource --resource-arn {arn} --tags Key=stage,Value=test")).await;
    session.ok(&format!("untag-resource --resource-arn {arn} --tag-keys team")).await;
    let tags = session.ok(&format!("list-tags-for-resource --resource-arn {arn}")).await;
    assert_eq!(tags, json!({"tags": [{"Key": "stage", "Value": "test"}]}));
    let name = "--repository-name docker-in-aws/todobackend";
    let answer = session.ok(&format!("put-image-tag-mutability {name} --image-tag-mutability IMMUTABLE")).await;
    assert_eq!(answer["imageTagMutability"], "IMMUTABLE");
    let answer = session
        .ok(&format!("put-image-scanning-configuration {name} --image-scanning-configuration scanOnPush=false"))
        .await;
    assert_eq!(answer["imageScanningConfiguration"], json!({"scanOnPush": false}));
    assert_eq!(session.ok("describe-registry").await["registryId"], OWN);
    session.ok(&format!("delete-repository {name}")).await;
    assert_eq!(session.ok("describe-repositories").await, json!({"repositories": []}));
}

#[tokio::test]
async fn images_from_push_to_deletion() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    assert_eq!(session.ok("list-images --repository-name app").await, json!({"imageIds": []}));
    let old = session.push("app", "1", "latest").await;
    let new = session.push("app", "2", "latest").await;
    let listed = session.ok("list-images --repository-name app --filter tagStatus=UNTAGGED").await;
    assert_eq!(listed["imageIds"], json!([{"imageDigest": old}]));
    let described = session.ok("describe-images --repository-name app --image-ids imageTag=latest").await;
    let image = &described["imageDetails"][0];
    assert_eq!((&image["imageDigest"], &image["imageTags"]), (&json!(new), &json!(["latest"])));
    assert!(image["imagePushedAt"].is_string() || image["imagePushedAt"].is_number(), "{image}");
    let got = session.ok("batch-get-image --repository-name app --image-ids imageTag=latest imageTag=none").await;
    assert_eq!(
        (&got["images"][0]["imageId"]["imageDigest"], &got["failures"][0]["failureCode"]),
        (&json!(new), &json!("ImageNotFound"))
    );
    // A further tag for an image, as AWS's guide describes it.
    let manifest = session.file("manifest.json", got["images"][0]["imageManifest"].as_str().unwrap());
    let keys = session.administrator("local");
    let put =
        ["put-image", "--repository-name", "app", "--image-tag", "v2", "--image-manifest", &super::file_url(&manifest)];
    assert_eq!(session.run(&keys, &put).await.unwrap()["image"]["imageId"]["imageTag"], "v2");
    let pages = session.ok("list-images --repository-name app --max-items 2").await;
    assert_eq!((pages["imageIds"].as_array().unwrap().len(), pages["NextToken"].is_string()), (2, true), "{pages}");
    let deleted = session
        .ok(&format!("batch-delete-image --repository-name app --image-ids imageDigest={old} imageTag=latest"))
        .await;
    assert_eq!(
        (lines(&deleted["imageIds"], "imageTag"), &deleted["failures"]),
        (vec![String::new(), "latest".to_owned()], &json!([]))
    );
    let refused = session.refused("delete-repository --repository-name app").await;
    assert_eq!(
        refused,
        format!(
            "An error occurred (RepositoryNotEmptyException) when calling the DeleteRepository operation: The repository with name 'app' in \
             registry with id '{OWN}' cannot be deleted because it still contains images"
        )
    );
    session.ok("delete-repository --repository-name app --force").await;
}

#[tokio::test]
async fn pull_through_cache_rules() {
    let Some(session) = Session::start().await else { return };
    let rule = session
        .ok("create-pull-through-cache-rule --ecr-repository-prefix ecr-public --upstream-registry-url public.ecr.aws")
        .await;
    assert_eq!((&rule["upstreamRegistryUrl"], &rule["registryId"]), (&json!("public.ecr.aws"), &json!(OWN)));
    let rules = session.ok("describe-pull-through-cache-rules").await["pullThroughCacheRules"].clone();
    assert_eq!(lines(&rules, "ecrRepositoryPrefix"), ["ecr-public"]);
    let refused =
        session.refused("batch-get-image --repository-name ecr-public/nginx --image-ids imageTag=latest").await;
    assert!(
        refused.contains("(UnableToGetUpstreamImageException)") && refused.contains("it makes no connections"),
        "{refused}"
    );
    session.ok("delete-pull-through-cache-rule --ecr-repository-prefix ecr-public").await;
    let refused = session.refused("describe-pull-through-cache-rules --ecr-repository-prefixes ecr-public").await;
    assert!(refused.contains("(PullThroughCacheRuleNotFoundException)"), "{refused}");
}

#[tokio::test]
async fn a_login_password_is_a_token_of_the_registry() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    let Value::String(password) = session.ok("get-login-password").await else { panic!("no password") };
    let tags = async |password: &str| {
        let request = crate::agent::http().get(format!("{}/v2/app/tags/list", session.server.url()));
        request.basic_auth("AWS", Some(password)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(tags(&password).await, 200);
    assert_ne!(tags("wrong").await, 200);
    session.post("clock", json!({"ecrAheadSeconds": 13 * 3600})).await;
    assert_ne!(tags(&password).await, 200, "it lives 12 hours");
    let Value::String(password) = session.ok("get-login-password").await else { panic!("no password") };
    assert_eq!(tags(&password).await, 200);
}
