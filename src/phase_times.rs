//! What each part of the boot takes.

use alloc::vec::Vec;

use crate::arch::timer::Timer;

/// One part of the boot, in timer ticks.
#[derive(Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) ticks: u64,
    /// Ticks of it that configuration accesses took.
    pub(crate) config_ticks: u64,
}

/// The parts of the boot so far.
pub(crate) struct Phases {
    timer: Timer,
    pub(crate) done: Vec<Phase>,
}

impl Phases {
    pub(crate) fn new(timer: Timer) -> Self {
        Self {
            timer,
            done: Vec::new(),
        }
    }

    /// Runs a part that makes no configuration accesses.
    pub(crate) fn run<T>(&mut self, name: &'static str, phase: impl FnOnce() -> T) -> T {
        let mut nothing = ();
        self.run_with(name, &mut nothing, |()| 0, |()| phase())
    }

    /// Runs a part that works on `state`; `config_ticks` tells how many ticks
    /// its configuration accesses have taken so far.
    pub(crate) fn run_with<S, T>(
        &mut self,
        name: &'static str,
        state: &mut S,
        config_ticks: impl Fn(&S) -> u64,
        phase: impl FnOnce(&mut S) -> T,
    ) -> T {
        let (start, before) = (self.timer.ticks(), config_ticks(state));
        let result = phase(state);
        self.done.push(Phase {
            name,
            ticks: self.timer.ticks() - start,
            config_ticks: config_ticks(state) - before,
        });
        result
    }
}
