//! Settings of the kernel: `route_localnet` (spec `ecs-init.md` §4), and `accept_ra` of Docker's default bridge, which ecs-init sets
//! before it starts the Go agent.

use super::part::{FirewallError, Part};
use super::rules::{ROUTE_LOCALNET, ROUTE_LOCALNET_DEFAULT};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const PROC_SYS: &str = "/proc/sys";

/// Whether the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new(PROC_SYS).join("net/ipv6").exists()
}

/// The file of a setting. The name of an interface in it may hold a dot, so only the dots before it are separators.
fn file(name: &str, interface: Option<&str>) -> PathBuf {
    let path = name.replace('.', "/");
    Path::new(PROC_SYS).join(interface.map_or(path.clone(), |interface| path.replace("{}", interface)))
}

fn failed(name: &str, error: std::io::Error) -> FirewallError {
    FirewallError::Setting { name: name.to_owned(), error }
}

pub(super) fn route_localnet(name: &str) -> Result<String, FirewallError> {
    let text = std::fs::read_to_string(file(name, None)).map_err(|error| failed(name, error))?;
    Ok(text.trim().to_owned())
}

fn set_route_localnet(value: &str) -> Result<(), FirewallError> {
    if route_localnet(ROUTE_LOCALNET)? == value {
        return Ok(()); // it may be read-only
    }
    std::fs::write(file(ROUTE_LOCALNET, None), value).map_err(|error| failed(ROUTE_LOCALNET, error))
}

pub(super) fn ensure_route_localnet() -> Result<Part, FirewallError> {
    let was_missing = route_localnet(ROUTE_LOCALNET)? != "1";
    set_route_localnet("1")?;
    let purpose = "packets from containers may reach 127.0.0.1";
    Ok(Part { name: ROUTE_LOCALNET.to_owned(), purpose, was_missing })
}

/// Gives `route_localnet` the value of new interfaces, as ecs-init does.
pub(super) fn restore_route_localnet() -> Result<(), FirewallError> {
    set_route_localnet(&route_localnet(ROUTE_LOCALNET_DEFAULT)?)
}

/// The setting by which a bridge takes routes from its neighbours; `{}` is the bridge.
const ACCEPT_RA: &str = "net.ipv6.conf.{}.accept_ra";

/// The name of the setting of this bridge, as for `sysctl`.
pub(super) fn accept_ra(bridge: &str) -> String {
    ACCEPT_RA.replace("{}", bridge)
}

/// Keeps containers from giving this host routes by router advertisements. `None`: there is no such bridge, or no IPv6. The setting
/// is not taken back, as by ecs-init.
pub(super) fn ensure_no_advertisements(bridge: &str) -> Result<Option<Part>, FirewallError> {
    let (name, file) = (accept_ra(bridge), file(ACCEPT_RA, Some(bridge)));
    let value = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| failed(&name, error))?,
    };
    let was_missing = value.trim() != "0";
    if was_missing {
        std::fs::write(&file, "0").map_err(|error| failed(&name, error))?;
    }
    Ok(Some(Part { name, purpose: "containers cannot change the routes of this host over IPv6", was_missing }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_may_have_a_dot_in_its_name() {
        assert_eq!(file(ROUTE_LOCALNET, None), Path::new("/proc/sys/net/ipv4/conf/all/route_localnet"));
        assert_eq!(file(ACCEPT_RA, Some("br.7")), Path::new("/proc/sys/net/ipv6/conf/br.7/accept_ra"));
        assert_eq!(accept_ra("docker0"), "net.ipv6.conf.docker0.accept_ra");
        assert!(ensure_no_advertisements("no-such-bridge").unwrap().is_none());
    }
}
