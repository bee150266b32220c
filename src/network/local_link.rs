//! The link between a task and the host, over which the task reaches the agent at 169.254.170.2.
//!
//! The task has `ecs-eth0` with an address of 169.254.172.0/22, whose other end is a port of the bridge. Its only routes over this link are
//! those to the host, to 169.254.170.2 and to the additional networks.
//!
//! Beyond what the Go agent does, ports are isolated: a task cannot answer for the host to another task, nor read the credentials that
//! the other one asks for. No link here has a link-local IPv6 address.

use super::check::{AGENT, HOST, LOCAL, network};
use super::host;
use super::job::Job;
use super::kernel::{add_address, add_first_route, add_route, give, may_be_gone, without_link_local};
use super::names::{mac, port};
use super::place::Places;
use super::steps::{Cause, Done};
use ecs_core::model::interface::Prefix;
use ecs_netlink::{AddressFlags, Errno, Link, LinkChange, Mac, Network, Route, RouteKind, Veth};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Once;
use std::time::{Duration, Instant};

/// The task's end.
const NAME: &str = "ecs-eth0";
/// How long to wait until the kernel has removed the link of an earlier task with the same address.
const REMOVAL: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);

/// Connects the task's namespace with the bridge.
pub(super) fn connect(job: &Job, places: &Places) -> Done {
    let bridge = host::ensure_bridge(job, &places.host)?;
    let link = ensure_veth(job, places, bridge)?;
    let (steps, task, local) = (&job.steps, &places.task, job.request.local_address);
    without_link_local(steps, task, NAME, link)?;
    steps.take(format!("switch on {NAME}"), || {
        Ok(task.change_link(link, &LinkChange { is_up: Some(true), ..LinkChange::default() })?)
    })?;
    let address = Network { address: local.into(), length: LOCAL.length };
    let how = AddressFlags { without_route: true, ..AddressFlags::default() };
    steps.take(give(NAME, address), || add_address(task, link, address, how))?;
    let host = Route { to: Network::host(HOST.into()), kind: RouteKind::Link(link) };
    steps.take(format!("route {HOST} over {NAME}"), || add_route(task, &host))?;
    let via_host = |to: Prefix<Ipv4Addr>| Route { to: network(to), kind: RouteKind::Via(HOST.into(), link) };
    let agent = Prefix { address: AGENT, length: 32 };
    steps.take(format!("route {agent} over {NAME}"), || add_route(task, &via_host(agent)))?;
    for to in &job.settings.additional_routes {
        if !steps.take(format!("route {to} over {NAME}"), || add_first_route(task, &via_host(*to)))? {
            own_route_stays(*to);
        }
    }
    Ok(())
}

/// As with the Go agent's plug-in, a network that the task's own interfaces lead to stays theirs.
fn own_route_stays(to: Prefix<Ipv4Addr>) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            network = %to,
            "ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES has no effect for this network: tasks have a route to it over their own interface, which \
             takes precedence"
        );
    });
}

/// The number of the task's end of the connection.
fn ensure_veth(job: &Job, places: &Places, bridge: u32) -> Done<u32> {
    let (steps, mac) = (&job.steps, mac(job.request.local_address));
    let name = &port(job.request.local_address);
    let (own, port) =
        steps.take(format!("look for {NAME} and {name}"), || Ok((places.task.link(NAME)?, places.host.link(name)?)))?;
    let is_whole =
        |own: &Link, port: &Link| port.kind == "veth" && port.master == Some(bridge) && port.parent == Some(own.index);
    let (index, port) = match (own, port) {
        (Some(own), Some(port)) if is_whole(&own, &port) => (own.index, port.index),
        (own, _) => {
            if let Some(own) = own {
                steps
                    .take(format!("remove an unfinished {NAME}"), || may_be_gone(places.task.delete_link(own.index)))?;
            }
            create(job, places, bridge, name, mac)?
        }
    };
    without_link_local(steps, &places.host, name, port)?;
    steps.take(format!("switch on {name}"), || {
        let change = LinkChange { is_up: Some(true), is_isolated: true, ..LinkChange::default() };
        Ok(places.host.change_link(port, &change)?)
    })?;
    Ok(index)
}

/// Creates both ends, and returns their numbers.
fn create(job: &Job, places: &Places, bridge: u32, name: &str, mac: Mac) -> Done<(u32, u32)> {
    let namespace = Some(places.task_namespace.as_fd());
    let veth = Veth { name, bridge: Some(bridge), peer_name: NAME, peer_mac: Some(mac), peer_namespace: namespace };
    let until = Instant::now() + REMOVAL;
    job.steps.take(format!("connect the task with {}", job.settings.bridge), || {
        loop {
            match places.host.create_veth(&veth) {
                // The kernel removes links some time after the namespace of their other end.
                Err(error) if error.is(Errno::EXIST) && Instant::now() < until => std::thread::sleep(PAUSE),
                Err(error) if error.is(Errno::EXIST) => {
                    let address = job.request.local_address;
                    return Err(Cause::Text(format!("{error}: another task on this host has the address {address}")));
                }
                created => break created?,
            }
        }
        let missing = |name: &str| Cause::Text(format!("{name} was removed at once"));
        let own = places.task.link(NAME)?.ok_or_else(|| missing(NAME))?;
        let port = places.host.link(name)?.ok_or_else(|| missing(name))?;
        Ok((own.index, port.index))
    })
}

/// Removes the connection, which may not be there.
pub(super) fn disconnect(job: &Job, places: &Places) -> Done {
    job.steps.take_anyway(format!("remove {NAME}"), || match places.task.link(NAME)? {
        Some(link) => may_be_gone(places.task.delete_link(link.index)),
        None => Ok(()),
    })
}
