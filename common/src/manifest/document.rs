//! YAML as a tree with line numbers. Scalars keep their text: what a value means is decided by what
//! is expected of it, so `no` stays a name where a name is expected.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// Deepest nesting accepted; a manifest needs four levels.
const DEPTH_MAX: usize = 32;
/// Most nodes accepted, aliases counted each time they are used.
const NODES_MAX: usize = 10_000;
/// Longest text accepted, in bytes, and the most that its scalars come to with aliases counted each
/// time they are used.
const BYTES_MAX: usize = 1 << 20;
/// Characters of a value that a message repeats.
const SHOWN_MAX: usize = 40;

/// A value and the line, from 1, where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line, from 1.
    pub line: usize,
    /// What it is.
    pub kind: NodeKind,
}

/// Kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Text, and whether it was quoted (quoted text is never a number, a truth value or null).
    Scalar {
        /// As it is written, without quotes.
        text: String,
        /// Whether quotes or a block say that it is text.
        quoted: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with values, in the order of the document.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// The value.
    pub value: Node,
}

/// The text is not one YAML document of plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Malformed {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A collection whose end has not been seen.
struct Open {
    line: usize,
    anchor: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(String, usize)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    num_nodes: usize,
    num_bytes: usize,
    root: Option<Node>,
}

/// Parses one document. `None`: the text holds only white space and comments.
pub fn parse(text: &str) -> Result<Option<Node>, Malformed> {
    if text.len() > BYTES_MAX {
        let message = format!("longer than {BYTES_MAX} bytes: this is no manifest");
        return Err(Malformed::new(1, message));
    }
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    let mut num_documents = 0;
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| explain(text, &error))?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                num_documents += 1;
                if num_documents > 1 {
                    let message = "a manifest is one document: remove `---` and what follows";
                    return Err(Malformed::new(line, message));
                }
            }
            Event::StreamEnd => break,
            event => builder.take(event, line)?,
        }
    }
    Ok(builder.root)
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Malformed> {
        match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                let message = "a tag (`!...`) means nothing here: remove it, or quote the text";
                Err(Malformed::new(line, message))
            }
            Event::Scalar(text, style, anchor, None) => {
                let quoted = style != ScalarStyle::Plain;
                let kind = NodeKind::Scalar { text: text.into_owned(), quoted };
                self.put(Node { line, kind }, anchor)
            }
            Event::Alias(anchor) => {
                let message = "the alias `*` stands inside its own anchor";
                let node = self.anchors.get(&anchor).cloned();
                let mut node = node.ok_or_else(|| Malformed::new(line, message))?;
                node.relocate(line);
                self.count(&node)?;
                self.put(node, 0)
            }
            Event::SequenceStart(anchor, None) => {
                self.begin(line, anchor, Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, None) => {
                self.begin(line, anchor, Items::Mapping { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, items: Items) -> Result<(), Malformed> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} levels deep");
            return Err(Malformed::new(line, message));
        }
        self.open.push(Open { line, anchor, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        let Some(Open { line, anchor, items }) = self.open.pop() else { return Ok(()) };
        let kind = match items {
            Items::Sequence(items) => NodeKind::Sequence(items),
            Items::Mapping { entries, .. } => NodeKind::Mapping(entries),
        };
        self.put(Node { line, kind }, anchor)
    }

    /// Counts what an alias stands for: a few lines of aliases of aliases come to any size.
    fn count(&mut self, node: &Node) -> Result<(), Malformed> {
        match &node.kind {
            NodeKind::Scalar { text, .. } => self.num_bytes += text.len(),
            NodeKind::Sequence(items) => {
                items.iter().try_for_each(|item| self.count(item))?;
            }
            NodeKind::Mapping(entries) => {
                for entry in entries {
                    self.num_bytes += entry.key.len();
                    self.count(&entry.value)?;
                }
            }
        }
        self.num_nodes += 1;
        if self.num_nodes > NODES_MAX || self.num_bytes > BYTES_MAX {
            let message =
                format!("more than {NODES_MAX} values or {BYTES_MAX} bytes: this is no manifest");
            return Err(Malformed::new(node.line, message));
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Malformed> {
        self.num_nodes += 1;
        if self.num_nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values: this is no manifest");
            return Err(Malformed::new(node.line, message));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Sequence(items)) => items.push(node),
            Some(Items::Mapping { entries, key }) => {
                if let Some((key, line)) = key.take() {
                    entries.push(Entry { key, line, value: node });
                } else if let NodeKind::Scalar { text, .. } = node.kind {
                    *key = Some((text, node.line));
                } else {
                    let message = "a key must be a name, not a list or a mapping";
                    return Err(Malformed::new(node.line, message));
                }
            }
        }
        Ok(())
    }
}

impl Node {
    /// The value as YAML 1.2's core schema reads it, which is how editors see it.
    pub fn value(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            NodeKind::Scalar { .. } if self.is_null() => Value::Null,
            NodeKind::Scalar { text, quoted: false } => match text.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                text => number(text).map_or_else(|| text.into(), Value::Number),
            },
            NodeKind::Scalar { text, quoted: true } => text.as_str().into(),
            NodeKind::Sequence(items) => items.iter().map(Self::value).collect(),
            NodeKind::Mapping(entries) => {
                let pair = |entry: &Entry| (entry.key.clone(), entry.value.value());
                Value::Object(entries.iter().map(pair).collect())
            }
        }
    }

    /// Puts everything on one line: mistakes in what an alias stands for are shown where it is used.
    fn relocate(&mut self, line: usize) {
        self.line = line;
        match &mut self.kind {
            NodeKind::Scalar { .. } => {}
            NodeKind::Sequence(items) => items.iter_mut().for_each(|item| item.relocate(line)),
            NodeKind::Mapping(entries) => {
                for entry in entries {
                    entry.line = line;
                    entry.value.relocate(line);
                }
            }
        }
    }

    /// What a person calls the value in a message.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Scalar { text, .. } if self.is_null() && text.is_empty() => {
                "nothing".to_owned()
            }
            NodeKind::Scalar { text, .. } if text.is_empty() => "empty text".to_owned(),
            NodeKind::Scalar { text, quoted: true } => format!("the quoted text {}", shown(text)),
            NodeKind::Scalar { text, quoted: false } => shown(text),
            NodeKind::Sequence(_) => "a list".to_owned(),
            NodeKind::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// Whether the value is left empty or is YAML's null.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar { text, quoted: false }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// A plain scalar that is a number.
fn number(text: &str) -> Option<serde_json::Number> {
    let legal = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    if !text.chars().all(legal) || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let whole =
        text.parse::<i64>().map(Into::into).or_else(|_| text.parse::<u64>().map(Into::into));
    whole.ok().or_else(|| serde_json::Number::from_f64(text.parse().ok()?))
}

/// A text of the user for a message: in backticks, and not whole when it is long.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// What the scanner says, and what it mostly means.
const MENDS: [(&str, &str); 6] = [
    ("quoted scalar", "close the quote that is opened here"),
    ("simple key expect", "this line or one above lacks its `:`"),
    ("mapping values are not allowed", "check the indentation, or quote a text that holds `:`"),
    ("did not find expected key", "align the key with the others of its section"),
    ("unknown anchor", "quote a text that begins with `*`"),
    ("illegal placement of ':'", "close the bracket that a line above opens"),
];

/// A scanner's error in words that help.
fn explain(text: &str, error: &ScanError) -> Malformed {
    let (line, info) = (error.marker().line().max(1), error.info());
    let indented_by_tab = |text: &str| {
        text.chars().take_while(|character| character.is_whitespace()).any(|c| c == '\t')
    };
    // The scanner names the line on which the value before the tab began.
    let mut below = (line..).zip(text.lines().skip(line - 1));
    let tab = below.find(|(_, text)| indented_by_tab(text)).filter(|_| info.contains("tab"));
    if let Some((line, _)) = tab {
        return Malformed::new(line, "a tab in the indentation: use blanks");
    }
    let mend = MENDS.iter().find(|(words, _)| info.contains(words));
    let mend = mend.map(|(_, mend)| format!("; {mend}")).unwrap_or_default();
    Malformed::new(line, format!("not YAML: {info}{mend}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_kept() {
        let root = parse("a: 1\nb:\n  - x\n  - \"y\"\n").unwrap().unwrap();
        let NodeKind::Mapping(entries) = root.kind else { panic!("a mapping") };
        assert_eq!((entries[0].line, entries[1].line), (1, 2));
        let NodeKind::Sequence(items) = &entries[1].value.kind else { panic!("a list") };
        assert_eq!((items[0].line, items[1].line), (3, 4));
        assert_eq!(items[1].kind, NodeKind::Scalar { text: "y".to_owned(), quoted: true });
    }

    #[test]
    fn aliases_that_grow_without_end_are_refused() {
        let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (from, to) in ["ab", "bc", "cd", "de", "ef"].iter().map(|pair| pair.split_at(1)) {
            let tens = vec![format!("*{from}"); 10].join(", ");
            text += &format!("{to}: &{to} [{tens}]\n");
        }
        assert!(parse(&text).unwrap_err().message.contains("values"));
    }

    #[test]
    fn deep_nesting_and_second_documents_are_refused() {
        assert!(parse(&"[".repeat(5000)).is_err());
        assert!(parse("a: 1\n---\nb: 1\n").unwrap_err().message.contains("one document"));
        assert_eq!(parse("# nothing\n").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,400}") {
            let _parsed = parse(&text);
        }

        #[test]
        fn yaml_like_text_is_parsed_or_refused(text in r"[-a-c:#&*!|>'\[\]{}, \n\t0]{0,200}") {
            let _parsed = parse(&text);
        }
    }
}
