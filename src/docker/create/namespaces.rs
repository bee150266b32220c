//! The namespace modes of a container. They are set after the payload's own settings and override them (spec `docker-mapping.md`
//! §4).

use ecs_core::model::task::Namespace;
use ecs_core::model::{ContainerKind, CreateRequest};
use serde_json::{Map, Value};

/// Sets the modes that the task definition determines. The others stay as in the payload.
pub(crate) fn apply(host: &mut Map<String, Value>, request: &CreateRequest) {
    let spec = &request.spec;
    let modes = [("PidMode", mode(spec.pid, request)), ("IpcMode", mode(spec.ipc, request))];
    for (name, mode) in modes.into_iter().filter_map(|(name, mode)| Some((name, mode?))) {
        host.insert(name.to_owned(), Value::from(mode));
    }
    if spec.kind == ContainerKind::Pause {
        host.insert("NetworkMode".to_owned(), Value::from("none"));
    }
}

/// The mode to set; `None` = the payload's mode stays. Compat: without a pause container the mode is left alone.
fn mode(namespace: Namespace, request: &CreateRequest) -> Option<String> {
    match namespace {
        Namespace::Own => None,
        Namespace::Host => Some("host".to_owned()),
        Namespace::None => Some("none".to_owned()),
        Namespace::Pause => request.pause.as_ref().map(|name| format!("container:{name}")),
        Namespace::Shareable => Some("shareable".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::ContainerSpec;
    use serde_json::json;

    #[test]
    fn the_task_s_modes_override_those_of_the_payload() {
        let given = json!({"PidMode": "host", "IpcMode": "private", "NetworkMode": "host"});
        let table = [
            (Namespace::Own, Namespace::Own, json!("host"), json!("private")),
            (Namespace::Pause, Namespace::Own, json!("container:ecs-pause"), json!("private")),
            (Namespace::Host, Namespace::Pause, json!("host"), json!("container:ecs-pause")),
            (Namespace::Own, Namespace::None, json!("host"), json!("none")),
            (Namespace::Own, Namespace::Host, json!("host"), json!("host")),
        ];
        for (pid, ipc, pid_mode, ipc_mode) in table {
            let spec = ContainerSpec { pid, ipc, ..ContainerSpec::default() };
            let request = CreateRequest { spec, pause: Some("ecs-pause".to_owned()), ..CreateRequest::default() };
            let mut host = given.as_object().unwrap().clone();
            apply(&mut host, &request);
            let wanted = json!({"PidMode": pid_mode, "IpcMode": ipc_mode, "NetworkMode": "host"});
            assert_eq!(Value::Object(host), wanted, "{pid:?} {ipc:?}");
        }
    }
}
