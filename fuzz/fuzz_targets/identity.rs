#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fedveil_fuzz::identity::run(input);
});
