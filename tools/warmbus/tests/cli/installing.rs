//! `warmbus install`, `uninstall` and `status --boot`, on folders that are an
//! EFI system partition and efivarfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Folder, Ran, warmbus};

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A machine that was booted by GRUB of Debian.
struct Machine {
    folder: Folder,
    esp: String,
    efivars: String,
    files: String,
}

/// The content of every file below `folder`.
pub(crate) fn content(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.insert(path.clone(), None);
                folders.push(path);
            } else {
                all.insert(path.clone(), Some(fs::read(path).unwrap()));
            }
        }
    }
    all
}

/// The node of a partition, as `HD(1,GPT,1111...,0x800,0x100000)`.
fn partition() -> Vec<u8> {
    let mut node = vec![4, 1, 42, 0, 1, 0, 0, 0];
    node.extend(0x800_u64.to_le_bytes());
    node.extend(0x10_0000_u64.to_le_bytes());
    node.extend([0x11; 16]);
    node.extend([2, 2]);
    node
}

fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

/// A load option (UEFI 2.10, 3.1.3).
fn load_option(description: &str, path: &str, options: &[u8]) -> Vec<u8> {
    let name = utf16(path);
    let mut nodes = partition();
    nodes.extend([4, 4]);
    nodes.extend((name.len() as u16 + 4).to_le_bytes());
    nodes.extend(name);
    nodes.extend([0x7f, 0xff, 4, 0]);
    let mut option = vec![1, 0, 0, 0];
    option.extend((nodes.len() as u16).to_le_bytes());
    option.extend(utf16(description));
    option.extend(nodes);
    option.extend(options);
    option
}

/// The smallest file that begins as a program for arm64.
fn program(text: &str) -> Vec<u8> {
    let mut file = vec![0; 0x40];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file.extend(b"PE\0\0\x64\xaa");
    file.extend(text.as_bytes());
    file
}

impl Machine {
    fn new() -> Self {
        let folder = Folder::new();
        let at = |name: &str| folder.0.path().join(name);
        for name in ["esp/EFI/debian", "esp/EFI/systemd", "efivars", "files"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("esp/EFI/debian/shimaa64.efi"), "shim").unwrap();
        fs::write(at("esp/EFI/systemd/systemd-bootaa64.efi"), "loader").unwrap();
        fs::write(at("files/warmbus.efi"), program("application")).unwrap();
        fs::write(at("files/warmbus-driver-aa64.efi"), program("driver")).unwrap();
        let name = |name: &str| at(name).display().to_string();
        let (esp, efivars, files) = (name("esp"), name("efivars"), name("files"));
        let machine = Self {
            folder,
            esp,
            efivars,
            files,
        };
        let debian = load_option("debian", r"\EFI\DEBIAN\SHIMAA64.EFI", &[]);
        machine.set("Boot0003", &debian);
        machine.set("BootOrder", &[3, 0, 1, 0]);
        machine.set("BootCurrent", &[3, 0]);
        machine
    }

    fn set(&self, name: &str, value: &[u8]) {
        let bytes = [&[7, 0, 0, 0], value].concat();
        fs::write(self.variable(name), bytes).unwrap();
    }

    fn variable(&self, name: &str) -> PathBuf {
        Path::new(&self.efivars).join(format!("{name}-{GLOBAL}"))
    }

    /// The value of a variable.
    fn get(&self, name: &str) -> Vec<u8> {
        let bytes = fs::read(self.variable(name)).unwrap();
        assert_eq!(
            bytes[..4],
            [7, 0, 0, 0],
            "non-volatile, boot services, run time"
        );
        bytes[4..].to_vec()
    }

    fn content(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        content(self.folder.0.path())
    }

    fn run(&self, words: &[&str]) -> Ran {
        let places = ["--esp", &self.esp, "--efivars", &self.efivars];
        warmbus(&[words, &places].concat())
    }

    fn install(&self, words: &[&str]) -> Ran {
        self.run(&[&["install"], words, &["--files", &self.files]].concat())
    }

    fn esp_file(&self, name: &str) -> PathBuf {
        Path::new(&self.esp).join(name)
    }
}

const WAYS: [&str; 3] = ["systemd-boot", "driver", "application"];

#[test]
fn what_is_uninstalled_leaves_everything_as_it_was() {
    for way in WAYS {
        let machine = Machine::new();
        let before = machine.content();
        machine.install(&[way]).ended(0);
        assert_ne!(machine.content(), before, "{way}");
        let state = machine.run(&["status", "--boot"]).ended(0).out;
        assert!(
            state.starts_with(&format!("installed      {way}, by version")),
            "{state}"
        );
        machine.run(&["uninstall"]).ended(0);
        assert_eq!(machine.content(), before, "{way}");
        machine.run(&["status", "--boot"]).ended(1);
    }
}

#[test]
fn a_dry_run_shows_the_steps_and_changes_nothing() {
    for way in WAYS {
        let machine = Machine::new();
        let before = machine.content();
        let shown = machine.install(&[way, "--dry-run"]).ended(0).out;
        assert_eq!(machine.content(), before, "{way}");
        let done = machine.install(&[way]).ended(0).out;
        assert_eq!(shown.replace("would ", ""), done, "{way}");
        let installed = machine.content();
        let shown = machine.run(&["uninstall", "--dry-run"]).ended(0).out;
        assert_eq!(machine.content(), installed, "{way}");
        assert_eq!(
            shown.replace("would ", ""),
            machine.run(&["uninstall"]).out,
            "{way}"
        );
    }
}

#[test]
fn systemd_boot_gets_the_driver_in_its_folder_and_no_variable_changes() {
    let machine = Machine::new();
    let before = content(Path::new(&machine.efivars));
    machine.install(&["systemd-boot"]).ended(0);
    let file = machine.esp_file("EFI/systemd/drivers/warmbus-driver-aa64.efi");
    assert_eq!(fs::read(file).unwrap(), program("driver"));
    assert_eq!(content(Path::new(&machine.efivars)), before);
}

#[test]
fn an_entry_is_on_the_partition_that_was_booted_and_comes_first() {
    let machine = Machine::new();
    machine.install(&["driver"]).ended(0);
    let path = r"\EFI\warmbus\warmbus-driver-aa64.efi";
    assert_eq!(machine.get("Driver0000"), load_option("Warmbus", path, &[]));
    assert_eq!(machine.get("DriverOrder"), [0, 0]);

    let machine = Machine::new();
    machine.set("Boot0000", &load_option("x", r"\x", &[]));
    machine.install(&["application"]).ended(0);
    // It starts what the boot manager has started until now.
    let next = utf16(r"next=\EFI\DEBIAN\SHIMAA64.EFI");
    let expected = load_option("Warmbus", r"\EFI\warmbus\warmbus.efi", &next);
    assert_eq!(machine.get("Boot0001"), expected);
    assert_eq!(machine.get("BootOrder"), [1, 0, 3, 0, 1, 0]);
}

#[test]
fn what_is_not_understood_is_refused_and_nothing_changes() {
    type Change = fn(&Machine);
    let cases: [(&str, &str, Change); 9] = [
        ("systemd-boot", "systemd-boot is not installed", |machine| {
            fs::remove_file(machine.esp_file("EFI/systemd/systemd-bootaa64.efi")).unwrap();
        }),
        ("driver", "no EFI system partition", |machine| {
            fs::remove_dir_all(machine.esp_file("EFI")).unwrap();
        }),
        ("driver", "is no program of UEFI for arm64", |machine| {
            let file = Path::new(&machine.files).join("warmbus-driver-aa64.efi");
            fs::write(file, "MZ").unwrap();
        }),
        ("driver", "this command has not made it", |machine| {
            fs::create_dir(machine.esp_file("EFI/Warmbus")).unwrap();
            let file = machine.esp_file("EFI/Warmbus/WARMBUS-DRIVER-AA64.EFI");
            fs::write(file, "by hand").unwrap();
        }),
        ("driver", "BootCurrent does not say", |machine| {
            fs::remove_file(machine.variable("BootCurrent")).unwrap();
        }),
        ("driver", "is not on the partition", |machine| {
            fs::remove_file(machine.esp_file("EFI/debian/shimaa64.efi")).unwrap();
        }),
        ("driver", "is cut", |machine| {
            machine.set("Boot0003", &[1, 0, 0, 0, 9]);
        }),
        ("driver", "no 16-bit numbers", |machine| {
            machine.set("DriverOrder", &[1, 0, 2]);
        }),
        (
            "application",
            "the machine was not started by UEFI",
            |machine| {
                fs::remove_dir_all(&machine.efivars).unwrap();
            },
        ),
    ];
    for (way, expected, change) in cases {
        let machine = Machine::new();
        change(&machine);
        let before = machine.content();
        let ran = machine.install(&[way]).ended(2);
        assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
        assert_eq!(machine.content(), before, "{expected}");
    }
    let machine = Machine::new();
    let ran = machine
        .install(&["application", "--next", r"\EFI\none.efi"])
        .ended(2);
    assert!(ran.err.contains("for Warmbus to start"), "{}", ran.err);
}

#[test]
fn it_is_installed_once_only() {
    let machine = Machine::new();
    machine.install(&["driver"]).ended(0);
    let before = machine.content();
    let ran = machine.install(&["systemd-boot"]).ended(2);
    assert!(ran.err.contains("installed already"), "{}", ran.err);
    assert_eq!(machine.content(), before);
}

#[test]
fn what_was_changed_since_stays() {
    let machine = Machine::new();
    machine.install(&["driver"]).ended(0);
    let file = machine.esp_file("EFI/warmbus/warmbus-driver-aa64.efi");
    fs::write(&file, "signed").unwrap();
    machine.set("Driver0000", b"another");
    machine.set("Driver0001", b"of another");
    machine.set("DriverOrder", &[1, 0, 0, 0]);
    let state = machine.run(&["status", "--boot"]).ended(1).out;
    assert!(
        state.contains(r"warmbus-driver-aa64.efi: changed"),
        "{state}"
    );
    assert!(state.contains("Driver0000: changed"), "{state}");
    let ran = machine.run(&["uninstall"]).ended(0);
    assert!(
        ran.out.contains("Driver0000 has changed and stays"),
        "{}",
        ran.out
    );
    assert_eq!(fs::read(file).unwrap(), b"signed");
    assert_eq!(machine.get("Driver0000"), b"another");
    assert_eq!(machine.get("DriverOrder"), [1, 0, 0, 0]);
    assert!(!machine.esp_file("EFI/warmbus/installed.json").exists());
}

#[test]
fn the_order_keeps_what_others_have_added() {
    let machine = Machine::new();
    machine.install(&["application"]).ended(0);
    machine.set("BootOrder", &[5, 0, 0, 0, 3, 0]);
    machine.run(&["uninstall"]).ended(0);
    assert_eq!(machine.get("BootOrder"), [5, 0, 3, 0]);
}

#[test]
fn nothing_is_uninstalled_that_this_command_has_not_installed() {
    let machine = Machine::new();
    let by_hand = machine.esp_file("EFI/warmbus");
    fs::create_dir(&by_hand).unwrap();
    fs::write(by_hand.join("warmbus.efi"), "by hand").unwrap();
    let before = machine.content();
    let ran = machine.run(&["uninstall"]).ended(2);
    assert!(
        ran.err.contains("has installed nothing here"),
        "{}",
        ran.err
    );
    assert_eq!(machine.content(), before);
}

#[test]
fn a_boot_that_stopped_is_shown() {
    let machine = Machine::new();
    machine.install(&["driver"]).ended(0);
    let own = "WarmbusAttempt-8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31";
    fs::write(Path::new(&machine.efivars).join(own), [7, 0, 0, 0, 1]).unwrap();
    let state = machine.run(&["status", "--boot"]).ended(1).out;
    assert!(
        state.contains("the last start of Warmbus did not end"),
        "{state}"
    );
}
