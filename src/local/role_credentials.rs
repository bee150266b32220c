//! Credentials of roles in payloads: not from AWS, but in the same form, with keys that this server accepts. Task roles may have
//! the keys of a profile instead.

use super::keys::Signer;
use super::site::Site;
use super::time::{iso_time, now};
use serde_json::{Value, json};

/// New credentials of a task role. `session` is the name of the session: the id of the task.
pub(super) fn task_credentials(site: &Site, role: &str, session: &str) -> Value {
    let mut credentials = credentials(site, role, session);
    put_profile(site, &mut credentials);
    credentials
}

/// Sets the keys of the profile, if there is one; the id stays.
pub(super) fn put_profile(site: &Site, credentials: &mut Value) {
    let Some(profile) = &site.profile else { return };
    let keys = profile.keys();
    credentials["accessKeyId"] = json!(keys.access_key_id);
    credentials["secretAccessKey"] = json!(keys.secret_access_key.expose());
    credentials["sessionToken"] = json!(keys.session_token.expose());
    if let Some(expiration) = keys.expiration {
        credentials["expiration"] = json!(expiration);
    }
}

/// New credentials of a role. `session` is the name of the session: the id of the task.
pub(super) fn credentials(site: &Site, role: &str, session: &str) -> Value {
    let mut credentials = json!({"credentialsId": uuid::Uuid::new_v4().to_string(), "roleArn": role});
    renew(site, &mut credentials, session);
    credentials
}

/// Sets new keys and a new expiry; the id stays.
pub(super) fn renew(site: &Site, credentials: &mut Value, session: &str) {
    put_keys(site, credentials, session);
    credentials["expiration"] = json!(iso_time(now() + site.credentials_ttl.as_secs_f64()));
}

/// Sets new keys, which this server accepts; all other members stay.
pub(super) fn put_keys(site: &Site, credentials: &mut Value, session: &str) {
    let role = credentials["roleArn"].as_str().unwrap_or_default();
    let keys = site.keys.temporary(&Signer::role(role, session));
    credentials["accessKeyId"] = json!(keys.access_key_id);
    credentials["secretAccessKey"] = json!(keys.secret_access_key.expose());
    credentials["sessionToken"] = json!(keys.session_token.expose());
}
