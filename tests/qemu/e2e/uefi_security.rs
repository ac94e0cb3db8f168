//! Secure Boot and the TPM on machines with UEFI: what verifies and what is
//! measured is as without Warmbus.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, Moment};
use xtask::qemu::{Running, Signed, UefiLoader, UefiStart, ensure_secure_boot};
use xtask::setup;

use super::uefi::{AS_DRIVER, buses_are_kept, machine, steps, the_cache_is_used};

/// Boots with Secure Boot and `loader`; `None` where no such machine can be
/// made.
fn verified(loader: UefiLoader, signed: Signed) -> Option<LinuxBoot> {
    if let Err(why) = ensure_secure_boot() {
        println!("skipped: {why:#}");
        return None;
    }
    let lab = Lab::new();
    let machine = machine(&lab, consumer::kernel(), &steps())
        .uefi_start(UefiStart::Loader(loader))
        .secure_boot(signed);
    let linux = match signed {
        Signed::All | Signed::ByOwner => lab.boot_linux(machine),
        Signed::AllButWarmbus | Signed::AllAndWarmbusAltered => lab.follow_alone(machine),
    };
    let linux = linux.expect("it boots");
    let console = linux.boot.console.join("\n");
    assert!(console.contains("UEFI Secure Boot is enabled"), "{console}");
    Some(linux)
}

#[test]
fn with_secure_boot_what_is_signed_starts_with_the_cache() {
    if let Some(linux) = verified(UefiLoader::SystemdBoot, Signed::All) {
        the_cache_is_used(&linux);
        buses_are_kept(&linux);
    }
}

/// GRUB has shim verify the kernel.
#[test]
fn with_secure_boot_shim_and_grub_start_a_kernel_that_finds_the_cache() {
    if let Some(linux) = verified(UefiLoader::Shim, Signed::All) {
        the_cache_is_used(&linux);
        buses_are_kept(&linux);
    }
}

/// shim starts Warmbus, and verifies GRUB, with the key of Debian, and the kernel.
#[test]
fn with_a_machine_owner_key_shim_starts_warmbus_in_the_place_of_grub() {
    if let Some(linux) = verified(UefiLoader::ShimFirst, Signed::ByOwner) {
        the_cache_is_used(&linux);
        buses_are_kept(&linux);
    }
}

#[test]
fn with_secure_boot_uefi_refuses_what_is_unsigned_or_altered_and_linux_starts() {
    for signed in [Signed::AllButWarmbus, Signed::AllAndWarmbusAltered] {
        let Some(linux) = verified(UefiLoader::SystemdBoot, signed) else {
            return;
        };
        assert!(linux.ran_to_the_end());
        assert!(!linux.kernel_log().contains("KHO: found"), "{signed:?}");
        let console = linux.boot.console.join("\n");
        assert!(
            !console.contains("warmbus: result"),
            "{signed:?}: {console}"
        );
        assert_eq!(linux.functions().unwrap().len(), 17);
    }
}

/// A TPM of swtpm. It ends with this value.
struct Tpm {
    swtpm: Child,
    socket: PathBuf,
}

impl Tpm {
    /// Starts one with a state of its own in `lab`.
    fn start(program: &PathBuf, lab: &Lab) -> Self {
        let state = lab.file("tpm");
        fs::create_dir(&state).expect("the directory of the TPM can be made");
        let socket = state.join("socket");
        let mut command = Command::new(program);
        command.args(["socket", "--tpm2", "--tpmstate"]);
        command.arg(format!("dir={}", state.display()));
        command.arg("--ctrl");
        command.arg(format!("type=unixio,path={}", socket.display()));
        let swtpm = command.spawn().expect("swtpm starts");
        let tpm = Self { swtpm, socket };
        let limit = Instant::now() + Duration::from_mins(1);
        while !tpm.socket.exists() {
            assert!(Instant::now() < limit, "swtpm makes no socket");
            thread::sleep(Duration::from_millis(20));
        }
        tpm
    }

    /// Has QEMU use it, and trace what is sent to it.
    fn arguments(&self) -> [String; 8] {
        [
            "-chardev".into(),
            format!("socket,id=swtpm,path={}", self.socket.display()),
            "-tpmdev".into(),
            "emulator,id=tpm,chardev=swtpm".into(),
            "-device".into(),
            "tpm-tis-device,tpmdev=tpm".into(),
            "-trace".into(),
            "tpm_util_show_buffer".into(),
        ]
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.swtpm.kill();
        let _ = self.swtpm.wait();
    }
}

/// The commands that were sent to the TPM, by QEMU's trace.
fn commands(linux: &LinuxBoot) -> Vec<Vec<u8>> {
    let mut commands: Vec<Vec<u8>> = Vec::new();
    let mut is_command = false;
    for line in &linux.boot.log.messages {
        if line.contains("tpm_util_show_buffer") {
            is_command = line.contains("To TPM");
            if is_command {
                commands.push(Vec::new());
            }
            continue;
        }
        let bytes = line
            .split_whitespace()
            .map(|word| u8::from_str_radix(word, 16).ok());
        if let Some(bytes) = bytes.collect::<Option<Vec<_>>>().filter(|_| is_command) {
            commands.last_mut().expect("one was begun").extend(bytes);
        }
    }
    commands
}

/// What was measured: the register and the digests of each `TPM2_PCR_Extend`
/// (TPM 2.0 Part 3, 22.2).
fn measured(linux: &LinuxBoot) -> Vec<(u32, Vec<u8>)> {
    const EXTEND: u32 = 0x182;
    let number = |bytes: &[u8], at: usize| {
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    let commands = commands(linux).into_iter();
    let extends = commands.filter(|command| command.len() > 18 && number(command, 6) == EXTEND);
    extends
        .map(|command| {
            let authorization = number(&command, 14) as usize;
            (number(&command, 10), command[18 + authorization..].to_vec())
        })
        .collect()
}

/// An event of the log of the TPM (TCG PC Client Platform Firmware Profile 1.05,
/// 10.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Measured {
    register: u32,
    kind: u32,
    /// All digests, each with the number of its algorithm.
    digests: Vec<u8>,
    data: Vec<u8>,
}

/// A driver that was loaded, and programs: `UEFI_IMAGE_LOAD_EVENT`, which starts with
/// the address where it is.
const IMAGES: RangeInclusive<u32> = 0x8000_0003..=0x8000_0005;
const DRIVER: u32 = 0x8000_0004;

/// The events of `log`, without addresses.
fn events(mut log: &[u8]) -> Vec<Measured> {
    fn take<'a>(log: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = log.split_at(count);
        *log = rest;
        taken
    }
    fn number(log: &mut &[u8]) -> u32 {
        u32::from_le_bytes(take(log, 4).try_into().expect("four bytes"))
    }
    let word = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));

    // The first event, with a digest of SHA-1, describes the log: algorithms and the
    // bytes of their digests.
    take(&mut log, 28);
    let size = number(&mut log) as usize;
    let header = take(&mut log, size);
    assert!(header.starts_with(b"Spec ID Event03\0"));
    let algorithms = header[28..].chunks_exact(4).take(header[24].into());
    let sizes: BTreeMap<_, _> = algorithms.map(|one| (word(one), word(&one[2..]))).collect();
    let mut events = Vec::new();
    while !log.is_empty() {
        let (register, kind, count) = (number(&mut log), number(&mut log), number(&mut log));
        let mut digests = Vec::new();
        for _ in 0..count {
            let algorithm = take(&mut log, 2);
            digests.extend(algorithm);
            digests.extend(take(&mut log, sizes[&word(algorithm)]));
        }
        let size = number(&mut log) as usize;
        let mut data = take(&mut log, size).to_vec();
        if IMAGES.contains(&kind) {
            data[..8].fill(0);
        }
        events.push(Measured {
            register,
            kind,
            digests,
            data,
        });
    }
    events
}

/// The log that UEFI has left, as it is in memory while Linux runs.
fn log(lab: &Lab, running: &mut Running, linux: &LinuxBoot) -> Result<Vec<u8>> {
    /// `struct linux_efi_tpm_eventlog` before the log.
    const HEADER: usize = 9;
    let text = linux.kernel_log();
    let (_, place) = text.split_once("TPMEventLog=0x").context("no log")?;
    let end = place.find(' ').context("a space")?;
    let place = u64::from_str_radix(&place[..end], 16)?;
    let file = lab.file("log");
    let mut read = |size| -> Result<Vec<u8>> {
        running.qmp()?.save_memory(place, size, &file)?;
        Ok(fs::read(&file)?)
    };
    let size = read(4)?;
    let size = u32::from_le_bytes(size.try_into().expect("four bytes"));
    Ok(read(u64::from(size) + HEADER as u64)?[HEADER..].to_vec())
}

#[test]
fn the_tpm_measures_what_it_measures_without_us_and_warmbus_itself() {
    /// Where UEFI measures drivers.
    const DRIVERS: u32 = 2;
    let swtpm = match setup::private_program("swtpm", "swtpm") {
        Ok(swtpm) => swtpm,
        Err(why) => return println!("skipped: {why:#}"),
    };
    let [with, without] = [AS_DRIVER, UefiStart::Shell(&[])].map(|start| {
        let lab = Lab::new();
        let tpm = Tpm::start(&swtpm, &lab);
        let machine = machine(&lab, consumer::kernel(), &steps())
            .uefi_start(start)
            .arguments(tpm.arguments());
        let mut logged = Vec::new();
        let linux = lab.follow_alone_with(machine, |moment, running, linux| {
            if moment != Moment::Starting {
                logged = events(&log(&lab, running, linux)?);
            }
            Ok(())
        });
        let linux = linux.expect("it boots");
        let found = linux.kernel_log().contains("KHO: found");
        assert_eq!(found, start == AS_DRIVER);
        (measured(&linux), logged)
    });
    // Firmware, its variables, boot attempts, the kernel, its initrd and its
    // command line.
    for register in [0, 1, 4, 5, 7, 9] {
        let of_register = |(found, _): &(u32, Vec<u8>)| *found == register;
        assert!(without.0.iter().any(of_register), "{register}");
        let of_register = |event: &Measured| event.register == register;
        assert!(without.1.iter().any(of_register), "{register}");
    }
    let own = added(&with.0, &without.0);
    let registers: Vec<_> = own.iter().map(|(register, _)| *register).collect();
    assert_eq!(registers, [DRIVERS]);
    let own = added(&with.1, &without.1);
    let kinds: Vec<_> = own
        .iter()
        .map(|event| (event.register, event.kind))
        .collect();
    assert_eq!(kinds, [(DRIVERS, DRIVER)]);
}

/// What is in `with` besides all of `without`, which is there in its order.
fn added<'a, T: PartialEq + Debug>(with: &'a [T], without: &[T]) -> Vec<&'a T> {
    let mut rest = without.iter().peekable();
    let added = with.iter().filter(|one| rest.next_if_eq(one).is_none());
    let added = added.collect();
    assert_eq!(rest.next(), None, "it is not there with Warmbus");
    added
}
