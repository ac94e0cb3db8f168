//! What is to be started, from the boot tree.
//!
//! Loaders describe what they loaded as nodes below `/chosen` that are
//! compatible with `multiboot,kernel` and `multiboot,ramdisk` (the "Multiboot
//! on Arm" binding). QEMU's `guest-loader` makes them, and U-Boot scripts can.

use alloc::string::String;
use core::fmt;
use core::ops::Range;

use super::bundle::KernelInInitrd;
use super::devicetree::is_chosen;
use warmbus_fdt::tokens::{Token, Tree, TreeError, u32_at};
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;

/// A file that a loader put into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Where it is.
    pub range: MemoryRange,
    /// Its command line, without the NUL.
    pub bootargs: Option<&'a [u8]>,
}

/// What a boot tree says is to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The kernel.
    pub kernel: Option<Module<'a>>,
    /// The initrd: a module, or else what `/chosen` itself says.
    pub ramdisk: Option<Module<'a>>,
    /// The command line of `/chosen` itself, without the NUL.
    pub bootargs: Option<&'a [u8]>,
    /// The file that kernel and initrd came in, if it was one.
    pub bundle: Option<MemoryRange>,
    /// A running kernel has started this program (`linux,booted-from-kexec`).
    pub from_kexec: bool,
    /// What a kernel hands over: the root tree and the array of scratch areas
    /// (`linux,kho-fdt`, `linux,kho-scratch`).
    pub handover: Option<(MemoryRange, MemoryRange)>,
}

impl<'a> Payload<'a> {
    /// Takes the initrd apart where there is no kernel and `file`, which is
    /// what the initrd holds, has one in front ([`KernelInInitrd`]). The initrd is then
    /// what follows, or the whole file where nothing does.
    pub fn split(&mut self, file: &[u8]) {
        let (Some(ramdisk), None) = (self.ramdisk, self.kernel) else {
            return;
        };
        let Some(bundle) = KernelInInitrd::find(file) else {
            return;
        };
        let module = |part: Range<usize>| Module {
            range: MemoryRange::new(
                PhysAddr(ramdisk.range.start.0 + part.start as u64),
                part.len() as u64,
            ),
            bootargs: None,
        };
        self.bundle = Some(ramdisk.range);
        self.kernel = Some(module(bundle.kernel));
        self.ramdisk = Some(module(bundle.initrd.unwrap_or(0..file.len())));
    }

    /// Reads the modules of `tree`.
    pub fn find(tree: &'a [u8]) -> Result<Self, PayloadError> {
        let tree = Tree::new(tree)?;
        let mut reader = Reader::default();
        let mut depth = 0;
        let mut seen_chosen = false;
        let mut in_chosen = false;
        for token in tree.tokens() {
            let (_, token) = token?;
            match token {
                Token::Begin { name } => {
                    depth += 1;
                    if depth == 2 {
                        in_chosen = !seen_chosen && is_chosen(name);
                        seen_chosen |= in_chosen;
                    } else if depth == 3 && in_chosen {
                        reader.node = Node {
                            name,
                            ..Node::default()
                        };
                    }
                }
                Token::End => {
                    if depth == 3 && in_chosen {
                        reader.finish_node()?;
                    } else if depth == 2 && in_chosen {
                        in_chosen = false;
                    }
                    depth -= 1;
                }
                Token::Property { name, value } if in_chosen => match depth {
                    2 => reader.chosen_property(name, value),
                    3 => reader.node.property(name, value),
                    _ => {}
                },
                Token::Property { .. } => {}
            }
        }
        reader.finish()
    }
}

/// A node below `/chosen`.
#[derive(Clone, Copy, Debug, Default)]
struct Node<'a> {
    name: &'a [u8],
    compatible: &'a [u8],
    reg: Option<&'a [u8]>,
    bootargs: Option<&'a [u8]>,
}

impl<'a> Node<'a> {
    fn property(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"compatible" => self.compatible = value,
            b"reg" => self.reg = Some(value),
            b"bootargs" => self.bootargs = Some(line(value)),
            _ => {}
        }
    }

    fn is(&self, compatible: &[u8]) -> bool {
        self.compatible
            .split(|byte| *byte == 0)
            .any(|one| one == compatible)
    }
}

#[derive(Default)]
struct Reader<'a> {
    payload: Payload<'a>,
    address_cells: Option<u32>,
    size_cells: Option<u32>,
    initrd_start: Option<u64>,
    initrd_end: Option<u64>,
    root_tree: Option<&'a [u8]>,
    scratch: Option<&'a [u8]>,
    node: Node<'a>,
}

impl<'a> Reader<'a> {
    fn chosen_property(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"#address-cells" => self.address_cells = u32_at(value, 0),
            b"#size-cells" => self.size_cells = u32_at(value, 0),
            b"bootargs" => self.payload.bootargs = Some(line(value)),
            b"linux,initrd-start" => self.initrd_start = number(value),
            b"linux,initrd-end" => self.initrd_end = number(value),
            b"linux,booted-from-kexec" => self.payload.from_kexec = true,
            b"linux,kho-fdt" => self.root_tree = Some(value),
            b"linux,kho-scratch" => self.scratch = Some(value),
            _ => {}
        }
    }

    fn finish_node(&mut self) -> Result<(), PayloadError> {
        let node = self.node;
        let kernel = node.is(b"multiboot,kernel");
        if !kernel && !node.is(b"multiboot,ramdisk") {
            return Ok(());
        }
        let range = self.range(node.reg).ok_or_else(|| PayloadError::Reg {
            node: text(node.name),
        })?;
        let slot = if kernel {
            &mut self.payload.kernel
        } else {
            &mut self.payload.ramdisk
        };
        if slot.is_some() {
            return Err(PayloadError::Twice {
                node: text(node.name),
            });
        }
        *slot = Some(Module {
            range,
            bootargs: node.bootargs,
        });
        Ok(())
    }

    /// One address and one size, in the cells that `/chosen` gives or, as
    /// loaders leave those out, in what the length of the property implies.
    fn range(&self, reg: Option<&[u8]>) -> Option<MemoryRange> {
        let reg = reg?;
        let address_size = match (self.address_cells, self.size_cells, reg.len()) {
            (Some(address @ 1..=2), Some(size @ 1..=2), length)
                if length == (address + size) as usize * 4 =>
            {
                address as usize * 4
            }
            (_, _, 16 | 12) => 8,
            (_, _, 8) => 4,
            _ => return None,
        };
        let (address, size) = reg.split_at(address_size);
        range(number(address)?, number(size)?)
    }

    fn finish(mut self) -> Result<Payload<'a>, PayloadError> {
        // Modules are what the loader before that kernel loaded; their memory
        // is somebody else's by now.
        if self.payload.from_kexec {
            self.payload.kernel = None;
            self.payload.ramdisk = None;
        }
        if self.payload.ramdisk.is_none()
            && let (Some(start), Some(end)) = (self.initrd_start, self.initrd_end)
            && (start, end) != (0, 0)
        {
            let size = end.checked_sub(start);
            let range = size
                .and_then(|size| range(start, size))
                .ok_or(PayloadError::Initrd { start, end })?;
            self.payload.ramdisk = Some(Module {
                range,
                bootargs: None,
            });
        }
        let root_tree = self.range(self.root_tree);
        self.payload.handover = root_tree.zip(self.range(self.scratch));
        Ok(self.payload)
    }
}

/// A range that is not empty and does not wrap around.
fn range(start: u64, size: u64) -> Option<MemoryRange> {
    start.checked_add(size)?;
    (size != 0).then(|| MemoryRange::new(PhysAddr(start), size))
}

/// A number of one or two cells.
fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => u32_at(value, 0).map(u64::from),
        8 => Some(u64::from(u32_at(value, 0)?) << 32 | u64::from(u32_at(value, 4)?)),
        _ => None,
    }
}

/// Text up to its NUL.
fn line(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Why the payload cannot be told from a boot tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// The tree cannot be read.
    Tree(TreeError),
    /// A module has no usable address and size.
    Reg {
        /// The name of its node.
        node: String,
    },
    /// There is a second module of the same kind.
    Twice {
        /// The name of its node.
        node: String,
    },
    /// `/chosen` has an initrd that ends before it starts.
    Initrd {
        /// `linux,initrd-start`.
        start: u64,
        /// `linux,initrd-end`.
        end: u64,
    },
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::Reg { node } => write!(
                f,
                "the module /chosen/{node} has no 'reg' with one address and one size"
            ),
            Self::Twice { node } => {
                write!(f, "the module /chosen/{node} is the second one of its kind")
            }
            Self::Initrd { start, end } => write!(
                f,
                "the initrd from {start:#x} to {end:#x} in /chosen is not a range"
            ),
        }
    }
}

impl core::error::Error for PayloadError {}

impl From<TreeError> for PayloadError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}
