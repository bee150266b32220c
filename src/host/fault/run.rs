//! Runs the commands of one operation, until its deadline.

use super::blackhole::{self, Family};
use super::command::{CommandLine, Runner};
use super::shaping::{self, Shape};
use crate::host::program::{Call, Outcome, ProgramError, Programs};
use ecs_core::model::TaskArn;
use ecs_core::model::fault::{BlackholePort, Destination, Fault, FaultError};
use tokio::time::Instant;

/// What the commands of a start have made so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    /// The families that have the chain of the blackhole.
    pub(super) families: Vec<Family>,
    /// The interfaces that have the tree of latency or loss.
    pub(super) interfaces: Vec<String>,
}

/// The commands of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) programs: &'a Programs,
    pub(super) runner: Runner,
    /// The file of the network namespace; `None`: the agent's own.
    pub(super) namespace: Option<&'a str>,
    /// No command runs longer than this.
    pub(super) deadline: Instant,
    /// The task, for the log.
    pub(super) task: &'a TaskArn,
}

impl Run<'_> {
    /// Whether the blackhole is running. Compat: if the rules cannot be read, it is not, as with the Go agent.
    pub(super) async fn has_blackhole(&self, port: BlackholePort) -> Result<bool, FaultError> {
        Ok(self.outcome(blackhole::check(port), "").await?.is_success())
    }

    /// Starts a blackhole that is not running. `made` says on an error what must be removed.
    pub(super) async fn start_blackhole(
        &self,
        port: BlackholePort,
        spared: &[Destination],
        ipv6_only: bool,
        made: &mut Made,
    ) -> Result<(), FaultError> {
        for family in Family::BOTH {
            let started = self.start_family(family, port, spared, made).await;
            // Compat: without IPv6 rules the fault counts as started, unless the task has only IPv6 addresses.
            if started == Err(FaultError::Failed) && family == Family::V6 && !ipv6_only {
                tracing::warn!(task = self.task.task_id(), "the blackhole affects IPv4 only");
                if made.families.contains(&family) {
                    self.stop_family(family, port).await?;
                }
                return Ok(());
            }
            started?;
        }
        Ok(())
    }

    async fn start_family(
        &self,
        family: Family,
        port: BlackholePort,
        spared: &[Destination],
        made: &mut Made,
    ) -> Result<(), FaultError> {
        let mut is_first = true;
        for line in blackhole::start(family, port, spared) {
            let done = self.done(line, "").await;
            // A command that did not end may have had its effect.
            if std::mem::take(&mut is_first) && matches!(done, Ok(()) | Err(FaultError::TimedOut)) {
                made.families.push(family);
            }
            done?;
        }
        Ok(())
    }

    /// Removes everything that a blackhole has in this family. The last command decides whether that succeeded: the others fail
    /// if the blackhole was started in part only.
    pub(super) async fn stop_family(&self, family: Family, port: BlackholePort) -> Result<(), FaultError> {
        self.last_decides(blackhole::stop(family, port)).await
    }

    /// Whether anything of a blackhole is left in this family. Without the program, nothing is.
    pub(super) async fn has_chain(&self, family: Family, port: BlackholePort) -> Result<bool, FaultError> {
        match self.ended(blackhole::exists(family, port), "").await {
            Ok(outcome) => Ok(outcome.is_success()),
            Err(ProgramError::Missing { .. }) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Latency or loss on this interface; `None`: neither.
    pub(super) async fn shape(&self, interface: &str) -> Result<Option<Shape>, FaultError> {
        let line = shaping::check(interface);
        let outcome = self.outcome(line.clone(), "").await?;
        let found = if outcome.is_success() {
            shaping::found(&outcome.output).map_err(|error| format!("its output cannot be read: {error}"))
        } else {
            Err(outcome.failure())
        };
        found.map_err(|error| self.log(&line, &error))
    }

    /// Whether the interface has the root of latency or loss. An interface that is gone has none.
    pub(super) async fn has_root(&self, interface: &str) -> Result<bool, FaultError> {
        let line = shaping::root_check(interface);
        let outcome = self.outcome(line.clone(), "").await?;
        if !outcome.is_success() {
            return Ok(false);
        }
        shaping::has_root(&outcome.output).map_err(|error| self.log(&line, &error.to_string()))
    }

    /// Starts latency or loss on all these interfaces, which have neither. `made` says on an error what must be removed.
    pub(super) async fn start_shape(
        &self,
        fault: &Fault,
        interfaces: &[String],
        made: &mut Made,
    ) -> Result<(), FaultError> {
        if let Some(odd) = interfaces.iter().find(|name| !shaping::is_plain(name)) {
            tracing::error!(task = self.task.task_id(), interface = odd, "the name of the interface is not supported");
            return Err(FaultError::Failed);
        }
        for interface in interfaces {
            let root = self.done(shaping::root(interface), "").await;
            if matches!(root, Ok(()) | Err(FaultError::TimedOut)) {
                made.interfaces.push(interface.clone());
            }
            root?;
            let (line, input) = shaping::batch(&shaping::tree(interface, fault));
            self.done(line, &input).await?;
        }
        Ok(())
    }

    /// Removes latency or loss from an interface. The last command decides whether that succeeded.
    pub(super) async fn stop_shape(&self, interface: &str) -> Result<(), FaultError> {
        self.last_decides(shaping::stop(interface)).await
    }

    async fn last_decides<const N: usize>(&self, lines: [CommandLine; N]) -> Result<(), FaultError> {
        let mut done = Ok(());
        for line in lines {
            done = self.done(line, "").await;
            if done == Err(FaultError::TimedOut) {
                break;
            }
        }
        done
    }

    /// Runs a command that must succeed.
    async fn done(&self, line: CommandLine, input: &str) -> Result<(), FaultError> {
        let outcome = self.outcome(line.clone(), input).await?;
        if outcome.is_success() { Ok(()) } else { Err(self.log(&line, &outcome.failure())) }
    }

    /// Runs a command, whatever its exit code.
    async fn outcome(&self, line: CommandLine, input: &str) -> Result<Outcome, FaultError> {
        self.ended(line, input).await.map_err(|error| self.failed(&error))
    }

    async fn ended(&self, line: CommandLine, input: &str) -> Result<Outcome, ProgramError> {
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let line = line.in_namespace(self.namespace).by(self.runner, limit);
        let arguments = line.arguments();
        let call = Call { program: line.program(), arguments: &arguments, input, limit };
        if limit.is_zero() {
            return Err(ProgramError::TimedOut { call: call.to_string(), limit });
        }
        let ended = self.programs.run(&call).await;
        if let Ok(outcome) = &ended {
            tracing::debug!(task = self.task.task_id(), command = %call, code = outcome.code, "Command execution completed");
        }
        ended
    }

    fn failed(&self, error: &ProgramError) -> FaultError {
        tracing::error!(task = self.task.task_id(), %error, "Command execution failed");
        if matches!(error, ProgramError::TimedOut { .. }) { FaultError::TimedOut } else { FaultError::Failed }
    }

    fn log(&self, line: &CommandLine, error: &str) -> FaultError {
        let command = ecs_core::model::text::cleaned(&line.to_string());
        tracing::error!(task = self.task.task_id(), command, error, "Command execution failed");
        FaultError::Failed
    }
}
