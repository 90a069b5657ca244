//! As much of Rust's grammar as the rules need: where code ends and where text or comments begin.

/// The same source with comments and the inside of literals blanked out. Lines stay where they are, so
/// that a position found here is a position in the file.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        for &skipped in &chars[at..end] {
            out.push(if skipped == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn skipped_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => line_end(chars, at),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        'r' if !continues_word(chars, at) => raw_string_end(chars, at).unwrap_or(at),
        '\'' => character_end(chars, at).unwrap_or(at),
        _ => at,
    }
}

/// Whether the character before `at` makes `at` the middle of a word. `br"..."` is a raw string too.
fn continues_word(chars: &[char], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|index| chars[index]) else { return false };
    let byte_prefix = before == 'b' && at.checked_sub(2).is_none_or(|index| !is_word(chars[index]));
    is_word(before) && !byte_prefix
}

fn line_end(chars: &[char], at: usize) -> usize {
    let length = chars[at..].iter().position(|&found| found == '\n');
    length.map_or(chars.len(), |length| at + length)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The end of a string whose opening quote lies before `at`.
fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|&&found| found == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closing = |&quote: &usize| {
        chars[quote] == '"' && chars[quote + 1..].iter().take(hashes).all(|&found| found == '#')
    };
    let close = (open + 1..chars.len()).find(closing).map(|quote| quote + 1 + hashes);
    Some(close.unwrap_or(chars.len()).min(chars.len()))
}

/// The end of a character literal; `None` for a lifetime or a label.
fn character_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let close = chars[at + 3..].iter().position(|&found| found == '\'')?;
        return Some(at + 3 + close + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// Whether a character may be part of a name.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `needle` occurs in `text` and is not part of a longer word there.
pub(crate) fn has_word(text: &str, needle: &str) -> bool {
    text.match_indices(needle).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + needle.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// A function in the source: name, first line (from 1) and how many lines it takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function with a body, nested ones and those inside macros too. `code` comes from [`code_only`].
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|&next| is_word(next)).collect();
        if name.is_empty() || code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        if let Some(length) = body_end(&code[at..]) {
            let lines = code[at..at + length].matches('\n').count() + 1;
            found.push(Function { name, line: code[..at].matches('\n').count() + 1, lines });
        }
    }
    found
}

/// The length of the text from `fn` to the brace that closes its body; `None` when it has no body.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_i32, 0_i32);
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            ';' if braces == 0 && others == 0 => return None,
            _ => {}
        }
        if character == '}' && braces == 0 && others == 0 {
            return Some(at + 1);
        }
        if braces < 0 || others < 0 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let source = r##"let a = "unsafe \" {"; // unsafe
/* a /* unsafe */ b */ let b = r#"unsafe " }"#; let c = '{'; let d = '\''; let e: &'static str = br"{";
"##;
        let code = code_only(source);
        assert!(!code.contains("unsafe") && !code.contains('{') && !code.contains('}'), "{code}");
        assert!(code.contains("let b =") && code.contains("&'static str"), "{code}");
        assert_eq!(code.lines().count(), source.lines().count());
        assert_eq!(code_only("let r#type = attr; 'a: loop {}"), "let r#type = attr; 'a: loop {}");
    }

    #[test]
    fn functions_are_measured() {
        let code = "trait A { fn no_body(&self, x: [u8; 3]); }\nfn one() {}\nfn two()\n{\n  if x { y }\n}\n";
        let expected = [("one", 2, 1), ("two", 3, 4)];
        let found = functions(code);
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("a HashMap<K>", "HashMap"));
        assert!(!has_word("MyHashMap HashMapper", "HashMap"));
    }
}
