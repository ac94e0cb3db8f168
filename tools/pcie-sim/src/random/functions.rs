//! Random functions, and what can be wrong with them.

use warmbus_pci::{PortType, Width};

use super::Generator;
use crate::bar::{BarModel, BarSpace};
use crate::capability::{EaEntry, MsiModel};
use crate::devices;
use crate::express::{ExpressModel, SlotModel};
use crate::fault::{Fault, Quirk};
use crate::model::{BridgeWindows, FunctionModel};
use crate::sriov::SrIovModel;

impl Generator<'_> {
    pub(super) fn windows(&mut self) -> BridgeWindows {
        let kinds = self.source.byte();
        BridgeWindows {
            io_bits: [16, 0, 32, 16][usize::from(kinds % 4)],
            prefetchable_bits: [64, 0, 32, 64][usize::from(kinds / 4 % 4)],
        }
    }

    pub(super) fn port(&mut self, kind: PortType) -> FunctionModel {
        let shape = self.source.byte();
        let mut express = ExpressModel::new(kind);
        if shape & 1 != 0 {
            express = express.ari_forwarding();
        }
        if shape & 2 != 0 {
            express = express.active_reporting();
        }
        if shape & 4 != 0 {
            express = express.slot(SlotModel {
                number: shape.into(),
                hot_plug: shape & 8 != 0,
                power_controller: shape & 16 != 0,
            });
        }
        if shape & 0xe0 == 0x20 {
            express = express.without_rrs_visibility();
        }
        if shape & 0xe0 == 0x40 {
            express = express.version(1);
        }
        let windows = self.windows();
        let mut model = FunctionModel::bridge(0x1234, 0x000c, windows);
        if self.source.one_in(4) {
            model = model.bar(0, BarModel::memory32(0x1000));
        }
        model = model.power_management(true, 0).express(express);
        match self.source.byte() % 16 {
            13 => model,
            14 => model.link_up_at(u64::from(self.source.word()) << 14),
            15 => model.link_up().link_drops_at(self.source.word().into()),
            _ => model.link_up(),
        }
    }

    fn bar(&mut self) -> BarModel {
        let shape = self.source.byte();
        let space = match shape % 8 {
            0 | 1 => BarSpace::Memory32,
            2 => BarSpace::Io,
            3 => BarSpace::Io16,
            _ => BarSpace::Memory64,
        };
        // Mostly small, now and then too much for any window.
        let shift = if shape & 0xc0 == 0xc0 {
            shape & 0x3f
        } else {
            shape / 8 % 20
        };
        let bar = BarModel::new(space, 1 << shift);
        if shape & 0x20 != 0 {
            bar.prefetchable()
        } else {
            bar
        }
    }

    pub(super) fn endpoint(&mut self, kind: Option<PortType>) -> FunctionModel {
        let class_code = 0x01_0802;
        let mut model = match self.source.byte() % 16 {
            1 => return devices::virtio_network(),
            2 => return devices::old_network(),
            3 => return devices::conventional_network(),
            _ => FunctionModel::endpoint(0x1234, self.source.word(), class_code),
        };
        let present = self.source.byte();
        let mut index = 0;
        while index < 6 {
            let bar = self.bar();
            let wide = bar.space == BarSpace::Memory64;
            if present & 1 << index != 0 && !(wide && index == 5) {
                model = model.bar(index, bar);
                index += u8::from(wide);
            }
            index += 1;
        }
        if present & 0x40 != 0 {
            model = model.rom(0x1_0000);
        }
        let shape = self.source.word();
        if let Some(kind) = kind {
            let mut express = ExpressModel::new(kind);
            if shape & 1 != 0 {
                express = express.flr();
            }
            if shape & 2 != 0 {
                express = express.version(1);
            }
            model = model.express(express);
        }
        model = self.capabilities(model, shape);
        if kind.is_some() {
            model = self.extended(model, shape);
        }
        model
    }

    fn capabilities(&mut self, mut model: FunctionModel, shape: u16) -> FunctionModel {
        if shape & 4 != 0 {
            model = model.power_management(shape & 8 != 0, 0);
        }
        if shape & 0x10 != 0 {
            let kind = self.source.byte();
            model = model.msi(MsiModel {
                vectors_log2: kind % 6,
                address64: kind & 0x20 != 0,
                masking: kind & 0x40 != 0,
                extended_data: kind & 0x80 != 0,
            });
        }
        if shape & 0x20 != 0 {
            model = model.msix(self.source.word(), 0, 0x800);
        }
        if shape & 0x40 != 0 && self.source.one_in(4) {
            let [base, size] = [self.source.dword(), self.source.dword()].map(u64::from);
            let bei = self.source.byte();
            let wide = u64::from(bei >> 7) << 36;
            let entry = EaEntry {
                bei: bei & 0xf,
                properties: self.source.byte(),
                base: base | wide,
                size,
            };
            model = model.enhanced_allocation(&[entry], (0, 0));
        }
        if shape & 0x80 != 0 && model.has_room(0x10) {
            let body = [self.source.byte(), self.source.byte()];
            model = model.vendor_specific(&body);
        }
        model
    }

    fn extended(&mut self, mut model: FunctionModel, shape: u16) -> FunctionModel {
        if shape & 0x100 != 0 {
            model = model.advanced_errors();
        }
        if shape & 0x200 != 0 {
            model = model.serial_number(u64::from(self.source.dword()));
        }
        if shape & 0x400 != 0 && self.source.one_in(2) {
            let (total_vfs, kind) = (self.source.word(), self.source.byte());
            let mut vf_bars = [None; 6];
            vf_bars[0] = Some(self.bar());
            let model_of_vfs = SrIovModel {
                total_vfs: if kind & 1 == 0 {
                    total_vfs % 16
                } else {
                    total_vfs
                },
                layout: match kind / 2 % 4 {
                    0 => |_, _| (1, 1),
                    1 => |_, ari| if ari { (1, 1) } else { (0x100, 1) },
                    2 => |num_vfs, _| (num_vfs, num_vfs),
                    _ => |_, _| (0xffff, 0),
                },
                page_sizes: if kind & 8 == 0 {
                    0x553
                } else {
                    self.source.dword()
                },
                vf_bars,
                ..SrIovModel::default()
            };
            let template = FunctionModel::virtual_function(0x01_0802);
            model = model.sriov(model_of_vfs, template);
        }
        if shape & 0x800 != 0 {
            model = model.latency_tolerance();
        }
        if shape & 0x1000 != 0 {
            model = model.virtual_channels(self.source.byte());
        }
        if shape & 0x2000 != 0 {
            let (bar, size) = (self.source.byte() % 6, self.source.byte() % 28);
            model = model.resizable(&[(bar, self.source.dword(), size)]);
        }
        if shape & 0x4000 != 0 {
            let length = u16::from(self.source.byte());
            model = model.unknown_extended(self.source.word(), length);
        }
        if shape & 0x8000 != 0 {
            model = model.designated(0x1e98, self.source.byte().into(), 1, 0x20);
        }
        model
    }

    /// Breaks one thing.
    pub(super) fn spoil(&mut self, model: FunctionModel) -> FunctionModel {
        let kind = self.source.byte();
        let at = self.source.word();
        let low = at % 0x100;
        let range = (at % 0x1000, (at % 0x1000).saturating_add(kind.into()));
        match kind % 20 {
            0 => model.set(low, Width::Byte, self.source.byte().into()),
            1 => model.set(low & !3, Width::Dword, self.source.dword()),
            2 => model.writable(low & !3, Width::Dword, self.source.dword()),
            3 => model.set(0x100, Width::Dword, self.source.dword()),
            4 => model.set((at % 0x1000) & !3, Width::Dword, self.source.dword()),
            // Lists that go in circles, out of bounds, or to odd places.
            5 => model.link_capability(0x40, self.source.byte()),
            6 => model.set(0x34, Width::Byte, self.source.byte().into()),
            7 => model.link_extended(0x100, at % 0x1000),
            8 => model.set(0x0e, Width::Byte, self.source.byte().into()),
            9 => model.set(0x0e, Width::Byte, 0x7f),
            // Bus numbers that do not stick, or only in part.
            10 => model.hardwired(0x18, Width::Dword, 0),
            11 => model.hardwired(0x18, Width::Dword, self.source.dword()),
            12 => model.writable(0x18, Width::Dword, self.source.dword()),
            13 => model.fault(Fault::Vanishes {
                accesses: (low % 64).into(),
            }),
            14 => model.fault(Fault::Hole {
                from: range.0,
                to: range.1,
            }),
            15 => model.fault(Fault::Aborts {
                from: range.0,
                to: range.1,
            }),
            16 => model.fault(Fault::Noise {
                from: range.0,
                to: range.1,
                seed: at.into(),
            }),
            17 => model.ready_at(u64::MAX),
            18 => model.quirk(match at % 4 {
                0 => Quirk::EveryDevice,
                1 => Quirk::EveryFunction,
                2 => Quirk::ForwardsEveryDevice,
                _ => Quirk::RepeatsLowSpace,
            }),
            _ => model.hardwired(0x10 + low % 6 * 4, Width::Dword, self.source.dword()),
        }
    }
}
