//! Calls about the registry of an account: its description, and pull through cache rules. Invariant: every rule is kept and shown;
//! one for the registry of another account of this session has a role that reads there.

use super::call::{Call, Paging, required, shown, text, texts, with};
use crate::api::request::Answer;
use crate::ecr::Action;
use crate::ecr::error::EcrError;
use crate::ecr::names::is_component;
use crate::ecr::principal::role_parts;
use crate::ecr::service::{CacheRule, MAX_CACHE_RULES, Registry};
use serde_json::{Value, json};

/// The length limits of a prefix, in bytes, as in ECR.
const MIN_PREFIX: usize = 2;
const MAX_PREFIX: usize = 30;
/// The longest address of an upstream registry, in bytes.
const MAX_UPSTREAM: usize = 255;
/// Maximum number of rules that a call names, and of a page.
const MAX_NAMES: usize = 100;
const MAX_PAGE: usize = 1000;
/// The registries from which ECR takes images: the end of the address, the name, whether credentials are needed.
const UPSTREAMS: [(&str, &str, bool); 9] = [
    ("public.ecr.aws", "ecr-public", false),
    ("quay.io", "quay", false),
    ("registry.k8s.io", "k8s", false),
    ("registry-1.docker.io", "docker-hub", true),
    ("ghcr.io", "github-container-registry", true),
    (".azurecr.io", "azure-container-registry", true),
    ("registry.gitlab.com", "gitlab-container-registry", true),
    ("cgr.dev", "chainguard", true),
    (".amazonaws.com", "ecr", false),
];

/// DescribeRegistry.
pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    call.permit_registry(Action::DESCRIBE_REGISTRY)?;
    Ok(json!({"registryId": call.caller.account(), "replicationConfiguration": {"rules": []}}))
}

/// CreatePullThroughCacheRule.
pub(super) fn create_rule(call: &mut Call<'_>) -> Answer {
    call.permit_registry(Action::CREATE_PULL_THROUGH_CACHE_RULE)?;
    let prefix = prefix(call.body)?;
    let upstream = required(call.body, "upstreamRegistryUrl")?;
    let (credential, role) = (credential(call.body)?, role(call, upstream)?);
    let found = UPSTREAMS.iter().find(|(end, ..)| match end.strip_prefix('.') {
        Some(_) => {
            (end.len() + 1..=MAX_UPSTREAM).contains(&upstream.len())
                && upstream.ends_with(end)
                && upstream.split('.').all(is_component)
        }
        None => upstream == *end,
    });
    let Some((_, kind, needs_credentials)) = found else {
        let known = UPSTREAMS.map(|(end, ..)| end.trim_start_matches('.')).join(", ");
        let message = format!("The upstream registry '{}' is not supported. ECR supports: {known}", shown(upstream));
        return Err(EcrError::other("UnsupportedUpstreamRegistryException", message).into());
    };
    if *needs_credentials && credential.is_none() {
        return Err(EcrError::invalid("credentialArn", format!("{upstream} needs a secret with credentials")).into());
    }
    let (upstream, kind) = (upstream.to_owned(), Some((*kind).to_owned()));
    let rule = CacheRule { upstream, kind, credential, role, created_at: call.now };
    let account = own_account(call)?;
    let shown = show(&account, &prefix, &rule);
    let registry = registry(call, &account)?;
    if registry.cache_rules.contains_key(&prefix) {
        let message = format!("A pull through cache rule with the prefix '{prefix}' already exists");
        return Err(EcrError::other("PullThroughCacheRuleAlreadyExistsException", message).into());
    }
    if registry.cache_rules.len() >= MAX_CACHE_RULES {
        return Err(EcrError::Limit(format!("There are {MAX_CACHE_RULES} pull through cache rules already")).into());
    }
    registry_mut(call, &account)?.cache_rules.insert(prefix, rule);
    Ok(shown)
}

/// DescribePullThroughCacheRules.
pub(super) fn describe_rules(call: &mut Call<'_>) -> Answer {
    call.permit_registry(Action::DESCRIBE_PULL_THROUGH_CACHE_RULES)?;
    let names = texts(call.body, "ecrRepositoryPrefixes", MAX_NAMES)?;
    let account = own_account(call)?;
    let paging = Paging::read(call.body, MAX_NAMES, MAX_PAGE)?;
    if !names.is_empty() {
        Paging::refuse(call.body, "ecrRepositoryPrefixes")?;
    }
    let rules = &registry(call, &account)?.cache_rules;
    if let Some(missing) = names.iter().find(|name| !rules.contains_key(**name)) {
        return Err(no_rule(missing).into());
    }
    let wanted = rules.iter().filter(|(prefix, _)| names.is_empty() || names.contains(&prefix.as_str()));
    let (page, token) = paging.page(wanted.map(|(prefix, rule)| (prefix.clone(), show(&account, prefix, rule))));
    Ok(with(json!({"pullThroughCacheRules": page}), json!({"nextToken": token})))
}

/// DeletePullThroughCacheRule.
pub(super) fn delete_rule(call: &mut Call<'_>) -> Answer {
    call.permit_registry(Action::DELETE_PULL_THROUGH_CACHE_RULE)?;
    let prefix = required(call.body, "ecrRepositoryPrefix")?;
    let account = own_account(call)?;
    if !registry(call, &account)?.cache_rules.contains_key(prefix) {
        return Err(no_rule(prefix).into());
    }
    let gone = registry_mut(call, &account)?.cache_rules.remove(prefix).ok_or_else(|| no_rule(prefix))?;
    // As in ECR, this answer does not name the kind of the other registry.
    Ok(show(&account, prefix, &CacheRule { kind: None, ..gone }))
}

/// The caller's account: rules of others cannot be reached.
fn own_account(call: &Call<'_>) -> Result<String, EcrError> {
    let account = call.account()?;
    match account == call.caller.account() {
        true => Ok(account),
        false => Err(EcrError::invalid("registryId", "pull through cache rules belong to the caller's own account")),
    }
}

fn registry<'c>(call: &'c Call<'_>, account: &str) -> Result<&'c Registry, EcrError> {
    call.state.ecr.registry(account).ok_or_else(|| no_account(account))
}

fn registry_mut<'c>(call: &'c mut Call<'_>, account: &str) -> Result<&'c mut Registry, EcrError> {
    call.state.ecr.registry_mut(account).ok_or_else(|| no_account(account))
}

fn no_account(account: &str) -> EcrError {
    EcrError::invalid("registryId", format!("there is no account {account} here"))
}

fn prefix(body: &Value) -> Result<String, EcrError> {
    let text = required(body, "ecrRepositoryPrefix")?;
    let is_prefix = text == "ROOT" || text.strip_suffix('/').unwrap_or(text).split('/').all(is_component);
    match is_prefix && (MIN_PREFIX..=MAX_PREFIX).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => {
            let form = format!("{MIN_PREFIX} to {MAX_PREFIX} characters in the form of a repository's name, or ROOT");
            Err(EcrError::invalid("ecrRepositoryPrefix", form))
        }
    }
}

fn credential(body: &Value) -> Result<Option<String>, EcrError> {
    let Some(arn) = text(body, "credentialArn")? else { return Ok(None) };
    let parts: Vec<&str> = arn.splitn(7, ':').collect();
    let is_secret = matches!(parts[..], ["arn", _, "secretsmanager", _, _, "secret", name] if name.starts_with("ecr-pullthroughcache/"));
    match is_secret && arn.len() <= 612 && arn.bytes().all(|c| c.is_ascii_graphic()) {
        true => Ok(Some(arn.to_owned())),
        false => Err(EcrError::invalid(
            "credentialArn",
            "the ARN of a secret whose name begins with ecr-pullthroughcache/, of up to 612 characters",
        )),
    }
}

/// The role of a rule. Only the registry of another account is read with one.
fn role(call: &Call<'_>, upstream: &str) -> Result<Option<String>, EcrError> {
    let account = call.caller.account();
    let Some(role) = text(call.body, "customRoleArn")? else {
        let other = call.state.ecr.account_of_host(upstream).filter(|other| *other != account);
        let needed =
            format!("{upstream} is the registry of another account: name a role of this account that reads there");
        return other.map_or(Ok(None), |_| Err(EcrError::invalid("customRoleArn", needed)));
    };
    match role_parts(role) {
        Some((owner, _)) if owner == account => Ok(Some(role.to_owned())),
        _ => Err(EcrError::invalid("customRoleArn", format!("the ARN of a role of the account {account}"))),
    }
}

fn no_rule(prefix: &str) -> EcrError {
    let message = format!("The pull through cache rule with the prefix '{}' does not exist", shown(prefix));
    EcrError::other("PullThroughCacheRuleNotFoundException", message)
}

fn show(account: &str, prefix: &str, rule: &CacheRule) -> Value {
    let answer = json!({
        "ecrRepositoryPrefix": prefix,
        "upstreamRegistryUrl": rule.upstream,
        "createdAt": rule.created_at,
        "registryId": account,
    });
    with(answer, json!({"upstreamRegistry": rule.kind, "credentialArn": rule.credential, "customRoleArn": rule.role}))
}
