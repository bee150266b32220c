//! The text that `serve` prints: how the agent, a person and `docker` use the server.

use crate::Server;
use std::path::Path;

/// The text. `token` is the token as it may be shown; `directory` is that of the registry, `None`: it is in memory.
pub(super) fn welcome(server: &Server, token: &str, region: &str, directory: Option<&Path>) -> String {
    let (url, registry) = (server.url(), server.registry_address());
    let environment: Vec<_> = server.environment().iter().map(|(name, value)| format!("  {name}={value}")).collect();
    let state = match directory {
        Some(path) => format!(
            "Repositories and images are in {}. All other state is in memory only: it is gone when this ends.",
            path.display()
        ),
        None => "State is in memory only: it is gone when this ends.".to_owned(),
    };
    let further = server.further_accounts().into_iter().map(|(account, address)| {
        format!(
            "\n  The registry of account {account} is {address}. Its administrator has AWS_ACCESS_KEY_ID={account} and the same \
             secret."
        )
    });
    let accounts: String = further.collect();
    format!(
        "ecs-local listens on {url}. {state}\n\n\
         The agent (as you or as root, beside Docker), with this environment:\n{}\n  \
         AWS_ACCESS_KEY_ID=local\n  AWS_SECRET_ACCESS_KEY={token}\n\n\
         You. The secret access key is the token: anyone who has it can run containers on this machine.\n  \
         export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY={token} AWS_DEFAULT_REGION={region}\n  \
         aws ecs --endpoint-url {url} list-container-instances\n\n\
         Images. The registry of this ECR is {registry}:\n  \
         aws ecr --endpoint-url {url} create-repository --repository-name hello\n  \
         aws ecr --endpoint-url {url} get-login-password | docker login --username AWS --password-stdin {registry}\n  \
         docker push {registry}/hello{accounts}\n\n\
         What tasks use, live: ecs-local top\n\
         Records and injected faults: curl --user local:{token} {url}/_local/\n\
         Ctrl-C ends ecs-local.",
        environment.join("\n"),
    )
}
