//! The route of this host to 169.254.170.2, where no default route leads there (spec `ecs-init.md` §4).
//!
//! A packet of the host needs a route before a rule can send it to the agent. On a host without IPv4, or without a gateway, it has
//! none. The route is made with the program `ip`. It has a mark of its own, so that nobody else's route is removed.

use super::part::{FirewallError, LIMIT, Part, failed};
use super::rules::METADATA_ADDRESS;
use crate::host::program::{Call, Programs};
use std::net::Ipv4Addr;

/// The routes of the main table for IPv4, in the network namespace of this thread.
const ROUTES: &str = "/proc/thread-self/net/route";
/// A route that is in use, and one that refuses packets.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;
/// The mark of routes that this agent makes: a number for the origin of a route that no known program uses.
const ORIGIN: &str = "170";

/// What the list of routes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A default route leads to the address.
    None,
    /// There is no default route, and the route is there.
    Met,
    /// There is no default route, and the route is missing.
    Missing,
}

/// Columns: interface, destination, gateway, flags, two counters, metric, mask. Addresses are in the byte order of this machine.
fn need(routes: &str) -> Need {
    let address: Option<Ipv4Addr> = METADATA_ADDRESS.parse().ok();
    let wanted = address.map(|address| u32::from_ne_bytes(address.octets()));
    let rows = routes.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, _, flags, _, _, _, mask, ..] = columns[..] else { return None };
        let number = |text| u32::from_str_radix(text, 16).ok();
        let is_usable = number(flags)? & (UP | REJECT) == UP;
        is_usable.then_some((number(destination)?, number(mask)?))
    });
    let rows: Vec<(u32, u32)> = rows.collect();
    match () {
        () if rows.contains(&(0, 0)) => Need::None,
        () if rows.iter().any(|(destination, mask)| Some(*destination) == wanted && *mask == u32::MAX) => Need::Met,
        () => Need::Missing,
    }
}

fn read() -> Result<Need, FirewallError> {
    let text = std::fs::read_to_string(ROUTES);
    let text = text.map_err(|error| FirewallError::Setting { name: "the list of routes".to_owned(), error })?;
    Ok(need(&text))
}

/// The words for `ip` that add the route.
fn words(verb: &'static str) -> [&'static str; 9] {
    ["route", verb, "169.254.170.2/32", "dev", "lo", "scope", "link", "proto", ORIGIN]
}

/// Makes the route if it is needed and missing. `None`: it is not needed.
pub(super) async fn ensure(programs: &Programs) -> Result<Option<Part>, FirewallError> {
    let need = read()?;
    if need == Need::None {
        return Ok(None);
    }
    let was_missing = need == Need::Missing;
    if was_missing {
        run(programs, "add").await?;
    }
    let purpose = "this host, which has no default route for IPv4, has a route to the agent";
    Ok(Some(Part { name: format!("route to {METADATA_ADDRESS}"), purpose, was_missing }))
}

/// Removes the route if this agent has made it. If there is a default route by now, it stays, as with ecs-init.
pub(super) async fn undo(programs: &Programs) -> Result<(), FirewallError> {
    if read()? != Need::Met {
        return Ok(());
    }
    match run(programs, "del").await {
        // Without the program, the route is not ours.
        Err(FirewallError::Program(error)) if error.is_missing() => Ok(()),
        result => result,
    }
}

async fn run(programs: &Programs, verb: &'static str) -> Result<(), FirewallError> {
    let call = Call { program: "ip", arguments: &words(verb), input: "", limit: LIMIT };
    let outcome = programs.run(&call).await?;
    // Another program has made the route meanwhile, or it is not ours.
    let is_done = ["File exists", "No such process"].iter().any(|text| outcome.failure().contains(text));
    if outcome.is_success() || is_done { Ok(()) } else { Err(failed(&call, &outcome)) }
}

/// The command that makes the route where it is needed, for people.
pub(super) fn command() -> String {
    format!("ip -4 route show default | grep -q . || ip {}", words("add").join(" "))
}

/// The command that removes the route, for people.
pub(super) fn undo_command() -> String {
    format!("ip {}", words("del").join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_is_needed_only_without_a_default_route() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let row = |interface: &str, destination: &str, flags: &str, mask: &str| {
            format!("{interface}\t{destination}\t00000000\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        let default = row("eth0", "00000000", "0003", "00000000");
        let refused = row("*", "00000000", "0201", "00000000");
        let down = row("eth0", "00000000", "0002", "00000000");
        let half = row("eth0", "00000000", "0003", "00000080");
        let network = row("eth0", "0000A8C0", "0001", "00FFFFFF");
        let ours = row("lo", "02AAFEA9", "0005", "FFFFFFFF");
        let link_local = row("eth0", "0000FEA9", "0001", "0000FFFF");
        for (rows, wanted) in [
            (vec![], Need::Missing),
            (vec![&network, &refused, &down, &half, &link_local], Need::Missing),
            (vec![&network, &ours], Need::Met),
            (vec![&default, &ours], Need::None),
            (vec![&network, &default], Need::None),
        ] {
            let text: String = std::iter::once(head).chain(rows.iter().map(|row| row.as_str())).collect();
            assert_eq!(need(&text), wanted, "{text}");
        }
        assert_eq!(need("short\nx y z\n"), Need::Missing);
    }
}
