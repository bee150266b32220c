//! Translates the secrets of containers (spec `resources.md` §4).
//!
//! Pure. The invariant: a task whose secret has an unknown provider or target is refused; the secret is never left out.

use crate::acs::wire;
use ecs_core::model::resource::{ResourceSpec, SecretKey, SecretProvider, SecretTarget, SecretUse};
use ecs_core::model::{ContainerSpec, ResourceKind};
use std::collections::BTreeSet;

/// The secrets of a container, in the order of the message.
pub(super) fn uses(secrets: Vec<wire::Secret>) -> Result<Vec<SecretUse>, String> {
    secrets.into_iter().map(secret_use).collect()
}

fn secret_use(wire: wire::Secret) -> Result<SecretUse, String> {
    if wire.name.is_empty() {
        return Err("a secret has no name".to_owned());
    }
    let name = &wire.name;
    if wire.value_from.is_empty() {
        return Err(format!("the secret {name} has no valueFrom"));
    }
    let provider = match wire.provider.as_str() {
        "ssm" => SecretProvider::Ssm,
        "asm" => SecretProvider::SecretsManager,
        other => return Err(format!("unrecognized provider {other} of the secret {name}")),
    };
    let target = match (wire.target.as_str(), wire.kind.as_str()) {
        ("LOG_DRIVER", _) => SecretTarget::LogOption,
        ("" | "CONTAINER", "" | "ENVIRONMENT_VARIABLE") => SecretTarget::Environment,
        ("" | "CONTAINER", other) => return Err(format!("unrecognized type {other} of the secret {name}")),
        (other, _) => return Err(format!("unrecognized target {other} of the secret {name}")),
    };
    let key = SecretKey { provider, value_from: wire.value_from, region: wire.region };
    Ok(SecretUse { name: wire.name, key, target })
}

/// One resource for each service that stores secrets of these containers. Each secret occurs once.
pub(super) fn resources(containers: &[ContainerSpec]) -> Vec<ResourceSpec> {
    let resource_for = |provider: SecretProvider, name: &str| {
        let has_secret = |container: &ContainerSpec| container.secrets.iter().any(|used| used.key.provider == provider);
        let all = containers.iter().flat_map(|container| &container.secrets);
        let keys: BTreeSet<SecretKey> =
            all.filter(|used| used.key.provider == provider).map(|used| used.key.clone()).collect();
        (!keys.is_empty()).then(|| ResourceSpec {
            name: name.to_owned(),
            needed_by: containers
                .iter()
                .filter(|container| has_secret(container))
                .map(|container| container.name.clone())
                .collect(),
            kind: ResourceKind::Secrets(keys.into_iter().collect()),
        })
    };
    [resource_for(SecretProvider::Ssm, "ssmsecret"), resource_for(SecretProvider::SecretsManager, "asmsecret")]
        .into_iter()
        .flatten()
        .collect()
}
