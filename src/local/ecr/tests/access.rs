//! Both sides of a permission, and tokens.

use super::{HOUR, OTHER, OWN, ecr, place, policy};
use crate::ecr::access;
use crate::ecr::action::Action;
use crate::ecr::authorization::NoCaller;
use crate::ecr::error::{Denial, EcrError, Reason};
use crate::ecr::policy::{Decision, Policy, Request};
use crate::ecr::principal::Principal;
use crate::ecr::service::CacheRule;
use crate::ecr::tokens::TokenError;
use crate::keys::Signer;
use serde_json::{Value, json};

#[test]
fn permissions_of_both_sides_are_combined() {
    let allow = |principal: Value| policy(&json!({"Effect": "Allow", "Principal": principal, "Action": "ecr:*"}));
    let deny = policy(&json!({"Effect": "Deny", "Principal": "*", "Action": "ecr:*"}));
    let root = |account: &str| allow(json!({"AWS": format!("arn:aws:iam::{account}:root")}));
    let (own, other) = (Principal::user(OWN, "alice"), Principal::user(OTHER, "bob"));
    let service = Principal::service("codebuild.amazonaws.com", None, None);
    let (yes, no, none) = (Decision::Allowed, Decision::Denied, Decision::NotMentioned);
    for (caller, identity, resource, wanted) in [
        // The same account: one side is enough.
        (&own, yes, None, None),
        (&own, none, None, Some(Reason::NotAllowedByIdentity)),
        (&own, none, Some(allow(json!({"AWS": own.arn()}))), None),
        (&own, none, Some(root(OWN)), Some(Reason::NotAllowedByIdentity)),
        (&own, yes, Some(root(OTHER)), None),
        (&own, no, Some(allow(json!("*"))), Some(Reason::DeniedByIdentity)),
        (&own, yes, Some(deny.clone()), Some(Reason::DeniedByResource)),
        // Another account: both sides are needed.
        (&other, yes, None, Some(Reason::NotAllowedByResource)),
        (&other, yes, Some(root(OTHER)), None),
        (&other, yes, Some(allow(json!({"AWS": other.arn()}))), None),
        (&other, none, Some(root(OTHER)), Some(Reason::NotAllowedByIdentity)),
        (&other, none, Some(allow(json!("*"))), Some(Reason::NotAllowedByIdentity)),
        (&other, none, None, Some(Reason::NotAllowedByResource)),
        (&other, no, Some(root(OTHER)), Some(Reason::DeniedByIdentity)),
        (&other, yes, Some(root(OWN)), Some(Reason::NotAllowedByResource)),
        (&other, yes, Some(deny), Some(Reason::DeniedByResource)),
        // A service: only the policy of the repository.
        (&service, none, None, Some(Reason::NotAllowedByResource)),
        (&service, none, Some(allow(json!({"Service": "codebuild.amazonaws.com"}))), None),
        (&service, none, Some(root(OWN)), Some(Reason::NotAllowedByResource)),
    ] {
        let request = Request::new(caller, "ecr:BatchGetImage", "arn", OWN);
        let outcome = access::decide(&request, identity, resource.as_ref());
        let shown = resource.as_ref().map(Policy::text).unwrap_or_default();
        assert_eq!(outcome.err().map(|denial| denial.reason), wanted, "{} {shown}", caller.arn());
    }
}

#[test]
fn refusals_have_the_words_of_aws() {
    let denial = |reason| Denial {
        principal: "arn:aws:sts::123456789012:assumed-role/web/i-1".to_owned(),
        action: "ecr:BatchGetImage".to_owned(),
        resource: "arn:aws:ecr:us-west-2:123456789012:repository/app".to_owned(),
        reason,
    };
    let start = "User: arn:aws:sts::123456789012:assumed-role/web/i-1 is not authorized to perform: ecr:BatchGetImage on resource: \
                 arn:aws:ecr:us-west-2:123456789012:repository/app";
    for (reason, end) in [
        (Reason::NotAllowedByIdentity, "because no identity-based policy allows the ecr:BatchGetImage action"),
        (Reason::NotAllowedByResource, "because no resource-based policy allows the ecr:BatchGetImage action"),
        (Reason::DeniedByIdentity, "with an explicit deny in an identity-based policy"),
        (Reason::DeniedByResource, "with an explicit deny in a resource-based policy"),
    ] {
        assert_eq!(denial(reason).to_string(), format!("{start} {end}"));
    }
}

#[test]
fn nobody_learns_what_exists_without_a_permission() {
    let ecr = ecr();
    let (own, other) = (Principal::administrator(OWN), Principal::administrator(OTHER));
    let outcome = |caller: &Principal, name: &str| ecr.authorize(caller, Action::BATCH_GET_IMAGE, OWN, name);
    assert_eq!(outcome(&own, "app"), Ok(()));
    assert_eq!(outcome(&own, "none"), Err(EcrError::NoRepository(place(OWN, "none"))));
    for name in ["app", "none"] {
        assert_eq!(outcome(&other, name).unwrap_err().code(), "AccessDeniedException", "{name}");
    }
}

/// A policy that is changed counts for tokens that were made before.
#[test]
fn tokens_follow_the_policies_of_their_owner() {
    let mut ecr = ecr();
    let read = json!({"Statement": {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": "*"}}).to_string();
    ecr.identities_mut().put_user(OWN, "alice", Policy::for_identity(&read).unwrap(), "AKIA1").unwrap();
    ecr.add_token(Principal::user(OWN, "alice"), "secret", 0.0, 12.0 * HOUR);
    let alice = ecr.principal("AWS", "secret", HOUR).unwrap();
    assert_eq!(ecr.authorize(&alice, Action::BATCH_GET_IMAGE, OWN, "app"), Ok(()));
    assert!(ecr.authorize(&alice, Action::PUT_IMAGE, OWN, "app").is_err());
    let nothing = json!({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}).to_string();
    ecr.identities_mut().put_user(OWN, "alice", Policy::for_identity(&nothing).unwrap(), "AKIA2").unwrap();
    assert!(ecr.authorize(&alice, Action::BATCH_GET_IMAGE, OWN, "app").is_err());
    assert_eq!(ecr.principal("AWS", "secret", 12.0 * HOUR), Err(TokenError::Expired));
}

/// Not even a repository that names the user lets it in, nor does a new user with the same name.
#[test]
fn the_token_of_a_removed_user_is_of_no_use() {
    let mut ecr = ecr();
    let alice = Principal::user(OWN, "alice");
    let all = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}).to_string();
    let all = Policy::for_identity(&all).unwrap();
    ecr.identities_mut().put_user(OWN, "alice", all.clone(), "AKIA1").unwrap();
    ecr.repository_mut(OWN, "app").unwrap().policy =
        Some(policy(&json!({"Effect": "Allow", "Principal": {"AWS": alice.arn()}, "Action": "ecr:*"})));
    ecr.add_token(alice.clone(), "secret", 0.0, HOUR);
    assert_eq!(ecr.principal("AWS", "secret", 1.0), Ok(alice.clone()));
    assert_eq!(ecr.caller(&Signer::Identity("AKIA1".to_owned())), Ok(alice.clone()));
    assert!(ecr.remove_identity(alice.arn()) && !ecr.remove_identity(alice.arn()));
    assert_eq!(ecr.principal("AWS", "secret", 1.0), Err(TokenError::Unknown));
    assert_eq!(ecr.caller(&Signer::Identity("AKIA1".to_owned())), Err(NoCaller::Removed));
    ecr.identities_mut().put_user(OWN, "alice", all, "AKIA2").unwrap();
    assert_eq!(ecr.principal("AWS", "secret", 1.0), Err(TokenError::Unknown));
}

#[test]
fn an_unknown_account_is_nobody() {
    let ecr = ecr();
    let user = |account: Option<&str>| Signer::User { account: account.map(str::to_owned) };
    assert_eq!(ecr.caller(&user(None)), Ok(Principal::administrator(OWN)));
    assert_eq!(ecr.caller(&user(Some(OTHER))), Ok(Principal::administrator(OTHER)));
    let unknown = "000000000000".to_owned();
    assert_eq!(ecr.caller(&user(Some(&unknown))), Err(NoCaller::UnknownAccount(unknown)));
}

#[test]
fn a_pull_of_a_cached_image_says_that_nothing_is_fetched() {
    let mut ecr = ecr();
    let rule =
        CacheRule { upstream: "public.ecr.aws".to_owned(), kind: None, credential: None, role: None, created_at: 0.0 };
    let rules = &mut ecr.registry_mut(OWN).unwrap().cache_rules;
    rules.insert("ecr".to_owned(), CacheRule { upstream: "quay.io".to_owned(), ..rule.clone() });
    rules.insert("ecr-public".to_owned(), rule);
    let own = Principal::administrator(OWN);
    let error = ecr.authorize(&own, Action::BATCH_GET_IMAGE, OWN, "ecr-public/nginx").unwrap_err();
    assert_eq!(error.code(), "UnableToGetUpstreamImageException");
    assert!(error.to_string().contains("public.ecr.aws: it makes no connections"), "{error}");
    for (action, name) in [(Action::PUT_IMAGE, "ecr-public/nginx"), (Action::BATCH_GET_IMAGE, "ecr-publicity")] {
        assert_eq!(ecr.authorize(&own, action, OWN, name).unwrap_err().code(), "RepositoryNotFoundException", "{name}");
    }
}
