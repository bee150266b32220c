//! The operator's registry credentials: `ECS_ENGINE_AUTH_TYPE` and `ECS_ENGINE_AUTH_DATA` (spec `config.md` §3).
//!
//! Owns the choice for an image: an entry with a password, or a helper program that knows the password (`helper`).
//! `document` parses the operator's JSON. This module does not fetch tokens (ECR is in `aws`). No error in the document is
//! fatal. Invariant: problems and `Debug` name registries, never an account name or a password.
//!
//! This agent accepts more than the Go agent does, because operators often get these details wrong: the `{"auths": …}` wrapper
//! of `~/.docker/config.json` with its `credHelpers` and `credsStore`, `auth` under either type and wrapped into lines, member
//! names in any case, and every usual spelling of Docker Hub.

mod document;
pub(super) mod helper;
mod problem;
mod registry;

pub use problem::AuthProblem;

use super::images::reference::host_and_path;
use document::Document;
use ecs_core::model::{Failure, RegistryCredentials, Secret};
use registry::shown;
use std::fmt;

/// The spellings of Docker Hub's registry, in the order in which they are looked up; the Go agent's own form comes first.
const HUB_KEYS: [&str; 7] = [
    "index.docker.io/v1/",
    "index.docker.io/v1",
    "index.docker.io/",
    "index.docker.io",
    "docker.io/",
    "docker.io",
    "registry-1.docker.io",
];
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The name under which Docker's client asks a helper for Docker Hub.
const HUB_FOR_HELPERS: &str = "https://index.docker.io/v1/";
/// The name of the failure in the reason that ECS shows.
const HELPER_ERROR: &str = "CannotPullContainerAuthError";

/// The operator's registry credentials, by registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthMap {
    document: Document,
}

impl fmt::Debug for AuthMap {
    /// Prints the registries only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.registries().map(shown)).finish()
    }
}

/// Where the credentials for an image come from.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    /// An entry of the document: its key and its credentials.
    Entry(&'a str, &'a RegistryCredentials),
    /// The helper program named for this registry (`credHelpers`).
    Helper(&'a str),
    /// The helper program named for all registries (`credsStore`).
    Store(&'a str),
    /// Nowhere: the image is pulled anonymously.
    Anonymous,
}

impl AuthMap {
    /// Parses `data` in the form that `auth_type` names (`docker` or `dockercfg`). The second value lists the problems found,
    /// one for each part that was ignored.
    pub fn parse(auth_type: &str, data: &Secret) -> (Self, Vec<AuthProblem>) {
        let mut problems = Vec::new();
        let map = match auth_type {
            "docker" | "dockercfg" => Self { document: document::read(auth_type, data, &mut problems) },
            "" if data.is_empty() => Self::default(),
            "" => {
                let shape = "registry credentials are given without ECS_ENGINE_AUTH_TYPE";
                problems.push(AuthProblem::ignored(shape, "docker or dockercfg", "ignored"));
                Self::default()
            }
            _ => {
                let shape = "ECS_ENGINE_AUTH_TYPE is neither docker nor dockercfg";
                problems.push(AuthProblem::ignored(shape, "docker or dockercfg", "credentials ignored"));
                Self::default()
            }
        };
        (map, problems)
    }

    /// The registries whose password ends in a newline, in a form that may be shown.
    pub fn with_newline(&self) -> impl Iterator<Item = String> {
        self.document.entries.iter().filter(|(_, credentials)| credentials.ends_in_newline()).map(|(key, _)| shown(key))
    }

    /// The credentials for an image, and a description of their source for the log.
    ///
    /// # Errors
    /// The helper program named for this registry failed. A failure of the program for all registries is no error: it must not
    /// keep a task from its public image.
    pub async fn credentials(&self, image: &str) -> Result<(RegistryCredentials, String), Failure> {
        let (host, _) = host_and_path(without_tag(image));
        let registry = if is_hub(host) { HUB_FOR_HELPERS } else { host };
        let anonymous = |why: String| Ok((RegistryCredentials::default(), format!("anonymous: {why}")));
        let (program, is_named) = match self.source(image) {
            Source::Entry(key, credentials) => {
                return Ok((credentials.clone(), format!("ECS_ENGINE_AUTH_DATA entry {}", shown(key))));
            }
            Source::Anonymous => return anonymous(format!("no entry for {host}")),
            Source::Helper(program) => (program, true),
            Source::Store(program) => (program, false),
        };
        let member = if is_named { "credHelpers" } else { "credsStore" };
        match helper::get(program, registry, helper::LIMIT).await {
            Ok(Some(credentials)) => Ok((credentials, format!("{program} for {registry} ({member})"))),
            Ok(None) => anonymous(format!("{program} has nothing for {registry} ({member})")),
            Err(error) if is_named => Err(Failure::permanent(HELPER_ERROR, format!("{program}: {error}"))),
            Err(error) => anonymous(format!("{program}: {error} ({member})")),
        }
    }

    /// The operator has configured this image's registry, with an entry or with a helper program of its own.
    pub fn is_configured_for(&self, image: &str) -> bool {
        matches!(self.source(image), Source::Entry(..) | Source::Helper(_))
    }

    /// The source of an image's credentials as text, for the fuzzer.
    #[cfg(any(test, fuzzing))]
    pub(super) fn source_shown(&self, image: &str) -> String {
        match self.source(image) {
            Source::Entry(key, _) => shown(key),
            Source::Helper(program) | Source::Store(program) => program.to_owned(),
            Source::Anonymous => String::new(),
        }
    }

    /// As in Docker's client, a helper for the registry takes precedence over an entry. The helper for all registries comes
    /// last.
    fn source(&self, image: &str) -> Source<'_> {
        let (host, _) = host_and_path(without_tag(image));
        let helper = if is_hub(host) {
            HUB_KEYS.into_iter().find_map(|key| self.document.helpers.get(key))
        } else {
            self.document.helpers.get(host)
        };
        if let Some(program) = helper {
            return Source::Helper(program);
        }
        match (self.entry(image, host), &self.document.store) {
            (Some((key, credentials)), _) => Source::Entry(key, credentials),
            (None, Some(program)) => Source::Store(program),
            (None, None) => Source::Anonymous,
        }
    }

    /// Finds the entry with the longest key that is a prefix of the image reference. The shortest possible key is the bare host.
    ///
    /// Compat: the Go agent compares characters, not path components. It also falls back to a key of the same host that the
    /// reference does not begin with. This agent keeps the fallback where the key is the only one for its host, since the same
    /// registry gets the password. It compares whole components, and a key that ends inside a component (`r.io/team` for
    /// `r.io/team-evil/app`) is not used as a fallback either.
    fn entry(&self, image: &str, host: &str) -> Option<(&str, &RegistryCredentials)> {
        let key = if is_hub(host) {
            HUB_KEYS.into_iter().find(|key| self.document.entries.contains_key(*key))
        } else {
            let is_of_host = |key: &&str| key.split('/').next() == Some(host);
            let same_host: Vec<&str> = self.document.entries.keys().map(String::as_str).filter(is_of_host).collect();
            let best = same_host.iter().copied().filter(|key| is_prefix(key, image)).max_by_key(|key| key.len());
            best.or(match same_host.as_slice() {
                [only] if !image.starts_with(only) => Some(only),
                _ => None,
            })
        };
        self.document.entries.get_key_value(key?).map(|(key, credentials)| (key.as_str(), credentials))
    }

    /// The registries that have an entry or a helper program.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        self.document.entries.keys().chain(self.document.helpers.keys()).map(String::as_str)
    }
}

/// The host is one of Docker Hub's.
pub(super) fn is_hub(host: &str) -> bool {
    HUB_HOSTS.contains(&host)
}

/// The key is the image reference itself or consists of its first components. `r.io/team` matches `r.io/team/app` and
/// `r.io/team:1`, but not `r.io/team-evil/app`.
fn is_prefix(key: &str, image: &str) -> bool {
    let rest = image.strip_prefix(key.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

fn without_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests;
