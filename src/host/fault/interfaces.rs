//! The interfaces of the host's default routes, from the kernel's lists of routes. Reading these files waits for nothing.

use ecs_core::model::fault::Interfaces;
use std::io::{self, ErrorKind};

/// The routes of IPv4 and of IPv6 in the agent's network namespace.
const FILES: [&str; 2] = ["/proc/self/net/route", "/proc/self/net/ipv6_route"];
/// A route that has a gateway, and one that refuses packets.
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;

/// The interfaces of the default routes of IPv4 and IPv6 with the lowest metrics. There may be none.
///
/// # Errors
/// The kernel does not show its routes.
pub fn defaults() -> io::Result<Interfaces> {
    let v4 = std::fs::read_to_string(FILES[0])?;
    // A kernel without IPv6 has no such file.
    let v6 = std::fs::read_to_string(FILES[1]).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(String::new()),
        _ => Err(error),
    })?;
    Ok(from_routes(&v4, &v6))
}

/// A default route. Compat: like the Go agent, only one with a gateway counts.
struct DefaultRoute<'a> {
    interface: &'a str,
    metric: u32,
}

fn from_routes(v4: &str, v6: &str) -> Interfaces {
    let best = |routes: &mut dyn Iterator<Item = DefaultRoute<'_>>| {
        // Of equal metrics, the first one counts.
        routes.min_by_key(|route| route.metric).map(|route| route.interface.to_owned())
    };
    let first = best(&mut v4.lines().filter_map(default_v4));
    let second = best(&mut v6.lines().filter_map(default_v6)).filter(|name| Some(name) != first.as_ref());
    let names: Vec<String> = first.into_iter().chain(second).collect();
    // An interface with an IPv4 address has a route to its own network.
    let has_ipv4 = |name: &str| v4.lines().any(|line| line.split_whitespace().next() == Some(name));
    let ipv6_only = names.len() == 1 && !has_ipv4(&names[0]);
    Interfaces { names, ipv6_only }
}

/// Columns: interface, destination, gateway, flags, two counters, metric, mask.
fn default_v4(line: &str) -> Option<DefaultRoute<'_>> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, metric, mask, ..] = columns[..] else { return None };
    let is_default = destination == "00000000" && mask == "00000000" && is_used(flags);
    is_default.then(|| Some(DefaultRoute { interface, metric: metric.parse().ok()? }))?
}

/// Columns: destination, its length, source, its length, gateway, metric, two counters, flags, interface.
fn default_v6(line: &str) -> Option<DefaultRoute<'_>> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, _, _, _, metric, _, _, flags, interface] = columns[..] else { return None };
    let is_default = destination.bytes().all(|digit| digit == b'0') && length == "00" && is_used(flags);
    is_default.then(|| Some(DefaultRoute { interface, metric: u32::from_str_radix(metric, 16).ok()? }))?
}

fn is_used(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & GATEWAY != 0 && flags & REJECT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0101A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
";

    fn v6(interface: &str, metric: &str, flags: &str) -> String {
        let zero = "0".repeat(32);
        format!("{zero} 00 {zero} 00 fe800000000000000000000000000001 {metric} 00000001 00000000 {flags} {interface}\n")
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        for (v6, wanted) in [
            (String::new(), vec!["eth0"]),
            (v6("eth0", "00000400", "00000003"), vec!["eth0"]),
            (v6("eth2", "00000400", "00000003") + &v6("eth3", "00000064", "00000003"), vec!["eth0", "eth3"]),
            (v6("lo", "ffffffff", "00200200"), vec!["eth0"]),
        ] {
            let found = from_routes(V4, &v6);
            assert_eq!((found.names, found.ipv6_only), (wanted.iter().map(ToString::to_string).collect(), false));
        }
    }

    #[test]
    fn an_interface_without_ipv4_is_known_as_such() {
        let header = V4.lines().next().unwrap();
        let v6 = v6("eth7", "00000400", "00000003");
        let names = |v4: &str| {
            let found = from_routes(v4, &v6);
            (found.names.join(","), found.ipv6_only)
        };
        assert_eq!(names(header), ("eth7".to_owned(), true));
        let with_network = format!("{header}\neth7\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n");
        assert_eq!(names(&with_network), ("eth7".to_owned(), false));
        assert_eq!(from_routes("", ""), Interfaces::default());
    }

    #[test]
    fn this_machine_shows_its_routes() {
        assert!(defaults().is_ok_and(|found| found.names.len() <= 2));
    }
}
