//! Memory that a handover is written to and read from.

use warmbus_memory::{
    MappedRange, MemoryRange, NotMemory, PhysAddr, PhysMemory, PhysMemoryWrite, TestMemory,
};

const BASE: PhysAddr = PhysAddr(0x4000_0000);

fn at(offset: u64) -> PhysAddr {
    PhysAddr(BASE.0 + offset)
}

/// What is in memory after some writes through `sink`.
fn write(mut sink: impl PhysMemoryWrite) {
    sink.write(at(0), &[1, 2, 3]);
    sink.write(at(2), &[4, 5]);
    sink.zero(at(6), 2);
    sink.write(at(15), &[6]);
}

const WRITTEN: [u8; 16] = [
    1, 2, 4, 5, 0xa5, 0xa5, 0, 0, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 6,
];

#[test]
fn bytes_are_written_where_their_address_says() {
    let mut memory = TestMemory::new(BASE, 16);
    assert_eq!(memory.bytes(), [0xa5; 16]);
    assert_eq!(memory.base(), BASE);
    write(&mut memory);
    assert_eq!(memory.bytes(), WRITTEN);

    let mut memory = TestMemory::new(BASE, 16);
    let sink: &mut dyn PhysMemoryWrite = &mut memory;
    write(sink);
    assert_eq!(memory.bytes(), WRITTEN);

    let mut bytes = [0xa5; 16];
    write(MappedRange::new(BASE, &mut bytes));
    assert_eq!(bytes, WRITTEN);
}

#[test]
fn bytes_are_read_where_all_of_them_are_memory() {
    let mut memory = TestMemory::new(BASE, 16);
    write(&mut memory);
    let source: &dyn PhysMemory = &memory;
    for (offset, length) in [(0, 16), (0, 0), (16, 0), (3, 5), (15, 1)] {
        let expected = &WRITTEN[offset as usize..][..length];
        assert_eq!(memory.get(at(offset), length), Some(expected));
        let range = MemoryRange::new(at(offset), length as u64);
        assert_eq!(source.bytes(range), Ok(expected));
    }
    for (address, length) in [
        (at(0), 17),
        (at(16), 1),
        (at(15), 2),
        (PhysAddr(BASE.0 - 1), 1),
        (PhysAddr(0), 1),
        (PhysAddr(u64::MAX), 2),
        (at(1), u64::MAX),
    ] {
        assert_eq!(memory.get(address, length as usize), None);
        let range = MemoryRange::new(address, length);
        assert_eq!(source.bytes(range), Err(NotMemory { range }));
    }
}
