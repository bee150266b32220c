//! Settings of the AWS edge.

use crate::aws::client::proxy::ProxySettings;
use crate::aws::client::sdk::{self, AgentName};
use crate::aws::client::signing::Signing;
use crate::aws::identity::credentials::{self, Keys};
use crate::aws::identity::imds;
use crate::config::{Config, RetryMode, Role};
use crate::host::kernel;
use crate::runtime::Options;
use crate::version;
use ecs_core::model::Secret;
use std::path::PathBuf;

/// The SSM agent's credentials file, as mounted into the container of ecs-init.
const ROTATING: &str = "/rotatingcreds/credentials";
/// The same file on the host.
const ROTATING_ON_HOST: &str = "/root/.aws/credentials";

/// Settings of the instance metadata client.
pub(crate) fn imds(config: &Config, blackholed: bool) -> imds::Settings {
    let endpoint = Some(config.imds_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    imds::Settings { endpoint, blackholed: blackholed || config.external }
}

/// The agent's name and version in requests to AWS.
pub(crate) fn agent_name(config: &Config) -> AgentName {
    AgentName {
        version: version::REPORTED.to_owned(),
        hash: version::COMMIT.to_owned(),
        os_family: config.detailed_os_family.clone(),
    }
}

/// The operator's proxies.
pub(crate) fn proxy(config: &Config) -> ProxySettings {
    let proxy = config.proxy();
    ProxySettings { http: proxy.http, https: proxy.https, no_proxy: proxy.no_proxy }
}

/// Settings of the clients of AWS services.
pub(crate) fn sdk(config: &Config, options: Options, region: &str, signing: Signing) -> sdk::Settings {
    sdk::Settings {
        region: region.to_owned(),
        backend_host: config.backend_host.clone(),
        endpoint_url: config.aws_endpoint_url.clone(),
        endpoint_url_ecs: config.aws_endpoint_url_ecs.clone(),
        endpoint_url_ecr: config.aws_endpoint_url_ecr.clone(),
        endpoint_url_secrets_manager: config.aws_endpoint_url_secrets_manager.clone(),
        endpoint_url_ssm: config.aws_endpoint_url_ssm.clone(),
        endpoint_url_s3: config.aws_endpoint_url_s3.clone(),
        endpoint_url_ec2: config.aws_endpoint_url_ec2.clone(),
        dual_stack: config.dual_stack,
        fips: config.fips,
        host_fips: kernel::is_in_fips_mode(kernel::FIPS_ENABLED.as_ref()),
        max_attempts: config.max_attempts,
        adaptive_retry: config.retry_mode == RetryMode::Adaptive,
        accept_insecure_cert: options.accept_insecure_cert,
        signing,
        proxy: proxy(config),
        agent: agent_name(config),
    }
}

/// Settings of the chain that finds the instance's credentials.
pub(crate) fn credentials(config: &Config, options: Options, region: &str, signing: Signing) -> credentials::Settings {
    let keys = config.access_key_id.as_ref().zip(config.secret_access_key.as_ref()).map(|(id, secret)| Keys {
        access_key_id: id.clone(),
        secret_access_key: secret.clone(),
        session_token: config.session_token.clone().unwrap_or_else(|| Secret::from("")),
    });
    credentials::Settings {
        region: region.to_owned(),
        keys,
        external: config.external,
        rotating_file: PathBuf::from(if options.role == Role::Service { ROTATING_ON_HOST } else { ROTATING }),
        rotating_profile: config.alternate_credential_profile.clone(),
        imds: imds(config, false),
        fips: config.fips,
        dual_stack: config.dual_stack,
        signing,
    }
}
