//! What a program asks of its operating system and a seed must decide: random bytes and the time.
//!
//! Hash maps, TLS, QUIC and a dozen crates ask for them, each in its own way, and all of them through three functions of the C
//! library. They are defined here in its place. On a thread that runs a simulation they answer from a seed and with simulated
//! time, so that a run is the same, byte for byte, however often and wherever it is repeated; on every other thread they pass
//! the question on.
#![allow(unsafe_code, reason = "the C library's functions are called, and defined, without a safe interface")]

use std::{
    cell::Cell,
    ffi::{CStr, c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicPtr, Ordering},
    time::Duration,
};

thread_local! {
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Simulated {
    /// Of the next random bytes.
    chance: u64,
    wall: Duration,
    steady: Duration,
}

/// From now on chance and time are simulated on this thread, for as long as it lives. What the thread has drawn before (the keys
/// of its hash maps) stays, so a thread runs one simulation and ends.
pub fn simulate(seed: u64) {
    SIMULATED.set(Some(Simulated { chance: seed, wall: Duration::ZERO, steady: Duration::ZERO }));
}

/// What the clocks of this thread show: since 1970, and since some moment.
pub fn set_time(wall: Duration, steady: Duration) {
    if let Some(simulated) = SIMULATED.get() {
        SIMULATED.set(Some(Simulated { wall, steady, ..simulated }));
    }
}

/// splitmix64.
fn fill(mut simulated: Simulated, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        simulated.chance = simulated.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = simulated.chance;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        chunk.iter_mut().zip(z.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
    SIMULATED.set(Some(simulated));
}

/// The C library's own function of that name.
fn own(known: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let mut found = known.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: the name is a C string, and the answer is only an address.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        known.store(found, Ordering::Relaxed);
    }
    assert!(!found.is_null(), "the C library has no {name:?}");
    found
}

/// # Safety
/// As getrandom(2) says: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    type Own = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> isize;
    static OWN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let Some(simulated) = SIMULATED.get() else {
        // SAFETY: it has this signature, and the arguments are the caller's.
        return unsafe { std::mem::transmute::<*mut c_void, Own>(own(&OWN, c"getrandom"))(buffer, length, flags) };
    };
    if length > 0 {
        // SAFETY: the caller's promise; bytes are written before they are read.
        unsafe { buffer.cast::<u8>().write_bytes(0, length) };
        // SAFETY: the same, and they are written now.
        fill(simulated, unsafe { std::slice::from_raw_parts_mut(buffer.cast(), length) });
    }
    length.cast_signed()
}

/// The arguments that a system call does not have are whatever is there, and the kernel does not look at them.
///
/// # Safety
/// As syscall(2) says of each number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    type Own = unsafe extern "C" fn(c_long, ...) -> c_long;
    static OWN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    if number == libc::SYS_getrandom && SIMULATED.get().is_some() {
        // SAFETY: these are that call's arguments.
        return unsafe { getrandom(a as *mut c_void, b.cast_unsigned() as usize, c as c_uint) } as c_long;
    }
    // SAFETY: it has this signature, and the arguments are the caller's.
    unsafe { std::mem::transmute::<*mut c_void, Own>(own(&OWN, c"syscall"))(number, a, b, c, d, e, f) }
}

/// # Safety
/// As clock_gettime(2) says: there is room at `time`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    type Own = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;
    static OWN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let shown = match (SIMULATED.get(), clock) {
        (Some(simulated), libc::CLOCK_REALTIME) => simulated.wall,
        (Some(simulated), libc::CLOCK_MONOTONIC) => simulated.steady,
        // SAFETY: it has this signature, and the arguments are the caller's.
        _ => return unsafe { std::mem::transmute::<*mut c_void, Own>(own(&OWN, c"clock_gettime"))(clock, time) },
    };
    let (seconds, nanos) = (shown.as_secs().cast_signed(), shown.subsec_nanos().into());
    // SAFETY: the caller's promise.
    unsafe { time.write(libc::timespec { tv_sec: seconds, tv_nsec: nanos }) };
    0
}
