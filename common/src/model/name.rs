//! Names of parameters, as transformers writes them and as manifests choose among them.

/// Whether the parameter called `name` belongs to a `LayerNorm`, in the names of all families.
pub fn is_layer_norm(name: &str) -> bool {
    name.contains("LayerNorm") || name.contains("layer_norm")
}

/// Today's name of a parameter: files converted from the first release of BERT call the parameters
/// of `LayerNorm` gamma and beta.
pub fn modern_name(name: &str) -> String {
    let renamed = [(".gamma", ".weight"), (".beta", ".bias")].into_iter().find_map(|(old, new)| {
        let stem = name.strip_suffix(old).filter(|stem| is_layer_norm(stem))?;
        Some(format!("{stem}{new}"))
    });
    renamed.unwrap_or_else(|| name.to_owned())
}

/// Whether it is a table of old files that no parameter is in: 0, 1, 2, ... or 0, 0, 0, ...
pub fn is_buffer(name: &str) -> bool {
    name.ends_with("embeddings.position_ids") || name.ends_with("embeddings.token_type_ids")
}

/// Whether all of `name` fits `pattern`. In a pattern `*` stands for any number of characters,
/// `?` for one.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // Where to go on when what follows the last star does not fit: one character further.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n + 1));
                p += 1;
            }
            Some(character) if *character == b'?' || Some(character) == name.get(n) => {
                (p, n) = (p + 1, n + 1);
            }
            _ => match retry {
                Some((after_star, from)) => {
                    (p, n) = (after_star, from);
                    retry = Some((after_star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|character| *character == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_fit_whole_names() {
        let name = "bert.encoder.layer.1.output.dense.weight";
        for pattern in ["*", "bert.*", "*.weight", "*layer.?.output*", name, "*.dense.weigh?", "**"]
        {
            assert!(fits(pattern, name), "{pattern}");
        }
        for pattern in ["", "bert", "encoder.*", "*.bias", "*layer.??.output*", "*.weight?"] {
            assert!(!fits(pattern, name), "{pattern}");
        }
        assert!(fits("", "") && fits("*", "") && !fits("?", ""));
    }

    /// What `fits` should say, slow and plain.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|skipped| slow(rest, &name[skipped..])),
            (Some((b'?', p)), Some((_, n))) => slow(p, n),
            (Some((a, p)), Some((b, n))) if a == b => slow(p, n),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_agree_with_their_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(fits(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
