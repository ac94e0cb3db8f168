//! Everything a developer of Warmbus runs: `cargo xtask --help`.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use xtask::setup::{self, Purpose};
use xtask::{UsageError, bench, boards, build, disk, dist, linux, run, test};

/// Builds, runs and tests Warmbus.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Check for and install what is needed
    Setup {
        /// Only check; install nothing
        #[arg(long)]
        check: bool,
    },
    /// Build the firmware image, target/warmbus/warmbus.img
    Build,
    /// Build a Linux kernel and print its path
    Linux(linux::Options),
    /// Boot the firmware and Linux in QEMU
    Run(Box<run::Options>),
    /// Benchmark all firmware and kernels by their configuration accesses
    Bench(bench::Options),
    /// Make the table of what surveys have found on boards
    Boards(boards::Options),
    /// Make a disk image for the U-Boot of a board
    Image(disk::Options),
    /// Build everything for users without Rust: firmware, static commands,
    /// Debian packages
    Dist(dist::Options),
    /// Run all tests, or those whose names contain NAME
    Test(test::Options),
}

fn main() -> ExitCode {
    let task = match Task::try_parse() {
        Ok(task) => task,
        Err(error) if shows_help(error.kind()) => error.exit(),
        Err(error) => {
            eprintln!("{}", one_line(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    let done = match task {
        Task::Setup { check: true } => setup::check(),
        Task::Setup { check: false } => setup::ensure(Purpose::Test)
            .map(|toolchain| println!("ready; toolchain for the firmware: {toolchain}")),
        Task::Build => setup::ensure(Purpose::Build)
            .and_then(|toolchain| build::firmware(&toolchain).map(drop)),
        Task::Linux(options) => linux::run(&options),
        Task::Run(options) => run::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Image(options) => disk::run(&options),
        Task::Boards(options) => boards::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Test(options) => match test::run(&options) {
            // The last line that it printed is the summary.
            Ok(false) => return ExitCode::FAILURE,
            other => other.map(drop),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// Whether an "error" of the command line is the help text.
fn shows_help(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// The message of a wrong command line without the usage that follows it.
fn one_line(message: &str) -> String {
    let first = message.split("\n\n").next().unwrap_or(message);
    let first: Vec<_> = first.split_whitespace().collect();
    format!("{}; see --help", first.join(" "))
}
