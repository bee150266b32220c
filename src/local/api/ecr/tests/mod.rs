//! Calls of ECR as clients make them, and answers in the shapes of the API.

mod images;
mod policies;
mod shapes;

use super::{OPERATIONS, answer};
use crate::api_error::ApiError;
use crate::ecr::{Digest, Principal};
use crate::options::{Options, Registry};
use crate::site::Site;
use crate::state::State;
use base64::Engine;
use serde_json::{Value, json};

const OWN: &str = "123456789012";
const OTHER: &str = "210987654321";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A session with two accounts.
struct Session {
    state: State,
    options: Options,
}

impl Session {
    fn new() -> Self {
        let mut state = State::new(Site::example(), "default");
        state.ecr.registry_mut(OWN).unwrap().host = "127.0.0.1:14566".to_owned();
        state.ecr.add_account(OTHER, "127.0.0.2:14566").unwrap();
        Self { state, options: Options::default() }
    }

    /// A session with the repository `app`.
    fn with_app() -> Self {
        let mut session = Self::new();
        session.ok("CreateRepository", json!({"repositoryName": "app"}));
        session
    }

    fn call_as(&mut self, caller: &Principal, operation: &str, body: Value) -> Result<Value, ApiError> {
        answer(&mut self.state, &self.options, caller, operation, &body)
    }

    fn call(&mut self, operation: &str, body: Value) -> Result<Value, ApiError> {
        self.call_as(&Principal::administrator(OWN), operation, body)
    }

    fn ok(&mut self, operation: &str, body: Value) -> Value {
        self.call(operation, body).unwrap_or_else(|error| panic!("{operation}: {error}"))
    }

    /// Code and text of an error, with `: ` between them.
    fn refused(&mut self, operation: &str, body: Value) -> String {
        match self.call(operation, body.clone()) {
            Ok(answer) => panic!("{operation} {body}: {answer}"),
            Err(error) => error.to_string(),
        }
    }

    /// Pushes an image of one layer to `app`. Returns its digest.
    fn push(&mut self, seed: &str, tag: Option<&str>) -> String {
        let (config, layer) = (Digest::compute(format!("c{seed}").as_bytes()), Digest::compute(seed.as_bytes()));
        let now = self.state.ecr_time();
        self.state.ecr.add_layer(OWN, "app", config, 7, now).unwrap();
        self.state.ecr.add_layer(OWN, "app", layer, 100, now).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": {"digest": config, "size": 7},
            "layers": [{"digest": layer, "size": 100}],
        });
        let body = json!({"repositoryName": "app", "imageManifest": manifest.to_string(), "imageTag": tag});
        text(&self.ok("PutImage", body)["image"]["imageId"]["imageDigest"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_listed_operation_is_supported_and_no_other() {
    let mut session = Session::new();
    for operation in OPERATIONS {
        let code = session.call(operation, json!({})).err().map(|error| error.code);
        assert_ne!(code.as_deref(), Some("UnknownOperationException"), "{operation}");
    }
    let refused = session.refused("DescribeRepository", json!({}));
    assert!(
        refused.contains("is not supported by this ECR. Did you mean `DescribeRepositories`? Supported: "),
        "{refused}"
    );
    assert!(refused.contains("InitiateLayerUpload"), "{refused}");
}

#[test]
fn a_repository_is_created_shown_and_deleted() {
    let mut session = Session::new();
    let created = session.ok(
        "CreateRepository",
        json!({
            "repositoryName": "docker-in-aws/todobackend",
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": true},
            "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "alias/x"},
            "tags": [{"Key": "team", "Value": "blue"}],
        }),
    )["repository"]
        .clone();
    let created_at = created["createdAt"].as_f64().unwrap();
    assert!(created_at > 1.7e9);
    let wanted = json!({
        "repositoryArn": "arn:aws:ecr:us-west-2:123456789012:repository/docker-in-aws/todobackend",
        "registryId": OWN,
        "repositoryName": "docker-in-aws/todobackend",
        "repositoryUri": "127.0.0.1:14566/docker-in-aws/todobackend",
        "createdAt": created_at,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": true},
        "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "alias/x"},
    });
    assert_eq!(created, wanted);
    let arn = json!({"resourceArn": created["repositoryArn"]});
    assert_eq!(session.ok("ListTagsForResource", arn.clone()), json!({"tags": [{"Key": "team", "Value": "blue"}]}));
    let again = session.refused("CreateRepository", json!({"repositoryName": "docker-in-aws/todobackend"}));
    assert_eq!(
        again,
        "RepositoryAlreadyExistsException: The repository with name 'docker-in-aws/todobackend' already exists in the registry with id \
         '123456789012'"
    );
    assert_eq!(session.ok("DescribeRepositories", json!({})), json!({"repositories": [wanted]}));
    let deleted = session.ok("DeleteRepository", json!({"repositoryName": "docker-in-aws/todobackend"}));
    assert_eq!(deleted, json!({"repository": wanted}));
    assert_eq!(session.ok("DescribeRepositories", json!({})), json!({"repositories": []}));
    let refused = session.refused("DescribeRepositories", json!({"repositoryNames": ["docker-in-aws/todobackend"]}));
    assert!(refused.starts_with(
        "RepositoryNotFoundException: The repository with name 'docker-in-aws/todobackend' does not exist"
    ));
}

#[test]
fn repositories_come_in_pages() {
    let mut session = Session::new();
    for number in 0..5 {
        session.ok("CreateRepository", json!({"repositoryName": format!("app-{number}")}));
    }
    let names = |answer: &Value| {
        let all = answer["repositories"].as_array().unwrap().iter();
        all.map(|repository| text(&repository["repositoryName"])).collect::<Vec<_>>()
    };
    let first = session.ok("DescribeRepositories", json!({"maxResults": 3}));
    assert_eq!(names(&first), ["app-0", "app-1", "app-2"]);
    let second = session.ok("DescribeRepositories", json!({"maxResults": 3, "nextToken": first["nextToken"]}));
    assert_eq!((names(&second), &second["nextToken"]), (vec!["app-3".to_owned(), "app-4".to_owned()], &Value::Null));
    let named = json!({"repositoryNames": ["app-4", "app-0"]});
    assert_eq!(names(&session.ok("DescribeRepositories", named)), ["app-4", "app-0"]);
    let both = session.refused("DescribeRepositories", json!({"repositoryNames": ["app-0"], "maxResults": 3}));
    assert!(both.contains("maxResults cannot be used when repositoryNames are specified"), "{both}");
}

#[test]
fn settings_of_a_repository_change() {
    let mut session = Session::with_app();
    let answer =
        session.ok("PutImageTagMutability", json!({"repositoryName": "app", "imageTagMutability": "IMMUTABLE"}));
    assert_eq!(answer, json!({"registryId": OWN, "repositoryName": "app", "imageTagMutability": "IMMUTABLE"}));
    let filters = json!([{"filterType": "WILDCARD", "filter": "dev-*"}]);
    let exclusion = json!({
        "repositoryName": "app", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": filters,
    });
    assert_eq!(session.ok("PutImageTagMutability", exclusion)["imageTagMutabilityExclusionFilters"], filters);
    session.push("1", Some("dev-1"));
    session.push("2", Some("dev-1"));
    session.push("3", Some("v1"));
    let refused = session.refused("PutImageTagMutability", json!({"repositoryName": "app"}));
    assert!(
        refused.contains("'imageTagMutability' failed to satisfy constraint: 'Member must not be null'"),
        "{refused}"
    );
    let scanning = json!({"repositoryName": "app", "imageScanningConfiguration": {"scanOnPush": true}});
    assert_eq!(session.ok("PutImageScanningConfiguration", scanning)["imageScanningConfiguration"]["scanOnPush"], true);
}

#[test]
fn resources_have_tags() {
    let mut session = Session::with_app();
    let arn = "arn:aws:ecr:us-west-2:123456789012:repository/app";
    let tag = |key: &str, value: &str| json!({"Key": key, "Value": value});
    session.ok("TagResource", json!({"resourceArn": arn, "tags": [tag("a", "1"), tag("b", "2")]}));
    session.ok("TagResource", json!({"resourceArn": arn, "tags": [tag("a", "3")]}));
    session.ok("UntagResource", json!({"resourceArn": arn, "tagKeys": ["b", "c"]}));
    assert_eq!(session.ok("ListTagsForResource", json!({"resourceArn": arn})), json!({"tags": [tag("a", "3")]}));
    let many: Vec<Value> = (0..50).map(|number| tag(&format!("k{number}"), "")).collect();
    let refused = session.refused("TagResource", json!({"resourceArn": arn, "tags": many}));
    assert!(refused.starts_with("TooManyTagsException: "), "{refused}");
    for (tags, code) in [
        (json!([tag("", "1")]), "InvalidTagParameterException"),
        (json!([{"key": "a", "value": "1"}]), "InvalidTagParameterException"),
        (json!([tag("x", "1"), tag("x", "2")]), "InvalidTagParameterException"),
        (json!({}), "SerializationException"),
    ] {
        let refused = session.refused("TagResource", json!({"resourceArn": arn, "tags": tags}));
        assert!(refused.starts_with(code), "{refused}");
    }
    for arn in [
        "app",
        "arn:aws:ecr:us-east-1:123456789012:repository/app",
        "arn:aws:ecr:us-west-2:123456789012:repository/../x",
    ] {
        let refused = session.refused("ListTagsForResource", json!({"resourceArn": arn}));
        assert!(refused.contains("'Invalid ARN'"), "{refused}");
    }
}

#[test]
fn tokens_name_the_registries_that_were_asked_for() {
    let mut session = Session::new();
    let answer = session.ok("GetAuthorizationToken", json!({}));
    let data = answer["authorizationData"].as_array().unwrap();
    assert_eq!((data.len(), &data[0]["proxyEndpoint"]), (1, &json!("http://127.0.0.1:14566")));
    let decoded = base64::engine::general_purpose::STANDARD.decode(text(&data[0]["authorizationToken"])).unwrap();
    let decoded = String::from_utf8(decoded).unwrap();
    let (user, password) = decoded.split_once(':').unwrap();
    let now = session.state.ecr_time();
    assert!((data[0]["expiresAt"].as_f64().unwrap() - now - 12.0 * 3600.0).abs() < 5.0);
    assert_eq!(session.state.ecr.principal(user, password, now), Ok(Principal::administrator(OWN)));
    session.state.set_clocks(0, 13 * 3600);
    assert!(session.state.ecr.principal(user, password, session.state.ecr_time()).is_err(), "it has expired");
    let both = session.ok("GetAuthorizationToken", json!({"registryIds": [OTHER, OWN]}));
    let endpoints: Vec<String> =
        both["authorizationData"].as_array().unwrap().iter().map(|entry| text(&entry["proxyEndpoint"])).collect();
    assert_eq!(endpoints, ["http://127.0.0.2:14566", "http://127.0.0.1:14566"]);
    let refused = session.refused("GetAuthorizationToken", json!({"registryIds": ["000000000000"]}));
    assert!(
        refused.contains("there is no account 000000000000 here; there are: 123456789012, 210987654321"),
        "{refused}"
    );
    let service = Principal::service("codebuild.amazonaws.com", Some(OWN), None);
    assert!(session.call_as(&service, "GetAuthorizationToken", json!({})).is_ok());
}

#[test]
fn a_real_registry_keeps_its_own_password() {
    let mut session = Session::new();
    session.options.registry = Some(Registry::new("localhost:5000", "AWS", "pa:ss".into()));
    let answer = session.ok("GetAuthorizationToken", json!({}));
    let data = &answer["authorizationData"][0];
    assert_eq!(
        (&data["authorizationToken"], &data["proxyEndpoint"]),
        (&json!("QVdTOnBhOnNz"), &json!("http://localhost:5000"))
    );
}

#[test]
fn pull_through_cache_rules_are_kept_and_shown() {
    let mut session = Session::new();
    let body = json!({"ecrRepositoryPrefix": "ecr-public", "upstreamRegistryUrl": "public.ecr.aws"});
    let rule = session.ok("CreatePullThroughCacheRule", body.clone());
    assert_eq!((&rule["upstreamRegistry"], &rule["registryId"]), (&json!("ecr-public"), &json!(OWN)));
    assert_eq!(session.ok("DescribePullThroughCacheRules", json!({})), json!({"pullThroughCacheRules": [rule]}));
    assert!(
        session.refused("CreatePullThroughCacheRule", body).starts_with("PullThroughCacheRuleAlreadyExistsException")
    );
    for (prefix, url, code) in [
        ("x", "quay.io", "InvalidParameterException"),
        ("Quay", "quay.io", "InvalidParameterException"),
        ("hub", "registry-1.docker.io", "InvalidParameterException: Invalid parameter at 'credentialArn'"),
        ("any", "registry.example.com", "UnsupportedUpstreamRegistryException"),
        ("any", "evil/.azurecr.io", "UnsupportedUpstreamRegistryException"),
    ] {
        let refused = session
            .refused("CreatePullThroughCacheRule", json!({"ecrRepositoryPrefix": prefix, "upstreamRegistryUrl": url}));
        assert!(refused.starts_with(code), "{refused}");
    }
    let secret = "arn:aws:secretsmanager:us-west-2:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf";
    session.ok(
        "CreatePullThroughCacheRule",
        json!({"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "registry-1.docker.io", "credentialArn": secret}),
    );
    let named = session.ok("DescribePullThroughCacheRules", json!({"ecrRepositoryPrefixes": ["hub"]}));
    assert_eq!(named["pullThroughCacheRules"][0]["credentialArn"], secret);
    session.ok("DeletePullThroughCacheRule", json!({"ecrRepositoryPrefix": "hub"}));
    let refused = session.refused("DeletePullThroughCacheRule", json!({"ecrRepositoryPrefix": "hub"}));
    assert!(refused.starts_with("PullThroughCacheRuleNotFoundException"), "{refused}");
    let mut other = json!({"ecrRepositoryPrefix": "far", "upstreamRegistryUrl": format!("{OTHER}.dkr.ecr.us-west-2.amazonaws.com")});
    for role in [json!(null), json!("cache"), json!(format!("arn:aws:iam::{OTHER}:role/cache"))] {
        other["customRoleArn"] = role;
        let refused = session.refused("CreatePullThroughCacheRule", other.clone());
        assert!(refused.starts_with("InvalidParameterException: Invalid parameter at 'customRoleArn'"), "{refused}");
    }
    other["customRoleArn"] = json!(format!("arn:aws:iam::{OWN}:role/cache"));
    let rule = session.ok("CreatePullThroughCacheRule", other.clone());
    assert_eq!((&rule["customRoleArn"], &rule["upstreamRegistry"]), (&other["customRoleArn"], &json!("ecr")));
    let pull = json!({"repositoryName": "ecr-public/nginx", "imageIds": [{"imageTag": "latest"}]});
    assert!(session.refused("BatchGetImage", pull).starts_with("UnableToGetUpstreamImageException"));
}

#[test]
fn the_registry_is_described() {
    let answer = Session::new().ok("DescribeRegistry", json!({}));
    assert_eq!(answer, json!({"registryId": OWN, "replicationConfiguration": {"rules": []}}));
}
