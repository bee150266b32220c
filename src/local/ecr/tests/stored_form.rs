//! What a directory keeps.

use super::expiry::untagged_after;
use super::{OTHER, OWN, digest, ecr, index, new_image, policy, push};
use crate::ecr::action::Action;
use crate::ecr::error::EcrError;
use crate::ecr::lifecycle::LifecyclePolicy;
use crate::ecr::mutability::Mutability;
use crate::ecr::policy::Policy;
use crate::ecr::principal::Principal;
use crate::ecr::service::{CacheRule, Ecr};
use crate::ecr::stored_form::LoadError;
use serde_json::{Value, json};
use std::io;

/// An ECR with something of every kind.
fn full() -> Ecr {
    let mut ecr = ecr();
    let image = push(&mut ecr, "app", "1", &["a", "b"], Some("latest"), 5.0);
    push(&mut ecr, "app", "2", &["a"], Some("v2"), 6.0);
    ecr.put_image(OWN, "app", &new_image(&index(&[image]), Some("all")), 7.0).unwrap();
    ecr.note_pull(OWN, "app", &image, 8.0);
    let found = ecr.repository_mut(OWN, "app").unwrap();
    found.mutability = Mutability::new("IMMUTABLE_WITH_EXCLUSION", vec!["dev*".to_owned()]).unwrap();
    found.scan_on_push = true;
    found.policy =
        Some(policy(&json!({"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "ecr:BatchGetImage"})));
    found.lifecycle = Some(LifecyclePolicy { evaluated_at: Some(9.0), ..untagged_after(7) });
    found.resource_tags.insert("team".to_owned(), "blau".to_owned());
    let rule = CacheRule {
        upstream: "quay.io".to_owned(),
        kind: Some("quay".to_owned()),
        credential: None,
        role: Some(format!("arn:aws:iam::{OWN}:role/cache")),
        created_at: 3.0,
    };
    ecr.registry_mut(OTHER).unwrap().cache_rules.insert("quay".to_owned(), rule);
    let document = json!({"Statement": {"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}}).to_string();
    let document = Policy::for_identity(&document).unwrap();
    ecr.identities_mut().put_user(OTHER, "bob", document.clone(), "AKIA1").unwrap();
    ecr.identities_mut().put_role(OWN, "ecsInstanceRole", document.clone(), true).unwrap();
    ecr.identities_mut().put_role(OWN, "ofThisSession", document, false).unwrap();
    ecr.set_clock_ahead(-7);
    ecr.add_token(Principal::service("codebuild.amazonaws.com", Some(OWN), None), "secret", 10.0, 90.0);
    ecr
}

/// Loads a stored form beside the manifests of [`full`].
fn load(text: &str) -> Result<Ecr, LoadError> {
    let manifests = full().manifests();
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    Ecr::load(text, |digest| manifests.get(digest).cloned().ok_or_else(missing), "us-west-2", OWN, "127.0.0.1:1")
}

/// The stored form with one member changed.
fn changed(text: &str, pointer: &str, value: Value) -> String {
    let mut document: Value = serde_json::from_str(text).unwrap();
    *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    document.to_string()
}

#[test]
fn the_stored_form_holds_everything_but_secrets() {
    let before = full();
    let text = before.save().unwrap();
    assert!(!text.contains("secret") && !text.contains("ofThisSession"), "{text}");
    assert!(!text.contains("schemaVersion"), "manifests are beside it");
    let mut after = load(&text).unwrap();
    assert_eq!(after.save().unwrap(), text);
    assert_eq!((after.clock_ahead(), after.manifests()), (before.clock_ahead(), before.manifests()));
    let image = after.image(OWN, "app", "latest").unwrap().clone();
    assert_eq!((image.pushed_at, image.pulled_at, image.size), (5.0, Some(8.0), 25));
    assert!(matches!(after.delete_image(OWN, "app", &image.digest, 9.0), Err(EcrError::Referenced { .. })));
    assert_eq!(after.principal("AWS", "secret", 99.0), before.principal("AWS", "secret", 99.0));
    assert_eq!((after.all_layers(), after.manifest_bytes), (before.all_layers(), before.manifest_bytes));
    let (bob, request) = (Principal::user(OTHER, "bob"), Action::BATCH_GET_IMAGE);
    assert_eq!(after.authorize(&bob, request, OWN, "app"), Ok(()));
    after.delete_repository(OWN, "app", true).unwrap();
    assert_eq!(after.take_orphans().len(), before.all_layers().len());
}

/// The first image of the stored form with one member changed or added.
fn one_with(text: &str, member: &str, value: &str) -> Value {
    let document: Value = serde_json::from_str(text).unwrap();
    let mut image = document["accounts"][0]["repositories"][0]["images"][0].clone();
    image[member] = json!(value);
    image
}

/// The first version had the manifests in the form, and no clock.
#[test]
fn the_first_version_can_be_read() {
    let mut ecr = full();
    ecr.set_clock_ahead(0);
    let (text, manifests) = (ecr.save().unwrap(), ecr.manifests());
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["version"] = json!(1);
    document.as_object_mut().unwrap().remove("clockAhead");
    for image in document["accounts"][0]["repositories"][0]["images"].as_array_mut().unwrap() {
        let digest = image["digest"].as_str().unwrap().parse().unwrap();
        image["manifest"] = json!(String::from_utf8(manifests[&digest].to_vec()).unwrap());
    }
    let none = |_: &_| Err(io::ErrorKind::NotFound.into());
    let after = Ecr::load(&document.to_string(), none, "us-west-2", OWN, "127.0.0.1:1").unwrap();
    assert_eq!((after.save().unwrap(), after.manifests()), (text, manifests));
}

#[test]
fn a_damaged_stored_form_is_refused_with_its_fault() {
    let text = full().save().unwrap();
    let change = |pointer: &str, value: Value| changed(&text, pointer, value);
    let unknown = digest("unknown").to_string();
    let app = "/accounts/0/repositories/0";
    for (damaged, reason) in [
        (String::new(), "it is not JSON: line"),
        (text[..text.len() / 2].to_owned(), "it is not JSON: line"),
        ("{}".to_owned(), "a member has a wrong form"),
        (change("/version", json!(3)), "it has version 3; this program reads version 1 to 2"),
        (change("/version", json!(0)), "it has version 0; this program reads version 1 to 2"),
        (change("/clockAhead", json!(i64::MIN)), "its clock is ahead by more than"),
        (change("/accounts/0/account", json!("1")), "`1` is no account id"),
        (change(&format!("{app}/name"), json!("../x")), "repository `../x`"),
        (change(&format!("{app}/createdAt"), json!("now")), "a member has a wrong form"),
        (change(&format!("{app}/mutability"), json!("SOME")), "imageTagMutability"),
        (change(&format!("{app}/encryption"), json!("ROT13")), "encryptionType"),
        (change(&format!("{app}/policy"), json!("{}")), "Statement: a statement"),
        (change(&format!("{app}/lifecycle"), json!("x")), "lifecyclePolicyText"),
        (change(&format!("{app}/tags"), json!({"": ""})), "A tag has a key"),
        (change(&format!("{app}/layers"), json!([])), "its layer sha256:"),
        (
            change(&format!("{app}/images/0"), one_with(&text, "manifest", "{}")),
            "the manifest does not have this digest",
        ),
        (change(&format!("{app}/images/0"), one_with(&text, "digest", &unknown)), "its manifest cannot be read: "),
        (change(&format!("{app}/images/0/digest"), json!("sha256:00")), "a member has a wrong form"),
        (change(&format!("{app}/images/1/tags"), json!(["a b"])), "imageTag"),
        (change("/identities/0/policy", json!("x")), "role/ecsInstanceRole`"),
        (change("/tokens/0/hash", json!("secret")), "a member has a wrong form"),
    ] {
        let error = load(&damaged).unwrap_err().to_string();
        assert!(
            error.starts_with("the stored registry cannot be used: ") && error.contains(reason),
            "{reason}: {error}"
        );
    }
}
