//! Replays the fuzz targets' seeds on stable, as they are and changed at random, through the same entry functions.
//! What a fuzzer finds is kept by putting it into `fuzz/seeds/<entry>/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../fuzz/src/entries.rs"]
mod entries;
mod mutate;

use std::{fs, panic, path::PathBuf};

use rand::{SeedableRng, rngs::SmallRng};

/// Changed inputs per entry. Twenty thousand take a few seconds in a debug build.
const CHANGED: u64 = 20_000;
/// The same inputs in every run, so that a failure is one for everyone; `LIMPET_FUZZ_SEED` gives others.
const SEED: u64 = 0x11a9_e700;

fn replay(name: &str) {
    let (_, entry) = entries::ENTRIES.into_iter().find(|(entry, _)| *entry == name).unwrap();
    let seeds = seeds(name);
    for (file, input) in &seeds {
        run(entry, input, &format!("fuzz/seeds/{name}/{file}"));
    }
    let seed = std::env::var("LIMPET_FUZZ_SEED").map_or(SEED, |seed| seed.parse().expect("LIMPET_FUZZ_SEED: a number"));
    println!("LIMPET_FUZZ_SEED={seed}");
    let inputs: Vec<Vec<u8>> = seeds.into_iter().map(|(_, input)| input).collect();
    for number in 0..CHANGED {
        // Each input from its own number, so that one can be made again without those before it.
        let mut random = SmallRng::seed_from_u64(seed ^ number << 32);
        let input = mutate::changed(&inputs, &mut random);
        run(entry, &input, &format!("LIMPET_FUZZ_SEED={seed}, input {number} of {name}"));
    }
}

fn run(entry: entries::Entry, input: &[u8], origin: &str) {
    if panic::catch_unwind(|| entry(input)).is_err() {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("failed-input");
        fs::write(&file, input).unwrap();
        panic!("{origin} failed; the input is in {}:\n{}", file.display(), input.escape_ascii());
    }
}

fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    // A folder is listed in any order, and the changes depend on it.
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

#[test]
fn gwmp() {
    replay("gwmp");
}

#[test]
fn phypayload() {
    replay("phypayload");
}

#[test]
fn link() {
    replay("link");
}

#[test]
fn token() {
    replay("token");
}

/// A fuzz target without seeds, or seeds without a target, would be forgotten.
#[test]
fn every_target_has_seeds_and_an_entry() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(fuzz.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
            .collect();
        names.sort();
        names
    };
    let mut entries: Vec<_> = entries::ENTRIES.iter().map(|(name, _)| name.to_string()).collect();
    entries.sort();
    assert_eq!(names("seeds"), entries);
    assert_eq!(names("targets"), entries);
}
