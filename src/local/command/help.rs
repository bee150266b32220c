//! What `--help` prints. Invariant: every option is in it.

/// The text of `--help`.
pub(crate) const HELP: &str = "\
ecs-local: the part of Amazon ECS that a laptop or a test needs, in one process on loopback.
It imitates the instance metadata service, the ECS API, ACS, TCS, ECR with its registry, and (for tasks) Secrets Manager, SSM and
S3.
State is in memory only, except for the registry with --registry-dir.

Usage:
  ecs-local serve [options]                 serve until Ctrl-C, or until the terminal closes
  ecs-local up TASK.json [options] [-- NAME=VALUE ...]
                                            serve, start the agent, run this task, show what it waits for, its states and its
                                            output, stop it with Ctrl-C or when the terminal closes, clean up, end with the exit
                                            code of the container that ended the task
  ecs-local top [--once] [--json] [--sort cpu|memory|name] [--url URL --token-file FILE]
                                            show what the containers of tasks use: CPU, memory, network, disks, health
  ecs-local clean [--all]                   remove the containers, agents and directories of sessions that do not run any more;
                                            with --all also the containers of sessions whose directory is not here
  ecs-local completion bash|zsh|fish        print the completions for a shell

TASK.json is the input of `aws ecs register-task-definition --cli-input-json`, the output of `aws ecs describe-task-definition`,
or the console's JSON tab. NAME=VALUE are variables for the agent. An image that is on this machine is used without asking a
registry, unless ECS_IMAGE_PULL_BEHAVIOR says otherwise.

Exit code of up: that of the container, also after one Ctrl-C; 1 if no container is the reason, before the agent is ready, or
after a second Ctrl-C; 2 if an argument or a setting after -- is wrong, or a file or directory that is named cannot be used.

Options:
  --listen ADDRESS:PORT           where to listen            [serve: 127.0.0.1:14566, up: 127.0.0.1 and a free port]
  --cluster NAME                  name of the cluster        [serve: default, up: one of its own]
  --region NAME                   AWS region to imitate      [us-west-2]
  --registry HOST:PORT            a Docker registry behind ECR in place of the embedded one: images named HOST:PORT/... get its
                                  token
  --registry-user NAME            its user                   [AWS]
  --registry-password-file FILE   file with its password
  --registry-dir DIRECTORY        keep the embedded registry in this directory, which is created if it is missing   [in memory]
  --registry-memory SIZE          room for layers in memory, as in 512M or 4G               [2G]
  --account ID[,ID...]            further AWS accounts, each with a registry on the next loopback address
  --instance-policy FILE          the policy of the instance's role; without it, the role may do everything
  --task-role-profile NAME        give containers with a taskRoleArn the keys of this profile in ~/.aws, for calls to the real
                                  AWS; without it, they get keys that only ecs-local accepts. Needs the aws CLI
  --secrets DIRECTORY             secrets of Secrets Manager: each file is one, named by its path below the directory
  --parameters DIRECTORY          parameters of SSM, likewise: DIRECTORY/team/key is the parameter /team/key
  --buckets DIRECTORY             objects in S3, likewise: DIRECTORY/config/app.env is arn:aws:s3:::config/app.env; texts only
  --token VALUE                   the secret access key, e.g. in CI; other users see it in the list of processes
  --token-file FILE               the same, from a file that only you can read; if it is missing, it is created with a random
                                  token
  --quiet                         serve: print only the URL, and the token if it is random; up: no state changes
  --agent FILE                    up: the agent's binary     [ecs-agent beside ecs-local]
  --agent-log                     up: show the agent's log
  --remove-volumes                up: remove the volumes of scope shared that this run made; without it they stay
  --once                          top: one table, and no more. Without it a terminal shows the newest values until q or Ctrl-C; a
                                  pipe gets a table every 20 s
  --json                          top: objects, one a line, in place of tables
  --sort cpu|memory|name          top: the order of containers                              [cpu]
  --url URL                       top: a server that is no session of yours on this machine, with --token or --token-file
  -h, --help                      this text
  -V, --version                   the version

Without --token and --token-file the token is random and is printed (by up: on a terminal only). Every call, websocket and object
needs a signature (version 4) with the token as secret access key and any access key id, /_local/ the token itself. The instance
metadata gives role credentials and user data to processes of your user and of root only, on this machine; an agent anywhere else
needs the token in AWS_SECRET_ACCESS_KEY.

Then:
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=TOKEN AWS_DEFAULT_REGION=us-west-2
  aws ecs --endpoint-url http://127.0.0.1:14566 list-container-instances
  curl --user local:TOKEN http://127.0.0.1:14566/_local/       inspect the state, inject faults
";

#[cfg(test)]
mod tests {
    use super::HELP;

    #[test]
    fn every_line_fits_on_a_terminal() {
        let wide: Vec<&str> = HELP.lines().filter(|line| line.chars().count() > 130).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}
