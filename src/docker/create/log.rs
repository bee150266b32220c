//! The parts of a container's log configuration that the payload does not contain (spec `docker-mapping.md` §8).
//!
//! Owns the connection to the task's log router, and the log options that are secrets. Pure functions. Invariant: a container
//! whose log goes to a router has only the driver options made here, since the payload's options are meant for the router.

use ecs_core::model::resource::LogRouting;
use ecs_core::model::{CreateRequest, Failure, SecretValues};
use serde_json::{Map, Value, json};

/// The port on which every log router listens.
const PORT: &str = "24224";
/// From this version on Docker uses the option's new name. It refuses both names at once.
const ASYNC_SINCE: (u32, u32) = (20, 10);
/// From this version on the awslogs driver accepts an endpoint. A create with an unknown option fails.
const ENDPOINT_SINCE: (u32, u32) = (18, 9);

/// How the engine sends logs to log routers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver<'a> {
    /// Containers do not wait for a slow router.
    pub(crate) is_async: bool,
    /// The engine's version, e.g. `20.10.24`.
    pub(crate) server: &'a str,
}

/// Sends the container's log to the router of its task.
pub(crate) fn route(host: &mut Map<String, Value>, request: &CreateRequest, driver: Driver<'_>) {
    let Some(LogRouting { socket, tag, buffer_limit, .. }) = &request.spec.log_routing else { return };
    let option = if is_at_least(ASYNC_SINCE, driver.server) { "fluentd-async" } else { "fluentd-async-connect" };
    let mut options = json!({
        "tag": tag,
        "fluentd-address": format!("unix://{socket}"),
        "fluentd-sub-second-precision": "true",
        option: driver.is_async.to_string(),
    });
    if let Some(limit) = buffer_limit {
        options["fluentd-buffer-limit"] = json!(limit);
    }
    host.insert("LogConfig".to_owned(), json!({"Type": "fluentd", "Config": options}));
}

/// The option of the awslogs driver with the path of credentials. The engine asks for them at the task metadata endpoint.
pub(crate) const ROLE_OPTION: &str = "awslogs-credentials-endpoint";

/// Has the engine send the container's log with the credentials of the task execution role, which are at `path`; `None`: there
/// are none.
pub(crate) fn use_execution_role(
    host: &mut Map<String, Value>,
    request: &CreateRequest,
    path: Option<String>,
) -> Result<(), Failure> {
    if !request.spec.logs_with_execution_role {
        return Ok(());
    }
    let Some(path) = path else {
        return Err(Failure::permanent("HostConfigError", "No execution credentials set for the task"));
    };
    let log = host.entry("LogConfig").or_insert_with(|| json!({})).as_object_mut();
    let options = log.and_then(|log| {
        let options = log.entry("Config").or_insert_with(|| json!({}));
        if options.is_null() {
            *options = json!({});
        }
        options.as_object_mut()
    });
    if let Some(options) = options {
        options.insert(ROLE_OPTION.to_owned(), Value::from(path));
    }
    Ok(())
}

/// The awslogs driver of this engine has an option for the endpoint.
pub(crate) fn supports_endpoint(server: &str) -> bool {
    is_at_least(ENDPOINT_SINCE, server)
}

/// The engine's version is at least `version`; an unreadable version counts as new.
fn is_at_least(version: (u32, u32), server: &str) -> bool {
    let mut parts = server.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= version,
        _ => true,
    }
}

/// The variables by which a program in the container finds the router. Empty if the container is in the host's network.
pub(crate) fn router_variables(request: &CreateRequest) -> Result<Vec<(&'static str, String)>, Failure> {
    if request.spec.log_routing.as_ref().is_none_or(|routing| routing.router.is_none()) {
        return Ok(Vec::new());
    }
    let Some(address) = &request.router_address else {
        return Err(Failure::permanent("DockerClientConfigError", "unable to get BridgeIP for task in bridge mode"));
    };
    Ok(vec![("FLUENT_HOST", address.clone()), ("FLUENT_PORT", PORT.to_owned())])
}

/// Adds the log options that are secrets, if a driver is set. Empty values are left out.
pub(crate) fn add_secret_options(host: &mut Map<String, Value>, values: &SecretValues) {
    let Some(log) = host.get_mut("LogConfig").and_then(Value::as_object_mut) else { return };
    if values.log_options.is_empty() || log.get("Type").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return;
    }
    let options = log.entry("Config").or_insert_with(|| json!({}));
    if let Some(options) = options.as_object_mut() {
        let given = values.log_options.iter().filter(|(_, value)| !value.expose().is_empty());
        options.extend(given.map(|(name, value)| (name.clone(), json!(value.expose()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::{ContainerSpec, Secret};
    use std::collections::BTreeMap;

    fn request(router: Option<&str>, buffer_limit: Option<&str>) -> CreateRequest {
        let log_routing = Some(LogRouting {
            router: router.map(Into::into),
            socket: "/var/lib/ecs/data/firelens/abc/socket/fluent.sock".to_owned(),
            tag: "app-firelens-abc".to_owned(),
            buffer_limit: buffer_limit.map(str::to_owned),
        });
        let spec = ContainerSpec { log_routing, ..ContainerSpec::default() };
        CreateRequest { spec, router_address: Some("172.17.0.2".to_owned()), ..CreateRequest::default() }
    }

    #[test]
    fn a_routed_log_has_the_recorded_options_and_no_others() {
        for name in ["firelens_fluentbit", "firelens_fluentd"] {
            let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let id = golden["task_arn"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            let mut request = request(Some("router"), None);
            let routing = request.spec.log_routing.as_mut().unwrap();
            (routing.socket, routing.tag) = (routing.socket.replace("abc", &id), routing.tag.replace("abc", &id));
            let mut host = Map::new();
            host.insert("LogConfig".to_owned(), json!({"Type": "awsfirelens", "Config": {"Name": "stdout"}}));
            route(&mut host, &request, Driver { is_async: true, server: "20.10.24+dfsg1" });
            assert_eq!(host["LogConfig"], golden["app_LogConfig"]);
        }
    }

    #[test]
    fn the_async_option_depends_on_the_engine_s_version() {
        for (server, is_async, option) in [
            ("19.3.15", true, "fluentd-async-connect"),
            ("20.9", false, "fluentd-async-connect"),
            ("20.10.0-rc1", false, "fluentd-async"),
            ("dev", true, "fluentd-async"),
        ] {
            let mut host = Map::new();
            route(&mut host, &request(None, Some("2097152")), Driver { is_async, server });
            let options = &host["LogConfig"]["Config"];
            assert_eq!(options[option], json!(is_async.to_string()), "{server}");
            assert_eq!(
                (options["fluentd-buffer-limit"].as_str(), options.as_object().unwrap().len()),
                (Some("2097152"), 5)
            );
        }
        let mut host = Map::new();
        route(&mut host, &CreateRequest::default(), Driver { is_async: true, server: "" });
        assert!(host.is_empty());
    }

    #[test]
    fn a_missing_router_address_is_an_error() {
        let variables = |request: &CreateRequest| router_variables(request).map_err(|failure| failure.to_string());
        let both = vec![("FLUENT_HOST", "172.17.0.2".to_owned()), ("FLUENT_PORT", "24224".to_owned())];
        assert_eq!(variables(&request(Some("router"), None)), Ok(both));
        assert_eq!(variables(&request(None, None)), Ok(Vec::new()));
        let unknown = CreateRequest { router_address: None, ..request(Some("router"), None) };
        let text = "DockerClientConfigError: unable to get BridgeIP for task in bridge mode";
        assert_eq!(variables(&unknown), Err(text.to_owned()));
    }

    #[test]
    fn secret_options_need_a_driver() {
        let values = SecretValues {
            log_options: BTreeMap::from([
                ("splunk-token".to_owned(), Secret::from("t0ken")),
                ("tag".to_owned(), Secret::from("")),
            ]),
            ..SecretValues::default()
        };
        let revealed = |log: Value| {
            let mut host = Map::from_iter([("LogConfig".to_owned(), log)]);
            add_secret_options(&mut host, &values);
            host["LogConfig"].clone()
        };
        assert_eq!(revealed(json!({"Type": "splunk"}))["Config"]["splunk-token"], "t0ken");
        let kept = revealed(json!({"Type": "splunk", "Config": {"splunk-url": "u"}}));
        assert_eq!(kept["Config"], json!({"splunk-url": "u", "splunk-token": "t0ken"}));
        assert_eq!(revealed(json!({"Type": ""})), json!({"Type": ""}));
    }
}
