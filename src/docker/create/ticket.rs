//! The Kerberos ticket of a container with a credential spec (spec `docker-mapping.md` §2, `resources.md` §7).
//!
//! Owns the mount of the ticket in the container. It is set after the payload's own settings. Invariant: a container with a
//! credential spec is created with its ticket or not at all.

use crate::docker::api::error::config_error;
use ecs_core::model::{CreateRequest, Failure};
use serde_json::{Map, Value};

/// The path at which programs in the container expect the ticket, as the end of a bind mount.
const MOUNT: &str = "/var/credentials-fetcher/krbdir:ro";

/// Mounts the ticket, and removes the security option that names the credential spec, which Docker supports on Windows only.
pub(crate) fn apply(host: &mut Map<String, Value>, request: &CreateRequest) -> Result<(), Failure> {
    if request.spec.credential_spec.is_none() {
        return Ok(());
    }
    let missing = || config_error("unable to fetch valid credentialspec mapping".to_owned());
    let bind = format!("{}:{MOUNT}", request.ticket.as_ref().ok_or_else(missing)?);
    if let Some(binds) = host.entry("Binds").or_insert_with(|| Value::Array(Vec::new())).as_array_mut() {
        binds.push(Value::from(bind));
    }
    if let Some(options) = host.get_mut("SecurityOpt").and_then(Value::as_array_mut) {
        // The Go agent keeps the option of a domainless spec, and Docker then refuses to create the container.
        options.retain(|option| !option.as_str().is_some_and(|option| option.starts_with("credentialspec")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::ContainerSpec;
    use serde_json::json;

    fn applied(host: Value, spec: Option<&str>, ticket: Option<&str>) -> Result<Value, String> {
        let spec = ContainerSpec { credential_spec: spec.map(str::to_owned), ..ContainerSpec::default() };
        let request = CreateRequest { spec, ticket: ticket.map(str::to_owned), ..CreateRequest::default() };
        let mut host = host.as_object().unwrap().clone();
        apply(&mut host, &request).map_err(|failure| failure.to_string())?;
        Ok(Value::Object(host))
    }

    #[test]
    fn a_ticket_is_mounted_and_its_security_option_removed() {
        let spec = Some("credentialspec:file://x");
        let bind = "/krb/1/web:/var/credentials-fetcher/krbdir:ro";
        assert_eq!(applied(json!({}), spec, Some("/krb/1/web")), Ok(json!({"Binds": [bind]})));
        let options = json!(["label:x", "credentialspecdomainless:file://x", "no-new-privileges"]);
        let given = json!({"Binds": ["/a:/b"], "SecurityOpt": options});
        let wanted = json!({"Binds": ["/a:/b", bind], "SecurityOpt": ["label:x", "no-new-privileges"]});
        assert_eq!(applied(given.clone(), spec, Some("/krb/1/web")), Ok(wanted));
        assert_eq!(applied(given.clone(), None, None), Ok(given));
    }

    #[test]
    fn without_its_ticket_the_container_is_not_created() {
        let failure = applied(json!({}), Some("credentialspec:file://x"), None).unwrap_err();
        assert_eq!(failure, "DockerClientConfigError: unable to fetch valid credentialspec mapping");
    }
}
