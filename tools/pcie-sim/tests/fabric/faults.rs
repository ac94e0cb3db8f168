use std::time::Duration;

use warmbus_pci::time::Clock;
use warmbus_pci::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::{Fault, MILLISECOND, Outcome, ProtocolViolation};

use crate::{ABSENT, Bench, endpoint, ids, root_port};

const F: (u8, u8, u8) = (0, 1, 0);

#[test]
fn a_function_vanishes_after_so_many_accesses() {
    let model = endpoint(7).fault(Fault::Vanishes { accesses: 3 });
    let mut bench = Bench::with_function(model);
    let reads = [0; 5].map(|offset| bench.r32(F, offset));
    assert_eq!(reads, [ids(7), ids(7), ids(7), ABSENT, ABSENT]);
    assert_eq!(bench.fabric.log().count(Outcome::Gone), 2);
}

#[test]
fn a_bridge_that_vanishes_takes_along_what_is_below() {
    let mut bench = Bench::new();
    let time = MILLISECOND;
    let model = root_port().fault(Fault::VanishesAt { time });
    let port = bench.fabric.add_root(bench.host, 1, 0, model);
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number(F, 0, 1, 1);
    assert_eq!(bench.r32((1, 0, 0), 0), ids(7));
    bench.fabric.clock().advance(time);
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
    assert_eq!(bench.r32(F, 0), ABSENT);
}

#[test]
fn a_hole_and_noise_cover_their_offsets_and_no_others() {
    let model = endpoint(7)
        .fault(Fault::Hole {
            from: 0x40,
            to: 0x44,
        })
        .fault(Fault::Noise {
            from: 0x80,
            to: 0x81,
            seed: 1,
        });
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r32(F, 0x40), ABSENT);
    assert_eq!(bench.r32(F, 0x44), 0x1000_8001);
    let noise = [0x80; 4].map(|offset| bench.r32(F, offset));
    assert!(noise.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(bench.r32(F, 0x84), 0);
    assert_eq!(bench.r32(F, 0), ids(7));
}

#[test]
fn an_abort_reads_all_ones_and_leaves_a_fault_to_take() {
    let model = endpoint(7).fault(Fault::Aborts { from: 8, to: 0xc });
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r32(F, 8), ABSENT);
    assert_eq!(bench.r8(F, 0xb), 0xff);
    let fault = |offset| AccessFault {
        function: Sbdf::new(0, 0, 1, 0),
        offset: ConfigOffset::wrapping(offset),
    };
    assert_eq!(bench.fabric.take_fault(), Some(fault(8)));
    assert_eq!(bench.fabric.take_fault(), Some(fault(0xb)));
    assert_eq!(bench.fabric.take_fault(), None);
}

#[test]
fn bus_numbers_can_refuse_to_stick() {
    let mut bench = Bench::new();
    // Secondary is stuck at the primary bus: a loop, if one followed it.
    let model = root_port().hardwired(0x18, Width::Dword, 0x00ff_0000);
    let port = bench.fabric.add_root(bench.host, 1, 0, model);
    let inner = root_port().hardwired(0x18, Width::Dword, 0x00ff_0000);
    bench.fabric.add_below(port, 0, 0, inner);
    bench.number(F, 0, 1, 1);
    assert_eq!(bench.r32(F, 0x18), 0x00ff_0000);
    // Bus 1 is not its secondary: passed on as Type 1, which the inner bridge
    // would pass on in turn, and nobody is there.
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::LinkDown), 0);
    assert_eq!(bench.fabric.log().count(Outcome::NoBridge), 1);
    assert_eq!(bench.fabric.log().violations(), []);
}

#[test]
fn misaligned_accesses_are_recorded_and_rounded_down() {
    let mut bench = Bench::with_function(endpoint(7));
    assert_eq!(bench.r32(F, 2), ids(7));
    assert_eq!(bench.r16(F, 3), 7);
    let function = Sbdf::new(0, 0, 1, 0);
    let misaligned = |offset, width| ProtocolViolation::Misaligned {
        function,
        offset: ConfigOffset::wrapping(offset),
        width,
    };
    let expected = [misaligned(2, Width::Dword), misaligned(3, Width::Word)];
    assert_eq!(bench.fabric.log().violations(), expected);
}

#[test]
fn a_stopped_clock_shows_no_time_while_accesses_still_take_some() {
    let mut bench = Bench::with_function(endpoint(7).ready_at(5_000));
    let mut clock = bench.fabric.clock();
    clock.stop();
    clock.wait(Duration::from_millis(1));
    assert_eq!(clock.now(), Duration::ZERO);
    let reads = [0; 5].map(|offset| bench.r32(F, offset));
    assert_eq!(reads, [ABSENT, ABSENT, ABSENT, ABSENT, ids(7)]);
    assert_eq!(clock.now(), Duration::ZERO);
}

#[test]
fn the_log_has_every_access_with_its_end() {
    let mut bench = Bench::with_function(endpoint(7));
    bench.r32(F, 0);
    bench.w16(F, 4, 4);
    bench.r32((0, 2, 0), 0);
    bench.r16(F, 6);
    let log = bench.fabric.log();
    let node = bench.fabric.nodes().next().unwrap();
    let entries: Vec<_> = log
        .entries()
        .iter()
        .map(|a| (a.time, a.offset.get(), a.write, a.value, a.node, a.outcome))
        .collect();
    let done = Outcome::Completed;
    let expected = [
        (1000, 0, false, ids(7), Some(node), done),
        (2000, 4, true, 4, Some(node), done),
        (3000, 0, false, ABSENT, None, Outcome::NoFunction),
        (4000, 6, false, 0x10, Some(node), done),
    ];
    assert_eq!(entries, expected);
    assert_eq!((log.reads(), log.writes(), log.absent()), (3, 1, 1));
    assert_eq!(log.reads_of(node, 4), 1);
    assert_eq!(log.reads_of(node, 0x40), 0);
    assert_eq!(log.buses().into_iter().collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!(log.ended(Outcome::NoFunction).count(), 1);
}
