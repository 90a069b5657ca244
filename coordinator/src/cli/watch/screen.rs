//! The terminal while it is taken: raw mode and its second screen, given back whatever happens.

use std::io::{self, IsTerminal, Stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

/// The terminal is taken.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// A panic gives it back before it says anything.
static HOOK: Once = Once::new();

/// The second screen. Drawn to standard error, as everything that is no result.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
}

/// Whether a user sits there who sees what is drawn and has keys.
pub(super) fn is_there() -> bool {
    let has_cursor = std::env::var("TERM").is_ok_and(|name| !name.is_empty() && name != "dumb");
    has_cursor
        && io::stdin().is_terminal()
        && io::stdout().is_terminal()
        && io::stderr().is_terminal()
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        IS_TAKEN.store(true, Ordering::SeqCst);
        let taken = || {
            enable_raw_mode()?;
            execute!(io::stderr(), EnterAlternateScreen)?;
            Terminal::new(CrosstermBackend::new(io::stderr()))
        };
        taken().map(|terminal| Self { terminal }).inspect_err(|_| give_back())
    }

    /// Draws what has changed.
    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(frame).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once: what the user sees afterwards must not be touched again.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // If the terminal is gone there is nobody to tell.
        let _gone = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _gone = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::*;

    /// Set in the process that is to panic.
    const MARK: &str = "MUSTER_TEST_PANICS";
    const OWN_NAME: &str = "cli::watch::screen::tests::a_panic_gives_the_terminal_back";

    /// This test starts itself once more, in a terminal, and panics there.
    #[test]
    fn a_panic_gives_the_terminal_back() {
        if std::env::var_os(MARK).is_some() {
            let _screen = Screen::take().unwrap();
            panic!("as was wanted");
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let other_end = ioctl_tiocgptpeer(&master, flags).unwrap();
        let end = || other_end.as_fd().try_clone_to_owned().unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", OWN_NAME]).env(MARK, "1").env("TERM", "xterm");
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        // The command keeps its ends: without them, reading ends when the child does.
        drop((command, other_end));
        let mut written = Vec::new();
        let mut keyboard = File::from(master.try_clone().unwrap());
        // Linux says so with an error.
        let _ended = keyboard.read_to_end(&mut written);
        assert!(!child.wait().unwrap().success());
        let written = String::from_utf8_lossy(&written);
        let place =
            |text: &str| written.find(text).unwrap_or_else(|| panic!("{text}: {written:?}"));
        assert!(place("\x1b[?1049h") < place("\x1b[?1049l"), "{written:?}");
        assert!(place("\x1b[?1049l") < place("as was wanted"), "said on the user's screen");
        let modes = tcgetattr(&master).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    }
}
