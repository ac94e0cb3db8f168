//! A handover in memory of which a test may change one thing, with every
//! checksum around it right again, so that nothing else stands in its way.

use vm_fdt::FdtWriter;
use warmbus_kho::preserved_map::Preserved;
use warmbus_kho::{KhoAbi, PreviousHandover, PreviousHandoverError};
use warmbus_memory::{MemoryRange, PageSize, PhysAddr, PhysMemoryWrite, TestMemory};
use warmbus_pcsc_format::{
    Handover, Layout, Placement, VerifyError, VirtualRecord, build, discard_cache, verify,
};

use crate::common::{GENERATION, SCRATCH, functions, inputs, pair, readers};
use crate::map::MapPages;
use crate::reader::{Properties, node, pcsc, tree_bytes};

pub(crate) const BASE: PhysAddr = PhysAddr(0x4000_0000);
/// Functions of the handover.
pub(crate) const FUNCTIONS: usize = 9;
/// The functions that are virtual and do not exist now, by their place among
/// all of them: they have a block and no node.
pub(crate) const DISABLED: [usize; 2] = [4, 8];
/// Pages behind the arena for another map.
const MAP_PAGES: u64 = 128;
/// Pages behind those for whatever a test puts there.
const SPARE_PAGES: u64 = 32;

/// See the module.
pub(crate) struct Damaged {
    pub(crate) abi: KhoAbi,
    pub(crate) page_size: PageSize,
    pub(crate) layout: Layout,
    pub(crate) handover: Handover,
    pub(crate) memory: TestMemory,
    /// What is expected to be inherited.
    pub(crate) inherited: Vec<Preserved>,
    /// What must not be preserved.
    pub(crate) in_use: Vec<(&'static str, MemoryRange)>,
    /// First spare page that nothing was put to.
    spare: u64,
}

/// Every version with every page size.
pub(crate) fn kinds() -> impl Iterator<Item = (KhoAbi, PageSize)> {
    KhoAbi::ALL
        .into_iter()
        .flat_map(|abi| PageSize::ALL.map(|page_size| (abi, page_size)))
}

impl Damaged {
    /// A handover without a fault.
    pub(crate) fn new(abi: KhoAbi, page_size: PageSize) -> Self {
        let functions = functions(FUNCTIONS);
        let mut blocks = inputs(&functions);
        for number in DISABLED {
            blocks[number].virtual_function = Some(VirtualRecord {
                physical: 0,
                number: number as u16,
                disabled: true,
                synthesised: &[(0, 4)],
            });
        }
        let layout = Layout::new(FUNCTIONS, abi, page_size).unwrap();
        let size = layout.size() + (MAP_PAGES + SPARE_PAGES) * page_size.bytes();
        let mut memory = TestMemory::new(BASE, size as usize);
        let placement = Placement {
            arena: BASE,
            scratch: &SCRATCH,
            generation: GENERATION,
        };
        let handover = build(&layout, &placement, &blocks, &mut memory).unwrap();
        let case = Self {
            abi,
            page_size,
            spare: BASE.0 + layout.size() + MAP_PAGES * page_size.bytes(),
            layout,
            handover,
            memory,
            inherited: Vec::new(),
            in_use: Vec::new(),
        };
        assert_eq!(case.check(), Ok(()), "{abi} {page_size}");
        case
    }

    pub(crate) fn check(&self) -> Result<(), VerifyError> {
        let (layout, handover) = (&self.layout, &self.handover);
        let arena = self.memory.bytes();
        verify(layout, handover, &self.inherited, BASE, arena, &self.in_use)
    }

    /// The same memory as the handover of a previous kernel, whose map may have
    /// `most` entries.
    pub(crate) fn incoming(&self, most: usize) -> Result<PreviousHandover, PreviousHandoverError> {
        let (root, scratch) = (self.handover.kho.root, self.handover.kho.scratch);
        let mut incoming = PreviousHandover::read(&self.memory, root, scratch, most)?;
        discard_cache(&mut incoming, &self.memory);
        Ok(incoming)
    }

    pub(crate) fn page(&self) -> u64 {
        self.page_size.bytes()
    }

    /// The address of `pages` spare pages, aligned to as many.
    pub(crate) fn spare(&mut self, pages: u64) -> u64 {
        let size = pages * self.page();
        let at = self.spare.next_multiple_of(size);
        self.spare = at + size;
        at
    }

    pub(crate) fn bytes(&self, range: MemoryRange) -> &[u8] {
        let bytes = self.memory.get(range.start, range.size as usize);
        bytes.expect("inside memory")
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        self.memory.write(PhysAddr(address), bytes);
    }

    /// The blocks, as the index has them.
    pub(crate) fn blocks(&self) -> Vec<u64> {
        let index = self.bytes(self.handover.index);
        let records = index[64..].chunks_exact(16);
        records
            .map(|record| u64::from_le_bytes(record[8..].try_into().unwrap()))
            .collect()
    }

    /// Makes the checksum of the root tree right for what is there.
    pub(crate) fn seal_root(&mut self) {
        self.handover.kho.root_crc = crc(self.bytes(self.handover.kho.root));
    }

    /// Makes the checksum of the subtree right for what is there.
    pub(crate) fn seal_subtree(&mut self) {
        self.handover.kho.subtrees[0].crc = crc(self.bytes(self.handover.subtree()));
    }

    /// Makes the checksum in the index right for what is there.
    pub(crate) fn seal_index(&mut self) {
        let crc = pcsc::crc_without(self.bytes(self.handover.index), 12);
        self.write(self.handover.index.start.0 + 12, &crc.to_le_bytes());
    }

    pub(crate) fn edit_root(&mut self, change: impl FnOnce(&mut EditedTree)) {
        let root = self.handover.kho.root;
        let mut tree = EditedTree::read(self.bytes(root));
        change(&mut tree);
        let mut bytes = tree.write();
        assert!(bytes.len() as u64 <= root.size);
        bytes.resize(root.size as usize, 0);
        self.write(root.start.0, &bytes);
        self.seal_root();
    }

    /// Also announces the new size of the subtree.
    pub(crate) fn edit_subtree(&mut self, change: impl FnOnce(&mut EditedTree)) {
        let subtree = self.handover.subtree();
        let mut tree = EditedTree::read(self.bytes(subtree));
        change(&mut tree);
        let bytes = tree.write();
        let size = bytes.len() as u64;
        assert!(size <= self.page(), "it has one page in this handover");
        self.write(subtree.start.0, &bytes);
        self.handover.kho.subtrees[0].range.size = size;
        self.seal_subtree();
        if self.abi.has_radix_tree() {
            self.edit_root(|root| root.set("pcsc", "blob-size", &size.to_le_bytes()));
        }
    }

    /// The name of the property of the root tree that leads to the subtree.
    pub(crate) fn address_property(&self) -> &'static str {
        if self.abi.has_radix_tree() {
            "preserved-data"
        } else {
            "fdt"
        }
    }

    /// The entries that a kernel finds in the map: address and order.
    pub(crate) fn entries(&self) -> Vec<(u64, u32)> {
        let kernel = readers(self.abi, self.page_size)[0];
        let (root, scratch) = (
            pair(self.handover.kho.root),
            pair(self.handover.kho.scratch),
        );
        let received = kernel.receive(&self.memory, root, scratch).unwrap();
        received.preserved.into_iter().collect()
    }

    /// Puts another map in the place of the one that was written.
    pub(crate) fn set_map(&mut self, map: &MapPages) {
        assert!(map.len() <= MAP_PAGES);
        map.write(&mut self.memory);
        self.edit_root(|root| root.set("", "preserved-memory-map", &map.first.to_le_bytes()));
    }

    /// Another map, without an entry.
    pub(crate) fn empty_map(&self) -> MapPages {
        MapPages::new(self.page_size, BASE.0 + self.layout.size())
    }

    /// Preserves `entries` and nothing else.
    pub(crate) fn preserve(&mut self, entries: &[(u64, u32)]) {
        let first = self.empty_map().first;
        let map = MapPages::of(self.abi, self.page_size, first, entries);
        self.set_map(&map);
    }

    /// Preserves what was preserved, but for what `change` does.
    pub(crate) fn edit_entries(&mut self, change: impl FnOnce(&mut Vec<(u64, u32)>)) {
        let mut entries = self.entries();
        change(&mut entries);
        self.preserve(&entries);
    }
}

/// The CRC-32 of all of `bytes`.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    pcsc::crc_without(bytes, bytes.len())
}

/// A tree of a root node and nodes below it, to be changed and written again.
pub(crate) struct EditedTree {
    nodes: Vec<(String, Properties)>,
}

impl EditedTree {
    fn read(bytes: &[u8]) -> Self {
        let tree = tree_bytes(bytes).unwrap();
        let (properties, children) = node(tree, &[]).unwrap();
        let below = children.into_iter().map(|name| {
            let (properties, _) = node(tree, &[&name]).unwrap();
            (name, properties)
        });
        let nodes = [(String::new(), properties)].into_iter().chain(below);
        Self {
            nodes: nodes.collect(),
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut tree = FdtWriter::new().unwrap();
        let mut open = Vec::new();
        for (name, properties) in &self.nodes {
            // A path begins a node below the one before.
            while open.len() > 1 && !name.contains('/') {
                tree.end_node(open.pop().unwrap()).unwrap();
            }
            let name = name.trim_start_matches('/');
            open.push(tree.begin_node(name).unwrap());
            for (name, value) in properties {
                tree.property(name, value).unwrap();
            }
        }
        while let Some(node) = open.pop() {
            tree.end_node(node).unwrap();
        }
        tree.finish().unwrap()
    }

    /// The names of the nodes below the root node.
    pub(crate) fn names(&self) -> Vec<String> {
        let below = self.nodes[1..].iter();
        below.map(|(name, _)| name.clone()).collect()
    }

    fn properties(&mut self, node: &str) -> &mut Properties {
        let found = self.nodes.iter_mut().find(|(name, _)| name == node);
        &mut found.expect("a node of this name").1
    }

    pub(crate) fn set(&mut self, node: &str, name: &str, value: &[u8]) {
        self.properties(node).insert(name.into(), value.into());
    }

    pub(crate) fn remove(&mut self, node: &str, name: &str) -> Vec<u8> {
        self.properties(node).remove(name).expect("it was there")
    }

    /// Adds a node, below the last one where the name starts with a slash.
    pub(crate) fn add_node(&mut self, name: &str, property: &str, value: &[u8]) {
        let properties = Properties::from([(property.into(), value.into())]);
        self.nodes.push((name.into(), properties));
    }

    pub(crate) fn remove_node(&mut self, node: &str) {
        self.nodes.retain(|(name, _)| name != node);
    }

    pub(crate) fn rename(&mut self, node: &str, new: &str) {
        let found = self.nodes.iter_mut().find(|(name, _)| name == node);
        found.expect("a node of this name").0 = new.into();
    }
}
