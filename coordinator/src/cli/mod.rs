//! The command line. Standard output is for results, standard error for everything said on the way.

// First: its macros stand in front of those of the standard library in all that follow.
#[macro_use]
mod output;

mod access_check;
mod args;
mod checkpoints;
mod client;
mod curves;
mod doctor;
mod exit;
mod explain;
mod export;
mod groups;
mod header;
mod import;
mod listing;
mod manual;
mod model_args;
mod number;
mod one_shot;
mod outage;
mod plan;
mod predict;
mod progress;
mod report;
mod run;
mod serve;
mod stored_logs;
mod summary;
mod table;
mod token;
mod validate;
mod watch;

use std::process::ExitCode;

use args::Command;
use exit::Exit;

/// Parses the arguments, does what they say, and maps the outcome to an exit code.
pub fn main() -> ExitCode {
    manual::complete();
    let arguments = groups::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(dispatch(arguments.command)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            for hint in exit::hints(&error) {
                eprintln!("hint: {hint}");
            }
            exit::of_error(&error).into()
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<Exit> {
    if matches!(command, Command::Run(_) | Command::Serve(_)) {
        output::go_on_unread();
    }
    match command {
        Command::Run(arguments) => run::run(arguments).await,
        Command::Serve(arguments) => serve::serve(arguments).await,
        Command::Validate(arguments) => validate::validate(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Schema => import::print_schema(),
        Command::Import(arguments) => import::import_file(&arguments),
        Command::Predict(arguments) => predict::predict(arguments).await,
        Command::Explain(arguments) => explain::explain(arguments).await,
        Command::Submit(arguments) => client::submit(arguments).await,
        Command::Ls(arguments) => listing::ls(arguments).await,
        Command::Watch(arguments) => watch::watch(arguments).await,
        Command::Slots(arguments) => listing::slots(arguments).await,
        Command::Importance(arguments) => listing::importance(arguments).await,
        Command::Why(arguments) => client::why(arguments).await,
        Command::Logs(arguments) => client::logs(arguments).await,
        Command::Curves(arguments) => curves::curves(arguments).await,
        Command::Export(arguments) => export::export(arguments).await,
        Command::Report(arguments) => report::report(arguments).await,
        Command::Pause(arguments) => client::pause(arguments).await,
        Command::Resume(arguments) => client::resume(arguments).await,
        Command::Cancel(arguments) => client::cancel(arguments).await,
        Command::Prioritize(arguments) => client::prioritize(arguments).await,
        Command::Fork(arguments) => client::fork(arguments).await,
        Command::Doctor(arguments) => doctor::doctor(arguments).await,
        Command::Token(command) => token::token(command),
        Command::Checkpoints(command) => checkpoints::checkpoints(command).await,
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::man(directory.as_deref()),
    }
}

/// The error and its causes on one line, none said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}
