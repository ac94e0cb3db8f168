//! Telling what is being done: one moving line on a terminal, plain lines
//! elsewhere. All of it goes to standard error.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One thing that is being done.
pub struct Step {
    bar: Option<ProgressBar>,
    what: String,
    /// Tenths of the way that were told.
    tenths: u64,
}

impl Step {
    /// Says that `what` begins.
    #[must_use]
    pub fn begin(what: &str) -> Self {
        if !stderr().is_terminal() {
            eprintln!("{what} ...");
            return Self {
                bar: None,
                what: what.to_owned(),
                tenths: 0,
            };
        }
        let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner()
            .with_style(style)
            .with_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar: Some(bar),
            what: what.to_owned(),
            tenths: 0,
        }
    }

    /// Shows how far it is. Nothing where there is no terminal.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Shows that `done` of about `total` things, called `unit`, are done.
    /// Where there is no terminal it says so ten times on the way.
    pub fn progress(&mut self, done: u64, total: u64, unit: &str) {
        let said = format!("{done} of about {total} {unit}");
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{}: {said}", self.what));
        } else if done * 10 / total.max(1) > self.tenths {
            self.tenths = done * 10 / total.max(1);
            eprintln!("{}: {said}", self.what);
        }
    }

    /// Says how it ended, in place of the moving line.
    pub fn end(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{text}");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
