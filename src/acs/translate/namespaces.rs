//! The network mode `awsvpc`, `pidMode` and `ipcMode`: the namespaces that containers of a task share (spec `docker-mapping.md` §4,
//! §11).
//!
//! Owns the pause container, a container of the agent's own, whose namespaces the others share if a mode is `task`, or whose
//! network they share. Every other container depends on its start, so the pause container is started first and stopped last.
//! Invariant: a task has one pause container if its network mode is `awsvpc` or if `pidMode` or `ipcMode` is `task`, otherwise none.
//! (The Go agent makes two if both apply.)

use ecs_core::model::task::{
    Condition, Dependency, NETWORK_PAUSE_NAME, Namespace, NetworkMode, PAUSE_IMAGE, PAUSE_NAME,
};
use ecs_core::model::{ContainerKind, ContainerSpec};

/// Sets the namespaces of the containers of a task, and adds the pause container if needed. `new_id` gives the pause container
/// its endpoint id.
pub(super) fn share(
    containers: &mut Vec<ContainerSpec>,
    network: NetworkMode,
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
    let has_network = network == NetworkMode::Awsvpc;
    for container in containers.iter_mut() {
        (container.pid, container.ipc) = (pid, ipc);
        if has_network {
            // All containers have the same interface, so nothing needs to be published. Docker would refuse it.
            (container.ports, container.port_ranges) = (Vec::new(), Vec::new());
        }
    }
    let is_own = |container: &&ContainerSpec| [PAUSE_NAME, NETWORK_PAUSE_NAME].contains(&container.name.as_str());
    if let Some(container) = containers.iter().find(is_own) {
        return Err(format!("the container name {} is the agent's own", container.name));
    }
    if has_network || pid == Namespace::Pause || ipc == Namespace::Pause {
        let name = if has_network { NETWORK_PAUSE_NAME } else { PAUSE_NAME };
        for container in containers.iter_mut() {
            container.depends_on.push(Dependency { container: name.into(), condition: Condition::Start });
        }
        containers.push(ContainerSpec {
            name: name.into(),
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
        let new_id = &mut || "id".to_owned();
        share(&mut containers, NetworkMode::Bridge, pid_mode, ipc_mode, new_id).map(|()| containers)
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
    fn a_network_of_its_own_needs_one_pause_container() {
        for ipc_mode in ["", "task"] {
            let (container_port, host_port, protocol) = (80, 0, ecs_core::model::Protocol::Tcp);
            let port = ecs_core::model::task::PortMapping { container_port, host_port, protocol };
            let web = ContainerSpec { name: "web".into(), ports: vec![port], ..ContainerSpec::default() };
            let mut containers = vec![web];
            share(&mut containers, NetworkMode::Awsvpc, "", ipc_mode, &mut || "id".to_owned()).unwrap();
            let [web, pause] = containers.as_slice() else { panic!("{containers:?}") };
            assert_eq!((pause.name.as_str(), pause.kind), ("~internal~ecs~pause", ContainerKind::Pause));
            assert_eq!(pause.ipc == Namespace::Shareable, ipc_mode == "task");
            assert!(web.ports.is_empty() && web.depends_on[0].container == pause.name);
        }
        for name in [PAUSE_NAME, NETWORK_PAUSE_NAME] {
            let mut containers = vec![ContainerSpec { name: name.into(), ..ContainerSpec::default() }];
            let error = share(&mut containers, NetworkMode::Bridge, "", "", &mut String::new).unwrap_err();
            assert_eq!(error, format!("the container name {name} is the agent's own"));
        }
    }

    #[test]
    fn other_modes_are_refused() {
        assert_eq!(shared("none", "").unwrap_err(), "unrecognized pidMode none");
        assert_eq!(shared("", "Task").unwrap_err(), "unrecognized ipcMode Task");
    }
}
