//! Calls of ECR as clients make them, and answers in the shapes of the API.

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

    fn call_as(&mut self, who: &Principal, operation: &str, body: Value) -> Result<Value, ApiError> {
        answer(&mut self.state, &self.options, who, operation, &body)
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

fn rule(selection: &Value) -> String {
    json!({"rules": [{"rulePriority": 10, "description": "Remove orphaned images after a week", "selection": selection,
        "action": {"type": "expire"}}]})
    .to_string()
}

fn untagged() -> String {
    rule(&json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7}))
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
fn images_are_listed_described_and_fetched() {
    let mut session = Session::with_app();
    let old = session.push("1", Some("latest"));
    let new = session.push("2", Some("latest"));
    let body = json!({"repositoryName": "app", "imageIds": [{"imageTag": "latest"}]});
    let fetched = session.ok("BatchGetImage", body.clone())["images"][0].clone();
    assert_eq!(fetched["imageId"], json!({"imageDigest": new, "imageTag": "latest"}));
    assert_eq!(Digest::compute(text(&fetched["imageManifest"]).as_bytes()).to_string(), new);
    assert_eq!((&fetched["imageManifestMediaType"], &fetched["registryId"]), (&json!(MANIFEST), &json!(OWN)));
    let list = |session: &mut Session, status: &str| {
        session.ok("ListImages", json!({"repositoryName": "app", "filter": {"tagStatus": status}}))["imageIds"].clone()
    };
    assert_eq!(list(&mut session, "TAGGED"), json!([{"imageDigest": new, "imageTag": "latest"}]));
    assert_eq!(list(&mut session, "UNTAGGED"), json!([{"imageDigest": old}]));
    assert_eq!(list(&mut session, "ANY").as_array().unwrap().len(), 2);
    let details = session.ok("DescribeImages", body)["imageDetails"][0].clone();
    for (member, value) in [
        ("registryId", json!(OWN)),
        ("repositoryName", json!("app")),
        ("imageDigest", json!(new)),
        ("imageTags", json!(["latest"])),
        ("imageSizeInBytes", json!(107)),
        ("imageManifestMediaType", json!(MANIFEST)),
        ("imageStatus", json!("ACTIVE")),
    ] {
        assert_eq!(details[member], value, "{member}");
    }
    assert!(details["imagePushedAt"].is_f64() && details["lastRecordedPullTime"].is_f64(), "{details}");
    let untagged = json!({"repositoryName": "app", "filter": {"tagStatus": "UNTAGGED"}});
    let untagged = session.ok("DescribeImages", untagged)["imageDetails"].clone();
    assert_eq!((&untagged[0]["imageDigest"], untagged[0].get("imageTags")), (&json!(old), None));
}

#[test]
fn images_that_are_not_there_are_named() {
    let mut session = Session::with_app();
    let (one, two) = (session.push("1", Some("v1")), session.push("2", Some("v2")));
    let missing = Digest::compute(b"x").to_string();
    let refused = session.refused("DescribeImages", json!({"repositoryName": "app", "imageIds": [{"imageTag": "v3"}]}));
    assert_eq!(
        refused,
        "ImageNotFoundException: The image with imageId {imageDigest:'null', imageTag:'v3'} does not exist within the repository with \
         name 'app' in the registry with id '123456789012'"
    );
    let failures = |session: &mut Session, operation: &str, id: Value| {
        let answer = session.ok(operation, json!({"repositoryName": "app", "imageIds": [id]}));
        text(&answer["failures"][0]["failureCode"])
    };
    for operation in ["BatchGetImage", "BatchDeleteImage"] {
        for (id, code) in [
            (json!({}), "MissingDigestAndTag"),
            (json!({"imageTag": "v3"}), "ImageNotFound"),
            (json!({"imageDigest": missing}), "ImageNotFound"),
            (json!({"imageTag": "a b"}), "InvalidImageTag"),
            (json!({"imageDigest": "sha256:1"}), "InvalidImageDigest"),
            (json!({"imageDigest": one, "imageTag": "v2"}), "ImageTagDoesNotMatchDigest"),
        ] {
            assert_eq!(failures(&mut session, operation, id.clone()), code, "{operation} {id}");
        }
    }
    let accepted =
        json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}], "acceptedMediaTypes": ["text/plain"]});
    assert_eq!(session.ok("BatchGetImage", accepted)["failures"][0]["failureCode"], "ImageNotFound");
    let both = json!({"repositoryName": "app", "imageIds": [{"imageDigest": two, "imageTag": "v2"}]});
    assert_eq!(session.ok("BatchGetImage", both)["images"].as_array().unwrap().len(), 1);
}

#[test]
fn paging_and_names_of_images_exclude_each_other() {
    let mut session = Session::with_app();
    for number in 0..5 {
        session.push(&number.to_string(), Some(&format!("v{number}")));
    }
    for (operation, member) in [("ListImages", "imageIds"), ("DescribeImages", "imageDetails")] {
        let (mut seen, mut token) = (Vec::new(), Value::Null);
        for count in [2, 2, 1] {
            let page = session.ok(operation, json!({"repositoryName": "app", "maxResults": 2, "nextToken": token}));
            assert_eq!(page[member].as_array().unwrap().len(), count, "{operation}");
            seen.extend(page[member].as_array().unwrap().iter().map(|entry| text(&entry["imageDigest"])));
            token = page["nextToken"].clone();
        }
        seen.dedup();
        assert_eq!((seen.len(), token), (5, Value::Null), "{operation}");
    }
    let ids = json!([{"imageTag": "v1"}]);
    for operation in ["DescribeImages", "GetLifecyclePolicyPreview"] {
        for extra in [json!({"maxResults": 5}), json!({"nextToken": "eA"})] {
            let mut body = json!({"repositoryName": "app", "imageIds": ids});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let refused = session.refused(operation, body);
            assert!(refused.contains("cannot be used when imageIds are specified"), "{operation}: {refused}");
        }
    }
    let many = json!({"repositoryName": "app", "imageIds": vec![json!({"imageTag": "v1"}); 101]});
    assert!(session.refused("BatchGetImage", many).contains("'Member must have length 1 to 100'"));
}

#[test]
fn images_are_deleted_by_tag_and_by_digest() {
    let mut session = Session::with_app();
    let digest = session.push("1", Some("v1"));
    assert_eq!(session.push("1", Some("v2")), digest);
    let other = session.push("2", Some("v3"));
    let delete = |session: &mut Session, ids: Value| {
        session.ok("BatchDeleteImage", json!({"repositoryName": "app", "imageIds": ids}))
    };
    let answer = delete(&mut session, json!([{"imageTag": "v1"}]));
    assert_eq!(answer, json!({"imageIds": [{"imageDigest": digest, "imageTag": "v1"}], "failures": []}));
    let image = json!({"repositoryName": "app", "imageIds": [{"imageDigest": digest}]});
    assert_eq!(session.ok("DescribeImages", image.clone())["imageDetails"][0]["imageTags"], json!(["v2"]));
    delete(&mut session, json!([{"imageTag": "v2"}]));
    assert!(session.refused("DescribeImages", image).starts_with("ImageNotFoundException"));
    let answer = delete(&mut session, json!([{"imageDigest": other}, {"imageDigest": digest}]));
    assert_eq!(answer["imageIds"], json!([{"imageDigest": other, "imageTag": "v3"}]));
    assert_eq!(answer["failures"][0]["failureCode"], "ImageNotFound");
    session.push("1", None);
    let refused = session.refused("DeleteRepository", json!({"repositoryName": "app"}));
    assert_eq!(
        refused,
        "RepositoryNotEmptyException: The repository with name 'app' in registry with id '123456789012' cannot be deleted because it still \
         contains images"
    );
    session.ok("DeleteRepository", json!({"repositoryName": "app", "force": true}));
}

/// A request may name an index and its images in any order.
#[test]
fn an_index_and_its_images_are_deleted_together() {
    let mut session = Session::with_app();
    let (one, two) = (session.push("1", None), session.push("2", None));
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"digest": one, "size": 1}, {"digest": two, "size": 1}],
    });
    let put = json!({"repositoryName": "app", "imageManifest": index.to_string(), "imageTag": "all"});
    let list = text(&session.ok("PutImage", put)["image"]["imageId"]["imageDigest"]);
    let delete = |session: &mut Session, ids: Value| {
        session.ok("BatchDeleteImage", json!({"repositoryName": "app", "imageIds": ids}))
    };
    let failed = delete(&mut session, json!([{"imageDigest": one}]));
    let failure = &failed["failures"][0];
    assert_eq!(failure["failureCode"], "ImageReferencedByManifestList");
    assert_eq!(text(&failure["failureReason"]), format!("Requested image referenced by manifest list: [{list}]"));
    let answer = delete(&mut session, json!([{"imageDigest": one}, {"imageDigest": list}, {"imageDigest": two}]));
    assert_eq!((answer["imageIds"].as_array().unwrap().len(), &answer["failures"]), (3, &json!([])));
}

#[test]
fn a_wrong_image_is_refused() {
    let mut session = Session::with_app();
    let digest = session.push("1", Some("v1"));
    let body = json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}]});
    let manifest = text(&session.ok("BatchGetImage", body)["images"][0]["imageManifest"]);
    let put = |session: &mut Session, members: Value| {
        let mut body = json!({"repositoryName": "app", "imageManifest": manifest});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        session.refused("PutImage", body)
    };
    let exists = format!(
        "ImageAlreadyExistsException: Image with digest '{digest}' and tag 'v1' already exists in the repository with name 'app' in registry \
         with id '123456789012'"
    );
    for (members, reason) in [
        (json!({"imageTag": "v1"}), exists.as_str()),
        (json!({}), "ImageAlreadyExistsException"),
        (json!({"imageTag": "a/b"}), "InvalidParameterException"),
        (json!({"imageDigest": "x"}), "'imageDigest' failed to satisfy constraint"),
        (json!({"imageDigest": Digest::compute(b"x")}), "ImageDigestDoesNotMatchException"),
        (json!({"imageManifest": "{"}), "'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax"),
        (json!({"imageManifest": 5}), "SerializationException: imageManifest: it must be a text."),
        (json!({"imageManifest": null}), "'imageManifest' failed to satisfy constraint: 'Member must not be null'"),
        (json!({"imageManifestMediaType": "text/html"}), "is not that of the manifest"),
        (json!({"repositoryName": "none"}), "RepositoryNotFoundException"),
        (
            json!({"repositoryName": "../x"}),
            "'repositoryName' failed to satisfy constraint: 'must satisfy regular expression",
        ),
        (json!({"registryId": "1"}), "'registryId' failed to satisfy constraint"),
    ] {
        let refused = put(&mut session, members.clone());
        assert!(refused.contains(reason), "{members}: {refused}");
    }
}

#[test]
fn a_repository_policy_lets_another_account_pull() {
    let mut session = Session::with_app();
    session.push("1", Some("v1"));
    let other = Principal::role("arn:aws:iam::210987654321:role/ecsInstanceRole", "i-1", OWN);
    let pull = json!({"registryId": OWN, "repositoryName": "app", "imageIds": [{"imageTag": "v1"}]});
    let refused = session.call_as(&other, "BatchGetImage", pull.clone()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "AccessDeniedException: User: arn:aws:sts::210987654321:assumed-role/ecsInstanceRole/i-1 is not authorized to perform: \
         ecr:BatchGetImage on resource: arn:aws:ecr:us-west-2:123456789012:repository/app because no resource-based policy allows the \
         ecr:BatchGetImage action"
    );
    let policy = json!({"Version": "2008-10-17", "Statement": [{
        "Sid": "RemoteAccountAccess", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::210987654321:root"},
        "Action": ["ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability"],
    }]})
    .to_string();
    let name = json!({"repositoryName": "app"});
    let missing = session.refused("GetRepositoryPolicy", name.clone());
    assert_eq!(
        missing,
        "RepositoryPolicyNotFoundException: Repository policy does not exist for the repository with name 'app' in the registry with id \
         '123456789012'"
    );
    let set = session.ok("SetRepositoryPolicy", json!({"repositoryName": "app", "policyText": policy}));
    assert_eq!(set, json!({"registryId": OWN, "repositoryName": "app", "policyText": policy}));
    assert_eq!(session.ok("GetRepositoryPolicy", name.clone()), set);
    assert!(session.call_as(&other, "BatchGetImage", pull.clone()).is_ok());
    let push = json!({"registryId": OWN, "repositoryName": "app", "imageManifest": "{}"});
    assert_eq!(session.call_as(&other, "PutImage", push).unwrap_err().code, "AccessDeniedException");
    assert_eq!(session.ok("DeleteRepositoryPolicy", name), set);
    assert_eq!(session.call_as(&other, "BatchGetImage", pull).unwrap_err().code, "AccessDeniedException");
    let shown = session.state.actions.show();
    let outcomes: Vec<String> = shown["actions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["principal"] == other.identity_arn())
        .map(|entry| format!("{} {} {}", text(&entry["action"]), text(&entry["outcome"]), entry["count"]))
        .collect();
    assert_eq!(outcomes, ["ecr:BatchGetImage denied 2", "ecr:BatchGetImage allowed 1", "ecr:PutImage denied 1"]);
}

#[test]
fn a_policy_that_locks_its_author_out_needs_force() {
    let mut session = Session::with_app();
    let policy =
        json!({"Statement": {"Effect": "Deny", "Principal": "*", "Action": "ecr:SetRepositoryPolicy"}}).to_string();
    let mut body = json!({"repositoryName": "app", "policyText": policy});
    let refused = session.refused("SetRepositoryPolicy", body.clone());
    assert!(refused.contains("'PolicyText'") && refused.contains("Use force"), "{refused}");
    body["force"] = json!(true);
    session.ok("SetRepositoryPolicy", body.clone());
    let refused = session.refused("SetRepositoryPolicy", body);
    assert!(refused.ends_with("with an explicit deny in a resource-based policy"), "{refused}");
    session.ok("DeleteRepositoryPolicy", json!({"repositoryName": "app"}));
    for (policy, reason) in [
        ("{", "Invalid repository policy provided: the document is not JSON"),
        (&*" ".repeat(10_241), "'Member must have length less than or equal to 10240'"),
    ] {
        let refused = session.refused("SetRepositoryPolicy", json!({"repositoryName": "app", "policyText": policy}));
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn lifecycle_policies_are_previewed_and_kept() {
    let mut session = Session::with_app();
    let name = json!({"repositoryName": "app"});
    for operation in ["GetLifecyclePolicy", "DeleteLifecyclePolicy", "StartLifecyclePolicyPreview"] {
        assert_eq!(
            session.refused(operation, name.clone()),
            "LifecyclePolicyNotFoundException: Lifecycle policy does not exist for the repository with name 'app' in the registry with id \
             '123456789012'"
        );
    }
    assert!(
        session
            .refused("GetLifecyclePolicyPreview", name.clone())
            .starts_with("LifecyclePolicyPreviewNotFoundException")
    );
    let orphan = session.push("1", Some("latest"));
    session.push("2", Some("latest"));
    session.state.ecr_ahead = 8 * 24 * 3600;
    let body = json!({"repositoryName": "app", "lifecyclePolicyText": untagged()});
    let started = session.ok("StartLifecyclePolicyPreview", body.clone());
    assert_eq!((&started["status"], &started["lifecyclePolicyText"]), (&json!("IN_PROGRESS"), &json!(untagged())));
    let preview = session.ok("GetLifecyclePolicyPreview", name.clone());
    assert_eq!((&preview["status"], &preview["summary"]), (&json!("COMPLETE"), &json!({"expiringImageTotalCount": 1})));
    let entry = preview["previewResults"][0].clone();
    assert_eq!(
        (&entry["imageDigest"], &entry["action"], &entry["appliedRulePriority"]),
        (&json!(orphan), &json!({"type": "EXPIRE"}), &json!(10))
    );
    assert_eq!(session.ok("ListImages", name.clone())["imageIds"].as_array().unwrap().len(), 2, "nothing has expired");
    session.ok("PutLifecyclePolicy", body);
    assert_eq!(session.ok("GetLifecyclePolicy", name.clone())["lifecyclePolicyText"], untagged());
    let time = session.state.ecr_time();
    session.state.ecr.expire(time);
    assert_eq!(session.ok("ListImages", name.clone())["imageIds"].as_array().unwrap().len(), 1);
    assert!(session.ok("GetLifecyclePolicy", name.clone())["lastEvaluatedAt"].as_f64().unwrap() > 1.7e9);
    assert_eq!(session.ok("DeleteLifecyclePolicy", name.clone())["lifecyclePolicyText"], untagged());
    session.state.ecr_ahead += 25 * 3600;
    let late = session.ok("GetLifecyclePolicyPreview", name);
    assert_eq!((&late["status"], &late["previewResults"]), (&json!("EXPIRED"), &json!([])));
}

#[test]
fn a_preview_has_pages_of_a_hundred() {
    let mut session = Session::with_app();
    for number in 0..203 {
        session
            .push(&number.to_string(), (number % 2 == 0).then_some("t").map(|tag| format!("{tag}{number}")).as_deref());
    }
    session.state.ecr_ahead = 8 * 24 * 3600;
    let any =
        rule(&json!({"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7}));
    session.ok("StartLifecyclePolicyPreview", json!({"repositoryName": "app", "lifecyclePolicyText": any}));
    let (mut sizes, mut token) = (Vec::new(), Value::Null);
    loop {
        let page = session.ok("GetLifecyclePolicyPreview", json!({"repositoryName": "app", "nextToken": token}));
        assert_eq!(page["summary"]["expiringImageTotalCount"], 203);
        sizes.push(page["previewResults"].as_array().unwrap().len());
        token = page["nextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(sizes, [100, 100, 3]);
    let too_many = session.refused("GetLifecyclePolicyPreview", json!({"repositoryName": "app", "maxResults": 101}));
    assert!(too_many.contains("between 1 and 100"), "{too_many}");
    let filtered = json!({"repositoryName": "app", "filter": {"tagStatus": "TAGGED"}, "imageIds": [{"imageTag": "t0"}, {"imageTag": "t1"}]});
    assert_eq!(session.ok("GetLifecyclePolicyPreview", filtered)["previewResults"].as_array().unwrap().len(), 1);
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
    session.state.ecr_ahead = 13 * 3600;
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
fn layers_are_found_by_digest() {
    let mut session = Session::with_app();
    session.push("1", None);
    let (known, unknown) = (Digest::compute(b"1").to_string(), Digest::compute(b"x").to_string());
    let body = json!({"repositoryName": "app", "layerDigests": [known, unknown, "sha256:1", ""]});
    let answer = session.ok("BatchCheckLayerAvailability", body);
    assert_eq!(answer["layers"][0]["layerAvailability"], "AVAILABLE");
    assert_eq!(
        (&answer["layers"][0]["layerSize"], &answer["layers"][1]["layerAvailability"]),
        (&json!(100), &json!("UNAVAILABLE"))
    );
    let codes: Vec<&Value> =
        answer["failures"].as_array().unwrap().iter().map(|failure| &failure["failureCode"]).collect();
    assert_eq!(codes, ["InvalidLayerDigest", "MissingLayerDigest"]);
    let url = session.ok("GetDownloadUrlForLayer", json!({"repositoryName": "app", "layerDigest": known}));
    let url = text(&url["downloadUrl"]);
    let start = format!("http://127.0.0.1:14566/v2/app/blobs/{known}?expires=");
    let (expires, signature) = url.strip_prefix(&start).and_then(|rest| rest.split_once("&signature=")).unwrap();
    let path = format!("{OWN}/app/{known}");
    assert!(session.state.site.keys.is_address_signature(&path, expires.parse().unwrap(), signature), "{url}");
    let refused = session.refused("GetDownloadUrlForLayer", json!({"repositoryName": "app", "layerDigest": unknown}));
    assert!(refused.starts_with("LayersNotFoundException"), "{refused}");
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
    let pull = json!({"repositoryName": "ecr-public/nginx", "imageIds": [{"imageTag": "latest"}]});
    assert!(session.refused("BatchGetImage", pull).starts_with("UnableToGetUpstreamImageException"));
}

#[test]
fn the_registry_is_described() {
    let answer = Session::new().ok("DescribeRegistry", json!({}));
    assert_eq!(answer, json!({"registryId": OWN, "replicationConfiguration": {"rules": []}}));
}
