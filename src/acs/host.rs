//! The settings and capabilities of this host that the translation of a task depends on.

use std::collections::BTreeSet;

/// Facts of the host that affect the translation of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The AWS region of the instance.
    pub region: String,
    /// `/var/lib/ecs` as Docker sees it (`ECS_HOST_DATA_DIR`).
    pub host_data_dir: String,
    /// True: containers get a metadata file (`ECS_ENABLE_CONTAINER_METADATA`).
    pub metadata_files: bool,
    /// True: CPU and memory limits of tasks are enforced (`ECS_ENABLE_TASK_CPU_MEM_LIMIT`).
    pub task_limits: bool,
    /// True: a container without a memory limit gets the limit of its task (`ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2`, on a host
    /// with cgroup v2).
    pub memory_for_containers: bool,
    /// The capabilities of the volume plugin (`ECS_VOLUME_PLUGIN_CAPABILITIES`), e.g. `efsAuth`.
    pub volume_plugin: BTreeSet<String>,
    /// True: containers may use GPUs (`ECS_ENABLE_GPU_SUPPORT`).
    pub gpus: bool,
    /// True: containers may use Inferentia and Trainium devices (`ECS_ENABLE_INF_SUPPORT`).
    pub inferentia: bool,
    /// True: the host is not an EC2 instance (`ECS_EXTERNAL`).
    pub is_external: bool,
    /// True: containers may use credential specs (`ECS_GMSA_SUPPORTED` is set and its requirements are met).
    pub credential_specs: bool,
    /// True: tasks may have network interfaces of their own (`ECS_ENABLE_TASK_ENI` is true and its requirements are met).
    pub task_networks: bool,
}

impl Default for HostFacts {
    /// An EC2 instance on which the operator has set nothing.
    fn default() -> Self {
        Self {
            region: String::new(),
            host_data_dir: "/var/lib/ecs".to_owned(),
            metadata_files: false,
            task_limits: true,
            memory_for_containers: false,
            volume_plugin: BTreeSet::new(),
            gpus: false,
            inferentia: false,
            is_external: false,
            credential_specs: false,
            task_networks: false,
        }
    }
}
