//! Who may do what: accounts, users, roles and services, and the reasons that the CLI prints.

use super::{Keys, OTHER, OWN, Session, file_url};
use serde_json::{Value, json};

/// The policy of AWS's guide for a pull from another account.
fn remote_pull() -> String {
    json!({"Version": "2012-10-17", "Statement": [{
        "Sid": "RemoteAccountAccess",
        "Effect": "Allow",
        "Principal": {"AWS": format!("arn:aws:iam::{OTHER}:root")},
        "Action": ["ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability"],
    }]})
    .to_string()
}

/// A session with the repository `app` and an image in it.
async fn session() -> Option<Session> {
    let session = Session::start().await?;
    session.ok("create-repository --repository-name app").await;
    session.push("app", "1", "latest").await;
    Some(session)
}

fn pull(account: &str) -> String {
    format!("batch-get-image --registry-id {account} --repository-name app --image-ids imageTag=latest")
}

#[tokio::test]
async fn another_account_needs_both_sides() {
    let Some(session) = session().await else { return };
    let identity = json!({"Statement": [
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": format!("arn:aws:ecr:us-west-2:{OWN}:repository/app")},
    ]});
    let bob = session.post("identities", json!({"user": "bob", "account": OTHER, "policy": identity})).await;
    let bob = Keys::read(&bob);
    let denied = format!(
        "An error occurred (AccessDeniedException) when calling the BatchGetImage operation: User: arn:aws:iam::{OTHER}:user/bob is not \
         authorized to perform: ecr:BatchGetImage on resource: arn:aws:ecr:us-west-2:{OWN}:repository/app because no resource-based policy \
         allows the ecr:BatchGetImage action"
    );
    assert_eq!(session.aws_as(&bob, &pull(OWN)).await, Err(denied.clone()));
    let file = file_url(&session.file("policy.json", remote_pull()));
    session.ok(&format!("set-repository-policy --repository-name app --policy-text {file}")).await;
    assert!(session.aws_as(&bob, &pull(OWN)).await.is_ok());
    assert!(session.aws_as(&session.administrator(OTHER), &pull(OWN)).await.is_ok());
    let nothing = json!({"Statement": [{"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}]});
    session.post("identities", json!({"user": "bob", "account": OTHER, "policy": nothing})).await;
    let other_side = denied.replace("no resource-based policy", "no identity-based policy");
    assert_eq!(session.aws_as(&bob, &pull(OWN)).await, Err(other_side));
    let text = session.ok("get-repository-policy --repository-name app").await["policyText"].clone();
    assert_eq!(text, json!(remote_pull()));
    session.ok("delete-repository-policy --repository-name app").await;
    let refused = session.aws_as(&session.administrator(OTHER), &pull(OWN)).await.unwrap_err();
    assert_eq!(refused, denied.replace("user/bob", "user/administrator"));
}

#[tokio::test]
async fn an_explicit_deny_wins() {
    let Some(session) = session().await else { return };
    let policy = json!({"Statement": [
        {"Effect": "Allow", "Action": "ecr:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "ecr:Batch*", "Resource": "*"},
    ]});
    let alice = Keys::read(&session.post("identities", json!({"user": "alice", "policy": policy})).await);
    let refused = session.aws_as(&alice, &pull(OWN)).await.unwrap_err();
    assert!(refused.ends_with("repository/app with an explicit deny in an identity-based policy"), "{refused}");
    assert!(session.aws_as(&alice, "list-images --repository-name app").await.is_ok());
    let deny = json!({"Statement": {"Effect": "Deny", "Principal": "*", "Action": "ecr:ListImages"}}).to_string();
    let keys = session.administrator("local");
    session.run(&keys, &["set-repository-policy", "--repository-name", "app", "--policy-text", &deny]).await.unwrap();
    for keys in [alice, keys] {
        let refused = session.aws_as(&keys, "list-images --repository-name app").await.unwrap_err();
        assert!(refused.ends_with("repository/app with an explicit deny in a resource-based policy"), "{refused}");
    }
}

/// CodeBuild, on behalf of a project.
#[tokio::test]
async fn a_service_is_let_in_by_its_source() {
    let Some(session) = session().await else { return };
    let project = |name: &str| format!("arn:aws:codebuild:us-west-2:{OWN}:project/{name}");
    let keys = async |name: &str, account: &str| {
        let body = json!({"service": "codebuild.amazonaws.com", "sourceAccount": account, "sourceArn": project(name)});
        Keys::read(&session.post("sessions", body).await)
    };
    let (app, other) = (keys("app", OWN).await, keys("other", OWN).await);
    let refused = session.aws_as(&app, &pull(OWN)).await.unwrap_err();
    assert!(
        refused.contains("User: codebuild.amazonaws.com is not authorized to perform: ecr:BatchGetImage"),
        "{refused}"
    );
    let policy = json!({"Statement": {
        "Effect": "Allow", "Principal": {"Service": "codebuild.amazonaws.com"}, "Action": "ecr:BatchGetImage",
        "Condition": {"StringEquals": {"aws:SourceAccount": OWN}, "ArnLike": {"aws:SourceArn": project("app")}},
    }})
    .to_string();
    let own = session.administrator("local");
    session.run(&own, &["set-repository-policy", "--repository-name", "app", "--policy-text", &policy]).await.unwrap();
    assert!(session.aws_as(&app, &pull(OWN)).await.is_ok());
    for keys in [other, keys("app", OTHER).await] {
        let refused = session.aws_as(&keys, &pull(OWN)).await.unwrap_err();
        assert!(refused.ends_with("because no resource-based policy allows the ecr:BatchGetImage action"), "{refused}");
    }
    assert!(session.aws_as(&app, "get-login-password").await.is_ok());
}

#[tokio::test]
async fn a_role_with_a_policy_and_what_it_did() {
    let Some(session) = session().await else { return };
    let role = format!("arn:aws:iam::{OWN}:role/ecsInstanceRole");
    let keys = Keys::read(&session.post("sessions", json!({"role": role, "session": "i-1"})).await);
    assert!(session.aws_as(&keys, &pull(OWN)).await.is_ok(), "a role without a policy may do everything");
    session.post("actions/clear", json!({})).await;
    let policy = json!({"Statement": [
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": ["ecr:BatchGetImage"], "Resource": format!("arn:aws:ecr:us-west-2:{OWN}:repository/app")},
    ]});
    session.post("identities", json!({"role": "ecsInstanceRole", "policy": policy})).await;
    assert!(session.aws_as(&keys, "get-login-password").await.is_ok());
    assert!(session.aws_as(&keys, &pull(OWN)).await.is_ok());
    let refused = session.aws_as(&keys, "describe-images --repository-name app").await.unwrap_err();
    assert_eq!(
        refused,
        format!(
            "An error occurred (AccessDeniedException) when calling the DescribeImages operation: User: \
             arn:aws:sts::{OWN}:assumed-role/ecsInstanceRole/i-1 is not authorized to perform: ecr:DescribeImages on resource: \
             arn:aws:ecr:us-west-2:{OWN}:repository/app because no identity-based policy allows the ecr:DescribeImages action"
        )
    );
    let shown = session.get("actions").await;
    let actions: Vec<String> = shown["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |member: &str| entry[member].as_str().unwrap();
            assert_eq!(text("principal"), role);
            format!("{} {} {}", text("action"), text("resource"), text("outcome"))
        })
        .collect();
    let arn = format!("arn:aws:ecr:us-west-2:{OWN}:repository/app");
    assert_eq!(
        actions,
        [
            format!("ecr:BatchGetImage {arn} allowed"),
            format!("ecr:DescribeImages {arn} denied"),
            "ecr:GetAuthorizationToken * allowed".to_owned(),
        ]
    );
    assert_eq!(shown["dropped"], 0);
}

#[tokio::test]
async fn a_removed_user_is_nobody() {
    let Some(session) = session().await else { return };
    let policy = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let alice = session.post("identities", json!({"user": "alice", "policy": policy})).await;
    let (keys, arn) = (Keys::read(&alice), alice["arn"].clone());
    let Ok(Value::String(password)) = session.aws_as(&keys, "get-login-password").await else { panic!("no password") };
    let listed = session.get("identities").await["identities"][0].clone();
    assert_eq!((&listed["arn"], &listed["policy"]), (&arn, &policy));
    session.post("identities/remove", json!({"arn": arn})).await;
    let refused = session.aws_as(&keys, "describe-repositories").await.unwrap_err();
    assert!(refused.contains("(UnrecognizedClientException)") && refused.contains("security token"), "{refused}");
    let request = crate::agent::http().get(format!("{}/v2/app/tags/list", session.server.url()));
    let answer = request.basic_auth("AWS", Some(password)).send().await.unwrap();
    assert_eq!(answer.status(), 401, "its token is of no use any more");
    let other = Keys { secret: format!("{}x", keys.secret), ..keys };
    let refused = session.aws_as(&other, "describe-repositories").await.unwrap_err();
    assert!(refused.contains("(InvalidSignatureException)"), "{refused}");
}
