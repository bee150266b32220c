//! The registry and the credentials for a pull: the operator's entries, ECR, Secrets Manager, a mirror.
//!
//! Owns the choice between the sources of credentials, and the log line that names the chosen one. The credentials themselves
//! come from [`docker::auth`](crate::docker::auth) and [`aws`](crate::aws). Invariant: the image of a container that has its own
//! credentials is pulled from the registry in its name, with these credentials and no others.

use crate::aws::identity::roles::RoleStore;
use crate::aws::services::ecr::{self, EcrTokens};
use crate::aws::services::registry_secret::RegistrySecrets;
use crate::docker::{AuthMap, Mirrors, registry_of, server_of};
use ecs_core::ImageRequest;
use ecs_core::model::task::RegistryAuth;
use ecs_core::model::{CredentialsId, Failure, OpError, RegistryCredentials};

/// All sources of registry credentials.
#[derive(Debug)]
pub(crate) struct Registries {
    /// The operator's entries and credential helpers.
    pub(crate) auth: AuthMap,
    /// Tokens of Amazon ECR.
    pub(crate) ecr: EcrTokens,
    /// User names and passwords from Secrets Manager.
    pub(crate) secrets: RegistrySecrets,
    /// The operator's registry mirrors.
    pub(crate) mirrors: Mirrors,
}

impl Registries {
    /// Drops the secrets that were read with these role credentials, because no task uses the credentials any more.
    pub(crate) fn forget(&self, id: &CredentialsId) {
        self.secrets.forget(id);
    }
}

/// The credentials for an image, valid for its registry only. Logs their source.
pub(crate) async fn credentials(
    registries: &Registries,
    roles: &RoleStore,
    image: &ImageRequest,
) -> Result<RegistryCredentials, Failure> {
    find(registries, roles, image).await.map(|credentials| for_registry(&image.image, credentials))
}

/// The same credentials for the registry of the image, whatever their source calls it: newer engines compare that name with the
/// image.
fn for_registry(image: &str, credentials: RegistryCredentials) -> RegistryCredentials {
    match credentials.is_anonymous() {
        true => credentials,
        false => RegistryCredentials { server_address: server_of(image).to_owned(), ..credentials },
    }
}

/// Drops the ECR token if this failure of the registry says that it has expired. Returns true if a new attempt is worthwhile.
pub(crate) fn drop_expired_token(registries: &Registries, image: &ImageRequest, failure: &str) -> bool {
    let RegistryAuth::Ecr(auth) = &image.auth else { return false };
    let is_expired = ecr::means_token_expired(failure);
    if is_expired {
        tracing::warn!(
            image = image.image,
            "the registry reports that the ECR token has expired; a new one is requested"
        );
        registries.ecr.forget(auth);
    }
    is_expired
}

async fn find(
    registries: &Registries,
    roles: &RoleStore,
    image: &ImageRequest,
) -> Result<RegistryCredentials, Failure> {
    let (name, registry) = (&image.image, registry_of(&image.image));
    let log_source = |source: &str| tracing::info!(image = name, registry, source, "Registry credentials");
    let warn_newline = |credentials: &RegistryCredentials, source: &str| {
        if credentials.ends_in_newline() {
            tracing::warn!(registry, source, "the password ends in a new line; it is used as it is");
        }
    };
    let role = image.execution_credentials.as_ref().and_then(|id| roles.get(id));
    match &image.auth {
        RegistryAuth::Engine => {
            let (credentials, source) = registries.auth.credentials(name).await?;
            log_source(&source);
            warn_newline(&credentials, &source);
            Ok(credentials)
        }
        RegistryAuth::Ecr(auth) => {
            let kind = if auth.use_execution_role { "execution" } else { "instance" };
            let (id, region) = (&auth.registry_id, &auth.region);
            log_source(&format!("ECR token for registry {id} in {region} with the {kind} role"));
            registries.ecr.credentials(auth, name, role.as_deref()).await
        }
        RegistryAuth::Secret(auth) => {
            let source = format!("secret {} of Secrets Manager with the execution role", auth.secret);
            log_source(&source);
            let credentials = registries.secrets.credentials(auth, role.as_deref()).await?;
            warn_newline(&credentials, &source);
            Ok(credentials)
        }
    }
}

/// The same request to the mirror of the image's registry; `None` if no mirror is to be used.
pub(crate) fn at_mirror(registries: &Registries, image: &ImageRequest) -> Option<ImageRequest> {
    if image.auth != RegistryAuth::Engine {
        return None;
    }
    let name = registries.mirrors.name_to_try(&image.image)?;
    // The operator's entry for the mirror takes precedence over a mirror's name that means ECR.
    let ecr = ecr::registry_of_host(registry_of(&name)).filter(|_| !registries.auth.is_configured_for(&name));
    let auth = ecr.map_or(RegistryAuth::Engine, RegistryAuth::Ecr);
    Some(ImageRequest { image: name, auth, ..image.clone() })
}

/// Logs and records that the mirror failed. The caller goes on with the registry itself.
pub(crate) fn mirror_failed(registries: &Registries, mirror: &ImageRequest, image: &ImageRequest, error: &OpError) {
    let (OpError::Failed(why) | OpError::Unknown(why)) = error;
    tracing::warn!(image = image.image, mirror = mirror.image, error = %why, "the mirror failed; the registry itself is used");
    registries.mirrors.record_failure(&mirror.image);
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
            let named = for_registry(image, credentials);
            assert_eq!(named.server_address, "123456789012.dkr-ecr.us-west-2.on.aws");
            assert_eq!((named.username.as_str(), named.password.expose()), ("AWS", "x"));
        }
        assert_eq!(for_registry(image, RegistryCredentials::default()), RegistryCredentials::default());
    }
}
