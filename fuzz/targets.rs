//! The program of libFuzzer for all targets of `patgate::fuzzing`; the variable `FUZZ_TARGET` names one.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod target {
    use std::sync::LazyLock;

    use patgate::fuzzing::{FuzzTarget, TARGETS};

    static TARGET: LazyLock<FuzzTarget> = LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|(target, _)| *target == name);
        target.unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is none of {:?}", TARGETS.map(|(name, _)| name))).1
    });

    libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
}

#[cfg(not(fuzzing))]
fn main() {
    panic!("built without coverage: use fuzz/run");
}
