//! The script that is carried to GPU machines runs here, on the CPU and with small shapes, so that it
//! is known to work before a GPU is at hand.

use std::process::Command;

use muster_tests::{sample, skip};
use serde_json::Value;

#[test]
fn the_gpu_check_runs_to_its_end() {
    let root = sample::repository();
    let python = root.join(".cache/python/bin/python");
    let missing = match sample::demo_inputs() {
        Err(missing) => Some(missing),
        Ok(_) if !python.is_file() => {
            Some(".cache/python is missing: run deploy/setup/python_readers.sh".to_owned())
        }
        Ok(_) => None,
    };
    if let Some(missing) = missing {
        return skip("the_gpu_check_runs_to_its_end", &missing);
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("results.json");
    let done = Command::new("timeout")
        .args(["300", root.join("deploy/gpu-check/check.sh").to_str().unwrap()])
        .args(["--device", "cpu", "--small", "--no-peer", "--out", out.to_str().unwrap()])
        .env("MUSTER_CHECK_PYTHON", python)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stdout));
    let results: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    let row = |name: &str| {
        let rows = results["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap().clone()
    };
    assert_eq!(row("predict_gpu_vs_cpu")["value"], 0.0);
    assert_eq!(row("loss_after_20_steps_float32_vs_cpu")["value"], 0.0);
    assert!(row("tokens_per_second")["value"].as_f64().unwrap() > 0.0);
    assert_eq!(results["failure"], Value::Null);
}

#[test]
fn a_gpu_that_is_not_there_is_said() {
    let root = sample::repository();
    let done = Command::new("python3")
        .arg(root.join("deploy/gpu-check/check.py"))
        .args(["--device", "cuda:99"])
        .output()
        .unwrap();
    assert!(!done.status.success());
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("no GPU 99"), "{said}");
}
