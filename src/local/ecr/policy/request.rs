//! What policies look at: the caller, the action, the resource, and facts that conditions compare.

use crate::ecr::principal::{Kind, Principal};

/// One action that is to be allowed or denied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) principal: &'a Principal,
    /// The action with its service, such as `ecr:PutImage`.
    pub(crate) action: &'a str,
    /// The ARN of the resource, or `*`.
    pub(crate) resource: &'a str,
    /// The account id of the resource.
    pub(crate) owner: &'a str,
    /// The ARN of the cluster, for actions of ECS; `None`: the action has none.
    pub(crate) cluster: Option<&'a str>,
    /// The operation that creates the resource, for actions that tag it then; `None`: nothing is created.
    pub(crate) creation: Option<&'a str>,
}

/// The facts that conditions may compare, by their key in lower case.
pub(super) const KEYS: [&str; 11] = [
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalisawsservice",
    "aws:principalorgid",
    "aws:principalservicename",
    "aws:resourceaccount",
    "aws:sourceaccount",
    "aws:sourcearn",
    "ecs:cluster",
    "ecs:createaction",
    "kms:viaservice",
];

impl<'a> Request<'a> {
    /// A request without facts of ECS.
    pub(crate) fn new(principal: &'a Principal, action: &'a str, resource: &'a str, owner: &'a str) -> Self {
        Self { principal, action, resource, owner, cluster: None, creation: None }
    }

    /// The fact with this key; `None`: the request has none.
    pub(super) fn fact(&self, key: &str) -> Option<&str> {
        let principal = self.principal;
        let (source_account, source_arn) = match principal.kind() {
            Kind::Service { source_account, source_arn } => (source_account.as_deref(), source_arn.as_deref()),
            _ => (None, None),
        };
        match key {
            "aws:principalaccount" => Some(principal.account()).filter(|account| !account.is_empty()),
            "aws:principalarn" => Some(principal.identity_arn()).filter(|_| !principal.is_service()),
            "aws:principalisawsservice" => Some(if principal.is_service() { "true" } else { "false" }),
            "aws:principalservicename" => Some(principal.arn()).filter(|_| principal.is_service()),
            "aws:sourceaccount" => source_account,
            "aws:sourcearn" => source_arn,
            "aws:resourceaccount" => Some(self.owner),
            "ecs:cluster" => self.cluster,
            "ecs:createaction" => self.creation,
            // The accounts here belong to no organisation, and there is no KMS.
            _ => None,
        }
    }
}
