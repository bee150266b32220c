//! The volumes of a task on the wire (spec `resources.md` §3). `translate::volumes` interprets them.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct Volume {
    pub(in crate::acs) name: String,
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) host: Option<HostVolume>,
    pub(in crate::acs) docker_volume_configuration: Option<DockerVolume>,
    pub(in crate::acs) efs_volume_configuration: Option<EfsVolume>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct HostVolume {
    pub(in crate::acs) source_path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct DockerVolume {
    pub(in crate::acs) scope: String,
    pub(in crate::acs) autoprovision: bool,
    pub(in crate::acs) driver: String,
    pub(in crate::acs) driver_opts: BTreeMap<String, String>,
    pub(in crate::acs) labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct EfsVolume {
    pub(in crate::acs) file_system_id: String,
    pub(in crate::acs) root_directory: String,
    pub(in crate::acs) transit_encryption: String,
    pub(in crate::acs) transit_encryption_port: u16,
    pub(in crate::acs) authorization_config: EfsAuthorization,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct EfsAuthorization {
    pub(in crate::acs) access_point_id: String,
    pub(in crate::acs) iam: String,
}
