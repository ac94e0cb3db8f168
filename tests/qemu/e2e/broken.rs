//! Hardware that breaks the rules, below the real firmware and a real Linux:
//! each ends in a correct report and a started Linux. The witness is Linux: what
//! it finds, and whether what it serves is what the hardware returns past it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use warmbus_boot::report::console::Outcome;
use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, ExpressModel, Fabric, Fault, FunctionModel, HostId, NodeId, Quirk,
    SlotModel, SrIovModel, devices,
};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux::{LinuxBoot, Moment, payload};
use warmbus_qemu_tests::simulated::{self, Flaw, Simulated};
use warmbus_qemu_tests::{consumer, pci};

/// A port with what is broken below it, on device 1 of the root bus.
const PORT: &str = "0000:00:01.0";
/// What is below that port.
const BROKEN: &str = "0000:01:00.0";
/// A port with a sound function below it, on the last device of the root bus.
const SOUND_PORT: &str = "0000:00:1f.0";

fn express() -> ExpressModel {
    ExpressModel::new(PortType::RootPort)
        .ari_forwarding()
        .active_reporting()
}

/// A port with nothing plugged in.
fn empty_port(express: ExpressModel) -> FunctionModel {
    FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default()).express(express)
}

fn root_port() -> FunctionModel {
    empty_port(express()).link_up()
}

/// A function that no driver is for, with a list of each kind.
fn endpoint() -> FunctionModel {
    FunctionModel::endpoint(0x1234, 7, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
        .power_management(false, 0)
        .serial_number(1)
}

fn virtual_function() -> FunctionModel {
    FunctionModel::virtual_function(0xff_0000)
}

/// A machine, and what is said to the firmware and to Linux.
struct Broken {
    simulated: Simulated,
    firmware: &'static str,
    linux: &'static str,
}

impl Broken {
    /// The sound function, and what `build` adds.
    fn on(build: impl FnOnce(&mut Fabric, HostId)) -> Self {
        let (mut fabric, host) = simulated::fabric();
        build(&mut fabric, host);
        let sound = endpoint().bar(0, BarModel::memory64(0x4000));
        let port = fabric.add_root(host, 0x1f, 0, root_port());
        fabric.add_below(port, 0, 0, sound);
        Self {
            simulated: Simulated::new(fabric),
            firmware: "",
            linux: "",
        }
    }

    /// The sound function, and `model` below another port.
    fn below_a_port(model: FunctionModel) -> Self {
        Self::on(|fabric, host| {
            let port = fabric.add_root(host, 1, 0, root_port());
            fabric.add_below(port, 0, 0, model);
        })
    }

    /// Something that happens to the hardware before an access.
    fn before(mut self, what: impl FnMut(&mut Fabric) + Send + 'static) -> Self {
        self.simulated.before = Box::new(what);
        self
    }

    fn node(&self, name: &str) -> NodeId {
        self.simulated.fabric.find(name).expect("it has a name")
    }

    fn boot(self) -> Ended {
        self.boot_with("summary,sections,compare,cache", |_| ())
    }

    /// Boots to the end, with something done each time that Linux waits, of which
    /// it learns the number.
    fn boot_with(self, steps: &str, mut waiting: impl FnMut(usize)) -> Ended {
        let lab = Lab::new();
        let mut payload = payload(consumer::kernel(), steps);
        payload.bootargs = format!("{} {}", payload.bootargs, self.linux);
        let words = self.firmware;
        let ended = self.simulated.boot(
            &lab,
            payload,
            |machine| machine.bootargs("warmbus.show=summary").bootargs(words),
            |moment, _, _| {
                if let Moment::Waiting(number) = moment {
                    waiting(number);
                }
                Ok(())
            },
        );
        let (linux, fabric) = ended.expect("it boots");
        let console = linux.boot.console.join("\n");
        assert!(linux.ran_to_the_end(), "{console}");
        for trouble in ["BUG:", "Unable to handle", "Internal error", "cut here"] {
            assert!(!linux.kernel_log().contains(trouble), "{console}");
        }
        let ended = Ended { linux, fabric };
        ended.sound_function_works();
        ended
    }
}

/// What there is to see at the end.
struct Ended {
    linux: LinuxBoot,
    fabric: Fabric,
}

impl Ended {
    /// Whatever else is broken, the function beside it is in the report and in
    /// Linux, with an address that its port and it decode.
    fn sound_function_works(&self) {
        let functions = self.linux.functions().expect("Linux lists them");
        let [address, last, _] = functions[&self.sound()].resources[0];
        assert!(
            address != 0 && last - address == 0x3fff,
            "{address:#x} to {last:#x}"
        );
        let mut decoded = self.fabric.decoded().into_iter();
        assert!(decoded.any(|range| range.size == 0x4000 && range.base == address));
        let report = pci::of_report(&self.linux.boot.report());
        let mut regions = report
            .iter()
            .filter_map(|function| function.regions.get(&0));
        assert!(regions.any(|bar| bar.size == Some(0x4000) && bar.address.is_some()));
    }

    /// The functions of the report.
    fn reported(&self) -> Vec<String> {
        let functions = pci::of_report(&self.linux.boot.report());
        functions.iter().map(pci::Function::name).collect()
    }

    /// The functions that Linux has.
    fn found(&self) -> Vec<String> {
        let functions = self.linux.functions().expect("Linux lists them");
        functions.into_keys().collect()
    }

    /// Firmware and Linux found these functions beside the sound ones.
    #[track_caller]
    fn found_alike(&self, beside: &[&str]) {
        let found = self.found();
        assert_eq!(self.reported(), found);
        let sound = [SOUND_PORT.to_owned(), self.sound()];
        let others = found.iter().filter(|name| !sound.contains(name));
        assert_eq!(others.collect::<Vec<_>>(), beside);
    }

    /// The address that Linux has the sound function at: on the bus below its port.
    fn sound(&self) -> String {
        let functions = self.linux.functions().expect("Linux lists them");
        let bus = functions[SOUND_PORT].config[0x19];
        format!("0000:{bus:02x}:00.0")
    }

    /// Everything that the report has against the machine.
    fn complaints(&self) -> Vec<String> {
        let report = self.linux.boot.report();
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
        let own = list(&report["functions"]).into_iter().flat_map(|function| {
            let sbdf = text(&function["sbdf"]);
            list(&function["anomalies"])
                .into_iter()
                .map(move |what| format!("{sbdf}: {}", text(&what)))
        });
        let anomalies = list(&report["anomalies"]);
        let others = anomalies
            .iter()
            .map(|one| format!("{}: {}", text(&one["sbdf"]), text(&one["text"])));
        own.chain(others).collect()
    }

    /// The report says this of the machine, and so does the summary.
    #[track_caller]
    fn reports(&self, complaint: &str) {
        let complaints = self.complaints();
        assert!(
            complaints
                .iter()
                .any(|anomaly| anomaly.starts_with(complaint)),
            "{complaints:#?}"
        );
        assert!(!self.linux.boot.lines_with(&[complaint]).is_empty());
    }

    /// The cache is in use, and nothing that Linux reports is other than what the
    /// hardware returns.
    #[track_caller]
    fn with_the_cache(&self) {
        assert_eq!(self.linux.boot.outcome, Some(Outcome::Ok));
        let lines = self
            .linux
            .boot
            .lines_with(&["starting linux at", ", with the cache"]);
        assert_eq!(lines.len(), 1, "{:#?}", self.linux.boot.console);
        let counters = &consumer::counters(&self.linux)[0];
        assert!(
            counters["restored"] >= 3 && counters["rejected"] == 0,
            "{counters:?}"
        );
        consumer::matches_hardware(&self.linux, 1);
    }

    /// Linux was started as without the firmware, and the one line that says why
    /// has `why` in it.
    #[track_caller]
    fn without_cache(&self, why: &str) {
        let boot = &self.linux.boot;
        assert_eq!(
            boot.lines_with(&["starting linux at", ", without the cache"])
                .len(),
            1
        );
        let lines = boot.lines_with(&["no cache handed over"]);
        assert!(lines.len() == 1 && lines[0].contains(why), "{lines:?}");
    }
}

#[test]
fn capability_lists_that_lead_in_circles() {
    let model = endpoint()
        .link_capability(0x7c, 0x7c)
        .link_extended(0x100, 0x100);
    let ended = Broken::below_a_port(model).boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: capability list leads from");
    ended.reports("0000:01:00.0: extended capability list leads from 100 back to 100");
    ended.with_the_cache();
}

#[test]
fn capability_lists_that_leave_their_space() {
    let model = endpoint()
        .link_capability(0x7c, 0x04)
        .link_extended(0x100, 0x0fc);
    let ended = Broken::below_a_port(model).boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: capability pointer at 7d leads into the header, to 04");
    ended.reports(
        "0000:01:00.0: extended capability at 100 leads out of the extended space, to 0fc",
    );
    ended.with_the_cache();
}

#[test]
fn a_header_of_type_7f() {
    let ended = Broken::below_a_port(endpoint().set(0x0e, Width::Byte, 0x7f)).boot();
    ended.reports("0000:01:00.0: header type 7f is not known");
    // Linux takes no notice of it.
    let mut reported = ended.reported();
    reported.retain(|name| name != BROKEN);
    assert_eq!(ended.found(), reported);
    ended.with_the_cache();
}

#[test]
fn all_ones_in_the_middle_of_a_list() {
    let model = endpoint().fault(Fault::Hole {
        from: 0x40,
        to: 0x60,
    });
    let ended = Broken::below_a_port(model).boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: capability at 40 reads all ones");
    ended.with_the_cache();
}

#[test]
fn a_device_that_is_never_ready() {
    // Without visibility of RRS, Linux would wait for a minute.
    let ended = Broken::on(|fabric, host| {
        let port = fabric.add_root(
            host,
            1,
            0,
            empty_port(express().without_rrs_visibility()).link_up(),
        );
        fabric.add_below(port, 0, 0, endpoint().ready_at(u64::MAX));
    })
    .boot();
    ended.found_alike(&[PORT]);
    // It may still come, and be a bridge.
    ended.without_cache("the link of the port is up, and no device answers yet");
}

#[test]
fn a_link_that_drops_during_the_scan() {
    let broken = Broken::on(|fabric, host| {
        let port = fabric.add_root(host, 1, 0, root_port().named("port"));
        fabric.add_below(port, 0, 0, endpoint().named("behind"));
    });
    let (port, behind) = (broken.node("port"), broken.node("behind"));
    // Once its Vendor ID was read, and something of the rest.
    let ended = broken
        .before(move |fabric| {
            if fabric.accesses(behind) == 5 {
                fabric.drop_link(port);
            }
        })
        .boot();
    ended.found_alike(&[PORT]);
    ended.reports("0000:01:00.0: stopped answering while its capabilities were read");
    ended.without_cache("0000:01:00.0: there is a function that was excluded");
}

#[test]
fn a_function_that_vanishes() {
    for (accesses, doing) in [
        (5, "its capabilities were read"),
        (18, "its BARs were sized"),
        (30, "it was captured"),
    ] {
        let fault = Fault::Vanishes { accesses };
        let ended = Broken::below_a_port(devices::nvme().fault(fault)).boot();
        ended.reports(&format!("0000:01:00.0: stopped answering while {doing}"));
        let found = ended.found();
        assert!(!found.iter().any(|name| name == BROKEN), "{found:?}");
        if accesses == 30 {
            ended.with_the_cache();
        } else {
            ended.without_cache("0000:01:00.0: there is a function that was excluded");
            consumer::matches_hardware(&ended.linux, 1);
        }
    }
}

#[test]
fn a_bridge_whose_bus_numbers_do_not_stick() {
    let model = devices::upstream_port().hardwired(0x18, Width::Dword, 0);
    let ended = Broken::below_a_port(model).boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: bus numbers do not stick");
    ended.without_cache("0000:01:00.0: the bridge has no bus number");
}

#[test]
fn bridges_with_hardwired_windows() {
    let model = devices::upstream_port().hardwired(0x20, Width::Dword, 0x1234_5670);
    let ended = Broken::below_a_port(model).boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: memory window is hardwired");
    // Its bus numbers can be kept, and Linux assigns addresses as it does alone.
    ended.with_the_cache();
    let lines = ended.linux.boot.lines_with(&["it assigns bars below"]);
    assert_eq!(lines.len(), 1, "{:#?}", ended.linux.boot.console);
}

#[test]
fn bars_with_impossible_masks() {
    let model = endpoint()
        .set(0x10, Width::Dword, 4)
        .writable(0x10, Width::Dword, 0x0f0f_0f00)
        .set(0x18, Width::Dword, 6)
        .writable(0x18, Width::Dword, 0xffff_ffff)
        .writable(4, Width::Word, 0x547);
    let ended = Broken::below_a_port(model).boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: BAR 0 is invalid: its address mask is 0xf0f0f00");
    ended.with_the_cache();
}

#[test]
fn more_virtual_functions_than_there_are_numbers() {
    let sr_iov = SrIovModel {
        total_vfs: 65535,
        ..SrIovModel::default()
    };
    let mut broken = Broken::below_a_port(endpoint().sriov(sr_iov, virtual_function()));
    broken.firmware = "warmbus.vfs=all";
    let ended = broken.boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: 65535 VFs would end on bus 0x100");
    // A Linux that gives other bus numbers does not come to its end here.
    ended.with_the_cache();
}

#[test]
fn virtual_functions_on_top_of_each_other_and_of_others() {
    let on_each_other = SrIovModel {
        total_vfs: 4,
        layout: |_, _| (0, 0),
        ..SrIovModel::default()
    };
    // The function that is there already is number 2.
    let on_another = SrIovModel {
        total_vfs: 4,
        layout: |_, _| (1, 1),
        ..SrIovModel::default()
    };
    let mut broken = Broken::on(|fabric, host| {
        let first = fabric.add_root(host, 1, 0, root_port());
        fabric.add_below(
            first,
            0,
            0,
            endpoint().sriov(on_each_other, virtual_function()),
        );
        let second = fabric.add_root(host, 2, 0, root_port());
        let physical = endpoint()
            .multi_function()
            .sriov(on_another, virtual_function());
        fabric.add_below(second, 0, 0, physical);
        fabric.add_below(second, 0, 2, endpoint().multi_function());
    });
    broken.firmware = "warmbus.vfs=all";
    let ended = broken.boot();
    ended.found_alike(&[PORT, "0000:00:02.0", BROKEN, "0000:02:00.0", "0000:02:00.2"]);
    ended.reports("0000:01:00.0: VF offset 0 and stride 0 put 4 VFs on top of each other");
    ended.reports("0000:02:00.0: its VFs are excluded");
    ended.with_the_cache();
}

#[test]
fn accesses_that_end_in_an_external_abort() {
    // As root complexes do with a device that is not ready, until it is.
    let broken = Broken::on(|fabric, host| {
        let aborts = Fault::Aborts {
            from: 0x100,
            to: 0x104,
        };
        let model = endpoint().named("aborts").fault(aborts);
        let port = fabric.add_root(host, 1, 0, root_port());
        fabric.add_below(port, 0, 0, model);
    });
    let node = broken.node("aborts");
    let ended = broken
        .before(move |fabric| {
            if fabric.accesses(node) == 20 {
                fabric.repair(node);
            }
        })
        .boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.reports("0000:01:00.0: access to offset 100 ended in an external abort");
    ended.with_the_cache();
}

#[test]
fn a_device_that_answers_on_every_number() {
    let ended = Broken::on(|fabric, host| {
        let port = root_port().quirk(Quirk::ForwardsEveryDevice);
        let port = fabric.add_root(host, 1, 0, port);
        let model = endpoint()
            .quirk(Quirk::EveryDevice)
            .quirk(Quirk::EveryFunction);
        fabric.add_below(port, 0, 0, model);
    })
    .boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.with_the_cache();
}

#[test]
fn multi_function_devices_with_holes() {
    let ended = Broken::on(|fabric, host| {
        for function in [0, 3, 7] {
            fabric.add_root(host, 4, function, endpoint().multi_function());
        }
        // Without a function 0 there is no device.
        fabric.add_root(host, 5, 2, endpoint().multi_function());
    })
    .boot();
    ended.found_alike(&["0000:00:04.0", "0000:00:04.3", "0000:00:04.7"]);
    ended.with_the_cache();
}

#[test]
fn bridges_that_form_a_loop() {
    let ended = Broken::on(|fabric, host| {
        let port = fabric.add_root(host, 1, 0, root_port());
        let first = fabric.add_below(port, 0, 0, devices::upstream_port());
        let last = devices::downstream_port(1).link_up();
        let last = fabric.add_below(first, 0, 0, last);
        fabric.loop_back(last, first);
    })
    .boot();
    ended.reports(
        "0000:01:00.0: its bus numbers were overwritten from below: the bridges form a loop",
    );
    ended.without_cache("the assignment is not consistent");
}

#[test]
fn a_timer_that_does_not_run() {
    let mut broken = Broken::on(|fabric, host| {
        let port = fabric.add_root(host, 1, 0, root_port());
        fabric.add_below(port, 0, 0, endpoint());
        // There is a link to wait for, of which nobody knows how long it takes.
        fabric.add_root(host, 2, 0, empty_port(express()));
    });
    broken.simulated.flaws.push(Flaw::NoFrequency);
    let ended = broken.boot();
    ended.found_alike(&[PORT, "0000:00:02.0", BROKEN]);
    assert_eq!(ended.linux.boot.number("/machine/timer_hz"), 0);
    ended.with_the_cache();
}

#[test]
fn a_timer_that_goes_back() {
    let mut broken = Broken::below_a_port(endpoint());
    broken.simulated.flaws.push(Flaw::CounterGoesBack);
    let ended = broken.boot();
    ended.found_alike(&[PORT, BROKEN]);
    ended.with_the_cache();
}

#[test]
fn a_device_that_is_pulled_out_and_another_put_in_while_linux_runs() {
    let mut broken = Broken::on(|fabric, host| {
        let port = fabric.add_root(
            host,
            1,
            0,
            empty_port(express().slot(SlotModel::HOT_PLUG))
                .link_up()
                .named("port"),
        );
        fabric.add_below(port, 0, 0, endpoint().named("first"));
    });
    // No interrupt comes from the fabric.
    broken.linux = "pciehp.pciehp_poll_mode=1 pciehp.pciehp_poll_time=1";
    let (port, first) = (broken.node("port"), broken.node("first"));
    let begun = Arc::new(AtomicUsize::new(0));
    let waits = Arc::clone(&begun);
    let steps = "summary,wait,functions:3,wait,functions:4,compare,cache,sections";
    let ended = broken
        .before(move |fabric| match begun.swap(0, Ordering::Relaxed) {
            1 => fabric.drop_link(port),
            2 => {
                let second = FunctionModel::endpoint(0x4321, 9, 0xff_0000)
                    .express(ExpressModel::new(PortType::Endpoint))
                    .bar(0, BarModel::memory32(0x1000));
                fabric.plug_in(port, first, second);
            }
            _ => {}
        })
        .boot_with(steps, |wait| waits.store(wait + 1, Ordering::Relaxed));

    let functions = ended.linux.boot.lines_with(&["warmbus: linux: functions"]);
    assert!(
        functions[0].ends_with(" 3") && functions[1].ends_with(" 4"),
        "{functions:?}"
    );
    let found = ended.linux.functions().expect("Linux lists them");
    assert_eq!(found[BROKEN].config[..4], [0x21, 0x43, 9, 0]);
    ended.found_alike(&[PORT, BROKEN]);
    ended.with_the_cache();
}
