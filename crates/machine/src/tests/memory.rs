//! Reading memory before there is a heap to speak of: what is kept is bounded,
//! whatever the tree holds.

use alloc::vec;

use warmbus_fdt::FdtWriter;

use super::*;

/// A tree whose memory nodes have these values of `reg`.
fn tree(regs: &[Vec<u8>]) -> Vec<u8> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    for (number, reg) in regs.iter().enumerate() {
        tree.begin_node(&format!("memory@{number:x}"));
        tree.property_string("device_type", "memory");
        tree.property("reg", reg);
        tree.end_node();
    }
    tree.end_node();
    tree.finish().unwrap()
}

fn entry(start: u64, size: u64) -> Vec<u8> {
    [start, size].map(u64::to_be_bytes).concat()
}

fn refused(regs: &[Vec<u8>]) -> String {
    let error = MachineMemory::from_device_tree(&tree(regs)).unwrap_err();
    error.to_string()
}

#[test]
fn no_more_ranges_are_kept_than_any_machine_has() {
    let nodes = |count: u64| -> Vec<_> { (0..count).map(|n| entry(n << 21, 1 << 20)).collect() };
    let memory = MachineMemory::from_device_tree(&tree(&nodes(1024))).unwrap();
    assert_eq!(memory.ranges.len(), 1024);
    let sentence = "the device tree has more than 1024 memory ranges";
    assert_eq!(refused(&nodes(1025)), sentence);
    assert_eq!(refused(&[nodes(1025).concat()]), sentence);
    // A megabyte is not even looked at.
    assert_eq!(refused(&[nodes(65_536).concat()]), sentence);
}

#[test]
fn no_more_than_64_sentences_are_kept() {
    let mut regs = vec![entry(0x4000_0000, 1 << 30)];
    regs.extend((0..1000).map(|number| entry(u64::MAX - number, 0x1000)));
    regs.extend((0..1000).map(|_| vec![0; 4]));
    let memory = MachineMemory::from_device_tree(&tree(&regs)).unwrap();
    assert_eq!(memory.warnings.len(), 64);
    assert!(memory.warnings[0].contains("go past the last address"));
    assert_eq!(memory.ranges.len(), 1);
}

#[test]
fn memory_alone_is_read_as_with_the_rest_of_the_machine() {
    for bytes in [QEMU, SOC] {
        let machine = Machine::from_device_tree(bytes).unwrap();
        let memory = MachineMemory::from_device_tree(bytes).unwrap();
        let taken = [region(0x4000_0000, 0x20_0000)];
        assert_eq!(memory.free(&taken), machine.free_memory(&taken));
        assert_eq!(memory.mappable(), machine.mappable_memory());
        let silent = MachineMemory {
            warnings: Vec::new(),
            ..memory
        };
        assert_eq!(silent, machine.memory());
    }
}

#[test]
fn sixty_four_host_bridges_are_read() {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    tree.begin_node("memory@0");
    tree.property_string("device_type", "memory");
    tree.property("reg", &entry(0x4000_0000, 1 << 30));
    tree.end_node();
    for segment in 0..64_u64 {
        let base = (segment + 1) << 36;
        tree.begin_node(&format!("pcie@{base:x}"));
        tree.property_string("compatible", "pci-host-ecam-generic");
        tree.property_string("device_type", "pci");
        tree.property_u32("#address-cells", 3);
        tree.property_u32("#size-cells", 2);
        tree.property_u32("linux,pci-domain", segment as u32);
        tree.property("reg", &entry(base, 256 << 20));
        let window = base + (1 << 32);
        let mut ranges = 0x0300_0000_u32.to_be_bytes().to_vec();
        for number in [window, window, 1 << 32] {
            ranges.extend(number.to_be_bytes());
        }
        tree.property("ranges", &ranges);
        tree.end_node();
    }
    tree.end_node();
    let machine = Machine::from_device_tree(&tree.finish().unwrap()).unwrap();
    assert_eq!(machine.warnings, Vec::<String>::new());
    assert_eq!(machine.unusable_host_bridges, 0);
    let segments = machine.hosts.iter().map(|host| host.segment);
    assert!(segments.eq(0..64));
    assert!(machine.hosts.iter().all(|host| host.windows.len() == 1));
}
