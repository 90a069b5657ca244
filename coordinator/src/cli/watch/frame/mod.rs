//! The screen: a pure function of the state. On a large screen all panes side by side, on a small one the pane that
//! has the keys.

mod curve;
mod help;
mod lists;
mod overview;
mod trials;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::palette::Palette;
use super::state::{Pane, State};
use crate::view::SlotStateName;

/// Screens of at least this size show all panes.
const GRID: (u16, u16) = (100, 28);
/// Rows of all panes together from which there are some to spare.
const TALL: u16 = 34;
/// On smaller ones nothing can be read.
const LEAST: (u16, u16) = (40, 8);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame, state: &State, palette: Palette) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text =
            format!("{} x {}: at least {} x {} needed", area.width, area.height, LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [head, body, foot] = area.layout(&Layout::vertical(rows));
    frame.render_widget(header(state, palette), head);
    if area.width >= GRID.0 && area.height >= GRID.1 && !state.is_zoomed {
        grid(frame, body, state, palette);
    } else {
        single(frame, body, state, palette);
    }
    frame.render_widget(footer(state, palette, foot.width), foot);
    if state.shows_help {
        help::draw(frame, body, palette);
    }
}

fn grid(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    // Long lines of the overview take two where there are rows to spare.
    let top = if area.height >= TALL { 11 } else { 9 };
    let rows = [Constraint::Length(top), Constraint::Fill(3), Constraint::Fill(2)];
    let [top, middle, bottom] = area.layout(&Layout::vertical(rows));
    let [list, overview] =
        top.layout(&Layout::horizontal([Constraint::Percentage(34), Constraint::Fill(1)]));
    let [trials, curve] =
        middle.layout(&Layout::horizontal([Constraint::Percentage(55), Constraint::Fill(1)]));
    let [slots, log] =
        bottom.layout(&Layout::horizontal([Constraint::Percentage(45), Constraint::Fill(1)]));
    pane(frame, list, state, Pane::Experiments, palette);
    overview::draw(frame, overview, state, palette);
    for (area, shown) in
        [(trials, Pane::Trials), (curve, Pane::Curve), (slots, Pane::Slots), (log, Pane::Log)]
    {
        pane(frame, area, state, shown, palette);
    }
}

fn single(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let lines = if area.height >= 16 { 3 } else { 1 };
    let rows = [Constraint::Length(1), Constraint::Length(lines), Constraint::Min(1)];
    let [tabs, summary, rest] = area.layout(&Layout::vertical(rows));
    let mut titles = Vec::new();
    for (index, shown) in Pane::ALL.into_iter().enumerate() {
        let style = if shown == state.pane { palette.focus() } else { palette.faint() };
        let text = if shown == state.pane {
            format!("[{} {}] ", index + 1, shown.title())
        } else {
            format!(" {} {}  ", index + 1, shown.title())
        };
        titles.push(Span::styled(text, style));
    }
    frame.render_widget(Line::from(titles), tabs);
    frame.render_widget(Paragraph::new(overview::short(state, palette)), summary);
    pane(frame, rest, state, state.pane, palette);
}

fn pane(frame: &mut Frame, area: Rect, state: &State, shown: Pane, palette: Palette) {
    match shown {
        Pane::Experiments => lists::experiments(frame, area, state, palette),
        Pane::Trials => trials::draw(frame, area, state, palette),
        Pane::Curve => curve::draw(frame, area, state, palette),
        Pane::Slots => lists::slots(frame, area, state, palette),
        Pane::Log => lists::log(frame, area, state, palette),
    }
}

/// The frame of a pane: its title, what narrows it, and whether keys go to it.
fn block<'a>(state: &State, shown: Pane, title: &str, palette: Palette) -> Block<'a> {
    let filter = match state.filter.of(shown) {
        "" => String::new(),
        words => format!("/{words} "),
    };
    let has_keys = state.pane == shown;
    let (style, kind) = if has_keys {
        (palette.focus(), BorderType::Thick)
    } else {
        (palette.faint(), BorderType::Plain)
    };
    let title_style = if has_keys { palette.focus() } else { Palette::title() };
    Block::bordered()
        .border_type(kind)
        .border_style(style)
        .title(Span::styled(format!(" {title} {filter}"), title_style))
}

/// One line: where, what slots do, how fast, and what is wrong.
fn header<'a>(state: &State, palette: Palette) -> Line<'a> {
    let mut parts = vec![Span::styled(" muster  ", palette.focus())];
    // Where there is no room the address is what is cut.
    let address = Span::styled(format!("   {}", state.address), palette.faint());
    if let Some(trouble) = &state.trouble {
        parts.push(Span::styled(trouble.clone(), palette.trouble()));
        return Line::from(parts);
    }
    if !state.has_heard() {
        parts.push(Span::raw("asking the coordinator"));
        parts.push(address);
        return Line::from(parts);
    }
    let busy = state.slots().iter().filter(|slot| slot.state == SlotStateName::Busy).count();
    parts.push(Span::raw(format!("{busy} of {} slots busy", state.slots().len())));
    // A gang's ranks say the same of their run.
    let work = state.slots().iter().filter_map(|slot| slot.work.as_ref());
    let first = || work.clone().filter(|work| work.rank == 0);
    let examples: f64 = first().map(|work| work.examples_per_second).sum();
    let tokens: f64 = first().map(|work| work.tokens_per_second).sum();
    if examples > 0.0 {
        parts
            .push(Span::styled(format!("   {} examples/s", thousands(examples)), Palette::title()));
    }
    if tokens > 0.0 {
        parts.push(Span::styled(format!("   {} tokens/s", thousands(tokens)), Palette::title()));
    }
    parts.push(address);
    Line::from(parts)
}

fn footer<'a>(state: &State, palette: Palette, width: u16) -> Line<'a> {
    if state.filter.is_open {
        return Line::from(vec![
            Span::styled(format!(" /{}", state.filter.text), palette.focus()),
            Span::styled("_", Palette::chosen()),
            Span::styled("   enter keeps it, esc clears it", palette.faint()),
        ]);
    }
    let keys: &[&str] = &[
        "q leave",
        "? keys",
        "tab pane",
        "j/k rows",
        "enter zoom",
        "/ filter",
        "m metric",
        "n experiment",
        "t log of trial",
    ];
    let mut text = String::new();
    for key in keys {
        if text.chars().count() + key.len() + 3 > usize::from(width) {
            break;
        }
        text += &format!(" {key}  ");
    }
    Line::from(Span::styled(text, palette.faint()))
}

/// `1,234`, for rates.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
