//! Reads an address with the length of its network, such as `10.0.1.1/24`.

use ecs_core::model::Prefix;
use std::net::IpAddr;
use std::str::FromStr;

/// Reads an address, a slash and a number of bits that the address has. `None`: the text has another form.
pub fn prefix<A: FromStr + Copy + Into<IpAddr>>(text: &str) -> Option<Prefix<A>> {
    let (address, bits) = text.split_once('/')?;
    let address: A = address.parse().ok()?;
    let max_bits = if address.into().is_ipv4() { 32 } else { 128 };
    let is_number = bits.bytes().all(|byte| byte.is_ascii_digit());
    let length = bits.parse::<u8>().ok().filter(|length| is_number && *length <= max_bits)?;
    Some(Prefix { address, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn an_address_has_a_length_that_fits_it() {
        let ipv4 = |text| prefix::<Ipv4Addr>(text).map(|prefix| prefix.to_string());
        for text in ["10.0.1.1/24", "0.0.0.0/0", "10.0.1.1/32"] {
            assert_eq!(ipv4(text).as_deref(), Some(text));
        }
        for text in
            ["", "/", "10.0.1.1", "10.0.1.1/", "10.0.1.1/33", "10.0.1.1/+8", "10.0.1.1/24/24", "10.0.1/24", "::1/64"]
        {
            assert_eq!(ipv4(text), None, "{text}");
        }
        let ipv6 = |text| prefix::<Ipv6Addr>(text).map(|prefix| prefix.to_string());
        assert_eq!(ipv6("FD00::1/128").as_deref(), Some("fd00::1/128"));
        assert_eq!((ipv6("fd00::1/129"), ipv6("10.0.0.1/8")), (None, None));
        assert_eq!(prefix::<IpAddr>("fd00::/8").map(|prefix| prefix.length), Some(8));
    }
}
