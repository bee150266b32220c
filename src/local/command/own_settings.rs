//! The settings of the agent that `up` makes itself. A value of somebody else would take the agent away from this session. This module owns
//! the list and the words. Invariant: it shows no value but the name of a cluster or region.

/// Settings that have an option of `up`.
const OPTIONS: [(&str, &str); 3] =
    [("ECS_CLUSTER", "--cluster"), ("AWS_DEFAULT_REGION", "--region"), ("AWS_REGION", "--region")];

/// Settings that are made for each session.
const OWN: [&str; 11] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "ECS_BACKEND_HOST",
    "ECS_DATADIR",
    "ECS_HOST_DATA_DIR",
];

/// Why a setting cannot follow `--`, and what to do instead; `None`: it can.
pub(super) fn refused(name: &str, value: &str) -> Option<String> {
    if let Some((_, option)) = OPTIONS.iter().find(|(own, _)| *own == name) {
        let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let given = if is_plain && !value.is_empty() { value } else { "NAME" };
        return Some(format!("{name} after `--`: `up` makes this setting itself; use {option} {given}"));
    }
    OWN.contains(&name)
        .then(|| format!("{name} after `--`: `up` makes this setting itself, for this session alone; leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Server};

    #[tokio::test]
    async fn what_up_sets_is_refused() {
        let server =
            Server::start(Options { listen: "127.0.0.1:0".parse().unwrap(), ..Options::default() }).await.unwrap();
        for (name, _) in server.environment() {
            // A proxy may have exceptions of its own.
            assert_eq!(refused(&name, "x").is_some(), name != "NO_PROXY", "{name}");
        }
        server.shutdown().await;
        assert!(refused("ECS_CLUSTER", "foo").unwrap().ends_with("use --cluster foo"));
        assert!(refused("AWS_REGION", "").unwrap().ends_with("use --region NAME"));
        assert!(!refused("AWS_SECRET_ACCESS_KEY", "hunter2").unwrap().contains("hunter2"));
        assert_eq!(refused("ECS_LOGLEVEL", "debug"), None);
    }
}
