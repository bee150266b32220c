//! Which `Host` headers are accepted.
//!
//! A web page may make its own name resolve to an address of this host ("DNS rebinding"), so that a visitor's browser reads the
//! answers of this server. The browser then sends the name of the page, and that name is not accepted here.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether every name that the request is addressed to belongs to this host. A request without a name is accepted, since no
/// browser sends one.
pub fn is_accepted<B>(request: &Request<B>) -> bool {
    let own = rustix::system::uname();
    let own = own.nodename().to_string_lossy();
    let headers = request.headers().get_all(HOST).iter().map(HeaderValue::to_str);
    let mut headers = headers.map(|text| text.unwrap_or("\0"));
    headers.all(|text| is_own(text, &own))
        && request.uri().authority().is_none_or(|authority| is_own(authority.as_str(), &own))
}

/// Whether the `Host` header `text` is accepted on the host whose name is `own`.
fn is_own(text: &str, own: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let Some(name) = name_in(text) else { return false };
    let name = name.strip_suffix('.').unwrap_or(&name);
    is_address(name)
        || (!name.is_empty() && !name.contains('.') && !name.contains(':'))
        || name.eq_ignore_ascii_case(own)
        || name.to_ascii_lowercase().ends_with(".internal")
}

/// The header without its port; `None` if it is not of the form `name[:port]`.
fn name_in(text: &str) -> Option<String> {
    // A zone (`%eth0`, or escaped `%25eth0`) has a meaning for the sender only.
    let unzoned = match (text.find('%'), text.find(']')) {
        (Some(zone), Some(end)) if zone < end => [&text[..zone], &text[end..]].concat(),
        _ => text.to_owned(),
    };
    let authority: Authority = unzoned.parse().ok()?;
    (!authority.as_str().contains('@')).then(|| authority.host().to_owned())
}

fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.map_or_else(|| name.parse::<Ipv4Addr>().is_ok(), |bare| bare.parse::<Ipv6Addr>().is_ok())
        || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Uri;

    #[test]
    fn names_of_this_host_are_accepted() {
        for text in [
            "",
            "localhost",
            "localhost:51678",
            "LOCALHOST.",
            "127.0.0.1:51678",
            "10.0.0.1",
            "[::1]:51678",
            "[fe80::1%25eth0]:51678",
            "[::ffff:10.0.0.1]",
            "ip-10-0-0-1.ec2.internal",
            "ip-10-0-0-1.us-west-2.compute.internal:51678",
            "host.docker.internal",
            "Metadata.Google.INTERNAL.",
            "web1",
            "web1:51678",
            "node7.example.com",
            "NODE7.example.com.:51678",
        ] {
            assert!(is_own(text, "node7.example.com"), "{text}");
        }
    }

    #[test]
    fn any_other_name_is_refused() {
        for text in [
            "evil.example.com",
            "evil.example.com:51678",
            "evil.example.com.",
            "localhost.evil.example.com",
            "127.0.0.1.evil.example.com",
            "127.0.0.1.nip.io",
            "internal.evil.example.com",
            "eviloninternal.com",
            "node7.example.com.evil.net",
            "0177.0.0.1",
            "localhost@evil.example.com",
            "evil.example.com@localhost",
            ".",
            "..",
            ":51678",
            "[::1",
            "[evil.example.com]",
            "a b",
            "localhost, evil.example.com",
            "\0",
        ] {
            assert!(!is_own(text, "node7.example.com"), "{text}");
        }
    }

    #[test]
    fn every_name_in_a_request_counts() {
        let request = |uri: &str, hosts: &[&str]| {
            let uri: Uri = uri.parse().unwrap();
            let builder = Request::builder().uri(uri);
            hosts.iter().fold(builder, |builder, host| builder.header(HOST, *host)).body(()).unwrap()
        };
        assert!(is_accepted(&request("/", &[])));
        assert!(is_accepted(&request("http://localhost/", &["localhost"])));
        assert!(!is_accepted(&request("/", &["localhost", "evil.example.com"])));
        assert!(!is_accepted(&request("http://evil.example.com/", &["localhost"])));
        let mut bytes = request("/", &[]);
        bytes.headers_mut().insert(HOST, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(!is_accepted(&bytes));
    }
}
