//! Changes an input the way fuzzers do, without their knowledge of what the code then did.

use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

/// What parsers stumble over: bounds of integers, signs, words of JSON.
const PIECES: [&[u8]; 20] = [
    b"0",
    b"-1",
    b"255",
    b"256",
    b"65536",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"1e999",
    b"-0.0",
    b"1.5",
    b"null",
    b"true",
    b"\"\"",
    b"[]",
    b"{}",
    b"\\u0000",
    b"\xff\xff\xff\xff",
    b"\xc3\xa9",
];

/// One of `seeds`, changed one to eight times.
pub fn changed(seeds: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let mut input = seeds.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..=8) {
        change(&mut input, seeds, random);
    }
    input.truncate(limpet_shared::link::MAX_DATAGRAM);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut SmallRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(0..=16)).min(input.len());
    match random.random_range(0..9) {
        0 => flip(input, at, random),
        1 => overwrite(input, at, random.random()),
        2 => input.insert(at, random.random()),
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let copy = input[at..end].to_vec();
            let to = random.random_range(0..=input.len());
            drop(input.splice(to..to, copy));
        }
        6 => {
            let piece = PIECES.choose(random).copied().unwrap_or_default();
            drop(input.splice(at..end, piece.iter().copied()));
        }
        7 => replace_number(input, at, random),
        _ => {
            let other = seeds.choose(random).map_or(&[][..], |seed| &seed[random.random_range(0..=seed.len())..]);
            input.truncate(at);
            input.extend_from_slice(other);
        }
    }
}

fn flip(input: &mut [u8], at: usize, random: &mut SmallRng) {
    let bit = random.random_range(0..8);
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn overwrite(input: &mut [u8], at: usize, with: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = with;
    }
}

/// Puts another value where the next number or word begins behind a colon.
fn replace_number(input: &mut Vec<u8>, at: usize, random: &mut SmallRng) {
    let Some(colon) = input[at..].iter().position(|&b| b == b':') else { return };
    let start = at + colon + 1;
    let len = input[start..].iter().position(|b| b",}]".contains(b)).unwrap_or(0);
    let piece = PIECES.choose(random).copied().unwrap_or_default();
    drop(input.splice(start..start + len, piece.iter().copied()));
}
