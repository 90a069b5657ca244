//! YAML as a tree with line numbers. Scalars keep their text: what a value means is decided by what
//! is expected of it, so `no` stays a name where a name is expected.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// Deepest nesting accepted; a manifest needs four levels.
const DEPTH_MAX: usize = 32;
/// Most nodes accepted, aliases counted each time they are used.
const NODES_MAX: usize = 10_000;

/// A value and the line, from 1, where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: NodeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeKind {
    /// Text, and whether it was quoted (quoted text is never a number, a truth value or null).
    Scalar {
        text: String,
        quoted: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Node,
}

/// The text is not one YAML document of plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) message: String,
}

impl From<ScanError> for Malformed {
    fn from(error: ScanError) -> Self {
        Self { line: error.marker().line(), message: format!("not YAML: {}", error.info()) }
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
    root: Option<Node>,
}

/// Parses one document. `None`: the text holds only white space and comments.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Malformed> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    let mut num_documents = 0;
    while let Some(next) = parser.next_event() {
        let (event, span) = next?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                num_documents += 1;
                if num_documents > 1 {
                    let message = "a manifest is one document: remove `---` and what follows";
                    return Err(Malformed { line, message: message.to_owned() });
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
            Event::Scalar(text, style, anchor, _tag) => {
                let quoted = style != ScalarStyle::Plain;
                let kind = NodeKind::Scalar { text: text.into_owned(), quoted };
                self.put(Node { line, kind }, anchor)
            }
            Event::Alias(anchor) => {
                let mut node = self.anchors.get(&anchor).cloned().ok_or_else(|| Malformed {
                    line,
                    message: "the alias `*` stands inside its own anchor".to_owned(),
                })?;
                self.num_nodes += node.count();
                node.line = line;
                self.put(node, 0)
            }
            Event::SequenceStart(anchor, _tag) => {
                self.begin(line, anchor, Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, _tag) => {
                self.begin(line, anchor, Items::Mapping { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, items: Items) -> Result<(), Malformed> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} levels deep");
            return Err(Malformed { line, message });
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

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Malformed> {
        self.num_nodes += 1;
        if self.num_nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values: this is no manifest");
            return Err(Malformed { line: node.line, message });
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
                    let message = "a key must be a name, not a list or a mapping".to_owned();
                    return Err(Malformed { line: node.line, message });
                }
            }
        }
        Ok(())
    }
}

impl Node {
    fn count(&self) -> usize {
        match &self.kind {
            NodeKind::Scalar { .. } => 1,
            NodeKind::Sequence(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            NodeKind::Mapping(entries) => {
                1 + entries.iter().map(|entry| entry.value.count()).sum::<usize>()
            }
        }
    }

    /// What a person calls the value in a message.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Scalar { text, .. } if self.is_null() && text.is_empty() => {
                "nothing".to_owned()
            }
            NodeKind::Scalar { text, .. } => {
                let short: String = text.chars().take(40).collect();
                format!("`{short}`")
            }
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
