//! Changes the JSON body of a call before it is signed, where the public SDK differs from the Go agent's private API model: some
//! fields are missing in the SDK, and it sends zeros that the Go agent leaves out.
//!
//! Owns the mechanism; the modules that make a call define the edit. The invariant: `content-length` and the signature always
//! match the new body.

use aws_sdk_ecs::config::Intercept;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use serde_json::{Map, Value};

/// One edit of a body.
#[derive(Debug)]
pub(super) struct BodyEdit {
    /// A value for `edit`.
    pub(super) value: String,
    /// Changes the members of the body.
    pub(super) edit: fn(body: &mut Map<String, Value>, value: &str),
}

impl Intercept for BodyEdit {
    fn name(&self) -> &'static str {
        "BodyEdit"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let bytes = request.body().bytes().ok_or("the request body is a stream")?;
        let mut members: Map<String, Value> = serde_json::from_slice(bytes)?;
        (self.edit)(&mut members, &self.value);
        let body = serde_json::to_vec(&members)?;
        request.headers_mut().try_insert("content-length", body.len().to_string())?;
        *request.body_mut() = SdkBody::from(body);
        Ok(())
    }
}
