//! UpdateContainerInstancesState: this instance takes no new tasks (spec `registration.md` §7).
//!
//! Owns the call and its error. The caller decides when to drain; the call may be repeated.

use super::text_of;
use aws_sdk_ecs::types::ContainerInstanceStatus;

/// The call failed, so the instance may not be draining yet. The call may be repeated.
#[derive(Debug, thiserror::Error)]
#[error("UpdateContainerInstancesState: {0}")]
pub struct DrainError(String);

/// Sets the instance to `DRAINING`.
///
/// # Errors
/// Fails if ECS refuses the call, or does not answer in time.
pub async fn drain(client: &aws_sdk_ecs::Client, cluster: &str, container_instance: &str) -> Result<(), DrainError> {
    let call = client
        .update_container_instances_state()
        .cluster(cluster)
        .container_instances(container_instance)
        .status(ContainerInstanceStatus::Draining);
    call.send().await.map(drop).map_err(|error| DrainError(text_of(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{Answer, Fake};
    use crate::ecs::report::tests::client;
    use serde_json::json;

    #[tokio::test]
    async fn the_request_names_the_instance_and_the_error_its_cause() {
        let fake = Fake::start(|request| match request.number {
            0 => Answer::json(200, &json!({})),
            _ => Answer::error(400, "AccessDeniedException", "no"),
        })
        .await;
        let client = client(&fake.url());
        drain(&client, "judge", "arn").await.unwrap();
        assert_eq!(
            fake.requests()[0].json(),
            json!({"cluster": "judge", "containerInstances": ["arn"], "status": "DRAINING"})
        );
        let error = drain(&client, "judge", "arn").await.unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
    }
}
