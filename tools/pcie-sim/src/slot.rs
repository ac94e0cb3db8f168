//! The slot below a port, whose commands take their time (PCIe 7.5.3.10).

use warmbus_pci::Width;

use crate::behaviour::Effect;
use crate::model::FunctionModel;
use crate::space::Written;

/// Offset of Slot Control in the PCI Express capability.
const CONTROL: u16 = 0x18;

/// A hot-plug controller that needs time for a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotCommands {
    time: u64,
    /// When the last command is completed, and what Slot Control holds then.
    pending: Option<(u64, u32)>,
}

impl FunctionModel {
    /// Lets a slot command take `time` nanoseconds. A command that is written
    /// while another is not completed is seen in Slot Control only once it is
    /// completed itself: until then the value is undefined (PCIe 7.5.3.10).
    pub fn slot_command_time(mut self, time: u64) -> Self {
        self.slot_commands = Some(SlotCommands {
            time,
            pending: None,
        });
        self
    }

    /// Slot Control of the capability at `express` was written.
    pub(crate) fn written_slot(
        &mut self,
        express: u16,
        written: &Written,
        now: u64,
        effects: &mut Vec<Effect>,
    ) {
        if written.lanes & 0xffff == 0 {
            return;
        }
        if let Some(commands) = &mut self.slot_commands {
            let is_busy = commands.pending.is_some();
            commands.pending = Some((now.saturating_add(commands.time), written.new & 0xffff));
            if is_busy {
                self.space.poke(express + CONTROL, Width::Word, written.old);
                return;
            }
        } else {
            self.slot_command_completed(express);
        }
        let capabilities = self.space.peek(express + 0x14, Width::Dword);
        if (written.old ^ written.new) & 0x400 != 0 && capabilities & 2 != 0 {
            self.link_switched(written.new & 0x400 == 0, now, effects);
        }
    }

    pub(crate) fn reset_slot(&mut self) {
        if let Some(commands) = &mut self.slot_commands {
            commands.pending = None;
        }
    }

    /// Completes the slot command that is due.
    pub(crate) fn settle_slot(&mut self, now: u64) {
        let Some(express) = self.express.map(|express| express.at) else {
            return;
        };
        let Some(commands) = &mut self.slot_commands else {
            return;
        };
        if let Some((_, value)) = commands.pending.take_if(|(at, _)| now >= *at) {
            self.space.poke(express + CONTROL, Width::Word, value);
            self.slot_command_completed(express);
        }
    }

    fn slot_command_completed(&mut self, express: u16) {
        // No Command Completed Support.
        if self.space.peek(express + 0x14, Width::Dword) & 1 << 18 == 0 {
            let status = self.space.peek(express + 0x1a, Width::Word);
            self.space.poke(express + 0x1a, Width::Word, status | 0x10);
        }
    }
}
