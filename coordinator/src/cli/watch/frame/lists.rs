//! Experiments, slots and log lines.

use muster_common::count::counted;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use super::super::palette::Palette;
use super::super::state::{Pane, State};
use super::block;
use crate::cli::number::clock;
use crate::cli::progress::{bar, state_name};
use crate::view::{ExperimentView, SlotStateName, SlotView};

/// Longest name of a slot.
const SLOT_NAME_WIDTH: usize = 14;

/// Every experiment, newest first.
pub(super) fn experiments(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let views = state.experiments();
    let block = block(state, Pane::Experiments, Pane::Experiments.title(), palette);
    // Names matter more than how long it took, and that more than how far it is.
    let longest = views.iter().map(|view| view.id.as_str().len()).max().unwrap_or(0);
    let room = usize::from(area.width.saturating_sub(2)).saturating_sub(longest + 11);
    let (has_time, has_trials) = (room >= 9, room >= 19);
    let row = |view: &&ExperimentView| {
        let ended = view.trials.iter().filter(|trial| trial.state.is_ended()).count();
        let mut cells = vec![
            Text::from(view.id.to_string()),
            Text::from(Span::styled(state_name(view), palette.experiment(view.state))),
        ];
        let trials = Text::from(format!("{ended}/{}", view.max_trials)).right_aligned();
        let time = Text::from(clock(view.elapsed_seconds())).right_aligned();
        cells.extend(has_trials.then_some(trials));
        cells.extend(has_time.then_some(time));
        Row::new(cells)
    };
    let mut widths = vec![Constraint::Fill(1), Constraint::Length(10)];
    widths.extend(has_trials.then_some(Constraint::Length(9)));
    widths.extend(has_time.then_some(Constraint::Length(8)));
    let table = Table::new(views.iter().map(row), widths)
        .row_highlight_style(Palette::chosen())
        .block(block);
    let chosen = views.iter().position(|view| Some(&view.id) == state.experiment());
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(chosen));
}

/// Every slot and what it does.
pub(super) fn slots(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let busy = state.slots().iter().filter(|slot| slot.state == SlotStateName::Busy).count();
    let title = format!("Slots {busy} of {} busy", state.slots().len());
    let block = block(state, Pane::Slots, &title, palette);
    if state.slots().is_empty() {
        let text = if state.has_heard() { " no worker is here" } else { "" };
        frame.render_widget(Paragraph::new(text).style(palette.faint()).block(block), area);
        return;
    }
    let workers: Vec<String> = state.slots().iter().map(|slot| slot.worker.to_string()).collect();
    let names = slot_names(&workers);
    let longest = names.iter().map(|name| name.chars().count()).max();
    let longest = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
    let room = usize::from(area.width.saturating_sub(longest).saturating_sub(4));
    let named = state.slots().iter().zip(names);
    let rows = named.map(|(slot, name)| slot_row(slot, name, room, state, palette));
    let table = Table::new(rows, [Constraint::Length(longest), Constraint::Fill(1)])
        .column_spacing(2)
        .row_highlight_style(Palette::chosen())
        .block(block);
    let chosen = (state.pane == Pane::Slots).then_some(state.slot);
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(chosen));
}

/// What tells workers from each other: long names without what all begin with, and of what is still long the end.
fn slot_names(workers: &[String]) -> Vec<String> {
    let is_long = |name: &str| name.chars().count() > SLOT_NAME_WIDTH;
    let mut common = 0;
    if let Some((first, others)) = workers.split_first().filter(|(_, others)| !others.is_empty())
        && workers.iter().any(|name| is_long(name))
    {
        let parts = first.match_indices('-').map(|(at, _)| at + 1);
        let is_common = |at: &usize| others.iter().all(|name| name.get(..*at) == first.get(..*at));
        common = parts.take_while(is_common).last().unwrap_or(0);
    }
    let short = |name: &String| {
        let name = name.get(common..).unwrap_or(name);
        if !is_long(name) {
            return name.to_owned();
        }
        let surplus = name.chars().count() - SLOT_NAME_WIDTH;
        format!("…{}", name.chars().skip(surplus + 1).collect::<String>())
    };
    workers.iter().map(short).collect()
}

/// A slot; `room` is the width of what it does.
fn slot_row<'a>(
    slot: &SlotView,
    name: String,
    room: usize,
    state: &State,
    palette: Palette,
) -> Row<'a> {
    let name = Text::from(name);
    let Some(work) = &slot.work else {
        return Row::new(vec![name, Text::from(Span::styled(slot.state.name(), palette.faint()))]);
    };
    // Of the experiment that is looked at, the number says enough.
    let is_chosen = state.experiment() == Some(&work.experiment);
    let about = match &work.trial {
        Some(trial) if is_chosen => format!("t{}", trial.number),
        Some(trial) => trial.to_string(),
        None => work.experiment.to_string(),
    };
    let mut text = format!("{about} {}", work.text);
    if work.num_ranks > 1 {
        text += &format!(", rank {} of {}", work.rank, work.num_ranks);
    }
    if work.target_step > 0 {
        text += &format!("  {}/{}", work.step, work.target_step);
    }
    if work.examples_per_second > 0.0 {
        text += &format!("  {:.0} examples/s", work.examples_per_second);
    }
    let left = room.saturating_sub(text.chars().count());
    let mut parts = vec![Span::raw(text)];
    if work.target_step > 0 {
        let bar = format!("  {}", bar(work.step as f64 / work.target_step as f64));
        // Half a bar says something else than the whole one.
        if bar.chars().count() <= left {
            parts.push(Span::styled(bar, palette.curve()));
        }
    }
    if slot.state == SlotStateName::Draining {
        parts.push(Span::styled("  draining", palette.notice()));
    }
    Row::new(vec![name, Text::from(Line::from(parts))])
}

/// The end of the log, or what lies above it.
pub(super) fn log(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let lines = state.lines();
    let trial = state.trial().filter(|_| state.only_trial);
    let mut title = match (trial, state.experiment()) {
        (Some(trial), _) => format!("Log of t{}", trial.id.number),
        (None, Some(id)) => format!("Log of {id}"),
        (None, None) => "Log".to_owned(),
    };
    if state.scrolled_back > 0 {
        title += &format!(", {} up", counted(state.scrolled_back, "line"));
    }
    let block = block(state, Pane::Log, &title, palette);
    let height = usize::from(area.height.saturating_sub(2));
    let end = lines.len().saturating_sub(state.scrolled_back);
    let shown = lines.get(end.saturating_sub(height)..end).unwrap_or_default();
    let text: Vec<Line> = shown.iter().map(|line| log_line(line, palette)).collect();
    frame.render_widget(Paragraph::new(text).block(block), area);
}

/// `TRIAL  WORKER  TEXT`: the text matters, and warnings do more.
fn log_line<'a>(line: &str, palette: Palette) -> Line<'a> {
    let mut parts = line.splitn(3, "  ");
    let (trial, _worker) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (time, text) = timed(parts.next().unwrap_or_default());
    let style = if text.contains("ERROR") || text.contains("panicked") {
        palette.trouble()
    } else if text.contains("WARN") {
        palette.notice()
    } else {
        ratatui::style::Style::new()
    };
    Line::from(vec![
        Span::styled(format!("{trial:<4} "), palette.curve()),
        Span::styled(time, palette.faint()),
        Span::styled(text, style),
    ])
}

/// The time of day, and what was said then: the date and what the first columns say already take too much room.
fn timed(text: &str) -> (String, String) {
    let (stamp, said) = text.split_once(' ').unwrap_or_default();
    let time = stamp.split_once('T').filter(|_| stamp.ends_with('Z')).map(|(_, time)| time);
    let Some(time) = time.and_then(|time| time.split(['.', 'Z']).next()) else {
        return (String::new(), text.to_owned());
    };
    let said = said.trim_start();
    let (level, rest) = said.split_once(' ').unwrap_or((said, ""));
    let behind_span = rest.strip_prefix("run{").and_then(|rest| rest.split_once("}: "));
    let message = behind_span.map_or(rest, |(_, message)| message);
    (format!("{time} "), format!("{level} {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_told_apart() {
        let names = |all: &[&str]| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            slot_names(&all)
        };
        assert_eq!(names(&["here-1", "here-2"]), ["here-1", "here-2"]);
        assert_eq!(names(&["local-1795993375983-0-0", "local-1795993375983-1-0"]), ["0-0", "1-0"]);
        assert_eq!(names(&["a-1", "gpu-node-17-slot-3"]), ["a-1", "…ode-17-slot-3"]);
        assert_eq!(names(&["local-1795993375983-0-0"]), ["…993375983-0-0"]);
    }

    #[test]
    fn a_line_is_shortened_to_what_is_new() {
        let both = |time: &str, text: &str| (time.to_owned(), text.to_owned());
        let line = "2026-11-29T20:17:53.181474Z  INFO run{experiment=a-1 trial=3}: worker::train: trained step=4";
        assert_eq!(timed(line), both("20:17:53 ", "INFO worker::train: trained step=4"));
        let line = "2026-11-29T20:17:53Z  WARN something";
        assert_eq!(timed(line), both("20:17:53 ", "WARN something"));
        assert_eq!(timed("step 3 of 4"), both("", "step 3 of 4"));
        assert_eq!(timed(""), both("", ""));
    }
}
