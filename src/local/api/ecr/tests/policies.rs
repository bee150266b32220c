//! Calls about the policies of repositories, and about lifecycle policies.

use super::{OWN, Session, text};
use crate::ecr::Principal;
use serde_json::{Value, json};

fn rule(selection: &Value) -> String {
    json!({"rules": [{"rulePriority": 10, "description": "Remove orphaned images after a week", "selection": selection,
        "action": {"type": "expire"}}]})
    .to_string()
}

pub(super) fn untagged() -> String {
    rule(&json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7}))
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
    session.state.set_clocks(0, 8 * 24 * 3600);
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
    session.state.set_clocks(0, session.state.ecr_ahead() + 25 * 3600);
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
    session.state.set_clocks(0, 8 * 24 * 3600);
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
