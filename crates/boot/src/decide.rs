//! What is handed over, and what `/chosen` says to Linux: pure functions of what a boot
//! has found out.

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use warmbus_kho::KhoAbi;
use warmbus_linux::detect::{self, DetectError};
use warmbus_machine::Source;
use warmbus_memory::PageSize;

pub use crate::host_policy::{HostFacts, PciPolicy, ReassignReason};
use crate::memory_layout::LayoutRequestError;
use crate::options::KhoChoice;
use crate::pipeline::PipelineFailure;

/// What is known before the kernel is unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The handover that the boot arguments ask for.
    pub requested: KhoChoice,
    /// The boot arguments let virtual functions be probed.
    pub may_probe_vfs: bool,
    /// Who describes the machine, to Warmbus and to Linux.
    pub source: Source,
    /// The word of `pci=` on the kernel command line that Linux has to obey by
    /// itself.
    pub pci_word: Option<String>,
    /// What the pipeline made; `None` where it did not run.
    pub survey: Option<SurveyFacts>,
    /// What a previous kernel hands over.
    pub previous: PreviousFacts,
    /// The page size of the kernel, from its header.
    pub page_size: Result<PageSize, DetectError>,
}

/// What the pipeline made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyFacts {
    /// Why it is not to be used.
    pub failure: Option<PipelineFailure>,
    /// The host bridges that Linux may use, surveyed or not.
    pub hosts: Vec<HostFacts>,
    /// The boot tree has Linux keep all that it finds.
    pub chosen_probe_only: bool,
    /// Functions in the cache.
    pub captured: usize,
    /// Functions of them that Linux finds as they were captured.
    pub usable: usize,
}

/// What a previous kernel hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousFacts {
    /// Nothing.
    Nothing,
    /// Something that cannot be read, which the next kernel gets as it is.
    Unreadable,
    /// What a new handover can inherit from.
    Readable {
        /// The page size of that kernel.
        page_size: PageSize,
    },
}

/// What the unpacked kernel says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// The version of the handover that it reads; `None` where it reads none.
    pub abi: Result<Option<KhoAbi>, DetectError>,
    /// What it calls that version, where it has a name of its own.
    pub abi_name: Option<String>,
    /// It keeps its scratch memory on a machine with UEFI.
    pub keeps_scratch_with_uefi: bool,
    /// It reads the routing IDs of virtual functions.
    pub reads_vf_routing: bool,
}

/// What is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The cache.
    Handover(HandoverDecision),
    /// Nothing: Linux starts as without Warmbus.
    Without(Refusal),
}

/// How the cache is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverDecision {
    /// The version of the handover.
    pub abi: KhoAbi,
    /// What the kernel calls that version, where it has a name of its own.
    pub abi_name: Option<String>,
    /// The page size that it is laid out with.
    pub page_size: PageSize,
    /// What Linux does with bus numbers and BARs.
    pub pci: PciPolicy,
    /// The routing IDs of virtual functions are worth being probed.
    pub probe_vf_routing: bool,
}

/// Why nothing is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The boot arguments say so.
    SwitchedOff,
    /// The kernel command line has Linux use nothing.
    UnusedByLinux,
    /// The pipeline did not run.
    NoSurvey,
    /// It found no function.
    NothingCaptured,
    /// What it made is not to be used.
    Failed(PipelineFailure),
    /// The kernel cannot be made a handover for.
    Kernel(DetectError),
    /// The kernel reads none.
    NoKho,
    /// The kernel forgets its scratch memory on a machine with UEFI.
    ScratchLostWithUefi,
    /// A previous kernel hands over what cannot be read.
    PreviousUnreadable,
    /// The previous kernel has other pages.
    PageSizesDiffer {
        /// Those of the kernel that is started.
        kernel: PageSize,
        /// Those of the previous one.
        previous: PageSize,
    },
    /// What a previous kernel hands over cannot become this version.
    PreviousVersion(KhoAbi),
    /// There is no memory for it.
    NoMemory(LayoutRequestError),
    /// The kernel assigns other bus numbers, and this version of it would look
    /// for the cache under those.
    Renumbered(HostFacts),
    /// Linux resets every function that was captured.
    NothingUsable,
}

impl KernelFacts {
    /// What the kernel in `image` says of itself, as far as it matters: each of
    /// these is a search.
    #[must_use]
    pub fn of(facts: &Facts, image: &[u8]) -> Self {
        let found = match facts.requested {
            KhoChoice::Auto => detect::detect(image).map(|abi| abi.map(|abi| (abi, None))),
            KhoChoice::LikeV4 => detect::detect_like_v4(image),
            KhoChoice::Off | KhoChoice::UnusedByLinux => Ok(None),
            KhoChoice::Abi(abi) => Ok(Some((abi, None))),
        };
        let (abi, abi_name) = match found {
            Ok(Some((abi, name))) => (Ok(Some(abi)), name),
            Ok(None) => (Ok(None), None),
            Err(error) => (Err(error), None),
        };
        let has_kho = matches!(abi, Ok(Some(_)));
        Self {
            keeps_scratch_with_uefi: facts.source.has_uefi()
                && detect::keeps_scratch_with_uefi(image),
            reads_vf_routing: has_kho
                && facts.may_probe_vfs
                && detect::supports_pcsc_extension(image),
            abi,
            abi_name,
        }
    }
}

impl Facts {
    /// Fails where nothing is to be handed over, whatever is found.
    fn wanted(&self) -> Result<(), Refusal> {
        match self.requested {
            KhoChoice::Off => Err(Refusal::SwitchedOff),
            KhoChoice::UnusedByLinux => Err(Refusal::UnusedByLinux),
            KhoChoice::Auto | KhoChoice::LikeV4 | KhoChoice::Abi(_) => Ok(()),
        }
    }

    /// The page size of the handover that is wanted so far, which the memory
    /// plan needs space for.
    pub fn request(&self) -> Result<PageSize, Refusal> {
        self.wanted()?;
        let kernel = self.page_size.clone().map_err(Refusal::Kernel)?;
        let survey = self.survey.as_ref().ok_or(Refusal::NoSurvey)?;
        if let Some(failure) = &survey.failure {
            return Err(Refusal::Failed(failure.clone()));
        }
        match self.previous {
            PreviousFacts::Unreadable => Err(Refusal::PreviousUnreadable),
            PreviousFacts::Readable { page_size } if page_size != kernel => {
                Err(Refusal::PageSizesDiffer {
                    kernel,
                    previous: page_size,
                })
            }
            PreviousFacts::Readable { .. } | PreviousFacts::Nothing => Ok(kernel),
        }
    }

    /// What Linux does with what `survey` found.
    fn pci_policy(&self, survey: &SurveyFacts) -> PciPolicy {
        if self.source == Source::Acpi {
            return PciPolicy::KeepBusNumbers;
        }
        if survey.chosen_probe_only {
            return PciPolicy::AsFound;
        }
        if let Some(word) = &self.pci_word {
            return PciPolicy::for_command_line(word);
        }
        PciPolicy::for_device_tree(&survey.hosts)
    }
}

/// Decides what is handed over to `kernel`. `space` says why the memory plan
/// has no space for a handover, where it has none.
#[must_use]
pub fn decide(
    facts: &Facts,
    kernel: &KernelFacts,
    space: Result<(), LayoutRequestError>,
) -> Decision {
    match handover(facts, kernel, space) {
        Ok(handover) => Decision::Handover(handover),
        Err(refusal) => Decision::Without(refusal),
    }
}

/// The reasons that are checked first are those that nothing else changes.
fn handover(
    facts: &Facts,
    kernel: &KernelFacts,
    space: Result<(), LayoutRequestError>,
) -> Result<HandoverDecision, Refusal> {
    facts.wanted()?;
    let abi = match facts.requested {
        KhoChoice::Abi(abi) => abi,
        _ => {
            let abi = kernel.abi.clone().map_err(Refusal::Kernel)?;
            abi.ok_or(Refusal::NoKho)?
        }
    };
    if facts.source.has_uefi() && !kernel.keeps_scratch_with_uefi {
        return Err(Refusal::ScratchLostWithUefi);
    }
    let page_size = facts.request()?;
    let survey = facts.survey.as_ref().ok_or(Refusal::NoSurvey)?;
    if survey.captured == 0 {
        return Err(Refusal::NothingCaptured);
    }
    space.map_err(Refusal::NoMemory)?;
    if facts.previous != PreviousFacts::Nothing && !abi.has_radix_tree() {
        return Err(Refusal::PreviousVersion(abi));
    }
    let pci = facts.pci_policy(survey);
    if let PciPolicy::Reassign(host) = &pci
        && abi.has_radix_tree()
    {
        return Err(Refusal::Renumbered(host.clone()));
    }
    if survey.usable == 0 {
        return Err(Refusal::NothingUsable);
    }
    Ok(HandoverDecision {
        abi,
        abi_name: kernel.abi_name.clone(),
        page_size,
        pci,
        probe_vf_routing: facts.may_probe_vfs && kernel.reads_vf_routing,
    })
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff => f.write_str("switched off by warmbus.kho=off"),
            Self::UnusedByLinux => f.write_str("pcsc=off on the kernel command line"),
            Self::NoSurvey => f.write_str("no function was captured"),
            Self::NothingCaptured => f.write_str("no function was found"),
            Self::Failed(failure) => failure.fmt(f),
            Self::NoMemory(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
            Self::NoKho => f.write_str("the kernel has no Kexec HandOver"),
            Self::ScratchLostWithUefi => {
                f.write_str("on a machine with UEFI a Linux before 7.0 forgets its scratch memory")
            }
            Self::PreviousUnreadable => {
                f.write_str("the handover of the previous kernel is passed on instead")
            }
            Self::PageSizesDiffer { kernel, previous } => write!(
                f,
                "this kernel has {kernel} pages, and the previous one {previous} pages"
            ),
            Self::PreviousVersion(abi) => write!(
                f,
                "the handover of the previous kernel cannot be converted to {abi}"
            ),
            Self::Renumbered(host) => write!(
                f,
                "this Linux assigns new bus numbers, which the cache does not match, because of {host}"
            ),
            Self::NothingUsable => f.write_str("Linux resets every function that was captured"),
        }
    }
}

impl core::error::Error for Refusal {}
