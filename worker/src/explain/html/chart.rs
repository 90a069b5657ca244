//! Lines from 0 to 1, as SVG.

use std::fmt::Write as _;

use super::escape;

/// One line.
pub(super) struct Line {
    /// For the legend.
    pub(super) name: String,
    /// Both from 0 to 1.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether it is something to compare with.
    pub(super) dashed: bool,
}

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 34.0;
const TOP: f64 = 8.0;
const RIGHT: f64 = 10.0;
const BOTTOM: f64 = 34.0;

fn x(value: f64) -> f64 {
    LEFT + value * (WIDTH - LEFT - RIGHT)
}

fn y(value: f64) -> f64 {
    TOP + (1.0 - value) * (HEIGHT - TOP - BOTTOM)
}

/// A chart with axes from 0 to 1, and its legend below it.
pub(super) fn line_chart(x_title: &str, y_title: &str, lines: &[Line]) -> String {
    let mut out = String::new();
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: {}\">",
        escape(y_title),
        escape(&names.join("; ")),
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let _ = write!(
            out,
            "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            x(1.0),
            y(tick),
            y(tick),
            LEFT - 5.0,
            y(tick) + 3.5,
        );
    }
    for tick in [0.0, 0.5, 1.0] {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            x(tick),
            y(0.0) + 14.0,
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        x(0.5),
        HEIGHT - 4.0,
        escape(x_title),
    );
    for (number, line) in lines.iter().enumerate() {
        let points: Vec<String> =
            line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        let _ = write!(
            out,
            "<polyline class=\"{}\" points=\"{}\"><title>{}</title></polyline>",
            class(number, line),
            points.join(" "),
            escape(&line.name),
        );
    }
    out.push_str("</svg><ul class=\"key\">");
    for (number, line) in lines.iter().enumerate() {
        let _ = write!(
            out,
            "<li><svg viewBox=\"0 0 24 8\" aria-hidden=\"true\"><line class=\"{}\" x1=\"0\" x2=\"24\" y1=\"4\" \
             y2=\"4\"/></svg>{}</li>",
            class(number, line),
            escape(&line.name),
        );
    }
    out.push_str("</ul>");
    out
}

fn class(number: usize, line: &Line) -> String {
    if line.dashed { "line dashed".to_owned() } else { format!("line line{}", number % 3) }
}
