//! A simulated machine, booted, in every form that the command reads.

use std::fmt::Write as _;

use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_boot::report::{self, Report, ReportInput};
use warmbus_kho::KhoAbi;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::TestMemory;
use warmbus_pci::{ConfigAccess, ConfigOffset, PhysAddr, Sbdf, Width};
use warmbus_pcie_sim::Fabric;
use warmbus_pcsc_format::{
    CapabilityRecord, FunctionRecord, Handover, Layout, MaskRecord, Placement, build,
};

/// Where the handover lies.
pub(crate) const ARENA: u64 = 0x7e00_0000;

pub(crate) struct Machine {
    pub(crate) captured: Captured<Fabric>,
}

impl Machine {
    pub(crate) fn boot(fabric: Fabric) -> Self {
        let mut clock = fabric.clock();
        let hosts = fabric.host_bridges();
        let captured = Pipeline::default().run(&hosts, fabric, &mut clock, &mut ());
        Self { captured }
    }

    /// The report as the firmware writes it.
    pub(crate) fn report(&self) -> String {
        let cached = |sbdf| report::cached_bytes(&self.captured.config, sbdf);
        let report = Report::new(ReportInput::new(&self.captured), &cached);
        let mut text = String::new();
        report::json::write(&report, &mut text).expect("a string takes it");
        text
    }

    /// The dump as the firmware writes it.
    pub(crate) fn dump(&self) -> String {
        let mut text = String::new();
        let cached = |sbdf| report::cached_bytes(&self.captured.config, sbdf);
        report::lspci::write(&self.captured.topology, &cached, &mut text)
            .expect("a string takes it");
        text
    }

    /// Every byte as the fabric itself returns it, in the form of `lspci`.
    pub(crate) fn truth(&mut self) -> String {
        let mut text = String::new();
        for function in self.captured.topology.functions() {
            let sbdf = function.sbdf;
            write!(text, "{sbdf} Truth").expect("a string takes it");
            let size = self
                .captured
                .config
                .block(sbdf)
                .expect("it is known")
                .size();
            for at in 0..size {
                if at % 16 == 0 {
                    write!(text, "\n{at:02x}:").expect("a string takes it");
                }
                let offset = ConfigOffset::wrapping(at);
                let byte = self
                    .captured
                    .config
                    .access_mut()
                    .read(sbdf, offset, Width::Byte);
                write!(text, " {byte:02x}").expect("a string takes it");
            }
            text += "\n\n";
        }
        text
    }

    /// Memory with the handover, as firmware would leave it.
    pub(crate) fn memory(&self, abi: KhoAbi) -> (TestMemory, Handover) {
        let parts: Vec<(Sbdf, Vec<MaskRecord>, Vec<CapabilityRecord>)> = self
            .captured
            .config
            .blocks()
            .map(|(sbdf, block)| {
                let masks = block.write_masks().iter().map(|mask| MaskRecord {
                    offset: mask.offset,
                    writable: mask.writable,
                    fixed: mask.fixed,
                    value: None,
                });
                let standard = block.capabilities().iter().map(|found| CapabilityRecord {
                    id: found.id.into(),
                    offset: found.offset.into(),
                    version: 0,
                });
                let extended = block.extended_capabilities().iter();
                let extended = extended.map(|found| CapabilityRecord {
                    id: found.id,
                    offset: found.offset,
                    version: found.version,
                });
                (sbdf, masks.collect(), standard.chain(extended).collect())
            })
            .collect();
        let inputs: Vec<FunctionRecord<'_>> = parts
            .iter()
            .map(|(sbdf, masks, capabilities)| {
                let block = self.captured.config.block(*sbdf).expect("it is known");
                FunctionRecord {
                    sbdf: *sbdf,
                    config_address: self.captured.topology.config_address(*sbdf),
                    size: block.size(),
                    data: block.data(),
                    cacheable: block.cacheable_bitmap(),
                    cached: block.cached_bitmap(),
                    masks,
                    capabilities,
                    capabilities_complete: true,
                    routing: &[],
                    virtual_function: None,
                }
            })
            .collect();
        let layout = Layout::new(inputs.len(), abi, PageSize::K4).expect("it fits");
        let mut memory = TestMemory::new(PhysAddr(ARENA), layout.size() as usize);
        let placement = Placement {
            arena: PhysAddr(ARENA),
            scratch: &[MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000)],
            generation: 0x1234_5678_9abc_def0,
        };
        let handover = build(&layout, &placement, &inputs, &mut memory).expect("it fits");
        (memory, handover)
    }
}

/// An ELF core file with `bytes` at the physical address `address`.
pub(crate) fn core_file(address: u64, bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 120];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &4_u16.to_le_bytes()); // ET_CORE
    put(18, &183_u16.to_le_bytes()); // EM_AARCH64
    put(20, &1_u32.to_le_bytes());
    put(32, &64_u64.to_le_bytes()); // program headers
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &1_u32.to_le_bytes()); // PT_LOAD
    put(72, &120_u64.to_le_bytes());
    put(88, &address.to_le_bytes());
    put(96, &(bytes.len() as u64).to_le_bytes());
    put(104, &(bytes.len() as u64).to_le_bytes());
    file.extend_from_slice(bytes);
    file
}
