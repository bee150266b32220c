//! Credential specs of containers, for group managed service accounts (spec `resources.md` §7).
//!
//! Pure. Owns where a container names its credential spec and how that begins; where its document is, is found out by whoever asks
//! for it, as in the Go agent. The invariant: a container that names one waits for its ticket, or the task is refused.

use super::docker_config::json_object;
use crate::acs::wire;
use crate::model::json::member;
use crate::model::resource::{DOMAIN_JOINED, DOMAINLESS, ResourceSpec};
use crate::model::{ContainerSpec, ResourceKind};
use serde_json::Value;
use std::collections::BTreeSet;

/// What both forms begin with.
const PREFIX: &str = "credentialspec";

/// The credential spec of a container, wherever it names one: the field goes before the security option.
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

/// The other way to name one: `dockerSecurityOptions`, which Docker itself knows on Windows only.
fn security_option(container: &wire::Container) -> Option<String> {
    let object = json_object(&container.docker_config.host_config, "hostConfig").unwrap_or_default();
    let options = member(&object, "SecurityOpt")?.as_array()?;
    options.iter().filter_map(Value::as_str).find(|option| option.starts_with(PREFIX)).map(str::to_owned)
}

/// One resource for all of them: each spec once.
pub(super) fn resource(containers: &[ContainerSpec]) -> Option<ResourceSpec> {
    let specs: BTreeSet<&String> = containers.iter().filter_map(|it| it.credential_spec.as_ref()).collect();
    let users = containers.iter().filter(|it| it.credential_spec.is_some());
    (!specs.is_empty()).then(|| ResourceSpec {
        name: "credentialspec".to_owned(),
        needed_by: users.map(|it| it.name.clone()).collect(),
        kind: ResourceKind::CredentialSpecs(specs.into_iter().cloned().collect()),
    })
}
