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

    /// When the first credentials of this kind expire, in seconds since the epoch; `None`: there are none, or ECS has not written
    /// their expiration as a time.
    pub fn first_expiration(&self, kind: RoleKind) -> Option<f64> {
        let map = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let same_kind = map.values().filter(|role| role.kind == kind);
        let at = same_kind.filter_map(|role| DateTime::from_str(&role.expiration, Format::DateTimeWithOffset).ok());
        at.min().map(|at| at.as_secs_f64())
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
    fn the_first_expiration_is_that_of_the_kind() {
        let store = RoleStore::default();
        let until = |id: &str, kind, expiration: &str| RoleCredentials {
            kind,
            expiration: expiration.to_owned(),
            ..credentials(id, "KEY")
        };
        store.insert(until("a", RoleKind::Execution, "2026-11-22T05:36:38Z"));
        store.insert(until("b", RoleKind::Task, "2026-11-22T05:36:37Z"));
        store.insert(until("c", RoleKind::Execution, "soon"));
        assert_eq!(store.first_expiration(RoleKind::Execution), Some(1_795_325_798.0));
        store.insert(until("d", RoleKind::Execution, "2026-11-22T05:36:30.5Z"));
        assert_eq!(store.first_expiration(RoleKind::Execution), Some(1_795_325_790.5));
        store.remove(&"b".into());
        assert_eq!(store.first_expiration(RoleKind::Task), None);
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
