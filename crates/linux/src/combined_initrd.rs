//! A kernel in front of an initrd, in one file.
//!
//! Some loaders load one file beside the program that they start; `kexec` in a
//! running Linux is one. The kernel may therefore be the member
//! `warmbus/kernel` of an archive in front of the initrd (`newc`, which
//! `cpio -o -H newc` writes). The initrd follows the archive: Linux accepts
//! several archives one after the other
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use core::ops::Range;

/// The member that is the kernel.
const KERNEL: &[u8] = b"warmbus/kernel";
const TRAILER: &[u8] = b"TRAILER!!!";
const HEADER_SIZE: usize = 110;
/// More members than an archive with one file of interest has.
const MAX_MEMBERS: usize = 64;

/// The parts of a combined initrd, as offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInInitrd {
    /// The kernel.
    pub kernel: Range<usize>,
    /// The initrd, if there is one.
    pub initrd: Option<Range<usize>>,
}

/// A member of an archive, and where the next one starts.
struct Member<'a> {
    name: &'a [u8],
    data: Range<usize>,
    next: usize,
}

impl KernelInInitrd {
    /// Splits `file`; `None` where it does not start with an archive that has
    /// a kernel and an end.
    #[must_use]
    pub fn split(file: &[u8]) -> Option<Self> {
        let mut kernel = None;
        let mut at = 0;
        for _ in 0..MAX_MEMBERS {
            let member = member(file, at)?;
            at = member.next;
            if member.name == TRAILER {
                // Archives are padded with zeros.
                let rest = file.get(at..).unwrap_or_default();
                let padding = rest.iter().take_while(|byte| **byte == 0).count();
                let start = at + padding;
                return Some(Self {
                    kernel: kernel?,
                    initrd: (start < file.len()).then_some(start..file.len()),
                });
            }
            let name = member.name.strip_prefix(b"./").unwrap_or(member.name);
            if name == KERNEL && !member.data.is_empty() {
                kernel = Some(member.data);
            }
        }
        None
    }
}

fn member(file: &[u8], at: usize) -> Option<Member<'_>> {
    let header = file.get(at..at.checked_add(HEADER_SIZE)?)?;
    if !matches!(&header[..6], b"070701" | b"070702") {
        return None;
    }
    // Fields of eight hexadecimal digits; the size of the data is the seventh,
    // that of the name, with its NUL, the twelfth.
    let field = |index: usize| {
        let mut digits = header[6 + 8 * index..14 + 8 * index].iter();
        digits.try_fold(0, |number, digit| {
            Some(number << 4 | char::from(*digit).to_digit(16)? as usize)
        })
    };
    let name_at = at + HEADER_SIZE;
    let name_end = name_at.checked_add(field(11)?)?;
    let name = file.get(name_at..name_end)?.strip_suffix(&[0])?;
    let data_at = name_end.checked_next_multiple_of(4)?;
    let data_end = data_at.checked_add(field(6)?)?;
    file.get(data_at..data_end)?;
    Some(Member {
        name,
        data: data_at..data_end,
        next: data_end.checked_next_multiple_of(4)?,
    })
}
