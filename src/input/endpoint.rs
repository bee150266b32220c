//! The normal form of an endpoint's address. [`ecs_core::model::address`] hides passwords in addresses.

use url::Url;

/// The address in the form that every HTTP client accepts: ASCII only, with blanks and the like percent-encoded. A path that is
/// only `/` is left out.
pub fn normalized(url: &Url) -> &str {
    let has_only_host = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let text = url.as_str();
    if has_only_host { text.strip_suffix('/').unwrap_or(text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_normalized_for_http_clients() {
        let table = [
            ("https://ecs.example:8443", "https://ecs.example:8443"),
            ("HTTPS://ECS.Example:443/", "https://ecs.example"),
            ("https://ecs.ex\u{e4}mple/a b/", "https://ecs.xn--exmple-cua/a%20b/"),
            ("https://h/?a=/", "https://h/?a=/"),
            ("https://h/#/", "https://h/#/"),
            ("socks5://p:1", "socks5://p:1"),
            ("http://[fd00:ec2::254]/", "http://[fd00:ec2::254]"),
        ];
        for (address, wanted) in table {
            let url = Url::parse(address).unwrap();
            assert_eq!(normalized(&url), wanted);
            assert_eq!(normalized(&Url::parse(wanted).unwrap()), wanted, "twice is as good as once");
        }
    }
}
