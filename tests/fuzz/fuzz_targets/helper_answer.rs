#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ecs_agent::fuzz::helper_answer(data));
