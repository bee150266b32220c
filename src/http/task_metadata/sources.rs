//! Where the answers come from.

use super::audit::Audit;
use super::counts::Requests;
use super::documents::Documents;
use super::limiter::{Limiter, Rates};
use super::peer_check::{PeerCheck, PeerCheckMode};
use super::place::Metadata;
use super::requests::Work;
use super::tasks::Tasks;
use crate::http::answer::header_text;
use axum::http::HeaderValue;
use ecs_core::model::{CredentialsId, Secret};
use std::fmt;
use std::sync::Arc;

/// The credentials of a role.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The ARN of the role.
    pub role_arn: String,
    /// The access key id.
    pub access_key_id: Secret,
    /// The secret access key.
    pub secret_access_key: Secret,
    /// The session token.
    pub session_token: Secret,
    /// The expiration, exactly as ECS sent it.
    pub expiration: String,
}

/// Looks up the credentials with this id; `None`: they are not in memory.
pub type CredentialsLookup = Arc<dyn Fn(&CredentialsId) -> Option<Credentials> + Send + Sync>;

/// How often one address may ask for ids that the agent does not know.
const GUESSES: Rates = Rates { steady: 1, burst: 20 };

/// Where the answers come from.
pub struct Sources {
    /// The tasks that the agent knows.
    pub tasks: Tasks,
    pub(super) metadata: Metadata,
    pub(super) documents: Documents,
    pub(super) credentials: CredentialsLookup,
    pub(super) work: Work,
    pub(super) audit: Audit,
    pub(super) limiter: Limiter,
    /// The steady rate, as each answer shows it.
    pub(super) shown_limit: HeaderValue,
    pub(super) guesses: Limiter,
    pub(super) peer_check: PeerCheck,
    pub(super) requests: Arc<Requests>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("peer_check", &self.peer_check).finish_non_exhaustive()
    }
}

impl Sources {
    /// Sources of the answers about these tasks. `rates` limits how often one address may request one path.
    pub fn new(
        tasks: Tasks,
        metadata: Metadata,
        credentials: CredentialsLookup,
        work: Work,
        audit: Audit,
        rates: Rates,
        peer_check: PeerCheckMode,
    ) -> Self {
        Self {
            tasks,
            metadata,
            documents: Documents::default(),
            credentials,
            work,
            audit,
            limiter: Limiter::new(rates),
            shown_limit: header_text(format_args!("{}.00", rates.steady)),
            guesses: Limiter::new(GUESSES),
            peer_check: PeerCheck::new(peer_check),
            requests: Arc::default(),
        }
    }

    /// The count of the requests.
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }
}
