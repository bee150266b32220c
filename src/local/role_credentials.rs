//! Credentials of roles in payloads: not from AWS, but in the same form, with keys that this server accepts.

use super::site::Site;
use super::time::{iso_time, now};
use serde_json::{Value, json};

/// New credentials of a role.
pub(super) fn credentials(site: &Site, role: &str) -> Value {
    let mut credentials = json!({"credentialsId": uuid::Uuid::new_v4().to_string(), "roleArn": role});
    renew(site, &mut credentials);
    credentials
}

/// Sets new keys and a new expiry; the id stays.
pub(super) fn renew(site: &Site, credentials: &mut Value) {
    put_keys(site, credentials);
    credentials["expiration"] = json!(iso_time(now() + site.credentials_ttl.as_secs_f64()));
}

/// Sets new keys, which this server accepts; all other members stay.
pub(super) fn put_keys(site: &Site, credentials: &mut Value) {
    let keys = site.keys.role();
    credentials["accessKeyId"] = json!(keys.access_key_id);
    credentials["secretAccessKey"] = json!(keys.secret_access_key.expose());
    credentials["sessionToken"] = json!(keys.session_token.expose());
}
