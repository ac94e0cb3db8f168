//! Bundles as an archiver that is not ours writes them.

use std::io::Write;

use cpio::newc::{Builder, trailer};
use proptest::prelude::*;
use warmbus_linux::combined_initrd::KernelInInitrd;

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in members {
        let size = u32::try_from(bytes.len()).unwrap();
        let mut writer = Builder::new(name).mode(0o10_0644).write(&mut archive, size);
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
    }
    trailer(&mut archive).unwrap();
    archive
}

fn parts(file: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let bundle = KernelInInitrd::split(file)?;
    let initrd = bundle.initrd.map(|place| &file[place]);
    Some((&file[bundle.kernel], initrd))
}

#[test]
fn the_kernel_is_a_member_and_the_initrd_what_follows() {
    for name in ["warmbus/kernel", "./warmbus/kernel"] {
        let mut file = archive(&[("warmbus", b""), (name, b"ARM64"), ("other", b"abc")]);
        assert_eq!(parts(&file), Some((&b"ARM64"[..], None)));
        // As written by GNU cpio, to a block of 512 bytes.
        file.resize(file.len().next_multiple_of(512) + 512, 0);
        assert_eq!(parts(&file), Some((&b"ARM64"[..], None)));
        let initrd = archive(&[("init", b"#!/bin/sh\n")]);
        file.extend_from_slice(&initrd);
        assert_eq!(parts(&file), Some((&b"ARM64"[..], Some(&initrd[..]))));
    }
}

#[test]
fn what_is_no_bundle_is_none() {
    assert_eq!(KernelInInitrd::split(b""), None);
    assert_eq!(KernelInInitrd::split(&[0x1f, 0x8b, 8, 0]), None);
    assert_eq!(
        KernelInInitrd::split(&archive(&[("init", b"#!/bin/sh\n")])),
        None
    );
    assert_eq!(
        KernelInInitrd::split(&archive(&[("warmbus/kernel", b"")])),
        None
    );
    let whole = archive(&[("warmbus/kernel", b"ARM64")]);
    for size in 0..whole.len() - 4 {
        assert_eq!(KernelInInitrd::split(&whole[..size]), None, "{size}");
    }
}

proptest! {
    #[test]
    fn no_damage_leads_out_of_the_file(
        at in 0_usize..400,
        bytes in prop::collection::vec(any::<u8>(), 1..9),
        digits in "[0-9a-fA-F+-]{8}",
    ) {
        let mut file = archive(&[("warmbus/kernel", b"ARM64"), ("other", b"abc")]);
        file.extend_from_slice(b"initrd");
        for damage in [&bytes[..], digits.as_bytes()] {
            let mut file = file.clone();
            let end = file.len();
            let place = at.min(end)..(at + damage.len()).min(end);
            let count = place.len();
            file[place].copy_from_slice(&damage[..count]);
            // Slicing panics where a part is not in the file.
            let _ = parts(&file);
        }
    }
}
