//! What is decided as soon as it is known what is to be started.

use warmbus_linux::payload::Payload;

use crate::options::Options;

/// Whether bus numbers and BARs stay as they are found: where `options` ask
/// for it, and after a kernel, since devices may still be in use by what it
/// handed over.
#[must_use]
pub fn preserves_config(options: &Options, payload: Option<&Payload<'_>>) -> bool {
    options.preserve
        || payload.is_some_and(|payload| payload.from_kexec || payload.handover.is_some())
}

/// Whether a failure of the firmware is to start it a second time, without
/// PCI: where there is a kernel, or an initrd that may hold one, to be started
/// then, and this is the first start.
#[must_use]
pub fn recovers(options: &Options, payload: Option<&Payload<'_>>, is_second_start: bool) -> bool {
    let has_kernel =
        payload.is_some_and(|payload| payload.kernel.is_some() || payload.ramdisk.is_some());
    has_kernel && !options.probe_only && !is_second_start
}

#[cfg(test)]
mod tests {
    use warmbus_linux::payload::Module;
    use warmbus_memory::{MemoryRange, PhysAddr};

    use super::*;

    const RANGE: MemoryRange = MemoryRange::new(PhysAddr(0x4000_0000), 0x1000);

    const MODULE: Module<'static> = Module {
        range: RANGE,
        bootargs: None,
    };

    #[test]
    fn bus_numbers_and_bars_are_preserved_on_request_and_after_a_kernel() {
        let plain = Payload::default();
        let from_kexec = Payload {
            from_kexec: true,
            ..plain
        };
        let handed_over = Payload {
            handover: Some((RANGE, RANGE)),
            ..plain
        };
        let on_request = Options {
            preserve: true,
            ..Options::default()
        };
        let none = Options::default();
        for (options, payload, expected) in [
            (&none, None, false),
            (&none, Some(&plain), false),
            (&none, Some(&from_kexec), true),
            (&none, Some(&handed_over), true),
            (&on_request, None, true),
            (&on_request, Some(&plain), true),
        ] {
            assert_eq!(preserves_config(options, payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn the_first_start_recovers_where_there_may_be_a_kernel_to_start() {
        let nothing = Payload::default();
        let kernel = Payload {
            kernel: Some(MODULE),
            ..nothing
        };
        // The kernel may be part of the initrd.
        let initrd = Payload {
            ramdisk: Some(MODULE),
            ..nothing
        };
        let none = Options::default();
        let probe_only = Options {
            probe_only: true,
            ..Options::default()
        };
        for (options, payload, is_second_start, expected) in [
            (&none, None, false, false),
            (&none, Some(&nothing), false, false),
            (&none, Some(&kernel), false, true),
            (&none, Some(&initrd), false, true),
            (&none, Some(&kernel), true, false),
            (&probe_only, Some(&kernel), false, false),
        ] {
            assert_eq!(recovers(options, payload, is_second_start), expected);
        }
    }
}
