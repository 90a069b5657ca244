//! What must be the same in all ranks before they add anything up.

use std::fmt::Write as _;

use muster_common::digest::ContentHash;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What a rank trains, line by line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    lines: Vec<String>,
}

impl Identity {
    /// Adds a fact, such as the step that training goes on from.
    pub fn fact(&mut self, name: &str, value: &impl ToString) {
        self.lines.push(format!("{name} {}", value.to_string()));
    }

    /// Adds a parameter; their order counts.
    pub fn parameter(&mut self, name: &str, tensor: &Tensor) {
        let mut line = format!("{name} {:?}", tensor.kind());
        for extent in tensor.size() {
            // Writing to a string cannot fail.
            let _written = write!(line, " {extent}");
        }
        self.lines.push(line);
    }

    /// Digest of all lines.
    pub fn digest(&self) -> ContentHash {
        ContentHash::of(self.lines.join("\n").as_bytes())
    }

    /// Says how `other`, that of rank `rank`, differs first from this one of rank 0.
    pub fn difference(&self, other: &Self, rank: u32) -> Option<String> {
        let (own, found) = (self.digest(), other.digest());
        if own == found {
            return None;
        }
        let lines = self.lines.len().max(other.lines.len());
        let first = (0..lines).find(|at| self.lines.get(*at) != other.lines.get(*at)).unwrap_or(0);
        let line = |of: &Self| of.lines.get(first).map_or("nothing", String::as_str).to_owned();
        Some(format!(
            "rank {rank} does not train what rank 0 does: digest {} instead of {}, and first `{}` \
             instead of `{}`; give all hosts the same model directory, data and build",
            found.short(),
            own.short(),
            line(other),
            line(self)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_with_both_digests() {
        let identity = |names: &[&str]| {
            let mut identity = Identity::default();
            identity.fact("step", &3);
            for name in names {
                identity.parameter(name, &Tensor::from_slice(&[1.0f32, 2.0]));
            }
            identity
        };
        let (own, other) = (identity(&["a", "b"]), identity(&["b", "a"]));
        assert_eq!(own.difference(&identity(&["a", "b"]), 1), None);
        let text = own.difference(&other, 2).unwrap();
        for word in ["rank 2", "`b Float 2` instead of `a Float 2`", own.digest().short()] {
            assert!(text.contains(word), "{text}");
        }
        assert!(text.contains(other.digest().short()), "{text}");
        let text = own.difference(&identity(&["a"]), 1).unwrap();
        assert!(text.contains("`nothing` instead of `b Float 2`"), "{text}");
    }
}
