//! Experiments, slots and log lines.

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

/// Every experiment, newest first.
pub(super) fn experiments(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let views = state.experiments();
    let block = block(state, Pane::Experiments, Pane::Experiments.title(), palette);
    let row = |view: &&ExperimentView| {
        let ended = view.trials.iter().filter(|trial| trial.state.is_ended()).count();
        Row::new(vec![
            Text::from(view.id.to_string()),
            Text::from(Span::styled(state_name(view), palette.experiment(view.state))),
            Text::from(format!("{ended}/{}", view.max_trials)).right_aligned(),
            Text::from(clock(view.elapsed_seconds())).right_aligned(),
        ])
    };
    let widths =
        [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(9), Constraint::Length(8)];
    let table = Table::new(views.iter().map(row), widths)
        .row_highlight_style(palette.chosen())
        .block(block);
    let chosen = views.iter().position(|view| Some(&view.id) == state.experiment());
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(chosen));
}

/// Every slot and what it does.
pub(super) fn slots(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let busy = state.slots.iter().filter(|slot| slot.state == SlotStateName::Busy).count();
    let title = format!("Slots {busy} of {} busy", state.slots.len());
    let block = block(state, Pane::Slots, &title, palette);
    if state.slots.is_empty() {
        let text = if state.has_heard { " no worker is here" } else { "" };
        frame.render_widget(Paragraph::new(text).style(palette.faint()).block(block), area);
        return;
    }
    let rows = state.slots.iter().map(|slot| slot_row(slot, palette));
    let longest = state.slots.iter().map(|slot| slot.worker.to_string().chars().count()).max();
    let longest = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX).min(area.width / 3);
    let table = Table::new(rows, [Constraint::Length(longest), Constraint::Fill(1)])
        .column_spacing(2)
        .row_highlight_style(palette.chosen())
        .block(block);
    let chosen = (state.pane == Pane::Slots).then_some(state.slot);
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(chosen));
}

fn slot_row<'a>(slot: &SlotView, palette: Palette) -> Row<'a> {
    let name = Text::from(slot.worker.to_string());
    let Some(work) = &slot.work else {
        return Row::new(vec![name, Text::from(Span::styled(slot.state.name(), palette.faint()))]);
    };
    let about =
        work.trial.as_ref().map_or_else(|| work.experiment.to_string(), ToString::to_string);
    let mut text = format!("{about} {}", work.text);
    if work.num_ranks > 1 {
        text += &format!(", rank {} of {}", work.rank, work.num_ranks);
    }
    let mut parts = vec![Span::raw(text)];
    if work.target_step > 0 {
        let done = work.step as f64 / work.target_step as f64;
        let speed = match work.examples_per_second {
            rate if rate > 0.0 => format!("  {rate:.0} examples/s"),
            _ => String::new(),
        };
        let steps = format!("  {}/{}", work.step, work.target_step);
        parts.push(Span::styled(format!("  {}", bar(done)), palette.curve()));
        parts.push(Span::raw(steps + &speed));
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
        title += &format!(", {} lines up", state.scrolled_back);
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
    let (trial, worker) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let text = parts.next().unwrap_or_default().to_owned();
    let style = if text.contains("ERROR") || text.contains("panicked") {
        palette.trouble()
    } else if text.contains("WARN") {
        palette.notice()
    } else {
        ratatui::style::Style::new()
    };
    Line::from(vec![
        Span::styled(format!("{trial:<4} "), palette.curve()),
        Span::styled(format!("{worker}  "), palette.faint()),
        Span::styled(text, style),
    ])
}
