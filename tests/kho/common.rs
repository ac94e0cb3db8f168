//! Handovers of made-up functions, and how they are read back.

use warmbus_kho::KhoAbi;
use warmbus_memory::{MemoryRange, PageSize, PhysAddr, TestMemory};
use warmbus_pci::Sbdf;
use warmbus_pcsc_format::{
    CapabilityRecord, FunctionRecord, Handover, Layout, MaskRecord, Placement, build,
};

use crate::reader::Kernel;

/// A function with made-up but reproducible contents.
pub(crate) struct MadeUpFunction {
    pub(crate) sbdf: Sbdf,
    pub(crate) size: u16,
    pub(crate) data: Vec<u8>,
    pub(crate) cacheable: Vec<u8>,
    pub(crate) cached: Vec<u8>,
    pub(crate) masks: Vec<MaskRecord>,
    pub(crate) capabilities: Vec<CapabilityRecord>,
}

pub(crate) fn functions(count: usize) -> Vec<MadeUpFunction> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    (0..count)
        .map(|number| {
            let size = if number % 5 == 3 { 256 } else { 4096 };
            // Of some not all is given.
            let given = if number % 7 == 2 { size / 16 * 3 } else { size };
            let data = (0..given).map(|_| random() as u8).collect();
            let cacheable: Vec<u8> = (0..given / 8).map(|_| random() as u8).collect();
            let cached = cacheable.iter().map(|byte| byte & random() as u8).collect();
            MadeUpFunction {
                sbdf: Sbdf::from_routing_id((number / 3000) as u16, (number % 3000 * 7) as u16),
                size,
                data,
                cacheable,
                cached,
                masks: (0..number % 14)
                    .map(|bar| MaskRecord {
                        offset: 0x10 + 4 * bar as u16,
                        writable: random(),
                        fixed: random(),
                        value: (random() % 2 == 0).then(&mut random),
                    })
                    .collect(),
                capabilities: (0..number % 40)
                    .map(|_| CapabilityRecord {
                        id: random() as u16,
                        offset: random() as u16 & 0xffc,
                        version: random() as u8 & 0xf,
                    })
                    .collect(),
            }
        })
        .collect()
}

/// Where the configuration space of a made-up function is.
pub(crate) fn config_address(function: Sbdf) -> PhysAddr {
    let segment = u64::from(function.segment()) << 40;
    PhysAddr(segment + 0x12_3000_0000 + (u64::from(function.routing_id()) << 12))
}

pub(crate) fn inputs(functions: &[MadeUpFunction]) -> Vec<FunctionRecord<'_>> {
    functions
        .iter()
        .map(|function| FunctionRecord {
            sbdf: function.sbdf,
            config_address: Some(config_address(function.sbdf)),
            size: function.size,
            data: &function.data,
            cacheable: &function.cacheable,
            cached: &function.cached,
            masks: &function.masks,
            capabilities: &function.capabilities,
            capabilities_complete: function.sbdf.devfn() % 3 != 0,
            routing: &[],
            virtual_function: None,
        })
        .collect()
}

pub(crate) const SCRATCH: [MemoryRange; 2] = [
    MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000),
    MemoryRange::new(PhysAddr(0x2_4000_0000), 0x2000_0000),
];

pub(crate) const GENERATION: u64 = 0x0123_4567_89ab_cdef;

pub(crate) fn hand_over(
    functions: &[MadeUpFunction],
    abi: KhoAbi,
    page_size: PageSize,
    arena: u64,
) -> (TestMemory, Handover) {
    let layout = Layout::new(functions.len(), abi, page_size).unwrap();
    let mut memory = TestMemory::new(PhysAddr(arena), layout.size() as usize);
    let placement = Placement {
        arena: PhysAddr(arena),
        scratch: &SCRATCH,
        generation: GENERATION,
    };
    let handover = build(&layout, &placement, &inputs(functions), &mut memory).unwrap();
    (memory, handover)
}

/// The handover of `blocks` in version 4, with pages of 4 KiB.
pub(crate) fn hand_over_blocks(
    blocks: &[FunctionRecord<'_>],
    arena: u64,
) -> (TestMemory, Handover) {
    let layout = Layout::new(blocks.len(), KhoAbi::V4, PageSize::K4).unwrap();
    let mut memory = TestMemory::new(PhysAddr(arena), layout.size() as usize);
    let placement = Placement::new(PhysAddr(arena), &SCRATCH, GENERATION);
    let handover = build(&layout, &placement, blocks, &mut memory).unwrap();
    (memory, handover)
}

pub(crate) fn pair(range: MemoryRange) -> (u64, u64) {
    (range.start.0, range.size)
}

pub(crate) fn padded(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(size, 0);
    bytes
}

pub(crate) fn readers(abi: KhoAbi, page_size: PageSize) -> Vec<Kernel> {
    match abi {
        KhoAbi::V1 => Kernel::readers("kho-v1", page_size.shift()),
        // One tree serves both, whichever was found.
        KhoAbi::V3 | KhoAbi::V4 => ["kho-v3", "kho-v4"]
            .into_iter()
            .flat_map(|string| Kernel::readers(string, page_size.shift()))
            .collect(),
    }
}
