//! As whom an image is pulled, and from where: the operator's entries, ECR, Secrets Manager, a mirror.
//!
//! Owns the choice between the edges that have credentials, and the line in the log that names it. The credentials themselves come
//! from [`docker::auth`](crate::docker::auth) and [`aws`](crate::aws). The invariant: a container that brings its own credentials is
//! pulled from the registry it names, with these and no others.

use super::executor::Edges;
use crate::aws::ecr::{self, EcrTokens};
use crate::aws::registry_secret::RegistrySecrets;
use crate::docker::{AuthMap, Mirrors, registry_of};
use crate::engine::ImageRequest;
use crate::model::task::RegistryAuth;
use crate::model::{CredentialsId, Failure, OpError, RegistryCredentials};

/// Everything that has credentials for registries.
#[derive(Debug)]
pub(super) struct Registries {
    /// The operator's entries and helpers.
    pub(super) auth: AuthMap,
    /// Tokens of Amazon ECR.
    pub(super) ecr: EcrTokens,
    /// User and password in Secrets Manager.
    pub(super) secrets: RegistrySecrets,
    /// The operator's mirrors.
    pub(super) mirrors: Mirrors,
}

impl Registries {
    /// No task uses these role credentials any more, nor what was read with them.
    pub(super) fn forget(&self, id: &CredentialsId) {
        self.secrets.forget(id);
    }
}

/// The credentials for an image; a line in the log says where they come from.
pub(super) async fn credentials(edges: &Edges, image: &ImageRequest) -> Result<RegistryCredentials, Failure> {
    let registries = &edges.registries;
    let (name, registry) = (&image.image, registry_of(&image.image));
    let log_source = |source: &str| tracing::info!(image = name, registry, source, "registry credentials");
    let hint = |credentials: &RegistryCredentials, source: &str| {
        if credentials.ends_in_newline() {
            tracing::warn!(registry, source, "the password ends in a new line; it is used as it is");
        }
    };
    let role = image.execution_credentials.as_ref().and_then(|id| edges.roles.get(id));
    match &image.auth {
        RegistryAuth::Engine => {
            let (credentials, source) = registries.auth.credentials(name).await?;
            log_source(&source);
            hint(&credentials, &source);
            Ok(credentials)
        }
        RegistryAuth::Ecr(auth) => {
            let whose = if auth.use_execution_role { "execution" } else { "instance" };
            let (id, region) = (&auth.registry_id, &auth.region);
            log_source(&format!("ECR token for registry {id} in {region} with the {whose} role"));
            registries.ecr.credentials(auth, name, role.as_deref()).await
        }
        RegistryAuth::Secret(auth) => {
            let source = format!("secret {} of Secrets Manager with the execution role", auth.secret);
            log_source(&source);
            let credentials = registries.secrets.credentials(auth, role.as_deref()).await?;
            hint(&credentials, &source);
            Ok(credentials)
        }
    }
}

/// The same image at the mirror of its registry, if it is to be asked for there.
pub(super) fn at_mirror(edges: &Edges, image: &ImageRequest) -> Option<ImageRequest> {
    let registries = &edges.registries;
    if image.auth != RegistryAuth::Engine {
        return None;
    }
    let name = registries.mirrors.place_of(&image.image)?;
    // What the operator says of the mirror goes before what its name says.
    let ecr = ecr::registry_called(registry_of(&name)).filter(|_| !registries.auth.names(&name));
    let auth = ecr.map_or(RegistryAuth::Engine, RegistryAuth::Ecr);
    Some(ImageRequest { image: name, auth, ..image.clone() })
}

/// The mirror did not help: the registry itself is asked.
pub(super) fn mirror_failed(edges: &Edges, mirror: &ImageRequest, image: &ImageRequest, error: &OpError) {
    let (OpError::Failed(why) | OpError::Unknown(why)) = error;
    tracing::warn!(image = image.image, mirror = mirror.image, %why, "the mirror failed; the registry itself is asked");
    edges.registries.mirrors.failed(&mirror.image);
}
