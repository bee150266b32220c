//! What policies decide, and which ones are refused.

use super::document::{Decision, MAX_POLICY, Policy};
use super::request::Request;
use crate::ecr::principal::Principal;
use serde_json::{Value, json};

const ACCOUNT: &str = "123456789012";
const RESOURCE: &str = "arn:aws:ecr:us-west-2:123456789012:repository/team/app";

fn decide(policy: &Policy, principal: &Principal, action: &str, resource: &str) -> Decision {
    let cluster = Some("arn:aws:ecs:us-west-2:123456789012:cluster/web");
    let request = Request::new(principal, action, resource, ACCOUNT);
    policy.decide(&Request { cluster, creation: Some("RegisterContainerInstance"), ..request })
}

fn identity(statement: &Value) -> Policy {
    Policy::for_identity(&json!({"Version": "2012-10-17", "Statement": statement}).to_string()).unwrap()
}

fn repository(statement: &Value) -> Policy {
    Policy::for_repository(&json!({"Version": "2012-10-17", "Statement": statement}).to_string()).unwrap()
}

#[test]
fn actions_and_resources_have_wildcards_and_negations() {
    let user = Principal::user(ACCOUNT, "alice");
    for (statement, action, resource, wanted) in [
        (json!({"Effect": "Allow", "Action": "*", "Resource": "*"}), "ecr:PutImage", RESOURCE, Decision::Allowed),
        (json!({"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}), "ecs:RunTask", "*", Decision::NotMentioned),
        (
            json!({"Effect": "Allow", "Action": "ECR:putimage", "Resource": RESOURCE}),
            "ecr:PutImage",
            RESOURCE,
            Decision::Allowed,
        ),
        (
            json!({"Effect": "Allow", "Action": ["ecr:Get*", "ecr:Batch?etImage"], "Resource": "*"}),
            "ecr:BatchGetImage",
            RESOURCE,
            Decision::Allowed,
        ),
        (
            json!({"Effect": "Allow", "NotAction": "ecr:Put*", "Resource": "*"}),
            "ecr:PutImage",
            RESOURCE,
            Decision::NotMentioned,
        ),
        (
            json!({"Effect": "Allow", "NotAction": "ecr:Put*", "Resource": "*"}),
            "ecr:ListImages",
            RESOURCE,
            Decision::Allowed,
        ),
        (
            json!({"Effect": "Allow", "Action": "ecr:*", "Resource": "arn:aws:ecr:*:*:repository/team/*"}),
            "ecr:PutImage",
            RESOURCE,
            Decision::Allowed,
        ),
        (
            json!({"Effect": "Allow", "Action": "ecr:*", "Resource": "arn:aws:ecr:*:*:repository/other"}),
            "ecr:PutImage",
            RESOURCE,
            Decision::NotMentioned,
        ),
        (
            json!({"Effect": "Allow", "Action": "ecr:*", "NotResource": RESOURCE}),
            "ecr:PutImage",
            RESOURCE,
            Decision::NotMentioned,
        ),
        // GetAuthorizationToken has no resource, so a policy about repositories does not allow it.
        (
            json!({"Effect": "Allow", "Action": "ecr:*", "Resource": "arn:aws:ecr:*:*:repository/*"}),
            "ecr:GetAuthorizationToken",
            "*",
            Decision::NotMentioned,
        ),
        (
            json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}, {"Effect": "Deny", "Action": "ecr:Put*", "Resource": "*"}]),
            "ecr:PutImage",
            RESOURCE,
            Decision::Denied,
        ),
        (
            json!([{"Effect": "Deny", "Action": "ecr:Put*", "Resource": "*"}, {"Effect": "Allow", "Action": "*", "Resource": "*"}]),
            "ecr:PutImage",
            RESOURCE,
            Decision::Denied,
        ),
        (
            json!([{"Effect": "Deny", "Action": "ecr:Put*", "Resource": "*"}, {"Effect": "Allow", "Action": "*", "Resource": "*"}]),
            "ecr:ListImages",
            RESOURCE,
            Decision::Allowed,
        ),
    ] {
        assert_eq!(decide(&identity(&statement), &user, action, resource), wanted, "{statement} {action}");
    }
}

#[test]
fn principals_are_named_by_account_arn_and_service() {
    let role = Principal::role("arn:aws:iam::123456789012:role/team/web", "i-1", ACCOUNT);
    let build = Principal::service("codebuild.amazonaws.com", None, None);
    for (principal, caller, wanted) in [
        (json!("*"), &role, Decision::Allowed),
        (json!({"AWS": "*"}), &role, Decision::Allowed),
        (json!({"AWS": ACCOUNT}), &role, Decision::Delegated),
        (json!({"AWS": "arn:aws:iam::123456789012:root"}), &role, Decision::Delegated),
        (
            json!({"AWS": ["arn:aws:iam::210987654321:root", "arn:aws:iam::123456789012:role/team/web"]}),
            &role,
            Decision::Allowed,
        ),
        (json!({"AWS": "arn:aws:sts::123456789012:assumed-role/web/i-1"}), &role, Decision::Allowed),
        (json!({"AWS": "arn:aws:sts::123456789012:assumed-role/web/i-2"}), &role, Decision::NotMentioned),
        (json!({"AWS": "arn:aws:iam::123456789012:user/web"}), &role, Decision::NotMentioned),
        (json!({"AWS": "210987654321"}), &role, Decision::NotMentioned),
        (json!({"Service": "codebuild.amazonaws.com"}), &role, Decision::NotMentioned),
        (json!({"Service": "codebuild.amazonaws.com"}), &build, Decision::Allowed),
        (
            json!({"Service": ["ecs.amazonaws.com", "codebuild.amazonaws.com"], "AWS": ACCOUNT}),
            &build,
            Decision::Allowed,
        ),
        (json!({"Service": "ecs.amazonaws.com"}), &build, Decision::NotMentioned),
    ] {
        let policy = repository(&json!({"Effect": "Allow", "Principal": principal, "Action": "ecr:BatchGetImage"}));
        assert_eq!(decide(&policy, caller, "ecr:BatchGetImage", RESOURCE), wanted, "{principal}");
    }
}

#[test]
fn a_deny_for_an_account_concerns_all_its_callers() {
    let statement = json!({"Effect": "Deny", "Principal": {"AWS": ACCOUNT}, "Action": "ecr:*"});
    let user = Principal::administrator(ACCOUNT);
    assert_eq!(decide(&repository(&statement), &user, "ecr:PutImage", RESOURCE), Decision::Denied);
}

#[test]
fn conditions_compare_facts() {
    let project = "arn:aws:codebuild:us-west-2:123456789012:project/app";
    let build = Principal::service("codebuild.amazonaws.com", Some(ACCOUNT), Some(project));
    let role = Principal::role("arn:aws:iam::123456789012:role/web", "i-1", ACCOUNT);
    for (condition, caller, holds) in [
        (json!({"StringEquals": {"aws:SourceAccount": ACCOUNT}}), &build, true),
        (json!({"StringEquals": {"aws:SourceAccount": "210987654321"}}), &build, false),
        (json!({"StringEquals": {"aws:sourceaccount": ["1", ACCOUNT]}}), &build, true),
        (json!({"ArnLike": {"aws:SourceArn": "arn:aws:codebuild:*:123456789012:project/*"}}), &build, true),
        (json!({"ArnEquals": {"aws:SourceArn": project}}), &build, true),
        (
            json!({"ArnEquals": {"aws:SourceArn": "arn:aws:codebuild:us-west-2:123456789012:project/other"}}),
            &build,
            false,
        ),
        (json!({"StringLike": {"aws:SourceArn": "*project/app"}}), &build, true),
        // Without the fact a comparison fails, a negated one holds, and IfExists holds.
        (json!({"ArnLike": {"aws:SourceArn": "arn:aws:*:*:*:*"}}), &role, false),
        (json!({"ArnNotLike": {"aws:SourceArn": "arn:aws:*:*:*:*"}}), &role, true),
        (json!({"ArnLikeIfExists": {"aws:SourceArn": "arn:aws:s3:*:*:*"}}), &role, true),
        (json!({"Null": {"aws:SourceArn": "true"}}), &role, true),
        (json!({"Null": {"aws:SourceArn": false}}), &role, false),
        (json!({"StringEquals": {"aws:PrincipalOrgID": "o-1"}}), &role, false),
        (json!({"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}), &role, true),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/w*"}}), &role, true),
        (json!({"StringNotEquals": {"aws:PrincipalAccount": ACCOUNT}}), &role, false),
        (json!({"Bool": {"aws:PrincipalIsAWSService": "true"}}), &build, true),
        (json!({"Bool": {"aws:PrincipalIsAWSService": true}}), &role, false),
        (json!({"StringEqualsIgnoreCase": {"aws:PrincipalServiceName": "CodeBuild.amazonaws.com"}}), &build, true),
        (json!({"ArnEquals": {"ecs:cluster": "arn:aws:ecs:us-west-2:123456789012:cluster/web"}}), &role, true),
        (json!({"StringEquals": {"aws:ResourceAccount": ACCOUNT}}), &role, true),
        (json!({"StringEquals": {"ecs:CreateAction": "RegisterContainerInstance"}}), &role, true),
        (json!({"StringEquals": {"kms:ViaService": "ssm.us-west-2.amazonaws.com"}}), &role, false),
        // All lines of all operators must hold.
        (json!({"StringEquals": {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": "x"}}), &build, false),
        (json!({"StringEquals": {"aws:SourceAccount": ACCOUNT}, "ArnLike": {"aws:SourceArn": project}}), &build, true),
    ] {
        let policy =
            repository(&json!({"Effect": "Allow", "Principal": "*", "Action": "ecr:*", "Condition": condition}));
        let wanted = if holds { Decision::Allowed } else { Decision::NotMentioned };
        assert_eq!(decide(&policy, caller, "ecr:BatchGetImage", RESOURCE), wanted, "{condition} {}", caller.arn());
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_by_name() {
    let good = json!({"Effect": "Allow", "Principal": "*", "Action": "ecr:PutImage"});
    let with = |member: &str, value: Value| {
        let mut statement = good.clone();
        statement[member] = value;
        json!({"Statement": statement})
    };
    for (document, reason) in [
        (json!([]), "not a JSON object"),
        (json!({}), "Statement: a statement, or an array"),
        (json!({"Statement": []}), "Statement: a statement, or an array"),
        (json!({"Statment": good}), "Statment: there is no such member. Did you mean `Statement`?"),
        (json!({"Version": "2020-01-01", "Statement": good}), "Version: 2012-10-17 or 2008-10-17"),
        (with("Effect", json!("allow")), "Statement[0]: Effect: Allow or Deny"),
        (with("Sid", json!(1)), "Sid: a string"),
        (with("Principal", Value::Null), "Principal: `*`, or an object"),
        (with("Principal", json!({"AWS": []})), "Principal.AWS: the list is empty"),
        (with("Principal", json!({"Federated": "x"})), "Principal.Federated: only AWS and Service"),
        (
            with("Principal", json!({"AWS": "arn:aws:iam::123456789012:role/*"})),
            "wildcards and variables are not allowed",
        ),
        (with("Principal", json!({"AWS": "arn:aws:iam::1:root"})), "an account id, or the ARN"),
        (with("Principal", json!({"AWS": "alice"})), "`alice`: an account id, or the ARN"),
        (with("Principal", json!({"Service": "codebuild"})), "the name of an AWS service"),
        (with("NotPrincipal", json!("*")), "NotPrincipal: this is not evaluated here"),
        (with("NotAction", json!("ecr:*")), "Action and NotAction exclude each other"),
        (with("Action", json!([])), "Action: the list is empty"),
        (with("Action", json!(5)), "Action: a string"),
        (with("Action", json!("PutImage")), "`PutImage` is no action"),
        (with("Action", json!("ecs:RunTask")), "no action of ECR"),
        (with("Action", json!("ecr:BatchGetImages")), "Did you mean `BatchGetImage`?"),
        (with("Resource", json!("*")), "Resource: a repository's policy has none"),
        (with("Principal", json!({"AWS": "arn:aws:sts::123456789012:assumed-role/web"})), "an account id, or the ARN"),
        (with("Condition", json!([])), "Condition: an object"),
        (with("Condition", json!({})), "Condition: an object"),
        (with("Condition", json!({"StringEquals": {}})), "Condition.StringEquals: an object of keys and values"),
        (with("Action", json!("e*:PutImage")), "`e*:PutImage` is no action"),
        (
            with("Condition", json!({"StringEqual": {"aws:SourceArn": "x"}})),
            "Condition.StringEqual: this operator is not evaluated here. Did you mean `StringEquals`?",
        ),
        (with("Condition", json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})), "Condition.IpAddress: this operator"),
        (
            with("Condition", json!({"ForAnyValue:StringEquals": {"aws:SourceArn": "x"}})),
            "this operator is not evaluated here",
        ),
        (with("Condition", json!({"NullIfExists": {"aws:SourceArn": "true"}})), "this operator is not evaluated here"),
        (
            with("Condition", json!({"StringEquals": {"aws:SourceIp": "x"}})),
            "Condition.StringEquals.aws:SourceIp: this key is not evaluated here",
        ),
        (with("Condition", json!({"StringEquals": {"aws:SourceArn": []}})), "a string, or an array of strings"),
        (with("Condition", json!({"StringLike": {"aws:SourceArn": "${aws:username}"}})), "policy variables"),
        (with("Condition", json!({"ArnLike": {"aws:SourceArn": "project/*"}})), "an ARN has six parts"),
        (with("Condition", json!({"Bool": {"aws:PrincipalIsAWSService": "yes"}})), "`true` or `false`"),
    ] {
        let error = Policy::for_repository(&document.to_string()).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    for (statement, reason) in [
        (json!({"Effect": "Allow", "Action": "*"}), "Resource or NotResource is needed"),
        (
            json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}),
            "the policy of an identity has none",
        ),
        (json!({"Effect": "Allow", "Action": "*", "Resource": "repository/app"}), "neither an ARN nor `*`"),
        (
            json!({"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::home/${aws:username}"}),
            "policy variables",
        ),
    ] {
        let error = Policy::for_identity(&json!({"Statement": [statement]}).to_string()).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    assert!(Policy::for_identity("{").unwrap_err().contains("not JSON: line 1"));
    let twice = r#"{"Statement": {"Effect": "Deny", "Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
    assert!(Policy::for_identity(twice).unwrap_err().contains("`Effect` occurs twice"));
    let large = format!("{}{}", json!({"Statement": []}), " ".repeat(MAX_POLICY));
    assert!(Policy::for_identity(&large).unwrap_err().contains("at most 10240 bytes"));
}
