//! The host's part, which all tasks share: the bridge with the address 169.254.172.1.

use super::check::{HOST, LOCAL, network};
use super::job::Job;
use super::kernel::{add_address, give, without_link_local};
use super::names::mac;
use super::steps::{Cause, Done};
use ecs_netlink::{AddressFlags, Errno, LinkChange, Network, Socket};

/// The number of the bridge.
pub(super) fn ensure_bridge(job: &Job, host: &Socket) -> Done<u32> {
    let (name, steps) = (job.settings.bridge.as_str(), &job.steps);
    let bridge = steps.take(format!("make the bridge {name}"), || {
        if host.link(name)?.is_none() {
            // Without an address of its own, a bridge takes the lowest one of its ports. It would change with each task, and the
            // others would not know the host any more. This address survives even a new bridge.
            match host.create_bridge(name, mac(HOST)) {
                Err(error) if error.is(Errno::EXIST) => {} // made for another task in the meantime
                created => created?,
            }
        }
        let link = host.link(name)?.ok_or_else(|| Cause::Text("it was removed at once".to_owned()))?;
        match link.kind.as_str() {
            "bridge" => Ok(link),
            "" => Err(Cause::Text(format!("{name} is a device"))),
            kind => Err(Cause::Text(format!("{name} is a link of the kind {kind}"))),
        }
    })?;
    if !bridge.is_up {
        without_link_local(steps, host, name, bridge.index)?;
        steps.take(format!("switch on {name}"), || {
            Ok(host.change_link(bridge.index, &LinkChange { is_up: Some(true), ..LinkChange::default() })?)
        })?;
    }
    let address = Network { address: HOST.into(), length: LOCAL.length };
    steps.take(give(name, address), || {
        let addresses = host.addresses()?;
        if addresses.iter().any(|at| at.link == bridge.index && at.address == HOST) {
            return Ok(());
        }
        // A wider network, such as 169.254.0.0/16, does no harm.
        let other = addresses.iter().find(|at| {
            let own = Network { address: at.address, length: at.length };
            let is_other_on_bridge = at.link == bridge.index && at.address.is_ipv4();
            is_other_on_bridge || (own.overlaps(&network(LOCAL)) && own.length >= LOCAL.length)
        });
        let Some(other) = other else {
            return add_address(host, bridge.index, address, AddressFlags::default());
        };
        let link =
            host.links()?.into_iter().find(|link| link.index == other.link).map_or_else(String::new, |link| link.name);
        Err(Cause::Text(format!("{link} has the address {}/{}", other.address, other.length)))
    })?;
    Ok(bridge.index)
}
