//! The same rules as tables of nftables, for a host that has the program `nft` and no `iptables`.
//!
//! Owns the tables named `ecs-agent`, one for each version of IP. Invariants: both are replaced at once; nothing else of the ruleset is
//! touched. Where `iptables` is installed, its chains are used instead: Docker's rules are of the kind that the host's `iptables` makes,
//! and a person finds ours beside them.

use super::kernel::has_ipv6;
use super::part::{FirewallError, LIMIT, Part, failed};
use super::rules::{
    AWSVPC_BRIDGE, INTROSPECTION_PORT, METADATA_ADDRESS, METADATA_PORT, Settings, bridge, container_interfaces,
};
use crate::host::program::{Call, Outcome, Programs};

/// Our tables: the family, and what it is for.
const TABLES: [(&str, &str); 2] = [
    (
        "ip",
        "containers and this host reach the agent at 169.254.170.2 port 80; other hosts reach no program on 127.0.0.1",
    ),
    ("ip6", "other hosts do not reach port 51678"),
];
const NAME: &str = "ecs-agent";

/// The tables, and what is known about them since they were made.
#[derive(Debug, Default)]
pub(super) struct NftTables {
    programs: Programs,
    made: Option<(Settings, Vec<Option<String>>)>,
}

impl NftTables {
    /// Makes nothing yet.
    pub(super) fn new(programs: Programs) -> Self {
        Self { programs, made: None }
    }

    /// Makes what is missing, and returns all parts.
    pub(super) async fn ensure(&mut self, settings: &Settings) -> Result<Vec<Part>, FirewallError> {
        let before = self.listings().await?;
        let is_whole = self.made.as_ref().is_some_and(|(made, listed)| made == settings && *listed == before);
        let listed = match is_whole {
            true => before.clone(),
            false => {
                self.run(&["-f", "-"], &script(settings)).await?;
                self.listings().await?
            }
        };
        let parts = TABLES.iter().zip(before.iter().zip(&listed)).filter(|(_, (_, after))| after.is_some());
        let parts = parts.map(|((family, purpose), (before, after))| Part {
            name: format!("table {family} {NAME}"),
            purpose,
            was_missing: before != after,
        });
        let parts = parts.collect();
        self.made = Some((settings.clone(), listed));
        Ok(parts)
    }

    /// Removes the tables. That they, or the program, are missing is no error.
    pub(super) async fn remove(&mut self) -> Result<(), FirewallError> {
        self.made = None;
        for (family, _) in TABLES {
            match self.listing(family).await {
                Ok(Some(_)) => self.run(&["delete", "table", family, NAME], "").await.map(|_| ())?,
                Ok(None) => {}
                Err(FirewallError::Program(error)) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the table that guards `route_localnet` is known to be missing.
    pub(super) async fn is_absent(&self) -> bool {
        matches!(self.listing(TABLES[0].0).await, Ok(None))
    }

    async fn listings(&self) -> Result<Vec<Option<String>>, FirewallError> {
        let mut listed = Vec::new();
        for (family, _) in TABLES {
            listed.push(self.listing(family).await?);
        }
        Ok(listed)
    }

    /// The table as the program lists it; `None`: there is none.
    async fn listing(&self, family: &str) -> Result<Option<String>, FirewallError> {
        let arguments = ["list", "table", family, NAME];
        let call = Call { program: "nft", arguments: &arguments, input: "", limit: LIMIT };
        let outcome = self.programs.run(&call).await?;
        match outcome.is_success() {
            true => Ok(Some(outcome.output)),
            false if outcome.error.contains("No such file or directory") => Ok(None),
            false => Err(failed(&call, &outcome)),
        }
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<Outcome, FirewallError> {
        let call = Call { program: "nft", arguments, input, limit: LIMIT };
        let outcome = self.programs.run(&call).await?;
        if outcome.is_success() { Ok(outcome) } else { Err(failed(&call, &outcome)) }
    }
}

/// What `nft -f` reads: it replaces both tables at once.
pub(super) fn script(settings: &Settings) -> String {
    let mut text = replaced("ip", &ipv4(settings));
    if has_ipv6() {
        text += &replaced("ip6", &ipv6(settings));
    }
    text
}

/// The commands that remove the tables, for people.
pub(super) fn undo_commands() -> Vec<String> {
    TABLES.iter().map(|(family, _)| format!("nft delete table {family} {NAME}")).collect()
}

/// Only an existing table can be deleted, so it is made first.
fn replaced(family: &str, chains: &str) -> String {
    format!("table {family} {NAME}\ndelete table {family} {NAME}\ntable {family} {NAME} {{\n{chains}}}\n")
}

/// One chain with its rules; `kind` is empty for a chain that others jump to.
fn chain(name: &str, kind: &str, rules: &[String]) -> String {
    let kind = if kind.is_empty() { String::new() } else { format!("\t\ttype {kind}; policy accept;\n") };
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!("\tchain {name} {{\n{kind}{rules}\t}}\n")
}

/// The names of interfaces as a set; what `iptables` writes as `+` is `*` here.
fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", name.replace('+', "*"))).collect();
    format!("{{ {} }}", names.join(", "))
}

fn ipv4(settings: &Settings) -> String {
    let containers = container_interfaces(settings);
    let to_agent = format!("ip daddr {METADATA_ADDRESS} tcp dport 80");
    // Rules of others for this address may let in anybody, and no rule of ours could keep them from being used.
    let mut early = vec![format!("{to_agent} iifname != {} drop", set(containers.iter().copied().chain(["lo"])))];
    early.extend(no_metadata(settings, "ip daddr 169.254.169.254"));
    let guarded = match settings.localhost_filter {
        true => "ip daddr 127.0.0.0/8".to_owned(),
        false => format!("ip daddr 127.0.0.1 tcp dport {METADATA_PORT}"),
    };
    let mut input = vec![format!("ip saddr != 127.0.0.0/8 {guarded} jump localhost")];
    input.extend(introspection(settings));
    let localhost = ["ct state established,related return", "ct status dnat return", "drop"].map(str::to_owned);
    let prerouting = format!("{to_agent} iifname {} dnat to 127.0.0.1:{METADATA_PORT}", set(containers));
    let output = format!("{to_agent} redirect to :{METADATA_PORT}");
    [
        chain("localhost", "", &localhost),
        chain("input", "filter hook input priority filter - 1", &input),
        chain("early", "filter hook prerouting priority raw", &early),
        chain("prerouting", "nat hook prerouting priority dstnat - 1", &[prerouting]),
        chain("output", "nat hook output priority -101", &[output]),
    ]
    .concat()
}

fn ipv6(settings: &Settings) -> String {
    let early: Vec<String> = no_metadata(settings, "ip6 daddr fd00:ec2::254").into_iter().collect();
    let input = chain("input", "filter hook input priority filter - 1", &introspection(settings));
    input + &chain("early", "filter hook prerouting priority raw", &early)
}

/// Rules 3 and 4 of ecs-init.
fn introspection(settings: &Settings) -> Vec<String> {
    if settings.offhost_introspection {
        return Vec::new();
    }
    let port = format!("tcp dport {INTROSPECTION_PORT}");
    vec![format!("iifname \"{}\" {port} accept", bridge(settings)), format!("iifname != \"lo\" {port} drop")]
}

/// For `ECS_BRIDGE_BLOCK_IMDS`.
fn no_metadata(settings: &Settings, destination: &str) -> Option<String> {
    let bridges = container_interfaces(settings).into_iter().filter(|name| *name != AWSVPC_BRIDGE);
    settings.block_metadata.then(|| format!("{destination} iifname {} drop", set(bridges)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_the_rules_of_ecs_init() {
        let text = ipv4(&Settings::default());
        for rule in [
            "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 jump localhost",
            "iifname \"docker0\" tcp dport 51678 accept",
            "iifname != \"lo\" tcp dport 51678 drop",
            "iifname { \"docker*\", \"br-*\", \"ecs-bridge\" } dnat to 127.0.0.1:51679",
            "ip daddr 169.254.170.2 tcp dport 80 redirect to :51679",
        ] {
            assert!(text.contains(rule), "{rule}: {text}");
        }
        assert!(!text.contains("169.254.169.254"));
        let wanted = Settings {
            localhost_filter: false,
            offhost_introspection: true,
            block_metadata: true,
            ..Settings::default()
        };
        let text = ipv4(&wanted) + &ipv6(&wanted);
        assert!(
            text.contains("ip daddr 127.0.0.1 tcp dport 51679 jump localhost") && !text.contains("51678"),
            "{text}"
        );
        assert_eq!(text.matches("iifname { \"docker*\", \"br-*\" } drop").count(), 2, "{text}");
    }
}
