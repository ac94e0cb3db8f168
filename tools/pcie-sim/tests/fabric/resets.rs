use std::time::Duration;

use warmbus_pci::time::Clock;
use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{ExpressModel, FunctionModel, MILLISECOND, Outcome, RrsHandling, SECOND};

use crate::{ABSENT, Bench, endpoint, ids, port, root_port};

/// A bench with an endpoint at 01:00.0 that is ready after `ready` nanoseconds.
fn slow(ready: u64, express: ExpressModel) -> Bench {
    let mut bench = Bench::new();
    let port = bench
        .fabric
        .add_root(bench.host, 1, 0, port(express).link_up());
    bench
        .fabric
        .add_below(port, 0, 0, endpoint(7).ready_at(ready));
    bench.number((0, 1, 0), 0, 1, 1);
    bench
}

const F: (u8, u8, u8) = (1, 0, 0);
const PORT: (u8, u8, u8) = (0, 1, 0);

#[test]
fn rrs_shows_only_in_reads_of_both_vendor_id_bytes_and_only_when_enabled() {
    let mut bench = slow(SECOND, ExpressModel::new(PortType::RootPort));
    assert_eq!(bench.r32(F, 0), ABSENT);
    bench.w16(PORT, 0x5c, 0x10);
    assert_eq!(bench.r32(F, 0), 0xffff_0001);
    assert_eq!(bench.r16(F, 0), 0x0001);
    assert_eq!(bench.r8(F, 0), 0xff);
    assert_eq!(bench.r16(F, 2), 0xffff);
    assert_eq!(bench.r32(F, 8), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::NotReady), 6);
    bench.fabric.clock().wait(Duration::from_secs(1));
    assert_eq!(bench.r32(F, 0), ids(7));
}

#[test]
fn a_root_port_that_is_not_capable_never_shows_rrs() {
    let express = ExpressModel::new(PortType::RootPort).without_rrs_visibility();
    let mut bench = slow(SECOND, express);
    bench.w16(PORT, 0x5c, 0xffff);
    assert_eq!(bench.r16(PORT, 0x5c), 0x000f);
    assert_eq!(bench.r16(PORT, 0x5e), 0);
    assert_eq!(bench.r32(F, 0), ABSENT);
}

#[test]
fn a_root_complex_that_repeats_holds_the_access_until_the_function_is_ready() {
    let mut bench = slow(SECOND, ExpressModel::new(PortType::RootPort));
    bench
        .fabric
        .set_rrs_handling(RrsHandling::Repeat(10 * MILLISECOND));
    let before = bench.fabric.clock().time();
    assert_eq!(bench.r32(F, 0), ABSENT);
    let waited = bench.fabric.clock().time() - before;
    assert_eq!(waited, 10 * MILLISECOND + 1000);
    bench
        .fabric
        .set_rrs_handling(RrsHandling::Repeat(2 * SECOND));
    assert_eq!(bench.r32(F, 0), ids(7));
    assert_eq!(bench.fabric.clock().time(), SECOND);
    // A function that is never ready does not block it.
    let mut bench = slow(u64::MAX, ExpressModel::new(PortType::RootPort));
    bench.fabric.set_rrs_handling(RrsHandling::Repeat(SECOND));
    assert_eq!(bench.r32(F, 0), ABSENT);
}

/// Sets Bus Master and one bit of a sticky register (Link Control 2).
fn touch(bench: &mut Bench, at: (u8, u8, u8)) {
    bench.w16(at, 4, 4);
    bench.w16(at, 0x48, 0x28d0);
    bench.w16(at, 0x70, 0x0001);
}

fn touched(bench: &mut Bench, at: (u8, u8, u8)) -> [u32; 3] {
    [4, 0x48, 0x70].map(|offset| bench.r16(at, offset))
}

#[test]
fn a_function_level_reset_reads_back_0_and_keeps_payload_size_and_sticky_bits() {
    let mut bench = slow(0, ExpressModel::new(PortType::RootPort));
    touch(&mut bench, F);
    assert_eq!(touched(&mut bench, F), [4, 0x28d0, 1]);
    bench.w16(F, 0x48, 0xa8d0);
    // Max_Payload_Size 110b stays, the enables fall back.
    assert_eq!(touched(&mut bench, F), [0, 0x28d0, 1]);
    bench.w16(F, 0x48, 0x00c0);
    bench.w16(F, 0x48, 0x80c0);
    assert_eq!(bench.r16(F, 0x48), 0x28d0);
}

#[test]
fn a_reset_takes_its_time() {
    let mut bench = Bench::new();
    let node = endpoint(7).reset_time(80 * MILLISECOND);
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    bench.fabric.add_below(port, 0, 0, node);
    bench.number(PORT, 0, 1, 1);
    bench.w16(PORT, 0x5c, 0x10);
    bench.w16(F, 0x48, 0x8000);
    assert_eq!(bench.r32(F, 0), 0xffff_0001);
    bench.fabric.clock().advance(80 * MILLISECOND);
    assert_eq!(bench.r32(F, 0), ids(7));
}

#[test]
fn advanced_features_reset_the_function_too() {
    let model = FunctionModel::endpoint(0x1234, 7, 0).advanced_features();
    let mut bench = Bench::with_function(model);
    bench.w16(PORT, 4, 4);
    bench.w8(PORT, 0x44, 1);
    assert_eq!(bench.r8(PORT, 0x44), 0);
    assert_eq!(bench.r16(PORT, 4), 0);
}

#[test]
fn a_secondary_bus_reset_resets_everything_below_and_takes_the_link_down() {
    let mut bench = Bench::new();
    bench.fabric = warmbus_pcie_sim::topologies::switch();
    bench.number(PORT, 0, 1, 6);
    bench.number((1, 0, 0), 1, 2, 6);
    bench.number((2, 0, 0), 2, 3, 3);
    bench.w16((3, 0, 0), 4, 4);
    bench.w16(PORT, 0x3e, 0x40);
    assert_eq!(bench.r16(PORT, 0x3e), 0x40, "the bit stays as written");
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
    bench.w16(PORT, 0x3e, 0);
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
    bench.fabric.clock().advance(SECOND);
    assert_ne!(bench.r32((1, 0, 0), 0), ABSENT);
    assert_eq!(bench.r32((1, 0, 0), 0x18), 0, "bus numbers are gone");
    assert_eq!(bench.r32((3, 0, 0), 0), ABSENT);
    bench.number((1, 0, 0), 1, 2, 6);
    bench.number((2, 0, 0), 2, 3, 3);
    assert_eq!(bench.r16((3, 0, 0), 4), 0);
}

#[test]
fn d3hot_to_d0_resets_unless_no_soft_reset_is_set() {
    for (no_soft_reset, kept) in [(false, 0), (true, 4)] {
        let model = endpoint(7).power_management(no_soft_reset, 10 * MILLISECOND);
        let mut bench = Bench::with_function(model);
        let control = 0x7c + 4;
        bench.w16(PORT, 4, 4);
        bench.w16(PORT, control, 3);
        // The register shows the state that is, not the one that was asked for.
        assert_eq!(bench.r8(PORT, control) & 3, 0);
        bench.fabric.clock().advance(10 * MILLISECOND);
        assert_eq!(bench.r8(PORT, control) & 3, 3);
        bench.w16(PORT, control, 0);
        bench.fabric.clock().advance(10 * MILLISECOND);
        assert_eq!(bench.r8(PORT, control) & 3, 0);
        assert_eq!(bench.r16(PORT, 4), kept);
        // D1 is not supported: the write is dropped.
        bench.w16(PORT, control, 1);
        bench.fabric.clock().advance(10 * MILLISECOND);
        assert_eq!(bench.r8(PORT, control) & 3, 0);
    }
}

#[test]
fn nothing_passes_a_bridge_in_d3hot() {
    let mut bench = Bench::new();
    let model = root_port().power_management(true, 0);
    let port = bench.fabric.add_root(bench.host, 1, 0, model);
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number(PORT, 0, 1, 1);
    bench.w16(PORT, 0x80, 3);
    assert_eq!(bench.r32(F, 0), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::PoweredDown), 1);
    bench.w16(PORT, 0x80, 0);
    assert_eq!(bench.r32(F, 0), ids(7));
}

#[test]
fn error_status_is_sticky() {
    let mut bench = slow(0, ExpressModel::new(PortType::RootPort));
    let model = endpoint(7).advanced_errors();
    let node = bench.fabric.nodes().nth(1).unwrap();
    bench.fabric.replace(node, model);
    bench.fabric.poke(node, 0x104, Width::Dword, 0x0010_4000);
    bench.w16(F, 0x48, 0x8000);
    assert_eq!(bench.r32(F, 0x104), 0x0010_4000);
    bench.w32(F, 0x104, 0x0000_4000);
    assert_eq!(bench.r32(F, 0x104), 0x0010_0000);
    bench.w32(F, 0x104, 0xffff_ffff);
    assert_eq!(bench.r32(F, 0x104), 0);
}
