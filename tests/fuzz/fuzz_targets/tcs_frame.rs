#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ecs_agent::fuzz::tcs_frame(data));
