//! The text of a failed pull for customers.
//!
//! Owns the hints at common causes, and the redaction. Invariant: the text contains no address that grants access.

use ecs_core::model::Failure;

/// The name of the failure in the reason that ECS shows.
pub(crate) const PULL_ERROR: &str = "CannotPullContainerError";

/// Redacts the failure's text, and puts a hint in front of it if the cause is a common one.
pub(crate) fn for_customer(failure: Failure, image: &str) -> Failure {
    if ![PULL_ERROR, "CannotPullECRContainerError"].contains(&failure.name.as_str()) {
        return failure;
    }
    let text = without_ecr_urls(&failure.message, image);
    let hint = if is_missing_permission(&text) {
        "The task can’t pull the image. Check that the role has the permissions to pull images from the registry. "
    } else if text.contains("denied: requested access to the resource is denied") {
        "The task can’t pull the image. Check whether the image exists. "
    } else if text.contains("request canceled while waiting for connection") {
        "The task can’t pull the image. Check your network configuration. "
    } else {
        ""
    };
    failure.with_message(format!("{hint}{text}"))
}

fn is_missing_permission(text: &str) -> bool {
    text.split_once("denied: User: ").is_some_and(|(_, rest)| {
        rest.find(" is not authorized to perform: ecr:BatchGetImage on resource").is_some_and(|user| user > 0)
    })
}

/// Removes presigned layer addresses of ECR, which grant access to anybody who reads them.
pub(crate) fn without_ecr_urls(text: &str, image: &str) -> String {
    const BUCKET: &str = "starport-layer-bucket";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("https") {
        let end = rest[at..].find(char::is_whitespace).map_or(rest.len(), |length| at + length);
        let inside = &rest[at + "https".len()..end];
        let secret = inside.find(BUCKET).is_some_and(|bucket| bucket > 0 && bucket + BUCKET.len() < inside.len());
        if secret {
            out.push_str(rest[..at].strip_suffix('"').unwrap_or(&rest[..at]));
            out.push_str("REDACTED ECR URL related to ");
            out.push_str(image);
        } else {
            out.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_addresses_of_ecr_are_redacted() {
        let redacted = "REDACTED ECR URL related to app:1";
        let table = [
            ("no address", "no address".to_owned()),
            ("see https://example.com/x for more", "see https://example.com/x for more".to_owned()),
            ("Get \"https://prod-starport-layer-bucket.s3/a?sig=x\": EOF", format!("Get {redacted} EOF")),
            ("get https://x-starport-layer-bucket/y\tthen https://ok", format!("get {redacted}\tthen https://ok")),
            ("https://a-starport-layer-bucket/1 https://a-starport-layer-bucket/2", format!("{redacted} {redacted}")),
            ("httpshttps://a-starport-layer-bucket/1", redacted.to_owned()),
            ("httpsstarport-layer-bucket/1", "httpsstarport-layer-bucket/1".to_owned()),
        ];
        for (text, wanted) in table {
            assert_eq!(without_ecr_urls(text, "app:1"), wanted);
        }
    }

    #[test]
    fn usual_causes_get_a_hint() {
        let table = [
            (
                "denied: User: arn:aws:sts::1:x is not authorized to perform: ecr:BatchGetImage on resource: y",
                "The task can’t pull the image. Check that the role has the permissions to pull images from the registry. denied: U",
            ),
            (
                "pull access denied for a, repository does not exist: denied: requested access to the resource is denied",
                "The task can’t pull the image. Check whether the image exists. pull access",
            ),
            (
                "net/http: request canceled while waiting for connection",
                "The task can’t pull the image. Check your network configuration. net/http",
            ),
            ("manifest unknown", "manifest unknown"),
        ];
        for (text, wanted) in table {
            let failure = for_customer(Failure::permanent(PULL_ERROR, text), "a");
            assert!(failure.message.starts_with(wanted) && failure.message.ends_with(text), "{failure}");
        }
    }
}
