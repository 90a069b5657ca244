//! A program in a pseudo terminal, and what a person in front of it sees.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::{PATIENCE, program, send_signal};

/// Pause between two looks at the screen.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Written behind everything that the program has written, so that whoever has read it has read that: a command to the
/// terminal that none knows, so nobody sees it.
const END: &[u8] = b"\x1b]7777;end\x07";

/// Rows and columns.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Rows, from 1.
    pub rows: u16,
    /// Columns, from 1.
    pub columns: u16,
}

impl Size {
    fn numbers(self) -> anyhow::Result<(NonZeroU16, NonZeroU16)> {
        let number = |count: u16| NonZeroU16::new(count).context("a terminal has rows and columns");
        Ok((number(self.rows)?, number(self.columns)?))
    }

    fn of_window(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// What was written to the terminal.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    parser: Option<vt100::Parser>,
}

/// A terminal and the program that has it.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Kept open: its modes can be asked for when the program has ended.
    other_end: OwnedFd,
    seen: Arc<Mutex<Seen>>,
}

impl Terminal {
    /// Starts `muster ARGUMENTS` in `directory`, with the terminal as its own.
    pub fn start(
        directory: &Path,
        arguments: &[&str],
        size: Size,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let other_end = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        tcsetwinsize(&master, size.of_window())?;
        // setsid replaces itself: the child's id is that of the program.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program("muster")?).args(arguments).current_dir(directory);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("COLORTERM");
        command.envs(variables.iter().copied());
        let end = || other_end.as_fd().try_clone_to_owned();
        let child = command.stdin(end()?).stdout(end()?).stderr(end()?).spawn()?;
        let (rows, columns) = size.numbers()?;
        let seen = Seen { bytes: Vec::new(), parser: Some(vt100::Parser::new(rows, columns, 0)) };
        let seen = Arc::new(Mutex::new(seen));
        let (mut output, sink) = (File::from(master.try_clone()?), seen.clone());
        // Ends when the other end is closed by the program and by us.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                let mut seen = lock(&sink);
                seen.bytes.extend_from_slice(bytes);
                if let Some(parser) = &mut seen.parser {
                    parser.process(bytes);
                }
            }
        });
        Ok(Self { child, keyboard: File::from(master), other_end, seen })
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> anyhow::Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Gives the window another size; the kernel tells the program.
    pub fn resize(&self, size: Size) -> anyhow::Result<()> {
        let (rows, columns) = size.numbers()?;
        if let Some(parser) = &mut lock(&self.seen).parser {
            parser.set_size(rows, columns);
        }
        Ok(tcsetwinsize(&self.keyboard, size.of_window())?)
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        let seen = lock(&self.seen);
        seen.parser.as_ref().map(|parser| parser.screen().contents()).unwrap_or_default()
    }

    /// Everything that was written, escape sequences too.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&lock(&self.seen).bytes).into_owned()
    }

    /// Whether it is as a shell wants it: the first screen with a cursor, lines are edited, keys are shown.
    pub fn is_given_back(&self) -> anyhow::Result<bool> {
        let modes = tcgetattr(&self.other_end)?.local_modes;
        let seen = lock(&self.seen);
        let is_plain = seen.parser.as_ref().is_some_and(|parser| {
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
        Ok(is_plain && modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG))
    }

    /// Waits until these words are on the screen.
    pub fn wait_for(&self, words: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(words) {
                return Ok(screen);
            }
            if begun.elapsed() > PATIENCE {
                bail!("no `{words}` on the screen:\n{screen}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        send_signal(name, self.child.id())
    }

    /// Waits for the end, and until all that was written has been read.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                bail!("no end:\n{}", self.screen());
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let mut end = File::from(self.other_end.try_clone()?);
        // The program may have left it so that writing does not wait.
        while let Err(error) = end.write_all(END) {
            if error.kind() != ErrorKind::WouldBlock || begun.elapsed() > PATIENCE {
                return Err(error.into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        while !self.take_end() {
            if begun.elapsed() > PATIENCE {
                bail!("not all that was written was read:\n{}", self.screen());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(status)
    }

    /// Whether the mark of the end was read, which is taken away then.
    fn take_end(&self) -> bool {
        let mut seen = lock(&self.seen);
        let place = seen.bytes.windows(END.len()).rposition(|bytes| bytes == END);
        if let Some(place) = place {
            seen.bytes.drain(place..place + END.len());
        }
        place.is_some()
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed must not leave anything running; one that ended is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
