//! Our rules in chains of our own, made with the programs `iptables` and `ip6tables`.
//!
//! Owns the chains named `ECS-AGENT-…`, and the rules that enter them. Invariants: a table changes at once, so that no packet meets
//! half of it; a table that is whole is not touched, if it is known from an earlier check; no rule of others is changed, but those of
//! ecs-init, and only by [`Chains::remove_rule`].

use super::part::{FirewallError, LIMIT, Part, failed};
use super::rules::{Family, Hook, Name, Table};
use crate::host::program::{Call, Outcome, Programs};
use std::collections::BTreeMap;

/// How long a call waits for the lock of `iptables`, in seconds.
const LOCK_WAIT_S: &str = "5";
/// How often the same rule is removed, at most.
const MAX_COPIES: usize = 16;
/// The tables of the kind legacy that are in use in the network namespace of this thread, by family.
const LEGACY_TABLES: [(Family, &str); 2] =
    [(Family::V4, "/proc/thread-self/net/ip_tables_names"), (Family::V6, "/proc/thread-self/net/ip6_tables_names")];

/// What was made in a table.
#[derive(Debug)]
struct Made {
    /// The rules as they were asked for.
    table: Table,
    /// Each of our chains as the program lists it.
    listed: Vec<Option<String>>,
}

/// The chains, and what is known about them since they were made.
#[derive(Debug, Default)]
pub(super) struct Chains {
    programs: Programs,
    made: BTreeMap<(Family, &'static str), Made>,
}

impl Chains {
    /// Makes nothing yet.
    pub(super) fn new(programs: Programs) -> Self {
        Self { programs, made: BTreeMap::new() }
    }

    /// Forgets what was made.
    pub(super) fn forget(&mut self) {
        self.made.clear();
    }

    /// Whether `iptables` is of the kind legacy.
    pub(super) async fn is_legacy(&self) -> Result<bool, FirewallError> {
        let call = Call { program: "iptables", arguments: &["-V"], input: "", limit: LIMIT };
        let outcome = self.programs.run(&call).await?;
        if outcome.is_success() { Ok(!outcome.output.contains("nf_tables")) } else { Err(failed(&call, &outcome)) }
    }

    /// Whether a table that may hold rules of ours must be looked at.
    pub(super) fn may_hold_rules(&self, table: &Table, is_legacy: bool) -> bool {
        let has_rules = table.hooks.iter().any(|hook| !hook.rules.is_empty());
        has_rules || self.is_in_use(table, is_legacy)
    }

    /// Whether a table is in use. With the kind legacy, looking at it would bring it into use, which costs every packet a little.
    pub(super) fn is_in_use(&self, table: &Table, is_legacy: bool) -> bool {
        let names = LEGACY_TABLES.iter().find(|(family, _)| *family == table.family);
        let names = names.and_then(|(_, path)| std::fs::read_to_string(path).ok()).unwrap_or_default();
        !is_legacy || names.lines().any(|name| name == table.name)
    }

    /// Makes what is missing in a table, and returns its parts.
    pub(super) async fn ensure(&mut self, table: Table) -> Result<Vec<Part>, FirewallError> {
        let key = (table.family, table.name);
        let known = self.made.get(&key).filter(|made| made.table == table);
        let (mut before, mut unentered) = (Vec::new(), Vec::new());
        for hook in &table.hooks {
            before.push(self.listing(&table, hook).await?);
            if !hook.rules.is_empty() && !self.is_entered(&table, hook).await? {
                unentered.push(hook);
            }
        }
        let is_as_made = known.is_some_and(|made| made.listed == before);
        // No process needs to know a table without rules of ours, if there are to be none.
        let is_empty = table.hooks.iter().all(|hook| hook.rules.is_empty()) && before.iter().all(Option::is_none);
        let is_whole = unentered.is_empty() && (is_as_made || is_empty);
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

    pub(super) async fn is_entered(&self, table: &Table, hook: &Hook) -> Result<bool, FirewallError> {
        let jump = hook.jump();
        let words: Vec<&str> = ["-C", hook.builtin].into_iter().chain(jump.split(' ')).collect();
        Ok(self.call(table, &words).await?.is_some())
    }

    /// Removes the chain and every rule that enters it.
    pub(super) async fn remove(&self, table: &Table, hook: &Hook) -> Result<(), FirewallError> {
        let jump = hook.jump();
        let words: Vec<&str> = ["-D", hook.builtin].into_iter().chain(jump.split(' ')).collect();
        self.remove_rule(table, &words).await?;
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

    /// Removes every copy of a rule of others, and returns how many there were.
    pub(super) async fn remove_rule(&self, table: &Table, words: &[&str]) -> Result<usize, FirewallError> {
        for copies in 0..MAX_COPIES {
            if self.call(table, words).await?.is_none() {
                return Ok(copies);
            }
        }
        Ok(MAX_COPIES)
    }
}
