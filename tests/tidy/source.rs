//! Rules about Rust source. Each takes files and gives one line per finding, so that each can be shown
//! to fail on a bad sample.

use crate::lexer::{code_only, functions, has_word};
use crate::tree::File;

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;
/// rustfmt keeps code within 100 columns; comments and messages, which it leaves alone, get a little more.
const MAX_WIDTH: usize = 120;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["utils", "util", "helpers", "helper", "core", "base", "misc", "stuff"];

/// The part of the coordinator that decides: same events in, same actions out.
pub(crate) const PURE_FOLDERS: [&str; 3] =
    ["coordinator/src/engine/", "coordinator/src/sweep/", "coordinator/src/scheduler/"];

/// What a decision must not depend on: clocks, files, the environment, tasks, the order of hashing.
const IMPURE: [&str; 11] = [
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "tokio",
    "async",
    "std::fs",
    "std::env",
    "std::net",
    "std::thread",
    "std::process",
];

/// Where the last bit of a number decides, besides the pure folders.
const EXACT_FILES: [&str; 6] = [
    "common/src/evaluation/mod.rs",
    "common/src/goal.rs",
    "common/src/manifest/rung.rs",
    "common/src/manifest/space.rs",
    "common/src/manifest/workload.rs",
    "common/src/seed.rs",
];

/// Calls of the standard library that end in the C library of the machine, or may. The square root is exact.
const INEXACT: [&str; 23] = [
    ".ln()",
    ".ln_1p()",
    ".log(",
    ".log2()",
    ".log10()",
    ".exp()",
    ".exp2()",
    ".exp_m1()",
    ".powf(",
    ".powi(",
    ".cbrt()",
    ".hypot(",
    ".sin()",
    ".cos()",
    ".tan()",
    ".sin_cos()",
    ".asin()",
    ".acos()",
    ".atan()",
    ".atan2(",
    ".sinh()",
    ".cosh()",
    ".tanh()",
];

/// Marks of work that was not finished. Split, so that this file is clean itself.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const UNFINISHED_MACROS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

pub(crate) fn long_files(files: &[File]) -> Vec<String> {
    let long = |file: &&File| file.text.lines().count() > MAX_FILE_LINES;
    let hand_written = files.iter().filter(|file| file.is_hand_written_rust());
    let message = |file: &File| {
        let lines = file.text.lines().count();
        format!("{}: {lines} lines, at most {MAX_FILE_LINES} are allowed", file.path)
    };
    hand_written.filter(long).map(message).collect()
}

pub(crate) fn long_functions(files: &[File]) -> Vec<String> {
    each(files, |file, report| {
        for function in functions(&code_only(&file.text)) {
            if function.lines > MAX_FUNCTION_LINES {
                let (name, lines) = (function.name, function.lines);
                let message = format!("fn {name} has {lines} lines, at most {MAX_FUNCTION_LINES}");
                report(function.line, message);
            }
        }
    })
}

pub(crate) fn wide_lines(files: &[File]) -> Vec<String> {
    each(files, |file, report| {
        for (index, line) in file.text.lines().enumerate() {
            let width = line.chars().count();
            // A long address cannot be broken.
            if width > MAX_WIDTH && !line.contains("://") {
                report(index + 1, format!("{width} columns, at most {MAX_WIDTH}"));
            }
        }
    })
}

pub(crate) fn empty_names(files: &[File]) -> Vec<String> {
    let parts = |file: &File| -> Option<String> {
        let stem = |part: &str| part.split('.').next().unwrap_or(part).to_owned();
        let named =
            file.path.split('/').map(stem).find(|part| EMPTY_NAMES.contains(&part.as_str()));
        named.map(|part| format!("{}: `{part}` says nothing about what is inside", file.path))
    };
    files.iter().filter(|file| !file.is_vendored()).filter_map(parts).collect()
}

pub(crate) fn impure_decisions(files: &[File]) -> Vec<String> {
    let pure = |file: &&File| PURE_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
    let files: Vec<File> = files.iter().filter(pure).cloned().collect();
    if files.is_empty() {
        return vec![format!("none of {PURE_FOLDERS:?} holds a file: the list is out of date")];
    }
    words_in_code(&files, &IMPURE, "a decision must not depend on it")
}

/// Decisions that another machine might make otherwise. Tests may compare as they like.
pub(crate) fn inexact_decisions(files: &[File]) -> Vec<String> {
    let is_pure = |path: &str| PURE_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let decides = |file: &&File| {
        let path = file.path.as_str();
        (is_pure(path) || EXACT_FILES.contains(&path)) && !path.ends_with("/tests.rs")
    };
    let files: Vec<File> = files.iter().filter(decides).cloned().collect();
    each(&files, |file, report| {
        let code = code_only(&file.text);
        let own = code.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        for (index, line) in own.enumerate() {
            for call in INEXACT.iter().filter(|call| line.contains(**call)) {
                report(
                    index + 1,
                    format!("`{call}` may differ by machine: see common/src/elementary.rs"),
                );
            }
        }
    })
}

pub(crate) fn stray_unsafe(files: &[File]) -> Vec<String> {
    let allowed = |file: &&File| !file.path.starts_with("worker/src/ffi");
    let files: Vec<File> = files.iter().filter(allowed).cloned().collect();
    words_in_code(&files, &["unsafe"], "only worker/src/ffi may")
}

pub(crate) fn unfinished(files: &[File]) -> Vec<String> {
    let mut found = each(files, |file, report| {
        for (index, line) in file.text.lines().enumerate() {
            for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
                report(
                    index + 1,
                    format!("`{word}`: finish it, or say in plain words what is not done"),
                );
            }
        }
    });
    found.extend(words_in_code(files, &UNFINISHED_MACROS, "nothing unfinished is kept"));
    found
}

/// A file that no `mod` line names is never compiled, and nobody notices.
pub(crate) fn undeclared_modules(files: &[File]) -> Vec<String> {
    let roots = ["lib.rs", "main.rs", "mod.rs", "build.rs"];
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        let in_source = file.path.contains("/src/") && !file.path.contains("/src/bin/");
        let Some((folder, name)) = file.path.rsplit_once('/') else { continue };
        // `mod.rs` stands for its folder, which the folder above declares.
        let (folder, module) = match name.strip_suffix(".rs") {
            Some("mod") => folder.rsplit_once('/').unwrap_or((folder, folder)),
            Some(stem) if !roots.contains(&name) => (folder, stem),
            _ => continue,
        };
        let parents = roots.map(|root| format!("{folder}/{root}"));
        let declares = |parent: &&File| {
            let line = format!("mod {module};");
            parents.contains(&parent.path) && code_only(&parent.text).contains(&line)
        };
        if in_source && !file.is_generated() && !files.iter().any(|parent| declares(&parent)) {
            found.push(format!("{}: no `mod {module};` names it", file.path));
        }
    }
    found
}

/// Findings of one rule over all hand-written Rust files; `report` takes a line number and what is wrong.
fn each(files: &[File], rule: impl Fn(&File, &mut dyn FnMut(usize, String))) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_hand_written_rust()) {
        rule(file, &mut |line, message| found.push(format!("{}:{line}: {message}", file.path)));
    }
    found
}

/// Where any of `words` is used in code; comments and literals may name them.
pub(crate) fn words_in_code(files: &[File], words: &[&str], why: &str) -> Vec<String> {
    each(files, |file, report| {
        for (index, line) in code_only(&file.text).lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                report(index + 1, format!("`{word}` is used here: {why}"));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, text: &str) -> Vec<File> {
        vec![File::new(path, text)]
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(long_files(&one("a/src/b.rs", &"\n".repeat(MAX_FILE_LINES + 1))).len(), 1);
        assert!(long_files(&one("a/src/b.rs", &"\n".repeat(MAX_FILE_LINES))).is_empty());
        assert!(long_files(&one("a/src/generated/b.rs", &"\n".repeat(9_000))).is_empty());
    }

    #[test]
    fn a_long_function_is_found_at_its_line() {
        let function = |lines: usize| format!("\nfn f() {{\n{}}}\n", "x();\n".repeat(lines - 2));
        let found = long_functions(&one("a.rs", &function(MAX_FUNCTION_LINES + 1)));
        assert_eq!(found, ["a.rs:2: fn f has 71 lines, at most 70"]);
        assert!(long_functions(&one("a.rs", &function(MAX_FUNCTION_LINES))).is_empty());
    }

    #[test]
    fn a_wide_line_is_found() {
        let wide = "x".repeat(MAX_WIDTH + 1);
        assert_eq!(wide_lines(&one("a.rs", &wide)).len(), 1);
        assert!(wide_lines(&one("a.rs", &wide[1..])).is_empty());
        assert!(wide_lines(&one("a.rs", &format!("// https://{wide}"))).is_empty());
    }

    #[test]
    fn an_empty_name_is_found() {
        for path in ["common/src/utils.rs", "worker/src/core/mod.rs", "deploy/misc.sh"] {
            assert_eq!(empty_names(&one(path, "")).len(), 1, "{path}");
        }
        assert!(empty_names(&one("common/src/scoreboard.rs", "")).is_empty());
    }

    #[test]
    fn an_impure_decision_is_found() {
        let path = "coordinator/src/engine/mod.rs";
        for sample in
            ["use std::fs::File;", "let m: HashMap<u8, u8>;", "std::env::var(x)", "async fn f() {}"]
        {
            assert_eq!(impure_decisions(&one(path, sample)).len(), 1, "{sample}");
        }
        assert!(impure_decisions(&one(path, "/// No `HashMap` here.\nfn f() {}")).is_empty());
        assert_eq!(
            impure_decisions(&one("coordinator/src/driver.rs", "")).len(),
            1,
            "nothing is pure"
        );
    }

    #[test]
    fn an_inexact_decision_is_found() {
        let path = "coordinator/src/sweep/sampler/axis.rs";
        let samples = ["value.ln()", "let x = position\n    .exp();", "a.powi(2) + b.powf(c)"];
        assert_eq!(samples.map(|sample| inexact_decisions(&one(path, sample)).len()), [1, 1, 2]);
        assert_eq!(inexact_decisions(&one("common/src/goal.rs", "loss.exp()")).len(), 1);
        let good = "functions.ln(x) + libm::exp(x) + x.sqrt()\n#[cfg(test)]\nmod tests { x.sin() }";
        assert!(inexact_decisions(&one(path, good)).is_empty());
        assert!(inexact_decisions(&one("common/src/elementary.rs", "x.ln()")).is_empty());
    }

    #[test]
    fn stray_unsafe_is_found() {
        let sample = "fn f() { unsafe { g() } }";
        assert_eq!(stray_unsafe(&one("worker/src/model/bert.rs", sample)).len(), 1);
        assert!(stray_unsafe(&one("worker/src/ffi/mod.rs", sample)).is_empty());
        assert!(
            stray_unsafe(&one("common/src/lib.rs", "#![deny(unsafe_code)] // unsafe")).is_empty()
        );
    }

    #[test]
    fn unfinished_work_is_found() {
        let comment = format!("// {}: later", UNFINISHED[0]);
        assert_eq!(unfinished(&one("a.rs", &comment)).len(), 1);
        let call = format!("fn f() {{ {}() }}", UNFINISHED_MACROS[0]);
        assert_eq!(unfinished(&one("a.rs", &call)).len(), 1);
        assert!(unfinished(&one("a.rs", "fn todo_list() {}")).is_empty());
    }

    #[test]
    fn a_forgotten_module_is_found() {
        let library = File::new("common/src/lib.rs", "pub mod seed;\n// mod lost;\nmod text;");
        let member = |path: &str| vec![library.clone(), File::new(path, "")];
        assert!(undeclared_modules(&member("common/src/seed.rs")).is_empty());
        assert!(undeclared_modules(&member("common/src/text/mod.rs")).is_empty());
        assert_eq!(undeclared_modules(&member("common/src/lost.rs")).len(), 1);
        assert_eq!(undeclared_modules(&member("common/src/text/lost.rs")).len(), 1);
    }
}
