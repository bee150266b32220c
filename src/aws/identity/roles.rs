//! The credentials of task roles and task execution roles, by their id (spec `acs.md` §4.2, §4.3).
//!
//! Owns the only copy of these credentials, in memory: they are never written to disk and are zeroed when replaced or removed.
//! It does not decide when a task has ended; the caller that removes a task also removes its ids here, so the number of tasks
//! bounds the store.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
pub use ecs_core::model::RoleKind;
use ecs_core::model::{CredentialsId, Secret};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// One set of role credentials as ACS sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleCredentials {
    /// The id of the credentials; never empty.
    pub id: CredentialsId,
    /// The ARN of the role.
    pub role_arn: String,
    /// The kind of role.
    pub kind: RoleKind,
    /// The access key id.
    pub access_key_id: Secret,
    /// The secret access key.
    pub secret_access_key: Secret,
    /// The session token.
    pub session_token: Secret,
    /// The expiration, an opaque text that the acknowledgement repeats.
    pub expiration: String,
}

/// All role credentials of the agent. Clones share the store; every method locks it for one map operation only.
#[derive(Debug, Default)]
pub struct RoleStore {
    by_id: RwLock<BTreeMap<CredentialsId, Arc<RoleCredentials>>>,
}

impl RoleStore {
    /// Stores credentials and replaces those with the same id.
    pub fn insert(&self, credentials: RoleCredentials) {
        let mut map = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(credentials.id.clone(), Arc::new(credentials));
    }

    /// The credentials with this id; `None` if there are none.
    pub fn get(&self, id: &CredentialsId) -> Option<Arc<RoleCredentials>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// When these credentials expire, in seconds since the epoch; `None`: there are none with this id, or ECS has not written their
    /// expiration as a time.
    pub fn expiration(&self, id: &CredentialsId) -> Option<f64> {
        let map = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let at = DateTime::from_str(&map.get(id)?.expiration, Format::DateTimeWithOffset).ok()?;
        Some(at.as_secs_f64())
    }

    /// Removes the credentials with this id. Callers that hold a copy keep it until they drop it.
    pub fn remove(&self, id: &CredentialsId) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, key: &str) -> RoleCredentials {
        RoleCredentials {
            id: id.into(),
            role_arn: "arn:aws:iam::1:role/r".to_owned(),
            kind: RoleKind::Execution,
            access_key_id: key.into(),
            secret_access_key: "s3cret".into(),
            session_token: "t0ken".into(),
            expiration: "2026-11-22T05:36:38Z".to_owned(),
        }
    }

    #[test]
    fn newer_credentials_replace_older_ones_and_removal_forgets() {
        let store = RoleStore::default();
        store.insert(credentials("a", "OLD"));
        store.insert(credentials("a", "NEW"));
        assert_eq!(store.get(&"a".into()).unwrap().access_key_id.expose(), "NEW");
        assert!(store.get(&"b".into()).is_none());
        store.remove(&"a".into());
        assert!(store.get(&"a".into()).is_none());
    }

    #[test]
    fn an_expiration_is_a_time_or_unknown() {
        let store = RoleStore::default();
        for (expiration, expected) in [
            ("2026-11-22T05:36:38Z", Some(1_795_325_798.0)),
            ("2026-11-22T05:36:30.5Z", Some(1_795_325_790.5)),
            ("soon", None),
        ] {
            store.insert(RoleCredentials { expiration: expiration.to_owned(), ..credentials("a", "KEY") });
            assert_eq!(store.expiration(&"a".into()), expected, "{expiration}");
        }
        assert_eq!(store.expiration(&"b".into()), None);
    }

    #[test]
    fn debug_shows_no_key() {
        let store = RoleStore::default();
        store.insert(credentials("a", "ASIAKEY"));
        let text = format!("{store:?}");
        for secret in ["ASIAKEY", "s3cret", "t0ken"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
