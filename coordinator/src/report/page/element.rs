//! What pages are made of: text that is no markup, numbers for people, tables, pictures.

use std::fmt::Write as _;

/// Text as it stands in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What moves or hides other text has no place in a report.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Four digits that matter; `-` for what is not there.
pub(super) fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let size = value.abs();
    if value.is_infinite() {
        return if value > 0.0 { "∞".to_owned() } else { "-∞".to_owned() };
    }
    if size < 1e7 && value.fract() == 0.0 {
        return format!("{value}");
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.2e}");
    }
    if size >= 1000.0 {
        return format!("{value:.0}");
    }
    let rounded: f64 = format!("{value:.3e}").parse().unwrap_or(value);
    rounded.to_string()
}

/// As [`number`], of what may be absent.
pub(super) fn number_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// A share in percent, with one digit behind the point.
pub(super) fn percent(share: f64) -> String {
    if share.is_nan() { "-".to_owned() } else { format!("{:.1} %", 100.0 * share) }
}

/// A count with its thousands apart.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Seconds as people say them.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "-".to_owned();
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    // Rounded first: nobody says 1 min 60 s.
    let whole = seconds.round();
    if whole < 120.0 {
        return format!("{whole} s");
    }
    if whole < 7200.0 {
        return format!("{} min {} s", (whole / 60.0).floor(), whole % 60.0);
    }
    let minutes = (seconds / 60.0).round();
    if seconds < 172_800.0 {
        return format!("{} h {} min", (minutes / 60.0).floor(), minutes % 60.0);
    }
    format!("{:.1} days", seconds / 86_400.0)
}

/// The words of a name: `macro_f1` is `macro F1`.
pub(super) fn words(name: &str) -> String {
    let part = |part: &str| match part {
        "f1" => "F1".to_owned(),
        "auc" => "AUC".to_owned(),
        "mcc" => "MCC".to_owned(),
        "gpu" => "GPU".to_owned(),
        "cpu" => "CPU".to_owned(),
        other => other.to_owned(),
    };
    name.split('_').map(part).collect::<Vec<_>>().join(" ")
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// Text, to the left.
    Text(String),
    /// A number as text, to the right.
    Number(String),
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn number(value: f64) -> Self {
        Self::Number(number(value))
    }

    pub(super) fn count(value: u64) -> Self {
        Self::Number(count(value))
    }
}

/// A table that can be wider than the page; the first column heads its rows.
pub(super) fn table(caption: &str, titles: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut text = format!(
        "<div class=\"across\" tabindex=\"0\" role=\"group\" aria-label=\"{0}\">\
         <table><caption>{0}</caption><thead><tr>",
        escape(caption)
    );
    for (column, title) in titles.iter().enumerate() {
        let is_number = rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
        let class = if is_number { " class=\"n\"" } else { "" };
        let _infallible = write!(text, "<th scope=\"col\"{class}>{}</th>", escape(title));
    }
    text.push_str("</tr></thead><tbody>");
    for row in rows {
        text.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let (class, content) = match cell {
                Cell::Text(content) => ("", content),
                Cell::Number(content) => (" class=\"n\"", content),
            };
            let content = escape(content);
            let _infallible = if column == 0 {
                write!(text, "<th scope=\"row\"{class}>{content}</th>")
            } else {
                write!(text, "<td{class}>{content}</td>")
            };
        }
        text.push_str("</tr>");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

/// Names and values, one pair a line; what is empty is left out.
pub(super) fn facts(pairs: &[(&str, String)]) -> String {
    pairs_of("facts", pairs)
}

/// The same as tiles, for what people look for first.
pub(super) fn tiles(pairs: &[(&str, String)]) -> String {
    pairs_of("facts tiles", pairs)
}

fn pairs_of(class: &str, pairs: &[(&str, String)]) -> String {
    let mut text = format!("<dl class=\"{class}\">");
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let (name, value) = (escape(name), escape(value));
        let _infallible = write!(text, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    text.push_str("</dl>\n");
    text
}

/// A picture that the script draws by its name, the sentence that says the same, and the table behind it.
pub(super) fn picture(name: &str, title: &str, says: &str, behind: &str) -> String {
    let (title, says) = (escape(title), escape(says));
    format!(
        "<figure class=\"card\"><figcaption><h3>{title}</h3><p>{says}</p></figcaption>\
         <div class=\"canvas\" data-picture=\"{name}\" role=\"img\" aria-label=\"{title}. {says}\"></div>\
         <details><summary>Show as a table</summary>{behind}</details></figure>\n"
    )
}

/// A part of the page with its heading.
pub(super) fn section(id: &str, title: &str, content: &str) -> String {
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\"><h2 id=\"{id}-title\">{}</h2>\n{content}</section>\n",
        escape(title)
    )
}

/// A paragraph.
pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A paragraph in small letters.
pub(super) fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        assert_eq!(escape("<b a=\"x\">&'"), "&lt;b a=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(escape("a\u{202e}b"), "a\u{fffd}b");
        let cells = vec![vec![Cell::text("<i>"), Cell::number(0.5)]];
        let drawn = table("a & b", &["<name>", "value"], &cells);
        assert!(drawn.contains("&lt;i&gt;") && drawn.contains("&lt;name&gt;"), "{drawn}");
        assert!(!drawn.contains("<i>"), "{drawn}");
    }

    #[test]
    fn numbers_are_for_people() {
        let shown = [0.0, 12.0, 0.123_456, 12.345_6, 12_345.6, 2e-5, 0.5, f64::NAN].map(number);
        assert_eq!(shown, ["0", "12", "0.1235", "12.35", "12346", "2.00e-5", "0.5", "-"]);
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!(
            [3.0, 75.0, 600.0, 9000.0].map(duration),
            ["3.0 s", "75 s", "10 min 0 s", "2 h 30 min"]
        );
        assert_eq!([119.8, 179.7, 10_799.0].map(duration), ["2 min 0 s", "3 min 0 s", "3 h 0 min"]);
        assert_eq!(percent(0.8764), "87.6 %");
        assert_eq!(words("validation_macro_f1"), "validation macro F1");
    }
}
