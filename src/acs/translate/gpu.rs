//! GPUs and other accelerators of containers (spec `docker-mapping.md` §4, §12).
//!
//! Owns the assignment of GPUs to containers, and the container runtime that these need. The core decides which GPUs are free.
//! Invariant: a GPU belongs to exactly one container of the task.

use super::super::host::HostFacts;
use super::super::wire;
use ecs_core::model::ContainerSpec;
use ecs_core::model::task::Runtime;

const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";
const NEURON: &str = "AWS_NEURON_VISIBLE_DEVICES";

/// Sets the GPUs, the environment and the runtime of each container, from the task's associations and the container's own
/// environment.
pub(super) fn assign(
    containers: &mut [ContainerSpec],
    associations: &[wire::Association],
    host: &HostFacts,
) -> Result<(), String> {
    let gpus = || associations.iter().filter(|association| association.kind == "gpu");
    for gpu in gpus() {
        let [name] = gpu.containers.as_slice() else {
            return Err(format!("could not associate multiple containers to GPU {}", gpu.name));
        };
        let container = containers
            .iter_mut()
            .find(|container| container.name.as_str() == name)
            .ok_or_else(|| format!("could not find container with name {name} for associating GPU {}", gpu.name))?;
        container.gpus.push(gpu.name.clone());
    }
    for container in containers {
        let environment = &mut container.environment.0;
        if !container.gpus.is_empty() && !host.is_external {
            environment.insert(NVIDIA.to_owned(), container.gpus.join(","));
        }
        if gpus().next().is_some() && environment.contains_key(NVIDIA) && !host.is_external {
            container.runtime = Runtime::Nvidia;
        }
        if host.inferentia && environment.contains_key(NEURON) {
            container.runtime = Runtime::Neuron;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn association(name: &str, containers: &[&str]) -> wire::Association {
        let containers = containers.iter().map(|name| (*name).to_owned()).collect();
        wire::Association { name: name.to_owned(), kind: "gpu".to_owned(), containers, ..Default::default() }
    }

    fn assigned(
        associations: &[wire::Association],
        host: &HostFacts,
        environment: &[&str],
    ) -> Result<Vec<ContainerSpec>, String> {
        let mut containers = ["a", "b"].map(|name| ContainerSpec { name: name.into(), ..ContainerSpec::default() });
        containers[1].environment.0 = environment.iter().map(|key| ((*key).to_owned(), "0".to_owned())).collect();
        assign(&mut containers, associations, host).map(|()| containers.to_vec())
    }

    #[test]
    fn gpus_are_named_in_the_environment_and_need_their_runtime() {
        let two = [association("GPU-1", &["a"]), association("GPU-2", &["a"])];
        let host = HostFacts { gpus: true, ..HostFacts::default() };
        let [a, b] = &assigned(&two, &host, &[]).unwrap()[..] else { panic!("two containers") };
        assert_eq!((a.environment.0[NVIDIA].as_str(), a.runtime), ("GPU-1,GPU-2", Runtime::Nvidia));
        assert_eq!(a.gpus, ["GPU-1", "GPU-2"]);
        assert_eq!((b.environment.0.len(), b.runtime), (0, Runtime::Default));
        // A container that sets the variable itself: with another container's GPU in the task, and without any GPU.
        assert_eq!(assigned(&two, &host, &[NVIDIA]).unwrap()[1].runtime, Runtime::Nvidia);
        assert_eq!(assigned(&[], &host, &[NVIDIA]).unwrap()[1].runtime, Runtime::Default);
        let outside = HostFacts { is_external: true, ..host };
        let a = &assigned(&two, &outside, &[]).unwrap()[0];
        assert_eq!((a.environment.0.len(), a.runtime, a.gpus.len()), (0, Runtime::Default, 2));
    }

    #[test]
    fn neuron_takes_precedence_over_nvidia_if_it_is_enabled() {
        let single = [association("GPU-1", &["b"])];
        let host = HostFacts { gpus: true, inferentia: true, ..HostFacts::default() };
        assert_eq!(assigned(&single, &host, &[NEURON]).unwrap()[1].runtime, Runtime::Neuron);
        assert_eq!(assigned(&[], &HostFacts::default(), &[NEURON]).unwrap()[1].runtime, Runtime::Default);
    }

    #[test]
    fn a_gpu_without_exactly_one_container_is_refused() {
        let host = HostFacts { gpus: true, ..HostFacts::default() };
        for (containers, text) in [
            (&["a", "b"][..], "could not associate multiple containers to GPU GPU-1"),
            (&[], "could not associate multiple containers to GPU GPU-1"),
            (&["c"], "could not find container with name c for associating GPU GPU-1"),
        ] {
            assert_eq!(assigned(&[association("GPU-1", containers)], &host, &[]).unwrap_err(), text);
        }
    }
}
