//! Flattening Portal Bridge: routing IDs are decoded by a vector
//! (PCIe 6.26 and 7.8.11). Only the decoding of routing IDs is there.

use warmbus_pci::Width;

use crate::model::FunctionModel;
use crate::space::Written;

/// Bits of the RID vector.
const BITS: u16 = 256;

/// A Flattening Portal Bridge capability.
#[derive(Clone, Debug)]
pub(crate) struct Portal {
    at: u16,
    /// The RID vector, by dword.
    vector: [u32; BITS as usize / 32],
}

impl FunctionModel {
    /// Adds a Flattening Portal Bridge capability that decodes routing IDs.
    /// Its last dword is the vector element that the one before selects, so
    /// that it must not be read.
    pub fn flattening_portal(mut self) -> Self {
        let at = self.reserve(0x15, 0x24);
        // RID Decode Mechanism Supported; a vector of 256 bits.
        self.space.set(at + 4, Width::Dword, 1);
        // Enable, granularity, start; secondary start; element and vector.
        self.space.writable(at + 8, Width::Dword, 0xfff8_00f1);
        self.space.writable(at + 0xc, Width::Dword, 0xfff8);
        self.space.writable(at + 0x1c, Width::Dword, 0xc0ff);
        self.space.writable(at + 0x20, Width::Dword, u32::MAX);
        self.space.forbid(at + 0x20, 4);
        self.space.live(at + 0x1c);
        self.space.live(at + 0x20);
        self.portal = Some(Box::new(Portal {
            at,
            vector: [0; BITS as usize / 32],
        }));
        self
    }

    pub(crate) fn reset_portal(&mut self) {
        if let Some(portal) = &mut self.portal {
            portal.vector = [0; BITS as usize / 32];
        }
    }

    pub(crate) fn written_portal(&mut self, offset: u16, written: &Written) {
        let Some(portal) = &mut self.portal else {
            return;
        };
        let control = self.space.peek(portal.at + 0x1c, Width::Dword);
        // Vector 0 is that of routing IDs.
        let element = (control & 0xff) as usize;
        let Some(element) = portal
            .vector
            .get_mut(element)
            .filter(|_| control >> 14 == 0)
        else {
            return;
        };
        if offset == portal.at + 0x1c {
            self.space.poke(portal.at + 0x20, Width::Dword, *element);
        } else if offset == portal.at + 0x20 {
            *element = written.new;
        }
    }

    /// Where routing IDs are decoded by the vector: its first control register.
    fn portal_control(&self) -> Option<(&Portal, u32)> {
        let portal = self.portal.as_deref()?;
        let control = self.space.peek(portal.at + 8, Width::Dword);
        (control & 1 != 0).then_some((portal, control))
    }

    /// Whether the vector sends requests for `routing_id` down.
    pub(crate) fn portal_forwards(&self, routing_id: u16) -> bool {
        let Some((portal, control)) = self.portal_control() else {
            return false;
        };
        // Granularity 0 is 8 routing IDs a bit, 5 is 256.
        let shift = 3 + (control >> 4 & 0xf);
        let first = control >> 16 & 0xfff8;
        u32::from(routing_id)
            .checked_sub(first)
            .map(|distance| (distance >> shift) as usize)
            .and_then(|bit| Some(portal.vector.get(bit / 32)? >> (bit % 32) & 1 != 0))
            .unwrap_or(false)
    }

    /// The bus below the bridge: by RID Secondary Start where the vector
    /// decodes, and else the Secondary Bus Number.
    pub(crate) fn bus_below(&self) -> u8 {
        match self.portal_control() {
            Some((portal, _)) => self.space.peek(portal.at + 0xd, Width::Byte) as u8,
            None => self.bus_numbers()[1],
        }
    }
}
