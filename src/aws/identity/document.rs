//! The identity of this instance, according to IMDS (spec `registration.md` §4, §7).
//!
//! Owns the meaning of the paths: instance id, zone id, VPC, addresses, the signed identity document. It caches nothing and decides nothing: a
//! missing part is `None`, and the caller decides whether that is an error. The invariant: document and signature are returned
//! together or not at all, since ECS refuses one without the other.

use super::imds::{Imds, ImdsError, may_pass};
use crate::backoff::{Backoff, Shape};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;

/// How long failed requests for the identity document are repeated at start-up.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(30);
const DOCUMENT_RETRY: Shape =
    Shape { initial: Duration::from_millis(100), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };

/// The instance identity document and its signature, verbatim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedDocument {
    /// The document, a JSON text.
    pub document: String,
    /// The signature, a base64 text.
    pub signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentFields {
    region: Option<String>,
}

impl SignedDocument {
    /// The region in the document; `None` if it has none.
    pub fn region(&self) -> Option<String> {
        let fields: DocumentFields = serde_json::from_str(&self.document).ok()?;
        fields.region.filter(|region| !region.is_empty())
    }
}

/// The EC2 instance id; `None` if IMDS has none.
///
/// # Errors
/// Fails if IMDS gives no answer, an error status other than 404, or a text that is not an id.
pub async fn instance_id(imds: &Imds) -> Result<Option<String>, ImdsError> {
    id(imds.get("meta-data/instance-id").await)
}

/// The id (not the name) of the availability zone, e.g. `usw2-az2`; `None` if IMDS has none.
///
/// # Errors
/// Fails if IMDS gives no answer, an error status other than 404, or a text that is not an id.
pub async fn zone_id(imds: &Imds) -> Result<Option<String>, ImdsError> {
    id(imds.get("meta-data/placement/availability-zone-id").await)
}

/// The id of the VPC of the instance's first network interface; `None` if the instance is in none.
///
/// # Errors
/// Fails if IMDS gives no answer, an error status other than 404, or a text that is not an id.
pub async fn vpc_id(imds: &Imds) -> Result<Option<String>, ImdsError> {
    at_first_interface(imds, "vpc-id").await
}

/// The id of the subnet of the instance's first network interface; `None` if the instance is in none.
///
/// # Errors
/// Fails if IMDS gives no answer, an error status other than 404, or a text that is not an id.
pub async fn subnet_id(imds: &Imds) -> Result<Option<String>, ImdsError> {
    at_first_interface(imds, "subnet-id").await
}

async fn at_first_interface(imds: &Imds, name: &str) -> Result<Option<String>, ImdsError> {
    let Some(mac) = present(imds.get("meta-data/mac").await)? else { return Ok(None) };
    if !mac.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
        return Err(ImdsError::Nonsense); // it becomes a part of a path
    }
    id(imds.get(&format!("meta-data/network/interfaces/macs/{mac}/{name}")).await)
}

/// An IPv4 address of the instance: the private one (`local-ipv4`) or the public one (`public-ipv4`); `None` if it has none.
///
/// # Errors
/// Fails if IMDS gives no answer, an error status other than 404, or a text that is not an address.
pub async fn ipv4(imds: &Imds, name: &str) -> Result<Option<Ipv4Addr>, ImdsError> {
    let text = present(imds.get(&format!("meta-data/{name}")).await)?;
    text.map(|text| text.parse().map_err(|_| ImdsError::Nonsense)).transpose()
}

/// The region, for a host on which the identity document must not be used; `None` if IMDS has none.
///
/// # Errors
/// Fails if IMDS gives no answer, or an error status other than 404.
pub async fn region(imds: &Imds) -> Result<Option<String>, ImdsError> {
    present(imds.get("meta-data/placement/region").await)
}

/// The signed identity document; `None` if IMDS has none. Temporary errors of IMDS are retried for up to 30 seconds; if IMDS
/// does not answer at all, only until [`Imds::is_given_up`].
///
/// # Errors
/// Fails if IMDS gives no answer, an error status other than 404, or a document that is not JSON.
pub async fn document(imds: &Imds) -> Result<Option<SignedDocument>, ImdsError> {
    document_within(imds, DOCUMENT_PATIENCE).await
}

async fn document_within(imds: &Imds, patience: Duration) -> Result<Option<SignedDocument>, ImdsError> {
    let give_up = Instant::now() + patience;
    let (mut backoff, mut is_logged) = (Backoff::new(DOCUMENT_RETRY), false);
    loop {
        match document_once(imds).await {
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => {
                let pause = backoff.pause();
                if !std::mem::replace(&mut is_logged, true) {
                    let limit = patience.as_secs();
                    tracing::warn!(%error, "no instance identity document; it is requested again for {limit} s");
                }
                if Instant::now() + pause >= give_up || imds.is_given_up() {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
            }
            Ok(found) => return Ok(found),
        }
    }
}

async fn document_once(imds: &Imds) -> Result<Option<SignedDocument>, ImdsError> {
    let Some(document) = present(imds.get("dynamic/instance-identity/document").await)? else { return Ok(None) };
    if serde_json::from_str::<DocumentFields>(&document).is_err() {
        return Err(ImdsError::Nonsense);
    }
    let Some(signature) = present(imds.get("dynamic/instance-identity/signature").await)? else { return Ok(None) };
    Ok(Some(SignedDocument { document, signature }))
}

/// An id from EC2; `None` if it is missing or empty. An invalid text is an error: as an id it would look like that of another
/// instance, and the agent drops the state of another instance.
fn id(answer: Result<Option<String>, ImdsError>) -> Result<Option<String>, ImdsError> {
    match present(answer)? {
        Some(text) if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => {
            Err(ImdsError::Nonsense)
        }
        answer => Ok(answer),
    }
}

/// The text of an answer; `None` if it is missing or empty.
fn present(answer: Result<Option<String>, ImdsError>) -> Result<Option<String>, ImdsError> {
    Ok(answer?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::identity::imds::Settings;
    use crate::aws::tests::fake::{Answer, Fake, Request};

    async fn imds(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (Fake, Imds) {
        let fake = Fake::start(script).await;
        let imds = Imds::new(Settings { endpoint: Some(fake.url()), blackholed: false }).unwrap();
        (fake, imds)
    }

    #[tokio::test]
    async fn document_and_signature_come_together() {
        let (_fake, client) = imds(|request| match request.path.rsplit('/').next().unwrap() {
            "document" => Answer::text(200, "{\"region\": \"us-west-2\", \"instanceId\": \"i-1\"}"),
            "signature" => Answer::text(200, "c2ln"),
            "instance-id" => Answer::text(200, "i-1"),
            "token" => Answer::text(200, "t"),
            _ => Answer::text(404, ""),
        })
        .await;
        let signed = document(&client).await.unwrap().unwrap();
        assert_eq!((signed.signature.as_str(), signed.region().as_deref()), ("c2ln", Some("us-west-2")));
        assert_eq!(instance_id(&client).await.unwrap().as_deref(), Some("i-1"));
        assert_eq!(zone_id(&client).await.unwrap(), None);

        let (_fake, client) = imds(|request| match request.path.rsplit('/').next().unwrap() {
            "document" | "token" => Answer::text(200, "{}"),
            _ => Answer::text(404, ""),
        })
        .await;
        assert_eq!(document(&client).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_vpc_is_that_of_the_first_interface() {
        let (fake, client) = imds(|request| match request.path.as_str() {
            "/latest/api/token" => Answer::text(200, "t"),
            "/latest/meta-data/mac" => Answer::text(200, "0a:1b:2c:3d:4e:5f"),
            "/latest/meta-data/network/interfaces/macs/0a:1b:2c:3d:4e:5f/vpc-id" => Answer::text(200, "vpc-1"),
            "/latest/meta-data/local-ipv4" => Answer::text(200, "10.0.1.23"),
            _ => Answer::text(404, ""),
        })
        .await;
        assert_eq!(vpc_id(&client).await.unwrap().as_deref(), Some("vpc-1"));
        assert_eq!(ipv4(&client, "local-ipv4").await.unwrap(), Some(Ipv4Addr::new(10, 0, 1, 23)));
        assert_eq!(ipv4(&client, "public-ipv4").await.unwrap(), None);
        assert_eq!(fake.requests().len(), 5);
        for odd in ["<html>", "../../x"] {
            let (_fake, client) = imds(move |request| match request.path.rsplit('/').next().unwrap() {
                "token" => Answer::text(200, "t"),
                _ => Answer::text(200, odd),
            })
            .await;
            assert!(matches!(vpc_id(&client).await, Err(ImdsError::Nonsense)), "{odd}");
            assert!(matches!(ipv4(&client, "local-ipv4").await, Err(ImdsError::Nonsense)), "{odd}");
        }
    }

    #[tokio::test]
    async fn an_html_page_is_no_instance_id() {
        let (_fake, client) = imds(|request| match request.method.as_str() {
            "PUT" => Answer::text(200, "t"),
            _ => Answer::text(200, "<html>Sign in</html>"),
        })
        .await;
        assert!(matches!(instance_id(&client).await, Err(ImdsError::Nonsense)));
        assert!(matches!(zone_id(&client).await, Err(ImdsError::Nonsense)));
    }

    #[tokio::test]
    async fn temporary_errors_of_the_document_are_retried() {
        let (_fake, client) = imds(|request| match request.path.rsplit('/').next().unwrap() {
            "document" if request.number < 6 => Answer::text(503, ""),
            // Another server answers instead of IMDS.
            "document" if request.number < 8 => Answer::text(200, "<html>Sign in</html>"),
            _ => Answer::text(200, "{}"),
        })
        .await;
        assert!(document_within(&client, Duration::from_secs(20)).await.unwrap().is_some());
        let (_fake, client) = imds(|_| Answer::text(503, "")).await;
        assert!(document_within(&client, Duration::from_millis(1)).await.is_err());
    }

    #[tokio::test]
    async fn a_refused_document_is_not_requested_again() {
        for status in [400, 403, 405] {
            let (fake, client) = imds(move |request| match request.method.as_str() {
                "PUT" => Answer::text(200, "t"),
                _ => Answer::text(status, ""),
            })
            .await;
            let result = tokio::time::timeout(Duration::from_secs(5), document(&client)).await;
            assert!(matches!(result, Ok(Err(ImdsError::Status(_)))), "{status}");
            assert_eq!(fake.requests().len(), 2, "{status}: a token, and the document once");
        }
    }
}
