//! Curves of the chosen trial and of the best.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Paragraph};

use super::super::palette::Palette;
use super::super::state::{Pane, State};
use super::block;
use crate::cli::curves::short;
use muster_common::id::TrialId;

/// A trial's curve and how it is drawn.
struct Drawn {
    name: String,
    points: Vec<(f64, f64)>,
    style: Style,
    marker: Marker,
}

/// The pane.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let metric = state.metric();
    let drawn = drawn(state, palette);
    let mut block = block(state, Pane::Curve, &metric, palette);
    for one in &drawn {
        let last =
            one.points.last().map_or_else(String::new, |(_, value)| format!(" {}", short(*value)));
        let text = format!(" {}{last} ", one.name);
        block = block.title_top(Line::from(Span::styled(text, one.style)).right_aligned());
    }
    let points = || drawn.iter().flat_map(|one| &one.points);
    if points().next().is_none() {
        let text = if state.trial().is_some() { " nothing measured yet" } else { "" };
        frame.render_widget(Paragraph::new(text).style(palette.faint()).block(block), area);
        return;
    }
    let (first, last) = ends(points().map(|(step, _)| *step));
    let (low, high) = ends(points().map(|(_, value)| *value));
    // A line on the edge cannot be told from the frame.
    let room = if high > low { 0.03 * (high - low) } else { low.abs().max(1.0) * 0.05 };
    let middle = short(f64::midpoint(low, high));
    let labels = if high > low {
        [short(low), middle, short(high)]
    } else {
        [String::new(), middle, String::new()]
    };
    let datasets = drawn.iter().map(|one| {
        Dataset::default()
            .marker(one.marker)
            .graph_type(if one.points.len() > 1 { GraphType::Line } else { GraphType::Scatter })
            .style(one.style)
            .data(&one.points)
    });
    let chart = Chart::new(datasets.collect())
        .block(block)
        .x_axis(
            Axis::default()
                .style(palette.faint())
                .bounds([first, if last > first { last } else { first + 1.0 }])
                .labels([format!("step {first:.0}"), format!("{last:.0}")]),
        )
        .y_axis(
            Axis::default().style(palette.faint()).bounds([low - room, high + room]).labels(labels),
        )
        .legend_position(None);
    frame.render_widget(chart, area);
}

/// The best first: what the user has chosen is drawn over it.
fn drawn(state: &State, palette: Palette) -> Vec<Drawn> {
    let best = state.view().and_then(|view| view.best.as_ref()).map(|best| best.trial.clone());
    let chosen = state.trial().map(|trial| trial.id.clone());
    let finite = |trial: &TrialId| {
        let points = state.points(trial).iter().copied();
        points.filter(|(_, value)| value.is_finite()).collect::<Vec<_>>()
    };
    let mut drawn = Vec::new();
    if let Some(best) = best.as_ref().filter(|best| Some(*best) != chosen.as_ref()) {
        drawn.push(Drawn {
            name: format!("best t{}", best.number),
            points: finite(best),
            style: palette.best(),
            // Without colours the two must differ all the same.
            marker: if palette == Palette::None { Marker::Dot } else { Marker::Braille },
        });
    }
    if let Some(chosen) = &chosen {
        let is_best = best.as_ref() == Some(chosen);
        drawn.push(Drawn {
            name: format!("{}t{}", if is_best { "best " } else { "" }, chosen.number),
            points: finite(chosen),
            style: if is_best { palette.best() } else { palette.curve() },
            marker: Marker::Braille,
        });
    }
    drawn
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}
