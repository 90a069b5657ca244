//! What `muster --help` prints: commands in groups, by what somebody wants to do. Clap has one list of commands only,
//! so the groups are put into its template; names and meanings are those of the arguments.

use clap::builder::StyledStr;
use clap::{Command, CommandFactory, FromArgMatches};

use super::args::Arguments;

/// Commands by what they are for, in the order of a first day.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Start experiments", &["validate", "plan", "run", "submit", "fork", "import", "schema"]),
    ("Watch them", &["ls", "watch", "curves", "logs", "why", "slots"]),
    ("Decide", &["pause", "resume", "cancel", "prioritize"]),
    ("Use results", &["report", "importance", "export", "checkpoints", "predict", "explain"]),
    ("Operate", &["serve", "token", "doctor", "completions", "man", HELP]),
];

/// Clap makes this one by itself.
const HELP: &str = "help";
const ABOUT_HELP: &str = "Print this message or the help of the given command";

/// Widest line, as of everything else that clap prints.
const WIDTH_MAX: usize = 100;
/// Narrowest: less leaves no room for a meaning.
const WIDTH_MIN: usize = 40;

/// The arguments of this process; whoever asks for help, or is wrong, ends here.
pub(super) fn parse() -> Arguments {
    let matches = grouped(Arguments::command(), width()).get_matches();
    Arguments::from_arg_matches(&matches)
        .unwrap_or_else(|error| error.format(&mut Arguments::command()).exit())
}

/// Columns of the terminal.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    columns.unwrap_or(WIDTH_MAX).clamp(WIDTH_MIN, WIDTH_MAX)
}

/// The same command with its commands in groups.
fn grouped(command: Command, width: usize) -> Command {
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{}\n{{options}}{{after-help}}",
        sections(&command, width),
        heading(&command, "Options"),
    );
    command.help_template(StyledStr::from(template))
}

fn heading(command: &Command, text: &str) -> String {
    let style = command.get_styles().get_header();
    format!("{}{text}:{}", style.render(), style.render_reset())
}

/// A paragraph for each group.
fn sections(command: &Command, width: usize) -> String {
    let names = || GROUPS.iter().flat_map(|(_, names)| *names);
    let column = names().map(|name| name.len()).max().unwrap_or(0);
    let style = command.get_styles().get_literal();
    let mut text = String::new();
    for (title, names) in GROUPS {
        text.push_str(&heading(command, title));
        text.push('\n');
        for name in names {
            let about = match command.find_subcommand(name) {
                Some(found) => found.get_about().map(ToString::to_string).unwrap_or_default(),
                None => ABOUT_HELP.to_owned(),
            };
            let indent = column + 4;
            for (number, line) in lines(&about, width.saturating_sub(indent)).enumerate() {
                let name = if number == 0 { *name } else { "" };
                let (begin, end) = (style.render(), style.render_reset());
                text.push_str(&format!(
                    "  {begin}{name}{end}{:1$}{line}\n",
                    "",
                    indent - 2 - name.len()
                ));
            }
        }
        text.push('\n');
    }
    text
}

/// Words in lines of at most `width` characters; a longer word has a line of its own.
fn lines(text: &str, width: usize) -> impl Iterator<Item = String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let command = Arguments::command();
        let known: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let once: BTreeSet<&str> = grouped.iter().copied().collect();
        assert_eq!(once.len(), grouped.len(), "one stands twice");
        let missing: Vec<_> = known.difference(&once).collect();
        assert!(missing.is_empty(), "in no group: {missing:?}");
        assert_eq!(once.difference(&known).copied().collect::<Vec<_>>(), [HELP]);
    }

    #[test]
    fn help_has_the_groups_in_their_order_and_fits_the_terminal() {
        for width in [WIDTH_MIN, 80, WIDTH_MAX] {
            let command = Arguments::command();
            let text = sections(&command, width);
            let plain = StyledStr::from(text).to_string();
            let places: Vec<usize> = GROUPS
                .iter()
                .map(|(title, _)| plain.find(&format!("{title}:\n")).unwrap())
                .collect();
            assert!(places.is_sorted(), "{plain}");
            assert!(plain.lines().all(|line| line.chars().count() <= width), "{plain}");
            assert!(plain.contains("  ls           List experiments"), "{plain}");
            let whole = grouped(command, width).render_long_help().to_string();
            assert!(whole.contains(plain.trim_end()), "{whole}");
            for part in ["Usage: muster <COMMAND>", "--version", "Exit codes:"] {
                assert!(whole.contains(part), "{part} in {whole}");
            }
            assert!(!whole.contains('{') && !whole.contains("\nCommands:"), "{whole}");
        }
    }

    #[test]
    fn long_meanings_go_on_below_themselves() {
        let found: Vec<String> = lines("one two  three fourteen", 9).collect();
        assert_eq!(found, ["one two", "three", "fourteen"]);
        assert_eq!(lines("", 9).collect::<Vec<_>>(), [""]);
    }
}
