#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| limpet_fuzz::entries::gwmp_datagram(data));
