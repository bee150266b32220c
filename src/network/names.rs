//! Names and hardware addresses of links.

use ecs_core::model::interface::MacAddress;
use ecs_netlink::Mac;
use std::net::Ipv4Addr;

/// The name on the host of an interface that comes back from a task. It is unique, because the hardware address is.
pub(super) fn host_name(mac: MacAddress) -> String {
    format!("ecs{}", mac.to_string().replace(':', ""))
}

/// The name of the host's end. It is unique, because the task's address is.
pub(super) fn port(local: Ipv4Addr) -> String {
    format!("veth{:08x}", u32::from(local))
}

/// The hardware address of an end, by which people know whose it is.
pub(super) fn mac(local: Ipv4Addr) -> Mac {
    let [a, b, c, d] = local.octets();
    [0x0a, 0x58, a, b, c, d]
}
