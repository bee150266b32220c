//! Which address belongs to which account's registry. The session's own account has the address on which the server listens; each
//! further account has the next loopback address with the same port. Docker takes all of 127.0.0.0/8 without TLS.

use crate::options::Options;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address of a further account's registry; the first one has the number 0.
fn address(reached: SocketAddr, number: usize) -> SocketAddr {
    let base = match reached.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => ip,
        _ => Ipv4Addr::LOCALHOST,
    };
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let ip = u32::from(base).saturating_add(number).saturating_add(1);
    SocketAddr::new(Ipv4Addr::from(ip).into(), reached.port())
}

/// The addresses of further accounts at which the server must listen, too. A server that listens on all addresses needs none.
pub(crate) fn further(options: &Options) -> Vec<SocketAddr> {
    match options.registry.is_some() || options.listen.ip().to_canonical().is_unspecified() {
        true => Vec::new(),
        false => (0..options.accounts.len()).map(|number| address(options.listen, number)).collect(),
    }
}

/// The address of each registry, as in image names, by account. `reached` is where clients reach the server.
pub(crate) fn registries(options: &Options, reached: SocketAddr) -> BTreeMap<String, String> {
    let own = match &options.registry {
        Some(registry) => return BTreeMap::from([(options.account.clone(), registry.address.clone())]),
        None => (options.account.clone(), reached.to_string()),
    };
    let numbered = options.accounts.iter().enumerate();
    let further = numbered.map(|(number, account)| (account.clone(), address(reached, number).to_string()));
    further.chain([own]).collect()
}

/// The account whose registry a client means that has connected to this address.
pub(crate) fn account_at(options: &Options, reached: SocketAddr, local: SocketAddr) -> &str {
    let ip = local.ip().to_canonical();
    let number = (0..options.accounts.len()).find(|number| address(reached, *number).ip() == ip);
    number.and_then(|number| options.accounts.get(number)).map_or(&options.account, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str) -> Options {
        let accounts = vec!["333333444444".to_owned(), "555555666666".to_owned()];
        Options { listen: listen.parse().unwrap(), accounts, ..Options::default() }
    }

    #[test]
    fn each_account_has_an_address() {
        for (listen, reached, more, own) in [
            ("127.0.0.1:80", "127.0.0.1:80", vec!["127.0.0.2:80", "127.0.0.3:80"], "127.0.0.1:80"),
            ("127.0.0.7:80", "127.0.0.7:80", vec!["127.0.0.8:80", "127.0.0.9:80"], "127.0.0.7:80"),
            ("0.0.0.0:80", "127.0.0.1:80", vec![], "127.0.0.1:80"),
            ("10.1.2.3:80", "10.1.2.3:80", vec!["127.0.0.2:80", "127.0.0.3:80"], "10.1.2.3:80"),
        ] {
            let options = options(listen);
            let reached: SocketAddr = reached.parse().unwrap();
            assert_eq!(further(&options).iter().map(SocketAddr::to_string).collect::<Vec<_>>(), more, "{listen}");
            let registries = registries(&options, reached);
            assert_eq!((registries.len(), registries[&options.account].as_str()), (3, own), "{listen}");
            for (account, address) in &registries {
                assert_eq!(account_at(&options, reached, address.parse().unwrap()), account, "{listen}");
            }
            assert_eq!(account_at(&options, reached, "[::1]:80".parse().unwrap()), options.account);
        }
    }
}
