//! What the network asks of a device by MAC commands, from the first downlink with it to the device's answer.
//!
//! | a request | and then | becomes |
//! | --- | --- | --- |
//! | none | the device is to have what it has not | waiting, once a downlink with it is decided |
//! | waiting | the device grants it | none; the session has what was asked for |
//! | waiting | it refuses | refused; its owner is told |
//! | waiting | uplinks come without an answer | waiting: the same goes along with the next downlink, or causes one after a [`pause`] |
//! | waiting | and none comes to the last of [`MOST_TRIES`] | unanswered; its owner is told. A DevStatusReq: none |
//! | unanswered | the device answers after all | as if it were waiting |
//! | refused, unanswered | something else is wanted | none: the other one is asked |
//!
//! A request that waits is asked again unchanged, even if it is wanted no more: the device may have done it, and its answer may have been
//! lost. An answer to nothing changes nothing. The device repeats some answers until it hears a downlink (LoRaWAN 1.0.4, 5.4 and 5.7), so
//! each uplink with one is answered, and nothing else of its kind is asked along with that: the next repetition would seem to grant it.

use alloc::{format, string::String, vec::Vec};

use limpet_shared::{
    UnixMicros,
    lorawan::{
        MAX_FOPTS,
        mac::{self, DownlinkCommand, UplinkCommand},
    },
    region::Region,
};

use crate::{
    adr::{self, Sending},
    model::{
        DeviceProfile, DwellTime, MacState, MacVersion, RegionSettings, Request, RequestState, StatusEvent, Subject,
        Windows,
    },
    session::{default_windows, wanted_windows},
};

/// Downlinks that carry a request which is not answered.
const MOST_TRIES: u8 = 8;
/// So many of them follow each other at once: more are lost where a device is hardly heard.
const AT_ONCE: u8 = 3;
/// Requests that a session remembers: there are no more subjects in any plan.
const MOST_REQUESTS: usize = 24;
const DAY: u64 = 24 * 3600 * 1_000_000;

/// What the network wants of a device.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub home: &'a Region,
    /// Those of [`Self::home`].
    pub settings: &'a RegionSettings,
    pub profile: &'a DeviceProfile,
    /// The session is of a join.
    pub joined: bool,
    /// What ADR wants it to send with, if that is another thing.
    pub sending: Option<Sending>,
    /// When the uplink was received that can be answered now.
    pub at: UnixMicros,
}

/// What a device's answers came to.
#[derive(Debug, Default)]
pub struct Settled {
    /// It repeats an answer until it hears a downlink.
    pub repeats: bool,
    /// Refused, each with what the device does not like.
    pub refused: Vec<(Request, String)>,
    pub status: Option<StatusEvent>,
    /// What it has answered, or repeats.
    subjects: Vec<Subject>,
}

/// What to ask for now.
#[derive(Debug, Default)]
pub struct Asked {
    /// In the order of their urgency.
    pub commands: Vec<u8>,
    /// They are reason enough for a downlink.
    pub due: bool,
    /// It is over for these.
    pub unanswered: Vec<Request>,
}

/// Takes the device's answers into the session. `adr`: the uplink's ADR bit.
pub fn settle(
    commands: &[UplinkCommand],
    adr: bool,
    mac: &mut MacState,
    (home, version): (&Region, MacVersion),
) -> Settled {
    use UplinkCommand as C;
    let mut settled = Settled::default();
    // Of the downlink that was answered last: one answer for each channel that it asked for, in its order.
    let mut channels = asked_channels(mac).into_iter();
    let mut link_adr: Option<[bool; 3]> = None;
    for command in commands {
        match *command {
            // A block is done whole or not at all, and answered once (1.1) or once for each of its commands (5.2).
            C::LinkAdrAns { channel_mask_ack, data_rate_ack, power_ack } => {
                let [mask, rate, power] = link_adr.unwrap_or([true; 3]);
                link_adr = Some([mask && channel_mask_ack, rate && data_rate_ack, power && power_ack]);
            }
            C::RxParamSetupAns { channel_ack, rx2_data_rate_ack, rx1_dr_offset_ack } => {
                settled.repeats = true;
                let acks =
                    [(channel_ack, "frequency"), (rx2_data_rate_ack, "data rate"), (rx1_dr_offset_ack, "offset")];
                settled.answer(Subject::RxParam, &acks, mac, home);
            }
            C::RxTimingSetupAns => {
                settled.repeats = true;
                settled.answer(Subject::RxTiming, &[], mac, home);
            }
            C::NewChannelAns { frequency_ack, data_rate_range_ack } => {
                let acks = [(frequency_ack, "frequency"), (data_rate_range_ack, "data rates")];
                if let Some(subject) = channels.next() {
                    settled.answer(subject, &acks, mac, home);
                }
            }
            C::DevStatusAns { battery, margin } => settled.dev_status(StatusEvent { margin, battery }, mac, home),
            C::TxParamSetupAns => {
                settled.repeats = true;
                settled.answer(Subject::TxParam, &[], mac, home);
            }
            C::DlChannelAns { .. } => settled.repeats = true,
            _ => {}
        }
    }
    settled.doubt_limits(mac, home, version);
    if let Some(acks) = link_adr {
        settled.link_adr(acks, adr, mac, home);
    }
    settled
}

/// The channels asked for in the last downlink that asked for any.
fn asked_channels(mac: &MacState) -> Vec<Subject> {
    let channel = |request: &Request| {
        let subject = request.subject().filter(|subject| matches!(subject, Subject::Channel(_)))?;
        request.is_open().then_some((request.asked_at, subject))
    };
    let asked: Vec<_> = mac.requests.iter().filter_map(channel).collect();
    let last = asked.iter().map(|(at, _)| *at).max();
    asked.into_iter().filter(|(at, _)| Some(*at) == last).map(|(_, subject)| subject).collect()
}

impl Settled {
    /// A device that keeps its data rate for itself takes the channels all the same, and says so (5.2). One that has no such data rate or
    /// power is asked for another one.
    fn link_adr(&mut self, [mask, rate, power]: [bool; 3], adr: bool, mac: &mut MacState, home: &Region) {
        let is_it = |request: &Request| request.is_open() && is_link_adr(request.subject());
        let at = mac.requests.iter().position(is_it);
        let Some(at) = at.filter(|_| mask && !(rate && power) && (!adr || mac.channels_set)) else {
            let acks = [(mask, "channels"), (rate, "data rate"), (power, "power")];
            self.answer(Subject::LinkAdr, &acks, mac, home);
            return;
        };
        self.subjects.push(Subject::LinkAdr);
        let request = mac.requests.remove(at);
        mac.channels_set = true;
        if let Some(&DownlinkCommand::LinkAdrReq { data_rate, tx_power, .. }) = request.read().last().filter(|_| adr) {
            if !rate {
                mac.adr.max_data_rate = Some(data_rate.saturating_sub(1));
            }
            match tx_power {
                _ if power => {}
                0 => mac.adr.min_power = 1,
                refused => mac.adr.max_power = Some(refused - 1),
            }
        }
    }

    fn dev_status(&mut self, status: StatusEvent, mac: &mut MacState, home: &Region) {
        if self.answer(Subject::DevStatus, &[], mac, home) {
            (mac.battery, mac.margin) = (Some(status.battery), Some(status.margin));
            self.status = Some(status);
        }
    }

    /// Whether the device was told what to send with, and has answered.
    pub fn was_told_to_send(&self) -> bool {
        self.subjects.contains(&Subject::LinkAdr)
    }

    /// Whether it was an answer to something that was asked.
    fn answer(&mut self, subject: Subject, acks: &[(bool, &str)], mac: &mut MacState, home: &Region) -> bool {
        let is_it = |request: &Request| request.is_open() && request.subject() == Some(subject);
        let at = mac.requests.iter().position(is_it);
        if at.is_some() || matches!(subject, Subject::RxParam | Subject::RxTiming | Subject::TxParam) {
            self.subjects.push(subject);
        }
        let Some(at) = at else { return false };
        let refused: Vec<&str> = acks.iter().filter(|(ack, _)| !ack).map(|(_, what)| *what).collect();
        if refused.is_empty() {
            let request = mac.requests.remove(at);
            request.read().iter().for_each(|command| grant(command, mac, home));
        } else if let Some(request) = mac.requests.get_mut(at) {
            request.state = RequestState::Refused;
            self.refused.push((request.clone(), refused.join(", ")));
        }
        true
    }

    /// An uplink at a data rate that is too slow for the limit to uplinks, of a device that has acknowledged it: it does not keep to that,
    /// and nothing is known of its limits any more.
    fn doubt_limits(&mut self, mac: &mut MacState, home: &Region, version: MacVersion) {
        if home.is_within_dwell_time(mac.data_rate) {
            return;
        }
        let Some(limits) = mac.dwell.take_if(|limits| limits.uplink) else { return };
        let Some(command) = tx_param_setup(limits, home, version) else { return };
        let mut commands = Vec::new();
        command.encode(&mut commands);
        let refused = Request { commands, tries: 1, asked_at: 0, state: RequestState::Refused };
        mac.requests.retain(|request| request.subject() != Some(Subject::TxParam));
        mac.requests.push(refused.clone());
        mac.requests.truncate(MOST_REQUESTS);
        self.refused.push((refused, "limit to uplinks".into()));
    }
}

/// What tells a device these limits; none if it would not know the command.
fn tx_param_setup(limits: DwellTime, home: &Region, version: MacVersion) -> Option<DownlinkCommand> {
    let DwellTime { uplink: uplink_dwell_time, downlink: downlink_dwell_time } = limits;
    let max_eirp = home.tx_param_setup(version as u8)?;
    Some(DownlinkCommand::TxParamSetupReq { downlink_dwell_time, uplink_dwell_time, max_eirp })
}

/// The device does from now on what it was asked.
fn grant(command: &DownlinkCommand, mac: &mut MacState, home: &Region) {
    match *command {
        DownlinkCommand::RxParamSetupReq { rx1_dr_offset, rx2_data_rate, frequency_hz } => {
            (mac.rx1_dr_offset, mac.rx2_data_rate, mac.rx2_frequency) = (rx1_dr_offset, rx2_data_rate, frequency_hz);
        }
        DownlinkCommand::RxTimingSetupReq { delay } => mac.rx1_delay = delay.max(1),
        DownlinkCommand::LinkAdrReq { data_rate, tx_power, nb_trans, .. } => {
            (mac.channels_set, mac.data_rate, mac.tx_power) = (true, data_rate, tx_power);
            mac.adr.nb_trans = if nb_trans > 1 { nb_trans } else { 0 };
            mac.adr.heard.clear();
        }
        DownlinkCommand::TxParamSetupReq { downlink_dwell_time, uplink_dwell_time, .. } => {
            mac.dwell = Some(DwellTime { uplink: uplink_dwell_time, downlink: downlink_dwell_time });
        }
        DownlinkCommand::NewChannelReq { index, frequency_hz, .. } => {
            let known = home.join_channels().len();
            let Some(at) = usize::from(index).checked_sub(known) else { return };
            let channels = mac.extra_channels.get_or_insert_with(|| home.extra_channels().unwrap_or_default());
            channels.resize(channels.len().max(at + 1), 0);
            if let Some(channel) = channels.get_mut(at) {
                *channel = frequency_hz;
            }
            while channels.last() == Some(&0) {
                channels.pop();
            }
            mac.extra_channels.take_if(|channels| home.extra_channels().as_ref() == Some(channels));
        }
        _ => {}
    }
}

/// What to ask for in the answer to the uplink with this FCntUp. `room`: what answers leave of FOpts.
pub fn ask(wanted: &Wanted<'_>, mac: &mut MacState, settled: &Settled, fcnt: u32, room: usize) -> Asked {
    let wishes = wanted.of(mac);
    let mut asked = Asked::default();
    mac.requests.retain_mut(|request| {
        if request.state == RequestState::Waiting && request.tries >= MOST_TRIES && is_due(request, fcnt) {
            if request.subject() == Some(Subject::DevStatus) {
                return false;
            }
            request.state = RequestState::Unanswered;
            asked.unanswered.push(request.clone());
        }
        let wished = wishes.iter().any(|wish| same(wish, &request.commands));
        wished || request.is_open() && !is_link_adr(request.subject())
    });
    let (mut due, mut besides): (Vec<&[u8]>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    let may = |subject: Option<Subject>| subject.is_some_and(|subject| !settled.subjects.contains(&subject));
    for request in mac.requests.iter().filter(|request| request.state == RequestState::Waiting) {
        if may(request.subject()) {
            let when = if is_due(request, fcnt) { &mut due } else { &mut besides };
            // A block names the data rate to go on with, which may be another one by now.
            let anew = wishes.iter().find(|wish| is_link_adr(request.subject()) && same(wish, &request.commands));
            when.push(anew.unwrap_or(&request.commands));
        }
    }
    for wish in &wishes {
        let subject = subject(wish);
        let known = mac.requests.iter().find(|request| request.subject() == subject);
        let rests = known.is_some_and(|r| r.state == RequestState::Waiting || same(&r.commands, wish));
        if !rests && may(subject) {
            due.push(wish);
        }
    }
    asked.due = !due.is_empty();
    due.append(&mut besides);
    asked.commands = first_of(&due, room);
    asked.due &= !asked.commands.is_empty();
    asked
}

/// As many as there is room for. A block of LinkADRReq that leaves no choice goes beyond it, to port 0.
fn first_of(requests: &[&[u8]], room: usize) -> Vec<u8> {
    let mut commands = Vec::new();
    for request in requests {
        if commands.len() + request.len() <= room {
            commands.extend_from_slice(request);
        } else if commands.is_empty() && is_link_adr(subject(request)) {
            return request.to_vec();
        }
    }
    commands
}

/// Whether the device has had its time to answer, and the request a pause.
fn is_due(request: &Request, fcnt: u32) -> bool {
    fcnt.checked_sub(request.asked_at).is_none_or(|uplinks| uplinks >= pause(request.tries))
}

/// Uplinks from one try to the next: at once at first, and then twice as many each time. Some devices answer one uplink late.
fn pause(tries: u8) -> u32 {
    match tries {
        0..AT_ONCE => 1,
        AT_ONCE..MOST_TRIES => 1 << tries,
        _ => 2,
    }
}

/// The first `length` bytes of requests, or less: none is cut.
pub fn whole(requests: &[u8], fits: impl Fn(usize) -> bool) -> &[u8] {
    let mut taken = &requests[..0];
    for part in parts(requests) {
        let length = taken.len() + part.len();
        match requests.get(..length).filter(|_| fits(length)) {
            Some(more) => taken = more,
            None => break,
        }
    }
    taken
}

/// The requests in there: LinkADRReqs in a row are one.
fn parts(requests: &[u8]) -> Vec<&[u8]> {
    let mut parts: Vec<(&[u8], bool)> = Vec::new();
    let (mut start, mut end) = (0, 0);
    for command in mac::parse_downlink(requests).commands {
        let of_a_block = matches!(command, DownlinkCommand::LinkAdrReq { .. });
        let goes_on = of_a_block && parts.last().is_some_and(|(_, block)| *block);
        if goes_on {
            parts.pop();
        } else {
            start = end;
        }
        end += command.len();
        parts.push((requests.get(start..end).unwrap_or_default(), of_a_block));
    }
    parts.into_iter().map(|(part, _)| part).collect()
}

/// A downlink with these requests is decided, for the uplink with this FCntUp.
pub fn note_sent(mac: &mut MacState, requests: &[u8], fcnt: u32, at: UnixMicros) {
    for part in parts(requests) {
        let subject = subject(part);
        // In the order on the air, for that is the order of the answers.
        let before = mac.requests.iter().position(|request| request.subject() == subject);
        let before = before.map(|at| mac.requests.remove(at));
        let tries = before.filter(|before| same(&before.commands, part)).map_or(0, |before| before.tries);
        let request = Request {
            commands: part.to_vec(),
            tries: tries.saturating_add(1),
            asked_at: fcnt,
            state: RequestState::Waiting,
        };
        if subject == Some(Subject::DevStatus) {
            mac.status_asked_at = at;
        }
        mac.requests.push(request);
        mac.requests.truncate(MOST_REQUESTS);
    }
}

fn subject(commands: &[u8]) -> Option<Subject> {
    mac::parse_downlink(commands).commands.first().and_then(Subject::of)
}

fn is_link_adr(subject: Option<Subject>) -> bool {
    subject == Some(Subject::LinkAdr)
}

/// Whether the one request is the other again: blocks of LinkADRReq are if they are about the same channels.
fn same(one: &[u8], other: &[u8]) -> bool {
    let masks = |commands: &[u8]| {
        let commands = mac::parse_downlink(commands).commands.into_iter();
        let mask = |command| match command {
            DownlinkCommand::LinkAdrReq { channel_mask, ch_mask_cntl, .. } => Some((ch_mask_cntl, channel_mask)),
            _ => None,
        };
        commands.map(mask).collect::<Option<Vec<_>>>()
    };
    one == other || masks(one).is_some_and(|one| Some(one) == masks(other))
}

impl Wanted<'_> {
    /// What the device has not, as requests; the most important first.
    fn of(&self, mac: &mut MacState) -> Vec<Vec<u8>> {
        let mut wishes = Vec::new();
        let mut wish = |commands: &[DownlinkCommand]| {
            let mut bytes = Vec::new();
            commands.iter().for_each(|command| command.encode(&mut bytes));
            wishes.push(bytes);
        };
        if !mac.channels_set || self.sending.is_some() {
            let block = self.link_adr(mac);
            // Where there is nothing to tell they need no telling.
            mac.channels_set |= block.is_empty();
            if !block.is_empty() {
                wish(&block);
            }
        }
        let limits = self.settings.dwell_time();
        let tell = tx_param_setup(limits, self.home, self.profile.mac_version).filter(|_| mac.dwell != Some(limits));
        tell.iter().for_each(|request| wish(&[*request]));
        // What an ABP device has built in is its owner's.
        let own = if self.joined { default_windows(self.home) } else { mac.windows() };
        let windows = wanted_windows(self.settings, self.profile, own);
        let timed = Windows { rx1_delay: mac.rx1_delay, ..windows };
        if timed != mac.windows() && self.home.tells_frequencies() {
            let Windows { rx1_dr_offset, rx2_data_rate, rx2_frequency: frequency_hz, .. } = windows;
            wish(&[DownlinkCommand::RxParamSetupReq { rx1_dr_offset, rx2_data_rate, frequency_hz }]);
        }
        if windows.rx1_delay != mac.rx1_delay.max(1) {
            wish(&[DownlinkCommand::RxTimingSetupReq { delay: windows.rx1_delay }]);
        }
        self.channels(mac).iter().for_each(|request| wish(&[*request]));
        if self.is_status_due(mac) {
            wish(&[DownlinkCommand::DevStatusReq]);
        }
        wishes
    }

    /// The LinkADRReqs that tell a device its sub-band, or to go on with all the channels that it has, and what it is to send with.
    fn link_adr(&self, mac: &MacState) -> Vec<DownlinkCommand> {
        let sending = self.sending.unwrap_or_else(|| adr::now(mac));
        let mut requests = self.home.channel_mask_requests(sending.data_rate);
        if requests.is_empty() && self.sending.is_some() {
            // "All channels on" (ChMaskCntl 6) needs no word of which ones a device has; the mask is that of channels which all have.
            let known = self.home.join_channels().len().min(8);
            let channel_mask = if self.home.extra_channel_range().is_some() { (1 << known) - 1 } else { 0xff };
            let Sending { data_rate, tx_power, nb_trans } = sending;
            requests.push(DownlinkCommand::LinkAdrReq { data_rate, tx_power, channel_mask, ch_mask_cntl: 6, nb_trans });
        }
        for request in &mut requests {
            if let DownlinkCommand::LinkAdrReq { tx_power, nb_trans, .. } = request {
                (*tx_power, *nb_trans) = (sending.tx_power, sending.nb_trans);
            }
        }
        requests
    }

    /// NewChannelReqs for channels that are other ones than the device's, which are never those that every device knows (5.6).
    fn channels(&self, mac: &MacState) -> Vec<DownlinkCommand> {
        if mac.extra_channels == self.settings.extra_channels {
            return Vec::new();
        }
        let own = || self.home.extra_channels().unwrap_or_default();
        let (Some((low, _)), has) = (self.home.extra_channel_range(), mac.extra_channels.clone().unwrap_or_else(own))
        else {
            return Vec::new();
        };
        let wants = self.settings.extra_channels.clone().unwrap_or_else(own);
        // Where there is to be none anything says how many there are.
        let mut padded = wants.clone();
        padded.resize(has.len().max(wants.len()), low);
        let known = self.home.join_channels().len();
        let channels = self.home.channels_with(&padded).into_iter().skip(known).enumerate();
        let requests = channels.filter_map(|(at, channel)| {
            let frequency_hz = wants.get(at).copied().unwrap_or_default();
            (has.get(at).copied().unwrap_or_default() != frequency_hz).then_some(DownlinkCommand::NewChannelReq {
                index: channel.index,
                frequency_hz,
                min_data_rate: channel.min_dr,
                max_data_rate: channel.max_dr,
            })
        });
        requests.collect()
    }

    fn is_status_due(&self, mac: &MacState) -> bool {
        let times_a_day = u64::from(self.profile.device_status_req_interval);
        let asked_at = mac.status_asked_at.0;
        times_a_day > 0 && (asked_at == 0 || self.at.0.saturating_sub(asked_at) >= DAY / times_a_day)
    }
}

/// Whether the device was told what to send with, and has not answered.
pub fn awaits_link_adr(mac: &MacState) -> bool {
    let waits = |request: &Request| request.state == RequestState::Waiting && is_link_adr(request.subject());
    mac.requests.iter().any(waits)
}

/// For people: what was asked for.
pub fn describe(request: &Request) -> String {
    let commands = request.read();
    let Some(first) = commands.first() else { return String::new() };
    let name = Subject::of(first).map_or("", Subject::name);
    match *first {
        DownlinkCommand::RxParamSetupReq { rx1_dr_offset, rx2_data_rate, frequency_hz } => {
            format!("{name} (RX1 at offset {rx1_dr_offset}, RX2 at DR{rx2_data_rate} on {frequency_hz} Hz)")
        }
        DownlinkCommand::RxTimingSetupReq { delay } => format!("{name} (RX1 after {delay} s)"),
        DownlinkCommand::TxParamSetupReq { downlink_dwell_time, uplink_dwell_time, .. } => {
            let limit = |limited| if limited { "400 ms" } else { "none" };
            format!(
                "{name} (limit to uplinks {}, to downlinks {})",
                limit(uplink_dwell_time),
                limit(downlink_dwell_time)
            )
        }
        DownlinkCommand::NewChannelReq { index, frequency_hz, .. } => {
            format!("{name} (channel {index} on {frequency_hz} Hz)")
        }
        DownlinkCommand::LinkAdrReq { data_rate, tx_power, .. } => {
            format!("{name} (channels, DR{data_rate}, power {tx_power})")
        }
        _ => name.into(),
    }
}

/// What FOpts have left beside these answers.
pub fn room_beside(answers: &[u8]) -> usize {
    MAX_FOPTS.saturating_sub(answers.len())
}

#[cfg(test)]
mod tests;
