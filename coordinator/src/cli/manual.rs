//! What shells and manuals want to know about the command line: completions and man pages, made of the arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;
use muster_proto::v1;

use super::args::{Arguments, ClientArguments};
use super::client::connect;
use super::exit::{CODES, Exit};
use super::output::say_bytes;

/// Set by the completion scripts: this is no run, but the question what could come next.
const VARIABLE: &str = "MUSTER_COMPLETE";
/// Longest wait for a coordinator while somebody waits for a completion.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shells that completions are made for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
}

/// Answers a shell that asks what could come next, and ends; does nothing else otherwise.
pub(super) fn complete() {
    CompleteEnv::with_factory(Arguments::command).var(VARIABLE).complete();
}

/// Prints the script that makes a shell ask.
pub(super) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let command = Arguments::command();
    let name = command.get_name();
    let program = program();
    let shells = Shells::builtins();
    let completer = shells.completer(shell.name()).context("this shell is not known")?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, name, name, &program, &mut script)?;
    say_bytes(&script);
    Ok(Exit::Done)
}

/// What the script calls: the name if it was found by its name, else the path, wherever the shell is then.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_else(|| "muster".to_owned());
    if !called.contains('/') {
        return called;
    }
    std::env::current_exe().map_or(called, |path| path.display().to_string())
}

/// Prints the manual's page, or writes one for each command into a directory.
pub(super) fn man(directory: Option<&Path>) -> anyhow::Result<Exit> {
    // The exit codes have a section of their own here.
    let command = Arguments::command().after_help(None::<&str>);
    let Some(directory) = directory else {
        say_bytes(&page(&clap_mangen::Man::new(command))?);
        return Ok(Exit::Done);
    };
    let mut command = command.disable_help_subcommand(true);
    command.build();
    std::fs::create_dir_all(directory)
        .and_then(|()| write_pages(&command, directory))
        .with_context(|| format!("cannot write into {}", directory.display()))?;
    eprintln!("written; `man -l {}` shows the first", directory.join("muster.1").display());
    Ok(Exit::Done)
}

/// A page of the command and of each below it.
fn write_pages(command: &Command, directory: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, directory)?;
    }
    let man = clap_mangen::Man::new(command.clone());
    std::fs::write(directory.join(man.get_filename()), page(&man)?)
}

/// What clap knows, and behind it what the command ends with.
fn page(man: &clap_mangen::Man) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    page.extend_from_slice(exit_status().as_bytes());
    Ok(page)
}

/// The codes as a section of a manual's page.
fn exit_status() -> String {
    let mut text = ".SH \"EXIT STATUS\"\n".to_owned();
    for line in CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once(' ').unwrap_or_default();
        text += &format!(".TP\n\\fB{code}\\fR\n{}\n", meaning.trim());
    }
    text
}

/// Experiments that begin so.
pub(super) fn experiments(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, &known(false))
}

/// Experiments and trials that begin so; trials once a `/` was typed, since there can be very many.
pub(super) fn subjects(typed: &OsStr) -> Vec<CompletionCandidate> {
    let has_slash = typed.to_str().is_some_and(|text| text.contains('/'));
    candidates(typed, &known(has_slash))
}

fn candidates(typed: &OsStr, known: &[(String, String)]) -> Vec<CompletionCandidate> {
    let typed = typed.to_str().unwrap_or_default();
    let matching = known.iter().filter(|(id, _)| id.starts_with(typed));
    let candidate =
        |(id, state): &(String, String)| CompletionCandidate::new(id).help(Some(state.into()));
    matching.map(candidate).collect()
}

/// Ids and states that the coordinator knows, newest first; none where it does not answer at once. Nobody wants to
/// read of failures while completing a line.
fn known(with_trials: bool) -> Vec<(String, String)> {
    let ask = async {
        // What clap takes from the environment when it is no completion.
        let variable = |name: &str| std::env::var(name).ok();
        let arguments = ClientArguments {
            coordinator: variable("MUSTER_COORDINATOR"),
            access: variable("MUSTER_ACCESS").map(PathBuf::from),
            fingerprint: variable("MUSTER_FINGERPRINT"),
        };
        let mut client = connect(&arguments).await.ok()?;
        let response = client.list_experiments(v1::ListExperimentsRequest {}).await.ok()?;
        Some(response.into_inner().experiments)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.ok().and_then(|runtime| {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, ask).await.ok().flatten() })
    });
    let mut known = Vec::new();
    for wire in asked.unwrap_or_default().into_iter().rev() {
        let Ok(view) = crate::rpc::experiment_from_wire(wire) else { continue };
        known.push((view.id.to_string(), view.state.name().to_owned()));
        if with_trials {
            let trials = view.trials.iter();
            known.extend(trials.map(|trial| (trial.id.to_string(), trial.state.name().to_owned())));
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_begin_as_typed() {
        let known =
            ["demo-1", "demo-1/t1", "other-1"].map(|id| (id.to_owned(), "running".to_owned()));
        let found = |typed: &str| -> Vec<String> {
            let found = candidates(OsStr::new(typed), &known);
            found.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(found("demo-1/"), ["demo-1/t1"]);
        assert_eq!(found("de"), ["demo-1", "demo-1/t1"]);
        assert!(found("x").is_empty());
    }

    #[test]
    fn pages_say_what_every_code_means() {
        let section = exit_status();
        assert_eq!(section.matches(".TP\n").count(), CODES.lines().count() - 1);
        assert!(section.contains("\\fB3\\fR\nthe experiment was canceled\n"), "{section}");
    }

    #[test]
    fn arguments_are_as_clap_wants_them() {
        Arguments::command().debug_assert();
    }
}
