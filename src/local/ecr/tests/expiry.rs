//! What expires, and when.

use super::{DAY, HOUR, OWN, digest, ecr, images, index, manifest, new_image, push};
use crate::ecr::lifecycle::LifecyclePolicy;
use crate::ecr::{Digest, Ecr};
use serde_json::{Value, json};

pub(super) fn lifecycle(selection: &Value) -> LifecyclePolicy {
    let rule = json!({"rulePriority": 10, "description": "x".repeat(60), "selection": selection, "action": {"type": "expire"}});
    LifecyclePolicy::read(&json!({"rules": [rule]}).to_string()).unwrap()
}

pub(super) fn untagged_after(days: u32) -> LifecyclePolicy {
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

/// Rules are evaluated on a copy. Whatever changes meanwhile counts.
#[test]
fn rules_expire_nothing_of_a_changed_repository() {
    let mut ecr = ecr();
    let first = push(&mut ecr, "app", "1", &["a"], Some("v1"), 0.0);
    let second = push(&mut ecr, "app", "2", &["a"], Some("v2"), 1.0);
    let selection =
        json!({"tagStatus": "tagged", "tagPrefixList": ["v"], "countType": "imageCountMoreThan", "countNumber": 1});
    ecr.repository_mut(OWN, "app").unwrap().lifecycle = Some(lifecycle(&selection));
    let found = ecr.evaluate(DAY);
    ecr.delete_image(OWN, "app", &second, DAY).unwrap();
    assert!(!ecr.carry_out(&found), "only one is left, and stays");
    assert_eq!(images(&ecr).iter().map(|image| image.digest).collect::<Vec<_>>(), [first]);
    assert!(ecr.begin_evaluation(DAY), "this is due at once");

    push(&mut ecr, "app", "3", &["a"], Some("v3"), 2.0);
    for change in [
        (|ecr: &mut Ecr| ecr.put_image(OWN, "app", &new_image(&manifest("1", &["a"]), Some("w")), 3.0).map(drop))
            as fn(&mut Ecr) -> _,
        |ecr| ecr.repository_mut(OWN, "app").map(|found| found.lifecycle = Some(untagged_after(1))),
        |ecr| ecr.delete_repository(OWN, "app", true).map(drop),
    ] {
        let (mut changed, found) = (ecr.clone(), ecr.evaluate(DAY));
        change(&mut changed).unwrap();
        let before = changed.revision();
        changed.carry_out(&found);
        assert_eq!(changed.revision(), before, "nothing was done");
    }
    let found = ecr.evaluate(DAY);
    ecr.note_pull(OWN, "app", &first, DAY);
    assert!(ecr.carry_out(&found), "rules do not look at pulls");
    assert_eq!(images(&ecr).len(), 1);
}
