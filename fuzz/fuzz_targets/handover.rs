//! Gives what libFuzzer makes up to the target `handover`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warmbus_fuzz::handover(data));
