//! `warmbus check-kernel` on kernels in every packing. gzip and zstd are those
//! of their own tools; the PE and ELF files are written here from their
//! specifications. With `WARMBUS_KERNELS` naming a folder, every kernel in it is
//! checked as well.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::{Folder, Ran, data, warmbus};

/// An `Image` with an EFI stub, 4K pages and these strings.
fn image(strings: &[&[u8]]) -> Vec<u8> {
    let mut image = pe(&[(".text", &vec![0; 0x3000])]);
    image[16..24].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    image[24] = 0xa;
    image[56..60].copy_from_slice(b"ARM\x64");
    let mut at = 0x1000;
    for string in strings {
        image[at..at + string.len()].copy_from_slice(string);
        at += 0x200;
    }
    image
}

const BANNER: &[u8] = b"\0Linux version 7.3.4-test (me) #1\n\0";

/// A kernel with enough text that a packed one has blocks of every kind.
fn kernel() -> Vec<u8> {
    let mut image = image(&[BANNER, b"\0kho-v4\0"]);
    let mut text = String::new();
    for number in 0..300 {
        write!(text, "symbol_{number:x} {};", number * number).unwrap();
    }
    image[0x1400..0x1400 + text.len()].copy_from_slice(text.as_bytes());
    image
}

/// A PE32+ file for arm64 with `sections`.
fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
    const OPTIONAL: usize = 112 + 16 * 8;
    let mut file = vec![0; 0x400];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x46].copy_from_slice(b"PE\0\0\x64\xaa");
    file[0x46] = sections.len() as u8;
    file[0x54] = OPTIONAL as u8;
    file[0x58..0x5a].copy_from_slice(&0x20b_u16.to_le_bytes());
    // Section and file alignment, then the number of data directories.
    file[0x58 + 32..][..8].copy_from_slice(&[0, 0x10, 0, 0, 0, 2, 0, 0]);
    file[0x58 + 108] = 16;
    for (number, (name, data)) in sections.iter().enumerate() {
        let (offset, size) = (file.len() as u32, data.len() as u32);
        let header = 0x58 + OPTIONAL + 40 * number;
        file[header..][..name.len()].copy_from_slice(name.as_bytes());
        for (at, field) in [(8, size), (12, offset), (16, size), (20, offset)] {
            file[header + at..][..4].copy_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(data);
        file.resize(file.len().next_multiple_of(0x200), 0);
    }
    file
}

/// An ELF file for `machine` with two segments: `image` cut in the middle.
fn elf(machine: u8, image: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..24].copy_from_slice(&[2, 0, machine, 0, 1, 0, 0, 0]);
    file[32] = 64;
    file[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
    let half = image.len() as u64 / 2;
    for number in 0..2 {
        let header = 64 + 56 * number as usize;
        let address = 0xffff_8000_8000_0000 + number * half;
        file[header] = 1;
        for (at, field) in [
            (8, 176 + number * half),
            (16, address),
            (24, address),
            (32, half),
            (40, half),
        ] {
            file[header + at..][..8].copy_from_slice(&field.to_le_bytes());
        }
    }
    file.extend_from_slice(image);
    file
}

/// What gzip makes of `bytes`.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    warmbus_tests::filtered("gzip", &["-c"], bytes)
}

/// What `zstd -19` of Debian 12 (1.5.4) made of [`kernel`].
fn zstd() -> Vec<u8> {
    std::fs::read(data("kernel.zst")).unwrap()
}

fn zboot(name: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x80];
    file[..8].copy_from_slice(b"MZ\0\0zimg");
    file[8] = 0x80;
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + name.len()].copy_from_slice(name);
    file.extend_from_slice(payload);
    file
}

/// The same kernel as a unified kernel image.
fn uki(kernel: &[u8]) -> Vec<u8> {
    pe(&[
        (".text", &[0; 0x300]),
        (".cmdline", b"root=/dev/vda kho=on\0"),
        (".linux", kernel),
    ])
}

fn check(bytes: &[u8], options: &[&str]) -> Ran {
    let folder = Folder::new();
    let file = folder.file("kernel", bytes);
    warmbus(&[&["check-kernel", &file], options].concat())
}

fn described(bytes: &[u8], status: i32) -> Value {
    check(bytes, &["--json"]).ended(status).json()
}

#[test]
fn a_kernel_is_the_same_in_every_packing() {
    let plain = kernel();
    let packed = |file: &[u8], status, layers: &[&str]| {
        let mut found = described(file, status);
        assert_eq!(found["packings"], json!(layers));
        assert_eq!(found["refused_as_payload"].is_null(), status == 0);
        let fields = found.as_object_mut().unwrap();
        fields.remove("packings");
        fields.remove("refused_as_payload");
        found
    };
    let expected = packed(&plain, 0, &[]);
    assert_eq!(expected["schema"], "warmbus-check-kernel/1");
    assert_eq!(expected["release"], "7.3.4-test");
    assert_eq!(expected["page_size"], 4096);
    assert_eq!(expected["kho"], "kho-v4");
    assert_eq!(expected["efi_stub"], true);
    assert_eq!(expected["reads_cache"], false);
    assert_eq!(expected["device_tree"]["handover"], "kho-v4");
    assert_eq!(expected["acpi"]["handover"], "kho-v4");

    let (gz, zst) = (gzip(&plain), zstd());
    for (file, status, layers) in [
        (gz.clone(), 0, &["gzip"][..]),
        (zboot(b"gzip", &gz), 0, &["zboot with gzip"]),
        // The firmware unpacks gzip only.
        (zst.clone(), 1, &["zstd"]),
        (zboot(b"zstd", &zst), 1, &["zboot with zstd"]),
        (elf(183, &plain), 1, &["vmlinux"]),
    ] {
        assert_eq!(packed(&file, status, layers), expected, "{layers:?}");
    }
    let around = uki(&zboot(b"zstd", &zst));
    let mut found = packed(&around, 1, &["UKI", "zboot with zstd"]);
    assert_eq!(found["command_line"], "root=/dev/vda kho=on");
    found["command_line"] = Value::Null;
    assert_eq!(found, expected);
}

#[test]
fn the_status_says_whether_the_cache_is_handed_over() {
    let with = |strings: &[&[u8]]| image(strings);
    let old = with(&[b"\0Linux version 6.18.15 (me)\n\0", b"\0kho-v1\0"]);
    let out = check(&old, &[]).ended(0).out;
    assert!(out.contains("the cache is handed over as kho-v1"), "{out}");
    let out = check(&old, &["--acpi"]).ended(1).out;
    assert!(out.contains("a Linux before 7.0"), "{out}");
    check(&kernel(), &["--acpi"]).ended(0);

    let none = described(&with(&[BANNER]), 1);
    assert_eq!(none["kho"], Value::Null);
    assert_eq!(
        none["device_tree"]["reason"],
        "the kernel has no Kexec HandOver"
    );
    let next = described(&with(&[BANNER, b"\0kho-v5\0"]), 1);
    assert_eq!(next["kho"], "kho-v5");
    assert!(next["acpi"]["reason"].as_str().unwrap().contains("kho-v5"));
    let series = with(&[BANNER, b"\0kho-v4\0", b"\0warmbus,version\0"]);
    assert_eq!(described(&series, 0)["reads_cache"], true);
    let mut big_endian = kernel();
    big_endian[24] |= 1;
    let reason = &described(&big_endian, 1)["device_tree"]["reason"];
    assert!(reason.as_str().unwrap().contains("big endian"), "{reason}");
}

#[test]
fn a_kernel_that_kexec_starts_needs_the_pages_and_version_of_the_running_one() {
    let folder = Folder::new();
    let mut other = kernel();
    other[24] = 0xe;
    let large = folder.file("64k", other);
    let v1 = folder.file("v1", image(&[BANNER, b"\0kho-v1\0"]));
    let without = folder.file("none", image(&[BANNER]));
    let same = folder.file("same", kernel());
    let from = |running: &str| warmbus(&["check-kernel", &same, "--from", running]);
    from(&same).ended(0);
    from(&without).ended(0);
    let out = from(&large).ended(1).out;
    assert!(
        out.contains("has 4K pages, and the previous one 64K"),
        "{out}"
    );
    let out = from(&v1).ended(1).out;
    assert!(out.contains("previous kernel is passed on"), "{out}");
}

#[test]
fn an_embedded_configuration_is_read() {
    let text = b"CONFIG_KEXEC_HANDOVER=y\n# CONFIG_PCI_IOV is not set\n";
    let embedded = [&b"IKCFG_ST"[..], &gzip(text), b"IKCFG_ED"].concat();
    // The first marker is one without a configuration.
    let found = described(&image(&[BANNER, b"IKCFG_ST\0", &embedded]), 1);
    assert_eq!(found["configuration"]["CONFIG_KEXEC_HANDOVER"], "y");
    assert_eq!(found["configuration"]["CONFIG_PCI_IOV"], "n");
    assert_eq!(described(&kernel(), 0)["configuration"], Value::Null);
}

#[test]
fn damage_is_named_and_never_taken_for_a_kernel() {
    let plain = kernel();
    let (gz, zst) = (gzip(&plain), zstd());
    let flipped = |file: &[u8], from_end: usize| {
        let mut file = file.to_vec();
        let at = file.len() - from_end;
        file[at] ^= 0x10;
        file
    };
    for (file, words) in [
        (plain[..0x2000].to_vec(), "cut off"),
        (plain[..40].to_vec(), "less than the 64"),
        (gz[..gz.len() / 2].to_vec(), "cut off"),
        (flipped(&gz, 8), "CRC-32"),
        (zst[..zst.len() / 2].to_vec(), "cut off"),
        (flipped(&zst, 1), "checksum"),
        (zboot(b"zstd", &zst)[..0x90].to_vec(), "cut off"),
        (zboot(b"gzip", &gz)[..0x90].to_vec(), "cut off"),
        (zboot(b"lzma", &gz), "'lzma'"),
        (elf(183, &plain)[..0x1000].to_vec(), "cut off"),
        (elf(62, &plain), "machine 62"),
        (uki(&plain)[..0x1000].to_vec(), "cut off"),
        (b"#!/bin/sh\n".repeat(20), "no arm64 Image"),
        (Vec::new(), "0 bytes"),
    ] {
        let ran = check(&file, &[]).ended(2);
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
        assert!(
            ran.err.contains("is not a complete arm64 kernel"),
            "{ran:?}"
        );
        assert_eq!(ran.out, "");
    }
}

/// Any bytes at any place: an answer or an error, within the time of a test.
#[test]
fn no_damage_makes_the_command_panic() {
    let plain = kernel();
    let files = [
        uki(&plain),
        elf(183, &plain),
        zboot(b"zstd", &zstd()),
        zboot(b"gzip", &gzip(&plain)),
    ];
    let folder = Folder::new();
    for (number, file) in files.iter().enumerate() {
        for at in (0..file.len().min(0x180)).step_by(3) {
            let mut damaged = file.clone();
            damaged[at] = damaged[at].wrapping_add(0x7f);
            let name = folder.file(&format!("{number}"), damaged);
            let ran = warmbus(&["check-kernel", &name]);
            assert!(
                matches!(ran.status, Some(0..=2)) && !ran.err.contains("panicked"),
                "file {number}, byte {at:#x}: {ran:?}"
            );
        }
    }
}

#[test]
fn kernels_in_the_folder_are_described_as_they_are_named() {
    let Some(folder) = std::env::var_os("WARMBUS_KERNELS") else {
        println!("WARMBUS_KERNELS is not set: no real kernels tried");
        return;
    };
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let Some((release, pages)) = name
            .strip_prefix("Image-")
            .and_then(|rest| rest.strip_suffix("k.gz"))
            .and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        let path = path.to_str().unwrap();
        let found = warmbus(&["check-kernel", path, "--json"]).ended(0).json();
        assert_eq!(found["release"], release);
        assert_eq!(found["page_size"], pages.parse::<u64>().unwrap() << 10);
        let acpi = warmbus(&["check-kernel", path, "--acpi"]);
        acpi.ended(i32::from(release.starts_with("6.")));
        let unpacked = Command::new("gzip").args(["-dc", path]).output().unwrap();
        let kernel = unpacked.stdout;
        // The same kernel, two packings deep.
        let around = described(&uki(&zboot(b"gzip", &gzip(&kernel))), 1);
        for field in ["release", "page_size", "kho", "device_tree", "acpi"] {
            assert_eq!(around[field], found[field], "{name}: {field}");
        }
        tried += 1;
    }
    assert!(tried > 0, "the folder has no kernel");
}
