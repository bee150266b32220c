//! Layers in parts, as the calls of the API upload them, and the address to download them from.

use super::{OWN, Session};
use base64::Engine;
use serde_json::{Value, json};
use sha2::Digest;

/// The shortest part but the last, in bytes.
const MIN_PART: usize = 5 * 1024 * 1024;
/// The longest part, in bytes.
const MAX_PART: usize = 20 * 1024 * 1024;

fn digest(bytes: &[u8]) -> String {
    let hash: Vec<String> = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hash.concat())
}

/// Makes a signed call of ECR. Returns status and answer.
async fn call(session: &Session, operation: &str, body: Value) -> (u16, Value) {
    let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
    crate::api(&session.server.url(), &target, &body, Some(crate::keys(&session.server))).await.unwrap()
}

async fn initiate(session: &Session, repository: &str) -> String {
    let (status, begun) = call(session, "InitiateLayerUpload", json!({"repositoryName": repository})).await;
    assert_eq!((status, &begun["partSize"]), (200, &json!(10 * 1024 * 1024)), "{begun}");
    begun["uploadId"].as_str().unwrap().to_owned()
}

async fn part(session: &Session, repository: &str, id: &str, first: usize, bytes: &[u8]) -> (u16, Value) {
    let blob = base64::engine::general_purpose::STANDARD.encode(bytes);
    let body = json!({
        "repositoryName": repository, "uploadId": id, "partFirstByte": first, "partLastByte": first + bytes.len() - 1,
        "layerPartBlob": blob,
    });
    call(session, "UploadLayerPart", body).await
}

async fn complete(session: &Session, repository: &str, id: &str, digest: &str) -> (u16, Value) {
    let body = json!({"repositoryName": repository, "uploadId": id, "layerDigests": [digest]});
    call(session, "CompleteLayerUpload", body).await
}

/// Uploads a layer in one part, unless the repository has it. Returns its digest.
pub(super) async fn upload(session: &Session, repository: &str, bytes: &[u8]) -> String {
    let (digest, id) = (digest(bytes), initiate(session, repository).await);
    let (status, answer) = part(session, repository, &id, 0, bytes).await;
    assert_eq!(status, 200, "{answer}");
    let (_, answer) = complete(session, repository, &id, &digest).await;
    assert!(answer["layerDigest"] == digest || answer["__type"] == "LayerAlreadyExistsException", "{answer}");
    digest
}

#[tokio::test]
async fn the_cli_uploads_a_layer_and_downloads_it() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    let begun = session.ok("initiate-layer-upload --repository-name app").await;
    let id = begun["uploadId"].as_str().unwrap();
    let blob = session.file("layer", b"a layer");
    let line =
        format!("upload-layer-part --repository-name app --upload-id {id} --part-first-byte 0 --part-last-byte 6");
    let answer = session.ok(&format!("{line} --layer-part-blob fileb://{}", blob.display())).await;
    assert_eq!(answer["lastByteReceived"], 6);
    let digest = digest(b"a layer");
    let line = format!("complete-layer-upload --repository-name app --upload-id {id} --layer-digests {digest}");
    assert_eq!(session.ok(&line).await["layerDigest"], json!(digest));
    let found =
        session.ok(&format!("batch-check-layer-availability --repository-name app --layer-digests {digest}")).await;
    assert_eq!(
        (&found["layers"][0]["layerAvailability"], &found["layers"][0]["layerSize"]),
        (&json!("AVAILABLE"), &json!(7))
    );
    let url = session.ok(&format!("get-download-url-for-layer --repository-name app --layer-digest {digest}")).await;
    let url = url["downloadUrl"].as_str().unwrap().to_owned();
    let get = async |url: &str| {
        let answer = crate::agent::http().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    };
    assert_eq!(get(&url).await, (200, "a layer".into()));
    assert_ne!(get(&url.replace("signature=", "signature=0")).await.0, 200);
    session.post("clock", json!({"ecrAheadSeconds": 3700})).await;
    assert_ne!(get(&url).await.0, 200, "it opens for an hour");
}

#[tokio::test]
async fn parts_come_in_order_and_are_large() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    let bytes: Vec<u8> = (0..2 * MIN_PART + 3).map(|at| (at / 7 % 251) as u8).collect();
    let (digest, id) = (digest(&bytes), initiate(&session, "app").await);
    let (first, second, last) = (&bytes[..MIN_PART], &bytes[MIN_PART..2 * MIN_PART], &bytes[2 * MIN_PART..]);
    assert_eq!(part(&session, "app", &id, 0, first).await.0, 200);
    assert_eq!(part(&session, "app", &id, 0, first).await.0, 200, "a client may have lost the answer");
    for (from, bytes) in [(0, &first[1..]), (MIN_PART + 1, second), (MIN_PART - 1, second)] {
        let (_, answer) = part(&session, "app", &id, from, bytes).await;
        assert_eq!(answer["__type"], "InvalidLayerPartException", "{answer}");
        assert_eq!(answer["lastValidByteReceived"], MIN_PART - 1, "{answer}");
    }
    assert_eq!(part(&session, "app", &id, MIN_PART, second).await.0, 200);
    assert_eq!(part(&session, "app", &id, 2 * MIN_PART, last).await.0, 200);
    let (_, answer) = part(&session, "app", &id, bytes.len(), first).await;
    assert_eq!(answer["__type"], "LayerPartTooSmallException", "after a short one: {answer}");
    let (status, answer) = complete(&session, "app", &id, &digest).await;
    assert_eq!((status, &answer["layerDigest"]), (200, &json!(digest)), "{answer}");
    let again = initiate(&session, "app").await;
    assert_eq!(part(&session, "app", &again, 0, &bytes[..9]).await.0, 200);
    assert_eq!(complete(&session, "app", &again, &digest).await.1["__type"], "LayerAlreadyExistsException");
}

/// As in ECR, where a part may have 20,971,520 bytes, although clients are told to send 10 MiB.
#[tokio::test]
async fn the_largest_part_is_taken() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    let bytes: Vec<u8> = (0..MAX_PART).map(|at| (at / 11 % 251) as u8).collect();
    assert_eq!(upload(&session, "app", &bytes).await, digest(&bytes));
}

#[tokio::test]
async fn uploads_that_are_wrong_leave_nothing() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    session.ok("create-repository --repository-name other").await;
    let id = initiate(&session, "app").await;
    let code = |answer: (u16, Value)| answer.1["__type"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(complete(&session, "app", &id, &digest(b"x")).await), "EmptyUploadException");
    assert_eq!(code(part(&session, "other", &id, 0, b"x").await), "UploadNotFoundException");
    assert_eq!(part(&session, "app", &id, 0, b"x").await.0, 200);
    assert_eq!(code(complete(&session, "app", &id, "sha256:x").await), "InvalidParameterException");
    assert_eq!(code(complete(&session, "app", &id, &digest(b"y")).await), "InvalidLayerException");
    assert_eq!(code(complete(&session, "app", &id, &digest(b"x")).await), "UploadNotFoundException", "it has ended");
    let id = initiate(&session, "app").await;
    assert_eq!(code(part(&session, "app", &id, 0, &vec![0; MAX_PART + 1]).await), "InvalidLayerPartException");
    let body = json!({"repositoryName": "app", "uploadId": id, "partFirstByte": 0, "partLastByte": 5, "layerPartBlob": "eA=="});
    assert_eq!(code(call(&session, "UploadLayerPart", body).await), "InvalidLayerPartException");
    let found = session
        .ok(&format!("batch-check-layer-availability --repository-name app --layer-digests {}", digest(b"x")))
        .await;
    assert_eq!(found["layers"][0]["layerAvailability"], "UNAVAILABLE");
    let refused = session
        .refused(&format!("get-download-url-for-layer --repository-name app --layer-digest {}", digest(b"x")))
        .await;
    assert!(refused.contains("(LayersNotFoundException)") && refused.contains(OWN), "{refused}");
}
