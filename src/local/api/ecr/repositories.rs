//! Calls about repositories and their settings.

use super::call::{Call, Paging, flag, required, text, texts, with, wrong_form};
use super::tags::read_tags;
use crate::api::request::Answer;
use crate::ecr::error::{EcrError, Place};
use crate::ecr::mutability::Mutability;
use crate::ecr::names::check_repository;
use crate::ecr::repository::{Encryption, Repository};
use crate::ecr::settings::encryption_kind;
use crate::ecr::{Action, Ecr};
use serde_json::{Value, json};

/// Maximum number of repositories that a call names.
const MAX_NAMES: usize = 100;
/// Maximum number of repositories of a page.
const MAX_PAGE: usize = 1000;
/// The longest id of a key of KMS, in bytes, as in ECR.
const MAX_KEY: usize = 2048;
/// Maximum number of mutability filters in a request; ECR's own limit is lower.
const MAX_FILTERS: usize = 100;

/// CreateRepository.
pub(super) fn create(call: &mut Call<'_>) -> Answer {
    let named = call.named()?;
    call.state.permit_ecr(call.caller, Action::CREATE_REPOSITORY, &named.account, &named.name)?;
    let tags = read_tags(&call.body["tags"])?;
    if !tags.is_empty() {
        call.state.permit_ecr(call.caller, Action::TAG_RESOURCE, &named.account, &named.name)?;
    }
    let mut repository = Repository::new(Place { account: named.account, repository: named.name }, call.now);
    if !call.body["imageTagMutability"].is_null() || !call.body["imageTagMutabilityExclusionFilters"].is_null() {
        repository.mutability = mutability(call.body)?;
    }
    repository.scan_on_push = scan_on_push(call.body)?;
    repository.encryption = encryption(call.body)?;
    repository.resource_tags = tags;
    call.state.ecr.create_repository(repository.clone())?;
    Ok(json!({"repository": show(&call.state.ecr, &repository)}))
}

/// DescribeRepositories.
pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let account = call.account()?;
    let names = texts(call.body, "repositoryNames", MAX_NAMES)?;
    if names.is_empty() {
        let paging = Paging::read(call.body, MAX_NAMES, MAX_PAGE)?;
        call.state.permit_ecr(call.caller, Action::DESCRIBE_REPOSITORIES, &account, "*")?;
        let ecr = &call.state.ecr;
        let registry = ecr.registry(&account).into_iter();
        let rest = registry.flat_map(|registry| registry.repositories_after(paging.after()));
        let (page, token) = paging.page(rest.map(|(name, repository)| (name.to_owned(), repository)));
        let shown: Vec<Value> = page.into_iter().map(|repository| show(ecr, repository)).collect();
        return Ok(with(json!({"repositories": shown}), json!({"nextToken": token})));
    }
    Paging::refuse(call.body, "repositoryNames")?;
    let mut shown = Vec::new();
    for name in names {
        check_repository(name)?;
        call.state.authorize_ecr(call.caller, Action::DESCRIBE_REPOSITORIES, &account, name)?;
        shown.push(show(&call.state.ecr, call.state.ecr.repository(&account, name)?));
    }
    Ok(json!({"repositories": shown}))
}

/// DeleteRepository.
pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::DELETE_REPOSITORY)?;
    let force = flag(call.body, "force")?;
    let gone = call.state.ecr.delete_repository(&target.account, &target.name, force)?;
    Ok(json!({"repository": show(&call.state.ecr, &gone)}))
}

/// PutImageTagMutability.
pub(super) fn put_mutability(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::PUT_IMAGE_TAG_MUTABILITY)?;
    let mutability = mutability(call.body)?;
    let repository = call.state.ecr.repository_mut(&target.account, &target.name)?;
    repository.mutability = mutability;
    Ok(with(target.show(), show_mutability(&repository.mutability)))
}

/// PutImageScanningConfiguration.
pub(super) fn put_scanning(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::PUT_IMAGE_SCANNING_CONFIGURATION)?;
    if call.body["imageScanningConfiguration"].is_null() {
        return Err(EcrError::invalid("imageScanningConfiguration", "Member must not be null").into());
    }
    let scan_on_push = scan_on_push(call.body)?;
    call.state.ecr.repository_mut(&target.account, &target.name)?.scan_on_push = scan_on_push;
    Ok(with(target.show(), json!({"imageScanningConfiguration": {"scanOnPush": scan_on_push}})))
}

/// A repository, as all calls show it.
fn show(ecr: &Ecr, repository: &Repository) -> Value {
    let Place { account, repository: name } = &repository.place;
    let encryption = json!({"encryptionType": repository.encryption.kind});
    let answer = json!({
        "repositoryArn": ecr.arn(account, name),
        "registryId": account,
        "repositoryName": name,
        "repositoryUri": ecr.uri(account, name),
        "createdAt": repository.created_at,
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
        "encryptionConfiguration": with(encryption, json!({"kmsKey": repository.encryption.key})),
    });
    with(answer, show_mutability(&repository.mutability))
}

fn show_mutability(mutability: &Mutability) -> Value {
    let filters = mutability.filters().iter().map(|filter| json!({"filterType": "WILDCARD", "filter": filter}));
    let filters: Vec<Value> = filters.collect();
    let answer = json!({"imageTagMutability": mutability.name()});
    match filters.is_empty() {
        true => answer,
        false => with(answer, json!({"imageTagMutabilityExclusionFilters": filters})),
    }
}

fn mutability(body: &Value) -> Result<Mutability, EcrError> {
    let member = "imageTagMutabilityExclusionFilters";
    let name = match text(body, "imageTagMutability")? {
        Some(name) => name,
        None if body[member].is_null() => required(body, "imageTagMutability")?,
        None => "MUTABLE",
    };
    let filters = match &body[member] {
        Value::Null => Vec::new(),
        Value::Array(filters) if filters.len() <= MAX_FILTERS => {
            let filter = |filter: &Value| {
                filter["filter"].as_str().filter(|_| filter["filterType"] == "WILDCARD").map(str::to_owned)
            };
            let filters: Option<Vec<String>> = filters.iter().map(filter).collect();
            filters.ok_or_else(|| EcrError::invalid(member, "a filter has the filterType WILDCARD and a filter"))?
        }
        _ => return Err(wrong_form(member, "an array of a few filters")),
    };
    Mutability::new(name, filters)
}

fn scan_on_push(body: &Value) -> Result<bool, EcrError> {
    match &body["imageScanningConfiguration"] {
        Value::Null => Ok(false),
        configuration @ Value::Object(_) => flag(configuration, "scanOnPush"),
        _ => Err(wrong_form("imageScanningConfiguration", "an object")),
    }
}

fn encryption(body: &Value) -> Result<Encryption, EcrError> {
    let configuration = &body["encryptionConfiguration"];
    match configuration {
        Value::Null => return Ok(Encryption { kind: "AES256", key: None }),
        Value::Object(_) => {}
        _ => return Err(wrong_form("encryptionConfiguration", "an object")),
    }
    let kind = encryption_kind(required(configuration, "encryptionType")?)?;
    let key = text(configuration, "kmsKey")?;
    let member = "encryptionConfiguration.kmsKey";
    match key {
        Some(_) if kind == "AES256" => Err(EcrError::invalid(member, "a key is only for the encryption types of KMS")),
        Some(key) if !(1..=MAX_KEY).contains(&key.len()) => {
            Err(EcrError::invalid(member, format!("Member must have length 1 to {MAX_KEY}")))
        }
        key => Ok(Encryption { kind, key: key.map(str::to_owned) }),
    }
}
