//! ListTagsForResource: the tags of a task or of this container instance (spec `task-metadata.md` §4.1).
//!
//! Owns the call and its error. The caller decides how long it waits for the answer.

use super::text_of;
use aws_sdk_ecs::config::Intercept;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::RequestId;
use aws_sdk_ecs::operation::list_tags_for_resource::ListTagsForResourceError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use ecs_core::model::text::{cleaned, cut};
use std::collections::BTreeMap;

/// A resource has at most this many tags; more are not kept.
const MAX_TAGS: usize = 100;
/// The longest name of a container in the name of the agent, in bytes.
const MAX_NAME: usize = 255;

/// Why the tags are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("ListTagsForResource: {message}")]
pub struct TagsError {
    /// Error code of ECS; empty if there was no answer.
    pub code: String,
    /// The message of ECS; without an answer, what happened.
    pub message: String,
    /// HTTP status; `None` if there was no answer.
    pub status: Option<u16>,
    /// Id of the request; empty if ECS named none.
    pub request_id: String,
}

/// The tags of the resource with this ARN. `container`: the name of the container that wants to know them, for the audit trail of
/// AWS; `None`: it is not named.
///
/// # Errors
/// Fails if ECS refuses the call, or does not answer in time.
pub async fn tags(
    client: &aws_sdk_ecs::Client,
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, String>, TagsError> {
    let call = client.list_tags_for_resource().resource_arn(resource).customize();
    let call = match container {
        Some(name) => call.interceptor(ForContainer(cut(&cleaned(name), MAX_NAME))),
        None => call,
    };
    let answer = call.send().await.map_err(|error| error_of(&error))?;
    let tags = answer.tags.unwrap_or_default().into_iter().take(MAX_TAGS);
    Ok(tags.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect())
}

fn error_of(error: &SdkError<ListTagsForResourceError>) -> TagsError {
    let status = error.raw_response().map(|response| response.status().as_u16());
    let request_id = cleaned(error.request_id().unwrap_or_default());
    match error.code() {
        Some(code) => {
            let message = cleaned(error.message().unwrap_or_default());
            TagsError { code: cleaned(code), message, status, request_id }
        }
        None => TagsError { message: text_of(error), status, request_id, ..TagsError::default() },
    }
}

/// Adds the name of a container to the name of the agent in the call.
#[derive(Debug)]
struct ForContainer(String);

impl Intercept for ForContainer {
    fn name(&self) -> &'static str {
        "ForContainer"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        let agent = headers.get("user-agent").unwrap_or_default().to_owned();
        headers.try_insert("user-agent", format!("{agent} container/{}", self.0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{Answer, Fake};
    use crate::ecs::report::tests::client;
    use serde_json::json;

    #[tokio::test]
    async fn tags_are_read_and_the_container_is_named() {
        let answer = json!({"tags": [{"key": "team", "value": "a"}, {"key": "empty"}]});
        let fake = Fake::start(move |_| Answer::json(200, &answer)).await;
        let client = client(&fake.url());
        let wanted = BTreeMap::from([("team".to_owned(), "a".to_owned()), ("empty".to_owned(), String::new())]);
        assert_eq!(tags(&client, "arn", None).await, Ok(wanted.clone()));
        assert_eq!(tags(&client, "arn", Some("web")).await, Ok(wanted));
        let agents: Vec<_> = fake.requests().iter().map(|seen| seen.header("user-agent").unwrap().to_owned()).collect();
        assert_eq!(agents[1], format!("{} container/web", agents[0]));
        assert_eq!(fake.requests()[0].json(), json!({"resourceArn": "arn"}));
    }

    #[tokio::test]
    async fn an_error_has_code_message_and_status() {
        let fake = Fake::start(|_| Answer::error(400, "AccessDeniedException", "not authorized")).await;
        let error = tags(&client(&fake.url()), "arn", None).await.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str(), error.status),
            ("AccessDeniedException", "not authorized", Some(400))
        );
        let nobody = tags(&client("http://127.0.0.1:1"), "arn", None).await.unwrap_err();
        assert!(nobody.code.is_empty() && nobody.status.is_none() && !nobody.message.is_empty(), "{nobody:?}");
    }
}
