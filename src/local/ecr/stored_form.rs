//! The form in which a directory keeps all that ECR knows but the manifests: versioned JSON. Manifests are beside it, by digest, since
//! they are large and never change. Invariants: it holds no secret; what is loaded passes the same checks as what clients send, and is
//! refused as a whole with the place of the first fault.

use super::digest::Digest;
use super::error::Place;
use super::identities::{Identity, MAX_IDENTITIES};
use super::image::Image;
use super::images::MAX_MANIFEST_BYTES;
use super::lifecycle::LifecyclePolicy;
use super::manifest::Contents;
use super::mutability::Mutability;
use super::names::{check_repository, check_tag, is_account, shortened};
use super::policy::Policy;
use super::repository::{Encryption, MAX_IMAGES, MAX_LAYERS, MAX_TAGS, Repository};
use super::service::{CacheRule, Ecr, MAX_ACCOUNTS, MAX_AHEAD, MAX_CACHE_RULES, MAX_REPOSITORIES};
use super::settings::{check_resource_tags, encryption_kind};
use super::tokens::{MAX_TOKENS, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The version of the form that this program writes.
const VERSION: u32 = 2;
/// The oldest version that it reads. It had manifests in the form, and no clock.
const FIRST_VERSION: u32 = 1;

/// The stored form cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored registry cannot be used: {0}")]
pub(crate) struct LoadError(String);

/// Reads the version before anything else, so that a later form is named as such.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored<'a> {
    version: u32,
    #[serde(default)]
    clock_ahead: i64,
    #[serde(borrow)]
    accounts: Vec<StoredAccount<'a>>,
    #[serde(borrow)]
    identities: Vec<StoredIdentity<'a>>,
    tokens: Vec<Token>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredAccount<'a> {
    account: Cow<'a, str>,
    #[serde(borrow)]
    repositories: Vec<StoredRepository<'a>>,
    #[serde(borrow)]
    cache_rules: Vec<StoredRule<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredRule<'a> {
    prefix: Cow<'a, str>,
    upstream: Cow<'a, str>,
    kind: Option<Cow<'a, str>>,
    credential: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    created_at: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredIdentity<'a> {
    account: Cow<'a, str>,
    /// The user's name, or the ARN of the role.
    name: Cow<'a, str>,
    policy: Cow<'a, str>,
    /// Only of a user.
    access_key_id: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredRepository<'a> {
    name: Cow<'a, str>,
    created_at: f64,
    mutability: Cow<'a, str>,
    mutability_filters: Cow<'a, [String]>,
    scan_on_push: bool,
    encryption: Cow<'a, str>,
    key: Option<Cow<'a, str>>,
    policy: Option<Cow<'a, str>>,
    lifecycle: Option<Cow<'a, str>>,
    evaluated_at: Option<f64>,
    tags: Cow<'a, BTreeMap<String, String>>,
    layers: Vec<StoredLayer>,
    #[serde(borrow)]
    images: Vec<StoredImage<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredLayer {
    digest: Digest,
    size: u64,
    added_at: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredImage<'a> {
    digest: Digest,
    media_type: Cow<'a, str>,
    /// Only in the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Cow<'a, str>>,
    size: u64,
    pushed_at: f64,
    pulled_at: Option<f64>,
    tags: Vec<Cow<'a, str>>,
}

impl Ecr {
    /// All manifests, each once.
    pub(crate) fn manifests(&self) -> BTreeMap<Digest, Bytes> {
        let repositories = self.registries.values().flat_map(|registry| registry.repositories.values());
        repositories
            .flat_map(|repository| repository.images())
            .map(|image| (image.digest, image.manifest.clone()))
            .collect()
    }

    /// The stored form of everything but manifests, previews, the addresses of registries, and the policies of options.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub(crate) fn save(&self) -> serde_json::Result<String> {
        let stored = Stored {
            version: VERSION,
            clock_ahead: self.clock_ahead(),
            accounts: self.registries.keys().map(|account| self.stored_account(account)).collect(),
            identities: self.identities.iter().filter(|identity| identity.is_kept).map(stored_identity).collect(),
            tokens: self.tokens.iter().cloned().collect(),
        };
        serde_json::to_string(&stored)
    }

    fn stored_account<'a>(&'a self, account: &'a str) -> StoredAccount<'a> {
        let registry = self.registries.get(account);
        let rule = |(prefix, rule): (&'a String, &'a CacheRule)| StoredRule {
            prefix: prefix.into(),
            upstream: (&rule.upstream).into(),
            kind: rule.kind.as_deref().map(Cow::from),
            credential: rule.credential.as_deref().map(Cow::from),
            role: rule.role.as_deref().map(Cow::from),
            created_at: rule.created_at,
        };
        StoredAccount {
            account: account.into(),
            repositories: registry
                .iter()
                .flat_map(|registry| registry.repositories.values())
                .map(|found| stored_repository(found))
                .collect(),
            cache_rules: registry.iter().flat_map(|registry| &registry.cache_rules).map(rule).collect(),
        }
    }

    /// The ECR that a stored form holds, for a session with this account, whose registry is at `host`. Manifests come from `manifest`.
    ///
    /// # Errors
    /// When the form or a manifest cannot be read, or something in it is wrong.
    pub(crate) fn load(
        text: &str,
        manifest: impl Fn(&Digest) -> io::Result<Bytes>,
        region: &str,
        account: &str,
        host: &str,
    ) -> Result<Self, LoadError> {
        let head: Head = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        if !(FIRST_VERSION..=VERSION).contains(&head.version) {
            let version = head.version;
            return Err(LoadError(format!(
                "it has version {version}; this program reads version {FIRST_VERSION} to {VERSION}"
            )));
        }
        let stored: Stored<'_> = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        let mut ecr = Self::new(region, account, host);
        bound(stored.accounts.len(), MAX_ACCOUNTS, "accounts")?;
        bound(stored.identities.len(), MAX_IDENTITIES, "identities")?;
        bound(stored.tokens.len(), MAX_TOKENS, "tokens")?;
        if stored.clock_ahead.unsigned_abs() > MAX_AHEAD {
            return Err(LoadError(format!("its clock is ahead by more than {MAX_AHEAD} seconds")));
        }
        ecr.set_clock_ahead(stored.clock_ahead);
        for stored in stored.accounts {
            ecr.load_account(stored, &manifest)?;
        }
        for stored in &stored.identities {
            ecr.load_identity(stored)?;
        }
        stored.tokens.into_iter().for_each(|token| ecr.tokens.restore(token));
        Ok(ecr)
    }

    fn load_account(
        &mut self,
        stored: StoredAccount<'_>,
        manifest: &impl Fn(&Digest) -> io::Result<Bytes>,
    ) -> Result<(), LoadError> {
        let account = stored.account.as_ref();
        if !is_account(account) {
            return Err(LoadError(format!("`{}` is no account id", shortened(account, 100))));
        }
        bound(stored.repositories.len(), MAX_REPOSITORIES, "repositories")?;
        bound(stored.cache_rules.len(), MAX_CACHE_RULES, "pull through cache rules")?;
        let registry = self.registries.entry(account.to_owned()).or_default();
        for rule in stored.cache_rules {
            let prefix = rule.prefix.into_owned();
            let rule = CacheRule {
                upstream: rule.upstream.into_owned(),
                kind: rule.kind.map(Cow::into_owned),
                credential: rule.credential.map(Cow::into_owned),
                role: rule.role.map(Cow::into_owned),
                created_at: rule.created_at,
            };
            registry.cache_rules.insert(prefix, rule);
        }
        for stored in stored.repositories {
            let place = Place { account: account.to_owned(), repository: stored.name.to_string() };
            let shown = format!("repository `{}` of {account}", shortened(&place.repository, 300));
            let loaded = repository(place, &stored, manifest);
            let repository = loaded.map_err(|problem| LoadError(format!("{shown}: {problem}")))?;
            self.manifest_bytes += repository.images().map(|image| image.manifest.len()).sum::<usize>();
            bound(self.manifest_bytes, MAX_MANIFEST_BYTES, "bytes of manifests")?;
            let layers: Vec<Digest> = repository.layers().map(|(digest, _)| *digest).collect();
            layers.into_iter().for_each(|digest| self.gain_layer(digest));
            self.create_repository(repository).map_err(|error| LoadError(format!("{shown}: {error}")))?;
        }
        Ok(())
    }

    fn load_identity(&mut self, stored: &StoredIdentity<'_>) -> Result<(), LoadError> {
        let wrong = |problem: String| LoadError(format!("identity `{}`: {problem}", shortened(&stored.name, 300)));
        if !is_account(&stored.account) {
            return Err(wrong("it has no account id".to_owned()));
        }
        let policy = Policy::for_identity(&stored.policy).map_err(wrong)?;
        let outcome = match &stored.access_key_id {
            Some(key) => self.identities.put_user(&stored.account, &stored.name, policy, key).map(drop),
            None => self.identities.put_role(&stored.account, &stored.name, policy, true).map(drop),
        };
        outcome.map_err(|error| wrong(error.to_string()))
    }
}

fn stored_identity(identity: &Identity) -> StoredIdentity<'_> {
    StoredIdentity {
        account: (&identity.account).into(),
        name: identity.user.as_deref().unwrap_or(&identity.arn).into(),
        policy: identity.policy.text().into(),
        access_key_id: identity.access_key_id.as_deref().map(Cow::from),
    }
}

fn stored_repository(repository: &Repository) -> StoredRepository<'_> {
    StoredRepository {
        name: (&repository.place.repository).into(),
        created_at: repository.created_at,
        mutability: repository.mutability.name().into(),
        mutability_filters: repository.mutability.filters().into(),
        scan_on_push: repository.scan_on_push,
        encryption: repository.encryption.kind.into(),
        key: repository.encryption.key.as_deref().map(Cow::from),
        policy: repository.policy.as_ref().map(|policy| policy.text().into()),
        lifecycle: repository.lifecycle.as_ref().map(|policy| policy.text.as_ref().into()),
        evaluated_at: repository.lifecycle.as_ref().and_then(|policy| policy.evaluated_at),
        tags: Cow::Borrowed(&repository.resource_tags),
        layers: repository
            .layers()
            .map(|(digest, layer)| StoredLayer { digest: *digest, size: layer.size, added_at: layer.added_at })
            .collect(),
        images: repository.images().map(stored_image).collect(),
    }
}

fn stored_image(image: &Image) -> StoredImage<'_> {
    StoredImage {
        digest: image.digest,
        media_type: image.contents.media_type.into(),
        manifest: None,
        size: image.size,
        pushed_at: image.pushed_at,
        pulled_at: image.pulled_at,
        tags: image.tags.iter().map(Cow::from).collect(),
    }
}

/// Makes a repository from its stored form. An error says what is wrong.
fn repository(
    place: Place,
    stored: &StoredRepository<'_>,
    manifest: &impl Fn(&Digest) -> io::Result<Bytes>,
) -> Result<Repository, String> {
    check_repository(&place.repository).map_err(|error| error.to_string())?;
    bound(stored.layers.len(), MAX_LAYERS, "layers").map_err(|error| error.0)?;
    bound(stored.images.len(), MAX_IMAGES, "images").map_err(|error| error.0)?;
    bound(stored.images.iter().map(|image| image.tags.len()).sum(), MAX_TAGS, "image tags").map_err(|error| error.0)?;
    let text = |error: super::error::EcrError| error.to_string();
    let mut made = Repository::new(place, stored.created_at);
    made.mutability = Mutability::new(&stored.mutability, stored.mutability_filters.to_vec()).map_err(text)?;
    made.scan_on_push = stored.scan_on_push;
    made.encryption = Encryption {
        kind: encryption_kind(&stored.encryption).map_err(text)?,
        key: stored.key.as_deref().map(str::to_owned),
    };
    made.policy = stored.policy.as_deref().map(Policy::for_repository).transpose()?;
    made.lifecycle = stored.lifecycle.as_deref().map(LifecyclePolicy::read).transpose().map_err(text)?;
    if let Some(policy) = &mut made.lifecycle {
        policy.evaluated_at = stored.evaluated_at;
    }
    check_resource_tags(&stored.tags).map_err(text)?;
    made.resource_tags = stored.tags.as_ref().clone();
    for layer in &stored.layers {
        made.add_layer(layer.digest, layer.size, layer.added_at).map_err(text)?;
    }
    for stored in &stored.images {
        let manifest = match &stored.manifest {
            Some(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            None => manifest(&stored.digest).map_err(|error| format!("its manifest cannot be read: {error}")),
        };
        let image = manifest.and_then(|manifest| image(&made, stored, manifest));
        let image = image.map_err(|problem| format!("image {}: {problem}", stored.digest))?;
        made.insert(image);
    }
    let mut needed = made.images().flat_map(|image| &image.contents.manifests).copied();
    let missing = needed.find(|digest| made.by_digest(digest).is_none());
    drop(needed);
    match missing {
        Some(digest) => Err(format!("the image {digest} of an index is missing")),
        None => Ok(made),
    }
}

/// Makes an image from its stored form. An error says what is wrong.
fn image(repository: &Repository, stored: &StoredImage<'_>, manifest: Bytes) -> Result<Image, String> {
    if Digest::compute(&manifest) != stored.digest {
        return Err("the manifest does not have this digest".to_owned());
    }
    let contents = Contents::read(&manifest, Some(&stored.media_type))?;
    if let Some(layer) = contents.needed_layers().iter().find(|layer| repository.layer(layer).is_none()) {
        return Err(format!("its layer {layer} is missing"));
    }
    if repository.by_digest(&stored.digest).is_some() {
        return Err("it is there twice".to_owned());
    }
    for tag in &stored.tags {
        check_tag(tag).map_err(|error| error.to_string())?;
        if repository.by_tag(tag).is_some() {
            return Err(format!("its tag `{tag}` belongs to another image, too"));
        }
    }
    Ok(Image {
        digest: stored.digest,
        manifest,
        contents: Arc::new(contents),
        size: stored.size,
        pushed_at: stored.pushed_at,
        pulled_at: stored.pulled_at,
        tags: stored.tags.iter().map(|tag| tag.to_string()).collect(),
    })
}

fn bound(number: usize, max: usize, what: &str) -> Result<(), LoadError> {
    if number > max { Err(LoadError(format!("it has {number} {what}, more than {max}"))) } else { Ok(()) }
}

/// The position of a fault in the text. The text itself is not shown.
fn unreadable(error: &serde_json::Error) -> LoadError {
    let kind = if error.is_data() { "a member has a wrong form" } else { "it is not JSON" };
    LoadError(format!("{kind}: line {}, column {}", error.line(), error.column()))
}
