//! The table of refusals, and the manifests that it varies.

/// Every key once.
pub(crate) const FULL: &str = include_str!("../full.yaml");

/// Nothing that has a default.
pub(crate) const MINIMAL: &str = "\
version: 1
name: one
model: {pretrained: models/minilm}
data:
  train: {path: train.csv}
  validation: {fraction: 0.1}
  text: text
  label: {column: label}
budget: {epochs: 2.5}
";

/// What is refused: see the head of the file.
const REFUSALS: &str = include_str!("../refusals.txt");

/// One entry of the table of refusals.
pub(crate) struct Refusal {
    /// Line of the table.
    pub(crate) line: usize,
    /// What is refused.
    pub(crate) manifest: String,
    /// The answer.
    pub(crate) expected: String,
}

/// All of them.
pub(crate) fn refusals() -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut line = 1;
    for block in REFUSALS.split("\n\n") {
        let part = |mark: &str| -> String {
            let lines = block.lines().filter_map(|line| line.strip_prefix(mark));
            lines.flat_map(|line| [line, "\n"]).collect()
        };
        let (removed, added, expected) = (part("-"), part("+"), part("> "));
        let manifest = match (removed.as_str(), block.lines().any(|line| line == "only")) {
            (_, true) => added,
            ("", false) => format!("{MINIMAL}{added}"),
            (removed, false) => {
                let framed = format!("\n{FULL}");
                let removed = format!("\n{removed}");
                assert_eq!(framed.matches(&removed).count(), 1, "refusals.txt:{line}");
                framed.replacen(&removed, &format!("\n{added}"), 1).split_off(1)
            }
        };
        if !block.lines().all(|line| line.starts_with('#')) {
            found.push(Refusal { line, manifest, expected: expected.trim_end().to_owned() });
        }
        line += block.lines().count() + 1;
    }
    found
}
