//! Booting on into Linux and keeping what it received.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use warmbus_boot::report::console::{Event, STARTING, Section};
use warmbus_cli::trace::{self, Access};
use xtask::qemu::{Machine, Payload, Running};
use xtask::setup::{self, Purpose};
use xtask::{dist, linux, run, test};

use crate::handover::{self, Block, Subtree};
use crate::{Boot, Lab, boot};

/// The Linux of the project: the one that `cargo xtask test` has built, or
/// one that is built now.
#[must_use]
pub fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        env::var_os(test::LINUX).map_or_else(
            || linux::image(&linux::Options::default()).expect("Linux builds"),
            PathBuf::from,
        )
    })
}

/// The initramfs with the test init.
#[must_use]
pub fn initramfs() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| linux::initramfs().expect("the initramfs can be made"))
}

/// The command `warmbus` for the guest: the one that `cargo xtask test` has
/// built, or one that is built now. `None`, with a line that says so, where Rust has
/// no standard library for it.
#[must_use]
pub fn command() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        env::var_os(test::COMMAND).map(PathBuf::from).or_else(|| {
            let toolchain = setup::ensure(Purpose::Test).expect("what is needed is there");
            dist::command_for_guests(&toolchain).expect("the command builds")
        })
    });
    if file.is_none() {
        eprintln!("skipped: Rust has no standard library for aarch64-unknown-linux-musl here");
    }
    file.as_deref()
}

/// The name of an initramfs in `lab` with the test init, `command` and
/// the steps that run it.
#[must_use]
pub fn with_command(lab: &Lab, command: &Path) -> String {
    let program = fs::read(command).expect("the command can be read");
    let steps = include_bytes!("command.sh").to_vec();
    let files = [
        ("bin/warmbus".into(), program),
        ("steps/command".into(), steps),
    ];
    let initrd = linux::with_files(initramfs(), &files).expect("an initrd can be made");
    let file = lab.file("initramfs");
    fs::write(&file, initrd).expect("the initramfs can be written");
    file.to_string_lossy().into_owned()
}

/// What spares a boot of the tests time: no word of the kernel but errors, and none of
/// the 256 terminals of old, which take it a tenth of its boot.
const SHORT: &str = "quiet pty.legacy_count=0";

/// `kernel` with the test init, which is to do `steps`.
#[must_use]
pub fn payload(kernel: &Path, steps: &str) -> Payload {
    Payload {
        kernel: kernel.into(),
        initrd: Some(initramfs().into()),
        bootargs: format!("{} {SHORT} warmbus.test={steps}", run::LINUX_BOOTARGS),
    }
}

/// A machine that QEMU starts `kernel` on without the firmware, with the test
/// init, which is to do `steps`.
#[must_use]
pub fn alone(kernel: &Path, steps: &str) -> Machine {
    let payload = payload(kernel, steps);
    Machine::kernel(kernel)
        .bootargs(&payload.bootargs)
        .arguments(["-initrd".into(), initramfs().to_string_lossy().into_owned()])
}

/// A function as Linux sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// First address, last address and flags of each resource.
    pub resources: Vec<[u64; 3]>,
    /// Configuration space as Linux reads it from hardware.
    pub config: Vec<u8>,
}

/// When a test can do something to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The firmware has said that it starts Linux, which may run already.
    Starting,
    /// The test init holds still, for the n-th time from 0 on.
    Waiting(usize),
}

/// A boot that went on into Linux.
#[derive(Debug, Default)]
pub struct LinuxBoot {
    /// What is known of the firmware, and of QEMU while Linux ran.
    pub boot: Boot,
    /// Whether the firmware said that it starts Linux.
    pub started: bool,
    /// Whether the test init did all it was asked to.
    pub done: bool,
    /// Whether Linux powered the machine off, or came to its end on one that
    /// cannot be.
    pub powered_off: bool,
    /// What the `pcsc` subtree says, as Linux received it.
    pub subtree: Option<Subtree>,
    /// The data blocks that it points to, from memory while Linux ran.
    pub blocks: BTreeMap<String, Block>,
}

impl Lab {
    /// Boots `machine`, which has a payload with the test init, to its end.
    /// While the init waits, QEMU is asked for its devices and the memory of
    /// the guest is looked at.
    pub fn boot_linux(&self, machine: Machine) -> Result<LinuxBoot> {
        self.boot_linux_with(machine, |_, _, _| Ok(()))
    }

    /// The same, and has `intervene` do something to the machine at each
    /// [`Moment`].
    pub fn boot_linux_with(
        &self,
        machine: Machine,
        intervene: impl FnMut(Moment, &mut Running, &LinuxBoot) -> Result<()>,
    ) -> Result<LinuxBoot> {
        let machine = machine.section(Section::Report).qmp(&self.file("qmp"));
        let can_power_off = machine.can_power_off();
        let mut running = machine.start()?;
        if test::is_long() {
            running.set_silence(boot::LARGEST_MACHINE);
        }
        let mut linux = LinuxBoot::default();
        let outcome = running.result(|event| {
            linux.boot.keep(event);
            Ok(())
        });
        linux.boot.outcome = Some(outcome.with_context(|| linux.boot.console.join("\n"))?);
        self.follow(running, linux, can_power_off, intervene)
    }

    /// Boots `kernel` with the test init, which is to do `steps`, on the machine
    /// of `topology` as QEMU starts it, without the firmware.
    pub fn boot_linux_alone(
        &self,
        topology: &str,
        kernel: &Path,
        steps: &str,
    ) -> Result<LinuxBoot> {
        let machine = alone(kernel, steps).topology(&boot::topology(topology));
        self.follow_alone(machine.trace())
    }

    /// Boots `machine`, which [`alone`] has made, to its end.
    pub fn follow_alone(&self, machine: Machine) -> Result<LinuxBoot> {
        self.follow_alone_with(machine, |_, _, _| Ok(()))
    }

    /// The same, and has `intervene` do something to the machine at each
    /// [`Moment`].
    pub fn follow_alone_with(
        &self,
        machine: Machine,
        intervene: impl FnMut(Moment, &mut Running, &LinuxBoot) -> Result<()>,
    ) -> Result<LinuxBoot> {
        let machine = machine.qmp(&self.file("qmp"));
        let linux = LinuxBoot {
            started: true,
            ..LinuxBoot::default()
        };
        self.follow(machine.start()?, linux, true, intervene)
    }

    fn follow(
        &self,
        mut running: Running,
        mut linux: LinuxBoot,
        can_power_off: bool,
        mut intervene: impl FnMut(Moment, &mut Running, &LinuxBoot) -> Result<()>,
    ) -> Result<LinuxBoot> {
        let mut waits = 0;
        loop {
            let event = running
                .event()
                .with_context(|| linux.boot.console.join("\n"))?;
            match event {
                None => break,
                Some(Event::Waiting) => {
                    linux.boot.query_pci = running.qmp()?.query_pci()?;
                    if let Some(text) = linux.boot.linux.get(&Section::Subtree) {
                        linux.subtree = Some(self.subtree(text)?);
                    }
                    for (name, address) in linux.subtree.iter().flat_map(|tree| &tree.blocks) {
                        let file = self.file("block");
                        running
                            .qmp()?
                            .save_memory(*address, handover::BLOCK, &file)?;
                        linux
                            .blocks
                            .insert(name.clone(), Block::parse(&fs::read(file)?)?);
                    }
                    intervene(Moment::Waiting(waits), &mut running, &linux)?;
                    waits += 1;
                    running.type_in("\n")?;
                }
                Some(event @ Event::Starting(_)) => {
                    linux.started = true;
                    linux.boot.keep(event);
                    intervene(Moment::Starting, &mut running, &linux)?;
                }
                Some(event) => {
                    linux.done |= event == Event::Done;
                    linux.boot.keep(event);
                    if linux.done && !can_power_off {
                        break;
                    }
                }
            }
        }
        linux.powered_off = !can_power_off || running.qmp()?.has_powered_off()?;
        linux.boot.end(&mut running)?;
        Ok(linux)
    }

    /// Takes the Base64 text of a subtree apart.
    fn subtree(&self, text: &str) -> Result<Subtree> {
        let bytes = STANDARD.decode(text.split_whitespace().collect::<String>())?;
        let file = self.file("pcsc.dtb");
        fs::write(&file, bytes)?;
        Subtree::read(&file)
    }
}

impl LinuxBoot {
    /// Whether Linux was started, ran all of its steps and powered off, where the
    /// machine can.
    #[must_use]
    pub fn ran_to_the_end(&self) -> bool {
        self.started && self.done && self.powered_off
    }

    /// The JSON that the step `what` of the command has printed, and its exit
    /// status.
    #[must_use]
    pub fn of_command(&self, what: &str) -> (Value, i32) {
        let mut lines = self.boot.console.iter();
        let begins = format!("warmbus: linux: {what} begins");
        let ends = format!("warmbus: linux: {what} ends with status ");
        lines.find(|line| **line == begins).expect("it begins");
        let mut json = String::new();
        for line in lines {
            if let Some(status) = line.strip_prefix(&ends) {
                let value = serde_json::from_str(&json);
                let value = value.unwrap_or_else(|error| panic!("{error}: {json}"));
                return (value, status.parse().expect("an exit status"));
            }
            json.extend([line, "\n"]);
        }
        panic!("{what} did not end: {json}");
    }

    /// The functions that Linux sees, by address.
    pub fn functions(&self) -> Result<BTreeMap<String, Function>> {
        let text = self.boot.linux.get(&Section::LinuxPci);
        parse(text.context("Linux listed no functions")?)
    }

    /// The log of the kernel.
    #[must_use]
    pub fn kernel_log(&self) -> &str {
        let log = self.boot.linux.get(&Section::LinuxLog);
        log.expect("Linux showed its log")
    }

    /// The accesses to configuration space that Warmbus made, and those that
    /// Linux made after it, by QEMU's trace. What was there before Warmbus has
    /// made others.
    #[must_use]
    pub fn accesses_of_both(&self) -> [Vec<Access>; 2] {
        let counts = ["/accesses/reads", "/accesses/writes"];
        let own: u64 = counts.iter().map(|what| self.boot.number(what)).sum();
        let own = usize::try_from(own).expect("the counts are small");
        let mut accesses = self.boot.accesses();
        let before = |line| self.boot.log.accesses_before(line);
        let start = STARTING.into_iter().find_map(before);
        let linux = accesses.split_off(start.expect("Linux was started"));
        // With UEFI its drivers and the EFI stub come in between.
        accesses.truncate(before("warmbus: result: ok").expect("Warmbus ran"));
        let own = accesses.split_off(accesses.len().saturating_sub(own));
        let last = trace::counts(&own);
        assert_eq!(
            [last.reads, last.writes],
            counts.map(|what| self.boot.number(what)),
            "the accesses of the firmware come last before Linux"
        );
        [own, linux]
    }

    /// The accesses of Linux.
    #[must_use]
    pub fn accesses(&self) -> Vec<Access> {
        let [_, linux] = self.accesses_of_both();
        linux
    }

    /// What the rows of the summary with the name `row` say, in their order.
    #[must_use]
    pub fn summary(&self, row: &str) -> Vec<&str> {
        let rows = self.boot.console.iter();
        rows.filter_map(|line| Some(line.strip_prefix("  ")?.strip_prefix(row)?.trim()))
            .collect()
    }
}

/// Takes the section of the test init apart.
fn parse(text: &str) -> Result<BTreeMap<String, Function>> {
    let mut functions = BTreeMap::new();
    let mut last: Option<&mut Function> = None;
    for line in text.lines() {
        let (what, rest) = line.split_once(' ').context("a line of one word")?;
        match (what, &mut last) {
            ("function", _) => last = Some(functions.entry(rest.to_owned()).or_default()),
            ("resource", Some(function)) => {
                let numbers = rest.split(' ').map(|word| {
                    let digits = word.strip_prefix("0x").context("no 0x")?;
                    Ok(u64::from_str_radix(digits, 16)?)
                });
                let numbers: Vec<u64> = numbers.collect::<Result<_>>()?;
                let numbers = numbers.try_into().ok().context("not three numbers")?;
                function.resources.push(numbers);
            }
            ("config", Some(function)) => {
                ensure!(rest.len() % 512 == 0, "config of {} digits", rest.len());
                let bytes = (0..rest.len()).step_by(2);
                let bytes = bytes.map(|at| Ok(u8::from_str_radix(&rest[at..at + 2], 16)?));
                function.config = bytes.collect::<Result<_>>()?;
            }
            _ => bail!("the line {line:?} of Linux cannot be read"),
        }
    }
    Ok(functions)
}
