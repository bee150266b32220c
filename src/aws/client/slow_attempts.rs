//! A line in the log for each attempt at ECS that got no answer for long.
//!
//! The SDK repeats an attempt silently, and an attempt takes up to [`super::sdk`]'s limit: without these lines an operator sees
//! nothing for minutes. Owns the choice of these attempts. The caller logs the error of the last one. It decides nothing.

use aws_sdk_ecs::config::Intercept;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use ecs_core::model::with_causes;
use std::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// An attempt that fails sooner is repeated soon, and only the last one matters.
const LONG: Duration = Duration::from_secs(5);
/// The first pause of the SDK's retries is shorter than this, and each further one up to twice as long.
const FIRST_PAUSE_S: u64 = 1;
const MAX_PAUSE_S: u64 = 20;

/// Logs the attempts of a client's calls.
#[derive(Debug)]
pub(crate) struct SlowAttempts {
    /// The number of attempts of each call.
    pub(crate) attempts: u32,
}

/// When an attempt began to send.
#[derive(Clone, Debug)]
struct Began(Instant);

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

impl Intercept for SlowAttempts {
    fn name(&self) -> &'static str {
        "SlowAttempts"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let attempt = config.load::<RequestAttempts>().map_or(1, RequestAttempts::attempts);
        let took = config.load::<Began>().map_or(Duration::ZERO, |began| began.0.elapsed());
        if attempt >= self.attempts || took < LONG || context.response().is_some() {
            return Ok(());
        }
        let Some(Err(error)) = context.output_or_error() else { return Ok(()) };
        let error = match error.as_connector_error().and_then(Error::source) {
            Some(words) => with_causes(words),
            None => with_causes(error),
        };
        let call = config.load::<Metadata>().map_or("", Metadata::name);
        let (took_s, attempts) = (took.as_secs(), self.attempts);
        let retry_within_s = (FIRST_PAUSE_S << (attempt - 1).min(10)).min(MAX_PAUSE_S);
        tracing::warn!(call, error, attempt, attempts, took_s, retry_within_s, "ECS gave no answer; trying again");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::aws::client::sdk::{Sdk, Settings};
    use crate::aws::client::words::without_code;
    use crate::aws::identity::credentials::fixed;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use std::fmt::{Debug, Write as _};
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    /// Keeps the warnings, each as its fields.
    #[derive(Clone, Debug, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    #[derive(Default)]
    struct Fields(String);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, "{}={value:?} ", field.name()).unwrap();
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Warnings {
        fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
            if *event.metadata().level() == tracing::Level::WARN {
                let mut fields = Fields::default();
                event.record(&mut fields);
                self.0.lock().unwrap().push(fields.0);
            }
        }
    }

    /// A service that takes connections and never answers. The clock goes on as soon as nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_silent_service_is_named_at_each_attempt() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let warnings = Warnings::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        let _until_the_end = tracing::subscriber::set_default(subscriber);
        let settings = Settings {
            region: "us-west-2".to_owned(),
            backend_host: Some(format!("http://{host}")),
            ..Settings::default()
        };
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"s".into(), &"".into()));
        let began = tokio::time::Instant::now();
        let error = Sdk::new(settings).unwrap().ecs(keys).list_clusters().send().await.unwrap_err();
        assert!(began.elapsed().as_secs() >= 60, "each attempt has its time: {:?}", began.elapsed());
        let text = without_code(&error, "ECS");
        assert!(text.starts_with(&format!("{host}: no answer ")) && text.contains("; check the route"), "{text}");
        let lines = warnings.0.lock().unwrap().clone();
        assert_eq!(lines.len(), 2, "the last attempt is its caller's: {lines:?}");
        for (line, number) in lines.iter().zip(1..) {
            assert!(line.contains(&host) && line.contains("call=\"ListClusters\""), "{line}");
            assert!(line.contains(&format!("attempt={number} attempts=3")), "{line}");
            assert!(line.contains(&format!("retry_within_s={number}")), "{line}");
        }
    }
}
