//! Capability lists that lead nowhere, and what `lspci` makes of them.
//!
//! `lspci` prints where it stops: `<chain looped>` when a list comes back to
//! where it was, `<chain broken>` at ID ff. The walk stops at the same places
//! and reports an anomaly instead. The one difference: `lspci` follows a
//! pointer that leads out of the space where capabilities of its kind can be,
//! the walk does not.

use warmbus_pci::ConfigSpace;
use warmbus_pci::Probe;
use warmbus_pci::{DumpedConfigSpace, HexDump, Sbdf};
use warmbus_pcsc::ConfigCache;

use super::lspci::{Decoded, by_function, differences, lspci};
use super::scratch;

/// One function with a list that is not as it should be.
struct Case {
    name: &'static str,
    space: Vec<u8>,
    /// What lspci says about it.
    remark: Option<&'static str>,
    /// A capability that lspci lists and the walk must not.
    beyond: Option<u16>,
    /// Whether the walk has to call it an anomaly.
    is_anomaly: bool,
}

/// A network controller with a capability list from 0x40 on.
fn space(size: usize, dwords: &[(usize, u32)]) -> Vec<u8> {
    let mut space = vec![0; size];
    let header = [
        (0x00, 0x0001_1af4),
        (0x04, 0x0010_0000),
        (0x08, 0x0200_0000),
        (0x34, 0x40),
    ];
    for (offset, value) in header.iter().chain(dwords) {
        space[*offset..offset + 4].copy_from_slice(&u32::to_le_bytes(*value));
    }
    space
}

/// A PCI Express endpoint with an extended capability list.
fn express(dwords: &[(usize, u32)]) -> Vec<u8> {
    let mut all = vec![(0x40, 0x0002_0010)];
    all.extend_from_slice(dwords);
    space(4096, &all)
}

/// The header of an extended capability.
fn extended(id: u32, version: u32, next: u32) -> u32 {
    id | version << 16 | next << 20
}

fn cases() -> Vec<Case> {
    let case = |name, space, remark, beyond, is_anomaly| Case {
        name,
        space,
        remark,
        beyond,
        is_anomaly,
    };
    let looped = Some("<chain looped>");
    let aer = |next| (0x100, extended(1, 1, next));
    vec![
        case(
            "a list that leads back to its start",
            space(256, &[(0x40, 0x5001), (0x50, 0x4005)]),
            looped,
            None,
            true,
        ),
        case(
            "a capability that leads to itself",
            space(256, &[(0x40, 0x4001)]),
            looped,
            None,
            true,
        ),
        case(
            "a capability of ones",
            space(256, &[(0x40, 0x5001), (0x50, 0xffff_ffff)]),
            Some("<chain broken>"),
            None,
            true,
        ),
        case(
            "a pointer into the header",
            space(256, &[(0x40, 0x2001)]),
            None,
            Some(0x20),
            true,
        ),
        case(
            "a pointer with reserved bits set",
            space(256, &[(0x40, 0x5301), (0x50, 0x0005)]),
            None,
            None,
            false,
        ),
        case(
            "an extended list that leads back to its start",
            express(&[aer(0x200), (0x200, extended(3, 1, 0x100))]),
            looped,
            None,
            true,
        ),
        case(
            "an extended pointer into the conventional space",
            express(&[aer(0x40)]),
            None,
            Some(0x40),
            true,
        ),
        case(
            "an extended capability of ones",
            express(&[aer(0x200), (0x200, 0xffff_ffff)]),
            None,
            None,
            true,
        ),
        case(
            "an extended list that starts with a null capability",
            express(&[(0x100, 0x2000_0000), (0x200, extended(3, 1, 0))]),
            None,
            None,
            false,
        ),
        case(
            "an extended capability in the last dword",
            express(&[aer(0xffc), (0xffc, extended(0x28, 1, 0))]),
            None,
            None,
            false,
        ),
    ]
}

#[test]
fn the_walk_stops_where_lspci_stops_and_says_so() {
    let sbdf = Sbdf::new(0, 0, 1, 0);
    for (index, case) in cases().into_iter().enumerate() {
        let dump = format!("{sbdf} x\n{}\n", HexDump(&case.space));
        let path = scratch(&format!("broken-{index}.txt"), &dump);
        let printed = by_function(&lspci(&path, &["-D", "-vvv"]));
        let mut decoded = Decoded::new(&printed[&sbdf.to_string()]);
        let remark = decoded.remarks.first().map(String::as_str);
        assert_eq!(remark, case.remark, "{}", case.name);
        if let Some(beyond) = case.beyond {
            let listed = decoded.capabilities.pop().expect(case.name);
            assert_eq!(listed.offset, beyond, "{}", case.name);
        }

        let mut cache = ConfigCache::new(DumpedConfigSpace::parse(&dump).expect(case.name));
        assert!(matches!(cache.probe(sbdf), Probe::Present { .. }));
        let anomalies = cache.infer(sbdf).expect(case.name);
        let block = cache.block(sbdf).expect(case.name);
        let found = differences(
            &decoded,
            block.capabilities(),
            block.extended_capabilities(),
        );
        assert!(found.is_empty(), "{}: {found:#?}", case.name);
        assert_eq!(
            !anomalies.is_empty(),
            case.is_anomaly,
            "{}: {anomalies:?}",
            case.name
        );
    }
}
