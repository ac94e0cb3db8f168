//! Who gets addresses where not everything fits, and how large windows are.

use warmbus_pci::{AssignPolicy, HostWindow, PortType, ScanPolicy, assign, enumerate};
use warmbus_pcie_sim::{BarModel, Fabric, FunctionModel, SrIovModel, memory32_window};
use warmbus_pcsc::ConfigCache;

use crate::{
    ALL_WINDOWS, HIGH, IO, KIB, LOW, MIB, at, below_port, endpoint, hot_plug_port, integrated,
    is_inside, port, root_port, set_up,
};

/// 16 MiB at a boundary of 16 MiB, and no other window.
const SMALL: HostWindow = memory32_window(0x1000_0000, 16 * MIB);

#[test]
fn a_smaller_request_of_lower_rank_is_assigned_where_a_larger_one_never_fits_beside_others() {
    let (mut fabric, host) = Fabric::with_windows(&[SMALL]);
    // 16 MiB fit alone but not beside 8 MiB, and a ROM beside 8 MiB.
    let models = [
        integrated(1).bar(0, BarModel::memory32(8 * MIB)),
        integrated(2).bar(0, BarModel::memory32(16 * MIB)),
        integrated(3).rom(1 << 20),
    ];
    for (device, model) in (1..).zip(models) {
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert!(machine.address(at(0, 1, 0), 0).is_some());
    assert_eq!(machine.address(at(0, 2, 0), 0), None);
    let rom = machine.address(at(0, 3, 0), 6).expect("it fits");
    assert!(is_inside(&SMALL, rom, MIB), "{rom:#x}");
    let expected = "BAR 0 (mem32, 0x1000000 bytes) does not fit and stays disabled; the largest free range is 0x700000 bytes";
    assert_eq!(machine.reported(at(0, 2, 0)), [expected]);
    assert_eq!((machine.outcome.assigned, machine.outcome.disabled), (2, 1));
}

#[test]
fn what_never_fits_costs_nothing_else_its_addresses() {
    let (mut fabric, host) = Fabric::with_windows(&[SMALL]);
    let giant = integrated(1)
        .multi_function()
        .bar(0, BarModel::memory32(32 * MIB));
    fabric.add_root(host, 0, 0, giant);
    let mut roms = Vec::new();
    for number in 8..88 {
        let (device, function) = (number / 8, number % 8);
        let model = integrated(2).multi_function().rom(2 << 10);
        fabric.add_root(host, device, function, model);
        roms.push(at(0, device, function));
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.address(at(0, 0, 0), 0), None);
    for rom in roms {
        assert!(machine.address(rom, 6).is_some(), "{rom}");
    }
}

/// A physical function whose 8 VFs take `each` bytes.
fn physical(each: u64) -> FunctionModel {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory32(each));
    let sriov = SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    };
    integrated(9).sriov(sriov, FunctionModel::virtual_function(0))
}

#[test]
fn vf_bars_give_way_first_then_roms_then_the_largest_bar() {
    // Each line asks for more than 16 MiB by one of its requests.
    let bar = |size| integrated(1).bar(0, BarModel::memory32(size));
    let rom = |size: u64| integrated(2).rom(u32::try_from(size).expect("a ROM"));
    for (models, expected) in [
        (
            vec![bar(8 * MIB), rom(4 * MIB), physical(MIB)],
            vec![(0, true), (6, true), (7, false)],
        ),
        (
            vec![bar(8 * MIB), rom(8 * MIB), bar(4 * MIB)],
            vec![(0, true), (6, false), (0, true)],
        ),
        (
            vec![rom(8 * MIB), bar(8 * MIB), physical(MIB / 2), bar(2 * MIB)],
            vec![(6, false), (0, true), (7, true), (0, true)],
        ),
        (
            vec![bar(8 * MIB), bar(4 * MIB), bar(4 * MIB), bar(2 * MIB)],
            vec![(0, false), (0, true), (0, true), (0, true)],
        ),
    ] {
        let (mut fabric, host) = Fabric::with_windows(&[SMALL]);
        for (device, model) in (1..).zip(models) {
            fabric.add_root(host, device, 0, model);
        }
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        let found: Vec<_> = (1..)
            .zip(&expected)
            .map(|(device, &(index, _))| {
                let address = machine.address(at(0, device, 0), index);
                (index, address.is_some())
            })
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn vf_bars_take_the_size_of_one_vf_once_for_each_vf() {
    for each in [8 * KIB, MIB] {
        let (mut fabric, host) = Fabric::with_windows(&[SMALL]);
        fabric.add_root(host, 1, 0, physical(each));
        let after = integrated(1).bar(0, BarModel::memory32(4 * KIB));
        fabric.add_root(host, 2, 0, after);
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        let bar = machine.bar(at(0, 1, 0), 7).expect("it has a VF BAR");
        assert_eq!(bar.size, Some(each));
        assert!(machine.decodes(at(0, 1, 0), 7, 8 * each));
        assert_eq!(
            machine.address(at(0, 2, 0), 0),
            Some(SMALL.pci_address + 8 * each)
        );
    }
}

#[test]
fn only_a_hot_plug_port_is_padded() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    fabric.add_root(host, 1, 0, hot_plug_port());
    let model = endpoint(7)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(1, BarModel::io(0x20))
        .bar(2, BarModel::memory64(4 * KIB).prefetchable());
    below_port(&mut fabric, host, 2, ALL_WINDOWS, model);
    let (mut clock, hosts) = (fabric.clock(), fabric.host_bridges());
    let mut config = ConfigCache::new(fabric);
    let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    let policy = AssignPolicy {
        hot_plug_memory: 8 * MIB,
        hot_plug_prefetchable: 64 * MIB,
        hot_plug_io: 16 * KIB,
    };
    let topology = assign(topology, &policy, &mut config);
    let sizes = |device| {
        let mut functions = topology.functions().iter();
        let port = functions.find(|function| function.sbdf == at(0, device, 0));
        let bridge = port.and_then(|port| port.bridge).expect("a bridge");
        [bridge.io, bridge.memory, bridge.prefetchable]
            .map(|window| window.map_or(0, |window| window.limit() - window.base() + 1))
    };
    assert_eq!(sizes(1), [16 * KIB, 8 * MIB, 64 * MIB]);
    assert_eq!(sizes(2), [4 * KIB, MIB, MIB]);
    assert_eq!(config.access().misrouted(), [""; 0]);
}

#[test]
fn padding_is_given_in_order_after_every_port_has_a_window() {
    // 16 MiB: a BAR of 8, six windows of 1, and 2 for padding.
    let (mut fabric, host) = Fabric::with_windows(&[SMALL]);
    let model = integrated(1).bar(0, BarModel::memory32(8 * MIB));
    fabric.add_root(host, 9, 0, model);
    for device in 1..=6 {
        fabric.add_root(host, device, 0, hot_plug_port());
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert!(machine.address(at(0, 9, 0), 0).is_some());
    let sizes = [1, 2, 3, 4, 5, 6].map(|device| {
        let window = machine.bridge(at(0, device, 0)).memory;
        window.map_or(0, |window| window.limit() - window.base() + 1)
    });
    assert_eq!(sizes, [2, 2, 1, 1, 1, 1].map(|size| size * MIB));
}

#[test]
fn a_bar_goes_before_the_padding_and_before_the_window_of_an_empty_port() {
    for (size, window) in [(2 * MIB, MIB), (MIB, 0)] {
        let (mut fabric, host) = Fabric::with_windows(&[memory32_window(0x1000_0000, size)]);
        fabric.add_root(host, 1, 0, hot_plug_port());
        let model = integrated(1).bar(0, BarModel::memory32(MIB));
        fabric.add_root(host, 2, 0, model);
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        assert!(machine.decodes(at(0, 2, 0), 0, MIB));
        let memory = machine.bridge(at(0, 1, 0)).memory;
        let found = memory.map_or(0, |memory| memory.limit() - memory.base() + 1);
        assert_eq!(found, window);
    }
}

#[test]
fn a_window_holds_its_bars_wherever_the_host_window_starts() {
    let odd = memory32_window(0x1010_0000, 128 * MIB);
    let (mut fabric, host) = Fabric::with_windows(&[odd]);
    for (device, size) in (1..).zip([4 * MIB, 32 * MIB]) {
        let model = endpoint(7)
            .bar(0, BarModel::memory32(size))
            .bar(1, BarModel::memory32(4 * KIB));
        below_port(&mut fabric, host, device, ALL_WINDOWS, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    for (device, size) in (1..).zip([4 * MIB, 32 * MIB]) {
        assert!(machine.decodes(at(device, 0, 0), 0, size));
        assert!(machine.decodes(at(device, 0, 0), 1, 4 * KIB));
    }
}

#[test]
fn windows_nest_below_a_switch_and_each_is_aligned_to_its_largest_bar() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let root = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    let switch = fabric.add_below(root, 0, 0, warmbus_pcie_sim::devices::upstream_port());
    for (device, size) in (0..).zip([4 * KIB, 32 * MIB, 2 * MIB]) {
        let down = port(PortType::DownstreamPort, ALL_WINDOWS);
        let down = fabric.add_below(switch, device, 0, down);
        let model = endpoint(7)
            .bar(0, BarModel::memory32(size))
            .bar(1, BarModel::memory32(size / 2))
            .bar(2, BarModel::memory64(size).prefetchable());
        fabric.add_below(down, 0, 0, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.all_reported(), [""; 0]);
    for (device, size, window) in [
        (0, 4 * KIB, MIB),
        (1, 32 * MIB, 48 * MIB),
        (2, 2 * MIB, 3 * MIB),
    ] {
        let bridge = machine.bridge(at(2, device, 0));
        let memory = bridge.memory.expect("it is open");
        assert_eq!(memory.limit() - memory.base() + 1, window);
        assert_eq!(memory.base() % size.max(MIB), 0);
        assert!(machine.decodes(at(3 + device, 0, 0), 0, size));
    }
}
