//! Progress on standard error: one updated line on a terminal, a line for each
//! event elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// An activity in progress.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    began: Instant,
    /// The whole minutes that were shown.
    minutes: u64,
}

impl Progress {
    /// Prints that `what` begins.
    #[must_use]
    pub fn begin(what: &str) -> Self {
        if !stderr().is_terminal() {
            return Self::beside_others(what);
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
            began: Instant::now(),
            minutes: 0,
        }
    }

    /// Prints that `what` begins, for an activity that shares the terminal with
    /// another one: there is no updated line.
    #[must_use]
    pub fn beside_others(what: &str) -> Self {
        eprintln!("{what} ...");
        Self {
            bar: None,
            what: what.to_owned(),
            began: Instant::now(),
            minutes: 0,
        }
    }

    /// Shows `text` as detail, on a terminal only.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Shows `text` as the progress of an activity of unknown length. Without a
    /// terminal, it is printed once a minute, with the elapsed time.
    pub fn so_far(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        } else if self.began.elapsed().as_secs() / 60 > self.minutes {
            self.minutes = self.began.elapsed().as_secs() / 60;
            eprintln!("{}: {} min, {text}", self.what, self.minutes);
        }
    }

    /// The elapsed time, in minutes and seconds.
    #[must_use]
    pub fn elapsed(&self) -> String {
        let seconds = self.began.elapsed().as_secs();
        format!("{} min {} s", seconds / 60, seconds % 60)
    }

    /// Prints the result in place of the updated line.
    pub fn end(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
