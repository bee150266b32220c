//! The process of a verb that logs: its configuration, its log, its threads, its exit code.

use super::print_problem;
use crate::config::{Args, Config, Environment, Loaded, LogLevel, LogSettings, Problem, Role, Severity, Sources};
use crate::host::memory;
use crate::runtime::logging::{self, Log, LogControl, Stream};
use crate::runtime::{Fatal, Metadata, Options, QuickFailures, start_over};
use ecs_core::model::text::cleaned;
use futures_util::future::LocalBoxFuture;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// Two threads: one may wait for the disk while the other runs the tasks.
const WORKERS: usize = 2;
/// Threads for name resolution only: other work that may block is on a `lane`. A name server that does not answer blocks one of
/// them for up to half a minute.
const BLOCKING_THREADS: usize = 8;

/// The process before its work begins.
#[derive(Debug)]
pub(super) struct Process {
    options: Options,
    /// The sources of the configuration. They hold secrets.
    sources: Sources,
    /// The configuration without the instance's user data.
    loaded: Loaded,
    /// Where the log is written. A verb that prints an answer for a person writes it to standard error.
    stream: Stream,
}

impl Process {
    /// Loads the configuration and starts the log. Variables for the AWS SDK and the TLS library that are set in a file are put
    /// into the environment, for which this program is executed again. The log must be kept to the end.
    pub(super) fn start(args: &Args, stream: Stream) -> (Self, Log) {
        let core_dumps_off = memory::keep_out_of_core_files();
        let sources = Sources::open(Environment::from_process(), args.role);
        let loaded = sources.load(None);
        let log = start_logging(args, &loaded, sources.journal_stream(), stream);
        if let Err(error) = core_dumps_off {
            tracing::warn!(%error, "core dumps of this process cannot be prevented; they would contain passwords");
        }
        args.notes.iter().for_each(|problem| show(problem.severity, &problem.to_string(), stream));
        if args.accept_insecure_cert {
            tracing::warn!(
                "-k: TLS CERTIFICATES ARE NOT VERIFIED; anyone between this agent and AWS can run containers here"
            );
        }
        let variables = sources.process_variables();
        if !variables.is_empty() {
            let _all_written = log.flush(); // the writing thread does not survive in the new program
            let error = start_over(std::env::args_os(), &variables);
            let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
            tracing::warn!(%error, variables = names.join(" "), "cannot be put into the environment; these variables have no effect");
        }
        let options = Options {
            blackhole_imds: args.blackhole_ec2_metadata,
            accept_insecure_cert: args.accept_insecure_cert,
            role: args.role,
        };
        (Self { options, sources, loaded, stream }, log)
    }

    /// The options of the command line that are not part of the configuration.
    pub(super) fn options(&self) -> Options {
        self.options
    }

    /// The count of quick failures, which only the service of the host keeps.
    pub(super) fn quick_failures(&self) -> QuickFailures {
        QuickFailures::new(self.options.role == Role::Service && self.sources.is_notified())
    }

    /// The host that `-healthcheck` asks.
    pub(super) fn healthcheck_host(&self) -> String {
        self.sources.healthcheck_host()
    }

    /// Reads the levels of the log again from the variables and files, and sets them. If they cannot be read, they stay as they are:
    /// the operator's editor may be replacing the file at this moment.
    pub(super) fn reads_levels(&self, args: &Args, control: LogControl) -> impl Fn() + Send + Sync + 'static + use<> {
        let args = args.clone();
        let files = Mutex::new(self.sources.files_read());
        move || {
            let sources = Sources::open(Environment::from_process(), args.role);
            let loaded = sources.load(None);
            let mut before = files.lock().unwrap_or_else(PoisonError::into_inner);
            let found = sources.files_read();
            let missing = before.iter().find(|path| !found.contains(path));
            // A file that is there and cannot be read is a problem of its own.
            let missing = missing.map(|path| format!("{} is not there", cleaned(path)));
            let config = loaded.config.as_ref().or(loaded.unusable.as_ref());
            let why = match (loaded.levels_unreadable().or(missing), config) {
                (None, Some(config)) => {
                    *before = found;
                    let LogSettings { levels, file, .. } = LogSettings::new(Some(config), &args, None);
                    let (output, file) = (levels.output.name(), file.map(|_| levels.file.name()));
                    control.change(levels, || {
                        tracing::info!(
                            output,
                            file,
                            "SIGHUP: the levels of the log were read again; other settings need a restart"
                        );
                    });
                    return;
                }
                (Some(why), _) => why,
                (None, None) => "the configuration cannot be read".to_owned(),
            };
            tracing::warn!("SIGHUP: the levels of the log stay as they are: {why}");
        }
    }

    /// The client of the instance metadata service.
    ///
    /// # Errors
    /// The configuration cannot be used, or the client cannot be built.
    pub(super) fn metadata(&self) -> Result<Metadata, Fatal> {
        match &self.loaded.config {
            Some(without_user_data) => Metadata::new(without_user_data, self.options),
            None => {
                show_problems(&self.loaded, self.stream);
                Err(unusable(&self.loaded, self.options.role))
            }
        }
    }

    /// The configuration with the instance's user data. Logs all problems.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(super) async fn config(self, metadata: &Metadata) -> Result<Config, Fatal> {
        let Self { options, sources, loaded, stream } = self;
        let user_data = metadata.user_data().await;
        let loaded = user_data.map_or(loaded, |text| sources.load(Some(&text)));
        show_problems(&loaded, stream);
        let end = unusable(&loaded, options.role);
        loaded.config.ok_or(end)
    }
}

/// The end of a start with a configuration that cannot be used: the last line of the log, which must say what to do.
///
/// Compat: exit code 1, as from the Go agent, so the service manager starts the agent again. It then finds the corrected file.
fn unusable(loaded: &Loaded, role: Role) -> Fatal {
    let mut fatal = loaded.problems.iter().filter(|problem| problem.is_fatal());
    let (first, others) = (fatal.next().map(Problem::finding).unwrap_or_default(), fatal.count());
    let command = match role {
        Role::Agent => "ecs-agent check-config",
        Role::Service => "/usr/libexec/ecs-agent check-config -service",
    };
    let count = match others {
        0 => "because of 1 problem: ".to_owned(),
        _ => format!("because of {} problems, the first: ", others + 1),
    };
    Fatal::restartable(format!("the configuration cannot be used {count}{first}; see `{command}`"))
}

/// Logs a text. A person who waits for the answer of a verb gets it plain, and only if it matters.
fn show(severity: Severity, text: &str, stream: Stream) {
    match (stream, severity) {
        (Stream::Error, Severity::Notice) => {}
        (Stream::Error, _) => print_problem(&format!("{}: {text}", severity.word())),
        (Stream::Output, Severity::Fatal) => tracing::error!("{text}"),
        (Stream::Output, Severity::Changes) => tracing::warn!("{text}"),
        (Stream::Output, Severity::Notice) => tracing::info!("{text}"),
    }
}

/// Logs the problems of the configuration, and the settings that have no effect.
fn show_problems(loaded: &Loaded, stream: Stream) {
    loaded.problems.iter().for_each(|problem| show(problem.severity, &problem.to_string(), stream));
    for line in loaded.without_effect() {
        show(Severity::Changes, &line, stream);
    }
    if loaded.config.as_ref().is_some_and(|config| config.metrics_disabled) {
        show(Severity::Notice, "Metrics disabled on the instance.", stream);
    }
}

/// Starts the log. It is written as the configuration says, even if a problem keeps the agent from using it.
fn start_logging(args: &Args, loaded: &Loaded, journal: Option<String>, stream: Stream) -> Log {
    let config = loaded.config.as_ref().or(loaded.unusable.as_ref());
    let mut settings = LogSettings::new(config, args, journal);
    if stream == Stream::Error {
        settings.file = None; // the file is the daemon's, and so are the levels of the configuration
        settings.levels.output = args.log_level_output.or(args.log_level).unwrap_or(LogLevel::Warn);
    }
    logging::start(settings, stream)
}

/// Runs the work on threads of its own. Logs its error, and returns the exit code. The last lines of the log are then written.
/// The work is boxed: copies of it on the stack of the main thread would stay in memory as long as the daemon runs.
pub(super) fn block_on(_until_the_end: Log, work: LocalBoxFuture<'_, Result<(), Fatal>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Fatal { code: 1, message: format!("no threads can be started: {error}") }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            // An empty message has been printed already.
            if !fatal.message.is_empty() {
                tracing::error!(exit_code = fatal.code, "{fatal}");
            }
            ExitCode::from(fatal.code)
        }
    }
}
