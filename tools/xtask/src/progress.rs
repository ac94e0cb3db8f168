//! What is being done: one moving line on a terminal, plain lines
//! elsewhere. All of it goes to standard error.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One thing that is being done.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    began: Instant,
    /// The whole minutes that were shown.
    minutes: u64,
}

impl Progress {
    /// Says that `what` begins.
    #[must_use]
    pub fn begin(what: &str) -> Self {
        if !stderr().is_terminal() {
            eprintln!("{what} ...");
            return Self {
                bar: None,
                what: what.to_owned(),
                began: Instant::now(),
                minutes: 0,
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
            began: Instant::now(),
            minutes: 0,
        }
    }

    /// Shows how far it is. Nothing where there is no terminal.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Shows how far something long is, of which nobody knows how much there
    /// is. Where there is no terminal it says so once a minute, with the time
    /// that it took until then.
    pub fn so_far(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        } else if self.began.elapsed().as_secs() / 60 > self.minutes {
            self.minutes = self.began.elapsed().as_secs() / 60;
            eprintln!("{}: {} min, {text}", self.what, self.minutes);
        }
    }

    /// How long it has taken, in minutes and seconds.
    #[must_use]
    pub fn elapsed(&self) -> String {
        let seconds = self.began.elapsed().as_secs();
        format!("{} min {} s", seconds / 60, seconds % 60)
    }

    /// Says how it ended, in place of the moving line.
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
