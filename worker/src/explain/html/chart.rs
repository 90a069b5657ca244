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

/// A figure with axes from 0 to 1, its legend below it, and the same as a table.
pub(super) fn line_chart(title: &str, x_title: &str, y_title: &str, lines: &[Line]) -> String {
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let mut out = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{title}. {} over {}: {}\">",
        escape(y_title),
        escape(x_title),
        escape(&names.join("; ")),
        title = escape(title),
    );
    axes(&mut out, x_title);
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
    out.push_str(&table(title, [x_title, y_title], lines));
    out.push_str("</figure>");
    out
}

/// The points of every line, for those who do not see them.
fn table(title: &str, [x_title, y_title]: [&str; 2], lines: &[Line]) -> String {
    let mut out = format!(
        "<details><summary>Show as a table</summary><div class=\"scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"{title}\"><table class=\"plain\"><caption>{title}</caption><thead><tr><th scope=\"col\">line</th>\
         <th scope=\"col\">{}</th><th scope=\"col\">{}</th></tr></thead><tbody>",
        escape(x_title),
        escape(y_title),
        title = escape(title),
    );
    for line in lines {
        for (px, py) in &line.points {
            let name = escape(&line.name);
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{name}</th><td>{px:.2}</td><td>{py:.4}</td></tr>"
            );
        }
    }
    out.push_str("</tbody></table></div></details>");
    out
}

fn axes(out: &mut String, x_title: &str) {
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
}

fn class(number: usize, line: &Line) -> String {
    if line.dashed { "line dashed".to_owned() } else { format!("line line{}", number % 3) }
}
