//! The choice of a proxy for a request (spec `config.md` §2.6).
//!
//! Owns the rules of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; the caller supplies their values. It opens no connection. The
//! invariant: a loopback host is never proxied, whatever the settings say.

use ecs_core::model::Secret;
use std::net::IpAddr;
use url::{Host, Url};

/// Addresses that are reached directly if the operator set no `NO_PROXY`: IMDS and the container credentials endpoint.
const DEFAULT_DIRECT: &str = "169.254.169.254,169.254.170.2";

/// The proxies that the operator configured. The addresses may contain a password, hence `Secret`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// `HTTP_PROXY`; `None` if it is not set.
    pub http: Option<Secret>,
    /// `HTTPS_PROXY`; `None` if it is not set: then `http` is used for https, too.
    pub https: Option<Secret>,
    /// `NO_PROXY`: a comma-separated list of addresses, networks and domains, each with an optional port, or `*`.
    pub no_proxy: String,
}

impl ProxySettings {
    /// The proxy for this address; `None`: connect directly. `ws` counts as `http`, `wss` as `https`.
    pub fn for_url(&self, url: &Url) -> Option<&Secret> {
        let chosen = match url.scheme() {
            "https" | "wss" => self.https.as_ref().or(self.http.as_ref()),
            _ => self.http.as_ref(),
        };
        chosen.filter(|proxy| !proxy.is_empty() && !self.is_direct(url))
    }

    fn is_direct(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return true };
        if is_loopback(&host) {
            return true;
        }
        let list = if self.no_proxy.trim().is_empty() { DEFAULT_DIRECT } else { &self.no_proxy };
        let port = url.port_or_known_default();
        list.split(',').map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| matches(rule, &host, port))
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

fn matches(rule: &str, host: &Host<&str>, port: Option<u16>) -> bool {
    if rule == "*" {
        return true;
    }
    let (name, rule_port) = split_port(rule);
    if rule_port.is_some() && rule_port != port {
        return false;
    }
    match host {
        Host::Domain(domain) => matches_domain(name, domain),
        Host::Ipv4(ip) => matches_ip(name, IpAddr::V4(*ip)),
        Host::Ipv6(ip) => matches_ip(name, IpAddr::V6(*ip)),
    }
}

/// Splits off `:port`. A bare IPv6 address stays whole, and `[::1]:80` loses its brackets.
fn split_port(rule: &str) -> (&str, Option<u16>) {
    if rule.parse::<IpAddr>().is_ok() {
        return (rule, None);
    }
    let (name, port) = match rule.rsplit_once(':').map(|(name, port)| (name, port.parse().ok())) {
        Some((name, Some(port))) => (name, Some(port)),
        Some((_, None)) | None => (rule, None),
    };
    (name.trim_start_matches('[').trim_end_matches(']'), port)
}

fn matches_domain(rule: &str, domain: &str) -> bool {
    let (rule, domain) = (rule.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let suffix = rule.trim_start_matches('*');
    match suffix.strip_prefix('.') {
        Some(_) => domain.ends_with(suffix),
        None => domain == suffix || domain.strip_suffix(suffix).is_some_and(|front| front.ends_with('.')),
    }
}

fn matches_ip(rule: &str, ip: IpAddr) -> bool {
    let Some((network, bits)) = rule.split_once('/') else {
        return rule.parse() == Ok(ip);
    };
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (network.parse(), ip) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(ip)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(network) & mask == u32::from(ip) & mask
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(ip)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(network) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(settings: &ProxySettings, url: &str) -> Option<String> {
        settings.for_url(&Url::parse(url).unwrap()).map(|proxy| proxy.expose().to_owned())
    }

    #[test]
    fn https_falls_back_to_the_http_proxy() {
        let only_http = ProxySettings { http: Some("http://p:1".into()), ..ProxySettings::default() };
        assert_eq!(chosen(&only_http, "https://ecs.example.com/").as_deref(), Some("http://p:1"));
        assert_eq!(chosen(&only_http, "wss://ecs.example.com/").as_deref(), Some("http://p:1"));
        let both = ProxySettings { https: Some("http://s:2".into()), ..only_http };
        assert_eq!(chosen(&both, "wss://ecs.example.com/").as_deref(), Some("http://s:2"));
        assert_eq!(chosen(&both, "http://ecs.example.com/").as_deref(), Some("http://p:1"));
        let only_https = ProxySettings { http: None, ..both };
        assert_eq!(chosen(&only_https, "http://ecs.example.com/"), None);
    }

    #[test]
    fn direct_hosts() {
        // (NO_PROXY, address, direct?)
        let table = [
            ("", "http://127.0.0.1:4566/", true),
            ("", "http://127.8.8.8/", true),
            ("", "http://[::1]/", true),
            ("x", "http://localhost:1/", true),
            ("", "http://169.254.169.254/latest", true),
            ("other", "http://169.254.169.254/latest", false),
            ("", "http://10.0.0.1/", false),
            ("10.0.0.0/8", "http://10.9.1.1/", true),
            ("10.0.0.0/8", "http://11.9.1.1/", false),
            ("0.0.0.0/0", "http://11.9.1.1/", true),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("fd12::1", "http://[fd12::1]/", true),
            ("10.0.0.1", "http://10.0.0.1:99/", true),
            ("10.0.0.1:98", "http://10.0.0.1:99/", false),
            ("example.com", "https://example.com/", true),
            ("example.com", "https://ECS.example.com/", true),
            ("example.com", "https://notexample.com/", false),
            (".example.com", "https://example.com/", false),
            (".example.com", "https://a.example.com/", true),
            ("*.example.com", "https://a.example.com/", true),
            ("example.com:443", "https://example.com/", true),
            ("example.com:80", "https://example.com/", false),
            ("a, b ,*", "https://anything.net/", true),
            ("10.0.0.0/99", "http://10.0.0.1/", false),
        ];
        for (no_proxy, url, direct) in table {
            let settings =
                ProxySettings { http: Some("http://p:1".into()), https: None, no_proxy: no_proxy.to_owned() };
            assert_eq!(chosen(&settings, url).is_none(), direct, "{no_proxy} {url}");
        }
    }

    #[test]
    fn the_password_of_a_proxy_is_not_printed() {
        let settings = ProxySettings { http: Some("http://me:hunter2@p".into()), ..ProxySettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
