//! `ecs-agent`, the daemon: arguments, configuration, logging, exit code. No logic.

use ecs_agent::config::{self, Action, Args, Config, Loaded, LogFormat, Sources};
use ecs_agent::introspection::LICENSE;
use ecs_agent::runtime::{self, Early, Fatal, Metadata, Options, logging};
use ecs_agent::version;
use std::io::Write;
use std::process::ExitCode;

/// Two threads: one may wait for the disk while the other runs the tasks.
const WORKERS: usize = 2;
/// Threads for name resolution only: other work that may block is on a `lane`. A name server that does not answer blocks one of
/// them for up to half a minute.
const BLOCKING_THREADS: usize = 8;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            print(&format!("{error}\n\n{}", config::help::usage()));
            return ExitCode::from(5);
        }
    };
    match args.action {
        Action::Run => {}
        Action::Help => return print(&config::help::usage()),
        Action::Version => return print(&version_text()),
        Action::License => return print(LICENSE),
        Action::ConfigReference => return print(&config::help::reference()),
        Action::CheckConfig | Action::Healthcheck | Action::HealthcheckHttp | Action::EcsAttributes => {}
    }
    let core_dumps_off = runtime::keep_out_of_core_files();
    let sources = config::Sources::open(config::Environment::from_process(), args.role);
    let loaded = sources.load(None);
    if args.action == Action::CheckConfig {
        print(&config::help::report(&loaded));
        return if loaded.config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    // Dropping this at the end of `main` writes the last lines, however `main` ends.
    let log = start_logging(&args, loaded.config.as_ref());
    if let Err(error) = core_dumps_off {
        tracing::warn!(%error, "core dumps of this process cannot be prevented; they would contain passwords");
    }
    for note in &args.notes {
        tracing::warn!("{note}");
    }
    if args.accept_insecure_cert {
        tracing::warn!(
            "-k: TLS CERTIFICATES ARE NOT VERIFIED; anyone between this agent and AWS can run containers here"
        );
    }
    let variables = sources.process_variables();
    if !variables.is_empty() {
        let _all_written = log.flush(); // the writing thread does not survive in the new program
        let error = runtime::start_over(std::env::args_os(), &variables);
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        tracing::warn!(%error, variables = names.join(" "), "cannot be put into the environment; these variables have no effect");
    }
    exit(block_on(perform(args, sources, loaded)))
}

/// Logs the problems of the configuration, and the settings that have no effect. `None` if the agent must not start with it.
fn checked(loaded: Loaded) -> Option<Config> {
    for problem in &loaded.problems {
        if problem.fatal { tracing::error!("{problem}") } else { tracing::warn!("{problem}") }
    }
    for line in loaded.without_effect() {
        tracing::warn!("{line}");
    }
    loaded.config
}

/// Performs the action that the arguments name: runs the agent, checks its health, or prints its attributes.
async fn perform(args: Args, sources: Sources, loaded: Loaded) -> Result<(), Fatal> {
    let _caught = runtime::catch_harmless_signals();
    let options = Options {
        blackhole_imds: args.blackhole_ec2_metadata,
        accept_insecure_cert: args.accept_insecure_cert,
        role: args.role,
    };
    if let Action::Healthcheck | Action::HealthcheckHttp = args.action {
        return healthcheck(args.action, &sources.healthcheck_host()).await;
    }
    let Some(without_user_data) = &loaded.config else {
        let _none = checked(loaded); // logs the problems
        return Err(Fatal::unusable_configuration());
    };
    let metadata = Metadata::new(without_user_data, options)?;
    // `None` means that the attributes are to be printed.
    let early = (args.action == Action::Run).then(Early::begin);
    let user_data = metadata.user_data().await;
    let loaded = user_data.map_or(loaded, |text| sources.load(Some(&text)));
    drop(sources); // holds secrets
    let Some(config) = checked(loaded) else { return Err(Fatal::unusable_configuration()) };
    let Some(early) = early else {
        print(&runtime::attributes_text(&config).await?);
        return Ok(());
    };
    tracing::info!(version = version::OWN, commit = version::COMMIT, as_ecs_agent = version::REPORTED, "starting");
    runtime::run(config, options, metadata, early).await
}

/// Prints the agent's health in one line, whatever the log level.
async fn healthcheck(action: Action, host: &str) -> Result<(), Fatal> {
    let found = match action {
        Action::HealthcheckHttp => runtime::healthcheck_http(host).await,
        _ => runtime::healthcheck(host).await,
    };
    match found {
        Ok(text) => {
            print(&format!("healthy: {text}\n"));
            Ok(())
        }
        Err(Fatal { code, message }) => {
            print(&format!("{message}\n"));
            Err(Fatal { code, message: String::new() })
        }
    }
}

fn start_logging(args: &Args, config: Option<&Config>) -> logging::Log {
    let level = args.log_level.or(config.map(|config| config.log_level));
    let form = match config.map(|config| config.log_format) {
        Some(LogFormat::Json) => logging::Form::Json,
        Some(LogFormat::Logfmt) | None => logging::Form::Text,
    };
    logging::start(level.map_or("info", config::LogLevel::filter), form)
}

fn block_on(work: impl Future<Output = Result<(), Fatal>>) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Fatal { code: 1, message: format!("no threads can be started: {error}") }),
    }
}

fn exit(result: Result<(), Fatal>) -> ExitCode {
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

fn version_text() -> String {
    let (reported, commit, own) = (version::REPORTED, version::COMMIT, version::OWN);
    format!(
        "Amazon ECS Agent:\n\tVersion: {reported}\n\tCommit: {commit}\n\tDirty: false\n\tProgram: ecs-agent {own}\n"
    )
}

/// Writes to standard output. A closed pipe is not an error of the agent.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
