//! `ecs-agent`, the daemon: arguments, configuration, logging, exit code. No logic.

use ecs_agent::config::{self, Action, Args, Config, Loaded, LogFormat, Sources};
use ecs_agent::introspection::LICENSE;
use ecs_agent::runtime::{self, Early, Fatal, Metadata, Options, logging};
use ecs_agent::version;
use std::io::Write;
use std::process::ExitCode;

/// Two threads: one may wait for the disk while the other serves.
const WORKERS: usize = 2;
/// Names are looked up on these, and nothing else is done there: other work that may block is on a `lane`. A dead name server holds
/// one for up to half a minute.
const BLOCKING_THREADS: usize = 8;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            say(&format!("{error}\n\n{}", config::help::usage()));
            return ExitCode::from(5);
        }
    };
    match args.action {
        Action::Run => {}
        Action::Help => return say(&config::help::usage()),
        Action::Version => return say(&version_text()),
        Action::License => return say(LICENSE),
        Action::ConfigReference => return say(&config::help::reference()),
        Action::CheckConfig | Action::Healthcheck | Action::HealthcheckHttp | Action::EcsAttributes => {}
    }
    let kept_out = runtime::keep_out_of_core_files();
    let sources = config::Sources::open(config::Environment::from_process(), args.role);
    let loaded = sources.load(None);
    if args.action == Action::CheckConfig {
        say(&config::help::report(&loaded));
        return if loaded.config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    // What is logged gets out when this is dropped, at the end of `main`, in whatever way it ends.
    let log = start_logging(&args, loaded.config.as_ref());
    if let Err(error) = kept_out {
        tracing::warn!(%error, "a core file of this process could not be ruled out; it would hold passwords");
    }
    for note in &args.notes {
        tracing::warn!("{note}");
    }
    if args.accept_insecure_cert {
        tracing::warn!(
            "-k: TLS CERTIFICATES ARE NOT VERIFIED; whoever is between this agent and AWS can run containers here"
        );
    }
    let variables = sources.for_the_process();
    if !variables.is_empty() {
        let _all_written = log.flush(); // the thread that writes does not live on in the new program
        let error = runtime::start_over(std::env::args_os(), &variables);
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        tracing::warn!(%error, variables = names.join(" "), "cannot be put into the environment: without effect");
    }
    exit(block_on(act(args, sources, loaded)))
}

/// Tells what there is to tell of the configuration; `None` if the agent must not start.
fn usable(loaded: Loaded) -> Option<Config> {
    for problem in &loaded.problems {
        if problem.fatal { tracing::error!("{problem}") } else { tracing::warn!("{problem}") }
    }
    for line in loaded.without_effect() {
        tracing::warn!("{line}");
    }
    loaded.config
}

async fn act(args: Args, sources: Sources, loaded: Loaded) -> Result<(), Fatal> {
    let _taken = runtime::take_harmless_signals();
    let options = Options {
        blackhole_imds: args.blackhole_ec2_metadata,
        accept_insecure_cert: args.accept_insecure_cert,
        role: args.role,
    };
    if let Action::Healthcheck | Action::HealthcheckHttp = args.action {
        return healthcheck(args.action, &sources.healthcheck_host()).await;
    }
    let Some(on_this_machine) = &loaded.config else {
        let _none = usable(loaded);
        return Err(Fatal::unusable_configuration());
    };
    let metadata = Metadata::new(on_this_machine, options)?;
    // Otherwise the attributes are asked for.
    let early = (args.action == Action::Run).then(Early::begin);
    let user_data = metadata.user_data().await;
    let loaded = user_data.map_or(loaded, |text| sources.load(Some(&text)));
    drop(sources); // holds secrets
    let Some(config) = usable(loaded) else { return Err(Fatal::unusable_configuration()) };
    let Some(early) = early else {
        say(&runtime::attributes_text(&config).await?);
        return Ok(());
    };
    tracing::info!(version = version::OWN, commit = version::COMMIT, as_ecs_agent = version::SPOKEN, "starting");
    runtime::run(config, options, metadata, early).await
}

/// Prints how the agent is in one line, whatever the log level.
async fn healthcheck(action: Action, host: &str) -> Result<(), Fatal> {
    let found = match action {
        Action::HealthcheckHttp => runtime::healthcheck_http(host).await,
        _ => runtime::healthcheck(host).await,
    };
    match found {
        Ok(text) => {
            say(&format!("healthy: {text}\n"));
            Ok(())
        }
        Err(Fatal { code, message }) => {
            say(&format!("{message}\n"));
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
            // Without a message it is printed already.
            if !fatal.message.is_empty() {
                tracing::error!(exit_code = fatal.code, "{fatal}");
            }
            ExitCode::from(fatal.code)
        }
    }
}

fn version_text() -> String {
    let (spoken, commit, own) = (version::SPOKEN, version::COMMIT, version::OWN);
    format!("Amazon ECS Agent:\n\tVersion: {spoken}\n\tCommit: {commit}\n\tDirty: false\n\tProgram: ecs-agent {own}\n")
}

/// Writes to standard output; a closed pipe is not our failure.
fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
