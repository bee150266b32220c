//! The rules that ecs-init has made for the Go agent, and left: it removes them when its service stops, but not after a crash, and one
//! that starts again makes them once more.
//!
//! They are known by their whole text (spec `ecs-init.md` §4). Beside ours they are not used. Invariant: a rule that differs in any
//! word is somebody else's, and stays.

use super::chains::Chains;
use super::kernel::has_ipv6;
use super::part::FirewallError;
use super::rules::{Family, Settings, Table, bridge};

/// The rules of ecs-init: version of IP, table, built-in chain, and what it matches and does. `BRIDGE` is the default bridge.
#[rustfmt::skip]
const RULES: [(Family, &str, &str, &str); 7] = [
    (Family::V4, "nat", "PREROUTING", "-p tcp -d 169.254.170.2 --dport 80 -j DNAT --to-destination 127.0.0.1:51679"),
    (Family::V4, "nat", "OUTPUT", "-p tcp -d 169.254.170.2 --dport 80 -j REDIRECT --to-ports 51679"),
    (Family::V4, "filter", "INPUT", "--dst 127.0.0.0/8 ! --src 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"),
    (Family::V4, "filter", "INPUT", "-p tcp --dport 51678 ! -i lo -j DROP"),
    (Family::V4, "filter", "INPUT", "-p tcp --dport 51678 -i BRIDGE -j ACCEPT"),
    (Family::V6, "filter", "INPUT", "-p tcp --dport 51678 ! -i lo -j DROP"),
    (Family::V6, "filter", "INPUT", "-p tcp --dport 51678 -i BRIDGE -j ACCEPT"),
];

/// Removes every copy of these rules, and returns how many there were. Ours must stand already.
pub(super) async fn remove(chains: &Chains, settings: &Settings) -> Result<usize, FirewallError> {
    let mut removed = 0;
    for (family, name, builtin, rule) in RULES {
        if family == Family::V6 && !has_ipv6() {
            continue;
        }
        let table = Table { family, name, hooks: Vec::new() };
        let rule = rule.replace("BRIDGE", bridge(settings));
        let words: Vec<&str> = ["-D", builtin].into_iter().chain(rule.split(' ')).collect();
        removed += chains.remove_rule(&table, &words).await?;
    }
    Ok(removed)
}
