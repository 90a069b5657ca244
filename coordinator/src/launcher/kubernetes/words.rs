//! What Kubernetes takes as a name, a label, and the like: the rules of its API conventions, so that a mistake
//! is said at the start and not by a pod that never begins.

/// Longest name of an object (a DNS subdomain).
const NAME_MAX: usize = 253;
/// Longest label value, and longest name within a key.
const LABEL_MAX: usize = 63;

fn has_edges(text: &str, legal: impl Fn(char) -> bool) -> bool {
    text.starts_with(&legal) && text.ends_with(&legal)
}

/// A DNS subdomain in lower case.
pub(super) fn is_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| has_edges(part, edge) && part.chars().all(|c| edge(c) || c == '-');
    text.len() <= NAME_MAX && text.split('.').all(part)
}

/// A label's value: perhaps empty.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_word(text)
}

fn is_label_word(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let legal = |c: char| edge(c) || "-_.".contains(c);
    text.len() <= LABEL_MAX && has_edges(text, edge) && text.chars().all(legal)
}

/// A label's key, with or without a prefix.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_name(prefix) && is_label_word(name),
        None => is_label_word(text),
    }
}

/// An extended resource: it always has a prefix.
pub(super) fn is_resource(text: &str) -> bool {
    text.contains('/') && is_label_key(text)
}

/// An image as container runtimes read it, roughly: nothing that would end or split it.
pub(super) fn is_image(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-/:@".contains(c);
    let (path, _) = text.split_once('@').unwrap_or((text, ""));
    // A registry may have a port, and the tag may have capitals.
    let slash = path.rfind('/').map_or(0, |at| at + 1);
    let (before, last) = path.split_at(slash);
    let name = last.split(':').next().unwrap_or_default();
    let repository = before.split_once('/').map_or("", |(_, rest)| rest);
    text.len() <= NAME_MAX
        && text.chars().all(legal)
        && !name.is_empty()
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && ![repository, name].iter().any(|part| part.contains(|c: char| c.is_ascii_uppercase()))
}

/// A name of an environment variable, as shells and the kubelet both take it.
pub(super) fn is_variable(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(legal) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// An absolute path that is not the root, without anything odd in it.
pub(super) fn is_path(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let plain = |c: char| !c.is_control() && c != ':';
    let rest = text.strip_prefix('/').unwrap_or_default();
    text.len() <= NAME_MAX && rest.split('/').all(part) && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_of_kubernetes() {
        for good in ["a", "a-b.c", "0a"] {
            assert!(is_name(good) && is_label_key(good) && is_label_value(good), "{good}");
        }
        for bad in ["-a", "a-", "A", "a..b", "a_b", "", &"a".repeat(254)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_label_key("a.b/C_d") && is_label_value("") && is_label_value("V_1.0"));
        for bad in ["a/b/c", "/a", "a/", "A.b/c", &"a".repeat(64)] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_resource("amd.com/gpu") && !is_resource("gpu"));
    }

    #[test]
    fn images_variables_and_paths() {
        for good in
            ["worker", "a/worker:V1", "r.example.com:5000/a/b:1@sha256:0af", "A.example.com/a"]
        {
            assert!(is_image(good), "{good}");
        }
        for bad in ["", "a b", "a/Worker", "r/Team/worker", "-a", "a/", "a\n"] {
            assert!(!is_image(bad), "{bad}");
        }
        assert!(
            is_variable("_A1") && !is_variable("1A") && !is_variable("A-B") && !is_variable("")
        );
        for bad in ["", "/", "a", "/a/", "/a/../b", "/a//b", "/a:b", "/a\nb"] {
            assert!(!is_path(bad), "{bad}");
        }
        assert!(is_path("/mnt/data set"));
    }
}
