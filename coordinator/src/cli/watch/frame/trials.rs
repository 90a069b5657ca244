//! The table of trials, best first.

use muster_common::count::counted;
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
/// Lines of headings where there is no room for whole names in one.
const HEADING_LINES_MAX: usize = 3;

/// A column: its heading, and its cells as texts.
struct Column {
    name: String,
    is_number: bool,
    /// Whether a table without it is not worth much; such columns come first.
    is_wanted: bool,
    cells: Vec<String>,
}

impl Column {
    /// Characters, with its heading in at most so many lines.
    fn width(&self, num_lines: usize) -> usize {
        let heading = heading(&self.name, num_lines);
        let texts = heading.iter().chain(&self.cells);
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    }
}

/// A name in at most so many lines, as narrow as its words allow. None of it is left out: `global_batch_size` and
/// `global_norm` are two things.
fn heading(name: &str, num_lines: usize) -> Vec<String> {
    let words: Vec<&str> = name.split_inclusive('_').collect();
    let length = |text: &str| text.chars().count();
    let longest = words.iter().map(|word| length(word)).max().unwrap_or(0);
    let mut lines = Vec::new();
    for width in longest..=length(name) {
        lines = Vec::<String>::new();
        for word in &words {
            match lines.last_mut().filter(|line| length(line) + length(word) <= width) {
                Some(line) => line.push_str(word),
                None => lines.push((*word).to_owned()),
            }
        }
        if lines.len() <= num_lines {
            break;
        }
    }
    lines
}

/// The columns that there is room for.
struct Arranged {
    columns: Vec<Column>,
    /// Between two columns, characters.
    spacing: usize,
    /// Of the headings.
    num_lines: usize,
    /// Wanted columns without room.
    num_hidden: usize,
}

/// The pane.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let rows = state.trials();
    let mut title = match state.view() {
        Some(view) if rows.len() < view.trials.len() => {
            format!("Trials {} of {}", rows.len(), view.trials.len())
        }
        Some(view) if !view.trials.is_empty() => format!("Trials {}", view.trials.len()),
        _ => "Trials".to_owned(),
    };
    let Some(view) = state.view().filter(|_| !rows.is_empty()) else {
        let text =
            if state.filter.of(Pane::Trials).is_empty() { " none yet" } else { " none like that" };
        let block = block(state, Pane::Trials, &title, palette);
        frame.render_widget(Paragraph::new(text).style(palette.faint()).block(block), area);
        return;
    };
    let arranged = arranged(columns(view, &rows), usize::from(area.width.saturating_sub(3)));
    let Arranged { columns, spacing, num_lines, num_hidden } = arranged;
    if num_hidden > 0 {
        title += &format!(" without {}", counted(num_hidden, "column"));
    }
    let best = view.best.as_ref().map(|best| &best.trial);
    let style = |trial: &TrialView| {
        if Some(&trial.id) == best { palette.best() } else { palette.trial(trial.state) }
    };
    let row = |(index, (_, trial)): (usize, &(usize, &TrialView))| {
        let cells = columns.iter().map(|column| cell(column, index, style(trial)));
        Row::new(cells.collect::<Vec<_>>())
    };
    let widths = columns.iter().map(|column| Constraint::Length(small(column.width(num_lines))));
    let headings: Vec<Vec<String>> =
        columns.iter().map(|column| heading(&column.name, num_lines)).collect();
    let height = headings.iter().map(Vec::len).max().unwrap_or(1);
    let header = columns.iter().zip(headings).map(|(column, lines)| {
        // Short ones stand right above their cells.
        let above = std::iter::repeat_n(String::new(), height.saturating_sub(lines.len()));
        let text = Text::from(above.chain(lines).collect::<Vec<_>>().join("\n"));
        if column.is_number { text.right_aligned() } else { text }
    });
    let header = Row::new(header.collect::<Vec<_>>()).height(small(height));
    let table = Table::new(rows.iter().enumerate().map(row), widths)
        .header(header.style(palette.faint()))
        .column_spacing(small(spacing))
        .row_highlight_style(Palette::chosen())
        .block(block(state, Pane::Trials, &title, palette));
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
        is_wanted: true,
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
    let num_wanted = columns.len();
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
    for column in columns.iter_mut().skip(num_wanted) {
        column.is_wanted = false;
    }
    columns
}

/// As many columns as there is room for; a cut number would be a wrong one, and a cut name another's. Headings take
/// more lines, then columns stand closer, before a wanted column is left out.
fn arranged(mut columns: Vec<Column>, width: usize) -> Arranged {
    let num_wanted = columns.iter().filter(|column| column.is_wanted).count();
    let needed = |count: usize, spacing: usize, num_lines: usize| -> usize {
        columns.iter().take(count).map(|column| column.width(num_lines) + spacing).sum()
    };
    let fits = |(count, spacing, num_lines): &(usize, usize, usize)| {
        needed(*count, *spacing, *num_lines) <= width + spacing
    };
    // The first column behind them is worth one more line, and no more.
    let with_next = (1..=2).map(|num_lines| (num_wanted + 1, 2, num_lines));
    let of_wanted = [2, 1].into_iter().flat_map(|spacing| {
        (1..=HEADING_LINES_MAX).map(move |num_lines| (num_wanted, spacing, num_lines))
    });
    let found = with_next.chain(of_wanted).find(fits);
    let (_, spacing, num_lines) = found.unwrap_or((num_wanted, 1, HEADING_LINES_MAX));
    let num_shown = (0..=columns.len())
        .take_while(|count| needed(*count, spacing, num_lines) <= width + spacing)
        .last()
        .unwrap_or(0);
    columns.truncate(num_shown);
    Arranged { columns, spacing, num_lines, num_hidden: num_wanted.saturating_sub(num_shown) }
}

fn small(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, is_wanted: bool, cell: &str) -> Column {
        Column { name: name.to_owned(), is_number: true, is_wanted, cells: vec![cell.to_owned()] }
    }

    #[test]
    fn headings_are_whole() {
        assert_eq!(heading("global_batch_size", 1), ["global_batch_size"]);
        assert_eq!(heading("global_batch_size", 2), ["global_", "batch_size"]);
        assert_eq!(heading("global_batch_size", 3), ["global_", "batch_", "size"]);
        assert_eq!(heading("dropout", 3), ["dropout"]);
        assert_eq!(heading("", 2), [""; 0]);
    }

    #[test]
    fn wanted_columns_are_the_last_to_go() {
        let all = || {
            vec![
                column("trial", true, "t1"),
                column("global_batch_size", true, "32"),
                column("learning_rate", true, "1.00e-4"),
                column("why", false, "place 3 of 4 at its rung"),
            ]
        };
        let at = |width| {
            let Arranged { columns, spacing, num_lines, num_hidden } = arranged(all(), width);
            (columns.len(), spacing, num_lines, num_hidden)
        };
        assert_eq!(at(65), (4, 2, 1, 0), "5, 17, 13 and 24 characters, and 6 between them");
        assert_eq!(at(64), (4, 2, 2, 0), "10 and 9 in two lines");
        assert_eq!(at(39), (3, 2, 1, 0));
        assert_eq!(at(38), (3, 2, 2, 0));
        assert_eq!(at(25), (3, 2, 3, 0), "7 and 9 in three");
        assert_eq!(at(24), (3, 1, 3, 0));
        assert_eq!(at(22), (2, 1, 3, 1));
        assert_eq!(at(0), (0, 1, 3, 3));
    }
}
