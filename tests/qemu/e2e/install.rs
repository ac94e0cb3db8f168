//! `warmbus install` in its ways, on the volume of a machine with UEFI or the card of
//! one with U-Boot that is then booted: the kernel finds the cache, and
//! `warmbus uninstall` leaves the files and variables as they were.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use warmbus_cli::install::{self, Loader, Place, Started, Way};
use warmbus_qemu_tests::boot::{Lab, image, topology};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, command, payload, with_command};
use xtask::disk;
use xtask::qemu::{Machine, PROGRAM, SCRIPT, UefiStart, volume};
use xtask::test::is_long;

use crate::linux as proofs;
use crate::{boards, uefi};

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The boot loader that is there before.
const LOADER: &str = r"\EFI\systemd\systemd-bootaa64.efi";
/// The number of its entry: UEFI makes the lower ones by itself.
const ENTRY: u16 = 9;

/// Every file below `folder` with its content; `None` for a folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_dir() {
                folders.push(path.clone());
                None
            } else {
                Some(fs::read(&path).unwrap())
            };
            all.insert(path, bytes);
        }
    }
    all
}

/// The load option (UEFI 2.10, 3.1.3) of [`LOADER`] on the partition of the disk
/// that QEMU makes of a folder: from block 63 on, to the end of 1,024 cylinders
/// with 16 heads and 63 sectors, in a master boot record with this signature.
fn load_option() -> Vec<u8> {
    let utf16 = |text: &str| -> Vec<u8> {
        let units = text.encode_utf16().chain([0]);
        units.flat_map(u16::to_le_bytes).collect()
    };
    let first = 63_u64;
    let mut path = vec![4, 1, 42, 0, 1, 0, 0, 0];
    path.extend(first.to_le_bytes());
    path.extend((1024 * 16 * 63 - first).to_le_bytes());
    path.extend(0xbe1a_fdfa_u32.to_le_bytes());
    path.extend([0; 12]);
    path.extend([1, 1]);
    let file = utf16(LOADER);
    path.extend([4, 4]);
    path.extend((file.len() as u16 + 4).to_le_bytes());
    path.extend(file);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut option = vec![1, 0, 0, 0];
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16("Linux"));
    option.extend(path);
    option
}

/// A folder that is as efivarfs of the machine, which was booted by the loader.
fn variables(lab: &Lab) -> PathBuf {
    let folder = lab.file("efivars");
    fs::create_dir(&folder).unwrap();
    let set = |name: &str, value: &[u8]| {
        let bytes = [&[7, 0, 0, 0], value].concat();
        fs::write(folder.join(format!("{name}-{GLOBAL}")), bytes).unwrap();
    };
    let number = ENTRY.to_le_bytes();
    for number in 0..ENTRY {
        set(&format!("Boot{number:04X}"), &load_option());
    }
    set(&format!("Boot{ENTRY:04X}"), &load_option());
    set("BootOrder", &number);
    set("BootCurrent", &number);
    folder
}

/// What the shell of UEFI runs: the first time it sets the variables that are in
/// `after` and not so in `before`, and resets the machine; then it starts the
/// loader.
fn script(
    before: &BTreeMap<PathBuf, Option<Vec<u8>>>,
    after: &BTreeMap<PathBuf, Option<Vec<u8>>>,
) -> String {
    let mut lines = String::from("fs0:\r\nif \"%warmbus%\" == \"set\" then\r\n");
    write!(lines, "{LOADER}\r\nelse\r\nset warmbus set\r\n").unwrap();
    let mut count = 0;
    for (path, bytes) in after {
        if before.get(path) == Some(bytes) {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name
            .strip_suffix(&format!("-{GLOBAL}"))
            .expect("a global variable");
        let value = bytes.as_ref().expect("variables are files");
        assert_eq!(value[..4], [7, 0, 0, 0], "attributes of {name}");
        write!(lines, "setvar {name} -guid {GLOBAL} -bs -rt -nv =").unwrap();
        for byte in &value[4..] {
            write!(lines, "{byte:02x}").unwrap();
        }
        lines.push_str("\r\n");
        count += 1;
    }
    assert_eq!(count, 2, "an entry and the order");
    lines + "reset\r\nendif\r\n"
}

/// Fails unless `warmbus status` in the guest says that each function is used and
/// that reads are answered.
fn status_has_all_functions(linux: &LinuxBoot) {
    let (status, code) = linux.of_command("status");
    assert_eq!(code, 0, "{status}");
    let there = linux.boot.pci();
    assert_eq!(status["handed_over"], there.len(), "{status}");
    let functions = status["functions"].as_array().expect("functions");
    let used: Vec<_> = functions
        .iter()
        .filter(|one| one["state"] == "used")
        .collect();
    assert_eq!(used.len(), there.len(), "{status}");
    let served = &status["counters"]["hits"];
    assert!(served.as_u64().is_some_and(|hits| hits > 200), "{status}");
}

/// All of it in one way.
fn is_installed_and_removed(way: Way) {
    let Some(command) = command() else {
        return;
    };
    let lab = Lab::new();
    let directory = lab.file("uefi");
    let mut payload = payload(consumer::kernel(), &format!("status,{}", uefi::steps()));
    payload.initrd = Some(with_command(&lab, command).into());
    let machine = Machine::uefi(image(), &directory)
        .topology(&topology("switch"))
        .payload(payload)
        .uefi_start(UefiStart::NotInstalled)
        .section(warmbus_boot::report::console::Section::Report)
        .trace()
        .make_volume()
        .expect("the volume is made");
    let (esp, efivars) = (volume(&directory), variables(&lab));
    let (files, values) = (content(&esp), content(&efivars));
    let place = Place {
        loader: Loader::Uefi {
            esp: &esp,
            efivars: &efivars,
        },
        dry_run: false,
    };
    install::install(way, &place, image().parent().unwrap(), None).expect("it is installed");
    let installed = content(&efivars);
    let needs_variables = way != Way::SystemdBoot;
    assert_eq!(installed != values, needs_variables);
    let program = esp.join(PROGRAM);
    if needs_variables {
        // Without it UEFI comes to its shell.
        fs::remove_file(&program).unwrap();
        fs::write(esp.join(SCRIPT), script(&values, &installed)).unwrap();
    }
    let machine = machine.arguments(["-action", "reboot=reset"]);
    let linux = lab.boot_linux(machine).expect("it boots");
    // The entry of an application has load options, so that it does not read the file
    // that asks for a report, which this compares with.
    if way != Way::Application {
        uefi::the_cache_is_used(&linux);
    }
    proofs::subtree_arrived(&linux);

    status_has_all_functions(&linux);

    if needs_variables {
        fs::remove_file(esp.join(SCRIPT)).unwrap();
        fs::write(&program, files[&program].as_ref().unwrap()).unwrap();
    }
    install::uninstall(&place).expect("it is removed");
    assert!(content(&esp) == files, "the volume is not as it was");
    assert!(
        content(&efivars) == values,
        "the variables are not as they were"
    );
}

#[test]
fn a_driver_that_was_installed_is_loaded_and_removed() {
    is_installed_and_removed(Way::Driver);
}

#[test]
fn every_way_to_install_works_and_is_undone() {
    if is_long() {
        is_installed_and_removed(Way::SystemdBoot);
        is_installed_and_removed(Way::Application);
    }
}

#[test]
fn u_boot_runs_the_script_that_was_installed_and_it_is_removed() {
    let Some(command) = command() else {
        return;
    };
    let lab = Lab::new();
    let boot = lab.file("boot");
    fs::create_dir(&boot).unwrap();
    let file = |name: &str| boot.join(name);
    fs::copy(consumer::kernel(), file("vmlinuz")).unwrap();
    fs::copy(with_command(&lab, command), file("initrd.img")).unwrap();
    let before = content(&boot);
    let place = Place {
        loader: Loader::UBoot(&boot),
        dry_run: false,
    };
    let parameters = format!(
        "{} quiet pcsc=on warmbus.report warmbus.test=status,{}",
        xtask::run::LINUX_BOOTARGS,
        proofs::SECTIONS
    );
    let started = Started {
        kernel: &file("vmlinuz"),
        initrd: &file("initrd.img"),
        tree: None,
        parameters: &parameters,
        load_address: None,
    };
    install::install_boot_script(&place, image().parent().unwrap(), &started)
        .expect("it is installed");

    let files = ["boot.scr", "warmbus.img", "vmlinuz", "initrd.img"].map(|name| disk::File {
        name,
        bytes: fs::read(file(name)).unwrap(),
    });
    let linux = lab
        .boot_linux(boards::u_boot(&lab, &files))
        .expect("it boots");
    proofs::subtree_arrived(&linux);
    proofs::cache_is_true(&linux);
    proofs::nothing_moved(&linux);
    status_has_all_functions(&linux);

    install::uninstall(&place).expect("it is removed");
    assert!(content(&boot) == before, "the folder is not as it was");
}
