//! The walk of the capability lists, held against what `lspci` decodes.

use warmbus_pci::ConfigSpace;
use warmbus_pci::Probe;
use warmbus_pci::{ConfigOffset, CountingAccess, DumpedConfigSpace, Function, Sbdf};
use warmbus_pcsc::{ConfigCache, FunctionCache};

use super::lspci::{Decoded, by_function, differences, lspci};
use super::{Dump, bare, corpus, dump_of, printed_address, scratch, with_capabilities_of};

/// A cache in front of a dump that knows all of its functions.
fn cache_of(dump: &Dump) -> ConfigCache<CountingAccess<DumpedConfigSpace>> {
    let mut cache = ConfigCache::new(CountingAccess::new(dump.recorded.clone()));
    for function in dump.recorded.functions() {
        if matches!(cache.probe(function), Probe::Present { .. }) {
            cache.infer(function);
        }
    }
    cache
}

/// What enumeration makes of a function that the cache knows.
fn cached_function(block: &FunctionCache, mut function: Function) -> Function {
    function.capabilities = block.capabilities().to_vec();
    function.extended_capabilities = block.extended_capabilities().to_vec();
    function
}

#[test]
fn the_walk_finds_the_capabilities_that_lspci_finds() {
    let (mut functions, mut capabilities, mut absent) = (0, 0, 0);
    for dump in corpus() {
        let printed = by_function(&lspci(&dump.path, &["-D", "-vvv"]));
        let cache = cache_of(&dump);
        for function in dump.recorded.functions() {
            let address = printed_address(function, |address| printed.contains_key(address));
            let decoded = Decoded::new(&printed[&address]);
            let Some(block) = cache.block(function) else {
                // The dump of a function that answered with ones. Its header
                // type says nothing to lspci either.
                assert_eq!(decoded.remarks, ["!!! Unknown header type 7f"], "{address}");
                assert!(decoded.capabilities.is_empty());
                absent += 1;
                continue;
            };
            let found = differences(
                &decoded,
                block.capabilities(),
                block.extended_capabilities(),
            );
            assert!(
                found.is_empty(),
                "{} {address}: {found:#?}",
                dump.path.display()
            );
            functions += 1;
            capabilities += decoded.capabilities.len();
        }
        assert_eq!(cache.access().access().writes(), 0);
    }
    println!("{functions} functions with {capabilities} capabilities, {absent} absent");
}

#[test]
fn a_dump_of_the_cache_has_the_capabilities_and_cached_bytes_of_the_original() {
    let mut bytes = 0;
    for (index, dump) in corpus().iter().enumerate() {
        let mut cache = cache_of(dump);
        let known: Vec<Sbdf> = cache.blocks().map(|(function, _)| function).collect();
        for function in &known {
            cache.capture(*function);
        }
        let functions: Vec<_> = cache
            .blocks()
            .map(|(sbdf, block)| {
                let recorded = dump.recorded.bytes(sbdf).expect("recorded");
                for (offset, value) in recorded.iter().enumerate() {
                    let at = ConfigOffset::wrapping(offset as u16);
                    if block.is_cached(at) {
                        assert_eq!(block.data()[offset], *value, "{sbdf} offset {at}");
                        bytes += 1;
                    }
                }
                cached_function(block, bare(sbdf, recorded))
            })
            .collect();
        let ours = dump_of(functions, |sbdf| Some(cache.block(sbdf)?.data().to_vec()));
        let path = scratch(&format!("cache-{index}.txt"), &ours);
        let original = by_function(&lspci(&dump.path, &["-D", "-vvv"]));
        let printed = by_function(&lspci(&path, &["-D", "-vvv"]));
        for sbdf in known {
            let address = printed_address(sbdf, |address| original.contains_key(address));
            let wanted = with_capabilities_of(
                &Decoded::new(&original[&address]),
                bare(sbdf, dump.recorded.bytes(sbdf).expect("recorded")),
            );
            let found = differences(
                &Decoded::new(&printed[&sbdf.to_string()]),
                &wanted.capabilities,
                &wanted.extended_capabilities,
            );
            assert!(
                found.is_empty(),
                "{} {address}: {found:#?}",
                dump.path.display()
            );
        }
    }
    println!("{bytes} cached bytes");
    assert!(bytes > 10_000);
}
