//! The endpoint of the awslogs driver, where Docker does not find it by itself (spec `docker-mapping.md` §8.1).
//!
//! Owns the list of regions whose endpoint must be set, and the dual-stack endpoint for instances without IPv4. Invariant: only
//! the option `awslogs-endpoint` of the driver awslogs is changed.

use super::log::supports_endpoint;
use serde_json::{Map, Value};

/// Regions whose endpoint the driver does not know, each with the domain of its hosts.
const KNOWN: [(&str, &str); 8] = [
    ("us-isob-east-1", "sc2s.sgov.gov"),
    ("us-isob-west-1", "sc2s.sgov.gov"),
    ("us-iso-east-1", "c2s.ic.gov"),
    ("us-iso-west-1", "c2s.ic.gov"),
    ("eu-isoe-west-1", "cloud.adc-e.uk"),
    ("us-isof-south-1", "csp.hci.ic.gov"),
    ("us-isof-east-1", "csp.hci.ic.gov"),
    ("eusc-de-east-1", "amazonaws.eu"),
];
const ENDPOINT: &str = "awslogs-endpoint";

/// Sets the option if it is needed. `region` is the agent's region, `server` the engine's version.
pub(crate) fn apply(host: &mut Map<String, Value>, region: &str, ipv6_only: bool, server: &str) {
    let Some(log) = host.get_mut("LogConfig").filter(|log| log["Type"] == "awslogs").and_then(Value::as_object_mut)
    else {
        return;
    };
    let options = log.entry("Config").or_insert_with(|| Value::Object(Map::new()));
    let Some(options) = options.as_object_mut() else { return };
    let endpoint = if ipv6_only {
        let logs_region = options.get("awslogs-region").and_then(Value::as_str);
        logs_region.filter(|_| !options.contains_key(ENDPOINT) && supports_endpoint(server)).map(dual_stack)
    } else {
        let known = KNOWN.iter().find(|(known, _)| *known == region);
        known.map(|(region, suffix)| format!("https://logs.{region}.{suffix}"))
    };
    if let Some(endpoint) = endpoint {
        options.insert(ENDPOINT.to_owned(), Value::from(endpoint));
    }
}

fn dual_stack(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "api.amazonwebservices.com.cn" } else { "api.aws" };
    format!("https://logs.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(log: &Value, region: &str, ipv6_only: bool) -> Option<String> {
        let mut host = json!({"LogConfig": log}).as_object().unwrap().clone();
        apply(&mut host, region, ipv6_only, "20.10.24");
        host["LogConfig"]["Config"][ENDPOINT].as_str().map(str::to_owned)
    }

    #[test]
    fn the_endpoint_is_set_where_the_driver_does_not_know_it() {
        let log = json!({"Type": "awslogs", "Config": {"awslogs-region": "us-east-1", "awslogs-group": "g"}});
        let own =
            json!({"Type": "awslogs", "Config": {"awslogs-region": "us-east-1", "awslogs-endpoint": "https://own"}});
        assert_eq!(endpoint(&log, "us-west-2", false), None);
        assert_eq!(endpoint(&log, "us-iso-east-1", false).unwrap(), "https://logs.us-iso-east-1.c2s.ic.gov");
        assert_eq!(endpoint(&own, "eusc-de-east-1", false).unwrap(), "https://logs.eusc-de-east-1.amazonaws.eu");
        assert_eq!(endpoint(&own, "us-west-2", false).unwrap(), "https://own");
        assert_eq!(endpoint(&json!({"Type": "json-file"}), "us-iso-east-1", false), None);
        assert_eq!(
            endpoint(&json!({"Type": "awslogs"}), "us-isob-east-1", false).unwrap(),
            "https://logs.us-isob-east-1.sc2s.sgov.gov"
        );
    }

    #[test]
    fn without_ipv4_the_dual_stack_endpoint_is_set() {
        let log = |options: Value| json!({"Type": "awslogs", "Config": options});
        let resolved = |options: Value| endpoint(&log(options), "us-iso-east-1", true);
        assert_eq!(resolved(json!({"awslogs-region": "us-east-1"})).unwrap(), "https://logs.us-east-1.api.aws");
        let china = resolved(json!({"awslogs-region": "cn-north-1"})).unwrap();
        assert_eq!(china, "https://logs.cn-north-1.api.amazonwebservices.com.cn");
        assert_eq!(
            resolved(json!({"awslogs-region": "us-east-1", "awslogs-endpoint": "https://own"})).unwrap(),
            "https://own"
        );
        assert_eq!(resolved(json!({})), None);
        for (server, is_set) in [("18.06.1-ce", false), ("18.9.0", true), ("18.09.0", true), ("", true)] {
            let mut host =
                json!({"LogConfig": log(json!({"awslogs-region": "us-east-1"}))}).as_object().unwrap().clone();
            apply(&mut host, "us-east-1", true, server);
            assert_eq!(host["LogConfig"]["Config"][ENDPOINT].is_string(), is_set, "{server}");
        }
    }
}
