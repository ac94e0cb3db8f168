//! Machines of any number of functions.

use super::contender::Contender;
use crate::topology::Topology;

/// Functions of the machines that show what a function costs.
pub(super) const SIZES: [u32; 4] = [8, 64, 512, 2048];

/// Whether `contender` is measured on machines of that many functions. EDK2 takes
/// many minutes from some hundreds on, U-Boot from thousands on. A chain of
/// kernels shows nothing more of the cost of a function, and a cold cache nothing
/// that the topologies do not.
#[must_use]
pub(super) fn shows(contender: Contender, functions: u32) -> bool {
    match contender {
        Contender::UBoot => functions <= 512,
        Contender::Edk2 => functions <= 64,
        Contender::Warmbus | Contender::LinuxStock | Contender::LinuxAfterWarmbus => true,
        Contender::LinuxCold | Contender::LinuxAfterKexec => false,
    }
}

/// A hierarchy of `functions` functions: the host bridge, root ports, and below
/// each of these a device of up to 8 functions. At most 2224, by then every
/// device number of the root bus is taken.
///
/// The endpoints are SCSI controllers with one BAR each: QEMU keeps at most 4096
/// regions of memory, and most other devices make several of one BAR. No driver
/// of the test Linux takes them.
#[must_use]
pub fn topology(functions: u32) -> Topology {
    let mut arguments = Vec::new();
    let mut device = |text: String| arguments.extend(["-device".to_owned(), text]);
    let mut left = functions.saturating_sub(1);
    let mut port = 0;
    while left > 0 {
        let (slot, number) = (1 + port / 8, port % 8);
        device(format!(
            "pcie-root-port,id=r{port},chassis={chassis},slot={chassis},hotplug=off,addr={slot:x}.{number},multifunction=on",
            chassis = port + 1,
        ));
        left -= 1;
        let below = left.min(8);
        for function in 0..below {
            device(format!(
                "pvscsi,bus=r{port},addr=0.{function},multifunction=on"
            ));
        }
        left -= below;
        port += 1;
    }
    Topology {
        name: functions.to_string(),
        description: format!("{functions} functions, up to 8 below each root port"),
        arguments,
    }
}

/// The same with a name that says what the number is.
#[must_use]
pub(super) fn named_topology(functions: u32) -> Topology {
    Topology {
        name: name(functions),
        ..topology(functions)
    }
}

/// That name.
pub(super) fn name(functions: u32) -> String {
    format!("{functions} functions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_functions_as_asked_for() {
        for functions in SIZES.into_iter().chain([1, 2, 10, 11]) {
            let topology = topology(functions);
            let devices = topology.arguments.len() as u32 / 2;
            assert_eq!(devices + 1, functions, "with the host bridge");
            let ports = topology
                .arguments
                .iter()
                .filter(|word| word.contains("root-port"));
            assert!(ports.clone().count() <= 31 * 8);
            assert!(
                ports.clone().all(|port| !port.contains("addr=0.")),
                "the host bridge is there"
            );
        }
    }
}
