//! What is decided as soon as it is known what is to be started.

use warmbus_linux::payload::Payload;
use warmbus_memory::MemoryRange;

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

/// Why no Linux is started although there is one to be started, as far as
/// that is known without a kernel: `options` name one, or there is an initrd
/// that would hold one.
pub fn nothing_to_start(options: &Options, payload: &Payload<'_>) -> Result<(), NoKernel> {
    if options.probe_only || payload.kernel.is_some() {
        return Ok(());
    }
    if options.names_kernel && !payload.from_kexec {
        return Err(NoKernel::Named);
    }
    match payload.ramdisk {
        Some(file) => Err(NoKernel::InInitrd(file.range)),
        None => Ok(()),
    }
}

/// Why there is no kernel where one was to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKernel {
    /// The command line names one that is not part of the tree.
    #[error("no Linux is started: the kernel that warmbus.kernel= names was not found")]
    Named,
    /// The initrd was to hold one.
    #[error("no Linux is started: there is no kernel, and none in the initrd at {0}")]
    InInitrd(MemoryRange),
}

#[cfg(test)]
mod tests {
    use warmbus_linux::payload::Module;
    use warmbus_memory::PhysAddr;

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

    #[test]
    fn a_linux_that_was_to_start_and_is_not_there_is_no_success() {
        let plain = Payload::default();
        let kernel = Payload {
            kernel: Some(MODULE),
            ..plain
        };
        let initrd = Payload {
            ramdisk: Some(MODULE),
            ..plain
        };
        let from_kexec = Payload {
            from_kexec: true,
            ..plain
        };
        let none = Options::default();
        let named = Options::from_bootargs("warmbus.kernel=0x40000000,4096");
        let misspelt = Options::from_bootargs("warmbus.kernel=0x40000000");
        let probe_only = Options::from_bootargs("warmbus.kernel=1 warmbus.probe_only");
        for (options, payload, expected) in [
            (&none, &plain, Ok(())),
            (&named, &kernel, Ok(())),
            (&named, &plain, Err(NoKernel::Named)),
            (&misspelt, &plain, Err(NoKernel::Named)),
            (&none, &initrd, Err(NoKernel::InInitrd(RANGE))),
            // What started the previous kernel says nothing about this one.
            (&named, &from_kexec, Ok(())),
            (&probe_only, &plain, Ok(())),
        ] {
            assert_eq!(nothing_to_start(options, payload), expected, "{payload:?}");
        }
    }
}
