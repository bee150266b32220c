//! Drains the instance when EC2 announces its end (`ECS_ENABLE_SPOT_INSTANCE_DRAINING`, spec `registration.md` §7).
//!
//! Tasks are not stopped here: ECS does that, once it knows that the instance drains. Invariant: this part is done only when ECS has
//! taken the call.

use super::supervisor::PartResult;
use crate::aws::imds::Imds;
use crate::aws::lifecycle;
use crate::ecs::drain;
use crate::store::Identity;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks; EC2 gives two minutes, and asks to look every few seconds.
const PAUSE: Duration = Duration::from_secs(1);

/// What to watch and whom to tell.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    imds: Arc<Imds>,
    ecs: aws_sdk_ecs::Client,
    cluster: String,
    container_instance: String,
}

impl Watch {
    pub(super) fn new(imds: Imds, ecs: aws_sdk_ecs::Client, identity: &Identity) -> Self {
        let (cluster, container_instance) = (identity.cluster.clone(), identity.container_instance_arn.clone());
        Self { imds: Arc::new(imds), ecs, cluster, container_instance }
    }

    /// Watches until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) -> PartResult {
        tokio::select! {
            () = self.drain_at_the_end() => stop.cancelled().await,
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    async fn drain_at_the_end(&self) {
        loop {
            match lifecycle::spot_notice(&self.imds).await {
                Ok(Some(notice)) => {
                    tracing::warn!(notice.action, notice.time, "EC2 announces the end of this instance; it drains");
                    match drain::drain(&self.ecs, &self.cluster, &self.container_instance).await {
                        Ok(()) => return,
                        Err(error) => tracing::error!(%error, "the instance is not draining yet; trying again"),
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "no answer to whether the end of this instance is announced"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
