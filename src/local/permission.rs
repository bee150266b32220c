//! Whether the caller of an action has the permission for it. [`super::ecr`] decides, [`super::demand`] says what a call needs.
//! Invariant: whatever is allowed or denied is logged.

use super::api_error::ApiError;
use super::demand::Demand;
use super::ecr::policy::Request;
use super::ecr::{Action, Denial, EcrError, Principal};
use super::state::State;

impl State {
    /// The caller may perform the action on the repository, and it exists. The outcome is logged.
    ///
    /// # Errors
    /// See [`super::ecr::Ecr::authorize`].
    pub(super) fn authorize_ecr(
        &mut self,
        caller: &Principal,
        action: Action,
        account: &str,
        repository: &str,
    ) -> Result<(), EcrError> {
        let outcome = self.ecr.authorize(caller, action, account, repository);
        let resource = self.ecr.arn(account, repository);
        self.log_action(caller, action.name(), &resource, !matches!(outcome, Err(EcrError::Denied(_))));
        outcome
    }

    /// The caller may perform the action on the repository, whether it exists or not. The outcome is logged.
    ///
    /// # Errors
    /// The missing permission.
    pub(super) fn permit_ecr(
        &mut self,
        caller: &Principal,
        action: Action,
        account: &str,
        repository: &str,
    ) -> Result<(), EcrError> {
        let outcome = self.ecr.permit(caller, action, account, repository);
        let resource = self.ecr.arn(account, repository);
        self.log_action(caller, action.name(), &resource, outcome.is_ok());
        outcome.map_err(EcrError::Denied)
    }

    /// The caller may perform an action on a resource of the account `owner` that has no policy. The outcome is logged.
    ///
    /// # Errors
    /// The missing permission.
    pub(super) fn permit(&mut self, request: &Request<'_>) -> Result<(), Denial> {
        let outcome = self.ecr.decide(request, None);
        self.log_action(request.principal, request.action, request.resource, outcome.is_ok());
        outcome
    }

    /// The caller may make a call of a service other than ECR, which belongs to the session's account.
    ///
    /// # Errors
    /// The first missing permission.
    pub(super) fn permit_call(&mut self, caller: &Principal, demands: &[Demand]) -> Result<(), ApiError> {
        let owner = self.site.account.clone();
        for Demand { action, resource, cluster, creation } in demands {
            let request = Request {
                cluster: cluster.as_deref(),
                creation: *creation,
                ..Request::new(caller, action, resource, &owner)
            };
            self.permit(&request).map_err(|denial| ApiError::new(400, "AccessDeniedException", denial.to_string()))?;
        }
        Ok(())
    }

    /// Logs an action that no policy decided about.
    pub(super) fn log_action(&mut self, caller: &Principal, action: &str, resource: &str, is_allowed: bool) {
        let at = self.ecr_time();
        self.actions.add(at, caller.identity_arn(), action, resource, is_allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::s3_demand;
    use crate::ecr::policy::Policy;
    use crate::site::Site;
    use serde_json::{Value, json};

    #[test]
    fn a_policy_of_a_role_counts_for_all_services() {
        let mut state = State::new(Site::example(), "default");
        let role = "arn:aws:iam::123456789012:role/app";
        let caller = Principal::role(role, "task", "123456789012");
        let demands = s3_demand("GetObject", "b", "key");
        assert_eq!(state.permit_call(&caller, &demands), Ok(()), "a role without a policy may do everything");
        let policy = json!({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::other/*"}});
        let policy = Policy::for_identity(&policy.to_string()).unwrap();
        state.ecr.identities_mut().put_role("123456789012", role, policy, true).unwrap();
        let error = state.permit_call(&caller, &demands).unwrap_err();
        assert_eq!(
            error.message,
            "User: arn:aws:sts::123456789012:assumed-role/app/task is not authorized to perform: s3:GetObject on resource: \
             arn:aws:s3:::b/key because no identity-based policy allows the s3:GetObject action"
        );
        let outcomes = outcomes(&state);
        assert_eq!(outcomes, [format!("{role} denied"), format!("{role} allowed")]);
    }

    /// Who and with which outcome, as the log has it.
    fn outcomes(state: &State) -> Vec<String> {
        let text = |entry: &Value, member: &str| entry[member].as_str().unwrap().to_owned();
        let shown = state.actions.show();
        let entries = shown["actions"].as_array().unwrap().iter();
        entries.map(|entry| format!("{} {}", text(entry, "principal"), text(entry, "outcome"))).collect()
    }

    #[test]
    fn nobody_of_another_account_may_use_other_services() {
        let mut state = State::new(Site::example(), "default");
        for caller in [
            Principal::administrator("210987654321"),
            Principal::role("arn:aws:iam::210987654321:role/build", "s", "123456789012"),
            Principal::service("codebuild.amazonaws.com", Some("123456789012"), None),
        ] {
            let error = state.permit_call(&caller, &s3_demand("GetObject", "b", "key")).unwrap_err();
            assert!(
                error.message.ends_with("because no resource-based policy allows the s3:GetObject action"),
                "{error}"
            );
        }
        assert!(outcomes(&state).iter().all(|outcome| outcome.ends_with(" denied")) && outcomes(&state).len() == 3);
    }
}
