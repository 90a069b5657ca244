//! The full-screen view: a real sweep of a real coordinator, watched in a pseudo terminal by somebody who presses keys.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use muster_tests::process::Muster;
use muster_tests::sample::{Sample, slow_down, write_manifest};
use muster_tests::service::served_address;
use muster_tests::skip;
use muster_tests::terminal::{Size, Terminal};

const LARGE: Size = Size { rows: 36, columns: 130 };
const SMALL: Size = Size { rows: 20, columns: 64 };

struct Served {
    directory: tempfile::TempDir,
    server: Muster,
    url: String,
}

impl Served {
    /// A coordinator with a sweep that has begun.
    fn start(name: &str, sample: &Sample) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        if let Err(reason) = write_manifest(directory.path(), sample) {
            skip(name, &reason);
            return None;
        }
        // Slow, so that something is seen of it before it is over.
        slow_down(&directory.path().join("sample.yaml")).unwrap();
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--slots", "1"];
        let mut server = Muster::start(directory.path(), "serve", &arguments).unwrap();
        let url = served_address(&mut server).unwrap();
        let served = Self { directory, server, url };
        assert_eq!(served.ask(&["submit", "sample.yaml"]), "sample-1\n");
        Some(served)
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let arguments = [arguments, &["--coordinator", &self.url]].concat();
        let client = Muster::start(self.directory.path(), arguments[0], &arguments).unwrap();
        client.succeed().unwrap().0
    }

    fn watch(&self, arguments: &[&str], size: Size, variables: &[(&str, &str)]) -> Terminal {
        let arguments = [&["watch", "--coordinator", &self.url], arguments].concat();
        Terminal::start(self.directory.path(), &arguments, size, variables).unwrap()
    }
}

/// Shown by `--nocapture`, for whoever wants to look.
fn show(title: &str, screen: &str) {
    println!("---- {title}\n{screen}");
}

#[test]
fn a_sweep_is_watched_to_its_end() {
    let name = "a_sweep_is_watched_to_its_end";
    let Some(served) = Served::start(name, &Sample { max_trials: 3, min_steps: 40 }) else {
        return;
    };
    let mut terminal = served.watch(&["sample-1"], LARGE, &[]);
    terminal.wait_for("1 of 1 slots busy").unwrap();
    terminal.wait_for("tokens/s").unwrap();
    let screen = terminal.wait_for("best     t").unwrap();
    show("large", &screen);
    for part in [
        "Experiments",
        "sample-1",
        "searching",
        "Trials",
        "learning_rate",
        "train_loss",
        "Slots",
        "Log of",
    ] {
        assert!(screen.contains(part), "{part} in:\n{screen}");
    }
    terminal.press("?").unwrap();
    show("keys", &terminal.wait_for("draw the next metric").unwrap());
    terminal.press("x").unwrap();
    terminal.press("m").unwrap();
    terminal.press("/nothing\r").unwrap();
    terminal.wait_for("none like that").unwrap();
    terminal.press("\x1b").unwrap();
    terminal.resize(SMALL).unwrap();
    show("small", &terminal.wait_for("[2 Trials]").unwrap());
    terminal.press("\x1b[B\t").unwrap();
    show("curve", &terminal.wait_for("[3 Curve]").unwrap());
    terminal.resize(LARGE).unwrap();
    show("end", &terminal.wait_for("sample-1  completed").unwrap());
    terminal.press("q").unwrap();
    let status = terminal.wait().unwrap();
    let screen = terminal.screen();
    assert!(status.success(), "{status}\n{screen}");
    assert!(terminal.is_given_back().unwrap(), "{screen}");
    assert!(terminal.written().contains("sample-1 completed after"), "the result stays: {screen}");
}

#[test]
fn the_terminal_is_given_back_however_the_view_ends() {
    let name = "the_terminal_is_given_back_however_the_view_ends";
    let Some(mut served) = Served::start(name, &Sample { max_trials: 8, min_steps: 200 }) else {
        return;
    };
    for (how, code) in [("q", 0), ("\x03", 130), ("TERM", 130), ("INT", 130), ("HUP", 130)] {
        let mut terminal = served.watch(&[], SMALL, &[("NO_COLOR", "1")]);
        terminal.wait_for("sample-1").unwrap();
        assert!(!terminal.is_given_back().unwrap(), "the view has it");
        if how.len() > 1 {
            terminal.signal(how).unwrap();
        } else {
            terminal.press(how).unwrap();
        }
        let status = terminal.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{how:?}: {}", terminal.written());
        assert!(terminal.is_given_back().unwrap(), "{how:?}: {}", terminal.written());
        assert!(!terminal.written().contains("\x1b[38;"), "no colours were wanted");
    }
    // A coordinator that goes away is said, and the view stays.
    let mut terminal = served.watch(&["sample-1"], LARGE, &[]);
    terminal.wait_for("Slots 1 of 1 busy").unwrap();
    served.server.kill().unwrap();
    show("alone", &terminal.wait_for("trying again").unwrap());
    terminal.press("q").unwrap();
    assert!(terminal.wait().unwrap().success());
    assert!(terminal.is_given_back().unwrap());
}

#[test]
fn who_has_no_terminal_or_wants_none_gets_lines() {
    let name = "who_has_no_terminal_or_wants_none_gets_lines";
    let Some(served) = Served::start(name, &Sample { max_trials: 1, min_steps: 4 }) else { return };
    let mut plain = served.watch(&["sample-1", "--plain"], LARGE, &[]);
    assert!(plain.wait().unwrap().success());
    assert!(!plain.written().contains("\x1b["), "{}", plain.written());
    assert!(plain.written().contains("sample-1 completed"), "{}", plain.written());
    let arguments = ["watch", "--coordinator", &served.url];
    let mut nothing = Muster::start(served.directory.path(), "nothing", &arguments).unwrap();
    assert_eq!(nothing.wait().unwrap().code(), Some(2));
    assert!(nothing.stderr().contains("name an experiment"), "{}", nothing.stderr());
}
