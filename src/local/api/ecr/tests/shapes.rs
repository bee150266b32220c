//! Answers have the shapes of the public model of the API, in `shapes.json`: the members of each answer and their types.

use super::{OPERATIONS, OWN, Session};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The places in an answer that the model does not have; empty if it fits.
fn strange(shape: &Value, value: &Value, place: &str) -> Vec<String> {
    let fits = match (shape, value) {
        (Value::Object(shapes), Value::Object(members)) => {
            let member = |(name, value): (&String, &Value)| match shapes.get(name) {
                Some(shape) => strange(shape, value, &format!("{place}.{name}")),
                None => vec![format!("{place}.{name} is no member")],
            };
            return members.iter().flat_map(member).collect();
        }
        (Value::Array(shape), Value::Array(list)) => {
            return list.iter().flat_map(|value| strange(&shape[0], value, &format!("{place}[]"))).collect();
        }
        (Value::String(shape), value) => match shape.as_str() {
            "text" => value.is_string(),
            "whole" => value.is_u64(),
            "number" => value.is_number(),
            _ => value.is_boolean(),
        },
        _ => false,
    };
    if fits { Vec::new() } else { vec![format!("{place} has another type")] }
}

#[test]
fn answers_have_the_shapes_of_the_api() {
    let shapes: BTreeMap<String, Value> = serde_json::from_str(include_str!("shapes.json")).unwrap();
    let mut session = Session::with_app();
    let digest = session.push("1", Some("v1"));
    session.push("2", None);
    let name = json!({"repositoryName": "app"});
    let ids = json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}, {"imageTag": "v2"}]});
    let layer = crate::ecr::Digest::compute(b"1");
    let arn = format!("arn:aws:ecr:us-west-2:{OWN}:repository/app");
    let policy = json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}}).to_string();
    let rules = super::policies::untagged();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{"digest": digest, "size": 1}],
        "subject": {"digest": digest, "size": 1},
    });
    let put = json!({"repositoryName": "app", "imageManifest": manifest.to_string()});
    session.ok("PutLifecyclePolicy", json!({"repositoryName": "app", "lifecyclePolicyText": rules}));
    session.state.set_clocks(0, 8 * 24 * 3600);
    let create = json!({
        "repositoryName": "new", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev*"}],
        "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "alias/x"},
    });
    let mut answered = Vec::new();
    for (operation, body) in [
        ("CreateRepository", create),
        ("DescribeRepositories", json!({"maxResults": 1})),
        ("DescribeRegistry", json!({})),
        ("GetAuthorizationToken", json!({})),
        ("PutImage", put),
        ("ListImages", json!({"repositoryName": "app", "maxResults": 1})),
        ("BatchGetImage", ids.clone()),
        ("DescribeImages", name.clone()),
        ("BatchCheckLayerAvailability", json!({"repositoryName": "app", "layerDigests": [layer, "x"]})),
        ("GetDownloadUrlForLayer", json!({"repositoryName": "app", "layerDigest": layer})),
        ("SetRepositoryPolicy", json!({"repositoryName": "app", "policyText": policy})),
        ("GetRepositoryPolicy", name.clone()),
        ("DeleteRepositoryPolicy", name.clone()),
        ("StartLifecyclePolicyPreview", name.clone()),
        ("GetLifecyclePolicyPreview", name.clone()),
        ("PutLifecyclePolicy", json!({"repositoryName": "app", "lifecyclePolicyText": rules})),
        ("GetLifecyclePolicy", name.clone()),
        ("DeleteLifecyclePolicy", name.clone()),
        ("PutImageTagMutability", json!({"repositoryName": "app", "imageTagMutability": "MUTABLE"})),
        ("PutImageScanningConfiguration", json!({"repositoryName": "app", "imageScanningConfiguration": {}})),
        ("TagResource", json!({"resourceArn": arn, "tags": [{"Key": "a", "Value": "b"}]})),
        ("ListTagsForResource", json!({"resourceArn": arn})),
        ("UntagResource", json!({"resourceArn": arn, "tagKeys": ["a"]})),
        ("CreatePullThroughCacheRule", json!({"ecrRepositoryPrefix": "quay", "upstreamRegistryUrl": "quay.io"})),
        ("DescribePullThroughCacheRules", json!({})),
        ("DeletePullThroughCacheRule", json!({"ecrRepositoryPrefix": "quay"})),
        ("BatchDeleteImage", ids),
        ("DeleteRepository", json!({"repositoryName": "app", "force": true})),
    ] {
        let answer = session.ok(operation, body);
        let found = strange(&shapes[operation], &answer, operation);
        assert!(found.is_empty(), "{}", found.join(", "));
        answered.push(operation);
    }
    answered.sort_unstable();
    assert_eq!(answered, OPERATIONS, "every operation has its turn");
    assert_eq!(
        strange(&json!({"a": ["whole"]}), &json!({"a": [1, "x"], "b": 1}), "it"),
        ["it.a[] has another type", "it.b is no member"]
    );
}
