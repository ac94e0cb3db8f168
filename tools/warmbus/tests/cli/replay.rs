//! `warmbus replay`.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use warmbus_kho::KhoAbi;
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::topologies;

use crate::machine::Machine;
use crate::{Folder, data, warmbus};

/// Writes accesses as QEMU does, each carried out on a fabric.
struct Recorder<'a> {
    machine: &'a mut Machine,
    trace: String,
}

impl Recorder<'_> {
    fn line(&mut self, kind: &str, sbdf: Sbdf, offset: u16, width: Width, value: u32) {
        let address = u32::from(sbdf.routing_id()) << 12 | u32::from(offset);
        let size = width.bytes();
        writeln!(
            self.trace,
            "memory_region_ops_{kind} cpu 0 mr 0x1 addr {address:#x} value {value:#x} size {size} name 'pcie-mmcfg-mmio'"
        )
        .expect("a string takes it");
    }

    fn read(&mut self, sbdf: Sbdf, offset: u16, width: Width) -> u32 {
        let fabric = self.machine.captured.config.access_mut();
        let value = fabric.read(sbdf, ConfigOffset::wrapping(offset), width);
        self.line("read", sbdf, offset, width, value);
        value
    }

    fn write(&mut self, sbdf: Sbdf, offset: u16, width: Width, value: u32) {
        let fabric = self.machine.captured.config.access_mut();
        fabric.write(sbdf, ConfigOffset::wrapping(offset), width, value);
        self.line("write", sbdf, offset, width, value);
    }
}

const NVME: Sbdf = Sbdf::new(0, 3, 0, 0);

fn outcomes(value: &Value, run: &str) -> Value {
    value[run]["outcomes"].clone()
}

#[test]
fn each_read_of_a_trace_has_the_outcome_that_was_worked_out_by_hand() {
    let mut machine = Machine::boot(topologies::small());
    let folder = Folder::new();
    let (memory, _) = machine.memory(KhoAbi::V4);
    let memory = folder.file("memory", memory.bytes());
    let mut recorder = Recorder {
        machine: &mut machine,
        trace: String::from("a line of something else\n"),
    };
    recorder.read(Sbdf::new(0, 9, 0, 0), 0, Width::Dword); // absent
    recorder.read(NVME, 0x00, Width::Dword); // first sight; warm: hit
    recorder.read(NVME, 0x08, Width::Dword); // not part of the walk
    recorder.read(NVME, 0x06, Width::Word); // volatile
    recorder.read(NVME, 0x3c, Width::Byte); // read by the walk
    recorder.write(NVME, 0x3c, Width::Byte, 0x21);
    recorder.read(NVME, 0x3c, Width::Byte); // dropped by the write
    recorder.read(NVME, 0x3c, Width::Byte); // hit again
    // Sizing: the mask of the handover answers both reads after the writes.
    let bar = recorder.read(NVME, 0x10, Width::Dword);
    recorder.write(NVME, 0x10, Width::Dword, 0xffff_ffff);
    recorder.read(NVME, 0x10, Width::Dword);
    recorder.write(NVME, 0x10, Width::Dword, bar);
    recorder.read(NVME, 0x10, Width::Dword);
    let trace = folder.file("trace", recorder.trace);

    let value = warmbus(&["replay", &trace, "--cache", &memory, "--json"])
        .ended(0)
        .json();
    assert_eq!(value["schema"], "warmbus-replay/1");
    assert_eq!(value["writes"], 3);
    for run in ["cold", "warm"] {
        assert_eq!(value[run]["reads"], 10);
        assert_eq!(value[run]["stale"], json!([]));
        assert_eq!(value[run]["functions"], json!(["0000:03:00.0"]));
    }
    assert_eq!(
        outcomes(&value, "warm"),
        json!({"absent": 1, "hit": 7, "volatile": 1, "written": 1})
    );
    // Cold, the class and the BAR were never read before, and the first sizing
    // has to ask what is left of the ones.
    assert_eq!(
        outcomes(&value, "cold"),
        json!({"absent": 1, "cold": 2, "first-sight": 1, "hit": 3, "volatile": 1, "written": 2})
    );
    let line = value["registers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|register| register["register"] == "Interrupt Line")
        .expect("it was read");
    assert_eq!(line["warm"]["dropped_by"], json!({"Interrupt Line": 1}));
}

#[test]
fn a_boot_that_qemu_recorded_has_no_stale_hit_and_a_capture_saves_reads() {
    let trace = fs::read_to_string(data("small.trace")).unwrap();
    let count = |kind: &str| trace.lines().filter(|line| line.contains(kind)).count() as u64;
    let ran = warmbus(&[
        "replay",
        &data("small.trace"),
        "--cache",
        &data("small.dump"),
        "--json",
    ]);
    let value = ran.ended(0).json();
    assert_eq!(value["writes"], count("ops_write"));
    for run in ["cold", "warm"] {
        assert_eq!(value[run]["reads"], count("ops_read"));
        assert_eq!(value[run]["functions"].as_array().map(Vec::len), Some(9));
        let all = value[run]["outcomes"].as_object().unwrap().values();
        assert_eq!(
            all.filter_map(Value::as_u64).sum::<u64>(),
            count("ops_read")
        );
        let of_registers = value["registers"].as_array().unwrap().iter();
        let reads = of_registers.filter_map(|register| register[run]["reads"].as_u64());
        assert_eq!(reads.sum::<u64>(), count("ops_read"));
    }
    assert_eq!(value["cold"]["stale"], json!([]));
    let hits = |run: &str| value[run]["hits"].as_u64().unwrap();
    assert!(hits("warm") > hits("cold"));
}

#[test]
fn a_capture_with_a_wrong_byte_gives_a_stale_hit_with_its_line() {
    let folder = Folder::new();
    let dump = fs::read_to_string(data("small.dump")).unwrap();
    // The host bridge: the byte of its Subsystem ID.
    let at = dump.find("\n20: ").unwrap() + 5 + 14 * 3;
    let mut wrong = dump.clone();
    wrong.replace_range(at..at + 2, "ee");
    assert_ne!(wrong, dump);
    let wrong = folder.file("wrong", wrong);
    let mut trace = String::new();
    let recorded = fs::read_to_string(data("small.trace")).unwrap();
    trace += recorded.lines().next().expect("the ID of 00:00.0");
    trace += "\nmemory_region_ops_read cpu 0 mr 0x1 addr 0x2e value 0x1100 size 2 name 'pcie-mmcfg-mmio'\n";
    let trace = folder.file("trace", trace);
    let right = warmbus(&["replay", &trace, "--cache", &data("small.dump"), "--json"]);
    assert_eq!(right.ended(0).json()["warm"]["stale"], json!([]));
    let value = warmbus(&["replay", &trace, "--cache", &wrong, "--json"])
        .ended(0)
        .json();
    assert_eq!(
        value["warm"]["stale"],
        json!([{"line": 2, "sbdf": "0000:00:00.0", "register": "Subsystem ID",
            "cached": 0x11ee, "recorded": 0x1100}])
    );
    let text = warmbus(&["replay", &trace, "--cache", &wrong]).ended(0).out;
    assert!(text.contains("line 2: 0000:00:00.0 Subsystem ID: cached 11ee, recorded 1100"));
}

#[test]
fn what_a_handover_knows_about_writes_serves_every_sizing() {
    let mut machine = Machine::boot(topologies::switch());
    let folder = Folder::new();
    let (memory, _) = machine.memory(KhoAbi::V4);
    let memory = folder.file("memory", memory.bytes());
    let mut registers = Vec::new();
    for (sbdf, block) in machine.captured.config.blocks() {
        for mask in block.write_masks() {
            let is_bus_numbers = block.header_type() == 1 && mask.offset == 0x18;
            if mask.writable | mask.fixed == u32::MAX && !is_bus_numbers {
                registers.push((sbdf, mask.offset));
            }
        }
    }
    assert!(registers.len() > 60, "{}", registers.len());
    let mut recorder = Recorder {
        machine: &mut machine,
        trace: String::new(),
    };
    for &(sbdf, offset) in &registers {
        let value = recorder.read(sbdf, offset, Width::Dword);
        recorder.write(sbdf, offset, Width::Dword, u32::MAX);
        recorder.read(sbdf, offset, Width::Dword);
        recorder.write(sbdf, offset, Width::Dword, value);
        recorder.read(sbdf, offset, Width::Dword);
    }
    let trace = folder.file("trace", recorder.trace);
    let value = warmbus(&["replay", &trace, "--cache", &memory, "--json"])
        .ended(0)
        .json();
    assert_eq!(
        outcomes(&value, "warm"),
        json!({"hit": registers.len() * 3})
    );
    assert_eq!(value["warm"]["stale"], json!([]));
    assert_eq!(value["warm"]["own_reads"], 0);
}
