//! Gives what libFuzzer makes up to the target `function`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warmbus_fuzz::function(data));
