//! One function with the bytes as its configuration space.

use warmbus_pci::{ConfigAccess, ConfigOffset, DumpedConfigSpace, Sbdf, Width};
use warmbus_pci::{ConfigSpace, Probe};
use warmbus_pcsc::ConfigCache;

/// Exceeds the reads that walk, capture and self-check of one function need:
/// each of its dwords in up to four parts, twice, and the reads of its ID.
const MAX_READS: u32 = 4 * 4096;

/// The function that responds.
const FUNCTION: Sbdf = Sbdf::new(0, 0, 0, 0);

/// A read-only configuration space that bounds the number of reads.
struct Bounded {
    space: DumpedConfigSpace,
    reads: u32,
}

impl ConfigAccess for Bounded {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.reads += 1;
        assert!(self.reads < MAX_READS, "the walk does not end");
        self.space.read(function, offset, width)
    }

    fn write(&mut self, _: Sbdf, _: ConfigOffset, _: Width, _: u32) {
        panic!("a walk writes nothing");
    }
}

/// Walks, captures and checks a function: what is cached is what it returns.
///
/// # Panics
///
/// If anything of that is not so.
pub fn function(data: &[u8]) {
    let mut bytes = data[..data.len().min(4096)].to_vec();
    bytes.resize(4096, 0);
    let space = DumpedConfigSpace::from_functions([(FUNCTION, bytes)]);
    let mut cached = ConfigCache::new(Bounded { space, reads: 0 });
    if !matches!(cached.probe(FUNCTION), Probe::Present { .. }) {
        return;
    }
    if cached.infer(FUNCTION).is_none() {
        return;
    }
    cached.capture(FUNCTION);
    assert_eq!(cached.self_check().differences, []);
    if let Some(block) = cached.block(FUNCTION) {
        assert!(block.cached_bytes() <= block.cacheable_bytes());
        assert!(block.capabilities().len() <= 48);
        assert!(block.extended_capabilities().len() <= 960);
    }
}
