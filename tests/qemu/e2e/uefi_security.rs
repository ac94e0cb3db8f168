//! Secure Boot and the TPM on machines with UEFI: what verifies and what is
//! measured is as without Warmbus.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::LinuxBoot;
use xtask::qemu::{Signed, UefiLoader, UefiStart, ensure_secure_boot};
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
        Signed::All => lab.boot_linux(machine),
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
        let linux = lab.follow_alone(machine).expect("it boots");
        let found = linux.kernel_log().contains("KHO: found");
        assert_eq!(found, start == AS_DRIVER);
        measured(&linux)
    });
    // Firmware, its variables, boot attempts, the kernel, its initrd and its
    // command line.
    for register in [0, 1, 4, 5, 7, 9] {
        let of_register = |(found, _): &&(u32, Vec<u8>)| *found == register;
        assert!(
            without.iter().any(|found| of_register(&found)),
            "{register}"
        );
    }
    let mut rest = without.iter().peekable();
    let own: Vec<_> = with
        .iter()
        .filter(|found| rest.next_if_eq(found).is_none())
        .collect();
    assert_eq!(rest.next(), None, "it was not measured with Warmbus");
    let registers: Vec<_> = own.iter().map(|(register, _)| *register).collect();
    assert_eq!(registers, [DRIVERS]);
}
