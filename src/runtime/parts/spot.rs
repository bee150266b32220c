//! Drains the instance when EC2 announces its interruption (`ECS_ENABLE_SPOT_INSTANCE_DRAINING`, spec `registration.md` §7).
//!
//! This part stops no tasks: ECS does that once the instance is draining. Invariant: after a notice, the call to ECS is repeated
//! until ECS accepts it.

use crate::aws::identity::imds::Imds;
use crate::aws::identity::lifecycle;
use crate::ecs::drain;
use crate::runtime::supervisor::PartResult;
use crate::store::Identity;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Interval between queries. EC2 gives two minutes' notice, and recommends a query every few seconds.
const PAUSE: Duration = Duration::from_secs(1);

/// The watch for an interruption notice, and the call to ECS that follows.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    imds: Arc<Imds>,
    ecs: aws_sdk_ecs::Client,
    cluster: String,
    container_instance: String,
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new(imds: Imds, ecs: aws_sdk_ecs::Client, identity: &Identity) -> Self {
        let (cluster, container_instance) = (identity.cluster.clone(), identity.container_instance_arn.clone());
        Self { imds: Arc::new(imds), ecs, cluster, container_instance }
    }

    /// Watches until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) -> PartResult {
        tokio::select! {
            () = self.drain_on_notice() => stop.cancelled().await,
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    async fn drain_on_notice(&self) {
        loop {
            match lifecycle::spot_notice(&self.imds).await {
                Ok(Some(notice)) => {
                    tracing::warn!(
                        "Received a spot interruption ({}) scheduled for {}, setting state to DRAINING",
                        notice.action,
                        notice.time
                    );
                    match drain::drain(&self.ecs, &self.cluster, &self.container_instance).await {
                        Ok(()) => return,
                        Err(error) => {
                            let retry_in_s = crate::backoff::seconds(PAUSE);
                            tracing::error!(%error, retry_in_s, "the instance is not draining yet; trying again");
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot find out whether EC2 has announced an interruption"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
