//! Pulls and digest look-ups: requests of several tasks for the same image at the same time share one call to the Docker edge.
//!
//! A request joins a call that is still running if both are for the same image and digest with the same credentials. Each
//! waiter gets the outcome of the call as its own. No waiter owns the call: all of them drive it, and it is cancelled only
//! when the last one has left, so stopping one task never cancels another task's pull. Whether to pull at all is the core's
//! decision. Invariant: requests with different credentials never share a call.

use super::edges::Edges;
use super::registry_credentials::{at_mirror, credentials, drop_expired_token, mirror_failed};
use crate::docker::PullJob;
use crate::metrics::PullOutcome;
use crate::runtime::clock::Clock;
use crate::runtime::trace::Labels;
use ecs_core::model::task::RegistryAuth;
use ecs_core::model::waiting::PullProgress;
use ecs_core::model::{CredentialsId, Failure, FailureKind, OpError, OpId, RegistryCredentials, Timestamp};
use ecs_core::{ImageRequest, Output};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument, Span};

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type CallResult = Result<Output, OpError>;
type Call = BoxFuture<'static, CallResult>;

/// The running calls and their waiters.
#[derive(Clone, Debug)]
pub(crate) struct Pulls {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<Clock>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<SharedCall>,
    /// Who waits, by the waiter's operation.
    waiters: BTreeMap<OpId, Waiting>,
}

/// What one waiter waits for.
#[derive(Debug)]
struct Waiting {
    /// The progress of its call.
    progress: watch::Receiver<PullProgress>,
    labels: Labels,
}

#[derive(Clone, Debug)]
struct SharedCall {
    key: RequestKey,
    /// `None` if the call had ended before it could be shared.
    call: Option<WeakShared<Call>>,
    progress: watch::Receiver<PullProgress>,
    credentials_ids: CredentialsIds,
    /// The lines of the call show the names of all its waiters.
    span: Span,
}

/// Requests with equal keys share a call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RequestKey {
    step: Step,
    /// The request without the id of its credentials, which differs from task to task.
    image: ImageRequest,
    /// ARN of the execution role whose credentials are used; `None` if they are the operator's or the instance's. Never a
    /// credential.
    role: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Digest,
    Pull,
}

/// The credentials ids of all tasks that share a call. All belong to the same role: when the credentials of one task are
/// dropped, those of another can still be used.
type CredentialsIds = Arc<Mutex<Vec<CredentialsId>>>;

/// One waiter of a call. It leaves the call when this is dropped.
#[derive(Debug)]
struct Waiter {
    op: OpId,
    inner: Arc<Mutex<Inner>>,
}

impl Pulls {
    /// No call is running yet.
    pub(crate) fn new(clock: Arc<Clock>) -> Self {
        Self { inner: Arc::default(), clock }
    }

    /// Finds the digest of an image: at the registry, or on this host if the registry need not be asked.
    pub(crate) async fn digest(&self, edges: Arc<Edges>, op: OpId, labels: Labels, image: ImageRequest) -> CallResult {
        let key = RequestKey::new(Step::Digest, &edges, &image);
        let now = self.shared_now();
        let (id, start) = (image.execution_credentials.clone(), |progress, ids| async move {
            resolve_digest(&Request { edges, image, credentials_ids: ids, now }, &progress).await.map(Output::Digest)
        });
        self.share(op, labels, key, id, start).await
    }

    /// Makes an image available.
    pub(crate) async fn pull(&self, edges: Arc<Edges>, op: OpId, labels: Labels, image: ImageRequest) -> CallResult {
        let key = RequestKey::new(Step::Pull, &edges, &image);
        let now = self.shared_now();
        let (id, start) = (image.execution_credentials.clone(), |progress, ids| async move {
            let (began, metrics) = (Instant::now(), edges.metrics.clone());
            let result = pull(&Request { edges, image, credentials_ids: ids, now }, &progress).await;
            metrics.pull_ended(outcome(&result), began.elapsed());
            result
        });
        self.share(op, labels, key, id, start).await
    }

    /// Progress of the pull or look-up of this operation; `None` if the operation waits for no call.
    pub(crate) fn progress(&self, op: OpId) -> Option<PullProgress> {
        lock(&self.inner).waiters.get(&op).map(|waiting| waiting.progress.borrow().clone())
    }

    /// Number of pulls that run or wait for their turn.
    pub(crate) fn running(&self) -> usize {
        let inner = lock(&self.inner);
        inner.calls.iter().filter(|shared| shared.key.step == Step::Pull && shared.running().is_some()).count()
    }

    /// The present time, on the clock of the times in [`PullProgress`].
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same clock, for the Docker edge.
    fn shared_now(&self) -> Now {
        let clock = self.clock.clone();
        Arc::new(move || clock.now())
    }

    /// Waits for the running call with this key; starts one if there is none.
    async fn share<F>(
        &self,
        op: OpId,
        labels: Labels,
        key: RequestKey,
        id: Option<CredentialsId>,
        start: impl FnOnce(watch::Sender<PullProgress>, CredentialsIds) -> F,
    ) -> CallResult
    where
        F: Future<Output = CallResult> + Send + 'static,
    {
        let (call, _waiter) = {
            let mut inner = lock(&self.inner);
            inner.calls.retain(|shared| shared.running().is_some());
            let joined = inner.calls.iter().find(|shared| shared.key == key);
            let joined = joined.and_then(|shared| Some((shared.running()?, shared.clone())));
            let (call, shared) = joined.unwrap_or_else(|| {
                let sender = watch::Sender::new(PullProgress { since: self.clock.now(), ..PullProgress::default() });
                let (progress, credentials_ids) = (sender.subscribe(), CredentialsIds::default());
                let span = labels.span();
                let call =
                    catch_panic(start(sender, credentials_ids.clone())).instrument(span.clone()).boxed().shared();
                let shared = SharedCall { key, call: call.downgrade(), progress, credentials_ids, span };
                inner.calls.push(shared.clone());
                (call, shared)
            });
            lock(&shared.credentials_ids).extend(id);
            inner.waiters.insert(op, Waiting { progress: shared.progress.clone(), labels });
            inner.name_waiters(&shared);
            (call, Waiter { op, inner: self.inner.clone() })
        };
        call.await
    }
}

impl SharedCall {
    /// The call; `None` if it has ended or every waiter has left.
    fn running(&self) -> Option<Shared<Call>> {
        self.call.as_ref()?.upgrade().filter(|call| call.peek().is_none())
    }
}

impl Inner {
    /// The lines of this call show its present waiters from now on.
    fn name_waiters(&self, shared: &SharedCall) {
        let waiters = self.waiters.values().filter(|waiting| waiting.progress.same_channel(&shared.progress));
        Labels::joined(waiters.map(|waiting| &waiting.labels)).record(&shared.span);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        let Some(left) = inner.waiters.remove(&self.op) else { return };
        if let Some(shared) = inner.calls.iter().find(|shared| shared.progress.same_channel(&left.progress)) {
            inner.name_waiters(shared);
        }
    }
}

impl RequestKey {
    fn new(step: Step, edges: &Edges, image: &ImageRequest) -> Self {
        let id = image.execution_credentials.as_ref().filter(|_| match &image.auth {
            RegistryAuth::Engine => false,
            RegistryAuth::Ecr(auth) => auth.use_execution_role,
            RegistryAuth::Secret(_) => true,
        });
        // Unknown credentials cannot be compared with any others, so their id stands for the role.
        let role = |id: &CredentialsId| {
            edges.roles.get(id).map_or_else(|| id.as_str().to_owned(), |role| role.role_arn.clone())
        };
        Self { step, role: id.map(role), image: ImageRequest { execution_credentials: None, ..image.clone() } }
    }
}

/// A request for an image, with the credentials ids of all tasks that wait for it.
struct Request {
    edges: Arc<Edges>,
    image: ImageRequest,
    credentials_ids: CredentialsIds,
    /// The clock of the times in the progress.
    now: Now,
}

impl Request {
    /// The credentials of one attempt. Each attempt gets them anew: since the last one, the token may have expired, and the task
    /// that started the call may be gone. `progress` holds the failure of the last attempt.
    async fn credentials(&self, progress: &watch::Sender<PullProgress>) -> Result<RegistryCredentials, Failure> {
        let last = progress.borrow().failure.clone();
        if let Some(failure) = last {
            drop_expired_token(&self.edges.registries, &self.image, &failure);
        }
        let mut image = self.image.clone();
        let usable = lock(&self.credentials_ids).iter().find(|id| self.edges.roles.get(id).is_some()).cloned();
        image.execution_credentials = usable.or(image.execution_credentials);
        credentials(&self.edges.registries, &self.edges.roles, &image).await
    }

    /// The same request to the mirror of the registry; `None` if no mirror is to be used.
    fn at_mirror(&self) -> Option<Self> {
        let image = at_mirror(&self.edges.registries, &self.image)?;
        Some(Self {
            edges: self.edges.clone(),
            image,
            credentials_ids: self.credentials_ids.clone(),
            now: self.now.clone(),
        })
    }

    /// The image is on this host and the registry need not be asked. If Docker gives no answer, the registry is asked (spec
    /// `images.md` §2). With `once`, an image that was pulled and then removed by hand is pulled again; with the Go agent such a
    /// task stops.
    async fn is_cached(&self) -> bool {
        !self.image.asks_registry && matches!(self.edges.docker.image_present(&self.image.image).await, Ok(Some(_)))
    }

    fn job<'a>(&'a self, progress: &'a watch::Sender<PullProgress>, waits_for_limits: bool) -> PullJob<'a> {
        let digest = self.image.digest.as_deref();
        PullJob { image: &self.image.image, digest, waits_for_limits, progress, now: &*self.now }
    }

    /// The pull waits for a rate limit of the registry only if no image on this host can be used instead.
    async fn waits_for_limits(&self) -> bool {
        let cached = async || matches!(self.edges.docker.image_present(&self.image.image).await, Ok(Some(_)));
        !(self.image.accepts_cached && cached().await)
    }
}

async fn resolve_digest(request: &Request, progress: &watch::Sender<PullProgress>) -> Result<Option<String>, OpError> {
    let (docker, image) = (&request.edges.docker, &request.image);
    if request.is_cached().await {
        let found = docker.local_digest(&image.image).await;
        // The digest of an image that came from a mirror is stored under the mirror's name.
        return match (found, request.edges.registries.mirrors.name_at_mirror(&image.image)) {
            (Err(error), Some(mirror)) => docker.local_digest(&mirror).await.map_err(|_| error),
            (found, _) => found,
        };
    }
    let waits_for_limits = request.waits_for_limits().await;
    if let Some(mirror) = request.at_mirror() {
        let job = mirror.job(progress, false); // no waiting for the mirror's limit: the registry itself may have the image
        match docker.resolve_manifest(&job, || mirror.credentials(progress)).await {
            Ok(digest) => return Ok(digest),
            Err(error) => mirror_failed(&request.edges.registries, &mirror.image, image, &error),
        }
    }
    let job = request.job(progress, waits_for_limits);
    let found = docker.resolve_manifest(&job, || request.credentials(progress)).await;
    match &found {
        Err(OpError::Failed(failure)) if drop_expired_token(&request.edges.registries, image, &failure.message) => {
            docker.resolve_manifest(&job, || request.credentials(progress)).await
        }
        _ => found,
    }
}

async fn pull(request: &Request, progress: &watch::Sender<PullProgress>) -> CallResult {
    let (docker, image) = (&request.edges.docker, &request.image);
    if request.is_cached().await {
        tracing::debug!(image = image.image, "the image is on this host already and is not pulled");
        return Ok(Output::Nothing);
    }
    let waits_for_limits = request.waits_for_limits().await;
    if let Some(mirror) = request.at_mirror() {
        match fetch(&mirror, progress, false, Some(&image.image)).await {
            Ok(()) => return Ok(Output::Pulled),
            Err(error) => mirror_failed(&request.edges.registries, &mirror.image, image, &error),
        }
    }
    let Err(error) = fetch(request, progress, waits_for_limits, None).await else { return Ok(Output::Pulled) };
    let failure = match &error {
        OpError::Failed(failure) | OpError::Unknown(failure) => failure.clone(),
    };
    // A failure that ends the task does so even if this host has the image.
    if !image.checks_host_after_failure || failure.kind == FailureKind::EndsTask {
        return Err(error);
    }
    match docker.has_without_pull(&image.image, image.digest.as_deref()).await {
        Ok(true) => {
            tracing::warn!(image = image.image, error = %failure, "the image cannot be pulled; the one on this host is used");
            Ok(Output::Cached)
        }
        Ok(false) | Err(_) => Err(OpError::Failed(Failure { kind: FailureKind::ImageMissing, ..failure })),
    }
}

fn outcome(result: &CallResult) -> PullOutcome {
    match result {
        Ok(Output::Pulled) => PullOutcome::Pulled,
        Ok(Output::Cached) => PullOutcome::Cached,
        Ok(_) => PullOutcome::Present,
        Err(_) => PullOutcome::Failed,
    }
}

/// Pulls the image, and gives it the additional name `name`, if there is one.
async fn fetch(
    request: &Request,
    progress: &watch::Sender<PullProgress>,
    waits_for_limits: bool,
    name: Option<&str>,
) -> Result<(), OpError> {
    let docker = &request.edges.docker;
    docker.pull(&request.job(progress, waits_for_limits), || request.credentials(progress)).await?;
    match name {
        Some(name) => docker.add_name(&request.image.image, name).await,
        None => Ok(()),
    }
}

/// A panic in the call becomes an error for all its waiters.
async fn catch_panic(call: impl Future<Output = CallResult> + Send) -> CallResult {
    let outcome = AssertUnwindSafe(call).catch_unwind().await;
    outcome.unwrap_or_else(|_| Err(OpError::Unknown(Failure::permanent("InternalError", "the agent failed in a pull"))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
