//! Changes that may have been made already, or may be impossible: which answers of the kernel are no failures.

use super::steps::{Cause, Done, Steps};
use ecs_netlink::{Address, AddressFlags, Errno, Error, LinkChange, Network, Route, Socket};

/// The name of the step that adds an address.
pub(super) fn give(name: &str, address: Network) -> String {
    format!("give {name} the address {}/{}", address.address, address.length)
}

/// Adds an address that may be there already.
pub(super) fn add_address(socket: &Socket, link: u32, added: Network, how: AddressFlags) -> Result<(), Cause> {
    let Network { address, length } = added;
    match socket.add_address(&Address { link, address, length }, how) {
        Err(error) if error.is(Errno::EXIST) => Ok(()),
        Err(error) if error.is(Errno::ACCESS) && address.is_ipv6() => {
            Err(Cause::Text(format!("{error}: IPv6 is switched off in the pause container")))
        }
        added => Ok(added?),
    }
}

/// Adds a route that may be there already. Another route to the same network is an error, unless a router has announced it.
pub(super) fn add_route(socket: &Socket, route: &Route) -> Result<(), Cause> {
    if add_first_route(socket, route)? {
        return Ok(());
    }
    let is_default = route.to.length == 0 && route.to.address.is_ipv6();
    if is_default && socket.has_router()? {
        // The router has announced itself before this step. After it, the kernel has both routes, too.
        return match socket.add_route_beside(route) {
            Err(error) if error.is(Errno::EXIST) => Ok(()),
            added => Ok(added?),
        };
    }
    let error = Error::from(Errno::EXIST);
    Err(Cause::Text(format!("{error}: there is another route to the same network")))
}

/// The same; but another route to the same network stays, and then it returns false.
pub(super) fn add_first_route(socket: &Socket, route: &Route) -> Result<bool, Cause> {
    match socket.add_route(route) {
        Err(error) if error.is(Errno::EXIST) => {
            let same = Route { to: route.to.first(), ..*route };
            Ok(socket.routes(route.to.address)?.contains(&same))
        }
        added => Ok(added.map(|()| true)?),
    }
}

/// The kernel does not have IPv6.
pub(super) fn is_without_ipv6(error: Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::OPNOTSUPP].iter().any(|errno| error.is(*errno))
}

/// A device may be taken from the instance, and a link removed, at any time.
pub(super) fn may_be_gone(result: ecs_netlink::Result<()>) -> Result<(), Cause> {
    match result {
        Err(error) if error.is_missing_link() => Ok(()),
        other => Ok(other?),
    }
}

/// The link needs no IPv6 address, which would come of its own accord when it is switched on.
pub(super) fn without_link_local(steps: &Steps, socket: &Socket, name: &str, link: u32) -> Done {
    steps.take(format!("keep {name} without a link-local IPv6 address"), || {
        let change = LinkChange { without_link_local: true, ..LinkChange::default() };
        match socket.change_link(link, &change) {
            Err(error) if is_without_ipv6(error) => Ok(()),
            changed => Ok(changed?),
        }
    })
}
