//! A newcomer's mistakes at the command line: exit code, and one message with the place and the mend.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use muster_tests::process::{Muster, program};
use muster_tests::sample::{Sample, repository, write_manifest};

fn fails(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let mut run = Muster::start(directory, "run", arguments).unwrap();
    let status = run.wait().unwrap();
    (status.code().unwrap_or(-1), run.stderr())
}

/// Puts a small model of BERT's family, 2 layers and 16 tokens, into `m` below `directory`.
fn copy_model(directory: &Path) {
    let (golden, model) =
        (repository().join("tests/golden/hf/families/bert-classification"), directory.join("m"));
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(golden.join(file), model.join(file)).unwrap();
    }
}

#[test]
fn what_the_model_cannot_do_is_said_before_anything_is_spent() {
    let directory = tempfile::tempdir().unwrap();
    copy_model(directory.path());
    std::fs::remove_file(directory.path().join("m/tokenizer.json")).unwrap();
    std::fs::write(directory.path().join("d.csv"), "text,label\na,0\nb,1\n").unwrap();
    let manifest = "version: 1
name: e
model:
  pretrained: m
  max_length: 64
  freeze: {layers: 3}
data:
  train: {path: d.csv}
  validation: {examples: 1}
  text: text
  label: {column: label}
budget: {steps: 4}
";
    std::fs::write(directory.path().join("e.yaml"), manifest).unwrap();
    let nobody = ["submit", "e.yaml", "--coordinator", "http://127.0.0.1:9"];
    for arguments in [&["validate", "e.yaml"][..], &["plan", "e.yaml"], &["run", "e.yaml"], &nobody]
    {
        let (code, stderr) = fails(directory.path(), arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        for part in [
            "e.yaml:\nline 4: model.pretrained: ",
            "there is no tokenizer here: expected tokenizer.json, vocab.txt, or vocab.json with merges.txt",
            "line 5: model.max_length: 64, but the model takes at most 16 tokens; write 16 or less",
            "line 6: model.freeze.layers: 3, but the model has 2 layers; write 2 or less",
        ] {
            assert!(stderr.contains(part), "{part} in:\n{stderr}");
        }
    }
    assert!(!directory.path().join("muster-data").exists(), "a refused manifest leaves nothing");
}

#[test]
fn mistakes_in_a_manifest_are_all_named_with_line_path_and_mend() {
    let directory = tempfile::tempdir().unwrap();
    let demo = std::fs::read_to_string(repository().join("configs/demo.yaml")).unwrap();
    let broken = demo
        .replace("max_trials: 8", "max_trails: 8")
        .replace("above: 0.5", "above: -0.6")
        .replace("max_length: 64", "max_length: long");
    let line = 1 + broken.lines().position(|line| line.contains("max_length: long")).unwrap();
    std::fs::write(directory.path().join("broken.yaml"), broken).unwrap();
    let (code, stderr) = fails(directory.path(), &["validate", "broken.yaml"]);
    assert_eq!(code, 2, "{stderr}");
    for part in [
        "broken.yaml",
        "searcher.max_trails: unknown key; did you mean `max_trials`?",
        "searcher.max_trials: missing",
        "model.max_length: expected a whole number, 8 to 8192, found `long`",
    ] {
        assert!(stderr.contains(part), "{part} in:\n{stderr}");
    }
    assert!(stderr.contains(&format!("line {line}: model.max_length")), "{stderr}");
}

#[test]
fn a_plan_tells_what_will_be_spent() {
    let directory = tempfile::tempdir().unwrap();
    copy_model(directory.path());
    let rows: Vec<String> = (0..1000).map(|n| format!("text {n},{}", n % 2)).collect();
    let table = format!("text,label\n{}\n", rows.join("\n"));
    std::fs::write(directory.path().join("d.csv"), table).unwrap();
    let manifest = "version: 1
name: e
model: {pretrained: m, max_length: 16}
data:
  train: {path: d.csv}
  validation: {examples: 200}
  text: text
  label: {column: label}
hyperparameters: {learning_rate: {min: 1e-5, max: 1e-3}, global_batch_size: 40}
searcher: {metric: loss, pruner: {type: hyperband, reduction_factor: 2, min_budget: {epochs: 1}}}
budget: {epochs: 4}
";
    std::fs::write(directory.path().join("e.yaml"), manifest).unwrap();
    let arguments = ["plan", "e.yaml", "--slots", "1", "--examples-per-second", "800"];
    let mut run = Muster::start(directory.path(), "plan", &arguments).unwrap();
    assert!(run.wait().unwrap().success(), "{}", run.stderr());
    // Brackets of 4, 3 and 3 trials; an epoch is 20 steps and takes a second.
    let expected = [
        "e: 10 trials, 560 steps, 22400 examples",
        "  rung 1 (1 epoch): 4 trials, 80 steps on the way to it",
        "  rung 2 (2 epochs): 5 trials, 160 steps on the way to it",
        "  rung 3 (4 epochs): 5 trials, 320 steps on the way to it",
        "done after 0:28",
        "about: 800 training examples, counted by lines",
    ];
    for part in expected {
        assert!(run.stdout().contains(part), "{part} in:\n{}", run.stdout());
    }
    let arguments = [&arguments[..], &["--json"]].concat();
    let run = Muster::start(directory.path(), "json", &arguments).unwrap();
    let found: serde_json::Value = serde_json::from_str(&run.succeed().unwrap().0).unwrap();
    assert_eq!((&found["steps"], &found["wall_seconds"]), (&560.into(), &28.0.into()), "{found}");
    assert_eq!(found["rungs"][2]["num_trials"], 5, "{found}");
}

#[test]
fn a_plan_without_slots_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (code, stderr) = fails(directory.path(), &["plan", "e.yaml", "--slots", "0"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--slots"), "{stderr}");
}

#[test]
fn missing_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (code, stderr) = fails(directory.path(), &["run", "nowhere.yaml"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("nowhere.yaml"), "{stderr}");
    std::fs::copy(repository().join("configs/demo.yaml"), directory.path().join("demo.yaml"))
        .unwrap();
    let (code, stderr) = fails(directory.path(), &["run", "demo.yaml"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("model.pretrained") && stderr.contains("working directory"),
        "{stderr}"
    );
    assert!(!directory.path().join("muster-data").exists(), "a refused manifest leaves nothing");
}

#[test]
fn patterns_that_match_nothing_are_named_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let manifest = "version: 1
name: e
model: {pretrained: MODEL, max_length: 16}
data:
  train: {path: [one.csv, 'parts/part-*.csv']}
  validation: {path: 'held[0-9].csv'}
  text: text
  label: {column: label}
hyperparameters: {learning_rate: 1e-4, global_batch_size: 8}
budget: {steps: 1}
";
    let manifest = manifest.replace("MODEL", &model.display().to_string());
    std::fs::write(at("e.yaml"), manifest).unwrap();
    std::fs::write(at("one.csv"), "text,label\na,1\n").unwrap();
    std::fs::create_dir(at("parts")).unwrap();
    std::fs::write(at("parts/other.csv"), "text,label\na,1\n").unwrap();
    for command in ["validate", "run"] {
        let (code, stderr) = fails(directory.path(), &[command, "e.yaml"]);
        assert_eq!(code, 2, "{stderr}");
        let words = "e.yaml: data.train.path: `";
        assert!(
            stderr.contains(words) && stderr.contains("parts/part-*.csv`: no file"),
            "{stderr}"
        );
    }
    std::fs::write(at("parts/part-1.csv"), "text,label\na,1\n").unwrap();
    let (code, stderr) = fails(directory.path(), &["validate", "e.yaml"]);
    assert!(code == 2 && stderr.contains("data.validation.path: `"), "{code}: {stderr}");
    // A file may be called like a pattern.
    std::fs::write(at("held[0-9].csv"), "text,label\nb,1\n").unwrap();
    let (code, stderr) = fails(directory.path(), &["validate", "e.yaml"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn nothing_to_resume_and_nobody_to_ask_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let (code, stderr) = fails(directory.path(), &["run", "--resume"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("no experiment is unfinished"), "{stderr}");
    let (code, stderr) = fails(directory.path(), &["ls", "--coordinator", "http://127.0.0.1:9"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("\nhint: start one with `muster serve`"), "{stderr}");
}

#[test]
fn shells_and_manuals_know_the_commands() {
    let directory = tempfile::tempdir().unwrap();
    let ask = |arguments: &[&str]| {
        Muster::start(directory.path(), "ask", arguments).unwrap().succeed().unwrap().0
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(ask(&["completions", shell]).contains("MUSTER_COMPLETE"), "{shell}");
    }
    for asked in [&["--help"][..], &["-h"], &["help"]] {
        let help = ask(asked);
        assert!(help.contains("130  interrupted"), "{help}");
        let groups =
            ["Start experiments:\n", "Watch them:\n", "Decide:\n", "Use results:\n", "Operate:\n"];
        let places: Vec<usize> = groups.iter().map(|group| help.find(group).unwrap()).collect();
        assert!(places.is_sorted() && !help.contains('\u{1b}'), "{help}");
        assert!(help.contains("\n  watch        Look at experiments"), "{help}");
    }
    assert!(ask(&["help", "watch"]).contains("Usage: muster watch"));
    let page = ask(&["man"]);
    assert!(page.starts_with(".ie") && page.contains("muster\\-prioritize(1)"), "{page}");
    ask(&["man", "--directory", "pages"]);
    for page in ["muster.1", "muster-watch.1", "muster-checkpoints-gc.1"] {
        assert!(directory.path().join("pages").join(page).is_file(), "{page}");
    }
    let help = std::fs::read_to_string(directory.path().join("pages/muster.1")).unwrap();
    assert!(help.contains("the coordinator let nobody in"), "{help}");
}

#[test]
fn a_shell_is_told_what_could_come_next() {
    let directory = tempfile::tempdir().unwrap();
    let complete = |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let output = Command::new(program("muster").unwrap())
            .current_dir(directory.path())
            .env("MUSTER_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", &index)
            .env("_CLAP_IFS", "\n")
            .env("MUSTER_COORDINATOR", "http://127.0.0.1:9")
            .arg("--")
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands = complete(&["muster", "che"]);
    assert_eq!(commands.lines().collect::<Vec<_>>(), ["checkpoints"]);
    let flags = complete(&["muster", "watch", "--pl"]);
    assert_eq!(flags.lines().collect::<Vec<_>>(), ["--plain"]);
    assert_eq!(complete(&["muster", "watch", "demo"]), "", "nobody answers, and nothing is said");
}

/// A login node needs only `muster`.
#[test]
fn the_coordinator_does_not_link_libtorch() {
    let needs = |name: &str| {
        let output = Command::new("ldd").arg(program(name).unwrap()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("torch")
    };
    assert!(!needs("muster"));
    assert!(needs("muster-worker"), "the check itself works");
}

/// Where something is written that nobody will read.
fn unread() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn commands_end_quietly_when_nobody_reads() {
    let directory = tempfile::tempdir().unwrap();
    copy_model(directory.path());
    std::fs::write(directory.path().join("d.csv"), "text,label\na,0\nb,1\n").unwrap();
    let manifest = "version: 1
name: e
model: {pretrained: m, max_length: 16}
data:
  train: {path: d.csv}
  validation: {examples: 1}
  text: text
  label: {column: label}
hyperparameters: {learning_rate: 1e-5, global_batch_size: 1}
budget: {steps: 4}
";
    std::fs::write(directory.path().join("e.yaml"), manifest).unwrap();
    let muster = |arguments: &[&str]| {
        let mut command = Command::new(program("muster").unwrap());
        command.args(arguments).current_dir(directory.path());
        command
    };
    for arguments in [
        &["schema"][..],
        &["validate", "e.yaml"],
        &["plan", "e.yaml"],
        &["man"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let output = muster(arguments).stdout(unread()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("ipe"), "{arguments:?}: {stderr}");
    }
    // What is wrong cannot be told here either, but the code can.
    let status = muster(&["validate", "absent.yaml"]).stderr(unread()).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn an_experiment_goes_on_when_nobody_reads() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = match write_manifest(directory.path(), &Sample { max_trials: 1, min_steps: 2 }) {
        Ok(manifest) => manifest,
        Err(reason) => {
            println!("MUSTER-SKIP an_experiment_goes_on_when_nobody_reads: {reason}");
            return;
        }
    };
    let status = Command::new(program("muster").unwrap())
        .args(["run", "--slots", "1", "--summary", "summary.json"])
        .arg(&manifest)
        .current_dir(directory.path())
        .stdout(unread())
        .stderr(unread())
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
    let summary = std::fs::read_to_string(directory.path().join("summary.json")).unwrap();
    assert!(summary.contains("completed"), "{summary}");
}
