//! Calls about the policy of a repository.

use super::call::{Call, Target, flag, required, with};
use crate::api::request::Answer;
use crate::ecr::error::EcrError;
use crate::ecr::policy::{MAX_POLICY, Policy, Request};
use crate::ecr::{Action, Ecr};
use serde_json::{Value, json};

/// SetRepositoryPolicy.
pub(super) fn set(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::SET_REPOSITORY_POLICY)?;
    let text = required(call.body, "policyText")?;
    if text.len() > MAX_POLICY {
        let constraint = format!("Member must have length less than or equal to {MAX_POLICY}");
        return Err(EcrError::invalid("policyText", constraint).into());
    }
    let policy = Policy::for_repository(text)
        .map_err(|problem| EcrError::invalid("PolicyText", format!("Invalid repository policy provided: {problem}")))?;
    if !flag(call.body, "force")? {
        let resource = call.state.ecr.arn(&target.account, &target.name);
        let action = Action::SET_REPOSITORY_POLICY.name();
        let request = Request::new(call.caller, action, &resource, &target.account);
        if call.state.ecr.decide(&request, Some(&policy)).is_err() {
            let problem = format!(
                "with this policy, {} could not call SetRepositoryPolicy again. Use force to set it all the same",
                call.caller.arn()
            );
            return Err(EcrError::invalid("PolicyText", problem).into());
        }
    }
    let shown = show(&target, &policy);
    call.state.ecr.repository_mut(&target.account, &target.name)?.policy = Some(policy);
    Ok(shown)
}

/// GetRepositoryPolicy.
pub(super) fn get(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::GET_REPOSITORY_POLICY)?;
    let policy = current(&call.state.ecr, &target)?;
    Ok(show(&target, &policy))
}

/// DeleteRepositoryPolicy.
pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::DELETE_REPOSITORY_POLICY)?;
    let policy = current(&call.state.ecr, &target)?;
    call.state.ecr.repository_mut(&target.account, &target.name)?.policy = None;
    Ok(show(&target, &policy))
}

fn current(ecr: &Ecr, target: &Target) -> Result<Policy, EcrError> {
    let Target { account, name } = target;
    ecr.repository(account, name)?.policy.clone().ok_or_else(|| {
        let message = format!(
            "Repository policy does not exist for the repository with name '{name}' in the registry with id '{account}'"
        );
        EcrError::other("RepositoryPolicyNotFoundException", message)
    })
}

fn show(target: &Target, policy: &Policy) -> Value {
    with(target.show(), json!({"policyText": policy.text()}))
}
