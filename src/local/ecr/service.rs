//! The registries of all accounts: their repositories, pull through cache rules, identities and tokens. This module owns the
//! account of layers across repositories. Invariants: a layer is an orphan when the last repository with it has lost it; every
//! collection is bounded.

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::identities::Identities;
use super::names::{check_repository, is_account};
use super::repository::Repository;
use super::tokens::Tokens;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// Maximum number of accounts.
pub(crate) const MAX_ACCOUNTS: usize = 20;
/// Maximum number of repositories of an account.
pub(crate) const MAX_REPOSITORIES: usize = 1000;
/// Maximum difference of its clock and the host's, in seconds: twice a hundred years, since AWS's clock may be ahead of the host's.
pub(crate) const MAX_AHEAD: u64 = 2 * 100 * 366 * 24 * 3600;
/// Maximum number of pull through cache rules of an account, as in ECR.
pub(crate) const MAX_CACHE_RULES: usize = 50;

/// A rule that takes images from another registry. If that is none of this session, the rule is only kept and shown.
#[derive(Clone, Debug)]
pub(crate) struct CacheRule {
    /// The address of the other registry.
    pub(crate) upstream: String,
    /// The kind of the other registry, as ECR names it; `None`: the request had none.
    pub(crate) kind: Option<String>,
    /// The ARN of a secret with the credentials; `None`: the registry needs none.
    pub(crate) credential: Option<String>,
    /// The ARN of the role that reads in the registry of another account; `None`: the other registry is none of ECR.
    pub(crate) role: Option<String>,
    /// When it was created, in seconds since the epoch.
    pub(crate) created_at: f64,
}

/// The registry of an account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    /// The `host:port` of the registry, as in image names.
    pub(crate) host: String,
    /// By name. They are shared with copies of the state, until they change.
    pub(crate) repositories: BTreeMap<String, Arc<Repository>>,
    /// By prefix of a repository's name.
    pub(crate) cache_rules: BTreeMap<String, CacheRule>,
}

impl Registry {
    /// All repositories whose name follows this one, in order; `None`: from the first on. Those before are not looked at.
    pub(crate) fn repositories_after(&self, name: Option<&str>) -> impl Iterator<Item = (&str, &Repository)> {
        let range = self.repositories.range::<str, _>((name.map_or(Unbounded, Excluded), Unbounded));
        range.map(|(name, repository)| (name.as_str(), repository.as_ref()))
    }
}

/// All that ECR knows. A copy is cheap: it shares repositories until they change. It asks no clock: `now` is in seconds since the epoch.
#[derive(Clone, Debug)]
pub(crate) struct Ecr {
    pub(super) region: String,
    /// The account of this session.
    pub(super) own: String,
    /// By account id.
    pub(super) registries: BTreeMap<String, Registry>,
    pub(super) identities: Identities,
    pub(super) tokens: Tokens,
    /// The number of repositories with each layer.
    pub(super) uses: BTreeMap<Digest, usize>,
    /// Layers that the last repository has lost since they were last taken.
    pub(super) orphans: BTreeSet<Digest>,
    /// The size of all manifests in bytes.
    pub(super) manifest_bytes: usize,
    /// When rules were last carried out, in seconds since the epoch.
    pub(super) evaluated_at: f64,
    /// See [`Self::clock_ahead`].
    clock_ahead: i64,
    /// See [`Self::revision`].
    revision: u64,
}

impl Ecr {
    /// The ECR of a session with one account, whose registry is at `host`.
    pub(crate) fn new(region: &str, account: &str, host: &str) -> Self {
        let registry = Registry { host: host.to_owned(), ..Registry::default() };
        Self {
            region: region.to_owned(),
            own: account.to_owned(),
            registries: BTreeMap::from([(account.to_owned(), registry)]),
            identities: Identities::default(),
            tokens: Tokens::default(),
            uses: BTreeMap::new(),
            orphans: BTreeSet::new(),
            manifest_bytes: 0,
            evaluated_at: 0.0,
            clock_ahead: 0,
            revision: 0,
        }
    }

    /// Counts the changes that a restart must not lose. When images were pulled is not among them.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes revisions of this state, which replaces another one, higher than all that the other one had.
    pub(crate) fn continue_from(&mut self, revision: u64) {
        self.revision = self.revision.max(revision) + 1;
    }

    /// Notes a change, or what may become one.
    pub(super) fn touch(&mut self) {
        self.revision += 1;
    }

    /// How many seconds its clock is ahead of the host's. It outlives a restart: otherwise images and tokens would come from the future.
    pub(crate) fn clock_ahead(&self) -> i64 {
        self.clock_ahead
    }

    /// Sets its clock ahead of the host's by this many seconds.
    pub(crate) fn set_clock_ahead(&mut self, seconds: i64) {
        if self.clock_ahead != seconds {
            self.clock_ahead = seconds;
            self.touch();
        }
    }

    /// Adds an account, or says where the registry of a known one is.
    ///
    /// # Errors
    /// When the id is no account id, or there are too many accounts.
    pub(crate) fn add_account(&mut self, account: &str, host: &str) -> Result<(), EcrError> {
        if !is_account(account) {
            return Err(EcrError::invalid("account", "an account id has 12 digits"));
        }
        if self.registries.len() >= MAX_ACCOUNTS && !self.registries.contains_key(account) {
            return Err(EcrError::Limit(format!("There are {MAX_ACCOUNTS} accounts already.")));
        }
        self.touch();
        self.registries.entry(account.to_owned()).or_default().host = host.to_owned();
        Ok(())
    }

    /// The account of this session.
    pub(crate) fn own_account(&self) -> &str {
        &self.own
    }

    /// The ids of all accounts, in order.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = &str> {
        self.registries.keys().map(String::as_str)
    }

    /// The registry of an account.
    pub(crate) fn registry(&self, account: &str) -> Option<&Registry> {
        self.registries.get(account)
    }

    /// The registry of an account, for a change that is certain to happen.
    pub(crate) fn registry_mut(&mut self, account: &str) -> Option<&mut Registry> {
        self.touch();
        self.registries.get_mut(account)
    }

    /// The ARN of a repository; `*` stands for all.
    pub(crate) fn arn(&self, account: &str, repository: &str) -> String {
        format!("arn:aws:ecr:{}:{account}:repository/{repository}", self.region)
    }

    /// The name that `docker` has for a repository.
    pub(crate) fn uri(&self, account: &str, repository: &str) -> String {
        let host = self.registries.get(account).map(|registry| registry.host.as_str()).unwrap_or_default();
        format!("{host}/{repository}")
    }

    pub(super) fn find(&self, account: &str, repository: &str) -> Option<&Repository> {
        self.registries.get(account)?.repositories.get(repository).map(Arc::as_ref)
    }

    pub(super) fn find_mut(&mut self, account: &str, repository: &str) -> Option<&mut Repository> {
        self.registries.get_mut(account)?.repositories.get_mut(repository).map(Arc::make_mut)
    }

    /// The error for a repository that does not exist. A pull may be meant for a pull through cache rule.
    pub(super) fn missing(&self, account: &str, repository: &str, is_pull: bool) -> EcrError {
        match self.cache_rule(account, repository).filter(|_| is_pull) {
            Some((prefix, rule)) => EcrError::NoUpstream(format!(
                "The repository '{repository}' belongs to the pull through cache rule with the prefix '{prefix}', but ecs-local takes no image \
                 from {}: it makes no connections. Push the image to this repository instead",
                rule.upstream
            )),
            None => EcrError::NoRepository(Place { account: account.to_owned(), repository: repository.to_owned() }),
        }
    }

    /// The repository.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn repository(&self, account: &str, repository: &str) -> Result<&Repository, EcrError> {
        self.find(account, repository).ok_or_else(|| self.missing(account, repository, false))
    }

    /// The repository as it is now, for work without a lock.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn shared_repository(&self, account: &str, repository: &str) -> Result<Arc<Repository>, EcrError> {
        let found = self.registries.get(account).and_then(|registry| registry.repositories.get(repository));
        found.map(Arc::clone).ok_or_else(|| self.missing(account, repository, false))
    }

    /// The repository, for a change of its settings that is certain to happen.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn repository_mut(&mut self, account: &str, repository: &str) -> Result<&mut Repository, EcrError> {
        if self.find(account, repository).is_none() {
            return Err(self.missing(account, repository, false));
        }
        self.touch();
        let found = self.find_mut(account, repository);
        let place = Place { account: account.to_owned(), repository: repository.to_owned() };
        found.ok_or(EcrError::NoRepository(place))
    }

    /// Creates a repository.
    ///
    /// # Errors
    /// When its name is wrong or taken, or there are too many.
    pub(crate) fn create_repository(&mut self, repository: Repository) -> Result<&Repository, EcrError> {
        let Place { account, repository: name } = repository.place.clone();
        check_repository(&name)?;
        let Some(registry) = self.registries.get_mut(&account) else {
            return Err(EcrError::invalid("registryId", format!("there is no account {account} here")));
        };
        if registry.repositories.contains_key(&name) {
            let message =
                format!("The repository with name '{name}' already exists in the registry with id '{account}'");
            return Err(EcrError::other("RepositoryAlreadyExistsException", message));
        }
        if registry.repositories.len() >= MAX_REPOSITORIES {
            return Err(EcrError::Limit(format!(
                "The registry with id '{account}' already has the maximum allowed number of repositories, which is '{MAX_REPOSITORIES}'"
            )));
        }
        self.revision += 1;
        Ok(registry.repositories.entry(name).or_insert_with(|| Arc::new(repository)))
    }

    /// Deletes a repository and returns it. `force`: with its images.
    ///
    /// # Errors
    /// When there is none, or it has images.
    pub(crate) fn delete_repository(
        &mut self,
        account: &str,
        repository: &str,
        force: bool,
    ) -> Result<Repository, EcrError> {
        if self.repository(account, repository)?.images().len() > 0 && !force {
            let message = format!(
                "The repository with name '{repository}' in registry with id '{account}' cannot be deleted because it still contains images"
            );
            return Err(EcrError::other("RepositoryNotEmptyException", message));
        }
        let missing = self.missing(account, repository, false);
        let registry = self.registries.get_mut(account);
        let gone = registry.and_then(|registry| registry.repositories.remove(repository)).ok_or(missing)?;
        let gone = Arc::unwrap_or_clone(gone);
        self.touch();
        self.manifest_bytes -= gone.images().map(|image| image.manifest.len()).sum::<usize>();
        let layers: Vec<Digest> = gone.layers().map(|(digest, _)| *digest).collect();
        self.lose_layers(&layers);
        Ok(gone)
    }

    /// One more repository has this layer.
    pub(super) fn gain_layer(&mut self, digest: Digest) {
        *self.uses.entry(digest).or_default() += 1;
        self.orphans.remove(&digest);
    }

    /// One repository less has each of these layers.
    pub(super) fn lose_layers(&mut self, layers: &[Digest]) {
        for digest in layers {
            let Some(uses) = self.uses.get_mut(digest) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(digest);
                self.orphans.insert(*digest);
            }
        }
    }

    /// Some repository has this layer.
    pub(crate) fn is_used(&self, digest: &Digest) -> bool {
        self.uses.contains_key(digest)
    }

    /// All layers of all repositories, each once, with its size in bytes.
    pub(crate) fn all_layers(&self) -> BTreeMap<Digest, u64> {
        let repositories = self.registries.values().flat_map(|registry| registry.repositories.values());
        repositories.flat_map(|repository| repository.layers().map(|(digest, layer)| (*digest, layer.size))).collect()
    }

    /// Takes the layers that no repository has any more. Their bytes can be removed, unless [`Self::is_used`] by then.
    pub(crate) fn take_orphans(&mut self) -> Vec<Digest> {
        std::mem::take(&mut self.orphans).into_iter().collect()
    }
}
