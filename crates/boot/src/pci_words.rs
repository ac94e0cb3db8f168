//! What the kernel command line asks of PCI and was not done for Linux.

use alloc::string::String;

use warmbus_linux::pci_parameters::PciParameters;
use warmbus_pci::{PciRange, Topology};

/// The word of `pci=` that Linux has to obey by itself, as `topology` does not
/// have what it asks for; `None` where there is none.
///
/// I/O space is not looked at: there is little of it on any machine, and Linux
/// does not get more.
#[must_use]
pub fn word_for_linux(parameters: &PciParameters, topology: &Topology) -> Option<String> {
    if parameters.reassigns.is_some() {
        return parameters.reassigns.clone();
    }
    let bridges = topology.functions().iter().filter_map(|one| one.bridge);
    let mut ports = bridges.filter(|bridge| bridge.hot_plug && bridge.secondary != 0);
    let is_less = |window: Option<PciRange>, wanted: Option<u64>| {
        let size = window.map_or(0, |window| window.limit() - window.base());
        wanted.is_some_and(|wanted| wanted > 0 && size < wanted - 1)
    };
    ports.find_map(|port| {
        let buses = u16::from(port.subordinate - port.secondary.min(port.subordinate)) + 1;
        if u16::from(parameters.hot_plug_buses.unwrap_or(0)) > buses {
            Some("hpbussize".into())
        } else if is_less(port.memory, parameters.hot_plug_memory) {
            Some("hpmmiosize".into())
        } else if is_less(port.prefetchable, parameters.hot_plug_prefetchable) {
            Some("hpmmioprefsize".into())
        } else {
            None
        }
    })
}
