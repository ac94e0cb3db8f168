//! The routing IDs that VFs have for every NumVFs.
//!
//! First VF Offset and VF Stride may depend on NumVFs (PCIe 9.3.3.9 and
//! 9.3.3.10), and Linux writes each value in turn to know which buses to keep
//! free. Nothing but writing the register shows its effect; done once here, no
//! kernel that has the results needs to do it again.

use crate::registers::{extended, sr_iov};
use crate::{Assigned, ConfigOffset, ConfigSpace, Sbdf, Width};

/// Values of NumVFs that are written at most, to all functions together: what
/// is known of each takes memory, and a device may claim 65,535.
const MAX_WRITTEN: u32 = 1 << 14;

/// Writes each valid NumVFs to the physical functions that have no VFs enabled
/// and reads where their VFs would be, which `config` remembers; at the end
/// NumVFs is TotalVFs. Two accesses for each VF that there can be.
///
/// No VF is enabled, and nothing is written below host bridges that are
/// preserved. Of a function whose VFs move with NumVFs no more is read after
/// `max_runs` different values; those that were read stay valid.
///
/// VF Enable must not have been cleared in the last second (PCIe 9.3.3.3.1).
pub fn probe_vf_routing<S: ConfigSpace>(topology: &Assigned, max_runs: usize, config: &mut S) {
    let mut left = MAX_WRITTEN;
    for function in &topology.functions {
        let Some(sriov) = function.sriov else {
            continue;
        };
        if sriov.vfs_enabled || topology.hosts[function.host].0.preserve_config {
            continue;
        }
        let Some(less) = left.checked_sub(sriov.total_vfs.into()) else {
            continue;
        };
        left = less;
        probe_function(function.sbdf, sriov.total_vfs, max_runs, config);
    }
}

fn probe_function<S: ConfigSpace>(function: Sbdf, total_vfs: u16, max_runs: usize, config: &mut S) {
    let Some(base) = config.extended_capability(function, extended::SR_IOV) else {
        return;
    };
    let num_vfs = ConfigOffset::wrapping(base + sr_iov::NUM_VFS);
    let vf_offset = ConfigOffset::wrapping(base + sr_iov::VF_OFFSET);
    let mut last = config.read(function, vf_offset, Width::Dword);
    let mut runs = 1;
    for count in (1..total_vfs).rev() {
        config.write(function, num_vfs, Width::Word, count.into());
        let found = config.read(function, vf_offset, Width::Dword);
        // A function that stopped answering has no lists any more.
        if config.lists(function).is_none() {
            return;
        }
        runs += usize::from(found != last);
        last = found;
        if runs > max_runs {
            break;
        }
    }
    if total_vfs > 1 {
        config.write(function, num_vfs, Width::Word, total_vfs.into());
        config.read(function, vf_offset, Width::Dword);
        // What is written is not cached before it was read.
        config.read(function, num_vfs, Width::Word);
    }
}
