//! Allocation within one address space.

use super::*;

const PORT: Bridge = Bridge {
    parent: None,
    has_window: true,
    hot_plug: false,
};

fn range(base: u64, size: u64) -> PciRange {
    PciRange::from_size(base, size).expect("it is not empty")
}

fn bar(bridge: Option<usize>, size: u64) -> Request {
    Request {
        bridge,
        size,
        align: size,
        priority: Priority::Bar,
    }
}

fn space<'a>(
    bridges: &'a [Bridge],
    requests: &'a [Request],
    apertures: &'a [PciRange],
) -> AddressSpace<'a> {
    AddressSpace {
        bridges,
        requests,
        apertures,
        granule: 0x10_0000,
        padding: 0x20_0000,
    }
}

#[test]
fn a_window_holds_what_is_below_it_and_is_aligned_to_its_largest_part() {
    let bridges = [PORT];
    let requests = [
        bar(Some(0), 0x1000),
        bar(Some(0), 0x80_0000),
        bar(None, 0x1000),
    ];
    let apertures = [range(0x1000_0000, 0x2000_0000)];
    let placed = space(&bridges, &requests, &apertures).place_all();
    assert_eq!(placed.windows, [Some(range(0x1000_0000, 0x90_0000))]);
    assert_eq!(placed.requests[1], Some(0x1000_0000));
    assert_eq!(placed.requests[0], Some(0x1080_0000));
    assert_eq!(placed.requests[2], Some(0x1090_0000));
}

#[test]
fn what_does_not_fit_stays_unplaced_and_the_rest_is_placed() {
    let requests = [bar(None, 0x4000_0000), bar(None, 0x1000)];
    let apertures = [range(0x1000_0000, 0x100_0000)];
    let placed = space(&[], &requests, &apertures).place_all();
    assert_eq!(placed.requests, [None, Some(0x1000_0000)]);
    assert_eq!(placed.largest_free(), 0x100_0000 - 0x1000);
}

#[test]
fn vf_bars_give_way_before_bars_do() {
    let vfs = Request {
        priority: Priority::VirtualFunctions,
        ..bar(None, 0x80_0000)
    };
    let requests = [bar(None, 0x80_0000), vfs, bar(None, 0x40_0000)];
    let apertures = [range(0x1000_0000, 0x100_0000)];
    let placed = space(&[], &requests, &apertures).place_all();
    assert_eq!(placed.requests[1], None);
    assert!(placed.requests[0].is_some() && placed.requests[2].is_some());
}

#[test]
fn empty_ports_get_windows_in_order_while_there_is_space() {
    let bridges = [PORT; 4];
    let apertures = [range(0x1000_0000, 0x30_0000)];
    let placed = space(&bridges, &[], &apertures).place_all();
    let open: Vec<bool> = placed.windows.iter().map(Option::is_some).collect();
    assert_eq!(open, [true, true, true, false]);
}

#[test]
fn a_hot_plug_port_is_padded_when_there_is_space() {
    let bridges = [Bridge {
        hot_plug: true,
        ..PORT
    }];
    let requests = [bar(Some(0), 0x1000)];
    let apertures = [range(0x1000_0000, 0x100_0000)];
    let placed = space(&bridges, &requests, &apertures).place_all();
    assert_eq!(placed.windows, [Some(range(0x1000_0000, 0x20_0000))]);
}

#[test]
fn sizes_that_overflow_do_not_fit_anywhere() {
    let bridges = [PORT];
    let requests = [
        Request {
            size: u64::MAX - 5,
            align: 1 << 63,
            ..bar(Some(0), 1)
        },
        bar(Some(0), 1 << 63),
        bar(Some(0), 0x1000),
    ];
    let apertures = [range(0x1000_0000, 0x100_0000)];
    let placed = space(&bridges, &requests, &apertures).place_all();
    assert_eq!(placed.requests[..2], [None, None]);
    assert!(placed.requests[2].is_some());
}
