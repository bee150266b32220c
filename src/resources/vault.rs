//! Secrets and environment files of tasks whose containers are still to be created.
//!
//! Owns the only copy, in memory; it is zeroed when it is dropped. It does not decide when that is: the core asks for its removal
//! once no container needs it, and after a restart asks for it again. The invariant: it is bounded, and `Debug` shows no value.

use crate::model::resource::SecretKey;
use crate::model::{Failure, Secret, TaskArn};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Resources of tasks that wait for the creation of their containers: some for each task of a very large instance.
const MAX_RESOURCES: usize = 4096;

/// What a resource holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Values by where they are kept.
    Secrets(BTreeMap<SecretKey, Secret>),
    /// Variables of each file, in the order of the task definition.
    EnvironmentFiles(Vec<BTreeMap<String, Secret>>),
}

/// All that is held.
#[derive(Debug, Default)]
pub struct Vault(Mutex<BTreeMap<(TaskArn, String), Content>>);

impl Vault {
    /// Keeps what a resource of a task holds, in the place of what it held before.
    ///
    /// # Errors
    /// There is no room; it may be there later.
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

    /// The secrets of that resource.
    pub fn secrets(&self, task: &TaskArn, resource: &str) -> Option<BTreeMap<SecretKey, Secret>> {
        match self.held().get(&(task.clone(), resource.to_owned()))? {
            Content::Secrets(secrets) => Some(secrets.clone()),
            Content::EnvironmentFiles(_) => None,
        }
    }

    /// The environment files of that resource.
    pub fn environment_files(&self, task: &TaskArn, resource: &str) -> Option<Vec<BTreeMap<String, Secret>>> {
        match self.held().get(&(task.clone(), resource.to_owned()))? {
            Content::EnvironmentFiles(files) => Some(files.clone()),
            Content::Secrets(_) => None,
        }
    }

    /// Forgets what that resource holds, if anything.
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
        assert!(put("0").is_ok(), "another value of what is there");
        assert!(put("more").is_err());
        vault.remove(&"task".into(), "7");
        assert!(put("more").is_ok());
        assert!(vault.environment_files(&"task".into(), "7").is_none());
        assert!(vault.secrets(&"task".into(), "more").is_none(), "of another kind");
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
