//! How sessions begin.

use alloc::vec::Vec;

use limpet_shared::{DevAddr, Eui64, UnixMicros, region::Region};

use crate::{
    ident,
    model::{
        AdrState, Answer, DeviceProfile, MacState, RegionSettings, Seen, Session, SessionId, SessionKey, SessionKeys,
        SessionRow, Slot, Windows,
    },
};

/// RX1 delay that the network tells devices in the JoinAccept if it has no setting for it, in seconds; also what ABP devices have from
/// the factory.
pub const RX1_DELAY: u8 = 1;

/// The parameters that a device has from the factory, as its region has them.
pub fn initial_mac(region: &Region) -> MacState {
    let (rx2_frequency, rx2_data_rate) = region.rx2();
    MacState {
        rx1_delay: RX1_DELAY,
        rx1_dr_offset: 0,
        rx2_data_rate,
        rx2_frequency,
        extra_channels: None,
        data_rate: 0,
        tx_power: 0,
        channels_set: false,
        channels_tried: 0,
        dwell: None,
        battery: None,
        margin: None,
        status_asked_at: UnixMicros(0),
        adr: AdrState::default(),
        requests: Vec::new(),
    }
}

/// The parameters that a JoinAccept tells. It has no room for the frequency of RX2, which the device is told later.
pub fn told_at_join(region: &Region, settings: &RegionSettings, profile: &DeviceProfile) -> MacState {
    let mut mac = MacState { extra_channels: settings.extra_channels.clone(), ..initial_mac(region) };
    let (rx2_frequency, _) = region.rx2();
    let wanted = wanted_windows(settings, profile, default_windows(region));
    mac.set_windows(Windows { rx2_frequency, ..wanted });
    mac
}

/// The windows that a device is to have; `own` where nothing is set.
pub fn wanted_windows(settings: &RegionSettings, profile: &DeviceProfile, own: Windows) -> Windows {
    Windows {
        rx1_delay: settings.rx1_delay.unwrap_or(own.rx1_delay).max(profile.rx1_delay),
        rx1_dr_offset: settings.rx1_dr_offset.unwrap_or(own.rx1_dr_offset),
        rx2_data_rate: settings.rx2_dr.unwrap_or(own.rx2_data_rate),
        rx2_frequency: settings.rx2_frequency.unwrap_or(own.rx2_frequency),
    }
}

/// The band's own.
pub fn default_windows(region: &Region) -> Windows {
    let (rx2_frequency, rx2_data_rate) = region.rx2();
    Windows { rx1_delay: RX1_DELAY, rx1_dr_offset: 0, rx2_data_rate, rx2_frequency }
}

/// Those that an ABP device has built in, by its profile.
fn built_in_windows(region: &Region, profile: &DeviceProfile) -> Windows {
    let default = default_windows(region);
    let (rx2_data_rate, rx2_frequency) = match profile.abp_rx2_freq {
        0 => (default.rx2_data_rate, default.rx2_frequency),
        frequency => (profile.abp_rx2_dr, frequency),
    };
    let rx1_delay = if profile.abp_rx1_delay == 0 { default.rx1_delay } else { profile.abp_rx1_delay };
    Windows { rx1_delay, rx1_dr_offset: profile.abp_rx1_dr_offset, rx2_data_rate, rx2_frequency }
}

/// The state that an ABP device has from the factory.
pub fn built_in_mac(region: &Region, profile: &DeviceProfile) -> MacState {
    let mut mac = initial_mac(region);
    mac.set_windows(built_in_windows(region, profile));
    mac
}

/// A session's first row, with the parameters from the factory.
pub fn begin(key: SessionKey, since: UnixMicros, joined: bool, region: &Region, keys: SessionKeys) -> Session {
    Session {
        key,
        rev: 1,
        since,
        replaced_at: None,
        joined,
        region: region.name().into(),
        keys,
        seen: Seen::starting_at(0),
        resets: 0,
        next_fcnt_down: 0,
        mac: initial_mac(region),
        slot: Slot::empty(),
        answer: Answer::Closed,
        item: None,
        queue_done: 0,
        awaiting_ack: None,
        over: None,
    }
}

/// Each frame of a DevAddr is compared with all its sessions, of whatever tenant. Activation takes no DevAddr that so many other
/// devices were given by hand, and a join draws none that has so many sessions.
pub const MOST_OF_ADDR: usize = 64;

/// Whether the device may be given this DevAddr, whose sessions these are. One that it has, it may have again.
pub fn has_room(rows: &[SessionRow], dev_eui: Eui64) -> bool {
    let (own, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.session.key.dev_eui == dev_eui);
    let lives = |row: &&SessionRow| row.session.over.is_none();
    let given: Vec<_> = others.into_iter().filter(|row| !row.session.joined).collect();
    // A place that became free is given again, but not without end: what is over is compared with as well.
    let has_place = given.iter().filter(|row| lives(row)).count() < MOST_OF_ADDR && given.len() < 2 * MOST_OF_ADDR;
    own.iter().any(lives) || has_place
}

/// What an activation by personalization sets.
#[derive(Clone, Debug)]
pub struct Personalization {
    pub dev_eui: Eui64,
    pub dev_addr: DevAddr,
    pub keys: SessionKeys,
    /// The FCntUp that the device will send next.
    pub fcnt_up: u32,
    /// The FCntDown that the next downlink will have.
    pub fcnt_down: u32,
    /// Queue items up to this number were for the session before.
    pub queue_done: u64,
}

impl Session {
    /// Notes how far those have counted that this session replaces: what was on its way when they ended must not count in it.
    pub fn replaces<'a>(&mut self, sessions: impl Iterator<Item = &'a Session>) {
        let same = sessions.filter(|old| old.device_keys().nwk_s_key == self.keys.nwk_s_key);
        self.replaced_at = same.map(|old| old.seen.next).max().filter(|next| *next > self.seen.next);
    }
}

/// An ABP session. `revision` is that of the device's state after the activation, so that each activation makes
/// another session; the windows are those of the profile, as the device has them built in.
pub fn personalized(
    abp: &Personalization,
    profile: &DeviceProfile,
    region: &Region,
    revision: u64,
    now: UnixMicros,
) -> Session {
    let id: SessionId = ident::personalized_session(abp.dev_eui, abp.dev_addr, revision, now);
    let key = SessionKey { dev_addr: abp.dev_addr, dev_eui: abp.dev_eui, id };
    let mut session = begin(key, now, false, region, abp.keys);
    session.seen = Seen::starting_at(abp.fcnt_up);
    session.next_fcnt_down = abp.fcnt_down;
    session.queue_done = abp.queue_done;
    session.mac = built_in_mac(region, profile);
    session
}
