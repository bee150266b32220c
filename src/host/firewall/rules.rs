//! The rules as data: what they match, where they hook in, and their text for `iptables` and `iptables-restore`.
//!
//! Pure: it makes text. Every rule is in a chain of our own, and every chain is entered by one rule at the beginning of a built-in
//! chain. So our rules are found, replaced at once and removed without touching any other rule. They are those of ecs-init (spec
//! `ecs-init.md` §4), with two differences that are stated at their place, and those of `ECS_BRIDGE_BLOCK_IMDS`.

use ecs_core::model::Bridges;
use std::fmt;

/// The port of the agent's server for credentials and task metadata, on 127.0.0.1.
pub const METADATA_PORT: u16 = 51679;
/// The introspection port.
pub(super) const INTROSPECTION_PORT: u16 = 51678;
/// The address at which containers expect the server; no interface has it.
pub const METADATA_ADDRESS: &str = "169.254.170.2";
/// The setting of the kernel that lets packets from other interfaces reach 127.0.0.0/8.
pub(super) const ROUTE_LOCALNET: &str = "net.ipv4.conf.all.route_localnet";
/// The value that [`ROUTE_LOCALNET`] gets back, as ecs-init does it.
pub(super) const ROUTE_LOCALNET_DEFAULT: &str = "net.ipv4.conf.default.route_localnet";
/// Interfaces on which only containers are: the bridges of Docker's networks (`docker0`, `docker_gwbridge`, `br-…`), and that of
/// tasks in network mode `awsvpc`. A `+` at the end stands for any characters.
const CONTAINER_INTERFACES: [&str; 3] = ["docker+", "br-+", AWSVPC_BRIDGE];
/// The bridge of tasks in network mode `awsvpc`.
pub(super) const AWSVPC_BRIDGE: &str = "ecs-bridge";
/// What is sent to the instance metadata service.
const TO_INSTANCE_METADATA: [(Family, &str); 2] =
    [(Family::V4, "-d 169.254.169.254/32"), (Family::V6, "-d fd00:ec2::254/128")];
/// The default bridge, as long as Docker has not given another name.
pub const USUAL_BRIDGE: &str = "docker0";
/// Upper limit of an interface's name, in bytes: that of the kernel.
const MAX_INTERFACE: usize = 15;

/// What the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Packets from other hosts to 127.0.0.0/8 are dropped. False: only those to the metadata port.
    pub localhost_filter: bool,
    /// The introspection port is open to everybody.
    pub offhost_introspection: bool,
    /// Containers on Docker's bridges do not reach the instance metadata service.
    pub block_metadata: bool,
    /// Docker's bridges. Other machines are not behind the named ones.
    pub bridges: Bridges,
}

impl Default for Settings {
    /// As where the operator has set nothing.
    fn default() -> Self {
        Self {
            localhost_filter: true,
            offhost_introspection: false,
            block_metadata: false,
            bridges: Bridges::default(),
        }
    }
}

/// The version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn program(self) -> &'static str {
        if self == Self::V4 { "iptables" } else { "ip6tables" }
    }

    pub(super) fn restore_program(self) -> &'static str {
        if self == Self::V4 { "iptables-restore" } else { "ip6tables-restore" }
    }
}

/// A table of the firewall, with our part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: &'static str,
    pub(super) hooks: Vec<Hook>,
}

/// A chain of our own, and the rule of a built-in chain that enters it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) builtin: &'static str,
    pub(super) chain: &'static str,
    /// Which packets enter the chain; empty: all.
    pub(super) packets: &'static str,
    /// The rules of the chain, in order; none: the chain is not needed.
    pub(super) rules: Vec<String>,
    /// What the rules are for, for people.
    pub(super) purpose: &'static str,
}

impl Hook {
    /// The rule that enters the chain, without the name of the built-in chain.
    pub(super) fn jump(&self) -> String {
        format!("{} -j {}", self.packets, self.chain).trim_start().to_owned()
    }
}

/// The name of a hook for people.
#[derive(Clone, Copy)]
pub(super) struct Name<'a>(pub(super) &'a Table, pub(super) &'a Hook);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.0.family == Family::V6 { " (IPv6)" } else { "" };
        write!(f, "{} {}{version}", self.0.name, self.1.builtin)
    }
}

impl Table {
    /// What `iptables-restore --noflush` reads. It replaces each of our chains as a whole, and enters those that are `unentered`.
    /// All of this happens at once, so that no packet meets half of it.
    pub(super) fn restore_text(&self, unentered: &[&Hook]) -> String {
        let chains = self.hooks.iter().map(|hook| format!(":{} - [0:0]", hook.chain));
        let jumps = unentered.iter().map(|hook| format!("-I {} {}", hook.builtin, hook.jump()));
        let rules =
            self.hooks.iter().flat_map(|hook| hook.rules.iter().map(|rule| format!("-A {} {rule}", hook.chain)));
        let lines: Vec<String> = chains.chain(jumps).chain(rules).collect();
        format!("*{}\n{}\nCOMMIT\n", self.name, lines.join("\n"))
    }

    fn commands(&self) -> Vec<String> {
        let lines = self.hooks.iter().filter(|hook| !hook.rules.is_empty()).flat_map(|hook| {
            let rules = hook.rules.iter().map(|rule| format!("-A {} {rule}", hook.chain));
            let first = std::iter::once(format!("-N {}", hook.chain));
            first.chain(rules).chain([format!("-I {} {}", hook.builtin, hook.jump())])
        });
        lines.map(|line| format!("{} -w -t {} {line}", self.family.program(), self.name)).collect()
    }
}

/// The tables with our part of each.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// The guard of [`ROUTE_LOCALNET`]: made before that is set, and removed after it is taken back.
    pub(super) guard: Table,
    /// Leads containers to the agent.
    pub(super) nat: Table,
    /// Closes the introspection port over IPv6.
    pub(super) ipv6: Table,
    /// Keep containers from the instance metadata service, over IPv4 and IPv6.
    pub(super) metadata: [Table; 2],
}

impl Tables {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            guard: Table { family: Family::V4, name: "filter", hooks: vec![input(Family::V4, settings)] },
            nat: Table { family: Family::V4, name: "nat", hooks: vec![prerouting(settings), output()] },
            ipv6: Table { family: Family::V6, name: "filter", hooks: vec![input(Family::V6, settings)] },
            metadata: TO_INSTANCE_METADATA.map(|(family, packets)| Table {
                family,
                name: "raw",
                hooks: vec![metadata(packets, settings)],
            }),
        }
    }

    /// The tables with every chain that the agent may have made.
    pub(super) fn all() -> Self {
        Self::new(&Settings { block_metadata: true, ..Settings::default() })
    }

    /// All of them, in the order in which they are removed.
    pub(super) fn in_order_of_removal(self) -> Vec<Table> {
        let Self { guard, nat, ipv6, metadata: [v4, v6] } = self;
        vec![nat, ipv6, v4, v6, guard]
    }
}

/// The commands that remove everything, for people.
pub(super) fn undo_commands() -> Vec<String> {
    let lines = Tables::all().in_order_of_removal().into_iter().flat_map(|table| {
        let lines = table.hooks.iter().flat_map(|hook| {
            [format!("-D {} {}", hook.builtin, hook.jump()), format!("-F {}", hook.chain), format!("-X {}", hook.chain)]
        });
        lines.map(|line| format!("{} -w -t {} {line}", table.family.program(), table.name)).collect::<Vec<_>>()
    });
    let setting = format!("sysctl -w {ROUTE_LOCALNET}=$(sysctl -n {ROUTE_LOCALNET_DEFAULT})");
    std::iter::once(setting).chain(lines).collect()
}

/// The same as commands for a shell, for people.
pub(super) fn commands(settings: &Settings) -> Vec<String> {
    let Tables { guard, nat, ipv6, metadata } = Tables::new(settings);
    let setting = std::iter::once(format!("sysctl -w {ROUTE_LOCALNET}=1"));
    let others = [nat, ipv6].into_iter().chain(metadata);
    guard.commands().into_iter().chain(setting).chain(others.flat_map(|table| table.commands())).collect()
}

/// Rules 2, 3 and 4 of ecs-init.
fn input(family: Family, settings: &Settings) -> Hook {
    let mut rules = Vec::new();
    if family == Family::V4 {
        // Without it, ROUTE_LOCALNET would open all programs that listen on 127.0.0.1 to neighbours. ecs-init has no guard at all
        // without the filter; here the port with the credentials is guarded all the same.
        let (to, port) = match settings.localhost_filter {
            true => ("127.0.0.0/8", String::new()),
            false => ("127.0.0.1/32", format!("-p tcp --dport {METADATA_PORT} ")),
        };
        rules.push(format!("! -s 127.0.0.0/8 -d {to} {port}-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"));
    }
    if !settings.offhost_introspection {
        let bridge = bridge(settings);
        rules.push(format!("-i {bridge} -p tcp --dport {INTROSPECTION_PORT} -j ACCEPT"));
        rules.push(format!("! -i lo -p tcp --dport {INTROSPECTION_PORT} -j DROP"));
    }
    let purpose = match (family, settings.localhost_filter) {
        (Family::V4, true) => "other hosts reach no program that listens on 127.0.0.1, and not port 51678",
        (Family::V4, false) => "other hosts do not reach port 51679 on 127.0.0.1, and not port 51678",
        (Family::V6, _) => "other hosts do not reach port 51678",
    };
    Hook { builtin: "INPUT", chain: "ECS-AGENT-INPUT", packets: "", rules, purpose }
}

/// Rule 1 of ecs-init. There it names no interface, so a neighbour that routes the address through this host reaches the server.
/// Here only packets from containers are let in; the last rule keeps such a rule of others from being used.
fn prerouting(settings: &Settings) -> Hook {
    let to_agent = container_interfaces(settings)
        .into_iter()
        .map(|name| format!("-i {name} -p tcp -j DNAT --to-destination 127.0.0.1:{METADATA_PORT}"));
    Hook {
        builtin: "PREROUTING",
        chain: "ECS-AGENT-PREROUTING",
        packets: "-d 169.254.170.2/32 -p tcp --dport 80",
        rules: to_agent.chain(["-j ACCEPT".to_owned()]).collect(),
        purpose: "what containers send to 169.254.170.2 port 80 reaches the agent; what others send there does not",
    }
}

/// Rule 5 of ecs-init: for processes of this host, and containers on its network.
fn output() -> Hook {
    Hook {
        builtin: "OUTPUT",
        chain: "ECS-AGENT-OUTPUT",
        packets: "-d 169.254.170.2/32 -p tcp --dport 80",
        rules: vec![format!("-p tcp -j REDIRECT --to-ports {METADATA_PORT}")],
        purpose: "what this host, and containers on its network, send to 169.254.170.2 port 80 reaches the agent",
    }
}

/// For `ECS_BRIDGE_BLOCK_IMDS`: ecs-init has no such rule; AWS recommends to make it by hand. The table `raw` comes first, so Docker's rules,
/// which let containers out, cannot get before it. Tasks in network mode `awsvpc` have a setting of their own.
fn metadata(packets: &'static str, settings: &Settings) -> Hook {
    let interfaces = container_interfaces(settings).into_iter().filter(|name| *name != AWSVPC_BRIDGE);
    Hook {
        builtin: "PREROUTING",
        chain: "ECS-AGENT-IMDS",
        packets,
        rules: interfaces.filter(|_| settings.block_metadata).map(|name| format!("-i {name} -j DROP")).collect(),
        purpose: "containers on Docker's bridges do not reach the instance metadata service",
    }
}

/// The interfaces on which only containers are; a `+` at the end stands for any characters.
pub(super) fn container_interfaces(settings: &Settings) -> Vec<&str> {
    let own = settings.bridges.default.iter().chain(&settings.bridges.named).map(String::as_str);
    let is_covered = |name: &&str| CONTAINER_INTERFACES.into_iter().any(|pattern| covers(pattern, name));
    own.filter(|name| is_plain(name) && !is_covered(name)).chain(CONTAINER_INTERFACES).collect()
}

/// The name of the default bridge, or its usual name.
pub(super) fn bridge(settings: &Settings) -> &str {
    settings.bridges.default.as_deref().filter(|name| is_plain(name)).unwrap_or(USUAL_BRIDGE)
}

/// Whether the name of an interface can stand in a rule: a `+` would stand for other interfaces, too.
fn is_plain(name: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
    !name.is_empty() && name.len() <= MAX_INTERFACE && name.chars().all(is_usual) && !name.starts_with('-')
}

/// Whether the pattern of an interface includes this name.
fn covers(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('+').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(localhost_filter: bool, offhost_introspection: bool, bridge: Option<&str>) -> Settings {
        let bridges = Bridges { default: bridge.map(str::to_owned), ..Bridges::default() };
        Settings { localhost_filter, offhost_introspection, bridges, ..Settings::default() }
    }

    fn rules(settings: &Settings) -> [Vec<String>; 4] {
        let Tables { guard, nat, ipv6, .. } = Tables::new(settings);
        [&guard.hooks[0], &nat.hooks[0], &nat.hooks[1], &ipv6.hooks[0]].map(|hook| hook.rules.clone())
    }

    /// Rules 1 to 5 of spec `ecs-init.md` §4.
    #[test]
    fn the_rules_are_those_of_ecs_init() {
        let [guard, prerouting, output, ipv6] = rules(&settings(true, false, Some("docker0")));
        let introspection = ["-i docker0 -p tcp --dport 51678 -j ACCEPT", "! -i lo -p tcp --dport 51678 -j DROP"];
        let filter = "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        assert_eq!(guard, [&[filter][..], &introspection].concat());
        assert_eq!(ipv6, introspection);
        assert_eq!(prerouting[0], "-i docker+ -p tcp -j DNAT --to-destination 127.0.0.1:51679");
        assert_eq!(prerouting.last().unwrap(), "-j ACCEPT");
        assert_eq!(output, ["-p tcp -j REDIRECT --to-ports 51679"]);
    }

    #[test]
    fn variables_of_ecs_init_leave_rules_out() {
        let [guard, _, _, ipv6] = rules(&settings(true, true, None));
        assert_eq!((guard.len(), ipv6.len()), (1, 0), "{guard:?}");
        let [guard, ..] = rules(&settings(false, true, None));
        let only_our_port = "! -s 127.0.0.0/8 -d 127.0.0.1/32 -p tcp --dport 51679 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        assert_eq!(guard, [only_our_port]);
    }

    #[test]
    fn a_bridge_of_another_name_is_let_in_by_its_name() {
        for (bridge, added) in [
            (Some("ecsbr0"), Some("ecsbr0")),
            (Some("docker1"), None),
            (Some("br-lan"), None),
            (Some("ecs-bridge2"), Some("ecs-bridge2")),
            (Some("eth+"), None),
            (Some("a b"), None),
            (Some("-j"), None),
            (Some("a-name-too-long-"), None),
            (Some(""), None),
            (None, None),
        ] {
            let [guard, prerouting, ..] = rules(&settings(true, false, bridge));
            assert_eq!(prerouting.len(), 4 + usize::from(added.is_some()), "{bridge:?}");
            if let Some(added) = added {
                assert_eq!(prerouting[0], format!("-i {added} -p tcp -j DNAT --to-destination 127.0.0.1:51679"));
                assert_eq!(guard[1], format!("-i {added} -p tcp --dport 51678 -j ACCEPT"));
            }
        }
    }

    #[test]
    fn bridges_of_other_networks_are_let_in_by_their_names() {
        let named = ["weird0", "docker_gwbridge", "br-mine", "eth+", "-j"].map(str::to_owned).into();
        let bridges = Bridges { default: Some("docker0".to_owned()), named };
        let [guard, prerouting, _, ipv6] = rules(&Settings { bridges, ..settings(true, false, None) });
        assert_eq!(prerouting[0], "-i weird0 -p tcp -j DNAT --to-destination 127.0.0.1:51679");
        assert_eq!(prerouting.len(), 5, "{prerouting:?}");
        // Port 51678 serves the default bridge only.
        assert!(!guard.concat().contains("weird0") && !ipv6.concat().contains("weird0"), "{guard:?}");
    }

    #[test]
    fn instance_metadata_is_kept_from_bridges_if_that_is_wanted() {
        let named = ["weird0", "eth+"].map(str::to_owned).into();
        let bridges = Bridges { default: Some("docker0".to_owned()), named };
        let wanted = Settings { block_metadata: true, bridges, ..Settings::default() };
        for table in Tables::new(&wanted).metadata {
            assert_eq!(table.hooks[0].rules, ["-i weird0 -j DROP", "-i docker+ -j DROP", "-i br-+ -j DROP"]);
        }
        let tables = Tables::new(&Settings { block_metadata: false, ..wanted });
        assert!(tables.metadata.iter().all(|table| table.hooks[0].rules.is_empty()));
    }

    #[test]
    fn a_restore_replaces_our_chains_and_nothing_else() {
        let nat = Tables::new(&settings(true, false, None)).nat;
        let text = nat.restore_text(&[&nat.hooks[1]]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["*nat", ":ECS-AGENT-PREROUTING - [0:0]", ":ECS-AGENT-OUTPUT - [0:0]"]);
        assert_eq!(lines[3], "-I OUTPUT -d 169.254.170.2/32 -p tcp --dport 80 -j ECS-AGENT-OUTPUT");
        assert!(lines[4..lines.len() - 1].iter().all(|line| line.starts_with("-A ECS-AGENT-")), "{text}");
        assert!(text.ends_with("\nCOMMIT\n"));
    }
}
