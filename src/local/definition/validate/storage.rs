//! Checks volumes of a task definition: the kinds that exist on a Linux container instance, and the settings that each needs.

use super::super::{DockerVolume, EfsVolume, S3FilesVolume, TaskDefinition, Volume};
use super::rule::{Findings, is_name};
use std::collections::BTreeSet;

pub(super) fn volumes(found: &mut Findings, definition: &TaskDefinition) {
    let mut names = BTreeSet::new();
    for volume in &definition.volumes {
        let name = &volume.name;
        found.require(is_name(name), || format!("Volume name `{name}` is invalid."));
        found.require(names.insert(name), || format!("Volume name `{name}` is used more than once."));
        found.inside(format!("Invalid setting for volume '{name}'. "), |found| check_volume(found, definition, volume));
    }
}

fn check_volume(found: &mut Findings, definition: &TaskDefinition, volume: &Volume) {
    let source = volume.host.as_ref().and_then(|host| host.source_path.as_deref()).unwrap_or_default();
    let kinds = [
        (!source.is_empty(), "host.sourcePath"),
        (volume.docker_volume_configuration.is_some(), "dockerVolumeConfiguration"),
        (volume.efs_volume_configuration.is_some(), "efsVolumeConfiguration"),
        (volume.fsx_windows_file_server_volume_configuration.is_some(), "fsxWindowsFileServerVolumeConfiguration"),
        (volume.s3files_volume_configuration.is_some(), "s3filesVolumeConfiguration"),
        (volume.configured_at_launch == Some(true), "configuredAtLaunch"),
    ];
    let given: Vec<&str> = kinds.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
    found.require(given.len() < 2, || format!("Only one of {} can be specified.", given.join(" and ")));
    found.require(source.is_empty() || source.starts_with('/'), || {
        format!("`sourcePath` `{source}` must be an absolute path.")
    });
    for kind in given {
        match kind {
            "fsxWindowsFileServerVolumeConfiguration" => {
                found.add("FSx for Windows File Server volumes are only supported on Windows container instances.");
            }
            "configuredAtLaunch" => {
                found.add(&format!("`{kind}` needs a volume that AWS attaches, and there is none here: remove it."));
            }
            _ => {}
        }
    }
    if let Some(volume) = &volume.docker_volume_configuration {
        docker(found, volume);
    }
    if let Some(efs) = &volume.efs_volume_configuration {
        shared_file_system(found, definition, efs);
    }
    if let Some(files) = &volume.s3files_volume_configuration {
        s3_files(found, definition, files);
    }
}

/// S3 Files is always mounted with the task role.
fn s3_files(found: &mut Findings, definition: &TaskDefinition, files: &S3FilesVolume) {
    let (arn, point) = (&files.file_system_arn, files.access_point_arn.as_deref());
    found.require(files.file_system_id().is_some(), || {
        format!("`fileSystemArn` `{arn}` is invalid: it looks like arn:aws:s3files:us-west-2:123456789012:file-system/fs-1a2b3c4d.")
    });
    found.require(point.is_none() || files.access_point_id().is_some(), || {
        let point = point.unwrap_or_default();
        format!("`accessPointArn` `{point}` is invalid: it looks like {arn}/access-point/fsap-1a2b3c4d.")
    });
    found.require(definition.task_role_arn.is_some(), || "S3 Files volumes need a `taskRoleArn`.".to_owned());
    let root = files.root_directory.as_deref().unwrap_or("/");
    found.require(root.starts_with('/'), || format!("`rootDirectory` `{root}` must be an absolute path."));
}

fn docker(found: &mut Findings, volume: &DockerVolume) {
    let scope = volume.scope.as_deref().unwrap_or("task");
    let is_scope = ["task", "shared"].contains(&scope);
    found.require(is_scope, || format!("Scope `{scope}` is invalid: use task or shared."));
    found.require(scope != "task" || volume.autoprovision != Some(true), || {
        "`autoprovision` is only for volumes of scope shared: those of scope task are always created.".to_owned()
    });
}

fn shared_file_system(found: &mut Findings, definition: &TaskDefinition, efs: &EfsVolume) {
    let id = &efs.file_system_id;
    let is_id = id.strip_prefix("fs-").is_some_and(|rest| {
        [8, 17].contains(&rest.len()) && rest.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    });
    found.require(is_id, || format!("`fileSystemId` `{id}` is invalid: it looks like fs-1a2b3c4d."));
    let authorization = efs.authorization_config.as_ref();
    let iam = authorization.and_then(|authorization| authorization.iam.as_deref());
    for (name, value) in [("transitEncryption", efs.transit_encryption.as_deref()), ("iam", iam)] {
        found.require(value.is_none_or(|word| ["ENABLED", "DISABLED"].contains(&word)), || {
            format!("`{name}` `{}` is invalid: use ENABLED or DISABLED.", value.unwrap_or_default())
        });
    }
    let is_encrypted = efs.transit_encryption.as_deref() == Some("ENABLED");
    let has_point = authorization.is_some_and(|authorization| authorization.access_point_id.is_some());
    found.require(is_encrypted || (iam != Some("ENABLED") && !has_point && efs.transit_encryption_port.is_none()), || {
        "`transitEncryption` must be ENABLED when IAM authorization, an access point or a transit encryption port is used."
            .to_owned()
    });
    found.require(iam != Some("ENABLED") || definition.task_role_arn.is_some(), || {
        "IAM authorization needs a `taskRoleArn`.".to_owned()
    });
    let root = efs.root_directory.as_deref().unwrap_or("/");
    found.require(root.starts_with('/'), || format!("`rootDirectory` `{root}` must be an absolute path."));
    found.require(!has_point || root == "/", || {
        "`rootDirectory` must be left out or be / when an access point is used.".to_owned()
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::verdict;
    use serde_json::{Value, json};

    fn with(volume: Value) -> String {
        verdict(|definition| {
            let mut volume = volume;
            volume["name"] = json!("data");
            definition["volumes"] = json!([volume]);
        })
    }

    #[test]
    fn volumes_of_every_kind_pass() {
        for volume in [
            json!({}),
            json!({"host": {}}),
            json!({"host": {"sourcePath": "/srv"}}),
            json!({"dockerVolumeConfiguration": {"scope": "task", "driver": "local", "labels": {"a": "b"}}}),
            json!({"dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}}),
            json!({"efsVolumeConfiguration": {"fileSystemId": "fs-12345678", "rootDirectory": "/data"}}),
            json!({"efsVolumeConfiguration": {"fileSystemId": "fs-0123456789abcdef0", "transitEncryption": "ENABLED",
                "transitEncryptionPort": 2999, "authorizationConfig": {"accessPointId": "fsap-1"}}}),
        ] {
            assert_eq!(with(volume.clone()), "", "{volume}");
        }
    }

    const FILES: &str = "arn:aws:s3files:us-west-2:123456789012:file-system/fs-0123456789abcdef0";

    #[test]
    fn s3_files_with_a_task_role_pass() {
        let files = json!({"fileSystemArn": FILES, "rootDirectory": "/a", "transitEncryptionPort": 20050,
            "accessPointArn": format!("{FILES}/access-point/fsap-9")});
        let text = verdict(|definition| {
            definition["taskRoleArn"] = json!("arn:aws:iam::123456789012:role/r");
            definition["volumes"] = json!([{"name": "data", "s3filesVolumeConfiguration": files}]);
        });
        assert_eq!(text, "");
    }

    #[test]
    fn volumes_are_refused_with_a_reason() {
        let efs = |more: Value| {
            let mut efs = json!({"fileSystemId": "fs-12345678"});
            efs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"efsVolumeConfiguration": efs})
        };
        for (volume, expected) in [
            (json!({"host": {"sourcePath": "srv"}}), "must be an absolute path"),
            (
                json!({"host": {"sourcePath": "/srv"}, "dockerVolumeConfiguration": {}}),
                "Only one of host.sourcePath and dockerVolumeConfiguration can be specified.",
            ),
            (json!({"dockerVolumeConfiguration": {"scope": "host"}}), "use task or shared"),
            (json!({"dockerVolumeConfiguration": {"autoprovision": true}}), "only for volumes of scope shared"),
            (json!({"dockerVolumeConfiguration": {"options": {}}}), "unknown field `options`"),
            (json!({"fsxWindowsFileServerVolumeConfiguration": {}}), "only supported on Windows"),
            (json!({"configuredAtLaunch": true}), "there is none here: remove it"),
            (json!({"s3filesVolumeConfiguration": {"fileSystemArn": "fs-1"}}), "it looks like arn:aws:s3files:"),
            (json!({"s3filesVolumeConfiguration": {"fileSystemArn": FILES}}), "need a `taskRoleArn`"),
            (
                json!({"s3filesVolumeConfiguration": {"fileSystemArn": FILES, "accessPointArn": "fsap-1"}}),
                "/access-point/fsap-1a2b3c4d.",
            ),
            (json!({"s3filesVolumeConfiguration": {"fileSystemArn": FILES, "rootDirectory": "a"}}), "an absolute path"),
            (efs(json!({"fileSystemId": "12345678"})), "it looks like fs-1a2b3c4d"),
            (efs(json!({"transitEncryption": "YES"})), "use ENABLED or DISABLED"),
            (efs(json!({"transitEncryptionPort": 2999})), "`transitEncryption` must be ENABLED"),
            (efs(json!({"rootDirectory": "data"})), "must be an absolute path"),
            (
                efs(json!({"transitEncryption": "ENABLED", "authorizationConfig": {"iam": "ENABLED"}})),
                "needs a `taskRoleArn`",
            ),
            (
                efs(
                    json!({"transitEncryption": "ENABLED", "rootDirectory": "/x", "authorizationConfig": {"accessPointId": "a"}}),
                ),
                "must be left out or be /",
            ),
        ] {
            let text = with(volume.clone());
            assert!(text.contains(expected), "{volume}: {text}");
        }
    }
}
