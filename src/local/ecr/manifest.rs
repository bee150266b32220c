//! Manifests: what an image or an index says of itself and of what it needs. This module owns the reading; it changes no byte of
//! a manifest. Invariant: a manifest that is read has one of four media types, and names at most [`MAX_REFERENCES`] others.

use super::digest::Digest;
use super::names::shortened;
use crate::objects::Strict;
use serde::Deserialize;

/// An image manifest of Docker.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A manifest list of Docker.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// An image manifest of OCI.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index of OCI.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The largest manifest, in bytes, as in ECR.
pub(crate) const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// Maximum number of layers, or of images of an index.
const MAX_REFERENCES: usize = 4200;
/// The longest media type, in bytes.
const MAX_MEDIA_TYPE: usize = 255;

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// One of the four media types.
    pub(crate) media_type: &'static str,
    /// The type of an artifact: the member, or else the media type of the configuration; `None`: there is neither.
    pub(crate) artifact_type: Option<String>,
    /// The configuration; `None` for an index.
    pub(crate) config: Option<Digest>,
    /// Layers that must be in the repository, in order: not those that clients get from elsewhere.
    pub(crate) layers: Vec<Digest>,
    /// Manifests of an index, in order.
    pub(crate) manifests: Vec<Digest>,
    /// The manifest that this one refers to; it need not exist.
    pub(crate) subject: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    #[serde(default)]
    urls: Vec<String>,
}

impl Descriptor {
    fn digest(&self) -> Result<Digest, String> {
        self.digest.parse().map_err(|error| format!("`{}`: {error}", shortened(&self.digest, 100)))
    }

    /// Clients get the layer from elsewhere, so that it is not pushed.
    fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || self.media_type.as_deref().is_some_and(|kind| kind.contains("foreign.diff"))
    }
}

impl Contents {
    /// Reads a manifest. `media_type` is that of the request; `None`: the manifest's own.
    ///
    /// # Errors
    /// What is wrong with the manifest.
    pub(crate) fn read(manifest: &[u8], media_type: Option<&str>) -> Result<Self, String> {
        if manifest.is_empty() || manifest.len() > MAX_MANIFEST {
            return Err(format!("the manifest must have 1 to {MAX_MANIFEST} bytes"));
        }
        if std::str::from_utf8(manifest).is_err() {
            return Err("the manifest is not UTF-8".to_owned());
        }
        let document: Document = serde_json::from_slice(manifest).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                format!(
                    "the manifest has a member of the wrong form before line {}, column {}",
                    error.line(),
                    error.column()
                )
            }
            _ => format!("Invalid JSON syntax at line {}, column {}", error.line(), error.column()),
        })?;
        // An array is no object, though the decoder takes it for one.
        let value: serde_json::Value = serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
        let strict = serde_path_to_error::deserialize::<_, Document>(Strict(&value));
        strict.map_err(|error| format!("{} in the manifest must be an object, not an array", error.path()))?;
        if document.schema_version == Some(1) {
            return Err("schema version 1 is not stored any more: push with a newer client".to_owned());
        }
        if document.schema_version != Some(2) {
            return Err("schemaVersion must be 2".to_owned());
        }
        let media_type = document.media_type(media_type)?;
        let is_index = media_type == DOCKER_LIST || media_type == OCI_INDEX;
        if is_index == document.manifests.is_none() {
            let needed = if is_index { "manifests" } else { "config and layers, and no manifests" };
            return Err(format!("a manifest of type {media_type} has {needed}"));
        }
        if !is_index && (document.config.is_none() || document.layers.is_none()) {
            return Err(format!("a manifest of type {media_type} has config and layers"));
        }
        document.contents(media_type)
    }

    /// Everything that must be in the repository as a layer, each once.
    pub(crate) fn needed_layers(&self) -> Vec<Digest> {
        let mut needed: Vec<Digest> = self.config.iter().chain(&self.layers).copied().collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

impl Document {
    fn media_type(&self, given: Option<&str>) -> Result<&'static str, String> {
        let given = given.map(|text| text.split(';').next().unwrap_or(text).trim()).filter(|text| !text.is_empty());
        let own = self.media_type.as_deref();
        if let (Some(given), Some(own)) = (given, own)
            && given != own
        {
            let (given, own) = (shortened(given, MAX_MEDIA_TYPE), shortened(own, MAX_MEDIA_TYPE));
            return Err(format!("the media type `{given}` of the request is not that of the manifest, `{own}`"));
        }
        let Some(text) = given.or(own) else {
            return Err("image manifest mediatype not provided in manifest or parameter".to_owned());
        };
        let known = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];
        let found = known.into_iter().find(|known| *known == text);
        let text = shortened(text, MAX_MEDIA_TYPE);
        found.ok_or_else(|| format!("the media type `{text}` is none of {}", known.join(", ")))
    }

    fn contents(&self, media_type: &'static str) -> Result<Contents, String> {
        let layers = self.layers.as_deref().unwrap_or_default();
        let manifests = self.manifests.as_deref().unwrap_or_default();
        if layers.len() > MAX_REFERENCES || manifests.len() > MAX_REFERENCES {
            return Err(format!("a manifest has at most {MAX_REFERENCES} layers or manifests"));
        }
        let config_type = self.config.as_ref().and_then(|config| config.media_type.as_deref());
        let artifact_type = self.artifact_type.as_deref().or(config_type).map(|kind| shortened(kind, MAX_MEDIA_TYPE));
        let pushed = layers.iter().filter(|layer| !layer.is_foreign());
        Ok(Contents {
            media_type,
            artifact_type,
            config: self.config.as_ref().map(Descriptor::digest).transpose()?,
            layers: pushed.map(Descriptor::digest).collect::<Result<_, _>>()?,
            manifests: manifests.iter().map(Descriptor::digest).collect::<Result<_, _>>()?,
            subject: self.subject.as_ref().map(Descriptor::digest).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn digest(seed: &str) -> Digest {
        Digest::compute(seed.as_bytes())
    }

    fn image() -> Value {
        let layer = |seed: &str| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(seed), "size": 1});
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("c"), "size": 1},
            "layers": [layer("b"), layer("a"), layer("b")],
        })
    }

    fn read(document: &Value, media_type: Option<&str>) -> Result<Contents, String> {
        Contents::read(document.to_string().as_bytes(), media_type)
    }

    #[test]
    fn an_image_needs_its_configuration_and_layers() {
        let contents = read(&image(), None).unwrap();
        assert_eq!((contents.media_type, contents.config), (OCI_MANIFEST, Some(digest("c"))));
        assert_eq!(contents.layers, [digest("b"), digest("a"), digest("b")]);
        let mut needed = vec![digest("a"), digest("b"), digest("c")];
        needed.sort();
        assert_eq!(contents.needed_layers(), needed);
        assert_eq!(contents.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
    }

    #[test]
    fn layers_from_elsewhere_are_not_needed() {
        let mut document = image();
        document["layers"][0]["urls"] = json!(["https://example.com/layer"]);
        document["layers"][2]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        assert_eq!(read(&document, None).unwrap().layers, [digest("a")]);
    }

    #[test]
    fn the_request_may_name_the_type() {
        let mut document = image();
        document.as_object_mut().unwrap().remove("mediaType");
        assert_eq!(read(&document, Some(DOCKER_MANIFEST)).unwrap().media_type, DOCKER_MANIFEST);
        assert_eq!(read(&document, Some(&format!("{OCI_MANIFEST}; charset=utf-8"))).unwrap().media_type, OCI_MANIFEST);
        assert!(read(&document, None).unwrap_err().contains("mediatype not provided"));
    }

    #[test]
    fn an_index_names_manifests_and_a_subject() {
        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "artifactType": "application/x",
            "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest("a"), "size": 3}],
            "subject": {"mediaType": OCI_MANIFEST, "digest": digest("s"), "size": 3},
        });
        let contents = read(&index, None).unwrap();
        assert_eq!((contents.manifests, contents.subject), (vec![digest("a")], Some(digest("s"))));
        assert_eq!((contents.config, contents.artifact_type.as_deref()), (None, Some("application/x")));
    }

    #[test]
    fn wrong_manifests_are_refused_with_the_reason() {
        let change = |member: &str, value: Value| {
            let mut document = image();
            document[member] = value;
            document
        };
        let many: Vec<Value> = vec![image()["layers"][0].clone(); MAX_REFERENCES + 1];
        for (document, reason) in [
            (json!([]), "member of the wrong form"),
            (json!({}), "schemaVersion must be 2"),
            (change("config", json!(["application/x", digest("c")])), "config in the manifest must be an object"),
            (change("layers", json!([["application/x", digest("a")]])), "layers[0] in the manifest must be an object"),
            (change("schemaVersion", json!(1)), "schema version 1"),
            (change("mediaType", json!(OCI_INDEX)), "has manifests"),
            (change("mediaType", json!("text/html")), "the media type `text/html` is none of"),
            (change("config", Value::Null), "has config and layers"),
            (change("layers", Value::Null), "has config and layers"),
            (change("layers", json!({})), "member of the wrong form"),
            (change("layers", json!(many)), "at most 4200"),
            (change("manifests", json!([])), "no manifests"),
            (change("config", json!({"digest": "sha256:../../x"})), "`sha256:../../x`: a digest is"),
        ] {
            let error = read(&document, None).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        assert!(read(&image(), Some(DOCKER_MANIFEST)).unwrap_err().contains("is not that of the manifest"));
        for (bytes, reason) in [(&b"{"[..], "Invalid JSON"), (b"", "1 to"), (b"\xff", "not UTF-8")] {
            assert!(Contents::read(bytes, None).unwrap_err().contains(reason), "{reason}");
        }
        assert!(Contents::read(&vec![b' '; MAX_MANIFEST + 1], None).unwrap_err().contains("1 to"));
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(Contents::read(deep.as_bytes(), None).unwrap_err().contains("Invalid JSON"));
    }
}
