//! Single root I/O virtualization (PCIe 9.3.3).

use std::collections::BTreeMap;

use warmbus_pci::{PortType, Width};

use crate::bar::{BarModel, BarSpace};
use crate::behaviour::Effect;
use crate::clock::MILLISECOND;
use crate::express::ExpressModel;
use crate::fabric::{Fabric, NodeId};
use crate::model::FunctionModel;
use crate::space::{Space, Written};

/// Time from VF Enable until a VF may be accessed (PCIe 9.3.3.3.1).
pub const VF_ENABLE_TIME: u64 = 100 * MILLISECOND;

/// First VF Offset and VF Stride for a value of `NumVFs` and of ARI Capable
/// Hierarchy, on which both may depend (PCIe 9.3.3.9).
pub type VfLayout = fn(num_vfs: u16, ari: bool) -> (u16, u16);

/// An SR-IOV capability.
#[derive(Clone, Debug)]
pub struct SrIovModel {
    /// `TotalVFs` and `InitialVFs`.
    pub total_vfs: u16,
    /// Where the VFs are.
    pub layout: VfLayout,
    /// VF Device ID.
    pub vf_device: u16,
    /// Supported Page Sizes: bit n is 4 KiB times 2^n.
    pub page_sizes: u32,
    /// VF BARs: the size is that of one VF.
    pub vf_bars: [Option<BarModel>; 6],
    /// Whether this is the lowest-numbered physical function of the device,
    /// the one with a writable ARI Capable Hierarchy bit.
    pub lowest: bool,
    /// Whether VF Enable takes NumVFs with it when it is cleared.
    pub clears_num_vfs: bool,
    /// Whether ARI Forwarding Enable of the port above counts as ARI Capable
    /// Hierarchy does: port and device are of one piece.
    pub follows_forwarding: bool,
}

impl Default for SrIovModel {
    fn default() -> Self {
        Self {
            total_vfs: 8,
            layout: |_, _| (1, 1),
            vf_device: 0x0010,
            page_sizes: 0x553,
            vf_bars: [None; 6],
            lowest: true,
            clears_num_vfs: false,
            follows_forwarding: false,
        }
    }
}

/// The running side of an SR-IOV capability.
#[derive(Clone, Debug)]
pub(crate) struct SrIov {
    pub(crate) at: u16,
    model: SrIovModel,
    template: FunctionModel,
    pub(crate) ari: bool,
    pub(crate) forwarding: bool,
    pub(crate) enabled_at: Option<u64>,
    pub(crate) vfs: BTreeMap<u16, FunctionModel>,
}

impl Space {
    /// Gives the BAR at `at` the mask for `size` bytes, and lets the address
    /// bits that it no longer has fall to 0.
    pub(crate) fn shape_bar(&mut self, at: u16, bar: BarModel, size: u64) {
        let (flags, mask) = bar.registers(size);
        let mut halves = vec![(at, mask as u32, flags)];
        if bar.space == BarSpace::Memory64 {
            halves.push((at + 4, (mask >> 32) as u32, 0));
        }
        for (at, mask, flags) in halves {
            self.writable(at, Width::Dword, mask);
            let value = self.peek(at, Width::Dword);
            self.poke(at, Width::Dword, value & mask | flags);
        }
    }
}

/// Bytes of the page that System Page Size selects; the smallest where it
/// selects none.
fn page_size(pages: u32) -> u64 {
    let shift = if pages == 0 {
        0
    } else {
        pages.trailing_zeros()
    };
    4096 << shift
}

impl FunctionModel {
    /// A virtual function (PCIe 9.3.4): all ones for IDs, no BARs, only Bus
    /// Master in COMMAND, a PCI Express capability, MSI-X and ARI.
    pub fn virtual_function(class_code: u32) -> Self {
        let mut model = Self::endpoint(0xffff, 0xffff, class_code)
            .writable(0x0c, Width::Byte, 0)
            .writable(0x3c, Width::Byte, 0)
            .express(ExpressModel::new(PortType::Endpoint).flr())
            .msix(4, 0, 0x800)
            .ari(0);
        let at = model.express.map_or(0x40, |e| e.at);
        model = model
            .writable(at + 8, Width::Word, 0)
            .hardwired(at + 0x10, Width::Dword, 0)
            .writable(at + 0x28, Width::Word, 0)
            .hardwired(at + 0x30, Width::Dword, 0)
            .set(at + 8, Width::Word, 0);
        model.space.writable(4, Width::Word, 0x0004);
        model
    }

    /// Adds SR-IOV. The virtual functions are made after `template`; the time
    /// until it is ready counts from when VFs may first be accessed.
    pub fn sriov(mut self, model: SrIovModel, template: FunctionModel) -> Self {
        let at = self.reserve_extended(0x10, 1, 0x40);
        let space = &mut self.space;
        // ARI Capable Hierarchy Preserved.
        space.set(at + 4, Width::Dword, 2);
        space.writable(at + 8, Width::Word, if model.lowest { 0x19 } else { 0x09 });
        let total = u32::from(model.total_vfs);
        space.set(at + 0xc, Width::Dword, total << 16 | total);
        space.writable(at + 0x10, Width::Word, 0xffff);
        space.set(at + 0x1a, Width::Word, model.vf_device.into());
        space.set(at + 0x1c, Width::Dword, model.page_sizes);
        space.set(at + 0x20, Width::Dword, 1);
        space.writable(at + 0x20, Width::Dword, model.page_sizes);
        for (offset, bar) in (at + 0x24..).step_by(4).zip(model.vf_bars) {
            if let Some(bar) = bar {
                let (flags, _) = bar.registers(bar.decoded_size());
                space.set(offset, Width::Dword, flags);
            }
        }
        for offset in [8, 0x10, 0x20] {
            space.live(at + offset);
        }
        self.sriov = Some(Box::new(SrIov {
            at,
            model,
            template,
            ari: false,
            forwarding: false,
            enabled_at: None,
            vfs: BTreeMap::new(),
        }));
        self.lay_out_vfs();
        self.shape_vf_bars();
        self.update_messages();
        self
    }

    /// First VF Offset and VF Stride for what is set now.
    pub(crate) fn lay_out_vfs(&mut self) {
        let Some(sriov) = &self.sriov else { return };
        let num_vfs = self.space.peek(sriov.at + 0x10, Width::Word) as u16;
        let (offset, stride) = (sriov.model.layout)(num_vfs, sriov.ari || sriov.forwarding);
        let value = u32::from(stride) << 16 | u32::from(offset);
        self.space.poke(sriov.at + 0x14, Width::Dword, value);
    }

    /// VF BARs decode at least one system page (PCIe 9.3.3.13).
    fn shape_vf_bars(&mut self) {
        let Some(sriov) = &self.sriov else { return };
        let pages = self.space.peek(sriov.at + 0x20, Width::Dword);
        let page = page_size(pages);
        for (offset, bar) in (sriov.at + 0x24..).step_by(4).zip(sriov.model.vf_bars) {
            if let Some(bar) = bar {
                let size = bar.decoded_size().max(page);
                self.space.shape_bar(offset, bar, size);
            }
        }
    }

    /// TotalVFs; 0 without the capability.
    pub(crate) fn total_vfs(&self) -> u64 {
        self.sriov
            .as_ref()
            .map_or(0, |sriov| sriov.model.total_vfs.into())
    }

    /// The VF BARs: number, register, what it asks for, and the bytes that all
    /// VFs together take.
    pub(crate) fn vf_bars(&self) -> Vec<(u8, u16, BarModel, u64)> {
        let Some(sriov) = &self.sriov else {
            return Vec::new();
        };
        let pages = self.space.peek(sriov.at + 0x20, Width::Dword);
        let page = page_size(pages);
        let count = u64::from(sriov.model.total_vfs);
        let each = (0..)
            .zip((sriov.at + 0x24..).step_by(4))
            .zip(sriov.model.vf_bars);
        each.filter_map(|((number, at), bar)| {
            let bar = bar?;
            let size = bar.decoded_size().max(page).saturating_mul(count);
            Some((number, at, bar, size))
        })
        .collect()
    }

    pub(crate) fn reset_sriov(&mut self) {
        if let Some(sriov) = &mut self.sriov {
            sriov.vfs.clear();
            sriov.enabled_at = None;
            sriov.ari = false;
            self.lay_out_vfs();
            self.shape_vf_bars();
        }
    }

    pub(crate) fn written_sriov(
        &mut self,
        offset: u16,
        written: &Written,
        now: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(sriov) = &mut self.sriov else { return };
        if offset == sriov.at + 8 {
            let changed = written.old ^ written.new;
            if changed & 1 != 0 {
                sriov.vfs.clear();
                sriov.enabled_at = (written.new & 1 != 0).then_some(now);
                if written.new & 1 == 0 && sriov.model.clears_num_vfs {
                    let at = sriov.at;
                    self.space.poke(at + 0x10, Width::Word, 0);
                    self.lay_out_vfs();
                }
            }
            if changed & 0x10 != 0 {
                effects.push(Effect::AriHierarchy(written.new & 0x10 != 0));
            }
        } else if offset == sriov.at + 0x10 && written.lanes & 0xffff != 0 {
            if sriov.enabled_at.is_some() {
                let at = sriov.at;
                self.space.poke(at + 0x10, Width::Word, written.old);
                effects.push(Effect::NumVfsWhileEnabled);
            } else {
                self.lay_out_vfs();
            }
        } else if offset == sriov.at + 0x20 {
            self.shape_vf_bars();
        }
    }

    /// The number (from 0) of the enabled VF with this routing ID, if it is
    /// one of this physical function.
    pub(crate) fn vf_at(&self, routing_id: u16, devfn: u8) -> Option<u16> {
        let sriov = self.sriov.as_ref()?;
        sriov.enabled_at?;
        let word = |offset| self.space.peek(sriov.at + offset, Width::Word);
        let own = u32::from(self.captured_bus) << 8 | u32::from(devfn);
        let first = own + word(0x14);
        let distance = u32::from(routing_id).checked_sub(first)?;
        let stride = word(0x16);
        let number = match stride {
            0 if distance == 0 => 0,
            0 => return None,
            _ if distance % stride == 0 => distance / stride,
            _ => return None,
        };
        let count = word(0x10).min(u32::from(sriov.model.total_vfs));
        (number < count).then_some(number as u16)
    }

    /// Whether VF Enable was set so shortly before `now` that VFs must not be
    /// accessed.
    pub(crate) fn enables_vfs(&self, now: u64) -> bool {
        let enabled_at = self.sriov.as_ref().and_then(|sriov| sriov.enabled_at);
        enabled_at.is_some_and(|at| now < at.saturating_add(VF_ENABLE_TIME))
    }

    /// The VF `number`, which comes into being with its first access.
    pub(crate) fn vf(&mut self, number: u16) -> Option<&mut FunctionModel> {
        let sriov = self.sriov.as_mut()?;
        let ready = sriov.enabled_at?.saturating_add(VF_ENABLE_TIME);
        let template = &sriov.template;
        Some(sriov.vfs.entry(number).or_insert_with(|| {
            let mut vf = template.clone();
            vf.ready_at = ready.saturating_add(template.ready_at);
            vf
        }))
    }
}

impl Fabric {
    /// ARI Forwarding Enable of `port` changed: devices of one piece with it
    /// lay out their VFs anew.
    pub(crate) fn forward_ari(&mut self, port: NodeId, on: bool) {
        for child in self.nodes[port.0].children.clone() {
            let model = &mut self.nodes[child.0].model;
            if let Some(sriov) = &mut model.sriov
                && sriov.model.follows_forwarding
            {
                sriov.forwarding = on;
                model.lay_out_vfs();
            }
        }
    }
}
