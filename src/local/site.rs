//! The region, account and addresses that this control plane imitates. This module owns the form of ARNs. Invariant: nothing in
//! it changes while the server runs, except the keys of a profile.

use super::ids::new_id;
use super::keys::Keys;
use super::profile::Profile;
use std::collections::BTreeMap;
use std::time::Duration;

/// The region, account and addresses that this control plane imitates.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) region: String,
    pub(super) account: String,
    /// The base URL of the server.
    pub(super) url: String,
    /// The registries behind ECR: their addresses, as in image names, by account.
    pub(super) registries: BTreeMap<String, String>,
    /// The validity of role credentials.
    pub(super) credentials_ttl: Duration,
    /// The beginning of the ids of all tasks.
    pub(super) session_id: String,
    /// Makes the keys of roles.
    pub(super) keys: Keys,
    /// The keys of task roles; `None`: those of `keys`.
    pub(super) profile: Option<Profile>,
}

impl Site {
    /// An ARN of the ECS service.
    pub(super) fn arn(&self, resource: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{resource}", self.region, self.account)
    }

    /// A new id of a task.
    pub(super) fn new_task_id(&self) -> String {
        let random = new_id();
        format!("{}{}", self.session_id, random.get(self.session_id.len()..).unwrap_or_default())
    }

    /// An ARN of a parameter of SSM.
    pub(super) fn ssm_arn(&self, name: &str) -> String {
        format!("arn:aws:ssm:{}:{}:parameter/{}", self.region, self.account, name.trim_start_matches('/'))
    }

    /// An ARN of a secret of Secrets Manager. AWS adds six characters of its choice to the name.
    pub(super) fn secret_arn(&self, name: &str) -> String {
        format!("arn:aws:secretsmanager:{}:{}:secret:{name}-AbCdEf", self.region, self.account)
    }

    pub(super) fn availability_zone(&self) -> String {
        format!("{}a", self.region)
    }

    /// The `host:port` of the account's registry: the one behind ECR, or else this server.
    pub(super) fn registry_host(&self) -> &str {
        self.registry_of(&self.account).unwrap_or_else(|| self.url.trim_start_matches("http://"))
    }

    /// The image's registry is one behind this server's ECR.
    pub(super) fn is_ecr(&self, image: &str) -> bool {
        self.registry_account(image).is_some()
    }

    /// The account whose registry has the image; `None`: the image is not in ECR.
    pub(super) fn registry_account(&self, image: &str) -> Option<&str> {
        let (host, _) = image.split_once('/')?;
        let numeric = host.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let is_own = |address: &String| address == host || Some(address) == numeric.as_ref();
        self.registries.iter().find(|(_, address)| is_own(address)).map(|(account, _)| account.as_str())
    }

    /// The address of an account's registry, as in image names; `None`: it has none.
    pub(super) fn registry_of(&self, account: &str) -> Option<&str> {
        self.registries.get(account).map(String::as_str)
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            url: "http://127.0.0.1:14566".to_owned(),
            registries: BTreeMap::from([("123456789012".to_owned(), "localhost:5000".to_owned())]),
            credentials_ttl: Duration::from_secs(21600),
            session_id: String::new(),
            keys: Keys::new(None),
            profile: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_tasks_begin_with_that_of_the_session() {
        let site = Site { session_id: "10ca1abcde".to_owned(), ..Site::example() };
        let (first, second) = (site.new_task_id(), site.new_task_id());
        assert!(first.starts_with("10ca1abcde") && first.len() == 32 && first != second, "{first}");
        assert_eq!(Site::example().new_task_id().len(), 32);
    }

    #[test]
    fn images_of_the_registry_are_recognised() {
        let site = Site::example();
        assert!(site.is_ecr("localhost:5000/app:1"));
        assert!(!site.is_ecr("localhost:50001/app") && !site.is_ecr("busybox"));
        let pairs = [("1", "127.0.0.1:14566"), ("2", "127.0.0.2:14566")];
        let registries = pairs.map(|(account, address)| (account.to_owned(), address.to_owned())).into();
        let site = Site { registries, ..site };
        for (image, account) in [
            ("127.0.0.1:14566/team/app", Some("1")),
            ("127.0.0.2:14566/app@sha256:0", Some("2")),
            ("localhost:14566/app", Some("1")),
            ("localhost:5000/app", None),
            ("127.0.0.1:1456/app", None),
            ("127.0.0.1:14566", None),
        ] {
            assert_eq!(site.registry_account(image), account, "{image}");
        }
        assert_eq!((site.registry_of("2"), site.registry_of("3")), (Some("127.0.0.2:14566"), None));
    }
}
