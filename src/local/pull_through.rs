//! What happens before a pull from a repository with a pull through cache rule. [`super::ecr`] chooses the rule and
//! copies; this module asks for the permissions. Invariant: an image that is here is given, whatever the other registry
//! says.

use super::ecr::error::Place;
use super::ecr::upstream::Upstream;
use super::ecr::{Action, EcrError, Principal};
use super::state::State;

/// The name of the session of a rule's role.
const SESSION: &str = "ecr-pull-through-cache";

impl State {
    /// Takes an image from the registry of another account, if a rule says so, and the image is not here or old. Returns
    /// whether it was looked for there.
    ///
    /// # Errors
    /// A permission that the caller or the rule's role lacks, or that the other registry has no such image.
    pub(super) fn pull_through(&mut self, caller: &Principal, to: &Place, reference: &str) -> Result<bool, EcrError> {
        let now = self.ecr_time();
        let Some(upstream) = self.ecr.upstream(to) else { return Ok(false) };
        // Who may not pull gets the usual refusal, and learns nothing of rules.
        let may_pull = self.ecr.permit(caller, Action::BATCH_GET_IMAGE, &to.account, &to.repository).is_ok();
        if !may_pull || !self.ecr.is_outdated(to, reference, now) {
            return Ok(false);
        }
        let is_here = self.ecr.image(&to.account, &to.repository, reference).is_ok();
        match self.take(caller, to, &upstream, reference, now) {
            Err(_) if is_here => Ok(true),
            outcome => outcome.map(|()| true),
        }
    }

    fn take(
        &mut self,
        caller: &Principal,
        to: &Place,
        Upstream { place: from, role }: &Upstream,
        reference: &str,
        now: f64,
    ) -> Result<(), EcrError> {
        self.permit_ecr(caller, Action::BATCH_IMPORT_UPSTREAM_IMAGE, &to.account, &to.repository)?;
        if self.ecr.repository(&to.account, &to.repository).is_err() {
            self.permit_ecr(caller, Action::CREATE_REPOSITORY, &to.account, &to.repository)?;
        }
        let role = Principal::role(role, SESSION, &to.account);
        let pull = [Action::BATCH_GET_IMAGE, Action::GET_DOWNLOAD_URL_FOR_LAYER];
        let readable = pull
            .into_iter()
            .try_for_each(|action| self.authorize_ecr(&role, action, &from.account, &from.repository))
            .and_then(|()| self.ecr.import(from, to, reference, now));
        readable.map_err(|error| {
            let (repository, registry) = (&to.repository, &from.account);
            EcrError::NoUpstream(format!(
                "The image '{reference}' of the repository '{repository}' cannot be taken from the registry with id '{registry}': {error}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::policy::Policy;
    use crate::ecr::service::CacheRule;
    use crate::ecr::{Digest, NewImage};
    use crate::site::Site;
    use bytes::Bytes;
    use serde_json::{Value, json};

    const OWN: &str = "123456789012";
    const OTHER: &str = "210987654321";
    const DAY: i64 = 24 * 3600;

    fn place(account: &str, repository: &str) -> Place {
        Place { account: account.to_owned(), repository: repository.to_owned() }
    }

    /// A rule for `up/…` with images of another account, whose repository `team/app` has an image and an index, and lets
    /// the rule's role pull.
    fn state() -> State {
        let mut state = State::new(Site::example(), "default");
        state.ecr.add_account(OTHER, "127.0.0.2:14566").unwrap();
        let rule = CacheRule {
            upstream: format!("{OTHER}.dkr.ecr.us-west-2.amazonaws.com"),
            kind: Some("ecr".to_owned()),
            credential: None,
            role: Some(format!("arn:aws:iam::{OWN}:role/cache")),
            created_at: 0.0,
        };
        state.ecr.registry_mut(OWN).unwrap().cache_rules.insert("up".to_owned(), rule);
        let source = crate::ecr::repository::Repository::new(place(OTHER, "team/app"), 0.0);
        state.ecr.create_repository(source).unwrap();
        push(&mut state, "1");
        admit(&mut state, &["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]);
        state
    }

    /// Pushes an image, and an index of it with the tag `latest`. Returns the digest of the index.
    fn push(state: &mut State, seed: &str) -> Digest {
        let now = state.ecr_time();
        let (config, layer) = (Digest::compute(format!("c{seed}").as_bytes()), Digest::compute(seed.as_bytes()));
        for digest in [config, layer] {
            state.ecr.add_layer(OTHER, "team/app", digest, 10, now).unwrap();
        }
        let image = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": config, "size": 10}, "layers": [{"digest": layer, "size": 10}],
        });
        let put = |state: &mut State, manifest: &Value, tag: Option<&str>| {
            let new = NewImage::read(Bytes::from(manifest.to_string()), None, tag.map(str::to_owned), None).unwrap();
            state.ecr.put_image(OTHER, "team/app", &new, now).unwrap()
        };
        let image = put(state, &image, None);
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"digest": image, "size": 1}],
        });
        put(state, &index, Some("latest"))
    }

    fn admit(state: &mut State, actions: &[&str]) {
        let principal = json!({"AWS": format!("arn:aws:iam::{OWN}:role/cache")});
        let statement = json!({"Effect": "Allow", "Principal": principal, "Action": actions});
        let policy = Policy::for_repository(&json!({"Statement": statement}).to_string()).unwrap();
        state.ecr.repository_mut(OTHER, "team/app").unwrap().policy = Some(policy);
    }

    fn pull(state: &mut State, reference: &str) -> Result<bool, EcrError> {
        state.pull_through(&Principal::administrator(OWN), &place(OWN, "up/team/app"), reference)
    }

    #[test]
    fn the_first_pull_brings_an_image_with_all_that_it_needs() {
        let mut state = state();
        assert_eq!(pull(&mut state, "latest"), Ok(true));
        assert_eq!(pull(&mut state, "latest"), Ok(false), "it is here");
        let repository = state.ecr.repository(OWN, "up/team/app").unwrap();
        assert_eq!((repository.images().len(), repository.layers().len()), (2, 2));
        let [here, there] = [(OWN, "up/team/app"), (OTHER, "team/app")]
            .map(|(account, name)| state.ecr.image(account, name, "latest").unwrap().digest);
        assert_eq!(here, there);
        let elsewhere = state.pull_through(&Principal::administrator(OWN), &place(OWN, "upper/app"), "latest");
        assert_eq!(elsewhere, Ok(false), "no rule");
    }

    #[test]
    fn a_tag_is_looked_up_again_after_a_day() {
        let mut state = state();
        pull(&mut state, "latest").unwrap();
        let moved = push(&mut state, "2");
        let digest = |state: &State| state.ecr.image(OWN, "up/team/app", "latest").unwrap().digest;
        assert_eq!(pull(&mut state, "latest"), Ok(false));
        state.set_clocks(0, DAY + 60);
        assert_ne!(digest(&state), moved);
        assert_eq!(pull(&mut state, "latest"), Ok(true));
        assert_eq!(digest(&state), moved);
        admit(&mut state, &["ecr:DescribeImages"]);
        push(&mut state, "3");
        state.set_clocks(0, 2 * DAY + 120);
        assert_eq!(pull(&mut state, "latest"), Ok(true));
        assert_eq!(digest(&state), moved, "what is here is given if the other registry refuses");
    }

    #[test]
    fn refusals_name_the_side_that_refuses() {
        let mut state = state();
        let error = pull(&mut state, "v2").unwrap_err();
        assert_eq!(error.code(), "UnableToGetUpstreamImageException");
        let end = format!(
            "cannot be taken from the registry with id '{OTHER}': The image with imageId {{imageDigest:'null', imageTag:'v2'}} does not \
             exist within the repository with name 'team/app' in the registry with id '{OTHER}'"
        );
        assert!(error.to_string().ends_with(&end), "{error}");
        admit(&mut state, &["ecr:BatchGetImage"]);
        let error = pull(&mut state, "latest").unwrap_err().to_string();
        assert!(error.contains("assumed-role/cache/") && error.contains("ecr:GetDownloadUrlForLayer"), "{error}");
        assert!(state.ecr.repository(OWN, "up/team/app").is_err(), "nothing was created");
        let policy = json!({"Statement": {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": "*"}});
        let policy = Policy::for_identity(&policy.to_string()).unwrap();
        state.ecr.identities_mut().put_role(OWN, "web", policy, true).unwrap();
        let caller = Principal::role("web", "s", OWN);
        let error = state.pull_through(&caller, &place(OWN, "up/team/app"), "latest").unwrap_err().to_string();
        assert!(error.contains("ecr:BatchImportUpstreamImage"), "{error}");
    }
}
