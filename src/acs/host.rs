//! What a task's translation depends on besides the task: this host's settings and abilities.

use std::collections::BTreeSet;

/// Facts of the host that decide what a task becomes here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Region of the instance.
    pub region: String,
    /// `/var/lib/ecs` as Docker sees it (`ECS_HOST_DATA_DIR`).
    pub host_data_dir: String,
    /// CPU and memory limits of tasks are made (`ECS_ENABLE_TASK_CPU_MEM_LIMIT`).
    pub task_limits: bool,
    /// A container without memory limit gets its task's (`ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2`, on a host with cgroup v2).
    pub memory_for_containers: bool,
    /// What the volume plugin can do (`ECS_VOLUME_PLUGIN_CAPABILITIES`), e.g. `efsAuth`.
    pub volume_plugin: BTreeSet<String>,
    /// GPUs are given to containers (`ECS_ENABLE_GPU_SUPPORT`).
    pub gpus: bool,
    /// Inferentia and Trainium are given to containers (`ECS_ENABLE_INF_SUPPORT`).
    pub inferentia: bool,
    /// The host is not an EC2 instance (`ECS_EXTERNAL`).
    pub is_external: bool,
    /// Credential specs can be used (`ECS_GMSA_SUPPORTED` and what it needs).
    pub credential_specs: bool,
}

impl Default for HostFacts {
    /// An EC2 instance on which the operator has set nothing.
    fn default() -> Self {
        Self {
            region: String::new(),
            host_data_dir: "/var/lib/ecs".to_owned(),
            task_limits: true,
            memory_for_containers: false,
            volume_plugin: BTreeSet::new(),
            gpus: false,
            inferentia: false,
            is_external: false,
            credential_specs: false,
        }
    }
}
