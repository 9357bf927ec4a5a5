#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fedveil_fuzz::plain_upload::run(input);
});
