#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bmdemo_fuzz::json(data));
