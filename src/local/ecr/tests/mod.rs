//! Images, tags and layers of repositories.

mod access;
mod expiry;
mod stored_form;

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::image::{Image, NewImage};
use super::manifest::{OCI_INDEX, OCI_MANIFEST};
use super::mutability::Mutability;
use super::policy::Policy;
use super::repository::Repository;
use super::service::Ecr;
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

/// A client learns that a layer exists, and pushes an image with it. Meanwhile the layer's only image is deleted.
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

/// Lists are read page by page, with the lock of the state held: what is before a page is not looked at.
#[test]
fn small_pages_of_long_lists_take_no_long_time() {
    let mut repository = Repository::new(place(OWN, "long"), 0.0);
    for seed in 0..20 {
        let mut image = new_image(&manifest(&seed.to_string(), &[]), None);
        for number in 0..1000 {
            image.tag = Some(format!("tag-{seed:02}{number:03}"));
            repository.put_image(&image, 0.0);
        }
    }
    let (begin, mut last) = (std::time::Instant::now(), None);
    let next = |last: Option<&str>| repository.tags_after(last).next().map(str::to_owned);
    let pages = std::iter::from_fn(|| {
        last = next(last.as_deref());
        last.clone()
    });
    assert_eq!(pages.last().as_deref(), Some("tag-19999"));
    assert!(begin.elapsed().as_secs() < 2, "{} ms", begin.elapsed().as_millis());
    let images: Vec<Digest> = repository.images().map(|image| image.digest).collect();
    assert_eq!(repository.images_from(Some(images[5])).count(), images.len() - 5);
    assert_eq!(repository.images_after(Some(images[5])).count(), images.len() - 6);
    let ecr = ecr();
    let registry = ecr.registry(OWN).unwrap();
    assert_eq!((registry.repositories_after(None).count(), registry.repositories_after(Some("app")).count()), (1, 0));
}
