//! The table of trials, best first.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Span, Text};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use super::super::palette::Palette;
use super::super::state::{Pane, State};
use super::block;
use crate::cli::number::fit;
use crate::cli::progress::bar;
use crate::view::{ExperimentView, TrialView};

/// Longest reason shown.
const REASON_WIDTH: usize = 48;
/// Longest name of a hyperparameter where there is no room for all of them.
const NAME_WIDTH: usize = 10;

/// A column: its heading, and its cells as texts.
struct Column {
    name: String,
    is_number: bool,
    cells: Vec<String>,
}

impl Column {
    fn width(&self) -> usize {
        let longest = self.cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        longest.max(self.name.chars().count())
    }
}

/// The pane.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let rows = state.trials();
    let title = match state.view() {
        Some(view) if rows.len() < view.trials.len() => {
            format!("Trials {} of {}", rows.len(), view.trials.len())
        }
        Some(view) if !view.trials.is_empty() => format!("Trials {}", view.trials.len()),
        _ => "Trials".to_owned(),
    };
    let block = block(state, Pane::Trials, &title, palette);
    let Some(view) = state.view().filter(|_| !rows.is_empty()) else {
        let text =
            if state.filter.of(Pane::Trials).is_empty() { " none yet" } else { " none like that" };
        frame.render_widget(Paragraph::new(text).style(palette.faint()).block(block), area);
        return;
    };
    let columns = fitting(columns(view, &rows), usize::from(area.width.saturating_sub(3)));
    let best = view.best.as_ref().map(|best| &best.trial);
    let style = |trial: &TrialView| {
        if Some(&trial.id) == best { palette.best() } else { palette.trial(trial.state) }
    };
    let row = |(index, (_, trial)): (usize, &(usize, &TrialView))| {
        let cells = columns.iter().map(|column| cell(column, index, style(trial)));
        Row::new(cells.collect::<Vec<_>>())
    };
    let widths = columns.iter().map(|column| Constraint::Length(small(column.width())));
    let header = columns.iter().map(|column| {
        let text = Text::from(column.name.clone());
        if column.is_number { text.right_aligned() } else { text }
    });
    let table = Table::new(rows.iter().enumerate().map(row), widths)
        .header(Row::new(header.collect::<Vec<_>>()).style(palette.faint()))
        .column_spacing(2)
        .row_highlight_style(Palette::chosen())
        .block(block);
    let chosen = state.trial().map(|trial| &trial.id);
    let place = rows.iter().position(|(_, trial)| Some(&trial.id) == chosen);
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(place));
}

fn cell<'a>(column: &Column, index: usize, style: Style) -> Text<'a> {
    let content = column.cells.get(index).cloned().unwrap_or_default();
    let is_word = column.name == "state" || column.name == "trial";
    let span = if is_word { Span::styled(content, style) } else { Span::raw(content) };
    let text = Text::from(span);
    if column.is_number { text.right_aligned() } else { text }
}

/// All columns, the most wanted first.
fn columns(view: &ExperimentView, rows: &[(usize, &TrialView)]) -> Vec<Column> {
    let column = |name: &str, is_number: bool, text: &dyn Fn(usize, &TrialView) -> String| Column {
        name: name.to_owned(),
        is_number,
        cells: rows.iter().map(|(place, trial)| text(*place, trial)).collect(),
    };
    let mut columns = vec![
        column("", true, &|place, trial| {
            trial.merit.map_or_else(|| "-".to_owned(), |_| (place + 1).to_string())
        }),
        column("trial", false, &|_, trial| format!("t{}", trial.id.number)),
        column("state", false, &|_, trial| trial.state.name().to_owned()),
    ];
    for (index, objective) in view.goal.objectives().enumerate() {
        columns.push(column(objective.metric.name(), true, &|_, trial| {
            let values = trial.merit.as_ref().map(|merit| merit.values().to_vec());
            let value = values.and_then(|values| values.get(index).copied());
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        }));
    }
    columns.push(column("step", true, &|_, trial| match trial.target_step {
        target if target > trial.step => format!("{}/{target}", trial.step),
        _ => trial.step.to_string(),
    }));
    let names = view.trials.iter().flat_map(|trial| trial.assignment.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        columns.push(column(name, true, &|_, trial| {
            trial.assignment.get(name).map_or_else(|| "-".to_owned(), ToString::to_string)
        }));
    }
    if rows.iter().any(|(_, trial)| trial.target_step > trial.step) {
        columns.push(column("", false, &|_, trial| {
            let done = trial.step as f64 / trial.target_step.max(1) as f64;
            if trial.target_step > trial.step { bar(done) } else { String::new() }
        }));
    }
    columns.push(column("loss", true, &|_, trial| {
        trial.last_loss.map_or_else(String::new, |loss| format!("{loss:.3}"))
    }));
    columns.push(column("runs", true, &|_, trial| trial.attempts.to_string()));
    if rows.iter().any(|(_, trial)| !trial.reason.is_empty()) {
        columns.push(column("why", false, &|_, trial| fit(&trial.reason, REASON_WIDTH)));
    }
    columns
}

/// As many columns as there is room for; a cut number would be a wrong one.
fn fitting(mut columns: Vec<Column>, width: usize) -> Vec<Column> {
    if columns.iter().map(|column| column.width() + 2).sum::<usize>() > width + 2 {
        for column in &mut columns {
            column.name = fit(&column.name, NAME_WIDTH);
        }
    }
    let mut used = 0;
    let fits = |column: &Column| {
        used += column.width() + 2;
        used <= width + 2
    };
    columns.into_iter().take_while(fits).collect()
}

fn small(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
