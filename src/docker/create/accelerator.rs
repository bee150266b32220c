//! GPUs and other accelerators as Docker's API names them (spec `docker-mapping.md` §4).

use bollard::models::DeviceRequest;
use ecs_core::model::ContainerSpec;
use ecs_core::model::task::Runtime;

/// The runtime to request for a container; `None` = the daemon's default. `nvidia` is the operator's name for the NVIDIA
/// runtime.
pub(crate) fn runtime(runtime: Runtime, nvidia: &str) -> Result<Option<String>, String> {
    match runtime {
        Runtime::Default => Ok(None),
        Runtime::Nvidia if nvidia.is_empty() => Err("Runtime is not set for GPU containers".to_owned()),
        Runtime::Nvidia => Ok(Some(nvidia.to_owned())),
        Runtime::Neuron => Ok(Some("neuron".to_owned())),
    }
}

/// Compat: outside EC2, every container on a host with GPUs requests devices, even a container that has none assigned.
pub(crate) fn device_requests(spec: &ContainerSpec, requests_gpus: bool) -> Option<Vec<DeviceRequest>> {
    let gpu = vec![vec!["gpu".to_owned()]];
    let request =
        DeviceRequest { capabilities: Some(gpu), device_ids: Some(spec.gpus.clone()), ..DeviceRequest::default() };
    requests_gpus.then(|| vec![request])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_runtime_and_the_request_of_an_external_host() {
        assert_eq!(runtime(Runtime::Default, ""), Ok(None));
        assert_eq!(runtime(Runtime::Nvidia, "mine"), Ok(Some("mine".to_owned())));
        assert_eq!(runtime(Runtime::Nvidia, ""), Err("Runtime is not set for GPU containers".to_owned()));
        assert_eq!(runtime(Runtime::Neuron, ""), Ok(Some("neuron".to_owned())));
        let spec = ContainerSpec { gpus: vec!["GPU-1".to_owned()], ..ContainerSpec::default() };
        let wanted = json!([{"Capabilities": [["gpu"]], "DeviceIDs": ["GPU-1"]}]);
        assert_eq!(json!(device_requests(&spec, true)), wanted);
        assert_eq!(device_requests(&spec, false), None);
    }
}
