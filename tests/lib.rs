//! The tests of Warmbus that run on the host: one folder or file a subject.
