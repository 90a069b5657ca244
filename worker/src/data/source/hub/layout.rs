//! How data sets are laid out on a hub: which files a split has, told by their names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Configuration of files that lie in none.
const UNNAMED: &str = "default";
/// Deepest folder that is looked at in the cache.
const DEPTH_MAX: usize = 8;

/// Whether the name of a file says how many its split has, and belongs to the only configuration there can be: then
/// what lies in the cache shows that it is all.
pub(super) fn tells_all(name: &str, config: Option<&str>) -> bool {
    let Some((found, _, count)) = read_name(name) else { return false };
    let is_one_of_many = Path::new(name)
        .file_stem()
        .is_some_and(|stem| stem.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    (config.is_some() || found == UNNAMED) && (count.is_some() || !is_one_of_many)
}

/// Names of all files below a folder of the cache, relative to it.
pub(super) fn listed(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((path, depth)) = open.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth < DEPTH_MAX {
                open.push((path, depth + 1));
            } else if path.is_file()
                && let Some(name) = path.strip_prefix(folder).ok().and_then(Path::to_str)
            {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Configuration and split of a Parquet file, and how many files the split has, by the ways in
/// which data sets are laid out: `data/train-00000-of-00002.parquet`, `CONFIG/test.parquet`, and
/// `CONFIG/train/0000.parquet` of converted ones.
fn read_name(name: &str) -> Option<(&str, &str, Option<usize>)> {
    let stem = name.strip_suffix(".parquet")?;
    let (folder, stem) = stem.rsplit_once('/').unwrap_or(("", stem));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(stem) {
        let (config, split) = folder.rsplit_once('/').unwrap_or(("", folder));
        let config = if config.is_empty() { UNNAMED } else { config };
        return (!split.is_empty()).then_some((config, split, None));
    }
    let parts: Vec<&str> = stem.split('-').collect();
    let (split, count) = match parts.as_slice() {
        [split, index, "of", count] if is_number(index) && is_number(count) => {
            (*split, count.parse().ok())
        }
        // Newer files carry a piece of their digest as well.
        [split, index, "of", count, _] if is_number(index) && is_number(count) => {
            (*split, count.parse().ok())
        }
        [split] => (*split, None),
        _ => return None,
    };
    let config = if matches!(folder, "" | "data") { UNNAMED } else { folder };
    Some((config, split, count))
}

/// Names of the files of a split, in order; the error says what there is instead.
pub(super) fn choose(
    listed: &[String],
    config: Option<&str>,
    split: &str,
) -> Result<Vec<String>, String> {
    type Files<'a> = Vec<(&'a str, Option<usize>)>;
    let mut found: BTreeMap<&str, BTreeMap<&str, Files<'_>>> = BTreeMap::new();
    for name in listed {
        if let Some((config, split, count)) = read_name(name) {
            found.entry(config).or_default().entry(split).or_default().push((name, count));
        }
    }
    if found.is_empty() {
        return Err("it has no Parquet files that are called after a split; try the revision \
                    `@refs/convert/parquet`, or download it and write `path:`"
            .to_owned());
    }
    let list = |names: BTreeSet<&str>| names.into_iter().take(20).collect::<Vec<_>>().join("`, `");
    let config = match config {
        Some(config) => config,
        None if found.len() == 1 => found.keys().next().copied().unwrap_or(UNNAMED),
        None => {
            let names = list(found.keys().copied().collect());
            return Err(format!("there are several configurations, `{names}`: add `config:`"));
        }
    };
    let Some(splits) = found.get(config) else {
        let names = list(found.keys().copied().collect());
        return Err(format!("there is no configuration `{config}`; there are `{names}`"));
    };
    let Some(files) = splits.get(split) else {
        let names = list(splits.keys().copied().collect());
        return Err(format!("there is no split `{split}`; there are `{names}`: add `split:`"));
    };
    let count = files.iter().find_map(|(_, count)| *count);
    if let Some(count) = count.filter(|count| *count != files.len()) {
        return Err(format!("{} of {count} files of split `{split}` are there", files.len()));
    }
    let mut names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(names: &[&str], config: Option<&str>, split: &str) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&names, config, split)
    }

    #[test]
    fn splits_are_found_in_every_layout() {
        let sst2 =
            ["README.md", "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"];
        assert_eq!(choice(&sst2, None, "train").unwrap(), ["data/train-00000-of-00001.parquet"]);
        let told = choice(&sst2, None, "validation").unwrap_err();
        assert!(told.contains("there are `test`, `train`"), "{told}");
        let imdb =
            ["plain_text/train-00001-of-00002.parquet", "plain_text/train-00000-of-00002.parquet"];
        let found = choice(&imdb, None, "train").unwrap();
        assert_eq!(
            found,
            ["plain_text/train-00000-of-00002.parquet", "plain_text/train-00001-of-00002.parquet"]
        );
        assert!(choice(&imdb[..1], None, "train").unwrap_err().contains("1 of 2 files"));
        let glue = ["cola/train-00000-of-00001.parquet", "sst2/train-00000-of-00001.parquet"];
        assert!(
            choice(&glue, None, "train").unwrap_err().contains("`cola`, `sst2`: add `config:`")
        );
        assert_eq!(choice(&glue, Some("sst2"), "train").unwrap(), [glue[1]]);
        assert!(
            choice(&glue, Some("sst"), "train").unwrap_err().contains("no configuration `sst`")
        );
        let converted = [
            "default/train/0001.parquet",
            "default/train/0000.parquet",
            "default/test/0000.parquet",
        ];
        assert_eq!(choice(&converted, None, "train").unwrap(), [converted[1], converted[0]]);
        assert_eq!(choice(&["train.parquet"], None, "train").unwrap(), ["train.parquet"]);
        let hashed = ["data/train-00000-of-00001-0123abc.parquet"];
        assert_eq!(choice(&hashed, None, "train").unwrap(), hashed);
        assert!(
            choice(&["train.csv", "a-b-c.parquet"], None, "train").unwrap_err().contains("convert")
        );
    }

    proptest! {
        #[test]
        fn any_list_is_chosen_from_or_refused(
            names in proptest::collection::vec(r"[a-c/.\-]{0,12}(-0-of-2)?(\.parquet)?|[a-b]/[0-9]\.parquet", 0..8),
            config in proptest::option::of("[a-c]"), split in "[a-c]?",
        ) {
            if let Ok(found) = choose(&names, config.as_deref(), &split) {
                prop_assert!(!found.is_empty() && found.is_sorted());
                prop_assert!(found.iter().all(|name| names.contains(name)));
            }
        }
    }
}
