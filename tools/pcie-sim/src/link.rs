//! The link below a downstream port.

use crate::model::FunctionModel;

/// State of a link and of the slot around it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Something is plugged in.
    pub(crate) present: bool,
    /// The link is down before this time.
    pub(crate) up_from: u64,
    /// The link goes down at this time, permanently.
    pub(crate) drops_at: u64,
    /// Link Training reads 1 before this time.
    pub(crate) training_until: u64,
    /// Nanoseconds that training takes.
    pub(crate) training_time: u64,
    /// Whether software has been notified of it.
    pub(crate) drop_seen: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            present: false,
            up_from: 0,
            drops_at: u64::MAX,
            training_until: 0,
            training_time: 10_000_000,
            drop_seen: false,
        }
    }
}

impl Link {
    /// Whether both ends are there and trained at `now`; what the registers
    /// of the port say to it comes on top.
    pub(crate) fn is_trained(&self, now: u64) -> bool {
        self.present && now >= self.up_from && now < self.drops_at
    }

    /// The link starts training at `now`.
    pub(crate) fn train(&mut self, now: u64) {
        self.up_from = now.saturating_add(self.training_time);
        self.training_until = self.up_from;
    }
}

impl FunctionModel {
    /// Plugs something in below this port that starts its link by itself: it
    /// is up at `time`, and Link Training does not show before.
    pub fn link_starts_late(mut self, time: u64) -> Self {
        self.link.present = true;
        self.link.up_from = time;
        self
    }
}
