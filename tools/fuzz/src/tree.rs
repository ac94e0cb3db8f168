//! A device tree that a loader left.

use warmbus_boot::options::Options;
use warmbus_linux::chosen::{Chosen, ChosenHandover, NodeEdit, edit};
use warmbus_linux::payload::Payload;
use warmbus_machine::{EarlyDevices, Machine};
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;

const CHOSEN: Chosen<'static> = Chosen {
    bootargs: Some(b"console=ttyAMA0"),
    initrd: Some(MemoryRange::new(PhysAddr(0x4800_0000), 0x10_0000)),
    handover: Some(ChosenHandover {
        root: MemoryRange::new(PhysAddr(0x6000_0000), 0x1000),
        scratch: MemoryRange::new(PhysAddr(0x6000_1000), 16),
    }),
    probe_only: true,
    nodes: &[],
    released: Some(MemoryRange::new(PhysAddr(0x4800_0000), 0x10_0000)),
};

/// Reads all that is read of a tree, and edits it. What was edited can be read
/// and edited again, and leads to the same payload.
///
/// # Panics
///
/// If anything of that is not so.
pub fn tree(data: &[u8]) {
    let _ = EarlyDevices::from_device_tree(data);
    let mut nodes = Vec::new();
    if let Ok(machine) = Machine::from_device_tree(data) {
        nodes.extend(machine.host_nodes.iter().map(|node| NodeEdit {
            path: node.path.clone(),
            domain: Some(1),
            probe_only: Some(false),
        }));
        let _ = machine.host_bridges();
        let _ = machine.free_memory(&machine.mappable_memory());
        let _ = Options::from_bootargs(&machine.bootargs);
    }
    let payload = Payload::find(data);
    let chosen = Chosen {
        nodes: &nodes,
        ..CHOSEN
    };
    if let Ok(edited) = edit(data, &chosen) {
        // Its three blocks are copied, and may have been in one place before.
        assert!(edited.len() < 3 * data.len() + 1024 + 32 * nodes.len());
        assert!(edit(&edited, &chosen).is_ok());
        if let Ok(found) = payload {
            let kernel = Payload::find(&edited).map(|again| again.kernel.map(|one| one.range));
            assert_eq!(kernel, Ok(found.kernel.map(|one| one.range)));
        }
    }
}
