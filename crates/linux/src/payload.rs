//! The kernel, the initrd and the command line that a boot tree names.
//!
//! Loaders describe the files that they loaded by nodes below `/chosen` which
//! are compatible with `multiboot,kernel` and `multiboot,ramdisk` (the
//! "Multiboot on Arm" binding). QEMU's `guest-loader` adds such nodes, and
//! U-Boot scripts can.

use alloc::string::String;
use core::ops::{ControlFlow, Range};

use super::combined_initrd::KernelInInitrd;
use warmbus_fdt::{Cells, DeviceTree, FdtError, FdtNode, is_chosen};
use warmbus_memory::{MemoryRange, PhysAddr};

/// A file that a loader has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Where it is.
    pub range: MemoryRange,
    /// Its command line, without the NUL.
    pub bootargs: Option<&'a [u8]>,
}

/// What a boot tree names to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The kernel.
    pub kernel: Option<Module<'a>>,
    /// The initrd: a module, or else the range in `/chosen` itself.
    pub ramdisk: Option<Module<'a>>,
    /// The command line of `/chosen` itself, without the NUL.
    pub bootargs: Option<&'a [u8]>,
    /// The file that both kernel and initrd are in, if they are in one.
    pub combined_initrd: Option<MemoryRange>,
    /// A running kernel has started this program by `kexec` (`linux,booted-from-kexec`).
    pub from_kexec: bool,
    /// The memory map of UEFI is named (`linux,uefi-mmap-start`), so that memory is what
    /// that says.
    pub has_uefi: bool,
    /// The handover of the previous kernel: the root tree and the array of
    /// scratch areas (`linux,kho-fdt`, `linux,kho-scratch`).
    pub handover: Option<(MemoryRange, MemoryRange)>,
}

impl<'a> Payload<'a> {
    /// Splits the initrd where there is no kernel and `file`, the bytes of the
    /// initrd, has one in front ([`KernelInInitrd`]). The initrd is then the
    /// rest of the file, or the whole file where there is no rest.
    pub fn split(&mut self, file: &[u8]) {
        let (Some(ramdisk), None) = (self.ramdisk, self.kernel) else {
            return;
        };
        let Some(parts) = KernelInInitrd::split(file) else {
            return;
        };
        let module = |part: Range<usize>| Module {
            range: MemoryRange::new(
                PhysAddr(ramdisk.range.start.0 + part.start as u64),
                part.len() as u64,
            ),
            bootargs: None,
        };
        self.combined_initrd = Some(ramdisk.range);
        self.kernel = Some(module(parts.kernel));
        self.ramdisk = Some(module(parts.initrd.unwrap_or(0..file.len())));
    }

    /// The command line that `kernel` gets: its own, or else that of `/chosen`;
    /// `None` where there is none, or it is no text.
    #[must_use]
    pub fn command_line(&self, kernel: Option<Module<'a>>) -> Option<&'a str> {
        let own = kernel.and_then(|kernel| kernel.bootargs);
        core::str::from_utf8(own.or(self.bootargs)?).ok()
    }

    /// Reads `/chosen` of `tree` and the modules below it.
    pub fn find(tree: &'a [u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader::default();
        let mut seen_chosen = false;
        let mut modules = Ok(());
        DeviceTree::new(tree)?.walk_root_children(&mut |node| {
            if node
                .parent()
                .is_some_and(|parent| parent.parent().is_some())
            {
                if modules.is_ok() {
                    modules = reader.module(node)?;
                }
                return Ok(ControlFlow::Break(()));
            }
            if seen_chosen || !is_chosen(node.name()?.as_bytes()) {
                return Ok(ControlFlow::Break(()));
            }
            seen_chosen = true;
            reader.chosen(node)?;
            Ok(ControlFlow::Continue(()))
        })?;
        modules?;
        reader.finish()
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
}

impl<'a> Reader<'a> {
    /// Reads the properties of `/chosen`.
    fn chosen(&mut self, node: &FdtNode<'_, 'a>) -> Result<(), FdtError> {
        self.address_cells = node.cell("#address-cells")?;
        self.size_cells = node.cell("#size-cells")?;
        self.payload.bootargs = node.property("bootargs")?.map(line);
        self.initrd_start = node.property("linux,initrd-start")?.and_then(number);
        self.initrd_end = node.property("linux,initrd-end")?.and_then(number);
        self.payload.from_kexec = node.property("linux,booted-from-kexec")?.is_some();
        self.payload.has_uefi = node.property("linux,uefi-mmap-start")?.is_some();
        self.root_tree = node.property("linux,kho-fdt")?;
        self.scratch = node.property("linux,kho-scratch")?;
        Ok(())
    }

    /// Reads a node below `/chosen`, which may be a module.
    fn module(&mut self, node: &FdtNode<'_, 'a>) -> Result<Result<(), PayloadError>, FdtError> {
        let is_kernel = node.is_compatible("multiboot,kernel")?;
        if !is_kernel && !node.is_compatible("multiboot,ramdisk")? {
            return Ok(Ok(()));
        }
        let Some(range) = self.range(node.property("reg")?) else {
            return Ok(Err(PayloadError::Reg { node: node.name()? }));
        };
        let slot = if is_kernel {
            &mut self.payload.kernel
        } else {
            &mut self.payload.ramdisk
        };
        if slot.is_some() {
            return Ok(Err(PayloadError::Twice { node: node.name()? }));
        }
        *slot = Some(Module {
            range,
            bootargs: node.property("bootargs")?.map(line),
        });
        Ok(Ok(()))
    }

    /// One address and one size, in the cells that `/chosen` names or, where it
    /// names none, in those that the length of the property implies.
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
        // The modules were loaded for the previous kernel, which has reused
        // their memory.
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
    matches!(value.len(), 4 | 8).then(|| Cells::new(value).number(value.len() / 4))?
}

/// Text up to its NUL.
fn line(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Why the payload of a boot tree cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The tree cannot be read.
    #[error(transparent)]
    Tree(#[from] FdtError),
    /// A module has no usable address and size.
    #[error("the module /chosen/{node} has no 'reg' with one address and one size")]
    Reg {
        /// The name of its node.
        node: String,
    },
    /// There is a second module of the same kind.
    #[error("the module /chosen/{node} is the second one of its kind")]
    Twice {
        /// The name of its node.
        node: String,
    },
    /// `/chosen` has an initrd that ends before it starts.
    #[error("the initrd from {start:#x} to {end:#x} in /chosen is not a range")]
    Initrd {
        /// `linux,initrd-start`.
        start: u64,
        /// `linux,initrd-end`.
        end: u64,
    },
}
