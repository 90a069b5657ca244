//! A real headless browser, driven by scripts of `tests/dashboard`.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::sample::repository;

/// Longest time of one script, seconds.
const SCRIPT_SECONDS: &str = "600";

/// Why there is no browser, if there is none.
pub fn browser() -> Result<(), String> {
    let has = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let modules = repository().join(".cache/browser/node_modules");
    let has_module = |name: &str| modules.join(name).is_dir();
    let has_modules = has_module("playwright-core") && has_module("axe-core");
    if has("node") && has("chromium") && has_modules {
        return Ok(());
    }
    Err("browser: there is no Chromium or nothing to drive it; run deploy/setup/browser.sh"
        .to_owned())
}

/// Runs a script in `directory` with these variables; what it has printed, once it ends well.
pub fn browse(
    script: &str,
    directory: &Path,
    variables: &[(&str, &str)],
) -> anyhow::Result<String> {
    let modules = repository().join(".cache/browser/node_modules");
    let output = Command::new("timeout")
        .args(["--kill-after=10", SCRIPT_SECONDS, "node"])
        .arg(repository().join("tests/dashboard").join(script))
        .current_dir(directory)
        .env("MUSTER_MODULES", modules)
        .env("MUSTER_REPOSITORY", repository())
        .envs(variables.iter().copied())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{script}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}
