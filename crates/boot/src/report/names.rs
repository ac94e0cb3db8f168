//! Names of classes of functions.

/// Names by base class and sub-class (PCI Code and ID Assignment
/// Specification, chapter 1), ascending.
const SUB_CLASSES: &[(u16, &str)] = &[
    (0x0000, "Unclassified device"),
    (0x0001, "VGA compatible device"),
    (0x0005, "Image coprocessor"),
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0102, "Floppy controller"),
    (0x0103, "IPI controller"),
    (0x0104, "RAID controller"),
    (0x0105, "ATA controller"),
    (0x0106, "SATA controller"),
    (0x0107, "Serial Attached SCSI controller"),
    (0x0108, "Non-volatile memory controller"),
    (0x0109, "Universal Flash Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0201, "Token ring controller"),
    (0x0202, "FDDI controller"),
    (0x0203, "ATM controller"),
    (0x0204, "ISDN controller"),
    (0x0205, "WorldFip controller"),
    (0x0206, "PICMG controller"),
    (0x0207, "InfiniBand controller"),
    (0x0208, "Fabric controller"),
    (0x0300, "VGA controller"),
    (0x0301, "XGA controller"),
    (0x0302, "3D controller"),
    (0x0400, "Video controller"),
    (0x0401, "Audio controller"),
    (0x0402, "Telephony device"),
    (0x0403, "HD audio device"),
    (0x0500, "RAM memory"),
    (0x0501, "Flash memory"),
    (0x0502, "CXL memory"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0602, "EISA bridge"),
    (0x0603, "MicroChannel bridge"),
    (0x0604, "PCI bridge"),
    (0x0605, "PCMCIA bridge"),
    (0x0606, "NuBus bridge"),
    (0x0607, "CardBus bridge"),
    (0x0608, "RACEway bridge"),
    (0x0609, "Semi-transparent PCI-to-PCI bridge"),
    (0x060a, "InfiniBand to PCI host bridge"),
    (0x0700, "Serial controller"),
    (0x0701, "Parallel controller"),
    (0x0702, "Multiport serial controller"),
    (0x0703, "Modem"),
    (0x0704, "GPIB controller"),
    (0x0705, "Smart card controller"),
    (0x0800, "PIC"),
    (0x0801, "DMA controller"),
    (0x0802, "Timer"),
    (0x0803, "RTC"),
    (0x0804, "PCI Hot-plug controller"),
    (0x0805, "SD Host controller"),
    (0x0806, "IOMMU"),
    (0x0900, "Keyboard controller"),
    (0x0901, "Digitizer pen"),
    (0x0902, "Mouse controller"),
    (0x0903, "Scanner controller"),
    (0x0904, "Gameport controller"),
    (0x0a00, "Docking station"),
    (0x0b40, "Co-processor"),
    (0x0c00, "FireWire controller"),
    (0x0c01, "ACCESS Bus"),
    (0x0c02, "SSA"),
    (0x0c03, "USB controller"),
    (0x0c04, "Fibre Channel"),
    (0x0c05, "SMBus"),
    (0x0c06, "InfiniBand"),
    (0x0c07, "IPMI Interface"),
    (0x0c08, "SERCOS interface"),
    (0x0c09, "CANBUS"),
    (0x0d00, "IRDA controller"),
    (0x0d01, "Consumer IR controller"),
    (0x0d10, "RF controller"),
    (0x0d11, "Bluetooth"),
    (0x0d12, "Broadband"),
    (0x0d20, "802.11a controller"),
    (0x0d21, "802.11b controller"),
    (0x0e00, "I2O"),
    (0x1000, "Network encryption device"),
    (0x1010, "Entertainment encryption device"),
    (0x1100, "DPIO module"),
    (0x1101, "Performance counters"),
    (0x1110, "Communication synchronizer"),
    (0x1120, "Signal processing management"),
    (0x1201, "Smart data accelerator"),
];

/// Names where the interface says more, by the whole class code.
const INTERFACES: &[(u32, &str)] = &[
    (0x01_0601, "AHCI SATA controller"),
    (0x01_0802, "NVMe controller"),
    (0x06_0401, "Subtractive PCI bridge"),
    (0x0c_0300, "UHCI USB controller"),
    (0x0c_0310, "OHCI USB controller"),
    (0x0c_0320, "EHCI USB controller"),
    (0x0c_0330, "xHCI USB controller"),
];

/// Names by base class, from 0 on.
const BASE_CLASSES: [&str; 0x14] = [
    "Unclassified device",
    "Mass storage controller",
    "Network controller",
    "Display controller",
    "Multimedia controller",
    "Memory controller",
    "Bridge",
    "Communication controller",
    "System peripheral",
    "Input device controller",
    "Docking station",
    "Processor",
    "Serial bus controller",
    "Wireless controller",
    "Intelligent controller",
    "Satellite communications controller",
    "Encryption controller",
    "Signal processing controller",
    "Processing accelerator",
    "Non-essential instrumentation",
];

/// The name of a 24-bit class code: as much as is known of it.
#[must_use]
pub fn class(class_code: u32) -> &'static str {
    let sub_class = (class_code >> 8) as u16;
    let base_class = usize::from(sub_class >> 8);
    if let Some((_, name)) = INTERFACES.iter().find(|(code, _)| *code == class_code) {
        return name;
    }
    if let Ok(index) = SUB_CLASSES.binary_search_by_key(&sub_class, |(code, _)| *code) {
        return SUB_CLASSES[index].1;
    }
    match BASE_CLASSES.get(base_class) {
        Some(name) => name,
        None if base_class == 0x40 => "Coprocessor",
        None if base_class == 0xff => "Unassigned class",
        None => "Unknown class",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_named_as_far_as_it_is_known() {
        assert_eq!(class(0x01_0802), "NVMe controller");
        assert_eq!(class(0x01_0803), "Non-volatile memory controller");
        assert_eq!(class(0x01_8000), "Mass storage controller");
        assert_eq!(class(0x06_0400), "PCI bridge");
        assert_eq!(class(0x13_0000), "Non-essential instrumentation");
        assert_eq!(class(0x14_0000), "Unknown class");
        assert_eq!(class(0x40_0000), "Coprocessor");
        assert_eq!(class(0xff_ffff), "Unassigned class");
        assert_eq!(class(u32::MAX), "Unassigned class");
    }

    #[test]
    fn the_tables_can_be_searched() {
        assert!(SUB_CLASSES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
