//! Kerberos tickets for the credential specs of a task (spec `resources.md` §7).
//!
//! Owns where the document of a credential spec is, what is read in it, and which ticket belongs to which spec. It keeps nothing. The
//! invariant: either there is a lease for all of them, or none is left; and no error text holds anything of a document or a secret.
//!
//! Unlike in the Go agent, specs with and without a domain may stand beside each other in a task, every lease is given back (the
//! Go agent keeps the last one), and two specs of one account both find its ticket.

use super::credentials_fetcher::{Account, CredentialsFetcher, FetcherError, Lease};
use super::system_error::system_error;
use crate::aws::gather::{self, Failed};
use crate::aws::roles::RoleCredentials;
use crate::aws::s3::{self, Object};
use crate::aws::sdk::Sdk;
use crate::aws::{secrets_manager, ssm};
use crate::lane::{self, Lane};
use crate::model::members::Members;
use crate::model::resource::{DOMAIN_JOINED, DOMAINLESS, SecretKey, SecretProvider};
use crate::model::text::{MARK, without_mark};
use crate::model::{Failure, Secret, Tickets, with_causes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

/// The largest document in a file; those in S3 and SSM have limits of their own.
const LARGEST_FILE: u64 = 1024 * 1024;
const NO_ROLE: &str = "credentialspec resource: unable to find execution role credentials";

/// Where a document is.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    File(&'a str),
    S3(Object<'a>),
    Parameter(&'a str),
}

/// What a document says that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// As the containers name it.
    spec: &'a str,
    text: String,
    /// The service account; empty if the document lacks it or its domain.
    account: String,
    /// ARN of the secret with the account to ask with; empty in a domain.
    asks_as: String,
}

/// The documents of these credential specs. Those in files are read on a thread of `files`.
pub(super) async fn documents<'a>(
    sdk: &Sdk,
    files: &Lane,
    specs: &'a [String],
    role: Option<&RoleCredentials>,
) -> Result<Vec<Document<'a>>, Failure> {
    let places = specs.iter().map(|spec| Ok((spec.as_str(), Place::parse(spec)?)));
    let places = places.collect::<Result<Vec<_>, String>>().map_err(Failure::ends_task)?;
    gather::all(places.iter().map(|(spec, place)| document(sdk, files, spec, place, role)).collect()).await
}

/// Tickets for these documents.
pub(super) async fn create(
    sdk: &Sdk,
    fetcher: &CredentialsFetcher,
    documents: &[Document<'_>],
    role: Option<&RoleCredentials>,
) -> Result<Tickets, Failure> {
    let mut tickets = Tickets::default();
    let made = make(sdk, fetcher, documents, role, &mut tickets).await;
    if let Err(failure) = made {
        if let Err(left) = give_back(fetcher, &tickets.leases).await {
            tracing::warn!(leases = ?tickets.leases, %left, "Kerberos tickets of a task that ends are left behind");
        }
        return Err(failure);
    }
    Ok(tickets)
}

async fn make(
    sdk: &Sdk,
    fetcher: &CredentialsFetcher,
    documents: &[Document<'_>],
    role: Option<&RoleCredentials>,
    tickets: &mut Tickets,
) -> Result<(), Failure> {
    let (domainless, joined): (Vec<_>, Vec<_>) = documents.iter().partition(|it| it.spec.starts_with(DOMAINLESS));
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
    for document in domainless.into_iter().filter(|it| !it.asks_as.is_empty() && !it.account.is_empty()) {
        let arn = document.asks_as.as_str();
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

/// New tickets in the place of those that were got in the name of these accounts (ARNs of secrets). The failure of one keeps no other
/// from being renewed; the first is told.
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

/// Gives leases back; those that were given back before are so still. The failure of one keeps no other; the first is told.
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

/// It was tried often enough; a late answer would be of a lease that nobody knows.
fn ends_task(error: FetcherError) -> Failure {
    Failure::ends_task(error.to_string())
}

impl<'a> Place<'a> {
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
    place: &Place<'_>,
    role: Option<&RoleCredentials>,
) -> Result<Document<'a>, Failed> {
    let text = match (place, role) {
        (Place::File(path), _) => read(files, path).await?,
        (Place::S3(_) | Place::Parameter(_), None) => return Err(NO_ROLE.to_owned().into()),
        (Place::S3(object), Some(role)) => {
            let bytes = s3::get(sdk, object, role).await.map_err(|error| {
                let (s3::ObjectError::Bucket { text, may_pass } | s3::ObjectError::Object { text, may_pass }) = error;
                Failed { text, may_pass }
            })?;
            let bytes = without_mark(&bytes).map_err(|wide| format!("the document of {spec}: {wide}"))?;
            compact(&String::from_utf8_lossy(bytes))
        }
        (Place::Parameter(name), Some(_)) => {
            let key =
                SecretKey { provider: SecretProvider::Ssm, value_from: (*name).to_owned(), region: String::new() };
            let found = ssm::parameters(sdk, std::slice::from_ref(&key), role).await.map_err(Failed::from)?;
            found.get(&key).map(|value| value.expose().to_owned()).unwrap_or_default()
        }
    };
    // Such documents are made on Windows.
    let text = text.strip_prefix(MARK).map(str::to_owned).unwrap_or(text);
    Document::read(spec, text).map_err(Failed::from)
}

/// Compat: a path is taken as it is, also one that is not absolute.
async fn read(files: &Lane, path: &str) -> Result<String, Failed> {
    let failed = |why: String| format!("open {path}: {why}");
    let file = PathBuf::from(path);
    // A path that does not answer may answer another time.
    let read = files.run(path, move || lane::read_file(&file, LARGEST_FILE)).await;
    let read = read.map_err(|error| Failed { text: failed(with_causes(&error)), may_pass: true })?;
    let bytes = read.map_err(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::FileTooLarge => failed(error.to_string()),
        _ => failed(system_error(&error)),
    })?;
    String::from_utf8(bytes).map_err(|_| Failed::from(failed("it is not UTF-8".to_owned())))
}

/// Without white space outside of texts, as the Go agent hands on what comes from S3.
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
        // The Go agent shows the document here, whatever file that is.
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
        const ASKS_AS: [&str; 4] = ["ActiveDirectoryConfig", "HostAccountConfig", "PluginInput", "CredentialArn"];
        let asks_as = if is_domainless { text_at(&ASKS_AS)? } else { String::new() };
        Ok(Self { spec, account, asks_as, text })
    }
}

/// The text at that place, member names in any case; empty if there is none. The member that is of another type otherwise.
fn text_at<'p>(value: &Value, path: &[&'p str]) -> Result<String, &'p str> {
    let mut at = value;
    for (depth, name) in path.iter().enumerate() {
        let object = match at {
            Value::Object(object) => object,
            Value::Null => return Ok(String::new()),
            _ => return Err(depth.checked_sub(1).map_or("the document", |before| path[before])),
        };
        let exact = object.get(*name);
        let found = exact.or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, it)| it));
        at = found.unwrap_or(&Value::Null);
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        _ => Err(path.last().copied().unwrap_or_default()),
    }
}

/// The user, password and domain in a secret.
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

/// Member names in any case.
fn read_account(secret: &Secret) -> Result<Account, &'static str> {
    let members = Members::parse(secret.expose()).map_err(|_| "the secret is not a JSON object")?;
    let member = |name: &str| members.text(name).map_err(|_| "a member of the secret is not a text");
    Ok(Account {
        username: member("username")?,
        password: Secret::new(member("password")?),
        domain: member("domainName")?,
    })
}

/// Where the ticket of a service account is: its directory is called after it. As in the Go agent the case does not matter, and a
/// name may be a part of the path; but the whole name of a directory goes before.
fn path_of<'p>(account: &str, paths: &'p [String]) -> Option<&'p str> {
    let account = account.to_lowercase();
    if account.is_empty() {
        return None;
    }
    let paths = || paths.iter().map(String::as_str).filter(|path| is_mountable(path));
    let is_its = |path: &&str| path.to_lowercase().split('/').any(|part| part == account);
    paths().find(is_its).or_else(|| paths().find(|path| path.to_lowercase().contains(&account)))
}

/// A colon would end the path for Docker, and what is not absolute would be the name of a volume.
fn is_mountable(path: &str) -> bool {
    path.starts_with('/') && !path.contains(':')
}

#[cfg(test)]
mod tests;
