//! Watches what EC2 announces about this Spot instance: its interruption, and the recommendation to replace it. Drains the instance if
//! the operator wants that (`ECS_ENABLE_SPOT_INSTANCE_DRAINING`, `ECS_ENABLE_REBALANCE_DRAINING`; spec `registration.md` §7).
//!
//! This part stops no tasks: ECS does that once the instance is draining. The Go agent does not look for recommendations. Here each
//! one is logged, counted, and mentioned by `/health`. It drains only on request: a capacity provider or an Auto Scaling group with
//! capacity rebalancing starts a replacement first, and then drains. Invariant: after what the operator wants to drain for, the call
//! to ECS is repeated until ECS accepts it.

use crate::aws::identity::imds::{Imds, ImdsError};
use crate::aws::identity::lifecycle;
use crate::backoff::{Backoff, Shape};
use crate::config::Config;
use crate::ecs::drain;
use crate::runtime::supervisor::PartResult;
use crate::store::Identity;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Interval between queries for an interruption. EC2 gives two minutes' notice, and recommends a query every few seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// Interval between queries for a recommendation, as EC2 recommends it. The first one is that long after the start.
const REBALANCE_PAUSE: Duration = Duration::from_secs(5);
/// The pauses between attempts to drain after a recommendation.
const REBALANCE_RETRY: Shape = Shape { initial: PAUSE, max: Duration::from_secs(300), factor: 2.0, jitter: 0.2 };
/// Interval between questions whether this is a Spot instance, while IMDS does not answer.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(60);

/// EC2's recommendations to replace this instance, since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Recommendations {
    count: AtomicU64,
    /// The time of the last one as the text of EC2, and when it was seen first.
    last: Mutex<Option<(String, Instant)>>,
}

impl Recommendations {
    /// Notes a recommendation with this time. Returns false if it was noted before: EC2 repeats it until the instance ends.
    pub(crate) fn note(&self, time: &str) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(known, _)| known == time) {
            return false;
        }
        *last = Some((time.to_owned(), Instant::now()));
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The number of different recommendations.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// When the last one was seen first; `None`: there was none.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, at)| *at)
    }
}

/// What the instance drains for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reasons {
    interruption: bool,
    rebalance: bool,
}

/// The watch for what EC2 announces, and the call to ECS that follows.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    imds: Arc<Imds>,
    ecs: aws_sdk_ecs::Client,
    cluster: String,
    container_instance: String,
    drains_for: Reasons,
    recommendations: Arc<Recommendations>,
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new(
        config: &Config,
        imds: Imds,
        ecs: aws_sdk_ecs::Client,
        identity: &Identity,
        recommendations: Arc<Recommendations>,
    ) -> Self {
        let (cluster, container_instance) = (identity.cluster.clone(), identity.container_instance_arn.clone());
        let drains_for = Reasons { interruption: config.spot_draining, rebalance: config.rebalance_draining };
        Self { imds: Arc::new(imds), ecs, cluster, container_instance, drains_for, recommendations }
    }

    /// Watches until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) -> PartResult {
        let watching = async {
            tokio::join!(self.drain_on_notice(), self.watch_recommendations());
            // Nothing is left to do, which is no reason to start again.
            stop.cancelled().await;
        };
        stop.run_until_cancelled(watching).await;
        Ok(())
    }

    async fn drain_on_notice(&self) {
        if !self.drains_for.interruption {
            return;
        }
        loop {
            match lifecycle::spot_notice(&self.imds).await {
                Ok(Some(notice)) => {
                    tracing::warn!(
                        "Received a spot interruption ({}) scheduled for {}, setting state to DRAINING",
                        notice.action,
                        notice.time
                    );
                    if self.drain(PAUSE).await {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot find out whether EC2 has announced an interruption"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn watch_recommendations(&self) {
        // The start has more urgent questions for IMDS.
        sleep(REBALANCE_PAUSE).await;
        if self.drains_for == (Reasons { interruption: false, rebalance: false }) && !self.is_spot().await {
            return;
        }
        loop {
            match lifecycle::rebalance_recommendation(&self.imds).await {
                Ok(Some(time)) if self.recommendations.note(&time) => self.recommended(&time).await,
                Ok(_) => {}
                Err(ImdsError::Blackholed) => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot find out whether EC2 recommends to replace this instance")
                }
            }
            sleep(REBALANCE_PAUSE).await;
        }
    }

    /// Reacts to a new recommendation.
    async fn recommended(&self, time: &str) {
        let count = self.recommendations.count();
        if !self.drains_for.rebalance {
            tracing::warn!(
                time,
                count,
                "EC2 recommends to replace this Spot instance (rebalance recommendation). This is left to Auto Scaling; \
                 ECS_ENABLE_REBALANCE_DRAINING=true drains the instance at once"
            );
            return;
        }
        tracing::warn!(
            time,
            count,
            "EC2 recommends to replace this Spot instance (rebalance recommendation), setting state to DRAINING"
        );
        // The instance may live for days, and the role may never get the right.
        let mut backoff = Backoff::new(REBALANCE_RETRY);
        loop {
            let pause = backoff.pause();
            if self.drain(pause).await {
                return;
            }
            sleep(pause).await;
        }
    }

    /// Whether this is a Spot instance; false if IMDS does not say so.
    async fn is_spot(&self) -> bool {
        loop {
            match lifecycle::is_spot(&self.imds).await {
                Ok(is_spot) => return is_spot,
                Err(error) if matches!(error, ImdsError::Blackholed) || self.imds.is_given_up() => return false,
                Err(error) => tracing::debug!(%error, "cannot find out whether this is a Spot instance"),
            }
            sleep(UNKNOWN_PAUSE).await;
        }
    }

    /// Drains the instance. Returns whether ECS has accepted that. `pause`: the time until the next attempt.
    async fn drain(&self, pause: Duration) -> bool {
        let drained = drain::drain(&self.ecs, &self.cluster, &self.container_instance).await;
        drained
            .inspect_err(|error| {
                let retry_in_s = crate::backoff::seconds(pause);
                tracing::error!(%error, retry_in_s, "the instance is not draining yet; trying again");
            })
            .is_ok()
    }
}
