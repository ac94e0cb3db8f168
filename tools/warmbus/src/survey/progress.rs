//! A line that shows how much is done.

use std::io::{IsTerminal, Write};

const WIDTH: usize = 30;

/// When the line is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A line of the standard error that fills.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: usize,
    done: usize,
    shown: Option<usize>,
    is_on: bool,
}

impl Progress {
    /// A line for `total` steps.
    #[must_use]
    pub fn new(what: &'static str, total: usize, when: When) -> Self {
        let is_on = match when {
            When::Auto => std::io::stderr().is_terminal(),
            When::Always => true,
            When::Never => false,
        };
        Self {
            what,
            total,
            done: 0,
            shown: None,
            is_on,
        }
    }

    /// One more step is done.
    pub fn step(&mut self) {
        self.done += 1;
        self.show();
    }

    /// All is done.
    pub fn end(mut self) {
        self.done = self.total;
        self.show();
        if self.is_on {
            let _ = writeln!(std::io::stderr());
        }
    }

    fn show(&mut self) {
        let percent = (100 * self.done).checked_div(self.total).unwrap_or(100);
        if !self.is_on || self.shown == Some(percent) {
            return;
        }
        self.shown = Some(percent);
        let filled = percent * WIDTH / 100;
        let bar = "#".repeat(filled) + &"-".repeat(WIDTH - filled);
        // Where nobody can see it, it may fail.
        let _ = write!(std::io::stderr(), "\r{} [{bar}] {percent:3} %", self.what);
    }
}
