//! UEFI that fails Warmbus, service by service: the boot goes on without it.
//!
//! The debugger stops the machine at the first instruction of a service, and where
//! Warmbus has called it the service returns an error at once. All others that call
//! it are served.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::debugger::{Debugger, Registers};
use warmbus_qemu_tests::linux::{LinuxBoot, Moment};
use xtask::qemu::{LOAD_DRIVER, Machine, Running, UefiStart};
use xtask::test;

use crate::uefi::machine;

/// The driver is loaded, and the shell waits for a key.
const STOPPED: UefiStart = UefiStart::Shell(&[
    LOAD_DRIVER,
    "echo \"warmbus: linux: waiting for a line\"",
    "pause",
]);

/// The table that a service is in, by its place in the system table (UEFI 2.10, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Runtime = 88,
    Boot = 96,
}

/// A service, by its place in its table (UEFI 2.10, 4.4 and 4.5).
type Service = (Table, u64);

const ALLOCATE_PAGES: Service = (Table::Boot, 40);
const GET_MEMORY_MAP: Service = (Table::Boot, 56);
const ALLOCATE_POOL: Service = (Table::Boot, 64);
const LOCATE_HANDLE: Service = (Table::Boot, 176);
const INSTALL_CONFIGURATION_TABLE: Service = (Table::Boot, 192);
const EXIT_BOOT_SERVICES: Service = (Table::Boot, 232);
const OPEN_PROTOCOL: Service = (Table::Boot, 280);
const GET_VARIABLE: Service = (Table::Runtime, 72);
const SET_VARIABLE: Service = (Table::Runtime, 88);

/// `EFI_OUT_OF_RESOURCES` and `EFI_DEVICE_ERROR`.
const OUT_OF_RESOURCES: u64 = 1 << 63 | 9;
const DEVICE_ERROR: u64 = 1 << 63 | 7;

/// The first dword of the GUID of `EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL` and, in the
/// protocol, the places of the function that reads configuration space and of the one
/// that describes the root bridge (UEFI 2.10, 14.2).
const ROOT_BRIDGE: u32 = 0x2f70_7ebb;
const PCI_READ: u64 = 56;
const CONFIGURATION: u64 = 136;

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing: calls are counted.
    Count(Service),
    /// One call of a service, of those that Warmbus makes, from 1.
    Call(Service, u64),
    /// Each call of a service.
    Each(Service),
    /// Each read of configuration space by the protocol of a root bridge.
    Reads,
    /// The same, but they succeed, and all bits are ones.
    Ones,
    /// The root bridge does not describe itself.
    Descriptions,
}

/// The machine at the debugger.
struct Victim {
    debugger: Debugger,
    /// Where Warmbus is.
    image: std::ops::Range<u64>,
    system_table: u64,
}

impl Victim {
    fn stop(socket: &Path, console: &[String]) -> Result<Self> {
        let mut debugger = Debugger::stop(socket)?;
        let loaded = console.iter().find_map(|line| {
            let (_, rest) = line.split_once("warmbus-driver-aa64.efi' loaded at ")?;
            u64::from_str_radix(rest.split(' ').next()?, 16).ok()
        });
        let start = loaded.context("the shell says where it has loaded Warmbus")?;
        let header = start + u64::from(debugger.read(start + 0x3c)?);
        let size = debugger.read(header + 24 + 56)?;
        ensure!(size > 0x8_0000, "Warmbus has {size:#x} bytes");
        let mut victim = Self {
            debugger,
            image: start..start + u64::from(size),
            system_table: 0,
        };
        victim.system_table = victim.find_system_table()?;
        Ok(victim)
    }

    /// `EFI_SYSTEM_TABLE_POINTER` is at a multiple of 4 MiB (UEFI 2.10, 18.4.2).
    fn find_system_table(&mut self) -> Result<u64> {
        let ram = 0x4000_0000..0x8000_0000;
        for at in ram.step_by(4 << 20) {
            if self.pointer(at)? == u64::from_le_bytes(*b"IBI SYST") {
                return self.pointer(at + 8);
            }
        }
        anyhow::bail!("UEFI says nowhere where its system table is");
    }

    fn pointer(&mut self, at: u64) -> Result<u64> {
        let [low, high] = [self.debugger.read(at)?, self.debugger.read(at + 4)?];
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn entry(&mut self, (table, place): Service) -> Result<u64> {
        let table = self.pointer(self.system_table + table as u64)?;
        self.pointer(table + place)
    }

    /// Lets the machine run until Warmbus gets the protocol of a root bridge. Returns
    /// the function at `place` in it.
    fn of_root_bridge(&mut self, place: u64) -> Result<u64> {
        let open = self.entry(OPEN_PROTOCOL)?;
        loop {
            let registers = self.debugger.run_to(open)?;
            if self.image.contains(&registers.link()?)
                && self.debugger.read(registers.get(1)?)? == ROOT_BRIDGE
            {
                let to = registers.get(2)?;
                self.debugger.run_to(registers.link()?)?;
                let protocol = self.pointer(to)?;
                return self.pointer(protocol + place);
            }
            self.debugger.step()?;
        }
    }

    /// Lets the machine run until boot services end, with `fault`. Returns how often
    /// Warmbus called what fails.
    fn run(mut self, fault: Fault) -> Result<u64> {
        let end = self.entry(EXIT_BOOT_SERVICES)?;
        let at = match fault {
            Fault::Count(service) | Fault::Call(service, _) | Fault::Each(service) => {
                self.entry(service)?
            }
            Fault::Reads | Fault::Ones => self.of_root_bridge(PCI_READ)?,
            Fault::Descriptions => self.of_root_bridge(CONFIGURATION)?,
        };
        let mut calls = 0;
        loop {
            let registers = self.debugger.run_to_one_of(&[end, at])?;
            if registers.program_counter()? == end {
                self.debugger.go_on()?;
                return Ok(calls);
            }
            if self.image.contains(&registers.link()?) {
                calls += 1;
                self.fail(fault, calls, &registers)?;
            } else {
                self.debugger.step()?;
            }
        }
    }

    /// Warmbus has called what is to fail, for the time number `call`.
    fn fail(&mut self, fault: Fault, call: u64, registers: &Registers) -> Result<()> {
        let status = match fault {
            Fault::Call(_, which) if which != call => return self.debugger.step(),
            Fault::Count(_) => return self.debugger.step(),
            Fault::Call(..) | Fault::Each(_) => OUT_OF_RESOURCES,
            Fault::Reads | Fault::Descriptions => DEVICE_ERROR,
            Fault::Ones => {
                // The buffer of Warmbus has room for a dword, whatever is read.
                self.debugger.write(registers.get(4)?, u32::MAX)?;
                0
            }
        };
        self.debugger.return_at_once(registers, status)
    }
}

/// A machine that waits with Warmbus loaded, for a debugger at `socket`.
fn stopped(lab: &Lab, socket: &Path) -> Machine {
    machine(lab, consumer::kernel(), "cache,compare,summary,sections")
        .uefi_start(STOPPED)
        .arguments(Debugger::arguments(socket))
}

/// Boots with `fault`: Linux runs as without Warmbus, with a cache that is true or
/// with a line that says why there is none. Returns the calls, and that line.
fn boot(fault: Fault) -> (u64, Option<String>) {
    let lab = Lab::new();
    let socket = lab.file("gdb");
    let machine = stopped(&lab, &socket);
    let mut calls = None;
    let intervene = |moment, running: &mut Running, linux: &LinuxBoot| {
        if moment == Moment::Waiting(0) {
            let victim = Victim::stop(&socket, &linux.boot.console)?;
            running.type_in("x")?;
            calls = Some(victim.run(fault)?);
        }
        Ok(())
    };
    let linux = lab.follow_alone_with(machine, intervene);
    let linux = linux.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    let console = linux.boot.console.join("\n");
    assert!(linux.ran_to_the_end(), "{fault:?}: {console}");
    let functions = linux.functions().expect("Linux lists them");
    assert_eq!(functions.len(), linux.boot.pci().len(), "{fault:?}");
    consumer::matches_hardware(&linux, 1);
    let counters = &consumer::counters(&linux)[0];
    assert_eq!(counters["differences"], 0);
    let refused = linux.boot.console.iter();
    let mut refused = refused.filter_map(|line| {
        let (_, why) = line.split_once("no cache handed over: ")?;
        why.strip_suffix("; Linux boots without it")
    });
    let why = refused.next().map(str::to_owned);
    let restored = counters["restored"];
    assert_eq!(
        why.is_some(),
        restored == 0,
        "{fault:?}: {restored}, {console}"
    );
    (calls.expect("the driver was loaded"), why)
}

/// There is no cache with `fault`, for a reason that `words` are in.
fn nothing_is_handed_over(fault: Fault, words: &str) {
    let (calls, why) = boot(fault);
    println!("{fault:?}: {calls} calls, {why:?}");
    assert!(calls > 0, "{fault:?}");
    let why = why.unwrap_or_else(|| panic!("{fault:?} costs nothing"));
    assert!(why.contains(words), "{fault:?}: {why}");
}

#[test]
fn without_memory_linux_boots_without_the_cache() {
    nothing_is_handed_over(Fault::Each(ALLOCATE_PAGES), "no memory");
}

#[test]
fn a_root_bridge_that_answers_with_ones_costs_the_cache_only() {
    nothing_is_handed_over(Fault::Ones, "no function was found");
}

#[test]
fn the_boot_after_one_that_hung_goes_past_warmbus() {
    let lab = Lab::new();
    let socket = lab.file("gdb");
    let machine = stopped(&lab, &socket).arguments(["-action", "reboot=reset"]);
    let linux = lab.follow_alone_with(machine, |moment, running, linux| {
        if moment == Moment::Waiting(0) {
            let mut victim = Victim::stop(&socket, &linux.boot.console)?;
            running.type_in("x")?;
            let read = victim.of_root_bridge(PCI_READ)?;
            victim.debugger.run_to(read)?;
            // Somebody pushes the button. The flash stays.
            running.qmp()?.execute("system_reset", &json!({}))?;
            victim.debugger.go_on()?;
        }
        Ok(())
    });
    let linux = linux.expect("it boots");
    assert!(linux.ran_to_the_end());
    let console = linux.boot.console.join("\n");
    let line = "nothing is handed over: the last attempt did not come back; the next boot tries";
    assert_eq!(console.matches(line).count(), 1, "{console}");
    assert_eq!(consumer::counters(&linux)[0]["restored"], 0);
    consumer::matches_hardware(&linux, 1);
}

#[test]
fn each_service_may_fail_always_or_once() {
    if !test::is_long() {
        return println!("skipped: needs --long");
    }
    nothing_is_handed_over(Fault::Reads, "");
    nothing_is_handed_over(Fault::Descriptions, "");
    for service in [
        ALLOCATE_PAGES,
        ALLOCATE_POOL,
        GET_MEMORY_MAP,
        INSTALL_CONFIGURATION_TABLE,
        OPEN_PROTOCOL,
        LOCATE_HANDLE,
        GET_VARIABLE,
        SET_VARIABLE,
    ] {
        let (calls, why) = boot(Fault::Count(service));
        assert!(calls > 0 && why.is_none(), "{service:?}: {calls}, {why:?}");
        println!("{service:?}: {calls} calls");
        let (_, why) = boot(Fault::Each(service));
        println!("each: {why:?}");
        // Of many calls some, and the last.
        let some = (1..calls).step_by(calls.div_ceil(8) as usize);
        for call in some.chain([calls]) {
            let (_, why) = boot(Fault::Call(service, call));
            println!("{call}: {why:?}");
        }
    }
}
