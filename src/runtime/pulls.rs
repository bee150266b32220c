//! Pulls and look-ups of digests: what several tasks want at the same time is asked for once.
//!
//! A flight is one call to the Docker edge. Who wants the same image, by the same digest, as the same somebody, while it is under
//! way, boards it; everybody gets its outcome as an outcome of their own. Nobody owns a flight: it is driven by whoever waits for it
//! and ends early only when the last of them has gone, so a task that is stopped takes its image from nobody. Whether to pull is
//! the core's choice. Invariant: flights of different credentials are different flights.

use super::clock::Clock;
use super::edges::Edges;
use super::registry_credentials::{at_mirror, credentials, is_token_dropped, mirror_failed};
use crate::core::{ImageRequest, Output};
use crate::docker::PullJob;
use crate::model::task::RegistryAuth;
use crate::model::waiting::PullProgress;
use crate::model::{CredentialsId, Failure, FailureKind, OpError, OpId, RegistryCredentials, Timestamp};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

type Landing = Result<Output, OpError>;
type Call = BoxFuture<'static, Landing>;
type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The calls under way, and who waits for which.
#[derive(Clone, Debug)]
pub(super) struct Pulls {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<Clock>,
}

#[derive(Debug, Default)]
struct Inner {
    flights: Vec<Flight>,
    aboard: BTreeMap<OpId, watch::Receiver<PullProgress>>,
}

#[derive(Clone, Debug)]
struct Flight {
    route: Route,
    call: Option<WeakShared<Call>>,
    progress: watch::Receiver<PullProgress>,
    askers: Askers,
}

/// What makes two requests the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    step: Step,
    /// Without the id of the credentials, which differs from task to task.
    image: ImageRequest,
    /// Whose credentials, if not the operator's or the instance's: the role's ARN. Never a credential.
    role: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Digest,
    Pull,
}

/// Ids of equal credentials, those of each task aboard: one task's may be dropped while another's serve.
type Askers = Arc<Mutex<Vec<CredentialsId>>>;

/// One who waits. Dropping it is leaving.
#[derive(Debug)]
struct Seat {
    op: OpId,
    inner: Arc<Mutex<Inner>>,
}

impl Pulls {
    /// Nothing is under way.
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self { inner: Arc::default(), clock }
    }

    /// Finds the digest behind an image: at the registry, or locally if it need not be asked.
    pub(super) async fn digest(&self, edges: Arc<Edges>, op: OpId, image: ImageRequest) -> Landing {
        let route = Route::of(Step::Digest, &edges, &image);
        let now = self.shared_now();
        let (id, start) = (image.execution_credentials.clone(), |shown, askers| async move {
            resolve_digest(&Asking { edges, image, askers, now }, &shown).await.map(Output::Digest)
        });
        self.board(op, route, id, start).await
    }

    /// Makes an image available.
    pub(super) async fn pull(&self, edges: Arc<Edges>, op: OpId, image: ImageRequest) -> Landing {
        let route = Route::of(Step::Pull, &edges, &image);
        let now = self.shared_now();
        let (id, start) = (image.execution_credentials.clone(), |shown, askers| async move {
            pull(&Asking { edges, image, askers, now }, &shown).await
        });
        self.board(op, route, id, start).await
    }

    /// How far the pull or look-up of that id is; `None` if there is none.
    pub(super) fn progress(&self, op: OpId) -> Option<PullProgress> {
        lock(&self.inner).aboard.get(&op).map(|progress| progress.borrow().clone())
    }

    /// The time that [`PullProgress`] counts from.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same clock, for the Docker edge.
    fn shared_now(&self) -> Now {
        let clock = self.clock.clone();
        Arc::new(move || clock.now())
    }

    /// Waits for the flight of that route; starts one if there is none.
    async fn board<F>(
        &self,
        op: OpId,
        route: Route,
        id: Option<CredentialsId>,
        start: impl FnOnce(watch::Sender<PullProgress>, Askers) -> F,
    ) -> Landing
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let (call, _seat) = {
            let mut inner = lock(&self.inner);
            inner.flights.retain(|flight| flight.under_way().is_some());
            let joined = inner.flights.iter().find(|flight| flight.route == route);
            let joined = joined.and_then(|flight| Some((flight.under_way()?, flight.clone())));
            let (call, flight) = joined.unwrap_or_else(|| {
                let shown = watch::Sender::new(PullProgress { since: self.clock.now(), ..PullProgress::default() });
                let (progress, askers) = (shown.subscribe(), Askers::default());
                let call = unpanicking(start(shown, askers.clone())).boxed().shared();
                let flight = Flight { route, call: call.downgrade(), progress, askers };
                inner.flights.push(flight.clone());
                (call, flight)
            });
            lock(&flight.askers).extend(id);
            inner.aboard.insert(op, flight.progress);
            (call, Seat { op, inner: self.inner.clone() })
        };
        call.await
    }
}

impl Flight {
    /// The call, unless it has ended or everybody has left.
    fn under_way(&self) -> Option<Shared<Call>> {
        self.call.as_ref()?.upgrade().filter(|call| call.peek().is_none())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.inner).aboard.remove(&self.op);
    }
}

impl Route {
    fn of(step: Step, edges: &Edges, image: &ImageRequest) -> Self {
        let id = image.execution_credentials.as_ref().filter(|_| match &image.auth {
            RegistryAuth::Engine => false,
            RegistryAuth::Ecr(auth) => auth.use_execution_role,
            RegistryAuth::Secret(_) => true,
        });
        // Credentials that are not there are nobody else's.
        let role = |id: &CredentialsId| {
            edges.roles.get(id).map_or_else(|| id.as_str().to_owned(), |role| role.role_arn.clone())
        };
        Self { step, role: id.map(role), image: ImageRequest { execution_credentials: None, ..image.clone() } }
    }
}

/// An image, and on whose behalf.
struct Asking {
    edges: Arc<Edges>,
    image: ImageRequest,
    askers: Askers,
    /// The clock of the progress.
    now: Now,
}

impl Asking {
    /// Asked anew for each attempt: a token may have ended meanwhile, and so may the task that asked first. `shown` has the failure of
    /// the last attempt.
    async fn credentials(&self, shown: &watch::Sender<PullProgress>) -> Result<RegistryCredentials, Failure> {
        let last = shown.borrow().failure.clone();
        if let Some(failure) = last {
            is_token_dropped(&self.edges.registries, &self.image, &failure);
        }
        let mut image = self.image.clone();
        let alive = lock(&self.askers).iter().find(|id| self.edges.roles.get(id).is_some()).cloned();
        image.execution_credentials = alive.or(image.execution_credentials);
        credentials(&self.edges.registries, &self.edges.roles, &image).await
    }

    /// The same at the mirror of its registry, if it is to be asked for there.
    fn at_mirror(&self) -> Option<Self> {
        let image = at_mirror(&self.edges.registries, &self.image)?;
        Some(Self { edges: self.edges.clone(), image, askers: self.askers.clone(), now: self.now.clone() })
    }

    /// It is on this host and need not be asked for. What cannot be told is asked for (spec `images.md` §2), and so is with `once` what
    /// was pulled and then removed by somebody; with the Go agent such a task stops.
    async fn is_cached(&self) -> bool {
        !self.image.fresh && matches!(self.edges.docker.image_present(&self.image.image).await, Ok(Some(_)))
    }

    fn job<'a>(&'a self, progress: &'a watch::Sender<PullProgress>, waits_for_limits: bool) -> PullJob<'a> {
        let digest = self.image.digest.as_deref();
        PullJob { image: &self.image.image, digest, waits_for_limits, progress, now: &*self.now }
    }

    /// A limit of the registry is waited for only if nothing on this host serves.
    async fn waits_for_limits(&self) -> bool {
        let cached = async || matches!(self.edges.docker.image_present(&self.image.image).await, Ok(Some(_)));
        !(self.image.cached_serves && cached().await)
    }
}

async fn resolve_digest(asking: &Asking, shown: &watch::Sender<PullProgress>) -> Result<Option<String>, OpError> {
    let (docker, image) = (&asking.edges.docker, &asking.image);
    if asking.is_cached().await {
        let found = docker.local_digest(&image.image).await;
        // What came from a mirror has its digest under the mirror's name.
        return match (found, asking.edges.registries.mirrors.name_of(&image.image)) {
            (Err(error), Some(mirror)) => docker.local_digest(&mirror).await.map_err(|_| error),
            (found, _) => found,
        };
    }
    let waits_for_limits = asking.waits_for_limits().await;
    if let Some(mirror) = asking.at_mirror() {
        let job = mirror.job(shown, false); // whoever refuses there: the registry itself may serve
        match docker.resolve_manifest(&job, || mirror.credentials(shown)).await {
            Ok(digest) => return Ok(digest),
            Err(error) => mirror_failed(&asking.edges.registries, &mirror.image, image, &error),
        }
    }
    let job = asking.job(shown, waits_for_limits);
    let found = docker.resolve_manifest(&job, || asking.credentials(shown)).await;
    match &found {
        Err(OpError::Failed(failure)) if is_token_dropped(&asking.edges.registries, image, &failure.message) => {
            docker.resolve_manifest(&job, || asking.credentials(shown)).await
        }
        _ => found,
    }
}

async fn pull(asking: &Asking, shown: &watch::Sender<PullProgress>) -> Landing {
    let (docker, image) = (&asking.edges.docker, &asking.image);
    if asking.is_cached().await {
        tracing::debug!(image = image.image, "on this host already; not pulled");
        return Ok(Output::Nothing);
    }
    let waits_for_limits = asking.waits_for_limits().await;
    if let Some(mirror) = asking.at_mirror() {
        match fetch(&mirror, shown, false, Some(&image.image)).await {
            Ok(()) => return Ok(Output::Pulled),
            Err(error) => mirror_failed(&asking.edges.registries, &mirror.image, image, &error),
        }
    }
    let Err(error) = fetch(asking, shown, waits_for_limits, None).await else { return Ok(Output::Pulled) };
    let failure = match &error {
        OpError::Failed(failure) | OpError::Unknown(failure) => failure.clone(),
    };
    // What ends the task ends it whatever is on this host.
    if !image.looks_after_failure || failure.kind == FailureKind::EndsTask {
        return Err(error);
    }
    match docker.serves_unpulled(&image.image, image.digest.as_deref()).await {
        Ok(true) => {
            tracing::warn!(image = image.image, %failure, "the image cannot be pulled; the one on this host is used");
            Ok(Output::Cached)
        }
        Ok(false) | Err(_) => Err(OpError::Failed(Failure { kind: FailureKind::ImageMissing, ..failure })),
    }
}

/// Pulls it, and gives it this name too.
async fn fetch(
    asking: &Asking,
    shown: &watch::Sender<PullProgress>,
    waits_for_limits: bool,
    name: Option<&str>,
) -> Result<(), OpError> {
    let docker = &asking.edges.docker;
    docker.pull(&asking.job(shown, waits_for_limits), || asking.credentials(shown)).await?;
    match name {
        Some(name) => docker.name(&asking.image.image, name).await,
        None => Ok(()),
    }
}

/// A panic ends the flight for everybody, and is told to everybody.
async fn unpanicking(call: impl Future<Output = Landing> + Send) -> Landing {
    let landed = AssertUnwindSafe(call).catch_unwind().await;
    landed.unwrap_or_else(|_| Err(OpError::Unknown(Failure::permanent("InternalError", "the agent failed in a pull"))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
