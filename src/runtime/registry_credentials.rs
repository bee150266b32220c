//! As whom an image is pulled, and from where: the operator's entries, ECR, Secrets Manager, a mirror.
//!
//! Owns the choice between the edges that have credentials, and the line in the log that names it. The credentials themselves come
//! from [`docker::auth`](crate::docker::auth) and [`aws`](crate::aws). The invariant: a container that brings its own credentials is
//! pulled from the registry it names, with these and no others.

use crate::aws::ecr::{self, EcrTokens};
use crate::aws::registry_secret::RegistrySecrets;
use crate::aws::roles::RoleStore;
use crate::core::ImageRequest;
use crate::docker::{AuthMap, Mirrors, registry_of, server_of};
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

/// The credentials for an image, for its host and no other; a line in the log says where they come from.
pub(super) async fn credentials(
    registries: &Registries,
    roles: &RoleStore,
    image: &ImageRequest,
) -> Result<RegistryCredentials, Failure> {
    found(registries, roles, image).await.map(|credentials| naming_host(&image.image, credentials))
}

/// Whatever their source calls the registry: newer engines compare that with the image.
fn naming_host(image: &str, credentials: RegistryCredentials) -> RegistryCredentials {
    match credentials.is_anonymous() {
        true => credentials,
        false => RegistryCredentials { server_address: server_of(image).to_owned(), ..credentials },
    }
}

/// Drops the token of ECR that the registry has called expired with this text; true if there is reason to ask again.
pub(super) fn is_token_dropped(registries: &Registries, image: &ImageRequest, failure: &str) -> bool {
    let RegistryAuth::Ecr(auth) = &image.auth else { return false };
    let is_over = ecr::says_token_is_over(failure);
    if is_over {
        tracing::warn!(image = image.image, "the registry calls the ECR token expired; a new one is asked for");
        registries.ecr.forget(auth);
    }
    is_over
}

async fn found(
    registries: &Registries,
    roles: &RoleStore,
    image: &ImageRequest,
) -> Result<RegistryCredentials, Failure> {
    let (name, registry) = (&image.image, registry_of(&image.image));
    let log_source = |source: &str| tracing::info!(image = name, registry, source, "registry credentials");
    let hint = |credentials: &RegistryCredentials, source: &str| {
        if credentials.ends_in_newline() {
            tracing::warn!(registry, source, "the password ends in a new line; it is used as it is");
        }
    };
    let role = image.execution_credentials.as_ref().and_then(|id| roles.get(id));
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
pub(super) fn at_mirror(registries: &Registries, image: &ImageRequest) -> Option<ImageRequest> {
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
pub(super) fn mirror_failed(registries: &Registries, mirror: &ImageRequest, image: &ImageRequest, error: &OpError) {
    let (OpError::Failed(why) | OpError::Unknown(why)) = error;
    tracing::warn!(image = image.image, mirror = mirror.image, %why, "the mirror failed; the registry itself is asked");
    registries.mirrors.failed(&mirror.image);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_any_source_name_the_host_of_the_image() {
        let image = "123456789012.dkr-ecr.us-west-2.on.aws/app:1";
        for server in ["https://123456789012.dkr.ecr.us-west-2.amazonaws.com", "", "index.docker.io/v1/"] {
            let credentials = RegistryCredentials {
                username: "AWS".to_owned(),
                password: "x".into(),
                server_address: server.to_owned(),
                ..RegistryCredentials::default()
            };
            let named = naming_host(image, credentials);
            assert_eq!(named.server_address, "123456789012.dkr-ecr.us-west-2.on.aws");
            assert_eq!((named.username.as_str(), named.password.expose()), ("AWS", "x"));
        }
        assert_eq!(naming_host(image, RegistryCredentials::default()), RegistryCredentials::default());
    }
}
