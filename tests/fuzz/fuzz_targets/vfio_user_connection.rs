#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::vfio_user::vfio_user_connection(bytes));
