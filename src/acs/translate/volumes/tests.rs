use super::shared_files::{EFS_AUTH, NFS_OPTIONS, PLUGIN, dns_suffix};
use super::*;
use ecs_core::model::resource::{NAMESPACE_PATH, ROLE_PATH, volume_name};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:ecs:eu-west-1:1:task/c/t";

fn host(plugin: bool) -> HostFacts {
    let volume_plugin = plugin.then(|| EFS_AUTH.to_owned()).into_iter().collect();
    HostFacts { region: "eu-west-1".to_owned(), volume_plugin, ..HostFacts::default() }
}

/// Translates this volume, called `v`, of a task whose container `a` mounts it; the container `b` mounts nothing.
fn read_one(volume: Value, host: &HostFacts) -> Result<Volumes, String> {
    let mut volume = volume;
    volume["name"] = json!("v");
    let task = json!({
        "arn": ARN, "family": "f", "version": "7", "volumes": [volume],
        "containers": [{"name": "a", "mountPoints": [{"sourceVolume": "v"}]}, {"name": "b"}],
    });
    read(&serde_json::from_value(task).unwrap(), host).map_err(|error| error.reason_for(ARN).0)
}

/// The spec of the only volume that the agent creates.
fn only(volumes: &Volumes) -> &VolumeSpec {
    let [resource] = volumes.resources.as_slice() else { panic!("{:?}", volumes.resources) };
    assert_eq!((resource.name.as_str(), resource.needed_by.as_slice()), ("volume_v", &["a".into()][..]));
    match &resource.kind {
        ResourceKind::Volume(spec) => spec,
        other => panic!("{other:?}"),
    }
}

/// The name of the volume `v` in the engine, if it lives as long as the task.
fn generated() -> String {
    volume_name(&ARN.into(), "f", "7", "v")
}

#[test]
fn a_path_of_the_host_is_mounted_as_it_is() {
    for kind in [json!("host"), json!("")] {
        let volumes = read_one(json!({"type": kind, "host": {"sourcePath": "/srv"}}), &host(false)).unwrap();
        assert_eq!((volumes.source("v"), volumes.resources.len()), (Some("/srv"), 0));
    }
}

#[test]
fn volumes_of_the_task_have_its_name_and_go_with_it() {
    let docker = json!({"type": "docker", "dockerVolumeConfiguration":
        {"scope": "task", "driver": "d", "driverOpts": {"o": "1"}, "labels": {"l": "2"}}});
    for (volume, driver) in [(json!({"host": {}}), "local"), (docker, "d")] {
        let volumes = read_one(volume, &host(false)).unwrap();
        let spec = only(&volumes);
        assert_eq!((spec.runtime_name.as_str(), spec.scope), (generated().as_str(), VolumeScope::Task));
        assert_eq!((spec.driver.as_str(), volumes.source("v")), (driver, Some(generated().as_str())));
        let has_configuration = driver == "d";
        assert_eq!(
            (spec.options.contains_key("o"), spec.labels.contains_key("l")),
            (has_configuration, has_configuration)
        );
    }
}

#[test]
fn shared_volumes_keep_their_name() {
    for (scope, autoprovision) in [("shared", true), ("shared", false), ("", true)] {
        let docker = json!({"scope": scope, "autoprovision": autoprovision});
        let volumes = read_one(json!({"type": "docker", "dockerVolumeConfiguration": docker}), &host(false)).unwrap();
        let spec = only(&volumes);
        assert_eq!((spec.runtime_name.as_str(), spec.scope), ("v", VolumeScope::Shared { autoprovision }));
        assert_eq!(volumes.source("v"), Some("v"));
    }
}

fn efs_of(configuration: Value, plugin: bool) -> Result<(String, Vec<(String, String)>), String> {
    let volumes = read_one(json!({"type": "efs", "efsVolumeConfiguration": configuration}), &host(plugin))?;
    let spec = only(&volumes);
    assert_eq!((spec.runtime_name.as_str(), spec.scope), (generated().as_str(), VolumeScope::Task));
    Ok((spec.driver.clone(), spec.options.clone().into_iter().collect()))
}

#[test]
fn efs_is_mounted_by_the_plugin_or_as_nfs() {
    let options = |device: &str, o: &str, kind: &str| {
        [("device", device), ("o", o), ("type", kind)].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    let nfs = format!("addr=fs-1.efs.eu-west-1.amazonaws.com,{NFS_OPTIONS}");
    let plain = json!({"fileSystemId": "fs-1", "rootDirectory": "/d", "transitEncryption": "DISABLED"});
    assert_eq!(efs_of(plain.clone(), false), Ok(("local".to_owned(), options(":/d", &nfs, "nfs"))));
    assert_eq!(efs_of(plain, true), Ok((PLUGIN.to_owned(), options("fs-1:/d", "", "efs"))));
    let full = json!({"fileSystemId": "fs-1", "transitEncryption": "ENABLED", "transitEncryptionPort": 2999,
        "authorizationConfig": {"accessPointId": "ap", "iam": "DISABLED"}});
    let o = "tls,tlsport=2999,accesspoint=ap";
    assert_eq!(efs_of(full.clone(), true), Ok((PLUGIN.to_owned(), options("fs-1", o, "efs"))));
    let with_role = json!({"authorizationConfig": {"iam": "ENABLED"}});
    for configuration in [full, with_role.clone()] {
        let reason = efs_of(configuration, false).unwrap_err();
        assert!(reason.contains("needs the volume plugin") && reason.ends_with("(volume v)"), "{reason}");
    }
    let reason = efs_of(with_role, true).unwrap_err();
    assert_eq!(
        reason,
        "UnsupportedTaskError: an EFS volume with IAM authorization needs a task role (taskRoleArn), which this task does not \
         have (volume v)"
    );
}

/// The recordings have the payload, and what the plugin of the Go agent was asked for.
#[test]
fn the_plugin_is_asked_for_what_was_recorded() {
    let recorded: Value = serde_json::from_str(include_str!("../../../../tests/golden/efs/volumes.json")).unwrap();
    let recorded = recorded.as_object().unwrap();
    assert_eq!(recorded.len(), 4);
    for (name, case, mode) in recorded.iter().flat_map(|(name, case)| [(name, case, "bridge"), (name, case, "awsvpc")])
    {
        let task = json!({
            "arn": ARN, "family": "f", "version": "7", "networkMode": mode, "volumes": case["volumes"],
            "attachments": case.get("attachments").cloned().unwrap_or(json!([])),
            "containers": [{"name": "a", "mountPoints": [{"sourceVolume": "data"}]}, {"name": "b"}],
            "roleCredentials": {"credentialsId": "11111111-2222-3333-4444-555555555555", "roleArn": "r"},
        });
        let volumes = read(&serde_json::from_value(task).unwrap(), &host(true)).unwrap();
        let [resource] = volumes.resources.as_slice() else { panic!("{name}: {:?}", volumes.resources) };
        let ResourceKind::Volume(spec) = &resource.kind else { panic!("{name}: {resource:?}") };
        assert_eq!(resource.needed_by, ["a".into()]);
        assert_eq!((spec.driver.as_str(), volumes.source("data")), (PLUGIN, Some(spec.runtime_name.as_str())));
        // The Go agent was recorded without networks of tasks. For those it adds an option at the end.
        let mut asked = case["plugin_calls"][0]["body"]["Opts"].clone();
        if mode == "awsvpc" {
            let comma = if asked["o"] == "" { "" } else { "," };
            asked["o"] = json!(format!("{}{comma}netns=/proc/4711/ns/net", asked["o"].as_str().unwrap()));
        }
        let path = "/v2/credentials/11111111-2222-3333-4444-555555555555";
        let text = serde_json::to_string(&spec.options).unwrap().replace(ROLE_PATH, path);
        let text = text.replace(NAMESPACE_PATH, "/proc/4711/ns/net");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), asked, "{name}");
        assert_eq!(spec.in_network, mode == "awsvpc");
        assert_eq!(spec.with_role, asked["o"].as_str().unwrap().contains("awscredsuri"), "{name}");
    }
}

fn s3_files(properties: &[(&str, &str)], volumes: Value, role: bool) -> Result<Volumes, String> {
    let properties: Vec<_> = properties.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let role = role.then(|| json!({"credentialsId": "id", "roleArn": "r"}));
    let task = json!({
        "arn": ARN, "family": "f", "version": "7", "volumes": volumes, "roleCredentials": role,
        "containers": [{"name": "a", "mountPoints": [{"sourceVolume": "v"}]}],
        "attachments": [{"attachmentType": "s3files", "attachmentProperties": properties}],
    });
    read(&serde_json::from_value(task).unwrap(), &host(false)).map_err(|error| error.reason_for(ARN).0)
}

#[test]
fn s3_files_come_with_their_attachment() {
    let required = [("volumeId", "fs-1"), ("volumeName", "v"), ("new", "property")];
    for volumes in [
        json!([]),
        json!([{"name": "v"}]),
        json!([{"name": "v", "type": "attachment"}]),
        json!([{"name": "v", "host": {}}]),
    ] {
        let volumes = s3_files(&required, volumes, true).unwrap();
        let spec = only(&volumes);
        let options: Vec<_> = spec.options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mount_options = format!("tls,iam,awscredsuri={ROLE_PATH}");
        assert_eq!(options, [("device", "fs-1"), ("o", &mount_options), ("type", "s3files")]);
        assert_eq!(
            (spec.runtime_name.as_str(), spec.scope, spec.with_role),
            (generated().as_str(), VolumeScope::Task, true)
        );
    }
    let load = "UnrecogniedTaskError: Error loading task - unable to parse and validate S3 Files volume: ";
    let empty = "failed to parse s3files attachment, encountered empty value for property: ";
    for (properties, why) in [
        (vec![("volumeId", "fs-1")], format!("{load}missing volumeName in the S3 Files config")),
        (vec![("volumeName", "v")], format!("{load}missing volumeId in the S3 Files config")),
        (vec![("volumeId", "fs-1"), ("s3FilesRootDirectory", "")], format!("{load}{empty}s3FilesRootDirectory")),
        (vec![("x", "")], format!("{load}{empty}x")),
    ] {
        assert_eq!(s3_files(&properties, json!([]), true).unwrap_err(), why);
    }
    let reason = s3_files(&required, json!([]), false).unwrap_err();
    assert_eq!(
        reason,
        "UnsupportedTaskError: a volume of S3 Files needs a task role (taskRoleArn), which this task does not have (volume v)"
    );
}

#[test]
fn every_partition_has_its_dns_suffix() {
    for (region, suffix) in [
        ("us-west-2", "amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("us-iso-east-1", "c2s.ic.gov"),
        ("us-isob-east-1", "sc2s.sgov.gov"),
        ("eusc-de-east-1", "amazonaws.eu"),
    ] {
        assert_eq!(dns_suffix(region), suffix);
    }
}

#[test]
fn an_invalid_volume_is_refused_with_the_go_agents_reason() {
    let load = "UnrecogniedTaskError: Error loading task - ";
    let unsupported =
        |what: &str| format!("UnsupportedTaskError: {what} is not supported by this version of the agent (volume v)");
    let table = [
        (json!({}), format!("{load}invalid volume: empty volume configuration")),
        (json!({"type": "host"}), format!("{load}invalid volume: empty volume configuration")),
        (json!({"type": "docker"}), format!("{load}invalid volume: empty volume configuration")),
        (json!({"type": "efs", "host": {}}), format!("{load}invalid volume: empty volume configuration")),
        (json!({"type": "nfs"}), format!("{load}unrecognized volume type: \"nfs\"")),
        (
            json!({"type": "docker", "dockerVolumeConfiguration": {"scope": "task", "autoprovision": true}}),
            format!(
                "resource cannot be initialized for task {ARN}: \
                 volume [v] : task scoped volume could not be autoprovisioned"
            ),
        ),
        (json!({"type": "fsxWindowsFileServer"}), unsupported("a volume of FSx for Windows")),
        (json!({"type": "amazonebs"}), unsupported("a volume of EBS")),
        (json!({"type": "s3files"}), format!("{load}invalid volume: empty s3files volume configuration")),
    ];
    for (volume, reason) in table {
        assert_eq!(read_one(volume, &host(true)).unwrap_err(), reason);
    }
}

#[test]
fn a_placeholder_for_an_attachment_is_not_created() {
    assert_eq!(read_one(json!({"type": "attachment"}), &host(false)).unwrap().source("v"), None);
    let task = json!({
        "volumes": [{"name": "data"}], "containers": [{"name": "a"}],
        "attachments": [{"attachmentType": "t", "attachmentProperties": [{"name": "volumeName", "value": "data"}]}],
    });
    let volumes = read(&serde_json::from_value(task).unwrap(), &host(false)).unwrap();
    assert!(volumes.source("data").is_none() && volumes.resources.is_empty());
}

#[test]
fn an_unmounted_volume_is_created_unless_it_is_a_host_path() {
    let task = |volumes: Value| {
        let task = json!({"arn": ARN, "volumes": volumes, "containers": [{"name": "a"}, {"name": "b"}]});
        read(&serde_json::from_value(task).unwrap(), &host(false)).map_err(|error| error.reason_for(ARN).0)
    };
    let docker = json!({"name": "v", "type": "docker", "dockerVolumeConfiguration": {"scope": "task"}});
    let volumes = task(json!([docker, {"name": "w", "host": {}}])).unwrap();
    let [resource] = volumes.resources.as_slice() else { panic!("{:?}", volumes.resources) };
    assert_eq!((resource.name.as_str(), resource.needed_by.len()), ("volume_v", 2));
    let reason = task(json!([{"name": "v", "host": {}}, {"name": "v", "host": {}}])).unwrap_err();
    assert!(reason.ends_with("the volume name v is not unique"), "{reason}");
    let reason = task(json!([{"host": {}}])).unwrap_err();
    assert!(reason.ends_with("invalid volume: must include a name"), "{reason}");
}
