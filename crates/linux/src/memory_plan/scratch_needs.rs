//! What the size of the scratch memory is calculated from.

use warmbus_memory::PageSize;

use crate::command_line::{memory_size, memory_size_and_rest, number};

const MIB: u64 = 1 << 20;

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
    /// What `kho_scratch=` of the command line asks for.
    pub requested: ScratchRequest,
    /// Gigantic pages, by size in ascending order: there are two sizes at most.
    pub gigantic: [GiganticPages; 2],
}

/// What `kho_scratch=` asks for (Linux `kho_parse_scratch_size`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScratchRequest {
    /// Nothing.
    #[default]
    Default,
    /// So many per cent of what early Linux allocates.
    Percent(u32),
    /// Bytes.
    Sizes {
        /// Below 4 GiB.
        low: u64,
        /// Anywhere.
        global: u64,
        /// In each NUMA node.
        per_node: u64,
    },
}

/// Pages that are too large for the page allocator: early Linux allocates them,
/// before 7.3 from scratch memory only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GiganticPages {
    /// Bytes of one, to which it is aligned.
    pub page: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Default for ScratchNeeds {
    /// One core, 64 MiB of contiguous memory, no crash kernel, no gigantic
    /// pages.
    fn default() -> Self {
        Self {
            cpus: 1,
            cma: 64 * MIB,
            crash_kernel: 0,
            requested: ScratchRequest::Default,
            gigantic: [GiganticPages::default(); 2],
        }
    }
}

impl ScratchNeeds {
    /// The needs of a kernel with pages of `page_size` and the command line
    /// `line` on `cpus` cores.
    ///
    /// Looks at `cma=`, `crashkernel=`, gigantic `hugepages=` and
    /// `hugetlb_cma=`, which come out of scratch, and at `kho_scratch=`. Of
    /// several sizes for several sizes of RAM the largest counts.
    #[must_use]
    pub fn from_command_line(cpus: u32, page_size: PageSize, line: &[u8]) -> Self {
        let mut needs = Self {
            cpus,
            ..Self::default()
        };
        let mut pages = HugePages::new(page_size);
        for word in line.split(u8::is_ascii_whitespace) {
            let Some(equals) = word.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (name, value) = (&word[..equals], &word[equals + 1..]);
            match name {
                b"cma" => needs.cma = memory_size(value).unwrap_or(needs.cma),
                b"crashkernel" => {
                    // `SIZE@OFFSET`, `SIZE,high`, or `START-END:SIZE,...`.
                    let sizes = parts(value).filter_map(|part| memory_size(last(part)));
                    needs.crash_kernel = needs.crash_kernel.max(sizes.max().unwrap_or(0));
                }
                b"kho_scratch" => {
                    needs.requested = scratch_request(value).unwrap_or(needs.requested);
                }
                b"default_hugepagesz" => pages.default = memory_size(value),
                b"hugepagesz" => pages.current = memory_size(value),
                b"hugepages" => {
                    // `COUNT`, or `NODE:COUNT,...`.
                    let counts = parts(value).filter_map(|part| Some(number(last(part))?.0));
                    let count = counts.fold(0, u64::saturating_add);
                    pages.add(pages.current, count);
                }
                b"hugetlb_cma" => {
                    let sizes = parts(value).filter_map(|part| memory_size(last(part)));
                    pages.contiguous = sizes.fold(0, u64::saturating_add);
                }
                _ => {}
            }
        }
        needs.gigantic = pages.gigantic();
        needs
    }

    /// Bytes that `kho_scratch=` asks for, those of NUMA nodes not counted;
    /// `None` where it names none.
    #[must_use]
    pub const fn requested_bytes(&self) -> Option<u64> {
        match self.requested {
            ScratchRequest::Sizes { low, global, .. } => Some(low.saturating_add(global)),
            ScratchRequest::Percent(_) | ScratchRequest::Default => None,
        }
    }
}

/// The parts of a list.
fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',')
}

/// What follows the last colon.
fn last(part: &[u8]) -> &[u8] {
    part.rsplit(|byte| *byte == b':').next().unwrap_or(part)
}

/// The value of `kho_scratch=`: `N%`, or `LOW,GLOBAL,PER-NODE`. `None` where
/// Linux takes its default.
fn scratch_request(value: &[u8]) -> Option<ScratchRequest> {
    if let Some(percent) = value.strip_suffix(b"%") {
        let percent = core::str::from_utf8(percent).ok()?.parse().ok()?;
        return Some(match percent {
            0 => ScratchRequest::Default,
            percent => ScratchRequest::Percent(percent),
        });
    }
    let mut sizes = [0; 3];
    let mut rest = value;
    for (index, size) in sizes.iter_mut().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(b",")?;
        }
        (*size, rest) = memory_size_and_rest(rest)?;
    }
    let [low, global, per_node] = sizes;
    let is_sound = rest.is_empty() && sizes != [0; 3];
    is_sound.then_some(ScratchRequest::Sizes {
        low,
        global,
        per_node,
    })
}

/// The huge pages of a command line, word by word.
struct HugePages {
    /// The sizes of gigantic pages in ascending order, 0 where there is one only.
    sizes: [u64; 2],
    /// How many bytes of each, and those of the default size, which may be
    /// named later.
    bytes: [u64; 2],
    of_default: u64,
    /// `default_hugepagesz=`.
    default: Option<u64>,
    /// The last `hugepagesz=`.
    current: Option<u64>,
    /// `hugetlb_cma=`.
    contiguous: u64,
}

impl HugePages {
    const fn new(page_size: PageSize) -> Self {
        // What is larger than the largest block of the page allocator, of the
        // sizes that the tables of arm64 have with pages of this size.
        let sizes = match page_size {
            PageSize::K4 => [32 * MIB, 1024 * MIB],
            PageSize::K16 => [0, 1024 * MIB],
            PageSize::K64 => [0, 16 * 1024 * MIB],
        };
        Self {
            sizes,
            bytes: [0; 2],
            of_default: 0,
            default: None,
            current: None,
            contiguous: 0,
        }
    }

    /// Adds `count` pages of `size`, or of the default size.
    fn add(&mut self, size: Option<u64>, count: u64) {
        let Some(size) = size else {
            self.of_default = count;
            return;
        };
        for (known, bytes) in self.sizes.into_iter().zip(&mut self.bytes) {
            if size == known && size != 0 {
                *bytes = size.saturating_mul(count);
            }
        }
    }

    fn gigantic(mut self) -> [GiganticPages; 2] {
        if self.default.is_some() && self.of_default != 0 {
            self.add(self.default, self.of_default);
        }
        let largest = self.sizes[1];
        let contiguous = self.contiguous.checked_next_multiple_of(largest);
        self.bytes[1] = self.bytes[1].saturating_add(contiguous.unwrap_or(u64::MAX));
        let pairs = [
            (self.sizes[0], self.bytes[0]),
            (self.sizes[1], self.bytes[1]),
        ];
        pairs.map(|(page, bytes)| match bytes {
            0 => GiganticPages::default(),
            bytes => GiganticPages { page, bytes },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_command_line_adds_to_the_needs() {
        let needs = |line: &str| {
            let needs = ScratchNeeds::from_command_line(1, PageSize::K4, line.as_bytes());
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
    fn kho_scratch_is_read_as_linux_reads_it() {
        let request = |line: &str| {
            let needs = ScratchNeeds::from_command_line(1, PageSize::K4, line.as_bytes());
            needs.requested
        };
        let sizes = |low, global, per_node| ScratchRequest::Sizes {
            low,
            global,
            per_node,
        };
        for (line, expected) in [
            ("quiet", ScratchRequest::Default),
            ("kho_scratch=300%", ScratchRequest::Percent(300)),
            ("kho_scratch=0%", ScratchRequest::Default),
            (
                "kho_scratch=16M,512M,0x100K kho=on",
                sizes(16 * MIB, 512 * MIB, 256 << 10),
            ),
            ("kho_scratch=0,0,1G", sizes(0, 0, GIB)),
            // The last one that can be read counts.
            ("kho_scratch=50% kho_scratch=1M,1M,1M", sizes(MIB, MIB, MIB)),
            ("kho_scratch=50% kho_scratch=", ScratchRequest::Percent(50)),
            ("kho_scratch=0,0,0", ScratchRequest::Default),
            ("kho_scratch=1M,2M", ScratchRequest::Default),
            ("kho_scratch=1M,2M,3M,", ScratchRequest::Default),
            ("kho_scratch=-1%", ScratchRequest::Default),
            ("kho_scratch=99999999999%", ScratchRequest::Default),
        ] {
            assert_eq!(request(line), expected, "{line}");
        }
    }

    #[test]
    fn gigantic_pages_are_those_that_the_page_allocator_cannot_have() {
        let gigantic = |page_size, line: &str| {
            let needs = ScratchNeeds::from_command_line(1, page_size, line.as_bytes());
            let pages = needs.gigantic.into_iter().filter(|pages| pages.bytes != 0);
            pages
                .map(|pages| (pages.page / MIB, pages.bytes / MIB))
                .collect::<alloc::vec::Vec<_>>()
        };
        for (page_size, line, expected) in [
            (
                PageSize::K4,
                "hugepagesz=1G hugepages=3",
                &[(1024, 3072)][..],
            ),
            // Not gigantic.
            (PageSize::K4, "hugepages=512", &[]),
            (PageSize::K4, "hugepagesz=2M hugepages=512", &[]),
            (PageSize::K4, "default_hugepagesz=1G", &[]),
            (PageSize::K16, "hugepagesz=32M hugepages=9", &[]),
            (PageSize::K64, "hugepagesz=512M hugepages=9", &[]),
            // The default size may be named before or after.
            (
                PageSize::K4,
                "hugepages=2 default_hugepagesz=1G",
                &[(1024, 2048)],
            ),
            (
                PageSize::K4,
                "default_hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=100",
                &[(1024, 2048)],
            ),
            (
                PageSize::K4,
                "hugepagesz=32M hugepages=4 hugepagesz=1G hugepages=0:1,1:2",
                &[(32, 128), (1024, 3072)],
            ),
            (PageSize::K16, "hugepagesz=1G hugepages=1", &[(1024, 1024)]),
            (
                PageSize::K64,
                "hugepagesz=16G hugepages=1",
                &[(16_384, 16_384)],
            ),
            (PageSize::K4, "hugetlb_cma=1500M", &[(1024, 2048)]),
            (PageSize::K4, "hugetlb_cma=0:1G,1:1G", &[(1024, 2048)]),
        ] {
            assert_eq!(gigantic(page_size, line), expected, "{line}");
        }
        let needs = ScratchNeeds::from_command_line(
            1,
            PageSize::K4,
            b"hugepagesz=1G hugepages=18446744073709551615 hugetlb_cma=15E",
        );
        assert_eq!(needs.gigantic[1].bytes, u64::MAX);
    }
}
