//! The house rules: what a reviewer would otherwise have to look for. Each rule has a test of its own in
//! its module that shows it failing on a bad sample; here they are held against the whole repository.

#![expect(
    clippy::unwrap_used,
    reason = "everything here is a test; allow-unwrap-in-tests sees only part"
)]

mod documents;
mod layout;
mod lexer;
mod source;
mod tree;

use std::path::Path;
use std::process::Command;

use crate::tree::Tree;

/// Fails with one line per finding.
fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}\n", found.join("\n  "));
}

#[test]
fn files_are_short() {
    none("files", &source::long_files(&Tree::read().files));
}

#[test]
fn functions_are_short() {
    none("functions", &source::long_functions(&Tree::read().files));
}

#[test]
fn lines_are_narrow() {
    none("line width", &source::wide_lines(&Tree::read().files));
}

#[test]
fn names_say_something() {
    none("file names", &source::empty_names(&Tree::read().files));
}

#[test]
fn decisions_are_pure() {
    none("the pure folders", &source::impure_decisions(&Tree::read().files));
}

#[test]
fn decisions_are_the_same_on_every_machine() {
    none("bits that decide", &source::inexact_decisions(&Tree::read().files));
}

#[test]
fn unsafe_stays_in_the_ffi_module() {
    none("unsafe", &source::stray_unsafe(&Tree::read().files));
}

#[test]
fn nothing_is_left_unfinished() {
    none("unfinished work", &source::unfinished(&Tree::read().files));
}

#[test]
fn every_source_file_is_compiled() {
    none("modules", &source::undeclared_modules(&Tree::read().files));
}

#[test]
fn every_test_runs() {
    none("test targets", &layout::tests_never_run(&Tree::read().files));
}

#[test]
fn the_top_level_is_as_agreed() {
    none("top level", &layout::top_level(&Tree::read().top_level));
}

#[test]
fn crates_know_only_the_crates_below_them() {
    let tree = Tree::read();
    let lock = tree.select(|file| file.path == "Cargo.lock");
    let packages = layout::packages(&lock[0].text);
    none("crate edges", &layout::unknown_edges(&packages));
    none("dependencies", &layout::forbidden_dependencies(&packages));
}

#[test]
fn wire_types_stay_at_the_edge() {
    none("wire types", &layout::wire_types_inside(&Tree::read().files));
}

#[test]
fn every_crate_is_linted() {
    none("lints", &layout::unlinted_crates(&Tree::read().files));
}

#[test]
fn generated_files_carry_their_mark() {
    none("generated files", &layout::generated_without_mark(&Tree::read().files));
}

#[test]
fn paths_in_documents_exist() {
    let tree = Tree::read();
    let documents = documents::documents(&tree.files);
    none("paths", &documents::missing_paths(&documents, |path| tree.exists(path)));
}

/// `make planted` breaks rules of the engine by patches, which grow old when the engine changes.
#[test]
fn planted_rules_still_apply() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut num_patches = 0;
    for entry in std::fs::read_dir(root.join("tests/simulation/planted")).unwrap() {
        let patch = entry.unwrap().path();
        let mut check = Command::new("git");
        check.args(["apply", "--check"]).arg(&patch).current_dir(&root);
        let output = check.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "renew {}: {said}", patch.display());
        num_patches += 1;
    }
    assert!(num_patches >= 19, "{num_patches} rules are planted");
}

#[test]
fn the_project_speaks_only_of_itself() {
    none("words", &documents::foreign_words(&Tree::read().files));
}

#[test]
fn text_is_tidy() {
    none("text", &documents::untidy_text(&Tree::read().files));
}
