//! What is printed, while somebody reads it. The standard library's `println!` panics where nobody does any more, as
//! behind `| head`; the macros here, which stand in front of those in every module of the command line, do not:
//! a command whose work is to print ends, one that has other work goes on without a word.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::exit::Exit;

/// Whether the command has other work than to print.
static GOES_ON: AtomicBool = AtomicBool::new(false);

macro_rules! print {
    ($($words:tt)*) => { $crate::cli::output::say(::std::format_args!($($words)*)) };
}
macro_rules! println {
    () => { $crate::cli::output::say(::std::format_args!("\n")) };
    ($($words:tt)*) => {
        $crate::cli::output::say(::std::format_args!("{}\n", ::std::format_args!($($words)*)))
    };
}
macro_rules! eprintln {
    () => { $crate::cli::output::remark(::std::format_args!("\n")) };
    ($($words:tt)*) => {
        $crate::cli::output::remark(::std::format_args!("{}\n", ::std::format_args!($($words)*)))
    };
}

/// From now on nobody has to read what is printed.
pub(super) fn go_on_unread() {
    GOES_ON.store(true, Ordering::Relaxed);
}

/// Prints to standard output.
pub(super) fn say(words: fmt::Arguments<'_>) {
    say_bytes(words.to_string().as_bytes());
}

/// Prints to standard output what need not be text.
pub(super) fn say_bytes(bytes: &[u8]) {
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_all(bytes).and_then(|()| output.flush()) {
        drop(output);
        unheard(&error);
    }
}

fn unheard(error: &io::Error) {
    if GOES_ON.load(Ordering::Relaxed) {
        return;
    }
    if error.kind() == io::ErrorKind::BrokenPipe {
        // Whoever read has seen enough.
        std::process::exit(Exit::Done.code().into());
    }
    remark(format_args!("error: cannot write to standard output: {error}\n"));
    std::process::exit(Exit::Failed.code().into());
}

/// Prints to standard error; where nobody reads that, there is nobody to tell so.
pub(super) fn remark(words: fmt::Arguments<'_>) {
    let _unheard = io::stderr().write_all(words.to_string().as_bytes());
}
