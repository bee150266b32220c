//! Decides whether a caller may do something, from the policies of both sides. Invariants: an explicit deny wins; in the same
//! account one side has to allow, between accounts both have to; whatever no policy mentions is denied.

use super::error::{Denial, Reason};
use super::policy::{Decision, Policy, Request};

/// Decides one action. `identity` is what the caller's own policies say, `resource` the policy of the resource; `None`: it has
/// none.
///
/// # Errors
/// The refusal with its reason.
pub(crate) fn decide(request: &Request<'_>, identity: Decision, resource: Option<&Policy>) -> Result<(), Denial> {
    let resource = resource.map_or(Decision::NotMentioned, |policy| policy.decide(request));
    let is_own = request.principal.account() == request.owner;
    let reason = match (identity, resource) {
        (Decision::Denied, _) => Reason::DeniedByIdentity,
        (_, Decision::Denied) => Reason::DeniedByResource,
        // A service has no policies of its own.
        (_, Decision::Allowed) if request.principal.is_service() => return Ok(()),
        _ if request.principal.is_service() => Reason::NotAllowedByResource,
        (Decision::Allowed, _) | (_, Decision::Allowed) if is_own => return Ok(()),
        // A policy that names the own account leaves the decision to the policies of the account's identities.
        _ if is_own => Reason::NotAllowedByIdentity,
        (_, Decision::NotMentioned) => Reason::NotAllowedByResource,
        (Decision::Allowed, _) => return Ok(()),
        _ => Reason::NotAllowedByIdentity,
    };
    Err(Denial {
        principal: request.principal.arn().to_owned(),
        action: request.action.to_owned(),
        resource: request.resource.to_owned(),
        reason,
    })
}
