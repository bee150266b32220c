//! The steps of a start: listening, and the registries of all accounts.

use super::ecr::policy::Policy;
use super::imds;
use super::options::Options;
use super::registry;
use super::state::State;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// How often a free port is looked for that is free on the addresses of all accounts.
const PORT_ATTEMPTS: usize = 20;

/// The reason why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The directory of the registry cannot be used.
    #[error("the registry cannot be opened: {0}")]
    Registry(String),
    /// There are too many values, or one has no name.
    #[error("{0}")]
    Value(String),
    /// The profile for task roles cannot be read.
    #[error("{0}")]
    Profile(String),
}

/// Listens on the address of the options, and on those of further accounts.
pub(super) async fn listen(options: &mut Options) -> Result<Vec<TcpListener>, StartError> {
    let asked = options.listen;
    let mut attempts = if asked.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let first = TcpListener::bind(asked).await.map_err(|error| StartError::Listen(asked, error))?;
        options.listen = first.local_addr().map_err(|error| StartError::Listen(asked, error))?;
        let mut listeners = vec![first];
        let mut failed = None;
        for address in registry::further(options) {
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => failed = Some(StartError::Listen(address, error)),
            }
        }
        match failed {
            None => return Ok(listeners),
            Some(error) if attempts == 0 => return Err(error),
            // The port is taken on another account's address.
            Some(_) => {}
        }
    }
}

/// Gives each account its registry, and the instance's role its policy.
pub(super) fn add_accounts(state: &mut State, options: &Options) -> Result<(), String> {
    let host = state.site.registry_host().to_owned();
    if let Some(registry) = state.ecr.registry_mut(&options.account) {
        registry.host = host;
    }
    let is_named = |account: &str| account == options.account || options.accounts.iter().any(|named| named == account);
    let has_repositories =
        |account: &&str| state.ecr.registry(account).is_some_and(|registry| !registry.repositories.is_empty());
    if let Some(account) = state.ecr.accounts().filter(|account| !is_named(account)).find(has_repositories) {
        return Err(format!("the registry has repositories of the account {account}: give --account {account}, too"));
    }
    for account in &options.accounts {
        let host = state.site.registry_of(account).unwrap_or_default().to_owned();
        state.ecr.add_account(account, &host).map_err(|error| error.to_string())?;
    }
    if let Some(text) = &options.instance_policy {
        let policy = Policy::for_identity(text).map_err(|problem| format!("the policy of the instance: {problem}"))?;
        let put = state.ecr.identities_mut().put_role(&options.account, imds::ROLE, policy, false);
        put.map_err(|error| error.to_string())?;
    }
    Ok(())
}
