//! Calls about layers that move no bytes.

use super::call::{Call, required, shown, texts};
use crate::api::request::Answer;
use crate::ecr::error::EcrError;
use crate::ecr::{Action, Digest};
use serde_json::json;

/// Maximum number of layers in a request, as in ECR.
const MAX_LAYERS: usize = 100;
/// The validity of an address to download a layer from, in seconds, as in ECR.
const ADDRESS_VALIDITY: f64 = 3600.0;
/// The media type that ECR names for layers.
const MEDIA_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// BatchCheckLayerAvailability.
pub(super) fn check(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::BATCH_CHECK_LAYER_AVAILABILITY)?;
    let digests = texts(call.body, "layerDigests", MAX_LAYERS)?;
    if digests.is_empty() {
        return Err(EcrError::invalid("layerDigests", "Member must not be null").into());
    }
    let (mut layers, mut failures) = (Vec::new(), Vec::new());
    for text in digests {
        let Ok(digest) = text.parse::<Digest>() else {
            let code = if text.is_empty() { "MissingLayerDigest" } else { "InvalidLayerDigest" };
            let reason = "Invalid request parameters: a layer digest is `sha256:` and 64 lower-case hexadecimal digits";
            failures.push(json!({"layerDigest": shown(text), "failureCode": code, "failureReason": reason}));
            continue;
        };
        // A push relies on this answer.
        call.state.ecr.note_layer(&target.account, &target.name, &digest, call.now);
        layers.push(match call.state.ecr.layer(&target.account, &target.name, &digest) {
            Some(size) => json!({
                "layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": size, "mediaType": MEDIA_TYPE,
            }),
            None => json!({"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}),
        });
    }
    Ok(json!({"layers": layers, "failures": failures}))
}

/// GetDownloadUrlForLayer. The address needs no password for an hour.
pub(super) fn download_url(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::GET_DOWNLOAD_URL_FOR_LAYER)?;
    let text = required(call.body, "layerDigest")?;
    let digest: Digest = text
        .parse()
        .map_err(|error: crate::ecr::digest::DigestError| EcrError::invalid("layerDigest", error.to_string()))?;
    let (account, name) = (&target.account, &target.name);
    if call.state.ecr.layer(account, name, &digest).is_none() {
        let message = format!(
            "The layer with digest '{digest}' does not exist in the repository with name '{name}' in the registry with id '{account}'"
        );
        return Err(EcrError::other("LayersNotFoundException", message).into());
    }
    let expires = (call.now + ADDRESS_VALIDITY) as u64;
    let signature = call.state.site.keys.address_signature(&format!("{account}/{name}/{digest}"), expires);
    let host = call.state.ecr.registry(account).map(|registry| registry.host.clone()).unwrap_or_default();
    let url = format!("http://{host}/v2/{name}/blobs/{digest}?expires={expires}&signature={signature}");
    Ok(json!({"downloadUrl": url, "layerDigest": digest}))
}
