//! Credential specs of containers, for group managed service accounts (spec `resources.md` §7).
//!
//! Pure. Owns the members that may name a credential spec, and its prefixes. The rest of the name is not checked here: as in
//! the Go agent, an error in it is found when the edge `crate::resources` fetches the document. The invariant: a container with
//! a credential spec waits for its ticket, or the task is refused.

use super::docker_config::json_object;
use crate::acs::wire;
use crate::input::json::member;
use ecs_core::model::resource::{DOMAIN_JOINED, DOMAINLESS, ResourceSpec};
use ecs_core::model::{ContainerSpec, ResourceKind};
use serde_json::Value;
use std::collections::BTreeSet;

/// The common prefix of both forms.
const PREFIX: &str = "credentialspec";

/// The credential spec of a container: from `credentialSpecs`, otherwise from `dockerSecurityOptions`; `None` if neither has
/// one.
pub(in crate::acs) fn in_container(container: &wire::Container) -> Result<Option<String>, String> {
    let named = container.credential_specs.iter().find(|spec| spec.starts_with(PREFIX)).cloned();
    let spec = match (named.or_else(|| security_option(container)), container.credential_specs.first()) {
        (Some(spec), _) => spec,
        (None, Some(other)) => other.clone(),
        (None, None) => return Ok(None),
    };
    if spec.starts_with(DOMAIN_JOINED) || spec.starts_with(DOMAINLESS) {
        return Ok(Some(spec));
    }
    Err(format!(
        "the credential spec {spec} of {} starts with neither {DOMAIN_JOINED} nor {DOMAINLESS}",
        container.name
    ))
}

/// The credential spec in `dockerSecurityOptions`, which Docker itself supports on Windows only.
fn security_option(container: &wire::Container) -> Option<String> {
    let object = json_object(&container.docker_config.host_config, "hostConfig").unwrap_or_default();
    let options = member(&object, "SecurityOpt")?.as_array()?;
    options.iter().filter_map(Value::as_str).find(|option| option.starts_with(PREFIX)).map(str::to_owned)
}

/// One resource for all credential specs of the task. Each spec occurs once.
pub(super) fn resource(containers: &[ContainerSpec]) -> Option<ResourceSpec> {
    let specs: BTreeSet<&String> =
        containers.iter().filter_map(|container| container.credential_spec.as_ref()).collect();
    let users = containers.iter().filter(|container| container.credential_spec.is_some());
    (!specs.is_empty()).then(|| ResourceSpec {
        name: "credentialspec".to_owned(),
        needed_by: users.map(|container| container.name.clone()).collect(),
        kind: ResourceKind::CredentialSpecs(specs.into_iter().cloned().collect()),
    })
}
