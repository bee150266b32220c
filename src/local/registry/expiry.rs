//! Carries out lifecycle policies. Invariant: others wait for a copy and for the removal only, never for the evaluation of rules.

use crate::shared::Shared;
use crate::state::State;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// How often repositories are looked at again that change all the time. The keeper then begins once more, some time later.
const MAX_ROUNDS: usize = 5;

/// Carries out all lifecycle policies, and removes layers that nobody needs. This takes time: see [`expire_elsewhere`].
pub(crate) fn expire(shared: &Shared) {
    for _round in 0..MAX_ROUNDS {
        let (copy, now) = shared.read(|state| (state.ecr.clone(), state.ecr_time()));
        let found = copy.evaluate(now);
        if shared.change(|state| state.ecr.carry_out(&found)) {
            return;
        }
    }
}

/// Carries out all lifecycle policies on a thread that nobody waits for, and returns afterwards.
pub(crate) async fn expire_elsewhere(shared: &Arc<Shared>) {
    let own = Arc::clone(shared);
    // If it panics, the keeper tries again.
    let _ended = spawn_blocking(move || expire(&own)).await;
}

/// Begins to carry out all lifecycle policies, if it is time.
pub(super) fn expire_if_due(shared: &Arc<Shared>) {
    let begin = |state: &mut State| {
        let now = state.ecr_time();
        (state.ecr.begin_evaluation(now), false)
    };
    if shared.change_if(begin) {
        let own = Arc::clone(shared);
        shared.storage.tasks.spawn_blocking(move || expire(&own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::lifecycle::LifecyclePolicy;
    use crate::ecr::repository::Repository;
    use crate::ecr::{Digest, NewImage};
    use crate::options::Options;
    use crate::registry::Storage;
    use crate::site::Site;
    use serde_json::json;
    use std::time::{Duration, Instant};

    const OWN: &str = "123456789012";

    /// A server with images whose tags take long to be compared with the patterns of the rules.
    fn slow() -> Arc<Shared> {
        let mut state = State::new(Site::example(), "default");
        let place = crate::ecr::error::Place { account: OWN.to_owned(), repository: "app".to_owned() };
        state.ecr.create_repository(Repository::new(place, 0.0)).unwrap();
        let config = Digest::compute(b"{}");
        state.ecr.add_layer(OWN, "app", config, 2, 0.0).unwrap();
        for number in 0..200 {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let manifest = json!({
                "schemaVersion": 2, "mediaType": kind, "config": {"digest": config, "size": 2}, "layers": [],
                "annotations": {"number": number.to_string()},
            });
            let tag = format!("{}{number:03}", "a".repeat(250));
            let image = NewImage::read(manifest.to_string().into(), None, Some(tag), None).unwrap();
            state.ecr.put_image(OWN, "app", &image, 0.0).unwrap();
        }
        let rule = |priority: u32| {
            json!({"rulePriority": priority, "action": {"type": "expire"}, "selection": {
                "tagStatus": "tagged", "tagPatternList": [format!("*{}b{priority}", "a".repeat(60))],
                "countType": "imageCountMoreThan", "countNumber": 1}})
        };
        let policy = json!({"rules": (1..=50).map(rule).collect::<Vec<_>>()}).to_string();
        let policy = LifecyclePolicy::read(&policy).unwrap();
        state.ecr.repository_mut(OWN, "app").unwrap().lifecycle = Some(policy);
        let storage = Storage::in_memory(1000, Duration::from_secs(60));
        Arc::new(Shared::new(state, Options::default(), storage))
    }

    #[test]
    fn nobody_waits_while_rules_are_evaluated() {
        let shared = slow();
        let (begin, own) = (Instant::now(), Arc::clone(&shared));
        let run = std::thread::spawn(move || expire(&own));
        let (mut max_wait, mut last) = (Duration::ZERO, Instant::now());
        while !run.is_finished() {
            shared.read(|state| assert_eq!(state.ecr.repository(OWN, "app").unwrap().images().len(), 200));
            max_wait = max_wait.max(last.elapsed());
            last = Instant::now();
            std::thread::yield_now();
        }
        run.join().unwrap();
        let whole = begin.elapsed();
        let policy = shared.read(|state| state.ecr.repository(OWN, "app").unwrap().lifecycle.clone().unwrap());
        assert!(policy.evaluated_at.is_some());
        assert!(max_wait < whole / 2, "waited {max_wait:?} of {whole:?}");
    }
}
