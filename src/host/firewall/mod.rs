//! The rules of this host's firewall that lead containers to the agent at 169.254.170.2, and guard it.
//!
//! Owns our rules and the kernel's setting `route_localnet`. ecs-init makes such rules before it starts the Go agent (spec
//! `ecs-init.md` §4). The programs named `iptables` and `ip6tables` make them here (`chains`), so they are of the kind that this host
//! uses, legacy or nft. Where there is no `iptables`, the program `nft` makes them (`nft`). `rules` has them as data.
//!
//! Also kept: a route to 169.254.170.2 where the host has none (`route.rs`), and `accept_ra` of the default bridge (`kernel.rs`).
//!
//! Invariants: no other rule is changed, but those that ecs-init has left (`leftovers`), if the caller wants that. `route_localnet` is
//! set after the rule that guards it, and taken back before that rule is removed, or when it cannot be put back. A change of a table
//! happens at once. No interface gets the address 169.254.170.2.

mod chains;
mod kernel;
mod leftovers;
mod nft;
mod part;
mod route;
mod rules;
#[cfg(test)]
mod tests;

pub use part::{FirewallError, Part};
pub use rules::{METADATA_ADDRESS, METADATA_PORT, Settings, USUAL_BRIDGE};

use super::program::{Call, Programs};
use chains::Chains;
use kernel::has_ipv6;
use nft::NftTables;
use part::LIMIT;
use rules::{Family, Tables};
use rustix::thread::{CapabilitySet, capabilities};

/// The result of a check.
#[derive(Debug)]
pub struct Checked {
    /// All parts that stand now.
    pub parts: Vec<Part>,
    /// Parts that do not stand, without which containers reach the agent nevertheless.
    pub failures: Vec<PartFailure>,
}

/// Why a part does not stand.
#[derive(Debug)]
pub struct PartFailure {
    /// The operator has asked for the part, so that its absence is more than a remark.
    pub is_wanted: bool,
    /// What does not work without it, for people.
    pub consequence: &'static str,
    /// Why it does not stand.
    pub error: FirewallError,
}

/// Which programs make the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Iptables { is_legacy: bool },
    Nft,
}

/// The rules, and what is known about them since they were made.
#[derive(Debug, Default)]
pub struct Firewall {
    programs: Programs,
    chains: Chains,
    nft: NftTables,
    /// The rules were made before, by this process or by an earlier one, so `route_localnet` is taken back if they cannot be put back.
    was_made: bool,
}

impl Firewall {
    /// Makes nothing yet. `programs` finds `iptables`.
    pub fn new(programs: Programs) -> Self {
        let (chains, nft) = (Chains::new(programs.clone()), NftTables::new(programs.clone()));
        Self { programs, chains, nft, was_made: false }
    }

    /// Goes on where another process has made the rules.
    pub fn continued(programs: Programs) -> Self {
        Self { was_made: true, ..Self::new(programs) }
    }

    /// Makes what is missing, and returns all parts. A part that is whole is not touched.
    ///
    /// # Errors
    /// [`FirewallError`], for the first part for IPv4 that could not be checked or made. Earlier parts stand.
    pub async fn ensure(&mut self, settings: &Settings) -> Result<Checked, FirewallError> {
        check_right()?;
        let mut failures = Vec::new();
        let mut parts = match self.kind().await? {
            Kind::Iptables { is_legacy } => self.ensure_chains(settings, is_legacy, &mut failures).await?,
            Kind::Nft => self.ensure_nft(settings).await?,
        };
        let route = route::ensure(&self.programs).await.map(Vec::from_iter);
        let advertisements = kernel::ensure_no_advertisements(rules::bridge(settings)).map(Vec::from_iter);
        for (made, consequence) in [
            (route, "this host, and tasks in network mode host, do not reach 169.254.170.2: there is no route"),
            (advertisements, "a container on Docker's default bridge can change the routes of this host over IPv6"),
        ] {
            match made {
                Ok(more) => parts.extend(more),
                Err(error) => failures.push(PartFailure { is_wanted: false, consequence, error }),
            }
        }
        self.was_made = true;
        Ok(Checked { parts, failures })
    }

    /// The guard, `route_localnet`, then the rest.
    async fn ensure_chains(
        &mut self,
        settings: &Settings,
        is_legacy: bool,
        failures: &mut Vec<PartFailure>,
    ) -> Result<Vec<Part>, FirewallError> {
        let Tables { guard, nat, ipv6, metadata: [v4, v6] } = Tables::new(settings);
        let mut parts = match self.chains.ensure(guard.clone()).await {
            Ok(parts) => parts,
            Err(error) => {
                let is_absent = matches!(self.chains.is_entered(&guard, &guard.hooks[0]).await, Ok(false));
                return Err(self.without_guard(error, is_absent));
            }
        };
        parts.push(kernel::ensure_route_localnet()?);
        parts.extend(self.chains.ensure(nat).await?);
        let no_metadata = "containers on Docker's bridges reach the instance metadata service (ECS_BRIDGE_BLOCK_IMDS)";
        let others = [
            (ipv6, "the firewall does not close port 51678 over IPv6; the agent still refuses other hosts", false),
            (v4, no_metadata, settings.block_metadata),
            (v6, no_metadata, settings.block_metadata),
        ];
        for (table, consequence, is_wanted) in others {
            let is_passed_over = !self.chains.may_hold_rules(&table, is_legacy);
            if is_passed_over || (table.family == Family::V6 && !has_ipv6()) {
                continue;
            }
            let is_unused = table.hooks.iter().all(|hook| hook.rules.is_empty());
            match self.chains.ensure(table).await {
                Ok(more) => parts.extend(more),
                // Without the program nothing of ours is there.
                Err(FirewallError::Program(error)) if is_unused && error.is_missing() => {}
                Err(error) => failures.push(PartFailure { is_wanted, consequence, error }),
            }
        }
        if parts.iter().any(|part| part.was_missing) {
            self.nft.remove().await?; // made when there was no `iptables`
        }
        Ok(parts)
    }

    async fn ensure_nft(&mut self, settings: &Settings) -> Result<Vec<Part>, FirewallError> {
        match self.nft.ensure(settings).await {
            Ok(mut parts) => {
                parts.push(kernel::ensure_route_localnet()?);
                Ok(parts)
            }
            Err(error) => {
                let is_absent = self.nft.is_absent().await;
                Err(self.without_guard(error, is_absent))
            }
        }
    }

    /// Takes `route_localnet` back if its guard was removed and cannot be put back. Containers do not reach the agent then; with it,
    /// neighbours would reach every program on 127.0.0.1.
    fn without_guard(&mut self, error: FirewallError, is_absent: bool) -> FirewallError {
        if !(is_absent && self.was_made) {
            return error;
        }
        match kernel::restore_route_localnet() {
            Ok(()) => error,
            Err(second) => FirewallError::Unguarded { error: Box::new(error), second: Box::new(second) },
        }
    }

    async fn kind(&self) -> Result<Kind, FirewallError> {
        let missing = match self.chains.is_legacy().await {
            Ok(is_legacy) => return Ok(Kind::Iptables { is_legacy }),
            Err(FirewallError::Program(error)) if error.is_missing() => error,
            Err(error) => return Err(error),
        };
        let nft = Call { program: "nft", arguments: &["-v"], input: "", limit: LIMIT };
        match self.programs.run(&nft).await {
            Ok(outcome) if outcome.is_success() => Ok(Kind::Nft),
            // A person installs `iptables` rather.
            _ => Err(missing.into()),
        }
    }

    /// Removes the rules that ecs-init has left, once ours stand. Returns how many there were.
    ///
    /// # Errors
    /// [`FirewallError`], for the first rule that could not be removed.
    pub async fn remove_leftovers(&mut self, settings: &Settings) -> Result<usize, FirewallError> {
        match self.kind().await? {
            Kind::Iptables { .. } => leftovers::remove(&self.chains, settings).await,
            Kind::Nft => Ok(0),
        }
    }

    /// Removes the rules and the route, and gives `route_localnet` the value of new interfaces, as ecs-init does. What is missing is
    /// no error.
    ///
    /// # Errors
    /// [`FirewallError`], for the first part that could not be removed. The guard stands as long as `route_localnet` does.
    pub async fn undo(&mut self) -> Result<(), FirewallError> {
        check_right()?;
        self.chains.forget();
        kernel::restore_route_localnet()?;
        self.was_made = false;
        if let Kind::Iptables { is_legacy } = self.kind().await? {
            for table in Tables::all().in_order_of_removal() {
                if !self.chains.is_in_use(&table, is_legacy) || (table.family == Family::V6 && !has_ipv6()) {
                    continue;
                }
                for hook in &table.hooks {
                    match self.chains.remove(&table, hook).await {
                        Err(FirewallError::Program(error)) if table.family == Family::V6 && error.is_missing() => {}
                        removed => removed?,
                    }
                }
            }
        }
        self.nft.remove().await?;
        route::undo(&self.programs).await
    }

    /// The rules, the route and the settings as commands for a shell, for people: with the programs of this host.
    ///
    /// # Errors
    /// Neither `iptables` nor `nft` is installed.
    pub async fn commands_here(&self, settings: &Settings) -> Result<Vec<String>, FirewallError> {
        Ok(match self.kind().await? {
            Kind::Iptables { .. } => commands(settings),
            Kind::Nft => {
                let first = format!("nft -f - <<'END'\n{}END", nft::script(settings));
                let setting = format!("sysctl -w {}=1", rules::ROUTE_LOCALNET);
                [first, setting].into_iter().chain(other_commands(settings)).collect()
            }
        })
    }

    /// The commands that remove the rules, for people.
    ///
    /// # Errors
    /// Neither `iptables` nor `nft` is installed.
    pub async fn undo_commands_here(&self) -> Result<Vec<String>, FirewallError> {
        Ok(match self.kind().await? {
            Kind::Iptables { .. } => rules::undo_commands(),
            Kind::Nft => rules::undo_commands().into_iter().take(1).chain(nft::undo_commands()).collect(),
        }
        .into_iter()
        .chain([route::undo_command()])
        .collect())
    }
}

/// The rules, the route and the settings as commands for a shell, for people: with `iptables`.
pub fn commands(settings: &Settings) -> Vec<String> {
    rules::commands(settings).into_iter().chain(other_commands(settings)).collect()
}

fn other_commands(settings: &Settings) -> [String; 2] {
    [route::command(), format!("sysctl -e -w {}=0", kernel::accept_ra(rules::bridge(settings)))]
}

/// Whether this process may change the firewall.
///
/// # Errors
/// [`FirewallError::NoRight`].
pub fn check_right() -> Result<(), FirewallError> {
    // As a service, the agent has only the first one, for the networks of tasks, and the rules are made by others.
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    let has_right = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    if has_right { Ok(()) } else { Err(FirewallError::NoRight) }
}
