use alloc::vec;

use limpet_shared::lorawan::mac::{parse_downlink, parse_uplink};
use proptest::prelude::*;

use super::*;
use crate::{downlink::Timing, session};

const NOTHING: [u8; 0] = [];

fn eu868() -> &'static Region {
    Region::by_name("eu868").unwrap()
}

/// A session with what is wanted of its device.
struct Network {
    home: &'static Region,
    settings: RegionSettings,
    profile: DeviceProfile,
    mac: MacState,
    at: UnixMicros,
}

/// What an uplink came to.
#[derive(Debug)]
struct Turn {
    settled: Settled,
    asked: Asked,
}

impl Network {
    fn new(home: &'static Region) -> Self {
        let mac = MacState { channels_set: true, ..session::initial_mac(home) };
        let (settings, profile) = (RegionSettings::default(), DeviceProfile::default());
        Self { home, settings, profile, mac, at: UnixMicros(1_000_000) }
    }

    /// An uplink with these answers, and its downlink with all that is asked for if there is a reason for one.
    fn uplink(&mut self, fcnt: u32, answers: &[u8]) -> Turn {
        let turn = self.heard(fcnt, answers, 15);
        if turn.asked.due || turn.settled.repeats {
            note_sent(&mut self.mac, &turn.asked.commands, fcnt, self.at);
        }
        turn
    }

    fn heard(&mut self, fcnt: u32, answers: &[u8], room: usize) -> Turn {
        let home = (self.home, self.profile.mac_version);
        let settled = settle(&parse_uplink(answers).commands, true, &mut self.mac, home);
        let Self { home, settings, profile, at, .. } = self;
        let wanted = Wanted { home, settings, profile, joined: true, sending: None, at: *at };
        let asked = ask(&wanted, &mut self.mac, &settled, fcnt, room);
        Turn { settled, asked }
    }

    fn states(&self) -> Vec<(RequestState, u8)> {
        self.mac.requests.iter().map(|request| (request.state, request.tries)).collect()
    }
}

#[test]
fn where_nothing_is_wanted_nothing_is_asked_or_kept() {
    let mut network = Network::new(eu868());
    let before = network.mac.clone();
    for fcnt in 0..5 {
        let turn = network.uplink(fcnt, &[0x02]);
        assert_eq!((turn.asked.commands, turn.asked.due, turn.settled.repeats), (vec![], false, false));
    }
    assert_eq!(network.mac, before);
    assert_eq!(network.mac.requests.capacity(), 0);
}

#[test]
fn another_delay_holds_once_the_device_has_answered() {
    let mut network = Network::new(eu868());
    network.settings.rx1_delay = Some(5);
    let asked = network.uplink(0, &[]).asked;
    assert_eq!((asked.commands, asked.due), (vec![0x08, 5], true));
    assert_eq!(network.mac.rx1_delay, 1, "the downlink that says so comes in the windows of before");
    let turn = network.uplink(1, &[0x08]);
    assert_eq!((network.mac.rx1_delay, network.mac.requests.len()), (5, 0));
    assert!(turn.settled.repeats && turn.asked.commands.is_empty(), "a downlink that says nothing ends the repetition");
}

#[test]
fn rx_parameters_are_taken_whole_or_not_at_all() {
    for status in 0..8_u8 {
        let mut network = Network::new(eu868());
        (network.settings.rx1_dr_offset, network.settings.rx2_dr) = (Some(2), Some(3));
        network.settings.rx2_frequency = Some(868_525_000);
        let before = network.mac.windows();
        assert_eq!(network.uplink(0, &[]).asked.commands, [0x05, 0x23, 0xc2, 0x86, 0x84]);
        let turn = network.uplink(1, &[0x05, status]);
        let after = network.mac.windows();
        assert_eq!(after != before, status == 7, "{status}: {after:?}");
        assert_eq!(turn.settled.refused.len(), usize::from(status != 7));
        let again: Vec<_> = (2..300).filter(|fcnt| network.uplink(*fcnt, &[]).asked.due).collect();
        assert_eq!(again, Vec::<u32>::new(), "what was refused is not asked again");
        network.settings.rx2_dr = Some(4);
        assert!(network.uplink(300, &[]).asked.due, "until something else is wanted");
    }
}

#[test]
fn a_request_is_repeated_at_once_then_seldom_and_given_up() {
    let mut network = Network::new(eu868());
    network.settings.rx1_delay = Some(5);
    let mut told = Vec::new();
    let mut asked = Vec::new();
    for fcnt in 0..1_000 {
        let turn = network.uplink(fcnt, &[]);
        asked.extend(turn.asked.due.then_some(fcnt));
        told.extend(turn.asked.unanswered);
    }
    assert_eq!(asked, [0, 1, 2, 10, 26, 58, 122, 250]);
    assert_eq!((told.len(), network.states()), (1, vec![(RequestState::Unanswered, 8)]));
    network.uplink(1_000, &[0x08]);
    assert_eq!(network.mac.rx1_delay, 5, "an answer that comes late is one");
}

#[test]
fn a_request_goes_along_with_any_downlink() {
    let mut network = Network::new(eu868());
    network.settings.rx1_delay = Some(5);
    (0..3).for_each(|fcnt| drop(network.uplink(fcnt, &[])));
    let asked = network.uplink(4, &[]).asked;
    assert_eq!((asked.commands, asked.due), (vec![0x08, 5], false));
}

#[test]
fn what_may_have_been_done_is_asked_until_it_is_answered() {
    let mut network = Network::new(eu868());
    network.settings.rx1_delay = Some(5);
    network.uplink(0, &[]);
    network.settings.rx1_delay = None;
    assert_eq!(network.uplink(1, &[]).asked.commands, [0x08, 5]);
    assert_eq!(network.uplink(2, &[0x08]).asked.commands, NOTHING, "nothing of its kind beside the answer");
    assert_eq!(network.uplink(3, &[0x08]).asked.commands, NOTHING, "nor beside its repetition");
    assert_eq!((network.mac.rx1_delay, network.uplink(4, &[]).asked.commands), (5, vec![0x08, 1]));
    network.uplink(5, &[0x08]);
    assert_eq!(network.mac.rx1_delay, 1);
}

#[test]
fn answers_to_nothing_change_nothing() {
    let mut network = Network::new(eu868());
    let before = network.mac.clone();
    let all = [0x03, 7, 0x04, 0x05, 7, 0x06, 3, 3, 0x07, 3, 0x08, 0x09, 0x0a, 3, 0x11, 3, 0x13, 1];
    let turn = network.uplink(0, &all);
    assert_eq!((&network.mac, turn.settled.status), (&before, None));
}

#[test]
fn channels_are_told_one_by_one_and_the_defaults_never() {
    let mut network = Network::new(eu868());
    network.settings.extra_channels = Some(vec![867_100_000, 864_100_000, 864_300_000]);
    // Two fit; the other two, which are to go, follow.
    let asked = network.uplink(0, &[]).asked.commands;
    let channel = |index, frequency_hz| DownlinkCommand::NewChannelReq {
        index,
        frequency_hz,
        min_data_rate: 0,
        max_data_rate: 5,
    };
    assert_eq!(parse_downlink(&asked).commands, [channel(4, 864_100_000), channel(5, 864_300_000)]);
    let turn = network.uplink(1, &[0x07, 2, 0x07, 3]);
    assert_eq!(turn.settled.refused[0].1, "frequency");
    let asked = turn.asked.commands;
    assert_eq!(parse_downlink(&asked).commands, [channel(6, 0), channel(7, 0)]);
    network.uplink(2, &[0x07, 3, 0x07, 3]);
    let has = Some(vec![867_100_000, 867_300_000, 864_300_000]);
    assert_eq!((network.mac.extra_channels.clone(), network.uplink(3, &[]).asked.commands), (has, vec![]));
    network.settings.extra_channels = None;
    assert_eq!(parse_downlink(&network.uplink(4, &[]).asked.commands).commands.len(), 2);
    network.uplink(5, &[0x07, 3, 0x07, 3]);
    network.uplink(6, &[0x07, 3]);
    assert_eq!((network.mac.extra_channels.clone(), network.mac.requests.len()), (None, 0), "the region's own again");
}

#[test]
fn fixed_plans_have_no_new_channels() {
    let mut network = Network::new(Region::by_name("us915_1").unwrap());
    network.settings.extra_channels = Some(vec![903_900_000]);
    assert_eq!(network.uplink(0, &[]).asked.commands, NOTHING);
}

#[test]
fn a_sub_band_is_a_block_that_is_answered_once_or_by_each_command() {
    for (answers, granted) in [
        (&[0x03, 7][..], true),
        (&[0x03, 7, 0x03, 7], true),
        (&[0x03, 7, 0x03, 6], false),
        (&[0x03, 6, 0x03, 6], false),
        (&[0x03, 1, 0x03, 1], false),
    ] {
        let mut network = Network::new(Region::by_name("us915_1").unwrap());
        (network.mac.channels_set, network.mac.data_rate) = (false, 3);
        let asked = network.uplink(0, &[]).asked.commands;
        assert_eq!(asked, [0x03, 0x30, 0x02, 0x00, 0x71, 0x03, 0x30, 0x00, 0xff, 0x01]);
        network.uplink(1, answers);
        assert_eq!((network.mac.channels_set, network.states().len()), (granted, usize::from(!granted)), "{answers:?}");
        network.mac.data_rate = 1;
        assert_eq!(network.uplink(2, &[]).asked.commands, NOTHING, "nor is it asked again at another data rate");
    }
}

#[test]
fn a_block_that_waits_names_the_data_rate_of_now() {
    let mut network = Network::new(Region::by_name("us915_1").unwrap());
    (network.mac.channels_set, network.mac.data_rate) = (false, 3);
    network.uplink(0, &[]);
    network.mac.data_rate = 1;
    assert_eq!(network.uplink(1, &[]).asked.commands[..2], [0x03, 0x10]);
    assert_eq!(network.states(), [(RequestState::Waiting, 2)]);
    let beside_answers = network.heard(2, &[], 6).asked.commands;
    assert_eq!(beside_answers.len(), 10, "a block is never cut");
}

#[test]
fn the_status_is_asked_for_as_often_as_is_set() {
    let mut network = Network::new(eu868());
    network.profile.device_status_req_interval = 24;
    let mut told = Vec::new();
    for minute in 0..150_u32 {
        network.at = UnixMicros(60_000_000 * u64::from(minute) + 1);
        if network.uplink(minute, &[]).asked.due {
            told.push(minute);
        }
        if minute == 60 {
            assert_eq!(network.mac.battery, None);
            let turn = network.heard(minute, &[0x06, 0x80, 0xe7], 15);
            assert_eq!(turn.settled.status, Some(StatusEvent { margin: -25, battery: 128 }));
        }
    }
    assert_eq!(told, [0, 1, 2, 10, 26, 58, 118, 119, 120, 128, 144]);
    assert_eq!((network.mac.battery, network.mac.margin), (Some(128), Some(-25)));
}

/// A network of a band that knows limits of 400 ms.
fn limited(name: &str) -> Network {
    let mut network = Network::new(Region::by_name(name).unwrap());
    network.mac.data_rate = 5;
    network
}

fn set_limits(network: &mut Network, uplink: bool, downlink: bool) {
    network.settings.uplink_dwell_time_400ms = Some(uplink);
    network.settings.downlink_dwell_time_400ms = Some(downlink);
}

#[test]
fn limits_are_told_to_who_may_know_them_and_hold_once_they_are_acknowledged() {
    let known = |network: &Network| Timing::of(&network.mac).limited;
    let mut network = limited("as923");
    assert_eq!((network.uplink(0, &[]).asked.commands, known(&network)), (vec![0x09, 0x05], None));
    let turn = network.uplink(1, &[0x09]);
    assert!(turn.settled.repeats, "the device repeats its answer until it hears something");
    assert_eq!((turn.asked.commands.as_slice(), known(&network)), (&NOTHING[..], Some(false)));
    set_limits(&mut network, true, true);
    assert_eq!(network.uplink(2, &[0x09]).asked.commands, NOTHING, "not beside an answer that may be a repetition");
    assert_eq!((network.uplink(3, &[]).asked.commands, known(&network)), (vec![0x09, 0x35], Some(false)));
    network.uplink(4, &[0x09]);
    assert_eq!((known(&network), network.states()), (Some(true), vec![]));
    assert_eq!(network.uplink(5, &[]).asked.commands, NOTHING);

    let mut network = limited("au915_1");
    set_limits(&mut network, true, false);
    assert_eq!(network.uplink(0, &[]).asked.commands, [0x09, 0x1d]);
    for (name, version) in
        [("as923", MacVersion::V1_0_1), ("au915_1", MacVersion::V1_0_2), ("us915_1", MacVersion::V1_0_4)]
    {
        let mut network = limited(name);
        network.profile.mac_version = version;
        assert_eq!(
            (network.uplink(0, &[0x09]).asked.commands.as_slice(), known(&network)),
            (&NOTHING[..], None),
            "{name}"
        );
    }
}

#[test]
fn who_sends_slower_than_the_limit_lets_him_has_refused_it() {
    let mut network = limited("as923_2");
    set_limits(&mut network, true, true);
    network.uplink(0, &[]);
    network.uplink(1, &[0x09]);
    assert_eq!(network.mac.dwell, Some(DwellTime { uplink: true, downlink: true }));
    network.mac.data_rate = 1;
    let turn = network.uplink(2, &[]);
    assert_eq!((turn.settled.refused.len(), network.mac.dwell), (1, None));
    let asked = (3..200).any(|fcnt| network.uplink(fcnt, &[]).asked.due);
    assert!(!asked && network.states() == [(RequestState::Refused, 1)], "nor is it asked again");
    set_limits(&mut network, false, true);
    assert_eq!(network.uplink(200, &[]).asked.commands, [0x09, 0x25]);
    network.uplink(201, &[0x09]);
    assert_eq!(network.mac.dwell, Some(DwellTime { uplink: false, downlink: true }), "slow as it is");
}

#[test]
fn frequencies_that_no_command_can_tell_are_not_told() {
    let mut network = limited("ism2400");
    network.settings.rx1_dr_offset = Some(2);
    assert_eq!(network.uplink(0, &[]).asked.commands, NOTHING);
}

#[test]
fn requests_are_never_cut() {
    let requests = [0x03, 1, 2, 3, 4, 0x03, 5, 6, 7, 8, 0x08, 5, 0x06];
    let fitting = |room| whole(&requests, |length| length <= room).len();
    assert_eq!([0, 9, 10, 11, 12, 13, 15].map(fitting), [0, 0, 10, 10, 12, 13, 13]);
}

/// A device as the specification has it.
#[derive(Clone, Debug)]
struct Device {
    windows: Windows,
    channels: Vec<u32>,
    sticky: Vec<u8>,
    answers: Vec<u8>,
    /// Refuses RXParamSetupReq with this data rate.
    dislikes: u8,
}

impl Device {
    fn hear(&mut self, commands: &[u8]) {
        self.sticky.clear();
        for command in parse_downlink(commands).commands {
            match command {
                DownlinkCommand::RxTimingSetupReq { delay } => {
                    self.windows.rx1_delay = delay.max(1);
                    self.sticky.push(0x08);
                }
                DownlinkCommand::RxParamSetupReq { rx2_data_rate, .. } if rx2_data_rate == self.dislikes => {
                    self.sticky.extend([0x05, 0x05]);
                }
                DownlinkCommand::RxParamSetupReq { rx1_dr_offset, rx2_data_rate, frequency_hz } => {
                    let rx1_delay = self.windows.rx1_delay;
                    self.windows = Windows { rx1_delay, rx1_dr_offset, rx2_data_rate, rx2_frequency: frequency_hz };
                    self.sticky.extend([0x05, 0x07]);
                }
                DownlinkCommand::NewChannelReq { index, frequency_hz, .. } => {
                    self.channels[usize::from(index) - 3] = frequency_hz;
                    self.answers.extend([0x07, 0x03]);
                }
                _ => {}
            }
        }
    }

    fn uplink(&mut self) -> Vec<u8> {
        let answers = core::mem::take(&mut self.answers);
        [self.sticky.clone(), answers].concat()
    }
}

proptest! {
    /// Whatever is set while whatever is lost: in each uplink that is heard, the session has the windows that the device has. Where the
    /// session was wrong, nothing that it sends would be heard. When no more is lost, the device has what is set, and is left alone.
    #[test]
    fn a_session_never_misjudges_its_device(
        turns in proptest::collection::vec((0..10_u8, any::<bool>(), any::<bool>(), (1..16_u8, 0..6_u8, 0..8_u8), 0..4_u32), 1..120),
    ) {
        let mut network = Network::new(eu868());
        let channels = eu868().extra_channels().unwrap();
        let mut device = Device { windows: network.mac.windows(), channels, sticky: vec![], answers: vec![], dislikes: 7 };
        let mut fcnt = 0;
        for (change, up_lost, down_lost, (delay, offset, rate), channel) in turns {
            match change {
                0 => network.settings.rx1_delay = Some(delay),
                1 => network.settings.rx1_dr_offset = Some(offset),
                2 => network.settings.rx2_dr = Some(rate),
                3 => network.settings.extra_channels = Some(vec![864_100_000 + 200_000 * channel]),
                4 => network.settings = RegionSettings::default(),
                _ => {}
            }
            let answers = device.uplink();
            fcnt += 1;
            if up_lost {
                continue;
            }
            let turn = network.uplink(fcnt, &answers);
            prop_assert_eq!(network.mac.windows(), device.windows);
            if (turn.asked.due || turn.settled.repeats) && !down_lost {
                device.hear(&turn.asked.commands);
            }
        }
        network.settings = RegionSettings { rx1_delay: Some(3), rx2_dr: Some(2), ..RegionSettings::default() };
        let mut sent = Vec::new();
        // The longest pause, several times: one request may wait for another.
        for _ in 0..2_000 {
            fcnt += 1;
            let turn = network.uplink(fcnt, &device.uplink());
            let says = turn.asked.due || turn.settled.repeats;
            sent.push(says);
            if says {
                device.hear(&turn.asked.commands);
            }
        }
        prop_assert!(!sent[1_000..].contains(&true), "left alone in the end");
        prop_assert_eq!(network.mac.windows(), device.windows);
        let given_up = network.mac.requests.iter().any(|request| request.state == RequestState::Unanswered);
        let windows = device.windows;
        prop_assert!(given_up || (windows.rx1_delay, windows.rx2_data_rate) == (3, 2), "{:?}", windows);
        prop_assert!(given_up || Some(device.channels) == eu868().extra_channels(), "channels too");
    }
}
