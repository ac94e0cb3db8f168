//! Dumps, read and written, as `lspci` reads and prints them.

use proptest::prelude::*;
use warmbus_pci::{DumpedConfigSpace, HexDump, Sbdf};
use warmbus_pcie_sim::proptest_config;

use super::lspci::{Decoded, by_function, differences, lspci};
use super::{bare, corpus, dump_of, printed_address, scratch, with_capabilities_of};

#[test]
fn every_byte_of_every_dump_reads_as_lspci_reads_it() {
    let mut functions = 0;
    let dumps = corpus();
    for dump in &dumps {
        let printed = by_function(&lspci(&dump.path, &["-D", "-n", "-xxxx"]));
        for function in dump.recorded.functions() {
            let address = printed_address(function, |address| printed.contains_key(address));
            let text = printed
                .get(&address)
                .unwrap_or_else(|| panic!("{}: lspci has no {address}", dump.path.display()));
            let (_, lines) = text.split_once('\n').expect("a line, then bytes");
            let ours = HexDump(dump.recorded.bytes(function).expect("recorded")).to_string();
            assert_eq!(
                lines.trim_end(),
                ours.trim_end(),
                "{} {address}",
                dump.path.display()
            );
        }
        assert_eq!(
            dump.recorded.functions().count(),
            printed.len(),
            "functions of {}",
            dump.path.display()
        );
        functions += printed.len();
    }
    println!("{} dumps, {functions} functions", dumps.len());
}

#[test]
fn a_dump_of_our_own_decodes_exactly_like_the_one_it_was_made_from() {
    let mut functions = 0;
    for (index, dump) in corpus().iter().enumerate() {
        // What was read without privilege is shorter than anything we write.
        let whole: Vec<_> = dump
            .recorded
            .functions()
            .map(|function| (function, dump.recorded.bytes(function).expect("recorded")))
            .filter(|(_, bytes)| bytes.len() >= 256)
            .collect();
        let ours = dump_of(
            whole
                .iter()
                .map(|(sbdf, bytes)| bare(*sbdf, bytes))
                .collect(),
            |sbdf| dump.recorded.bytes(sbdf).map(<[u8]>::to_vec),
        );
        let path = scratch(&format!("rewritten-{index}.txt"), &ours);
        let options = ["-D", "-vvv", "-nn", "-xxxx"];
        let original = by_function(&lspci(&dump.path, &options));
        let rewritten = by_function(&lspci(&path, &options));
        assert_eq!(rewritten.len(), whole.len());
        for (sbdf, _) in whole {
            let address = printed_address(sbdf, |address| original.contains_key(address));
            assert_eq!(
                rewritten[&sbdf.to_string()],
                original[&address],
                "{} {address}",
                dump.path.display()
            );
            functions += 1;
        }
    }
    println!("{functions} functions");
}

/// Writes each dump anew with `space` as what is cached of a function, given
/// its recorded bytes, and checks that `lspci` finds every capability.
fn check_that_lspci_finds_its_way(name: &str, space: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut capabilities = 0;
    for (index, dump) in corpus().iter().enumerate() {
        let original = by_function(&lspci(&dump.path, &["-D", "-vvv"]));
        let functions: Vec<_> = dump
            .recorded
            .functions()
            .map(|sbdf| {
                let address = printed_address(sbdf, |address| original.contains_key(address));
                let decoded = Decoded::new(&original[&address]);
                let bytes = dump.recorded.bytes(sbdf).expect("recorded");
                with_capabilities_of(&decoded, bare(sbdf, bytes))
            })
            .collect();
        let ours = dump_of(functions.clone(), |sbdf| {
            space(dump.recorded.bytes(sbdf).expect("recorded"))
        });
        let path = scratch(&format!("{name}-{index}.txt"), &ours);
        let printed = by_function(&lspci(&path, &["-D", "-vvv"]));
        for function in functions {
            let decoded = Decoded::new(&printed[&function.sbdf.to_string()]);
            let missing = differences(
                &decoded,
                &function.capabilities,
                &function.extended_capabilities,
            );
            assert!(
                missing.is_empty(),
                "{} {}: {missing:#?}",
                dump.path.display(),
                function.sbdf
            );
            capabilities += decoded.capabilities.len();
        }
    }
    println!("{capabilities} capabilities");
    assert!(capabilities > 100);
}

#[test]
fn lspci_finds_the_capabilities_although_the_status_register_is_not_cached() {
    check_that_lspci_finds_its_way("status", |bytes| {
        let mut bytes = bytes.to_vec();
        bytes[4..8].fill(0);
        Some(bytes)
    });
}

#[test]
fn lspci_finds_the_capabilities_of_a_function_that_is_not_in_the_cache() {
    check_that_lspci_finds_its_way("left-out", |_| None);
}

proptest! {
    #![proptest_config(proptest_config::properties(256))]

    #[test]
    fn a_damaged_dump_is_read_or_refused_but_never_misread(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~\n\t\u{e9}]"), 1..4),
    ) {
        let sound = dump_of(
            vec![bare(Sbdf::new(0, 1, 2, 3), &[0; 64]), bare(Sbdf::new(0, 1, 2, 4), &[0; 64])],
            |_| Some((0..=255).collect()),
        );
        let mut text: Vec<String> = sound.chars().map(String::from).collect();
        for (at, replacement) in damage {
            let at = at.index(text.len());
            text[at] = replacement;
        }
        // What is accepted is whole: no byte went missing or to another place.
        if let Ok(recorded) = DumpedConfigSpace::parse(&text.concat()) {
            for function in recorded.functions() {
                let bytes = recorded.bytes(function).unwrap_or_default();
                prop_assert!([64, 128, 256, 4096].contains(&bytes.len()));
                let moved = bytes
                    .iter()
                    .enumerate()
                    .skip(64)
                    .filter(|(offset, byte)| offset & 0xff != usize::from(**byte));
                prop_assert!(moved.count() <= 6);
            }
        }
    }
}
