//! Colours: 256, 16 or none, as the terminal has them and the user wants.

use ratatui::style::{Color, Modifier, Style};

use crate::view::{ExperimentState, TrialStateName};

/// How many colours there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Palette {
    /// <https://no-color.org>: only bold, dim and reversed.
    None,
    Sixteen,
    Indexed,
}

impl Palette {
    /// By the environment variables that terminals and users set.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        if variable("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            return Self::None;
        }
        let terminal = variable("TERM").unwrap_or_default();
        let is_true = variable("COLORTERM")
            .is_some_and(|value| value.contains("truecolor") || value == "24bit");
        if terminal.contains("256color") || terminal.contains("direct") || is_true {
            Self::Indexed
        } else if terminal.is_empty() || terminal.contains("mono") || terminal.starts_with("vt1") {
            Self::None
        } else {
            Self::Sixteen
        }
    }

    fn colored(self, indexed: u8, sixteen: Color) -> Style {
        match self {
            Self::None => Style::new(),
            Self::Sixteen => Style::new().fg(sixteen),
            Self::Indexed => Style::new().fg(Color::Indexed(indexed)),
        }
    }

    /// What is the heading of something.
    pub(super) fn title() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    pub(super) fn faint(self) -> Style {
        match self {
            Self::None => Style::new().add_modifier(Modifier::DIM),
            _ => self.colored(245, Color::DarkGray),
        }
    }

    /// The pane that has the keys.
    pub(super) fn focus(self) -> Style {
        self.colored(75, Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// The chosen row.
    pub(super) fn chosen() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The best result.
    pub(super) fn best(self) -> Style {
        self.colored(78, Color::Green)
    }

    /// The chosen trial's curve.
    pub(super) fn curve(self) -> Style {
        self.colored(75, Color::Cyan)
    }

    /// Something is wrong.
    pub(super) fn trouble(self) -> Style {
        self.colored(203, Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Something is not as usual.
    pub(super) fn notice(self) -> Style {
        self.colored(221, Color::Yellow)
    }

    pub(super) fn trial(self, state: TrialStateName) -> Style {
        match state {
            TrialStateName::Running => self.colored(75, Color::Cyan),
            TrialStateName::Completed => self.best(),
            TrialStateName::Failed => self.trouble(),
            TrialStateName::Paused | TrialStateName::Pending => self.notice(),
            TrialStateName::Stopped | TrialStateName::Canceled => self.faint(),
        }
    }

    pub(super) fn experiment(self, state: ExperimentState) -> Style {
        match state {
            ExperimentState::Preparing
            | ExperimentState::Searching
            | ExperimentState::Finishing => self.colored(75, Color::Cyan),
            ExperimentState::Completed => self.best(),
            ExperimentState::Failed => self.trouble(),
            ExperimentState::Canceled => self.faint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_as_many_as_terminal_and_user_want() {
        let of = |variables: &[(&str, &str)]| {
            Palette::of(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("TERM", "xterm-256color")]), Palette::Indexed);
        assert_eq!(of(&[("TERM", "screen"), ("COLORTERM", "truecolor")]), Palette::Indexed);
        assert_eq!(of(&[("TERM", "xterm")]), Palette::Sixteen);
        assert_eq!(of(&[("TERM", "linux"), ("NO_COLOR", "")]), Palette::Sixteen);
        assert_eq!(of(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]), Palette::None);
        assert_eq!(of(&[("TERM", "vt100")]), Palette::None);
        assert_eq!(of(&[]), Palette::None);
    }
}
