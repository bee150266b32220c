//! The plain objects inside a task definition, named as in the ECS API (models/ecs-smithy.json). Types and defaults only.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Declares a plain object of the API: members are in camelCase, unknown members are refused.
macro_rules! shape {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name { $($(#[$attribute])* pub(crate) $field: $kind),* }
    };
}

shape!(KeyValue {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String
});
shape!(PortMapping {
    #[serde(default)] container_port: u16,
    #[serde(default)] host_port: u16,
    #[serde(default = "tcp")] protocol: String,
    container_port_range: Option<String>,
    name: Option<String>,
    app_protocol: Option<String>,
});
shape!(MountPoint {
    #[serde(default)]
    source_volume: String,
    #[serde(default)]
    container_path: String,
    #[serde(default)]
    read_only: bool,
});
shape!(VolumeFrom {
    #[serde(default)]
    source_container: String,
    #[serde(default)]
    read_only: bool
});
shape!(NamedSecret { name: String, value_from: String });
shape!(DependsOn { container_name: String, condition: String });
shape!(HostEntry { hostname: String, ip_address: String });
shape!(Ulimit { name: String, soft_limit: i64, hard_limit: i64 });
shape!(SystemControl { namespace: Option<String>, value: Option<String> });
shape!(LogConfiguration {
    log_driver: String,
    #[serde(default)] options: BTreeMap<String, String>,
    #[serde(default)] secret_options: Vec<NamedSecret>,
});
shape!(
    /// Times are in seconds.
    HealthCheck {
        command: Vec<String>,
        #[serde(default = "health_interval")] interval: u32,
        #[serde(default = "health_timeout")] timeout: u32,
        #[serde(default = "health_retries")] retries: u32,
        start_period: Option<u32>,
    }
);
shape!(
    /// Sizes are in MiB.
    LinuxParameters {
        capabilities: Option<Capabilities>,
        #[serde(default)] devices: Vec<Device>,
        init_process_enabled: Option<bool>,
        shared_memory_size: Option<u32>,
        #[serde(default)] tmpfs: Vec<Tmpfs>,
        max_swap: Option<u32>,
        swappiness: Option<u32>,
    }
);
shape!(Capabilities { #[serde(default)] add: Vec<String>, #[serde(default)] drop: Vec<String> });
shape!(Device { host_path: String, container_path: Option<String>, #[serde(default)] permissions: Vec<String> });
shape!(Tmpfs { container_path: String, size: u32, #[serde(default)] mount_options: Vec<String> });
shape!(Volume {
    name: String,
    host: Option<HostVolume>,
    docker_volume_configuration: Option<DockerVolume>,
    efs_volume_configuration: Option<EfsVolume>,
    fsx_windows_file_server_volume_configuration: Option<Value>,
    s3files_volume_configuration: Option<S3FilesVolume>,
    configured_at_launch: Option<bool>,
});
shape!(HostVolume { source_path: Option<String> });
shape!(DockerVolume {
    scope: Option<String>,
    autoprovision: Option<bool>,
    driver: Option<String>,
    #[serde(default)] driver_opts: BTreeMap<String, String>,
    #[serde(default)] labels: BTreeMap<String, String>,
});
shape!(EfsVolume {
    file_system_id: String,
    root_directory: Option<String>,
    transit_encryption: Option<String>,
    transit_encryption_port: Option<u16>,
    authorization_config: Option<EfsAuthorization>,
});
shape!(S3FilesVolume {
    file_system_arn: String,
    root_directory: Option<String>,
    transit_encryption_port: Option<u16>,
    access_point_arn: Option<String>,
});
impl S3FilesVolume {
    /// The id at the end of the ARN of the file system; `None`: the ARN is invalid.
    pub(crate) fn file_system_id(&self) -> Option<&str> {
        let (_, id) = self.file_system_arn.split_once(":file-system/")?;
        id.starts_with("fs-").then_some(id)
    }

    /// The id at the end of the ARN of the access point; `None`: there is none, or the ARN is invalid.
    pub(crate) fn access_point_id(&self) -> Option<&str> {
        let id =
            self.access_point_arn.as_deref()?.strip_prefix(&self.file_system_arn)?.strip_prefix("/access-point/")?;
        id.starts_with("fsap-").then_some(id)
    }
}

shape!(EfsAuthorization { access_point_id: Option<String>, iam: Option<String> });
shape!(RepositoryCredentials { credentials_parameter: String });
shape!(
    /// The period is in seconds.
    RestartPolicy { enabled: bool, #[serde(default)] ignored_exit_codes: Vec<i32>, restart_attempt_period: Option<u32> }
);
shape!(EnvironmentFile {
    value: String,
    #[serde(rename = "type")]
    kind: String
});
shape!(ResourceRequirement {
    value: String,
    #[serde(rename = "type")]
    kind: String
});
shape!(FirelensConfiguration {
    #[serde(rename = "type")] kind: String,
    #[serde(default)] options: BTreeMap<String, String>,
});
shape!(ProxyConfiguration {
    #[serde(rename = "type")] kind: Option<String>,
    container_name: String,
    #[serde(default)] properties: Vec<KeyValue>,
});
shape!(RuntimePlatform { cpu_architecture: Option<String>, operating_system_family: Option<String> });
shape!(PlacementConstraint { #[serde(rename = "type")] kind: Option<String>, expression: Option<String> });
shape!(
    /// The members of a definition that RunTask and StartTask may override (TaskOverride).
    #[derive(Default)]
    TaskOverride {
    #[serde(default)] container_overrides: Vec<ContainerOverride>,
    #[serde(default)] inference_accelerator_overrides: Vec<Value>,
    ephemeral_storage: Option<Value>,
    cpu: Option<String>,
    memory: Option<String>,
    task_role_arn: Option<String>,
    execution_role_arn: Option<String>,
});
shape!(ContainerOverride {
    #[serde(default)] name: String,
    command: Option<Vec<String>>,
    #[serde(default)] environment: Vec<KeyValue>,
    environment_files: Option<Vec<EnvironmentFile>>,
    cpu: Option<u32>,
    memory: Option<u32>,
    memory_reservation: Option<u32>,
    resource_requirements: Option<Vec<ResourceRequirement>>,
});

fn tcp() -> String {
    "tcp".to_owned()
}

fn health_interval() -> u32 {
    30
}

fn health_timeout() -> u32 {
    5
}

fn health_retries() -> u32 {
    3
}
