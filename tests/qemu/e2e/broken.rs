//! Hardware that breaks the rules, below the real firmware and a real Linux:
//! each ends in a correct report and a started Linux.

use warmbus::pci::{PortType, Width};
use warmbus_fabric::{
    BarModel, BridgeWindows, ExpressModel, Fabric, Fault, FunctionModel, HostId, NodeId, Quirk,
    SrIovModel, devices,
};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};

fn root_port() -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort)
        .ari_forwarding()
        .active_reporting();
    FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default()).express(express)
}

fn endpoint(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

fn run(
    name: &str,
    build: impl FnOnce(&mut Fabric, HostId),
    before: impl FnOnce(&Fabric) -> simulated::Before,
    words: &str,
) {
    let (mut fabric, host) = simulated::fabric();
    build(&mut fabric, host);
    let sound = endpoint(8).bar(0, BarModel::memory64(0x4000));
    let port = fabric.add_root(host, 20, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, sound);
    let lab = Lab::new();
    let steps = "summary,sections,cache,compare";
    let before = before(&fabric);
    let mut simulated = Simulated::new(fabric);
    simulated.before = before;
    let t = std::time::Instant::now();
    let ended = simulated.boot(
        &lab,
        payload(consumer::kernel(), steps),
        |machine| machine.bootargs(words),
        |_, _, _| Ok(()),
    );
    println!("===== {name} {:?}", t.elapsed());
    let (linux, fabric) = match ended {
        Ok(e) => e,
        Err(e) => {
            println!("FAILED {e:?}");
            return;
        }
    };
    println!(
        "outcome {:?} started {} done {} off {}",
        linux.boot.outcome, linux.started, linux.done, linux.powered_off
    );
    for l in &linux.boot.console {
        if !l.starts_with("warmbus: linux: cache") {
            println!("   | {l}");
        }
    }
    if linux.boot.report.is_none() {
        return;
    }
    let report = linux.boot.report();
    println!(
        "reachable {:?}",
        fabric
            .reachable()
            .keys()
            .map(|s| s.to_string())
            .collect::<Vec<_>>()
    );
    println!(
        "report {:?}",
        report["functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| (f["address"].to_string(), f["anomalies"].to_string()))
            .collect::<Vec<_>>()
    );
    println!("anomalies {}", report["anomalies"]);
    println!(
        "linux {:?}",
        linux
            .functions()
            .map(|f| f.keys().cloned().collect::<Vec<_>>())
    );
    if let Some(c) = consumer::counters(&linux).first() {
        println!(
            "restored {:?} rejected {:?} hits {:?}",
            c.get("restored"),
            c.get("rejected"),
            c.get("hits")
        );
    }
    if linux
        .boot
        .linux
        .contains_key(&xtask::console::Section::LinuxLog)
    {
        for l in linux
            .kernel_log()
            .lines()
            .filter(|l| l.contains("pci") && l.contains("0000:"))
        {
            println!("   > {l}");
        }
    }
}

fn none(_: &Fabric) -> simulated::Before {
    Box::new(|_, _| ())
}

fn below(name: &str, broken: FunctionModel, words: &str) {
    run(
        name,
        |f, h| {
            let p = f.add_root(h, 1, 0, root_port().link_up());
            f.add_below(p, 0, 0, broken);
        },
        none,
        words,
    );
}

#[test]
fn explore() {
    let model = || endpoint(7).power_management(false, 0).serial_number(1);
    let which = std::env::var("WHICH").unwrap_or_default();
    let on = |n: &str| which.is_empty() || which.split(',').any(|w| w == n);
    if on("1") {
        below(
            "cycle",
            model()
                .link_capability(0x7c, 0x7c)
                .link_extended(0x100, 0x100),
            "",
        );
    }
    if on("2") {
        below(
            "leave",
            model()
                .link_capability(0x7c, 0x04)
                .link_extended(0x100, 0x0fc),
            "",
        );
    }
    if on("3") {
        below("header 7f", endpoint(7).set(0x0e, Width::Byte, 0x7f), "");
    }
    if on("4") {
        below(
            "ones",
            devices::nvme().fault(Fault::Hole {
                from: 0x40,
                to: 0x60,
            }),
            "",
        );
    }
    if on("6") {
        run(
            "drop",
            |f, h| {
                let p = f.add_root(h, 1, 0, root_port().named("p").link_up());
                f.add_below(p, 0, 0, model());
            },
            |f| {
                let p: NodeId = f.find("p").unwrap();
                Box::new(move |f, n| {
                    if n == 60 {
                        f.drop_link(p)
                    }
                })
            },
            "",
        );
    }
    if on("7") {
        below(
            "vanish",
            devices::nvme().fault(Fault::Vanishes { accesses: 30 }),
            "",
        );
    }
    if on("8") {
        below(
            "numbers",
            devices::upstream_port().hardwired(0x18, Width::Dword, 0),
            "",
        );
    }
    if on("9") {
        below(
            "bars",
            endpoint(7)
                .set(0x10, Width::Dword, 4)
                .writable(0x10, Width::Dword, 0x0f0f_0f00)
                .set(0x18, Width::Dword, 6)
                .writable(0x18, Width::Dword, 0xffff_ffff)
                .writable(4, Width::Word, 0x547),
            "",
        );
    }
    if on("10") {
        below(
            "65535",
            endpoint(7).sriov(
                SrIovModel {
                    total_vfs: 65535,
                    ..SrIovModel::default()
                },
                FunctionModel::virtual_function(0xff_0000),
            ),
            "warmbus.vfs=all",
        );
    }
    if on("11") {
        below(
            "overlap",
            endpoint(7).sriov(
                SrIovModel {
                    total_vfs: 4,
                    layout: |_, _| (0, 0),
                    ..SrIovModel::default()
                },
                FunctionModel::virtual_function(0xff_0000),
            ),
            "warmbus.vfs=all",
        );
    }
    if on("12") {
        below(
            "abort",
            devices::nvme().fault(Fault::Aborts {
                from: 0x40,
                to: 0x60,
            }),
            "",
        );
    }
    if on("13") {
        run(
            "every",
            |f, h| {
                let p = f.add_root(
                    h,
                    1,
                    0,
                    root_port().link_up().quirk(Quirk::ForwardsEveryDevice),
                );
                f.add_below(
                    p,
                    0,
                    0,
                    endpoint(7)
                        .quirk(Quirk::EveryDevice)
                        .quirk(Quirk::EveryFunction),
                );
            },
            none,
            "",
        );
    }
    if on("14") {
        run(
            "holes",
            |f, h| {
                for function in [0, 3, 7] {
                    f.add_root(h, 4, function, endpoint(7).multi_function());
                }
                f.add_root(h, 5, 2, endpoint(8).multi_function());
            },
            none,
            "",
        );
    }
    if on("15") {
        below(
            "windows",
            devices::upstream_port().hardwired(0x20, Width::Dword, 0x1234_5678),
            "",
        );
    }
    if on("16") {
        run(
            "loop",
            |f, h| {
                let p = f.add_root(h, 1, 0, root_port().link_up());
                let first = f.add_below(p, 0, 0, devices::upstream_port());
                let last = f.add_below(first, 0, 0, devices::downstream_port(1).link_up());
                f.loop_back(last, first);
            },
            none,
            "",
        );
    }
    if on("5") {
        below("never ready", endpoint(7).ready_at(u64::MAX), "");
    }
}
