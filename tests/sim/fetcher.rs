//! The model credentials fetcher: leases of Kerberos tickets. Each making gives another one; nobody else ever takes one back.

use ecs_agent::core::TaskState;
use ecs_agent::core::state::Resource;
use ecs_agent::model::{ResourceKind, ResourceRequest, TaskArn, Tickets};
use std::collections::{BTreeMap, BTreeSet};

/// Renewals in vain after which the agent may wait for the next credentials.
const MAX_TRIES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    /// The leases there are, and what for: a resource of a task.
    pub(crate) leases: BTreeMap<String, (TaskArn, String)>,
    /// Those of which the agent has written down that it has them.
    pub(crate) written: BTreeSet<String>,
    /// Resources with tickets that end unless they are renewed with the credentials that have come; how often that was tried in vain.
    pub(crate) ending: BTreeMap<(TaskArn, String), u32>,
    last: u64,
}

impl Fetcher {
    pub(crate) fn make(&mut self, request: &ResourceRequest) -> Tickets {
        let ResourceKind::CredentialSpecs(specs) = &request.spec.kind else { return Tickets::default() };
        self.last += 1;
        let lease = format!("lease-{}", self.last);
        self.leases.insert(lease.clone(), (request.task.clone(), request.spec.name.clone()));
        let path = |spec: &String| (spec.clone(), format!("/{lease}/{spec}"));
        let domainless = specs.iter().filter(|spec| spec.starts_with("credentialspecdomainless:"));
        Tickets {
            paths: specs.iter().map(path).collect(),
            accounts: domainless.cloned().collect(),
            leases: vec![lease],
        }
    }

    /// Credentials have come for this task.
    pub(crate) fn credentials_arrived(&mut self, task: &TaskState) {
        let is_ending = |it: &&Resource| it.state.tickets.as_ref().is_some_and(|it| !it.accounts.is_empty());
        let ending = task.resources.iter().filter(is_ending);
        self.ending.extend(ending.map(|it| ((task.spec.arn.clone(), it.spec.name.clone()), 0)));
    }

    /// A renewal has ended.
    pub(crate) fn renewed(&mut self, request: &ResourceRequest, is_done: bool) {
        let owner = (request.task.clone(), request.spec.name.clone());
        let Some(tries) = self.ending.get_mut(&owner) else { return };
        *tries += 1;
        if is_done || *tries >= MAX_TRIES {
            self.ending.remove(&owner);
        }
    }

    pub(crate) fn give_back(&mut self, request: &ResourceRequest) {
        for lease in request.tickets.iter().flat_map(|tickets| &tickets.leases) {
            self.leases.remove(lease);
        }
    }

    /// A ticket that is there, of a lease of this task.
    pub(crate) fn has(&self, task: &TaskArn, spec: &str, path: &str) -> bool {
        self.leases.iter().any(|(lease, (owner, _))| owner == task && path == format!("/{lease}/{spec}"))
    }
}
