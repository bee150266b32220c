//! Lifecycle policies: a preview, and for real on a clock that is moved.

use super::{OWN, Session, file_url, lines};
use serde_json::json;

/// The policy of a repository whose orphaned images expire after a week.
const ORPHANED: &str = r#"{"rules": [{
    "rulePriority": 10,
    "description": "Remove orphaned images after a week",
    "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7},
    "action": {"type": "expire"}
}]}"#;

#[tokio::test]
async fn orphaned_images_expire_after_a_week() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    let orphan = session.push("app", "1", "latest").await;
    let latest = session.push("app", "2", "latest").await;
    let file = file_url(&session.file("lifecycle.json", ORPHANED));
    session.post("clock", json!({"ecrAheadSeconds": 7 * 24 * 3600 + 60})).await;
    let started = session
        .ok(&format!("start-lifecycle-policy-preview --repository-name app --lifecycle-policy-text {file}"))
        .await;
    assert_eq!(started["status"], "IN_PROGRESS");
    let preview = session.ok("get-lifecycle-policy-preview --repository-name app").await;
    assert_eq!((&preview["status"], &preview["summary"]["expiringImageTotalCount"]), (&json!("COMPLETE"), &json!(1)));
    let result = &preview["previewResults"][0];
    assert_eq!(
        (&result["imageDigest"], &result["action"]["type"], &result["appliedRulePriority"]),
        (&json!(orphan), &json!("EXPIRE"), &json!(10))
    );
    session.ok(&format!("put-lifecycle-policy --repository-name app --lifecycle-policy-text {file}")).await;
    assert_eq!(session.ok("get-lifecycle-policy --repository-name app").await["lifecyclePolicyText"], ORPHANED);
    let images = || async { lines(&session.ok("list-images --repository-name app").await["imageIds"], "imageDigest") };
    assert_eq!(images().await.len(), 2, "policies run on the hour");
    session.post("clock", json!({"ecrAheadSeconds": 7 * 24 * 3600 + 3600})).await;
    assert_eq!(images().await, [latest]);
    session.ok("delete-lifecycle-policy --repository-name app").await;
    let refused = session.refused("get-lifecycle-policy --repository-name app").await;
    assert_eq!(
        refused,
        format!(
            "An error occurred (LifecyclePolicyNotFoundException) when calling the GetLifecyclePolicy operation: Lifecycle policy does not \
             exist for the repository with name 'app' in the registry with id '{OWN}'"
        )
    );
}

#[tokio::test]
async fn a_wrong_lifecycle_policy_is_refused_with_its_fault() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    for (name, text, reason) in [
        (
            "1.json",
            ORPHANED.replace("countUnit", "countUnits"),
            r#"which are not allowed by the schema: (["countUnits"])"#,
        ),
        ("2.json", ORPHANED.replace("\"untagged\"", "\"tagged\""), "needs a tagPrefixList or a tagPatternList"),
        ("3.json", ORPHANED.replace("10,", "10;"), "Could not map policyString into LifecyclePolicy."),
    ] {
        let file = file_url(&session.file(name, text));
        let refused = session
            .refused(&format!("put-lifecycle-policy --repository-name app --lifecycle-policy-text {file}"))
            .await;
        let start = "An error occurred (InvalidParameterException) when calling the PutLifecyclePolicy operation: Invalid parameter at \
                     'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: ";
        assert!(refused.starts_with(start) && refused.contains(reason), "{refused}");
    }
}
