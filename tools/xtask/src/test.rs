//! `cargo xtask test`: every check there is, and one line that sums them up.

use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::dist::{self, trial};
use crate::fresh::root;
use crate::process::{self, for_each_line, succeeds, words};
use crate::setup::{self, Purpose};
use crate::toolchain::Toolchain;
use crate::{UsageError, build, fresh, linux, paths, programs};

/// The package of the end-to-end tests, and their only target.
const QEMU_TESTS: &str = "warmbus-qemu-tests";
const QEMU_TARGET: &str = "e2e";
const RUSTFMT: &str = "rustfmt";
const LINTS: &str = "clippy";
const FIRMWARE_LINTS: &str = "clippy-firmware";
const RUSTDOC: &str = "rustdoc";
/// The checks that are not tests of cargo. The full name of one selects it alone.
const CHECKS: [&str; 4] = [RUSTFMT, LINTS, FIRMWARE_LINTS, RUSTDOC];
/// The variable with the image that the end-to-end tests boot.
pub const IMAGE: &str = "WARMBUS_IMAGE";
/// The variable with the Linux that they start.
pub const LINUX: &str = "WARMBUS_LINUX";
/// The variable with the Linux that reads the cache.
pub const CONSUMER: &str = "WARMBUS_CONSUMER";
/// The variable with the command `warmbus` for the guests.
pub const COMMAND: &str = "WARMBUS_COMMAND";
/// The variable with a directory of more kernels.
pub const KERNELS: &str = "WARMBUS_KERNELS";
/// The variable that enables the largest machines in tests of many functions.
pub const LONG: &str = "WARMBUS_LONG";
/// The variables with the folder of the compiled device trees of Linux, and with
/// its source.
const TREES: &str = "WARMBUS_TREES";
const SOURCE: &str = "WARMBUS_LINUX_SOURCE";
/// Mutations of each kind of input in the long test of that name.
const MUTATIONS: u32 = 100_000;
/// The variables with the seed and the number of random cases
/// (`tools/pcie-sim/src/proptest_config.rs`).
const SEED: &str = "WARMBUS_SEED";
const ITERATIONS: &str = "WARMBUS_ITERATIONS";

/// Whether tests of many functions use the largest machines.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// Which tests to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test --host
  cargo xtask test --kernels ~/images
  cargo xtask test --long scale
  cargo xtask test --long fresh-debian-13
  cargo xtask test --long dist
  cargo xtask test --long trees
  cargo xtask test --long mutations
  cargo xtask test --long miri
  cargo xtask test --seed random --iterations 10000 transparent
  cargo xtask test switch")]
pub struct Options {
    /// Run only tests and checks whose names contain this
    pub name: Option<String>,

    /// Run only what needs no QEMU
    #[arg(long, conflicts_with = "qemu")]
    pub host: bool,

    /// Run only the end-to-end tests in QEMU
    #[arg(long)]
    pub qemu: bool,

    /// Seed of the random cases: a number, or `random`
    #[arg(long, value_name = "N|random", value_parser = seed, default_value = "0")]
    pub seed: u32,

    /// Number of random cases of each test
    #[arg(long, value_name = "N")]
    pub iterations: Option<u32>,

    /// Run the tests of many functions with as many as QEMU supports, which
    /// takes a quarter of an hour
    #[arg(long, conflicts_with = "host")]
    pub long: bool,

    /// Run the tests with Linux on every arm64 Image in this directory as well
    #[arg(long, value_name = "DIR")]
    pub kernels: Option<PathBuf>,
}

/// The number in `text`, or an arbitrary one for `random`.
fn seed(text: &str) -> Result<u32> {
    if text == "random" {
        // The low bits, which change with every nanosecond.
        return Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u32);
    }
    text.parse()
        .with_context(|| format!("{text} is neither a number below 2^32 nor random"))
}

/// Numbers of tests by their result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Sum {
    /// Adds the last line of a test runner; other lines add nothing.
    fn add_line(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let numbers = result.split_once(". ").map_or("", |(_, numbers)| numbers);
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs the tests and returns whether all passed. The last line that it prints
/// is their summary. Fails if no test was selected.
pub fn run(options: &Options) -> Result<bool> {
    let mut session = Session {
        name: options.name.clone(),
        long: options.long,
        kernels: options.kernels.as_deref().map(directory).transpose()?,
        sum: Sum::default(),
    };
    if session
        .name
        .as_deref()
        .is_some_and(|name| name.starts_with(fresh::NAME))
    {
        return session.fresh(options.long);
    }
    if let (true, Some(name)) = (options.long, &options.name)
        && name.starts_with(trial::NAME)
    {
        return session.systems(trial::run);
    }
    if options.long && matches!(options.name.as_deref(), Some("trees" | "mutations")) {
        return session.trees(options);
    }
    if options.long && options.name.as_deref() == Some("miri") {
        return session.miri();
    }
    println!("random cases: seed {}", options.seed);
    let toolchain = setup::ensure(if options.host {
        Purpose::Host
    } else {
        Purpose::Test
    })?;
    let tests = session.wants_tests();
    let firmware = FirmwareSteps {
        lints: !options.qemu && session.wants(FIRMWARE_LINTS),
        image: !options.host && tests,
    };
    // Its directory is its own, so that cargo builds both at a time. Alone, each
    // leaves a processor idle where one crate holds up all others.
    let firmware = thread::scope(|scope| {
        let firmware = scope.spawn(|| firmware.run(&toolchain));
        let host = if options.qemu {
            Ok(())
        } else {
            session.host(options, tests)
        };
        let firmware = firmware.join().unwrap_or_else(|panic| resume_unwind(panic));
        host.map(|()| firmware)
    })?;
    session.sum.add(firmware.lints);
    match firmware.image {
        None => {}
        Some(Ok(image)) => match kernels() {
            Ok(kernels) => session.qemu(&toolchain, &image, &kernels)?,
            Err(error) => session.failed("Linux build", &format!("{error:#}")),
        },
        Some(Err(error)) => session.failed("firmware build", &format!("{error:#}")),
    }
    session.end()
}

/// The Linux of the tests, and the same with our patches, which takes little
/// more where it is built second.
fn kernels() -> Result<[(&'static str, PathBuf); 2]> {
    Ok([
        (LINUX, linux::image(&linux::Options::default())?),
        (CONSUMER, linux::image(&linux::Options::consumer())?),
    ])
}

/// The full name of `path`, which has to be a directory.
fn directory(path: &Path) -> Result<PathBuf> {
    let full = path.canonicalize().ok().filter(|full| full.is_dir());
    full.ok_or_else(|| UsageError(format!("{} is no directory", path.display())).into())
}

struct Session {
    name: Option<String>,
    long: bool,
    kernels: Option<PathBuf>,
    sum: Sum,
}

impl Session {
    fn wants(&self, check: &str) -> bool {
        self.name.as_deref().is_none_or(|name| check.contains(name))
    }

    fn wants_tests(&self) -> bool {
        self.name
            .as_deref()
            .is_none_or(|name| !CHECKS.contains(&name))
    }

    fn failed(&mut self, check: &str, why: &str) {
        println!("check {check} ... FAILED: {why}");
        self.sum.failed += 1;
    }

    /// Format, lints, documentation and tests of all that runs on the host.
    fn host(&mut self, options: &Options, tests: bool) -> Result<()> {
        let fmt = succeeds(cargo("fmt").arg("--version"));
        let lints = succeeds(cargo("clippy").arg("--version"));
        let checks = [
            (RUSTFMT, fmt, &["fmt", "--all", "--check"][..]),
            (
                LINTS,
                lints,
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--quiet",
                    "--",
                    "-D",
                    "warnings",
                ],
            ),
            (
                RUSTDOC,
                true,
                &["doc", "--workspace", "--no-deps", "--quiet"],
            ),
        ];
        for (name, possible, arguments) in checks {
            if self.wants(name) {
                let mut command = cargo(arguments[0]);
                command
                    .args(&arguments[1..])
                    .env("RUSTDOCFLAGS", "-D warnings");
                self.sum.add(check(name, possible, &mut command));
            }
        }
        if !tests {
            return Ok(());
        }
        let mut command = cargo("test");
        command
            .args(["--workspace", "--exclude", QEMU_TESTS])
            .env(SEED, options.seed.to_string())
            .envs(
                options
                    .iterations
                    .map(|count| (ITERATIONS, count.to_string())),
            )
            .envs(self.kernels.iter().map(|kernels| (KERNELS, kernels)));
        self.tests(&mut command, &[])
    }

    /// The end-to-end tests. Each has a QEMU.
    fn qemu(
        &mut self,
        toolchain: &Toolchain,
        image: &Path,
        kernels: &[(&str, PathBuf)],
    ) -> Result<()> {
        let mut command = cargo("test");
        // Of the workspace, since the features that its packages need of others
        // would differ for this one alone, and all would be built again.
        command
            .args(["--workspace", "--test", QEMU_TARGET])
            .env(IMAGE, image)
            .envs(kernels.iter().cloned());
        // Few tests need it, and build it themselves where they are chosen.
        if self.name.is_none()
            && let Some(file) = dist::command_for_guests(toolchain)?
        {
            command.env(COMMAND, file);
        }
        if self.long {
            command.env(LONG, "1");
        }
        // Most guests wait for something now and then: a device, a second, the
        // end of a reset.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = format!("--test-threads={}", 2 * processors);
        let mut arguments = vec![threads.as_str()];
        if let Some(kernels) = &self.kernels {
            // Without a directory these are skipped.
            command.env(KERNELS, kernels);
            arguments.push("--include-ignored");
        }
        self.tests(&mut command, &arguments)
    }

    /// The device trees of all boards that Linux has: how each is read, or what
    /// becomes of damaged ones, and of damaged tables.
    fn trees(&mut self, options: &Options) -> Result<bool> {
        let trees = linux::trees()?;
        let mut command = cargo("test");
        command.env(TREES, &trees.folder).env(SOURCE, &trees.source);
        if self.name.take().as_deref() == Some("trees") {
            command.args(["--package", "warmbus-tests", "--test", "trees"]);
            self.tests(&mut command, &["--include-ignored", "--nocapture"])?;
            return self.end();
        }
        let count = options.iterations.unwrap_or(MUTATIONS);
        println!("random cases: seed {}, {count} of each kind", options.seed);
        command
            .env(SEED, options.seed.to_string())
            .env(ITERATIONS, count.to_string())
            .env("PROPTEST_CASES", count.to_string());
        command.args(["--package", "warmbus-fuzz", "--test", "bounded"]);
        self.tests(&mut command, &["any_device_tree"])?;
        let mut tables = cargo("test");
        tables.env("PROPTEST_CASES", count.to_string()).args([
            "--package",
            "warmbus-machine",
            "--lib",
        ]);
        self.tests(&mut tables, &["acpi_damage"])?;
        self.end()
    }

    /// The allocator of the firmware on this host, where Miri checks each access.
    fn miri(&mut self) -> Result<bool> {
        let miri = |arguments: &[&str]| {
            let mut command = Command::new("rustup");
            command
                .current_dir(paths::root())
                .args(["run", "nightly", "cargo", "miri"])
                .args(arguments)
                // The firmware makes pointers of physical addresses.
                .env("MIRIFLAGS", "-Zmiri-permissive-provenance");
            command
        };
        if !succeeds(&mut miri(&["--version"])) {
            println!(
                "check miri ... skipped: it is not installed; \
                 `rustup toolchain install nightly --component miri,rust-src` installs it"
            );
            self.sum.skipped += 1;
            return self.end();
        }
        self.name = None;
        let test = ["test", "--package", "warmbus-firmware", "--test", "memory"];
        self.tests(&mut miri(&test), &[])?;
        self.end()
    }

    /// The commands of the README on fresh systems.
    fn fresh(&mut self, long: bool) -> Result<bool> {
        if !long {
            return Err(
                UsageError("tests on fresh systems take hours: they need --long".into()).into(),
            );
        }
        self.systems(fresh::run)
    }

    /// Tests of systems that were just installed, of which `run` runs those with the
    /// name, and counts those that passed and that failed.
    fn systems(&mut self, run: impl FnOnce(&str) -> Result<(u64, u64)>) -> Result<bool> {
        let name = self.name.as_deref().unwrap_or_default();
        let what = "other tests of fresh systems";
        let (passed, failed) = paths::exclusively(&root::directory(), what, || run(name))?;
        self.sum.passed += passed;
        self.sum.failed += failed;
        self.end()
    }

    /// Prints the summary and returns whether all passed.
    fn end(&self) -> Result<bool> {
        if self.sum.total() == 0 {
            return Err(UsageError(format!(
                "no test has {:?} in its name",
                self.name.as_deref().unwrap_or("")
            ))
            .into());
        }
        println!("{}", self.sum);
        Ok(self.sum.failed == 0)
    }

    /// Runs a `cargo test` and adds the results of its runners.
    fn tests(&mut self, command: &mut Command, arguments: &[&str]) -> Result<()> {
        command
            .arg("--no-fail-fast")
            .arg("--")
            .args(arguments)
            .args(&self.name);
        eprintln!("{}", words(command));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", words(command)))?;
        let failed_before = self.sum.failed;
        if let Some(out) = child.stdout.take() {
            for_each_line(out, |line| {
                self.sum.add_line(&line);
                println!("{line}");
            });
        }
        if !child.wait()?.success() && self.sum.failed == failed_before {
            self.failed(&words(command), "it did not build, or a runner crashed");
        }
        Ok(())
    }
}

/// What is done with the firmware, one step after the other.
struct FirmwareSteps {
    lints: bool,
    image: bool,
}

/// What came of [`FirmwareSteps`].
struct Firmware {
    lints: Sum,
    image: Option<Result<PathBuf>>,
}

impl FirmwareSteps {
    fn run(&self, toolchain: &Toolchain) -> Firmware {
        let mut firmware = Firmware {
            lints: Sum::default(),
            image: None,
        };
        if self.lints {
            // There is no clippy for a compiler that is not the active one.
            let possible = toolchain.is_active() && succeeds(cargo("clippy").arg("--version"));
            let mut command = toolchain.cargo("clippy");
            command
                .args(["--package", "warmbus-firmware", "--features", "firmware"])
                .args(["--quiet", "--", "-D", "warnings"]);
            firmware.lints = check(FIRMWARE_LINTS, possible, &mut command);
        }
        firmware.image = self.image.then(|| build::firmware_beside_others(toolchain));
        firmware
    }
}

/// Runs a check. Its output is that of `command`, and a line with the result.
fn check(name: &str, possible: bool, command: &mut Command) -> Sum {
    let mut sum = Sum::default();
    if !possible {
        println!("check {name} ... skipped: its tool is not installed for this compiler");
        sum.skipped = 1;
        return sum;
    }
    eprintln!("check {name}: {}", words(command));
    match process::run(command) {
        Ok(()) => {
            println!("check {name} ... ok");
            sum.passed = 1;
        }
        Err(error) => {
            println!("check {name} ... FAILED: {error}");
            sum.failed = 1;
        }
    }
    sum
}

fn cargo(subcommand: &str) -> Command {
    let mut command = process::cargo(subcommand);
    // Tests start what setup found.
    command.env("PATH", programs::search_path());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_over_all_runners() {
        let mut sum = Sum::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            sum.add_line(line);
        }
        assert_eq!(
            sum,
            Sum {
                passed: 7,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(sum.to_string(), "7 passed, 2 failed, 1 skipped");
        assert_eq!(
            Sum {
                passed: 7,
                ..Sum::default()
            }
            .to_string(),
            "7 passed, 0 failed"
        );
    }
}
