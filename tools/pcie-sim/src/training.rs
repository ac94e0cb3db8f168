//! Registers that take their values when the link trains.

use warmbus_pci::Width;

use crate::fabric::{Fabric, NodeId};
use crate::model::FunctionModel;

/// Lane Equalization Control registers, one word a lane (PCIe 7.7.3.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    /// The first of them.
    at: u16,
    count: u16,
    /// Trainings so far.
    trainings: u16,
}

impl FunctionModel {
    /// Adds Secondary PCI Express with `lanes` lanes. Behind a link, each
    /// training captures other Upstream Port Transmitter Presets.
    pub fn secondary_pcie(mut self, lanes: u16) -> Self {
        let at = self.reserve_extended(0x19, 1, 0xc + 2 * lanes);
        // Link Equalization Request Interrupt Enable and Perform Equalization.
        self.space.writable(at + 4, Width::Dword, 3);
        self.space.clearable(at + 8, Width::Dword, (1 << lanes) - 1);
        self.lanes = Some(Lanes {
            at: at + 0xc,
            count: lanes,
            trainings: 0,
        });
        self.train();
        self
    }

    /// The link above trained: presets are captured.
    pub(crate) fn train(&mut self) {
        let Some(lanes) = &mut self.lanes else { return };
        lanes.trainings += 1;
        let lanes = *lanes;
        for lane in 0..lanes.count {
            // Ten presets are defined (PCIe 4.2.4.2).
            let preset = u32::from((lanes.trainings + lane) % 10);
            let at = lanes.at + 2 * lane;
            self.space.poke(at, Width::Word, 0x7007 | preset << 8);
        }
    }
}

impl Fabric {
    /// The link below `port` trains again without going down.
    pub(crate) fn retrain(&mut self, port: NodeId) {
        for child in self.nodes[port.0].children.clone() {
            self.nodes[child.0].model.train();
        }
    }
}
