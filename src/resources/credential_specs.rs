//! Kerberos tickets for the credential specs of a task (spec `resources.md` §7).
//!
//! Owns the locations of a credential spec's document, the parsing of the document, and the assignment of tickets to specs. It
//! stores nothing. A lease is a set of tickets that the credentials fetcher creates with one call, and deletes with another when
//! the lease is given back. Invariants: either there is a lease for every spec of a task, or no lease is left; an error text
//! contains no part of a document or a secret.
//!
//! Unlike in the Go agent, a task may have domain-joined and domainless specs at the same time, every lease is given back (the
//! Go agent keeps the last one), and two specs with the same account both find its ticket.

use super::credentials_fetcher::{Account, CredentialsFetcher, FetcherError, Lease};
use crate::aws::client::gather::{self, Failed};
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::roles::RoleCredentials;
use crate::aws::services::s3::{self, Object};
use crate::aws::services::{secrets_manager, ssm};
use crate::grpc::system_error::system_error;
use crate::input::byte_order_mark::{BOM, without_bom};
use crate::input::members::Members;
use crate::lane::{self, Lane};
use ecs_core::model::resource::{DOMAIN_JOINED, DOMAINLESS, SecretKey, SecretProvider};
use ecs_core::model::{Failure, Secret, Tickets, with_causes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

/// The largest document in a file, in bytes. S3 and SSM have their own limits.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
const NO_ROLE: &str = "credentialspec resource: unable to find execution role credentials";

/// The location of a document.
#[derive(Debug, PartialEq, Eq)]
enum Location<'a> {
    /// The path of a file on the host.
    File(&'a str),
    /// An object in S3.
    S3(Object<'a>),
    /// The name of an SSM parameter.
    Parameter(&'a str),
}

/// A credential spec's document, and the members of it that are used here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The credential spec as containers name it.
    spec: &'a str,
    /// The whole document.
    text: String,
    /// The service account; empty if the document lacks the account or its domain.
    account: String,
    /// The ARN of the secret with the account that requests the ticket; empty for a domain-joined spec.
    account_secret: String,
}

/// Fetches the documents of these credential specs. Files are read on a thread of `files`.
pub(super) async fn documents<'a>(
    sdk: &Sdk,
    files: &Lane,
    specs: &'a [String],
    role: Option<&RoleCredentials>,
) -> Result<Vec<Document<'a>>, Failure> {
    let locations = specs.iter().map(|spec| Ok((spec.as_str(), Location::parse(spec)?)));
    let locations = locations.collect::<Result<Vec<_>, String>>().map_err(Failure::ends_task)?;
    gather::all(locations.iter().map(|(spec, location)| document(sdk, files, spec, location, role)).collect()).await
}

/// Gets tickets for these documents. If one fails, the leases of the others are given back.
pub(super) async fn create(
    sdk: &Sdk,
    fetcher: &CredentialsFetcher,
    documents: &[Document<'_>],
    role: Option<&RoleCredentials>,
) -> Result<Tickets, Failure> {
    let mut tickets = Tickets::default();
    let requested = request(sdk, fetcher, documents, role, &mut tickets).await;
    if let Err(failure) = requested {
        if let Err(error) = give_back(fetcher, &tickets.leases).await {
            tracing::warn!(leases = tickets.leases.len(), %error, "Kerberos tickets of a task that ends are left behind");
        }
        return Err(failure);
    }
    Ok(tickets)
}

/// Requests tickets for these documents, and adds each lease to `tickets` as soon as it exists.
async fn request(
    sdk: &Sdk,
    fetcher: &CredentialsFetcher,
    documents: &[Document<'_>],
    role: Option<&RoleCredentials>,
    tickets: &mut Tickets,
) -> Result<(), Failure> {
    let (domainless, joined): (Vec<_>, Vec<_>) =
        documents.iter().partition(|document| document.spec.starts_with(DOMAINLESS));
    if !joined.is_empty() {
        let texts: Vec<String> = joined.iter().map(|document| document.text.clone()).collect();
        let lease = fetcher.add(&texts).await.map_err(ends_task)?;
        for document in joined {
            let path = path_of(&document.account, &lease.paths);
            tickets.paths.extend(path.map(|path| (document.spec.to_owned(), path.to_owned())));
        }
        tickets.leases.push(lease.id);
    }
    let mut accounts: BTreeMap<&str, Account> = BTreeMap::new();
    for document in
        domainless.into_iter().filter(|document| !document.account_secret.is_empty() && !document.account.is_empty())
    {
        let arn = document.account_secret.as_str();
        if !accounts.contains_key(arn) {
            accounts.insert(arn, account(sdk, arn, role).await?);
        }
        let documents = [document.text.clone()];
        let Lease { id, paths } = fetcher.add_without_domain(&documents, &accounts[arn]).await.map_err(ends_task)?;
        tickets.leases.push(id);
        let path = paths.into_iter().find(|path| is_mountable(path));
        tickets.paths.extend(path.map(|path| (document.spec.to_owned(), path)));
    }
    tickets.accounts = accounts.into_keys().map(str::to_owned).collect();
    Ok(())
}

/// Renews the tickets that were requested with these accounts (ARNs of secrets). All accounts are tried; the first failure is
/// returned.
pub(super) async fn renew(
    sdk: &Sdk,
    fetcher: &CredentialsFetcher,
    accounts: &[String],
    role: Option<&RoleCredentials>,
) -> Result<(), Failure> {
    let mut result = Ok(());
    for arn in accounts {
        let renewed = async {
            let account = account(sdk, arn, role).await?;
            fetcher.renew(&account).await.map_err(|error| {
                let text = format!("failed to renew kerberos tickets associated service account {arn}: {error}");
                Failure::permanent("", text)
            })
        };
        result = result.and(renewed.await);
    }
    result
}

/// Gives leases back; a lease that was given back before is success. All leases are tried; the first failure is returned.
pub(super) async fn give_back(fetcher: &CredentialsFetcher, leases: &[String]) -> Result<(), Failure> {
    let mut result = Ok(());
    for lease in leases.iter().filter(|lease| !lease.is_empty()) {
        let deleted = fetcher.delete(lease).await.map_err(|error| {
            let text = format!("Unable to cleanup kerberos tickets associated with leaseid: {lease}, error: {error}");
            Failure::retryable("", text)
        });
        result = result.and(deleted);
    }
    result
}

/// A request for tickets that failed in all its attempts ends the task: if it succeeds after all, its lease is not known here,
/// and another request would add one more such lease.
fn ends_task(error: FetcherError) -> Failure {
    Failure::ends_task(error.to_string())
}

impl<'a> Location<'a> {
    fn parse(spec: &'a str) -> Result<Self, String> {
        let value = spec.strip_prefix(DOMAINLESS).or_else(|| spec.strip_prefix(DOMAIN_JOINED)).unwrap_or(spec);
        if let Some(path) = value.strip_prefix("file://") {
            return Ok(Self::File(path));
        }
        let parts: Vec<&str> = value.splitn(6, ':').collect();
        let ["arn", _, service, _, _, resource] = parts[..] else {
            let why = if parts[0] == "arn" { "not enough sections" } else { "invalid prefix" };
            return Err(format!("arn: {why}"));
        };
        match service {
            "s3" => Object::parse(value).map(Self::S3),
            "ssm" => match resource.split_once("parameter") {
                Some((_, name)) => Ok(Self::Parameter(name)),
                None => Err(format!("the provided SSM parameter:{resource} is in an invalid format")),
            },
            _ => Err("unsupported credentialspec ARN, only s3/ssm ARNs are valid".to_owned()),
        }
    }
}

async fn document<'a>(
    sdk: &Sdk,
    files: &Lane,
    spec: &'a str,
    location: &Location<'_>,
    role: Option<&RoleCredentials>,
) -> Result<Document<'a>, Failed> {
    let text = match (location, role) {
        (Location::File(path), _) => read(files, path).await?,
        (Location::S3(_) | Location::Parameter(_), None) => return Err(NO_ROLE.to_owned().into()),
        (Location::S3(object), Some(role)) => {
            let bytes = s3::get(sdk, object, role).await.map_err(|error| {
                let (s3::ObjectError::Bucket { text, may_pass } | s3::ObjectError::Object { text, may_pass }) = error;
                Failed { text, may_pass }
            })?;
            let bytes = without_bom(&bytes).map_err(|error| format!("the document of {spec}: {error}"))?;
            compact(&String::from_utf8_lossy(bytes))
        }
        (Location::Parameter(name), Some(_)) => {
            let key =
                SecretKey { provider: SecretProvider::Ssm, value_from: (*name).to_owned(), region: String::new() };
            let found = ssm::parameters(sdk, std::slice::from_ref(&key), role).await.map_err(Failed::from)?;
            found.get(&key).map(|value| value.expose().to_owned()).unwrap_or_default()
        }
    };
    // Documents made on Windows may begin with a byte order mark.
    let text = text.strip_prefix(BOM).map(str::to_owned).unwrap_or(text);
    Document::read(spec, text).map_err(Failed::from)
}

/// Reads a document from a file. Compat: the path is used as it is, even if it is relative.
async fn read(files: &Lane, path: &str) -> Result<String, Failed> {
    let failed = |why: String| format!("open {path}: {why}");
    let file = PathBuf::from(path);
    // A path that does not answer now may answer later.
    let read = files.run(path, move || lane::read_file(&file, MAX_FILE_BYTES)).await;
    let read = read.map_err(|error| Failed { text: failed(with_causes(&error)), may_pass: true })?;
    let bytes = read.map_err(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::FileTooLarge => failed(error.to_string()),
        _ => failed(system_error(&error)),
    })?;
    String::from_utf8(bytes).map_err(|_| Failed::from(failed("it is not UTF-8".to_owned())))
}

/// Removes white space outside of JSON texts, as the Go agent does with documents from S3.
fn compact(json: &str) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let keep = |letter: &char| {
        let is_kept = is_text || !matches!(letter, ' ' | '\t' | '\r' | '\n');
        is_text ^= *letter == '"' && !is_escaped;
        is_escaped = *letter == '\\' && !is_escaped;
        is_kept
    };
    json.chars().filter(keep).collect()
}

impl<'a> Document<'a> {
    fn read(spec: &'a str, text: String) -> Result<Self, String> {
        let is_domainless = spec.starts_with(DOMAINLESS);
        // The Go agent shows the document here. This agent does not, since the path may name any file.
        let start = if is_domainless {
            "error unmarshalling credentialspec domainless"
        } else {
            "Error unmarshalling credentialspec domain-joined"
        };
        let wrong = |why: String| format!("{start} {spec} : {why}");
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("no JSON at line {} column {}", error.line(), error.column())))?;
        let text_at =
            |path: &[&str]| text_at(&value, path).map_err(|member| wrong(format!("{member} is of another type")));
        let mut account = text_at(&["DomainJoinConfig", "MachineAccountName"])?;
        if text_at(&["DomainJoinConfig", "DnsName"])?.is_empty() {
            account.clear();
        }
        const ACCOUNT_SECRET: [&str; 4] =
            ["ActiveDirectoryConfig", "HostAccountConfig", "PluginInput", "CredentialArn"];
        let account_secret = if is_domainless { text_at(&ACCOUNT_SECRET)? } else { String::new() };
        Ok(Self { spec, account, account_secret, text })
    }
}

/// The text at a path of members, whose names match in any case; empty if a member is missing. `Err` = the member that has
/// another type.
fn text_at<'p>(value: &Value, path: &[&'p str]) -> Result<String, &'p str> {
    let mut at = value;
    for (depth, name) in path.iter().enumerate() {
        let object = match at {
            Value::Object(object) => object,
            Value::Null => return Ok(String::new()),
            _ => return Err(depth.checked_sub(1).map_or("the document", |parent| path[parent])),
        };
        let exact = object.get(*name);
        let found =
            exact.or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, member)| member));
        at = found.unwrap_or(&Value::Null);
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        _ => Err(path.last().copied().unwrap_or_default()),
    }
}

/// Fetches the account (user, password and domain) from a secret.
async fn account(sdk: &Sdk, arn: &str, role: Option<&RoleCredentials>) -> Result<Account, Failure> {
    let key = SecretKey { provider: SecretProvider::SecretsManager, value_from: arn.to_owned(), region: String::new() };
    let found = secrets_manager::secrets(sdk, std::slice::from_ref(&key), role).await.map_err(|failure| {
        let message = format!("failed to retrieve credentials for domainless gMSA user {arn}: {}", failure.message);
        failure.with_message(message)
    })?;
    let secret = found.get(&key).cloned().unwrap_or_default();
    read_account(&secret)
        .map_err(|why| Failure::ends_task(format!("failed to parse asmSecretData for the gMSA AD user: {why}")))
}

/// Parses an account. Member names match in any case.
fn read_account(secret: &Secret) -> Result<Account, &'static str> {
    let members = Members::parse(secret.expose()).map_err(|_| "the secret is not a JSON object")?;
    let member = |name: &str| members.text(name).map_err(|_| "a member of the secret is not a string");
    Ok(Account {
        username: member("username")?,
        password: Secret::new(member("password")?),
        domain: member("domainName")?,
    })
}

/// Finds the ticket of a service account: its directory is named after the account. As in the Go agent, case does not matter and
/// the name may be any part of the path, but a directory of exactly this name is preferred.
fn path_of<'p>(account: &str, paths: &'p [String]) -> Option<&'p str> {
    let account = account.to_lowercase();
    if account.is_empty() {
        return None;
    }
    let paths = || paths.iter().map(String::as_str).filter(|path| is_mountable(path));
    let has_directory = |path: &&str| path.to_lowercase().split('/').any(|part| part == account);
    paths().find(has_directory).or_else(|| paths().find(|path| path.to_lowercase().contains(&account)))
}

/// Docker can mount the path: it would cut a path at a colon, and take a relative path for a volume's name.
fn is_mountable(path: &str) -> bool {
    path.starts_with('/') && !path.contains(':')
}

#[cfg(test)]
mod tests;
