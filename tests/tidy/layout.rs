//! Rules about what lies where: the top level, the crates and who may know whom, generated files.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{code_only, has_word};
use crate::tree::File;

/// The top level is exactly this.
const TOP_LEVEL: [&str; 21] = [
    ".cargo/",
    ".ci/",
    ".github/",
    ".gitignore",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "clippy.toml",
    "common/",
    "configs/",
    "coordinator/",
    "deny.toml",
    "deploy/",
    "proto/",
    "rustfmt.toml",
    "tests/",
    "worker/",
];

/// A crate and what it must not reach, not even through others.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("muster-common", &["tch", "torch-sys", "tonic", "prost", "rusqlite"]),
    ("muster-proto", &["tch", "torch-sys", "rusqlite"]),
    ("muster-coordinator", &["tch", "torch-sys", "muster-worker"]),
];

/// Crates of this workspace and the ones of it that each may name.
const EDGES: [(&str, &[&str]); 5] = [
    ("muster-common", &[]),
    ("muster-proto", &["muster-common"]),
    ("muster-coordinator", &["muster-common", "muster-proto"]),
    ("muster-worker", &["muster-common", "muster-proto"]),
    ("muster-tests", &["muster-common", "muster-proto", "muster-coordinator", "muster-worker"]),
];

/// Where messages of the wire are turned into domain types; everything else knows domain types only.
const WIRE_FOLDERS: [&str; 6] = [
    "proto/",
    "coordinator/src/rpc/",
    "coordinator/src/cli/",
    "worker/src/session",
    "worker/src/supervisor/",
    "tests/",
];

pub(crate) fn top_level(found: &[String]) -> Vec<String> {
    let allowed = |name: &&String| !TOP_LEVEL.contains(&name.as_str());
    let surplus = found.iter().filter(allowed);
    let surplus = surplus.map(|name| format!("{name}: does not belong at the top level"));
    let absent = TOP_LEVEL.iter().filter(|name| !found.iter().any(|found| found == *name));
    surplus.chain(absent.map(|name| format!("{name}: missing at the top level"))).collect()
}

/// Package name to direct dependencies, as `Cargo.lock` has them.
type Packages = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn packages(lock: &str) -> Packages {
    let mut packages = Packages::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(found) = line.strip_prefix("name = ") {
            found.trim_matches('"').clone_into(&mut name);
            packages.entry(name.clone()).or_default();
        } else if let Some(found) = line.strip_prefix(" \"") {
            // `"name"`, or `"name version"` where two versions are in use.
            let dependency = found.split([' ', '"']).next().unwrap_or(found);
            packages.entry(name.clone()).or_default().insert(dependency.to_owned());
        }
    }
    packages
}

pub(crate) fn forbidden_dependencies(packages: &Packages) -> Vec<String> {
    let mut found = Vec::new();
    for (crate_name, forbidden) in FORBIDDEN {
        if !packages.contains_key(crate_name) {
            found.push(format!("{crate_name}: not in Cargo.lock"));
        }
        let reached = reached(packages, crate_name);
        for name in forbidden.iter().filter(|name| reached.contains(**name)) {
            found
                .push(format!("{crate_name} depends on {name}, directly or through another crate"));
        }
    }
    found
}

fn reached(packages: &Packages, start: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(name) = open.pop() {
        for dependency in packages.get(&name).into_iter().flatten() {
            if reached.insert(dependency.clone()) {
                open.push(dependency.clone());
            }
        }
    }
    reached
}

pub(crate) fn unknown_edges(packages: &Packages) -> Vec<String> {
    let ours = |name: &&String| name.starts_with("muster-");
    let mut found = Vec::new();
    for (name, dependencies) in packages.iter().filter(|(name, _)| ours(name)) {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            found.push(format!("{name}: a crate the house rules do not know"));
            continue;
        };
        for edge in
            dependencies.iter().filter(ours).filter(|edge| !allowed.contains(&edge.as_str()))
        {
            found.push(format!("{name} must not depend on {edge}"));
        }
    }
    found
}

pub(crate) fn wire_types_inside(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_hand_written_rust()) {
        let allowed = WIRE_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
        for (index, line) in code_only(&file.text).lines().enumerate() {
            if !allowed && has_word(line, "muster_proto") {
                found.push(format!(
                    "{}:{}: wire types stay in rpc and session",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    found
}

/// Crates that do not take the workspace's lints. One that is a workspace of its own cannot.
pub(crate) fn unlinted_crates(files: &[File]) -> Vec<String> {
    let manifest = |file: &&File| {
        file.path.ends_with("/Cargo.toml") && !file.text.lines().any(|line| line == "[workspace]")
    };
    let unlinted = |file: &&File| !file.text.contains("[lints]\nworkspace = true");
    let message = |file: &File| format!("{}: `[lints] workspace = true` is missing", file.path);
    files.iter().filter(manifest).filter(unlinted).map(message).collect()
}

/// The tests crate finds no test by itself: one that its manifest does not name never runs.
pub(crate) fn tests_never_run(files: &[File]) -> Vec<String> {
    let manifest = files.iter().find(|file| file.path == "tests/Cargo.toml");
    let manifest = manifest.map_or("", |file| file.text.as_str());
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        let Some(name) = file.path.strip_prefix("tests/") else { continue };
        let root = !name.contains('/') || name.ends_with("/main.rs");
        let named = manifest.contains(&format!("path = \"{name}\""));
        if root && !named && name != "build.rs" {
            found.push(format!("{}: tests/Cargo.toml has no [[test]] for it", file.path));
        }
    }
    found
}

pub(crate) fn generated_without_mark(files: &[File]) -> Vec<String> {
    let generated: Vec<_> =
        files.iter().filter(|file| file.is_generated() && file.has_extension("rs")).collect();
    if generated.is_empty() {
        return vec!["no generated file is found: the rule is out of date".to_owned()];
    }
    let first = |file: &File| file.text.lines().next().unwrap_or_default().contains("@generated");
    let unmarked = generated.into_iter().filter(|file| !first(file));
    unmarked.map(|file| format!("{}: the generator's mark is not on line 1", file.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"muster-common\"\ndependencies = [\n \"serde\",\n]\n\n\
        [[package]]\nname = \"muster-proto\"\ndependencies = [\n \"muster-common\",\n]\n\n\
        [[package]]\nname = \"muster-coordinator\"\ndependencies = [\n \"deep 0.1.0\",\n]\n\n\
        [[package]]\nname = \"deep\"\nversion = \"0.1.0\"\n";

    #[test]
    fn surplus_and_absent_names_at_the_top_are_found() {
        let mut found: Vec<String> = TOP_LEVEL.map(str::to_owned).to_vec();
        assert!(top_level(&found).is_empty());
        found[0] = "scripts/".to_owned();
        assert_eq!(top_level(&found).len(), 2);
    }

    #[test]
    fn a_forbidden_dependency_is_found_through_another_crate() {
        assert!(forbidden_dependencies(&packages(LOCK)).is_empty());
        let deep = format!("{LOCK}dependencies = [\n \"torch-sys\",\n]\n");
        assert_eq!(forbidden_dependencies(&packages(&deep)).len(), 1);
        assert_eq!(forbidden_dependencies(&packages("")).len(), FORBIDDEN.len());
    }

    #[test]
    fn an_edge_against_the_order_is_found() {
        assert!(unknown_edges(&packages(LOCK)).is_empty());
        let upward = LOCK.replace("\"serde\"", "\"muster-proto\"");
        assert_eq!(unknown_edges(&packages(&upward)).len(), 1);
        let stranger = LOCK.replace("name = \"deep\"", "name = \"muster-extra\"");
        assert_eq!(unknown_edges(&packages(&stranger)).len(), 1);
    }

    #[test]
    fn a_wire_type_inside_is_found() {
        let bad = [File::new("coordinator/src/engine/mod.rs", "use muster_proto::v1;")];
        assert_eq!(wire_types_inside(&bad).len(), 1);
        let good = [File::new("coordinator/src/rpc/mod.rs", "use muster_proto::v1;")];
        assert!(wire_types_inside(&good).is_empty());
    }

    #[test]
    fn an_unlinted_crate_is_found() {
        let good = File::new("common/Cargo.toml", "[lints]\nworkspace = true\n");
        assert!(unlinted_crates(&[good]).is_empty());
        assert_eq!(unlinted_crates(&[File::new("common/Cargo.toml", "[package]")]).len(), 1);
        assert!(unlinted_crates(&[File::new("tests/fuzz/Cargo.toml", "[workspace]")]).is_empty());
    }

    #[test]
    fn a_test_that_never_runs_is_found() {
        let manifest = File::new("tests/Cargo.toml", "[[test]]\nname = \"a\"\npath = \"a.rs\"\n");
        let with = |path: &str| vec![manifest.clone(), File::new(path, "")];
        assert!(tests_never_run(&with("tests/a.rs")).is_empty());
        assert!(tests_never_run(&with("tests/support/a.rs")).is_empty());
        assert_eq!(tests_never_run(&with("tests/b.rs")).len(), 1);
        assert_eq!(tests_never_run(&with("tests/b/main.rs")).len(), 1);
    }

    #[test]
    fn an_edited_generated_file_is_found() {
        let path = "proto/src/generated/muster.v1.rs";
        assert!(generated_without_mark(&[File::new(path, "// @generated by x")]).is_empty());
        assert_eq!(generated_without_mark(&[File::new(path, "// mine\n// @generated")]).len(), 1);
        assert_eq!(generated_without_mark(&[]).len(), 1);
    }
}
