//! Both sides of a permission, images and their layers, expiry, and the stored form.

mod stored_form;

use super::access;
use super::action::Action;
use super::authorization::NoCaller;
use super::digest::Digest;
use super::error::{Denial, EcrError, Place, Reason};
use super::lifecycle::LifecyclePolicy;
use super::manifest::{OCI_INDEX, OCI_MANIFEST};
use super::mutability::Mutability;
use super::policy::{Decision, Policy, Request};
use super::principal::Principal;
use super::repository::{Image, NewImage, Repository};
use super::service::{CacheRule, Ecr};
use super::tokens::TokenError;
use crate::keys::Signer;
use bytes::Bytes;
use serde_json::{Value, json};

const OWN: &str = "123456789012";
const OTHER: &str = "210987654321";
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

fn place(account: &str, name: &str) -> Place {
    Place { account: account.to_owned(), repository: name.to_owned() }
}

/// Two accounts; the own one has the repository `app`.
fn ecr() -> Ecr {
    let mut ecr = Ecr::new("us-west-2", OWN, "127.0.0.1:1");
    ecr.add_account(OTHER, "127.0.0.2:1").unwrap();
    ecr.create_repository(Repository::new(place(OWN, "app"), 0.0)).unwrap();
    ecr
}

fn digest(seed: &str) -> Digest {
    Digest::compute(seed.as_bytes())
}

fn new_image(manifest: &Value, tag: Option<&str>) -> NewImage {
    NewImage::read(Bytes::from(manifest.to_string()), None, tag.map(str::to_owned), None).unwrap()
}

/// The manifest of an image with these layers, whose configuration is `c` and its seed.
fn manifest(seed: &str, layers: &[&str]) -> Value {
    let config = digest(&format!("c{seed}"));
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"digest": config, "size": 5},
        "layers": layers.iter().map(|layer| json!({"digest": digest(layer), "size": 10})).collect::<Vec<_>>(),
    })
}

fn index(images: &[Digest]) -> Value {
    let images: Vec<Value> = images.iter().map(|digest| json!({"digest": digest, "size": 1})).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": images})
}

/// Pushes an image with its configuration and layers to a repository of the own account.
fn push(ecr: &mut Ecr, name: &str, seed: &str, layers: &[&str], tag: Option<&str>, now: f64) -> Digest {
    ecr.add_layer(OWN, name, digest(&format!("c{seed}")), 5, now).unwrap();
    for layer in layers {
        ecr.add_layer(OWN, name, digest(layer), 10, now).unwrap();
    }
    ecr.put_image(OWN, name, &new_image(&manifest(seed, layers), tag), now).unwrap()
}

fn images(ecr: &Ecr) -> Vec<&Image> {
    ecr.repository(OWN, "app").unwrap().images().collect()
}

fn policy(statement: &Value) -> Policy {
    Policy::for_repository(&json!({"Statement": statement}).to_string()).unwrap()
}

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
        (&own, none, None, Some(Reason::NoIdentityPolicy)),
        (&own, none, Some(allow(json!({"AWS": own.arn()}))), None),
        (&own, none, Some(root(OWN)), Some(Reason::NoIdentityPolicy)),
        (&own, yes, Some(root(OTHER)), None),
        (&own, no, Some(allow(json!("*"))), Some(Reason::DeniedByIdentityPolicy)),
        (&own, yes, Some(deny.clone()), Some(Reason::DeniedByResourcePolicy)),
        // Another account: both sides are needed.
        (&other, yes, None, Some(Reason::NoResourcePolicy)),
        (&other, yes, Some(root(OTHER)), None),
        (&other, yes, Some(allow(json!({"AWS": other.arn()}))), None),
        (&other, none, Some(root(OTHER)), Some(Reason::NoIdentityPolicy)),
        (&other, none, Some(allow(json!("*"))), Some(Reason::NoIdentityPolicy)),
        (&other, none, None, Some(Reason::NoResourcePolicy)),
        (&other, no, Some(root(OTHER)), Some(Reason::DeniedByIdentityPolicy)),
        (&other, yes, Some(root(OWN)), Some(Reason::NoResourcePolicy)),
        (&other, yes, Some(deny), Some(Reason::DeniedByResourcePolicy)),
        // A service: only the policy of the repository.
        (&service, none, None, Some(Reason::NoResourcePolicy)),
        (&service, none, Some(allow(json!({"Service": "codebuild.amazonaws.com"}))), None),
        (&service, none, Some(root(OWN)), Some(Reason::NoResourcePolicy)),
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
        (Reason::NoIdentityPolicy, "because no identity-based policy allows the ecr:BatchGetImage action"),
        (Reason::NoResourcePolicy, "because no resource-based policy allows the ecr:BatchGetImage action"),
        (Reason::DeniedByIdentityPolicy, "with an explicit deny in an identity-based policy"),
        (Reason::DeniedByResourcePolicy, "with an explicit deny in a resource-based policy"),
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
fn an_image_needs_its_layers_in_the_repository() {
    let mut ecr = ecr();
    let image = new_image(&manifest("1", &["a"]), Some("v1"));
    let missing = |outcome: Result<Digest, EcrError>| match outcome {
        Err(EcrError::NoLayers { digests, .. }) => digests.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(ecr.put_image(OWN, "app", &image, 1.0)), 2);
    ecr.add_layer(OWN, "app", digest("a"), 10, 1.0).unwrap();
    assert_eq!(missing(ecr.put_image(OWN, "app", &image, 1.0)), 1);
    ecr.add_layer(OWN, "app", digest("c1"), 5, 1.0).unwrap();
    let pushed = ecr.put_image(OWN, "app", &image, 2.0).unwrap();
    let found = ecr.image(OWN, "app", "v1").unwrap();
    assert_eq!((found.digest, found.size, found.pushed_at), (pushed, 15, 2.0));
    assert_eq!(ecr.image(OWN, "app", &pushed.to_string()).unwrap().manifest, image.manifest);
    assert_eq!(ecr.image(OWN, "app", "v2").unwrap_err().code(), "ImageNotFoundException");
    let wrong = NewImage::read(image.manifest.clone(), None, None, Some(digest("x"))).unwrap_err();
    assert_eq!(wrong.code(), "ImageDigestDoesNotMatchException");
}

#[test]
fn tags_move_unless_they_are_immutable() {
    let mut ecr = ecr();
    let first = push(&mut ecr, "app", "1", &["a"], Some("latest"), 1.0);
    let again = ecr.put_image(OWN, "app", &new_image(&manifest("1", &["a"]), Some("latest")), 2.0).unwrap_err();
    assert!(matches!(again, EcrError::ImageExists { .. }), "{again}");
    let second = push(&mut ecr, "app", "2", &["a"], Some("latest"), 2.0);
    assert_eq!(ecr.image(OWN, "app", "latest").unwrap().digest, second);
    assert!(ecr.image(OWN, "app", &first.to_string()).unwrap().tags.is_empty(), "the old image is untagged");
    ecr.repository_mut(OWN, "app").unwrap().mutability = Mutability::new("IMMUTABLE", Vec::new()).unwrap();
    for seed in ["1", "2"] {
        let error = ecr.put_image(OWN, "app", &new_image(&manifest(seed, &["a"]), Some("latest")), 3.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The image tag 'latest' already exists in the 'app' repository and cannot be overwritten because the repository is immutable."
        );
    }
    assert!(ecr.put_image(OWN, "app", &new_image(&manifest("1", &["a"]), Some("v1")), 3.0).is_ok(), "a new tag");
}

#[test]
fn layers_leave_with_the_last_image_and_repository() {
    let mut ecr = ecr();
    ecr.create_repository(Repository::new(place(OWN, "copy"), 0.0)).unwrap();
    let first = push(&mut ecr, "app", "1", &["a", "b"], Some("v1"), 1.0);
    push(&mut ecr, "app", "2", &["a"], Some("v2"), 1.0);
    push(&mut ecr, "copy", "1", &["a", "b"], None, 1.0);
    assert_eq!(ecr.delete_tag(OWN, "app", "v1", 2.0 * HOUR), Ok(first), "with its last tag the image leaves");
    assert_eq!(ecr.layer(OWN, "app", &digest("b")), None);
    assert_eq!(ecr.layer(OWN, "app", &digest("a")), Some(10), "another image needs it");
    assert_eq!(ecr.take_orphans(), [], "the other repository has them");
    assert!(ecr.delete_repository(OWN, "copy", false).is_err(), "it has an image");
    ecr.delete_repository(OWN, "copy", true).unwrap();
    let mut wanted = vec![digest("b"), digest("c1")];
    wanted.sort();
    assert_eq!(ecr.take_orphans(), wanted);
    assert!(ecr.is_used(&digest("a")) && !ecr.is_used(&digest("b")));
    ecr.delete_repository(OWN, "app", true).unwrap();
    assert_eq!((ecr.all_layers().len(), ecr.take_orphans().len()), (0, 2));
    assert_eq!(ecr.manifest_bytes, 0);
}

/// A client that was just told that a layer is there pushes an image with it, while the layer's only image is deleted.
#[test]
fn a_layer_of_a_push_outlives_its_last_image() {
    let mut ecr = ecr();
    let old = push(&mut ecr, "app", "1", &["a"], Some("v1"), 0.0);
    let revision = ecr.revision();
    ecr.note_layer(OWN, "app", &digest("a"), 9.0 * HOUR);
    assert_eq!(ecr.revision(), revision, "a restart may lose it");
    ecr.delete_image(OWN, "app", &old, 9.0 * HOUR + 60.0).unwrap();
    assert_eq!(ecr.layer(OWN, "app", &digest("c1")), None, "nobody relies on this one");
    ecr.add_layer(OWN, "app", digest("c2"), 5, 9.0 * HOUR + 60.0).unwrap();
    ecr.put_image(OWN, "app", &new_image(&manifest("2", &["a"]), Some("v2")), 9.0 * HOUR + 90.0).unwrap();
    let new = ecr.image(OWN, "app", "v2").unwrap().digest;
    ecr.delete_image(OWN, "app", &new, 9.0 * HOUR + 100.0).unwrap();
    assert!(ecr.layer(OWN, "app", &digest("a")).is_some());
    assert!(!ecr.expire(10.0 * HOUR) && ecr.expire(10.0 * HOUR + 61.0), "an hour later they leave");
    assert_eq!(ecr.all_layers().len(), 0);
}

#[test]
fn refused_changes_leave_the_revision_as_it_is() {
    let mut ecr = ecr();
    push(&mut ecr, "app", "1", &["a"], Some("v1"), 0.0);
    let revision = ecr.revision();
    assert!(ecr.put_image(OWN, "app", &new_image(&manifest("1", &["a"]), Some("v1")), 1.0).is_err());
    assert!(ecr.put_image(OWN, "app", &new_image(&manifest("9", &["x"]), None), 1.0).is_err());
    assert!(ecr.create_repository(Repository::new(place(OWN, "app"), 0.0)).is_err());
    assert!(ecr.delete_repository(OWN, "app", false).is_err());
    assert!(ecr.delete_tag(OWN, "app", "none", 1.0).is_err());
    assert!(ecr.add_layer(OWN, "none", digest("a"), 1, 1.0).is_err());
    ecr.add_layer(OWN, "app", digest("a"), 10, 1.0).unwrap();
    assert_eq!(ecr.revision(), revision);
    let copy = ecr.clone();
    ecr.delete_repository(OWN, "app", true).unwrap();
    assert!(ecr.revision() > revision && copy.image(OWN, "app", "v1").is_ok(), "a copy keeps what it had");
}

#[test]
fn an_image_of_an_index_cannot_be_deleted() {
    let mut ecr = ecr();
    let (first, second) =
        (push(&mut ecr, "app", "1", &["a"], None, 1.0), push(&mut ecr, "app", "2", &["a", "b"], None, 1.0));
    let missing = ecr.put_image(OWN, "app", &new_image(&index(&[first, digest("x")]), None), 2.0).unwrap_err();
    assert_eq!(missing.code(), "ReferencedImagesNotFoundException");
    let list = ecr.put_image(OWN, "app", &new_image(&index(&[first, second]), Some("all")), 2.0).unwrap();
    assert_eq!(ecr.image(OWN, "app", "all").unwrap().size, 25, "of its largest image");
    let error = ecr.delete_image(OWN, "app", &first, 40.0 * DAY).unwrap_err();
    assert_eq!(error, EcrError::Referenced { digest: first, by: vec![list] });
    ecr.delete_image(OWN, "app", &list, 40.0 * DAY).unwrap();
    ecr.delete_image(OWN, "app", &first, 40.0 * DAY).unwrap();
    assert_eq!(images(&ecr).len(), 1);
}

fn lifecycle(selection: &Value) -> LifecyclePolicy {
    let rule = json!({"rulePriority": 10, "description": "x".repeat(60), "selection": selection, "action": {"type": "expire"}});
    LifecyclePolicy::read(&json!({"rules": [rule]}).to_string()).unwrap()
}

fn untagged_after(days: u32) -> LifecyclePolicy {
    lifecycle(
        &json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}),
    )
}

#[test]
fn what_a_preview_shows_expires_on_the_hour() {
    let mut ecr = ecr();
    let orphan = push(&mut ecr, "app", "1", &["a"], Some("latest"), 0.0);
    let latest = push(&mut ecr, "app", "2", &["a"], Some("latest"), DAY);
    let policy = untagged_after(7);
    let preview = |ecr: &Ecr, now: f64| {
        let entries = ecr.preview(OWN, "app", &policy, now).unwrap().entries;
        entries.iter().map(|entry| (entry.digest, entry.priority)).collect::<Vec<_>>()
    };
    assert_eq!(preview(&ecr, 7.0 * DAY), []);
    assert_eq!(preview(&ecr, 7.0 * DAY + 1.0), [(orphan, 10)]);
    ecr.repository_mut(OWN, "app").unwrap().lifecycle = Some(policy.clone());
    assert!(ecr.tick(7.0 * DAY), "the policy is carried out for the first time");
    assert_eq!(images(&ecr).len(), 2);
    assert!(!ecr.tick(7.0 * DAY + HOUR - 1.0), "not yet an hour later");
    assert_eq!(images(&ecr).len(), 2);
    assert!(ecr.tick(7.0 * DAY + HOUR));
    assert_eq!(images(&ecr).iter().map(|image| image.digest).collect::<Vec<_>>(), [latest]);
    assert_eq!(ecr.take_orphans(), [digest("c1")], "the other layer is still needed");
    assert_eq!(ecr.repository(OWN, "app").unwrap().lifecycle.as_ref().unwrap().evaluated_at, Some(7.0 * DAY + HOUR));
}

#[test]
fn rules_spare_images_of_an_index_until_it_leaves() {
    let mut ecr = ecr();
    let first = push(&mut ecr, "app", "1", &["a"], None, 0.0);
    let list = ecr.put_image(OWN, "app", &new_image(&index(&[first]), Some("all")), 0.0).unwrap();
    ecr.repository_mut(OWN, "app").unwrap().lifecycle = Some(untagged_after(7));
    ecr.expire(30.0 * DAY);
    assert_eq!(images(&ecr).len(), 2);
    ecr.delete_image(OWN, "app", &list, 40.0 * DAY).unwrap();
    ecr.expire(30.0 * DAY);
    assert_eq!(images(&ecr).len(), 0);
}

/// What is attached to an image, such as a signature, leaves with it.
#[test]
fn attached_images_leave_with_their_subject() {
    let mut ecr = ecr();
    let image = push(&mut ecr, "app", "1", &["a"], Some("old-1"), 0.0);
    let mut signature = manifest("2", &["s"]);
    signature["subject"] = json!({"digest": image, "size": 1});
    for seed in ["c2", "s"] {
        ecr.add_layer(OWN, "app", digest(seed), 1, DAY).unwrap();
    }
    ecr.put_image(OWN, "app", &new_image(&signature, None), 20.0 * DAY).unwrap();
    let selection = json!({"tagStatus": "tagged", "tagPrefixList": ["old"], "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7});
    let rules = lifecycle(&selection);
    let preview = ecr.preview(OWN, "app", &rules, 20.0 * DAY).unwrap();
    assert_eq!(preview.entries.iter().map(|entry| entry.priority).collect::<Vec<_>>(), [10, 10]);
    ecr.repository_mut(OWN, "app").unwrap().lifecycle = Some(rules);
    ecr.expire(20.0 * DAY);
    assert_eq!(images(&ecr).len(), 0);
}

/// So does what is attached to an image that somebody deletes, a day after its push.
#[test]
fn attached_images_of_a_deleted_image_leave() {
    let mut ecr = ecr();
    let image = push(&mut ecr, "app", "1", &["a"], Some("v1"), 0.0);
    let mut attach = |seed: &str, subject: Digest| {
        let mut attached = manifest(seed, &[]);
        attached["subject"] = json!({"digest": subject, "size": 1});
        ecr.add_layer(OWN, "app", digest(&format!("c{seed}")), 1, 0.0).unwrap();
        ecr.put_image(OWN, "app", &new_image(&attached, None), 0.0).unwrap()
    };
    let list = attach("2", image);
    attach("3", list);
    ecr.delete_image(OWN, "app", &image, HOUR).unwrap();
    ecr.expire(2.0 * DAY);
    assert_eq!(images(&ecr).len(), 2, "only in a repository with rules");
    let selection =
        json!({"tagStatus": "tagged", "tagPrefixList": ["old"], "countType": "imageCountMoreThan", "countNumber": 1});
    ecr.repository_mut(OWN, "app").unwrap().lifecycle = Some(lifecycle(&selection));
    ecr.expire(DAY);
    assert_eq!(images(&ecr).len(), 2, "they may wait for their subject");
    ecr.expire(DAY + 1.0);
    assert_eq!(images(&ecr).len(), 0);
}

#[test]
fn layers_that_no_image_needs_leave_after_a_day() {
    let mut ecr = ecr();
    push(&mut ecr, "app", "1", &["a"], None, 0.0);
    ecr.add_layer(OWN, "app", digest("unused"), 1, 0.0).unwrap();
    assert!(!ecr.expire(DAY));
    assert!(ecr.expire(DAY + 1.0));
    assert_eq!(ecr.take_orphans(), [digest("unused")]);
}

#[test]
fn a_pull_of_a_cached_image_says_that_nothing_is_fetched() {
    let mut ecr = ecr();
    let rule = CacheRule { upstream: "public.ecr.aws".to_owned(), kind: None, credential: None, created_at: 0.0 };
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
