//! Volumes: creating, finding and removing them (spec `resources.md` §3).
//!
//! Owns the rules for shared volumes and the texts of their failures. Invariant: only volumes with the lifetime of their task
//! are removed, and never by force; a volume in use stays until it is free.

use super::Docker;
use super::api::error::DockerError;
use super::create::credentials_path;
use ecs_core::model::resource::{NAMESPACE_PATH, ROLE_PATH, VolumeScope, VolumeSpec};
use ecs_core::model::{CredentialsId, Failure, OpError, TaskArn};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const INSPECT_ERROR: &str = "CannotInspectVolumeError";

impl Docker {
    /// Creates the volume of a task, or makes sure that a shared one exists. With `match_full`, an existing volume must have the
    /// requested labels and options (`ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`). If a volume with the name of a task's own volume
    /// exists already, it is used. `role` is the id in the path of the task role's credentials, `pause_pid` the process of the task's
    /// pause container (0: it is not known).
    ///
    /// # Errors
    /// `ResourceInitializationError` if a shared volume differs from the request; otherwise the engine's error.
    pub async fn create_volume(
        &self,
        task: &TaskArn,
        spec: &VolumeSpec,
        role: Option<&CredentialsId>,
        pause_pid: u32,
        match_full: bool,
    ) -> Result<(), OpError> {
        let VolumeScope::Shared { autoprovision } = spec.scope else { return self.make(spec, role, pause_pid).await };
        let (name, limit) = (&spec.runtime_name, self.settings.limits.volume);
        let found = match (self.reader.get(&["volumes", name], &[], limit).await, autoprovision) {
            (Ok(found), _) => found,
            (Err(error @ DockerError::Timeout(_)), true) => {
                let failure = error.failure(INSPECT_ERROR, "inspecting volume");
                return Err(OpError::Failed(uninitialised(task, &failure.message, &failure)));
            }
            // Compat: whatever error the inspection had, the volume is created. Docker leaves an existing one unchanged.
            (Err(_), true) => return self.make(spec, role, pause_pid).await,
            (Err(error), false) => {
                let failure = error.failure(INSPECT_ERROR, "inspecting volume");
                let cause = format!(
                    "initialize volume: volume detection failed, volume '{name}' does not exist and autoprovision is \
                     set to false: {}",
                    failure.message
                );
                return Err(OpError::Failed(uninitialised(task, &cause, &failure)));
            }
        };
        match difference(spec, &found).filter(|_| autoprovision && match_full) {
            Some(cause) => Err(OpError::Failed(uninitialised(task, &cause, &Failure::permanent("", "")))),
            None => Ok(()),
        }
    }

    async fn make(&self, spec: &VolumeSpec, role: Option<&CredentialsId>, pause_pid: u32) -> Result<(), OpError> {
        let body = body(spec, role, pause_pid).map_err(OpError::Failed)?;
        let answer = self.changer.post_json(&["volumes", "create"], &body, self.settings.limits.volume).await;
        answer.map_err(|error| error.to_change_error("CannotCreateVolumeError", "creating volume"))
    }

    /// Removes the volume of a task. A volume that does not exist is success. A shared volume is left alone, which is success as
    /// well.
    ///
    /// # Errors
    /// The engine's error, for instance that a container still uses the volume.
    pub async fn remove_volume(&self, spec: &VolumeSpec) -> Result<(), OpError> {
        if spec.scope != VolumeScope::Task {
            return Ok(());
        }
        match self.changer.delete(&["volumes", &spec.runtime_name], &[], self.settings.limits.volume).await {
            Err(error) if is_no_volume(&error) => Ok(()),
            answer => answer.map_err(|error| error.to_change_error("CannotRemoveVolumeError", "removing volume")),
        }
    }
}

/// A 404 with another text (a proxy's page) says nothing about the volume.
fn is_no_volume(error: &DockerError) -> bool {
    error.is_not_found() && error.to_string().to_ascii_lowercase().contains("no such volume")
}

/// The failure that the Go agent reports before it starts a task. It is retryable if the failure behind it is.
fn uninitialised(task: &TaskArn, cause: &str, found_by: &Failure) -> Failure {
    let text = format!("resource cannot be initialized for task {task}: {cause}");
    Failure { kind: found_by.kind, ..Failure::permanent("ResourceInitializationError", text) }
}

/// The body of the create call. Empty members are left out: Docker would otherwise show them as empty instead of not at all.
fn body(spec: &VolumeSpec, role: Option<&CredentialsId>, pause_pid: u32) -> Result<Value, Failure> {
    let VolumeSpec { runtime_name, driver, options, labels, scope: _, with_role, in_network } = spec;
    let mut options = options.clone();
    if *with_role {
        // Without the path, the driver would mount with the rights of the instance.
        let no_role =
            || Failure::permanent("CannotCreateVolumeError", "No credentials of a task role set for the task");
        let path = credentials_path(role.ok_or_else(no_role)?);
        options.values_mut().for_each(|value| *value = value.replace(ROLE_PATH, &path));
    }
    if *in_network {
        // Without the path, the driver would mount over the instance's own interface, past the task's security groups.
        if pause_pid == 0 {
            return Err(Failure::permanent(
                "CannotCreateVolumeError",
                "the process of the pause container is not known",
            ));
        }
        let path = format!("/proc/{pause_pid}/ns/net");
        options.values_mut().for_each(|value| *value = value.replace(NAMESPACE_PATH, &path));
    }
    let members = [
        ("Name", json!(runtime_name), false),
        ("Driver", json!(driver), driver.is_empty()),
        ("DriverOpts", json!(options), options.is_empty()),
        ("Labels", json!(labels), labels.is_empty()),
    ];
    let given = members.into_iter().filter(|(.., is_empty)| !is_empty);
    Ok(Value::Object(given.map(|(name, value, _)| (name.to_owned(), value)).collect::<Map<_, _>>()))
}

/// How an existing volume differs from the request. Compat: the driver is not compared, and the first text is misspelt.
fn difference(spec: &VolumeSpec, found: &Value) -> Option<String> {
    let compare = |start: &str, what: &str, member: &str, expected: &BTreeMap<String, String>| {
        let pairs = found.get(member).and_then(Value::as_object).into_iter().flatten();
        let existing = pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let existing: BTreeMap<_, _> = existing.collect();
        (existing != *expected).then(|| {
            let (existing, expected) = (go_map(&existing), go_map(expected));
            format!(
                "{start} volume: non-autoprovisioned volume does not match existing volume {what}: existing: {existing}, \
                 expected: {expected}"
            )
        })
    };
    compare("intialize", "labels", "Labels", &spec.labels)
        .or_else(|| compare("initialize", "options", "Options", &spec.options))
}

/// A map as Go prints it: `map[a:1 b:2]`. Passwords are hidden, since the text becomes a reason that anybody may read.
fn go_map(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = map.iter().map(|(name, value)| format!("{name}:{}", without_passwords(name, value))).collect();
    format!("map[{}]", pairs.join(" "))
}

/// Hides passwords in mount options (`a=1,password=x`) and in a driver option whose name suggests a password.
fn without_passwords(name: &str, value: &str) -> String {
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["pass", "secret", "token", "cred", "key"].iter().any(|word| name.contains(word))
    };
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => part.to_owned(),
    };
    if is_secret(name) { "***".to_owned() } else { value.split(',').map(part).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn shared() -> VolumeSpec {
        VolumeSpec {
            runtime_name: "v".to_owned(),
            driver: String::new(),
            options: map(&[("type", "tmpfs"), ("device", "tmpfs")]),
            labels: map(&[("l", "1")]),
            scope: VolumeScope::Shared { autoprovision: true },
            with_role: false,
            in_network: false,
        }
    }

    #[test]
    fn the_body_holds_only_what_was_asked_for() {
        let full = VolumeSpec { driver: "d".to_owned(), ..shared() };
        let wanted = json!({"Name": "v", "Driver": "d", "Labels": {"l": "1"},
            "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}});
        assert_eq!(body(&full, None, 0).unwrap(), wanted);
        let bare = VolumeSpec { options: BTreeMap::new(), labels: BTreeMap::new(), ..shared() };
        assert_eq!(body(&bare, None, 0).unwrap(), json!({"Name": "v"}));
    }

    #[test]
    fn the_path_of_the_roles_credentials_is_filled_in() {
        let options = map(&[("o", &format!("tls,iam,awscredsuri={ROLE_PATH},accesspoint=a")), ("type", "efs")]);
        let with_role = VolumeSpec { options: options.clone(), with_role: true, ..shared() };
        let id = CredentialsId::from("11111111-2222");
        let made = body(&with_role, Some(&id), 0).unwrap();
        let wanted = "tls,iam,awscredsuri=/v2/credentials/11111111-2222,accesspoint=a";
        assert_eq!(made["DriverOpts"], json!({"o": wanted, "type": "efs"}));
        assert_eq!(body(&with_role, None, 0).unwrap_err().message, "No credentials of a task role set for the task");
        let without = VolumeSpec { with_role: false, ..with_role };
        assert_eq!(body(&without, Some(&id), 0).unwrap()["DriverOpts"], json!(options), "somebody else's text");
    }

    #[test]
    fn the_path_of_the_tasks_network_is_filled_in() {
        let options = map(&[("o", &format!("tls,netns={NAMESPACE_PATH}"))]);
        let inside = VolumeSpec { options: options.clone(), in_network: true, ..shared() };
        assert_eq!(body(&inside, None, 4711).unwrap()["DriverOpts"], json!({"o": "tls,netns=/proc/4711/ns/net"}));
        let failure = body(&inside, None, 0).unwrap_err();
        assert_eq!(failure.message, "the process of the pause container is not known");
        let outside = VolumeSpec { in_network: false, ..inside };
        assert_eq!(body(&outside, None, 4711).unwrap()["DriverOpts"], json!(options), "somebody else's text");
    }

    #[test]
    fn a_shared_volume_is_compared_by_labels_and_options() {
        let options = json!({"type": "tmpfs", "device": "tmpfs"});
        let text = "volume: non-autoprovisioned volume does not match existing volume";
        for (found, difference_is) in [
            (json!({"Labels": {"l": "1"}, "Options": options, "Driver": "other"}), None),
            (
                json!({"Labels": {"z": "2", "a": "1"}, "Options": options}),
                Some(format!("intialize {text} labels: existing: map[a:1 z:2], expected: map[l:1]")),
            ),
            (
                json!({"Labels": {"l": "1"}, "Options": null}),
                Some(format!("initialize {text} options: existing: map[], expected: map[device:tmpfs type:tmpfs]")),
            ),
        ] {
            assert_eq!(difference(&shared(), &found), difference_is);
        }
        let bare = VolumeSpec { options: BTreeMap::new(), labels: BTreeMap::new(), ..shared() };
        assert_eq!(difference(&bare, &json!({"Labels": null, "Options": {}})), None, "both empty are equal");
    }

    #[test]
    fn passwords_are_not_shown() {
        let options = map(&[("o", "username=u,password=hunter2,vers=3"), ("secretKey", "hunter2"), ("size", "1")]);
        assert_eq!(go_map(&options), "map[o:username=u,password=***,vers=3 secretKey:*** size:1]");
    }

    #[test]
    fn only_docker_can_say_that_there_is_no_volume() {
        let daemon_error = |message: &str| DockerError::Daemon { status: 404, message: message.to_owned() };
        assert!(is_no_volume(&daemon_error("get v: no such volume")));
        assert!(!is_no_volume(&daemon_error("page not found")));
        assert!(!is_no_volume(&DockerError::Daemon { status: 409, message: "no such volume".to_owned() }));
    }
}
