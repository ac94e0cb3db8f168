//! The checker of finished assignments finds what is wrong with one.

use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width, verify_assignment};
use warmbus_pcie_sim::topologies;

use crate::{Machine, at, boot};

/// What the checker says after `value` was written to a dword.
fn complaints_after(function: Sbdf, offset: u16, value: u32) -> Vec<String> {
    let mut machine: Machine = boot(topologies::small());
    assert_eq!(verify_assignment(&machine.topology, &machine.config), []);
    let offset = ConfigOffset::wrapping(offset);
    machine.config.write(function, offset, Width::Dword, value);
    machine.config.capture(function);
    verify_assignment(&machine.topology, &machine.config)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn address(function: Sbdf, index: u8) -> u32 {
    let machine = boot(topologies::small());
    let mut bars = machine.function(function).bars.iter();
    let bar = bars.find(|bar| bar.index == index).expect("it has the BAR");
    u32::try_from(bar.address.expect("it has an address")).expect("it is below 4 GiB")
}

#[test]
fn two_bars_at_one_address_are_found() {
    let network = at(5, 0, 0);
    let other = address(network, 1);
    let complaints = complaints_after(network, 0x10, other);
    assert!(
        complaints.iter().any(|text| text.contains("overlaps")),
        "{complaints:?}"
    );
}

#[test]
fn a_bar_outside_of_the_window_above_is_found() {
    let complaints = complaints_after(at(5, 0, 0), 0x10, 0x3000_0000);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("outside"), "{complaints:?}");
}

#[test]
fn a_window_that_is_closed_over_what_needs_it_is_found() {
    const MEMORY_BASE: u16 = 0x20;
    let complaints = complaints_after(at(0, 3, 0), MEMORY_BASE, 0x0000_fff0);
    assert!(
        complaints
            .iter()
            .all(|text| text.starts_with("0000:05:00.0")),
        "{complaints:?}"
    );
    assert!(!complaints.is_empty());
}

#[test]
fn bus_numbers_that_do_not_nest_are_found() {
    const BUS_NUMBERS: u16 = 0x18;
    let complaints = complaints_after(at(0, 3, 0), BUS_NUMBERS, 0x0002_0500);
    assert!(
        complaints.iter().any(|text| text.contains("do not nest")),
        "{complaints:?}"
    );
}
