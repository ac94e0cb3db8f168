//! What the cache saved.

/// Counters of a cache. An access is counted once, whatever its width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Reads answered from the cache.
    pub hits: u64,
    /// Reads of cacheable bytes that were not cached yet.
    pub misses: u64,
    /// Reads that hold a byte which may not be cached, and reads of functions
    /// that the cache does not know.
    pub uncacheable: u64,
    /// Writes.
    pub writes: u64,
    /// Cached bytes that writes and resets dropped.
    pub invalidations: u64,
}
