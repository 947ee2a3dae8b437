use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
/// Long after the start.
const NOW: Duration = Duration::from_secs(1_000);

fn data(device: u32, fcnt: u16) -> [Glance; 1] {
    [Glance::Data { dev_addr: DevAddr(device), fcnt }]
}

fn next(line: &mut Line<u32>, now: Duration) -> Option<(Class, u32)> {
    let open = line.pop(now, Class::Open).map(|item| (Class::Open, item));
    open.or_else(|| line.pop(now, Class::Late).map(|item| (Class::Late, item)))
}

fn all(line: &mut Line<u32>, now: Duration) -> Vec<u32> {
    core::iter::from_fn(|| next(line, now).map(|(_, item)| item)).collect()
}

#[test]
fn open_ones_go_first_the_newest_first_and_late_ones_in_order() {
    let mut line = Line::new(1 << 20);
    for (item, age) in [(1, 9_000), (2, 8_000), (3, 1_600), (4, 1_400), (5, 700), (6, 1)] {
        line.push(NOW - MS * age, 100, &data(item, 1), item);
    }
    assert_eq!(next(&mut line, NOW), Some((Class::Open, 6)));
    assert_eq!(line.pop(NOW, Class::Late), None, "there is an open one");
    assert_eq!(all(&mut line, NOW), [5, 4, 1, 2, 3]);
    assert!(line.is_empty());
}

#[test]
fn join_requests_are_open_for_longer() {
    let mut line = Line::new(1 << 20);
    line.push(NOW - MS * 6_000, 100, &[Glance::JoinRequest], 1);
    line.push(NOW - MS * 4_000, 100, &[Glance::JoinRequest], 2);
    line.push(NOW - MS * 3_000, 100, &data(1, 1), 3);
    assert_eq!(all(&mut line, NOW), [2, 1, 3]);
}

#[test]
fn a_devices_open_ones_are_in_order_and_pass_its_late_ones_only_so_far() {
    let mut line = Line::new(1 << 20);
    let late = NOW - MS * 60_000;
    line.push(late, 100, &data(1, 10), 1);
    line.push(late + MS, 100, &data(2, 10), 2);
    line.push(NOW - MS * 900, 100, &data(1, 11), 3);
    line.push(NOW - MS * 800, 100, &data(2, 10 + PASSES as u16), 4);
    line.push(NOW, 100, &data(1, 12), 5);
    assert_eq!(all(&mut line, NOW), [3, 5, 2, 4, 1], "4 would make a replay of 2");
    // A device that has begun anew.
    line.push(late, 100, &data(1, 10), 1);
    line.push(NOW, 100, &data(1, 0), 2);
    assert_eq!(all(&mut line, NOW), [1, 2]);
}

#[test]
fn it_is_full_by_bytes_and_has_room_again() {
    let mut line = Line::new(3 * (1_000 + OVERHEAD));
    for item in 0..3 {
        assert!(line.has_room());
        line.push(NOW, 1_000, &[], item);
    }
    assert!(!line.has_room());
    assert_eq!(line.pop(NOW, Class::Open), Some(2));
    assert!(line.has_room());
}

#[test]
fn late_ones_are_few_at_a_time_and_a_faster_worker_has_more_in_work() {
    let mut busy = Busy::default();
    let mut taken = 0;
    while busy.has_room(NOW, Class::Late) {
        busy.begin(NOW, Class::Late);
        taken += 1;
    }
    assert_eq!(taken, BUSY_LATE);
    while busy.has_room(NOW, Class::Open) {
        busy.begin(NOW, Class::Open);
        taken += 1;
    }
    assert_eq!(taken, BUSY);
    for _ in 0..40_000 {
        let begun = busy.begin(NOW, Class::Open);
        busy.end(&begun, true);
    }
    assert!(!busy.has_room(NOW + MS * 900, Class::Open));
    assert!(busy.has_room(NOW + MS * 1_900, Class::Open), "it has decided 20,000 and more in a second");
}

/// As with a row that cannot be read: it is tried for ever.
#[test]
fn what_waits_for_ever_stops_nobody() {
    let mut busy = Busy::default();
    let mut stuck = Vec::new();
    while busy.has_room(NOW, Class::Open) {
        stuck.push(busy.begin(NOW, Class::Open));
    }
    assert!(!busy.has_room(NOW + MS * 2_900, Class::Open), "it may be slow");
    let later = NOW + Duration::from_secs(COUNTED);
    assert!(busy.has_room(later, Class::Open));
    let begun = busy.begin(later, Class::Open);
    stuck.iter().for_each(|begun| busy.end(begun, false));
    let taken = core::iter::from_fn(|| busy.has_room(later, Class::Open).then(|| busy.begin(later, Class::Open)));
    assert_eq!(taken.count(), BUSY - 1, "what was given back late takes nothing from others");
    busy.end(&begun, false);
    assert!(busy.has_room(later, Class::Open));
}

/// A worker of a certain speed, and what it took up in which order.
struct Run {
    line: Line<u32>,
    /// Of each item: device, counter, when it came.
    sent: Vec<(u32, u16, Duration)>,
    taken: Vec<(u32, Class, Duration)>,
}

impl Run {
    /// `load`: so many come in each 10 ms step; of them `speed` are taken up.
    fn go(devices: u32, load: &[u8], speed: usize) -> Self {
        let mut run = Self { line: Line::new(usize::MAX), sent: Vec::new(), taken: Vec::new() };
        let mut now = NOW;
        let mut counters = alloc::collections::BTreeMap::new();
        let mut steps = load.iter().copied();
        loop {
            let come = steps.next();
            for _ in 0..come.unwrap_or_default() {
                let item = run.sent.len() as u32;
                let device = item * 7 % devices;
                let fcnt = *counters.entry(device).and_modify(|fcnt| *fcnt += 1).or_insert(0);
                run.sent.push((device, fcnt, now));
                run.line.push(now, 100, &data(device, fcnt), item);
            }
            for _ in 0..speed {
                let Some((class, item)) = next(&mut run.line, now) else { break };
                run.taken.push((item, class, now));
            }
            if come.is_none() && run.line.is_empty() {
                return run;
            }
            now += MS * 10;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes: all is taken up once; none is passed by one that is too far ahead; late ones of a device, and open ones, are in
    /// order; and while an open one waits no late one is taken up, but for its device's sake.
    #[test]
    fn nothing_is_lost_and_each_device_keeps_its_order(
        devices in 1_u32..20,
        load in prop::collection::vec(0_u8..12, 1..400),
        speed in 1_usize..6,
    ) {
        let run = Run::go(devices, &load, speed);
        let mut taken: Vec<u32> = run.taken.iter().map(|(item, ..)| *item).collect();
        for device in 0..devices {
            let of = |wanted: Class| -> Vec<u16> {
                let mine = run.taken.iter().filter(|(item, class, at)| {
                    let (of, _, came) = run.sent[*item as usize];
                    let open = if *at - came < OPEN { Class::Open } else { Class::Late };
                    of == device && open == wanted && (*class == wanted || wanted == Class::Late)
                });
                mine.map(|(item, ..)| run.sent[*item as usize].1).collect()
            };
            for class in [Class::Open, Class::Late] {
                prop_assert!(of(class).is_sorted(), "{class:?} of {device}: {:?}", of(class));
            }
            let (mut highest, all) = (0, run.taken.iter().map(|(item, ..)| run.sent[*item as usize]));
            for (_, fcnt, _) in all.filter(|(of, ..)| *of == device) {
                prop_assert!(u32::from(highest - fcnt.min(highest)) < PASSES);
                highest = highest.max(fcnt);
            }
        }
        taken.sort_unstable();
        prop_assert_eq!(taken, (0..run.sent.len() as u32).collect::<Vec<_>>());
    }

    /// After an overload what comes is taken up as if there had been none, in the step that it comes.
    #[test]
    fn what_comes_after_an_overload_waits_for_nothing(overload in 100_usize..400, speed in 2_usize..6) {
        let load: Vec<u8> = core::iter::repeat_n(20, overload).chain(core::iter::repeat_n(1, 100)).collect();
        let run = Run::go(5_000, &load, speed);
        let calm = NOW + MS * 10 * overload as u32;
        for (item, _, at) in &run.taken {
            let (_, _, came) = run.sent[*item as usize];
            prop_assert!(came < calm || *at == came, "{item} came at {came:?} and was taken up at {at:?}");
        }
        prop_assert!(run.taken.iter().any(|(_, class, at)| *class == Class::Late && *at > calm));
    }
}
