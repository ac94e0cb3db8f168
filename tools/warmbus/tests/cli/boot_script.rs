//! `warmbus install u-boot`, in a folder that U-Boot would read.

use std::fs;
use std::path::Path;

use crate::installing::content;
use crate::{Folder, Ran, warmbus};

/// The shortest file that is an arm64 Image (Linux,
/// `Documentation/arch/arm64/booting.rst`).
fn image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// A board with a folder that has no script.
struct Board {
    folder: Folder,
}

impl Board {
    fn new() -> Self {
        let board = Self {
            folder: Folder::new(),
        };
        for name in ["boot", "boot/extlinux", "boot/dtbs", "release"] {
            fs::create_dir(board.path(name)).unwrap();
        }
        fs::write(board.path("boot/Image"), image()).unwrap();
        fs::write(board.path("boot/initrd.img-6.1"), "initrd").unwrap();
        fs::write(board.path("boot/dtbs/board.dtb"), [0xd0, 0x0d, 0xfe, 0xed]).unwrap();
        fs::write(board.path("release/warmbus.img"), image()).unwrap();
        board
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.0.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Ran {
        let folder = self.path("boot").display().to_string();
        warmbus(&[words, &["--folder", &folder]].concat())
    }

    /// Installs with these words, and with what they do not name as it is here.
    fn install(&self, words: &[&str]) -> Ran {
        let [files, kernel, initrd] = ["release", "boot/Image", "boot/initrd.img-6.1"]
            .map(|name| self.path(name).display().to_string());
        let named = [
            ("--files", files.as_str()),
            ("--kernel", &kernel),
            ("--initrd", &initrd),
            ("--parameters", "console=ttyS0 kho=on"),
        ];
        let named = named
            .iter()
            .filter(|(name, _)| !words.contains(name))
            .flat_map(|(name, value)| [*name, *value]);
        let all: Vec<&str> = ["install", "u-boot"].into_iter().chain(named).collect();
        self.run(&[&all[..], words].concat())
    }

    fn script(&self) -> String {
        let bytes = fs::read(self.path("boot/boot.scr")).unwrap();
        // Behind the header and the list of sizes.
        String::from_utf8(bytes[72..].to_vec()).unwrap()
    }
}

#[test]
fn what_is_uninstalled_leaves_the_folder_as_it_was() {
    let board = Board::new();
    let boot = board.path("boot");
    let before = content(&boot);
    let shown = board.install(&["--dry-run"]).ended(0).out;
    assert_eq!(content(&boot), before);
    let done = board.install(&[]).ended(0).out;
    assert_eq!(shown.replace("would ", ""), done);
    assert_eq!(fs::read(boot.join("warmbus.img")).unwrap(), image());
    let state = board.run(&["status", "--boot"]).ended(0).out;
    assert!(
        state.starts_with("installed      u-boot, by version"),
        "{state}"
    );
    assert!(
        board
            .install(&[])
            .ended(2)
            .err
            .contains("installed already")
    );
    board.run(&["uninstall"]).ended(0);
    assert_eq!(content(&boot), before);
    board.run(&["status", "--boot"]).ended(1);
}

#[test]
fn the_script_loads_the_files_that_were_named() {
    let board = Board::new();
    let tree = board.path("boot/dtbs/board.dtb").display().to_string();
    board
        .install(&["--tree", &tree, "--load-address", "0x80000000"])
        .ended(0);
    let script = board.script();
    for line in [
        "setexpr wb_firmware 80000000 + 1fffff\n",
        "if load ${wb_from} ${wb_firmware} ${prefix}warmbus.img; then\n",
        "if load ${wb_from} ${wb_kernel} ${prefix}Image; then\n",
        "if load ${wb_from} ${wb_initrd} ${prefix}initrd.img-6.1; then\n",
        "if load ${wb_from} ${wb_tree} ${prefix}dtbs/board.dtb; then\n",
        "setenv bootargs 'console=ttyS0 kho=on'\n",
        "fdt set /chosen/kernel bootargs 'console=ttyS0 kho=on'\n",
    ] {
        assert!(script.contains(line), "{line}{script}");
    }
}

#[test]
fn what_is_not_understood_is_refused_and_nothing_changes() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 7] = [
        ("runs no boot.scr", |root| {
            fs::write(root.join("boot/extlinux/extlinux.conf"), "").unwrap();
        }),
        ("runs no boot.scr", |root| {
            fs::write(root.join("boot/boot.scr.uimg"), "").unwrap();
        }),
        ("this command has not made it", |root| {
            fs::write(root.join("boot/boot.scr"), "").unwrap();
        }),
        ("this command has not made it", |root| {
            fs::write(root.join("boot/warmbus.img"), "").unwrap();
        }),
        ("is no image of Warmbus", |root| {
            fs::write(root.join("release/warmbus.img"), "MZ").unwrap();
        }),
        ("Warmbus does not start", |root| {
            fs::write(root.join("boot/Image"), "MZ").unwrap();
        }),
        ("cannot read", |root| {
            fs::remove_file(root.join("boot/initrd.img-6.1")).unwrap();
        }),
    ];
    for (expected, change) in cases {
        let board = Board::new();
        change(board.folder.0.path());
        let before = content(&board.path("boot"));
        let ran = board.install(&[]).ended(2);
        assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
        assert_eq!(content(&board.path("boot")), before, "{expected}");
    }
    let board = Board::new();
    let before = content(&board.path("boot"));
    let outside = board.folder.file("Image", image());
    let odd = board.path("boot/b'.dtb").display().to_string();
    fs::write(&odd, [0xd0, 0x0d, 0xfe, 0xed]).unwrap();
    let kernel = board.path("boot/Image").display().to_string();
    for (words, expected) in [
        (["--kernel", &outside], "is not below"),
        (["--tree", &kernel], "is no flattened device tree"),
        (
            ["--tree", &odd],
            "U-Boot cannot load a file whose name has '\\''",
        ),
        (
            ["--parameters", "a='b'"],
            "U-Boot cannot pass a command line with '\\''",
        ),
    ] {
        let ran = board.install(&words).ended(2);
        assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
    }
    fs::remove_file(odd).unwrap();
    assert_eq!(content(&board.path("boot")), before);
}
