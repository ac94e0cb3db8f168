//! The PCI configuration space cache (PCSC).
