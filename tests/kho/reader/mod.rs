//! A reader of handovers that shares nothing with the writer.
//!
//! It follows the steps of the receiving kernel: find the version string, take
//! the scratch areas, walk the preserved-memory map, give everything else to
//! the page allocator, and only then look at the data.

pub(crate) mod pcsc;

use std::collections::BTreeMap;

use warmbus_memory::{PhysAddr, TestMemory};

/// A property of a tree: its raw bytes.
pub(crate) type Properties = BTreeMap<String, Vec<u8>>;

/// The kernel that receives a handover.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// What it is called in test messages.
    pub(crate) name: &'static str,
    /// The string that it looks for.
    pub(crate) string: &'static str,
    /// Binary logarithm of its page size.
    pub(crate) page_shift: u32,
    pub(crate) map: Map,
}

/// How a kernel reads the preserved-memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Map {
    /// Chunks of bitmaps with this many bits.
    Chunks { preserve_bits: u64 },
    /// A radix tree of this many levels.
    Radix { depth: u32 },
}

/// What a kernel got.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    kernel: Kernel,
    memory: &'a TestMemory,
    root: Vec<u8>,
    /// Address and size of each scratch area.
    pub(crate) scratch: Vec<(u64, u64)>,
    /// Address and order of each entry of the map.
    pub(crate) preserved: BTreeMap<u64, u32>,
    /// Pages that the map itself takes.
    pub(crate) map_pages: Vec<u64>,
}

impl Kernel {
    /// The kernels that read version `string` with pages of `1 << page_shift`.
    pub(crate) fn readers(string: &'static str, page_shift: u32) -> Vec<Self> {
        let with = |name, map| Self {
            name,
            string,
            page_shift,
            map,
        };
        match string {
            "kho-v1" => vec![
                with(
                    "6.16",
                    Map::Chunks {
                        preserve_bits: 4096,
                    },
                ),
                with(
                    "6.18",
                    Map::Chunks {
                        preserve_bits: 8 << page_shift,
                    },
                ),
            ],
            _ => vec![with(
                string,
                Map::Radix {
                    depth: match page_shift {
                        12 => 6,
                        14 => 5,
                        _ => 4,
                    },
                },
            )],
        }
    }

    fn page(&self) -> usize {
        1 << self.page_shift
    }

    /// What happens before the allocator runs.
    pub(crate) fn receive<'a>(
        &self,
        memory: &'a TestMemory,
        fdt: (u64, u64),
        scratch: (u64, u64),
    ) -> Result<Received<'a>, String> {
        let (root_at, root_size) = fdt;
        if root_at % 8 != 0 || root_size == 0 || root_size > 256 << 10 {
            return Err(format!("root tree at {root_at:#x}, {root_size:#x} bytes"));
        }
        let window = memory
            .get(PhysAddr(root_at), root_size as usize)
            .ok_or("root tree outside memory")?;
        let root = tree_bytes(window)?.to_vec();
        let (properties, _) = node(&root, &[])?;

        let compatible = properties.get("compatible").ok_or("no compatible")?;
        let strings: Vec<_> = compatible.split(|byte| *byte == 0).collect();
        if strings.last() != Some(&&b""[..]) {
            return Err("compatible does not end with a NUL".into());
        }
        if !strings.contains(&self.string.as_bytes()) {
            return Err(format!("incompatible with '{}'", self.string));
        }
        let map = native_u64(&properties, "preserved-memory-map")?;
        if map == 0 {
            return Err("no preserved memory".into());
        }

        let (array_at, array_size) = scratch;
        let array = memory
            .get(PhysAddr(array_at), array_size as usize)
            .ok_or("scratch array outside memory")?;
        let scratch: Vec<(u64, u64)> = array
            .chunks_exact(16)
            .map(|area| (le64(area, 0), le64(area, 8)))
            .collect();
        if scratch.is_empty() {
            return Err("no scratch areas".into());
        }

        let mut received = Received {
            kernel: *self,
            memory,
            root,
            scratch,
            preserved: BTreeMap::new(),
            map_pages: Vec::new(),
        };
        match self.map {
            Map::Chunks { preserve_bits } => received.walk_chunks(map, preserve_bits)?,
            Map::Radix { depth } => received.walk_radix(map, depth - 1, 0)?,
        }
        Ok(received)
    }
}

impl Received<'_> {
    fn page_at(&mut self, address: u64) -> Result<Vec<u8>, String> {
        if !address.is_multiple_of(self.kernel.page() as u64) {
            return Err(format!("map page at {address:#x} is not aligned"));
        }
        if self.map_pages.contains(&address) {
            return Err(format!("map page at {address:#x} is reached twice"));
        }
        self.map_pages.push(address);
        self.memory
            .get(PhysAddr(address), self.kernel.page())
            .map(<[u8]>::to_vec)
            .ok_or_else(|| format!("map page at {address:#x} is outside memory"))
    }

    fn walk_chunks(&mut self, mut at: u64, preserve_bits: u64) -> Result<(), String> {
        while at != 0 {
            let chunk = self.page_at(at)?;
            let order = u32::from_le_bytes(chunk[8..12].try_into().unwrap());
            let count = u32::from_le_bytes(chunk[12..16].try_into().unwrap()) as usize;
            if 16 + count * 16 > chunk.len() {
                return Err(format!("chunk with {count} entries"));
            }
            for element in chunk[16..16 + count * 16].chunks(16) {
                let (start, bitmap) = (le64(element, 0), le64(element, 8));
                let bits = self.page_at(bitmap)?;
                for bit in 0..preserve_bits.min(bits.len() as u64 * 8) {
                    if bits[bit as usize / 8] & 1 << (bit % 8) != 0 {
                        let shift = order + self.kernel.page_shift;
                        self.preserve(start + (bit << shift), order)?;
                    }
                }
                // The bits that 6.16 does not read must not carry anything.
                if bits[512..].iter().any(|byte| *byte != 0) {
                    return Err("bits beyond the first 4096".into());
                }
            }
            at = le64(&chunk, 0);
        }
        Ok(())
    }

    fn walk_radix(&mut self, at: u64, level: u32, key: u64) -> Result<(), String> {
        let page = self.page_at(at)?;
        let shift = self.kernel.page_shift;
        if level > 0 {
            for slot in 0..page.len() / 8 {
                let child = le64(&page, slot * 8);
                if child != 0 {
                    self.walk_radix(child, level - 1, key << (shift - 3) | slot as u64)?;
                }
            }
            return Ok(());
        }
        for bit in 0..page.len() * 8 {
            if page[bit / 8] & 1 << (bit % 8) != 0 {
                let key = key << (shift + 3) | bit as u64;
                let order_bit = key.checked_ilog2().ok_or("no order bit")?;
                let order = (64 - shift).checked_sub(order_bit).ok_or("order bit")?;
                let frame = key & !(1 << order_bit);
                self.preserve(frame << (shift + order), order)?;
            }
        }
        Ok(())
    }

    fn preserve(&mut self, address: u64, order: u32) -> Result<(), String> {
        let shift = order + self.kernel.page_shift;
        if shift > 30 {
            return Err(format!("order {order} is too large"));
        }
        if address.trailing_zeros() < shift {
            return Err(format!("{address:#x} is not aligned for order {order}"));
        }
        if self.memory.get(PhysAddr(address), 1 << shift).is_none() {
            return Err(format!("{address:#x} order {order} is not in memory"));
        }
        let before = self.preserved.range(..=address).next_back();
        let after = self.preserved.range(address..).next();
        if before.is_some_and(|(at, o)| at + (1 << (o + self.kernel.page_shift)) > address)
            || after.is_some_and(|(at, _)| *at < address + (1 << shift))
        {
            return Err(format!("{address:#x} is preserved twice"));
        }
        self.preserved.insert(address, order);
        Ok(())
    }

    /// The memory after the page allocator has used every page that is free:
    /// all but the preserved ones and the scratch array.
    pub(crate) fn under_pressure(&self, array: (u64, u64)) -> TestMemory {
        let base = self.memory.base().0;
        let mut after = TestMemory::new(self.memory.base(), self.memory.bytes().len());
        let mut keep = |at: u64, size: u64| {
            let bytes = self.memory.get(PhysAddr(at), size as usize).unwrap();
            warmbus_memory::PhysMemoryWrite::write(&mut after, PhysAddr(at), bytes);
        };
        for (&address, order) in &self.preserved {
            assert!(address >= base);
            keep(address, 1 << (order + self.kernel.page_shift));
        }
        keep(array.0, array.1);
        after
    }

    /// What a subsystem gets that asks for its data: address and size.
    pub(crate) fn subtree(&self, name: &str) -> Result<(u64, u64), String> {
        let (properties, _) = node(&self.root, &[name])?;
        if matches!(self.kernel.map, Map::Chunks { .. }) {
            let at = native_u64(&properties, "fdt")?;
            let header = self.memory.get(PhysAddr(at), 8).ok_or("outside memory")?;
            let size = u32::from_be_bytes(header[4..8].try_into().unwrap());
            return Ok((at, u64::from(size)));
        }
        let at = native_u64(&properties, "preserved-data")?;
        Ok((at, native_u64(&properties, "blob-size")?))
    }

    /// Whether the folio at `address` can be restored and is `size` bytes long.
    pub(crate) fn restore_folio(&self, address: u64, size: u64) -> Result<(), String> {
        let order = self
            .preserved
            .get(&address)
            .ok_or_else(|| format!("no folio at {address:#x}"))?;
        let largest = match self.kernel.page_shift {
            12 => 10,
            14 => 11,
            _ => 13,
        };
        let bytes = 1_u64 << (order + self.kernel.page_shift);
        if *order > largest || bytes < size {
            return Err(format!("folio at {address:#x} has order {order}"));
        }
        Ok(())
    }
}

/// The tree at the start of `window`, as long as its header says.
pub(crate) fn tree_bytes(window: &[u8]) -> Result<&[u8], String> {
    if window.len() < 40 || window[..4] != [0xd0, 0x0d, 0xfe, 0xed] {
        return Err("no tree".into());
    }
    let total = u32::from_be_bytes(window[4..8].try_into().unwrap()) as usize;
    window.get(..total).ok_or_else(|| "tree is cut off".into())
}

/// The properties and the names of the children of the node at `path`.
pub(crate) fn node(tree: &[u8], path: &[&str]) -> Result<(Properties, Vec<String>), String> {
    let wrong = |error: fdt::FdtError| format!("{error:?}");
    let tree = fdt::Fdt::new_unaligned_fallible(tree).map_err(wrong)?;
    let root = tree.root().map_err(wrong)?.find_node("/").map_err(wrong)?;
    let mut at = root.ok_or("no root")?;
    for name in path {
        let mut found = None;
        for child in at.children().map_err(wrong)?.iter() {
            let child = child.map_err(wrong)?;
            if child.name().map_err(wrong)?.to_string() == *name {
                found = Some(child);
                break;
            }
        }
        at = found.ok_or_else(|| format!("no node {name}"))?;
    }
    let mut properties = Properties::new();
    for property in at.properties().map_err(wrong)?.iter() {
        let property = property.map_err(wrong)?;
        properties.insert(property.name.to_string(), property.value.to_vec());
    }
    let mut children = Vec::new();
    for child in at.children().map_err(wrong)?.iter() {
        let child = child.map_err(wrong)?;
        children.push(child.name().map_err(wrong)?.to_string());
    }
    Ok((properties, children))
}

/// A property of exactly 8 bytes in the byte order of the CPU.
pub(crate) fn native_u64(properties: &Properties, name: &str) -> Result<u64, String> {
    let value = properties.get(name).ok_or_else(|| format!("no {name}"))?;
    let bytes = value.as_slice().try_into();
    Ok(u64::from_le_bytes(bytes.map_err(|_| {
        format!("{name} has {} bytes", value.len())
    })?))
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
