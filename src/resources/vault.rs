//! Secrets and environment files of tasks whose containers are still to be created.
//!
//! Owns the only copy of these values, in memory; a value is zeroed when it is dropped. The core decides when that happens: once
//! no container needs the value. After a restart, it has the values fetched again. Invariants: the number of entries is bounded;
//! `Debug` shows no value.

use ecs_core::model::resource::SecretKey;
use ecs_core::model::{Failure, Secret, TaskArn};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest number of resources that are held: some for each task of a very large instance.
const MAX_RESOURCES: usize = 4096;

/// The values of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Values, by the place where they are stored.
    Secrets(BTreeMap<SecretKey, Secret>),
    /// The variables of each file, in the order of the task definition.
    EnvironmentFiles(Vec<BTreeMap<String, Secret>>),
}

/// All values in memory, by task and resource.
#[derive(Debug, Default)]
pub struct Vault(Mutex<BTreeMap<(TaskArn, String), Content>>);

impl Vault {
    /// Stores the values of a resource, and replaces those it had before.
    ///
    /// # Errors
    /// The vault is full. The failure is retryable, since there may be room later.
    pub fn put(&self, task: &TaskArn, resource: &str, content: Content) -> Result<(), Failure> {
        let (mut held, key) = (self.held(), (task.clone(), resource.to_owned()));
        if held.len() >= MAX_RESOURCES && !held.contains_key(&key) {
            let text =
                format!("the agent holds the secrets and environment files of {MAX_RESOURCES} resources, and no more");
            return Err(Failure::retryable("", text));
        }
        held.insert(key, content);
        Ok(())
    }

    /// The secrets of a resource; `None` = they are not in memory.
    pub fn secrets(&self, task: &TaskArn, resource: &str) -> Option<BTreeMap<SecretKey, Secret>> {
        match self.held().get(&(task.clone(), resource.to_owned()))? {
            Content::Secrets(secrets) => Some(secrets.clone()),
            Content::EnvironmentFiles(_) => None,
        }
    }

    /// The environment files of a resource; `None` = they are not in memory.
    pub fn environment_files(&self, task: &TaskArn, resource: &str) -> Option<Vec<BTreeMap<String, Secret>>> {
        match self.held().get(&(task.clone(), resource.to_owned()))? {
            Content::EnvironmentFiles(files) => Some(files.clone()),
            Content::Secrets(_) => None,
        }
    }

    /// Drops the values of a resource, if there are any.
    pub fn remove(&self, task: &TaskArn, resource: &str) {
        self.held().remove(&(task.clone(), resource.to_owned()));
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(TaskArn, String), Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vault_is_bounded_and_has_room_again() {
        let vault = Vault::default();
        let put = |name: &str| vault.put(&"task".into(), name, Content::EnvironmentFiles(Vec::new()));
        assert!((0..MAX_RESOURCES).all(|number| put(&number.to_string()).is_ok()));
        assert!(put("0").is_ok(), "an existing entry can be replaced");
        assert!(put("more").is_err());
        vault.remove(&"task".into(), "7");
        assert!(put("more").is_ok());
        assert!(vault.environment_files(&"task".into(), "7").is_none());
        assert!(vault.secrets(&"task".into(), "more").is_none(), "the entry is of another kind");
    }

    #[test]
    fn debug_shows_no_value() {
        let vault = Vault::default();
        let file = BTreeMap::from([("NAME".to_owned(), Secret::from("hunter2"))]);
        vault.put(&"task".into(), "envfile_a", Content::EnvironmentFiles(vec![file])).unwrap();
        let text = format!("{vault:?}");
        assert!(text.contains("NAME") && !text.contains("hunter2"), "{text}");
    }
}
