//! Calls about images and layers.

use super::{MANIFEST, OWN, Session, text};
use crate::ecr::Digest;
use serde_json::{Value, json};

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
    let (first, second) = (session.push("1", Some("v1")), session.push("2", Some("v2")));
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
            (json!({"imageDigest": first, "imageTag": "v2"}), "ImageTagDoesNotMatchDigest"),
        ] {
            assert_eq!(failures(&mut session, operation, id.clone()), code, "{operation} {id}");
        }
    }
    let accepted =
        json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}], "acceptedMediaTypes": ["text/plain"]});
    assert_eq!(session.ok("BatchGetImage", accepted)["failures"][0]["failureCode"], "ImageNotFound");
    let twice = json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}, {"imageTag": "v1"}]});
    assert_eq!(session.ok("BatchGetImage", twice)["images"].as_array().unwrap().len(), 1);
    let text = session.refused("BatchGetImage", json!({"repositoryName": "app", "imageIds": ["v1"]}));
    assert!(text.starts_with("SerializationException: imageIds: it must be an array of objects"), "{text}");
    let both = json!({"repositoryName": "app", "imageIds": [{"imageDigest": second, "imageTag": "v2"}]});
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
    let (first, second) = (session.push("1", None), session.push("2", None));
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"digest": first, "size": 1}, {"digest": second, "size": 1}],
    });
    let put = json!({"repositoryName": "app", "imageManifest": index.to_string(), "imageTag": "all"});
    let list = text(&session.ok("PutImage", put)["image"]["imageId"]["imageDigest"]);
    let delete = |session: &mut Session, ids: Value| {
        session.ok("BatchDeleteImage", json!({"repositoryName": "app", "imageIds": ids}))
    };
    let failed = delete(&mut session, json!([{"imageDigest": first}]));
    let failure = &failed["failures"][0];
    assert_eq!(failure["failureCode"], "ImageReferencedByManifestList");
    assert_eq!(text(&failure["failureReason"]), format!("Requested image referenced by manifest list: [{list}]"));
    let outer = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{"digest": list, "size": 1}],
    });
    let put = json!({"repositoryName": "app", "imageManifest": outer.to_string()});
    let outer = text(&session.ok("PutImage", put)["image"]["imageId"]["imageDigest"]);
    let ids = [&first, &list, &second, &outer].map(|digest| json!({"imageDigest": digest}));
    let answer = delete(&mut session, json!(ids));
    assert_eq!((answer["imageIds"].as_array().unwrap().len(), &answer["failures"]), (4, &json!([])));
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
        (json!({"imageManifest": 5}), "SerializationException: imageManifest: it must be a string."),
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
