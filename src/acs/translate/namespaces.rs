//! `pidMode` and `ipcMode`: the namespaces that containers of a task share (spec `docker-mapping.md` §4, §11).
//!
//! Owns the pause container, a container of the agent's own, whose namespaces the others share if a mode is `task`. Every other
//! container depends on its start, so the pause container is started first and stopped last. Invariant: a task has a pause
//! container exactly if `pidMode` or `ipcMode` is `task`.

use ecs_core::model::task::{Condition, Dependency, Namespace, PAUSE_IMAGE, PAUSE_NAME};
use ecs_core::model::{ContainerKind, ContainerSpec};

/// Sets the namespaces of the containers of a task, and adds the pause container if needed. `new_id` gives the pause container
/// its endpoint id.
pub(super) fn share(
    containers: &mut Vec<ContainerSpec>,
    pid_mode: &str,
    ipc_mode: &str,
    new_id: &mut dyn FnMut() -> String,
) -> Result<(), String> {
    let pid = match pid_mode {
        "" => Namespace::Own,
        "host" => Namespace::Host,
        "task" => Namespace::Pause,
        other => return Err(format!("unrecognized pidMode {other}")),
    };
    let ipc = match ipc_mode {
        "" => Namespace::Own,
        "host" => Namespace::Host,
        "none" => Namespace::None,
        "task" => Namespace::Pause,
        other => return Err(format!("unrecognized ipcMode {other}")),
    };
    for container in containers.iter_mut() {
        (container.pid, container.ipc) = (pid, ipc);
    }
    if containers.iter().any(|container| container.name.as_str() == PAUSE_NAME) {
        return Err(format!("the container name {PAUSE_NAME} is the agent's own"));
    }
    if pid == Namespace::Pause || ipc == Namespace::Pause {
        for container in containers.iter_mut() {
            container.depends_on.push(Dependency { container: PAUSE_NAME.into(), condition: Condition::Start });
        }
        containers.push(ContainerSpec {
            name: PAUSE_NAME.into(),
            kind: ContainerKind::Pause,
            image: PAUSE_IMAGE.to_owned(),
            essential: true,
            ipc: if ipc == Namespace::Pause { Namespace::Shareable } else { Namespace::Own },
            endpoint_id: new_id().into(),
            ..ContainerSpec::default()
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(pid_mode: &str, ipc_mode: &str) -> Result<Vec<ContainerSpec>, String> {
        let mut containers = vec![ContainerSpec { name: "a".into(), ..ContainerSpec::default() }];
        share(&mut containers, pid_mode, ipc_mode, &mut || "id".to_owned()).map(|()| containers)
    }

    #[test]
    fn each_mode() {
        use Namespace::{Host, None, Own, Pause, Shareable};
        let table = [
            ("", "", Own, Own, Option::None),
            ("host", "host", Host, Host, Option::None),
            ("", "none", Own, None, Option::None),
            ("task", "", Pause, Own, Some(Own)),
            ("task", "none", Pause, None, Some(Own)),
            ("host", "task", Host, Pause, Some(Shareable)),
            ("task", "task", Pause, Pause, Some(Shareable)),
        ];
        for (pid_mode, ipc_mode, pid, ipc, pause_ipc) in table {
            let containers = shared(pid_mode, ipc_mode).unwrap();
            assert_eq!((containers[0].pid, containers[0].ipc), (pid, ipc), "{pid_mode} {ipc_mode}");
            let pause = containers.get(1);
            assert_eq!(pause.map(|pause| pause.ipc), pause_ipc, "{pid_mode} {ipc_mode}");
            let waits: Vec<_> =
                containers[0].depends_on.iter().map(|wait| (wait.container.as_str(), wait.condition)).collect();
            if let Some(pause) = pause {
                assert_eq!((pause.kind, pause.essential, pause.pid), (ContainerKind::Pause, true, Own));
                assert_eq!((pause.name.as_str(), pause.image.as_str()), (PAUSE_NAME, PAUSE_IMAGE));
                assert_eq!(waits, [(PAUSE_NAME, Condition::Start)]);
                assert!(pause.depends_on.is_empty());
            } else {
                assert_eq!(waits, []);
            }
        }
    }

    #[test]
    fn other_modes_are_refused() {
        assert_eq!(shared("none", "").unwrap_err(), "unrecognized pidMode none");
        assert_eq!(shared("", "Task").unwrap_err(), "unrecognized ipcMode Task");
    }
}
