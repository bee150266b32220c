//! An interface of a task: from the host to the task's namespace, and back.

use super::check::network;
use super::job::Job;
use super::kernel::{add_address, add_route, give, is_without_ipv6, may_be_gone};
use super::names::host_name;
use super::place::Places;
use super::steps::{Cause, Done};
use ecs_core::model::interface::{Interface, InterfaceKind, MacAddress};
use ecs_netlink::{AddressFlags, Errno, Link, LinkChange, Network, Route, RouteKind, Socket, Vlan};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The addresses of the instance metadata service.
const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];
/// Each link is in this network.
const LINK_LOCAL: Network = Network { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), length: 10 };
/// How long to wait until the kernel has removed the VLAN of an earlier task, whose namespace has ended.
const REMOVAL: Duration = Duration::from_secs(3);
/// The time between two attempts to make the VLAN meanwhile.
const RETRY: Duration = Duration::from_millis(10);

/// Brings an interface of the task into its namespace. The first one, with number 0, is `eth0`, and it has the default route.
///
/// The Go agent leaves the second interface under the name that it has on the host, without an address.
pub(super) fn attach(job: &Job, places: &Places, number: usize, interface: &Interface) -> Done {
    let name = format!("eth{number}");
    let (steps, task) = (&job.steps, &places.task);
    let link = bring(job, places, &name, interface)?;
    if number == 0 && job.settings.block_metadata {
        block_metadata(job, places)?;
    }
    let ipv4 = interface.ipv4_prefixes().map(network);
    for address in ipv4.chain(interface.ipv6_prefixes().map(network)) {
        let how = AddressFlags { is_unchecked: true, with_broadcast: true, ..AddressFlags::default() };
        steps.take(give(&name, address), || add_address(task, link.index, address, how))?;
    }
    if !link.is_up {
        steps.take(format!("switch on {name}"), || {
            Ok(task.change_link(link.index, &LinkChange { is_up: Some(true), ..LinkChange::default() })?)
        })?;
    }
    // A dual-stack task learns its default route for IPv6 from the router.
    let ipv6 = interface.gateway_ipv6.filter(|_| interface.is_ipv6_only()).map(network);
    let ipv4 = interface.gateway_ipv4.filter(|_| !interface.is_ipv6_only()).map(network);
    for Network { address: gateway, .. } in ipv4.into_iter().chain(ipv6).filter(|_| number == 0) {
        let mut own = interface.ipv4_prefixes().map(network).chain(interface.ipv6_prefixes().map(network));
        let is_near = own.any(|own| own.contains(gateway)) || LINK_LOCAL.contains(gateway);
        let kind =
            if is_near { RouteKind::Via(gateway, link.index) } else { RouteKind::ViaUnchecked(gateway, link.index) };
        let route = Route { to: Network::default_of(gateway), kind };
        steps.take(format!("make {gateway} the gateway of {name}"), || add_route(task, &route))?;
    }
    Ok(())
}

/// The link of the interface, in the task's namespace and under this name.
fn bring(job: &Job, places: &Places, name: &str, interface: &Interface) -> Done<Link> {
    let mac = interface.mac;
    let look = || Ok(places.task.find_link(|links| find(links, interface, name))?);
    match (job.steps.take(format!("look for {mac} in the task's namespace"), look)?, interface.kind) {
        (Some(link), _) if link.name == name => return Ok(link),
        (Some(_), _) => {} // it has come here, and not got its name
        (None, InterfaceKind::Standard) => bring_device(job, places, name, interface)?,
        (None, InterfaceKind::Branch { vlan, trunk }) => bring_branch(job, places, name, &Branch { mac, vlan, trunk })?,
    }
    job.steps.take(format!("name the interface {mac} {name}"), || {
        let link = look()?.ok_or_else(|| gone(mac))?;
        if link.name != name {
            places.task.change_link(link.index, &LinkChange { name: Some(name), ..LinkChange::default() })?;
        }
        Ok(Link { name: name.to_owned(), ..link })
    })
}

fn gone(mac: impl fmt::Display) -> Cause {
    Cause::Text(format!("there is no interface {mac} in the task's namespace any more"))
}

/// Moves the device, which gets its name on the way: the task may have another interface under the name that it has on the host.
fn bring_device(job: &Job, places: &Places, name: &str, interface: &Interface) -> Done {
    let mac = interface.mac;
    let link = job.steps.take(format!("find the interface {mac}"), || find_device(&places.host, mac))?;
    let change =
        LinkChange { namespace: Some(places.task_namespace.as_fd()), name: Some(name), ..LinkChange::default() };
    job.steps.take(format!("move {} ({mac}) to the task's namespace", link.name), || {
        match places.host.change_link(link.index, &change) {
            // It has moved, and its new name is taken. The next step says so.
            Err(error)
                if error.is(Errno::EXIST) && places.task.find_link(|links| find(links, interface, name))?.is_some() =>
            {
                Ok(())
            }
            moved => Ok(moved?),
        }
    })
}

struct Branch {
    mac: MacAddress,
    vlan: u16,
    trunk: MacAddress,
}

impl Branch {
    /// Whether the link is this VLAN on the trunk.
    fn is(&self, link: &Link, trunk: &Link) -> bool {
        link.kind == "vlan" && link.vlan == Some(self.vlan) && link.parent == Some(trunk.index)
    }
}

/// Creates the VLAN in the task's namespace.
fn bring_branch(job: &Job, places: &Places, name: &str, branch: &Branch) -> Done {
    let (steps, host) = (&job.steps, &places.host);
    let Branch { mac, vlan, trunk } = branch;
    let trunk = steps.take(format!("find the trunk interface {trunk}"), || find_device(host, *trunk))?;
    if !trunk.is_up {
        steps.take(format!("switch on the trunk interface {}", trunk.name), || {
            Ok(host.change_link(trunk.index, &LinkChange { is_up: Some(true), ..LinkChange::default() })?)
        })?;
    }
    steps.take(format!("make VLAN {vlan} of {} in the task's namespace", trunk.name), || {
        // The Go agent makes it on the host first, where it stays if the agent is killed.
        let is_left = |link: &Link| branch.is(link, &trunk) && link.mac == Some(mac.0);
        if let Some(left) = host.find_link(|links| links.into_iter().find(is_left))? {
            host.delete_link(left.index)?;
        }
        let namespace = places.task_namespace.as_fd();
        let vlan = Vlan { name, parent: trunk.index, id: *vlan, mac: mac.0, namespace };
        let until = Instant::now() + REMOVAL;
        loop {
            match host.create_vlan(&vlan) {
                // The kernel removes it some time after its namespace has ended.
                Err(error) if error.is(Errno::EXIST) && Instant::now() < until => std::thread::sleep(RETRY),
                created => return Ok(created?),
            }
        }
    })
}

/// The link of the interface in its task's namespace, where it has this name, or gets it.
///
/// A task with `NET_ADMIN` can give a link of its own making the same hardware address. Only what the host has made counts: a device,
/// or the end of a veth that leads out of the task.
fn find(links: Vec<Link>, interface: &Interface, name: &str) -> Option<Link> {
    let is_kind = |link: &Link| match interface.kind {
        InterfaceKind::Branch { vlan, .. } => link.kind == "vlan" && link.vlan == Some(vlan),
        InterfaceKind::Standard => link.kind != "veth" || link.has_far_parent,
    };
    let is_branch = interface.kind != InterfaceKind::Standard;
    choose(links.into_iter().filter(is_kind), interface.mac, is_branch, |link| usize::from(link.name != name))
}

/// The device of the host with this hardware address: links on top of it may have the same one.
fn find_device(host: &Socket, mac: MacAddress) -> Result<Link, Cause> {
    host.find_link(|links| device(links, mac))?.ok_or_else(|| Cause::Text("it is not on this host".to_owned()))
}

pub(super) fn device(links: Vec<Link>, mac: MacAddress) -> Option<Link> {
    choose(links.into_iter(), mac, false, |link| link.name.len())
}

/// Chooses a link with this hardware address: a device, or else a veth, which plays one where there are none; or a branch. Among
/// several, the one with the lowest `rank`.
fn choose(
    links: impl Iterator<Item = Link>,
    mac: MacAddress,
    is_branch: bool,
    rank: impl Fn(&Link) -> usize,
) -> Option<Link> {
    let kinds: &[&str] = if is_branch { &["vlan"] } else { &["", "veth"] };
    let place = |link: &Link| kinds.iter().position(|kind| *kind == link.kind);
    let candidates = links.filter(|link| link.mac == Some(mac.0));
    let candidates = candidates.filter_map(|link| Some(((place(&link)?, rank(&link), link.index), link)));
    candidates.min_by_key(|(key, _)| *key).map(|(_, link)| link)
}

fn metadata_routes() -> [Route; 2] {
    METADATA.map(|address| Route { to: Network::host(address), kind: RouteKind::Blackhole })
}

fn block_metadata(job: &Job, places: &Places) -> Done {
    for route in metadata_routes() {
        let step = format!("block the instance metadata at {}", route.to.address);
        job.steps.take(step, || match add_route(&places.task, &route) {
            Err(Cause::Kernel(error)) if route.to.address.is_ipv6() && is_without_ipv6(error) => Ok(()),
            added => added,
        })?;
    }
    Ok(())
}

/// Gives an interface back to the host. It is no error if it is not in the task's namespace.
pub(super) fn give_back(job: &Job, places: &Places, number: usize, interface: &Interface) -> Done {
    let (mac, task, steps) = (interface.mac, &places.task, &job.steps);
    let own = format!("eth{number}");
    let look = || Ok(task.find_link(|links| find(links, interface, &own))?);
    let Some(link) = steps.take_anyway(format!("look for {mac} in the task's namespace"), look)? else { return Ok(()) };
    if interface.kind != InterfaceKind::Standard {
        return steps.take_anyway(format!("remove the VLAN interface {}", link.name), || {
            may_be_gone(task.delete_link(link.index))
        });
    }
    let name = host_name(mac);
    let off = LinkChange { is_up: Some(false), ..LinkChange::default() };
    steps.take_anyway(format!("switch off {}", link.name), || may_be_gone(task.change_link(link.index, &off)))?;
    let rename = LinkChange { name: Some(&name), ..LinkChange::default() };
    steps.take_anyway(format!("name {} {name}", link.name), || may_be_gone(task.change_link(link.index, &rename)))?;
    let change = LinkChange { namespace: Some(places.host_namespace.as_fd()), ..LinkChange::default() };
    steps.take_anyway(format!("move {name} back to the host"), || may_be_gone(task.change_link(link.index, &change)))
}

/// Removes the blocks of the instance metadata, which may not be there.
pub(super) fn unblock_metadata(job: &Job, places: &Places) -> Done {
    for route in metadata_routes().into_iter().filter(|_| job.settings.block_metadata) {
        let step = format!("stop blocking the instance metadata at {}", route.to.address);
        job.steps.take_anyway(step, || match places.task.delete_route(&route) {
            Err(error) if error.is(Errno::SRCH) || is_without_ipv6(error) => Ok(()),
            deleted => Ok(deleted?),
        })?;
    }
    Ok(())
}
