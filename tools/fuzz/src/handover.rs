//! Memory with a handover in it, as it is read before the jump and on a host.

use std::sync::LazyLock;

use warmbus_cli::input::{Capture, Place};
use warmbus_cli::inspect;
use warmbus_kho::{KhoAbi, PreviousHandover};
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::{PhysMemoryWrite, TestMemory};
use warmbus_pci::{PhysAddr, Sbdf};
use warmbus_pcsc_format::{FunctionRecord, Handover, Layout, Placement, discard_cache};

const BASE: PhysAddr = PhysAddr(0x6000_0000);

/// A handover of one function, and what was written.
struct Sound {
    layout: Layout,
    handover: Handover,
    memory: TestMemory,
}

fn make(abi: KhoAbi) -> Sound {
    let data: Vec<u8> = (0..=255).collect();
    let all = [0xff; 32];
    let block = FunctionRecord {
        sbdf: Sbdf::new(0, 1, 0, 0),
        config_address: Some(PhysAddr(0x40_1010_0000)),
        size: 256,
        data: &data,
        cacheable: &all,
        cached: &all,
        masks: &[],
        capabilities: &[],
        capabilities_complete: true,
        routing: &[],
        virtual_function: None,
    };
    let layout = Layout::new(1, abi, PageSize::K4).expect("one fits");
    let placement = Placement {
        arena: BASE,
        scratch: &[MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000)],
        generation: 1,
    };
    let mut memory = TestMemory::new(BASE, layout.size() as usize);
    let handover = warmbus_pcsc_format::build(&layout, &placement, &[block], &mut memory)
        .expect("it is written");
    Sound {
        layout,
        handover,
        memory,
    }
}

static SOUND: LazyLock<[Sound; 2]> = LazyLock::new(|| [KhoAbi::V1, KhoAbi::V4].map(make));

/// The memory of sound handovers, for a corpus.
pub fn sound() -> [&'static [u8]; 2] {
    [SOUND[0].memory.bytes(), SOUND[1].memory.bytes()]
}

/// Reads memory with a possible handover. The reader on the host finds no fault
/// with what the verification before the jump accepts. Entries of the previous
/// handover are in memory that is reserved until the next one.
///
/// # Panics
///
/// If anything of that is not so.
pub fn handover(data: &[u8]) {
    let place = Place {
        base: Some(BASE.0),
        root: None,
    };
    let capture = Capture::from_bytes("memory", data, place);
    if let Ok(capture) = &capture {
        let _ = inspect::run(capture, None, true);
    }
    let mut memory = TestMemory::new(BASE, data.len());
    memory.write(BASE, data);
    for sound in SOUND.iter() {
        let (root, array) = (sound.handover.kho.root, sound.handover.kho.scratch);
        if let Ok(mut incoming) = PreviousHandover::read(&memory, root, array, 64) {
            discard_cache(&mut incoming, &memory);
            let is_reserved = |start| {
                let page = MemoryRange::new(start, root.size);
                incoming.reserved.iter().any(|range| range.contains(page))
            };
            assert!(incoming.entries.len() <= 64 && is_reserved(root.start));
            assert!(
                incoming
                    .entries
                    .iter()
                    .all(|entry| is_reserved(entry.address))
            );
        }
        let passed =
            warmbus_pcsc_format::verify(&sound.layout, &sound.handover, &[], BASE, data, &[]);
        if passed.is_ok() {
            let capture = capture.as_ref().expect("what was checked can be read");
            assert_eq!(capture.problems, [""; 0]);
        }
    }
}
