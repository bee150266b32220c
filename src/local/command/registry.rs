//! The options of the embedded ECR: the registry's directory and room in memory, further accounts, the policy of the instance's
//! role. This module owns their forms.

use super::files::read_text;
use crate::Options;
use crate::ecr::names::is_account;
use crate::ecr::policy::Policy;
use crate::ecr::service::MAX_ACCOUNTS;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The last address of loopback that is no broadcast address.
const LAST_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

/// The options, as far as they are given.
#[derive(Debug, Default)]
pub(super) struct Embedded {
    directory: Option<PathBuf>,
    /// In bytes.
    memory: Option<u64>,
    accounts: Vec<String>,
    /// The text of the policy.
    instance_policy: Option<String>,
}

impl Embedded {
    /// The option is one of these.
    pub(super) fn has(option: &str) -> bool {
        ["--registry-dir", "--registry-memory", "--account", "--instance-policy"].contains(&option)
    }

    /// Reads one of the options. The error names the form of its value.
    pub(super) fn read(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "--registry-dir" => self.directory = Some(PathBuf::from(value)),
            "--registry-memory" => self.memory = Some(size(value)?),
            "--account" => self.accounts.extend(accounts(value)?),
            _ => {
                let text = read_text(Path::new(value))?;
                Policy::for_identity(&text).map_err(|problem| format!("{value}: {problem}"))?;
                self.instance_policy = Some(text);
            }
        }
        Ok(())
    }

    /// Puts the options into those of the server. The error names options that do not go together.
    pub(super) fn set(self, options: &mut Options) -> Result<(), String> {
        let is_given = self.directory.is_some() || self.memory.is_some() || !self.accounts.is_empty();
        if options.registry.is_some() && is_given {
            return Err("--registry replaces the embedded registry: give it without --registry-dir, --registry-memory and --account"
                .to_owned());
        }
        if self.directory.is_some() && self.memory.is_some() {
            return Err("--registry-memory is for layers in memory; with --registry-dir they are in files".to_owned());
        }
        let mut known = vec![options.account.as_str()];
        for account in &self.accounts {
            if known.contains(&account.as_str()) {
                return Err(format!("--account {account}: this account is there already"));
            }
            known.push(account);
        }
        if known.len() > MAX_ACCOUNTS {
            return Err(format!("--account: there are at most {} further accounts", MAX_ACCOUNTS - 1));
        }
        if let IpAddr::V4(ip) = options.listen.ip()
            && ip.is_loopback()
            && u64::from(u32::from(ip)) + known.len() as u64 > u64::from(u32::from(LAST_LOOPBACK))
        {
            return Err(format!("--listen {ip}: there are not enough loopback addresses after it for all accounts"));
        }
        options.registry_dir = self.directory;
        options.registry_memory = self.memory.unwrap_or(options.registry_memory);
        options.accounts = self.accounts;
        options.instance_policy = self.instance_policy;
        Ok(())
    }
}

/// The ids in `ID[,ID...]`.
fn accounts(text: &str) -> Result<Vec<String>, String> {
    let ids: Vec<String> = text.split(',').map(str::to_owned).collect();
    match ids.iter().all(|id| is_account(id)) {
        true => Ok(ids),
        false => Err("--account needs ids of 12 digits, as in 333333444444,555555666666".to_owned()),
    }
}

/// A size in bytes, as in `512M` or `4G`.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let shift = match unit.to_ascii_uppercase().as_str() {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => 64,
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1_u64.checked_shl(shift)?));
    size.filter(|size| *size > 0).ok_or_else(|| "--registry-memory needs a size, as in 512M or 4G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!((size("512M"), size("4g"), size("1K")), (Ok(512 << 20), Ok(4 << 30), Ok(1024)));
        for text in ["", "M", "512", "512MB", "-1M", "0G", "1.5G", "99999999999T", "5€"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        let embedded = |accounts: &[&str]| Embedded {
            accounts: accounts.iter().map(|id| (*id).to_owned()).collect(),
            ..Embedded::default()
        };
        let problem = |embedded: Embedded| embedded.set(&mut Options::default()).unwrap_err();
        assert!(problem(embedded(&["123456789012"])).contains("is there already"));
        assert!(problem(embedded(&["333333444444", "333333444444"])).contains("is there already"));
        let both = Embedded { directory: Some("x".into()), memory: Some(1), ..Embedded::default() };
        assert!(problem(both).contains("--registry-memory is for layers in memory"));
        let registry = Some(crate::Registry::new("localhost:5000", "AWS", "x".into()));
        let mut options = Options { registry, ..Options::default() };
        assert!(embedded(&["333333444444"]).set(&mut options).unwrap_err().contains("--registry replaces"));
        let mut options = Options::default();
        embedded(&["333333444444"]).set(&mut options).unwrap();
        assert_eq!(options.accounts, ["333333444444"]);
        assert_eq!(accounts("333333444444,555555666666").map(|ids| ids.len()), Ok(2));
        let mut options = Options { listen: "127.255.255.254:80".parse().unwrap(), ..Options::default() };
        assert!(embedded(&["333333444444"]).set(&mut options).unwrap_err().contains("not enough loopback addresses"));
        assert!(accounts("333333444444,").is_err() && accounts("").is_err());
    }
}
