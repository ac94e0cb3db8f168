//! The start and end of virtual machines, which the idea was born for: a
//! function is bound to `vfio-pci`, opened, reset, shown to a guest, driven and
//! closed.

use std::path::Path;

use warmbus_cli::trace::{Access, counts};
use warmbus_pci::PortType;
use warmbus_pcie_sim::{ExpressModel, Fabric, FunctionModel};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};
use xtask::qemu::Machine;
use xtask::test;

use crate::consumer::{ended_well, everything_was_restored, percent};

/// What a boot with virtual machines counted.
struct Machines {
    linux: LinuxBoot,
    /// Reads that came to the hardware while a monitor started that reads what
    /// is needed, and while one started that reads all configuration space.
    reads: [u64; 2],
    /// Functions that a virtual machine had.
    functions: u64,
}

/// Boots `topology` behind an SMMU to do `steps`, with the virtual machines
/// between the marks 1, 2 and 3.
fn start_machines(topology: &str, kernel: &Path, steps: &str, mode: &str) -> Machines {
    let lab = Lab::new();
    let mut payload = payload(kernel, steps);
    payload.bootargs += mode;
    let machine = lab
        .machine(topology)
        .machine_option("iommu=smmuv3")
        .payload(payload)
        .trace();
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    let accesses = linux.accesses();
    let reads = [1, 2].map(|mark| counts(consumer::between(&accesses, mark, mark + 1)).reads);
    let functions = consumer::said(&linux, "a virtual machine had ").len() as u64 / 2;
    Machines {
        linux,
        reads,
        functions,
    }
}

/// Of the reads that a stock kernel makes for a monitor that reads what is
/// needed, and of those for one that reads all configuration space, at least so
/// many percent do not come to the hardware. What is in no known structure is
/// not cacheable, and that is most of all configuration space.
fn most_reads_are_served(topology: &str, steps: &str, functions: u64, least: [f64; 2]) {
    let stock = start_machines(topology, linux::kernel(), steps, "");
    let steps = format!("{steps},cache,compare");
    let ours = start_machines(topology, consumer::kernel(), &steps, "");
    assert_eq!([stock.functions, ours.functions], [functions; 2]);
    everything_was_restored(&ours.linux);
    consumer::matches_hardware(&ours.linux, 1);
    for (at, least) in least.into_iter().enumerate() {
        let [stock, ours] = [stock.reads[at], ours.reads[at]];
        let served = 100.0 - percent(ours, stock);
        println!(
            "{topology}, {}: {} reads a function stock, {} ours: {served:.1} % served",
            ["what is needed", "all"][at],
            stock / functions,
            ours / functions
        );
        assert!(served >= least, "{served:.1} %: {ours} of {stock}");
    }
}

/// The same with `pcsc=verify`: nothing that would have been served differs.
fn nothing_served_is_stale(topology: &str, steps: &str, functions: u64) {
    let steps = format!("{steps},cache");
    let ours = start_machines(topology, consumer::kernel(), &steps, " pcsc=verify");
    assert_eq!(ours.functions, functions);
    let counters = consumer::counters(&ours.linux);
    let sum = counters.last().expect("there are counters");
    println!("{topology}: {} comparisons", sum["verified"]);
    assert_eq!(sum["differences"], 0, "{:?}", consumer::log(&ours.linux));
    assert!(sum["verified"] > 50 * functions, "{sum:?}");
}

const FUNCTIONS: &str = "mark:1,vms:needed,mark:2,vms:whole,mark:3";
const VIRTUAL: &str = "vfs:2,mark:1,vms_of_vfs:needed,mark:2,vms_of_vfs:whole,mark:3";

#[test]
fn of_functions_most_reads_are_served() {
    most_reads_are_served("small", FUNCTIONS, 5, [50.0, 13.0]);
}

#[test]
fn of_virtual_functions_most_reads_are_served() {
    most_reads_are_served("sriov", VIRTUAL, 8, [50.0, 11.0]);
}

#[test]
fn of_functions_nothing_served_is_stale() {
    nothing_served_is_stale("small", FUNCTIONS, 5);
}

#[test]
fn of_virtual_functions_nothing_served_is_stale() {
    nothing_served_is_stale("sriov", VIRTUAL, 8);
}

/// Boots `topology` behind an SMMU in each mode. What the test init says after
/// `word` is `expected`, and what Linux would have served never differs.
fn alike_in_each_mode(
    machine: impl Fn(&Lab) -> Machine,
    steps: &str,
    word: &str,
    expected: &[&str],
) {
    for mode in ["off", "on", "verify"] {
        let lab = Lab::new();
        let mut payload = payload(consumer::kernel(), &format!("{steps},compare,cache"));
        payload.bootargs.extend([" pcsc=", mode]);
        let machine = machine(&lab)
            .bootargs(consumer::IN_EACH_MODE)
            .machine_option("iommu=smmuv3")
            .smp(4)
            .payload(payload);
        let linux = lab.boot_linux(machine).expect("it boots");
        ended_well(&linux);
        assert_eq!(consumer::said(&linux, word), expected, "{mode}");
        consumer::matches_hardware(&linux, 1);
        let counters = consumer::counters(&linux);
        let last = counters.last().expect("there are counters");
        assert_eq!(last["differences"], 0, "{:?}", consumer::log(&linux));
        assert!(mode != "verify" || last["verified"] > 50, "{last:?}");
    }
}

/// The topology `small`, and an `NVMe` controller with two virtual functions.
fn with_virtual_functions(lab: &Lab) -> Machine {
    // More than the interrupt and the queues of one that are the share of each.
    const CONTROLLER: &str = "nvme,serial=v,bus=above,subsys=all,sriov_max_vfs=2,max_ioqpairs=20,\
                              msix_qsize=12,sriov_vq_flexible=16,sriov_vi_flexible=8";
    lab.machine("small").arguments([
        "-device",
        "pcie-root-port,id=above,chassis=9,slot=9",
        "-device",
        "nvme-subsys,id=all,nqn=all",
        "-device",
        CONTROLLER,
    ])
}

#[test]
fn a_function_that_its_guest_lets_reset_itself_is_restored() {
    alike_in_each_mode(
        |lab| lab.machine("small"),
        "backdoor:0000:03:00.0",
        "after a reset of its own ",
        &["0000:03:00.0 has BAR 0 0x10200004, as before"],
    );
}

#[test]
fn a_function_that_its_guest_resets_is_restored() {
    let functions = ["0000:03:00.0", "0000:07:00.1"];
    let [physical, virtual_one] = functions.map(|name| format!("guest_reset:{name}"));
    alike_in_each_mode(
        with_virtual_functions,
        &format!("vfs:1,{physical},{virtual_one}"),
        "after a reset by its guest ",
        &[
            "0000:03:00.0 has BAR 0 0x10400004, Command 0x6, as before",
            "0000:07:00.1 has BAR 0 0, Command 0x6, as before",
        ],
    );
}

#[test]
fn a_virtual_function_uses_the_interrupts_that_it_was_given_later() {
    alike_in_each_mode(
        with_virtual_functions,
        "vectors:4",
        "vectors of ",
        &["0000:07:00.1: 4"],
    );
}

#[test]
fn each_read_of_a_vendor_id_comes_to_the_hardware() {
    let lab = Lab::new();
    let steps = "mark:1,identify:0000:03:00.0,mark:2,cache";
    let machine = lab
        .machine("small")
        .payload(payload(consumer::kernel(), steps))
        .trace();
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    let accesses = linux.accesses();
    let asked = consumer::between(&accesses, 1, 2).iter();
    let of_the_id = |size| {
        let same = |access: &&Access| {
            (access.bus, access.devfn, access.offset, access.size) == (3, 0, 0, size)
        };
        asked.clone().filter(same).count()
    };
    assert_eq!([of_the_id(2), of_the_id(1)], [100; 2]);
}

/// A machine with functions that are isolated from each other, and some that are not.
fn neighbours() -> Fabric {
    let (mut fabric, host) = simulated::fabric();
    let integrated = || {
        FunctionModel::endpoint(0x1234, 7, 0xff_0000)
            .express(ExpressModel::new(PortType::RootComplexIntegratedEndpoint))
    };
    fabric.add_root(host, 1, 0, integrated());
    for function in [0, 1, 5] {
        fabric.add_root(host, 3, function, integrated().multi_function());
    }
    fabric.add_root(host, 4, 0, integrated());
    fabric
}

#[test]
fn iommu_groups_are_those_of_a_stock_linux() {
    let groups = |kernel: &Path| {
        let change = |machine: Machine| machine.machine_option("iommu=smmuv3");
        let payload = payload(kernel, "groups");
        let boot =
            Simulated::new(neighbours()).boot(&Lab::new(), payload, change, |_, _, _| Ok(()));
        let (linux, _) = boot.expect("it boots");
        ended_well(&linux);
        let mut groups: Vec<_> = consumer::said(&linux, "group ")
            .into_iter()
            .map(str::to_owned)
            .collect();
        groups.sort();
        groups
    };
    let expected = [
        "0000:00:01.0",
        "0000:00:03.0 0000:00:03.1 0000:00:03.5",
        "0000:00:04.0",
    ];
    assert_eq!(groups(consumer::kernel()), expected);
    if test::is_long() {
        assert_eq!(groups(linux::kernel()), expected, "of a stock Linux");
    }
}
