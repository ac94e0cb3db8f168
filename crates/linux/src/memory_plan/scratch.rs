//! The size of the scratch memory.
//!
//! Early Linux allocates from scratch memory only: its page structures, page
//! tables, hash tables, bounce buffers, per-CPU areas. With too little it stops
//! before its console works; with too much, other allocations fail, because
//! scratch memory later serves movable allocations only.

use warmbus_memory::PageSize;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The needs that the size of the scratch memory is calculated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchNeeds {
    /// Cores.
    pub cpus: u32,
    /// Bytes of the contiguous memory allocator: `cma=` of the command line,
    /// or what the kernel was configured with.
    pub cma: u64,
    /// Bytes that `crashkernel=` of the command line asks for.
    pub crash_kernel: u64,
}

impl Default for ScratchNeeds {
    /// One core, 64 MiB of contiguous memory, no crash kernel.
    fn default() -> Self {
        Self {
            cpus: 1,
            cma: 64 * MIB,
            crash_kernel: 0,
        }
    }
}

impl ScratchNeeds {
    /// The needs of a kernel with the command line `line` on `cpus` cores.
    ///
    /// Looks at `cma=` and `crashkernel=`, which both come out of scratch. Of
    /// several sizes for several sizes of RAM the largest counts.
    #[must_use]
    pub fn from_command_line(cpus: u32, line: &[u8]) -> Self {
        let mut needs = Self {
            cpus,
            ..Self::default()
        };
        for word in line.split(u8::is_ascii_whitespace) {
            if let Some(value) = word.strip_prefix(b"cma=") {
                needs.cma = size(value).unwrap_or(needs.cma);
            } else if let Some(value) = word.strip_prefix(b"crashkernel=") {
                // `SIZE@OFFSET`, `SIZE,high`, or `START-END:SIZE,...`.
                let sizes = value.split(|byte| *byte == b',').filter_map(|part| {
                    size(part.rsplit(|byte| *byte == b':').next().unwrap_or(part))
                });
                needs.crash_kernel = needs.crash_kernel.max(sizes.max().unwrap_or(0));
            }
        }
        needs
    }
}

/// A size as Linux writes it: a number, decimal or with `0x`, and perhaps `K`,
/// `M`, `G` or `T`. What follows is not looked at.
fn size(text: &[u8]) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix(b"0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let length = digits.iter().take_while(|byte| is_digit(byte)).count();
    let (digits, rest) = digits.split_at(length);
    let number = u64::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()?;
    let shift = match rest.first().map(u8::to_ascii_uppercase) {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        _ => 0,
    };
    number.checked_mul(1 << shift)
}

/// Alignment of address and size of a scratch area: the largest block that the
/// page allocator of any supported version handles as one.
pub(super) const fn alignment(page_size: PageSize) -> u64 {
    page_size.bytes() << page_size.max_order()
}

/// Bytes that a machine needs whatever its memory, before rounding.
/// `bounce_buffers`: there is RAM that not every device reaches.
pub(super) fn fixed(needs: &ScratchNeeds, page_size: PageSize, bounce_buffers: bool) -> u64 {
    let kfence = if page_size == PageSize::K64 { 32 } else { 0 };
    let bounce = if bounce_buffers { 64 } else { 4 };
    let base = (16 + kfence + bounce) * MIB;
    let configured = needs.cma.saturating_add(needs.crash_kernel);
    let wanted = base
        .saturating_add(configured)
        .saturating_add(u64::from(needs.cpus) * MIB / 2);
    with_margin(wanted)
}

/// Bytes that `span` bytes of memory need, before rounding: page structures,
/// page tables and hash tables, 19.5, 6 or 2.7 MiB for each GiB.
pub(super) fn proportional(span: u64, page_size: PageSize) -> u64 {
    let tenths_of_mib = match page_size {
        PageSize::K4 => 195,
        PageSize::K16 => 60,
        PageSize::K64 => 27,
    };
    with_margin(span.div_ceil(GIB / 1024) * tenths_of_mib * (MIB / 1024) / 10)
}

/// Half as much again: what was measured are the needs of a small kernel.
const fn with_margin(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_are_those_of_the_largest_page_blocks() {
        assert_eq!(PageSize::ALL.map(alignment), [4 * MIB, 32 * MIB, 512 * MIB]);
    }

    #[test]
    fn the_command_line_adds_to_the_needs() {
        let needs = |line: &str| {
            let needs = ScratchNeeds::from_command_line(1, line.as_bytes());
            (needs.cma / MIB, needs.crash_kernel / MIB)
        };
        assert_eq!(needs(""), (64, 0));
        assert_eq!(needs("quiet cma=256M@0-4G"), (256, 0));
        assert_eq!(needs("cma=0 crashkernel=512M@0x60000000"), (0, 512));
        assert_eq!(
            needs("crashkernel=1G,high crashkernel=128M,low"),
            (64, 1024)
        );
        assert_eq!(needs("crashkernel=2G-32G:256M,32G-:0x20000k"), (64, 256));
        assert_eq!(
            needs("xcma=1G cma= cma=9999999999999T crashkernel=auto"),
            (64, 0)
        );
    }

    #[test]
    fn sizes_follow_the_formula_for_4_gib_with_4k_pages() {
        let needs = ScratchNeeds {
            cpus: 4,
            cma: 32 * MIB,
            crash_kernel: 0,
        };
        // 1.5 * (19.5 * 4 + 64 + 32 + 0.5 * 4 + 16) MiB
        let total = fixed(&needs, PageSize::K4, true) + proportional(4 * GIB, PageSize::K4);
        assert_eq!(total, 288 * MIB);
    }
}
