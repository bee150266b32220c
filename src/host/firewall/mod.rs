//! The rules of this host's firewall that lead containers to the agent at 169.254.170.2, and guard it.
//!
//! Owns the chains named `ECS-AGENT-…` in the tables of `iptables` and `ip6tables`, the rules that enter them, and the kernel's
//! setting `route_localnet`. ecs-init makes such rules before it starts the Go agent (spec `ecs-init.md` §4). The programs named
//! `iptables` and `ip6tables` make them here, so they are of the kind that this host uses, legacy or nft.
//!
//! Also kept: a route to 169.254.170.2 where the host has none (`route.rs`), and `accept_ra` of the default bridge (`kernel.rs`).
//!
//! Invariants: no other rule is changed. `route_localnet` is set after the rule that guards it, and taken back before that rule is
//! removed. A change of a table happens at once. No interface gets the address 169.254.170.2.

mod kernel;
mod part;
mod route;
mod rules;
#[cfg(test)]
mod tests;

pub use part::{FirewallError, Part};
pub use rules::{METADATA_ADDRESS, METADATA_PORT, Settings, USUAL_BRIDGE};

use super::program::{Call, Outcome, Programs};
use kernel::has_ipv6;
use part::{LIMIT, failed};
use rules::{Family, Hook, Name, Table};
use rustix::thread::{CapabilitySet, capabilities};
use std::collections::BTreeMap;

/// How long a call waits for the lock of `iptables`, in seconds.
const LOCK_WAIT_S: &str = "5";
/// How often the same rule is removed, at most.
const MAX_COPIES: usize = 16;

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
    /// What does not work without it, for people.
    pub consequence: &'static str,
    /// Why it does not stand.
    pub error: FirewallError,
}

/// What was made in a table.
#[derive(Debug)]
struct Made {
    /// The rules as they were asked for.
    table: Table,
    /// Each of our chains as the program lists it.
    listed: Vec<Option<String>>,
}

/// The rules, and what is known about them since they were made.
#[derive(Debug, Default)]
pub struct Firewall {
    programs: Programs,
    made: BTreeMap<(Family, &'static str), Made>,
}

impl Firewall {
    /// Makes nothing yet. `programs` finds `iptables`.
    pub fn new(programs: Programs) -> Self {
        Self { programs, made: BTreeMap::new() }
    }

    /// Makes what is missing, and returns all parts. A part that is whole is not touched.
    ///
    /// # Errors
    /// [`FirewallError`], for the first part for IPv4 that could not be checked or made. Earlier parts stand.
    pub async fn ensure(&mut self, settings: &Settings) -> Result<Checked, FirewallError> {
        check_right()?;
        let [guard, nat, ipv6] = rules::tables(settings);
        let mut parts = self.ensure_table(guard).await?;
        parts.push(kernel::ensure_route_localnet()?);
        parts.extend(self.ensure_table(nat).await?);
        let ipv6 = if has_ipv6() { self.ensure_table(ipv6).await } else { Ok(Vec::new()) };
        let route = route::ensure(&self.programs).await.map(Vec::from_iter);
        let advertisements = kernel::ensure_no_advertisements(rules::bridge(settings)).map(Vec::from_iter);
        let mut failures = Vec::new();
        for (made, consequence) in [
            (ipv6, "the firewall does not close port 51678 over IPv6; the agent still refuses other hosts"),
            (route, "this host, and tasks in network mode host, do not reach 169.254.170.2: there is no route"),
            (advertisements, "a container on Docker's default bridge can change the routes of this host over IPv6"),
        ] {
            match made {
                Ok(more) => parts.extend(more),
                Err(error) => failures.push(PartFailure { consequence, error }),
            }
        }
        Ok(Checked { parts, failures })
    }

    async fn ensure_table(&mut self, table: Table) -> Result<Vec<Part>, FirewallError> {
        let key = (table.family, table.name);
        let known = self.made.get(&key).filter(|made| made.table == table);
        let (mut before, mut unentered) = (Vec::new(), Vec::new());
        for hook in &table.hooks {
            before.push(self.listing(&table, hook).await?);
            if !hook.rules.is_empty() && !self.is_entered(&table, hook).await? {
                unentered.push(hook);
            }
        }
        let is_whole = unentered.is_empty() && known.is_some_and(|made| made.listed == before);
        let listed = if is_whole { before.clone() } else { self.make(&table, &unentered).await? };
        let parts = table.hooks.iter().zip(before.iter().zip(&listed)).filter(|(hook, _)| !hook.rules.is_empty());
        let parts = parts.map(|(hook, (before, after))| Part {
            name: Name(&table, hook).to_string(),
            purpose: hook.purpose,
            was_missing: before != after || unentered.contains(&hook),
        });
        let parts = parts.collect();
        self.made.insert(key, Made { table, listed });
        Ok(parts)
    }

    /// Makes our chains of a table, or removes them if they have no rules. Returns them as they are listed.
    async fn make(&self, table: &Table, unentered: &[&Hook]) -> Result<Vec<Option<String>>, FirewallError> {
        let is_needed = table.hooks.iter().any(|hook| !hook.rules.is_empty());
        if is_needed {
            self.restore(table, unentered).await?;
        } else {
            for hook in &table.hooks {
                self.remove(table, hook).await?;
            }
        }
        let mut listed = Vec::new();
        for hook in &table.hooks {
            let listing = self.listing(table, hook).await?;
            // The chain itself is a line, too.
            let lines = listing.as_ref().map_or(0, |text| text.lines().count());
            if is_needed && lines != hook.rules.len() + 1 {
                let (program, restore) = (table.family.program(), table.family.restore_program());
                return Err(FirewallError::Absent { program, restore });
            }
            listed.push(listing);
        }
        Ok(listed)
    }

    async fn restore(&self, table: &Table, unentered: &[&Hook]) -> Result<(), FirewallError> {
        let input = table.restore_text(unentered);
        let arguments = ["-w", LOCK_WAIT_S, "--noflush"];
        let call = Call { program: table.family.restore_program(), arguments: &arguments, input: &input, limit: LIMIT };
        let outcome = self.programs.run(&call).await?;
        if outcome.is_success() { Ok(()) } else { Err(failed(&call, &outcome)) }
    }

    /// The chain as the program lists it; `None`: there is none.
    async fn listing(&self, table: &Table, hook: &Hook) -> Result<Option<String>, FirewallError> {
        let outcome = self.call(table, &["-S", hook.chain]).await?;
        Ok(outcome.map(|outcome| outcome.output))
    }

    async fn is_entered(&self, table: &Table, hook: &Hook) -> Result<bool, FirewallError> {
        let jump = hook.jump();
        let words: Vec<&str> = ["-C", hook.builtin].into_iter().chain(jump.split(' ')).collect();
        Ok(self.call(table, &words).await?.is_some())
    }

    /// Removes the chain and every rule that enters it.
    async fn remove(&self, table: &Table, hook: &Hook) -> Result<(), FirewallError> {
        let jump = hook.jump();
        let words: Vec<&str> = ["-D", hook.builtin].into_iter().chain(jump.split(' ')).collect();
        for _ in 0..MAX_COPIES {
            if self.call(table, &words).await?.is_none() {
                break;
            }
        }
        self.call(table, &["-F", hook.chain]).await?;
        self.call(table, &["-X", hook.chain]).await?;
        Ok(())
    }

    /// Runs the program of the table. `None`: there is no such rule or chain.
    async fn call(&self, table: &Table, words: &[&str]) -> Result<Option<Outcome>, FirewallError> {
        let arguments = [&["-w", LOCK_WAIT_S, "-t", table.name], words].concat();
        let call = Call { program: table.family.program(), arguments: &arguments, input: "", limit: LIMIT };
        let outcome = self.programs.run(&call).await?;
        match outcome.code {
            Some(0) => Ok(Some(outcome)),
            // 1: no such rule; 2: no such chain. All else (3, 4) means that the table could not be read.
            Some(1 | 2) => Ok(None),
            _ => Err(failed(&call, &outcome)),
        }
    }

    /// Removes the rules and the route, and gives `route_localnet` the value of new interfaces, as ecs-init does. What is missing is
    /// no error.
    ///
    /// # Errors
    /// [`FirewallError`], for the first part that could not be removed. The guard stands as long as `route_localnet` does.
    pub async fn undo(&mut self) -> Result<(), FirewallError> {
        check_right()?;
        self.made.clear();
        let [guard, nat, ipv6] = rules::all_tables();
        kernel::restore_route_localnet()?;
        for table in [Some(nat), has_ipv6().then_some(ipv6), Some(guard)].into_iter().flatten() {
            for hook in &table.hooks {
                self.remove(&table, hook).await?;
            }
        }
        route::undo(&self.programs).await
    }
}

/// The rules, the route and the settings as commands for a shell, for people.
pub fn commands(settings: &Settings) -> Vec<String> {
    let advertisements = format!("sysctl -e -w {}=0", kernel::accept_ra(rules::bridge(settings)));
    rules::commands(settings).into_iter().chain([route::command(), advertisements]).collect()
}

/// The commands that remove the rules, for people.
pub fn undo_commands() -> Vec<String> {
    rules::undo_commands().into_iter().chain([route::undo_command()]).collect()
}

/// Whether this process may change the firewall.
///
/// # Errors
/// [`FirewallError::NoRight`].
pub fn check_right() -> Result<(), FirewallError> {
    let has_right = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
    if has_right { Ok(()) } else { Err(FirewallError::NoRight) }
}
