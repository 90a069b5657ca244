//! What keys do to the state.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{Pane, State};

/// Rows that a page key moves.
const PAGE: isize = 10;
/// More rows than there are.
const ALL: isize = isize::MAX / 2;

/// Keys and what they do, for the help.
pub(super) const KEYS: [(&str, &str); 12] = [
    ("tab, shift-tab, 1 to 5", "go to another pane"),
    ("up, down, j, k", "move through its rows"),
    ("page up, page down, g, G", "move further"),
    ("enter", "open an experiment; give a pane the whole screen, or take it back"),
    ("/", "show only rows with these words"),
    ("esc", "leave what is open: this page, a filter, the whole screen"),
    ("m", "draw the next metric"),
    ("t", "log of the chosen trial, or of all"),
    ("n, N", "next and previous experiment"),
    ("?", "this page"),
    ("q", "leave; the experiment goes on"),
    ("ctrl-c", "the same, with exit code 130"),
];

/// Whether the view goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    GoOn,
    Leave,
    Interrupt,
}

/// Applies a key.
pub(super) fn press(state: &mut State, key: KeyEvent) -> Course {
    if key.kind == KeyEventKind::Release {
        return Course::GoOn;
    }
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Course::Interrupt;
    }
    if state.filter.is_open {
        type_into_filter(state, key.code);
        return Course::GoOn;
    }
    if state.shows_help {
        // Any key leaves the page; the one that ends the view still does.
        state.shows_help = false;
        return if key.code == KeyCode::Char('q') { Course::Leave } else { Course::GoOn };
    }
    match key.code {
        KeyCode::Char('q') => return Course::Leave,
        KeyCode::Char('?') | KeyCode::F(1) => state.shows_help = true,
        KeyCode::Tab => go(state, 1),
        KeyCode::BackTab => go(state, Pane::ALL.len() - 1),
        KeyCode::Char(digit @ '1'..='5') => {
            let place = digit.to_digit(10).unwrap_or(1) as usize;
            state.pane = Pane::ALL.get(place - 1).copied().unwrap_or(state.pane);
        }
        KeyCode::Down | KeyCode::Char('j') => state.step(1),
        KeyCode::Up | KeyCode::Char('k') => state.step(-1),
        KeyCode::PageDown | KeyCode::Char(' ') => state.step(PAGE),
        KeyCode::PageUp => state.step(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => state.step(-ALL),
        KeyCode::End | KeyCode::Char('G') => state.step(ALL),
        KeyCode::Enter => enter(state),
        KeyCode::Esc => leave(state),
        KeyCode::Char('/') => state.filter.open(state.pane),
        KeyCode::Char('m') => state.next_metric(),
        KeyCode::Char('t') => {
            state.only_trial = !state.only_trial;
            state.scrolled_back = 0;
        }
        KeyCode::Char('n') => other_experiment(state, 1),
        KeyCode::Char('N') => other_experiment(state, -1),
        _ => {}
    }
    Course::GoOn
}

fn type_into_filter(state: &mut State, code: KeyCode) {
    match code {
        KeyCode::Enter => state.filter.close(),
        KeyCode::Esc => state.filter.clear(),
        KeyCode::Backspace => {
            state.filter.text.pop();
        }
        KeyCode::Char(letter) => state.filter.text.push(letter),
        _ => {}
    }
    state.scrolled_back = 0;
}

fn go(state: &mut State, by: usize) {
    let place = (state.pane.index() + by) % Pane::ALL.len();
    state.pane = Pane::ALL.get(place).copied().unwrap_or(Pane::Trials);
}

fn enter(state: &mut State) {
    if state.pane == Pane::Experiments {
        state.pane = Pane::Trials;
    } else {
        state.is_zoomed = !state.is_zoomed;
    }
}

fn leave(state: &mut State) {
    if state.filter.of(state.pane).is_empty() {
        state.is_zoomed = false;
    } else {
        state.filter.clear();
    }
}

fn other_experiment(state: &mut State, by: isize) {
    let pane = state.pane;
    state.pane = Pane::Experiments;
    state.step(by);
    state.pane = pane;
}
