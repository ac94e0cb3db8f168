//! The log: lines with the time since the start, on the console.

use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Once;

use crate::arch::timer::Timer;
use crate::console::println;

struct Logger {
    timer: Once<Timer>,
}

static LOGGER: Logger = Logger { timer: Once::new() };

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let time = self.timer.get().map_or(0, Timer::nanoseconds) / 1000;
        let kind = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        println!(
            "[{:5}.{:06}] {kind}{}",
            time / 1_000_000,
            time % 1_000_000,
            record.args()
        );
    }

    fn flush(&self) {}
}

/// Starts the log with the times of `timer`.
pub(crate) fn start(timer: Timer, level: LevelFilter) {
    LOGGER.timer.call_once(|| timer);
    // It fails only if there is a logger already, which then is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}
