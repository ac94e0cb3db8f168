//! What happens to a handover between the firmware and Linux: memory is
//! damaged, devices are exchanged and taken away.
//!
//! The kernel of these tests has a jump to itself where its second instruction
//! was, so that it holds still there until the debugger puts the instruction
//! back.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::debugger::Debugger;
use warmbus_qemu_tests::handover::{BLOCK, Subtree};
use warmbus_qemu_tests::linux::{LinuxBoot, Moment};
use xtask::qemu::Running;

use crate::consumer::ended_well;
use crate::consumer_chain::with_itself;

/// The second instruction of an Image, the jump to its code, and where a jump
/// to itself is put over it.
const ENTRY: usize = 4;
/// `b .`
const HOLD: u32 = 0x1400_0000;

/// Slot Control, in the PCI Express capability, and what of it cuts the power:
/// Power Controller Control, and the indicator that says so.
const SLOT_CONTROL: u64 = 0x18;
const SLOT_OFF: u32 = 0x0700;

/// A port of `small` behind which something changes.
struct Port<'a> {
    debugger: &'a mut Debugger,
    /// Where its Slot Control is.
    control: u64,
}

impl<'a> Port<'a> {
    /// Device `device` of bus 0.
    fn find(debugger: &'a mut Debugger, ecam: u64, device: u64) -> Result<Self> {
        let base = ecam + (device << 15);
        let mut at = debugger.read(base + 0x34)? & 0xfc;
        while at != 0 {
            let head = debugger.read(base + u64::from(at))?;
            if head & 0xff == 0x10 {
                let control = base + u64::from(at) + SLOT_CONTROL;
                return Ok(Self { debugger, control });
            }
            at = head >> 8 & 0xfc;
        }
        anyhow::bail!("device {device} has no PCI Express capability")
    }

    /// Takes what is in the slot away, which QEMU does when its power goes off,
    /// and puts a device in with `add`.
    fn exchange(self, add: impl FnOnce() -> Result<()>) -> Result<()> {
        let control = self.debugger.read(self.control)? & 0xffff;
        self.debugger.write(self.control, control | SLOT_OFF)?;
        add()?;
        // Its events are cleared by writing ones to Slot Status.
        self.debugger.write(self.control, control | 0x01ff_0000)
    }
}

/// The `pcsc` subtree as the firmware has just written it.
fn subtree(lab: &Lab, running: &mut Running, linux: &LinuxBoot) -> Result<Subtree> {
    // `pcsc         1085 bytes at 0x763e2000, CRC-32 0x7cd1efbb`
    let line = linux
        .boot
        .console
        .iter()
        .find_map(|line| line.strip_prefix("pcsc "))
        .context("the firmware reports the subtree")?;
    let mut words = line.split_whitespace();
    let size = words.next().context("a size")?.parse()?;
    let address = words.nth(2).context("an address")?;
    let file = lab.file("pcsc.dtb");
    running
        .qmp()?
        .save_memory(hex(address.trim_end_matches(','))?, size, &file)?;
    Subtree::read(&file)
}

fn hex(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").context("no 0x")?;
    Ok(u64::from_str_radix(digits, 16)?)
}

/// Does all the damage, then lets Linux start.
fn damage(lab: &Lab, socket: &Path, running: &mut Running, linux: &LinuxBoot) -> Result<()> {
    let tree = subtree(lab, running, linux)?;
    let block = |name: &str| {
        let mut blocks = tree.blocks.iter();
        let found = blocks.find_map(|(known, at)| (known == name).then_some(*at));
        found.with_context(|| format!("no block of {name}"))
    };
    let report = linux.boot.report();
    let ecam = report["host_bridges"][0]["ecam_base"].as_u64();
    let ecam = ecam.context("the report has the ECAM window")?;
    let starting = linux.boot.console.iter().rev();
    let kernel = starting
        .filter_map(|line| line.strip_prefix("warmbus: starting Linux at "))
        .find_map(|rest| rest.split([',', ' ']).next())
        .context("the firmware says where it starts Linux")?;
    let entry = hex(kernel)? + ENTRY as u64;

    let mut debugger = Debugger::stop(socket)?;
    ensure!(debugger.read(entry)? == HOLD, "Linux did not hold still");

    // One bit of a cached byte, of the class code.
    let at = block("0000:00:04.0")? + 8;
    let word = debugger.read(at)?;
    debugger.write(at, word ^ 0x0100_0000)?;
    // One bit of the bitmaps.
    let at = block("0000:00:05.0")? + 4608;
    let word = debugger.read(at)?;
    debugger.write(at, word ^ 1)?;
    // The block of another function, whole and with a checksum that holds.
    let (from, to) = (block("0000:00:03.0")?, block("0000:00:00.0")?);
    for at in (0..BLOCK).step_by(4) {
        let word = debugger.read(from + at)?;
        debugger.write(to + at, word)?;
    }

    let mut add = |arguments| running.qmp()?.execute("device_add", &arguments).map(drop);
    // Another device of the same kind, another kind, and none.
    Port::find(&mut debugger, ecam, 2)?
        .exchange(|| add(json!({"driver": "nvme", "serial": "other", "bus": "rp2"})))?;
    Port::find(&mut debugger, ecam, 1)?
        .exchange(|| add(json!({"driver": "e1000e", "bus": "rp1"})))?;
    Port::find(&mut debugger, ecam, 3)?.exchange(|| Ok(()))?;

    let image = fs::read(consumer::kernel())?;
    let jump = image[ENTRY..ENTRY + 4].try_into()?;
    debugger.write(entry, u32::from_le_bytes(jump))?;
    debugger.go_on()
}

#[test]
fn nothing_that_is_damaged_or_exchanged_is_served() {
    let lab = Lab::new();
    let held = lab.file("held");
    let mut image = fs::read(consumer::kernel()).unwrap();
    image[ENTRY..ENTRY + 4].copy_from_slice(&HOLD.to_le_bytes());
    fs::write(&held, image).unwrap();
    let mut payload = with_itself(&lab, "summary,cache,compare,kexec,summary,cache,compare");
    payload.kernel = held;

    let socket = lab.file("gdb");
    let machine = lab
        .machine("small")
        .payload(payload)
        .arguments(Debugger::arguments(&socket));
    let linux = lab
        .boot_linux_with(machine, |moment, running, linux| match moment {
            Moment::Starting => damage(&lab, &socket, running, linux),
            Moment::Waiting(_) => Ok(()),
        })
        .expect("it boots");
    ended_well(&linux);
    // One function is gone; two are others.
    assert_eq!(linux.summary("PCI functions"), ["8", "8"]);
    consumer::matches_hardware(&linux, 2);

    let log = consumer::log(&linux);
    let chain = consumer::counters(&linux);
    assert_eq!(chain.len(), 2);
    assert!(chain[0]["rejected"] >= 4, "{log:?}");
    // Three blocks and a device. Nobody asked for the one that is gone, and one of
    // the same kind has the same constants.
    for name in ["00:00.0", "00:04.0", "00:05.0", "01:00.0"] {
        let name = format!("0000:{name}: ");
        let lines = log.iter().filter(|line| line.starts_with(&name)).count();
        assert_eq!(lines, 1, "one line names {name}: {log:?}");
    }
    // The next kernel gets nothing.
    assert_eq!(chain[1]["restored"], 0, "{log:?}");
}
