//! The lifecycle of the instance according to IMDS: its state in a warm pool, the interruption of a Spot instance, and the
//! recommendation to replace it (spec `registration.md` §7, §8).
//!
//! Owns the meaning of these answers and the wait until the instance is in service. The caller reacts to what is announced. The
//! invariant: an unknown answer is never taken for an interruption or a recommendation.

use super::imds::{Imds, ImdsError};
use ecs_core::model::text::{cleaned, cut};
use reqwest::StatusCode;
use serde_json::{Map, Value};
use std::time::Duration;

const TARGET: &str = "meta-data/autoscaling/target-lifecycle-state";
const SPOT: &str = "meta-data/spot/instance-action";
const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
const LIFE_CYCLE: &str = "meta-data/instance-life-cycle";
const IN_SERVICE: &str = "InService";
/// Maximum length of the time of an interruption, which is an RFC 3339 text.
const MAX_TIME_BYTES: usize = 64;
/// The pause between two requests for the lifecycle state.
const PAUSE: Duration = Duration::from_secs(60);
/// Number of requests without an answer after which the instance counts as one without an Auto Scaling group.
const MAX_UNKNOWN: u32 = 120;

/// Why the instance does not come into service.
#[derive(Debug, thiserror::Error)]
pub enum WarmPoolError {
    /// IMDS does not answer.
    #[error("the lifecycle state of the instance cannot be read: {0}")]
    Imds(#[from] ImdsError),
    /// IMDS has named no lifecycle state for hours.
    #[error("the instance metadata names no lifecycle state: is the instance in an Auto Scaling group?")]
    Unknown,
}

/// Waits until the lifecycle state of the instance is `InService`.
///
/// # Errors
/// Fails if IMDS gives no answer or refuses the request, or if it names no lifecycle state for two hours.
pub async fn in_service(imds: &Imds) -> Result<(), WarmPoolError> {
    in_service_polling(imds, PAUSE).await
}

async fn in_service_polling(imds: &Imds, pause: Duration) -> Result<(), WarmPoolError> {
    let mut unknown = 1;
    let mut state = loop {
        match imds.get(TARGET).await?.filter(|state| !state.is_empty()) {
            Some(state) => break state,
            None if unknown == MAX_UNKNOWN => return Err(WarmPoolError::Unknown),
            None => unknown += 1,
        }
        tokio::time::sleep(pause).await;
    };
    while state != IN_SERVICE {
        tracing::info!(state = cleaned(&state), "Waiting for instance to go InService");
        tokio::time::sleep(pause).await;
        match imds.get(TARGET).await {
            Ok(answer) => state = answer.unwrap_or_default(),
            Err(error) if is_temporary(&error) => {
                tracing::warn!(%error, retry_in_s = crate::backoff::seconds(pause), "the lifecycle state will be requested again");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the error is temporary, once IMDS has named a state.
fn is_temporary(error: &ImdsError) -> bool {
    matches!(
        error,
        ImdsError::Status(
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    )
}

/// The announced interruption of a Spot instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpotNotice {
    /// The action: `hibernate`, `stop` or `terminate`.
    pub action: String,
    /// The time of the interruption, as the text of EC2.
    pub time: String,
}

/// The announced interruption of this Spot instance; `None` if there is none.
///
/// # Errors
/// Fails if IMDS gives no answer, or an error status other than 404.
pub async fn spot_notice(imds: &Imds) -> Result<Option<SpotNotice>, ImdsError> {
    Ok(imds.get(SPOT).await?.as_deref().and_then(notice))
}

/// Whether this is a Spot instance. Only such an instance is announced to be interrupted, or recommended to be replaced.
///
/// # Errors
/// Fails if IMDS gives no answer, or an error status other than 404.
pub async fn is_spot(imds: &Imds) -> Result<bool, ImdsError> {
    Ok(imds.get(LIFE_CYCLE).await?.as_deref() == Some("spot"))
}

/// The time of EC2's recommendation to replace this instance, as the text of EC2: the risk of an interruption has risen. `None` if
/// there is none.
///
/// # Errors
/// Fails if IMDS gives no answer, or an error status other than 404.
pub async fn rebalance_recommendation(imds: &Imds) -> Result<Option<String>, ImdsError> {
    Ok(imds.get(REBALANCE).await?.as_deref().and_then(recommendation))
}

fn recommendation(text: &str) -> Option<String> {
    let time = cut(&member(&serde_json::from_str(text).ok()?, "noticeTime")?, MAX_TIME_BYTES);
    Some(time).filter(|time| !time.is_empty())
}

fn notice(text: &str) -> Option<SpotNotice> {
    let members: Map<String, Value> = serde_json::from_str(text).ok()?;
    let member = |name: &str| member(&members, name);
    let action = member("action").filter(|action| matches!(action.as_str(), "hibernate" | "stop" | "terminate"))?;
    Some(SpotNotice { action, time: cut(&member("time").unwrap_or_default(), MAX_TIME_BYTES) })
}

/// The text of a member. As for the Go agent, the case of its name does not matter.
fn member(members: &Map<String, Value>, name: &str) -> Option<String> {
    let found = members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.and_then(|(_, value)| value.as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::identity::imds::Settings;
    use crate::aws::tests::fake::{Answer, Fake};

    /// An IMDS that gives these answers in order, and then repeats the last one.
    async fn imds(answers: &'static [(u16, &'static str)]) -> (Fake, Imds) {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let fake = Fake::start(move |request| match request.method.as_str() {
            "PUT" => Answer::text(200, "token"),
            _ => {
                let nth = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(answers.len() - 1);
                Answer::text(answers[nth].0, answers[nth].1)
            }
        })
        .await;
        let imds = Imds::new(Settings { endpoint: Some(fake.url()), blackholed: false }).unwrap();
        (fake, imds)
    }

    #[tokio::test]
    async fn the_registration_waits_until_in_service() {
        let pause = Duration::from_millis(1);
        let (fake, client) = imds(&[
            (404, ""),
            (200, ""),
            (200, "Warmed:Pending"),
            (404, ""),
            (200, "Warmed:Stopped"),
            (200, "InService"),
        ])
        .await;
        in_service_polling(&client, pause).await.unwrap();
        assert_eq!(fake.requests().iter().filter(|request| request.method == "GET").count(), 6);

        let (fake, client) = imds(&[(404, "")]).await;
        assert!(matches!(in_service_polling(&client, pause).await, Err(WarmPoolError::Unknown)));
        assert_eq!(fake.requests().iter().filter(|request| request.method == "GET").count(), 120);

        let (_fake, client) = imds(&[(403, "")]).await;
        assert!(matches!(in_service_polling(&client, pause).await, Err(WarmPoolError::Imds(_))));
        let (_fake, client) = imds(&[(200, "Warmed:Pending"), (400, "")]).await;
        assert!(matches!(in_service_polling(&client, pause).await, Err(WarmPoolError::Imds(_))));
    }

    #[tokio::test]
    async fn after_a_first_answer_errors_of_imds_are_tolerated() {
        // One request is five attempts.
        let (_fake, client) =
            imds(&[(200, "Warmed:Pending"), (503, ""), (503, ""), (503, ""), (503, ""), (503, ""), (200, "InService")])
                .await;
        in_service_polling(&client, Duration::from_millis(1)).await.unwrap();
    }

    #[test]
    fn only_a_time_is_a_recommendation() {
        let time = "2026-10-27T08:22:00Z";
        assert_eq!(recommendation(&format!(r#"{{"noticeTime":"{time}"}}"#)).as_deref(), Some(time));
        assert_eq!(
            recommendation(&format!(r#"{{"noticeTime":"{}"}}"#, "x".repeat(1000))).unwrap().len(),
            MAX_TIME_BYTES
        );
        for text in ["", "[]", "{}", "<html>", r#"{"noticeTime":""}"#, r#"{"noticeTime":7}"#, r#"{"action":"stop"}"#] {
            assert_eq!(recommendation(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn only_a_spot_instance_is_one() {
        for (answers, wanted) in [
            (&[(200, "spot")], true),
            (&[(200, "on-demand")], false),
            (&[(404, "")], false),
            (&[(200, "<html>")], false),
        ] {
            let (_fake, client) = imds(answers).await;
            assert_eq!(is_spot(&client).await.unwrap(), wanted, "{answers:?}");
        }
        let (_fake, client) = imds(&[(403, "")]).await;
        assert!(is_spot(&client).await.is_err());
    }

    #[test]
    fn only_a_known_action_is_an_interruption() {
        let time = "2026-01-01T00:00:00Z";
        for action in ["hibernate", "stop", "terminate"] {
            let found = notice(&format!(r#"{{"Action":"{action}","TIME":"{time}"}}"#)).unwrap();
            assert_eq!((found.action.as_str(), found.time.as_str()), (action, time));
        }
        for text in
            ["", "[]", "{}", "<html>", r#"{"action":"rebalance"}"#, r#"{"action":"Terminate"}"#, r#"{"action":1}"#]
        {
            assert_eq!(notice(text), None, "{text}");
        }
    }
}
