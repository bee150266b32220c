//! The model of the credentials fetcher: leases of Kerberos tickets. Each creation yields a new lease, which exists until the
//! agent releases it.

use ecs_core::TaskState;
use ecs_core::model::{ResourceKind, ResourceRequest, TaskArn, Tickets};
use ecs_core::state::Resource;
use std::collections::{BTreeMap, BTreeSet};

/// After this many failed renewals, the agent waits for the next credentials.
const MAX_TRIES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    /// The leases that exist, each with the task and the resource that it belongs to.
    pub(crate) leases: BTreeMap<String, (TaskArn, String)>,
    /// The leases that the agent has stored.
    pub(crate) written: BTreeSet<String>,
    /// Resources with tickets that must be renewed because new credentials have arrived, with the number of failed renewals.
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

    /// Credentials have arrived for this task.
    pub(crate) fn credentials_arrived(&mut self, task: &TaskState) {
        let is_ending = |resource: &&Resource| {
            let tickets = resource.state.tickets.as_ref();
            tickets.is_some_and(|tickets| !tickets.accounts.is_empty())
        };
        let ending = task.resources.iter().filter(is_ending);
        self.ending.extend(ending.map(|resource| ((task.spec.arn.clone(), resource.spec.name.clone()), 0)));
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

    /// True if the path is that of an existing ticket of this task.
    pub(crate) fn has(&self, task: &TaskArn, spec: &str, path: &str) -> bool {
        self.leases.iter().any(|(lease, (owner, _))| owner == task && path == format!("/{lease}/{spec}"))
    }
}
