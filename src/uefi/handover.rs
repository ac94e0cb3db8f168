//! What is prepared for a kernel: read, decided, allocated, built, verified, and
//! then named in a table.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use log::{info, warn};
use warmbus_boot::hosts::open_hosts;
use warmbus_boot::load_options::LoadOptions;
use warmbus_boot::measured_access::{MeasuredAccess, Ticks as _};
use warmbus_boot::options::Options;
use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_boot::recorder::Recorder;
use warmbus_boot::resident::{Candidate, LoadedKernel, ResidentPlan};
use warmbus_fdt::HEADER_SIZE;
use warmbus_linux::detect;
use warmbus_machine::Machine;
use warmbus_memory::bytes::be_u32;
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemory as _};

use super::Why;
use super::attempt::Attempt;
use super::chain;
use super::mapped::{MapNow, Mapped};
use super::pages::Pages;
use super::root_bridges::RootBridges;
use super::tables::{self, DeviceTreeTable};
use crate::arch::timer::{Timer, stamp};
use crate::console::{self, println};
use crate::image::Image;
use crate::mem::heap;
use crate::mem::physical::PhysicalMemory;
use crate::report_output;

/// The hardware, counted and timed.
type Hardware = MeasuredAccess<RootBridges, Timer>;

/// Sizes of the heap, of which the first that there is is taken.
const HEAPS: [u64; 4] = [64 << 20, 24 << 20, 8 << 20, 2 << 20];

/// All that stays from one kernel to the next.
pub(super) struct Resident {
    timer: Timer,
    options: Options,
    report_file: Option<String>,
    heap: Option<Pages>,
    installed: Option<Installed>,
}

/// What Linux finds. It is taken back with this value, the table first.
struct Installed {
    _table: DeviceTreeTable,
    _memory: Vec<Pages>,
}

/// What was read.
struct Survey {
    machine: Machine,
    captured: Captured<Hardware>,
    recorder: Recorder<Timer>,
}

impl Resident {
    pub(super) fn new(timer: Timer, options: Options, load_options: &LoadOptions) -> Self {
        Self {
            timer,
            options,
            report_file: load_options.report_file.clone(),
            heap: None,
            installed: None,
        }
    }

    /// Reads and reports, and hands nothing over.
    pub(super) fn report(&mut self) -> Result<(), Why> {
        let _attempt = Attempt::begin()?;
        let survey = self.survey()?;
        self.print(&survey);
        Ok(())
    }

    /// Prepares the handover for a kernel whose EFI stub is running.
    pub(super) fn prepare(&mut self, kernel: LoadedKernel<'_>) {
        // What was for another kernel.
        self.installed = None;
        let release = detect::release(kernel.image).unwrap_or("of unknown version");
        info!(
            "Warmbus {} found Linux {release} at {}",
            env!("CARGO_PKG_VERSION"),
            kernel.range,
        );
        match self.try_to_prepare(kernel) {
            Ok(installed) => {
                self.installed = Some(installed);
                println!("warmbus: result: ok");
            }
            Err(why) => self.refuse(&why.to_string()),
        }
    }

    /// Says why there is nothing for a kernel.
    pub(super) fn refuse(&mut self, why: &str) {
        self.installed = None;
        warn!("no cache handed over: {why}; Linux boots without it");
        println!("warmbus: result: ok");
    }

    fn try_to_prepare(&mut self, kernel: LoadedKernel<'_>) -> Result<Installed, Why> {
        let candidate = Candidate::new(&self.options, kernel).map_err(Why::from);
        // Nothing is read for a kernel that takes no handover, but for a report.
        let candidate = match candidate {
            Err(why) if !self.wants_report() => return Err(why),
            candidate => candidate,
        };
        let _attempt = Attempt::begin()?;
        let mut survey = self.survey()?;
        // Drivers of UEFI go on with their devices, and stop when Linux takes
        // over: only what none of them can change is handed over.
        survey.captured.config.retain_constants();
        let installed = candidate.and_then(|candidate| Self::install(&survey, candidate));
        self.print(&survey);
        installed
    }

    const fn wants_report(&self) -> bool {
        let Options {
            report,
            show,
            lspci,
            ..
        } = &self.options;
        self.report_file.is_some() || *report || show.tree || show.summary || *lspci
    }

    fn install(survey: &Survey, candidate: Candidate<'_>) -> Result<Installed, Why> {
        let Survey {
            machine, captured, ..
        } = survey;
        let plan = ResidentPlan::new(machine, captured, candidate)?;
        let memory: Vec<Pages> = plan.ranges().map(Pages::at).collect::<Result<_, Why>>()?;
        let mapped = memory.iter().map(Pages::range).collect();
        // SAFETY: UEFI has given all of it, and nothing else refers to it.
        let mut target = unsafe { PhysicalMemory::new(mapped, Vec::new()) };
        let other = match tables::other_device_tree() {
            Some(place) => Some(copy_tree(place)?),
            None => None,
        };
        let (built, tree) =
            plan.build(machine, captured, stamp(), &mut target, other.as_deref())?;
        let table = DeviceTreeTable::install(&tree)?;
        let mut description = String::new();
        // A string takes whatever is written to it.
        let _ = built.describe(&mut description, plan.memory_plan());
        console::print(format_args!("{description}"));
        Ok(Installed {
            _table: table,
            _memory: memory,
        })
    }

    /// Finds the machine and reads its configuration space.
    fn survey(&mut self) -> Result<Survey, Why> {
        let began = self.timer.ticks();
        self.provide_heap()?;
        let rsdp = tables::rsdp().ok_or("there are no ACPI tables")?;
        let map = MapNow::read()?;
        let memory = Mapped::of(&map);
        let bridges = RootBridges::find();
        let machine = Machine::from_uefi(&memory, rsdp, memory.map(), &bridges.descriptions())?;
        for warning in machine.warnings.iter().chain(&self.options.warnings) {
            warn!("{warning}");
        }
        let (hosts, access) = open_hosts(&machine, &self.options, |_| bridges)?;
        let access = MeasuredAccess::new(access, self.timer);
        let mut recorder = Recorder::new(self.timer, began);
        let pipeline = Pipeline::from_options(&self.options);
        let mut clock = self.timer;
        let captured = pipeline.run(&hosts, access, &mut clock, &mut recorder);
        Ok(Survey {
            machine,
            captured,
            recorder,
        })
    }

    /// Takes memory for the heap, the first time.
    fn provide_heap(&mut self) -> Result<(), Why> {
        if self.heap.is_some() {
            return Ok(());
        }
        let pages = HEAPS.iter().find_map(|&size| Pages::anywhere(size).ok());
        let pages = pages.ok_or("there is no memory for a heap")?;
        // SAFETY: UEFI has given it, once, and it stays as long as this image.
        unsafe { heap::grow(pages.range()) };
        self.heap = Some(pages);
        Ok(())
    }

    fn print(&self, survey: &Survey) {
        let Survey {
            machine,
            captured,
            recorder,
        } = survey;
        let timer = self.timer;
        let image = Image::running();
        let report = report_output::report(captured, recorder, machine, &image, timer);
        report_output::print(&report, &self.options);
        report_output::print_sections(&report, captured, &self.options);
        if let Some(path) = &self.report_file {
            let mut text = String::new();
            // A string takes whatever is written to it.
            let _ = warmbus_boot::report::json::write(&report, &mut text);
            if let Err(why) = chain::write_file(path, &text) {
                warn!("there is no report in a file: {why}");
            }
        }
    }
}

/// Most bytes of a device tree (`MAX_FDT_SIZE` of Linux).
const LARGEST_TREE: u32 = 2 << 20;

/// A copy of the device tree at `place`.
fn copy_tree(place: PhysAddr) -> Result<Vec<u8>, Why> {
    let map = MapNow::read()?;
    let memory = Mapped::of(&map);
    let header = memory.bytes(MemoryRange::new(place, HEADER_SIZE as u64))?;
    let size = be_u32(header, 4).unwrap_or_default();
    if size > LARGEST_TREE {
        return Err(format!("the device tree at {place} has {size} bytes").into());
    }
    let tree = memory.bytes(MemoryRange::new(place, size.into()))?;
    Ok(tree.to_vec())
}
